//! Teardown: how a capability, an object, a lane, a mapping and a process end, and who is told.
//!
//! Nothing here can fail, and each thing gives back exactly what it was charged.

use alloc::{vec, vec::Vec};

use keyway_abi::{
    Event, Farewell, Handle, LaneEnd, LaneId, MappingId, ProcessNumber, Reply, Verdict,
    layout::{WORD_DEAD, WORD_REVOKED},
    limits::{SWEEP_SHARE, SWEEP_STEP},
    request::RegionFlags,
};

use crate::{
    effect::Effect,
    kernel::Kernel,
    lane::{Lane, Mapping, Opening},
    limits::Charge,
    neighbours::Pair,
    news::News,
    object::{AckState, Body, Device, Object, Queue, Region, RegionState, ServiceName},
    process::Phase,
    sweep::{Loss, Owner, Sweep, Turns},
    tree::{CapabilityId, Freed, Holder, ObjectId},
};

/// One end of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LaneSide {
    Sender,
    Receiver,
}

/// Revocation.
impl Kernel {
    /// Marks the root, which takes effect at once, and does the first step.
    pub(crate) fn start_sweep(&mut self, sweep: Sweep) {
        let owner = self.mark_sweep(sweep);
        self.advance(sweep.root, 0);
        if self.sweeps.contains_key(&sweep.root) {
            self.turns.push(owner, sweep.root);
        }
    }

    /// Returns whose turn the revocation takes: of who asked for it, else of who paid for what is taken back.
    fn mark_sweep(&mut self, sweep: Sweep) -> Owner {
        let capability = self.tree.get_mut(sweep.root);
        capability.revoking = true;
        let (payer, object) = (capability.payer, capability.object);
        self.sweeps.insert(sweep.root, sweep);
        let asker = sweep.awaiting.map(|awaiting| awaiting.account);
        let account = asker.or(payer).or_else(|| self.objects.get(&object).and_then(|object| object.account));
        Owner { uid: account.map(|account| self.accounts.uid(account)), account }
    }

    /// Goes on with the revocations under way: users take turns, the accounts of each, and the revocations of each account.
    pub(crate) fn sweep_step(&mut self) {
        while self.budget > 0
            && let Some((owner, root)) = self.turns.next()
        {
            self.advance(root, self.budget.saturating_sub(SWEEP_SHARE));
            if self.sweeps.contains_key(&root) {
                self.turns.push(owner, root);
            }
        }
    }

    /// Marks what has come to its end, a bounded number of times; what nothing is derived from goes at once.
    pub(crate) fn expire_step(&mut self) {
        // LIMIT: SWEEP_STEP.
        for _ in 0..SWEEP_STEP {
            match self.tree.next_expiry() {
                Some((at, id)) if at <= self.now_ns && self.budget > 0 => self.expire_one(id),
                _ => return,
            }
        }
    }

    fn expire_one(&mut self, id: CapabilityId) {
        self.tree.begin_expiry(id);
        if let Some(sweep) = self.sweeps.get_mut(&id) {
            (sweep.whole, sweep.loss) = (true, Loss::Expired);
        } else if !self.tree.is_live(id) {
            // The revocation of something above takes it along.
        } else if self.tree.children(id).next().is_none() {
            self.drop_expired(id, 0);
        } else {
            let sweep = Sweep { root: id, awaiting: None, count: 0, loss: Loss::Expired, whole: true };
            let owner = self.mark_sweep(sweep);
            self.turns.push(owner, id);
        }
    }

    /// `below` of those that people hold have ended with it.
    fn drop_expired(&mut self, id: CapabilityId, below: u64) {
        let capability = self.tree.get(id);
        let (object, count) = (capability.object, below + u64::from(capability.is_held()));
        if count > 0 {
            let kind = self.object(object).kind();
            self.record(Verdict::Expired { kind, object: object.0, count });
        }
        self.drop_capability(id, Loss::Expired);
    }

    /// Goes on with a revocation until `left` of the budget is left.
    fn advance(&mut self, root: CapabilityId, left: usize) {
        let Some(&Sweep { loss, .. }) = self.sweeps.get(&root) else { return };
        let mut near = root;
        // LIMIT: SWEEP_STEP. Each round takes of the budget.
        while self.budget > left {
            let leaf = self.tree.leaf_below(near).unwrap_or(near);
            if leaf == root {
                return self.finish_sweep(root);
            }
            let above = self.tree.parent(leaf);
            if self.tree.get(leaf).revoking {
                // A smaller revocation has become part of this one, and has nothing left to do.
                self.budget -= 1;
                self.finish_sweep(leaf);
            } else {
                let held = self.tree.get(leaf).is_held();
                if let Some(sweep) = self.sweeps.get_mut(&root) {
                    sweep.count += u64::from(held);
                }
                self.drop_capability(leaf, loss);
            }
            // The next leaf hangs on what this one hung on, or is that itself: a deep tree is not walked from its root each
            // time. What was above may have been a joint that went along.
            near = above.filter(|above| self.tree.contains(*above)).unwrap_or(root);
        }
    }

    fn finish_sweep(&mut self, root: CapabilityId) {
        let Some(sweep) = self.sweeps.remove(&root) else { return };
        if self.sweeps.is_empty() {
            self.turns = Turns::default();
        }
        if let Some(awaiting) = sweep.awaiting {
            let caller = self.end_awaiting(awaiting);
            let object = self.tree.get(root).object;
            let (kind, count) = (self.object(object).kind(), sweep.count);
            let before = self.log.set_asker(Some((caller.process, caller.call.opcode)));
            self.record(Verdict::Revoked { kind, object: object.0, count });
            self.log.set_asker(before);
            self.reply(caller, Reply::Revoked { count }, vec![]);
        }
        if sweep.whole {
            self.tree.get_mut(root).revoking = false;
            return self.drop_expired(root, sweep.count);
        }
        let object = self.tree.get(root).object;
        let freed = self.tree.end_revoking(root);
        self.uncount(object, freed);
    }
}

/// Capabilities and objects.
impl Kernel {
    /// Takes a capability away from its holder.
    pub(crate) fn drop_capability(&mut self, id: CapabilityId, loss: Loss) {
        let capability = self.tree.get(id);
        let (object, holder) = (capability.object, capability.holder);
        if self.is_first_of_device(id, object) {
            return self.end_object(object, loss);
        }
        match holder {
            Holder::Process(process, slot) => self.empty_slot(process, slot, object, loss),
            Holder::Lane(lane) => self.on_lane_capability_gone(lane, loss),
            Holder::Mapping(mapping) => self.on_mapping_capability_gone(mapping, loss),
            Holder::Name(name) => self.withdraw_name(name),
            Holder::Escrow(lane, ticket) => self.on_escrow_gone(lane, ticket, loss),
            Holder::Kernel | Holder::Nobody => {}
        }
        let freed = self.tree.abandon(id);
        self.uncount(object, freed);
    }

    /// Whether a device stands and falls with this capability, which its depositor may have moved to another process.
    fn is_first_of_device(&self, id: CapabilityId, object: ObjectId) -> bool {
        let Body::Device(device) = &self.object(object).body else { return false };
        // Once the device is ending, its owner has it no more.
        device.root == id
            && self.processes.get(&device.owner).is_some_and(|owner| owner.owned.contains(&object))
    }

    /// Ends an object that cannot be without its owner: a queue, a device, a name.
    pub(crate) fn end_object(&mut self, id: ObjectId, loss: Loss) {
        let why = if loss == Loss::Deleted { LaneEnd::QueueDeleted } else { LaneEnd::PeerDead };
        let (root, owner) = match &self.object(id).body {
            Body::Queue(queue) => (queue.root, queue.receiver),
            Body::Device(device) => (device.root, device.owner),
            Body::ServiceName(name) => (name.root, name.publisher),
            Body::Region(_) | Body::Process(_) | Body::Directory => return,
        };
        self.process_mut(owner).owned.remove(&id);
        match &self.object(id).body {
            Body::Queue(queue) => {
                let lanes: Vec<LaneId> = queue.lanes.iter().copied().collect();
                for lane in lanes {
                    self.leave_lane(lane, LaneSide::Receiver, why);
                }
            }
            Body::ServiceName(name) => {
                let target = name.target;
                self.withdraw_name(id);
                if let Some(target) = target {
                    self.drop_capability(target, Loss::Deleted);
                }
            }
            _ => {}
        }
        self.tree.get_mut(root).revoking = true;
        // The revocation that the holder itself may have begun is overtaken by this one.
        if let Some(overtaken) = self.sweeps.remove(&root)
            && let Some(awaiting) = overtaken.awaiting
        {
            let caller = self.end_awaiting(awaiting);
            self.reply(caller, Reply::Revoked { count: overtaken.count }, vec![]);
        }
        self.drop_capability(root, loss);
        self.start_sweep(Sweep { root, awaiting: None, count: 0, loss: Loss::Ended, whole: false });
    }

    /// A process no longer watches through this capability.
    pub(crate) fn forget_watch(&mut self, process: ProcessNumber, object: ObjectId, handle: Handle) {
        let Some(Object { body: Body::Process(watched), .. }) = self.objects.get_mut(&object) else { return };
        watched.watchers.remove(&(process, handle));
        if let Some(process) = self.processes.get_mut(&process) {
            process.watching.remove(&(object, handle));
        }
    }

    fn empty_slot(&mut self, process: ProcessNumber, slot: u32, object: ObjectId, loss: Loss) {
        let entry = self.process_mut(process);
        let handle = entry.table.handle(slot);
        entry.table.empty(slot);
        entry.held.remove(object, slot);
        let account = entry.account;
        self.accounts.release(account, Charge::HANDLE);
        self.forget_watch(process, object, handle);
        if loss != Loss::Deleted {
            self.news_of(process).lost.push(handle);
        }
    }

    fn withdraw_name(&mut self, id: ObjectId) {
        let Some(Object { body: Body::ServiceName(entry), .. }) = self.objects.get_mut(&id) else { return };
        let Some(target) = entry.target.take() else { return };
        let (name, badges) = (entry.name.clone(), core::mem::take(&mut entry.badges));
        self.names.remove(&name);
        for process in badges.into_keys() {
            let process = self.process_mut(process);
            process.badged.remove(&id);
            let account = process.account;
            self.accounts.release(account, Charge::DERIVATION);
        }
        let queue = self.tree.get(target).object;
        if let Some(Object { body: Body::Queue(queue), .. }) = self.objects.get_mut(&queue) {
            queue.names.remove(&id);
        }
    }

    /// Capabilities of an object have been freed; the last one takes it along.
    pub(crate) fn uncount(&mut self, id: ObjectId, freed: Freed) {
        let count = freed.count;
        self.budget = self.budget.saturating_sub(count as usize);
        for payer in freed.payers() {
            self.accounts.release(payer, Charge::DERIVATION);
        }
        let Some(object) = self.objects.get_mut(&id) else { return };
        object.capabilities -= count;
        self.free_if_unused(id);
    }

    pub(crate) fn free_if_unused(&mut self, id: ObjectId) {
        match self.objects.get(&id) {
            Some(object) if object.capabilities == 0 && !object.is_in_use() => {}
            _ => return,
        }
        if let Body::Queue(queue) = &self.object(id).body {
            let unused = queue.acks.iter().filter(|(_, (_, state))| !matches!(state, AckState::Used(_)));
            let unused: Vec<u32> = unused.map(|(index, _)| *index).collect();
            for index in unused {
                self.drop_acks(id, index, 1);
            }
        }
        let Some(object) = self.objects.remove(&id) else { return };
        let charge = match object.body {
            Body::Queue(_) => {
                self.queues.remove(&id);
                Queue::CHARGE
            }
            Body::Region(Region { token, bytes, .. }) => {
                self.effects.push(Effect::DropMemory { token });
                Region::charge(bytes)
            }
            Body::Device(Device { token, .. }) => {
                self.drop_device(object.account, token);
                // Its descriptor is charged until it is closed.
                Device::CHARGE.minus(Charge::DESCRIPTOR)
            }
            Body::ServiceName(_) => ServiceName::CHARGE,
            Body::Process(_) | Body::Directory => Charge::NOTHING,
        };
        if let Some(account) = object.account {
            let list = object.acl.map_or(Charge::NOTHING, |acl| acl.charge());
            self.accounts.release(account, charge.plus(list));
        }
    }
}

/// Lanes and mappings.
impl Kernel {
    /// One side gives its end of a lane up. The other is told, unless it knew that the lane had ended.
    pub(crate) fn leave_lane(&mut self, id: LaneId, side: LaneSide, why: LaneEnd) {
        if side == LaneSide::Sender {
            self.give_up_reserved_slots(id);
        }
        let lane = self.lane_mut(id);
        let first_news = lane.ended.is_none();
        lane.ended = lane.ended.or(Some(why));
        let (other, word, other_here) = match side {
            LaneSide::Sender => {
                lane.sender_here = false;
                (lane.receiver, lane.receiver_word, lane.receiver_here)
            }
            LaneSide::Receiver => {
                lane.receiver_here = false;
                (lane.sender, lane.sender_word, lane.sender_here)
            }
        };
        if first_news && other_here {
            self.set_word(other, word, WORD_DEAD);
            self.news_of(other).on_ended(id, why);
        }
        self.settle_lane(id);
    }

    /// Gives up a mapping.
    pub(crate) fn end_mapping(&mut self, id: MappingId, loss: Loss) {
        let Some(mapping) = self.mappings.remove(&id) else { return };
        let Mapping { process, region: object, capability, word } = mapping;
        let account = self.process(process).account;
        self.process_mut(process).mappings.remove(&id);
        self.accounts.release(account, Mapping::CHARGE);
        self.retire_word(process, word);
        let region = self.region_mut(object);
        region.mappings.remove(&id);
        let was_writer = match region.state {
            // Nobody else maps it before it is live.
            RegionState::Writing(_) | RegionState::Sealing(_) => {
                region.state = RegionState::Abandoned;
                false
            }
            RegionState::Live(writer) if writer == id => {
                region.state = RegionState::Settled;
                // Others may go on writing a region that several write.
                !region.flags.contains(RegionFlags::SHARED)
            }
            _ => false,
        };
        if was_writer && loss == Loss::Ended {
            let readers: Vec<MappingId> = region.mappings.iter().copied().collect();
            for reader in readers {
                let reader = &self.mappings[&reader];
                if reader.capability.is_some() {
                    let (process, word) = (reader.process, reader.word);
                    self.set_word(process, word, WORD_DEAD);
                }
            }
        }
        match capability {
            Some(capability) => {
                self.tree.get_mut(capability).holder = Holder::Nobody;
                self.drop_capability(capability, Loss::Deleted);
            }
            None => self.free_if_unused(object),
        }
    }

    fn on_lane_capability_gone(&mut self, id: LaneId, loss: Loss) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.capability = None;
        if !matches!(loss, Loss::Revoked | Loss::Expired) {
            return;
        }
        // A lane whose receiver has left has no capability, so a sender that is here has not been told of any end.
        lane.ended = Some(LaneEnd::Revoked);
        let ends = [
            (lane.sender, lane.sender_word, lane.sender_here),
            (lane.receiver, lane.receiver_word, lane.receiver_here),
        ];
        for (process, word, here) in ends {
            if here {
                self.set_word(process, word, WORD_REVOKED);
                self.news_of(process).on_ended(id, LaneEnd::Revoked);
            }
        }
        // What is untaken is dropped.
        self.drop_escrow(id);
        self.settle_lane(id);
    }

    fn on_mapping_capability_gone(&mut self, id: MappingId, loss: Loss) {
        let Some(mapping) = self.mappings.get_mut(&id) else { return };
        mapping.capability = None;
        let (process, word) = (mapping.process, mapping.word);
        if loss != Loss::Deleted {
            self.set_word(process, word, WORD_REVOKED);
        }
    }

    fn on_escrow_gone(&mut self, id: LaneId, ticket: keyway_abi::Ticket, loss: Loss) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let Some(item) = lane.escrow.remove(&ticket) else { return };
        let (sender, account, here) = (lane.sender, lane.sender_account, lane.sender_here);
        if let (Some(slot), true) = (item.reserved_slot, here) {
            let handle = self.process(sender).table.handle(slot);
            self.process_mut(sender).table.empty(slot);
            if loss != Loss::Deleted {
                self.news_of(sender).lost.push(handle);
            }
        }
        self.accounts.release(account, Charge::HANDLE);
    }

    /// What is on its way can no longer come back to a sender that leaves.
    fn give_up_reserved_slots(&mut self, id: LaneId) {
        let lane = self.lane_mut(id);
        let sender = lane.sender;
        let slots: Vec<u32> = lane.escrow.values_mut().filter_map(|item| item.reserved_slot.take()).collect();
        for slot in slots {
            self.process_mut(sender).table.empty(slot);
        }
    }

    /// Gives back what an ended lane needs no more: its memory once the receiver has left, its record once both have.
    fn settle_lane(&mut self, id: LaneId) {
        let lane = &self.lanes[&id];
        if lane.ended.is_none() || lane.receiver_here {
            return;
        }
        if lane.charged {
            self.release_lane_memory(id);
        }
        let lane = &self.lanes[&id];
        if lane.sender_here {
            return;
        }
        let (sender, account, word) = (lane.sender, lane.sender_account, lane.sender_word);
        let pair = Pair::of(sender, lane.receiver);
        self.lanes.remove(&id);
        self.part(pair);
        if let Some(process) = self.processes.get_mut(&sender) {
            process.sending.remove(&id);
        }
        self.retire_word(sender, word);
        self.accounts.release(account, Lane::SENDER_CHARGE);
    }

    fn drop_escrow(&mut self, id: LaneId) {
        // One after another, because a device that ends takes others of its capabilities out of escrow.
        while let Some((_, item)) = self.lanes[&id].escrow.first_key_value() {
            self.drop_capability(item.capability, Loss::Ended);
        }
    }

    fn release_lane_memory(&mut self, id: LaneId) {
        self.drop_escrow(id);
        let lane = self.lane_mut(id);
        lane.charged = false;
        let capability = lane.capability.take();
        let (queue, ack, told) = (lane.queue, lane.ack, lane.opening == Opening::Open);
        let (receiver, word) = (lane.receiver, lane.receiver_word);
        let (sender_account, receiver_account) = (lane.sender_account, lane.receiver_account);
        let (ring, ack_token, bytes) = (lane.ring, lane.ack_token, lane.memory_bytes());
        self.effects.push(Effect::DropMemory { token: ring });
        self.effects.push(Effect::DropMemory { token: ack_token });
        self.accounts.release(sender_account, Lane::memory_charge(bytes));
        self.accounts.release(receiver_account, Lane::RECEIVER_CHARGE.plus(Lane::ack_charge(1)));
        if let Some(process) = self.processes.get_mut(&receiver) {
            process.receiving.remove(&id);
        }
        self.retire_word(receiver, word);
        if let Some(Object { body: Body::Queue(entry), .. }) = self.objects.get_mut(&queue) {
            entry.lanes.remove(&id);
            entry.shares.remove(sender_account, self.accounts.uid(sender_account));
            entry.acks.remove(&ack);
            let handle = entry.handle;
            if !told {
                self.news_of(receiver).acks.push((handle, ack));
            }
        }
        if let Some(capability) = capability {
            self.tree.get_mut(capability).holder = Holder::Nobody;
            self.drop_capability(capability, Loss::Deleted);
        }
    }
}

/// What is told.
impl Kernel {
    /// What this input takes from a process.
    pub(crate) fn news_of(&mut self, process: ProcessNumber) -> &mut News {
        self.news.entry(process).or_default()
    }

    /// The input has been handled, or a session ends in it: who has lost something is told.
    pub(crate) fn tell_news(&mut self) {
        for (process, news) in core::mem::take(&mut self.news) {
            for event in news.into_events() {
                self.notify(process, event, Vec::new());
            }
        }
    }
}

/// Processes.
impl Kernel {
    /// Everything that the process held goes, and its peers are told.
    pub(crate) fn end_session(&mut self, number: ProcessNumber, farewell: Option<Farewell>) {
        let Some(process) = self.processes.get_mut(&number) else { return };
        if process.phase == Phase::Ending {
            return;
        }
        process.phase = Phase::Ending;
        while let Some(peer) = self.process(number).doorbells.first().copied() {
            self.end_doorbell(Pair::of(number, peer));
        }
        while let Some(object) = self.process(number).owned.first().copied() {
            self.end_object(object, Loss::Ended);
        }
        let sending: Vec<LaneId> = self.process(number).sending.iter().copied().collect();
        for lane in sending {
            if self.lanes.get(&lane).is_some_and(|lane| lane.sender_here) {
                self.leave_lane(lane, LaneSide::Sender, LaneEnd::PeerDead);
            }
        }
        while let Some(mapping) = self.process(number).mappings.first().copied() {
            self.end_mapping(mapping, Loss::Ended);
        }
        for slot in 0..self.process(number).table.slots_count() {
            if let Some(capability) = self.process(number).table.content(slot) {
                self.drop_capability(capability, Loss::Deleted);
            }
        }
        self.tell_watchers(number);
        let watching: Vec<_> = self.process(number).watching.iter().copied().collect();
        for (object, handle) in watching {
            if let Some(Object { body: Body::Process(watched), .. }) = self.objects.get_mut(&object) {
                watched.watchers.remove(&(number, handle));
            }
        }
        let account = self.process(number).account;
        for name in core::mem::take(&mut self.process_mut(number).badged) {
            self.accounts.release(account, Charge::DERIVATION);
            if let Some(Object { body: Body::ServiceName(entry), .. }) = self.objects.get_mut(&name) {
                entry.badges.remove(&number);
            }
        }
        for name in self.process(number).waited_names.clone() {
            self.name_waits.remove(&(name, number));
        }
        if let Some(process) = self.processes.remove(&number) {
            self.accounts.release(process.account, Charge::SESSION.plus(process.charge_of_pages()));
        }
        // Its peers are told before it is gone.
        self.tell_news();
        self.effects.push(Effect::EndSession { process: number, farewell });
    }

    fn tell_watchers(&mut self, number: ProcessNumber) {
        let (object, root) = (self.process(number).object, self.process(number).root);
        let mut watchers = Vec::new();
        if let Body::Process(body) = &mut self.object_mut(object).body {
            body.ended = true;
            watchers = core::mem::take(&mut body.watchers).into_iter().collect();
        }
        for (watcher, handle) in watchers {
            if let Some(process) = self.processes.get_mut(&watcher) {
                process.watching.remove(&(object, handle));
            }
            self.notify(watcher, Event::ProcessEnded { process: handle }, vec![]);
        }
        self.drop_capability(root, Loss::Deleted);
    }
}
