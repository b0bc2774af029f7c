//! What is held, who is told, and that nothing stays behind.

use super::*;

#[test]
fn a_surface_goes_to_its_owner_to_write_and_to_the_compositor_to_read() {
    let mut world = World::with_gpu();
    let layout = SMALL.layout().unwrap();
    let (surface, client, config) = (SurfaceId(1), ClientId(APPLICATION), SMALL);
    let asked = world.ask(APPLICATION, create(APPLICATION, SMALL));
    let ticket = ticket_of(&asked[0]).unwrap();
    assert_eq!(asked, [Effect::AllocateSurface { ticket, surface, client, config, layout }]);
    let (stride, bytes, buffer) = (layout.stride, layout.bytes, BufferKind::Memfd);
    assert_eq!(
        world.backend(ticket, Ok(())),
        [
            Effect::ShareSurface { surface, with: client, access: Access::Write },
            answer_of(APPLICATION, Answer::SurfaceCreated { surface, stride, bytes, buffer }),
            Effect::ShareSurface { surface, with: ClientId(COMPOSITOR), access: Access::Read },
            notify(
                COMPOSITOR,
                Event::SurfaceCreated { surface, owner: pid(APPLICATION), config, layout, buffer }
            ),
        ]
    );
    assert_eq!(world.bridge.surface_owner(surface), Some(client));
    let ended = world.ask(APPLICATION, Request::Document(destroy(APPLICATION, surface)));
    assert_eq!(
        ended,
        [
            Effect::FreeSurface { surface },
            notify(COMPOSITOR, Event::SurfaceDestroyed { surface }),
            answer_of(APPLICATION, success()),
        ]
    );
}

#[test]
fn the_compositor_is_not_told_of_its_own_surfaces() {
    let mut world = World::with_gpu();
    let ticket = world.ticket(COMPOSITOR, create(COMPOSITOR, SMALL));
    assert_eq!(world.backend(ticket, Ok(())).len(), 2);
    let ended = world.ask(COMPOSITOR, Request::Document(destroy(COMPOSITOR, SurfaceId(1))));
    assert_eq!(ended, [Effect::FreeSurface { surface: SurfaceId(1) }, answer_of(COMPOSITOR, success())]);
}

#[test]
fn held_is_what_was_granted_and_less_but_not_more() {
    let mut world = World::with_gpu();
    let gpu = |memory_mb, max_surfaces| Capability::GpuRendering { memory_mb, max_surfaces };
    assert!(world.holds(APPLICATION, gpu(256, 16)));
    assert!(world.holds(APPLICATION, gpu(1, 1)));
    assert!(!world.holds(APPLICATION, gpu(257, 16)));
    assert!(!world.holds(APPLICATION, gpu(256, 17)));
    assert!(!world.holds(STRANGER, gpu(0, 0)));

    assert!(world.holds(APPLICATION, Capability::SurfaceManagement));
    assert!(!world.holds(STRANGER, Capability::SurfaceManagement));
    assert!(world.holds(COMPOSITOR, Capability::Compositor));
    assert!(!world.holds(APPLICATION, Capability::Compositor));

    let control = |connector| Capability::DisplayControl { connector };
    assert!(world.holds(COMPOSITOR, control(CONNECTOR)));
    assert!(!world.holds(COMPOSITOR, control(ConnectorId(99))));
    assert!(!world.holds(APPLICATION, control(CONNECTOR)));

    assert!(!world.holds(COMPOSITOR, input(DEVICE)));
    world.carried_out(COMPOSITOR, request_input(COMPOSITOR, DEVICE));
    assert!(world.holds(COMPOSITOR, input(DEVICE)));
    assert!(!world.holds(COMPOSITOR, Capability::InputDevice { device: DEVICE, exclusive: true }));
    assert!(!world.holds(APPLICATION, input(DEVICE)));
}

#[test]
fn anyone_learns_the_device_type_and_itself() {
    let mut world = World::with_gpu();
    world.surface(APPLICATION, SMALL);
    let mobile = Answer::Document(GuiResponse::DeviceType { is_mobile: true });
    assert_eq!(world.document(STRANGER, GuiRequest::QueryDeviceType), mobile);
    let mut describe = |client| match world.answer(client, Request::Describe) {
        Answer::Description(description) => description,
        other => panic!("{other:?}"),
    };
    assert_eq!(describe(STRANGER).role, Role::Stranger);
    assert_eq!(describe(COMPOSITOR).role, Role::Compositor);
    let application = describe(APPLICATION);
    let gpu = application.gpu.unwrap();
    assert_eq!((application.role, gpu.surfaces_count, gpu.charged_bytes), (Role::Application, 1, 4096));
}

#[test]
fn what_the_compositor_asks_for_an_application_is_the_applications() {
    let mut world = World::with_compositor();
    let effects = world.ask(COMPOSITOR, Request::Document(request_gpu(APPLICATION, gpu(8, 2))));
    let capability = Capability::GpuRendering { memory_mb: 8, max_surfaces: 2 };
    assert_eq!(
        effects,
        [notify(APPLICATION, Event::Granted { capability }), answer_of(COMPOSITOR, granted_gpu(8, 2))]
    );
    assert!(world.holds(APPLICATION, capability));
    assert!(!world.holds(COMPOSITOR, capability));
}

#[test]
fn an_application_can_be_registered_before_it_has_a_lane() {
    let mut world = World::with_compositor();
    let effects = world.ask(COMPOSITOR, register(50));
    assert_eq!(effects, [Effect::WatchProcess { client: ClientId(50) }, answer_of(COMPOSITOR, success())]);
    assert_eq!(world.open(50, Door::Public), [notify(50, Event::Registered)]);
    assert_eq!(world.open(50, Door::Public), []);
    assert_eq!(world.document(50, request_gpu(50, gpu(1, 1))), granted_gpu(1, 1));
}

#[test]
fn a_registered_process_that_is_another_gets_nothing() {
    let mut world = World::with_compositor();
    world.answer(COMPOSITOR, Request::RegisterApplication { pid: Pid(7), process: 50 });
    world.document(COMPOSITOR, GuiRequest::RequestGpu { pid: Pid(7), limits: gpu(1, 1) });
    let opened = world.open(50, Door::Public);
    assert_eq!(opened, [notify(COMPOSITOR, Event::ApplicationGone { pid: Pid(7) })]);
    assert_eq!(world.document(50, request_gpu(50, gpu(1, 1))), denied(DenialReason::Unauthorized));
    assert_eq!(world.bridge.totals().reserved_mb, 0);
}

#[test]
fn a_registered_process_that_dies_without_a_lane_is_registered_no_more() {
    let mut world = World::with_compositor();
    world.answer(COMPOSITOR, register(50));
    let ended = world.gone(50);
    assert_eq!(ended, [notify(COMPOSITOR, Event::ApplicationGone { pid: pid(50) })]);
    assert_eq!(world.answer(COMPOSITOR, unregister(50)), denied(DenialReason::Unauthorized));
}

#[test]
fn an_application_that_dies_leaves_nothing() {
    let mut world = World::with_gpu();
    let surface = world.surface(APPLICATION, SMALL);
    let under_way = world.ticket(APPLICATION, create(APPLICATION, MEGABYTE));
    assert_eq!(
        world.gone(APPLICATION),
        [
            Effect::FreeSurface { surface },
            notify(COMPOSITOR, Event::SurfaceDestroyed { surface }),
            notify(COMPOSITOR, Event::ApplicationGone { pid: pid(APPLICATION) }),
        ]
    );
    let totals = world.bridge.totals();
    assert_eq!((totals.applications_count, totals.surfaces_count, totals.charged_bytes), (0, 0, 0));
    assert_eq!(totals.reserved_mb, 256 + 1, "the compositor's, and the buffer under way");
    assert_eq!(world.backend(under_way, Ok(())), [Effect::FreeSurface { surface: SurfaceId(2) }]);
    assert_eq!(world.bridge.totals().reserved_mb, 256);
}

#[test]
fn an_unregistered_application_loses_what_it_held_and_is_told() {
    let mut world = World::with_gpu();
    let surface = world.surface(APPLICATION, SMALL);
    let under_way = world.ticket(APPLICATION, create(APPLICATION, SMALL));
    let capability = Capability::GpuRendering { memory_mb: 256, max_surfaces: 16 };
    assert_eq!(
        world.ask(COMPOSITOR, unregister(APPLICATION)),
        [
            answer_of(APPLICATION, denied(DenialReason::Unauthorized)),
            Effect::FreeSurface { surface },
            notify(COMPOSITOR, Event::SurfaceDestroyed { surface }),
            notify(APPLICATION, Event::Revoked { capability }),
            notify(APPLICATION, Event::Revoked { capability: Capability::SurfaceManagement }),
            notify(APPLICATION, Event::Unregistered),
            answer_of(COMPOSITOR, success()),
        ]
    );
    // Registered again, it starts anew; what comes late of the old is freed and charged to nobody.
    world.answer(COMPOSITOR, register(APPLICATION));
    world.document(APPLICATION, request_gpu(APPLICATION, gpu(1, 1)));
    assert_eq!(world.backend(under_way, Ok(())), [Effect::FreeSurface { surface: SurfaceId(2) }]);
    assert_eq!(world.bridge.totals().charged_bytes, 0);
    world.surface(APPLICATION, MEGABYTE);
}

#[test]
fn the_compositors_death_ends_everything_and_lets_another_come() {
    let mut world = World::with_gpu();
    world.carried_out(COMPOSITOR, request_input(COMPOSITOR, DEVICE));
    world.carried_out(COMPOSITOR, set_mode(CONNECTOR, OTHER_MODE));
    let own = world.surface(COMPOSITOR, SMALL);
    let other = world.surface(APPLICATION, SMALL);
    let capability = Capability::GpuRendering { memory_mb: 256, max_surfaces: 16 };
    assert_eq!(
        world.gone(COMPOSITOR),
        [
            Effect::RevokeInput { client: ClientId(COMPOSITOR), device: DEVICE },
            Effect::RestoreDisplay,
            Effect::FreeSurface { surface: other },
            notify(APPLICATION, Event::Revoked { capability }),
            notify(APPLICATION, Event::Revoked { capability: Capability::SurfaceManagement }),
            notify(APPLICATION, Event::CompositorGone),
            Effect::FreeSurface { surface: own },
        ]
    );
    assert_eq!(world.bridge.totals(), Totals { clients_count: 2, ..Totals::default() });
    assert_eq!(world.bridge.compositor(), None);

    world.open(4, Door::Compositor);
    assert_eq!(world.document(4, register_compositor(4)), success());
    let refused = world.document(APPLICATION, request_gpu(APPLICATION, gpu(1, 1)));
    assert_eq!(refused, denied(DenialReason::Unauthorized));
    assert!(
        matches!(world.answer(4, Request::ListConnectors), Answer::Connectors(list) if list[0].current == Some(MODE))
    );
}

#[test]
fn unregistering_the_compositor_ends_the_same_and_answers_what_waits() {
    let mut world = World::with_gpu();
    world.ticket(COMPOSITOR, set_mode(CONNECTOR, OTHER_MODE));
    world.ticket(APPLICATION, create(APPLICATION, SMALL));
    let gone = denied(OtherDenial::CompositorGone.into());
    let capability = Capability::GpuRendering { memory_mb: 256, max_surfaces: 16 };
    assert_eq!(
        world.ask(COMPOSITOR, Request::Document(unregister_compositor(COMPOSITOR))),
        [
            answer_of(COMPOSITOR, gone.clone()),
            Effect::RestoreDisplay,
            answer_of(APPLICATION, gone),
            notify(APPLICATION, Event::Revoked { capability }),
            notify(APPLICATION, Event::Revoked { capability: Capability::SurfaceManagement }),
            notify(APPLICATION, Event::CompositorGone),
            answer_of(COMPOSITOR, success()),
        ]
    );
    assert_eq!(world.bridge.deadline_ns(), None);
}

#[test]
fn when_all_are_gone_and_the_hardware_has_answered_nothing_is_left() {
    let mut world = World::with_gpu();
    world.surface(COMPOSITOR, SMALL);
    let tickets = [
        world.ticket(APPLICATION, create(APPLICATION, SMALL)),
        world.ticket(COMPOSITOR, set_mode(CONNECTOR, OTHER_MODE)),
        world.ticket(COMPOSITOR, request_input(COMPOSITOR, DEVICE)),
    ];
    for client in [COMPOSITOR, STRANGER, APPLICATION] {
        world.gone(client);
    }
    for ticket in tickets {
        world.backend(ticket, Ok(()));
    }
    assert_eq!(world.bridge.totals(), Totals::default());
}

#[test]
fn effects_that_are_left_come_first_the_next_time() {
    let mut world = World::with_compositor();
    let (client, number) = (ClientId(STRANGER), RequestNumber(STRANGER));
    let question = || Request::Document(GuiRequest::QueryDeviceType);
    assert_eq!(world.bridge.handle(0, client, number, question()).len(), 1);
    assert_eq!(world.bridge.handle(0, client, number, question()).len(), 2);
    assert_eq!(world.bridge.on_client_gone(ClientId(99)).count(), 2);
}
