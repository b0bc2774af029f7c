//! Device nodes: opened by number, not by name; input devices kept from others, and taken back.

use std::{
    fs::File, os::fd::AsFd, os::fd::OwnedFd, os::unix::fs::FileTypeExt, os::unix::fs::MetadataExt, path::Path,
};

use rustix::{
    fs::{self, Mode, OFlags, ResolveFlags},
    io::Errno,
    ioctl,
};

use crate::Error;

/// The number of a character device: `makedev(3)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceNumber {
    /// Which driver: 13 is input, 226 DRM.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
}

impl DeviceNumber {
    /// Reads what `/sys/class/*/*/dev` says: `13:64`.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once(':')?;
        Some(DeviceNumber { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }

    /// The number of the device that is open here, if it is a character device: `fstat(2)`.
    ///
    /// # Errors
    /// `ENODEV` for anything else.
    pub fn of(fd: impl AsFd) -> Result<Self, Error> {
        let fd = fd.as_fd().try_clone_to_owned().map_err(|_| Error { call: "dup", errno: Errno::MFILE })?;
        let stat = File::from(fd).metadata().map_err(|_| Error { call: "fstat", errno: Errno::BADF })?;
        if !stat.file_type().is_char_device() {
            return Err(Error { call: "fstat", errno: Errno::NODEV });
        }
        let number = stat.rdev();
        Ok(DeviceNumber { major: fs::major(number), minor: fs::minor(number) })
    }
}

/// The number of the device to which a path below `/dev` leads: `openat2(2)`, without opening the device. The path is walked in that one
/// file system, in which no user's own file system can make anybody wait, and through no link out of it.
///
/// # Errors
/// `ENOENT`, `EXDEV` for a path that leads elsewhere, `ENODEV` for what is no character device, and those of `openat2(2)`.
pub fn number_below_dev(path: &Path) -> Result<DeviceNumber, Error> {
    let below = path.strip_prefix("/dev").map_err(|_| Error { call: "openat2", errno: Errno::XDEV })?;
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dev = fs::open("/dev", directory, Mode::empty()).map_err(Error::of("open"))?;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let found = fs::openat2(dev, below, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), within);
    let stat = fs::fstat(found.map_err(Error::of("openat2"))?).map_err(Error::of("fstat"))?;
    if fs::FileType::from_raw_mode(stat.st_mode) != fs::FileType::CharacterDevice {
        return Err(Error { call: "fstat", errno: Errno::NODEV });
    }
    Ok(DeviceNumber { major: fs::major(stat.st_rdev), minor: fs::minor(stat.st_rdev) })
}

/// Opens a device for reading and writing, if the node is the device of this number: `open(2)` without following a symbolic link,
/// without waiting, and closed at `exec`.
///
/// # Errors
/// `ENODEV` when the node is another device or none, and those of `open(2)`.
pub fn open(path: &Path, number: DeviceNumber) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = fs::open(path, flags, Mode::empty()).map_err(Error::of("open"))?;
    match DeviceNumber::of(&fd)? {
        found if found == number => Ok(fd),
        _ => Err(Error { call: "open", errno: Errno::NODEV }),
    }
}

/// `EVIOCGRAB` of `linux/input.h`: `_IOW('E', 0x90, int)`.
const EVIOCGRAB: ioctl::Opcode = ioctl::opcode::write::<i32>(b'E', 0x90);

/// Has the events of an input device go to what was opened here and to nobody else, text consoles included, until it is closed, revoked,
/// or let go by whoever has it. `EVIOCGRAB` of the input subsystem.
///
/// # Errors
/// `EBUSY` when another has it so, `ENODEV` when the device is gone, `ENOTTY` for what is no input device.
pub fn grab_input(fd: impl AsFd) -> Result<(), Error> {
    // SAFETY:
    // 1. The opcode takes an integer, of which anything but 0 means to grab, and touches no memory of ours (check: `evdev_do_ioctl`
    //    of the input subsystem).
    let request = unsafe { ioctl::IntegerSetter::<EVIOCGRAB>::new_usize(1) };
    // SAFETY:
    // 1. As above: nothing is read or written but the state of the device.
    unsafe { ioctl::ioctl(fd, request) }.map_err(Error::of("ioctl(EVIOCGRAB)"))
}

/// `EVIOCREVOKE` of `linux/input.h`: `_IOW('E', 0x91, int)`.
const EVIOCREVOKE: ioctl::Opcode = ioctl::opcode::write::<i32>(b'E', 0x91);

/// Ends what was opened here for whoever has it, for good: all further reads fail with `ENODEV`. `EVIOCREVOKE` of the input
/// subsystem. Waits some milliseconds if a holder has grabbed the device.
///
/// # Errors
/// `ENODEV` when the device is gone, `ENOTTY` for what is no input device.
pub fn revoke_input(fd: impl AsFd) -> Result<(), Error> {
    // SAFETY:
    // 1. The opcode takes an integer, which must be 0, and touches no memory of ours (check: `evdev_do_ioctl` of the input
    //    subsystem, which refuses any other value).
    let request = unsafe { ioctl::IntegerSetter::<EVIOCREVOKE>::new_usize(0) };
    // SAFETY:
    // 1. As above: nothing is read or written but the state of the open file.
    unsafe { ioctl::ioctl(fd, request) }.map_err(Error::of("ioctl(EVIOCREVOKE)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NULL: DeviceNumber = DeviceNumber { major: 1, minor: 3 };

    #[test]
    fn a_node_is_opened_by_its_number() {
        assert_eq!(DeviceNumber::parse("1:3\n"), Some(NULL));
        let null = open(Path::new("/dev/null"), NULL).unwrap();
        assert_eq!(DeviceNumber::of(&null), Ok(NULL));
        for text in ["", "1", "1:", ":3", "a:b", "1:3:5"] {
            assert_eq!(DeviceNumber::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_another_device_or_none_or_a_link_is_not_opened() {
        let other = DeviceNumber { major: 1, minor: 5 };
        assert_eq!(open(Path::new("/dev/null"), other).unwrap_err().errno, Errno::NODEV);
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        std::fs::write(&file, "no device").unwrap();
        assert_eq!(open(&file, NULL).unwrap_err().errno, Errno::NODEV);
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        assert_eq!(open(&link, NULL).unwrap_err().errno, Errno::LOOP);
    }

    #[test]
    fn a_path_below_dev_leads_to_a_number_and_others_to_none() {
        let number = |path: &str| number_below_dev(Path::new(path)).map_err(|error| error.errno);
        assert_eq!(number("/dev/null"), Ok(NULL));
        assert_eq!(number("/dev/../dev/null"), Err(Errno::XDEV));
        assert_eq!(number("/dev/./null"), Ok(NULL));
        // Other file systems, also those that lie below it, and links out of it.
        for path in ["/etc/passwd", "dev/null", "", "/device/null", "/dev/fd/0", "/dev/shm/../null"] {
            assert_eq!(number(path), Err(Errno::XDEV), "{path}");
        }
        assert_eq!(number("/dev/shm"), Err(Errno::XDEV));
        assert_eq!(number("/dev/no such device"), Err(Errno::NOENT));
        assert!(number("/dev").is_err() && number("/dev/").is_err());
        assert!(number(&format!("/dev/{}", "x".repeat(5000))).is_err());
    }

    #[test]
    fn what_is_no_input_device_cannot_be_grabbed_or_taken_back() {
        let null = open(Path::new("/dev/null"), NULL).unwrap();
        assert_eq!(grab_input(&null).unwrap_err().errno, Errno::NOTTY);
        assert_eq!(revoke_input(&null).unwrap_err().errno, Errno::NOTTY);
    }
}
