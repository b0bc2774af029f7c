//! The directory of service names.

use alloc::vec;

use keyway_abi::{
    Badge, Created, Denial, Event, Kind, Name, Reply, Rights,
    request::{self, Audience},
};

use crate::{
    kernel::{Kernel, Outcome},
    limits::Charge,
    object::{Body, ServiceName},
    operations::capabilities::Asked,
    sweep::Caller,
    tree::{CapabilityId, Child, Holder, ObjectId},
};

impl Kernel {
    pub(crate) fn publish(&mut self, caller: Caller, request: request::Publish) -> Result<Outcome, Denial> {
        self.held(caller.process, request.directory, Kind::Directory, Rights::PUBLISH)?;
        self.check_rules(caller, &request.name, Rights::PUBLISH)?;
        let (queue, capability) = self.held(caller.process, request.queue, Kind::Queue, Rights::GRANT)?;
        if capability.revoking {
            return Err(Denial::Revoking { handle: request.queue });
        }
        self.check_weaker(capability, Asked::rights(request.rights))?;
        if let Some(held) = capability.badge {
            // Look-ups fix badges, so there must be none yet.
            return Err(Denial::BadgeFixed { asked: Badge(0), held });
        }
        if self.names.contains_key(&request.name) {
            return Err(Denial::NameTaken { name: request.name });
        }
        self.check_room(caller.process)?;
        let process = self.process(caller.process);
        self.accounts.check(process.account, ServiceName::CHARGE.plus(Charge::HANDLE))?;
        let publisher_uid = process.uid();
        let (name, rights, audience) = (request.name.clone(), request.rights, request.audience);
        let publisher = caller.process;
        let (id, handle) = self.commit_object(publisher, Rights::empty(), ServiceName::CHARGE, |_, root| {
            Body::ServiceName(ServiceName { name, root, publisher, publisher_uid, audience, target: None })
        });
        let child = Child { rights, badge: None, bearer: None, holder: Holder::Name(id), expires_ns: None };
        let target = self.commit_derive(queue, child);
        if let Body::ServiceName(entry) = &mut self.object_mut(id).body {
            entry.target = Some(target);
        }
        self.process_mut(publisher).owned.insert(id);
        self.names.insert(request.name, id);
        Outcome::reply(Reply::Capability(Created { handle, rights: Rights::empty(), badge: None }))
    }

    pub(crate) fn lookup(&mut self, caller: Caller, request: &request::Lookup) -> Result<Outcome, Denial> {
        self.held(caller.process, request.directory, Kind::Directory, Rights::LOOKUP)?;
        self.check_rules(caller, &request.name, Rights::LOOKUP)?;
        let holder = match request.on_behalf_of {
            None => caller.process,
            Some(process) => self.check_endow(caller, process)?,
        };
        let (name, target) = self.check_name(caller, &request.name)?;
        let rights = self.tree.get(target).rights;
        self.check_weaker(self.tree.get(target), Asked::rights(rights))?;
        self.check_room(holder)?;
        let badge = match self.badges.get(&(holder, name)) {
            Some(badge) => *badge,
            None => Badge(self.next_number()),
        };
        self.badges.insert((holder, name), badge);
        let (badge_of, bearer) = (Some(badge), Some(holder));
        let child = Child { rights, badge: badge_of, bearer, holder: Holder::Nobody, expires_ns: None };
        let capability = self.commit_derive(target, child);
        let handle = self.commit_hold(holder, capability);
        if holder != caller.process {
            let event = Event::CapabilityReceived {
                handle,
                kind: Kind::Queue,
                rights,
                badge: Some(badge),
                from: caller.process,
            };
            self.notify(holder, event, vec![]);
        }
        Outcome::reply(Reply::Capability(Created { handle, rights, badge: Some(badge) }))
    }

    /// Whether the policy lets the asker do this with a name. Judged before it is looked whether the name is there, so that a
    /// refusal says nothing of that.
    pub(crate) fn check_rules(&self, caller: Caller, name: &Name, verb: Rights) -> Result<(), Denial> {
        let identity = self.process(caller.process).identity.as_ref();
        // Who it is, is known of everyone whose requests are handled.
        if identity.is_some_and(|identity| self.rules.permits(identity, name, verb)) {
            return Ok(());
        }
        Err(Denial::NameForbidden { name: name.clone(), verb })
    }

    /// The name's object and the capability from which look-ups derive, if the asker is of its audience.
    fn check_name(&self, caller: Caller, name: &Name) -> Result<(ObjectId, CapabilityId), Denial> {
        let unknown = || Denial::NameUnknown { name: name.clone() };
        let id = *self.names.get(name).ok_or_else(unknown)?;
        let Body::ServiceName(entry) = &self.object(id).body else { return Err(unknown()) };
        let uid = self.process(caller.process).uid();
        if entry.audience == Audience::OwnUserAndRoot && uid != 0 && uid != entry.publisher_uid {
            return Err(Denial::NameRefused { name: name.clone() });
        }
        let target = entry.target.filter(|target| self.tree.is_live(*target)).ok_or_else(unknown)?;
        Ok((id, target))
    }
}

impl ServiceName {
    /// What a name costs its publisher.
    pub(crate) const CHARGE: Charge = Charge { objects: 1, names: 1, ..Charge::NOTHING };
}
