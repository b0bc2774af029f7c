//! The plainest ring for one producer and one consumer: the limit for one-way messages.
//!
//! Memory that both sides write, slots of one line, each side's position published with every message, and a private
//! copy of the other's position, read again only when the ring looks full or empty. No checks, no wake-ups.
//!
//! ```text
//! line 0: head (consumer)   line 2: tail (producer)   line 4..4 + SLOTS: slots
//! ```

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    Result,
    memory::Memory,
    payload::Payload,
    scenario::Scenario,
    side::{Port, Side},
    systems::System,
};

const HEAD: usize = 0;
/// Two lines on, because processors fetch lines in pairs.
const TAIL: usize = 2;
const FIRST_SLOT: usize = 4;
const SLOTS: u64 = 1024;

pub(crate) struct BareRing;

impl System for BareRing {
    fn name(&self) -> &'static str {
        "bare-ring"
    }

    fn offers(&self, scenario: Scenario) -> bool {
        scenario == Scenario::OneWay
    }

    fn take_side(&self, side: &Side) -> Result<()> {
        let memory = side.memory();
        side.talk(Ring { memory, head: memory.word(HEAD), tail: memory.word(TAIL), own: 0, other: 0 })
    }
}

/// One end of the ring: the producer calls only `send`, the consumer only `receive`.
struct Ring<'m> {
    memory: &'m Memory,
    head: &'m AtomicU64,
    tail: &'m AtomicU64,
    /// The position of this end, which only it moves.
    own: u64,
    /// The other end's position when it was last looked at.
    other: u64,
}

impl Port for Ring<'_> {
    #[inline]
    fn send(&mut self, payload: Payload) -> Result<()> {
        while self.own - self.other == SLOTS {
            // SYNC ring-release: the consumer's reads before the slot's next write.
            self.other = self.head.load(Ordering::Acquire);
        }
        let slot = self.memory.line(FIRST_SLOT + (self.own % SLOTS) as usize);
        // SAFETY: 1. The line is in the mapping (`Memory::line`). 2. The consumer has left the slot (loop above) and
        // comes back to it only after the store below.
        unsafe { slot.write(payload) };
        self.own += 1;
        // SYNC ring-publish: the slot's bytes before the tail.
        self.tail.store(self.own, Ordering::Release);
        Ok(())
    }

    #[inline]
    fn receive(&mut self) -> Result<Payload> {
        while self.own == self.other {
            // SYNC ring-publish: the tail before the slot's bytes.
            self.other = self.tail.load(Ordering::Acquire);
        }
        let slot = self.memory.line(FIRST_SLOT + (self.own % SLOTS) as usize);
        // SAFETY: 1. The line is in the mapping (`Memory::line`). 2. The producer has filled the slot (loop above) and
        // comes back to it only after the store below.
        let payload = unsafe { slot.read() };
        self.own += 1;
        // SYNC ring-release: the slot's bytes before the head.
        self.head.store(self.own, Ordering::Release);
        Ok(payload)
    }
}
