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

#[cfg(all(test, not(loom)))]
mod tests {
    use keyway_abi::layout::{PAGE_BYTES, RELEASE_SLOTS};

    use super::*;
    use crate::view::heap;

    #[test]
    fn a_release_is_told_in_its_slots_word_alone_and_says_who_waits() {
        let (ack, ring) = (heap::memory(PAGE_BYTES), heap::memory(PAGE_BYTES));
        let waits = ring.reader.word(8).unwrap();
        let slots = [(0, 7), (1, 8), (RELEASE_SLOTS as u16 - 1, 9)];
        for (slot, generation) in slots {
            ring.writer.store_u32(8, generation * 2, Ordering::Relaxed);
            assert_eq!(release(&ack.writer, &waits, slot, generation), generation * 2);
        }
        for offset in (0..PAGE_BYTES).step_by(4) {
            let told = slots.iter().find(|(slot, _)| RELEASES_OFFSET + usize::from(*slot) * 4 == offset);
            let expected = told.map_or(0, |(_, generation)| *generation);
            assert_eq!(ack.reader.load_u32(offset, Ordering::Relaxed), expected, "the word at {offset}");
        }
        for slot in 0..RELEASE_SLOTS as u16 {
            let told = slots.iter().find(|(of, _)| *of == slot).map_or(0, |(_, generation)| *generation);
            assert_eq!(released(&ack.reader, slot), told, "slot {slot}");
        }
    }
}
