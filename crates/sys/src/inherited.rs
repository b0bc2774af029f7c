//! Descriptors that this process was started with, taken by number, each at most once.
//!
//! What shows that nobody in this process owns a number yet is that it stays open at `exec`: the standard library and
//! this crate open everything so that it is closed there. Taking one changes that, so that it cannot be taken again.

use std::{
    os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd},
    sync::{Mutex, PoisonError},
};

use rustix::io::{self, Errno, FdFlags};

use crate::Error;

/// Takes an inherited descriptor, which is then closed at `exec`: `F_GETFD` and `F_SETFD` in `fcntl(2)`.
///
/// # Errors
/// `EBADF` when nothing was inherited under this number, or it was taken before.
pub fn take(number: RawFd) -> Result<OwnedFd, Error> {
    static TAKING: Mutex<()> = Mutex::new(());
    let call = "fcntl(F_GETFD)";
    // Standard input, output and error belong to the standard library.
    if number <= 2 {
        return Err(Error { call, errno: Errno::BADF });
    }
    let _one_at_a_time = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the number is not -1 (check, above); it is only asked about until its flags show that it is open.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = io::fcntl_getfd(fd).map_err(Error::of(call))?;
    if flags.contains(FdFlags::CLOEXEC) {
        return Err(Error { call, errno: Errno::BADF });
    }
    io::fcntl_setfd(fd, flags | FdFlags::CLOEXEC).map_err(Error::of("fcntl(F_SETFD)"))?;
    // SAFETY:
    // 1. It is open (check: `fcntl_getfd`).
    // 2. Nothing in this process opened it (check: not `CLOEXEC`), and nobody took it before (check: the same, under
    //    the lock).
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, IntoRawFd};

    use super::*;

    #[test]
    fn an_inherited_descriptor_is_taken_once() {
        let (end, _other) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let number = end.into_raw_fd();
        assert_eq!(take(number).unwrap_err().errno, Errno::BADF, "opened here, not inherited");

        // SAFETY: `into_raw_fd` left it open.
        let end = unsafe { BorrowedFd::borrow_raw(number) };
        io::fcntl_setfd(end, FdFlags::empty()).unwrap();
        let taken = take(number).unwrap();
        assert_eq!(taken.as_raw_fd(), number);
        assert!(io::fcntl_getfd(&taken).unwrap().contains(FdFlags::CLOEXEC));
        assert_eq!(take(number).unwrap_err().errno, Errno::BADF, "taken before");
    }

    #[test]
    fn standard_and_closed_descriptors_are_not_inherited() {
        for number in [-1, 0, 2, 1 << 20] {
            assert_eq!(take(number).unwrap_err().errno, Errno::BADF);
        }
    }
}
