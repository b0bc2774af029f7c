//! One process's I/O: its socket, its pidfd, what waits to be sent.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use keyway_abi::{Fault, limits::OUTBOX_FRAMES_MAX};
use keyway_sys::{
    Error,
    epoll::{Epoll, Interest},
    frame::{self, Sent, Waiting},
};

/// A frame that is on its way, with what goes beside it.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<Arc<OwnedFd>>,
    /// Whether the process is to find it by its event word.
    pub(crate) is_event: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) socket: OwnedFd,
    /// Nothing until the first frame of a confined child has come.
    pub(crate) bound: Option<Bound>,
    pub(crate) deposit: Option<Arc<OwnedFd>>,
    outbox: VecDeque<Parcel>,
    /// What epoll watches the socket for.
    interest: Interest,
    token: u64,
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
        Session { socket, bound, deposit: None, outbox: VecDeque::new(), interest: Interest::Read, token }
    }

    /// Sends, or keeps for later, and says how many events have gone out. While something is kept, no further request of
    /// this process is read.
    pub(crate) fn send(&mut self, epoll: &Epoll, parcel: Parcel) -> Result<u32, Fault> {
        if self.outbox.len() >= OUTBOX_FRAMES_MAX {
            return Err(Fault::NotReading { frames: OUTBOX_FRAMES_MAX as u32 });
        }
        let was_idle = self.outbox.is_empty();
        self.outbox.push_back(parcel);
        Ok(if was_idle { self.flush(epoll) } else { 0 })
    }

    /// Sends what was kept, as far as it goes, and says how many events were among it: only those may be counted, as the
    /// process does not look twice for one that was counted too early. Call again when the socket is writable.
    pub(crate) fn flush(&mut self, epoll: &Epoll) -> u32 {
        let mut events = 0;
        while let Some(parcel) = self.outbox.front() {
            match send(&self.socket, parcel) {
                Ok(Sent::WouldBlock) => break,
                // The other end is closed: the end itself is told by epoll.
                Ok(Sent::Whole | Sent::Closed) | Err(_) => {
                    events += u32::from(parcel.is_event);
                    self.outbox.pop_front();
                }
            }
        }
        let interest = if self.is_congested() { Interest::Write } else { Interest::Read };
        if interest != self.interest {
            self.interest = interest;
            // The socket was added when the session began, and a change of interest takes no memory.
            let _ = epoll.modify(&self.socket, self.token, interest);
        }
        events
    }

    /// Whether something waits to be sent.
    pub(crate) fn is_congested(&self) -> bool {
        !self.outbox.is_empty()
    }
}

/// Sends one frame without waiting.
pub(crate) fn send(socket: impl AsFd, parcel: &Parcel) -> Result<Sent, Error> {
    let descriptors: Vec<BorrowedFd<'_>> = parcel.descriptors.iter().map(|fd| fd.as_fd()).collect();
    frame::send_frame(socket, &parcel.bytes, &descriptors, Waiting::DontWait)
}

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
        assert_eq!(fault, Fault::NotReading { frames: OUTBOX_FRAMES_MAX as u32 });
        keyway_provoked::note(&fault, "");
        assert_eq!(send(), Err(fault), "and it stays refused");
        assert_eq!(session.outbox.len(), OUTBOX_FRAMES_MAX, "and is not kept");
    }
}
