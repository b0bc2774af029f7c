//! Derive, grant, delete: who holds what afterwards, and who is told.

use keyway_abi::{Badge, Event, Handle, Kind, Rights, Terms, request};

use super::driver::{Driver, derive, lost};

#[test]
fn a_derived_capability_names_the_same_object_with_fewer_rights() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let queue = driver.queue(a, 0);
    let made = driver.made(a.number, derive(queue, Rights::SEND));
    assert_eq!((made.rights, made.badge), (Rights::SEND, None));
    let entries = driver.list(a.number);
    let entry = |handle| entries.iter().find(|entry| entry.handle == handle).expect("it is listed");
    assert_eq!(entry(made.handle).object, entry(queue).object);
    assert_eq!(entry(made.handle).parent, Some((a.number, queue)));
    assert_eq!(entry(queue).parent, None);
    assert_eq!(entry(queue).kind, Kind::Queue);
    driver.finish();
}

#[test]
fn a_grant_tells_the_other_process_who_gave_what() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(a, 0);
    let to = driver.introduce(b, a, Rights::ENDOW);
    let badge = Some(Badge(9));
    let made = driver.made(
        a.number,
        request::Grant { from: queue, to, terms: Terms { badge, ..Terms::rights(Rights::SEND) } },
    );
    let received = Event::CapabilityReceived {
        handle: made.handle,
        kind: Kind::Queue,
        rights: Rights::SEND,
        badge,
        from: a.number,
    };
    assert_eq!(driver.events(b.number), [received]);
    assert!(driver.holds(b.number, made.handle));
    driver.finish();
}

#[test]
fn a_deleted_middle_leaves_its_children_and_its_parent_can_still_revoke_them() {
    let mut driver = Driver::new();
    let (a, b, c) = (driver.connect(), driver.connect(), driver.connect());
    let queue = driver.queue(a, 0);
    let rights = Rights::SEND | Rights::GRANT | Rights::DERIVE;
    let middle = driver.give(a, queue, b, rights);
    let first = driver.give(b, middle, c, rights);
    let second = driver.give(b, middle, c, rights);
    driver.done(b.number, request::Delete { handle: middle });
    let listed = driver.list(c.number);
    let parents = |handle| listed.iter().find(|entry| entry.handle == handle).map(|entry| entry.parent);
    assert_eq!(parents(first), Some(None), "the one it came from is gone");
    driver.done(c.number, request::Delete { handle: second });
    assert!(driver.holds(c.number, first));
    assert_eq!(driver.events(c.number), []);
    let revoked = driver.ask(a.number, request::Revoke { handle: queue });
    assert_eq!(revoked, keyway_abi::Reply::Revoked { count: 1 });
    assert!(!driver.holds(c.number, first));
    assert_eq!(driver.events(c.number), [lost(first)]);
    driver.finish();
}

#[test]
fn the_children_of_a_process_that_ends_stay_until_revoked() {
    let mut driver = Driver::new();
    let (a, b, c) = (driver.connect(), driver.connect(), driver.connect());
    let region = driver.region(a);
    let rights = Rights::MAP | Rights::GRANT | Rights::DERIVE;
    let middle = driver.give(a, region, b, rights);
    let leaf = driver.give(b, middle, c, rights);
    driver.end(b.number);
    assert!(driver.holds(c.number, leaf));
    driver.ask(a.number, request::Revoke { handle: region });
    assert!(!driver.holds(c.number, leaf));
    driver.finish();
}

#[test]
fn a_capability_to_oneself_can_be_granted_to_oneself() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let grant = request::Grant { from: a.own, to: a.own, terms: Terms::rights(Rights::WATCH) };
    let made = driver.made(a.number, grant);
    assert!(driver.holds(a.number, made.handle));
    driver.finish();
}

#[test]
fn listings_come_in_parts_that_do_not_overlap() {
    let mut driver = Driver::new();
    let a = driver.connect();
    for _ in 0..60 {
        driver.made(a.number, derive(a.own, Rights::empty()));
    }
    let handles: alloc::vec::Vec<Handle> =
        driver.list(a.number).into_iter().map(|entry| entry.handle).collect();
    assert_eq!(handles.len(), 62);
    assert!(handles.is_sorted());
    driver.finish();
}
