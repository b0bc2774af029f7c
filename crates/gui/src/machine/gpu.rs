//! GPU capabilities: memory and a number of surfaces, promised to one process out of what all may have.
//!
//! A grant is a reservation, so whoever holds one can use it up without meeting another's limit.

use alloc::collections::BTreeSet;

use super::{Bridge, ClientId, Effect, Outcome, surface::State};
use crate::{
    limits::{
        MAX_PROCESS_GPU_MEMORY, MAX_TOTAL_GPU_MEMORY, MB_BYTES, SURFACES_MAX, SURFACES_PER_PROCESS_MAX,
    },
    protocol::{DenialReason, Event, GpuCapability, GpuLimits, GuiResponse, Pid, SurfaceId},
};

/// What one process holds of the GPU, and what it has made of it.
#[derive(Debug)]
pub(super) struct GpuHolding {
    pub(super) capability: GpuCapability,
    pub(super) charged_bytes: u64,
    /// Its surfaces, those being made included.
    pub(super) surfaces: BTreeSet<SurfaceId>,
}

impl GpuHolding {
    pub(super) fn bytes_max(&self) -> u64 {
        u64::from(self.capability.memory_mb) * MB_BYTES
    }
}

impl Bridge {
    pub(super) fn request_gpu(
        &mut self,
        caller: ClientId,
        pid: Pid,
        limits: GpuLimits,
    ) -> Result<Outcome, DenialReason> {
        let (holder, capability) = self.check_request_gpu(caller, pid, limits)?;

        let surfaces = BTreeSet::new();
        self.gpu.insert(holder, GpuHolding { capability, charged_bytes: 0, surfaces });
        if holder != caller {
            self.notify(holder, Event::Granted { capability: capability.into() });
        }
        Ok(GuiResponse::Granted { capability: capability.into() }.into())
    }

    fn check_request_gpu(
        &self,
        caller: ClientId,
        pid: Pid,
        limits: GpuLimits,
    ) -> Result<(ClientId, GpuCapability), DenialReason> {
        let holder = self.check_pid(caller, pid)?;
        if self.compositor != Some(holder) && self.applications.pid_of(holder).is_none() {
            return Err(DenialReason::Unauthorized);
        }
        if self.gpu.contains_key(&holder) {
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
        Ok((holder, GpuCapability { memory_mb, max_surfaces }))
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
        for surface in holding.surfaces {
            let ended = self.surfaces.remove(surface);
            if ended.is_some_and(|ended| ended.state == State::Live) {
                self.outbox.push_back(Effect::FreeSurface { surface });
                self.notify_surface_destroyed(holder, surface);
            }
        }
        Some(holding.capability)
    }
}
