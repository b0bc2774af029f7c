//! What a figure is measured with: how much effort it may make, a place for files, and helpers in processes of their own.
//!
//! A figure has a process for itself. Its helpers are this same program with a role; each has a socket to the figure
//! (standard input), says there when it is ready, and ends when the figure closes it. Linux kills them when the figure
//! ends, however that happens.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    process::{self, Child, Command, Stdio},
};

use clap::{Args, ValueEnum};
use rustix::{
    net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType},
    thread::{self, CpuSet},
};

use crate::{Result, memory::Memory, place::Place, side};

/// How much a figure may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Effort {
    /// A second or so a round.
    Quick,
    /// Some seconds a round.
    Full,
}

impl Effort {
    pub(crate) fn choose<T>(self, quick: T, full: T) -> T {
        match self {
            Effort::Quick => quick,
            Effort::Full => full,
        }
    }
}

pub(crate) struct Stage {
    pub(crate) effort: Effort,
    /// The figure's own, and its peer's.
    pub(crate) cpus: [usize; 2],
    pub(crate) place: Place,
    /// How many races are to be run in all.
    pub(crate) races: u64,
}

/// What a helper does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HelperRole {
    /// Runs a broker.
    Broker,
    /// Sends on lanes that are about to be revoked.
    RaceSender,
    /// Receives from them.
    RaceReceiver,
    /// Does nothing, with several threads.
    Spinner,
    /// Does to the broker whatever it can, with as many.
    Flooder,
    /// Has a lane, until it is killed.
    DoomedSender,
    /// Has a queue from which it takes nothing, until it is killed.
    DoomedReceiver,
    /// Waits to be killed.
    Idler,
}

/// What a helper is told on its command line.
#[derive(Args)]
pub(crate) struct Duty {
    #[arg(long)]
    pub(crate) role: HelperRole,
    #[arg(long)]
    pub(crate) place: String,
    #[arg(long)]
    pub(crate) parent_pid: i32,
    #[arg(long)]
    pub(crate) cpu: Option<usize>,
    /// The inherited descriptor of the shared memory.
    #[arg(long)]
    pub(crate) memory_fd: Option<i32>,
}

/// A helper's own view of itself.
pub(crate) struct Post {
    pub(crate) place: Place,
    pub(crate) memory: Option<Memory>,
    input: io::Stdin,
}

impl Duty {
    /// Takes the post that the figure has given.
    pub(crate) fn begin(self) -> Result<Post> {
        side::die_with(self.parent_pid)?;
        if let Some(cpu) = self.cpu {
            pin(cpu)?;
        }
        let memory = self.memory_fd.map(open_memory).transpose()?;
        Ok(Post { place: Place::named(self.place), memory, input: io::stdin() })
    }
}

impl Post {
    fn socket(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    /// The figure can go on.
    pub(crate) fn say_ready(&self) -> Result<()> {
        net::send(self.socket(), READY, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Returns when the figure needs this helper no more.
    pub(crate) fn wait_for_end(&self) -> Result<()> {
        while net::recv(self.socket(), &mut [0; 1], RecvFlags::empty())?.0 > 0 {}
        Ok(())
    }
}

const READY: &[u8] = b"r";

/// A running helper, killed and reaped when it is dropped.
pub(crate) struct Helper {
    child: Child,
    socket: Option<OwnedFd>,
}

impl Stage {
    /// Starts a helper on this CPU, and returns once it is ready.
    pub(crate) fn start(
        &self,
        role: HelperRole,
        cpu: Option<usize>,
        memory: Option<&File>,
    ) -> Result<Helper> {
        let (own, theirs) =
            net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("helper")
            .args(["--role", role.to_possible_value().ok_or("a role without a name")?.get_name()])
            .args(["--place", self.place.name()])
            .args(["--parent-pid", &process::id().to_string()])
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null());
        if let Some(cpu) = cpu {
            command.args(["--cpu", &cpu.to_string()]);
        }
        if let Some(memory) = memory {
            command.args(["--memory-fd", &memory.as_raw_fd().to_string()]);
        }
        let mut helper = Helper { child: command.spawn()?, socket: None };
        // Its end of the pair closes here, so that its death shows as the end of the socket.
        drop(command);
        let socket = helper.socket.insert(own);
        match net::recv(&*socket, &mut [0; 1], RecvFlags::empty())? {
            (1, _) => Ok(helper),
            _ => Err(format!("the helper {role:?} ended before it was ready").into()),
        }
    }

    /// Starts a broker in a process of its own, on the peer's CPU.
    pub(crate) fn start_broker(&self) -> Result<Helper> {
        self.start(HelperRole::Broker, Some(self.cpus[1]), None)
    }

    /// Where that broker listens.
    pub(crate) fn broker_path(&self) -> PathBuf {
        broker_path(&self.place)
    }
}

pub(crate) fn broker_path(place: &Place) -> PathBuf {
    place.directory().join("figures.sock")
}

/// From now on this thread, and those that it starts, run on this CPU alone.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    Ok(thread::sched_setaffinity(None, &cpus)?)
}

/// Opened anew instead of adopting the descriptor's number, which would take unsafe code.
fn open_memory(fd: i32) -> Result<Memory> {
    let file = File::options().read(true).write(true).open(format!("/proc/self/fd/{fd}"))?;
    Memory::map(&file)
}

impl Helper {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended, in whatever way.
    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Kills it, and does not wait until it is dead.
    pub(crate) fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill()?)
    }

    /// This end of the pair, which is at its end when the helper is.
    pub(crate) fn take_socket(&mut self) -> Result<OwnedFd> {
        Ok(self.socket.take().ok_or("the socket is gone")?)
    }

    /// Returns once the other end of the pair is closed.
    pub(crate) fn wait_for_end_of(socket: &OwnedFd) -> Result<()> {
        while net::recv(socket, &mut [0; 1], RecvFlags::empty())?.0 > 0 {}
        Ok(())
    }

    /// Has it end by itself; says whether it ended well.
    pub(crate) fn finish(mut self) -> Result<()> {
        drop(self.socket.take());
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("a helper ended with {status}").into()) }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Both fail only where it has been reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
