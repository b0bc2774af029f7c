//! Two sessions that share lanes, and whether they have a doorbell.
//!
//! ```text
//!  first lane opens ──▶ None ◀──▶ Making ──▶ There ──▶ gone with the last lane
//!                           asked for, refused
//! ```
//! A lane counts from when it begins to open until neither end has it any more, in whichever direction it goes. So a doorbell
//! is never there without a lane, which is charged.

use keyway_abi::ProcessNumber;

use crate::effect::Token;

/// Two sessions, whichever is named first. Both are one where a process sends to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pair {
    lower: ProcessNumber,
    upper: ProcessNumber,
}

impl Pair {
    pub(crate) fn of(one: ProcessNumber, other: ProcessNumber) -> Self {
        Pair { lower: one.min(other), upper: one.max(other) }
    }

    /// The one that is not `one`; itself where both are one.
    pub(crate) fn other(self, one: ProcessNumber) -> ProcessNumber {
        if one == self.lower { self.upper } else { self.lower }
    }

    /// Each of the two, once.
    pub(crate) fn members(self) -> impl Iterator<Item = ProcessNumber> {
        let upper = (self.upper != self.lower).then_some(self.upper);
        core::iter::once(self.lower).chain(upper)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Neighbours {
    /// Lanes between the two; at 0 this is dropped.
    pub(crate) lanes: u32,
    pub(crate) doorbell: Doorbell,
}

/// How far the making of a doorbell is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doorbell {
    None,
    /// Linux makes it under this name.
    Making(Token),
    /// Both have their ends.
    There,
}
