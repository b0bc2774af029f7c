//! A piece of memory that only this process writes, as a slice: exclusive, and divisible.
//!
//! ```text
//!  |                whole                 |
//!  |   split_to   |         rest          |     join puts two neighbours together again
//! ```
//!
//! Who has a piece has its bytes, and nobody else in this process does: a piece cannot be cloned, and dividing one gives
//! two that do not overlap. So nobody who lends pieces out has to be trusted to do that right. Other processes read the
//! memory at any moment, which changes nothing here.
//!
//! # Invariants
//! 1. `base` is valid for reads and writes of `len` bytes while `keep` lives.
//! 2. No other piece and no view of this process covers any of these bytes.
//! 3. `offset` is where the piece begins in the memory of `keep`, and pieces with the same `keep` lie in one mapping.

use alloc::sync::Arc;
use core::{
    any::Any,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    slice,
};

/// See the module.
#[derive(Debug)]
pub struct Piece {
    base: NonNull<u8>,
    offset: usize,
    len: usize,
    keep: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the bytes are this value's alone (type: invariant 2), and `keep` is `Send` and `Sync`.
#[allow(unsafe_code)]
unsafe impl Send for Piece {}

// SAFETY: through a shared reference the bytes are only read.
#[allow(unsafe_code)]
unsafe impl Sync for Piece {}

impl Piece {
    /// The piece that is all of the `len` bytes at `base`. `None` when that is more than Rust allows for one object.
    ///
    /// # Safety
    ///
    /// 1. `base` is valid for reads and writes of `len` bytes, all initialised, for as long as `keep` lives.
    /// 2. Within this process they are accessed by nothing but what is made of this piece, and no other process writes
    ///    them. `keep` is the keeper of no other piece.
    #[allow(unsafe_code)]
    pub unsafe fn whole(base: NonNull<u8>, len: usize, keep: Arc<dyn Any + Send + Sync>) -> Option<Piece> {
        isize::try_from(len).ok().map(|_| Piece { base, offset: 0, len, keep })
    }

    /// Where it begins in its memory.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Takes its first `len` bytes off, as a piece of their own. `None` when it has not so many; it is unchanged then.
    pub fn split_to(&mut self, len: usize) -> Option<Piece> {
        let rest_len = self.len.checked_sub(len)?;
        let first = Piece { base: self.base, offset: self.offset, len, keep: Arc::clone(&self.keep) };
        // SAFETY: `len <= self.len` (check, above), which `base` is valid for (type: invariant 1).
        #[allow(unsafe_code)]
        let base = unsafe { self.base.add(len) };
        (self.base, self.offset, self.len) = (base, self.offset + len, rest_len);
        Some(first)
    }

    /// Puts its neighbour behind it to it again.
    ///
    /// # Errors
    ///
    /// The other piece, when it does not begin where this one ends, or is of another memory.
    pub fn join(&mut self, next: Piece) -> Result<(), Piece> {
        let is_neighbour = Arc::ptr_eq(&self.keep, &next.keep) && self.offset + self.len == next.offset;
        if !is_neighbour {
            return Err(next);
        }
        self.len += next.len;
        Ok(())
    }
}

impl Deref for Piece {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY:
        // 1. Valid for so many bytes while `self` holds `keep` (type: invariant 1), at most `isize::MAX` (check: `whole`).
        // 2. Nobody writes them: this process would need `&mut self` (type: invariant 2), and no other can.
        #[allow(unsafe_code)]
        unsafe {
            slice::from_raw_parts(self.base.as_ptr(), self.len)
        }
    }
}

impl DerefMut for Piece {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `self` is borrowed exclusively, so nobody in this process reads them either.
        #[allow(unsafe_code)]
        unsafe {
            slice::from_raw_parts_mut(self.base.as_ptr(), self.len)
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::{boxed::Box, vec};

    use super::*;

    fn memory(len: usize) -> Piece {
        let mut keep = Arc::new(vec![0_u8; len].into_boxed_slice());
        let base = Arc::<Box<[u8]>>::get_mut(&mut keep).expect("nobody else has it").as_mut_ptr();
        let base = NonNull::new(base).expect("a box has an address");
        // SAFETY: the box lives in `keep`, and nobody but the piece has its address.
        #[allow(unsafe_code)]
        let piece = unsafe { Piece::whole(base, len, keep) };
        piece.expect("a box is an object")
    }

    #[test]
    fn parts_do_not_overlap_and_make_the_whole_again() {
        let mut third = memory(96);
        let mut first = third.split_to(32).expect("there are so many");
        let mut second = third.split_to(32).expect("there are so many");
        assert!(third.split_to(33).is_none());
        first.fill(1);
        second.fill(2);
        third.fill(3);
        assert_eq!((first.offset(), second.offset(), third.offset()), (0, 32, 64));
        let third = first.join(third).expect_err("not its neighbour");
        assert!(second.join(third).is_ok() && first.join(second).is_ok());
        assert_eq!(first.len(), 96);
        for (at, byte) in first.iter().enumerate() {
            assert_eq!(usize::from(*byte), at / 32 + 1);
        }
    }

    #[test]
    fn pieces_of_two_memories_are_no_neighbours() {
        let (mut first, mut other) = (memory(64), memory(64));
        let rest = other.split_to(32).map(|_| other).expect("there are so many");
        let mut half = first.split_to(32).expect("there are so many");
        assert!(half.join(rest).is_err());
        assert!(half.join(first).is_ok());
    }
}
