//! What must be so, in the plainest form: flat lists and full walks.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::ops::RangeInclusive;

use keyway_abi::{
    Badge, CapabilityLimit, CapabilityLimits, Denial, Handle, Kind, LaneId, MappingId, ProcessNumber, Rights,
    Terms, Ticket,
    limits::DERIVATION_DEPTH_MAX,
    request::{MapAccess, RegionFlags},
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
    Name { text: &'static str, publisher: usize, root: usize, target: Option<usize> },
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
    /// The kernel's number of each process.
    pub(super) numbers: Vec<ProcessNumber>,
    /// The kernel's own capability to each process.
    pub(super) roots: Vec<usize>,
    pub(super) now_ns: u64,
}

/// Making things.
impl Oracle {
    pub(super) fn object(&mut self, body: Body, rights: Rights, holder: Holder) -> usize {
        self.objects.push(body);
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
        self.insert(Capability { parent, rights, badge, depth, holder, ..from })
    }

    pub(super) fn child_until(
        &mut self,
        parent: usize,
        asked: &Terms,
        badge: Option<Badge>,
        holder: Holder,
    ) -> usize {
        let id = self.child(parent, asked.rights, badge, holder);
        let inherited = self.capabilities[id].expires_ns;
        self.capabilities[id].expires_ns = asked.expires_ns.unwrap_or(inherited);
        let limits = &mut self.capabilities[id].limits;
        limits.opens = asked.limits.opens.or(limits.opens);
        limits.ring_bytes = asked.limits.ring_bytes.or(limits.ring_bytes);
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
        self.child_until(id, asked, badge, Holder::Process(process, handle));
    }

    pub(super) fn hold(&mut self, id: usize, holder: Holder) {
        self.capabilities[id].holder = holder;
        if let Holder::Process(process, handle) = holder {
            let before = self.seen[process].insert(handle, id);
            assert!(before.is_none_or(|before| before == id), "a handle is never given twice");
        }
    }
}

/// Judging.
impl Oracle {
    pub(super) fn held_any(&self, process: usize, handle: Handle) -> Result<usize, Denial> {
        match self.seen[process].get(&handle) {
            None => Err(Denial::UnknownHandle { handle }),
            Some(id) if self.capabilities[*id].holder == Holder::Process(process, handle) => Ok(*id),
            Some(_) => Err(Denial::StaleHandle { handle }),
        }
    }

    pub(super) fn held(
        &self,
        process: usize,
        handle: Handle,
        needed: Kind,
        right: Rights,
    ) -> Result<usize, Denial> {
        let id = self.held_any(process, handle)?;
        let found = self.kind(id);
        if found != needed {
            return Err(Denial::WrongKind { handle, needed, found });
        }
        self.has(id, handle, right)
    }

    fn has(&self, id: usize, handle: Handle, needed: Rights) -> Result<usize, Denial> {
        let held = self.capabilities[id].rights;
        if held.contains(needed) { Ok(id) } else { Err(Denial::MissingRights { handle, needed, held }) }
    }

    pub(super) fn weaker(
        &self,
        parent: usize,
        asked: Rights,
        badge: Option<Badge>,
    ) -> Result<Option<Badge>, Denial> {
        self.weaker_until(parent, &Terms { badge, ..Terms::rights(asked) })
    }

    pub(super) fn weaker_until(&self, parent: usize, asked: &Terms) -> Result<Option<Badge>, Denial> {
        let Terms { rights: asked, badge, expires_ns, limits: asked_limits } = *asked;
        let Capability { rights: held, badge: fixed, depth, expires_ns: held_ns, .. } =
            self.capabilities[parent];
        if !held.contains(asked) {
            return Err(Denial::RightsExceeded { asked, held });
        }
        if asked.contains(Rights::RECEIVE) {
            return Err(Denial::ReceiveBound);
        }
        if depth == DERIVATION_DEPTH_MAX {
            return Err(Denial::DepthExceeded { depth: depth + 1, depth_max: DERIVATION_DEPTH_MAX });
        }
        let now_ns = self.now_ns;
        match expires_ns {
            Some(asked_ns) if asked_ns <= now_ns => return Err(Denial::ExpiryPast { asked_ns, now_ns }),
            Some(asked_ns) if asked_ns > held_ns => return Err(Denial::ExpiryExceeded { asked_ns, held_ns }),
            _ => {}
        }
        let (held, asked) = (self.capabilities[parent].limits, asked_limits);
        if asked.opens.zip(held.opens).is_some_and(|(asked, held)| asked > held) {
            let (asked, held) = (asked.opens.unwrap_or(0).into(), held.opens.unwrap_or(0).into());
            return Err(Denial::LimitExceeded { limit: CapabilityLimit::Opens, asked, held });
        }
        if asked.ring_bytes.zip(held.ring_bytes).is_some_and(|(asked, held)| asked > held) {
            let (asked, held) = (asked.ring_bytes.unwrap_or(0).into(), held.ring_bytes.unwrap_or(0).into());
            return Err(Denial::LimitExceeded { limit: CapabilityLimit::RingBytes, asked, held });
        }
        match (fixed, badge) {
            (Some(held), Some(asked)) if asked != held => Err(Denial::BadgeFixed { asked, held }),
            _ => Ok(fixed.or(badge)),
        }
    }

    pub(super) fn child_of(
        &self,
        process: usize,
        from: Handle,
        needed: Rights,
        asked: &Terms,
    ) -> Result<(usize, Option<Badge>), Denial> {
        let id = self.held_any(process, from)?;
        self.has(id, from, needed)?;
        Ok((id, self.weaker_until(id, asked)?))
    }

    /// Whether a weaker capability can take the place of this one.
    pub(super) fn replaceable(
        &self,
        process: usize,
        handle: Handle,
        asked: &Terms,
    ) -> Result<(usize, Option<Badge>), Denial> {
        let found = self.child_of(process, handle, Rights::empty(), asked)?;
        match self.objects[self.capabilities[found.0].object] {
            Body::Queue { root, .. } if root == found.0 => Err(Denial::RootBound { kind: Kind::Queue }),
            Body::Name { root, .. } if root == found.0 => Err(Denial::RootBound { kind: Kind::ServiceName }),
            _ => Ok(found),
        }
    }

    pub(super) fn endow(&self, process: usize, handle: Handle) -> Result<usize, Denial> {
        let id = self.held(process, handle, Kind::Process, Rights::ENDOW)?;
        match self.objects[self.capabilities[id].object] {
            Body::Process(to) if !self.ended.contains(&to) => Ok(to),
            Body::Process(to) => Err(Denial::ProcessEnded { process: self.numbers[to] }),
            _ => unreachable!("it names a process"),
        }
    }

    pub(super) fn movable(&self, process: usize, handle: Handle) -> Result<usize, Denial> {
        let id = self.held_any(process, handle)?;
        self.has(id, handle, Rights::GRANT)?;
        if self.capabilities[id].rights.contains(Rights::RECEIVE) {
            return Err(Denial::ReceiveBound);
        }
        Ok(id)
    }

    pub(super) fn sends(&self, process: usize, lane: LaneId) -> Result<&Lane, Denial> {
        match self.lanes.get(&lane) {
            Some(found) if found.sender == process && found.sender_here => Ok(found),
            Some(found) if found.receiver == process && found.receiver_here => Err(Denial::WrongEnd { lane }),
            _ => Err(Denial::UnknownLane { lane }),
        }
    }

    pub(super) fn receives(&self, process: usize, lane: LaneId) -> Result<&Lane, Denial> {
        match self.lanes.get(&lane) {
            Some(found) if found.receiver == process && found.receiver_here => Ok(found),
            Some(found) if found.sender == process && found.sender_here => Err(Denial::WrongEnd { lane }),
            _ => Err(Denial::UnknownLane { lane }),
        }
    }

    pub(super) fn mappable(&self, region: usize, access: MapAccess) -> Result<(), Denial> {
        let Body::Region(state, flags) = &self.objects[region] else { panic!("a region") };
        let shared = flags.contains(RegionFlags::SHARED);
        match (access, state) {
            (MapAccess::Write, _) if shared => Err(Denial::WrongSharing { shared }),
            (MapAccess::Share, _) if !shared => Err(Denial::WrongSharing { shared }),
            (_, RegionState::Abandoned) => Err(Denial::ObjectEnded { kind: Kind::Region }),
            (MapAccess::Read, RegionState::Unwritten | RegionState::Writing(_)) => {
                Err(Denial::RegionUnwritten)
            }
            (MapAccess::Share, RegionState::Writing(_)) => Err(Denial::RegionUnwritten),
            (MapAccess::Write, RegionState::Unwritten)
            | (MapAccess::Read | MapAccess::Share, _)
            | (MapAccess::Frozen, RegionState::Frozen) => Ok(()),
            (MapAccess::Frozen, _) => Err(Denial::NotFrozen),
            (MapAccess::Write, _) => Err(Denial::WriterTaken),
        }
    }

    /// Whether one more lane or mapping may be open through the capability and through each that it comes from.
    pub(super) fn openable(&self, id: usize, handle: Handle) -> Result<(), Denial> {
        let mut at = Some(id);
        while let Some(above) = at {
            let open = |found: &Capability| matches!(found.holder, Holder::Lane(_) | Holder::Mapping(_));
            let is_open_below = |one: &usize| open(&self.capabilities[*one]) && self.is_below(*one, above);
            let used = || (0..self.capabilities.len()).filter(is_open_below).count() as u64;
            match self.capabilities[above].limits.opens.map(|max| (u64::from(max), used())) {
                Some((max, used)) if used >= max => {
                    let limit = CapabilityLimit::Opens;
                    return Err(Denial::LimitReached { handle, limit, asked: 1, used, max });
                }
                _ => at = self.capabilities[above].parent,
            }
        }
        Ok(())
    }

    /// Lanes into a queue whose memory is still there.
    pub(super) fn lanes_into(&self, queue: usize) -> usize {
        self.lanes.values().filter(|lane| lane.queue == queue && lane.receiver_here).count()
    }

    pub(super) fn name(&self, text: &str) -> Option<(usize, usize)> {
        self.objects.iter().enumerate().find_map(|(object, body)| match body {
            Body::Name { text: found, target: Some(target), .. } if *found == text => Some((object, *target)),
            _ => None,
        })
    }

    pub(super) fn kind(&self, id: usize) -> Kind {
        match self.objects[self.capabilities[id].object] {
            Body::Queue { .. } => Kind::Queue,
            Body::Region(..) => Kind::Region,
            Body::Process(_) => Kind::Process,
            Body::Directory => Kind::Directory,
            Body::Name { .. } => Kind::ServiceName,
        }
    }

    /// What a process holds, in the order of slots.
    pub(super) fn table(&self, process: usize) -> Vec<(Handle, usize)> {
        let held = self.seen[process].iter().map(|(handle, id)| (*handle, *id));
        let mut held: Vec<_> = held
            .filter(|(handle, id)| self.capabilities[*id].holder == Holder::Process(process, *handle))
            .collect();
        held.sort_by_key(|(handle, _)| handle.slot());
        held
    }
}

/// Ending things.
impl Oracle {
    /// Takes back everything below. Returns how many of that a process or a message had, without and with what was
    /// in escrow.
    pub(super) fn revoke(&mut self, root: usize) -> RangeInclusive<u64> {
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
            self.drop_one(id, true);
        }
        held..=held + escrow
    }

    fn is_below(&self, id: usize, root: usize) -> bool {
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
                self.drop_one(id, true);
            }
        }
    }

    pub(super) fn drop_one(&mut self, id: usize, revoked: bool) {
        let holder = core::mem::replace(&mut self.capabilities[id].holder, Holder::Gone);
        match holder {
            Holder::Lane(lane) if revoked => {
                if let Some(lane) = self.lanes.get_mut(&lane) {
                    lane.ended = true;
                    let escrow = core::mem::take(&mut lane.escrow);
                    for (id, _) in escrow.into_values() {
                        self.drop_one(id, false);
                    }
                }
            }
            Holder::Name(name) => {
                if let Body::Name { target, .. } = &mut self.objects[name] {
                    *target = None;
                }
            }
            Holder::Escrow(lane, ticket) => {
                if let Some(lane) = self.lanes.get_mut(&lane) {
                    lane.escrow.remove(&ticket);
                }
            }
            _ => {}
        }
    }

    pub(super) fn delete(&mut self, id: usize) {
        let object = self.capabilities[id].object;
        match self.objects[object] {
            Body::Queue { root, .. } if root == id => self.end_queue(object),
            Body::Name { target, .. } => {
                if let Some(target) = target {
                    self.drop_one(target, false);
                }
                self.drop_one(id, false);
            }
            _ => self.drop_one(id, false),
        }
    }

    pub(super) fn end_queue(&mut self, object: usize) {
        let Body::Queue { root, .. } = self.objects[object] else { return };
        let lanes: Vec<_> = self.lanes.keys().copied().collect();
        for lane in lanes {
            if self.lanes[&lane].queue == object && self.lanes[&lane].receiver_here {
                self.leave_receiver(lane);
            }
        }
        self.drop_one(root, false);
        self.revoke(root);
    }

    pub(super) fn leave_sender(&mut self, id: LaneId) {
        let lane = self.lanes.get_mut(&id).expect("a lane");
        lane.sender_here = false;
        lane.ended = true;
        let settled = !lane.receiver_here;
        lane.escrow.values_mut().for_each(|(_, back)| *back = None);
        if settled {
            self.lanes.remove(&id);
        }
    }

    pub(super) fn leave_receiver(&mut self, id: LaneId) {
        let lane = self.lanes.get_mut(&id).expect("a lane");
        lane.receiver_here = false;
        lane.ended = true;
        let (sender_here, own) = (lane.sender_here, lane.capability);
        let escrow = core::mem::take(&mut lane.escrow);
        for (id, _) in escrow.into_values() {
            self.drop_one(id, false);
        }
        self.drop_one(own, false);
        if !sender_here {
            self.lanes.remove(&id);
        }
    }

    pub(super) fn unmap(&mut self, id: MappingId) {
        let mapping = self.mappings.remove(&id).expect("a mapping");
        self.drop_one(mapping.capability, false);
        if let Body::Region(state, _) = &mut self.objects[mapping.region] {
            *state = match *state {
                RegionState::Writing(writer) if writer == id => RegionState::Abandoned,
                RegionState::Live(writer) if writer == id => RegionState::Settled,
                other => other,
            };
        }
    }

    pub(super) fn end_process(&mut self, process: usize) {
        self.ended.insert(process);
        for object in 0..self.objects.len() {
            match self.objects[object] {
                Body::Queue { receiver, root, .. }
                    if receiver == process && self.capabilities[root].holder != Holder::Gone =>
                {
                    self.end_queue(object);
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
            self.leave_sender(lane);
        }
        let mapped = self.mappings.iter().filter(|(_, mapping)| mapping.process == process);
        let mapped: Vec<_> = mapped.map(|(id, _)| *id).collect();
        for mapping in mapped {
            self.unmap(mapping);
        }
        for (_, id) in self.table(process) {
            self.drop_one(id, false);
        }
    }
}
