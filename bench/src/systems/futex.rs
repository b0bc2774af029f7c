//! Bare futexes, both sides asleep: the limit for sleeping.
//!
//! One payload line and one futex word for each direction. Every send wakes and no side ever polls before it sleeps.

use std::{
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::{io::Errno, thread::futex};

use crate::{
    Result,
    payload::Payload,
    scenario::Scenario,
    side::{Port, Role, Side},
    systems::System,
};

pub(crate) struct Futex;

impl System for Futex {
    fn name(&self) -> &'static str {
        "futex"
    }

    fn offers(&self, scenario: Scenario) -> bool {
        matches!(scenario, Scenario::RoundTripSleeping | Scenario::Bridge)
    }

    fn take_side(&self, side: &Side) -> Result<()> {
        // Lines 0 and 1 go from asker to answerer, lines 2 and 3 back.
        let (out, back) = match side.role() {
            Role::Asker => (0, 2),
            Role::Answerer => (2, 0),
        };
        let memory = side.memory();
        side.talk(Mailboxes {
            sent: memory.futex_word(out),
            outgoing: memory.line(out + 1),
            received: memory.futex_word(back),
            incoming: memory.line(back + 1),
            received_count: 0,
        })
    }
}

/// One mailbox per direction. Only round trips: a mailbox is empty again once its answer came.
struct Mailboxes<'m> {
    /// How many messages this side has sent, wrapping.
    sent: &'m AtomicU32,
    outgoing: NonNull<Payload>,
    /// How many messages the other side has sent, wrapping.
    received: &'m AtomicU32,
    incoming: NonNull<Payload>,
    received_count: u32,
}

impl Port for Mailboxes<'_> {
    fn send(&mut self, payload: Payload) -> Result<()> {
        // SAFETY: 1. The line is in the mapping that `'m` borrows from (`Memory::line`). 2. The other side reads it
        // only after the increment below, and answers before this side writes again (round trips only).
        unsafe { self.outgoing.write(payload) };
        self.sent.fetch_add(1, Ordering::Release);
        futex::wake(self.sent, futex::Flags::empty(), 1)?;
        Ok(())
    }

    fn receive(&mut self) -> Result<Payload> {
        while self.received.load(Ordering::Acquire) == self.received_count {
            match futex::wait(self.received, futex::Flags::empty(), self.received_count, None) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.received_count = self.received_count.wrapping_add(1);
        // SAFETY: 1. As in `send`. 2. The other side wrote the line before the increment that was loaded above with
        // acquire, and writes again only after this side has answered.
        Ok(unsafe { self.incoming.read() })
    }
}
