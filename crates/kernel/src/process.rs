//! One process: its table and what it takes part in.
//!
//! # Invariants
//! 1. Each number here is answered by the thing of that number: a lane's sender, a mapping's process, an object's owner.

use alloc::collections::BTreeSet;
use core::{cell::OnceCell, fmt};

use keyway_abi::{Handle, LaneId, MappingId, Name, ProcessNumber};

use crate::{
    account::AccountId,
    effect::Identity,
    limits::Charge,
    page::Pages,
    signals::Signals,
    table::Table,
    tree::{CapabilityId, ObjectId},
};

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A confined child that has not spoken.
    Unbound,
    /// It has not said hello.
    Silent,
    /// It has.
    Ready,
    /// It is being forgotten; nothing is sent to it any more.
    Ending,
}

/// Which objects a table's capabilities name, by slot. Made when it is first asked for, because few processes are asked.
#[derive(Default)]
pub(crate) struct HeldObjects(OnceCell<BTreeSet<(ObjectId, u32)>>);

impl HeldObjects {
    pub(crate) fn insert(&mut self, object: ObjectId, slot: u32) {
        if let Some(held) = self.0.get_mut() {
            held.insert((object, slot));
        }
    }

    pub(crate) fn remove(&mut self, object: ObjectId, slot: u32) {
        if let Some(held) = self.0.get_mut() {
            held.remove(&(object, slot));
        }
    }

    /// The slots whose capabilities name an object. `all` is all that is held.
    pub(crate) fn slots<I: Iterator<Item = (ObjectId, u32)>>(
        &self,
        object: ObjectId,
        all: impl FnOnce() -> I,
    ) -> impl Iterator<Item = u32> + '_ {
        let held = self.0.get_or_init(|| all().collect());
        held.range((object, 0)..=(object, u32::MAX)).map(|(_, slot)| *slot)
    }

    /// All of it, if it was ever asked for.
    pub(crate) fn known(&self) -> Option<&BTreeSet<(ObjectId, u32)>> {
        self.0.get()
    }
}

impl fmt::Debug for HeldObjects {
    /// Nothing: it follows from the table, and whether it was made already is nobody's concern.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeldObjects")
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) identity: Option<Identity>,
    pub(crate) phase: Phase,
    pub(crate) confined: bool,
    pub(crate) account: AccountId,
    pub(crate) table: Table,
    pub(crate) held: HeldObjects,
    /// The object by which others name it.
    pub(crate) object: ObjectId,
    /// The kernel's own capability to that object.
    pub(crate) root: CapabilityId,
    pub(crate) since_ns: u64,
    /// Objects that end with it: queues, devices, names.
    pub(crate) owned: BTreeSet<ObjectId>,
    pub(crate) sending: BTreeSet<LaneId>,
    pub(crate) receiving: BTreeSet<LaneId>,
    pub(crate) mappings: BTreeSet<MappingId>,
    /// The processes that it watches, and through which of its capabilities.
    pub(crate) watching: BTreeSet<(ObjectId, Handle)>,
    /// The sessions with which it has a doorbell, made or being made.
    pub(crate) doorbells: BTreeSet<ProcessNumber>,
    /// Names for which it has a badge.
    pub(crate) badged: BTreeSet<ObjectId>,
    /// Names that it waits for.
    pub(crate) waited_names: BTreeSet<Name>,
    pub(crate) pages: Pages,
    pub(crate) signals: Signals,
}

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.identity.as_ref().map_or(0, |identity| identity.pid)
    }

    /// What its pages cost besides the first, which is charged with the session.
    pub(crate) fn charge_of_pages(&self) -> Charge {
        Charge { pages: self.pages.count().saturating_sub(1), ..Charge::NOTHING }
    }

    pub(crate) fn uid(&self) -> u32 {
        self.identity.as_ref().map_or(u32::MAX, |identity| identity.uid)
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn whether_it_was_asked_for_is_not_told() {
        let held = HeldObjects::default();
        assert_eq!(format!("{held:?}"), "HeldObjects");
        assert_eq!(held.known(), None);
        assert_eq!(
            held.slots(ObjectId(7), || [(ObjectId(7), 3), (ObjectId(8), 4)].into_iter()).next(),
            Some(3)
        );
        assert_eq!(held.known().map(BTreeSet::len), Some(2));
        assert_eq!(format!("{held:?}"), "HeldObjects");
    }
}
