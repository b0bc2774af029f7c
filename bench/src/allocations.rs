//! How many bytes a thread has asked the allocator for and not given back.
//!
//! What `malloc` adds for itself is not in it. Counting is off but where a figure asks for it, so that the systems
//! under test pay one predictable branch and nothing else.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

pub(crate) struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

static IS_ON: AtomicBool = AtomicBool::new(false);
static TAKEN_BYTES: AtomicU64 = AtomicU64::new(0);
static GIVEN_BACK_BYTES: AtomicU64 = AtomicU64::new(0);

/// From now on everything is counted, of all threads of this process.
pub(crate) fn count() {
    IS_ON.store(true, Ordering::Relaxed);
}

/// Bytes asked for since [`count`], less those given back.
pub(crate) fn live_bytes() -> f64 {
    TAKEN_BYTES.load(Ordering::Relaxed) as f64 - GIVEN_BACK_BYTES.load(Ordering::Relaxed) as f64
}

fn add(to: &AtomicU64, bytes: usize) {
    if IS_ON.load(Ordering::Relaxed) {
        to.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to `System` with the arguments that came, and counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(&TAKEN_BYTES, layout.size());
        // SAFETY: the caller keeps the promises of `alloc` (caller).
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(&TAKEN_BYTES, layout.size());
        // SAFETY: the caller keeps the promises of `alloc_zeroed` (caller).
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        add(&GIVEN_BACK_BYTES, layout.size());
        // SAFETY: the caller keeps the promises of `dealloc` (caller), and all memory is `System`'s (here).
        unsafe { System.dealloc(start, layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        add(&TAKEN_BYTES, bytes);
        add(&GIVEN_BACK_BYTES, layout.size());
        // SAFETY: as in `dealloc`.
        unsafe { System.realloc(start, layout, bytes) }
    }
}
