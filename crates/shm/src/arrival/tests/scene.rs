//! Lanes in private memory and a clock that goes one further with everything that happens; others act between any two steps of
//! the receiver.

use std::{collections::VecDeque, vec::Vec};

use super::{ByArrival, Look, Scene, Stamp, Stamps};

pub(super) const RING_BYTES: u32 = 4096;
pub(super) const MESSAGE_BYTES: u32 = 64;

/// How a sender stamps.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Honest,
    /// It says whatever it likes, given the time.
    Says(fn(u64) -> u64),
    /// Honest, by another clock.
    OtherClock,
}

/// What somebody does.
#[derive(Clone, Debug)]
pub(super) enum Deed {
    Send(usize),
    /// So many that are committed together.
    SendBatch(usize, usize),
    /// The call has begun and the stamp is read.
    Begin(usize),
    Commit(usize),
    Open(Kind),
    Close(usize),
    Rest,
}

/// What honest senders can be held to.
#[derive(Clone, Copy, Debug)]
struct Fact {
    began: u64,
    committed: u64,
}

#[derive(Debug)]
struct Message {
    stamp: u64,
    fact: Option<Fact>,
}

#[derive(Debug)]
struct Lane {
    kind: Kind,
    stamps: Stamps,
    is_taken_in: bool,
    is_over: bool,
    /// Begun, and not committed.
    begun: Option<(u64, u64)>,
    messages: VecDeque<Message>,
    taken: u64,
}

impl Lane {
    fn new(kind: Kind, is_taken_in: bool) -> Self {
        let stamps = Stamps::new(!matches!(kind, Kind::OtherClock), RING_BYTES);
        let (messages, taken) = (VecDeque::new(), 0);
        Lane { kind, stamps, is_taken_in, is_over: false, begun: None, messages, taken }
    }
}

pub(super) struct World {
    time: u64,
    lanes: Vec<Lane>,
    /// Steps of the receiver until the first of what others do.
    pause: usize,
    script: VecDeque<Deed>,
    /// How many of them happen at each step, again and again; all at the first if nothing is said.
    pace: Vec<usize>,
    steps: usize,
    received: Vec<Fact>,
    sent: usize,
    pub(super) looks: usize,
}

impl World {
    pub(super) fn new(kinds: &[Kind]) -> Self {
        World {
            time: 1,
            lanes: kinds.iter().map(|kind| Lane::new(*kind, true)).collect(),
            pause: 0,
            script: VecDeque::new(),
            pace: Vec::new(),
            steps: 0,
            received: Vec::new(),
            sent: 0,
            looks: 0,
        }
    }

    fn tick(&mut self) -> u64 {
        self.time += 1;
        self.time
    }

    pub(super) fn act(&mut self, deeds: &[Deed]) {
        for deed in deeds {
            self.act_once(deed);
        }
    }

    /// After so many steps of the receiver this happens at once.
    pub(super) fn after_steps(&mut self, steps: usize, deeds: &[Deed]) {
        (self.pause, self.script) = (steps, deeds.iter().cloned().collect());
    }

    /// So much of it happens at each step.
    pub(super) fn act_meanwhile(&mut self, deeds: Vec<Deed>, pace: Vec<usize>) {
        (self.script, self.pace) = (deeds.into(), pace);
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.script.is_empty()
    }

    /// Something happens even if the pace says nothing.
    pub(super) fn pass_time(&mut self) {
        if let Some(deed) = self.script.pop_front() {
            self.act_once(&deed);
        }
    }

    /// What has begun is committed.
    pub(super) fn finish(&mut self) {
        for slot in 0..self.lanes.len() {
            self.act_once(&Deed::Commit(slot));
        }
    }

    fn act_once(&mut self, deed: &Deed) {
        self.tick();
        match *deed {
            Deed::Send(slot) => {
                self.act_once(&Deed::Commit(slot));
                self.act_once(&Deed::Begin(slot));
                self.act_once(&Deed::Commit(slot));
            }
            Deed::SendBatch(slot, count) => {
                self.act_once(&Deed::Commit(slot));
                self.act_once(&Deed::Begin(slot));
                self.commit(slot, count);
            }
            Deed::Begin(slot) => self.begin(slot),
            Deed::Commit(slot) => self.commit(slot, 1),
            Deed::Open(kind) => self.lanes.push(Lane::new(kind, false)),
            Deed::Close(slot) => self.lanes[slot].is_over = true,
            Deed::Rest => {}
        }
    }

    fn begin(&mut self, slot: usize) {
        let began = self.tick();
        let stamp = self.tick();
        if let Some(lane) = self.lanes.get_mut(slot)
            && lane.begun.is_none()
        {
            lane.begun = Some((began, stamp));
        }
    }

    fn commit(&mut self, slot: usize, count: usize) {
        let committed = self.tick();
        let Some(lane) = self.lanes.get_mut(slot) else { return };
        // As in a ring, there is room for no more.
        if lane.messages.len() + count > (RING_BYTES / MESSAGE_BYTES) as usize {
            return;
        }
        let Some((began, stamp)) = lane.begun.take() else { return };
        for place in 0..count {
            let (stamp, is_held) = match lane.kind {
                Kind::Honest => (if place == 0 { stamp } else { 0 }, true),
                Kind::Says(lie) => (lie(stamp), false),
                Kind::OtherClock => (stamp / 7, false),
            };
            let fact = is_held.then_some(Fact { began, committed });
            self.sent += usize::from(is_held);
            lane.messages.push_back(Message { stamp, fact });
        }
    }

    /// Takes the first message of a lane.
    pub(super) fn take(&mut self, slot: usize) {
        let lane = &mut self.lanes[slot];
        let message = lane.messages.pop_front().expect("its turn, so it has one");
        lane.taken += 1;
        self.received.extend(message.fact);
    }

    /// A message is gone as if it had never been there.
    pub(super) fn withdraw(&mut self, slot: usize) {
        self.lanes[slot].messages.pop_front();
    }

    pub(super) fn replace(&mut self, slot: usize, kind: Kind) {
        self.lanes[slot] = Lane::new(kind, true);
    }

    /// Takes all there is, and tells the lane of each and how many of that lane came before it.
    pub(super) fn take_all(&mut self, order: &mut ByArrival) -> Vec<(usize, u64)> {
        let mut taken = Vec::new();
        while let Some(slot) = order.next(self) {
            taken.push((slot, self.lanes[slot].taken));
            self.take(slot);
        }
        taken
    }

    /// Holds what was received against what was promised.
    pub(super) fn check(&self) {
        assert_eq!(self.received.len(), self.sent, "all that was sent is received");
        let mut latest_began = 0;
        for (place, fact) in self.received.iter().enumerate() {
            assert!(
                fact.committed >= latest_began,
                "message {place}, committed at {}, came after one that was sent at {latest_began}",
                fact.committed
            );
            latest_began = latest_began.max(fact.began);
        }
    }

    /// A step of the receiver is over.
    fn step(&mut self) {
        self.tick();
        self.steps += 1;
        if self.pause > 0 {
            self.pause -= 1;
            if self.pause > 0 {
                return;
            }
        }
        let count = match self.pace.len() {
            0 => self.script.len(),
            len => self.pace[self.steps % len],
        };
        for _ in 0..count {
            self.pass_time();
        }
    }
}

impl Scene for World {
    fn now_ns(&mut self) -> u64 {
        let now = self.tick();
        self.step();
        now
    }

    fn take_in_lanes(&mut self) {
        for lane in &mut self.lanes {
            lane.is_taken_in = true;
        }
        self.step();
    }

    fn slots(&self) -> usize {
        self.lanes.iter().take_while(|lane| lane.is_taken_in).count()
    }

    fn lane(&mut self, slot: usize) -> Option<(&mut Stamps, u64)> {
        let lane = self.lanes.get_mut(slot).filter(|lane| lane.is_taken_in)?;
        Some((&mut lane.stamps, lane.taken))
    }

    fn look(&mut self, slot: usize) -> Look {
        self.looks += 1;
        let lane = &self.lanes[slot];
        let position = (lane.taken as u32).wrapping_mul(MESSAGE_BYTES);
        let found = match lane.messages.front() {
            Some(message) => Look::Message(Stamp { alleged_ns: message.stamp, position }),
            None if lane.is_over => Look::Over,
            None => Look::Nothing,
        };
        self.step();
        found
    }
}
