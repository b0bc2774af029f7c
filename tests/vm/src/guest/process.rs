//! A process of a scenario, and what it says.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

/// How long a process may take until it says that it is ready.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module. It is killed with this value.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Where its own words begin in the log. One of its name may have been there before.
    begin: usize,
}

impl Process {
    /// Starts it. What it says is kept as `NAME.log` in a directory.
    pub fn start(logs: &Path, name: &str, command: &mut Command) -> Result<Self> {
        let path = logs.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("cannot write {}", path.display()))?;
        let begin = fs::read_to_string(&path)?.len();
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Process { name: name.into(), child, log: path, begin })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub fn said(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?.split_off(self.begin))
    }

    /// Waits until it says a line that begins in this way, and fails if it ends before that.
    pub fn await_line(&mut self, beginning: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self.child.try_wait()?;
            let said = self.said()?;
            if said.lines().any(|line| line.starts_with(beginning)) {
                return Ok(());
            }
            if let Some(status) = ended {
                bail!("{} has ended, {status}: {}", self.name, said.trim());
            }
            ensure!(Instant::now() < deadline, "{} has not said {beginning:?} in time", self.name);
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Ends it by SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until it ends by itself, and fails if it does not end well. The scenario's time bounds this.
    pub fn await_success(mut self) -> Result<()> {
        let status = self.child.wait()?;
        ensure!(status.success(), "{}, {status}: {}", self.name, self.said()?.trim());
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
