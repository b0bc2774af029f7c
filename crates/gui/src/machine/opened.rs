//! What sessions of the seatd door have open: cards and input devices, counted.
//!
//! A card stays open while its session is paused, and goes on after that. An input device is revoked when its session is
//! paused; its number stays, to be closed.

use alloc::collections::BTreeMap;

use super::{
    BackendFailure, Bridge, ClientId, Effect, Sharing,
    pending::{Asker, Wait, Work},
};
use crate::{
    limits::SESSION_DEVICES_MAX,
    protocol::{Answer, DenialReason, DeviceId, OpenNumber, OtherDenial, SeatDevice, SessionAnswer},
};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) device: SeatDevice,
    pub(super) state: State,
    /// How often it was opened and not closed.
    pub(super) openings: u32,
}

/// How far an opening is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The hardware was asked.
    Opening,
    /// Its descriptor works whenever its session has the seat.
    Live,
    /// Its descriptor is dead for good.
    Dead,
}

impl Bridge {
    pub(super) fn open_device(
        &mut self,
        now_ns: u64,
        asker: Asker,
        device: SeatDevice,
    ) -> Result<(), DenialReason> {
        let client = asker.client;
        self.check_rules(client)?;
        let is_there = match device {
            SeatDevice::Card(card) => self.cards.contains(&card),
            SeatDevice::Input(input) => self.devices.contains_key(&input),
        };
        if !is_there {
            return Err(DenialReason::DeviceNotFound);
        }
        if self.pending.has_opening(client, device) {
            return Err(DenialReason::AlreadyHeld);
        }
        let session = self.sessions.by_client.get_mut(&client).ok_or(DenialReason::Unauthorized)?;
        let mut open = session.opened.iter_mut();
        let again = open.find(|(_, opened)| opened.device == device && opened.state == State::Live);
        if let Some((number, again)) = again {
            again.openings = again.openings.checked_add(1).ok_or(DenialReason::ResourceLimitExceeded)?;
            let number = *number;
            self.answer_session(client, SessionAnswer::DeviceOpened { number, device });
            return Ok(());
        }
        let number = session.opened_ever.checked_add(1).ok_or(DenialReason::ResourceLimitExceeded)?;
        if session.opened.len() >= SESSION_DEVICES_MAX {
            return Err(DenialReason::ResourceLimitExceeded);
        }
        self.pending.check_room(client)?;

        session.opened_ever = number;
        let number = OpenNumber(number);
        session.opened.insert(number, Opened { device, state: State::Opening, openings: 1 });
        let ticket = self.pending.insert(now_ns, asker, Work::Open { number, device });
        self.outbox.push_back(match device {
            SeatDevice::Card(card) => Effect::OpenCard { ticket, client, card },
            // Whoever has it so can grab it by itself.
            SeatDevice::Input(device) => {
                Effect::GrantInput { ticket, client, device, sharing: Sharing::Shared }
            }
        });
        Ok(())
    }

    /// The hardware has opened something for a session, or refused.
    pub(super) fn on_opened(
        &mut self,
        asker: Asker,
        wait: Wait,
        (number, device): (OpenNumber, SeatDevice),
        result: Result<(), BackendFailure>,
    ) {
        let client = asker.client;
        let session = self.sessions.by_client.get_mut(&client);
        if let (Wait::Until { .. }, Ok(())) = (wait, &result) {
            if let Some(opened) = session.and_then(|session| session.opened.get_mut(&number)) {
                opened.state = State::Live;
            }
            return self.answer_session(client, SessionAnswer::DeviceOpened { number, device });
        }
        // A later session of the same client has numbers of its own.
        if let Some(session) = session
            && session.opened.get(&number).is_some_and(|opened| opened.state == State::Opening)
        {
            session.opened.remove(&number);
        }
        match (wait, result) {
            (Wait::Until { .. }, Err(failure)) => self.answer(asker, Answer::from(failure)),
            (_, Ok(())) => self.end_one(client, device),
            (_, Err(_)) => {}
        }
    }

    pub(super) fn close_device(&mut self, client: ClientId, number: OpenNumber) -> Result<(), DenialReason> {
        let session = self.sessions.by_client.get_mut(&client).ok_or(DenialReason::Unauthorized)?;
        let opened = session.opened.get_mut(&number).filter(|opened| opened.state != State::Opening);
        let opened = opened.ok_or(OtherDenial::NotOpened)?;
        opened.openings -= 1;
        if opened.openings == 0 {
            let Opened { device, state, .. } = *opened;
            session.opened.remove(&number);
            if state == State::Live {
                self.end_one(client, device);
            }
        }
        self.answer_session(client, SessionAnswer::DeviceClosed);
        Ok(())
    }

    /// Ends all that a session had open. What is being opened is orphaned by the caller, and ends when it comes.
    pub(super) fn end_opened(&mut self, client: ClientId, opened: BTreeMap<OpenNumber, Opened>) {
        for opened in opened.into_values().filter(|opened| opened.state == State::Live) {
            self.end_one(client, opened.device);
        }
    }

    /// Makes the input devices of a session that is paused dead.
    pub(super) fn revoke_opened_inputs(&mut self, client: ClientId) {
        self.kill_inputs(|holder, _| holder == client);
    }

    /// An input device is gone: whoever has it open has nothing.
    pub(super) fn end_opened_input(&mut self, gone: DeviceId) {
        self.kill_inputs(|_, device| device == gone);
    }

    fn kill_inputs(&mut self, is_chosen: impl Fn(ClientId, DeviceId) -> bool) {
        for (&client, session) in &mut self.sessions.by_client {
            for opened in session.opened.values_mut() {
                if let (SeatDevice::Input(device), State::Live) = (opened.device, opened.state)
                    && is_chosen(client, device)
                {
                    opened.state = State::Dead;
                    self.outbox.push_back(Effect::RevokeInput { client, device });
                }
            }
        }
    }

    fn end_one(&mut self, client: ClientId, device: SeatDevice) {
        self.outbox.push_back(match device {
            SeatDevice::Card(card) => Effect::CloseCard { client, card },
            SeatDevice::Input(device) => Effect::RevokeInput { client, device },
        });
    }
}
