//! What just fits, what just does not, and who waits for how much.

use super::*;

/// Bytes of records that can be committed and not taken.
const ROOM_BYTES: usize = RING_BYTES as usize - layout::RING_RESERVED_BYTES;

/// Bytes that are free for what follows after so many.
fn with_free(free_bytes: usize) -> Bench {
    let mut bench = Bench::new();
    bench.send(&vec![0; RING_BYTES as usize - free_bytes - layout::COMMIT_BYTES]);
    bench
}

#[test]
fn the_ordinary_ways_send_whatever_leaves_room_for_an_extension() {
    let enough = 40 + layout::COMMIT_BYTES + layout::EXTENSION_BYTES + layout::RING_RESERVED_BYTES;
    for (free_bytes, fits) in [(enough, true), (enough - 8, false)] {
        let payload = [7; 40];
        let mut bench = with_free(free_bytes);
        assert_eq!(bench.sender.send_plain(0, &payload), fits, "{free_bytes} bytes free");
        let mut bench = with_free(free_bytes);
        let sent = bench.sender.send_plain_with(40, &mut |place| place.copy_from_slice(&payload));
        assert_eq!(sent, fits, "{free_bytes} bytes free");
        bench.receive().unwrap().unwrap();
        assert_eq!(bench.receive(), Ok(fits.then(|| payload.to_vec())));
    }
}

#[test]
fn what_is_sent_together_may_fill_the_ring_and_no_more() {
    let bytes_max = Bench::new().sender.payload_bytes_max();
    let too_large = |asked_bytes| Err(SendError::TooLarge { asked_bytes, bytes_max });
    let halves = [vec![1; ROOM_BYTES / 2 - 12], vec![2; ROOM_BYTES / 2 - 4]];
    assert_eq!(halves[0].len() + halves[1].len() + 2 * layout::COMMIT_BYTES, ROOM_BYTES);
    let mut bench = Bench::new();
    assert_eq!(bench.sender.try_send_all(&[&halves[0], &halves[1]]), Ok(()));
    for half in &halves {
        assert_eq!(bench.receive().unwrap().as_ref(), Some(half));
    }
    let more = [&halves[1][..], &[2]].concat();
    assert_eq!(bench.sender.try_send_all(&[&halves[0], &more]), too_large(RING_BYTES as usize));
    // However many there are, what is counted does not overflow.
    let ring = vec![3; RING_BYTES as usize];
    let counted = 2 * RING_BYTES as usize;
    assert_eq!(bench.sender.try_send_all(&[&ring[..]; 3]), too_large(counted));
    let three_halves = vec![3; RING_BYTES as usize / 2 - 8];
    assert_eq!(bench.sender.try_send_all(&[&three_halves[..]; 3]), too_large(RING_BYTES as usize / 2 * 3));
    assert_eq!(bench.receive(), Ok(None));
}

#[test]
fn as_many_of_one_size_may_fill_the_ring_and_no_more() {
    let mut bench = Bench::new();
    let bytes_max = bench.sender.payload_bytes_max();
    // 73 records of 56 bytes are 4088.
    let mut fill = |index: usize, place: &mut [u8]| place.fill(index as u8);
    assert_eq!(bench.sender.try_send_each(73, 48, &mut fill), Ok(()));
    for index in 0..73 {
        assert_eq!(bench.receive(), Ok(Some(vec![index; 48])));
    }
    let refused = bench.sender.try_send_each(512, 0, &mut fill);
    assert_eq!(refused, Err(SendError::TooLarge { asked_bytes: RING_BYTES as usize, bytes_max }));
}

#[test]
fn a_batch_that_cannot_fit_is_told_from_one_that_must_wait() {
    let mut bench = Bench::new();
    let bytes_max = bench.sender.payload_bytes_max();
    let header = RecordHeader::default();
    let mut batch = bench.sender.batch().unwrap();
    assert_eq!(batch.push(header, &vec![1; ROOM_BYTES - 16 - 8]), Ok(()));
    let asked_bytes = RING_BYTES as usize;
    assert_eq!(batch.push(header, &[2; 9]), Err(SendError::TooLarge { asked_bytes, bytes_max }));
    assert_eq!(batch.push(header, &[2; 8]), Ok(()), "what was added stays, and fills the ring");
    let (_, sent) = batch.commit();
    assert_eq!(sent, Ok(()));
    assert_eq!(bench.receive().unwrap().map(|out| out.len()), Some(ROOM_BYTES - 24));
    assert_eq!(bench.receive(), Ok(Some(vec![2; 8])));
}

#[test]
fn nobody_sleeps_for_room_that_is_there() {
    let mut bench = with_free(64);
    assert!(matches!(bench.sender_waits(64), Wait::Ready));
    assert!(matches!(bench.sender_waits(65), Wait::Sleep(_)));
}

#[test]
fn a_loan_that_reaches_the_end_of_the_ring_leaves_no_gap() {
    let mut bench = Bench::new();
    bench.send(&[0; 1024 - layout::COMMIT_BYTES]);
    bench.receive().unwrap().unwrap();
    let to_end = RING_BYTES as usize - 1024;
    // As much as is lent for a message of whatever header.
    let payload_bytes = to_end - layout::COMMIT_BYTES - layout::EXTENSION_BYTES;
    let position = |bench: &Bench| bench.ring.reader.load_u32(layout::POSITION_OFFSET, Ordering::Acquire);
    let before = position(&bench);
    let loan = bench.sender.loan(RecordHeader { flags: 1, ..RecordHeader::default() }, payload_bytes);
    loan.commit(payload_bytes).1.unwrap();
    assert_eq!(position(&bench).wrapping_sub(before) as usize, to_end);
    assert_eq!(bench.receive(), Ok(Some(vec![0; payload_bytes])));
}

#[test]
fn what_was_acknowledged_before_does_not_count_again() {
    let mut bench = Bench::new();
    for _ in 0..5 {
        bench.send(b"taken");
        bench.receive().unwrap().unwrap();
    }
    assert_eq!(bench.sender.acknowledged().messages, 5);
    bench.send(b"untaken");
    // Two more than it ever took, of which one was never sent.
    bench.ack.writer.store_u32(layout::MESSAGES_OFFSET, 7, Ordering::Release);
    bench.sender.acknowledged();
    let fault = LaneFault::MessagesAhead { advanced_messages: 2, messages_max: 1 };
    assert_eq!(bench.sender.fault(), Some(fault));
}

#[test]
fn what_is_written_in_place_leaves_nothing_of_earlier_records_behind_it() {
    for (together, bytes) in [(false, 5), (true, 5), (false, 61), (true, 61)] {
        let mut bench = Bench::new();
        // Twice, so that no word of the ring is as it was at first.
        for _ in 0..2 {
            bench.send(&vec![0xFF; bench.sender.payload_bytes_max()]);
            bench.receive().unwrap().unwrap();
        }
        // So that nothing goes round the ring's end.
        bench.send(&[0xFF; 24]);
        bench.receive().unwrap().unwrap();
        assert_eq!(bench.receiver.tail() % RING_BYTES, 0);
        // Sees that there is room.
        bench.sender.acknowledged();
        let within = (bench.receiver.tail() % RING_BYTES) as usize;
        if together {
            bench.sender.try_send_each(1, bytes, &mut |_, place: &mut [u8]| place.fill(1)).unwrap();
        } else {
            assert!(bench.sender.send_plain_with(bytes, &mut |place: &mut [u8]| place.fill(1)));
        }
        let mut behind = [1; 3];
        let offset = (within + layout::COMMIT_BYTES + bytes) % RING_BYTES as usize;
        bench.ring.reader.copy_out(layout::RECORDS_OFFSET + offset, &mut behind).unwrap();
        assert_eq!(behind, [0; 3], "{bytes} bytes, {together}");
        assert_eq!(bench.receive(), Ok(Some(vec![1; bytes])));
    }
}
