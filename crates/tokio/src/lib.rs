//! Keyway's queues and senders for tokio: a future instead of a thread that sleeps.
//!
//! Whoever waits here asks its peers to ring, and the runtime watches the doorbells. A future that is dropped before it is
//! ready has taken nothing and sent nothing. What is ready at once costs no system call, as in the blocking forms; no time is
//! spent spinning.
//!
//! ```
//! use keyway::{Client, Embedded, QueueOptions};
//! use keyway_tokio::{AsyncQueue, AsyncSender};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), keyway::Error> {
//! let broker = Embedded::start()?; // or `Client::connect()` to one that runs
//! let client = Client::over(broker.connect()?)?;
//! let queue = client.create_queue(QueueOptions::default())?;
//! let sender = client.open_sender(&queue.sender_capability(None)?)?;
//! let (mut queue, mut sender) = (AsyncQueue::new(queue)?, AsyncSender::new(sender)?);
//! let (sent, message) = tokio::join!(sender.send(b"hello"), queue.receive());
//! sent?;
//! assert_eq!(message?.payload, b"hello");
//! # Ok(())
//! # }
//! ```
//!
//! Never here: a rule of Keyway's own, `unsafe`. It is a user of `keyway` like any other, and shows how an event loop waits.
//!
//! Floors, lowest first: `receiving`, `sending`; `transport`; `listening`.

#![forbid(unsafe_code)]

mod listening;
mod receiving;
mod sending;
mod transport;

pub use self::{
    listening::{Accepted, Listener},
    receiving::AsyncQueue,
    sending::AsyncSender,
    transport::Transport,
};

use std::{
    os::fd::OwnedFd,
    task::{Context, Poll, ready},
};

use tokio::io::{Interest, unix::AsyncFd};

use keyway::Error;

/// A descriptor that the runtime watches.
#[derive(Debug)]
struct Watched {
    fd: AsyncFd<OwnedFd>,
}

impl Watched {
    /// Must be called within a runtime whose I/O driver runs.
    #[allow(
        deprecated,
        reason = "unsound for what is no owned descriptor; its successor is unsafe, which is forbidden here"
    )]
    fn new(fd: OwnedFd) -> Result<Self, Error> {
        let fd = AsyncFd::with_interest(fd, Interest::READABLE);
        fd.map(|fd| Watched { fd }).map_err(|error| watch_failed(&error))
    }

    /// Ready once it could be read; what made it so must be taken after this, and then it is asked again.
    fn poll_changed(&self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut guard = ready!(self.fd.poll_read_ready(context)).map_err(|error| watch_failed(&error))?;
        guard.clear_ready();
        Poll::Ready(Ok(()))
    }
}

fn watch_failed(error: &std::io::Error) -> Error {
    Error::from_io("epoll_ctl", error)
}

/// How often one goes round for rings that come without end before others on the thread have their turn.
const ROUNDS_MAX: usize = 64;
