//! Looking: one's own capabilities, and with the right `inspect` everybody's.

use alloc::vec::Vec;

use keyway_abi::{
    CapabilityEntry, Denial, Handle, Kind, LaneEntry, Listing, Name, ProcessEntry, ProcessNumber, QueueEntry,
    Reply, Rights, limits::LISTING_ENTRIES_MAX, request,
};

use crate::{
    kernel::{Kernel, Outcome},
    lane::{Lane, Opening},
    object::{Body, Queue},
    process::Process,
    sweep::Caller,
    tree::ObjectId,
};

impl Kernel {
    pub(crate) fn list_own(&mut self, caller: Caller, request: &request::ListOwn) -> Result<Outcome, Denial> {
        Outcome::reply(Reply::Listing(self.capabilities_of(caller.process, request.after)))
    }

    pub(crate) fn list_capabilities(
        &mut self,
        caller: Caller,
        request: &request::ListCapabilities,
    ) -> Result<Outcome, Denial> {
        self.check_inspect(caller, request.directory)?;
        if !self.is_reachable(request.process) {
            return Err(Denial::ProcessEnded { process: request.process });
        }
        Outcome::reply(Reply::Listing(self.capabilities_of(request.process, request.after)))
    }

    pub(crate) fn list_processes(
        &mut self,
        caller: Caller,
        request: &request::ListProcesses,
    ) -> Result<Outcome, Denial> {
        self.check_inspect(caller, request.directory)?;
        let first = request.after.map_or(0, |after| after.0.saturating_add(1));
        let processes = self.processes.range(ProcessNumber(first)..).take(LISTING_ENTRIES_MAX);
        let entries = processes.map(|(number, process)| self.process_entry(*number, process)).collect();
        Outcome::reply(Reply::Listing(Listing::Processes(entries)))
    }

    pub(crate) fn list_queues(
        &mut self,
        caller: Caller,
        request: &request::ListQueues,
    ) -> Result<Outcome, Denial> {
        self.check_inspect(caller, request.directory)?;
        let first = ObjectId(request.after.map_or(0, |after| after.saturating_add(1)));
        let queues = self.queues.range(first..).map(|id| self.queue_entry(*id, self.queue(*id)));
        let entries = queues.take(LISTING_ENTRIES_MAX).collect();
        Outcome::reply(Reply::Listing(Listing::Queues(entries)))
    }

    pub(crate) fn list_lanes(
        &mut self,
        caller: Caller,
        request: &request::ListLanes,
    ) -> Result<Outcome, Denial> {
        self.check_inspect(caller, request.directory)?;
        let first = keyway_abi::LaneId(request.after.map_or(0, |after| after.0.saturating_add(1)));
        let lanes = self.lanes.range(first..).take(LISTING_ENTRIES_MAX);
        let entries = lanes.map(|(id, lane)| self.lane_entry(*id, lane)).collect();
        Outcome::reply(Reply::Listing(Listing::Lanes(entries)))
    }

    pub(crate) fn list_audit(
        &mut self,
        caller: Caller,
        request: &request::ListAudit,
    ) -> Result<Outcome, Denial> {
        self.held(caller.process, request.directory, Kind::Directory, Rights::AUDIT)?;
        let entries = self.log.entries(request.after, LISTING_ENTRIES_MAX);
        Outcome::reply(Reply::Listing(Listing::Audit(entries)))
    }

    /// The memories in which the positions of a lane stand, for a broker that is asked to look.
    pub fn lane_memories(&self, lane: keyway_abi::LaneId) -> Option<(crate::Token, crate::Token)> {
        let lane = self.lanes.get(&lane)?;
        (lane.opening == Opening::Open).then_some((lane.ring, lane.ack_token))
    }

    /// The name under which a queue is published.
    pub(crate) fn name_of(&self, queue: ObjectId) -> Option<Name> {
        let Body::Queue(queue) = &self.object(queue).body else { return None };
        match &self.object(*queue.names.first()?).body {
            Body::ServiceName(entry) => Some(entry.name.clone()),
            _ => None,
        }
    }

    fn check_inspect(&self, caller: Caller, directory: Handle) -> Result<(), Denial> {
        self.held(caller.process, directory, Kind::Directory, Rights::INSPECT).map(|_| ())
    }

    fn capabilities_of(&self, process: ProcessNumber, after: Handle) -> Listing {
        let first = if after == Handle::NONE { 0 } else { after.slot().saturating_add(1) };
        let held = self.process(process).table.filled(first).take(LISTING_ENTRIES_MAX);
        let entries: Vec<CapabilityEntry> =
            held.map(|(handle, id)| self.capability_entry(handle, id)).collect();
        Listing::Capabilities(entries)
    }

    fn process_entry(&self, number: ProcessNumber, process: &Process) -> ProcessEntry {
        let identity = process.identity.as_ref();
        ProcessEntry {
            process: number,
            pid: process.pid(),
            uid: process.uid(),
            gid: identity.map_or(u32::MAX, |identity| identity.gid),
            executable: identity.map(|identity| identity.executable.clone()).unwrap_or_default(),
            confined: process.confined,
            handles: process.table.held(),
            lanes_sending: process.sending.len() as u32,
            lanes_receiving: process.receiving.len() as u32,
            bytes: self.accounts.used(process.account).bytes,
            since_ns: process.since_ns,
        }
    }

    fn queue_entry(&self, id: ObjectId, queue: &Queue) -> QueueEntry {
        QueueEntry {
            object: id.0,
            receiver: queue.receiver,
            receiver_pid: self.processes.get(&queue.receiver).map_or(0, Process::pid),
            name: self.name_of(id),
            senders: queue.lanes.len() as u16,
            senders_max: queue.senders_max,
            stock: queue.ready.len() as u16,
            order: queue.order,
        }
    }

    fn lane_entry(&self, id: keyway_abi::LaneId, lane: &Lane) -> LaneEntry {
        LaneEntry {
            lane: id,
            queue: lane.queue.0,
            sender: lane.sender,
            sender_pid: self.processes.get(&lane.sender).map_or(0, Process::pid),
            badge: lane.capability.and_then(|capability| self.tree.get(capability).badge),
            ring_bytes: lane.ring_bytes,
            priority: lane.priority,
            draining: !lane.sender_here,
            waiting_bytes: None,
            messages_taken: None,
        }
    }
}
