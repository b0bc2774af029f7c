//! What is measured: the scenarios, the figures each yields and the system that is its limit.

use clap::ValueEnum;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// 64 bytes there and back; both sides poll.
    #[value(name = "round-trip-64-spinning")]
    RoundTripSpinning,
    /// 64 bytes there and back; both sides sleep in the kernel until the other wakes them.
    #[value(name = "round-trip-64-sleeping")]
    RoundTripSleeping,
    /// 64-byte messages in one direction, each published by itself, none lost.
    #[value(name = "one-way-64")]
    OneWay,
    /// A request that the broker answers, beside a bare seqpacket round trip.
    #[value(name = "broker-round-trip")]
    Broker,
    /// A capability derived at the broker, beside the same.
    #[value(name = "derive-round-trip")]
    Derive,
    /// A request that the bridge answers, beside a bare futex hand-over.
    #[value(name = "bridge-round-trip")]
    Bridge,
    /// A signal raised at another process, until its handler has run, beside `rt_sigqueueinfo`.
    #[value(name = "signal-to-handler")]
    Signal,
}

impl Scenario {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RoundTripSpinning => "round-trip-64-spinning",
            Self::RoundTripSleeping => "round-trip-64-sleeping",
            Self::OneWay => "one-way-64",
            Self::Broker => "broker-round-trip",
            Self::Derive => "derive-round-trip",
            Self::Bridge => "bridge-round-trip",
            Self::Signal => "signal-to-handler",
        }
    }

    /// The system that no other can beat here by much, because it does nothing but the scenario's bare essence.
    pub(crate) fn limit(self) -> &'static str {
        match self {
            Self::RoundTripSpinning => "cache-line",
            // A bridge request travels over lanes and finds both sides asleep.
            Self::RoundTripSleeping | Self::Bridge => "futex",
            Self::OneWay => "bare-ring",
            Self::Broker | Self::Derive => "seqpacket",
            Self::Signal => "sigqueue",
        }
    }

    /// How many times the limit Keyway is to need at most, where that was decided.
    pub(crate) fn aim(self) -> Option<f64> {
        matches!(self, Self::Broker).then_some(1.3)
    }

    pub(crate) fn waiting(self) -> Waiting {
        match self {
            Self::RoundTripSpinning | Self::OneWay => Waiting::Spinning,
            Self::RoundTripSleeping | Self::Broker | Self::Derive | Self::Bridge | Self::Signal => {
                Waiting::Sleeping
            }
        }
    }

    pub(crate) fn metrics(self) -> &'static [Metric] {
        match self {
            Self::OneWay => &[Metric::Rate],
            _ => &[Metric::P50, Metric::P90, Metric::P99],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    P50,
    P90,
    P99,
    Rate,
}

impl Metric {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::Rate => "rate",
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Rate => "messages/s",
            _ => "ns",
        }
    }

    /// How many times worse `value` is than `limit`: 1 is the limit itself.
    pub(crate) fn times_limit(self, value: f64, limit: f64) -> f64 {
        match self {
            Self::Rate => limit / value,
            _ => value / limit,
        }
    }
}

/// How both sides of a conversation wait for each other, where they have the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    Spinning,
    Sleeping,
}
