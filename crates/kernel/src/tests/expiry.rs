//! What ends by itself.

use keyway_abi::{
    AclEntry, AclKind, Badge, Created, Denial, Event, Handle, Kind, LaneEnd, Reply, Rights, Subject, Terms,
    layout::WORD_REVOKED,
    limits::SWEEP_STEP,
    request::{self, EscrowHow, MapAccess},
};

use super::driver::{Driver, Who, derive, lane_ended, lost};
use crate::{Door, Token};

const ALL: Rights = Rights::SEND.union(Rights::GRANT).union(Rights::DERIVE);

fn derive_until(driver: &mut Driver, who: Who, from: Handle, rights: Rights, at: u64) -> Handle {
    driver
        .made(
            who.number,
            request::Derive { from, terms: Terms { expires_ns: Some(at), ..Terms::rights(rights) } },
        )
        .handle
}

#[test]
fn a_capability_ends_at_its_time_with_all_below_it_and_not_before() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(a, 1);
    let child = derive_until(&mut driver, a, queue, ALL, 1000);
    let grandchild = driver.give(a, child, b, ALL);
    let sibling = driver.give(a, queue, b, ALL);
    driver.wait(999);
    assert!(driver.holds(a.number, child) && driver.holds(b.number, grandchild));
    driver.wait(1);
    assert_eq!(driver.events(a.number), [lost(child)]);
    assert_eq!(driver.events(b.number), [lost(grandchild)]);
    let stale = driver.denied(b.number, derive(grandchild, Rights::empty()));
    assert_eq!(stale, Denial::StaleHandle { handle: grandchild });
    assert!(driver.holds(b.number, sibling) && driver.holds(a.number, queue));
    driver.finish();
}

#[test]
fn lanes_mappings_and_names_end_with_the_capability_that_they_hang_on() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(a, 1);
    let send = driver.give(a, queue, b, ALL);
    let passing = derive_until(&mut driver, b, send, ALL, 50);
    let (lane, word) = driver.open(b, passing);
    driver.events(a.number);
    let (region, ..) = driver.written_region(a);
    let reader = driver.give(a, region, b, Rights::MAP | Rights::DERIVE);
    let reader = derive_until(&mut driver, b, reader, Rights::MAP, 50);
    let (mapping, place) = driver.map(b, reader, MapAccess::Read);
    let named = derive_until(&mut driver, a, queue, ALL, 50);
    driver.publish(a, named, "brief");
    driver.wait(50);
    assert_eq!(driver.word(b.number, word), WORD_REVOKED);
    assert_eq!(driver.word(b.number, place), WORD_REVOKED);
    assert!(driver.events(b.number).contains(&lane_ended(lane, LaneEnd::Revoked)));
    let lookup =
        request::Lookup { directory: b.directory, name: super::driver::name("brief"), on_behalf_of: None };
    assert!(matches!(driver.denied(b.number, lookup), Denial::NameUnknown { .. }));
    driver.done(b.number, request::Unmap { mapping });
    driver.finish();
}

#[test]
fn what_expires_in_a_message_reaches_nobody() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let joined = driver.lane(a, b);
    let (region, ..) = driver.written_region(a);
    let brief = derive_until(&mut driver, a, region, Rights::MAP | Rights::GRANT, 10);
    let mut put = |from, how| {
        let put = request::EscrowPut { lane: joined.lane, from, how };
        let Reply::Ticket(ticket) = driver.ask(a.number, put) else { panic!("a ticket") };
        ticket
    };
    let copied = put(brief, EscrowHow::Copy(Terms::rights(Rights::MAP)));
    let moved = put(brief, EscrowHow::Move);
    driver.wait(10);
    for ticket in [copied, moved] {
        let take = request::EscrowTake { lane: joined.lane, ticket };
        assert!(matches!(driver.denied(b.number, take), Denial::UnknownTicket { .. }));
    }
    assert_eq!(driver.events(a.number), [lost(brief)]);
    driver.finish();
}

#[test]
fn lifetimes_only_shrink_and_lie_ahead() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    driver.wait(500);
    let queue = driver.queue(a, 0);
    let child = derive_until(&mut driver, a, queue, ALL, 1000);
    let to = driver.introduce(b, a, Rights::ENDOW);
    let rights = Rights::SEND;
    for at in [0, 499, 500] {
        let past = Denial::ExpiryPast { asked_ns: at, now_ns: 500 };
        let (badge, expires_ns) = (None, Some(at));
        assert_eq!(
            driver.denied(
                a.number,
                request::Derive { from: child, terms: Terms { badge, expires_ns, ..Terms::rights(rights) } }
            ),
            past
        );
        assert_eq!(
            driver.denied(
                a.number,
                request::Grant {
                    from: child,
                    to,
                    terms: Terms { badge, expires_ns, ..Terms::rights(rights) }
                }
            ),
            past
        );
        assert_eq!(
            driver.denied(
                a.number,
                request::Weaken { handle: child, terms: Terms { expires_ns, ..Terms::rights(rights) } }
            ),
            past
        );
    }
    let (badge, expires_ns) = (None, Some(1001));
    let late = Denial::ExpiryExceeded { asked_ns: 1001, held_ns: 1000 };
    assert_eq!(
        driver.denied(
            a.number,
            request::Derive { from: child, terms: Terms { badge, expires_ns, ..Terms::rights(rights) } }
        ),
        late
    );
    assert_eq!(
        driver.denied(
            a.number,
            request::Grant { from: child, to, terms: Terms { badge, expires_ns, ..Terms::rights(rights) } }
        ),
        late
    );
    assert_eq!(
        driver.denied(
            a.number,
            request::Weaken { handle: child, terms: Terms { expires_ns, ..Terms::rights(rights) } }
        ),
        late
    );
    let same = derive_until(&mut driver, a, child, rights, 1000);
    let listed = driver.list(a.number).into_iter().find(|entry| entry.handle == same).expect("listed");
    assert_eq!(listed.expires_ns, Some(1000));
    driver.finish();
}

#[test]
fn many_that_end_at_once_are_refused_at_once_and_cleared_in_steps() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let queue = driver.queue(a, 0);
    driver.audits = false;
    let count = 3 * SWEEP_STEP;
    let all: alloc::vec::Vec<Handle> =
        (0..count).map(|_| derive_until(&mut driver, a, queue, ALL, 100)).collect();
    driver.audits = true;
    driver.now_ns = 100;
    let (asked, refused) = (all[count - 1], driver.ask(a.number, derive(all[count - 1], ALL)));
    let expired = Denial::Expired { handle: asked, expired_ns: 100, now_ns: 100 };
    assert_eq!(refused, Reply::Denied(expired));
    let gone = driver.events(a.number).len();
    assert_eq!(gone, SWEEP_STEP, "a bounded number each time");
    driver.wait(0);
    assert_eq!(driver.events(a.number).len(), count - gone);
    assert_eq!(driver.kernel.next_expiry_ns(), None);
    driver.finish();
}

#[test]
fn a_revocation_under_way_and_an_expiry_do_not_disturb_each_other() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(a, 0);
    driver.audits = false;
    let middle = derive_until(&mut driver, a, queue, ALL, 100);
    for _ in 0..2 * SWEEP_STEP {
        driver.made(a.number, derive(middle, ALL));
    }
    driver.audits = true;
    let revoke = driver.post(a.number, request::Revoke { handle: middle });
    assert_eq!(driver.reply_to(a.number, revoke), None, "it takes more than one step");
    driver.wait(100);
    assert_eq!(driver.reply_to(a.number, revoke), Some(Reply::Revoked { count: 2 * SWEEP_STEP as u64 }));
    assert!(!driver.holds(a.number, middle));
    driver.give(a, queue, b, ALL);
    driver.finish();
}

#[test]
fn what_ends_with_what_ends_is_of_the_same_budget() {
    let mut driver = Driver::new();
    let a = driver.connect();
    driver.audits = false;
    let queue = driver.queue(a, 0);
    for _ in 0..SWEEP_STEP {
        let middle = driver.made(a.number, derive(queue, ALL)).handle;
        derive_until(&mut driver, a, middle, ALL, 100);
        driver.made(a.number, derive(middle, ALL));
        // It stays as a joint, until one of the two below has ended.
        driver.done(a.number, request::Delete { handle: middle });
    }
    let before = driver.kernel.tree.iter().count();
    driver.now_ns = 100;
    driver.kernel.expire(100).for_each(drop);
    let gone = before - driver.kernel.tree.iter().count();
    assert_eq!(gone, SWEEP_STEP);
    driver.wait(0);
    assert_eq!(before - driver.kernel.tree.iter().count(), 2 * SWEEP_STEP);
    driver.audits = true;
    driver.finish();
}

#[test]
fn a_revocation_that_takes_smaller_ones_along_is_paid_for_each() {
    let mut driver = Driver::new();
    let a = driver.connect();
    driver.audits = false;
    let queue = driver.queue(a, 0);
    for _ in 0..SWEEP_STEP {
        let middle = derive_until(&mut driver, a, queue, ALL, 100);
        driver.made(a.number, derive(middle, ALL));
    }
    driver.now_ns = 100;
    while driver.kernel.next_expiry_ns().is_some() {
        driver.kernel.expire(100).for_each(drop);
    }
    assert_eq!(driver.kernel.sweeps.len(), SWEEP_STEP, "each has another below it");
    let under_way = |driver: &Driver| driver.kernel.tree.iter().count() + driver.kernel.sweeps.len();
    let before = under_way(&driver);
    let call = driver.post(a.number, request::Revoke { handle: queue });
    // The new one is under way as well.
    let done = before + 1 - under_way(&driver);
    assert!(
        (SWEEP_STEP..=SWEEP_STEP + 1).contains(&done),
        "a smaller one and what it stood on end together: {done}"
    );
    while driver.kernel.is_sweeping() {
        driver.sweep();
    }
    assert!(driver.reply_to(a.number, call).is_some());
    driver.audits = true;
    driver.finish();
}

#[test]
fn a_weaker_capability_takes_the_place_of_a_stronger_one() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(a, 0);
    let from = request::Derive { from: queue, terms: Terms { badge: Some(Badge(7)), ..Terms::rights(ALL) } };
    let handle = driver.made(a.number, from).handle;
    let before = driver.give(a, handle, b, ALL);
    let weaken =
        request::Weaken { handle, terms: Terms { expires_ns: Some(10), ..Terms::rights(Rights::DERIVE) } };
    let weaker = Created { handle, rights: Rights::DERIVE, badge: Some(Badge(7)) };
    assert_eq!(driver.ask(a.number, weaken), Reply::Capability(weaker));
    assert_eq!(
        driver.denied(a.number, derive(handle, Rights::SEND)),
        Denial::RightsExceeded { asked: Rights::SEND, held: Rights::DERIVE }
    );
    assert_eq!(driver.ask(a.number, request::Revoke { handle }), Reply::Revoked { count: 0 });
    assert!(driver.holds(b.number, before), "what was derived before stays");
    driver.wait(10);
    assert!(!driver.holds(a.number, handle));
    assert!(driver.holds(b.number, before));
    assert_eq!(driver.ask(a.number, request::Revoke { handle: queue }), Reply::Revoked { count: 1 });
    driver.finish();
}

#[test]
fn what_something_stands_on_is_not_replaced() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let queue = driver.queue(a, 0);
    let name = driver.publish(a, queue, "service");
    for (handle, kind) in [(queue, Kind::Queue), (name, Kind::ServiceName)] {
        let weaken = request::Weaken { handle, terms: Terms::rights(Rights::empty()) };
        assert_eq!(driver.denied(a.number, weaken), Denial::RootBound { kind });
    }
    driver.finish();
}

#[test]
fn a_watch_ends_when_the_right_to_it_is_given_up() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let rights = Rights::WATCH | Rights::ENDOW;
    let (keeps, gives_up) = (driver.introduce(b, a, rights), driver.introduce(b, a, rights));
    for process in [keeps, gives_up] {
        driver.done(a.number, request::Watch { process });
    }
    for (handle, rights) in [(keeps, Rights::WATCH), (gives_up, Rights::ENDOW)] {
        driver.made(a.number, request::Weaken { handle, terms: Terms::rights(rights) });
    }
    driver.end(b.number);
    assert_eq!(driver.events(a.number), [Event::ProcessEnded { process: keeps }]);
    driver.finish();
}

#[test]
fn what_is_at_its_end_counts_for_nothing_even_before_it_is_cleared() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let joined = driver.lane(a, b);
    let ((region, ..), ticket, queue) = (driver.written_region(a), driver.region(a), driver.queue(a, 0));
    let (subject, kind) = (Subject::Holder(ticket), AclKind::Allow);
    let entry = AclEntry { subject, permissions: Rights::MAP, kind };
    assert!(matches!(
        driver.ask(a.number, request::AclAdd { object: region, entry }),
        Reply::AclAdded { .. }
    ));
    let object = driver.give(a, region, b, Rights::empty());
    let shown = derive_until(&mut driver, a, ticket, Rights::GRANT, 100);
    driver.give(a, shown, b, Rights::empty());
    let named = derive_until(&mut driver, a, queue, ALL, 100);
    driver.publish(a, named, "brief");
    let from = derive_until(&mut driver, a, region, Rights::MAP | Rights::GRANT, 100);
    let put =
        request::EscrowPut { lane: joined.lane, from, how: EscrowHow::Copy(Terms::rights(Rights::MAP)) };
    let Reply::Ticket(ticket) = driver.ask(a.number, put) else { panic!("a ticket") };
    driver.audits = false;
    // These end before, and each request clears no more than a step of them.
    for _ in 0..3 * SWEEP_STEP {
        derive_until(&mut driver, a, region, Rights::MAP, 99);
    }
    driver.audits = true;
    let permitted = |rights| Reply::Permitted { rights };
    assert_eq!(driver.ask(b.number, request::AclCheck { object }), permitted(Rights::MAP));
    driver.now_ns = 100;
    assert_eq!(driver.ask(b.number, request::AclCheck { object }), permitted(Rights::empty()));
    let take = request::EscrowTake { lane: joined.lane, ticket };
    let unknown = Denial::UnknownTicket { lane: joined.lane, ticket };
    assert_eq!(driver.ask(b.number, take), Reply::Denied(unknown));
    let name = super::driver::name("brief");
    let lookup = request::Lookup { directory: b.directory, name: name.clone(), on_behalf_of: None };
    assert_eq!(driver.ask(b.number, lookup), Reply::Denied(Denial::NameUnknown { name }));
    assert_eq!(driver.kernel.next_expiry_ns(), Some(100), "they are still there");
    driver.finish();
}

#[test]
fn a_region_is_weakened_once_it_is_made_and_a_device_only_where_it_does_not_stand_on_it() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let weaken = |handle, rights| request::Weaken { handle, terms: Terms::rights(rights) };
    driver.hold = true;
    let flags = request::RegionFlags::empty();
    let create = driver.post(a.number, request::CreateRegion { bytes: 4096, flags });
    let region = driver.list(a.number).pop().expect("the region").handle;
    let bound = Denial::RootBound { kind: Kind::Region };
    assert_eq!(driver.denied(a.number, weaken(region, Rights::MAP)), bound);
    driver.answer_next(Ok(()));
    driver.hold = false;
    assert!(matches!(driver.reply_to(a.number, create), Some(Reply::Capability(_))));
    driver.made(a.number, weaken(region, Rights::MAP));
    let deposit = request::Deposit { label: super::driver::name("card0") };
    let call = driver.post_with(a.number, deposit, Door::Deposit, Some(Token(1 << 40)));
    let Some(Reply::Capability(Created { handle: device, .. })) = driver.reply_to(a.number, call) else {
        panic!("a device")
    };
    let derived = driver.made(a.number, derive(device, Rights::CLAIM)).handle;
    let bound = Denial::RootBound { kind: Kind::Device };
    assert_eq!(driver.denied(a.number, weaken(device, Rights::CLAIM)), bound);
    driver.made(a.number, weaken(derived, Rights::empty()));
    driver.finish();
}

#[test]
fn an_end_that_has_begun_is_not_due_again() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let queue = driver.queue(a, 0);
    let middle = derive_until(&mut driver, a, queue, ALL, 100);
    driver.made(a.number, derive(middle, ALL));
    let later = derive_until(&mut driver, a, queue, ALL, 200);
    driver.now_ns = 100;
    assert_eq!(driver.kernel.expire(100).count(), 0, "it is marked first");
    assert!(driver.kernel.is_sweeping());
    assert_eq!(driver.kernel.next_expiry_ns(), Some(200));
    driver.wait(0);
    assert!(!driver.holds(a.number, middle) && driver.holds(a.number, later));
    driver.finish();
}
