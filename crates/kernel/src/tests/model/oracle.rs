//! What must be so, in the plainest form: flat lists and full walks.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};
use core::ops::RangeInclusive;

use keyway_abi::{
    AclKind, Badge, CapabilityLimits, Event, Handle, LaneEnd, LaneId, MappingId, ProcessNumber, Rights,
    Terms, Ticket,
    request::{Audience, RegionFlags},
};

use super::signals::Inbox;
use crate::{
    Identity, Limits, NameRule,
    tests::driver::{doorbell_ended, lane_ended, lost},
};

/// Who holds a capability of the oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    Process(usize, Handle),
    Lane(LaneId),
    Mapping(MappingId),
    Name(usize),
    Escrow(LaneId, Ticket),
    Kernel,
    Gone,
}

#[derive(Clone, Debug)]
pub(super) struct Capability {
    pub(super) parent: Option<usize>,
    pub(super) object: usize,
    pub(super) rights: Rights,
    pub(super) badge: Option<Badge>,
    pub(super) bearer: Option<usize>,
    pub(super) depth: u8,
    pub(super) holder: Holder,
    pub(super) expires_ns: u64,
    pub(super) limits: CapabilityLimits,
    /// The account that asked for it, if one pays.
    pub(super) payer: Option<usize>,
}

/// Why something goes, which decides who hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Its holder gave it up.
    GivenUp,
    /// It was taken back, or its time has come.
    Taken,
    /// What it was for has ended.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RegionState {
    Unwritten,
    Writing(MappingId),
    Live(MappingId),
    Settled,
    Frozen,
    Abandoned,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    Queue { receiver: usize, root: usize, stock: u32, senders_max: u16 },
    Region(RegionState, RegionFlags),
    Process(usize),
    Directory,
    Name { text: &'static str, publisher: usize, root: usize, target: Option<usize>, audience: Audience },
}

/// Whom an entry of an access list is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum About {
    Object(usize),
    User(u32),
    Group(u32),
    Program(String),
}

/// An access list, with how many entries there ever were.
#[derive(Clone, Debug, Default)]
pub(super) struct List {
    pub(super) entries: Vec<(u64, About, Rights, AclKind)>,
    pub(super) last: u64,
}

/// A process, with what it is known by.
#[derive(Debug)]
pub(super) struct Person {
    /// The kernel's number of it.
    pub(super) number: ProcessNumber,
    pub(super) identity: Identity,
    pub(super) account: usize,
    /// The kernel's own capability to it.
    pub(super) root: usize,
    pub(super) inbox: Inbox,
    pub(super) waits: BTreeSet<&'static str>,
}

#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub(super) queue: usize,
    pub(super) sender: usize,
    pub(super) receiver: usize,
    pub(super) capability: usize,
    pub(super) sender_here: bool,
    pub(super) receiver_here: bool,
    pub(super) ended: bool,
    pub(super) tickets: u32,
    /// The capability, and the handle that it comes back under.
    pub(super) escrow: BTreeMap<Ticket, (usize, Option<Handle>)>,
}

#[derive(Clone, Debug)]
pub(super) struct Mapping {
    pub(super) process: usize,
    pub(super) region: usize,
    pub(super) capability: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    pub(super) capabilities: Vec<Capability>,
    pub(super) objects: Vec<Body>,
    pub(super) ended: BTreeSet<usize>,
    /// Every handle that a process was ever given.
    pub(super) seen: Vec<BTreeMap<Handle, usize>>,
    pub(super) lanes: BTreeMap<LaneId, Lane>,
    pub(super) mappings: BTreeMap<MappingId, Mapping>,
    pub(super) badges: BTreeMap<(usize, usize), Badge>,
    pub(super) people: Vec<Person>,
    /// Each with its key and its user.
    pub(super) accounts: Vec<((u64, u64), u32)>,
    /// Whose account pays for each object.
    pub(super) owners: Vec<Option<usize>>,
    /// The access list of each object.
    pub(super) lists: Vec<List>,
    /// Who watches whom, and through which handle.
    pub(super) watches: Vec<(usize, Handle, usize)>,
    /// Which two processes have a doorbell, as [`pair`] has them.
    pub(super) doorbells: BTreeSet<(usize, usize)>,
    pub(super) rules: Vec<NameRule>,
    pub(super) limits: Limits,
    /// What processes are told in this step.
    pub(super) news: Vec<(usize, Event)>,
    pub(super) now_ns: u64,
}

/// Making things.
impl Oracle {
    pub(super) fn object(&mut self, body: Body, rights: Rights, holder: Holder) -> usize {
        let owner = match (holder, &body) {
            (_, Body::Process(_) | Body::Directory) => None,
            (Holder::Process(process, _), _) => Some(self.people[process].account),
            _ => None,
        };
        self.objects.push(body);
        self.owners.push(owner);
        self.lists.push(List::default());
        let object = self.objects.len() - 1;
        self.insert(Capability {
            parent: None,
            object,
            rights,
            badge: None,
            bearer: None,
            depth: 0,
            holder,
            expires_ns: u64::MAX,
            limits: CapabilityLimits::NONE,
            payer: None,
        })
    }

    pub(super) fn child(
        &mut self,
        parent: usize,
        rights: Rights,
        badge: Option<Badge>,
        holder: Holder,
    ) -> usize {
        let from = self.capabilities[parent].clone();
        let (parent, depth) = (Some(parent), from.depth + 1);
        self.insert(Capability { parent, rights, badge, depth, holder, payer: None, ..from })
    }

    pub(super) fn child_until(
        &mut self,
        parent: usize,
        asked: &Terms,
        badge: Option<Badge>,
        holder: Holder,
        payer: usize,
    ) -> usize {
        let id = self.child(parent, asked.rights, badge, holder);
        self.capabilities[id].payer = Some(payer);
        let inherited = self.capabilities[id].expires_ns;
        self.capabilities[id].expires_ns = asked.expires_ns.unwrap_or(inherited);
        let limits = &mut self.capabilities[id].limits;
        limits.opens = asked.limits.opens.or(limits.opens);
        limits.ring_bytes = asked.limits.ring_bytes.or(limits.ring_bytes);
        limits.priority = asked.limits.priority.or(limits.priority);
        id
    }

    fn insert(&mut self, capability: Capability) -> usize {
        let holder = capability.holder;
        self.capabilities.push(capability);
        let id = self.capabilities.len() - 1;
        self.hold(id, holder);
        id
    }

    /// A weaker child takes the place of a capability, under the same handle.
    pub(super) fn replace(
        &mut self,
        id: usize,
        asked: &Terms,
        badge: Option<Badge>,
        process: usize,
        handle: Handle,
    ) {
        self.seen[process].remove(&handle);
        let payer = self.people[process].account;
        self.child_until(id, asked, badge, Holder::Process(process, handle), payer);
    }

    pub(super) fn hold(&mut self, id: usize, holder: Holder) {
        self.capabilities[id].holder = holder;
        if let Holder::Process(process, handle) = holder {
            let before = self.seen[process].insert(handle, id);
            assert!(before.is_none_or(|before| before == id), "a handle is never given twice");
        }
    }
}

/// Ending things.
impl Oracle {
    /// Who has not ended is told.
    pub(super) fn tell(&mut self, process: usize, event: Event) {
        if !self.ended.contains(&process) {
            self.news.push((process, event));
        }
    }

    /// Takes back everything below. Returns how many of that a process or a message had, without and with what was
    /// in escrow.
    pub(super) fn revoke(&mut self, root: usize, why: Why) -> RangeInclusive<u64> {
        let (mut held, mut escrow) = (0, 0);
        let below: Vec<usize> = (0..self.capabilities.len()).filter(|id| self.is_below(*id, root)).collect();
        for id in &below {
            match self.capabilities[*id].holder {
                Holder::Process(..) => held += 1,
                Holder::Escrow(..) => escrow += 1,
                _ => {}
            }
        }
        for id in below {
            self.drop_one(id, why);
        }
        held..=held + escrow
    }

    pub(super) fn is_below(&self, id: usize, root: usize) -> bool {
        let mut above = self.capabilities[id].parent;
        while let Some(parent) = above {
            if parent == root {
                return true;
            }
            above = self.capabilities[parent].parent;
        }
        false
    }

    /// Time has come; what ends by itself has ended.
    pub(super) fn expire(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        for id in 0..self.capabilities.len() {
            if self.capabilities[id].expires_ns <= now_ns {
                self.drop_one(id, Why::Taken);
            }
        }
    }

    pub(super) fn drop_one(&mut self, id: usize, why: Why) {
        let holder = core::mem::replace(&mut self.capabilities[id].holder, Holder::Gone);
        match holder {
            Holder::Process(process, handle) => {
                self.unwatch(process, handle);
                if why != Why::GivenUp {
                    self.tell(process, lost(handle));
                }
            }
            Holder::Lane(lane) if why == Why::Taken => self.take_lane_back(lane),
            Holder::Name(name) => {
                if let Body::Name { target, .. } = &mut self.objects[name] {
                    *target = None;
                }
            }
            Holder::Escrow(lane, ticket) => {
                let Some(lane) = self.lanes.get_mut(&lane) else { return };
                let (sender, sender_here) = (lane.sender, lane.sender_here);
                if let Some((_, Some(back))) = lane.escrow.remove(&ticket)
                    && sender_here
                    && why != Why::GivenUp
                {
                    self.tell(sender, lost(back));
                }
            }
            _ => {}
        }
    }

    pub(super) fn unwatch(&mut self, process: usize, handle: Handle) {
        self.watches.retain(|(watcher, through, _)| (*watcher, *through) != (process, handle));
    }

    fn take_lane_back(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.ended = true;
        let ends = [(lane.sender, lane.sender_here), (lane.receiver, lane.receiver_here)];
        for (process, here) in ends {
            if here {
                self.tell(process, lane_ended(id, LaneEnd::Revoked));
            }
        }
        self.drop_escrow(id);
    }

    fn drop_escrow(&mut self, id: LaneId) {
        let carried: Vec<usize> = self.lanes[&id].escrow.values().map(|(id, _)| *id).collect();
        for id in carried {
            self.drop_one(id, Why::Ended);
        }
    }

    pub(super) fn delete(&mut self, id: usize) {
        let object = self.capabilities[id].object;
        match self.objects[object] {
            Body::Queue { root, .. } if root == id => self.end_queue(object, LaneEnd::QueueDeleted),
            Body::Name { target, .. } => {
                if let Some(target) = target {
                    self.drop_one(target, Why::GivenUp);
                }
                self.drop_one(id, Why::GivenUp);
            }
            _ => self.drop_one(id, Why::GivenUp),
        }
    }

    pub(super) fn end_queue(&mut self, object: usize, why: LaneEnd) {
        let Body::Queue { root, .. } = self.objects[object] else { return };
        let lanes: Vec<_> = self.lanes.keys().copied().collect();
        for lane in lanes {
            if self.lanes[&lane].queue == object && self.lanes[&lane].receiver_here {
                self.leave_receiver(lane, why);
            }
        }
        self.drop_one(root, Why::GivenUp);
        self.revoke(root, Why::Ended);
    }

    pub(super) fn leave_sender(&mut self, id: LaneId, why: LaneEnd) {
        let lane = self.lanes.get_mut(&id).expect("a lane");
        lane.sender_here = false;
        let (receiver, receiver_here) = (lane.receiver, lane.receiver_here);
        let is_news = !core::mem::replace(&mut lane.ended, true);
        lane.escrow.values_mut().for_each(|(_, back)| *back = None);
        if !receiver_here {
            self.lanes.remove(&id);
        } else if is_news {
            self.tell(receiver, lane_ended(id, why));
        }
    }

    pub(super) fn leave_receiver(&mut self, id: LaneId, why: LaneEnd) {
        let lane = self.lanes.get_mut(&id).expect("a lane");
        lane.receiver_here = false;
        let (sender, sender_here, own) = (lane.sender, lane.sender_here, lane.capability);
        let is_news = !core::mem::replace(&mut lane.ended, true);
        if is_news && sender_here {
            self.tell(sender, lane_ended(id, why));
        }
        self.drop_escrow(id);
        self.drop_one(own, Why::GivenUp);
        if !sender_here {
            self.lanes.remove(&id);
        }
    }

    pub(super) fn unmap(&mut self, id: MappingId) {
        let mapping = self.mappings.remove(&id).expect("a mapping");
        self.drop_one(mapping.capability, Why::GivenUp);
        if let Body::Region(state, _) = &mut self.objects[mapping.region] {
            *state = match *state {
                RegionState::Writing(writer) if writer == id => RegionState::Abandoned,
                RegionState::Live(writer) if writer == id => RegionState::Settled,
                other => other,
            };
        }
    }

    /// Doorbells last as long as both are there and share a lane, ended or not.
    pub(super) fn settle_doorbells(&mut self) {
        for (one, other) in self.doorbells.clone() {
            let meet = self.lanes.values().any(|lane| pair(lane.sender, lane.receiver) == (one, other));
            let both_here = !self.ended.contains(&one) && !self.ended.contains(&other);
            if meet && both_here {
                continue;
            }
            self.doorbells.remove(&(one, other));
            self.tell(one, doorbell_ended(self.people[other].number));
            if one != other {
                self.tell(other, doorbell_ended(self.people[one].number));
            }
        }
    }

    pub(super) fn end_process(&mut self, process: usize) {
        self.ended.insert(process);
        for object in 0..self.objects.len() {
            match self.objects[object] {
                Body::Queue { receiver, root, .. }
                    if receiver == process && self.capabilities[root].holder != Holder::Gone =>
                {
                    self.end_queue(object, LaneEnd::PeerDead);
                }
                Body::Name { publisher, root, .. }
                    if publisher == process && self.capabilities[root].holder != Holder::Gone =>
                {
                    self.delete(root);
                }
                _ => {}
            }
        }
        let sending: Vec<_> = self.lanes.iter().filter(|(_, lane)| lane.sender == process).collect();
        let sending: Vec<_> =
            sending.into_iter().filter(|(_, lane)| lane.sender_here).map(|(id, _)| *id).collect();
        for lane in sending {
            self.leave_sender(lane, LaneEnd::PeerDead);
        }
        let mapped = self.mappings.iter().filter(|(_, mapping)| mapping.process == process);
        let mapped: Vec<_> = mapped.map(|(id, _)| *id).collect();
        for mapping in mapped {
            self.unmap(mapping);
        }
        for (_, id) in self.table(process) {
            self.drop_one(id, Why::GivenUp);
        }
        self.drop_one(self.people[process].root, Why::GivenUp);
        self.people[process].waits.clear();
        for (watcher, through, _) in self.watches.clone().into_iter().filter(|(.., of)| *of == process) {
            self.tell(watcher, Event::ProcessEnded { process: through });
        }
        self.watches.retain(|(.., watched)| *watched != process);
    }
}

/// Two processes, whichever is named first.
pub(super) fn pair(one: usize, other: usize) -> (usize, usize) {
    (one.min(other), one.max(other))
}
