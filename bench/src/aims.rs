//! The figures to reach, each a ratio of two figures of one run, and whether the run is one to judge them by.

use crate::{
    rounds::{Outcome, Row},
    scenario::Metric,
    systems::Rank,
};

/// What Keyway is to reach in a scenario.
struct Aim {
    scenario: &'static str,
    metric: Metric,
    bound: Bound,
    than: Than,
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// What Keyway's figure is divided by.
#[derive(Clone, Copy)]
enum Than {
    System(&'static str),
    /// Whichever of the peers does best. The bare systems and the crate ringfire, which is a ring and no more, are none.
    BestPeer,
    /// Keyway's own figure in another scenario.
    Scenario(&'static str),
    /// Nothing: the bound is in the metric's own unit.
    One,
}

use Bound::{AtLeast, AtMost};

const fn aim(scenario: &'static str, metric: Metric, bound: Bound, than: Than) -> Aim {
    Aim { scenario, metric, bound, than }
}

const AIMS: &[Aim] = &[
    aim("round-trip-64-spinning", Metric::P50, AtMost(1.2), Than::System("bare-ring")),
    aim("round-trip-64-spinning", Metric::P50, AtMost(0.2), Than::System("iceoryx2")),
    aim("round-trip-64-sleeping", Metric::P50, AtMost(1.1), Than::System("futex")),
    aim("round-trip-64-sleeping", Metric::P50, AtMost(1.0), Than::BestPeer),
    aim("round-trip-64-default", Metric::Sleeps, AtMost(0.0), Than::One),
    aim("one-way-64-batch-32", Metric::Rate, AtLeast(0.8), Than::System("bare-ring")),
    aim("one-way-64-batch-32", Metric::Rate, AtLeast(2.0), Than::BestPeer),
    aim("one-way-64", Metric::Rate, AtLeast(0.8), Than::System("bare-ring")),
    aim("one-way-64", Metric::Rate, AtLeast(20.0), Than::System("iceoryx2")),
    aim("bulk-1m-written-and-read", Metric::Throughput, AtLeast(0.95), Than::System("memcpy")),
    aim("senders-4-64", Metric::Rate, AtLeast(0.8), Than::Scenario("senders-1-64")),
    aim("receivers-4-64", Metric::Deliveries, AtLeast(4.0), Than::System("iceoryx2")),
    aim("receivers-4-1m", Metric::Deliveries, AtLeast(1.0), Than::System("iceoryx2")),
    aim("lanes-1000", Metric::P50, AtMost(1.1), Than::Scenario("lanes-1")),
    aim("open-lane", Metric::P50, AtMost(3.0), Than::System("seqpacket")),
    aim("idle-lane", Metric::Bytes, AtMost(12.0 * 1024.0), Than::One),
    aim("broker-round-trip", Metric::P50, AtMost(1.3), Than::System("seqpacket")),
    // The target of the bridge's document.
    aim("bridge-round-trip", Metric::P50, AtMost(100_000.0), Than::One),
];

/// How an aim stands after a run.
pub(crate) struct Verdict {
    pub(crate) scenario: &'static str,
    pub(crate) metric: &'static str,
    /// What is asked, in words.
    pub(crate) asked: String,
    /// What was measured, as asked; `None` where a figure is missing.
    pub(crate) measured: Option<f64>,
    pub(crate) is_met: Option<bool>,
    /// The measured value for people.
    pub(crate) shown: String,
}

impl Verdict {
    pub(crate) fn word(&self) -> &'static str {
        match self.is_met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "not measured",
        }
    }
}

impl Outcome {
    /// One for each aim whose scenario was measured.
    pub(crate) fn verdicts(&self) -> Vec<Verdict> {
        let measured = |aim: &&Aim| self.rows.iter().any(|row| row.scenario.name() == aim.scenario);
        AIMS.iter().filter(measured).map(|aim| self.judge(aim)).collect()
    }

    fn judge(&self, aim: &Aim) -> Verdict {
        let (measured, than) =
            self.compare(aim).map_or((None, aim.than.words()), |(value, than)| (Some(value), than));
        let (is_met, comparison, bound) = match aim.bound {
            AtMost(bound) => (measured.map(|value| value <= bound), "at most", bound),
            AtLeast(bound) => (measured.map(|value| value >= bound), "at least", bound),
        };
        let is_ratio = !matches!(aim.than, Than::One);
        let show = |value: f64| if is_ratio { format!("{value:.2} times") } else { aim.metric.show(value) };
        let asked = if is_ratio {
            format!("{comparison} {bound} times {than}")
        } else {
            format!("{comparison} {}", aim.metric.show(bound))
        };
        Verdict {
            scenario: aim.scenario,
            metric: aim.metric.name(),
            asked,
            measured,
            is_met,
            shown: measured.map_or("-".to_owned(), show),
        }
    }

    /// Keyway's figure as the aim asks for it, and the name of what it was compared with.
    fn compare(&self, aim: &Aim) -> Option<(f64, String)> {
        let own = self.row(aim.scenario, "keyway")?;
        match aim.than {
            Than::One => Some((own.value(aim.metric)?, String::new())),
            Than::System(name) => {
                Some((own.ratio(aim.metric, self.row(aim.scenario, name)?)?, name.to_owned()))
            }
            Than::Scenario(name) => {
                Some((own.ratio(aim.metric, self.row(name, "keyway")?)?, name.to_owned()))
            }
            Than::BestPeer => {
                let best = self.best_peer(own, aim.metric)?;
                Some((own.ratio(aim.metric, best)?, format!("the best peer ({})", best.system)))
            }
        }
    }

    fn best_peer(&self, own: &Row, metric: Metric) -> Option<&Row> {
        let peers = self.rows_of(own.scenario).filter(|row| row.rank == Rank::Peer);
        let key =
            |row: &&Row| row.value(metric).map(|value| if metric.is_more_better() { -value } else { value });
        peers
            .filter(|row| key(row).is_some())
            .min_by(|one, other| key(one).partial_cmp(&key(other)).unwrap_or(std::cmp::Ordering::Equal))
    }

    /// Why the limits of this run are none, if that is so.
    pub(crate) fn invalid(&self) -> Vec<String> {
        let bounds = [
            ("one-way-64", Metric::Rate, AtLeast(0.9), "ringfire"),
            ("one-way-64-batch-32", Metric::Rate, AtLeast(0.9), "ringfire"),
            ("round-trip-64-spinning", Metric::P50, AtMost(1.3), "cache-line"),
        ];
        let judge = |(scenario, metric, bound, other): (&str, Metric, Bound, &str)| {
            let ratio = self.row(scenario, "bare-ring")?.ratio(metric, self.row(scenario, other)?)?;
            let (is_met, bound) = match bound {
                AtMost(bound) => (ratio <= bound, format!("at most {bound}")),
                AtLeast(bound) => (ratio >= bound, format!("at least {bound}")),
            };
            let words = format!("{scenario}: the bare ring is {ratio:.2} times {other}, to be {bound}");
            (!is_met).then_some(words)
        };
        bounds.into_iter().filter_map(judge).collect()
    }

    /// The peers that are better than Keyway, by the metric that a row is judged by, and how many times.
    pub(crate) fn losses(&self) -> Vec<(&Row, &Row, f64)> {
        let mut losses = Vec::new();
        for own in self.rows.iter().filter(|row| row.rank == Rank::Keyway) {
            let metric = own.scenario.metrics()[0];
            for peer in self.rows_of(own.scenario).filter(|row| matches!(row.rank, Rank::Peer | Rank::Ring)) {
                let Some(ratio) = peer.ratio(metric, own) else { continue };
                let times = if metric.is_more_better() { ratio } else { 1.0 / ratio };
                if times > 1.0 {
                    losses.push((own, peer, times));
                }
            }
        }
        losses
    }
}

impl Than {
    fn words(self) -> String {
        match self {
            Self::System(name) | Self::Scenario(name) => name.to_owned(),
            Self::BestPeer => "the best peer".to_owned(),
            Self::One => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        rounds::{Outcome, Row},
        scenario::Scenario,
        systems::Rank,
    };

    use super::{AIMS, Verdict};

    fn outcome(rows: Vec<Row>) -> Outcome {
        Outcome { rows, cache_line_ns: Vec::new(), failures: Vec::new(), notes: Vec::new() }
    }

    fn rate(scenario: &str, system: &'static str, rank: Rank, value: f64) -> Row {
        Row::of(scenario, system, rank, &[vec![value]])
    }

    #[test]
    fn aims_are_about_scenarios_that_there_are() {
        for aim in AIMS {
            let scenario: Scenario = aim.scenario.parse().expect(aim.scenario);
            assert!(scenario.metrics().contains(&aim.metric), "{}", aim.scenario);
            assert!(scenario.is_quick(), "{}", aim.scenario);
        }
    }

    #[test]
    fn aims_are_met_or_missed_by_ratios() {
        let scenario = "one-way-64";
        let outcome = outcome(vec![
            rate(scenario, "bare-ring", Rank::Limit, 100.0),
            rate(scenario, "keyway", Rank::Keyway, 81.0),
            rate(scenario, "iceoryx2", Rank::Peer, 5.0),
        ]);
        let words: Vec<_> = outcome.verdicts().iter().map(Verdict::word).collect();
        assert_eq!(words, ["met", "MISSED"]);
    }

    #[test]
    fn the_best_peer_is_neither_a_limit_nor_a_bare_ring() {
        let scenario = "one-way-64-batch-32";
        let outcome = outcome(vec![
            rate(scenario, "bare-ring", Rank::Limit, 220.0),
            rate(scenario, "ringfire", Rank::Ring, 214.0),
            rate(scenario, "keyway", Rank::Keyway, 190.0),
            rate(scenario, "pipe", Rank::Peer, 70.0),
            rate(scenario, "seqpacket", Rank::Peer, 1.0),
        ]);
        let verdicts = outcome.verdicts();
        assert_eq!(verdicts[1].word(), "met");
        assert!(verdicts[1].asked.contains("pipe"), "{}", verdicts[1].asked);
        assert_eq!(outcome.losses().len(), 1);
    }

    #[test]
    fn a_slow_bare_ring_makes_a_run_invalid() {
        let rows = |bare| {
            let scenario = "one-way-64";
            vec![
                rate(scenario, "bare-ring", Rank::Limit, bare),
                rate(scenario, "ringfire", Rank::Ring, 100.0),
            ]
        };
        assert_eq!(outcome(rows(91.0)).invalid().len(), 0);
        assert_eq!(outcome(rows(89.0)).invalid().len(), 1);
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        let outcome = outcome(vec![rate("one-way-64", "bare-ring", Rank::Limit, 100.0)]);
        assert!(outcome.verdicts().iter().all(|verdict| verdict.is_met.is_none()));
    }
}
