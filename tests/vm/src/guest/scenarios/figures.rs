//! What the seat costs on real devices, beside Debian's seatd in the same machine, and beside Linux's own calls.
//!
//! The machine is emulated, so times mean nothing but beside each other. What is measured alternates with what it is measured
//! beside, and each figure is a median.

use std::{
    fs::{self, File},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use drm::control::{Device as _, Mode, connector, crtc, framebuffer};
use evdev::{AttributeSet, KeyCode, uinput::VirtualDevice};
use keyway::bridge::{ConnectorInfo, DeviceInfo, PixelFormat, SurfaceConfig};
use keyway_vm::protocol::Display;

use super::raw_drm::{Card, paint};
use crate::{
    compositor::{Compositor, FIRST_MODE, OTHER_MODE},
    hardware,
    libseat::{Libseat, SEATD_SOCKET},
    process::Process,
    stage::Stage,
};

const SEATD: &str = "/usr/sbin/seatd";
/// It knows no other than its own.
const DOOR: &str = "/run/keyway/seatd.sock";
/// Devices of one compositor.
const DEVICES: usize = 32;
const NAME: &str = "Keyway test keys";
const ROUND_TRIPS: usize = 500;
const OPENINGS: usize = 30;
const MODES: usize = 20;
const ROUNDS: usize = 3;

pub fn figures(stage: &mut Stage) -> Result<()> {
    let _devices = (0..DEVICES).map(|_| plug_in()).collect::<Result<Vec<_>>>()?;
    let nodes = nodes()?;
    let mut table = Table::default();
    let mut modes = Vec::new();
    for _ in 0..ROUNDS {
        for display in [Display::Virtio, Display::Bochs] {
            modes.push((display, set_modes(display)?));
        }
        let seatd = start_seatd(stage)?;
        measure_door(&mut table.seatd, &seatd, SEATD_SOCKET, &nodes)?;
        drop(seatd);
        fs::remove_file(SEATD_SOCKET)?;

        let _broker = stage.start_broker(&[])?;
        let bridge = stage.start_bridge(&["--backend", "drm", "--seatd-socket", DOOR])?;
        measure_door(&mut table.door, &bridge, DOOR, &nodes)?;
        measure_bridge(&mut table, &bridge)?;
        for display in [Display::Virtio, Display::Bochs] {
            table.modes.push((display, bridge_modes(display)?));
        }
    }
    table.bare_modes = modes;
    stage.show_figures(table.lines())
}

/// What was measured of one who gives devices: microseconds, or KiB; one entry for each round.
#[derive(Default)]
struct Giver {
    round_trip: Vec<f64>,
    open: Vec<f64>,
    close: Vec<f64>,
    revoke: Vec<f64>,
    memory: Vec<f64>,
}

/// What of it a row shows.
type Figure = fn(&Giver) -> &Vec<f64>;

#[derive(Default)]
struct Table {
    seatd: Giver,
    door: Giver,
    bridge: Giver,
    surface: Vec<f64>,
    modes: Vec<(Display, f64)>,
    bare_modes: Vec<(Display, f64)>,
}

impl Table {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            "| in the test machine | Keyway | the seatd protocol at Keyway | Debian's seatd |".into(),
            "|---|---|---|---|".into(),
        ];
        let rows: [(&str, Figure); 4] = [
            ("a round trip", |giver| &giver.round_trip),
            ("to open an input device", |giver| &giver.open),
            ("to close it", |giver| &giver.close),
            ("to take back 32 input devices", |giver| &giver.revoke),
        ];
        for (what, figure) in rows {
            let [bridge, door, seatd] =
                [&self.bridge, &self.door, &self.seatd].map(|giver| time(median(figure(giver))));
            lines.push(format!("| {what} | {bridge} | {door} | {seatd} |"));
        }
        let [bridge, door, seatd] = [&self.bridge, &self.door, &self.seatd]
            .map(|giver| median(&giver.memory).map_or(String::new(), |kib| format!("{kib:.0} KiB")));
        lines.push(format!(
            "| memory of the process (`RssAnon` + `RssShmem`) | {bridge} | {door} | {seatd} |"
        ));
        lines.push(format!("| to create a surface of 640x480 | {} | | |", time(median(&self.surface))));
        lines.extend([
            String::new(),
            "| to set a mode | Keyway | the bare call | |".into(),
            "|---|---|---|---|".into(),
        ]);
        for display in [Display::Virtio, Display::Bochs] {
            let [ours, bare] = [&self.modes, &self.bare_modes].map(|modes| {
                let of = modes.iter().filter(|(of, _)| *of == display).map(|(_, time)| *time);
                median(&of.collect::<Vec<_>>())
            });
            let ratio =
                ours.zip(bare).map_or(String::new(), |(ours, bare)| format!("{:.2} times", ours / bare));
            lines.push(format!(
                "| {} | {} | {} | {ratio} |",
                hardware::driver(display),
                time(ours),
                time(bare)
            ));
        }
        lines
    }
}

fn micros(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e6
}

fn time(micros: Option<f64>) -> String {
    match micros {
        None => String::new(),
        Some(micros) if micros < 1e3 => format!("{micros:.0} µs"),
        Some(micros) => format!("{:.2} ms", micros / 1e3),
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// The median of so many times.
fn medians(count: usize, mut act: impl FnMut(usize) -> Result<()>) -> Result<f64> {
    let mut times = Vec::with_capacity(count);
    for index in 0..count {
        let begun = Instant::now();
        act(index)?;
        times.push(micros(begun));
    }
    median(&times).context("nothing was measured")
}

fn plug_in() -> Result<VirtualDevice> {
    let keys = AttributeSet::from_iter([KeyCode::KEY_A, KeyCode::KEY_B]);
    Ok(VirtualDevice::builder()?.name(NAME).with_keys(&keys)?.build()?)
}

/// Their nodes, once all are there.
fn nodes() -> Result<Vec<PathBuf>> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let found: Vec<PathBuf> = fs::read_dir("/sys/class/input")?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|device| {
                fs::read_to_string(device.join("device/name")).is_ok_and(|name| name.trim() == NAME)
            })
            .filter_map(|device| Some(Path::new("/dev/input").join(device.file_name()?)))
            .filter(|node| node.to_string_lossy().contains("event") && node.exists())
            .collect();
        if found.len() == DEVICES {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "{} of {DEVICES} devices came", found.len());
        thread::sleep(Duration::from_millis(10));
    }
}

fn start_seatd(stage: &Stage) -> Result<Process> {
    let mut command = Command::new(SEATD);
    command.env("SEATD_VTBOUND", "0");
    let mut seatd = stage.start("seatd", &mut command)?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while UnixStream::connect(SEATD_SOCKET).is_err() {
        ensure!(
            seatd.is_running()? && Instant::now() < deadline,
            "seatd does not come up: {}",
            seatd.said()?
        );
        thread::sleep(Duration::from_millis(2));
    }
    Ok(seatd)
}

/// Whoever speaks the seatd protocol.
fn measure_door(giver: &mut Giver, process: &Process, socket: &str, nodes: &[PathBuf]) -> Result<()> {
    let mut seat = Libseat::open_at(Path::new(socket))?;
    seat.await_enabled()?;
    giver.memory.push(memory_kib(process)?);
    giver.round_trip.push(medians(ROUND_TRIPS, |_| seat.ping())?);
    let mut opened = Vec::new();
    giver.open.push(medians(DEVICES.min(OPENINGS), |index| {
        opened.push(seat.open_device(&nodes[index])?);
        Ok(())
    })?);
    let mut numbers = opened.iter().map(|(number, _)| *number);
    giver.close.push(medians(OPENINGS / 2, |_| seat.close_device(numbers.next().context("none left")?))?);
    drop(opened);
    for node in nodes.iter().take(OPENINGS / 2) {
        seat.open_device(node)?;
    }
    for node in nodes.iter().skip(OPENINGS) {
        seat.open_device(node)?;
    }
    let begun = Instant::now();
    seat.close_seat()?;
    giver.revoke.push(micros(begun));
    Ok(())
}

fn measure_bridge(table: &mut Table, process: &Process) -> Result<()> {
    let mut compositor = Compositor::begin()?;
    let giver = &mut table.bridge;
    giver.memory.push(memory_kib(process)?);
    giver.round_trip.push(medians(ROUND_TRIPS, |_| {
        compositor.bridge.is_mobile_device()?;
        Ok(())
    })?);
    let config = SurfaceConfig { width: 640, height: 480, format: PixelFormat::XRGB8888, stride: None };
    let mut surfaces = Vec::new();
    table.surface.push(medians(16, |_| {
        surfaces.push(compositor.bridge.create_surface(config)?);
        Ok(())
    })?);
    let devices: Vec<DeviceInfo> =
        compositor.bridge.devices()?.into_iter().filter(|device| device.name == NAME).collect();
    ensure!(devices.len() == DEVICES, "{} of {DEVICES} devices are listed", devices.len());
    let mut granted = Vec::new();
    giver.open.push(medians(DEVICES, |index| {
        granted.push(compositor.bridge.request_input_device(devices[index].id)?);
        Ok(())
    })?);
    let begun = Instant::now();
    compositor.bridge.unregister_compositor()?;
    giver.revoke.push(micros(begun));
    Ok(())
}

/// `RssAnon` and `RssShmem`, without the program itself: the guest's files are shared memory too.
fn memory_kib(process: &Process) -> Result<f64> {
    let mut kib = 0.0;
    let mut is_memory = false;
    for line in fs::read_to_string(format!("/proc/{}/smaps", process.pid()))?.lines() {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (Some("Anonymous:"), Some(count)) => kib += count.parse::<f64>()?,
            (Some("Shared_Clean:" | "Shared_Dirty:" | "Private_Clean:" | "Private_Dirty:"), Some(count))
                if is_memory =>
            {
                kib += count.parse::<f64>()?;
            }
            (Some(range), Some(_)) if range.contains('-') => is_memory = line.contains("/memfd:"),
            _ => {}
        }
    }
    Ok(kib)
}

/// Two modes by turns, by the bridge.
fn bridge_modes(display: Display) -> Result<f64> {
    let mut compositor = Compositor::begin()?;
    let connector: ConnectorInfo = compositor.connector(display)?;
    let mode = |size: (u32, u32)| {
        let found = connector.modes.iter().find(|mode| (mode.width, mode.height) == size);
        found.copied().context("no such mode")
    };
    let modes = [mode(OTHER_MODE)?, mode(FIRST_MODE)?];
    medians(MODES, |index| Ok(compositor.bridge.set_display_mode(connector.id, modes[index % 2])?))
}

/// The same by the bare call, with buffers that are there.
fn set_modes(display: Display) -> Result<f64> {
    let card = Card(File::options().read(true).write(true).open(hardware::card(display)?)?);
    let resources = card.resource_handles()?;
    let ([connector], [crtc]): (&[connector::Handle], &[crtc::Handle]) =
        (resources.connectors(), resources.crtcs())
    else {
        anyhow::bail!("not one connector and one CRTC: {resources:?}")
    };
    let modes = card.get_connector(*connector, true)?.modes().to_vec();
    let output = |size: (u32, u32)| -> Result<(Mode, framebuffer::Handle)> {
        let wanted = |mode: &&Mode| (u32::from(mode.size().0), u32::from(mode.size().1)) == size;
        Ok((*modes.iter().find(wanted).context("no such mode")?, paint(&card, size)?.1))
    };
    let outputs = [output(OTHER_MODE)?, output(FIRST_MODE)?];
    medians(MODES, |index| {
        let (mode, framebuffer) = outputs[index % 2];
        Ok(card.set_crtc(*crtc, Some(framebuffer), (0, 0), &[*connector], Some(mode))?)
    })
}
