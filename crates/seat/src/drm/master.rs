//! Who is the master of a card: which of its open files may set modes.
//!
//! Linux has one master a card, and gives the role to open files: the bridge's own, on which its screens and leases
//! hang; one of each session that has opened the card; and one that shows nothing, which keeps everybody else from the role
//! while a session has the seat and not the card. To drop it stops everything that hangs on that file at once, its leases
//! included, and to set it again lets all of that go on (`DRM_IOCTL_DROP_MASTER`, `DRM_IOCTL_SET_MASTER` in `drm-kms(7)`).

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use drm::{
    ClientCapability, Device as _,
    control::{self, Device as _, RawResourceHandle},
};
use keyway_gui::ClientId;
use keyway_sys::device;

use super::{LEASE_FLAGS, card::Node};

/// What a session gets of a card that it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CardGrant {
    /// The master's own descriptor: everything of the card.
    #[default]
    Master,
    /// A lease of all that the card has for showing something. Nothing can be leased on, and nobody can be let in.
    Lease,
}

/// An open file of a card.
#[derive(Debug)]
pub(super) struct File(OwnedFd);

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl drm::Device for File {}
impl control::Device for File {}

/// Who is to be the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// Nobody, because Linux has refused somebody.
    Nobody,
    Own,
    Idle,
    Session(ClientId),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Masters {
    node: Node,
    sessions: BTreeMap<ClientId, File>,
    idle: Option<File>,
    master: Who,
}

impl Masters {
    /// At first it is the bridge's own file.
    pub(super) fn new(node: Node) -> Self {
        Masters { node, sessions: BTreeMap::new(), idle: None, master: Who::Own }
    }

    /// Whether the bridge's own file is the master.
    pub(super) fn is_own(&self) -> bool {
        self.master == Who::Own
    }

    /// Lets the bridge's own file be the master.
    pub(super) fn take_back(&mut self, own: BorrowedFd<'_>) -> io::Result<()> {
        self.become_master(own, Who::Own)
    }

    /// Lets a session's file be the master, where it has one.
    pub(super) fn hand_to(&mut self, own: BorrowedFd<'_>, client: ClientId) -> io::Result<()> {
        let who = if self.sessions.contains_key(&client) { Who::Session(client) } else { Who::Idle };
        self.become_master(own, who)
    }

    /// Opens the card for a session, which has the seat.
    pub(super) fn open(
        &mut self,
        own: BorrowedFd<'_>,
        client: ClientId,
        grant: CardGrant,
    ) -> io::Result<OwnedFd> {
        self.drop_master(own)?;
        // Opened while there is no master, it becomes it.
        let opened = self.open_file().and_then(|file| {
            let given = match grant {
                CardGrant::Master => file.0.try_clone()?,
                CardGrant::Lease => lease_all(&file)?,
            };
            Ok((file, given))
        });
        match opened {
            Ok((file, given)) => {
                self.sessions.insert(client, file);
                self.master = Who::Session(client);
                Ok(given)
            }
            Err(error) => {
                // That nobody else becomes it meanwhile; what was refused first is what is told.
                let _ = self.become_master(own, Who::Idle);
                Err(error)
            }
        }
    }

    /// Ends what a session has of the card. Whoever still has its descriptor can set nothing with it.
    pub(super) fn close(&mut self, own: BorrowedFd<'_>, client: ClientId) -> io::Result<()> {
        let was_master = self.master == Who::Session(client);
        let outcome = if was_master { self.become_master(own, Who::Idle) } else { Ok(()) };
        // Its leases end with the file, also while somebody has a copy of the lease.
        drop(self.sessions.remove(&client));
        outcome
    }

    fn become_master(&mut self, own: BorrowedFd<'_>, who: Who) -> io::Result<()> {
        if self.master == who {
            return Ok(());
        }
        self.drop_master(own)?;
        match who {
            Who::Own => drm_master(own)?,
            Who::Session(client) => {
                if let Some(file) = self.sessions.get(&client) {
                    drm_master(file.as_fd())?;
                }
            }
            Who::Idle if self.idle.is_some() => {
                if let Some(file) = &self.idle {
                    drm_master(file.as_fd())?;
                }
            }
            Who::Nobody => {}
            // As in `open`.
            Who::Idle => self.idle = Some(self.open_file()?),
        }
        self.master = who;
        Ok(())
    }

    fn drop_master(&mut self, own: BorrowedFd<'_>) -> io::Result<()> {
        let file = match self.master {
            Who::Nobody => None,
            Who::Own => Some(own),
            Who::Idle => self.idle.as_ref().map(AsFd::as_fd),
            Who::Session(client) => self.sessions.get(&client).map(AsFd::as_fd),
        };
        file.map_or(Ok(()), |file| Borrowed(file).release_master_lock())?;
        self.master = Who::Nobody;
        Ok(())
    }

    fn open_file(&self) -> io::Result<File> {
        let file = File(device::open(&self.node.path, self.node.number)?);
        file.acquire_master_lock()?;
        Ok(file)
    }
}

struct Borrowed<'fd>(BorrowedFd<'fd>);

impl AsFd for Borrowed<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0
    }
}

impl drm::Device for Borrowed<'_> {}

fn drm_master(file: BorrowedFd<'_>) -> io::Result<()> {
    Borrowed(file).acquire_master_lock()
}

/// A lease of every connector, CRTC and plane.
fn lease_all(file: &File) -> io::Result<OwnedFd> {
    // A driver without planes of its own lists none.
    let _ = file.set_client_capability(ClientCapability::UniversalPlanes, true);
    let resources = file.resource_handles()?;
    let mut objects: Vec<RawResourceHandle> = Vec::new();
    objects.extend(resources.connectors().iter().copied().map(RawResourceHandle::from));
    objects.extend(resources.crtcs().iter().copied().map(RawResourceHandle::from));
    objects.extend(file.plane_handles()?.into_iter().map(RawResourceHandle::from));
    Ok(file.create_lease(&objects, LEASE_FLAGS)?.1)
}
