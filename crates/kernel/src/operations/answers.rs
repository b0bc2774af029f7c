//! What Linux answered: the second half of every operation that needed it.

use keyway_abi::{Denial, Event, Farewell, Kind, LaneEnd, ProcessNumber, Reply};

use crate::{
    effect::{Answer, Descriptor, Effect, PairKind, Refusal},
    end::LaneSide,
    kernel::Kernel,
    lane::Waiting,
    limits::Charge,
    object::{AckState, RegionState},
    sweep::{Caller, Loss},
};

impl Kernel {
    pub(crate) fn commit_answer(&mut self, answer: Answer) {
        let Some((awaiting, waiting)) = self.waiting.remove(&answer.task) else { return };
        let Some(caller) = awaiting.map(|awaiting| self.end_awaiting(awaiting)) else {
            match waiting {
                Waiting::Page(process) => self.commit_page(process, answer.outcome),
                Waiting::Closing(account) => self.accounts.release(account, Charge::DESCRIPTOR),
                _ => {}
            }
            return;
        };
        if !self.is_reachable(caller.process) {
            match waiting {
                Waiting::Child(child) => self.end_session(child, None),
                Waiting::Freeze(region) => self.commit_frozen(caller, region, answer.outcome),
                Waiting::Doorbell { token, .. } if answer.outcome.is_ok() => {
                    self.effects.push(Effect::DropDoorbell { token });
                }
                _ => {}
            }
            return;
        }
        self.log.set_asker(Some((caller.process, caller.call.opcode)));
        match (&waiting, answer.outcome) {
            (Waiting::Signal(process, signal), outcome) => {
                self.commit_act(caller, (*process, *signal), outcome);
            }
            (Waiting::Freeze(region), outcome) => self.commit_frozen(caller, *region, outcome),
            (_, Ok(())) => self.commit_done(caller, &waiting),
            (_, Err(Refusal::Fault(fault))) => {
                if let Waiting::Child(child) = waiting {
                    self.end_session(child, None);
                }
                self.end_session(caller.process, Some(Farewell::Fault(fault)));
            }
            (_, Err(Refusal::System(errno))) => {
                self.undo(caller, &waiting);
                self.reply(caller, Reply::Denied(Denial::SystemRefused { errno }), alloc::vec![]);
            }
        }
        self.log.set_asker(None);
    }

    fn commit_done(&mut self, caller: Caller, waiting: &Waiting) {
        match *waiting {
            Waiting::Page(_) | Waiting::Closing(_) | Waiting::Freeze(_) | Waiting::Signal(..) => {}
            Waiting::Acks { queue, first, count, made_queue } => {
                if !self.objects.contains_key(&queue) {
                    let denial = Denial::ObjectEnded { kind: Kind::Queue };
                    return self.reply(caller, Reply::Denied(denial), alloc::vec![]);
                }
                self.commit_acks_made(caller, queue, first, count, made_queue);
            }
            Waiting::AcksSeal { queue, first, count } => {
                if self.objects.contains_key(&queue) {
                    let queue = self.queue_mut(queue);
                    for (index, (_, state)) in queue.acks.range_mut(first..first + count) {
                        *state = AckState::Ready;
                        queue.ready.insert(*index);
                    }
                }
                self.reply(caller, Reply::Done, alloc::vec![]);
            }
            Waiting::Ring(lane) if self.lanes.contains_key(&lane) => self.commit_ring_made(caller, lane),
            Waiting::RingSeal(lane) if self.lanes.contains_key(&lane) => {
                self.commit_ring_sealed(caller, lane);
            }
            Waiting::Ring(lane) | Waiting::RingSeal(lane) => {
                self.reply(caller, Reply::Denied(Denial::LaneEnded { lane }), alloc::vec![]);
            }
            Waiting::Region(object, handle) => self.commit_region_made(caller, object, handle),
            Waiting::RegionSeal(mapping) if self.mappings.contains_key(&mapping) => {
                self.commit_region_sealed(caller, mapping);
            }
            Waiting::RegionSeal(mapping) => {
                self.reply(caller, Reply::Denied(Denial::UnknownMapping { mapping }), alloc::vec![]);
            }
            Waiting::Child(child) => self.commit_child(caller, child),
            Waiting::Doorbell { pair, token, lane } => self.commit_doorbell(caller, pair, token, lane),
            Waiting::DepositPair => {
                let end = Descriptor::PairEnd(caller.process, PairKind::Deposit);
                self.reply(caller, Reply::Done, alloc::vec![end]);
            }
        }
    }

    /// Linux refused: what the operation had made goes again.
    fn undo(&mut self, caller: Caller, waiting: &Waiting) {
        match *waiting {
            Waiting::Page(_)
            | Waiting::Closing(_)
            | Waiting::Freeze(_)
            | Waiting::Signal(..)
            | Waiting::DepositPair => {}
            Waiting::Acks { queue, made_queue: true, .. } => {
                if self.objects.contains_key(&queue) {
                    self.end_object(queue, Loss::Deleted);
                }
            }
            Waiting::Acks { queue, first, count, made_queue: false }
            | Waiting::AcksSeal { queue, first, count } => {
                if self.objects.contains_key(&queue) {
                    self.drop_acks(queue, first, count);
                }
            }
            Waiting::Ring(lane) | Waiting::RingSeal(lane) => {
                if self.lanes.contains_key(&lane) {
                    self.leave_lane(lane, LaneSide::Sender, LaneEnd::Closed);
                }
            }
            Waiting::Region(object, handle) => {
                if let Some(capability) = self.first_capability(caller, handle) {
                    self.drop_capability(capability, Loss::Deleted);
                }
                if self.objects.contains_key(&object) {
                    // Its maker found the handle in a listing and has passed it on.
                    self.region_mut(object).state = RegionState::Abandoned;
                }
            }
            Waiting::RegionSeal(mapping) => {
                if self.mappings.contains_key(&mapping) {
                    self.end_mapping(mapping, Loss::Deleted);
                }
            }
            Waiting::Child(child) => self.end_session(child, None),
            Waiting::Doorbell { pair, token, .. } => self.undo_doorbell(pair, token),
        }
    }

    fn commit_page(&mut self, number: ProcessNumber, outcome: Result<(), Refusal>) {
        let Some(process) = self.processes.get_mut(&number) else { return };
        let page = process.pages.next_number();
        let outcome = outcome.map_err(|refusal| match refusal {
            Refusal::System(errno) => errno,
            // Making a page has nothing to do with what a process did.
            Refusal::Fault(_) => 0,
        });
        let account = process.account;
        process.pages.on_created(outcome);
        if outcome.is_err() && page != 0 {
            self.accounts.release(account, Charge::PAGE);
        }
        if let (Err(errno), 0) = (outcome, page) {
            // Without its first page a process cannot even begin.
            return self.end_session(number, Some(Farewell::SystemRefused { errno }));
        }
        if outcome.is_ok() && page != 0 {
            self.notify(number, Event::PageAdded { page }, alloc::vec![Descriptor::Page(page)]);
        }
    }
}
