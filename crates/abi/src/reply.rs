//! What the broker answers. One reply a request, with the request's number.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{
    denial::Denial,
    handle::{Badge, Handle, LaneId, MappingId, ProcessNumber, Ticket, WordPlace},
    name::Name,
    request::{AclKind, QueueOrder},
    rights::{Kind, Rights},
    signal::{SigInfo, SignalSet},
    terms::CapabilityLimits,
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
    /// The user, as Linux told the broker: the effective one of a process that connects, the real one of a confined child (`SO_PEERCRED`
    /// and `SCM_CREDENTIALS` in unix(7)).
    pub uid: u32,
    /// The group, as the user.
    pub gid: u32,
    /// The capability to this process itself; a confined child has none.
    pub own: Option<Handle>,
    /// The directory of service names; a confined child has none unless it was given one.
    pub directory: Option<Handle>,
    /// The broker's `CLOCK_BOOTTIME` when the session began, in nanoseconds. A process in another time namespace counts from here.
    pub now_ns: u64,
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
    /// What people see of the object: a published name, a device's label, what memory a region is.
    pub label: Option<Name>,
    /// What the holder may do.
    pub rights: Rights,
    /// The badge.
    pub badge: Option<Badge>,
    /// When it ends by itself, in nanoseconds of the broker's `CLOCK_BOOTTIME`.
    pub expires_ns: Option<u64>,
    /// How much can be opened through it, as far as it is bounded.
    pub limits: CapabilityLimits,
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
    /// When its session began, on the broker's `CLOCK_BOOTTIME`, in nanoseconds.
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
    /// In which order its receiver takes messages of several lanes.
    pub order: QueueOrder,
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
    /// Its priority.
    pub priority: u8,
    /// Whether its sender is gone and the receiver has not drained it.
    pub draining: bool,
    /// Bytes committed and not taken, as the two ends say; `None` where they say nonsense. The broker looks only when
    /// asked, and decides nothing by it.
    pub waiting_bytes: Option<u32>,
    /// Messages taken, as the receiver says. Wraps at 2^32.
    pub messages_taken: Option<u32>,
}

/// What became of a request, or of a capability without one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// A capability was put into the table of `to`.
    Granted {
        /// Who holds it.
        to: ProcessNumber,
        /// The kind of the object.
        kind: Kind,
        /// The object's number.
        object: u64,
        /// What the holder may do.
        rights: Rights,
        /// The badge.
        badge: Option<Badge>,
    },
    /// The request was denied: [`Denial::number`].
    Refused {
        /// The number of the denial.
        denial: u32,
        /// How often in a row.
        times: u32,
    },
    /// What was derived from a capability was taken back.
    Revoked {
        /// The kind of the object.
        kind: Kind,
        /// The object's number.
        object: u64,
        /// How many capabilities were taken back.
        count: u64,
    },
    /// A capability, and what was derived from it, ended at its time.
    Expired {
        /// The kind of the object.
        kind: Kind,
        /// The object's number.
        object: u64,
        /// How many capabilities ended, itself included.
        count: u64,
    },
}

/// One record of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Counts up by one; where numbers are missing, older records have made room for newer ones.
    pub sequence: u64,
    /// When, in nanoseconds of the broker's `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// Who asked; `None` when nobody did.
    pub process: Option<ProcessNumber>,
    /// The asker's pid, as Linux told the broker.
    pub pid: u32,
    /// The asker's user, as Linux told the broker.
    pub uid: u32,
    /// The operation's opcode; 0 where there was none.
    pub opcode: u16,
    /// What became of it.
    pub verdict: Verdict,
}

/// Whom an entry of an access list is about, as listings show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShownSubject {
    /// The process, or the holders of a capability to the object, with this number.
    Holder {
        /// The object's number.
        object: u64,
    },
    /// Processes of this user.
    User(u32),
    /// Processes of this group.
    Group(u32),
    /// Processes that run this executable.
    Executable(String),
}

/// An entry of an access list, as listings show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclItem {
    /// Its number in the list.
    pub number: u64,
    /// Whom it is about.
    pub subject: ShownSubject,
    /// What it gives or takes.
    pub permissions: Rights,
    /// Which of both.
    pub kind: AclKind,
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
    /// Records of the audit log, oldest first.
    Audit(Vec<AuditEntry>),
    /// Entries of an access list, in the order in which they were added.
    Acl(Vec<AclItem>),
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
        /// The session of its receiver. Lanes to the same session have a doorbell in common.
        peer: ProcessNumber,
        /// Whether its receiver takes messages in the order of their arrival, so that each is to be stamped with the time.
        stamps: bool,
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
    /// An entry was added to an access list.
    AclAdded {
        /// Its number there.
        number: u64,
    },
    /// What the asker may do with a capability.
    Permitted {
        /// Its rights, with what the access list allows, without what it denies.
        rights: Rights,
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
    /// One end of a doorbell is beside this frame.
    Doorbell {
        /// The session that has the other.
        peer: ProcessNumber,
    },
}
