//! A picture on a screen, moved with the arrow keys (or h, j, k, l, as an editor has them), until q or Escape.
//!
//! ```text
//! keyway serve & keyway seat &                              # as a user who may open the graphics card and the keyboard
//! cargo run --release -p keyway --example picture           # on the first screen
//! cargo run --release -p keyway --example picture -- card1  # on the first of which the name begins so
//! ```
//!
//! Without a screen: `keyway seat --backend headless --keys llljjq --screenshot /tmp/screen.png`, and look at the PNG.
//!
//! It is a whole compositor, though of one picture: it registers, sets the mode that the screen likes best, takes the keyboards, draws on
//! the one of two surfaces that is not shown, and shows it. When it ends, however it does, the bridge gives the screen and the keyboards
//! back.

use std::{
    env,
    error::Error,
    process::ExitCode,
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Duration,
};

use keyway::{
    Client,
    bridge::{
        Bridge, ConnectorId, ConnectorInfo, DeviceKind, GpuLimits, InputDevice, PixelFormat, Surface,
        SurfaceConfig,
    },
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match run(&env::args().nth(1).unwrap_or_default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("picture: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(screen: &str) -> Result<()> {
    let client = Client::connect()?;
    let mut bridge = Bridge::connect(&client)?;
    bridge.register_compositor()?;
    bridge.request_gpu(GpuLimits::default())?;

    let connectors = bridge.connectors()?;
    let connector = connectors.iter().find(|connector| connector.name.starts_with(screen));
    let connector = connector.ok_or_else(|| no_such(screen, &connectors))?;
    let mode = *connector.modes.first().ok_or("the screen has no mode")?;
    bridge.set_display_mode(connector.id, mode)?;

    let (width, height) = (mode.width, mode.height);
    let config = SurfaceConfig { width, height, format: PixelFormat::XRGB8888, stride: None };
    let surfaces = [bridge.create_surface(config)?, bridge.create_surface(config)?];
    let mut screen = Screen { bridge, connector: connector.id, surfaces, shown: 0, width, height };

    let keys = take_keyboards(&mut screen.bridge)?;
    let mut place = Place { x: 0, y: 0 };
    screen.show(place)?;
    // Whoever listens at the keyboards ends with them, and so does this.
    for key in keys {
        match key {
            KEY_Q | KEY_ESC => break,
            key => place = place.moved(key, width, height),
        }
        screen.show(place)?;
    }
    screen.bridge.unregister_compositor()?;
    Ok(())
}

fn no_such(screen: &str, connectors: &[ConnectorInfo]) -> String {
    let names: Vec<&str> = connectors.iter().map(|connector| connector.name.as_str()).collect();
    if names.is_empty() {
        return "there is no screen; without one start the bridge with --backend headless".to_owned();
    }
    format!("no screen's name begins with {screen}; there are {}", names.join(", "))
}

/// Codes of `input-event-codes.h`.
const KEY_ESC: u16 = 1;
const KEY_Q: u16 = 16;
const KEY_H: u16 = 35;
const KEY_J: u16 = 36;
const KEY_K: u16 = 37;
const KEY_L: u16 = 38;
const KEY_UP: u16 = 103;
const KEY_LEFT: u16 = 105;
const KEY_RIGHT: u16 = 106;
const KEY_DOWN: u16 = 108;

/// All keys that are pressed, of all keyboards.
fn take_keyboards(bridge: &mut Bridge) -> Result<Receiver<u16>> {
    let (sender, receiver) = mpsc::channel();
    for device in bridge.devices()?.into_iter().filter(|device| device.kind == DeviceKind::Keyboard) {
        let (keyboard, sender) = (bridge.request_input_device(device.id)?, sender.clone());
        thread::spawn(move || listen(keyboard, &sender));
    }
    Ok(receiver)
}

/// Passes on what is pressed, until the keyboard is taken back or nobody cares.
fn listen(mut keyboard: InputDevice, keys: &Sender<u16>) {
    while !keyboard.has_ended() {
        let Ok(events) = keyboard.read_events(Duration::from_secs(1)) else { return };
        for event in events.iter().filter(|event| event.is_key_press()) {
            if keys.send(event.code).is_err() {
                return;
            }
        }
    }
}

/// Where the picture's upper left corner is.
#[derive(Clone, Copy)]
struct Place {
    x: u32,
    y: u32,
}

/// The picture is a square with so many pixels on a side, and moves by as many.
const SIDE: u32 = 64;

impl Place {
    fn moved(self, key: u16, width: u32, height: u32) -> Self {
        let Place { x, y } = self;
        let (right, below) = (width.saturating_sub(SIDE), height.saturating_sub(SIDE));
        match key {
            KEY_LEFT | KEY_H => Place { x: x.saturating_sub(SIDE), y },
            KEY_RIGHT | KEY_L => Place { x: (x + SIDE).min(right), y },
            KEY_UP | KEY_K => Place { x, y: y.saturating_sub(SIDE) },
            KEY_DOWN | KEY_J => Place { x, y: (y + SIDE).min(below) },
            _ => self,
        }
    }
}

struct Screen {
    bridge: Bridge,
    connector: ConnectorId,
    surfaces: [Surface; 2],
    shown: usize,
    width: u32,
    height: u32,
}

/// As they lie in memory: blue, green, red, nothing.
const NIGHT: [u8; 4] = [48, 16, 16, 0];
const ORANGE: [u8; 4] = [0, 128, 255, 0];

impl Screen {
    /// Draws on the surface that is not shown, then shows it.
    fn show(&mut self, place: Place) -> Result<()> {
        let next = 1 - self.shown;
        let surface = &self.surfaces[next];
        let empty = NIGHT.repeat(self.width as usize);
        let (left, right) = (place.x as usize * 4, (place.x + SIDE).min(self.width) as usize * 4);
        let mut crossed = empty.clone();
        for pixel in crossed[left..right].chunks_exact_mut(4) {
            pixel.copy_from_slice(&ORANGE);
        }
        for y in 0..self.height {
            let row = if (place.y..place.y + SIDE).contains(&y) { &crossed } else { &empty };
            surface.write(y as usize * surface.stride() as usize, row)?;
        }
        self.bridge.present_surface(self.connector, surface.id(), &[])?;
        self.shown = next;
        println!("shown at {},{}", place.x, place.y);
        Ok(())
    }
}
