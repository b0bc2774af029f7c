//! Every way in which a sender can misuse segments.

/// What was wrong with the segments that a message named. Its lane is closed; nothing else is harmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentFault {
    /// The table of segments is longer than the message.
    #[error("a table of segments of {needed_bytes} bytes in a message of {found_bytes}")]
    TableTruncated {
        /// Bytes of the table by its own account.
        needed_bytes: usize,
        /// Bytes of the message.
        found_bytes: usize,
    },
    /// The table's head says what no head says.
    #[error("the word {word:#x} begins no table of segments")]
    TableUnknown {
        /// What the sender wrote.
        word: u64,
    },
    /// More segments than a message can name.
    #[error("{asked} segments in a message, {max} are possible")]
    SegmentsExceeded {
        /// How many.
        asked: usize,
        /// How many are possible.
        max: usize,
    },
    /// A region for a place that there is not.
    #[error("a region for the place {place}, there are {max}")]
    PlaceUnknown {
        /// The place.
        place: u64,
        /// How many there are.
        max: usize,
    },
    /// A region without its capability, or one whose capability maps nothing: it was taken back, or names something else.
    #[error("the region for the place {place} cannot be mapped")]
    RegionNotMapped {
        /// The place.
        place: u64,
    },
    /// A segment of a region that was never brought.
    #[error("a segment in the place {place}, to which no region was brought")]
    RegionUnknown {
        /// The place.
        place: u16,
    },
    /// A segment that leaves its region.
    #[error("a segment of {len_bytes} bytes at {offset} of a region of {region_bytes} bytes")]
    OutOfRegion {
        /// Where it would begin.
        offset: u64,
        /// How long it would be.
        len_bytes: u64,
        /// How long the region is.
        region_bytes: usize,
    },
    /// A segment with a slot that there is not.
    #[error("a segment with the slot {slot}, there are {max}")]
    SlotUnknown {
        /// The slot.
        slot: u16,
        /// How many there are.
        max: usize,
    },
    /// A payload in a segment that is larger than what is copied out at a time.
    #[error("a payload of {asked_bytes} bytes in a segment, at most {bytes_max} are copied out")]
    PayloadTooLarge {
        /// Its size.
        asked_bytes: u64,
        /// The largest possible.
        bytes_max: u64,
    },
}
