//! Derive, grant, revoke and delete.

use alloc::vec;

use keyway_abi::{
    CapabilityLimit, CapabilityLimits, Created, Denial, Event, Handle, Kind, Reply, Rights, Terms, Verdict,
    limits::{DERIVATION_DEPTH_MAX, PRIORITY_MAX},
    request,
};

use crate::{
    kernel::{Kernel, Outcome},
    object::{Body, RegionState},
    sweep::{Caller, Loss, Sweep},
    tree::{Capability, CapabilityId, Child},
};

impl Kernel {
    pub(crate) fn derive(&mut self, caller: Caller, request: &request::Derive) -> Result<Outcome, Denial> {
        let (parent, terms) = self.check_child(caller, request.from, Rights::DERIVE, request.terms)?;
        let payer = self.check_derivation(caller.process)?;
        self.check_room(caller.process)?;
        let handle = self.commit_derive_into(parent, caller.process, terms, Some(payer));
        let Terms { rights, badge, .. } = terms;
        Outcome::reply(Reply::Capability(Created { handle, rights, badge }))
    }

    pub(crate) fn grant(&mut self, caller: Caller, request: &request::Grant) -> Result<Outcome, Denial> {
        let (parent, terms) = self.check_child(caller, request.from, Rights::GRANT, request.terms)?;
        let to = self.check_endow(caller, request.to)?;
        let payer = self.check_derivation(caller.process)?;
        self.check_room(to)?;
        let handle = self.commit_derive_into(parent, to, terms, Some(payer));
        let kind = self.object(self.tree.get(parent).object).kind();
        let Terms { rights, badge, .. } = terms;
        self.notify(
            to,
            Event::CapabilityReceived { handle, kind, rights, badge, from: caller.process },
            vec![],
        );
        Outcome::reply(Reply::Capability(Created { handle, rights, badge }))
    }

    pub(crate) fn revoke(&mut self, caller: Caller, request: &request::Revoke) -> Result<Outcome, Denial> {
        let (id, capability) = self.held_any(caller.process, request.handle)?;
        if capability.revoking {
            return Err(Denial::Revoking { handle: request.handle });
        }
        self.check_request(caller.process)?;
        let (awaiting, loss) = (Some(self.commit_awaiting(caller)), Loss::Revoked);
        self.start_sweep(Sweep { root: id, awaiting, count: 0, loss, whole: false });
        Ok(Outcome::Later)
    }

    pub(crate) fn delete(&mut self, caller: Caller, request: &request::Delete) -> Result<Outcome, Denial> {
        let (id, capability) = self.held_any(caller.process, request.handle)?;
        let object = capability.object;
        match &self.object(object).body {
            Body::Queue(queue) if queue.root == id => self.end_object(object, Loss::Deleted),
            Body::ServiceName(_) => self.end_object(object, Loss::Deleted),
            _ => self.drop_capability(id, Loss::Deleted),
        }
        Outcome::reply(Reply::Done)
    }

    /// Whether a child on these terms may be made from a capability of the asker. Returns the parent, and the terms with the
    /// badge that the child will carry.
    pub(crate) fn check_child(
        &self,
        caller: Caller,
        from: Handle,
        needed: Rights,
        asked: Terms,
    ) -> Result<(CapabilityId, Terms), Denial> {
        let (id, capability) = self.held_any(caller.process, from)?;
        self.check_rights(caller.process, from, capability, needed)?;
        if capability.revoking {
            return Err(Denial::Revoking { handle: from });
        }
        let terms = self.check_weaker(capability, asked)?;
        Ok((id, terms))
    }

    /// Whether this is lawful for a child of `parent`. Returns the terms with the badge that the child will carry.
    pub(crate) fn check_weaker(&self, parent: &Capability, asked: Terms) -> Result<Terms, Denial> {
        let Terms { rights, badge, expires_ns, limits } = asked;
        if !parent.rights.contains(rights) {
            return Err(Denial::RightsExceeded { asked: rights, held: parent.rights });
        }
        if rights.contains(Rights::RECEIVE) {
            return Err(Denial::ReceiveBound);
        }
        if parent.depth >= DERIVATION_DEPTH_MAX {
            return Err(Denial::DepthExceeded { depth: parent.depth + 1, depth_max: DERIVATION_DEPTH_MAX });
        }
        if let Some(asked_ns) = expires_ns {
            self.check_expiry(parent, asked_ns)?;
        }
        check_limits(parent.limits(), limits)?;
        match (parent.badge, badge) {
            (Some(held), Some(asked)) if held != asked => Err(Denial::BadgeFixed { asked, held }),
            (held, _) => Ok(Terms { badge: held.or(badge), ..asked }),
        }
    }

    fn check_expiry(&self, parent: &Capability, asked_ns: u64) -> Result<(), Denial> {
        let (now_ns, held_ns) = (self.now_ns, parent.expires_ns);
        if asked_ns <= now_ns {
            return Err(Denial::ExpiryPast { asked_ns, now_ns });
        }
        if asked_ns > held_ns {
            return Err(Denial::ExpiryExceeded { asked_ns, held_ns });
        }
        Ok(())
    }

    /// A capability weaker than the one held takes its place, as its child: what was derived before keeps its rights.
    pub(crate) fn weaken(&mut self, caller: Caller, request: &request::Weaken) -> Result<Outcome, Denial> {
        let handle = request.handle;
        let (id, terms) = self.check_child(caller, handle, Rights::empty(), request.terms)?;
        let capability = self.tree.get(id);
        let (object, holder, bearer) = (capability.object, capability.holder, capability.bearer);
        let (kind, is_root) = match &self.object(object).body {
            Body::Queue(queue) => (Kind::Queue, queue.root == id),
            Body::Device(device) => (Kind::Device, device.root == id),
            Body::ServiceName(name) => (Kind::ServiceName, name.root == id),
            // It is still being made, and known by its first capability.
            Body::Region(region) => (Kind::Region, region.state == RegionState::Creating),
            Body::Process(_) | Body::Directory => (Kind::Process, false),
        };
        if is_root {
            return Err(Denial::RootBound { kind });
        }
        let payer = Some(self.check_derivation(caller.process)?);
        let Terms { rights, badge, .. } = terms;
        let child = Child { terms, bearer, holder, payer };
        let weaker = self.commit_derive(id, child);
        self.process_mut(caller.process).table.restore(handle.slot(), weaker);
        if !rights.contains(Rights::WATCH) {
            self.forget_watch(caller.process, object, handle);
        }
        let freed = self.tree.abandon(id);
        self.uncount(object, freed);
        self.record(Verdict::Granted { to: caller.process, kind, object: object.0, rights, badge });
        Outcome::reply(Reply::Capability(Created { handle, rights, badge }))
    }
}

fn check_limits(held: CapabilityLimits, asked: CapabilityLimits) -> Result<(), Denial> {
    let rows = [
        (CapabilityLimit::Opens, held.opens.map(u64::from), asked.opens.map(u64::from)),
        (CapabilityLimit::RingBytes, held.ring_bytes.map(u64::from), asked.ring_bytes.map(u64::from)),
        // Where nothing bounds it, it is bounded all the same.
        (
            CapabilityLimit::Priority,
            Some(held.priority.unwrap_or(PRIORITY_MAX).into()),
            asked.priority.map(u64::from),
        ),
    ];
    for (limit, held, asked) in rows {
        if let (Some(held), Some(asked)) = (held, asked)
            && asked > held
        {
            return Err(Denial::LimitExceeded { limit, asked, held });
        }
    }
    Ok(())
}
