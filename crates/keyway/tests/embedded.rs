//! Everything within one process: a broker in a thread, and sessions of the same process as its peers.

#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{thread, time::Duration};

use keyway::{
    Audience, Badge, Carried, Client, DefaultActions, Denial, Embedded, Ending, Error, Incoming, Outgoing,
    Queue, QueueOptions, Rights, Sender, SenderOptions, SessionOptions, Signal, SignalSet, Signals,
};
use keyway_sys::socket;

const SOON: Duration = Duration::from_secs(5);

fn client(broker: &Embedded) -> Client {
    Client::over(broker.connect().unwrap()).unwrap()
}

fn lane(client: &Client) -> (Queue, Sender) {
    let queue = client.create_queue(QueueOptions::default()).unwrap();
    let capability = queue.sender_capability(Some(Badge(7))).unwrap();
    let sender = client.open_sender(&capability).unwrap();
    (queue, sender)
}

#[test]
fn a_message_arrives_with_its_senders_badge_and_identity() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let (mut queue, mut sender) = lane(&client);
    let message = Outgoing { message_type: 3, flags: 9, payload: b"hello", capabilities: &[] };
    sender.send_message(&message).unwrap();
    let message = queue.receive_timeout(SOON).unwrap();
    assert_eq!(message.payload, b"hello");
    assert_eq!((message.message_type, message.flags, message.badge), (3, 9, Some(Badge(7))));
    assert_eq!(message.sender.pid, std::process::id());
}

#[test]
fn a_full_lane_says_so_and_a_deadline_ends() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let queue = client.create_queue(QueueOptions::default()).unwrap();
    let capability = queue.sender_capability(None).unwrap();
    let options = SenderOptions { ring_bytes: 4096, ..SenderOptions::default() };
    let mut sender = client.open_sender_with(&capability, options).unwrap();
    let sent = (0..1000).take_while(|_| sender.try_send(&[0; 100]).is_ok()).count();
    assert_eq!(sent, 4096 / 120);
    assert!(matches!(sender.try_send(&[0; 100]), Err(Error::WouldBlock)));
    let short = Duration::from_millis(20);
    assert!(matches!(sender.send_timeout(&[0; 100], short), Err(Error::TimedOut(_))));
    assert!(matches!(sender.send(&[0; 5000]), Err(Error::MessageTooLarge { asked_bytes: 5000, .. })));
}

#[test]
fn threads_pass_many_messages_in_order_with_sleeping_and_spinning() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let (mut queue, mut sender) = lane(&client);
    let producer = thread::spawn(move || {
        for number in 0..100_000_u64 {
            sender.send(&number.to_le_bytes()).unwrap();
        }
        sender
    });
    for number in 0..100_000_u64 {
        let message = queue.receive_timeout(SOON).unwrap();
        assert_eq!(message.payload, number.to_le_bytes());
    }
    drop(producer.join().unwrap());
    assert!(matches!(queue.next_timeout(SOON).unwrap(), Incoming::Ended { .. }));
}

#[test]
fn a_call_is_answered_and_a_late_answer_is_dropped() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let mut queue = client.create_queue(QueueOptions::default()).unwrap();
    let name =
        client.publish("echo", queue.capability(), Rights::SEND | Rights::GRANT, Audience::Everyone).unwrap();
    let server = thread::spawn(move || {
        for answered in 0..3 {
            let message = queue.receive_timeout(SOON).unwrap();
            if answered == 1 {
                thread::sleep(Duration::from_millis(60));
            }
            let payload = [&message.payload[..], b"!"].concat();
            queue.reply(message.reply_to.unwrap(), &Outgoing::bytes(&payload)).unwrap();
        }
        queue
    });
    let capability = client.lookup("echo").unwrap();
    let mut caller = client.open_caller(&capability).unwrap();
    let answer = caller.call(&Outgoing::bytes(b"one"), SOON).unwrap();
    assert_eq!(answer.payload, b"one!");
    let late = caller.call(&Outgoing::bytes(b"two"), Duration::from_millis(10));
    assert!(matches!(late, Err(Error::TimedOut(_))));
    assert_eq!(caller.call(&Outgoing::bytes(b"three"), SOON).unwrap().payload, b"three!");
    drop((server.join().unwrap(), name));
    assert!(caller.call(&Outgoing::bytes(b"four"), SOON).unwrap_err().is_lane_end());
}

#[test]
fn a_capability_travels_in_a_message() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let (mut queue, mut sender) = lane(&client);
    let mut inbox = client.create_queue(QueueOptions::default()).unwrap();
    let carried = [Carried::Copy(inbox.capability(), Rights::SEND)];
    let message = Outgoing { payload: b"take this", capabilities: &carried, ..Outgoing::default() };
    sender.send_message(&message).unwrap();
    let mut message = queue.receive_timeout(SOON).unwrap();
    let capability = message.capabilities.pop().unwrap().unwrap();
    client.open_sender(&capability).unwrap().send(b"through it").unwrap();
    assert_eq!(inbox.receive_timeout(SOON).unwrap().payload, b"through it");
    let strong = [Carried::Copy(&capability, Rights::RECEIVE)];
    let refused = sender.send_message(&Outgoing { capabilities: &strong, ..Outgoing::default() });
    assert!(refused.unwrap_err().denial().is_some());
}

#[test]
fn revocation_ends_the_lane_and_drops_what_is_untaken() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let mut queue = client.create_queue(QueueOptions::default()).unwrap();
    let capability = queue.sender_capability(None).unwrap();
    let below = capability.derive(Rights::SEND, None).unwrap();
    let mut sender = client.open_sender(&below).unwrap();
    sender.send(b"taken").unwrap();
    assert_eq!(queue.receive_timeout(SOON).unwrap().payload, b"taken");
    sender.send(b"untaken").unwrap();
    assert_eq!(capability.revoke().unwrap(), 1);
    match queue.next_timeout(SOON).unwrap() {
        Incoming::Ended { why: Error::LaneEnded { ending: Ending::Revoked, .. }, .. } => {}
        other => panic!("expected the end of the lane, got {other:?}"),
    }
    match sender.send(b"after") {
        Err(Error::LaneEnded { ending: Ending::Revoked, acknowledged: 1, sent: 2 }) => {}
        other => panic!("expected a refusal, got {other:?}"),
    }
    let denied = client.open_sender(&below).unwrap_err();
    assert!(matches!(denied.denial(), Some(Denial::StaleHandle { .. })));
}

#[test]
fn a_region_has_one_writer_and_its_readers_see_it() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let region = client.create_region(10_000).unwrap();
    assert!(matches!(client.map_reader(&region).unwrap_err().denial(), Some(Denial::RegionUnwritten)));
    let writer = client.map_writer(&region).unwrap();
    assert_eq!(writer.len_bytes(), 12_288);
    assert!(matches!(client.map_writer(&region).unwrap_err().denial(), Some(Denial::WriterTaken)));
    let reader = client.map_reader(&region).unwrap();
    writer.write(9_990, b"at the end").unwrap();
    let mut bytes = [0; 10];
    reader.read(9_990, &mut bytes).unwrap();
    assert_eq!(&bytes, b"at the end");
    assert!(reader.read(12_288, &mut bytes).is_err());
}

#[test]
fn a_device_is_deposited_claimed_and_gone_with_its_depositor() {
    let broker = Embedded::start().unwrap();
    let (bridge, user) = (client(&broker), client(&broker));
    let (mut reading, writing) = std::io::pipe().unwrap();
    let device = bridge.open_depositor().unwrap().deposit("pipe", &writing).unwrap();
    drop(writing);
    let mut queue = user.create_queue(QueueOptions::default()).unwrap();
    let name = user.publish("q", queue.capability(), Rights::SEND, Audience::Everyone).unwrap();
    let mut sender = bridge.open_sender(&bridge.lookup("q").unwrap()).unwrap();
    let carried = [Carried::Copy(&device, Rights::CLAIM)];
    sender.send_message(&Outgoing { capabilities: &carried, ..Outgoing::default() }).unwrap();
    let claimed = queue.receive_timeout(SOON).unwrap().capabilities.pop().unwrap().unwrap();
    let mut file = std::fs::File::from(claimed.claim().unwrap());
    std::io::Write::write_all(&mut file, b"x").unwrap();
    drop(file);
    device.delete().unwrap();
    assert!(matches!(claimed.claim().unwrap_err().denial(), Some(Denial::StaleHandle { .. })));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut reading, &mut text).unwrap();
    assert_eq!(text, "x");
    drop(name);
}

#[test]
fn a_broker_that_stops_says_so() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    drop(broker);
    let error = client.create_queue(QueueOptions::default()).unwrap_err();
    assert!(matches!(error, Error::SessionEnded(_)), "{error}");
}

#[test]
fn nobody_at_the_socket_is_told_with_what_to_do() {
    let error = Client::connect_to("/nonexistent/keyway.sock".as_ref()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("/nonexistent/keyway.sock") && text.contains("keyway serve"), "{text}");
}

#[test]
fn a_broker_in_a_thread_acts_on_its_own_process_for_nobody() {
    let broker = Embedded::start().unwrap();
    let options = SessionOptions { default_actions: DefaultActions::Accepted };
    let client = Client::over_with(broker.connect().unwrap(), options).unwrap();
    let own = client.own_process().unwrap();
    for signal in [Signal::CONT, Signal::STOP, Signal::TERM] {
        let error = own.raise(signal, 0).unwrap_err();
        assert_eq!(error.denial(), Some(&Denial::Unsupported { signal }));
    }
}

#[test]
fn signals_are_heard_of_also_when_somebody_else_has_read_the_news() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let own = client.own_process().unwrap();
    let mut signals = client.signals().unwrap();
    let other = client.signals().unwrap();
    signals.on(Signal::USR1, |_| {}).unwrap();
    assert_eq!((signals.dispatch().unwrap(), other.try_wait(Signal::USR2).unwrap()), (0, None));
    let is_ready = |signals: &Signals| socket::wait_readable(signals, Some(Duration::ZERO)).unwrap();
    assert!(!is_ready(&signals) && !is_ready(&other));
    own.raise(Signal::USR1, 1).unwrap();
    // This reads every event that has come.
    client.take_notices().unwrap();
    assert!(is_ready(&signals) && is_ready(&other));
    assert_eq!(signals.dispatch().unwrap(), 1);
    assert!(!is_ready(&signals));
    assert_eq!(other.try_wait(SignalSet::ALL).unwrap(), None);
    assert!(!is_ready(&other));
}

#[test]
fn two_threads_that_wait_for_two_signals_each_get_their_own() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    client.signals().unwrap().block(SignalSet::ALL).unwrap();
    let own = client.own_process().unwrap();
    let wait = |number: u8| {
        let (client, signal) = (client.clone(), Signal::new(number).unwrap());
        thread::spawn(move || {
            let signals = client.signals().unwrap();
            (0..200).map(|_| signals.wait(signal, SOON).unwrap().value).collect::<Vec<_>>()
        })
    };
    let waits = [40, 41].map(wait);
    for value in 0..200 {
        for number in [40, 41] {
            let signal = Signal::new(number).unwrap();
            while own.raise(signal, value).is_err() {
                thread::yield_now();
            }
        }
    }
    for wait in waits {
        assert_eq!(wait.join().unwrap(), (0..200).collect::<Vec<_>>());
    }
}
