//! Whose turn it is in a queue that goes by arrival: a message committed before another was sent is received first.
//!
//! Each message says when it was sent: a time between the call that sends it and its commit. So of two messages of which one
//! was committed before the other was sent, it has the smaller stamp (by `CLOCK_MONOTONIC`, which all processors agree on).
//! What is taken next is the smallest stamp among the lanes' first messages.
//!
//! # Why one scan misorders
//! Lane 1 is looked at and empty. Then A is committed on lane 1, and then B is sent on lane 2. Then lane 2 is looked at: there
//! is B, and nothing else is known. So what a scan has found is not delivered as it is. The *horizon* is a time that was read
//! before every lane without a known message was looked at, and only messages with stamps up to the horizon are delivered:
//!
//! 1. Let M be such a message, and A one that was committed before M was sent, on whatever lane, and not yet received.
//! 2. A was committed before M's stamp was read, so before the horizon was, so before its lane was looked at: it, or one
//!    before it on its lane, is known.
//! 3. Stamps of a lane never go back, so what is known of A's lane is no greater than A's stamp, which is smaller than M's. So
//!    M is not the smallest.
//!
//! When the smallest is above the horizon, the horizon is renewed: the clock is read, and then the lanes that were empty are
//! looked at again. What was known has by then a stamp below it. So two renewals are enough for any message, and what has
//! piled up is taken without looking at empty lanes in between.
//!
//! # What a stamp is worth
//! It is an allegation, and judged once for each message, when that is the first of its lane. It counts as no more than now,
//! and as no less than
//! - the one before it on its lane;
//! - the time at which the receiver had not yet come to the place one ring before, as an honest sender had no room there.
//!
//! Neither moves the stamp of an honest sender past its commit. There is a third bound, which needs no number: a lane that was
//! empty is looked at again only when nothing up to the horizon is left. So whoever says it was first is behind all that was
//! known when its lane was empty.
//!
//! What this leaves to a hostile sender: it gets before others by as much as fits into its ring twice, and then it is its turn
//! like anyone's. How much that may be is for the queue to say (`ring_bytes_max`).
//!
//! A sender in another time namespace has another clock, and says so in its ring; what it sends counts as sent when it is
//! first seen. It may lie, and is clamped.
//!
//! # Hot and cold
//! A cold lane is looked at in each renewal like the others: its ring may come late, and the promise does not wait for it. It is
//! cold in that nothing is announced in it again before each sleep. Lanes that were opened meanwhile are taken in between the
//! clock and the look: a sender learns that its lane is open once the receiver's event word says so.
//!
//! LIMIT: a renewal looks at all lanes, a cache line or two each; a message that has piled up costs the logarithm of the lanes
//! that have some. Two stamps within one tick of the clock are in either order. The opening of a lane that is kept back, because
//! this process has not read its events, is learnt of late. A process that changes its own time namespace after it has opened
//! lanes (`setns(2)`) counts as one that lies.

use alloc::collections::BinaryHeap;
use core::cmp::Reverse;

use crate::{lane::Stamp, view};

/// What the order knows of one lane.
#[derive(Debug)]
pub struct Stamps {
    /// Its clock is the receiver's.
    is_same_clock: bool,
    ring_bytes: u32,
    /// What the next stamp counts as at least.
    floor_ns: u64,
    /// A place that the receiver had not left at that time.
    mark: (u32, u64),
    head: Option<Head>,
}

/// The first message of a lane.
#[derive(Clone, Copy, Debug)]
struct Head {
    number: u64,
    /// How many were taken before it.
    taken: u64,
}

impl Stamps {
    /// Of a lane with a ring of so many bytes, whose sender has the receiver's clock or another.
    #[inline]
    pub fn new(is_same_clock: bool, ring_bytes: u32) -> Self {
        Stamps { is_same_clock, ring_bytes, floor_ns: 0, mark: (0, 0), head: None }
    }

    #[inline]
    fn raise(&mut self, to_ns: u64) -> u64 {
        self.floor_ns = self.floor_ns.max(to_ns);
        self.floor_ns
    }

    #[inline]
    fn head_after(&self, taken: u64) -> Option<Head> {
        self.head.filter(|head| head.taken == taken)
    }

    /// Whether the first message of the lane is known, of which so many were taken.
    #[inline]
    pub fn is_known_after(&self, taken: u64) -> bool {
        self.head_after(taken).is_some()
    }

    /// The lane's first message is not there any more though it was not taken. It has been seen empty now: whatever its sender
    /// stores there and takes away again, others come before it.
    pub fn withdraw(&mut self, now_ns: u64) {
        self.head = None;
        self.raise(now_ns);
    }

    /// Whether a stamp can be judged without reading the clock, which said this before.
    #[inline]
    fn is_settled(&self, stamp: Stamp, horizon_ns: u64) -> bool {
        self.is_same_clock && stamp.alleged_ns <= horizon_ns && !self.is_ring_behind(stamp.position)
    }

    #[inline]
    fn is_ring_behind(&self, position: u32) -> bool {
        position.wrapping_sub(self.mark.0) >= self.ring_bytes
    }

    /// What a stamp counts as that is looked at now.
    #[inline]
    fn judge(&mut self, stamp: Stamp, now_ns: u64) -> u64 {
        if self.is_ring_behind(stamp.position) {
            self.raise(self.mark.1);
            // The receiver stands here: an honest sender has not yet had room a ring further on.
            self.mark = (stamp.position, now_ns);
        }
        let alleged_ns = if self.is_same_clock { stamp.alleged_ns.min(now_ns) } else { now_ns };
        self.raise(alleged_ns)
    }
}

/// What a look at a lane found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// There is no message.
    Nothing,
    /// There is one.
    Message(Stamp),
    /// The lane is over, which is to be told.
    Over,
}

/// The lanes, by their slots, and the time.
pub trait Scene {
    /// Now, by a clock that all processors agree on and that does not go back.
    fn now_ns(&mut self) -> u64;
    /// Takes in lanes that are new.
    fn take_in_lanes(&mut self);
    /// Slots are numbers below this.
    fn slots(&self) -> usize;
    /// What is known of a lane, and how many messages of it were taken.
    fn lane(&mut self, slot: usize) -> Option<(&mut Stamps, u64)>;
    /// Looks at a lane.
    fn look(&mut self, slot: usize) -> Look;
}

/// A lane's first message among those of the others: by stamp, and of equal ones by when they were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    stamp_ns: u64,
    number: u64,
    slot: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub struct ByArrival {
    /// What was committed before this is known, or behind what is known.
    horizon_ns: u64,
    /// The lanes' first messages, as far as they are known, and some that are not there any more.
    heads: BinaryHeap<Reverse<Place>>,
    /// How many were seen.
    seen: u64,
}

/// More are never needed while the clock does not go back.
const RENEWALS_MAX: usize = 2;

impl ByArrival {
    /// The lane to be taken from next.
    pub fn next(&mut self, scene: &mut impl Scene) -> Option<usize> {
        for renewals in 0..=RENEWALS_MAX {
            match self.first(scene) {
                Some(place) if place.stamp_ns <= self.horizon_ns => return Some(place.slot),
                None if renewals > 0 => return None,
                _ => self.renew(scene),
            }
        }
        self.first(scene).map(|place| place.slot)
    }

    /// The smallest of what is known.
    fn first(&mut self, scene: &mut impl Scene) -> Option<Place> {
        while let Some(&Reverse(place)) = self.heads.peek() {
            let head = scene.lane(place.slot).and_then(|(stamps, taken)| stamps.head_after(taken));
            if head.is_some_and(|head| head.number == place.number) {
                return Some(place);
            }
            // It was taken, or its lane is gone: what comes after it?
            self.heads.pop();
            self.look(scene, place.slot);
        }
        None
    }

    /// Reads the clock, and then looks at all lanes of which nothing is known.
    fn renew(&mut self, scene: &mut impl Scene) {
        // The order is the promise: the clock, then the lanes.
        self.horizon_ns = scene.now_ns();
        // SYNC arrival-horizon: the clock before the look at any lane; pairs with `LaneSender::stamp`.
        view::full_fence();
        scene.take_in_lanes();
        for slot in 0..scene.slots() {
            self.look(scene, slot);
        }
    }

    /// Looks at a lane, unless its first message is known.
    fn look(&mut self, scene: &mut impl Scene, slot: usize) {
        let Some((stamps, taken)) = scene.lane(slot) else { return };
        if stamps.head_after(taken).is_some() {
            return;
        }
        let found = scene.look(slot);
        let Some((stamps, _)) = scene.lane(slot) else { return };
        let stamp_ns = match found {
            Look::Nothing => return,
            // What is over is told at once.
            Look::Over => 0,
            Look::Message(stamp) if stamps.is_settled(stamp, self.horizon_ns) => {
                stamps.judge(stamp, self.horizon_ns)
            }
            Look::Message(stamp) => {
                let now_ns = scene.now_ns();
                let Some((stamps, _)) = scene.lane(slot) else { return };
                stamps.judge(stamp, now_ns)
            }
        };
        self.seen += 1;
        let number = self.seen;
        if let Some((stamps, taken)) = scene.lane(slot) {
            stamps.head = Some(Head { number, taken });
        }
        self.heads.push(Reverse(Place { stamp_ns, number, slot }));
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
