//! The orderings of shared words, in one place: on real memory and under loom the same lines run.
//!
//! An acquire is a fence after a relaxed load: only relaxed loads are promised on memory that is mapped read-only. Which
//! test fails when one of these is weakened is listed in `docs/orderings.md`.

#[cfg(not(loom))]
use core::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering, fence};

#[cfg(not(loom))]
pub(super) use core::sync::atomic::AtomicU32;
#[cfg(loom)]
pub(super) use loom::sync::atomic::AtomicU32;

/// Loads the word that commits a record, and then nothing that was stored before it was published is old.
#[inline(always)]
pub(super) fn load_published(word: &AtomicU64) -> u64 {
    let value = word.load(Ordering::Relaxed);
    // SYNC lane-publish: the record's bytes before the word that commits them.
    fence(Ordering::Acquire);
    value
}

/// Stores the word that commits a record after all that was stored before.
#[inline(always)]
pub(super) fn publish(word: &AtomicU64, value: u64) {
    // SYNC lane-publish: the record's bytes before the word that commits them.
    word.store(value, Ordering::Release);
}

/// Loads a word of a first page; `ordering` is `Relaxed` or `Acquire`.
#[inline(always)]
pub(super) fn load(word: &AtomicU32, ordering: Ordering) -> u32 {
    let value = word.load(Ordering::Relaxed);
    match ordering {
        Ordering::Relaxed => {}
        Ordering::Acquire => fence(Ordering::Acquire),
        // INVARIANT load-ordering: sequential consistency is had from `full_fence`, not from loads.
        _ => panic!("INVARIANT load-ordering: {ordering:?}"),
    }
    value
}

/// Orders this thread's earlier stores before its later loads, for the doorbell protocol.
pub(crate) fn full_fence() {
    fence(Ordering::SeqCst);
}
