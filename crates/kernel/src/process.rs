//! One process: its table and what it takes part in.
//!
//! # Invariants
//! 1. Each number here is answered by the thing of that number: a lane's sender, a mapping's process, an object's owner.

use alloc::collections::BTreeSet;

use keyway_abi::{Handle, LaneId, MappingId, Name};

use crate::{
    account::AccountId,
    effect::Identity,
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

/// See the module.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) identity: Option<Identity>,
    pub(crate) phase: Phase,
    pub(crate) confined: bool,
    pub(crate) account: AccountId,
    pub(crate) table: Table,
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

    pub(crate) fn uid(&self) -> u32 {
        self.identity.as_ref().map_or(u32::MAX, |identity| identity.uid)
    }
}
