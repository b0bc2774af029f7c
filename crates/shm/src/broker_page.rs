//! The words of a broker page: as the broker stores them, and one that its process looks at.
//!
//! One word of the first page counts events; every other one tells of a lane or a mapping, and [`Status`](crate::Status) reads it.
//! Whoever stores a word wakes those who sleep on it.

use core::sync::atomic::Ordering;

use crate::view::{View, Word};

/// Stores what is said of a lane or a mapping, at this offset of the page.
///
/// # Panics
///
/// When there is no word, or the page is not [`Access::Write`](crate::Access::Write).
pub fn tell(page: &View, offset: usize, value: u32) {
    // SYNC broker-word: all that the kernel did before is seen by who sees the word.
    page.store_u32(offset, value, Ordering::Release);
}

/// Counts events whose frames have been sent, in the word at this offset.
///
/// # Panics
///
/// As [`tell`].
pub fn count_events(page: &View, offset: usize, events: u32) {
    let next = page.load_u32(offset, Ordering::Relaxed).wrapping_add(events);
    // SYNC event-word: the frame is in the socket before the word says so.
    page.store_u32(offset, next, Ordering::Release);
}

/// How many events were counted, modulo 2^32. Ask first, then read what has come, then sleep on the word with this value.
#[inline]
pub fn events_seen(word: &Word) -> u32 {
    // SYNC event-word: the frame is in the socket before the word says so.
    word.load(Ordering::Acquire)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use keyway_abi::layout::PAGE_BYTES;

    use super::*;
    use crate::view::heap;

    #[test]
    fn a_word_is_told_and_events_are_counted_beyond_the_last_number() {
        let page = heap::memory(PAGE_BYTES);
        let word = page.reader.word(12).unwrap();
        assert_eq!(events_seen(&word), 0);
        tell(&page.writer, 12, u32::MAX - 1);
        assert_eq!(events_seen(&word), u32::MAX - 1);
        count_events(&page.writer, 12, 5);
        assert_eq!(events_seen(&word), 3);
        let others = (0..PAGE_BYTES).step_by(4).filter(|offset| *offset != 12);
        assert!(others.into_iter().all(|offset| page.reader.load_u32(offset, Ordering::Relaxed) == 0));
    }
}
