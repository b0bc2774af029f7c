//! A look at the next message, which stays where it is.

use std::{sync::Arc, time::Duration};

use keyway_abi::{Badge, LaneId, PeerIdentity, limits::MESSAGE_CAPABILITIES_MAX};
use keyway_shm::RecordHeader;

use crate::{
    error::Error,
    message::flags,
    queue::{Incoming, Queue},
    segment::Table,
    sender::timed_out,
    waiting::Until,
};

/// What can be known of a message without receiving it.
#[derive(Clone, Copy, Debug)]
pub struct Peeked<'q> {
    /// Its bytes; `None` where they lie in a pool of the sender's and are copied out when the message is received.
    pub payload: Option<&'q [u8]>,
    /// How many there are, or are to be by the sender's account.
    pub payload_bytes: usize,
    /// What sort of message it is, as its sender says.
    pub message_type: u32,
    /// Of the user's own, as its sender says.
    pub flags: u16,
    /// How many capabilities come in it, as its sender says.
    pub capabilities: usize,
    /// How many segments it names besides its payload, as its sender says.
    pub segments: usize,
    /// Whether its sender waits for an answer.
    pub is_call: bool,
    /// The badge of the capability through which it came: who is speaking. No sender can forge it.
    pub badge: Option<Badge>,
    /// The lane on which it came.
    pub lane: LaneId,
    /// Who opened that lane, as Linux told the broker.
    pub sender: &'q Arc<PeerIdentity>,
}

impl Queue {
    /// Looks at the next message and leaves it in place; waits for one. Whatever receives is given this message next, unless one comes
    /// before it by the queue's order: a higher priority, or an earlier arrival.
    ///
    /// ```
    /// # use keyway::{Client, Embedded, QueueOptions};
    /// # let broker = Embedded::start()?;
    /// # let client = Client::over(broker.connect()?)?;
    /// # let mut queue = client.create_queue(QueueOptions::default())?;
    /// # let mut sender = client.open_sender(queue.capability())?;
    /// sender.send(b"hello")?;
    /// let mut buffer = vec![0; queue.peek()?.payload_bytes];
    /// queue.receive_into(&mut buffer)?;
    /// assert_eq!(buffer, b"hello");
    /// # Ok::<(), keyway::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Queue::receive`].
    pub fn peek(&mut self) -> Result<Peeked<'_>, Error> {
        self.peek_until(Until::Forever)
    }

    /// As [`Queue::peek`], but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As [`Queue::receive_timeout`].
    pub fn peek_timeout(&mut self, timeout: Duration) -> Result<Peeked<'_>, Error> {
        self.peek_until(Until::after(timeout)).map_err(|error| timed_out(error, timeout))
    }

    /// As [`Queue::peek`], if there is a message. In an event loop take news as well ([`Queue::try_next`]): while there is any,
    /// [`Queue::arm`] does not let one sleep.
    ///
    /// # Errors
    /// As [`Queue::try_receive`].
    pub fn try_peek(&mut self) -> Result<Peeked<'_>, Error> {
        let mut ahead = self.look_ahead()?;
        if ahead.is_none() && self.hear_cold()? {
            ahead = self.look_ahead()?;
        }
        ahead.map_or(Err(Error::WouldBlock), |ahead| self.show(&ahead))
    }

    fn peek_until(&mut self, until: Until) -> Result<Peeked<'_>, Error> {
        let mut asleep_since = None;
        loop {
            if let Some(ahead) = self.look_ahead()? {
                self.spinner.settle(asleep_since);
                return self.show(&ahead);
            }
            // News stays where it is, and is no reason to be awake.
            let mut told = std::mem::take(&mut self.told);
            let waited = self.wait_once(until, &mut asleep_since);
            told.append(&mut self.told);
            self.told = told;
            waited?;
        }
    }

    /// The next message for the user. What comes before it and is the library's own is taken; the end of a lane is told later.
    fn look_ahead(&mut self) -> Result<Option<Ahead>, Error> {
        let lost = self.look_at_events().err();
        for _ in 0..=self.turns() {
            let Some(slot) = self.next_lane() else { break };
            let Some(lane) = self.lanes.get_mut(slot) else { break };
            match lane.receiver.peek(&mut self.buffer) {
                Ok(None) => self.found_nothing(slot),
                Ok(Some(header)) => {
                    lane.receiver.forget();
                    if let Some(ahead) = Ahead::of(slot, header, &self.buffer, self.payload_bytes_max) {
                        return Ok(Some(ahead));
                    }
                    // Dealt with as whoever receives would.
                    let ended = self.take_from(slot, usize::MAX)?;
                    self.told.extend(ended);
                }
                Err(error) => {
                    let ended: Option<Incoming> = self.end_lane(slot, error);
                    self.told.extend(ended);
                }
            }
        }
        lost.map_or(Ok(None), Err)
    }

    fn show(&self, ahead: &Ahead) -> Result<Peeked<'_>, Error> {
        let Some(lane) = self.lanes.get(ahead.slot) else { return Err(Error::WouldBlock) };
        let header = ahead.header;
        let regions = ahead.table.regions.len();
        let capabilities = ((header.flags & flags::CAPABILITIES) >> flags::CAPABILITIES_SHIFT) as usize;
        let elsewhere = ahead.table.entries.first().filter(|_| ahead.table.is_payload);
        let payload = elsewhere.is_none().then(|| &self.buffer[ahead.skip_bytes..]);
        Ok(Peeked {
            payload,
            payload_bytes: payload.map_or(elsewhere.map_or(0, |entry| entry.len as usize), <[u8]>::len),
            message_type: header.message_type,
            flags: (header.flags & flags::USER) as u16,
            capabilities: capabilities.min(MESSAGE_CAPABILITIES_MAX).saturating_sub(regions),
            segments: if elsewhere.is_some() { 0 } else { ahead.table.entries.len() },
            is_call: header.flags & flags::CALL != 0,
            badge: lane.peer.badge,
            lane: lane.peer.lane,
            sender: &lane.peer.identity,
        })
    }
}

/// A message for the user, whose record is in the queue's buffer.
struct Ahead {
    slot: usize,
    header: RecordHeader,
    table: Table,
    /// The library's own, in front.
    skip_bytes: usize,
}

impl Ahead {
    /// `None` for what is no message for the user.
    fn of(slot: usize, header: RecordHeader, record: &[u8], payload_bytes_max: u32) -> Option<Self> {
        if header.flags & flags::REPLY_QUEUE != 0 {
            return None;
        }
        let is_numbered = header.flags & (flags::CALL | flags::REPLY) != 0;
        let number_bytes = if is_numbered { size_of::<u64>() } else { 0 };
        let behind = record.get(number_bytes..)?;
        let (table, table_bytes) = if header.flags & flags::SEGMENTS == 0 {
            (Table::default(), 0)
        } else {
            Table::decode(behind).ok()?
        };
        let elsewhere = table.entries.first().filter(|_| table.is_payload);
        if elsewhere.is_some_and(|entry| entry.len > payload_bytes_max.into()) {
            return None;
        }
        Some(Ahead { slot, header, table, skip_bytes: number_bytes + table_bytes })
    }
}
