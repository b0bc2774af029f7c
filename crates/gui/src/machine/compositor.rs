//! The one compositor: who may become it, and what ends with it.

use super::{Bridge, ClientId, Door, Effect, Outcome, session::Way};
use crate::protocol::{DenialReason, Event, GuiResponse, OtherDenial, Pid};

impl Bridge {
    pub(super) fn register_compositor(
        &mut self,
        caller: ClientId,
        pid: Pid,
    ) -> Result<Outcome, DenialReason> {
        self.check_own_pid(caller, pid)?;
        self.check_door(caller)?;
        if self.compositor.is_some() {
            return Err(DenialReason::AlreadyHeld);
        }
        self.sessions.check_room()?;
        self.compositor = Some(caller);
        self.begin_session(caller, Way::Native);
        if !self.sessions.rules(caller) {
            self.notify(caller, Event::Paused);
        }
        Ok(GuiResponse::Success.into())
    }

    /// The first comer gets nothing by being first: the policy says who may open the compositor's door.
    fn check_door(&self, caller: ClientId) -> Result<(), DenialReason> {
        match self.clients.get(caller) {
            Some(client) if client.doors.contains(&Door::Compositor) => Ok(()),
            _ => Err(DenialReason::Unauthorized),
        }
    }

    pub(super) fn unregister_compositor(
        &mut self,
        caller: ClientId,
        pid: Pid,
    ) -> Result<Outcome, DenialReason> {
        self.check_own_pid(caller, pid)?;
        self.check_compositor(caller)?;
        self.end_compositor();
        Ok(GuiResponse::Success.into())
    }

    /// Ends everything of everybody: input before all else, then the picture, then what it was made of.
    pub(super) fn end_compositor(&mut self) {
        let Some(compositor) = self.compositor.take() else { return };
        let gone = OtherDenial::CompositorGone.into();

        self.orphan_pending(compositor, gone);
        self.end_inputs(compositor);
        self.end_leases();
        self.restore_display();
        for application in self.applications.clients() {
            self.end_application(application, gone);
            self.notify(application, Event::CompositorGone);
        }
        self.end_gpu(compositor);
        self.end_session(compositor);
    }

    /// Gives the display back, and knows it as it was.
    pub(super) fn restore_display(&mut self) {
        for connector in self.connectors.values_mut() {
            connector.info.current = connector.initial;
        }
        self.outbox.push_back(Effect::RestoreDisplay);
    }
}
