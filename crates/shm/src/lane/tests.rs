//! Tests of one lane from both ends, on private memory; the parts have their own files.

mod hostile;
mod model;
mod refusals;
mod room;
mod stamps;

use alloc::{vec, vec::Vec};
use core::{ops::ControlFlow, sync::atomic::Ordering};

use keyway_abi::layout;

use super::*;
use crate::{
    status::Status,
    view::{
        Own,
        heap::{self, Memory},
    },
};

const RING_BYTES: u32 = layout::RING_BYTES_MIN;
const GENERATION: u32 = 9;
const STATUS_OFFSET: usize = 4;

/// One lane with both ends, and the views through which a test plays a hostile peer or the broker.
struct Bench {
    sender: LaneSender,
    receiver: LaneReceiver,
    ring: Memory,
    ack: Memory,
    page: Memory,
}

impl Bench {
    fn new() -> Self {
        Self::starting_at(0)
    }

    /// A lane that has already carried `position` bytes.
    fn starting_at(position: u32) -> Self {
        let ring = heap::memory(layout::RECORDS_OFFSET + RING_BYTES as usize);
        let ack = heap::memory(layout::PAGE_BYTES);
        let page = heap::memory(layout::PAGE_BYTES);
        ring.writer.store_u32(layout::POSITION_OFFSET, position, Ordering::Release);
        ack.writer.store_u32(layout::POSITION_OFFSET, position, Ordering::Release);
        page.writer.store_u32(STATUS_OFFSET, GENERATION, Ordering::Release);
        let status = Status::new(page.reader.word(STATUS_OFFSET).expect("a word"), GENERATION);
        let barrier = Barrier::Own;
        let own = Own::of(ring.writer.clone());
        let sender = LaneSender::starting_at(position, own, &ack.reader, status.clone(), RING_BYTES, barrier);
        let receiver =
            LaneReceiver::starting_at(position, &ring.reader, &ack.writer, status, RING_BYTES, barrier);
        let (sender, receiver) = (sender.expect("a lane"), receiver.expect("a lane"));
        Self { sender, receiver, ring, ack, page }
    }

    fn send(&mut self, payload: &[u8]) {
        self.sender.try_send(RecordHeader::default(), payload).expect("space and a live lane");
    }

    fn receive(&mut self) -> Result<Option<Vec<u8>>, ReceiveError> {
        let mut out = vec![0xAA; 3];
        Ok(self.receiver.try_receive(&mut out)?.map(|_| out))
    }

    /// Sends and receives so many bytes of records.
    fn travel(&mut self, mut left_bytes: u64) {
        let payload = vec![0; self.sender.payload_bytes_max()];
        let mut out = Vec::new();
        while left_bytes > 0 {
            let len = payload.len().min(left_bytes as usize - layout::COMMIT_BYTES);
            self.send(&payload[..len]);
            self.receiver.try_receive(&mut out).expect("live").expect("a message");
            left_bytes -= (len + layout::COMMIT_BYTES) as u64;
        }
    }

    fn set_status(&self, word: u32) {
        self.page.writer.store_u32(STATUS_OFFSET, word, Ordering::Release);
    }

    /// Plays a sender that says it has come wherever it likes.
    fn forge_head(&self, position: u32) {
        self.ring.writer.store_u32(layout::POSITION_OFFSET, position, Ordering::Release);
    }

    /// Plays a sender that stores whatever it likes where the next record is looked for.
    fn forge_commit(&self, word: u64) {
        let within = self.receiver.tail() & (RING_BYTES - 1);
        let offset = layout::RECORDS_OFFSET + within as usize;
        self.ring.writer.copy_in(offset, &word.to_ne_bytes()).expect("inside");
    }

    /// What a receiver does before it sleeps.
    fn receiver_waits(&mut self) -> Wait {
        self.receiver.announce_wait(WakeBy::Futex);
        own_barrier();
        self.receiver.prepare_wait()
    }

    /// What a sender does before it sleeps.
    fn sender_waits(&mut self, needed_bytes: u32) -> Wait {
        self.sender.announce_wait(WakeBy::Futex);
        own_barrier();
        self.sender.prepare_wait(needed_bytes)
    }

    /// Plays a receiver that acknowledges whatever it likes.
    fn forge_tail(&self, position: u32) {
        self.ack.writer.store_u32(layout::POSITION_OFFSET, position, Ordering::Release);
    }
}

#[test]
fn a_message_arrives_with_its_header() {
    let mut bench = Bench::new();
    let header = RecordHeader { message_type: 3, flags: 0x8000_0001, ticket: 77 };
    bench.sender.try_send(header, b"seventeen bytes!!").expect("space");
    let mut out = Vec::new();
    assert_eq!(bench.receiver.try_receive(&mut out), Ok(Some(header)));
    assert_eq!(out, b"seventeen bytes!!");
    assert_eq!(bench.receiver.try_receive(&mut out), Ok(None));
    assert_eq!(out, b"seventeen bytes!!", "an empty lane leaves the buffer alone");
    assert_eq!(bench.sender.acknowledged(), Acknowledged { messages: 1, sent: 1 });
    assert_eq!(bench.receiver.taken(), 1);
}

#[test]
fn an_empty_payload_is_a_message() {
    let mut bench = Bench::new();
    bench.send(b"");
    assert_eq!(bench.receive(), Ok(Some(Vec::new())));
    assert_eq!(bench.receive(), Ok(None));
}

#[test]
fn the_largest_payload_fills_the_ring_and_one_more_byte_never_fits() {
    let mut bench = Bench::new();
    let bytes_max = bench.sender.payload_bytes_max();
    let payload: Vec<u8> = (0..bytes_max).map(|index| index as u8).collect();
    for _ in 0..3 {
        bench.send(&payload);
        let needed_bytes = (layout::COMMIT_BYTES + layout::RING_RESERVED_BYTES) as u32;
        let more = bench.sender.try_send(RecordHeader { flags: 1, ..RecordHeader::default() }, b"");
        assert_eq!(more, Err(SendError::Full { needed_bytes: needed_bytes + 8 }));
        assert_eq!(bench.receive(), Ok(Some(payload.clone())));
    }
    let asked_bytes = bytes_max + 1;
    let refusal = bench.sender.try_send(RecordHeader::default(), &vec![0; asked_bytes]);
    assert_eq!(refusal, Err(SendError::TooLarge { asked_bytes, bytes_max }));
}

#[test]
fn padding_carries_nothing_of_earlier_records() {
    let mut bench = Bench::new();
    // Twice, so that no word of the ring is as it was at first.
    for _ in 0..2 {
        bench.send(&vec![0xFF; bench.sender.payload_bytes_max()]);
        bench.receive().expect("live");
    }
    let within = (bench.receiver.tail() % RING_BYTES) as usize;
    bench.send(b"x");
    let mut padding = [1; 7];
    let offset = layout::RECORDS_OFFSET + within + layout::COMMIT_BYTES + 1;
    bench.ring.reader.copy_out(offset, &mut padding).expect("inside");
    assert_eq!(padding, [0; 7]);
}

#[test]
fn a_small_buffer_leaves_the_message() {
    let mut bench = Bench::new();
    bench.send(b"twelve bytes");
    let mut small = [0; 11];
    let refusal = ReceiveError::BufferTooSmall { needed_bytes: 12, given_bytes: 11 };
    assert_eq!(bench.receiver.try_receive_into(&mut small), Err(refusal));
    bench.receiver.acknowledge();
    assert_eq!(bench.receiver.taken(), 0, "what was refused cannot be acknowledged");
    let mut large = [0; 20];
    assert_eq!(bench.receiver.try_receive_into(&mut large), Ok(Some((RecordHeader::default(), 12))));
    assert_eq!(&large[..12], b"twelve bytes");
}

#[test]
fn a_peeked_message_is_taken_once() {
    let mut bench = Bench::new();
    bench.send(b"one");
    bench.send(b"two");
    let mut out = Vec::new();
    for _ in 0..2 {
        bench.receiver.peek(&mut out).expect("live").expect("a message");
        assert_eq!(out, b"one");
    }
    assert_eq!(bench.sender.acknowledged().messages, 0);
    bench.receiver.acknowledge();
    bench.receiver.acknowledge();
    assert_eq!(bench.sender.acknowledged().messages, 1);
    assert_eq!(bench.receive(), Ok(Some(b"two".to_vec())));
}

#[test]
fn acknowledgements_are_counted_while_positions_wrap() {
    let mut bench = Bench::starting_at(u32::MAX - 7);
    for count in 1..=600 {
        bench.send(b"across the end of the positions");
        bench.receive().expect("live").expect("a message");
        assert_eq!(bench.sender.acknowledged(), Acknowledged { messages: count, sent: count });
    }
}

#[test]
fn revocation_drops_what_is_untaken() {
    let mut bench = Bench::new();
    bench.send(b"one");
    bench.send(b"two");
    assert_eq!(bench.receive(), Ok(Some(b"one".to_vec())));
    bench.set_status(layout::WORD_REVOKED);
    let end = Ending::Revoked;
    assert_eq!(bench.receive(), Err(ReceiveError::Ended(end)), "also below a head already seen");
    assert_eq!(bench.sender.try_send(RecordHeader::default(), b"three"), Err(SendError::Ended(end)));
    bench.set_status(GENERATION);
    assert_eq!(bench.receive(), Err(ReceiveError::Ended(end)), "for ever");
    assert_eq!(bench.receiver.ending(), Some(end));
    assert_eq!(bench.sender.ending(), Some(end));
    assert_eq!(bench.sender.acknowledged(), Acknowledged { messages: 1, sent: 2 });
}

#[test]
fn a_message_peeked_before_the_revocation_counts_as_taken() {
    let mut bench = Bench::new();
    bench.send(b"one");
    let mut out = Vec::new();
    bench.receiver.peek(&mut out).expect("live").expect("a message");
    bench.set_status(layout::WORD_REVOKED);
    bench.receiver.acknowledge();
    assert_eq!(bench.sender.acknowledged().messages, 1);
}

#[test]
fn the_dead_senders_messages_arrive_and_no_others() {
    let mut bench = Bench::new();
    bench.send(b"one");
    bench.send(b"two");
    bench.set_status(layout::WORD_DEAD);
    assert_eq!(bench.receive(), Ok(Some(b"one".to_vec())));
    // A forked child goes on: the position was pinned when the death was seen.
    bench
        .ring
        .writer
        .copy_in(layout::RECORDS_OFFSET + 32, &RecordHeader::default().commit(0).to_ne_bytes())
        .expect("inside");
    assert_eq!(bench.receive(), Ok(Some(b"two".to_vec())));
    for _ in 0..2 {
        assert_eq!(bench.receive(), Err(ReceiveError::Ended(Ending::PeerDead)));
        assert_eq!(bench.receiver.ending(), Some(Ending::PeerDead));
    }
}

#[test]
fn a_dead_senders_lane_can_still_be_revoked() {
    let mut bench = Bench::new();
    bench.send(b"one");
    bench.send(b"two");
    bench.set_status(layout::WORD_DEAD);
    assert_eq!(bench.receive(), Ok(Some(b"one".to_vec())));
    bench.set_status(layout::WORD_REVOKED);
    assert_eq!(bench.receive(), Err(ReceiveError::Ended(Ending::Revoked)));
}

#[test]
fn a_sender_learns_the_dead_receivers_last_word() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.send(b"message");
    }
    bench.receive().expect("live");
    bench.receive().expect("live");
    bench.set_status(layout::WORD_DEAD);
    let last = Acknowledged { messages: 2, sent: 3 };
    assert_eq!(bench.sender.acknowledged(), last);
    bench.ack.writer.store_u32(layout::MESSAGES_OFFSET, 3, Ordering::Release);
    assert_eq!(bench.sender.acknowledged(), last, "what comes after the end is not believed");
    let refusal = bench.sender.try_send(RecordHeader::default(), b"");
    assert_eq!(refusal, Err(SendError::Ended(Ending::PeerDead)));
}

#[test]
fn a_receiver_sleeps_on_the_position_and_the_brokers_word() {
    let mut bench = Bench::starting_at(64);
    let Wait::Sleep(sleep_on) = bench.receiver_waits() else { panic!("nothing to receive") };
    assert_eq!(sleep_on.peer.1, 64);
    assert_eq!(sleep_on.broker.1, GENERATION);
    let address = bench.sender.receiver_wakes_on().as_ptr();
    assert_eq!(sleep_on.peer.0.as_ptr(), address, "heap memory has one address for both");
    bench.send(b"wake up");
    assert_eq!(bench.sender.must_wake_receiver(), Some(WakeBy::Futex));
    assert_ne!(sleep_on.peer.0.load(Ordering::Acquire), sleep_on.peer.1);
    bench.receiver.finish_wait();
    assert_eq!(bench.sender.must_wake_receiver(), None);
    assert!(matches!(bench.receiver_waits(), Wait::Ready));
    bench.receiver.finish_wait();
    bench.receiver.announce_wait(WakeBy::Doorbell);
    assert_eq!(bench.sender.must_wake_receiver(), Some(WakeBy::Doorbell));
}

#[test]
fn a_sender_sleeps_until_there_is_space() {
    let mut bench = Bench::new();
    let payload = vec![0; bench.sender.payload_bytes_max()];
    bench.send(b"in the way");
    let full = bench.sender.try_send(RecordHeader::default(), &payload);
    let Err(SendError::Full { needed_bytes }) = full else { panic!("{full:?} where there is no space") };
    let Wait::Sleep(sleep_on) = bench.sender_waits(needed_bytes) else { panic!("no space") };
    assert_eq!(sleep_on.peer.1, 0);
    bench.receive().expect("live");
    assert_eq!(bench.receiver.must_wake_sender(), Some(WakeBy::Futex));
    assert_eq!(sleep_on.peer.0.as_ptr(), bench.receiver.sender_wakes_on().as_ptr());
    assert_ne!(sleep_on.peer.0.load(Ordering::Acquire), sleep_on.peer.1);
    bench.sender.finish_wait();
    assert_eq!(bench.receiver.must_wake_sender(), None);
    assert!(matches!(bench.sender_waits(needed_bytes), Wait::Ready));
    bench.send(&payload);
}

#[test]
fn a_sender_is_woken_when_a_quarter_of_the_ring_is_free_and_not_before() {
    let mut bench = Bench::new();
    // 31 records of 128 bytes, and a last one of 120.
    for _ in 0..31 {
        bench.send(&[0; 120]);
    }
    bench.send(&[0; 112]);
    let Wait::Sleep(_) = bench.sender_waits(RING_BYTES / 2) else { panic!("no space") };
    let woken: Vec<bool> = (0..32)
        .map(|_| {
            bench.receive().expect("live").expect("a message");
            bench.receiver.must_wake_sender().is_some()
        })
        .collect();
    let first = woken.iter().position(|&woken| woken);
    assert_eq!(first, Some(7), "4088 - 8 * 128 <= 3072: {woken:?}");
    assert!(woken[7..].iter().all(|&woken| woken));
    bench.forge_head(bench.receiver.tail().wrapping_sub(8));
    assert!(bench.receiver.must_wake_sender().is_some(), "also where the position lags behind");
}

#[test]
fn nobody_sleeps_on_a_lane_that_is_over() {
    let mut bench = Bench::new();
    for word in [layout::WORD_DEAD, layout::WORD_REVOKED] {
        bench.set_status(word);
        assert!(matches!(bench.receiver_waits(), Wait::Ready));
        assert!(matches!(bench.sender_waits(u32::MAX), Wait::Ready));
    }
}

#[test]
fn a_batch_is_seen_whole_or_not_at_all() {
    let mut bench = Bench::new();
    bench.send(b"before");
    let mut batch = bench.sender.batch().expect("a live lane");
    for payload in [&b"one"[..], b"two", b"three"] {
        batch.push(RecordHeader { message_type: 4, ..RecordHeader::default() }, payload).expect("space");
    }
    assert_eq!(batch.messages(), 3);
    assert_eq!(bench.receiver.try_receive(&mut Vec::new()).map(|got| got.is_some()), Ok(true));
    assert_eq!(bench.receiver.try_receive(&mut Vec::new()), Ok(None), "nothing of it before the commit");
    batch.commit().1.expect("a live lane");
    for payload in [&b"one"[..], b"two", b"three"] {
        assert_eq!(bench.receive(), Ok(Some(payload.to_vec())));
    }
    assert_eq!(bench.sender.acknowledged(), Acknowledged { messages: 4, sent: 4 });
}

#[test]
fn a_batch_begun_before_a_revocation_is_not_committed_after_it() {
    let mut bench = Bench::new();
    let mut batch = bench.sender.batch().expect("a live lane");
    batch.push(RecordHeader::default(), b"one").expect("space");
    bench.page.writer.store_u32(STATUS_OFFSET, layout::WORD_REVOKED, Ordering::Release);
    assert_eq!(batch.commit().1, Err(SendError::Ended(Ending::Revoked)));
    assert_eq!(bench.sender.acknowledged(), Acknowledged { messages: 0, sent: 0 });
}

#[test]
fn more_than_was_lent_is_not_sent() {
    let mut bench = Bench::new();
    let loan = bench.sender.try_loan(RecordHeader::default(), 10).expect("space");
    let refused = SendError::TooLarge { asked_bytes: 11, bytes_max: 10 };
    assert_eq!(loan.commit(11).1, Err(refused));
    assert_eq!(bench.receive(), Ok(None));
}

#[test]
fn a_fence_is_left_out_only_where_both_sides_have_declared_it() {
    for (own, peer, needs_fence) in [
        (Barrier::All, Barrier::All, false),
        (Barrier::All, Barrier::Own, true),
        (Barrier::Own, Barrier::All, true),
        (Barrier::Own, Barrier::Own, true),
    ] {
        let page = heap::memory(layout::PAGE_BYTES);
        peer.declare(&page.writer);
        assert_eq!(own.needs_fence(&page.reader), needs_fence, "{own:?} {peer:?}");
    }
}

#[test]
fn nor_does_padding_behind_what_was_written_in_place() {
    let mut bench = Bench::new();
    let whole_bytes = bench.sender.payload_bytes_max();
    let fill = |bench: &mut Bench, payload_bytes, byte| {
        bench.sender.acknowledged();
        assert!(bench.sender.send_plain_with(payload_bytes, &mut |place: &mut [u8]| place.fill(byte)));
    };
    fill(&mut bench, whole_bytes - 64, 0xFF);
    bench.receive().expect("live");
    // Around the ring's end once, so that the rest is in its middle.
    fill(&mut bench, 100, 0xEE);
    bench.receive().expect("live");
    let at = bench.receiver.tail() % RING_BYTES;
    fill(&mut bench, 9, 0xDD);
    let mut record = [1; 24];
    bench.ring.reader.copy_out(layout::RECORDS_OFFSET + at as usize, &mut record).expect("inside");
    assert_eq!(record[8..], [[0xDD; 9].as_slice(), &[0; 7]].concat());
}

#[test]
fn what_is_handed_on_is_acknowledged_by_the_quarter_ring() {
    let mut bench = Bench::new();
    // Ten of them are a quarter and a little more.
    for _ in 0..24 {
        bench.send(&[7; 104]);
    }
    let Bench { sender, receiver, .. } = &mut bench;
    let mut seen = Vec::new();
    let count = receiver.take_each(&mut Vec::new(), 100, |_, _| {
        seen.push(sender.acknowledged().messages);
        ControlFlow::Continue(())
    });
    assert_eq!((count, seen), (24, (0..24).map(|before| before / 10 * 10).collect()));
    assert_eq!(sender.acknowledged(), Acknowledged { messages: 24, sent: 24 });
}

#[test]
fn a_sender_that_waits_is_woken_when_a_quarter_is_free() {
    let mut bench = Bench::new();
    for _ in 0..7 {
        bench.send(&[7; 504]);
    }
    assert!(matches!(bench.sender_waits(1000), Wait::Sleep(_)));
    assert_eq!(bench.receiver.must_wake_sender(), None, "an eighth is free");
    bench.receive().expect("live").expect("a message");
    assert_eq!(bench.receiver.must_wake_sender(), Some(WakeBy::Futex));
}

#[test]
fn what_can_never_be_written_in_place_is_refused_before_anyone_is_asked_to() {
    let mut bench = Bench::new();
    let bytes_max = bench.sender.payload_bytes_max();
    let mut nobody = |_: &mut [u8]| unreachable!("there is no room");
    for payload_bytes in [bytes_max + 1, RING_BYTES as usize, usize::MAX] {
        assert!(!bench.sender.send_plain_with(payload_bytes, &mut nobody));
        let refused = bench.sender.try_send_each(1, payload_bytes, &mut |_, place| nobody(place));
        assert_eq!(refused, Err(SendError::TooLarge { asked_bytes: payload_bytes, bytes_max }));
    }
    let refused = bench.sender.try_send_each(usize::MAX, 8, &mut |_, place| nobody(place));
    assert_eq!(refused, Err(SendError::TooLarge { asked_bytes: usize::MAX, bytes_max }));
    assert_eq!(bench.sender.try_send_each(0, 8, &mut |_, place| nobody(place)), Ok(()));
    assert_eq!(bench.sender.acknowledged().sent, 0);
}

#[test]
fn what_is_revoked_while_it_is_written_in_place_is_not_sent() {
    for is_batch in [false, true] {
        let mut bench = Bench::new();
        let broker = bench.page.writer.clone();
        let revoke = || broker.store_u32(STATUS_OFFSET, layout::WORD_REVOKED, Ordering::Release);
        if is_batch {
            let sent = bench.sender.try_send_each(3, 8, &mut |index, _| {
                if index == 1 {
                    revoke();
                }
            });
            assert_eq!(sent, Err(SendError::Ended(Ending::Revoked)));
        } else {
            assert!(!bench.sender.send_plain_with(8, &mut |_: &mut [u8]| revoke()));
        }
        assert_eq!(bench.sender.acknowledged().sent, 0);
        let mut commit = [1; 8];
        bench.ring.reader.copy_out(layout::RECORDS_OFFSET, &mut commit).expect("inside");
        assert_eq!(commit, [0; 8], "nothing is committed");
    }
}
