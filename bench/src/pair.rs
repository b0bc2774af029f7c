//! The processes of one run, started, watched and ended by the controlling process.
//!
//! # Invariants
//! 1. All processes have ended and are reaped when a `Sides` is gone.

use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::{self, Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use clap::ValueEnum;
use rustix::{
    event::{self, PollFd, PollFlags, Timespec},
    fs::{self, MemfdFlags},
    io::Errno,
    net::{self, AddressFamily, SocketFlags, SocketType},
};

use crate::{
    Result,
    memory::MEMORY_BYTES,
    place::Place,
    scenario::{Metric, Scenario},
    side::Role,
    systems::System,
};

/// What one run measures.
pub(crate) struct Run<'r> {
    pub(crate) system: &'r dyn System,
    pub(crate) scenario: Scenario,
    pub(crate) duration: Duration,
    /// The asker's and the answerer's; of several, every other one's.
    pub(crate) cpus: [usize; 2],
    pub(crate) place: &'r Place,
}

/// The value of each metric of the scenario, in its order.
pub(crate) type Figures = Vec<f64>;

/// What a run may take beyond its duration: starting two processes and setting up, on a busy machine.
const GRACE: Duration = Duration::from_secs(10);

impl Run<'_> {
    pub(crate) fn measure(&self) -> Result<Figures> {
        let deadline = Instant::now() + self.duration + GRACE;
        let prepared = self.system.prepare(self.scenario, self.place)?;
        let mut sides = Sides::start(self)?;
        let report = sides.outlast(deadline);
        drop(sides);
        drop(prepared);
        self.figures(&report?)
    }

    fn figures(&self, report: &str) -> Result<Figures> {
        let report: serde_json::Value = serde_json::from_str(report)?;
        let figure = |metric: &Metric| report[metric.name()].as_f64();
        let figures: Option<Figures> = self.scenario.metrics().iter().map(figure).collect();
        figures.ok_or_else(|| format!("the report lacks a metric: {report}").into())
    }

    fn start_side(&self, role: Role, index: usize, socket: OwnedFd, memory: &File) -> Result<Watched> {
        let cpu = match role {
            Role::Asker => self.cpus[0],
            Role::Answerer => self.cpus[(index + 1) % 2],
        };
        let mut child = Command::new(std::env::current_exe()?)
            .arg("side")
            .args(["--system", self.system.name()])
            .args(["--scenario", &self.scenario.name()])
            .args(["--role", role.to_possible_value().ok_or("a role without a name")?.get_name()])
            .args(["--index", &index.to_string()])
            .args(["--cpu", &cpu.to_string()])
            .args(["--duration-ms", &self.duration.as_millis().to_string()])
            .args(["--memory-fd", &memory.as_raw_fd().to_string()])
            .args(["--place", self.place.name()])
            .args(["--controller-pid", &process::id().to_string()])
            .stdin(Stdio::from(socket))
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("a child without its pipe")?;
        Ok(Watched { role, child, output, report: Vec::new(), has_ended: false })
    }
}

struct Sides {
    sides: Vec<Watched>,
}

/// A side whose end shows as the end of its output.
struct Watched {
    role: Role,
    child: Child,
    output: ChildStdout,
    report: Vec<u8>,
    has_ended: bool,
}

impl Sides {
    fn start(run: &Run<'_>) -> Result<Self> {
        // Inherited by all sides: it is not closed on exec.
        let memory = File::from(fs::memfd_create("keyway-bench", MemfdFlags::empty())?);
        memory.set_len(MEMORY_BYTES as u64)?;
        let (asking, answering) =
            net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut all = Self { sides: Vec::with_capacity(1 + run.scenario.answerers()) };
        for index in 0..run.scenario.answerers() {
            all.sides.push(run.start_side(Role::Answerer, index, answering.try_clone()?, &memory)?);
        }
        drop(answering);
        all.sides.push(run.start_side(Role::Asker, 0, asking, &memory)?);
        Ok(all)
    }

    /// Waits until all sides have ended well, or one of them badly, or the deadline; answers what the asker printed.
    fn outlast(&mut self, deadline: Instant) -> Result<String> {
        while self.sides.iter().any(|side| !side.has_ended) {
            for side in self.wait_readable(deadline)? {
                side.read()?;
            }
        }
        let asker = self.sides.iter().find(|side| side.role == Role::Asker).ok_or("no asker was started")?;
        Ok(String::from_utf8(asker.report.clone())?)
    }

    fn wait_readable(&mut self, deadline: Instant) -> Result<Vec<&mut Watched>> {
        let mut open: Vec<_> = self.sides.iter_mut().filter(|side| !side.has_ended).collect();
        let left = deadline.saturating_duration_since(Instant::now());
        let ready: Vec<bool> = {
            let mut polled: Vec<_> = open
                .iter()
                .map(|side| PollFd::from_borrowed_fd(side.output.as_fd(), PollFlags::IN))
                .collect();
            match event::poll(&mut polled, Some(&Timespec::try_from(left)?)) {
                Ok(0) => return Err("the run did not end in time".into()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            polled.iter().map(|fd| !fd.revents().is_empty()).collect()
        };
        let mut ready = ready.into_iter();
        open.retain(|_| ready.next() == Some(true));
        Ok(open)
    }
}

impl Drop for Sides {
    fn drop(&mut self) {
        for side in &mut self.sides {
            // Both fail only where the side has been reaped.
            let _ = side.child.kill();
            let _ = side.child.wait();
        }
    }
}

impl Watched {
    /// Reads what is there, and the status where nothing more will come.
    fn read(&mut self) -> Result<()> {
        let mut chunk = [0; 512];
        let read_bytes = self.output.read(&mut chunk)?;
        self.report.extend_from_slice(&chunk[..read_bytes]);
        if read_bytes > 0 {
            return Ok(());
        }
        self.has_ended = true;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the {:?} ended with {status}", self.role).into()) }
    }
}
