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
