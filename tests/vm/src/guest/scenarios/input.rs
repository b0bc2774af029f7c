//! The bridge on real input devices: what is typed arrives, and stops arriving when the grant ends.

use std::{fs::File, io::Read, time::Duration};

use anyhow::{Context, Result, ensure};
use keyway::bridge::{DeviceKind, InputDevice, InputEvent};

use crate::{compositor::Compositor, hardware, stage::Stage};

const KEY_A: u16 = 30;
const KEY_B: u16 = 48;

pub fn input(stage: &mut Stage) -> Result<()> {
    let _broker = stage.start_broker(&[])?;
    let _bridge = stage.start_bridge(&["--backend", "drm"])?;
    let mut compositor = Compositor::begin()?;
    let devices = compositor.bridge.devices()?;
    let named = |name: &str| {
        let device = devices.iter().find(|device| device.name == name);
        device.with_context(|| format!("no {name:?} among {devices:?}"))
    };
    let (keyboard, tablet) = (named(hardware::KEYBOARD)?, named(hardware::TABLET)?);
    ensure!(keyboard.kind == DeviceKind::Keyboard, "the keyboard is a {:?}", keyboard.kind);
    // It has the buttons of a mouse.
    ensure!(tablet.kind == DeviceKind::Pointer, "the tablet is a {:?}", tablet.kind);

    // Somebody else who may open the node itself goes on whatever the bridge grants and takes back.
    let mut beside = File::open(hardware::input(hardware::KEYBOARD)?)?;
    let mut granted = compositor.bridge.request_input_device(keyboard.id)?;
    stage.press(&["a", "b"])?;
    ensure!(presses(&mut granted)? == [KEY_A, KEY_B], "the keys did not arrive");

    compositor.bridge.unregister_compositor()?;
    // Told after it is done: the descriptor is dead by now.
    stage.press(&["a"])?;
    let after = granted.read_events(Duration::from_secs(5))?;
    ensure!(after.is_empty() && granted.has_ended(), "after the grant: {after:?}");
    let mut bytes = [0; 4096];
    ensure!(beside.read(&mut bytes)? > 0, "whoever else had the keyboard lost it too");

    // Another grant is another descriptor.
    compositor.bridge.register_compositor()?;
    let mut again = compositor.bridge.request_input_device(keyboard.id)?;
    stage.press(&["b"])?;
    ensure!(presses(&mut again)? == [KEY_B], "the keys of another grant did not arrive");
    Ok(())
}

/// The keys that went down, until one was let go and nothing came for a while.
pub fn presses(device: &mut InputDevice) -> Result<Vec<u16>> {
    let mut pressed = Vec::new();
    let mut patience = Duration::from_secs(5);
    loop {
        let events = device.read_events(patience)?;
        if events.is_empty() {
            return Ok(pressed);
        }
        pressed
            .extend(events.iter().filter(|event| event.is_key_press()).map(|event: &InputEvent| event.code));
        patience = Duration::from_millis(300);
    }
}
