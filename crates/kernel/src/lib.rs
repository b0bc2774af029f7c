//! The trusted logic that alone creates capabilities: a deterministic state machine.
//!
//! It is told what happened ([`Kernel::on_connect`], [`Kernel::handle`], [`Kernel::on_answer`], [`Kernel::on_end`],
//! [`Kernel::sweep`], [`Kernel::expire`]), or what holds from now on ([`Kernel::set_rules`], [`Kernel::set_limits`]), and says what to do about it ([`Effects`]). It never does I/O, never reads a clock, never sees
//! a descriptor (only tokens), never depends on addresses or hash order: the same inputs give the same state and the
//! same effects. It rests on `keyway-abi` and `alloc`.
//!
//! ```text
//!  process ── table ── slot ──▶ capability ──▶ object (queue, region, process, device, directory, name)
//!                                │   ▲
//!                          derived   parent          lanes, mappings, published names and escrow
//!                                ▼   │               hold capabilities of their own in the same tree,
//!                              capability            so that revocation finds them
//! ```
//!
//! Floors, lowest first: `effect`; `rules`, `neighbours`; `acl`, `limits`, `log`, `tree`, `page`; `account`; `shares`; `table`, `sweep`, `object`, `signals`; `process`, `lane`; `kernel` (the
//! state and the dispatch); `end` (teardown); the operations, one file a noun; `audit`.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod account;
mod acl;
mod audit;
mod effect;
mod end;
mod kernel;
mod lane;
mod limits;
mod log;
mod neighbours;
mod news;
mod object;
mod operations;
mod page;
mod process;
mod rules;
mod shares;
mod signals;
mod sweep;
mod table;
mod tree;

pub use crate::{
    effect::{
        Answer, Arrival, Call, Descriptor, Door, Effect, Effects, Identity, LinuxSignal, Outgoing, PairKind,
        Refusal, SealUse, Task, Token,
    },
    kernel::Kernel,
    limits::{Charge, Limits},
    object::{DIRECTORY_RIGHTS, OWN_RIGHTS},
    rules::{NameRule, NameRules, Subject},
};

#[cfg(test)]
mod tests;
