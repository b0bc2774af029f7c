//! The order by arrival on lanes whose words a weak memory may show late.
//!
//! The clock is one word that each reading moves on. It orders nothing else: what a reading is before or behind is for the fences
//! beside it to say, in the sender and in the order.

use std::{sync::Arc, vec::Vec};

use keyway_abi::layout::{PAGE_BYTES, RECORDS_OFFSET};
use keyway_shm::{
    Barrier, LaneReceiver, LaneSender, Own, View,
    arrival::{ByArrival, Look, Scene, Stamps},
};
use loom::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use crate::{RING_BYTES, header, model, status};

loom::lazy_static! {
    static ref CLOCK: AtomicU64 = AtomicU64::new(1);
}

fn now_ns() -> u64 {
    CLOCK.fetch_add(1, Ordering::Relaxed)
}

/// Stamped lanes, at their receiver.
struct Lanes(Vec<(LaneReceiver, Stamps)>);

fn lane() -> (LaneSender, (LaneReceiver, Stamps)) {
    let (ring, ring_reader) = View::modelled(RECORDS_OFFSET + RING_BYTES as usize);
    let (ack, ack_reader) = View::modelled(PAGE_BYTES);
    let ((_, status), (_, sender_status)) = (status(), status());
    let sender = LaneSender::new(Own::of(ring), &ack_reader, sender_status, RING_BYTES, Barrier::Own);
    let receiver = LaneReceiver::new(&ring_reader, &ack, status, RING_BYTES, Barrier::Own);
    let stamps = Stamps::new(true, RING_BYTES);
    (sender.expect("a lane").stamping(now_ns), (receiver.expect("a lane").stamped(), stamps))
}

impl Lanes {
    fn take(&mut self, order: &mut ByArrival, got: &mut Vec<u32>) {
        let Some(slot) = order.next(self) else { return };
        let taken = self.0[slot].0.try_receive(&mut Vec::new()).expect("an honest lane");
        got.push(taken.expect("its turn, so it has one").message_type);
    }
}

impl Scene for Lanes {
    fn now_ns(&mut self) -> u64 {
        now_ns()
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

/// Breaks without the fence behind the receiver's reading of the clock, and without that before the sender's.
#[test]
fn what_one_thread_sends_on_two_lanes_is_received_as_it_was_sent() {
    for is_second_first in [false, true] {
        model(move || {
            let ((mut first, first_lane), (mut second, second_lane)) = (lane(), lane());
            let mut lanes = Lanes(Vec::from([first_lane, second_lane]));
            if is_second_first {
                lanes.0.swap(0, 1);
            }
            let sending = thread::spawn(move || {
                first.try_send(header(1), &[]).expect("space");
                second.try_send(header(2), &[]).expect("space");
                (first, second)
            });
            let (mut order, mut got) = (ByArrival::default(), Vec::new());
            for _ in 0..2 {
                lanes.take(&mut order, &mut got);
            }
            let senders = sending.join().expect("no panic");
            while got.len() < 2 {
                lanes.take(&mut order, &mut got);
            }
            assert_eq!(got, [1, 2]);
            drop(senders);
        });
    }
}

/// The same where one sends after it has heard that the other has.
#[test]
fn what_is_sent_after_another_was_told_of_it_is_received_behind_it() {
    model(|| {
        let ((mut first, first_lane), (mut second, second_lane)) = (lane(), lane());
        let mut lanes = Lanes(Vec::from([first_lane, second_lane]));
        let is_sent = Arc::new(AtomicBool::new(false));
        let sending = thread::spawn({
            let is_sent = Arc::clone(&is_sent);
            move || {
                first.try_send(header(1), &[]).expect("space");
                is_sent.store(true, Ordering::Release);
                first
            }
        });
        let following = thread::spawn(move || {
            if is_sent.load(Ordering::Acquire) {
                second.try_send(header(2), &[]).expect("space");
            }
            second
        });
        let (mut order, mut got) = (ByArrival::default(), Vec::new());
        lanes.take(&mut order, &mut got);
        assert!(got.is_empty() || got == [1], "{got:?}");
        drop((sending.join().expect("no panic"), following.join().expect("no panic")));
    });
}
