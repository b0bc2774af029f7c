//! The order of measuring: every round runs each scenario once with all its systems, between two looks at the cache line.
//!
//! The systems of a scenario run one right after the other, so that what the machine does besides meets all alike. Where
//! the two looks differ, the machine has changed in between, and the round of that scenario is measured again. The median
//! over the rounds counts; a ratio is the median of the rounds' ratios, each of two figures of the same round.

use std::time::{Duration, Instant};

use crate::{
    Result,
    pair::{Figures, Run},
    place::Place,
    scenario::{Kind, Metric, Scenario, Waiting},
    systems::{self, Rank, SYSTEMS, System},
};

pub(crate) struct Plan<'p> {
    pub(crate) rounds: usize,
    pub(crate) duration: Duration,
    /// After so long nothing is measured again.
    pub(crate) patience: Duration,
    pub(crate) scenarios: &'p [Scenario],
    pub(crate) cpus: [usize; 2],
    pub(crate) place: &'p Place,
}

/// The figures of one system in one scenario, one for each metric, round by round.
pub(crate) struct Row {
    pub(crate) scenario: Scenario,
    pub(crate) system: &'static str,
    pub(crate) rank: Rank,
    rounds: Vec<Figures>,
}

pub(crate) struct Outcome {
    pub(crate) rows: Vec<Row>,
    /// The round trip of the bare cache line before and after each scenario of each round, in ns.
    pub(crate) cache_line_ns: Vec<[f64; 2]>,
    /// What went wrong with Keyway or a limit. What failed in a scenario has no row there.
    pub(crate) failures: Vec<String>,
    /// What went wrong with a peer, and what was not there to be measured.
    pub(crate) notes: Vec<String>,
}

/// How long the cache line is looked at.
const LOOK: Duration = Duration::from_millis(40);
/// The most often that a scenario is measured in a round.
const ATTEMPTS: usize = 3;
/// By how much two looks may differ, as a share of the lesser one.
const STEADY: f64 = 0.2;

struct Series {
    system: &'static dyn System,
    row: Row,
    failure: Option<String>,
}

impl Plan<'_> {
    pub(crate) fn carry_out(&self, mut progress: impl FnMut(&str)) -> Result<Outcome> {
        let started = Instant::now();
        let (there, mut notes) = systems::there();
        let mut all: Vec<(Scenario, Vec<Series>)> =
            self.scenarios.iter().map(|&scenario| (scenario, series(&there, scenario))).collect();
        let mut cache_line_ns = Vec::new();
        for round in 1..=self.rounds {
            for (scenario, series) in &mut all {
                for attempt in 1..=ATTEMPTS {
                    let before_ns = self.look_at_cache_line()?;
                    let what = format!("round {round} of {}: {}", self.rounds, scenario.name());
                    let figures = self.run_all(series, &what, &mut progress);
                    let after_ns = self.look_at_cache_line()?;
                    let is_steady = (before_ns - after_ns).abs() <= STEADY * before_ns.min(after_ns);
                    if is_steady || attempt == ATTEMPTS || started.elapsed() >= self.patience {
                        for (series, figures) in series.iter_mut().zip(figures) {
                            series.row.rounds.extend(figures);
                        }
                        cache_line_ns.push([before_ns, after_ns]);
                        break;
                    }
                }
            }
        }
        progress("");
        let (mut rows, mut failures) = (Vec::new(), Vec::new());
        for series in all.into_iter().flat_map(|(_, series)| series) {
            match series.failure {
                None => rows.push(series.row),
                Some(failure) if series.row.rank == Rank::Peer => notes.push(failure),
                Some(failure) => failures.push(failure),
            }
        }
        Ok(Outcome { rows, cache_line_ns, failures, notes })
    }

    /// One run of each that has not failed, and nothing of those that have.
    fn run_all(
        &self,
        all: &mut [Series],
        what: &str,
        progress: &mut impl FnMut(&str),
    ) -> Vec<Option<Figures>> {
        let run = |series: &mut Series| {
            if series.failure.is_some() {
                return None;
            }
            progress(&format!("{what} {}", series.row.system));
            let measured = self.run(series.system, series.row.scenario, self.duration).measure();
            measured
                .map_err(|error| series.failure = Some(format!("{what}, {}: {error}", series.row.system)))
                .ok()
        };
        all.iter_mut().map(run).collect()
    }

    fn run(&self, system: &'static dyn System, scenario: Scenario, duration: Duration) -> Run<'_> {
        Run { system, scenario, duration, cpus: self.cpus, place: self.place }
    }

    fn look_at_cache_line(&self) -> Result<f64> {
        let scenario = Scenario { kind: Kind::RoundTrip(Waiting::Spinning), bytes: 64, batch: 1 };
        let system = systems::named("cache-line").ok_or("no such system")?;
        let figures = self.run(system, scenario, LOOK).measure()?;
        Ok(figures[0])
    }
}

fn series(there: &[&'static dyn System], scenario: Scenario) -> Vec<Series> {
    let offering = SYSTEMS.iter().filter(|system| {
        system.offers(scenario) && there.iter().any(|candidate| candidate.name() == system.name())
    });
    let series = offering.map(|&system| {
        let row = Row { scenario, system: system.name(), rank: system.rank(), rounds: Vec::new() };
        Series { system, row, failure: None }
    });
    series.collect()
}

impl Row {
    /// The median over the rounds.
    pub(crate) fn value(&self, metric: Metric) -> Option<f64> {
        let values: Vec<f64> = self.in_rounds(metric)?.collect();
        (!values.is_empty()).then(|| median(values))
    }

    /// The metric that the row is judged by.
    pub(crate) fn main_value(&self) -> Option<f64> {
        self.value(self.scenario.metrics()[0])
    }

    /// How many times the other row's figure this row's is: the median over the rounds.
    pub(crate) fn ratio(&self, metric: Metric, other: &Row) -> Option<f64> {
        let (own, others) = (self.in_rounds(metric)?, other.in_rounds(metric)?);
        let ratios: Vec<f64> = own.zip(others).map(|(own, other)| own / other).collect();
        (!ratios.is_empty()).then(|| median(ratios))
    }

    fn in_rounds(&self, metric: Metric) -> Option<impl Iterator<Item = f64>> {
        let index = self.scenario.metrics().iter().position(|&candidate| candidate == metric)?;
        Some(self.rounds.iter().map(move |figures| figures[index]))
    }
}

impl Outcome {
    pub(crate) fn row(&self, scenario: &str, system: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.system == system && row.scenario.name() == scenario)
    }

    pub(crate) fn rows_of(&self, scenario: Scenario) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.scenario == scenario)
    }

    /// Each scenario that has rows, once.
    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        let mut scenarios: Vec<_> = self.rows.iter().map(|row| row.scenario).collect();
        scenarios.dedup();
        scenarios
    }

    /// How many rounds of a scenario stayed unsteady, of how many.
    pub(crate) fn unsteady(&self) -> (usize, usize) {
        let unsteady = self
            .cache_line_ns
            .iter()
            .filter(|[before, after]| (before - after).abs() > STEADY * before.min(*after));
        (unsteady.count(), self.cache_line_ns.len())
    }
}

/// The lower of the two middle ones of an even number.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

#[cfg(test)]
impl Row {
    /// A row as rounds with these figures would have left it.
    pub(crate) fn of(scenario: &str, system: &'static str, rank: Rank, rounds: &[Figures]) -> Self {
        let scenario = scenario.parse().expect("a scenario");
        Self { scenario, system, rank, rounds: rounds.to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use crate::{scenario::Metric, systems::Rank};

    use super::{Row, median};

    #[test]
    fn the_median_is_a_measured_value() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_ratio_is_of_figures_of_the_same_round() {
        let row = |system, values: [f64; 3]| {
            Row::of("one-way-64", system, Rank::Peer, &values.map(|value| vec![value]))
        };
        let (slow, fast) = (row("slow", [1.0, 10.0, 3.0]), row("fast", [2.0, 40.0, 6.0]));
        assert_eq!(fast.ratio(Metric::Rate, &slow).map(f64::round), Some(2.0));
        assert_eq!(fast.ratio(Metric::P50, &slow), None);
    }
}
