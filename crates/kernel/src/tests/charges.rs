//! What each thing costs, in figures, and whom.

use keyway_abi::{
    Rights, Terms,
    request::{self, EscrowHow, MapAccess},
};

use super::driver::{Driver, Who, derive, name};
use crate::{Door, Token, limits::Charge};

const NOTHING: Charge = Charge::NOTHING;

/// What `step` adds to what two processes are charged.
fn cost<T>(driver: &mut Driver, whom: [Who; 2], step: impl FnOnce(&mut Driver) -> T) -> (T, [Charge; 2]) {
    let accounts = whom.map(|who| driver.kernel.process(who.number).account);
    let used = |driver: &Driver| accounts.map(|account| driver.kernel.accounts.used(account));
    let before = used(driver);
    let made = step(driver);
    let [one, other] = used(driver);
    (made, [one.minus(before[0]), other.minus(before[1])])
}

#[test]
fn what_a_process_makes_is_charged_to_it() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let both = [a, b];
    let (_, paid) = cost(&mut driver, both, |driver| driver.made(a.number, derive(a.own, Rights::WATCH)));
    assert_eq!(paid, [Charge { handles: 1, derivations: 1, ..NOTHING }, NOTHING], "a capability");
    let (region, paid) = cost(&mut driver, both, |driver| driver.region(a));
    let expected = Charge { handles: 1, objects: 1, descriptors: 1, bytes: 8192, ..NOTHING };
    assert_eq!(paid, [expected, NOTHING], "a region");
    let (_, paid) = cost(&mut driver, both, |driver| driver.map(a, region, MapAccess::Write));
    assert_eq!(paid, [Charge { mappings: 1, ..NOTHING }, NOTHING], "a mapping");
    let (queue, paid) = cost(&mut driver, both, |driver| driver.queue(a, 0));
    assert_eq!(paid, [Charge { handles: 1, objects: 1, ..NOTHING }, NOTHING], "a queue");
    let (_, paid) =
        cost(&mut driver, both, |driver| driver.ask(a.number, request::TopUp { queue, count: 3 }));
    assert_eq!(paid, [Charge { descriptors: 3, bytes: 3 * 4096, ..NOTHING }, NOTHING], "its stock");
    let (_, paid) = cost(&mut driver, both, |driver| driver.publish(a, queue, "service"));
    assert_eq!(paid, [Charge { handles: 1, objects: 1, names: 1, ..NOTHING }, NOTHING], "a name");
    let deposit = request::Deposit { label: name("card0") };
    let token = Some(Token(1 << 40));
    let (_, paid) =
        cost(&mut driver, both, |driver| driver.post_with(a.number, deposit, Door::Deposit, token));
    let expected = Charge { handles: 1, objects: 1, descriptors: 1, ..NOTHING };
    assert_eq!(paid, [expected, NOTHING], "a device");
    driver.finish();
}

#[test]
fn a_lane_of_huge_pages_costs_whole_ones() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(b, 1);
    let send = driver.give(b, queue, a, Rights::SEND);
    let open = request::OpenLane { queue: send, ring_bytes: 4096, priority: 0, huge: true };
    let (_, paid) = cost(&mut driver, [a, b], |driver| driver.ask(a.number, open));
    let sender = Charge { lanes: 1, descriptors: 1, bytes: 2 << 20, ..NOTHING };
    let receiver = Charge { lanes: 1, ..NOTHING };
    assert_eq!(paid, [sender, receiver]);
    driver.finish();
}

#[test]
fn both_ends_pay_for_a_lane_and_the_sender_for_what_it_sends() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(b, 1);
    let send = driver.give(b, queue, a, Rights::SEND);
    let ((lane, _), paid) = cost(&mut driver, [a, b], |driver| driver.open(a, send));
    let sender = Charge { lanes: 1, descriptors: 1, bytes: 4096 + 4096, ..NOTHING };
    let receiver = Charge { lanes: 1, handles: 1, ..NOTHING };
    assert_eq!(paid, [sender, receiver], "a lane, and the receiver's capability to its sender");
    let put = request::EscrowPut { lane, from: a.own, how: EscrowHow::Copy(Terms::rights(Rights::WATCH)) };
    let (_, paid) = cost(&mut driver, [a, b], |driver| driver.ask(a.number, put));
    let expected = Charge { handles: 1, derivations: 1, ..NOTHING };
    assert_eq!(paid, [expected, NOTHING], "a capability in a message");
    driver.finish();
}
