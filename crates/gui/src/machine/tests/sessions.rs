//! Sessions: one has the seat, it passes on when Linux has done so, and nobody else reads or opens anything.

use super::*;
use crate::protocol::{OpenNumber, SeatDevice, SessionAnswer, SessionEvent, SessionId, SessionRequest};

const FIRST: u64 = 11;
const SECOND: u64 = 12;
const THIRD: u64 = 13;
const KEYS: SeatDevice = SeatDevice::Input(DEVICE);
const SCREENS: SeatDevice = SeatDevice::Card(CARD);

const PAUSED: DenialReason = DenialReason::Other(OtherDenial::Paused as u32);

fn told(client: u64, event: SessionEvent) -> Effect {
    Effect::TellSession { client: ClientId(client), event }
}

fn answered(client: u64, answer: SessionAnswer) -> Effect {
    Effect::AnswerSession { client: ClientId(client), answer }
}

fn opened(client: u64, number: i32, device: SeatDevice) -> Effect {
    answered(client, SessionAnswer::DeviceOpened { number: OpenNumber(number), device })
}

fn revoked(client: u64) -> Effect {
    Effect::RevokeInput { client: ClientId(client), device: DEVICE }
}

fn open(device: SeatDevice) -> SessionRequest {
    SessionRequest::OpenDevice(device)
}

fn close(number: i32) -> SessionRequest {
    SessionRequest::CloseDevice(OpenNumber(number))
}

fn switch(session: u32) -> SessionRequest {
    SessionRequest::Switch(SessionId(session))
}

impl World {
    fn session(&mut self, client: u64, request: SessionRequest) -> Vec<Effect> {
        let operation = format!("{request:?}");
        self.asked.insert(client, operation.split(['(', ' ']).next().unwrap_or_default().to_string());
        let number = RequestNumber(client);
        let effects: Vec<_> =
            self.bridge.on_session_request(self.now_ns, ClientId(client), number, request).collect();
        self.bridge.audit();
        self.noted(effects)
    }

    fn refused(&mut self, client: u64, request: SessionRequest) -> Option<DenialReason> {
        match self.session(client, request).as_slice() {
            [Effect::Answer { answer: Answer::Document(GuiResponse::Denied { reason }), .. }] => {
                Some(*reason)
            }
            _ => None,
        }
    }

    /// Has Linux do what was asked last.
    fn done(&mut self, effects: &[Effect]) -> Vec<Effect> {
        let ticket = effects.iter().rev().find_map(ticket_of).unwrap();
        self.backend(ticket, Ok(()))
    }

    /// A client that has the seat, or waits for it.
    fn seated(&mut self, client: u64) {
        self.open(client, Door::Seatd);
        let effects = self.session(client, SessionRequest::OpenSeat);
        if effects.iter().any(|effect| ticket_of(effect).is_some()) {
            assert_eq!(self.done(&effects), [told(client, SessionEvent::Resume)]);
        }
    }

    fn opens(&mut self, client: u64, device: SeatDevice) -> i32 {
        let effects = self.session(client, open(device));
        match self.done(&effects).as_slice() {
            [Effect::AnswerSession { answer: SessionAnswer::DeviceOpened { number, .. }, .. }] => number.0,
            other => panic!("{other:?}"),
        }
    }
}

fn handed_over(effects: &[Effect]) -> Option<Driver> {
    effects.iter().find_map(|effect| match effect {
        Effect::HandOver { to, .. } => Some(*to),
        _ => None,
    })
}

#[test]
fn the_first_session_gets_the_seat_after_it_is_opened_and_linux_has_done_it() {
    let mut world = World::new();
    world.open(FIRST, Door::Seatd);
    let effects = world.session(FIRST, SessionRequest::OpenSeat);
    assert_eq!(effects[0], answered(FIRST, SessionAnswer::SeatOpened { session: SessionId(1) }));
    assert_eq!(handed_over(&effects), Some(Driver::Session(ClientId(FIRST))));
    assert_eq!(effects.len(), 2);
    assert_eq!(world.refused(FIRST, open(KEYS)), Some(PAUSED), "not before Linux has done it");
    assert_eq!(world.done(&effects), [told(FIRST, SessionEvent::Resume)]);
    // The second waits.
    world.open(SECOND, Door::Seatd);
    let second = world.session(SECOND, SessionRequest::OpenSeat);
    assert_eq!(second, [answered(SECOND, SessionAnswer::SeatOpened { session: SessionId(2) })]);
    assert_eq!(world.refused(SECOND, open(SCREENS)), Some(PAUSED));
    assert_eq!(world.refused(SECOND, switch(2)), Some(PAUSED));
}

#[test]
fn who_did_not_come_by_the_door_or_has_no_seat_asks_nothing() {
    let mut world = World::with_compositor();
    let refused = Some(DenialReason::Unauthorized);
    for client in [COMPOSITOR, APPLICATION, STRANGER, 99] {
        assert_eq!(world.refused(client, SessionRequest::OpenSeat), refused);
    }
    world.open(FIRST, Door::Seatd);
    for request in [SessionRequest::CloseSeat, open(KEYS), close(1), SessionRequest::PauseDone, switch(1)] {
        assert_eq!(world.refused(FIRST, request), refused, "{request:?}");
    }
    // By that door nobody becomes the compositor.
    assert_eq!(world.document(FIRST, register_compositor(FIRST)), denied(DenialReason::Unauthorized));
    world.session(FIRST, SessionRequest::OpenSeat);
    assert_eq!(world.refused(FIRST, SessionRequest::OpenSeat), Some(DenialReason::AlreadyHeld));
}

#[test]
fn a_device_is_opened_twice_under_one_number_and_ends_with_the_last_opening() {
    let mut world = World::new();
    world.seated(FIRST);
    assert_eq!(world.opens(FIRST, KEYS), 1);
    assert_eq!(world.session(FIRST, open(KEYS)), [opened(FIRST, 1, KEYS)]);
    assert_eq!(world.opens(FIRST, SCREENS), 2);
    assert_eq!(world.session(FIRST, open(SCREENS)), [opened(FIRST, 2, SCREENS)]);

    let closed = || answered(FIRST, SessionAnswer::DeviceClosed);
    assert_eq!(world.session(FIRST, close(1)), [closed()]);
    assert_eq!(world.session(FIRST, close(1)), [revoked(FIRST), closed()]);
    let not_opened = Some(DenialReason::from(OtherDenial::NotOpened));
    for number in [1, 0, -1, 7, i32::MAX, i32::MIN] {
        assert_eq!(world.refused(FIRST, close(number)), not_opened, "{number}");
    }
    assert_eq!(world.session(FIRST, close(2)), [closed()]);
    let card = Effect::CloseCard { client: ClientId(FIRST), card: CARD };
    assert_eq!(world.session(FIRST, close(2)), [card, closed()]);
    assert_eq!(world.opens(FIRST, KEYS), 3, "numbers are not used again");
}

#[test]
fn what_is_not_there_or_refused_by_linux_is_not_opened() {
    let mut world = World::new();
    world.seated(FIRST);
    let missing = [SeatDevice::Input(DeviceId(9)), SeatDevice::Card(CardId(9))];
    for device in missing {
        assert_eq!(world.refused(FIRST, open(device)), Some(DenialReason::DeviceNotFound));
    }
    let effects = world.session(FIRST, open(SCREENS));
    let refused = world.backend(ticket_of(&effects[0]).unwrap(), Err("no"));
    let error = Answer::Document(GuiResponse::Error { message: "no".to_string() });
    assert_eq!(refused, [answer_of(FIRST, error)]);
    assert_eq!(world.bridge.totals().opened_count, 0);
    assert_eq!(world.opens(FIRST, SCREENS), 2);
}

#[test]
fn what_one_session_has_open_is_bounded_and_so_are_sessions() {
    let mut world = World::new();
    let devices = (100..140).map(|id| DeviceInfo {
        id: DeviceId(id),
        name: "d".to_string(),
        kind: DeviceKind::Pointer,
    });
    for device in devices.clone() {
        world.bridge.on_device_added(device).unwrap().for_each(drop);
    }
    world.seated(FIRST);
    world.seated(SECOND);
    // Those that were revoked by a pause and not closed count on.
    for _ in 0..3 {
        for device in devices.clone() {
            world.opens(FIRST, SeatDevice::Input(device.id));
        }
        pause_and_return(&mut world);
    }
    for device in devices.clone().take(limits::SESSION_DEVICES_MAX - 120) {
        world.opens(FIRST, SeatDevice::Input(device.id));
    }
    let exceeded = Some(DenialReason::ResourceLimitExceeded);
    assert_eq!(world.refused(FIRST, open(SCREENS)), exceeded);
    world.session(FIRST, close(1));
    world.opens(FIRST, SCREENS);

    for client in 100..(100 + limits::SESSIONS_MAX as u64 - 2) {
        world.seated(client);
    }
    world.open(THIRD, Door::Seatd);
    assert_eq!(world.refused(THIRD, SessionRequest::OpenSeat), exceeded);
    world.open(COMPOSITOR, Door::Compositor);
    let native = world.document(COMPOSITOR, register_compositor(COMPOSITOR));
    assert_eq!(native, denied(DenialReason::ResourceLimitExceeded));
    world.gone(100);
    assert_eq!(world.session(THIRD, SessionRequest::OpenSeat).len(), 1);
}

/// The first session lets the second have the seat and gets it back.
fn pause_and_return(world: &mut World) {
    for (from, to, id) in [(FIRST, SECOND, 2), (SECOND, FIRST, 1)] {
        world.session(from, switch(id));
        let paused = world.session(from, SessionRequest::PauseDone);
        assert_eq!(world.done(&paused), [told(to, SessionEvent::Resume)]);
    }
}

#[test]
fn the_seat_passes_after_the_pause_is_acknowledged_and_not_before() {
    let mut world = World::new();
    world.seated(FIRST);
    world.seated(SECOND);
    world.opens(FIRST, KEYS);
    world.opens(FIRST, SCREENS);
    assert_eq!(
        world.session(FIRST, switch(2)),
        [answered(FIRST, SessionAnswer::Switching), told(FIRST, SessionEvent::Pause)]
    );
    // In between nobody opens anything, and nobody switches.
    for client in [FIRST, SECOND] {
        assert_eq!(world.refused(client, open(KEYS)), Some(PAUSED));
        assert_eq!(world.refused(client, switch(1)), Some(PAUSED));
    }
    let effects = world.session(FIRST, SessionRequest::PauseDone);
    assert_eq!(effects[0], revoked(FIRST), "input first");
    assert_eq!(handed_over(&effects), Some(Driver::Session(ClientId(SECOND))));
    assert_eq!(effects[2], answered(FIRST, SessionAnswer::PauseNoted));
    assert_eq!(world.done(&effects), [told(SECOND, SessionEvent::Resume)]);

    // Back: the card goes on under its number, the keyboard is dead under its own and opened anew.
    world.session(SECOND, switch(1));
    let effects = world.session(SECOND, SessionRequest::PauseDone);
    assert_eq!(world.done(&effects), [told(FIRST, SessionEvent::Resume)]);
    assert_eq!(world.session(FIRST, open(SCREENS)), [opened(FIRST, 2, SCREENS)]);
    assert_eq!(world.opens(FIRST, KEYS), 3);
    assert_eq!(world.session(FIRST, close(1)), [answered(FIRST, SessionAnswer::DeviceClosed)]);
}

#[test]
fn nobody_acknowledges_what_was_not_told_and_nobody_switches_to_nobody() {
    let mut world = World::new();
    world.seated(FIRST);
    world.seated(SECOND);
    let not_pausing = Some(DenialReason::from(OtherDenial::NotPausing));
    for client in [FIRST, SECOND] {
        assert_eq!(world.refused(client, SessionRequest::PauseDone), not_pausing);
    }
    for session in [0, 3, u32::MAX] {
        assert_eq!(world.refused(FIRST, switch(session)), Some(DenialReason::InvalidConfig));
    }
    assert_eq!(world.session(FIRST, switch(1)), [answered(FIRST, SessionAnswer::Switching)], "to itself");
    world.session(FIRST, switch(2));
    assert_eq!(world.refused(SECOND, SessionRequest::PauseDone), not_pausing, "for another");
    world.session(FIRST, SessionRequest::PauseDone);
    assert_eq!(world.refused(FIRST, SessionRequest::PauseDone), not_pausing, "twice");
}

#[test]
fn who_does_not_acknowledge_is_paused_all_the_same_and_gets_nothing_before_it_does() {
    let mut world = World::new();
    world.seated(FIRST);
    world.seated(SECOND);
    world.opens(FIRST, KEYS);
    world.session(FIRST, switch(2));
    let deadline_ns = world.bridge.deadline_ns().unwrap();
    assert_eq!(deadline_ns, world.now_ns + limits::PAUSE_TIMEOUT_NS);
    assert!(world.bridge.poll_expired(deadline_ns - 1).is_none());
    world.now_ns = deadline_ns;
    let forced: Vec<_> = world.bridge.poll_expired(deadline_ns).unwrap().collect();
    world.bridge.audit();
    assert_eq!(forced[0], revoked(FIRST));
    assert_eq!(world.done(&forced), [told(SECOND, SessionEvent::Resume)]);

    assert_eq!(world.refused(SECOND, switch(1)), Some(OtherDenial::PauseOwed.into()));
    // It is nobody's heir either.
    let gone = world.gone(SECOND);
    assert_eq!(handed_over(&gone), Some(Driver::Nobody));
    assert_eq!(world.done(&gone), []);
    let late = world.session(FIRST, SessionRequest::PauseDone);
    assert_eq!(late[0], answered(FIRST, SessionAnswer::PauseNoted));
    assert_eq!(world.done(&late), [told(FIRST, SessionEvent::Resume)]);
}

#[test]
fn a_session_that_ends_frees_all_and_the_next_has_the_seat() {
    for ends_by_death in [true, false] {
        let mut world = World::new();
        world.seated(FIRST);
        world.seated(SECOND);
        world.opens(FIRST, KEYS);
        world.opens(FIRST, SCREENS);
        let effects =
            if ends_by_death { world.gone(FIRST) } else { world.session(FIRST, SessionRequest::CloseSeat) };
        assert_eq!(effects[..2], [revoked(FIRST), Effect::CloseCard { client: ClientId(FIRST), card: CARD }]);
        assert_eq!(handed_over(&effects), Some(Driver::Session(ClientId(SECOND))));
        assert_eq!(world.done(&effects), [told(SECOND, SessionEvent::Resume)]);
        let totals = world.bridge.totals();
        assert_eq!((totals.sessions_count, totals.opened_count), (1, 0));
        // Its number is free again.
        world.seated(THIRD);
        assert_eq!(world.session(SECOND, switch(1)).len(), 2);
    }
}

#[test]
fn the_death_of_any_party_of_a_switch_does_not_stop_it() {
    // Who leaves.
    let mut world = World::new();
    for client in [FIRST, SECOND, THIRD] {
        world.seated(client);
    }
    world.session(FIRST, switch(3));
    let effects = world.gone(FIRST);
    assert_eq!(handed_over(&effects), Some(Driver::Session(ClientId(THIRD))), "to whom it was to go");
    // Who follows, while Linux is at it.
    world.gone(THIRD);
    let effects = world.done(&effects);
    assert_eq!(handed_over(&effects), Some(Driver::Session(ClientId(SECOND))));
    assert_eq!(world.done(&effects), [told(SECOND, SessionEvent::Resume)]);
    // Who follows, before the pause: back to who leaves.
    world.seated(THIRD);
    world.session(SECOND, switch(1));
    world.gone(THIRD);
    let effects = world.session(SECOND, SessionRequest::PauseDone);
    assert_eq!(handed_over(&effects), Some(Driver::Session(ClientId(SECOND))));
    // All, while Linux is at it.
    world.gone(SECOND);
    let effects = world.done(&effects);
    assert_eq!(handed_over(&effects), Some(Driver::Nobody));
    assert_eq!(world.done(&effects), []);
    assert_eq!(world.bridge.totals(), Totals::default());
}

#[test]
fn the_compositor_is_paused_for_another_session_and_gets_its_devices_back() {
    let mut world = World::with_compositor();
    world.carried_out(COMPOSITOR, request_input(COMPOSITOR, DEVICE));
    let Answer::DisplayLeased { lease } =
        world.carried_out(COMPOSITOR, Request::LeaseDisplay { connectors: vec![CONNECTOR] })
    else {
        panic!("no lease")
    };
    world.seated(FIRST);
    let effects = world.ask(COMPOSITOR, Request::SwitchSession { session: SessionId(2) });
    assert_eq!(effects[0], revoked(COMPOSITOR));
    assert_eq!(effects[1], notify(COMPOSITOR, Event::Revoked { capability: input(DEVICE) }));
    assert_eq!(effects[2], notify(COMPOSITOR, Event::Paused));
    assert_eq!(handed_over(&effects), Some(Driver::Session(ClientId(FIRST))));
    assert_eq!(effects[4], answer_of(COMPOSITOR, success()));

    assert!(!world.holds(COMPOSITOR, input(DEVICE)));
    assert!(!world.holds(COMPOSITOR, Capability::DisplayControl { connector: CONNECTOR }));
    assert!(world.holds(COMPOSITOR, Capability::Compositor));
    for request in [
        set_mode(CONNECTOR, OTHER_MODE),
        present(CONNECTOR, SurfaceId(1)),
        request_input(COMPOSITOR, DEVICE),
        Request::LeaseDisplay { connectors: vec![CONNECTOR] },
        Request::SwitchSession { session: SessionId(1) },
    ] {
        assert_eq!(world.answer(COMPOSITOR, request), denied(PAUSED));
    }
    assert_eq!(world.done(&effects), [told(FIRST, SessionEvent::Resume)]);
    world.session(FIRST, switch(1));
    let effects = world.session(FIRST, SessionRequest::PauseDone);
    assert_eq!(handed_over(&effects), Some(Driver::Bridge));
    let effects = world.done(&effects);
    assert_eq!(effects[0], notify(COMPOSITOR, Event::Resumed));
    let again = world.done(&effects);
    assert_eq!(again, [notify(COMPOSITOR, Event::Granted { capability: input(DEVICE) })]);
    assert!(world.holds(COMPOSITOR, input(DEVICE)));
    // Its lease is the same.
    assert_eq!(world.answer(COMPOSITOR, Request::EndLease { lease }), success());
}

#[test]
fn an_exclusive_device_comes_back_exclusive_after_a_pause_also_when_paused_again_meanwhile() {
    let mut world = World::with_compositor();
    world.carried_out(COMPOSITOR, request_exclusive(COMPOSITOR, DEVICE));
    world.seated(FIRST);
    for interrupted in [true, false] {
        let effects = world.ask(COMPOSITOR, Request::SwitchSession { session: SessionId(2) });
        if interrupted {
            assert_eq!(effects[0], revoked(COMPOSITOR));
            assert_eq!(
                effects[1],
                notify(COMPOSITOR, Event::Revoked { capability: exclusive_input(DEVICE) })
            );
        }
        world.done(&effects);
        world.session(FIRST, switch(1));
        let effects = world.session(FIRST, SessionRequest::PauseDone);
        let effects = world.done(&effects);
        let is_regrant =
            |effect: &Effect| matches!(effect, Effect::GrantInput { sharing: Sharing::Exclusive, .. });
        assert!(is_regrant(&effects[1]), "{effects:?}");
        if interrupted {
            // Paused once more while it is opened: what comes is taken back, and it is opened anew after that.
            let late = effects;
            let effects = world.ask(COMPOSITOR, Request::SwitchSession { session: SessionId(2) });
            assert_eq!(world.done(&late), [revoked(COMPOSITOR)]);
            world.done(&effects);
            world.session(FIRST, switch(1));
            let effects = world.session(FIRST, SessionRequest::PauseDone);
            let effects = world.done(&effects);
            let again = world.done(&effects);
            assert_eq!(again, [notify(COMPOSITOR, Event::Granted { capability: exclusive_input(DEVICE) })]);
        }
    }
    assert!(!world.holds(COMPOSITOR, exclusive_input(DEVICE)));
}

#[test]
fn what_the_compositor_was_to_get_when_it_was_paused_is_taken_back() {
    let mut world = World::with_compositor();
    let under_way = world.ticket(COMPOSITOR, request_input(COMPOSITOR, DEVICE));
    world.seated(FIRST);
    let effects = world.ask(COMPOSITOR, Request::SwitchSession { session: SessionId(2) });
    assert_eq!(effects[0], answer_of(COMPOSITOR, denied(PAUSED)));
    assert_eq!(world.backend(under_way, Ok(())), [revoked(COMPOSITOR)]);
}

#[test]
fn a_compositor_that_comes_while_a_session_has_the_seat_waits_for_it() {
    let mut world = World::new();
    world.seated(FIRST);
    world.open(COMPOSITOR, Door::Compositor);
    let effects = world.ask(COMPOSITOR, Request::Document(register_compositor(COMPOSITOR)));
    assert_eq!(effects, [notify(COMPOSITOR, Event::Paused), answer_of(COMPOSITOR, success())]);
    assert_eq!(world.answer(COMPOSITOR, set_mode(CONNECTOR, MODE)), denied(PAUSED));
    let effects = world.gone(FIRST);
    assert_eq!(handed_over(&effects), Some(Driver::Bridge));
    assert_eq!(world.done(&effects), [notify(COMPOSITOR, Event::Resumed)]);
    world.carried_out(COMPOSITOR, set_mode(CONNECTOR, OTHER_MODE));
    // And where it ends, the next session has the seat.
    world.seated(SECOND);
    let effects = world.gone(COMPOSITOR);
    assert_eq!(handed_over(&effects), Some(Driver::Session(ClientId(SECOND))));
}

#[test]
fn a_device_that_is_pulled_out_is_dead_for_the_session_that_has_it_open() {
    let mut world = World::new();
    world.seated(FIRST);
    world.opens(FIRST, KEYS);
    let effects: Vec<_> = world.bridge.on_device_removed(DEVICE).collect();
    assert_eq!(effects, [revoked(FIRST)]);
    world.bridge.audit();
    assert_eq!(world.refused(FIRST, open(KEYS)), Some(DenialReason::DeviceNotFound));
    assert_eq!(world.session(FIRST, close(1)), [answered(FIRST, SessionAnswer::DeviceClosed)]);
}

#[test]
fn what_is_opened_too_late_or_for_nobody_is_closed() {
    let mut world = World::new();
    world.seated(FIRST);
    let effects = world.session(FIRST, open(SCREENS));
    let ticket = ticket_of(&effects[0]).unwrap();
    let late = denied(OtherDenial::DeadlinePassed.into());
    assert_eq!(world.expire(), [answer_of(FIRST, late)]);
    assert_eq!(world.refused(FIRST, open(SCREENS)), Some(DenialReason::AlreadyHeld));
    let closed = || Effect::CloseCard { client: ClientId(FIRST), card: CARD };
    assert_eq!(world.backend(ticket, Ok(())), [closed()]);

    let effects = world.session(FIRST, open(SCREENS));
    let ticket = ticket_of(&effects[0]).unwrap();
    world.gone(FIRST);
    assert_eq!(world.backend(ticket, Ok(())), [closed()]);
}

#[test]
fn a_device_that_is_pulled_out_while_a_session_opens_it_is_not_found_and_others_are() {
    let mut world = World::new();
    world.seated(FIRST);
    let keys = world.session(FIRST, open(KEYS));
    let screens = world.session(FIRST, open(SCREENS));
    let effects: Vec<_> = world.bridge.on_device_removed(DEVICE).collect();
    assert_eq!(effects, [answer_of(FIRST, denied(DenialReason::DeviceNotFound))]);
    assert_eq!(world.done(&keys), [revoked(FIRST)]);
    assert_eq!(world.done(&screens), [opened(FIRST, 2, SCREENS)]);
}

#[test]
fn what_the_compositor_asks_for_itself_after_a_pause_is_not_granted_twice() {
    let mut world = World::with_compositor();
    let second = DeviceInfo { id: DeviceId(21), name: "more keys".to_string(), kind: DeviceKind::Keyboard };
    world.bridge.on_device_added(second).unwrap().for_each(drop);
    world.carried_out(COMPOSITOR, request_input(COMPOSITOR, DEVICE));
    world.carried_out(COMPOSITOR, request_input(COMPOSITOR, DeviceId(21)));
    world.seated(FIRST);
    let effects = world.ask(COMPOSITOR, Request::SwitchSession { session: SessionId(2) });
    world.done(&effects);
    world.session(FIRST, switch(1));
    let effects = world.session(FIRST, SessionRequest::PauseDone);
    let first = world.done(&effects);
    // The first is being granted anew, and the compositor asks for the second.
    let asked = world.ticket(COMPOSITOR, request_input(COMPOSITOR, DeviceId(21)));
    assert_eq!(world.done(&first), [notify(COMPOSITOR, Event::Granted { capability: input(DEVICE) })]);
    world.backend(asked, Ok(()));
    assert!(world.holds(COMPOSITOR, input(DeviceId(21))));
}

#[test]
fn a_third_ones_end_leaves_a_switch_where_it_was_to_go() {
    let mut world = World::new();
    for client in [FIRST, SECOND, THIRD] {
        world.seated(client);
    }
    world.opens(FIRST, KEYS);
    assert_eq!(world.bridge.totals().opened_count, 1);
    world.session(FIRST, switch(3));
    assert_eq!(world.gone(SECOND), []);
    let effects = world.session(FIRST, SessionRequest::PauseDone);
    assert_eq!(handed_over(&effects), Some(Driver::Session(ClientId(THIRD))));
}
