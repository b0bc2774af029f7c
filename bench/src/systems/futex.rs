//! Bare futexes, both sides asleep: the limit for sleeping.
//!
//! One message and one futex word for each direction. Every send wakes and no side ever polls before it sleeps.

use std::{
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::{io::Errno, thread::futex};

use crate::{
    Result,
    memory::LINE_BYTES,
    payload::Content,
    scenario::{Kind, Scenario, Waiting},
    side::{Port, Role, Side},
    systems::{Rank, System},
};

pub(crate) struct Futex;

impl System for Futex {
    fn name(&self) -> &'static str {
        "futex"
    }

    fn rank(&self) -> Rank {
        Rank::Limit
    }

    fn offers(&self, scenario: Scenario) -> bool {
        matches!(scenario.kind, Kind::RoundTrip(Waiting::Sleeping) | Kind::Bridge)
    }

    fn take_side(&self, side: &Side) -> Result<()> {
        let (memory, content) = (side.memory(), side.content());
        // A word and then the message, from asker to answerer and back.
        let lines = content.bytes.div_ceil(LINE_BYTES);
        let (out, back) = match side.role() {
            Role::Asker => (0, 1 + lines),
            Role::Answerer => (1 + lines, 0),
        };
        memory.populate(2 * (1 + lines))?;
        side.talk(Mailboxes {
            content,
            sent: memory.futex_word(out),
            outgoing: memory.lines(out + 1, lines),
            received: memory.futex_word(back),
            incoming: memory.lines(back + 1, lines),
            received_count: 0,
        })
    }
}

/// One mailbox per direction. Only round trips: a mailbox is empty again once its answer came.
struct Mailboxes<'m> {
    content: Content,
    /// How many messages this side has sent, wrapping.
    sent: &'m AtomicU32,
    outgoing: NonNull<u8>,
    /// How many messages the other side has sent, wrapping.
    received: &'m AtomicU32,
    incoming: NonNull<u8>,
    received_count: u32,
}

impl Port for Mailboxes<'_> {
    fn send(&mut self, number: u64) -> Result<()> {
        // SAFETY: 1. The lines are in the mapping that `'m` borrows from (`Memory::lines`). 2. The other side reads them
        // only after the increment below, and answers before this side writes again (round trips only).
        unsafe { self.content.fill_at(self.outgoing, number) };
        self.sent.fetch_add(1, Ordering::Release);
        futex::wake(self.sent, futex::Flags::empty(), 1)?;
        Ok(())
    }

    fn receive(&mut self) -> Result<u64> {
        while self.received.load(Ordering::Acquire) == self.received_count {
            match futex::wait(self.received, futex::Flags::empty(), self.received_count, None) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.received_count = self.received_count.wrapping_add(1);
        // SAFETY: 1. As in `send`. 2. The other side wrote them before the increment that was loaded above with
        // acquire, and writes again only after this side has answered.
        unsafe { self.content.judge_at(self.incoming) }
    }
}
