//! iceoryx2, used as its documentation and its own benchmarks use it for speed.
//!
//! Publish-subscribe on typed payloads, one service for each direction, ports for exactly one publisher and one
//! subscriber, the next sample loaned while the answer is awaited. Spinning polls `receive`; sleeping adds an event
//! service for each direction and blocks on its listener. One way without loss needs `RetryUntilDelivered` without
//! overflow; a publisher drops messages until the subscriber has called `receive` once, so each subscriber does that
//! before the sides meet.
//!
//! Its files stand in the run's directory and under a prefix of the run's own, and go when the run is over.

use std::{any::Any, fs, mem::MaybeUninit, path};

use iceoryx2::{
    node::{Node, NodeBuilder},
    port::{listener::Listener, notifier::Notifier, publisher::Publisher, subscriber::Subscriber},
    prelude::{
        BackpressureStrategy, Config, FileName, LogLevel, Path, SemanticString, ServiceName,
        SignalHandlingMode, ZeroCopySend, ipc, set_log_level,
    },
    sample_mut_uninit::SampleMutUninit,
};

use crate::{
    Result,
    payload::Payload,
    place::Place,
    scenario::{Scenario, Waiting},
    side::{Port, Role, Side},
    systems::System,
};

pub(crate) struct Iceoryx2;

impl System for Iceoryx2 {
    fn name(&self) -> &'static str {
        "iceoryx2"
    }

    fn offers(&self, scenario: Scenario) -> bool {
        matches!(scenario, Scenario::RoundTripSpinning | Scenario::RoundTripSleeping | Scenario::OneWay)
    }

    fn prepare(&self, _: Scenario, place: &Place) -> Result<Box<dyn Any>> {
        Ok(Box::new(Leftovers { place: place.clone() }))
    }

    fn take_side(&self, side: &Side) -> Result<()> {
        set_log_level(LogLevel::Error);
        let (out, back) = match side.role() {
            Role::Asker => ("out", "back"),
            Role::Answerer => ("back", "out"),
        };
        let node = NodeBuilder::new()
            .config(&config(side.place())?)
            // Its handler would keep the sides from ending when they are told to.
            .signal_handling_mode(SignalHandlingMode::Disabled)
            .create::<ipc::Service>()?;
        if side.role() == Role::Answerer {
            // The asker creates the services, the answerer opens them.
            side.meet()?;
        }
        let outgoing = Direction::open(&node, out, side.scenario())?;
        let incoming = Direction::open(&node, back, side.scenario())?;
        if side.role() == Role::Asker {
            side.meet()?;
        }
        let publisher = outgoing.samples.publisher_builder();
        let publisher = match side.scenario() {
            Scenario::OneWay => publisher.backpressure_strategy(BackpressureStrategy::RetryUntilDelivered),
            _ => publisher,
        }
        .create()?;
        let subscriber = incoming.samples.subscriber_builder().create()?;
        let events = match side.scenario().waiting() {
            Waiting::Spinning => None,
            Waiting::Sleeping => Some(Events {
                notifier: outgoing.events.notifier_builder().create()?,
                listener: incoming.events.listener_builder().create()?,
            }),
        };
        // Both sides have their ports: connect them.
        side.meet()?;
        if subscriber.receive()?.is_some() {
            return Err("a sample arrived before any was sent".into());
        }
        let loaned = Some(publisher.loan_uninit()?);
        side.talk(Ports { loaned, publisher, subscriber, events })
    }
}

/// A publisher that finds the buffer full yields and then sleeps, so a large buffer is the fastest: of 16 to 4096 samples
/// the largest was.
const ONE_WAY_SAMPLES: usize = 4096;

type Samples = iceoryx2::service::port_factory::publish_subscribe::PortFactory<ipc::Service, Sent, ()>;
type EventFactory = iceoryx2::service::port_factory::event::PortFactory<ipc::Service>;

struct Direction {
    samples: Samples,
    events: EventFactory,
}

impl Direction {
    fn open(node: &Node<ipc::Service>, name: &str, scenario: Scenario) -> Result<Self> {
        let name = ServiceName::new(name)?;
        let samples = node
            .service_builder(&name)
            .publish_subscribe::<Sent>()
            .max_publishers(1)
            .max_subscribers(1)
            .max_nodes(2)
            .history_size(0);
        let samples = match scenario {
            Scenario::OneWay => {
                samples.enable_safe_overflow(false).subscriber_max_buffer_size(ONE_WAY_SAMPLES)
            }
            _ => samples.enable_safe_overflow(true).subscriber_max_buffer_size(1),
        };
        Ok(Self {
            samples: samples.open_or_create()?,
            events: node.service_builder(&name).event().max_notifiers(1).max_listeners(1).open_or_create()?,
        })
    }
}

#[derive(Clone, Copy, Debug, ZeroCopySend)]
#[repr(C)]
struct Sent([u64; 8]);

struct Ports {
    /// The sample that the next message is written into.
    loaned: Option<SampleMutUninit<ipc::Service, MaybeUninit<Sent>, ()>>,
    publisher: Publisher<ipc::Service, Sent, ()>,
    subscriber: Subscriber<ipc::Service, Sent, ()>,
    /// What wakes the sides; absent where they poll.
    events: Option<Events>,
}

struct Events {
    notifier: Notifier<ipc::Service>,
    listener: Listener<ipc::Service>,
}

impl Port for Ports {
    fn send(&mut self, payload: Payload) -> Result<()> {
        let sample = match self.loaned.take() {
            Some(sample) => sample,
            None => self.publisher.loan_uninit()?,
        };
        sample.write_payload(Sent(payload.words())).send()?;
        if let Some(events) = &self.events {
            events.notifier.notify()?;
        }
        self.loaned = Some(self.publisher.loan_uninit()?);
        Ok(())
    }

    fn receive(&mut self) -> Result<Payload> {
        loop {
            if let Some(events) = &self.events {
                events.listener.blocking_wait(|_| ())?;
            }
            if let Some(sample) = self.subscriber.receive()? {
                return Ok(Payload::from_words(sample.0));
            }
        }
    }
}

fn config(place: &Place) -> Result<Config> {
    let mut config = Config::default();
    let directory = place.directory();
    let root = directory.to_str().ok_or("the run's directory is no UTF-8 path")?;
    config.global.set_root_path(&Path::new(root.as_bytes())?);
    config.global.prefix = FileName::new(prefix(place).as_bytes())?;
    Ok(config)
}

fn prefix(place: &Place) -> String {
    format!("iox2_{}_", place.name())
}

/// What is left after both sides have ended, in whatever way: shared memory under the run's prefix. The rest stands in
/// the run's directory and goes with it.
struct Leftovers {
    place: Place,
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        sweep(&prefix(&self.place));
    }
}

/// Removes shared memory whose name begins with `prefix`.
fn sweep(prefix: &str) {
    let Ok(entries) = fs::read_dir(path::Path::new("/dev/shm")) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            // A file that somebody else removed meanwhile is gone as well.
            let _ = fs::remove_file(entry.path());
        }
    }
}
