//! Rules for names, and limits, that change while they are in use.

use alloc::{string::String, vec, vec::Vec};

use keyway_abi::{
    Denial, Event, Handle, Payer, Quota, Rights,
    limits::SESSION_DESCRIPTORS,
    request::{self, Audience},
};

use super::driver::{Driver, Who, derive, name};
use crate::{Limits, NameRule, NameRules, Subject};

const NONE: Rights = Rights::empty();

fn rule(prefix: &str, subject: Subject, allow: Rights, deny: Rights) -> NameRule {
    NameRule { prefix: prefix.into(), subject, allow, deny }
}

fn set(driver: &mut Driver, rules: Vec<NameRule>) {
    let effects = driver.kernel.set_rules(driver.now_ns, NameRules::new(rules)).collect();
    driver.run(effects);
}

fn publish(who: Who, queue: Handle, text: &str) -> request::Publish {
    let (rights, audience) = (Rights::SEND, Audience::Everyone);
    request::Publish { directory: who.directory, name: name(text), queue, rights, audience }
}

fn lookup(who: Who, text: &str) -> request::Lookup {
    request::Lookup { directory: who.directory, name: name(text), on_behalf_of: None }
}

fn forbidden(text: &str, verb: Rights) -> Denial {
    Denial::NameForbidden { name: name(text), verb }
}

#[test]
fn what_no_rule_allows_is_forbidden_whether_the_name_is_there_or_not() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect_uid(1000), driver.connect_uid(1001));
    let queue = driver.queue(a, 0);
    let other = driver.queue(b, 0);
    set(&mut driver, vec![rule("org.", Subject::User(1000), Rights::PUBLISH, NONE)]);
    driver.publish(a, queue, "org.a");
    assert_eq!(driver.denied(a.number, publish(a, queue, "net.a")), forbidden("net.a", Rights::PUBLISH));
    assert_eq!(driver.denied(b.number, publish(b, other, "org.b")), forbidden("org.b", Rights::PUBLISH));
    assert_eq!(driver.denied(b.number, publish(b, other, "org.a")), forbidden("org.a", Rights::PUBLISH));
    for text in ["org.a", "org.none", "x"] {
        assert_eq!(driver.denied(a.number, lookup(a, text)), forbidden(text, Rights::LOOKUP));
        assert_eq!(driver.denied(b.number, lookup(b, text)), forbidden(text, Rights::LOOKUP));
    }
    driver.finish();
}

#[test]
fn rules_add_up_and_deny_wins_whatever_their_order() {
    let (publish_it, look_it_up) = (Rights::PUBLISH, Rights::LOOKUP);
    let probe = || Subject::Executable(String::from("/usr/bin/probe"));
    let mut rules = vec![
        rule("", Subject::Everyone, look_it_up, NONE),
        rule("org.", Subject::Group(1001), publish_it, NONE),
        rule("org.secret", probe(), NONE, look_it_up),
        rule("org.secret", Subject::User(1000), look_it_up | publish_it, NONE),
    ];
    for _ in 0..rules.len() {
        rules.rotate_left(1);
        let mut driver = Driver::new();
        let a = driver.connect_uid(1000);
        let queue = driver.queue(a, 0);
        set(&mut driver, rules.clone());
        driver.publish(a, queue, "org.a");
        driver.publish(a, queue, "org.secret.a");
        driver.lookup(a, "org.a");
        let denial = driver.denied(a.number, lookup(a, "org.secret.a"));
        assert_eq!(denial, forbidden("org.secret.a", look_it_up));
        driver.finish();
    }
}

#[test]
fn rules_never_give_what_the_directorys_rights_lack() {
    let mut driver = Driver::new();
    let a = driver.connect();
    set(&mut driver, vec![rule("", Subject::Everyone, NameRules::VERBS, NONE)]);
    let directory = driver.made(a.number, derive(a.directory, NONE)).handle;
    let ask = request::Lookup { directory, name: name("x"), on_behalf_of: None };
    let (needed, held) = (Rights::LOOKUP, NONE);
    let denial = driver.denied(a.number, ask);
    assert_eq!(denial, Denial::MissingRights { handle: directory, needed, held });
    driver.finish();
}

#[test]
fn new_rules_hold_at_once_and_leave_what_is_there() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect_uid(1001));
    let queue = driver.queue(a, 1);
    driver.publish(a, queue, "service");
    let found = driver.lookup(b, "service");
    set(&mut driver, vec![rule("", Subject::User(1002), NameRules::VERBS, NONE)]);
    driver.kernel.audit();
    driver.open(b, found.handle);
    assert_eq!(driver.denied(b.number, lookup(b, "service")), forbidden("service", Rights::LOOKUP));
    let c = driver.connect_uid(1002);
    driver.lookup(c, "service");
    set(&mut driver, vec![]);
    assert_eq!(driver.lookup(b, "service").badge, found.badge);
    driver.finish();
}

#[test]
fn a_lookup_on_behalf_of_another_is_judged_by_who_asks() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect_uid(1000), driver.connect_uid(1001));
    let queue = driver.queue(a, 1);
    driver.publish(a, queue, "service");
    set(&mut driver, vec![rule("service", Subject::User(1000), Rights::LOOKUP, NONE)]);
    let (for_b, for_a) = (driver.introduce(b, a, Rights::ENDOW), driver.introduce(a, b, Rights::ENDOW));
    driver.made(a.number, request::Lookup { on_behalf_of: Some(for_b), ..lookup(a, "service") });
    assert!(matches!(driver.events(b.number)[..], [Event::CapabilityReceived { .. }]));
    let ask = request::Lookup { on_behalf_of: Some(for_a), ..lookup(b, "service") };
    assert_eq!(driver.denied(b.number, ask), forbidden("service", Rights::LOOKUP));
    driver.finish();
}

#[test]
fn a_lower_limit_leaves_what_is_used_and_refuses_more() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let queues: Vec<_> = (0..4).map(|_| driver.queue(a, 0)).collect();
    let mut limits = Limits::default();
    limits.process.objects = 3;
    driver.kernel.set_limits(limits);
    driver.kernel.audit();
    let create = || request::CreateQueue {
        ring_bytes_max: 4096,
        senders_max: 1,
        stock: 0,
        order: request::QueueOrder::Fair,
    };
    let denied = |of, used, max| Denial::QuotaExceeded { quota: Quota::Objects, of, asked: 1, used, max };
    assert_eq!(driver.denied(a.number, create()), denied(Payer::Process, 4, 3));
    let send = driver.give(a, queues[0], a, Rights::SEND);
    assert!(driver.holds(a.number, send), "nothing else is refused");
    for handle in &queues[..2] {
        driver.done(a.number, request::Delete { handle: *handle });
    }
    driver.queue(a, 0);
    assert_eq!(driver.denied(a.number, create()), denied(Payer::Process, 3, 3));
    limits.process.objects = 5;
    limits.user.objects = 3;
    driver.kernel.set_limits(limits);
    let b = driver.connect();
    assert_eq!(driver.denied(b.number, create()), denied(Payer::User, 3, 3));
    limits.user.objects = 4;
    driver.kernel.set_limits(limits);
    driver.queue(b, 0);
    driver.finish();
}

#[test]
fn a_lower_limit_of_sessions_ends_none() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let mut limits = Limits::default();
    limits.user.sessions = 1;
    limits.everyone.descriptors = SESSION_DESCRIPTORS;
    driver.kernel.set_limits(limits);
    let identity = driver.identity(1000);
    let arrival = crate::Arrival { identity, own: NONE, directory: NONE };
    assert!(driver.arrive_with(arrival.clone()).is_err());
    for who in [a, b] {
        assert!(driver.holds(who.number, who.own));
    }
    driver.kernel.set_limits(Limits::default());
    assert!(driver.arrive_with(arrival).is_ok());
    driver.finish();
}

#[test]
fn a_name_that_is_forbidden_is_not_waited_for_nor_told_of() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect_uid(1000), driver.connect_uid(1001));
    let queue = driver.queue(a, 0);
    let wait = request::WaitName { directory: b.directory, name: name("org.a") };
    set(&mut driver, vec![rule("", Subject::Everyone, Rights::PUBLISH, NONE)]);
    assert_eq!(driver.denied(b.number, wait.clone()), forbidden("org.a", Rights::LOOKUP));
    set(&mut driver, vec![]);
    driver.done(b.number, wait);
    set(&mut driver, vec![rule("", Subject::Everyone, Rights::PUBLISH, NONE)]);
    let published = driver.publish(a, queue, "org.a");
    assert_eq!(driver.events(b.number), [], "the rules have changed");
    driver.done(a.number, request::Delete { handle: published });
    set(&mut driver, vec![]);
    driver.publish(a, queue, "org.a");
    assert_eq!(driver.events(b.number), [Event::NameAppeared { name: name("org.a") }]);
    driver.finish();
}

#[test]
fn who_waits_for_a_name_that_was_forbidden_is_told_once_when_the_rules_allow_it() {
    let mut driver = Driver::new();
    let (a, b, c) = (driver.connect_uid(1000), driver.connect_uid(1001), driver.connect_uid(1002));
    let queue = driver.queue(a, 0);
    let wait = request::WaitName { directory: b.directory, name: name("org.a") };
    driver.done(b.number, wait.clone());
    driver.done(c.number, request::WaitName { directory: c.directory, name: name("org.b") });
    let publish = rule("", Subject::User(1000), Rights::PUBLISH, NONE);
    set(&mut driver, vec![publish.clone()]);
    driver.publish(a, queue, "org.a");
    driver.publish(a, queue, "org.b");
    assert_eq!((driver.events(b.number), driver.events(c.number)), (vec![], vec![]));
    set(&mut driver, vec![publish, rule("", Subject::User(1001), Rights::LOOKUP, NONE)]);
    let appeared = Event::NameAppeared { name: name("org.a") };
    assert_eq!(driver.events(b.number), core::slice::from_ref(&appeared));
    assert_eq!(driver.events(c.number), [], "it may still not look it up");
    set(&mut driver, vec![]);
    assert_eq!(driver.events(b.number), [], "it was told");
    assert_eq!(driver.events(c.number), [Event::NameAppeared { name: name("org.b") }]);
    driver.ask(b.number, wait);
    assert_eq!(driver.events(b.number), [appeared], "asked again, told again");
    driver.finish();
}

#[test]
fn rules_are_shown_as_they_were_given() {
    let given =
        vec![rule("org.", Subject::User(1), Rights::PUBLISH, NONE), rule("", Subject::Everyone, NONE, NONE)];
    assert_eq!(NameRules::new(given.clone()).rules(), given);
}
