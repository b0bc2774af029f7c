//! Closing memories whose pages take time to be freed, in a thread of their own.
//!
//! Whoever closes a memory last frees its pages, at about 185 µs a MiB (measured), so that one large region would keep the
//! loop for a fifth of a second. These are memories that the broker made: closing them takes time, but cannot block. So they
//! have a thread of their own, and never wait behind a descriptor of some process in a user's closer.
//!
//! # What bounds it
//! The kernel gives a charge back when it drops a memory, before its pages are free. While more than [`BEHIND_BYTES`] or
//! [`BEHIND_COUNT`] memories wait to be closed, no further memory is made (see `Memories`): so at no time is there more
//! memory, nor are there more descriptors, than what is charged and that much above.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use keyway_sys::{Error, epoll::EventFd};

/// See the module.
#[derive(Debug)]
pub(crate) struct Freeing {
    orders: Mutex<Sender<Order>>,
    backlog: Arc<Backlog>,
    /// What the loop may still free itself in this turn.
    left_bytes: AtomicU64,
}

#[derive(Debug)]
struct Order {
    fd: OwnedFd,
    bytes: u64,
}

/// What waits to be closed.
#[derive(Debug, Default)]
struct Backlog {
    bytes: AtomicU64,
    count: AtomicU64,
}

impl Backlog {
    // Approximate while both sides change it, and exact when neither does; nothing else is ordered by it.
    fn is_behind(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > BEHIND_BYTES || self.count.load(Ordering::Relaxed) > BEHIND_COUNT
    }

    fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn take(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Freeing {
    /// Starts the thread, which ends with this. It rings `bell` when it is no longer behind.
    pub(crate) fn start(bell: Arc<EventFd>) -> Result<Arc<Self>, Error> {
        let (orders, inbox) = mpsc::channel();
        let backlog = Arc::new(Backlog::default());
        let told = Arc::clone(&backlog);
        let thread = thread::Builder::new().name("keyway-memories".into()).stack_size(STACK_BYTES);
        thread.spawn(move || free(&inbox, &told, &bell)).map_err(|error| Error::from_io("clone", &error))?;
        Ok(Arc::new(Freeing { orders: Mutex::new(orders), backlog, left_bytes: AtomicU64::new(TURN_BYTES) }))
    }

    /// A turn of the loop begins: it may free a little itself again.
    pub(crate) fn begin_turn(&self) {
        self.left_bytes.store(TURN_BYTES, Ordering::Relaxed);
    }

    /// Closes what may be the last descriptor of a memory of so many bytes.
    pub(crate) fn close(&self, fd: OwnedFd, bytes: u64) {
        let left = self.left_bytes.load(Ordering::Relaxed);
        if bytes <= left {
            self.left_bytes.store(left - bytes, Ordering::Relaxed);
            return drop(fd);
        }
        self.backlog.add(bytes);
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        // It fails only once the thread has ended, which it does after this.
        let _ = orders.send(Order { fd, bytes });
    }

    /// Whether so much waits that no further memory is to be made.
    pub(crate) fn is_behind(&self) -> bool {
        self.backlog.is_behind()
    }
}

fn free(inbox: &Receiver<Order>, backlog: &Backlog, bell: &EventFd) {
    for Order { fd, bytes } in inbox {
        drop(fd);
        let was_behind = backlog.is_behind();
        backlog.take(bytes);
        if was_behind && !backlog.is_behind() {
            let _ = bell.ring();
        }
    }
}

/// What the loop frees itself in one turn: 50 µs here, and no thread is woken for a small memory.
const TURN_BYTES: u64 = 256 << 10;
/// Bytes that wait to be freed, above which no memory is made: a fifth of a second's work.
const BEHIND_BYTES: u64 = 1 << 30;
/// Memories that wait to be closed, above which none is made: a descriptor each, which nobody is charged for any more.
const BEHIND_COUNT: u64 = 64;
/// A thread that only closes needs little.
const STACK_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use keyway_sys::memory;

    use super::*;

    fn memory(bytes: usize) -> OwnedFd {
        memory::create_memory("keyway-test", bytes).unwrap()
    }

    fn settles(freeing: &Freeing) {
        let began = Instant::now();
        while freeing.backlog.count.load(Ordering::Relaxed) != 0 {
            assert!(began.elapsed() < Duration::from_secs(20), "nothing is closed");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// A thread that has no orders for the time being.
    pub(crate) struct HeldUp<'f> {
        freeing: &'f Freeing,
        given: Receiver<Order>,
        to_thread: Sender<Order>,
    }

    impl Freeing {
        pub(crate) fn hold_up(&self) -> HeldUp<'_> {
            let (orders, given) = mpsc::channel();
            let to_thread = std::mem::replace(&mut *self.orders.lock().unwrap(), orders);
            HeldUp { freeing: self, given, to_thread }
        }
    }

    impl HeldUp<'_> {
        pub(crate) fn go_on(self) {
            for order in self.given.try_iter() {
                self.to_thread.send(order).unwrap();
            }
            *self.freeing.orders.lock().unwrap() = self.to_thread;
        }
    }

    #[test]
    fn one_turn_frees_little_itself_and_leaves_the_rest_to_the_thread() {
        let freeing = Freeing::start(Arc::new(EventFd::new().unwrap())).unwrap();
        let held_up = freeing.hold_up();
        let waiting = || freeing.backlog.count.load(Ordering::Relaxed);
        freeing.close(memory(1 << 20), 1 << 20);
        assert_eq!(waiting(), 1, "more than a turn may free");
        let small = 100 << 10;
        for _ in 0..5 {
            freeing.close(memory(small), small as u64);
        }
        assert_eq!(waiting(), 4, "two of five are within what a turn may free");
        freeing.begin_turn();
        freeing.close(memory(small), small as u64);
        assert_eq!(waiting(), 4);
        assert!(!freeing.is_behind());
        for _ in 0..BEHIND_COUNT {
            freeing.close(memory(1 << 20), 1 << 20);
        }
        assert!(freeing.is_behind());
        held_up.go_on();
        settles(&freeing);
        assert!(!freeing.is_behind());
    }
}
