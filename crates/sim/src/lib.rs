//! Kernels, processes and faults from one seed (tests only).
//!
//! A [`Simulation`] runs one kernel, a broker that does what the kernel asks (late, refused, out of order between
//! processes, never within one) and processes that behave like client libraries, well or badly, and die at any step.
//! Everything is chosen by one seed, and every input of the kernel is in the [`Journal`], so that a failure is repeated
//! by its seed and replayed from its journal.
//!
//! ```text
//!  processes ── frames, in order ──▶ broker ── inputs ──▶ kernel
//!      ▲                               │  ▲                  │
//!      └───── replies and events ──────┘  └──── effects ─────┘     after each: the audit and the promises
//! ```
//!
//! Beside it, [`bridge`] has the bridge's machine with everybody around it: another machine, the same way of judging.
//!
//! Floors, lowest first: `random`; `bridge`; `journal`; `lineage`, `signals`; `promises` (what must be true end to end); `process` (what one client
//! does); `broker` (effects); `simulation`. Nothing here does I/O, and nothing outside of tests may use it.

#![forbid(unsafe_code)]

pub mod bridge;
mod broker;
mod journal;
mod lineage;
mod process;
mod promises;
mod random;
mod signals;
mod simulation;

pub use crate::{
    journal::{Entry, Hash, Input, Journal},
    random::Random,
    simulation::{Failure, Report, Simulation},
};
