//! A queue and its receiver: many lanes come in, messages go out in turn.
//!
//! Neighbours: `lanes` (which are looked at, whose turn it is), `by_arrival` (whose turn it is by when messages were sent), `arrivals` (lanes that come and go), `taking` (messages out
//! of lanes), `waiting` (asleep and awake), `inbox` (messages received together), `peeking` (a look at the next one), `segments` (what messages name instead of
//! carrying it).

mod arrivals;
mod by_arrival;
#[cfg(fuzzing)]
pub mod fuzzed;
mod inbox;
mod lanes;
mod peeking;
mod segments;
mod taking;
mod waiting;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use keyway_abi::{
    Badge, BadgeBearer, Denial, LaneId, PeerIdentity, QueueOrder, Reply, Rights,
    layout::RING_BYTES_MAX,
    limits::{ACKS_MAX, QUEUE_SENDERS_DEFAULT, SEGMENT_PAYLOAD_BYTES_MAX, STOCK_MAX},
    request,
};
use keyway_shm::arrival::ByArrival;
use keyway_sys::{clock, memory::Mapping};

use self::lanes::Lanes;
use crate::{
    alarm::Alarm,
    capability::Capability,
    control::Control,
    error::Error,
    message::{Message, Outgoing, ReplyTo, flags},
    sender::{Sender, timed_out},
    waiting::{Spinner, Until, WaitStyle},
};

pub use self::{
    inbox::{Inbox, Received},
    peeking::Peeked,
    waiting::wait_any,
};

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
    /// Bytes of the largest payload that a sender may send through a [pool](crate::LargePayloads), which [`Queue::receive`] copies into
    /// memory of this process: 256 MiB by default and at most. What fits a ring is bounded by `ring_bytes_max` alone.
    pub payload_bytes_max: u32,
    /// In which order messages of several lanes are taken. With [`QueueOrder::Arrival`] a message that was committed before another
    /// was sent is received first, among senders that say honestly when they sent: each message says so, in 8 bytes that only this
    /// library sees. One that lies gets before others by twice what fits into its ring, so `ring_bytes_max` is worth choosing.
    /// Senders in another time namespace count as having sent when the receiver looks. All lanes are looked at for it, also
    /// those that have had nothing for a while.
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
            payload_bytes_max: SEGMENT_PAYLOAD_BYTES_MAX as u32,
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
    payload_bytes_max: u32,
    lanes: Lanes,
    /// Whose turn it is, where that goes by arrival.
    by_arrival: Option<Box<ByArrival>>,
    /// The time namespace of this process, where stamps are compared.
    clock: Option<u32>,
    /// What it sleeps on when it has many lanes.
    alarm: Option<Alarm>,
    /// Messages since the doorbells were last looked at.
    since_look: u32,
    events_seen: u32,
    spinner: Spinner,
    /// What was received last by those who need no memory of their own: its first bytes.
    scratch: Vec<u8>,
    buffer: Vec<u8>,
    told: VecDeque<Incoming>,
}

impl Queue {
    pub(crate) fn create(control: &Arc<Control>, options: QueueOptions) -> Result<Self, Error> {
        let QueueOptions { ring_bytes_max, senders_max, stock, payload_bytes_max, order, wait } = options;
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
        let is_by_arrival = order == QueueOrder::Arrival;
        let mut queue = Queue {
            control: Arc::clone(control),
            capability: Capability::adopted(control, created.handle, created.rights),
            object,
            acks: BTreeMap::new(),
            senders_max,
            stock,
            payload_bytes_max: payload_bytes_max.min(SEGMENT_PAYLOAD_BYTES_MAX as u32),
            lanes: Lanes::new(order),
            by_arrival: is_by_arrival.then(Box::default),
            clock: if is_by_arrival { clock::namespace() } else { None },
            alarm: None,
            since_look: 0,
            events_seen: events_seen.wrapping_sub(1),
            spinner: Spinner::new(wait),
            scratch: Vec::new(),
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
        self.receive_into_until(buffer, Until::Forever)
    }

    /// As [`Queue::receive_into`], but waits no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], and as [`Queue::receive_into`].
    pub fn receive_into_timeout(&mut self, buffer: &mut [u8], timeout: Duration) -> Result<usize, Error> {
        let received = self.receive_into_until(buffer, Until::after(timeout));
        received.map_err(|error| timed_out(error, timeout))
    }

    /// As [`Queue::receive_into`], if there is a message.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] when there is none, and as [`Queue::receive_into`].
    pub fn try_receive_into(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut received = self.take_into(buffer)?;
        if received.is_none() && self.hear_cold()? {
            received = self.take_into(buffer)?;
        }
        received.ok_or(Error::WouldBlock)
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
        let taken = match self.take_plain() {
            Some(plain) => plain,
            None => self.wait_for_ref(Until::Forever)?,
        };
        self.lend(taken)
    }

    /// As [`Queue::receive_ref`], if there is a message.
    ///
    /// # Errors
    /// As [`Queue::try_receive`].
    #[inline]
    pub fn try_receive_ref(&mut self) -> Result<Received<'_>, Error> {
        if let Some(plain) = self.take_plain() {
            return self.lend(plain);
        }
        let mut taken = self.take_ref()?;
        if taken.is_none() && self.hear_cold()? {
            taken = self.take_ref()?;
        }
        taken.map_or(Err(Error::WouldBlock), |taken| self.lend(taken))
    }

    /// As [`Queue::receive_ref`], but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As [`Queue::receive_timeout`].
    pub fn receive_ref_timeout(&mut self, timeout: Duration) -> Result<Received<'_>, Error> {
        let taken = self.wait_for_ref(Until::after(timeout)).map_err(|error| timed_out(error, timeout))?;
        self.lend(taken)
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
        let mut count = self.fill(inbox, max)?;
        if count == 0 && self.hear_cold()? {
            count = self.fill(inbox, max)?;
        }
        if count == 0 { Err(Error::WouldBlock) } else { Ok(count) }
    }

    /// Receives what is there, up to `max` messages, and hands each on; waits for the first. Answers how many. The fastest way to
    /// receive many: each message is copied out of the lane once, into the queue's own memory, and gone with the next.
    ///
    /// What they bring besides bytes is dropped, as by [`Queue::receive_ref`], and that lanes came or ended is not told. Those of a
    /// lane are acknowledged together, so what was handed on last may be received again if `each` panics.
    ///
    /// # Errors
    /// As [`Queue::receive`].
    #[inline]
    pub fn receive_each(&mut self, max: usize, each: impl FnMut(Received<'_>)) -> Result<usize, Error> {
        self.receive_each_until(max, Until::Forever, each)
    }

    /// As [`Queue::receive_each`], but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As [`Queue::receive_timeout`].
    pub fn receive_each_timeout(
        &mut self,
        max: usize,
        timeout: Duration,
        each: impl FnMut(Received<'_>),
    ) -> Result<usize, Error> {
        let received = self.receive_each_until(max, Until::after(timeout), each);
        received.map_err(|error| timed_out(error, timeout))
    }

    /// As [`Queue::receive_each`], if there is a message.
    ///
    /// # Errors
    /// As [`Queue::try_receive`].
    #[inline]
    pub fn try_receive_each(
        &mut self,
        max: usize,
        mut each: impl FnMut(Received<'_>),
    ) -> Result<usize, Error> {
        let mut count = self.take_each(max, &mut each)?;
        if count == 0 && self.hear_cold()? {
            count = self.take_each(max, &mut each)?;
        }
        if count == 0 { Err(Error::WouldBlock) } else { Ok(count) }
    }

    /// The next message or news, if there is one.
    ///
    /// # Errors
    /// As [`Queue::receive`].
    pub fn try_next(&mut self) -> Result<Option<Incoming>, Error> {
        match self.next_now()? {
            None if self.hear_cold()? => self.next_now(),
            incoming => Ok(incoming),
        }
    }

    /// As `try_next`, without a look at the doorbells: whoever waits looks at those now and then.
    fn next_now(&mut self) -> Result<Option<Incoming>, Error> {
        let lost = self.look_at_events().err();
        if let Some(news) = self.told.pop_front() {
            return Ok(Some(news));
        }
        let incoming = self.take_next(usize::MAX)?;
        // Lanes may have come while it was looked whose turn it is.
        match (incoming.or_else(|| self.told.pop_front()), lost) {
            (None, Some(lost)) => Err(lost),
            (incoming, _) => Ok(incoming),
        }
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
        if let Some(slot) = self.lanes.slot(lane) {
            drop(self.remove_lane(slot));
        }
    }

    /// A capability to watch the sender of a lane.
    pub fn sender_process(&self, lane: LaneId) -> Option<&Capability> {
        self.lanes.get(self.lanes.slot(lane)?).map(|open| &open.process)
    }

    /// The lanes that are open, and who sends on them.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.lanes.iter().map(|lane| &lane.peer)
    }

    /// How to wait from now on.
    pub fn set_wait_style(&mut self, style: WaitStyle) {
        self.spinner.set_style(style);
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
            if let Some(incoming) = self.next_now()? {
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

    fn reply_sender(&mut self, lane: LaneId) -> Result<&mut Sender, Error> {
        let slot = self.lanes.slot(lane);
        let open = slot.and_then(|slot| self.lanes.get_mut(slot));
        open.and_then(|open| open.replies.as_deref_mut()).ok_or(Error::NoReplyExpected)
    }
}

impl Peer {
    /// Whether two lanes were opened by the same session.
    pub fn is_same_process(&self, other: &Peer) -> bool {
        self.identity.process == other.identity.process
    }
}
