//! Why a lawful request was refused. Each reason has a name, a stable number, an errno and the figures of the case.
//!
//! A denial changes nothing: the state after it is the state before it.

use core::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    handle::{Badge, Handle, LaneId, MappingId, ProcessNumber, Ticket},
    name::Name,
    rights::{Kind, Rights},
    signal::{SIGNAL_MAX, Signal},
    terms::CapabilityLimit,
};

/// What is counted against an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Quota {
    /// Capabilities held.
    Handles,
    /// Objects made.
    Objects,
    /// Lanes open.
    Lanes,
    /// Bytes of shared memory.
    Bytes,
    /// Descriptors that the broker keeps.
    Descriptors,
    /// Mappings open.
    Mappings,
    /// Capabilities in escrow on one lane.
    Escrow,
    /// Processes watched.
    Watches,
    /// Names published.
    Names,
    /// Broker pages.
    Pages,
    /// Sessions.
    Sessions,
    /// Entries of one access list.
    AclEntries,
    /// Names waited for.
    NameWaits,
    /// Capabilities made from others, whoever holds them.
    Derivations,
    /// Requests whose reply is to come.
    Requests,
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Quota::Handles => "capabilities",
            Quota::Objects => "objects",
            Quota::Lanes => "lanes",
            Quota::Bytes => "bytes of shared memory",
            Quota::Descriptors => "descriptors",
            Quota::Mappings => "mappings",
            Quota::Escrow => "capabilities in escrow",
            Quota::Watches => "watched processes",
            Quota::Names => "published names",
            Quota::Pages => "broker pages",
            Quota::Sessions => "sessions",
            Quota::AclEntries => "entries of the access list",
            Quota::NameWaits => "names waited for",
            Quota::Derivations => "derived capabilities",
            Quota::Requests => "requests under way",
        })
    }
}

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Payer {
    /// One running process, over all its sessions.
    Process,
    /// One user, over all its processes.
    User,
    /// All processes of the broker together.
    Everyone,
}

impl fmt::Display for Payer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Payer::Process => "this process",
            Payer::User => "this user's processes",
            Payer::Everyone => "all processes of this broker",
        })
    }
}

/// Who has a share of a queue's lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Sharer {
    /// One running process, over all its sessions.
    Process,
    /// One user, over all its processes.
    User,
}

impl fmt::Display for Sharer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Sharer::Process => "process",
            Sharer::User => "user",
        })
    }
}

/// A lawful request, refused. The session lives on.
///
/// [`Denial::number`] is stable: it is what other languages and logs use.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Denial {
    /// The handle was never given out in the asker's table.
    #[error("no capability has the handle {handle} in this process; use a handle that the broker gave to it")]
    UnknownHandle {
        /// What was asked for.
        handle: Handle,
    },
    /// The handle named a capability that has been deleted, moved or revoked.
    #[error("the capability {handle} is gone: it was deleted, moved or revoked; ask its grantor for another")]
    StaleHandle {
        /// What was asked for.
        handle: Handle,
    },
    /// The capability names an object of another kind.
    #[error("{handle} names a {found}, the request needs a {needed}")]
    WrongKind {
        /// What was asked for.
        handle: Handle,
        /// The kind that the request acts on.
        needed: Kind,
        /// The kind of the object.
        found: Kind,
    },
    /// The capability lacks a right.
    #[error("{handle} has the rights {held}, the request needs {needed}; ask its grantor for more")]
    MissingRights {
        /// What was asked for.
        handle: Handle,
        /// Rights that the request needs.
        needed: Rights,
        /// Rights that the capability has.
        held: Rights,
    },
    /// A derived capability was to have a right that its parent lacks.
    #[error("cannot derive {asked} from a capability that has {held}; rights only shrink")]
    RightsExceeded {
        /// Rights that were asked for.
        asked: Rights,
        /// Rights that the parent has.
        held: Rights,
    },
    /// A badge was to be fixed on a capability that has one.
    #[error("the capability carries the badge {held} and cannot carry {asked}; badge one that has none")]
    BadgeFixed {
        /// The badge asked for.
        asked: Badge,
        /// The badge that is there.
        held: Badge,
    },
    /// The derivation would be deeper than the limit.
    #[error("derived {depth} deep, the limit is {depth_max}; derive from an earlier capability")]
    DepthExceeded {
        /// How deep it would be.
        depth: u8,
        /// How deep it can be.
        depth_max: u8,
    },
    /// The receive right cannot leave the process that made the queue.
    #[error("the receive right stays with the process that made the queue; leave it out")]
    ReceiveBound,
    /// A limit of the asker's process, of its user, or of the broker is reached.
    #[error(
        "{used} {quota} in use by {of}, {asked} more asked for, the limit is {max}; give some back first"
    )]
    QuotaExceeded {
        /// What is limited.
        quota: Quota,
        /// Whose limit is reached.
        of: Payer,
        /// How much more was asked for.
        asked: u64,
        /// How much is in use.
        used: u64,
        /// How much can be in use.
        max: u64,
    },
    /// A size is zero, absurd or not what such a thing can have.
    #[error(
        "{asked} bytes asked for; a ring has a power of two, a region whole pages, here {min} to {max} are possible"
    )]
    InvalidSize {
        /// What was asked for.
        asked: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A count is zero or above its limit.
    #[error("a count of {asked} asked for, 1 to {max} are possible")]
    InvalidCount {
        /// What was asked for.
        asked: u64,
        /// The most.
        max: u64,
    },
    /// The object of the capability has ended.
    #[error("the {kind} that the capability names has ended")]
    ObjectEnded {
        /// Its kind.
        kind: Kind,
    },
    /// The process has ended, or has no session yet.
    #[error("process {process} has ended, or has not begun; nothing can be done with it")]
    ProcessEnded {
        /// Which.
        process: ProcessNumber,
    },
    /// The queue has as many senders as it may have.
    #[error("the queue has its {senders_max} senders; try again when one has closed")]
    SendersExceeded {
        /// How many it may have.
        senders_max: u16,
    },
    /// The asker's process, or its user, has its share of the queue's lanes; the others are for others.
    #[error("this {who} has its {share} of the queue's {senders_max} lanes; close one first")]
    ShareExceeded {
        /// Whose share: `process` or `user`.
        who: Sharer,
        /// How many lanes that is.
        share: u16,
        /// How many lanes the queue takes.
        senders_max: u16,
    },
    /// The receiver has laid in no acknowledgement memory, or used it up.
    #[error("the queue's receiver has no acknowledgement memory in stock; try again when it has topped up")]
    StockEmpty,
    /// The receiver could not hold one more capability.
    #[error("the queue's receiver is at a limit of its own ({quota}) and can take no further lane")]
    ReceiverFull {
        /// The limit.
        quota: Quota,
    },
    /// Someone has published the name.
    #[error("the name {name} is taken")]
    NameTaken {
        /// The name.
        name: Name,
    },
    /// Nobody has published the name.
    #[error("nobody has published the name {name}; is the service running?")]
    NameUnknown {
        /// The name.
        name: Name,
    },
    /// The publisher does not let the asker look the name up.
    #[error("the name {name} is not for this user")]
    NameRefused {
        /// The name.
        name: Name,
    },
    /// The broker's policy does not let the asker do this with such a name.
    #[error(
        "the broker's policy does not let this process {verb} the name {name}; ask whoever runs the broker"
    )]
    NameForbidden {
        /// The name.
        name: Name,
        /// What was asked for: to publish it, or to look it up.
        verb: Rights,
    },
    /// The asker is not an end of such a lane.
    #[error("this process is no end of lane {lane}")]
    UnknownLane {
        /// What was asked for.
        lane: LaneId,
    },
    /// Only the lane's other end may ask for this.
    #[error("this process is the wrong end of lane {lane} for this")]
    WrongEnd {
        /// What was asked for.
        lane: LaneId,
    },
    /// The lane has ended.
    #[error("lane {lane} has ended")]
    LaneEnded {
        /// What was asked for.
        lane: LaneId,
    },
    /// The memory was said to be mapped before.
    #[error("this memory was declared mapped before")]
    AlreadyMapped,
    /// There is no such mapping in this process.
    #[error("this process has no mapping {mapping}")]
    UnknownMapping {
        /// What was asked for.
        mapping: MappingId,
    },
    /// The region's writer has not mapped it yet, so nobody can read it.
    #[error("the region's writer has not mapped it yet; try again after it has")]
    RegionUnwritten,
    /// The region has its writer.
    #[error("the region has its one writer already; map it for reading")]
    WriterTaken,
    /// The lane holds no such ticket.
    #[error(
        "lane {lane} holds no capability under ticket {ticket}: never deposited, withdrawn, taken or dropped"
    )]
    UnknownTicket {
        /// The lane.
        lane: LaneId,
        /// What was asked for.
        ticket: Ticket,
    },
    /// Everything derived from the capability is being taken back at this moment.
    #[error("{handle} is being revoked; wait for the answer to that")]
    Revoking {
        /// What was asked for.
        handle: Handle,
    },
    /// The capability has ended at its time.
    #[error("the capability {handle} expired {} ms ago; ask its grantor for another", (now_ns - expired_ns) / 1_000_000)]
    Expired {
        /// What was asked for.
        handle: Handle,
        /// When it ended, in nanoseconds of the broker's `CLOCK_BOOTTIME`.
        expired_ns: u64,
        /// The broker's time.
        now_ns: u64,
    },
    /// A capability was to end at a time that has passed.
    #[error(
        "a capability cannot expire at {asked_ns} ns, the broker's clock says {now_ns} ns; choose a later time"
    )]
    ExpiryPast {
        /// The time asked for, in nanoseconds of the broker's `CLOCK_BOOTTIME`.
        asked_ns: u64,
        /// The broker's time.
        now_ns: u64,
    },
    /// A derived capability was to outlive its parent.
    #[error(
        "cannot derive a capability until {asked_ns} ns from one that ends at {held_ns} ns; lifetimes only shrink"
    )]
    ExpiryExceeded {
        /// The time asked for, in nanoseconds of the broker's `CLOCK_BOOTTIME`.
        asked_ns: u64,
        /// When the parent ends.
        held_ns: u64,
    },
    /// A derived capability was to allow more than its parent.
    #[error(
        "cannot derive a capability that allows {asked} {limit} from one that allows {held}; limits only shrink"
    )]
    LimitExceeded {
        /// What is limited.
        limit: CapabilityLimit,
        /// How much the child was to allow.
        asked: u64,
        /// How much the parent allows.
        held: u64,
    },
    /// The capability, or one that it was derived from, allows no more.
    #[error(
        "{handle} allows {max} {limit}, {used} in use, {asked} asked for; close some, or ask its grantor for more"
    )]
    LimitReached {
        /// What was asked for.
        handle: Handle,
        /// What is limited.
        limit: CapabilityLimit,
        /// How much was asked for.
        asked: u64,
        /// How much is in use through it, or through the one that it was derived from.
        used: u64,
        /// How much that allows.
        max: u64,
    },
    /// An object stands on this very capability, which therefore cannot be replaced.
    #[error("the {kind} stands on this capability; derive a weaker one from it, and keep this one")]
    RootBound {
        /// The kind of the object.
        kind: Kind,
    },
    /// Flags that do not exist, or exclude each other, or do not suit the size.
    #[error(
        "a region cannot be made with the flags {asked:#x} and {bytes} bytes; freezable and shared exclude each other, huge pages need whole ones"
    )]
    InvalidFlags {
        /// The flags asked for.
        asked: u32,
        /// The size asked for.
        bytes: u64,
    },
    /// The region was not made to be frozen.
    #[error("the region was not made freezable; make another with that flag and copy it")]
    NotFreezable,
    /// Somebody holds pages of the region, for writing or for input and output.
    #[error(
        "the region cannot be frozen while its pages are held elsewhere; unmap the writer, and try again"
    )]
    Pinned,
    /// Somebody has closed the set of the memory's seals.
    #[error("somebody sealed the region's memory first; it can never be frozen, make another")]
    SealedByOther,
    /// The region is not frozen.
    #[error("the region is not frozen; its writer can still change it")]
    NotFrozen,
    /// The mapping is not the one with which the region is written.
    #[error("mapping {mapping} is not the region's writer; only that one can freeze it")]
    NotWriter {
        /// What was asked for.
        mapping: MappingId,
    },
    /// Whether several may write the region is not what the asker takes it for.
    #[error("the region {}; say so when mapping it", if *shared { "may be written by several" } else { "has one writer" })]
    WrongSharing {
        /// Whether several may write it.
        shared: bool,
    },
    /// The object's access list denies it.
    #[error(
        "the access list of what {handle} names denies {denied} to this process; ask whoever keeps the list"
    )]
    DeniedByList {
        /// What was asked for.
        handle: Handle,
        /// The rights that it denies.
        denied: Rights,
    },
    /// An access list of such an object cannot have such an entry.
    #[error("an access list cannot give or take {asked} here; possible are {possible}")]
    InvalidPermissions {
        /// The permissions asked for.
        asked: Rights,
        /// Those that such an object's list can have.
        possible: Rights,
    },
    /// An executable is named by its whole path.
    #[error(
        "an executable is named by a path that begins with / and has at most {bytes_max} bytes, here are {bytes}"
    )]
    InvalidExecutable {
        /// Bytes of the path.
        bytes: u64,
        /// Bytes that it can have.
        bytes_max: u64,
    },
    /// The access list has no such entry.
    #[error("the access list has no entry {number}")]
    UnknownAclEntry {
        /// What was asked for.
        number: u64,
    },
    /// Linux refused the broker something that the request needs.
    #[error("the system refused the broker what this needs (errno {errno})")]
    SystemRefused {
        /// What Linux said.
        errno: i32,
    },
    /// The broker does not speak a version that the process offers.
    #[error(
        "the process speaks protocol versions {version_min} to {version_max}, the broker speaks {version}; update the older one"
    )]
    VersionUnsupported {
        /// The oldest that the process speaks.
        version_min: u16,
        /// The newest that the process speaks.
        version_max: u16,
        /// What the broker speaks.
        version: u16,
    },
    /// No signal has the number.
    #[error("no signal has the number {asked}; they are 1 to {SIGNAL_MAX}")]
    InvalidSignal {
        /// What was asked for.
        asked: i32,
    },
    /// As many real-time signals are queued at the process as may be, or as the asker's process or user may have there.
    #[error("{of} may have {max} real-time signals queued at a process; try again when it has taken some")]
    SignalQueueFull {
        /// Whose share it is.
        of: Payer,
        /// How many.
        max: u32,
    },
    /// The signal's action is one that Linux carries out, and the process, or Linux, does not let the broker do so.
    #[error(
        "the broker may not carry out the default action of {signal} on this process; it must handle or block the signal, or accept default actions when it connects"
    )]
    Unsupported {
        /// What was raised.
        signal: Signal,
    },
    /// The signal's action cannot be changed.
    #[error("{signal} can be neither handled nor ignored")]
    SignalBound {
        /// What was asked for.
        signal: Signal,
    },
    /// The lane is still being opened.
    #[error("lane {lane} is still being opened; say first that its ring is mapped")]
    LaneUnopened {
        /// What was asked for.
        lane: LaneId,
    },
    /// The two sessions have a doorbell, or it is being made.
    #[error("a doorbell to process {peer} is there already, or is being made; use that one")]
    DoorbellExists {
        /// The other session.
        peer: ProcessNumber,
    },
}

impl Denial {
    /// The number that names this reason in every language, log and version.
    pub fn number(&self) -> u32 {
        match self {
            Denial::UnknownHandle { .. } => 1,
            Denial::StaleHandle { .. } => 2,
            Denial::WrongKind { .. } => 3,
            Denial::MissingRights { .. } => 4,
            Denial::RightsExceeded { .. } => 5,
            Denial::BadgeFixed { .. } => 6,
            Denial::DepthExceeded { .. } => 7,
            Denial::ReceiveBound => 8,
            Denial::QuotaExceeded { .. } => 9,
            Denial::InvalidSize { .. } => 10,
            Denial::InvalidCount { .. } => 11,
            Denial::ObjectEnded { .. } => 12,
            Denial::ProcessEnded { .. } => 13,
            Denial::SendersExceeded { .. } => 14,
            Denial::StockEmpty => 15,
            Denial::ReceiverFull { .. } => 16,
            Denial::NameTaken { .. } => 17,
            Denial::NameUnknown { .. } => 18,
            Denial::NameRefused { .. } => 19,
            Denial::UnknownLane { .. } => 20,
            Denial::WrongEnd { .. } => 21,
            Denial::LaneEnded { .. } => 22,
            Denial::AlreadyMapped => 23,
            Denial::UnknownMapping { .. } => 24,
            Denial::RegionUnwritten => 25,
            Denial::WriterTaken => 26,
            Denial::UnknownTicket { .. } => 27,
            Denial::Revoking { .. } => 28,
            Denial::SystemRefused { .. } => 29,
            Denial::VersionUnsupported { .. } => 30,
            Denial::ShareExceeded { .. } => 31,
            Denial::Expired { .. } => 32,
            Denial::ExpiryPast { .. } => 33,
            Denial::ExpiryExceeded { .. } => 34,
            Denial::RootBound { .. } => 35,
            Denial::InvalidFlags { .. } => 36,
            Denial::NotFreezable => 37,
            Denial::Pinned => 38,
            Denial::SealedByOther => 39,
            Denial::NotFrozen => 44,
            Denial::NotWriter { .. } => 45,
            Denial::WrongSharing { .. } => 46,
            Denial::DeniedByList { .. } => 50,
            Denial::InvalidPermissions { .. } => 51,
            Denial::InvalidExecutable { .. } => 52,
            Denial::UnknownAclEntry { .. } => 53,
            Denial::InvalidSignal { .. } => 40,
            Denial::SignalQueueFull { .. } => 41,
            Denial::Unsupported { .. } => 42,
            Denial::SignalBound { .. } => 43,
            Denial::NameForbidden { .. } => 60,
            Denial::LimitExceeded { .. } => 61,
            Denial::LimitReached { .. } => 62,
            Denial::LaneUnopened { .. } => 63,
            Denial::DoorbellExists { .. } => 64,
        }
    }

    /// The name of the reason with this number.
    pub fn name_of(number: u32) -> Option<&'static str> {
        Some(match number {
            1 => "UnknownHandle",
            2 => "StaleHandle",
            3 => "WrongKind",
            4 => "MissingRights",
            5 => "RightsExceeded",
            6 => "BadgeFixed",
            7 => "DepthExceeded",
            8 => "ReceiveBound",
            9 => "QuotaExceeded",
            10 => "InvalidSize",
            11 => "InvalidCount",
            12 => "ObjectEnded",
            13 => "ProcessEnded",
            14 => "SendersExceeded",
            15 => "StockEmpty",
            16 => "ReceiverFull",
            17 => "NameTaken",
            18 => "NameUnknown",
            19 => "NameRefused",
            20 => "UnknownLane",
            21 => "WrongEnd",
            22 => "LaneEnded",
            23 => "AlreadyMapped",
            24 => "UnknownMapping",
            25 => "RegionUnwritten",
            26 => "WriterTaken",
            27 => "UnknownTicket",
            28 => "Revoking",
            29 => "SystemRefused",
            30 => "VersionUnsupported",
            31 => "ShareExceeded",
            32 => "Expired",
            33 => "ExpiryPast",
            34 => "ExpiryExceeded",
            35 => "RootBound",
            36 => "InvalidFlags",
            37 => "NotFreezable",
            38 => "Pinned",
            39 => "SealedByOther",
            40 => "InvalidSignal",
            41 => "SignalQueueFull",
            42 => "Unsupported",
            43 => "SignalBound",
            44 => "NotFrozen",
            45 => "NotWriter",
            46 => "WrongSharing",
            50 => "DeniedByList",
            51 => "InvalidPermissions",
            52 => "InvalidExecutable",
            53 => "UnknownAclEntry",
            60 => "NameForbidden",
            61 => "LimitExceeded",
            62 => "LimitReached",
            63 => "LaneUnopened",
            64 => "DoorbellExists",
            _ => return None,
        })
    }

    /// The errno that a C caller sees, as the IPC document has them (Linux numbers).
    pub fn errno(&self) -> i32 {
        const EPERM: i32 = 1;
        const ENOENT: i32 = 2;
        const ESRCH: i32 = 3;
        const EAGAIN: i32 = 11;
        const ENOMEM: i32 = 12;
        const EACCES: i32 = 13;
        const EBUSY: i32 = 16;
        const EEXIST: i32 = 17;
        const EINVAL: i32 = 22;
        const EPIPE: i32 = 32;
        const EPROTONOSUPPORT: i32 = 93;
        const EOPNOTSUPP: i32 = 95;
        match self {
            // Of the others there is not more once something is closed.
            Denial::LimitReached { limit, .. } if *limit == CapabilityLimit::Opens => EAGAIN,
            Denial::MissingRights { .. }
            | Denial::ReceiveBound
            | Denial::RootBound { .. }
            | Denial::RightsExceeded { .. }
            | Denial::LimitExceeded { .. }
            | Denial::LimitReached { .. }
            | Denial::ExpiryExceeded { .. } => EPERM,
            Denial::NameRefused { .. }
            | Denial::NameForbidden { .. }
            | Denial::WriterTaken
            | Denial::NotFreezable
            | Denial::SealedByOther
            | Denial::NotWriter { .. }
            | Denial::DeniedByList { .. }
            | Denial::WrongSharing { .. } => EACCES,
            Denial::NameUnknown { .. } => ENOENT,
            Denial::ProcessEnded { .. } => ESRCH,
            Denial::StockEmpty
            | Denial::SendersExceeded { .. }
            | Denial::ShareExceeded { .. }
            | Denial::ReceiverFull { .. }
            | Denial::NotFrozen
            | Denial::LaneUnopened { .. }
            | Denial::SignalQueueFull { .. }
            | Denial::RegionUnwritten => EAGAIN,
            Denial::QuotaExceeded { .. } => ENOMEM,
            Denial::NameTaken { .. } | Denial::DoorbellExists { .. } => EEXIST,
            Denial::Revoking { .. } | Denial::Pinned => EBUSY,
            Denial::LaneEnded { .. } | Denial::ObjectEnded { .. } => EPIPE,
            Denial::VersionUnsupported { .. } => EPROTONOSUPPORT,
            Denial::Unsupported { .. } => EOPNOTSUPP,
            Denial::SystemRefused { errno } => *errno,
            Denial::Expired { .. }
            | Denial::ExpiryPast { .. }
            | Denial::UnknownHandle { .. }
            | Denial::StaleHandle { .. }
            | Denial::WrongKind { .. }
            | Denial::BadgeFixed { .. }
            | Denial::DepthExceeded { .. }
            | Denial::InvalidSize { .. }
            | Denial::InvalidPermissions { .. }
            | Denial::InvalidExecutable { .. }
            | Denial::UnknownAclEntry { .. }
            | Denial::InvalidFlags { .. }
            | Denial::InvalidCount { .. }
            | Denial::UnknownLane { .. }
            | Denial::WrongEnd { .. }
            | Denial::AlreadyMapped
            | Denial::UnknownMapping { .. }
            | Denial::UnknownTicket { .. }
            | Denial::InvalidSignal { .. }
            | Denial::SignalBound { .. } => EINVAL,
        }
    }
}
