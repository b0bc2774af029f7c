//! What a scenario has: the host, processes of Keyway, and other users.

use std::{fs, os::unix::process::CommandExt, path::PathBuf, process::Command};

use anyhow::{Result, bail, ensure};
use keyway_vm::protocol::{Answer, Display, Pixel, Told};

use crate::{LOGS, dialogue::Dialogue, process::Process};

/// Where the broker of a scenario is.
pub const SOCKET: &str = "/run/keyway/broker.sock";

/// See the module.
pub struct Stage {
    host: Dialogue,
    /// Where what its processes say is kept.
    logs: PathBuf,
}

impl Stage {
    pub fn new(host: Dialogue) -> Self {
        Stage { host, logs: LOGS.into() }
    }

    /// Keeps a picture of a screen.
    pub fn screenshot(&mut self, display: Display, name: &str) -> Result<()> {
        self.host.tell(Told::Screenshot { display, name: name.into() })
    }

    /// Demands that a screen shows these pixels now, or very soon.
    pub fn expect_pixels(
        &mut self,
        display: Display,
        name: &str,
        size: (u32, u32),
        expect: &[Pixel],
    ) -> Result<()> {
        self.host.tell(Told::Pixels { display, name: name.into(), size, expect: expect.into() })
    }

    /// Shows lines to whoever started the run, and keeps them.
    pub fn show_figures(&mut self, lines: Vec<String>) -> Result<()> {
        self.host.tell(Told::Figures { lines })
    }

    /// How many pixels differ between two pictures that were kept.
    pub fn count_differing(&mut self, first: &str, second: &str) -> Result<u64> {
        match self.host.ask(Told::Compare { first: first.into(), second: second.into() })? {
            Answer::Differ { pixels } => Ok(pixels),
            other => bail!("the host answered something else: {other:?}"),
        }
    }

    /// Has keys pressed and released on the machine's keyboard.
    pub fn press(&mut self, keys: &[&str]) -> Result<()> {
        self.host.tell(Told::Keys { keys: keys.iter().map(|key| (*key).into()).collect() })
    }

    /// Has the tablet's pointer moved.
    pub fn point(&mut self, x: u16, y: u16) -> Result<()> {
        self.host.tell(Told::Tablet { x, y })
    }

    /// Starts a broker, and waits until it listens at [`SOCKET`].
    pub fn start_broker(&self, options: &[&str]) -> Result<Process> {
        fs::create_dir_all("/run/keyway")?;
        self.start_keyway("broker", &["serve", "--socket", SOCKET], options, "keyway: serving")
    }

    /// Starts the bridge at that broker, and waits until compositors can find it.
    pub fn start_bridge(&self, options: &[&str]) -> Result<Process> {
        self.start_keyway("bridge", &["seat", "--socket", SOCKET], options, "keyway: the bridge")
    }

    /// What the command `keyway` says about that broker: `caps`, `audit`.
    pub fn listed(&self, command: &str) -> Result<String> {
        let output = Command::new("/bin/keyway").args([command, "--socket", SOCKET]).output()?;
        ensure!(output.status.success(), "keyway {command}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts any program; what it says is kept as `NAME.log`.
    pub fn start(&self, name: &str, command: &mut Command) -> Result<Process> {
        Process::start(&self.logs, name, command)
    }

    /// Has a part of the scenario run by another user, while the scenario goes on.
    pub fn start_as_user(&self, uid: u32, part: &str, arguments: &[&str]) -> Result<Process> {
        let mut command = Command::new("/proc/self/exe");
        command.args(["part", part]).args(arguments).uid(uid).gid(uid);
        Process::start(&self.logs, part, &mut command)
    }

    /// Has a part of the scenario run by another user, to its end; why it failed is the error.
    pub fn as_user(&self, uid: u32, part: &str, arguments: &[&str]) -> Result<()> {
        self.start_as_user(uid, part, arguments)?.await_success()
    }

    fn start_keyway(&self, name: &str, command: &[&str], options: &[&str], ready: &str) -> Result<Process> {
        let mut process =
            Process::start(&self.logs, name, Command::new("/bin/keyway").args(command).args(options))?;
        process.await_line(ready)?;
        Ok(process)
    }
}
