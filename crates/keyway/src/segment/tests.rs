//! Tables as they are written and read, each way to misuse one, and what a release writes.

use std::sync::atomic::Ordering;

use keyway_abi::layout::RELEASES_OFFSET;
use keyway_sys::memory::{Access, Mapping, Populate, create_memory};

use super::*;

fn table() -> Table {
    let entry = |place| Entry { offset: 1 << 40, len: 3, place, slot: 511, generation: u32::MAX };
    Table { regions: vec![(0, false), (63, true)], entries: vec![entry(0), entry(63)], is_payload: false }
}

#[test]
fn a_table_is_read_as_it_was_written() {
    let (mut bytes, table) = (vec![1; 8], table());
    table.encode(&mut bytes);
    bytes.extend_from_slice(b"the rest");
    let (read, len) = Table::decode(&bytes[8..]).expect("it was written by us");
    assert_eq!(read, table);
    assert_eq!(&bytes[8 + len..], b"the rest");
    assert_eq!(Table::payload_bytes(&bytes[8..]), Some(b"the rest".len()));
}

#[test]
fn a_payload_in_a_segment_says_its_length() {
    let mut table = table();
    table.entries.truncate(1);
    table.is_payload = true;
    let mut bytes = Vec::new();
    table.encode(&mut bytes);
    assert_eq!(Table::payload_bytes(&bytes), Some(3));
}

#[test]
fn every_truncation_of_a_table_is_refused() {
    let mut bytes = Vec::new();
    table().encode(&mut bytes);
    for found_bytes in 0..bytes.len() {
        let refused = Table::decode(&bytes[..found_bytes]);
        let is_named = matches!(refused, Err(SegmentFault::TableTruncated { found_bytes: found, .. }) if found == found_bytes);
        assert!(is_named, "{refused:?}");
    }
}

#[test]
fn a_head_that_says_what_no_head_says_is_refused() {
    let mut bytes = Vec::new();
    table().encode(&mut bytes);
    for bit in 17..64 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] |= 1 << (bit % 8);
        assert!(matches!(Table::decode(&bytes), Err(SegmentFault::TableUnknown { .. })), "bit {bit}");
    }
    // A payload in two segments.
    bytes[2] |= 1;
    assert!(matches!(Table::decode(&bytes), Err(SegmentFault::TableUnknown { .. })));
}

/// The first page of a memory is all that a desk needs.
#[test]
#[cfg(feature = "embedded")]
fn only_the_word_of_the_slot_is_written() {
    let memory = create_memory("desk", 4096).expect("memory");
    let mapping = Mapping::new(&memory, 4096, Access::Write, Populate::OnUse).expect("a mapping");
    let view = mapping.view();
    let waits = view.word(0).expect("a word");
    let broker = keyway_broker::Embedded::start().expect("a broker");
    let client = crate::client::Client::over(broker.connect().expect("a socket")).expect("a session");
    let (control, sender, lane) = (client.control, ProcessNumber(1), LaneId(1));
    let desk = Arc::new(ReleaseDesk { ack: view.clone(), waits, control, sender, lane });
    for (slot, generation) in [(0, 7), (511, 9)] {
        drop(Release { desk: Arc::clone(&desk), slot, generation });
    }
    for offset in (0..4096).step_by(4) {
        let expected = match offset {
            RELEASES_OFFSET => 7,
            at if at == RELEASES_OFFSET + 511 * 4 => 9,
            _ => 0,
        };
        assert_eq!(view.load_u32(offset, Ordering::Relaxed), expected, "the word at {offset}");
    }
}
