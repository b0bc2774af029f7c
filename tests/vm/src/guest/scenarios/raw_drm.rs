//! Both cards show what is drawn through DRM alone: that the machine works, without anything of Keyway's.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd},
};

use anyhow::{Context, Result, ensure};
use drm::{
    Device,
    buffer::{Buffer, DrmFourcc},
    control::{
        Device as ControlDevice, Mode, ModeTypeFlags, connector, crtc, dumbbuffer::DumbBuffer, framebuffer,
    },
};
use keyway_vm::protocol::{Display, Pixel};

use crate::{hardware, stage::Stage};

/// What each quarter of the screen shows, from the left to the right and then below.
const QUARTERS: [[u8; 3]; 4] = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [17, 34, 51]];

pub struct Card(pub File);

impl AsFd for Card {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Device for Card {}
impl ControlDevice for Card {}

pub fn raw_drm(stage: &mut Stage) -> Result<()> {
    for (display, name) in [(Display::Virtio, "raw-drm-virtio"), (Display::Bochs, "raw-drm-bochs")] {
        let node = hardware::card(display)?;
        let card = Card(File::options().read(true).write(true).open(node)?);
        show(stage, &card, display, name).with_context(|| hardware::driver(display))?;
    }
    Ok(())
}

fn show(stage: &mut Stage, card: &Card, display: Display, name: &str) -> Result<()> {
    let before = format!("{name}-before");
    stage.screenshot(display, &before)?;
    let (connector, crtc, mode) = find_output(card)?;
    let size = (u32::from(mode.size().0), u32::from(mode.size().1));
    println!("{}: {} at {} Hz", hardware::driver(display), mode.name().to_string_lossy(), mode.vrefresh());

    let (buffer, framebuffer) = paint(card, size)?;
    card.set_crtc(crtc, Some(framebuffer), (0, 0), &[connector], Some(mode))?;

    stage.expect_pixels(display, name, size, &expected(size))?;

    let again = format!("{name}-again");
    stage.screenshot(display, &again)?;
    ensure!(stage.count_differing(name, &again)? == 0, "the screen changes by itself");
    card.destroy_framebuffer(framebuffer)?;
    card.destroy_dumb_buffer(buffer)?;
    Ok(())
}

/// A picture of four quarters.
pub fn paint(card: &Card, size: (u32, u32)) -> Result<(DumbBuffer, framebuffer::Handle)> {
    let mut buffer = card.create_dumb_buffer(size, DrmFourcc::Xrgb8888, 32)?;
    let pitch = buffer.pitch() as usize;
    let mut mapping = card.map_dumb_buffer(&mut buffer)?;
    for (y, row) in (0..).zip(mapping.chunks_exact_mut(pitch)).take(size.1 as usize) {
        for (x, pixel) in (0..size.0).zip(row.as_chunks_mut::<4>().0) {
            let [red, green, blue] = quarter(size, x, y);
            *pixel = [blue, green, red, 0];
        }
    }
    drop(mapping);
    let framebuffer = card.add_framebuffer(&buffer, 24, 32)?;
    Ok((buffer, framebuffer))
}

/// Its pixels on both sides of where the quarters meet, and the corners.
pub fn expected(size: (u32, u32)) -> [Pixel; 8] {
    let (right, below) = (size.0 - 1, size.1 - 1);
    let places = [
        (0, 0),
        (right, 0),
        (0, below),
        (right, below),
        (size.0 / 2 - 1, size.1 / 2 - 1),
        (size.0 / 2, size.1 / 2 - 1),
        (size.0 / 2 - 1, size.1 / 2),
        (size.0 / 2, size.1 / 2),
    ];
    places.map(|(x, y)| Pixel { x, y, rgb: quarter(size, x, y) })
}

fn quarter((width, height): (u32, u32), x: u32, y: u32) -> [u8; 3] {
    let (is_right, is_below) = (x >= width / 2, y >= height / 2);
    QUARTERS[usize::from(is_right) + 2 * usize::from(is_below)]
}

/// The connector that has a screen, a CRTC for it, and the mode that the screen likes best.
fn find_output(card: &Card) -> Result<(connector::Handle, crtc::Handle, Mode)> {
    let resources = card.resource_handles()?;
    for handle in resources.connectors() {
        let connector = card.get_connector(*handle, true)?;
        if connector.state() != connector::State::Connected {
            continue;
        }
        let preferred = |mode: &&Mode| mode.mode_type().contains(ModeTypeFlags::PREFERRED);
        let mode = connector.modes().iter().find(preferred).or(connector.modes().first());
        let mode = *mode.context("a connector without a mode")?;
        for encoder in connector.encoders() {
            let possible = card.get_encoder(*encoder)?.possible_crtcs();
            if let Some(crtc) = resources.filter_crtcs(possible).first() {
                return Ok((*handle, *crtc, mode));
            }
        }
    }
    anyhow::bail!("no connector has a screen")
}
