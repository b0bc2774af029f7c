//! The outcome for people, as a table, and for programs, as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::{
    figures,
    machine::Machine,
    payload::PAYLOAD_BYTES,
    reading::{Aim, Reading},
    rounds::{Outcome, Row},
    scenario::{Metric, Scenario},
};

/// Below this the two CPUs share a near cache; measured machines have 80 to 250 ns near and 420 to 540 ns far.
const NEAR_BELOW_NS: f64 = 300.0;

impl Outcome {
    pub(crate) fn to_json(&self, machine: &Machine) -> Value {
        let rows: Vec<Value> = self.rows.iter().flat_map(row_to_json).collect();
        let mut described = machine.to_json();
        described["cache_line_ns"] = json!(self.cache_line_ns);
        described["distance"] = json!(self.distance());
        json!({ "machine": described, "rows": rows })
    }

    pub(crate) fn to_table(&self, machine: &Machine) -> String {
        let mut table = format!("{}\n", machine.headline());
        if !self.cache_line_ns.is_empty() {
            let _ = writeln!(table, "{}", self.cache_line_summary());
        }
        for scenario in self.scenarios() {
            let limit = self.limit(scenario);
            let _ = write!(table, "\n{:<24}", scenario.name());
            for metric in scenario.metrics() {
                let _ = write!(table, "{:>14}", metric.name());
            }
            let aim = scenario.aim().map_or(String::new(), |aim| format!("; keyway's aim: at most {aim}"));
            let _ = writeln!(table, "   times the limit ({}{aim})", scenario.limit());
            for row in self.rows_of(scenario) {
                let _ = writeln!(table, "  {:<22}{}{:>8}", row.system, cells(row), ratio(row, limit));
            }
        }
        table
    }

    /// Each scenario that has rows, once.
    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        let mut scenarios: Vec<_> = self.rows.iter().map(|row| row.scenario).collect();
        scenarios.dedup();
        scenarios
    }

    pub(crate) fn rows_of(&self, scenario: Scenario) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.scenario == scenario)
    }

    fn limit(&self, scenario: Scenario) -> Option<&Row> {
        self.rows_of(scenario).find(|row| row.system == scenario.limit())
    }

    fn distance(&self) -> &'static str {
        let near = self.looks().filter(|&ns| ns < NEAR_BELOW_NS).count();
        match near {
            0 => "far",
            _ if near == self.looks().count() => "near",
            _ => "changing",
        }
    }

    fn looks(&self) -> impl Iterator<Item = f64> {
        self.cache_line_ns.iter().flatten().copied()
    }

    fn cache_line_summary(&self) -> String {
        let (low, high) =
            self.looks().fold((f64::MAX, 0.0_f64), |(low, high), ns| (low.min(ns), high.max(ns)));
        format!(
            "cache line there and back, before and after each round: {low:.0} to {high:.0} ns ({})",
            self.distance()
        )
    }
}

impl figures::Outcome {
    /// Nothing where no figure was measured.
    pub(crate) fn to_table(&self) -> String {
        let mut table = String::new();
        for measured in &self.measured {
            let _ = writeln!(table, "\n{} ({})", measured.figure.name, measured.figure.about);
            for reading in &measured.readings {
                let _ = writeln!(table, "{}", figure_line(reading).trim_end());
            }
        }
        table
    }
}

fn figure_line(reading: &Reading) -> String {
    let beside = match (&reading.beside, reading.times()) {
        (Some((what, value)), Some(times)) => {
            format!("{times:>8.2} times {} ({what})", reading.unit.show(*value))
        }
        _ => String::new(),
    };
    let aim = match reading.aim {
        Some(Aim::AtMost(most)) => format!("aim: at most {}", reading.unit.show(most)),
        Some(Aim::TimesBeside(most)) => format!("aim: at most {most} times"),
        None => String::new(),
    };
    let missed = if reading.is_met() == Some(false) { ", MISSED" } else { "" };
    format!("  {:<50}{:>12}  {beside:<42} {aim}{missed}", reading.what, reading.unit.show(reading.value))
}

fn row_to_json(row: &Row) -> impl Iterator<Item = Value> {
    row.scenario.metrics().iter().zip(&row.medians).map(|(metric, value)| {
        json!({
            "scenario": row.scenario.name(),
            "system": row.system,
            "size": PAYLOAD_BYTES,
            "metric": metric.name(),
            "value": value,
            "unit": metric.unit(),
        })
    })
}

fn cells(row: &Row) -> String {
    let metrics = row.scenario.metrics().iter().zip(&row.medians);
    metrics.fold(String::new(), |cells, (&metric, &value)| format!("{cells}{:>14}", quantity(metric, value)))
}

/// How many times worse than the limit, by the scenario's first metric.
fn ratio(row: &Row, limit: Option<&Row>) -> String {
    let metric = row.scenario.metrics()[0];
    match (row.value(metric), limit.and_then(|limit| limit.value(metric))) {
        (Some(value), Some(limit)) => format!("{:.2}", metric.times_limit(value, limit)),
        _ => "-".to_owned(),
    }
}

pub(crate) fn quantity(metric: Metric, value: f64) -> String {
    match metric {
        Metric::Rate => format!("{:.2} M/s", value / 1e6),
        _ if value < 10_000.0 => format!("{value:.0} ns"),
        _ => format!("{:.1} µs", value / 1e3),
    }
}
