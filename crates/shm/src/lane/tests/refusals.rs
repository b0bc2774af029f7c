//! Each lane fault provoked, and each shape that makes no lane.

use super::*;

/// The fault that the receiver reports, twice the same, and for ever.
#[track_caller]
fn receiver_faults(bench: &mut Bench, fault: LaneFault) {
    assert_eq!(bench.receive(), Err(ReceiveError::Fault(fault)));
    keyway_provoked::note(&fault, "receive");
    assert!(matches!(bench.receiver_waits(), Wait::Ready));
    bench.forge_commit(0);
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
    let extended = RecordHeader { flags: 1, ..RecordHeader::default() };
    assert_eq!(bench.sender.try_send(extended, &payload), Err(SendError::Fault(fault)));
    keyway_provoked::note(&fault, "send");
    assert!(matches!(bench.sender_waits(u32::MAX), Wait::Ready));
    bench.forge_tail(0);
    bench.set_status(layout::WORD_REVOKED);
    assert_eq!(bench.sender.try_send(RecordHeader::default(), b""), Err(SendError::Fault(fault)));
    assert_eq!(bench.sender.fault(), Some(fault));
    assert_eq!(bench.sender.ending(), None);
    assert_eq!(bench.sender.acknowledged().messages, before);
}

/// The word that commits a plain record with so much payload.
fn plain(payload_bytes: u32) -> u64 {
    RecordHeader::default().commit(payload_bytes)
}

/// The most that can be committed in an empty ring.
const COMMITTED_MAX: u32 = RING_BYTES - 8;

#[test]
fn a_record_longer_than_what_can_be_committed_is_a_fault() {
    let mut bench = Bench::new();
    bench.forge_commit(plain(COMMITTED_MAX - 7));
    let fault = LaneFault::RecordOverruns { record_bytes: COMMITTED_MAX + 8, bytes_max: COMMITTED_MAX };
    receiver_faults(&mut bench, fault);
}

#[test]
fn the_longest_record_of_all_is_none() {
    let mut bench = Bench::new();
    bench.forge_commit(plain(COMMITTED_MAX - 8));
    assert_eq!(bench.receive().map(|got| got.map(|bytes| bytes.len())), Ok(Some(COMMITTED_MAX as usize - 8)));
}

#[test]
fn the_longest_claim_does_not_overflow() {
    let mut bench = Bench::new();
    let header = RecordHeader { flags: 1, ..RecordHeader::default() };
    bench.forge_commit(header.commit((1 << 30) - 1));
    let fault = LaneFault::RecordOverruns { record_bytes: (1 << 30) + 16, bytes_max: COMMITTED_MAX };
    receiver_faults(&mut bench, fault);
}

#[test]
fn a_record_over_what_is_not_acknowledged_is_a_fault() {
    let mut bench = Bench::new();
    bench.send(&[1; 1000]);
    let mut out = Vec::new();
    bench.receiver.peek(&mut out).expect("live").expect("a message");
    // Where the next one is looked for, one that would lie where the first is still being read.
    let bytes_max = COMMITTED_MAX - 1008;
    let offset = layout::RECORDS_OFFSET + 1008;
    bench.ring.writer.copy_in(offset, &plain(bytes_max).to_ne_bytes()).expect("inside");
    let fault = LaneFault::RecordOverruns { record_bytes: bytes_max + 8, bytes_max };
    assert_eq!(bench.receiver.peek_more(&mut out, usize::MAX), Err(ReceiveError::Fault(fault)));
    bench.receiver.acknowledge();
    assert_eq!(bench.receiver.taken(), 1, "what was peeked before can still be acknowledged");
}

#[test]
fn a_commit_of_no_kind_is_a_fault() {
    let mut bench = Bench::new();
    bench.forge_commit(0xFFFF_FFFF_0000_0001);
    receiver_faults(&mut bench, LaneFault::CommitUnknown { word: 0xFFFF_FFFF_0000_0001 });
}

#[test]
fn padding_that_does_not_end_with_the_ring_is_a_fault() {
    for padding_bytes in [8, RING_BYTES - 16] {
        let mut bench = Bench::new();
        bench.forge_commit(record::padding(padding_bytes));
        receiver_faults(&mut bench, LaneFault::PaddingAstray { padding_bytes, bytes_to_end: RING_BYTES });
    }
}

#[test]
fn padding_of_a_whole_ring_is_a_fault() {
    let mut bench = Bench::new();
    bench.forge_commit(record::padding(RING_BYTES));
    receiver_faults(
        &mut bench,
        LaneFault::RecordOverruns { record_bytes: RING_BYTES, bytes_max: COMMITTED_MAX },
    );
}

#[test]
fn padding_without_anything_behind_it_is_passed_over_once() {
    let mut bench = Bench::new();
    bench.send(&[0; 2000]);
    bench.receive().expect("live");
    bench.forge_commit(record::padding(RING_BYTES - 2008));
    bench.ring.writer.copy_in(layout::RECORDS_OFFSET, &[0; 8]).expect("inside");
    assert_eq!(bench.receive(), Ok(None));
    assert_eq!(bench.receiver.tail(), RING_BYTES);
    assert_eq!(bench.receiver.taken(), 1);
}

#[test]
fn a_dead_senders_last_record_is_judged_too() {
    let mut bench = Bench::new();
    bench.set_status(layout::WORD_DEAD);
    bench.forge_commit(5);
    receiver_faults(&mut bench, LaneFault::CommitUnknown { word: 5 });
}

#[test]
fn a_dead_senders_good_records_come_before_its_bad_one() {
    let mut bench = Bench::new();
    bench.send(b"good");
    bench.ring.writer.copy_in(layout::RECORDS_OFFSET + 16, &5_u64.to_ne_bytes()).expect("inside");
    bench.set_status(layout::WORD_DEAD);
    assert_eq!(bench.receive(), Ok(Some(b"good".to_vec())));
    receiver_faults(&mut bench, LaneFault::CommitUnknown { word: 5 });
}

#[test]
fn a_record_that_a_dead_senders_child_takes_back_is_a_fault() {
    let mut bench = Bench::new();
    bench.send(b"one");
    bench.send(b"two");
    bench.set_status(layout::WORD_DEAD);
    assert_eq!(bench.receive(), Ok(Some(b"one".to_vec())));
    bench.forge_commit(0);
    receiver_faults(&mut bench, LaneFault::CommitWithdrawn { committed_bytes: 16 });
}

#[test]
fn a_record_that_a_dead_senders_child_makes_longer_is_a_fault() {
    let mut bench = Bench::new();
    bench.send(b"one");
    bench.send(b"two");
    bench.set_status(layout::WORD_DEAD);
    assert_eq!(bench.receive(), Ok(Some(b"one".to_vec())));
    bench.forge_commit(plain(9));
    receiver_faults(&mut bench, LaneFault::RecordOverruns { record_bytes: 24, bytes_max: 16 });
}

/// The fault of a sender that has said where it is, which is looked at before a sleep.
#[track_caller]
fn position_faults(bench: &mut Bench, position: u32, fault: LaneFault) {
    bench.forge_head(position);
    assert!(matches!(bench.receiver_waits(), Wait::Ready));
    receiver_faults(bench, fault);
}

#[test]
fn a_position_without_a_record_is_a_fault() {
    let mut bench = Bench::new();
    position_faults(&mut bench, 8, LaneFault::PositionAhead { advanced_bytes: 8, bytes_max: 0 });
}

#[test]
fn a_position_that_went_back_is_a_fault() {
    let mut bench = Bench::new();
    bench.send(b"");
    bench.receive().expect("live");
    assert!(matches!(bench.receiver_waits(), Wait::Sleep(_)));
    let advanced_bytes = 0_u32.wrapping_sub(8);
    position_faults(&mut bench, 0, LaneFault::PositionAhead { advanced_bytes, bytes_max: 0 });
}

#[test]
fn a_position_that_lags_behind_is_none() {
    let mut bench = Bench::new();
    bench.send(b"");
    bench.receive().expect("live");
    bench.forge_head(0);
    assert!(matches!(bench.receiver_waits(), Wait::Sleep(on) if on.peer.1 == 0));
}

/// What the receiver saw last is more than 2^32 bytes ago, and the position of the last message is not stored yet. Four
/// gigabytes are too many for tools that look at each access.
#[test]
#[cfg_attr(any(miri, keyway_plain_copies), ignore = "minutes there")]
fn a_position_that_lags_behind_after_a_lap_of_all_positions_is_none() {
    let mut bench = Bench::starting_at(0_u32.wrapping_sub(64));
    assert!(matches!(bench.receiver_waits(), Wait::Sleep(_)));
    bench.travel((1 << 32) - 8);
    let position = bench.receiver.tail();
    bench.send(b"one word");
    bench.receive().expect("live").expect("a message");
    bench.forge_head(position);
    assert!(matches!(bench.receiver_waits(), Wait::Sleep(on) if on.peer.1 == position));
    assert_eq!(bench.receiver.fault(), None);
}

#[test]
fn a_position_cannot_move_while_a_peeked_record_is_taken_back() {
    let mut bench = Bench::new();
    bench.send(b"");
    bench.receiver.peek(&mut Vec::new()).expect("live").expect("a message");
    assert!(matches!(bench.receiver_waits(), Wait::Sleep(on) if on.peer.1 == 8));
    bench.receiver.forget();
    bench.forge_commit(0);
    assert!(matches!(bench.receiver_waits(), Wait::Sleep(on) if on.peer.1 == 8));
    position_faults(&mut bench, 16, LaneFault::PositionAhead { advanced_bytes: 8, bytes_max: 0 });
}

#[test]
fn a_position_between_records_is_a_fault() {
    let mut bench = Bench::new();
    position_faults(&mut bench, 20, LaneFault::PositionUnaligned { position: 20, align_bytes: 8 });
}

#[test]
fn a_revoked_senders_garbage_is_not_even_judged() {
    let mut bench = Bench::new();
    bench.set_status(layout::WORD_REVOKED);
    bench.forge_commit(3);
    assert_eq!(bench.receive(), Err(ReceiveError::Ended(Ending::Revoked)));
}

#[test]
fn a_tail_beyond_what_was_sent_is_a_fault() {
    let mut bench = Bench::new();
    bench.send(b"");
    bench.forge_tail(24);
    sender_faults(&mut bench, LaneFault::PositionAhead { advanced_bytes: 24, bytes_max: 8 });
}

#[test]
fn a_tail_that_went_back_is_a_fault() {
    let mut bench = Bench::new();
    bench.send(b"");
    bench.receive().expect("live");
    bench.sender.acknowledged();
    bench.send(b"");
    bench.forge_tail(0);
    let fault = LaneFault::PositionAhead { advanced_bytes: 0_u32.wrapping_sub(8), bytes_max: 8 };
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
        LaneSender::new(Own::of(ring.writer.clone()), &ack.reader, status(), ring_bytes, Barrier::Own)
            .map(drop)
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
    let reader = Own::of(ring.reader.clone());
    let sender = LaneSender::new(reader, &ack.reader, status(), RING_BYTES, Barrier::Own);
    assert_eq!(sender.map(drop), Err(LaneShapeError::NotWritable));
    let receiver = LaneReceiver::new(&ring.reader, &ack.reader, status(), RING_BYTES, Barrier::Own);
    assert_eq!(receiver.map(drop), Err(LaneShapeError::NotWritable));
}

/// Plain records of these payloads, one behind the other from the ring's beginning on.
fn forge_plain(bench: &Bench, payloads: &[u32]) {
    let mut offset = layout::RECORDS_OFFSET;
    for payload_bytes in payloads {
        let word = u64::from(payload_bytes | layout::KIND_PLAIN << layout::SIZE_BITS);
        bench.ring.writer.copy_in(offset, &word.to_ne_bytes()).expect("inside");
        offset += layout::COMMIT_BYTES + *payload_bytes as usize;
    }
}

#[test]
fn a_record_over_what_was_just_handed_on_is_not_handed_on() {
    // The second meets the ring's end, or ends with it and finds room beside the first in what is copied to.
    for (second, out_bytes) in [(RING_BYTES - 16, 0), (RING_BYTES - 24, 2 * RING_BYTES as usize)] {
        let mut bench = Bench::new();
        forge_plain(&bench, &[8, second]);
        let mut count = 0;
        let each = |_, _: &[u8]| {
            count += 1;
            ControlFlow::Continue(())
        };
        assert_eq!(bench.receiver.take_each(&mut vec![0; out_bytes], 2, each), 1);
        assert_eq!(count, 1);
    }
}

#[test]
fn a_record_over_what_was_just_peeked_is_a_fault() {
    let mut bench = Bench::new();
    forge_plain(&bench, &[8, RING_BYTES - 24]);
    let mut count = 0;
    let peeked = bench.receiver.peek_many(&mut Vec::new(), 2, |_, _, _| {
        count += 1;
        ControlFlow::Continue(())
    });
    let bytes_max = COMMITTED_MAX - 16;
    let fault = LaneFault::RecordOverruns { record_bytes: RING_BYTES - 16, bytes_max };
    assert_eq!((peeked, count), (Err(ReceiveError::Fault(fault)), 1));
}

#[test]
fn a_dead_senders_records_in_a_circle_are_walked_once() {
    let mut bench = Bench::new();
    forge_plain(&bench, &[RING_BYTES / 2 - 8, RING_BYTES / 2 - 8]);
    bench.set_status(layout::WORD_DEAD);
    assert_eq!(bench.receive().expect("committed").expect("a message").len(), RING_BYTES as usize / 2 - 8);
    let fault = LaneFault::RecordOverruns { record_bytes: RING_BYTES / 2, bytes_max: RING_BYTES / 2 - 8 };
    assert_eq!(bench.receive(), Err(ReceiveError::Fault(fault)));
}

#[test]
fn a_record_too_short_for_its_stamp_is_a_fault_on_a_stamped_lane_only() {
    for carried_bytes in 0..8 {
        let mut bench = Bench::new();
        bench.receiver = bench.receiver.stamped();
        bench.forge_commit(plain(carried_bytes));
        let fault = LaneFault::StampMissing { carried_bytes: carried_bytes as usize, stamp_bytes: 8 };
        assert_eq!(bench.receiver.next_stamp(), Err(ReceiveError::Fault(fault)));
        receiver_faults(&mut bench, fault);
        let mut bench = Bench::new();
        bench.forge_commit(plain(carried_bytes));
        assert_eq!(bench.receive().map(|got| got.map(|bytes| bytes.len())), Ok(Some(carried_bytes as usize)));
    }
    let mut bench = Bench::new();
    bench.receiver = bench.receiver.stamped();
    bench.forge_commit(plain(8));
    assert_eq!(bench.receive(), Ok(Some(vec![])));
}

#[test]
fn a_record_too_short_for_its_stamp_ends_what_a_dead_sender_had_sent() {
    let mut bench = Bench::new();
    bench.receiver = bench.receiver.stamped();
    bench.send(b"a stamp!and more");
    bench.send(b"none");
    bench.set_status(layout::WORD_DEAD);
    assert_eq!(bench.receive(), Ok(Some(b"and more".to_vec())));
    let fault = LaneFault::StampMissing { carried_bytes: 4, stamp_bytes: 8 };
    assert_eq!(bench.receiver.next_stamp(), Err(ReceiveError::Fault(fault)));
    assert_eq!(bench.receive(), Err(ReceiveError::Fault(fault)));
}

#[test]
fn what_a_side_says_of_itself_it_never_reads_back() {
    let mut bench = Bench::new();
    let payload_bytes = bench.sender.payload_bytes_max() / 2;
    bench.send(&vec![1; payload_bytes]);
    // Whoever else has got at the memories says that nothing was sent, and that all was taken.
    for (memory, position, messages) in [(&bench.ring, 0, 0), (&bench.ack, RING_BYTES - 8, 7)] {
        memory.writer.store_u32(layout::POSITION_OFFSET, position, Ordering::Release);
        memory.writer.store_u32(layout::MESSAGES_OFFSET, messages, Ordering::Release);
    }
    assert_eq!(bench.receive(), Ok(Some(vec![1; payload_bytes])));
    assert_eq!(bench.receiver.taken(), 1);
    assert_eq!(bench.sender.acknowledged(), Acknowledged { messages: 1, sent: 1 });
    bench.send(&vec![2; payload_bytes]);
    bench.forge_head(0);
    let full = bench.sender.try_send(RecordHeader::default(), &vec![3; payload_bytes + 100]);
    assert!(matches!(full, Err(SendError::Full { .. })), "{full:?} over what is untaken");
    bench.forge_tail(0);
    assert_eq!(bench.receive(), Ok(Some(vec![2; payload_bytes])));
}
