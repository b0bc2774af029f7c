//! What is lawful, judged from the lists alone.

use alloc::vec::Vec;

use keyway_abi::{
    AclKind, Badge, CapabilityLimit, Denial, Handle, Kind, LaneId, Rights, Terms,
    limits::DERIVATION_DEPTH_MAX,
    request::{Audience, MapAccess, RegionFlags},
};

use super::oracle::{About, Body, Capability, Holder, Lane, Oracle, RegionState};
use crate::{NameRule, Subject, tests::driver::name};

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
        self.has(process, id, handle, right)
    }

    /// Whether the process may use this capability of its for this: what it has and what the object's list allows to it,
    /// and nothing of which the list denies it any.
    fn has(&self, process: usize, id: usize, handle: Handle, needed: Rights) -> Result<usize, Denial> {
        let of_kind = |kind| self.listed(process, self.capabilities[id].object, kind);
        let held = self.capabilities[id].rights | of_kind(AclKind::Allow);
        if !held.contains(needed) {
            return Err(Denial::MissingRights { handle, needed, held });
        }
        let denied = of_kind(AclKind::Deny) & needed;
        if denied.is_empty() { Ok(id) } else { Err(Denial::DeniedByList { handle, denied }) }
    }

    /// What the entries of this kind say of a process.
    pub(super) fn listed(&self, process: usize, object: usize, wanted: AclKind) -> Rights {
        let identity = &self.people[process].identity;
        let mut all = Rights::empty();
        for (_, about, permissions, kind) in &self.lists[object].entries {
            let speaks = match about {
                About::User(uid) => identity.uid == *uid,
                About::Group(gid) => [identity.gid].iter().chain(&identity.groups).any(|of| of == gid),
                About::Program(path) => identity.executable == *path,
                About::Object(about) => match self.objects[*about] {
                    Body::Process(whom) => whom == process,
                    _ => self.capabilities.iter().any(|capability| {
                        capability.object == *about
                            && matches!(capability.holder, Holder::Process(whom, _) if whom == process)
                    }),
                },
            };
            if speaks && *kind == wanted {
                all |= *permissions;
            }
        }
        all
    }

    /// The object, if the process may change its list: by what it holds, whatever the list says.
    pub(super) fn controls(&self, process: usize, handle: Handle) -> Result<usize, Denial> {
        let id = self.held_any(process, handle)?;
        let (needed, held) = (Rights::CONTROL, self.capabilities[id].rights);
        if held.contains(needed) {
            Ok(self.capabilities[id].object)
        } else {
            Err(Denial::MissingRights { handle, needed, held })
        }
    }

    /// Whether the process may look at everything through this handle.
    pub(super) fn inspects(&self, process: usize, directory: Handle) -> bool {
        self.held(process, directory, Kind::Directory, Rights::INSPECT).is_ok()
    }

    /// Whether the rules for names let a process do this.
    pub(super) fn ruled(&self, process: usize, text: &str, verb: Rights) -> Result<(), Denial> {
        let identity = &self.people[process].identity;
        let speaks = |rule: &&NameRule| {
            let about = match &rule.subject {
                Subject::Everyone => true,
                Subject::User(uid) => identity.uid == *uid,
                Subject::Group(gid) => [identity.gid].iter().chain(&identity.groups).any(|of| of == gid),
                Subject::Executable(path) => identity.executable == *path,
            };
            about && text.get(..rule.prefix.len()) == Some(rule.prefix.as_str())
        };
        let forbidden = self.rules.iter().filter(speaks).any(|rule| rule.deny.contains(verb));
        let permitted = self.rules.iter().filter(speaks).any(|rule| rule.allow.contains(verb));
        if self.rules.is_empty() || permitted && !forbidden {
            return Ok(());
        }
        Err(Denial::NameForbidden { name: name(text), verb })
    }

    /// The name and what stands behind it, if the process is one of those for whom it is.
    pub(super) fn name_for(&self, process: usize, text: &str) -> Result<(usize, usize), Denial> {
        let (object, target) = self.name(text).ok_or(Denial::NameUnknown { name: name(text) })?;
        let Body::Name { publisher, audience, .. } = &self.objects[object] else { panic!("a name") };
        let (asker, of) = (self.people[process].identity.uid, self.people[*publisher].identity.uid);
        if *audience == Audience::Everyone || asker == 0 || asker == of {
            return Ok((object, target));
        }
        Err(Denial::NameRefused { name: name(text) })
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
        if asked.priority.is_some_and(|asked| asked > held.priority.unwrap_or(7)) {
            let (asked, held) = (asked.priority.unwrap_or(0).into(), held.priority.unwrap_or(7).into());
            return Err(Denial::LimitExceeded { limit: CapabilityLimit::Priority, asked, held });
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
        self.has(process, id, from, needed)?;
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
        self.reached(process, handle, Rights::ENDOW)
    }

    /// The process that a capability names, if it has not ended.
    pub(super) fn reached(&self, process: usize, handle: Handle, needed: Rights) -> Result<usize, Denial> {
        let id = self.held(process, handle, Kind::Process, needed)?;
        match self.objects[self.capabilities[id].object] {
            Body::Process(to) if !self.ended.contains(&to) => Ok(to),
            Body::Process(to) => Err(Denial::ProcessEnded { process: self.people[to].number }),
            _ => unreachable!("it names a process"),
        }
    }

    pub(super) fn movable(&self, process: usize, handle: Handle) -> Result<usize, Denial> {
        let id = self.held_any(process, handle)?;
        self.has(process, id, handle, Rights::GRANT)?;
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

    /// The accounts that pay for the lanes into a queue of which the memory is still there.
    pub(super) fn lanes_into(&self, queue: usize) -> impl Iterator<Item = usize> + '_ {
        let lanes = self.lanes.values().filter(move |lane| lane.queue == queue && lane.receiver_here);
        lanes.map(|lane| self.people[lane.sender].account)
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
