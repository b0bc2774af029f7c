//! Doorbells: a pair of sockets between two sessions that share a lane, made when one of them asks, gone with the last lane.

use alloc::{vec, vec::Vec};

use keyway_abi::{Denial, Event, LaneId, ProcessNumber, Reply, request};

use crate::{
    effect::{Descriptor, Effect, Token},
    kernel::{Kernel, Outcome},
    lane::{Opening, Waiting},
    neighbours::{Doorbell, Neighbours, Pair},
    sweep::Caller,
};

impl Kernel {
    pub(crate) fn doorbell(
        &mut self,
        caller: Caller,
        request: &request::Doorbell,
    ) -> Result<Outcome, Denial> {
        let pair = self.check_doorbell(caller, request.lane)?;
        self.check_request(caller.process)?;
        let token = Token(self.next_number());
        self.set_doorbell(pair, Doorbell::Making(token));
        let task = self.wait_for(Some(caller), Waiting::Doorbell { pair, token, lane: request.lane });
        self.effects.push(Effect::CreateDoorbell { task, token });
        Ok(Outcome::Later)
    }

    /// Linux has made the ends of a doorbell: each of the two gets one, the asker last, so that it rings nobody who has none.
    pub(crate) fn commit_doorbell(&mut self, caller: Caller, pair: Pair, token: Token, lane: LaneId) {
        if self.doorbell_of(pair) != Doorbell::Making(token) {
            // Meanwhile they have come to share no lane, or to share another one.
            self.effects.push(Effect::DropDoorbell { token });
            return self.reply(caller, Reply::Denied(Denial::LaneEnded { lane }), vec![]);
        }
        self.set_doorbell(pair, Doorbell::There);
        let (asker, peer) = (caller.process, pair.other(caller.process));
        self.notify(peer, Event::Doorbell { peer: asker }, vec![Descriptor::DoorbellEnd(token)]);
        self.reply(caller, Reply::Doorbell { peer }, vec![Descriptor::DoorbellEnd(token)]);
    }

    /// Linux refused a doorbell: it was never there.
    pub(crate) fn undo_doorbell(&mut self, pair: Pair, token: Token) {
        if self.doorbell_of(pair) == Doorbell::Making(token) {
            self.set_doorbell(pair, Doorbell::None);
        }
    }

    /// Two sessions share one more lane.
    pub(crate) fn meet(&mut self, pair: Pair) {
        let none = Neighbours { lanes: 0, doorbell: Doorbell::None };
        self.neighbours.entry(pair).or_insert(none).lanes += 1;
    }

    /// Two sessions share a lane less. With the last one goes their doorbell.
    pub(crate) fn part(&mut self, pair: Pair) {
        let Some(neighbours) = self.neighbours.get_mut(&pair) else { return };
        neighbours.lanes -= 1;
        if neighbours.lanes == 0 {
            self.end_doorbell(pair);
            self.neighbours.remove(&pair);
        }
    }

    /// A doorbell is over: who has an end of it, and is still there, is told.
    pub(crate) fn end_doorbell(&mut self, pair: Pair) {
        let had = self.doorbell_of(pair);
        self.set_doorbell(pair, Doorbell::None);
        let here: Vec<ProcessNumber> = pair.members().filter(|member| self.is_reachable(*member)).collect();
        // While it was being made nobody had an end.
        for member in here.into_iter().filter(|_| had == Doorbell::There) {
            self.news_of(member).doorbells.push(pair.other(member));
        }
    }

    /// The two sessions, if the asker has an end of the lane, both can use it, and they have no doorbell.
    fn check_doorbell(&self, caller: Caller, id: LaneId) -> Result<Pair, Denial> {
        let lane = self.lanes.get(&id).ok_or(Denial::UnknownLane { lane: id })?;
        let sends = lane.sender == caller.process && lane.sender_here;
        let receives = lane.receiver == caller.process && lane.receiver_here;
        if !sends && !receives {
            return Err(Denial::UnknownLane { lane: id });
        }
        if lane.ended.is_some() {
            return Err(Denial::LaneEnded { lane: id });
        }
        // Nobody is told of a session through a lane that it has not been told of.
        if lane.opening != Opening::Open {
            return Err(Denial::LaneUnopened { lane: id });
        }
        let pair = Pair::of(lane.sender, lane.receiver);
        match self.doorbell_of(pair) {
            Doorbell::None => Ok(pair),
            Doorbell::Making(_) | Doorbell::There => {
                Err(Denial::DoorbellExists { peer: pair.other(caller.process) })
            }
        }
    }

    fn doorbell_of(&self, pair: Pair) -> Doorbell {
        self.neighbours.get(&pair).map_or(Doorbell::None, |neighbours| neighbours.doorbell)
    }

    fn set_doorbell(&mut self, pair: Pair, doorbell: Doorbell) {
        if let Some(neighbours) = self.neighbours.get_mut(&pair) {
            neighbours.doorbell = doorbell;
        }
        for member in pair.members() {
            // One of the two may have ended; then it has no record.
            let Some(process) = self.processes.get_mut(&member) else { continue };
            let other = pair.other(member);
            match doorbell {
                Doorbell::None => process.doorbells.remove(&other),
                Doorbell::Making(_) | Doorbell::There => process.doorbells.insert(other),
            };
        }
    }
}
