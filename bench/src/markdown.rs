//! The outcome as a document: the machine, the command, tables, the aims, and where Keyway loses.

use std::{fmt::Write, time::Duration};

use crate::{
    machine::Machine,
    rounds::{Outcome, Row},
    scenario::{Kind, Scenario, Waiting},
};

/// One table: a title, and the scenarios that are its columns.
type Table = (&'static str, fn(Kind) -> bool);

const TABLES: &[Table] = &[
    ("There and back, both sides polling (median; 99 %, 99.9 %)", |kind| {
        kind == Kind::RoundTrip(Waiting::Spinning)
    }),
    ("There and back, both sides asleep (median; 99 %, 99.9 %)", |kind| {
        kind == Kind::RoundTrip(Waiting::Sleeping)
    }),
    (
        "There and back, waiting as each system does by default (median; 99 %, 99.9 %, sleeps of the asker a trip)",
        |kind| kind == Kind::RoundTrip(Waiting::Default),
    ),
    ("Messages per second in one direction", |kind| kind == Kind::OneWay),
    ("Bytes per second in one direction", |kind| matches!(kind, Kind::Bulk(_))),
    ("Several senders to one receiver, all messages", |kind| matches!(kind, Kind::FanIn(_))),
    ("One sender to several receivers, all deliveries", |kind| matches!(kind, Kind::FanOut(_))),
    ("Lanes on one queue, one of them in use: there and back (median; 99 %, 99.9 %)", |kind| {
        matches!(kind, Kind::Lanes(_))
    }),
    ("Connections, lanes, requests (median; 99 %, 99.9 %)", |kind| {
        matches!(
            kind,
            Kind::Connect | Kind::OpenLane | Kind::Broker | Kind::Derive | Kind::Bridge | Kind::Signal
        )
    }),
    ("Memory of an idle lane, in all processes", |kind| kind == Kind::IdleLane),
];

/// The whole document; `command` is what was run.
pub(crate) fn write(outcome: &Outcome, machine: &Machine, command: &str, took: Duration) -> String {
    let took = took.as_secs_f64();
    let mut text = format!("`{command}`, which measured for {took:.0} s\n\n{}.\n", machine.headline());
    if !outcome.cache_line_ns.is_empty() {
        let _ = writeln!(text, "{}.", capital(&outcome.cache_line_summary()));
    }
    for why in outcome.invalid() {
        let _ = writeln!(text, "\n**The limits of this run are none**: {why}.");
    }
    for &(title, is_of) in TABLES {
        write_table(&mut text, outcome, title, is_of);
    }
    write_aims(&mut text, outcome);
    write_losses(&mut text, outcome);
    for note in &outcome.notes {
        let _ = writeln!(text, "\nNot measured: {note}.");
    }
    text
}

fn write_table(text: &mut String, outcome: &Outcome, title: &str, is_of: fn(Kind) -> bool) {
    let scenarios: Vec<Scenario> =
        outcome.scenarios().into_iter().filter(|scenario| is_of(scenario.kind)).collect();
    let mut systems: Vec<&str> = Vec::new();
    for row in outcome.rows.iter().filter(|row| is_of(row.scenario.kind)) {
        if !systems.contains(&row.system) {
            systems.push(row.system);
        }
    }
    if scenarios.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n## {title}\n");
    // A line for each system: there are more of them than fit beside each other.
    let _ = write!(text, "| |");
    for scenario in &scenarios {
        let _ = write!(text, " {} |", scenario.name());
    }
    let _ = writeln!(text, "\n|---|{}", "---|".repeat(scenarios.len()));
    for system in systems {
        let _ = write!(text, "| {system} |");
        for scenario in &scenarios {
            let row = outcome.rows_of(*scenario).find(|row| row.system == system);
            let _ = write!(text, " {} |", row.map_or(String::new(), cell));
        }
        let _ = writeln!(text);
    }
}

fn cell(row: &Row) -> String {
    let mut shown =
        row.scenario.metrics().iter().filter_map(|&metric| row.value(metric).map(|value| metric.show(value)));
    let main = shown.next().unwrap_or_default();
    let rest: Vec<String> = shown.collect();
    if rest.is_empty() { main } else { format!("{main} ({})", rest.join(", ")) }
}

fn write_aims(text: &mut String, outcome: &Outcome) {
    let verdicts = outcome.verdicts();
    if verdicts.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n## What is aimed at\n\n| scenario | aim | measured | |\n|---|---|---|---|");
    for verdict in verdicts {
        let (scenario, asked) = (verdict.scenario, &verdict.asked);
        let _ = writeln!(
            text,
            "| {scenario} ({}) | {asked} | {} | {} |",
            verdict.metric,
            verdict.shown,
            verdict.word()
        );
    }
}

fn write_losses(text: &mut String, outcome: &Outcome) {
    let losses = outcome.losses();
    let _ = writeln!(text, "\n## Where Keyway loses\n");
    if losses.is_empty() {
        let _ = writeln!(text, "In no scenario of this run.");
        return;
    }
    let _ = writeln!(
        text,
        "Times are the median of the ratios within the rounds. Beside them are the medians over all rounds, which can tell the \
         other way round where two systems are close.\n"
    );
    let _ = writeln!(text, "| scenario | Keyway | better | times |\n|---|---|---|---|");
    for (own, peer, times) in losses {
        let metric = own.scenario.metrics()[0];
        let show = |row: &Row| row.main_value().map_or(String::new(), |value| metric.show(value));
        let (scenario, system) = (own.scenario.name(), peer.system);
        let _ = writeln!(text, "| {scenario} | {} | {system}: {} | {times:.2} |", show(own), show(peer));
    }
}

fn capital(words: &str) -> String {
    let mut characters = words.chars();
    characters.next().map_or(String::new(), |first| first.to_uppercase().chain(characters).collect())
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use crate::{
        rounds::{Outcome, Row},
        systems::Rank,
    };

    use super::{write_losses, write_table};

    fn outcome() -> Outcome {
        let row = |scenario, system, rank, value| Row::of(scenario, system, rank, &[vec![value]]);
        let rows = vec![
            row("one-way-64", "keyway", Rank::Keyway, 2e6),
            row("one-way-64", "pipe", Rank::Peer, 3e6),
            row("one-way-64-batch-32", "pipe", Rank::Peer, 5e6),
        ];
        Outcome { rows, cache_line_ns: Vec::new(), failures: Vec::new(), notes: Vec::new() }
    }

    #[test]
    fn what_a_system_cannot_do_is_an_empty_cell() {
        let mut text = String::new();
        write_table(&mut text, &outcome(), "Rates", |_| true);
        assert!(text.contains("| keyway | 2.00 M/s |  |\n"), "{text}");
        assert!(text.contains("| pipe | 3.00 M/s | 5.00 M/s |\n"), "{text}");
    }

    #[test]
    fn a_faster_peer_is_told_of() {
        let mut text = String::new();
        write_losses(&mut text, &outcome());
        let mut expected = String::new();
        let _ = write!(expected, "| one-way-64 | 2.00 M/s | pipe: 3.00 M/s | 1.50 |");
        assert!(text.contains(&expected), "{text}");
    }
}
