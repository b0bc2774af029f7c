//! What a limit of an account refuses, what Linux refuses, and that what was given back can be had again.

use alloc::vec::Vec;

use keyway_abi::{
    Denial, Event, Farewell, Handle, Kind, LaneEnd, Payer, Quota, Reply, Rights, Terms,
    limits::{
        DESCRIPTORS_MAX, ESCROW_MAX, HANDLES_MAX, LANES_MAX, MAPPINGS_MAX, NAMES_MAX, OBJECTS_MAX,
        PROCESS_BYTES_MAX, PROCESS_SESSIONS_MAX, REGION_BYTES_MAX, SESSION_DESCRIPTORS, USER_BYTES_MAX,
        USER_SESSIONS_MAX, WATCHES_MAX,
    },
    request::{self, Audience, EscrowHow, MapAccess},
};

use super::driver::{Driver, Joined, RING_BYTES, Who, ack_dropped, derive, name};
use crate::{Arrival, Refusal};

const NO_MEMORY: i32 = 12;

fn full(quota: Quota, max: u64) -> Denial {
    Denial::QuotaExceeded { quota, of: Payer::Process, asked: 1, used: max, max }
}

/// Repeats a request until it is denied, without audits in between. Returns the denial.
fn exhaust(driver: &mut Driver, mut step: impl FnMut(&mut Driver) -> Reply) -> Denial {
    driver.audits = false;
    let denial = loop {
        if let Reply::Denied(denial) = step(driver) {
            break denial;
        }
    };
    driver.audits = true;
    driver.kernel.audit();
    denial
}

fn fill_handles(driver: &mut Driver, who: Who) -> Handle {
    let denial = exhaust(driver, |driver| driver.ask(who.number, derive(who.own, Rights::empty())));
    assert_eq!(denial, full(Quota::Handles, HANDLES_MAX.into()));
    driver.audits = false;
    let last = driver.list(who.number).pop().expect("a capability").handle;
    driver.audits = true;
    last
}

#[test]
fn handles_are_bounded_and_given_back() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let last = fill_handles(&mut driver, a);
    let create = request::CreateQueue {
        ring_bytes_max: 4096,
        senders_max: 1,
        stock: 0,
        order: request::QueueOrder::Fair,
    };
    assert_eq!(driver.denied(a.number, create), full(Quota::Handles, HANDLES_MAX.into()));
    let region = request::CreateRegion { bytes: 4096, flags: request::RegionFlags::empty() };
    assert_eq!(driver.denied(a.number, region), full(Quota::Handles, HANDLES_MAX.into()));
    let to = driver.introduce(a, b, Rights::ENDOW);
    let grant = request::Grant { from: b.own, to, terms: Terms::rights(Rights::WATCH) };
    assert_eq!(driver.denied(b.number, grant.clone()), full(Quota::Handles, HANDLES_MAX.into()));
    driver.done(a.number, request::Delete { handle: last });
    driver.made(b.number, grant);
    driver.audits = false;
    driver.finish();
}

#[test]
fn a_full_receiver_takes_no_lane() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { send, .. } = driver.lane(a, b);
    let opening = driver
        .ask(a.number, request::OpenLane { queue: send, ring_bytes: RING_BYTES, priority: 0, huge: false });
    let Reply::LaneOpening { lane, .. } = opening else { panic!("a lane: {opening:?}") };
    let last = fill_handles(&mut driver, b);
    // It was not full when the lane was asked for; it is when the lane is ready.
    let reply = driver.ask(a.number, request::LaneMapped { lane });
    assert_eq!(reply, Reply::Denied(Denial::ReceiverFull { quota: Quota::Handles }));
    assert!(matches!(driver.events(b.number)[..], [Event::AcksDropped { .. }]));
    let open = request::OpenLane { queue: send, ring_bytes: RING_BYTES, priority: 0, huge: false };
    assert_eq!(driver.denied(a.number, open), Denial::ReceiverFull { quota: Quota::Handles });
    driver.done(b.number, request::Delete { handle: last });
    driver.audits = false;
    driver.finish();
}

#[test]
fn objects_are_bounded() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let create = request::CreateQueue {
        ring_bytes_max: 4096,
        senders_max: 1,
        stock: 0,
        order: request::QueueOrder::Fair,
    };
    let denial = exhaust(&mut driver, |driver| driver.ask(a.number, create.clone()));
    assert_eq!(denial, full(Quota::Objects, OBJECTS_MAX.into()));
    driver.finish();
}

#[test]
fn names_are_bounded() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let queue = driver.queue(a, 0);
    let mut count = 0;
    let denial = exhaust(&mut driver, |driver| {
        count += 1;
        let publish = request::Publish {
            directory: a.directory,
            name: name(&alloc::format!("name-{count}")),
            queue,
            rights: Rights::SEND,
            audience: Audience::Everyone,
        };
        driver.ask(a.number, publish)
    });
    assert_eq!(denial, full(Quota::Names, NAMES_MAX.into()));
    driver.finish();
}

#[test]
fn bytes_of_a_process_and_of_its_user_are_bounded() {
    let mut driver = Driver::new();
    let create = request::CreateRegion { bytes: REGION_BYTES_MAX, flags: request::RegionFlags::empty() };
    for _ in 0..USER_BYTES_MAX / PROCESS_BYTES_MAX {
        let who = driver.connect();
        let region = driver.made(who.number, create.clone()).handle;
        let (quota, of) = (Quota::Bytes, Payer::Process);
        let denial = Denial::QuotaExceeded { quota, of, asked: 4096, used: 1 << 30, max: 1 << 30 };
        assert_eq!(
            driver.denied(
                who.number,
                request::CreateRegion { bytes: 4096, flags: request::RegionFlags::empty() }
            ),
            denial
        );
        driver.done(who.number, request::Delete { handle: region });
        driver.made(who.number, create.clone());
    }
    let fifth = driver.connect();
    let (quota, of) = (Quota::Bytes, Payer::User);
    let denial = Denial::QuotaExceeded { quota, of, asked: 4096, used: 4 << 30, max: 4 << 30 };
    assert_eq!(
        driver.denied(
            fifth.number,
            request::CreateRegion { bytes: 4096, flags: request::RegionFlags::empty() }
        ),
        denial
    );
    let other = driver.connect_uid(2000);
    driver.made(other.number, create);
    driver.finish();
}

#[test]
fn descriptors_are_bounded() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let create = request::CreateQueue {
        ring_bytes_max: 4096,
        senders_max: 1,
        stock: 8,
        order: request::QueueOrder::Fair,
    };
    let denial = exhaust(&mut driver, |driver| driver.ask(a.number, create.clone()));
    let (max, of) = (DESCRIPTORS_MAX.into(), Payer::Process);
    let used = max - u64::from(SESSION_DESCRIPTORS);
    assert_eq!(denial, Denial::QuotaExceeded { quota: Quota::Descriptors, of, asked: 8, used, max });
    driver.finish();
}

#[test]
fn stock_is_bounded_by_what_no_lane_has_taken() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(b, 8);
    let send = driver.give(b, queue, a, Rights::SEND);
    for _ in 0..3 {
        driver.open(a, send);
    }
    let reply = driver.ask(b.number, request::TopUp { queue, count: 11 });
    assert_eq!(reply, Reply::Acks { first_ack: 8 });
    let denial = Denial::InvalidCount { asked: 17, max: 16 };
    assert_eq!(driver.denied(b.number, request::TopUp { queue, count: 1 }), denial);
    // A queue of many lanes has more, and not as many as it has lanes.
    let create = request::CreateQueue {
        ring_bytes_max: RING_BYTES,
        senders_max: 1000,
        stock: 16,
        order: request::QueueOrder::Fair,
    };
    let Reply::Queue { queue, .. } = driver.ask(b.number, create) else { panic!("a queue") };
    for _ in 0..3 {
        driver.ask(b.number, request::TopUp { queue: queue.handle, count: 16 });
    }
    let denial = Denial::InvalidCount { asked: 65, max: 64 };
    assert_eq!(driver.denied(b.number, request::TopUp { queue: queue.handle, count: 1 }), denial);
    driver.finish();
}

#[test]
fn lanes_are_bounded_also_those_to_oneself() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let create = request::CreateQueue {
        ring_bytes_max: 4096,
        senders_max: 8,
        stock: 8,
        order: request::QueueOrder::Fair,
    };
    driver.audits = false;
    let mut queue = Handle::NONE;
    for lanes in 0..LANES_MAX / 2 {
        if lanes % 8 == 0 {
            let reply = driver.ask(a.number, create.clone());
            let Reply::Queue { queue: made, .. } = reply else { panic!("a queue: {reply:?}") };
            queue = made.handle;
            driver.done(a.number, request::AcksMapped { queue, first: 0, count: 8 });
        }
        driver.open(a, queue);
    }
    driver.audits = true;
    let queue = driver.queue(a, 1);
    let max = LANES_MAX.into();
    let open = request::OpenLane { queue, ring_bytes: RING_BYTES, priority: 0, huge: false };
    let (quota, of) = (Quota::Lanes, Payer::Process);
    let denial = Denial::QuotaExceeded { quota, of, asked: 2, used: max, max };
    assert_eq!(driver.denied(a.number, open), denial);
    driver.finish();
}

#[test]
fn mappings_are_bounded_and_words_follow_them() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let (region, ..) = driver.written_region(a);
    let map = request::MapRegion { region, access: MapAccess::Read };
    let denial = exhaust(&mut driver, |driver| driver.ask(a.number, map.clone()));
    assert_eq!(denial, full(Quota::Mappings, MAPPINGS_MAX.into()));
    let added = driver.events(a.number);
    assert_eq!(added, [Event::PageAdded { page: 1 }], "before the first page was used up");
    driver.finish();
}

#[test]
fn escrow_is_bounded() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { lane, .. } = driver.lane(a, b);
    let put = request::EscrowPut { lane, from: a.own, how: EscrowHow::Copy(Terms::rights(Rights::WATCH)) };
    let denial = exhaust(&mut driver, |driver| driver.ask(a.number, put.clone()));
    assert_eq!(denial, full(Quota::Escrow, ESCROW_MAX as u64));
    driver.finish();
}

#[test]
fn watches_are_bounded() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let denial = exhaust(&mut driver, |driver| {
        let process = driver.made(a.number, derive(a.own, Rights::WATCH)).handle;
        driver.ask(a.number, request::Watch { process })
    });
    assert_eq!(denial, full(Quota::Watches, WATCHES_MAX as u64));
    driver.finish();
}

#[test]
fn sessions_of_a_user_are_bounded() {
    let mut driver = Driver::new();
    for _ in 1..USER_SESSIONS_MAX / PROCESS_SESSIONS_MAX {
        let Who { number, own: process, .. } = driver.connect();
        let denial = exhaust(&mut driver, |driver| driver.ask(number, request::StartChild { process }));
        assert_eq!(
            denial,
            full(Quota::Sessions, PROCESS_SESSIONS_MAX.into()),
            "children that have not spoken"
        );
    }
    let (a, b) = (driver.connect(), driver.connect());
    let starters = [a, b].into_iter().cycle();
    let mut starters =
        starters.map(|Who { number, own: process, .. }| (number, request::StartChild { process }));
    let denial = exhaust(&mut driver, |driver| {
        let (number, start) = starters.next().expect("for ever");
        driver.ask(number, start)
    });
    let (quota, of, max) = (Quota::Sessions, Payer::User, USER_SESSIONS_MAX.into());
    assert_eq!(denial, Denial::QuotaExceeded { quota, of, asked: 1, used: max, max });
    let identity = driver.identity(1000);
    let arrival = Arrival { identity, own: Rights::all(), directory: Rights::all() };
    assert_eq!(driver.arrive_with(arrival), Err(Farewell::Full { quota, of, used: max, max }));
    driver.connect_uid(2000);
    driver.finish();
}

#[test]
fn a_process_without_a_broker_word_opens_nothing_until_a_page_comes() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let (region, ..) = driver.written_region(a);
    let queue = driver.queue(a, 1);
    driver.hold = true;
    let map = request::MapRegion { region, access: MapAccess::Read };
    let denial = exhaust(&mut driver, |driver| driver.ask(a.number, map.clone()));
    assert!(matches!(denial, Denial::QuotaExceeded { quota: Quota::Pages, asked: 1, .. }), "{denial:?}");
    let open = request::OpenLane { queue, ring_bytes: RING_BYTES, priority: 0, huge: false };
    assert!(matches!(
        driver.denied(a.number, open.clone()),
        Denial::QuotaExceeded { quota: Quota::Pages, asked: 1, .. }
    ));
    let send = driver.give(a, queue, b, Rights::SEND);
    let full = driver.denied(b.number, request::OpenLane { queue: send, ..open });
    assert_eq!(full, Denial::ReceiverFull { quota: Quota::Pages });
    driver.answer_next(Ok(()));
    assert_eq!(driver.events(a.number), [Event::PageAdded { page: 1 }]);
    assert!(matches!(driver.ask(a.number, map), Reply::Mapping { .. }));
    driver.finish();
}

#[test]
fn a_lane_to_oneself_takes_two_broker_words_and_one_from_another_takes_one() {
    for (left, to_itself) in [(1, false), (2, true)] {
        let mut driver = Driver::new();
        let (a, b) = (driver.connect(), driver.connect());
        let (region, ..) = driver.written_region(a);
        let queue = driver.queue(a, 2);
        let send = driver.give(a, queue, b, Rights::SEND);
        driver.hold = true;
        driver.audits = false;
        while driver.kernel.process(a.number).pages.free_words() > left {
            driver.map(a, region, MapAccess::Read);
        }
        driver.audits = true;
        let open = request::OpenLane { queue, ring_bytes: RING_BYTES, priority: 0, huge: false };
        if to_itself {
            driver.post(a.number, open);
        } else {
            let full = Denial::ReceiverFull { quota: Quota::Pages };
            assert_eq!(driver.denied(a.number, open.clone()), full);
            driver.post(b.number, request::OpenLane { queue: send, ..open });
        }
        assert_eq!(driver.kernel.lanes.len(), 1, "it is being opened");
        assert!(!driver.kernel.process(a.number).pages.has_word());
        driver.finish();
    }
}

#[test]
fn a_refused_further_page_is_asked_for_again() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let (region, ..) = driver.written_region(a);
    driver.hold = true;
    driver.audits = false;
    while driver.pending.is_empty() {
        driver.map(a, region, MapAccess::Read);
    }
    driver.audits = true;
    driver.answer_next(Err(Refusal::System(NO_MEMORY)));
    assert_eq!(driver.farewells.len(), 0, "the session lives on");
    assert_eq!(driver.events(a.number), [], "no page was added");
    driver.map(a, region, MapAccess::Read);
    assert_eq!(driver.pending.len(), 1, "asked for again with the next word");
    driver.finish();
}

#[test]
fn a_spent_page_is_dropped() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let (region, ..) = driver.written_region(a);
    driver.audits = false;
    let all: Vec<_> = (0..MAPPINGS_MAX - 1).map(|_| driver.map(a, region, MapAccess::Read)).collect();
    assert!(driver.events(a.number).contains(&Event::PageAdded { page: 1 }));
    driver.audits = true;
    driver.kernel.audit();
    driver.audits = false;
    for (mapping, _) in all {
        driver.done(a.number, request::Unmap { mapping });
    }
    driver.audits = true;
    driver.kernel.audit();
    let events = driver.events(a.number);
    assert!(events.contains(&Event::PageDropped { page: 1 }), "{events:?}");
    assert!(!events.contains(&Event::PageDropped { page: 0 }), "page 0 stays");
    driver.finish();
}

#[test]
fn refused_memory_undoes_the_queue_and_the_region() {
    let mut driver = Driver::new();
    let a = driver.connect();
    driver.hold = true;
    let refused = Some(Reply::Denied(Denial::SystemRefused { errno: NO_MEMORY }));
    let held = driver.list(a.number);
    let create = request::CreateQueue {
        ring_bytes_max: 4096,
        senders_max: 1,
        stock: 2,
        order: request::QueueOrder::Fair,
    };
    let queue = driver.post(a.number, create);
    driver.answer_next(Err(Refusal::System(NO_MEMORY)));
    assert_eq!(driver.reply_to(a.number, queue), refused);
    let region =
        driver.post(a.number, request::CreateRegion { bytes: 4096, flags: request::RegionFlags::empty() });
    driver.answer_next(Err(Refusal::System(NO_MEMORY)));
    assert_eq!(driver.reply_to(a.number, region), refused);
    assert_eq!(driver.list(a.number), held);
    assert!(driver.memories.is_empty());
    driver.finish();
}

#[test]
fn refused_stock_is_no_stock() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let queue = driver.queue(a, 0);
    driver.hold = true;
    let refused = Some(Reply::Denied(Denial::SystemRefused { errno: NO_MEMORY }));
    let call = driver.post(a.number, request::TopUp { queue, count: 2 });
    driver.answer_next(Err(Refusal::System(NO_MEMORY)));
    assert_eq!(driver.reply_to(a.number, call), refused);
    driver.post(a.number, request::TopUp { queue, count: 2 });
    driver.answer_next(Ok(()));
    let call = driver.post(a.number, request::AcksMapped { queue, first: 2, count: 1 });
    driver.answer_next(Err(Refusal::System(NO_MEMORY)));
    assert_eq!(driver.reply_to(a.number, call), refused);
    let open = request::OpenLane { queue, ring_bytes: RING_BYTES, priority: 0, huge: false };
    assert_eq!(driver.denied(a.number, open), Denial::StockEmpty);
    assert_eq!(driver.memories.len(), 1, "what was refused its seals is gone");
    driver.finish();
}

#[test]
fn a_refused_ring_ends_the_lane_and_drops_its_acknowledgement_memory() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { send, queue, .. } = driver.lane(a, b);
    let refused = Some(Reply::Denied(Denial::SystemRefused { errno: NO_MEMORY }));
    let open = request::OpenLane { queue: send, ring_bytes: RING_BYTES, priority: 0, huge: false };
    driver.hold = true;
    let call = driver.post(a.number, open.clone());
    driver.answer_next(Err(Refusal::System(NO_MEMORY)));
    assert_eq!(driver.reply_to(a.number, call), refused);
    assert_eq!(driver.events(b.number), [ack_dropped(queue, 1)]);
    driver.hold = false;
    driver.ask(b.number, request::TopUp { queue, count: 1 });
    driver.done(b.number, request::AcksMapped { queue, first: 2, count: 1 });
    let Reply::LaneOpening { lane, .. } = driver.ask(a.number, open) else { panic!("a lane") };
    driver.hold = true;
    let call = driver.post(a.number, request::LaneMapped { lane });
    driver.answer_next(Err(Refusal::System(NO_MEMORY)));
    assert_eq!(driver.reply_to(a.number, call), refused);
    assert_eq!(driver.events(b.number), [ack_dropped(queue, 2)]);
    assert_eq!(driver.denied(a.number, request::CloseLane { lane }), Denial::UnknownLane { lane });
    driver.finish();
}

#[test]
fn refused_seals_end_the_writers_mapping() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let region = driver.region(a);
    let (mapping, _) = driver.map(a, region, MapAccess::Write);
    driver.hold = true;
    let call = driver.post(a.number, request::RegionMapped { mapping });
    driver.answer_next(Err(Refusal::System(NO_MEMORY)));
    let refused = Reply::Denied(Denial::SystemRefused { errno: NO_MEMORY });
    assert_eq!(driver.reply_to(a.number, call), Some(refused));
    assert_eq!(driver.denied(a.number, request::Unmap { mapping }), Denial::UnknownMapping { mapping });
    let map = request::MapRegion { region, access: MapAccess::Read };
    assert_eq!(driver.denied(a.number, map), Denial::ObjectEnded { kind: Kind::Region });
    driver.finish();
}

#[test]
fn a_refused_pair_leaves_no_child_and_no_socket() {
    let mut driver = Driver::new();
    let a = driver.connect();
    driver.hold = true;
    let call = driver.post(a.number, request::StartChild { process: a.own });
    driver.answer_next(Ok(()));
    driver.answer_next(Err(Refusal::System(NO_MEMORY)));
    let refused = Some(Reply::Denied(Denial::SystemRefused { errno: NO_MEMORY }));
    assert_eq!(driver.reply_to(a.number, call), refused);
    assert_eq!(driver.farewells.len(), 1, "the child is gone");
    let call = driver.post(a.number, request::OpenDeposit { process: a.own });
    driver.answer_next(Err(Refusal::System(NO_MEMORY)));
    assert_eq!(driver.reply_to(a.number, call), refused);
    driver.finish();
}

#[test]
fn a_child_whose_first_page_is_refused_is_denied_to_its_starter() {
    let mut driver = Driver::new();
    let a = driver.connect();
    driver.hold = true;
    let call = driver.post(a.number, request::StartChild { process: a.own });
    driver.answer_next(Err(Refusal::System(NO_MEMORY)));
    assert_eq!(
        driver.farewells.values().copied().collect::<Vec<_>>(),
        [Some(Farewell::SystemRefused { errno: NO_MEMORY })]
    );
    driver.answer_next(Ok(()));
    let child = *driver.farewells.keys().next().expect("the child");
    let ended = Denial::ProcessEnded { process: child };
    assert_eq!(driver.reply_to(a.number, call), Some(Reply::Denied(ended)));
    driver.finish();
}

#[test]
fn a_session_whose_first_page_is_refused_ends() {
    let mut driver = Driver::new();
    driver.hold = true;
    let identity = driver.identity(1000);
    let number = driver.arrive(identity);
    driver.answer_next(Err(Refusal::System(NO_MEMORY)));
    assert_eq!(driver.farewells[&number], Some(Farewell::SystemRefused { errno: NO_MEMORY }));
    driver.finish();
}

#[test]
fn a_region_that_is_not_made_yet_cannot_be_mapped_nor_can_one_that_was_refused() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    driver.hold = true;
    let call =
        driver.post(a.number, request::CreateRegion { bytes: 4096, flags: request::RegionFlags::empty() });
    // The listing shows it before the reply does.
    let region = driver.list(a.number).pop().expect("the region").handle;
    for access in [MapAccess::Read, MapAccess::Write] {
        let map = request::MapRegion { region, access };
        assert_eq!(driver.denied(a.number, map), Denial::RegionUnwritten);
    }
    let shared = driver.give(a, region, b, Rights::MAP | Rights::WRITE);
    driver.done(a.number, request::Delete { handle: region });
    driver.answer_next(Err(Refusal::System(NO_MEMORY)));
    let refused = Reply::Denied(Denial::SystemRefused { errno: NO_MEMORY });
    assert_eq!(driver.reply_to(a.number, call), Some(refused));
    let map = request::MapRegion { region: shared, access: MapAccess::Write };
    assert_eq!(driver.denied(b.number, map), Denial::ObjectEnded { kind: Kind::Region });
    driver.finish();
}

#[test]
fn answers_that_come_after_the_process_ended_change_nothing() {
    for outcome in [Ok(()), Err(Refusal::System(NO_MEMORY))] {
        let mut driver = Driver::new();
        let (a, b) = (driver.connect(), driver.connect());
        let Joined { send, queue, .. } = driver.lane(a, b);
        let region = driver.region(a);
        let (mapping, _) = driver.map(a, region, MapAccess::Write);
        driver.hold = true;
        driver.post(
            a.number,
            request::OpenLane { queue: send, ring_bytes: RING_BYTES, priority: 0, huge: false },
        );
        driver.post(a.number, request::RegionMapped { mapping });
        driver.post(a.number, request::CreateRegion { bytes: 4096, flags: request::RegionFlags::empty() });
        let create = request::CreateQueue {
            ring_bytes_max: 4096,
            senders_max: 1,
            stock: 1,
            order: request::QueueOrder::Fair,
        };
        driver.post(a.number, create);
        driver.post(a.number, request::OpenDeposit { process: a.own });
        driver.post(a.number, request::StartChild { process: a.own });
        driver.end(a.number);
        while !driver.pending.is_empty() {
            driver.answer_next(outcome);
        }
        let events = driver.events(b.number);
        assert!(events.contains(&ack_dropped(queue, 1)), "{events:?}");
        assert_eq!(driver.farewells.len(), 2, "the child that nobody knows has gone too");
        driver.finish();
    }
}

#[test]
fn answers_about_what_has_ended_are_denials() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { send, queue, .. } = driver.lane(a, b);
    let region = driver.region(a);
    let (mapping, _) = driver.map(a, region, MapAccess::Write);
    driver.hold = true;
    let ring = driver
        .post(a.number, request::OpenLane { queue: send, ring_bytes: RING_BYTES, priority: 0, huge: false });
    let seal = driver.post(a.number, request::RegionMapped { mapping });
    let stock = driver.post(b.number, request::TopUp { queue, count: 1 });
    driver.done(b.number, request::Delete { handle: queue });
    driver.done(a.number, request::Unmap { mapping });
    let ended = driver.events(a.number);
    assert!(
        ended.iter().all(|event| matches!(
            event,
            Event::LanesEnded { why: LaneEnd::QueueDeleted, .. } | Event::CapabilitiesLost { .. }
        )),
        "{ended:?}"
    );
    driver.answer_next(Ok(()));
    let reply = driver.reply_to(a.number, ring);
    let Some(Reply::Denied(Denial::LaneEnded { lane })) = reply else { panic!("denied: {reply:?}") };
    assert_eq!(
        driver.denied(a.number, request::CloseLane { lane }),
        Denial::UnknownLane { lane },
        "nothing of it is left"
    );
    driver.answer_next(Ok(()));
    let unknown = Reply::Denied(Denial::UnknownMapping { mapping });
    assert_eq!(driver.reply_to(a.number, seal), Some(unknown));
    driver.answer_next(Ok(()));
    let reply = driver.reply_to(b.number, stock);
    assert_eq!(reply, Some(Reply::Denied(Denial::ObjectEnded { kind: Kind::Queue })));
    driver.finish();
}
