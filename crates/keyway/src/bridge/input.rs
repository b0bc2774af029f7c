//! An input device that the bridge has granted: a descriptor that speaks evdev.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use keyway_gui::protocol::DeviceId;
use keyway_sys::socket;

use super::BridgeError;

/// Bytes of `struct input_event` on 64-bit Linux.
const EVENT_BYTES: usize = 24;
/// Events that one read takes in.
const EVENTS_MAX: usize = 64;

/// An input device that the bridge has granted. Its descriptor is at its end once the grant is.
#[derive(Debug)]
pub struct InputDevice {
    id: DeviceId,
    is_exclusive: bool,
    file: File,
    has_ended: bool,
}

/// One event, as `input-event-codes.h` numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputEvent {
    /// `EV_SYN`, `EV_KEY`, `EV_REL`, `EV_ABS`.
    pub kind: u16,
    /// Which key or axis.
    pub code: u16,
    /// Its value: of a key 1 for down, 0 for up.
    pub value: i32,
}

impl InputEvent {
    const KEY: u16 = 1;

    /// Whether a key went down.
    pub fn is_key_press(&self) -> bool {
        self.kind == Self::KEY && self.value == 1
    }
}

impl InputDevice {
    pub(super) fn new(id: DeviceId, is_exclusive: bool, fd: OwnedFd) -> Self {
        InputDevice { id, is_exclusive, file: File::from(fd), has_ended: false }
    }

    /// Which device.
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// Whether nobody else was to read it.
    pub fn is_exclusive(&self) -> bool {
        self.is_exclusive
    }

    /// Whether the grant has ended.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// The events that have come; waits for some, but no longer than `timeout`. None when there are none, or when the
    /// grant has ended.
    ///
    /// # Errors
    /// What Linux answers to waiting.
    pub fn read_events(&mut self, timeout: Duration) -> Result<Vec<InputEvent>, BridgeError> {
        if self.has_ended || !socket::wait_readable(&self.file, Some(timeout)).map_err(crate::Error::from)? {
            return Ok(Vec::new());
        }
        let mut bytes = [0; EVENT_BYTES * EVENTS_MAX];
        let count = match self.file.read(&mut bytes) {
            // A signal came, or another reader of the descriptor was quicker.
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => 0,
            // A revoked evdev descriptor answers ENODEV; a virtual one is at its end.
            Ok(0) | Err(_) => {
                self.has_ended = true;
                0
            }
            Ok(count) => count,
        };
        let short = |bytes: &[u8], at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let event = |bytes: &[u8]| InputEvent {
            kind: short(bytes, 16),
            code: short(bytes, 18),
            value: i32::from_ne_bytes([bytes[20], bytes[21], bytes[22], bytes[23]]),
        };
        Ok(bytes[..count].chunks_exact(EVENT_BYTES).map(event).collect())
    }
}

impl AsFd for InputDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
