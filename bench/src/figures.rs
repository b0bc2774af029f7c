//! The second family: figures that are no conversation of two sides. Each is one measurement with some lines.
//!
//! Each runs in a process of its own, every round once, after the scenarios, so that neither the memory of one nor its
//! helpers disturb another. The median over the rounds counts; what was counted is added up.

mod broker_revoke;
mod check;
mod death;
mod flood;
mod footprint;
mod operations;
mod races;
mod regions;
mod revoke;
mod world;

use std::{
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use clap::{Args, ValueEnum};
use keyway::Embedded;
use serde_json::{Value, json};

use crate::{
    Result,
    place::Place,
    reading::{Reading, Unit},
    rounds::median,
    side,
    stage::{Duty, Effort, HelperRole, Post, Stage, broker_path},
};

pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    repeats: Repeats,
    measure: fn(&Stage) -> Result<Vec<Reading>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeats {
    EachRound,
    /// It counts, and what it counts is of no use twice.
    Once,
}

pub(crate) const FIGURES: &[Figure] = &[
    Figure {
        name: "capability-check",
        about: "a request that only checks a capability, in the kernel",
        repeats: Repeats::EachRound,
        measure: check::measure,
    },
    Figure {
        name: "capability-operations",
        about: "in the kernel, 10^4 capabilities live",
        repeats: Repeats::EachRound,
        measure: operations::measure,
    },
    Figure {
        name: "revoke",
        about: "trees of so many capabilities, in the kernel",
        repeats: Repeats::EachRound,
        measure: revoke::measure,
    },
    Figure {
        name: "broker-revoke",
        about: "so many capabilities, through a broker",
        repeats: Repeats::EachRound,
        measure: broker_revoke::measure,
    },
    Figure {
        name: "region",
        about: "made, mapped and every page written",
        repeats: Repeats::EachRound,
        measure: regions::measure,
    },
    Figure {
        name: "footprint",
        about: "bytes that the broker keeps for each",
        repeats: Repeats::EachRound,
        measure: footprint::measure,
    },
    Figure {
        name: "hostile-flood",
        about: "what a process that floods the broker costs others",
        repeats: Repeats::EachRound,
        measure: flood::measure,
    },
    Figure {
        name: "death",
        about: "one that sleeps on a peer which is killed",
        repeats: Repeats::EachRound,
        measure: death::measure,
    },
    Figure {
        name: "revocation-races",
        about: "lanes in use, taken back by a third",
        repeats: Repeats::Once,
        measure: races::measure,
    },
];

/// What the process of one figure is told on its command line.
#[derive(Args)]
pub(crate) struct Order {
    #[arg(long)]
    name: String,
    #[arg(long)]
    effort: Effort,
    #[arg(long, num_args = 2)]
    cpus: Vec<usize>,
    #[arg(long)]
    place: String,
    #[arg(long)]
    races: u64,
    #[arg(long)]
    controller_pid: i32,
}

/// Measures the figure that the order names, and prints its readings.
pub(crate) fn take(order: Order) -> Result<()> {
    side::die_with(order.controller_pid)?;
    let limit = TIME_LIMIT + Duration::from_micros(order.races * RACE_US_MAX);
    thread::spawn(move || {
        thread::sleep(limit);
        eprintln!("keyway-bench: the figure did not end within {limit:?}");
        std::process::exit(1);
    });
    let figure = FIGURES.iter().find(|figure| figure.name == order.name).ok_or("no such figure")?;
    let [own, peer] = order.cpus[..] else { return Err("two CPUs are needed".into()) };
    let (place, races) = (Place::named(order.place), order.races);
    let stage = Stage { effort: order.effort, cpus: [own, peer], place, races };
    let readings: Vec<Value> = (figure.measure)(&stage)?.iter().map(Reading::to_json).collect();
    println!("{}", Value::from(readings));
    Ok(())
}

/// What a figure may take before it counts as stuck, on a busy machine.
const TIME_LIMIT: Duration = Duration::from_secs(120);
/// And each race besides.
const RACE_US_MAX: u64 = 2000;

/// Does a helper's part of a figure.
pub(crate) fn help(duty: Duty) -> Result<()> {
    let role = duty.role;
    let post = duty.begin()?;
    match role {
        HelperRole::Broker => serve(&post),
        HelperRole::RaceSender => races::send(&post),
        HelperRole::RaceReceiver => races::receive(&post),
        HelperRole::Spinner => flood::spin(&post),
        HelperRole::Flooder => flood::flood(&post),
        HelperRole::DoomedSender => death::send(&post),
        HelperRole::DoomedReceiver => death::receive(&post),
        HelperRole::Idler => death::idle(&post),
    }
}

fn serve(post: &Post) -> Result<()> {
    let broker = Embedded::start_at(&broker_path(&post.place))?;
    post.say_ready()?;
    post.wait_for_end()?;
    drop(broker);
    Ok(())
}

pub(crate) struct Plan<'p> {
    pub(crate) rounds: usize,
    pub(crate) effort: Effort,
    pub(crate) races: u64,
    pub(crate) figures: Vec<&'static Figure>,
    pub(crate) cpus: [usize; 2],
    pub(crate) place: &'p Place,
}

/// A figure with its lines.
pub(crate) struct Measured {
    pub(crate) figure: &'static Figure,
    pub(crate) readings: Vec<Reading>,
}

pub(crate) struct Outcome {
    pub(crate) measured: Vec<Measured>,
    /// What went wrong, and what was counted that must not be. Other aims depend on the machine and fail nothing.
    pub(crate) failures: Vec<String>,
}

impl Plan<'_> {
    pub(crate) fn carry_out(&self, mut progress: impl FnMut(&str)) -> Outcome {
        let mut all: Vec<Vec<Vec<Reading>>> = self.figures.iter().map(|_| Vec::new()).collect();
        let mut failures: Vec<Option<String>> = self.figures.iter().map(|_| None).collect();
        for round in 1..=self.rounds {
            let figures = self.figures.iter().zip(&mut all).zip(&mut failures);
            for ((figure, rounds), failure) in figures {
                if failure.is_some() || figure.repeats == Repeats::Once && round > 1 {
                    continue;
                }
                progress(&format!("round {round} of {}: {}", self.rounds, figure.name));
                match self.run(figure) {
                    Ok(readings) => rounds.push(readings),
                    Err(error) => *failure = Some(format!("{}, round {round}: {error}", figure.name)),
                }
            }
        }
        progress("");
        let mut failures: Vec<String> = failures.into_iter().flatten().collect();
        let mut measured = Vec::new();
        for (&figure, rounds) in self.figures.iter().zip(all).filter(|(_, rounds)| !rounds.is_empty()) {
            let readings = combine(&rounds);
            let lost = readings.iter().filter(|reading| reading.unit == Unit::Count);
            let lost = lost.filter(|reading| reading.is_met() == Some(false));
            failures
                .extend(lost.map(|reading| format!("{}: {}: {}", figure.name, reading.what, reading.value)));
            measured.push(Measured { figure, readings });
        }
        Outcome { measured, failures }
    }

    fn run(&self, figure: &Figure) -> Result<Vec<Reading>> {
        let effort = self.effort.to_possible_value().ok_or("an effort without a name")?;
        let output = Command::new(std::env::current_exe()?)
            .arg("figure")
            .args(["--name", figure.name])
            .args(["--effort", effort.get_name()])
            .arg("--cpus")
            .args(self.cpus.map(|cpu| cpu.to_string()))
            .args(["--place", self.place.name()])
            .args(["--races", &self.races.to_string()])
            .args(["--controller-pid", &std::process::id().to_string()])
            .stderr(Stdio::inherit())
            .output()?;
        if !output.status.success() {
            return Err(format!("it ended with {}", output.status).into());
        }
        let readings: Value = serde_json::from_slice(&output.stdout)?;
        readings.as_array().ok_or("no list of readings")?.iter().map(Reading::from_json).collect()
    }
}

/// The lines of the first round, each with what all rounds say of it.
fn combine(rounds: &[Vec<Reading>]) -> Vec<Reading> {
    let Some(first) = rounds.first() else { return Vec::new() };
    let lines = first.iter().map(|reading| {
        let same = |round: &Vec<Reading>| round.iter().find(|other| other.what == reading.what).cloned();
        let all: Vec<Reading> = rounds.iter().filter_map(same).collect();
        let over = |values: Vec<f64>| match reading.unit {
            Unit::Count => values.iter().sum(),
            Unit::Ns | Unit::Bytes | Unit::Number => median(values),
        };
        let value = over(all.iter().map(|reading| reading.value).collect());
        let beside = reading.beside.as_ref().map(|(what, _)| {
            let values = all.iter().filter_map(|reading| reading.beside.as_ref().map(|(_, value)| *value));
            (what.clone(), over(values.collect()))
        });
        Reading { value, beside, ..reading.clone() }
    });
    lines.collect()
}

impl Outcome {
    pub(crate) fn to_json(&self) -> Value {
        let lines = self.measured.iter().flat_map(|measured| {
            measured.readings.iter().map(|reading| {
                let mut line = json!({ "figure": measured.figure.name });
                if let (Some(line), Value::Object(reading)) = (line.as_object_mut(), reading.to_json()) {
                    line.extend(reading);
                }
                line
            })
        });
        lines.collect::<Vec<_>>().into()
    }
}

#[cfg(test)]
mod tests {
    use crate::reading::{Reading, Unit};

    use super::combine;

    #[test]
    fn times_have_a_median_and_counts_a_sum() {
        let round = |ns, beside, count| {
            vec![
                Reading::ns("derive", ns).beside("nothing", beside),
                Reading::new("races", Unit::Count, count),
            ]
        };
        let combined = combine(&[round(3.0, 1.0, 5.0), round(1.0, 3.0, 5.0), round(2.0, 2.0, 5.0)]);
        let values: Vec<_> = combined.iter().map(|reading| reading.value).collect();
        assert_eq!(format!("{values:?}"), "[2.0, 15.0]");
        assert_eq!(format!("{:?}", combined[0].times()), "Some(1.0)");
    }
}
