//! A sender that awaits room.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_sink::Sink;
use serde::Serialize;
use tokio::task::coop::poll_proceed;

use keyway::{Block, Error, Outgoing, Part, Sender};

use crate::{ROUNDS_MAX, Watched};

/// A [`Sender`] for tokio. It is also a [`Sink`] of payloads.
#[derive(Debug)]
pub struct AsyncSender {
    sender: Sender,
    watched: Watched,
    is_armed: bool,
    /// What the sink was given and has not sent yet.
    held: Option<Vec<u8>>,
}

impl AsyncSender {
    /// Must be called within a runtime whose I/O driver runs (`enable_io`).
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`; what the broker answers to the request for a doorbell.
    ///
    /// # Panics
    /// Without such a runtime, as [`tokio::io::unix::AsyncFd`] does.
    pub fn new(mut sender: Sender) -> Result<Self, Error> {
        let watched = Watched::new(sender.event_descriptor()?)?;
        Ok(AsyncSender { sender, watched, is_armed: false, held: None })
    }

    /// Sends bytes; waits for room.
    ///
    /// When the future is dropped before it is ready, nothing was sent.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn send(&mut self, payload: &[u8]) -> Result<(), Error> {
        poll_fn(|context| self.poll_with(context, |sender| sender.try_send(payload))).await
    }

    /// Sends several messages at once, all or none; waits for room.
    ///
    /// # Errors
    /// As [`Sender::send_batch`].
    pub async fn send_batch(&mut self, payloads: &[&[u8]]) -> Result<(), Error> {
        poll_fn(|context| self.poll_with(context, |sender| sender.try_send_batch(payloads))).await
    }

    /// Sends a message with type, flags and capabilities; waits for room. The capabilities are handed to the broker when there is
    /// room, which takes a system call or two.
    ///
    /// # Errors
    /// As [`Sender::send_message`].
    pub async fn send_message(&mut self, message: &Outgoing<'_>) -> Result<(), Error> {
        poll_fn(|context| self.poll_with(context, |sender| sender.try_send_message(message))).await
    }

    /// Sends a serialised value; waits for room.
    ///
    /// # Errors
    /// As [`Sender::send_value`].
    pub async fn send_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        let bytes = keyway::encode(value)?;
        self.send(&bytes).await
    }

    /// Lends a block of `len` bytes of the sender's pool, for [`AsyncSender::send_segments`]; waits until there is room for it.
    ///
    /// # Errors
    /// As [`Sender::block`].
    pub async fn block(&mut self, len: usize) -> Result<Block, Error> {
        poll_fn(|context| self.poll_with(context, |sender| sender.try_block(len))).await
    }

    /// Sends a message that names parts of blocks and of frozen regions, which its receiver reads where they are; waits for room.
    ///
    /// # Errors
    /// As [`Sender::send_segments`].
    pub async fn send_segments(&mut self, message: &Outgoing<'_>, parts: &[Part<'_>]) -> Result<(), Error> {
        poll_fn(|context| self.poll_with(context, |sender| sender.try_send_segments(message, parts))).await
    }

    /// The sender, for what needs no waiting.
    pub fn get_mut(&mut self) -> &mut Sender {
        &mut self.sender
    }

    fn poll_with<T>(
        &mut self,
        context: &mut Context<'_>,
        mut attempt: impl FnMut(&mut Sender) -> Result<T, Error>,
    ) -> Poll<Result<T, Error>> {
        // A task whose sends never wait lets others run now and then.
        let turn = ready!(poll_proceed(context));
        // An earlier future may have been dropped while it waited for something else.
        self.settle();
        for _ in 0..ROUNDS_MAX {
            match attempt(&mut self.sender) {
                Err(Error::WouldBlock) => {}
                done => {
                    self.settle();
                    turn.made_progress();
                    return Poll::Ready(done);
                }
            }
            if !self.is_armed {
                // Armed first, and then tried once more: room that came in between rings for nobody.
                let armed = self.sender.arm();
                self.is_armed = true;
                if let Err(error) = armed {
                    return Poll::Ready(Err(error));
                }
                continue;
            }
            match self.watched.poll_changed(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {
                    // Armed anew, as further lanes may have what is waited for.
                    self.settle();
                    if let Err(error) = self.sender.hear() {
                        return Poll::Ready(Err(error));
                    }
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn settle(&mut self) {
        if std::mem::take(&mut self.is_armed) {
            self.sender.disarm();
        }
    }

    fn poll_held(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Some(held) = self.held.take() else { return Poll::Ready(Ok(())) };
        let sent = self.poll_with(context, |sender| sender.try_send(&held));
        if sent.is_pending() {
            self.held = Some(held);
        }
        sent
    }
}

impl Sink<Vec<u8>> for AsyncSender {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_held(context)
    }

    fn start_send(mut self: Pin<&mut Self>, payload: Vec<u8>) -> Result<(), Error> {
        match self.sender.try_send(&payload) {
            Err(Error::WouldBlock) => {
                self.held = Some(payload);
                Ok(())
            }
            sent => sent,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_held(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_flush(context)
    }
}
