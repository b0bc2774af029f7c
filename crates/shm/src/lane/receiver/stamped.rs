//! The receiver's side of a lane whose messages say when they were sent.
//!
//! A stamp is an allegation like everything else in the ring: it is loaded once, handed on as it is, and never with the
//! payload. What it is worth is for the queue to say, which knows the other lanes and the time.

use core::sync::atomic::Ordering;

use keyway_abi::layout::{CLOCK_OFFSET, CLOCK_UNKNOWN, STAMP_BYTES};

use super::{LaneReceiver, Record, State};
use crate::{
    lane::{LaneFault, ReceiveError},
    view::View,
};

/// Which time namespace the stamps in a ring are of, as its sender says; `None` when it does not.
pub fn declared_clock(ring: &View) -> Option<u32> {
    let namespace = ring.word(CLOCK_OFFSET)?.load(Ordering::Relaxed);
    (namespace != CLOCK_UNKNOWN).then_some(namespace)
}

/// What the next message of a stamped lane says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// When it was sent, as its sender says.
    pub alleged_ns: u64,
    /// The position at which its record begins; wraps at 2^32. An honest sender writes there once the receiver has gone so far
    /// that the ring has room up to there.
    pub position: u32,
}

impl LaneReceiver {
    /// A receiver of messages that each have a stamp in front, which is not handed out with them. Before the first message.
    #[must_use]
    pub fn stamped(mut self) -> Self {
        self.is_stamped = true;
        if matches!(self.state, State::Open) {
            self.state = State::Stamped;
        }
        self
    }

    /// What the next message says of itself, without taking it; `None` when there is none, or messages are not stamped. What
    /// was peeked is forgotten.
    ///
    /// # Errors
    ///
    /// As [`LaneReceiver::try_receive`].
    pub fn next_stamp(&mut self) -> Result<Option<Stamp>, ReceiveError> {
        self.forget();
        if !self.is_stamped {
            return Ok(None);
        }
        let Some(record) = self.next_record()? else { return Ok(None) };
        let stamp_at = record.payload_at.wrapping_sub(STAMP_BYTES as u32);
        Ok(Some(Stamp { alleged_ns: self.records.peek(stamp_at), position: self.tail }))
    }
}

impl Record {
    /// What is in front of the payload is not part of it.
    #[inline]
    pub(super) fn pass_over_stamp(&mut self) -> Result<(), LaneFault> {
        let (carried_bytes, stamp_bytes) = (self.payload_bytes, STAMP_BYTES);
        self.payload_bytes = carried_bytes
            .checked_sub(stamp_bytes)
            .ok_or(LaneFault::StampMissing { carried_bytes, stamp_bytes })?;
        self.payload_at = self.payload_at.wrapping_add(stamp_bytes as u32);
        Ok(())
    }
}
