//! The clients of the seatd door: their requests to the machine, and its answers to them.
//!
//! What they hold is held in the broker too, as a device of the bridge's process labelled `seatd-PID-…`, so that it is
//! listed, and its end recorded, like every other grant.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, OwnedFd},
};

use keyway::Capability;
use keyway_gui::{
    BackendFailure, ClientId, Door, Effect, Identity, RequestNumber, Ticket,
    protocol::{
        Answer, CardId, DenialReason, GuiResponse, OpenNumber, OtherDenial, Pid, SeatDevice, SessionAnswer,
        SessionEvent, SessionId, SessionRequest,
    },
    seatd::Message,
};
use keyway_sys::Errno;

use super::{Lanes, Seat, SeatError, Source};
use crate::{
    drm::{CardGrant, Job},
    hardware::Hardware,
    seatd::{Ask, FIRST_CLIENT, Heard, Order, SeatdDoor},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Sessions {
    pub(super) door: SeatdDoor,
    pub(super) grant: CardGrant,
    pids: BTreeMap<ClientId, u32>,
    cards: BTreeMap<(ClientId, CardId), (Capability, OwnedFd)>,
}

/// LIMIT: what is heard is handled so much at a time.
const HEARD_MAX: usize = 32;

/// Input devices, by the numbers of the kernel's `devices.txt`.
const INPUT_MAJOR: u32 = 13;

/// Whether a client came by the seatd door.
pub(super) fn is_of_seatd(client: ClientId) -> bool {
    client.0 >= FIRST_CLIENT
}

impl Sessions {
    pub(super) fn new(door: SeatdDoor, grant: CardGrant) -> Self {
        Sessions { door, grant, pids: BTreeMap::new(), cards: BTreeMap::new() }
    }

    fn tell(&self, client: ClientId, message: Message, descriptor: Option<OwnedFd>) {
        self.door.order(Order::Tell { client, message, descriptor });
    }
}

impl Seat {
    /// What has come by the seatd door. True if there may be more.
    pub(super) fn look_at_sessions(&mut self) -> Result<bool, SeatError> {
        for _ in 0..HEARD_MAX {
            let Some(sessions) = &mut self.sessions else { return Ok(false) };
            // What wakes is taken before what it wakes for, so that nothing is left over in silence.
            while sessions.door.queue.try_next()?.is_some() {}
            match sessions.door.heard.try_recv() {
                Ok(heard) => self.on_heard(heard),
                Err(_) if sessions.door.is_over() => return Err(SeatError::HardwareGone),
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    fn on_heard(&mut self, heard: Heard) {
        match heard {
            Heard::Came { client, pid, uid } => {
                let identity = Identity { pid: Pid(pid), uid };
                let known = self.machine.on_lane_opened(client, identity, Door::Seatd);
                let known = known.map(Iterator::collect::<Vec<Effect>>);
                let Some(sessions) = &mut self.sessions else { return };
                match known {
                    Ok(effects) => {
                        sessions.pids.insert(client, pid);
                        self.clients.insert(client, Lanes::default());
                        self.carry_out(effects);
                    }
                    Err(refused) => {
                        eprintln!("keyway: seatd: process {pid} of user {uid} is turned away: {refused}");
                        sessions.door.order(Order::TurnAway { client });
                    }
                }
            }
            Heard::Asked { client, ask } => self.on_asked(client, ask),
            Heard::Gone { client } => {
                self.forget(client);
                if let Some(sessions) = &mut self.sessions {
                    sessions.pids.remove(&client);
                }
            }
        }
    }

    fn on_asked(&mut self, client: ClientId, ask: Ask) {
        let request = match ask {
            Ask::OpenSeat => Ok(SessionRequest::OpenSeat),
            Ask::CloseSeat => Ok(SessionRequest::CloseSeat),
            Ask::OpenDevice(number) => {
                let device = number.and_then(|number| {
                    let known = self.session_device(number);
                    // Whoever listens to udev may be faster than the bridge.
                    known.or_else(|| {
                        (number.major == INPUT_MAJOR).then(|| self.on_input_changed());
                        self.session_device(number)
                    })
                });
                device.map(SessionRequest::OpenDevice).ok_or(DenialReason::DeviceNotFound)
            }
            Ask::CloseDevice(number) => Ok(SessionRequest::CloseDevice(OpenNumber(number))),
            Ask::PauseDone => Ok(SessionRequest::PauseDone),
            // No session has the number 0, so none below it either.
            Ask::Switch(number) => Ok(SessionRequest::Switch(SessionId(u32::try_from(number).unwrap_or(0)))),
        };
        match request {
            Ok(request) => {
                self.last_request += 1;
                let (now_ns, number) = (self.now_ns(), RequestNumber(self.last_request));
                let effects = self.machine.on_session_request(now_ns, client, number, request).collect();
                self.carry_out(effects);
            }
            Err(reason) => self.answer_refusal(client, &reason.into()),
        }
    }

    /// Which of the devices that the bridge knows has this number.
    fn session_device(&self, number: keyway_sys::device::DeviceNumber) -> Option<SeatDevice> {
        let Hardware::Real(real) = &self.hardware else { return None };
        let card = real.cards.iter().find(|(of, _)| *of == number).map(|(_, card)| SeatDevice::Card(*card));
        card.or_else(|| real.devices.by_number(number).map(SeatDevice::Input))
    }

    /// How a grant to a client of the seatd door is labelled in the broker.
    pub(super) fn session_label(&self, client: ClientId) -> String {
        let pid = self.sessions.as_ref().and_then(|sessions| sessions.pids.get(&client));
        pid.map_or_else(String::new, |pid| format!("seatd-{pid}-"))
    }

    /// Has a card opened for a session.
    pub(super) fn open_card(
        &mut self,
        ticket: Ticket,
        client: ClientId,
        card: CardId,
    ) -> Option<(Ticket, Result<(), BackendFailure>)> {
        let grant = self.sessions.as_ref().map(|sessions| sessions.grant).unwrap_or_default();
        match &mut self.hardware {
            Hardware::Headless(_) => {
                let message = "there is no card behind virtual screens".into();
                Some((ticket, Err(BackendFailure::Refused { message })))
            }
            Hardware::Real(real) => {
                real.do_job(Job::OpenCard { ticket, client, card, grant });
                None
            }
        }
    }

    /// Keeps a card that was opened for a session, and has the broker keep it.
    pub(super) fn take_card(
        &mut self,
        client: ClientId,
        card: CardId,
        opened: Result<OwnedFd, String>,
    ) -> Result<(), String> {
        let label = format!("{}card-{}", self.session_label(client), card.0);
        let fd = opened?;
        let kept = self.depositor.deposit(&label, &fd).map_err(|error| error.to_string());
        match (kept, &mut self.sessions) {
            (Ok(kept), Some(sessions)) => {
                sessions.cards.insert((client, card), (kept, fd));
                Ok(())
            }
            (kept, _) => {
                self.end_card(client, card);
                kept.map(drop)
            }
        }
    }

    pub(super) fn close_card(&mut self, client: ClientId, card: CardId) {
        let held = self.sessions.as_mut().and_then(|sessions| sessions.cards.remove(&(client, card)));
        if let Some((capability, _)) = held {
            // Nobody else claims it from now on.
            let _ = capability.revoke();
        }
        self.end_card(client, card);
    }

    fn end_card(&mut self, client: ClientId, card: CardId) {
        if let Hardware::Real(real) = &mut self.hardware {
            real.do_job(Job::CloseCard { client, card });
        }
    }

    /// Answers a denial or failure by its errno. What has no number of its own is said on standard error.
    pub(super) fn answer_refusal(&self, client: ClientId, answer: &Answer) {
        let Some(sessions) = &self.sessions else { return };
        if let Answer::Document(GuiResponse::Error { message }) = answer {
            let pid = sessions.pids.get(&client).copied().unwrap_or_default();
            eprintln!("keyway: seatd: process {pid} asked for a device that cannot be opened: {message}");
        }
        sessions.tell(client, Message::Error(errno(answer).raw_os_error()), None);
    }

    pub(super) fn answer_session(&self, client: ClientId, answer: SessionAnswer) {
        let Some(sessions) = &self.sessions else { return };
        let message = match answer {
            SessionAnswer::SeatOpened { .. } => Message::SeatOpened,
            SessionAnswer::SeatClosed => Message::SeatClosed,
            SessionAnswer::DeviceClosed => Message::DeviceClosed,
            SessionAnswer::PauseNoted => Message::SeatDisabled,
            SessionAnswer::Switching => Message::SessionSwitched,
            SessionAnswer::DeviceOpened { number, device } => {
                return match self.session_descriptor(client, device) {
                    Some(fd) => sessions.tell(client, Message::DeviceOpened(number.0), Some(fd)),
                    // This process may open no more.
                    None => sessions.tell(client, Message::Error(Errno::MFILE.raw_os_error()), None),
                };
            }
        };
        sessions.tell(client, message, None);
    }

    pub(super) fn tell_session(&self, client: ClientId, event: SessionEvent) {
        let message = match event {
            SessionEvent::Pause => Message::DisableSeat,
            SessionEvent::Resume => Message::EnableSeat,
        };
        if let Some(sessions) = &self.sessions {
            sessions.tell(client, message, None);
        }
    }

    /// A copy of what a session has open, to be sent.
    fn session_descriptor(&self, client: ClientId, device: SeatDevice) -> Option<OwnedFd> {
        let fd = match device {
            SeatDevice::Card(card) => self.sessions.as_ref()?.cards.get(&(client, card))?.1.as_fd(),
            SeatDevice::Input(device) => match &self.inputs.get(&(client, device))?.source {
                Source::Real(fd) => fd.as_fd(),
                Source::Virtual { .. } => return None,
            },
        };
        fd.try_clone_to_owned().ok()
    }
}

/// What `libseat` makes of a refusal.
fn errno(answer: &Answer) -> Errno {
    let Answer::Document(GuiResponse::Denied { reason }) = answer else { return Errno::IO };
    let others = [
        (OtherDenial::DeadlinePassed, Errno::TIMEDOUT),
        (OtherDenial::NotOpened, Errno::BADF),
        (OtherDenial::NotPausing, Errno::BUSY),
        (OtherDenial::PauseOwed, Errno::BUSY),
    ];
    match reason {
        DenialReason::ResourceLimitExceeded => Errno::MFILE,
        DenialReason::DeviceNotFound => Errno::NOENT,
        DenialReason::InvalidConfig => Errno::INVAL,
        DenialReason::AlreadyHeld => Errno::BUSY,
        // That another session has the seat among them.
        DenialReason::Unauthorized | DenialReason::Other(_) => {
            let other = others.iter().find(|(other, _)| *reason == DenialReason::from(*other));
            other.map_or(Errno::PERM, |(_, errno)| *errno)
        }
    }
}
