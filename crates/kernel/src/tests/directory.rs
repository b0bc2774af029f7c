//! Names: published, looked up with a badge, withdrawn.

use keyway_abi::{BadgeBearer, Denial, Event, Handle, Kind, Rights, request};

use super::driver::{Driver, RING_BYTES, name};
use crate::object::Body;

#[test]
fn a_process_has_one_badge_for_a_name_and_no_other_process_has_it() {
    let mut driver = Driver::new();
    let (a, b, c) = (driver.connect(), driver.connect(), driver.connect());
    let queue = driver.queue(a, 0);
    driver.publish(a, queue, "one");
    driver.publish(a, queue, "two");
    let first = driver.lookup(b, "one");
    let again = driver.lookup(b, "one");
    assert_ne!(first.handle, again.handle);
    assert_eq!(first.badge, again.badge);
    assert!(first.badge.is_some());
    assert_ne!(driver.lookup(b, "two").badge, first.badge);
    assert_ne!(driver.lookup(c, "one").badge, first.badge);
    let label = driver.list(b.number).pop().and_then(|entry| entry.label);
    assert!(label.is_some());
    driver.finish();
}

#[test]
fn a_process_that_ends_takes_its_own_badges_along_and_no_others() {
    let mut driver = Driver::new();
    let (a, b, c) = (driver.connect(), driver.connect(), driver.connect());
    let queue = driver.queue(a, 0);
    driver.publish(a, queue, "service");
    let (kept, gone) = (driver.lookup(b, "service"), driver.lookup(c, "service"));
    driver.end(c.number);
    assert_eq!(driver.lookup(b, "service").badge, kept.badge);
    let names = driver.kernel.names.values().filter_map(|id| match &driver.kernel.object(*id).body {
        Body::ServiceName(entry) => Some(entry.badges.values().copied().map(Some)),
        _ => None,
    });
    let badges: alloc::vec::Vec<_> = names.flatten().collect();
    assert_eq!(badges, [kept.badge], "and not {:?}", gone.badge);
    driver.finish();
}

#[test]
fn a_lane_says_for_whom_its_badge_was_made() {
    let mut driver = Driver::new();
    let (a, b, c) = (driver.connect(), driver.connect(), driver.connect());
    let queue = driver.queue(a, 4);
    driver.publish(a, queue, "service");
    let own = driver.lookup(b, "service");
    let passed = driver.give(b, own.handle, c, Rights::SEND);
    let plain = driver.give(a, queue, c, Rights::SEND);
    for (who, handle, badge, bearer) in [
        (b, own.handle, own.badge, BadgeBearer::Opener),
        (c, passed, own.badge, BadgeBearer::Other),
        (c, plain, None, BadgeBearer::Unnamed),
    ] {
        driver.events(a.number);
        driver.open(who, handle);
        let opened = driver.opened(a);
        let Event::LaneOpened { badge: found, bearer: named, peer, ring_bytes, queue: made, .. } = opened
        else {
            panic!("opened")
        };
        assert_eq!((found, named, peer.process), (badge, bearer, who.number));
        assert_eq!((peer.uid, peer.gid, peer.executable.as_str()), (1000, 1001, "/usr/bin/probe"));
        assert_eq!((ring_bytes, made), (RING_BYTES, queue));
    }
    driver.finish();
}

#[test]
fn a_badge_that_a_deriver_made_names_nobody() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(a, 1);
    let badge = Some(keyway_abi::Badge(5));
    let send = driver.give_badged(a, queue, b, Rights::SEND, badge);
    driver.open(b, send);
    let opened = driver.opened(a);
    let Event::LaneOpened { badge: found, bearer, .. } = opened else { panic!("opened") };
    assert_eq!((found, bearer), (badge, BadgeBearer::Unnamed));
    driver.finish();
}

#[test]
fn a_lookup_on_behalf_of_another_gives_it_a_badge_of_its_own() {
    let mut driver = Driver::new();
    let (a, b, c) = (driver.connect(), driver.connect(), driver.connect());
    let queue = driver.queue(a, 1);
    driver.publish(a, queue, "service");
    let mine = driver.lookup(b, "service");
    let process = driver.introduce(c, b, Rights::ENDOW);
    let lookup =
        request::Lookup { directory: b.directory, name: name("service"), on_behalf_of: Some(process) };
    let theirs = driver.made(b.number, lookup);
    assert_ne!(theirs.badge, mine.badge);
    let events = driver.events(c.number);
    assert!(
        matches!(events[..], [Event::CapabilityReceived { handle, kind: Kind::Queue, badge, from, .. }]
            if handle == theirs.handle && badge == theirs.badge && from == b.number),
        "{events:?}"
    );
    assert_eq!(driver.lookup(c, "service").badge, theirs.badge);
    driver.open(c, theirs.handle);
    let opened = driver.opened(a);
    assert!(matches!(opened, Event::LaneOpened { bearer: BadgeBearer::Opener, .. }));
    driver.finish();
}

#[test]
fn a_withdrawn_name_leaves_what_was_looked_up_and_can_be_published_again() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(a, 1);
    let service = driver.publish(a, queue, "service");
    let found = driver.lookup(b, "service");
    driver.done(a.number, request::Delete { handle: service });
    let lookup = request::Lookup { directory: b.directory, name: name("service"), on_behalf_of: None };
    assert_eq!(driver.denied(b.number, lookup.clone()), Denial::NameUnknown { name: name("service") });
    driver.open(b, found.handle);
    driver.publish(a, queue, "service");
    assert_ne!(driver.made(b.number, lookup).badge, found.badge, "another name, another badge");
    driver.finish();
}

#[test]
fn a_name_ends_with_its_publisher_its_queue_and_its_revocation() {
    let mut driver = Driver::new();
    let (a, publisher, b) = (driver.connect(), driver.connect(), driver.connect());
    let queue = driver.queue(a, 0);
    let rights = Rights::SEND | Rights::GRANT | Rights::DERIVE;
    let lookup = request::Lookup { directory: b.directory, name: name("service"), on_behalf_of: None };
    let unknown = Denial::NameUnknown { name: name("service") };
    let given = driver.give(a, queue, publisher, rights);
    let service = driver.publish(publisher, given, "service");
    driver.lookup(b, "service");
    driver.ask(a.number, request::Revoke { handle: queue });
    assert_eq!(driver.denied(b.number, lookup.clone()), unknown);
    assert!(driver.holds(publisher.number, service), "it names nothing, and is still to be deleted");
    let given = driver.give(a, queue, publisher, rights);
    driver.publish(publisher, given, "service");
    driver.end(publisher.number);
    assert_eq!(driver.denied(b.number, lookup.clone()), unknown);
    driver.publish(a, queue, "service");
    driver.done(a.number, request::Delete { handle: queue });
    assert_eq!(driver.denied(b.number, lookup), unknown);
    driver.finish();
}

#[test]
fn a_listing_says_whence_a_capability_came_and_which_process_it_names() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(a, 0);
    driver.publish(a, queue, "service");
    let found = driver.lookup(b, "service").handle;
    let process = driver.introduce(a, b, Rights::WATCH);
    let pid = driver.kernel.process(a.number).pid();
    let entry = |driver: &mut Driver, handle| {
        driver.list(b.number).into_iter().find(|entry| entry.handle == handle).expect("it is held")
    };
    let looked_up = entry(&mut driver, found);
    assert_eq!((looked_up.parent, looked_up.process), (Some((a.number, Handle::NONE)), None));
    assert_eq!(entry(&mut driver, process).process, Some((a.number, pid)));
    driver.end(a.number);
    assert_eq!(entry(&mut driver, process).process, Some((a.number, 0)), "it has ended");
    driver.finish();
}

#[test]
fn everything_is_listed_to_those_who_may_inspect() {
    use keyway_abi::{Listing, Reply};
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let joined = driver.lane(a, b);
    driver.publish(b, joined.queue, "service");
    let directory = a.directory;
    let reply = driver.ask(a.number, request::ListProcesses { directory, after: None });
    let Reply::Listing(Listing::Processes(processes)) = reply else { panic!("processes") };
    assert_eq!(processes.len(), 2);
    assert_eq!((processes[0].process, processes[0].lanes_sending), (a.number, 1));
    assert_eq!((processes[1].process, processes[1].lanes_receiving), (b.number, 1));
    assert!(!processes[0].confined);
    let reply = driver.ask(a.number, request::ListProcesses { directory, after: Some(b.number) });
    assert_eq!(reply, Reply::Listing(Listing::Processes(alloc::vec![])));
    let reply = driver.ask(a.number, request::ListQueues { directory, after: None });
    let Reply::Listing(Listing::Queues(queues)) = reply else { panic!("queues") };
    assert_eq!((queues[0].receiver, queues[0].senders, queues[0].stock), (b.number, 1, 1));
    assert_eq!(queues[0].name, Some(name("service")));
    let reply = driver.ask(a.number, request::ListLanes { directory, after: None });
    let Reply::Listing(Listing::Lanes(lanes)) = reply else { panic!("lanes") };
    assert_eq!((lanes[0].lane, lanes[0].sender, lanes[0].draining), (joined.lane, a.number, false));
    assert!(driver.kernel.lane_memories(joined.lane).is_some());
    let of = request::ListCapabilities { directory, process: b.number, after: Handle::NONE };
    let reply = driver.ask(a.number, of);
    assert_eq!(reply, driver.ask(b.number, request::ListOwn { after: Handle::NONE }));
    driver.finish();
}

#[test]
fn a_name_that_is_withdrawn_takes_no_badge_of_another_name_along() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(b, 0);
    let first = driver.publish(b, queue, "first");
    driver.publish(b, queue, "second");
    let (of_first, of_second) = (driver.lookup(a, "first"), driver.lookup(a, "second"));
    assert_ne!(of_first.badge, of_second.badge);
    driver.done(b.number, request::Delete { handle: first });
    assert_eq!(driver.lookup(a, "second").badge, of_second.badge);
    driver.publish(b, queue, "first");
    assert_ne!(driver.lookup(a, "first").badge, of_first.badge, "a new name has new badges");
    driver.finish();
}
