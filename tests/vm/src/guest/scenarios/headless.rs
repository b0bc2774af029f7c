//! A broker and the bridge with virtual screens serve a compositor, all of root. Another user gets nothing of it.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use keyway::{
    Client,
    bridge::{Bridge, DenialReason, DeviceKind, GpuLimits, PixelFormat, Role, SurfaceConfig},
};
use keyway_vm::{picture::Picture, protocol::Pixel};

use crate::stage::{SOCKET, Stage};

const USER: u32 = 1000;
/// What the first screen of the bridge shows.
const SCREEN: &str = "/run/screen.png";
/// Of the surface, as it lies in memory: blue, green, red, nothing.
const COLOUR: [u8; 4] = [51, 34, 17, 0];
/// The key `k`, as `input-event-codes.h` numbers it.
const KEY_K: u16 = 37;

pub fn headless(stage: &mut Stage) -> Result<()> {
    let _broker = stage.start_broker(&[])?;
    let _bridge = stage.start_bridge(&["--backend", "headless", "--screenshot", SCREEN, "--keys", "k"])?;
    stage.as_user(USER, "stranger", &[])?;
    compose()
}

/// Can speak to the bridge, and demands that it cannot become the compositor.
pub fn stranger(_: &[&str]) -> Result<()> {
    let client = Client::connect_to(Path::new(SOCKET))?;
    let mut bridge = Bridge::connect(&client)?;
    let refused = bridge.register_compositor().err().and_then(|error| error.denial_reason());
    ensure!(refused == Some(DenialReason::Unauthorized), "expected Unauthorized, found {refused:?}");
    Ok(())
}

/// Takes the keyboard, sets a mode, draws on a surface of that size, and shows it.
fn compose() -> Result<()> {
    let client = Client::connect_to(Path::new(SOCKET))?;
    let mut bridge = Bridge::connect(&client)?;
    bridge.register_compositor()?;
    ensure!(bridge.describe()?.role == Role::Compositor, "registered, and no compositor");

    let devices = bridge.devices()?;
    let keyboard =
        devices.iter().find(|device| device.kind == DeviceKind::Keyboard).context("no keyboard")?;
    let events = bridge.request_input_device(keyboard.id)?.read_events(Duration::from_secs(5))?;
    let pressed: Vec<u16> = events.iter().filter(|event| event.is_key_press()).map(|e| e.code).collect();
    ensure!(pressed == [KEY_K], "pressed: {pressed:?}");

    let connectors = bridge.connectors()?;
    let connector = connectors.first().context("no connector")?;
    let mode = *connector.modes.last().context("no mode")?;
    bridge.set_display_mode(connector.id, mode)?;
    bridge.request_gpu(GpuLimits::default())?;
    let (width, height) = (mode.width, mode.height);
    let config = SurfaceConfig { width, height, format: PixelFormat::XRGB8888, stride: None };
    let surface = bridge.create_surface(config)?;
    let row = COLOUR.repeat(width as usize);
    for y in 0..height {
        surface.write((y * surface.stride()) as usize, &row)?;
    }
    bridge.present_surface(connector.id, surface.id(), &[])?;

    let rgb = [COLOUR[2], COLOUR[1], COLOUR[0]];
    let corners = [(0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)];
    let corners = corners.map(|(x, y)| Pixel { x, y, rgb });
    let picture = Picture::read(Path::new(SCREEN))?;
    picture.check((width, height), &corners).map_err(anyhow::Error::msg)
}
