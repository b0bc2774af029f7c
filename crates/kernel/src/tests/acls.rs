//! Access lists, and waiting for names.

use alloc::{string::String, vec::Vec};

use keyway_abi::{
    AclEntry, AclItem, AclKind, Denial, Event, Handle, Listing, Payer, Quota, Reply, Rights, ShownSubject,
    Subject, Terms,
    limits::{ACL_ENTRIES_MAX, NAME_WAITS_MAX},
    request::{self, Audience, EscrowHow, MapAccess},
};
use proptest::prelude::*;

use super::driver::{Driver, RING_BYTES, Who, derive, name};
use crate::{
    Identity,
    acl::{Acl, Entry},
    object::Queue,
    tree::ObjectId,
};

fn entry(subject: Subject, permissions: Rights, kind: AclKind) -> AclEntry {
    AclEntry { subject, permissions, kind }
}

fn add(driver: &mut Driver, who: Who, object: Handle, entry: AclEntry) -> u64 {
    let reply = driver.ask(who.number, request::AclAdd { object, entry });
    let Reply::AclAdded { number } = reply else { panic!("added: {reply:?}") };
    number
}

fn allow(driver: &mut Driver, who: Who, object: Handle, subject: Subject, permissions: Rights) -> u64 {
    add(driver, who, object, entry(subject, permissions, AclKind::Allow))
}

fn deny(driver: &mut Driver, who: Who, object: Handle, subject: Subject, permissions: Rights) -> u64 {
    add(driver, who, object, entry(subject, permissions, AclKind::Deny))
}

fn permitted(driver: &mut Driver, who: Who, object: Handle) -> Rights {
    let reply = driver.ask(who.number, request::AclCheck { object });
    let Reply::Permitted { rights } = reply else { panic!("permitted: {reply:?}") };
    rights
}

fn open(queue: Handle) -> request::OpenLane {
    request::OpenLane { queue, ring_bytes: RING_BYTES, priority: 0, huge: false }
}

#[test]
fn what_matching_entries_allow_adds_up_and_an_empty_list_gives_nothing() {
    let mut driver = Driver::new();
    let (a, b, c) = (driver.connect(), driver.connect_uid(2000), driver.connect_uid(3000));
    let (region, ..) = driver.written_region(a);
    let of_b = driver.give(a, region, b, Rights::empty());
    let of_c = driver.give(a, region, c, Rights::empty());
    let map = request::MapRegion { region: of_b, access: MapAccess::Read };
    let (needed, held) = (Rights::MAP, Rights::empty());
    let missing = Denial::MissingRights { handle: of_b, needed, held };
    assert_eq!(driver.denied(b.number, map.clone()), missing);
    let by_user = allow(&mut driver, a, region, Subject::User(2000), Rights::MAP);
    let by_group = allow(&mut driver, a, region, Subject::Group(2001), Rights::GRANT);
    assert_eq!(permitted(&mut driver, b, of_b), Rights::MAP | Rights::GRANT);
    assert_eq!(permitted(&mut driver, c, of_c), Rights::empty());
    assert!(matches!(driver.ask(b.number, map.clone()), Reply::Mapping { .. }));
    driver.done(a.number, request::AclRemove { object: region, number: by_user });
    assert_eq!(permitted(&mut driver, b, of_b), Rights::GRANT);
    let missing = Denial::MissingRights { handle: of_b, needed: Rights::MAP, held: Rights::GRANT };
    assert_eq!(driver.denied(b.number, map), missing);
    driver.done(a.number, request::AclRemove { object: region, number: by_group });
    assert_eq!(permitted(&mut driver, b, of_b), Rights::empty());
    driver.finish();
}

#[test]
fn a_denial_wins_over_what_is_allowed_and_over_what_is_held() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect_uid(2000));
    let queue = driver.queue(a, 2);
    let send = driver.give(a, queue, b, Rights::SEND | Rights::DERIVE | Rights::GRANT);
    let own = driver.made(b.number, derive(send, Rights::SEND)).handle;
    let number = deny(&mut driver, a, queue, Subject::User(2000), Rights::SEND | Rights::GRANT);
    allow(&mut driver, a, queue, Subject::User(2000), Rights::SEND);
    for handle in [send, own] {
        let denied = Denial::DeniedByList { handle, denied: Rights::SEND };
        assert_eq!(driver.denied(b.number, open(handle)), denied);
    }
    let to = driver.introduce(a, b, Rights::ENDOW);
    let grant = request::Grant { from: send, to, terms: Terms::rights(Rights::SEND) };
    let denied = Denial::DeniedByList { handle: send, denied: Rights::GRANT };
    assert_eq!(driver.denied(b.number, grant), denied);
    assert_eq!(permitted(&mut driver, b, send), Rights::DERIVE);
    driver.done(a.number, request::AclRemove { object: queue, number });
    driver.open(b, send);
    driver.finish();
}

#[test]
fn what_is_both_held_and_allowed_is_permitted_and_said() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect_uid(2000));
    let (region, ..) = driver.written_region(a);
    let of_b = driver.give(a, region, b, Rights::MAP);
    let both = Rights::MAP | Rights::DERIVE;
    allow(&mut driver, a, region, Subject::User(2000), both);
    assert_eq!(permitted(&mut driver, b, of_b), both);
    let write = request::MapRegion { region: of_b, access: MapAccess::Write };
    let missing = Denial::MissingRights { handle: of_b, needed: Rights::WRITE, held: both };
    assert_eq!(driver.denied(b.number, write), missing);
    driver.finish();
}

#[test]
fn what_a_list_allows_is_not_passed_on() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect_uid(2000));
    let (region, ..) = driver.written_region(a);
    let of_b = driver.give(a, region, b, Rights::empty());
    allow(&mut driver, a, region, Subject::User(2000), Rights::DERIVE | Rights::MAP | Rights::GRANT);
    let exceeded = Denial::RightsExceeded { asked: Rights::MAP, held: Rights::empty() };
    assert_eq!(driver.denied(b.number, derive(of_b, Rights::MAP)), exceeded);
    driver.made(b.number, derive(of_b, Rights::empty()));
    let back = driver.lane(b, a);
    let how = EscrowHow::Copy(Terms::rights(Rights::MAP));
    let put = request::EscrowPut { lane: back.lane, from: of_b, how };
    assert_eq!(driver.denied(b.number, put), exceeded);
    let put = request::EscrowPut { lane: back.lane, from: of_b, how: EscrowHow::Move };
    assert!(matches!(driver.ask(b.number, put), Reply::Ticket(_)));
    driver.finish();
}

#[test]
fn subjects_are_processes_holders_users_groups_and_executables() {
    let mut driver = Driver::new();
    let (a, b, c) = (driver.connect(), driver.connect(), driver.connect());
    let (region, ..) = driver.written_region(a);
    let [of_b, of_c] = [b, c].map(|who| driver.give(a, region, who, Rights::empty()));
    let process = driver.introduce(b, a, Rights::WATCH);
    let number = allow(&mut driver, a, region, Subject::Holder(process), Rights::MAP);
    assert_eq!(
        (permitted(&mut driver, b, of_b), permitted(&mut driver, c, of_c)),
        (Rights::MAP, Rights::empty())
    );
    driver.done(a.number, request::AclRemove { object: region, number });
    // Whoever holds the ticket, which names nothing but itself.
    let ticket = driver.region(a);
    allow(&mut driver, a, region, Subject::Holder(ticket), Rights::MAP);
    assert_eq!(permitted(&mut driver, c, of_c), Rights::empty());
    let held = driver.give(a, ticket, c, Rights::empty());
    assert_eq!(
        (permitted(&mut driver, c, of_c), permitted(&mut driver, b, of_b)),
        (Rights::MAP, Rights::empty())
    );
    driver.done(c.number, request::Delete { handle: held });
    assert_eq!(permitted(&mut driver, c, of_c), Rights::empty());
    let path = String::from("/usr/bin/probe");
    allow(&mut driver, a, region, Subject::Executable(path), Rights::GRANT);
    assert_eq!(permitted(&mut driver, b, of_b), Rights::GRANT);
    driver.finish();
}

#[test]
fn a_list_is_kept_by_those_who_have_the_right_and_paid_for_by_its_object() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(a, 0);
    let rights = Queue::RIGHTS - Rights::RECEIVE;
    let keeper = driver.give(a, queue, b, rights);
    let guest = driver.give(a, queue, b, rights - Rights::CONTROL);
    let wanted = entry(Subject::User(1), Rights::SEND, AclKind::Allow);
    let (needed, held) = (Rights::CONTROL, rights - Rights::CONTROL);
    let missing = Denial::MissingRights { handle: guest, needed, held };
    let object = guest;
    assert_eq!(driver.denied(b.number, request::AclAdd { object, entry: wanted.clone() }), missing);
    assert_eq!(driver.denied(b.number, request::AclRemove { object, number: 1 }), missing);
    assert_eq!(driver.denied(b.number, request::AclList { object, after: None }), missing);
    let account = driver.kernel.process(a.number).account;
    let before = driver.kernel.accounts.used(account).handles;
    let number = add(&mut driver, b, keeper, wanted);
    assert_eq!(driver.kernel.accounts.used(account).handles, before + 1);
    let unknown = Denial::UnknownAclEntry { number: number + 1 };
    assert_eq!(driver.denied(b.number, request::AclRemove { object: keeper, number: number + 1 }), unknown);
    let reply = driver.ask(a.number, request::AclList { object: queue, after: None });
    let subject = ShownSubject::User(1);
    let item = AclItem { number, subject, permissions: Rights::SEND, kind: AclKind::Allow };
    assert_eq!(reply, Reply::Listing(Listing::Acl(Vec::from([item]))));
    let after = Some(number);
    let reply = driver.ask(a.number, request::AclList { object: queue, after });
    assert_eq!(reply, Reply::Listing(Listing::Acl(Vec::new())));
    driver.done(a.number, request::Delete { handle: queue });
    assert!(driver.kernel.accounts.used(account).handles < before, "the list has gone with its object");
    driver.finish();
}

#[test]
fn an_entrys_number_is_not_given_again_when_its_list_was_empty_meanwhile() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let queue = driver.queue(a, 0);
    let first = allow(&mut driver, a, queue, Subject::User(1), Rights::SEND);
    driver.done(a.number, request::AclRemove { object: queue, number: first });
    let second = deny(&mut driver, a, queue, Subject::User(2), Rights::SEND);
    assert_ne!(second, first);
    // Who has seen the first, and does not know that it has gone, removes nothing else.
    let unknown = Denial::UnknownAclEntry { number: first };
    assert_eq!(driver.denied(a.number, request::AclRemove { object: queue, number: first }), unknown);
    driver.finish();
}

#[test]
fn entries_that_make_no_sense_and_too_many_are_refused() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let (queue, (region, ..)) = (driver.queue(a, 0), driver.written_region(a));
    let possible = Queue::RIGHTS - Rights::RECEIVE - Rights::CONTROL;
    let subject = Subject::User(0);
    for asked in [Rights::empty(), Rights::RECEIVE, Rights::CONTROL, Rights::MAP, Rights::SEND | Rights::MAP]
    {
        let refused = Denial::InvalidPermissions { asked, possible };
        let entry = entry(subject.clone(), asked, AclKind::Allow);
        assert_eq!(driver.denied(a.number, request::AclAdd { object: queue, entry }), refused);
    }
    for (path, bytes) in [("bin/probe".into(), 9), ("/".repeat(129), 129)] {
        let refused = Denial::InvalidExecutable { bytes, bytes_max: 128 };
        let entry = entry(Subject::Executable(path), Rights::MAP, AclKind::Deny);
        assert_eq!(driver.denied(a.number, request::AclAdd { object: region, entry }), refused);
    }
    let longest = Subject::Executable("/".repeat(128));
    let number = deny(&mut driver, a, region, longest, Rights::MAP);
    driver.done(a.number, request::AclRemove { object: region, number });
    let unknown = Handle::new(99, 1);
    let entry_for = |subject| entry(subject, Rights::MAP, AclKind::Allow);
    let refused = driver
        .denied(a.number, request::AclAdd { object: region, entry: entry_for(Subject::Holder(unknown)) });
    assert_eq!(refused, Denial::UnknownHandle { handle: unknown });
    for uid in 0..ACL_ENTRIES_MAX {
        allow(&mut driver, a, region, Subject::User(uid as u32), Rights::MAP);
    }
    let (quota, of, max) = (Quota::AclEntries, Payer::Process, ACL_ENTRIES_MAX as u64);
    let full = Denial::QuotaExceeded { quota, of, asked: 1, used: max, max };
    let entry = entry_for(Subject::User(99));
    assert_eq!(driver.denied(a.number, request::AclAdd { object: region, entry }), full);
    driver.finish();
}

#[test]
fn a_name_can_be_waited_for_and_is_told_of_once() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect_uid(2000));
    let queue = driver.queue(a, 0);
    let wait = |text: &str| request::WaitName { directory: b.directory, name: name(text) };
    let appeared = |text: &str| Event::NameAppeared { name: name(text) };
    driver.done(b.number, wait("late"));
    driver.done(b.number, wait("late"));
    driver.done(b.number, wait("forgotten"));
    driver.done(b.number, request::ForgetName { name: name("forgotten") });
    driver.done(b.number, request::ForgetName { name: name("never") });
    let late = driver.publish(a, queue, "late");
    driver.publish(a, queue, "later");
    driver.publish(a, queue, "forgotten");
    assert_eq!(driver.events(b.number), [appeared("late")]);
    driver.done(b.number, wait("late"));
    assert_eq!(driver.events(b.number), [appeared("late")], "it is there already");
    driver.done(a.number, request::Delete { handle: late });
    driver.publish(a, queue, "late");
    assert_eq!(driver.events(b.number), [], "once");
    driver.finish();
}

#[test]
fn a_name_that_is_not_for_the_waiter_is_waited_for_until_it_is() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect_uid(2000));
    let queue = driver.queue(a, 0);
    let (directory, rights, audience) = (a.directory, Rights::SEND, Audience::OwnUserAndRoot);
    let publish = request::Publish { directory, name: name("private"), queue, rights, audience };
    let private = driver.made(a.number, publish).handle;
    driver.done(b.number, request::WaitName { directory: b.directory, name: name("private") });
    assert_eq!(driver.events(b.number), []);
    driver.done(a.number, request::Delete { handle: private });
    driver.publish(a, queue, "private");
    assert_eq!(driver.events(b.number), [Event::NameAppeared { name: name("private") }]);
    driver.finish();
}

#[test]
fn names_waited_for_are_bounded_and_go_with_their_process() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let wait = |number: usize| {
        let name = keyway_abi::Name::new(&alloc::format!("name{number}")).expect("a name");
        request::WaitName { directory: a.directory, name }
    };
    for number in 0..NAME_WAITS_MAX {
        driver.done(a.number, wait(number));
    }
    let (quota, of, max) = (Quota::NameWaits, Payer::Process, NAME_WAITS_MAX as u64);
    let full = Denial::QuotaExceeded { quota, of, asked: 1, used: max, max };
    assert_eq!(driver.denied(a.number, wait(NAME_WAITS_MAX)), full);
    driver.done(a.number, wait(0));
    driver.end(a.number);
    let queue = driver.queue(b, 0);
    driver.publish(b, queue, "name0");
    driver.finish();
}

proptest! {
    /// Against the plainest form: all that matches, then what is denied taken away.
    #[test]
    fn a_list_says_what_its_entries_say(
        lines in proptest::collection::vec((0_u8..4, 0_u32..3, 0_u32..64, any::<bool>()), 0..20),
        uid in 0_u32..3, gid in 0_u32..3, group in 0_u32..4, program in 0_u32..3, held in 0_u64..3,
    ) {
        let mut acl = Acl::default();
        let (mut allowed, mut denied) = (Rights::empty(), Rights::empty());
        for (what, value, bits, allows) in lines {
            let (permissions, kind) =
                (Rights::from_bits_truncate(bits), if allows { AclKind::Allow } else { AclKind::Deny });
            let (subject, matches) = match what {
                0 => (crate::acl::Subject::User(value), uid == value),
                1 => (crate::acl::Subject::Group(value), gid == value || group == value),
                2 => (crate::acl::Subject::Executable(alloc::format!("/{value}")), program == value),
                _ => (crate::acl::Subject::Holder(ObjectId(value.into())), held == u64::from(value)),
            };
            acl.add(Entry { subject, permissions, kind });
            if matches && allows {
                allowed |= permissions;
            } else if matches {
                denied |= permissions;
            }
        }
        let executable = alloc::format!("/{program}");
        let identity = Identity { pid: 1, uid, gid, groups: alloc::vec![group], executable, account: (0, 0) };
        let judged = acl.judge(Some(&identity), |object| object == ObjectId(held));
        prop_assert_eq!((judged.allowed, judged.denied), (allowed, denied));
    }
}
