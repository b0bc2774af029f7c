//! The roles of the compositor and the application.

use std::{
    thread,
    time::{Duration, Instant},
};

use keyway::{
    Client, Queue, QueueOptions, RegionReader,
    bridge::{
        Bridge, BridgeEvent, ConnectorInfo, DeviceKind, DisplayMode, Event, GpuLimits, InputDevice, Pid,
        PixelFormat, Role, Surface, SurfaceConfig,
    },
};

use super::{
    report::{Failed, Percentiles, Report, Reporter},
    stage::SOON,
};

/// What the virtual keyboard types, and the key codes of it (`input-event-codes.h`).
pub(super) const TYPED: &str = "hello";
const KEY_CODES: [(u16, char); 4] = [(35, 'h'), (18, 'e'), (38, 'l'), (24, 'o')];
/// How often the mode is set, and the bridge asked, for the figures.
const MODE_SETS: usize = 40;
const QUESTIONS: usize = 5_000;

/// The application's window, and where the compositor puts it.
pub(super) const WINDOW: (u32, u32) = (320, 200);
const WINDOW_AT: (u32, u32) = (480, 260);
const WINDOW_PIXEL: u32 = 0x00ff_8c1a;
const BACKGROUND: u32 = 0x0014_2a4c;

/// The compositor.
pub(super) fn compose() -> Result<(), Failed> {
    let client = Client::connect()?;
    let mut reporter = Reporter::open(&client)?;
    let mut inbox = client.create_queue(QueueOptions::default())?;
    reporter.hand_over(&inbox)?;
    let mut bridge = Bridge::connect(&client)?;
    let mut input = take_seat(&mut bridge, &mut reporter)?;
    reporter.tell(&Report::Typed(read_keys(&mut input)?))?;
    let connector = first_connector(&mut bridge)?;
    let mode = *connector.modes.first().ok_or(Failed("a connector without modes".into()))?;
    bridge.set_display_mode(connector.id, mode)?;
    let format = PixelFormat::XRGB8888;
    let config = SurfaceConfig { width: mode.width, height: mode.height, format, stride: None };
    let canvas = bridge.create_surface(config)?;
    register_application(&mut inbox, &mut bridge)?;
    let window = next_window(&mut bridge)?;
    // The application tells the tour when it has drawn, and the tour tells us.
    inbox.receive_timeout(SOON)?;
    paint(&canvas, mode, &window)?;
    bridge.present_surface(connector.id, canvas.id(), &[])?;
    let (x, y) = WINDOW_AT;
    reporter.tell(&Report::Shown { x, y, background: BACKGROUND })?;
    inbox.receive_timeout(SOON)?;
    bridge.unregister_compositor()?;
    await_end(&mut input)?;
    reporter.tell(&Report::InputEnded)
}

/// The application: draws one window.
pub(super) fn draw() -> Result<(), Failed> {
    let client = Client::connect()?;
    let mut reporter = Reporter::open(&client)?;
    let mut bridge = Bridge::connect(&client)?;
    // The tour tells the compositor of this process, which must have spoken for that.
    reporter.tell(&Report::Ready)?;
    await_registration(&mut bridge)?;
    bridge.request_gpu(GpuLimits { memory_mb: 16, max_surfaces: 2 })?;
    let (width, height) = WINDOW;
    let config = SurfaceConfig { width, height, format: PixelFormat::XRGB8888, stride: None };
    let surface = bridge.create_surface(config)?;
    let row: Vec<u8> = (0..width).flat_map(|_| WINDOW_PIXEL.to_ne_bytes()).collect();
    for y in 0..height {
        surface.write(y as usize * surface.stride() as usize, &row)?;
    }
    reporter.tell(&Report::Drawn { surface: surface.id().0, pixel: WINDOW_PIXEL })?;
    wait_for(&mut bridge, |event| matches!(event, BridgeEvent::Other(Event::CompositorGone)))
}

/// Registers, takes the keyboard and the GPU, sets modes, and reports how long each took.
fn take_seat(bridge: &mut Bridge, reporter: &mut Reporter) -> Result<InputDevice, Failed> {
    let (register_ns, ()) = timed(|| Ok(bridge.register_compositor()?))?;
    let connector = first_connector(bridge)?;
    let keyboard = bridge.devices()?.into_iter().find(|device| device.kind == DeviceKind::Keyboard);
    let keyboard = keyboard.ok_or(Failed("no keyboard".into()))?;
    let (input_grant_ns, input) = timed(|| Ok(bridge.request_input_device(keyboard.id)?))?;
    let (gpu_grant_ns, _) = timed(|| Ok(bridge.request_gpu(GpuLimits::default())?))?;
    let mut times = Vec::new();
    for mode in connector.modes.iter().cycle().take(MODE_SETS) {
        times.push(timed(|| Ok(bridge.set_display_mode(connector.id, *mode)?))?.0);
    }
    let mode_set = Percentiles::of(times);
    let mut times = Vec::new();
    for _ in 0..QUESTIONS {
        times.push(timed(|| Ok(bridge.is_mobile_device()?))?.0);
    }
    let bridge = Percentiles::of(times);
    reporter.tell(&Report::Composed { register_ns, input_grant_ns, gpu_grant_ns, mode_set, bridge })?;
    Ok(input)
}

fn first_connector(bridge: &mut Bridge) -> Result<ConnectorInfo, Failed> {
    bridge.connectors()?.into_iter().next().ok_or(Failed("no connector".into()))
}

fn register_application(inbox: &mut Queue, bridge: &mut Bridge) -> Result<(), Failed> {
    let message = inbox.receive_timeout(SOON)?;
    let pid = message.payload.first_chunk().copied().map(u32::from_le_bytes);
    let pid = Pid(pid.ok_or(Failed("an application without a pid".into()))?);
    let process = message.capabilities.into_iter().next().ok_or(Failed("no application".into()))??;
    Ok(bridge.register_application(&process, pid)?)
}

/// The next surface of an application, mapped for reading.
fn next_window(bridge: &mut Bridge) -> Result<(RegionReader, usize), Failed> {
    let until = Instant::now() + SOON;
    while Instant::now() < until {
        if let BridgeEvent::SurfaceCreated(surface) = bridge.next_event(SOON)? {
            let stride = surface.layout.stride as usize;
            return Ok((surface.map(SOON)?, stride));
        }
    }
    Err(Failed("no application has made a surface".into()))
}

/// Composes: the background, and the application's window on it.
fn paint(canvas: &Surface, mode: DisplayMode, window: &(RegionReader, usize)) -> Result<(), Failed> {
    let row: Vec<u8> = (0..mode.width).flat_map(|_| BACKGROUND.to_ne_bytes()).collect();
    let stride = canvas.stride() as usize;
    for y in 0..mode.height as usize {
        canvas.write(y * stride, &row)?;
    }
    let (pixels, window_stride) = window;
    let mut row = vec![0; WINDOW.0 as usize * 4];
    for y in 0..WINDOW.1 as usize {
        pixels.read(y * window_stride, &mut row)?;
        canvas.write((WINDOW_AT.1 as usize + y) * stride + WINDOW_AT.0 as usize * 4, &row)?;
    }
    Ok(())
}

/// Reads keys until the whole text has come.
fn read_keys(input: &mut InputDevice) -> Result<String, Failed> {
    let (mut text, until) = (String::new(), Instant::now() + SOON);
    while text.len() < TYPED.len() && Instant::now() < until {
        for event in input.read_events(Duration::from_millis(200))? {
            let pressed = event.is_key_press();
            let letter = KEY_CODES.iter().find(|(code, _)| pressed && *code == event.code);
            text.extend(letter.map(|(_, letter)| *letter));
        }
    }
    Ok(text)
}

/// The descriptor is at its end, whatever was typed before.
fn await_end(input: &mut InputDevice) -> Result<(), Failed> {
    let until = Instant::now() + SOON;
    while Instant::now() < until {
        input.read_events(Duration::from_millis(50))?;
        if input.has_ended() {
            return Ok(());
        }
    }
    Err(Failed("the keyboard lives on".into()))
}

/// The registration may have come before this process listened.
fn await_registration(bridge: &mut Bridge) -> Result<(), Failed> {
    let until = Instant::now() + SOON;
    while Instant::now() < until {
        if bridge.describe()?.role == Role::Application {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Err(Failed("no compositor has registered the application".into()))
}

fn wait_for(bridge: &mut Bridge, wanted: impl Fn(&BridgeEvent) -> bool) -> Result<(), Failed> {
    let until = Instant::now() + SOON;
    while Instant::now() < until {
        if wanted(&bridge.next_event(SOON)?) {
            return Ok(());
        }
    }
    Err(Failed("the bridge did not say what was waited for".into()))
}

fn timed<T>(act: impl FnOnce() -> Result<T, Failed>) -> Result<(u64, T), Failed> {
    let began = Instant::now();
    let value = act()?;
    Ok((began.elapsed().as_nanos() as u64, value))
}
