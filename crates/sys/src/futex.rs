//! Sleeping on words of shared memory, and waking those who sleep on them.
//!
//! A sleeper only reads the words, so its mappings may be read-only. The words are named by file and offset, not by
//! address: sleeper and waker each use a mapping of their own, in the same process or another.

use std::time::Duration;

use keyway_shm::Word;
use rustix::{
    io::Errno,
    thread::{
        ClockId,
        futex::{self, WaitFlags, WaitPtr, WaitvFlags},
    },
};

use crate::{Error, clock};

/// The most words that one sleep can watch; Linux has the same limit.
pub const WORDS_MAX: usize = 128;

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Somebody woke a word, or a signal came: look at the words again.
    Woken,
    /// The time is over.
    TimedOut,
    /// A word did not hold the expected value, and there was no sleep.
    Changed,
}

/// Sleeps until one of the words is woken, at most for `timeout`, unless one of them differs from its expected value:
/// `futex_waitv`, see `futex2` in the kernel's documentation.
///
/// A wake can be spurious; the caller looks at the words and decides.
///
/// # Errors
/// `EINVAL` for no words or more than [`WORDS_MAX`], `ENOMEM`, and `ENOSYS` before Linux 5.16.
pub fn wait(words: &[(&Word, u32)], timeout: Duration) -> Result<Woken, Error> {
    if words.len() > WORDS_MAX {
        return Err(Error { call: "futex_waitv", errno: Errno::INVAL });
    }
    let mut waits = [futex::Wait::new(); WORDS_MAX];
    for (wait, (word, expected)) in waits.iter_mut().zip(words) {
        wait.val = u64::from(*expected);
        wait.uaddr = WaitPtr::new(word.as_ptr().cast_mut().cast());
        // Without `PRIVATE` the word is named by file and offset.
        wait.flags = WaitFlags::SIZE_U32;
    }
    let nanoseconds = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    let deadline = clock::timespec(Duration::from_nanos(clock::now_ns().saturating_add(nanoseconds)));
    match futex::waitv(&waits[..words.len()], WaitvFlags::empty(), Some(&deadline), ClockId::Monotonic) {
        Ok(_) | Err(Errno::INTR) => Ok(Woken::Woken),
        Err(Errno::AGAIN) => Ok(Woken::Changed),
        Err(Errno::TIMEDOUT) => Ok(Woken::TimedOut),
        Err(errno) => Err(Error { call: "futex_waitv", errno }),
    }
}

/// Wakes at most `count` of those who sleep on the word and tells how many: `FUTEX_WAKE` in `futex(2)`.
///
/// What the sleeper is to see must be stored, with release order or stronger, before this call.
///
/// # Errors
/// None for a word that is mapped.
pub fn wake(word: &Word, count: u32) -> Result<usize, Error> {
    // Linux wakes one even when none is asked for.
    if count == 0 {
        return Ok(0);
    }
    let count = count.min(i32::MAX.unsigned_abs());
    // SAFETY:
    // 1. The kernel neither reads nor writes the word for `FUTEX_WAKE`; it looks up its page (futex(2)).
    // 2. The word is mapped while it is borrowed (type: `Word`).
    let woken = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, count) };
    usize::try_from(woken).map_err(|_| Error::last("futex(FUTEX_WAKE)"))
}

#[cfg(test)]
mod tests;
