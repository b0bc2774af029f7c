//! What the hardware answers, and what becomes of requests that it answers late or never.

use alloc::string::String;

use super::{
    Bridge, ClientId, Effect, Effects, Ticket,
    pending::{Asker, Work},
};
use crate::{
    limits::TEXT_BYTES_MAX,
    protocol::{Answer, DenialReason, GuiResponse, OtherDenial, clipped},
};

/// The hardware refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendFailure {
    /// It could not. The asker gets the text, cut to `TEXT_BYTES_MAX` bytes.
    Refused {
        /// What was tried, and what the machine said.
        message: String,
    },
    /// A process that is no client of the bridge has it for itself alone. The asker is denied it as held already.
    HeldElsewhere,
}

impl From<BackendFailure> for Answer {
    fn from(failure: BackendFailure) -> Self {
        match failure {
            BackendFailure::Refused { message } => {
                Answer::Document(GuiResponse::Error { message: clipped(message, TEXT_BYTES_MAX) })
            }
            BackendFailure::HeldElsewhere => DenialReason::AlreadyHeld.into(),
        }
    }
}

impl Bridge {
    /// The hardware has answered an effect that had a ticket. A ticket that is not open is ignored.
    pub fn on_backend(&mut self, ticket: Ticket, result: Result<(), BackendFailure>) -> Effects<'_> {
        if self.sessions.is_handed_over_by(ticket) {
            // Also where Linux refused: its own calls tell the heir so.
            self.on_handed_over();
        } else if let Some(answered) = self.pending.remove(ticket) {
            let (asker, wait) = (answered.asker, answered.wait);
            match answered.work {
                Work::SetMode { connector, mode } => {
                    self.on_display_answered(asker, wait, (connector, Some(mode)), result);
                }
                Work::Present { connector, .. } => {
                    self.on_display_answered(asker, wait, (connector, None), result);
                }
                Work::MakeSurface { surface, .. } => self.on_surface_made(asker, wait, surface, result),
                Work::GrantInput { device, sharing } => {
                    self.on_input_opened(asker, wait, (device, sharing), result);
                }
                Work::Lease { lease } => self.on_leased(asker, wait, lease, result),
                Work::RegrantInput { device, sharing } => {
                    self.on_input_regranted(asker.client, wait, (device, sharing), &result);
                }
                Work::Open { number, device } => self.on_opened(asker, wait, (number, device), result),
                Work::OpenNode { holder } => self.on_node(asker, wait, holder, result),
            }
        }
        self.effects()
    }

    /// When the next deadline passes; none if nothing waits. Look again after each input.
    pub fn deadline_ns(&self) -> Option<u64> {
        self.pending.deadline_ns().into_iter().chain(self.sessions.deadline_ns()).min()
    }

    /// Answers the requests whose deadline has passed, and pauses a session that has not done so in time; none if there is nothing
    /// of that kind. Call it when [`Bridge::deadline_ns`] is reached.
    pub fn poll_expired(&mut self, now_ns: u64) -> Option<Effects<'_>> {
        let before = self.outbox.len();
        let expired = self.pending.expire(now_ns);
        let is_forced = self.force_pause(now_ns);
        if expired.is_empty() && !is_forced && self.outbox.len() == before {
            return None;
        }
        for asker in expired {
            self.answer(asker, DenialReason::from(OtherDenial::DeadlinePassed).into());
        }
        Some(self.effects())
    }

    /// Ends the waiting of a client that lost its standing: it is answered now, and what comes later is undone.
    pub(super) fn orphan_pending(&mut self, client: ClientId, reason: DenialReason) {
        for asker in self.pending.orphan(|waiting| waiting.asker.client == client) {
            self.answer(asker, reason.into());
        }
    }

    /// Ends some of what a client waits for, as above.
    pub(super) fn orphan_pending_work(
        &mut self,
        client: ClientId,
        reason: DenialReason,
        is_chosen: impl Fn(&Work) -> bool,
    ) {
        let asked = self.pending.orphan(|waiting| waiting.asker.client == client && is_chosen(&waiting.work));
        for asker in asked {
            self.answer(asker, reason.into());
        }
    }

    /// Ends the waiting for work on something that is gone.
    pub(super) fn orphan_work(&mut self, is_gone: impl Fn(&Work) -> bool) {
        for asker in self.pending.orphan(|waiting| is_gone(&waiting.work)) {
            self.answer(asker, DenialReason::DeviceNotFound.into());
        }
    }

    /// Answers a request that had to wait, if its asker lives.
    pub(super) fn answer(&mut self, asker: Asker, answer: Answer) {
        if self.clients.get(asker.client).is_some() {
            self.outbox.push_back(Effect::Answer { client: asker.client, request: asker.number, answer });
        }
    }
}
