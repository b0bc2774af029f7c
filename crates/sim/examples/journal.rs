//! Prints the journal of one seed: `cargo run -p keyway-sim --example journal -- SEED [STEPS]`, with what was asked for.

use std::process::ExitCode;

use keyway_sim::{Journal, Simulation};

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse().unwrap_or(0));
    let (seed, steps) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(400));
    let steps = usize::try_from(steps).unwrap_or(400);
    let (journal, code) = match Simulation::run(seed, steps) {
        Ok(report) => (report.journal, ExitCode::SUCCESS),
        Err(failure) => {
            eprintln!("{failure}");
            (failure.journal, ExitCode::FAILURE)
        }
    };
    print_with_effects(&journal);
    code
}

fn print_with_effects(journal: &Journal) {
    let mut kernel = keyway_kernel::Kernel::default();
    for (index, entry) in journal.entries.iter().enumerate() {
        println!("{index:5} {:?}", entry.input);
        for effect in entry.give_to(&mut kernel).1 {
            println!("        {effect:?}");
        }
    }
}
