//! Queues and senders under tokio: within one process, whose sessions ring each other like any.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{pin::pin, time::Duration};

use futures_util::{FutureExt, SinkExt, StreamExt};
use keyway::{
    Client, Embedded, Ending, Error, Inbox, Incoming, Outgoing, Queue, QueueOptions, Rights, Sender,
    SenderOptions, abi::request::Audience,
};

use keyway_tokio::{AsyncQueue, AsyncSender, Transport};

const SOON: Duration = Duration::from_secs(20);

struct Two {
    _broker: Embedded,
    here: Client,
    there: Client,
}

impl Two {
    fn new() -> Self {
        let broker = Embedded::start().unwrap();
        let [here, there] = [(); 2].map(|()| Client::over(broker.connect().unwrap()).unwrap());
        Two { _broker: broker, here, there }
    }

    /// A queue of the one, and a sender of the other to it.
    fn lane(&self, name: &str, ring_bytes: u32) -> (Queue, Sender) {
        Self::between(&self.here, &self.there, name, ring_bytes)
    }

    fn between(receiver: &Client, sender: &Client, name: &str, ring_bytes: u32) -> (Queue, Sender) {
        let queue = receiver.create_queue(QueueOptions::default()).unwrap();
        let published = receiver.publish(name, queue.capability(), Rights::SEND, Audience::Everyone).unwrap();
        let options = SenderOptions { ring_bytes: Some(ring_bytes), ..SenderOptions::default() };
        let sender = sender.open_sender_with(&sender.lookup(name).unwrap(), options).unwrap();
        drop(published);
        (queue, sender)
    }
}

#[tokio::test]
async fn a_task_sleeps_until_its_message_comes() {
    let two = Two::new();
    let (queue, mut sender) = two.lane("a", 4096);
    let mut queue = AsyncQueue::new(queue).unwrap();
    let receiving = tokio::spawn(async move {
        let mut got = Vec::new();
        while got.len() < 3 {
            got.push(queue.receive().await.unwrap().payload);
        }
        got
    });
    for payload in [b"one", b"two", b"six"] {
        tokio::time::sleep(Duration::from_millis(20)).await;
        sender.send(payload).unwrap();
    }
    let got = tokio::time::timeout(SOON, receiving).await.unwrap().unwrap();
    assert_eq!(got, [b"one", b"two", b"six"]);
}

#[tokio::test]
async fn a_task_awaits_room_and_nothing_is_lost_on_the_way() {
    let two = Two::new();
    let (queue, sender) = two.lane("a", 4096);
    let (mut queue, mut sender) = (AsyncQueue::new(queue).unwrap(), AsyncSender::new(sender).unwrap());
    let count = 5000_u32;
    let sending = tokio::spawn(async move {
        for number in 0..count {
            sender.send(&number.to_le_bytes()).await.unwrap();
        }
        sender
    });
    let mut inbox = Inbox::new();
    let mut next = 0;
    while next < count {
        tokio::time::timeout(SOON, queue.receive_many(&mut inbox, 64)).await.unwrap().unwrap();
        for received in inbox.iter() {
            assert_eq!(received.payload, next.to_le_bytes());
            next += 1;
        }
        if next % 7 == 0 {
            tokio::task::yield_now().await;
        }
    }
    drop(sending.await.unwrap());
    let end = tokio::time::timeout(SOON, async {
        loop {
            if let Incoming::Ended { why, .. } = queue.next().await.unwrap() {
                return why;
            }
        }
    });
    assert!(matches!(end.await.unwrap(), Error::LaneEnded { ending: Ending::PeerDead, .. }));
}

#[tokio::test]
async fn a_future_that_is_dropped_has_taken_and_sent_nothing() {
    let two = Two::new();
    let (queue, sender) = two.lane("a", 4096);
    let (mut queue, mut sender) = (AsyncQueue::new(queue).unwrap(), AsyncSender::new(sender).unwrap());
    for _ in 0..20 {
        assert!(queue.receive().now_or_never().is_none());
    }
    let mut sent = 0_u64;
    while sender.send(&[7; 500]).now_or_never().is_some() {
        sent += 1;
    }
    assert!(sender.send(&[7; 500]).now_or_never().is_none());
    for _ in 0..sent {
        assert_eq!(tokio::time::timeout(SOON, queue.receive()).await.unwrap().unwrap().payload, [7; 500]);
    }
    assert!(queue.receive().now_or_never().is_none(), "only what was sent");
    // Under way when the message comes, and dropped then: it is still there.
    {
        let mut receiving = pin!(queue.receive());
        assert!(receiving.as_mut().now_or_never().is_none());
        sender.send(b"later").await.unwrap();
    }
    assert_eq!(tokio::time::timeout(SOON, queue.receive()).await.unwrap().unwrap().payload, b"later");
}

#[tokio::test]
async fn one_session_may_have_both_ends() {
    let two = Two::new();
    let (queue, sender) = Two::between(&two.here, &two.here, "own", 4096);
    let (mut queue, mut sender) = (AsyncQueue::new(queue).unwrap(), AsyncSender::new(sender).unwrap());
    let rounds = 200;
    let sending = async {
        for _ in 0..rounds {
            sender.send(&[1; 900]).await.unwrap();
        }
    };
    let receiving = async {
        for _ in 0..rounds {
            assert_eq!(queue.receive().await.unwrap().payload.len(), 900);
        }
    };
    tokio::time::timeout(SOON, async { tokio::join!(sending, receiving) }).await.unwrap();
}

#[tokio::test]
async fn calls_are_answered_from_a_task() {
    let two = Two::new();
    let queue = two.here.create_queue(QueueOptions::default()).unwrap();
    let published =
        two.here.publish("service", queue.capability(), Rights::SEND, Audience::Everyone).unwrap();
    let mut queue = AsyncQueue::new(queue).unwrap();
    let there = two.there.clone();
    let calling = tokio::task::spawn_blocking(move || {
        let mut caller = there.open_caller(&there.lookup("service").unwrap()).unwrap();
        caller.call(&Outgoing::bytes(b"2 + 2"), SOON).unwrap().payload
    });
    let question = tokio::time::timeout(SOON, queue.receive()).await.unwrap().unwrap();
    assert_eq!(question.payload, b"2 + 2");
    queue.reply(question.reply_to.unwrap(), &Outgoing::bytes(b"4")).unwrap();
    assert_eq!(calling.await.unwrap(), b"4");
    drop(published);
}

#[tokio::test]
async fn values_go_both_ways_over_a_transport_until_one_side_is_gone() {
    let two = Two::new();
    let (queue_here, sender_there) = Two::between(&two.here, &two.there, "to-here", 1 << 16);
    let (queue_there, sender_here) = Two::between(&two.there, &two.here, "to-there", 1 << 16);
    let transport = |queue, sender| (AsyncQueue::new(queue).unwrap(), AsyncSender::new(sender).unwrap());
    let (queue, sender) = transport(queue_here, sender_here);
    let mut client: Transport<(u32, String), Vec<u32>> = Transport::new(queue, sender);
    let (queue, sender) = transport(queue_there, sender_there);
    let mut server: Transport<Vec<u32>, (u32, String)> = Transport::new(queue, sender);
    let serving = tokio::spawn(async move {
        while let Some(numbers) = server.next().await {
            let sum = numbers.unwrap().iter().sum();
            server.send((sum, format!("sum {sum}"))).await.unwrap();
        }
    });
    for length in 1..50_u32 {
        client.send((0..length).collect()).await.unwrap();
        let (sum, text) = tokio::time::timeout(SOON, client.next()).await.unwrap().unwrap().unwrap();
        assert_eq!((sum, text), (length * (length - 1) / 2, format!("sum {}", length * (length - 1) / 2)));
    }
    drop(client);
    tokio::time::timeout(SOON, serving).await.unwrap().unwrap();
}
