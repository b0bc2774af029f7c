//! A broker in a thread of a program: for tests, tools, and hosts that are the only parent of their peers.

use std::{
    os::fd::OwnedFd,
    path::Path,
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
};

use keyway_kernel::Limits;
use keyway_sys::{Error, epoll::EventFd, kernel_support};

use crate::{
    identity::own_uid,
    policy::Policy,
    socket::{Listener, StartError},
    turn::{Broker, Order},
};

/// A running broker. It stops when this is dropped, and every process that is connected is told.
#[derive(Debug)]
pub struct Embedded {
    orders: Sender<Order>,
    bell: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Embedded {
    /// Starts a broker without a socket: only this process, and the children that it starts, can reach it.
    ///
    /// # Errors
    /// [`StartError`]: this Linux lacks something, or refuses a descriptor or a thread.
    pub fn start() -> Result<Self, StartError> {
        Self::start_under(Policy::for_user(own_uid()), None)
    }

    /// As [`Embedded::start`], with these limits instead of those that are built in.
    ///
    /// # Errors
    /// As [`Embedded::start`].
    pub fn start_with(limits: Limits) -> Result<Self, StartError> {
        Self::start_under(Policy::for_user(own_uid()).with_limits(limits), None)
    }

    /// Starts a broker that listens at `path` as well.
    ///
    /// # Errors
    /// As [`Embedded::start`], and when the path is served by another broker or lies in a directory that others can write.
    pub fn start_at(path: &Path) -> Result<Self, StartError> {
        Self::start_under(Policy::for_user(own_uid()), Some(Listener::at(path)?))
    }

    /// As [`Embedded::start_at`], with these limits instead of those that are built in.
    ///
    /// # Errors
    /// As [`Embedded::start_at`].
    pub fn start_at_with(path: &Path, limits: Limits) -> Result<Self, StartError> {
        Self::start_under(Policy::for_user(own_uid()).with_limits(limits), Some(Listener::at(path)?))
    }

    /// A socket on which this process can begin a session.
    ///
    /// # Errors
    /// `EMFILE`; `EPIPE` when the broker has stopped.
    pub fn connect(&self) -> Result<OwnedFd, Error> {
        let stopped = Error { call: "connect", errno: keyway_sys::Errno::PIPE };
        let (answer, answers) = mpsc::channel();
        self.orders.send(Order::Connect(answer)).map_err(|_| stopped)?;
        self.bell.ring()?;
        answers.recv().map_err(|_| stopped)?
    }

    fn start_under(policy: Policy, listener: Option<Listener>) -> Result<Self, StartError> {
        kernel_support::check().map_err(StartError::LinuxLacks)?;
        let mut broker = Broker::new(policy, listener)?;
        let (orders, inbox) = mpsc::channel();
        let bell = broker.accept_orders(inbox);
        let run = move || {
            // An error here is one of epoll itself; the sockets close with the broker, which tells every process.
            let _ = broker.run_until_told();
        };
        let thread = thread::Builder::new().name("keyway-broker".into()).spawn(run);
        let thread = thread.map_err(|error| Error::from_io("clone", &error))?;
        Ok(Embedded { orders, bell, thread: Some(thread) })
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // Both fail only once the thread has ended.
        let _ = self.orders.send(Order::Stop);
        let _ = self.bell.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
