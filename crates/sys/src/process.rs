//! Processes, by pidfd: whether they live, which one it is, what they run; and this process's own settings.
//!
//! A pidfd never comes to mean another process. A pid can, so what is read from /proc by pid counts only if the pidfd
//! still says that the process lives afterwards.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
};

use rustix::{
    event::{self, PollFd, PollFlags, Timespec},
    fs as rfs,
    io::Errno,
    process::{self, DumpableBehavior, Pid, PidfdFlags, Resource, Rlimit},
    thread::{self, CpuSet},
};

use crate::Error;

/// A pidfd of the process with this number: `pidfd_open(2)`, closed at `exec`.
///
/// # Errors
/// `ESRCH` when there is none, `EINVAL` for 0, `EMFILE`.
pub fn pidfd_open(pid: u32) -> Result<OwnedFd, Error> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(Error { call: "pidfd_open", errno: Errno::INVAL })?;
    process::pidfd_open(pid, PidfdFlags::empty()).map_err(Error::of("pidfd_open"))
}

/// Whether the process still runs: a pidfd is readable once it does not (`pidfd_open(2)`). A zombie does not run.
///
/// # Errors
/// `ENOMEM`.
pub fn is_alive(pidfd: impl AsFd) -> Result<bool, Error> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let ready =
        rustix::io::retry_on_intr(|| event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&now)));
    Ok(ready.map_err(Error::of("poll"))? == 0)
}

/// One process among all since the machine started; another with the same pid has another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessKey(pub u64, pub u64);

/// The key of a process: 0 and the pidfd's inode number where pidfds have one each (Linux 6.9), else its pid and the
/// time of its start (`proc_pid_stat(5)`).
///
/// # Errors
/// `ESRCH`, before Linux 6.9, for a process that is gone.
pub fn process_key(pidfd: impl AsFd) -> Result<ProcessKey, Error> {
    if is_on_pidfs(&pidfd)? {
        let stat = rfs::fstat(&pidfd).map_err(Error::of("fstat"))?;
        return Ok(ProcessKey(0, stat.st_ino));
    }
    let pid = pid(&pidfd)?;
    let start = start_ticks(pid)?;
    if !is_alive(pidfd)? {
        return Err(Error { call: "open(/proc/PID/stat)", errno: Errno::SRCH });
    }
    Ok(ProcessKey(u64::from(pid), start))
}

/// The number of the process in this process's PID namespace: `Pid` in /proc/self/fdinfo, see `pidfd_open(2)`.
///
/// # Errors
/// `ESRCH` when it is gone and waited for, or has no number here; `EINVAL` for what is no pidfd.
pub fn pid(pidfd: impl AsFd) -> Result<u32, Error> {
    let call = "read(/proc/self/fdinfo)";
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd()))
        .map_err(|error| Error::from_io(call, &error))?;
    let field = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    let field = field.ok_or(Error { call, errno: Errno::INVAL })?;
    match field.trim().parse::<u32>() {
        Ok(pid) if pid > 0 => Ok(pid),
        _ => Err(Error { call, errno: Errno::SRCH }),
    }
}

/// The file that the process runs, as this process may see it: /proc/PID/exe in `proc_pid_exe(5)`.
///
/// `None` when it is gone or Linux does not let this process look. The path may end in ` (deleted)`, and a process in a
/// mount namespace of its own can run anything at any path: advice, unless the caller knows better.
///
/// # Errors
/// `ENOMEM`, `EMFILE`.
pub fn executable(pidfd: impl AsFd) -> Result<Option<PathBuf>, Error> {
    let pid = match pid(&pidfd) {
        Ok(pid) => pid,
        Err(Error { errno: Errno::SRCH, .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let path = match fs::read_link(format!("/proc/{pid}/exe")) {
        Ok(path) => path,
        Err(error) => {
            let error = Error::from_io("readlink(/proc/PID/exe)", &error);
            return match error.errno {
                Errno::NOENT | Errno::SRCH | Errno::ACCESS | Errno::PERM => Ok(None),
                _ => Err(error),
            };
        }
    };
    // Only a process that lives now had the pid all the while.
    Ok(is_alive(pidfd)?.then_some(path))
}

/// The signals that the broker sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// `SIGTERM`.
    Terminate,
    /// `SIGKILL`.
    Kill,
    /// `SIGSTOP`.
    Stop,
    /// `SIGCONT`.
    Continue,
}

/// Sends a signal: `pidfd_send_signal(2)`.
///
/// # Errors
/// `EPERM` when this process may not, `ESRCH` when the process is gone.
pub fn kill(pidfd: impl AsFd, signal: Signal) -> Result<(), Error> {
    let signal = match signal {
        Signal::Terminate => process::Signal::TERM,
        Signal::Kill => process::Signal::KILL,
        Signal::Stop => process::Signal::STOP,
        Signal::Continue => process::Signal::CONT,
    };
    process::pidfd_send_signal(pidfd, signal).map_err(Error::of("pidfd_send_signal"))
}

/// Whether a process of the user `uid` could send the process a signal: `kill(2)` wants the sender's user to be the target's
/// real or saved one, or root. A process can change what it runs as after a descriptor to it was made.
///
/// # Errors
/// `ESRCH` when it is gone, `EACCES` when /proc hides it.
pub fn is_within_reach(pidfd: impl AsFd, uid: u32) -> Result<bool, Error> {
    let call = "read(/proc/PID/status)";
    let status = status(pidfd)?;
    let (real, saved) = real_and_saved(&status).ok_or(Error { call, errno: Errno::IO })?;
    Ok(uid == 0 || uid == real || uid == saved)
}

/// The supplementary groups of the process: `Groups:` in `proc_pid_status(5)`.
///
/// # Errors
/// `ESRCH` when it is gone, `EACCES` when /proc hides it.
pub fn groups(pidfd: impl AsFd) -> Result<Vec<u32>, Error> {
    let call = "read(/proc/PID/status)";
    let status = status(pidfd)?;
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    let groups = line.map(|line| line.split_whitespace().map(str::parse).collect());
    groups.and_then(Result::ok).ok_or(Error { call, errno: Errno::IO })
}

/// What memory a process has, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Pages that it wrote and shares with nobody: `Private_Dirty` in `proc_pid_smaps(5)`.
    pub private_dirty_bytes: u64,
    /// Resident memory that belongs to no file: `RssAnon` in `proc_pid_status(5)`.
    pub anonymous_bytes: u64,
    /// Resident shared memory, memfds among it: `RssShmem` in `proc_pid_status(5)`.
    pub shared_bytes: u64,
}

/// What memory the process with this number has.
///
/// # Errors
/// `ENOENT` and `ESRCH` when there is none, `EACCES` when Linux does not let this process look.
pub fn memory_use(pid: u32) -> Result<MemoryUse, Error> {
    let read = |file: &str, call| {
        fs::read_to_string(format!("/proc/{pid}/{file}")).map_err(|error| Error::from_io(call, &error))
    };
    let rollup = read("smaps_rollup", "read(/proc/PID/smaps_rollup)")?;
    let status = read("status", "read(/proc/PID/status)")?;
    Ok(MemoryUse {
        private_dirty_bytes: kilobytes(&rollup, "Private_Dirty:"),
        anonymous_bytes: kilobytes(&status, "RssAnon:"),
        shared_bytes: kilobytes(&status, "RssShmem:"),
    })
}

/// Keeps others of this user from tracing this process and reading its memory: `PR_SET_DUMPABLE(2const)`. /proc/self
/// then belongs to root.
///
/// # Errors
/// None that is known.
pub fn set_not_dumpable() -> Result<(), Error> {
    process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(Error::of("prctl(PR_SET_DUMPABLE)"))
}

/// Gives up, for this thread and what it starts, every privilege that an executable could add:
/// `PR_SET_NO_NEW_PRIVS(2const)`.
///
/// # Errors
/// None that is known.
pub fn set_no_new_privs() -> Result<(), Error> {
    thread::set_no_new_privs(true).map_err(Error::of("prctl(PR_SET_NO_NEW_PRIVS)"))
}

/// Raises this process's limit of open descriptors as far as it may without privilege, and tells it: `RLIMIT_NOFILE` in
/// `getrlimit(2)`.
///
/// # Errors
/// `EPERM`.
pub fn raise_descriptor_limit() -> Result<u64, Error> {
    let limit = process::getrlimit(Resource::Nofile);
    process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .map_err(Error::of("setrlimit(RLIMIT_NOFILE)"))?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// The user that this process acts as: `geteuid(2)`.
pub fn own_uid() -> u32 {
    process::geteuid().as_raw()
}

/// Descriptors that this process can have open: the soft `RLIMIT_NOFILE` of `getrlimit(2)`.
pub fn descriptor_limit() -> u64 {
    process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Descriptors that this process has open, counted in `/proc/self/fd`.
///
/// # Errors
/// `ENOENT` without `/proc`; `EMFILE`.
pub fn open_descriptors() -> Result<u64, Error> {
    let call = "readdir(/proc/self/fd)";
    let entries = fs::read_dir("/proc/self/fd").map_err(|error| Error::from_io(call, &error))?;
    // One of them is the directory's own.
    Ok(entries.count().saturating_sub(1) as u64)
}

/// Keeps this thread on one processor: `sched_setaffinity(2)`.
///
/// # Errors
/// `EINVAL` when there is no such processor or this process may not use it.
pub fn pin_to_cpu(cpu: usize) -> Result<(), Error> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(Error { call: "sched_setaffinity", errno: Errno::INVAL });
    }
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    thread::sched_setaffinity(None, &cpus).map_err(Error::of("sched_setaffinity"))
}

/// Whether this pidfd has an inode number of its own, which is never used again until the machine restarts.
pub(crate) fn is_on_pidfs(pidfd: impl AsFd) -> Result<bool, Error> {
    // 32-bit machines cut inode numbers short.
    if cfg!(not(target_pointer_width = "64")) {
        return Ok(false);
    }
    let stat = rfs::fstatfs(pidfd).map_err(Error::of("fstatfs"))?;
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)] // The type differs between architectures.
    Ok(stat.f_type as u64 == PIDFS_MAGIC)
}

/// What `proc_pid_status(5)` says of a process that lives.
fn status(pidfd: impl AsFd) -> Result<String, Error> {
    let call = "read(/proc/PID/status)";
    let pid = pid(&pidfd)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"));
    // Only a process that lives now had the pid all the while.
    if !is_alive(pidfd)? {
        return Err(Error { call, errno: Errno::SRCH });
    }
    status.map_err(|error| Error::from_io(call, &error))
}

fn start_ticks(pid: u32) -> Result<u64, Error> {
    let call = "read(/proc/PID/stat)";
    let stat =
        fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|error| Error::from_io(call, &error))?;
    // The second field is the name, in parentheses, and may hold anything; the third begins after the last one.
    let ticks = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(22 - 3));
    ticks.and_then(|ticks| ticks.parse().ok()).ok_or(Error { call, errno: Errno::IO })
}

/// The real and the saved user: the first and the third number behind `Uid:` in `proc_pid_status(5)`.
fn real_and_saved(status: &str) -> Option<(u32, u32)> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let mut numbers = line.split_whitespace().map_while(|text| text.parse().ok());
    Some((numbers.next()?, numbers.nth(1)?))
}

/// The sum of the lines that begin with the name, whose numbers /proc gives in kilobytes.
fn kilobytes(text: &str, name: &str) -> u64 {
    let lines = text.lines().filter_map(|line| line.strip_prefix(name));
    lines.filter_map(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).sum::<u64>() * 1024
}

/// `PID_FS_MAGIC` in Linux's `magic.h`.
const PIDFS_MAGIC: u64 = 0x5049_4446;

/// How many processors are online, also such on which this process may not run: `sysconf(3)`. At least 1.
pub fn cpus_online() -> usize {
    // SAFETY: `sysconf` reads a number by a name that it knows, and writes nothing (sysconf(3)).
    let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(online).unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests;
