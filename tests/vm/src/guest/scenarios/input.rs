//! The bridge on real input devices: what is typed arrives, at nobody else where it is to be so, and stops arriving when the grant ends.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use evdev::Device;
use keyway::bridge::{BridgeError, DenialReason, DeviceId, DeviceKind, InputDevice, InputEvent};

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
    compositor.bridge.unregister_compositor()?;
    exclusive(stage, &mut compositor, keyboard.id)
}

/// Nobody else reads a device that is granted so, and nobody else gets it so. Whoever had it before reads it again afterwards.
fn exclusive(stage: &mut Stage, compositor: &mut Compositor, keyboard: DeviceId) -> Result<()> {
    let mut beside = beside()?;
    compositor.bridge.register_compositor()?;
    let mut granted = compositor.bridge.request_exclusive_input(keyboard)?;
    stage.press(&["a", "b"])?;
    ensure!(presses(&mut granted)? == [KEY_A, KEY_B], "the keys of an exclusive grant did not arrive");
    ensure!(read(&mut beside)? == 0, "another process read what was granted to one alone");
    let grabbed = Device::open(hardware::input(hardware::KEYBOARD)?)?.grab();
    ensure!(grabbed.is_err(), "another process took what was granted to one alone");

    compositor.bridge.unregister_compositor()?;
    stage.press(&["a"])?;
    let after = granted.read_events(Duration::from_secs(5))?;
    ensure!(after.is_empty() && granted.has_ended(), "after the exclusive grant: {after:?}");
    ensure!(read(&mut beside)? > 0, "whoever else had the keyboard did not get it back");

    // Whoever has it for itself is not robbed of it, and the next one can have it.
    let mut other = Device::open(hardware::input(hardware::KEYBOARD)?)?;
    other.grab()?;
    compositor.bridge.register_compositor()?;
    let denied = compositor.bridge.request_exclusive_input(keyboard).err();
    let reason = denied.as_ref().and_then(BridgeError::denial_reason);
    ensure!(reason == Some(DenialReason::AlreadyHeld), "while another has it: {denied:?}");
    drop(other);
    compositor.bridge.request_exclusive_input(keyboard)?;
    Ok(())
}

/// The keyboard, opened as any program of root's can.
fn beside() -> Result<File> {
    let node = hardware::input(hardware::KEYBOARD)?;
    Ok(File::options().read(true).custom_flags(O_NONBLOCK).open(node)?)
}

/// How many bytes have come, which may be none.
fn read(file: &mut File) -> Result<usize> {
    match file.read(&mut [0; 4096]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        read => Ok(read?),
    }
}

/// Of `fcntl.h`.
const O_NONBLOCK: i32 = 0o4000;

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
