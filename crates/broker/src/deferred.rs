//! A descriptor that may block whoever closes it: its last holder hands it to the loop, which has it closed apart.
//!
//! What came from a process can block (a socket that lingers, a file of a slow file system), and so can a socket in which
//! such descriptors wait unread. Frames on their way and other threads hold them too, so that nobody knows beforehand whose
//! hold is the last.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, OnceLock,
        mpsc::{self, Receiver, Sender},
    },
};

use keyway_sys::epoll::EventFd;

use crate::closing::Closing;

/// See the module.
#[derive(Debug)]
pub(crate) struct Deferred {
    /// There until it is dropped.
    fd: Option<OwnedFd>,
    /// Whose closer closes it.
    uid: u32,
    closing: OnceLock<Closing>,
    to: Sender<Dropped>,
    bell: Arc<EventFd>,
}

/// A descriptor that nobody holds any more.
#[derive(Debug)]
pub(crate) struct Dropped {
    pub(crate) fd: OwnedFd,
    pub(crate) uid: u32,
    pub(crate) closing: Closing,
}

/// Where such descriptors arrive.
#[derive(Debug)]
pub(crate) struct Deferrals {
    dropped: Receiver<Dropped>,
    to: Sender<Dropped>,
    bell: Arc<EventFd>,
}

impl Deferrals {
    /// `bell` is rung each time that one has arrived.
    pub(crate) fn new(bell: Arc<EventFd>) -> Self {
        let (to, dropped) = mpsc::channel();
        Deferrals { dropped, to, bell }
    }

    /// A descriptor that a process of this user sent, or can send others to.
    pub(crate) fn defer(&self, fd: OwnedFd, uid: u32) -> Arc<Deferred> {
        let (to, bell) = (self.to.clone(), Arc::clone(&self.bell));
        Arc::new(Deferred { fd: Some(fd), uid, closing: OnceLock::new(), to, bell })
    }

    /// The next one that is to be closed.
    pub(crate) fn poll_dropped(&self) -> Option<Dropped> {
        self.dropped.try_recv().ok()
    }
}

impl Deferred {
    /// Who is to know that it is closed. Said once, before its last holder drops it.
    pub(crate) fn tell(&self, closing: Closing) {
        let _ = self.closing.set(closing);
    }
}

impl AsFd for Deferred {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // INVARIANT: only `drop` takes it.
        self.fd.as_ref().expect("it is there until it is dropped").as_fd()
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        let Some(fd) = self.fd.take() else { return };
        let closing = self.closing.get().copied().unwrap_or_default();
        // It fails when the loop has ended: then nobody is kept waiting here.
        let _ = self.to.send(Dropped { fd, uid: self.uid, closing });
        let _ = self.bell.ring();
    }
}
