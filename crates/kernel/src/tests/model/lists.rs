//! Steps with access lists: adding, removing, listing, checking.

use alloc::{string::String, vec::Vec};

use keyway_abi::{
    AclEntry, AclItem, AclKind, Denial, Handle, Kind, Listing, Payer, Quota, Reply, Rights, ShownSubject,
    Subject,
    limits::{ACL_ENTRIES_MAX, LISTING_ENTRIES_MAX},
    request,
};

use super::{
    charges::HANDLE,
    oracle::{About, Body},
    steps::{Duel, GROUPS, PROGRAMS, UIDS},
};

impl Duel {
    /// Mostly one entry, sometimes so many that the list becomes full.
    pub(super) fn acl_add(&mut self, process: usize, first: u8, second: u8, bits: u32) -> bool {
        let object = self.listable(process, first);
        let times = if bits.is_multiple_of(61) { 40 } else { 1 };
        let mut added = false;
        for nth in 0..times {
            added |= self.add_entry(process, object, second.wrapping_add(nth), bits);
        }
        added
    }

    /// A handle of something that has a list, mostly.
    fn listable(&self, process: usize, choice: u8) -> Handle {
        let controlled = self
            .oracle
            .table(process)
            .into_iter()
            .filter(|(_, id)| self.oracle.capabilities[*id].rights.contains(Rights::CONTROL));
        let controlled: Vec<Handle> = controlled.map(|(handle, _)| handle).collect();
        match controlled.len() {
            count @ 1.. if choice % 8 < 6 => controlled[count - 1 - usize::from(choice / 8) % count.min(3)],
            _ => self.pick(process, choice, None),
        }
    }

    fn add_entry(&mut self, process: usize, object: Handle, second: u8, bits: u32) -> bool {
        let named = self.oracle.held_any(process, object).map(|id| self.oracle.capabilities[id].object);
        let possible = named.map_or(Rights::empty(), |named| self.permissible(named));
        let asked = Rights::from_bits_truncate(bits >> 12);
        let permissions = if bits.is_multiple_of(8) { asked } else { asked & possible };
        let kind = if (bits >> 9).is_multiple_of(4) { AclKind::Deny } else { AclKind::Allow };
        let subject = self.subject(process, second, bits);
        let plan = self.oracle.controls(process, object).and_then(|id| {
            if permissions.is_empty() || !possible.contains(permissions) {
                return Err(Denial::InvalidPermissions { asked: permissions, possible });
            }
            let about = self.about(process, &subject)?;
            let (used, max) = (self.oracle.lists[id].entries.len() as u64, ACL_ENTRIES_MAX as u64);
            if used >= max {
                let (quota, of) = (Quota::AclEntries, Payer::Process);
                return Err(Denial::QuotaExceeded { quota, of, asked: 1, used, max });
            }
            let owner = self.oracle.owners[id].expect("whoever made it pays for it");
            self.oracle.affords(owner, &[&HANDLE])?;
            Ok((id, about))
        });
        let entry = AclEntry { subject, permissions, kind };
        let Some(((id, about), reply)) = self.ask(process, request::AclAdd { object, entry }, plan) else {
            return false;
        };
        let list = &mut self.oracle.lists[id];
        list.last += 1;
        assert_eq!(reply, Reply::AclAdded { number: list.last }, "a number is given once");
        list.entries.push((list.last, about, permissions, kind));
        true
    }

    /// What a list can say of an object.
    fn permissible(&self, object: usize) -> Rights {
        let pass_on = Rights::DERIVE | Rights::GRANT;
        match self.oracle.objects[object] {
            Body::Queue { .. } => pass_on | Rights::SEND,
            Body::Region(..) => pass_on | Rights::MAP | Rights::WRITE,
            _ => Rights::empty(),
        }
    }

    fn subject(&self, process: usize, second: u8, bits: u32) -> Subject {
        let nth = usize::from(second / 8);
        match second % 8 {
            0 | 1 => Subject::Holder(self.pick(process, second, Some(Kind::Process))),
            2 | 3 => Subject::Holder(self.pick(process, second, None)),
            4 => Subject::User(UIDS[nth % UIDS.len()]),
            5 | 6 => Subject::Group(GROUPS[nth % GROUPS.len()]),
            _ if bits >> 29 == 0 => Subject::Executable(String::from("probe")),
            _ => Subject::Executable(String::from(PROGRAMS[nth % PROGRAMS.len()])),
        }
    }

    fn about(&self, process: usize, subject: &Subject) -> Result<About, Denial> {
        Ok(match subject {
            Subject::Holder(handle) => {
                let id = self.oracle.held_any(process, *handle)?;
                About::Object(self.oracle.capabilities[id].object)
            }
            Subject::User(uid) => About::User(*uid),
            Subject::Group(gid) => About::Group(*gid),
            Subject::Executable(path) if path.starts_with('/') => About::Program(path.clone()),
            Subject::Executable(path) => {
                let bytes = path.len() as u64;
                return Err(Denial::InvalidExecutable { bytes, bytes_max: 128 });
            }
        })
    }

    pub(super) fn acl_remove(&mut self, process: usize, first: u8, second: u8) -> bool {
        let object = self.listable(process, first);
        let controlled = self.oracle.controls(process, object);
        let entries = controlled.clone().map_or(&[][..], |id| &self.oracle.lists[id].entries);
        let number = match entries.len() {
            count @ 1.. if second < 224 => entries[usize::from(second) % count].0,
            _ => u64::from(second % 4),
        };
        let plan = controlled.and_then(|id| {
            let entries = &self.oracle.lists[id].entries;
            let place = entries.iter().position(|(found, ..)| *found == number);
            Ok((id, place.ok_or(Denial::UnknownAclEntry { number })?))
        });
        let request = request::AclRemove { object, number };
        let Some(((id, place), reply)) = self.ask(process, request, plan) else { return false };
        assert_eq!(reply, Reply::Done);
        self.oracle.lists[id].entries.remove(place);
        true
    }

    pub(super) fn acl_list(&mut self, process: usize, first: u8, second: u8) -> bool {
        let object = self.listable(process, first);
        let after = (second >= 128).then(|| u64::from(second % 32));
        let plan = self.oracle.controls(process, object);
        let request = request::AclList { object, after };
        let Some((id, reply)) = self.ask(process, request, plan) else { return false };
        let shown = self.oracle.lists[id].entries.iter().filter(|(number, ..)| Some(*number) > after);
        let expected: Vec<AclItem> = shown
            .take(LISTING_ENTRIES_MAX)
            .map(|(number, about, permissions, kind)| {
                let subject = match about {
                    About::Object(object) => ShownSubject::Holder { object: self.numbers[object] },
                    About::User(uid) => ShownSubject::User(*uid),
                    About::Group(gid) => ShownSubject::Group(*gid),
                    About::Program(path) => ShownSubject::Executable(path.clone()),
                };
                AclItem { number: *number, subject, permissions: *permissions, kind: *kind }
            })
            .collect();
        assert_eq!(reply, Reply::Listing(Listing::Acl(expected)));
        true
    }

    pub(super) fn acl_check(&mut self, process: usize, first: u8) -> bool {
        let object = self.pick_listed(process, first);
        let plan = self.oracle.held_any(process, object);
        let Some((id, reply)) = self.ask(process, request::AclCheck { object }, plan) else { return false };
        let (of, held) = (self.oracle.capabilities[id].object, self.oracle.capabilities[id].rights);
        let allowed = self.oracle.listed(process, of, AclKind::Allow);
        let rights = (held | allowed) - self.oracle.listed(process, of, AclKind::Deny);
        assert_eq!(reply, Reply::Permitted { rights });
        true
    }
}
