//! Doorbells: a seqpacket pair between two processes, on which each tells the other which lane to look at.
//!
//! A ring is one packet of eight bytes: the lane's number. Neither side ever waits here, whatever the other does: a call says
//! `MSG_DONTWAIT`, because the flags of a descriptor are no promise. (An eventfd would not do: its count and its flags are
//! both processes' own, so that either could make the other's read or write block.)
//!
//! What the other process puts into the socket is its word and no more: packets of any length, as many as the socket holds, for
//! ever. So [`drain`] takes a bounded number of them, and tells what it did not understand from what it did.
//!
//! # When the socket is full
//! A ring that finds no room is lost, and that is told to nobody: whoever has so many to read is awake anyway. It has to look at all
//! lanes of that peer then, not only at those that are named. The socket holds more than [`RINGS_MIN`]: when a ring is lost, so many
//! wait to be taken, and the next `drain`, or the one that is under way, takes all of them or stops at [`DRAIN_MAX`]. So that very
//! call says [`Drained::may_be_more`].

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    io::Errno,
    net::{self, RecvFlags, SendFlags},
};

use crate::{
    Error,
    socket::{self, Pair, PairUse},
};

/// Rings that the socket holds at least: it was tried that it holds more.
pub const RINGS_MIN: usize = 8;
/// Packets that one [`drain`] takes at most.
pub const DRAIN_MAX: usize = 64;

const _: () = assert!(RINGS_MIN <= DRAIN_MAX, "a full socket is found in one call");

/// Bytes that Linux lets wait at one end; it doubles this, and counts some 768 for a packet of eight bytes.
const SEND_BUFFER_BYTES: usize = 8192;

/// Makes the two ends of a doorbell: `socketpair(2)`, closed at `exec`. No end takes descriptors where Linux can refuse them.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`, `ENOBUFS`.
pub fn pair() -> Result<[OwnedFd; 2], Error> {
    let Pair { broker_end, client_end, .. } = socket::seqpacket_pair(PairUse::Doorbell)?;
    let ends = [broker_end, client_end];
    for end in &ends {
        socket::set_send_buffer(end, SEND_BUFFER_BYTES)?;
    }
    Ok(ends)
}

/// What became of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Rung {
    /// The other end can be read, and names the lane.
    Named,
    /// The other end can be read, and is full: its process looks at all lanes.
    Full,
    /// Nobody is at the other end.
    Closed,
}

/// Rings for a lane: `send(2)`, never waiting, without a `SIGPIPE`.
///
/// # Errors
/// `ENOMEM`, `ENOBUFS`; `EBADF` and `ENOTSOCK` for what is no doorbell.
pub fn ring(end: impl AsFd, lane: u64) -> Result<Rung, Error> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    match rustix::io::retry_on_intr(|| net::send(&end, &lane.to_le_bytes(), flags)) {
        Ok(_) => Ok(Rung::Named),
        Err(Errno::AGAIN) => Ok(Rung::Full),
        Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => Ok(Rung::Closed),
        Err(errno) => Err(Error { call: "send", errno }),
    }
}

/// What was found at one's own end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Drained {
    /// Packets that were taken, lanes named or not.
    pub packets: usize,
    /// Some of them were no rings: the peer is not what it should be.
    pub has_garbage: bool,
    /// Rings may be lost, or wait still: all lanes of the peer are to be looked at.
    pub may_be_more: bool,
    /// Nobody is at the other end any more, and all that was sent is taken. The end stays readable for ever.
    pub is_closed: bool,
}

/// Takes the rings that wait, at most [`DRAIN_MAX`], and puts the lanes that they name behind what is in `lanes`: `recv(2)`, never
/// waiting. A lane may be named more than once, and need not exist.
///
/// # Errors
/// `ENOMEM`; `EBADF` and `ENOTSOCK` for what is no doorbell.
pub fn drain(end: impl AsFd, lanes: &mut Vec<u64>) -> Result<Drained, Error> {
    let mut drained = Drained::default();
    // LIMIT: DRAIN_MAX. When the other end was closed with packets unread there, Linux reports that before what waits here.
    for _ in 0..DRAIN_MAX {
        let mut packet = [0; 8];
        match net::recv(&end, &mut packet, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
            // An empty packet, which is no ring, is taken for the end.
            Ok((_, 0)) => {
                drained.is_closed = true;
                break;
            }
            Ok((_, bytes)) => {
                drained.packets += 1;
                if bytes == packet.len() {
                    lanes.push(u64::from_le_bytes(packet));
                } else {
                    drained.has_garbage = true;
                }
            }
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR | Errno::CONNRESET) => {}
            Err(errno) => return Err(Error { call: "recv", errno }),
        }
    }
    drained.may_be_more = drained.packets >= RINGS_MIN;
    Ok(drained)
}

#[cfg(test)]
mod tests;
