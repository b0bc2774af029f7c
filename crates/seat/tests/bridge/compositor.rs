//! What a compositor can see and do.

use std::time::{Duration, Instant};

use keyway::bridge::{
    Bridge, BridgeError, Capability, ConnectorId, DeviceId, DeviceKind, GpuLimits, InputDevice, InputEvent,
    PixelFormat, Role, SurfaceConfig,
};
use keyway_seat::Options;

use crate::stage::{PATIENCE, Stage};

/// The keyboard, as a compositor finds it.
pub(crate) fn keyboard(bridge: &mut Bridge) -> DeviceId {
    let devices = bridge.devices().unwrap();
    devices.iter().find(|device| device.kind == DeviceKind::Keyboard).unwrap().id
}

/// Reads until the grant has ended, which must be soon.
pub(crate) fn await_end(device: &mut InputDevice) {
    let deadline = Instant::now() + PATIENCE;
    while !device.has_ended() {
        assert!(Instant::now() < deadline, "the grant does not end");
        device.read_events(Duration::from_millis(200)).unwrap();
    }
}

fn read_keys(device: &mut InputDevice, count: usize) -> Vec<u16> {
    let mut keys = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while keys.len() < count && Instant::now() < deadline {
        let events = device.read_events(Duration::from_millis(200)).unwrap();
        keys.extend(events.iter().filter(|event| event.is_key_press()).map(|event| event.code));
    }
    keys
}

#[test]
fn a_compositor_finds_connectors_with_modes_and_devices_of_each_kind() {
    let stage = Stage::begin();
    let (_client, mut bridge) = stage.compositor();
    let connectors = bridge.connectors().unwrap();
    assert!(connectors.len() >= 2, "{connectors:?}");
    for connector in &connectors {
        assert!(connector.modes.len() >= 2, "{connector:?}");
        assert!(connector.modes.contains(&connector.current.unwrap()), "{connector:?}");
    }
    let kinds: Vec<DeviceKind> = bridge.devices().unwrap().iter().map(|device| device.kind).collect();
    assert_eq!(kinds, [DeviceKind::Keyboard, DeviceKind::Pointer, DeviceKind::Touchscreen]);
    assert_eq!(bridge.describe().unwrap().role, Role::Compositor);
}

#[test]
fn each_mode_of_each_connector_is_set_and_its_picture_has_that_size() {
    let stage = Stage::begin();
    let (_client, mut bridge) = stage.compositor();
    bridge.request_gpu(GpuLimits::default()).unwrap();
    let config = SurfaceConfig { width: 2, height: 2, format: PixelFormat::XRGB8888, stride: None };
    let surface = bridge.create_surface(config).unwrap();
    for connector in bridge.connectors().unwrap() {
        for mode in connector.modes {
            bridge.set_display_mode(connector.id, mode).unwrap();
            let listed = bridge.connectors().unwrap();
            let listed = listed.iter().find(|listed| listed.id == connector.id).unwrap();
            assert_eq!(listed.current, Some(mode));
            bridge.present_surface(connector.id, surface.id(), &[]).unwrap();
            assert_eq!(stage.picture(connector.id).size, (mode.width, mode.height));
        }
    }
}

#[test]
fn what_is_typed_arrives_key_by_key() {
    let stage = Stage::begin_with(Options { keys: "hello".into(), ..Options::default() });
    let (_client, mut bridge) = stage.compositor();
    let device = keyboard(&mut bridge);
    let mut input = bridge.request_input_device(device).unwrap();
    assert_eq!(input.id(), device);
    let events = input.read_events(PATIENCE).unwrap();
    let down = InputEvent { kind: 1, code: 35, value: 1 };
    let synced = InputEvent { kind: 0, code: 0, value: 0 };
    assert_eq!(events[..4], [down, synced, InputEvent { value: 0, ..down }, synced]);
    let mut codes: Vec<u16> = events.iter().filter(|event| event.is_key_press()).map(|e| e.code).collect();
    codes.extend(read_keys(&mut input, 5 - codes.len()));
    assert_eq!(codes, [35, 18, 38, 38, 24]);
    assert!(!input.has_ended());
}

#[test]
fn a_device_that_is_taken_for_oneself_is_shown_as_such_until_it_is_taken_back() {
    let stage = Stage::begin_with(Options { keys: "a".into(), ..Options::default() });
    let (_client, mut bridge) = stage.compositor();
    let device = keyboard(&mut bridge);
    let has = |bridge: &mut Bridge, exclusive| {
        bridge.has_capability(Capability::InputDevice { device, exclusive }).unwrap()
    };
    let labels = || -> Vec<String> {
        let entries = stage.owner.capabilities().unwrap();
        entries.iter().filter_map(|entry| Some(entry.label.as_ref()?.to_string())).collect()
    };
    for (exclusive, label) in [(false, "input-1"), (true, "input-1-exclusive")] {
        let taken = if exclusive {
            bridge.request_exclusive_input(device)
        } else {
            bridge.request_input_device(device)
        };
        let mut input = taken.unwrap();
        assert_eq!((input.id(), input.is_exclusive()), (device, exclusive));
        assert_eq!(read_keys(&mut input, 1), [30]);
        assert_eq!((has(&mut bridge, false), has(&mut bridge, true)), (true, exclusive));
        assert_eq!(labels().iter().filter(|held| held.starts_with("input")).collect::<Vec<_>>(), [label]);
        bridge.unregister_compositor().unwrap();
        await_end(&mut input);
        assert_eq!((has(&mut bridge, false), has(&mut bridge, true)), (false, false));
        assert!(!labels().contains(&label.to_owned()));
        bridge.register_compositor().unwrap();
    }
}

#[test]
fn each_device_can_be_taken_and_the_silent_ones_say_nothing() {
    let stage = Stage::begin_with(Options { keys: "x".into(), ..Options::default() });
    let (_client, mut bridge) = stage.compositor();
    for device in bridge.devices().unwrap() {
        let mut input = bridge.request_input_device(device.id).unwrap();
        let events = input.read_events(Duration::from_millis(50)).unwrap();
        assert_eq!(!events.is_empty(), device.kind == DeviceKind::Keyboard, "{device:?}");
        assert!(!input.has_ended(), "{device:?}");
    }
}

#[test]
fn whether_the_machine_is_mobile_is_what_the_options_say() {
    for is_mobile in [true, false] {
        let stage = Stage::begin_with(Options { is_mobile: Some(is_mobile), ..Options::default() });
        // Anyone may ask.
        let mut bridge = stage.stranger();
        assert_eq!(bridge.is_mobile_device().unwrap(), is_mobile);
        assert_eq!(bridge.describe().unwrap().device_type.is_mobile, is_mobile);
    }
}

#[test]
fn a_compositor_has_what_it_was_granted_and_no_more() {
    let stage = Stage::begin();
    let (_client, mut bridge) = stage.compositor();
    let device = keyboard(&mut bridge);
    let gpu = |memory_mb, max_surfaces| Capability::GpuRendering { memory_mb, max_surfaces };
    let input = |device, exclusive| Capability::InputDevice { device, exclusive };
    let has = |bridge: &mut Bridge, expected: &[(Capability, bool)]| {
        for (capability, is_held) in expected {
            assert_eq!(bridge.has_capability(*capability).unwrap(), *is_held, "{capability:?}");
        }
    };
    let display = |connector| Capability::DisplayControl { connector };
    has(
        &mut bridge,
        &[
            (Capability::Compositor, true),
            (display(ConnectorId(1)), true),
            (display(ConnectorId(99)), false),
            (Capability::SurfaceManagement, false),
            (gpu(0, 0), false),
            (input(device, false), false),
        ],
    );
    bridge.request_gpu(GpuLimits { memory_mb: 64, max_surfaces: 4 }).unwrap();
    let _input = bridge.request_input_device(device).unwrap();
    has(
        &mut bridge,
        &[
            (Capability::SurfaceManagement, true),
            (gpu(64, 4), true),
            (gpu(65, 4), false),
            (gpu(64, 5), false),
            (input(device, false), true),
            (input(device, true), false),
            (input(DeviceId(2), false), false),
        ],
    );
    let mut stranger = stage.stranger();
    has(
        &mut stranger,
        &[
            (Capability::Compositor, false),
            (display(ConnectorId(1)), false),
            (Capability::SurfaceManagement, false),
            (gpu(1, 1), false),
            (input(device, false), false),
        ],
    );
    bridge.unregister_compositor().unwrap();
    has(
        &mut bridge,
        &[
            (Capability::Compositor, false),
            (display(ConnectorId(1)), false),
            (gpu(1, 1), false),
            (input(device, false), false),
        ],
    );
    assert_eq!(bridge.describe().unwrap().role, Role::Stranger);
}

#[test]
fn a_bridge_that_is_gone_ends_the_line() {
    let stage = Stage::begin();
    let (_client, mut bridge) = stage.compositor();
    drop(stage);
    match bridge.describe() {
        Err(BridgeError::Keyway(_)) => {}
        other => panic!("the bridge is gone, and somebody answered {other:?}"),
    }
}
