//! Why the broker ended a session. It is the last frame that the process receives.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::denial::{Payer, Quota};

/// Bytes that are no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Malformed {
    /// Fewer bytes than a header.
    #[error("a frame of {bytes} bytes is shorter than its header of {bytes_min}")]
    TooShort {
        /// Bytes received.
        bytes: u32,
        /// Bytes of a header.
        bytes_min: u32,
    },
    /// More bytes than a frame can have.
    #[error("a frame is longer than {bytes_max} bytes")]
    TooLong {
        /// Bytes of the longest frame.
        bytes_max: u32,
    },
    /// A version that the receiver does not speak.
    #[error("a frame of version {found}, this side speaks {spoken}")]
    UnknownVersion {
        /// The version in the frame.
        found: u16,
        /// The version spoken.
        spoken: u16,
    },
    /// An operation that does not exist, or not in this direction.
    #[error("no operation has the opcode {opcode:#06x}")]
    UnknownOpcode {
        /// The opcode in the frame.
        opcode: u16,
    },
    /// The header's length is not the body's.
    #[error("the header says {said} body bytes, {found} are there")]
    LengthWrong {
        /// What the header says.
        said: u32,
        /// What is there.
        found: u32,
    },
    /// A reserved field is not zero.
    #[error("a reserved field is {found}, not zero")]
    ReservedUsed {
        /// What is there.
        found: u16,
    },
    /// The body does not decode as the operation's.
    #[error("the body does not decode as opcode {opcode:#06x}")]
    BodyUnreadable {
        /// The opcode in the frame.
        opcode: u16,
    },
    /// Bytes are left after the body.
    #[error("{bytes} bytes are left after the body of opcode {opcode:#06x}")]
    BytesLeft {
        /// The opcode in the frame.
        opcode: u16,
        /// How many.
        bytes: u32,
    },
    /// The header's count of descriptors is not what came.
    #[error("the header says {said} descriptors, {found} came")]
    DescriptorsWrong {
        /// What the header says.
        said: u16,
        /// What came.
        found: u16,
    },
}

/// A process that broke the protocol, with bytes that were lawful.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Fault {
    /// The first frame was not a hello.
    #[error("the first frame of a session is a hello")]
    HelloMissing,
    /// A second hello.
    #[error("a session says hello once")]
    HelloRepeated,
    /// A frame from a process that is not the session's.
    #[error("the session belongs to process {bound_pid}, a frame came from {found_pid}")]
    ForeignFrame {
        /// The process of the session.
        bound_pid: u32,
        /// Who sent the frame.
        found_pid: u32,
    },
    /// A frame whose sender Linux did not name.
    #[error("a frame came without credentials")]
    SenderUnknown,
    /// Descriptors on a socket that takes none.
    #[error("{count} descriptors came on a socket that takes none")]
    DescriptorsSent {
        /// How many.
        count: u32,
    },
    /// Memory was declared mapped, but its seals are not the expected ones.
    #[error("memory has the seals {found:#x}, expected {expected:#x}")]
    SealsWrong {
        /// Seals found.
        found: u32,
        /// Seals expected.
        expected: u32,
    },
    /// Memory was declared mapped, but it is not populated or not of its size.
    #[error("memory has {found_bytes} bytes, expected {expected_bytes}")]
    MemoryWrong {
        /// Bytes found.
        found_bytes: u64,
        /// Bytes expected.
        expected_bytes: u64,
    },
    /// The process does not read what it asked for.
    #[error("{frames} frames wait unread")]
    NotReading {
        /// How many.
        frames: u32,
    },
    /// A deposit that carries no descriptor, or several.
    #[error("a deposit carries one descriptor, {found} came")]
    DepositEmpty {
        /// How many came.
        found: u32,
    },
}

/// The last frame of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Farewell {
    /// The process sent bytes that are no request.
    #[error("malformed: {0}")]
    Malformed(Malformed),
    /// The process broke the protocol.
    #[error("fault: {0}")]
    Fault(Fault),
    /// No version is spoken by both.
    #[error("no protocol version in common")]
    VersionUnsupported,
    /// A limit is reached, and no further session is taken.
    #[error("no further session: {used} {quota} are in use by {of}, the limit is {max}; end a session first")]
    Full {
        /// What is limited.
        quota: Quota,
        /// Whose limit is reached.
        of: Payer,
        /// How much is in use.
        used: u64,
        /// How much can be in use.
        max: u64,
    },
    /// Linux refused the broker what a session needs.
    #[error(
        "no further session: Linux refuses the broker a descriptor or memory (errno {errno}); end a session first"
    )]
    SystemRefused {
        /// The error number of Linux.
        errno: i32,
    },
    /// The broker stops.
    #[error("the broker stops")]
    Stopping,
}
