//! What begins and ends with whom: the compositor, its applications, their surfaces.

use std::{thread, time::Duration};

use keyway::{
    Audience, Carried, Denial, Outgoing, QueueOptions, Rights,
    bridge::{
        Answer, Bridge, BridgeEvent, Capability, ConnectorId, DenialReason, Event, GpuLimits, GuiRequest,
        GuiResponse, Pid, PixelFormat, Request, Role, SurfaceConfig,
    },
};

use crate::{
    application::Application,
    compositor::{await_end, keyboard},
    picture::config,
    stage::{PATIENCE, Stage, eventually, next_event, next_surface},
};

const LIMITS: GpuLimits = GpuLimits { memory_mb: 1, max_surfaces: 4 };
const HELD: Capability = Capability::GpuRendering { memory_mb: 1, max_surfaces: 4 };

fn small() -> SurfaceConfig {
    config(8, 8, PixelFormat::XRGB8888)
}

#[test]
fn the_keyboard_ends_when_the_compositor_unregisters_and_can_be_taken_again() {
    let stage = Stage::begin();
    let (_client, mut bridge) = stage.compositor();
    let device = keyboard(&mut bridge);
    let mut input = bridge.request_input_device(device).unwrap();
    bridge.unregister_compositor().unwrap();
    await_end(&mut input);
    assert_eq!(bridge.devices().unwrap_err().denial_reason(), Some(DenialReason::Unauthorized));
    let (_other_client, mut other) = stage.compositor();
    let mut again = other.request_input_device(device).unwrap();
    assert!(again.read_events(Duration::from_millis(20)).unwrap().is_empty());
    assert!(!again.has_ended());
}

#[test]
fn everything_ends_with_the_compositors_session_and_another_can_register() {
    let stage = Stage::begin();
    let (client, mut bridge) = stage.compositor();
    let device = keyboard(&mut bridge);
    let mut input = bridge.request_input_device(device).unwrap();
    drop((bridge, client));
    await_end(&mut input);
    let (_client, mut next) = stage.next_compositor();
    let input = next.request_input_device(device).unwrap();
    assert!(!input.has_ended());
}

#[test]
fn a_compositor_that_closes_its_lanes_is_one_no_longer() {
    let stage = Stage::begin();
    let (client, mut bridge) = stage.compositor();
    let device = keyboard(&mut bridge);
    let mut input = bridge.request_input_device(device).unwrap();
    drop(bridge);
    await_end(&mut input);
    drop(stage.next_compositor());
    // The session itself goes on.
    let mut bridge = Bridge::connect(&client).unwrap();
    assert_eq!(bridge.describe().unwrap().role, Role::Stranger);
}

#[test]
fn modes_and_pictures_are_as_at_the_beginning_for_the_next_compositor() {
    let stage = Stage::begin();
    let (_client, mut bridge) = stage.compositor();
    bridge.request_gpu(GpuLimits::default()).unwrap();
    let before = bridge.connectors().unwrap();
    for connector in &before {
        let last = *connector.modes.last().unwrap();
        assert_ne!(connector.current, Some(last));
        bridge.set_display_mode(connector.id, last).unwrap();
        let surface = bridge.create_surface(small()).unwrap();
        surface.write(0, &[255; 16]).unwrap();
        bridge.present_surface(connector.id, surface.id(), &[]).unwrap();
        assert_eq!(stage.picture(connector.id).lit_count(), 4);
    }
    bridge.unregister_compositor().unwrap();

    let (_other_client, mut other) = stage.compositor();
    assert_eq!(other.connectors().unwrap(), before);
    other.request_gpu(GpuLimits::default()).unwrap();
    let surface = other.create_surface(config(1, 1, PixelFormat::XRGB8888)).unwrap();
    for connector in &before {
        other.present_surface(connector.id, surface.id(), &[]).unwrap();
    }
    for connector in &before {
        let (picture, initial) = (stage.picture(connector.id), connector.current.unwrap());
        assert_eq!(picture.size, (initial.width, initial.height), "{connector:?}");
        assert_eq!(picture.lit_count(), 0, "{connector:?}");
    }
}

#[test]
fn an_application_is_registered_granted_the_gpu_and_told() {
    let stage = Stage::begin();
    let (client, mut bridge) = stage.compositor();
    let mut application = Application::connected(&client);
    bridge.register_application(&application.process, application.pid()).unwrap();
    assert_eq!(application.next_event(), Event::Registered);
    let request = GuiRequest::RequestGpu { pid: application.pid(), limits: LIMITS };
    let answer = bridge.request(&Request::Document(request)).unwrap();
    assert_eq!(answer, Answer::Document(GuiResponse::Granted { capability: HELD }));
    assert_eq!(application.next_event(), Event::Granted { capability: HELD });
    let drawable = application.create_surface(small());
    assert_eq!(next_surface(&mut bridge).surface, drawable.id);
    match application.ask(&Request::Describe) {
        Answer::Description(description) => {
            assert_eq!(description.role, Role::Application);
            let gpu = description.gpu.unwrap();
            assert_eq!((gpu.capability.memory_mb, gpu.capability.max_surfaces), (1, 4));
            assert_eq!((gpu.charged_bytes, gpu.surfaces_count), (4096, 1));
        }
        other => panic!("no description: {other:?}"),
    }
    for (capability, is_held) in [(HELD, true), (Capability::Compositor, false)] {
        assert_eq!(bridge.has_capability_of(application.pid(), capability).unwrap(), is_held);
        let request = GuiRequest::HasCapability { pid: application.pid(), capability };
        let expected = GuiResponse::HasCapabilityResult { has_capability: is_held };
        assert_eq!(application.ask_document(request), expected);
    }
}

#[test]
fn a_capability_to_an_application_may_come_in_a_message() {
    let stage = Stage::begin();
    let (compositor, mut bridge) = stage.compositor();
    let mut inbox = compositor.create_queue(QueueOptions::default()).unwrap();
    let rights = Rights::SEND;
    let _name = compositor.publish("inbox", inbox.capability(), rights, Audience::Everyone).unwrap();
    let starter = stage.client();
    let mut application = Application::connected(&starter);
    let mut sender = starter.open_sender(&starter.lookup("inbox").unwrap()).unwrap();
    let carried = [Carried::Copy(&application.process, Rights::WATCH | Rights::GRANT)];
    sender.send_message(&Outgoing { capabilities: &carried, ..Outgoing::default() }).unwrap();
    let process = inbox.receive_timeout(PATIENCE).unwrap().capabilities.pop().unwrap().unwrap();
    bridge.register_application(&process, application.pid()).unwrap();
    assert_eq!(application.next_event(), Event::Registered);
    // What it was registered by is no longer needed.
    drop((process, sender));
    application.kill();
    assert_eq!(next_event(&mut bridge), Event::ApplicationGone { pid: application.pid() });
}

#[test]
fn a_destroyed_surface_is_gone_for_its_owner_and_the_compositor() {
    let stage = Stage::begin();
    let (client, mut bridge) = stage.compositor();
    let mut application = Application::with_gpu(&client, &mut bridge, LIMITS);
    let drawable = application.create_surface(small());
    let shared = next_surface(&mut bridge);
    bridge.present_surface(ConnectorId(1), drawable.id, &[]).unwrap();
    let request = GuiRequest::DestroySurface { pid: application.pid(), surface: drawable.id };
    assert_eq!(application.ask_document(request.clone()), GuiResponse::Success);
    assert_eq!(next_event(&mut bridge), Event::SurfaceDestroyed { surface: drawable.id });
    let gone = shared.map(PATIENCE).unwrap_err();
    assert!(matches!(gone.denial(), Some(Denial::StaleHandle { .. })), "{gone}");
    let refused = bridge.present_surface(ConnectorId(1), drawable.id, &[]).unwrap_err();
    assert_eq!(refused.denial_reason(), Some(DenialReason::DeviceNotFound));
    assert_eq!(application.denial(request), DenialReason::DeviceNotFound);
    match application.ask(&Request::Describe) {
        Answer::Description(description) => {
            let gpu = description.gpu.unwrap();
            assert_eq!((gpu.charged_bytes, gpu.surfaces_count), (0, 0));
        }
        other => panic!("no description: {other:?}"),
    }
    // Its number is never used again.
    assert!(application.create_surface(small()).id > drawable.id);
}

#[test]
fn an_applications_surfaces_end_with_it() {
    let stage = Stage::begin();
    let (client, mut bridge) = stage.compositor();
    let mut application = Application::with_gpu(&client, &mut bridge, LIMITS);
    let surfaces = [(); 2].map(|()| application.create_surface(small()).id);
    let shared = [(); 2].map(|()| next_surface(&mut bridge));
    application.kill();
    for surface in surfaces {
        assert_eq!(next_event(&mut bridge), Event::SurfaceDestroyed { surface });
    }
    assert_eq!(next_event(&mut bridge), Event::ApplicationGone { pid: application.pid() });
    for shared in shared {
        let refused = bridge.present_surface(ConnectorId(1), shared.surface, &[]).unwrap_err();
        assert_eq!(refused.denial_reason(), Some(DenialReason::DeviceNotFound));
        let gone = shared.map(PATIENCE).unwrap_err();
        assert!(matches!(gone.denial(), Some(Denial::StaleHandle { .. })), "{gone}");
    }
    let refused = bridge.has_capability_of(application.pid(), HELD).unwrap_err();
    assert_eq!(refused.denial_reason(), Some(DenialReason::Unauthorized));
}

#[test]
fn an_application_may_be_registered_before_it_has_a_line() {
    let stage = Stage::begin();
    let (client, mut bridge) = stage.compositor();
    let (mut one, mut other) = (Application::start(&client), Application::start(&client));
    for application in [&one, &other] {
        bridge.register_application(&application.process, application.pid()).unwrap();
    }
    one.connect();
    assert_eq!(one.next_event(), Event::Registered);
    // The bridge learns of the end of one that never spoke, too.
    other.kill();
    assert_eq!(next_event(&mut bridge), Event::ApplicationGone { pid: other.pid() });
    one.kill();
    assert_eq!(next_event(&mut bridge), Event::ApplicationGone { pid: one.pid() });
    let nothing = bridge.next_event(Duration::from_millis(50));
    assert!(nothing.is_err(), "each is told once: {nothing:?}");
}

#[test]
fn an_application_that_is_unregistered_loses_all_and_is_told_so() {
    let stage = Stage::begin();
    let (client, mut bridge) = stage.compositor();
    let mut application = Application::with_gpu(&client, &mut bridge, LIMITS);
    let drawable = application.create_surface(small());
    next_surface(&mut bridge);
    bridge.unregister_application(application.pid()).unwrap();
    assert_eq!(next_event(&mut bridge), Event::SurfaceDestroyed { surface: drawable.id });
    let expected = [
        Event::Registered,
        Event::Revoked { capability: HELD },
        Event::Revoked { capability: Capability::SurfaceManagement },
        Event::Unregistered,
    ];
    for event in expected {
        assert_eq!(application.next_event(), event);
    }
    let pid = application.pid();
    let denied =
        [GuiRequest::CreateSurface { pid, config: small() }, GuiRequest::RequestGpu { pid, limits: LIMITS }];
    for request in denied {
        assert_eq!(application.denial(request), DenialReason::Unauthorized);
    }
    bridge.register_application(&application.process, pid).unwrap();
    assert_eq!(application.next_event(), Event::Registered);
}

#[test]
fn what_the_compositor_allowed_ends_with_it_and_the_next_one_can_allow_it_again() {
    let stage = Stage::begin();
    // The application's starter is another than the compositor that goes.
    let starter = stage.client();
    let (client, mut bridge) = stage.compositor();
    let mut application = Application::connected(&starter);
    let pid = application.pid();
    let mut starter_bridge = Bridge::connect(&starter).unwrap();
    bridge.unregister_compositor().unwrap();
    starter_bridge.register_compositor().unwrap();
    starter_bridge.register_application(&application.process, pid).unwrap();
    let request = GuiRequest::RequestGpu { pid, limits: LIMITS };
    assert_eq!(application.ask_document(request.clone()), GuiResponse::Granted { capability: HELD });
    application.create_surface(small());
    starter_bridge.unregister_compositor().unwrap();
    let expected = [
        Event::Registered,
        Event::Revoked { capability: HELD },
        Event::Revoked { capability: Capability::SurfaceManagement },
        Event::CompositorGone,
    ];
    for event in expected {
        assert_eq!(application.next_event(), event);
    }
    assert_eq!(application.denial(request.clone()), DenialReason::Unauthorized);
    starter_bridge.register_compositor().unwrap();
    starter_bridge.register_application(&application.process, pid).unwrap();
    assert_eq!(application.ask_document(request), GuiResponse::Granted { capability: HELD });
    drop((bridge, client));
}

#[test]
fn memory_is_given_back_with_each_surface() {
    let stage = Stage::begin();
    let (client, mut bridge) = stage.compositor();
    bridge.request_gpu(GpuLimits { memory_mb: 1024, max_surfaces: 1 }).unwrap();
    let pid = Pid(client.pid());
    // Two of these are more than the bridge's process may have at a time.
    let large = config(16_384, 10_000, PixelFormat::XRGB8888);
    for _ in 0..4 {
        let request = Request::Document(GuiRequest::CreateSurface { pid, config: large });
        match bridge.request(&request).unwrap() {
            Answer::SurfaceCreated { surface, .. } => bridge.destroy_surface(surface).unwrap(),
            other => panic!("no surface: {other:?}"),
        }
    }
}

#[test]
fn the_bridge_keeps_nothing_of_who_is_gone() {
    let stage = Stage::begin();
    let count = || stage.owner.capabilities().unwrap().len();
    let mut before = 0;
    for round in 0..6 {
        let (client, mut bridge) = stage.next_compositor();
        let device = keyboard(&mut bridge);
        let _input = bridge.request_input_device(device).unwrap();
        bridge.request_gpu(LIMITS).unwrap();
        let surface = bridge.create_surface(small()).unwrap();
        bridge.present_surface(ConnectorId(1), surface.id(), &[]).unwrap();
        let mut application = Application::with_gpu(&client, &mut bridge, LIMITS);
        application.create_surface(small());
        assert!(matches!(bridge.next_event(PATIENCE), Ok(BridgeEvent::SurfaceCreated(_))));
        let unconnected = Application::start(&client);
        bridge.register_application(&unconnected.process, unconnected.pid()).unwrap();
        drop((application, unconnected, bridge, client));
        // The first round may lay in what the later ones use.
        if round == 0 {
            drop(stage.next_compositor());
            thread::sleep(Duration::from_millis(100));
            before = count();
        }
    }
    eventually("the bridge holds no more than before", || count() <= before);
}
