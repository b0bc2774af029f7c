//! The kernel's side of a lane and of a mapping: who takes part, and what it costs them.
//!
//! ```text
//!  Creating ──▶ Mapping ──▶ Sealing ──▶ Open
//!     the ring is   its sender   Linux     both ends
//!     being made    maps it      seals it  use it
//! ```
//! From any of them a lane ends, for a [`LaneEnd`]; its record goes when neither end has it any more.

use alloc::collections::BTreeMap;

use keyway_abi::{
    LaneEnd, MappingId, ProcessNumber, Ticket, WordPlace,
    layout::{PAGE_BYTES, lane_bytes},
};

use crate::{
    account::AccountId,
    effect::Token,
    limits::Charge,
    neighbours::Pair,
    tree::{CapabilityId, ObjectId},
};

/// How far its opening is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    Creating,
    Mapping,
    Sealing,
    Open,
}

/// Of which pages a lane's memory is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pages {
    Ordinary,
    /// If there are any; it is at least as large as if it were.
    Huge,
}

/// A capability in a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EscrowItem {
    pub(crate) capability: CapabilityId,
    /// The sender's slot that is kept for it, if it moves.
    pub(crate) reserved_slot: Option<u32>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) queue: ObjectId,
    pub(crate) sender: ProcessNumber,
    pub(crate) receiver: ProcessNumber,
    pub(crate) sender_account: AccountId,
    pub(crate) receiver_account: AccountId,
    /// The lane's own capability, so that a revocation finds it. `None` once revoked.
    pub(crate) capability: Option<CapabilityId>,
    pub(crate) ring: Token,
    pub(crate) ring_bytes: u32,
    pub(crate) pages: Pages,
    pub(crate) priority: u8,
    pub(crate) ack: u32,
    pub(crate) ack_token: Token,
    pub(crate) sender_word: WordPlace,
    pub(crate) receiver_word: WordPlace,
    pub(crate) opening: Opening,
    pub(crate) ended: Option<LaneEnd>,
    /// Whether the sender still has its end.
    pub(crate) sender_here: bool,
    /// Whether the receiver has been told of the lane and still has its end.
    pub(crate) receiver_here: bool,
    /// Whether its memory and the receiver's place are still charged.
    pub(crate) charged: bool,
    pub(crate) escrow: BTreeMap<Ticket, EscrowItem>,
    pub(crate) last_ticket: u32,
}

impl Lane {
    /// What a lane's place costs its sender, until neither end has it any more.
    pub(crate) const SENDER_CHARGE: Charge = Charge { lanes: 1, ..Charge::NOTHING };

    /// What a lane's memory of so many bytes costs its sender, until the receiver has left.
    pub(crate) fn memory_charge(bytes: u64) -> Charge {
        Charge { descriptors: 1, bytes, ..Charge::NOTHING }
    }

    /// Bytes of its memory.
    pub(crate) fn memory_bytes(&self) -> u64 {
        lane_bytes(self.ring_bytes, self.pages == Pages::Huge)
    }

    /// What a lane costs its receiver until it has left, besides the acknowledgement memory that was paid for when it
    /// was laid in.
    pub(crate) const RECEIVER_CHARGE: Charge = Charge { lanes: 1, ..Charge::NOTHING };

    /// What an acknowledgement memory costs its receiver.
    pub(crate) fn ack_charge(count: u32) -> Charge {
        Charge { descriptors: count, bytes: u64::from(count) * PAGE_BYTES as u64, ..Charge::NOTHING }
    }
}

/// One process's mapping of a region.
#[derive(Debug)]
pub(crate) struct Mapping {
    pub(crate) process: ProcessNumber,
    pub(crate) region: ObjectId,
    /// The mapping's own capability, so that a revocation finds it. `None` once revoked.
    pub(crate) capability: Option<CapabilityId>,
    pub(crate) word: WordPlace,
}

impl Mapping {
    /// What a mapping costs.
    pub(crate) const CHARGE: Charge = Charge { mappings: 1, ..Charge::NOTHING };
}

/// What is waiting for an answer from Linux.
#[derive(Clone, Debug)]
pub(crate) enum Waiting {
    Page(ProcessNumber),
    /// A descriptor that came from a process is being closed; until then it is charged.
    Closing(AccountId),
    Acks {
        queue: ObjectId,
        first: u32,
        count: u32,
        made_queue: bool,
    },
    AcksSeal {
        queue: ObjectId,
        first: u32,
        count: u32,
    },
    Ring(keyway_abi::LaneId),
    RingSeal(keyway_abi::LaneId),
    Region(ObjectId, keyway_abi::Handle),
    RegionSeal(MappingId),
    Freeze(ObjectId),
    Child(ProcessNumber),
    DepositPair,
    /// A doorbell is being made, which was asked for on this lane.
    Doorbell {
        pair: Pair,
        token: Token,
        lane: keyway_abi::LaneId,
    },
    /// Linux carries out the default action of a signal that was raised.
    Signal(ProcessNumber, keyway_abi::Signal),
}
