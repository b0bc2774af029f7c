//! The wish that this process reads its configuration again: `SIGHUP`.

use std::os::fd::{AsFd, BorrowedFd};

use crate::{Error, signalfd::SignalFd};

/// A descriptor that is readable once this process is asked to read its configuration again.
#[derive(Debug)]
pub struct Reloads {
    signals: SignalFd,
}

impl Reloads {
    /// Blocks `SIGHUP` in this thread and makes the descriptor: `pthread_sigmask(3)`, `signalfd(2)`.
    ///
    /// Call it before any other thread is started, as [`Terminations::block`](crate::terminations::Terminations::block).
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn block() -> Result<Self, Error> {
        SignalFd::block(&[libc::SIGHUP]).map(|signals| Self { signals })
    }

    /// Whether it was asked for since this was called last.
    ///
    /// # Errors
    /// None that is known.
    pub fn take(&self) -> Result<bool, Error> {
        self.signals.take().map(|signal| signal.is_some())
    }
}

impl AsFd for Reloads {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}
