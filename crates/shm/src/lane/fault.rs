//! Every way in which a lane can end, be refused, or be misused by its peer.

/// Why a lane is over, through no fault of its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ending {
    /// The other side has closed the lane or has died, and nothing that it committed is left.
    #[error("the other side has closed the lane, or has died")]
    PeerDead,
    /// The capability behind the lane was revoked; what was untaken is dropped.
    #[error("the lane was revoked")]
    Revoked,
}

/// What the peer did wrong, one variant per way to misbehave. The lane is poisoned by the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaneFault {
    /// The position advanced further than the ring allows. One that went backwards advanced almost 2^32 bytes.
    #[error("the peer's position advanced by {advanced_bytes} bytes where {bytes_max} were possible")]
    PositionAhead {
        /// From the position last accepted to this one.
        advanced_bytes: u32,
        /// The sender: the free bytes. The receiver: the bytes not yet acknowledged.
        bytes_max: u32,
    },
    /// The position is not where a record can begin.
    #[error("the peer's position {position} is no multiple of {align_bytes}")]
    PositionUnaligned {
        /// What the peer wrote.
        position: u32,
        /// What it must be a multiple of.
        align_bytes: u32,
    },
    /// The receiver claims to have taken more messages than were sent.
    #[error("the peer acknowledged {advanced_messages} more messages where {messages_max} were in flight")]
    MessagesAhead {
        /// From the count last accepted to this one.
        advanced_messages: u32,
        /// Messages sent and not yet acknowledged.
        messages_max: u64,
    },
    /// The word that commits a record is of no kind that there is.
    #[error("the word {word:#x} commits no kind of record that there is")]
    CommitUnknown {
        /// What the peer wrote.
        word: u64,
    },
    /// A record claims to be longer than what can be committed.
    #[error("a record of {record_bytes} bytes where {bytes_max} can be committed")]
    RecordOverruns {
        /// The record's length by its own account, with header and padding.
        record_bytes: u32,
        /// Bytes that the sender can have committed from where the record begins.
        bytes_max: u32,
    },
    /// A record that fills the ring up to its end does not end there.
    #[error("{padding_bytes} bytes of padding where the ring ends after {bytes_to_end}")]
    PaddingAstray {
        /// The record's length by its own account.
        padding_bytes: u32,
        /// Bytes up to the ring's end.
        bytes_to_end: u32,
    },
    /// A record of a lane whose messages are stamped is too short for its stamp.
    #[error(
        "a record with {carried_bytes} bytes behind its header where a stamp of {stamp_bytes} comes first"
    )]
    StampMissing {
        /// What it carries, by its own account.
        carried_bytes: usize,
        /// What a stamp takes.
        stamp_bytes: usize,
    },
    /// What a dead sender had committed is not committed any more: a process that it forked wrote there.
    #[error(
        "a record is gone of the {committed_bytes} bytes that were still committed at the sender's death"
    )]
    CommitWithdrawn {
        /// Bytes up to the last position.
        committed_bytes: u32,
    },
}

/// Why a message was not sent. Nothing of it is visible to the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The message can never fit this ring.
    #[error("a payload of {asked_bytes} bytes cannot fit where {bytes_max} is the most")]
    TooLarge {
        /// The payload's size.
        asked_bytes: usize,
        /// The most that this lane carries.
        bytes_max: usize,
    },
    /// The receiver has not yet taken enough; wait for space.
    #[error("the lane is full")]
    Full {
        /// How many bytes must be free, for [`LaneSender::prepare_wait`](crate::LaneSender::prepare_wait).
        needed_bytes: u32,
    },
    /// The lane is over. Messages not acknowledged have an unknown fate.
    #[error(transparent)]
    Ended(Ending),
    /// The receiver broke the protocol.
    #[error(transparent)]
    Fault(LaneFault),
}

/// Why no message was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// The message stays in place; receive it into a larger buffer.
    #[error("the message takes {needed_bytes} bytes where the buffer has {given_bytes}")]
    BufferTooSmall {
        /// The payload's size.
        needed_bytes: usize,
        /// The buffer's size.
        given_bytes: usize,
    },
    /// The lane is over.
    #[error(transparent)]
    Ended(Ending),
    /// The sender broke the protocol.
    #[error(transparent)]
    Fault(LaneFault),
}

/// Why two memories do not make a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaneShapeError {
    /// The ring's size is no power of two, or out of bounds.
    #[error("a ring of {asked_bytes} bytes is no power of two between {bytes_min} and {bytes_max}")]
    RingBytes {
        /// The size that was asked for.
        asked_bytes: u32,
        /// The smallest ring.
        bytes_min: u32,
        /// The largest ring.
        bytes_max: u32,
    },
    /// Ring memory has another length than its size demands.
    #[error("ring memory of {len_bytes} bytes where the ring needs {needed_bytes}")]
    RingMemory {
        /// How long the view is.
        len_bytes: usize,
        /// How long it must be.
        needed_bytes: usize,
    },
    /// Acknowledgement memory is too short.
    #[error("acknowledgement memory of {len_bytes} bytes where {needed_bytes} are needed")]
    AcknowledgementMemory {
        /// How long the view is.
        len_bytes: usize,
        /// How long it must be at least.
        needed_bytes: usize,
    },
    /// The memory that this side writes is mapped for reading only.
    #[error("the memory that this side of the lane writes is read-only")]
    NotWritable,
}
