//! Who looks at a lane of which the other side has rung.
//!
//! One doorbell serves a pair of processes, whatever queues and senders they have between them. Whoever finds it ringing
//! takes all rings and tells each to the one whom it concerns: an [`Ear`] is a list of lanes to look at, and a descriptor
//! that is readable while somebody has put something there.
//!
//! ```text
//!   peer rings ──▶ doorbell (one for each peer) ──▶ whoever wakes first ──▶ ear of lane 1
//!                                                                     └───▶ ear of lane 2
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use keyway_abi::{LaneId, ProcessNumber};
use keyway_sys::epoll::EventFd;

use crate::error::Error;

/// Where one that sleeps is told which of its lanes to look at.
#[derive(Debug)]
pub(crate) struct Ear {
    event: EventFd,
    rung: Mutex<Vec<LaneId>>,
}

impl Ear {
    pub(crate) fn new() -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Ear { event: EventFd::new()?, rung: Mutex::new(Vec::new()) }))
    }

    /// Readable while it has been told something.
    pub(crate) fn event(&self) -> &EventFd {
        &self.event
    }

    /// Takes the lanes that were told.
    pub(crate) fn take(&self) -> Result<Vec<LaneId>, Error> {
        // First the descriptor: what is told in between is taken, and looked for once more in vain.
        self.event.drain()?;
        Ok(std::mem::take(&mut *locked(&self.rung)))
    }

    /// Something has happened that concerns no lane.
    pub(crate) fn wake(&self) {
        // Nothing that Linux could refuse; and each sleep ends after a while.
        let _ = self.event.ring();
    }

    fn tell(&self, lane: LaneId) {
        locked(&self.rung).push(lane);
        self.wake();
    }
}

/// The lanes of which rings are awaited, and whom they concern.
#[derive(Debug, Default)]
pub(crate) struct Bells {
    lanes: Mutex<Lanes>,
}

#[derive(Debug, Default)]
struct Lanes {
    /// One, or two where both ends of the lane are this session's.
    ears: BTreeMap<LaneId, Vec<(ProcessNumber, Arc<Ear>)>>,
    of_peer: BTreeMap<ProcessNumber, BTreeSet<LaneId>>,
}

impl Bells {
    /// From now on rings for this lane are told to that ear.
    pub(crate) fn listen(&self, lane: LaneId, peer: ProcessNumber, ear: &Arc<Ear>) {
        let mut lanes = locked(&self.lanes);
        let ears = lanes.ears.entry(lane).or_default();
        if !ears.iter().any(|(_, known)| Arc::ptr_eq(known, ear)) {
            ears.push((peer, Arc::clone(ear)));
        }
        lanes.of_peer.entry(peer).or_default().insert(lane);
    }

    /// This ear awaits rings for this lane no more.
    pub(crate) fn ignore(&self, lane: LaneId, ear: &Arc<Ear>) {
        let mut lanes = locked(&self.lanes);
        let Some(ears) = lanes.ears.get_mut(&lane) else { return };
        let Some(place) = ears.iter().position(|(_, known)| Arc::ptr_eq(known, ear)) else { return };
        let (peer, _) = ears.remove(place);
        if !ears.is_empty() {
            return;
        }
        lanes.ears.remove(&lane);
        if let Some(of_peer) = lanes.of_peer.get_mut(&peer) {
            of_peer.remove(&lane);
            if of_peer.is_empty() {
                lanes.of_peer.remove(&peer);
            }
        }
    }

    /// Nobody listens with this ear any more.
    pub(crate) fn forget(&self, ear: &Arc<Ear>) {
        let heard: Vec<LaneId> = {
            let lanes = locked(&self.lanes);
            let of_ear =
                lanes.ears.iter().filter(|(_, ears)| ears.iter().any(|(_, known)| Arc::ptr_eq(known, ear)));
            of_ear.map(|(lane, _)| *lane).collect()
        };
        for lane in heard {
            self.ignore(lane, ear);
        }
    }

    /// Tells of the lane's end.
    pub(crate) fn tell(&self, lane: LaneId) {
        locked(&self.lanes).tell(lane, |_| true);
    }

    /// Tells of a ring. A lane that is nobody's, or not that peer's, is not looked at.
    pub(crate) fn tell_rung(&self, by: ProcessNumber, lane: LaneId) {
        locked(&self.lanes).tell(lane, |peer| peer == by);
    }

    /// Tells of all lanes to a peer whose rings were lost, or who is gone.
    pub(crate) fn tell_all(&self, peer: ProcessNumber) {
        let lanes = locked(&self.lanes);
        for lane in lanes.of_peer.get(&peer).into_iter().flatten() {
            lanes.tell(*lane, |_| true);
        }
    }
}

impl Lanes {
    fn tell(&self, lane: LaneId, is_theirs: impl Fn(ProcessNumber) -> bool) {
        for (peer, ear) in self.ears.get(&lane).into_iter().flatten() {
            if is_theirs(*peer) {
                ear.tell(lane);
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_told_to_whom_it_concerns() {
        let (first, second) = (Ear::new().unwrap(), Ear::new().unwrap());
        let (peer, other) = (ProcessNumber(7), ProcessNumber(8));
        let bells = Bells::default();
        bells.listen(LaneId(1), peer, &first);
        bells.listen(LaneId(2), peer, &second);
        bells.listen(LaneId(3), other, &first);
        bells.tell_rung(peer, LaneId(1));
        bells.tell_rung(peer, LaneId(9));
        bells.tell_rung(other, LaneId(2));
        assert_eq!((first.take().unwrap(), second.take().unwrap()), (vec![LaneId(1)], vec![]));
        bells.tell_all(peer);
        assert_eq!((first.take().unwrap(), second.take().unwrap()), (vec![LaneId(1)], vec![LaneId(2)]));
        bells.ignore(LaneId(1), &second);
        bells.ignore(LaneId(1), &first);
        bells.tell(LaneId(1));
        bells.tell_all(other);
        assert_eq!(first.take().unwrap(), vec![LaneId(3)]);
        assert!(!second.event().drain().unwrap(), "taken with the lanes");
        bells.forget(&first);
        bells.tell(LaneId(3));
        assert_eq!(first.take().unwrap(), vec![]);
        bells.forget(&second);
        assert!(locked(&bells.lanes).ears.is_empty() && locked(&bells.lanes).of_peer.is_empty());
    }
}
