//! A descriptor that becomes readable at a time of `CLOCK_BOOTTIME`, which goes on while the machine is suspended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::time::{self, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use crate::{Errno, Error};

/// See the module: `timerfd_create(2)`.
#[derive(Debug)]
pub struct Timer {
    fd: OwnedFd,
}

impl Timer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn new() -> Result<Self, Error> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let fd = time::timerfd_create(TimerfdClockId::Boottime, flags);
        Ok(Timer { fd: fd.map_err(Error::of("timerfd_create"))? })
    }

    /// Makes it readable at this time of [`boot_ns`](crate::clock::boot_ns), at once if that has passed, or never.
    ///
    /// # Errors
    /// None that a caller could bring about.
    pub fn set(&self, at_ns: Option<u64>) -> Result<(), Error> {
        // A time of 0 would disarm it.
        let at = at_ns.map_or(0, |at| at.max(1));
        let seconds = i64::try_from(at / 1_000_000_000).unwrap_or(i64::MAX);
        #[allow(clippy::cast_possible_wrap)] // Below a thousand million.
        let it_value = Timespec { tv_sec: seconds, tv_nsec: (at % 1_000_000_000) as i64 };
        let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        let set = time::timerfd_settime(&self.fd, TimerfdTimerFlags::ABSTIME, &spec);
        set.map(drop).map_err(Error::of("timerfd_settime"))
    }

    /// Makes it unreadable until it is set again.
    ///
    /// # Errors
    /// None that a caller could bring about.
    pub fn drain(&self) -> Result<(), Error> {
        match rustix::io::read(&self.fd, &mut [0; 8]) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(Error { call: "read(timerfd)", errno }),
        }
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        clock::boot_ns,
        epoll::{Epoll, Interest},
    };

    #[test]
    fn it_is_readable_from_its_time_on_and_not_before() {
        let (timer, epoll) = (Timer::new().unwrap(), Epoll::new().unwrap());
        epoll.add(&timer, 7, Interest::Read).unwrap();
        let mut ready = Vec::new();
        let mut fires = |within| {
            epoll.wait(&mut ready, Some(within)).unwrap();
            !ready.is_empty()
        };
        assert!(!fires(Duration::from_millis(1)), "it is not set");
        let at = boot_ns() + 20_000_000;
        timer.set(Some(at)).unwrap();
        assert!(fires(Duration::from_secs(20)) && boot_ns() >= at);
        timer.drain().unwrap();
        assert!(!fires(Duration::ZERO));
        timer.set(Some(boot_ns() + 3_600_000_000_000)).unwrap();
        timer.set(None).unwrap();
        assert!(!fires(Duration::from_millis(1)));
        for past in [0, 1] {
            timer.set(Some(past)).unwrap();
            assert!(fires(Duration::from_secs(20)), "what has passed is at once");
        }
    }
}
