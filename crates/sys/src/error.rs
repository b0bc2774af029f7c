//! What Linux answered when it refused a call: the call's name and its errno, never a string.
//!
//! The text names the errno in words and by its symbol, so that a log line can be looked up in the man page.

use core::fmt;

use rustix::io::Errno;

/// A call that Linux refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Error {
    /// The call's name as in its man page, with the option or flag that was asked for where there are many:
    /// `"getsockopt(SO_PEERPIDFD)"`.
    pub call: &'static str,
    /// Why it was refused.
    pub errno: Errno,
}

impl Error {
    /// The number of the errno, for a C interface and for [`std::io::Error::from_raw_os_error`].
    pub fn raw_os_error(&self) -> i32 {
        self.errno.raw_os_error()
    }

    /// Turns what `rustix` returned into an error of the call named: `.map_err(Error::of("fstat"))`.
    pub(crate) fn of(call: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self { call, errno }
    }

    /// The errno that a call through `libc` left behind. Only right after that call.
    pub(crate) fn last(call: &'static str) -> Self {
        Self::from_io(call, &std::io::Error::last_os_error())
    }

    /// An error of the standard library, whose errno is kept; one without an errno counts as `EIO`.
    /// What the standard library answered for this call; an error without an errno becomes `EIO`.
    pub fn from_io(call: &'static str, error: &std::io::Error) -> Self {
        Self { call, errno: Errno::from_io_error(error).unwrap_or(Errno::IO) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ERRNOS.iter().find(|(errno, ..)| *errno == self.errno) {
            Some((_, symbol, words)) => write!(f, "{}: {words} ({symbol})", self.call),
            None => write!(f, "{}: errno {}", self.call, self.raw_os_error()),
        }
    }
}

impl core::error::Error for Error {}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::from_raw_os_error(error.raw_os_error())
    }
}

/// The errnos that the calls of this crate give, with their symbol and what they say here.
const ERRNOS: &[(Errno, &str, &str)] = &[
    (Errno::PERM, "EPERM", "not permitted"),
    (Errno::NOENT, "ENOENT", "no such file"),
    (Errno::SRCH, "ESRCH", "no such process"),
    (Errno::INTR, "EINTR", "interrupted by a signal"),
    (Errno::IO, "EIO", "input or output failed"),
    (Errno::NXIO, "ENXIO", "no such device"),
    (Errno::BADF, "EBADF", "bad file descriptor"),
    (Errno::AGAIN, "EAGAIN", "would block"),
    (Errno::NOMEM, "ENOMEM", "out of memory"),
    (Errno::ACCESS, "EACCES", "access denied"),
    (Errno::FAULT, "EFAULT", "bad address"),
    (Errno::BUSY, "EBUSY", "in use"),
    (Errno::EXIST, "EEXIST", "exists already"),
    (Errno::NODEV, "ENODEV", "operation not supported by the device"),
    (Errno::NOTDIR, "ENOTDIR", "not a directory"),
    (Errno::ISDIR, "EISDIR", "a directory"),
    (Errno::INVAL, "EINVAL", "invalid argument"),
    (Errno::NFILE, "ENFILE", "no file descriptors left in the system"),
    (Errno::MFILE, "EMFILE", "no file descriptors left"),
    (Errno::FBIG, "EFBIG", "file too large"),
    (Errno::NOSPC, "ENOSPC", "no space left"),
    (Errno::ROFS, "EROFS", "read-only file system"),
    (Errno::PIPE, "EPIPE", "the other end is closed"),
    (Errno::NAMETOOLONG, "ENAMETOOLONG", "name too long"),
    (Errno::NOSYS, "ENOSYS", "not known to this kernel"),
    (Errno::LOOP, "ELOOP", "too many symbolic links"),
    (Errno::NODATA, "ENODATA", "no data"),
    (Errno::OVERFLOW, "EOVERFLOW", "value too large"),
    (Errno::NOTSOCK, "ENOTSOCK", "not a socket"),
    (Errno::MSGSIZE, "EMSGSIZE", "message too long"),
    (Errno::PROTOTYPE, "EPROTOTYPE", "socket of another type"),
    (Errno::NOPROTOOPT, "ENOPROTOOPT", "option not known to this kernel"),
    (Errno::OPNOTSUPP, "EOPNOTSUPP", "not supported"),
    (Errno::ADDRINUSE, "EADDRINUSE", "address in use"),
    (Errno::CONNRESET, "ECONNRESET", "connection reset"),
    (Errno::NOBUFS, "ENOBUFS", "no buffer space left"),
    (Errno::NOTCONN, "ENOTCONN", "not connected"),
    (Errno::TOOMANYREFS, "ETOOMANYREFS", "too many file descriptors in flight"),
    (Errno::TIMEDOUT, "ETIMEDOUT", "timed out"),
    (Errno::CONNREFUSED, "ECONNREFUSED", "connection refused"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_call_reason_and_symbol() {
        let error = Error { call: "memfd_create", errno: Errno::MFILE };
        assert_eq!(error.to_string(), "memfd_create: no file descriptors left (EMFILE)");
        assert_eq!(error.raw_os_error(), 24);
    }

    #[test]
    fn an_errno_without_words_is_given_by_number() {
        assert_eq!(Error { call: "mmap", errno: Errno::XDEV }.to_string(), "mmap: errno 18");
    }
}
