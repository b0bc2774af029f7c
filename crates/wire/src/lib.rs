//! Control frames: bytes to and from the types of `keyway-abi`.
//!
//! Judges bytes once, at the door: what [`decode_request`] hands on is a request, what it refuses has a name. It never
//! looks at handles, rights or state (that is the kernel's), never allocates for a request beyond a name, and does no I/O.
//! It rests on `keyway-abi` and postcard.
//!
//! ```text
//!  0        2        4             6          8               12              16
//!  │version │ opcode │ descriptors │ reserved │ request number│ body bytes    │ body (postcard)
//!   u16      u16      u16           u16 = 0    u32             u32               little endian all
//! ```
//!
//! A request's opcode is its operation's; its reply has the same with [`REPLY_BIT`] set and the same request number; an
//! event has [`EVENT_OPCODE`] and the request number 0. One frame is one packet of a `SOCK_SEQPACKET` socket, and
//! descriptors travel beside it (`SCM_RIGHTS`). Bodies: <https://postcard.jamesmunns.com/wire-format>.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod frame;

pub use crate::frame::{
    EVENT_OPCODE, FrameTooLong, Incoming, REPLY_BIT, RequestHead, decode_incoming, decode_request,
    descriptors_said, encode_event, encode_reply, encode_request,
};

#[cfg(test)]
mod tests;
