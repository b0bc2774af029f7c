//! The receiver's side of a lane: judges what the sender published, copies it out, acknowledges it.
//!
//! Nothing that the sender wrote is believed. Its position is judged at each load, a record's header is copied once and
//! judged against the position, and the payload is copied into private memory before anyone sees it. A hostile sender
//! can change a record while it is copied; what it can reach by that is another message of its own.
//!
//! ```text
//!          word dead: position loaded once more, pinned
//!   Open ────────────────────────────────────────────▶ Draining ──── nothing left ───▶ Ended(PeerDead)
//!    │ word revoked                                       │ word revoked
//!    └──────────────────────▶ Ended(Revoked) ◀────────────┘
//!   Open, Draining ──── a judgement failed ───▶ Faulted
//! ```
//!
//! # Invariants
//! 1. `head_seen - tail <= ring bytes`, both multiples of the record alignment.
//! 2. In `Draining`, `head_seen` is the lane's last position; the sender's is not loaded again.
//! 3. `peeked_bytes` is the length of a record that lies between `tail` and `head_seen`.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use keyway_abi::layout;

use crate::{
    lane::{
        Ending, LaneFault, LaneShapeError, ReceiveError, RecordHeader, SleepOn, Wait,
        doorbell::Desk,
        record::record_bytes,
        ring::{Ring, check_writable},
    },
    status::{Status, Verdict},
    view::{View, Word},
};

/// The receiving end of one lane.
#[derive(Debug)]
pub struct LaneReceiver {
    ring: Ring,
    own: Desk,
    own_messages: Word,
    peer: Desk,
    status: Status,
    tail: u32,
    head_seen: u32,
    taken: u64,
    peeked_bytes: Option<u32>,
    state: State,
}

impl LaneReceiver {
    /// The receiving end of a fresh lane: `ack` is zero, and is this process's own memory.
    ///
    /// `ring` is the sender's memory of exactly [`RECORDS_OFFSET`](layout::RECORDS_OFFSET)` + ring_bytes` bytes, and
    /// `ring_bytes` comes from the broker, not from the memory.
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

    /// A receiver whose memories both say `position` already.
    pub(crate) fn starting_at(
        position: u32,
        ring: View,
        ack: &View,
        status: Status,
        ring_bytes: u32,
    ) -> Result<Self, LaneShapeError> {
        check_writable(ack)?;
        let ring = Ring::new(ring, ack, ring_bytes)?;
        let missing = LaneShapeError::AcknowledgementMemory {
            len_bytes: ack.len_bytes(),
            needed_bytes: layout::PAGE_BYTES,
        };
        Ok(Self {
            own: Desk::new(ack)?,
            own_messages: ack.word(layout::MESSAGES_OFFSET).ok_or(missing)?,
            peer: Desk::new(ring.view())?,
            ring,
            status,
            tail: position,
            head_seen: position,
            taken: 0,
            peeked_bytes: None,
            state: State::Open,
        })
    }

    /// Takes the next message: its header, and its payload in place of what `out` held. `None` when there is none.
    ///
    /// After a message ask [`LaneReceiver::must_wake_sender`].
    ///
    /// # Errors
    ///
    /// [`ReceiveError::Ended`] and [`ReceiveError::Fault`], each for ever.
    pub fn try_receive(&mut self, out: &mut Vec<u8>) -> Result<Option<RecordHeader>, ReceiveError> {
        let header = self.peek(out)?;
        self.acknowledge();
        Ok(header)
    }

    /// Takes the next message into a buffer: its header, and how many bytes its payload has.
    ///
    /// # Errors
    ///
    /// [`ReceiveError::BufferTooSmall`] leaves the message in place; the others are for ever.
    pub fn try_receive_into(
        &mut self,
        out: &mut [u8],
    ) -> Result<Option<(RecordHeader, usize)>, ReceiveError> {
        let Some(record) = self.next_record()? else { return Ok(None) };
        let needed_bytes = record.payload_bytes;
        let given_bytes = out.len();
        let Some(payload) = out.get_mut(..needed_bytes) else {
            return Err(ReceiveError::BufferTooSmall { needed_bytes, given_bytes });
        };
        self.copy_payload(record, payload);
        self.acknowledge();
        Ok(Some((record.header, needed_bytes)))
    }

    /// Copies the next message out without acknowledging it, so that what belongs to it can be claimed in between.
    ///
    /// A second peek looks at the same place again, and judges it again.
    ///
    /// # Errors
    ///
    /// As [`LaneReceiver::try_receive`]. `out` is then unchanged.
    pub fn peek(&mut self, out: &mut Vec<u8>) -> Result<Option<RecordHeader>, ReceiveError> {
        let Some(record) = self.next_record()? else { return Ok(None) };
        // Bytes that are overwritten at once need no zeroing first, hence no `clear`.
        out.resize(record.payload_bytes, 0);
        self.copy_payload(record, out);
        Ok(Some(record.header))
    }

    /// Takes the message that was peeked, and gives its space back to the sender. Does nothing if none was.
    pub fn acknowledge(&mut self) {
        let Some(record_bytes) = self.peeked_bytes.take() else { return };
        self.tail = self.tail.wrapping_add(record_bytes);
        self.taken += 1;
        self.own_messages.store(self.taken as u32, Ordering::Relaxed);
        // SYNC lane-acknowledge: our copy of the record, and the count, before the position that frees its space.
        self.own.position.store(self.tail, Ordering::Release);
    }

    /// Announces that this side will sleep until there is a message, and looks once more whether there is one.
    ///
    /// [`Wait::Ready`] too when the lane is over; [`LaneReceiver::try_receive`] then says so.
    pub fn prepare_wait(&mut self) -> Wait {
        self.own.announce();
        if let Some(sleep_on) = self.wait_for() {
            return Wait::Sleep(sleep_on);
        }
        self.own.retract();
        Wait::Ready
    }

    /// Takes the announcement of [`LaneReceiver::prepare_wait`] back, after the sleep.
    pub fn finish_wait(&mut self) {
        self.own.retract();
    }

    /// Whether the sender may be asleep for want of space and is to be woken now. To be asked after each message taken, or
    /// after the last of several.
    ///
    /// A sender is woken once a quarter of the ring is free, so that it does not fill one gap after the other and sleep in
    /// between. Whoever takes what is there comes to that point; a receiver that stops before it lets the sender sleep
    /// until its time is up.
    pub fn must_wake_sender(&self) -> bool {
        let used_bytes = self.head_seen.wrapping_sub(self.tail);
        used_bytes <= self.ring.bytes() / 4 * 3 && self.peer.awaits()
    }

    /// The word that a sleeping sender sleeps on: to wake it, wake this.
    pub fn sender_wakes_on(&self) -> &Word {
        &self.own.position
    }

    /// How many messages were taken.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Why the lane is over, once nothing more can be received.
    pub fn ending(&self) -> Option<Ending> {
        match self.state {
            State::Ended(ending) => Some(ending),
            State::Open | State::Draining | State::Faulted(_) => None,
        }
    }

    /// What the sender did wrong, once that was seen.
    pub fn fault(&self) -> Option<LaneFault> {
        match self.state {
            State::Faulted(fault) => Some(fault),
            State::Open | State::Draining | State::Ended(_) => None,
        }
    }

    /// For tests that forge a position ahead of this one.
    #[cfg(all(test, not(loom)))]
    pub(super) fn tail(&self) -> u32 {
        self.tail
    }

    /// What to sleep on, or `None` if there is a reason not to.
    fn wait_for(&self) -> Option<SleepOn> {
        let idle = matches!(self.state, State::Open) && self.head_seen == self.tail;
        // Any other value, lawful or not, is for the next receive to judge.
        let unmoved = idle && self.peer.position.load(Ordering::Relaxed) == self.head_seen;
        let live = unmoved && self.status.verdict() == Verdict::Live;
        live.then(|| SleepOn {
            peer: (self.peer.position.clone(), self.head_seen),
            broker: (self.status.word().clone(), self.status.generation()),
        })
    }

    /// The next record that may be delivered, its header copied and judged.
    fn next_record(&mut self) -> Result<Option<Record>, ReceiveError> {
        self.peeked_bytes = None;
        match self.state {
            State::Open => self.observe()?,
            State::Draining => self.observe_draining()?,
            State::Ended(ending) => return Err(ReceiveError::Ended(ending)),
            State::Faulted(fault) => return Err(ReceiveError::Fault(fault)),
        }
        if self.head_seen == self.tail {
            return match self.state {
                State::Draining => Err(self.end(Ending::PeerDead)),
                _ => Ok(None),
            };
        }
        match self.judge_record() {
            Ok(record) => Ok(Some(record)),
            Err(fault) => Err(self.poison(fault)),
        }
    }

    /// Brings `head_seen` up to date if nothing is left below it, and asks the broker whether we may go on.
    fn observe(&mut self) -> Result<(), ReceiveError> {
        // The order is the promise: the position, then the word. A record committed after a revocation has a position
        // that was stored after the word, so whoever loads that position sees the word. Swapped, such a record passes.
        let position = if self.head_seen == self.tail { self.load_position() } else { self.head_seen };
        let position = match self.status.verdict() {
            Verdict::Live => position,
            Verdict::Revoked => return Err(self.end(Ending::Revoked)),
            Verdict::Dead => {
                // What the dead sender had committed is visible by now. This load is the last: a process that it
                // forked may go on writing.
                self.state = State::Draining;
                self.load_position()
            }
        };
        match self.judge_position(position) {
            Ok(()) => {
                self.head_seen = position;
                Ok(())
            }
            Err(fault) => Err(self.poison(fault)),
        }
    }

    /// A lane whose sender is dead can still be revoked.
    fn observe_draining(&mut self) -> Result<(), ReceiveError> {
        match self.status.verdict() {
            Verdict::Revoked => Err(self.end(Ending::Revoked)),
            Verdict::Live | Verdict::Dead => Ok(()),
        }
    }

    fn load_position(&self) -> u32 {
        // SYNC lane-publish: the record's bytes before the position that commits them.
        self.peer.position.load(Ordering::Acquire)
    }

    fn judge_position(&self, position: u32) -> Result<(), LaneFault> {
        let align_bytes = layout::RECORD_ALIGN_BYTES as u32;
        if !position.is_multiple_of(align_bytes) {
            return Err(LaneFault::PositionUnaligned { position, align_bytes });
        }
        let advanced_bytes = position.wrapping_sub(self.head_seen);
        let bytes_max = self.ring.bytes() - self.head_seen.wrapping_sub(self.tail);
        if advanced_bytes > bytes_max {
            return Err(LaneFault::PositionAhead { advanced_bytes, bytes_max });
        }
        Ok(())
    }

    /// Copies the header at `tail` once and judges the copy.
    fn judge_record(&self) -> Result<Record, LaneFault> {
        let committed_bytes = self.head_seen.wrapping_sub(self.tail);
        let header_bytes = layout::RECORD_HEADER_BYTES as u32;
        if committed_bytes < header_bytes {
            return Err(LaneFault::HeaderOverruns { committed_bytes, header_bytes });
        }
        let mut bytes = [0; layout::RECORD_HEADER_BYTES];
        self.ring.read(self.tail, &mut bytes);
        let (header, payload_bytes) = RecordHeader::decode(bytes);
        let record_bytes = record_bytes(u64::from(payload_bytes));
        if record_bytes > u64::from(committed_bytes) {
            return Err(LaneFault::RecordOverruns { record_bytes, committed_bytes });
        }
        Ok(Record { header, payload_bytes: payload_bytes as usize, whole_bytes: record_bytes as u32 })
    }

    /// Copies a judged record's payload out and remembers it as peeked.
    fn copy_payload(&mut self, record: Record, out: &mut [u8]) {
        self.ring.read(self.tail.wrapping_add(layout::RECORD_HEADER_BYTES as u32), out);
        self.peeked_bytes = Some(record.whole_bytes);
    }

    fn end(&mut self, ending: Ending) -> ReceiveError {
        self.state = State::Ended(ending);
        ReceiveError::Ended(ending)
    }

    fn poison(&mut self, fault: LaneFault) -> ReceiveError {
        self.state = State::Faulted(fault);
        ReceiveError::Fault(fault)
    }
}

/// A record whose header was copied and judged: it lies wholly below the committed position.
#[derive(Clone, Copy)]
struct Record {
    header: RecordHeader,
    payload_bytes: usize,
    /// With header and padding.
    whole_bytes: u32,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Open,
    Draining,
    Ended(Ending),
    Faulted(LaneFault),
}
