//! A lane whose messages say when they were sent: what is stamped, when, and that nobody gets the stamp with the payload.

use core::cell::Cell;
use std::thread_local;

use proptest::prelude::*;

use super::*;
use crate::lane::{Stamp, declare_clock, declared_clock};

thread_local! {
    static TIME: Cell<u64> = const { Cell::new(0) };
}

/// A clock that goes one further with each look at it.
fn tick() -> u64 {
    TIME.set(TIME.get() + 1);
    TIME.get()
}

impl Bench {
    /// As [`Bench::starting_at`], stamped.
    fn stamped_at(position: u32) -> Self {
        TIME.set(100);
        let Bench { sender, receiver, ring, ack, page } = Self::starting_at(position);
        Self { sender: sender.stamping(tick), receiver: receiver.stamped(), ring, ack, page }
    }

    fn next_alleged(&mut self) -> Option<u64> {
        self.receiver.next_stamp().expect("a live lane").map(|stamp| stamp.alleged_ns)
    }
}

const EXTENDED: RecordHeader = RecordHeader { message_type: 7, flags: 8, ticket: 9 };

#[test]
fn each_message_is_stamped_and_comes_without_its_stamp() {
    let mut bench = Bench::stamped_at(0);
    bench.send(b"one");
    bench.sender.try_send(EXTENDED, b"two").unwrap();
    bench.sender.try_send_parts(EXTENDED, &[b"8 bytes!", b"three"]).unwrap();
    bench.send(b"");
    let expected: [(u64, RecordHeader, &[u8]); 4] = [
        (101, RecordHeader::default(), b"one"),
        (102, EXTENDED, b"two"),
        (103, EXTENDED, b"8 bytes!three"),
        (104, RecordHeader::default(), b""),
    ];
    for (alleged_ns, header, payload) in expected {
        let position = bench.receiver.tail();
        assert_eq!(bench.receiver.next_stamp(), Ok(Some(Stamp { alleged_ns, position })));
        let mut out = vec![1; 3];
        assert_eq!(bench.receiver.try_receive(&mut out), Ok(Some(header)));
        assert_eq!(out, payload);
    }
    assert_eq!(bench.next_alleged(), None);
}

#[test]
fn messages_that_are_committed_together_have_one_stamp_which_is_read_then() {
    let mut bench = Bench::stamped_at(0);
    bench.sender.try_send_all(&[b"first", b"second", b"third"]).unwrap();
    let mut batch = bench.sender.batch().unwrap();
    batch.push(EXTENDED, b"fourth").unwrap();
    batch.push(RecordHeader::default(), b"fifth").unwrap();
    assert_eq!(tick(), 102, "what is not committed is not stamped");
    batch.commit().1.unwrap();
    assert!(!bench.sender.send_plain_with(5, &mut |_: &mut [u8]| unreachable!("it would not be stamped")));
    let mut write = |index, place: &mut [u8]| {
        assert!(index > 0 || tick() == 104, "what is being written is not stamped");
        place.copy_from_slice(b"place");
    };
    bench.sender.try_send_each(2, 5, &mut write).unwrap();
    let mut stamps = Vec::new();
    while let Some(alleged_ns) = bench.next_alleged() {
        stamps.push((alleged_ns, bench.receive().unwrap().unwrap()));
    }
    let payloads: [&[u8]; 7] = [b"first", b"second", b"third", b"fourth", b"fifth", b"place", b"place"];
    let expected = [101, 0, 0, 103, 0, 105, 0].into_iter().zip(payloads.map(<[u8]>::to_vec));
    assert_eq!(stamps, expected.collect::<Vec<_>>());
}

#[test]
fn a_loan_is_stamped_when_it_is_committed_also_behind_a_gap() {
    let mut bench = Bench::stamped_at(RING_BYTES - 64);
    for (header, alleged_ns) in [(RecordHeader::default(), 102), (EXTENDED, 104)] {
        let mut loan = bench.sender.try_loan(header, 100).unwrap();
        assert_eq!(loan.payload().len(), 100);
        loan.payload_mut()[..6].copy_from_slice(b"lent!!");
        assert_eq!(tick(), alleged_ns - 1, "what is lent is not stamped");
        loan.commit(6).1.unwrap();
        assert_eq!(bench.next_alleged(), Some(alleged_ns));
        assert_eq!(bench.receive(), Ok(Some(b"lent!!".to_vec())));
    }
}

#[test]
fn a_stamp_takes_its_bytes_from_the_largest_message() {
    let mut plain = Bench::new();
    let mut bench = Bench::stamped_at(0);
    let (bytes_max, loan_max) = (bench.sender.payload_bytes_max(), bench.sender.loan_bytes_max());
    assert_eq!(bytes_max + 8, plain.sender.payload_bytes_max());
    assert_eq!(loan_max + 8, plain.sender.loan_bytes_max());
    let too_large = |asked_bytes, bytes_max| SendError::TooLarge { asked_bytes, bytes_max };
    let payload = vec![5; bytes_max + 1];
    let refused = Err(too_large(bytes_max + 1, bytes_max));
    assert_eq!(bench.sender.try_send(EXTENDED, &payload), refused);
    assert_eq!(bench.sender.batch().unwrap().push(EXTENDED, &payload), refused);
    assert_eq!(bench.sender.try_loan(EXTENDED, loan_max + 1).unwrap_err(), too_large(loan_max + 1, loan_max));
    // Of a batch what its records take is said: each its word and its stamp.
    let refused = Err(too_large(bytes_max + 16 + 8 + 16, bytes_max));
    assert_eq!(bench.sender.try_send_all(&[&payload[..bytes_max], &payload[..8]]), refused);
    bench.sender.try_send(EXTENDED, &payload[..bytes_max]).unwrap();
    assert!(matches!(bench.sender.try_send_all(&[b"x"]), Err(SendError::Full { needed_bytes: 32 })));
    assert_eq!(bench.receive().unwrap().unwrap().len(), bytes_max);
    bench.sender.try_loan(EXTENDED, loan_max).unwrap().commit(loan_max).1.unwrap();
    assert_eq!(bench.receive().unwrap().unwrap(), vec![5; loan_max].as_slice(), "what was there before");
    assert_eq!(plain.receive(), Ok(None));
}

#[test]
fn what_is_stamped_and_sent_together_may_fill_the_ring_and_waits_for_room_for_all() {
    let mut bench = Bench::stamped_at(0);
    let (first, second) = (vec![1; 2000], vec![2; RING_BYTES as usize - 8 - 2016 - 16]);
    let all: [&[u8]; 2] = [&first, &second];
    // So much that there is not even room for the first.
    bench.send(&[0; 2200]);
    assert_eq!(bench.sender.try_send_all(&all), Err(SendError::Full { needed_bytes: RING_BYTES }));
    bench.receive().unwrap().unwrap();
    assert_eq!(bench.sender.try_send_all(&all), Ok(()));
    assert_eq!((bench.receive(), bench.receive()), (Ok(Some(first.clone())), Ok(Some(second.clone()))));
    let bytes_max = bench.sender.payload_bytes_max();
    let refused = Err(SendError::TooLarge { asked_bytes: RING_BYTES as usize, bytes_max });
    assert_eq!(bench.sender.try_send_all(&[&first, &[&second[..], b"1"].concat()]), refused);
}

#[test]
fn the_ordinary_ways_send_and_take_nothing_on_a_stamped_lane() {
    let mut bench = Bench::stamped_at(0);
    assert!(!bench.sender.send_plain(0, b"unstamped"));
    bench.send(b"stamped");
    let mut out = Vec::new();
    assert_eq!(bench.receiver.take_plain(&mut out), None);
    assert_eq!(bench.receiver.take_each(&mut out, 5, |_, _| ControlFlow::Continue(())), 0);
    assert!(bench.receiver.is_ready());
    assert!(matches!(bench.receiver_waits(), Wait::Ready));
    let mut told = Vec::new();
    bench
        .receiver
        .peek_many(&mut out, 5, |start, end, _| {
            told.push((start, end));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((&told[..], &out[..]), (&[(0, 7)][..], &b"stamped"[..]));
    bench.receiver.acknowledge();
    assert!(!bench.receiver.is_ready());
    assert!(matches!(bench.receiver_waits(), Wait::Sleep(_)));
}

#[test]
fn a_look_at_the_stamp_takes_nothing_and_a_plain_lane_has_none() {
    let mut bench = Bench::stamped_at(0);
    bench.send(b"here");
    let mut out = Vec::new();
    bench.receiver.peek(&mut out).unwrap().unwrap();
    for _ in 0..3 {
        assert_eq!(bench.next_alleged(), Some(101));
        assert!(!bench.receiver.has_peeked());
    }
    let mut small = [0; 3];
    let too_small = ReceiveError::BufferTooSmall { needed_bytes: 4, given_bytes: 3 };
    assert_eq!(bench.receiver.try_receive_into(&mut small), Err(too_small));
    assert_eq!(bench.receiver.try_receive_into(&mut [0; 4]).map(|got| got.map(|(_, len)| len)), Ok(Some(4)));
    let mut plain = Bench::new();
    plain.send(b"a stamp? no");
    assert_eq!(plain.next_alleged(), None);
    assert_eq!(plain.receive(), Ok(Some(b"a stamp? no".to_vec())));
}

#[test]
fn what_a_dead_sender_had_stamped_is_received_and_what_a_revoked_one_had_is_not() {
    let mut bench = Bench::stamped_at(0);
    bench.send(b"last words");
    bench.set_status(layout::WORD_DEAD);
    assert_eq!(bench.next_alleged(), Some(101));
    assert_eq!(bench.receive(), Ok(Some(b"last words".to_vec())));
    assert_eq!(bench.receiver.next_stamp(), Err(ReceiveError::Ended(Ending::PeerDead)));
    assert_eq!(bench.sender.try_send_all(&[b"x"]), Err(SendError::Ended(Ending::PeerDead)));
    let mut bench = Bench::stamped_at(0);
    bench.send(b"too late");
    bench.set_status(layout::WORD_REVOKED);
    assert_eq!(bench.receiver.next_stamp(), Err(ReceiveError::Ended(Ending::Revoked)));
    assert_eq!(bench.sender.try_send(EXTENDED, b"x"), Err(SendError::Ended(Ending::Revoked)));
    assert_eq!((bench.receiver.fault(), bench.receiver.ending()), (None, Some(Ending::Revoked)));
    assert_eq!((bench.sender.fault(), bench.sender.ending()), (None, Some(Ending::Revoked)));
}

#[test]
fn a_ring_says_by_which_clock_it_is_stamped() {
    let bench = Bench::new();
    assert_eq!(declared_clock(&bench.ring.reader), None);
    declare_clock(&bench.ring.writer, 4_026_531_834);
    assert_eq!(declared_clock(&bench.ring.reader), Some(4_026_531_834));
}

#[derive(Clone, Debug)]
enum Step {
    Send(usize, bool),
    SendAll(Vec<usize>),
    SendEach(usize, usize),
    Loan(usize),
    Receive,
    ReceiveInto,
    PeekMany(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..900_usize, any::<bool>()).prop_map(|(bytes, is_extended)| Step::Send(bytes, is_extended)),
        prop::collection::vec(0..500_usize, 0..5).prop_map(Step::SendAll),
        (0..9_usize, 0..300_usize).prop_map(|(count, bytes)| Step::SendEach(count, bytes)),
        (0..1500_usize).prop_map(Step::Loan),
        Just(Step::Receive),
        Just(Step::ReceiveInto),
        (1..6_usize).prop_map(Step::PeekMany),
    ];
    prop::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 400 }))]

    /// Around the ring's end and the end of positions, whatever is sent comes out as it was, and stamps never go back.
    #[test]
    fn what_goes_in_stamped_comes_out_without(position in prop_oneof![Just(0), Just(u32::MAX - 799)], steps in steps()) {
        let mut bench = Bench::stamped_at(position);
        let (mut sent, mut received) = (Vec::new(), Vec::new());
        let (mut number, mut latest) = (0_u8, 0);
        let mut payload = |bytes: usize| {
            number = number.wrapping_add(1);
            vec![number; bytes]
        };
        for step in steps {
            match step {
                Step::Send(bytes, is_extended) => {
                    let (bytes, header) = (payload(bytes), if is_extended { EXTENDED } else { RecordHeader::default() });
                    if bench.sender.try_send(header, &bytes).is_ok() {
                        sent.push(bytes);
                    }
                }
                Step::SendAll(sizes) => {
                    let all: Vec<_> = sizes.into_iter().map(&mut payload).collect();
                    let parts: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
                    if bench.sender.try_send_all(&parts).is_ok() {
                        sent.extend(all);
                    }
                }
                Step::SendEach(count, bytes) => {
                    let bytes = payload(bytes);
                    let write = &mut |_, place: &mut [u8]| place.copy_from_slice(&bytes);
                    if bench.sender.try_send_each(count, bytes.len(), write).is_ok() {
                        sent.extend(vec![bytes; count]);
                    }
                }
                Step::Loan(bytes) => {
                    let bytes = payload(bytes);
                    if let Ok(mut loan) = bench.sender.try_loan(EXTENDED, bytes.len()) {
                        loan.payload_mut().copy_from_slice(&bytes);
                        loan.commit(bytes.len()).1.unwrap();
                        sent.push(bytes);
                    }
                }
                Step::Receive => {
                    if let Some(alleged_ns) = bench.next_alleged() {
                        prop_assert!(alleged_ns == 0 || alleged_ns > latest);
                        latest = latest.max(alleged_ns);
                    }
                    received.extend(bench.receive().unwrap());
                }
                Step::ReceiveInto => {
                    let mut out = vec![0; RING_BYTES as usize];
                    if let Some((_, len)) = bench.receiver.try_receive_into(&mut out).unwrap() {
                        received.push(out[..len].to_vec());
                    }
                }
                Step::PeekMany(max) => {
                    let (mut out, mut ends) = (Vec::new(), Vec::new());
                    bench.receiver.peek_many(&mut out, max, |start, end, _| {
                        ends.push((start, end));
                        ControlFlow::Continue(())
                    }).unwrap();
                    bench.receiver.acknowledge();
                    received.extend(ends.into_iter().map(|(start, end)| out[start..end].to_vec()));
                }
            }
        }
        while let Some(bytes) = bench.receive().unwrap() {
            received.push(bytes);
        }
        prop_assert_eq!(sent, received);
    }
}
