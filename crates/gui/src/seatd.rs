//! The bytes of the seatd protocol, as `libseat` speaks it: from a client to the seat and back.
//!
//! A message is a header of two numbers of 16 bits in the machine's own order, opcode and bytes of the body, and the body.
//! Bytes that a client sent become a [`Request`] here or are [`Malformed`]; [`decode`] is total, looks at no more than one
//! message, allocates nothing, and knows a wrong header before its body has come. What they mean is the machine's affair.
//!
//! ```text
//!  request             body                              answer                  body
//!  1 open seat         -                                 8001 seat opened        u16 bytes; name with NUL
//!  2 close seat        -                                 8002 seat closed        -
//!  3 open device       u16 bytes; path with NUL          8003 device opened      i32 number; one descriptor beside it
//!  4 close device      i32 number                        8004 device closed      -
//!  5 disable seat      -   (says that it has paused)     8009 seat disabled      -
//!  6 switch session    i32 number                        8008 session switched   -
//!  7 ping              -                                 8007 pong               -
//!                                                        ffff error              i32 errno
//!  events: 8005 disable seat, 8006 enable seat
//! ```

use alloc::vec::Vec;

use thiserror::Error;

/// Bytes of the longest path, with its NUL.
pub const PATH_BYTES_MAX: usize = 256;
/// Bytes of the longest request.
pub const REQUEST_BYTES_MAX: usize = HEADER_BYTES + LENGTH_BYTES + PATH_BYTES_MAX;
/// The name of the seat: there is no other.
pub const SEAT: &str = "seat0";

const HEADER_BYTES: usize = 4;
const LENGTH_BYTES: usize = 2;
const NUMBER_BYTES: usize = 4;

/// From a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'bytes> {
    /// To have a session.
    OpenSeat,
    /// To have it no longer.
    CloseSeat,
    /// A descriptor of the device of which this is a path: not empty, without a NUL.
    OpenDevice(&'bytes [u8]),
    /// The end of an opening.
    CloseDevice(i32),
    /// It has paused.
    DisableSeat,
    /// To let another session have the seat.
    SwitchSession(i32),
    /// To be answered.
    Ping,
}

/// Bytes that are no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// No request has this number.
    #[error("opcode {opcode} is no request")]
    UnknownOpcode {
        /// Which number.
        opcode: u16,
    },
    /// The body is not as long as that of this request.
    #[error("the body of opcode {opcode} has {bytes} bytes, and should have {bytes_expected}")]
    WrongSize {
        /// Which request.
        opcode: u16,
        /// What the header says.
        bytes: usize,
        /// What it should say.
        bytes_expected: usize,
    },
    /// A path above the limit, or none.
    #[error("a path of {bytes} bytes, from 2 to {bytes_max} are allowed")]
    PathLength {
        /// Its bytes, with the NUL.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The path does not end with its only NUL.
    #[error("a path does not end with its only NUL")]
    PathUnterminated,
}

/// The first request in what a client has sent, and how many bytes it takes; none as long as it is not whole.
///
/// # Errors
/// [`Malformed`], as soon as no further byte could make it a request.
pub fn decode(bytes: &[u8]) -> Result<Option<(Request<'_>, usize)>, Malformed> {
    let Some((opcode, rest)) = u16_at(bytes) else { return Ok(None) };
    let Some((size, body)) = u16_at(rest) else { return Ok(None) };
    let size = usize::from(size);
    if opcode == OPEN_DEVICE {
        return decode_open_device(size, body);
    }
    let bytes_expected = match opcode {
        OPEN_SEAT | CLOSE_SEAT | DISABLE_SEAT | PING => 0,
        CLOSE_DEVICE | SWITCH_SESSION => NUMBER_BYTES,
        _ => return Err(Malformed::UnknownOpcode { opcode }),
    };
    if size != bytes_expected {
        return Err(Malformed::WrongSize { opcode, bytes: size, bytes_expected });
    }
    let number = body.first_chunk::<NUMBER_BYTES>().map(|bytes| i32::from_ne_bytes(*bytes));
    let request = match (opcode, number) {
        (OPEN_SEAT, _) => Request::OpenSeat,
        (CLOSE_SEAT, _) => Request::CloseSeat,
        (DISABLE_SEAT, _) => Request::DisableSeat,
        (CLOSE_DEVICE, Some(number)) => Request::CloseDevice(number),
        (SWITCH_SESSION, Some(number)) => Request::SwitchSession(number),
        (CLOSE_DEVICE | SWITCH_SESSION, None) => return Ok(None),
        _ => Request::Ping,
    };
    Ok(Some((request, HEADER_BYTES + size)))
}

fn decode_open_device(size: usize, body: &[u8]) -> Result<Option<(Request<'_>, usize)>, Malformed> {
    let whole = LENGTH_BYTES + PATH_BYTES_MAX;
    if size > whole {
        return Err(Malformed::PathLength { bytes: size - LENGTH_BYTES, bytes_max: PATH_BYTES_MAX });
    }
    if size < LENGTH_BYTES {
        let bytes_expected = LENGTH_BYTES;
        return Err(Malformed::WrongSize { opcode: OPEN_DEVICE, bytes: size, bytes_expected });
    }
    let Some((length, rest)) = u16_at(body) else { return Ok(None) };
    let length = usize::from(length);
    if size != LENGTH_BYTES + length {
        let bytes_expected = LENGTH_BYTES + length;
        return Err(Malformed::WrongSize { opcode: OPEN_DEVICE, bytes: size, bytes_expected });
    }
    // A NUL alone is no path.
    if length < 2 {
        return Err(Malformed::PathLength { bytes: length, bytes_max: PATH_BYTES_MAX });
    }
    let Some(path) = rest.get(..length) else { return Ok(None) };
    match path.split_last() {
        Some((0, path)) if !path.contains(&0) => Ok(Some((Request::OpenDevice(path), HEADER_BYTES + size))),
        _ => Err(Malformed::PathUnterminated),
    }
}

/// To a client. Which of them carries a descriptor: [`Message::DeviceOpened`], and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// It has a session.
    SeatOpened,
    /// It has none.
    SeatClosed,
    /// A device is open under this number.
    DeviceOpened(i32),
    /// That opening has ended.
    DeviceClosed,
    /// Its pause is known.
    SeatDisabled,
    /// The other session follows.
    SessionSwitched,
    /// The answer to a ping.
    Pong,
    /// The request is refused, for this reason of `errno(3)`.
    Error(i32),
    /// It is to pause.
    DisableSeat,
    /// It has the seat.
    EnableSeat,
}

impl Message {
    /// Its bytes.
    pub fn encode(self) -> Vec<u8> {
        let (opcode, body) = match self {
            Message::SeatOpened => {
                let name = [SEAT.as_bytes(), &[0]].concat();
                (0x8001, [&(name.len() as u16).to_ne_bytes(), name.as_slice()].concat())
            }
            Message::SeatClosed => (0x8002, Vec::new()),
            Message::DeviceOpened(number) => (0x8003, number.to_ne_bytes().to_vec()),
            Message::DeviceClosed => (0x8004, Vec::new()),
            Message::DisableSeat => (0x8005, Vec::new()),
            Message::EnableSeat => (0x8006, Vec::new()),
            Message::Pong => (0x8007, Vec::new()),
            Message::SessionSwitched => (0x8008, Vec::new()),
            Message::SeatDisabled => (0x8009, Vec::new()),
            Message::Error(errno) => (0xffff_u16, errno.to_ne_bytes().to_vec()),
        };
        let size = body.len() as u16;
        [&opcode.to_ne_bytes(), &size.to_ne_bytes(), body.as_slice()].concat()
    }
}

fn u16_at(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_ne_bytes(*number), rest))
}

const OPEN_SEAT: u16 = 1;
const CLOSE_SEAT: u16 = 2;
const OPEN_DEVICE: u16 = 3;
const CLOSE_DEVICE: u16 = 4;
const DISABLE_SEAT: u16 = 5;
const SWITCH_SESSION: u16 = 6;
const PING: u16 = 7;

#[cfg(test)]
mod tests;
