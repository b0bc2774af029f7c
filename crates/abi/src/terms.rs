//! What a derived capability is to be: equal to its parent or weaker, in each respect.

use serde::{Deserialize, Serialize};

use crate::{handle::Badge, rights::Rights};

/// What a derived capability is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Terms {
    /// Its rights, a part of the parent's.
    pub rights: Rights,
    /// The badge to fix, if the parent has none. `None`: the parent's.
    pub badge: Option<Badge>,
    /// When it and all below it ends, in nanoseconds of the broker's `CLOCK_BOOTTIME`. `None`: with its parent.
    pub expires_ns: Option<u64>,
}

impl Terms {
    /// With these rights, and all else as its parent.
    pub const fn rights(rights: Rights) -> Self {
        Terms { rights, badge: None, expires_ns: None }
    }
}
