//! Access lists of objects: adding, removing, listing, checking.
//!
//! A list is judged each time that a capability to its object is used: what it allows is added to the capability's rights for that
//! use, what it denies is taken away, and a denial wins. It makes no capability, and gives none of its permissions on: what is
//! derived has at most the rights of its parent. What was opened before a list changed stays open.

use keyway_abi::{
    AclEntry, AclItem, Denial, Handle, Listing, Payer, ProcessNumber, Quota, Reply, Rights, ShownSubject,
    limits::{ACL_ENTRIES_MAX, EXECUTABLE_BYTES_MAX, LISTING_ENTRIES_MAX},
    request,
};

use crate::{
    acl::{Entry, Judgement, Subject},
    kernel::{Kernel, Outcome},
    limits::Charge,
    object::{Body, Device, Queue, Region},
    sweep::Caller,
    tree::{Capability, ObjectId},
};

impl Kernel {
    pub(crate) fn acl_add(&mut self, caller: Caller, request: &request::AclAdd) -> Result<Outcome, Denial> {
        let object = self.check_control(caller, request.object)?;
        let entry = self.check_entry(caller, object, &request.entry)?;
        let found = self.object(object);
        let used = found.acl.as_ref().map_or(0, |acl| acl.len() as u64);
        let max = ACL_ENTRIES_MAX as u64;
        if used >= max {
            let (quota, of) = (Quota::AclEntries, Payer::Process);
            return Err(Denial::QuotaExceeded { quota, of, asked: 1, used, max });
        }
        // INVARIANT: only objects with an account have a list, see `check_control`.
        let account = found.account.unwrap_or(self.process(caller.process).account);
        self.accounts.check(account, Charge::HANDLE)?;
        self.accounts.charge(account, Charge::HANDLE);
        let number = self.object_mut(object).acl.get_or_insert_default().add(entry);
        Outcome::reply(Reply::AclAdded { number })
    }

    pub(crate) fn acl_remove(
        &mut self,
        caller: Caller,
        request: &request::AclRemove,
    ) -> Result<Outcome, Denial> {
        let id = self.check_control(caller, request.object)?;
        let unknown = Denial::UnknownAclEntry { number: request.number };
        let object = self.object_mut(id);
        let account = object.account;
        let acl = object.acl.as_mut().filter(|acl| acl.contains(request.number)).ok_or(unknown)?;
        // An empty list stays: it knows which numbers it has given.
        acl.remove(request.number);
        if let Some(account) = account {
            self.accounts.release(account, Charge::HANDLE);
        }
        Outcome::reply(Reply::Done)
    }

    pub(crate) fn acl_list(&mut self, caller: Caller, request: &request::AclList) -> Result<Outcome, Denial> {
        let id = self.check_control(caller, request.object)?;
        let first = request.after.map_or(0, |after| after.saturating_add(1));
        let entries = self.object(id).acl.iter().flat_map(|acl| acl.entries_from(first));
        let items = entries.take(LISTING_ENTRIES_MAX).map(|(number, entry)| shown(number, entry));
        Outcome::reply(Reply::Listing(Listing::Acl(items.collect())))
    }

    pub(crate) fn acl_check(
        &mut self,
        caller: Caller,
        request: &request::AclCheck,
    ) -> Result<Outcome, Denial> {
        let (_, capability) = self.held_any(caller.process, request.object)?;
        let Judgement { allowed, denied } = self.judge(caller.process, capability.object);
        let rights = (capability.rights | allowed) - denied;
        Outcome::reply(Reply::Permitted { rights })
    }

    /// Whether the process may use this capability of its for `needed`, by the capability and by its object's access list.
    pub(crate) fn check_rights(
        &self,
        process: ProcessNumber,
        handle: Handle,
        capability: &Capability,
        needed: Rights,
    ) -> Result<(), Denial> {
        let held = capability.rights;
        if self.object(capability.object).acl.is_none() {
            return if held.contains(needed) {
                Ok(())
            } else {
                Err(Denial::MissingRights { handle, needed, held })
            };
        }
        let Judgement { allowed, denied } = self.judge(process, capability.object);
        if !(held | allowed).contains(needed) {
            return Err(Denial::MissingRights { handle, needed, held: held | allowed });
        }
        if denied.intersects(needed) {
            return Err(Denial::DeniedByList { handle, denied: denied & needed });
        }
        Ok(())
    }

    fn judge(&self, process: ProcessNumber, object: ObjectId) -> Judgement {
        let Some(acl) = &self.object(object).acl else { return Judgement::default() };
        let asker = self.process(process);
        let holds = |subject: ObjectId| match self.objects.get(&subject).map(|object| &object.body) {
            Some(Body::Process(subject)) => subject.process == process,
            Some(_) => {
                let filled = asker.table.filled(0);
                let all = || filled.map(|(handle, id)| (self.tree.get(id).object, handle.slot()));
                let mut slots = asker.held.slots(subject, all);
                slots.any(|slot| asker.table.content(slot).is_some_and(|id| self.is_usable(id)))
            }
            None => false,
        };
        acl.judge(asker.identity.as_ref(), holds)
    }

    fn check_control(&self, caller: Caller, handle: Handle) -> Result<ObjectId, Denial> {
        let (_, capability) = self.held_any(caller.process, handle)?;
        let held = capability.rights;
        // The list itself gives nobody the right to change it, and takes it from nobody.
        if !held.contains(Rights::CONTROL) {
            return Err(Denial::MissingRights { handle, needed: Rights::CONTROL, held });
        }
        Ok(capability.object)
    }

    fn check_entry(&self, caller: Caller, object: ObjectId, entry: &AclEntry) -> Result<Entry, Denial> {
        let possible = match &self.object(object).body {
            Body::Queue(_) => Queue::RIGHTS - Rights::RECEIVE,
            Body::Region(_) => Region::RIGHTS,
            Body::Device(_) => Device::RIGHTS,
            Body::Process(_) | Body::Directory | Body::ServiceName(_) => Rights::empty(),
        } - Rights::CONTROL;
        let permissions = entry.permissions;
        if permissions.is_empty() || !possible.contains(permissions) {
            return Err(Denial::InvalidPermissions { asked: permissions, possible });
        }
        let subject = match &entry.subject {
            keyway_abi::Subject::Holder(handle) => {
                Subject::Holder(self.held_any(caller.process, *handle)?.1.object)
            }
            keyway_abi::Subject::User(uid) => Subject::User(*uid),
            keyway_abi::Subject::Group(gid) => Subject::Group(*gid),
            keyway_abi::Subject::Executable(path) => {
                if !path.starts_with('/') || path.len() > EXECUTABLE_BYTES_MAX {
                    let (bytes, bytes_max) = (path.len() as u64, EXECUTABLE_BYTES_MAX as u64);
                    return Err(Denial::InvalidExecutable { bytes, bytes_max });
                }
                Subject::Executable(path.clone())
            }
        };
        Ok(Entry { subject, permissions, kind: entry.kind })
    }
}

fn shown(number: u64, entry: &Entry) -> AclItem {
    let subject = match &entry.subject {
        Subject::Holder(object) => ShownSubject::Holder { object: object.0 },
        Subject::User(uid) => ShownSubject::User(*uid),
        Subject::Group(gid) => ShownSubject::Group(*gid),
        Subject::Executable(path) => ShownSubject::Executable(path.clone()),
    };
    AclItem { number, subject, permissions: entry.permissions, kind: entry.kind }
}
