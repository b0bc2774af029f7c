//! What the kernel tells of devices that come and go: `NETLINK_KOBJECT_UEVENT`, `netlink(7)`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    io::Errno,
    net::{
        self, AddressFamily, RecvFlags, SocketAddrAny, SocketFlags, SocketType,
        netlink::{self, SocketAddrNetlink},
    },
};

use crate::Error;

/// The kernel's notices, from when it was opened.
#[derive(Debug)]
pub struct Uevents {
    socket: OwnedFd,
}

/// The group in which the kernel speaks; udev uses another.
const KERNEL_GROUP: u32 = 1;
/// LIMIT: `UEVENT_BUFFER_SIZE` of the kernel, and its header.
const NOTICE_BYTES_MAX: usize = 8192;

/// One notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uevent {
    fields: Vec<String>,
}

impl Uevent {
    /// Reads the bytes of a notice: `ACTION@PATH`, then fields `KEY=VALUE`, each ended by a zero byte. What is not text is left out.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut parts = bytes.split(|byte| *byte == 0);
        let head = std::str::from_utf8(parts.next()?).ok()?;
        head.split_once('@')?;
        let fields = parts.filter_map(|part| std::str::from_utf8(part).ok());
        Some(Uevent { fields: fields.filter(|field| !field.is_empty()).map(str::to_owned).collect() })
    }

    /// What is said under this key: `ACTION`, `SUBSYSTEM`, `DEVNAME`, `DEVPATH`, `HOTPLUG`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.fields.iter().find_map(|field| field.strip_prefix(key)?.strip_prefix('='))
    }
}

/// What came of a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A notice.
    Uevent(Uevent),
    /// Nothing more for now.
    Nothing,
    /// Some were lost, because nobody took them in time: look at the devices themselves.
    Lost,
}

impl Uevents {
    /// Begins to listen.
    ///
    /// # Errors
    /// `EPERM` in a network namespace without the kernel's notices, `EMFILE`.
    pub fn open() -> Result<Self, Error> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Some(netlink::KOBJECT_UEVENT);
        let socket = net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, protocol)
            .map_err(Error::of("socket(NETLINK_KOBJECT_UEVENT)"))?;
        net::bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP)).map_err(Error::of("bind"))?;
        Ok(Uevents { socket })
    }

    /// The next notice, without waiting. What another process sends is passed over.
    ///
    /// # Errors
    /// None that is known.
    pub fn hear(&self) -> Result<Heard, Error> {
        let mut buffer = [0; NOTICE_BYTES_MAX];
        // LIMIT: each round takes a datagram; other processes need to be root to send any.
        loop {
            let (length, _, from) = match net::recvfrom(&self.socket, &mut buffer, RecvFlags::DONTWAIT) {
                Ok(received) => received,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(Heard::Nothing),
                Err(Errno::NOBUFS) => return Ok(Heard::Lost),
                Err(errno) => return Err(Error { call: "recvfrom(NETLINK_KOBJECT_UEVENT)", errno }),
            };
            if is_kernel(from)
                && let Some(uevent) = Uevent::parse(&buffer[..length])
            {
                return Ok(Heard::Uevent(uevent));
            }
        }
    }
}

/// The kernel is port 0.
fn is_kernel(from: Option<SocketAddrAny>) -> bool {
    let from = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
    from.is_some_and(|from| from.pid() == 0)
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_read_field_by_field() {
        let bytes = b"add@/devices/x\0ACTION=add\0SUBSYSTEM=input\0DEVNAME=input/event3\0\0";
        let uevent = Uevent::parse(bytes).unwrap();
        assert_eq!(uevent.get("ACTION"), Some("add"));
        assert_eq!(uevent.get("DEVNAME"), Some("input/event3"));
        assert_eq!(uevent.get("DEV"), None, "a key is whole");
        assert_eq!(uevent.get("HOTPLUG"), None);
    }

    #[test]
    fn what_is_no_notice_is_none() {
        for bytes in [&b""[..], b"libudev\0\xfe\xed", b"\xff\xff@/x\0ACTION=add"] {
            assert_eq!(Uevent::parse(bytes), None);
        }
        assert!(Uevent::parse(b"add@/x\0\xff=1\0A=b").unwrap().get("A").is_some());
    }

    #[test]
    fn who_listens_hears_nothing_at_first() {
        let uevents = Uevents::open().unwrap();
        assert!(matches!(uevents.hear().unwrap(), Heard::Nothing | Heard::Uevent(_)));
    }
}
