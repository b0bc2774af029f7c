//! Who a process is, as Linux says. Nothing here is what a process says of itself.

use std::{
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
};

use keyway_kernel::Identity;
use keyway_sys::{Error, process, socket, socket::Credentials};

/// A process, named by the kernel of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) executable: String,
    pub(crate) key: (u64, u64),
}

impl Who {
    /// Who connected to, or made, this socket.
    pub(crate) fn of_peer(fd: impl AsFd) -> Result<(Who, OwnedFd), Error> {
        let pidfd = socket::peer_pidfd(&fd)?;
        let credentials = socket::peer_credentials(&fd)?;
        let groups = socket::peer_groups(&fd)?;
        Ok((Who::with(credentials, groups, &pidfd)?, pidfd))
    }

    /// The process of a pidfd, whose credentials came with it.
    pub(crate) fn of(credentials: Credentials, pidfd: &OwnedFd) -> Result<Who, Error> {
        // Without its groups nobody could say which rules deny it something.
        Who::with(credentials, process::groups(pidfd)?, pidfd)
    }

    fn with(credentials: Credentials, groups: Vec<u32>, pidfd: &OwnedFd) -> Result<Who, Error> {
        let key = process::process_key(pidfd)?;
        // A path that cannot be read (another user's process, without the right to trace it) is no reason to refuse.
        let executable = process::executable(pidfd).ok().flatten();
        let executable = executable.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        let Credentials { pid, uid, gid } = credentials;
        Ok(Who { pid, uid, gid, groups, executable, key: (key.0, key.1) })
    }
}

impl From<Who> for Identity {
    fn from(who: Who) -> Identity {
        let Who { pid, uid, gid, groups, executable, key } = who;
        Identity { pid, uid, gid, groups, executable, account: key }
    }
}

/// The effective user of this process.
pub(crate) fn own_uid() -> u32 {
    // The owner of one's own directory in /proc; there is no call for it in the standard library.
    fs::metadata("/proc/self").map_or(u32::MAX, |metadata| metadata.uid())
}
