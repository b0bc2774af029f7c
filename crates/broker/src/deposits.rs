//! Descriptors that came from processes: received in a thread apart.
//!
//! One frame of each process is on its way to the loop at a time, so that no process is ahead of the others; and the next one
//! is received only once a descriptor that was refused is closed, so that no process can pile them up. Nothing is closed
//! here: what waits unread in a socket is closed with it, by the closer of its user (see `Deferred`).

use std::{
    collections::{BTreeMap, btree_map::Entry},
    mem,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
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

use crate::deferred::Deferred;

/// A frame that came on a deposit socket.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) process: ProcessNumber,
    pub(crate) bytes: Vec<u8>,
    pub(crate) truncated: bool,
    pub(crate) descriptors: Vec<OwnedFd>,
    pub(crate) credentials: Option<Credentials>,
}

#[derive(Debug)]
enum Order {
    Watch(Arc<Deferred>),
    Forget,
    Resume,
}

/// What the thread is to do next: one order a process, so that no more of them wait than there are processes.
#[derive(Debug, Default)]
struct Inbox {
    orders: BTreeMap<ProcessNumber, Order>,
    stop: bool,
}

/// The loop's side of that thread.
#[derive(Debug)]
pub(crate) struct Deposits {
    inbox: Arc<Mutex<Inbox>>,
    bell: Arc<EventFd>,
    arrivals: Receiver<Arrived>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Deposits {
    /// Starts the thread. It rings `loop_bell` when something has arrived.
    pub(crate) fn start(loop_bell: Arc<EventFd>) -> Result<Self, Error> {
        let inbox = Arc::new(Mutex::new(Inbox::default()));
        let (outbox, arrivals) = mpsc::channel();
        let bell = Arc::new(EventFd::new()?);
        let epoll = Epoll::new()?;
        epoll.add(bell.as_ref(), BELL, Interest::Read)?;
        let worker = Worker {
            epoll,
            bell: Arc::clone(&bell),
            inbox: Arc::clone(&inbox),
            outbox,
            loop_bell,
            sockets: BTreeMap::new(),
        };
        let builder = thread::Builder::new().name("keyway-deposits".into());
        let thread = builder.spawn(move || worker.run()).map_err(|error| Error::from_io("clone", &error))?;
        Ok(Deposits { inbox, bell, arrivals, thread: Some(thread) })
    }

    /// Watches this socket for a process, in place of the one before.
    pub(crate) fn watch(&self, process: ProcessNumber, socket: Arc<Deferred>) {
        self.order(|inbox| _ = inbox.orders.insert(process, Order::Watch(socket)));
    }

    pub(crate) fn forget(&self, process: ProcessNumber) {
        self.order(|inbox| _ = inbox.orders.insert(process, Order::Forget));
    }

    /// The last frame of this process has been handled; the next may come.
    pub(crate) fn resume(&self, process: ProcessNumber) {
        self.order(|inbox| {
            // A socket that is not watched yet, or no longer, has nothing to go on with.
            if let Entry::Vacant(vacant) = inbox.orders.entry(process) {
                vacant.insert(Order::Resume);
            }
        });
    }

    /// The next frame that has arrived.
    pub(crate) fn poll_arrived(&self) -> Option<Arrived> {
        self.arrivals.try_recv().ok()
    }

    fn order(&self, order: impl FnOnce(&mut Inbox)) {
        order(&mut self.inbox.lock().unwrap_or_else(PoisonError::into_inner));
        let _ = self.bell.ring();
    }
}

impl Drop for Deposits {
    fn drop(&mut self) {
        self.order(|inbox| inbox.stop = true);
        // Not joined: nothing depends on it any more.
        drop(self.thread.take());
    }
}

const BELL: u64 = 0;

struct Worker {
    epoll: Epoll,
    bell: Arc<EventFd>,
    inbox: Arc<Mutex<Inbox>>,
    outbox: Sender<Arrived>,
    loop_bell: Arc<EventFd>,
    sockets: BTreeMap<ProcessNumber, Arc<Deferred>>,
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
        let inbox = mem::take(&mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner));
        for (process, order) in inbox.orders {
            match order {
                Order::Watch(socket) => {
                    self.forget(process);
                    if self.epoll.add(socket.as_ref(), process.0, Interest::Read).is_ok() {
                        self.sockets.insert(process, socket);
                    }
                }
                Order::Forget => self.forget(process),
                Order::Resume => {
                    if let Some(socket) = self.sockets.get(&process) {
                        // It is watched since it was given here.
                        let _ = self.epoll.modify(socket.as_ref(), process.0, Interest::Read);
                    }
                }
            }
        }
        !inbox.stop
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
