//! The success criteria of the bridge's document, each as one test that bears its name: a broker, the bridge's process, a
//! compositor and applications, from the first request to what comes of it.
//!
//! How the document's words are meant here: its kernel module is the bridge's process, its userspace client is
//! [`keyway::bridge::Bridge`]. `docs/seat.md` names each criterion beside its test.

use std::{
    env, fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use keyway::{
    Client, Denial, Embedded, Outgoing,
    bridge::{
        Bridge, BridgeError, COMPOSITOR_SERVICE, Capability, ConnectorId, DenialReason, DeviceId, DeviceKind,
        DisplayMode, Event, Gpu, GpuCapability, GpuLimits, GuiRequest, GuiResponse, InputDevice, Pid,
        PixelFormat, Request, Role, SERVICE, Surface, SurfaceConfig,
    },
};
use keyway_gui::limits::{
    DEFAULT_GPU_MEMORY, DEFAULT_MAX_SURFACES, MAX_PROCESS_GPU_MEMORY, MAX_TOTAL_GPU_MEMORY,
};
use keyway_seat::{Options, Seat};

use crate::{
    application::Application,
    compositor::{await_end, keyboard},
    stage::{PATIENCE, Stage, eventually, next_event, next_surface},
};

const FIRST: ConnectorId = ConnectorId(1);
const SMALL: SurfaceConfig =
    SurfaceConfig { width: 8, height: 8, format: PixelFormat::XRGB8888, stride: None };

/// A number as it stands in a message: seven bits a byte, the lowest first.
fn varint(mut number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A request of the document, as its bytes are: its number, then its fields.
fn written(number: u8, fields: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0, number];
    bytes.extend(fields.iter().flat_map(|field| varint(*field)));
    bytes
}

/// Each request, response, capability and denial of the document travels, in bytes that are written here by hand.
#[test]
fn ipc_protocol_defined() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("seatd.sock");
    let options = Options { seatd_socket: Some(socket.clone()), is_mobile: Some(true), ..Options::default() };
    let stage = Stage::begin_with(options);
    let client = stage.client();
    let mut caller = client.open_caller(&client.lookup(SERVICE).unwrap()).unwrap();
    let mut ask = |bytes: Vec<u8>| caller.call(&Outgoing::bytes(&bytes), PATIENCE).unwrap().payload;
    let (pid, xrgb) = (client.pid(), PixelFormat::XRGB8888.0);
    let (success, denied) = ([0, 2], |reason| [0, 1, reason]);

    // QueryDeviceType, RegisterCompositor: not by whoever comes first, and once.
    assert_eq!(ask(written(5, &[])), [0, 4, 1]);
    assert_eq!(ask(written(6, &[pid])), denied(0));
    let _door = client.open_sender(&client.lookup(COMPOSITOR_SERVICE).unwrap()).unwrap();
    assert_eq!(ask(written(6, &[pid])), success);
    assert_eq!(ask(written(6, &[pid])), denied(4));

    // RequestGpu: too much, and what is granted.
    assert_eq!(ask(written(0, &[pid, 1025, 1])), denied(1));
    assert_eq!(ask(written(0, &[pid, 1, 4])), [0, 0, 0, 1, 4]);
    // RequestInputDevice: one that is not there, and the keyboard, shared.
    assert_eq!(ask(written(1, &[pid, 99])), denied(2));
    assert_eq!(ask(written(1, &[pid, 1])), [0, 0, 1, 1, 0]);
    // CreateSurface: its number, bytes a row and bytes in all; DestroySurface.
    assert_eq!(ask(written(2, &[pid, 8, 8, xrgb, 0])), [&[1, 1, 64][..], &varint(4096), &[0]].concat());
    assert_eq!(ask(written(3, &[pid, 1])), success);
    // SetDisplayMode: one that the connector lacks, and one that it has.
    assert_eq!(ask(written(4, &[1, 1, 1, 1])), denied(3));
    assert_eq!(ask(written(4, &[1, 640, 480, 60_000])), success);
    // HasCapability, of each of the five.
    let held = [&[0, 1, 4][..], &[1, 1, 0], &[2, 1], &[3], &[4]];
    for capability in held {
        assert_eq!(ask(written(8, &[&[pid], capability].concat())), [0, 5, 1], "{capability:?}");
    }
    assert_eq!(ask(written(8, &[pid, 0, 2, 4])), [0, 5, 0]);
    // An error in words: virtual screens are not leased.
    assert_eq!(ask([&[7, 1][..], &[1]].concat())[..2], [0, 3]);
    // UnregisterCompositor.
    assert_eq!(ask(written(7, &[pid])), success);
    assert_eq!(ask(written(7, &[pid])), denied(0));

    // Another reason: a session of the other door has the seat.
    let mut session = UnixStream::connect(&socket).unwrap();
    session.write_all(&[1_u16.to_ne_bytes(), [0; 2]].concat()).unwrap();
    session.read_exact(&mut [0; 16]).unwrap();
    assert_eq!(ask(written(6, &[pid])), success);
    assert_eq!(ask(written(4, &[1, 640, 480, 60_000])), [0, 1, 5, 3]);
}

/// The bridge's process comes up over a broker, answers by both names, and is gone with them.
#[test]
fn kernel_module_compiles() {
    let broker = Embedded::start().unwrap();
    let connect = || Client::over(broker.connect().unwrap()).unwrap();
    let (owner, client) = (connect(), connect());
    let is_there = |name| client.lookup(name).is_ok();
    assert!(!is_there(SERVICE) && !is_there(COMPOSITOR_SERVICE));

    let mut seat = Seat::start(&owner, Options::default()).unwrap();
    assert!(is_there(SERVICE) && is_there(COMPOSITOR_SERVICE));
    let role = std::thread::scope(|scope| {
        let asked = scope.spawn(|| Bridge::connect(&client).unwrap().describe().unwrap().role);
        while !asked.is_finished() {
            seat.turn(Duration::from_millis(5)).unwrap();
        }
        asked.join().unwrap()
    });
    assert_eq!(role, Role::Stranger);

    drop(seat);
    for name in [SERVICE, COMPOSITOR_SERVICE] {
        let gone = client.lookup(name).unwrap_err();
        assert!(matches!(gone.denial(), Some(Denial::NameUnknown { .. })), "{gone}");
    }
}

/// The client has each call of the document's, with its types, and each works.
#[test]
fn userspace_client_compiles() {
    type Outcome<T> = Result<T, BridgeError>;
    let connect: fn(&Client) -> Outcome<Bridge> = Bridge::connect;
    let register: fn(&mut Bridge) -> Outcome<()> = Bridge::register_compositor;
    let request_gpu: fn(&mut Bridge, GpuLimits) -> Outcome<Gpu> = Bridge::request_gpu;
    let request_input: fn(&mut Bridge, DeviceId) -> Outcome<InputDevice> = Bridge::request_input_device;
    let set_mode: fn(&mut Bridge, ConnectorId, DisplayMode) -> Outcome<()> = Bridge::set_display_mode;
    let is_mobile: fn(&mut Bridge) -> Outcome<bool> = Bridge::is_mobile_device;
    let create: fn(&mut Bridge, SurfaceConfig) -> Outcome<Surface> = Bridge::create_surface;
    let has: fn(&mut Bridge, Capability) -> Outcome<bool> = Bridge::has_capability;
    let unregister: fn(&mut Bridge) -> Outcome<()> = Bridge::unregister_compositor;

    let stage = Stage::begin_with(Options { is_mobile: Some(true), ..Options::default() });
    let mut bridge = connect(&stage.client()).unwrap();
    register(&mut bridge).unwrap();
    assert!(is_mobile(&mut bridge).unwrap());
    let limits = GpuLimits { memory_mb: 7, max_surfaces: 3 };
    assert_eq!(
        request_gpu(&mut bridge, limits).unwrap().capability,
        GpuCapability { memory_mb: 7, max_surfaces: 3 }
    );
    let device = keyboard(&mut bridge);
    let input = request_input(&mut bridge, device).unwrap();
    assert_eq!((input.id(), input.has_ended()), (device, false));
    let last = *bridge.connectors().unwrap()[0].modes.last().unwrap();
    set_mode(&mut bridge, FIRST, last).unwrap();
    assert_eq!(bridge.connectors().unwrap()[0].current, Some(last));
    create(&mut bridge, SMALL).unwrap().write(0, &[1; 4]).unwrap();
    assert!(has(&mut bridge, Capability::SurfaceManagement).unwrap());
    unregister(&mut bridge).unwrap();
    assert!(!has(&mut bridge, Capability::SurfaceManagement).unwrap());

    // A denial is a value, and a bridge that is gone is an error.
    let refused = request_gpu(&mut bridge, limits).unwrap_err();
    assert_eq!(refused.denial_reason(), Some(DenialReason::Unauthorized));
    drop(stage);
    assert!(matches!(is_mobile(&mut bridge), Err(BridgeError::Keyway(_))));
}

/// Whoever has the door becomes the compositor, one at a time, and another follows when it is gone.
#[test]
fn compositor_can_register() {
    let stage = Stage::begin();
    let (first_client, second_client) = (stage.client(), stage.client());
    let mut first = Bridge::connect(&first_client).unwrap();
    let mut second = Bridge::connect(&second_client).unwrap();
    assert_eq!(first.describe().unwrap().role, Role::Stranger);

    first.register_compositor().unwrap();
    assert_eq!(first.describe().unwrap().role, Role::Compositor);
    assert!(first.has_capability(Capability::Compositor).unwrap());
    let held = second.register_compositor().unwrap_err();
    assert_eq!(held.denial_reason(), Some(DenialReason::AlreadyHeld));
    assert!(!second.has_capability(Capability::Compositor).unwrap());

    first.unregister_compositor().unwrap();
    second.register_compositor().unwrap();
    assert_eq!(second.describe().unwrap().role, Role::Compositor);
    assert_eq!(first.describe().unwrap().role, Role::Stranger);

    // Its session ends without a word.
    drop((second, second_client));
    eventually("another registers", || first.register_compositor().is_ok());
    assert!(first.has_capability(Capability::Compositor).unwrap());
}

/// An application gets the GPU within limits, makes surfaces of it, and gives it all back.
#[test]
fn gpu_capability_requests_work() {
    let stage = Stage::begin();
    let (client, mut bridge) = stage.compositor();
    let mut application = Application::connected(&client);
    let pid = application.pid();
    let request = |memory_mb, max_surfaces| GuiRequest::RequestGpu {
        pid,
        limits: GpuLimits { memory_mb, max_surfaces },
    };
    assert_eq!(application.denial(request(1, 1)), DenialReason::Unauthorized);
    bridge.register_application(&application.process, pid).unwrap();
    assert_eq!(
        GpuLimits::default(),
        GpuLimits { memory_mb: DEFAULT_GPU_MEMORY, max_surfaces: DEFAULT_MAX_SURFACES }
    );
    for (memory_mb, max_surfaces) in [(MAX_PROCESS_GPU_MEMORY + 1, 1), (u32::MAX, 1), (1, u32::MAX)] {
        assert_eq!(application.denial(request(memory_mb, max_surfaces)), DenialReason::ResourceLimitExceeded);
    }
    let capability = Capability::GpuRendering { memory_mb: 1, max_surfaces: 2 };
    assert_eq!(application.ask_document(request(1, 2)), GuiResponse::Granted { capability });
    assert_eq!(application.denial(request(1, 2)), DenialReason::AlreadyHeld);

    // Its surfaces are counted, charged, drawn on, and seen by the compositor.
    let drawable = application.create_surface(SMALL);
    application.draw(drawable.id, 0, &[9, 8, 7, 0]);
    let shared = next_surface(&mut bridge);
    let mut seen = [0; 4];
    shared.map(PATIENCE).unwrap().read(0, &mut seen).unwrap();
    assert_eq!((shared.surface, shared.owner, seen), (drawable.id, pid, [9, 8, 7, 0]));
    let create =
        |height| GuiRequest::CreateSurface { pid, config: SurfaceConfig { width: 512, height, ..SMALL } };
    assert_eq!(application.denial(create(512)), DenialReason::ResourceLimitExceeded);
    application.create_surface(SMALL);
    assert_eq!(application.denial(create(8)), DenialReason::ResourceLimitExceeded);

    // All share what there is, and what one gives back another has.
    let most = GpuLimits { memory_mb: MAX_PROCESS_GPU_MEMORY, max_surfaces: 1 };
    let rest = GpuLimits { memory_mb: MAX_TOTAL_GPU_MEMORY - 3 * most.memory_mb, max_surfaces: 1 };
    let _others = [(); 3].map(|()| Application::with_gpu(&client, &mut bridge, most));
    let refused = bridge.request_gpu(rest).unwrap_err();
    assert_eq!(refused.denial_reason(), Some(DenialReason::ResourceLimitExceeded));
    bridge.unregister_application(pid).unwrap();
    bridge.request_gpu(rest).unwrap();
}

/// What is typed reaches the compositor and nobody else, as long as it is the compositor.
#[test]
fn input_device_access_works() {
    let stage = Stage::begin_with(Options { keys: "hi".into(), ..Options::default() });
    let (client, mut bridge) = stage.compositor();
    let device = keyboard(&mut bridge);
    let mut application = Application::with_gpu(&client, &mut bridge, GpuLimits::default());
    let request = GuiRequest::RequestInputDevice { pid: application.pid(), device };
    assert_eq!(application.denial(request), DenialReason::Unauthorized);
    let refused = stage.stranger().request_input_device(device).unwrap_err();
    assert_eq!(refused.denial_reason(), Some(DenialReason::Unauthorized));

    let mut input = bridge.request_input_device(device).unwrap();
    let mut typed = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while typed.len() < 2 {
        assert!(Instant::now() < deadline, "only {typed:?} was typed");
        let events = input.read_events(Duration::from_millis(200)).unwrap();
        typed.extend(events.iter().filter(|event| event.is_key_press()).map(|event| event.code));
    }
    // KEY_H and KEY_I.
    assert_eq!(typed, [35, 23]);
    let held = Capability::InputDevice { device, exclusive: false };
    assert!(bridge.has_capability(held).unwrap());
    let twice = bridge.request_input_device(device).unwrap_err();
    assert_eq!(twice.denial_reason(), Some(DenialReason::AlreadyHeld));
    let kinds = bridge.devices().unwrap();
    assert!(kinds.iter().any(|device| device.kind == DeviceKind::Pointer), "{kinds:?}");

    bridge.unregister_compositor().unwrap();
    await_end(&mut input);
    assert!(!bridge.has_capability(held).unwrap());
}

/// The compositor, and it alone, changes what a screen shows; when it is gone the screen is as before.
#[test]
fn display_mode_setting_works() {
    let stage = Stage::begin();
    let (client, mut bridge) = stage.compositor();
    let before = bridge.connectors().unwrap();
    let (initial, other) = (before[0].current.unwrap(), *before[0].modes.last().unwrap());
    assert_ne!(initial, other);

    // There is a compositor, and that lets nobody else set a mode.
    let mut application = Application::with_gpu(&client, &mut bridge, GpuLimits::default());
    let request = GuiRequest::SetDisplayMode { connector: FIRST, mode: other };
    assert_eq!(application.denial(request), DenialReason::Unauthorized);
    let refused = stage.stranger().set_display_mode(FIRST, other).unwrap_err();
    assert_eq!(refused.denial_reason(), Some(DenialReason::Unauthorized));
    let lacking = DisplayMode { refresh_mhz: other.refresh_mhz + 1, ..other };
    let invalid = bridge.set_display_mode(FIRST, lacking).unwrap_err();
    assert_eq!(invalid.denial_reason(), Some(DenialReason::InvalidConfig));
    let unknown = bridge.set_display_mode(ConnectorId(99), other).unwrap_err();
    assert_eq!(unknown.denial_reason(), Some(DenialReason::DeviceNotFound));
    assert_eq!(bridge.connectors().unwrap(), before);

    bridge.set_display_mode(FIRST, other).unwrap();
    assert_eq!(bridge.connectors().unwrap()[0].current, Some(other));
    let drawable = application.create_surface(SMALL);
    application.draw(drawable.id, 0, &[0, 0, 255, 0]);
    bridge.present_surface(FIRST, drawable.id, &[]).unwrap();
    let picture = stage.picture(FIRST);
    assert_eq!((picture.size, picture.at(0, 0)), ((other.width, other.height), [255, 0, 0]));

    drop((bridge, client));
    let (_client, mut next) = stage.next_compositor();
    assert_eq!(next.connectors().unwrap(), before);
    next.request_gpu(GpuLimits::default()).unwrap();
    let black = next.create_surface(SMALL).unwrap();
    next.present_surface(FIRST, black.id(), &[]).unwrap();
    let picture = stage.picture(FIRST);
    assert_eq!((picture.size, picture.lit_count()), ((initial.width, initial.height), 0));
}

/// The document's access control: what is the compositor's alone, what an application may, and what is enforced of it.
#[test]
fn security_enforced() {
    let stage = Stage::begin();
    let (client, mut bridge) = stage.compositor();
    let limits = GpuLimits { memory_mb: MAX_PROCESS_GPU_MEMORY, max_surfaces: 2 };
    let mut one = Application::with_gpu(&client, &mut bridge, limits);
    let mut other = Application::with_gpu(&client, &mut bridge, limits);
    let (pid, compositor) = (one.pid(), Pid(client.pid()));
    let drawable = one.create_surface(SMALL);

    // Compositor-only, also for who names the compositor's pid.
    let mode = bridge.connectors().unwrap()[0].modes[0];
    for pid in [pid, compositor, other.pid(), Pid(0)] {
        let reserved = [
            GuiRequest::SetDisplayMode { connector: FIRST, mode },
            GuiRequest::RequestInputDevice { pid, device: DeviceId(1) },
            GuiRequest::RegisterCompositor { pid },
            GuiRequest::UnregisterCompositor { pid },
        ];
        for request in reserved {
            assert_eq!(one.denial(request.clone()), DenialReason::Unauthorized, "{request:?}");
        }
        let register = one.ask(&Request::RegisterApplication { pid, process: 1 });
        assert_eq!(register, DenialReason::Unauthorized.into());
    }
    // In another's name, and another's surface.
    let stolen = GuiRequest::DestroySurface { pid, surface: drawable.id };
    assert_eq!(other.denial(stolen), DenialReason::Unauthorized);
    let stolen = GuiRequest::DestroySurface { pid: other.pid(), surface: drawable.id };
    assert_eq!(other.denial(stolen), DenialReason::Unauthorized);
    let spied = GuiRequest::HasCapability { pid, capability: Capability::SurfaceManagement };
    assert_eq!(other.denial(spied), DenialReason::Unauthorized);
    // One compositor, by its door.
    let second = stage.stranger().register_compositor().unwrap_err();
    assert_eq!(second.denial_reason(), Some(DenialReason::AlreadyHeld));

    // What a process held ends with it, and others have it.
    let _rest = [(); 2].map(|()| Application::with_gpu(&client, &mut bridge, limits));
    assert_eq!(next_surface(&mut bridge).surface, drawable.id);
    let full = bridge.request_gpu(limits).unwrap_err();
    assert_eq!(full.denial_reason(), Some(DenialReason::ResourceLimitExceeded));
    one.kill();
    assert_eq!(next_event(&mut bridge), Event::SurfaceDestroyed { surface: drawable.id });
    assert_eq!(next_event(&mut bridge), Event::ApplicationGone { pid });
    bridge.request_gpu(limits).unwrap();
    assert_eq!(
        bridge.present_surface(FIRST, drawable.id, &[]).unwrap_err().denial_reason(),
        Some(DenialReason::DeviceNotFound)
    );

    // And what all held ends with the compositor.
    let mut input = bridge.request_input_device(DeviceId(1)).unwrap();
    drop((bridge, client));
    await_end(&mut input);
    assert_eq!(last_event(&mut other), Event::CompositorGone);
    let pid = other.pid();
    let request = GuiRequest::CreateSurface { pid, config: SMALL };
    assert_eq!(other.denial(request), DenialReason::Unauthorized);
}

/// Reads what an application was told until it is told that the compositor is gone.
fn last_event(application: &mut Application) -> Event {
    loop {
        match application.next_event() {
            Event::Registered | Event::Granted { .. } | Event::Revoked { .. } => {}
            other => return other,
        }
    }
}

/// Said to this program when it is to be a bridge and nothing else.
const ALONE: &str = "KEYWAY_TEST_BRIDGE_ALONE";

/// How far from a target of the document a figure may be here: other programs run beside the tests, and nothing is optimised.
const SLACK: u32 = 10;

/// Within ten times of each target, in the best of many: `bench/run` measures them truly, and knows the first as an aim.
#[test]
fn performance_targets_met() {
    let stage = Stage::begin();
    let (_client, mut bridge) = stage.compositor();
    let device = keyboard(&mut bridge);
    let modes = bridge.connectors().unwrap()[0].modes.clone();
    let round_trip = fastest(&mut bridge, |bridge, _| assert!(!bridge.is_mobile_device().unwrap()));
    assert!(round_trip < SLACK * Duration::from_micros(100), "a round trip took {round_trip:?}");
    let mode_set =
        fastest(&mut bridge, |bridge, round| bridge.set_display_mode(FIRST, modes[round % 2]).unwrap());
    assert!(mode_set < SLACK * Duration::from_millis(50), "a mode took {mode_set:?}");
    let grants = (0..20).map(|_| {
        bridge.unregister_compositor().unwrap();
        bridge.register_compositor().unwrap();
        let began = Instant::now();
        bridge.request_gpu(GpuLimits::default()).unwrap();
        bridge.request_input_device(device).unwrap();
        began.elapsed()
    });
    let grant = grants.min().unwrap();
    assert!(grant < SLACK * Duration::from_millis(1), "two grants took {grant:?}");

    let mut alone = Command::new(env::current_exe().unwrap());
    let output =
        alone.args(["--exact", "criteria::a_bridge_alone", "--nocapture"]).env(ALONE, "1").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let bytes = said.lines().find_map(|line| line.split_once("bytes:")).unwrap_or_else(|| panic!("{said}")).1;
    let bytes: u64 = bytes.trim().parse().unwrap();
    assert!((1..1 << 20).contains(&bytes), "the bridge has {bytes} bytes");
}

/// The shortest that something took of many times.
fn fastest(bridge: &mut Bridge, what: impl Fn(&mut Bridge, usize)) -> Duration {
    let took = (0..100).map(|round| {
        let began = Instant::now();
        what(bridge, round);
        began.elapsed()
    });
    took.min().unwrap()
}

/// Says how much memory a bridge takes, where a process has told this one to; nothing otherwise.
#[test]
fn a_bridge_alone() {
    if env::var_os(ALONE).is_none() {
        return;
    }
    let broker = Embedded::start().unwrap();
    let owner = Client::over(broker.connect().unwrap()).unwrap();
    let before = own_bytes();
    let mut seat = Seat::start(&owner, Options::default()).unwrap();
    for _ in 0..10 {
        seat.turn(Duration::from_millis(1)).unwrap();
    }
    println!("\nbytes:{}", own_bytes() - before);
}

/// What this process has in memory that no other has.
fn own_bytes() -> u64 {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// None of the bridge's tests is left out: what passes when the suite does is all of them.
#[test]
fn tests_pass() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut sources = Vec::new();
    let mut directories =
        ["gui/src", "seat/src", "seat/tests", "keyway/src/bridge"].map(|it| crates.join(it)).to_vec();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                _ if path.is_dir() => directories.push(path),
                Some(extension) if extension == "rs" => sources.push(path),
                _ => {}
            }
        }
    }
    let mut count = 0;
    for path in sources {
        let text = fs::read_to_string(&path).unwrap();
        let attributes = || text.lines().map(str::trim).filter(|line| line.starts_with("#["));
        count += attributes().filter(|line| *line == "#[test]").count();
        let left_out: Vec<_> = attributes().filter(|line| line.starts_with("#[ignore")).collect();
        assert!(left_out.is_empty(), "{}: {left_out:?}", path.display());
    }
    assert!(count > 200, "only {count} tests");
}
