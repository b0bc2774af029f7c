//! What the reader of one lane has not released: blocks by the slots of the lane's segments.
//!
//! A slot's word lies in the reader's memory and says which generation of the slot was released last. Every other value says
//! nothing. So what the reader can do is to give back what it was given, early or late.

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::{Duration, Instant},
};

use keyway_abi::{
    LaneId, ProcessNumber,
    layout::{RELEASE_SLOTS, RELEASE_WAITING_BY_DOORBELL, RELEASE_WAITING_BY_FUTEX},
};
use keyway_shm::{Status, Verdict, View, WakeBy, Word, own_barrier, releases};
use keyway_sys::futex;

use super::SharedBlock;
use crate::{
    control::{Control, locked},
    error::Error,
    waiting::Until,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Shares {
    /// The reader, and the lane.
    place: (ProcessNumber, LaneId),
    /// The reader's.
    ack: View,
    /// Ours: how we wait for a release.
    waits: Word,
    status: Status,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    slots: Vec<Entry>,
    /// Slots that are in use.
    used: Vec<u16>,
    /// Slots that were, and are not.
    unused: Vec<u16>,
    kept_bytes: u64,
    is_closed: bool,
    /// How many wait for a release.
    sleepers: usize,
    /// How many await a ring at a release.
    listeners: usize,
}

#[derive(Debug, Default)]
struct Entry {
    generation: u32,
    block: Option<SharedBlock>,
}

/// By what the reader names a segment that it releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) number: u16,
    pub(crate) generation: u32,
}

impl Shares {
    pub(crate) fn new(place: (ProcessNumber, LaneId), ack: View, waits: Word, status: Status) -> Self {
        Shares { place, ack, waits, status, table: Mutex::default() }
    }

    /// The reader, and the lane.
    pub(crate) fn place(&self) -> (ProcessNumber, LaneId) {
        self.place
    }

    /// Whether [`Shares::take`] would give a block a slot that keeps so much of a pool, of which the reader may keep `bytes_max`.
    pub(crate) fn has_room(&self, kept_bytes: u64, bytes_max: u64) -> bool {
        let mut table = locked(&self.table);
        self.collect_from(&mut table);
        table.has_room(1, kept_bytes, bytes_max)
    }

    /// Gives each of these blocks a slot, or none if there is no room for all.
    pub(crate) fn take(&self, blocks: &[SharedBlock], out: &mut Vec<Slot>) -> bool {
        let mut table = locked(&self.table);
        self.collect_from(&mut table);
        let more_bytes: u64 = blocks.iter().map(SharedBlock::kept_bytes).sum();
        let bytes_max = blocks.iter().map(SharedBlock::lane_bytes_max).min().unwrap_or(u64::MAX);
        if !table.has_room(blocks.len(), more_bytes, bytes_max) {
            return false;
        }
        table.kept_bytes += more_bytes;
        for block in blocks {
            let number = table.unused.pop().unwrap_or(table.slots.len() as u16);
            if usize::from(number) == table.slots.len() {
                table.slots.push(Entry::default());
            }
            table.used.push(number);
            let entry = &mut table.slots[usize::from(number)];
            // Never what the word says already: that is the slot's last generation, or nothing at first.
            entry.generation = entry.generation.wrapping_add(1);
            entry.block = Some(block.clone());
            out.push(Slot { number, generation: entry.generation });
        }
        true
    }

    /// Takes slots back that no message has named.
    pub(crate) fn give_back(&self, slots: &[Slot]) {
        let mut table = locked(&self.table);
        for slot in slots {
            if table.slots[usize::from(slot.number)].generation == slot.generation {
                table.free(slot.number);
            }
        }
    }

    /// Whether its reader has not released something.
    pub(crate) fn has_any(&self) -> bool {
        let mut table = locked(&self.table);
        self.collect_from(&mut table);
        !table.used.is_empty()
    }

    /// Frees what was released, and everything if there is no reader any more. Tells whether to ask again later.
    pub(crate) fn collect(&self) -> bool {
        let mut table = locked(&self.table);
        self.collect_from(&mut table);
        !(table.is_closed && table.used.is_empty())
    }

    /// The lane is being closed by us. What it carried can still be received, so that its blocks stay until they are released.
    pub(crate) fn close(&self) {
        let mut table = locked(&self.table);
        self.collect_from(&mut table);
        table.is_closed = true;
    }

    fn collect_from(&self, table: &mut Table) {
        if table.used.is_empty() {
            return;
        }
        // A lane that we have closed has no word any more.
        let is_over = !table.is_closed && self.status.verdict() != Verdict::Live;
        // LIMIT: RELEASE_SLOTS.
        let mut at = 0;
        while let Some(&number) = table.used.get(at) {
            let generation = table.slots[usize::from(number)].generation;
            if is_over || self.released(number) == generation {
                table.free(number);
            } else {
                at += 1;
            }
        }
    }

    fn released(&self, number: u16) -> u32 {
        releases::released(&self.ack, number)
    }

    /// Announces that this side waits for a release, or retracts it.
    fn announce(&self, by: WakeBy, change: Change) {
        let mut table = locked(&self.table);
        let count = match by {
            WakeBy::Futex => &mut table.sleepers,
            WakeBy::Doorbell => &mut table.listeners,
        };
        match change {
            Change::Come => *count += 1,
            Change::Go => *count -= 1,
        }
        let bit = |count: usize, bit: u32| if count > 0 { bit } else { 0 };
        let how =
            bit(table.sleepers, RELEASE_WAITING_BY_FUTEX) | bit(table.listeners, RELEASE_WAITING_BY_DOORBELL);
        self.waits.store(how, Ordering::Relaxed);
    }

    /// Adds what changes at a release, and with the lane's end, to what is slept on.
    fn add_words(&self, words: &mut Vec<(Word, u32)>) -> Seen {
        let table = locked(&self.table);
        let mut seen = Seen::Nothing;
        if !table.is_closed {
            words.push((self.status.word().clone(), self.status.generation()));
        }
        for &number in &table.used {
            let said = self.released(number);
            if said == table.slots[usize::from(number)].generation {
                seen = Seen::Release;
            }
            words.extend(self.ack.word(releases::place(number)).map(|word| (word, said)));
        }
        seen
    }
}

/// A lane whose reader is asked to ring at a release, for as long as this is there.
#[derive(Debug)]
pub(crate) struct Awaited {
    lane: Arc<Shares>,
}

impl Awaited {
    /// Asks; a barrier and a last look must follow.
    pub(crate) fn new(lane: Arc<Shares>) -> Self {
        lane.announce(WakeBy::Doorbell, Change::Come);
        Awaited { lane }
    }

    pub(crate) fn shares(&self) -> &Arc<Shares> {
        &self.lane
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.lane.announce(WakeBy::Doorbell, Change::Go);
    }
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Come,
    Go,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    Release,
}

impl Table {
    /// One message is let through if nothing else is out, however much it keeps.
    fn has_room(&self, blocks: usize, more_bytes: u64, bytes_max: u64) -> bool {
        let is_much = self.kept_bytes.saturating_add(more_bytes) > bytes_max && !self.used.is_empty();
        self.used.len() + blocks <= RELEASE_SLOTS && !is_much
    }

    fn free(&mut self, number: u16) {
        if let Some(at) = self.used.iter().position(|used| *used == number) {
            self.used.swap_remove(at);
            self.unused.push(number);
        }
        if let Some(block) = self.slots[usize::from(number)].block.take() {
            self.kept_bytes -= block.kept_bytes();
        }
    }
}

/// For so long one looks again and again before one sleeps: a reader that is at work releases soon.
const SPIN: Duration = Duration::from_micros(50);
/// What nobody wakes us for, such as a block that another thread of this process drops, is seen after so long.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Words that one sleeps on, at most: fewer than Linux takes.
const WORDS_MAX: usize = 120;

/// Waits until something may have been released on one of the lanes, but no longer than a moment; fails once the time is over.
pub(crate) fn wait_for_release(
    control: &Control,
    lanes: &[Arc<Shares>],
    began: Instant,
    until: Until,
) -> Result<(), Error> {
    let Some(timeout) = until.sleep() else { return Err(Error::WouldBlock) };
    if began.elapsed() < SPIN {
        std::thread::yield_now();
        return Ok(());
    }
    for lane in lanes {
        lane.announce(WakeBy::Futex, Change::Come);
    }
    // SYNC segment-doorbell: that we wait before the last look; pairs with `releases::release`.
    own_barrier();
    let mut words = vec![(control.event_word().clone(), control.events_seen())];
    let seen: Vec<Seen> = lanes.iter().map(|lane| lane.add_words(&mut words)).collect();
    let mut slept = Ok(futex::Woken::Changed);
    if !seen.contains(&Seen::Release) {
        words.truncate(WORDS_MAX);
        let words: Vec<(&Word, u32)> = words.iter().map(|(word, expected)| (word, *expected)).collect();
        slept = futex::wait(&words, timeout.min(LOOK_EVERY));
    }
    for lane in lanes {
        lane.announce(WakeBy::Futex, Change::Go);
    }
    slept?;
    // Nobody would tell of a reader's death any more if the broker had died.
    control.pump()
}

#[cfg(test)]
#[cfg(feature = "embedded")]
mod tests;
