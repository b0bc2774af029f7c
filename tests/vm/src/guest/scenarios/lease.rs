//! The compositor drives a screen itself, by a lease that the bridge gave it and Linux ends.

use std::{fs::File, os::fd::OwnedFd, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use drm::control::{Device as _, connector, crtc};
use keyway::bridge::{Bridge, ConnectorId, DenialReason, LeaseId};
use keyway_vm::protocol::Display;

use super::raw_drm::{Card, expected, paint};
use crate::{
    compositor::{Compositor, EVENING, FIRST_MODE, OTHER_MODE, pixels},
    stage::Stage,
};

const USER: u32 = 1000;

/// What is leased is shown by its holder alone, dead when the lease ends, and the bridge's again after that.
pub fn lease(stage: &mut Stage) -> Result<()> {
    let _broker = stage.start_broker(&[])?;
    let _bridge = stage.start_bridge(&["--backend", "drm"])?;
    let mut compositor = Compositor::begin()?;
    let connector = compositor.connector(Display::Virtio)?;
    let other = compositor.connector(Display::Bochs)?;
    for round in ["first", "second"] {
        let (id, card) = take(&mut compositor.bridge, connector.id)?;
        let (shown, crtc) = drive(&card, OTHER_MODE)?;
        stage.expect_pixels(Display::Virtio, &format!("lease-{round}"), OTHER_MODE, &expected(OTHER_MODE))?;

        // Nobody else, and the other card goes on.
        let refused =
            compositor.set_mode(&connector, OTHER_MODE).err().context("a mode of a leased connector")?;
        ensure!(format!("{refused:#}").contains("AlreadyHeld"), "refused because of {refused:#}");
        let again = compositor.bridge.lease_display(&[connector.id]).err();
        let reason = again.and_then(|error| error.denial_reason());
        ensure!(reason == Some(DenialReason::AlreadyHeld), "leased twice: {reason:?}");
        compositor.set_mode(&other, OTHER_MODE)?;

        compositor.bridge.end_lease(id)?;
        stage.expect_pixels(Display::Virtio, &format!("lease-{round}-ended"), FIRST_MODE, &[])?;
        let dark = card.set_crtc(crtc, None, (0, 0), &[], None);
        ensure!(dark.is_err(), "the lease has ended, and its holder still sets modes");
        ensure!(card.get_connector(shown, false).is_err(), "the lease has ended, and its connector is there");
        ensure!(card.resource_handles()?.connectors().is_empty(), "the lease has ended, and has connectors");
    }
    let both = compositor.bridge.lease_display(&[connector.id, other.id]).err().context("of two cards")?;
    ensure!(both.to_string().contains("one card"), "refused because of {both}");

    // The bridge shows on it again.
    compositor.set_mode(&connector, OTHER_MODE)?;
    let surface = compositor.surface(OTHER_MODE, EVENING)?;
    compositor.bridge.present_surface(connector.id, surface.id(), &[])?;
    stage.expect_pixels(Display::Virtio, "lease-after", OTHER_MODE, &pixels(OTHER_MODE, EVENING))
}

/// A user who can open no card shows something by a lease, is killed, and the screen is as it was.
pub fn lessee_dies(stage: &mut Stage) -> Result<()> {
    let _broker = stage.start_broker(&[])?;
    let _bridge = stage.start_bridge(&["--backend", "drm", "--compositor", &format!("user:{USER}")])?;
    for round in ["first", "second"] {
        let mut lessee = stage.start_as_user(USER, "lessee", &[])?;
        lessee.await_line("shown")?;
        let name = format!("lessee-{round}");
        stage.expect_pixels(Display::Virtio, &name, OTHER_MODE, &expected(OTHER_MODE))?;
        // By SIGKILL.
        drop(lessee);
        stage.expect_pixels(Display::Virtio, &format!("{name}-dead"), FIRST_MODE, &[])?;
    }
    Ok(())
}

/// Drives the first screen by a lease until it is killed.
pub fn lessee(_: &[&str]) -> Result<()> {
    let mut compositor = Compositor::begin()?;
    let connectors = compositor.bridge.connectors()?;
    // The card of the first number; a user without rights cannot look at whose driver that is.
    let first = connectors.first().context("no connector")?.id;
    let (_, card) = take(&mut compositor.bridge, first)?;
    drive(&card, OTHER_MODE)?;
    println!("shown");
    thread::sleep(Duration::from_secs(60));
    Ok(())
}

fn take(bridge: &mut Bridge, connector: ConnectorId) -> Result<(LeaseId, Card)> {
    let lease = bridge.lease_display(&[connector])?;
    Ok((lease.id(), Card(File::from(OwnedFd::from(lease)))))
}

/// Shows four quarters on all that a descriptor has, which is one screen.
pub fn drive(card: &Card, size: (u32, u32)) -> Result<(connector::Handle, crtc::Handle)> {
    let resources = card.resource_handles()?;
    let ([connector], [crtc]) = (resources.connectors(), resources.crtcs()) else {
        anyhow::bail!("the lease has {resources:?}, not a connector and a CRTC");
    };
    let modes = card.get_connector(*connector, false)?.modes().to_vec();
    let wanted = |mode: &&drm::control::Mode| (u32::from(mode.size().0), u32::from(mode.size().1)) == size;
    let mode = *modes.iter().find(wanted).context("no such mode")?;
    let (_, framebuffer) = paint(card, size)?;
    card.set_crtc(*crtc, Some(framebuffer), (0, 0), &[*connector], Some(mode))?;
    Ok((*connector, *crtc))
}
