//! Seqpacket Unix sockets: pairs, listening, connecting, and who is at the other end.
//!
//! What a socket accepts is an option of the end that *receives* (tried on Linux 6.18). So the broker's end is what is
//! set, before the other end exists or leaves the broker, and its peer can change nothing about it:
//!
//! | pair | broker's end | other end |
//! |---|---|---|
//! | session | credentials and pidfd with each frame; no descriptors | takes descriptors: the broker sends them |
//! | deposit | credentials and pidfd with each frame; takes descriptors | no descriptors |
//! | doorbell | no descriptors | no descriptors |
//!
//! A process that holds an end can switch descriptors on again at that end, for itself. It then takes what its peer
//! sends; a confined process cannot, because its filter refuses that option.

use std::{
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
    path::Path,
    time::Duration,
};

use rustix::{
    event::{self, PollFd, PollFlags},
    fs::{self, AtFlags, CWD, Mode},
    io::Errno,
    net::{self, AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, sockopt},
};

use crate::{Error, clock};

/// Bytes of the longest path that a socket can have: 108 in `unix(7)`, less the byte that ends it.
pub const PATH_BYTES_MAX: usize = 107;

/// What a pair of sockets is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairUse {
    /// Requests and answers of one process.
    Session,
    /// Descriptors that a process with the right `deposit` sends to the broker.
    Deposit,
    /// Wakes between two processes; neither end is the broker's.
    Doorbell,
}

/// Two connected sockets, and whether Linux refuses descriptors on them where it should.
#[derive(Debug)]
pub struct Pair {
    /// The end that the broker keeps; of a doorbell, the end for the first process.
    pub broker_end: OwnedFd,
    /// The end for the other process.
    pub client_end: OwnedFd,
    /// Whether unwanted descriptors are refused.
    pub rights_filter: RightsFilter,
}

/// Whether Linux refuses descriptors that a process sends to a socket that wants none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RightsFilter {
    /// It does: whoever sends one gets `EPERM`, and the frame is not sent.
    On,
    /// It cannot, before Linux 6.16: descriptors arrive and are closed by the receiver.
    Missing,
}

/// Makes a connected pair: `socketpair(2)`, `SOCK_SEQPACKET`, closed at `exec`.
///
/// # Errors
/// `EMFILE`, `ENFILE`; `ENOPROTOOPT` before Linux 6.5, whose sockets have no pidfds.
pub fn seqpacket_pair(pair_use: PairUse) -> Result<Pair, Error> {
    let (broker_end, client_end) =
        net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(Error::of("socketpair"))?;
    let rights_filter = match pair_use {
        PairUse::Session => set_broker_options(&broker_end)?,
        PairUse::Deposit => {
            identify_senders(&broker_end)?;
            refuse_descriptors(&client_end)?
        }
        PairUse::Doorbell => {
            refuse_descriptors(&broker_end)?;
            refuse_descriptors(&client_end)?
        }
    };
    Ok(Pair { broker_end, client_end, rights_filter })
}

/// Sets what the broker's end of a session has: the sender's credentials and pidfd with each frame, and no descriptors
/// (`unix(7)`).
///
/// Since Linux 6.16 a connection inherits these options from the listening socket when the client connects; before
/// that, it gets the credentials of frames that came before `accept`, but not the other two. So both the listening
/// socket and each accepted one are to be set.
///
/// # Errors
/// `ENOPROTOOPT` before Linux 6.5, whose sockets have no pidfds.
pub fn set_broker_options(fd: impl AsFd) -> Result<RightsFilter, Error> {
    identify_senders(&fd)?;
    refuse_descriptors(fd)
}

/// Stops the pidfd with each frame, for an end whose session is bound: from then on credentials are enough, and no
/// descriptor is made and closed for each frame. Frames that wait already may still carry one.
///
/// # Errors
/// `ENOPROTOOPT` before Linux 6.5.
pub fn stop_pidfds(fd: impl AsFd) -> Result<(), Error> {
    set_option(fd, SO_PASSPIDFD, 0, "setsockopt(SO_PASSPIDFD)")
}

/// Listens at a path: `socket(2)`, `bind(2)`, `chmod(2)`, `listen(2)`. The socket has the broker's options, does not
/// block in [`accept`], and never has a wider mode than `mode`.
///
/// The directory must be one that only this user can write, which the caller sees to.
///
/// # Errors
/// `EADDRINUSE` when something is at the path (see [`remove_stale`]), `ENAMETOOLONG` for a path above 107 bytes, and
/// those of `bind(2)`.
pub fn listen(path: &Path, mode: u32, backlog: u16) -> Result<OwnedFd, Error> {
    let fd = unbound(SocketType::SEQPACKET)?;
    set_broker_options(&fd)?;
    listen_with(fd, path, mode, backlog)
}

/// As [`listen`], for streams of bytes in another protocol than the broker's: without the sender's identity beside them, and
/// without descriptors where Linux can refuse them.
///
/// # Errors
/// As [`listen`].
pub fn listen_stream(path: &Path, mode: u32, backlog: u16) -> Result<OwnedFd, Error> {
    let fd = unbound(SocketType::STREAM)?;
    refuse_descriptors(&fd)?;
    listen_with(fd, path, mode, backlog)
}

fn unbound(kind: SocketType) -> Result<OwnedFd, Error> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    net::socket_with(AddressFamily::UNIX, kind, flags, None).map_err(Error::of("socket"))
}

fn listen_with(fd: OwnedFd, path: &Path, mode: u32, backlog: u16) -> Result<OwnedFd, Error> {
    let address = SocketAddrUnix::new(path).map_err(Error::of("bind"))?;
    let mode = Mode::from_raw_mode(mode & 0o777);
    // The file takes the mode of the unbound socket, less the umask; nobody can connect in between.
    fs::fchmod(&fd, mode).map_err(Error::of("fchmod"))?;
    net::bind(&fd, &address).map_err(Error::of("bind"))?;
    fs::chmodat(CWD, path, mode, AtFlags::empty()).map_err(Error::of("chmod"))?;
    net::listen(&fd, i32::from(backlog)).map_err(Error::of("listen"))?;
    Ok(fd)
}

/// Removes the socket at the path if nobody listens there any more; tells whether the path is free now.
///
/// # Errors
/// Those of `unlink(2)`, and of `connect(2)` where it says neither yes nor no.
pub fn remove_stale(path: &Path) -> Result<bool, Error> {
    remove_if_refused(path, connect(path).map(drop))
}

/// As [`remove_stale`], for [`listen_stream`].
///
/// # Errors
/// As [`remove_stale`].
pub fn remove_stale_stream(path: &Path) -> Result<bool, Error> {
    remove_if_refused(path, connect_as(SocketType::STREAM, path).map(drop))
}

fn remove_if_refused(path: &Path, connected: Result<(), Error>) -> Result<bool, Error> {
    match connected {
        Ok(()) => Ok(false),
        Err(Error { errno: Errno::NOENT, .. }) => Ok(true),
        Err(Error { errno: Errno::CONNREFUSED, .. }) => {
            let stat = fs::lstat(path).map_err(Error::of("lstat"))?;
            if !fs::FileType::from_raw_mode(stat.st_mode).is_socket() {
                return Ok(false);
            }
            fs::unlink(path).map_err(Error::of("unlink"))?;
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

/// Takes the next waiting connection, if there is one: `accept4(2)`, closed at `exec`. Call again when the listening
/// socket is readable.
///
/// Set [`set_broker_options`] on it before anything is read.
///
/// # Errors
/// `EMFILE` and `ENFILE`, upon which the connection waits on and the socket stays readable; those of `accept(2)`.
pub fn accept(listening: impl AsFd) -> Result<Option<OwnedFd>, Error> {
    match net::accept_with(listening, SocketFlags::CLOEXEC) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
        Err(errno) => Err(Error { call: "accept", errno }),
    }
}

/// Connects to a path: `connect(2)`, closed at `exec`. Waits while the listener's backlog is full.
///
/// # Errors
/// `ENOENT` and `ECONNREFUSED` when nobody listens, `EACCES`, `EPROTOTYPE`, `ENAMETOOLONG`.
pub fn connect(path: &Path) -> Result<OwnedFd, Error> {
    connect_as(SocketType::SEQPACKET, path)
}

fn connect_as(kind: SocketType, path: &Path) -> Result<OwnedFd, Error> {
    let address = SocketAddrUnix::new(path).map_err(Error::of("connect"))?;
    let fd = net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
        .map_err(Error::of("socket"))?;
    rustix::io::retry_on_intr(|| net::connect(&fd, &address)).map_err(Error::of("connect"))?;
    Ok(fd)
}

/// Who a process was, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The process, by number in this process's PID namespace; 0 when it has none there.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

impl From<libc::ucred> for Credentials {
    fn from(ucred: libc::ucred) -> Self {
        Self { pid: u32::try_from(ucred.pid).unwrap_or(0), uid: ucred.uid, gid: ucred.gid }
    }
}

/// Who connected or listened at the other end: `SO_PEERCRED` in `unix(7)`. Of a pair, who made the pair.
///
/// # Errors
/// `ENOTSOCK` and `EBADF` for what is no socket.
pub fn peer_credentials(fd: impl AsFd) -> Result<Credentials, Error> {
    // Not by `rustix`, whose pid cannot be the 0 that Linux gives across PID namespaces.
    let none = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    get_option(fd, libc::SO_PEERCRED, none, "getsockopt(SO_PEERCRED)").map(Credentials::from)
}

/// The supplementary groups of who connected or listened at the other end, when it did: `SO_PEERGROUPS` in `unix(7)`.
///
/// # Errors
/// `ENODATA` for a socket that is not connected, `ENOTSOCK` and `EBADF` for what is no socket.
pub fn peer_groups(fd: impl AsFd) -> Result<Vec<u32>, Error> {
    peer_groups_into(fd, vec![0; GROUPS_USUAL])
}

fn peer_groups_into(fd: impl AsFd, mut groups: Vec<u32>) -> Result<Vec<u32>, Error> {
    let call = "getsockopt(SO_PEERGROUPS)";
    loop {
        let mut bytes = size_of_val(groups.as_slice()) as libc::socklen_t;
        // SAFETY: the kernel writes at most `bytes` bytes at the vector's elements, and keeps no pointer.
        let answer = unsafe {
            libc::getsockopt(
                fd.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let count = bytes as usize / size_of::<u32>();
        match answer {
            0 => {
                groups.truncate(count);
                return Ok(groups);
            }
            // It has said how many there are.
            _ if Error::last(call).errno == Errno::RANGE && count > groups.len() => groups.resize(count, 0),
            _ => return Err(Error::last(call)),
        }
    }
}

/// Supplementary groups for which room is made at first.
const GROUPS_USUAL: usize = 32;

/// A pidfd of who connected or listened at the other end: `SO_PEERPIDFD` in `unix(7)`. Of a pair, of who made the pair.
///
/// # Errors
/// `ENODATA` for a socket that is not connected, `EINVAL` or `ESRCH` for a process that is gone (before Linux 6.16),
/// `ENOPROTOOPT` before Linux 6.5, `EMFILE`.
pub fn peer_pidfd(fd: impl AsFd) -> Result<OwnedFd, Error> {
    let number: RawFd = get_option(fd, SO_PEERPIDFD, -1, "getsockopt(SO_PEERPIDFD)")?;
    if number < 0 {
        return Err(Error { call: "getsockopt(SO_PEERPIDFD)", errno: Errno::BADF });
    }
    // SAFETY: the kernel has just opened this descriptor for us, and nobody else knows it (check: the line above).
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Limits how many bytes may wait to be received at the other end: `SO_SNDBUF` in `socket(7)`, which doubles it.
///
/// # Errors
/// `ENOTSOCK` and `EBADF` for what is no socket.
pub fn set_send_buffer(fd: impl AsFd, bytes: usize) -> Result<(), Error> {
    sockopt::set_socket_send_buffer_size(fd, bytes).map_err(Error::of("setsockopt(SO_SNDBUF)"))
}

/// Whether frames that this end of a pair or connection has sent still wait at the other: the `ioctl(2)` `SIOCOUTQ`, which
/// of a Unix socket tells the memory that they take. Descriptors beside a frame are the receiver's by the time that it no longer
/// counts.
///
/// # Errors
/// `ENOTTY` and `EBADF` for what is no socket.
pub fn has_unread(fd: impl AsFd) -> Result<bool, Error> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes an `int` at a local one, and keeps no pointer.
    let answer = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if answer == 0 { Ok(bytes >= FRAME_COST_MIN) } else { Err(Error::last("ioctl(SIOCOUTQ)")) }
}

/// Ends both directions: `shutdown(2)`. Who waits at either end wakes up; frames already received can still be read.
///
/// # Errors
/// `ENOTCONN`, `ENOTSOCK`.
pub fn shutdown(fd: impl AsFd) -> Result<(), Error> {
    net::shutdown(fd, Shutdown::Both).map_err(Error::of("shutdown"))
}

/// Waits until a frame or the end can be received, at most for `timeout` (`None`: for ever): `poll(2)`. Tells whether
/// it can; a signal ends the wait early.
///
/// # Errors
/// `EINVAL` and `ENOMEM`.
pub fn wait_readable(fd: impl AsFd, timeout: Option<Duration>) -> Result<bool, Error> {
    wait_ready(fd, PollFlags::IN, timeout)
}

/// Waits until a frame can be sent or the other end is closed, as [`wait_readable`].
///
/// # Errors
/// `EINVAL` and `ENOMEM`.
pub fn wait_writable(fd: impl AsFd, timeout: Option<Duration>) -> Result<bool, Error> {
    wait_ready(fd, PollFlags::OUT, timeout)
}

fn wait_ready(fd: impl AsFd, ready: PollFlags, timeout: Option<Duration>) -> Result<bool, Error> {
    let timeout = timeout.map(clock::timespec);
    match event::poll(&mut [PollFd::new(&fd, ready)], timeout.as_ref()) {
        Ok(count) => Ok(count > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(Error { call: "poll", errno }),
    }
}

fn identify_senders(fd: impl AsFd) -> Result<(), Error> {
    sockopt::set_socket_passcred(&fd, true).map_err(Error::of("setsockopt(SO_PASSCRED)"))?;
    set_option(fd, SO_PASSPIDFD, 1, "setsockopt(SO_PASSPIDFD)")
}

/// Has Linux refuse descriptors that are sent to this socket, where it can: `SO_PASSRIGHTS` in `unix(7)`.
///
/// # Errors
/// `ENOTSOCK` and `EBADF` for what is no socket.
pub fn refuse_descriptors(fd: impl AsFd) -> Result<RightsFilter, Error> {
    match set_option(fd, SO_PASSRIGHTS, 0, "setsockopt(SO_PASSRIGHTS)") {
        Ok(()) => Ok(RightsFilter::On),
        Err(Error { errno: Errno::NOPROTOOPT, .. }) => Ok(RightsFilter::Missing),
        Err(error) => Err(error),
    }
}

/// `setsockopt(2)` for the options of `SOL_SOCKET` that `rustix` lacks, all of them an `int`.
fn set_option(fd: impl AsFd, option: i32, value: i32, call: &'static str) -> Result<(), Error> {
    // SAFETY: the kernel reads `size_of::<i32>()` bytes at a local `i32`, and keeps no pointer.
    let answer = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const value).cast(),
            INT_BYTES,
        )
    };
    if answer == 0 { Ok(()) } else { Err(Error::last(call)) }
}

/// `getsockopt(2)` for the options of `SOL_SOCKET` that `rustix` lacks, into plain integers.
fn get_option<T: PlainIntegers>(
    fd: impl AsFd,
    option: i32,
    unset: T,
    call: &'static str,
) -> Result<T, Error> {
    let mut value = MaybeUninit::new(unset);
    let mut bytes = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `bytes` bytes at the local `value`, and keeps no pointer.
    let answer = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            value.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    if answer != 0 {
        return Err(Error::last(call));
    }
    // SAFETY: it was initialised with `unset`, and any bytes are a value (type: `PlainIntegers`).
    Ok(unsafe { value.assume_init() })
}

/// A type of which any bytes are a value.
///
/// # Safety
/// It consists of integers only.
unsafe trait PlainIntegers: Copy {}
// SAFETY: an integer.
unsafe impl PlainIntegers for RawFd {}
// SAFETY: three integers of 32 bits, without padding.
unsafe impl PlainIntegers for libc::ucred {}

/// Less than Linux counts for any frame (768 bytes on 6.18); a frame that is being freed counts for one byte at the last.
const FRAME_COST_MIN: libc::c_int = 64;

const INT_BYTES: libc::socklen_t = size_of::<i32>() as libc::socklen_t;

// From Linux's `asm-generic/socket.h`; `libc` does not have them. The architectures that number them otherwise (alpha,
// mips, parisc, sparc) are not among those that `confine` knows.
/// Since Linux 6.5: a pidfd of the sender with each frame.
pub(crate) const SO_PASSPIDFD: i32 = 76;
/// Since Linux 6.5: a pidfd of who connected.
pub(crate) const SO_PEERPIDFD: i32 = 77;
/// Since Linux 6.16: whether descriptors can be sent to this socket.
pub(crate) const SO_PASSRIGHTS: i32 = 83;

#[cfg(test)]
mod tests;
