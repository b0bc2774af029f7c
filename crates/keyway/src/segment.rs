//! Segments: what a message names instead of carrying it, and how a message says so.
//!
//! ```text
//!  payload of a message with segments (all numbers little-endian, everything a multiple of 8 bytes):
//!  call number: u64    of a call or an answer only
//!  head: u64           bits 0 to 7 the count of segments, 8 to 15 of regions that it brings, 16: the first segment is the payload
//!  regions             each u64: bits 0 to 31 the place, 32: it is frozen; its capability is the message's, behind the user's
//!  segments            each 24 bytes: offset u64, length u64, place u16, slot u16, generation u32
//!  the user's bytes
//! ```
//!
//! A place is the number by which one lane's later messages name a region. All of this is its sender's allegation and judged
//! against what is mapped, once, on a private copy.

use std::sync::{Arc, atomic::Ordering};

use keyway_abi::{
    LaneId, ProcessNumber,
    layout::{PAYLOAD_MAX_OFFSET, RELEASE_SLOTS, RELEASE_WAITING_BY_DOORBELL, RELEASE_WAITING_BY_FUTEX},
    limits::{MESSAGE_SEGMENTS_MAX, SEGMENT_PAYLOAD_BYTES_MAX, SEGMENT_REGIONS_MAX},
};
use keyway_shm::{OutOfView, View, Word, releases};
use keyway_sys::futex;

use crate::{
    control::Control,
    fault::SegmentFault,
    region::{FrozenRegion, RegionReader},
};

/// Bytes that a message names and does not carry: they lie in memory that its sender lends. Dropping the segment releases it; the
/// sender then writes that memory anew.
///
/// While the sender keeps its promise the bytes do not change before that. One that does not, or whose lane has ended on this side,
/// can change them at any moment; so they are copied out or read piece by piece, unless the region is frozen.
#[derive(Debug)]
pub struct Segment {
    memory: SegmentMemory,
    offset: usize,
    len: usize,
    _release: Option<Release>,
}

/// A region that a lane's sender has brought, as it is mapped here.
#[derive(Clone, Debug)]
pub(crate) enum SegmentMemory {
    Live(Arc<RegionReader>),
    Frozen(Arc<FrozenRegion>),
}

/// How the sender is told that a segment is read.
#[derive(Debug)]
struct Release {
    desk: Arc<ReleaseDesk>,
    slot: u16,
    generation: u32,
}

/// Where a lane's segments are released.
#[derive(Debug)]
pub(crate) struct ReleaseDesk {
    /// Ours.
    pub(crate) ack: View,
    /// The sender's: how it waits for a release.
    pub(crate) waits: Word,
    /// By what to ring, and for whom.
    pub(crate) control: Arc<Control>,
    pub(crate) sender: ProcessNumber,
    pub(crate) lane: LaneId,
}

impl Segment {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies the bytes from `offset` on out.
    ///
    /// # Errors
    /// [`OutOfView`] beyond its end; nothing was copied.
    pub fn copy_out(&self, offset: usize, out: &mut [u8]) -> Result<(), OutOfView> {
        let at = self.check(offset, out.len())?;
        match &self.memory {
            SegmentMemory::Live(region) => region.read(at, out),
            SegmentMemory::Frozen(region) => {
                out.copy_from_slice(&region[at..at + out.len()]);
                Ok(())
            }
        }
    }

    /// All of its bytes, copied out.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.copy_into(&mut bytes);
        bytes
    }

    /// The bytes in place, if its region is frozen, so that nobody changes them. [`Segment::read`] reads the others in place.
    pub fn as_slice(&self) -> Option<&[u8]> {
        match &self.memory {
            SegmentMemory::Live(_) => None,
            SegmentMemory::Frozen(region) => Some(&region[self.offset..self.offset + self.len]),
        }
    }

    /// Hands all bytes to `each`, in order and in pieces: of a frozen region all at once, of a live one 64 bytes at a time in
    /// registers of this process, and fewer at its ends. As fast as reading the memory is, and needs none of its own.
    ///
    /// ```no_run
    /// # fn sum(segment: &keyway::Segment) -> u64 {
    /// let mut sum = 0;
    /// segment.read(|piece| sum += piece.iter().map(|byte| u64::from(*byte)).sum::<u64>());
    /// # sum
    /// # }
    /// ```
    #[inline]
    pub fn read(&self, mut each: impl FnMut(&[u8])) {
        match &self.memory {
            SegmentMemory::Live(region) => {
                // It was judged against this very region, whose size does not change.
                let _ = region.read_lines(self.offset, self.len, each);
            }
            SegmentMemory::Frozen(region) => each(&region[self.offset..self.offset + self.len]),
        }
    }

    /// Copies all of it in place of what `out` held, or as much as that is long already.
    pub(crate) fn copy_into(&self, out: &mut Vec<u8>) {
        out.resize(self.len, 0);
        // As long as it is.
        let _ = self.copy_out(0, out);
    }

    fn check(&self, offset: usize, asked_bytes: usize) -> Result<usize, OutOfView> {
        match offset.checked_add(asked_bytes) {
            Some(end) if end <= self.len => Ok(self.offset + offset),
            _ => Err(OutOfView { offset, asked_bytes, len_bytes: self.len }),
        }
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        let ReleaseDesk { ack, waits, control, sender, lane } = &*self.desk;
        let by = releases::release(ack, waits, self.slot, self.generation);
        if by & RELEASE_WAITING_BY_FUTEX != 0
            && let Some(word) = ack.word(releases::place(self.slot))
        {
            // Whoever sleeps wakes by itself after a while; nothing is lost if this fails.
            let _ = futex::wake(&word, u32::MAX);
        }
        if by & RELEASE_WAITING_BY_DOORBELL != 0 {
            // It fails when the broker is gone, of which the sender learns as well.
            let _ = control.ring(*sender, *lane);
        }
    }
}

impl SegmentMemory {
    fn len_bytes(&self) -> usize {
        match self {
            SegmentMemory::Live(region) => region.len_bytes(),
            SegmentMemory::Frozen(region) => region.len(),
        }
    }
}

/// A segment as a message names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) place: u16,
    /// [`NO_SLOT`] where nothing is to be released.
    pub(crate) slot: u16,
    pub(crate) generation: u32,
}

/// Of a frozen region, whose memory is never used again.
pub(crate) const NO_SLOT: u16 = u16::MAX;

impl Entry {
    /// Judges it against the region in its place. The segment is released when it is dropped, whoever drops it.
    pub(crate) fn open(
        &self,
        places: &[Option<SegmentMemory>],
        desk: &Arc<ReleaseDesk>,
    ) -> Result<Segment, SegmentFault> {
        let Entry { offset, len, place, slot, generation } = *self;
        if slot != NO_SLOT && usize::from(slot) >= RELEASE_SLOTS {
            return Err(SegmentFault::SlotUnknown { slot, max: RELEASE_SLOTS });
        }
        let memory = places.get(usize::from(place)).and_then(Option::as_ref);
        let memory = memory.ok_or(SegmentFault::RegionUnknown { place })?;
        let region_bytes = memory.len_bytes();
        if offset.checked_add(len).is_none_or(|end| end > region_bytes as u64) {
            return Err(SegmentFault::OutOfRegion { offset, len_bytes: len, region_bytes });
        }
        let release = (slot != NO_SLOT).then(|| Release { desk: Arc::clone(desk), slot, generation });
        Ok(Segment { memory: memory.clone(), offset: offset as usize, len: len as usize, _release: release })
    }
}

/// Says to senders up to what size this queue takes payloads through a pool. In acknowledgement memory that no sender has yet.
pub(crate) fn declare_payload_max(ack: &View, bytes_max: u32) {
    // The word of a memory in which nobody has said anything is 0; whatever goes through a pool is longer than 1 byte.
    ack.store_u32(PAYLOAD_MAX_OFFSET, bytes_max.max(1), Ordering::Relaxed);
}

/// Up to what size a receiver takes payloads through a pool, by what it has declared.
pub(crate) fn declared_payload_max(ack: &View) -> u64 {
    match ack.load_u32(PAYLOAD_MAX_OFFSET, Ordering::Relaxed) {
        0 => SEGMENT_PAYLOAD_BYTES_MAX,
        bytes_max => SEGMENT_PAYLOAD_BYTES_MAX.min(bytes_max.into()),
    }
}

/// What a message says of its segments, judged in its form alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    /// Regions that come with it: the place, and whether it is frozen.
    pub(crate) regions: Vec<(u64, bool)>,
    pub(crate) entries: Vec<Entry>,
    /// The first segment is the payload.
    pub(crate) is_payload: bool,
}

const HEAD_BYTES: usize = 8;
const REGION_BYTES: usize = 8;
const ENTRY_BYTES: usize = 24;
const IS_PAYLOAD: u64 = 1 << 16;
const IS_FROZEN: u64 = 1 << 32;

impl Table {
    /// Appends it to `out`, a multiple of 8 bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let counts = self.entries.len() as u64 | (self.regions.len() as u64) << 8;
        let head = counts | if self.is_payload { IS_PAYLOAD } else { 0 };
        out.extend_from_slice(&head.to_le_bytes());
        for (place, is_frozen) in &self.regions {
            out.extend_from_slice(&(place | if *is_frozen { IS_FROZEN } else { 0 }).to_le_bytes());
        }
        for Entry { offset, len, place, slot, generation } in &self.entries {
            out.extend_from_slice(&offset.to_le_bytes());
            out.extend_from_slice(&len.to_le_bytes());
            let names = u64::from(*place) | u64::from(*slot) << 16 | u64::from(*generation) << 32;
            out.extend_from_slice(&names.to_le_bytes());
        }
    }

    /// Judges its form, and answers how many bytes of the message it is.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, usize), SegmentFault> {
        let found_bytes = bytes.len();
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Err(SegmentFault::TableTruncated { needed_bytes: HEAD_BYTES, found_bytes });
        };
        let word = u64::from_le_bytes(*head);
        let (segments, regions) = ((word & 0xff) as usize, (word >> 8 & 0xff) as usize);
        let is_payload = word & IS_PAYLOAD != 0;
        if word >> 17 != 0 || (is_payload && segments != 1) {
            return Err(SegmentFault::TableUnknown { word });
        }
        if segments > MESSAGE_SEGMENTS_MAX {
            return Err(SegmentFault::SegmentsExceeded { asked: segments, max: MESSAGE_SEGMENTS_MAX });
        }
        let needed_bytes = HEAD_BYTES + regions * REGION_BYTES + segments * ENTRY_BYTES;
        let Some((regions, entries)) = rest
            .get(..needed_bytes - HEAD_BYTES)
            .and_then(|table| table.split_at_checked(regions * REGION_BYTES))
        else {
            return Err(SegmentFault::TableTruncated { needed_bytes, found_bytes });
        };
        let regions: Result<Vec<_>, _> = regions.as_chunks().0.iter().map(|word| region(*word)).collect();
        let entries: Vec<Entry> = entries.as_chunks().0.iter().map(entry).collect();
        if is_payload && entries[0].len > SEGMENT_PAYLOAD_BYTES_MAX {
            let (asked_bytes, bytes_max) = (entries[0].len, SEGMENT_PAYLOAD_BYTES_MAX);
            return Err(SegmentFault::PayloadTooLarge { asked_bytes, bytes_max });
        }
        Ok((Table { regions: regions?, entries, is_payload }, needed_bytes))
    }

    /// How long the payload is: by the sender's account, where it comes as a segment, else what is behind the table.
    pub(crate) fn payload_bytes(bytes: &[u8]) -> Option<usize> {
        let (table, table_bytes) = Self::decode(bytes).ok()?;
        Some(if table.is_payload { table.entries[0].len as usize } else { bytes.len() - table_bytes })
    }
}

fn region(word: [u8; REGION_BYTES]) -> Result<(u64, bool), SegmentFault> {
    let word = u64::from_le_bytes(word);
    let (place, is_frozen) = (word & !IS_FROZEN, word & IS_FROZEN != 0);
    if place >= SEGMENT_REGIONS_MAX as u64 {
        return Err(SegmentFault::PlaceUnknown { place, max: SEGMENT_REGIONS_MAX });
    }
    Ok((place, is_frozen))
}

fn entry(bytes: &[u8; ENTRY_BYTES]) -> Entry {
    let words: &[[u8; 8]] = bytes.as_chunks().0;
    let [offset, len, names] = [0, 1, 2].map(|index| u64::from_le_bytes(words[index]));
    Entry { offset, len, place: names as u16, slot: (names >> 16) as u16, generation: (names >> 32) as u32 }
}

#[cfg(test)]
mod tests;
