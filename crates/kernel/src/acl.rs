//! Access lists: what an object permits to whom, besides what capabilities say.
//!
//! # Invariants
//! 1. An entry's number is given once in a list.

use alloc::{collections::BTreeMap, string::String};

use keyway_abi::{AclKind, Rights};

use crate::{effect::Identity, limits::Charge, tree::ObjectId};

/// Whom an entry is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Of a process: that process. Of anything else: whoever holds a capability to it.
    Holder(ObjectId),
    User(u32),
    Group(u32),
    Executable(String),
}

/// One line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) subject: Subject,
    pub(crate) permissions: Rights,
    pub(crate) kind: AclKind,
}

/// See the module. An empty list permits nothing and denies nothing.
#[derive(Debug, Default)]
pub(crate) struct Acl {
    entries: BTreeMap<u64, Entry>,
    last: u64,
}

/// What a list says of one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub(crate) allowed: Rights,
    pub(crate) denied: Rights,
}

impl Acl {
    pub(crate) fn add(&mut self, entry: Entry) -> u64 {
        self.last += 1;
        self.entries.insert(self.last, entry);
        self.last
    }

    pub(crate) fn remove(&mut self, number: u64) -> bool {
        self.entries.remove(&number).is_some()
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        self.entries.contains_key(&number)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What it costs the account of its object.
    pub(crate) fn charge(&self) -> Charge {
        Charge { handles: self.entries.len() as u32, ..Charge::NOTHING }
    }

    pub(crate) fn entries_from(&self, first: u64) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries.range(first..).map(|(number, entry)| (*number, entry))
    }

    /// All that matches adds up. `holds` says whether the process is, or holds a capability to, an object.
    pub(crate) fn judge(
        &self,
        identity: Option<&Identity>,
        mut holds: impl FnMut(ObjectId) -> bool,
    ) -> Judgement {
        let mut judgement = Judgement::default();
        // LIMIT: ACL_ENTRIES_MAX.
        for entry in self.entries.values() {
            let is_of = |matches: &dyn Fn(&Identity) -> bool| identity.is_some_and(matches);
            let matches = match &entry.subject {
                Subject::Holder(object) => holds(*object),
                Subject::User(uid) => is_of(&|identity| identity.uid == *uid),
                Subject::Group(gid) => is_of(&|identity| identity.is_in_group(*gid)),
                Subject::Executable(path) => is_of(&|identity| identity.executable == *path),
            };
            match (matches, entry.kind) {
                (false, _) => {}
                (true, AclKind::Allow) => judgement.allowed |= entry.permissions,
                (true, AclKind::Deny) => judgement.denied |= entry.permissions,
            }
        }
        judgement
    }
}
