//! One lane's receiver of parts, on real regions, and a sender of whom every byte is named.
//!
//! The bytes are messages, one after another, until they end. Each begins with two bytes, `how` and the length of its record; the
//! record follows, as it stands in a ring.
//!
//! | bits of `how` | say |
//! |---|---|
//! | 0 to 2 | how many of the regions that it brings can be mapped, 7: all |
//! | 3 | its parts are kept, until 16 messages are or a message comes without this |
//! | 4 and 5 | which part of a segment is read, and in which of the ways |
//! | 6 | of a length in two bytes |

use std::sync::{Arc, atomic::Ordering};

use keyway::{
    Client, Embedded, Queue, QueueOptions, RegionOptions, Segment,
    abi::layout::{PAGE_BYTES, RELEASE_SLOTS},
    fuzzed::{Named, Parts},
};
use keyway_shm::{Access, View, releases};
use keyway_sys::memory::{Mapping, Populate, create_memory};

use crate::Bytes;

const LIVE_BYTES: usize = 2 * PAGE_BYTES;
const FROZEN_BYTES: usize = PAGE_BYTES;
/// Messages of one run.
const MESSAGES: usize = 64;
/// Messages whose parts are kept at a time.
const KEPT_MAX: usize = 16;

/// What one run uses after the other.
struct Stage {
    ring: View,
    ack: View,
    live: Arc<keyway::RegionReader>,
    frozen: Arc<keyway::FrozenRegion>,
    _regions: [keyway::Capability; 2],
    _writer: keyway::RegionWriter,
    queue: Queue,
    _client: Client,
    _broker: Embedded,
}

/// The byte at a place of either region.
fn byte_at(offset: usize, is_frozen: bool) -> u8 {
    (offset.wrapping_mul(0x9e37_79b1) >> 13) as u8 ^ if is_frozen { 0x55 } else { 0 }
}

impl Stage {
    fn new() -> Self {
        let broker = Embedded::start().expect("a broker");
        let client = Client::over(broker.connect().expect("a socket")).expect("a session");
        let bytes = |len, is_frozen| -> Vec<u8> { (0..len).map(|at| byte_at(at, is_frozen)).collect() };
        let live = client.create_region(LIVE_BYTES as u64).expect("a region");
        let writer = client.map_writer(&live).expect("its writer");
        writer.write(0, &bytes(LIVE_BYTES, false)).expect("inside");
        let options = RegionOptions::default().freezable();
        let frozen = client.create_region_with(FROZEN_BYTES as u64, options).expect("a region");
        let freezing = client.map_writer(&frozen).expect("its writer");
        freezing.write(0, &bytes(FROZEN_BYTES, true)).expect("inside");
        drop(freezing.freeze().expect("nobody holds its pages"));
        let map = |name| {
            let memory = create_memory(name, PAGE_BYTES).expect("memory");
            Mapping::new(memory, PAGE_BYTES, Access::Write, Populate::Now).expect("memory to map").view()
        };
        Stage {
            ring: map("keyway-fuzz-ring"),
            ack: map("keyway-fuzz-ack"),
            live: Arc::new(client.map_reader(&live).expect("a reader")),
            frozen: Arc::new(client.map_frozen(&frozen).expect("a reader")),
            _regions: [live, frozen],
            _writer: writer,
            queue: client.create_queue(QueueOptions::default()).expect("a queue"),
            _client: client,
            _broker: broker,
        }
    }
}

/// Gives a receiver the messages in `bytes`.
///
/// # Panics
/// When it reads or releases what it must not.
pub fn open(bytes: &[u8]) {
    thread_local!(static STAGE: Stage = Stage::new());
    STAGE.with(|stage| {
        stage.ack.copy_in(0, &[0; PAGE_BYTES]).expect("inside");
        let (live, frozen) = (Arc::clone(&stage.live), Arc::clone(&stage.frozen));
        let parts = Parts::new(&stage.queue, (&stage.ring, stage.ack.clone()), live, frozen).expect("words");
        let mut end = Receiving { stage, parts, kept: Vec::new(), released: [0; RELEASE_SLOTS] };
        let mut bytes = Bytes(bytes);
        for _ in 0..MESSAGES {
            match end.message(&mut bytes) {
                Some(true) => {}
                Some(false) => return,
                None => break,
            }
        }
        end.drop_kept(true);
    });
}

struct Receiving<'s> {
    stage: &'s Stage,
    parts: Parts,
    kept: Vec<Named>,
    /// What each slot's word must say.
    released: [u32; RELEASE_SLOTS],
}

impl Receiving<'_> {
    /// Whether the lane goes on; `None` when there is no further message.
    fn message(&mut self, bytes: &mut Bytes<'_>) -> Option<bool> {
        let how = bytes.byte()?;
        let len = if how & 0x40 == 0 { u16::from(bytes.byte()?) } else { bytes.word()? };
        let record = bytes.take(usize::from(len))?;
        let regions_max = if how & 7 == 7 { usize::MAX } else { usize::from(how & 7) };
        let needed_bytes = Parts::payload_bytes(record, false);
        match self.parts.open(record, regions_max) {
            Ok(named) => {
                assert!(named.table_bytes <= record.len());
                let rest_bytes = record.len() - named.table_bytes;
                let payload_bytes = named.payload.as_ref().map_or(rest_bytes, Segment::len);
                assert_eq!(needed_bytes, payload_bytes, "who is told the size can take it");
                assert_eq!(named.offsets.len(), named.segments.len() + usize::from(named.payload.is_some()));
                for (segment, offset) in named.payload.iter().chain(&named.segments).zip(&named.offsets) {
                    Self::read(segment, *offset as usize, how);
                }
                self.kept.push(named);
                if how & 8 == 0 || self.kept.len() >= KEPT_MAX {
                    self.drop_kept(true);
                }
            }
            Err(fault) => {
                assert!(!fault.to_string().is_empty());
                // The lane is over. What was opened before the fault is released, which says something of its slots.
                self.drop_kept(false);
                return Some(false);
            }
        }
        self.check();
        Some(true)
    }

    /// It is inside its region, whichever way it is read.
    fn read(segment: &Segment, offset: usize, how: u8) {
        let len = segment.len();
        let (mut all, mut pieces) = (vec![0; len], Vec::new());
        segment.copy_out(0, &mut all).expect("inside");
        assert!(
            segment.copy_out(len, &mut [0]).is_err() && segment.copy_out(usize::MAX, &mut [0; 2]).is_err()
        );
        segment.read(|piece| pieces.extend_from_slice(piece));
        assert_eq!(all, pieces);
        let from = len * usize::from(how >> 4 & 3) / 4;
        let mut part = vec![0; len - from];
        segment.copy_out(from, &mut part).expect("inside");
        assert_eq!(all[from..], part);
        let is_frozen = segment.as_slice().is_some();
        assert!(segment.as_slice().is_none_or(|bytes| bytes == all));
        assert!(offset + len <= if is_frozen { FROZEN_BYTES } else { LIVE_BYTES });
        assert!((offset..).zip(&all).all(|(at, byte)| byte_at(at, is_frozen) == *byte), "from {offset} on");
    }

    /// All that was kept is released, in order.
    fn drop_kept(&mut self, is_checked: bool) {
        for named in std::mem::take(&mut self.kept) {
            let Named { payload, segments, released, .. } = named;
            drop((payload, segments));
            for (slot, generation) in released {
                self.released[usize::from(slot)] = generation;
            }
        }
        if is_checked {
            self.check();
        }
    }

    /// Only slots of parts that were let go say anything, and each what the last of those says.
    fn check(&self) {
        for (slot, expected) in self.released.iter().enumerate() {
            let said = self.stage.ack.load_u32(releases::place(slot as u16), Ordering::Relaxed);
            assert_eq!(said, *expected, "slot {slot}");
        }
    }
}
