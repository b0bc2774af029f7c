//! The audit log.

use alloc::vec::Vec;

use keyway_abi::{
    AuditEntry, Denial, Handle, Kind, Listing, Reply, Rights, Terms, Verdict, limits::AUDIT_ENTRIES_MAX,
    request,
};

use super::driver::{Driver, Who, derive};

fn log(driver: &mut Driver, who: Who) -> Vec<AuditEntry> {
    let mut all = Vec::<AuditEntry>::new();
    loop {
        let after = all.last().map(|entry| entry.sequence);
        let reply = driver.ask(who.number, request::ListAudit { directory: who.directory, after });
        let Reply::Listing(Listing::Audit(part)) = reply else { panic!("a log: {reply:?}") };
        if part.is_empty() {
            return all;
        }
        all.extend(part);
    }
}

#[test]
fn it_says_who_was_granted_refused_and_revoked_what() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(a, 0);
    let to = driver.introduce(b, a, Rights::ENDOW);
    let newest = log(&mut driver, a).last().map_or(0, |entry| entry.sequence);
    driver.wait(5);
    let rights = Rights::SEND;
    driver.made(a.number, request::Grant { from: queue, to, terms: Terms::rights(rights) });
    driver.denied(b.number, derive(Handle::new(77, 1), rights));
    driver.denied(b.number, derive(Handle::new(78, 1), rights));
    driver.ask(a.number, request::Revoke { handle: queue });
    driver.made(
        a.number,
        request::Derive { from: queue, terms: Terms { expires_ns: Some(9), ..Terms::rights(rights) } },
    );
    driver.wait(4);
    let entries = log(&mut driver, a);
    let entries: Vec<_> = entries.iter().filter(|entry| entry.sequence > newest).collect();
    let object = driver.list(a.number).iter().find(|entry| entry.handle == queue).expect("held").object;
    let kind = Kind::Queue;
    let granted = |to: Who| Verdict::Granted { to: to.number, kind, object, rights, badge: None };
    let refused =
        Verdict::Refused { denial: Denial::UnknownHandle { handle: Handle::NONE }.number(), times: 2 };
    let expected = [
        (Some(a.number), request::Grant::OPCODE, 5, granted(b)),
        (Some(b.number), request::Derive::OPCODE, 5, refused),
        (Some(a.number), request::Revoke::OPCODE, 5, Verdict::Revoked { kind, object, count: 1 }),
        (Some(a.number), request::Derive::OPCODE, 5, granted(a)),
        (None, 0, 9, Verdict::Expired { kind, object, count: 1 }),
    ];
    let found: Vec<_> = entries
        .iter()
        .map(|entry| (entry.process, entry.opcode, entry.at_ns, entry.verdict.clone()))
        .collect();
    assert_eq!(found, expected);
    assert_eq!((entries[1].pid, entries[1].uid), (102, 1000));
    assert!(entries.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
    driver.finish();
}

#[test]
fn what_ends_is_counted_once_and_only_what_somebody_holds() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(a, 2);
    let rights = Rights::SEND | Rights::GRANT | Rights::DERIVE;
    let brief =
        |from, at| request::Derive { from, terms: Terms { expires_ns: Some(at), ..Terms::rights(rights) } };
    let held = driver.made(a.number, brief(queue, 9)).handle;
    driver.made(a.number, derive(held, rights));
    driver.made(a.number, derive(held, rights));
    let given = driver.give(a, held, b, rights);
    driver.open(b, given);
    let dropped = driver.made(a.number, brief(queue, 8)).handle;
    driver.made(a.number, derive(dropped, rights));
    driver.made(a.number, derive(dropped, rights));
    driver.done(a.number, request::Delete { handle: dropped });
    let empty = driver.made(a.number, brief(queue, 7)).handle;
    driver.open(a, empty);
    driver.done(a.number, request::Delete { handle: empty });
    for ns in [7, 1, 1] {
        driver.wait(ns);
    }
    let entries = log(&mut driver, a);
    let ended = entries.iter().filter_map(|entry| match entry.verdict {
        Verdict::Expired { count, .. } => Some((entry.at_ns, count)),
        _ => None,
    });
    assert_eq!(ended.collect::<Vec<_>>(), [(8, 2), (9, 4)]);
    driver.finish();
}

#[test]
fn it_is_for_those_who_may_read_it() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let held = crate::object::DIRECTORY_RIGHTS - Rights::AUDIT;
    let directory = driver.made(a.number, derive(a.directory, held)).handle;
    let denial = driver.denied(a.number, request::ListAudit { directory, after: None });
    assert_eq!(denial, Denial::MissingRights { handle: directory, needed: Rights::AUDIT, held });
    driver.finish();
}

#[test]
fn it_is_bounded_and_refusals_push_out_no_grants() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    driver.audits = false;
    let before = log(&mut driver, a).len();
    let unknown = Handle::new(77, 1);
    for _ in 0..AUDIT_ENTRIES_MAX + 10 {
        driver.ask(b.number, derive(unknown, Rights::empty()));
        driver.ask(b.number, request::Delete { handle: unknown });
    }
    let entries = log(&mut driver, a);
    let is_refusal = |entry: &&AuditEntry| matches!(entry.verdict, Verdict::Refused { .. });
    assert_eq!(entries.iter().filter(is_refusal).count(), AUDIT_ENTRIES_MAX);
    assert_eq!(entries.len(), AUDIT_ENTRIES_MAX + before, "what was granted is still there");
    for _ in 0..AUDIT_ENTRIES_MAX {
        let handle = driver.made(b.number, derive(b.own, Rights::empty())).handle;
        driver.done(b.number, request::Delete { handle });
    }
    assert_eq!(log(&mut driver, a).len(), 2 * AUDIT_ENTRIES_MAX);
    driver.audits = true;
    driver.finish();
}
