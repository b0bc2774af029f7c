//! What one sleeps on who is rung: the doorbells of peers, the session's socket, and what others of this process tell.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Weak},
    time::Duration,
};

use keyway_abi::{LaneId, ProcessNumber};
use keyway_sys::{
    clock,
    epoll::{Epoll, Interest, Ready},
    timer::Timer,
};

use crate::{bells::Ear, control::Control, error::Error};

/// See the module.
#[derive(Debug)]
pub(crate) struct Alarm {
    control: Arc<Control>,
    epoll: Epoll,
    ear: Arc<Ear>,
    /// The doorbells that are watched.
    watched: BTreeMap<ProcessNumber, Weak<OwnedFd>>,
    ready: Vec<Ready>,
    /// For those who wait for somebody who cannot ring. Made when it is first needed.
    timer: Option<Timer>,
}

/// Tokens below this are not of peers.
const CONTROL: u64 = 0;
const EAR: u64 = 1;
const TIMER: u64 = 2;
const PEERS_FROM: u64 = 3;

impl Alarm {
    pub(crate) fn new(control: &Arc<Control>) -> Result<Self, Error> {
        let (epoll, ear) = (Epoll::new()?, Ear::new()?);
        epoll.add(control.socket(), CONTROL, Interest::Read)?;
        epoll.add(ear.event(), EAR, Interest::Read)?;
        control.routes().add_ear(&ear);
        let (watched, ready) = (BTreeMap::new(), Vec::new());
        Ok(Alarm { control: Arc::clone(control), epoll, ear, watched, ready, timer: None })
    }

    /// Where it is told what does not come by a doorbell.
    pub(crate) fn ear(&self) -> &Arc<Ear> {
        &self.ear
    }

    /// Sees to it that a ring of that peer for this lane is heard.
    pub(crate) fn listen(&mut self, lane: LaneId, peer: ProcessNumber) -> Result<(), Error> {
        let bell = self.control.bell_for(lane, peer)?;
        self.watch(peer, &bell.hears)?;
        self.control.bells.listen(lane, peer, &self.ear);
        Ok(())
    }

    /// Rings for this lane are for nobody.
    pub(crate) fn ignore(&self, lane: LaneId) {
        self.control.bells.ignore(lane, &self.ear);
    }

    fn watch(&mut self, peer: ProcessNumber, end: &Arc<OwnedFd>) -> Result<(), Error> {
        // A doorbell that was let go has left the set by itself.
        let is_watched = |watched: &Weak<OwnedFd>| {
            watched.strong_count() > 0 && std::ptr::eq(watched.as_ptr(), Arc::as_ptr(end))
        };
        if self.watched.get(&peer).is_some_and(is_watched) {
            return Ok(());
        }
        self.epoll.add(end, PEERS_FROM + peer.0, Interest::Read)?;
        self.watched.insert(peer, Arc::downgrade(end));
        Ok(())
    }

    /// Waits for rings and for what the broker has to tell, takes them, and answers which lanes rang.
    pub(crate) fn hear(&mut self, timeout: Duration) -> Result<Vec<LaneId>, Error> {
        self.epoll.wait(&mut self.ready, Some(timeout))?;
        for Ready { token, .. } in &self.ready {
            match *token {
                CONTROL => self.control.pump()?,
                EAR => {}
                TIMER => self.timer.as_ref().map_or(Ok(()), Timer::drain)?,
                peer => self.control.hear(ProcessNumber(peer - PEERS_FROM))?,
            }
        }
        self.ear.take()
    }

    /// There is something to hear after so long, whatever happens.
    pub(crate) fn look_after(&mut self, after: Duration) -> Result<(), Error> {
        let timer = if let Some(timer) = self.timer.take() {
            timer
        } else {
            let timer = Timer::new()?;
            self.epoll.add(&timer, TIMER, Interest::Read)?;
            timer
        };
        let after_ns = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        self.timer.insert(timer).set(Some(clock::boot_ns().saturating_add(after_ns)))?;
        Ok(())
    }

    /// A descriptor of its own that is readable when there is something to hear.
    pub(crate) fn descriptor(&self) -> Result<OwnedFd, Error> {
        let fd = self.epoll.as_fd().try_clone_to_owned();
        fd.map_err(|error| keyway_sys::Error::from_io("fcntl(F_DUPFD_CLOEXEC)", &error).into())
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.control.bells.forget(&self.ear);
    }
}
