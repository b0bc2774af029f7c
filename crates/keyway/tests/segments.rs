//! Large payloads within one process: what is lent, sent to several readers, read in place, released and lent anew.

#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use keyway::{
    Caller, Client, Embedded, Error, Inbox, LargePayloads, Message, OutOfView, Outgoing, Part, Pool,
    PoolOptions, Queue, QueueOptions, RegionOptions, Segment, Sender, SenderOptions, SharedBlock,
};
use proptest::prelude::*;

const SOON: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(20);
const PAGE: usize = 4096;

fn client(broker: &Embedded) -> Client {
    Client::over(broker.connect().unwrap()).unwrap()
}

fn lane(client: &Client) -> (Queue, Sender) {
    lane_with(client, SenderOptions::default())
}

fn lane_with(client: &Client, options: SenderOptions) -> (Queue, Sender) {
    let queue = client.create_queue(QueueOptions::default()).unwrap();
    let capability = queue.sender_capability(None).unwrap();
    let sender = client.open_sender_with(&capability, options).unwrap();
    (queue, sender)
}

fn pool(client: &Client, bytes: usize) -> Pool {
    client.create_pool(PoolOptions { bytes: bytes as u64, ..PoolOptions::default() }).unwrap()
}

fn filled(pool: &Pool, len: usize, byte: u8) -> SharedBlock {
    let mut block = pool.try_loan(len).unwrap();
    block.fill(byte);
    block.share()
}

fn receive(queue: &mut Queue) -> Message {
    queue.receive_timeout(SOON).unwrap()
}

#[test]
fn parts_of_several_blocks_arrive_in_order_beside_the_bytes() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let (mut queue, mut sender) = lane(&client);
    let (first, second) = (pool(&client, PAGE), pool(&client, 4 * PAGE));
    let mut one = first.loan(1000).unwrap();
    for (at, byte) in one.iter_mut().enumerate() {
        *byte = at as u8;
    }
    let (one, two) = (one.share(), filled(&second, 3 * PAGE, 9));
    let message = Outgoing { message_type: 3, flags: 5, payload: b"three parts", capabilities: &[] };
    for _ in 0..3 {
        sender.send_segments(&message, &[one.part(7..300), two.whole(), one.part(5..5)]).unwrap();
        let message = receive(&mut queue);
        assert_eq!((&message.payload[..], message.message_type, message.flags), (&b"three parts"[..], 3, 5));
        assert!(message.capabilities.is_empty(), "what regions came with is not the user's");
        let segments: Vec<Vec<u8>> = message.segments.iter().map(Segment::to_vec).collect();
        assert_eq!(segments, [one[7..300].to_vec(), two.to_vec(), Vec::new()]);
        let mut read = Vec::new();
        message.segments[0].read(|piece| read.extend_from_slice(piece));
        assert_eq!(read, segments[0]);
        assert!(message.segments[1].as_slice().is_none(), "a live region has no slice");
        let mut out = [0; 2];
        message.segments[0].copy_out(291, &mut out).unwrap();
        assert_eq!(out, [(298_u32 as u8), (299_u32 as u8)]);
        let refused = OutOfView { offset: 292, asked_bytes: 2, len_bytes: 293 };
        assert_eq!(message.segments[0].copy_out(292, &mut out), Err(refused));
    }
}

#[test]
fn frozen_regions_are_read_as_slices_and_never_released() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let (mut queue, mut sender) = lane(&client);
    let frozen = |byte| {
        let region = client.create_region_with(PAGE as u64, RegionOptions::default().freezable()).unwrap();
        let writer = client.map_writer(&region).unwrap();
        writer.write(0, &[byte; 100]).unwrap();
        (writer.freeze().unwrap(), region)
    };
    // More of them than the receiver keeps mapped.
    for round in 0..70 {
        let (frozen, _region) = frozen(round);
        sender.send_segments(&Outgoing::default(), &[Part::frozen(&frozen, 90..110)]).unwrap();
        let message = receive(&mut queue);
        let slice = message.segments[0].as_slice().unwrap();
        assert_eq!(slice, [[round; 10], [0; 10]].concat());
        let mut whole = Vec::new();
        message.segments[0].read(|piece| whole.extend_from_slice(piece));
        assert_eq!(whole, slice);
    }
}

#[test]
fn one_payload_to_four_readers_is_free_when_the_last_is_done() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let pool = pool(&client, PAGE);
    let mut lanes: Vec<_> = (0..4).map(|_| lane(&client)).collect();
    let block = filled(&pool, PAGE, 1);
    for (_, sender) in &mut lanes {
        sender.send_segments(&Outgoing::default(), &[block.whole()]).unwrap();
    }
    drop(block);
    let mut messages: Vec<_> = lanes.iter_mut().map(|(queue, _)| receive(queue)).collect();
    while let Some(message) = messages.pop() {
        assert!(
            matches!(pool.try_loan(1), Err(Error::WouldBlock)),
            "{} readers are left",
            messages.len() + 1
        );
        assert_eq!(message.segments[0].to_vec(), [1; PAGE]);
        drop(message);
    }
    assert_eq!(pool.try_loan(PAGE).unwrap().len(), PAGE);
}

#[test]
fn releases_come_in_any_order() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let (mut queue, mut sender) = lane(&client);
    let pool = pool(&client, 4 * PAGE);
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
        let mut segments: Vec<Option<Segment>> = Vec::new();
        for byte in 0..4 {
            sender.send_segments(&Outgoing::default(), &[filled(&pool, PAGE, byte).whole()]).unwrap();
            segments.extend(receive(&mut queue).segments.into_iter().map(Some));
        }
        // Kept, so that only the next release makes room again.
        let mut lent = Vec::new();
        for index in order {
            assert!(matches!(pool.try_loan(1), Err(Error::WouldBlock)));
            drop(segments[index].take());
            let mut block = pool.try_loan(PAGE).unwrap();
            block.fill(0xff);
            lent.push(block);
            for (byte, segment) in segments.iter().enumerate() {
                assert!(segment.as_ref().is_none_or(|kept| kept.to_vec() == [byte as u8; PAGE]));
            }
        }
    }
}

#[test]
fn a_pool_that_is_used_up_says_so_and_a_deadline_ends() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let (mut queue, mut sender) = lane(&client);
    let pool = pool(&client, 2 * PAGE);
    let refused = pool.try_loan(2 * PAGE + 1).unwrap_err();
    assert!(matches!(refused, Error::LoanTooLarge { asked_bytes: 8193, bytes_max: 8192 }), "{refused}");
    let held = pool.loan(PAGE).unwrap();
    sender.send_segments(&Outgoing::default(), &[filled(&pool, PAGE, 1).whole()]).unwrap();
    assert!(matches!(pool.try_loan(1), Err(Error::WouldBlock)));
    assert!(matches!(pool.loan_timeout(1, SHORT), Err(Error::TimedOut(timeout)) if timeout == SHORT));
    let message = receive(&mut queue);
    assert!(matches!(pool.try_loan(1), Err(Error::WouldBlock)));
    // A release wakes who waits for it.
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| pool.loan_timeout(PAGE, SOON).map(|block| block.len()));
        std::thread::sleep(SHORT);
        drop(message);
        assert_eq!(waiter.join().unwrap().unwrap(), PAGE);
    });
    // And so is what was never sent.
    drop(held);
    assert_eq!(pool.try_loan(2 * PAGE).unwrap().len(), 2 * PAGE);
}

#[test]
fn a_reader_that_releases_nothing_is_sent_no_more_than_it_can_have() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let (mut queue, mut sender) = lane(&client);
    let pool = pool(&client, PAGE);
    let block = filled(&pool, 1, 1);
    let mut kept = Vec::new();
    for _ in 0..8 {
        let parts = vec![block.whole(); 64];
        sender.try_send_segments(&Outgoing::default(), &parts).unwrap();
        kept.push(receive(&mut queue));
    }
    let refused = sender.try_send_segments(&Outgoing::default(), &[block.whole()]);
    assert!(matches!(refused, Err(Error::WouldBlock)), "{refused:?}");
    let refused = sender.send_segments_timeout(&Outgoing::default(), &[block.whole()], SHORT);
    assert!(matches!(refused, Err(Error::TimedOut(_))), "{refused:?}");
    kept[3].segments.remove(17);
    sender.try_send_segments(&Outgoing::default(), &[block.whole()]).unwrap();
    let refused = sender.try_send_segments(&Outgoing::default(), &vec![block.whole(); 65]);
    assert!(matches!(refused, Err(Error::TooManySegments { asked: 65, max: 64 })), "{refused:?}");
}

#[test]
fn a_lane_keeps_no_more_of_a_pool_than_it_may() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let ((mut idle, mut to_idle), (mut busy, mut to_busy)) = (lane(&client), lane(&client));
    let options = PoolOptions {
        bytes: 4 * PAGE as u64,
        lane_bytes_max: Some(2 * PAGE as u64),
        ..PoolOptions::default()
    };
    let pool = client.create_pool(options).unwrap();
    for _ in 0..2 {
        to_idle.try_send_segments(&Outgoing::default(), &[filled(&pool, PAGE, 1).whole()]).unwrap();
    }
    for _ in 0..8 {
        let block = filled(&pool, PAGE, 2);
        let refused = to_idle.try_send_segments(&Outgoing::default(), &[block.whole()]);
        assert!(matches!(refused, Err(Error::WouldBlock)), "{refused:?}");
        to_busy.try_send_segments(&Outgoing::default(), &[block.whole()]).unwrap();
        drop(receive(&mut busy));
    }
    drop(receive(&mut idle));
    to_idle.try_send_segments(&Outgoing::default(), &[filled(&pool, PAGE, 1).whole()]).unwrap();
}

#[test]
fn a_lane_that_ends_on_the_readers_side_frees_its_share() {
    let broker = Embedded::start().unwrap();
    let (client, reader) = (client(&broker), client(&broker));
    let pool = pool(&client, PAGE);
    let queue = reader.create_queue(QueueOptions::default()).unwrap();
    let name = "readers/gone";
    let _name = reader.publish(name, queue.capability(), keyway::Rights::SEND, keyway::Audience::Everyone);
    let mut sender = client.open_sender(&client.lookup(name).unwrap()).unwrap();
    sender.send_segments(&Outgoing::default(), &[filled(&pool, PAGE, 1).whole()]).unwrap();
    assert!(matches!(pool.try_loan(1), Err(Error::WouldBlock)));
    drop(queue);
    assert_eq!(pool.loan_timeout(PAGE, SOON).unwrap().len(), PAGE);
}

#[test]
fn what_was_sent_stays_as_it_is_after_its_sender_has_gone() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let (mut queue, mut sender) = lane(&client);
    let pool = pool(&client, PAGE);
    sender.send_segments(&Outgoing::default(), &[filled(&pool, PAGE, 1).whole()]).unwrap();
    drop(sender);
    assert!(matches!(pool.try_loan(1), Err(Error::WouldBlock)), "it was not received yet");
    let message = receive(&mut queue);
    assert!(matches!(queue.receive_timeout(SHORT), Err(Error::TimedOut(_))));
    assert!(matches!(pool.try_loan(1), Err(Error::WouldBlock)), "it is still read");
    assert_eq!(message.segments[0].to_vec(), [1; PAGE]);
    drop(message);
    assert_eq!(pool.try_loan(PAGE).unwrap().len(), PAGE);
    // And after the pool has gone as well.
    let (mut queue, mut sender) = lane(&client);
    sender.send_segments(&Outgoing::default(), &[filled(&pool, PAGE, 2).whole()]).unwrap();
    drop((sender, pool));
    assert_eq!(receive(&mut queue).segments[0].to_vec(), [2; PAGE]);
}

#[test]
fn a_payload_that_does_not_fit_the_ring_comes_like_any_other() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let (mut queue, mut sender) = lane(&client);
    let payload: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let long = &payload[..];
    // More than the pool has room for at a time, so that it is used again.
    for round in 0..12 {
        sender.send(long).unwrap();
        let message = receive(&mut queue);
        assert!(message.payload == long && message.segments.is_empty() && message.capabilities.is_empty());
        sender.try_send(&long[round..]).unwrap();
        assert!(queue.receive_ref_timeout(SOON).unwrap().payload == &long[round..]);
        sender.send_timeout(long, SOON).unwrap();
        sender.send(b"short").unwrap();
        let mut inbox = Inbox::new();
        while inbox.iter().last().is_none_or(|last| last.payload != b"short") {
            queue.receive_many_timeout(&mut inbox, 1, SOON).unwrap();
            let payload = inbox.get(0).unwrap().payload;
            assert!(payload == long || payload == b"short");
        }
        sender.send_message(&Outgoing { message_type: 4, payload: long, ..Outgoing::default() }).unwrap();
        let mut buffer = vec![0; long.len() + 1];
        let refused = queue.receive_into(&mut buffer[..1000]);
        let (needed_bytes, given_bytes) = (long.len(), 1000);
        assert!(
            matches!(refused, Err(Error::BufferTooSmall { needed_bytes: needed, given_bytes: given })
                if (needed, given) == (needed_bytes, given_bytes)),
            "{refused:?}"
        );
        assert_eq!(queue.receive_into(&mut buffer).unwrap(), long.len());
        assert!(&buffer[..long.len()] == long);
    }
    let message = Outgoing::bytes(long);
    let refuse = SenderOptions { large: LargePayloads::Refuse, ..SenderOptions::default() };
    let (_queue, mut sender) = lane_with(&client, refuse);
    for refused in [sender.send(long), sender.send_message(&message)] {
        assert!(matches!(refused, Err(Error::MessageTooLarge { asked_bytes: 3_000_000, .. })), "{refused:?}");
    }
    sender.set_pool(pool(&client, 3_000_000));
    sender.send(long).unwrap();
    assert!(matches!(sender.try_send(long), Err(Error::WouldBlock)), "its pool has room for one");
}

#[test]
fn a_call_and_its_answer_can_be_large() {
    let broker = Embedded::start().unwrap();
    let (client, server) = (client(&broker), client(&broker));
    let mut queue = server.create_queue(QueueOptions::default()).unwrap();
    let _name =
        server.publish("echo", queue.capability(), keyway::Rights::SEND, keyway::Audience::Everyone).unwrap();
    let payload = vec![7; 300_000];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..3 {
                let message = queue.receive_timeout(SOON).unwrap();
                let to = message.reply_to.unwrap();
                queue.reply(to, &Outgoing::bytes(&message.payload)).unwrap();
            }
        });
        let mut caller: Caller = client.open_caller(&client.lookup("echo").unwrap()).unwrap();
        for _ in 0..3 {
            let answer = caller.call(&Outgoing::bytes(&payload), SOON).unwrap();
            assert!(answer.payload == payload);
        }
    });
}

/// What a step of the property below does.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Lends a block, writes its number into it and sends it to these readers.
    Send { len: usize, readers: u8 },
    /// A reader takes its next message.
    Receive { reader: usize },
    /// A reader releases one of those that it has.
    Release { reader: usize, which: prop::sample::Index },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..3 * PAGE, 0..8_u8).prop_map(|(len, readers)| Step::Send { len, readers }),
        (0..3_usize).prop_map(|reader| Step::Receive { reader }),
        (0..3_usize, any::<prop::sample::Index>())
            .prop_map(|(reader, which)| Step::Release { reader, which }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is lent, sent, received and released in whatever order: nobody ever sees another content than what was sent to
    /// it, and what nobody reads any more can all be lent.
    #[test]
    fn nothing_is_lent_anew_while_somebody_reads_it(steps in prop::collection::vec(step(), 1..150)) {
        let broker = Embedded::start().unwrap();
        let client = client(&broker);
        let pool = pool(&client, 8 * PAGE);
        let mut lanes: Vec<_> = (0..3).map(|_| lane(&client)).collect();
        // By reader: what is on its way, and what it has, by the number in it.
        let mut sent: Vec<Vec<u8>> = vec![Vec::new(); 3];
        let mut held: Vec<Vec<(u8, Message)>> = (0..3).map(|_| Vec::new()).collect();
        for (number, step) in steps.into_iter().enumerate() {
            let number = number as u8;
            match step {
                Step::Send { len, readers } => {
                    let Ok(mut block) = pool.try_loan(len) else {
                        let is_used = sent.iter().any(|sent| !sent.is_empty()) || held.iter().any(|held| !held.is_empty());
                        prop_assert!(is_used, "nobody has anything, and there is no room");
                        continue;
                    };
                    block.fill(number);
                    let block = block.share();
                    for reader in (0..3).filter(|reader| readers & 1 << reader != 0) {
                        lanes[reader].1.send_segments(&Outgoing::bytes(&[number]), &[block.whole()]).unwrap();
                        sent[reader].push(number);
                    }
                }
                Step::Receive { reader } if !sent[reader].is_empty() => {
                    let message = receive(&mut lanes[reader].0);
                    prop_assert_eq!(message.payload[0], sent[reader].remove(0));
                    held[reader].push((message.payload[0], message));
                }
                Step::Release { reader, which } if !held[reader].is_empty() => {
                    let which = which.index(held[reader].len());
                    held[reader].swap_remove(which);
                }
                _ => {}
            }
            for (number, message) in held.iter().flatten() {
                prop_assert!(message.segments[0].to_vec().iter().all(|byte| byte == number));
            }
        }
        held.clear();
        for (reader, sent) in sent.into_iter().enumerate() {
            for number in sent {
                let message = receive(&mut lanes[reader].0);
                prop_assert!(message.segments[0].to_vec().iter().all(|byte| *byte == number));
            }
        }
        prop_assert_eq!(pool.try_loan(8 * PAGE).unwrap().len(), 8 * PAGE);
    }
}

/// What names segments beside its bytes needs room for those bytes, like any other message.
#[test]
fn a_buffer_too_small_for_the_bytes_beside_segments_leaves_the_message_where_it_is() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let (mut queue, mut sender) = lane(&client);
    let block = filled(&pool(&client, PAGE), 100, 3);
    sender.send_segments(&Outgoing::bytes(b"eleven byte"), &[block.whole()]).unwrap();
    let mut buffer = [0; 11];
    let too_small = queue.receive_into(&mut buffer[..10]);
    assert!(
        matches!(too_small, Err(Error::BufferTooSmall { needed_bytes: 11, given_bytes: 10 })),
        "{too_small:?}"
    );
    assert_eq!(queue.receive_into(&mut buffer).unwrap(), 11);
    assert_eq!(&buffer, b"eleven byte");
}
