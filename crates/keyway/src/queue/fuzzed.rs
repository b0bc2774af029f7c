//! What a fuzzer drives that no user can: what a message says of its parts, without the message. Built with `--cfg fuzzing` alone.

use std::sync::Arc;

use keyway_abi::{LaneId, ProcessNumber, limits::SEGMENT_PAYLOAD_BYTES_MAX};
use keyway_shm::{RecordHeader, View};

use crate::{
    fault::SegmentFault,
    message::flags,
    queue::{Queue, segments, segments::Places, taking::Brought},
    region::{FrozenRegion, RegionReader},
    segment::{NO_SLOT, Segment, SegmentMemory, Table},
};

const BYTES_MAX: u32 = SEGMENT_PAYLOAD_BYTES_MAX as u32;

/// The regions that one lane's messages have brought, where the next ones are always the same two.
#[derive(Debug)]
pub struct Parts {
    places: Places,
    live: Arc<RegionReader>,
    frozen: Arc<FrozenRegion>,
}

/// What a message named.
#[derive(Debug)]
pub struct Named {
    /// In place of what the record carried.
    pub payload: Option<Segment>,
    /// Besides it.
    pub segments: Vec<Segment>,
    /// Where each of these begins in its region.
    pub offsets: Vec<u64>,
    /// Slots and generations that are released with them, in order.
    pub released: Vec<(u16, u32)>,
    /// Bytes of the record that said so.
    pub table_bytes: usize,
}

impl Parts {
    /// Of a lane of that queue with this ring and these acknowledgements. `None` where they have not the words for it.
    pub fn new(
        queue: &Queue,
        (ring, ack): (&View, View),
        live: Arc<RegionReader>,
        frozen: Arc<FrozenRegion>,
    ) -> Option<Self> {
        let nobody = (ProcessNumber(0), LaneId(0));
        let places = Places::new(&queue.control, nobody, ring, ack, BYTES_MAX)?;
        Some(Parts { places, live, frozen })
    }

    /// Opens what a record names that begins with a table. Only so many of the regions that it brings can be mapped.
    ///
    /// # Errors
    /// As a receiver finds it; the parts that were opened before are released.
    pub fn open(&mut self, record: &[u8], mut regions_max: usize) -> Result<Named, SegmentFault> {
        let (table, table_bytes) = Table::decode(record)?;
        let mut again = Vec::new();
        table.encode(&mut again);
        assert_eq!(again, record[..table_bytes], "what was read is what is there");
        let released = table.entries.iter().filter(|entry| entry.slot != NO_SLOT);
        let released = released.map(|entry| (entry.slot, entry.generation)).collect();
        let offsets = table.entries.iter().map(|entry| entry.offset).collect();
        let brought = self.places.open_table(table, |is_frozen| {
            regions_max = regions_max.checked_sub(1)?;
            Some(if is_frozen {
                SegmentMemory::Frozen(Arc::clone(&self.frozen))
            } else {
                SegmentMemory::Live(Arc::clone(&self.live))
            })
        })?;
        let (payload, segments) = match brought {
            Brought::Payload(payload) => (Some(payload), Vec::new()),
            Brought::Segments(segments) => (None, segments),
        };
        Ok(Named { payload, segments, offsets, released, table_bytes })
    }

    /// How many bytes of buffer such a record needs, or one of a call.
    pub fn payload_bytes(record: &[u8], is_call: bool) -> usize {
        let flags = flags::SEGMENTS | if is_call { flags::CALL } else { 0 };
        segments::payload_bytes(RecordHeader { flags, ..RecordHeader::default() }, record, BYTES_MAX)
    }
}
