//! The view that loom explores: words are loom's atomics, record bytes are cells whose races loom reports.
//!
//! Between two honest sides no record byte is ever written while it is read; that is what positions are for. So
//! records are plain cells here, and every missing ordering shows as a race, although on real memory the copies are
//! atomic and a race would only tear a message.
//!
//! Only the words that lanes and broker pages use exist, because loom pays for each.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::Ordering;

use keyway_abi::layout;
use loom::{
    cell::UnsafeCell,
    sync::atomic::{self, AtomicU32},
};

use crate::view::{
    Access, OutOfView,
    copy::{gather, scatter},
};

/// The offsets at which a modelled memory has words.
const WORDS: [usize; 4] =
    [layout::POSITION_OFFSET, layout::MESSAGES_OFFSET, layout::WAITING_OFFSET, layout::VERSION_OFFSET];

/// A window on memory that loom watches. Stands in for the real one, with its interface.
#[derive(Clone, Debug)]
pub struct View {
    memory: Arc<Memory>,
    access: Access,
}

impl View {
    /// A memory of `len_bytes` zero bytes: its one writer's view and a reader's.
    pub fn modelled(len_bytes: usize) -> (View, View) {
        let records_words = len_bytes.saturating_sub(layout::RECORDS_OFFSET) / 4;
        let memory = Arc::new(Memory {
            len_bytes,
            words: WORDS.map(|_| AtomicU32::new(0)),
            records: (0..records_words).map(|_| UnsafeCell::new(0)).collect(),
        });
        (View { memory: Arc::clone(&memory), access: Access::Write }, View { memory, access: Access::Read })
    }

    /// How long the view is.
    pub fn len_bytes(&self) -> usize {
        self.memory.len_bytes
    }

    /// What this process may do with the memory.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Loads the word at `offset`.
    ///
    /// # Panics
    ///
    /// When the model has no word there.
    pub fn load_u32(&self, offset: usize, ordering: Ordering) -> u32 {
        self.memory.word(offset).load(ordering)
    }

    /// Stores the word at `offset`.
    ///
    /// # Panics
    ///
    /// When the model has no word there or the view is not [`Access::Write`].
    pub fn store_u32(&self, offset: usize, value: u32, ordering: Ordering) {
        self.assert_writable();
        self.memory.word(offset).store(value, ordering);
    }

    /// Copies record bytes out.
    ///
    /// # Errors
    ///
    /// [`OutOfView`] when the range leaves the view.
    pub fn copy_out(&self, offset: usize, out: &mut [u8]) -> Result<(), OutOfView> {
        OutOfView::check(offset, out.len(), self.len_bytes())?;
        gather(offset, out, |at, words: &mut [[u8; 4]]| {
            for (word, cell) in words.iter_mut().zip(self.memory.records(at)) {
                *word = u32::to_ne_bytes(read(cell));
            }
        });
        Ok(())
    }

    /// Copies record bytes in.
    ///
    /// # Errors
    ///
    /// [`OutOfView`] when the range leaves the view.
    ///
    /// # Panics
    ///
    /// When the view is not [`Access::Write`].
    pub fn copy_in(&self, offset: usize, bytes: &[u8]) -> Result<(), OutOfView> {
        self.assert_writable();
        OutOfView::check(offset, bytes.len(), self.len_bytes())?;
        scatter(
            offset,
            bytes,
            |at, words: &[[u8; 4]]| {
                for (word, cell) in words.iter().zip(self.memory.records(at)) {
                    write(cell, u32::from_ne_bytes(*word));
                }
            },
            |at, mask, value| {
                let cell = &self.memory.records(at)[0];
                let kept = read(cell) & !u32::from_ne_bytes(mask);
                write(cell, kept | u32::from_ne_bytes(value));
            },
        );
        Ok(())
    }

    /// Whether the model has a word at `offset`.
    pub(super) fn has_word(&self, offset: usize) -> bool {
        WORDS.contains(&offset) && offset < self.len_bytes()
    }

    /// An address that stands for the word.
    pub(super) fn word_ptr(&self, offset: usize) -> *const u32 {
        core::ptr::from_ref(self.memory.word(offset)).cast()
    }

    fn assert_writable(&self) {
        // INVARIANT store-needs-write: as on real memory.
        assert!(self.access == Access::Write, "INVARIANT store-needs-write");
    }
}

#[derive(Debug)]
struct Memory {
    len_bytes: usize,
    words: [AtomicU32; WORDS.len()],
    records: Vec<UnsafeCell<u32>>,
}

// SAFETY: `records` is the only field that is not `Sync`; loom runs one thread at a time and ends the test at the first
// access to a cell that races with another (loom).
#[allow(unsafe_code)]
unsafe impl Sync for Memory {}

impl Memory {
    fn word(&self, offset: usize) -> &AtomicU32 {
        let index = WORDS.iter().position(|&word| word == offset);
        // INVARIANT modelled-word: the lanes use no other words than those of the layout.
        &self.words[index.expect("INVARIANT modelled-word")]
    }

    fn records(&self, offset: usize) -> &[UnsafeCell<u32>] {
        &self.records[(offset - layout::RECORDS_OFFSET) / 4..]
    }
}

#[allow(unsafe_code)]
fn read(cell: &UnsafeCell<u32>) -> u32 {
    cell.with(|value| {
        // SAFETY: loom has just checked that no write to the cell is concurrent (loom).
        unsafe { *value }
    })
}

#[allow(unsafe_code)]
fn write(cell: &UnsafeCell<u32>, value: u32) {
    cell.with_mut(|place| {
        // SAFETY: loom has just checked that no access to the cell is concurrent (loom).
        unsafe { *place = value };
    });
}

/// Orders this thread's earlier stores before its later loads, for the doorbell protocol.
pub(crate) fn full_fence() {
    atomic::fence(Ordering::SeqCst);
}
