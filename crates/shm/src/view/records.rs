//! The records of a ring on real memory: words of 8 bytes at positions that wrap, and copies of whole payloads.
//!
//! This is the hot path of every lane. Nothing in it is judged and nothing in it can leave the ring, whatever the
//! position: an offset is the position under a mask.
//!
//! # Invariants
//! 1. `base` is valid for reads of `ring_bytes` bytes (for writes too if `access` is `Write`) while `keep` lives.
//! 2. `ring_bytes` is a power of two and at least 8; `base` is aligned to 8.
//! 3. Nothing is stored while `access` is `Read`: only [`OwnRecords`] stores.

use alloc::vec::Vec;
use core::{
    marker::PhantomData,
    ops::Deref,
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU64, Ordering},
};

use keyway_abi::layout::RECORDS_OFFSET;

use crate::view::{
    Access, View,
    bytes::{copy_in, copy_new_in, copy_out, fetch_to_read, fetch_to_write},
    order,
};

/// Bytes of a word.
const WORD: usize = 8;

/// See the module.
#[derive(Debug)]
pub(crate) struct Records {
    base: NonNull<AtomicU64>,
    ring_bytes: u32,
    access: Access,
    _keep: View,
}

// SAFETY: all that is shared lies behind `_keep`, which is itself `Send`; `base` points into it (type: invariant 1).
#[allow(unsafe_code)]
unsafe impl Send for Records {}

// SAFETY: through a shared reference the memory is accessed by atomics alone; what is not atomic takes `&mut self`.
#[allow(unsafe_code)]
unsafe impl Sync for Records {}

impl Records {
    /// The records behind the first page of a ring's memory. `None` when that is shorter than `ring_bytes`, or
    /// those are no power of two from 8 on.
    pub(crate) fn new(view: &View, ring_bytes: u32) -> Option<Self> {
        let fits = view.len_bytes() >= RECORDS_OFFSET + ring_bytes as usize;
        if !fits || !ring_bytes.is_power_of_two() || (ring_bytes as usize) < WORD {
            return None;
        }
        Some(Self {
            base: view.wide_ptr(RECORDS_OFFSET),
            ring_bytes,
            access: view.access(),
            _keep: view.clone(),
        })
    }

    /// How many bytes of records the ring holds.
    #[inline]
    pub(crate) fn bytes(&self) -> u32 {
        self.ring_bytes
    }

    /// How many bytes lie from `position` to the ring's end.
    #[inline]
    pub(crate) fn bytes_to_end(&self, position: u32) -> u32 {
        self.reader().bytes_to_end(position)
    }

    /// Loads the word at `position`, and then nothing that was stored before it was published is old.
    #[inline]
    pub(crate) fn load(&self, position: u32) -> u64 {
        self.reader().load(position)
    }

    /// Loads the word at `position`, which orders nothing.
    #[inline]
    pub(crate) fn peek(&self, position: u32) -> u64 {
        self.word(position).load(Ordering::Relaxed)
    }

    /// Has the processor fetch the line at `position`, to be read soon.
    #[inline(always)]
    pub(crate) fn prefetch_to_read(&self, position: u32) {
        fetch_to_read(self.word(position));
    }

    /// Appends the `len` bytes from `position` on, at most a ring's worth, to `out`.
    #[inline]
    pub(crate) fn append(&self, position: u32, len: usize, out: &mut Vec<u8>) {
        Appender::new(out).append(self, position, len);
    }

    /// What one loads and copies with, apart: in registers, whatever is stored meanwhile.
    #[inline]
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader { base: self.base, ring_bytes: self.ring_bytes, _records: PhantomData }
    }

    /// As [`Reader::take`], of at most a ring's worth, wherever it lies; `out` is made longer where it is too short.
    #[cold]
    pub(crate) fn take_around(&self, position: u32, bytes: usize, out: &mut Vec<u8>) {
        // INVARIANT record-fits-ring: callers have judged the length against the ring.
        assert!(bytes <= self.ring_bytes as usize, "INVARIANT record-fits-ring");
        if out.len() < bytes {
            out.resize(bytes.next_power_of_two(), 0);
        }
        let (first, second) = out[..bytes].split_at_mut(bytes.min(self.bytes_to_end(position) as usize));
        for (at, piece) in [(position, first), (0, second)] {
            let places = self.words(at, piece.len() / WORD);
            // SAFETY:
            // 1. The places are valid (check: `words`), and stored by atomics and `copy_in` only.
            // 2. The piece has as many words: `bytes`, and what is left of the ring, are multiples of a word's.
            #[allow(unsafe_code)]
            unsafe {
                copy_out(places.as_ptr(), piece.as_mut_ptr(), places.len());
            }
        }
    }

    /// Copies the bytes from `position` on, at most a ring's worth, into `out`.
    pub(crate) fn read(&self, position: u32, out: &mut [u8]) {
        // INVARIANT record-fits-ring: as in `append`.
        assert!(out.len() <= self.ring_bytes as usize, "INVARIANT record-fits-ring");
        let (words, rest) = out.as_chunks_mut::<WORD>();
        let mut at = position;
        for word in words {
            *word = self.peek(at).to_ne_bytes();
            at = at.wrapping_add(WORD as u32);
        }
        if !rest.is_empty() {
            rest.copy_from_slice(&self.peek(at).to_ne_bytes()[..rest.len()]);
        }
    }

    #[inline]
    fn place(&self, position: u32) -> NonNull<AtomicU64> {
        self.reader().place(position)
    }

    #[inline]
    fn word(&self, position: u32) -> &AtomicU64 {
        // SAFETY: the place is valid (check: `place`); an `AtomicU64` may be shared with whoever else loads or stores it,
        // and any bytes are one.
        #[allow(unsafe_code)]
        unsafe {
            self.place(position).as_ref()
        }
    }

    /// `count` words from `position` on, which do not meet the ring's end.
    #[inline]
    fn words(&self, position: u32, count: usize) -> &[AtomicU64] {
        // INVARIANT words-in-ring: callers cut what they copy at the ring's end.
        assert!(count * WORD <= self.bytes_to_end(position) as usize, "INVARIANT words-in-ring");
        // SAFETY: as in `word`, for all of them (check, above).
        #[allow(unsafe_code)]
        unsafe {
            slice::from_raw_parts(self.place(position).as_ptr(), count)
        }
    }
}

/// The records of a ring, for one who reads many after another.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'r> {
    base: NonNull<AtomicU64>,
    ring_bytes: u32,
    _records: PhantomData<&'r Records>,
}

impl Reader<'_> {
    /// As [`Records::load`].
    #[inline(always)]
    pub(crate) fn load(&self, position: u32) -> u64 {
        // SAFETY: the place is valid while the records are borrowed (check: `place`); any bytes are an `AtomicU64`, which may be
        // shared with whoever else loads or stores it.
        #[allow(unsafe_code)]
        order::load_published(unsafe { self.place(position).as_ref() })
    }

    /// Copies the words of the `bytes` from `position` on to the beginning of `out`. Does nothing, and says so, if they meet the
    /// ring's end or are more than `out` has room for.
    #[inline(always)]
    pub(crate) fn take(&self, position: u32, bytes: usize, out: &mut [u8]) -> bool {
        let words = bytes / WORD;
        if bytes > out.len() || bytes > self.bytes_to_end(position) as usize {
            return false;
        }
        // SAFETY:
        // 1. So many words lie between `position` and the ring's end (check, above), stored by atomics and `copy_in` only.
        // 2. `out` has so many bytes (check, above).
        #[allow(unsafe_code)]
        unsafe {
            copy_out(self.place(position).as_ptr(), out.as_mut_ptr(), words);
        }
        true
    }

    #[inline(always)]
    fn bytes_to_end(&self, position: u32) -> u32 {
        self.ring_bytes - self.within(position)
    }

    #[inline(always)]
    fn within(&self, position: u32) -> u32 {
        position & (self.ring_bytes - 1)
    }

    /// Where the word at `position` lies. Not by way of a reference to it, which would be of that word alone.
    #[inline(always)]
    fn place(&self, position: u32) -> NonNull<AtomicU64> {
        let index = self.within(position) as usize / WORD;
        // SAFETY: `index * 8 < ring_bytes` under the mask, all valid for reads while the records are borrowed (invariants 1 and
        // 2 of `Records`, whose fields these are).
        #[allow(unsafe_code)]
        unsafe {
            self.base.add(index)
        }
    }
}

/// The records of a ring that this process writes.
///
/// # Invariants
/// 1. The access of what is below is `Write`.
#[derive(Debug)]
pub(crate) struct OwnRecords(Records);

impl Deref for OwnRecords {
    type Target = Records;

    #[inline(always)]
    fn deref(&self) -> &Records {
        &self.0
    }
}

impl OwnRecords {
    /// `None` when another process writes them: a store to a read-only mapping would be a SIGSEGV without a name.
    pub(crate) fn new(records: Records) -> Option<Self> {
        (records.access == Access::Write).then_some(Self(records))
    }

    /// Stores a word that becomes visible with the next [`OwnRecords::publish`].
    #[inline]
    pub(crate) fn store(&mut self, position: u32, word: u64) {
        self.word(position).store(word, Ordering::Relaxed);
    }

    /// Stores a word after all that was stored before.
    #[inline]
    pub(crate) fn publish(&mut self, position: u32, word: u64) {
        order::publish(self.word(position), word);
    }

    /// Copies `bytes` into the ring from `position` on, and zeroes up to the end of the last word: nothing of an
    /// earlier record stays in the padding.
    #[inline(always)]
    pub(crate) fn write(&mut self, position: u32, bytes: &[u8]) {
        if bytes.len() <= self.bytes_to_end(position) as usize {
            self.put(position, bytes);
        } else {
            self.write_around(position, bytes);
        }
    }

    /// As [`OwnRecords::write`], of bytes that were perhaps stored just before, in whatever width.
    #[inline(always)]
    pub(crate) fn write_new(&mut self, position: u32, bytes: &[u8]) {
        if bytes.len() <= self.bytes_to_end(position) as usize {
            self.put_with(position, bytes, copy_new_in);
        } else {
            self.write_around(position, bytes);
        }
    }

    /// Has the processor fetch the line at `position`, so that it can be written without a wait.
    #[inline(always)]
    pub(crate) fn prefetch_to_write(&mut self, position: u32) {
        // SAFETY: the place is valid for writes (check: `place`; type: invariant 1).
        #[allow(unsafe_code)]
        unsafe {
            fetch_to_write(self.place(position).as_ptr());
        }
    }

    #[cold]
    fn write_around(&mut self, position: u32, bytes: &[u8]) {
        let (first, second) = bytes.split_at(self.bytes_to_end(position) as usize);
        self.put(position, first);
        self.put(0, second);
    }

    /// The `len` bytes from `position` on, which this process has written. `None` where they are not in one piece.
    pub(crate) fn slice(&self, position: u32, len: usize) -> Option<&[u8]> {
        if len > self.bytes_to_end(position) as usize {
            return None;
        }
        let first = self.place(position).as_ptr().cast::<u8>().cast_const();
        // SAFETY: as in `slice_mut`; whoever could write them needs `self` exclusively, or stores no payload.
        #[allow(unsafe_code)]
        let bytes = unsafe { slice::from_raw_parts(first, len) };
        Some(bytes)
    }

    /// The `len` bytes from `position` on, to be written in place. `None` where they are not in one piece.
    pub(crate) fn slice_mut(&mut self, position: u32, len: usize) -> Option<&mut [u8]> {
        if len > self.bytes_to_end(position) as usize {
            return None;
        }
        let first = self.place(position).as_ptr().cast::<u8>();
        // SAFETY:
        // 1. The bytes lie between `position` and the ring's end (check, above; invariant 1 of `Records`), and may be
        //    written (type: invariant 1).
        // 2. This process accesses them by no other way meanwhile: `self` is borrowed exclusively, and the memory is
        //    its owner's alone (caller of `Own::new`, 2). Other processes only read them, which changes nothing here.
        // 3. All bytes were zeroed by Linux or written since; any are valid.
        #[allow(unsafe_code)]
        let bytes = unsafe { slice::from_raw_parts_mut(first, len) };
        Some(bytes)
    }

    /// Copies in what does not meet the ring's end.
    #[inline(always)]
    fn put(&mut self, position: u32, bytes: &[u8]) {
        self.put_with(position, bytes, copy_in);
    }

    /// As above, by one of the ways to copy.
    #[inline(always)]
    #[allow(unsafe_code)]
    fn put_with(&mut self, position: u32, bytes: &[u8], copy: unsafe fn(*const u8, *const AtomicU64, usize)) {
        let (words, rest) = bytes.as_chunks::<WORD>();
        let places = self.words(position, words.len());
        // SAFETY:
        // 1. The slice has so many words' bytes.
        // 2. So have the places (check: `words`), which this process alone may write (type: invariant 1).
        #[allow(unsafe_code)]
        unsafe {
            copy(bytes.as_ptr(), places.as_ptr(), places.len());
        }
        if !rest.is_empty() {
            let at = position.wrapping_add((words.len() * WORD) as u32);
            self.word(at).store(last_word(bytes, rest), Ordering::Relaxed);
        }
    }
}

/// Appends payloads to a vector whose length is kept here until this is dropped: one after the other costs no look at it.
///
/// # Invariants
/// 1. `len` bytes of `out` are written, and `len <= capacity`, which is that of `out`.
pub(crate) struct Appender<'v> {
    out: &'v mut Vec<u8>,
    len: usize,
    capacity: usize,
}

impl<'v> Appender<'v> {
    #[inline(always)]
    pub(crate) fn new(out: &'v mut Vec<u8>) -> Self {
        let (len, capacity) = (out.len(), out.capacity());
        Self { out, len, capacity }
    }

    /// How many bytes there are.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The `len` bytes from `position` on, at most a ring's worth.
    #[inline(always)]
    pub(crate) fn append(&mut self, records: &Records, position: u32, len: usize) {
        if len <= records.bytes_to_end(position) as usize {
            self.append_piece(records, position, len);
        } else {
            self.append_around(records, position, len);
        }
    }

    #[cold]
    fn append_around(&mut self, records: &Records, position: u32, len: usize) {
        // INVARIANT record-fits-ring: callers have judged the length against the ring.
        assert!(len <= records.bytes() as usize, "INVARIANT record-fits-ring");
        let before_end = records.bytes_to_end(position) as usize;
        self.append_piece(records, position, before_end);
        self.append_piece(records, 0, len - before_end);
    }

    #[inline(always)]
    fn append_piece(&mut self, records: &Records, position: u32, len: usize) {
        let places = records.words(position, len.div_ceil(WORD));
        let bytes = places.len() * WORD;
        if self.capacity - self.len < bytes {
            self.grow(bytes);
        }
        // SAFETY: `len <= capacity` (type: invariant 1).
        #[allow(unsafe_code)]
        let to = unsafe { self.out.as_mut_ptr().add(self.len) };
        // SAFETY:
        // 1. The places are valid (check: `words`), and stored by atomics and `copy_in` only.
        // 2. So many bytes from `to` on are within the capacity (check, above).
        #[allow(unsafe_code)]
        unsafe {
            copy_out(places.as_ptr(), to, places.len());
        }
        self.len += len;
    }

    #[cold]
    fn grow(&mut self, bytes: usize) {
        self.settle();
        self.out.reserve(bytes);
        self.capacity = self.out.capacity();
    }

    #[inline(always)]
    fn settle(&mut self) {
        // SAFETY: so many bytes are written, within the capacity (type: invariant 1).
        #[allow(unsafe_code)]
        unsafe {
            self.out.set_len(self.len);
        }
    }
}

impl Drop for Appender<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.settle();
    }
}

/// The last bytes of a payload as a word, zeros behind them.
#[inline]
fn last_word(bytes: &[u8], rest: &[u8]) -> u64 {
    let missing_bits = (WORD - rest.len()) * 8;
    // The word that ends with the payload has them in one load; its other bytes are shifted out.
    if let Some(last) = bytes.last_chunk::<WORD>() {
        return (u64::from_le_bytes(*last) >> missing_bits).to_le();
    }
    let mut word = [0; WORD];
    word[..rest.len()].copy_from_slice(rest);
    u64::from_ne_bytes(word)
}
