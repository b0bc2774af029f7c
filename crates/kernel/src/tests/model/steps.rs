//! One random step: the oracle predicts, the kernel answers, both are compared.

use alloc::{collections::BTreeMap, vec, vec::Vec};

use keyway_abi::{
    Badge, BadgeBearer, CapabilityLimit, CapabilityLimits, Created, Denial, Event, Handle, Kind, LaneId,
    Listing, MappingId, Reply, Request, Rights, Terms, Ticket,
    request::{self, Audience, EscrowHow, MapAccess, RegionFlags},
};

use super::{
    Step,
    oracle::{Body, Holder, Lane, Mapping, Oracle, RegionState},
};
use crate::{
    object::{DIRECTORY_RIGHTS, ProcessObject, Queue, Region},
    tests::driver::{Driver, REGION_BYTES, RING_BYTES, Who, name},
};

/// How often each kind of step is taken, in the order of the match in [`Duel::step`].
const WEIGHTS: [u8; KINDS] = [2, 3, 1, 1, 1, 2, 3, 6, 1, 8, 3, 6, 2, 3, 2, 2, 1, 1];
/// Kinds of steps.
pub(super) const KINDS: usize = 18;
const PROCESSES: usize = 4;
const NAMES: [&str; 2] = ["one", "two"];

fn kind_of(what: u8) -> usize {
    let mut left = what % WEIGHTS.iter().sum::<u8>();
    for (kind, weight) in WEIGHTS.iter().enumerate() {
        match left.checked_sub(*weight) {
            Some(rest) => left = rest,
            None => return kind,
        }
    }
    unreachable!("the remainder is below the sum")
}

/// The kernel and the oracle, side by side.
pub(super) struct Duel {
    driver: Driver,
    oracle: Oracle,
    who: Vec<Who>,
    /// A process that takes no part and lists everything.
    inspector: Who,
    directory: usize,
    /// The kernel's number of each object.
    numbers: BTreeMap<usize, u64>,
    lanes: Vec<LaneId>,
    mappings: Vec<MappingId>,
    pub(super) successes: [u32; KINDS],
}

impl Duel {
    pub(super) fn new() -> Self {
        let mut driver = Driver::new();
        let inspector = driver.connect();
        let mut oracle = Oracle::default();
        let directory = oracle.object(Body::Directory, DIRECTORY_RIGHTS, Holder::Kernel);
        let mut duel = Duel {
            driver,
            oracle,
            who: vec![],
            inspector,
            directory,
            numbers: BTreeMap::new(),
            lanes: vec![],
            mappings: vec![],
            successes: [0; KINDS],
        };
        (0..PROCESSES).for_each(|_| duel.connect());
        duel
    }

    /// A process that joins late, which has and gives a capability to each of the others.
    fn connect(&mut self) {
        let who = self.driver.connect();
        let process = self.who.len();
        self.who.push(who);
        self.oracle.numbers.push(who.number);
        self.oracle.seen.push(BTreeMap::new());
        let root = self.oracle.object(Body::Process(process), ProcessObject::POSSIBLE, Holder::Kernel);
        self.oracle.roots.push(root);
        let own = Holder::Process(process, who.own);
        self.oracle.child(root, ProcessObject::POSSIBLE, None, own);
        let directory = Holder::Process(process, who.directory);
        self.oracle.child(self.directory, DIRECTORY_RIGHTS, None, directory);
        for other in 0..process {
            for (whom, holder) in [(process, other), (other, process)] {
                if !self.oracle.ended.contains(&other) {
                    let rights = ProcessObject::CHILD;
                    let handle = self.driver.introduce(self.who[whom], self.who[holder], rights);
                    let root = self.oracle.roots[whom];
                    self.oracle.child(root, rights, None, Holder::Process(holder, handle));
                }
            }
        }
    }

    pub(super) fn step(&mut self, (who, what, first, second, bits): Step) {
        let here = |process: &usize| !self.oracle.ended.contains(process);
        let here: Vec<usize> = (0..self.who.len()).filter(here).collect();
        let Some(process) = usize::from(who).checked_rem(here.len()).map(|nth| here[nth]) else { return };
        let kind = kind_of(what);
        let succeeded = match kind {
            0 => self.derive(process, first, second, bits),
            1 => self.grant(process, first, second, bits),
            2 => self.revoke(process, first),
            3 => self.delete(process, first),
            4 => self.publish(process, first, second, bits),
            5 => self.lookup(process, first, second),
            6 => self.create_queue(process, first),
            7 => self.open_lane(process, first),
            8 => self.close_lane(process, first),
            9 => self.escrow_put(process, first, second, bits),
            10 => self.escrow_withdraw(process, first, second),
            11 => self.escrow_take(process, first, second),
            12 => self.create_region(process, first),
            13 => self.map(process, first, second),
            14 => self.written_or_unmapped(process, first, second),
            15 => self.weaken(process, first, second, bits),
            16 => self.wait(second),
            _ => self.end_or_connect(process, first, second),
        };
        self.successes[kind] += u32::from(succeeded);
    }

    /// Every table and every lane is as predicted.
    pub(super) fn compare(&mut self) {
        for process in 0..self.who.len() {
            if self.oracle.ended.contains(&process) {
                continue;
            }
            let listed = self.driver.list(self.who[process].number);
            let found: Vec<_> =
                listed.iter().map(|entry| (entry.handle, entry.kind, entry.rights, entry.badge)).collect();
            let table = self.oracle.table(process);
            let expected: Vec<_> = table
                .iter()
                .map(|(handle, id)| {
                    let capability = &self.oracle.capabilities[*id];
                    (*handle, self.oracle.kind(*id), capability.rights, capability.badge)
                })
                .collect();
            assert_eq!(found, expected, "the table of process {process}");
            for (entry, (_, id)) in listed.iter().zip(table) {
                let object = self.oracle.capabilities[id].object;
                assert_eq!(*self.numbers.entry(object).or_insert(entry.object), entry.object, "same object");
            }
        }
        let list = request::ListLanes { directory: self.inspector.directory, after: None };
        let reply = self.driver.ask(self.inspector.number, list);
        let Reply::Listing(Listing::Lanes(found)) = reply else { panic!("lanes") };
        let found: Vec<_> = found.iter().map(|lane| (lane.lane, lane.sender, lane.draining)).collect();
        let expected = self.oracle.lanes.iter();
        let expected = expected.map(|(id, lane)| (*id, self.who[lane.sender].number, !lane.sender_here));
        assert_eq!(found, expected.take(24).collect::<Vec<_>>());
    }

    pub(super) fn finish(self) {
        self.driver.finish();
    }

    /// Sends a request; if the oracle denies it, the kernel must deny it in the same words and change nothing.
    fn ask<T>(
        &mut self,
        process: usize,
        request: impl Into<Request>,
        predicted: Result<T, Denial>,
    ) -> Option<(T, Reply)> {
        let (number, request) = (self.who[process].number, request.into());
        match predicted {
            Ok(plan) => {
                let reply = self.driver.ask(number, request.clone());
                let denied = matches!(reply, Reply::Denied(_));
                assert!(!denied, "{request:?} of process {process} is lawful: {reply:?}");
                Some((plan, reply))
            }
            Err(denial) => {
                assert_eq!(self.driver.denied(number, request), denial);
                None
            }
        }
    }

    fn made(
        &mut self,
        process: usize,
        request: impl Into<Request>,
        denial: Option<Denial>,
    ) -> Option<Created> {
        let ((), reply) = self.ask(process, request, denial.map_or(Ok(()), Err))?;
        let Reply::Capability(created) = reply else { panic!("a capability: {reply:?}") };
        Some(created)
    }

    /// A handle: mostly one of the kind that is needed, sometimes any other, stale, foreign or invented.
    fn pick(&self, process: usize, choice: u8, kind: Option<Kind>) -> Handle {
        let (choice, nth) = (choice % 8, usize::from(choice / 8));
        let held = self.oracle.table(process);
        let wanted = held.iter().filter(|(_, id)| kind.is_none_or(|kind| self.oracle.kind(*id) == kind));
        let wanted: Vec<Handle> = wanted.map(|(handle, _)| *handle).collect();
        let all: Vec<Handle> = match choice {
            0..=4 if !wanted.is_empty() => wanted,
            0..=5 => held.iter().map(|(handle, _)| *handle).collect(),
            6 => self.oracle.seen[process].keys().copied().collect(),
            _ => self.oracle.seen[(process + 1) % self.who.len()].keys().copied().collect(),
        };
        // Backwards, so that what was made last is chosen first.
        let nth = nth.checked_rem(all.len()).map(|nth| all.len() - 1 - nth);
        nth.map_or(Handle::new(choice.into(), 1), |nth| all[nth])
    }

    /// Rights: mostly a part of what the capability has.
    fn rights(&self, process: usize, from: Handle, bits: u32) -> Rights {
        let asked = Rights::from_bits_truncate(bits >> 3);
        match (self.oracle.held_any(process, from), bits % 8) {
            (Ok(id), 0..=4) => self.oracle.capabilities[id].rights - Rights::RECEIVE,
            (Ok(id), 5 | 6) => self.oracle.capabilities[id].rights & asked,
            _ => asked,
        }
    }

    /// A lane: mostly one of which the process has this end, sometimes any that ever was.
    fn lane(&self, choice: u8, is_end: impl Fn(&Lane) -> bool) -> LaneId {
        let open = self.oracle.lanes.iter().filter(|(_, lane)| is_end(lane));
        let open: Vec<LaneId> = open.map(|(id, _)| *id).collect();
        let all = if choice % 8 < 6 && !open.is_empty() { &open } else { &self.lanes };
        match all.len() {
            0 => LaneId(choice.into()),
            count => all[count - 1 - usize::from(choice / 8) % count],
        }
    }

    /// An expiry: mostly none, sometimes soon, late or past.
    fn expiry(&self, choice: u8) -> Option<u64> {
        match choice % 8 {
            0..=3 => None,
            4 => Some(self.driver.now_ns.saturating_sub(u64::from(choice / 8))),
            _ => Some(self.driver.now_ns + u64::from(choice / 4)),
        }
    }

    fn directory(&self, process: usize, choice: u8) -> Handle {
        if choice.is_multiple_of(16) {
            self.pick(process, choice, Some(Kind::Directory))
        } else {
            self.who[process].directory
        }
    }
}

/// Capabilities.
impl Duel {
    fn derive(&mut self, process: usize, first: u8, second: u8, bits: u32) -> bool {
        let from = self.pick(process, first, None);
        let rights = self.rights(process, from, bits);
        let badge = (second < 64).then_some(Badge(u64::from(second % 4)));
        let expires_ns = self.expiry(second);
        let terms = Terms { rights, badge, expires_ns, limits: limits(bits >> 20) };
        let plan = self.oracle.child_of(process, from, Rights::DERIVE, &terms);
        let request = request::Derive { from, terms };
        let Some(((parent, badge), reply)) = self.ask(process, request, plan) else { return false };
        let Reply::Capability(made) = reply else { panic!("a capability: {reply:?}") };
        assert_eq!((made.rights, made.badge), (rights, badge));
        self.oracle.child_until(parent, &terms, badge, Holder::Process(process, made.handle));
        true
    }

    fn weaken(&mut self, process: usize, first: u8, second: u8, bits: u32) -> bool {
        let handle = self.pick(process, first, None);
        let rights = self.rights(process, handle, bits);
        let expires_ns = self.expiry(second);
        let terms = Terms { expires_ns, limits: limits(bits >> 20), ..Terms::rights(rights) };
        let plan = self.oracle.replaceable(process, handle, &terms);
        let request = request::Weaken { handle, terms };
        let Some(((id, badge), reply)) = self.ask(process, request, plan) else { return false };
        assert_eq!(reply, Reply::Capability(Created { handle, rights, badge }));
        self.oracle.drop_one(id, false);
        self.oracle.replace(id, &terms, badge, process, handle);
        true
    }

    fn wait(&mut self, ns: u8) -> bool {
        self.driver.wait(ns.into());
        self.oracle.expire(self.driver.now_ns);
        true
    }

    fn grant(&mut self, process: usize, first: u8, second: u8, bits: u32) -> bool {
        let from = self.pick(process, first, None);
        let to = self.pick(process, second, Some(Kind::Process));
        let rights = self.rights(process, from, bits);
        let badge = (bits >> 28 == 0).then_some(Badge(1));
        let expires_ns = self.expiry((bits >> 16) as u8);
        let terms = Terms { rights, badge, expires_ns, limits: limits(bits >> 20) };
        let plan = self.oracle.child_of(process, from, Rights::GRANT, &terms);
        let plan = plan.and_then(|child| Ok((child, self.oracle.endow(process, to)?)));
        let request = request::Grant { from, to, terms };
        let Some((((parent, badge), to), reply)) = self.ask(process, request, plan) else { return false };
        let Reply::Capability(made) = reply else { panic!("a capability: {reply:?}") };
        self.oracle.child_until(parent, &terms, badge, Holder::Process(to, made.handle));
        true
    }

    fn revoke(&mut self, process: usize, first: u8) -> bool {
        let handle = self.pick(process, first, None);
        let plan = self.oracle.held_any(process, handle);
        let Some((id, reply)) = self.ask(process, request::Revoke { handle }, plan) else { return false };
        let Reply::Revoked { count } = reply else { panic!("revoked: {reply:?}") };
        // What a revoked lane carried goes with the lane, and counts if it was itself taken back before the lane was.
        assert!(self.oracle.revoke(id).contains(&count), "{count} were taken back");
        true
    }

    fn delete(&mut self, process: usize, first: u8) -> bool {
        let handle = self.pick(process, first, None);
        let plan = self.oracle.held_any(process, handle);
        let Some((id, _)) = self.ask(process, request::Delete { handle }, plan) else { return false };
        self.oracle.delete(id);
        true
    }

    fn publish(&mut self, process: usize, first: u8, second: u8, bits: u32) -> bool {
        let (directory, queue) =
            (self.directory(process, second), self.pick(process, first, Some(Kind::Queue)));
        let (rights, text) = (self.rights(process, queue, bits), NAMES[usize::from(second) % NAMES.len()]);
        let plan = self.oracle.held(process, directory, Kind::Directory, Rights::PUBLISH).and_then(|_| {
            let id = self.oracle.held(process, queue, Kind::Queue, Rights::GRANT)?;
            self.oracle.weaker(id, rights, None)?;
            if let Some(held) = self.oracle.capabilities[id].badge {
                return Err(Denial::BadgeFixed { asked: Badge(0), held });
            }
            let taken = Denial::NameTaken { name: name(text) };
            if self.oracle.name(text).is_some() { Err(taken) } else { Ok(id) }
        });
        let audience = Audience::Everyone;
        let request = request::Publish { directory, name: name(text), queue, rights, audience };
        let Some((id, reply)) = self.ask(process, request, plan) else { return false };
        let Reply::Capability(made) = reply else { panic!("a name: {reply:?}") };
        let object = self.oracle.objects.len();
        let body = Body::Name { text, publisher: process, root: 0, target: None };
        let own = self.oracle.object(body, Rights::empty(), Holder::Process(process, made.handle));
        let child = self.oracle.child(id, rights, None, Holder::Name(object));
        if let Body::Name { root, target, .. } = &mut self.oracle.objects[object] {
            (*root, *target) = (own, Some(child));
        }
        true
    }

    fn lookup(&mut self, process: usize, first: u8, second: u8) -> bool {
        let directory = self.directory(process, second);
        let text = NAMES[usize::from(second) % NAMES.len()];
        let on_behalf_of = (first >= 128).then(|| self.pick(process, first, Some(Kind::Process)));
        let plan = self.oracle.held(process, directory, Kind::Directory, Rights::LOOKUP).and_then(|_| {
            let holder = match on_behalf_of {
                None => process,
                Some(handle) => self.oracle.endow(process, handle)?,
            };
            let unknown = Denial::NameUnknown { name: name(text) };
            let (object, target) = self.oracle.name(text).ok_or(unknown)?;
            self.oracle.weaker(target, self.oracle.capabilities[target].rights, None)?;
            Ok((holder, object, target))
        });
        let request = request::Lookup { directory, name: name(text), on_behalf_of };
        let Some(((holder, object, target), reply)) = self.ask(process, request, plan) else { return false };
        let Reply::Capability(made) = reply else { panic!("a capability: {reply:?}") };
        let badge = made.badge.expect("a look-up fixes a badge");
        let known = *self.oracle.badges.entry((holder, object)).or_insert(badge);
        assert_eq!(known, badge, "one badge for a process and a name");
        let others = self.oracle.badges.iter().filter(|(_, other)| **other == badge);
        assert_eq!(others.count(), 1, "no two share a badge");
        let id = self.oracle.child(target, made.rights, Some(badge), Holder::Process(holder, made.handle));
        self.oracle.capabilities[id].bearer = Some(holder);
        true
    }
}

/// Queues, lanes and escrow.
impl Duel {
    fn create_queue(&mut self, process: usize, first: u8) -> bool {
        let (stock, senders_max) = (3 - first % 4, u16::from(first % 3) + 1);
        let number = self.who[process].number;
        let request = request::CreateQueue { ring_bytes_max: RING_BYTES, senders_max, stock };
        let reply = self.driver.ask(number, request);
        let Reply::Queue { queue, first_ack, .. } = reply else { panic!("a queue: {reply:?}") };
        if stock > 0 {
            let mapped = request::AcksMapped { queue: queue.handle, first: first_ack, count: stock };
            self.driver.done(number, mapped);
        }
        let object = self.oracle.objects.len();
        let body = Body::Queue { receiver: process, root: 0, stock: stock.into(), senders_max };
        let own = self.oracle.object(body, Queue::RIGHTS, Holder::Process(process, queue.handle));
        if let Body::Queue { root, .. } = &mut self.oracle.objects[object] {
            *root = own;
        }
        true
    }

    fn open_lane(&mut self, process: usize, first: u8) -> bool {
        let queue = self.pick(process, first, Some(Kind::Queue));
        let plan = self.oracle.held(process, queue, Kind::Queue, Rights::SEND).and_then(|id| {
            self.oracle.openable(id, queue)?;
            let (asked, limits) = (RING_BYTES.into(), self.oracle.capabilities[id].limits);
            if let Some(max) = limits.ring_bytes.map(u64::from).filter(|max| *max < asked) {
                let limit = CapabilityLimit::RingBytes;
                return Err(Denial::LimitReached { handle: queue, limit, asked, used: 0, max });
            }
            let object = self.oracle.capabilities[id].object;
            let Body::Queue { stock, senders_max, .. } = self.oracle.objects[object] else {
                panic!("a queue")
            };
            if self.oracle.lanes_into(object) >= usize::from(senders_max) {
                return Err(Denial::SendersExceeded { senders_max });
            }
            if stock == 0 { Err(Denial::StockEmpty) } else { Ok((id, object)) }
        });
        let request = request::OpenLane { queue, ring_bytes: RING_BYTES };
        let Some(((id, object), reply)) = self.ask(process, request, plan) else { return false };
        let Reply::LaneOpening { lane, .. } = reply else { panic!("a lane: {reply:?}") };
        let Body::Queue { receiver, stock, .. } = &mut self.oracle.objects[object] else { panic!("a queue") };
        *stock -= 1;
        let receiver = *receiver;
        self.driver.events(self.who[receiver].number);
        self.driver.done(self.who[process].number, request::LaneMapped { lane });
        let badge = self.oracle.capabilities[id].badge;
        let capability = self.oracle.child(id, Rights::empty(), badge, Holder::Lane(lane));
        let peer_handle = self.check_opened(process, receiver, capability);
        let root = self.oracle.roots[process];
        self.oracle.child(root, Rights::WATCH, None, Holder::Process(receiver, peer_handle));
        let opened = Lane {
            queue: object,
            sender: process,
            receiver,
            capability,
            sender_here: true,
            receiver_here: true,
            ended: false,
            tickets: 0,
            escrow: BTreeMap::new(),
        };
        self.oracle.lanes.insert(lane, opened);
        self.lanes.push(lane);
        true
    }

    /// The receiver was told truly who opened the lane. Returns its handle of the sender.
    fn check_opened(&mut self, sender: usize, receiver: usize, capability: usize) -> Handle {
        let opened = self.driver.opened(self.who[receiver]);
        let Event::LaneOpened { badge, bearer, peer, peer_handle, .. } = opened else { panic!("opened") };
        let expected = &self.oracle.capabilities[capability];
        let expected_bearer = match expected.bearer {
            Some(bearer) if bearer == sender => BadgeBearer::Opener,
            Some(_) => BadgeBearer::Other,
            None => BadgeBearer::Unnamed,
        };
        assert_eq!((badge, bearer), (expected.badge, expected_bearer));
        assert_eq!(peer.process, self.who[sender].number);
        peer_handle
    }

    fn close_lane(&mut self, process: usize, first: u8) -> bool {
        let lane = self.lane(first, |lane| lane.sender == process || lane.receiver == process);
        let found = self.oracle.lanes.get(&lane);
        let sends = found.is_some_and(|found| found.sender == process && found.sender_here);
        let receives = found.is_some_and(|found| found.receiver == process && found.receiver_here);
        let plan = if sends || receives { Ok(()) } else { Err(Denial::UnknownLane { lane }) };
        if self.ask(process, request::CloseLane { lane }, plan).is_none() {
            return false;
        }
        if sends {
            self.oracle.leave_sender(lane);
        } else {
            self.oracle.leave_receiver(lane);
        }
        true
    }

    fn escrow_put(&mut self, process: usize, first: u8, second: u8, bits: u32) -> bool {
        let lane = self.lane(second, |lane| lane.sender == process && lane.sender_here);
        let from = self.pick(process, first, None);
        let rights = self.rights(process, from, bits);
        let how = if bits >> 31 == 0 { EscrowHow::Copy(Terms::rights(rights)) } else { EscrowHow::Move };
        let plan = self.oracle.sends(process, lane).and_then(|found| {
            if found.ended {
                return Err(Denial::LaneEnded { lane });
            }
            match how {
                EscrowHow::Copy(Terms { rights, .. }) => {
                    let (id, _) =
                        self.oracle.child_of(process, from, Rights::GRANT, &Terms::rights(rights))?;
                    Ok((id, Some(rights)))
                }
                EscrowHow::Move => Ok((self.oracle.movable(process, from)?, None)),
            }
        });
        let request = request::EscrowPut { lane, from, how };
        let Some(((id, rights), reply)) = self.ask(process, request, plan) else { return false };
        let found = self.oracle.lanes.get_mut(&lane).expect("a lane");
        found.tickets += 1;
        let ticket = Ticket(found.tickets);
        assert_eq!(reply, Reply::Ticket(ticket), "tickets grow by one");
        let holder = Holder::Escrow(lane, ticket);
        let item = if let Some(rights) = rights {
            let badge = self.oracle.capabilities[id].badge;
            (self.oracle.child(id, rights, badge, holder), None)
        } else {
            self.oracle.hold(id, holder);
            (id, Some(from))
        };
        self.oracle.lanes.get_mut(&lane).expect("a lane").escrow.insert(ticket, item);
        true
    }

    fn ticket(&self, lane: LaneId, choice: u8) -> Ticket {
        let held: Vec<Ticket> = self
            .oracle
            .lanes
            .get(&lane)
            .map(|lane| lane.escrow.keys().copied().collect())
            .unwrap_or_default();
        match held.len() {
            count @ 1.. if choice < 224 => held[usize::from(choice) % count],
            _ => Ticket(u32::from(choice % 4)),
        }
    }

    fn escrow_withdraw(&mut self, process: usize, first: u8, second: u8) -> bool {
        let lane = self.lane(first, |lane| lane.sender == process && !lane.escrow.is_empty());
        let ticket = self.ticket(lane, second);
        let plan = self.oracle.sends(process, lane).and_then(|found| {
            found.escrow.get(&ticket).copied().ok_or(Denial::UnknownTicket { lane, ticket })
        });
        let request = request::EscrowWithdraw { lane, ticket };
        let Some(((id, back), _)) = self.ask(process, request, plan) else { return false };
        self.oracle.lanes.get_mut(&lane).expect("a lane").escrow.remove(&ticket);
        match back {
            Some(handle) => self.oracle.hold(id, Holder::Process(process, handle)),
            None => self.oracle.drop_one(id, false),
        }
        true
    }

    fn escrow_take(&mut self, process: usize, first: u8, second: u8) -> bool {
        let lane = self.lane(first, |lane| lane.receiver == process && !lane.escrow.is_empty());
        let ticket = self.ticket(lane, second);
        let plan = self.oracle.receives(process, lane).and_then(|found| {
            found.escrow.get(&ticket).copied().ok_or(Denial::UnknownTicket { lane, ticket })
        });
        let request = request::EscrowTake { lane, ticket };
        let Some(((id, _), reply)) = self.ask(process, request, plan) else { return false };
        let Reply::Taken(entry) = reply else { panic!("a capability: {reply:?}") };
        let found = self.oracle.lanes.get_mut(&lane).expect("a lane");
        let above = found.escrow.split_off(&Ticket(ticket.0 + 1));
        let below = core::mem::replace(&mut found.escrow, above);
        for (dropped, _) in below.into_values().filter(|(dropped, _)| *dropped != id) {
            self.oracle.drop_one(dropped, false);
        }
        self.oracle.hold(id, Holder::Process(process, entry.handle));
        true
    }
}

/// Regions and processes.
impl Duel {
    fn create_region(&mut self, process: usize, choice: u8) -> bool {
        let flags = RegionFlags::from_bits_truncate((choice % 4).into());
        let bytes = REGION_BYTES;
        let both = RegionFlags::FREEZABLE | RegionFlags::SHARED;
        let denial = (flags == both).then(|| Denial::InvalidFlags { asked: both.bits(), bytes });
        let request = request::CreateRegion { bytes, flags };
        let Some(made) = self.made(process, request, denial) else { return false };
        let body = Body::Region(RegionState::Unwritten, flags);
        self.oracle.object(body, Region::RIGHTS, Holder::Process(process, made.handle));
        true
    }

    fn map(&mut self, process: usize, first: u8, second: u8) -> bool {
        let region = self.pick(process, first, Some(Kind::Region));
        let (access, needed) = match second % 8 {
            0..=2 => (MapAccess::Read, Rights::MAP),
            3..=4 => (MapAccess::Share, Rights::WRITE),
            5 => (MapAccess::Frozen, Rights::MAP),
            _ => (MapAccess::Write, Rights::WRITE),
        };
        let plan = self.oracle.held(process, region, Kind::Region, needed).and_then(|id| {
            self.oracle.openable(id, region)?;
            self.oracle.mappable(self.oracle.capabilities[id].object, access)?;
            Ok(id)
        });
        let request = request::MapRegion { region, access };
        let Some((id, reply)) = self.ask(process, request, plan) else { return false };
        let Reply::Mapping { mapping, .. } = reply else { panic!("a mapping: {reply:?}") };
        let badge = self.oracle.capabilities[id].badge;
        let capability = self.oracle.child(id, Rights::empty(), badge, Holder::Mapping(mapping));
        let object = self.oracle.capabilities[id].object;
        if let (MapAccess::Write | MapAccess::Share, Body::Region(state @ RegionState::Unwritten, _)) =
            (access, &mut self.oracle.objects[object])
        {
            *state = RegionState::Writing(mapping);
        }
        self.oracle.mappings.insert(mapping, Mapping { process, region: object, capability });
        self.mappings.push(mapping);
        true
    }

    fn written_or_unmapped(&mut self, process: usize, first: u8, second: u8) -> bool {
        let mapping = match self.mappings.len() {
            0 => MappingId(first.into()),
            count => self.mappings[count - 1 - usize::from(first) % count],
        };
        let found = self.oracle.mappings.get(&mapping).filter(|found| found.process == process);
        let plan = found.map(|found| found.region).ok_or(Denial::UnknownMapping { mapping });
        if second.is_multiple_of(2) {
            let unmapped = self.ask(process, request::Unmap { mapping }, plan).is_some();
            if unmapped {
                self.oracle.unmap(mapping);
            }
            return unmapped;
        }
        if second % 4 == 3 {
            return self.freeze(process, mapping, plan);
        }
        let plan = plan.and_then(|region| match self.oracle.objects[region] {
            Body::Region(RegionState::Writing(writer), _) if writer == mapping => Ok(region),
            _ => Err(Denial::AlreadyMapped),
        });
        let Some((region, _)) = self.ask(process, request::RegionMapped { mapping }, plan) else {
            return false;
        };
        self.become_state(region, RegionState::Live(mapping));
        true
    }

    fn freeze(&mut self, process: usize, mapping: MappingId, plan: Result<usize, Denial>) -> bool {
        let plan = plan.and_then(|region| match self.oracle.objects[region] {
            Body::Region(_, flags) if !flags.contains(RegionFlags::FREEZABLE) => Err(Denial::NotFreezable),
            Body::Region(RegionState::Live(writer), _) if writer == mapping => Ok(region),
            _ => Err(Denial::NotWriter { mapping }),
        });
        let Some((region, reply)) = self.ask(process, request::Freeze { mapping }, plan) else {
            return false;
        };
        assert_eq!(reply, Reply::Done);
        self.become_state(region, RegionState::Frozen);
        true
    }

    fn become_state(&mut self, region: usize, now: RegionState) {
        if let Body::Region(state, _) = &mut self.oracle.objects[region] {
            *state = now;
        }
    }

    fn end_or_connect(&mut self, process: usize, first: u8, second: u8) -> bool {
        if first < 128 && self.who.len() < 2 * PROCESSES {
            self.connect();
            return true;
        }
        if second >= 64 || self.oracle.ended.len() + 1 == self.who.len() {
            return false;
        }
        self.driver.end(self.who[process].number);
        self.oracle.end_process(process);
        true
    }
}

/// Mostly none; few, so that they are reached.
fn limits(choice: u32) -> CapabilityLimits {
    CapabilityLimits {
        opens: choice.is_multiple_of(4).then_some((choice >> 2) as u16 % 4),
        ring_bytes: (choice % 16 == 1).then_some(RING_BYTES << (choice >> 4 & 1) >> (choice >> 5 & 1)),
    }
}
