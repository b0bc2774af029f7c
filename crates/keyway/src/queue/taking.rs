//! Taking messages from the lanes, one by one or many.

use std::{ops::ControlFlow, sync::Arc, time::Instant};

use keyway_abi::{LaneId, Reply, Ticket, limits::MESSAGE_CAPABILITIES_MAX, request};
use keyway_shm::RecordHeader;

use crate::{
    capability::Capability,
    control::Control,
    error::Error,
    fault::SegmentFault,
    message::{Message, ReplyTo, flags},
    queue::{Inbox, Incoming, Queue, Received, segments::payload_bytes},
    segment::Segment,
    sender::{Sender, SenderOptions},
    waiting::Until,
};

impl Queue {
    /// Waits for the next message.
    pub(super) fn wait_for_ref(&mut self, until: Until) -> Result<Taken, Error> {
        let mut asleep_since = None;
        loop {
            let taken = match self.take_plain() {
                Some(plain) => Some(plain),
                None => self.take_ref()?,
            };
            if let Some(taken) = taken {
                self.spinner.settle(asleep_since);
                return Ok(taken);
            }
            self.wait_once(until, &mut asleep_since)?;
        }
    }

    /// The ordinary case of `take_ref`: nothing is new, and the lane whose turn it is has a plain message.
    #[inline]
    pub(super) fn take_plain(&mut self) -> Option<Taken> {
        if !self.is_caught_up() {
            return None;
        }
        let (slot, is_only) = self.lanes.current()?;
        let lane = self.lanes.get_mut(slot)?;
        let (message_type, payload_bytes) = lane.receiver.take_plain(&mut self.scratch)?;
        if !is_only {
            lane.credit.pay(payload_bytes);
        }
        lane.is_busy = true;
        if lane.receiver.must_wake_sender().is_some() {
            // Whoever sleeps wakes by itself after a while; nothing is lost if this fails.
            let _ = self.wake_sender(slot);
        }
        self.count(1);
        Some(Taken { slot, message_type, flags: 0, skip_bytes: 0, scratch_bytes: Some(payload_bytes) })
    }

    #[inline]
    pub(super) fn receive_each_until(
        &mut self,
        max: usize,
        until: Until,
        mut each: impl FnMut(Received<'_>),
    ) -> Result<usize, Error> {
        let mut asleep_since = None;
        loop {
            let count = self.take_each(max, &mut each)?;
            if count > 0 || max == 0 {
                self.spinner.settle(asleep_since);
                return Ok(count);
            }
            self.wait_once(until, &mut asleep_since)?;
        }
    }

    /// Hands on up to `max` messages from the lanes, each in its turn.
    #[inline]
    pub(super) fn take_each(
        &mut self,
        max: usize,
        each: &mut impl FnMut(Received<'_>),
    ) -> Result<usize, Error> {
        let mut count = 0;
        while count < max {
            count += self.take_each_plain(max - count, each);
            let is_done = count > 0 && self.lanes.only().is_some();
            if count >= max || is_done {
                break;
            }
            match self.take_ref() {
                Ok(None) => break,
                Ok(Some(taken)) => {
                    each(self.lend(taken)?);
                    count += 1;
                }
                // What is lost is told again.
                Err(_) if count > 0 => break,
                Err(lost) => return Err(lost),
            }
        }
        Ok(count)
    }

    /// The ordinary case, as `take_plain`, of one lane.
    #[inline]
    fn take_each_plain(&mut self, max: usize, each: &mut impl FnMut(Received<'_>)) -> usize {
        if !self.is_caught_up() {
            return 0;
        }
        let Some((slot, is_only)) = self.lanes.current() else { return 0 };
        let Some(super::lanes::Lane { peer, receiver, credit, is_busy, .. }) = self.lanes.get_mut(slot)
        else {
            return 0;
        };
        let count = receiver.take_each(&mut self.scratch, max, |message_type, payload| {
            each(Received {
                payload,
                message_type,
                flags: 0,
                badge: peer.badge,
                lane: peer.lane,
                sender: &peer.identity,
                index: 0,
            });
            if is_only {
                return ControlFlow::Continue(());
            }
            credit.pay(payload.len());
            if credit.is_left() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        if count > 0 {
            *is_busy = true;
            if receiver.must_wake_sender().is_some() {
                // As in `take_plain`.
                let _ = self.wake_sender(slot);
            }
            self.count(count);
        }
        count
    }

    /// Takes the next message into the queue's buffer, each lane in its turn.
    pub(super) fn take_ref(&mut self) -> Result<Option<Taken>, Error> {
        let lost = self.catch_up();
        for _ in 0..=self.turns() {
            let Some(slot) = self.next_lane() else { break };
            let Some(lane) = self.lanes.get_mut(slot) else { break };
            match lane.receiver.peek(&mut self.buffer) {
                Ok(None) => self.found_nothing(slot),
                Ok(Some(header)) => {
                    let (meaning, _) = self.understand(slot, header);
                    self.acknowledge(slot, payload_bytes(header, &self.buffer, self.payload_bytes_max));
                    match meaning {
                        Meaning::Nothing => {}
                        Meaning::Fault(fault) => drop(self.end_lane_for(slot, Error::SegmentFault(fault))),
                        Meaning::Message { skip_bytes, brought, .. } => {
                            let skip_bytes = brought.replace(&mut self.buffer).unwrap_or(skip_bytes);
                            let RecordHeader { message_type, flags, .. } = header;
                            return Ok(Some(Taken {
                                slot,
                                message_type,
                                flags,
                                skip_bytes,
                                scratch_bytes: None,
                            }));
                        }
                    }
                }
                Err(error) => drop(self.end_lane(slot, error)),
            }
        }
        lost.map_or(Ok(None), Err)
    }

    /// One place makes it, so that the compiler keeps it in registers.
    #[inline]
    pub(super) fn lend(&self, taken: Taken) -> Result<Received<'_>, Error> {
        let Some(lane) = self.lanes.get(taken.slot) else { return Err(Error::WouldBlock) };
        let payload = match taken.scratch_bytes {
            Some(bytes) => &self.scratch[..bytes],
            None => &self.buffer[taken.skip_bytes..],
        };
        Ok(Received {
            payload,
            message_type: taken.message_type,
            flags: (taken.flags & flags::USER) as u16,
            badge: lane.peer.badge,
            lane: lane.peer.lane,
            sender: &lane.peer.identity,
            index: 0,
        })
    }

    /// The next message of at most so many bytes, each lane in its turn; or the end of a lane.
    pub(super) fn take_next(&mut self, bytes_max: usize) -> Result<Option<Incoming>, Error> {
        for _ in 0..=self.turns() {
            let Some(slot) = self.next_lane() else { break };
            // That a lane was opened is told before what came on it.
            if !self.told.is_empty() {
                break;
            }
            if let Some(incoming) = self.take_from(slot, bytes_max)? {
                return Ok(Some(incoming));
            }
        }
        Ok(None)
    }

    pub(super) fn receive_into_until(&mut self, buffer: &mut [u8], until: Until) -> Result<usize, Error> {
        let mut asleep_since = None;
        loop {
            if let Some(len) = self.take_into(buffer)? {
                self.spinner.settle(asleep_since);
                return Ok(len);
            }
            self.wait_once(until, &mut asleep_since)?;
        }
    }

    /// Takes the next message into a buffer, and what else there is before it for nobody.
    pub(super) fn take_into(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Error> {
        let lost = self.catch_up();
        loop {
            match self.take_next(buffer.len())? {
                Some(Incoming::Message(message)) => {
                    let len = message.payload.len();
                    buffer[..len].copy_from_slice(&message.payload);
                    self.buffer = message.payload;
                    return Ok(Some(len));
                }
                Some(_) => {}
                None => return lost.map_or(Ok(None), Err),
            }
        }
    }

    /// Takes a message from one lane, or learns that it is over.
    pub(super) fn take_from(&mut self, slot: usize, bytes_max: usize) -> Result<Option<Incoming>, Error> {
        let Some(lane) = self.lanes.get_mut(slot) else { return Ok(None) };
        let header = match lane.receiver.peek(&mut self.buffer) {
            Ok(None) => {
                self.found_nothing(slot);
                return Ok(None);
            }
            Ok(Some(header)) => header,
            Err(error) => return Ok(self.end_lane(slot, error)),
        };
        let needed_bytes = payload_bytes(header, &self.buffer, self.payload_bytes_max);
        if needed_bytes > bytes_max {
            lane.receiver.forget();
            return Err(Error::BufferTooSmall { needed_bytes, given_bytes: bytes_max });
        }
        let (meaning, capabilities) = self.understand(slot, header);
        self.acknowledge(slot, needed_bytes);
        let (reply_to, skip_bytes, brought) = match meaning {
            Meaning::Nothing => return Ok(None),
            Meaning::Fault(fault) => return Ok(self.end_lane_for(slot, Error::SegmentFault(fault))),
            Meaning::Message { reply_to, skip_bytes, brought } => (reply_to, skip_bytes, brought),
        };
        let Some(lane) = self.lanes.get(slot) else { return Ok(None) };
        let mut payload = std::mem::take(&mut self.buffer);
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

    #[inline]
    pub(super) fn receive_many_until(
        &mut self,
        inbox: &mut Inbox,
        max: usize,
        until: Until,
    ) -> Result<usize, Error> {
        inbox.clear();
        match self.fill(inbox, max)? {
            0 => self.fill_later(inbox, max, until),
            count => Ok(count),
        }
    }

    fn fill_later(&mut self, inbox: &mut Inbox, max: usize, until: Until) -> Result<usize, Error> {
        let mut asleep_since: Option<Instant> = None;
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
    pub(super) fn fill(&mut self, inbox: &mut Inbox, max: usize) -> Result<usize, Error> {
        let lost = if self.is_caught_up() { None } else { self.catch_up() };
        if let Some(slot) = self.lanes.only() {
            self.fill_from(slot, inbox, max)?;
        } else if self.by_arrival.is_some() {
            self.fill_by_arrival(inbox, max)?;
        } else {
            // Each turn makes progress: a message, or the end of a lane.
            for _ in 0..=self.lanes.hot().len() + max {
                // What came through pools is copied here: of such, one more than this queue takes at a time.
                if inbox.len() >= max || inbox.bytes.len() >= self.payload_bytes_max as usize {
                    break;
                }
                let Some(slot) = self.lanes.next() else { break };
                self.fill_from(slot, inbox, max)?;
            }
        }
        self.count(inbox.len());
        match (inbox.len(), lost) {
            (0, Some(lost)) => Err(lost),
            (count, _) => Ok(count),
        }
    }

    /// Takes messages from one lane, as many as its credit is good for, and acknowledges them; or learns that it is over.
    #[inline]
    pub(super) fn fill_from(&mut self, slot: usize, inbox: &mut Inbox, max: usize) -> Result<(), Error> {
        let is_only = self.lanes.only().is_some();
        let Some(lane) = self.lanes.get_mut(slot) else { return Ok(()) };
        // A message that brings more than bytes is looked at before the next one.
        let mut special = None;
        let left = max - inbox.len();
        let mut bytes = std::mem::take(&mut inbox.bytes);
        let super::lanes::Lane { peer, receiver, credit, is_busy, .. } = lane;
        let peeked = receiver.peek_many(&mut bytes, left, |start, end, header| {
            inbox.add(start, end, header, peer);
            *is_busy = true;
            if !is_only {
                credit.pay(end - start);
            }
            if header.flags & !flags::USER != 0 {
                special = Some((start, header));
                return ControlFlow::Break(());
            }
            if is_only || credit.is_left() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        inbox.bytes = bytes;
        if let Some((start, header)) = special
            && !self.fill_special(slot, header, start, inbox)
        {
            return Ok(());
        }
        let Some(lane) = self.lanes.get_mut(slot) else { return Ok(()) };
        if lane.receiver.has_peeked() {
            lane.receiver.acknowledge();
            if lane.receiver.must_wake_sender().is_some() {
                // As in `take_plain`.
                let _ = self.wake_sender(slot);
            }
        }
        if let Err(error) = peeked {
            drop(self.end_lane(slot, error));
        }
        Ok(())
    }

    /// The last message of the inbox, which begins at `start`, brings more than bytes. Tells whether the lane is still there.
    #[cold]
    fn fill_special(&mut self, slot: usize, header: RecordHeader, start: usize, inbox: &mut Inbox) -> bool {
        let Some(lane) = self.lanes.get(slot) else { return false };
        let mut capabilities = claim(&self.control, lane.peer.lane, header);
        match self.interpret(slot, header, &inbox.bytes[start..], &mut capabilities) {
            Meaning::Nothing => inbox.forget_last(start),
            Meaning::Fault(fault) => {
                inbox.forget_last(start);
                drop(self.end_lane_for(slot, Error::SegmentFault(fault)));
                return false;
            }
            Meaning::Message { reply_to, brought: Brought::Payload(payload), .. } => {
                if let Some(lane) = self.lanes.get_mut(slot) {
                    lane.credit.pay(payload.len());
                }
                inbox.replace_last(start, &payload);
                inbox.attach(0, capabilities, reply_to, Vec::new());
            }
            Meaning::Message { reply_to, skip_bytes, brought: Brought::Segments(segments) } => {
                inbox.attach(skip_bytes, capabilities, reply_to, segments);
            }
        }
        true
    }

    /// What the message in the buffer is, and what it brings.
    fn understand(&mut self, slot: usize, header: RecordHeader) -> (Meaning, Vec<Result<Capability, Error>>) {
        if header.flags & !flags::USER == 0 {
            return (Meaning::plain(), Vec::new());
        }
        let Some(lane) = self.lanes.get(slot) else { return (Meaning::Nothing, Vec::new()) };
        let mut capabilities = claim(&self.control, lane.peer.lane, header);
        let payload = std::mem::take(&mut self.buffer);
        let meaning = self.interpret(slot, header, &payload, &mut capabilities);
        self.buffer = payload;
        (meaning, capabilities)
    }

    /// Takes what was peeked of a lane for good.
    fn acknowledge(&mut self, slot: usize, bytes: usize) {
        let Some(lane) = self.lanes.get_mut(slot) else { return };
        lane.credit.pay(bytes);
        lane.is_busy = true;
        lane.receiver.acknowledge();
        let must_wake = lane.receiver.must_wake_sender().is_some();
        self.count(1);
        if must_wake {
            // As in `take_plain`: what was acknowledged is to be handed on, whoever cannot be woken.
            let _ = self.wake_sender(slot);
        }
    }

    /// What the library's own flags ask for.
    fn interpret(
        &mut self,
        slot: usize,
        header: RecordHeader,
        payload: &[u8],
        capabilities: &mut Vec<Result<Capability, Error>>,
    ) -> Meaning {
        if header.flags & flags::REPLY_QUEUE != 0 {
            let queue = capabilities.pop();
            if let (Some(Ok(queue)), Some(lane)) = (queue, self.lanes.get_mut(slot))
                && lane.replies.is_none()
            {
                // A queue that cannot be opened is the caller's fault; its calls then go unanswered.
                let opened = Sender::open(&self.control, queue.handle(), SenderOptions::default());
                lane.replies = opened.ok().map(Box::new);
            }
            return Meaning::Nothing;
        }
        let Some(lane) = self.lanes.get_mut(slot) else { return Meaning::Nothing };
        let (mut reply_to, mut skip_bytes) = (None, 0);
        if header.flags & (flags::CALL | flags::REPLY) != 0 {
            // A call without a number cannot be answered, and an answer without one answers nothing.
            let Some(number) = payload.first_chunk::<8>() else { return Meaning::Nothing };
            reply_to = Some(ReplyTo { lane: lane.peer.lane, number: u64::from_le_bytes(*number) });
            skip_bytes = number.len();
        }
        if header.flags & flags::SEGMENTS == 0 {
            return Meaning::Message { reply_to, skip_bytes, brought: Brought::Segments(Vec::new()) };
        }
        match lane.places.open(&self.control, &payload[skip_bytes..], capabilities) {
            Ok((brought, table_bytes)) => {
                Meaning::Message { reply_to, skip_bytes: skip_bytes + table_bytes, brought }
            }
            Err(fault) => Meaning::Fault(fault),
        }
    }
}

/// A message that was taken, and where its bytes are.
#[derive(Clone, Copy)]
pub(super) struct Taken {
    slot: usize,
    message_type: u32,
    flags: u32,
    /// Of the library's own, in front.
    skip_bytes: usize,
    /// They are so many at the beginning of the scratch memory; else they are in the buffer.
    scratch_bytes: Option<usize>,
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

impl Meaning {
    /// Bytes, all of them the user's.
    fn plain() -> Self {
        Meaning::Message { reply_to: None, skip_bytes: 0, brought: Brought::Segments(Vec::new()) }
    }
}

/// What a message names instead of carrying it.
pub(super) enum Brought {
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
