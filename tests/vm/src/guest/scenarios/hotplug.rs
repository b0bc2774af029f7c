//! A touchscreen is plugged in, used, and pulled out while it is used.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use evdev::{
    AbsInfo, AbsoluteAxisCode, AttributeSet, EventType, InputEvent, KeyCode, PropType, UinputAbsSetup,
    uinput::VirtualDevice,
};
use keyway::bridge::{
    BridgeEvent, Capability, DeviceId, DeviceInfo, DeviceKind, Event, InputDevice, Presence, Reason,
};

use crate::{compositor::Compositor, stage::Stage};

const NAME: &str = "Keyway test touchscreen";
/// The largest coordinate of both axes.
const END: i32 = 4095;

pub fn hotplug(stage: &mut Stage) -> Result<()> {
    let _broker = stage.start_broker(&[])?;
    let _bridge = stage.start_bridge(&["--backend", "drm"])?;
    let mut compositor = Compositor::begin()?;
    let before = compositor.bridge.devices()?;

    // Twice: what was pulled out can come again, as another device.
    let mut last = None;
    for round in 1..=2 {
        let mut touchscreen = plug_in()?;
        let device = await_added(&mut compositor)?;
        ensure!(device.kind == DeviceKind::Touchscreen, "round {round}: it is a {:?}", device.kind);
        ensure!(last != Some(device.id), "the number of a device that is gone names another");
        expect_touchscreen(&mut compositor, Presence::Present)?;
        let mut granted = compositor.bridge.request_input_device(device.id)?;
        touch(&mut touchscreen, 1000, 3000)?;
        let places = places(&mut granted)?;
        ensure!(places == [1000, 3000], "round {round}: touched at {places:?}");

        drop(touchscreen);
        await_removed(&mut compositor, device.id)?;
        ensure!(granted.read_events(Duration::from_secs(5))?.is_empty(), "events of a device that is gone");
        ensure!(granted.has_ended(), "round {round}: the grant did not end");
        let refused = compositor.bridge.request_input_device(device.id).err();
        let reason = refused.and_then(|error| error.denial_reason()).context("a device that is gone")?;
        ensure!(format!("{reason:?}") == "DeviceNotFound", "refused because of {reason:?}");
        expect_touchscreen(&mut compositor, Presence::Absent)?;
        last = Some(device.id);
    }
    let after = compositor.bridge.devices()?;
    ensure!(before == after, "there were {before:?}, and there are {after:?}");
    Ok(())
}

/// What the bridge has looked at to say what kind of machine this is.
fn expect_touchscreen(compositor: &mut Compositor, expected: Presence) -> Result<()> {
    let reasons = compositor.bridge.describe()?.device_type.reasons;
    let found = reasons.contains(&Reason::Touchscreen(expected));
    ensure!(found, "a touchscreen is {expected:?}, and the reasons are {reasons:?}");
    Ok(())
}

fn plug_in() -> Result<VirtualDevice> {
    let axis = |code| UinputAbsSetup::new(code, AbsInfo::new(0, 0, END, 0, 0, 10));
    let device = VirtualDevice::builder()?
        .name(NAME)
        .with_absolute_axis(&axis(AbsoluteAxisCode::ABS_X))?
        .with_absolute_axis(&axis(AbsoluteAxisCode::ABS_Y))?
        .with_keys(&AttributeSet::from_iter([KeyCode::BTN_TOUCH]))?
        .with_properties(&AttributeSet::from_iter([PropType::DIRECT]))?
        .build()?;
    Ok(device)
}

fn touch(device: &mut VirtualDevice, x: i32, y: i32) -> Result<()> {
    let place = |code: AbsoluteAxisCode, value| InputEvent::new(EventType::ABSOLUTE.0, code.0, value);
    let down = InputEvent::new(EventType::KEY.0, KeyCode::BTN_TOUCH.0, 1);
    device.emit(&[place(AbsoluteAxisCode::ABS_X, x), place(AbsoluteAxisCode::ABS_Y, y), down])?;
    Ok(())
}

/// The values of the first report's axes.
fn places(device: &mut InputDevice) -> Result<Vec<i32>> {
    let events = device.read_events(Duration::from_secs(5))?;
    let places = events.iter().filter(|event| event.kind == EventType::ABSOLUTE.0);
    Ok(places.map(|event| event.value).collect())
}

fn await_added(compositor: &mut Compositor) -> Result<DeviceInfo> {
    loop {
        if let BridgeEvent::Other(Event::DeviceAdded(device)) = compositor.next_event()?
            && device.name == NAME
        {
            return Ok(device);
        }
    }
}

/// The grant is told to have ended before the device is told to be gone.
fn await_removed(compositor: &mut Compositor, device: DeviceId) -> Result<()> {
    let mut is_revoked = false;
    loop {
        match compositor.next_event()? {
            BridgeEvent::Other(Event::Revoked { capability }) => {
                let expected = Capability::InputDevice { device, exclusive: false };
                ensure!(capability == expected, "revoked: {capability:?}");
                is_revoked = true;
            }
            BridgeEvent::Other(Event::DeviceRemoved { device: gone }) if gone == device => {
                ensure!(is_revoked, "the device went and its grant stayed");
                return Ok(());
            }
            _ => {}
        }
    }
}
