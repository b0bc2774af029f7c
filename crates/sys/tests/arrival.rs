//! The order by arrival on real lanes, with a real clock: what one thread sends on one lane and then on another is received so.
//!
//! Loom plays the fences beside the clock against a clock that is a word of memory (`crates/shm/tests/loom/arrival.rs`); this is the
//! processor's. Without optimisation it proves little:
//!
//! ```text
//! cargo test --release -p keyway-sys --test arrival
//! ```
#![cfg(target_os = "linux")]

use std::{
    hint,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use keyway_shm::{
    Access, Barrier, LaneReceiver, LaneSender, RecordHeader, Status,
    arrival::{ByArrival, Look, Scene, Stamps},
};
use keyway_sys::{
    clock,
    memory::{Mapping, Populate, create_memory},
    process,
};

const PAGE_BYTES: usize = 4096;
const RING_BYTES: u32 = 4096;
const GENERATION: u32 = 7;
const TIME_MAX: Duration = Duration::from_secs(1);
const OVER: u32 = u32::MAX;

/// A memory, mapped to write and, elsewhere, to read.
fn memory(bytes: usize) -> (Mapping, Mapping) {
    let fd = create_memory("arrival-test", bytes).expect("a memory");
    let map = |access| Mapping::new(&fd, bytes, access, Populate::Now).expect("a mapping");
    (map(Access::Write), map(Access::Read))
}

/// A stamped lane between two sides that make no fences for the doorbell.
fn lane() -> (LaneSender, LaneReceiver) {
    let ring_len = PAGE_BYTES + RING_BYTES as usize;
    let ring = create_memory("arrival-test-ring", ring_len).expect("a memory");
    let own = Mapping::own(&ring, ring_len, Populate::OnUse).expect("a mapping");
    let reader = Mapping::new(&ring, ring_len, Access::Read, Populate::Now).expect("a mapping").view();
    let (ack, ack_reader) = memory(PAGE_BYTES);
    let (page, page_reader) = memory(PAGE_BYTES);
    page.view().store_u32(0, GENERATION, Ordering::Release);
    let status = Status::new(page_reader.view().word(0).expect("a word"), GENERATION);
    let sender = LaneSender::new(own, &ack_reader.view(), status.clone(), RING_BYTES, Barrier::All);
    let receiver = LaneReceiver::new(&reader, &ack.view(), status, RING_BYTES, Barrier::All);
    (sender.expect("a lane").stamping(clock::now_ns), receiver.expect("a lane").stamped())
}

struct Lanes(Vec<(LaneReceiver, Stamps)>);

impl Scene for Lanes {
    fn now_ns(&mut self) -> u64 {
        clock::now_ns()
    }

    fn take_in_lanes(&mut self) {}

    fn slots(&self) -> usize {
        self.0.len()
    }

    fn lane(&mut self, slot: usize) -> Option<(&mut Stamps, u64)> {
        self.0.get_mut(slot).map(|(receiver, stamps)| (stamps, receiver.taken()))
    }

    fn look(&mut self, slot: usize) -> Look {
        match self.0[slot].0.next_stamp() {
            Ok(None) => Look::Nothing,
            Ok(Some(stamp)) => Look::Message(stamp),
            Err(_) => Look::Over,
        }
    }
}

/// Spins; now and then another thread may run.
fn spin(spun: &mut u32) {
    *spun += 1;
    if spun.is_multiple_of(4096) {
        thread::yield_now();
    }
    hint::spin_loop();
}

/// Sends two messages in each round, on the first lane and then on the second.
fn send_rounds(mut senders: [LaneSender; 2], taken: &AtomicU32) {
    let (mut seed, mut round) = (1_u32, 0_u32);
    loop {
        let mut spun = 0;
        while taken.load(Ordering::Acquire) < round {
            spin(&mut spun);
        }
        if taken.load(Ordering::Acquire) == OVER {
            return;
        }
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        for count in 0..seed >> 26 {
            hint::black_box(count);
        }
        for sender in &mut senders {
            sender.try_send(RecordHeader::default(), &[]).expect("the ring is empty");
        }
        round += 1;
    }
}

#[test]
fn what_one_thread_sends_on_two_lanes_is_received_as_it_was_sent() {
    if process::cpus_online() == 1 {
        eprintln!("needs two CPUs");
        return;
    }
    let ((first, first_lane), (second, second_lane)) = (lane(), lane());
    let stamps = || Stamps::new(true, RING_BYTES);
    let mut lanes = Lanes(vec![(first_lane, stamps()), (second_lane, stamps())]);
    let taken = Arc::new(AtomicU32::new(0));
    let sending = thread::spawn({
        let taken = Arc::clone(&taken);
        move || send_rounds([first, second], &taken)
    });
    let (mut order, mut out, mut wrong, mut rounds) = (ByArrival::default(), Vec::new(), 0, 0);
    let begun = Instant::now();
    while begun.elapsed() < TIME_MAX {
        let mut slots = [0; 2];
        for place in &mut slots {
            let mut spun = 0;
            *place = loop {
                if let Some(slot) = order.next(&mut lanes) {
                    break slot;
                }
                spin(&mut spun);
            };
            lanes.0[*place].0.try_receive(&mut out).expect("an honest lane").expect("it is its turn");
        }
        rounds += 1;
        wrong += u32::from(slots != [0, 1]);
        taken.store(rounds, Ordering::Release);
    }
    taken.store(OVER, Ordering::Release);
    sending.join().expect("no panic");
    eprintln!("{rounds} rounds");
    assert_eq!(wrong, 0, "received the other way round, of {rounds} rounds");
}
