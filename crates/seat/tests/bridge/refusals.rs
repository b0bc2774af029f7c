//! Every reason for which the bridge refuses, each brought about as a client can.

use keyway::bridge::{
    Answer, Bridge, BridgeError, COMPOSITOR_SERVICE, Capability, ConnectorId, DenialReason, DeviceId,
    DisplayMode, GpuLimits, GuiRequest, GuiResponse, LeaseId, Pid, PixelFormat, Request, SurfaceConfig,
    SurfaceId,
};

use crate::{
    application::Application,
    compositor::keyboard,
    picture::config,
    stage::{Stage, next_surface},
};

const FIRST: ConnectorId = ConnectorId(1);
const NOBODY: Pid = Pid(1);
const LIMITS: GpuLimits = GpuLimits { memory_mb: 1, max_surfaces: 4 };
const MODE: DisplayMode = DisplayMode { width: 640, height: 480, refresh_mhz: 60_000 };

fn small() -> SurfaceConfig {
    config(8, 8, PixelFormat::XRGB8888)
}

/// Why the bridge refuses a request as it stands.
fn denial(bridge: &mut Bridge, request: GuiRequest) -> DenialReason {
    reason(bridge.request(&Request::Document(request)).unwrap())
}

fn reason(answer: Answer) -> DenialReason {
    match answer {
        Answer::Document(GuiResponse::Denied { reason }) => reason,
        other => panic!("not denied: {other:?}"),
    }
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, BridgeError>) -> DenialReason {
    match outcome {
        Err(BridgeError::Denied(reason)) => reason,
        other => panic!("not denied: {other:?}"),
    }
}

#[test]
fn a_stranger_may_do_nothing_that_is_the_compositors_with_or_without_one() {
    let stage = Stage::begin();
    let client = stage.client();
    let mut bridge = Bridge::connect(&client).unwrap();
    let own = Pid(client.pid());
    let mut compositor = None;
    for _ in 0..2 {
        let requests = [
            // It has never opened the door.
            Request::Document(GuiRequest::RegisterCompositor { pid: own }),
            Request::Document(GuiRequest::UnregisterCompositor { pid: own }),
            Request::Document(GuiRequest::SetDisplayMode { connector: FIRST, mode: MODE }),
            Request::Document(GuiRequest::RequestInputDevice { pid: own, device: DeviceId(1) }),
            Request::RequestExclusiveInput { pid: own, device: DeviceId(1) },
            Request::Document(GuiRequest::RequestGpu { pid: own, limits: LIMITS }),
            Request::Document(GuiRequest::CreateSurface { pid: own, config: small() }),
            Request::RegisterApplication { pid: own, process: client.process_number().0 },
            Request::UnregisterApplication { pid: own },
            Request::LeaseDisplay { connectors: vec![FIRST] },
            Request::EndLease { lease: LeaseId(1) },
            Request::PresentSurface { connector: FIRST, surface: SurfaceId(1), damage: vec![] },
            Request::ListConnectors,
            Request::ListDevices,
        ];
        for request in requests {
            assert_eq!(reason(bridge.request(&request).unwrap()), DenialReason::Unauthorized, "{request:?}");
        }
        let outcome = bridge.register_application(&client.own_process().unwrap(), own);
        assert_eq!(refused(outcome), DenialReason::Unauthorized);
        compositor.get_or_insert_with(|| stage.compositor());
    }
}

#[test]
fn the_door_is_what_lets_a_session_register() {
    let stage = Stage::begin();
    let client = stage.client();
    let mut bridge = Bridge::connect(&client).unwrap();
    let request = GuiRequest::RegisterCompositor { pid: Pid(client.pid()) };
    assert_eq!(denial(&mut bridge, request.clone()), DenialReason::Unauthorized);
    let door = client.open_sender(&client.lookup(COMPOSITOR_SERVICE).unwrap()).unwrap();
    let mut answer = bridge.request(&Request::Document(request.clone())).unwrap();
    assert_eq!(answer, Answer::Document(GuiResponse::Success));
    answer = bridge.request(&Request::Document(request)).unwrap();
    assert_eq!(reason(answer), DenialReason::AlreadyHeld);
    // A pid that is not its own does not register, door or no door.
    bridge.unregister_compositor().unwrap();
    let other = GuiRequest::RegisterCompositor { pid: NOBODY };
    assert_eq!(denial(&mut bridge, other), DenialReason::Unauthorized);
    drop(door);
}

#[test]
fn a_pid_of_another_is_refused_in_each_request_that_has_one() {
    let stage = Stage::begin();
    let (client, mut bridge) = stage.compositor();
    let mut application = Application::with_gpu(&client, &mut bridge, LIMITS);
    let own = application.create_surface(small()).id;
    let requests = |pid| {
        [
            GuiRequest::RequestGpu { pid, limits: LIMITS },
            GuiRequest::RequestInputDevice { pid, device: DeviceId(1) },
            GuiRequest::CreateSurface { pid, config: small() },
            GuiRequest::DestroySurface { pid, surface: own },
            GuiRequest::RegisterCompositor { pid },
            GuiRequest::UnregisterCompositor { pid },
            GuiRequest::HasCapability { pid, capability: Capability::SurfaceManagement },
        ]
    };
    for pid in [Pid(client.pid()), NOBODY, Pid(0)] {
        for request in requests(pid) {
            assert_eq!(application.denial(request.clone()), DenialReason::Unauthorized, "{request:?}");
        }
    }
    for request in requests(NOBODY) {
        assert_eq!(denial(&mut bridge, request.clone()), DenialReason::Unauthorized, "{request:?}");
    }
    let mut stranger = stage.stranger();
    for request in requests(application.pid()) {
        assert_eq!(denial(&mut stranger, request.clone()), DenialReason::Unauthorized, "{request:?}");
    }
    // The compositor may speak for an application in some requests, and not in these.
    let pid = application.pid();
    let not_in_its_name = [
        GuiRequest::RequestInputDevice { pid, device: DeviceId(1) },
        GuiRequest::CreateSurface { pid, config: small() },
        GuiRequest::DestroySurface { pid, surface: own },
        GuiRequest::RegisterCompositor { pid },
        GuiRequest::UnregisterCompositor { pid },
    ];
    for request in not_in_its_name {
        assert_eq!(denial(&mut bridge, request.clone()), DenialReason::Unauthorized, "{request:?}");
    }
    assert_eq!(refused(bridge.unregister_application(NOBODY)), DenialReason::Unauthorized);
    assert_eq!(refused(bridge.has_capability_of(NOBODY, Capability::Compositor)), DenialReason::Unauthorized);
}

#[test]
fn an_application_is_whom_the_capability_names_and_nobody_else() {
    let stage = Stage::begin();
    let (client, mut bridge) = stage.compositor();
    let (one, mut other) = (Application::connected(&client), Application::connected(&client));
    for pid in [other.pid(), NOBODY, Pid(client.pid())] {
        let outcome = bridge.register_application(&one.process, pid);
        assert_eq!(refused(outcome), DenialReason::Unauthorized, "{pid:?}");
    }
    // Without a capability, whatever number is alleged.
    let number = |pid: Pid| {
        let entries = stage.owner.processes().unwrap();
        entries.iter().find(|entry| Pid(entry.pid) == pid).unwrap().process.0
    };
    for process in [0, number(one.pid()), number(other.pid())] {
        let request = Request::RegisterApplication { pid: one.pid(), process };
        assert_eq!(reason(bridge.request(&request).unwrap()), DenialReason::Unauthorized);
    }
    bridge.register_application(&one.process, one.pid()).unwrap();
    let request = GuiRequest::RequestGpu { pid: other.pid(), limits: LIMITS };
    assert_eq!(other.denial(request), DenialReason::Unauthorized);
    assert_eq!(refused(bridge.unregister_application(other.pid())), DenialReason::Unauthorized);
}

#[test]
fn a_surface_of_another_cannot_be_destroyed() {
    let stage = Stage::begin();
    let (client, mut bridge) = stage.compositor();
    bridge.request_gpu(LIMITS).unwrap();
    let compositors = bridge.create_surface(small()).unwrap();
    let mut one = Application::with_gpu(&client, &mut bridge, LIMITS);
    let mut other = Application::with_gpu(&client, &mut bridge, LIMITS);
    let surface = one.create_surface(small()).id;
    let pid = other.pid();
    for surface in [surface, compositors.id()] {
        let request = GuiRequest::DestroySurface { pid, surface };
        assert_eq!(other.denial(request), DenialReason::Unauthorized);
    }
    assert_eq!(refused(bridge.destroy_surface(surface)), DenialReason::Unauthorized);
    assert_eq!(next_surface(&mut bridge).surface, surface);
    // Both are as before.
    for surface in [surface, compositors.id()] {
        bridge.present_surface(FIRST, surface, &[]).unwrap();
    }
}

#[test]
fn what_is_held_already_is_not_given_again() {
    let stage = Stage::begin();
    let (client, mut bridge) = stage.compositor();
    let held = DenialReason::AlreadyHeld;
    assert_eq!(refused(bridge.register_compositor()), held);
    let mut second = stage.stranger();
    assert_eq!(refused(second.register_compositor()), held);

    bridge.request_gpu(LIMITS).unwrap();
    assert_eq!(refused(bridge.request_gpu(LIMITS)), held);
    let device = keyboard(&mut bridge);
    let input = bridge.request_input_device(device).unwrap();
    assert_eq!(refused(bridge.request_input_device(device)), held);
    assert_eq!(refused(bridge.request_exclusive_input(device)), held);
    assert!(!input.has_ended());

    let mut application = Application::with_gpu(&client, &mut bridge, LIMITS);
    let pid = application.pid();
    let request = GuiRequest::RequestGpu { pid, limits: LIMITS };
    assert_eq!(application.denial(request.clone()), held);
    assert_eq!(denial(&mut bridge, request), held);
    assert_eq!(refused(bridge.register_application(&application.process, pid)), held);
    // The compositor is no application of its own.
    let own = client.own_process().unwrap();
    assert_eq!(refused(bridge.register_application(&own, Pid(client.pid()))), held);
}

#[test]
fn what_does_not_exist_is_not_found() {
    let stage = Stage::begin();
    let (_client, mut bridge) = stage.compositor();
    bridge.request_gpu(LIMITS).unwrap();
    let surface = bridge.create_surface(small()).unwrap().id();
    let not_found = DenialReason::DeviceNotFound;
    for number in [0, 99, u32::MAX] {
        assert_eq!(refused(bridge.request_input_device(DeviceId(number))), not_found);
        assert_eq!(refused(bridge.request_exclusive_input(DeviceId(number))), not_found);
        assert_eq!(refused(bridge.set_display_mode(ConnectorId(number), MODE)), not_found);
        assert_eq!(refused(bridge.present_surface(ConnectorId(number), surface, &[])), not_found);
    }
    for number in [0, surface.0 + 1, u64::MAX] {
        assert_eq!(refused(bridge.present_surface(FIRST, SurfaceId(number), &[])), not_found);
        assert_eq!(refused(bridge.destroy_surface(SurfaceId(number))), not_found);
    }
}

#[test]
fn figures_that_make_no_sense_are_refused() {
    let stage = Stage::begin();
    let (_client, mut bridge) = stage.compositor();
    let invalid = DenialReason::InvalidConfig;
    let connectors = bridge.connectors().unwrap();
    let of_another = connectors[1].modes[0];
    assert!(!connectors[0].modes.contains(&of_another));
    let impossible = [
        of_another,
        DisplayMode { refresh_mhz: 61_000, ..MODE },
        DisplayMode { width: 0, ..MODE },
        DisplayMode { height: u32::MAX, ..MODE },
    ];
    for mode in impossible {
        assert_eq!(refused(bridge.set_display_mode(FIRST, mode)), invalid, "{mode:?}");
    }
    assert_eq!(bridge.connectors().unwrap(), connectors);

    for (memory_mb, max_surfaces) in [(0, 1), (1, 0), (0, 0)] {
        assert_eq!(refused(bridge.request_gpu(GpuLimits { memory_mb, max_surfaces })), invalid);
    }
    bridge.request_gpu(LIMITS).unwrap();
    let senseless = [
        SurfaceConfig { width: 0, ..small() },
        SurfaceConfig { height: 0, ..small() },
        SurfaceConfig { width: 16_385, ..small() },
        SurfaceConfig { height: 16_385, ..small() },
        SurfaceConfig { width: u32::MAX, height: u32::MAX, ..small() },
        SurfaceConfig { format: PixelFormat(0), ..small() },
        SurfaceConfig { format: PixelFormat(u32::from_le_bytes(*b"NV12")), ..small() },
        SurfaceConfig { stride: Some(31), ..small() },
        SurfaceConfig { stride: Some(28), ..small() },
        SurfaceConfig { stride: Some(u32::MAX - 3), ..small() },
    ];
    for config in senseless {
        assert_eq!(refused(bridge.create_surface(config)), invalid, "{config:?}");
    }
    assert_eq!(bridge.describe().unwrap().gpu.unwrap().surfaces_count, 0);
}

#[test]
fn one_process_gets_no_more_of_the_gpu_than_its_limits() {
    let stage = Stage::begin();
    let (_client, mut bridge) = stage.compositor();
    let exceeded = DenialReason::ResourceLimitExceeded;
    for (memory_mb, max_surfaces) in [(1025, 1), (u32::MAX, 1), (1, 257), (1, u32::MAX)] {
        assert_eq!(refused(bridge.request_gpu(GpuLimits { memory_mb, max_surfaces })), exceeded);
    }
    let limits = GpuLimits { memory_mb: 1, max_surfaces: 16 };
    bridge.request_gpu(limits).unwrap();
    // One MB exactly, and a row more.
    let full = config(512, 512, PixelFormat::XRGB8888);
    let over = SurfaceConfig { height: 513, ..full };
    assert_eq!(refused(bridge.create_surface(over)), exceeded);
    let surface = bridge.create_surface(full).unwrap();
    assert_eq!(surface.len_bytes(), 1 << 20);
    assert_eq!(refused(bridge.create_surface(small())), exceeded);
    bridge.destroy_surface(surface.id()).unwrap();

    let surfaces: Vec<_> = (0..16).map(|_| bridge.create_surface(small()).unwrap()).collect();
    assert_eq!(refused(bridge.create_surface(small())), exceeded);
    bridge.destroy_surface(surfaces[7].id()).unwrap();
    bridge.create_surface(small()).unwrap();
    assert_eq!(refused(bridge.create_surface(small())), exceeded);
}

#[test]
fn all_processes_together_get_no_more_of_the_gpu_than_there_is() {
    let stage = Stage::begin();
    let (client, mut bridge) = stage.compositor();
    let most = GpuLimits { memory_mb: 1024, max_surfaces: 256 };
    let mut holders: Vec<_> = (0..4).map(|_| Application::with_gpu(&client, &mut bridge, most)).collect();
    assert_eq!(refused(bridge.request_gpu(LIMITS)), DenialReason::ResourceLimitExceeded);
    let gone = holders.pop().unwrap();
    bridge.unregister_application(gone.pid()).unwrap();
    bridge.request_gpu(LIMITS).unwrap();
}

#[test]
fn virtual_screens_are_not_leased_and_a_lease_that_is_none_is_not_ended() {
    let stage = Stage::begin();
    let (_client, mut bridge) = stage.compositor();
    let failed = bridge.lease_display(&[FIRST]).unwrap_err();
    assert!(failed.to_string().contains("virtual screens"), "{failed}");
    assert_eq!(refused(bridge.lease_display(&[])), DenialReason::InvalidConfig);
    assert_eq!(refused(bridge.lease_display(&[ConnectorId(99)])), DenialReason::DeviceNotFound);
    assert_eq!(refused(bridge.end_lease(LeaseId(1))), DenialReason::DeviceNotFound);
    // What was refused holds nothing.
    bridge.set_display_mode(FIRST, MODE).unwrap();
}
