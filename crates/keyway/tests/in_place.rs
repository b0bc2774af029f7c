//! Sending what is written in the lane's own memory.

#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    thread,
    time::{Duration, Instant},
};

use keyway::{
    Client, Embedded, Error, LargePayloads, PoolOptions, Queue, QueueOptions, Rights, Sender, SenderOptions,
    abi::request::Audience,
};

const RING_BYTES: u32 = 4096;
const SOON: Duration = Duration::from_secs(20);

struct Stage {
    sender: Sender,
    queue: Queue,
    client: Client,
    _broker: Embedded,
    _sending: Client,
}

impl Stage {
    fn new(large: LargePayloads) -> Self {
        let broker = Embedded::start().unwrap();
        let client = Client::over(broker.connect().unwrap()).unwrap();
        let sending = Client::over(broker.connect().unwrap()).unwrap();
        let queue = client.create_queue(QueueOptions::default()).unwrap();
        let name = client.publish("q", queue.capability(), Rights::SEND, Audience::Everyone).unwrap();
        let options = SenderOptions { ring_bytes: Some(RING_BYTES), large, ..SenderOptions::default() };
        let sender = sending.open_sender_with(&sending.lookup("q").unwrap(), options).unwrap();
        drop(name);
        Stage { sender, queue, client, _broker: broker, _sending: sending }
    }

    fn fill(&mut self) -> u64 {
        let mut sent = 0;
        while self.sender.try_send_with(500, |payload| payload.fill(1)).is_ok() {
            sent += 1;
        }
        sent
    }
}

#[test]
fn what_is_written_in_place_arrives_wherever_the_ring_ends() {
    let Stage { sender, queue, .. } = &mut Stage::new(LargePayloads::default());
    let bytes = |number: usize| vec![number as u8 | 1; number * 7 % 300];
    thread::scope(|threads| {
        threads.spawn(|| {
            for number in 0..2000 {
                let payload = bytes(number);
                match number % 3 {
                    0 => sender.send(&payload).unwrap(),
                    1 => sender.send_with(payload.len(), |place| place.copy_from_slice(&payload)).unwrap(),
                    _ => sender
                        .send_with_timeout(payload.len(), |place| place.copy_from_slice(&payload), SOON)
                        .unwrap(),
                }
            }
        });
        for number in 0..2000 {
            assert_eq!(queue.receive_timeout(SOON).unwrap().payload, bytes(number), "message {number}");
        }
    });
}

#[test]
fn a_batch_that_is_written_in_place_comes_whole_and_in_its_order() {
    let Stage { sender, queue, .. } = &mut Stage::new(LargePayloads::default());
    thread::scope(|threads| {
        threads.spawn(|| {
            for batch in 0..500_usize {
                let number = |index| (batch * 10 + index) as u64;
                let write =
                    |index, place: &mut [u8]| place[..8].copy_from_slice(&u64::to_ne_bytes(number(index)));
                if batch % 2 == 0 {
                    sender.send_each(10, 8 + batch % 90, write).unwrap();
                } else {
                    sender.send_each_timeout(10, 8 + batch % 90, write, SOON).unwrap();
                }
            }
        });
        for number in 0..5000_u64 {
            let message = queue.receive_timeout(SOON).unwrap();
            assert_eq!(message.payload[..8], number.to_ne_bytes());
            assert_eq!(message.payload.len(), 8 + number as usize / 10 % 90);
        }
    });
}

#[test]
fn a_full_lane_is_told_without_a_call_to_write() {
    let mut stage = Stage::new(LargePayloads::default());
    let sent = stage.fill();
    assert!(sent > 5);
    let nobody = |_: &mut [u8]| unreachable!("there is no room");
    let sender = &mut stage.sender;
    assert!(matches!(sender.try_send_with(500, nobody), Err(Error::WouldBlock)));
    assert!(matches!(sender.try_send_each(3, 500, |_, place| nobody(place)), Err(Error::WouldBlock)));
    let timeout = Duration::from_millis(20);
    let began = Instant::now();
    assert!(
        matches!(sender.send_with_timeout(500, nobody, timeout), Err(Error::TimedOut(told)) if told == timeout)
    );
    assert!(matches!(
        sender.send_each_timeout(3, 500, |_, place| nobody(place), timeout),
        Err(Error::TimedOut(told)) if told == timeout
    ));
    assert!(began.elapsed() >= 2 * timeout);
    assert_eq!(sender.acknowledged().sent, sent);
}

#[test]
fn what_can_never_fit_is_refused_at_once_and_what_may_go_through_a_pool_does() {
    let mut stage = Stage::new(LargePayloads::Refuse);
    let bytes_max = stage.sender.payload_bytes_max();
    let refused = stage.sender.send_with(bytes_max + 1, |_| unreachable!("it cannot be sent"));
    assert!(matches!(
        refused,
        Err(Error::MessageTooLarge { asked_bytes, bytes_max: told }) if (asked_bytes, told) == (bytes_max + 1, bytes_max)
    ));
    let refused = stage.sender.send_each(100, 100, |_, _| unreachable!("they cannot be sent"));
    assert!(matches!(refused, Err(Error::MessageTooLarge { .. })));

    let Stage { sender, queue, .. } = &mut Stage::new(LargePayloads::default());
    sender.send_with(100_000, |place| place.fill(7)).unwrap();
    assert_eq!(queue.receive_timeout(SOON).unwrap().payload, vec![7; 100_000]);
    // More than any pool: refused before anything is reserved.
    for payload_bytes in [(256 << 20) + 1, 1 << 40, usize::MAX] {
        let refused = sender.send_with(payload_bytes, |_| unreachable!("it cannot be sent"));
        assert!(matches!(
            refused,
            Err(Error::MessageTooLarge { asked_bytes, bytes_max }) if (asked_bytes, bytes_max) == (payload_bytes, 256 << 20)
        ));
    }
}

#[test]
fn while_the_pool_is_full_nobody_is_asked_to_write() {
    let Stage { sender, _sending: sending, queue, .. } = &mut Stage::new(LargePayloads::default());
    let pool = sending.create_pool(PoolOptions { bytes: 1 << 20, ..PoolOptions::default() }).unwrap();
    sender.set_pool(pool.clone());
    let all = pool.loan(1 << 20).unwrap();
    let nobody = |_: &mut [u8]| unreachable!("there is no room");
    assert!(matches!(sender.try_send_with(600_000, nobody), Err(Error::WouldBlock)));
    let timeout = Duration::from_millis(30);
    assert!(
        matches!(sender.send_with_timeout(600_000, nobody, timeout), Err(Error::TimedOut(told)) if told == timeout)
    );
    drop(all);
    sender.send_with(600_000, |place| place.fill(9)).unwrap();
    assert_eq!(queue.receive_timeout(SOON).unwrap().payload, vec![9; 600_000]);
}

#[test]
fn on_a_lane_that_is_over_nobody_is_asked_to_write() {
    let Stage { mut sender, queue, client, _broker, _sending } = Stage::new(LargePayloads::default());
    sender.send_with(3, |place| place.copy_from_slice(b"one")).unwrap();
    drop((queue, client));
    let began = Instant::now();
    while sender.ending().is_none() {
        assert!(began.elapsed() < SOON);
        thread::yield_now();
    }
    let nobody = |_: &mut [u8]| unreachable!("the lane is over");
    assert!(matches!(sender.send_with(3, nobody), Err(Error::LaneEnded { sent: 1, .. })));
    assert!(matches!(sender.send_with(100_000, nobody), Err(Error::LaneEnded { sent: 1, .. })));
    assert!(matches!(
        sender.send_each(2, 3, |_, place| nobody(place)),
        Err(Error::LaneEnded { sent: 1, .. })
    ));
}
