//! One sender's ring of records into one queue: the sender's side, the receiver's side, and what each judges.
//!
//! ```text
//!            tail (receiver)               head (sender)
//!              │                             │
//!   ┌──────────▼─────────────────────────────▼───────────┐
//!   │   free   │ commit payload │ commit ... │ 0 │  free │   a record that meets the end goes on at the beginning
//!   └────────────────────────────────────────────────────┘
//! ```
//!
//! A record is committed by its own first word; a reader looks there and nowhere else, so that a small message is one
//! cache line. Positions count bytes, wrap at 2^32 and are multiples of
//! [`RECORD_ALIGN_BYTES`](layout::RECORD_ALIGN_BYTES). A ring is at most 2^30 bytes long, so the difference of two of
//! them is never ambiguous, and a position that moved backwards is one that advanced too far.
//!
//! # Invariants
//! 1. Capacity, own position and count live in private memory; the shared ones are written, never read back.
//! 2. The peer's position is accepted only if it is aligned and advances no further than its writer could have gone.
//! 3. A record is delivered only if the word that commits it was loaded *before* the broker's word was seen to allow it.
//! 4. A lane that has faulted returns that fault for ever. A lane that has ended returns that ending for ever.
//!
//! Neighbours: `record` (what its first words say), `doorbell` (who sleeps and who wakes), `fault` (every way to
//! misbehave, and every refusal); [`Records`], where the bytes of a position lie.

mod doorbell;
mod fault;
mod receiver;
mod record;
mod sender;

use keyway_abi::layout;

pub use self::{
    doorbell::{Barrier, SleepOn, Wait, WakeBy, own_barrier},
    fault::{Ending, LaneFault, LaneShapeError, ReceiveError, SendError},
    receiver::{LaneReceiver, Stamp, declared_clock},
    record::RecordHeader,
    sender::{Acknowledged, Batch, LaneSender, Loan, declare_clock},
};
use crate::view::{Records, View};

/// Loom pays for each word, so its rings are as small as two records.
const RING_BYTES_MIN: u32 = if cfg!(loom) { 32 } else { layout::RING_BYTES_MIN };

/// Judges the two memories of a lane against the size that the caller was told by the broker.
fn check_shape(ring: &View, ack: &View, ring_bytes: u32) -> Result<Records, LaneShapeError> {
    let bounds = RING_BYTES_MIN..=layout::RING_BYTES_MAX;
    if !bounds.contains(&ring_bytes) || !ring_bytes.is_power_of_two() {
        return Err(LaneShapeError::RingBytes {
            asked_bytes: ring_bytes,
            bytes_min: RING_BYTES_MIN,
            bytes_max: layout::RING_BYTES_MAX,
        });
    }
    if ack.len_bytes() < layout::PAGE_BYTES {
        let needed_bytes = layout::PAGE_BYTES;
        return Err(LaneShapeError::AcknowledgementMemory { len_bytes: ack.len_bytes(), needed_bytes });
    }
    let needed_bytes = layout::RECORDS_OFFSET + ring_bytes as usize;
    Records::new(ring, ring_bytes)
        .ok_or(LaneShapeError::RingMemory { len_bytes: ring.len_bytes(), needed_bytes })
}

#[cfg(all(test, not(loom)))]
mod tests;
