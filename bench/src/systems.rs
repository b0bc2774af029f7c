//! The systems that are measured: one module each, and the list of them.

mod bare_ring;
mod cache_line;
mod futex;
mod iceoryx2;
mod keyway;
mod seqpacket;
mod sigqueue;

use std::any::Any;

use crate::{Result, place::Place, scenario::Scenario, side::Side};

/// In the order in which they are reported: limits first, then Keyway, then its peers.
pub(crate) const SYSTEMS: &[&dyn System] = &[
    &cache_line::CacheLine,
    &futex::Futex,
    &bare_ring::BareRing,
    &seqpacket::Seqpacket,
    &sigqueue::Sigqueue,
    &keyway::Keyway,
    &iceoryx2::Iceoryx2,
];

pub(crate) trait System: Sync {
    fn name(&self) -> &'static str;

    /// Whether the system can do what the scenario asks; if not, its row is absent.
    fn offers(&self, scenario: Scenario) -> bool;

    /// Does in the controlling process what must be done before the two sides start. What it returns is dropped after
    /// both have ended, in whatever way they did.
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
