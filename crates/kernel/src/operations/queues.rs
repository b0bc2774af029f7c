//! Making queues and keeping their stock of acknowledgement memories.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use keyway_abi::{
    Created, Denial, Kind, ProcessNumber, Reply, Rights,
    layout::{PAGE_BYTES, RING_BYTES_MAX, RING_BYTES_MIN},
    limits::{ACKS_MAX, QUEUE_SENDERS_MAX, STOCK_MAX},
    request,
};

use crate::{
    effect::{Descriptor, Effect, SealUse, Token},
    kernel::{Kernel, Outcome},
    lane::{Lane, Waiting},
    limits::Charge,
    object::{AckState, Body, Queue},
    shares::Shares,
    sweep::Caller,
    tree::ObjectId,
};

impl Kernel {
    pub(crate) fn create_queue(
        &mut self,
        caller: Caller,
        request: &request::CreateQueue,
    ) -> Result<Outcome, Denial> {
        check_ring_bytes(request.ring_bytes_max, RING_BYTES_MAX)?;
        check_count(request.senders_max.into(), QUEUE_SENDERS_MAX.into())?;
        if request.stock > ACKS_MAX {
            return Err(Denial::InvalidCount { asked: request.stock.into(), max: ACKS_MAX.into() });
        }
        self.check_room(caller.process)?;
        let stock = Lane::ack_charge(request.stock.into());
        let account = self.process(caller.process).account;
        let charge = Queue::CHARGE.plus(stock).plus(Charge::HANDLE).plus(Charge::REQUEST);
        self.accounts.check(account, charge)?;
        let receiver = caller.process;
        let (id, handle) = self.commit_object(receiver, Queue::RIGHTS, Queue::CHARGE, |_, root| {
            Body::Queue(Queue {
                receiver,
                root,
                handle: keyway_abi::Handle::NONE,
                ring_bytes_max: request.ring_bytes_max,
                senders_max: request.senders_max,
                order: request.order,
                acks: BTreeMap::new(),
                ready: BTreeSet::new(),
                next_ack: 0,
                lanes: BTreeSet::new(),
                shares: Shares::default(),
                names: BTreeSet::new(),
            })
        });
        self.queues.insert(id);
        self.queue_mut(id).handle = handle;
        self.process_mut(receiver).owned.insert(id);
        if request.stock == 0 {
            return Outcome::reply(self.queue_reply(id, 0));
        }
        self.commit_acks(caller, id, request.stock.into(), true);
        Ok(Outcome::Later)
    }

    pub(crate) fn top_up(&mut self, caller: Caller, request: &request::TopUp) -> Result<Outcome, Denial> {
        let (_, capability) = self.held(caller.process, request.queue, Kind::Queue, Rights::RECEIVE)?;
        let id = capability.object;
        check_count(request.count.into(), ACKS_MAX.into())?;
        let count = u32::from(request.count);
        let queue = self.queue(id);
        let unused = (queue.acks.len() - queue.lanes.len()) as u64;
        let max = u64::from(queue.senders_max).clamp(ACKS_MAX.into(), STOCK_MAX.into());
        if unused + u64::from(count) > max {
            return Err(Denial::InvalidCount { asked: unused + u64::from(count), max });
        }
        if queue.next_ack.checked_add(count).is_none() {
            // Its numbers are used up: an acknowledgement memory's number is never given again.
            return Err(Denial::InvalidCount { asked: count.into(), max: 0 });
        }
        let charge = Lane::ack_charge(count).plus(Charge::REQUEST);
        self.accounts.check(self.process(caller.process).account, charge)?;
        self.commit_acks(caller, id, count, false);
        Ok(Outcome::Later)
    }

    pub(crate) fn acks_mapped(
        &mut self,
        caller: Caller,
        request: &request::AcksMapped,
    ) -> Result<Outcome, Denial> {
        let (_, capability) = self.held(caller.process, request.queue, Kind::Queue, Rights::RECEIVE)?;
        let id = capability.object;
        check_count(request.count.into(), ACKS_MAX.into())?;
        let count = u32::from(request.count);
        let queue = self.queue(id);
        let Some(end) = request.first.checked_add(count) else {
            return Err(Denial::InvalidCount { asked: request.first.into(), max: queue.next_ack.into() });
        };
        let mut tokens = Vec::new();
        for index in request.first..end {
            match queue.acks.get(&index) {
                Some((token, AckState::Fresh)) => tokens.push(*token),
                Some(_) => return Err(Denial::AlreadyMapped),
                None => return Err(Denial::InvalidCount { asked: index.into(), max: queue.next_ack.into() }),
            }
        }
        self.check_request(caller.process)?;
        let first = request.first;
        let queue = self.queue_mut(id);
        for (_, state) in queue.acks.range_mut(first..end).map(|(_, ack)| ack) {
            *state = AckState::Sealing;
        }
        let task = self.wait_for(Some(caller), Waiting::AcksSeal { queue: id, first, count });
        let bytes = PAGE_BYTES as u64;
        self.effects.push(Effect::SealMemory { task, tokens, seals: SealUse::Acknowledgement, bytes });
        Ok(Outcome::Later)
    }

    /// The acknowledgement memories that were asked for are there.
    pub(crate) fn commit_acks_made(
        &mut self,
        caller: Caller,
        id: ObjectId,
        first: u32,
        count: u32,
        made_queue: bool,
    ) {
        let range = first..first + count;
        let acks = self.queue(id).acks.range(range);
        let descriptors = acks.map(|(_, (token, _))| Descriptor::Writable(*token)).collect();
        let reply = if made_queue { self.queue_reply(id, first) } else { Reply::Acks { first_ack: first } };
        self.reply(caller, reply, descriptors);
    }

    /// Gives up acknowledgement memories that no lane has.
    pub(crate) fn drop_acks(&mut self, id: ObjectId, first: u32, count: u32) {
        let account = self.object(id).account;
        for index in first..first + count {
            let Some((token, _)) = self.queue_mut(id).acks.remove(&index) else { continue };
            self.queue_mut(id).ready.remove(&index);
            self.effects.push(Effect::DropMemory { token });
            if let Some(account) = account {
                self.accounts.release(account, Lane::ack_charge(1));
            }
        }
    }

    pub(crate) fn queue(&self, id: ObjectId) -> &Queue {
        match &self.object(id).body {
            Body::Queue(queue) => queue,
            // INVARIANT: the kind was judged when the id was found.
            _ => unreachable!("the object is a queue"),
        }
    }

    pub(crate) fn queue_mut(&mut self, id: ObjectId) -> &mut Queue {
        match &mut self.object_mut(id).body {
            Body::Queue(queue) => queue,
            // INVARIANT: as in `queue`.
            _ => unreachable!("the object is a queue"),
        }
    }

    /// The receiver of a queue, if it is still there.
    pub(crate) fn receiver(&self, id: ObjectId) -> ProcessNumber {
        self.queue(id).receiver
    }

    fn commit_acks(&mut self, caller: Caller, id: ObjectId, count: u32, made_queue: bool) {
        let account = self.process(caller.process).account;
        self.accounts.charge(account, Lane::ack_charge(count));
        let tokens: Vec<_> = (0..count).map(|_| Token(self.next_number())).collect();
        let queue = self.queue_mut(id);
        let first = queue.next_ack;
        queue.next_ack += count;
        queue.acks.extend((first..).zip(tokens.iter().map(|token| (*token, AckState::Fresh))));
        let task = self.wait_for(Some(caller), Waiting::Acks { queue: id, first, count, made_queue });
        let bytes = PAGE_BYTES as u64;
        self.effects.push(Effect::CreateMemory { task, first: tokens[0], count, bytes, huge: false });
    }

    fn queue_reply(&self, id: ObjectId, first_ack: u32) -> Reply {
        let queue = Created { handle: self.queue(id).handle, rights: Queue::RIGHTS, badge: None };
        Reply::Queue { queue, object: id.0, first_ack }
    }
}

/// Whether `bytes` can be a ring's size, within `max`.
pub(crate) fn check_ring_bytes(bytes: u32, max: u32) -> Result<(), Denial> {
    if bytes.is_power_of_two() && (RING_BYTES_MIN..=max).contains(&bytes) {
        return Ok(());
    }
    Err(Denial::InvalidSize { asked: bytes.into(), min: RING_BYTES_MIN.into(), max: max.into() })
}

fn check_count(asked: u64, max: u64) -> Result<(), Denial> {
    if (1..=max).contains(&asked) { Ok(()) } else { Err(Denial::InvalidCount { asked, max }) }
}
