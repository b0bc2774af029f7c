//! Doorbells of this library: sessions of one process, and a broker in a thread.

use std::{
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};

use keyway_abi::{Rights, request::Audience};
use keyway_broker::Embedded;
use keyway_sys::doorbell::{self, Rung};

use super::*;
use crate::{
    client::Client,
    queue::{Queue, QueueOptions},
    sender::Sender,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn client(broker: &Embedded) -> Client {
    Client::over(broker.connect().unwrap()).unwrap()
}

/// A queue of one session, and a lane of the other into it.
fn lane(from: &Client, to: &Client) -> (Queue, Sender) {
    let queue = to.create_queue(QueueOptions::default()).unwrap();
    let name = format!("org.example.of-{}", queue.object());
    let published = to.publish(&name, queue.capability(), Rights::SEND, Audience::Everyone).unwrap();
    let found = from.lookup(&name).unwrap();
    published.delete().unwrap();
    let sender = from.open_sender(&found).unwrap();
    (queue, sender)
}

/// Waits until a doorbell is there, or is not.
fn settle(control: &Control, peer: ProcessNumber, there: bool) -> Option<Bell> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = control.events_seen();
        control.pump().unwrap();
        let bell = control.bell(peer);
        if bell.is_some() == there {
            return bell;
        }
        assert!(Instant::now() < deadline, "a doorbell to {peer} is there: {}", !there);
        let _ = keyway_sys::futex::wait(&[(control.event_word(), seen)], Duration::from_millis(100));
    }
}

#[test]
fn either_side_makes_it_and_each_rings_the_other() {
    let broker = Embedded::start().unwrap();
    let (one, other) = (client(&broker), client(&broker));
    let (queue, sender) = lane(&one, &other);
    assert_eq!(sender.peer(), other.process_number());
    assert!(one.control.bell(sender.peer()).is_none());
    assert_eq!(one.control.doorbell(sender.lane()).unwrap(), other.process_number());
    let ours = one.control.bell(other.process_number()).unwrap();
    let theirs = settle(&other.control, one.process_number(), true).unwrap();
    let waiter = thread::spawn(move || {
        assert!(socket::wait_readable(&theirs.hears, Some(PATIENCE)).unwrap());
        let mut lanes = Vec::new();
        assert!(!doorbell::drain(&theirs.hears, &mut lanes).unwrap().may_be_more);
        assert_eq!(doorbell::ring(&theirs.rings, 9).unwrap(), Rung::Named);
        lanes
    });
    assert_eq!(doorbell::ring(&ours.rings, sender.lane().0).unwrap(), Rung::Named);
    assert_eq!(waiter.join().unwrap(), [sender.lane().0]);
    let mut lanes = Vec::new();
    let _ = doorbell::drain(&ours.hears, &mut lanes).unwrap();
    assert_eq!(lanes, [9]);
    assert_eq!(other.control.doorbell(sender.lane()).ok(), Some(one.process_number()), "it is there already");
    drop((sender, queue));
    settle(&one.control, other.process_number(), false);
    settle(&other.control, one.process_number(), false);
}

#[test]
fn a_session_that_sends_to_itself_rings_itself() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let (mut queue, sender) = lane(&client, &client);
    assert!(queue.try_next().unwrap().is_some());
    let own = client.process_number();
    assert_eq!(client.control.doorbell(sender.lane()).unwrap(), own);
    let bell = settle(&client.control, own, true).unwrap();
    assert_eq!(doorbell::ring(&bell.rings, 3).unwrap(), Rung::Named);
    let mut lanes = Vec::new();
    let _ = doorbell::drain(&bell.hears, &mut lanes).unwrap();
    assert_eq!(lanes, [3]);
}

/// Whoever can make the broker send a descriptor must not end the session of a process that may have no more of them.
#[test]
fn an_event_whose_descriptor_was_lost_is_an_event_without_one() {
    let pair = socket::seqpacket_pair(socket::PairUse::Session).unwrap();
    let bytes = keyway_wire::encode_event(&Event::Doorbell { peer: ProcessNumber(3) }, 1).unwrap();
    // More come than are wanted, which is told as those that there is no room for.
    let many = vec![pair.broker_end.as_fd(); FRAME_DESCRIPTORS_MAX + 1];
    let _ = frame::send_frame(&pair.broker_end, &bytes, &many, Waiting::DontWait).unwrap();
    let mut line = Line { last_number: 0, buffer: Box::new([0; FRAME_BYTES_MAX]) };
    let Some((Incoming::Event(event), descriptors)) = line.receive(&pair.client_end).unwrap() else {
        panic!("an event")
    };
    assert_eq!((event, descriptors.len()), (Event::Doorbell { peer: ProcessNumber(3) }, 0));
}

#[test]
fn a_doorbell_that_its_peer_has_closed_is_let_go() {
    let broker = Embedded::start().unwrap();
    let (one, other) = (client(&broker), client(&broker));
    let (_queue, sender) = lane(&one, &other);
    one.control.doorbell(sender.lane()).unwrap();
    settle(&other.control, one.process_number(), true);
    other.control.drop_bell(one.process_number());
    let bell = one.control.bell(other.process_number()).unwrap();
    assert_eq!(doorbell::ring(&bell.rings, 3).unwrap(), Rung::Closed);
    one.control.drop_bell(other.process_number());
    assert!(one.control.bell(other.process_number()).is_none());
}
