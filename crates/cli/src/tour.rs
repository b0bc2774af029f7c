//! The tour: a broker in this process, real child processes, and every promise put to the test.
//!
//! Each scene says in plain words what it does, and holds or fails; the tour ends well only if every scene held. A scene
//! is one file: what this process does in it, and the roles that its children play (this same program, started again).
//!
//! Floors, lowest first: `report` (what children tell), `narrator` (what people see); `stage` (starting and hearing
//! children); the scenes; this file.

mod calls;
mod compositor;
mod desktop;
mod intruder;
mod narrator;
mod report;
mod stage;
mod stream;
mod victim;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use keyway_broker::memory_use;
use narrator::{Manner, Narrator};
use report::Failed;
use stage::Stage;

/// The options of the tour.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Print what was shown and measured as JSON.
    #[arg(long)]
    json: bool,
    /// Save what the virtual screen showed, as a PNG.
    #[arg(long, value_name = "FILE")]
    screenshot: Option<PathBuf>,
    /// How many messages the producer sends.
    #[arg(
        long, value_name = "COUNT", default_value_t = MESSAGES, hide_default_value = true,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    messages: u64,
}

const MESSAGES: u64 = 1_000_000;

/// Which role this process plays.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RoleOptions {
    role: Role,
    /// Figures that the role needs.
    numbers: Vec<u64>,
}

/// The roles of child processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    Consumer,
    Producer,
    Server,
    Caller,
    Compositor,
    Application,
    Intruder,
    Victim,
    Bystander,
}

impl Role {
    fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self)
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Gives the tour.
pub(crate) fn run(options: &Options) -> ExitCode {
    let manner = if options.json { Manner::Json } else { Manner::Text };
    let mut narrator = Narrator::new(manner);
    let began = Instant::now();
    let outcome = scenes(options, &mut narrator);
    if let Err(Failed(why)) = &outcome {
        narrator.failed(why);
    }
    let held = narrator.finish(began.elapsed()) && outcome.is_ok();
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plays one role of the tour.
pub(crate) fn play(options: &RoleOptions) -> ExitCode {
    let numbers = &options.numbers[..];
    let played = match options.role {
        Role::Consumer => stream::consume(),
        Role::Producer => stream::produce(numbers),
        Role::Server => calls::serve(),
        Role::Caller => calls::call(numbers),
        Role::Compositor => compositor::compose(),
        Role::Application => compositor::draw(),
        Role::Intruder => intruder::intrude(),
        Role::Victim => victim::stream_for_ever(),
        Role::Bystander => stage::stand_by(),
    };
    match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(why)) => {
            eprintln!("{}: {why}", options.role.name());
            ExitCode::FAILURE
        }
    }
}

fn scenes(options: &Options, narrator: &mut Narrator) -> Result<(), Failed> {
    let before = memory_use(std::process::id())?.anonymous_bytes;
    narrator.open();
    let mut stage = Stage::new()?;
    stream::show(&mut stage, narrator, options.messages)?;
    calls::show(&mut stage, narrator)?;
    desktop::show(&mut stage, narrator, options.screenshot.as_deref(), before)?;
    victim::show(&mut stage, narrator)?;
    Ok(())
}
