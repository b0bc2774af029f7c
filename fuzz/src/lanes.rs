//! One lane on real mappings, one end honest and the other played by bytes.
//!
//! The first byte says which barrier both sides make (bit 0) and whether the lane is stamped (bit 1). Each further byte, modulo the
//! number of steps, names a step; what the step needs follows. See [`receive`] and [`send`].

use std::{cell::Cell, ops::ControlFlow, os::fd::OwnedFd, sync::atomic::Ordering};

use keyway_abi::layout::{
    BARRIER_OFFSET, COMMIT_BYTES, KIND_EXTENDED, KIND_PADDING, MESSAGES_OFFSET, PAGE_BYTES, POSITION_OFFSET,
    RECORDS_OFFSET, RING_BYTES_MIN, RING_RESERVED_BYTES, WAITING_OFFSET, WORD_DEAD, WORD_REVOKED,
};
use keyway_shm::{Barrier, Ending, Status, View, Word, own_barrier};
use keyway_sys::memory::{Mapping, Populate, create_memory};

use crate::Bytes;

mod receive;
mod send;

pub use self::{receive::receive, send::send};

const RING_BYTES: u32 = RING_BYTES_MIN;
const RING_LEN: usize = RECORDS_OFFSET + RING_BYTES as usize;
const GENERATION: u32 = 5;
/// The most that is committed and not acknowledged.
const COMMITTED_MAX: u32 = RING_BYTES - RING_RESERVED_BYTES as u32;
/// Messages that fit a ring.
const MESSAGES_MAX: usize = RING_BYTES as usize / COMMIT_BYTES;

/// How a lane is, as its first byte says.
fn sort(bytes: &mut Bytes<'_>) -> (Barrier, bool) {
    let byte = bytes.byte().unwrap_or(0);
    (if byte & 1 == 1 { Barrier::All } else { Barrier::Own }, byte & 2 == 2)
}

thread_local! {
    static TIME: Cell<u64> = const { Cell::new(0) };
}

/// A clock that goes one further with each look at it.
fn tick() -> u64 {
    TIME.set(TIME.get() + 1);
    TIME.get()
}

/// The memories of a lane, used by one run after the other.
struct Memories {
    ring_fd: OwnedFd,
    /// The hostile end's, and the harness's to clean up.
    ring: View,
    ring_reader: View,
    ack: View,
    ack_reader: View,
    page: View,
    word: Word,
}

impl Memories {
    fn new() -> Self {
        let map = |fd: &OwnedFd, bytes, access| {
            Mapping::new(fd, bytes, access, Populate::Now).expect("memory to map").view()
        };
        let make = |bytes| {
            let fd = create_memory("keyway-fuzz", bytes).expect("memory");
            let views =
                (map(&fd, bytes, keyway_shm::Access::Write), map(&fd, bytes, keyway_shm::Access::Read));
            (fd, views)
        };
        let (ring_fd, (ring, ring_reader)) = make(RING_LEN);
        let (_, (ack, ack_reader)) = make(PAGE_BYTES);
        let (_, (page, page_reader)) = make(PAGE_BYTES);
        let word = page_reader.word(4).expect("a word of the page");
        Self { ring_fd, ring, ring_reader, ack, ack_reader, page, word }
    }

    /// As they are when a lane is opened, its processes of these barriers.
    fn clean(&self, barrier: Barrier) {
        for offset in [POSITION_OFFSET, MESSAGES_OFFSET, WAITING_OFFSET, BARRIER_OFFSET] {
            self.ring.store_u32(offset, 0, Ordering::Relaxed);
            self.ack.store_u32(offset, 0, Ordering::Relaxed);
        }
        self.ring.copy_in(RECORDS_OFFSET, &[0; RING_BYTES as usize]).expect("inside");
        barrier.declare(&self.ring);
        barrier.declare(&self.ack);
        self.page.store_u32(4, GENERATION, Ordering::Release);
    }

    fn status(&self) -> Status {
        Status::new(self.word.clone(), GENERATION)
    }

    /// What the broker says goes one way.
    fn change_verdict(&self, to: u8) {
        let now = self.word.load(Ordering::Relaxed);
        let next = match (now, to % 4) {
            (GENERATION, 0) => WORD_DEAD,
            (GENERATION | WORD_DEAD, 1) => WORD_REVOKED,
            _ => now,
        };
        self.page.store_u32(4, next, Ordering::Release);
    }

    fn is_live(&self) -> bool {
        self.word.load(Ordering::Relaxed) == GENERATION
    }

    fn record_word(&self, position: u32) -> u64 {
        let mut word = [0; 8];
        self.ring_reader.copy_out(place(position), &mut word).expect("inside");
        u64::from_ne_bytes(word)
    }
}

/// Where the word at a position lies in the ring's memory.
fn place(position: u32) -> usize {
    RECORDS_OFFSET + (position & (RING_BYTES - 1)) as usize / 8 * 8
}

/// What a hostile end does to its words: one step, of which there are [`WORD_LIES`].
fn lie(memory: &View, honest: u32, which: u8, bytes: &mut Bytes<'_>) -> Option<()> {
    match which % WORD_LIES {
        0 => {
            let raw = bytes.take(4)?;
            memory.copy_in(POSITION_OFFSET, raw).expect("inside");
        }
        1 => {
            let by = u32::from(bytes.byte()?) * 8;
            let position = memory.load_u32(POSITION_OFFSET, Ordering::Relaxed).wrapping_add(by);
            memory.store_u32(POSITION_OFFSET, position, Ordering::Release);
        }
        2 => memory.store_u32(POSITION_OFFSET, honest, Ordering::Release),
        3 => {
            let by = u32::from(bytes.byte()?);
            let messages = memory.load_u32(MESSAGES_OFFSET, Ordering::Relaxed).wrapping_add(by);
            memory.store_u32(MESSAGES_OFFSET, messages, Ordering::Release);
        }
        4 => memory.copy_in(WAITING_OFFSET, &[bytes.byte()?]).expect("inside"),
        _ => {
            let (offset, length) = (bytes.word()?, bytes.byte()?);
            let scribble = bytes.take(usize::from(length % 32))?;
            let _ = memory.copy_in(usize::from(offset) % memory.len_bytes(), scribble);
        }
    }
    Some(())
}

const WORD_LIES: u8 = 6;

/// What one end has said is final.
fn hold_to<E: PartialEq + core::fmt::Debug + Copy>(last: &mut Option<E>, said: Option<E>, is_asked: bool) {
    if let Some(last) = last {
        assert!(!is_asked || said == Some(*last), "{said:?} after {last:?}");
    } else {
        *last = said;
    }
}
