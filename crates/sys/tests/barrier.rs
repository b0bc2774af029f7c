//! The barrier of one who goes to sleep, on a real lane whose sender makes no fence: no ring is lost.
//!
//! In each round a receiver announces its sleep and looks once more, while a sender sends and looks whether to ring. Lost is a
//! round in which the one would sleep and the other would not ring. By doorbell nothing else would wake it, as no futex call
//! compares the position. A missing barrier fails it within some thousand rounds, in a release build: without optimisation the
//! stores have left the CPU before the looks. How that looks:
//!
//! ```text
//! KEYWAY_BARRIER=none cargo test --release -p keyway-sys --test barrier
//! ```
#![cfg(target_os = "linux")]

use std::{
    env, hint,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use keyway_shm::{Access, Barrier, LaneReceiver, LaneSender, RecordHeader, Status, Wait, WakeBy};
use keyway_sys::{
    barrier,
    memory::{Mapping, Populate, create_memory},
    process,
};

const PAGE_BYTES: usize = 4096;
const RING_BYTES: u32 = 4096;
const GENERATION: u32 = 7;
const ROUNDS_MAX: u32 = 1_000_000;
/// Whiles after which a sender has come even in a build without optimisation.
const DELAY_MAX: u32 = 20_000;
const TIME_MAX: Duration = Duration::from_secs(1);

/// What both sides wait for: the round that has begun, and the one that the sender has done.
#[derive(Default)]
struct Rounds {
    begun: AtomicU32,
    sent: AtomicU32,
    /// Whether the sender would have rung in that round.
    rung: AtomicU32,
}

const OVER: u32 = u32::MAX;

impl Rounds {
    fn wait_for(word: &AtomicU32, is_there: impl Fn(u32) -> bool) -> u32 {
        let mut spun = 0_u32;
        loop {
            let seen = word.load(Ordering::Acquire);
            if is_there(seen) {
                return seen;
            }
            spun += 1;
            if spun.is_multiple_of(4096) {
                thread::yield_now();
            }
            hint::spin_loop();
        }
    }
}

/// A memory, mapped to write and, elsewhere, to read.
fn memory(bytes: usize) -> (Mapping, Mapping) {
    let fd = create_memory("barrier-test", bytes).expect("a memory");
    let map = |access| Mapping::new(&fd, bytes, access, Populate::Now).expect("a mapping");
    (map(Access::Write), map(Access::Read))
}

fn lane() -> (LaneSender, LaneReceiver) {
    let ring_len = PAGE_BYTES + RING_BYTES as usize;
    let ring = create_memory("barrier-test-ring", ring_len).expect("a memory");
    let own = Mapping::own(&ring, ring_len, Populate::OnUse).expect("a mapping");
    let reader = Mapping::new(&ring, ring_len, Access::Read, Populate::Now).expect("a mapping").view();
    let (ack, ack_reader) = memory(PAGE_BYTES);
    let (page, page_reader) = memory(PAGE_BYTES);
    page.view().store_u32(0, GENERATION, Ordering::Release);
    let status = Status::new(page_reader.view().word(0).expect("a word"), GENERATION);
    Barrier::All.declare(own.view());
    Barrier::All.declare(&ack.view());
    let sender = LaneSender::new(own, &ack_reader.view(), status.clone(), RING_BYTES, Barrier::All);
    let receiver = LaneReceiver::new(&reader, &ack.view(), status, RING_BYTES, Barrier::All);
    (sender.expect("a lane"), receiver.expect("a lane"))
}

/// Lets `least` short whiles pass and up to 16 more, another number each time.
fn dither(seed: &mut u32, least: u32) {
    *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    for count in 0..least + (*seed >> 28) {
        hint::black_box(count);
    }
}

fn send_rounds(mut sender: LaneSender, rounds: &Rounds) {
    let (mut seed, mut last) = (1, 0);
    loop {
        let round = Rounds::wait_for(&rounds.begun, |begun| begun != last);
        if round == OVER {
            return;
        }
        dither(&mut seed, 0);
        sender.try_send(RecordHeader::default(), &[]).expect("the ring is empty");
        let is_rung = sender.must_wake_receiver().is_some();
        rounds.rung.store(u32::from(is_rung), Ordering::Relaxed);
        rounds.sent.store(round, Ordering::Release);
        last = round;
    }
}

#[test]
fn no_ring_is_lost_between_an_announcement_and_the_last_look() {
    if barrier::own() != Barrier::All || process::cpus_online() == 1 {
        eprintln!("needs membarrier(2) and two CPUs");
        return;
    }
    let is_made = env::var("KEYWAY_BARRIER").as_deref() != Ok("none");
    let (sender, mut receiver) = lane();
    let rounds = Arc::new(Rounds::default());
    let sending = thread::spawn({
        let rounds = Arc::clone(&rounds);
        move || send_rounds(sender, &rounds)
    });
    let (mut seed, mut delay, mut out, mut slept, mut lost) = (2, 0_u32, Vec::new(), 0, None);
    let begun = Instant::now();
    for round in 1..ROUNDS_MAX {
        rounds.begun.store(round, Ordering::Release);
        dither(&mut seed, delay);
        receiver.announce_wait(WakeBy::Doorbell);
        if is_made {
            barrier::make();
        }
        let is_asleep = matches!(receiver.prepare_wait(), Wait::Sleep(_));
        Rounds::wait_for(&rounds.sent, |sent| sent == round);
        slept += u32::from(is_asleep);
        // Who came too early comes later next time, so that both look at the same time.
        delay = if is_asleep { (delay + 4).min(DELAY_MAX) } else { delay.saturating_sub(4) };
        if is_asleep && rounds.rung.load(Ordering::Relaxed) == 0 {
            lost = Some(round);
            break;
        }
        receiver.finish_wait();
        receiver.try_receive(&mut out).expect("an honest lane").expect("it was sent");
        if begun.elapsed() > TIME_MAX {
            break;
        }
    }
    rounds.begun.store(OVER, Ordering::Release);
    sending.join().expect("no panic");
    eprintln!("{slept} sleeps in {:?}", begun.elapsed());
    assert_eq!(lost, None, "in this round the receiver sleeps, and nobody rings");
}
