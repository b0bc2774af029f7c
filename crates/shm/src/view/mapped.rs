//! The view on real memory: the crate's only unsafe code.
//!
//! All of it reduces to two functions that turn a checked range into a slice of atomics. Those slices live for one
//! access and never leave this file.
//!
//! # Invariants
//! 1. `base` is valid for reads of `len_bytes` bytes (for writes too if `access` is `Write`) while `keep` lives.
//! 2. `base` and `len_bytes` are multiples of 8, and `len_bytes` is at most `isize::MAX`.
//! 3. Below `WORDS_END` bytes are accessed as `AtomicU32`, from there on as `AtomicU64`, never otherwise.
//! 4. Nothing is ever stored through a view whose access is `Read`.
//! 5. Loads are relaxed; an acquire is a fence after one. Only such loads are promised to work on memory that is mapped
//!    read-only (`core::sync::atomic`, "Atomic accesses to read-only memory"), up to 8 bytes on 64-bit machines.

use alloc::sync::Arc;
use core::{
    any::Any,
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use keyway_abi::layout;

use crate::view::{
    Access, OutOfView, bytes,
    copy::{gather, scatter},
    order,
};

#[cfg(not(target_pointer_width = "64"))]
compile_error!("atomic loads of 8 bytes from read-only memory are promised on 64-bit machines only");

/// Bytes of the pieces in which [`View::read_lines`] reads.
pub const LINE_BYTES: usize = bytes::LINE_BYTES;
const LINE_WORDS: usize = LINE_BYTES / 8;

/// Where words to sleep on end and wide copies begin. See [the module](crate::view).
const WORDS_END: usize = layout::PAGE_BYTES;

/// A bounds-checked window on memory that another process may be writing.
///
/// Cloning is cheap; all clones are the same window and keep the mapping alive.
#[derive(Clone, Debug)]
pub struct View {
    base: NonNull<u8>,
    len_bytes: usize,
    access: Access,
    keep: Arc<dyn Any + Send + Sync>,
}

// SAFETY:
// 1. `base` stays valid whichever thread holds the view, as `keep` is owned and itself `Send` (type: field).
// 2. All accesses through it are atomic (type: invariant 3).
#[allow(unsafe_code)]
unsafe impl Send for View {}

// SAFETY: the same two facts; no method needs exclusive access.
#[allow(unsafe_code)]
unsafe impl Sync for View {}

impl View {
    /// A view of the `len_bytes` bytes at `base`. `None` when `base` or `len_bytes` is not a multiple of 8, or the
    /// length is more than Rust allows for one object.
    ///
    /// # Safety
    ///
    /// 1. `base` is valid for reads of `len_bytes` bytes, and for writes if `access` is [`Access::Write`], for as long
    ///    as `keep` lives. For shared memory that means: the length was checked on the descriptor *after* its seals
    ///    were, so that nobody can shrink it.
    /// 2. `base` is where the mapping begins, and within this process its bytes are accessed only through views of
    ///    that same base and by futex calls.
    #[allow(unsafe_code)]
    pub unsafe fn new(
        base: NonNull<u8>,
        len_bytes: usize,
        access: Access,
        keep: Arc<dyn Any + Send + Sync>,
    ) -> Option<View> {
        let aligned = base.cast::<u64>().is_aligned() && len_bytes.is_multiple_of(8);
        let representable = isize::try_from(len_bytes).is_ok();
        (aligned && representable).then_some(View { base, len_bytes, access, keep })
    }

    /// How long the view is.
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// What this process may do with the memory.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Loads the word at `offset`.
    ///
    /// # Panics
    ///
    /// When there is no word at `offset` (see [`View::word`]) or `ordering` is neither `Relaxed` nor `Acquire`. Offsets
    /// of words are the layout's, never a peer's.
    pub fn load_u32(&self, offset: usize, ordering: Ordering) -> u32 {
        order::load(&self.narrow(offset, 1)[0], ordering)
    }

    /// Stores the word at `offset`.
    ///
    /// # Panics
    ///
    /// When there is no word at `offset` (see [`View::word`]), the view is not [`Access::Write`], or `ordering` is no
    /// ordering of a store.
    pub fn store_u32(&self, offset: usize, value: u32, ordering: Ordering) {
        self.assert_writable();
        self.narrow(offset, 1)[0].store(value, ordering);
    }

    /// Copies bytes out into private memory. What a writer stores meanwhile may be copied in part.
    ///
    /// # Errors
    ///
    /// [`OutOfView`] when the range leaves the view; nothing was copied.
    pub fn copy_out(&self, offset: usize, out: &mut [u8]) -> Result<(), OutOfView> {
        OutOfView::check(offset, out.len(), self.len_bytes)?;
        let (narrow, wide) = out.split_at_mut(narrow_bytes(offset, out.len()));
        let wide_offset = offset + narrow.len();
        gather(offset, narrow, |at, words: &mut [[u8; 4]]| {
            let shared = self.narrow(at, words.len());
            for (word, shared) in words.iter_mut().zip(shared) {
                *word = shared.load(Ordering::Relaxed).to_ne_bytes();
            }
        });
        gather(wide_offset, wide, |at, words: &mut [[u8; 8]]| {
            let shared = self.wide(at, words.len());
            // SAFETY:
            // 1. `shared` is a slice of so many words, stored by atomics only (type: invariant 3).
            // 2. `words` is borrowed exclusively and has as many bytes.
            #[allow(unsafe_code)]
            unsafe {
                bytes::copy_out(shared.as_ptr(), words.as_mut_ptr().cast(), words.len());
            }
        });
        Ok(())
    }

    /// Hands the `len` bytes from `offset` on to `each` in private pieces of [`LINE_BYTES`], the last one shorter: a way to read
    /// every byte once that needs no memory. What a writer stores meanwhile may be in it in part.
    ///
    /// # Errors
    ///
    /// [`OutOfView`] when the range leaves the view; nothing was read.
    #[inline]
    pub fn read_lines(
        &self,
        offset: usize,
        len: usize,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), OutOfView> {
        OutOfView::check(offset, len, self.len_bytes)?;
        let mut line = [0; LINE_BYTES];
        let (mut at, end) = (offset, offset + len);
        let is_wide = |at: usize| at >= WORDS_END && at.is_multiple_of(size_of::<u64>());
        while at < end && !(is_wide(at) && end - at >= LINE_BYTES) {
            // Up to where whole lines can be loaded, or the end.
            let to_wide = if at < WORDS_END { WORDS_END - at } else { at.next_multiple_of(8) - at };
            let count = if to_wide == 0 { end - at } else { to_wide.min(end - at).min(LINE_BYTES) };
            self.copy_out(at, &mut line[..count])?;
            each(&line[..count]);
            at += count;
        }
        let lines = (end - at) / LINE_BYTES;
        if lines > 0 {
            for words in self.wide(at, lines * LINE_WORDS).chunks_exact(LINE_WORDS) {
                // SAFETY: so many words, stored by atomics only (type: invariant 3).
                #[allow(unsafe_code)]
                let line = unsafe { bytes::load_line(words.as_ptr()) };
                each(&line);
            }
            at += lines * LINE_BYTES;
        }
        if at < end {
            self.copy_out(at, &mut line[..end - at])?;
            each(&line[..end - at]);
        }
        Ok(())
    }

    /// Copies bytes in. Readers see them in any order until something is published after them.
    ///
    /// # Errors
    ///
    /// [`OutOfView`] when the range leaves the view; nothing was copied.
    ///
    /// # Panics
    ///
    /// When the view is not [`Access::Write`].
    pub fn copy_in(&self, offset: usize, bytes: &[u8]) -> Result<(), OutOfView> {
        self.assert_writable();
        OutOfView::check(offset, bytes.len(), self.len_bytes)?;
        let (narrow, wide) = bytes.split_at(narrow_bytes(offset, bytes.len()));
        scatter(
            offset,
            narrow,
            |at, words: &[[u8; 4]]| {
                for (word, shared) in words.iter().zip(self.narrow(at, words.len())) {
                    shared.store(u32::from_ne_bytes(*word), Ordering::Relaxed);
                }
            },
            |at, mask, value| {
                let shared = &self.narrow(at, 1)[0];
                shared.fetch_and(!u32::from_ne_bytes(mask), Ordering::Relaxed);
                shared.fetch_or(u32::from_ne_bytes(value), Ordering::Relaxed);
            },
        );
        scatter(
            offset + narrow.len(),
            wide,
            |at, words: &[[u8; 8]]| {
                for (word, shared) in words.iter().zip(self.wide(at, words.len())) {
                    shared.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
                }
            },
            |at, mask, value| {
                let shared = &self.wide(at, 1)[0];
                shared.fetch_and(!u64::from_ne_bytes(mask), Ordering::Relaxed);
                shared.fetch_or(u64::from_ne_bytes(value), Ordering::Relaxed);
            },
        );
        Ok(())
    }

    /// The address of the wide word at `offset`, and of all that lies behind it.
    pub(super) fn wide_ptr(&self, offset: usize) -> NonNull<AtomicU64> {
        let words = (self.len_bytes - offset) / 8;
        NonNull::from(self.wide(offset, words)).cast()
    }

    /// The word at `offset`, if one that can be slept on lies there.
    pub(super) fn place(&self, offset: usize) -> Option<Place> {
        let has_word = offset.is_multiple_of(4) && offset < self.len_bytes.min(WORDS_END);
        has_word
            .then(|| Place { word: NonNull::from(&self.narrow(offset, 1)[0]), _keep: Arc::clone(&self.keep) })
    }

    fn assert_writable(&self) {
        // INVARIANT store-needs-write: a store to a read-only mapping would be a SIGSEGV without a name.
        assert!(self.access == Access::Write, "INVARIANT store-needs-write");
    }

    /// The `count` narrow words from `offset` on.
    #[allow(unsafe_code)]
    fn narrow(&self, offset: usize, count: usize) -> &[AtomicU32] {
        let words_end = self.len_bytes.min(WORDS_END);
        // INVARIANT narrow-in-view: offsets of words are the layout's; ranges of copies were checked.
        assert!(
            offset.is_multiple_of(4) && offset <= words_end && count <= (words_end - offset) / 4,
            "INVARIANT narrow-in-view: {count} words at {offset} of {words_end} bytes"
        );
        // SAFETY:
        // 1. `offset <= self.len_bytes` (check, above), which is at most `isize::MAX` (type: invariant 2).
        // 2. `base` is valid for `len_bytes` bytes of one mapping (type: invariant 1).
        let first = unsafe { self.base.add(offset) };
        // SAFETY:
        // 1. `offset + 4 * count <= self.len_bytes` (check, above); those bytes are valid for reads while `self` holds
        //    `keep`, and the slice lives no longer than `self` (type: invariant 1).
        // 2. The address is a multiple of 4 (type: invariant 2; check, above).
        // 3. `AtomicU32` has the size, the alignment and the valid values of `u32`; any bytes are one (core).
        // 4. The bytes are written meanwhile only atomically within this process (type: invariant 3; caller of `new`,
        //    2); other processes are the threat model's matter. `AtomicU32` is an `UnsafeCell`, so the slice asserts
        //    nothing about who writes, nor that writing is possible.
        unsafe { slice::from_raw_parts(first.cast::<AtomicU32>().as_ptr(), count) }
    }

    /// The `count` wide words from `offset` on.
    #[allow(unsafe_code)]
    fn wide(&self, offset: usize, count: usize) -> &[AtomicU64] {
        // INVARIANT wide-in-view: ranges of copies were checked and cut at `WORDS_END`.
        assert!(
            offset.is_multiple_of(8)
                && offset >= WORDS_END
                && offset <= self.len_bytes
                && count <= (self.len_bytes - offset) / 8,
            "INVARIANT wide-in-view: {count} words at {offset} of {} bytes",
            self.len_bytes
        );
        // SAFETY:
        // 1. `offset <= self.len_bytes` (check, above), which is at most `isize::MAX` (type: invariant 2).
        // 2. `base` is valid for `len_bytes` bytes of one mapping (type: invariant 1).
        let first = unsafe { self.base.add(offset) };
        // SAFETY:
        // 1. `offset + 8 * count <= self.len_bytes` (check, above); those bytes are valid for reads while `self` holds
        //    `keep`, and the slice lives no longer than `self` (type: invariant 1).
        // 2. The address is a multiple of 8 (type: invariant 2; check, above).
        // 3. `AtomicU64` has the size, on 64-bit machines the alignment, and the valid values of `u64` (core).
        // 4. As in `narrow`, 4.
        unsafe { slice::from_raw_parts(first.cast::<AtomicU64>().as_ptr(), count) }
    }
}

/// A word, without the way to it: what loads it on the hot path asks for nothing more.
///
/// # Invariants
/// 1. `word` lies in the memory that `_keep` keeps mapped.
#[derive(Clone, Debug)]
pub(super) struct Place {
    word: NonNull<AtomicU32>,
    _keep: Arc<dyn Any + Send + Sync>,
}

// SAFETY: as for `View`, whose memory and `_keep` it has; the word is accessed by atomics alone.
#[allow(unsafe_code)]
unsafe impl Send for Place {}

// SAFETY: as above; no method needs exclusive access.
#[allow(unsafe_code)]
unsafe impl Sync for Place {}

impl Place {
    pub(super) fn as_ptr(&self) -> *const u32 {
        self.word.as_ptr().cast_const().cast()
    }

    #[inline]
    pub(super) fn word(&self) -> &AtomicU32 {
        // SAFETY: it lives as long as `_keep` (type: invariant 1); `AtomicU32` may be shared with whoever stores it.
        #[allow(unsafe_code)]
        unsafe {
            self.word.as_ref()
        }
    }
}

/// Memory of which this process is the one writer, held in one place: what is written in place is written here.
///
/// # Invariants
/// 1. No view of what lies behind the first page leaves this crate: there references are lent.
#[derive(Debug)]
pub struct Own {
    all: View,
    words: View,
}

impl Own {
    /// As [`View::new`] with [`Access::Write`].
    ///
    /// # Safety
    ///
    /// 1. As for [`View::new`].
    /// 2. No other view of that mapping is used within this process, and no other process can write the memory.
    #[allow(unsafe_code)]
    pub unsafe fn new(base: NonNull<u8>, len_bytes: usize, keep: Arc<dyn Any + Send + Sync>) -> Option<Own> {
        // SAFETY: the caller's promise.
        let view = unsafe { View::new(base, len_bytes, Access::Write, keep) };
        view.map(Own::over)
    }

    /// Of memory that a test also forges. The test does so only while nothing is written in place.
    #[cfg(test)]
    pub(crate) fn of(view: View) -> Own {
        Own::over(view)
    }

    /// A window on its words, which end with the first page.
    pub fn view(&self) -> &View {
        &self.words
    }

    /// A window on all of it, for the side of the lane that lends parts of it.
    pub(crate) fn all(&self) -> &View {
        &self.all
    }

    fn over(all: View) -> Own {
        let len_bytes = all.len_bytes.min(WORDS_END);
        let words = View { len_bytes, ..all.clone() };
        Own { all, words }
    }
}

/// How many of `len` bytes from `offset` on lie below `WORDS_END`.
fn narrow_bytes(offset: usize, len: usize) -> usize {
    WORDS_END.saturating_sub(offset).min(len)
}
