//! One process's I/O: its socket, its pidfd, what waits to be sent, and how many descriptors it has not read.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use keyway_abi::{
    Farewell, Fault,
    limits::{FRAME_DESCRIPTORS_MAX, OUTBOX_FRAMES_MAX},
};
use keyway_sys::{
    Errno, Error,
    epoll::{Epoll, Interest},
    frame::{self, Sent, Waiting},
    socket,
};

use crate::{deferred::Deferred, memories::Memory};

/// A frame that is on its way, with what goes beside it.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<Beside>,
    /// Whether the process is to find it by its event word.
    pub(crate) is_event: bool,
}

/// A descriptor that goes beside a frame, closed as its kind must be by whoever drops it last.
#[derive(Debug)]
pub(crate) enum Beside {
    /// A memory of the broker's.
    Memory(Arc<Memory>),
    /// What came from a process.
    Device(Arc<Deferred>),
    /// A small thing of the broker's own: a page, the far end of a pair.
    Own(Arc<OwnedFd>),
}

impl AsFd for Beside {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Beside::Memory(memory) => memory.as_fd(),
            Beside::Device(device) => device.as_fd(),
            Beside::Own(fd) => fd.as_fd(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) socket: OwnedFd,
    /// Nothing until the first frame of a confined child has come.
    pub(crate) bound: Option<Bound>,
    pub(crate) deposit: Option<Arc<Deferred>>,
    outbox: VecDeque<Parcel>,
    /// Descriptors in the outbox.
    waiting: u32,
    /// Descriptors that were sent since last everything was seen to be read.
    unread: u32,
    /// What the outbox waits for, while there is something in it.
    until: Option<Until>,
    /// What epoll watches the socket for.
    interest: Interest,
    token: u64,
}

/// What has to happen before more can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// There is room in the socket.
    Room,
    /// All that was sent is read: too many descriptors are unread.
    Read,
    /// Linux lets the broker's user send descriptors again. Nothing tells when.
    Allowance,
}

/// The process of a session.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) pidfd: OwnedFd,
}

impl Session {
    pub(crate) fn new(socket: OwnedFd, bound: Option<Bound>, token: u64) -> Self {
        Session {
            socket,
            bound,
            deposit: None,
            outbox: VecDeque::new(),
            waiting: 0,
            unread: 0,
            until: None,
            interest: Interest::Read,
            token,
        }
    }

    /// Sends, or keeps for later, and says how many events have gone out. While something is kept, no further request of
    /// this process is read.
    ///
    /// # Errors
    /// Why the session has to end.
    pub(crate) fn send(&mut self, epoll: &Epoll, parcel: Parcel) -> Result<u32, Farewell> {
        if self.outbox.len() >= OUTBOX_FRAMES_MAX {
            return Err(self.not_reading());
        }
        let was_idle = self.outbox.is_empty();
        self.waiting += parcel.descriptors.len() as u32;
        self.outbox.push_back(parcel);
        if was_idle { self.flush(epoll) } else { Ok(0) }
    }

    /// Sends what was kept, as far as it goes, and says how many events were among it: only those may be counted, as the
    /// process does not look twice for one that was counted too early. Call again when the socket is writable, or, with
    /// [`Until::Allowance`], after a while.
    ///
    /// # Errors
    /// Why the session has to end: no frame is ever left out.
    pub(crate) fn flush(&mut self, epoll: &Epoll) -> Result<u32, Farewell> {
        let mut events = 0;
        self.until = None;
        while let Some(parcel) = self.outbox.front() {
            let count = parcel.descriptors.len() as u32;
            if count > 0 && self.unread + count > UNREAD_MAX && self.look_unread() > 0 {
                self.until = Some(Until::Read);
                break;
            }
            // Borrowed anew, as looking has changed what was counted.
            let Some(parcel) = self.outbox.front() else { break };
            match send(&self.socket, parcel) {
                Ok(Sent::WouldBlock) => {
                    self.until = Some(Until::Room);
                    break;
                }
                // With the other end closed nobody misses the frame: the end itself is told by epoll.
                Ok(sent @ (Sent::Whole | Sent::Closed)) => {
                    events += u32::from(parcel.is_event);
                    self.unread += if sent == Sent::Whole { count } else { 0 };
                    self.waiting -= count;
                    self.outbox.pop_front();
                }
                Err(Error { errno: Errno::TOOMANYREFS, .. }) => {
                    self.until = Some(Until::Allowance);
                    break;
                }
                Err(error) => return Err(Farewell::SystemRefused { errno: error.raw_os_error() }),
            }
        }
        self.watch(epoll);
        Ok(events)
    }

    /// Throws away what waits to be sent: nobody will read it.
    pub(crate) fn give_up(&mut self, epoll: &Epoll) {
        self.outbox.clear();
        (self.waiting, self.until) = (0, None);
        self.watch(epoll);
    }

    fn watch(&mut self, epoll: &Epoll) {
        let interest = match self.until {
            None => Interest::Read,
            Some(Until::Room) => Interest::Write,
            Some(Until::Read) => Interest::Taken,
            Some(Until::Allowance) => Interest::End,
        };
        if interest != self.interest {
            self.interest = interest;
            // The socket was added when the session began, and a change of interest takes no memory.
            let _ = epoll.modify(&self.socket, self.token, interest);
        }
    }

    /// Whether something waits to be sent.
    pub(crate) fn is_congested(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// What the outbox waits for.
    pub(crate) fn until(&self) -> Option<Until> {
        self.until
    }

    /// Looks how many descriptors at most the process has not read: all since last it had read everything.
    pub(crate) fn look_unread(&mut self) -> u32 {
        if self.unread > 0 && !socket::has_unread(&self.socket).unwrap_or(true) {
            self.unread = 0;
        }
        self.unread
    }

    /// Descriptors on their way to the process, as far as is known without looking.
    pub(crate) fn on_the_way(&self) -> u32 {
        self.waiting + self.unread
    }

    /// Its user; nobody before a confined child has spoken.
    pub(crate) fn uid(&self) -> u32 {
        self.bound.as_ref().map_or(u32::MAX, |bound| bound.uid)
    }

    /// Why it ends when it takes too little.
    pub(crate) fn not_reading(&self) -> Farewell {
        Farewell::Fault(Fault::NotReading { frames: self.outbox.len() as u32 })
    }
}

/// Sends one frame without waiting.
pub(crate) fn send(socket: impl AsFd, parcel: &Parcel) -> Result<Sent, Error> {
    let descriptors: Vec<BorrowedFd<'_>> = parcel.descriptors.iter().map(AsFd::as_fd).collect();
    frame::send_frame(socket, &parcel.bytes, &descriptors, Waiting::DontWait)
}

/// Descriptors that one session may leave unread; the next one waits until it has read them all.
const UNREAD_MAX: u32 = 64;
const _: () = assert!(UNREAD_MAX as usize >= FRAME_DESCRIPTORS_MAX);

#[cfg(test)]
mod tests {
    use keyway_sys::socket::{self, PairUse};

    use super::*;

    #[test]
    fn a_process_that_does_not_read_has_so_many_frames_kept_and_no_more() {
        let pair = socket::seqpacket_pair(PairUse::Session).unwrap();
        let epoll = Epoll::new().unwrap();
        epoll.add(&pair.broker_end, 1, Interest::Read).unwrap();
        let mut session = Session::new(pair.broker_end, None, 1);
        let mut send =
            || session.send(&epoll, Parcel { bytes: vec![7; 1000], descriptors: Vec::new(), is_event: true });
        // LIMIT: the socket's own buffer takes fewer than this.
        let mut gone = 0;
        for _ in 0..100_000 {
            match send() {
                Ok(1) => gone += 1,
                Ok(_) => break,
                Err(fault) => panic!("nothing was kept yet: {fault}"),
            }
        }
        assert!(gone > 0);
        for _ in 1..OUTBOX_FRAMES_MAX {
            assert_eq!(send(), Ok(0));
        }
        let fault = send().unwrap_err();
        let Farewell::Fault(found) = fault else { panic!("a fault: {fault:?}") };
        assert_eq!(found, Fault::NotReading { frames: OUTBOX_FRAMES_MAX as u32 });
        keyway_provoked::note(&found, "");
        assert_eq!(send(), Err(fault), "and it stays refused");
        assert_eq!(session.outbox.len(), OUTBOX_FRAMES_MAX, "and is not kept");
    }
}
