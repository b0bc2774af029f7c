//! Any bytes, as a request, an answer or an event of the bridge: they decode or are named, what decodes reads back as written, and
//! no message takes more memory than its bytes can hold.

#![no_main]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fmt::Debug,
    sync::atomic::{AtomicUsize, Ordering},
};

use keyway_gui::{
    limits::GUI_MESSAGE_BYTES_MAX,
    protocol::{Answer, Event, Malformed, Message, Request, decode, encode},
};
use libfuzzer_sys::fuzz_target;

/// Bytes in memory for one byte of a message: the longest thing of a list in an answer, and what is in it.
const BYTES_PER_BYTE: usize = 128;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, message)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => check::<Request>(message),
        1 => check::<Answer>(message),
        _ => check::<Event>(message),
    }
});

fn check<M: Message + Debug + PartialEq>(bytes: &[u8]) {
    let before = LIVE.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let decoded = decode::<M>(bytes);
    let took = MOST.load(Ordering::Relaxed) - before;
    let allowed = if bytes.len() > GUI_MESSAGE_BYTES_MAX { 0 } else { bytes.len() * BYTES_PER_BYTE };
    assert!(took <= allowed, "{took} bytes of memory for {} bytes: {decoded:?}", bytes.len());
    match decoded {
        Ok(message) => {
            let again = encode(&message).expect("what was read is within bounds");
            assert!(again.len() <= bytes.len(), "written longer than it was read");
            assert_eq!(decode::<M>(&again).as_ref(), Ok(&message), "what was written reads back");
            // One byte less is no message, and one more is one too many.
            assert_eq!(decode::<M>(&again[..again.len() - 1]).err(), Some(Malformed::Truncated));
            if again.len() < GUI_MESSAGE_BYTES_MAX {
                let longer = [again.as_slice(), &[0]].concat();
                assert_eq!(decode::<M>(&longer).err(), Some(Malformed::TrailingBytes { count: 1 }));
            }
        }
        Err(malformed) => {
            assert!(!malformed.to_string().is_empty());
            assert_eq!(decode::<M>(bytes).err(), Some(malformed), "the same bytes are refused alike");
        }
    }
}

/// Bytes that are allocated, and the most that were.
static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

// SAFETY: every call goes to `System` with the arguments that came, and counting allocates nothing. `realloc` is the
// trait's own, which calls these.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller keeps the promises of `alloc` (caller).
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the promises of `dealloc` (caller), and all memory is `System`'s (here).
        unsafe { System.dealloc(start, layout) }
    }
}
