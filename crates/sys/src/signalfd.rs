//! Signals to this process as something to read instead of a handler: `pthread_sigmask(3)`, `signalfd(2)`.

use std::{
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

use rustix::io::Errno;

use crate::Error;

/// A descriptor that is readable once one of some signals has come, which this thread blocks.
#[derive(Debug)]
pub(crate) struct SignalFd {
    fd: OwnedFd,
}

impl SignalFd {
    /// Blocks these signals in this thread and makes the descriptor.
    pub(crate) fn block(signals: &[libc::c_int]) -> Result<Self, Error> {
        let set = set_of(signals);
        // SAFETY: the set is initialised (check: `set_of`), and the old mask is not asked for.
        let answer = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
        if answer != 0 {
            return Err(Error { call: "pthread_sigmask", errno: Errno::from_raw_os_error(answer) });
        }
        // SAFETY: the set is initialised (check: `set_of`).
        let number = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if number < 0 {
            return Err(Error::last("signalfd"));
        }
        // SAFETY: the kernel has just opened this descriptor for us, and nobody else knows it (check, above).
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(number) } })
    }

    /// The number of the next signal that has come, if there is one.
    pub(crate) fn take(&self) -> Result<Option<libc::c_int>, Error> {
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.fd, &mut info) {
            Ok(_) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(Error { call: "read(signalfd)", errno }),
        }
        // The number of the signal is the first field.
        Ok(Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]])))
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn set_of(signals: &[libc::c_int]) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is to a local of that type, and the call initialises all of it (`sigsetops(3)`).
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in signals {
        // SAFETY: the set is initialised (check: the line above).
        unsafe { libc::sigaddset(set.as_mut_ptr(), *signal) };
    }
    // SAFETY: as above.
    unsafe { set.assume_init() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_read_once_and_only_by_whom_it_is_for() {
        let hangups = SignalFd::block(&[libc::SIGHUP]).unwrap();
        let interrupts = SignalFd::block(&[libc::SIGINT]).unwrap();
        let me = rustix::process::getpid().as_raw_nonzero().get();
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        for (signal, told, other) in
            [(libc::SIGHUP, &hangups, &interrupts), (libc::SIGINT, &interrupts, &hangups)]
        {
            assert_eq!(told.take().unwrap(), None);
            // SAFETY: names no memory; the signal goes to this thread alone, which blocks it (check: above).
            unsafe { libc::syscall(libc::SYS_tgkill, me, thread, signal) };
            assert_eq!(other.take().unwrap(), None);
            assert_eq!(told.take().unwrap(), Some(signal));
            assert_eq!(told.take().unwrap(), None);
        }
    }
}
