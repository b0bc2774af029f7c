//! Sessions: those who can have the seat, numbered, and what they ask.
//!
//! The compositor is one as long as it is registered; each client of the seatd door that opened the seat is another. One of
//! them has the seat at a time (`rule.rs`); what a session of the seatd door has open is in `opened.rs`.

use alloc::collections::BTreeMap;

use super::{
    Bridge, ClientId, Door, Effect, Effects, RequestNumber, Ticket, opened::Opened, pending::Asker,
    rule::Rule,
};
use crate::{
    limits::SESSIONS_MAX,
    protocol::{
        Answer, DenialReason, GuiResponse, OpenNumber, OtherDenial, SessionAnswer, SessionEvent, SessionId,
        SessionRequest,
    },
};

/// The sessions, and whose the seat is.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    pub(super) by_client: BTreeMap<ClientId, Session>,
    pub(super) rule: Rule,
}

/// By which protocol a session is had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The bridge's own: it is paused at once, and told.
    Native,
    /// seatd's: it is told, and says when it has paused.
    Seatd,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) way: Way,
    /// It was told to pause, and the time for that was over before it said that it did. Until then it does not get the seat.
    pub(super) owes_pause: bool,
    pub(super) opened: BTreeMap<OpenNumber, Opened>,
    pub(super) opened_ever: i32,
}

impl Sessions {
    /// Judges whether there can be one more.
    pub(super) fn check_room(&self) -> Result<(), DenialReason> {
        if self.by_client.len() >= SESSIONS_MAX { Err(DenialReason::ResourceLimitExceeded) } else { Ok(()) }
    }

    /// Whether the client has the seat, for as long as it was not told to pause.
    pub(super) fn rules(&self, client: ClientId) -> bool {
        self.rule == Rule::Rules { client }
    }

    pub(super) fn is_handed_over_by(&self, by: Ticket) -> bool {
        matches!(self.rule, Rule::HandingOver { ticket, .. } if ticket == by)
    }

    pub(super) fn deadline_ns(&self) -> Option<u64> {
        match self.rule {
            Rule::Leaving { deadline_ns, .. } => Some(deadline_ns),
            _ => None,
        }
    }

    pub(super) fn by_id(&self, id: SessionId) -> Option<(ClientId, &Session)> {
        self.by_client
            .iter()
            .find(|(_, session)| session.id == id)
            .map(|(client, session)| (*client, session))
    }

    /// Who gets the seat when nobody was chosen: the lowest number of those that owe no pause.
    pub(super) fn heir(&self) -> Option<ClientId> {
        let able = self.by_client.iter().filter(|(_, session)| !session.owes_pause);
        able.min_by_key(|(_, session)| session.id).map(|(client, _)| *client)
    }

    /// The lowest number that no session has.
    fn free_id(&self) -> SessionId {
        // One more number than there are sessions: one is free.
        let mut numbers = (1..=self.by_client.len() as u32 + 1).map(SessionId);
        numbers.find(|id| self.by_id(*id).is_none()).unwrap_or(SessionId(u32::MAX))
    }

    pub(super) fn count(&self) -> usize {
        self.by_client.len()
    }

    pub(super) fn opened_count(&self) -> usize {
        self.by_client.values().map(|session| session.opened.len()).sum()
    }
}

impl Bridge {
    /// Judges and carries out what a client of the seatd door asks. It is answered by [`Effect::AnswerSession`], or by the
    /// [`Effect::Answer`] of a denial or failure, with `number`; at once or once the hardware has answered.
    pub fn on_session_request(
        &mut self,
        now_ns: u64,
        client: ClientId,
        number: RequestNumber,
        request: SessionRequest,
    ) -> Effects<'_> {
        let asker = Asker { client, number };
        if let Err(reason) = self.dispatch_session(now_ns, asker, request) {
            self.outbox.push_back(Effect::Answer { client, request: number, answer: Answer::from(reason) });
        }
        self.effects()
    }

    /// The one match that names what a session can ask.
    fn dispatch_session(
        &mut self,
        now_ns: u64,
        asker: Asker,
        request: SessionRequest,
    ) -> Result<(), DenialReason> {
        let client = asker.client;
        let has_door = self.clients.get(client).is_some_and(|client| client.doors.contains(&Door::Seatd));
        if !has_door {
            return Err(DenialReason::Unauthorized);
        }
        if request == SessionRequest::OpenSeat {
            return self.open_seat(client);
        }
        if !self.sessions.by_client.contains_key(&client) {
            return Err(DenialReason::Unauthorized);
        }
        match request {
            SessionRequest::OpenSeat => {}
            SessionRequest::CloseSeat => {
                self.end_seat(client);
                self.answer_session(client, SessionAnswer::SeatClosed);
            }
            SessionRequest::OpenDevice(device) => return self.open_device(now_ns, asker, device),
            SessionRequest::CloseDevice(number) => return self.close_device(client, number),
            SessionRequest::PauseDone => return self.on_pause_done(client),
            SessionRequest::Switch(session) => {
                self.check_switch(client, session)?;
                self.answer_session(client, SessionAnswer::Switching);
                self.switch(now_ns, client, session);
            }
        }
        Ok(())
    }

    fn open_seat(&mut self, client: ClientId) -> Result<(), DenialReason> {
        if self.sessions.by_client.contains_key(&client) {
            return Err(DenialReason::AlreadyHeld);
        }
        self.sessions.check_room()?;
        let session = self.sessions.free_id();
        // Told before it is told that it has the seat.
        self.answer_session(client, SessionAnswer::SeatOpened { session });
        self.begin_session(client, Way::Seatd);
        Ok(())
    }

    /// Gives a client a session, and the seat if nobody has it. The caller has judged whether there is room.
    pub(super) fn begin_session(&mut self, client: ClientId, way: Way) {
        let session = Session {
            id: self.sessions.free_id(),
            way,
            owes_pause: false,
            opened: BTreeMap::new(),
            opened_ever: 0,
        };
        self.sessions.by_client.insert(client, session);
        if self.sessions.rule == Rule::Nobody {
            match way {
                // The bridge drives the screens already.
                Way::Native => self.sessions.rule = Rule::Rules { client },
                Way::Seatd => self.hand_over(Some(client)),
            }
        }
    }

    /// Ends the session of a client of the seatd door, if it has one, and all that it has open.
    pub(super) fn end_seat(&mut self, client: ClientId) {
        let is_seatd = self.sessions.by_client.get(&client).is_some_and(|session| session.way == Way::Seatd);
        if is_seatd {
            self.orphan_pending(client, OtherDenial::Paused.into());
            self.end_session(client);
        }
    }

    pub(super) fn switch_compositor(
        &mut self,
        now_ns: u64,
        caller: ClientId,
        session: SessionId,
    ) -> Result<super::Outcome, DenialReason> {
        self.check_compositor(caller)?;
        self.check_switch(caller, session)?;
        self.switch(now_ns, caller, session);
        Ok(GuiResponse::Success.into())
    }

    /// Judges whether a client has the seat, and the session can get it.
    fn check_switch(&self, client: ClientId, session: SessionId) -> Result<(), DenialReason> {
        self.check_rules(client)?;
        match self.sessions.by_id(session) {
            None => Err(DenialReason::InvalidConfig),
            Some((_, target)) if target.owes_pause => Err(OtherDenial::PauseOwed.into()),
            Some(_) => Ok(()),
        }
    }

    pub(super) fn check_rules(&self, client: ClientId) -> Result<(), DenialReason> {
        if self.sessions.rules(client) { Ok(()) } else { Err(OtherDenial::Paused.into()) }
    }

    /// Judges whether the caller is the compositor, and has the seat.
    pub(super) fn check_ruling_compositor(&self, caller: ClientId) -> Result<(), DenialReason> {
        self.check_compositor(caller)?;
        self.check_rules(caller)
    }

    pub(super) fn answer_session(&mut self, client: ClientId, answer: SessionAnswer) {
        self.outbox.push_back(Effect::AnswerSession { client, answer });
    }

    pub(super) fn tell_session(&mut self, client: ClientId, event: SessionEvent) {
        self.outbox.push_back(Effect::TellSession { client, event });
    }
}
