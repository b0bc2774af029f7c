//! Memory that a peer writes: views, lanes, the broker's words and the doorbell protocol.
//!
//! Every memory here has one writer, or several where it was made so, which may be hostile to us. What it says is copied out once, judged, and never
//! fetched again; where it lies about what it may lie about, only it is hurt.
//!
//! ```text
//!        LaneSender                                   LaneReceiver
//!   private: head, tail seen                     private: tail
//!        │ writes            ring memory               │ reads
//!        ├──────────▶ records, position, waiting ──────┤
//!        │ reads       acknowledgement memory          │ writes
//!        ├─────────── position, messages, waiting ◀────┤
//!        │ reads             broker page               │ reads
//!        └─────────── generation, dead or revoked ─────┘
//! ```
//!
//! Deliberately absent: system calls. A side that must sleep is told on which two words; a side that must wake its
//! peer is told at which word; callers make the futex calls. Nothing here maps, seals or measures memory either:
//! whoever makes a [`View`] has done that.
//!
//! Floors, lowest first: `view`, `status` and `broker_page`, `lane`, `releases` and `arrival`. Unsafe code exists in `view::mapped`, `view::records` (with `view::bytes`) and `view::piece` alone (and in
//! the stand-in that replaces them under `--cfg loom`). The argument for the whole is `docs/threat-model.md`.

#![no_std]
#![deny(unsafe_code)]
// The hot path is one loop; what the compiler leaves out of it goes through memory and is measured at once.
#![allow(clippy::inline_always)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod arrival;
pub mod broker_page;
mod lane;
pub mod releases;
mod status;
mod view;

#[cfg(not(loom))]
pub use crate::view::{LINE_BYTES, Piece};
pub use crate::{
    lane::{
        Acknowledged, Barrier, Batch, Ending, LaneFault, LaneReceiver, LaneSender, LaneShapeError, Loan,
        ReceiveError, RecordHeader, SendError, SleepOn, Stamp, Wait, WakeBy, declare_clock, declared_clock,
        own_barrier,
    },
    status::{Status, Verdict},
    view::{Access, OutOfView, Own, View, Word},
};
