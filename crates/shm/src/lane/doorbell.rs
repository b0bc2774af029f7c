//! Who sleeps on what, and who must wake whom.
//!
//! Each side announces in its own memory that it is about to sleep. It then looks once more at what the peer publishes;
//! the peer, after each publication, looks whether anyone announced. A full fence on both sides makes it impossible
//! that both look too early:
//!
//! ```text
//!   sleeper                          publisher
//!   waiting = 1                      position = new
//!   ─── full fence ───               ─── full fence ───
//!   position still old? sleep        waiting == 1? wake
//! ```
//!
//! The sleep itself compares the position with the value last seen, in the kernel and under its lock, so a wake between
//! the look and the sleep is not lost either. The sleeper sleeps on the broker's word at the same time; the broker
//! wakes it without being asked.
//!
//! A hostile peer can withhold a wake or ask for needless ones. The first costs its own messages; the second one
//! system call for each message of its own.

use core::sync::atomic::Ordering;

use keyway_abi::layout;

use crate::{
    lane::LaneShapeError,
    view::{self, View, Word},
};

/// What to do about a lane that could not go on.
#[derive(Clone, Debug)]
pub enum Wait {
    /// Try again now: there may be something to take, space to fill, or an end to learn of. Nothing is announced.
    Ready,
    /// Sleep on both words, until either differs from what is expected, is woken, or the caller's time is up. Then call
    /// `finish_wait` and try again.
    Sleep(SleepOn),
}

/// The two words to sleep on, each with the value that means that nothing has changed.
#[derive(Clone, Debug)]
pub struct SleepOn {
    /// The peer's position.
    pub peer: (Word, u32),
    /// The broker's word for this lane.
    pub broker: (Word, u32),
}

/// The three words of one side's memory, seen by that side or by the other.
#[derive(Debug)]
pub(super) struct Desk {
    /// How far the side has come.
    pub(super) position: Word,
    /// Whether the side sleeps: 0 or 1, and from a hostile peer anything.
    pub(super) waiting: Word,
}

impl Desk {
    /// The words of ring or acknowledgement memory.
    pub(super) fn new(view: &View) -> Result<Self, LaneShapeError> {
        let len_bytes = view.len_bytes();
        let needed_bytes = layout::PAGE_BYTES;
        let missing = LaneShapeError::AcknowledgementMemory { len_bytes, needed_bytes };
        let position = view.word(layout::POSITION_OFFSET).ok_or(missing)?;
        let waiting = view.word(layout::WAITING_OFFSET).ok_or(missing)?;
        Ok(Self { position, waiting })
    }

    /// Says that this side is about to sleep. What the peer publishes must be looked at again afterwards.
    pub(super) fn announce(&self) {
        self.waiting.store(1, Ordering::Relaxed);
        // SYNC lane-doorbell: waiting before the look at the peer's position; pairs with `awaits`.
        view::full_fence();
    }

    /// Says that this side does not sleep.
    pub(super) fn retract(&self) {
        self.waiting.store(0, Ordering::Relaxed);
    }

    /// Whether the side of this desk may be asleep, asked by its peer after a publication.
    pub(super) fn awaits(&self) -> bool {
        // SYNC lane-doorbell: position before the look at the peer's waiting; pairs with `announce`.
        view::full_fence();
        self.waiting.load(Ordering::Relaxed) != 0
    }
}
