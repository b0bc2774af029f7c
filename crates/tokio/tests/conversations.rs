//! Queues and senders under tokio: within one process, whose sessions ring each other like any.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{FutureExt, SinkExt, StreamExt, stream::FusedStream};
use keyway::{
    Audience, Client, Embedded, Ending, Error, Inbox, Incoming, Outgoing, PoolOptions, Queue, QueueOptions,
    QueueOrder, Rights, Sender, SenderOptions,
};

use keyway_tokio::{AsyncQueue, AsyncSender, Listener, Transport};

const SOON: Duration = Duration::from_secs(20);

/// What a future has, which must not take as long as that. A timeout of tokio's alone would not say so: it looks once more at its
/// future when the time is over, and what had been ready all the while without anybody being woken would be taken for prompt.
async fn soon<F: Future>(future: F) -> F::Output {
    let began = Instant::now();
    let output = tokio::time::timeout(SOON, future).await.unwrap();
    assert!(began.elapsed() < SOON, "nobody was woken");
    output
}

struct Two {
    broker: Embedded,
    here: Client,
    there: Client,
}

impl Two {
    fn new() -> Self {
        let broker = Embedded::start().unwrap();
        let [here, there] = [(); 2].map(|()| Client::over(broker.connect().unwrap()).unwrap());
        Two { broker, here, there }
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
    let got = soon(receiving).await.unwrap();
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
        soon(queue.receive_many(&mut inbox, 64)).await.unwrap();
        for received in inbox.iter() {
            assert_eq!(received.payload, next.to_le_bytes());
            next += 1;
        }
        if next % 7 == 0 {
            tokio::task::yield_now().await;
        }
    }
    drop(sending.await.unwrap());
    let why = soon(async {
        loop {
            if let Incoming::Ended { why, .. } = queue.next().await.unwrap() {
                return why;
            }
        }
    })
    .await;
    assert!(matches!(why, Error::LaneEnded { ending: Ending::PeerDead, .. }));
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
        assert_eq!(soon(queue.receive()).await.unwrap().payload, [7; 500]);
    }
    assert!(queue.receive().now_or_never().is_none(), "only what was sent");
    // Under way when the message comes, and dropped then: it is still there.
    {
        let mut receiving = pin!(queue.receive());
        assert!(receiving.as_mut().now_or_never().is_none());
        sender.send(b"later").await.unwrap();
    }
    assert_eq!(soon(queue.receive()).await.unwrap().payload, b"later");
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
    soon(async { tokio::join!(sending, receiving) }).await;
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
    let question = soon(queue.receive()).await.unwrap();
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
        let (sum, text) = soon(client.next()).await.unwrap().unwrap();
        assert_eq!((sum, text), (length * (length - 1) / 2, format!("sum {}", length * (length - 1) / 2)));
    }
    drop(client);
    soon(serving).await.unwrap();
}

/// A service that adds up, for each client by itself.
async fn sums(mut listener: Listener) {
    while let Ok(accepted) = listener.accept::<u32, (u64, u32)>().await {
        let (mut client, badge) = (accepted.transport, accepted.badge.expect("a name gives a badge").0);
        tokio::spawn(async move {
            let mut sum = 0;
            while let Some(Ok(number)) = client.next().await {
                sum += number;
                client.send((badge, sum)).await.unwrap();
            }
        });
    }
}

#[tokio::test]
async fn each_client_of_a_service_has_a_conversation_of_its_own() {
    let two = Two::new();
    let listener = Listener::bind(&two.here, "sums", Audience::Everyone).unwrap();
    let service = tokio::spawn(sums(listener));
    let other = Client::over(two.broker.connect().unwrap()).unwrap();
    let mut conversations: Vec<Transport<(u64, u32), u32>> = Vec::new();
    for client in [&two.there, &other, &two.there] {
        conversations.push(Transport::connect(client, "sums", SOON).await.unwrap());
    }
    let mut badges = vec![0; 3];
    for round in 1..20_u32 {
        for (index, conversation) in conversations.iter_mut().enumerate() {
            conversation.send(index as u32 + 1).await.unwrap();
            let (badge, sum) = conversation.next().await.unwrap().unwrap();
            assert_eq!(sum, round * (index as u32 + 1));
            badges[index] = badge;
        }
    }
    assert!(badges[0] == badges[2] && badges[0] != badges[1], "one badge for each process: {badges:?}");
    // One that ends leaves the others alone.
    drop(conversations.remove(0));
    conversations[0].send(1).await.unwrap();
    assert_eq!(conversations[0].next().await.unwrap().unwrap().1, 39);
    service.abort();
}

#[tokio::test]
async fn who_asks_for_no_conversation_is_passed_over_and_told() {
    let two = Two::new();
    let listener = Listener::bind(&two.here, "sums", Audience::Everyone).unwrap();
    let service = tokio::spawn(sums(listener));
    let (stray, found) = (two.there.clone(), two.there.lookup("sums").unwrap());
    let refused = tokio::task::spawn_blocking(move || {
        let mut caller = stray.open_caller(&found).unwrap();
        let refused = caller.call(&Outgoing::bytes(b"no queue comes with this"), SOON).unwrap_err();
        let mut sender = stray.open_sender(&found).unwrap();
        sender.send(b"nor with this").unwrap();
        while sender.try_send(b"").is_ok() {}
        refused
    });
    let refused = soon(refused).await.unwrap();
    assert!(matches!(refused, Error::LaneEnded { .. }), "{refused}");
    let mut conversation: Transport<(u64, u32), u32> =
        Transport::connect(&two.there, "sums", SOON).await.unwrap();
    conversation.send(7).await.unwrap();
    assert_eq!(conversation.next().await.unwrap().unwrap().1, 7);
    service.abort();
}

#[tokio::test]
async fn a_name_that_nobody_listens_under_is_waited_for_and_no_longer() {
    let two = Two::new();
    let short = Duration::from_millis(30);
    let never = Transport::<u32, u32>::connect(&two.there, "sums", short).await.unwrap_err();
    assert!(matches!(never, Error::TimedOut(_)), "{never}");
    // A queue that nobody reads.
    let queue = two.here.create_queue(QueueOptions::default()).unwrap();
    let _name = two.here.publish("sums", queue.capability(), Rights::SEND, Audience::Everyone).unwrap();
    let silent = Transport::<u32, u32>::connect(&two.there, "sums", short).await.unwrap_err();
    assert!(matches!(silent, Error::TimedOut(_)), "{silent}");
}

#[tokio::test]
async fn a_service_that_answers_calls_is_no_listener() {
    let two = Two::new();
    let mut queue = two.here.create_queue(QueueOptions::default()).unwrap();
    let _name = two.here.publish("sums", queue.capability(), Rights::SEND, Audience::Everyone).unwrap();
    let answering = std::thread::spawn(move || {
        let message = queue.receive_timeout(SOON).unwrap();
        queue.reply(message.reply_to.unwrap(), &Outgoing::bytes(b"42")).unwrap();
        queue
    });
    let refused = Transport::<u32, u32>::connect(&two.there, "sums", SOON).await.unwrap_err();
    assert!(refused.to_string().contains("does not listen for conversations"), "{refused}");
    drop(answering.join().unwrap());
}

/// A task that awaits messages of a queue that goes by arrival has them as they were sent, without what the library put in front.
#[tokio::test]
async fn a_task_receives_by_arrival_what_several_have_sent() {
    let two = Two::new();
    let options = QueueOptions { order: QueueOrder::Arrival, stock: 8, ..QueueOptions::default() };
    let queue = two.here.create_queue(options).unwrap();
    let _name = two.here.publish("a", queue.capability(), Rights::SEND, Audience::Everyone).unwrap();
    let capability = two.there.lookup("a").unwrap();
    let mut senders = [(); 4].map(|()| two.there.open_sender(&capability).unwrap());
    let mut last = AsyncSender::new(two.there.open_sender(&capability).unwrap()).unwrap();
    let mut queue = AsyncQueue::new(queue).unwrap();
    let receiving = tokio::spawn(async move {
        let mut got = Vec::new();
        while got.len() < 300 {
            let payload = queue.receive().await.unwrap().payload;
            got.push(u32::from_le_bytes(payload.try_into().unwrap()));
        }
        got
    });
    for number in 0..300_u32 {
        match (number.wrapping_mul(2_654_435_761) >> 20) as usize % 5 {
            4 => last.send(&number.to_le_bytes()).await.unwrap(),
            lane => senders[lane].send(&number.to_le_bytes()).unwrap(),
        }
        if number % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let got = soon(receiving).await.unwrap();
    assert_eq!(got, (0..300).collect::<Vec<_>>());
}

const FRAME_BYTES: usize = 2 << 20;

/// Payloads larger than the ring, and a pool with room for one of them: each waits until the last was copied out.
#[tokio::test]
async fn a_task_awaits_room_in_a_pool() {
    let two = Two::new();
    let (queue, mut sender) = two.lane("a", 4096);
    let options = PoolOptions { bytes: FRAME_BYTES as u64, ..PoolOptions::default() };
    sender.set_pool(two.there.create_pool(options).unwrap());
    let (mut queue, mut sender) = (AsyncQueue::new(queue).unwrap(), AsyncSender::new(sender).unwrap());
    let sending = tokio::spawn(async move {
        for number in 0..20_u8 {
            sender.send(&vec![number; FRAME_BYTES]).await.unwrap();
        }
        sender
    });
    for number in 0..20_u8 {
        let message = soon(queue.receive()).await.unwrap();
        assert!(message.payload.len() == FRAME_BYTES && message.payload.iter().all(|byte| *byte == number));
    }
    drop(sending.await.unwrap());
}

/// The reader keeps a segment for a while: whoever awaits its block hears of the release, and of nothing else.
#[tokio::test]
async fn a_task_awaits_what_a_reader_releases_late() {
    let two = Two::new();
    let (queue, mut sender) = two.lane("a", 4096);
    let options = PoolOptions { bytes: FRAME_BYTES as u64, ..PoolOptions::default() };
    sender.set_pool(two.there.create_pool(options).unwrap());
    let (mut queue, mut sender) = (AsyncQueue::new(queue).unwrap(), AsyncSender::new(sender).unwrap());
    for round in 0..5 {
        let block = soon(sender.block(FRAME_BYTES)).await.unwrap().share();
        sender.send_segments(&Outgoing::bytes(b"frame"), &[block.whole()]).await.unwrap();
        drop(block);
        let held = soon(queue.receive()).await.unwrap();
        assert!(sender.block(FRAME_BYTES).now_or_never().is_none(), "round {round}: it is lent");
        let later = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            drop(held);
        });
        drop(soon(sender.block(FRAME_BYTES)).await.unwrap());
        later.await.unwrap();
    }
}

/// What is waited for can also be with the reader of another lane, or with another thread of this process.
#[tokio::test]
async fn a_task_awaits_a_block_that_went_by_another_lane() {
    let two = Two::new();
    let third = Client::over(two.broker.connect().unwrap()).unwrap();
    let (_queue, mut sender) = two.lane("a", 4096);
    let (mut elsewhere, mut other) = Two::between(&third, &two.there, "b", 4096);
    let options = PoolOptions { bytes: FRAME_BYTES as u64, ..PoolOptions::default() };
    let pool = two.there.create_pool(options).unwrap();
    sender.set_pool(pool.clone());
    let mut sender = AsyncSender::new(sender).unwrap();

    let block = pool.loan(FRAME_BYTES).unwrap().share();
    let waiting = tokio::spawn(async move {
        drop(sender.block(FRAME_BYTES).await.unwrap());
        sender
    });
    // It waits while the block is here, then while the other lane's reader has it.
    tokio::time::sleep(Duration::from_millis(20)).await;
    other.send_segments(&Outgoing::default(), &[block.whole()]).unwrap();
    drop(block);
    let held = elsewhere.receive_timeout(SOON).unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!waiting.is_finished());
    drop(held);
    let mut sender = soon(waiting).await.unwrap();

    let block = pool.loan(FRAME_BYTES).unwrap();
    let waiting = tokio::spawn(async move { drop(sender.block(FRAME_BYTES).await.unwrap()) });
    tokio::time::sleep(Duration::from_millis(20)).await;
    std::thread::spawn(move || drop(block)).join().unwrap();
    soon(waiting).await.unwrap();
}

/// There is always a message and always room; still another task of the thread has its turn before all are through.
#[tokio::test]
async fn a_task_that_never_waits_lets_others_run() {
    let two = Two::new();
    let (queue, sender) = two.lane("a", 1 << 16);
    let (mut queue, mut sender) = (AsyncQueue::new(queue).unwrap(), AsyncSender::new(sender).unwrap());
    let count = 500_u32;
    let has_run = Arc::new(AtomicBool::new(false));
    for is_sending in [true, false] {
        has_run.store(false, Ordering::Relaxed);
        let seen = Arc::clone(&has_run);
        let busy = tokio::spawn(async move {
            let mut alone = 0;
            for number in 0..count {
                if is_sending {
                    sender.send(&number.to_le_bytes()).await.unwrap();
                } else {
                    assert_eq!(queue.receive().await.unwrap().payload, number.to_le_bytes());
                }
                alone += u32::from(!seen.load(Ordering::Relaxed));
            }
            (queue, sender, alone)
        });
        let other = Arc::clone(&has_run);
        let modest = tokio::spawn(async move { other.store(true, Ordering::Relaxed) });
        let (queue_again, sender_again, alone) = soon(busy).await.unwrap();
        modest.await.unwrap();
        assert!(alone < count, "sending: {is_sending}");
        (queue, sender) = (queue_again, sender_again);
    }
}

/// The stream is over with its error, as one that loops over it expects.
#[tokio::test]
async fn a_stream_ends_after_its_error() {
    let two = Two::new();
    let (queue, mut sender) = two.lane("a", 4096);
    let mut queue = AsyncQueue::new(queue).unwrap();
    sender.send(b"last").unwrap();
    let Two { broker, here, .. } = two;
    drop((sender, broker));
    let items: Vec<_> = soon(queue.by_ref().collect()).await;
    assert!(matches!(&items[..], [Ok(_), Err(_)]), "{items:?}");
    assert!(queue.is_terminated() && queue.next().await.is_err());
    drop(here);
}

/// As often as one asks, and not only the first time that the runtime sees the socket's end.
#[tokio::test]
async fn who_asks_again_is_told_again_that_the_broker_is_gone() {
    let Two { broker, here, there } = Two::new();
    let queue = here.create_queue(QueueOptions::default()).unwrap();
    let named = here.publish("a", queue.capability(), Rights::SEND, Audience::Everyone).unwrap();
    let options = SenderOptions { ring_bytes: Some(4096), ..SenderOptions::default() };
    let mut sender = there.open_sender_with(&there.lookup("a").unwrap(), options).unwrap();
    while sender.try_send(&[1; 500]).is_ok() {}
    let idle = here.create_queue(QueueOptions::default()).unwrap();
    let (mut idle, mut sender) = (AsyncQueue::new(idle).unwrap(), AsyncSender::new(sender).unwrap());
    assert!(idle.receive().now_or_never().is_none());
    drop((named, broker));
    for round in 0..4 {
        assert!(
            matches!(soon(idle.receive()).await, Err(Error::BrokerGone | Error::SessionEnded(_))),
            "{round}"
        );
        assert!(soon(sender.send(&[1; 500])).await.is_err(), "{round}");
    }
    drop(queue);
}

/// A future that was dropped while it waited for the ring leaves one that waits for a pool to listen for itself; and a lane that has
/// had nothing of the pool's is listened at once it has. Whoever misses either looks by himself after half a second: 60 times are
/// longer than [`soon`] allows.
#[tokio::test]
async fn what_is_waited_for_next_may_be_something_else() {
    let two = Two::new();
    let third = Client::over(two.broker.connect().unwrap()).unwrap();
    let (_queue, sender) = two.lane("a", 4096);
    let (mut elsewhere, mut other) = Two::between(&third, &two.there, "b", 4096);
    let mut sender = AsyncSender::new(sender).unwrap();
    while sender.send(&[1; 500]).now_or_never().is_some() {}
    let options = PoolOptions { bytes: 4096, ..PoolOptions::default() };
    let all = soon(async {
        for _ in 0..60 {
            assert!(sender.send(&[1; 500]).now_or_never().is_none());
            let pool = two.there.create_pool(options).unwrap();
            sender.get_mut().set_pool(pool.clone());
            for is_sent in [false, true, true] {
                let block = pool.loan(4096).unwrap().share();
                let waiting = tokio::spawn(async move {
                    drop(sender.block(4096).await.unwrap());
                    sender
                });
                let pause = || tokio::time::sleep(Duration::from_millis(2));
                pause().await;
                if is_sent {
                    other.send_segments(&Outgoing::default(), &[block.whole()]).unwrap();
                    drop(block);
                    let held = elsewhere.receive_timeout(SOON).unwrap();
                    pause().await;
                    assert!(!waiting.is_finished());
                    drop(held);
                } else {
                    drop(block);
                }
                sender = waiting.await.unwrap();
            }
        }
    });
    all.await;
}

/// A receiver rings when a quarter of the ring is free; one that takes less and then nothing leaves room all the same.
#[tokio::test]
async fn room_is_found_of_which_nobody_tells() {
    let two = Two::new();
    let (mut queue, sender) = two.lane("a", 1 << 16);
    let mut sender = AsyncSender::new(sender).unwrap();
    // Seven fill the ring but for 8136 bytes, and after one is taken more than three quarters are in use.
    while sender.send(&[1; 8192]).now_or_never().is_some() {}
    let sending = tokio::spawn(async move {
        sender.send(&[2; 8192]).await.unwrap();
        sender
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    queue.try_receive().unwrap();
    drop(soon(sending).await.unwrap());
}
