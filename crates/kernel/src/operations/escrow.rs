//! Capabilities in messages: put by the sender before it commits, taken by the receiver before it acknowledges.

use alloc::vec;

use keyway_abi::{
    CapabilityEntry, Denial, Handle, LaneId, Payer, Quota, Reply, Rights, Terms, Ticket,
    limits::ESCROW_MAX,
    request::{self, EscrowHow},
};

use crate::{
    kernel::{Kernel, Outcome},
    lane::EscrowItem,
    limits::Charge,
    object::Body,
    process::Process,
    sweep::{Caller, Loss},
    tree::{CapabilityId, Child, Holder},
};

impl Kernel {
    pub(crate) fn escrow_put(
        &mut self,
        caller: Caller,
        request: &request::EscrowPut,
    ) -> Result<Outcome, Denial> {
        let id = request.lane;
        let lane = self.check_sender(caller, id)?;
        if lane.ended.is_some() {
            return Err(Denial::LaneEnded { lane: id });
        }
        if lane.escrow.len() >= ESCROW_MAX || lane.last_ticket == u32::MAX {
            let max = ESCROW_MAX as u64;
            return Err(Denial::QuotaExceeded {
                quota: Quota::Escrow,
                of: Payer::Process,
                asked: 1,
                used: max,
                max,
            });
        }
        let ticket = Ticket(lane.last_ticket + 1);
        let holder = Holder::Escrow(id, ticket);
        let item = match request.how {
            EscrowHow::Copy(terms) => self.put_copy(caller, request.from, terms, holder)?,
            EscrowHow::Move => self.put_move(caller, request.from, holder)?,
        };
        let lane = self.lane_mut(id);
        lane.last_ticket = ticket.0;
        lane.escrow.insert(ticket, item);
        Outcome::reply(Reply::Ticket(ticket))
    }

    pub(crate) fn escrow_withdraw(
        &mut self,
        caller: Caller,
        request: &request::EscrowWithdraw,
    ) -> Result<Outcome, Denial> {
        let (lane, ticket) = (request.lane, request.ticket);
        let unknown = Denial::UnknownTicket { lane, ticket };
        let item = *self.check_sender(caller, lane)?.escrow.get(&ticket).ok_or(unknown)?;
        let Some(slot) = item.reserved_slot else {
            self.drop_capability(item.capability, Loss::Deleted);
            return Outcome::reply(Reply::Done);
        };
        self.lane_mut(lane).escrow.remove(&ticket);
        let object = self.tree.get(item.capability).object;
        let process = self.process_mut(caller.process);
        process.table.restore(slot, item.capability);
        process.held.insert(object, slot);
        self.tree.get_mut(item.capability).holder = Holder::Process(caller.process, slot);
        Outcome::reply(Reply::Done)
    }

    pub(crate) fn escrow_take(
        &mut self,
        caller: Caller,
        request: &request::EscrowTake,
    ) -> Result<Outcome, Denial> {
        let (id, ticket) = (request.lane, request.ticket);
        let unknown = Denial::UnknownTicket { lane: id, ticket };
        let lane = self.check_receiver(caller, id)?;
        let item = *lane.escrow.get(&ticket).ok_or(unknown.clone())?;
        if !self.is_usable(item.capability) {
            return Err(unknown);
        }
        self.check_room(caller.process)?;
        let handle = self.commit_take(caller, id, ticket, item);
        let entry = self.capability_entry(handle, item.capability);
        // Answered before the rest is dropped, because a device that ends with it may be what was taken; and one after
        // another, because it takes others of its capabilities out of escrow.
        self.reply(caller, Reply::Taken(entry), vec![]);
        while let Some((_, item)) = self.lane_mut(id).escrow.range(..ticket).next() {
            let capability = item.capability;
            self.drop_capability(capability, Loss::Deleted);
        }
        Ok(Outcome::Later)
    }

    /// What a listing and a receiver see of a capability.
    pub(crate) fn capability_entry(&self, handle: Handle, id: CapabilityId) -> CapabilityEntry {
        let capability = self.tree.get(id);
        let object = self.object(capability.object);
        let label = match &object.body {
            Body::Device(device) => Some(device.label.clone()),
            Body::ServiceName(name) => Some(name.name.clone()),
            Body::Queue(_) => self.name_of(capability.object),
            Body::Region(region) => region.label(),
            Body::Process(_) | Body::Directory => None,
        };
        let parent = self.tree.held_parent(id).and_then(|parent| match parent.holder {
            Holder::Process(process, slot) => Some((process, self.process(process).table.handle(slot))),
            Holder::Name(name) => match &self.object(name).body {
                Body::ServiceName(name) => Some((name.publisher, Handle::NONE)),
                _ => None,
            },
            _ => None,
        });
        let process = match &object.body {
            Body::Process(body) => {
                Some((body.process, self.processes.get(&body.process).map_or(0, Process::pid)))
            }
            _ => None,
        };
        CapabilityEntry {
            handle,
            kind: object.kind(),
            object: capability.object.0,
            label,
            rights: capability.rights,
            badge: capability.badge,
            expires_ns: Some(capability.expires_ns).filter(|at| *at != u64::MAX),
            limits: capability.limits(),
            parent,
            process,
        }
    }

    fn put_copy(
        &mut self,
        caller: Caller,
        from: Handle,
        terms: Terms,
        holder: Holder,
    ) -> Result<EscrowItem, Denial> {
        let (parent, terms) = self.check_child(caller, from, Rights::GRANT, terms)?;
        let account = self.check_derivation(caller.process)?;
        self.accounts.check(account, Charge::HANDLE)?;
        self.accounts.charge(account, Charge::HANDLE);
        let (bearer, payer) = (self.tree.get(parent).bearer, Some(account));
        let capability = self.commit_derive(parent, Child { terms, bearer, holder, payer });
        Ok(EscrowItem { capability, reserved_slot: None })
    }

    fn put_move(&mut self, caller: Caller, from: Handle, holder: Holder) -> Result<EscrowItem, Denial> {
        let (id, capability) = self.held_any(caller.process, from)?;
        let held = capability.rights;
        self.check_rights(caller.process, from, capability, Rights::GRANT)?;
        if capability.revoking {
            return Err(Denial::Revoking { handle: from });
        }
        if held.contains(Rights::RECEIVE) {
            return Err(Denial::ReceiveBound);
        }
        let object = capability.object;
        let process = self.process_mut(caller.process);
        process.table.reserve(from.slot());
        process.held.remove(object, from.slot());
        self.tree.get_mut(id).holder = holder;
        self.forget_watch(caller.process, self.tree.get(id).object, from);
        Ok(EscrowItem { capability: id, reserved_slot: Some(from.slot()) })
    }

    fn commit_take(&mut self, caller: Caller, id: LaneId, ticket: Ticket, item: EscrowItem) -> Handle {
        let lane = self.lane_mut(id);
        lane.escrow.remove(&ticket);
        let (sender, sender_account, sender_here) = (lane.sender, lane.sender_account, lane.sender_here);
        if let (Some(slot), true) = (item.reserved_slot, sender_here) {
            self.process_mut(sender).table.empty(slot);
        }
        self.accounts.release(sender_account, Charge::HANDLE);
        self.commit_hold(caller.process, item.capability)
    }
}
