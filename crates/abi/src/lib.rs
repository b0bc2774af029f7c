//! What processes, broker and kernel say to each other: numbers, rights, requests, replies, events, limits, layouts.
//!
//! Types only. Nothing here decides anything, does I/O or knows how bytes become types (that is `keyway-wire`).
//! It rests on `core` and `alloc`; every other crate of the house may use it.
//!
//! Floors, lowest first: `limits`, `layout`, `name`, `handle`, `rights`, `signal`, `terms`, `denial`, `farewell`, `request`, `reply`,
//! `event`.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod denial;
mod event;
mod farewell;
mod handle;
pub mod layout;
pub mod limits;
mod name;
mod reply;
pub mod request;
mod rights;
mod signal;
mod terms;

#[cfg(test)]
mod tests;

pub use crate::{
    denial::{Denial, Payer, Quota, Sharer},
    event::{BadgeBearer, Event, LaneEnd, PeerIdentity},
    farewell::{Farewell, Fault, Malformed},
    handle::{Badge, Handle, LaneId, MappingId, ProcessNumber, Ticket, WordPlace},
    name::{Name, NameError},
    reply::{
        AclItem, AuditEntry, CapabilityEntry, Created, LaneEntry, Listing, ProcessEntry, QueueEntry, Reply,
        SessionStart, ShownSubject, Verdict,
    },
    request::{AclEntry, AclKind, QueueOrder, Request, Subject},
    rights::{Kind, Rights},
    signal::{
        DefaultAction, DefaultActions, MaskChange, SigInfo, Signal, SignalAction, SignalCode, SignalSet,
        Taking,
    },
    terms::{CapabilityLimit, CapabilityLimits, Terms},
};

/// The protocol version that this crate describes. The first frame of a session agrees on it.
pub const PROTOCOL_VERSION: u16 = 2;
