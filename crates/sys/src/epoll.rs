//! Readiness of many descriptors, and a way to wake the thread that waits for it.
//!
//! Level-triggered, but for [`Interest::Taken`]: what is not handled is told again. A token is the caller's own number for a descriptor; take the
//! descriptor out before it is closed, because Linux goes on watching it as long as somebody else has it open.

use std::{
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{
        self, EventfdFlags,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    io::Errno,
};

use crate::{Error, clock};

/// The most descriptors that one wait tells of; the others are told by the next.
pub const READY_MAX: usize = 64;

/// A set of watched descriptors: `epoll(7)`.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
}

impl Epoll {
    /// An empty set: `epoll_create1(2)`, closed at `exec`.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> Result<Self, Error> {
        let fd = epoll::create(CreateFlags::CLOEXEC).map_err(Error::of("epoll_create1"))?;
        Ok(Self { fd })
    }

    /// Watches a descriptor: `epoll_ctl(2)`.
    ///
    /// # Errors
    /// `EEXIST` when it is watched already, `EPERM` for a file that is always ready, `ENOSPC`.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<(), Error> {
        epoll::add(&self.fd, fd, EventData::new_u64(token), interest.flags())
            .map_err(Error::of("epoll_ctl(EPOLL_CTL_ADD)"))
    }

    /// Watches for something else, or by another token: `epoll_ctl(2)`.
    ///
    /// # Errors
    /// `ENOENT` when it is not watched.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<(), Error> {
        epoll::modify(&self.fd, fd, EventData::new_u64(token), interest.flags())
            .map_err(Error::of("epoll_ctl(EPOLL_CTL_MOD)"))
    }

    /// Stops watching a descriptor: `epoll_ctl(2)`.
    ///
    /// # Errors
    /// `ENOENT` when it is not watched.
    pub fn delete(&self, fd: impl AsFd) -> Result<(), Error> {
        epoll::delete(&self.fd, fd).map_err(Error::of("epoll_ctl(EPOLL_CTL_DEL)"))
    }

    /// Waits until something is ready, at most for `timeout` (`None`: for ever), and puts what is into `ready`, which is
    /// emptied first: `epoll_pwait2(2)`. A signal ends the wait early, with nothing ready.
    ///
    /// # Errors
    /// None that is known.
    pub fn wait(&self, ready: &mut Vec<Ready>, timeout: Option<Duration>) -> Result<(), Error> {
        ready.clear();
        let mut events = [MaybeUninit::<Event>::uninit(); READY_MAX];
        let timeout = timeout.map(clock::timespec);
        match epoll::wait(&self.fd, &mut events, timeout.as_ref()) {
            Ok((events, _)) => ready.extend(events.iter().map(Ready::of)),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error { call: "epoll_wait", errno }),
        }
        Ok(())
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Waits until one of the descriptors can be read, at most for `timeout`, and tells whether one can: `ppoll(2)`. A signal
/// ends the wait early, as if one could.
///
/// # Errors
/// `ENOMEM`; `EINVAL` for more than the process may have open.
pub fn wait_readable(fds: &[BorrowedFd<'_>], timeout: Duration) -> Result<bool, Error> {
    let mut polled: Vec<_> =
        fds.iter().map(|fd| event::PollFd::from_borrowed_fd(*fd, event::PollFlags::IN)).collect();
    match event::poll(&mut polled, Some(&clock::timespec(timeout))) {
        Ok(count) => Ok(count > 0),
        Err(Errno::INTR) => Ok(true),
        Err(errno) => Err(Error { call: "ppoll", errno }),
    }
}

/// What a descriptor is watched for. Its end is always told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Only its end, as long as somebody cannot take in more.
    End,
    /// Something to read.
    Read,
    /// Room to write.
    Write,
    /// Both.
    ReadWrite,
    /// That the other end has read something, as long as a Unix socket then has most of its room again; told once each time.
    Taken,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Self::End => EventFlags::empty(),
            Self::Read => EventFlags::IN,
            Self::Write => EventFlags::OUT,
            Self::ReadWrite => EventFlags::IN | EventFlags::OUT,
            Self::Taken => EventFlags::OUT | EventFlags::ET,
        }
    }
}

/// What a descriptor is ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The number that it was added with.
    pub token: u64,
    /// There is something to read, or the end.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// The other end is closed, or the descriptor has an error to tell. Frames may still wait to be read.
    pub hangup: bool,
}

impl Ready {
    fn of(event: &Event) -> Self {
        let (data, flags) = (event.data, event.flags);
        Self {
            token: data.u64(),
            readable: flags.contains(EventFlags::IN),
            writable: flags.contains(EventFlags::OUT),
            hangup: flags.intersects(EventFlags::HUP | EventFlags::ERR),
        }
    }
}

/// Wakes a thread that waits for readiness, from any other: `eventfd(2)`. It stays within one process, because whoever
/// shares one can make the other's calls block.
#[derive(Debug)]
pub struct EventFd {
    fd: OwnedFd,
}

impl EventFd {
    /// One that nobody has rung.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> Result<Self, Error> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let fd = event::eventfd(0, flags).map_err(Error::of("eventfd"))?;
        Ok(Self { fd })
    }

    /// Makes it readable. Never blocks: a count that is full is rung already.
    ///
    /// # Errors
    /// None that is known.
    pub fn ring(&self) -> Result<(), Error> {
        match rustix::io::write(&self.fd, &1_u64.to_ne_bytes()) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(Error { call: "write(eventfd)", errno }),
        }
    }

    /// Makes it unreadable, and tells whether somebody had rung. Look at what the ringing announced only after this.
    ///
    /// # Errors
    /// None that is known.
    pub fn drain(&self) -> Result<bool, Error> {
        match rustix::io::read(&self.fd, &mut [0; 8]) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(Error { call: "read(eventfd)", errno }),
        }
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        frame::{self, Sent, Waiting},
        socket::{self, PairUse},
    };

    #[test]
    fn readiness_carries_the_token_and_its_end() {
        let epoll = Epoll::new().unwrap();
        let pair = socket::seqpacket_pair(PairUse::Session).unwrap();
        epoll.add(&pair.broker_end, 7 << 40, Interest::Read).unwrap();
        let mut ready = Vec::new();
        epoll.wait(&mut ready, Some(Duration::ZERO)).unwrap();
        assert_eq!(ready, []);

        assert_eq!(frame::send_frame(&pair.client_end, b"x", &[], Waiting::DontWait).unwrap(), Sent::Whole);
        epoll.wait(&mut ready, None).unwrap();
        assert_eq!(ready, [Ready { token: 7 << 40, readable: true, writable: false, hangup: false }]);

        epoll.modify(&pair.broker_end, 9, Interest::Write).unwrap();
        epoll.wait(&mut ready, None).unwrap();
        assert_eq!(ready, [Ready { token: 9, readable: false, writable: true, hangup: false }]);

        epoll.modify(&pair.broker_end, 9, Interest::End).unwrap();
        epoll.wait(&mut ready, Some(Duration::ZERO)).unwrap();
        assert_eq!(ready, []);
        drop(pair.client_end);
        epoll.wait(&mut ready, None).unwrap();
        assert!(ready[0].hangup);

        epoll.delete(&pair.broker_end).unwrap();
        epoll.wait(&mut ready, Some(Duration::ZERO)).unwrap();
        assert_eq!(ready, []);
        assert_eq!(epoll.delete(&pair.broker_end).unwrap_err().errno, Errno::NOENT);
    }

    #[test]
    fn each_frame_that_is_read_is_told_once() {
        let epoll = Epoll::new().unwrap();
        let pair = socket::seqpacket_pair(PairUse::Session).unwrap();
        epoll.add(&pair.broker_end, 5, Interest::Taken).unwrap();
        let mut ready = Vec::new();
        let mut told = || {
            epoll.wait(&mut ready, Some(Duration::ZERO)).unwrap();
            ready.len()
        };
        assert_eq!((told(), told()), (1, 0), "there is room, which is told once");
        for _ in 0..2 {
            let sent = frame::send_frame(&pair.broker_end, b"x", &[], Waiting::DontWait).unwrap();
            assert_eq!(sent, Sent::Whole);
        }
        assert_eq!(told(), 0);
        for left in [true, false] {
            let mut buffer = [0; 8];
            frame::receive_frame(&pair.client_end, &mut buffer, 0, Waiting::DontWait).unwrap();
            assert_eq!((told(), told()), (1, 0));
            assert_eq!(socket::has_unread(&pair.broker_end).unwrap(), left);
        }
        drop(pair.client_end);
        assert_eq!((told(), told()), (1, 0), "its end is told once, too");
    }

    #[test]
    fn ringing_wakes_a_waiting_loop_once() {
        let epoll = Epoll::new().unwrap();
        let bell = EventFd::new().unwrap();
        epoll.add(&bell, 1, Interest::Read).unwrap();
        let mut ready = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| bell.ring().unwrap());
            epoll.wait(&mut ready, Some(Duration::from_secs(10))).unwrap();
        });
        assert_eq!(ready.len(), 1);
        bell.ring().unwrap();
        assert!(bell.drain().unwrap());
        assert!(!bell.drain().unwrap());
        epoll.wait(&mut ready, Some(Duration::ZERO)).unwrap();
        assert_eq!(ready, []);
    }
}
