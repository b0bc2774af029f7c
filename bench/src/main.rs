//! What Keyway costs beside its peers, and beside what the machine can do at all.
//!
//! Two families. Scenarios are conversations of two sides that several systems can have; figures are everything else,
//! such as what an operation costs inside of the kernel ([`figures`]). In a scenario the controlling process starts two
//! sides for each run (more where one talks to several), pinned to one CPU each: this same program with a role. They set
//! up the system under test, talk for a while, and the asker reports. The controlling process interleaves the systems over
//! several rounds, prints medians and says which aims are met. It only sleeps while the sides measure.
//!
//! Errors are boxed because all of them end the run they occur in, and nobody decides anything by their kind.

mod aims;
mod allocations;
mod figures;
mod latencies;
mod machine;
mod markdown;
mod memory;
mod pair;
mod payload;
mod place;
mod plot;
mod reading;
mod report;
mod rounds;
mod scenario;
mod side;
mod stage;
mod systems;

use std::{
    env,
    error::Error,
    fs,
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Parser, Subcommand};
use serde_json::Value;

use crate::{
    figures::{FIGURES, Figure},
    machine::Machine,
    place::Place,
    rounds::Plan,
    scenario::Scenario,
    side::Order,
    stage::{Duty, Effort},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Measures Keyway beside its peers and prints a table.
#[derive(Parser)]
#[command(name = "bench/run")]
struct Arguments {
    /// Short rounds, and of scenarios that come in many sizes one or two.
    #[arg(long)]
    quick: bool,
    /// Writes all rows and the machine to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measures the scenarios and figures whose names begin so; may be given more than once.
    #[arg(long, value_name = "NAME", value_parser = known)]
    only: Vec<String>,
    /// Runs so many revocation races [default: 100000, with --quick 3000].
    #[arg(long, value_name = "COUNT")]
    races: Option<u64>,
    /// Draws the medians and percentiles into this file.
    #[arg(long, value_name = "FILE", num_args = 0..=1,
        default_missing_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results.svg"))]
    svg: Option<PathBuf>,
    /// Writes the outcome of the scenarios as a document into this file.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// Plays one side of a run.
    #[command(hide = true)]
    Side(Order),
    /// Measures one figure.
    #[command(hide = true)]
    Figure(figures::Order),
    /// Does a helper's part of a figure.
    #[command(hide = true)]
    Helper(Duty),
    /// Removes what killed runs have left.
    Sweep,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ended = match arguments.part {
        Some(Part::Side(order)) => side::take(order).map(|()| ExitCode::SUCCESS),
        Some(Part::Figure(order)) => figures::take(order).map(|()| ExitCode::SUCCESS),
        Some(Part::Helper(duty)) => figures::help(duty).map(|()| ExitCode::SUCCESS),
        Some(Part::Sweep) => {
            place::sweep_abandoned();
            Ok(ExitCode::SUCCESS)
        }
        None => control(&arguments),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("keyway-bench: {error}");
        ExitCode::FAILURE
    })
}

fn control(arguments: &Arguments) -> Result<ExitCode> {
    let began = Instant::now();
    machine::raise_descriptors();
    let machine = Machine::describe()?;
    let claim = Place::claim()?;
    let effort = if arguments.quick { Effort::Quick } else { Effort::Full };
    let wanted = |name: &str| {
        arguments.only.is_empty() || arguments.only.iter().any(|only| name.starts_with(only.as_str()))
    };
    // Whoever asks for a scenario gets it.
    let is_due =
        |scenario: &Scenario| effort == Effort::Full || !arguments.only.is_empty() || scenario.is_quick();
    let scenarios: Vec<Scenario> =
        Scenario::all().into_iter().filter(|scenario| wanted(&scenario.name()) && is_due(scenario)).collect();
    let figures: Vec<&Figure> = FIGURES.iter().filter(|figure| wanted(figure.name)).collect();
    let (cpus, place) = (machine.cpus, claim.place());
    let (duration, patience) = effort.choose(QUICK, FULL);
    let plan = Plan { rounds: ROUNDS, duration, patience, scenarios: &scenarios, cpus, place };
    let outcome = plan.carry_out(show_progress)?;
    print!("{}", outcome.to_table(&machine));
    let races = arguments.races.unwrap_or(effort.choose(3000, 100_000));
    let measured = figures::Plan { rounds: effort.choose(3, ROUNDS), effort, races, figures, cpus, place }
        .carry_out(show_progress);
    print!("{}", measured.to_table());
    let failures: Vec<&String> = outcome.failures.iter().chain(&measured.failures).collect();
    if let Some(path) = &arguments.json {
        let mut json = outcome.to_json(&machine);
        json["figures"] = measured.to_json();
        json["failures"] = failures.iter().map(|failure| failure.as_str()).collect::<Value>();
        fs::write(path, serde_json::to_string_pretty(&json)? + "\n")?;
    }
    if let Some(path) = &arguments.svg {
        fs::write(path, plot::draw(&outcome, &machine.headline()))?;
    }
    if let Some(path) = &arguments.markdown {
        fs::write(path, markdown::write(&outcome, &machine, &command(), began.elapsed()))?;
    }
    println!("measured in {:.0} s", began.elapsed().as_secs_f64());
    for failure in &failures {
        eprintln!("keyway-bench: {failure}");
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const ROUNDS: usize = 5;
/// How long a run lasts, and after how long nothing is measured again because the machine was unsteady.
const QUICK: (Duration, Duration) = (Duration::from_millis(60), Duration::from_secs(60));
const FULL: (Duration, Duration) = (Duration::from_millis(400), Duration::from_secs(3600));

/// A beginning of something that can be measured.
fn known(name: &str) -> std::result::Result<String, String> {
    let mut all = Scenario::all()
        .into_iter()
        .map(Scenario::name)
        .chain(FIGURES.iter().map(|figure| figure.name.to_owned()));
    if all.any(|candidate| candidate.starts_with(name)) {
        return Ok(name.to_owned());
    }
    Err("no scenario or figure begins so".to_owned())
}

/// What this run was asked for.
fn command() -> String {
    let arguments: Vec<String> = env::args().skip(1).collect();
    format!("bench/run {}", arguments.join(" ")).trim_end().to_owned()
}

/// One line on a terminal that the next one overwrites; nothing elsewhere.
fn show_progress(what: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K{what}");
    }
}
