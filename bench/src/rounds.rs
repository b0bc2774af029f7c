//! The order of measuring: every round runs all scenarios and systems once, between two looks at the cache line.
//!
//! Interleaving spreads what the machine does besides over all systems alike. The median over the rounds counts.

use std::time::Duration;

use crate::{
    Result,
    pair::{Figures, Run},
    place::Place,
    scenario::{Metric, Scenario},
    systems::{self, SYSTEMS, System},
};

pub(crate) struct Plan<'p> {
    pub(crate) rounds: usize,
    pub(crate) duration: Duration,
    pub(crate) scenarios: &'p [Scenario],
    pub(crate) cpus: [usize; 2],
    pub(crate) place: &'p Place,
}

/// The figures of one system in one scenario, one for each metric.
pub(crate) struct Row {
    pub(crate) scenario: Scenario,
    pub(crate) system: &'static str,
    pub(crate) medians: Figures,
}

impl Row {
    pub(crate) fn value(&self, metric: Metric) -> Option<f64> {
        let index = self.scenario.metrics().iter().position(|&candidate| candidate == metric)?;
        self.medians.get(index).copied()
    }
}

pub(crate) struct Outcome {
    pub(crate) rows: Vec<Row>,
    /// The round trip of the bare cache line before and after each round, in ns.
    pub(crate) cache_line_ns: Vec<[f64; 2]>,
    /// What went wrong; a system that failed in a scenario has no row there.
    pub(crate) failures: Vec<String>,
}

/// How long the cache line is looked at between the rounds.
const LOOK: Duration = Duration::from_millis(150);

struct Series {
    scenario: Scenario,
    system: &'static dyn System,
    rounds: Vec<Figures>,
    has_failed: bool,
}

impl Plan<'_> {
    pub(crate) fn carry_out(&self, mut progress: impl FnMut(&str)) -> Result<Outcome> {
        let mut all: Vec<Series> = self.scenarios.iter().flat_map(|&scenario| series(scenario)).collect();
        let mut cache_line_ns = Vec::new();
        let mut failures = Vec::new();
        // Without a scenario there is nothing to look at the machine for.
        let rounds = if all.is_empty() { 0 } else { self.rounds };
        for round in 1..=rounds {
            let before_ns = self.look_at_cache_line()?;
            for series in all.iter_mut().filter(|series| !series.has_failed) {
                let what = format!("{} {}", series.scenario.name(), series.system.name());
                progress(&format!("round {round} of {}: {what}", self.rounds));
                match self.run(series.system, series.scenario, self.duration).measure() {
                    Ok(figures) => series.rounds.push(figures),
                    Err(error) => {
                        series.has_failed = true;
                        failures.push(format!("{what}, round {round}: {error}"));
                    }
                }
            }
            cache_line_ns.push([before_ns, self.look_at_cache_line()?]);
        }
        progress("");
        let rows = all.iter().filter(|series| !series.has_failed).map(Series::to_row).collect();
        Ok(Outcome { rows, cache_line_ns, failures })
    }

    fn run(&self, system: &'static dyn System, scenario: Scenario, duration: Duration) -> Run<'_> {
        Run { system, scenario, duration, cpus: self.cpus, place: self.place }
    }

    fn look_at_cache_line(&self) -> Result<f64> {
        let scenario = Scenario::RoundTripSpinning;
        let system = systems::named(scenario.limit()).ok_or("no such system")?;
        let figures = self.run(system, scenario, LOOK).measure()?;
        Ok(figures[0])
    }
}

fn series(scenario: Scenario) -> impl Iterator<Item = Series> {
    let offering = SYSTEMS.iter().filter(move |system| system.offers(scenario));
    offering.map(move |&system| Series { scenario, system, rounds: Vec::new(), has_failed: false })
}

impl Series {
    fn to_row(&self) -> Row {
        let medians = (0..self.scenario.metrics().len())
            .map(|metric| median(self.rounds.iter().map(|figures| figures[metric]).collect()))
            .collect();
        Row { scenario: self.scenario, system: self.system.name(), medians }
    }
}

/// The lower of the two middle ones of an even number.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_a_measured_value() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.0).abs() < f64::EPSILON);
    }
}
