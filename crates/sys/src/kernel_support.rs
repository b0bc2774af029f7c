//! Whether this Linux has what Keyway needs, found out by trying, and what is missing by name.
//!
//! Version numbers are not looked at: distributions carry features back, sandboxes take them away.

use core::fmt;
use std::{collections::BTreeSet, os::fd::AsFd};

use rustix::{
    io::Errno,
    thread::{
        ClockId,
        futex::{self, WaitvFlags},
    },
};

use crate::{
    Error, memory, process,
    socket::{self, PairUse, RightsFilter},
};

/// A feature that Keyway cannot do without. Each is in Linux 6.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// `memfd_create` with `MFD_NOEXEC_SEAL`, of Linux 6.3.
    MemfdNoexecSeal,
    /// `F_SEAL_FUTURE_WRITE`, of Linux 5.1.
    SealFutureWrite,
    /// `futex_waitv`, of Linux 5.16.
    FutexWaitv,
    /// `pidfd_open`, of Linux 5.3.
    PidfdOpen,
    /// `SO_PEERPIDFD`, of Linux 6.5.
    SoPeerpidfd,
    /// `SO_PASSPIDFD`, of Linux 6.5.
    SoPasspidfd,
    /// /proc, by which memory is opened for reading.
    Proc,
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MemfdNoexecSeal => "memfd_create(MFD_NOEXEC_SEAL) of Linux 6.3",
            Self::SealFutureWrite => "F_SEAL_FUTURE_WRITE of Linux 5.1",
            Self::FutexWaitv => "futex_waitv of Linux 5.16",
            Self::PidfdOpen => "pidfd_open of Linux 5.3",
            Self::SoPeerpidfd => "SO_PEERPIDFD of Linux 6.5",
            Self::SoPasspidfd => "SO_PASSPIDFD of Linux 6.5",
            Self::Proc => "/proc/self/fd",
        })
    }
}

/// What Keyway uses where there is it, and does without where there is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Optional {
    /// Whether unwanted descriptors are refused (`SO_PASSRIGHTS`, Linux 6.16).
    pub rights_filter: RightsFilter,
    /// Whether pidfds have inode numbers of their own (pidfs, Linux 6.9).
    pub process_inodes: ProcessInodes,
}

/// What a process's key is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessInodes {
    /// The inode number of its pidfd.
    Unique,
    /// Its pid and the time of its start.
    Missing,
}

/// What this Linux lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The features, never none.
    pub features: BTreeSet<Feature>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this kernel lacks")?;
        for (index, feature) in self.features.iter().enumerate() {
            write!(f, "{} {feature}", if index == 0 { "" } else { "," })?;
        }
        f.write_str("; Linux 6.5 or newer has all that is needed")
    }
}

impl core::error::Error for Missing {}

/// Tries each feature, and tells which of the optional ones there are.
///
/// # Errors
/// The features that are missing.
pub fn check() -> Result<Optional, Missing> {
    let mut features = BTreeSet::new();
    let mut rights_filter = RightsFilter::Missing;
    let mut process_inodes = ProcessInodes::Missing;
    try_memory(&mut features);
    if futex::waitv(&[], WaitvFlags::empty(), None, ClockId::Monotonic) == Err(Errno::NOSYS) {
        features.insert(Feature::FutexWaitv);
    }
    match process::pidfd_open(std::process::id()) {
        Ok(pidfd) => {
            if process::is_on_pidfs(pidfd.as_fd()) == Ok(true) {
                process_inodes = ProcessInodes::Unique;
            }
        }
        Err(_) => _ = features.insert(Feature::PidfdOpen),
    }
    match socket::seqpacket_pair(PairUse::Session) {
        Ok(pair) => {
            rights_filter = pair.rights_filter;
            if socket::peer_pidfd(&pair.broker_end).is_err() {
                features.insert(Feature::SoPeerpidfd);
            }
        }
        Err(_) => _ = features.insert(Feature::SoPasspidfd),
    }
    if features.is_empty() {
        Ok(Optional { rights_filter, process_inodes })
    } else {
        Err(Missing { features })
    }
}

fn try_memory(features: &mut BTreeSet<Feature>) {
    let Ok(fd) = memory::create_memory("keyway-check", 1) else {
        features.insert(Feature::MemfdNoexecSeal);
        return;
    };
    if let Err(Error { errno: Errno::INVAL, .. }) = memory::seal(&fd, memory::SealUse::Lane) {
        features.insert(Feature::SealFutureWrite);
    }
    if memory::reopen_read_only(&fd).is_err() {
        features.insert(Feature::Proc);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_that_runs_the_tests_has_all() {
        check().unwrap();
    }

    #[test]
    fn missing_features_are_named() {
        let features = BTreeSet::from([Feature::SoPasspidfd, Feature::FutexWaitv]);
        let text = Missing { features }.to_string();
        assert!(
            text.starts_with("this kernel lacks futex_waitv of Linux 5.16, SO_PASSPIDFD of Linux 6.5;"),
            "{text}"
        );
    }
}
