//! How a conversation begins: a service listens under a name, and whoever finds the name connects.
//!
//! ```text
//! client                                        service
//! a queue of its own ── call, with `send` to it ──▶ a queue for this client alone, a lane to the client's
//! a lane to that one ◀── answer, with `send` to it ─┘
//! ```
//!
//! So each conversation has a queue and a lane of its own on either side, and ends alone.

use std::{sync::Arc, time::Duration};

use keyway::{
    Audience, Badge, Capability, Carried, Client, Error, Message, Outgoing, Queue, QueueOptions, Rights,
    Sender, abi::PeerIdentity,
};

use crate::{AsyncQueue, AsyncSender, Transport};

/// Accepts conversations under a name, until it is dropped. Those that were accepted go on.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// use futures_util::{SinkExt, StreamExt};
/// use keyway::{Audience, Client, Embedded};
/// use keyway_tokio::{Listener, Transport};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), keyway::Error> {
/// let broker = Embedded::start()?; // or `Client::connect()` to one that runs
/// let service = Client::over(broker.connect()?)?;
/// let mut listener = Listener::bind(&service, "doubling", Audience::Everyone)?;
/// tokio::spawn(async move {
///     while let Ok(accepted) = listener.accept::<u32, u32>().await {
///         let mut client = accepted.transport;
///         tokio::spawn(async move {
///             while let Some(Ok(number)) = client.next().await {
///                 let _ = client.send(2 * number).await;
///             }
///         });
///     }
/// });
///
/// let client = Client::over(broker.connect()?)?;
/// let soon = Duration::from_secs(10);
/// let mut service: Transport<u32, u32> = Transport::connect(&client, "doubling", soon).await?;
/// service.send(21).await?;
/// assert_eq!(service.next().await.transpose()?, Some(42));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Listener {
    client: Client,
    queue: AsyncQueue,
    _name: Capability,
}

/// A conversation that has begun, and with whom.
#[derive(Debug)]
pub struct Accepted<In, Out> {
    /// The conversation.
    pub transport: Transport<In, Out>,
    /// Who is on the other side, as Linux told the broker.
    pub peer: Arc<PeerIdentity>,
    /// The badge of the name for that process: the same in each of its conversations, and no other's.
    pub badge: Option<Badge>,
}

impl Listener {
    /// Publishes the name. Must be called within a runtime whose I/O driver runs.
    ///
    /// # Errors
    /// As [`Client::create_queue`], [`Client::publish`] and [`AsyncQueue::new`].
    pub fn bind(client: &Client, name: &str, audience: Audience) -> Result<Self, Error> {
        let queue = client.create_queue(QueueOptions::default())?;
        let name = client.publish(name, queue.capability(), Rights::SEND, audience)?;
        Ok(Listener { client: client.clone(), queue: AsyncQueue::new(queue)?, _name: name })
    }

    /// The next conversation. Who asks for none, or goes away meanwhile, is passed over, and so is whoever this process has no
    /// room for: it is told that the lane was closed.
    ///
    /// Dropping the future before it is ready loses nothing. The broker is asked some times for each conversation, which takes
    /// a fraction of a millisecond and is not awaited.
    ///
    /// # Errors
    /// As [`AsyncQueue::receive`].
    pub async fn accept<In, Out>(&mut self) -> Result<Accepted<In, Out>, Error> {
        loop {
            let message = self.queue.receive().await?;
            let (peer, badge, lane) = (Arc::clone(&message.sender), message.badge, message.lane);
            match self.begin(message) {
                Ok(transport) => return Ok(Accepted { transport, peer, badge }),
                Err(Error::BrokerGone) => return Err(Error::BrokerGone),
                Err(_) => self.queue.get_mut().close_lane(lane),
            }
        }
    }

    /// Begins a conversation with whoever sent this, and tells it so.
    fn begin<In, Out>(&mut self, mut message: Message) -> Result<Transport<In, Out>, Error> {
        let (Some(reply_to), Some(theirs)) = (message.reply_to.take(), message.capabilities.pop()) else {
            return Err(Error::NoReplyExpected);
        };
        let sender = self.client.open_sender(&theirs?)?;
        let queue = self.client.create_queue(of_one())?;
        let capabilities = [Carried::Copy(queue.capability(), Rights::SEND)];
        self.queue.reply(reply_to, &Outgoing { capabilities: &capabilities, ..Outgoing::default() })?;
        over(queue, sender)
    }
}

impl<In, Out> Transport<In, Out> {
    /// Begins a conversation with the service that listens under this name; waits for the name to appear, and for the service
    /// to answer, each no longer than `timeout`.
    ///
    /// Must be called within a runtime whose I/O driver runs. A thread for blocking tasks waits; if the future is dropped, it does so
    /// to its end.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; [`Error::LaneEnded`] when the service is gone or takes no more conversations; as [`Client::lookup`].
    pub async fn connect(client: &Client, name: &str, timeout: Duration) -> Result<Self, Error> {
        let (client, name) = (client.clone(), name.to_owned());
        let begun = tokio::task::spawn_blocking(move || begin(&client, &name, timeout));
        // It is neither aborted nor does it panic.
        let (queue, sender) = begun.await.unwrap_or(Err(Error::WouldBlock))?;
        over(queue, sender)
    }
}

fn begin(client: &Client, name: &str, timeout: Duration) -> Result<(Queue, Sender), Error> {
    let service = client.lookup_timeout(name, timeout)?;
    let queue = client.create_queue(of_one())?;
    let mut caller = client.open_caller(&service)?;
    let capabilities = [Carried::Copy(queue.capability(), Rights::SEND)];
    let asked = Outgoing { capabilities: &capabilities, ..Outgoing::default() };
    let mut answer = caller.call(&asked, timeout)?;
    let theirs = answer.capabilities.pop().ok_or_else(|| Error::NoSuchValue {
        expected: "a queue for the conversation",
        why: format!("{name} answers calls, and does not listen for conversations"),
    })??;
    Ok((queue, client.open_sender(&theirs)?))
}

/// A queue with one sender.
fn of_one() -> QueueOptions {
    QueueOptions { senders_max: 1, stock: 1, ..QueueOptions::default() }
}

fn over<In, Out>(queue: Queue, sender: Sender) -> Result<Transport<In, Out>, Error> {
    Ok(Transport::new(AsyncQueue::new(queue)?, AsyncSender::new(sender)?))
}
