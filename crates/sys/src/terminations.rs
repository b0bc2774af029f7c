//! The wish that this process ends, as something to read instead of a handler: `SIGTERM` and `SIGINT` by `signalfd(2)`.

use std::os::fd::{AsFd, BorrowedFd};

use crate::{Error, signalfd::SignalFd};

/// A descriptor that is readable once this process is asked to end.
#[derive(Debug)]
pub struct Terminations {
    signals: SignalFd,
}

/// One request to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Termination {
    /// `SIGTERM`: a service manager asks.
    Terminate,
    /// `SIGINT`: somebody at the keyboard asks.
    Interrupt,
}

impl Terminations {
    /// Blocks both signals in this thread and makes the descriptor: `pthread_sigmask(3)`, `signalfd(2)`.
    ///
    /// Call it before any other thread is started: they inherit the blocking, and a thread that does not block the
    /// signals ends the process. Programs started with `std::process::Command` begin with nothing blocked.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn block() -> Result<Self, Error> {
        SignalFd::block(&[libc::SIGTERM, libc::SIGINT]).map(|signals| Self { signals })
    }

    /// The next request, if there is one. Call again when the descriptor is readable.
    ///
    /// # Errors
    /// None that is known.
    pub fn take(&self) -> Result<Option<Termination>, Error> {
        let told =
            |number| if number == libc::SIGINT { Termination::Interrupt } else { Termination::Terminate };
        self.signals.take().map(|signal| signal.map(told))
    }
}

impl AsFd for Terminations {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_request_to_end_is_read_once() {
        let terminations = Terminations::block().unwrap();
        assert_eq!(terminations.take().unwrap(), None);
        let me = rustix::process::getpid().as_raw_nonzero().get();
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        // SAFETY: names no memory; the signal goes to this thread alone, which blocks it (check: above).
        unsafe { libc::syscall(libc::SYS_tgkill, me, thread, libc::SIGINT) };
        assert_eq!(terminations.take().unwrap(), Some(Termination::Interrupt));
        assert_eq!(terminations.take().unwrap(), None);
    }
}
