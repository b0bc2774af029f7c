//! Where the bytes of a position lie in ring memory, and copies that go on at the beginning when they meet the end.
//!
//! Knows nothing of records, of who may write, or of what is committed.

use keyway_abi::layout;

use crate::{
    lane::LaneShapeError,
    view::{Access, View},
};

/// The part of ring memory that holds records.
///
/// # Invariants
/// 1. `view` is exactly `RECORDS_OFFSET + ring_bytes` long.
/// 2. `ring_bytes` is a power of two between the layout's bounds.
#[derive(Debug)]
pub(super) struct Ring {
    view: View,
    ring_bytes: u32,
}

/// Loom pays for each word, so its rings are as small as two records.
const BYTES_MIN: u32 = if cfg!(loom) { 32 } else { layout::RING_BYTES_MIN };

impl Ring {
    /// Judges the two memories of a lane against the size that the caller was told by the broker.
    pub(super) fn new(view: View, ack: &View, ring_bytes: u32) -> Result<Self, LaneShapeError> {
        let bounds = BYTES_MIN..=layout::RING_BYTES_MAX;
        if !bounds.contains(&ring_bytes) || !ring_bytes.is_power_of_two() {
            return Err(LaneShapeError::RingBytes {
                asked_bytes: ring_bytes,
                bytes_min: BYTES_MIN,
                bytes_max: layout::RING_BYTES_MAX,
            });
        }
        let needed_bytes = layout::RECORDS_OFFSET + ring_bytes as usize;
        if view.len_bytes() != needed_bytes {
            return Err(LaneShapeError::RingMemory { len_bytes: view.len_bytes(), needed_bytes });
        }
        if ack.len_bytes() < layout::PAGE_BYTES {
            let needed_bytes = layout::PAGE_BYTES;
            return Err(LaneShapeError::AcknowledgementMemory { len_bytes: ack.len_bytes(), needed_bytes });
        }
        Ok(Self { view, ring_bytes })
    }

    /// How many bytes of records the ring holds.
    pub(super) fn bytes(&self) -> u32 {
        self.ring_bytes
    }

    /// The whole memory, for its words.
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// Copies the bytes from `position` on out of the ring.
    pub(super) fn read(&self, position: u32, out: &mut [u8]) {
        let (first_offset, first_bytes) = self.place(position, out.len());
        let (first, second) = out.split_at_mut(first_bytes);
        for (offset, part) in [(first_offset, first), (layout::RECORDS_OFFSET, second)] {
            let copied = self.view.copy_out(offset, part);
            // INVARIANT ring-in-view: `place` stays inside the ring, which is inside the view (type: invariant 1).
            copied.expect("INVARIANT ring-in-view");
        }
    }

    /// Copies `bytes` into the ring from `position` on, and zeroes up to the end of the last word: nothing of an
    /// earlier record stays in the padding, and no word is stored in part.
    pub(super) fn write(&self, position: u32, bytes: &[u8]) {
        const WORD: usize = layout::RECORD_ALIGN_BYTES;
        let (words, rest) = bytes.split_at(bytes.len() - bytes.len() % WORD);
        self.write_words(position, words);
        if !rest.is_empty() {
            let mut last = [0; WORD];
            last[..rest.len()].copy_from_slice(rest);
            self.write_words(position.wrapping_add(words.len() as u32), &last);
        }
    }

    fn write_words(&self, position: u32, bytes: &[u8]) {
        let (first_offset, first_bytes) = self.place(position, bytes.len());
        let (first, second) = bytes.split_at(first_bytes);
        for (offset, part) in [(first_offset, first), (layout::RECORDS_OFFSET, second)] {
            let copied = self.view.copy_in(offset, part);
            // INVARIANT ring-in-view: as in `read`.
            copied.expect("INVARIANT ring-in-view");
        }
    }

    /// The offset of `position` in the view, and how many of `len` bytes fit before the ring's end.
    fn place(&self, position: u32, len: usize) -> (usize, usize) {
        let within = position & (self.ring_bytes - 1);
        let before_end = (self.ring_bytes - within) as usize;
        // INVARIANT record-fits-ring: callers have judged the length against the ring.
        assert!(len <= self.ring_bytes as usize, "INVARIANT record-fits-ring");
        (layout::RECORDS_OFFSET + within as usize, len.min(before_end))
    }
}

/// Refuses a view that its side of the lane must write and cannot.
pub(super) fn check_writable(view: &View) -> Result<(), LaneShapeError> {
    match view.access() {
        Access::Write => Ok(()),
        Access::Read => Err(LaneShapeError::NotWritable),
    }
}
