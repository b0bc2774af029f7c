//! What capabilities name. Each kind's default and possible rights stand at its top.

use alloc::collections::{BTreeMap, BTreeSet};

use keyway_abi::{
    Badge, Handle, Kind, LaneId, MappingId, Name, ProcessNumber, Rights,
    request::{Audience, QueueOrder, RegionFlags},
};

use crate::{
    account::AccountId,
    acl::Acl,
    effect::Token,
    limits::Charge,
    shares::Shares,
    tree::{CapabilityId, ObjectId},
};

/// An object, with what every kind has.
#[derive(Debug)]
pub(crate) struct Object {
    /// Capabilities that name it, joints included. At 0 it is freed.
    pub(crate) capabilities: u32,
    /// Who pays for it; `None` for what the kernel itself makes.
    pub(crate) account: Option<AccountId>,
    /// Its access list, once it has one.
    pub(crate) acl: Option<Acl>,
    pub(crate) body: Body,
}

/// What is particular to a kind.
#[derive(Debug)]
pub(crate) enum Body {
    Queue(Queue),
    Region(Region),
    Process(ProcessObject),
    Device(Device),
    Directory,
    ServiceName(ServiceName),
}

impl Object {
    /// Whether something stands on it besides capabilities.
    pub(crate) fn is_in_use(&self) -> bool {
        match &self.body {
            // Linux may still be freezing its memory for somebody who has given it up.
            Body::Region(region) => {
                !region.mappings.is_empty() || matches!(region.state, RegionState::Freezing(_))
            }
            _ => false,
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self.body {
            Body::Queue(_) => Kind::Queue,
            Body::Region(_) => Kind::Region,
            Body::Process(_) => Kind::Process,
            Body::Device(_) => Kind::Device,
            Body::Directory => Kind::Directory,
            Body::ServiceName(_) => Kind::ServiceName,
        }
    }
}

/// The state of one acknowledgement memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AckState {
    /// Given to the receiver, who has not said that it is mapped.
    Fresh,
    /// Being sealed.
    Sealing,
    /// In stock.
    Ready,
    /// A lane has it.
    Used(LaneId),
}

/// A bounded store of messages with one receiver. Default and possible rights: derive, grant, send, receive, control.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) receiver: ProcessNumber,
    /// The capability that made it. It goes with the queue.
    pub(crate) root: CapabilityId,
    /// The handle of `root`.
    pub(crate) handle: Handle,
    pub(crate) ring_bytes_max: u32,
    pub(crate) senders_max: u16,
    pub(crate) order: QueueOrder,
    pub(crate) acks: BTreeMap<u32, (Token, AckState)>,
    pub(crate) ready: BTreeSet<u32>,
    pub(crate) next_ack: u32,
    pub(crate) lanes: BTreeSet<LaneId>,
    /// Whose those lanes are.
    pub(crate) shares: Shares,
    /// The names under which it is published.
    pub(crate) names: BTreeSet<ObjectId>,
}

impl Queue {
    /// What a queue costs its receiver, besides its acknowledgement memories.
    pub(crate) const CHARGE: Charge = Charge { objects: 1, ..Charge::NOTHING };
    pub(crate) const RIGHTS: Rights =
        Rights::DERIVE.union(Rights::GRANT).union(Rights::SEND).union(Rights::RECEIVE).union(Rights::CONTROL);
}

/// Where a region is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RegionState {
    /// Its memory is being made.
    Creating,
    /// Nobody has mapped it.
    Unwritten,
    /// Its writer maps it.
    Writing(MappingId),
    /// Its writer has mapped it, and Linux seals it.
    Sealing(MappingId),
    /// Its writer has mapped it; Linux has sealed it against further writers.
    Live(MappingId),
    /// Live, and its writer has unmapped it or is gone.
    Settled,
    /// Linux seals it against every change.
    Freezing(MappingId),
    /// Nobody can change it any more.
    Frozen,
    /// Its memory could not be made, or its writer was gone before it was sealed; nobody can use it.
    Abandoned,
}

/// Shared memory. Default and possible rights: derive, grant, map, write, control.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) token: Token,
    pub(crate) bytes: u64,
    pub(crate) flags: RegionFlags,
    pub(crate) state: RegionState,
    pub(crate) mappings: BTreeSet<MappingId>,
}

impl Region {
    pub(crate) const RIGHTS: Rights =
        Rights::DERIVE.union(Rights::GRANT).union(Rights::MAP).union(Rights::WRITE).union(Rights::CONTROL);

    /// What people see of it: who can write it besides its writer.
    pub(crate) fn label(&self) -> Option<Name> {
        let shared = self.flags.contains(RegionFlags::SHARED);
        Name::new(if shared { "memfd-written-by-several" } else { "memfd-read-only-to-others" }).ok()
    }
}

/// A connected or starting process. Rights on oneself: by policy out of `OWN`; on a child: `CHILD`; on a sender: `PEER`.
#[derive(Debug)]
pub(crate) struct ProcessObject {
    pub(crate) process: ProcessNumber,
    pub(crate) ended: bool,
    /// Who watches, and through which capabilities: for each it is told once.
    pub(crate) watchers: BTreeSet<(ProcessNumber, Handle)>,
}

impl ProcessObject {
    /// All that a capability to a process can have.
    pub(crate) const POSSIBLE: Rights = Rights::DERIVE
        .union(Rights::GRANT)
        .union(Rights::WATCH)
        .union(Rights::ENDOW)
        .union(Rights::START)
        .union(Rights::DEPOSIT)
        .union(Rights::RAISE);
    /// What a starter has on its child.
    pub(crate) const CHILD: Rights =
        Rights::DERIVE.union(Rights::GRANT).union(Rights::WATCH).union(Rights::ENDOW).union(Rights::RAISE);
    /// What a receiver has on a sender.
    pub(crate) const PEER: Rights = Rights::WATCH;
}

/// A descriptor that the broker keeps. Default and possible rights: derive, grant, claim, control. It ends with the process
/// that handed it in.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) token: Token,
    pub(crate) label: Name,
    pub(crate) root: CapabilityId,
    pub(crate) owner: ProcessNumber,
}

impl Device {
    pub(crate) const RIGHTS: Rights =
        Rights::DERIVE.union(Rights::GRANT).union(Rights::CLAIM).union(Rights::CONTROL);
}

/// A published service name. Rights: none; deleting the capability withdraws the name.
#[derive(Debug)]
pub(crate) struct ServiceName {
    pub(crate) name: Name,
    pub(crate) root: CapabilityId,
    pub(crate) publisher: ProcessNumber,
    pub(crate) publisher_uid: u32,
    pub(crate) audience: Audience,
    /// The capability to the queue from which look-ups derive. `None` once it was taken back.
    pub(crate) target: Option<CapabilityId>,
    /// Badges that look-ups made, so that a process has the same one each time.
    pub(crate) badges: BTreeMap<ProcessNumber, Badge>,
}

/// All that a capability to the directory can have.
pub const DIRECTORY_RIGHTS: Rights = Rights::DERIVE
    .union(Rights::GRANT)
    .union(Rights::PUBLISH)
    .union(Rights::LOOKUP)
    .union(Rights::INSPECT)
    .union(Rights::AUDIT);

/// All that a capability to one's own process can have.
pub const OWN_RIGHTS: Rights = ProcessObject::POSSIBLE;
