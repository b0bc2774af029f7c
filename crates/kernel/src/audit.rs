//! Every invariant, one line or more each. Tests, the simulator and fuzzers call it after each step.

use alloc::collections::BTreeMap;

use keyway_abi::limits::DERIVATION_DEPTH_MAX;

use crate::{
    account::AccountId,
    acl::Acl,
    kernel::Kernel,
    lane::{Lane, Mapping, Waiting},
    limits::Charge,
    neighbours::{Doorbell, Pair},
    object::{Body, Device, Queue, Region, RegionState, ServiceName},
    process::{Phase, Process},
    shares::Shares,
    tree::{Capability, Holder},
};

impl Kernel {
    /// Checks every invariant of the kernel.
    ///
    /// # Panics
    /// When one does not hold; the message names it. That is a defect of the kernel, whatever was asked of it.
    pub fn audit(&self) {
        self.audit_tree();
        self.audit_holders();
        self.audit_objects();
        self.audit_lanes();
        self.audit_neighbours();
        self.audit_charges();
        self.audit_signals();
    }

    /// Whether nothing is left: no process, no lane, no capability but the kernel's own.
    pub fn is_vacant(&self) -> bool {
        self.processes.is_empty()
            && self.lanes.is_empty()
            && self.neighbours.is_empty()
            && self.mappings.is_empty()
            && self.names.is_empty()
            && self.name_waits.is_empty()
            && self.sweeps.is_empty()
            && self.objects.len() == 1
            && self.tree.iter().count() == 1
            && self.accounts.is_empty()
    }

    fn audit_tree(&self) {
        let ending = |id, capability: &Capability| {
            capability.expires_ns <= self.now_ns && (capability.revoking || !self.tree.is_live(id))
        };
        let expiring = self.tree.iter().filter(|(_, found)| found.expires_ns != u64::MAX);
        let waiting = expiring.filter(|(id, found)| !ending(*id, found)).count();
        assert!(self.tree.expiries_count() >= waiting, "tree invariant 4: what ends by itself is known");
        let mut below = BTreeMap::new();
        for (id, _) in self.tree.iter() {
            for child in self.tree.children(id) {
                assert_eq!(below.insert(child, id), None, "a child has one parent");
            }
        }
        for (id, capability) in self.tree.iter() {
            assert!(capability.depth <= DERIVATION_DEPTH_MAX + 1, "tree invariant 3: depth");
            if capability.holder == Holder::Nobody && !capability.revoking {
                let above = self.tree.parent(id).and_then(|parent| self.tree.get(parent).limits().opens);
                let bounds =
                    capability.limits().opens.is_some_and(|max| above.is_none_or(|above| max < above));
                let least = if bounds { 1 } else { 2 };
                assert!(self.tree.children(id).count() >= least, "tree invariant 2: joints");
            }
            if capability.revoking {
                assert!(self.sweeps.contains_key(&id), "a mark belongs to a revocation");
            }
            assert_eq!(below.get(&id).copied(), self.tree.parent(id), "parent and child know each other");
            let Some(parent) = self.tree.parent(id) else { continue };
            let parent = self.tree.get(parent);
            assert_eq!(parent.object, capability.object, "tree invariant 1: object");
            assert!(parent.rights.contains(capability.rights), "tree invariant 1: rights");
            assert!(parent.badge.is_none() || parent.badge == capability.badge, "tree invariant 1: badge");
            assert!(capability.expires_ns <= parent.expires_ns, "tree invariant 1: expiry");
            let (held, limits) = (parent.limits(), capability.limits());
            let shrinks = |held: Option<u32>, below: Option<u32>| {
                held.is_none_or(|held| below.is_some_and(|below| below <= held))
            };
            assert!(
                shrinks(held.opens.map(u32::from), limits.opens.map(u32::from))
                    && shrinks(held.ring_bytes, limits.ring_bytes)
                    && shrinks(held.priority.map(u32::from), limits.priority.map(u32::from)),
                "tree invariant 1: limits"
            );
        }
        let mut open = BTreeMap::<_, u16>::new();
        for (id, capability) in self.tree.iter() {
            if matches!(capability.holder, Holder::Lane(_) | Holder::Mapping(_)) {
                let mut above = self.tree.parent(id);
                while let Some(at) = above {
                    *open.entry(at).or_default() += 1;
                    above = self.tree.parent(at);
                }
            }
        }
        for (id, capability) in self.tree.iter() {
            let expected = capability.limits().opens.and_then(|_| open.get(&id).copied()).unwrap_or(0);
            assert_eq!(capability.opens(), expected, "tree invariant 5: what is open");
            assert!(capability.limits().opens.is_none_or(|max| expected <= max), "no more than allowed");
        }
        for root in self.sweeps.keys() {
            assert!(self.tree.get(*root).revoking, "a revocation has its mark");
        }
    }

    fn audit_holders(&self) {
        for (id, capability) in self.tree.iter() {
            let known = match capability.holder {
                Holder::Process(process, slot) => {
                    let process = &self.processes[&process];
                    process.table.get(process.table.handle(slot)) == Ok(id)
                }
                Holder::Lane(lane) => self.lanes[&lane].capability == Some(id),
                Holder::Mapping(mapping) => self.mappings[&mapping].capability == Some(id),
                Holder::Name(name) => match &self.object(name).body {
                    Body::ServiceName(entry) => entry.target == Some(id),
                    _ => false,
                },
                Holder::Escrow(lane, ticket) => self.lanes[&lane].escrow[&ticket].capability == id,
                Holder::Kernel | Holder::Nobody => true,
            };
            assert!(known, "kernel invariant 1: {id:?} {:?}", capability.holder);
        }
        for (number, process) in &self.processes {
            for (handle, id) in process.table.filled(0) {
                let holder = self.tree.get(id).holder;
                assert_eq!(holder, Holder::Process(*number, handle.slot()), "kernel invariant 1: handle");
            }
            if let Some(known) = process.held.known() {
                let filled = process.table.filled(0);
                let held = filled.map(|(handle, id)| (self.tree.get(id).object, handle.slot())).collect();
                assert_eq!(*known, held, "what {number} holds is known by object");
            }
            assert_eq!(process.table.held(), process.table.count_held(), "table invariant 2");
        }
        self.audit_first_capabilities();
    }

    /// Of regions that are being made.
    fn audit_first_capabilities(&self) {
        for (awaiting, waiting) in self.waiting.values() {
            let (Some(awaiting), Waiting::Region(region, handle)) = (awaiting, waiting) else { continue };
            let asker = self.processes.get(&awaiting.caller.process);
            if let Some(Ok(id)) = asker.map(|asker| asker.table.get(*handle)) {
                let found = self.tree.get(id);
                assert_eq!((found.object, found.depth), (*region, 0), "nothing takes its place");
            }
        }
    }

    fn audit_objects(&self) {
        let mut counts = BTreeMap::new();
        for (_, capability) in self.tree.iter() {
            *counts.entry(capability.object).or_insert(0) += 1;
        }
        let queues = self.objects.iter().filter(|(_, object)| matches!(object.body, Body::Queue(_)));
        assert!(queues.map(|(id, _)| id).eq(&self.queues), "the queues are known");
        for (id, object) in &self.objects {
            let count = counts.remove(id).unwrap_or(0);
            assert_eq!(object.capabilities, count, "kernel invariant 2: {id:?}");
            let mapped = object.is_in_use();
            assert!(count > 0 || mapped, "kernel invariant 2: {id:?} has ended");
            if let Body::Region(Region { state, mappings, .. }) = &object.body
                && let RegionState::Writing(writer) | RegionState::Sealing(writer) = state
            {
                assert!(mappings.iter().eq([writer]), "{id:?} is mapped by its writer alone");
            }
        }
        self.audit_watches();
        assert!(counts.is_empty(), "kernel invariant 2: capabilities of objects that are gone");
        for (name, id) in &self.names {
            let Body::ServiceName(entry) = &self.object(*id).body else { panic!("a name is a name") };
            assert!(entry.target.is_some() && entry.name == *name, "a name that is found has a target");
            let queue = entry.target.map(|target| self.object(self.tree.get(target).object));
            let known = queue
                .is_some_and(|queue| matches!(&queue.body, Body::Queue(queue) if queue.names.contains(id)));
            assert!(known, "a queue knows its names: {name}");
            let badged = entry.badges.keys().all(|process| self.processes[process].badged.contains(id));
            assert!(badged, "a process knows the names for which it has badges: {name}");
        }
    }

    fn audit_watches(&self) {
        for (id, object) in &self.objects {
            let Body::Process(body) = &object.body else { continue };
            for (watcher, handle) in &body.watchers {
                let known = self.processes[watcher].watching.contains(&(*id, *handle));
                assert!(known, "process invariant 1: {watcher} watches");
            }
        }
        for process in self.processes.values() {
            for (id, handle) in &process.watching {
                let Body::Process(body) = &self.object(*id).body else {
                    panic!("what is watched is a process")
                };
                let known = body.watchers.iter().any(|(_, watched)| watched == handle);
                assert!(known && process.table.get(*handle).is_ok(), "process invariant 1: watching");
            }
        }
        for (id, object) in &self.objects {
            let owner = match &object.body {
                Body::Device(device) => self.processes.get(&device.owner).map(|owner| (owner, device.root)),
                Body::Queue(queue) => self.processes.get(&queue.receiver).map(|owner| (owner, queue.root)),
                _ => None,
            };
            if let Some((owner, root)) = owner.filter(|(owner, _)| owner.owned.contains(id)) {
                assert_eq!(self.tree.get(root).object, *id, "the first capability of {id:?} stands");
                assert!(
                    owner.owned.iter().all(|owned| self.objects.contains_key(owned)),
                    "what is owned exists"
                );
            }
        }
    }

    fn audit_lanes(&self) {
        for (id, lane) in &self.lanes {
            assert!(lane.sender_here || lane.receiver_here || lane.ended.is_none(), "lane {id} has ends");
            let untold = lane.ended.is_none() || !lane.sender_here;
            assert!(
                untold || lane.capability.is_none(),
                "lane {id} can still be revoked, and its sender knows an end"
            );
            let sender = self.processes.get(&lane.sender);
            let receiver = self.processes.get(&lane.receiver);
            assert!(!lane.sender_here || sender.is_some_and(|sender| sender.sending.contains(id)));
            let receiving = receiver.is_some_and(|receiver| receiver.receiving.contains(id));
            assert_eq!(receiving, lane.charged, "kernel invariant 4: receiver of {id}");
            if let Some(object) = self.objects.get(&lane.queue) {
                let Body::Queue(queue) = &object.body else { panic!("a lane's queue is a queue") };
                assert_eq!(queue.lanes.contains(id), lane.charged, "kernel invariant 4: queue of {id}");
            }
        }
        for (id, object) in &self.objects {
            let Body::Queue(queue) = &object.body else { continue };
            let mut shares = Shares::default();
            for account in queue.lanes.iter().map(|lane| self.lanes[lane].sender_account) {
                shares.add(account, self.accounts.uid(account));
            }
            assert_eq!(queue.shares, shares, "whose the lanes of {id:?} are is known");
        }
        for (number, process) in &self.processes {
            let words = process.sending.len() + process.receiving.len() + process.mappings.len();
            assert_eq!(process.pages.live(), words, "each end and each mapping of {number} has its word");
            assert!(process.mappings.iter().all(|id| self.mappings[id].process == *number));
        }
    }

    fn audit_neighbours(&self) {
        let mut lanes = BTreeMap::<_, u32>::new();
        for lane in self.lanes.values() {
            *lanes.entry(Pair::of(lane.sender, lane.receiver)).or_default() += 1;
        }
        let known = self.neighbours.iter().map(|(pair, neighbours)| (pair, &neighbours.lanes));
        assert!(known.eq(&lanes), "who shares lanes is known");
        for (pair, neighbours) in &self.neighbours {
            let mut members =
                pair.members().filter_map(|member| Some((member, self.processes.get(&member)?)));
            let rings = |(member, process): (_, &Process)| process.doorbells.contains(&pair.other(member));
            match neighbours.doorbell {
                Doorbell::None => assert!(!members.any(rings), "{pair:?} have no doorbell"),
                Doorbell::There => {
                    assert_eq!(members.filter(|member| rings(*member)).count(), pair.members().count());
                }
                Doorbell::Making(made) => {
                    assert_eq!(members.filter(|member| rings(*member)).count(), pair.members().count());
                    let is_it = |waiting: &Waiting| matches!(waiting, Waiting::Doorbell { pair: of, token, .. } if (of, *token) == (pair, made));
                    let making = self.waiting.values().any(|(_, waiting)| is_it(waiting));
                    assert!(making, "a doorbell of {pair:?} is being made");
                }
            }
        }
        for (number, process) in &self.processes {
            let mut peers = process.doorbells.iter().map(|peer| Pair::of(*number, *peer));
            assert!(
                peers.all(|pair| self.neighbours.contains_key(&pair)),
                "{number} has doorbells with those it shares lanes with"
            );
        }
    }

    fn audit_signals(&self) {
        for (number, process) in &self.processes {
            process.signals.audit();
            let can_have = process.phase == Phase::Ready || process.signals.is_untouched();
            assert!(can_have, "{number} has signals before it has spoken");
        }
    }

    fn audit_charges(&self) {
        let mut expected = BTreeMap::<AccountId, Charge>::new();
        let mut add = |account: AccountId, charge: Charge| {
            let total = expected.entry(account).or_default();
            *total = total.plus(charge);
        };
        for (_, capability) in self.tree.iter() {
            capability.payer.into_iter().for_each(|payer| add(payer, Charge::DERIVATION));
        }
        let answers = self.waiting.values().filter_map(|(awaiting, _)| awaiting.as_ref());
        for awaiting in answers.chain(self.sweeps.values().filter_map(|sweep| sweep.awaiting.as_ref())) {
            add(awaiting.account, Charge::REQUEST);
        }
        for (_, waiting) in self.waiting.values() {
            if let Waiting::Closing(account) = waiting {
                add(*account, Charge::DESCRIPTOR);
            }
        }
        for process in self.processes.values() {
            add(process.account, Charge::SESSION.plus(process.charge_of_pages()));
            process.table.filled(0).for_each(|_| add(process.account, Charge::HANDLE));
            process.mappings.iter().for_each(|_| add(process.account, Mapping::CHARGE));
            process.badged.iter().for_each(|_| add(process.account, Charge::DERIVATION));
        }
        for object in self.objects.values() {
            let Some(account) = object.account else { continue };
            add(account, object.acl.as_ref().map_or(Charge::NOTHING, Acl::charge));
            match &object.body {
                Body::Queue(queue) => {
                    let unused = queue.acks.len() - queue.lanes.len();
                    add(account, Queue::CHARGE.plus(Lane::ack_charge(unused as u32)));
                }
                Body::Region(region) => add(account, Region::charge(region.bytes)),
                Body::Device(_) => add(account, Device::CHARGE),
                Body::ServiceName(_) => add(account, ServiceName::CHARGE),
                Body::Process(_) | Body::Directory => {}
            }
        }
        for lane in self.lanes.values() {
            add(lane.sender_account, Lane::SENDER_CHARGE);
            if lane.charged {
                add(lane.sender_account, Lane::memory_charge(lane.memory_bytes()));
                add(lane.receiver_account, Lane::RECEIVER_CHARGE.plus(Lane::ack_charge(1)));
            }
            lane.escrow.values().for_each(|_| add(lane.sender_account, Charge::HANDLE));
        }
        self.accounts.audit(&expected);
    }
}
