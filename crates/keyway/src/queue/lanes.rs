//! The lanes of a queue: which are looked at, and whose turn it is.
//!
//! A lane is *hot* when it is looked at in each turn, or *cold* when its sender has been asked to ring. Few lanes are all
//! hot; of many, those that have had nothing for a while are cold, and cost nothing.
//!
//! # Whose turn it is
//! Deficit round robin by bytes (Shreedhar and Varghese, 1995), among the lanes of the highest priority that has messages.
//! A lane is taken from while it has credit; its turn gives it some, a large message leaves it in debt, and an empty lane
//! saves nothing. Where messages go by arrival, `by_arrival` says whose turn it is.
//!
//! # Invariants
//! 1. `hot` holds each hot lane once, and only slots that are taken.
//! 2. `by_id` holds exactly the slots that are taken.

use std::collections::BTreeMap;

use keyway_abi::{LaneId, QueueOrder};
use keyway_shm::{LaneReceiver, arrival::Stamps};

use crate::{
    capability::Capability,
    queue::{Peer, segments::Places},
    sender::Sender,
};

/// A lane at its receiver.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) peer: Peer,
    pub(super) receiver: LaneReceiver,
    /// A capability to watch the sender; given up with the lane.
    pub(super) process: Capability,
    /// Where its calls are answered.
    pub(super) replies: Option<Box<Sender>>,
    /// The regions that it has brought.
    pub(super) places: Places,
    pub(super) credit: Credit,
    /// When its messages were sent, for a queue that goes by arrival.
    pub(super) stamps: Stamps,
    /// Whether it has had a message since the idle ones were last looked for.
    pub(super) is_busy: bool,
    is_hot: bool,
}

impl Lane {
    pub(super) fn new(
        peer: Peer,
        receiver: LaneReceiver,
        process: Capability,
        places: Places,
        stamps: Stamps,
    ) -> Self {
        let credit = Credit(QUANTUM);
        Lane { peer, receiver, process, replies: None, places, credit, stamps, is_busy: true, is_hot: true }
    }
}

/// Bytes that a lane may still send in this turn; negative when it has sent more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Credit(i64);

impl Credit {
    /// A message of so many bytes was taken.
    #[inline]
    pub(super) fn pay(&mut self, bytes: usize) {
        self.0 = self.0.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX)).saturating_sub(MESSAGE_COST);
    }

    #[inline]
    pub(super) fn is_left(self) -> bool {
        self.0 > 0
    }
}

/// Bytes that a lane may send in each turn.
const QUANTUM: i64 = 16 << 10;
/// What a message costs beside its bytes, so that many small ones are not for nothing.
const MESSAGE_COST: i64 = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Lanes {
    /// Each in memory of its own: a lane is much larger than what says where it is.
    slots: Vec<Option<Box<Lane>>>,
    free: Vec<usize>,
    by_id: BTreeMap<LaneId, usize>,
    hot: Vec<usize>,
    /// The place in `hot` whose turn it is.
    turn: usize,
    order: QueueOrder,
}

impl Lanes {
    pub(super) fn new(order: QueueOrder) -> Self {
        Lanes { slots: Vec::new(), free: Vec::new(), by_id: BTreeMap::new(), hot: Vec::new(), turn: 0, order }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether messages are stamped, and `by_arrival` says whose turn it is.
    pub(super) fn go_by_arrival(&self) -> bool {
        self.order == QueueOrder::Arrival
    }

    /// Slots are numbers below this.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn insert(&mut self, lane: Lane) {
        let id = lane.peer.lane;
        let slot = self.free.pop().unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot] = Some(Box::new(lane));
        self.by_id.insert(id, slot);
        self.hot.push(slot);
    }

    pub(super) fn remove(&mut self, slot: usize) -> Option<Box<Lane>> {
        let lane = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        self.by_id.remove(&lane.peer.lane);
        if lane.is_hot {
            self.unheat(slot);
        }
        Some(lane)
    }

    pub(super) fn slot(&self, lane: LaneId) -> Option<usize> {
        self.by_id.get(&lane).copied()
    }

    #[inline]
    pub(super) fn get(&self, slot: usize) -> Option<&Lane> {
        self.slots.get(slot)?.as_deref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut Lane> {
        self.slots.get_mut(slot)?.as_deref_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.slots.iter().flatten().map(Box::as_ref)
    }

    /// The slots of the lanes that are looked at.
    pub(super) fn hot(&self) -> &[usize] {
        &self.hot
    }

    /// Does something with each hot lane.
    pub(super) fn for_hot(&mut self, mut each: impl FnMut(&mut Lane)) {
        for place in 0..self.hot.len() {
            let slot = self.hot[place];
            if let Some(lane) = self.get_mut(slot) {
                each(lane);
            }
        }
    }

    pub(super) fn has_cold(&self) -> bool {
        self.hot.len() < self.by_id.len()
    }

    /// The cold lanes that may have something.
    pub(super) fn cold_and_ready(&self) -> Vec<LaneId> {
        let cold = self.slots.iter().flatten().filter(|lane| !lane.is_hot);
        cold.filter(|lane| lane.receiver.is_ready()).map(|lane| lane.peer.lane).collect()
    }

    /// A lane is looked at from now on; says whether it was not.
    pub(super) fn heat(&mut self, slot: usize) -> bool {
        let Some(lane) = self.get_mut(slot) else { return false };
        let was_cold = !std::mem::replace(&mut lane.is_hot, true);
        lane.is_busy = true;
        if was_cold {
            self.hot.push(slot);
        }
        was_cold
    }

    /// A lane is not looked at until it rings.
    pub(super) fn cool(&mut self, slot: usize) {
        if let Some(lane) = self.get_mut(slot)
            && std::mem::replace(&mut lane.is_hot, false)
        {
            self.unheat(slot);
        }
    }

    fn unheat(&mut self, slot: usize) {
        if let Some(place) = self.hot.iter().position(|&hot| hot == slot) {
            self.hot.remove(place);
            if place < self.turn {
                self.turn -= 1;
            }
        }
    }

    /// The one hot lane, if there is no other, and nothing else is to be looked at before it is taken from.
    #[inline]
    pub(super) fn only(&self) -> Option<usize> {
        match self.hot[..] {
            [slot] if self.order != QueueOrder::Arrival => Some(slot),
            _ => None,
        }
    }

    /// The lane whose turn it still is, where that takes no search, and whether it is the one hot lane: such a lane pays
    /// nothing.
    #[inline]
    pub(super) fn current(&self) -> Option<(usize, bool)> {
        if let Some(slot) = self.only() {
            return Some((slot, true));
        }
        if self.order != QueueOrder::Fair {
            return None;
        }
        let slot = *self.hot.get(self.turn)?;
        self.get(slot)?.credit.is_left().then_some((slot, false))
    }

    /// The lane to be taken from next. It may turn out to have nothing for the user.
    pub(super) fn next(&mut self) -> Option<usize> {
        let top = match self.order {
            QueueOrder::Priority => Some(self.top_priority()?),
            QueueOrder::Fair | QueueOrder::Arrival => None,
        };
        loop {
            match self.round(top) {
                Round::Turn(slot) => return Some(slot),
                Round::Nothing => return None,
                Round::InDebt { best } => self.lift(top, best),
            }
        }
    }

    /// One round: the first lane from `turn` on that has messages and credit. Whoever is passed over gets some.
    fn round(&mut self, top: Option<u8>) -> Round {
        let mut best = None;
        for _ in 0..self.hot.len() {
            if self.turn >= self.hot.len() {
                self.turn = 0;
            }
            let slot = self.hot[self.turn];
            let is_candidate = self.is_candidate(slot, top);
            let Some(lane) = self.get_mut(slot) else { continue };
            if !is_candidate {
                // An empty lane saves nothing, and keeps its debts.
                lane.credit.0 = lane.credit.0.min(QUANTUM);
            } else if lane.credit.is_left() {
                return Round::Turn(slot);
            } else {
                lane.credit.0 += QUANTUM;
                best = best.max(Some(lane.credit.0));
            }
            self.turn += 1;
        }
        best.map_or(Round::Nothing, |best| Round::InDebt { best })
    }

    /// Gives as many rounds at once as the least indebted needs.
    fn lift(&mut self, top: Option<u8>, best: i64) {
        let rounds = (-best).max(0) / QUANTUM;
        for place in 0..self.hot.len() {
            let slot = self.hot[place];
            if self.is_candidate(slot, top)
                && let Some(lane) = self.get_mut(slot)
            {
                lane.credit.0 += rounds * QUANTUM;
            }
        }
    }

    fn is_candidate(&self, slot: usize, top: Option<u8>) -> bool {
        self.get(slot)
            .is_some_and(|lane| top.is_none_or(|top| lane.peer.priority == top) && lane.receiver.is_ready())
    }

    fn top_priority(&self) -> Option<u8> {
        let lanes = self.hot.iter().filter_map(|&slot| self.get(slot));
        lanes.filter(|lane| lane.receiver.is_ready()).map(|lane| lane.peer.priority).max()
    }
}

/// What came of going round once.
enum Round {
    /// It is this lane's turn.
    Turn(usize),
    /// There is nothing.
    Nothing,
    /// All that have something have sent more than their share; this is the most that one of them has now.
    InDebt { best: i64 },
}
