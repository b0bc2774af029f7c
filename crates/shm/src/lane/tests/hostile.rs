//! A peer that writes whatever it likes, whenever it likes: no panic, no endless loop, only named outcomes.

use proptest::prelude::*;

use super::*;
use crate::view::View;

#[derive(Clone, Debug)]
enum Step {
    Send { payload_bytes: usize },
    Receive,
    PeekThenScribbleThenAcknowledge { offset: usize, word: u32 },
    PeekMore,
    ForgeCommit { word: u64 },
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
        8 => Just(Step::Receive),
        2 => (0..1024_usize, word).prop_map(|(index, word)| {
            Step::PeekThenScribbleThenAcknowledge { offset: index * 4, word }
        }),
        2 => Just(Step::PeekMore),
        3 => prop_oneof![
            // Plain, extended and padding, of sizes that fit and that do not, and of no kind at all.
            (0..4_u64, 0..5000_u64).prop_map(|(kind, size)| kind << 30 | size),
            any::<u64>(),
        ].prop_map(|word| Step::ForgeCommit { word }),
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
        Step::PeekMore => {
            let mut out = Vec::new();
            for _ in 0..3 {
                let _ = bench.receiver.peek_more(&mut out, 3000);
            }
            assert!(out.len() < RING_BYTES as usize, "no more than a ring before an acknowledgement");
            bench.receiver.acknowledge();
        }
        Step::ForgeCommit { word } => {
            if hostile == Hostile::Sender {
                bench.forge_commit(word);
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
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_hostile_peer_hurts_only_itself(
        hostile in prop_oneof![Just(Hostile::Sender), Just(Hostile::Receiver)],
        before_wrap in 0..10_000_u32,
        steps in steps(),
    ) {
        let mut bench = Bench::starting_at((before_wrap / 8 * 8).wrapping_neg());
        let mut finals = Finals::default();
        for step in steps {
            run_step(&mut bench, hostile, &mut finals, step);
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
        let mut out = Vec::new();
        while !scribbling.is_finished() {
            match bench.receiver.try_receive(&mut out) {
                Ok(_) => assert!(out.len() < 300),
                Err(ReceiveError::Fault(LaneFault::CommitUnknown { .. })) => break,
                Err(error) => panic!("{error}"),
            }
        }
        scribbling.join().expect("no panic");
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
