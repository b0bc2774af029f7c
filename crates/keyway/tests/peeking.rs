//! A look at the next message that leaves it where it is, and the forms of each call that do not wait or not for ever.

#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use keyway::{
    Badge, Carried, Client, Embedded, Error, Incoming, Outgoing, PoolOptions, Queue, QueueOptions,
    QueueOrder, Rights, Sender, SenderOptions, WaitStyle,
};

const SOON: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(20);

struct Scene {
    _broker: Embedded,
    client: Client,
    queue: Queue,
    sender: Sender,
}

fn scene(options: QueueOptions) -> Scene {
    let broker = Embedded::start().unwrap();
    let client = Client::over(broker.connect().unwrap()).unwrap();
    let queue = client.create_queue(options).unwrap();
    let capability = queue.sender_capability(Some(Badge(7))).unwrap();
    let options = SenderOptions { ring_bytes: Some(4096), ..SenderOptions::default() };
    let sender = client.open_sender_with(&capability, options).unwrap();
    Scene { _broker: broker, client, queue, sender }
}

#[test]
fn what_was_peeked_is_what_is_received_next() {
    for order in [QueueOrder::Fair, QueueOrder::Priority, QueueOrder::Arrival] {
        let Scene { _broker, mut queue, mut sender, .. } =
            scene(QueueOptions { order, ..Default::default() });
        assert!(matches!(queue.try_peek(), Err(Error::WouldBlock)));
        assert!(matches!(queue.peek_timeout(SHORT), Err(Error::TimedOut(_))));
        let message = Outgoing { message_type: 3, flags: 9, ..Outgoing::bytes(b"first") };
        sender.send_message(&message).unwrap();
        sender.send(b"second").unwrap();
        for _ in 0..3 {
            let peeked = queue.peek().unwrap();
            assert_eq!((peeked.payload, peeked.payload_bytes), (Some(&b"first"[..]), 5));
            assert_eq!((peeked.message_type, peeked.flags, peeked.badge), (3, 9, Some(Badge(7))));
            assert_eq!((peeked.capabilities, peeked.segments, peeked.is_call), (0, 0, false));
            assert_eq!(peeked.lane, sender.lane());
        }
        assert_eq!(sender.acknowledged().messages, 0, "it was not taken");
        // That the lane was opened is told still.
        assert!(matches!(queue.try_next().unwrap(), Some(Incoming::Opened(_))));
        assert_eq!(queue.receive().unwrap().payload, b"first");
        assert_eq!(queue.peek_timeout(SOON).unwrap().payload, Some(&b"second"[..]));
        assert_eq!(queue.try_receive_ref().unwrap().payload, b"second");
        assert!(matches!(queue.try_peek(), Err(Error::WouldBlock)));
        // The end of a lane that a look finds is told to whoever asks for news.
        let lane = sender.lane();
        drop(sender);
        assert!(matches!(queue.peek_timeout(SHORT), Err(Error::TimedOut(_))));
        let Incoming::Ended { lane: ended, .. } = queue.next_timeout(SOON).unwrap() else {
            panic!("its end")
        };
        assert_eq!(ended, lane);
    }
}

#[test]
fn a_look_tells_what_comes_beside_the_bytes_and_takes_none_of_it() {
    let Scene { _broker, client, mut queue, mut sender } = scene(QueueOptions::default());
    let pool = client.create_pool(PoolOptions { bytes: 1 << 20, ..PoolOptions::default() }).unwrap();
    let block = pool.loan(100).unwrap().share();
    let other = client.create_queue(QueueOptions::default()).unwrap();
    let given = other.sender_capability(None).unwrap();
    let carried = [Carried::Copy(&given, Rights::SEND)];
    let message = Outgoing { capabilities: &carried, ..Outgoing::bytes(b"beside") };
    sender.send_segments(&message, &[block.whole(), block.part(1..2)]).unwrap();
    for _ in 0..2 {
        let peeked = queue.peek().unwrap();
        assert_eq!((peeked.payload, peeked.payload_bytes), (Some(&b"beside"[..]), 6));
        assert_eq!((peeked.capabilities, peeked.segments), (1, 2));
    }
    let message = queue.receive().unwrap();
    assert_eq!((message.segments.len(), message.capabilities.len()), (2, 1));
    assert!(message.capabilities[0].is_ok());

    // A payload that comes through a pool is not here yet.
    sender.send(&[5; 10_000]).unwrap();
    let peeked = queue.peek().unwrap();
    assert_eq!((peeked.payload, peeked.payload_bytes, peeked.segments), (None, 10_000, 0));
    assert_eq!(queue.receive().unwrap().payload, [5; 10_000]);
}

#[test]
fn a_call_is_peeked_without_its_number_and_answered_once() {
    let Scene { _broker, client, mut queue, .. } = scene(QueueOptions::default());
    let mut caller = client.open_caller(&queue.sender_capability(None).unwrap()).unwrap();
    let asked = std::thread::spawn(move || caller.call(&Outgoing::bytes(b"what?"), SOON).unwrap().payload);
    let peeked = queue.peek_timeout(SOON).unwrap();
    assert_eq!((peeked.payload, peeked.is_call, peeked.capabilities), (Some(&b"what?"[..]), true, 0));
    let call = queue.receive_timeout(SOON).unwrap();
    queue.reply(call.reply_to.unwrap(), &Outgoing::bytes(b"that")).unwrap();
    assert_eq!(asked.join().unwrap(), b"that");
}

#[test]
fn each_call_that_waits_has_a_form_that_does_not_and_one_with_a_deadline() {
    let Scene { _broker, client, mut queue, mut sender } = scene(QueueOptions::default());
    let mut buffer = [0; 3000];
    assert!(matches!(queue.try_receive_into(&mut buffer), Err(Error::WouldBlock)));
    assert!(
        matches!(queue.receive_into_timeout(&mut buffer, SHORT), Err(Error::TimedOut(at)) if at == SHORT)
    );

    let other = client.create_queue(QueueOptions::default()).unwrap();
    let given = other.sender_capability(None).unwrap();
    let carried = [Carried::Move(&given)];
    let filling = Outgoing::bytes(&[1; 1500]);
    while sender.try_send_message(&filling).is_ok() {}
    let large = Outgoing { capabilities: &carried, ..filling };
    assert!(matches!(sender.try_send_message(&large), Err(Error::WouldBlock)));
    assert!(matches!(sender.send_message_timeout(&large, SHORT), Err(Error::TimedOut(_))));
    let value = vec![3_u8; 1500];
    assert!(matches!(sender.try_send_value(&value), Err(Error::WouldBlock)));
    assert!(matches!(sender.send_value_timeout(&value, SHORT), Err(Error::TimedOut(_))));
    assert!(matches!(sender.try_send_plain(&value[..]), Err(Error::WouldBlock)));
    assert!(matches!(sender.send_plain_timeout(&value[..], SHORT), Err(Error::TimedOut(_))));

    assert!(matches!(
        queue.try_receive_into(&mut buffer[..10]),
        Err(Error::BufferTooSmall { needed_bytes: 1500, given_bytes: 10 })
    ));
    while let Ok(len) = queue.try_receive_into(&mut buffer) {
        assert_eq!(buffer[..len], [1; 1500]);
    }
    // What could not go is still here to be sent, and goes.
    sender.try_send_message(&large).unwrap();
    assert_eq!(queue.receive_into_timeout(&mut buffer, SOON).unwrap(), 1500);
    sender.try_send_value(&value).unwrap();
    assert_eq!(queue.receive().unwrap().value::<Vec<u8>>().unwrap(), value);
    sender.send_value_timeout(&value, SOON).unwrap();
    assert_eq!(queue.receive().unwrap().value::<Vec<u8>>().unwrap(), value);
    sender.try_send_plain(&value[..]).unwrap();
    sender.send_plain_timeout(&value[..], SOON).unwrap();
    assert_eq!(queue.receive().unwrap().plain::<[u8]>().unwrap(), value);
}

#[test]
fn a_queue_says_how_large_a_payload_it_takes() {
    const MAX: usize = 100_000;
    let options = QueueOptions { payload_bytes_max: MAX as u32, ..QueueOptions::default() };
    let Scene { _broker, mut queue, mut sender, .. } = scene(options);
    match sender.send(&vec![1; MAX + 1]) {
        Err(Error::MessageTooLarge { asked_bytes, bytes_max }) => {
            assert_eq!((asked_bytes, bytes_max), (MAX + 1, MAX));
        }
        sent => panic!("{sent:?}"),
    }
    sender.send(&vec![2; MAX]).unwrap();
    assert_eq!(queue.receive().unwrap().payload, vec![2; MAX]);

    // None at all; its rings are as they are.
    let options = QueueOptions { payload_bytes_max: 0, ..QueueOptions::default() };
    let Scene { _broker, mut queue, mut sender, .. } = scene(options);
    assert!(matches!(sender.send(&[1; 5000]), Err(Error::MessageTooLarge { .. })));
    sender.send(&[2; 1000]).unwrap();
    assert_eq!(queue.receive().unwrap().payload, [2; 1000]);
}

/// Nothing is written and no room in the pool is kept for what finds its lane full.
#[test]
fn a_large_payload_waits_for_its_lane_before_it_takes_a_block() {
    let Scene { _broker, client, mut queue, mut sender } = scene(QueueOptions::default());
    let pool = client.create_pool(PoolOptions { bytes: 16_384, ..PoolOptions::default() }).unwrap();
    sender.set_pool(pool.clone());
    while sender.try_send(&[1; 40]).is_ok() {}
    let mut has_filled = false;
    let sent = sender.try_send_with(16_384, |_| has_filled = true);
    assert!(matches!(sent, Err(Error::WouldBlock)) && !has_filled);
    drop(pool.try_loan(16_384).unwrap());
    while queue.try_receive_ref().is_ok() {}
    // Nor for what its reader may not have beside what it keeps.
    let options = PoolOptions { bytes: 32_768, lane_bytes_max: Some(16_384), ..PoolOptions::default() };
    sender.set_pool(client.create_pool(options).unwrap());
    let kept = sender.try_block(16_384).unwrap().share();
    sender.send_segments(&Outgoing::default(), &[kept.whole()]).unwrap();
    let held = queue.receive().unwrap();
    let sent = sender.try_send_with(16_384, |_| has_filled = true);
    assert!(matches!(sent, Err(Error::WouldBlock)) && !has_filled);
    drop(held);
    sender.try_send_with(16_384, |payload| payload.fill(4)).unwrap();
    assert_eq!(queue.receive().unwrap().payload, [4; 16_384]);
}

/// That a lane was opened waits to be told; a look does not spin on it, and learns of the broker's end like whoever sleeps.
#[test]
fn a_look_sleeps_although_there_is_news() {
    let options = QueueOptions { wait: WaitStyle::Sleep, ..QueueOptions::default() };
    let Scene { _broker: broker, client, mut queue, mut sender } = scene(options);
    let before = own_switches();
    assert!(matches!(queue.peek_timeout(10 * SHORT), Err(Error::TimedOut(_))));
    let sleeps = own_switches() - before;
    assert!((1..20).contains(&sleeps), "{sleeps} sleeps");
    let waiting = std::thread::spawn(move || {
        let peeked = queue.peek_timeout(SOON).map(|peeked| peeked.payload.map(<[u8]>::to_vec));
        assert_eq!(peeked.unwrap(), Some(b"late".to_vec()));
        assert!(matches!(queue.try_next().unwrap(), Some(Incoming::Opened(_))));
        queue.receive().unwrap();
        assert!(matches!(queue.peek(), Err(Error::BrokerGone | Error::SessionEnded(_))));
    });
    std::thread::sleep(SHORT);
    sender.send(b"late").unwrap();
    std::thread::sleep(10 * SHORT);
    drop((sender, client, broker));
    waiting.join().unwrap();
}

/// How often this thread has gone to sleep: /proc/thread-self/status.
fn own_switches() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

/// What a ring has room for goes by it, also where the queue takes less by a pool.
#[test]
fn a_bound_on_pools_is_none_on_rings() {
    let options = QueueOptions { payload_bytes_max: 1 << 16, ..QueueOptions::default() };
    let Scene { _broker, client, mut queue, .. } = scene(options);
    let options = SenderOptions { ring_bytes: Some(4 << 20), ..SenderOptions::default() };
    let mut sender = client.open_sender_with(queue.capability(), options).unwrap();
    for bytes in [1 << 20, 3 << 20] {
        sender.send(&vec![3; bytes]).unwrap();
        assert_eq!(queue.receive().unwrap().payload.len(), bytes);
    }
}
