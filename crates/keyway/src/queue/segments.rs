//! The segments of one lane's messages: the regions that its sender has brought, and what it names of them.

use std::sync::Arc;

use keyway_abi::{LaneId, ProcessNumber, layout::RELEASE_WAITING_OFFSET, limits::SEGMENT_REGIONS_MAX};
use keyway_shm::{RecordHeader, View};

use super::taking::Brought;
use crate::{
    capability::Capability,
    control::Control,
    error::Error,
    fault::SegmentFault,
    message::flags,
    region::{FrozenRegion, MapOptions, RegionReader},
    segment::{Entry, ReleaseDesk, Segment, SegmentMemory, Table},
};

/// See the module. LIMIT: [`SEGMENT_REGIONS_MAX`] regions are mapped at a time; a further one takes the place of another.
#[derive(Debug)]
pub(super) struct Places {
    regions: Vec<Option<SegmentMemory>>,
    desk: Arc<ReleaseDesk>,
    payload_bytes_max: u32,
}

impl Places {
    /// Those of a new lane: none. `None` when its memories have not the words for it.
    pub(super) fn new(
        control: &Arc<Control>,
        (sender, lane): (ProcessNumber, LaneId),
        ring: &View,
        ack: View,
        payload_bytes_max: u32,
    ) -> Option<Self> {
        let (control, waits) = (Arc::clone(control), ring.word(RELEASE_WAITING_OFFSET)?);
        let desk = ReleaseDesk { ack, waits, control, sender, lane };
        Some(Places { regions: Vec::new(), desk: Arc::new(desk), payload_bytes_max })
    }

    /// Maps what comes with a message, and opens what it names. Answers also how many of its bytes that took to say.
    pub(super) fn open(
        &mut self,
        control: &Arc<Control>,
        bytes: &[u8],
        capabilities: &mut Vec<Result<Capability, Error>>,
    ) -> Result<(Brought, usize), SegmentFault> {
        let (table, table_bytes) = Table::decode(bytes)?;
        let (bytes_max, payload) = (u64::from(self.payload_bytes_max), table.entries.first());
        if let Some(&Entry { len: asked_bytes, .. }) = payload.filter(|_| table.is_payload)
            && asked_bytes > bytes_max
        {
            return Err(SegmentFault::PayloadTooLarge { asked_bytes, bytes_max });
        }
        // Those of regions are behind the user's.
        let users = capabilities.len().checked_sub(table.regions.len());
        let brought = users.map(|users| capabilities.split_off(users)).unwrap_or_default();
        let mut brought = brought.into_iter();
        let opened = self.open_table(table, |is_frozen| {
            let Some(Ok(capability)) = brought.next() else { return None };
            map(control, &capability, is_frozen).ok()
        });
        Ok((opened?, table_bytes))
    }

    /// The same of a table that was judged in its form, with what maps the next region.
    pub(super) fn open_table(
        &mut self,
        table: Table,
        mut map_next: impl FnMut(bool) -> Option<SegmentMemory>,
    ) -> Result<Brought, SegmentFault> {
        for (place, is_frozen) in table.regions {
            let memory = map_next(is_frozen).ok_or(SegmentFault::RegionNotMapped { place })?;
            // LIMIT: SEGMENT_REGIONS_MAX; the place was judged.
            let place = (place as usize).min(SEGMENT_REGIONS_MAX - 1);
            if self.regions.len() <= place {
                self.regions.resize(place + 1, None);
            }
            self.regions[place] = Some(memory);
        }
        let opened: Result<Vec<Segment>, _> =
            table.entries.iter().map(|entry| entry.open(&self.regions, &self.desk)).collect();
        let mut segments = opened?;
        Ok(match segments.pop() {
            Some(payload) if table.is_payload => Brought::Payload(payload),
            last => {
                segments.extend(last);
                Brought::Segments(segments)
            }
        })
    }
}

fn map(control: &Arc<Control>, region: &Capability, is_frozen: bool) -> Result<SegmentMemory, Error> {
    let (handle, options) = (region.handle(), MapOptions::default());
    if is_frozen {
        return Ok(SegmentMemory::Frozen(Arc::new(FrozenRegion::map(control, handle, options)?)));
    }
    Ok(SegmentMemory::Live(Arc::new(RegionReader::map(control, handle, options)?)))
}

/// How many bytes of buffer a message's record needs, or its payload where that comes as a segment.
pub(super) fn payload_bytes(header: RecordHeader, record: &[u8], segment_max: u32) -> usize {
    if header.flags & flags::SEGMENTS == 0 {
        return record.len();
    }
    let skip_bytes = if header.flags & (flags::CALL | flags::REPLY) == 0 { 0 } else { size_of::<u64>() };
    // What is no table, or says more than this queue takes, is a fault, which needs no buffer.
    let said = record.get(skip_bytes..).and_then(Table::payload_bytes);
    said.filter(|bytes| *bytes <= record.len().max(segment_max as usize)).unwrap_or(0)
}
