//! iceoryx2, used as its documentation and its own benchmarks use it for speed.
//!
//! Publish-subscribe on slices that are filled and read in place, one service for each direction, ports for exactly as
//! many publishers and subscribers as there are, the next sample loaned while the answer is awaited. Spinning polls
//! `receive`, and yields where there are more processes than CPUs; sleeping adds an event service for each direction and
//! blocks on its listener, which is also what there is by default. Streams without loss need `RetryUntilDelivered` without
//! overflow; a publisher drops messages until the subscriber has called `receive` once, so each subscriber does that
//! before the sides meet. There are no batches.
//!
//! Its files stand in the run's directory and under a prefix of the run's own, and go when the run is over.

use std::{any::Any, fs, mem::MaybeUninit, path, ptr::NonNull, thread};

use iceoryx2::{
    node::{Node, NodeBuilder},
    port::{listener::Listener, notifier::Notifier, publisher::Publisher, subscriber::Subscriber},
    prelude::{
        BackpressureStrategy, Config, FileName, LogLevel, Path, SemanticString, ServiceName,
        SignalHandlingMode, ipc, set_log_level,
    },
    sample_mut_uninit::SampleMutUninit,
};

use crate::{
    Result,
    payload::Content,
    place::Place,
    scenario::{Kind, Scenario, Waiting},
    side::{Port, Role, Side},
    systems::{Rank, System},
};

pub(crate) struct Iceoryx2;

impl System for Iceoryx2 {
    fn name(&self) -> &'static str {
        "iceoryx2"
    }

    fn rank(&self) -> Rank {
        Rank::Peer
    }

    fn offers(&self, scenario: Scenario) -> bool {
        match scenario.kind {
            Kind::OneWay => scenario.batch == 1,
            Kind::Lanes(lanes) => lanes <= LANES_MAX,
            Kind::Connect | Kind::Broker | Kind::Derive | Kind::Bridge | Kind::Signal => false,
            _ => true,
        }
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
        match side.scenario().kind {
            Kind::OpenLane => return open_lanes(side, &node),
            Kind::IdleLane => return leave_idle(side, &node),
            _ => {}
        }
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
        // A publisher is what comes closest to a lane.
        let lanes = if let (Kind::Lanes(lanes), Role::Asker) = (side.scenario().kind, side.role()) {
            lanes
        } else {
            1
        };
        let idle = (1..lanes).map(|_| {
            let publisher = outgoing.samples.publisher_builder();
            Ok(publisher.initial_max_slice_len(side.content().bytes).create()?)
        });
        let _idle: Vec<Publisher<ipc::Service, [u8], ()>> = idle.collect::<Result<_>>()?;
        let publisher = if is_stream(side.scenario()) {
            publisher.backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
        } else {
            publisher
        };
        let publisher = publisher.initial_max_slice_len(side.content().bytes).create()?;
        let subscriber = incoming.samples.subscriber_builder().create()?;
        let scenario = side.scenario();
        let events = match scenario.waiting() {
            Waiting::Sleeping | Waiting::Default if !is_stream(scenario) => Some(Events {
                notifier: outgoing.events.notifier_builder().create()?,
                listener: incoming.events.listener_builder().create()?,
            }),
            _ => None,
        };
        // Both sides have their ports: connect them.
        side.meet()?;
        if subscriber.receive()?.is_some() {
            return Err("a sample arrived before any was sent".into());
        }
        let (content, is_crowded) = (side.content(), scenario.is_crowded());
        let loaned = Some(publisher.loan_slice_uninit(content.bytes)?);
        side.talk(Ports { content, loaned, publisher, subscriber, events, is_crowded })
    }
}

/// Publishers of one service: more take longer to make than a run.
const LANES_MAX: usize = 100;

/// The asker makes a service with a publisher, over and over. A sample can be sent then, though nobody subscribes.
fn open_lanes(side: &Side, node: &Node<ipc::Service>) -> Result<()> {
    side.meet()?;
    if side.role() == Role::Asker {
        side.measure_trips(|sequence| {
            let direction = Direction::open(node, &format!("lane-{sequence}"), side.scenario())?;
            let publisher = direction.samples.publisher_builder();
            Ok((publisher.initial_max_slice_len(side.content().bytes).create()?, direction))
        })?;
    }
    side.meet()
}

/// Services with a publisher at the asker's and a subscriber at the answerer's, and no sample sent.
fn leave_idle(side: &Side, node: &Node<ipc::Service>) -> Result<()> {
    let (mut publishers, mut subscribers) = (Vec::new(), Vec::new());
    let _services = side.measure_idle(IDLE_LANES, || {
        let mut services = Vec::new();
        for lane in 0..IDLE_LANES {
            let direction = Direction::open(node, &format!("lane-{lane}"), side.scenario())?;
            if side.role() == Role::Asker {
                let publisher = direction.samples.publisher_builder();
                publishers.push(publisher.initial_max_slice_len(side.content().bytes).create()?);
            } else {
                subscribers.push(direction.samples.subscriber_builder().create()?);
            }
            services.push(direction);
        }
        Ok(services)
    })?;
    side.meet()
}

const IDLE_LANES: usize = 25;

fn is_stream(scenario: Scenario) -> bool {
    matches!(scenario.kind, Kind::OneWay | Kind::Bulk(_) | Kind::FanIn(_) | Kind::FanOut(_))
}

/// A publisher that finds the buffer full yields and then sleeps, so a large buffer is the fastest: of 16 to 4096 samples
/// of 64 bytes the largest was. Large samples get fewer, which stay in a cache.
fn stream_samples(bytes: usize) -> usize {
    (STREAM_BYTES / bytes).clamp(4, 4096)
}

const STREAM_BYTES: usize = 4 << 20;

type Samples = iceoryx2::service::port_factory::publish_subscribe::PortFactory<ipc::Service, [u8], ()>;
type EventFactory = iceoryx2::service::port_factory::event::PortFactory<ipc::Service>;

struct Direction {
    samples: Samples,
    events: EventFactory,
}

impl Direction {
    fn open(node: &Node<ipc::Service>, name: &str, scenario: Scenario) -> Result<Self> {
        let name = ServiceName::new(name)?;
        let ends = match scenario.kind {
            Kind::Lanes(lanes) => lanes,
            _ => scenario.answerers(),
        };
        let samples = node
            .service_builder(&name)
            .publish_subscribe::<[u8]>()
            .max_publishers(ends)
            .max_subscribers(scenario.answerers())
            .max_nodes(scenario.answerers() + 1)
            .history_size(0);
        let samples = if is_stream(scenario) {
            samples.enable_safe_overflow(false).subscriber_max_buffer_size(stream_samples(scenario.bytes))
        } else {
            samples.enable_safe_overflow(true).subscriber_max_buffer_size(1)
        };
        let events = node.service_builder(&name).event().max_notifiers(ends).max_listeners(ends);
        Ok(Self { samples: samples.open_or_create()?, events: events.open_or_create()? })
    }
}

struct Ports {
    content: Content,
    /// The sample that the next message is written into.
    loaned: Option<SampleMutUninit<ipc::Service, [MaybeUninit<u8>], ()>>,
    publisher: Publisher<ipc::Service, [u8], ()>,
    subscriber: Subscriber<ipc::Service, [u8], ()>,
    /// What wakes the sides; absent where they poll.
    events: Option<Events>,
    is_crowded: bool,
}

struct Events {
    notifier: Notifier<ipc::Service>,
    listener: Listener<ipc::Service>,
}

impl Port for Ports {
    fn send(&mut self, number: u64) -> Result<()> {
        let mut sample = match self.loaned.take() {
            Some(sample) => sample,
            None => self.publisher.loan_slice_uninit(self.content.bytes)?,
        };
        let start = NonNull::from(sample.payload_mut()).cast();
        // SAFETY: the sample has as many bytes as a message (both loans), and is ours until it is sent.
        unsafe { self.content.fill_at(start, number) };
        // SAFETY: it was filled above; where only the number is, the rest is mapped memory, and any byte is a `u8`.
        let sample = unsafe { sample.assume_init() };
        sample.send()?;
        if let Some(events) = &self.events {
            events.notifier.notify()?;
        }
        self.loaned = Some(self.publisher.loan_slice_uninit(self.content.bytes)?);
        Ok(())
    }

    fn receive(&mut self) -> Result<u64> {
        loop {
            if let Some(events) = &self.events {
                events.listener.blocking_wait(|_| ())?;
            }
            if let Some(sample) = self.subscriber.receive()? {
                return self.content.judge(&sample);
            }
            if self.is_crowded {
                thread::yield_now();
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
