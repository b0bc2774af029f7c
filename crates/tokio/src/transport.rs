//! A conversation in values, as the RPC crates of the ecosystem want it: a stream of what comes in and a sink of what goes out.

use std::{
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use futures_sink::Sink;
use serde::{Serialize, de::DeserializeOwned};

use keyway::Error;

use crate::{AsyncQueue, AsyncSender};

/// One side of a conversation between two processes: `In` comes from the other side, `Out` goes there.
///
/// The stream ends when the other side is gone. Values are [postcard](https://postcard.jamesmunns.com/wire-format) in messages of a
/// lane each; a value that is larger than the lane takes goes through a pool, or is [`Error::MessageTooLarge`] where the sender refuses
/// those, and one that is no `In` is the error [`Error::NoSuchValue`], after which the next can be taken.
#[derive(Debug)]
pub struct Transport<In, Out> {
    queue: AsyncQueue,
    sender: AsyncSender,
    values: PhantomData<fn(Out) -> In>,
}

impl<In, Out> Transport<In, Out> {
    /// Of a queue on which only the other side sends, and a sender to the other side's queue.
    pub fn new(queue: AsyncQueue, sender: AsyncSender) -> Self {
        Transport { queue, sender, values: PhantomData }
    }
}

impl<In: DeserializeOwned, Out> Stream for Transport<In, Out> {
    type Item = Result<In, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let message = match ready!(self.queue.poll_peer(context)) {
            Ok(Some(message)) => message,
            Ok(None) => return Poll::Ready(None),
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        Poll::Ready(Some(message.value()))
    }
}

impl<In, Out: Serialize> Sink<Out> for Transport<In, Out> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.sender).poll_ready(context)
    }

    fn start_send(mut self: Pin<&mut Self>, value: Out) -> Result<(), Error> {
        let bytes = keyway::encode(&value)?;
        Pin::new(&mut self.sender).start_send(bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.sender).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.sender).poll_close(context)
    }
}
