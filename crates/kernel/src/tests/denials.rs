//! Each denial that a process can provoke by what it names, with its exact figures, and nothing changed by it.

use alloc::vec::Vec;

use keyway_abi::{
    Badge, Denial, Handle, Kind, LaneId, MappingId, PROTOCOL_VERSION, ProcessNumber, Reply, Request, Rights,
    Sharer, Terms, Ticket,
    limits::{DERIVATION_DEPTH_MAX, REGION_BYTES_MAX},
    request::{self, Audience, EscrowHow, MapAccess},
};

use super::driver::{Driver, HELLO, Joined, REGION_BYTES, RING_BYTES, derive, name};

#[test]
fn a_handle_that_was_never_given_is_unknown() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    for _ in 0..3 {
        driver.queue(b, 0);
    }
    let foreign = driver.queue(b, 0);
    for handle in [Handle::NONE, Handle::new(99, 1), Handle::new(a.own.slot(), 2), foreign] {
        let denial = driver.denied(a.number, request::Delete { handle });
        assert_eq!(denial, Denial::UnknownHandle { handle });
    }
    driver.finish();
}

#[test]
fn a_deleted_handle_is_stale_also_when_its_slot_is_filled_again() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let handle = driver.queue(a, 0);
    driver.done(a.number, request::Delete { handle });
    assert_eq!(driver.denied(a.number, request::Revoke { handle }), Denial::StaleHandle { handle });
    let next = driver.queue(a, 0);
    assert_eq!(next.slot(), handle.slot());
    assert_eq!(driver.denied(a.number, request::Delete { handle }), Denial::StaleHandle { handle });
    driver.finish();
}

#[test]
fn a_capability_of_another_kind_is_refused() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let region = driver.region(a);
    let cases: Vec<(Request, Handle, Kind, Kind)> = alloc::vec![
        (
            request::OpenLane { queue: region, ring_bytes: RING_BYTES, priority: 0, huge: false }.into(),
            region,
            Kind::Queue,
            Kind::Region
        ),
        (request::Watch { process: region }.into(), region, Kind::Process, Kind::Region),
        (request::Claim { device: a.own }.into(), a.own, Kind::Device, Kind::Process),
        (
            request::MapRegion { region: a.directory, access: MapAccess::Read }.into(),
            a.directory,
            Kind::Region,
            Kind::Directory
        ),
        (request::ListQueues { directory: a.own, after: None }.into(), a.own, Kind::Directory, Kind::Process),
    ];
    for (request, handle, needed, found) in cases {
        assert_eq!(driver.denied(a.number, request), Denial::WrongKind { handle, needed, found });
    }
    driver.finish();
}

#[test]
fn a_capability_without_the_right_is_refused() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let queue = driver.queue(a, 1);
    let bare = driver.made(a.number, derive(queue, Rights::empty())).handle;
    let held = Rights::empty();
    let missing = |handle, needed| Denial::MissingRights { handle, needed, held };
    let open = request::OpenLane { queue: bare, ring_bytes: RING_BYTES, priority: 0, huge: false };
    assert_eq!(driver.denied(a.number, open), missing(bare, Rights::SEND));
    let top_up = request::TopUp { queue: bare, count: 1 };
    assert_eq!(driver.denied(a.number, top_up), missing(bare, Rights::RECEIVE));
    assert_eq!(
        driver.denied(a.number, derive(bare, Rights::empty())),
        missing(bare, Rights::DERIVE),
        "derive"
    );
    let grant = request::Grant { from: bare, to: a.own, terms: Terms::rights(Rights::empty()) };
    assert_eq!(driver.denied(a.number, grant), missing(bare, Rights::GRANT));
    let directory = driver.made(a.number, derive(a.directory, Rights::empty())).handle;
    let list = request::ListLanes { directory, after: None };
    assert_eq!(driver.denied(a.number, list), missing(directory, Rights::INSPECT));
    let lookup = request::Lookup { directory, name: name("x"), on_behalf_of: None };
    assert_eq!(driver.denied(a.number, lookup), missing(directory, Rights::LOOKUP));
    driver.finish();
}

#[test]
fn another_processs_capability_neither_starts_children_nor_deposits() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let process = driver.introduce(b, a, Rights::START | Rights::DEPOSIT);
    assert_eq!(
        driver.denied(a.number, request::StartChild { process }),
        Denial::MissingRights { handle: process, needed: Rights::START, held: Rights::DEPOSIT }
    );
    assert_eq!(
        driver.denied(a.number, request::OpenDeposit { process }),
        Denial::MissingRights { handle: process, needed: Rights::DEPOSIT, held: Rights::START }
    );
    driver.finish();
}

#[test]
fn rights_only_shrink() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(a, 0);
    let held = Rights::DERIVE | Rights::GRANT;
    let child = driver.made(a.number, derive(queue, held)).handle;
    let asked = Rights::SEND | Rights::DERIVE;
    let exceeded = Denial::RightsExceeded { asked, held };
    assert_eq!(driver.denied(a.number, derive(child, asked)), exceeded);
    let to = driver.introduce(b, a, Rights::ENDOW);
    let grant = request::Grant { from: child, to, terms: Terms::rights(asked) };
    assert_eq!(driver.denied(a.number, grant), exceeded);
    driver.finish();
}

#[test]
fn a_badge_is_fixed_once_and_inherited() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let queue = driver.queue(a, 0);
    let rights = Rights::DERIVE | Rights::GRANT;
    let badged =
        request::Derive { from: queue, terms: Terms { badge: Some(Badge(7)), ..Terms::rights(rights) } };
    let parent = driver.made(a.number, badged);
    assert_eq!(parent.badge, Some(Badge(7)));
    let from = parent.handle;
    assert_eq!(driver.made(a.number, derive(from, Rights::empty())).badge, Some(Badge(7)));
    let same = request::Derive { from, terms: Terms { badge: Some(Badge(7)), ..Terms::rights(rights) } };
    assert_eq!(driver.made(a.number, same).badge, Some(Badge(7)));
    let other = request::Derive { from, terms: Terms { badge: Some(Badge(8)), ..Terms::rights(rights) } };
    let fixed = Denial::BadgeFixed { asked: Badge(8), held: Badge(7) };
    assert_eq!(driver.denied(a.number, other), fixed);
    let publish = request::Publish {
        directory: a.directory,
        name: name("x"),
        queue: from,
        rights: Rights::empty(),
        audience: Audience::Everyone,
    };
    let fixed = Denial::BadgeFixed { asked: Badge(0), held: Badge(7) };
    assert_eq!(driver.denied(a.number, publish), fixed);
    driver.finish();
}

#[test]
fn derivation_has_a_depth_limit_everywhere() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Reply::Queue { queue, .. } = driver.ask(
        a.number,
        request::CreateQueue {
            ring_bytes_max: 4096,
            senders_max: 1,
            stock: 1,
            order: request::QueueOrder::Fair,
        },
    ) else {
        panic!("a queue")
    };
    driver.done(a.number, request::AcksMapped { queue: queue.handle, first: 0, count: 1 });
    let rights = Rights::SEND | Rights::DERIVE | Rights::GRANT;
    let mut deepest = queue.handle;
    for _ in 0..DERIVATION_DEPTH_MAX {
        deepest = driver.made(a.number, derive(deepest, rights)).handle;
    }
    let exceeded = Denial::DepthExceeded { depth: 65, depth_max: 64 };
    assert_eq!(driver.denied(a.number, derive(deepest, rights)), exceeded);
    let to = driver.introduce(b, a, Rights::ENDOW);
    let grant = request::Grant { from: deepest, to, terms: Terms::rights(rights) };
    assert_eq!(driver.denied(a.number, grant), exceeded);
    let publish = request::Publish {
        directory: a.directory,
        name: name("deep"),
        queue: deepest,
        rights,
        audience: Audience::Everyone,
    };
    assert_eq!(driver.denied(a.number, publish), exceeded);
    let (lane, _) = driver.open(a, deepest);
    let put = request::EscrowPut { lane, from: deepest, how: EscrowHow::Copy(Terms::rights(rights)) };
    assert_eq!(driver.denied(a.number, put), exceeded, "the lane itself may lie one deeper");
    driver.finish();
}

#[test]
fn a_name_at_the_depth_limit_cannot_be_looked_up() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let mut deepest = driver.queue(a, 0);
    for _ in 1..DERIVATION_DEPTH_MAX {
        deepest =
            driver.made(a.number, derive(deepest, Rights::DERIVE | Rights::GRANT | Rights::SEND)).handle;
    }
    driver.publish(a, deepest, "deep");
    let lookup = request::Lookup { directory: a.directory, name: name("deep"), on_behalf_of: None };
    assert_eq!(driver.denied(a.number, lookup), Denial::DepthExceeded { depth: 65, depth_max: 64 });
    driver.finish();
}

#[test]
fn the_receive_right_stays_with_its_process() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let joined = driver.lane(a, b);
    let queue = driver.queue(a, 0);
    assert_eq!(driver.denied(a.number, derive(queue, Rights::RECEIVE)), Denial::ReceiveBound);
    let to = driver.introduce(b, a, Rights::ENDOW);
    let grant = request::Grant { from: queue, to, terms: Terms::rights(Rights::RECEIVE | Rights::SEND) };
    assert_eq!(driver.denied(a.number, grant), Denial::ReceiveBound);
    for how in [EscrowHow::Move, EscrowHow::Copy(Terms::rights(Rights::RECEIVE))] {
        let put = request::EscrowPut { lane: joined.lane, from: queue, how };
        assert_eq!(driver.denied(a.number, put), Denial::ReceiveBound);
    }
    let publish = request::Publish {
        directory: a.directory,
        name: name("x"),
        queue,
        rights: Rights::RECEIVE,
        audience: Audience::Everyone,
    };
    assert_eq!(driver.denied(a.number, publish), Denial::ReceiveBound);
    driver.finish();
}

#[test]
fn absurd_sizes_are_refused() {
    let mut driver = Driver::new();
    let a = driver.connect();
    for bytes in [0, 2048, 4097, 12288, 1 << 31] {
        let create = request::CreateQueue {
            ring_bytes_max: bytes,
            senders_max: 1,
            stock: 0,
            order: request::QueueOrder::Fair,
        };
        let denial = Denial::InvalidSize { asked: bytes.into(), min: 4096, max: 1 << 30 };
        assert_eq!(driver.denied(a.number, create), denial);
    }
    let queue = driver.queue(a, 1);
    for ring_bytes in [0, 4095, 1 << 17] {
        let open = request::OpenLane { queue, ring_bytes, priority: 0, huge: false };
        let denial = Denial::InvalidSize { asked: ring_bytes.into(), min: 4096, max: 1 << 16 };
        assert_eq!(driver.denied(a.number, open), denial);
    }
    for bytes in [0, 4095, REGION_BYTES + 1, REGION_BYTES_MAX + 4096, u64::MAX] {
        let denial = Denial::InvalidSize { asked: bytes, min: 4096, max: REGION_BYTES_MAX };
        assert_eq!(
            driver.denied(a.number, request::CreateRegion { bytes, flags: request::RegionFlags::empty() }),
            denial
        );
    }
    driver.finish();
}

#[test]
fn absurd_counts_are_refused() {
    let mut driver = Driver::new();
    let a = driver.connect();
    for senders_max in [0, 16_385, u16::MAX] {
        let create = request::CreateQueue {
            ring_bytes_max: 4096,
            senders_max,
            stock: 0,
            order: request::QueueOrder::Fair,
        };
        let denial = Denial::InvalidCount { asked: senders_max.into(), max: 16_384 };
        assert_eq!(driver.denied(a.number, create), denial);
    }
    let create = request::CreateQueue {
        ring_bytes_max: 4096,
        senders_max: 1,
        stock: 17,
        order: request::QueueOrder::Fair,
    };
    assert_eq!(driver.denied(a.number, create), Denial::InvalidCount { asked: 17, max: 16 });
    let queue = driver.queue(a, 3);
    for count in [0, 17] {
        let denial = Denial::InvalidCount { asked: count.into(), max: 16 };
        assert_eq!(driver.denied(a.number, request::TopUp { queue, count }), denial);
        assert_eq!(driver.denied(a.number, request::AcksMapped { queue, first: 0, count }), denial);
    }
    let denial = Denial::InvalidCount { asked: 17, max: 16 };
    assert_eq!(driver.denied(a.number, request::TopUp { queue, count: 14 }), denial, "the stock is bounded");
    let denial = Denial::InvalidCount { asked: 3, max: 3 };
    assert_eq!(driver.denied(a.number, request::AcksMapped { queue, first: 3, count: 1 }), denial);
    for first in [u32::MAX - 8, u32::MAX - 7, u32::MAX] {
        let denial = Denial::InvalidCount { asked: first.into(), max: 3 };
        assert_eq!(driver.denied(a.number, request::AcksMapped { queue, first, count: 8 }), denial);
    }
    driver.finish();
}

#[test]
fn what_has_ended_says_so() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let region = driver.region(a);
    let shared = driver.give(a, region, b, Rights::MAP | Rights::WRITE);
    let process = driver.introduce(a, b, Rights::ENDOW);
    let queue = driver.queue(b, 0);
    driver.map(a, region, MapAccess::Write);
    driver.end(a.number);
    for access in [MapAccess::Read, MapAccess::Write] {
        let denial = driver.denied(b.number, request::MapRegion { region: shared, access });
        assert_eq!(denial, Denial::ObjectEnded { kind: Kind::Region });
    }
    let grant = request::Grant { from: queue, to: process, terms: Terms::rights(Rights::SEND) };
    assert_eq!(driver.denied(b.number, grant), Denial::ProcessEnded { process: a.number });
    let lookup = request::Lookup { directory: b.directory, name: name("x"), on_behalf_of: Some(process) };
    assert_eq!(driver.denied(b.number, lookup), Denial::ProcessEnded { process: a.number });
    let list = request::ListCapabilities { directory: b.directory, process: a.number, after: Handle::NONE };
    assert_eq!(driver.denied(b.number, list), Denial::ProcessEnded { process: a.number });
    driver.finish();
}

#[test]
fn no_process_and_no_user_takes_all_lanes_of_anothers_queue() {
    let mut driver = Driver::new();
    let receiver = driver.connect_uid(1);
    let create = request::CreateQueue {
        ring_bytes_max: 4096,
        senders_max: 40,
        stock: 8,
        order: request::QueueOrder::Fair,
    };
    let Reply::Queue { queue, .. } = driver.ask(receiver.number, create) else { panic!("a queue") };
    for first in [0, 8, 16, 24, 32] {
        if first > 0 {
            driver.ask(receiver.number, request::TopUp { queue: queue.handle, count: 8 });
        }
        driver.done(receiver.number, request::AcksMapped { queue: queue.handle, first, count: 8 });
    }
    let share = |who, share| Denial::ShareExceeded { who, share, senders_max: 40 };
    let hogs: Vec<_> = (0..3).map(|_| driver.connect_uid(2)).collect();
    for hog in hogs {
        let send = driver.give(receiver, queue.handle, hog, Rights::SEND);
        for _ in 0..10 {
            driver.open(hog, send);
        }
        let open = request::OpenLane { queue: send, ring_bytes: 4096, priority: 0, huge: false };
        assert_eq!(driver.denied(hog.number, open), share(Sharer::Process, 10));
    }
    let fourth = driver.connect_uid(2);
    let send = driver.give(receiver, queue.handle, fourth, Rights::SEND);
    let open = request::OpenLane { queue: send, ring_bytes: 4096, priority: 0, huge: false };
    assert_eq!(driver.denied(fourth.number, open), share(Sharer::User, 30));
    let other = driver.connect_uid(3);
    let send = driver.give(receiver, queue.handle, other, Rights::SEND);
    driver.open(other, send);
    // To itself a process may send as it likes.
    for _ in 0..9 {
        driver.open(receiver, queue.handle);
    }
    let open = request::OpenLane { queue: queue.handle, ring_bytes: 4096, priority: 0, huge: false };
    assert_eq!(driver.denied(receiver.number, open), Denial::SendersExceeded { senders_max: 40 });
    driver.finish();
}

#[test]
fn a_queue_takes_as_many_senders_as_it_may_and_as_its_stock_lasts() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let create = request::CreateQueue {
        ring_bytes_max: 4096,
        senders_max: 2,
        stock: 3,
        order: request::QueueOrder::Fair,
    };
    let Reply::Queue { queue, .. } = driver.ask(b.number, create) else { panic!("a queue") };
    let send = driver.give(b, queue.handle, a, Rights::SEND);
    let open = request::OpenLane { queue: send, ring_bytes: 4096, priority: 0, huge: false };
    assert_eq!(driver.denied(a.number, open.clone()), Denial::StockEmpty, "nothing is mapped yet");
    driver.done(b.number, request::AcksMapped { queue: queue.handle, first: 0, count: 3 });
    let (lane, _) = driver.open(a, send);
    driver.open(a, send);
    assert_eq!(driver.denied(a.number, open.clone()), Denial::SendersExceeded { senders_max: 2 });
    driver.done(a.number, request::CloseLane { lane });
    assert_eq!(
        driver.denied(a.number, open.clone()),
        Denial::SendersExceeded { senders_max: 2 },
        "the receiver has not left it"
    );
    driver.done(b.number, request::CloseLane { lane });
    driver.open(a, send);
    driver.finish();
}

#[test]
fn a_used_up_stock_is_empty_until_topped_up() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let joined = driver.lane(a, b);
    driver.open(a, joined.send);
    let open = request::OpenLane { queue: joined.send, ring_bytes: RING_BYTES, priority: 0, huge: false };
    assert_eq!(driver.denied(a.number, open), Denial::StockEmpty);
    let reply = driver.ask(b.number, request::TopUp { queue: joined.queue, count: 1 });
    assert_eq!(reply, Reply::Acks { first_ack: 2 });
    driver.done(b.number, request::AcksMapped { queue: joined.queue, first: 2, count: 1 });
    driver.open(a, joined.send);
    driver.finish();
}

#[test]
fn names_are_taken_unknown_or_refused() {
    let mut driver = Driver::new();
    let (a, stranger, root) = (driver.connect(), driver.connect_uid(2000), driver.connect_uid(0));
    let queue = driver.queue(a, 0);
    let publish = request::Publish {
        directory: a.directory,
        name: name("mine"),
        queue,
        rights: Rights::SEND,
        audience: Audience::OwnUserAndRoot,
    };
    let service = driver.made(a.number, publish.clone()).handle;
    assert_eq!(driver.denied(a.number, publish), Denial::NameTaken { name: name("mine") });
    let lookup = |directory, text| request::Lookup { directory, name: name(text), on_behalf_of: None };
    let unknown = driver.denied(a.number, lookup(a.directory, "other"));
    assert_eq!(unknown, Denial::NameUnknown { name: name("other") });
    let refused = driver.denied(stranger.number, lookup(stranger.directory, "mine"));
    assert_eq!(refused, Denial::NameRefused { name: name("mine") });
    driver.made(root.number, lookup(root.directory, "mine"));
    driver.done(a.number, request::Delete { handle: service });
    let gone = driver.denied(root.number, lookup(root.directory, "mine"));
    assert_eq!(gone, Denial::NameUnknown { name: name("mine") });
    driver.finish();
}

#[test]
fn a_lane_is_only_for_its_ends_and_each_request_for_the_right_one() {
    let mut driver = Driver::new();
    let (a, b, c) = (driver.connect(), driver.connect(), driver.connect());
    let Joined { lane, send, .. } = driver.lane(a, b);
    let (ticket, from) = (Ticket(1), a.own);
    let all = |lane| {
        let how = EscrowHow::Move;
        [
            Request::from(request::LaneMapped { lane }),
            request::EscrowPut { lane, from, how }.into(),
            request::EscrowWithdraw { lane, ticket }.into(),
            request::EscrowTake { lane, ticket }.into(),
        ]
    };
    for lane in [lane, LaneId(0), LaneId(u64::MAX)] {
        for request in all(lane) {
            assert_eq!(driver.denied(c.number, request), Denial::UnknownLane { lane });
        }
        assert_eq!(driver.denied(c.number, request::CloseLane { lane }), Denial::UnknownLane { lane });
    }
    let [mapped, put, withdraw, take] = all(lane);
    for request in [mapped.clone(), put.clone(), withdraw] {
        assert_eq!(driver.denied(b.number, request), Denial::WrongEnd { lane });
    }
    assert_eq!(driver.denied(a.number, take), Denial::WrongEnd { lane });
    assert_eq!(driver.denied(a.number, mapped.clone()), Denial::AlreadyMapped);
    driver.done(b.number, request::CloseLane { lane });
    for request in [mapped, put] {
        assert_eq!(driver.denied(a.number, request), Denial::LaneEnded { lane });
    }
    driver.done(a.number, request::CloseLane { lane });
    let unknown = driver.denied(a.number, request::CloseLane { lane });
    assert_eq!(unknown, Denial::UnknownLane { lane });
    driver.done(a.number, request::Delete { handle: send });
    driver.finish();
}

#[test]
fn memory_is_declared_mapped_once() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let queue = driver.queue(a, 2);
    let mapped = request::AcksMapped { queue, first: 1, count: 1 };
    assert_eq!(driver.denied(a.number, mapped), Denial::AlreadyMapped);
    let (region, mapping, _) = driver.written_region(a);
    assert_eq!(driver.denied(a.number, request::RegionMapped { mapping }), Denial::AlreadyMapped);
    let (reader, _) = driver.map(a, region, MapAccess::Read);
    let denial = driver.denied(a.number, request::RegionMapped { mapping: reader });
    assert_eq!(denial, Denial::AlreadyMapped, "a reader seals nothing");
    driver.finish();
}

#[test]
fn a_mapping_is_its_processs_own() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let (_, mapping, _) = driver.written_region(a);
    for mapping in [mapping, MappingId(0)] {
        let unknown = Denial::UnknownMapping { mapping };
        assert_eq!(driver.denied(b.number, request::Unmap { mapping }), unknown);
        assert_eq!(driver.denied(b.number, request::RegionMapped { mapping }), unknown);
    }
    driver.finish();
}

#[test]
fn a_region_has_one_writer_and_no_reader_before_it() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let region = driver.region(a);
    let shared = driver.give(a, region, b, Rights::MAP | Rights::WRITE);
    let read = request::MapRegion { region: shared, access: MapAccess::Read };
    let write = request::MapRegion { region: shared, access: MapAccess::Write };
    assert_eq!(driver.denied(b.number, read.clone()), Denial::RegionUnwritten);
    let (mapping, _) = driver.map(a, region, MapAccess::Write);
    assert_eq!(driver.denied(b.number, read.clone()), Denial::RegionUnwritten, "not sealed yet");
    assert_eq!(driver.denied(b.number, write.clone()), Denial::WriterTaken);
    driver.done(a.number, request::RegionMapped { mapping });
    driver.map(b, shared, MapAccess::Read);
    assert_eq!(driver.denied(b.number, write.clone()), Denial::WriterTaken);
    driver.done(a.number, request::Unmap { mapping });
    assert_eq!(driver.denied(b.number, write), Denial::WriterTaken, "the writer spends it for good");
    driver.finish();
}

#[test]
fn a_ticket_is_taken_or_withdrawn_once() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { lane, .. } = driver.lane(a, b);
    let put = request::EscrowPut { lane, from: a.own, how: EscrowHow::Copy(Terms::rights(Rights::WATCH)) };
    assert_eq!(driver.ask(a.number, put.clone()), Reply::Ticket(Ticket(1)));
    assert_eq!(driver.ask(a.number, put), Reply::Ticket(Ticket(2)));
    driver.done(a.number, request::EscrowWithdraw { lane, ticket: Ticket(2) });
    let unknown = |ticket| Denial::UnknownTicket { lane, ticket };
    for ticket in [Ticket(0), Ticket(2), Ticket(3), Ticket(u32::MAX)] {
        let take = request::EscrowTake { lane, ticket };
        assert_eq!(driver.denied(b.number, take), unknown(ticket));
        let withdraw = request::EscrowWithdraw { lane, ticket };
        assert_eq!(driver.denied(a.number, withdraw), unknown(ticket));
    }
    let take = request::EscrowTake { lane, ticket: Ticket(1) };
    assert!(matches!(driver.ask(b.number, take.clone()), Reply::Taken(_)));
    assert_eq!(driver.denied(b.number, take), unknown(Ticket(1)));
    driver.finish();
}

#[test]
fn no_version_in_common_ends_the_session() {
    let mut driver = Driver::new();
    let identity = driver.identity(1000);
    let number = driver.arrive(identity);
    let (version_min, version_max) = (PROTOCOL_VERSION + 1, PROTOCOL_VERSION + 2);
    let reply = driver.ask(number, request::Hello { version_min, version_max, ..HELLO });
    let denial = Denial::VersionUnsupported { version_min, version_max, version: PROTOCOL_VERSION };
    assert_eq!(reply, Reply::Denied(denial));
    assert_eq!(driver.farewells[&number], Some(keyway_abi::Farewell::VersionUnsupported));
    assert_ne!(number, ProcessNumber(0));
    driver.finish();
}
