//! What a derived capability is to be: equal to its parent or weaker, in each respect.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{handle::Badge, rights::Rights};

/// How much can be opened through a capability and through all that derives from it. `None` is as its parent allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CapabilityLimits {
    /// Lanes, or mappings, that are open at a time, all together.
    pub opens: Option<u16>,
    /// Bytes of each lane's ring.
    pub ring_bytes: Option<u32>,
    /// The priority of each lane: 0 to [`PRIORITY_MAX`](crate::limits::PRIORITY_MAX).
    pub priority: Option<u8>,
}

impl CapabilityLimits {
    /// As the parent allows.
    pub const NONE: CapabilityLimits = CapabilityLimits { opens: None, ring_bytes: None, priority: None };
}

/// One of a capability's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CapabilityLimit {
    /// See [`CapabilityLimits::opens`].
    Opens,
    /// See [`CapabilityLimits::ring_bytes`].
    RingBytes,
    /// See [`CapabilityLimits::priority`].
    Priority,
}

impl fmt::Display for CapabilityLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CapabilityLimit::Opens => "lanes or mappings",
            CapabilityLimit::RingBytes => "bytes of a ring",
            CapabilityLimit::Priority => "levels of priority",
        })
    }
}

/// What a derived capability is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Terms {
    /// Its rights, a part of the parent's.
    pub rights: Rights,
    /// The badge to fix, if the parent has none. `None`: the parent's.
    pub badge: Option<Badge>,
    /// When it and all below it ends, in nanoseconds of the broker's `CLOCK_BOOTTIME`. `None`: with its parent.
    pub expires_ns: Option<u64>,
    /// How much can be opened through it, no more than through the parent.
    pub limits: CapabilityLimits,
}

impl Terms {
    /// With these rights, and all else as its parent.
    pub const fn rights(rights: Rights) -> Self {
        Terms { rights, badge: None, expires_ns: None, limits: CapabilityLimits::NONE }
    }
}
