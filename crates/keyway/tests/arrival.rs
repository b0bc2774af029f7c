//! Queues by arrival: what was committed before another was sent is received first, however it is sent and received.

#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use keyway::{
    Audience, Carried, Client, Embedded, Error, Inbox, Incoming, LargePayloads, Outgoing, Pool, PoolOptions,
    Queue, QueueOptions, QueueOrder, Rights, Sender, SenderOptions, WaitStyle,
};
use proptest::prelude::*;

const SOON: Duration = Duration::from_secs(20);
const RING_BYTES: u32 = 4096;

struct Stage {
    queue: Queue,
    senders: Vec<Sender>,
    clients: Vec<Client>,
    pool: Pool,
    client: Client,
    broker: Embedded,
}

fn by_arrival(wait: WaitStyle) -> QueueOptions {
    QueueOptions { order: QueueOrder::Arrival, senders_max: 1000, stock: 16, wait, ..QueueOptions::default() }
}

impl Stage {
    /// A queue by arrival with so many lanes.
    fn new(lanes: usize) -> Self {
        Self::waiting(lanes, WaitStyle::default())
    }

    fn waiting(lanes: usize, wait: WaitStyle) -> Self {
        let broker = Embedded::start().unwrap();
        let client = Client::over(broker.connect().unwrap()).unwrap();
        let queue = client.create_queue(by_arrival(wait)).unwrap();
        let clients = vec![Client::over(broker.connect().unwrap()).unwrap()];
        let pool = clients[0].create_pool(PoolOptions { bytes: 1 << 20, ..PoolOptions::default() }).unwrap();
        let mut stage = Stage { queue, senders: Vec::new(), clients, pool, client, broker };
        for _ in 0..lanes {
            stage.open_lane();
        }
        while stage.queue.peers().count() < lanes {
            assert!(!matches!(stage.queue.try_next().unwrap(), Some(Incoming::Message(_))));
        }
        while stage.queue.try_next().unwrap().is_some() {}
        stage
    }

    /// One more lane. The queue need not have seen it.
    fn open_lane(&mut self) {
        if self.senders.len() % 60 == 59 {
            self.clients.push(Client::over(self.broker.connect().unwrap()).unwrap());
        }
        let client = self.clients.last().unwrap();
        let (rights, name) = (Rights::SEND, "arrival");
        let published =
            self.client.publish(name, self.queue.capability(), rights, Audience::Everyone).unwrap();
        let capability = client.lookup(name).unwrap();
        drop(published);
        let options = SenderOptions { ring_bytes: Some(RING_BYTES), ..SenderOptions::default() };
        let sender = loop {
            match client.open_sender_with(&capability, options) {
                Ok(sender) => break sender,
                // The stock is laid in again when the receiver looks.
                Err(_) => drop(self.queue.try_next().unwrap()),
            }
        };
        self.senders.push(sender);
    }
}

/// Bytes that name a message.
fn bytes_of(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(len.max(8), number as u8);
    bytes
}

/// The number of a message, all of whose bytes are as they were.
fn number_of(payload: &[u8]) -> u64 {
    let number = u64::from_le_bytes(*payload.first_chunk().expect("a number"));
    assert!(payload[8..].iter().all(|byte| *byte == number as u8), "message {number} is not as it was sent");
    number
}

/// The ways to send.
const WAYS_TO_SEND: usize = 12;

/// Sends messages from a number on in one of the ways; answers the number after them, and how many do not come.
fn send(stage: &mut Stage, lane: usize, way: usize, number: u64, len: usize) -> Result<u64, Error> {
    let bytes = bytes_of(number, len);
    let sender = &mut stage.senders[lane];
    let with = |flags| Outgoing { message_type: 9, flags, payload: &bytes, capabilities: &[] };
    match way {
        0 => sender.try_send(&bytes)?,
        1 => sender.send_timeout(&bytes, Duration::ZERO)?,
        2 => {
            let (second, third) = (bytes_of(number + 1, 8), bytes_of(number + 2, len / 2));
            sender.try_send_batch(&[&bytes, &second, &third])?;
            return Ok(number + 3);
        }
        3 => {
            let mut loan = sender.try_loan(bytes.len())?;
            loan.copy_from_slice(&bytes);
            loan.commit()?;
        }
        4 => {
            let mut loan = sender.try_loan(bytes.len() + 100)?;
            loan[..bytes.len()].copy_from_slice(&bytes);
            loan.commit_first(bytes.len())?;
        }
        // What waits for room would wait for this thread.
        5 | 6 if sender.try_loan(1500).is_err() => return Err(Error::WouldBlock),
        5 => sender.send_message(&with(3))?,
        6 => {
            let capability = stage.clients[0].create_queue(QueueOptions::default()).unwrap();
            let carried = [Carried::Copy(capability.capability(), Rights::empty())];
            sender.send_message(&Outgoing { capabilities: &carried, ..with(0) })?;
        }
        7 => sender.send_batch_timeout(&[&bytes], Duration::ZERO)?,
        // Through a pool.
        8 => sender.send_timeout(&bytes_of(number, 20_000), Duration::ZERO)?,
        10 => sender.try_send_with(bytes.len(), |place| place.copy_from_slice(&bytes))?,
        11 => {
            let write = |index, place: &mut [u8]| place.copy_from_slice(&bytes_of(number + index as u64, 24));
            sender.try_send_each(4, 24, write)?;
            return Ok(number + 4);
        }
        _ => {
            let mut block = stage.pool.try_loan(64)?;
            block.fill(7);
            sender.try_send_segments(&Outgoing::bytes(&bytes), &[block.share().whole()])?;
        }
    }
    Ok(number + 1)
}

/// The ways to receive.
const WAYS_TO_RECEIVE: usize = 10;

/// Receives so many messages, which are there, in one of the ways.
fn receive(queue: &mut Queue, way: usize, count: usize) -> Vec<u64> {
    let (mut numbers, mut inbox) = (Vec::new(), Inbox::new());
    let mut buffer = vec![0; 32_768];
    while numbers.len() < count {
        let left = count - numbers.len();
        let mut each = Vec::new();
        match way {
            0 => each.push(number_of(&queue.try_receive().unwrap().payload)),
            1 => each.push(number_of(&queue.receive_timeout(SOON).unwrap().payload)),
            2 => each.push(number_of(queue.try_receive_ref().unwrap().payload)),
            3 => each.push(number_of(queue.receive_ref().unwrap().payload)),
            4 => assert_eq!(queue.try_receive_many(&mut inbox, 3).unwrap(), left.min(3)),
            5 => assert_eq!(queue.receive_many(&mut inbox, 1000).unwrap(), left),
            6 => drop(queue.try_receive_each(2, |received| each.push(number_of(received.payload))).unwrap()),
            7 => drop(queue.receive_each(1000, |received| each.push(number_of(received.payload))).unwrap()),
            8 => match queue.try_next().unwrap() {
                Some(Incoming::Message(message)) => each.push(number_of(&message.payload)),
                other => panic!("{other:?}"),
            },
            _ => {
                // What does not fit stays, and stays the first.
                assert!(matches!(queue.receive_into(&mut buffer[..7]), Err(Error::BufferTooSmall { .. })));
                let len = queue.receive_into(&mut buffer).unwrap();
                each.push(number_of(&buffer[..len]));
            }
        }
        each.extend(inbox.iter().map(|received| number_of(received.payload)));
        assert!(!each.is_empty());
        numbers.extend(each);
    }
    assert!(matches!(queue.try_receive(), Err(Error::WouldBlock)));
    numbers
}

#[test]
fn in_each_way_to_receive_comes_what_was_sent_in_each_way_as_it_was_sent() {
    for receiving in 0..WAYS_TO_RECEIVE {
        let mut stage = Stage::new(3);
        let mut number = 0;
        for round in 0..3 {
            let first = number;
            for way in 0..WAYS_TO_SEND {
                for lane in [0, 2, 1] {
                    let len = (way * 37 + lane * 11 + round) % 90;
                    number = send(&mut stage, lane, way, number, len)
                        .unwrap_or_else(|error| panic!("way {way}: {error}"));
                }
            }
            let numbers = receive(&mut stage.queue, receiving, (number - first) as usize);
            assert_eq!(numbers, (first..number).collect::<Vec<_>>(), "way {receiving} to receive");
        }
    }
}

/// What a message brings comes with it, and its flags and type are what they were.
#[test]
fn what_messages_bring_comes_behind_their_stamps() {
    let mut stage = Stage::new(2);
    for way in [5, 6, 9] {
        send(&mut stage, way % 2, way, 1, 50).unwrap();
    }
    let [plain, capability, segment] = [(); 3].map(|()| stage.queue.try_receive().unwrap());
    assert_eq!((plain.message_type, plain.flags, number_of(&plain.payload)), (9, 3, 1));
    assert_eq!((capability.capabilities.len(), number_of(&capability.payload)), (1, 1));
    assert_eq!((segment.segments[0].to_vec(), number_of(&segment.payload)), (vec![7; 64], 1));
    stage.senders[0].send_value(&("a value", 5_u32)).unwrap();
    assert_eq!(stage.queue.receive_ref().unwrap().value::<(&str, u32)>().unwrap(), ("a value", 5));
}

#[test]
fn calls_to_a_queue_by_arrival_are_answered() {
    let mut stage = Stage::new(1);
    let capability = stage.queue.sender_capability(None).unwrap();
    let calling = thread::spawn({
        let mut caller = stage.client.open_caller(&capability).unwrap();
        move || caller.call(&Outgoing::bytes(b"question"), SOON).unwrap().payload
    });
    let mut question = stage.queue.receive_timeout(SOON).unwrap();
    assert_eq!(question.payload, b"question");
    let answer = Outgoing::bytes(b"answer");
    stage.queue.reply(question.reply_to.take().unwrap(), &answer).unwrap();
    assert_eq!(calling.join().unwrap(), b"answer");
}

#[test]
fn a_stamp_takes_its_bytes_from_the_largest_message() {
    let mut stage = Stage::new(1);
    let fair = stage.client.create_queue(QueueOptions::default()).unwrap();
    let options = SenderOptions {
        ring_bytes: Some(RING_BYTES),
        large: LargePayloads::Refuse,
        ..SenderOptions::default()
    };
    let capability = fair.sender_capability(None).unwrap();
    let plain = stage.client.open_sender_with(&capability, options).unwrap();
    let capability = stage.queue.sender_capability(None).unwrap();
    let mut stamping = stage.client.open_sender_with(&capability, options).unwrap();
    let (bytes_max, loan_max) = (stamping.payload_bytes_max(), stamping.loan_bytes_max());
    assert_eq!((bytes_max + 8, loan_max + 8), (plain.payload_bytes_max(), plain.loan_bytes_max()));
    let bytes = vec![1; bytes_max + 1];
    let refused = |result: Result<(), Error>, asked: usize, max: usize| {
        assert!(
            matches!(result, Err(Error::MessageTooLarge { asked_bytes, bytes_max }) if (asked_bytes, bytes_max) == (asked, max)),
            "{result:?}"
        );
    };
    refused(stamping.send(&bytes), bytes_max + 1, bytes_max);
    refused(stamping.try_send(&bytes), bytes_max + 1, bytes_max);
    refused(stamping.send_message(&Outgoing::bytes(&bytes)), bytes_max + 1, bytes_max);
    refused(stamping.try_loan(loan_max + 1).map(drop), loan_max + 1, loan_max);
    stamping.send(&bytes[1..]).unwrap();
    assert_eq!(stage.queue.receive().unwrap().payload.len(), bytes_max);
    stamping.loan(loan_max).unwrap().commit().unwrap();
    assert_eq!(stage.queue.receive().unwrap().payload.len(), loan_max);
    // What does not fit the ring goes by a pool, as elsewhere.
    stage.senders[0].send(&bytes_of(3, bytes_max + 1)).unwrap();
    assert_eq!(number_of(&stage.queue.receive().unwrap().payload), 3);
}

/// The sender may have opened its lane, sent, and gone before the queue has looked.
#[test]
fn what_came_on_a_lane_that_the_queue_has_not_seen_is_received_first() {
    for receiving in [0, 2, 4, 5, 6, 7] {
        let mut stage = Stage::new(1);
        for round in 0..5 {
            stage.open_lane();
            let lane = stage.senders.len() - 1;
            stage.senders[lane].send(&bytes_of(round * 3, 8)).unwrap();
            stage.senders[0].send(&bytes_of(round * 3 + 1, 8)).unwrap();
            stage.senders[lane].send(&bytes_of(round * 3 + 2, 8)).unwrap();
            if round % 2 == 0 {
                drop(stage.senders.pop());
            }
            let numbers = receive(&mut stage.queue, receiving, 3);
            assert_eq!(numbers, (round * 3..round * 3 + 3).collect::<Vec<_>>(), "way {receiving}");
        }
    }
}

#[test]
fn that_a_lane_was_opened_is_told_before_what_came_on_it() {
    let mut stage = Stage::new(1);
    stage.senders[0].send(b"before").unwrap();
    assert!(matches!(stage.queue.try_next().unwrap(), Some(Incoming::Message(_))));
    stage.open_lane();
    stage.senders[1].send(b"hello").unwrap();
    let lane = stage.senders[1].lane();
    assert!(matches!(stage.queue.try_next().unwrap(), Some(Incoming::Opened(peer)) if peer.lane == lane));
    assert!(
        matches!(stage.queue.try_next().unwrap(), Some(Incoming::Message(message)) if message.lane == lane)
    );
    drop(stage.senders.pop());
    let ended = stage.queue.next_timeout(SOON).unwrap();
    assert!(matches!(ended, Incoming::Ended { lane: of, .. } if of == lane), "{ended:?}");
}

/// Many lanes, most of them cold, whose receiver sleeps now and then.
#[test]
fn of_many_lanes_that_have_had_nothing_for_a_while_the_order_holds() {
    const LANES: usize = 150;
    let mut stage = Stage::waiting(LANES, WaitStyle::Sleep);
    assert!(matches!(stage.queue.receive_timeout(Duration::from_millis(50)), Err(Error::TimedOut(_))));
    let mut senders = std::mem::take(&mut stage.senders);
    let total = 6000_u64;
    let sending = thread::spawn(move || {
        let mut seed = 7_u64;
        for number in 0..total {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // A few are busy.
            let of = if seed >> 62 == 0 { LANES } else { 5 };
            senders[(seed >> 33) as usize % of].send(&bytes_of(number, 8)).unwrap();
            if seed.is_multiple_of(97) {
                thread::sleep(Duration::from_millis(1));
            }
        }
        senders
    });
    let began = Instant::now();
    for expected in 0..total {
        assert_eq!(number_of(stage.queue.receive_ref_timeout(SOON).unwrap().payload), expected);
    }
    assert!(began.elapsed() < Duration::from_secs(60), "wakes are lost");
    drop(sending.join().unwrap());
}

/// Threads that take turns: whose turn it is next is known once a message is committed.
fn take_turns(
    threads: usize,
    total: u64,
    wait: WaitStyle,
    mut receive: impl FnMut(&mut Queue, &mut Vec<u64>),
) {
    let mut stage = Stage::waiting(threads, wait);
    let turn = Arc::new(AtomicU64::new(0));
    let senders = std::mem::take(&mut stage.senders);
    let sending: Vec<_> = senders
        .into_iter()
        .enumerate()
        .map(|(own, mut sender)| {
            let turn = Arc::clone(&turn);
            thread::spawn(move || {
                loop {
                    let number = turn.load(Ordering::Acquire);
                    if number >= total {
                        return sender;
                    }
                    let whose = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                    if whose as usize % threads == own {
                        sender.send(&bytes_of(number, (number % 64) as usize)).unwrap();
                        turn.store(number + 1, Ordering::Release);
                    } else {
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let mut numbers = Vec::new();
    while (numbers.len() as u64) < total {
        receive(&mut stage.queue, &mut numbers);
    }
    for (expected, number) in (0..).zip(&numbers) {
        assert_eq!(
            *number,
            expected,
            "before it came {:?}",
            &numbers[expected.saturating_sub(5) as usize..expected as usize]
        );
    }
    for thread in sending {
        drop(thread.join().unwrap());
    }
}

#[test]
fn threads_that_take_turns_are_received_in_turn_one_by_one() {
    take_turns(3, 3_000, WaitStyle::default(), |queue, numbers| {
        numbers.push(number_of(queue.receive_ref_timeout(SOON).unwrap().payload));
    });
}

#[test]
fn threads_that_take_turns_are_received_in_turn_by_one_who_sleeps() {
    take_turns(2, 3_000, WaitStyle::Sleep, |queue, numbers| {
        queue.receive_each_timeout(7, SOON, |received| numbers.push(number_of(received.payload))).unwrap();
    });
}

/// One thread that sends on one lane after the other, as fast as it can, while another receives.
fn go_round(lanes: usize, mut receive: impl FnMut(&mut Queue, &mut Vec<u64>)) {
    let mut stage = Stage::new(lanes);
    let mut senders = std::mem::take(&mut stage.senders);
    let total = 100_000_u64;
    let sending = thread::spawn(move || {
        for number in 0..total {
            let lane = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            senders[lane as usize % lanes].send(&number.to_le_bytes()).unwrap();
            if number.is_multiple_of(1000) {
                // So that the receiver comes to the end of what there is.
                thread::sleep(Duration::from_micros(50));
            }
        }
        senders
    });
    let mut numbers = Vec::new();
    while (numbers.len() as u64) < total {
        receive(&mut stage.queue, &mut numbers);
    }
    assert!(numbers.iter().copied().eq(0..total), "not as it was sent");
    drop(sending.join().unwrap());
}

#[test]
fn what_is_sent_while_the_lanes_are_looked_at_is_received_in_order_one_by_one() {
    go_round(5, |queue, numbers| {
        numbers.push(number_of(queue.receive_ref_timeout(SOON).unwrap().payload));
    });
}

#[test]
fn what_is_sent_while_the_lanes_are_looked_at_is_received_in_order_many_at_once() {
    let mut inbox = Inbox::new();
    go_round(9, |queue, numbers| {
        queue.receive_many_timeout(&mut inbox, 20, SOON).unwrap();
        numbers.extend(inbox.iter().map(|received| number_of(received.payload)));
    });
}

#[derive(Clone, Debug)]
enum Step {
    Send { lane: usize, way: usize, len: usize },
    Open,
    Receive { way: usize, count: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..5_usize, 0..WAYS_TO_SEND, 0..700_usize)
            .prop_map(|(lane, way, len)| Step::Send { lane, way, len }),
        1 => Just(Step::Open),
        3 => (0..WAYS_TO_RECEIVE, 1..8_usize).prop_map(|(way, count)| Step::Receive { way, count }),
    ];
    prop::collection::vec(step, 1..60)
}

/// Takes some of what is there, one by one or as many as that.
fn receive_some(queue: &mut Queue, way: usize, count: usize) -> Vec<u64> {
    let (mut numbers, mut inbox) = (Vec::new(), Inbox::new());
    match way % 3 {
        0 => drop(queue.try_receive_each(count, |received| numbers.push(number_of(received.payload)))),
        1 => {
            let _ = queue.try_receive_many(&mut inbox, count);
            numbers.extend(inbox.iter().map(|received| number_of(received.payload)));
        }
        _ => {
            for _ in 0..count {
                numbers.extend(queue.try_receive().map(|message| number_of(&message.payload)));
            }
        }
    }
    numbers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// One thread sends and receives: what was sent is the order.
    #[test]
    fn whatever_is_sent_on_whatever_lane_is_received_as_it_was_sent(steps in steps()) {
        let mut stage = Stage::new(2);
        let (mut sent, mut received) = (0, Vec::new());
        for step in steps {
            match step {
                Step::Send { lane, way, len } => {
                    let lane = lane % stage.senders.len();
                    match send(&mut stage, lane, way, sent, len) {
                        Ok(next) => sent = next,
                        Err(Error::WouldBlock | Error::TimedOut(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                Step::Open if stage.senders.len() < 5 => stage.open_lane(),
                Step::Open => {}
                Step::Receive { way, count } => received.extend(receive_some(&mut stage.queue, way, count)),
            }
        }
        let left = sent as usize - received.len();
        received.extend(receive(&mut stage.queue, 7, left));
        prop_assert_eq!(received, (0..sent).collect::<Vec<_>>());
    }
}
