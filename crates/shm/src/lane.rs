//! One sender's ring of records into one queue: the sender's side, the receiver's side, and what each judges.
//!
//! ```text
//!            tail (receiver)          head (sender)
//!              │                        │
//!   ┌──────────▼────────────────────────▼──────────┐
//!   │   free   │ header payload │ header │  free   │   a record that meets the end goes on at the beginning
//!   └──────────────────────────────────────────────┘
//! ```
//!
//! Positions count bytes, wrap at 2^32 and are multiples of [`RECORD_ALIGN_BYTES`](layout::RECORD_ALIGN_BYTES). A ring
//! is at most 2^30 bytes long, so the difference of two of them is never ambiguous, and a position that moved
//! backwards is one that advanced too far.
//!
//! # Invariants
//! 1. Capacity, own position and count live in private memory; the shared ones are written, never read back.
//! 2. The peer's position is accepted only if it is aligned and advances no further than its writer could have gone.
//! 3. A record is delivered only if the position that commits it was loaded *before* the broker's word was seen to
//!    allow it.
//! 4. A lane that has faulted returns that fault for ever. A lane that has ended returns that ending for ever.
//!
//! Neighbours: `ring` (where bytes of a position lie), `record` (a header's bytes), `doorbell` (who sleeps and who
//! wakes), `fault` (every way to misbehave, and every refusal).

mod doorbell;
mod fault;
mod receiver;
mod record;
mod ring;
mod sender;

pub use self::{
    doorbell::{SleepOn, Wait},
    fault::{Ending, LaneFault, LaneShapeError, ReceiveError, SendError},
    receiver::LaneReceiver,
    record::RecordHeader,
    sender::{Acknowledged, LaneSender},
};

#[cfg(all(test, not(loom)))]
mod tests;
