//! The sender's side of a lane: writes records, commits them, learns what was acknowledged.
//!
//! Its own position and the number of messages sent are private; the shared ones are only ever stored. From the
//! receiver it believes a position and a count, each judged against what is in flight.
//!
//! # Invariants
//! 1. `head - tail_seen <= ring bytes - RING_RESERVED_BYTES`, all multiples of the record alignment.
//! 2. `acknowledged <= sent`.
//! 3. The word at `head` is 0 in the ring.
//! 4. After `state` has left `Open` and `Stamping`, no memory is written except `waiting`, and `acknowledged` stays.
//! 5. `state` is never `Open` where `clock` is there.
//!
//! Neighbours: `stamping` (what is different where messages say when they were sent).

mod stamping;

use alloc::vec::Vec;
use core::{hint, sync::atomic::Ordering};

use keyway_abi::layout::{self, COMMIT_BYTES, EXTENSION_BYTES, RING_RESERVED_BYTES};

use crate::{
    lane::{
        Barrier, Ending, LaneFault, LaneShapeError, RecordHeader, SendError, SleepOn, Wait, WakeBy,
        check_shape,
        doorbell::{Desk, OwnDesk},
        record::{aligned, padding, record_bytes},
    },
    status::{Status, Verdict},
    view::{Own, OwnRecords, View, Word},
};

pub use self::stamping::declare_clock;

/// So far ahead of what is written the next line is fetched: of the receiver, which has read it.
const PREFETCH_BYTES: u32 = 256;
/// Pauses between two looks of [`LaneSender::watch`].
const PAUSES: u32 = 4;

/// The sending end of one lane.
#[derive(Debug)]
pub struct LaneSender {
    /// Held, so that nobody else has it.
    _memory: Own,
    records: OwnRecords,
    own: OwnDesk,
    peer: Desk,
    status: Status,
    head: u32,
    tail_seen: u32,
    sent: u64,
    acknowledged: u64,
    /// For what is written in place and would meet the ring's end.
    around: Vec<u8>,
    state: State,
    /// What tells the time, where messages are stamped with it.
    clock: Option<fn() -> u64>,
}

impl LaneSender {
    /// The sending end of a fresh lane: both memories are zero but for what [`Barrier::declare`] wrote.
    ///
    /// `ring` is this process's own memory of at least [`RECORDS_OFFSET`](layout::RECORDS_OFFSET)` + ring_bytes` bytes,
    /// `ack` the receiver's, and `ring_bytes` comes from the broker, not from either memory. `barrier` is what this
    /// process has declared.
    ///
    /// # Errors
    ///
    /// [`LaneShapeError`] when the sizes do not fit each other.
    pub fn new(
        ring: Own,
        ack: &View,
        status: Status,
        ring_bytes: u32,
        barrier: Barrier,
    ) -> Result<Self, LaneShapeError> {
        Self::starting_at(0, ring, ack, status, ring_bytes, barrier)
    }

    /// A sender whose memories both say `position` already.
    pub(crate) fn starting_at(
        position: u32,
        ring: Own,
        ack: &View,
        status: Status,
        ring_bytes: u32,
        barrier: Barrier,
    ) -> Result<Self, LaneShapeError> {
        let records = check_shape(ring.all(), ack, ring_bytes)?;
        Ok(Self {
            records: OwnRecords::new(records).ok_or(LaneShapeError::NotWritable)?,
            own: OwnDesk::new(ring.view())?,
            peer: Desk::new(ack, barrier)?,
            _memory: ring,
            status,
            head: position,
            tail_seen: position,
            sent: 0,
            acknowledged: 0,
            around: Vec::new(),
            state: State::Open,
            clock: None,
        })
    }

    /// Sends one message, or says why not; never waits.
    ///
    /// After success ask [`LaneSender::must_wake_receiver`].
    ///
    /// # Errors
    ///
    /// [`SendError::Full`] until the receiver has taken enough: see [`LaneSender::prepare_wait`]. The others are final,
    /// `TooLarge` for this message and the rest for the lane.
    #[inline]
    pub fn try_send(&mut self, header: RecordHeader, payload: &[u8]) -> Result<(), SendError> {
        if !header.is_extended() && self.send_plain(header.message_type, payload) {
            return Ok(());
        }
        self.try_send_parts(header, &[payload])
    }

    /// Sends one message without flags and ticket if that is the ordinary case: an open lane in which there is room as far as
    /// is known. Whoever is told that it is not asks [`LaneSender::try_send`].
    ///
    /// After success ask [`LaneSender::must_wake_receiver`].
    #[inline(always)]
    pub fn send_plain(&mut self, message_type: u32, payload: &[u8]) -> bool {
        let Some(whole_bytes) = self.plain_bytes(payload.len()) else { return false };
        self.records.write_new(self.head.wrapping_add(COMMIT_BYTES as u32), payload);
        let header = RecordHeader { message_type, ..RecordHeader::default() };
        self.commit(header.commit_plain(payload.len() as u32), whole_bytes, 1);
        true
    }

    /// As [`LaneSender::send_plain`], of a payload that `fill` writes in place, where something else may be before. Not called
    /// unless there is room.
    #[inline(always)]
    pub fn send_plain_with(&mut self, payload_bytes: usize, fill: &mut impl FnMut(&mut [u8])) -> bool {
        // What is longer than the ring does not fit either.
        let whole_bytes = self.plain_bytes(payload_bytes.min(self.records.bytes() as usize));
        let Some(whole_bytes) = whole_bytes else { return false };
        self.fill(self.head.wrapping_add(COMMIT_BYTES as u32), payload_bytes, fill);
        // Whatever `fill` did took its time.
        if !self.status.glance().is_live() {
            return false;
        }
        self.commit(RecordHeader::default().commit_plain(payload_bytes as u32), whole_bytes, 1);
        true
    }

    /// The length of a plain record of so many bytes, if the lane is open and there is room for it as far as is known.
    #[inline(always)]
    fn plain_bytes(&self, payload_bytes: usize) -> Option<u32> {
        // The word before the commit, as in `try_send_parts`.
        if !matches!(self.state, State::Open) || !self.status.glance().is_live() {
            return None;
        }
        // No slice is so long that this overflows.
        let whole_bytes = aligned(payload_bytes + COMMIT_BYTES);
        // With room for an extension, as no payload is longer than one that has one. At most a ring's worth, or it does not fit.
        let fits = whole_bytes + EXTENSION_BYTES + RING_RESERVED_BYTES <= self.free_bytes() as usize;
        fits.then_some(whole_bytes as u32)
    }

    /// As [`LaneSender::try_send`], of a payload in several parts, each but the last a multiple of 8 bytes long.
    ///
    /// # Errors
    ///
    /// As [`LaneSender::try_send`].
    ///
    /// # Panics
    ///
    /// When a part that is not the last has another length.
    pub fn try_send_parts(&mut self, header: RecordHeader, parts: &[&[u8]]) -> Result<(), SendError> {
        // The word before the commit: what a revoked or dead lane would swallow is never published.
        self.check_open()?;
        let payload_bytes = parts.iter().map(|part| part.len()).sum();
        let whole_bytes = self.check_size(header, payload_bytes)?;
        self.make_room(whole_bytes)?;
        self.put(self.head, header, parts);
        self.stamp(self.head, header);
        self.commit(header.commit(self.carried_bytes(payload_bytes)), whole_bytes, 1);
        Ok(())
    }

    /// Sends several messages at once, all or none, or says why not.
    ///
    /// # Errors
    ///
    /// [`SendError::TooLarge`] when they can never fit together, and as [`LaneSender::try_send`].
    #[inline]
    pub fn try_send_all(&mut self, payloads: &[&[u8]]) -> Result<(), SendError> {
        if self.clock.is_some() {
            return self.try_send_all_stamped(payloads);
        }
        self.check_open()?;
        let ring_bytes = self.records.bytes() as usize;
        // LIMIT: what is counted stops above a ring, so that it cannot overflow.
        let all_bytes = payloads.iter().fold(0, |all_bytes: usize, payload| {
            let whole_bytes = aligned(payload.len().min(ring_bytes) + COMMIT_BYTES);
            (all_bytes + whole_bytes).min(2 * ring_bytes)
        });
        if all_bytes > ring_bytes - RING_RESERVED_BYTES {
            let bytes_max = self.payload_bytes_max();
            return Err(SendError::TooLarge { asked_bytes: all_bytes, bytes_max });
        }
        self.make_room(all_bytes as u32)?;
        let header = RecordHeader::default();
        let (mut at, mut first) = (self.head, 0);
        for payload in payloads {
            self.records.write(at.wrapping_add(COMMIT_BYTES as u32), payload);
            let word = header.commit_plain(payload.len() as u32);
            // The first word is kept back: all are committed by it.
            if at == self.head {
                first = word;
            } else {
                self.records.store(at, word);
            }
            at = at.wrapping_add(record_bytes(COMMIT_BYTES as u32, payload.len() as u32));
        }
        if !payloads.is_empty() {
            self.commit(first, all_bytes as u32, payloads.len() as u64);
        }
        Ok(())
    }

    /// Sends `count` messages of the same size at once, all or none, or says why not. `fill` writes each in place, where something
    /// else may be before; it is not called unless there is room for all.
    ///
    /// # Errors
    ///
    /// As [`LaneSender::try_send_all`].
    #[inline]
    pub fn try_send_each(
        &mut self,
        count: usize,
        payload_bytes: usize,
        fill: &mut impl FnMut(usize, &mut [u8]),
    ) -> Result<(), SendError> {
        self.check_open()?;
        let header = RecordHeader::default();
        let whole_bytes = self.check_size(header, payload_bytes)?;
        let all_bytes = (whole_bytes as usize).saturating_mul(count);
        if all_bytes > self.records.bytes() as usize - RING_RESERVED_BYTES {
            let bytes_max = self.payload_bytes_max();
            return Err(SendError::TooLarge { asked_bytes: all_bytes, bytes_max });
        }
        self.make_room(all_bytes as u32)?;
        let word = header.commit_plain(self.carried_bytes(payload_bytes));
        let is_stamped = self.stamp_bytes() > 0;
        let (mut at, before_bytes) = (self.head, COMMIT_BYTES + self.stamp_bytes());
        for index in 0..count {
            let payload_at = at.wrapping_add(before_bytes as u32);
            self.fill(payload_at, payload_bytes, &mut |payload: &mut [u8]| fill(index, payload));
            // The first word is kept back, as above.
            if index > 0 {
                if is_stamped {
                    self.stamp_as_before(at, header);
                }
                self.records.store(at, word);
            }
            at = at.wrapping_add(whole_bytes);
        }
        // Whatever `fill` did took its time.
        self.check_open()?;
        if count > 0 {
            self.stamp(self.head, header);
            self.commit(word, all_bytes as u32, count as u64);
        }
        Ok(())
    }

    /// Begins a batch: several messages that the receiver sees together, with one wake, or not at all.
    ///
    /// # Errors
    ///
    /// [`SendError::Ended`] and [`SendError::Fault`], for ever.
    pub fn batch(&mut self) -> Result<Batch<'_>, SendError> {
        self.check_open()?;
        Ok(Batch::new(self))
    }

    /// Lends `payload_bytes` of the ring, to be written in place and then committed as one message. Their content is
    /// whatever this lane carried there before.
    ///
    /// # Errors
    ///
    /// As [`LaneSender::try_send`]; [`SendError::TooLarge`] above [`LaneSender::loan_bytes_max`], as what is lent is in
    /// one piece.
    pub fn try_loan(&mut self, header: RecordHeader, payload_bytes: usize) -> Result<Loan<'_>, SendError> {
        self.check_loan(header, payload_bytes)?;
        Ok(self.loan(header, payload_bytes))
    }

    /// Whether [`LaneSender::loan`] would have so much to lend.
    ///
    /// # Errors
    ///
    /// As [`LaneSender::try_loan`].
    pub fn check_loan(&mut self, header: RecordHeader, payload_bytes: usize) -> Result<(), SendError> {
        self.check_open()?;
        let bytes_max = self.loan_bytes_max();
        if payload_bytes > bytes_max {
            return Err(SendError::TooLarge { asked_bytes: payload_bytes, bytes_max });
        }
        let whole_bytes = record_bytes(header.bytes(), self.carried_bytes(payload_bytes));
        self.make_room(self.gap_before(whole_bytes) + whole_bytes)
    }

    /// As [`LaneSender::try_loan`], after [`LaneSender::check_loan`] has said that there is room. An end of the lane is told
    /// by [`Loan::commit`].
    ///
    /// # Panics
    ///
    /// When there is no room.
    pub fn loan(&mut self, header: RecordHeader, payload_bytes: usize) -> Loan<'_> {
        let whole_bytes = record_bytes(header.bytes(), self.carried_bytes(payload_bytes));
        let gap_bytes = self.gap_before(whole_bytes);
        let room = self.make_room(gap_bytes + whole_bytes);
        // INVARIANT loan-has-room: `check_loan` has said so, and the receiver only ever makes more.
        assert!(
            room.is_ok() || !matches!(self.state, State::Open | State::Stamping),
            "INVARIANT loan-has-room"
        );
        let mut batch = Batch::new(self);
        if gap_bytes > 0 {
            batch.stage(padding(gap_bytes), gap_bytes);
        }
        Loan { at: batch.end(), batch, header, payload_bytes }
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

    /// Looks up to `looks` times, with pauses between, whether there is room for what was [`SendError::Full`] and for some more:
    /// for one who has nothing else to do.
    ///
    /// Each look takes from the receiver what it stores with each message, and costs it more than the message. So a sender waits
    /// for a quarter of the ring, if it need not wait long.
    pub fn watch(&mut self, needed_bytes: u32, looks: u32) {
        let needed_bytes = needed_bytes.max(self.records.bytes() / 4);
        for _ in 0..looks {
            if self.check_open().is_err() || self.look().is_err() || self.free_bytes() >= needed_bytes {
                return;
            }
            for _ in 0..PAUSES {
                hint::spin_loop();
            }
        }
    }

    /// Announces that this side will sleep until there is room. A barrier must follow ([`own_barrier`](super::own_barrier)
    /// or `membarrier`, as declared), and then [`LaneSender::prepare_wait`].
    pub fn announce_wait(&mut self, by: WakeBy) {
        self.own.announce(by);
    }

    /// Looks once more, after the barrier, whether there is room for what was [`SendError::Full`].
    ///
    /// [`Wait::Ready`] too when the lane is over; [`LaneSender::try_send`] then says so. After either,
    /// [`LaneSender::finish_wait`].
    pub fn prepare_wait(&mut self, needed_bytes: u32) -> Wait {
        self.wait_for(needed_bytes).map_or(Wait::Ready, Wait::Sleep)
    }

    /// Takes the announcement of [`LaneSender::announce_wait`] back.
    pub fn finish_wait(&mut self) {
        self.own.retract();
    }

    /// How the receiver is to be woken if it may be asleep. To be asked after each successful send, or after the last of
    /// several.
    #[inline]
    pub fn must_wake_receiver(&self) -> Option<WakeBy> {
        self.peer.awaits()
    }

    /// The word that a receiver sleeps on that wants a futex call: to wake it, wake this.
    pub fn receiver_wakes_on(&self) -> &Word {
        &self.own.position
    }

    /// The largest payload that this lane carries.
    pub fn payload_bytes_max(&self) -> usize {
        self.records.bytes() as usize
            - RING_RESERVED_BYTES
            - COMMIT_BYTES
            - EXTENSION_BYTES
            - self.stamp_bytes()
    }

    /// The largest payload that [`LaneSender::try_loan`] lends.
    pub fn loan_bytes_max(&self) -> usize {
        // In the worst case as much again is passed over, so that it is in one piece.
        self.records.bytes() as usize / 2 - COMMIT_BYTES - EXTENSION_BYTES - self.stamp_bytes()
    }

    /// Why the lane is over, once that was seen.
    pub fn ending(&self) -> Option<Ending> {
        match self.state {
            State::Ended(ending) => Some(ending),
            State::Open | State::Stamping | State::Faulted(_) => None,
        }
    }

    /// What the receiver did wrong, once that was seen.
    pub fn fault(&self) -> Option<LaneFault> {
        match self.state {
            State::Faulted(fault) => Some(fault),
            State::Open | State::Stamping | State::Ended(_) => None,
        }
    }

    /// What to sleep on, or `None` if there is a reason not to.
    fn wait_for(&mut self, needed_bytes: u32) -> Option<SleepOn> {
        self.check_open().ok()?;
        self.look().ok()?;
        (self.free_bytes() < needed_bytes).then(|| SleepOn {
            // `look` has just accepted this very value.
            peer: (self.peer.position.clone(), self.tail_seen),
            broker: (self.status.word().clone(), self.status.generation()),
        })
    }

    /// Refuses when the lane is over. On first learning so from the broker, takes a last look at what was acknowledged.
    #[inline]
    fn check_open(&mut self) -> Result<(), SendError> {
        match (self.state, self.status.verdict()) {
            (State::Open, Verdict::Live) => Ok(()),
            (_, verdict) => self.check_end(verdict),
        }
    }

    #[cold]
    fn check_end(&mut self, verdict: Verdict) -> Result<(), SendError> {
        match self.state {
            State::Open | State::Stamping => {}
            State::Ended(ending) => return Err(SendError::Ended(ending)),
            State::Faulted(fault) => return Err(SendError::Fault(fault)),
        }
        let ending = match verdict {
            Verdict::Live => return Ok(()),
            Verdict::Dead => Ending::PeerDead,
            Verdict::Revoked => Ending::Revoked,
        };
        // The broker's word wins over what a dead or revoked receiver left behind; a fault keeps the count as it was.
        let _ = self.look();
        self.state = State::Ended(ending);
        Err(SendError::Ended(ending))
    }

    /// The length of a message's record.
    #[inline]
    fn check_size(&self, header: RecordHeader, payload_bytes: usize) -> Result<u32, SendError> {
        let bytes_max = self.payload_bytes_max();
        if payload_bytes > bytes_max {
            return Err(SendError::TooLarge { asked_bytes: payload_bytes, bytes_max });
        }
        Ok(record_bytes(header.bytes(), self.carried_bytes(payload_bytes)))
    }

    /// Sees to it that so many bytes can be committed, and the word behind them cleared.
    #[inline]
    fn make_room(&mut self, bytes: u32) -> Result<(), SendError> {
        // At most two rings and a word, so it cannot overflow.
        let needed_bytes = bytes + RING_RESERVED_BYTES as u32;
        if self.free_bytes() < needed_bytes {
            self.look()?;
            if self.free_bytes() < needed_bytes {
                return Err(SendError::Full { needed_bytes });
            }
        }
        Ok(())
    }

    /// Writes all of a record but the word that commits it.
    #[inline]
    fn put(&mut self, at: u32, header: RecordHeader, parts: &[&[u8]]) {
        if let Some(extension) = header.extension() {
            self.records.store(at.wrapping_add(COMMIT_BYTES as u32), extension);
        }
        let mut at = self.payload_at(at, header);
        for (index, part) in parts.iter().enumerate() {
            // INVARIANT parts-are-words: the caller's promise; else the next part would begin within a word.
            assert!(
                index + 1 == parts.len() || part.len().is_multiple_of(layout::RECORD_ALIGN_BYTES),
                "INVARIANT parts-are-words"
            );
            self.records.write(at, part);
            at = at.wrapping_add(part.len() as u32);
        }
    }

    /// Has a plain record's payload written in place.
    #[inline(always)]
    fn fill(&mut self, payload_at: u32, payload_bytes: usize, fill: &mut impl FnMut(&mut [u8])) {
        if !payload_bytes.is_multiple_of(layout::RECORD_ALIGN_BYTES) {
            // Nothing of an earlier record stays in the padding.
            let last = payload_bytes - payload_bytes % layout::RECORD_ALIGN_BYTES;
            self.records.store(payload_at.wrapping_add(last as u32), 0);
        }
        match self.records.slice_mut(payload_at, payload_bytes) {
            Some(payload) => fill(payload),
            None => self.fill_around(payload_at, payload_bytes, fill),
        }
    }

    /// As above, where the ring's end is in between.
    #[cold]
    fn fill_around(&mut self, payload_at: u32, payload_bytes: usize, fill: &mut impl FnMut(&mut [u8])) {
        self.around.clear();
        self.around.resize(payload_bytes, 0);
        fill(&mut self.around);
        self.records.write(payload_at, &self.around);
    }

    /// Commits what was written from `head` on, whose first word is `first`.
    #[inline]
    fn commit(&mut self, first: u64, bytes: u32, messages: u64) {
        let end = self.head.wrapping_add(bytes);
        self.records.store(end, 0);
        self.records.prefetch_to_write(end.wrapping_add(PREFETCH_BYTES));
        self.records.publish(self.head, first);
        self.head = end;
        self.sent += messages;
        self.own.messages.store(self.sent as u32, Ordering::Relaxed);
        // SYNC lane-position: the commit before the position, so that who sees the position finds the record.
        self.own.position.store(end, Ordering::Release);
    }

    /// What is passed over up to the ring's end, so that so many bytes are in one piece.
    fn gap_before(&self, bytes: u32) -> u32 {
        let bytes_to_end = self.records.bytes_to_end(self.head);
        if bytes > bytes_to_end { bytes_to_end } else { 0 }
    }

    #[inline]
    fn free_bytes(&self) -> u32 {
        self.records.bytes() - self.head.wrapping_sub(self.tail_seen)
    }

    /// Loads what the receiver has acknowledged, judges it and keeps it. The first fault poisons the lane.
    fn look(&mut self) -> Result<(), SendError> {
        // SYNC lane-acknowledge: the receiver's copy of a record, and its count, before the position that frees it.
        let position = self.peer.position.load(Ordering::Acquire);
        let messages = self.peer.messages.load(Ordering::Relaxed);
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

/// Several messages that are committed together. Dropped without [`Batch::commit`], none of them was ever sent.
#[derive(Debug)]
pub struct Batch<'l> {
    lane: &'l mut LaneSender,
    /// The word that commits the first record, and with it all: stored last.
    first: u64,
    staged_bytes: u32,
    messages: u64,
    /// The first message, padding aside, which is stamped when all are committed.
    stamped: Option<(u32, RecordHeader)>,
}

impl<'l> Batch<'l> {
    fn new(lane: &'l mut LaneSender) -> Self {
        Batch { lane, first: 0, staged_bytes: 0, messages: 0, stamped: None }
    }

    /// Adds a message, or says why not. What was added before stays.
    ///
    /// # Errors
    ///
    /// [`SendError::Full`] when it does not fit beside what is untaken and what was added, [`SendError::TooLarge`] when it
    /// would not fit beside the latter alone. As [`LaneSender::try_send`] else.
    pub fn push(&mut self, header: RecordHeader, payload: &[u8]) -> Result<(), SendError> {
        let whole_bytes = self.lane.check_size(header, payload.len())?;
        let all_bytes = self.staged_bytes + whole_bytes;
        if all_bytes > self.lane.records.bytes() - RING_RESERVED_BYTES as u32 {
            let (asked_bytes, bytes_max) = (all_bytes as usize, self.lane.payload_bytes_max());
            return Err(SendError::TooLarge { asked_bytes, bytes_max });
        }
        self.lane.make_room(all_bytes)?;
        self.lane.put(self.end(), header, &[payload]);
        self.stage_message(header, payload.len(), whole_bytes);
        Ok(())
    }

    /// How many messages were added.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Sends them all, and gives the lane back. After that ask [`LaneSender::must_wake_receiver`].
    ///
    /// # Errors
    ///
    /// [`SendError::Ended`] and [`SendError::Fault`]; then none was sent.
    #[inline]
    pub fn commit(self) -> (&'l mut LaneSender, Result<(), SendError>) {
        // As with a single message: the word before the commit.
        let open = self.lane.check_open();
        if open.is_ok() && self.staged_bytes > 0 {
            if let Some((at, header)) = self.stamped {
                self.lane.stamp(at, header);
            }
            self.lane.commit(self.first, self.staged_bytes, self.messages);
        }
        (self.lane, open)
    }

    fn end(&self) -> u32 {
        self.lane.head.wrapping_add(self.staged_bytes)
    }

    /// A message is where the batch ends: all of it but its first word and its stamp.
    fn stage_message(&mut self, header: RecordHeader, payload_bytes: usize, whole_bytes: u32) {
        let at = self.end();
        if self.messages == 0 {
            self.stamped = Some((at, header));
        } else {
            self.lane.stamp_as_before(at, header);
        }
        self.stage(header.commit(self.lane.carried_bytes(payload_bytes)), whole_bytes);
        self.messages += 1;
    }

    /// Keeps the first word back, and stores those behind it: nobody looks there before.
    fn stage(&mut self, word: u64, bytes: u32) {
        if self.staged_bytes == 0 {
            self.first = word;
        } else {
            self.lane.records.store(self.end(), word);
        }
        self.staged_bytes += bytes;
    }
}

/// A part of the ring that is lent to be written in place. Dropped without [`Loan::commit`], nothing was sent.
#[derive(Debug)]
pub struct Loan<'l> {
    batch: Batch<'l>,
    at: u32,
    header: RecordHeader,
    payload_bytes: usize,
}

impl<'l> Loan<'l> {
    /// What is lent, as it is now.
    pub fn payload(&self) -> &[u8] {
        let at = self.batch.lane.payload_at(self.at, self.header);
        let payload = self.batch.lane.records.slice(at, self.payload_bytes);
        // INVARIANT loan-in-one-piece: as below.
        payload.expect("INVARIANT loan-in-one-piece")
    }

    /// What is lent, to be written.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let at = self.batch.lane.payload_at(self.at, self.header);
        let payload = self.batch.lane.records.slice_mut(at, self.payload_bytes);
        // INVARIANT loan-in-one-piece: `loan` has passed over what would be in two.
        payload.expect("INVARIANT loan-in-one-piece")
    }

    /// Sends the first `payload_bytes` of it, at most what was lent. After that ask [`LaneSender::must_wake_receiver`].
    ///
    /// # Errors
    ///
    /// [`SendError::TooLarge`] for more than was lent; [`SendError::Ended`] and [`SendError::Fault`]. Nothing was sent.
    pub fn commit(mut self, payload_bytes: usize) -> (&'l mut LaneSender, Result<(), SendError>) {
        if payload_bytes > self.payload_bytes {
            let (asked_bytes, bytes_max) = (payload_bytes, self.payload_bytes);
            return (self.batch.lane, Err(SendError::TooLarge { asked_bytes, bytes_max }));
        }
        if let Some(extension) = self.header.extension() {
            self.batch.lane.records.store(self.at.wrapping_add(COMMIT_BYTES as u32), extension);
        }
        let whole_bytes = record_bytes(self.header.bytes(), self.batch.lane.carried_bytes(payload_bytes));
        self.batch.stage_message(self.header, payload_bytes, whole_bytes);
        self.batch.commit()
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
    /// Open, and each message is stamped: not what `send_plain` sends.
    Stamping,
    Ended(Ending),
    Faulted(LaneFault),
}
