//! The GPU as it was granted: figures, and perhaps a render node.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use keyway_gui::protocol::{GpuCapability, GpuGrant, GrantTerms, RenderNode};

/// The GPU as it was granted.
#[derive(Debug)]
pub struct Gpu {
    /// How much.
    pub capability: GpuCapability,
    /// What holds of the memory of surfaces: the bridge makes it, and no more than was granted.
    pub surfaces: GrantTerms,
    /// By which to render; none where the machine has none, or the bridge may not open it.
    pub node: Option<GpuNode>,
}

/// A render node: a descriptor by which buffers are made and drawn on, and nothing is shown. It stays with whoever has it, also when the
/// grant has ended.
#[derive(Debug)]
pub struct GpuNode {
    /// Which, and of which card.
    pub info: RenderNode,
    /// What holds of it, and of memory allocated through it.
    pub terms: GrantTerms,
    fd: OwnedFd,
}

impl Gpu {
    /// Without a render node.
    pub(super) fn of(capability: GpuCapability) -> Self {
        Gpu { capability, surfaces: GrantTerms::SURFACES, node: None }
    }

    pub(super) fn new(grant: GpuGrant, fd: OwnedFd) -> Self {
        let GpuGrant { capability, surfaces, node: info, node_terms: terms } = grant;
        Gpu { capability, surfaces, node: Some(GpuNode { info, terms, fd }) }
    }
}

impl AsFd for GpuNode {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<GpuNode> for OwnedFd {
    fn from(node: GpuNode) -> OwnedFd {
        node.fd
    }
}
