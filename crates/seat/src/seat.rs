//! The shell around the bridge's state machine: lanes in, effects out.
//!
//! # Invariants
//! 1. A client of the machine is a process: all lanes of one session are one client, whichever door they came in by.
//! 2. A message of a client is handled only after the lanes that it opened before.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::PathBuf,
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
        self, Answer, Capability as Granted, ConnectorId, DenialReason, DeviceId, Event, GuiResponse, Pid,
        Request, SurfaceConfig, SurfaceId, SurfaceLayout,
    },
};

use crate::{
    evidence,
    headless::{Headless, KEYBOARD},
    input::VirtualInput,
};

/// How the bridge is to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where to save what the first connector shows, each time that something is presented; the others beside it.
    pub screenshot: Option<PathBuf>,
    /// What the virtual keyboard types to whoever takes it; 256 letters at most.
    pub keys: String,
    /// What to answer about the machine, instead of looking at it.
    pub is_mobile: Option<bool>,
}

/// Why the bridge cannot begin, or go on.
#[derive(Debug, thiserror::Error)]
pub enum SeatError {
    /// The broker refused something, or is gone.
    #[error("{0}")]
    Keyway(#[from] keyway::Error),
    /// The virtual hardware contradicts itself.
    #[error("the hardware cannot be used: {0:?}")]
    Facts(keyway_gui::FactsRefused),
}

/// A running bridge. When it is dropped, everything that it granted ends.
#[derive(Debug)]
pub struct Seat {
    client: Client,
    machine: Bridge,
    backend: Headless,
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
    calls: BTreeMap<RequestNumber, ReplyTo>,
    /// Events for clients that have opened a lane and not yet said where to send them.
    early: BTreeMap<ClientId, Vec<Event>>,
    last_request: u64,
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
    pixels: Option<RegionReader>,
}

#[derive(Debug)]
struct Input {
    device: Capability,
    /// The grant lives as long as this does.
    _source: VirtualInput,
}

impl Seat {
    /// Publishes the bridge's names and waits for clients.
    ///
    /// # Errors
    /// [`SeatError::Keyway`] when a bridge runs already, or this process may not publish or hand in devices.
    pub fn start(client: &Client, options: Options) -> Result<Self, SeatError> {
        let mut evidence = evidence::gather("/".as_ref());
        evidence.decreed_mobile = options.is_mobile;
        let (backend, facts) = Headless::new(evidence);
        let machine = Bridge::new(facts).map_err(SeatError::Facts)?;
        // A message is as long as its sender's ring allows, and is copied: no longer than a request needs.
        let narrow = QueueOptions { ring_bytes_max: RING_BYTES_DEFAULT, ..QueueOptions::default() };
        let public =
            client.create_queue(QueueOptions { senders_max: PUBLIC_LANES_MAX, stock: 8, ..narrow })?;
        let door = client.create_queue(QueueOptions { senders_max: DOOR_LANES_MAX, ..narrow })?;
        // Without the right to grant: a lane is its opener's own.
        let names = [
            client.publish(SERVICE, public.capability(), Rights::SEND, Audience::Everyone)?,
            client.publish(COMPOSITOR_SERVICE, door.capability(), Rights::SEND, Audience::OwnUserAndRoot)?,
        ];
        let depositor = client.open_depositor()?;
        Ok(Seat {
            client: client.clone(),
            machine,
            backend,
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
            calls: BTreeMap::new(),
            early: BTreeMap::new(),
            last_request: 0,
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
        self.send_early();
        self.look_at_deaths()?;
        self.look_at_deadlines();
        if !did_something {
            let patience = self.patience(timeout);
            keyway::wait_any(&mut [&mut self.public, &mut self.door], patience)?;
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
            _ if has_enough => return self.close(peer.lane, door),
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
    fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut waiting = VecDeque::from(effects);
        let mut attached = None;
        while let Some(effect) = waiting.pop_front() {
            let answered = match effect {
                Effect::Answer { client, request, answer } => {
                    self.answer(client, request, &answer, attached.take());
                    None
                }
                Effect::Notify { client, event } => {
                    self.notify(client, &event, attached.take());
                    None
                }
                Effect::ShareSurface { surface, access, .. } => {
                    attached = Some((surface, access));
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
    }

    /// What concerns the hardware. Returns what it answered, where the machine waits for that.
    fn drive(&mut self, effect: &Effect) -> Option<(Ticket, Result<(), BackendFailure>)> {
        match *effect {
            Effect::SetMode { ticket, connector, mode } => {
                self.backend.set_mode(connector, mode);
                Some((ticket, Ok(())))
            }
            Effect::RestoreDisplay => {
                self.backend.restore();
                None
            }
            Effect::AllocateSurface { ticket, surface, config, layout, .. } => {
                Some((ticket, self.allocate(surface, config, layout).map_err(|error| failure(&error))))
            }
            Effect::FreeSurface { surface } => {
                self.backend.hide(surface);
                if let Some(buffer) = self.surfaces.remove(&surface) {
                    // It may be gone with the broker.
                    let _ = buffer.region.revoke();
                }
                None
            }
            Effect::GrantInput { ticket, client, device } => {
                Some((ticket, self.grant_input(client, device).map_err(|error| failure(&error))))
            }
            Effect::RevokeInput { client, device } => {
                if let Some(input) = self.inputs.remove(&(client, device)) {
                    let _ = input.device.revoke();
                }
                None
            }
            Effect::Present { ticket, connector, surface } => {
                let shown = self.present(connector, surface);
                Some((ticket, shown.map_err(|message| BackendFailure { message })))
            }
            Effect::Answer { .. }
            | Effect::Notify { .. }
            | Effect::ShareSurface { .. }
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

    fn grant_input(&mut self, client: ClientId, device: DeviceId) -> Result<(), keyway::Error> {
        let refused = |error: io::Error| keyway::Error::Spawn { program: "a virtual device".into(), error };
        let (mut source, reader) = VirtualInput::new().map_err(refused)?;
        let capability = self.depositor.deposit(&format!("input-{}", device.0), &reader)?;
        if device == KEYBOARD {
            source.type_text(&self.options.keys).map_err(refused)?;
        }
        self.inputs.insert((client, device), Input { device: capability, _source: source });
        Ok(())
    }

    fn present(&mut self, connector: ConnectorId, surface: SurfaceId) -> Result<(), String> {
        let buffer = self.surfaces.get_mut(&surface).ok_or("the surface has no buffer")?;
        if buffer.pixels.is_none() {
            let mapped = self.client.map_reader(&buffer.region);
            buffer.pixels = Some(mapped.map_err(|error| error.to_string())?);
        }
        let Some(pixels) = &buffer.pixels else { return Ok(()) };
        let shown = self.backend.show(connector, surface, pixels, (&buffer.config, &buffer.layout));
        shown.map_err(|error| error.to_string())?;
        match &self.options.screenshot {
            Some(path) => self.backend.save(path).map_err(|error| format!("{}: {error}", path.display())),
            None => Ok(()),
        }
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
