//! The outcome for people, as a table, and for programs, as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::{
    figures,
    machine::Machine,
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
        let verdict = |verdict: &crate::aims::Verdict| {
            json!({
                "scenario": verdict.scenario,
                "metric": verdict.metric,
                "asked": verdict.asked,
                "measured": verdict.measured,
                "met": verdict.is_met,
            })
        };
        let aims: Vec<Value> = self.verdicts().iter().map(verdict).collect();
        json!({
            "machine": described,
            "rows": rows,
            "aims": aims,
            "invalid": self.invalid(),
            "notes": self.notes,
        })
    }

    pub(crate) fn to_table(&self, machine: &Machine) -> String {
        let mut table = format!("{}\n", machine.headline());
        if !self.cache_line_ns.is_empty() {
            let _ = writeln!(table, "{}", self.cache_line_summary());
        }
        for scenario in self.scenarios() {
            let limit = self.limit(scenario);
            let _ = write!(table, "\n{:<28}", scenario.name());
            for metric in scenario.metrics() {
                let _ = write!(table, "{:>14}", metric.name());
            }
            let _ = writeln!(table, "   times the limit ({})", scenario.limit());
            for row in self.rows_of(scenario) {
                let _ = writeln!(table, "  {:<26}{}{:>8}", row.system, cells(row), ratio(row, limit));
            }
        }
        for verdict in self.verdicts() {
            let head = format!("\n{} ({})", verdict.scenario, verdict.metric);
            let _ = write!(table, "{head:<44}{:<48}{:>12}  {}", verdict.asked, verdict.shown, verdict.word());
        }
        for why in self.invalid() {
            let _ = write!(table, "\nINVALID: {why}");
        }
        for note in &self.notes {
            let _ = write!(table, "\nnot measured: {note}");
        }
        table + "\n"
    }

    pub(crate) fn limit(&self, scenario: Scenario) -> Option<&Row> {
        self.rows_of(scenario).find(|row| row.system == scenario.limit())
    }

    pub(crate) fn distance(&self) -> &'static str {
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

    pub(crate) fn cache_line_summary(&self) -> String {
        let (low, high) =
            self.looks().fold((f64::MAX, 0.0_f64), |(low, high), ns| (low.min(ns), high.max(ns)));
        let (unsteady, rounds) = self.unsteady();
        format!(
            "cache line there and back, before and after each scenario of each round: {low:.0} to {high:.0} ns ({}); \
             {unsteady} of {rounds} stayed unsteady",
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
    row.scenario.metrics().iter().filter_map(|&metric| {
        Some(json!({
            "scenario": row.scenario.name(),
            "system": row.system,
            "size": row.scenario.bytes,
            "batch": row.scenario.batch,
            "metric": metric.name(),
            "value": row.value(metric)?,
            "unit": metric.unit(),
        }))
    })
}

fn cells(row: &Row) -> String {
    row.scenario.metrics().iter().fold(String::new(), |cells, &metric| {
        let shown = row.value(metric).map_or(String::new(), |value| metric.show(value));
        format!("{cells}{shown:>14}")
    })
}

/// How many times worse than the limit, by the metric that a row is judged by.
fn ratio(row: &Row, limit: Option<&Row>) -> String {
    let metric: Metric = row.scenario.metrics()[0];
    let ratio = limit.and_then(|limit| row.ratio(metric, limit));
    let worse = ratio.map(|ratio| if metric.is_more_better() { 1.0 / ratio } else { ratio });
    worse.map_or("-".to_owned(), |worse| format!("{worse:.2}"))
}
