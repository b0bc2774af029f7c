//! What the tour's children tell it, as messages on its queue or as lines of their output.

use std::fmt;

use keyway::{Carried, Client, Outgoing, Rights, Sender};
use serde::{Deserialize, Serialize};

/// Why the tour, or a role in it, cannot go on.
#[derive(Debug)]
pub(super) struct Failed(pub(super) String);

impl<E: fmt::Display> From<E> for Failed {
    fn from(error: E) -> Self {
        Failed(error.to_string())
    }
}

/// The name under which every child finds its line to the tour.
pub(super) const REPORT: &str = "report";

/// One report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The child has made a queue; the right to send to it travels with the report.
    QueueReady,
    /// So many messages have come.
    Progress(u64),
    /// All have come.
    Counted {
        messages: u64,
        elapsed_ns: u64,
        /// The first message that was not the expected one.
        wrong: Option<u64>,
    },
    /// Round trips, in nanoseconds.
    RoundTrips(Percentiles),
    /// The compositor's grants and modes, in nanoseconds.
    Composed {
        register_ns: u64,
        input_grant_ns: u64,
        gpu_grant_ns: u64,
        mode_set: Percentiles,
        bridge: Percentiles,
    },
    /// What the compositor read from the keyboard.
    Typed(String),
    /// The application has drawn, in this colour.
    Drawn { surface: u64, pixel: u32 },
    /// The compositor's picture is on the screen, with the application's at this place.
    Shown { x: u32, y: u32, background: u32 },
    /// The child is where it is waited for.
    Ready,
    /// The grants have ended: the keyboard's descriptor is at its end.
    InputEnded,
}

/// One thing that must be refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attempt {
    /// What was tried.
    pub(super) what: String,
    /// The name of the refusal, or what happened instead.
    pub(super) answer: String,
}

/// The distribution of a time, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Percentiles {
    pub(super) count: u64,
    pub(super) p50_ns: u64,
    pub(super) p90_ns: u64,
    pub(super) p99_ns: u64,
}

impl Percentiles {
    /// Of times that were measured, in any order.
    pub(super) fn of(mut times_ns: Vec<u64>) -> Self {
        times_ns.sort_unstable();
        let at = |percent: usize| {
            let index = (times_ns.len() * percent).div_ceil(100).saturating_sub(1);
            times_ns.get(index).copied().unwrap_or(0)
        };
        Percentiles { count: times_ns.len() as u64, p50_ns: at(50), p90_ns: at(90), p99_ns: at(99) }
    }
}

/// The child's line to the tour.
pub(super) struct Reporter {
    sender: Sender,
}

impl Reporter {
    /// Opens the line that the tour gave.
    pub(super) fn open(client: &Client) -> Result<Self, Failed> {
        let capability = client.inherited(REPORT)?;
        Ok(Reporter { sender: client.open_sender(&capability)? })
    }

    pub(super) fn tell(&mut self, report: &Report) -> Result<(), Failed> {
        Ok(self.sender.send(&serde_json::to_vec(report)?)?)
    }

    /// Tells that a queue is ready, and hands over the right to send to it and to pass that on.
    pub(super) fn hand_over(&mut self, queue: &keyway::Queue) -> Result<(), Failed> {
        let carried = [Carried::Copy(queue.capability(), Rights::SEND | Rights::GRANT)];
        let payload = serde_json::to_vec(&Report::QueueReady)?;
        let message = Outgoing { payload: &payload, capabilities: &carried, ..Outgoing::default() };
        Ok(self.sender.send_message(&message)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let percentiles = Percentiles::of((1..=100).rev().collect());
        assert_eq!((percentiles.p50_ns, percentiles.p90_ns, percentiles.p99_ns), (50, 90, 99));
        assert_eq!(Percentiles::of(vec![7]).p99_ns, 7);
        assert_eq!(Percentiles::of(vec![]), Percentiles::default());
    }
}
