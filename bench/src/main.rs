//! What Keyway costs beside its peers, and beside what the machine can do at all.
//!
//! The controlling process starts two sides for each run, pinned to one CPU each: this same program with a role. They
//! set up the system under test, talk for a while, and the asker reports. The controlling process interleaves the
//! systems over several rounds and prints medians. It only sleeps while the sides measure.
//!
//! Errors are boxed because all of them end the run they occur in, and nobody decides anything by their kind.

mod latencies;
mod machine;
mod memory;
mod pair;
mod payload;
mod place;
mod plot;
mod report;
mod rounds;
mod scenario;
mod side;
mod systems;

use std::{
    error::Error,
    fs,
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand, ValueEnum};

use crate::{machine::Machine, place::Place, rounds::Plan, scenario::Scenario, side::Order};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Measures Keyway beside its peers and prints a table.
#[derive(Parser)]
#[command(name = "bench/run")]
struct Arguments {
    /// Three short rounds instead of five long ones.
    #[arg(long)]
    quick: bool,
    /// Writes all rows and the machine to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measures this scenario; may be given more than once.
    #[arg(long, value_name = "SCENARIO")]
    only: Vec<Scenario>,
    /// Draws the medians and percentiles into this file.
    #[arg(long, value_name = "FILE", num_args = 0..=1,
        default_missing_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results.svg"))]
    svg: Option<PathBuf>,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// Plays one side of a run.
    #[command(hide = true)]
    Side(Order),
    /// Removes what killed runs have left.
    Sweep,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ended = match arguments.part {
        Some(Part::Side(order)) => side::take(order).map(|()| ExitCode::SUCCESS),
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
    let machine = Machine::describe()?;
    let claim = Place::claim()?;
    let scenarios = if arguments.only.is_empty() { Scenario::value_variants() } else { &arguments.only };
    let (rounds, duration) =
        if arguments.quick { (3, Duration::from_millis(500)) } else { (5, Duration::from_secs(1)) };
    let plan = Plan { rounds, duration, scenarios, cpus: machine.cpus, place: claim.place() };
    let outcome = plan.carry_out(show_progress)?;
    print!("{}", outcome.to_table(&machine));
    if let Some(path) = &arguments.json {
        fs::write(path, serde_json::to_string_pretty(&outcome.to_json(&machine))? + "\n")?;
    }
    if let Some(path) = &arguments.svg {
        fs::write(path, plot::draw(&outcome, &machine.headline()))?;
    }
    for failure in &outcome.failures {
        eprintln!("keyway-bench: {failure}");
    }
    Ok(if outcome.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One line on a terminal that the next one overwrites; nothing elsewhere.
fn show_progress(what: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K{what}");
    }
}
