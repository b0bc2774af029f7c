//! Memory that both sides of a run have mapped, seen as cache lines.
//!
//! The bare systems are built on it. It is for honest sides only: nothing here judges what the other one wrote. The last
//! lines belong to the sides' meetings.
//!
//! # Invariants
//! 1. `base` is the start of a shared, readable and writable mapping of `MEMORY_BYTES` bytes that lasts as long as
//!    the value, page-aligned.

use std::{
    ffi::c_void,
    fs::File,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, AtomicU64},
};

use rustix::mm::{self, MapFlags, ProtFlags};

use crate::Result;

pub(crate) const MEMORY_BYTES: usize = 16 << 20;
pub(crate) const LINE_BYTES: usize = 64;
pub(crate) const LINES: usize = MEMORY_BYTES / LINE_BYTES;
/// From here on, lines are the meetings'.
pub(crate) const MEETING_LINE: usize = LINES - 4;

pub(crate) struct Memory {
    base: NonNull<c_void>,
}

impl Memory {
    pub(crate) fn map(file: &File) -> Result<Self> {
        let file_bytes = file.metadata()?.len();
        if file_bytes != MEMORY_BYTES as u64 {
            return Err(format!("the shared memory has {file_bytes} bytes, not {MEMORY_BYTES}").into());
        }
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a null hint lets the kernel choose addresses that nothing else uses.
        let base = unsafe { mm::mmap(ptr::null_mut(), MEMORY_BYTES, protection, flags, file, 0) }?;
        Ok(Self { base: NonNull::new(base).ok_or("mmap answered null")? })
    }

    /// The first eight bytes of a line.
    pub(crate) fn word(&self, line: usize) -> &AtomicU64 {
        // SAFETY:
        // 1. The line lies in the mapping, which outlives the borrow (check in `lines`; type: invariant 1).
        // 2. A line is 64-aligned (check in `lines`), and every bit pattern is an `AtomicU64`.
        // 3. Lines used as words are only accessed as atomics (each system lays out its lines so).
        unsafe { AtomicU64::from_ptr(self.lines(line, 1).as_ptr().cast()) }
    }

    /// The first four bytes of a line, for the kernel to wait on.
    pub(crate) fn futex_word(&self, line: usize) -> &AtomicU32 {
        // SAFETY: as in `word`; four bytes at a 64-aligned address.
        unsafe { AtomicU32::from_ptr(self.lines(line, 1).as_ptr().cast()) }
    }

    /// Where `count` lines begin.
    pub(crate) fn lines(&self, first: usize, count: usize) -> NonNull<u8> {
        assert!(first <= LINES && count <= LINES - first, "{count} lines from {first} on, of {LINES}");
        // SAFETY: `first * 64` is at most `MEMORY_BYTES` (check above), the length of the mapping (type: invariant 1).
        let start = unsafe { self.base.byte_add(first * LINE_BYTES) };
        start.cast()
    }

    /// Has the kernel put so many lines' pages in place, so that no run begins with page faults.
    pub(crate) fn populate(&self, count: usize) -> Result<()> {
        let (start, bytes) = (self.lines(0, count), count * LINE_BYTES);
        // SAFETY: the lines lie in the mapping (check in `lines`); their contents stay as they are.
        unsafe { mm::madvise(start.as_ptr().cast(), bytes, mm::Advice::LinuxPopulateWrite) }?;
        Ok(())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing borrows from it any more (type: invariant 1). A failure leaks it.
        let _ = unsafe { mm::munmap(self.base.as_ptr(), MEMORY_BYTES) };
    }
}
