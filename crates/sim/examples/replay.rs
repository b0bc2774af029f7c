//! Runs one seed for many steps, and replays its journal: `cargo run --release -p keyway-sim --example replay -- [--seed N]
//! [--steps N]`.
//!
//! The recorded run, and two replays of its journal that go side by side, must ask for the same effects and end in the same
//! state. The states of both replays are compared as text, byte for byte, after each thousandth input and at the end.

use std::process::ExitCode;

use keyway_kernel::Kernel;
use keyway_sim::{Hash, Simulation};

/// Inputs between two comparisons of the whole state.
const EVERY: usize = 1000;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let number = |name: &str, otherwise: u64| {
        let at = words.iter().position(|word| word == name);
        at.and_then(|at| words.get(at + 1)?.parse().ok()).unwrap_or(otherwise)
    };
    let (seed, steps) = (number("--seed", 1), number("--steps", 1_000_000));
    let report = match Simulation::run(seed, usize::try_from(steps).unwrap_or(usize::MAX)) {
        Ok(report) => report,
        Err(failure) => {
            eprintln!("{failure}");
            return ExitCode::FAILURE;
        }
    };
    let entries = &report.journal.entries;
    let (mut one, mut other) = (Kernel::default(), Kernel::default());
    let (mut asked, mut compared) = (Hash::default(), 0_u64);
    for (index, entry) in entries.iter().enumerate() {
        let (made, effects) = entry.give_to(&mut one);
        if entry.give_to(&mut other) != (made, effects.clone()) {
            eprintln!("input {index}: the replays ask for different effects");
            return ExitCode::FAILURE;
        }
        for effect in &effects {
            asked.add(effect);
        }
        if index + 1 == report.inputs && Hash::of(&one).0 != report.state {
            eprintln!("input {index}: the replay is not in the recorded state");
            return ExitCode::FAILURE;
        }
        if (index + 1) % EVERY == 0 || index + 1 == entries.len() {
            let (one, other) = (format!("{one:?}"), format!("{other:?}"));
            if one != other {
                eprintln!("input {index}: the replays are in different states");
                return ExitCode::FAILURE;
            }
            compared += one.len() as u64;
        }
    }
    if asked.0 != report.asked {
        eprintln!("the replay asks for other effects than were recorded");
        return ExitCode::FAILURE;
    }
    println!(
        "seed {seed}, {steps} steps, {} inputs: two replays did what was recorded and agreed in {compared} bytes of state",
        entries.len()
    );
    ExitCode::SUCCESS
}
