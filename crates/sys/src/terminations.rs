//! The wish that this process ends, as something to read instead of a handler: `SIGTERM` and `SIGINT` by `signalfd(2)`.

use std::{
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

use rustix::io::Errno;

use crate::Error;

/// A descriptor that is readable once this process is asked to end.
#[derive(Debug)]
pub struct Terminations {
    fd: OwnedFd,
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
        let set = both_signals();
        // SAFETY: the set is initialised (check: `both_signals`), and the old mask is not asked for.
        let answer = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
        if answer != 0 {
            return Err(Error { call: "pthread_sigmask", errno: Errno::from_raw_os_error(answer) });
        }
        // SAFETY: the set is initialised (check: `both_signals`).
        let number = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if number < 0 {
            return Err(Error::last("signalfd"));
        }
        // SAFETY: the kernel has just opened this descriptor for us, and nobody else knows it (check, above).
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(number) } })
    }

    /// The next request, if there is one. Call again when the descriptor is readable.
    ///
    /// # Errors
    /// None that is known.
    pub fn take(&self) -> Result<Option<Termination>, Error> {
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.fd, &mut info) {
            Ok(_) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(Error { call: "read(signalfd)", errno }),
        }
        // The number of the signal is the first field.
        let number = i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
        Ok(Some(if number == libc::SIGINT { Termination::Interrupt } else { Termination::Terminate }))
    }
}

impl AsFd for Terminations {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn both_signals() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is to a local of that type, and the call initialises all of it (`sigsetops(3)`).
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: the set is initialised (check: the line above).
        unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    }
    // SAFETY: as above.
    unsafe { set.assume_init() }
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
