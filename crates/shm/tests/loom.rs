//! Every interleaving, and every value that a weak memory could show, of one lane between two honest sides.
//!
//! Record bytes are plain cells here, so an access that nothing orders is reported as a race. Run with
//! `RUSTFLAGS="--cfg loom" cargo test -p keyway-shm --release --test loom`.
//!
//! Two promises are about sides that are not honest: a sender that goes on after it was revoked, and a process that a
//! dead sender forked. Those are played by a sender whose own word nobody changes.
#![cfg(loom)]

#[path = "loom/arrival.rs"]
mod arrival;
#[path = "loom/broker_page.rs"]
mod broker_page;
#[path = "loom/releases.rs"]
mod releases;

// Plain, as loom's own counts its references even while a failed test unwinds, and aborts.
use std::{ops::ControlFlow, sync::Arc};

use keyway_abi::layout;
use keyway_shm::{
    Acknowledged, Barrier, Ending, LaneReceiver, LaneSender, Own, ReceiveError, RecordHeader, SendError,
    SleepOn, Status, View, Wait, WakeBy, Word, broker_page::tell, own_barrier,
};
use loom::{
    sync::{
        Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Room for three records without payload, or for one with up to 8 bytes of it, and the word behind them.
const RING_BYTES: u32 = 32;
/// Twice as much, where something must be passed over, or lie over something else.
const WIDE_RING_BYTES: u32 = 64;
const GENERATION: u32 = 5;
const STATUS_OFFSET: usize = layout::POSITION_OFFSET;

struct Bench {
    sender: LaneSender,
    receiver: LaneReceiver,
    /// What the broker tells the receiver, and the sender.
    broker: View,
    sender_broker: View,
}

/// One lane. Each side has a broker page of its own, as processes have; and loom looks at fewer interleavings of a word that
/// more threads load.
fn bench() -> Bench {
    bench_of(RING_BYTES)
}

fn bench_of(ring_bytes: u32) -> Bench {
    forked_bench_of(ring_bytes).0
}

/// One lane, and a second sender of the same ring, as a hostile sender has one that forks.
fn forked_bench_of(ring_bytes: u32) -> (Bench, LaneSender) {
    let (ring, ring_reader) = View::modelled(layout::RECORDS_OFFSET + ring_bytes as usize);
    let (ack, ack_reader) = View::modelled(layout::PAGE_BYTES);
    let ((broker, status), (sender_broker, sender_status)) = (status(), status());
    let sender_of =
        |ring, status| LaneSender::new(Own::of(ring), &ack_reader, status, ring_bytes, Barrier::Own);
    let child = sender_of(ring.clone(), sender_status.clone()).expect("a lane");
    let sender = sender_of(ring, sender_status).expect("a lane");
    let receiver = LaneReceiver::new(&ring_reader, &ack, status, ring_bytes, Barrier::Own).expect("a lane");
    (Bench { sender, receiver, broker, sender_broker }, child)
}

/// A broker page, and the status that its word tells.
fn status() -> (View, Status) {
    let (broker, reader) = View::modelled(layout::PAGE_BYTES);
    tell(&broker, STATUS_OFFSET, GENERATION);
    (broker, Status::new(reader.word(STATUS_OFFSET).expect("a word"), GENERATION))
}

/// Linux's futex, as far as the doorbell protocol relies on it: comparing and falling asleep is one step against a wake.
/// It orders nothing else: the loads are relaxed, and nobody takes the lock who does not sleep or wake.
///
/// With a doorbell nothing is compared: a ring is kept until it is taken, and without one the sleep goes on.
#[derive(Default)]
struct Futex {
    /// Whether the doorbell was rung.
    lock: Mutex<bool>,
    woken: Condvar,
}

impl Futex {
    fn sleep(&self, on: &SleepOn, by: WakeBy) {
        if by == WakeBy::Futex {
            return self.sleep_on(&[&on.peer, &on.broker]);
        }
        let mut guard = self.lock.lock().expect("no panic");
        while !*guard {
            guard = self.woken.wait(guard).expect("no panic");
        }
        *guard = false;
    }

    fn sleep_on(&self, words: &[&(Word, u32)]) {
        let guard = self.lock.lock().expect("no panic");
        for (word, expected) in words {
            if word.load(Ordering::Relaxed) != *expected {
                return;
            }
        }
        drop(self.woken.wait(guard).expect("no panic"));
    }

    fn wake(&self, by: WakeBy) {
        let mut guard = self.lock.lock().expect("no panic");
        *guard = by == WakeBy::Doorbell;
        self.woken.notify_all();
    }
}

fn model(run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(5);
    builder.check(run);
}

fn header(number: u32) -> RecordHeader {
    RecordHeader { message_type: number, flags: 0, ticket: 0 }
}

/// Sends message `number`, asleep while there is no space.
fn send(
    sender: &mut LaneSender,
    futex: &Futex,
    by: WakeBy,
    number: u32,
    payload: &[u8],
) -> Result<(), SendError> {
    loop {
        match sender.try_send(header(number), payload) {
            Err(SendError::Full { needed_bytes }) => {
                sender.announce_wait(by);
                own_barrier();
                if let Wait::Sleep(on) = sender.prepare_wait(needed_bytes) {
                    futex.sleep(&on, by);
                }
                sender.finish_wait();
            }
            sent => {
                if let (Ok(()), Some(by)) = (sent, sender.must_wake_receiver()) {
                    futex.wake(by);
                }
                return sent;
            }
        }
    }
}

/// Receives the next message, asleep while there is none.
fn receive(
    receiver: &mut LaneReceiver,
    futex: &Futex,
    by: WakeBy,
    out: &mut Vec<u8>,
) -> Result<u32, ReceiveError> {
    loop {
        if let Some(header) = receiver.try_receive(out)? {
            if let Some(by) = receiver.must_wake_sender() {
                futex.wake(by);
            }
            return Ok(header.message_type);
        }
        receiver.announce_wait(by);
        own_barrier();
        if let Wait::Sleep(on) = receiver.prepare_wait() {
            futex.sleep(&on, by);
        }
        receiver.finish_wait();
    }
}

/// The ways to take a message, which load what they need each by itself.
#[derive(Clone, Copy, Debug)]
enum Way {
    Receive,
    Plain,
    Each,
    Many,
}

const WAYS: [Way; 4] = [Way::Receive, Way::Plain, Way::Each, Way::Many];

/// Takes the next message if there is one: its type.
fn take(receiver: &mut LaneReceiver, way: Way, out: &mut Vec<u8>) -> Result<Option<u32>, ReceiveError> {
    match way {
        Way::Receive => Ok(receiver.try_receive(out)?.map(|header| header.message_type)),
        Way::Plain => Ok(receiver.take_plain(out).map(|(message_type, len)| {
            out.truncate(len);
            message_type
        })),
        Way::Each => {
            let mut got = None;
            let mut all = Vec::new();
            receiver.take_each(&mut all, 1, |message_type, payload| {
                got = Some(message_type);
                out.clear();
                out.extend_from_slice(payload);
                ControlFlow::Continue(())
            });
            Ok(got)
        }
        Way::Many => {
            let mut got = None;
            out.clear();
            let ended = receiver.peek_many(out, 1, |_, _, header| {
                got = Some(header.message_type);
                ControlFlow::Continue(())
            });
            receiver.acknowledge();
            ended.map(|()| got)
        }
    }
}

/// Breaks with the publication's release or its acquire.
#[test]
fn a_commit_brings_the_record_with_it() {
    for way in WAYS {
        for is_in_place in [false, true] {
            model(move || {
                let Bench { mut sender, mut receiver, .. } = bench_of(WIDE_RING_BYTES);
                let sending = thread::spawn(move || {
                    if is_in_place {
                        assert!(sender.send_plain_with(7, &mut |place: &mut [u8]| place.fill(0x11)));
                    } else {
                        sender.try_send(header(0), &[0x11; 7]).expect("space");
                    }
                });
                let mut out = Vec::new();
                if let Some(number) = take(&mut receiver, way, &mut out).expect("an honest lane") {
                    assert_eq!((number, out.as_slice()), (0, &[0x11; 7][..]), "{way:?}");
                }
                sending.join().expect("no panic");
            });
        }
    }
}

/// Breaks when what is behind the commit of an extended record is stored after it.
#[test]
fn a_commit_brings_the_extension_with_it() {
    model(|| {
        let Bench { mut sender, mut receiver, .. } = bench();
        let extended = RecordHeader { message_type: 1, flags: 2, ticket: 3 };
        let sending = thread::spawn(move || {
            sender.try_send(extended, &[]).expect("space");
        });
        let got = receiver.try_receive(&mut Vec::new()).expect("an honest lane");
        assert!(got.is_none() || got == Some(extended), "{got:?}");
        sending.join().expect("no panic");
    });
}

/// Breaks when a batch's first record is committed before the others, or its commit has no release.
#[test]
fn a_batch_is_seen_whole() {
    type Send = fn(&mut LaneSender) -> Result<(), SendError>;
    let in_batch = |sender: &mut LaneSender| {
        let mut batch = sender.batch().expect("a live lane");
        batch.push(header(0), &[0x22; 8]).expect("space");
        batch.push(header(0), &[0x22; 8]).expect("space");
        batch.commit().1
    };
    let all = |sender: &mut LaneSender| sender.try_send_all(&[&[0x22; 8], &[0x22; 8]]);
    let each = |sender: &mut LaneSender| sender.try_send_each(2, 8, &mut |_, place| place.fill(0x22));
    let ways: [Send; 3] = [in_batch, all, each];
    for way in ways {
        model(move || {
            let Bench { mut sender, mut receiver, .. } = bench_of(WIDE_RING_BYTES);
            let sending = thread::spawn(move || way(&mut sender).expect("space"));
            let mut out = Vec::new();
            if receiver.try_receive(&mut out).expect("an honest lane").is_some() {
                assert_eq!(receiver.try_receive(&mut out), Ok(Some(header(0))), "one without the other");
                assert_eq!(out, [0x22; 8]);
            }
            sending.join().expect("no panic");
        });
    }
}

/// Breaks when the word behind a record is not cleared before it is committed: what a lap ago lay there is read.
#[test]
fn nothing_is_read_behind_the_last_record() {
    model(|| {
        let Bench { mut sender, mut receiver, .. } = bench();
        // Leaves a word that looks like a commit where the third record's will be looked for.
        sender.try_send(header(1), &(1_u64 << 30).to_ne_bytes()).expect("space");
        let mut out = Vec::new();
        receiver.try_receive(&mut out).expect("an honest lane").expect("a message");
        let sending = thread::spawn(move || {
            for number in 2..=3 {
                while sender.try_send(header(number), &[]).is_err() {
                    thread::yield_now();
                }
            }
        });
        let mut next = 2;
        for _ in 0..3 {
            if let Some(got) = receiver.try_receive(&mut out).expect("an honest lane") {
                assert_eq!(got, header(next));
                next += 1;
            }
        }
        sending.join().expect("no panic");
    });
}

/// Breaks when the receiver looks at the record before the position: it would take the position of a message that it has
/// not seen for a lie, or sleep on it.
#[test]
fn a_position_is_never_ahead_of_its_record() {
    model(|| {
        let Bench { mut sender, mut receiver, .. } = bench();
        let sending = thread::spawn(move || {
            sender.try_send(header(1), &[]).expect("space");
        });
        receiver.announce_wait(WakeBy::Futex);
        own_barrier();
        let waits = receiver.prepare_wait();
        receiver.finish_wait();
        sending.join().expect("no panic");
        assert_eq!(receiver.fault(), None);
        if let Wait::Sleep(on) = waits {
            assert_ne!(on.peer.0.load(Ordering::Acquire), on.peer.1, "asleep beside a message");
        }
    });
}

/// Breaks with the acknowledgement's release or its acquire: the space is written again while it is still read, or the
/// count lags behind the space.
#[test]
fn space_is_reused_only_after_it_was_read() {
    for way in WAYS {
        model(move || {
            let Bench { mut sender, mut receiver, .. } = bench_of(WIDE_RING_BYTES);
            sender.try_send(header(1), &[0x11; 32]).expect("space");
            // Over the payload of the first, as soon as there is room.
            let sending = thread::spawn(move || match sender.try_send(header(2), &[0x22; 32]) {
                Ok(()) => assert!(sender.acknowledged().messages >= 1, "space without a count"),
                Err(error) => assert!(matches!(error, SendError::Full { .. }), "{error}"),
            });
            let mut out = Vec::new();
            let got = take(&mut receiver, way, &mut out).expect("an honest lane");
            assert_eq!((got, out.as_slice()), (Some(1), &[0x11; 32][..]), "{way:?}");
            if let Some(got) = take(&mut receiver, way, &mut out).expect("an honest lane") {
                assert_eq!((got, out.as_slice()), (2, &[0x22; 32][..]), "{way:?}");
            }
            sending.join().expect("no panic");
        });
    }
}

/// Breaks when the position behind what was passed over is stored without release: the sender then writes where the
/// message before it may still be read.
#[test]
fn space_is_reused_only_after_what_lay_before_the_gap_was_read() {
    model(|| {
        let Bench { mut sender, mut receiver, .. } = bench_of(WIDE_RING_BYTES);
        let mut out = Vec::new();
        sender.try_send(header(0), &[0; 32]).expect("space");
        receiver.try_receive(&mut out).expect("an honest lane").expect("a message");
        sender.acknowledged();
        // From 40 to 56 a message, up to 64 a gap, and what must be in one piece behind it.
        sender.try_send(header(1), &[0x11; 8]).expect("space");
        let extended = RecordHeader { message_type: 2, flags: 1, ticket: 0 };
        sender.try_loan(extended, 0).expect("space").commit(0).1.expect("a live lane");
        let sending = thread::spawn(move || {
            // The second lies over the payload of the message, and has room once the gap is given back.
            for (number, payload) in [(3, &[0x33; 16][..]), (4, &[0x44; 8][..])] {
                if sender.try_send(header(number), payload).is_err() {
                    return;
                }
            }
        });
        assert_eq!(receiver.try_receive(&mut out), Ok(Some(header(1))));
        assert_eq!(out, [0x11; 8]);
        assert_eq!(receiver.try_receive(&mut out), Ok(Some(extended)));
        sending.join().expect("no panic");
    });
}

/// A lost wake is a deadlock, which loom reports. Breaks with either fence, and without the announcement.
#[test]
fn a_sleeping_receiver_is_woken_by_a_message() {
    model(|| {
        let Bench { mut sender, mut receiver, .. } = bench();
        let futex = Arc::new(Futex::default());
        let sending = thread::spawn({
            let futex = Arc::clone(&futex);
            move || {
                for number in 1..=2 {
                    send(&mut sender, &futex, WakeBy::Futex, number, &[]).expect("a live lane");
                }
            }
        });
        let mut out = Vec::new();
        for number in 1..=2 {
            assert_eq!(receive(&mut receiver, &futex, WakeBy::Futex, &mut out), Ok(number));
        }
        sending.join().expect("no panic");
    });
}

/// The same where nothing compares the position once more.
#[test]
fn a_sleeping_receiver_is_rung_for_a_message() {
    model(|| {
        let Bench { mut sender, mut receiver, .. } = bench();
        let futex = Arc::new(Futex::default());
        let sending = thread::spawn({
            let futex = Arc::clone(&futex);
            move || send(&mut sender, &futex, WakeBy::Doorbell, 1, &[]).expect("a live lane")
        });
        assert_eq!(receive(&mut receiver, &futex, WakeBy::Doorbell, &mut Vec::new()), Ok(1));
        sending.join().expect("no panic");
    });
}

/// The other direction. Breaks with either fence, and by doorbell without the last look.
#[test]
fn a_sleeping_sender_is_woken_by_space() {
    for by in [WakeBy::Futex, WakeBy::Doorbell] {
        model(move || {
            let Bench { mut sender, mut receiver, .. } = bench();
            let futex = Arc::new(Futex::default());
            sender.try_send(header(1), &[0x11; 8]).expect("space");
            let sending = thread::spawn({
                let futex = Arc::clone(&futex);
                move || send(&mut sender, &futex, by, 2, &[0x22; 8]).expect("a live lane")
            });
            let mut out = Vec::new();
            receiver.try_receive(&mut out).expect("an honest lane").expect("a message");
            if let Some(by) = receiver.must_wake_sender() {
                futex.wake(by);
            }
            sending.join().expect("space came, so the sender got on");
            assert_eq!(receiver.try_receive(&mut out), Ok(Some(header(2))));
        });
    }
}

/// The broker wakes without being asked; what it says is learnt whenever the sleep begins.
#[test]
fn a_sleeping_receiver_is_woken_by_a_revocation() {
    model(|| {
        let Bench { mut receiver, broker, sender: _sender, .. } = bench();
        let futex = Arc::new(Futex::default());
        let revoking = thread::spawn({
            let futex = Arc::clone(&futex);
            move || {
                tell(&broker, STATUS_OFFSET, layout::WORD_REVOKED);
                futex.wake(WakeBy::Futex);
            }
        });
        let end = receive(&mut receiver, &futex, WakeBy::Futex, &mut Vec::new());
        assert_eq!(end, Err(ReceiveError::Ended(Ending::Revoked)));
        revoking.join().expect("no panic");
    });
}

/// Breaks when the broker's word is loaded before the one that commits the record.
#[test]
fn nothing_committed_after_a_revocation_is_delivered() {
    for way in WAYS {
        model(move || {
            let Bench { mut sender, mut receiver, broker, .. } = bench();
            let sending = thread::spawn(move || {
                sender.try_send(header(1), &[]).expect("space");
                tell(&broker, STATUS_OFFSET, layout::WORD_REVOKED);
                sender.try_send(header(2), &[]).expect("space");
            });
            let mut out = Vec::new();
            for _ in 0..2 {
                match take(&mut receiver, way, &mut out) {
                    Ok(Some(number)) => assert_eq!(number, 1, "committed after the revocation, by {way:?}"),
                    Ok(None) => {}
                    Err(end) => assert_eq!(end, ReceiveError::Ended(Ending::Revoked)),
                }
            }
            sending.join().expect("no panic");
            assert_eq!(receiver.try_receive(&mut out), Err(ReceiveError::Ended(Ending::Revoked)));
        });
    }
}

/// Breaks when the broker's word is looked at once for several records.
#[test]
fn nor_behind_one_that_was_committed_before() {
    for at_once in [false, true] {
        model(move || {
            let Bench { mut sender, mut receiver, broker, .. } = bench();
            sender.try_send(header(1), &[]).expect("space");
            let sending = thread::spawn(move || {
                tell(&broker, STATUS_OFFSET, layout::WORD_REVOKED);
                sender.try_send(header(2), &[]).expect("space");
            });
            let (mut out, mut got) = (Vec::new(), Vec::new());
            if at_once {
                receiver.take_each(&mut out, 2, |number, _| {
                    got.push(number);
                    ControlFlow::Continue(())
                });
            } else {
                let _ = receiver.peek_many(&mut out, 2, |_, _, header| {
                    got.push(header.message_type);
                    ControlFlow::Continue(())
                });
            }
            assert!(got.is_empty() || got == [1], "committed after the revocation: {got:?}");
            sending.join().expect("no panic");
        });
    }
}

/// Breaks when the word that commits a record is loaded once to be judged and once more to be used: a hostile sender, here one
/// whose child commits another record at the same place, then says two things.
#[test]
fn what_was_judged_is_what_is_delivered() {
    for way in WAYS {
        for is_revoked in [false, true] {
            model(move || {
                let (Bench { mut sender, mut receiver, broker, .. }, mut child) =
                    forked_bench_of(WIDE_RING_BYTES);
                let sending = thread::spawn(move || {
                    sender.try_send(header(1), &[0x11; 8]).expect("space");
                    if is_revoked {
                        tell(&broker, STATUS_OFFSET, layout::WORD_REVOKED);
                    }
                    child.try_send(header(2), &[]).expect("space");
                });
                let mut out = Vec::new();
                if let Ok(Some(number)) = take(&mut receiver, way, &mut out) {
                    let to = receiver.sender_wakes_on().load(Ordering::Relaxed);
                    let second = (2, 0, 8);
                    let got = (number, out.len(), to);
                    assert!(got == (1, 8, 16) || got == second && !is_revoked, "{got:?} by {way:?}");
                }
                sending.join().expect("no panic");
            });
        }
    }
}

/// Breaks when the word behind the commit is loaded once for the flags and once more for the ticket.
#[test]
fn flags_and_ticket_are_of_one_word() {
    model(|| {
        let (Bench { mut sender, mut receiver, .. }, mut child) = forked_bench_of(WIDE_RING_BYTES);
        let extended = |number| RecordHeader { message_type: 1, flags: number, ticket: number };
        let sending = thread::spawn(move || {
            sender.try_send(extended(2), &[]).expect("space");
            child.try_send(extended(3), &[]).expect("space");
        });
        if let Some(got) = receiver.try_receive(&mut Vec::new()).expect("a live lane") {
            assert!(got == extended(2) || got == extended(3), "{got:?}");
        }
        sending.join().expect("no panic");
    });
}

/// Breaks when the commits are not looked at once more after the death was seen.
#[test]
fn a_dead_senders_messages_are_delivered_to_the_last() {
    model(|| {
        let Bench { mut sender, mut receiver, broker, .. } = bench();
        let dying = thread::spawn(move || {
            sender.try_send(header(1), &[]).expect("space");
            sender.try_send(header(2), &[]).expect("space");
            tell(&broker, STATUS_OFFSET, layout::WORD_DEAD);
        });
        let mut got = Vec::new();
        let mut out = Vec::new();
        let end = loop {
            match receiver.try_receive(&mut out) {
                Ok(Some(header)) => got.push(header.message_type),
                Ok(None) => thread::yield_now(),
                Err(end) => break end,
            }
        };
        assert_eq!(end, ReceiveError::Ended(Ending::PeerDead));
        assert_eq!(got, [1, 2]);
        dying.join().expect("no panic");
    });
}

/// Breaks when what comes behind the end that was pinned is looked at.
#[test]
fn a_lane_ends_although_a_forked_child_goes_on() {
    model(|| {
        let Bench { mut sender, mut receiver, broker, .. } = bench();
        sender.try_send(header(1), &[]).expect("space");
        tell(&broker, STATUS_OFFSET, layout::WORD_DEAD);
        let pinned = Arc::new(AtomicBool::new(false));
        let child = thread::spawn({
            let pinned = Arc::clone(&pinned);
            move || {
                let too_late = pinned.load(Ordering::Relaxed);
                sender.try_send(header(2), &[]).expect("space");
                too_late
            }
        });
        let mut out = Vec::new();
        assert_eq!(receiver.try_receive(&mut out), Ok(Some(header(1))));
        pinned.store(true, Ordering::Relaxed);
        let second = receiver.try_receive(&mut out);
        let too_late = child.join().expect("no panic");
        let end = Err(ReceiveError::Ended(Ending::PeerDead));
        // A child that was faster than the first receive is part of the last position.
        assert!(second == end || second == Ok(Some(header(2))) && !too_late, "{second:?}");
        assert_eq!(receiver.try_receive(&mut out), end);
    });
}

/// What the receiver had acknowledged when it died is what the sender learns.
#[test]
fn a_sender_learns_all_that_a_dead_receiver_acknowledged() {
    model(|| {
        let Bench { mut sender, mut receiver, sender_broker, .. } = bench();
        sender.try_send(header(1), &[]).expect("space");
        let dying = thread::spawn(move || {
            receiver.try_receive(&mut Vec::new()).expect("a live lane").expect("a message");
            tell(&sender_broker, STATUS_OFFSET, layout::WORD_DEAD);
        });
        match sender.try_send(header(2), &[]) {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error, SendError::Ended(Ending::PeerDead));
                assert_eq!(sender.acknowledged(), Acknowledged { messages: 1, sent: 1 });
            }
        }
        dying.join().expect("no panic");
    });
}
