//! Descriptors on their way: what each user's processes have been sent, or are to be sent, and have not read.
//!
//! Linux counts the descriptors that a user has sent and nobody has received, and lets it send no more once they are as many
//! as it may have open (`ETOOMANYREFS`; whoever has `CAP_SYS_RESOURCE` or `CAP_SYS_ADMIN` is exempt). For Linux all that the broker sends is
//! the broker's, so one process that never reads could keep it from sending a descriptor to anybody. So each user has a share.
//!
//! Ending a session does not take back what its process has not read: it stays in the process's own socket. So the broker
//! keeps its end, counts on, and closes it when the other end has read everything or is closed.

use std::{collections::BTreeMap, os::fd::OwnedFd};

use keyway_abi::{Farewell, Payer, ProcessNumber, Quota};
use keyway_sys::{
    epoll::{Epoll, Interest},
    socket,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Unread {
    user_max: u32,
    users: BTreeMap<u32, u32>,
    /// What is counted of each session, and for whom.
    sessions: BTreeMap<ProcessNumber, (u32, u32)>,
    left: BTreeMap<u64, Left>,
    last_left: u64,
}

/// The broker's end of a session that is over, and what it was sent.
#[derive(Debug)]
struct Left {
    socket: OwnedFd,
    uid: u32,
    count: u32,
}

impl Unread {
    /// Shares out what a process with this `RLIMIT_NOFILE` may send.
    pub(crate) fn new(descriptor_limit: u64) -> Self {
        let share = (descriptor_limit / USER_PART).max(USER_MIN).min(descriptor_limit / 2);
        Unread {
            user_max: u32::try_from(share).unwrap_or(u32::MAX),
            users: BTreeMap::new(),
            sessions: BTreeMap::new(),
            left: BTreeMap::new(),
            last_left: 0,
        }
    }

    /// So many are on their way in a session of this user.
    pub(crate) fn count(&mut self, process: ProcessNumber, uid: u32, count: u32) {
        self.forget(process);
        if count > 0 {
            self.sessions.insert(process, (uid, count));
            *self.users.entry(uid).or_default() += count;
        }
    }

    /// None are in this session, or it is over.
    pub(crate) fn forget(&mut self, process: ProcessNumber) {
        if let Some((uid, count)) = self.sessions.remove(&process) {
            self.release(uid, count);
        }
    }

    /// Whether a user has more than its share.
    pub(crate) fn is_over(&self, uid: u32) -> bool {
        self.used(uid) > self.user_max
    }

    /// Why a user can begin no session, while it cannot.
    pub(crate) fn farewell(&self, uid: u32) -> Option<Farewell> {
        let (used, max) = (self.used(uid), self.user_max);
        let (quota, of) = (Quota::Descriptors, Payer::User);
        (used >= max).then_some(Farewell::Full { quota, of, used: used.into(), max: max.into() })
    }

    /// The sessions of a user, or of all, that have descriptors on their way.
    pub(crate) fn sessions(&self, of: Option<u32>) -> Vec<ProcessNumber> {
        let found = self.sessions.iter().filter(|(_, (uid, _))| of.is_none_or(|of| of == *uid));
        found.map(|(process, _)| *process).collect()
    }

    /// Keeps the broker's end of a session that is over, with so many unread. Gives it back when it cannot be watched.
    pub(crate) fn leave(
        &mut self,
        epoll: &Epoll,
        token: impl FnOnce(u64) -> u64,
        (socket, uid, count): (OwnedFd, u32, u32),
    ) -> Option<OwnedFd> {
        self.last_left += 1;
        let number = self.last_left;
        // For the other end this is what closing would be.
        let _ = socket::shutdown(&socket);
        if epoll.add(&socket, token(number), Interest::Taken).is_err() {
            return Some(socket);
        }
        *self.users.entry(uid).or_default() += count;
        self.left.insert(number, Left { socket, uid, count });
        None
    }

    /// Something became of such an end. Gives it back, with its user, once nothing in it is unread.
    pub(crate) fn look(&mut self, epoll: &Epoll, number: u64) -> Option<(OwnedFd, u32)> {
        let left = self.left.get(&number)?;
        if socket::has_unread(&left.socket).unwrap_or(false) {
            return None;
        }
        let Left { socket, uid, count } = self.left.remove(&number)?;
        let _ = epoll.delete(&socket);
        self.release(uid, count);
        Some((socket, uid))
    }

    fn used(&self, uid: u32) -> u32 {
        self.users.get(&uid).copied().unwrap_or(0)
    }

    fn release(&mut self, uid: u32, count: u32) {
        if let Some(used) = self.users.get_mut(&uid) {
            *used = used.saturating_sub(count);
            if *used == 0 {
                self.users.remove(&uid);
            }
        }
    }
}

/// The part of all descriptors that can be on their way to one user.
const USER_PART: u64 = 16;
/// And so many at least, if that is no more than half of all.
const USER_MIN: u64 = 256;

#[cfg(test)]
mod tests {
    use keyway_sys::{
        frame::{self, Waiting},
        socket::PairUse,
    };

    use super::*;

    #[test]
    fn a_user_has_a_share_whatever_there_is() {
        let share = |limit| Unread::new(limit).user_max;
        assert_eq!([share(100), share(1024), share(1 << 20), share(u64::MAX)], [50, 256, 1 << 16, u32::MAX]);
    }

    #[test]
    fn what_a_session_left_unread_counts_until_it_is_read_or_closed() {
        let epoll = Epoll::new().unwrap();
        let mut unread = Unread::new(20);
        unread.count(ProcessNumber(4), 1000, 7);
        unread.count(ProcessNumber(4), 1000, 6);
        assert!(unread.farewell(1000).is_none() && !unread.is_over(1000));
        let mut others = Vec::new();
        for _ in 0..2 {
            let pair = socket::seqpacket_pair(PairUse::Session).unwrap();
            let _ = frame::send_frame(&pair.broker_end, b"x", &[], Waiting::DontWait).unwrap();
            let left = (pair.broker_end, 1000, 3);
            assert!(unread.leave(&epoll, |number| number, left).is_none());
            others.push(pair.client_end);
        }
        assert!(unread.is_over(1000) && unread.farewell(1000).is_some());
        assert!(unread.farewell(1001).is_none());
        assert!(unread.look(&epoll, 1).is_none(), "nothing was read");
        let mut buffer = [0; 8];
        frame::receive_frame(&others[0], &mut buffer, 0, Waiting::DontWait).unwrap();
        let again = frame::receive_frame(&others[0], &mut buffer, 0, Waiting::DontWait).unwrap();
        assert!(matches!(again, frame::Reception::End), "its end is told");
        assert!(unread.look(&epoll, 1).is_some() && !unread.is_over(1000));
        others.clear();
        assert!(unread.look(&epoll, 2).is_some());
        unread.forget(ProcessNumber(4));
        assert!(unread.users.is_empty() && unread.left.is_empty() && unread.sessions.is_empty());
    }
}
