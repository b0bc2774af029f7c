//! The broker's word for one lane or mapping: alive, its other side dead, or revoked.
//!
//! The word lies on a page that only the broker writes and this process only reads, so it is believed. It holds the
//! lane's generation while the lane lives, then one of two verdicts for ever. It is never used again for another
//! lane under the same generation.
//!
//! When to look is the lane's business: a receiver after it has loaded the peer's position, a sender before it
//! publishes its own.

use core::sync::atomic::Ordering;

use keyway_abi::layout;

use crate::view::{Glance, Word};

/// One lane's or mapping's word on a broker page, and the generation under which it was opened.
#[derive(Clone, Debug)]
pub struct Status {
    word: Word,
    generation: u32,
}

impl Status {
    /// The status that `word` tells of a lane or mapping opened under `generation`.
    pub fn new(word: Word, generation: u32) -> Self {
        Self { word, generation }
    }

    /// What the broker says now.
    ///
    /// A word that is neither this generation nor a verdict belongs to another lane: ours was revoked before.
    #[inline]
    pub fn verdict(&self) -> Verdict {
        // SYNC broker-verdict: what the broker knew, such as the death of the writer, before the word.
        match self.word.load(Ordering::Acquire) {
            layout::WORD_REVOKED => Verdict::Revoked,
            layout::WORD_DEAD => Verdict::Dead,
            seen if seen == self.generation => Verdict::Live,
            _ => Verdict::Revoked,
        }
    }

    /// The same for one who asks many times whether all is well, and for nothing else.
    #[inline(always)]
    pub(crate) fn glance(&self) -> StatusGlance<'_> {
        StatusGlance { word: self.word.glance(), generation: self.generation }
    }

    /// The word itself, to sleep on.
    pub fn word(&self) -> &Word {
        &self.word
    }

    /// What the word holds while the lane or mapping lives.
    pub fn generation(&self) -> u32 {
        self.generation
    }
}

/// See [`Status::glance`].
#[derive(Clone, Copy)]
pub(crate) struct StatusGlance<'s> {
    word: Glance<'s>,
    generation: u32,
}

impl StatusGlance<'_> {
    /// Whether [`Status::verdict`] would be [`Verdict::Live`].
    #[inline(always)]
    pub(crate) fn is_live(self) -> bool {
        // Nothing was told before a word that says that all is well. Whoever sees another asks `Status::verdict`.
        let seen = self.word.load(Ordering::Relaxed);
        seen == self.generation && seen != layout::WORD_REVOKED && seen != layout::WORD_DEAD
    }
}

/// What the broker says of a lane or mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Both sides live and nothing was revoked.
    Live,
    /// The other side is dead. What it had committed can still be received.
    Dead,
    /// Revoked. Nothing more is accepted.
    Revoked,
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::view::heap;

    #[test]
    fn only_the_own_generation_is_live() {
        let page = heap::memory(layout::PAGE_BYTES);
        let status = Status::new(page.reader.word(8).expect("a word of the page"), 7);
        for (word, verdict) in [
            (7, Verdict::Live),
            (layout::WORD_DEAD, Verdict::Dead),
            (layout::WORD_REVOKED, Verdict::Revoked),
            (6, Verdict::Revoked),
            (8, Verdict::Revoked),
            (u32::MAX, Verdict::Revoked),
        ] {
            page.writer.store_u32(8, word, Ordering::Release);
            assert_eq!(status.verdict(), verdict, "word {word}");
            assert_eq!(status.glance().is_live(), verdict == Verdict::Live, "word {word}");
        }
    }

    #[test]
    fn a_generation_that_is_a_verdict_never_lives() {
        let page = heap::memory(layout::PAGE_BYTES);
        let status = Status::new(page.reader.word(4).expect("a word of the page"), layout::WORD_REVOKED);
        assert_eq!(status.verdict(), Verdict::Revoked);
        assert!(!status.glance().is_live());
    }
}
