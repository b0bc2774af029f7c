//! What a grant of the GPU is besides its figures: a render node, and what holds of each of its parts.
//!
//! Memory comes from two places. The buffers of surfaces are made by the bridge, which makes no more than was granted. What a process
//! allocates through a render node is between it and Linux.

use alloc::string::String;

use serde::{Deserialize, Serialize};

use super::{GpuCapability, listing::clipped};
use crate::limits::NAME_BYTES_MAX;

/// A grant of the GPU with a render node, whose descriptor goes with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuGrant {
    /// How much.
    pub capability: GpuCapability,
    /// What holds of the memory of surfaces.
    pub surfaces: GrantTerms,
    /// Which render node.
    pub node: RenderNode,
    /// What holds of the node, and of memory allocated through it.
    pub node_terms: GrantTerms,
}

/// A device that renders and shows nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderNode {
    /// As the kernel lists it, such as `renderD128`; at most `NAME_BYTES_MAX` bytes.
    pub name: String,
    /// The card that it belongs to, such as `card0`; at most `NAME_BYTES_MAX` bytes.
    pub card: String,
}

impl RenderNode {
    /// Cuts the names to their bound.
    #[must_use]
    pub fn into_bounded(self) -> Self {
        RenderNode { name: clipped(self.name, NAME_BYTES_MAX), card: clipped(self.card, NAME_BYTES_MAX) }
    }
}

/// What holds of a part of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantTerms {
    /// Who holds its holder to the memory that was granted.
    pub memory: Enforcer,
    /// Whether it ends with the grant.
    pub revocation: Revocation,
}

impl GrantTerms {
    /// Of surfaces: the bridge makes their buffers, and ends them.
    pub const SURFACES: GrantTerms =
        GrantTerms { memory: Enforcer::Bridge, revocation: Revocation::WithGrant };
    /// Of a render node. Linux has a limit for the memory of graphics cards (the `dmem` controller of cgroups), but what a process allocates
    /// through the node can be the machine's memory as well, which that does not limit.
    pub const RENDER_NODE: GrantTerms =
        GrantTerms { memory: Enforcer::Nobody, revocation: Revocation::Irrevocable };
}

/// Who holds a process to the memory that it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Enforcer {
    /// Linux: it allocates no more for the process. No grant says so as yet.
    Linux,
    /// The bridge: it makes the memory itself, and no more of it.
    Bridge,
    /// Nobody: the figure is advice.
    Nobody,
}

/// Whether something granted ends with its grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Revocation {
    /// It does.
    WithGrant,
    /// It does not: its holder has it for as long as it likes.
    Irrevocable,
}
