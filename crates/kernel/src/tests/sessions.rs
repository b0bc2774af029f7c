//! Sessions: accounts, watching, confined children.

use keyway_abi::{Denial, Event, Handle, Kind, Reply, Rights, Terms, request, request::EscrowHow};

use super::driver::{Driver, HELLO, Joined, Who, derive, lost};
use crate::{Arrival, Descriptor, Identity, PairKind, limits::Charge, object::ProcessObject};

#[test]
fn a_welcome_says_who_the_process_is_and_what_it_holds() {
    let mut driver = Driver::new();
    let identity = driver.identity(1000);
    let pid = identity.pid;
    let arrival = Arrival { identity, own: Rights::all(), directory: Rights::LOOKUP };
    let number = driver.arrive_with(arrival).expect("room");
    let (reply, descriptors) = driver.ask_all(number, HELLO);
    let Reply::Welcome(start) = reply else { panic!("welcome: {reply:?}") };
    assert_eq!((start.process, start.pid, start.uid, start.gid), (number, pid, 1000, 1001));
    assert_eq!(descriptors, [Descriptor::Page(0)]);
    let held = driver.list(number);
    assert_eq!(held.len(), 2);
    assert_eq!((Some(held[0].handle), held[0].rights), (start.own, ProcessObject::POSSIBLE));
    assert_eq!((Some(held[1].handle), held[1].rights), (start.directory, Rights::LOOKUP));
    driver.finish();
}

#[test]
fn a_policy_that_gives_nothing_leaves_the_table_empty() {
    let mut driver = Driver::new();
    let identity = driver.identity(1000);
    let arrival = Arrival { identity, own: Rights::empty(), directory: Rights::SEND };
    let number = driver.arrive_with(arrival).expect("room");
    assert!(matches!(driver.ask(number, HELLO),
        Reply::Welcome(start) if start.own.is_none() && start.directory.is_none()));
    assert_eq!(driver.list(number), []);
    driver.finish();
}

#[test]
fn a_long_executable_path_is_cut_between_characters() {
    let mut driver = Driver::new();
    let mut identity = driver.identity(1000);
    identity.executable = "/ä".repeat(100);
    let number = driver.arrive(identity);
    driver.hello(number);
    let kept = driver.kernel.process(number).identity.as_ref().map(|identity| identity.executable.len());
    assert_eq!(kept, Some(127));
    driver.finish();
}

#[test]
fn all_sessions_of_a_process_share_one_account() {
    let mut driver = Driver::new();
    let identity = driver.identity(1000);
    let first = driver.arrive(identity.clone());
    let first = driver.hello(first);
    let second = driver.arrive(identity);
    let second = driver.hello(second);
    let other = driver.connect();
    let account = |driver: &Driver, who: Who| driver.kernel.process(who.number).account;
    assert_eq!(account(&driver, first), account(&driver, second));
    assert_ne!(account(&driver, first), account(&driver, other));
    let create = request::CreateRegion { bytes: 1 << 29, flags: request::RegionFlags::empty() };
    driver.made(first.number, create.clone());
    driver.made(second.number, create.clone());
    assert!(matches!(driver.denied(second.number, create.clone()), Denial::QuotaExceeded { .. }));
    driver.end(first.number);
    driver.made(second.number, create);
    driver.finish();
}

#[test]
fn quotas_are_given_back_exactly() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let accounts = [a, b].map(|who| driver.kernel.process(who.number).account);
    let before = accounts.map(|account| driver.kernel.accounts.used(account));
    let Joined { lane, queue, send, peer_handle, .. } = driver.lane(a, b);
    let (region, mapping, _) = driver.written_region(a);
    driver.ask(a.number, request::EscrowPut { lane, from: region, how: EscrowHow::Move });
    let service = driver.publish(b, queue, "service");
    driver.done(a.number, request::CloseLane { lane });
    driver.done(b.number, request::CloseLane { lane });
    driver.done(a.number, request::Unmap { mapping });
    driver.done(a.number, request::Delete { handle: send });
    for handle in [service, queue, peer_handle] {
        driver.done(b.number, request::Delete { handle });
    }
    let after = accounts.map(|account| driver.kernel.accounts.used(account));
    assert_eq!(before, after);
    assert_eq!(after[0], Charge { handles: 2, ..Charge::SESSION });
    driver.finish();
}

#[test]
fn a_watcher_is_told_once_for_each_capability_it_watches_through() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let first = driver.introduce(a, b, Rights::WATCH);
    let second = driver.introduce(a, b, Rights::WATCH);
    let third = driver.introduce(a, b, Rights::WATCH);
    for process in [first, second, third, first] {
        driver.done(b.number, request::Watch { process });
    }
    driver.done(b.number, request::Delete { handle: third });
    driver.end(a.number);
    let told = [first, second].map(|process| Event::ProcessEnded { process });
    assert_eq!(driver.events(b.number), told);
    driver.finish();
}

#[test]
fn who_watches_after_the_end_is_told_at_once() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let process = driver.introduce(a, b, Rights::WATCH);
    driver.end(a.number);
    assert_eq!(driver.events(b.number), []);
    driver.done(b.number, request::Watch { process });
    assert_eq!(driver.events(b.number), [Event::ProcessEnded { process }]);
    driver.finish();
}

#[test]
fn a_revoked_watcher_is_not_told_and_one_that_died_neither() {
    let mut driver = Driver::new();
    let (a, b, c) = (driver.connect(), driver.connect(), driver.connect());
    let held = driver.introduce(a, c, Rights::WATCH | Rights::GRANT | Rights::DERIVE);
    let process = driver.give(c, held, b, Rights::WATCH);
    driver.done(b.number, request::Watch { process });
    driver.done(c.number, request::Watch { process: held });
    driver.ask(c.number, request::Revoke { handle: held });
    assert_eq!(driver.events(b.number), [lost(process)]);
    driver.end(c.number);
    driver.end(a.number);
    assert_eq!(driver.events(b.number), []);
    driver.finish();
}

/// A confined child of `starter` that has not spoken, and the starter's handle of it.
fn start(driver: &mut Driver, starter: Who) -> (Who, Handle) {
    let (reply, descriptors) = driver.ask_all(starter.number, request::StartChild { process: starter.own });
    let Reply::Capability(created) = reply else { panic!("a child: {reply:?}") };
    assert_eq!(created.rights, ProcessObject::CHILD);
    let [Descriptor::PairEnd(number, PairKind::Session)] = descriptors[..] else { panic!("a socket") };
    (Who { number, own: Handle::NONE, directory: Handle::NONE }, created.handle)
}

#[test]
fn a_confined_child_has_what_its_starter_gave_it_and_nothing_else() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let queue = driver.queue(a, 1);
    let (child, handle) = start(&mut driver, a);
    let grant = request::Grant { from: queue, to: handle, terms: Terms::rights(Rights::SEND) };
    let given = driver.made(a.number, grant).handle;
    let identity = driver.identity(1000);
    driver.bind(child.number, identity);
    let reply = driver.ask(child.number, HELLO);
    assert!(matches!(reply, Reply::Welcome(start) if start.own.is_none() && start.directory.is_none()));
    let held = driver.list(child.number);
    assert_eq!(held.len(), 1);
    assert_eq!((held[0].handle, held[0].kind, held[0].rights), (given, Kind::Queue, Rights::SEND));
    driver.open(child, given);
    driver.done(a.number, request::Watch { process: handle });
    driver.end(child.number);
    assert!(driver.events(a.number).contains(&Event::ProcessEnded { process: handle }));
    driver.finish();
}

#[test]
fn a_bound_childs_charges_move_to_the_account_of_its_process() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let (child, handle) = start(&mut driver, a);
    let grant = request::Grant { from: a.directory, to: handle, terms: Terms::rights(Rights::LOOKUP) };
    driver.made(a.number, grant);
    let identity = driver.identity(1000);
    let other = driver.arrive(identity.clone());
    let other = driver.hello(other);
    driver.bind(child.number, identity.clone());
    let account = driver.kernel.process(child.number).account;
    assert_eq!(account, driver.kernel.process(other.number).account);
    assert_eq!(driver.kernel.accounts.used(account).handles, 3);
    driver.hello(child.number);
    driver.end(other.number);
    assert_eq!(driver.kernel.accounts.used(account).handles, 1);
    let elsewhere = Identity { account: (1, 1), ..identity };
    driver.bind(child.number, elsewhere);
    assert_eq!(driver.kernel.process(child.number).account, account, "bound once");
    driver.finish();
}

#[test]
fn a_child_that_never_speaks_can_be_ended() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let (child, handle) = start(&mut driver, a);
    driver.done(a.number, request::Watch { process: handle });
    driver.end(child.number);
    assert_eq!(driver.events(a.number), [Event::ProcessEnded { process: handle }]);
    let grant = request::Grant { from: a.own, to: handle, terms: Terms::rights(Rights::WATCH) };
    assert_eq!(driver.denied(a.number, grant), Denial::ProcessEnded { process: child.number });
    driver.finish();
}

#[test]
fn a_child_outlives_its_starter() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let (child, _) = start(&mut driver, a);
    driver.end(a.number);
    let identity = driver.identity(1000);
    driver.bind(child.number, identity);
    driver.hello(child.number);
    driver.made(b.number, derive(b.own, Rights::WATCH));
    assert_eq!(driver.list(child.number), []);
    driver.finish();
}
