//! Calls: messages that wait for their answer.
//!
//! A pair of lanes is opened once: one to the server, and one that the server opens to a queue of ours. An answer is
//! named by a number that is valid once, in this process only.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use keyway_abi::Rights;

use crate::{
    capability::Capability,
    control::Control,
    error::Error,
    message::{Carried, Message, Outgoing, flags},
    queue::{Incoming, Queue, QueueOptions},
    sender::{Sender, SenderOptions, timed_out},
    waiting::{Until, WaitStyle},
};

/// One that makes calls to one server.
#[derive(Debug)]
pub struct Caller {
    sender: Sender,
    replies: Queue,
    last_number: u64,
    notices: VecDeque<Message>,
}

/// Messages without a call that are kept for [`Caller::next_notice`]. LIMIT: older ones are dropped.
const NOTICES_MAX: usize = 1024;

impl Caller {
    pub(crate) fn open(control: &Arc<Control>, server: &Capability) -> Result<Self, Error> {
        let mut sender = Sender::open(control, server.handle(), SenderOptions::default())?;
        let options = QueueOptions { senders_max: 1, stock: 1, ..QueueOptions::default() };
        let replies = Queue::create(control, options)?;
        let carried = [Carried::Copy(replies.capability(), Rights::SEND)];
        let message = Outgoing { capabilities: &carried, ..Outgoing::default() };
        sender.send_parts(&message, flags::REPLY_QUEUE, &[], Until::Forever)?;
        Ok(Caller { sender, replies, last_number: 0, notices: VecDeque::new() })
    }

    /// Sends a message and waits for its answer, no longer than `timeout`. An answer that comes later is dropped.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; [`Error::LaneEnded`] when the server is gone, which leaves open what it did.
    pub fn call(&mut self, message: &Outgoing<'_>, timeout: Duration) -> Result<Message, Error> {
        let until = Until::after(timeout);
        self.take_in(until).map_err(|error| timed_out(error, timeout))?;
        self.last_number += 1;
        let number = self.last_number;
        let sent = self.sender.send_parts(message, flags::CALL, &number.to_le_bytes(), until);
        sent.map_err(|error| timed_out(error, timeout))?;
        loop {
            match self.next(until).map_err(|error| timed_out(error, timeout))? {
                message if is_answer(&message, number) => return Ok(message),
                message => self.keep(message),
            }
            // A server that says other things without end is waited for no longer.
            check(until).map_err(|error| timed_out(error, timeout))?;
        }
    }

    /// A message that the server sent without having been asked, if there is one within `timeout`.
    ///
    /// # Errors
    /// As [`Caller::call`].
    pub fn next_notice(&mut self, timeout: Duration) -> Result<Message, Error> {
        let until = Until::after(timeout);
        loop {
            if let Some(message) = self.notices.pop_front() {
                return Ok(message);
            }
            let message = self.next(until).map_err(|error| timed_out(error, timeout))?;
            self.keep(message);
        }
    }

    /// How to wait for answers from now on.
    pub fn set_wait_style(&mut self, style: WaitStyle) {
        self.sender.set_wait_style(style);
        self.replies.set_wait_style(style);
    }

    /// The next message from the server, or its end.
    fn next(&mut self, until: Until) -> Result<Message, Error> {
        loop {
            match self.replies.next_or_stop(until, || self.sender.ending())? {
                Incoming::Message(message) => return Ok(message),
                Incoming::Opened(_) => {}
                Incoming::Ended { why, .. } => return Err(why),
            }
        }
    }

    /// Makes room for an answer where messages lie that nobody has read: the server does not wait for room.
    fn take_in(&mut self, until: Until) -> Result<(), Error> {
        // LIMIT: the deadline; a server can go on for ever.
        while let Some(incoming) = self.replies.try_next()? {
            match incoming {
                Incoming::Message(message) => self.keep(message),
                Incoming::Opened(_) => {}
                Incoming::Ended { why, .. } => return Err(why),
            }
            check(until)?;
        }
        Ok(())
    }

    fn keep(&mut self, message: Message) {
        // An answer that came too late has nobody who waits for it.
        if message.reply_to.is_none() {
            if self.notices.len() >= NOTICES_MAX {
                self.notices.pop_front();
            }
            self.notices.push_back(message);
        }
    }
}

/// Whether there is time left.
fn check(until: Until) -> Result<(), Error> {
    until.sleep().map(drop).ok_or(Error::WouldBlock)
}

fn is_answer(message: &Message, number: u64) -> bool {
    message.reply_to.as_ref().is_some_and(|reply_to| reply_to.number == number)
}
