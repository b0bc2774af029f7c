//! Derive, grant, revoke and delete.

use alloc::vec;

use keyway_abi::{Badge, Created, Denial, Event, Reply, Rights, limits::DERIVATION_DEPTH_MAX, request};

use crate::{
    kernel::{Kernel, Outcome},
    object::Body,
    sweep::{Caller, Loss, Sweep},
    tree::{Capability, CapabilityId},
};

impl Kernel {
    pub(crate) fn derive(&mut self, caller: Caller, request: &request::Derive) -> Result<Outcome, Denial> {
        let (parent, badge) =
            self.check_child(caller, request.from, Rights::DERIVE, request.rights, request.badge)?;
        self.check_room(caller.process)?;
        let handle = self.commit_derive_into(parent, caller.process, request.rights, badge);
        Outcome::reply(Reply::Capability(Created { handle, rights: request.rights, badge }))
    }

    pub(crate) fn grant(&mut self, caller: Caller, request: &request::Grant) -> Result<Outcome, Denial> {
        let (parent, badge) =
            self.check_child(caller, request.from, Rights::GRANT, request.rights, request.badge)?;
        let to = self.check_endow(caller, request.to)?;
        self.check_room(to)?;
        let handle = self.commit_derive_into(parent, to, request.rights, badge);
        let kind = self.object(self.tree.get(parent).object).kind();
        let rights = request.rights;
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
        self.start_sweep(Sweep { root: id, caller: Some(caller), count: 0, loss: Loss::Revoked });
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

    /// Whether a child with these rights and this badge may be made from a capability of the asker. Returns the parent
    /// and the badge that the child will carry.
    pub(crate) fn check_child(
        &self,
        caller: Caller,
        from: keyway_abi::Handle,
        needed: Rights,
        rights: Rights,
        badge: Option<Badge>,
    ) -> Result<(CapabilityId, Option<Badge>), Denial> {
        let (id, capability) = self.held_any(caller.process, from)?;
        if !capability.rights.contains(needed) {
            return Err(Denial::MissingRights { handle: from, needed, held: capability.rights });
        }
        if capability.revoking {
            return Err(Denial::Revoking { handle: from });
        }
        let badge = Self::check_weaker(capability, rights, badge)?;
        Ok((id, badge))
    }

    /// Whether `rights` and `badge` are lawful for a child of `parent`. Returns the badge that the child will carry.
    pub(crate) fn check_weaker(
        parent: &Capability,
        rights: Rights,
        badge: Option<Badge>,
    ) -> Result<Option<Badge>, Denial> {
        if !parent.rights.contains(rights) {
            return Err(Denial::RightsExceeded { asked: rights, held: parent.rights });
        }
        if rights.contains(Rights::RECEIVE) {
            return Err(Denial::ReceiveBound);
        }
        if parent.depth >= DERIVATION_DEPTH_MAX {
            return Err(Denial::DepthExceeded { depth: parent.depth + 1, depth_max: DERIVATION_DEPTH_MAX });
        }
        match (parent.badge, badge) {
            (Some(held), Some(asked)) if held != asked => Err(Denial::BadgeFixed { asked, held }),
            (held, asked) => Ok(held.or(asked)),
        }
    }
}
