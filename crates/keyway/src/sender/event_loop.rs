//! Waiting for room without sleeping: what an event loop watches.

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use keyway_shm::WakeBy;
use keyway_sys::barrier;

use crate::{
    alarm::Alarm,
    error::Error,
    pool::{Awaited, Pool, Shares},
    sender::Sender,
    waiting::SLEEP_MAX,
};

/// After so long one looks again who waits for somebody who cannot ring.
const HALF_SLEEP: Duration = Duration::from_millis(10);

/// For event loops.
impl Sender {
    /// A descriptor that is readable when there may be room, once the sender is armed. Close it when you like; it is always the
    /// same set that is watched.
    ///
    /// ```text
    /// loop {
    ///     try to send (try_send, try_send_segments, try_block, ...) until it is no longer WouldBlock
    ///     arm()?; try once more; wait until the descriptor is readable
    ///     disarm(); hear()?
    /// }
    /// ```
    ///
    /// Room is that of the lane, of its segments, and of the pool by which its large payloads go ([`Sender::set_pool`]).
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`; what the broker answers to the request for a doorbell.
    pub fn event_descriptor(&mut self) -> Result<OwnedFd, Error> {
        if self.rung.is_none() {
            let mut alarm = Alarm::new(&self.control)?;
            alarm.listen(self.lane, self.peer)?;
            self.rung = Some(Rung { alarm, awaited: Vec::new() });
        }
        self.rung.as_ref().map_or(Err(Error::WouldBlock), |rung| rung.alarm.descriptor())
    }

    /// Asks the receiver to ring when there is room, and the receivers of its pool's blocks when they have released some: see
    /// [`Sender::event_descriptor`]. Where one of those cannot ring, because the broker had no doorbell to give or the lane is closed, the
    /// descriptor is readable again after 10 ms, and in any case after half a second.
    ///
    /// # Errors
    /// [`Error::BrokerGone`] and [`Error::SessionEnded`]; `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn arm(&mut self) -> Result<(), Error> {
        self.control.check()?;
        self.disarm();
        self.inner.announce_wait(WakeBy::Doorbell);
        let (own, pool) = self.segments.what_is_awaited();
        let are_heard = self.rung.as_mut().map_or(Ok(()), |rung| rung.listen(own, pool));
        // SYNC segment-doorbell: that we wait before the last look; pairs with `releases::release`.
        barrier::make();
        are_heard
    }

    /// Asks them to ring no more.
    pub fn disarm(&mut self) {
        self.inner.finish_wait();
        if let Some(rung) = &mut self.rung {
            rung.listen_no_more(self.segments.what_is_awaited().0);
        }
    }

    /// Takes what made the descriptor readable. Never waits.
    ///
    /// # Errors
    /// [`Error::BrokerGone`] and [`Error::SessionEnded`].
    pub fn hear(&mut self) -> Result<(), Error> {
        self.rung.as_mut().map_or(Ok(()), |rung| rung.alarm.hear(Duration::ZERO).map(drop))
    }
}

/// How a sender hears of room.
#[derive(Debug)]
pub(super) struct Rung {
    alarm: Alarm,
    /// The lanes that are asked to ring for a release, while armed.
    awaited: Vec<Awaited>,
}

impl Rung {
    /// Asks for rings.
    fn listen(&mut self, own: &Arc<Shares>, pool: Option<&Pool>) -> Result<(), Error> {
        let mut lanes = pool.map(|pool| pool.listen(self.alarm.ear())).unwrap_or_default();
        // Who gets a block later is told of by the pool.
        lanes.retain(|lane| lane.has_any());
        if !lanes.iter().any(|lane| Arc::ptr_eq(lane, own)) {
            lanes.push(Arc::clone(own));
        }
        let mut are_heard = true;
        for lane in lanes {
            let (peer, id) = lane.place();
            match self.alarm.listen(id, peer) {
                Ok(()) => self.awaited.push(Awaited::new(lane)),
                Err(error @ (Error::BrokerGone | Error::SessionEnded(_))) => return Err(error),
                Err(_) => are_heard = false,
            }
        }
        // A receiver rings once a quarter of the ring is free, which may never come.
        self.alarm.look_after(if are_heard { SLEEP_MAX } else { HALF_SLEEP })
    }

    fn listen_no_more(&mut self, own: &Arc<Shares>) {
        for lane in self.awaited.drain(..) {
            if !Arc::ptr_eq(lane.shares(), own) {
                self.alarm.ignore(lane.shares().place().1);
            }
        }
    }
}
