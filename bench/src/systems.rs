//! The systems that are measured: one module each, and the list of them.

mod bare_ring;
mod cache_line;
#[cfg(feature = "zbus")]
mod dbus;
mod futex;
mod iceoryx2;
#[cfg(feature = "ipc-channel")]
mod ipc_channel;
mod keyway;
mod memcpy;
mod mqueue;
mod pipe;
mod ringfire;
mod seqpacket;
mod sigqueue;
#[cfg(feature = "zenoh")]
mod zenoh;
#[cfg(feature = "zmq")]
mod zeromq;

use std::any::Any;

use crate::{Result, place::Place, scenario::Scenario, side::Side};

/// In the order in which they are reported: limits first, then Keyway, then its peers.
pub(crate) const SYSTEMS: &[&dyn System] = &[
    &cache_line::CacheLine,
    &futex::Futex,
    &bare_ring::BareRing,
    &memcpy::Memcpy,
    &sigqueue::Sigqueue,
    &ringfire::Ringfire,
    &keyway::Keyway,
    &pipe::Pipe,
    &seqpacket::Seqpacket,
    &mqueue::Mqueue,
    &iceoryx2::Iceoryx2,
    #[cfg(feature = "ipc-channel")]
    &ipc_channel::IpcChannel,
    #[cfg(feature = "zmq")]
    &zeromq::Zeromq,
    #[cfg(feature = "zenoh")]
    &zenoh::Zenoh,
    #[cfg(feature = "zbus")]
    &dbus::Dbus,
];

/// The peers that this program was compiled without, by the features that they need.
const LEFT_OUT: &[&str] = &[
    #[cfg(not(feature = "ipc-channel"))]
    "ipc-channel",
    #[cfg(not(feature = "zmq"))]
    "zmq",
    #[cfg(not(feature = "zenoh"))]
    "zenoh",
    #[cfg(not(feature = "zbus"))]
    "zbus",
];

/// What a system stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    /// It does nothing but the bare essence of a scenario.
    Limit,
    /// A ring that others made, and no more: what the bare ring is held against.
    Ring,
    Keyway,
    /// What one could use instead of Keyway.
    Peer,
}

pub(crate) trait System: Sync {
    fn name(&self) -> &'static str;

    fn rank(&self) -> Rank;

    /// Whether the system can do what the scenario asks; if not, its cell is empty.
    fn offers(&self, scenario: Scenario) -> bool;

    /// Why this machine cannot measure the system, if that is so.
    fn missing(&self) -> Option<String> {
        None
    }

    /// Does in the controlling process what must be done before the sides start. What it returns is dropped after all
    /// have ended, in whatever way they did.
    fn prepare(&self, _: Scenario, _: &Place) -> Result<Box<dyn Any>> {
        Ok(Box::new(()))
    }

    /// Plays `side.role()` in `side.scenario()`, in a process of its own. With a `Port`, `side.talk(port)` is all
    /// there is to do; a request that something else than a `Port` answers goes through `side.measure_trips`.
    fn take_side(&self, side: &Side) -> Result<()>;
}

pub(crate) fn named(name: &str) -> Option<&'static dyn System> {
    SYSTEMS.iter().copied().find(|system| system.name() == name)
}

/// The systems that this machine can measure, and why not the others.
pub(crate) fn there() -> (Vec<&'static dyn System>, Vec<String>) {
    let (mut there, mut notes) = (Vec::new(), Vec::new());
    for &system in SYSTEMS {
        match system.missing() {
            None => there.push(system),
            Some(why) => notes.push(format!("{}: {why}", system.name())),
        }
    }
    if let Some(lanes) = keyway::lanes_left_out() {
        notes.push(lanes);
    }
    if !LEFT_OUT.is_empty() {
        notes.push(format!("built without {}", LEFT_OUT.join(", ")));
    }
    (there, notes)
}
