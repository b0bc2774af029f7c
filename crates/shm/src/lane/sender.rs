//! The sender's side of a lane: writes records, publishes its position, learns what was acknowledged.
//!
//! Its own position and the number of messages sent are private; the shared position is only ever stored. From the
//! receiver it believes a position and a count, each judged against what is in flight.
//!
//! # Invariants
//! 1. `head - tail_seen <= ring bytes`, both multiples of the record alignment.
//! 2. `acknowledged <= sent`.
//! 3. After `state` has left `Open`, no memory is written except `waiting`, and `acknowledged` stays.

use core::sync::atomic::Ordering;

use keyway_abi::layout;

use crate::{
    lane::{
        Ending, LaneFault, LaneShapeError, RecordHeader, SendError, SleepOn, Wait,
        doorbell::Desk,
        record::record_bytes,
        ring::{Ring, check_writable},
    },
    status::{Status, Verdict},
    view::{View, Word},
};

/// The sending end of one lane.
#[derive(Debug)]
pub struct LaneSender {
    ring: Ring,
    own: Desk,
    peer: Desk,
    peer_messages: Word,
    status: Status,
    head: u32,
    tail_seen: u32,
    sent: u64,
    acknowledged: u64,
    state: State,
}

impl LaneSender {
    /// The sending end of a fresh lane: both memories are zero.
    ///
    /// `ring` is this process's own memory of exactly [`RECORDS_OFFSET`](layout::RECORDS_OFFSET)` + ring_bytes` bytes,
    /// `ack` the receiver's, and `ring_bytes` comes from the broker, not from either memory.
    ///
    /// # Errors
    ///
    /// [`LaneShapeError`] when the sizes do not fit each other.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "both views are given over to the lane, which keeps words of them"
    )]
    pub fn new(ring: View, ack: View, status: Status, ring_bytes: u32) -> Result<Self, LaneShapeError> {
        Self::starting_at(0, ring, &ack, status, ring_bytes)
    }

    /// A sender whose memories both say `position` already.
    pub(crate) fn starting_at(
        position: u32,
        ring: View,
        ack: &View,
        status: Status,
        ring_bytes: u32,
    ) -> Result<Self, LaneShapeError> {
        check_writable(&ring)?;
        let ring = Ring::new(ring, ack, ring_bytes)?;
        let missing = LaneShapeError::AcknowledgementMemory {
            len_bytes: ack.len_bytes(),
            needed_bytes: layout::PAGE_BYTES,
        };
        let sender = Self {
            own: Desk::new(ring.view())?,
            peer: Desk::new(ack)?,
            peer_messages: ack.word(layout::MESSAGES_OFFSET).ok_or(missing)?,
            ring,
            status,
            head: position,
            tail_seen: position,
            sent: 0,
            acknowledged: 0,
            state: State::Open,
        };
        sender.ring.view().store_u32(layout::VERSION_OFFSET, layout::LANE_LAYOUT_VERSION, Ordering::Relaxed);
        Ok(sender)
    }

    /// Sends one message, or says why not; never waits.
    ///
    /// After success ask [`LaneSender::must_wake_receiver`].
    ///
    /// # Errors
    ///
    /// [`SendError::Full`] until the receiver has taken enough: see [`LaneSender::prepare_wait`]. The others are final,
    /// `TooLarge` for this message and the rest for the lane.
    pub fn try_send(&mut self, header: RecordHeader, payload: &[u8]) -> Result<(), SendError> {
        // The word before the position: what a revoked or dead lane would swallow is never published.
        self.check_open()?;
        let record_bytes = self.check_size(payload.len())?;
        if self.free_bytes() < record_bytes {
            self.look()?;
        }
        if self.free_bytes() < record_bytes {
            return Err(SendError::Full);
        }
        self.ring.write(self.head, &header.encode(payload.len() as u32));
        self.ring.write(self.head.wrapping_add(layout::RECORD_HEADER_BYTES as u32), payload);
        self.head = self.head.wrapping_add(record_bytes);
        self.sent += 1;
        // SYNC lane-publish: the record's bytes before the position that commits them.
        self.own.position.store(self.head, Ordering::Release);
        Ok(())
    }

    /// How much was sent, and how much of it the receiver says it has taken, which is never more.
    ///
    /// After the lane's end this is the last word: what lies above `messages` has an unknown fate.
    pub fn acknowledged(&mut self) -> Acknowledged {
        if self.check_open().is_ok() {
            // A fault poisons the lane and keeps the count; the next send reports it.
            let _ = self.look();
        }
        Acknowledged { messages: self.acknowledged, sent: self.sent }
    }

    /// Announces that this side will sleep until `payload_bytes` fit, and looks once more whether they do.
    ///
    /// [`Wait::Ready`] too when the lane is over or the payload can never fit; [`LaneSender::try_send`] then says so.
    pub fn prepare_wait(&mut self, payload_bytes: usize) -> Wait {
        self.own.announce();
        if let Some(sleep_on) = self.wait_for(payload_bytes) {
            return Wait::Sleep(sleep_on);
        }
        self.own.retract();
        Wait::Ready
    }

    /// Takes the announcement of [`LaneSender::prepare_wait`] back, after the sleep.
    pub fn finish_wait(&mut self) {
        self.own.retract();
    }

    /// Whether the receiver may be asleep. To be asked after each successful send, or after the last of several.
    pub fn must_wake_receiver(&self) -> bool {
        self.peer.awaits()
    }

    /// The word that a sleeping receiver sleeps on: to wake it, wake this.
    pub fn receiver_wakes_on(&self) -> &Word {
        &self.own.position
    }

    /// The largest payload that this lane carries.
    pub fn payload_bytes_max(&self) -> usize {
        self.ring.bytes() as usize - layout::RECORD_HEADER_BYTES
    }

    /// Why the lane is over, once that was seen.
    pub fn ending(&self) -> Option<Ending> {
        match self.state {
            State::Ended(ending) => Some(ending),
            State::Open | State::Faulted(_) => None,
        }
    }

    /// What the receiver did wrong, once that was seen.
    pub fn fault(&self) -> Option<LaneFault> {
        match self.state {
            State::Faulted(fault) => Some(fault),
            State::Open | State::Ended(_) => None,
        }
    }

    /// What to sleep on, or `None` if there is a reason not to.
    fn wait_for(&mut self, payload_bytes: usize) -> Option<SleepOn> {
        self.check_open().ok()?;
        let record_bytes = self.check_size(payload_bytes).ok()?;
        self.look().ok()?;
        (self.free_bytes() < record_bytes).then(|| SleepOn {
            // `look` has just accepted this very value.
            peer: (self.peer.position.clone(), self.tail_seen),
            broker: (self.status.word().clone(), self.status.generation()),
        })
    }

    /// Refuses when the lane is over. On first learning so from the broker, takes a last look at what was acknowledged.
    fn check_open(&mut self) -> Result<(), SendError> {
        match self.state {
            State::Open => {}
            State::Ended(ending) => return Err(SendError::Ended(ending)),
            State::Faulted(fault) => return Err(SendError::Fault(fault)),
        }
        let ending = match self.status.verdict() {
            Verdict::Live => return Ok(()),
            Verdict::Dead => Ending::PeerDead,
            Verdict::Revoked => Ending::Revoked,
        };
        // The broker's word wins over what a dead or revoked receiver left behind; a fault keeps the count as it was.
        let _ = self.look();
        self.state = State::Ended(ending);
        Err(SendError::Ended(ending))
    }

    fn check_size(&self, payload_bytes: usize) -> Result<u32, SendError> {
        let bytes_max = self.payload_bytes_max();
        if payload_bytes > bytes_max {
            return Err(SendError::TooLarge { asked_bytes: payload_bytes, bytes_max });
        }
        // At most the ring, as its size is a multiple of the alignment.
        Ok(record_bytes(payload_bytes as u64) as u32)
    }

    fn free_bytes(&self) -> u32 {
        self.ring.bytes() - self.head.wrapping_sub(self.tail_seen)
    }

    /// Loads what the receiver has acknowledged, judges it and keeps it. The first fault poisons the lane.
    fn look(&mut self) -> Result<(), SendError> {
        // SYNC lane-acknowledge: the receiver's copy of a record, and its count, before the position that frees it.
        let position = self.peer.position.load(Ordering::Acquire);
        let messages = self.peer_messages.load(Ordering::Relaxed);
        let judged = self.judge_position(position).and_then(|()| self.judge_messages(messages));
        match judged {
            Ok(messages) => {
                self.tail_seen = position;
                self.acknowledged += u64::from(messages);
                Ok(())
            }
            Err(fault) => {
                self.state = State::Faulted(fault);
                Err(SendError::Fault(fault))
            }
        }
    }

    fn judge_position(&self, position: u32) -> Result<(), LaneFault> {
        let align_bytes = layout::RECORD_ALIGN_BYTES as u32;
        if !position.is_multiple_of(align_bytes) {
            return Err(LaneFault::PositionUnaligned { position, align_bytes });
        }
        let advanced_bytes = position.wrapping_sub(self.tail_seen);
        let bytes_max = self.head.wrapping_sub(self.tail_seen);
        if advanced_bytes > bytes_max {
            return Err(LaneFault::PositionAhead { advanced_bytes, bytes_max });
        }
        Ok(())
    }

    /// How many messages were acknowledged since the last look. Unambiguous: a look precedes each reuse of space, so
    /// fewer than 2^32 messages are in flight between two.
    fn judge_messages(&self, messages: u32) -> Result<u32, LaneFault> {
        let advanced_messages = messages.wrapping_sub(self.acknowledged as u32);
        let messages_max = self.sent - self.acknowledged;
        if u64::from(advanced_messages) > messages_max {
            return Err(LaneFault::MessagesAhead { advanced_messages, messages_max });
        }
        Ok(advanced_messages)
    }
}

/// What became of the messages of one lane, as far as its sender can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// Messages that the receiver has acknowledged, from the first on.
    pub messages: u64,
    /// Messages that were sent.
    pub sent: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Open,
    Ended(Ending),
    Faulted(LaneFault),
}
