//! Lanes that come and go, and the stock of acknowledgement pages for those to come.

use std::{os::fd::OwnedFd, sync::Arc};

use keyway_abi::{Event, Reply, Rights, layout::PAGE_BYTES, limits::ACKS_MAX, request};
use keyway_shm::{Access, LaneReceiver, ReceiveError, arrival::Stamps, declared_clock};
use keyway_sys::{
    barrier,
    memory::{Mapping, Populate},
};

use crate::{
    capability::Capability,
    control::Arrival,
    error::Error,
    queue::{Incoming, Peer, Queue, lanes::Lane, segments::Places},
    segment::declare_payload_max,
};

impl Queue {
    pub(super) fn look_at_events(&mut self) -> Result<(), Error> {
        let seen = self.control.events_seen();
        if seen == self.events_seen {
            return Ok(());
        }
        self.events_seen = seen;
        let pumped = self.control.pump();
        self.take_in();
        pumped
    }

    /// Takes in what was sorted out for this queue, by whichever thread has read it.
    pub(super) fn take_in(&mut self) {
        let handle = self.capability.handle();
        let (arrivals, dropped) = {
            let mut routes = self.control.routes();
            (routes.arrivals.remove(&handle), routes.acks_dropped.remove(&handle))
        };
        for ack in dropped.into_iter().flatten() {
            self.acks.remove(&ack);
        }
        for arrival in arrivals.into_iter().flatten() {
            self.open_lane(arrival);
        }
        if !self.control.is_over() {
            self.top_up();
        }
    }

    fn open_lane(&mut self, arrival: Arrival) {
        let Event::LaneOpened {
            lane, ack, ring_bytes, priority, badge, bearer, peer, peer_handle, word, ..
        } = arrival.event
        else {
            return;
        };
        let process = Capability::adopted(&self.control, peer_handle, Rights::WATCH);
        let ack = self.acks.remove(&ack);
        let status = self.control.status(word);
        let opened = match (arrival.ring, ack, status) {
            (Some(ring), Some(ack), Ok(status)) => {
                let places = Places::new(
                    &self.control,
                    (peer.process, lane),
                    &ring.view(),
                    ack.view(),
                    self.payload_bytes_max,
                );
                let clock = declared_clock(&ring.view());
                let receiver =
                    LaneReceiver::new(&ring.view(), &ack.view(), status, ring_bytes, barrier::own());
                receiver.ok().zip(places).zip(Some(clock))
            }
            _ => None,
        };
        let Some(((receiver, places), clock)) = opened else {
            // What cannot be mapped is no lane for us; its sender learns of it.
            let _ = self.control.ask(request::CloseLane { lane });
            return;
        };
        let peer = Peer { lane, badge, bearer, priority, identity: Arc::new(peer) };
        self.told.push_back(Incoming::Opened(peer.clone()));
        let receiver = if self.lanes.go_by_arrival() { receiver.stamped() } else { receiver };
        let stamps = Stamps::new(clock.is_some() && clock == self.clock, ring_bytes);
        self.lanes.insert(Lane::new(peer, receiver, process, places, stamps));
    }

    /// Lays in what was used up, so that the next senders need not wait for us.
    pub(super) fn top_up(&mut self) {
        let room = usize::from(self.senders_max).saturating_sub(self.lanes.len());
        let wanted = usize::from(self.stock).min(room);
        if self.acks.len() * 2 > wanted {
            return;
        }
        // LIMIT: STOCK_MAX; each round lays something in.
        while self.acks.len() < wanted {
            let count = (wanted - self.acks.len()).min(usize::from(ACKS_MAX)) as u8;
            let request = request::TopUp { queue: self.capability.handle(), count };
            // At a limit of our own: senders are told that the stock is empty until something is given back.
            let Ok((Reply::Acks { first_ack }, descriptors)) = self.control.request(request) else { return };
            if descriptors.is_empty() || self.map_acks(first_ack, descriptors).is_err() {
                return;
            }
        }
    }

    pub(super) fn map_acks(&mut self, first: u32, descriptors: Vec<OwnedFd>) -> Result<(), Error> {
        let count = descriptors.len() as u8;
        if count == 0 {
            return Ok(());
        }
        for (index, fd) in (first..).zip(descriptors) {
            let mapping = Mapping::new(fd, PAGE_BYTES, Access::Write, Populate::OnUse)?;
            barrier::own().declare(&mapping.view());
            declare_payload_max(&mapping.view(), self.payload_bytes_max);
            self.acks.insert(index, mapping);
        }
        let queue = self.capability.handle();
        self.control.ask(request::AcksMapped { queue, first, count }).map(drop)
    }

    /// A lane is over, or its sender has broken the protocol.
    pub(super) fn end_lane(&mut self, slot: usize, error: ReceiveError) -> Option<Incoming> {
        let taken = self.lanes.get(slot)?.receiver.taken();
        let why = match error {
            ReceiveError::Ended(ending) => Error::LaneEnded { ending, acknowledged: taken, sent: taken },
            ReceiveError::Fault(fault) => Error::PeerFault(fault),
            ReceiveError::BufferTooSmall { needed_bytes, given_bytes } => {
                Error::BufferTooSmall { needed_bytes, given_bytes }
            }
        };
        self.end_lane_for(slot, why)
    }

    /// A lane is over for this reason.
    pub(super) fn end_lane_for(&mut self, slot: usize, why: Error) -> Option<Incoming> {
        let lane = self.remove_lane(slot)?;
        Some(Incoming::Ended { lane: lane.peer.lane, peer: lane.peer, why })
    }

    pub(super) fn remove_lane(&mut self, slot: usize) -> Option<Box<Lane>> {
        let lane = self.lanes.remove(slot)?;
        self.listen_no_more(lane.peer.lane);
        // The broker may be gone.
        let _ = self.control.ask(request::CloseLane { lane: lane.peer.lane });
        self.top_up();
        Some(lane)
    }

    /// Hears what the broker has to tell, if anything; what came or went is told to nobody. Answers why nothing more will be
    /// heard, once that is so.
    #[cold]
    pub(super) fn catch_up(&mut self) -> Option<Error> {
        let lost =
            if self.control.events_seen() == self.events_seen { None } else { self.look_at_events().err() };
        self.told.clear();
        lost
    }

    #[inline]
    pub(super) fn is_caught_up(&self) -> bool {
        self.control.events_seen() == self.events_seen && self.told.is_empty()
    }
}
