//! What a process does against the protocol, and that it ends that session and no other.

use keyway_abi::{Farewell, Fault, Reply, request};

use super::driver::{Driver, HELLO, RING_BYTES, Who, name};
use crate::{Arrival, Door, Refusal, Token, object::ProcessObject};

fn ended_with(driver: &Driver, who: Who, fault: Fault) -> bool {
    driver.farewells.get(&who.number) == Some(&Some(Farewell::Fault(fault)))
}

#[test]
fn the_first_frame_is_a_hello() {
    let mut driver = Driver::new();
    let peer = driver.connect();
    let identity = driver.identity(1000);
    let number = driver.arrive(identity);
    let call = driver.post(number, request::ListOwn { after: keyway_abi::Handle::NONE });
    assert_eq!(driver.reply_to(number, call), None);
    assert_eq!(driver.farewells[&number], Some(Farewell::Fault(Fault::HelloMissing)));
    assert_eq!(driver.farewells.get(&peer.number), None, "nobody else notices");
    assert_eq!(driver.events(peer.number), []);
    driver.finish();
}

#[test]
fn hello_is_said_once() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let call = driver.post(a.number, HELLO);
    assert_eq!(driver.reply_to(a.number, call), None);
    assert!(ended_with(&driver, a, Fault::HelloRepeated));
    driver.finish();
}

#[test]
fn a_deposit_carries_one_descriptor_and_comes_in_at_its_door() {
    for (door, device, found) in
        [(Door::Deposit, None, 0), (Door::Control, None, 0), (Door::Control, Some(Token(1 << 40)), 1)]
    {
        let mut driver = Driver::new();
        let a = driver.connect();
        let call = driver.post_with(a.number, request::Deposit { label: name("card0") }, door, device);
        assert_eq!(driver.reply_to(a.number, call), None);
        assert!(ended_with(&driver, a, Fault::DepositEmpty { found }));
        assert!(driver.devices.is_empty(), "its descriptor is closed");
        driver.finish();
    }
}

#[test]
fn a_descriptor_beside_any_other_request_is_closed() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let token = Some(Token(1 << 40));
    let list = request::ListOwn { after: keyway_abi::Handle::NONE };
    let call = driver.post_with(a.number, list, Door::Deposit, token);
    assert!(matches!(driver.reply_to(a.number, call), Some(Reply::Listing(_))));
    assert!(driver.devices.is_empty());
    driver.finish();
}

#[test]
fn a_request_of_a_process_that_is_gone_or_not_bound_is_ignored() {
    let mut driver = Driver::new();
    let (a, gone) = (driver.connect(), driver.connect());
    driver.end(gone.number);
    driver.post_with(gone.number, HELLO, Door::Control, Some(Token(1 << 40)));
    assert!(driver.devices.is_empty(), "its descriptor is closed");
    let child = driver.ask_all(a.number, request::StartChild { process: a.own });
    let (Reply::Capability(_), descriptors) = child else { panic!("a child: {child:?}") };
    let [crate::Descriptor::PairEnd(number, _)] = descriptors[..] else { panic!("a socket") };
    let call = driver.post(number, HELLO);
    assert_eq!(driver.reply_to(number, call), None, "not before its first frame has told who it is");
    driver.finish();
}

#[test]
fn wrong_seals_end_the_session_that_declared_the_memory_mapped() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let joined = driver.lane(a, b);
    let opening = driver.ask(
        a.number,
        request::OpenLane { queue: joined.send, ring_bytes: RING_BYTES, priority: 0, huge: false },
    );
    let Reply::LaneOpening { lane, .. } = opening else { panic!("a lane: {opening:?}") };
    driver.hold = true;
    let call = driver.post(a.number, request::LaneMapped { lane });
    let fault = Fault::SealsWrong { found: 3, expected: 7 };
    driver.answer_next(Err(Refusal::Fault(fault)));
    assert_eq!(driver.reply_to(a.number, call), None);
    assert!(ended_with(&driver, a, fault));
    assert!(!driver.farewells.contains_key(&b.number));
    driver.finish();
}

#[test]
fn a_fault_while_a_child_starts_takes_the_child_along() {
    let mut driver = Driver::new();
    let a = driver.connect();
    driver.hold = true;
    driver.post(a.number, request::StartChild { process: a.own });
    driver.answer_next(Ok(()));
    driver.answer_next(Err(Refusal::Fault(Fault::SenderUnknown)));
    assert_eq!(driver.farewells.len(), 2);
    driver.finish();
}

#[test]
fn the_broker_can_end_a_session_once_with_its_reason() {
    let mut driver = Driver::new();
    let identity = driver.identity(1000);
    let arrival = Arrival { identity, own: ProcessObject::POSSIBLE, directory: keyway_abi::Rights::empty() };
    let number = driver.arrive_with(arrival).expect("room");
    let effects: alloc::vec::Vec<_> = driver.kernel.on_end(0, number, Some(Farewell::Stopping)).collect();
    assert!(
        effects.contains(&crate::Effect::EndSession { process: number, farewell: Some(Farewell::Stopping) })
    );
    assert_eq!(driver.kernel.on_end(0, number, None).count(), 0);
    assert!(driver.kernel.is_vacant());
}
