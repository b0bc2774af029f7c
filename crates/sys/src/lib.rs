//! Linux calls for the broker and the client library, one wrapper each, all of them safe to call.
//!
//! The crates above forbid unsafe code; what they need of Linux is here: descriptors are owned or borrowed types, an
//! [`Error`] keeps the name of the call beside its errno, and nothing decides policy. `rustix` is used wherever it has
//! the call, `libc` for the rest.
//!
//! Floors, lowest first: `error`; `clock`; `memory`, `futex`, `barrier`, `process`; `socket`, `frame`; `doorbell`, `epoll`; `signalfd`; `terminations`, `reloads`;
//! `inherited`, `notify`, `confine`, `kernel_support`, `rendezvous`; `users`.
//!
//! Not here: no bytes of shared memory are read or written (that is `keyway-shm`, to which a [`memory::Mapping`] hands
//! its addresses), and no frame is understood.
#![cfg(target_os = "linux")]

pub mod barrier;
pub mod clock;
pub mod confine;
pub mod device;
pub mod doorbell;
pub mod epoll;
mod error;
pub mod frame;
pub mod futex;
pub mod inherited;
pub mod kernel_support;
pub mod memory;
pub mod notify;
pub mod process;
pub mod reloads;
pub mod rendezvous;
mod signalfd;
pub mod socket;
pub mod terminations;
pub mod timer;
pub mod uevent;
pub mod users;

pub use error::Error;
pub use rustix::io::Errno;
