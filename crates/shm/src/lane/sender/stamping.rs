//! The sender's side of a lane whose messages say when they were sent.
//!
//! A stamp is read after the payload is in place and before the commit. So it lies between the call and the moment at which
//! the message can be seen: where one message was committed before another was sent, its stamp is not the later one. Messages
//! that are committed together were sent together: the first is stamped, and the others say "as the one before".
//!
//! What this thread has committed before, on whatever lane, can be seen by all when the clock is read: else a receiver could read
//! its clock later than that, find the lane of that message empty, and then find this one.

use core::sync::atomic::Ordering;

use keyway_abi::layout::{self, CLOCK_OFFSET, COMMIT_BYTES, RING_RESERVED_BYTES, STAMP_BYTES};

use super::{LaneSender, State};
use crate::{
    lane::{RecordHeader, SendError, record::record_bytes},
    view::{self, View},
};

/// A stamp that says no more than the one before it.
const AS_BEFORE: u64 = 0;

/// Says in a ring's memory, before anyone else maps it, which time namespace the clock is of that stamps its messages.
///
/// # Panics
///
/// When the view is not [`Access::Write`](crate::Access::Write) or shorter than a page.
pub fn declare_clock(ring: &View, namespace: u32) {
    ring.store_u32(CLOCK_OFFSET, namespace, Ordering::Relaxed);
}

impl LaneSender {
    /// A sender that stamps each message with what `clock` says, in nanoseconds that never go back. For lanes whose receiver
    /// expects it, before the first message.
    #[must_use]
    pub fn stamping(mut self, clock: fn() -> u64) -> Self {
        self.clock = Some(clock);
        if matches!(self.state, State::Open) {
            self.state = State::Stamping;
        }
        self
    }

    /// What comes in front of each payload.
    #[inline]
    pub(super) fn stamp_bytes(&self) -> usize {
        if self.clock.is_some() { STAMP_BYTES } else { 0 }
    }

    /// What a record carries that has so many bytes for the user.
    #[inline]
    pub(super) fn carried_bytes(&self, payload_bytes: usize) -> u32 {
        (payload_bytes + self.stamp_bytes()) as u32
    }

    /// Where the payload begins of the record at `at`.
    #[inline]
    pub(super) fn payload_at(&self, at: u32, header: RecordHeader) -> u32 {
        at.wrapping_add(header.bytes()).wrapping_add(self.stamp_bytes() as u32)
    }

    /// Stamps the record at `at`, which is otherwise ready to be committed.
    #[inline]
    pub(super) fn stamp(&mut self, at: u32, header: RecordHeader) {
        if let Some(clock) = self.clock {
            // SYNC arrival-stamp: what was committed before, on any lane, before the clock; pairs with `ByArrival::renew`.
            view::full_fence();
            self.records.store(at.wrapping_add(header.bytes()), clock());
        }
    }

    /// The record at `at` was sent with the one before it.
    #[inline]
    pub(super) fn stamp_as_before(&mut self, at: u32, header: RecordHeader) {
        if self.clock.is_some() {
            self.records.store(at.wrapping_add(header.bytes()), AS_BEFORE);
        }
    }

    /// As [`LaneSender::try_send_all`], which has asked.
    #[cold]
    pub(super) fn try_send_all_stamped(&mut self, payloads: &[&[u8]]) -> Result<(), SendError> {
        self.check_open()?;
        let ring_bytes = self.records.bytes() as usize;
        // LIMIT: what is counted stops above a ring, so that it cannot overflow.
        let all_bytes = payloads.iter().fold(0, |all_bytes: usize, payload| {
            let carried_bytes = self.carried_bytes(payload.len().min(ring_bytes));
            let whole_bytes = record_bytes(COMMIT_BYTES as u32, carried_bytes) as usize;
            (all_bytes + whole_bytes).min(2 * ring_bytes)
        });
        if all_bytes > ring_bytes - RING_RESERVED_BYTES {
            let bytes_max = self.payload_bytes_max();
            return Err(SendError::TooLarge { asked_bytes: all_bytes, bytes_max });
        }
        // For all at once: whoever waits for room waits for as much as is needed.
        self.make_room(all_bytes as u32)?;
        let mut batch = self.batch()?;
        for payload in payloads {
            batch.push(RecordHeader::default(), payload)?;
        }
        batch.commit().1
    }
}

const _: () = assert!(STAMP_BYTES == layout::RECORD_ALIGN_BYTES, "a stamp is a word");
