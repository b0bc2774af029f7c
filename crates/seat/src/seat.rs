//! The shell around the bridge's state machine: lanes in, effects out.
//!
//! # Invariants
//! 1. A client of the machine is a process: all lanes of one session are one client, whichever door they came in by.
//! 2. A message of a client is handled only after the lanes that it opened before.

use std::{
    collections::{BTreeMap, VecDeque},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use keyway::{
    Audience, Capability, Carried, Client, Depositor, Incoming, LaneId, Message, Outgoing, Peer, Queue,
    QueueOptions, RegionReader, ReplyTo, Rights, Watch,
    abi::{BadgeBearer, limits::RING_BYTES_DEFAULT},
    bridge::{COMPOSITOR_SERVICE, SERVICE},
};
use keyway_gui::{
    Access, BackendFailure, Bridge, ClientId, Door, Effect, Identity, RequestNumber, Ticket,
    protocol::{
        self, Answer, Capability as Granted, ConnectorId, DenialReason, DeviceId, Event, GuiResponse,
        LeaseId, Pid, Request, SurfaceConfig, SurfaceId, SurfaceLayout,
    },
};

use keyway_sys::process;

use crate::{
    door::{CompositorRule, lets_in},
    drm::Job,
    evidence,
    hardware::{Backend, Hardware, HardwareError},
    headless::KEYBOARD,
    input::VirtualInput,
    news::News,
};

/// How the bridge is to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which hardware.
    pub backend: Backend,
    /// Where to save what the first virtual connector shows, each time that something is presented; the others beside it.
    pub screenshot: Option<PathBuf>,
    /// What the virtual keyboard types to whoever takes it; 256 letters at most.
    pub keys: String,
    /// What to answer about the machine, instead of looking at it.
    pub is_mobile: Option<bool>,
    /// Who may be the compositor, besides root and the bridge's own user.
    pub compositors: Vec<CompositorRule>,
}

/// Why the bridge cannot begin, or go on.
#[derive(Debug, thiserror::Error)]
pub enum SeatError {
    /// The broker refused something, or is gone.
    #[error("{0}")]
    Keyway(#[from] keyway::Error),
    /// There is no such hardware, or it cannot be had.
    #[error("{0}")]
    Hardware(#[from] HardwareError),
    /// A thread of the bridge's own has ended.
    #[error("the bridge's own threads are gone: start it anew")]
    HardwareGone,
    /// The hardware contradicts itself.
    #[error("the hardware cannot be used: {0:?}")]
    Facts(keyway_gui::FactsRefused),
}

/// A running bridge. When it is dropped, everything that it granted ends.
#[derive(Debug)]
pub struct Seat {
    client: Client,
    machine: Bridge,
    hardware: Hardware,
    options: Options,
    public: Queue,
    door: Queue,
    _names: [Capability; 2],
    depositor: Depositor,
    clients: BTreeMap<ClientId, Lanes>,
    /// The process that the request in hand registers.
    introduced: Option<(ClientId, Capability)>,
    /// Registered processes without a lane. Who gives the capability up is told no longer.
    watches: BTreeMap<ClientId, (Watch, Capability)>,
    surfaces: BTreeMap<SurfaceId, Buffer>,
    inputs: BTreeMap<(ClientId, DeviceId), Input>,
    /// The descriptors of leases, for their holder to claim.
    leases: BTreeMap<LeaseId, Capability>,
    calls: BTreeMap<RequestNumber, ReplyTo>,
    /// Events for clients that have opened a lane and not yet said where to send them.
    early: BTreeMap<ClientId, Vec<Event>>,
    last_request: u64,
    /// What the next message carries.
    attached: Option<(SurfaceId, Access)>,
    /// Messages that wait until these devices are taken back.
    untold: Vec<(Vec<u64>, Vec<Effect>)>,
    began: Instant,
}

/// Events that are kept for a client. LIMIT: later ones are lost.
const EARLY_MAX: usize = 16;
/// LIMIT: lanes by each of the two names; one can sleep on 127 together.
const PUBLIC_LANES_MAX: u16 = 112;
const DOOR_LANES_MAX: u16 = 8;
/// LIMIT: lanes of one client by one name, so that none takes all.
const LANES_PER_CLIENT_MAX: usize = 4;

/// The lanes of one client.
#[derive(Debug, Default)]
struct Lanes {
    public: Vec<LaneId>,
    door: Vec<LaneId>,
}

#[derive(Debug)]
struct Buffer {
    region: Capability,
    config: SurfaceConfig,
    layout: SurfaceLayout,
    /// Once it has been shown.
    pixels: Option<Arc<RegionReader>>,
}

#[derive(Debug)]
struct Input {
    device: Capability,
    source: Source,
}

/// What a granted device is.
#[derive(Debug)]
enum Source {
    /// The grant lives as long as this does.
    Virtual { _input: VirtualInput },
    /// What the holder has of it ends when this is revoked.
    Real(OwnedFd),
}

impl Seat {
    /// Publishes the bridge's names and waits for clients.
    ///
    /// # Errors
    /// [`SeatError::Keyway`] when a bridge runs already, or this process may not publish or hand in devices.
    pub fn start(client: &Client, options: Options) -> Result<Self, SeatError> {
        let mut evidence = evidence::gather("/".as_ref());
        evidence.decreed_mobile = options.is_mobile;
        let (hardware, facts) = Hardware::find(client, options.backend, evidence)?;
        let machine = Bridge::new(facts).map_err(SeatError::Facts)?;
        // A message is as long as its sender's ring allows, and is copied: no longer than a request needs.
        let narrow = QueueOptions { ring_bytes_max: RING_BYTES_DEFAULT, ..QueueOptions::default() };
        let public =
            client.create_queue(QueueOptions { senders_max: PUBLIC_LANES_MAX, stock: 8, ..narrow })?;
        let door = client.create_queue(QueueOptions { senders_max: DOOR_LANES_MAX, ..narrow })?;
        // Where others may come in, who does is looked at when it does.
        let audience =
            if options.compositors.is_empty() { Audience::OwnUserAndRoot } else { Audience::Everyone };
        // Without the right to grant: a lane is its opener's own.
        let names = [
            client.publish(SERVICE, public.capability(), Rights::SEND, Audience::Everyone)?,
            client.publish(COMPOSITOR_SERVICE, door.capability(), Rights::SEND, audience)?,
        ];
        let depositor = client.open_depositor()?;
        Ok(Seat {
            client: client.clone(),
            machine,
            hardware,
            options,
            public,
            door,
            _names: names,
            depositor,
            clients: BTreeMap::new(),
            introduced: None,
            watches: BTreeMap::new(),
            surfaces: BTreeMap::new(),
            inputs: BTreeMap::new(),
            leases: BTreeMap::new(),
            calls: BTreeMap::new(),
            early: BTreeMap::new(),
            last_request: 0,
            attached: None,
            untold: Vec::new(),
            began: Instant::now(),
        })
    }

    /// Handles everything that has come; waits for something, but no longer than `timeout`.
    ///
    /// # Errors
    /// [`SeatError::Keyway`] when the broker is gone.
    pub fn turn(&mut self, timeout: Duration) -> Result<(), SeatError> {
        let mut did_something = false;
        // LIMIT: one message of each client a turn, so that deadlines and deaths are seen in between.
        for _ in 0..=self.clients.len() {
            self.look_at_door()?;
            let Some(incoming) = self.public.try_next()? else { break };
            did_something = true;
            self.on_public(incoming)?;
        }
        self.look_at_hardware()?;
        self.send_early();
        self.look_at_deaths()?;
        self.look_at_deadlines();
        if !did_something {
            let patience = self.patience(timeout);
            match &mut self.hardware {
                Hardware::Headless(_) => keyway::wait_any(&mut [&mut self.public, &mut self.door], patience)?,
                Hardware::Real(real) => {
                    let queues = &mut [&mut self.public, &mut self.door, &mut real.queue];
                    keyway::wait_any(queues, patience)?;
                }
            }
        }
        Ok(())
    }

    /// Until the next deadline of a request, at most.
    fn patience(&self, timeout: Duration) -> Duration {
        match self.machine.deadline_ns() {
            Some(deadline_ns) => timeout.min(Duration::from_nanos(deadline_ns.saturating_sub(self.now_ns()))),
            None => timeout,
        }
    }

    fn look_at_door(&mut self) -> Result<(), SeatError> {
        while let Some(incoming) = self.door.try_next()? {
            match incoming {
                Incoming::Opened(peer) => self.on_lane_opened(&peer, Door::Compositor),
                Incoming::Ended { peer, .. } => self.on_lane_ended(&peer),
                // Holding the door is all that it is for.
                Incoming::Message(message) => {
                    let client = ClientId(message.sender.process.0);
                    self.break_with(client, message.lane, Door::Compositor);
                }
            }
        }
        Ok(())
    }

    fn on_public(&mut self, incoming: Incoming) -> Result<(), SeatError> {
        match incoming {
            Incoming::Opened(peer) => self.on_lane_opened(&peer, Door::Public),
            Incoming::Ended { peer, .. } => self.on_lane_ended(&peer),
            Incoming::Message(message) => {
                // Invariant 2: its sender may have opened the door after the last look at it.
                self.look_at_door()?;
                self.on_message(message);
            }
        }
        Ok(())
    }

    fn on_lane_opened(&mut self, peer: &Peer, door: Door) {
        let client = ClientId(peer.identity.process.0);
        let identity = Identity { pid: Pid(peer.identity.pid), uid: peer.identity.uid };
        let has_enough = self.clients.get(&client).is_some_and(|lanes| {
            let open = match door {
                Door::Public => &lanes.public,
                Door::Compositor => &lanes.door,
            };
            open.len() >= LANES_PER_CLIENT_MAX
        });
        let known = match peer.bearer {
            _ if has_enough || !self.may_come_in(peer, door) => return self.close(peer.lane, door),
            BadgeBearer::Opener => self.machine.on_lane_opened(client, identity, door).map(Iterator::collect),
            // A capability that was made for another process: its opener is not who the badge says.
            BadgeBearer::Other | BadgeBearer::Unnamed => return self.close(peer.lane, door),
        };
        match known {
            Ok(effects) => {
                let lanes = self.clients.entry(client).or_default();
                match door {
                    Door::Public => lanes.public.push(peer.lane),
                    Door::Compositor => lanes.door.push(peer.lane),
                }
                self.carry_out(effects);
            }
            Err(_) => self.close(peer.lane, door),
        }
    }

    fn may_come_in(&self, peer: &Peer, door: Door) -> bool {
        door == Door::Public || lets_in(&self.options.compositors, process::own_uid(), &peer.identity)
    }

    fn close(&mut self, lane: LaneId, door: Door) {
        match door {
            Door::Public => self.public.close_lane(lane),
            Door::Compositor => self.door.close_lane(lane),
        }
    }

    fn on_lane_ended(&mut self, peer: &Peer) {
        self.forget_lane(ClientId(peer.identity.process.0), peer.lane);
    }

    fn forget_lane(&mut self, client: ClientId, lane: LaneId) {
        let Some(lanes) = self.clients.get_mut(&client) else { return };
        lanes.public.retain(|open| *open != lane);
        lanes.door.retain(|open| *open != lane);
        if lanes.public.is_empty() && lanes.door.is_empty() {
            self.forget(client);
        }
    }

    fn forget(&mut self, client: ClientId) {
        self.clients.remove(&client);
        self.watches.remove(&client);
        self.early.remove(&client);
        let effects = self.machine.on_client_gone(client).collect();
        self.carry_out(effects);
    }

    fn on_message(&mut self, mut message: Message) {
        let client = ClientId(message.sender.process.0);
        let request = protocol::decode::<Request>(&message.payload);
        let (Ok(request), Some(reply_to)) = (request, message.reply_to.take()) else {
            // Bytes that are no request, or a request that nobody waits for: that lane ends, no other.
            return self.break_with(client, message.lane, Door::Public);
        };
        let request = match self.named_process(request, message) {
            Ok(request) => request,
            Err(reason) => return self.reply(reply_to, &reason.into(), &[]),
        };
        self.last_request += 1;
        let number = RequestNumber(self.last_request);
        self.calls.insert(number, reply_to);
        let now_ns = self.now_ns();
        let effects = self.machine.handle(now_ns, client, number, request).collect();
        self.carry_out(effects);
        self.introduced = None;
    }

    /// An application is named by a capability to its process; the kernel says which that is, and its pid.
    fn named_process(&mut self, request: Request, message: Message) -> Result<Request, DenialReason> {
        let Request::RegisterApplication { pid, .. } = request else { return Ok(request) };
        let capability = message.capabilities.into_iter().next().and_then(Result::ok);
        let capability = capability.ok_or(DenialReason::Unauthorized)?;
        match capability.entry().ok().and_then(|entry| entry.process) {
            // The kernel knows a process that has ended or has not spoken by pid 0.
            Some((process, found)) if found != 0 && Pid(found) == pid => {
                self.introduced = Some((ClientId(process.0), capability));
                Ok(Request::RegisterApplication { pid, process: process.0 })
            }
            _ => Err(DenialReason::Unauthorized),
        }
    }

    fn break_with(&mut self, client: ClientId, lane: LaneId, door: Door) {
        self.close(lane, door);
        self.forget_lane(client, lane);
    }

    fn look_at_deaths(&mut self) -> Result<(), SeatError> {
        let mut dead = Vec::new();
        for (client, (watch, _)) in &self.watches {
            if watch.has_ended()? {
                dead.push(*client);
            }
        }
        for client in dead {
            self.forget(client);
        }
        Ok(())
    }

    fn look_at_deadlines(&mut self) {
        let now_ns = self.now_ns();
        while let Some(effects) = self.machine.poll_expired(now_ns).map(Iterator::collect) {
            self.carry_out(effects);
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What the machine says, done.
impl Seat {
    /// Carries effects out in order. What the hardware answers goes back to the machine, whose further effects follow.
    ///
    /// What is to be told after a device is taken back is told once that is done; everything else goes on meanwhile.
    fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut waiting = VecDeque::from(effects);
        let (mut revoking, mut told) = (Vec::new(), Vec::new());
        while let Some(effect) = waiting.pop_front() {
            let answered = match effect {
                Effect::Answer { .. } | Effect::Notify { .. } | Effect::ShareSurface { .. } => {
                    told.push(effect);
                    if revoking.is_empty() {
                        self.tell(std::mem::take(&mut told));
                    }
                    None
                }
                Effect::RevokeInput { client, device } => {
                    revoking.extend(self.revoke_input(client, device));
                    None
                }
                Effect::WatchProcess { client } => {
                    self.watch(client);
                    None
                }
                effect => self.drive(&effect),
            };
            if let Some((ticket, outcome)) = answered {
                waiting.extend(self.machine.on_backend(ticket, outcome));
            }
        }
        if !told.is_empty() {
            self.untold.push((revoking, told));
        }
    }

    /// Sends messages, each with what the effect before it attaches.
    fn tell(&mut self, messages: Vec<Effect>) {
        for effect in messages {
            match effect {
                Effect::ShareSurface { surface, access, .. } => self.attached = Some((surface, access)),
                Effect::Answer { client, request, answer } => {
                    let attached = self.attached.take();
                    self.answer(client, request, &answer, attached);
                }
                Effect::Notify { client, event } => {
                    let attached = self.attached.take();
                    self.notify(client, &event, attached);
                }
                _ => {}
            }
        }
    }

    /// What the hardware has to tell.
    fn look_at_hardware(&mut self) -> Result<(), SeatError> {
        // LIMIT: each round takes one thing that was told.
        loop {
            let Hardware::Real(real) = &mut self.hardware else { return Ok(()) };
            // What wakes is taken before what it wakes for, so that nothing is left over in silence.
            while real.queue.try_next()?.is_some() {}
            match real.news.try_recv() {
                Ok(news) => self.on_news(news),
                Err(_) if real.is_over() => return Err(SeatError::HardwareGone),
                Err(_) => return Ok(()),
            }
        }
    }

    fn on_news(&mut self, news: News) {
        let effects: Vec<Effect> = match news {
            News::Answered(ticket, outcome) => self.machine.on_backend(ticket, outcome).collect(),
            // What is over the machine's bounds does not exist for it.
            News::ConnectorChanged(info) => {
                self.machine.on_connector_changed(info).map(Iterator::collect).unwrap_or_default()
            }
            News::ConnectorRemoved(connector) => self.machine.on_connector_removed(connector).collect(),
            News::Leased(ticket, lease, made) => {
                let outcome = self.take_lease(lease, made).map_err(|message| BackendFailure { message });
                self.machine.on_backend(ticket, outcome).collect()
            }
            News::InputChanged => return self.on_input_changed(),
            News::Revoked(number) => return self.on_revoked(number),
        };
        self.carry_out(effects);
    }

    /// Has the broker keep a lease's descriptor for whoever asked for it.
    fn take_lease(&mut self, lease: LeaseId, made: Result<OwnedFd, String>) -> Result<(), String> {
        let label = format!("lease-{}", lease.0);
        let kept = made.and_then(|fd| self.depositor.deposit(&label, fd).map_err(|error| error.to_string()));
        if kept.is_err()
            && let Hardware::Real(real) = &mut self.hardware
        {
            // Nobody will have it.
            real.do_job(Job::EndLease(lease));
        }
        self.leases.insert(lease, kept?);
        Ok(())
    }

    fn on_input_changed(&mut self) {
        let Hardware::Real(real) = &mut self.hardware else { return };
        let (came, gone) = real.devices.scan();
        let device_type = real.device_type();
        for device in gone {
            let effects = self.machine.on_device_removed(device).collect();
            self.carry_out(effects);
        }
        for device in came {
            let effects = self.machine.on_device_added(device).map(Iterator::collect).unwrap_or_default();
            self.carry_out(effects);
        }
        let effects = self.machine.on_device_type(device_type).collect();
        self.carry_out(effects);
    }

    /// Tells what waited for a device to be taken back.
    fn on_revoked(&mut self, number: u64) {
        for (revoking, _) in &mut self.untold {
            revoking.retain(|waiting| *waiting != number);
        }
        while let Some(ready) = self.untold.iter().position(|(revoking, _)| revoking.is_empty()) {
            let (_, messages) = self.untold.remove(ready);
            self.tell(messages);
        }
    }

    /// What concerns the hardware. Returns what it answered, where the machine waits for that and it is known already.
    fn drive(&mut self, effect: &Effect) -> Option<(Ticket, Result<(), BackendFailure>)> {
        match *effect {
            Effect::SetMode { ticket, connector, mode } => match &mut self.hardware {
                Hardware::Headless(headless) => {
                    headless.set_mode(connector, mode);
                    Some((ticket, Ok(())))
                }
                Hardware::Real(real) => {
                    real.do_job(Job::SetMode { ticket, connector, mode });
                    None
                }
            },
            Effect::RestoreDisplay => {
                match &mut self.hardware {
                    Hardware::Headless(headless) => headless.restore(),
                    Hardware::Real(real) => real.do_job(Job::Restore),
                }
                None
            }
            Effect::AllocateSurface { ticket, surface, config, layout, .. } => {
                Some((ticket, self.allocate(surface, config, layout).map_err(|error| failure(&error))))
            }
            Effect::FreeSurface { surface } => {
                match &mut self.hardware {
                    Hardware::Headless(headless) => headless.hide(surface),
                    Hardware::Real(real) => real.do_job(Job::Hide(surface)),
                }
                if let Some(buffer) = self.surfaces.remove(&surface) {
                    // It may be gone with the broker.
                    let _ = buffer.region.revoke();
                }
                None
            }
            Effect::GrantInput { ticket, client, device } => {
                let granted = self.grant_input(client, device);
                Some((ticket, granted.map_err(|message| BackendFailure { message })))
            }
            Effect::Present { ticket, connector, surface } => {
                let shown = self.present(ticket, connector, surface);
                shown.map_err(|message| BackendFailure { message }).transpose().map(|shown| (ticket, shown))
            }
            Effect::LeaseDisplay { ticket, lease, ref connectors } => match &mut self.hardware {
                Hardware::Headless(_) => {
                    let message = "there is no hardware behind virtual screens that could be leased".into();
                    Some((ticket, Err(BackendFailure { message })))
                }
                Hardware::Real(real) => {
                    real.do_job(Job::Lease { ticket, lease, connectors: connectors.clone() });
                    None
                }
            },
            Effect::EndLease { lease } => {
                if let Some(descriptor) = self.leases.remove(&lease) {
                    // Nobody else claims it from now on.
                    let _ = descriptor.revoke();
                }
                if let Hardware::Real(real) = &mut self.hardware {
                    real.do_job(Job::EndLease(lease));
                }
                None
            }
            Effect::Answer { .. }
            | Effect::Notify { .. }
            | Effect::ShareSurface { .. }
            | Effect::RevokeInput { .. }
            | Effect::WatchProcess { .. } => None,
        }
    }

    fn allocate(
        &mut self,
        surface: SurfaceId,
        config: SurfaceConfig,
        layout: SurfaceLayout,
    ) -> Result<(), keyway::Error> {
        let region = self.client.create_region(layout.bytes)?;
        self.surfaces.insert(surface, Buffer { region, config, layout, pixels: None });
        Ok(())
    }

    fn grant_input(&mut self, client: ClientId, device: DeviceId) -> Result<(), String> {
        let label = format!("input-{}", device.0);
        let (capability, source) = match &self.hardware {
            Hardware::Headless(_) => {
                let (mut input, reader) = VirtualInput::new().map_err(|error| error.to_string())?;
                let capability =
                    self.depositor.deposit(&label, &reader).map_err(|error| error.to_string())?;
                if device == KEYBOARD {
                    input.type_text(&self.options.keys).map_err(|error| error.to_string())?;
                }
                (capability, Source::Virtual { _input: input })
            }
            Hardware::Real(real) => {
                let fd = real.devices.open(device)?;
                let capability = self.depositor.deposit(&label, &fd).map_err(|error| error.to_string())?;
                (capability, Source::Real(fd))
            }
        };
        self.inputs.insert((client, device), Input { device: capability, source });
        Ok(())
    }

    /// Takes a device from whoever has it. Returns the number under which [`News::Revoked`] tells that it is done, if it is not yet.
    fn revoke_input(&mut self, client: ClientId, device: DeviceId) -> Option<u64> {
        let input = self.inputs.remove(&(client, device))?;
        // Nobody else claims it from now on.
        let _ = input.device.revoke();
        match (input.source, &mut self.hardware) {
            (Source::Real(fd), Hardware::Real(real)) => Some(real.revoke(fd)),
            _ => None,
        }
    }

    /// Shows a surface. `None` when the answer comes later.
    fn present(
        &mut self,
        ticket: Ticket,
        connector: ConnectorId,
        surface: SurfaceId,
    ) -> Result<Option<()>, String> {
        let buffer = self.surfaces.get_mut(&surface).ok_or("the surface has no buffer")?;
        let pixels = if let Some(pixels) = &buffer.pixels {
            Arc::clone(pixels)
        } else {
            let mapped = self.client.map_reader(&buffer.region).map_err(|error| error.to_string())?;
            Arc::clone(buffer.pixels.insert(Arc::new(mapped)))
        };
        let (config, layout) = (buffer.config, buffer.layout);
        let headless = match &mut self.hardware {
            Hardware::Real(real) => {
                real.do_job(Job::Show { ticket, connector, surface, pixels, config, layout });
                return Ok(None);
            }
            Hardware::Headless(headless) => headless,
        };
        let shown = headless.show(connector, surface, &pixels, (&config, &layout));
        shown.map_err(|error| error.to_string())?;
        if let Some(path) = &self.options.screenshot {
            headless.save(path).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(Some(()))
    }

    fn answer(
        &mut self,
        client: ClientId,
        request: RequestNumber,
        answer: &Answer,
        attached: Option<(SurfaceId, Access)>,
    ) {
        // Whoever asked may have gone.
        let Some(reply_to) = self.calls.remove(&request) else { return };
        if let Answer::Document(GuiResponse::Granted { capability: Granted::InputDevice { device, .. } }) =
            answer
            && let Some(input) = self.inputs.remove(&(client, *device))
        {
            self.reply(reply_to, answer, &[Carried::Copy(&input.device, Rights::CLAIM)]);
            self.inputs.insert((client, *device), input);
            return;
        }
        if let Answer::DisplayLeased { lease } = answer
            && let Some(descriptor) = self.leases.remove(lease)
        {
            self.reply(reply_to, answer, &[Carried::Copy(&descriptor, Rights::CLAIM)]);
            self.leases.insert(*lease, descriptor);
            return;
        }
        let buffer =
            attached.and_then(|(surface, access)| Some((self.surfaces.remove_entry(&surface)?, access)));
        let Some(((surface, buffer), access)) = buffer else { return self.reply(reply_to, answer, &[]) };
        self.reply(reply_to, answer, &[Carried::Copy(&buffer.region, rights(access))]);
        self.surfaces.insert(surface, buffer);
    }

    fn reply(&mut self, reply_to: ReplyTo, answer: &Answer, carried: &[Carried<'_>]) {
        // An answer that is too long for its lane was bounded by the machine; a caller that is gone needs none.
        if let Ok(payload) = protocol::encode(answer) {
            let message = Outgoing { payload: &payload, capabilities: carried, ..Outgoing::default() };
            let _ = self.public.reply(reply_to, &message);
        }
    }

    fn notify(&mut self, client: ClientId, event: &Event, attached: Option<(SurfaceId, Access)>) {
        let Some(lane) = self.clients.get(&client).and_then(|lanes| lanes.public.first()).copied() else {
            return;
        };
        let Ok(payload) = protocol::encode(event) else { return };
        let buffer = attached.and_then(|(surface, access)| Some((self.surfaces.get(&surface)?, access)));
        let carried = buffer.map(|(buffer, access)| Carried::Copy(&buffer.region, rights(access)));
        let capabilities = carried.as_slice();
        let message = Outgoing { payload: &payload, capabilities, ..Outgoing::default() };
        // One that does not take its events loses them.
        let sent = self.public.notify(lane, &message);
        // The compositor has made a call to become one: whoever is early has no buffer attached.
        if let (Err(keyway::Error::NoReplyExpected), None) = (sent, attached) {
            let early = self.early.entry(client).or_default();
            if early.len() < EARLY_MAX {
                early.push(event.clone());
            }
        }
    }

    /// A client that has just opened its lane says in its first message where to send events.
    fn send_early(&mut self) {
        for (client, events) in std::mem::take(&mut self.early) {
            for event in events {
                self.notify(client, &event, None);
            }
        }
    }

    fn watch(&mut self, client: ClientId) {
        let Some((introduced, process)) = self.introduced.take() else { return };
        if introduced != client {
            return;
        }
        match process.watch() {
            Ok(watch) => drop(self.watches.insert(client, (watch, process))),
            // It has ended meanwhile.
            Err(_) => self.forget(client),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // To delete a capability leaves what was derived from it with its holders: what was granted is revoked.
        while let Some(client) = self.clients.keys().next().copied() {
            self.forget(client);
        }
    }
}

fn rights(access: Access) -> Rights {
    match access {
        Access::Write => Rights::WRITE | Rights::MAP,
        Access::Read => Rights::MAP,
    }
}

fn failure(error: &keyway::Error) -> BackendFailure {
    BackendFailure { message: error.to_string() }
}
