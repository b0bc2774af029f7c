//! The `keyway` command: serve, tour, look.
//!
//! Without arguments it gives the tour. It decides nothing about capabilities: it starts brokers and bridges, and shows
//! what they say. It rests on `keyway-broker`, `keyway-seat` and `keyway`.
//!
//! Floors, lowest first: `table`; `log`, `look`, `policy`, `seat`, `tour`; `serve`; this file.

#![forbid(unsafe_code)]

mod log;
mod look;
mod policy;
mod seat;
mod serve;
mod table;
mod tour;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use keyway::{Denial, Handle, Rights};

/// Capability-secured inter-process communication for Linux.
///
/// Without a command it gives the tour: a broker and real processes that show what works, and what is refused.
#[derive(Debug, Parser)]
#[command(name = "keyway", version, max_term_width = 100, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    tour: tour::Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what works, in about ten seconds: a broker, real child processes, and an intruder who is refused.
    Tour(tour::Options),
    /// Run a broker until it is told to stop (SIGTERM or Ctrl-C).
    Serve(serve::Options),
    /// Run the bridge `rustica-gui`, which grants screens, surfaces, GPU and input to a compositor and its applications.
    Seat(seat::Options),
    /// List the processes that a broker knows.
    Ps(look::Options),
    /// List capabilities: their objects, rights, badges and parents.
    Caps(look::CapsOptions),
    /// List queues, and the lanes into them with what waits there.
    Queues(look::Options),
    /// List what was granted, refused and taken back lately, by whom.
    Audit(log::Options),
    /// Check a policy file, or show the policy that holds.
    #[command(subcommand)]
    Policy(policy::Action),
    /// One of the tour's processes.
    #[command(hide = true)]
    TourRole(tour::RoleOptions),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        None => return tour::run(&arguments.tour),
        Some(Command::Tour(options)) => return tour::run(&options),
        Some(Command::TourRole(options)) => return tour::play(&options),
        Some(Command::Serve(options)) => serve::run(&options),
        Some(Command::Seat(options)) => seat::run(&options),
        Some(Command::Ps(options)) => look::processes(&options),
        Some(Command::Caps(options)) => look::capabilities(&options),
        Some(Command::Queues(options)) => look::queues(&options),
        Some(Command::Audit(options)) => log::run(&options),
        Some(Command::Policy(action)) => policy::run(&action),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop(text)) => {
            eprintln!("keyway: {text}");
            ExitCode::FAILURE
        }
    }
}

/// Why the command could not do what it was asked, in words for the person at the terminal.
#[derive(Debug)]
struct Stop(String);

impl<E: std::fmt::Display> From<E> for Stop {
    fn from(error: E) -> Self {
        Stop(error.to_string())
    }
}

/// What a look at the broker came to; without the right to it, what that right is and who gives it.
fn looked<T>(client: &keyway::Client, right: Rights, seen: Result<T, keyway::Error>) -> Result<T, Stop> {
    seen.map_err(|error| {
        let held = match error.denial() {
            Some(Denial::MissingRights { held, .. }) => held.to_string(),
            // The policy gave this process no directory.
            Some(Denial::UnknownHandle { handle: Handle::NONE }) => "none".into(),
            _ => return error.into(),
        };
        let uid = client.uid();
        Stop(format!(
            "looking at this broker needs the right {right} on the directory, and this process of user {uid} has {held}; \
             whoever runs the broker gives it by an entry of the policy file (`keyway policy show` prints one to begin \
             from): [[standing]] with user = {uid} and directory = [\"{right}\"]"
        ))
    })
}

/// The option that names a broker's socket.
#[derive(Clone, Debug, clap::Args)]
struct Socket {
    /// The broker's socket [default: `$KEYWAY_SOCKET`, else `$XDG_RUNTIME_DIR/keyway/broker.sock`, else
    /// `/run/keyway/broker.sock`].
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl Socket {
    /// Connects to the broker.
    fn connect(&self) -> Result<keyway::Client, keyway::Error> {
        match &self.socket {
            Some(path) => keyway::Client::connect_to(path),
            None => keyway::Client::connect(),
        }
    }
}
