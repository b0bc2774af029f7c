//! Capability-secured inter-process communication for Linux: the client library.
//!
//! A process can do only what a capability in its hand lets it do, and what it may do, it does at memory speed: messages
//! pass through shared memory of which every byte has one writer (but for regions that are made to have several), without the broker and without a system call unless one
//! side sleeps.
//!
//! ```
//! # #[cfg(feature = "embedded")]
//! # fn main() -> Result<(), keyway::Error> {
//! use keyway::{Client, Embedded, QueueOptions};
//!
//! let broker = Embedded::start()?; // or `Client::connect()` to one that runs
//! let client = Client::over(broker.connect()?)?;
//! let mut queue = client.create_queue(QueueOptions::default())?;
//! let capability = queue.sender_capability(None)?;
//! let mut sender = client.open_sender(&capability)?;
//! sender.send(b"hello")?;
//! assert_eq!(queue.receive()?.payload, b"hello");
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "embedded"))]
//! # fn main() {}
//! ```
//!
//! Large payloads go without a copy: [`Pool`] lends memory to be written, [`Sender::send_segments`] sends parts of it, and a
//! receiver has them as [`Segment`]s. Payloads that do not fit a lane's ring go through a pool by themselves.
//!
//! Never here: a decision of the kernel's, `unsafe`, a thread that the user did not start. It rests on `keyway-wire` for
//! the broker's frames, `keyway-shm` for lanes and `keyway-sys` for Linux.
//!
//! Floors, lowest first: `fault`; `error`, `waiting`; `control`; `alarm`, `capability`; `region`, `device`; `segment`, `pool`; `message`;
//! `sender`; `queue`;
//! `call`, `signals`; `client` (where users begin); `confined`, `bridge`.

#![forbid(unsafe_code)]

mod alarm;
mod bells;
#[cfg(feature = "gui")]
pub mod bridge;
mod broker_clock;
mod call;
mod capability;
mod client;
mod confined;
mod control;
mod device;
mod error;
mod fault;
mod message;
mod pool;
mod queue;
mod region;
mod segment;
mod sender;
mod signals;
mod typed;
mod waiting;

#[cfg(feature = "embedded")]
pub use keyway_broker::{Charge, Embedded, Limits, StartError};

pub use keyway_abi as abi;
pub use keyway_abi::{
    AclEntry, AclKind, Badge, DefaultActions, Denial, Handle, Kind, LaneId, QueueOrder, Rights, SigInfo,
    Signal, SignalAction, SignalSet, Subject, request::Audience,
};
pub use keyway_shm::{Acknowledged, Ending, OutOfView, Verdict};

#[cfg(fuzzing)]
#[doc(hidden)]
pub use crate::queue::fuzzed;
pub use crate::{
    call::Caller,
    capability::{Capability, Terms, Watch},
    client::{Client, SessionOptions},
    confined::{Confined, ConfinedChild},
    control::Notice,
    device::Depositor,
    error::Error,
    fault::SegmentFault,
    message::{Carried, Message, Outgoing, ReplyTo},
    pool::{Block, Part, Pool, PoolOptions, SharedBlock},
    queue::{Inbox, Incoming, Peeked, Peer, Queue, QueueOptions, Received, wait_any},
    region::{
        FrozenCopy, FrozenRegion, MapOptions, RegionCopy, RegionOptions, RegionReader, RegionWriter,
        SharedRegion,
    },
    segment::Segment,
    sender::{LargePayloads, Loan, Sender, SenderOptions},
    signals::Signals,
    typed::encode,
    waiting::WaitStyle,
};
