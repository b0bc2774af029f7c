//! Messages: what is sent, and what is received.

use std::sync::Arc;

use keyway_abi::{Badge, LaneId, PeerIdentity, Rights, Terms, request::EscrowHow};

use crate::{capability::Capability, error::Error, segment::Segment};

/// A message to send: a type and flags of the user's own, bytes, and capabilities.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outgoing<'m> {
    /// What sort of message it is, for the receiver.
    pub message_type: u32,
    /// Of the user's own; 16 bits.
    pub flags: u16,
    /// The bytes.
    pub payload: &'m [u8],
    /// Capabilities that travel in it, at most [`MESSAGE_CAPABILITIES_MAX`](keyway_abi::limits::MESSAGE_CAPABILITIES_MAX).
    pub capabilities: &'m [Carried<'m>],
}

/// A capability that travels in a message.
#[derive(Clone, Copy, Debug)]
pub enum Carried<'m> {
    /// A capability derived from it, with these rights; the sender keeps its own.
    Copy(&'m Capability, Rights),
    /// The capability itself; the sender's handle is stale once it has been taken.
    Move(&'m Capability),
}

impl<'m> Outgoing<'m> {
    /// A message of bytes.
    pub fn bytes(payload: &'m [u8]) -> Self {
        Outgoing { payload, ..Outgoing::default() }
    }
}

impl Carried<'_> {
    pub(crate) fn how(&self) -> (&Capability, EscrowHow) {
        match self {
            Carried::Copy(capability, rights) => (capability, EscrowHow::Copy(Terms::rights(*rights))),
            Carried::Move(capability) => (capability, EscrowHow::Move),
        }
    }
}

/// A message that was received. Its bytes are this process's own: nobody can change them any more.
#[derive(Debug)]
pub struct Message {
    /// The bytes.
    pub payload: Vec<u8>,
    /// What sort of message it is, as its sender says.
    pub message_type: u32,
    /// Of the user's own, as its sender says.
    pub flags: u16,
    /// The badge of the capability through which it came: who is speaking. No sender can forge it.
    pub badge: Option<Badge>,
    /// The lane on which it came.
    pub lane: LaneId,
    /// Who opened that lane, as Linux told the broker.
    pub sender: Arc<PeerIdentity>,
    /// The capabilities that came in it, in order; an error for one that was taken back on its way.
    pub capabilities: Vec<Result<Capability, Error>>,
    /// What it names instead of carrying it, in order. Each is released when it is dropped.
    pub segments: Vec<Segment>,
    /// How to answer, if the sender waits for that.
    pub reply_to: Option<ReplyTo>,
}

/// The right to answer one call, once.
#[derive(Debug, PartialEq, Eq)]
pub struct ReplyTo {
    pub(crate) lane: LaneId,
    pub(crate) number: u64,
}

/// The upper half of a record's flags, which is this library's.
pub(crate) mod flags {
    /// The lower half is the user's.
    pub(crate) const USER: u32 = 0xffff;
    /// How many capabilities the message carries, above this bit.
    pub(crate) const CAPABILITIES_SHIFT: u32 = 16;
    /// Five bits of count.
    pub(crate) const CAPABILITIES: u32 = 0x1f << CAPABILITIES_SHIFT;
    /// Waits for an answer; the payload begins with its number.
    pub(crate) const CALL: u32 = 1 << 24;
    /// Is an answer; the payload begins with the call's number.
    pub(crate) const REPLY: u32 = 1 << 25;
    /// Brings the queue to which answers go.
    pub(crate) const REPLY_QUEUE: u32 = 1 << 26;
    /// Names segments; the payload begins with the table of them, behind a call's number.
    pub(crate) const SEGMENTS: u32 = 1 << 27;
}
