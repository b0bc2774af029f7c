//! Each denial provoked, and beside it what is allowed.

use super::*;

const UNAUTHORIZED: DenialReason = DenialReason::Unauthorized;
const EXCEEDED: DenialReason = DenialReason::ResourceLimitExceeded;
const NOT_FOUND: DenialReason = DenialReason::DeviceNotFound;
const INVALID: DenialReason = DenialReason::InvalidConfig;
const HELD: DenialReason = DenialReason::AlreadyHeld;

#[test]
fn who_has_no_lane_is_refused_everything() {
    let mut world = World::new();
    assert_eq!(world.document(9, GuiRequest::QueryDeviceType), denied(UNAUTHORIZED));
}

#[test]
fn the_public_door_makes_no_compositor() {
    let mut world = World::new();
    world.open(COMPOSITOR, Door::Public);
    assert_eq!(world.document(COMPOSITOR, register_compositor(COMPOSITOR)), denied(UNAUTHORIZED));
    world.open(COMPOSITOR, Door::Compositor);
    assert_eq!(world.document(COMPOSITOR, register_compositor(COMPOSITOR)), success());
}

#[test]
fn a_compositor_registers_only_itself() {
    let mut world = World::new();
    world.open(COMPOSITOR, Door::Compositor);
    world.open(STRANGER, Door::Compositor);
    assert_eq!(world.document(COMPOSITOR, register_compositor(STRANGER)), denied(UNAUTHORIZED));
}

#[test]
fn there_is_one_compositor() {
    let mut world = World::with_compositor();
    assert_eq!(world.document(STRANGER, register_compositor(STRANGER)), denied(UNAUTHORIZED));
    world.open(STRANGER, Door::Compositor);
    assert_eq!(world.document(STRANGER, register_compositor(STRANGER)), denied(HELD));
    assert_eq!(world.document(COMPOSITOR, register_compositor(COMPOSITOR)), denied(HELD));
}

#[test]
fn only_the_compositor_unregisters_itself() {
    let mut world = World::with_compositor();
    world.open(STRANGER, Door::Compositor);
    for client in [APPLICATION, STRANGER] {
        assert_eq!(world.document(client, unregister_compositor(client)), denied(UNAUTHORIZED));
        assert_eq!(world.document(client, unregister_compositor(COMPOSITOR)), denied(UNAUTHORIZED));
    }
    assert_eq!(world.document(COMPOSITOR, unregister_compositor(APPLICATION)), denied(UNAUTHORIZED));
    assert_eq!(world.document(COMPOSITOR, unregister_compositor(COMPOSITOR)), success());
}

#[test]
fn only_the_compositor_registers_applications() {
    let mut world = World::with_compositor();
    world.open(STRANGER, Door::Compositor);
    assert_eq!(world.answer(STRANGER, register(STRANGER)), denied(UNAUTHORIZED));
    assert_eq!(world.answer(APPLICATION, register(STRANGER)), denied(UNAUTHORIZED));
    assert_eq!(world.answer(APPLICATION, unregister(APPLICATION)), denied(UNAUTHORIZED));
    assert_eq!(world.answer(COMPOSITOR, unregister(STRANGER)), denied(UNAUTHORIZED));
}

#[test]
fn an_application_is_registered_once_and_under_its_own_pid() {
    let mut world = World::with_compositor();
    let under = |pid, process| Request::RegisterApplication { pid, process };
    assert_eq!(world.answer(COMPOSITOR, register(APPLICATION)), denied(HELD));
    assert_eq!(world.answer(COMPOSITOR, under(Pid(7), APPLICATION)), denied(HELD));
    assert_eq!(world.answer(COMPOSITOR, under(pid(APPLICATION), STRANGER)), denied(HELD));
    assert_eq!(world.answer(COMPOSITOR, register(COMPOSITOR)), denied(HELD));
    assert_eq!(world.answer(COMPOSITOR, under(Pid(7), COMPOSITOR)), denied(HELD));
    assert_eq!(world.answer(COMPOSITOR, under(pid(COMPOSITOR), STRANGER)), denied(HELD));
    assert_eq!(world.answer(COMPOSITOR, under(Pid(7), STRANGER)), denied(UNAUTHORIZED));
}

#[test]
fn applications_are_bounded() {
    let mut world = World::with_compositor();
    let room = limits::APPLICATIONS_MAX as u64 - 1;
    for process in 1000..1000 + room {
        assert_eq!(world.answer(COMPOSITOR, register(process)), success());
    }
    assert_eq!(world.answer(COMPOSITOR, register(STRANGER)), denied(EXCEEDED));
    assert_eq!(world.answer(COMPOSITOR, unregister(1000)), success());
    assert_eq!(world.answer(COMPOSITOR, register(STRANGER)), success());
}

#[test]
fn clients_are_bounded_in_all_and_by_user() {
    let mut world = World::new();
    let of_uid = |client: u64, uid| Identity { pid: pid(client), uid };
    for client in 0..limits::CLIENTS_MAX as u64 {
        let uid = client as u32 / limits::CLIENTS_PER_UID_MAX as u32;
        let client = ClientId(client);
        world.bridge.on_lane_opened(client, of_uid(client.0, uid), Door::Public).unwrap().for_each(drop);
        if client.0 == 255 {
            let refused = LaneRefused::TooManyOfUser { uid: 0, clients_max: 256 };
            assert_eq!(world.open_as(9999, of_uid(9999, 0), Door::Public), Err(refused));
        }
    }
    let refused = LaneRefused::TooManyClients { clients_max: 1024 };
    assert_eq!(world.open_as(9999, of_uid(9999, 77), Door::Public), Err(refused));
    assert_eq!(world.open_as(0, of_uid(0, 0), Door::Compositor), Ok(vec![]));
}

#[test]
fn a_client_stays_who_it_is() {
    let mut world = World::with_compositor();
    let is = Identity { pid: pid(APPLICATION), uid: 0 };
    let refused =
        LaneRefused::IdentityChanged { client: ClientId(APPLICATION), was: identity(APPLICATION), is };
    assert_eq!(world.open_as(APPLICATION, is, Door::Compositor), Err(refused));
    assert_eq!(world.document(APPLICATION, register_compositor(APPLICATION)), denied(UNAUTHORIZED));
}

#[test]
fn gpu_is_for_the_compositor_and_its_applications() {
    let mut world = World::with_compositor();
    let default = GpuLimits::default();
    assert_eq!(world.document(STRANGER, request_gpu(STRANGER, default)), denied(UNAUTHORIZED));
    assert_eq!(world.document(STRANGER, request_gpu(APPLICATION, default)), denied(UNAUTHORIZED));
    assert_eq!(world.document(APPLICATION, request_gpu(COMPOSITOR, default)), denied(UNAUTHORIZED));
    assert_eq!(world.document(COMPOSITOR, request_gpu(STRANGER, default)), denied(UNAUTHORIZED));
    assert_eq!(world.document(COMPOSITOR, request_gpu(COMPOSITOR, default)), granted_gpu(256, 16));
    assert_eq!(world.document(APPLICATION, request_gpu(APPLICATION, default)), granted_gpu(256, 16));
}

#[test]
fn gpu_is_held_once() {
    let mut world = World::with_gpu();
    assert_eq!(world.document(APPLICATION, request_gpu(APPLICATION, gpu(1, 1))), denied(HELD));
    assert_eq!(world.document(COMPOSITOR, request_gpu(APPLICATION, gpu(1, 1))), denied(HELD));
}

#[test]
fn gpu_of_nothing_is_no_request() {
    let mut world = World::with_compositor();
    for limits in [gpu(0, 1), gpu(1, 0), gpu(0, 0)] {
        assert_eq!(world.document(APPLICATION, request_gpu(APPLICATION, limits)), denied(INVALID));
    }
}

#[test]
fn gpu_of_one_process_is_bounded() {
    let mut world = World::with_compositor();
    for limits in [gpu(1025, 1), gpu(1, 257), gpu(u32::MAX, u32::MAX)] {
        assert_eq!(world.document(APPLICATION, request_gpu(APPLICATION, limits)), denied(EXCEEDED));
    }
    let most = world.document(APPLICATION, request_gpu(APPLICATION, gpu(1024, 256)));
    assert_eq!(most, granted_gpu(1024, 256));
}

#[test]
fn gpu_memory_of_all_is_bounded() {
    let mut world = World::with_compositor();
    for process in 10..13 {
        world.answer(COMPOSITOR, register(process));
        let granted = world.document(COMPOSITOR, request_gpu(process, gpu(1024, 1)));
        assert_eq!(granted, granted_gpu(1024, 1));
    }
    world.document(COMPOSITOR, request_gpu(COMPOSITOR, gpu(1000, 1)));
    assert_eq!(world.document(APPLICATION, request_gpu(APPLICATION, gpu(25, 1))), denied(EXCEEDED));
    assert_eq!(world.document(APPLICATION, request_gpu(APPLICATION, gpu(24, 1))), granted_gpu(24, 1));
}

#[test]
fn surfaces_of_all_are_bounded_when_they_are_promised() {
    let mut world = World::with_compositor();
    for process in 10..26 {
        world.answer(COMPOSITOR, register(process));
        let granted = world.document(COMPOSITOR, request_gpu(process, gpu(1, 256)));
        assert_eq!(granted, granted_gpu(1, 256));
    }
    assert_eq!(world.document(APPLICATION, request_gpu(APPLICATION, gpu(1, 1))), denied(EXCEEDED));
}

#[test]
fn a_surface_needs_gpu_and_is_for_oneself() {
    let mut world = World::with_compositor();
    assert_eq!(world.answer(APPLICATION, create(APPLICATION, SMALL)), denied(UNAUTHORIZED));
    let mut world = World::with_gpu();
    assert_eq!(world.answer(STRANGER, create(STRANGER, SMALL)), denied(UNAUTHORIZED));
    assert_eq!(world.answer(STRANGER, create(APPLICATION, SMALL)), denied(UNAUTHORIZED));
    assert_eq!(world.answer(COMPOSITOR, create(APPLICATION, SMALL)), denied(UNAUTHORIZED));
    assert_eq!(world.answer(APPLICATION, create(COMPOSITOR, SMALL)), denied(UNAUTHORIZED));
}

#[test]
fn a_senseless_surface_is_refused() {
    let mut world = World::with_gpu();
    for config in [
        SurfaceConfig { width: 0, ..SMALL },
        SurfaceConfig { height: 16_385, ..SMALL },
        SurfaceConfig { format: PixelFormat(1), ..SMALL },
        SurfaceConfig { stride: Some(63), ..SMALL },
        SurfaceConfig { width: u32::MAX, height: u32::MAX, stride: Some(u32::MAX), ..SMALL },
    ] {
        assert_eq!(world.answer(APPLICATION, create(APPLICATION, config)), denied(INVALID));
    }
}

#[test]
fn surfaces_are_counted_while_they_are_made_and_after() {
    let mut world = World::with_compositor();
    world.document(APPLICATION, request_gpu(APPLICATION, gpu(256, 2)));
    let first = world.surface(APPLICATION, SMALL);
    let ticket = world.ticket(APPLICATION, create(APPLICATION, SMALL));
    assert_eq!(world.answer(APPLICATION, create(APPLICATION, SMALL)), denied(EXCEEDED));
    world.backend(ticket, Ok(()));
    assert_eq!(world.answer(APPLICATION, create(APPLICATION, SMALL)), denied(EXCEEDED));
    assert_eq!(world.document(APPLICATION, destroy(APPLICATION, first)), success());
    world.surface(APPLICATION, SMALL);
}

#[test]
fn buffers_are_charged_to_the_last_byte() {
    let mut world = World::with_compositor();
    world.document(APPLICATION, request_gpu(APPLICATION, gpu(2, 16)));
    let first = world.surface(APPLICATION, MEGABYTE);
    world.surface(APPLICATION, MEGABYTE);
    assert_eq!(world.bridge.totals().charged_bytes, 2 << 20);
    assert_eq!(world.answer(APPLICATION, create(APPLICATION, SMALL)), denied(EXCEEDED));
    world.document(APPLICATION, destroy(APPLICATION, first));
    world.surface(APPLICATION, MEGABYTE);
}

#[test]
fn requests_that_wait_are_bounded_by_client() {
    let mut world = World::with_gpu();
    for _ in 0..limits::PENDING_PER_CLIENT_MAX {
        world.ticket(APPLICATION, create(APPLICATION, SMALL));
    }
    assert_eq!(world.answer(APPLICATION, create(APPLICATION, SMALL)), denied(EXCEEDED));
    let surface = world.surface(COMPOSITOR, SMALL);
    for _ in 0..limits::PENDING_PER_CLIENT_MAX {
        world.ticket(COMPOSITOR, set_mode(CONNECTOR, MODE));
    }
    assert_eq!(world.answer(COMPOSITOR, set_mode(CONNECTOR, MODE)), denied(EXCEEDED));
    assert_eq!(world.answer(COMPOSITOR, present(CONNECTOR, surface)), denied(EXCEEDED));
    assert_eq!(world.answer(COMPOSITOR, request_input(COMPOSITOR, DEVICE)), denied(EXCEEDED));
}

#[test]
fn requests_that_wait_are_bounded_in_all_though_their_askers_are_gone() {
    let mut world = World::with_gpu();
    let gone_count = limits::PENDING_MAX / limits::PENDING_PER_CLIENT_MAX;
    for client in 1000..1000 + gone_count as u64 {
        world.bridge.on_lane_opened(ClientId(client), identity(client), Door::Public).unwrap().for_each(drop);
        let requests = [register(client), Request::Document(request_gpu(client, gpu(1, 8)))];
        for request in requests {
            world.bridge.handle(0, ClientId(COMPOSITOR), RequestNumber(0), request).for_each(drop);
        }
        for _ in 0..limits::PENDING_PER_CLIENT_MAX {
            let request = create(client, SMALL);
            world.bridge.handle(0, ClientId(client), RequestNumber(0), request).for_each(drop);
        }
        world.bridge.on_client_gone(ClientId(client)).for_each(drop);
    }
    assert_eq!(world.bridge.totals().pending_count, limits::PENDING_MAX);
    let refused =
        world.bridge.handle(0, ClientId(APPLICATION), RequestNumber(APPLICATION), create(APPLICATION, SMALL));
    assert_eq!(refused.collect::<Vec<_>>(), [answer_of(APPLICATION, denied(EXCEEDED))]);
}

#[test]
fn only_ones_own_surface_is_destroyed() {
    let mut world = World::with_gpu();
    let surface = world.surface(APPLICATION, SMALL);
    let own = world.surface(COMPOSITOR, SMALL);
    assert_eq!(world.document(COMPOSITOR, destroy(COMPOSITOR, surface)), denied(UNAUTHORIZED));
    assert_eq!(world.document(COMPOSITOR, destroy(APPLICATION, surface)), denied(UNAUTHORIZED));
    assert_eq!(world.document(APPLICATION, destroy(APPLICATION, own)), denied(UNAUTHORIZED));
    assert_eq!(world.document(STRANGER, destroy(APPLICATION, surface)), denied(UNAUTHORIZED));
    assert_eq!(world.document(APPLICATION, destroy(STRANGER, surface)), denied(UNAUTHORIZED));
    assert_eq!(world.document(APPLICATION, destroy(COMPOSITOR, surface)), denied(UNAUTHORIZED));
    assert_eq!(world.document(APPLICATION, destroy(APPLICATION, SurfaceId(99))), denied(NOT_FOUND));
    assert_eq!(world.document(APPLICATION, destroy(APPLICATION, surface)), success());
    assert_eq!(world.document(APPLICATION, destroy(APPLICATION, surface)), denied(NOT_FOUND));
}

#[test]
fn a_surface_that_is_being_made_is_not_found() {
    let mut world = World::with_gpu();
    world.ticket(APPLICATION, create(APPLICATION, SMALL));
    let guessed = SurfaceId(1);
    assert_eq!(world.document(APPLICATION, destroy(APPLICATION, guessed)), denied(NOT_FOUND));
    assert_eq!(world.answer(COMPOSITOR, present(CONNECTOR, guessed)), denied(NOT_FOUND));
    assert_eq!(world.bridge.surface_owner(guessed), None);
}

#[test]
fn only_the_compositor_reads_input() {
    let mut world = World::with_compositor();
    for client in [APPLICATION, STRANGER] {
        for request in [request_input, request_exclusive] {
            assert_eq!(world.answer(client, request(client, DEVICE)), denied(UNAUTHORIZED));
            assert_eq!(world.answer(client, request(COMPOSITOR, DEVICE)), denied(UNAUTHORIZED));
        }
    }
    for request in [request_input, request_exclusive] {
        assert_eq!(world.answer(COMPOSITOR, request(APPLICATION, DEVICE)), denied(UNAUTHORIZED));
        assert_eq!(world.answer(COMPOSITOR, request(COMPOSITOR, DeviceId(99))), denied(NOT_FOUND));
    }
}

#[test]
fn an_input_device_is_granted_once() {
    let mut world = World::with_compositor();
    let both = [request_input, request_exclusive];
    for granted in both {
        let ticket = world.ticket(COMPOSITOR, granted(COMPOSITOR, DEVICE));
        for request in both {
            assert_eq!(world.answer(COMPOSITOR, request(COMPOSITOR, DEVICE)), denied(HELD));
        }
        world.backend(ticket, Ok(()));
        for request in both {
            assert_eq!(world.answer(COMPOSITOR, request(COMPOSITOR, DEVICE)), denied(HELD));
        }
        world.document(COMPOSITOR, unregister_compositor(COMPOSITOR));
        world.document(COMPOSITOR, register_compositor(COMPOSITOR));
    }
}

#[test]
fn an_input_device_that_another_process_has_for_itself_is_held() {
    let mut world = World::with_compositor();
    let ticket = world.ticket(COMPOSITOR, request_exclusive(COMPOSITOR, DEVICE));
    let effects = world.bridge.on_backend(ticket, Err(BackendFailure::HeldElsewhere)).collect();
    assert_eq!(world.noted(effects), [answer_of(COMPOSITOR, denied(HELD))]);
    world.bridge.audit();
    assert!(!world.holds(COMPOSITOR, input(DEVICE)));
    world.carried_out(COMPOSITOR, request_exclusive(COMPOSITOR, DEVICE));
}

#[test]
fn only_the_compositor_sets_the_mode() {
    let mut world = World::with_compositor();
    for client in [APPLICATION, STRANGER] {
        assert_eq!(world.answer(client, set_mode(CONNECTOR, MODE)), denied(UNAUTHORIZED));
    }
    assert_eq!(world.answer(COMPOSITOR, set_mode(ConnectorId(99), MODE)), denied(NOT_FOUND));
    let lacking = DisplayMode { refresh_mhz: 59_000, ..MODE };
    assert_eq!(world.answer(COMPOSITOR, set_mode(CONNECTOR, lacking)), denied(INVALID));
}

#[test]
fn only_the_compositor_presents() {
    let mut world = World::with_gpu();
    let surface = world.surface(APPLICATION, SMALL);
    for client in [APPLICATION, STRANGER] {
        assert_eq!(world.answer(client, present(CONNECTOR, surface)), denied(UNAUTHORIZED));
    }
    assert_eq!(world.answer(COMPOSITOR, present(ConnectorId(99), surface)), denied(NOT_FOUND));
    assert_eq!(world.answer(COMPOSITOR, present(CONNECTOR, SurfaceId(99))), denied(NOT_FOUND));
    assert_eq!(world.carried_out(COMPOSITOR, present(CONNECTOR, surface)), success());
}

#[test]
fn what_has_changed_is_a_part_of_the_surface() {
    let mut world = World::with_gpu();
    let surface = world.surface(APPLICATION, SMALL);
    let of = |damage| Request::PresentSurface { connector: CONNECTOR, surface, damage };
    let part = |x, width| Rectangle { x, y: 15, width, height: 1 };
    for damage in
        [vec![part(0, 17)], vec![part(0, 1), part(16, 1)], vec![part(0, 0)], vec![part(u32::MAX, 2)]]
    {
        assert_eq!(world.answer(COMPOSITOR, of(damage)), denied(INVALID));
    }
    let too_many = vec![part(0, 1); limits::DAMAGE_MAX + 1];
    assert_eq!(world.answer(COMPOSITOR, of(too_many)), denied(INVALID));
    let most = vec![part(0, 16); limits::DAMAGE_MAX];
    let effects = world.ask(COMPOSITOR, of(most.clone()));
    assert!(matches!(&effects[..], [Effect::Present { damage, .. }] if *damage == most), "{effects:?}");
}

#[test]
fn only_the_compositor_sees_the_lists() {
    let mut world = World::with_compositor();
    for client in [APPLICATION, STRANGER] {
        assert_eq!(world.answer(client, Request::ListConnectors), denied(UNAUTHORIZED));
        assert_eq!(world.answer(client, Request::ListDevices), denied(UNAUTHORIZED));
    }
    assert!(
        matches!(world.answer(COMPOSITOR, Request::ListConnectors), Answer::Connectors(list) if list.len() == 1)
    );
    assert!(
        matches!(world.answer(COMPOSITOR, Request::ListDevices), Answer::Devices(list) if list.len() == 1)
    );
}

#[test]
fn one_asks_what_oneself_holds_and_the_compositor_what_its_applications_hold() {
    let mut world = World::with_compositor();
    let ask = |about| GuiRequest::HasCapability { pid: pid(about), capability: Capability::Compositor };
    let no = Answer::Document(GuiResponse::HasCapabilityResult { has_capability: false });
    assert_eq!(world.document(STRANGER, ask(STRANGER)), no);
    assert_eq!(world.document(COMPOSITOR, ask(APPLICATION)), no);
    assert_eq!(world.document(COMPOSITOR, ask(STRANGER)), denied(UNAUTHORIZED));
    assert_eq!(world.document(APPLICATION, ask(COMPOSITOR)), denied(UNAUTHORIZED));
    assert_eq!(world.document(STRANGER, ask(APPLICATION)), denied(UNAUTHORIZED));
}

#[test]
fn facts_are_bounded_and_named_once() {
    let device = |id| DeviceInfo { id: DeviceId(id), name: "d".to_string(), kind: DeviceKind::Pointer };
    let connector =
        |id| ConnectorInfo { id: ConnectorId(id), name: "c".to_string(), modes: vec![], current: None };
    let refused = |facts| Bridge::new(facts).err().inspect(|refused| keyway_provoked::note(refused, ""));

    let facts = Facts { connectors: (0..9).map(connector).collect(), ..Facts::default() };
    assert_eq!(refused(facts), Some(FactsRefused::TooManyConnectors { connectors_max: 8 }));
    let facts = Facts { devices: (0..65).map(device).collect(), ..Facts::default() };
    assert_eq!(refused(facts), Some(FactsRefused::TooManyDevices { devices_max: 64 }));
    let facts = Facts { cards: (0..9).map(CardId).collect(), ..Facts::default() };
    assert_eq!(refused(facts), Some(FactsRefused::TooManyCards { cards_max: 8 }));
    let facts = Facts { connectors: vec![connector(1), connector(1)], ..Facts::default() };
    assert_eq!(refused(facts), Some(FactsRefused::ConnectorTwice { connector: ConnectorId(1) }));
    let facts = Facts { devices: vec![device(1), device(1)], ..Facts::default() };
    assert_eq!(refused(facts), Some(FactsRefused::DeviceTwice { device: DeviceId(1) }));

    let connectors = (0..8).map(connector).collect();
    let full = Facts { connectors, devices: (0..64).map(device).collect(), ..Facts::default() };
    let mut bridge = Bridge::new(full).unwrap();
    let too_many = FactsRefused::TooManyConnectors { connectors_max: 8 };
    assert_eq!(bridge.on_connector_changed(connector(8)).err(), Some(too_many));
    let too_many = FactsRefused::TooManyDevices { devices_max: 64 };
    assert_eq!(bridge.on_device_added(device(64)).err(), Some(too_many));
    assert_eq!(
        bridge.on_device_added(device(1)).err(),
        Some(FactsRefused::DeviceTwice { device: DeviceId(1) })
    );
    bridge.audit();
}
