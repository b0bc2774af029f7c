//! Runs many seeds and says which broke a promise: `cargo run -p keyway-sim --example seeds -- --runs N --steps N`.

use std::process::ExitCode;

use keyway_sim::Simulation;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let number = |name: &str, otherwise: u64| {
        let at = words.iter().position(|word| word == name);
        at.and_then(|at| words.get(at + 1)?.parse().ok()).unwrap_or(otherwise)
    };
    let (first, runs) = (number("--first", 0), number("--runs", 1000));
    let steps = usize::try_from(number("--steps", 400)).unwrap_or(400);
    let mut inputs = 0;
    for seed in first..first + runs {
        match Simulation::run(seed, steps) {
            Ok(report) => inputs += report.journal.entries.len(),
            Err(failure) => {
                eprintln!("{failure}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{runs} seeds of {steps} steps, {inputs} inputs: every promise was kept");
    ExitCode::SUCCESS
}
