//! The seatd door on the real devices: what a session has, what it loses by a pause, and what it has again.

use std::{
    fs::File,
    io::{self, ErrorKind},
    os::fd::OwnedFd,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use drm::control::{Device as _, connector, crtc, framebuffer};
use keyway::bridge::{BridgeEvent, DenialReason, Event, SessionId};
use keyway_vm::protocol::Display;

use super::{
    lease::drive,
    raw_drm::{Card, expected, paint},
    raw_keys::{KEY_A, KEY_B, pressed},
};
use crate::{
    compositor::{Compositor, FIRST_MODE, MORNING, OTHER_MODE, expect_console, pixels},
    hardware,
    libseat::{Libseat, SEATD_SOCKET, dies},
    stage::Stage,
};

const USER: u32 = 1000;
const DOOR: [&str; 4] = ["--backend", "drm", "--seatd-socket", SEATD_SOCKET];

/// A session with the first card and the keyboard.
struct Session {
    seat: Libseat,
    card: Card,
    keyboard: File,
    keyboard_number: i32,
}

impl Session {
    fn begin() -> Result<Self> {
        let mut seat = Libseat::open()?;
        seat.await_enabled()?;
        let card = open_card(&mut seat)?;
        let (keyboard_number, keyboard) = seat.open_device(&hardware::input(hardware::KEYBOARD)?)?;
        Ok(Session { seat, card, keyboard: File::from(keyboard), keyboard_number })
    }
}

fn open_card(seat: &mut Libseat) -> Result<Card> {
    let (_, card) = seat.open_device(&hardware::card(Display::Virtio)?)?;
    Ok(Card(File::from(card)))
}

/// Shows the four quarters in another mode than at first.
fn show(stage: &mut Stage, card: &Card, name: &str) -> Result<(connector::Handle, crtc::Handle)> {
    let driven = drive(card, OTHER_MODE)?;
    stage.expect_pixels(Display::Virtio, name, OTHER_MODE, &expected(OTHER_MODE))?;
    Ok(driven)
}

/// Sets the mode that the screen likes best, in four quarters.
fn show_first_mode(card: &Card, (connector, crtc): (connector::Handle, crtc::Handle)) -> io::Result<()> {
    let mode = card.get_connector(connector, false)?.modes().first().copied();
    let framebuffer = paint(card, FIRST_MODE).map_err(io::Error::other)?.1;
    card.set_crtc(crtc, Some(framebuffer), (0, 0), &[connector], mode)
}

fn refused(outcome: io::Result<()>) -> Result<()> {
    let error = outcome.err().context("the session is paused, and sets modes")?;
    ensure!(error.kind() == ErrorKind::PermissionDenied, "refused because of {error}");
    Ok(())
}

/// A mode by the master's descriptor; the pause, which stops it; the other session; the way back.
pub fn seatd(stage: &mut Stage) -> Result<()> {
    let _broker = stage.start_broker(&[])?;
    let _bridge = stage.start_bridge(&DOOR)?;
    let mut first = Session::begin()?;
    let driven = show(stage, &first.card, "seatd-first")?;
    stage.press(&["a", "b"])?;
    ensure!(pressed(&mut first.keyboard)? == [KEY_A, KEY_B], "the keys did not arrive");
    // Once more, under the same number, and closed once.
    let (again, _keyboard) = first.seat.open_device(&hardware::input(hardware::KEYBOARD)?)?;
    ensure!(again == first.keyboard_number, "another number: {again}");
    first.seat.close_device(again)?;
    for path in ["/dev/null", "/etc/passwd", "/dev/dri/renderD128"] {
        let error =
            first.seat.open_device(path.as_ref()).err().context("opened what is no device of the seat")?;
        ensure!(is_errno(&error, rustix::io::Errno::NOENT), "{path}: {error:#}");
    }

    let mut second = Libseat::open()?;
    let error = open_card(&mut second).err().context("a session without the seat opens a card")?;
    ensure!(is_errno(&error, rustix::io::Errno::PERM), "{error:#}");
    first.seat.switch(2)?;
    first.seat.acknowledge()?;
    second.await_enabled()?;
    refused(show_first_mode(&first.card, driven))?;
    stage.press(&["a"])?;
    dies(&mut first.keyboard)?;
    stage.expect_pixels(Display::Virtio, "seatd-paused", OTHER_MODE, &expected(OTHER_MODE))?;
    let other = open_card(&mut second)?;
    show_first_mode(&other, driven)?;
    stage.expect_pixels(Display::Virtio, "seatd-second", FIRST_MODE, &expected(FIRST_MODE))?;

    // Back: the same descriptor drives the screen, and input is opened anew.
    second.switch(1)?;
    second.acknowledge()?;
    first.seat.await_enabled()?;
    refused(show_first_mode(&other, driven))?;
    show(stage, &first.card, "seatd-back")?;
    first.seat.close_device(first.keyboard_number)?;
    let (_, keyboard) = first.seat.open_device(&hardware::input(hardware::KEYBOARD)?)?;
    let mut keyboard = File::from(keyboard);
    stage.press(&["b"])?;
    ensure!(pressed(&mut keyboard)? == [KEY_B], "the keys of another opening did not arrive");

    // Without an acknowledgement.
    let begun = Instant::now();
    first.seat.switch(2)?;
    second.await_enabled()?;
    let took = begun.elapsed();
    ensure!(took > Duration::from_millis(900), "the seat passed after {took:?}, without an acknowledgement");
    refused(show_first_mode(&first.card, driven))?;
    dies(&mut keyboard)?;
    show_first_mode(&other, driven)?;
    stage.expect_pixels(Display::Virtio, "seatd-forced", FIRST_MODE, &expected(FIRST_MODE))?;
    first.seat.acknowledge()?;

    // The death of one gives the seat to the other, and that of both the screen back.
    drop((second, other));
    first.seat.await_enabled()?;
    show(stage, &first.card, "seatd-heir")?;
    drop(first);
    expect_console(stage, "seatd-over")?;
    let mut compositor = Compositor::begin()?;
    let connector = compositor.connector(Display::Virtio)?;
    compositor.set_mode(&connector, OTHER_MODE)?;
    Ok(())
}

fn is_errno(error: &anyhow::Error, errno: rustix::io::Errno) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.and_then(io::Error::raw_os_error) == Some(errno.raw_os_error())
}

/// The same by a lease, which a pause stops, a resume lets go on, and the end of the seat ends.
pub fn seatd_lease(stage: &mut Stage) -> Result<()> {
    let _broker = stage.start_broker(&[])?;
    let _bridge = stage.start_bridge(&[DOOR.as_slice(), &["--seatd-lease"]].concat())?;
    let mut first = Session::begin()?;
    let driven = show(stage, &first.card, "seatd-lease")?;
    ensure!(first.card.create_lease(&[driven.0.into(), driven.1.into()], 0).is_err(), "a lease leases on");
    let mut second = Libseat::open()?;
    first.seat.switch(2)?;
    first.seat.acknowledge()?;
    second.await_enabled()?;
    refused(show_first_mode(&first.card, driven))?;
    second.switch(1)?;
    second.acknowledge()?;
    first.seat.await_enabled()?;
    show_first_mode(&first.card, driven)?;
    stage.expect_pixels(Display::Virtio, "seatd-lease-back", FIRST_MODE, &expected(FIRST_MODE))?;
    first.seat.close_seat()?;
    second.await_enabled()?;
    ensure!(
        first.card.resource_handles()?.connectors().is_empty(),
        "the lease has ended, and has connectors"
    );
    dies(&mut first.keyboard)
}

/// A user who can open no device has them by the door if the policy says so, and is listed; another is refused.
pub fn seatd_user(stage: &mut Stage) -> Result<()> {
    let _broker = stage.start_broker(&[])?;
    let rule = format!("user:{USER}");
    let _bridge = stage.start_bridge(&[DOOR.as_slice(), &["--compositor", &rule]].concat())?;
    stage.as_user(USER + 1, "seatd-stranger", &[])?;
    let mut seated =
        stage.start_as_user(USER, "seatd-seated", &[&hardware::card(Display::Virtio)?.to_string_lossy()])?;
    seated.await_line("shown")?;
    stage.expect_pixels(Display::Virtio, "seatd-user", OTHER_MODE, &expected(OTHER_MODE))?;
    let caps = stage.listed("caps")?;
    ensure!(caps.contains("seatd-"), "the grant is not listed:\n{caps}");
    // By SIGKILL.
    drop(seated);
    expect_console(stage, "seatd-user-dead")?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while stage.listed("caps")?.contains("seatd-") {
        ensure!(Instant::now() < deadline, "the grant is listed after its holder's death");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Opens the seat and the card, which it cannot open itself, and shows something until it is killed.
pub fn seated(arguments: &[&str]) -> Result<()> {
    let [card] = arguments else { anyhow::bail!("which card?") };
    ensure!(File::open(card).is_err(), "it can open {card} itself");
    let mut seat = Libseat::open()?;
    seat.await_enabled()?;
    let card = Card(File::from(seat.open_device(card.as_ref())?.1));
    drive(&card, OTHER_MODE)?;
    println!("shown");
    thread::sleep(Duration::from_secs(60));
    Ok(())
}

/// Demands that the door is not for it.
pub fn stranger(_: &[&str]) -> Result<()> {
    let error = Libseat::open().err().context("whoever may not be a compositor opened the seat")?;
    ensure!(is_errno(&error, rustix::io::Errno::ACCESS), "refused because of {error:#}");
    Ok(())
}

/// A compositor of the bridge's own and a session by turns: pictures, leases and input stand still and go on.
pub fn seat_switch(stage: &mut Stage) -> Result<()> {
    let _broker = stage.start_broker(&[])?;
    let _bridge = stage.start_bridge(&DOOR)?;
    let mut compositor = Compositor::begin()?;
    let (connector, leased) = (compositor.connector(Display::Virtio)?, compositor.connector(Display::Bochs)?);
    compositor.set_mode(&connector, OTHER_MODE)?;
    let surface = compositor.surface(OTHER_MODE, MORNING)?;
    compositor.bridge.present_surface(connector.id, surface.id(), &[])?;
    let lease = compositor.bridge.lease_display(&[leased.id])?;
    let lease = Card(File::from(OwnedFd::from(lease)));
    let of_lease = drive(&lease, OTHER_MODE)?;
    let devices = compositor.bridge.devices()?;
    let keyboard = devices.iter().find(|device| device.name == hardware::KEYBOARD).context("no keyboard")?.id;
    compositor.bridge.request_input_device(keyboard)?;

    let mut seat = Libseat::open()?;
    compositor.bridge.switch_session(SessionId(2))?;
    seat.await_enabled()?;
    let told = (compositor.next_event()?, compositor.next_event()?);
    ensure!(
        matches!(told, (BridgeEvent::Other(Event::Revoked { .. }), BridgeEvent::Other(Event::Paused))),
        "told {told:?}"
    );
    let card = open_card(&mut seat)?;
    let driven = drive(&card, FIRST_MODE)?;
    stage.expect_pixels(Display::Virtio, "seat-switch-session", FIRST_MODE, &expected(FIRST_MODE))?;
    refused(show_first_mode(&lease, of_lease))?;
    let denied = compositor.bridge.present_surface(connector.id, surface.id(), &[]).err();
    let reason = denied.and_then(|error| error.denial_reason());
    ensure!(reason == Some(DenialReason::Other(3)), "presented while paused: {reason:?}");

    seat.switch(1)?;
    seat.acknowledge()?;
    let resumed = compositor.next_event()?;
    ensure!(matches!(resumed, BridgeEvent::Other(Event::Resumed)), "told {resumed:?}");
    refused(show_first_mode(&card, driven))?;
    stage.expect_pixels(Display::Virtio, "seat-switch-back", OTHER_MODE, &pixels(OTHER_MODE, MORNING))?;
    show_first_mode(&lease, of_lease)?;
    stage.expect_pixels(Display::Bochs, "seat-switch-lease", FIRST_MODE, &expected(FIRST_MODE))?;
    let BridgeEvent::InputGranted(mut input) = compositor.next_event()? else {
        anyhow::bail!("no input again")
    };
    stage.press(&["a"])?;
    ensure!(super::input::presses(&mut input)? == [KEY_A], "the keys did not arrive after the pause");

    // Whoever is paused and dies leaves nothing: its lease ends although another has the seat.
    compositor.bridge.switch_session(SessionId(2))?;
    seat.await_enabled()?;
    drop(compositor);
    drive(&card, OTHER_MODE)?;
    stage.expect_pixels(Display::Virtio, "seat-switch-alone", OTHER_MODE, &expected(OTHER_MODE))?;
    seat.close_seat()?;
    expect_console(stage, "seat-switch-over")?;
    let none: Option<framebuffer::Handle> = None;
    let dark = lease.set_crtc(of_lease.1, none, (0, 0), &[], None);
    ensure!(dark.is_err(), "its holder's bridge is gone, and the lease sets modes");
    Ok(())
}
