//! Frames over a seqpacket socket, with the descriptors beside them and what the kernel says of their sender.
//!
//! Reception goes through `libc`, because `rustix` skips the control message with the pidfd, and the pidfd would then
//! stay open for ever. The room for control messages always holds everything that Linux can send with one frame, so
//! that no crowd of descriptors pushes the sender's identity out.

use std::{
    io::IoSlice,
    mem::{self, MaybeUninit},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use rustix::{
    io::Errno,
    net::{self, SendAncillaryBuffer, SendAncillaryMessage, SendFlags},
};

use crate::{Error, socket::Credentials};

/// The most descriptors that Linux sends with one frame (`SCM_MAX_FD`).
pub const FRAME_FDS_MAX: usize = 253;

/// Whether a call waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Until it can go on.
    Block,
    /// Not at all: `MSG_DONTWAIT`.
    DontWait,
}

/// What came of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Sent {
    /// The whole frame is on its way.
    Whole,
    /// There is no room; call again when the socket is writable.
    WouldBlock,
    /// The other end is closed.
    Closed,
}

/// Sends one frame and copies of the descriptors: `sendmsg(2)`, without a `SIGPIPE`.
///
/// # Errors
/// `EPERM` when the receiving end refuses descriptors, `EMSGSIZE` for a frame above the send buffer, `ETOOMANYREFS`
/// with too many descriptors on their way, `EINVAL` for an empty frame (which could not be told from the end) or more
/// than [`FRAME_FDS_MAX`] descriptors.
pub fn send_frame(
    fd: impl AsFd,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    waiting: Waiting,
) -> Result<Sent, Error> {
    if bytes.is_empty() || fds.len() > FRAME_FDS_MAX {
        return Err(Error { call: "sendmsg", errno: Errno::INVAL });
    }
    let mut room = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    if !fds.is_empty() {
        // There is room for `FRAME_FDS_MAX`, and there are no more (check, above).
        let _ = control.push(SendAncillaryMessage::ScmRights(fds));
    }
    let flags = match waiting {
        Waiting::Block => SendFlags::NOSIGNAL,
        Waiting::DontWait => SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
    };
    let sent = rustix::io::retry_on_intr(|| net::sendmsg(&fd, &[IoSlice::new(bytes)], &mut control, flags));
    match sent {
        // A frame is sent whole or not at all.
        Ok(_) => Ok(Sent::Whole),
        Err(Errno::AGAIN) => Ok(Sent::WouldBlock),
        Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => Ok(Sent::Closed),
        Err(errno) => Err(Error { call: "sendmsg", errno }),
    }
}

/// What came of receiving.
#[derive(Debug)]
pub enum Reception {
    /// A frame.
    Frame(Received),
    /// There is none; call again when the socket is readable.
    WouldBlock,
    /// There is none, and there will be none: the other end is closed.
    End,
}

/// One frame, apart from its bytes.
#[derive(Debug)]
pub struct Received {
    /// How many bytes are in the buffer.
    pub bytes: usize,
    /// Whether the frame was longer than the buffer; the rest is lost.
    pub truncated: bool,
    /// The descriptors that came with it, closed at `exec`.
    pub fds: Vec<OwnedFd>,
    /// Whether more descriptors were sent than are in `fds`: more than were wanted, or this process may have no more.
    pub fds_truncated: bool,
    /// Who sent it, when this end asks for credentials.
    pub credentials: Option<Credentials>,
    /// A pidfd of who sent it, when this end asks for one. `None` also when the kernel could not make it, because the
    /// sender is gone (before Linux 6.16) or this process has no descriptors left.
    pub pidfd: Option<OwnedFd>,
}

/// Receives one frame: `recvmsg(2)`. At most `fds_max` descriptors are kept; others are closed here.
///
/// Where the end does not ask for credentials, an empty frame is taken for the end; [`send_frame`] sends none.
///
/// # Errors
/// `ENOTCONN`, `ENOMEM`.
pub fn receive_frame(
    fd: impl AsFd,
    buffer: &mut [u8],
    fds_max: usize,
    waiting: Waiting,
) -> Result<Reception, Error> {
    let mut control = Control([0; CONTROL_BYTES]);
    let flags = match waiting {
        Waiting::Block => libc::MSG_CMSG_CLOEXEC,
        Waiting::DontWait => libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT,
    };
    // When the other end was closed with frames unread there, Linux first reports that, once, before it gives out the
    // frames that wait at this end.
    let mut resets_left = 2;
    let message = loop {
        match receive_message(&fd, buffer, &mut control, flags) {
            Ok(message) => break message,
            Err(Errno::AGAIN) => return Ok(Reception::WouldBlock),
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) if resets_left > 0 => resets_left -= 1,
            Err(Errno::CONNRESET) => return Ok(Reception::End),
            Err(errno) => return Err(Error { call: "recvmsg", errno }),
        }
    };
    if message.bytes == 0 && message.control_bytes == 0 {
        return Ok(Reception::End);
    }
    let mut received = Received {
        bytes: message.bytes.min(buffer.len()),
        truncated: message.flags & libc::MSG_TRUNC != 0,
        fds: Vec::new(),
        fds_truncated: message.flags & libc::MSG_CTRUNC != 0,
        credentials: None,
        pidfd: None,
    };
    let filled = message.control_bytes.min(CONTROL_BYTES);
    for (kind, payload) in (ControlMessages { rest: &control.0[..filled] }) {
        match kind {
            libc::SCM_RIGHTS => received.take_descriptors(payload, fds_max),
            libc::SCM_CREDENTIALS => received.credentials = credentials(payload),
            SCM_PIDFD => received.pidfd = integers(payload).next().and_then(own_received),
            _ => {}
        }
    }
    Ok(Reception::Frame(received))
}

/// Whether descriptors are beside the frame that would be received next, which stays where it is: `recvmsg(2)` with
/// `MSG_PEEK`, at an end that asks for credentials and for no pidfds. None of them is opened here, so that none has to be closed.
///
/// # Errors
/// `ENOTCONN`, `ENOMEM`.
pub fn has_descriptors(fd: impl AsFd) -> Result<bool, Error> {
    // Room for the credentials, which come first, and nothing more: Linux says when there was more.
    let mut control = Control([0; CREDENTIALS_BYTES]);
    let flags = libc::MSG_PEEK | libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
    match receive_message(&fd, &mut [], &mut control, flags) {
        Ok(message) => Ok(message.flags & libc::MSG_CTRUNC != 0),
        Err(Errno::AGAIN | Errno::INTR | Errno::CONNRESET) => Ok(false),
        Err(errno) => Err(Error { call: "recvmsg", errno }),
    }
}

impl Received {
    fn take_descriptors(&mut self, payload: &[u8], fds_max: usize) {
        // Each is owned first, so that those beyond the limit are closed.
        for fd in integers(payload).filter_map(own_received) {
            if self.fds.len() < fds_max {
                self.fds.push(fd);
            } else {
                self.fds_truncated = true;
            }
        }
    }
}

/// What `recvmsg` said.
struct Message {
    bytes: usize,
    control_bytes: usize,
    flags: i32,
}

fn receive_message<const BYTES: usize>(
    fd: impl AsFd,
    buffer: &mut [u8],
    control: &mut Control<BYTES>,
    flags: i32,
) -> Result<Message, Errno> {
    let mut slice = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a `msghdr` is pointers and integers, for all of which zero is a value. It is not written field by field,
    // because some C libraries have private ones.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut slice;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = BYTES as _;
    // SAFETY: the kernel writes at most the lengths given, at `buffer`, `control` and `header`, all of which are
    // borrowed exclusively until the call has returned (check: the lines above).
    let bytes = unsafe { libc::recvmsg(fd.as_fd().as_raw_fd(), &raw mut header, flags) };
    match usize::try_from(bytes) {
        Ok(bytes) => {
            Ok(Message { bytes, control_bytes: header.msg_controllen as usize, flags: header.msg_flags })
        }
        Err(_) => Err(Error::last("recvmsg").errno),
    }
}

/// Room for the control messages of one frame, aligned as the kernel asks.
#[repr(C, align(16))]
struct Control<const BYTES: usize>([u8; BYTES]);

/// The control messages of `SOL_SOCKET` in what the kernel wrote: type and payload (`cmsg(3)`).
struct ControlMessages<'c> {
    rest: &'c [u8],
}

impl<'c> Iterator for ControlMessages<'c> {
    type Item = (i32, &'c [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (length, after) = self.rest.split_first_chunk::<{ size_of::<usize>() }>()?;
            let (level, after) = after.split_first_chunk::<4>()?;
            let (kind, _) = after.split_first_chunk::<4>()?;
            let length = usize::from_ne_bytes(*length);
            let payload = self.rest.get(CMSG_HEADER_BYTES..length)?;
            let next = length.next_multiple_of(size_of::<usize>()).min(self.rest.len());
            self.rest = &self.rest[next..];
            if i32::from_ne_bytes(*level) == libc::SOL_SOCKET {
                return Some((i32::from_ne_bytes(*kind), payload));
            }
        }
    }
}

fn integers(payload: &[u8]) -> impl Iterator<Item = i32> {
    payload.chunks_exact(4).map(|four| i32::from_ne_bytes([four[0], four[1], four[2], four[3]]))
}

fn credentials(payload: &[u8]) -> Option<Credentials> {
    let mut fields = integers(payload);
    let (pid, uid, gid) = (fields.next()?, fields.next()?, fields.next()?);
    Some(Credentials {
        pid: u32::try_from(pid).unwrap_or(0),
        uid: uid.cast_unsigned(),
        gid: gid.cast_unsigned(),
    })
}

/// Owns a descriptor that the kernel has just written into a control message; where it could not make a pidfd, it
/// writes a negative errno instead.
fn own_received(number: RawFd) -> Option<OwnedFd> {
    if number < 0 {
        return None;
    }
    // SAFETY:
    // 1. The kernel opened this descriptor for us in the `recvmsg` just done (caller: both are in `receive_frame`).
    // 2. Each number is taken once (caller: each control message is visited once, each integer of it once).
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Since Linux 6.5; `libc` does not have it.
const SCM_PIDFD: i32 = 4;
/// `sizeof(struct cmsghdr)`: a length, a level and a type.
const CMSG_HEADER_BYTES: usize = size_of::<usize>() + 8;
/// Credentials and their header.
const CREDENTIALS_BYTES: usize = CMSG_HEADER_BYTES + 16;
/// Descriptors, credentials, a pidfd, and their headers, with room to spare.
const CONTROL_BYTES: usize = 2048;
const _: () = assert!(CONTROL_BYTES >= 4 * FRAME_FDS_MAX + 12 + 4 + 5 * (CMSG_HEADER_BYTES + 8));

#[cfg(test)]
mod tests;
