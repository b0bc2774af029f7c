//! The view that loom explores: words are loom's atomics, record bytes are cells whose races loom reports.
//!
//! Between two honest sides no record byte is ever written while it is read; that is what commits are for. So the bytes
//! of records are plain cells here, and every missing ordering shows as a race, although on real memory the copies are
//! atomic and a race would only tear a message. The words that commit records are loom's atomics; each word of a ring is
//! both, as it may be the one today and the other tomorrow.
//!
//! Only the words that a test uses exist, because loom pays for each.

// The interface is that of real memory, which needs what the model does not.
#![allow(clippy::unused_self, clippy::trivially_copy_pass_by_ref)]

use alloc::{sync::Arc, vec::Vec};
use core::{ops::Deref, sync::atomic::Ordering};

use keyway_abi::layout;
use loom::{
    cell::UnsafeCell,
    sync::atomic::{AtomicU32, AtomicU64},
};

use crate::view::{Access, order};

/// The offsets at which a modelled memory has words, if nothing else is said.
const WORDS: [usize; 3] = [layout::POSITION_OFFSET, layout::MESSAGES_OFFSET, layout::WAITING_OFFSET];

/// A window on memory that loom watches. Stands in for the real one, with its interface.
#[derive(Clone, Debug)]
pub struct View {
    memory: Arc<Memory>,
    access: Access,
}

impl View {
    /// A memory of `len_bytes` zero bytes: its one writer's view and a reader's.
    pub fn modelled(len_bytes: usize) -> (View, View) {
        Self::modelled_with(len_bytes, &WORDS)
    }

    /// The same with words at these offsets.
    pub fn modelled_with(len_bytes: usize, words: &[usize]) -> (View, View) {
        let records_words = len_bytes.saturating_sub(layout::RECORDS_OFFSET) / WORD;
        let memory = Arc::new(Memory {
            len_bytes,
            words: words.iter().map(|&offset| (offset, AtomicU32::new(0))).collect(),
            records: (0..records_words)
                .map(|_| RecordWord { commit: AtomicU64::new(0), bytes: UnsafeCell::new(()) })
                .collect(),
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
        order::load(self.memory.word(offset), ordering)
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

    /// The modelled word at `offset`.
    pub(super) fn place(&self, offset: usize) -> Option<Place> {
        let index = self.memory.words.iter().position(|(at, _)| *at == offset)?;
        (offset < self.len_bytes()).then(|| Place { memory: Arc::clone(&self.memory), index })
    }

    fn assert_writable(&self) {
        // INVARIANT store-needs-write: as on real memory.
        assert!(self.access == Access::Write, "INVARIANT store-needs-write");
    }
}

/// A word, as on real memory.
#[derive(Clone, Debug)]
pub(super) struct Place {
    memory: Arc<Memory>,
    index: usize,
}

impl Place {
    pub(super) fn word(&self) -> &AtomicU32 {
        &self.memory.words[self.index].1
    }

    pub(super) fn as_ptr(&self) -> *const u32 {
        core::ptr::from_ref(self.word()).cast()
    }
}

/// Memory of which this thread is the one writer.
#[derive(Debug)]
pub struct Own {
    view: View,
}

impl Own {
    /// Of a modelled memory's writing view.
    pub fn of(view: View) -> Own {
        Own { view }
    }

    /// A window on its words, and on all of it: the model has no bytes that are written in place.
    pub fn view(&self) -> &View {
        &self.view
    }

    pub(crate) fn all(&self) -> &View {
        &self.view
    }
}

const WORD: usize = 8;

#[derive(Debug)]
struct RecordWord {
    /// What was stored, whether as a commit or as bytes.
    commit: AtomicU64,
    /// Read and written with the bytes, so that loom sees races of those.
    bytes: UnsafeCell<()>,
}

#[derive(Debug)]
struct Memory {
    len_bytes: usize,
    words: Vec<(usize, AtomicU32)>,
    records: Vec<RecordWord>,
}

// SAFETY: `records` is the only field that is not `Sync`; loom runs one thread at a time and ends the test at the first
// access to a cell that races with another (loom).
#[allow(unsafe_code)]
unsafe impl Sync for Memory {}

impl Memory {
    fn word(&self, offset: usize) -> &AtomicU32 {
        let word = self.words.iter().find(|(at, _)| *at == offset);
        // INVARIANT modelled-word: no other words are used than those that a memory was made with.
        &word.expect("INVARIANT modelled-word").1
    }
}

/// The records of a ring, with the interface of those on real memory.
#[derive(Debug)]
pub(crate) struct Records {
    memory: Arc<Memory>,
    ring_bytes: u32,
}

impl Records {
    pub(crate) fn new(view: &View, ring_bytes: u32) -> Option<Self> {
        let fits = view.len_bytes() == layout::RECORDS_OFFSET + ring_bytes as usize;
        (fits && ring_bytes.is_power_of_two()).then(|| Self { memory: Arc::clone(&view.memory), ring_bytes })
    }

    pub(crate) fn bytes(&self) -> u32 {
        self.ring_bytes
    }

    pub(crate) fn bytes_to_end(&self, position: u32) -> u32 {
        self.ring_bytes - (position & (self.ring_bytes - 1))
    }

    pub(crate) fn load(&self, position: u32) -> u64 {
        order::load_published(&self.word(position).commit)
    }

    pub(crate) fn peek(&self, position: u32) -> u64 {
        self.word(position).commit.load(Ordering::Relaxed)
    }

    /// There is nothing to fetch.
    pub(crate) fn prefetch_to_read(&self, _position: u32) {}

    pub(crate) fn append(&self, position: u32, len: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + len, 0);
        self.read(position, &mut out[start..]);
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader(self)
    }

    pub(crate) fn take_around(&self, position: u32, bytes: usize, out: &mut Vec<u8>) {
        out.resize(out.len().max(bytes), 0);
        self.read(position, &mut out[..bytes]);
    }

    pub(crate) fn read(&self, position: u32, out: &mut [u8]) {
        for (index, part) in out.chunks_mut(WORD).enumerate() {
            let place = self.word(position.wrapping_add((index * WORD) as u32));
            let word = place.bytes.with(|_| place.commit.load(Ordering::Relaxed));
            part.copy_from_slice(&word.to_ne_bytes()[..part.len()]);
        }
    }

    fn word(&self, position: u32) -> &RecordWord {
        &self.memory.records[(position & (self.ring_bytes - 1)) as usize / WORD]
    }
}

/// The records of a ring, for one who reads many after another.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'r>(&'r Records);

impl Reader<'_> {
    pub(crate) fn load(&self, position: u32) -> u64 {
        self.0.load(position)
    }

    pub(crate) fn take(&self, position: u32, len: usize, out: &mut [u8]) -> bool {
        let Some(out) = out.get_mut(..len) else { return false };
        self.0.read(position, out);
        true
    }
}

/// The records of a ring that this thread writes.
#[derive(Debug)]
pub(crate) struct OwnRecords(Records);

impl Deref for OwnRecords {
    type Target = Records;

    fn deref(&self) -> &Records {
        &self.0
    }
}

impl OwnRecords {
    pub(crate) fn new(records: Records) -> Option<Self> {
        Some(Self(records))
    }

    pub(crate) fn store(&mut self, position: u32, word: u64) {
        self.word(position).commit.store(word, Ordering::Relaxed);
    }

    pub(crate) fn publish(&mut self, position: u32, word: u64) {
        order::publish(&self.word(position).commit, word);
    }

    pub(crate) fn write(&mut self, position: u32, bytes: &[u8]) {
        for (index, part) in bytes.chunks(WORD).enumerate() {
            let mut word = [0; WORD];
            word[..part.len()].copy_from_slice(part);
            let place = self.word(position.wrapping_add((index * WORD) as u32));
            place.bytes.with_mut(|_| place.commit.store(u64::from_ne_bytes(word), Ordering::Relaxed));
        }
    }

    pub(crate) fn write_new(&mut self, position: u32, bytes: &[u8]) {
        self.write(position, bytes);
    }

    /// As above.
    pub(crate) fn prefetch_to_write(&mut self, _position: u32) {}

    /// What is written in place is not modelled.
    pub(crate) fn slice(&self, _position: u32, _len: usize) -> Option<&[u8]> {
        None
    }

    /// As above.
    pub(crate) fn slice_mut(&mut self, _position: u32, _len: usize) -> Option<&mut [u8]> {
        None
    }
}

/// Appends payloads to a vector, with the interface of the one on real memory.
pub(crate) struct Appender<'v> {
    out: &'v mut Vec<u8>,
}

impl<'v> Appender<'v> {
    pub(crate) fn new(out: &'v mut Vec<u8>) -> Self {
        Self { out }
    }

    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    pub(crate) fn append(&mut self, records: &Records, position: u32, len: usize) {
        records.append(position, len, self.out);
    }
}
