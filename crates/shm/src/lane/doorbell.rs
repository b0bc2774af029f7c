//! Who sleeps on what, and who must wake whom.
//!
//! Each side announces in its own memory that it is about to sleep. It then looks once more at what the peer publishes;
//! the peer, after each publication, looks whether anyone announced. A full barrier on both sides makes it impossible
//! that both look too early:
//!
//! ```text
//!   sleeper                          publisher
//!   waiting = 1                      commit = new
//!   ─── full barrier ───             position = new
//!   commit still 0? sleep            ─── full barrier ───
//!                                    waiting != 0? wake
//! ```
//!
//! A fence after every message would cost more than the message. Where Linux lets the sleeper make the barrier on all
//! sides (`membarrier(2)`), the publisher does without: the compiler keeps its order, and the sleeper's barrier falls
//! either before its look at `waiting`, which then sees the announcement, or after its commit, which the sleeper then
//! sees. Each side says in its memory which of the two it makes ([`Barrier`]); who says so and does not, sleeps through
//! its own messages.
//!
//! The sleep itself compares the position with the value last seen, in the kernel and under its lock, so a wake between
//! the look and the sleep is not lost either. The sleeper sleeps on the broker's word at the same time; the broker
//! wakes it without being asked.
//!
//! A hostile peer can withhold a wake or ask for needless ones. The first costs its own messages; the second one
//! system call for each message of its own.

use core::sync::atomic::{Ordering, compiler_fence};

use keyway_abi::layout;

use crate::{
    lane::LaneShapeError,
    view::{self, OwnWord, View, Word},
};

/// What to do about a lane that could not go on.
#[derive(Clone, Debug)]
pub enum Wait {
    /// Try again now: there may be something to take, space to fill, or an end to learn of.
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

/// How a peer that waits is to be woken: what it says in its memory, where 0 is that it does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeBy {
    /// A futex call on the word that [`SleepOn::peer`] names.
    Futex,
    /// The doorbell of the two processes.
    Doorbell,
}

/// Who makes the barrier between an announcement and the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// This process makes one on all sides, by `MEMBARRIER_CMD_GLOBAL_EXPEDITED`, and has registered for those of others.
    All,
    /// This process makes its own: a fence.
    Own,
}

impl Barrier {
    /// Says in a memory that this process writes, before anyone else maps it, which barrier it makes before it sleeps.
    ///
    /// # Panics
    ///
    /// When the view is not [`Access::Write`](crate::Access::Write) or shorter than a page.
    pub fn declare(self, memory: &View) {
        let word = match self {
            Barrier::All => layout::BARRIER_ALL,
            Barrier::Own => layout::BARRIER_OWN,
        };
        memory.store_u32(layout::VERSION_OFFSET, layout::LANE_LAYOUT_VERSION, Ordering::Relaxed);
        memory.store_u32(layout::BARRIER_OFFSET, word, Ordering::Relaxed);
    }

    /// Whether one that publishes, with this barrier of its own, must make a fence for a peer with that memory.
    pub(super) fn needs_fence(self, peer: &View) -> bool {
        let declared = peer
            .word(layout::BARRIER_OFFSET)
            .map_or(layout::BARRIER_OWN, |word| word.load(Ordering::Relaxed));
        self == Barrier::Own || declared != layout::BARRIER_ALL
    }
}

/// The words of the peer's memory.
#[derive(Debug)]
pub(super) struct Desk {
    /// How far the side has come.
    pub(super) position: Word,
    /// How many messages that are.
    pub(super) messages: Word,
    /// How the side wants to be woken: a [`WakeBy`] or 0, and from a hostile peer anything.
    waiting: Word,
    /// Whether the other side makes a fence before it looks at `waiting`.
    needs_fence: bool,
}

/// The words of this side's memory.
#[derive(Debug)]
pub(super) struct OwnDesk {
    /// How far this side has come.
    pub(super) position: OwnWord,
    /// How many messages that are.
    pub(super) messages: OwnWord,
    waiting: OwnWord,
}

impl OwnDesk {
    /// The words of ring or acknowledgement memory.
    pub(super) fn new(view: &View) -> Result<Self, LaneShapeError> {
        let own = |offset| OwnWord::new(word(view, offset)?).ok_or(LaneShapeError::NotWritable);
        Ok(Self {
            position: own(layout::POSITION_OFFSET)?,
            messages: own(layout::MESSAGES_OFFSET)?,
            waiting: own(layout::WAITING_OFFSET)?,
        })
    }

    /// Says that this side is about to sleep. After a barrier, what the peer publishes must be looked at again.
    pub(super) fn announce(&self, by: WakeBy) {
        let word = match by {
            WakeBy::Futex => FUTEX,
            WakeBy::Doorbell => DOORBELL,
        };
        self.waiting.store(word, Ordering::Relaxed);
    }

    /// Says that this side does not sleep.
    pub(super) fn retract(&self) {
        self.waiting.store(0, Ordering::Relaxed);
    }
}

fn word(view: &View, offset: usize) -> Result<Word, LaneShapeError> {
    let (len_bytes, needed_bytes) = (view.len_bytes(), layout::PAGE_BYTES);
    view.word(offset).ok_or(LaneShapeError::AcknowledgementMemory { len_bytes, needed_bytes })
}

const FUTEX: u32 = 1;
const DOORBELL: u32 = 2;

impl Desk {
    /// The words of ring or acknowledgement memory. `barrier` is that of this process.
    pub(super) fn new(view: &View, barrier: Barrier) -> Result<Self, LaneShapeError> {
        Ok(Self {
            position: word(view, layout::POSITION_OFFSET)?,
            messages: word(view, layout::MESSAGES_OFFSET)?,
            waiting: word(view, layout::WAITING_OFFSET)?,
            needs_fence: barrier.needs_fence(view),
        })
    }

    /// How the side of this desk wants to be woken if it may be asleep, asked by its peer after a publication.
    #[inline]
    pub(super) fn awaits(&self) -> Option<WakeBy> {
        if self.needs_fence {
            // SYNC lane-doorbell: position before the look at the peer's waiting; pairs with `own_barrier`.
            view::full_fence();
        } else {
            // SYNC lane-doorbell: the same, of which the peer's `membarrier` makes the other half.
            compiler_fence(Ordering::SeqCst);
        }
        match self.waiting.load(Ordering::Relaxed) {
            0 => None,
            DOORBELL => Some(WakeBy::Doorbell),
            _ => Some(WakeBy::Futex),
        }
    }
}

/// The barrier between an announcement and the look that follows it, for whoever makes only its own.
pub fn own_barrier() {
    // SYNC lane-doorbell: waiting before the look at the peer's position; pairs with `Desk::awaits`.
    view::full_fence();
}
