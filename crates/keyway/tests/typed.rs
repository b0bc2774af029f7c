//! Messages that are values.

#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use keyway::{Client, Embedded, Queue, QueueOptions, Sender};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::little_endian::U32};

fn lane() -> (Embedded, Client, Queue, Sender) {
    let broker = Embedded::start().unwrap();
    let client = Client::over(broker.connect().unwrap()).unwrap();
    let queue = client.create_queue(QueueOptions::default()).unwrap();
    let sender = client.open_sender(&queue.sender_capability(None).unwrap()).unwrap();
    (broker, client, queue, sender)
}

/// A position, as both sides mean it.
#[derive(Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Position {
    x: U32,
    y: U32,
    name: [u8; 3],
}

#[test]
fn a_serialised_value_arrives_and_lends_its_text() {
    let (_broker, _client, mut queue, mut sender) = lane();
    let value: BTreeMap<String, Vec<i64>> =
        [("one".to_owned(), vec![1, -1]), ("two".to_owned(), vec![])].into();
    sender.send_value(&value).unwrap();
    assert_eq!(queue.receive().unwrap().value::<BTreeMap<String, Vec<i64>>>().unwrap(), value);
    sender.send_value(&(9_u8, "text", [1_u16, 2])).unwrap();
    let received = queue.receive_ref().unwrap();
    let (number, text, pair): (u8, &str, [u16; 2]) = received.value().unwrap();
    assert_eq!((number, text, pair), (9, "text", [1, 2]));
    let inside = received.payload.as_ptr_range().contains(&text.as_ptr());
    assert!(inside, "the text is the message's own");
}

#[test]
fn a_plain_value_is_read_where_it_lies() {
    let (_broker, _client, mut queue, mut sender) = lane();
    let sent = Position { x: U32::new(3), y: U32::new(u32::MAX), name: *b"abc" };
    sender.send_plain(&sent).unwrap();
    let received = queue.receive_ref().unwrap();
    let position: &Position = received.plain().unwrap();
    assert_eq!(position, &sent);
    assert_eq!(std::ptr::from_ref(position).cast(), received.payload.as_ptr());
    sender.send_plain(&[1_u64, u64::MAX]).unwrap();
    assert_eq!(queue.receive_ref().unwrap().read_plain::<[u64; 2]>().unwrap(), [1, u64::MAX]);
    sender.send_plain(&[sent.x, sent.y][..]).unwrap();
    let message = queue.receive().unwrap();
    assert_eq!(message.plain::<[U32]>().unwrap().len(), 2);
}
