//! The first process: it starts each scenario, bounds it, and leaves nothing of it behind.

use std::{
    fs::{self, File},
    io,
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use keyway_vm::protocol::{Answer, Told};
use rustix::{
    process::{Pid, Signal, WaitOptions, WaitStatus, kill_process_group, waitpid},
    system::{RebootCommand, reboot},
};

use crate::{LOGS, REASON, dialogue::Dialogue, hardware, scenarios, system};

/// How much of a log the host gets.
const LOG_BYTES: usize = 64 * 1024;

/// Runs the system until the scenarios are over. What goes wrong here is said on the console.
pub fn run() -> ExitCode {
    if let Err(error) = serve() {
        eprintln!("init: {error:#}");
    }
    // Who is the first process does not come back from this.
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        eprintln!("init: cannot power off: {error}");
    }
    ExitCode::FAILURE
}

fn serve() -> Result<()> {
    system::mount_all()?;
    system::load_modules()?;
    system::await_devices();
    let port = File::options().read(true).write(true).open(hardware::port()?)?;
    let mut host = Dialogue::over(port);
    let answer = host.ask(Told::Booted { scenarios: scenarios::names() })?;
    let Answer::Run { scenarios, limit_seconds } = answer else { bail!("nothing to run: {answer:?}") };
    for scenario in scenarios {
        host.tell(Told::Begins { scenario: scenario.clone() })?;
        let why = play(&host, &scenario, Duration::from_secs(limit_seconds))?;
        for (name, text) in logs()? {
            host.tell(Told::Log { name, text })?;
        }
        host.tell(match why {
            None => Told::Passed { scenario },
            Some(why) => Told::Failed { scenario, why },
        })?;
    }
    host.tell(Told::Done)
}

/// Plays a scenario in a process of its own, and says why it failed.
fn play(host: &Dialogue, scenario: &str, limit: Duration) -> Result<Option<String>> {
    for leftover in [fs::remove_file(REASON), fs::remove_dir_all(LOGS)] {
        if let Err(error) = leftover
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error.into());
        }
    }
    fs::create_dir(LOGS)?;
    let log = File::create(format!("{LOGS}/scenario.log"))?;
    let child = Command::new("/proc/self/exe")
        .args(["scenario", scenario])
        .stdin(Stdio::from(host.port()?))
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let ended = await_end(Pid::from_child(&child), Instant::now() + limit);
    end_everybody()?;
    let Some(status) = ended? else { return Ok(Some(format!("not over after {} s", limit.as_secs()))) };
    if status.exit_status() == Some(0) {
        return Ok(None);
    }
    let died = || match status.terminating_signal() {
        Some(signal) => format!("killed by signal {signal}"),
        None => format!("ended with {:?}, and did not say why", status.exit_status()),
    };
    Ok(Some(fs::read_to_string(REASON).unwrap_or_else(|_| died())))
}

/// How a child ended, if it did in time. Reaps others on the way, who have lost their parents.
fn await_end(child: Pid, deadline: Instant) -> Result<Option<WaitStatus>> {
    loop {
        match waitpid(None, WaitOptions::NOHANG)? {
            Some((pid, status)) if pid == child => return Ok(Some(status)),
            Some(_) => {}
            None if Instant::now() > deadline => return Ok(None),
            None => thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Kills and reaps every process but this one.
fn end_everybody() -> Result<()> {
    // The group of the first process is that of all others: the number -1.
    match kill_process_group(Pid::INIT, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(error).context("kill what a scenario left behind"),
    }
    loop {
        match waitpid(None, WaitOptions::empty()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CHILD) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The ends of what the scenario's processes have written.
fn logs() -> Result<Vec<(String, String)>> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(LOGS)? {
        let entry = entry?;
        let bytes = fs::read(entry.path())?;
        let end = &bytes[bytes.len().saturating_sub(LOG_BYTES)..];
        if !end.is_empty() {
            let name = entry.file_name().to_string_lossy().into_owned();
            logs.push((name, String::from_utf8_lossy(end).into_owned()));
        }
    }
    logs.sort();
    Ok(logs)
}
