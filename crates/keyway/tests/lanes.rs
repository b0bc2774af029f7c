//! Queues of many lanes, and the ways to send and receive without a copy too many.

#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::{Duration, Instant},
};

use keyway::{
    Client, Embedded, Ending, Error, Inbox, Incoming, Outgoing, PoolOptions, Queue, QueueOptions, Rights,
    Sender, SenderOptions, Terms, WaitStyle,
    abi::{LaneId, QueueOrder, request::Audience},
};

const SOON: Duration = Duration::from_secs(20);

struct Stage {
    broker: Embedded,
    client: Client,
    queue: Queue,
}

impl Stage {
    fn new(options: QueueOptions) -> Self {
        let broker = Embedded::start().unwrap();
        let client = Client::over(broker.connect().unwrap()).unwrap();
        let queue = client.create_queue(options).unwrap();
        Stage { broker, client, queue }
    }

    /// So many lanes, from a session of their own for each 60.
    fn senders(&mut self, count: usize) -> (Vec<Client>, Vec<Sender>) {
        let name =
            self.client.publish("many", self.queue.capability(), Rights::SEND, Audience::Everyone).unwrap();
        let (mut clients, mut senders) = (Vec::new(), Vec::new());
        let options = SenderOptions { ring_bytes: Some(4096), ..SenderOptions::default() };
        for index in 0..count {
            if index % 60 == 0 {
                clients.push(Client::over(self.broker.connect().unwrap()).unwrap());
            }
            let client = clients.last().unwrap();
            let capability = client.lookup("many").unwrap();
            let sender = loop {
                match client.open_sender_with(&capability, options) {
                    Ok(sender) => break sender,
                    // The stock is laid in again when the receiver looks.
                    Err(_) => drop(self.queue.try_next().unwrap()),
                }
            };
            senders.push(sender);
        }
        drop(name);
        while self.queue.peers().count() < count {
            assert!(!matches!(self.queue.try_next().unwrap(), Some(Incoming::Message(_))));
        }
        (clients, senders)
    }
}

fn many(wait: WaitStyle) -> QueueOptions {
    QueueOptions { senders_max: 1000, stock: 16, wait, ..QueueOptions::default() }
}

/// A wake that is lost costs half a second, after which the queue looks by itself.
#[test]
fn of_many_lanes_each_is_heard_while_the_receiver_sleeps() {
    let mut stage = Stage::new(many(WaitStyle::Sleep));
    let (_clients, mut senders) = stage.senders(150);
    let began = Instant::now();
    let rounds = 120;
    let sending = thread::spawn(move || {
        let mut seed = 7_u64;
        for number in 0..rounds {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let lane = (seed >> 33) as usize % senders.len();
            senders[lane].send(&[number as u8]).unwrap();
            while senders[lane].acknowledged().messages < senders[lane].acknowledged().sent {
                thread::sleep(Duration::from_micros(100));
            }
        }
        senders
    });
    for number in 0..rounds {
        assert_eq!(stage.queue.receive_timeout(SOON).unwrap().payload, [number as u8]);
    }
    let took = began.elapsed();
    assert!(took < Duration::from_millis(250) * rounds, "{took:?}: wakes are lost");
    drop(sending.join().unwrap());
}

#[test]
fn of_many_lanes_the_end_of_each_is_told_while_the_receiver_sleeps() {
    let mut stage = Stage::new(many(WaitStyle::Sleep));
    let (clients, mut senders) = stage.senders(130);
    // All have been idle for a while.
    assert!(matches!(stage.queue.receive_timeout(Duration::from_millis(50)), Err(Error::TimedOut(_))));
    senders[3].send(b"last words").unwrap();
    drop(senders.remove(3));
    drop(senders.remove(77));
    drop((senders, clients));
    let (mut ended, mut messages) = (0, 0);
    while ended < 130 {
        match stage.queue.next_timeout(SOON).unwrap() {
            Incoming::Ended { why: Error::LaneEnded { ending: Ending::PeerDead, .. }, .. } => ended += 1,
            Incoming::Message(message) => {
                assert_eq!(message.payload, b"last words");
                messages += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((messages, stage.queue.peers().count()), (1, 0));
}

#[test]
fn of_many_lanes_all_that_is_sent_arrives_in_its_order() {
    let mut stage = Stage::new(many(WaitStyle::Adaptive));
    let (_clients, senders) = stage.senders(100);
    let per_lane = 300_u32;
    let sending = thread::spawn(move || {
        let mut senders = senders;
        for number in 0..per_lane {
            for sender in &mut senders {
                sender.send(&number.to_le_bytes()).unwrap();
            }
        }
        senders
    });
    let mut next = BTreeMap::new();
    let mut inbox = Inbox::new();
    let mut left = 100 * per_lane as usize;
    while left > 0 {
        left -= stage.queue.receive_many_timeout(&mut inbox, 32, SOON).unwrap();
        for received in inbox.iter() {
            let next = next.entry(received.lane).or_insert(0_u32);
            assert_eq!(received.payload, next.to_le_bytes());
            *next += 1;
        }
    }
    drop(sending.join().unwrap());
}

/// One that never waits hears the lanes all the same that it does not look at.
#[test]
fn of_many_lanes_each_is_heard_by_one_who_only_asks() {
    let mut stage = Stage::new(many(WaitStyle::Adaptive));
    let (_clients, mut senders) = stage.senders(60);
    // More messages on one lane than it takes to let the others grow cold, twice over.
    for _ in 0..5000 {
        senders[0].send(b"busy").unwrap();
        assert_eq!(stage.queue.try_receive().unwrap().payload, b"busy");
    }
    for (number, sender) in senders.iter_mut().enumerate().skip(1) {
        sender.send(&[number as u8]).unwrap();
        let got = match number % 3 {
            0 => stage.queue.try_receive().unwrap().payload,
            1 => stage.queue.try_receive_ref().unwrap().payload.to_vec(),
            _ => {
                let mut inbox = Inbox::new();
                assert_eq!(stage.queue.try_receive_many(&mut inbox, 9).unwrap(), 1);
                inbox.get(0).unwrap().payload.to_vec()
            }
        };
        assert_eq!(got, [number as u8]);
    }
}

fn two(stage: &Stage, priorities: [u8; 2]) -> [Sender; 2] {
    let capability = stage.queue.sender_capability(None).unwrap();
    priorities.map(|priority| {
        let options = SenderOptions { priority, ..SenderOptions::default() };
        stage.client.open_sender_with(&capability, options).unwrap()
    })
}

#[test]
fn lanes_share_by_bytes_and_not_by_messages() {
    let mut stage = Stage::new(QueueOptions::default());
    let [mut large, mut small] = two(&stage, [0, 0]);
    let mut bytes = [0_usize; 2];
    let (large_lane, mut taken) = (large.lane(), 0);
    while taken < 4000 {
        // Both are never empty.
        while large.try_send(&[1; 4000]).is_ok() {}
        while small.try_send(&[2; 100]).is_ok() {}
        for _ in 0..50 {
            let message = stage.queue.receive_timeout(SOON).unwrap();
            bytes[usize::from(message.lane != large_lane)] += message.payload.len() + 64;
            taken += 1;
        }
    }
    let ratio = bytes[0] as f64 / bytes[1] as f64;
    assert!((0.8..1.25).contains(&ratio), "{bytes:?}");
}

#[test]
fn a_message_larger_than_a_share_is_paid_back_and_stalls_nobody() {
    let mut stage = Stage::new(QueueOptions::default());
    let capability = stage.queue.sender_capability(None).unwrap();
    let open = |ring_bytes| {
        let options = SenderOptions { ring_bytes: Some(ring_bytes), ..SenderOptions::default() };
        stage.client.open_sender_with(&capability, options).unwrap()
    };
    let (mut large, mut small) = (open(1 << 22), open(1 << 16));
    large.send(&vec![1; 2 << 20]).unwrap();
    large.send(b"behind it").unwrap();
    for number in 0..100_u8 {
        small.send(&[number]).unwrap();
    }
    let sizes: Vec<usize> =
        (0..102).map(|_| stage.queue.receive_timeout(SOON).unwrap().payload.len()).collect();
    let place = |len| sizes.iter().position(|&size| size == len).unwrap();
    assert!(
        place(2 << 20) < 101 && place(9) == 101,
        "in debt until the others have had their share: {sizes:?}"
    );
}

#[test]
fn what_has_priority_comes_first() {
    let mut stage = Stage::new(QueueOptions { order: QueueOrder::Priority, ..QueueOptions::default() });
    let [mut low, mut high] = two(&stage, [1, 6]);
    for number in 0..10_u8 {
        low.send(&[number]).unwrap();
        high.send(&[100 + number]).unwrap();
    }
    let got: Vec<u8> = (0..20).map(|_| stage.queue.receive_timeout(SOON).unwrap().payload[0]).collect();
    assert_eq!(got, (100..110).chain(0..10).collect::<Vec<u8>>());
    // A priority is bounded by the capability.
    let capability = stage.queue.sender_capability(None).unwrap();
    let humble = capability.derive_with(&Terms::new(Rights::SEND).priority(2)).unwrap();
    let options = SenderOptions { priority: 3, ..SenderOptions::default() };
    assert!(stage.client.open_sender_with(&humble, options).unwrap_err().denial().is_some());
}

#[test]
fn a_batch_comes_whole_and_a_loan_is_written_in_place() {
    let mut stage = Stage::new(QueueOptions::default());
    let [mut sender, _] = two(&stage, [0, 0]);
    sender.send_batch(&[b"one", b"two", b"three"]).unwrap();
    let mut loan = sender.loan(100).unwrap();
    loan[..5].copy_from_slice(b"insid");
    loan.commit_first(5).unwrap();
    let mut inbox = Inbox::new();
    let mut got: Vec<Vec<u8>> = Vec::new();
    while got.len() < 4 {
        stage.queue.receive_many_timeout(&mut inbox, 3, SOON).unwrap();
        assert!(inbox.len() <= 3);
        got.extend(inbox.iter().map(|received| received.payload.to_vec()));
    }
    assert_eq!(got, [&b"one"[..], b"two", b"three", b"insid"]);
    let too_much = vec![0; 40_000];
    assert!(matches!(sender.send_batch(&[&too_much, &too_much]), Err(Error::MessageTooLarge { .. })));
    assert!(matches!(sender.loan(40_000), Err(Error::MessageTooLarge { .. })));
    assert!(matches!(sender.loan(10).unwrap().commit_first(11), Err(Error::MessageTooLarge { .. })));
    assert!(matches!(stage.queue.try_receive_ref(), Err(Error::WouldBlock)), "none of that was sent");
}

#[test]
fn a_buffer_that_is_too_small_leaves_the_message() {
    let mut stage = Stage::new(QueueOptions::default());
    let [mut sender, _] = two(&stage, [0, 0]);
    sender.send(b"eleven byte").unwrap();
    let mut small = [0; 10];
    let refused = stage.queue.receive_into(&mut small).unwrap_err();
    assert!(matches!(refused, Error::BufferTooSmall { needed_bytes: 11, given_bytes: 10 }), "{refused}");
    let mut large = [0; 20];
    assert_eq!(stage.queue.receive_into(&mut large).unwrap(), 11);
    assert_eq!(&large[..11], b"eleven byte");
    assert_eq!(sender.acknowledged().messages, 1);
}

#[test]
fn calls_and_capabilities_come_out_of_an_inbox_too() {
    let mut stage = Stage::new(QueueOptions::default());
    let capability = stage.queue.sender_capability(None).unwrap();
    let region = stage.client.create_region(4096).unwrap();
    let calling = {
        let client = Client::over(stage.broker.connect().unwrap()).unwrap();
        let name = stage.client.publish("asked", &capability, Rights::SEND, Audience::Everyone).unwrap();
        let found = client.lookup("asked").unwrap();
        drop(name);
        thread::spawn(move || {
            let mut caller = client.open_caller(&found).unwrap();
            caller.call(&Outgoing::bytes(b"question"), SOON).unwrap().payload
        })
    };
    let mut inbox = Inbox::new();
    stage.queue.receive_many_timeout(&mut inbox, 8, SOON).unwrap();
    assert_eq!(inbox.get(0).unwrap().payload, b"question");
    let reply_to = inbox.take_reply_to(0).unwrap();
    assert!(inbox.take_reply_to(0).is_none());
    stage.queue.reply(reply_to, &Outgoing::bytes(b"answer")).unwrap();
    assert_eq!(calling.join().unwrap(), b"answer");
    let mut sender = stage.client.open_sender(&capability).unwrap();
    let carried = [keyway::Carried::Copy(&region, Rights::MAP)];
    sender
        .send_message(&Outgoing { payload: b"take it", capabilities: &carried, ..Outgoing::default() })
        .unwrap();
    while stage.queue.receive_many_timeout(&mut inbox, 8, SOON).unwrap() == 0 {}
    assert_eq!(inbox.get(0).unwrap().payload, b"take it");
    let capabilities = inbox.take_capabilities(0);
    assert!(capabilities.len() == 1 && capabilities[0].is_ok(), "{capabilities:?}");
}

#[test]
fn each_message_is_handed_on_once_and_in_its_lanes_order() {
    let mut stage = Stage::new(QueueOptions::default());
    let mut senders = two(&stage, [0, 0]);
    let rounds = 200_u32;
    for number in 0..rounds {
        for sender in &mut senders {
            let payload = number.to_le_bytes();
            // Flags make a record longer, and take it out of the ordinary.
            let flags = u16::from(number % 7 == 3);
            sender.send_message(&Outgoing { payload: &payload, flags, ..Outgoing::default() }).unwrap();
        }
    }
    let mut got: BTreeMap<LaneId, Vec<u32>> = BTreeMap::new();
    let mut total = 0;
    while total < 2 * rounds as usize {
        let max = 1 + total % 37;
        let mut handed_on = 0;
        let count = stage.queue.receive_each_timeout(max, SOON, |received| {
            let number = u32::from_le_bytes(received.payload.try_into().unwrap());
            assert_eq!(received.flags, u16::from(number % 7 == 3));
            got.entry(received.lane).or_default().push(number);
            handed_on += 1;
        });
        assert_eq!(count.unwrap(), handed_on);
        assert!((1..=max).contains(&handed_on));
        total += handed_on;
    }
    for sender in &mut senders {
        assert_eq!(got[&sender.lane()], (0..rounds).collect::<Vec<_>>());
        assert_eq!(sender.acknowledged().messages, u64::from(rounds));
    }
    let nothing = |_: keyway::Received<'_>| panic!("there was nothing more");
    assert!(matches!(stage.queue.try_receive_each(9, nothing), Err(Error::WouldBlock)));
    let waited = stage.queue.receive_each_timeout(9, Duration::from_millis(5), nothing);
    assert!(matches!(waited, Err(Error::TimedOut(_))), "{waited:?}");
}

#[test]
fn what_was_being_handed_on_when_it_panicked_is_received_again() {
    let mut stage = Stage::new(QueueOptions::default());
    let [mut sender, _other] = two(&stage, [0, 0]);
    sender.send(b"zero").unwrap();
    assert_eq!(stage.queue.receive_ref_timeout(SOON).unwrap().payload, b"zero");
    sender.send_batch(&[b"one", b"two", b"three"]).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        stage.queue.receive_each(8, |received| assert_ne!(received.payload, b"two", "as it is meant to"))
    }));
    assert!(panicked.is_err());
    let mut got = Vec::new();
    stage.queue.receive_each_timeout(8, SOON, |received| got.push(received.payload.to_vec())).unwrap();
    assert_eq!(got, [&b"one"[..], b"two", b"three"]);
}

#[test]
fn a_lane_of_huge_pages_carries_messages_round_its_ring_whether_or_not_there_are_any() {
    let mut stage = Stage::new(many(WaitStyle::default()));
    let capability = stage.queue.capability().derive(Rights::SEND, None).unwrap();
    let options = SenderOptions { ring_bytes: Some(4 << 20), huge: true, ..SenderOptions::default() };
    let mut sender = stage.client.open_sender_with(&capability, options).unwrap();
    // Twice round.
    for number in 0..20_u8 {
        sender.send(&vec![number; 500_000]).unwrap();
        let message = stage.queue.receive_timeout(SOON).unwrap();
        assert!(message.payload == vec![number; 500_000]);
    }
}

/// What brings segments is paid for as what does not, however it is received: a lane that always has one does not starve the other.
#[test]
fn lanes_share_also_what_brings_more_than_bytes() {
    type Take = fn(&mut Queue, &mut Inbox) -> Vec<LaneId>;
    let ways: [Take; 3] = [
        |queue, inbox| {
            queue.try_receive_many(inbox, 4).unwrap();
            inbox.iter().map(|received| received.lane).collect()
        },
        |queue, _| vec![queue.try_receive_ref().unwrap().lane],
        |queue, _| vec![queue.try_receive().unwrap().lane],
    ];
    for (way, take) in ways.into_iter().enumerate() {
        let mut stage = Stage::new(QueueOptions::default());
        let [mut greedy, mut modest] = two(&stage, [0, 0]);
        let pool = stage.client.create_pool(PoolOptions::default()).unwrap();
        let block = pool.loan(100).unwrap().share();
        let mut inbox = Inbox::new();
        let (mut of_modest, mut taken) = (0, 0);
        while of_modest < 10 {
            while greedy.try_send_segments(&Outgoing::bytes(&[1; 200]), &[block.whole()]).is_ok() {}
            while modest.try_send(&[2; 200]).is_ok() {}
            let lanes = take(&mut stage.queue, &mut inbox);
            taken += lanes.len();
            of_modest += lanes.iter().filter(|lane| **lane == modest.lane()).count();
            assert!(taken < 2000, "way {way}: {of_modest} of {taken}");
        }
    }
}

/// A payload that comes by a pool counts as long as it is.
#[test]
fn lanes_share_by_bytes_what_comes_by_a_pool() {
    let mut stage = Stage::new(QueueOptions::default());
    let [mut large, mut small] = two(&stage, [0, 0]);
    let (mut bytes_large, mut bytes_small) = (0_usize, 0_usize);
    for _ in 0..3000 {
        if bytes_large == 0 || large.acknowledged().messages == large.acknowledged().sent {
            large.send(&vec![1; 100_000]).unwrap();
        }
        while small.try_send(&[2; 1000]).is_ok() {}
        let received = stage.queue.try_receive_ref().unwrap();
        match received.payload.len() {
            1000 => bytes_small += 1000,
            len => bytes_large += len,
        }
    }
    let share = bytes_large as f64 / bytes_small as f64;
    assert!((0.5..2.0).contains(&share), "{bytes_large} and {bytes_small} bytes");
}
