//! GPU capabilities: memory and a number of surfaces, promised to one process out of what all may have.
//!
//! A grant is a reservation, so whoever holds one can use it up without meeting another's limit. Where the machine has a render
//! node, it comes with a descriptor of that, which the hardware opens before anybody hears of the grant:
//!
//! ```text
//!            request_gpu             on_backend: opened
//!    nothing ───────────▶ Opening ──────────────────▶ Granted ─────▶ nothing, but the node is its holder's for good
//!       │                    └──▶ nothing (hardware refused, was late, or the holder ended)
//!       └─────────────────▶ Absent ─────▶ nothing
//! ```

use alloc::collections::BTreeSet;

use super::{
    BackendFailure, Bridge, ClientId, Effect, Outcome,
    pending::{Asker, Wait, Work},
    surface::State,
};
use crate::{
    limits::{
        MAX_PROCESS_GPU_MEMORY, MAX_TOTAL_GPU_MEMORY, MB_BYTES, SURFACES_MAX, SURFACES_PER_PROCESS_MAX,
    },
    protocol::{
        Answer, DenialReason, Event, GpuCapability, GpuGrant, GpuLimits, GrantTerms, GuiResponse, Pid,
        SurfaceId,
    },
};

/// What one process holds of the GPU, and what it has made of it.
#[derive(Debug)]
pub(super) struct GpuHolding {
    pub(super) capability: GpuCapability,
    pub(super) node: Node,
    pub(super) charged_bytes: u64,
    /// Its surfaces, those being made included.
    pub(super) surfaces: BTreeSet<SurfaceId>,
}

/// What a holding has of the render node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// There is none, or its holder had no lane by which to get it.
    Absent,
    /// The hardware opens it. Nobody has heard of the grant.
    Opening,
    /// This process may have it by now.
    Granted { pid: Pid },
}

impl GpuHolding {
    pub(super) fn bytes_max(&self) -> u64 {
        u64::from(self.capability.memory_mb) * MB_BYTES
    }
}

impl Bridge {
    pub(super) fn request_gpu(
        &mut self,
        now_ns: u64,
        asker: Asker,
        pid: Pid,
        limits: GpuLimits,
    ) -> Result<Outcome, DenialReason> {
        let (holder, capability, node) = self.check_request_gpu(asker.client, pid, limits)?;

        let surfaces = BTreeSet::new();
        self.gpu.insert(holder, GpuHolding { capability, node, charged_bytes: 0, surfaces });
        if node == Node::Opening {
            let ticket = self.pending.insert(now_ns, asker, Work::OpenNode { holder });
            self.outbox.push_back(Effect::OpenNode { ticket, client: holder });
            return Ok(Outcome::Pending);
        }
        if holder != asker.client {
            self.notify(holder, Event::Granted { capability: capability.into() });
        }
        Ok(GuiResponse::Granted { capability: capability.into() }.into())
    }

    fn check_request_gpu(
        &self,
        caller: ClientId,
        pid: Pid,
        limits: GpuLimits,
    ) -> Result<(ClientId, GpuCapability, Node), DenialReason> {
        let holder = self.check_pid(caller, pid)?;
        if self.compositor != Some(holder) && self.applications.pid_of(holder).is_none() {
            return Err(DenialReason::Unauthorized);
        }
        // One node is under way at a time, so that to undo a late one never takes away another.
        if self.gpu.contains_key(&holder) || self.pending.has_node_for(holder) {
            return Err(DenialReason::AlreadyHeld);
        }
        let GpuLimits { memory_mb, max_surfaces } = limits;
        if memory_mb == 0 || max_surfaces == 0 {
            return Err(DenialReason::InvalidConfig);
        }
        if memory_mb > MAX_PROCESS_GPU_MEMORY || max_surfaces > SURFACES_PER_PROCESS_MAX {
            return Err(DenialReason::ResourceLimitExceeded);
        }
        // All terms are bounded and few: 64 bits hold the sums whatever was asked.
        if self.reserved_mb() + u64::from(memory_mb) > u64::from(MAX_TOTAL_GPU_MEMORY)
            || self.reserved_surfaces() + u64::from(max_surfaces) > u64::from(SURFACES_MAX)
        {
            return Err(DenialReason::ResourceLimitExceeded);
        }
        // An application that has no lane yet cannot be sent a descriptor.
        let node = if self.render_node.is_some() && self.clients.get(holder).is_some() {
            self.pending.check_room(caller)?;
            Node::Opening
        } else {
            Node::Absent
        };
        Ok((holder, GpuCapability { memory_mb, max_surfaces }, node))
    }

    /// The hardware has opened a render node, or refused.
    pub(super) fn on_node(
        &mut self,
        asker: Asker,
        wait: Wait,
        holder: ClientId,
        result: Result<(), BackendFailure>,
    ) {
        match (wait, result) {
            (Wait::Until { .. }, Ok(())) => self.commit_node(asker, holder),
            (Wait::Until { .. }, Err(failure)) => {
                self.gpu.remove(&holder);
                self.answer(asker, failure.into());
            }
            (Wait::Overdue, result) => {
                self.gpu.remove(&holder);
                self.end_unwanted_node(holder, &result);
            }
            // What its holder had of the GPU ended with it.
            (Wait::Orphaned, result) => self.end_unwanted_node(holder, &result),
        }
    }

    fn end_unwanted_node(&mut self, holder: ClientId, result: &Result<(), BackendFailure>) {
        if result.is_ok() {
            self.outbox.push_back(Effect::EndNode { client: holder });
        }
    }

    fn commit_node(&mut self, asker: Asker, holder: ClientId) {
        let pid = self.clients.get(holder).map(|client| client.identity.pid);
        let (Some(holding), Some(node), Some(pid)) = (self.gpu.get_mut(&holder), &self.render_node, pid)
        else {
            return;
        };
        holding.node = Node::Granted { pid };
        let capability = holding.capability;
        let grant = GpuGrant {
            capability,
            surfaces: GrantTerms::SURFACES,
            node: node.clone(),
            node_terms: GrantTerms::RENDER_NODE,
        };
        if asker.client == holder {
            return self.answer(asker, Answer::GpuGranted(grant));
        }
        // Whoever gets no descriptor is not told of one.
        self.notify(holder, Event::GpuGranted(grant));
        self.answer(asker, GuiResponse::Granted { capability: capability.into() }.into());
    }

    /// What a process holds of the GPU, once it has heard of it.
    pub(super) fn held_gpu(&self, holder: ClientId) -> Option<&GpuHolding> {
        self.gpu.get(&holder).filter(|gpu| gpu.node != Node::Opening)
    }

    /// Memory that is promised, and memory whose promise has ended while the hardware was still making the buffer.
    pub(super) fn reserved_mb(&self) -> u64 {
        let promised: u64 = self.gpu.values().map(|gpu| u64::from(gpu.capability.memory_mb)).sum();
        promised + self.pending.orphaned_bytes().div_ceil(MB_BYTES)
    }

    pub(super) fn reserved_surfaces(&self) -> u64 {
        self.gpu.values().map(|gpu| u64::from(gpu.capability.max_surfaces)).sum()
    }

    /// Ends a process's GPU capability and its surfaces. The caller has orphaned what the process waits for, so a surface that
    /// is being made is freed when it comes.
    pub(super) fn end_gpu(&mut self, holder: ClientId) -> Option<GpuCapability> {
        let holding = self.gpu.remove(&holder)?;
        match holding.node {
            Node::Absent => {}
            Node::Opening => {
                // The compositor may have asked for it.
                for asker in self.pending.orphan(|waiting| waiting.work == Work::OpenNode { holder }) {
                    self.answer(asker, DenialReason::Unauthorized.into());
                }
                return None;
            }
            Node::Granted { pid } => self.end_node(holder, pid),
        }
        for surface in holding.surfaces {
            let ended = self.surfaces.remove(surface);
            if ended.is_some_and(|ended| ended.state == State::Live) {
                self.outbox.push_back(Effect::FreeSurface { surface });
                self.notify_surface_destroyed(holder, surface);
            }
        }
        Some(holding.capability)
    }

    /// Ends what can be ended of a render node, and tells that this does not end what its holder has.
    fn end_node(&mut self, holder: ClientId, pid: Pid) {
        self.outbox.push_back(Effect::EndNode { client: holder });
        let Some(node) = self.render_node.as_ref().map(|node| node.name.clone()) else { return };
        if self.compositor != Some(holder) {
            self.notify_compositor(Event::Irrevocable { pid, node: node.clone() });
        }
        self.notify(holder, Event::Irrevocable { pid, node });
    }
}
