//! The processes that the compositor has registered: who may ask for GPU and surfaces.
//!
//! Kept from two ends: by process, to tear down; by pid, as requests name them. A process may be registered before it has
//! opened a lane; its registration counts once a lane shows that the pid is its own.

use alloc::{collections::BTreeMap, vec::Vec};

use super::{Bridge, ClientId, Effect, Outcome};
use crate::{
    limits::APPLICATIONS_MAX,
    protocol::{Capability, DenialReason, Event, GuiResponse, Pid},
};

/// The registered processes.
#[derive(Debug, Default)]
pub(super) struct Applications {
    pid_by_client: BTreeMap<ClientId, Pid>,
    client_by_pid: BTreeMap<Pid, ClientId>,
}

impl Bridge {
    pub(super) fn register_application(
        &mut self,
        caller: ClientId,
        pid: Pid,
        process: ClientId,
    ) -> Result<Outcome, DenialReason> {
        self.check_register_application(caller, pid, process)?;
        self.commit_register_application(pid, process);
        Ok(GuiResponse::Success.into())
    }

    fn check_register_application(
        &self,
        caller: ClientId,
        pid: Pid,
        process: ClientId,
    ) -> Result<(), DenialReason> {
        self.check_compositor(caller)?;
        // The compositor has already what an application can get, and its pid must mean itself.
        let is_own = process == caller || self.check_own_pid(caller, pid).is_ok();
        let is_taken = self.applications.pid_of(process).is_some() || self.applications.by_pid(pid).is_some();
        if is_own || is_taken {
            return Err(DenialReason::AlreadyHeld);
        }
        if self.clients.get(process).is_some() {
            self.check_own_pid(process, pid)?;
        }
        if self.applications.count() >= APPLICATIONS_MAX {
            return Err(DenialReason::ResourceLimitExceeded);
        }
        Ok(())
    }

    fn commit_register_application(&mut self, pid: Pid, process: ClientId) {
        self.applications.insert(process, pid);
        if self.clients.get(process).is_some() {
            self.notify(process, Event::Registered);
        } else {
            self.outbox.push_back(Effect::WatchProcess { client: process });
        }
    }

    pub(super) fn unregister_application(
        &mut self,
        caller: ClientId,
        pid: Pid,
    ) -> Result<Outcome, DenialReason> {
        self.check_compositor(caller)?;
        let application = self.applications.by_pid(pid).ok_or(DenialReason::Unauthorized)?;

        self.end_application(application, DenialReason::Unauthorized);
        self.notify(application, Event::Unregistered);
        Ok(GuiResponse::Success.into())
    }

    /// Ends an application and all that it holds; what it waits for is answered with `reason`.
    pub(super) fn end_application(&mut self, application: ClientId, reason: DenialReason) {
        self.applications.remove(application);
        self.orphan_pending(application, reason);
        if let Some(gpu) = self.end_gpu(application) {
            self.notify(application, Event::Revoked { capability: gpu.into() });
            self.notify(application, Event::Revoked { capability: Capability::SurfaceManagement });
        }
    }
}

impl Applications {
    pub(super) fn pid_of(&self, client: ClientId) -> Option<Pid> {
        self.pid_by_client.get(&client).copied()
    }

    pub(super) fn by_pid(&self, pid: Pid) -> Option<ClientId> {
        self.client_by_pid.get(&pid).copied()
    }

    pub(super) fn clients(&self) -> Vec<ClientId> {
        self.pid_by_client.keys().copied().collect()
    }

    pub(super) fn count(&self) -> usize {
        self.pid_by_client.len()
    }

    fn insert(&mut self, client: ClientId, pid: Pid) {
        self.pid_by_client.insert(client, pid);
        self.client_by_pid.insert(pid, client);
    }

    fn remove(&mut self, client: ClientId) {
        if let Some(pid) = self.pid_by_client.remove(&client) {
            self.client_by_pid.remove(&pid);
        }
    }

    /// Asserts that the two ends mirror each other.
    pub(super) fn audit(&self) {
        assert_eq!(self.pid_by_client.len(), self.client_by_pid.len(), "applications: one pid each");
        for (client, pid) in &self.pid_by_client {
            assert_eq!(self.client_by_pid.get(pid), Some(client), "applications: found by pid");
        }
    }
}
