//! zenoh with shared memory, peer to peer over a Unix socket.
//!
//! As its documentation and its own examples have it: a publisher declared once, with congestion control that blocks and
//! without batching where each message is waited for (`express`); a subscriber with the default queue. From 3 KiB on, which
//! is the size from which zenoh itself turns to shared memory, messages are written in a buffer of a shared memory provider
//! and read where they are; smaller ones are faster in the socket. Nothing is looked for in the network. All answerers
//! connect to the asker. Its receivers sleep; there are no batches to be had.

use std::{borrow::Cow, path::PathBuf, thread, time::Duration};

use zenoh::{
    Config, Session, Wait,
    handlers::FifoChannelHandler,
    pubsub::{Publisher, Subscriber},
    qos::CongestionControl,
    sample::Sample,
    shm::{BlockOn, GarbageCollect, PosixShmProviderBackend, ShmProvider, ShmProviderBuilder},
};

use crate::{
    Result,
    payload::Content,
    scenario::{Kind, Scenario, Waiting},
    side::{Port, Role, Side},
    systems::{Rank, System},
};

pub(crate) struct Zenoh;

impl System for Zenoh {
    fn name(&self) -> &'static str {
        "zenoh"
    }

    fn rank(&self) -> Rank {
        Rank::Peer
    }

    fn offers(&self, scenario: Scenario) -> bool {
        match scenario.kind {
            Kind::OneWay => scenario.batch == 1,
            Kind::RoundTrip(waiting) => waiting != Waiting::Spinning,
            Kind::Bulk(_) | Kind::FanIn(_) | Kind::FanOut(_) => true,
            _ => false,
        }
    }

    fn take_side(&self, side: &Side) -> Result<()> {
        if side.role() == Role::Answerer {
            // The asker listens.
            side.meet()?;
        }
        let session = open(side)?;
        if side.role() == Role::Asker {
            side.meet()?;
        }
        let (out, back) = match side.role() {
            Role::Asker => ("bench/out", "bench/back"),
            Role::Answerer => ("bench/back", "bench/out"),
        };
        let publisher = session
            .declare_publisher(out)
            .congestion_control(CongestionControl::Block)
            .express(matches!(side.scenario().kind, Kind::RoundTrip(_)))
            .wait()
            .map_err(plain)?;
        let subscriber = session.declare_subscriber(back).wait().map_err(plain)?;
        while !publisher.matching_status().wait().map_err(plain)?.matching() {
            thread::sleep(Duration::from_millis(1));
        }
        // Each side knows of one on the other side; that it knows of all takes another moment.
        thread::sleep(SETTLING);
        let content = side.content();
        let provider = (content.bytes >= SHARED_BYTES_MIN).then(|| {
            ShmProviderBuilder::default_backend((content.bytes * BUFFERS).max(PROVIDER_BYTES_MIN)).wait()
        });
        let provider = provider.transpose().map_err(plain)?;
        side.talk(Ends { content, publisher, subscriber, provider, buffer: vec![0; content.bytes] })
    }
}

/// What zenoh takes for large enough (`transport/shared_memory/transport_optimization/message_size_threshold`).
const SHARED_BYTES_MIN: usize = 3072;
const PROVIDER_BYTES_MIN: usize = 1 << 20;
/// Messages that may be on their way.
const BUFFERS: usize = 16;
const SETTLING: Duration = Duration::from_millis(100);

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn plain(error: Failure) -> Box<dyn std::error::Error> {
    error
}

fn open(side: &Side) -> Result<Session> {
    let path: PathBuf = side.place().directory().join("zenoh");
    let endpoint = format!("[\"unixsock-stream/{}\"]", path.display());
    let (listen, connect) = match side.role() {
        Role::Asker => (endpoint.as_str(), "[]"),
        Role::Answerer => ("[]", endpoint.as_str()),
    };
    let mut config = Config::default();
    for (key, value) in [
        ("mode", "\"peer\""),
        ("scouting/multicast/enabled", "false"),
        ("scouting/gossip/enabled", "false"),
        ("transport/shared_memory/enabled", "true"),
        ("listen/endpoints", listen),
        ("connect/endpoints", connect),
    ] {
        config.insert_json5(key, value).map_err(plain)?;
    }
    zenoh::open(config).wait().map_err(plain)
}

struct Ends {
    content: Content,
    publisher: Publisher<'static>,
    subscriber: Subscriber<FifoChannelHandler<Sample>>,
    /// Where large messages are written.
    provider: Option<ShmProvider<PosixShmProviderBackend>>,
    buffer: Vec<u8>,
}

impl Port for Ends {
    fn send(&mut self, number: u64) -> Result<()> {
        let put = if let Some(provider) = &self.provider {
            let allocated =
                provider.alloc(self.content.bytes).with_policy::<BlockOn<GarbageCollect>>().wait();
            let mut message = allocated.map_err(|error| format!("{error:?}"))?;
            self.content.fill(&mut message, number);
            self.publisher.put(message).wait()
        } else {
            self.content.fill(&mut self.buffer, number);
            self.publisher.put(&self.buffer[..]).wait()
        };
        put.map_err(plain)
    }

    fn receive(&mut self) -> Result<u64> {
        let sample = self.subscriber.recv().map_err(plain)?;
        let bytes: Cow<'_, [u8]> = sample.payload().to_bytes();
        self.content.judge(&bytes)
    }
}
