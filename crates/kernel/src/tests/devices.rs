//! Devices: handed in, claimed, and their end.

use alloc::vec;

use keyway_abi::{Created, Denial, Handle, Kind, Reply, Rights, Terms, Ticket, request, request::EscrowHow};

use super::driver::{Driver, Joined, Who, lost, name};
use crate::{Descriptor, Door, PairKind, Token};

const CARD: Token = Token(1 << 40);

fn deposit(driver: &mut Driver, who: Who, token: Token) -> Handle {
    let request = request::Deposit { label: name("card0") };
    let call = driver.post_with(who.number, request, Door::Deposit, Some(token));
    let reply = driver.reply_to(who.number, call);
    let Some(Reply::Capability(Created { handle, .. })) = reply else { panic!("a device: {reply:?}") };
    handle
}

#[test]
fn a_deposit_socket_comes_with_the_right() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let reply = driver.ask_all(a.number, request::OpenDeposit { process: a.own });
    assert_eq!(reply, (Reply::Done, vec![Descriptor::PairEnd(a.number, PairKind::Deposit)]));
    driver.finish();
}

#[test]
fn a_device_is_claimed_by_whom_it_was_given_to() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let device = deposit(&mut driver, a, CARD);
    let entry = driver.list(a.number).pop().expect("the device");
    assert_eq!((entry.kind, entry.label), (Kind::Device, Some(name("card0"))));
    let claim = driver.give(a, device, b, Rights::CLAIM);
    let reply = driver.ask_all(b.number, request::Claim { device: claim });
    assert_eq!(reply, (Reply::Done, vec![Descriptor::Device(CARD)]));
    let bare = driver.give(a, device, b, Rights::empty());
    let missing = Denial::MissingRights { handle: bare, needed: Rights::CLAIM, held: Rights::empty() };
    assert_eq!(driver.denied(b.number, request::Claim { device: bare }), missing);
    driver.finish();
}

#[test]
fn a_device_ends_with_its_depositor() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let device = deposit(&mut driver, a, CARD);
    let claim = driver.give(a, device, b, Rights::CLAIM);
    driver.end(a.number);
    assert!(driver.devices.is_empty());
    assert_eq!(driver.events(b.number), [lost(claim)]);
    let stale = driver.denied(b.number, request::Claim { device: claim });
    assert_eq!(stale, Denial::StaleHandle { handle: claim });
    driver.finish();
}

#[test]
fn a_device_ends_when_its_first_capability_is_deleted() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let device = deposit(&mut driver, a, CARD);
    driver.give(a, device, b, Rights::CLAIM);
    driver.done(a.number, request::Delete { handle: device });
    assert!(driver.devices.is_empty());
    assert_eq!(driver.events(b.number).len(), 1);
    driver.finish();
}

/// The depositor moves the capability that it got to another process.
fn moved(driver: &mut Driver) -> (Who, Who, Joined, Handle) {
    let (a, b) = (driver.connect(), driver.connect());
    let joined = driver.lane(a, b);
    let device = deposit(driver, a, CARD);
    let put = request::EscrowPut { lane: joined.lane, from: device, how: EscrowHow::Move };
    let reply = driver.ask(a.number, put);
    let Reply::Ticket(ticket) = reply else { panic!("a ticket: {reply:?}") };
    let reply = driver.ask(b.number, request::EscrowTake { lane: joined.lane, ticket });
    let Reply::Taken(entry) = reply else { panic!("a device: {reply:?}") };
    (a, b, joined, entry.handle)
}

#[test]
fn a_moved_device_ends_with_either_process() {
    for depositor_first in [true, false] {
        let mut driver = Driver::new();
        let (a, b, _, device) = moved(&mut driver);
        let rights = Rights::CLAIM | Rights::DERIVE;
        let child =
            driver.made(b.number, request::Derive { from: device, terms: Terms::rights(rights) }).handle;
        driver.ask(b.number, request::Claim { device: child });
        if depositor_first {
            driver.end(a.number);
            let told = driver.events(b.number);
            assert!(told.contains(&lost(device)), "{told:?}");
            assert!(told.contains(&lost(child)), "{told:?}");
        } else {
            driver.end(b.number);
        }
        assert!(driver.devices.is_empty());
        driver.finish();
    }
}

#[test]
fn a_moved_device_that_is_deleted_or_left_in_escrow_ends() {
    let mut driver = Driver::new();
    let (_, b, _, device) = moved(&mut driver);
    driver.done(b.number, request::Delete { handle: device });
    assert!(driver.devices.is_empty());
    driver.finish();

    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { lane, .. } = driver.lane(a, b);
    let device = deposit(&mut driver, a, CARD);
    driver.ask(a.number, request::EscrowPut { lane, from: device, how: EscrowHow::Move });
    driver.done(b.number, request::CloseLane { lane });
    assert!(driver.devices.is_empty());
    let told = driver.events(a.number);
    assert!(told.contains(&lost(device)), "{told:?}");
    driver.finish();
}

#[test]
fn a_device_that_ends_takes_its_other_capabilities_out_of_the_same_lane() {
    for takes in [true, false] {
        let mut driver = Driver::new();
        let (a, b) = (driver.connect(), driver.connect());
        let Joined { lane, .. } = driver.lane(a, b);
        let device = deposit(&mut driver, a, CARD);
        let child = request::Derive { from: device, terms: Terms::rights(Rights::CLAIM | Rights::GRANT) };
        let child = driver.made(a.number, child).handle;
        for from in [device, child] {
            driver.ask(a.number, request::EscrowPut { lane, from, how: EscrowHow::Move });
        }
        if takes {
            // Taking the second drops the first, with which the device ends.
            let reply = driver.ask(b.number, request::EscrowTake { lane, ticket: Ticket(2) });
            let Reply::Taken(entry) = reply else { panic!("taken: {reply:?}") };
            assert!(driver.events(b.number).contains(&lost(entry.handle)));
        } else {
            driver.done(b.number, request::CloseLane { lane });
        }
        assert!(driver.devices.is_empty());
        driver.finish();
    }
}
