//! What the broker answers. One reply a request, with the request's number.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{
    denial::Denial,
    handle::{Badge, Handle, LaneId, MappingId, ProcessNumber, Ticket, WordPlace},
    name::Name,
    rights::{Kind, Rights},
    signal::{SigInfo, SignalSet},
};

/// What a session begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStart {
    /// The version that both speak.
    pub version: u16,
    /// The kernel's number for this process.
    pub process: ProcessNumber,
    /// The pid, as Linux told the broker.
    pub pid: u32,
    /// The effective user, as Linux told the broker.
    pub uid: u32,
    /// The effective group, as Linux told the broker.
    pub gid: u32,
    /// The capability to this process itself; a confined child has none.
    pub own: Option<Handle>,
    /// The directory of service names; a confined child has none unless it was given one.
    pub directory: Option<Handle>,
}

/// A capability that a request made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// Its handle.
    pub handle: Handle,
    /// What it may do.
    pub rights: Rights,
    /// Its badge.
    pub badge: Option<Badge>,
}

/// A capability, as listings show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityEntry {
    /// The handle in its holder's table.
    pub handle: Handle,
    /// The kind of the object.
    pub kind: Kind,
    /// The object's number; the same object has the same number everywhere.
    pub object: u64,
    /// What people see of the object: a published name, a device's label.
    pub label: Option<Name>,
    /// What the holder may do.
    pub rights: Rights,
    /// The badge.
    pub badge: Option<Badge>,
    /// Who holds the capability that this one was derived from, and under which handle. `None` for the first
    /// capability of an object, and where the parent has been deleted.
    pub parent: Option<(ProcessNumber, Handle)>,
    /// Of a process: its number, and its pid as Linux told the broker (0 while a confined child has not spoken).
    pub process: Option<(ProcessNumber, u32)>,
}

/// A process, as listings show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessEntry {
    /// The kernel's number.
    pub process: ProcessNumber,
    /// The pid; 0 for a confined child that has not spoken yet.
    pub pid: u32,
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The executable's path, cut at [`EXECUTABLE_BYTES_MAX`](crate::limits::EXECUTABLE_BYTES_MAX).
    pub executable: String,
    /// Whether it was started confined.
    pub confined: bool,
    /// Capabilities held.
    pub handles: u32,
    /// Lanes in which it sends.
    pub lanes_sending: u32,
    /// Lanes in which it receives.
    pub lanes_receiving: u32,
    /// Bytes of shared memory charged to its account.
    pub bytes: u64,
    /// When its session began, on the broker's `CLOCK_MONOTONIC`, in nanoseconds.
    pub since_ns: u64,
}

/// A queue, as listings show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueEntry {
    /// The object's number.
    pub object: u64,
    /// Its receiver.
    pub receiver: ProcessNumber,
    /// The receiver's pid.
    pub receiver_pid: u32,
    /// A name under which it is published.
    pub name: Option<Name>,
    /// Lanes open.
    pub senders: u16,
    /// Lanes possible.
    pub senders_max: u16,
    /// Acknowledgement memories ready for further lanes.
    pub stock: u16,
}

/// A lane, as listings show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneEntry {
    /// Its number.
    pub lane: LaneId,
    /// The object number of its queue.
    pub queue: u64,
    /// Its sender.
    pub sender: ProcessNumber,
    /// The sender's pid.
    pub sender_pid: u32,
    /// The badge of the capability through which it was opened.
    pub badge: Option<Badge>,
    /// Bytes of its ring.
    pub ring_bytes: u32,
    /// Whether its sender is gone and the receiver has not drained it.
    pub draining: bool,
    /// Bytes committed and not taken, as the two ends say; `None` where they say nonsense. The broker looks only when
    /// asked, and decides nothing by it.
    pub waiting_bytes: Option<u32>,
    /// Messages taken, as the receiver says. Wraps at 2^32.
    pub messages_taken: Option<u32>,
}

/// One part of a list. An empty part ends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Listing {
    /// Capabilities of one process, in the order of slots.
    Capabilities(Vec<CapabilityEntry>),
    /// Processes, in the order of their numbers.
    Processes(Vec<ProcessEntry>),
    /// Queues, in the order of their numbers.
    Queues(Vec<QueueEntry>),
    /// Lanes, in the order of their numbers.
    Lanes(Vec<LaneEntry>),
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Refused; nothing has changed.
    Denied(Denial),
    /// Done.
    Done,
    /// The session has begun.
    Welcome(SessionStart),
    /// A queue was made, with acknowledgement memories `first_ack ..` beside this frame, in order.
    Queue {
        /// The capability that made it: all rights, `receive` among them.
        queue: Created,
        /// The object's number.
        object: u64,
        /// The number of the first acknowledgement memory.
        first_ack: u32,
    },
    /// Acknowledgement memories `first_ack ..` are beside this frame, in order.
    Acks {
        /// The number of the first.
        first_ack: u32,
    },
    /// A capability was made.
    Capability(Created),
    /// Everything derived was taken back.
    Revoked {
        /// How many capabilities that was.
        count: u64,
    },
    /// A lane is being opened; its ring and acknowledgement memory are beside this frame, in this order.
    LaneOpening {
        /// The lane.
        lane: LaneId,
        /// The sender's broker word for it.
        word: WordPlace,
    },
    /// A region's memory is beside this frame.
    Mapping {
        /// The mapping.
        mapping: MappingId,
        /// The broker's word for it.
        word: WordPlace,
        /// The region's size.
        bytes: u64,
    },
    /// A capability is in escrow.
    Ticket(Ticket),
    /// A capability came out of escrow into the asker's table.
    Taken(CapabilityEntry),
    /// Part of a list.
    Listing(Listing),
    /// A set of signals: those that were held back before, or those that are pending.
    Signals(SignalSet),
    /// The signal that was taken; nothing when none of those asked for is pending.
    Signal(Option<SigInfo>),
}
