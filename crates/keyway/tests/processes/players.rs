//! Processes that a test starts: this test program once more, with a part to play.
//!
//! A player is killed with the test that started it. It says lines and is told lines.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use keyway_sys::{
    confine::{self, Filter, ParentDeath},
    process::{self, Signal},
};

/// Longer than anything here takes, also on a machine that has other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Within this a process learns what concerns it. The sleeps of the library end after half a second; so does whatever is
/// learned only by chance.
pub(crate) const SOON: Duration = Duration::from_secs(2);

const ROLE: &str = "KEYWAY_TEST_ROLE";
const ARGUMENT: &str = "KEYWAY_TEST_ARGUMENT";

/// What this process is to do.
pub(crate) struct Part {
    pub(crate) role: String,
    pub(crate) argument: String,
}

/// The part that this process plays, if it is not the test itself.
pub(crate) fn part() -> Option<Part> {
    let role = env::var(ROLE).ok()?;
    Some(Part { role, argument: env::var(ARGUMENT).unwrap_or_default() })
}

/// Tells a command that runs this test program which part to play.
pub(crate) fn direct(command: &mut Command, role: &str, argument: &str) {
    command.args(["--exact", "the_other_process", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env(ARGUMENT, argument);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
}

/// See the module.
pub(crate) struct Player {
    pub(crate) child: Child,
    lines: Receiver<String>,
}

impl Player {
    /// Starts one, which finds the broker by its environment.
    pub(crate) fn start(role: &str, argument: &str, socket: &str) -> Self {
        Self::run(Command::new(env::current_exe().unwrap()), role, argument, socket, Vec::new())
    }

    /// Starts one by a command that goes on as this test program.
    pub(crate) fn start_by(command: Command, role: &str, argument: &str, socket: &str) -> Self {
        Self::run(command, role, argument, socket, Vec::new())
    }

    /// As `start`. The numbers of what it inherits follow its argument.
    pub(crate) fn start_with(role: &str, argument: &str, socket: &str, inherit: Vec<OwnedFd>) -> Self {
        Self::run(Command::new(env::current_exe().unwrap()), role, argument, socket, inherit)
    }

    fn run(mut command: Command, role: &str, argument: &str, socket: &str, inherit: Vec<OwnedFd>) -> Self {
        let numbers = confine::confine(&mut command, inherit, Filter::None, ParentDeath::Kill).unwrap();
        let argument = numbers.iter().fold(argument.to_owned(), |text, number| format!("{text} {number}"));
        direct(&mut command, role, &argument);
        command.env("KEYWAY_SOCKET", socket);
        Self::of(command.spawn().unwrap())
    }

    /// Listens to one that was started otherwise.
    pub(crate) fn of(mut child: Child) -> Self {
        let out = BufReader::new(child.stdout.take().unwrap());
        let (said, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                // The test harness speaks too, and leaves its line open.
                if let Some((_, text)) = line.split_once("says: ") {
                    // Nobody may listen any more.
                    let _ = said.send(text.to_owned());
                }
            }
        });
        Player { child, lines }
    }

    /// The next thing that it says.
    pub(crate) fn hear(&mut self) -> String {
        self.hear_within(PATIENCE)
    }

    /// As `hear`, with another patience.
    pub(crate) fn hear_within(&mut self, patience: Duration) -> String {
        self.lines.recv_timeout(patience).expect("it ended or hung without a word")
    }

    /// Hears all that it says until it ends.
    pub(crate) fn listen(&mut self, patience: Duration, mut each: impl FnMut(String)) {
        loop {
            match self.lines.recv_timeout(patience) {
                Ok(line) => each(line),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => panic!("it hangs"),
            }
        }
    }

    /// Says a line to it.
    pub(crate) fn tell(&mut self, text: &str) {
        let mut stdin = self.child.stdin.as_ref().unwrap();
        writeln!(stdin, "{text}").unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it with `SIGKILL`, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_alive(&self) -> bool {
        process::is_alive(process::pidfd_open(self.pid()).unwrap()).unwrap()
    }

    /// Kills it from another thread after a while. The handle says when that was.
    pub(crate) fn kill_after(&self, delay: Duration) -> thread::JoinHandle<Instant> {
        let pidfd = process::pidfd_open(self.pid()).unwrap();
        thread::spawn(move || {
            thread::sleep(delay);
            let now = Instant::now();
            process::kill(pidfd, Signal::Kill).unwrap();
            now
        })
    }

    /// Waits until it has ended by itself, and well.
    pub(crate) fn ends_well(&mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says something to the process that started this one.
pub(crate) fn say(text: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    // Whoever listened may be gone, and this process goes with it.
    let _ = writeln!(out, "says: {text}");
    let _ = out.flush();
}

/// Waits until this process is told something.
pub(crate) fn wait_to_be_told() -> String {
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line).unwrap() == 0 {
        std::process::exit(1);
    }
    line.trim_end().to_owned()
}

/// Does nothing until this process is killed.
pub(crate) fn stay() -> ! {
    loop {
        thread::park();
    }
}
