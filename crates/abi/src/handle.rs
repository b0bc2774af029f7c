//! The numbers by which things are named, each of a type of its own.

use core::fmt;

use serde::{Deserialize, Serialize};

/// The number by which a process names a capability of its own: slot and generation.
///
/// An allegation until the kernel has looked it up in the asker's own table. In another process it is worthless; once
/// the slot has been emptied it is stale for ever, because a slot's generation grows each time and is never repeated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Handle(u64);

impl Handle {
    /// The handle that names nothing. No table ever hands it out, because generations begin at 1.
    pub const NONE: Handle = Handle(0);

    /// The handle of `slot` in its `generation`.
    pub const fn new(slot: u32, generation: u32) -> Self {
        Handle((generation as u64) << 32 | slot as u64)
    }

    /// A handle from the number that a person typed or an environment variable carried.
    pub const fn from_raw(raw: u64) -> Self {
        Handle(raw)
    }

    /// The number, for printing and for handing to a child.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The index in the table.
    pub const fn slot(self) -> u32 {
        self.0 as u32
    }

    /// How often the slot had been filled when this handle was made.
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({self})")
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot(), self.generation())
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(
            /// The bare number.
            pub $inner,
        );

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// The kernel's number for a process: given once, never given again, whatever becomes of pids.
    ProcessNumber(u64)
}
number! {
    /// A number that a deriver fixes on a capability and a receiver reads with each message: who is speaking.
    Badge(u64)
}
number! {
    /// One lane. Given once, never given again; only the lane's two ends may use it.
    LaneId(u64)
}
number! {
    /// One mapping of a region by one process. Given once, never given again.
    MappingId(u64)
}
number! {
    /// A capability in escrow on one lane. Tickets of a lane grow from 1.
    Ticket(u32)
}

/// Where the broker's word for a lane or mapping lies in the pages that a process was given, and what it says while
/// the lane or mapping lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WordPlace {
    /// The page's number, counted from 0 in the order in which the process received its pages.
    pub page: u32,
    /// The index of the word in the page.
    pub index: u16,
    /// What the word says while the lane or mapping lives. At least [`GENERATION_FIRST`](crate::layout::GENERATION_FIRST).
    pub generation: u32,
}
