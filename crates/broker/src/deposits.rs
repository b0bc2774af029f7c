//! Descriptors that came from processes: received in a thread apart.
//!
//! One frame of each process is on its way to the loop at a time, so that no process is ahead of the others; and the next one
//! is received only once a descriptor that was refused is closed, so that no process can pile them up.

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use keyway_abi::{ProcessNumber, limits::FRAME_BYTES_MAX};
use keyway_sys::{
    Error,
    epoll::{Epoll, EventFd, Interest, Ready},
    frame::{self, Reception, Waiting},
    socket::Credentials,
};

/// A frame that came on a deposit socket.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) process: ProcessNumber,
    pub(crate) bytes: Vec<u8>,
    pub(crate) truncated: bool,
    pub(crate) descriptors: Vec<OwnedFd>,
    pub(crate) credentials: Option<Credentials>,
}

enum Order {
    Watch(ProcessNumber, Arc<OwnedFd>),
    Forget(ProcessNumber),
    Resume(ProcessNumber),
    Stop,
}

/// The loop's side of that thread.
#[derive(Debug)]
pub(crate) struct Deposits {
    orders: Sender<Order>,
    bell: Arc<EventFd>,
    arrivals: Receiver<Arrived>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Deposits {
    /// Starts the thread. It rings `loop_bell` when something has arrived.
    pub(crate) fn start(loop_bell: Arc<EventFd>) -> Result<Self, Error> {
        let (orders, inbox) = mpsc::channel();
        let (outbox, arrivals) = mpsc::channel();
        let bell = Arc::new(EventFd::new()?);
        let epoll = Epoll::new()?;
        epoll.add(bell.as_ref(), BELL, Interest::Read)?;
        let worker =
            Worker { epoll, bell: Arc::clone(&bell), inbox, outbox, loop_bell, sockets: BTreeMap::new() };
        let builder = thread::Builder::new().name("keyway-deposits".into());
        let thread = builder.spawn(move || worker.run()).map_err(|error| Error::from_io("clone", &error))?;
        Ok(Deposits { orders, bell, arrivals, thread: Some(thread) })
    }

    pub(crate) fn watch(&self, process: ProcessNumber, socket: Arc<OwnedFd>) {
        self.order(Order::Watch(process, socket));
    }

    pub(crate) fn forget(&self, process: ProcessNumber) {
        self.order(Order::Forget(process));
    }

    /// The last frame of this process has been handled; the next may come.
    pub(crate) fn resume(&self, process: ProcessNumber) {
        self.order(Order::Resume(process));
    }

    /// The next frame that has arrived.
    pub(crate) fn poll_arrived(&self) -> Option<Arrived> {
        self.arrivals.try_recv().ok()
    }

    fn order(&self, order: Order) {
        // Both fail only once the thread has ended, which only `drop` asks it to.
        let _ = self.orders.send(order);
        let _ = self.bell.ring();
    }
}

impl Drop for Deposits {
    fn drop(&mut self) {
        self.order(Order::Stop);
        // Not joined: it may be waiting in a close, and nothing depends on it any more.
        drop(self.thread.take());
    }
}

const BELL: u64 = 0;

struct Worker {
    epoll: Epoll,
    bell: Arc<EventFd>,
    inbox: Receiver<Order>,
    outbox: Sender<Arrived>,
    loop_bell: Arc<EventFd>,
    sockets: BTreeMap<ProcessNumber, Arc<OwnedFd>>,
}

impl Worker {
    fn run(mut self) {
        let mut ready = Vec::new();
        loop {
            if self.epoll.wait(&mut ready, None).is_err() {
                return;
            }
            for Ready { token, .. } in ready.drain(..) {
                if token != BELL {
                    self.receive(ProcessNumber(token));
                } else if !self.obey() {
                    return;
                }
            }
        }
    }

    fn obey(&mut self) -> bool {
        let _ = self.bell.drain();
        while let Ok(order) = self.inbox.try_recv() {
            match order {
                Order::Watch(process, socket) => {
                    self.forget(process);
                    if self.epoll.add(socket.as_ref(), process.0, Interest::Read).is_ok() {
                        self.sockets.insert(process, socket);
                    }
                }
                Order::Forget(process) => self.forget(process),
                Order::Resume(process) => {
                    if let Some(socket) = self.sockets.get(&process) {
                        // It is watched since it was given here.
                        let _ = self.epoll.modify(socket.as_ref(), process.0, Interest::Read);
                    }
                }
                Order::Stop => return false,
            }
        }
        true
    }

    fn forget(&mut self, process: ProcessNumber) {
        if let Some(socket) = self.sockets.remove(&process) {
            let _ = self.epoll.delete(socket.as_ref());
        }
    }

    fn receive(&mut self, process: ProcessNumber) {
        let Some(socket) = self.sockets.get(&process) else { return };
        let mut buffer = [0; FRAME_BYTES_MAX + 1];
        match frame::receive_frame(socket.as_ref(), &mut buffer, frame::FRAME_FDS_MAX, Waiting::DontWait) {
            Ok(Reception::Frame(received)) => {
                let arrived = Arrived {
                    process,
                    bytes: buffer[..received.bytes].to_vec(),
                    truncated: received.truncated || received.fds_truncated,
                    descriptors: received.fds,
                    credentials: received.credentials,
                };
                let _ = self.epoll.modify(socket.as_ref(), process.0, Interest::End);
                let _ = self.outbox.send(arrived);
                let _ = self.loop_bell.ring();
            }
            Ok(Reception::WouldBlock) => {}
            Ok(Reception::End) | Err(_) => self.forget(process),
        }
    }
}
