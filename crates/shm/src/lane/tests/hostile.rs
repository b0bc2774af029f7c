//! A peer that writes whatever it likes, whenever it likes: no panic, no endless loop, only named outcomes, and the lane
//! beside it goes on. Every fault by its name is in `refusals`.

use core::ops::ControlFlow;

use proptest::prelude::*;

use super::*;
use crate::view::View;

#[derive(Clone, Debug)]
enum Step {
    Send { payload_bytes: usize },
    SendAll { sizes: Vec<usize> },
    SendEach { count: usize, payload_bytes: usize },
    Batch { sizes: Vec<usize>, is_committed: bool },
    Loan { payload_bytes: usize, is_committed: bool },
    Receive,
    ReceiveInto { bytes: usize },
    TakePlain,
    TakeEach { max: usize },
    PeekThenScribbleThenAcknowledge { offset: usize, word: u32 },
    PeekMore { is_acknowledged: bool },
    PeekMany { max: usize, stop_after: usize, is_acknowledged: bool },
    Forget,
    Acknowledge,
    ForgeCommit { word: u64 },
    ForgeRecords { commits: Vec<u64>, extension: u64 },
    Scribble { offset: usize, bytes: Vec<u8> },
    MovePosition { by: u32 },
    SetPosition { position: u32 },
    SetMessages { messages: u32 },
    SetWaiting { waiting: u32 },
    PrepareWaits,
    SetStatus { word: u32 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let near = prop_oneof![Just(8), Just(16), Just(24), Just(4096), 0..5000_u32, any::<u32>()];
    let word = prop_oneof![0..64_u32, 4000..4200_u32, any::<u32>()];
    let step = prop_oneof![
        6 => (0..700_usize).prop_map(|payload_bytes| Step::Send { payload_bytes }),
        2 => prop::collection::vec(0..900_usize, 0..6).prop_map(|sizes| Step::SendAll { sizes }),
        2 => (0..20_usize, 0..900_usize)
            .prop_map(|(count, payload_bytes)| Step::SendEach { count, payload_bytes }),
        2 => (prop::collection::vec(0..900_usize, 0..6), any::<bool>())
            .prop_map(|(sizes, is_committed)| Step::Batch { sizes, is_committed }),
        2 => (0..2500_usize, any::<bool>())
            .prop_map(|(payload_bytes, is_committed)| Step::Loan { payload_bytes, is_committed }),
        8 => Just(Step::Receive),
        2 => (0..800_usize).prop_map(|bytes| Step::ReceiveInto { bytes }),
        2 => Just(Step::TakePlain),
        2 => (0..40_usize).prop_map(|max| Step::TakeEach { max }),
        3 => (0..40_usize, 0..40_usize, any::<bool>()).prop_map(|(max, stop_after, is_acknowledged)| {
            Step::PeekMany { max, stop_after, is_acknowledged }
        }),
        1 => Just(Step::Forget),
        1 => Just(Step::Acknowledge),
        2 => (0..1024_usize, word).prop_map(|(index, word)| {
            Step::PeekThenScribbleThenAcknowledge { offset: index * 4, word }
        }),
        2 => any::<bool>().prop_map(|is_acknowledged| Step::PeekMore { is_acknowledged }),
        3 => commit().prop_map(|word| Step::ForgeCommit { word }),
        3 => (prop::collection::vec(commit(), 1..8), any::<u64>())
            .prop_map(|(commits, extension)| Step::ForgeRecords { commits, extension }),
        3 => (0..8000_usize, prop::collection::vec(any::<u8>(), 1..64))
            .prop_map(|(offset, bytes)| Step::Scribble { offset, bytes }),
        1 => near.prop_map(|by| Step::MovePosition { by: by / 8 * 8 }),
        1 => any::<u32>().prop_map(|position| Step::SetPosition { position }),
        1 => prop_oneof![0..20_u32, any::<u32>()].prop_map(|messages| Step::SetMessages { messages }),
        1 => any::<u32>().prop_map(|waiting| Step::SetWaiting { waiting }),
        2 => Just(Step::PrepareWaits),
        1 => prop_oneof![
            8 => Just(GENERATION),
            1 => Just(layout::WORD_DEAD),
            1 => Just(layout::WORD_REVOKED),
            1 => any::<u32>()
        ].prop_map(|word| Step::SetStatus { word }),
    ];
    prop::collection::vec(step, 1..120)
}

/// Plain, extended and padding, of sizes that fit and that do not, and of no kind at all.
fn commit() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (1..3_u64, 0..300_u64).prop_map(|(kind, size)| kind << 30 | size),
        2 => (0..4_u64, 0..5000_u64).prop_map(|(kind, size)| kind << 30 | size),
        1 => any::<u64>(),
    ]
}

/// Which side of the lane misbehaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Hostile {
    Sender,
    Receiver,
}

/// What the honest side has reported as final, so that it can be held to it.
#[derive(Default)]
struct Finals {
    receive: Option<ReceiveError>,
    send: Option<SendError>,
}

fn run_step(bench: &mut Bench, hostile: Hostile, finals: &mut Finals, step: Step) {
    let memory = match hostile {
        Hostile::Sender => bench.ring.writer.clone(),
        Hostile::Receiver => bench.ack.writer.clone(),
    };
    match step {
        Step::Send { payload_bytes } => send(bench, finals, payload_bytes),
        Step::Receive => receive(bench, finals),
        Step::PeekThenScribbleThenAcknowledge { offset, word } => {
            let mut out = Vec::new();
            let taken = bench.receiver.taken();
            let peeked = bench.receiver.peek(&mut out);
            let _ = memory.copy_in(offset, &word.to_ne_bytes());
            bench.receiver.acknowledge();
            let delivered = u64::from(matches!(peeked, Ok(Some(_))));
            assert_eq!(bench.receiver.taken(), taken + delivered);
        }
        Step::SendAll { .. } | Step::SendEach { .. } | Step::Batch { .. } | Step::Loan { .. } => {
            send_in_parts(bench, &step);
        }
        Step::ReceiveInto { .. }
        | Step::TakePlain
        | Step::TakeEach { .. }
        | Step::PeekMore { .. }
        | Step::PeekMany { .. }
        | Step::Forget
        | Step::Acknowledge => receive_otherwise(bench, finals, &step),
        Step::ForgeCommit { word } => {
            if hostile == Hostile::Sender {
                bench.forge_commit(word);
            }
        }
        Step::ForgeRecords { commits, extension } => {
            if hostile == Hostile::Sender {
                forge_records(bench, &commits, extension);
            }
        }
        Step::Scribble { offset, bytes } => {
            let _ = memory.copy_in(offset, &bytes);
        }
        Step::MovePosition { by } => {
            let position = memory.load_u32(layout::POSITION_OFFSET, Ordering::Relaxed).wrapping_add(by);
            memory.store_u32(layout::POSITION_OFFSET, position, Ordering::Release);
        }
        Step::SetPosition { position } => {
            memory.store_u32(layout::POSITION_OFFSET, position, Ordering::Release);
        }
        Step::SetMessages { messages } => {
            memory.store_u32(layout::MESSAGES_OFFSET, messages, Ordering::Release);
        }
        Step::SetWaiting { waiting } => {
            memory.store_u32(layout::WAITING_OFFSET, waiting, Ordering::Release);
        }
        Step::PrepareWaits => {
            bench.receiver_waits();
            bench.receiver.finish_wait();
            bench.sender_waits(512);
            bench.sender.finish_wait();
            let _ = (bench.receiver.must_wake_sender(), bench.sender.must_wake_receiver());
        }
        Step::SetStatus { word } => bench.set_status(word),
    }
}

/// The ways to send that are not one message at once. What they send is told by the honest end, in `model`.
fn send_in_parts(bench: &mut Bench, step: &Step) {
    let before = bench.sender.acknowledged().sent;
    let sent = match step {
        Step::SendAll { sizes } => {
            let payloads: Vec<Vec<u8>> = sizes.iter().map(|&len| vec![0x5B; len]).collect();
            let borrowed: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
            bench.sender.try_send_all(&borrowed).map(|()| borrowed.len() as u64)
        }
        Step::SendEach { count, payload_bytes } => {
            let fill = |place: &mut [u8]| place.fill(0x5D);
            if *count == 1 && bench.sender.send_plain_with(*payload_bytes, &mut { fill }) {
                Ok(1)
            } else {
                let sent = bench.sender.try_send_each(*count, *payload_bytes, &mut |_, place| fill(place));
                sent.map(|()| *count as u64)
            }
        }
        Step::Batch { sizes, is_committed } => bench.sender.batch().and_then(|mut batch| {
            for &len in sizes {
                let _ = batch.push(RecordHeader { flags: 1, ..RecordHeader::default() }, &vec![0x5C; len]);
            }
            let messages = if *is_committed { batch.messages() } else { return Ok(0) };
            batch.commit().1.map(|()| messages)
        }),
        Step::Loan { payload_bytes, is_committed } => {
            bench.sender.try_loan(RecordHeader::default(), *payload_bytes).and_then(|mut loan| {
                loan.payload_mut().fill(0x5D);
                if *is_committed { loan.commit(payload_bytes / 2).1.map(|()| 1) } else { Ok(0) }
            })
        }
        _ => unreachable!("those are all"),
    };
    let after = bench.sender.acknowledged();
    assert_eq!(after.sent, before + sent.unwrap_or(0), "what is not sent does not count");
    assert!(after.messages <= after.sent);
}

fn receive_otherwise(bench: &mut Bench, finals: &Finals, step: &Step) {
    let taken = bench.receiver.taken();
    let mut out = Vec::new();
    let mut told = 0;
    let received = match *step {
        Step::ReceiveInto { bytes } => {
            let got = bench.receiver.try_receive_into(&mut vec![0; bytes]);
            told += u64::from(matches!(got, Ok(Some((_, len))) if len <= bytes));
            assert_eq!(bench.receiver.taken(), taken + told);
            got.map(drop)
        }
        Step::TakePlain => {
            let got = bench.receiver.take_plain(&mut out);
            assert!(got.is_none_or(|(_, len)| len <= out.len()) && out.len() <= RING_BYTES as usize);
            out.truncate(got.map_or(0, |(_, len)| len));
            told += u64::from(got.is_some());
            assert_eq!(bench.receiver.taken(), taken + told);
            Ok(())
        }
        Step::TakeEach { max } => {
            let mut count = 0;
            let handed_on = bench.receiver.take_each(&mut out, max, |_, payload| {
                assert!(payload.len() < RING_BYTES as usize);
                count += 1;
                ControlFlow::Continue(())
            });
            assert!(count == handed_on && count <= max && out.len() <= RING_BYTES as usize);
            out.clear();
            told += count as u64;
            assert_eq!(bench.receiver.taken(), taken + told);
            Ok(())
        }
        Step::PeekMore { is_acknowledged } => {
            let peeked = (0..3).try_for_each(|_| bench.receiver.peek_more(&mut out, 3000).map(drop));
            if is_acknowledged {
                bench.receiver.acknowledge();
            }
            peeked
        }
        Step::PeekMany { max, stop_after, is_acknowledged } => {
            let (mut end, mut count) = (0, 0);
            let peeked = bench.receiver.peek_many(&mut out, max, |from, to, _| {
                assert!(from == end && to >= from, "one behind the other");
                (end, count) = (to, count + 1);
                if count == stop_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert!(end == out.len() && count <= max);
            if is_acknowledged {
                bench.receiver.acknowledge();
            }
            peeked
        }
        Step::Forget => {
            bench.receiver.forget();
            Ok(())
        }
        Step::Acknowledge => {
            bench.receiver.acknowledge();
            assert!(!bench.receiver.has_peeked());
            Ok(())
        }
        _ => unreachable!("those are all"),
    };
    assert!(out.len() < RING_BYTES as usize, "no more than a ring before an acknowledgement");
    assert!(told == 0 || finals.receive.is_none(), "a message after the end");
    if let (Some(last), Err(error)) = (finals.receive, received) {
        assert_eq!(error, last, "a final answer changed");
    }
}

/// Plays a sender that commits records one behind the other, as if they were to fit.
fn forge_records(bench: &Bench, commits: &[u64], extension: u64) {
    let mut at = bench.receiver.tail();
    for word in commits {
        for (behind, word) in [(0, *word), (8, extension)] {
            let within = (at.wrapping_add(behind) & (RING_BYTES - 1)) as usize;
            bench.ring.writer.copy_in(layout::RECORDS_OFFSET + within, &word.to_ne_bytes()).expect("inside");
        }
        at = at.wrapping_add(record::record_bytes(8 * (word >> 30 & 3) as u32, *word as u32 & 0xFFF));
    }
}

fn send(bench: &mut Bench, finals: &mut Finals, payload_bytes: usize) {
    let before = bench.sender.acknowledged();
    let sent = bench.sender.try_send(RecordHeader::default(), &vec![0x5A; payload_bytes]);
    if let Some(last) = finals.send {
        assert_eq!(sent, Err(last), "a final answer changed");
    }
    match sent {
        Err(error @ (SendError::Ended(_) | SendError::Fault(_))) => finals.send = Some(error),
        Err(SendError::TooLarge { .. }) => panic!("these payloads fit"),
        Ok(()) | Err(SendError::Full { .. }) => {}
    }
    let after = bench.sender.acknowledged();
    assert!(before.messages <= after.messages && after.messages <= after.sent);
}

fn receive(bench: &mut Bench, finals: &mut Finals) {
    let mut out = Vec::new();
    let received = bench.receiver.try_receive(&mut out);
    if let Some(last) = finals.receive {
        assert_eq!(received, Err(last), "a final answer changed");
    }
    if let Err(error) = received {
        finals.receive = Some(error);
    }
    assert!(out.len() <= RING_BYTES as usize - layout::COMMIT_BYTES);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_hostile_peer_hurts_only_itself(
        hostile in prop_oneof![Just(Hostile::Sender), Just(Hostile::Receiver)],
        before_wrap in 0..10_000_u32,
        steps in steps(),
    ) {
        let mut bench = Bench::starting_at((before_wrap / 8 * 8).wrapping_neg());
        let mut beside = Bench::new();
        let mut finals = Finals::default();
        for step in steps {
            run_step(&mut bench, hostile, &mut finals, step);
            beside.send(b"beside");
            prop_assert_eq!(beside.receive(), Ok(Some(b"beside".to_vec())));
        }
        if finals.receive.is_some() {
            prop_assert!(bench.receiver.is_ready());
            prop_assert!(matches!(bench.receiver_waits(), Wait::Ready), "asleep on what is over");
        }
        // Records that lie in a circle are received for as long as their sender lives. Once it is dead an end comes: at most
        // one message for each word of the ring.
        bench.set_status(layout::WORD_DEAD);
        let records_max = RING_BYTES as usize / layout::COMMIT_BYTES;
        let mut out = Vec::new();
        let unended = (0..=records_max).all(|_| matches!(bench.receiver.try_receive(&mut out), Ok(Some(_))));
        prop_assert!(!unended, "more messages than a ring can hold");
    }
}

#[test]
fn a_lane_survives_a_sender_that_scribbles_while_it_is_read() {
    for round in 0..100 {
        let mut bench = Bench::new();
        let ring = bench.ring.writer.clone();
        // A bounded number of stores, so that a failed assertion below is not waited for.
        let scribbling = std::thread::spawn(move || {
            let mut seed = round;
            for _ in 0..5_000 {
                seed = scribble(&ring, seed);
            }
        });
        let (mut out, mut scratch) = (Vec::new(), Vec::new());
        while !scribbling.is_finished() {
            let received = match round % 3 {
                1 if bench.receiver.take_each(&mut scratch, 3, |_, it| {
                    assert!(it.len() < 300);
                    ControlFlow::Continue(())
                }) > 0 =>
                {
                    out.clear();
                    Ok(())
                }
                0 | 1 => bench.receiver.try_receive(&mut out).map(drop),
                _ => {
                    out.clear();
                    let peeked = bench.receiver.peek_many(&mut out, 1, |_, _, _| ControlFlow::Continue(()));
                    bench.receiver.acknowledge();
                    peeked
                }
            };
            match received {
                Ok(()) => assert!(out.len() < 300),
                Err(ReceiveError::Fault(LaneFault::CommitUnknown { .. })) => break,
                Err(error) => panic!("{error}"),
            }
        }
        scribbling.join().expect("no panic");
    }
}

#[test]
fn a_sender_survives_a_receiver_that_scribbles_while_it_looks() {
    for round in 0..20_u32 {
        let mut bench = Bench::new();
        let (ack, ring) = (bench.ack.writer.clone(), bench.ring.reader.clone());
        let scribbling = std::thread::spawn(move || {
            for count in 0..20_000_u32 {
                // What the sender says it has done, and now and then more than that.
                let position = ring.load_u32(layout::POSITION_OFFSET, Ordering::Acquire);
                let messages = ring.load_u32(layout::MESSAGES_OFFSET, Ordering::Relaxed);
                let lie = if count == 19_000 + round { 8 } else { 0 };
                ack.store_u32(layout::MESSAGES_OFFSET, messages, Ordering::Relaxed);
                ack.store_u32(layout::POSITION_OFFSET, position.wrapping_add(lie), Ordering::Release);
                ack.store_u32(layout::WAITING_OFFSET, count, Ordering::Relaxed);
            }
        });
        let mut last = bench.sender.acknowledged();
        while !scribbling.is_finished() {
            let sent = bench.sender.try_send(RecordHeader::default(), &[0; 40]);
            let _ = bench.sender.must_wake_receiver();
            let now = bench.sender.acknowledged();
            assert!(last.messages <= now.messages && now.messages <= now.sent);
            last = now;
            match sent {
                Ok(()) | Err(SendError::Full { .. }) => {}
                Err(SendError::Fault(LaneFault::PositionAhead { .. } | LaneFault::MessagesAhead { .. })) => {
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        scribbling.join().expect("no panic");
    }
}

/// Sends one more thing of a kind, in several steps; what it has committed is told by how many messages that are.
fn send_up_to(bench: &mut Bench, step: usize) -> u64 {
    let header = RecordHeader { message_type: 1, flags: 2, ticket: 3 };
    if step > 0 {
        bench.send(&[1; 100]);
    }
    if step > 1 {
        // In the middle of a batch, with and without a first record.
        let mut batch = bench.sender.batch().expect("a live lane");
        for _ in 1..step.min(4) {
            batch.push(header, &[2; 50]).expect("space");
        }
        if step > 4 {
            batch.commit().1.expect("a live lane");
        }
    }
    if step > 5 {
        let mut loan = bench.sender.try_loan(header, 1000).expect("space");
        loan.payload_mut().fill(3);
        if step > 6 {
            loan.commit(1000).1.expect("a live lane");
        }
    }
    if step > 7 {
        bench.sender.try_send_all(&[&[4; 10], &[4; 20]]).expect("space");
    }
    [0, 1, 1, 1, 1, 4, 4, 5, 7][step]
}

#[test]
fn what_was_committed_arrives_wherever_the_sender_stops() {
    for step in 0..=8 {
        for (word, end) in [(layout::WORD_DEAD, Ending::PeerDead), (layout::WORD_REVOKED, Ending::Revoked)] {
            // At places where what is sent meets the ring's end, and where not.
            for position in (0..RING_BYTES).step_by(488) {
                let mut bench = Bench::starting_at(position);
                let committed = send_up_to(&mut bench, step);
                bench.set_status(word);
                let expected = if end == Ending::PeerDead { committed } else { 0 };
                for _ in 0..expected {
                    assert!(matches!(bench.receive(), Ok(Some(_))), "step {step}, position {position}");
                }
                assert_eq!(
                    bench.receive(),
                    Err(ReceiveError::Ended(end)),
                    "step {step}, position {position}"
                );
                let end = SendError::Ended(end);
                assert_eq!(bench.sender.try_send(RecordHeader::default(), b""), Err(end));
                assert!(bench.sender.batch().is_err() && bench.sender.try_send_all(&[b""]).is_err());
                let last = Acknowledged { messages: expected, sent: committed };
                assert_eq!(bench.sender.acknowledged(), last);
            }
        }
    }
}

#[test]
fn a_receiver_that_never_acknowledges_gets_no_more_than_a_ring() {
    let mut bench = Bench::new();
    let sent =
        (0..10_000).filter(|_| bench.sender.try_send(RecordHeader::default(), &[0; 8]).is_ok()).count();
    assert_eq!(sent, (RING_BYTES as usize - 8) / 16);
    assert!(matches!(bench.sender_waits(24), Wait::Sleep(on) if on.peer.1 == 0));
    assert_eq!(bench.sender.acknowledged(), Acknowledged { messages: 0, sent: sent as u64 });
}

#[test]
fn a_peer_that_always_waits_is_always_woken_and_by_what_it_says() {
    let mut bench = Bench::new();
    for (waiting, by) in
        [(0, None), (1, Some(WakeBy::Futex)), (2, Some(WakeBy::Doorbell)), (u32::MAX, Some(WakeBy::Futex))]
    {
        bench.ack.writer.store_u32(layout::WAITING_OFFSET, waiting, Ordering::Relaxed);
        bench.ring.writer.store_u32(layout::WAITING_OFFSET, waiting, Ordering::Relaxed);
        bench.send(b"");
        bench.receive().expect("live").expect("a message");
        assert_eq!(
            (bench.sender.must_wake_receiver(), bench.receiver.must_wake_sender()),
            (by, by),
            "{waiting}"
        );
    }
}

#[test]
fn a_fence_is_left_out_for_one_declaration_only() {
    for declared in [0, 2, 3, 0x100, 1 << 31, u32::MAX] {
        let page = heap::memory(layout::PAGE_BYTES);
        page.writer.store_u32(layout::BARRIER_OFFSET, declared, Ordering::Relaxed);
        assert!(Barrier::All.needs_fence(&page.reader), "{declared:#x}");
    }
}

/// Stores the commit of a record that fits, or of no kind, somewhere in the ring.
fn scribble(ring: &View, seed: u64) -> u64 {
    let seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    let offset = layout::RECORDS_OFFSET + (seed >> 33) as usize % 512 * 8;
    let (size, kind) =
        ((seed >> 20) % 284, if (seed >> 40).is_multiple_of(64) { 0 } else { 1 + (seed >> 50) % 2 });
    ring.copy_in(offset, &(size | kind << 30).to_ne_bytes()).expect("inside");
    seed
}
