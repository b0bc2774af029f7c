//! What a lane's reader says of the parts that messages name: which of them it reads no more.
//!
//! Each part has a slot while it is under way, and a generation that grows with each use of the slot. The slot's word lies in the
//! reader's memory, which its sender reads only; what is lent by it, and what a word is worth, is for whoever lends to know.
//!
//! ```text
//!   reader                              sender
//!   reads the part                      waits = 1
//!   word = generation                   ─── full barrier ───
//!   ─── full barrier ───                word still another? sleep on it
//!   waits != 0? wake                    word = generation? the memory is written anew
//! ```

use core::sync::atomic::Ordering;

use keyway_abi::layout::RELEASES_OFFSET;

use crate::{
    lane::own_barrier,
    view::{View, Word},
};

/// Where a slot's word lies in acknowledgement memory.
#[inline]
pub fn place(slot: u16) -> usize {
    RELEASES_OFFSET + usize::from(slot) * size_of::<u32>()
}

/// Says in the reader's memory that it reads a part no more. Answers what the sender's word says: 0 when it does not wait for that.
///
/// # Panics
///
/// When `ack` is not [`Access::Write`](crate::Access::Write), or the slot lies behind its first page.
#[must_use = "the sender may wait for it"]
pub fn release(ack: &View, waits: &Word, slot: u16, generation: u32) -> u32 {
    // SYNC segment-release: our reads before the word.
    ack.store_u32(place(slot), generation, Ordering::Release);
    // SYNC segment-doorbell: the release before the look at who waits; the other side announces itself before its last look.
    own_barrier();
    waits.load(Ordering::Relaxed)
}

/// Which generation of a slot was released last, as its reader says.
///
/// # Panics
///
/// When the slot lies behind the first page of `ack`.
#[inline]
pub fn released(ack: &View, slot: u16) -> u32 {
    // SYNC segment-release: the reader's reads before its word, and that before our next writes.
    ack.load_u32(place(slot), Ordering::Acquire)
}
