//! Each lane fault provoked, and each shape that makes no lane.

use super::*;

/// The fault that the receiver reports, twice the same, and for ever.
#[track_caller]
fn receiver_faults(bench: &mut Bench, fault: LaneFault) {
    assert_eq!(bench.receive(), Err(ReceiveError::Fault(fault)));
    keyway_provoked::note(&fault, "receive");
    assert!(matches!(bench.receiver.prepare_wait(), Wait::Ready));
    bench.forge_head(0);
    bench.set_status(layout::WORD_REVOKED);
    assert_eq!(bench.receive(), Err(ReceiveError::Fault(fault)), "a fault outlives what follows");
    assert_eq!(bench.receiver.fault(), Some(fault));
    assert_eq!(bench.receiver.ending(), None);
}

/// The fault that the sender reports when it looks for space, and for ever.
#[track_caller]
fn sender_faults(bench: &mut Bench, fault: LaneFault) {
    let before = bench.receiver.taken();
    let payload = vec![0; bench.sender.payload_bytes_max()];
    assert_eq!(bench.sender.try_send(RecordHeader::default(), &payload), Err(SendError::Fault(fault)));
    keyway_provoked::note(&fault, "send");
    assert!(matches!(bench.sender.prepare_wait(0), Wait::Ready));
    bench.forge_tail(0);
    bench.set_status(layout::WORD_REVOKED);
    assert_eq!(bench.sender.try_send(RecordHeader::default(), b""), Err(SendError::Fault(fault)));
    assert_eq!(bench.sender.fault(), Some(fault));
    assert_eq!(bench.sender.ending(), None);
    assert_eq!(bench.sender.acknowledged().messages, before);
}

/// Plays a sender whose header claims `payload_bytes`, with `committed` bytes published.
fn forge_record(bench: &Bench, payload_bytes: u32, committed: u32) {
    let header = RecordHeader::default().encode(payload_bytes);
    bench.ring.writer.copy_in(layout::RECORDS_OFFSET, &header).expect("inside");
    bench.forge_head(committed);
}

#[test]
fn a_head_beyond_the_ring_is_a_fault() {
    let mut bench = Bench::new();
    bench.forge_head(RING_BYTES + 8);
    let fault = LaneFault::PositionAhead { advanced_bytes: RING_BYTES + 8, bytes_max: RING_BYTES };
    receiver_faults(&mut bench, fault);
}

#[test]
fn a_head_that_went_back_is_a_fault() {
    let mut bench = Bench::new();
    bench.send(b"");
    bench.receive().expect("live");
    bench.forge_head(8);
    let fault = LaneFault::PositionAhead { advanced_bytes: 8_u32.wrapping_sub(16), bytes_max: RING_BYTES };
    receiver_faults(&mut bench, fault);
}

#[test]
fn a_head_between_records_is_a_fault() {
    let mut bench = Bench::new();
    bench.forge_head(20);
    receiver_faults(&mut bench, LaneFault::PositionUnaligned { position: 20, align_bytes: 8 });
}

#[test]
fn half_a_header_is_a_fault() {
    let mut bench = Bench::new();
    bench.forge_head(8);
    receiver_faults(&mut bench, LaneFault::HeaderOverruns { committed_bytes: 8, header_bytes: 16 });
}

#[test]
fn a_record_longer_than_what_is_committed_is_a_fault() {
    let mut bench = Bench::new();
    forge_record(&bench, 9, 24);
    receiver_faults(&mut bench, LaneFault::RecordOverruns { record_bytes: 32, committed_bytes: 24 });
}

#[test]
fn the_longest_claim_does_not_overflow() {
    let mut bench = Bench::new();
    forge_record(&bench, u32::MAX, RING_BYTES);
    let fault = LaneFault::RecordOverruns { record_bytes: (1 << 32) + 16, committed_bytes: RING_BYTES };
    receiver_faults(&mut bench, fault);
}

#[test]
fn a_dead_senders_last_position_is_judged_too() {
    let mut bench = Bench::new();
    bench.set_status(layout::WORD_DEAD);
    bench.forge_head(4);
    receiver_faults(&mut bench, LaneFault::PositionUnaligned { position: 4, align_bytes: 8 });
}

#[test]
fn a_revoked_senders_garbage_is_not_even_judged() {
    let mut bench = Bench::new();
    bench.set_status(layout::WORD_REVOKED);
    bench.forge_head(3);
    assert_eq!(bench.receive(), Err(ReceiveError::Ended(Ending::Revoked)));
}

#[test]
fn a_tail_beyond_what_was_sent_is_a_fault() {
    let mut bench = Bench::new();
    bench.send(b"");
    bench.forge_tail(24);
    sender_faults(&mut bench, LaneFault::PositionAhead { advanced_bytes: 24, bytes_max: 16 });
}

#[test]
fn a_tail_that_went_back_is_a_fault() {
    let mut bench = Bench::new();
    bench.send(b"");
    bench.receive().expect("live");
    bench.sender.acknowledged();
    bench.send(b"");
    bench.forge_tail(8);
    let fault = LaneFault::PositionAhead { advanced_bytes: 8_u32.wrapping_sub(16), bytes_max: 16 };
    sender_faults(&mut bench, fault);
}

#[test]
fn a_tail_between_records_is_a_fault() {
    let mut bench = Bench::new();
    bench.send(b"");
    bench.forge_tail(2);
    sender_faults(&mut bench, LaneFault::PositionUnaligned { position: 2, align_bytes: 8 });
}

#[test]
fn more_messages_acknowledged_than_sent_is_a_fault() {
    let mut bench = Bench::new();
    bench.send(b"");
    bench.ack.writer.store_u32(layout::MESSAGES_OFFSET, 2, Ordering::Release);
    sender_faults(&mut bench, LaneFault::MessagesAhead { advanced_messages: 2, messages_max: 1 });
}

#[test]
fn memories_that_make_no_lane_are_refused() {
    let page = heap::memory(layout::PAGE_BYTES);
    let status = || Status::new(page.reader.word(STATUS_OFFSET).expect("a word"), GENERATION);
    let ring = heap::memory(layout::RECORDS_OFFSET + RING_BYTES as usize);
    let ack = heap::memory(layout::PAGE_BYTES);
    let short_ack = heap::memory(layout::PAGE_BYTES - 8);
    let send = |ring: &Memory, ack: &Memory, ring_bytes| {
        LaneSender::new(ring.writer.clone(), ack.reader.clone(), status(), ring_bytes).map(drop)
    };
    assert_eq!(send(&ring, &ack, RING_BYTES), Ok(()));
    for asked_bytes in [0, 8, RING_BYTES / 2, RING_BYTES + 8, layout::RING_BYTES_MAX * 2, u32::MAX] {
        let (bytes_min, bytes_max) = (layout::RING_BYTES_MIN, layout::RING_BYTES_MAX);
        let refusal = LaneShapeError::RingBytes { asked_bytes, bytes_min, bytes_max };
        assert_eq!(send(&ring, &ack, asked_bytes), Err(refusal));
    }
    let (len_bytes, needed_bytes) =
        (ring.reader.len_bytes(), layout::RECORDS_OFFSET + 2 * RING_BYTES as usize);
    let refusal = LaneShapeError::RingMemory { len_bytes, needed_bytes };
    assert_eq!(send(&ring, &ack, RING_BYTES * 2), Err(refusal));
    let (len_bytes, needed_bytes) = (layout::PAGE_BYTES - 8, layout::PAGE_BYTES);
    let refusal = LaneShapeError::AcknowledgementMemory { len_bytes, needed_bytes };
    assert_eq!(send(&ring, &short_ack, RING_BYTES), Err(refusal));
    let sender = LaneSender::new(ring.reader.clone(), ack.reader.clone(), status(), RING_BYTES);
    assert_eq!(sender.map(drop), Err(LaneShapeError::NotWritable));
    let receiver = LaneReceiver::new(ring.reader, ack.reader, status(), RING_BYTES);
    assert_eq!(receiver.map(drop), Err(LaneShapeError::NotWritable));
}
