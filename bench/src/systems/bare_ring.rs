//! The plainest ring for one producer and one consumer: the limit for messages.
//!
//! Memory that both sides write. No checks, no lifecycle, no wake-ups. It comes in two shapes, each the faster one for
//! what it is used for:
//!
//! - For streams, slots and nothing else in them. Each side's position has a line of its own, and each side keeps a
//!   copy of the other's, read again only when the ring looks full or empty. The producer publishes each batch once; the
//!   consumer gives slots back in larger portions, and when it has nothing else to do.
//! - For round trips, one slot in each direction with a sequence word of its own, so that nothing moves but the slot. A
//!   message that fits into the word's line is there; a larger one begins in the next line, which the reader has fetched
//!   whenever it has looked at the word in vain, so that both lines are on their way at the same time.
//!
//! ```text
//! streams:      line 0: head (consumer)   line 2: tail (producer)   line 4 on: slots
//! round trips:  line 4: question          line 4 + slot: answer
//! ```

use std::{
    hint,
    ops::Range,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    Result,
    memory::{LINE_BYTES, Memory},
    payload::{Content, WORD_BYTES},
    scenario::{Kind, Scenario, Waiting},
    side::{Port, Role, Side},
    systems::{Rank, System},
};

const HEAD: usize = 0;
/// Two lines on, because processors fetch lines in pairs.
const TAIL: usize = 2;
const FIRST_SLOT: usize = 4;
/// What all slots take together: of 16 KiB to 1 MiB the fastest, and it stays in a near cache.
const SLOTS_BYTES: usize = 256 << 10;

pub(crate) struct BareRing;

impl System for BareRing {
    fn name(&self) -> &'static str {
        "bare-ring"
    }

    fn rank(&self) -> Rank {
        Rank::Limit
    }

    fn offers(&self, scenario: Scenario) -> bool {
        matches!(scenario.kind, Kind::RoundTrip(Waiting::Spinning | Waiting::Default) | Kind::OneWay)
            || matches!(scenario.kind, Kind::Lanes(1))
    }

    fn take_side(&self, side: &Side) -> Result<()> {
        match side.scenario().kind {
            Kind::OneWay => side.talk(Ring::over(side)?),
            _ => side.talk(Slots::over(side)?),
        }
    }
}

/// One end of a stream's ring: the producer only sends, the consumer only receives.
struct Ring {
    content: Content,
    head: &'static AtomicU64,
    tail: &'static AtomicU64,
    slots: NonNull<u8>,
    slot_bytes: usize,
    mask: u64,
    /// The position of this end, which only it moves.
    own: u64,
    /// The other end's position when it was last looked at.
    other: u64,
    /// Up to where the consumer has given slots back.
    given_back: u64,
    /// As many as are sent together are received together: to take more of those that are sent one by one is slower.
    batch: usize,
}

impl Ring {
    fn over(side: &Side) -> Result<Self> {
        let memory = side.memory();
        // Small messages share lines: they are written and read in order.
        let slot_bytes = side.content().bytes.next_power_of_two();
        let slots = (SLOTS_BYTES / slot_bytes) as u64;
        memory.populate(FIRST_SLOT + SLOTS_BYTES / LINE_BYTES)?;
        Ok(Self {
            content: side.content(),
            head: memory.word(HEAD),
            tail: memory.word(TAIL),
            slots: memory.lines(FIRST_SLOT, SLOTS_BYTES / LINE_BYTES),
            slot_bytes,
            mask: slots - 1,
            own: 0,
            other: 0,
            given_back: 0,
            batch: side.scenario().batch.max(1),
        })
    }

    #[inline]
    fn slots_count(&self) -> u64 {
        self.mask + 1
    }

    #[inline]
    fn slot(&self, position: u64) -> NonNull<u8> {
        let offset = (position & self.mask) as usize * self.slot_bytes;
        // SAFETY: the offset is that of one of the slots, which lie in the mapping (`Ring::over`).
        unsafe { self.slots.add(offset) }
    }

    /// Waits for room for one more message and writes it; it is not published.
    #[inline]
    fn write(&mut self, number: u64) {
        while self.own - self.other == self.slots_count() {
            // SYNC ring-release: the consumer's reads before the slot's next write.
            self.other = self.head.load(Ordering::Acquire);
        }
        let slot = self.slot(self.own);
        // SAFETY: 1. The slot is in the mapping (`Ring::slot`). 2. The consumer has left it (loop above) and comes back
        // to it only after it is published.
        unsafe { self.content.fill_at(slot, number) };
        self.own += 1;
    }

    #[inline]
    fn publish(&self) {
        // SYNC ring-publish: the slots' bytes before the tail.
        self.tail.store(self.own, Ordering::Release);
    }

    /// How many messages are there; waits for one.
    #[inline]
    fn wait(&mut self) -> u64 {
        if self.own == self.other {
            self.give_back();
            while self.own == self.other {
                // SYNC ring-publish: the tail before the slots' bytes.
                self.other = self.tail.load(Ordering::Acquire);
            }
        }
        self.other - self.own
    }

    /// The next message, which is there.
    #[inline]
    fn read(&mut self) -> Result<u64> {
        let slot = self.slot(self.own);
        // SAFETY: 1. The slot is in the mapping (`Ring::slot`). 2. The producer has filled it (`wait`) and comes back to
        // it only after it is given back.
        let number = unsafe { self.content.judge_at(slot) };
        self.own += 1;
        if self.own - self.given_back >= self.slots_count() / 4 {
            self.give_back();
        }
        number
    }

    #[inline]
    fn give_back(&mut self) {
        self.given_back = self.own;
        // SYNC ring-release: the slots' bytes before the head.
        self.head.store(self.own, Ordering::Release);
    }
}

impl Port for Ring {
    #[inline]
    fn send(&mut self, number: u64) -> Result<()> {
        self.write(number);
        self.publish();
        Ok(())
    }

    #[inline]
    fn receive(&mut self) -> Result<u64> {
        self.wait();
        self.read()
    }

    #[inline]
    fn send_batch(&mut self, numbers: Range<u64>) -> Result<()> {
        for number in numbers {
            self.write(number);
        }
        self.publish();
        Ok(())
    }

    #[inline]
    fn receive_batch(&mut self, most: usize, take: &mut impl FnMut(u64) -> Result<()>) -> Result<()> {
        for _ in 0..self.wait().min(most.min(self.batch) as u64) {
            take(self.read()?)?;
        }
        Ok(())
    }
}

/// One end of a round trip's slots.
struct Slots {
    content: Content,
    outgoing: Slot,
    incoming: Slot,
    sent: u64,
    received: u64,
}

#[derive(Clone, Copy)]
struct Slot {
    /// How many messages were written here.
    sequence: &'static AtomicU64,
    /// The first word of the line in which the message begins.
    first: &'static AtomicU64,
    message: NonNull<u8>,
}

impl Slots {
    fn over(side: &Side) -> Result<Self> {
        let content = side.content();
        let (offset, lines) = match content.bytes {
            0..=SHARED_LINE_MAX => (WORD_BYTES, 2),
            bytes => (LINE_BYTES, 1 + bytes.div_ceil(LINE_BYTES)),
        };
        // Whole pairs of lines.
        let lines = lines.next_multiple_of(2);
        side.memory().populate(FIRST_SLOT + 2 * lines)?;
        let slot = |index| Slot::at(side.memory(), FIRST_SLOT + index * lines, lines, offset);
        let (question, answer) = (slot(0), slot(1));
        let (outgoing, incoming) = match side.role() {
            Role::Asker => (question, answer),
            Role::Answerer => (answer, question),
        };
        Ok(Self { content, outgoing, incoming, sent: 0, received: 0 })
    }
}

/// The largest message that shares a line with its sequence word.
const SHARED_LINE_MAX: usize = LINE_BYTES - WORD_BYTES;

impl Slot {
    fn at(memory: &'static Memory, line: usize, lines: usize, offset: usize) -> Self {
        // SAFETY: the message lies in the same lines (`Slots::over`), which are mapped (`Memory::lines`).
        let message = unsafe { memory.lines(line, lines).add(offset) };
        Self { sequence: memory.word(line), first: memory.word(line + offset / LINE_BYTES), message }
    }
}

impl Port for Slots {
    #[inline]
    fn send(&mut self, number: u64) -> Result<()> {
        // SAFETY: 1. The message lies in the mapping (`Slot::at`). 2. The other side has read it: it has answered since.
        unsafe { self.content.fill_at(self.outgoing.message, number) };
        self.sent += 1;
        // SYNC slot-publish: the message before the sequence.
        self.outgoing.sequence.store(self.sent, Ordering::Release);
        Ok(())
    }

    #[inline]
    fn receive(&mut self) -> Result<u64> {
        // SYNC slot-publish: the sequence before the message.
        while self.incoming.sequence.load(Ordering::Acquire) == self.received {
            fetch(self.incoming.first);
            hint::spin_loop();
        }
        self.received += 1;
        // SAFETY: 1. As in `send`. 2. The other side has written it (loop above), and writes again only after this side
        // has answered.
        unsafe { self.content.judge_at(self.incoming.message) }
    }
}

/// Has the processor fetch a line without waiting for it.
#[inline]
fn fetch(word: &AtomicU64) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: fetches a line that can be read, and changes nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(word).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::hint::black_box(word.load(Ordering::Relaxed));
}
