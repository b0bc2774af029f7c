//! The host's half of the dialogue: it does what the guest asks, and keeps what comes of the scenarios.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    ops::AddAssign,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail, ensure};
use keyway_vm::{
    picture::Picture,
    protocol::{Answer, Display, Line, Pixel, Told},
};

use crate::machine::{CONSOLE, Machine, QEMU_LOG};

/// How much longer the guest may be silent until it counts as hung.
const SCENARIO_SLACK: Duration = Duration::from_secs(15);
/// How long a screen may take until it shows what it should.
const SCREEN_PATIENCE: Duration = Duration::from_secs(10);
/// What is shown of a log.
const TAIL_LINES: usize = 40;

/// What came of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// A scenario that runs.
struct Current {
    name: String,
    begun: Instant,
    logs: Vec<(String, String)>,
}

/// See the module.
pub struct Server {
    machine: Machine,
    guest: UnixStream,
    lines: Receiver<String>,
    directory: PathBuf,
    /// Scenarios to run; all, if there are none.
    wanted: Vec<String>,
    /// How long one may take; the guest ends it after that.
    scenario_limit: Duration,
    begun: Instant,
    deadline: Instant,
    /// Scenarios of which nothing has been heard yet.
    pending: Vec<String>,
    current: Option<Current>,
    tally: Tally,
}

impl Server {
    pub fn new(
        (machine, guest): (Machine, UnixStream),
        directory: &Path,
        (wanted, scenario_limit): (Vec<String>, Duration),
        limit: Duration,
    ) -> Result<Self> {
        guest.set_write_timeout(Some(SCENARIO_SLACK))?;
        let begun = Instant::now();
        Ok(Server {
            machine,
            lines: lines_of(guest.try_clone()?),
            guest,
            directory: directory.into(),
            wanted,
            scenario_limit,
            begun,
            deadline: begun + limit,
            pending: vec!["boot".into()],
            current: None,
            tally: Tally::default(),
        })
    }

    /// Serves until the guest is done, and ends the machine. Whatever was not heard of by then has failed.
    pub fn run(mut self) -> Tally {
        if let Err(error) = self.serve() {
            self.give_up(&format!("{error:#}"));
        } else {
            self.machine.await_end();
        }
        self.tally
    }

    fn serve(&mut self) -> Result<()> {
        loop {
            let text = self.next_line()?;
            // The rest of a line of somebody who was killed while writing is none.
            let Ok(line) = serde_json::from_str::<Line<Told>>(&text) else { continue };
            let is_done = matches!(line.says, Told::Done);
            let says = self.answer(line.says)?;
            let answer = serde_json::to_string(&Line { number: line.number, says })?;
            // Nobody waits for the last answer.
            let written = self.guest.write_all(format!("{answer}\n").as_bytes());
            if is_done {
                return Ok(());
            }
            written?;
        }
    }

    /// Ends the scenario that runs, and those that never will.
    fn give_up(&mut self, why: &str) {
        if self.current.is_some() {
            self.end(Some(why));
        } else {
            println!("{why}");
        }
        for log in [CONSOLE, QEMU_LOG] {
            let text = fs::read_to_string(self.directory.join(log)).unwrap_or_default();
            show(log, &text);
        }
        for name in &self.pending {
            println!("{name:<20} failed: not run");
            self.tally.failed += 1;
        }
    }

    fn next_line(&mut self) -> Result<String> {
        let silent =
            self.current.as_ref().map(|current| current.begun + self.scenario_limit + SCENARIO_SLACK);
        let deadline = silent.map_or(self.deadline, |silent| silent.min(self.deadline));
        match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) if deadline < self.deadline => bail!("the guest hangs"),
            Err(RecvTimeoutError::Timeout) => bail!("the time for the whole run is over"),
            Err(RecvTimeoutError::Disconnected) => bail!("the machine has ended"),
        }
    }

    /// What comes of something that the guest says. An error ends the run.
    fn answer(&mut self, told: Told) -> Result<Answer> {
        match told {
            Told::Booted { scenarios } => return self.plan(&scenarios),
            Told::Begins { scenario } => {
                self.pending.retain(|name| *name != scenario);
                self.current = Some(Current { name: scenario, begun: Instant::now(), logs: Vec::new() });
            }
            Told::Log { name, text } => {
                if let Some(current) = &mut self.current {
                    current.logs.push((name, text));
                }
            }
            Told::Passed { .. } => self.end(None),
            Told::Failed { why, .. } => self.end(Some(&why)),
            Told::Done => {}
            other => return Ok(self.act(other).unwrap_or_else(|error| wrong(&error))),
        }
        Ok(Answer::Done)
    }

    /// Does something to the machine's devices. An error is the scenario's.
    fn act(&mut self, told: Told) -> Result<Answer> {
        match told {
            Told::Screenshot { display, name } => {
                self.machine.screenshot(display, &file_name(&name)?)?;
            }
            Told::Pixels { display, name, size, expect } => self.check(display, &name, size, &expect)?,
            Told::Figures { lines } => {
                let text = lines.join("\n") + "\n";
                print!("{text}");
                fs::write(self.directory.join("figures.md"), text)?;
            }
            Told::Compare { first, second } => {
                let pixels = self.picture(&first)?.count_differing(&self.picture(&second)?)?;
                return Ok(Answer::Differ { pixels });
            }
            Told::Keys { keys } => self.machine.press(&keys)?,
            Told::Tablet { x, y } => self.machine.point(x, y)?,
            other => bail!("nothing to do: {other:?}"),
        }
        Ok(Answer::Done)
    }

    fn plan(&mut self, scenarios: &[String]) -> Result<Answer> {
        println!("booted in {:.1} s", self.begun.elapsed().as_secs_f64());
        self.pending.clear();
        if let Some(unknown) = self.wanted.iter().find(|wanted| !scenarios.contains(wanted)) {
            bail!("no scenario `{unknown}`; there are: {}", scenarios.join(", "));
        }
        self.pending = if self.wanted.is_empty() { scenarios.to_vec() } else { self.wanted.clone() };
        Ok(Answer::Run { scenarios: self.pending.clone(), limit_seconds: self.scenario_limit.as_secs() })
    }

    fn check(&mut self, display: Display, name: &str, size: (u32, u32), expect: &[Pixel]) -> Result<()> {
        let deadline = Instant::now() + SCREEN_PATIENCE;
        loop {
            self.machine.screenshot(display, &file_name(name)?)?;
            let Err(wrong) = self.picture(name)?.check(size, expect) else { return Ok(()) };
            if Instant::now() > deadline {
                bail!("{} is not as it should be: {wrong}", file_name(name)?);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn picture(&self, name: &str) -> Result<Picture> {
        Picture::read(&self.directory.join(file_name(name)?))
    }

    /// Ends the current scenario: well, or for a reason. Its logs are kept, and shown if it ended badly.
    fn end(&mut self, why: Option<&str>) {
        let Some(Current { name, begun, logs }) = self.current.take() else { return };
        let outcome = if why.is_some() { "failed" } else { "passed" };
        println!("{name:<20} {outcome} {:>6.2} s", begun.elapsed().as_secs_f64());
        for (log, text) in &logs {
            let path = self.directory.join(format!("{name}-{log}"));
            if fs::write(&path, text).is_err() {
                println!("    {} cannot be written", path.display());
            }
        }
        let Some(why) = why else {
            self.tally.passed += 1;
            return;
        };
        self.tally.failed += 1;
        println!("{}", indented(why));
        for (log, text) in &logs {
            show(log, text);
        }
    }
}

/// What somebody writes, line by line, until there is no more.
fn lines_of(stream: UnixStream) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn wrong(error: &anyhow::Error) -> Answer {
    Answer::Wrong { why: format!("{error:#}") }
}

/// The file of a picture. The guest does not choose a directory.
fn file_name(name: &str) -> Result<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    ensure!(!name.is_empty() && name.bytes().all(is_plain), anyhow!("no name for a picture: {name:?}"));
    Ok(format!("{name}.png"))
}

/// Shows the end of a log, if there is something in it.
fn show(log: &str, text: &str) {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    if !lines.is_empty() {
        let end = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        println!("    --- {log}\n{}", indented(&end));
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}
