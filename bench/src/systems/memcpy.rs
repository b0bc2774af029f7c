//! Writing and reading the same shared memory, and nothing else: the limit for bytes per second.
//!
//! A few blocks that one side fills and the other one reads in turn. All that passes between them besides is how many
//! blocks each has done, one word a block, without which the reader could not judge what it reads.

use std::{
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    Result,
    memory::LINE_BYTES,
    payload::Content,
    scenario::{Kind, Scenario},
    side::{Port, Side},
    systems::{Rank, System},
};

const READ: usize = 0;
const WRITTEN: usize = 2;
const FIRST_BLOCK: usize = 64;
/// Enough that neither side waits for the other one's last word, few enough to stay in a cache.
const BLOCKS: u64 = 4;

pub(crate) struct Memcpy;

impl System for Memcpy {
    fn name(&self) -> &'static str {
        "memcpy"
    }

    fn rank(&self) -> Rank {
        Rank::Limit
    }

    fn offers(&self, scenario: Scenario) -> bool {
        matches!(scenario.kind, Kind::Bulk(_))
    }

    fn take_side(&self, side: &Side) -> Result<()> {
        let (memory, content) = (side.memory(), side.content());
        let lines = BLOCKS as usize * content.bytes / LINE_BYTES;
        memory.populate(FIRST_BLOCK + lines)?;
        let start = memory.lines(FIRST_BLOCK, lines);
        let (read, written) = (memory.word(READ), memory.word(WRITTEN));
        side.talk(Blocks { content, read, written, start, done: 0 })
    }
}

struct Blocks {
    content: Content,
    /// How many blocks were read, and how many written.
    read: &'static AtomicU64,
    written: &'static AtomicU64,
    start: NonNull<u8>,
    /// How many this side has done.
    done: u64,
}

impl Blocks {
    fn block(&self) -> NonNull<u8> {
        let offset = (self.done % BLOCKS) as usize * self.content.bytes;
        // SAFETY: the offset is that of one of the blocks, which lie in the mapping (`take_side`).
        unsafe { self.start.add(offset) }
    }
}

impl Port for Blocks {
    fn send(&mut self, number: u64) -> Result<()> {
        // SYNC block-release: the reader's reads before the block's next write.
        while self.done - self.read.load(Ordering::Acquire) == BLOCKS {}
        // SAFETY: 1. The block lies in the mapping (`block`). 2. The reader has left it (loop above).
        unsafe { self.content.fill_at(self.block(), number) };
        self.done += 1;
        // SYNC block-publish: the block's bytes before the count.
        self.written.store(self.done, Ordering::Release);
        Ok(())
    }

    fn receive(&mut self) -> Result<u64> {
        // SYNC block-publish: the count before the block's bytes.
        while self.done == self.written.load(Ordering::Acquire) {}
        // SAFETY: 1. The block lies in the mapping (`block`). 2. The writer has filled it (loop above).
        let number = unsafe { self.content.judge_at(self.block()) };
        self.done += 1;
        // SYNC block-release: the block's bytes before the count.
        self.read.store(self.done, Ordering::Release);
        number
    }
}
