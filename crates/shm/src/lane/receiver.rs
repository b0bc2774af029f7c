//! The receiver's side of a lane: judges what the sender committed, copies it out, acknowledges it.
//!
//! Nothing that the sender wrote is believed. The word that commits a record is loaded once and judged, and the payload
//! is copied into private memory before anyone sees it. A hostile sender can change a record while it is copied; what
//! it can reach by that is another message of its own.
//!
//! ```text
//!          word dead: all that is committed is walked once, its end pinned
//!   Open ────────────────────────────────────────────▶ Draining ──── nothing left ───▶ Ended(PeerDead)
//!    │ word revoked                                       │ word revoked
//!    └──────────────────────▶ Ended(Revoked) ◀────────────┘
//!   Open, Draining ──── a judgement failed ───▶ Faulted
//! ```
//!
//! # Invariants
//! 1. `peeked_bytes <= ring bytes - RING_RESERVED_BYTES`, a multiple of the record alignment.
//! 2. In `Draining`, nothing at or behind `last` is read.
//! 3. `peeked_messages` records lie in the `peeked_bytes` from `tail` on, each judged.
//! 4. `state` is never `Open` where the lane is stamped.
//!
//! Neighbours: `stamped` (when a message says that it was sent).

mod stamped;

use alloc::vec::Vec;
use core::{hint, ops::ControlFlow, sync::atomic::Ordering};

use keyway_abi::layout::{self, COMMIT_BYTES, RING_RESERVED_BYTES};

use crate::{
    lane::{
        Barrier, Ending, LaneFault, LaneShapeError, ReceiveError, RecordHeader, SleepOn, Wait, WakeBy,
        check_shape,
        doorbell::{Desk, OwnDesk},
        record::{Commit, Kind, Plain, aligned},
    },
    status::{Status, Verdict},
    view::{Appender, Records, View, Word},
};

pub use self::stamped::{Stamp, declared_clock};

/// So many small messages, of so many bytes together, are copied out before the first of them is read: a processor that reads what it
/// has just stored in another width waits, and lines that are fetched together come sooner.
const GROUP_MESSAGES: usize = 8;
const GROUP_BYTES: usize = 2048;
/// Whoever has taken so many messages since it last had none is in a stream of them.
const STREAM_MESSAGES_MIN: u64 = 4;
/// How long [`LaneReceiver::watch`] waits for a stream to go on: so many pauses, doubled so many times, in so many looks.
const GATHER_PAUSES_MIN: u32 = 8;
const GATHER_DOUBLINGS: u32 = 3;
const GATHER_LOOKS_MAX: u32 = 16;

/// What a processor fetches at a time. Where it is more, [`LaneReceiver::watch`] touches the same line twice.
const LINE_BYTES: u32 = 64;

/// The receiving end of one lane.
#[derive(Debug)]
pub struct LaneReceiver {
    records: Records,
    own: OwnDesk,
    peer: Desk,
    status: Status,
    /// What is acknowledged.
    tail: u32,
    /// The sender's position as it was last looked at, which is only before a sleep, and what was taken then.
    position_seen: u32,
    taken_seen: u64,
    taken: u64,
    /// What was taken when nothing was there for the last time.
    watched_at: u64,
    peeked_bytes: u32,
    peeked_messages: u64,
    state: State,
    /// Each payload has a stamp in front, which is not handed out with it.
    is_stamped: bool,
}

impl LaneReceiver {
    /// The receiving end of a fresh lane: `ack` is this process's own memory, and zero but for what
    /// [`Barrier::declare`] wrote.
    ///
    /// `ring` is the sender's memory of at least [`RECORDS_OFFSET`](layout::RECORDS_OFFSET)` + ring_bytes` bytes, and
    /// `ring_bytes` comes from the broker, not from the memory. `barrier` is what this process has declared.
    ///
    /// # Errors
    ///
    /// [`LaneShapeError`] when the sizes do not fit each other.
    pub fn new(
        ring: &View,
        ack: &View,
        status: Status,
        ring_bytes: u32,
        barrier: Barrier,
    ) -> Result<Self, LaneShapeError> {
        Self::starting_at(0, ring, ack, status, ring_bytes, barrier)
    }

    /// A receiver whose memories both say `position` already.
    pub(crate) fn starting_at(
        position: u32,
        ring: &View,
        ack: &View,
        status: Status,
        ring_bytes: u32,
        barrier: Barrier,
    ) -> Result<Self, LaneShapeError> {
        Ok(Self {
            records: check_shape(ring, ack, ring_bytes)?,
            own: OwnDesk::new(ack)?,
            peer: Desk::new(ring, barrier)?,
            status,
            tail: position,
            position_seen: position,
            taken_seen: 0,
            taken: 0,
            watched_at: 0,
            peeked_bytes: 0,
            peeked_messages: 0,
            state: State::Open,
            is_stamped: false,
        })
    }

    /// Takes the next message: its header, and its payload in place of what `out` held. `None` when there is none.
    ///
    /// After a message ask [`LaneReceiver::must_wake_sender`].
    ///
    /// # Errors
    ///
    /// [`ReceiveError::Ended`] and [`ReceiveError::Fault`], each for ever.
    #[inline]
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
        self.forget();
        let Some(record) = self.next_record()? else { return Ok(None) };
        let needed_bytes = record.payload_bytes;
        let given_bytes = out.len();
        let Some(payload) = out.get_mut(..needed_bytes) else {
            return Err(ReceiveError::BufferTooSmall { needed_bytes, given_bytes });
        };
        self.records.read(record.payload_at, payload);
        self.add_to_peeked(record);
        self.acknowledge();
        Ok(Some((record.header, needed_bytes)))
    }

    /// Copies the next message out without acknowledging it, so that what belongs to it can be claimed in between, in
    /// place of what `out` held.
    ///
    /// A second peek looks at the same place again, and judges it again.
    ///
    /// # Errors
    ///
    /// As [`LaneReceiver::try_receive`]. `out` is then unchanged.
    #[inline]
    pub fn peek(&mut self, out: &mut Vec<u8>) -> Result<Option<RecordHeader>, ReceiveError> {
        self.forget();
        let Some(record) = self.next_record()? else { return Ok(None) };
        out.clear();
        self.copy_out(record, out);
        Ok(Some(record.header))
    }

    /// Copies out the message behind those that were peeked and not yet acknowledged, appended to `out`, unless its payload
    /// has more than `bytes_max`. `None` when there is none, or it is larger.
    ///
    /// # Errors
    ///
    /// As [`LaneReceiver::try_receive`]. What was peeked before can still be acknowledged.
    #[inline]
    pub fn peek_more(
        &mut self,
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<Option<RecordHeader>, ReceiveError> {
        match self.next_record()? {
            Some(record) if record.payload_bytes <= bytes_max => {
                self.copy_out(record, out);
                Ok(Some(record.header))
            }
            _ => Ok(None),
        }
    }

    /// Copies out up to `max` messages behind those that were peeked and not yet acknowledged, appended to `out`, and tells
    /// of each where its payload begins and ends there; stops when `each` says so.
    ///
    /// # Errors
    ///
    /// As [`LaneReceiver::try_receive`], after the messages before it were told. They can still be acknowledged.
    #[inline]
    pub fn peek_many(
        &mut self,
        out: &mut Vec<u8>,
        max: usize,
        mut each: impl FnMut(usize, usize, RecordHeader) -> ControlFlow<()>,
    ) -> Result<(), ReceiveError> {
        let mut left = max;
        while left > 0 {
            match self.peek_plain(out, left, &mut each) {
                (count, ControlFlow::Continue(())) => left -= count,
                (_, ControlFlow::Break(())) => break,
            }
            if left == 0 {
                break;
            }
            // What is not ordinary: none, an extended one, an end, a fault.
            let Some(record) = self.next_record()? else { break };
            let start = out.len();
            self.copy_out(record, out);
            left -= 1;
            if each(start, out.len(), record.header).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The ordinary case of `peek_many`: as many plain records as there are, one after the other.
    #[inline(always)]
    fn peek_plain(
        &mut self,
        out: &mut Vec<u8>,
        max: usize,
        each: &mut impl FnMut(usize, usize, RecordHeader) -> ControlFlow<()>,
    ) -> (usize, ControlFlow<()>) {
        if !matches!(self.state, State::Open) {
            return (0, ControlFlow::Continue(()));
        }
        // All in registers: where the next record begins depends on what the last one said.
        let mut out = Appender::new(out);
        let mut peeked_bytes = self.peeked_bytes;
        let bytes_max = self.bytes_max();
        let mut flow = ControlFlow::Continue(());
        let mut count = 0;
        while count < max {
            let at = self.tail.wrapping_add(peeked_bytes);
            let Some(record) = self.plain_record(at, bytes_max - peeked_bytes) else { break };
            let start = out.len();
            out.append(&self.records, at.wrapping_add(COMMIT_BYTES as u32), record.payload_bytes);
            peeked_bytes += record.whole_bytes;
            count += 1;
            flow = each(
                start,
                out.len(),
                RecordHeader { message_type: record.message_type, flags: 0, ticket: 0 },
            );
            if flow.is_break() {
                break;
            }
        }
        self.peeked_bytes = peeked_bytes;
        self.peeked_messages += count as u64;
        (count, flow)
    }

    /// Takes the next message if that is the ordinary case: one without flags and ticket on an open lane. Answers its type and
    /// how many bytes it has, which are then the first of `out`; that is never made shorter. Whoever gets none asks
    /// [`LaneReceiver::peek`].
    ///
    /// After a message ask [`LaneReceiver::must_wake_sender`].
    #[inline(always)]
    pub fn take_plain(&mut self, out: &mut Vec<u8>) -> Option<(u32, usize)> {
        self.forget();
        let at = self.tail;
        let record = self.plain_record(at, self.bytes_max())?;
        let payload_at = at.wrapping_add(COMMIT_BYTES as u32);
        if !self.records.reader().take(payload_at, record.word_bytes(), out) {
            self.records.take_around(payload_at, record.word_bytes(), out);
        }
        advance(&self.own, (&mut self.tail, at.wrapping_add(record.whole_bytes)), (&mut self.taken, 1));
        Some((record.message_type, record.payload_bytes))
    }

    /// Takes up to `max` messages as [`LaneReceiver::take_plain`] does, and hands each to `each` with its type, until that says to
    /// stop. Answers how many.
    ///
    /// Up to eight are copied out before the first is handed on. They are acknowledged together, at the end or when they fill a
    /// quarter of the ring. What was not acknowledged when `each` panicked is received again.
    ///
    /// After a message ask [`LaneReceiver::must_wake_sender`].
    #[inline]
    pub fn take_each(
        &mut self,
        out: &mut Vec<u8>,
        max: usize,
        mut each: impl FnMut(u32, &[u8]) -> ControlFlow<()>,
    ) -> usize {
        self.forget();
        if !matches!(self.state, State::Open) {
            return 0;
        }
        let bytes_max = self.bytes_max();
        // So much may still lie behind a full portion.
        let portion_left = bytes_max - self.records.bytes() / 4;
        let Self { records, status, own, tail, taken, .. } = self;
        if out.len() < GROUP_BYTES {
            out.resize(GROUP_BYTES, 0);
        }
        // All in registers, whatever `each` does and whatever is copied.
        let (reader, status, mut scratch) = (records.reader(), status.glance(), out.as_mut_slice());
        let (mut at, mut bytes_left) = (*tail, bytes_max);
        let (mut messages, mut left) = (0, max);
        let mut group = [(0, 0); GROUP_MESSAGES];
        while left > 0 {
            let (mut count, mut next, mut used) = (0, at, 0);
            while count < left.min(GROUP_MESSAGES) && bytes_left > portion_left {
                // The order is the promise, as in `next_record`.
                let word = reader.load(next);
                if !status.is_live() {
                    break;
                }
                let Some(record) = Plain::judge(word, bytes_left) else { break };
                let payload_at = next.wrapping_add(COMMIT_BYTES as u32);
                if !reader.take(payload_at, record.word_bytes(), &mut scratch[used..]) {
                    if count > 0 {
                        break;
                    }
                    records.take_around(payload_at, record.word_bytes(), out);
                    scratch = out.as_mut_slice();
                }
                group[count] = (record.message_type, record.payload_bytes);
                used += record.word_bytes();
                next = next.wrapping_add(record.whole_bytes);
                bytes_left -= record.whole_bytes;
                count += 1;
            }
            let (mut handed, mut start, mut flow) = (0, 0, ControlFlow::Continue(()));
            for &(message_type, payload_bytes) in &group[..count] {
                handed += 1;
                flow = each(message_type, &scratch[start..start + payload_bytes]);
                start += aligned(payload_bytes);
                if flow.is_break() {
                    break;
                }
            }
            at = at.wrapping_add((start + handed * COMMIT_BYTES) as u32);
            messages += handed as u64;
            left -= handed;
            if count == 0 || flow.is_break() {
                break;
            }
            if bytes_left <= portion_left {
                advance(own, (tail, at), (taken, messages));
                (bytes_left, messages) = (bytes_max, 0);
            }
        }
        if messages > 0 {
            advance(own, (tail, at), (taken, messages));
        }
        max - left
    }

    /// Forgets what was peeked and not acknowledged: it will be received again.
    #[inline]
    pub fn forget(&mut self) {
        (self.peeked_bytes, self.peeked_messages) = (0, 0);
    }

    /// Takes the messages that were peeked, and gives their space back to the sender. Does nothing if none was.
    #[inline]
    pub fn acknowledge(&mut self) {
        if !self.has_peeked() {
            return;
        }
        let to = self.tail.wrapping_add(self.peeked_bytes);
        advance(&self.own, (&mut self.tail, to), (&mut self.taken, self.peeked_messages));
        self.forget();
    }

    /// Whether something was peeked and not yet acknowledged.
    #[inline]
    pub fn has_peeked(&self) -> bool {
        self.peeked_bytes != 0
    }

    /// Announces that this side will sleep until there is a message. A barrier must follow
    /// ([`own_barrier`](super::own_barrier) or `membarrier`, as declared), and then [`LaneReceiver::prepare_wait`].
    pub fn announce_wait(&mut self, by: WakeBy) {
        self.own.announce(by);
    }

    /// Looks once more, after the barrier, whether there is a message behind those that were peeked.
    ///
    /// [`Wait::Ready`] too when the lane is over; [`LaneReceiver::try_receive`] then says so. After either,
    /// [`LaneReceiver::finish_wait`].
    pub fn prepare_wait(&mut self) -> Wait {
        self.wait_for().map_or(Wait::Ready, Wait::Sleep)
    }

    /// Takes the announcement of [`LaneReceiver::announce_wait`] back.
    pub fn finish_wait(&mut self) {
        self.own.retract();
    }

    /// How the sender is to be woken if it may be asleep for want of space. To be asked after each message taken, or after
    /// the last of several.
    ///
    /// A sender is woken once a quarter of the ring is free, so that it does not fill one gap after the other and sleep in
    /// between. Whoever takes what is there comes to that point; a receiver that stops before it lets the sender sleep
    /// until its time is up.
    #[inline]
    pub fn must_wake_sender(&self) -> Option<WakeBy> {
        let by = self.peer.awaits()?;
        // What it says is used for nothing but its own wake. A position that lags behind what was taken is no use at all.
        let used_bytes = self.peer.position.load(Ordering::Relaxed).wrapping_sub(self.tail);
        let is_full = used_bytes > self.records.bytes() / 4 * 3 && used_bytes <= self.records.bytes();
        (!is_full).then_some(by)
    }

    /// The word that a sender sleeps on that wants a futex call: to wake it, wake this.
    pub fn sender_wakes_on(&self) -> &Word {
        &self.own.position
    }

    /// Whether a message, or an end, may be there. Cheaper than to try, and judges nothing.
    #[inline]
    pub fn is_ready(&self) -> bool {
        let at = self.tail.wrapping_add(self.peeked_bytes);
        !matches!(self.state, State::Open | State::Stamped)
            || self.records.peek(at) != 0
            || self.status.verdict() != Verdict::Live
    }

    /// Looks up to `looks` times, with a pause after each, until a message, or an end, may be there: for one who has nothing
    /// else to do, and then tries again. Without the pauses the line that is waited for would be taken from the sender just before
    /// it is written, and a round trip take a fifth longer.
    ///
    /// After each look the line behind the one that is waited for is fetched, so that both are on their way at the same time
    /// when a message comes that lies in two.
    ///
    /// Who has just taken several messages waits first until there are many again, or none is added: to look at each as it is
    /// written takes its line from the sender, and both are slower for it.
    #[inline]
    pub fn watch(&mut self, looks: u32) {
        if self.taken.wrapping_sub(self.watched_at) >= STREAM_MESSAGES_MIN {
            self.gather();
        }
        self.watched_at = self.taken;
        let at = self.tail.wrapping_add(self.peeked_bytes);
        let behind = at.wrapping_add(LINE_BYTES);
        for _ in 0..looks {
            if self.records.peek(at) != 0 || self.status.verdict() != Verdict::Live {
                return;
            }
            self.records.prefetch_to_read(behind);
            hint::spin_loop();
        }
    }

    /// Waits while the sender commits one message after the other, up to a quarter of the ring. What its position says is
    /// believed for this alone, and not for long.
    fn gather(&self) {
        let begin = self.peer.position.load(Ordering::Relaxed);
        let mut seen = begin;
        for look in 0..GATHER_LOOKS_MAX {
            for _ in 0..GATHER_PAUSES_MIN << look.min(GATHER_DOUBLINGS) {
                hint::spin_loop();
            }
            let position = self.peer.position.load(Ordering::Relaxed);
            if position == seen || position.wrapping_sub(begin) >= self.records.bytes() / 4 {
                return;
            }
            seen = position;
        }
    }

    /// How many messages were taken.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Why the lane is over, once nothing more can be received.
    pub fn ending(&self) -> Option<Ending> {
        match self.state {
            State::Ended(ending) => Some(ending),
            State::Open | State::Stamped | State::Draining { .. } | State::Faulted(_) => None,
        }
    }

    /// What the sender did wrong, once that was seen.
    pub fn fault(&self) -> Option<LaneFault> {
        match self.state {
            State::Faulted(fault) => Some(fault),
            State::Open | State::Stamped | State::Draining { .. } | State::Ended(_) => None,
        }
    }

    /// For tests that forge a record behind this one.
    #[cfg(all(test, not(loom)))]
    pub(super) fn tail(&self) -> u32 {
        self.tail
    }

    /// What to sleep on, or `None` if there is a reason not to.
    fn wait_for(&mut self) -> Option<SleepOn> {
        if !matches!(self.state, State::Open | State::Stamped) {
            return None;
        }
        let at = self.tail.wrapping_add(self.peeked_bytes);
        // SYNC lane-position: the position before the look at the record. Whoever sees the position of a record finds it.
        let position = self.peer.position.load(Ordering::Acquire);
        if self.records.peek(at) != 0 || self.status.verdict() != Verdict::Live {
            return None;
        }
        // An honest position is never ahead of what can be read. It moves only with messages, so that no sender keeps us
        // from our sleep by moving it.
        if let Err(fault) = self.judge_position(position, at) {
            self.state = State::Faulted(fault);
            return None;
        }
        (self.position_seen, self.taken_seen) = (position, self.taken);
        Some(SleepOn {
            peer: (self.peer.position.clone(), position),
            broker: (self.status.word().clone(), self.status.generation()),
        })
    }

    fn judge_position(&self, position: u32, read_to: u32) -> Result<(), LaneFault> {
        let align_bytes = layout::RECORD_ALIGN_BYTES as u32;
        if !position.is_multiple_of(align_bytes) {
            return Err(LaneFault::PositionUnaligned { position, align_bytes });
        }
        // Once something was taken, the position seen last may be laps behind. An honest one lags by one commit at most:
        // it is stored after each.
        let ring_bytes = self.records.bytes();
        let oldest =
            if self.taken == self.taken_seen { self.position_seen } else { read_to.wrapping_sub(ring_bytes) };
        let advanced_bytes = position.wrapping_sub(oldest);
        // A record that is gone again, after its position was seen, leaves no way to advance.
        let bytes_max =
            Some(read_to.wrapping_sub(oldest)).filter(|&bytes| bytes <= 2 * ring_bytes).unwrap_or(0);
        if advanced_bytes > bytes_max {
            return Err(LaneFault::PositionAhead { advanced_bytes, bytes_max });
        }
        Ok(())
    }

    /// The record at `at` if it is the ordinary case: a plain one, of at most so many bytes, of an open lane. Whoever gets none
    /// asks `next_record`, which judges what it is.
    #[inline(always)]
    fn plain_record(&self, at: u32, bytes_max: u32) -> Option<Plain> {
        // The order is the promise, as in `next_record`.
        let word = self.records.load(at);
        let is_live = self.status.glance().is_live() && matches!(self.state, State::Open);
        if is_live { Plain::judge(word, bytes_max) } else { None }
    }

    /// The next record that may be delivered, its first words copied and judged.
    #[inline]
    fn next_record(&mut self) -> Result<Option<Record>, ReceiveError> {
        let at = self.tail.wrapping_add(self.peeked_bytes);
        // The order is the promise: the commit, then the broker's word. A record committed after a revocation was stored
        // after the word, so whoever loads it sees the word. Swapped, such a record passes.
        let word = self.records.load(at);
        let verdict = self.status.verdict();
        if !matches!((self.state, verdict), (State::Open | State::Stamped, Verdict::Live)) {
            return self.next_record_at_end(verdict);
        }
        if word == 0 {
            return Ok(None);
        }
        match self.judge_record(at, word, self.committed_bytes_max()) {
            Ok(Kinded::Message(record)) => Ok(Some(record)),
            Ok(Kinded::Padding(bytes)) => self.pass_over(bytes),
            Err(fault) => Err(self.poison(fault)),
        }
    }

    /// Goes on at the ring's beginning. Once: padding cannot be judged to begin there.
    #[cold]
    fn pass_over(&mut self, bytes: u32) -> Result<Option<Record>, ReceiveError> {
        if self.peeked_bytes > 0 {
            self.peeked_bytes += bytes;
        } else {
            self.tail = self.tail.wrapping_add(bytes);
            // SYNC lane-acknowledge: as in `acknowledge`.
            self.own.position.store(self.tail, Ordering::Release);
        }
        self.next_record()
    }

    /// The next record of a lane that is not both open and alive.
    #[cold]
    fn next_record_at_end(&mut self, verdict: Verdict) -> Result<Option<Record>, ReceiveError> {
        match self.state {
            State::Ended(ending) => return Err(ReceiveError::Ended(ending)),
            State::Faulted(fault) => return Err(ReceiveError::Fault(fault)),
            State::Open | State::Stamped | State::Draining { .. } => {}
        }
        // A lane whose sender is dead can still be revoked.
        if verdict == Verdict::Revoked {
            self.state = State::Ended(Ending::Revoked);
            return Err(ReceiveError::Ended(Ending::Revoked));
        }
        let (last, after) = match self.state {
            State::Draining { last, after } => (last, after),
            _ => self.pin(),
        };
        let at = self.tail.wrapping_add(self.peeked_bytes);
        let committed_bytes = last.wrapping_sub(at);
        if committed_bytes == 0 {
            return Err(if let Some(fault) = after {
                self.poison(fault)
            } else {
                self.state = State::Ended(Ending::PeerDead);
                ReceiveError::Ended(Ending::PeerDead)
            });
        }
        let word = self.records.load(at);
        if word == 0 {
            return Err(self.poison(LaneFault::CommitWithdrawn { committed_bytes }));
        }
        match self.judge_record(at, word, committed_bytes) {
            Ok(Kinded::Message(record)) => Ok(Some(record)),
            Ok(Kinded::Padding(bytes)) => self.pass_over(bytes),
            Err(fault) => Err(self.poison(fault)),
        }
    }

    /// Walks over all that a dead sender had committed, and remembers its end: a process that it forked may go on writing.
    /// What the sender committed is visible by now. At most a ring's worth of records.
    fn pin(&mut self) -> (u32, Option<LaneFault>) {
        let mut last = self.tail.wrapping_add(self.peeked_bytes);
        let mut left_bytes = self.committed_bytes_max();
        let after = loop {
            let word = self.records.load(last);
            if word == 0 {
                break None;
            }
            match self.judge_record(last, word, left_bytes) {
                Ok(Kinded::Message(Record { whole_bytes: bytes, .. }) | Kinded::Padding(bytes)) => {
                    last = last.wrapping_add(bytes);
                    left_bytes -= bytes;
                }
                Err(fault) => break Some(fault),
            }
        };
        self.state = State::Draining { last, after };
        (last, after)
    }

    /// How much an honest sender can have committed behind what was peeked.
    #[inline]
    fn committed_bytes_max(&self) -> u32 {
        self.bytes_max() - self.peeked_bytes
    }

    /// How much an honest sender can have committed.
    #[inline]
    fn bytes_max(&self) -> u32 {
        self.records.bytes() - RING_RESERVED_BYTES as u32
    }

    /// Judges the word that commits the record at `at`, and copies what is behind it in an extended one.
    #[inline]
    fn judge_record(&self, at: u32, word: u64, bytes_max: u32) -> Result<Kinded, LaneFault> {
        let commit = Commit::decode(word)?;
        let record_bytes = commit.record_bytes();
        if record_bytes > bytes_max {
            return Err(LaneFault::RecordOverruns { record_bytes, bytes_max });
        }
        let extension = match commit.kind {
            Kind::Plain => 0,
            Kind::Extended => self.records.peek(at.wrapping_add(COMMIT_BYTES as u32)),
            Kind::Padding => return self.judge_padding(at, record_bytes),
        };
        let mut record = Record {
            header: commit.header(extension),
            payload_at: at.wrapping_add(commit.header_bytes()),
            payload_bytes: commit.payload_bytes as usize,
            whole_bytes: record_bytes,
        };
        if self.is_stamped {
            record.pass_over_stamp()?;
        }
        Ok(Kinded::Message(record))
    }

    #[cold]
    fn judge_padding(&self, at: u32, padding_bytes: u32) -> Result<Kinded, LaneFault> {
        let bytes_to_end = self.records.bytes_to_end(at);
        if padding_bytes != bytes_to_end {
            return Err(LaneFault::PaddingAstray { padding_bytes, bytes_to_end });
        }
        Ok(Kinded::Padding(padding_bytes))
    }

    /// Copies a judged record's payload out and remembers it as peeked.
    #[inline]
    fn copy_out(&mut self, record: Record, out: &mut Vec<u8>) {
        self.records.append(record.payload_at, record.payload_bytes, out);
        self.add_to_peeked(record);
    }

    #[inline]
    fn add_to_peeked(&mut self, record: Record) {
        self.peeked_bytes += record.whole_bytes;
        self.peeked_messages += 1;
    }

    #[cold]
    fn poison(&mut self, fault: LaneFault) -> ReceiveError {
        self.state = State::Faulted(fault);
        ReceiveError::Fault(fault)
    }
}

/// Gives the space of so many messages, up to there, back to the sender.
#[inline(always)]
fn advance(own: &OwnDesk, (tail, to): (&mut u32, u32), (taken, messages): (&mut u64, u64)) {
    *tail = to;
    *taken += messages;
    own.messages.store(*taken as u32, Ordering::Relaxed);
    // SYNC lane-acknowledge: our copy of the record, and the count, before the position that frees its space.
    own.position.store(to, Ordering::Release);
}

/// What a judged word commits.
enum Kinded {
    Message(Record),
    /// So many bytes up to the ring's end.
    Padding(u32),
}

/// A record whose first words were copied and judged: it lies wholly within what its sender may have committed.
#[derive(Clone, Copy)]
struct Record {
    header: RecordHeader,
    payload_at: u32,
    payload_bytes: usize,
    /// With header and padding.
    whole_bytes: u32,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Open,
    /// Open, and each payload has a stamp in front: no record is of the ordinary case.
    Stamped,
    /// The sender is dead: `last` is where what it committed ends, and `after` what was wrong there.
    Draining {
        last: u32,
        after: Option<LaneFault>,
    },
    Ended(Ending),
    Faulted(LaneFault),
}
