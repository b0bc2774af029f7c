//! Messages received together, in one memory that is used again and again.

use std::sync::Arc;

use keyway_abi::{Badge, LaneId, PeerIdentity};
use keyway_shm::RecordHeader;

use crate::{
    capability::Capability,
    error::Error,
    message::{ReplyTo, flags},
    queue::Peer,
    segment::Segment,
};

/// Where [`Queue::receive_many`](crate::Queue::receive_many) puts messages. It allocates until it is as large as the largest lot
/// that it has held, and then no more.
#[derive(Debug, Default)]
pub struct Inbox {
    pub(super) bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// The senders of what is in it, each once for each run of messages.
    peers: Vec<Peer>,
    /// Of the few messages that bring something besides bytes.
    extras: Vec<Extra>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    start: usize,
    len: u32,
    message_type: u32,
    peer: u32,
    /// Its place among the extras, or [`NO_EXTRA`].
    extra: u32,
    flags: u16,
}

const NO_EXTRA: u32 = u32::MAX;

#[derive(Debug)]
struct Extra {
    capabilities: Vec<Result<Capability, Error>>,
    reply_to: Option<ReplyTo>,
    segments: Vec<Segment>,
}

/// A message that was received. Its bytes are this process's own: nobody can change them any more.
#[derive(Clone, Copy, Debug)]
pub struct Received<'i> {
    /// The bytes.
    pub payload: &'i [u8],
    /// What sort of message it is, as its sender says.
    pub message_type: u32,
    /// Of the user's own, as its sender says.
    pub flags: u16,
    /// The badge of the capability through which it came: who is speaking. No sender can forge it.
    pub badge: Option<Badge>,
    /// The lane on which it came.
    pub lane: LaneId,
    /// Who opened that lane, as Linux told the broker.
    pub sender: &'i Arc<PeerIdentity>,
    /// Its place in the inbox, by which [`Inbox::take_capabilities`] and [`Inbox::take_reply_to`] name it.
    pub index: usize,
}

impl Inbox {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many messages are in it.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The messages, in the order in which they were received.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Received<'_>> {
        (0..self.entries.len()).map(|index| self.received(index))
    }

    /// One of them.
    pub fn get(&self, index: usize) -> Option<Received<'_>> {
        (index < self.entries.len()).then(|| self.received(index))
    }

    /// The capabilities that came in a message, in order; an error for one that was taken back on its way. The second time none.
    pub fn take_capabilities(&mut self, index: usize) -> Vec<Result<Capability, Error>> {
        self.extra(index).map(|extra| std::mem::take(&mut extra.capabilities)).unwrap_or_default()
    }

    /// How to answer a message, if its sender waits for that. The second time `None`.
    pub fn take_reply_to(&mut self, index: usize) -> Option<ReplyTo> {
        self.extra(index)?.reply_to.take()
    }

    /// What a message names instead of carrying it, in order. The second time none. What is not taken is released when the inbox is
    /// used again.
    pub fn take_segments(&mut self, index: usize) -> Vec<Segment> {
        self.extra(index).map(|extra| std::mem::take(&mut extra.segments)).unwrap_or_default()
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.peers.clear();
        self.extras.clear();
    }

    /// The bytes from `start` to `end` are a message from this peer.
    #[inline]
    pub(super) fn add(&mut self, start: usize, end: usize, header: RecordHeader, peer: &Peer) {
        if self.peers.last().is_none_or(|last| last.lane != peer.lane) {
            self.peers.push(peer.clone());
        }
        self.entries.push(Entry {
            start,
            // A message fits into a ring, whose size fits.
            len: (end - start) as u32,
            message_type: header.message_type,
            peer: (self.peers.len() - 1) as u32,
            extra: NO_EXTRA,
            flags: (header.flags & flags::USER) as u16,
        });
    }

    /// The last message, which begins at `start`, is none for the user.
    pub(super) fn forget_last(&mut self, start: usize) {
        self.entries.pop();
        self.bytes.truncate(start);
    }

    /// The last message brings this as well, and its first bytes are not the user's.
    pub(super) fn attach(
        &mut self,
        skip_bytes: usize,
        capabilities: Vec<Result<Capability, Error>>,
        reply_to: Option<ReplyTo>,
        segments: Vec<Segment>,
    ) {
        if let Some(entry) = self.entries.last_mut() {
            entry.start += skip_bytes;
            entry.len -= skip_bytes as u32;
            entry.extra = self.extras.len() as u32;
            self.extras.push(Extra { capabilities, reply_to, segments });
        }
    }

    /// The last message, which begins at `start`, has its payload in a segment.
    pub(super) fn replace_last(&mut self, start: usize, payload: &Segment) {
        // LIMIT: SEGMENT_PAYLOAD_BYTES_MAX.
        let end = start + payload.len();
        self.bytes.resize(end, 0);
        // As long as it is.
        let _ = payload.copy_out(0, &mut self.bytes[start..end]);
        if let Some(entry) = self.entries.last_mut() {
            entry.len = payload.len() as u32;
        }
    }

    #[inline]
    fn received(&self, index: usize) -> Received<'_> {
        let Entry { start, len, message_type, flags, peer, .. } = self.entries[index];
        let peer = &self.peers[peer as usize];
        Received {
            payload: &self.bytes[start..start + len as usize],
            message_type,
            flags,
            badge: peer.badge,
            lane: peer.lane,
            sender: &peer.identity,
            index,
        }
    }

    fn extra(&mut self, index: usize) -> Option<&mut Extra> {
        let extra = self.entries.get(index)?.extra;
        self.extras.get_mut(extra as usize)
    }
}
