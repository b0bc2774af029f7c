//! What is measured: the scenarios, the figures each yields and the system that is its limit.
//!
//! A scenario is data: what is done, with messages of which size, how many at a time. Its name follows from that.

use std::str::FromStr;

/// One line of the benchmark's table of contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scenario {
    pub(crate) kind: Kind,
    /// Bytes of a message.
    pub(crate) bytes: usize,
    /// Messages that are handed over at a time.
    pub(crate) batch: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A message there and one back.
    RoundTrip(Waiting),
    /// Messages in one direction, none lost.
    OneWay,
    /// Bytes in one direction, in large messages.
    Bulk(Touch),
    /// So many senders to one receiver.
    FanIn(usize),
    /// One payload to so many receivers.
    FanOut(usize),
    /// So many lanes on one queue, one of them in use: a message there and back, both sides polling.
    Lanes(usize),
    /// From nothing to the first message.
    Connect,
    /// One more channel on a connection that is there.
    OpenLane,
    /// What a channel on which nothing was sent keeps in memory, in all processes.
    IdleLane,
    /// A request that the broker answers, beside a bare seqpacket round trip.
    Broker,
    /// A capability derived at the broker, beside the same.
    Derive,
    /// A request that the bridge answers, beside a bare futex hand-over.
    Bridge,
    /// A signal raised at another process, until its handler has run, beside `rt_sigqueueinfo`.
    Signal,
}

/// How the sides of a conversation wait for each other, where they have the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// They poll.
    Spinning,
    /// They sleep in the kernel until the other one wakes them.
    Sleeping,
    /// As the system does when nobody says how.
    Default,
}

/// What the sides do with the bytes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    /// All are written, and all are read and judged.
    Every,
    /// Only the first word, which is the message's number.
    Number,
}

const TRIP_BYTES: [usize; 6] = [8, 64, 1 << 10, 4 << 10, 64 << 10, 1 << 20];
const STREAM_BYTES: [usize; 4] = [8, 64, 256, 1 << 10];
const BULK_BYTES: [usize; 2] = [64 << 10, 1 << 20];
const BATCHES: [usize; 2] = [1, 32];
const LANES: [usize; 6] = [1, 10, 100, 1000, 6000, LANES_MAX];
/// The most lanes on one queue.
pub(crate) const LANES_MAX: usize = 10_000;
/// The size where a scenario is not about sizes.
const USUAL_BYTES: usize = 64;

impl Scenario {
    /// All of them, in the order in which they are measured and reported.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for waiting in [Waiting::Spinning, Waiting::Sleeping, Waiting::Default] {
            all.extend(TRIP_BYTES.map(|bytes| Self::new(Kind::RoundTrip(waiting), bytes)));
        }
        for batch in BATCHES {
            all.extend(STREAM_BYTES.map(|bytes| Self { kind: Kind::OneWay, bytes, batch }));
        }
        for touch in [Touch::Every, Touch::Number] {
            all.extend(BULK_BYTES.map(|bytes| Self::new(Kind::Bulk(touch), bytes)));
        }
        all.extend([1, 4].map(|senders| Self::new(Kind::FanIn(senders), USUAL_BYTES)));
        for bytes in [USUAL_BYTES, 1 << 20] {
            all.extend((1..=4).map(|receivers| Self::new(Kind::FanOut(receivers), bytes)));
        }
        all.extend(LANES.map(|lanes| Self::new(Kind::Lanes(lanes), USUAL_BYTES)));
        let others = [
            Kind::Connect,
            Kind::OpenLane,
            Kind::IdleLane,
            Kind::Broker,
            Kind::Derive,
            Kind::Bridge,
            Kind::Signal,
        ];
        all.extend(others.map(|kind| Self::new(kind, USUAL_BYTES)));
        all
    }

    fn new(kind: Kind, bytes: usize) -> Self {
        Self { kind, bytes, batch: 1 }
    }

    /// Whether a quick run measures it: one or two sizes of each kind, and whatever an aim is about.
    pub(crate) fn is_quick(self) -> bool {
        match self.kind {
            Kind::RoundTrip(Waiting::Spinning) => matches!(self.bytes, USUAL_BYTES | 0x1_0000),
            Kind::RoundTrip(_) | Kind::OneWay => self.bytes == USUAL_BYTES,
            Kind::Bulk(touch) => self.bytes == 1 << 20 && touch == Touch::Every,
            Kind::FanOut(receivers) => receivers == 4,
            Kind::Lanes(lanes) => matches!(lanes, 1 | 100 | 1000),
            _ => true,
        }
    }

    pub(crate) fn name(self) -> String {
        let size = size_name(self.bytes);
        match self.kind {
            Kind::RoundTrip(waiting) => format!("round-trip-{size}-{}", waiting.name()),
            Kind::OneWay if self.batch > 1 => format!("one-way-{size}-batch-{}", self.batch),
            Kind::OneWay => format!("one-way-{size}"),
            Kind::Bulk(Touch::Every) => format!("bulk-{size}-written-and-read"),
            Kind::Bulk(Touch::Number) => format!("bulk-{size}-untouched"),
            Kind::FanIn(senders) => format!("senders-{senders}-{size}"),
            Kind::FanOut(receivers) => format!("receivers-{receivers}-{size}"),
            Kind::Lanes(lanes) => format!("lanes-{lanes}"),
            Kind::Connect => "connect".to_owned(),
            Kind::OpenLane => "open-lane".to_owned(),
            Kind::IdleLane => "idle-lane".to_owned(),
            Kind::Broker => "broker-round-trip".to_owned(),
            Kind::Derive => "derive-round-trip".to_owned(),
            Kind::Bridge => "bridge-round-trip".to_owned(),
            Kind::Signal => "signal-to-handler".to_owned(),
        }
    }

    /// The system that no other can beat here by much, because it does nothing but the scenario's bare essence.
    pub(crate) fn limit(self) -> &'static str {
        match self.kind {
            // A bridge request travels over lanes and finds both sides asleep.
            Kind::RoundTrip(Waiting::Sleeping) | Kind::Bridge => "futex",
            Kind::Bulk(_) => "memcpy",
            Kind::Connect | Kind::OpenLane | Kind::IdleLane | Kind::Broker | Kind::Derive => "seqpacket",
            Kind::Signal => "sigqueue",
            _ => "bare-ring",
        }
    }

    pub(crate) fn waiting(self) -> Waiting {
        match self.kind {
            Kind::RoundTrip(waiting) => waiting,
            Kind::OneWay | Kind::Bulk(_) | Kind::Lanes(_) => Waiting::Spinning,
            _ => Waiting::Default,
        }
    }

    pub(crate) fn touch(self) -> Touch {
        match self.kind {
            Kind::Bulk(touch) => touch,
            _ => Touch::Every,
        }
    }

    /// How many processes there are beside the asker.
    pub(crate) fn answerers(self) -> usize {
        match self.kind {
            Kind::FanIn(count) | Kind::FanOut(count) => count,
            _ => 1,
        }
    }

    /// Whether more processes talk than there are CPUs, so that one that polls keeps another from answering.
    pub(crate) fn is_crowded(self) -> bool {
        self.answerers() > 1
    }

    /// The first one is what a row is judged by.
    pub(crate) fn metrics(self) -> &'static [Metric] {
        match self.kind {
            Kind::OneWay | Kind::FanIn(_) => &[Metric::Rate],
            Kind::FanOut(_) => &[Metric::Deliveries],
            Kind::Bulk(_) => &[Metric::Throughput],
            Kind::IdleLane => &[Metric::Bytes],
            Kind::RoundTrip(Waiting::Default) => &[Metric::P50, Metric::P99, Metric::P999, Metric::Sleeps],
            _ => &[Metric::P50, Metric::P99, Metric::P999],
        }
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::all()
            .into_iter()
            .find(|scenario| scenario.name() == name)
            .ok_or_else(|| format!("no scenario is named {name}"))
    }
}

impl Waiting {
    fn name(self) -> &'static str {
        match self {
            Self::Spinning => "spinning",
            Self::Sleeping => "sleeping",
            Self::Default => "default",
        }
    }
}

fn size_name(bytes: usize) -> String {
    match bytes {
        0..1024 => bytes.to_string(),
        1024..0x10_0000 => format!("{}k", bytes >> 10),
        _ => format!("{}m", bytes >> 20),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    P50,
    P99,
    P999,
    /// Messages in one direction.
    Rate,
    /// Messages times those who got them.
    Deliveries,
    Throughput,
    /// How often the asker went to sleep in a round trip.
    Sleeps,
    Bytes,
}

impl Metric {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Rate => "rate",
            Self::Deliveries => "deliveries",
            Self::Throughput => "throughput",
            Self::Sleeps => "sleeps",
            Self::Bytes => "bytes",
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::P50 | Self::P99 | Self::P999 => "ns",
            Self::Rate => "messages/s",
            Self::Deliveries => "deliveries/s",
            Self::Throughput => "bytes/s",
            Self::Sleeps => "sleeps/trip",
            Self::Bytes => "bytes",
        }
    }

    pub(crate) fn is_more_better(self) -> bool {
        matches!(self, Self::Rate | Self::Deliveries | Self::Throughput)
    }

    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Rate | Self::Deliveries if value < 1e5 => format!("{:.1} k/s", value / 1e3),
            Self::Rate | Self::Deliveries => format!("{:.2} M/s", value / 1e6),
            Self::Throughput => format!("{:.2} GB/s", value / 1e9),
            Self::Sleeps if value == 0.0 => "0".to_owned(),
            Self::Sleeps => format!("{value:.5}"),
            Self::Bytes => format!("{:.1} KiB", value / 1024.0),
            _ if value < 10_000.0 => format!("{value:.0} ns"),
            _ => format!("{:.1} µs", value / 1e3),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Scenario;

    #[test]
    fn names_are_unique_and_find_their_scenario() {
        let all = Scenario::all();
        let names: BTreeSet<String> = all.iter().map(|scenario| scenario.name()).collect();
        assert_eq!(names.len(), all.len());
        for scenario in all {
            assert_eq!(scenario.name().parse(), Ok(scenario));
        }
        assert!("round-trip".parse::<Scenario>().is_err());
    }

    #[test]
    fn names_that_others_use_are_stable() {
        for name in [
            "round-trip-64-spinning",
            "round-trip-64-sleeping",
            "one-way-64",
            "broker-round-trip",
            "derive-round-trip",
            "bridge-round-trip",
            "signal-to-handler",
        ] {
            assert!(name.parse::<Scenario>().is_ok(), "{name}");
        }
    }
}
