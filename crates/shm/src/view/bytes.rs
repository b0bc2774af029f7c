//! Copies between a ring and private memory, in whole words and as fast as the machine copies.
//!
//! On x86-64 by instructions that Rust has no name for: 16 bytes at a time, and by the string instruction where that is
//! worth its start. To the compiler it is as if single bytes were loaded and stored by relaxed atomics, whatever another
//! process does to them meanwhile; to the machine it is the fastest way that needs no alignment. Elsewhere, and under Miri,
//! or where a sanitizer is to see the copies (`--cfg keyway_plain_copies`), word by word with relaxed atomics.

use core::sync::atomic::AtomicU64;
#[cfg(not(all(target_arch = "x86_64", not(miri), not(keyway_plain_copies))))]
use core::sync::atomic::Ordering;

/// Bytes of a word.
const WORD: usize = 8;
/// Bytes that are loaded into registers at a time.
pub(super) const LINE_BYTES: usize = 64;

/// Loads a line out of memory that another process may be writing, into registers: what is made of it the compiler may do there,
/// many bytes at a time.
///
/// # Safety
///
/// `from` is aligned and valid for reads of a line's words; within this process they are stored by atomics only.
#[allow(unsafe_code)]
#[inline(always)]
pub(super) unsafe fn load_line(from: *const AtomicU64) -> [u8; LINE_BYTES] {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use core::arch::{asm, x86_64::__m128i};
        let (first, second, third, fourth): (__m128i, __m128i, __m128i, __m128i);
        // SAFETY: reads the bytes that the caller vouches for.
        unsafe {
            asm!(
                "movups {first}, [{from}]",
                "movups {second}, [{from} + 16]",
                "movups {third}, [{from} + 32]",
                "movups {fourth}, [{from} + 48]",
                from = in(reg) from,
                first = out(xmm_reg) first,
                second = out(xmm_reg) second,
                third = out(xmm_reg) third,
                fourth = out(xmm_reg) fourth,
                options(nostack, preserves_flags, readonly)
            );
        }
        // SAFETY: four times 16 bytes, of which any are valid.
        unsafe { core::mem::transmute::<[__m128i; 4], [u8; LINE_BYTES]>([first, second, third, fourth]) }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    {
        let mut line = [0; LINE_BYTES];
        for (index, word) in line.chunks_exact_mut(WORD).enumerate() {
            // SAFETY: within the words that are valid (caller).
            word.copy_from_slice(&unsafe { (*from.add(index)).load(Ordering::Relaxed) }.to_ne_bytes());
        }
        line
    }
}

/// Copies `words` words out of memory that another process may be writing.
///
/// # Safety
///
/// 1. `from` is aligned and valid for reads of so many words; within this process they are stored by atomics only.
/// 2. `to` is valid for writes of as many bytes, and nobody else has them.
#[allow(unsafe_code)]
#[inline(always)]
pub(super) unsafe fn copy_out(from: *const AtomicU64, to: *mut u8, words: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri), not(keyway_plain_copies)))]
    // SAFETY: the caller's promise, of whole words.
    unsafe {
        copy_words(from.cast(), to, words);
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri), not(keyway_plain_copies))))]
    for index in 0..words {
        // SAFETY: within the words that are valid (caller, 1).
        let word = unsafe { (*from.add(index)).load(Ordering::Relaxed) };
        // SAFETY: within the bytes that are valid (caller, 2); no alignment is needed.
        unsafe { to.add(index * WORD).cast::<u64>().write_unaligned(word) };
    }
}

/// Copies `words` words into memory that other processes may be reading.
///
/// # Safety
///
/// 1. `from` is valid for reads of so many words' bytes, which nobody writes meanwhile.
/// 2. `to` is aligned and valid for writes of so many words, which only this process writes.
#[allow(unsafe_code)]
#[inline(always)]
pub(super) unsafe fn copy_in(from: *const u8, to: *const AtomicU64, words: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri), not(keyway_plain_copies)))]
    // SAFETY: the caller's promise, of whole words.
    unsafe {
        copy_words(from, to.cast_mut().cast(), words);
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri), not(keyway_plain_copies))))]
    for index in 0..words {
        // SAFETY: within the bytes that are valid (caller, 1); no alignment is needed.
        let word = unsafe { from.add(index * WORD).cast::<u64>().read_unaligned() };
        // SAFETY: within the words that are valid (caller, 2).
        unsafe { (*to.add(index)).store(word, Ordering::Relaxed) };
    }
}

/// As [`copy_in`], of what was perhaps stored just before: word by word, as a processor hands on what it has not yet stored only to
/// a load that asks for no more than one store has written.
///
/// # Safety
///
/// As for [`copy_in`].
#[allow(unsafe_code)]
#[inline(always)]
pub(super) unsafe fn copy_new_in(from: *const u8, to: *const AtomicU64, words: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri), not(keyway_plain_copies)))]
    // SAFETY: the caller's promise, of whole words.
    unsafe {
        copy_narrow(from, to.cast_mut().cast(), words);
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri), not(keyway_plain_copies))))]
    // SAFETY: the caller's promise.
    unsafe {
        copy_in(from, to, words);
    }
}

/// Has the processor fetch a line for this core alone, so that a later store to it need not wait. Changes no memory.
///
/// # Safety
///
/// `word` is valid for writes.
#[allow(unsafe_code)]
#[inline(always)]
pub(super) unsafe fn fetch_to_write(word: *const AtomicU64) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: fetches a line that the caller vouches for; a processor without the instruction takes it for none.
    unsafe {
        core::arch::asm!("prefetchw [{word}]", word = in(reg) word, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = word;
}

/// Has the processor fetch a line to be read, without waiting for it. Changes no memory.
#[inline(always)]
pub(super) fn fetch_to_read(word: &AtomicU64) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: fetches a line that can be read.
    #[allow(unsafe_code)]
    unsafe {
        core::arch::asm!("prefetcht0 [{word}]", word = in(reg) word, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    core::hint::black_box(word.load(core::sync::atomic::Ordering::Relaxed));
}

/// From so many words on, the string instruction is faster than pairs of words.
#[cfg(all(target_arch = "x86_64", not(miri), not(keyway_plain_copies)))]
const STRING_WORDS_MIN: usize = 64;

/// # Safety
///
/// `from` is valid for reads and `to` for writes of so many words' bytes, which do not overlap.
#[cfg(all(target_arch = "x86_64", not(miri), not(keyway_plain_copies)))]
#[allow(unsafe_code)]
#[inline(always)]
unsafe fn copy_words(from: *const u8, to: *mut u8, words: usize) {
    use core::arch::asm;
    if words >= STRING_WORDS_MIN {
        // SAFETY: reads and writes the bytes that the caller vouches for; the direction flag is clear at each call (ABI).
        unsafe {
            asm!(
                "rep movsb",
                inout("rcx") words * WORD => _,
                inout("rsi") from => _,
                inout("rdi") to => _,
                options(nostack, preserves_flags)
            );
        }
        return;
    }
    let (mut from, mut to) = (from, to);
    for _ in 0..words / 8 {
        // SAFETY: the next eight words of those, before which the pointers are.
        unsafe {
            asm!(
                "movups {a}, [{from}]",
                "movups {b}, [{from} + 16]",
                "movups {c}, [{from} + 32]",
                "movups {d}, [{from} + 48]",
                "movups [{to}], {a}",
                "movups [{to} + 16], {b}",
                "movups [{to} + 32], {c}",
                "movups [{to} + 48], {d}",
                a = out(xmm_reg) _,
                b = out(xmm_reg) _,
                c = out(xmm_reg) _,
                d = out(xmm_reg) _,
                from = in(reg) from,
                to = in(reg) to,
                options(nostack, preserves_flags)
            );
        }
        (from, to) = (from.wrapping_add(8 * WORD), to.wrapping_add(8 * WORD));
    }
    for _ in 0..words % 8 / 2 {
        // SAFETY: the next two words of those.
        unsafe {
            asm!(
                "movups {both}, [{from}]",
                "movups [{to}], {both}",
                both = out(xmm_reg) _,
                from = in(reg) from,
                to = in(reg) to,
                options(nostack, preserves_flags)
            );
        }
        (from, to) = (from.wrapping_add(2 * WORD), to.wrapping_add(2 * WORD));
    }
    if !words.is_multiple_of(2) {
        // SAFETY: reads and writes the last word of those bytes.
        unsafe {
            asm!(
                "mov {word}, [{from}]",
                "mov [{to}], {word}",
                word = out(reg) _,
                from = in(reg) from,
                to = in(reg) to,
                options(nostack, preserves_flags)
            );
        }
    }
}

/// As `copy_words`, four words at a time.
///
/// # Safety
///
/// As for `copy_words`.
#[cfg(all(target_arch = "x86_64", not(miri), not(keyway_plain_copies)))]
#[allow(unsafe_code)]
#[inline(always)]
unsafe fn copy_narrow(from: *const u8, to: *mut u8, words: usize) {
    use core::arch::asm;
    if words >= STRING_WORDS_MIN {
        // SAFETY: the caller's promise.
        unsafe { copy_words(from, to, words) };
        return;
    }
    let (mut from, mut to) = (from, to);
    for _ in 0..words / 4 {
        // SAFETY: the next four words of those that the caller vouches for, before which the pointers are.
        unsafe {
            asm!(
                "mov {a}, [{from}]",
                "mov {b}, [{from} + 8]",
                "mov {c}, [{from} + 16]",
                "mov {d}, [{from} + 24]",
                "mov [{to}], {a}",
                "mov [{to} + 8], {b}",
                "mov [{to} + 16], {c}",
                "mov [{to} + 24], {d}",
                a = out(reg) _,
                b = out(reg) _,
                c = out(reg) _,
                d = out(reg) _,
                from = in(reg) from,
                to = in(reg) to,
                options(nostack, preserves_flags)
            );
        }
        (from, to) = (from.wrapping_add(4 * WORD), to.wrapping_add(4 * WORD));
    }
    for _ in 0..words % 4 {
        // SAFETY: the next word of those.
        unsafe {
            asm!(
                "mov {word}, [{from}]",
                "mov [{to}], {word}",
                word = out(reg) _,
                from = in(reg) from,
                to = in(reg) to,
                options(nostack, preserves_flags)
            );
        }
        (from, to) = (from.wrapping_add(WORD), to.wrapping_add(WORD));
    }
}
