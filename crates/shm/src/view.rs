//! A bounds-checked window on memory that another process may be writing at this moment.
//!
//! A view never hands out a reference or a slice into the memory; it loads and stores words and copies bytes.
//!
//! # How bytes are copied
//!
//! By relaxed atomic loads and stores of whole, aligned words. A plain `memcpy` of bytes that someone else is writing
//! is a data race, which Rust leaves undefined even if the copy is thrown away; volatile reads are races too, by the
//! letter. A relaxed load of one word always yields some value, and which one is then judged. Words of 8 bytes cost
//! two and a half times a `memcpy` within the cache and a third more at 64 KiB; the threat model has the figures. Larger
//! payloads do not travel through lanes. The records of a ring have a way of their own to the same end, which is the
//! hot path: `records`.
//!
//! Rust does not allow unsynchronised atomic accesses of different sizes to the same bytes. So the size of an access
//! is a function of the offset, within this process:
//!
//! ```text
//!  0                          4096 (PAGE_BYTES)                          len
//!  | 4-byte words: what can be  | 8-byte words: copies only               |
//!  | slept on, and copies       |                                         |
//! ```
//!
//! A copy that begins or ends inside a word loads the whole word and keeps its part; it stores by an atomic `and` and
//! an atomic `or`, so that two threads which write neighbouring bytes do not undo each other. Both are wait-free: no
//! peer can hold a copy up.
//!
//! Two implementations have one interface: `mapped` and `records` (with `bytes`), the real ones, and `modelled`, which takes
//! their place when loom explores the interleavings. `piece` divides memory of one's own into slices. There is no other
//! unsafe code in the crate. The orderings of both are `order`.

#[cfg(not(loom))]
mod bytes;
#[cfg(not(loom))]
mod copy;
#[cfg(all(test, not(loom)))]
pub(crate) mod heap;
#[cfg(not(loom))]
mod mapped;
#[cfg(loom)]
mod modelled;
mod order;
#[cfg(not(loom))]
mod piece;
#[cfg(not(loom))]
mod records;
mod word;

#[cfg(not(loom))]
pub use self::mapped::{LINE_BYTES, Own, View};
#[cfg(loom)]
pub(crate) use self::modelled::{Appender, OwnRecords, Records};
#[cfg(loom)]
pub use self::modelled::{Own, View};
pub(crate) use self::order::full_fence;
#[cfg(not(loom))]
pub use self::piece::Piece;
#[cfg(not(loom))]
pub(crate) use self::records::{Appender, OwnRecords, Records};
pub use self::word::Word;
pub(crate) use self::word::{Glance, OwnWord};

/// What this process may do with the memory of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Load only: the mapping is read-only and a store would end the process.
    Read,
    /// Load and store: this process is the memory's one writer.
    Write,
}

/// A copy that would leave the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("copy of {asked_bytes} bytes at {offset} leaves a view of {len_bytes} bytes")]
pub struct OutOfView {
    /// Where the copy would have begun.
    pub offset: usize,
    /// How long it would have been.
    pub asked_bytes: usize,
    /// How long the view is.
    pub len_bytes: usize,
}

#[cfg(not(loom))]
impl OutOfView {
    /// Judges a range against the length of a view.
    fn check(offset: usize, asked_bytes: usize, len_bytes: usize) -> Result<(), Self> {
        match offset.checked_add(asked_bytes) {
            Some(end) if end <= len_bytes => Ok(()),
            _ => Err(Self { offset, asked_bytes, len_bytes }),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
