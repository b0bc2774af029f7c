//! The directory of service names.

use alloc::{collections::BTreeMap, vec, vec::Vec};

use keyway_abi::{
    Badge, Created, Denial, Event, Kind, Name, Payer, ProcessNumber, Quota, Reply, Rights, Terms,
    limits::NAME_WAITS_MAX,
    request::{self, Audience},
};

use crate::{
    account::AccountId,
    kernel::{Kernel, Outcome},
    limits::Charge,
    object::{Body, ServiceName},
    sweep::Caller,
    tree::{CapabilityId, Child, Holder, ObjectId},
};

impl Kernel {
    pub(crate) fn publish(&mut self, caller: Caller, request: request::Publish) -> Result<Outcome, Denial> {
        self.held(caller.process, request.directory, Kind::Directory, Rights::PUBLISH)?;
        self.check_rules(caller.process, &request.name, Rights::PUBLISH)?;
        let (queue, capability) = self.held(caller.process, request.queue, Kind::Queue, Rights::GRANT)?;
        if capability.revoking {
            return Err(Denial::Revoking { handle: request.queue });
        }
        let terms = self.check_weaker(capability, Terms::rights(request.rights))?;
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
        let (name, audience) = (request.name.clone(), request.audience);
        let (publisher, badges) = (caller.process, BTreeMap::new());
        let (id, handle) = self.commit_object(publisher, Rights::empty(), ServiceName::CHARGE, |_, root| {
            Body::ServiceName(ServiceName {
                name,
                root,
                publisher,
                publisher_uid,
                audience,
                target: None,
                badges,
            })
        });
        let child = Child { terms, bearer: None, holder: Holder::Name(id), payer: None };
        let target = self.commit_derive(queue, child);
        if let Body::ServiceName(entry) = &mut self.object_mut(id).body {
            entry.target = Some(target);
        }
        self.process_mut(publisher).owned.insert(id);
        let published = self.tree.get(target).object;
        self.queue_mut(published).names.insert(id);
        self.names.insert(request.name.clone(), id);
        self.tell_waiters(&request.name);
        Outcome::reply(Reply::Capability(Created { handle, rights: Rights::empty(), badge: None }))
    }

    pub(crate) fn lookup(&mut self, caller: Caller, request: &request::Lookup) -> Result<Outcome, Denial> {
        self.held(caller.process, request.directory, Kind::Directory, Rights::LOOKUP)?;
        self.check_rules(caller.process, &request.name, Rights::LOOKUP)?;
        let holder = match request.on_behalf_of {
            None => caller.process,
            Some(process) => self.check_endow(caller, process)?,
        };
        let (name, target) = self.check_name(caller, &request.name)?;
        let rights = self.tree.get(target).rights;
        let terms = self.check_weaker(self.tree.get(target), Terms::rights(rights))?;
        let payer = Some(self.check_badge(caller.process, holder, name)?);
        self.check_room(holder)?;
        let badge = self.commit_badge(holder, name);
        let terms = Terms { badge: Some(badge), ..terms };
        let child = Child { terms, bearer: Some(holder), holder: Holder::Nobody, payer };
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

    /// Whether one more capability can be derived for `asker`, and `holder` have a badge for the name. Returns the asker's account.
    fn check_badge(
        &self,
        asker: ProcessNumber,
        holder: ProcessNumber,
        name: ObjectId,
    ) -> Result<AccountId, Denial> {
        let has_badge = self.process(holder).badged.contains(&name);
        let badge = if has_badge { Charge::NOTHING } else { Charge::DERIVATION };
        let (payer, other) = (self.process(asker).account, self.process(holder).account);
        self.accounts.check_both((payer, Charge::DERIVATION), (other, badge))??;
        Ok(payer)
    }

    /// The badge of a process for a name: the same each time.
    fn commit_badge(&mut self, holder: ProcessNumber, name: ObjectId) -> Badge {
        // INVARIANT a-name-is-a-name: `check_name` found it to be one.
        const IS_NAME: &str = "INVARIANT a-name-is-a-name";
        let Body::ServiceName(entry) = &self.object(name).body else { unreachable!("{IS_NAME}") };
        if let Some(badge) = entry.badges.get(&holder) {
            return *badge;
        }
        let badge = Badge(self.next_number());
        let Body::ServiceName(entry) = &mut self.object_mut(name).body else { unreachable!("{IS_NAME}") };
        entry.badges.insert(holder, badge);
        let process = self.process_mut(holder);
        process.badged.insert(name);
        let account = process.account;
        self.accounts.charge(account, Charge::DERIVATION);
        badge
    }

    pub(crate) fn wait_name(
        &mut self,
        caller: Caller,
        request: request::WaitName,
    ) -> Result<Outcome, Denial> {
        self.held(caller.process, request.directory, Kind::Directory, Rights::LOOKUP)?;
        let name = request.name;
        self.check_rules(caller.process, &name, Rights::LOOKUP)?;
        match self.check_name(caller, &name) {
            Ok(_) => {
                // It may have waited for it before, while it might not look it up.
                self.forget_wait(caller.process, &name);
                self.reply(caller, Reply::Done, vec![]);
                self.notify(caller.process, Event::NameAppeared { name }, vec![]);
                return Ok(Outcome::Later);
            }
            // It may be published anew, for this process.
            Err(Denial::NameUnknown { .. } | Denial::NameRefused { .. }) => {}
            Err(denial) => return Err(denial),
        }
        let waited = &self.process(caller.process).waited_names;
        let (used, max) = (waited.len() as u64, NAME_WAITS_MAX as u64);
        if used >= max && !waited.contains(&name) {
            let (quota, of) = (Quota::NameWaits, Payer::Process);
            return Err(Denial::QuotaExceeded { quota, of, asked: 1, used, max });
        }
        self.process_mut(caller.process).waited_names.insert(name.clone());
        self.name_waits.insert((name, caller.process));
        Outcome::reply(Reply::Done)
    }

    pub(crate) fn forget_name(
        &mut self,
        caller: Caller,
        request: &request::ForgetName,
    ) -> Result<Outcome, Denial> {
        self.forget_wait(caller.process, &request.name);
        Outcome::reply(Reply::Done)
    }

    fn forget_wait(&mut self, process: ProcessNumber, name: &Name) {
        self.process_mut(process).waited_names.remove(name);
        self.name_waits.remove(&(name.clone(), process));
    }

    /// Other rules hold: whoever waits for a name that is there may be able to look it up now.
    pub(crate) fn tell_all_waiters(&mut self) {
        let mut names: Vec<Name> = self.name_waits.iter().map(|(name, _)| name.clone()).collect();
        names.dedup();
        for name in names {
            self.tell_waiters(&name);
        }
    }

    /// A name is there: those who wait for it and may look it up are told once.
    fn tell_waiters(&mut self, name: &Name) {
        let first = (name.clone(), ProcessNumber(0));
        let waiters = self.name_waits.range(first..).take_while(|(waited, _)| waited == name);
        let waiters: Vec<ProcessNumber> = waiters.map(|(_, process)| *process).collect();
        for process in waiters {
            let permitted = self.check_rules(process, name, Rights::LOOKUP);
            if permitted.and_then(|()| self.check_name_for(process, name)).is_ok() {
                self.forget_wait(process, name);
                self.notify(process, Event::NameAppeared { name: name.clone() }, vec![]);
            }
        }
    }

    /// Whether the policy lets the asker do this with a name. Judged before it is looked whether the name is there, so that a
    /// refusal says nothing of that.
    pub(crate) fn check_rules(
        &self,
        process: ProcessNumber,
        name: &Name,
        verb: Rights,
    ) -> Result<(), Denial> {
        let identity = self.process(process).identity.as_ref();
        // Who it is, is known of everyone whose requests are handled.
        if identity.is_some_and(|identity| self.rules.permits(identity, name, verb)) {
            return Ok(());
        }
        Err(Denial::NameForbidden { name: name.clone(), verb })
    }

    /// The name's object and the capability from which look-ups derive, if the asker is of its audience.
    fn check_name(&self, caller: Caller, name: &Name) -> Result<(ObjectId, CapabilityId), Denial> {
        self.check_name_for(caller.process, name)
    }

    fn check_name_for(
        &self,
        process: ProcessNumber,
        name: &Name,
    ) -> Result<(ObjectId, CapabilityId), Denial> {
        let unknown = || Denial::NameUnknown { name: name.clone() };
        let id = *self.names.get(name).ok_or_else(unknown)?;
        let Body::ServiceName(entry) = &self.object(id).body else { return Err(unknown()) };
        let uid = self.process(process).uid();
        if entry.audience == Audience::OwnUserAndRoot && uid != 0 && uid != entry.publisher_uid {
            return Err(Denial::NameRefused { name: name.clone() });
        }
        let target = entry.target.filter(|target| self.is_usable(*target)).ok_or_else(unknown)?;
        Ok((id, target))
    }
}

impl ServiceName {
    /// What a name costs its publisher.
    pub(crate) const CHARGE: Charge = Charge { objects: 1, names: 1, ..Charge::NOTHING };
}
