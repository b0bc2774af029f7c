//! Programs that are started with nothing but the descriptors they are given: no new privileges, and a seccomp filter.
//!
//! The filter refuses, with `EPERM`, the calls by which a process could reach others without a capability:
//!
//! | refused | why |
//! |---|---|
//! | `socket`, `connect` | reaching a listener |
//! | `socketpair`, unless Unix and stream or seqpacket | a datagram socket sends to any address without `connect` |
//! | `setsockopt(SO_PASSRIGHTS)` | would let descriptors in again at an end that the broker closed to them |
//! | `io_uring_setup`, `_enter`, `_register` | does what the calls above do, past the filter |
//! | `ptrace`, `process_vm_readv`, `process_vm_writev`, `pidfd_getfd` | reaching into other processes |
//! | every x32 call on x86-64 | numbered otherwise, so that the filter would not know them |
//!
//! A call by another architecture's numbers (32-bit x86) kills the process. What is left: `bind`, `listen` and
//! `accept` do nothing without a socket of one's own. The file system is not touched: a program that may open
//! another's /proc/PID/mem can reach into it; that is between users, and for Landlock.

use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use rustix::{
    io::{Errno, FdFlags},
    process::{self, Pid, Signal},
    thread,
};
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::{Error, socket};

/// Whether a program runs under the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Every call of the module's table is refused.
    Full,
    /// None is: confinement is then advice.
    None,
}

/// What becomes of a program when the thread that started it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParentDeath {
    /// It is killed too.
    Kill,
    /// It goes on.
    Outlive,
}

/// Makes a command start its program confined, with the descriptors, and returns the numbers by which the program finds
/// them, in order. Of all others it has standard input, output and error only: `close_range(2)`,
/// `PR_SET_NO_NEW_PRIVS(2const)`, `seccomp(2)`, `PR_SET_PDEATHSIG(2const)`.
///
/// The command keeps the descriptors until it is dropped, and needs no privilege. Confine a command once only.
///
/// # Errors
/// `EOPNOTSUPP` for a filter on an architecture that is neither x86-64 nor aarch64 nor riscv64; `EMFILE`. What fails in
/// the child is told by [`Command::spawn`], and the program is then not started.
pub fn confine(
    command: &mut Command,
    inherit: Vec<OwnedFd>,
    filter: Filter,
    parent_death: ParentDeath,
) -> Result<Vec<RawFd>, Error> {
    let inherit: Vec<OwnedFd> = inherit.into_iter().map(above_standard).collect::<Result<_, _>>()?;
    let numbers = inherit.iter().map(AsRawFd::as_raw_fd).collect();
    let mut program = match filter {
        Filter::Full => full_filter()?,
        Filter::None => Vec::new(),
    };
    let parent = process::getpid();
    let in_child =
        move || confine_self(&inherit, &mut program, parent_death, parent).map_err(io::Error::from);
    // SAFETY: the closure is async-signal-safe (`signal-safety(7)`): it makes system calls without locks, and an
    // `io::Error` of an errno allocates nothing (check: `confine_self`). It drops nothing.
    unsafe { command.pre_exec(in_child) };
    Ok(numbers)
}

/// Runs in the forked child: system calls only, no allocation.
fn confine_self(
    inherit: &[OwnedFd],
    program: &mut [libc::sock_filter],
    parent_death: ParentDeath,
    parent: Pid,
) -> Result<(), Errno> {
    close_at_exec_from(3)?;
    for fd in inherit {
        rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
    }
    if parent_death == ParentDeath::Kill {
        process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have died before the line above.
        if process::getppid() != Some(parent) {
            return Err(Errno::SRCH);
        }
    }
    thread::set_no_new_privs(true)?;
    if !program.is_empty() {
        install(program)?;
    }
    Ok(())
}

/// Makes all descriptors from this one on close at `exec`: `CLOSE_RANGE_CLOEXEC` in `close_range(2)`. Without it the
/// program would have whatever its starter inherited in turn.
fn close_at_exec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: no memory is named, and a descriptor that is closed at `exec` is open to its owner until then.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if answer == 0 { Ok(()) } else { Err(Error::last("close_range").errno) }
}

/// `PR_SET_SECCOMP(2const)`; not by `seccompiler`, which does not promise that it can be called after a fork.
fn install(program: &mut [libc::sock_filter]) -> Result<(), Errno> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies `length` instructions from the slice, which is borrowed until the call has returned.
    let answer = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if answer == 0 { Ok(()) } else { Err(Error::last("prctl(PR_SET_SECCOMP)").errno) }
}

/// The filter of the module's table, as instructions.
fn full_filter() -> Result<Vec<libc::sock_filter>, Error> {
    let unsupported = Error { call: "prctl(PR_SET_SECCOMP)", errno: Errno::OPNOTSUPP };
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch = std::env::consts::ARCH.try_into().map_err(|_| unsupported)?;
    let filter = rules().and_then(|rules| SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch));
    let program = filter.and_then(seccompiler::BpfProgram::try_from).map_err(|_| unsupported)?;
    let program = program.into_iter().map(|step| libc::sock_filter {
        code: step.code,
        jt: step.jt,
        jf: step.jf,
        k: step.k,
    });
    // Jumps are relative, so a beginning can be put before the rest.
    let x32_refusal: &[_] = if cfg!(target_arch = "x86_64") { &X32_REFUSAL } else { &[] };
    Ok(x32_refusal.iter().copied().chain(program).collect())
}

fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    let always = [
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_getfd,
    ];
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        always.into_iter().map(|number| (number, Vec::new())).collect();
    let argument = |index, operation, value: i32| {
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, operation, u64::from(value.unsigned_abs()))
    };
    // The type is the low four bits; above it are `SOCK_CLOEXEC` and `SOCK_NONBLOCK`. A raw Unix socket is a datagram
    // socket too.
    let socket_type = |value| argument(1, SeccompCmpOp::MaskedEq(0xf), value);
    let socketpairs = vec![
        SeccompRule::new(vec![argument(0, SeccompCmpOp::Ne, libc::AF_UNIX)?])?,
        SeccompRule::new(vec![socket_type(libc::SOCK_DGRAM)?])?,
        SeccompRule::new(vec![socket_type(libc::SOCK_RAW)?])?,
    ];
    rules.insert(libc::SYS_socketpair, socketpairs);
    let pass_rights = vec![
        argument(1, SeccompCmpOp::Eq, libc::SOL_SOCKET)?,
        argument(2, SeccompCmpOp::Eq, socket::SO_PASSRIGHTS)?,
    ];
    rules.insert(libc::SYS_setsockopt, vec![SeccompRule::new(pass_rights)?]);
    Ok(rules)
}

/// A number below 3 would be replaced by the child's standard input, output or error.
fn above_standard(fd: OwnedFd) -> Result<OwnedFd, Error> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    rustix::io::fcntl_dupfd_cloexec(&fd, 3).map_err(Error::of("fcntl(F_DUPFD_CLOEXEC)"))
}

/// Refuses each call whose number has the x32 bit, under whichever architecture: no other has numbers that large.
#[allow(clippy::cast_possible_truncation)] // The constants are small; their type is that of C's macros.
const X32_REFUSAL: [libc::sock_filter; 3] = [
    // Offset 0 of `seccomp_data` is the call's number.
    libc::sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: 0 },
    libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16,
        jt: 0,
        jf: 1,
        k: 0x4000_0000,
    },
    libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs(),
    },
];
