//! An unmodified weston by the seatd door: it comes up for a user who can open no device, shows a client, stands still while
//! another has the seat, goes on, and leaves nothing when it is killed.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use keyway_vm::protocol::{Display, Pixel};

use super::{
    lease::drive,
    raw_drm::{Card, expected},
};
use crate::{
    compositor::{Compositor, FIRST_MODE, OTHER_MODE, expect_console},
    hardware,
    libseat::{Libseat, SEATD_SOCKET},
    process::Process,
    stage::Stage,
};

const USER: u32 = 1000;
const WESTON: &str = "/usr/bin/weston";
const RUNTIME: &str = "/run/user";
const WAYLAND: &str = "wayland-keyway";

/// What weston shows where there is no window.
const BACKGROUND: [u8; 3] = [0x20, 0x50, 0xa0];
const CONFIGURATION: &str =
    "[core]\nidle-time=0\n\n[shell]\npanel-position=none\nbackground-color=0xff2050a0\nlocking=false\n";

/// How long weston may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether this machine has it.
pub fn is_there() -> bool {
    Path::new(WESTON).exists()
}

/// What weston needs, and weston with a client that moves. It ends with this.
struct Desktop {
    weston: Process,
    begun: Instant,
    _before: [Process; 3],
    _client: Process,
}

impl Desktop {
    fn begin(stage: &mut Stage, options: &[&str]) -> Result<Self> {
        let udev = start_udev(stage)?;
        let nodes = [hardware::card(Display::Virtio)?, hardware::input(hardware::KEYBOARD)?];
        let nodes: Vec<&str> = nodes.iter().filter_map(|node| node.to_str()).collect();
        stage.as_user(USER, "intruder", &nodes)?;
        let broker = stage.start_broker(&[])?;
        let rule = format!("user:{USER}");
        let door = ["--backend", "drm", "--seatd-socket", SEATD_SOCKET, "--compositor", &rule];
        let bridge = stage.start_bridge(&[door.as_slice(), options].concat())?;
        let begun = Instant::now();
        let weston = start_weston(stage)?;
        await_background(stage, "weston-up")?;
        let client = stage.start("weston-simple-shm", &mut as_user("/usr/bin/weston-simple-shm"))?;
        let desktop = Desktop { weston, begun, _before: [bridge, broker, udev], _client: client };
        desktop.step("weston shows its background");
        await_motion(stage, "weston-client")?;
        desktop.step("its client moves");
        Ok(desktop)
    }

    fn step(&self, what: &str) {
        println!("{:>6.2} s  {what}", self.begun.elapsed().as_secs_f64());
    }
}

pub fn weston(stage: &mut Stage) -> Result<()> {
    let mut desktop = Desktop::begin(stage, &[])?;
    // Another session, to which somebody at the keyboard switches.
    let mut other = Libseat::open()?;
    stage.press(&["ctrl+alt+f2"])?;
    other.await_enabled()?;
    desktop.step("weston has paused, and the other session has the seat");
    ensure!(!moves(stage, "weston-paused")?, "weston is paused, and the screen changes");
    let card = Card(other.open_device(&hardware::card(Display::Virtio)?)?.1.into());
    drive(&card, OTHER_MODE)?;
    stage.expect_pixels(Display::Virtio, "weston-other", OTHER_MODE, &expected(OTHER_MODE))?;
    other.switch(1)?;
    other.acknowledge()?;
    await_background(stage, "weston-resumed")?;
    await_motion(stage, "weston-resumed-client")?;
    desktop.step("weston goes on");
    // Its keyboard is a new one: it hears the keys again.
    stage.press(&["ctrl+alt+f2"])?;
    other.await_enabled()?;
    other.switch(1)?;
    other.acknowledge()?;
    await_motion(stage, "weston-again")?;
    desktop.step("paused and resumed once more");
    ensure!(desktop.weston.is_running()?, "weston has ended: {}", desktop.weston.said()?);

    // By SIGKILL: whoever is left has the seat, and then nobody, and then a compositor of the bridge's own.
    desktop.weston.kill()?;
    other.await_enabled()?;
    drop((card, other));
    expect_console(stage, "weston-dead")?;
    let mut compositor = Compositor::begin()?;
    let connector = compositor.connector(Display::Virtio)?;
    compositor.set_mode(&connector, OTHER_MODE)?;
    desktop.step("killed, and the screen is another's");
    Ok(())
}

/// By a lease: the pause stops it, and what ends with weston is the lease.
pub fn weston_lease(stage: &mut Stage) -> Result<()> {
    let mut desktop = Desktop::begin(stage, &["--seatd-lease"])?;
    let mut other = Libseat::open()?;
    stage.press(&["ctrl+alt+f2"])?;
    other.await_enabled()?;
    ensure!(!moves(stage, "weston-lease-paused")?, "weston is paused, and the screen changes");
    desktop.step("paused");
    other.switch(1)?;
    other.acknowledge()?;
    await_motion(stage, "weston-lease-resumed")?;
    desktop.step("weston goes on");
    drop(other);
    desktop.weston.kill()?;
    expect_console(stage, "weston-lease-dead")
}

/// libinput asks udev which devices there are.
fn start_udev(stage: &Stage) -> Result<Process> {
    let udev = stage.start("udevd", &mut Command::new("/usr/lib/systemd/systemd-udevd"))?;
    let deadline = Instant::now() + PATIENCE;
    while !Path::new("/run/udev/control").exists() {
        ensure!(Instant::now() < deadline, "udev does not come up: {}", udev.said()?);
        thread::sleep(Duration::from_millis(10));
    }
    let trigger = ["trigger", "--action=add", "--subsystem-match=input", "--subsystem-match=drm"];
    for arguments in [trigger.as_slice(), &["settle", "--timeout=20"]] {
        let output = Command::new("/usr/bin/udevadm").args(arguments).output()?;
        ensure!(
            output.status.success(),
            "udevadm {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(udev)
}

fn start_weston(stage: &Stage) -> Result<Process> {
    fs::create_dir_all(RUNTIME)?;
    chown(RUNTIME, Some(USER), Some(USER))?;
    fs::set_permissions(RUNTIME, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    fs::write("/run/weston.ini", CONFIGURATION)?;
    let card = hardware::card(Display::Virtio)?;
    let card = card.file_name().context("a card has a name")?.to_string_lossy().into_owned();
    let mut command = as_user(WESTON);
    command
        .args(["--backend=drm", "--renderer=pixman", "--shell=desktop", "--config=/run/weston.ini"])
        .args([&format!("--drm-device={card}"), &format!("--socket={WAYLAND}")]);
    stage.start("weston", &mut command)
}

/// A program of the user, with what it needs to find weston and the seat.
fn as_user(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .uid(USER)
        .gid(USER)
        .env_clear()
        .env("HOME", "/tmp")
        .env("XDG_RUNTIME_DIR", RUNTIME)
        .env("WAYLAND_DISPLAY", WAYLAND)
        .env("LIBSEAT_BACKEND", "seatd")
        .env("LIBSEAT_LOGLEVEL", "debug")
        .env("SEATD_SOCK", SEATD_SOCKET);
    command
}

/// Waits until the corners, where no window is, are as weston was told to make them.
fn await_background(stage: &mut Stage, name: &str) -> Result<()> {
    let (right, below) = (FIRST_MODE.0 - 1, FIRST_MODE.1 - 1);
    let corners = [(0, 0), (right, 0), (0, below), (right, below)];
    let corners = corners.map(|(x, y)| Pixel { x, y, rgb: BACKGROUND });
    until(|| stage.expect_pixels(Display::Virtio, name, FIRST_MODE, &corners))
}

/// Waits until something moves.
fn await_motion(stage: &mut Stage, name: &str) -> Result<()> {
    until(|| {
        ensure!(moves(stage, name)?, "nothing moves");
        Ok(())
    })
}

fn until(mut holds: impl FnMut() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match holds() {
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(100)),
            Ok(()) => return Ok(()),
        }
    }
}

/// Whether two looks at the screen, a second apart, differ.
fn moves(stage: &mut Stage, name: &str) -> Result<bool> {
    let (first, second) = (format!("{name}-1"), format!("{name}-2"));
    stage.screenshot(Display::Virtio, &first)?;
    thread::sleep(Duration::from_secs(1));
    stage.screenshot(Display::Virtio, &second)?;
    Ok(stage.count_differing(&first, &second)? > 0)
}
