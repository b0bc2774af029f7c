//! Ten thousand lanes into one queue: each costs what the first does, and they end in steps.

use alloc::vec::Vec;

use keyway_abi::{
    Denial, Event, LaneEnd, LaneId, Reply, Rights, Sharer,
    limits::{ACKS_MAX, QUEUE_SENDERS_MAX, SWEEP_STEP},
    request,
};

use super::driver::{Driver, RING_BYTES, Who};
use crate::Limits;

const LANES: usize = 10_000;
const SENDERS: usize = 4;
/// Effects of one lane that opens or ends, with room for a broker page that comes or goes now and then.
const EFFECTS_MAX: usize = 12;

/// The queue of a receiver, and the lanes of each sender.
struct Crowd {
    driver: Driver,
    receiver: Who,
    queue: keyway_abi::Handle,
    senders: Vec<(Who, keyway_abi::Handle, Vec<LaneId>)>,
}

fn crowd() -> Crowd {
    let mut driver = Driver::new();
    driver.kernel.set_limits(Limits::NONE);
    let receiver = driver.connect_uid(1);
    let create = request::CreateQueue {
        ring_bytes_max: RING_BYTES,
        senders_max: QUEUE_SENDERS_MAX,
        stock: 0,
        order: request::QueueOrder::Fair,
    };
    let Reply::Queue { queue, .. } = driver.ask(receiver.number, create) else { panic!("a queue") };
    let queue = queue.handle;
    let mut senders = Vec::new();
    for uid in 0..SENDERS {
        let sender = driver.connect_uid(2 + uid as u32 % 2);
        let send = driver.give(receiver, queue, sender, Rights::SEND);
        senders.push((sender, send, Vec::new()));
    }
    driver.audits = false;
    let count = ACKS_MAX;
    for nth in 0..LANES {
        if nth.is_multiple_of(count.into()) {
            let first = nth as u32;
            assert_eq!(
                driver.ask(receiver.number, request::TopUp { queue, count }),
                Reply::Acks { first_ack: first }
            );
            driver.done(receiver.number, request::AcksMapped { queue, first, count });
        }
        let (sender, send, lanes) = &mut senders[nth % SENDERS];
        let (lane, _) = driver.open(*sender, *send);
        assert!(driver.effects.len() <= EFFECTS_MAX, "{nth}: {:?}", driver.effects);
        lanes.push(lane);
        driver.opened(receiver);
    }
    driver.audits = true;
    driver.kernel.audit();
    Crowd { driver, receiver, queue, senders }
}

fn ended(events: Vec<Event>, why: LaneEnd) -> Vec<LaneId> {
    let lanes = events.into_iter().flat_map(|event| match event {
        Event::LanesEnded { lanes, why: found } if found == why => lanes,
        _ => Vec::new(),
    });
    let mut lanes: Vec<LaneId> = lanes.collect();
    lanes.sort_unstable();
    lanes
}

#[test]
fn ten_thousand_lanes_of_one_queue_open_one_by_one_and_are_revoked_in_steps() {
    let Crowd { mut driver, receiver, queue, senders } = crowd();
    let account = driver.kernel.process(receiver.number).account;
    assert_eq!(driver.kernel.accounts.used(account).lanes, LANES as u32);
    let call = driver.post(receiver.number, request::Revoke { handle: queue });
    let mut steps = 1_usize;
    while driver.kernel.is_sweeping() {
        assert!(driver.effects.len() <= EFFECTS_MAX * SWEEP_STEP, "{} effects", driver.effects.len());
        // An audit of so many lanes takes longer than all steps together.
        driver.audits = steps.is_multiple_of(20);
        driver.sweep();
        steps += 1;
    }
    let least = LANES / SWEEP_STEP;
    assert!((least..=3 * least).contains(&steps), "{steps} steps");
    let Some(Reply::Revoked { count }) = driver.reply_to(receiver.number, call) else { panic!("revoked") };
    assert_eq!(count, SENDERS as u64, "what they held; their lanes went with it");
    let mut all: Vec<LaneId> = senders.iter().flat_map(|(.., lanes)| lanes.clone()).collect();
    all.sort_unstable();
    assert_eq!(ended(driver.events(receiver.number), LaneEnd::Revoked), all);
    driver.audits = false;
    for (sender, _, lanes) in senders {
        assert_eq!(ended(driver.events(sender.number), LaneEnd::Revoked), lanes);
        for lane in lanes {
            driver.done(receiver.number, request::CloseLane { lane });
            driver.done(sender.number, request::CloseLane { lane });
            assert!(driver.effects.len() <= EFFECTS_MAX, "{:?}", driver.effects);
        }
    }
    driver.audits = true;
    driver.kernel.audit();
    assert_eq!(driver.kernel.accounts.used(account).lanes, 0);
    driver.finish();
}

#[test]
fn ten_thousand_lanes_end_with_their_queue() {
    let Crowd { mut driver, receiver, queue, senders } = crowd();
    driver.done(receiver.number, request::Delete { handle: queue });
    for (sender, _, lanes) in senders {
        assert_eq!(ended(driver.events(sender.number), LaneEnd::QueueDeleted), lanes);
    }
    driver.finish();
}

#[test]
fn what_is_shared_out_is_no_more_than_what_the_receiver_can_take() {
    let mut driver = Driver::new();
    let mut limits = Limits::default();
    limits.process.lanes = 40;
    driver.kernel.set_limits(limits);
    let (receiver, sender) = (driver.connect_uid(1), driver.connect_uid(2));
    let create = request::CreateQueue {
        ring_bytes_max: RING_BYTES,
        senders_max: 1000,
        stock: 16,
        order: request::QueueOrder::Fair,
    };
    let Reply::Queue { queue, .. } = driver.ask(receiver.number, create) else { panic!("a queue") };
    driver.done(receiver.number, request::AcksMapped { queue: queue.handle, first: 0, count: 16 });
    let send = driver.give(receiver, queue.handle, sender, Rights::SEND);
    for _ in 0..10 {
        driver.open(sender, send);
    }
    let open = request::OpenLane { queue: send, ring_bytes: RING_BYTES, priority: 0, huge: false };
    let denial = Denial::ShareExceeded { who: Sharer::Process, share: 10, senders_max: 1000 };
    assert_eq!(driver.denied(sender.number, open), denial, "a quarter of 40");
    driver.finish();
}
