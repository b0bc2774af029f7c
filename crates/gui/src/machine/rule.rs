//! Whose the seat is, and how it passes from one session to the next.
//!
//! ```text
//!                 switch                     paused, or out of time              Linux has done it
//!  Rules(a) ─────────────────▶ Leaving(a, b) ───────────────────────▶ HandingOver(b) ─────────────▶ Rules(b)
//!     │     a is the compositor: it is paused at once                      ▲     │ nobody is left
//!     └────────────────────────────────────────────────────────────────────┘     └────────────────▶ Nobody
//! ```
//!
//! From the moment in which a session is told to pause until the next one is told that it has the seat, nobody opens
//! anything. The next one is told after Linux has taken the screens from the one before.

use super::{Bridge, ClientId, Driver, Effect, Ticket, session::Way};
use crate::{
    limits::PAUSE_TIMEOUT_NS,
    protocol::{DenialReason, Event, OtherDenial, SessionAnswer, SessionEvent, SessionId},
};

/// Whose the seat is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Rule {
    /// There is no session that could have it.
    #[default]
    Nobody,
    /// This one's.
    Rules { client: ClientId },
    /// This one's, which was told to pause and has until then to say that it did.
    Leaving { client: ClientId, next: Option<ClientId>, deadline_ns: u64 },
    /// Nobody's, while Linux lets another drive the screens. No deadline: nobody can have the seat before that is done.
    HandingOver { ticket: Ticket, to: Option<ClientId> },
}

impl Bridge {
    /// Passes the seat from a client that has it to a session that can get it.
    pub(super) fn switch(&mut self, now_ns: u64, client: ClientId, session: SessionId) {
        let next = self.sessions.by_id(session).map(|(next, _)| next);
        if next == Some(client) {
            return;
        }
        let is_native = self.compositor == Some(client);
        if is_native {
            self.suspend_inputs(client);
            self.notify(client, Event::Paused);
            return self.hand_over(next);
        }
        let deadline_ns = now_ns.saturating_add(PAUSE_TIMEOUT_NS);
        self.sessions.rule = Rule::Leaving { client, next, deadline_ns };
        self.tell_session(client, SessionEvent::Pause);
    }

    pub(super) fn on_pause_done(&mut self, client: ClientId) -> Result<(), DenialReason> {
        if let Rule::Leaving { client: leaving, next, .. } = self.sessions.rule
            && leaving == client
        {
            self.leave(client, next);
            self.answer_session(client, SessionAnswer::PauseNoted);
            return Ok(());
        }
        match self.sessions.by_client.get_mut(&client) {
            Some(session) if session.owes_pause => session.owes_pause = false,
            _ => return Err(OtherDenial::NotPausing.into()),
        }
        self.answer_session(client, SessionAnswer::PauseNoted);
        if self.sessions.rule == Rule::Nobody {
            self.hand_over(Some(client));
        }
        Ok(())
    }

    /// Pauses a session that has not said in time that it did. True if there was one.
    pub(super) fn force_pause(&mut self, now_ns: u64) -> bool {
        match self.sessions.rule {
            Rule::Leaving { client, next, deadline_ns } if deadline_ns <= now_ns => {
                if let Some(session) = self.sessions.by_client.get_mut(&client) {
                    session.owes_pause = true;
                }
                self.leave(client, next);
                true
            }
            _ => false,
        }
    }

    /// Takes from a session what it has no more when it is paused.
    fn leave(&mut self, client: ClientId, next: Option<ClientId>) {
        self.orphan_pending(client, OtherDenial::Paused.into());
        self.revoke_opened_inputs(client);
        self.hand_over(next.or_else(|| self.sessions.heir()));
    }

    /// Has Linux let another drive the screens.
    pub(super) fn hand_over(&mut self, to: Option<ClientId>) {
        let ticket = self.pending.issue();
        self.sessions.rule = Rule::HandingOver { ticket, to };
        let way = to.and_then(|client| self.sessions.by_client.get(&client)).map(|session| session.way);
        let to = match (to, way) {
            (Some(client), Some(Way::Seatd)) => Driver::Session(client),
            (_, Some(Way::Native)) => Driver::Bridge,
            _ => Driver::Nobody,
        };
        self.outbox.push_back(Effect::HandOver { ticket, to });
    }

    /// Linux has done it.
    pub(super) fn on_handed_over(&mut self) {
        let Rule::HandingOver { to, .. } = self.sessions.rule else { return };
        let way = |client| self.sessions.by_client.get(&client).map(|session| session.way);
        match (to, to.and_then(way)) {
            (Some(client), Some(way)) => {
                self.sessions.rule = Rule::Rules { client };
                match way {
                    Way::Seatd => self.tell_session(client, SessionEvent::Resume),
                    Way::Native => {
                        self.notify(client, Event::Resumed);
                        self.regrant_input(client);
                    }
                }
            }
            // It has ended meanwhile, or there was nobody: perhaps there is somebody now.
            _ => match self.sessions.heir() {
                None if to.is_none() => self.sessions.rule = Rule::Nobody,
                heir => self.hand_over(heir),
            },
        }
    }

    /// Ends a session and what it has open. Where it had the seat, another gets it.
    pub(super) fn end_session(&mut self, client: ClientId) {
        let Some(session) = self.sessions.by_client.remove(&client) else { return };
        self.end_opened(client, session.opened);
        let heir = self.sessions.heir();
        match &mut self.sessions.rule {
            // The bridge goes on driving the screens, which are given back.
            rule @ Rule::Rules { .. } if *rule == (Rule::Rules { client }) => {
                if heir.is_none() && session.way == Way::Native {
                    *rule = Rule::Nobody;
                } else {
                    self.hand_over(heir);
                }
            }
            Rule::Leaving { client: leaving, next, .. } if *leaving == client => {
                let next = next.or(heir);
                self.hand_over(next);
            }
            Rule::Leaving { next, .. } if *next == Some(client) => *next = None,
            _ => {}
        }
    }
}
