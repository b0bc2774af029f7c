//! Lanes: opening, closing, draining, and what each end is told.

use alloc::vec::Vec;

use keyway_abi::{
    Denial, Event, Kind, LaneEnd, Listing, QueueOrder, Reply, Rights,
    layout::{GENERATION_FIRST, WORD_DEAD, WORD_REVOKED},
    request,
};

use super::driver::{Driver, Joined, RING_BYTES, ack_dropped, lane_ended, lost};
use crate::{Descriptor, Effect, SealUse};

#[test]
fn an_open_lane_shows_its_generation_to_both_ends() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { sender_word, receiver_word, peer_handle, .. } = driver.lane(a, b);
    for (who, word) in [(a, sender_word), (b, receiver_word)] {
        assert!(word.generation >= GENERATION_FIRST);
        assert_eq!(driver.word(who.number, word), word.generation);
    }
    assert_ne!(sender_word.generation, receiver_word.generation);
    let peer = driver.list(b.number).into_iter().find(|entry| entry.handle == peer_handle);
    let peer = peer.expect("a capability to watch the sender");
    assert_eq!((peer.kind, peer.rights), (Kind::Process, Rights::WATCH));
    driver.finish();
}

#[test]
fn the_ring_goes_to_the_sender_writable_and_sealed_to_the_receiver() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(b, 1);
    let send = driver.give(b, queue, a, Rights::SEND);
    let (reply, descriptors) = driver.ask_all(
        a.number,
        request::OpenLane { queue: send, ring_bytes: RING_BYTES, priority: 0, huge: false },
    );
    let Reply::LaneOpening { lane, word, .. } = reply else { panic!("a lane") };
    assert!(matches!(descriptors[..], [Descriptor::Writable(_), Descriptor::Readable(_)]));
    assert_eq!(driver.word(a.number, word), 0, "not usable before it is sealed");
    assert_eq!(driver.kernel.lane_memories(lane), None);
    driver.hold = true;
    let call = driver.post(a.number, request::LaneMapped { lane });
    let [Effect::SealMemory { seals: SealUse::Ring, bytes, .. }] = driver.effects[..] else {
        panic!("sealed")
    };
    assert_eq!(bytes, u64::from(RING_BYTES) + 4096);
    assert_eq!(driver.events(b.number), [], "the receiver is told once it is sealed");
    driver.answer_next(Ok(()));
    assert_eq!(driver.reply_to(a.number, call), Some(Reply::Done));
    driver.opened(b);
    driver.finish();
}

#[test]
fn a_ring_of_huge_pages_is_whole_ones_that_must_all_be_there() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(b, 1);
    let send = driver.give(b, queue, a, Rights::SEND);
    driver.hold = true;
    let open = request::OpenLane { queue: send, ring_bytes: RING_BYTES, priority: 0, huge: true };
    let call = driver.post(a.number, open);
    let [Effect::CreateMemory { bytes, huge, .. }] = driver.effects[..] else { panic!("memory") };
    assert_eq!((bytes, huge), (2 << 20, true), "the first page and the records are in one");
    driver.answer_next(Ok(()));
    let Some(Reply::LaneOpening { lane, .. }) = driver.reply_to(a.number, call) else { panic!("a lane") };
    driver.post(a.number, request::LaneMapped { lane });
    let [Effect::SealMemory { seals: SealUse::HugeRing, bytes, .. }] = driver.effects[..] else {
        panic!("sealed")
    };
    assert_eq!(bytes, 2 << 20);
    driver.answer_next(Ok(()));
    let Event::LaneOpened { ring_bytes, huge, .. } = driver.opened(b) else { panic!("opened") };
    assert_eq!((ring_bytes, huge), (RING_BYTES, true));
    driver.finish();
}

#[test]
fn each_acknowledgement_memory_comes_writable_in_the_order_of_its_number() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let create = request::CreateQueue {
        ring_bytes_max: RING_BYTES,
        senders_max: 8,
        stock: 3,
        order: QueueOrder::Fair,
    };
    let (reply, first) = driver.ask_all(a.number, create);
    let Reply::Queue { queue, first_ack: 0, .. } = reply else { panic!("a queue: {reply:?}") };
    let (reply, further) = driver.ask_all(a.number, request::TopUp { queue: queue.handle, count: 2 });
    assert_eq!(reply, Reply::Acks { first_ack: 3 });
    let made: Vec<_> = driver.memories.keys().copied().map(Descriptor::Writable).collect();
    assert_eq!((&first[..], &further[..]), (&made[..3], &made[3..]));
    assert_eq!(made.len(), 5);
    driver.finish();
}

#[test]
fn a_sender_that_closes_leaves_a_draining_lane() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { lane, receiver_word, .. } = driver.lane(a, b);
    driver.done(a.number, request::CloseLane { lane });
    assert_eq!(driver.word(b.number, receiver_word), WORD_DEAD);
    assert_eq!(driver.events(b.number), [lane_ended(lane, LaneEnd::Closed)]);
    assert_eq!(driver.memories.len(), 3, "ring and acknowledgement memory stay, and one in stock");
    driver.done(b.number, request::CloseLane { lane });
    assert_eq!(driver.memories.len(), 1);
    assert_eq!(driver.events(a.number), []);
    driver.finish();
}

#[test]
fn a_dead_senders_lane_stays_charged_to_its_user_until_it_is_drained() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect_uid(1), driver.connect_uid(2));
    let Joined { lane, receiver_word, .. } = driver.lane(a, b);
    let account = driver.kernel.process(a.number).account;
    driver.end(a.number);
    assert_eq!(driver.word(b.number, receiver_word), WORD_DEAD);
    let ended = lane_ended(lane, LaneEnd::PeerDead);
    assert_eq!(driver.events(b.number), [ended]);
    let used = driver.kernel.accounts.used(account);
    assert_eq!((used.lanes, used.handles, used.bytes), (1, 0, u64::from(RING_BYTES) + 4096));
    driver.done(b.number, request::CloseLane { lane });
    assert!(driver.kernel.lanes.is_empty());
    driver.finish();
}

#[test]
fn a_draining_lane_can_still_be_revoked() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { lane, queue, receiver_word, .. } = driver.lane(a, b);
    driver.end(a.number);
    driver.events(b.number);
    driver.ask(b.number, request::Revoke { handle: queue });
    assert_eq!(driver.word(b.number, receiver_word), WORD_REVOKED, "nothing more is accepted");
    driver.done(b.number, request::CloseLane { lane });
    driver.finish();
}

#[test]
fn a_receiver_that_closes_tells_the_sender() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { lane, sender_word, .. } = driver.lane(a, b);
    driver.done(b.number, request::CloseLane { lane });
    assert_eq!(driver.word(a.number, sender_word), WORD_DEAD);
    assert_eq!(driver.events(a.number), [lane_ended(lane, LaneEnd::Closed)]);
    assert_eq!(driver.memories.len(), 1, "the memory is gone, though the sender has not closed yet");
    assert_eq!(driver.denied(b.number, request::CloseLane { lane }), Denial::UnknownLane { lane });
    driver.done(a.number, request::CloseLane { lane });
    assert_eq!(driver.events(b.number), []);
    driver.finish();
}

#[test]
fn a_deleted_queue_ends_its_lanes_and_takes_its_capabilities_back() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { lane, queue, send, sender_word, .. } = driver.lane(a, b);
    driver.done(b.number, request::Delete { handle: queue });
    assert_eq!(driver.word(a.number, sender_word), WORD_DEAD);
    assert_eq!(driver.events(a.number), [lane_ended(lane, LaneEnd::QueueDeleted), lost(send)]);
    assert!(driver.memories.is_empty(), "also what was in stock");
    driver.finish();
}

#[test]
fn a_dead_receivers_queue_ends_as_dead() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { lane, send, sender_word, .. } = driver.lane(a, b);
    driver.end(b.number);
    assert_eq!(driver.word(a.number, sender_word), WORD_DEAD);
    assert_eq!(driver.events(a.number), [lane_ended(lane, LaneEnd::PeerDead), lost(send)]);
    driver.finish();
}

#[test]
fn a_sender_that_leaves_before_its_lane_is_open_uses_up_one_acknowledgement_memory() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { queue, send, .. } = driver.lane(a, b);
    driver.ask(a.number, request::OpenLane { queue: send, ring_bytes: RING_BYTES, priority: 0, huge: false });
    driver.end(a.number);
    let events = driver.events(b.number);
    assert!(events.contains(&ack_dropped(queue, 1)), "{events:?}");
    driver.finish();
}

#[test]
fn a_lane_that_ends_while_it_is_sealed_is_denied_and_waits_to_be_closed() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { queue, send, .. } = driver.lane(a, b);
    let reply = driver
        .ask(a.number, request::OpenLane { queue: send, ring_bytes: RING_BYTES, priority: 0, huge: false });
    let Reply::LaneOpening { lane, word, .. } = reply else { panic!("a lane") };
    driver.hold = true;
    let call = driver.post(a.number, request::LaneMapped { lane });
    driver.ask(b.number, request::Revoke { handle: queue });
    driver.answer_next(Ok(()));
    assert_eq!(driver.reply_to(a.number, call), Some(Reply::Denied(Denial::LaneEnded { lane })));
    assert_eq!(driver.word(a.number, word), WORD_REVOKED);
    driver.done(a.number, request::CloseLane { lane });
    driver.finish();
}

#[test]
fn a_lane_that_its_sender_closes_while_it_opens_is_denied_and_gone() {
    for sealing in [false, true] {
        let mut driver = Driver::new();
        let (a, b) = (driver.connect(), driver.connect());
        let Joined { queue, send, .. } = driver.lane(a, b);
        driver.hold = true;
        let mut call = driver.post(
            a.number,
            request::OpenLane { queue: send, ring_bytes: RING_BYTES, priority: 0, huge: false },
        );
        let lane = *driver.kernel.lanes.keys().next_back().expect("the lane that opens");
        if sealing {
            driver.answer_next(Ok(()));
            assert!(matches!(driver.reply_to(a.number, call), Some(Reply::LaneOpening { .. })));
            call = driver.post(a.number, request::LaneMapped { lane });
        }
        driver.done(a.number, request::CloseLane { lane });
        assert_eq!(driver.events(b.number), [ack_dropped(queue, 1)]);
        driver.answer_next(Ok(()));
        assert_eq!(driver.reply_to(a.number, call), Some(Reply::Denied(Denial::LaneEnded { lane })));
        assert_eq!(driver.denied(a.number, request::CloseLane { lane }), Denial::UnknownLane { lane });
        driver.finish();
    }
}

#[test]
fn a_process_that_sends_to_itself_closes_the_senders_end_first() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let queue = driver.queue(a, 1);
    let (lane, sender_word) = driver.open(a, queue);
    let opened = driver.opened(a);
    let Event::LaneOpened { word, .. } = opened else { panic!("opened") };
    driver.done(a.number, request::CloseLane { lane });
    assert_eq!(driver.word(a.number, word), WORD_DEAD);
    assert_eq!(driver.word(a.number, sender_word), sender_word.generation);
    driver.done(a.number, request::CloseLane { lane });
    assert_eq!(driver.denied(a.number, request::CloseLane { lane }), Denial::UnknownLane { lane });
    let reply = driver.ask(a.number, request::TopUp { queue, count: 1 });
    assert_eq!(reply, Reply::Acks { first_ack: 1 });
    driver.done(a.number, request::AcksMapped { queue, first: 1, count: 1 });
    driver.open(a, queue);
    driver.finish();
}

#[test]
fn the_order_of_a_queue_is_listed_and_senders_stamp_where_it_is_by_arrival() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let orders = [QueueOrder::Fair, QueueOrder::Priority, QueueOrder::Arrival];
    for order in orders {
        let create = request::CreateQueue { ring_bytes_max: RING_BYTES, senders_max: 8, stock: 1, order };
        let Reply::Queue { queue, .. } = driver.ask(b.number, create) else { panic!("a queue") };
        driver.done(b.number, request::AcksMapped { queue: queue.handle, first: 0, count: 1 });
        let send = driver.give(b, queue.handle, a, Rights::SEND);
        let open = request::OpenLane { queue: send, ring_bytes: RING_BYTES, priority: 0, huge: false };
        let Reply::LaneOpening { stamps, .. } = driver.ask(a.number, open) else { panic!("a lane") };
        assert_eq!(stamps, order == QueueOrder::Arrival);
    }
    let directory = a.directory;
    let listed = driver.ask(a.number, request::ListQueues { directory, after: None });
    let Reply::Listing(Listing::Queues(queues)) = listed else { panic!("queues: {listed:?}") };
    assert_eq!(queues.iter().map(|queue| queue.order).collect::<Vec<_>>(), orders);
    driver.finish();
}
