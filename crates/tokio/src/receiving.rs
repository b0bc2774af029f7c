//! A queue whose messages are awaited.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::{FusedStream, Stream};
use tokio::task::coop::poll_proceed;

use keyway::{Error, Inbox, Incoming, Message, Outgoing, Queue, ReplyTo};

use crate::{ROUNDS_MAX, Watched};

/// A [`Queue`] for tokio. Its messages are also a [`Stream`].
#[derive(Debug)]
pub struct AsyncQueue {
    queue: Queue,
    watched: Watched,
    is_armed: bool,
    /// The stream has ended.
    is_over: bool,
}

impl AsyncQueue {
    /// Must be called within a runtime whose I/O driver runs (`enable_io`).
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    ///
    /// # Panics
    /// Without such a runtime, as [`tokio::io::unix::AsyncFd`] does.
    pub fn new(mut queue: Queue) -> Result<Self, Error> {
        let watched = Watched::new(queue.event_descriptor()?)?;
        Ok(AsyncQueue { queue, watched, is_armed: false, is_over: false })
    }

    /// The next message.
    ///
    /// Dropping the future before it is ready loses nothing.
    ///
    /// # Errors
    /// As [`Queue::receive`].
    pub async fn receive(&mut self) -> Result<Message, Error> {
        poll_fn(|context| self.poll_with(context, Queue::try_receive)).await
    }

    /// The next message, or news of a sender.
    ///
    /// # Errors
    /// As [`Queue::next_timeout`].
    pub async fn next(&mut self) -> Result<Incoming, Error> {
        poll_fn(|context| self.poll_with(context, |queue| queue.try_next()?.ok_or(Error::WouldBlock))).await
    }

    /// What is there, up to `max` messages, in place of what the inbox held; waits for the first. Answers how many.
    ///
    /// # Errors
    /// As [`Queue::receive_many`].
    pub async fn receive_many(&mut self, inbox: &mut Inbox, max: usize) -> Result<usize, Error> {
        poll_fn(|context| self.poll_with(context, |queue| queue.try_receive_many(inbox, max))).await
    }

    /// Answers a call: see [`Queue::reply`].
    ///
    /// # Errors
    /// As [`Queue::reply`].
    pub fn reply(&mut self, to: ReplyTo, message: &Outgoing<'_>) -> Result<(), Error> {
        self.queue.reply(to, message)
    }

    /// The queue, for what needs no waiting.
    pub fn get_mut(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// The queue itself, to be waited on by a thread again.
    pub fn into_inner(mut self) -> Queue {
        self.queue.disarm();
        self.queue
    }

    /// The next message, or `None` once a sender is gone.
    pub(super) fn poll_peer(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Message>, Error>> {
        self.poll_with(context, |queue| {
            loop {
                match queue.try_next()? {
                    Some(Incoming::Message(message)) => return Ok(Some(message)),
                    Some(Incoming::Opened(_)) => {}
                    Some(Incoming::Ended { .. }) => return Ok(None),
                    None => return Err(Error::WouldBlock),
                }
            }
        })
    }

    /// Tries, and has the task woken when there may be more.
    fn poll_with<T>(
        &mut self,
        context: &mut Context<'_>,
        mut attempt: impl FnMut(&mut Queue) -> Result<T, Error>,
    ) -> Poll<Result<T, Error>> {
        // A task that always finds a message lets others run now and then.
        let turn = ready!(poll_proceed(context));
        // An earlier future may have been dropped while it waited for something else.
        self.settle();
        for _ in 0..ROUNDS_MAX {
            match attempt(&mut self.queue) {
                Err(Error::WouldBlock) => {}
                done => {
                    self.settle();
                    turn.made_progress();
                    return Poll::Ready(done);
                }
            }
            if !self.is_armed {
                let may_sleep = self.queue.arm();
                self.is_armed = true;
                match may_sleep {
                    Ok(true) => {}
                    // There is something after all.
                    Ok(false) => {
                        self.settle();
                        continue;
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            match self.watched.poll_changed(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {
                    self.settle();
                    if let Err(error) = self.queue.hear() {
                        return Poll::Ready(Err(error));
                    }
                }
            }
        }
        // Others have their turn first.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn settle(&mut self) {
        if std::mem::take(&mut self.is_armed) {
            self.queue.disarm();
        }
    }
}

/// Messages as they come; an error is the last item.
impl Stream for AsyncQueue {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let received = ready!(self.poll_with(context, Queue::try_receive));
        self.is_over = received.is_err();
        Poll::Ready(Some(received))
    }
}

impl FusedStream for AsyncQueue {
    fn is_terminated(&self) -> bool {
        self.is_over
    }
}
