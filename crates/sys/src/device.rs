//! Device nodes: opened by number, not by name, and input devices taken back.

use std::{
    fs::File, os::fd::AsFd, os::fd::OwnedFd, os::unix::fs::FileTypeExt, os::unix::fs::MetadataExt, path::Path,
};

use rustix::{
    fs::{self, Mode, OFlags},
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
    fn what_is_no_input_device_cannot_be_taken_back() {
        let null = open(Path::new("/dev/null"), NULL).unwrap();
        assert_eq!(revoke_input(&null).unwrap_err().errno, Errno::NOTTY);
    }
}
