//! A queue and its receiver: many lanes come in, messages go out in turn.
//!
//! Neighbours: `inbox` (messages received together), `segments` (what messages name instead of carrying it).

mod inbox;
mod segments;

use std::{
    collections::{BTreeMap, VecDeque},
    ops::ControlFlow,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use keyway_abi::{
    Badge, BadgeBearer, Denial, Event, LaneId, PeerIdentity, QueueOrder, Reply, Rights, Ticket,
    layout::{PAGE_BYTES, RING_BYTES_MAX},
    limits::{ACKS_MAX, MESSAGE_CAPABILITIES_MAX, QUEUE_SENDERS_DEFAULT, STOCK_MAX},
    request,
};
use keyway_shm::{Access, LaneReceiver, ReceiveError, RecordHeader, Wait, WakeBy, Word};
use keyway_sys::{
    barrier, futex,
    memory::{Mapping, Populate},
};

use crate::{
    capability::Capability,
    control::{Arrival, Control},
    error::Error,
    fault::SegmentFault,
    message::{Message, Outgoing, ReplyTo, flags},
    segment::Segment,
    sender::{Sender, SenderOptions, timed_out},
    waiting::{SLEEP_MAX, Spinner, Until, WaitStyle},
};

pub use self::inbox::{Inbox, Received};
use self::segments::{Places, payload_bytes};

/// How a queue is to be.
#[derive(Clone, Copy, Debug)]
pub struct QueueOptions {
    /// Bytes of the largest ring that a sender may open: a power of two, 4 KiB to 1 GiB.
    pub ring_bytes_max: u32,
    /// Lanes that the queue takes at a time, 1 to 16 384; by default 120. More than some 1000 need a policy that lets this process
    /// have so many.
    pub senders_max: u16,
    /// Lanes that can be opened before this process looks, 1 to 64; more than `senders_max` or 16 are never there.
    pub stock: u8,
    /// In which order messages of several lanes are taken.
    pub order: QueueOrder,
    /// How to wait for messages.
    pub wait: WaitStyle,
}

impl Default for QueueOptions {
    fn default() -> Self {
        QueueOptions {
            ring_bytes_max: RING_BYTES_MAX,
            senders_max: QUEUE_SENDERS_DEFAULT,
            stock: 4,
            order: QueueOrder::default(),
            wait: WaitStyle::default(),
        }
    }
}

/// What a queue has to tell.
#[derive(Debug)]
pub enum Incoming {
    /// A sender has opened a lane.
    Opened(Peer),
    /// A message has come.
    Message(Message),
    /// A lane is over: all that its sender had committed has been received, or the lane was revoked.
    Ended {
        /// The lane.
        lane: LaneId,
        /// Who its sender was.
        peer: Peer,
        /// Why.
        why: Error,
    },
}

/// The sender of a lane.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The lane.
    pub lane: LaneId,
    /// The badge of the capability through which it was opened.
    pub badge: Option<Badge>,
    /// For whom that badge was made.
    pub bearer: BadgeBearer,
    /// Its priority: 0, the lowest, to 7.
    pub priority: u8,
    /// Who opened it, as Linux told the broker.
    pub identity: Arc<PeerIdentity>,
}

/// A queue, with this process as its receiver. Dropping it ends the queue; its senders are told.
#[derive(Debug)]
pub struct Queue {
    control: Arc<Control>,
    capability: Capability,
    object: u64,
    acks: BTreeMap<u32, Mapping>,
    senders_max: u16,
    stock: u8,
    lanes: Vec<Lane>,
    /// Where the next look begins, so that each lane has its turn.
    turn: usize,
    events_seen: u32,
    spinner: Spinner,
    buffer: Vec<u8>,
    told: VecDeque<Incoming>,
}

#[derive(Debug)]
struct Lane {
    peer: Peer,
    receiver: LaneReceiver,
    /// A capability to watch the sender; given up with the lane.
    process: Capability,
    /// Where its calls are answered.
    replies: Option<Sender>,
    /// The regions that it has brought.
    places: Places,
}

impl Queue {
    pub(crate) fn create(control: &Arc<Control>, options: QueueOptions) -> Result<Self, Error> {
        let QueueOptions { ring_bytes_max, senders_max, stock, order, wait } = options;
        if !(1..=STOCK_MAX).contains(&stock) {
            // None is lawful for the kernel, whose receiver may top up later; this library would never know when.
            let denial = Denial::InvalidCount { asked: stock.into(), max: STOCK_MAX.into() };
            return Err(Error::Denied { operation: "CreateQueue", denial });
        }
        let events_seen = control.events_seen();
        let request = request::CreateQueue { ring_bytes_max, senders_max, stock: stock.min(ACKS_MAX), order };
        let (reply, descriptors) = control.request(request)?;
        let Reply::Queue { queue: created, object, first_ack } = reply else {
            return Err(Error::BrokerIncoherent { operation: "CreateQueue" });
        };
        let mut queue = Queue {
            control: Arc::clone(control),
            capability: Capability::adopted(control, created.handle, created.rights),
            object,
            acks: BTreeMap::new(),
            senders_max,
            stock,
            lanes: Vec::new(),
            turn: 0,
            events_seen: events_seen.wrapping_sub(1),
            spinner: Spinner::new(wait),
            buffer: Vec::new(),
            told: VecDeque::new(),
        };
        queue.map_acks(first_ack, descriptors)?;
        queue.top_up();
        Ok(queue)
    }

    /// The capability that made the queue. What others may do with it is derived from it.
    pub fn capability(&self) -> &Capability {
        &self.capability
    }

    /// The number by which listings name the queue.
    pub fn object(&self) -> u64 {
        self.object
    }

    /// A capability to send to this queue, to be granted or sent on, with the badge by which its messages will be known.
    ///
    /// # Errors
    /// [`Error::Denied`] at a limit.
    pub fn sender_capability(&self, badge: Option<Badge>) -> Result<Capability, Error> {
        self.capability.derive(Rights::SEND | Rights::DERIVE | Rights::GRANT, badge)
    }

    /// Receives a message; waits for one.
    ///
    /// # Errors
    /// [`Error::BrokerGone`] and [`Error::SessionEnded`], once nothing that was sent is left.
    pub fn receive(&mut self) -> Result<Message, Error> {
        self.receive_until(Until::Forever)
    }

    /// Receives a message if there is one. Makes no system call, so it alone does not learn that the broker was killed: whatever
    /// waits, or asks the broker for something, does.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] when there is none, and as [`Queue::receive`].
    pub fn try_receive(&mut self) -> Result<Message, Error> {
        loop {
            match self.try_next()? {
                Some(Incoming::Message(message)) => return Ok(message),
                Some(_) => {}
                None => return Err(Error::WouldBlock),
            }
        }
    }

    /// Receives a message; waits for one, but no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], and as [`Queue::receive`].
    pub fn receive_timeout(&mut self, timeout: Duration) -> Result<Message, Error> {
        self.receive_until(Until::after(timeout)).map_err(|error| timed_out(error, timeout))
    }

    /// Receives a message or learns of a sender that came or went; waits for one, but no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], and as [`Queue::receive`].
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Incoming, Error> {
        self.next_until(Until::after(timeout)).map_err(|error| timed_out(error, timeout))
    }

    /// Receives a message into a buffer and answers how long it is; waits for one. What it brings besides bytes is dropped.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`], which leaves the message in place and says what it needs; and as [`Queue::receive`].
    pub fn receive_into(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut asleep_since = None;
        loop {
            if let Some(message) = self.take_next(buffer.len())? {
                self.spinner.settle(asleep_since);
                buffer[..message.payload.len()].copy_from_slice(&message.payload);
                let len = message.payload.len();
                self.buffer = message.payload;
                return Ok(len);
            }
            self.wait_once(Until::Forever, &mut asleep_since)?;
        }
    }

    /// Receives a message into the queue's own memory, where it stays until the next call; waits for one. Nothing is allocated.
    ///
    /// What the message brings besides bytes is dropped: who expects capabilities or calls receives with [`Queue::receive`] or
    /// [`Queue::receive_many`].
    ///
    /// # Errors
    /// As [`Queue::receive`].
    #[inline]
    pub fn receive_ref(&mut self) -> Result<Received<'_>, Error> {
        self.receive_ref_until(Until::Forever)
    }

    /// As [`Queue::receive_ref`], if there is a message.
    ///
    /// # Errors
    /// As [`Queue::try_receive`].
    #[inline]
    pub fn try_receive_ref(&mut self) -> Result<Received<'_>, Error> {
        if let Some((index, message_type)) = self.take_plain() {
            return Ok(self.lend_plain(index, message_type));
        }
        match self.take_ref()? {
            Some(taken) => Ok(self.lend(taken)),
            None => Err(Error::WouldBlock),
        }
    }

    /// As [`Queue::receive_ref`], but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As [`Queue::receive_timeout`].
    pub fn receive_ref_timeout(&mut self, timeout: Duration) -> Result<Received<'_>, Error> {
        self.receive_ref_until(Until::after(timeout)).map_err(|error| timed_out(error, timeout))
    }

    /// Receives what is there, up to `max` messages, in place of what the inbox held; waits for the first. Answers how many.
    ///
    /// All of a lane are acknowledged at once. That lanes came or ended is not told.
    ///
    /// # Errors
    /// As [`Queue::receive`].
    #[inline]
    pub fn receive_many(&mut self, inbox: &mut Inbox, max: usize) -> Result<usize, Error> {
        self.receive_many_until(inbox, max, Until::Forever)
    }

    /// As [`Queue::receive_many`], but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As [`Queue::receive_timeout`].
    pub fn receive_many_timeout(
        &mut self,
        inbox: &mut Inbox,
        max: usize,
        timeout: Duration,
    ) -> Result<usize, Error> {
        let received = self.receive_many_until(inbox, max, Until::after(timeout));
        received.map_err(|error| timed_out(error, timeout))
    }

    /// As [`Queue::receive_many`], if there is a message.
    ///
    /// # Errors
    /// As [`Queue::try_receive`].
    #[inline]
    pub fn try_receive_many(&mut self, inbox: &mut Inbox, max: usize) -> Result<usize, Error> {
        inbox.clear();
        match self.fill(inbox, max)? {
            0 => Err(Error::WouldBlock),
            count => Ok(count),
        }
    }

    /// The next message or news, if there is one.
    ///
    /// # Errors
    /// As [`Queue::receive`].
    pub fn try_next(&mut self) -> Result<Option<Incoming>, Error> {
        let lost = self.look_at_events().err();
        if let Some(news) = self.told.pop_front() {
            return Ok(Some(news));
        }
        for _ in 0..self.lanes.len() {
            let index = self.next_turn();
            if let Some(incoming) = self.take_from(index, usize::MAX)? {
                return Ok(Some(incoming));
            }
        }
        lost.map_or(Ok(None), Err)
    }

    /// The next message of at most so many bytes, each lane in its turn.
    fn take_next(&mut self, bytes_max: usize) -> Result<Option<Message>, Error> {
        let lost = self.catch_up();
        for _ in 0..self.lanes.len() {
            let index = self.next_turn();
            match self.take_from(index, bytes_max) {
                Ok(Some(Incoming::Message(message))) => return Ok(Some(message)),
                Ok(_) => {}
                Err(error) => {
                    // What stays in place is still the next.
                    self.turn = index;
                    return Err(error);
                }
            }
        }
        lost.map_or(Ok(None), Err)
    }

    /// Answers a call. Never waits: a caller that does not take its answers loses this one.
    ///
    /// # Errors
    /// [`Error::NoReplyExpected`] when the caller is gone, [`Error::WouldBlock`] when it takes no answers, and as
    /// [`Sender::send_message`].
    #[expect(clippy::needless_pass_by_value, reason = "a call is answered once")]
    pub fn reply(&mut self, to: ReplyTo, message: &Outgoing<'_>) -> Result<(), Error> {
        let ReplyTo { lane, number } = to;
        let sender = self.reply_sender(lane)?;
        sender.send_parts(message, flags::REPLY, &number.to_le_bytes(), Until::after(Duration::ZERO))
    }

    /// Sends something to one that makes calls, without having been asked: it comes out of
    /// [`Caller::next_notice`](crate::Caller::next_notice). Never waits.
    ///
    /// # Errors
    /// As [`Queue::reply`].
    pub fn notify(&mut self, lane: LaneId, message: &Outgoing<'_>) -> Result<(), Error> {
        let sender = self.reply_sender(lane)?;
        sender.send_parts(message, 0, &[], Until::after(Duration::ZERO))
    }

    /// Closes a lane: its sender is told, and what it had sent is dropped.
    pub fn close_lane(&mut self, lane: LaneId) {
        if let Some(index) = self.lanes.iter().position(|open| open.peer.lane == lane) {
            drop(self.remove_lane(index));
        }
    }

    /// A capability to watch the sender of a lane.
    pub fn sender_process(&self, lane: LaneId) -> Option<&Capability> {
        self.lanes.iter().find(|open| open.peer.lane == lane).map(|open| &open.process)
    }

    /// The lanes that are open, and who sends on them.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.lanes.iter().map(|lane| &lane.peer)
    }

    /// How to wait from now on.
    pub fn set_wait_style(&mut self, style: WaitStyle) {
        self.spinner.set_style(style);
    }

    #[inline]
    fn receive_ref_until(&mut self, until: Until) -> Result<Received<'_>, Error> {
        if let Some((index, message_type)) = self.take_plain() {
            return Ok(self.lend_plain(index, message_type));
        }
        let taken = match self.take_ref()? {
            Some(taken) => taken,
            None => self.take_ref_later(until)?,
        };
        Ok(self.lend(taken))
    }

    /// The ordinary case of `take_ref`: nothing is new, and the lane whose turn it is has a plain message.
    #[inline]
    fn take_plain(&mut self) -> Option<(usize, u32)> {
        if !self.is_caught_up() {
            return None;
        }
        let index = if self.turn >= self.lanes.len() { 0 } else { self.turn };
        let lane = self.lanes.get_mut(index)?;
        let message_type = lane.receiver.take_plain(&mut self.buffer)?;
        self.turn = index + 1;
        if lane.receiver.must_wake_sender().is_some() {
            // Whoever sleeps wakes by itself after a while; nothing is lost if this fails.
            let _ = wake_sender(&lane.receiver);
        }
        Some((index, message_type))
    }

    #[inline]
    fn lend_plain(&self, index: usize, message_type: u32) -> Received<'_> {
        let peer = &self.lanes[index].peer;
        Received {
            payload: &self.buffer,
            message_type,
            flags: 0,
            badge: peer.badge,
            lane: peer.lane,
            sender: &peer.identity,
            index: 0,
        }
    }

    fn take_ref_later(&mut self, until: Until) -> Result<Taken, Error> {
        let mut asleep_since = None;
        loop {
            if let Some(taken) = self.take_ref()? {
                self.spinner.settle(asleep_since);
                return Ok(taken);
            }
            self.wait_once(until, &mut asleep_since)?;
        }
    }

    /// Takes the next message into the queue's buffer, each lane in its turn.
    #[inline]
    fn take_ref(&mut self) -> Result<Option<Taken>, Error> {
        let lost = self.catch_up();
        for _ in 0..self.lanes.len() {
            let index = self.next_turn();
            let lane = &mut self.lanes[index];
            match lane.receiver.peek(&mut self.buffer) {
                Ok(None) => {}
                Ok(Some(header)) if header.flags & !flags::USER == 0 => {
                    lane.receiver.acknowledge();
                    wake_sender(&lane.receiver)?;
                    return Ok(Some(Taken { index, header, skip_bytes: 0 }));
                }
                unusual => {
                    if let Some(taken) = self.take_unusual(index, unusual)? {
                        return Ok(Some(taken));
                    }
                }
            }
        }
        lost.map_or(Ok(None), Err)
    }

    /// What was peeked brings more than bytes, or there was an end.
    #[cold]
    fn take_unusual(
        &mut self,
        index: usize,
        peeked: Result<Option<RecordHeader>, ReceiveError>,
    ) -> Result<Option<Taken>, Error> {
        let header = match peeked {
            Ok(Some(header)) => header,
            Ok(None) => return Ok(None),
            Err(error) => {
                let why = why_over(error, &self.lanes[index].receiver);
                drop(self.end_lane(index, why));
                return Ok(None);
            }
        };
        let mut capabilities = claim(&self.control, self.lanes[index].peer.lane, header);
        let payload = std::mem::take(&mut self.buffer);
        let meaning = self.interpret(index, header, &payload, &mut capabilities);
        self.buffer = payload;
        let lane = &mut self.lanes[index];
        lane.receiver.acknowledge();
        wake_sender(&lane.receiver)?;
        match meaning {
            Meaning::Nothing => Ok(None),
            Meaning::Fault(fault) => {
                drop(self.end_lane(index, Error::SegmentFault(fault)));
                Ok(None)
            }
            Meaning::Message { skip_bytes, brought, .. } => {
                let skip_bytes = brought.replace(&mut self.buffer).unwrap_or(skip_bytes);
                Ok(Some(Taken { index, header, skip_bytes }))
            }
        }
    }

    #[inline]
    fn lend(&self, taken: Taken) -> Received<'_> {
        let peer = &self.lanes[taken.index].peer;
        Received {
            payload: &self.buffer[taken.skip_bytes..],
            message_type: taken.header.message_type,
            flags: (taken.header.flags & flags::USER) as u16,
            badge: peer.badge,
            lane: peer.lane,
            sender: &peer.identity,
            index: 0,
        }
    }

    /// Hears what the broker has to tell, if anything; what came or went is told to nobody. Answers why nothing more will be
    /// heard, once that is so.
    #[cold]
    fn catch_up(&mut self) -> Option<Error> {
        let lost =
            if self.control.events_seen() == self.events_seen { None } else { self.look_at_events().err() };
        if !self.told.is_empty() {
            self.told.clear();
        }
        lost
    }

    #[inline]
    fn is_caught_up(&self) -> bool {
        self.control.events_seen() == self.events_seen && self.told.is_empty()
    }

    /// The lane whose turn it is.
    #[inline]
    fn next_turn(&mut self) -> usize {
        if self.turn >= self.lanes.len() {
            self.turn = 0;
        }
        self.turn += 1;
        self.turn - 1
    }

    #[inline]
    fn receive_many_until(&mut self, inbox: &mut Inbox, max: usize, until: Until) -> Result<usize, Error> {
        inbox.clear();
        match self.fill(inbox, max)? {
            0 => self.fill_later(inbox, max, until),
            count => Ok(count),
        }
    }

    fn fill_later(&mut self, inbox: &mut Inbox, max: usize, until: Until) -> Result<usize, Error> {
        let mut asleep_since = None;
        loop {
            match self.fill(inbox, max)? {
                0 => self.wait_once(until, &mut asleep_since)?,
                count => {
                    self.spinner.settle(asleep_since);
                    return Ok(count);
                }
            }
        }
    }

    /// Takes up to `max` messages from the lanes, each in its turn.
    #[inline]
    fn fill(&mut self, inbox: &mut Inbox, max: usize) -> Result<usize, Error> {
        let lost = if self.is_caught_up() { None } else { self.catch_up() };
        let mut left = self.lanes.len();
        while left > 0 && inbox.len() < max {
            let index = self.next_turn();
            left -= 1;
            self.fill_from(index, inbox, max)?;
            left = left.min(self.lanes.len());
        }
        match (inbox.len(), lost) {
            (0, Some(lost)) => Err(lost),
            (count, _) => Ok(count),
        }
    }

    /// Takes messages from one lane and acknowledges them, or learns that it is over.
    #[inline]
    fn fill_from(&mut self, index: usize, inbox: &mut Inbox, max: usize) -> Result<(), Error> {
        let lane = &mut self.lanes[index];
        // A message that brings more than bytes is looked at before the next one.
        let mut special = None;
        let left = max - inbox.len();
        let Inbox { bytes, .. } = inbox;
        let mut bytes = std::mem::take(bytes);
        let peeked = lane.receiver.peek_many(&mut bytes, left, |start, end, header| {
            inbox.add(start, end, header, &lane.peer);
            if header.flags & !flags::USER == 0 {
                return ControlFlow::Continue(());
            }
            special = Some((start, header));
            ControlFlow::Break(())
        });
        inbox.bytes = bytes;
        if let Some((start, header)) = special
            && !self.fill_special(index, header, start, inbox)
        {
            return Ok(());
        }
        let lane = &mut self.lanes[index];
        if lane.receiver.has_peeked() {
            lane.receiver.acknowledge();
            wake_sender(&lane.receiver)?;
        }
        if let Err(error) = peeked {
            let why = why_over(error, &lane.receiver);
            drop(self.end_lane(index, why));
        }
        Ok(())
    }

    /// The last message of the inbox, which begins at `start`, brings more than bytes. Tells whether the lane is still there.
    #[cold]
    fn fill_special(&mut self, index: usize, header: RecordHeader, start: usize, inbox: &mut Inbox) -> bool {
        let mut capabilities = claim(&self.control, self.lanes[index].peer.lane, header);
        match self.interpret(index, header, &inbox.bytes[start..], &mut capabilities) {
            Meaning::Nothing => inbox.forget_last(start),
            Meaning::Fault(fault) => {
                inbox.forget_last(start);
                drop(self.end_lane(index, Error::SegmentFault(fault)));
                return false;
            }
            Meaning::Message { reply_to, skip_bytes, brought: Brought::Payload(payload) } => {
                let _ = skip_bytes;
                inbox.replace_last(start, &payload);
                inbox.attach(0, capabilities, reply_to, Vec::new());
            }
            Meaning::Message { reply_to, skip_bytes, brought: Brought::Segments(segments) } => {
                inbox.attach(skip_bytes, capabilities, reply_to, segments);
            }
        }
        true
    }

    fn receive_until(&mut self, until: Until) -> Result<Message, Error> {
        loop {
            if let Incoming::Message(message) = self.next_until(until)? {
                return Ok(message);
            }
        }
    }

    fn next_until(&mut self, until: Until) -> Result<Incoming, Error> {
        self.next_or_stop(until, || None)
    }

    /// As `next_until`, but stops when `stop` gives a reason. It is asked before each sleep; what it looks at must be
    /// told by an event, as the end of a lane is.
    pub(crate) fn next_or_stop(
        &mut self,
        until: Until,
        mut stop: impl FnMut() -> Option<Error>,
    ) -> Result<Incoming, Error> {
        let mut asleep_since = None;
        loop {
            if let Some(incoming) = self.try_next()? {
                self.spinner.settle(asleep_since);
                return Ok(incoming);
            }
            if let Some(reason) = stop() {
                // What came before the reason is still to be told.
                return self.try_next()?.ok_or(reason);
            }
            self.wait_once(until, &mut asleep_since)?;
        }
    }

    /// Spins once more, or sleeps once.
    fn wait_once(&mut self, until: Until, asleep_since: &mut Option<Instant>) -> Result<(), Error> {
        if self.spinner.spin() {
            if self.spinner.is_clock_due() && until.is_over() {
                return Err(Error::WouldBlock);
            }
            if self.spinner.is_look_due() {
                self.control.pump()?;
            }
            return Ok(());
        }
        asleep_since.get_or_insert_with(Instant::now);
        self.sleep(until)
    }

    fn sleep(&mut self, until: Until) -> Result<(), Error> {
        let Some(timeout) = until.sleep() else { return Err(Error::WouldBlock) };
        sleep_on(&mut [self], timeout)
    }

    /// Looks once more whether there is something, after the announcement and a barrier, and collects the words to sleep on:
    /// every lane's position. Tells whether there is a reason not to.
    fn prepare_sleep(&mut self, words: &mut Vec<(Word, u32)>) -> bool {
        let mut is_ready = !self.told.is_empty();
        for lane in &mut self.lanes {
            match lane.receiver.prepare_wait() {
                Wait::Sleep(on) => words.push(on.peer),
                Wait::Ready => is_ready = true,
            }
        }
        is_ready
    }

    /// Takes a message from one lane, or learns that it is over.
    fn take_from(&mut self, index: usize, bytes_max: usize) -> Result<Option<Incoming>, Error> {
        let lane = &mut self.lanes[index];
        let header = match lane.receiver.peek(&mut self.buffer) {
            Ok(None) => return Ok(None),
            Ok(Some(header)) => header,
            Err(error) => {
                let why = why_over(error, &lane.receiver);
                return Ok(Some(self.end_lane(index, why)));
            }
        };
        let needed_bytes = payload_bytes(header, &self.buffer);
        if needed_bytes > bytes_max {
            lane.receiver.forget();
            return Err(Error::BufferTooSmall { needed_bytes, given_bytes: bytes_max });
        }
        let mut payload = std::mem::take(&mut self.buffer);
        let mut capabilities = claim(&self.control, lane.peer.lane, header);
        let meaning = self.interpret(index, header, &payload, &mut capabilities);
        let lane = &mut self.lanes[index];
        lane.receiver.acknowledge();
        wake_sender(&lane.receiver)?;
        let (reply_to, skip_bytes, brought) = match meaning {
            Meaning::Nothing => return Ok(None),
            Meaning::Fault(fault) => return Ok(Some(self.end_lane(index, Error::SegmentFault(fault)))),
            Meaning::Message { reply_to, skip_bytes, brought } => (reply_to, skip_bytes, brought),
        };
        if brought.replace(&mut payload).is_none() {
            payload.drain(..skip_bytes);
        }
        Ok(Some(Incoming::Message(Message {
            payload,
            message_type: header.message_type,
            flags: (header.flags & flags::USER) as u16,
            badge: lane.peer.badge,
            lane: lane.peer.lane,
            sender: Arc::clone(&lane.peer.identity),
            capabilities,
            segments: brought.into_segments(),
            reply_to,
        })))
    }

    /// What the library's own flags ask for.
    fn interpret(
        &mut self,
        index: usize,
        header: RecordHeader,
        payload: &[u8],
        capabilities: &mut Vec<Result<Capability, Error>>,
    ) -> Meaning {
        if header.flags & flags::REPLY_QUEUE != 0 {
            let queue = capabilities.pop();
            if let (Some(Ok(queue)), None) = (queue, &self.lanes[index].replies) {
                // A queue that cannot be opened is the caller's fault; its calls then go unanswered.
                let opened = Sender::open(&self.control, queue.handle(), SenderOptions::default());
                self.lanes[index].replies = opened.ok();
            }
            return Meaning::Nothing;
        }
        let (mut reply_to, mut skip_bytes) = (None, 0);
        if header.flags & (flags::CALL | flags::REPLY) != 0 {
            // A call without a number cannot be answered, and an answer without one answers nothing.
            let Some(number) = payload.first_chunk::<8>() else { return Meaning::Nothing };
            let lane = self.lanes[index].peer.lane;
            reply_to = Some(ReplyTo { lane, number: u64::from_le_bytes(*number) });
            skip_bytes = number.len();
        }
        if header.flags & flags::SEGMENTS == 0 {
            return Meaning::Message { reply_to, skip_bytes, brought: Brought::Segments(Vec::new()) };
        }
        let places = &mut self.lanes[index].places;
        match places.open(&self.control, &payload[skip_bytes..], capabilities) {
            Ok((brought, table_bytes)) => {
                Meaning::Message { reply_to, skip_bytes: skip_bytes + table_bytes, brought }
            }
            Err(fault) => Meaning::Fault(fault),
        }
    }

    fn look_at_events(&mut self) -> Result<(), Error> {
        let seen = self.control.events_seen();
        if seen == self.events_seen {
            return Ok(());
        }
        self.events_seen = seen;
        let pumped = self.control.pump();
        let handle = self.capability.handle();
        let (arrivals, dropped) = {
            let mut routes = self.control.routes();
            (routes.arrivals.remove(&handle), routes.acks_dropped.remove(&handle))
        };
        for ack in dropped.into_iter().flatten() {
            self.acks.remove(&ack);
        }
        for arrival in arrivals.into_iter().flatten() {
            self.open_lane(arrival);
        }
        if pumped.is_ok() {
            self.top_up();
        }
        pumped
    }

    fn open_lane(&mut self, arrival: Arrival) {
        let Event::LaneOpened {
            lane, ack, ring_bytes, priority, badge, bearer, peer, peer_handle, word, ..
        } = arrival.event
        else {
            return;
        };
        let process = Capability::adopted(&self.control, peer_handle, Rights::WATCH);
        let ack = self.acks.remove(&ack);
        let status = self.control.status(word);
        let opened = match (arrival.ring, ack, status) {
            (Some(ring), Some(ack), Ok(status)) => {
                let places = Places::new(&ring.view(), ack.view());
                LaneReceiver::new(&ring.view(), &ack.view(), status, ring_bytes, barrier::own())
                    .ok()
                    .zip(places)
            }
            _ => None,
        };
        let Some((receiver, places)) = opened else {
            // What cannot be mapped is no lane for us; its sender learns of it.
            let _ = self.control.ask(request::CloseLane { lane });
            return;
        };
        let peer = Peer { lane, badge, bearer, priority, identity: Arc::new(peer) };
        self.told.push_back(Incoming::Opened(peer.clone()));
        self.lanes.push(Lane { peer, receiver, process, replies: None, places });
    }

    /// Lays in what was used up, so that the next senders need not wait for us.
    fn top_up(&mut self) {
        let room = usize::from(self.senders_max).saturating_sub(self.lanes.len());
        let wanted = usize::from(self.stock).min(room);
        if self.acks.len() * 2 > wanted {
            return;
        }
        // LIMIT: STOCK_MAX; each round lays something in.
        while self.acks.len() < wanted {
            let count = (wanted - self.acks.len()).min(usize::from(ACKS_MAX)) as u8;
            let request = request::TopUp { queue: self.capability.handle(), count };
            // At a limit of our own: senders are told that the stock is empty until something is given back.
            let Ok((Reply::Acks { first_ack }, descriptors)) = self.control.request(request) else { return };
            if descriptors.is_empty() || self.map_acks(first_ack, descriptors).is_err() {
                return;
            }
        }
    }

    fn map_acks(&mut self, first: u32, descriptors: Vec<OwnedFd>) -> Result<(), Error> {
        let count = descriptors.len() as u8;
        if count == 0 {
            return Ok(());
        }
        for (index, fd) in (first..).zip(descriptors) {
            let mapping = Mapping::new(fd, PAGE_BYTES, Access::Write, Populate::OnUse)?;
            barrier::own().declare(&mapping.view());
            self.acks.insert(index, mapping);
        }
        let queue = self.capability.handle();
        self.control.ask(request::AcksMapped { queue, first, count }).map(drop)
    }

    fn end_lane(&mut self, index: usize, why: Error) -> Incoming {
        let peer = self.remove_lane(index);
        Incoming::Ended { lane: peer.lane, peer, why }
    }

    fn remove_lane(&mut self, index: usize) -> Peer {
        let lane = self.lanes.remove(index);
        if index < self.turn {
            self.turn -= 1;
        }
        // The broker may be gone.
        let _ = self.control.ask(request::CloseLane { lane: lane.peer.lane });
        self.top_up();
        lane.peer
    }

    fn reply_sender(&mut self, lane: LaneId) -> Result<&mut Sender, Error> {
        let open = self.lanes.iter_mut().find(|open| open.peer.lane == lane);
        open.and_then(|open| open.replies.as_mut()).ok_or(Error::NoReplyExpected)
    }
}

/// A message whose bytes are in the queue's buffer.
#[derive(Clone, Copy)]
struct Taken {
    index: usize,
    header: RecordHeader,
    /// Of the library's own, in front.
    skip_bytes: usize,
}

/// What a message is for the library.
enum Meaning {
    /// For itself.
    Nothing,
    /// For the user, without its first bytes.
    Message { reply_to: Option<ReplyTo>, skip_bytes: usize, brought: Brought },
    /// Not to be had: the lane is to be closed.
    Fault(SegmentFault),
}

/// What a message names instead of carrying it.
enum Brought {
    /// Its payload.
    Payload(Segment),
    /// Something besides its payload, or nothing.
    Segments(Vec<Segment>),
}

impl Brought {
    /// Puts the payload in place of what the record carried, if it comes as a segment, and answers how much to pass over.
    fn replace(&self, payload: &mut Vec<u8>) -> Option<usize> {
        let Brought::Payload(segment) = self else { return None };
        segment.copy_into(payload);
        Some(0)
    }

    fn into_segments(self) -> Vec<Segment> {
        match self {
            Brought::Payload(_) => Vec::new(),
            Brought::Segments(segments) => segments,
        }
    }
}

impl Peer {
    /// Whether two lanes were opened by the same session.
    pub fn is_same_process(&self, other: &Peer) -> bool {
        self.identity.process == other.identity.process
    }
}

/// Waits until one of the queues, which must be of one [`Client`](crate::Client), may have something to tell; then ask
/// each with [`Queue::try_next`]. Returns also when the time is over.
///
/// # Errors
/// As [`Queue::receive`]; `EINVAL` for queues with more than 127 lanes together.
pub fn wait_any(queues: &mut [&mut Queue], timeout: Duration) -> Result<(), Error> {
    sleep_on(queues, timeout.min(SLEEP_MAX))
}

/// Sleeps on every lane's position and on the event word, which grows also when a lane is revoked or its sender dies.
fn sleep_on(queues: &mut [&mut Queue], timeout: Duration) -> Result<(), Error> {
    let Some(first) = queues.first() else { return Ok(()) };
    let control = Arc::clone(&first.control);
    let mut words: Vec<(Word, u32)> = Vec::new();
    let mut is_ready = false;
    for lane in queues.iter_mut().flat_map(|queue| &mut queue.lanes) {
        lane.receiver.announce_wait(WakeBy::Futex);
    }
    barrier::make();
    for queue in queues.iter_mut() {
        words.push((control.event_word().clone(), queue.events_seen));
        is_ready |= queue.prepare_sleep(&mut words);
    }
    let mut woken = Ok(futex::Woken::Changed);
    if !is_ready {
        let words: Vec<(&Word, u32)> = words.iter().map(|(word, expected)| (word, *expected)).collect();
        woken = futex::wait(&words, timeout);
    }
    for lane in queues.iter_mut().flat_map(|queue| &mut queue.lanes) {
        lane.receiver.finish_wait();
    }
    if woken? == futex::Woken::TimedOut {
        // Nobody would tell of anything any more if the broker had died.
        control.pump()?;
    }
    Ok(())
}

/// Why nothing more comes from a lane.
fn why_over(error: ReceiveError, lane: &LaneReceiver) -> Error {
    match error {
        ReceiveError::Ended(ending) => {
            Error::LaneEnded { ending, acknowledged: lane.taken(), sent: lane.taken() }
        }
        ReceiveError::Fault(fault) => Error::PeerFault(fault),
        ReceiveError::BufferTooSmall { needed_bytes, given_bytes } => {
            Error::BufferTooSmall { needed_bytes, given_bytes }
        }
    }
}

#[inline]
fn wake_sender(lane: &LaneReceiver) -> Result<(), Error> {
    if lane.must_wake_sender().is_some() {
        futex::wake(lane.sender_wakes_on(), 1)?;
    }
    Ok(())
}

/// Takes the capabilities of a message out of escrow, before it is acknowledged.
fn claim(control: &Arc<Control>, lane: LaneId, header: RecordHeader) -> Vec<Result<Capability, Error>> {
    // LIMIT: MESSAGE_CAPABILITIES_MAX, whatever the sender says.
    let count = ((header.flags & flags::CAPABILITIES) >> flags::CAPABILITIES_SHIFT)
        .min(MESSAGE_CAPABILITIES_MAX as u32);
    let take = |offset: u32| {
        let ticket = Ticket(header.ticket.wrapping_add(offset));
        match control.request(request::EscrowTake { lane, ticket })?.0 {
            Reply::Taken(entry) => Ok(Capability::adopted(control, entry.handle, entry.rights)),
            _ => Err(Error::BrokerIncoherent { operation: "EscrowTake" }),
        }
    };
    (0..count).map(take).collect()
}
