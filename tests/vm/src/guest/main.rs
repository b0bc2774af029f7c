//! The first process of the guest: it makes the system usable, runs the scenarios one by one, and powers the machine off.
//!
//! A scenario is a process of its own, so that one that panics or hangs ends with all it holds, and the next one runs. This
//! program is the first process, a scenario (`/init scenario NAME`), or a part of one that another user runs
//! (`/init part NAME ARGUMENTS`).

#![forbid(unsafe_code)]

mod compositor;
mod dialogue;
mod hardware;
mod init;
mod libseat;
mod process;
mod scenarios;
mod stage;
mod system;

use std::{
    env, fs,
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
};

use anyhow::{Context, Result};

use crate::{dialogue::Dialogue, stage::Stage};

/// Where a scenario says why it failed.
const REASON: &str = "/run/reason";
/// Where what the processes of a scenario write is kept while it runs.
const LOGS: &str = "/run/logs";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["scenario", name] => play(name),
        ["part", name, rest @ ..] => match scenarios::part(name).and_then(|part| part(rest)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        },
        // Whatever the kernel's command line says to the first process.
        _ => init::run(),
    }
}

/// Plays a scenario, with the port to the host as standard input.
fn play(name: &str) -> ExitCode {
    panic::set_hook(Box::new(|panic| give_reason(&panic.to_string())));
    let played = panic::catch_unwind(AssertUnwindSafe(|| -> Result<()> {
        let port = rustix::io::dup(rustix::stdio::stdin()).context("no port to the host")?;
        let scenario = scenarios::scenario(name)?;
        scenario(&mut Stage::new(Dialogue::over(port.into())))
    }));
    match played {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(error)) => give_reason(&format!("{error:#}")),
        // The hook has said it.
        Err(_) => {}
    }
    ExitCode::FAILURE
}

fn give_reason(text: &str) {
    if fs::write(REASON, text).is_err() {
        eprintln!("{text}");
    }
}
