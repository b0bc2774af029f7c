//! What the broker tells a process without having been asked.
//!
//! Once an event is in the process's socket, its event word ([`EVENT_WORD`](crate::layout::EVENT_WORD)) grows, so that a
//! process that sleeps on memory wakes to read it.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{
    farewell::Farewell,
    handle::{Badge, Handle, LaneId, ProcessNumber, WordPlace},
    name::Name,
    rights::{Kind, Rights},
};

/// Who is at the other end of a lane, as Linux told the broker. Nothing in it is what the process says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerIdentity {
    /// The kernel's number: the same for all lanes of a session, never given again.
    pub process: ProcessNumber,
    /// The pid. For people; it may be another's once the process has ended.
    pub pid: u32,
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The executable's path when the session began.
    pub executable: String,
}

/// For whom a lane's badge was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum BadgeBearer {
    /// The directory made the badge for the very process that opened the lane.
    Opener,
    /// The directory made the badge for another process, which passed the capability on.
    Other,
    /// The badge was not made by the directory, or there is none.
    Unnamed,
}

/// Why a lane has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LaneEnd {
    /// The other side closed it.
    Closed,
    /// The other side has died.
    PeerDead,
    /// The capability through which it was opened was taken back.
    Revoked,
    /// The queue was deleted.
    QueueDeleted,
}

/// Something that happened to a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A sender has opened a lane into a queue of this process; its ring (read-only) is beside this frame.
    LaneOpened {
        /// The queue: the handle that made it.
        queue: Handle,
        /// The lane.
        lane: LaneId,
        /// The acknowledgement memory that it uses.
        ack: u32,
        /// Bytes of its ring.
        ring_bytes: u32,
        /// Whether its memory is rounded up to huge pages: [`lane_bytes`](crate::layout::lane_bytes).
        huge: bool,
        /// Its priority: 0, the lowest, to [`PRIORITY_MAX`](crate::limits::PRIORITY_MAX).
        priority: u8,
        /// The badge of the capability through which it was opened.
        badge: Option<Badge>,
        /// For whom the badge was made.
        bearer: BadgeBearer,
        /// Who opened it.
        peer: PeerIdentity,
        /// A capability to watch that process.
        peer_handle: Handle,
        /// The receiver's broker word for the lane.
        word: WordPlace,
    },
    /// Senders used acknowledgement memories up and ended before their lanes were open. The receiver unmaps them and may
    /// lay in others.
    AcksDropped {
        /// Of which queue, by the handle that made it, and which memory. At most
        /// [`EVENT_ENTRIES_MAX`](crate::limits::EVENT_ENTRIES_MAX).
        acks: Vec<(Handle, u32)>,
    },
    /// Lanes of this process have ended.
    LanesEnded {
        /// Which; at most [`EVENT_ENTRIES_MAX`](crate::limits::EVENT_ENTRIES_MAX).
        lanes: Vec<LaneId>,
        /// Why.
        why: LaneEnd,
    },
    /// Another process has put a capability into this one's table.
    CapabilityReceived {
        /// Its handle.
        handle: Handle,
        /// The kind of the object.
        kind: Kind,
        /// What it may do.
        rights: Rights,
        /// Its badge.
        badge: Option<Badge>,
        /// Who granted it.
        from: ProcessNumber,
    },
    /// Capabilities of this process were taken back, or their objects have ended. What is lost at once is told at once.
    CapabilitiesLost {
        /// Their handles, stale from now on; at most [`EVENT_ENTRIES_MAX`](crate::limits::EVENT_ENTRIES_MAX).
        handles: Vec<Handle>,
    },
    /// A name that the process waits for can be looked up.
    NameAppeared {
        /// The name.
        name: Name,
    },
    /// A watched process has ended.
    ProcessEnded {
        /// The capability with which it was watched.
        process: Handle,
    },
    /// A further broker page is beside this frame.
    PageAdded {
        /// Its number.
        page: u32,
    },
    /// No word of this broker page will ever change again.
    PageDropped {
        /// Its number.
        page: u32,
    },
    /// A signal is pending, or one that was is no longer held back. Told once; not again before the process asks for one with
    /// [`TakeSignal`](crate::request::TakeSignal), so that whoever does not look is not flooded.
    SignalsPending,
    /// The session is over; the socket closes after this frame.
    Farewell(Farewell),
    /// Another session has made a doorbell between the two; this session's end is beside this frame.
    Doorbell {
        /// The session that has the other end: the one that lanes name as [`PeerIdentity::process`], or the reply to
        /// [`OpenLane`](crate::request::OpenLane) as the receiver's.
        peer: ProcessNumber,
    },
    /// Doorbells of this session are over: no lane is left between it and those others, or they have ended. Its ends are of no
    /// use any more.
    DoorbellsEnded {
        /// With whom; at most [`EVENT_ENTRIES_MAX`](crate::limits::EVENT_ENTRIES_MAX).
        peers: Vec<ProcessNumber>,
    },
}
