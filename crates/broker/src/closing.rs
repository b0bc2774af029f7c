//! Descriptors that came from processes, closed in threads apart.
//!
//! Closing such a descriptor can block for as long as its maker likes (a socket that lingers, a file of a slow file
//! system), so the broker's loop never does. Each user that has something to close has a thread, so that nobody waits for
//! another user's; the thread ends when there is nothing left.

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use keyway_abi::ProcessNumber;
use keyway_kernel::Task;
use keyway_sys::epoll::EventFd;

/// Who has to know that a descriptor is closed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Closing {
    /// The kernel, which charges for it until then.
    pub(crate) task: Option<Task>,
    /// The process whose next deposit waits for it.
    pub(crate) resumes: Option<ProcessNumber>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Closers {
    bell: Arc<EventFd>,
    users: BTreeMap<u32, Closer>,
    closed: Receiver<Closed>,
    report: Sender<Closed>,
}

#[derive(Debug)]
struct Closer {
    orders: Sender<(OwnedFd, Closing)>,
    pending: u32,
    strays: u32,
}

#[derive(Debug)]
struct Closed {
    uid: u32,
    closing: Closing,
}

impl Closers {
    /// Nothing is to be closed. `bell` is rung each time that something has been.
    pub(crate) fn new(bell: Arc<EventFd>) -> Self {
        let (report, closed) = mpsc::channel();
        Closers { bell, users: BTreeMap::new(), closed, report }
    }

    /// Closes a descriptor that came from a process of this user.
    pub(crate) fn close(&mut self, uid: u32, fd: OwnedFd, closing: Closing) {
        let closer = match self.users.remove(&uid) {
            Some(closer) => Some(closer),
            None => self.start(uid),
        };
        if let Some(mut closer) = closer {
            closer.pending += 1;
            closer.strays += u32::from(closing.task.is_none());
            // It fails only once that thread has ended, which it does after its entry here.
            let _ = closer.orders.send((fd, closing));
            self.users.insert(uid, closer);
        } else {
            // Linux refuses a thread: better slow than never.
            drop(fd);
            let _ = self.report.send(Closed { uid, closing });
            let _ = self.bell.ring();
        }
    }

    /// The next descriptor that is closed.
    pub(crate) fn poll_closed(&mut self) -> Option<Closing> {
        let Closed { uid, closing } = self.closed.try_recv().ok()?;
        if let Some(closer) = self.users.get_mut(&uid) {
            closer.pending = closer.pending.saturating_sub(1);
            closer.strays = closer.strays.saturating_sub(u32::from(closing.task.is_none()));
            if closer.pending == 0 {
                self.users.remove(&uid);
            }
        }
        Some(closing)
    }

    /// Descriptors of this user that nobody is charged for and that are not closed yet.
    pub(crate) fn strays(&self, uid: u32) -> u32 {
        self.users.get(&uid).map_or(0, |closer| closer.strays)
    }

    fn start(&self, uid: u32) -> Option<Closer> {
        let (orders, to_close) = mpsc::channel::<(OwnedFd, Closing)>();
        let (report, bell) = (self.report.clone(), Arc::clone(&self.bell));
        let thread = thread::Builder::new().name("keyway-closing".into()).stack_size(STACK_BYTES);
        let started = thread.spawn(move || {
            // It ends with the last sender; a close that never returns keeps nobody else.
            for (fd, closing) in to_close {
                drop(fd);
                // The loop has ended: nobody is to be told.
                let _ = report.send(Closed { uid, closing });
                let _ = bell.ring();
            }
        });
        started.ok().map(|_| Closer { orders, pending: 0, strays: 0 })
    }
}

/// A thread that only closes needs little.
const STACK_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        net::{TcpListener, TcpStream},
        os::fd::OwnedFd,
        time::{Duration, Instant},
    };

    use rustix::net::sockopt;

    use super::*;

    /// A socket whose close blocks: it lingers over bytes that the other end does not read.
    fn lingering(listener: &TcpListener, seconds: u64) -> (OwnedFd, TcpStream) {
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (other, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        while stream.write(&[0; 1 << 12]).is_ok() {}
        stream.set_nonblocking(false).unwrap();
        sockopt::set_socket_linger(&stream, Some(Duration::from_secs(seconds))).unwrap();
        (stream.into(), other)
    }

    fn wait_closed(closers: &mut Closers) -> Closing {
        let began = Instant::now();
        loop {
            if let Some(closing) = closers.poll_closed() {
                return closing;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "nothing is closed");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_close_that_lingers_keeps_only_its_own_user_waiting() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (slow, other_end) = lingering(&listener, 600);
        let bell = Arc::new(EventFd::new().unwrap());
        let mut closers = Closers::new(bell);
        let of = |number| Closing { task: None, resumes: Some(ProcessNumber(number)) };
        let quick = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        closers.close(1000, slow, of(1));
        closers.close(1000, quick(), of(2));
        closers.close(1001, quick(), of(3));
        assert_eq!(wait_closed(&mut closers).resumes, Some(ProcessNumber(3)));
        assert_eq!((closers.strays(1000), closers.strays(1001)), (2, 0));
        // With the other end gone nothing is left to wait for.
        drop(other_end);
        assert_eq!(wait_closed(&mut closers).resumes, Some(ProcessNumber(1)));
        assert_eq!(wait_closed(&mut closers).resumes, Some(ProcessNumber(2)));
        assert_eq!(closers.strays(1000), 0);
        assert!(closers.users.is_empty(), "the threads end");
    }
}
