//! A small compositor over the bridge: what the scenarios show on the real screens.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use keyway::{
    Client,
    bridge::{
        Bridge, BridgeEvent, ConnectorInfo, DisplayMode, Gpu, GpuLimits, PixelFormat, Surface, SurfaceConfig,
    },
};
use keyway_vm::protocol::{Display, Pixel};

use crate::{
    hardware,
    stage::{SOCKET, Stage},
};

/// How each screen begins: as large as QEMU says.
pub const FIRST_MODE: (u32, u32) = (1280, 800);
/// Another that both have.
pub const OTHER_MODE: (u32, u32) = (1024, 768);

/// Colours of the quadrants: upper left, upper right, lower left, lower right.
pub type Quadrants = [[u8; 3]; 4];
pub const MORNING: Quadrants = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]];
pub const EVENING: Quadrants = [[17, 34, 51], [200, 100, 50], [1, 2, 3], [90, 0, 90]];
pub const BLACK: Quadrants = [[0; 3]; 4];

/// See the module.
pub struct Compositor {
    pub bridge: Bridge,
    pub gpu: Gpu,
    _client: Client,
}

impl Compositor {
    /// Registers, and takes the GPU.
    pub fn begin() -> Result<Self> {
        let client = Client::connect_to(Path::new(SOCKET))?;
        let mut bridge = Bridge::connect(&client)?;
        bridge.register_compositor()?;
        let gpu = bridge.request_gpu(GpuLimits::default())?;
        Ok(Compositor { bridge, gpu, _client: client })
    }

    /// The connector of a display.
    pub fn connector(&mut self, display: Display) -> Result<ConnectorInfo> {
        let card = hardware::card(display)?;
        let card = card.file_name().context("a card has a name")?.to_string_lossy().into_owned();
        let connectors = self.bridge.connectors()?;
        let found = connectors.into_iter().find(|connector| connector.name.starts_with(&format!("{card}-")));
        found.with_context(|| format!("no connector of {card}"))
    }

    /// Sets the mode of this size.
    pub fn set_mode(&mut self, connector: &ConnectorInfo, size: (u32, u32)) -> Result<DisplayMode> {
        let mode = connector.modes.iter().find(|mode| (mode.width, mode.height) == size);
        let mode = *mode.with_context(|| format!("no mode of {size:?} among {:?}", connector.modes))?;
        self.bridge.set_display_mode(connector.id, mode)?;
        Ok(mode)
    }

    /// The next thing that the bridge tells, within some seconds.
    pub fn next_event(&mut self) -> Result<BridgeEvent> {
        self.bridge.next_event(Duration::from_secs(5)).context("the bridge tells nothing more")
    }

    /// A surface of this size, in four colours.
    pub fn surface(&mut self, (width, height): (u32, u32), colours: Quadrants) -> Result<Surface> {
        let config = SurfaceConfig { width, height, format: PixelFormat::XRGB8888, stride: None };
        let surface = self.bridge.create_surface(config)?;
        paint(&surface, (width, height), colours)?;
        Ok(surface)
    }
}

/// Draws the four colours on a surface of this size.
pub fn paint(surface: &Surface, (width, height): (u32, u32), colours: Quadrants) -> Result<()> {
    let memory = |[red, green, blue]: [u8; 3]| [blue, green, red, 0];
    for y in 0..height {
        let below = usize::from(y >= height / 2) * 2;
        let mut row = memory(colours[below]).repeat(width as usize / 2);
        row.extend(memory(colours[below + 1]).repeat(width as usize - width as usize / 2));
        surface.write((y * surface.stride()) as usize, &row)?;
    }
    Ok(())
}

/// The outermost and innermost pixels of the quadrants.
pub fn pixels((width, height): (u32, u32), colours: Quadrants) -> Vec<Pixel> {
    let (x, y) = (width / 2, height / 2);
    let places = [
        [(0, 0), (x - 1, y - 1)],
        [(width - 1, 0), (x, y - 1)],
        [(0, height - 1), (x - 1, y)],
        [(width - 1, height - 1), (x, y)],
    ];
    let pairs = places.into_iter().zip(colours);
    pairs.flat_map(|(places, rgb)| places.map(|(x, y)| Pixel { x, y, rgb })).collect()
}

/// Demands that the first screen soon shows the kernel's console, as it did at first: black but for a cursor, and not what QEMU says of a
/// screen that is off, which is a line of text in the middle.
pub fn expect_console(stage: &mut Stage, name: &str) -> Result<()> {
    let middle = (FIRST_MODE.0 / 2 - 120..FIRST_MODE.0 / 2 + 120).flat_map(|x| {
        (FIRST_MODE.1 / 2 - 16..FIRST_MODE.1 / 2 + 16).step_by(4).map(move |y| Pixel { x, y, rgb: [0; 3] })
    });
    stage.expect_pixels(Display::Virtio, name, FIRST_MODE, &middle.collect::<Vec<_>>())
}
