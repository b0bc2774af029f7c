//! What a capability allows to be opened, what derivations cost, and how many requests can be under way.

use alloc::vec::Vec;

use keyway_abi::{
    CapabilityLimit, CapabilityLimits, Denial, Event, Handle, Listing, Payer, Quota, Reply, Request, Rights,
    Terms,
    request::{self, EscrowHow, MapAccess, RegionFlags},
};

use super::driver::{Driver, REGION_BYTES, RING_BYTES, Who, derive, name};
use crate::{Limits, Refusal};

const ALL: Rights = Rights::SEND.union(Rights::DERIVE).union(Rights::GRANT);

fn opens(max: u16) -> CapabilityLimits {
    CapabilityLimits { opens: Some(max), ring_bytes: None, priority: None }
}

fn limited(driver: &mut Driver, who: Who, from: Handle, rights: Rights, limits: CapabilityLimits) -> Handle {
    driver.made(who.number, request::Derive { from, terms: Terms { limits, ..Terms::rights(rights) } }).handle
}

fn full(handle: Handle, used: u64, max: u64) -> Denial {
    Denial::LimitReached { handle, limit: CapabilityLimit::Opens, asked: 1, used, max }
}

fn open(queue: Handle) -> request::OpenLane {
    request::OpenLane { queue, ring_bytes: RING_BYTES, priority: 0, huge: false }
}

#[test]
fn so_many_lanes_are_open_through_a_capability_and_all_below_together() {
    let mut driver = Driver::new();
    let (a, b, c) = (driver.connect(), driver.connect(), driver.connect());
    let queue = driver.queue(a, 8);
    let two = limited(&mut driver, a, queue, ALL, opens(2));
    let [of_b, of_c] = [b, c].map(|who| driver.give(a, two, who, Rights::SEND));
    let (first, _) = driver.open(b, of_b);
    driver.open(c, of_c);
    assert_eq!(driver.denied(b.number, open(of_b)), full(of_b, 2, 2));
    assert_eq!(driver.denied(c.number, open(of_c)), full(of_c, 2, 2));
    driver.done(b.number, request::CloseLane { lane: first });
    assert_eq!(driver.denied(c.number, open(of_c)), full(of_c, 2, 2), "nobody has drained it yet");
    driver.done(a.number, request::CloseLane { lane: first });
    driver.open(c, of_c);
    assert_eq!(driver.denied(b.number, open(of_b)), full(of_b, 2, 2));
    let free = driver.give(a, queue, b, Rights::SEND);
    driver.open(b, free);
    driver.finish();
}

#[test]
fn a_limit_holds_though_nobody_holds_the_capability_any_more() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(a, 8);
    let one = limited(&mut driver, a, queue, ALL, opens(1));
    let of_b = driver.give(a, one, b, Rights::SEND | Rights::DERIVE);
    driver.done(a.number, request::Delete { handle: one });
    driver.open(b, of_b);
    let below = limited(&mut driver, b, of_b, Rights::SEND, opens(0));
    assert_eq!(driver.denied(b.number, open(of_b)), full(of_b, 1, 1));
    assert_eq!(driver.denied(b.number, open(below)), full(below, 0, 0), "it allows none at all");
    let reply = driver.ask(a.number, request::Revoke { handle: queue });
    assert_eq!(reply, Reply::Revoked { count: 2 });
    driver.finish();
}

#[test]
fn so_many_mappings_are_open_through_a_capability() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let (region, ..) = driver.written_region(a);
    let one = limited(&mut driver, a, region, Rights::MAP | Rights::GRANT, opens(1));
    let of_b = driver.give(a, one, b, Rights::MAP);
    let (mapping, _) = driver.map(b, of_b, MapAccess::Read);
    let map = |region| request::MapRegion { region, access: MapAccess::Read };
    assert_eq!(driver.denied(b.number, map(of_b)), full(of_b, 1, 1));
    assert_eq!(driver.denied(a.number, map(one)), full(one, 1, 1));
    driver.map(a, region, MapAccess::Read);
    driver.done(b.number, request::Unmap { mapping });
    driver.map(b, of_b, MapAccess::Read);
    driver.finish();
}

#[test]
fn a_ring_is_no_larger_than_its_capability_allows() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(a, 2);
    let limits = CapabilityLimits { opens: None, ring_bytes: Some(RING_BYTES), priority: None };
    let small = limited(&mut driver, a, queue, ALL, limits);
    let of_b = driver.give(a, small, b, Rights::SEND);
    let denial = Denial::LimitReached {
        handle: of_b,
        limit: CapabilityLimit::RingBytes,
        asked: u64::from(RING_BYTES) * 2,
        used: 0,
        max: RING_BYTES.into(),
    };
    let large = request::OpenLane { queue: of_b, ring_bytes: RING_BYTES * 2, priority: 0, huge: false };
    assert_eq!(driver.denied(b.number, large), denial);
    driver.open(b, of_b);
    driver.finish();
}

#[test]
fn a_lane_has_no_higher_priority_than_its_capability_allows() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(a, 4);
    let ask = |queue, priority| request::OpenLane { queue, ring_bytes: RING_BYTES, priority, huge: false };
    let too_high = |handle, asked, max| {
        let limit = CapabilityLimit::Priority;
        Denial::LimitReached { handle, limit, asked, used: 0, max }
    };
    let limits = CapabilityLimits { priority: Some(3), ..CapabilityLimits::NONE };
    let low = limited(&mut driver, a, queue, ALL, limits);
    let of_b = driver.give(a, low, b, Rights::SEND);
    assert_eq!(driver.denied(b.number, ask(of_b, 4)), too_high(of_b, 4, 3));
    assert_eq!(driver.denied(a.number, ask(queue, 8)), too_high(queue, 8, 7), "there is none higher");
    for (who, queue, asked) in [(b, of_b, 3), (b, of_b, 0), (a, queue, 7)] {
        let Reply::LaneOpening { lane, .. } = driver.ask(who.number, ask(queue, asked)) else {
            panic!("a lane")
        };
        driver.done(who.number, request::LaneMapped { lane });
        let Event::LaneOpened { priority, .. } = driver.opened(a) else { panic!("opened") };
        assert_eq!(priority, asked);
    }
    let directory = a.directory;
    let listed = driver.ask(a.number, request::ListLanes { directory, after: None });
    let Reply::Listing(Listing::Lanes(lanes)) = listed else { panic!("lanes: {listed:?}") };
    assert_eq!(lanes.iter().map(|lane| lane.priority).collect::<Vec<_>>(), [3, 0, 7]);
    driver.finish();
}

#[test]
fn limits_only_shrink_and_are_inherited() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let joined = driver.lane(a, b);
    let queue = driver.queue(a, 1);
    let limits = CapabilityLimits { opens: Some(3), ring_bytes: Some(8192), priority: Some(2) };
    let from = limited(&mut driver, a, queue, ALL, limits);
    let own = |handle, entries: &[keyway_abi::CapabilityEntry]| {
        entries.iter().find(|entry| entry.handle == handle).map(|entry| entry.limits)
    };
    let child = driver.made(a.number, derive(from, ALL)).handle;
    let entries = driver.list(a.number);
    assert_eq!(own(queue, &entries), Some(CapabilityLimits::NONE));
    assert_eq!(own(child, &entries), Some(limits), "as its parent allows");
    let to = driver.introduce(b, a, Rights::ENDOW);
    let more = [
        (opens(4), CapabilityLimit::Opens, 4, 3),
        (
            CapabilityLimits { ring_bytes: Some(8193), ..CapabilityLimits::NONE },
            CapabilityLimit::RingBytes,
            8193,
            8192,
        ),
        (CapabilityLimits { priority: Some(3), ..CapabilityLimits::NONE }, CapabilityLimit::Priority, 3, 2),
    ];
    for (limits, limit, asked, held) in more {
        let terms = Terms { limits, ..Terms::rights(Rights::SEND) };
        let denial = Denial::LimitExceeded { limit, asked, held };
        let requests: [Request; 4] = [
            request::Derive { from: child, terms }.into(),
            request::Grant { from: child, to, terms }.into(),
            request::Weaken { handle: child, terms }.into(),
            request::EscrowPut { lane: joined.lane, from: child, how: EscrowHow::Copy(terms) }.into(),
        ];
        for request in requests {
            assert_eq!(driver.denied(a.number, request), denial);
        }
    }
    let same = limited(&mut driver, a, child, Rights::SEND, limits);
    assert_eq!(own(same, &driver.list(a.number)), Some(limits));
    let terms = Terms { limits: opens(1), ..Terms::rights(Rights::SEND) };
    driver.made(a.number, request::Weaken { handle: child, terms });
    let left = CapabilityLimits { opens: Some(1), ring_bytes: Some(8192), priority: Some(2) };
    let none = CapabilityLimits { priority: Some(8), ..CapabilityLimits::NONE };
    let terms = Terms { limits: none, ..Terms::rights(Rights::SEND) };
    let denial = Denial::LimitExceeded { limit: CapabilityLimit::Priority, asked: 8, held: 7 };
    assert_eq!(
        driver.denied(a.number, request::Derive { from: queue, terms }),
        denial,
        "there is none higher"
    );
    assert_eq!(own(child, &driver.list(a.number)), Some(left));
    driver.finish();
}

fn with(limit: impl FnOnce(&mut Limits)) -> Driver {
    let mut limits = Limits::default();
    limit(&mut limits);
    let mut driver = Driver::new();
    driver.kernel.set_limits(limits);
    driver
}

#[test]
fn derivations_are_paid_by_who_asked_until_they_are_gone() {
    let mut driver = with(|limits| limits.process.derivations = 3);
    let (a, b) = (driver.connect(), driver.connect());
    let Who { number, .. } = a;
    let joined = driver.lane(a, b);
    let queue = driver.queue(a, 0);
    let to = driver.introduce(b, a, Rights::ENDOW);
    driver.publish(b, joined.queue, "service");
    let derived = driver.made(number, derive(queue, ALL)).handle;
    let terms = Terms::rights(Rights::SEND);
    let granted = driver.made(number, request::Grant { from: derived, to, terms }).handle;
    let put = request::EscrowPut { lane: joined.lane, from: queue, how: EscrowHow::Copy(terms) };
    let Reply::Ticket(ticket) = driver.ask(number, put.clone()) else { panic!("a ticket") };
    let (quota, of) = (Quota::Derivations, Payer::Process);
    let denial = Denial::QuotaExceeded { quota, of, asked: 1, used: 3, max: 3 };
    let lookup = request::Lookup { directory: a.directory, name: name("service"), on_behalf_of: None };
    let requests: [Request; 5] = [
        derive(queue, ALL).into(),
        request::Grant { from: queue, to, terms }.into(),
        put.into(),
        lookup.into(),
        request::Weaken { handle: derived, terms: Terms::rights(ALL) }.into(),
    ];
    for request in &requests {
        let denied = driver.denied(number, request.clone());
        let with_badge = Denial::QuotaExceeded { quota, of, asked: 2, used: 3, max: 3 };
        let looks_up = matches!(request, Request::Lookup(_));
        assert_eq!(denied, if looks_up { with_badge } else { denial.clone() }, "{request:?}");
    }
    driver.done(number, request::Delete { handle: derived });
    driver.done(number, request::EscrowWithdraw { lane: joined.lane, ticket });
    let more = [driver.made(number, derive(queue, ALL)), driver.made(number, derive(queue, ALL))];
    assert_eq!(driver.denied(number, derive(queue, ALL)), denial, "what another holds counts");
    driver.done(b.number, request::Delete { handle: granted });
    driver.made(number, derive(queue, ALL));
    for made in more {
        driver.done(number, request::Delete { handle: made.handle });
    }
    let Reply::Capability(_) = driver.ask(number, requests[3].clone()) else { panic!("it is looked up") };
    driver.finish();
}

#[test]
fn what_a_dead_process_has_derived_stays_with_its_user() {
    let mut driver = with(|limits| limits.user.derivations = 2);
    let (a, b, c) = (driver.connect(), driver.connect(), driver.connect_uid(7));
    let queue = driver.queue(c, 0);
    let of_a = driver.give(c, queue, a, ALL);
    driver.give(a, of_a, c, Rights::SEND);
    let of_b = driver.give(a, of_a, b, ALL);
    driver.end(a.number);
    let denied = driver.denied(b.number, derive(of_b, ALL));
    let (quota, of) = (Quota::Derivations, Payer::User);
    assert_eq!(denied, Denial::QuotaExceeded { quota, of, asked: 1, used: 2, max: 2 });
    let reply = driver.ask(c.number, request::Revoke { handle: queue });
    assert_eq!(reply, Reply::Revoked { count: 2 });
    driver.made(b.number, derive(b.own, Rights::empty()));
    driver.finish();
}

/// One request of each kind whose reply waits for Linux or for the end of a revocation, all of them lawful.
fn lasting(driver: &mut Driver, who: Who) -> Vec<Request> {
    let queue = driver.queue(who, 2);
    let reply = driver.ask(who.number, request::TopUp { queue, count: 1 });
    let Reply::Acks { first_ack: first } = reply else { panic!("acknowledgement memory: {reply:?}") };
    let unopened = open(queue);
    let reply = driver.ask(who.number, unopened.clone());
    let Reply::LaneOpening { lane, .. } = reply else { panic!("a lane: {reply:?}") };
    let region = driver.region(who);
    let (unwritten, _) = driver.map(who, region, MapAccess::Write);
    let flags = RegionFlags::FREEZABLE;
    let freezable = driver.made(who.number, request::CreateRegion { bytes: REGION_BYTES, flags }).handle;
    let (written, _) = driver.map(who, freezable, MapAccess::Write);
    driver.done(who.number, request::RegionMapped { mapping: written });
    alloc::vec![
        request::CreateQueue {
            ring_bytes_max: RING_BYTES,
            senders_max: 1,
            stock: 1,
            order: request::QueueOrder::Fair
        }
        .into(),
        request::TopUp { queue, count: 1 }.into(),
        request::AcksMapped { queue, first, count: 1 }.into(),
        unopened.into(),
        request::LaneMapped { lane }.into(),
        request::CreateRegion { bytes: REGION_BYTES, flags: RegionFlags::empty() }.into(),
        request::RegionMapped { mapping: unwritten }.into(),
        request::Freeze { mapping: written }.into(),
        request::StartChild { process: who.own }.into(),
        request::OpenDeposit { process: who.own }.into(),
        request::Raise { process: who.own, signal: 9, value: 0 }.into(),
        request::Revoke { handle: queue }.into(),
    ]
}

#[test]
fn so_many_requests_are_under_way_and_no_more() {
    let mut driver = Driver::new();
    let number = driver.connect().number;
    driver.end(number);
    let identity = driver.identity(1000);
    let number = driver.arrive(identity);
    let accepting =
        request::Hello { default_actions: keyway_abi::DefaultActions::Accepted, ..super::driver::HELLO };
    let Reply::Welcome(start) = driver.ask(number, accepting) else { panic!("welcome") };
    let own = |handle: Option<Handle>| handle.expect("it begins with both");
    let a = Who { number, own: own(start.own), directory: own(start.directory) };
    let requests = lasting(&mut driver, a);
    let mut limits = Limits::default();
    limits.process.requests = 1;
    driver.kernel.set_limits(limits);
    driver.hold = true;
    let call = driver.post(number, request::OpenDeposit { process: a.own });
    let (quota, of) = (Quota::Requests, Payer::Process);
    let denial = Denial::QuotaExceeded { quota, of, asked: 1, used: 1, max: 1 };
    for request in &requests {
        assert_eq!(driver.denied(number, request.clone()), denial, "{request:?}");
    }
    assert_eq!(driver.list(number).len(), 5, "what needs no waiting goes on");
    driver.answer_next(Ok(()));
    assert_eq!(driver.reply_to(number, call), Some(Reply::Done));
    for request in requests {
        let waits = !matches!(request, Request::Revoke(_));
        let call = driver.post(number, request.clone());
        if waits {
            assert_eq!(driver.reply_to(number, call), None, "it waits: {request:?}");
            driver.answer_next(Err(Refusal::System(12)));
        }
        while !driver.pending.is_empty() {
            driver.answer_next(Ok(()));
        }
        assert!(driver.reply_to(number, call).is_some(), "it was answered: {request:?}");
    }
    driver.finish();
}

#[test]
fn a_request_under_way_is_charged_until_linux_has_answered_also_when_its_asker_has_died() {
    let mut driver = with(|limits| limits.user.requests = 1);
    let (a, b) = (driver.connect(), driver.connect());
    driver.hold = true;
    driver.post(a.number, request::OpenDeposit { process: a.own });
    driver.end(a.number);
    let denied = driver.denied(b.number, request::OpenDeposit { process: b.own });
    let (quota, of) = (Quota::Requests, Payer::User);
    assert_eq!(denied, Denial::QuotaExceeded { quota, of, asked: 1, used: 1, max: 1 });
    driver.answer_next(Ok(()));
    driver.post(b.number, request::OpenDeposit { process: b.own });
    driver.answer_next(Ok(()));
    driver.finish();
}

#[test]
fn a_revocation_that_takes_its_time_is_a_request_under_way() {
    let mut driver = with(|limits| limits.process.requests = 1);
    let a = driver.connect();
    let queue = driver.queue(a, 0);
    driver.audits = false;
    for _ in 0..600 {
        driver.made(a.number, derive(queue, Rights::empty()));
    }
    let other = driver.queue(a, 0);
    driver.audits = true;
    let call = driver.post(a.number, request::Revoke { handle: queue });
    assert_eq!(driver.reply_to(a.number, call), None);
    let denied = driver.denied(a.number, request::Revoke { handle: other });
    let (quota, of) = (Quota::Requests, Payer::Process);
    assert_eq!(denied, Denial::QuotaExceeded { quota, of, asked: 1, used: 1, max: 1 });
    let again = driver.post(a.number, request::Delete { handle: queue });
    assert!(driver.reply_to(a.number, call).is_some(), "the end of the queue overtakes it");
    assert_eq!(driver.reply_to(a.number, again), Some(Reply::Done));
    assert_eq!(driver.ask(a.number, request::Revoke { handle: other }), Reply::Revoked { count: 0 });
    while driver.kernel.is_sweeping() {
        driver.sweep();
    }
    driver.finish();
}
