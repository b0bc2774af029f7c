//! What can go wrong for a user of Keyway: one enum, each variant with an errno and a text that says what to do.

use std::{path::PathBuf, time::Duration};

use keyway_abi::{Denial, Farewell, Kind, Malformed, NameError};
use keyway_shm::{Ending, LaneFault};
use keyway_sys::{Errno, memory::MapError};
use thiserror::Error;

use crate::fault::SegmentFault;

/// An error of this library.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody serves the socket.
    #[error(
        "no broker at {path} ({error}); start one with `keyway serve`, or set KEYWAY_SOCKET to the socket of the one that runs"
    )]
    BrokerNotFound {
        /// Where it was looked for.
        path: PathBuf,
        /// What Linux said.
        error: keyway_sys::Error,
    },
    /// No Unix socket can have so long a path.
    #[error(
        "the socket's path {path} has {bytes} bytes, a Unix socket's has {bytes_max} at most; choose a shorter one for the broker, and set KEYWAY_SOCKET to it"
    )]
    SocketPathTooLong {
        /// The path.
        path: PathBuf,
        /// Its bytes.
        bytes: usize,
        /// Bytes that it can have.
        bytes_max: usize,
    },
    /// The broker ended this session.
    #[error("the broker ended this session: {0}")]
    SessionEnded(Farewell),
    /// The broker is gone.
    #[error("the broker is gone; connect again once it is back")]
    BrokerGone,
    /// The broker has not answered in time.
    #[error("the broker has not answered {operation} within {waited:?}")]
    BrokerSilent {
        /// What was asked.
        operation: &'static str,
        /// For how long.
        waited: Duration,
    },
    /// The broker sent bytes that this library does not understand.
    #[error("the broker sent a frame that this library does not understand: {0}")]
    BrokerUnreadable(Malformed),
    /// The broker answered something else than what was asked.
    #[error("the broker answered {operation} with something else")]
    BrokerIncoherent {
        /// What was asked.
        operation: &'static str,
    },
    /// The request was lawful and was refused. The denial is a value, with the figures of the case.
    #[error("{operation}: {denial}")]
    Denied {
        /// What was asked.
        operation: &'static str,
        /// Why it was refused.
        denial: Denial,
    },
    /// The message can never fit into the lane.
    #[error(
        "a message of {asked_bytes} bytes; this lane takes {bytes_max} at most: open it with a larger ring"
    )]
    MessageTooLarge {
        /// Its size.
        asked_bytes: usize,
        /// The largest possible.
        bytes_max: usize,
    },
    /// A block that the pool can never lend.
    #[error("a block of {asked_bytes} bytes of a pool that has {bytes_max}: make a larger pool")]
    LoanTooLarge {
        /// Its size.
        asked_bytes: usize,
        /// The pool's.
        bytes_max: usize,
    },
    /// A part that its block or region does not have.
    #[error("the bytes {start} to {end} of a block that has {len_bytes}")]
    PartOutOfBlock {
        /// Where it would begin.
        start: usize,
        /// Where it would end.
        end: usize,
        /// How long the block is.
        len_bytes: usize,
    },
    /// A message with more segments than it can name.
    #[error("{asked} segments in a message, {max} are possible")]
    TooManySegments {
        /// How many.
        asked: usize,
        /// How many are possible.
        max: usize,
    },
    /// The message stays where it is.
    #[error(
        "the next message has {needed_bytes} bytes, the buffer {given_bytes}: receive it into a larger one"
    )]
    BufferTooSmall {
        /// The message's size.
        needed_bytes: usize,
        /// The buffer's.
        given_bytes: usize,
    },
    /// The bytes of a message are not the value that was expected, or a value cannot be sent.
    #[error("no {expected}: {why}")]
    NoSuchValue {
        /// The type, as Rust names it.
        expected: &'static str,
        /// What stands against it.
        why: String,
    },
    /// A message with more capabilities than it can carry.
    #[error("{asked} capabilities in a message, {max} are possible")]
    TooManyCapabilities {
        /// How many.
        asked: usize,
        /// How many are possible.
        max: usize,
    },
    /// There is no room in the lane now, or no message.
    #[error(
        "not now: there is no room to send, or nothing to receive; use the form that waits, or the one with a deadline"
    )]
    WouldBlock,
    /// The time is over.
    #[error("not within {0:?}")]
    TimedOut(Duration),
    /// The lane has ended.
    #[error(
        "the lane has ended ({ending}); {acknowledged} of {sent} messages were taken, what became of the others is unknown"
    )]
    LaneEnded {
        /// Why.
        ending: Ending,
        /// Messages that the receiver has taken.
        acknowledged: u64,
        /// Messages that were sent.
        sent: u64,
    },
    /// The other side of a lane broke its protocol. The lane is closed; nothing else is harmed.
    #[error("the other side of the lane broke its protocol: {0}")]
    PeerFault(LaneFault),
    /// The sender named memory that is not there, or not its own to name. The lane is closed; nothing else is harmed.
    #[error("the sender of the lane broke its protocol: {0}")]
    SegmentFault(SegmentFault),
    /// There is nobody to whom this could be answered.
    #[error("the message asks for no answer, or its sender is gone")]
    NoReplyExpected,
    /// Memory that the broker handed over cannot be mapped.
    #[error("cannot map shared memory: {0}")]
    Map(#[from] MapError),
    /// The capability names something else than what is wanted of it.
    #[error("nothing was inherited under the name {name}; the starter of this process gave: {given}")]
    NotInherited {
        /// The name.
        name: String,
        /// The names that were given.
        given: String,
    },
    /// A text is no name.
    #[error("{0}")]
    Name(#[from] NameError),
    /// A child could not be started.
    #[error("cannot start {program}: {error}")]
    Spawn {
        /// What.
        program: String,
        /// Why.
        error: std::io::Error,
    },
    /// The embedded broker cannot begin.
    #[cfg(feature = "embedded")]
    #[error("{0}")]
    Start(#[from] keyway_broker::StartError),
    /// Linux refused a call.
    #[error("{0}")]
    System(#[from] keyway_sys::Error),
}

impl Error {
    /// The errno that a C caller sees (Linux numbers).
    pub fn errno(&self) -> i32 {
        let errno = match self {
            Error::Denied { denial, .. } => return denial.errno(),
            Error::System(error) | Error::BrokerNotFound { error, .. } => return error.raw_os_error(),
            Error::Map(MapError::Refused(error)) => return error.raw_os_error(),
            Error::Spawn { error, .. } => return error.raw_os_error().unwrap_or(Errno::IO.raw_os_error()),
            Error::SessionEnded(_) | Error::BrokerGone => Errno::CONNRESET,
            Error::BrokerSilent { .. } | Error::TimedOut(_) => Errno::TIMEDOUT,
            Error::BrokerUnreadable(_)
            | Error::BrokerIncoherent { .. }
            | Error::PeerFault(_)
            | Error::SegmentFault(_) => Errno::PROTO,
            Error::MessageTooLarge { .. } | Error::BufferTooSmall { .. } | Error::LoanTooLarge { .. } => {
                Errno::MSGSIZE
            }
            Error::NoSuchValue { .. } => Errno::BADMSG,
            Error::SocketPathTooLong { .. } => Errno::NAMETOOLONG,
            Error::WouldBlock => Errno::AGAIN,
            Error::LaneEnded { ending: Ending::PeerDead, .. } => Errno::PIPE,
            Error::LaneEnded { ending: Ending::Revoked, .. } => Errno::PERM,
            Error::NoReplyExpected | Error::NotInherited { .. } => Errno::NOENT,
            Error::TooManyCapabilities { .. }
            | Error::TooManySegments { .. }
            | Error::PartOutOfBlock { .. }
            | Error::Map(_)
            | Error::Name(_) => Errno::INVAL,
            #[cfg(feature = "embedded")]
            Error::Start(keyway_broker::StartError::PathTooLong { .. }) => Errno::NAMETOOLONG,
            #[cfg(feature = "embedded")]
            Error::Start(_) => Errno::ADDRINUSE,
        };
        errno.raw_os_error()
    }

    /// What Linux answered to a call, told by the standard library or a runtime.
    pub fn from_io(call: &'static str, error: &std::io::Error) -> Self {
        Error::System(keyway_sys::Error::from_io(call, error))
    }

    /// The denial, if a request was refused.
    pub fn denial(&self) -> Option<&Denial> {
        match self {
            Error::Denied { denial, .. } => Some(denial),
            _ => None,
        }
    }

    /// Whether the other side of a lane is gone, or the lane was taken back.
    pub fn is_lane_end(&self) -> bool {
        let ended = matches!(
            self.denial(),
            Some(Denial::LaneEnded { .. } | Denial::ObjectEnded { kind: Kind::Queue })
        );
        ended || matches!(self, Error::LaneEnded { .. } | Error::PeerFault(_) | Error::SegmentFault(_))
    }
}
