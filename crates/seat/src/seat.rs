//! The shell around the bridge's state machine: lanes in, effects out.
//!
//! # Invariants
//! 1. A client of the machine is a process: all lanes of one session are one client, whichever door they came in by.
//! 2. A message of a client is handled only after the lanes that it opened before.

mod hands;
mod sessions;

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use keyway::{
    Audience, Capability, Client, Depositor, Incoming, LaneId, Message, Peer, Queue, QueueOptions,
    RegionReader, ReplyTo, Rights, Watch,
    abi::{BadgeBearer, PeerIdentity, limits::RING_BYTES_DEFAULT},
    bridge::{COMPOSITOR_SERVICE, SERVICE},
};
use keyway_gui::{
    Access, Bridge, ClientId, Door, Effect, Identity, RequestNumber,
    protocol::{
        self, DenialReason, DeviceId, Event, LeaseId, Pid, Request, SurfaceConfig, SurfaceId, SurfaceLayout,
    },
};

use keyway_sys::process;

use self::sessions::Sessions;
use crate::{
    door::{CompositorRule, Visitor, lets_in},
    drm::CardGrant,
    evidence,
    hardware::{Backend, Hardware, HardwareError},
    input::VirtualInput,
    seatd::{SeatdDoor, SeatdError},
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
    /// Where compositors that use `libseat` find the seat; nowhere if there is none.
    pub seatd_socket: Option<PathBuf>,
    /// What those get of a card.
    pub seatd_cards: CardGrant,
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
    /// The socket of the seatd protocol cannot be had.
    #[error("{0}")]
    Seatd(#[from] SeatdError),
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
    /// Those who came by the seatd door, where there is one.
    sessions: Option<Sessions>,
    /// The descriptors of leases, for their holder to claim.
    leases: BTreeMap<LeaseId, Capability>,
    /// The descriptors of the render node, for those to whom it is granted to claim.
    nodes: BTreeMap<ClientId, Capability>,
    calls: BTreeMap<RequestNumber, (ClientId, ReplyTo)>,
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
        let sessions = match &options.seatd_socket {
            Some(path) => {
                let door = SeatdDoor::open(client, path, options.compositors.clone())?;
                Some(Sessions::new(door, options.seatd_cards))
            }
            None => None,
        };
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
            sessions,
            leases: BTreeMap::new(),
            nodes: BTreeMap::new(),
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
        did_something |= self.look_at_sessions()?;
        self.send_early();
        self.look_at_deaths()?;
        self.look_at_deadlines();
        if !did_something {
            let patience = self.patience(timeout);
            let mut queues = vec![&mut self.public, &mut self.door];
            if let Hardware::Real(real) = &mut self.hardware {
                queues.push(&mut real.queue);
            }
            queues.extend(self.sessions.as_mut().map(|sessions| &mut sessions.door.queue));
            keyway::wait_any(&mut queues, patience)?;
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
                _ => &lanes.door,
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
                    _ => lanes.door.push(peer.lane),
                }
                self.carry_out(effects);
            }
            Err(_) => self.close(peer.lane, door),
        }
    }

    fn may_come_in(&self, peer: &Peer, door: Door) -> bool {
        let PeerIdentity { uid, gid, executable, .. } = &*peer.identity;
        let visitor = Visitor { uid: *uid, gid: *gid, executable: executable.clone() };
        door == Door::Public || lets_in(&self.options.compositors, process::own_uid(), &visitor)
    }

    fn close(&mut self, lane: LaneId, door: Door) {
        match door {
            Door::Public => self.public.close_lane(lane),
            _ => self.door.close_lane(lane),
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
        // The machine answers nobody who is gone.
        self.calls.retain(|_, (asker, _)| *asker != client);
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
            Err(reason) => return hands::reply(&mut self.public, reply_to, &reason.into(), &[]),
        };
        self.last_request += 1;
        let number = RequestNumber(self.last_request);
        self.calls.insert(number, (client, reply_to));
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

impl Drop for Seat {
    fn drop(&mut self) {
        // To delete a capability leaves what was derived from it with its holders: what was granted is revoked.
        while let Some(client) = self.clients.keys().next().copied() {
            self.forget(client);
        }
    }
}
