//! Senders on real lanes that stamp as they like: a queue that takes its lanes for stamped ones, whose senders write what is a
//! stamp by themselves.

use std::time::Duration;

use keyway_abi::{QueueOrder, Rights, request::Audience};
use keyway_broker::Embedded;
use keyway_shm::LaneFault;

use super::*;
use crate::{
    client::Client,
    queue::{Incoming, QueueOptions, lanes::Lanes},
    sender::{Sender, SenderOptions},
};

const RING_BYTES: u32 = 4096;
const SOON: Duration = Duration::from_secs(5);

struct Stage {
    queue: Queue,
    senders: Vec<Sender>,
    _clients: [Client; 2],
    _broker: Embedded,
}

impl Stage {
    fn new(lanes: usize) -> Self {
        let broker = Embedded::start().expect("a broker");
        let client = Client::over(broker.connect().expect("a socket")).expect("a session");
        let mut queue = client.create_queue(QueueOptions::default()).expect("a queue");
        // For the broker it goes on as fair, so senders do not stamp.
        (queue.by_arrival, queue.lanes) = (Some(Box::default()), Lanes::new(QueueOrder::Arrival));
        let theirs = Client::over(broker.connect().expect("a socket")).expect("a session");
        let published = client.publish("liars", queue.capability(), Rights::SEND, Audience::Everyone);
        let capability = theirs.lookup("liars").expect("it is there");
        let options = SenderOptions { ring_bytes: Some(RING_BYTES), ..SenderOptions::default() };
        let open = |_| theirs.open_sender_with(&capability, options).expect("a lane");
        let senders: Vec<Sender> = (0..lanes).map(open).collect();
        drop((capability, published));
        while queue.lanes.len() < lanes {
            assert!(matches!(queue.next_timeout(SOON), Ok(Incoming::Opened(_))));
        }
        while queue.try_next().expect("live").is_some() {}
        for slot in 0..lanes {
            queue.lanes.get_mut(slot).expect("a lane").stamps = Stamps::new(true, RING_BYTES);
        }
        Stage { queue, senders, _clients: [client, theirs], _broker: broker }
    }

    fn lie(&mut self, lane: usize, stamp_ns: u64, text: &[u8]) -> Result<(), Error> {
        self.senders[lane].try_send(&[&stamp_ns.to_le_bytes(), text].concat())
    }

    /// An honest message.
    fn send(&mut self, lane: usize, text: &[u8]) {
        self.lie(lane, clock::now_ns(), text).expect("room");
    }

    fn take(&mut self) -> Vec<u8> {
        self.queue.try_receive().expect("a message").payload
    }
}

#[test]
fn a_record_too_short_for_a_stamp_ends_its_lane_and_no_other() {
    let mut stage = Stage::new(3);
    stage.send(0, b"before");
    stage.send(1, b"one");
    stage.senders[0].send(b"short!!").expect("room");
    stage.send(2, b"two");
    let lane = stage.senders[0].lane();
    let mut payloads = Vec::new();
    let why = loop {
        match stage.queue.next_timeout(SOON).expect("live") {
            Incoming::Message(message) => payloads.push(message.payload),
            Incoming::Ended { lane: of, why, .. } => {
                assert_eq!(of, lane);
                break why;
            }
            Incoming::Opened(_) => {}
        }
    };
    let fault = LaneFault::StampMissing { carried_bytes: 7, stamp_bytes: 8 };
    assert!(matches!(why, Error::PeerFault(found) if found == fault), "{why:?}");
    stage.send(1, b"three");
    while payloads.len() < 4 {
        payloads.push(stage.take());
    }
    assert_eq!(payloads, [&b"before"[..], b"one", b"two", b"three"]);
    assert!(stage.queue.peers().all(|peer| peer.lane != lane));
    assert!(matches!(stage.senders[0].send(b"more than a stamp"), Err(Error::LaneEnded { .. })));
}

/// While others lie as they like, honest lanes keep their order, and each gets its turn.
#[test]
fn whatever_liars_say_honest_lanes_keep_their_order_and_starve_not() {
    let lies: [fn(u64) -> u64; 4] = [|_| 0, |_| u64::MAX, |turn| u64::MAX - turn, |turn| turn];
    for (index, lie) in lies.into_iter().enumerate() {
        let mut stage = Stage::new(3);
        let (mut sent, mut received, mut turn, mut since) = (0_u32, 0_u32, 0, 0);
        while received < 300 {
            // The liar's ring is always full.
            while stage.lie(0, lie(turn), b"mine").is_ok() {
                turn += 1;
            }
            if sent < received + 5 {
                let lane = 1 + (sent.wrapping_mul(2_654_435_761) >> 20) as usize % 2;
                stage.send(lane, &sent.to_le_bytes());
                sent += 1;
            }
            let payload = stage.take();
            if payload == b"mine" {
                since += 1;
                let ring_messages = RING_BYTES.div_ceil(24);
                assert!(since <= 2 * ring_messages, "lie {index}: {since} messages of it came first");
            } else {
                assert_eq!(payload, received.to_le_bytes(), "lie {index}");
                (received, since) = (received + 1, 0);
            }
        }
    }
}

#[test]
fn a_lane_that_had_nothing_when_it_was_its_turn_goes_behind_the_others() {
    let mut stage = Stage::new(2);
    stage.lie(0, 0, b"first").expect("room");
    stage.send(1, b"second");
    let slot = stage.queue.lanes.slot(stage.senders[0].lane());
    assert_eq!(stage.queue.next_lane(), slot);
    stage.queue.found_nothing(slot.expect("a lane"));
    assert_eq!([stage.take(), stage.take()], [&b"second"[..], b"first"]);
}

/// What a sender says by another clock is not looked at.
#[test]
fn by_another_clock_a_message_was_sent_when_it_is_seen() {
    let mut stage = Stage::new(2);
    let slot = stage.queue.lanes.slot(stage.senders[0].lane()).expect("a lane");
    for (is_same_clock, expected) in [(true, [b"other", b"first"]), (false, [b"first", b"other"])] {
        stage.queue.lanes.get_mut(slot).expect("a lane").stamps = Stamps::new(is_same_clock, RING_BYTES);
        stage.send(1, b"first");
        stage.lie(0, 5, b"other").expect("room");
        assert_eq!([stage.take(), stage.take()], expected.map(|text| text.to_vec()));
    }
}
