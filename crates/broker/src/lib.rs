//! The process that runs the kernel: sockets, descriptors, pidfds, time.
//!
//! One thread, without an async runtime: readiness, kernel, effects. It decides nothing that the kernel decides, never
//! reads a message, and is not on the data path; it knows nothing of pixels. What can block (closing a descriptor that
//! came from a process) happens in a thread apart. It rests on `keyway-kernel` for every decision, `keyway-wire` for
//! bytes, `keyway-sys` for Linux and `keyway-shm` for the words that it writes.
//!
//! ```text
//!  epoll ──▶ one frame of each session ──▶ wire::decode ──▶ kernel ──▶ effects ──▶ hands ──▶ Linux
//!                                                              ▲                    │
//!                                                              └─── answers ────────┘
//! ```
//!
//! Floors, lowest first: `identity`, `fairness`; `policy`; `freeing`, `memories`; `closing`, `deferred`; `session`, `unread`, `deposits`;
//! `hands` (does what the kernel says); `socket`; `turn` (the loop); `daemon`, `embedded`.

#![forbid(unsafe_code)]

mod closing;
mod daemon;
mod deferred;
mod deposits;
mod embedded;
mod fairness;
mod freeing;
mod hands;
mod identity;
mod memories;
mod policy;
mod session;
mod socket;
mod turn;
mod unread;

pub use keyway_kernel::{Charge, Limits};
pub use keyway_sys::{
    clock::boot_ns,
    notify::notify as notify_manager,
    process::{MemoryUse, memory_use},
    reloads::Reloads,
    rendezvous::socket_path as default_socket_path,
    terminations::Terminations,
};

pub use crate::{
    embedded::Embedded,
    policy::{Mistake, Policy, PolicyError, PolicyInForce, PolicySource, Standing, Wrong},
    socket::{Nearest, StartError},
    turn::Broker,
};
