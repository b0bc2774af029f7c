//! Revocation: recursive, at once, and bounded in each step.

use alloc::vec::Vec;

use keyway_abi::{
    Denial, Event, Handle, LaneEnd, Reply, Rights, Terms,
    layout::WORD_REVOKED,
    limits::SWEEP_STEP,
    request::{self, EscrowHow, MapAccess},
};

use super::driver::{Driver, RING_BYTES, Who, derive, lane_ended, lost};

const ALL: Rights = Rights::SEND.union(Rights::GRANT).union(Rights::DERIVE);

#[test]
fn revoke_reaches_grandchildren_in_other_processes() {
    let mut driver = Driver::new();
    let (a, b, c) = (driver.connect(), driver.connect(), driver.connect());
    let queue = driver.queue(a, 0);
    let child = driver.give(a, queue, b, ALL);
    let grandchild = driver.give(b, child, c, ALL);
    let own = driver.made(a.number, derive(queue, ALL)).handle;
    assert_eq!(driver.ask(a.number, request::Revoke { handle: queue }), Reply::Revoked { count: 3 });
    assert_eq!(driver.events(b.number), [lost(child)]);
    assert_eq!(driver.events(c.number), [lost(grandchild)]);
    for (who, handle) in [(a, own), (b, child), (c, grandchild)] {
        let stale = driver.denied(who.number, derive(handle, Rights::empty()));
        assert_eq!(stale, Denial::StaleHandle { handle });
    }
    assert!(driver.holds(a.number, queue), "the capability itself stays");
    driver.finish();
}

#[test]
fn revoke_takes_nothing_from_siblings_or_parents() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(a, 0);
    let first = driver.made(a.number, derive(queue, ALL)).handle;
    let second = driver.made(a.number, derive(queue, ALL)).handle;
    let of_first = driver.give(a, first, b, ALL);
    let of_second = driver.give(a, second, b, ALL);
    assert_eq!(driver.ask(a.number, request::Revoke { handle: first }), Reply::Revoked { count: 1 });
    assert!(!driver.holds(b.number, of_first));
    assert!(driver.holds(b.number, of_second));
    assert!(driver.holds(a.number, first) && driver.holds(a.number, second));
    driver.finish();
}

#[test]
fn revoke_ends_lanes_and_mappings_that_were_opened_through_it() {
    let mut driver = Driver::new();
    let (a, b, c) = (driver.connect(), driver.connect(), driver.connect());
    let queue = driver.queue(a, 2);
    let child = driver.give(a, queue, b, ALL);
    let grandchild = driver.give(b, child, c, ALL);
    let (lane, sender_word) = driver.open(c, grandchild);
    let Event::LaneOpened { word, .. } = driver.opened(a) else { panic!("opened") };
    // Its sender needs the capability no more once the lane is open.
    driver.done(c.number, request::Delete { handle: grandchild });
    assert_eq!(driver.ask(a.number, request::Revoke { handle: queue }), Reply::Revoked { count: 1 });
    let ended = lane_ended(lane, LaneEnd::Revoked);
    assert_eq!(driver.events(c.number), core::slice::from_ref(&ended));
    assert_eq!(driver.events(a.number), [ended]);
    assert_eq!(driver.word(c.number, sender_word), WORD_REVOKED);
    assert_eq!(driver.word(a.number, word), WORD_REVOKED);
    for who in [a, c] {
        driver.done(who.number, request::CloseLane { lane });
        assert_eq!(driver.events(who.number), [], "both knew");
    }
    driver.finish();
}

#[test]
fn revoking_nothing_is_answered_at_once() {
    let mut driver = Driver::new();
    let a = driver.connect();
    assert_eq!(driver.ask(a.number, request::Revoke { handle: a.own }), Reply::Revoked { count: 0 });
    driver.finish();
}

/// A capability with more below it than one step takes back: half with `a` itself, half with `b`.
fn wide(driver: &mut Driver, a: Who, b: Who, region: Handle) -> Vec<(Who, Handle)> {
    let rights = Rights::MAP | Rights::GRANT | Rights::DERIVE;
    driver.audits = false;
    let shared = driver.give(a, region, b, rights);
    let mut all = alloc::vec![(b, shared)];
    for _ in 0..SWEEP_STEP {
        all.push((a, driver.made(a.number, derive(region, rights)).handle));
        all.push((b, driver.made(b.number, derive(shared, rights)).handle));
    }
    driver.audits = true;
    all
}

#[test]
fn a_large_revocation_takes_effect_at_once_and_goes_on_in_steps() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let (region, ..) = driver.written_region(a);
    let all = wide(&mut driver, a, b, region);
    let call = driver.post(a.number, request::Revoke { handle: region });
    assert_eq!(driver.reply_to(a.number, call), None, "the answer comes when it is done");
    assert!(driver.kernel.is_sweeping());
    for (who, handle) in &all {
        let denial = driver.denied(who.number, derive(*handle, Rights::empty()));
        assert_eq!(denial, Denial::StaleHandle { handle: *handle });
    }
    for denied in [
        request::Revoke { handle: region }.into(),
        keyway_abi::Request::from(derive(region, Rights::MAP)),
        request::MapRegion { region, access: MapAccess::Read }.into(),
        request::Grant { from: region, to: a.own, terms: Terms::rights(Rights::MAP) }.into(),
    ] {
        assert_eq!(driver.denied(a.number, denied), Denial::Revoking { handle: region });
    }
    let mut steps = 0;
    while driver.kernel.is_sweeping() {
        driver.queue(b, 0);
        driver.sweep();
        steps += 1;
    }
    assert_eq!(steps, 2, "two steps and the rest in a third");
    let done = Reply::Revoked { count: all.len() as u64 };
    assert_eq!(driver.reply_to(a.number, call), Some(done));
    driver.made(a.number, derive(region, Rights::MAP));
    driver.finish();
}

#[test]
fn what_is_being_revoked_opens_no_lane_publishes_nothing_and_does_not_travel() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let joined = driver.lane(a, b);
    let queue = driver.queue(b, 1);
    let held = driver.give(b, queue, a, ALL);
    driver.audits = false;
    for _ in 0..=SWEEP_STEP {
        driver.made(a.number, derive(held, ALL));
    }
    driver.audits = true;
    driver.post(a.number, request::Revoke { handle: held });
    let publish = request::Publish {
        directory: a.directory,
        name: super::driver::name("x"),
        queue: held,
        rights: Rights::SEND,
        audience: request::Audience::Everyone,
    };
    let lane = joined.lane;
    for denied in [
        keyway_abi::Request::from(request::OpenLane {
            queue: held,
            ring_bytes: RING_BYTES,
            priority: 0,
            huge: false,
        }),
        publish.into(),
        request::EscrowPut { lane, from: held, how: EscrowHow::Move }.into(),
        request::EscrowPut { lane, from: held, how: EscrowHow::Copy(Terms::rights(ALL)) }.into(),
    ] {
        assert_eq!(driver.denied(a.number, denied), Denial::Revoking { handle: held });
    }
    driver.finish();
}

#[test]
fn a_revocation_ends_with_what_it_is_overtaken_by() {
    for overtaken_by_parent in [true, false] {
        let mut driver = Driver::new();
        let (a, b) = (driver.connect(), driver.connect());
        let queue = driver.queue(a, 0);
        let held = driver.give(a, queue, b, ALL);
        driver.audits = false;
        for _ in 0..3 * SWEEP_STEP {
            driver.made(b.number, derive(held, ALL));
        }
        driver.audits = true;
        let call = driver.post(b.number, request::Revoke { handle: held });
        if overtaken_by_parent {
            let parent = driver.post(a.number, request::Revoke { handle: queue });
            while driver.kernel.is_sweeping() {
                driver.sweep();
            }
            assert!(matches!(driver.reply_to(a.number, parent), Some(Reply::Revoked { count: 1.. })));
        } else {
            driver.done(a.number, request::Delete { handle: queue });
            while driver.kernel.is_sweeping() {
                driver.sweep();
            }
        }
        assert!(matches!(driver.reply_to(b.number, call), Some(Reply::Revoked { .. })));
        assert!(!driver.holds(b.number, held));
        driver.finish();
    }
}

#[test]
fn a_revocation_outlives_its_capability_and_its_process() {
    for dies in [true, false] {
        let mut driver = Driver::new();
        let (a, b) = (driver.connect(), driver.connect());
        let region = driver.region(a);
        let all = wide(&mut driver, a, b, region);
        let call = driver.post(a.number, request::Revoke { handle: region });
        if dies {
            driver.end(a.number);
        } else {
            driver.done(a.number, request::Delete { handle: region });
        }
        while driver.kernel.is_sweeping() {
            driver.sweep();
        }
        assert_eq!(driver.reply_to(a.number, call).is_some(), !dies);
        assert!(all.iter().all(|(who, handle)| who.number == a.number || !driver.holds(b.number, *handle)));
        assert!(driver.memories.is_empty(), "the region went with the last of them");
        driver.finish();
    }
}

#[test]
fn a_large_queue_ends_in_steps_and_is_closed_at_once() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(a, 1);
    driver.publish(a, queue, "service");
    let held = driver.give(a, queue, b, ALL);
    driver.audits = false;
    for _ in 0..2 * SWEEP_STEP {
        driver.made(b.number, derive(held, ALL));
    }
    driver.audits = true;
    driver.done(a.number, request::Delete { handle: queue });
    assert!(driver.kernel.is_sweeping());
    let open = request::OpenLane { queue: held, ring_bytes: RING_BYTES, priority: 0, huge: false };
    assert_eq!(driver.denied(b.number, open), Denial::StaleHandle { handle: held });
    let name = super::driver::name("service");
    let lookup = request::Lookup { directory: b.directory, name: name.clone(), on_behalf_of: None };
    assert_eq!(driver.denied(b.number, lookup), Denial::NameUnknown { name });
    driver.end(a.number);
    driver.finish();
}
