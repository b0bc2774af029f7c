//! Steps with queues, lanes and what travels in messages.

use alloc::{collections::BTreeMap, vec::Vec};

use keyway_abi::{
    BadgeBearer, CapabilityLimit, Denial, Event, Handle, Kind, LaneEnd, LaneId, Payer, Quota, Reply, Rights,
    Sharer, Terms, Ticket,
    limits::ESCROW_MAX,
    request::{self, EscrowHow, QueueOrder},
};

use super::{
    charges::{DERIVATION, HANDLE, LANE, REQUEST, RING, queue},
    oracle::{Body, Holder, Lane, Why, pair},
    steps::Duel,
};
use crate::{object::Queue, tests::driver::RING_BYTES};

/// Queues, lanes and escrow.
impl Duel {
    pub(super) fn create_queue(&mut self, process: usize, first: u8) -> bool {
        let (stock, senders_max) = (5 - first % 6, u16::from(first / 8 % 5) + 1);
        let number = self.oracle.people[process].number;
        let request = request::CreateQueue {
            ring_bytes_max: RING_BYTES,
            senders_max,
            stock,
            order: QueueOrder::Arrival,
        };
        let account = self.oracle.account(process);
        let plan = self.oracle.affords(account, &[&HANDLE]);
        let plan =
            plan.and_then(|()| self.oracle.affords(account, &[&queue(stock.into()), &HANDLE, &REQUEST]));
        let Some(((), reply)) = self.ask(process, request, plan) else { return false };
        let Reply::Queue { queue, first_ack, .. } = reply else { panic!("a queue: {reply:?}") };
        if stock > 0 {
            let mapped = request::AcksMapped { queue: queue.handle, first: first_ack, count: stock };
            self.driver.done(number, mapped);
        }
        let object = self.oracle.objects.len();
        let body = Body::Queue { receiver: process, root: 0, stock: stock.into(), senders_max };
        let own = self.oracle.object(body, Queue::RIGHTS, Holder::Process(process, queue.handle));
        if let Body::Queue { root, .. } = &mut self.oracle.objects[object] {
            *root = own;
        }
        true
    }

    pub(super) fn open_lane(&mut self, process: usize, first: u8) -> bool {
        let queue = self.pick_opening(process, first, Kind::Queue);
        self.open_through(process, queue, first % 9)
    }

    pub(super) fn open_through(&mut self, process: usize, queue: Handle, priority: u8) -> bool {
        let plan = self.oracle.held(process, queue, Kind::Queue, Rights::SEND).and_then(|id| {
            self.oracle.openable(id, queue)?;
            let (asked, limits) = (RING_BYTES.into(), self.oracle.capabilities[id].limits);
            if let Some(max) = limits.ring_bytes.map(u64::from).filter(|max| *max < asked) {
                let limit = CapabilityLimit::RingBytes;
                return Err(Denial::LimitReached { handle: queue, limit, asked, used: 0, max });
            }
            let max = limits.priority.unwrap_or(7);
            if priority > max {
                let (limit, asked, max) = (CapabilityLimit::Priority, priority.into(), max.into());
                return Err(Denial::LimitReached { handle: queue, limit, asked, used: 0, max });
            }
            let object = self.oracle.capabilities[id].object;
            let Body::Queue { stock, senders_max, .. } = self.oracle.objects[object] else {
                panic!("a queue")
            };
            if self.oracle.lanes_into(object).count() >= usize::from(senders_max) {
                return Err(Denial::SendersExceeded { senders_max });
            }
            self.check_place(process, object)?;
            if stock == 0 {
                return Err(Denial::StockEmpty);
            }
            self.oracle.affords(self.oracle.account(process), &[&REQUEST])?;
            Ok((id, object))
        });
        let request = request::OpenLane { queue, ring_bytes: RING_BYTES, priority, huge: false };
        let Some(((id, object), reply)) = self.ask(process, request, plan) else { return false };
        let Reply::LaneOpening { lane, stamps: true, .. } = reply else { panic!("a lane: {reply:?}") };
        let Body::Queue { receiver, stock, .. } = &mut self.oracle.objects[object] else { panic!("a queue") };
        *stock -= 1;
        let receiver = *receiver;
        self.driver.done(self.oracle.people[process].number, request::LaneMapped { lane });
        let badge = self.oracle.capabilities[id].badge;
        let capability = self.oracle.child(id, Rights::empty(), badge, Holder::Lane(lane));
        let peer_handle = self.check_opened(process, receiver, capability, priority);
        let root = self.oracle.people[process].root;
        self.oracle.child(root, Rights::WATCH, None, Holder::Process(receiver, peer_handle));
        let opened = Lane {
            queue: object,
            sender: process,
            receiver,
            capability,
            sender_here: true,
            receiver_here: true,
            ended: false,
            tickets: 0,
            escrow: BTreeMap::new(),
        };
        self.oracle.lanes.insert(lane, opened);
        self.lanes.push(lane);
        true
    }

    /// The receiver was told truly who opened the lane. Returns its handle of the sender.
    pub(super) fn check_opened(
        &mut self,
        sender: usize,
        receiver: usize,
        capability: usize,
        asked: u8,
    ) -> Handle {
        let told = self.driver.events(self.oracle.people[receiver].number);
        let (opened, others): (Vec<_>, Vec<_>) =
            told.into_iter().partition(|event| matches!(event, Event::LaneOpened { .. }));
        self.told.extend(others.into_iter().map(|event| (receiver, event)));
        let [Event::LaneOpened { badge, bearer, peer, peer_handle, priority, .. }] = &opened[..] else {
            panic!("one lane was opened: {opened:?}")
        };
        let expected = &self.oracle.capabilities[capability];
        let expected_bearer = match expected.bearer {
            Some(bearer) if bearer == sender => BadgeBearer::Opener,
            Some(_) => BadgeBearer::Other,
            None => BadgeBearer::Unnamed,
        };
        assert_eq!((*badge, *bearer, *priority), (expected.badge, expected_bearer, asked));
        assert_eq!(peer.process, self.oracle.people[sender].number);
        *peer_handle
    }

    /// Whether sender and receiver can pay, and the sender leaves lanes for other users.
    fn check_place(&self, process: usize, object: usize) -> Result<(), Denial> {
        let Body::Queue { receiver, senders_max, .. } = self.oracle.objects[object] else {
            panic!("a queue")
        };
        let (own, other) = (self.oracle.account(process), self.oracle.account(receiver));
        let uid = |account: usize| self.oracle.accounts[account].1;
        let of_user = self.oracle.lanes_into(object).filter(|lane| uid(*lane) == uid(own)).count();
        let shared = senders_max.min(self.oracle.limits.process.lanes.min(1000) as u16);
        let share = (shared - shared / 4).max(1);
        if uid(own) != uid(other) && of_user >= usize::from(share) {
            return Err(Denial::ShareExceeded { who: Sharer::User, share, senders_max });
        }
        let room = self.oracle.afford_both((own, &[&LANE, &RING]), (other, &[&LANE]))?;
        match room.and_then(|()| self.oracle.affords(other, &[&HANDLE])) {
            Err(Denial::QuotaExceeded { quota, .. }) => Err(Denial::ReceiverFull { quota }),
            room => room,
        }
    }

    pub(super) fn close_lane(&mut self, process: usize, first: u8) -> bool {
        let lane = self.lane(first, |lane| lane.sender == process || lane.receiver == process);
        let found = self.oracle.lanes.get(&lane);
        let sends = found.is_some_and(|found| found.sender == process && found.sender_here);
        let receives = found.is_some_and(|found| found.receiver == process && found.receiver_here);
        let plan = if sends || receives { Ok(()) } else { Err(Denial::UnknownLane { lane }) };
        if self.ask(process, request::CloseLane { lane }, plan).is_none() {
            return false;
        }
        if sends {
            self.oracle.leave_sender(lane, LaneEnd::Closed);
        } else {
            self.oracle.leave_receiver(lane, LaneEnd::Closed);
        }
        true
    }

    pub(super) fn doorbell(&mut self, process: usize, first: u8) -> bool {
        let has_end = |lane: &Lane| {
            lane.sender == process && lane.sender_here || lane.receiver == process && lane.receiver_here
        };
        let lane = self.lane(first, has_end);
        let plan = match self.oracle.lanes.get(&lane).filter(|lane| has_end(lane)) {
            None => Err(Denial::UnknownLane { lane }),
            Some(found) if found.ended => Err(Denial::LaneEnded { lane }),
            Some(found) => {
                let other = if found.sender == process { found.receiver } else { found.sender };
                let peer = self.oracle.people[other].number;
                if self.oracle.doorbells.contains(&pair(process, other)) {
                    Err(Denial::DoorbellExists { peer })
                } else {
                    self.oracle.affords(self.oracle.account(process), &[&REQUEST]).map(|()| (other, peer))
                }
            }
        };
        let Some(((other, peer), reply)) = self.ask(process, request::Doorbell { lane }, plan) else {
            return false;
        };
        assert_eq!(reply, Reply::Doorbell { peer });
        self.oracle.doorbells.insert(pair(process, other));
        self.oracle.tell(other, Event::Doorbell { peer: self.oracle.people[process].number });
        true
    }

    /// Mostly once; sometimes as often as fills a lane.
    pub(super) fn escrow_put(&mut self, process: usize, first: u8, second: u8, bits: u32) -> bool {
        let times = if bits.is_multiple_of(101) { 70 } else { 1 };
        let mut put = false;
        for _ in 0..times {
            put |= self.put_once(process, first, second, bits);
        }
        put
    }

    fn put_once(&mut self, process: usize, first: u8, second: u8, bits: u32) -> bool {
        let lane = self.lane(second, |lane| lane.sender == process && lane.sender_here);
        let from = self.pick(process, first, None);
        let rights = self.rights(process, from, bits);
        let how = if bits >> 31 == 0 { EscrowHow::Copy(Terms::rights(rights)) } else { EscrowHow::Move };
        let payer = self.oracle.account(process);
        let plan = self.oracle.sends(process, lane).and_then(|found| {
            if found.ended {
                return Err(Denial::LaneEnded { lane });
            }
            if found.escrow.len() >= ESCROW_MAX {
                let (quota, of, max) = (Quota::Escrow, Payer::Process, ESCROW_MAX as u64);
                return Err(Denial::QuotaExceeded { quota, of, asked: 1, used: max, max });
            }
            match how {
                EscrowHow::Copy(Terms { rights, .. }) => {
                    let (id, _) =
                        self.oracle.child_of(process, from, Rights::GRANT, &Terms::rights(rights))?;
                    self.oracle.affords(payer, &[&DERIVATION])?;
                    self.oracle.affords(payer, &[&HANDLE])?;
                    Ok((id, Some(rights)))
                }
                EscrowHow::Move => Ok((self.oracle.movable(process, from)?, None)),
            }
        });
        let request = request::EscrowPut { lane, from, how };
        let Some(((id, rights), reply)) = self.ask(process, request, plan) else { return false };
        let found = self.oracle.lanes.get_mut(&lane).expect("a lane");
        found.tickets += 1;
        let ticket = Ticket(found.tickets);
        assert_eq!(reply, Reply::Ticket(ticket), "tickets grow by one");
        let holder = Holder::Escrow(lane, ticket);
        let item = if let Some(rights) = rights {
            let badge = self.oracle.capabilities[id].badge;
            let copy = self.oracle.child(id, rights, badge, holder);
            self.oracle.capabilities[copy].payer = Some(payer);
            (copy, None)
        } else {
            self.oracle.hold(id, holder);
            self.oracle.unwatch(process, from);
            (id, Some(from))
        };
        self.oracle.lanes.get_mut(&lane).expect("a lane").escrow.insert(ticket, item);
        true
    }

    fn ticket(&self, lane: LaneId, choice: u8) -> Ticket {
        let held: Vec<Ticket> = self
            .oracle
            .lanes
            .get(&lane)
            .map(|lane| lane.escrow.keys().copied().collect())
            .unwrap_or_default();
        match held.len() {
            count @ 1.. if choice < 224 => held[usize::from(choice) % count],
            _ => Ticket(u32::from(choice % 4)),
        }
    }

    pub(super) fn escrow_withdraw(&mut self, process: usize, first: u8, second: u8) -> bool {
        let lane = self.lane(first, |lane| lane.sender == process && !lane.escrow.is_empty());
        let ticket = self.ticket(lane, second);
        let plan = self.oracle.sends(process, lane).and_then(|found| {
            found.escrow.get(&ticket).copied().ok_or(Denial::UnknownTicket { lane, ticket })
        });
        let request = request::EscrowWithdraw { lane, ticket };
        let Some(((id, back), _)) = self.ask(process, request, plan) else { return false };
        match back {
            Some(handle) => {
                self.oracle.lanes.get_mut(&lane).expect("a lane").escrow.remove(&ticket);
                self.oracle.hold(id, Holder::Process(process, handle));
            }
            None => self.oracle.drop_one(id, Why::GivenUp),
        }
        true
    }

    pub(super) fn escrow_take(&mut self, process: usize, first: u8, second: u8) -> bool {
        let lane = self.lane(first, |lane| lane.receiver == process && !lane.escrow.is_empty());
        let ticket = self.ticket(lane, second);
        let plan = self.oracle.receives(process, lane).and_then(|found| {
            let item = found.escrow.get(&ticket).copied().ok_or(Denial::UnknownTicket { lane, ticket })?;
            self.oracle.affords(self.oracle.account(process), &[&HANDLE])?;
            Ok(item)
        });
        let request = request::EscrowTake { lane, ticket };
        let Some(((id, _), reply)) = self.ask(process, request, plan) else { return false };
        let Reply::Taken(entry) = reply else { panic!("a capability: {reply:?}") };
        let found = self.oracle.lanes.get_mut(&lane).expect("a lane");
        let above = found.escrow.split_off(&Ticket(ticket.0 + 1));
        let below = core::mem::replace(&mut found.escrow, above);
        for (dropped, _) in below.into_values().filter(|(dropped, _)| *dropped != id) {
            self.oracle.drop_one(dropped, Why::GivenUp);
        }
        self.oracle.hold(id, Holder::Process(process, entry.handle));
        true
    }
}
