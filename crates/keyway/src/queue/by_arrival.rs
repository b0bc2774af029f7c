//! A queue that goes by arrival: its lanes and its clock, as the order needs them.
//!
//! Whose turn it is, and why, is `keyway_shm::arrival`.

use keyway_shm::arrival::{Look, Scene, Stamps};
use keyway_sys::clock;

use crate::{
    error::Error,
    queue::{Inbox, Queue},
};

impl Scene for Queue {
    fn now_ns(&mut self) -> u64 {
        clock::now_ns()
    }

    fn take_in_lanes(&mut self) {
        if self.look_at_events().is_err() {
            // To be told to whoever takes: as if it had not been looked at.
            self.events_seen = self.events_seen.wrapping_sub(1);
        }
    }

    fn slots(&self) -> usize {
        self.lanes.slots()
    }

    #[inline]
    fn lane(&mut self, slot: usize) -> Option<(&mut Stamps, u64)> {
        let lane = self.lanes.get_mut(slot)?;
        Some((&mut lane.stamps, lane.receiver.taken()))
    }

    #[inline]
    fn look(&mut self, slot: usize) -> Look {
        let Some(lane) = self.lanes.get_mut(slot) else { return Look::Nothing };
        if !lane.receiver.is_ready() {
            return Look::Nothing;
        }
        let found = match lane.receiver.next_stamp() {
            Ok(None) => return Look::Nothing,
            Ok(Some(stamp)) => Look::Message(stamp),
            Err(_) => Look::Over,
        };
        if self.lanes.heat(slot)
            && let Some(lane) = self.lanes.get_mut(slot)
        {
            lane.receiver.finish_wait();
        }
        found
    }
}

impl Queue {
    /// The lane to be taken from next. It may turn out to have nothing for the user.
    #[inline]
    pub(super) fn next_lane(&mut self) -> Option<usize> {
        if self.by_arrival.is_some() { self.next_by_arrival() } else { self.lanes.next() }
    }

    /// So many lanes may have nothing for the user before one has.
    #[inline]
    pub(super) fn turns(&self) -> usize {
        if self.by_arrival.is_some() { self.lanes.len() } else { self.lanes.hot().len() }
    }

    fn next_by_arrival(&mut self) -> Option<usize> {
        let mut order = self.by_arrival.take()?;
        let slot = order.next(self);
        self.by_arrival = Some(order);
        slot
    }

    /// A lane had nothing though it was its turn.
    #[cold]
    pub(super) fn found_nothing(&mut self, slot: usize) {
        if let Some((stamps, taken)) = self.lane(slot)
            && stamps.is_known_after(taken)
        {
            stamps.withdraw(clock::now_ns());
        }
    }

    /// Takes up to `max` messages, as they were sent.
    #[cold]
    pub(super) fn fill_by_arrival(&mut self, inbox: &mut Inbox, max: usize) -> Result<(), Error> {
        for _ in 0..=self.turns() + max {
            if inbox.len() >= max {
                break;
            }
            let Some(slot) = self.next_by_arrival() else { break };
            self.fill_from(slot, inbox, inbox.len() + 1)?;
            // Nothing, if it was taken.
            self.found_nothing(slot);
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "embedded"))]
mod tests;
