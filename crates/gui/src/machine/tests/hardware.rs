//! What the hardware answers, refuses, answers late, and what comes and goes of it.

use super::*;

fn late() -> Answer {
    denied(OtherDenial::DeadlinePassed.into())
}

fn error(message: &str) -> Answer {
    Answer::Document(GuiResponse::Error { message: message.to_string() })
}

#[test]
fn a_mode_that_was_set_is_the_current_one() {
    let mut world = World::with_compositor();
    let ticket = world.ticket(COMPOSITOR, set_mode(CONNECTOR, OTHER_MODE));
    assert_eq!(world.backend(ticket, Ok(())), [answer_of(COMPOSITOR, success())]);
    assert!(matches!(
        world.answer(COMPOSITOR, Request::ListConnectors),
        Answer::Connectors(list) if list[0].current == Some(OTHER_MODE)
    ));
}

#[test]
fn what_the_hardware_refuses_is_an_error_and_leaves_nothing() {
    let mut world = World::with_gpu();
    let surface = world.surface(COMPOSITOR, SMALL);
    let before = world.bridge.totals();
    for request in [
        set_mode(CONNECTOR, OTHER_MODE),
        present(CONNECTOR, surface),
        create(COMPOSITOR, MEGABYTE),
        request_input(COMPOSITOR, DEVICE),
    ] {
        let ticket = world.ticket(COMPOSITOR, request);
        assert_eq!(world.backend(ticket, Err("no")), [answer_of(COMPOSITOR, error("no"))]);
        assert_eq!(world.bridge.totals(), before);
    }
    assert!(!world.holds(COMPOSITOR, input(DEVICE)));
    assert!(matches!(
        world.answer(COMPOSITOR, Request::ListConnectors),
        Answer::Connectors(list) if list[0].current == Some(MODE)
    ));
}

#[test]
fn the_text_of_a_refusal_is_cut_to_its_bound() {
    let mut world = World::with_compositor();
    let ticket = world.ticket(COMPOSITOR, set_mode(CONNECTOR, MODE));
    let effects = world.backend(ticket, Err(&"x".repeat(10_000)));
    assert_eq!(effects, [answer_of(COMPOSITOR, error(&"x".repeat(limits::TEXT_BYTES_MAX)))]);
}

#[test]
fn a_ticket_is_answered_once_and_an_unknown_one_is_ignored() {
    let mut world = World::with_compositor();
    let ticket = world.ticket(COMPOSITOR, request_input(COMPOSITOR, DEVICE));
    assert_eq!(world.backend(Ticket(99), Ok(())), []);
    assert_eq!(world.backend(ticket, Ok(())).len(), 1);
    assert_eq!(world.backend(ticket, Ok(())), []);
    assert_eq!(world.backend(ticket, Err("no")), []);
}

#[test]
fn every_request_that_waits_has_a_deadline() {
    let mut world = World::with_gpu();
    assert_eq!(world.bridge.deadline_ns(), None);
    let surface = world.surface(COMPOSITOR, SMALL);
    let tickets = [
        set_mode(CONNECTOR, OTHER_MODE),
        present(CONNECTOR, surface),
        create(COMPOSITOR, SMALL),
        request_input(COMPOSITOR, DEVICE),
    ]
    .map(|request| world.ticket(COMPOSITOR, request));
    assert_eq!(world.bridge.deadline_ns(), Some(limits::PENDING_TIMEOUT_NS));
    assert!(world.bridge.poll_expired(limits::PENDING_TIMEOUT_NS - 1).is_none());
    assert_eq!(world.expire(), vec![answer_of(COMPOSITOR, late()); 4]);
    assert_eq!(world.bridge.deadline_ns(), None);
    assert_eq!(world.expire(), []);

    // What comes late is told or undone.
    let changed = |current| notify(COMPOSITOR, Event::DisplayChanged { connector: CONNECTOR, current });
    assert_eq!(world.backend(tickets[0], Ok(())), [changed(Some(OTHER_MODE))]);
    assert_eq!(world.backend(tickets[1], Ok(())), [changed(Some(OTHER_MODE))]);
    assert_eq!(world.backend(tickets[2], Ok(())), [Effect::FreeSurface { surface: SurfaceId(2) }]);
    let revoke = Effect::RevokeInput { client: ClientId(COMPOSITOR), device: DEVICE };
    assert_eq!(world.backend(tickets[3], Ok(())), [revoke]);
    assert!(!world.holds(COMPOSITOR, input(DEVICE)));
    assert_eq!(world.bridge.totals().surfaces_count, 1);
}

#[test]
fn a_late_refusal_undoes_nothing() {
    let mut world = World::with_gpu();
    let requests = [set_mode(CONNECTOR, MODE), create(COMPOSITOR, SMALL), request_input(COMPOSITOR, DEVICE)];
    let tickets = requests.map(|request| world.ticket(COMPOSITOR, request));
    world.expire();
    for ticket in tickets {
        assert_eq!(world.backend(ticket, Err("no")), []);
    }
    assert_eq!(world.bridge.totals().charged_bytes, 0);
}

#[test]
fn a_buffer_that_is_overdue_stays_charged_until_the_hardware_answers() {
    let mut world = World::with_compositor();
    world.document(APPLICATION, request_gpu(APPLICATION, gpu(1, 16)));
    let ticket = world.ticket(APPLICATION, create(APPLICATION, MEGABYTE));
    world.expire();
    let refused = world.answer(APPLICATION, create(APPLICATION, SMALL));
    assert_eq!(refused, denied(DenialReason::ResourceLimitExceeded));
    world.backend(ticket, Ok(()));
    world.surface(APPLICATION, SMALL);
}

#[test]
fn an_input_device_that_is_overdue_is_not_granted_twice() {
    let mut world = World::with_compositor();
    let ticket = world.ticket(COMPOSITOR, request_input(COMPOSITOR, DEVICE));
    world.expire();
    let refused = world.answer(COMPOSITOR, request_input(COMPOSITOR, DEVICE));
    assert_eq!(refused, denied(DenialReason::AlreadyHeld));
    world.backend(ticket, Ok(()));
    world.carried_out(COMPOSITOR, request_input(COMPOSITOR, DEVICE));
}

#[test]
fn what_comes_after_the_compositors_death_is_undone() {
    let mut world = World::with_gpu();
    let surface = world.surface(COMPOSITOR, SMALL);
    let tickets = [
        set_mode(CONNECTOR, OTHER_MODE),
        present(CONNECTOR, surface),
        create(COMPOSITOR, SMALL),
        request_input(COMPOSITOR, DEVICE),
    ]
    .map(|request| world.ticket(COMPOSITOR, request));
    world.gone(COMPOSITOR);
    assert_eq!(world.expire(), []);
    assert_eq!(world.backend(tickets[0], Ok(())), [Effect::RestoreDisplay]);
    assert_eq!(world.backend(tickets[1], Ok(())), [Effect::RestoreDisplay]);
    assert_eq!(world.backend(tickets[2], Ok(())), [Effect::FreeSurface { surface: SurfaceId(2) }]);
    let revoke = Effect::RevokeInput { client: ClientId(COMPOSITOR), device: DEVICE };
    assert_eq!(world.backend(tickets[3], Ok(())), [revoke]);
}

#[test]
fn the_next_compositor_is_told_what_the_last_one_changed_late() {
    let mut world = World::with_compositor();
    let ticket = world.ticket(COMPOSITOR, set_mode(CONNECTOR, OTHER_MODE));
    world.gone(COMPOSITOR);
    world.open(4, Door::Compositor);
    world.document(4, register_compositor(4));
    let changed = Event::DisplayChanged { connector: CONNECTOR, current: Some(OTHER_MODE) };
    assert_eq!(world.backend(ticket, Ok(())), [notify(4, changed)]);
    assert_eq!(world.gone(4), [Effect::RestoreDisplay]);
}

#[test]
fn a_device_that_is_pulled_out_is_revoked() {
    for (request, capability) in [
        (request_input(COMPOSITOR, DEVICE), input(DEVICE)),
        (request_exclusive(COMPOSITOR, DEVICE), exclusive_input(DEVICE)),
    ] {
        let mut world = World::with_compositor();
        world.carried_out(COMPOSITOR, request);
        let effects: Vec<_> = world.bridge.on_device_removed(DEVICE).collect();
        assert_eq!(
            effects,
            [
                Effect::RevokeInput { client: ClientId(COMPOSITOR), device: DEVICE },
                notify(COMPOSITOR, Event::Revoked { capability }),
                notify(COMPOSITOR, Event::DeviceRemoved { device: DEVICE }),
            ]
        );
        world.bridge.audit();
        assert!(!world.holds(COMPOSITOR, input(DEVICE)));
        assert_eq!(world.bridge.on_device_removed(DEVICE).count(), 0);
    }
}

#[test]
fn an_input_device_is_granted_as_it_was_asked_for() {
    let as_asked = [
        (request_input(COMPOSITOR, DEVICE), Sharing::Shared, input(DEVICE)),
        (request_exclusive(COMPOSITOR, DEVICE), Sharing::Exclusive, exclusive_input(DEVICE)),
    ];
    for (request, sharing, capability) in as_asked {
        let mut world = World::with_compositor();
        let effects = world.ask(COMPOSITOR, request);
        let [Effect::GrantInput { ticket, sharing: asked, .. }] = effects[..] else { panic!("{effects:?}") };
        assert_eq!(asked, sharing);
        let granted = GuiResponse::Granted { capability };
        assert_eq!(world.backend(ticket, Ok(())), [answer_of(COMPOSITOR, granted.into())]);
        // Whoever has it for itself may read it, which is all that a shared one allows.
        assert!(world.holds(COMPOSITOR, input(DEVICE)));
        assert_eq!(world.holds(COMPOSITOR, exclusive_input(DEVICE)), sharing == Sharing::Exclusive);
        assert!(!world.holds(APPLICATION, exclusive_input(DEVICE)));
    }
}

#[test]
fn a_device_that_is_pulled_out_while_it_is_opened_is_not_found_and_undone() {
    let mut world = World::with_compositor();
    let ticket = world.ticket(COMPOSITOR, request_input(COMPOSITOR, DEVICE));
    let effects: Vec<_> = world.bridge.on_device_removed(DEVICE).collect();
    assert_eq!(effects[0], answer_of(COMPOSITOR, denied(DenialReason::DeviceNotFound)));
    let revoke = Effect::RevokeInput { client: ClientId(COMPOSITOR), device: DEVICE };
    assert_eq!(world.backend(ticket, Ok(())), [revoke]);
}

#[test]
fn a_device_that_is_plugged_in_is_told_and_can_be_had() {
    let mut world = World::with_compositor();
    let device = DeviceInfo { id: DeviceId(21), name: "mouse".to_string(), kind: DeviceKind::Pointer };
    let effects: Vec<_> = world.bridge.on_device_added(device.clone()).unwrap().collect();
    assert_eq!(effects, [notify(COMPOSITOR, Event::DeviceAdded(device))]);
    world.carried_out(COMPOSITOR, request_input(COMPOSITOR, DeviceId(21)));
}

#[test]
fn a_connector_that_changes_is_told_and_the_first_picture_remembered() {
    let mut world = World::with_compositor();
    world.carried_out(COMPOSITOR, set_mode(CONNECTOR, OTHER_MODE));
    let modes = vec![MODE, OTHER_MODE];
    let info = ConnectorInfo { id: CONNECTOR, name: "new".to_string(), modes, current: Some(OTHER_MODE) };
    let effects: Vec<_> = world.bridge.on_connector_changed(info.clone()).unwrap().collect();
    assert_eq!(effects, [notify(COMPOSITOR, Event::ConnectorChanged(info))]);
    world.gone(COMPOSITOR);
    assert_eq!(world.bridge.connectors[&CONNECTOR].info.current, Some(MODE));
}

#[test]
fn a_connector_that_is_gone_ends_what_waits_for_it() {
    let mut world = World::with_compositor();
    let ticket = world.ticket(COMPOSITOR, set_mode(CONNECTOR, OTHER_MODE));
    let effects: Vec<_> = world.bridge.on_connector_removed(CONNECTOR).collect();
    assert_eq!(
        effects,
        [
            answer_of(COMPOSITOR, denied(DenialReason::DeviceNotFound)),
            notify(COMPOSITOR, Event::ConnectorRemoved { connector: CONNECTOR }),
        ]
    );
    assert_eq!(world.backend(ticket, Ok(())), []);
}

#[test]
fn a_change_of_the_device_type_is_told() {
    let mut world = World::with_compositor();
    let docked = DeviceType { is_mobile: false, reasons: vec![] };
    let effects: Vec<_> = world.bridge.on_device_type(docked.clone()).collect();
    assert_eq!(effects, [notify(COMPOSITOR, Event::DeviceTypeChanged { is_mobile: false })]);
    assert_eq!(world.bridge.on_device_type(docked).count(), 0);
    let desktop = Answer::Document(GuiResponse::DeviceType { is_mobile: false });
    assert_eq!(world.document(STRANGER, GuiRequest::QueryDeviceType), desktop);
}

fn lease(connectors: &[ConnectorId]) -> Request {
    Request::LeaseDisplay { connectors: connectors.to_vec() }
}

/// A compositor with a lease of the connector.
fn with_lease() -> (World, LeaseId) {
    let mut world = World::with_gpu();
    let effects = world.ask(COMPOSITOR, lease(&[CONNECTOR]));
    let [Effect::LeaseDisplay { ticket, lease, ref connectors }] = effects[..] else { panic!("{effects:?}") };
    assert_eq!(connectors[..], [CONNECTOR]);
    let answer = Answer::DisplayLeased { lease };
    assert_eq!(world.backend(ticket, Ok(())), [answer_of(COMPOSITOR, answer)]);
    (world, lease)
}

#[test]
fn a_leased_connector_is_its_holders_alone_until_the_lease_ends() {
    let (mut world, leased) = with_lease();
    let surface = world.surface(COMPOSITOR, SMALL);
    let held = denied(DenialReason::AlreadyHeld);
    for request in [set_mode(CONNECTOR, OTHER_MODE), present(CONNECTOR, surface), lease(&[CONNECTOR])] {
        assert_eq!(world.answer(COMPOSITOR, request), held);
    }
    let effects = world.ask(COMPOSITOR, Request::EndLease { lease: leased });
    assert_eq!(effects, [Effect::EndLease { lease: leased }, answer_of(COMPOSITOR, success())]);
    let again = world.answer(COMPOSITOR, Request::EndLease { lease: leased });
    assert_eq!(again, denied(DenialReason::DeviceNotFound));
    let ticket = world.ticket(COMPOSITOR, set_mode(CONNECTOR, OTHER_MODE));
    world.backend(ticket, Ok(()));
}

#[test]
fn a_lease_is_of_some_connectors_that_are_there_each_once_and_for_the_compositor() {
    let mut world = World::with_compositor();
    for client in [APPLICATION, STRANGER] {
        assert_eq!(world.answer(client, lease(&[CONNECTOR])), denied(DenialReason::Unauthorized));
        let end = Request::EndLease { lease: LeaseId(1) };
        assert_eq!(world.answer(client, end), denied(DenialReason::Unauthorized));
    }
    for senseless in [&[][..], &[CONNECTOR, CONNECTOR]] {
        assert_eq!(world.answer(COMPOSITOR, lease(senseless)), denied(DenialReason::InvalidConfig));
    }
    let unknown = lease(&[CONNECTOR, ConnectorId(99)]);
    assert_eq!(world.answer(COMPOSITOR, unknown), denied(DenialReason::DeviceNotFound));
}

#[test]
fn a_lease_ends_with_the_compositor_and_before_the_display_is_given_back() {
    let (mut world, lease) = with_lease();
    let effects = world.gone(COMPOSITOR);
    let at = |wanted: &Effect| effects.iter().position(|effect| effect == wanted);
    let (ended, restored) = (at(&Effect::EndLease { lease }), at(&Effect::RestoreDisplay));
    assert!(ended.is_some() && ended < restored, "{effects:?}");
}

#[test]
fn a_lease_that_is_late_or_that_nobody_waits_for_is_ended_and_its_connector_taken_until_then() {
    let mut world = World::with_compositor();
    let ticket = world.ticket(COMPOSITOR, lease(&[CONNECTOR]));
    assert_eq!(world.expire(), [answer_of(COMPOSITOR, late())]);
    assert_eq!(world.answer(COMPOSITOR, lease(&[CONNECTOR])), denied(DenialReason::AlreadyHeld));
    assert_eq!(world.backend(ticket, Ok(())), [Effect::EndLease { lease: LeaseId(1) }]);
    let ticket = world.ticket(COMPOSITOR, lease(&[CONNECTOR]));
    world.gone(COMPOSITOR);
    assert_eq!(world.backend(ticket, Ok(())), [Effect::EndLease { lease: LeaseId(2) }]);
    assert_eq!(world.bridge.totals().leases_count, 0);
}
