//! What a capability names, and what its holder may do with it.

use core::fmt;

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

/// The sort of object that a capability names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A bounded store of messages with one receiver.
    Queue,
    /// Shared memory.
    Region,
    /// A connected or starting process.
    Process,
    /// A descriptor that the broker keeps and hands to claimers.
    Device,
    /// The directory of service names.
    Directory,
    /// A published service name; dropping the capability withdraws the name.
    ServiceName,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Queue => "queue",
            Kind::Region => "region",
            Kind::Process => "process",
            Kind::Device => "device",
            Kind::Directory => "directory",
            Kind::ServiceName => "service-name",
        })
    }
}

bitflags! {
    /// A set of permitted verbs. A derived capability never has one that its parent lacks.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    pub struct Rights: u32 {
        /// Any kind: make equal or weaker capabilities from it.
        const DERIVE = 1 << 0;
        /// Any kind: give it to another process, by grant or in a message.
        const GRANT = 1 << 1;
        /// Queue: open a lane and send.
        const SEND = 1 << 2;
        /// Queue: receive and delete the queue. Bound to the process that made the queue.
        const RECEIVE = 1 << 3;
        /// Region: map for reading.
        const MAP = 1 << 4;
        /// Region: map for writing; the first process to do so is the region's writer and spends it, unless it was made to be
        /// written by several.
        const WRITE = 1 << 5;
        /// Process: be told when it ends.
        const WATCH = 1 << 6;
        /// Process: put capabilities into its table.
        const ENDOW = 1 << 7;
        /// Process (one's own): start confined children.
        const START = 1 << 8;
        /// Process (one's own): hand descriptors to the broker, as devices.
        const DEPOSIT = 1 << 9;
        /// Device: receive its descriptor.
        const CLAIM = 1 << 10;
        /// Directory: publish names.
        const PUBLISH = 1 << 11;
        /// Directory: look names up.
        const LOOKUP = 1 << 12;
        /// Directory: list all processes, capabilities and queues.
        const INSPECT = 1 << 13;
        /// Queue, region, device: change its access list.
        const CONTROL = 1 << 16;
        /// Directory: read the log of what was granted, refused and taken back.
        const AUDIT = 1 << 14;
        /// Process: raise signals at it.
        const RAISE = 1 << 15;
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (index, (name, _)) in self.iter_names().enumerate() {
            if index > 0 {
                f.write_str("+")?;
            }
            for character in name.chars() {
                write!(f, "{}", character.to_ascii_lowercase())?;
            }
        }
        Ok(())
    }
}
