//! Writes what the fuzzers begin with: runs of the simulator as steps, and their frames.
//!
//! `cargo run --release --bin seed-corpus -- DIRECTORY [RUNS]`

#![forbid(unsafe_code)]

use std::{collections::BTreeMap, env, error::Error, fs, path::Path};

use keyway_abi::{ProcessNumber, Request};
use keyway_kernel::{Effect, Kernel};
use keyway_sim::{Input, Simulation};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    let directory = words.first().ok_or("where to? seed-corpus DIRECTORY [RUNS]")?;
    let runs = words.get(1).map_or(Ok(8), |word| word.parse())?;
    let (frames, requests) = (Path::new(directory).join("frames"), Path::new(directory).join("requests"));
    fs::create_dir_all(&frames)?;
    fs::create_dir_all(&requests)?;
    for seed in 0..runs {
        let report = Simulation::run(seed, 250).map_err(|failure| failure.to_string())?;
        let mut writer = Writer::default();
        for entry in &report.journal.entries {
            writer.write_step(&entry.input);
            let (arrived, effects) = entry.give_to(&mut writer.kernel);
            writer.arrive(arrived, &effects);
            if let Input::Request(_, call, request, _) = &entry.input {
                let bytes = keyway_wire::encode_request(call.number, request, 0).map_err(|_| "too long")?;
                // One of each operation is enough.
                fs::write(frames.join(request.operation()), [&[0], &bytes[..]].concat())?;
            }
        }
        fs::write(requests.join(format!("seed-{seed}")), writer.steps)?;
    }
    Ok(())
}

#[derive(Default)]
struct Writer {
    kernel: Kernel,
    /// In the order in which they came to be, as the fuzzed kernel's host counts them.
    numbers: BTreeMap<ProcessNumber, u8>,
    children: BTreeMap<ProcessNumber, bool>,
    steps: Vec<u8>,
}

impl Writer {
    fn arrive(&mut self, arrived: Option<ProcessNumber>, effects: &[Effect]) {
        let children = effects.iter().filter_map(|effect| match effect {
            Effect::CreatePair { process, .. } => Some(*process),
            _ => None,
        });
        for (process, is_child) in
            arrived.map(|it| (it, false)).into_iter().chain(children.map(|it| (it, true)))
        {
            let next = self.numbers.len() as u8;
            self.numbers.entry(process).or_insert(next);
            self.children.entry(process).or_insert(is_child);
        }
    }

    fn write_step(&mut self, input: &Input) {
        match input {
            Input::Connect(arrival) => self.steps.extend([0, (arrival.identity.uid % 3) as u8]),
            Input::Request(process, _, request, _) => {
                // Who connects says hello by itself.
                let greets =
                    matches!(request, Request::Hello(_)) && self.children.get(process) == Some(&false);
                let (Some(number), false) = (self.numbers.get(process), greets) else { return };
                let Ok(bytes) = keyway_wire::encode_request(1, request, 0) else { return };
                let body = &bytes[16..];
                let Ok(length) = u8::try_from(body.len()) else { return };
                self.steps.extend([1, *number]);
                self.steps.extend(request.opcode().to_le_bytes());
                self.steps.push(length);
                self.steps.extend(body);
            }
            Input::Answer(answer) => self.steps.extend([5, if answer.outcome.is_ok() { 0 } else { 5 }]),
            Input::End(process, _) => {
                if let Some(number) = self.numbers.get(process) {
                    self.steps.extend([6, *number]);
                }
            }
            Input::Sweep | Input::Expire => self.steps.extend([7, 1, 0]),
            _ => {}
        }
    }
}
