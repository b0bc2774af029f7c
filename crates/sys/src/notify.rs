//! What a service manager wants to hear, and the socket that it may hand over: `sd_notify(3)`, `sd_listen_fds(3)`.

use std::{
    env,
    ffi::OsStr,
    os::{
        fd::{OwnedFd, RawFd},
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

use rustix::{
    io::Errno,
    net::{SocketType, sockopt},
};

use crate::{Error, inherited};

/// Whether a service manager listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notified {
    /// It has been told.
    Told,
    /// None asked to be told: `$NOTIFY_SOCKET` is not set.
    NobodyAsked,
}

/// Tells the service manager a state, such as `READY=1`, `STOPPING=1` or `STATUS=...`, lines apart.
///
/// # Errors
/// Those of `sendto(2)`; `EINVAL` when `$NOTIFY_SOCKET` is neither a path nor an abstract name.
pub fn notify(state: &str) -> Result<Notified, Error> {
    match env::var_os("NOTIFY_SOCKET") {
        None => Ok(Notified::NobodyAsked),
        Some(name) => send_state(&name, state).map(|()| Notified::Told),
    }
}

/// Takes the seqpacket socket that the service manager listens on for this process, if it does. Connections are taken
/// from it by [`crate::socket::accept`], which does not block on it.
///
/// # Errors
/// `EINVAL` when it handed over more than one socket, `EPROTOTYPE` when that is not a listening seqpacket socket,
/// `EBADF` when it was taken before.
pub fn listen_fd() -> Result<Option<OwnedFd>, Error> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let count = number("LISTEN_FDS").unwrap_or(0);
    if number("LISTEN_PID") != Some(std::process::id()) || count == 0 {
        return Ok(None);
    }
    if count > 1 {
        return Err(Error { call: "sd_listen_fds", errno: Errno::INVAL });
    }
    let fd = inherited::take(LISTEN_FDS_START)?;
    let listens = sockopt::socket_acceptconn(&fd).map_err(Error::of("getsockopt(SO_ACCEPTCONN)"))?;
    let socket_type = sockopt::socket_type(&fd).map_err(Error::of("getsockopt(SO_TYPE)"))?;
    if !listens || socket_type != SocketType::SEQPACKET {
        return Err(Error { call: "sd_listen_fds", errno: Errno::PROTOTYPE });
    }
    rustix::io::ioctl_fionbio(&fd, true).map_err(Error::of("ioctl(FIONBIO)"))?;
    Ok(Some(fd))
}

fn send_state(name: &OsStr, state: &str) -> Result<(), Error> {
    let refused = |error: std::io::Error| Error::from_io("sendto($NOTIFY_SOCKET)", &error);
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => return Err(Error { call: "sendto($NOTIFY_SOCKET)", errno: Errno::INVAL }),
    };
    let socket = UnixDatagram::unbound().map_err(refused)?;
    // A name that fits no address has no errno of its own.
    let address = address.map_err(|_| Error { call: "sendto($NOTIFY_SOCKET)", errno: Errno::NAMETOOLONG })?;
    socket.send_to_addr(state.as_bytes(), &address).map_err(refused)?;
    Ok(())
}

/// The first descriptor that a service manager hands over.
const LISTEN_FDS_START: RawFd = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_arrives_by_path_and_by_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send_state(path.as_os_str(), "READY=1").unwrap();
        let mut buffer = [0; 64];
        assert_eq!(manager.recv(&mut buffer).unwrap(), 7);
        assert_eq!(&buffer[..7], b"READY=1");

        let name = format!("keyway-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        send_state(OsStr::new(&format!("@{name}")), "STOPPING=1").unwrap();
        assert_eq!(manager.recv(&mut buffer).unwrap(), 10);
        assert_eq!(&buffer[..10], b"STOPPING=1");
    }

    #[test]
    fn a_name_that_is_neither_path_nor_abstract_is_refused() {
        assert_eq!(send_state(OsStr::new("notify"), "READY=1").unwrap_err().errno, Errno::INVAL);
        let long = format!("/{}", "x".repeat(200));
        assert_eq!(send_state(OsStr::new(&long), "READY=1").unwrap_err().errno, Errno::NAMETOOLONG);
        assert_eq!(send_state(OsStr::new("/no/such"), "READY=1").unwrap_err().errno, Errno::NOENT);
    }
}
