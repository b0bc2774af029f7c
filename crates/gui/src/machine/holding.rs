//! Who holds what: questions that change nothing.

use super::{Bridge, ClientId, Outcome, Sharing};
use crate::protocol::{
    Answer, Capability, DenialReason, Description, GpuUse, GuiResponse, Pid, Role, SurfaceId,
};

/// What the bridge keeps, counted. All are zero once everybody is gone and the hardware has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Totals {
    /// Processes with a lane.
    pub clients_count: usize,
    /// Registered processes.
    pub applications_count: usize,
    /// Memory that is promised or on its way back, in MB.
    pub reserved_mb: u64,
    /// Surfaces that are promised.
    pub reserved_surfaces: u64,
    /// Surfaces, those being made included.
    pub surfaces_count: usize,
    /// Bytes of their buffers.
    pub charged_bytes: u64,
    /// Input devices granted.
    pub inputs_count: usize,
    /// Leases, those being made included.
    pub leases_count: usize,
    /// Sessions, the compositor's included.
    pub sessions_count: usize,
    /// What sessions have open, and had open when they were paused.
    pub opened_count: usize,
    /// Open tickets.
    pub pending_count: usize,
}

impl Bridge {
    /// What the bridge keeps, counted.
    pub fn totals(&self) -> Totals {
        Totals {
            clients_count: self.clients.count(),
            applications_count: self.applications.count(),
            reserved_mb: self.reserved_mb(),
            reserved_surfaces: self.reserved_surfaces(),
            surfaces_count: self.surfaces.count(),
            charged_bytes: self.gpu.values().map(|gpu| gpu.charged_bytes).sum(),
            inputs_count: self.inputs.len(),
            leases_count: self.leases.count(),
            sessions_count: self.sessions.count(),
            opened_count: self.sessions.opened_count(),
            pending_count: self.pending.count(),
        }
    }

    /// The compositor, if there is one.
    pub fn compositor(&self) -> Option<ClientId> {
        self.compositor
    }

    /// Whose a surface is; none before it is made.
    pub fn surface_owner(&self, surface: SurfaceId) -> Option<ClientId> {
        self.surfaces.live(surface).map(|surface| surface.owner)
    }

    pub(super) fn has_capability(
        &self,
        caller: ClientId,
        pid: Pid,
        capability: Capability,
    ) -> Result<Outcome, DenialReason> {
        let holder = self.check_pid(caller, pid)?;
        let has_capability = self.holds(holder, capability);
        Ok(GuiResponse::HasCapabilityResult { has_capability }.into())
    }

    /// True if the process holds at least what is named.
    fn holds(&self, holder: ClientId, capability: Capability) -> bool {
        let is_compositor = self.compositor == Some(holder);
        match capability {
            Capability::GpuRendering { memory_mb, max_surfaces } => {
                self.held_gpu(holder).is_some_and(|gpu| {
                    gpu.capability.memory_mb >= memory_mb && gpu.capability.max_surfaces >= max_surfaces
                })
            }
            Capability::InputDevice { device, exclusive } => {
                let held = self.inputs.get(&device).filter(|_| is_compositor);
                held.is_some_and(|held| *held == Sharing::Exclusive || !exclusive)
            }
            Capability::DisplayControl { connector } => {
                is_compositor && self.sessions.rules(holder) && self.connectors.contains_key(&connector)
            }
            Capability::SurfaceManagement => self.held_gpu(holder).is_some(),
            Capability::Compositor => is_compositor,
        }
    }

    pub(super) fn describe(&self, caller: ClientId) -> Outcome {
        let role = if self.compositor == Some(caller) {
            Role::Compositor
        } else if self.applications.pid_of(caller).is_some() {
            Role::Application
        } else {
            Role::Stranger
        };
        let gpu = self.held_gpu(caller).map(|gpu| GpuUse {
            capability: gpu.capability,
            charged_bytes: gpu.charged_bytes,
            surfaces_count: gpu.surfaces.len() as u32,
        });
        Outcome::Now(Answer::Description(Description { role, gpu, device_type: self.device_type.clone() }))
    }
}
