//! Surfaces: charged first, made by the hardware, shared with the compositor, freed with their owner.
//!
//! ```text
//!            create_surface        on_backend: made
//!    nothing ─────────────▶ Making ───────────────▶ Live ─────▶ nothing
//!                             │                          destroy, or its owner's end
//!                             └──▶ nothing (hardware refused, was late, or the owner ended)
//! ```

use alloc::collections::BTreeMap;

use super::{
    Access, BackendFailure, Bridge, ClientId, Effect, Outcome,
    pending::{Asker, Wait, Work},
};
use crate::protocol::{
    Answer, BufferKind, DenialReason, Event, GuiResponse, Pid, SurfaceConfig, SurfaceId, SurfaceLayout,
};

#[derive(Debug)]
pub(super) struct Surface {
    pub(super) owner: ClientId,
    pub(super) config: SurfaceConfig,
    pub(super) layout: SurfaceLayout,
    pub(super) state: State,
}

/// How far a surface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The hardware makes its buffer. Nobody has heard of it.
    Making,
    /// Its owner has it.
    Live,
}

/// All surfaces. Numbers are consecutive: whoever makes surfaces learns how many others did, and no more.
#[derive(Debug, Default)]
pub(super) struct Surfaces {
    by_id: BTreeMap<SurfaceId, Surface>,
    made_count: u64,
}

impl Bridge {
    pub(super) fn create_surface(
        &mut self,
        now_ns: u64,
        asker: Asker,
        pid: Pid,
        config: SurfaceConfig,
    ) -> Result<Outcome, DenialReason> {
        let layout = self.check_create_surface(asker.client, pid, config)?;
        self.commit_create_surface(now_ns, asker, config, layout);
        Ok(Outcome::Pending)
    }

    /// Only for oneself, the compositor included: a buffer's writer is who asked for it.
    fn check_create_surface(
        &self,
        caller: ClientId,
        pid: Pid,
        config: SurfaceConfig,
    ) -> Result<SurfaceLayout, DenialReason> {
        self.check_own_pid(caller, pid)?;
        let gpu = self.held_gpu(caller).ok_or(DenialReason::Unauthorized)?;
        let layout = config.layout().ok_or(DenialReason::InvalidConfig)?;
        if gpu.surfaces.len() >= gpu.capability.max_surfaces as usize {
            return Err(DenialReason::ResourceLimitExceeded);
        }
        // Both terms are at most 2^30: the sum cannot overflow.
        if gpu.charged_bytes + layout.bytes > gpu.bytes_max() {
            return Err(DenialReason::ResourceLimitExceeded);
        }
        self.pending.check_room(caller)?;
        Ok(layout)
    }

    fn commit_create_surface(
        &mut self,
        now_ns: u64,
        asker: Asker,
        config: SurfaceConfig,
        layout: SurfaceLayout,
    ) {
        let client = asker.client;
        let surface = self.surfaces.insert(Surface { owner: client, config, layout, state: State::Making });
        if let Some(gpu) = self.gpu.get_mut(&client) {
            gpu.charged_bytes += layout.bytes;
            gpu.surfaces.insert(surface);
        }
        let ticket = self.pending.insert(now_ns, asker, Work::MakeSurface { surface, bytes: layout.bytes });
        self.outbox.push_back(Effect::AllocateSurface { ticket, surface, client, config, layout });
    }

    /// The hardware has made a surface's buffer, or refused.
    pub(super) fn on_surface_made(
        &mut self,
        asker: Asker,
        wait: Wait,
        surface: SurfaceId,
        result: Result<(), BackendFailure>,
    ) {
        match (wait, result) {
            (Wait::Until { .. }, Ok(())) => self.commit_surface_made(asker, surface),
            (Wait::Until { .. }, Err(failure)) => {
                self.take_surface(surface);
                self.answer(asker, failure.into());
            }
            (Wait::Overdue, result) => {
                self.take_surface(surface);
                self.free_unwanted(surface, &result);
            }
            // Its charge ended with its owner's capability.
            (Wait::Orphaned, result) => self.free_unwanted(surface, &result),
        }
    }

    fn commit_surface_made(&mut self, asker: Asker, id: SurfaceId) {
        let Some(surface) = self.surfaces.get_mut(id) else { return };
        surface.state = State::Live;
        let Surface { owner, config, layout, .. } = *surface;

        self.outbox.push_back(Effect::ShareSurface { surface: id, with: owner, access: Access::Write });
        let SurfaceLayout { stride, bytes } = layout;
        let buffer = BufferKind::Memfd;
        self.answer(asker, Answer::SurfaceCreated { surface: id, stride, bytes, buffer });
        if let (Some(compositor), Some(pid)) = (self.compositor, self.applications.pid_of(owner)) {
            self.outbox.push_back(Effect::ShareSurface {
                surface: id,
                with: compositor,
                access: Access::Read,
            });
            self.notify(
                compositor,
                Event::SurfaceCreated { surface: id, owner: pid, config, layout, buffer },
            );
        }
    }

    fn free_unwanted(&mut self, surface: SurfaceId, result: &Result<(), BackendFailure>) {
        if result.is_ok() {
            self.outbox.push_back(Effect::FreeSurface { surface });
        }
    }

    pub(super) fn destroy_surface(
        &mut self,
        caller: ClientId,
        pid: Pid,
        surface: SurfaceId,
    ) -> Result<Outcome, DenialReason> {
        self.check_destroy_surface(caller, pid, surface)?;
        self.take_surface(surface);
        self.outbox.push_back(Effect::FreeSurface { surface });
        self.notify_surface_destroyed(caller, surface);
        Ok(GuiResponse::Success.into())
    }

    /// An unknown surface is not found, another's is not authorized. To tell them apart gives nothing away, since numbers are
    /// consecutive, and an honest client that destroys twice learns what it did.
    fn check_destroy_surface(
        &self,
        caller: ClientId,
        pid: Pid,
        surface: SurfaceId,
    ) -> Result<(), DenialReason> {
        self.check_own_pid(caller, pid)?;
        let surface = self.surfaces.live(surface).ok_or(DenialReason::DeviceNotFound)?;
        if surface.owner == caller { Ok(()) } else { Err(DenialReason::Unauthorized) }
    }

    /// Removes a surface from both ends and gives its charge back.
    fn take_surface(&mut self, id: SurfaceId) {
        let Some(surface) = self.surfaces.remove(id) else { return };
        if let Some(gpu) = self.gpu.get_mut(&surface.owner) {
            gpu.charged_bytes -= surface.layout.bytes;
            gpu.surfaces.remove(&id);
        }
    }

    /// Tells the compositor that another's surface ended.
    pub(super) fn notify_surface_destroyed(&mut self, owner: ClientId, surface: SurfaceId) {
        if self.compositor != Some(owner) {
            self.notify_compositor(Event::SurfaceDestroyed { surface });
        }
    }
}

impl Surfaces {
    fn insert(&mut self, surface: Surface) -> SurfaceId {
        self.made_count += 1;
        let id = SurfaceId(self.made_count);
        self.by_id.insert(id, surface);
        id
    }

    pub(super) fn remove(&mut self, surface: SurfaceId) -> Option<Surface> {
        self.by_id.remove(&surface)
    }

    fn get_mut(&mut self, surface: SurfaceId) -> Option<&mut Surface> {
        self.by_id.get_mut(&surface)
    }

    pub(super) fn get(&self, surface: SurfaceId) -> Option<&Surface> {
        self.by_id.get(&surface)
    }

    /// A surface that its owner has heard of.
    pub(super) fn live(&self, surface: SurfaceId) -> Option<&Surface> {
        self.by_id.get(&surface).filter(|surface| surface.state == State::Live)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SurfaceId, &Surface)> {
        self.by_id.iter().map(|(&id, surface)| (id, surface))
    }

    pub(super) fn count(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn made_count(&self) -> u64 {
        self.made_count
    }
}
