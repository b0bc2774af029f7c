//! Opening and closing lanes.

use alloc::{collections::BTreeMap, vec};

use keyway_abi::{
    BadgeBearer, CapabilityLimit, Denial, Event, Handle, Kind, LaneEnd, LaneId, PeerIdentity, Quota, Reply,
    Rights, Sharer, Terms,
    layout::lane_bytes,
    limits::{PRIORITY_MAX, QUEUE_SHARE_MIN},
    request::{self, QueueOrder},
};

use crate::{
    effect::{Descriptor, Effect, SealUse, Token},
    end::LaneSide,
    kernel::{Kernel, Outcome},
    lane::{Lane, Opening, Pages, Waiting},
    neighbours::Pair,
    object::{AckState, Body, ProcessObject, Queue},
    operations::queues::check_ring_bytes,
    sweep::Caller,
    tree::{CapabilityId, Child, Holder, ObjectId},
};

impl Kernel {
    pub(crate) fn open_lane(
        &mut self,
        caller: Caller,
        request: &request::OpenLane,
    ) -> Result<Outcome, Denial> {
        let (through, capability) = self.held(caller.process, request.queue, Kind::Queue, Rights::SEND)?;
        let queue = capability.object;
        if capability.revoking {
            return Err(Denial::Revoking { handle: request.queue });
        }
        self.check_opens(request.queue, through)?;
        if let Some(max) = capability.limits().ring_bytes.filter(|max| *max < request.ring_bytes) {
            let (limit, handle) = (CapabilityLimit::RingBytes, request.queue);
            let (asked, max) = (request.ring_bytes.into(), max.into());
            return Err(Denial::LimitReached { handle, limit, asked, used: 0, max });
        }
        let priority_max = capability.limits().priority.unwrap_or(PRIORITY_MAX);
        if request.priority > priority_max {
            let (limit, handle) = (CapabilityLimit::Priority, request.queue);
            let (asked, max) = (request.priority.into(), priority_max.into());
            return Err(Denial::LimitReached { handle, limit, asked, used: 0, max });
        }
        let ack = self.check_open_lane(caller, queue, request)?;
        self.check_request(caller.process)?;
        let lane = self.commit_lane(caller, through, queue, ack, request);
        let ring = self.lanes[&lane].ring;
        let task = self.wait_for(Some(caller), Waiting::Ring(lane));
        let (bytes, huge) = (lane_bytes(request.ring_bytes, request.huge), request.huge);
        self.effects.push(Effect::CreateMemory { task, first: ring, count: 1, bytes, huge });
        Ok(Outcome::Later)
    }

    pub(crate) fn lane_mapped(
        &mut self,
        caller: Caller,
        request: &request::LaneMapped,
    ) -> Result<Outcome, Denial> {
        let id = request.lane;
        let lane = self.check_sender(caller, id)?;
        match lane.opening {
            _ if lane.ended.is_some() => return Err(Denial::LaneEnded { lane: id }),
            Opening::Mapping => {}
            Opening::Creating | Opening::Sealing | Opening::Open => return Err(Denial::AlreadyMapped),
        }
        self.check_request(caller.process)?;
        let (ring, bytes) = (lane.ring, lane.memory_bytes());
        let seals = match lane.pages {
            Pages::Ordinary => SealUse::Ring,
            Pages::Huge => SealUse::HugeRing,
        };
        self.lane_mut(id).opening = Opening::Sealing;
        let task = self.wait_for(Some(caller), Waiting::RingSeal(id));
        self.effects.push(Effect::SealMemory { task, tokens: vec![ring], seals, bytes });
        Ok(Outcome::Later)
    }

    pub(crate) fn close_lane(
        &mut self,
        caller: Caller,
        request: &request::CloseLane,
    ) -> Result<Outcome, Denial> {
        let id = request.lane;
        let lane = self.lanes.get(&id).ok_or(Denial::UnknownLane { lane: id })?;
        let sends = lane.sender == caller.process && lane.sender_here;
        let receives = lane.receiver == caller.process && lane.receiver_here;
        // A process that sends to itself has both ends; it closes the sender's first.
        match (sends, receives) {
            (true, _) => self.leave_lane(id, LaneSide::Sender, LaneEnd::Closed),
            (false, true) => self.leave_lane(id, LaneSide::Receiver, LaneEnd::Closed),
            (false, false) => return Err(Denial::UnknownLane { lane: id }),
        }
        Outcome::reply(Reply::Done)
    }

    /// The ring is there: the sender maps it.
    pub(crate) fn commit_ring_made(&mut self, caller: Caller, id: LaneId) {
        if self.lanes[&id].ended.is_some() {
            // Its sender never had it, so nobody would close it, and its memory may be gone.
            self.leave_lane(id, LaneSide::Sender, LaneEnd::Closed);
            return self.reply(caller, Reply::Denied(Denial::LaneEnded { lane: id }), vec![]);
        }
        let lane = self.lane_mut(id);
        lane.opening = Opening::Mapping;
        let (word, peer) = (lane.sender_word, lane.receiver);
        let descriptors = vec![Descriptor::Writable(lane.ring), Descriptor::Readable(lane.ack_token)];
        let stamps = self.takes_stamps(id);
        self.reply(caller, Reply::LaneOpening { lane: id, word, peer, stamps }, descriptors);
    }

    /// The ring is sealed: both ends can use it.
    pub(crate) fn commit_ring_sealed(&mut self, caller: Caller, id: LaneId) {
        if self.lanes[&id].ended.is_some() {
            return self.reply(caller, Reply::Denied(Denial::LaneEnded { lane: id }), vec![]);
        }
        let receiver = self.lanes[&id].receiver;
        if let Err(denial) = self.check_room(receiver) {
            let Denial::QuotaExceeded { quota, .. } = denial else { return };
            self.leave_lane(id, LaneSide::Sender, LaneEnd::Closed);
            return self.reply(caller, Reply::Denied(Denial::ReceiverFull { quota }), vec![]);
        }
        let lane = self.lane_mut(id);
        lane.opening = Opening::Open;
        lane.receiver_here = true;
        let (sender, sender_word, receiver_word) = (lane.sender, lane.sender_word, lane.receiver_word);
        self.set_word(sender, sender_word, sender_word.generation);
        self.set_word(receiver, receiver_word, receiver_word.generation);
        let sender_root = self.process(sender).root;
        let peer_handle =
            self.commit_derive_into(sender_root, receiver, Terms::rights(ProcessObject::PEER), None);
        let event = self.lane_opened(id, peer_handle);
        let ring = self.lanes[&id].ring;
        self.notify(receiver, event, vec![Descriptor::Readable(ring)]);
        self.reply(caller, Reply::Done, vec![]);
    }

    /// The lane, if the asker is its sender.
    pub(crate) fn check_sender(&self, caller: Caller, id: LaneId) -> Result<&Lane, Denial> {
        match self.lanes.get(&id) {
            Some(lane) if lane.sender == caller.process && lane.sender_here => Ok(lane),
            Some(lane) if lane.receiver == caller.process && lane.receiver_here => {
                Err(Denial::WrongEnd { lane: id })
            }
            _ => Err(Denial::UnknownLane { lane: id }),
        }
    }

    /// The lane, if the asker is its receiver.
    pub(crate) fn check_receiver(&self, caller: Caller, id: LaneId) -> Result<&Lane, Denial> {
        match self.lanes.get(&id) {
            Some(lane) if lane.receiver == caller.process && lane.receiver_here => Ok(lane),
            Some(lane) if lane.sender == caller.process && lane.sender_here => {
                Err(Denial::WrongEnd { lane: id })
            }
            _ => Err(Denial::UnknownLane { lane: id }),
        }
    }

    /// Whether the messages of a lane are to say when they were sent. Its queue may have ended.
    fn takes_stamps(&self, id: LaneId) -> bool {
        let object = self.lanes.get(&id).and_then(|lane| self.objects.get(&lane.queue));
        matches!(object.map(|object| &object.body), Some(Body::Queue(queue)) if queue.order == QueueOrder::Arrival)
    }

    pub(crate) fn lane_mut(&mut self, id: LaneId) -> &mut Lane {
        // INVARIANT: the caller found the lane in this very input.
        self.lanes.get_mut(&id).expect("a lane in use exists")
    }

    /// Whether the capability, and those that it was derived from, let one more lane or mapping be opened.
    pub(crate) fn check_opens(&self, handle: Handle, through: CapabilityId) -> Result<(), Denial> {
        let Some(full) = self.tree.full(through) else { return Ok(()) };
        let (used, max) = (full.opens().into(), full.limits().opens.unwrap_or(u16::MAX).into());
        Err(Denial::LimitReached { handle, limit: CapabilityLimit::Opens, asked: 1, used, max })
    }

    /// Returns the acknowledgement memory that the lane will use.
    fn check_open_lane(
        &self,
        caller: Caller,
        queue: ObjectId,
        request: &request::OpenLane,
    ) -> Result<u32, Denial> {
        let request::OpenLane { ring_bytes, huge, .. } = *request;
        let found = self.queue(queue);
        let receiver = self.process(found.receiver);
        check_ring_bytes(ring_bytes, found.ring_bytes_max)?;
        if found.lanes.len() >= usize::from(found.senders_max) {
            return Err(Denial::SendersExceeded { senders_max: found.senders_max });
        }
        self.check_share(caller, found)?;
        let sender = self.process(caller.process);
        let asked = Lane::SENDER_CHARGE.plus(Lane::memory_charge(lane_bytes(ring_bytes, huge)));
        let (payer, other) = ((sender.account, asked), (receiver.account, Lane::RECEIVER_CHARGE));
        let lanes = self.accounts.check_both(payer, other)?;
        sender.pages.check_word()?;
        // A process that sends to itself needs a word for each end; the reserve is larger than that.
        let room = lanes.and_then(|()| self.check_room(found.receiver));
        if let Err(Denial::QuotaExceeded { quota, .. }) = room {
            return Err(Denial::ReceiverFull { quota });
        }
        if !receiver.pages.has_word() || (found.receiver == caller.process && receiver.pages.free_words() < 2)
        {
            return Err(Denial::ReceiverFull { quota: Quota::Pages });
        }
        found.ready.first().copied().ok_or(Denial::StockEmpty)
    }

    /// Whether the asker leaves lanes for others: a process has a quarter of them, a user that is not the receiver's three
    /// quarters. A process that sends to itself has them all. What is shared is what the receiver can take at all, however
    /// large it says that its queue is.
    fn check_share(&self, caller: Caller, queue: &Queue) -> Result<(), Denial> {
        let (sender, receiver) = (self.process(caller.process), self.process(queue.receiver));
        if sender.account == receiver.account {
            return Ok(());
        }
        let senders_max = queue.senders_max;
        let shared = senders_max.min(u16::try_from(self.accounts.lanes_max()).unwrap_or(u16::MAX));
        let process_share = (shared / 4).max(QUEUE_SHARE_MIN).min(senders_max);
        if queue.shares.of_account(sender.account) >= process_share {
            let who = Sharer::Process;
            return Err(Denial::ShareExceeded { who, share: process_share, senders_max });
        }
        let user_share = (shared - shared / 4).max(1);
        let uid = self.accounts.uid(sender.account);
        let is_foreign = uid != self.accounts.uid(receiver.account);
        if is_foreign && queue.shares.of_user(uid) >= user_share {
            return Err(Denial::ShareExceeded { who: Sharer::User, share: user_share, senders_max });
        }
        Ok(())
    }

    fn commit_lane(
        &mut self,
        caller: Caller,
        through: CapabilityId,
        queue: ObjectId,
        ack: u32,
        request: &request::OpenLane,
    ) -> LaneId {
        let request::OpenLane { ring_bytes, priority, huge, .. } = *request;
        let id = LaneId(self.next_number());
        let ring = Token(self.next_number());
        let (sender, receiver) = (caller.process, self.receiver(queue));
        let parent = self.tree.get(through);
        let terms = Terms { badge: parent.badge, ..Terms::rights(Rights::empty()) };
        let child = Child { terms, bearer: parent.bearer, holder: Holder::Lane(id), payer: None };
        let capability = self.commit_derive(through, child);
        let (sender_word, receiver_word) = (self.take_word(sender), self.take_word(receiver));
        let entry = self.queue_mut(queue);
        entry.ready.remove(&ack);
        entry.lanes.insert(id);
        // INVARIANT: `ready` names acknowledgement memories that are there.
        let slot = entry.acks.get_mut(&ack).expect("a ready acknowledgement memory exists");
        slot.1 = AckState::Used(id);
        let ack_token = slot.0;
        let sender_account = self.process(sender).account;
        let uid = self.accounts.uid(sender_account);
        self.queue_mut(queue).shares.add(sender_account, uid);
        let receiver_account = self.process(receiver).account;
        self.accounts.charge(
            sender_account,
            Lane::SENDER_CHARGE.plus(Lane::memory_charge(lane_bytes(ring_bytes, huge))),
        );
        self.accounts.charge(receiver_account, Lane::RECEIVER_CHARGE);
        self.process_mut(sender).sending.insert(id);
        self.process_mut(receiver).receiving.insert(id);
        self.meet(Pair::of(sender, receiver));
        let lane = Lane {
            queue,
            sender,
            receiver,
            sender_account,
            receiver_account,
            capability: Some(capability),
            ring,
            ring_bytes,
            pages: if huge { Pages::Huge } else { Pages::Ordinary },
            priority,
            ack,
            ack_token,
            sender_word,
            receiver_word,
            opening: Opening::Creating,
            ended: None,
            sender_here: true,
            receiver_here: false,
            charged: true,
            escrow: BTreeMap::new(),
            last_ticket: 0,
        };
        self.lanes.insert(id, lane);
        id
    }

    fn lane_opened(&self, id: LaneId, peer_handle: Handle) -> Event {
        let lane = &self.lanes[&id];
        let sender = self.process(lane.sender);
        let capability = lane.capability.map(|id| self.tree.get(id));
        let badge = capability.and_then(|capability| capability.badge);
        let bearer = match capability.and_then(|capability| capability.bearer) {
            Some(bearer) if bearer == lane.sender => BadgeBearer::Opener,
            Some(_) => BadgeBearer::Other,
            None => BadgeBearer::Unnamed,
        };
        let identity = sender.identity.as_ref();
        let peer = PeerIdentity {
            process: lane.sender,
            pid: sender.pid(),
            uid: sender.uid(),
            gid: identity.map_or(u32::MAX, |identity| identity.gid),
            executable: identity.map(|identity| identity.executable.clone()).unwrap_or_default(),
        };
        Event::LaneOpened {
            queue: self.queue(lane.queue).handle,
            lane: id,
            ack: lane.ack,
            ring_bytes: lane.ring_bytes,
            huge: lane.pages == Pages::Huge,
            priority: lane.priority,
            badge,
            bearer,
            peer,
            peer_handle,
            word: lane.receiver_word,
        }
    }
}
