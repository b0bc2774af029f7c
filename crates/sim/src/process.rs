//! What one simulated process does: mostly what a client library does, now and then what a hostile one might.
//!
//! It knows what its replies and events told it and nothing else. What travels in messages of lanes (tickets) is told
//! to the peer by the simulation.

use std::collections::{BTreeMap, VecDeque};

use keyway_abi::{
    AclEntry, AclKind, Badge, CapabilityLimits, DefaultActions, Event, Handle, Kind, LaneId, Listing,
    MappingId, MaskChange, Name, PROTOCOL_VERSION, ProcessNumber, QueueOrder, Reply, Request, Rights,
    SignalAction, SignalSet, Subject, Taking, Terms, Ticket,
    request::{self, Audience, EscrowHow, MapAccess},
};
use keyway_kernel::{Call, Door, Identity, Outgoing};

use crate::random::Random;

/// A capability, as its holder knows it.
#[derive(Clone, Copy, Debug)]
struct Held {
    handle: Handle,
    kind: Kind,
    rights: Rights,
}

/// A frame on its way to the broker.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) request: Request,
    pub(crate) door: Door,
}

/// A ticket that was put into a message on a lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    pub(crate) lane: LaneId,
    pub(crate) ticket: Ticket,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) number: ProcessNumber,
    pub(crate) identity: Identity,
    /// Whether the broker knows who it is; a confined child's first frame tells.
    pub(crate) bound: bool,
    pub(crate) dead: bool,
    /// Frames that the broker has not handled.
    pub(crate) outbox: VecDeque<Frame>,
    /// Frames that it has not read.
    pub(crate) inbox: VecDeque<Outgoing>,
    pub(crate) messages: VecDeque<Message>,
    /// Tickets that it put and has not told its peer of.
    pub(crate) uncommitted: VecDeque<Message>,
    asked: BTreeMap<u32, Request>,
    greeted: bool,
    own: Option<Handle>,
    directory: Option<Handle>,
    held: Vec<Held>,
    queues: Vec<Handle>,
    unmapped_acks: Vec<(Handle, u32, u8)>,
    opening: Vec<LaneId>,
    sending: Vec<LaneId>,
    lanes: Vec<LaneId>,
    ended: Vec<LaneId>,
    writing: Vec<MappingId>,
    mappings: Vec<MappingId>,
}

const RING_BYTES: u32 = 4096;

impl Process {
    pub(crate) fn new(number: ProcessNumber, identity: Identity, bound: bool) -> Self {
        let mut process = Process {
            number,
            identity,
            bound,
            dead: false,
            outbox: VecDeque::new(),
            inbox: VecDeque::new(),
            messages: VecDeque::new(),
            uncommitted: VecDeque::new(),
            asked: BTreeMap::new(),
            greeted: false,
            own: None,
            directory: None,
            held: vec![],
            queues: vec![],
            unmapped_acks: vec![],
            opening: vec![],
            sending: vec![],
            lanes: vec![],
            ended: vec![],
            writing: vec![],
            mappings: vec![],
        };
        let default_actions = match process.identity.pid % 2 {
            0 => DefaultActions::Accepted,
            _ => DefaultActions::Refused,
        };
        process.send(request::Hello { version_min: 1, version_max: PROTOCOL_VERSION, default_actions });
        process.send(request::ListOwn { after: Handle::NONE });
        process
    }

    fn send(&mut self, request: impl Into<Request>) {
        self.outbox.push_back(Frame { request: request.into(), door: Door::Control });
    }

    /// The broker has handled a frame under this number.
    pub(crate) fn on_sent(&mut self, call: Call, request: Request) {
        self.asked.insert(call.number, request);
    }

    /// Reads one frame.
    pub(crate) fn read(&mut self) {
        match self.inbox.pop_front() {
            Some(Outgoing::Reply(call, reply)) => {
                if let Some(request) = self.asked.remove(&call.number) {
                    self.on_reply(request, reply);
                }
            }
            Some(Outgoing::Event(event)) => self.on_event(&event),
            None => {}
        }
    }

    /// Whether it receives on a lane.
    pub(crate) fn receives_on(&self, lane: LaneId) -> bool {
        self.lanes.contains(&lane) && !self.sending.contains(&lane)
    }

    fn keep(&mut self, handle: Handle, kind: Kind, rights: Rights) {
        if self.held.iter().all(|held| held.handle != handle) {
            self.held.push(Held { handle, kind, rights });
        }
    }

    fn forget(&mut self, handle: Handle) {
        self.held.retain(|held| held.handle != handle);
        self.queues.retain(|queue| *queue != handle);
    }

    fn kind(&self, handle: Handle) -> Kind {
        self.held.iter().find(|held| held.handle == handle).map_or(Kind::Queue, |held| held.kind)
    }

    fn on_reply(&mut self, request: Request, reply: Reply) {
        match (request, reply) {
            (_, Reply::Welcome(start)) => {
                self.greeted = true;
                (self.own, self.directory) = (start.own, start.directory);
            }
            (_, Reply::Listing(Listing::Capabilities(entries))) => {
                for entry in entries {
                    self.keep(entry.handle, entry.kind, entry.rights);
                }
            }
            (Request::CreateQueue(asked), Reply::Queue { queue, first_ack, .. }) => {
                self.keep(queue.handle, Kind::Queue, queue.rights);
                self.queues.push(queue.handle);
                if asked.stock > 0 {
                    self.unmapped_acks.push((queue.handle, first_ack, asked.stock));
                }
            }
            (Request::TopUp(asked), Reply::Acks { first_ack }) => {
                self.unmapped_acks.push((asked.queue, first_ack, asked.count));
            }
            (Request::Derive(asked), Reply::Capability(made)) => {
                self.keep(made.handle, self.kind(asked.from), made.rights);
            }
            (Request::Lookup(asked), Reply::Capability(made)) if asked.on_behalf_of.is_none() => {
                self.keep(made.handle, Kind::Queue, made.rights);
            }
            (Request::CreateRegion(_), Reply::Capability(made)) => {
                self.keep(made.handle, Kind::Region, made.rights);
            }
            (Request::Publish(_), Reply::Capability(made)) => {
                self.keep(made.handle, Kind::ServiceName, made.rights);
            }
            (Request::Deposit(_), Reply::Capability(made)) => {
                self.keep(made.handle, Kind::Device, made.rights);
            }
            (Request::StartChild(_), Reply::Capability(made)) => {
                self.keep(made.handle, Kind::Process, made.rights);
            }
            (Request::Weaken(asked), Reply::Capability(made)) => {
                let kind = self.kind(asked.handle);
                self.forget(asked.handle);
                self.keep(made.handle, kind, made.rights);
            }
            (Request::Delete(asked), Reply::Done) => self.forget(asked.handle),
            (_, Reply::LaneOpening { lane, .. }) => self.opening.push(lane),
            (Request::LaneMapped(asked), Reply::Done) => {
                self.lanes.push(asked.lane);
                self.sending.push(asked.lane);
            }
            (Request::LaneMapped(asked), Reply::Denied(_)) => self.ended.push(asked.lane),
            (Request::MapRegion(asked), Reply::Mapping { mapping, .. }) => {
                self.mappings.push(mapping);
                if matches!(asked.access, MapAccess::Write | MapAccess::Share) {
                    self.writing.push(mapping);
                }
            }
            (Request::EscrowPut(asked), Reply::Ticket(ticket)) => {
                self.uncommitted.push_back(Message { lane: asked.lane, ticket });
                if asked.how == EscrowHow::Move {
                    self.forget(asked.from);
                }
            }
            (_, Reply::Taken(entry)) => self.keep(entry.handle, entry.kind, entry.rights),
            _ => {}
        }
    }

    fn on_event(&mut self, event: &Event) {
        match event {
            &Event::LaneOpened { lane, peer_handle, .. } => {
                self.lanes.push(lane);
                self.keep(peer_handle, Kind::Process, Rights::WATCH);
            }
            Event::LanesEnded { lanes, .. } => self.ended.extend(lanes),
            &Event::CapabilityReceived { handle, kind, rights, .. } => self.keep(handle, kind, rights),
            Event::CapabilitiesLost { handles } => handles.iter().for_each(|handle| self.forget(*handle)),
            _ => {}
        }
    }
}

/// What it does next.
impl Process {
    /// Puts one or more frames into the outbox, if it has something to do.
    pub(crate) fn act(&mut self, random: &mut Random, now_ns: u64) {
        if !self.greeted {
            if random.once_in(100) {
                self.send(request::ListOwn { after: Handle::NONE });
            }
            return;
        }
        match random.below(35) {
            0..=2 => self.act_on_queues(random),
            3..=6 => self.act_on_names(random),
            7..=11 => self.open_or_finish_lane(random),
            12..=13 => self.act_on_lanes(random),
            14..=18 => self.act_on_escrow(random),
            19..=21 => self.act_on_regions(random),
            22..=24 => self.pass_on(random, now_ns),
            25 => self.take_back(random, now_ns),
            26..=27 => self.act_on_processes(random),
            28 => self.act_on_devices(random),
            29 => self.look(random),
            30 if random.once_in(2) => self.act_on_lists(random),
            30 => self.misbehave(random),
            31..=33 => self.act_on_signals(random),
            _ => self.crowd(random),
        }
    }

    /// One held capability of a kind with a right, if there is one.
    fn find(&self, random: &mut Random, kind: Kind, right: Rights) -> Option<Handle> {
        let fits = |held: &&Held| held.kind == kind && held.rights.contains(right);
        let found: Vec<Handle> = self.held.iter().filter(fits).map(|held| held.handle).collect();
        random.pick(&found).copied()
    }

    fn any(&self, random: &mut Random) -> Option<Held> {
        random.pick(&self.held).copied()
    }

    fn act_on_queues(&mut self, random: &mut Random) {
        if let Some((queue, first, count)) = self.unmapped_acks.pop() {
            return self.send(request::AcksMapped { queue, first, count });
        }
        match random.pick(&self.queues).copied() {
            Some(queue) if !random.once_in(4) => {
                self.send(request::TopUp { queue, count: 1 + random.below(3) as u8 });
            }
            _ => {
                let senders_max = 1 + random.below(6) as u16;
                let stock = 3 - random.below(4) as u8;
                let orders = [QueueOrder::Fair, QueueOrder::Priority, QueueOrder::Arrival];
                let order = orders[random.below(3)];
                self.send(request::CreateQueue { ring_bytes_max: RING_BYTES, senders_max, stock, order });
            }
        }
    }

    fn act_on_names(&mut self, random: &mut Random) {
        let Some(directory) = self.directory else { return };
        let names = ["a", "b", "c", "d"].map(Name::new);
        let Some(Ok(name)) = random.pick(&names).cloned() else { return };
        let passed_on = random.once_in(8);
        let any = self.find(random, Kind::Queue, Rights::GRANT).filter(|_| passed_on);
        let queue = any.or_else(|| random.pick(&self.queues).copied());
        match queue {
            Some(queue) if random.once_in(2) => {
                let rights = Rights::SEND | Rights::GRANT | Rights::DERIVE;
                let audience = Audience::Everyone;
                self.send(request::Publish { directory, name, queue, rights, audience });
            }
            _ if random.once_in(6) => self.send(request::WaitName { directory, name }),
            _ if random.once_in(12) => self.send(request::ForgetName { name }),
            _ => {
                let endowed = self.find(random, Kind::Process, Rights::ENDOW);
                let on_behalf_of = endowed.filter(|_| random.once_in(4));
                self.send(request::Lookup { directory, name, on_behalf_of });
            }
        }
    }

    fn open_or_finish_lane(&mut self, random: &mut Random) {
        if let Some(lane) = self.opening.pop() {
            return self.send(request::LaneMapped { lane });
        }
        let own = random.once_in(8);
        let queue = self.find(random, Kind::Queue, Rights::SEND);
        if let Some(queue) = queue.filter(|queue| own || !self.queues.contains(queue)) {
            let priority = random.below(9) as u8;
            let huge = random.once_in(16);
            self.send(request::OpenLane { queue, ring_bytes: RING_BYTES, priority, huge });
        }
    }

    fn act_on_lanes(&mut self, random: &mut Random) {
        let lane = match self.ended.pop() {
            Some(lane) => Some(lane),
            None => random.pick(&self.lanes).copied().filter(|_| random.once_in(4)),
        };
        let any = random.pick(&self.lanes).copied().filter(|_| random.once_in(3));
        if let Some(lane) = any {
            self.send(request::Doorbell { lane });
        }
        if let Some(lane) = lane {
            self.lanes.retain(|open| *open != lane);
            self.sending.retain(|open| *open != lane);
            self.send(request::CloseLane { lane });
        }
    }

    fn act_on_escrow(&mut self, random: &mut Random) {
        if let Some(Message { lane, ticket }) = self.messages.pop_front() {
            return self.send(request::EscrowTake { lane, ticket });
        }
        if random.once_in(10)
            && let Some(Message { lane, ticket }) = self.uncommitted.pop_front()
        {
            return self.send(request::EscrowWithdraw { lane, ticket });
        }
        let lane = random.pick(&self.sending).copied();
        if let (Some(lane), Some(held)) = (lane, self.any(random)) {
            let rights = held.rights - Rights::RECEIVE;
            let how =
                if random.once_in(3) { EscrowHow::Move } else { EscrowHow::Copy(Terms::rights(rights)) };
            self.send(request::EscrowPut { lane, from: held.handle, how });
        }
    }

    fn act_on_regions(&mut self, random: &mut Random) {
        if let Some(mapping) = self.writing.pop() {
            if random.once_in(8) {
                return;
            }
            return self.send(request::RegionMapped { mapping });
        }
        if random.once_in(4) && !self.mappings.is_empty() {
            let mapping = self.mappings[random.below(self.mappings.len())];
            return self.send(request::Freeze { mapping });
        }
        if random.once_in(3) && !self.mappings.is_empty() {
            let mapping = self.mappings.swap_remove(random.below(self.mappings.len()));
            return self.send(request::Unmap { mapping });
        }
        let (access, needed) = match random.below(8) {
            0..=2 => (MapAccess::Read, Rights::MAP),
            3 => (MapAccess::Frozen, Rights::MAP),
            4..=5 => (MapAccess::Share, Rights::WRITE),
            _ => (MapAccess::Write, Rights::WRITE),
        };
        match self.find(random, Kind::Region, needed) {
            Some(region) if !random.once_in(4) => self.send(request::MapRegion { region, access }),
            _ => {
                let flags = request::RegionFlags::from_bits_retain(random.below(5) as u32);
                let bytes = 4096 * (1 + random.below(4) as u64);
                self.send(request::CreateRegion { bytes, flags });
            }
        }
    }

    fn pass_on(&mut self, random: &mut Random, now_ns: u64) {
        let Some(Held { handle: from, rights, .. }) = self.any(random) else { return };
        let rights = rights - Rights::RECEIVE;
        let rights = if random.once_in(4) {
            rights & Rights::from_bits_truncate(random.number() as u32)
        } else {
            rights
        };
        let badge = random.once_in(4).then(|| Badge(random.below(3) as u64));
        let terms = Terms { rights, badge, expires_ns: expiry(random, now_ns), limits: limits(random) };
        match self.find(random, Kind::Process, Rights::ENDOW) {
            Some(to) if random.once_in(2) => {
                self.send(request::Grant { from, to, terms });
            }
            _ => self.send(request::Derive { from, terms }),
        }
    }

    fn take_back(&mut self, random: &mut Random, now_ns: u64) {
        let Some(Held { handle, kind, rights }) = self.any(random) else { return };
        if random.once_in(4) {
            let rights = (rights - Rights::RECEIVE) & Rights::from_bits_truncate(random.number() as u32);
            let (expires_ns, limits) = (expiry(random, now_ns), limits(random));
            let terms = Terms { rights, badge: None, expires_ns, limits };
            return self.send(request::Weaken { handle, terms });
        }
        let own = Some(handle) == self.own || Some(handle) == self.directory;
        if random.once_in(2) {
            self.send(request::Revoke { handle });
        } else if !own && (kind != Kind::Process || random.once_in(2)) {
            self.send(request::Delete { handle });
        }
    }

    fn act_on_processes(&mut self, random: &mut Random) {
        let Some(own) = self.own else { return };
        if random.once_in(10) {
            return self.send(request::StartChild { process: own });
        }
        if let Some(process) = self.find(random, Kind::Process, Rights::WATCH) {
            self.send(request::Watch { process });
        }
    }

    fn act_on_devices(&mut self, random: &mut Random) {
        if let Some(device) = self.find(random, Kind::Device, Rights::CLAIM) {
            return self.send(request::Claim { device });
        }
        let (Some(process), Ok(label)) = (self.own, Name::new("card0")) else { return };
        self.send(request::OpenDeposit { process });
        let request = request::Deposit { label }.into();
        self.outbox.push_back(Frame { request, door: Door::Deposit });
    }

    fn act_on_signals(&mut self, random: &mut Random) {
        // Few of them, so that they meet; now and then any number at all.
        let some = [9, 10, 10, 15, 17, 18, 19, 20, 40, 40, 41];
        let signal = random.pick(&some).copied().unwrap_or(0);
        let signal = if random.once_in(12) { i32::from(random.below(80) as u8) - 8 } else { signal };
        match random.below(8) {
            0..=2 => {
                if let Some(process) = self.find(random, Kind::Process, Rights::RAISE) {
                    let value = random.number();
                    (0..=random.below(3) as u64).for_each(|nth| {
                        self.send(request::Raise { process, signal, value: value.wrapping_add(nth) });
                    });
                }
            }
            3 => {
                let action =
                    [SignalAction::Default, SignalAction::Ignore, SignalAction::Handle][random.below(3)];
                self.send(request::SetAction { signal, action });
            }
            4 => {
                let how = [MaskChange::Block, MaskChange::Unblock, MaskChange::Set][random.below(3)];
                self.send(request::SetMask { how, set: SignalSet::from_bits(random.number()) });
            }
            5 => self.send(request::Pending {}),
            _ => {
                let taking = [Taking::Any, Taking::Handled][random.below(2)];
                let bits = if random.once_in(2) { u64::MAX } else { random.number() };
                self.send(request::TakeSignal { set: SignalSet::from_bits(bits), taking });
            }
        }
    }

    fn look(&mut self, random: &mut Random) {
        self.send(request::ListOwn { after: Handle::NONE });
        let Some(directory) = self.directory else { return };
        match random.below(5) {
            4 => self.send(request::ListAudit { directory, after: random.once_in(2).then_some(40) }),
            0 => self.send(request::ListLanes { directory, after: None }),
            1 => self.send(request::ListProcesses { directory, after: None }),
            2 => self.send(request::ListQueues { directory, after: None }),
            _ => {
                let process = ProcessNumber(random.below(60) as u64);
                self.send(request::ListCapabilities { directory, process, after: Handle::NONE });
            }
        }
    }

    fn act_on_lists(&mut self, random: &mut Random) {
        let Some(Held { handle: object, .. }) = self.any(random) else { return };
        let other = self.any(random).map_or(Handle::NONE, |held| held.handle);
        let subject = match random.below(4) {
            0 => Subject::Holder(other),
            1 => Subject::User(1000 + random.below(3) as u32),
            2 => Subject::Group(1000 + random.below(3) as u32),
            _ => Subject::Executable("/usr/bin/sim".into()),
        };
        let permissions = [Rights::SEND, Rights::MAP | Rights::GRANT, Rights::all()][random.below(3)];
        let kind = if random.once_in(2) { AclKind::Allow } else { AclKind::Deny };
        let number = random.below(4) as u64;
        match random.below(8) {
            0..=2 => self.send(request::AclAdd { object, entry: AclEntry { subject, permissions, kind } }),
            3..=4 => self.send(request::AclRemove { object, number }),
            5 => self.send(request::AclList { object, after: random.once_in(2).then_some(number) }),
            _ => self.send(request::AclCheck { object }),
        }
    }

    /// Numbers that it was never given, and now and then what ends its session.
    fn misbehave(&mut self, random: &mut Random) {
        let handle = Handle::new(random.below(12) as u32, random.below(4) as u32);
        let (lane, ticket) = (LaneId(random.below(400) as u64), Ticket(random.below(4) as u32));
        let mapping = MappingId(random.below(400) as u64);
        match random.below(15) {
            0 => self.send(request::Delete { handle }),
            1 => self.send(request::Revoke { handle }),
            2 => self.send(request::OpenLane {
                queue: handle,
                ring_bytes: RING_BYTES,
                priority: 0,
                huge: false,
            }),
            3 => self.send(request::LaneMapped { lane }),
            4 => self.send(request::CloseLane { lane }),
            5 => self.send(request::EscrowTake { lane, ticket }),
            6 => self.send(request::EscrowWithdraw { lane, ticket }),
            7 => {
                let lane = random.pick(&self.lanes).copied().unwrap_or(lane);
                self.send(request::EscrowPut { lane, from: handle, how: EscrowHow::Move });
            }
            8 => self.send(request::Unmap { mapping }),
            9 => self.send(request::RegionMapped { mapping }),
            10 => self.send(request::AcksMapped { queue: handle, first: random.number() as u32, count: 3 }),
            11 => self.send(request::MapRegion { region: handle, access: MapAccess::Write }),
            13 => self.send(request::Doorbell { lane }),
            12 => self.send(request::TopUp { queue: handle, count: 8 }),
            _ if random.once_in(8) => self.send(request::Hello {
                version_min: 1,
                version_max: 1,
                default_actions: DefaultActions::Refused,
            }),
            _ => {}
        }
    }

    /// So many capabilities that taking them back needs several steps.
    fn crowd(&mut self, random: &mut Random) {
        let held = self.any(random).filter(|held| held.rights.contains(Rights::DERIVE));
        if let Some(Held { handle: from, rights, .. }) = held.filter(|_| random.once_in(48)) {
            let rights = rights - Rights::RECEIVE;
            (0..300).for_each(|_| self.send(request::Derive { from, terms: Terms::rights(rights) }));
            self.send(request::Revoke { handle: from });
        }
    }
}

/// When something is to end by itself: mostly never, sometimes in the course of the run, sometimes in the past.
fn expiry(random: &mut Random, now_ns: u64) -> Option<u64> {
    if random.once_in(40) {
        return Some(now_ns);
    }
    random.once_in(5).then(|| now_ns + 1000 * random.below(600) as u64)
}

fn limits(random: &mut Random) -> CapabilityLimits {
    CapabilityLimits {
        opens: random.once_in(12).then(|| random.below(4) as u16),
        ring_bytes: random.once_in(30).then(|| 4096 << random.below(2)),
        priority: random.once_in(12).then(|| random.below(9) as u8),
    }
}
