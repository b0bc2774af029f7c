//! A lease of connectors: a descriptor by which a compositor drives them itself.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use keyway_gui::protocol::LeaseId;

/// A DRM lease: a descriptor on which mode setting works for the leased connectors, each with a CRTC and its planes, and for nothing else
/// of the card (`drm-kms(7)`). Linux ends it: all calls fail once the lease has been taken back. Dropping it closes the descriptor,
/// which ends the lease too; [`Bridge::end_lease`](super::Bridge::end_lease) also gives the screens back.
///
/// It limits no memory: what its holder allocates on the card, nobody counts.
#[derive(Debug)]
pub struct DisplayLease {
    id: LeaseId,
    fd: OwnedFd,
}

impl DisplayLease {
    pub(super) fn new(id: LeaseId, fd: OwnedFd) -> Self {
        DisplayLease { id, fd }
    }

    /// Its number.
    pub fn id(&self) -> LeaseId {
        self.id
    }
}

impl AsFd for DisplayLease {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<DisplayLease> for OwnedFd {
    fn from(lease: DisplayLease) -> OwnedFd {
        lease.fd
    }
}
