//! What a scenario has: the host, processes of Keyway, and other users.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use keyway_vm::protocol::{Answer, Display, Pixel, Told};

use crate::{LOGS, dialogue::Dialogue};

/// Where the broker of a scenario is.
pub const SOCKET: &str = "/run/keyway/broker.sock";

/// How long a process of Keyway may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(10);

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
    pub fn start_broker(&self, options: &[&str]) -> Result<Keyway> {
        fs::create_dir_all("/run/keyway")?;
        self.start_keyway("broker", &[&["serve", "--socket", SOCKET], options].concat(), "keyway: serving")
    }

    /// Starts the bridge at that broker, and waits until compositors can find it.
    pub fn start_bridge(&self, options: &[&str]) -> Result<Keyway> {
        self.start_keyway("bridge", &[&["seat", "--socket", SOCKET], options].concat(), "keyway: the bridge")
    }

    /// Has a part of the scenario run by another user, and waits until it has come to its end; why it failed is the error.
    pub fn as_user(&self, uid: u32, part: &str, arguments: &[&str]) -> Result<()> {
        let log = self.log(part)?.1;
        let output = Command::new("/proc/self/exe")
            .args(["part", part])
            .args(arguments)
            .uid(uid)
            .gid(uid)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::piped())
            .output()?;
        let why = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{part}, as user {uid}, {}: {}", output.status, why.trim());
        Ok(())
    }

    /// Starts `keyway`, and waits until it says something that begins with `ready`. What it says is kept as `NAME.log`.
    fn start_keyway(&self, name: &str, arguments: &[&str], ready: &str) -> Result<Keyway> {
        let (path, log) = self.log(name)?;
        // One of this name may have been there before.
        let before = fs::read_to_string(&path)?.len();
        let child = Command::new("/bin/keyway")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start the {name}"))?;
        let mut keyway = Keyway { child };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = fs::read_to_string(&path)?.split_off(before);
            if said.lines().any(|line| line.starts_with(ready)) {
                return Ok(keyway);
            }
            if let Some(status) = keyway.child.try_wait()? {
                bail!("the {name} has ended, {status}: {}", said.trim());
            }
            ensure!(Instant::now() < deadline, "the {name} is not ready after {} s", PATIENCE.as_secs());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// A log that goes on where it ended, for whoever is started a second time.
    fn log(&self, name: &str) -> Result<(PathBuf, File)> {
        let path = self.logs.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("cannot write {}", path.display()))?;
        Ok((path, log))
    }
}

/// A process of Keyway's, which is killed with this value.
pub struct Keyway {
    child: Child,
}

impl Drop for Keyway {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
