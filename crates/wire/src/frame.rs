//! One frame: header and body, written and judged.
//!
//! # Invariants
//! 1. A frame that this file wrote, it reads back as the same value.
//! 2. No bytes make it panic, and no frame decodes to two different values.

use alloc::vec::Vec;

use keyway_abi::{
    Event, Malformed, PROTOCOL_VERSION, Reply, Request, for_each_request,
    limits::{FRAME_BYTES_MAX, FRAME_DESCRIPTORS_MAX, FRAME_HEADER_BYTES},
    request,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Set in the opcode of a reply.
pub const REPLY_BIT: u16 = 0x8000;
/// The opcode of an event.
pub const EVENT_OPCODE: u16 = 0x4000;

/// A value whose frame would be longer than [`FRAME_BYTES_MAX`]. Only replies that list things could be; the kernel
/// bounds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a frame of {bytes} bytes is longer than {bytes_max}")]
pub struct FrameTooLong {
    /// Bytes that it would have.
    pub bytes: usize,
    /// Bytes that a frame can have.
    pub bytes_max: usize,
}

/// What a broker needs of a request besides the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The number that the reply will carry.
    pub number: u32,
    /// The operation's opcode.
    pub opcode: u16,
    /// Descriptors that the sender says are beside the frame. Checked against those that came.
    pub descriptors: u16,
}

/// What a process receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The reply to the request with this number.
    Reply(u32, Reply),
    /// An event.
    Event(Event),
}

/// Writes a request.
///
/// # Errors
/// Never in practice: no request is as long as a frame.
pub fn encode_request(number: u32, request: &Request, descriptors: u16) -> Result<Vec<u8>, FrameTooLong> {
    macro_rules! body {
        ($($opcode:literal $name:ident,)*) => {
            match request { $( Request::$name(body) => encode(request.opcode(), number, descriptors, body) ),* }
        };
    }
    for_each_request!(body)
}

/// Writes a reply to the request `number` of the operation `opcode`.
///
/// # Errors
/// [`FrameTooLong`] when a listing was not bounded.
pub fn encode_reply(
    opcode: u16,
    number: u32,
    reply: &Reply,
    descriptors: u16,
) -> Result<Vec<u8>, FrameTooLong> {
    encode(opcode | REPLY_BIT, number, descriptors, reply)
}

/// Writes an event.
///
/// # Errors
/// Never in practice: no event is as long as a frame.
pub fn encode_event(event: &Event, descriptors: u16) -> Result<Vec<u8>, FrameTooLong> {
    encode(EVENT_OPCODE, 0, descriptors, event)
}

/// Judges bytes that a process sent, with `descriptors` that came beside them.
///
/// # Errors
/// [`Malformed`], which ends the session.
pub fn decode_request(bytes: &[u8], descriptors: usize) -> Result<(RequestHead, Request), Malformed> {
    let (header, body) = split(bytes, descriptors)?;
    let opcode = header.opcode;
    macro_rules! operation {
        ($($number:literal $name:ident,)*) => {
            match opcode {
                $( request::$name::OPCODE => Request::$name(decode(opcode, body)?), )*
                _ => return Err(Malformed::UnknownOpcode { opcode }),
            }
        };
    }
    let request = for_each_request!(operation);
    Ok((RequestHead { number: header.number, opcode, descriptors: header.descriptors }, request))
}

/// Judges bytes that the broker sent, with `descriptors` that came beside them.
///
/// # Errors
/// [`Malformed`]: the peer is no broker of this version.
pub fn decode_incoming(bytes: &[u8], descriptors: usize) -> Result<Incoming, Malformed> {
    let (header, body) = split(bytes, descriptors)?;
    match header.opcode {
        EVENT_OPCODE => Ok(Incoming::Event(decode(header.opcode, body)?)),
        opcode if opcode & REPLY_BIT != 0 => Ok(Incoming::Reply(header.number, decode(opcode, body)?)),
        opcode => Err(Malformed::UnknownOpcode { opcode }),
    }
}

/// How many descriptors a frame says that it has beside it; 0 for what is too short to say.
pub fn descriptors_said(bytes: &[u8]) -> usize {
    bytes.get(4..6).map_or(0, |said| usize::from(u16::from_le_bytes([said[0], said[1]])))
}

struct Header {
    opcode: u16,
    descriptors: u16,
    number: u32,
}

fn encode<T: Serialize>(
    opcode: u16,
    number: u32,
    descriptors: u16,
    body: &T,
) -> Result<Vec<u8>, FrameTooLong> {
    let mut frame = Vec::with_capacity(128);
    frame.extend_from_slice(&PROTOCOL_VERSION.to_le_bytes());
    frame.extend_from_slice(&opcode.to_le_bytes());
    frame.extend_from_slice(&descriptors.to_le_bytes());
    frame.extend_from_slice(&0u16.to_le_bytes());
    frame.extend_from_slice(&number.to_le_bytes());
    frame.extend_from_slice(&0u32.to_le_bytes());
    // INVARIANT: serialising plain data into a vector has no way to fail.
    let mut frame = postcard::to_extend(body, frame).expect("plain data serialises");
    let bytes = frame.len();
    if bytes > FRAME_BYTES_MAX {
        return Err(FrameTooLong { bytes, bytes_max: FRAME_BYTES_MAX });
    }
    let body_bytes = (bytes - FRAME_HEADER_BYTES) as u32;
    frame[12..16].copy_from_slice(&body_bytes.to_le_bytes());
    Ok(frame)
}

fn split(bytes: &[u8], descriptors_found: usize) -> Result<(Header, &[u8]), Malformed> {
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(Malformed::TooLong { bytes_max: FRAME_BYTES_MAX as u32 });
    }
    let Some((head, body)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() else {
        return Err(Malformed::TooShort { bytes: bytes.len() as u32, bytes_min: FRAME_HEADER_BYTES as u32 });
    };
    let short = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let long = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if short(0) != PROTOCOL_VERSION {
        return Err(Malformed::UnknownVersion { found: short(0), spoken: PROTOCOL_VERSION });
    }
    if short(6) != 0 {
        return Err(Malformed::ReservedUsed { found: short(6) });
    }
    if long(12) as usize != body.len() {
        return Err(Malformed::LengthWrong { said: long(12), found: body.len() as u32 });
    }
    let said = short(4);
    let found = descriptors_found.min(usize::from(u16::MAX)) as u16;
    if usize::from(said) > FRAME_DESCRIPTORS_MAX || said != found {
        return Err(Malformed::DescriptorsWrong { said, found });
    }
    Ok((Header { opcode: short(2), descriptors: said, number: long(8) }, body))
}

fn decode<'b, T: Deserialize<'b>>(opcode: u16, body: &'b [u8]) -> Result<T, Malformed> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok((_, left)) => Err(Malformed::BytesLeft { opcode, bytes: left.len() as u32 }),
        Err(_) => Err(Malformed::BodyUnreadable { opcode }),
    }
}
