//! Lanes that are opened between the receiver's look at its events and its look at the lanes, on a real queue.

use std::time::Duration;

use keyway_abi::{QueueOrder, Rights, request::Audience};
use keyway_broker::Embedded;

use super::*;
use crate::{
    client::Client,
    queue::{Incoming, QueueOptions},
    sender::Sender,
};

const SOON: Duration = Duration::from_secs(5);

/// A queue that has one lane and does not know of the second, on which something was sent before it was on the first.
fn with_news(test: impl FnOnce(&mut Queue, [&mut Sender; 2])) {
    let broker = Embedded::start().expect("a broker");
    let [here, there] =
        [(); 2].map(|()| Client::over(broker.connect().expect("a socket")).expect("a session"));
    let options = QueueOptions { order: QueueOrder::Arrival, ..QueueOptions::default() };
    let mut queue = here.create_queue(options).expect("a queue");
    let name = here.publish("news", queue.capability(), Rights::SEND, Audience::Everyone);
    let capability = there.lookup("news").expect("it is there");
    let open = || there.open_sender(&capability).expect("a lane");
    let mut known = open();
    assert!(matches!(queue.next_timeout(SOON), Ok(Incoming::Opened(_))));
    let mut new = open();
    new.send(b"first").expect("room");
    known.send(b"second").expect("room");
    test(&mut queue, [&mut known, &mut new]);
    drop(name);
}

#[test]
fn lanes_are_taken_in_when_it_is_looked_whose_turn_it_is() {
    with_news(|queue, [_, new]| {
        let slot = queue.next_lane();
        assert!(slot.is_some());
        assert_eq!(slot, queue.lanes.slot(new.lane()));
    });
}

#[test]
fn a_lane_that_was_taken_in_then_is_told_before_its_message() {
    with_news(|queue, [_, new]| {
        assert!(matches!(queue.take_next(usize::MAX), Ok(None)));
        assert!(matches!(queue.try_next(), Ok(Some(Incoming::Opened(peer))) if peer.lane == new.lane()));
        let payloads = [(); 2].map(|()| queue.try_receive().expect("a message").payload);
        assert_eq!(payloads, [&b"first"[..], b"second"]);
    });
}

/// A queue that has not yet taken a lane in does not say that there is nothing.
#[test]
fn what_comes_on_a_lane_that_was_taken_in_then_is_received_at_once() {
    with_news(|queue, [known, _]| {
        assert_eq!(queue.try_receive_ref().expect("a message").payload, b"first");
        assert_eq!(queue.receive_into(&mut [0; 9]).expect("a message"), 6);
        drop(known.send(b"third"));
        assert_eq!(queue.try_receive().expect("a message").payload, b"third");
    });
}
