//! What can block, done in threads apart: closing descriptors that came from processes, and freezing memories.
//!
//! Closing such a descriptor can block for as long as its maker likes (a socket that lingers, a file of a slow file
//! system), and freezing waits for pages that are pinned, so the broker's loop does neither. Each user that has something to close has a thread, so that nobody waits for
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
use keyway_kernel::{Answer, Refusal, Task};
use keyway_sys::{
    Errno,
    epoll::EventFd,
    memory::{self, Freeze},
};

use crate::memories::{Memory, refusal};

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
enum Job {
    Close(OwnedFd, Closing),
    Freeze(Arc<Memory>, Task),
}

/// What has been done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Did {
    Close(Closing),
    Freeze(Answer),
}

#[derive(Debug)]
struct Closer {
    orders: Sender<Job>,
    pending: u32,
    strays: u32,
}

#[derive(Debug)]
struct Closed {
    uid: u32,
    did: Did,
}

impl Closers {
    /// Nothing is to be closed. `bell` is rung each time that something has been.
    pub(crate) fn new(bell: Arc<EventFd>) -> Self {
        let (report, closed) = mpsc::channel();
        Closers { bell, users: BTreeMap::new(), closed, report }
    }

    /// Closes a descriptor that came from a process of this user.
    pub(crate) fn close(&mut self, uid: u32, fd: OwnedFd, closing: Closing) {
        self.give(uid, Job::Close(fd, closing));
    }

    /// Freezes a memory of a process of this user.
    pub(crate) fn freeze(&mut self, uid: u32, fd: Arc<Memory>, task: Task) {
        self.give(uid, Job::Freeze(fd, task));
    }

    fn give(&mut self, uid: u32, job: Job) {
        let closer = match self.users.remove(&uid) {
            Some(closer) => Some(closer),
            None => self.start(uid),
        };
        if let Some(mut closer) = closer {
            closer.pending += 1;
            closer.strays += u32::from(matches!(job, Job::Close(_, Closing { task: None, .. })));
            // It fails only once that thread has ended, which it does after its entry here.
            let _ = closer.orders.send(job);
            self.users.insert(uid, closer);
        } else {
            // Linux refuses a thread: better slow than never.
            let _ = self.report.send(Closed { uid, did: job.run() });
            let _ = self.bell.ring();
        }
    }

    /// The next thing that is done.
    pub(crate) fn poll_done(&mut self) -> Option<Did> {
        let Closed { uid, did } = self.closed.try_recv().ok()?;
        if let Some(closer) = self.users.get_mut(&uid) {
            closer.pending = closer.pending.saturating_sub(1);
            closer.strays = closer
                .strays
                .saturating_sub(u32::from(matches!(did, Did::Close(Closing { task: None, .. }))));
            if closer.pending == 0 {
                self.users.remove(&uid);
            }
        }
        Some(did)
    }

    /// Whether so many descriptors of this user that nobody is charged for are not closed yet that it can have no more of them.
    pub(crate) fn is_full(&self, uid: u32) -> bool {
        self.strays(uid) > STRAYS_MAX
    }

    /// Descriptors of this user that nobody is charged for and that are not closed yet.
    pub(crate) fn strays(&self, uid: u32) -> u32 {
        self.users.get(&uid).map_or(0, |closer| closer.strays)
    }

    fn start(&self, uid: u32) -> Option<Closer> {
        let (orders, to_close) = mpsc::channel::<Job>();
        let (report, bell) = (self.report.clone(), Arc::clone(&self.bell));
        let thread = thread::Builder::new().name("keyway-closing".into()).stack_size(STACK_BYTES);
        let started = thread.spawn(move || {
            // It ends with the last sender; a close that never returns keeps nobody else.
            for job in to_close {
                // It fails when the loop has ended: nobody is to be told.
                let _ = report.send(Closed { uid, did: job.run() });
                let _ = bell.ring();
            }
        });
        started.ok().map(|_| Closer { orders, pending: 0, strays: 0 })
    }
}

impl Job {
    fn run(self) -> Did {
        match self {
            Job::Close(fd, closing) => {
                drop(fd);
                Did::Close(closing)
            }
            Job::Freeze(fd, task) => Did::Freeze(Answer { task, outcome: freeze(&fd) }),
        }
    }
}

fn freeze(fd: &Memory) -> Result<(), Refusal> {
    match memory::freeze(fd).map_err(refusal)? {
        Freeze::Frozen => Ok(()),
        Freeze::Pinned => Err(Refusal::System(Errno::BUSY.raw_os_error())),
        Freeze::SealedByOther => Err(Refusal::System(Errno::PERM.raw_os_error())),
    }
}

/// Descriptors of one user that nobody is charged for and that wait to be closed: sent where none belong, or sockets of sessions
/// that have ended. Above it the user begins no session, and of its sessions no descriptor is taken in any more. So at most this
/// many and those of one frame wait, and the sockets of the sessions that it had.
pub(crate) const STRAYS_MAX: u32 = 64;

/// A thread that only closes needs little.
const STACK_BYTES: usize = 64 << 10;

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        io::Write,
        net::{TcpListener, TcpStream},
        os::fd::OwnedFd,
        time::{Duration, Instant},
    };

    use rustix::net::sockopt;

    use super::*;

    /// A socket whose close blocks: it lingers over bytes that the other end does not read.
    pub(crate) fn lingering(listener: &TcpListener, seconds: u64) -> (OwnedFd, TcpStream) {
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (other, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        // The other end's buffer grows for a while, and what it takes is not waited for.
        while stream.write(&[0; 1 << 12]).is_ok() || {
            thread::sleep(Duration::from_millis(100));
            stream.write(&[0; 1 << 12]).is_ok()
        } {}
        stream.set_nonblocking(false).unwrap();
        sockopt::set_socket_linger(&stream, Some(Duration::from_secs(seconds))).unwrap();
        (stream.into(), other)
    }

    fn wait_closed(closers: &mut Closers) -> Closing {
        let began = Instant::now();
        loop {
            if let Some(Did::Close(closing)) = closers.poll_done() {
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
