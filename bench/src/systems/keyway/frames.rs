//! Large payloads, as the documentation says: written once, into a block of a pool, named in a message on each lane, and read where
//! they are.

use keyway::{Client, Outgoing, Pool, PoolOptions, Queue, Sender};

use crate::{
    Result,
    payload::{Content, Pieces},
    side::{Port, Side},
};

/// From here on.
pub(super) const FRAME_BYTES_MIN: usize = 64 << 10;
/// Blocks that are being written, on their way or being read.
const BLOCKS: usize = 4;
const PAGE_BYTES: usize = 4096;

pub(super) struct Frames {
    senders: Vec<Sender>,
    queue: Queue,
    content: Content,
    pool: Pool,
}

impl Frames {
    pub(super) fn over(side: &Side, client: &Client, senders: Vec<Sender>, queue: Queue) -> Result<Self> {
        let content = side.content();
        let bytes = (BLOCKS * content.bytes.next_multiple_of(PAGE_BYTES)) as u64;
        let pool = client.create_pool(PoolOptions { bytes, ..PoolOptions::default() })?;
        Ok(Self { senders, queue, content, pool })
    }
}

impl Port for Frames {
    fn send(&mut self, number: u64) -> Result<()> {
        let mut block = self.pool.loan(self.content.bytes)?;
        self.content.fill(&mut block, number);
        let block = block.share();
        for sender in &mut self.senders {
            sender.send_segments(&Outgoing::default(), &[block.whole()])?;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<u64> {
        let message = self.queue.receive()?;
        let Some(segment) = message.segments.first() else {
            return self.content.judge(&message.payload);
        };
        let mut pieces = Pieces::new(self.content);
        if pieces.wants_all() {
            segment.read(|piece| pieces.add(piece));
        } else {
            let mut first = [0; 8];
            segment.copy_out(0, &mut first)?;
            pieces.add(&first);
        }
        pieces.judge(segment.len())
    }
}
