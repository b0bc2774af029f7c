//! Everything that a process can ask of the kernel. One struct an operation, one opcode a struct.
//!
//! Opcodes are stable. Each request has exactly one reply with its request number; which one is said at each struct.
//! Every request can be answered with [`Reply::Denied`](crate::Reply::Denied).

use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    handle::{Handle, LaneId, MappingId, ProcessNumber, Ticket},
    name::Name,
    rights::Rights,
    signal::{DefaultActions, MaskChange, SignalAction, SignalSet, Taking},
    terms::Terms,
};

macro_rules! requests {
    ($( $opcode:literal $name:ident $(#[$doc:meta])* { $( $(#[$fdoc:meta])* $field:ident: $type:ty ),* $(,)? } )*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
            pub struct $name { $( $(#[$fdoc])* pub $field: $type ),* }

            impl From<$name> for Request {
                fn from(request: $name) -> Self {
                    Request::$name(request)
                }
            }

            impl $name {
                /// The number of this operation in a frame's header.
                pub const OPCODE: u16 = $opcode;
            }
        )*

        /// One request. The kernel's dispatch is one match over it.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Request {
            $( #[doc = concat!("See [`", stringify!($name), "`].")] $name($name) ),*
        }

        impl Request {
            /// The number of the operation in a frame's header.
            pub fn opcode(&self) -> u16 {
                match self { $( Request::$name(_) => $opcode ),* }
            }

            /// The name of the operation with this opcode.
            pub fn operation_of(opcode: u16) -> Option<&'static str> {
                match opcode { $( $opcode => Some(stringify!($name)), )* _ => None }
            }

            /// The operation's name, for logs and refusals.
            pub fn operation(&self) -> &'static str {
                match self { $( Request::$name(_) => stringify!($name) ),* }
            }
        }

        /// Calls `$callback!` with the list of all operations: `callback! { 1 Hello, 2 CreateQueue, .. }`.
        #[macro_export]
        macro_rules! for_each_request {
            ($callback:ident) => { $callback! { $( $opcode $name, )* } };
        }
    };
}

/// Who may look a published name up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Audience {
    /// Every process that holds the directory with the right `lookup`.
    Everyone,
    /// Only processes of root and of the publisher's own user.
    OwnUserAndRoot,
}

/// In which order a queue's receiver takes messages of several lanes. Within a lane it is always that in which they were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum QueueOrder {
    /// Lanes take turns, by bytes.
    #[default]
    Fair,
    /// Lanes of a higher priority first; those of one priority take turns.
    Priority,
    /// As they were sent, as far as the senders' stamps say so, which are bounded by what the receiver has seen itself.
    Arrival,
}

impl fmt::Display for QueueOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            QueueOrder::Fair => "fair",
            QueueOrder::Priority => "by priority",
            QueueOrder::Arrival => "by arrival",
        })
    }
}

/// What a mapping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MapAccess {
    /// Read what the region's writer writes.
    Read,
    /// Become the region's one writer.
    Write,
    /// Read a region that nobody writes any more.
    Frozen,
    /// Write a region that several may write.
    Share,
}

bitflags::bitflags! {
    /// What can become of a region. Fixed when it is made.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    pub struct RegionFlags: u32 {
        /// Its writer can give up writing for good ([`Freeze`]), and nobody can change it then.
        const FREEZABLE = 1 << 0;
        /// Several processes can write it at a time ([`MapAccess::Share`]). Nothing in it can be relied upon by anyone.
        const SHARED = 1 << 1;
        /// Its memory is to be of huge pages, if there are any. Its size must be a multiple of
        /// [`HUGE_PAGE_BYTES`](crate::limits::HUGE_PAGE_BYTES).
        const HUGE = 1 << 2;
    }
}

/// Whom an entry of an access list is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// A capability of the asker's: to a process, which is then meant; or to anything else, whose holders are meant.
    Holder(Handle),
    /// Processes of this user.
    User(u32),
    /// Processes of which this is the effective group or a supplementary one.
    Group(u32),
    /// Processes that run this executable, by its whole path. Advice between processes that can trace each other.
    Executable(String),
}

/// Whether an entry gives or takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AclKind {
    /// The permissions are added to what capabilities give.
    Allow,
    /// The permissions are taken away, whoever gives them.
    Deny,
}

/// One entry of an access list. All that match a process add up, and what one denies no other can allow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclEntry {
    /// Whom it is about.
    pub subject: Subject,
    /// What it gives or takes.
    pub permissions: Rights,
    /// Which of both.
    pub kind: AclKind,
}

/// How a capability travels in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EscrowHow {
    /// A derived capability travels; the sender keeps its own.
    Copy(Terms),
    /// The capability itself travels; the sender has it no more once the receiver has taken it.
    Move,
}

requests! {
    1 Hello
    /// The first frame of a session. Reply: [`Reply::Welcome`](crate::Reply::Welcome) with the first broker page beside it.
    {
        /// The oldest protocol version that the process speaks.
        version_min: u16,
        /// The newest protocol version that the process speaks.
        version_max: u16,
        /// Whether the broker may terminate, stop and continue this process for those who hold the right `raise`.
        default_actions: DefaultActions,
    }
    2 CreateQueue
    /// Makes a queue whose receiver is the asker. Reply: [`Reply::Queue`](crate::Reply::Queue), with one writable
    /// acknowledgement memory a piece of stock beside it; the receiver maps them and says so with [`AcksMapped`].
    {
        /// Bytes of the largest ring that a sender may ask for.
        ring_bytes_max: u32,
        /// Lanes that the queue takes at a time.
        senders_max: u16,
        /// Acknowledgement memories to lay in stock now.
        stock: u8,
        /// In which order its receiver takes messages of several lanes.
        order: QueueOrder,
    }
    3 TopUp
    /// Lays in more acknowledgement memories. Reply: [`Reply::Acks`](crate::Reply::Acks).
    {
        /// The queue, with the right `receive`.
        queue: Handle,
        /// How many.
        count: u8,
    }
    4 AcksMapped
    /// Says that acknowledgement memories are mapped, so that the broker seals them. Reply: `Done`.
    {
        /// The queue, with the right `receive`.
        queue: Handle,
        /// The first of them.
        first: u32,
        /// How many.
        count: u8,
    }
    5 LaneMapped
    /// Says that the sender has mapped a lane's ring. Once the reply (`Done`) is there, the lane can be used.
    {
        /// The lane.
        lane: LaneId,
    }
    6 RegionMapped
    /// Says that the writer has mapped and populated a region. Once the reply (`Done`) is there, others can read it.
    {
        /// The writer's mapping.
        mapping: MappingId,
    }
    7 Delete
    /// Drops one's own capability. What was derived from it stays with its holders. Dropping the capability that made
    /// a queue ends the queue; dropping a service name withdraws the name. Reply: `Done`.
    {
        /// The capability.
        handle: Handle,
    }
    8 Derive
    /// Makes an equal or weaker capability in one's own table. Needs `derive`. Reply: [`Reply::Capability`](crate::Reply::Capability).
    {
        /// The parent.
        from: Handle,
        /// What the child is to be.
        terms: Terms,
    }
    9 Grant
    /// Makes an equal or weaker capability in another process's table. Needs `grant` on the parent and `endow` on the
    /// process. Reply: [`Reply::Capability`](crate::Reply::Capability), with the handle in the *other* table.
    {
        /// The parent.
        from: Handle,
        /// The process.
        to: Handle,
        /// What the child is to be.
        terms: Terms,
    }
    10 Revoke
    /// Takes back everything derived from a capability, in every process. Reply, once all of it is gone:
    /// [`Reply::Revoked`](crate::Reply::Revoked).
    {
        /// The capability, which stays.
        handle: Handle,
    }
    11 Publish
    /// Publishes a service name. Needs `publish` on the directory and `grant` on the queue. Reply:
    /// [`Reply::Capability`](crate::Reply::Capability), the name itself: deleting it withdraws the name.
    {
        /// The directory.
        directory: Handle,
        /// The name.
        name: Name,
        /// The queue that those who look up may reach.
        queue: Handle,
        /// What they may do with it.
        rights: Rights,
        /// Who may look it up.
        audience: Audience,
    }
    12 Lookup
    /// Derives a capability to a published queue, with a badge that is fixed for this process and name. Needs `lookup`.
    /// Reply: [`Reply::Capability`](crate::Reply::Capability).
    {
        /// The directory.
        directory: Handle,
        /// The name.
        name: Name,
        /// A process, with the right `endow`, that is to receive the capability instead of the asker, with a badge of its own.
        on_behalf_of: Option<Handle>,
    }
    13 OpenLane
    /// Opens a lane to a queue. Needs `send`. Reply: [`Reply::LaneOpening`](crate::Reply::LaneOpening), with the ring
    /// (writable) and the acknowledgement memory (read-only) beside it; then the sender maps both and says [`LaneMapped`].
    {
        /// The queue.
        queue: Handle,
        /// Bytes of the ring: a power of two, within the queue's bound.
        ring_bytes: u32,
        /// The lane's priority: 0, the lowest, to [`PRIORITY_MAX`](crate::limits::PRIORITY_MAX), and no more than the capability
        /// allows. It counts where the receiver takes messages by it.
        priority: u8,
        /// Its memory is to be of huge pages, if there are any, and is rounded up to such: [`lane_bytes`](crate::layout::lane_bytes).
        huge: bool,
    }
    14 CloseLane
    /// Closes one's end of a lane. What a sender had committed can still be received. Reply: `Done`.
    {
        /// The lane.
        lane: LaneId,
    }
    15 CreateRegion
    /// Makes shared memory of whole pages. Reply: [`Reply::Capability`](crate::Reply::Capability).
    {
        /// Its size.
        bytes: u64,
        /// What can become of it.
        flags: RegionFlags,
    }
    16 MapRegion
    /// Asks for a region's memory, to map it. Needs `map`; to write, `write`. Reply:
    /// [`Reply::Mapping`](crate::Reply::Mapping) with the memory beside it.
    {
        /// The region.
        region: Handle,
        /// For what.
        access: MapAccess,
    }
    17 Unmap
    /// Says that a mapping is gone. Reply: `Done`.
    {
        /// The mapping.
        mapping: MappingId,
    }
    18 OpenDeposit
    /// Asks for a socket on which descriptors can be handed to the broker. Needs `deposit` on one's own process. Reply:
    /// `Done` with the socket beside it.
    {
        /// One's own process.
        process: Handle,
    }
    19 Deposit
    /// Hands one descriptor to the broker, on the socket that [`OpenDeposit`] gave. Reply, on that socket:
    /// [`Reply::Capability`](crate::Reply::Capability), a device.
    {
        /// What people see of it in listings.
        label: Name,
    }
    20 Claim
    /// Asks for a device's descriptor. Needs `claim`. Reply: `Done` with the descriptor beside it.
    {
        /// The device.
        device: Handle,
    }
    21 EscrowPut
    /// Puts a capability into escrow for a message on a lane, before the message is committed. Needs `grant`. Reply:
    /// [`Reply::Ticket`](crate::Reply::Ticket).
    {
        /// The lane, of which the asker is the sender.
        lane: LaneId,
        /// The capability.
        from: Handle,
        /// How it travels.
        how: EscrowHow,
    }
    22 EscrowWithdraw
    /// Takes a capability back out of escrow; lawful only before the message is committed. Reply: `Done`.
    {
        /// The lane, of which the asker is the sender.
        lane: LaneId,
        /// The ticket.
        ticket: Ticket,
    }
    23 EscrowTake
    /// Takes a capability that a message carried; those with lower tickets on this lane are dropped. Reply:
    /// [`Reply::Taken`](crate::Reply::Taken).
    {
        /// The lane, of which the asker is the receiver.
        lane: LaneId,
        /// The ticket that the message carried.
        ticket: Ticket,
    }
    24 Watch
    /// Asks to be told when a process ends. Needs `watch`. Reply: `Done`; later
    /// [`Event::ProcessEnded`](crate::Event::ProcessEnded), at once if it has ended already.
    {
        /// The process.
        process: Handle,
    }
    25 ListOwn
    /// Lists one's own capabilities in the order of slots. Reply: [`Reply::Listing`](crate::Reply::Listing).
    {
        /// Begin after this one; [`Handle::NONE`] begins at the beginning.
        after: Handle,
    }
    26 StartChild
    /// Makes a process that is to be started confined, with an empty table, and its end of an inherited socket. Needs
    /// `start` on one's own process. Reply: [`Reply::Capability`](crate::Reply::Capability), the process, with the
    /// socket beside it.
    {
        /// One's own process.
        process: Handle,
    }
    27 ListProcesses
    /// Lists all processes. Needs `inspect` on the directory. Reply: [`Reply::Listing`](crate::Reply::Listing).
    {
        /// The directory.
        directory: Handle,
        /// Begin after this one.
        after: Option<ProcessNumber>,
    }
    28 ListCapabilities
    /// Lists the capabilities of a process. Needs `inspect` on the directory. Reply: [`Reply::Listing`](crate::Reply::Listing).
    {
        /// The directory.
        directory: Handle,
        /// Whose.
        process: ProcessNumber,
        /// Begin after this one.
        after: Handle,
    }
    29 ListQueues
    /// Lists all queues. Needs `inspect` on the directory. Reply: [`Reply::Listing`](crate::Reply::Listing).
    {
        /// The directory.
        directory: Handle,
        /// Begin after this queue number.
        after: Option<u64>,
    }
    30 ListLanes
    /// Lists all lanes. Needs `inspect` on the directory. Reply: [`Reply::Listing`](crate::Reply::Listing).
    {
        /// The directory.
        directory: Handle,
        /// Begin after this one.
        after: Option<LaneId>,
    }
    31 Weaken
    /// Puts a weaker capability in the place of one's own, under the same handle. What was derived from it before stays with its
    /// holders, and is out of reach of a later revocation through this handle. Reply:
    /// [`Reply::Capability`](crate::Reply::Capability).
    {
        /// The capability; not the one that a queue, a device or a name stands on.
        handle: Handle,
        /// What is to be in its place.
        terms: Terms,
    }
    34 Doorbell
    /// Makes a doorbell between this session and the one at the other end of a lane: a pair of sockets on which each wakes the other,
    /// for all lanes between the two, in both directions. Reply: [`Reply::Doorbell`](crate::Reply::Doorbell) with one end beside it; the
    /// other end has gone to the other session before, with [`Event::Doorbell`](crate::Event::Doorbell). It lasts until the two share
    /// no lane any more, or one of them ends.
    {
        /// A lane that is open, of which the asker has an end.
        lane: LaneId,
    }
    40 AclAdd
    /// Adds an entry to an object's access list. Needs `control`. Reply: [`Reply::AclAdded`](crate::Reply::AclAdded).
    {
        /// The object: a queue, a region or a device.
        object: Handle,
        /// Whom it permits or denies what.
        entry: AclEntry,
    }
    41 AclRemove
    /// Removes an entry from an object's access list. Needs `control`. Reply: `Done`.
    {
        /// The object.
        object: Handle,
        /// The entry's number.
        number: u64,
    }
    42 AclList
    /// Lists an object's access list. Needs `control`. Reply: [`Reply::Listing`](crate::Reply::Listing).
    {
        /// The object.
        object: Handle,
        /// Begin after this entry.
        after: Option<u64>,
    }
    43 AclCheck
    /// Asks what one may do with a capability of one's own, its object's access list considered. Reply:
    /// [`Reply::Permitted`](crate::Reply::Permitted).
    {
        /// The capability.
        object: Handle,
    }
    44 WaitName
    /// Asks to be told when a name can be looked up. Needs `lookup`. Reply: `Done`; later, or at once,
    /// [`Event::NameAppeared`](crate::Event::NameAppeared), once.
    {
        /// The directory.
        directory: Handle,
        /// The name.
        name: Name,
    }
    45 ForgetName
    /// Asks not to be told of a name any more. Reply: `Done`, also if nobody was waiting.
    {
        /// The name.
        name: Name,
    }
    33 Freeze
    /// Gives up writing a region for good, so that it can be read as bytes that never change. The writer has unmapped it before.
    /// Reply: `Done`, with the memory (read-only) beside it.
    {
        /// The writer's mapping.
        mapping: MappingId,
    }
    32 ListAudit
    /// Lists what was granted, refused and taken back, oldest first. Needs `audit` on the directory. Reply:
    /// [`Reply::Listing`](crate::Reply::Listing).
    {
        /// The directory.
        directory: Handle,
        /// Begin after this record.
        after: Option<u64>,
    }
    50 Raise
    /// Raises a signal at a process. Needs `raise`. A standard signal that is pending there already merges with that one.
    /// Reply: `Done`; where Linux carries out the default action, once it has.
    {
        /// The process.
        process: Handle,
        /// The signal: 1 to 64.
        signal: i32,
        /// What the sender has to say; the process reads it with the signal.
        value: u64,
    }
    51 SetAction
    /// Chooses what is done about a signal. Ignoring one drops those that are pending. Reply: `Done`.
    {
        /// The signal: 1 to 64, but neither `KILL` nor `STOP`.
        signal: i32,
        /// What is to be done.
        action: SignalAction,
    }
    52 SetMask
    /// Changes which signals are held back. `KILL` and `STOP` never are, and asking for that does nothing. Reply:
    /// [`Reply::Signals`](crate::Reply::Signals), those that were held back before.
    {
        /// How.
        how: MaskChange,
        /// Which.
        set: SignalSet,
    }
    53 Pending
    /// Asks which signals are pending. Reply: [`Reply::Signals`](crate::Reply::Signals).
    {}
    54 TakeSignal
    /// Takes the first pending signal of a set: standard ones before real-time ones, lower numbers first, and those of one
    /// number in the order in which they were raised. Reply: [`Reply::Signal`](crate::Reply::Signal). From then on the
    /// next is told of by [`Event::SignalsPending`](crate::Event::SignalsPending).
    {
        /// Those that are wanted.
        set: SignalSet,
        /// Whether also those that are held back.
        taking: Taking,
    }
}
