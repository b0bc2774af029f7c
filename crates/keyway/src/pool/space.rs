//! Which parts of a pool are free: pieces by where they begin, neighbours always joined.
//!
//! # Invariants
//! 1. No two pieces here are neighbours.

use std::collections::BTreeMap;

use keyway_sys::memory::Piece;

/// See the module.
#[derive(Debug)]
pub(super) struct Space {
    free: BTreeMap<usize, Piece>,
}

/// Blocks begin at multiples of so many bytes: a line of the machine's caches.
const ALIGN_BYTES: usize = 64;

impl Space {
    pub(super) fn new(whole: Piece) -> Self {
        Space { free: BTreeMap::from([(whole.offset(), whole)]) }
    }

    /// How large the piece for `len` bytes is; `None` for more than there can be.
    pub(super) fn piece_bytes(len: usize) -> Option<usize> {
        len.max(1).checked_next_multiple_of(ALIGN_BYTES)
    }

    /// A piece of at least `len` bytes: the first that there is room for, so that little memory is used if little is enough.
    pub(super) fn take(&mut self, len: usize) -> Option<Piece> {
        let len = Self::piece_bytes(len)?;
        let offset = self.free.values().find(|piece| piece.len() >= len)?.offset();
        let mut rest = self.free.remove(&offset)?;
        let piece = rest.split_to(len);
        if !rest.is_empty() {
            self.free.insert(rest.offset(), rest);
        }
        piece
    }

    /// Takes a piece back.
    pub(super) fn put(&mut self, mut piece: Piece) {
        if let Some(next) = self.free.remove(&(piece.offset() + piece.len()))
            && let Err(next) = piece.join(next)
        {
            self.free.insert(next.offset(), next);
        }
        if let Some((_, before)) = self.free.range_mut(..piece.offset()).next_back() {
            match before.join(piece) {
                Ok(()) => return,
                Err(apart) => piece = apart,
            }
        }
        self.free.insert(piece.offset(), piece);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use keyway_sys::memory::{Mapping, create_memory};
    use proptest::prelude::*;

    use super::*;

    const CELLS: usize = 64;

    fn space() -> Space {
        let bytes = CELLS * ALIGN_BYTES;
        let memory = create_memory("space", bytes).unwrap();
        Space::new(Mapping::piece(memory, bytes).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Against a row of cells: what is lent where, that nothing overlaps, and that all comes together again.
        #[test]
        fn what_is_lent_is_what_a_row_of_cells_lends(
            steps in prop::collection::vec((any::<bool>(), 0..20 * ALIGN_BYTES, any::<prop::sample::Index>()), 1..120),
        ) {
            let mut space = space();
            let mut cells = [false; CELLS];
            let mut lent: Vec<(u8, Piece)> = Vec::new();
            for (number, (gives_back, len, which)) in steps.into_iter().enumerate() {
                if gives_back && !lent.is_empty() {
                    let (mark, piece) = lent.swap_remove(which.index(lent.len()));
                    prop_assert!(piece.iter().all(|byte| *byte == mark), "nobody else wrote there");
                    let first = piece.offset() / ALIGN_BYTES;
                    cells[first..first + piece.len() / ALIGN_BYTES].fill(false);
                    space.put(piece);
                    continue;
                }
                let count = len.max(1).div_ceil(ALIGN_BYTES);
                let first = (0..=CELLS - count).find(|first| !cells[*first..first + count].contains(&true));
                let taken = space.take(len);
                prop_assert_eq!(taken.as_ref().map(|piece| piece.offset() / ALIGN_BYTES), first);
                if let (Some(mut piece), Some(first)) = (taken, first) {
                    prop_assert_eq!(piece.len(), count * ALIGN_BYTES);
                    cells[first..first + count].fill(true);
                    piece.fill(number as u8);
                    lent.push((number as u8, piece));
                }
            }
            for (mark, piece) in lent {
                prop_assert!(piece.iter().all(|byte| *byte == mark), "nobody else wrote there");
                space.put(piece);
            }
            prop_assert_eq!(space.free.len(), 1);
            prop_assert!(space.take(CELLS * ALIGN_BYTES).is_some());
        }
    }
}
