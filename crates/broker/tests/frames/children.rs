//! Processes that a test starts: this test program once more, as somebody else.
//!
//! A child is killed with the test that started it.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    os::fd::OwnedFd,
    process::{Child, ChildStdout, Command, Stdio},
};

use keyway_sys::confine::{self, Filter, ParentDeath};

/// The variable that says which part a process plays.
const ROLE: &str = "KEYWAY_TEST_ROLE";
/// The variables that say with what.
const ARGUMENT: &str = "KEYWAY_TEST_ARGUMENT";
const DESCRIPTOR: &str = "KEYWAY_TEST_FD";

/// A process that plays a part.
pub(crate) struct Player {
    pub(crate) child: Child,
    lines: BufReader<ChildStdout>,
}

impl Player {
    /// Starts one, with descriptors that it inherits.
    pub(crate) fn start(role: &str, argument: &str, inherit: Vec<OwnedFd>) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        direct(&mut command, role, argument);
        Self::spawn(command, inherit)
    }

    /// Starts the one that this command would.
    pub(crate) fn spawn(mut command: Command, inherit: Vec<OwnedFd>) -> Self {
        command.stdout(Stdio::piped());
        let numbers = confine::confine(&mut command, inherit, Filter::None, ParentDeath::Kill).unwrap();
        if let Some(number) = numbers.first() {
            command.env(DESCRIPTOR, number.to_string());
        }
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Player { child, lines }
    }

    /// The next thing that it says.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "it ended without a word");
            // The test harness speaks too, and leaves its line open.
            if let Some((_, said)) = line.trim_end().split_once("says: ") {
                return said.into();
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tells a command that runs this test program which part to play.
pub(crate) fn direct(command: &mut Command, role: &str, argument: &str) {
    command.args(["--exact", "the_other_process", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env(ARGUMENT, argument);
}

/// What a child is to do.
pub(crate) struct Part {
    pub(crate) role: String,
    pub(crate) argument: String,
    /// The number of the descriptor that it inherited.
    pub(crate) descriptor: i32,
}

/// The part that this process plays, if it is a child.
pub(crate) fn part() -> Option<Part> {
    let role = env::var(ROLE).ok()?;
    let descriptor = env::var(DESCRIPTOR).ok().and_then(|number| number.parse().ok()).unwrap_or(-1);
    Some(Part { role, argument: env::var(ARGUMENT).unwrap_or_default(), descriptor })
}

/// Says something to the process that started this one.
pub(crate) fn say(text: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    // Whoever listened may be gone, and this process goes with it.
    let _ = writeln!(out, "says: {text}");
    let _ = out.flush();
}
