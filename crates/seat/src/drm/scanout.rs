//! Memory that a card shows: dumb buffers, two for each screen, so that what is seen is never half drawn, and one that is black.

use std::{io, mem};

use drm::{
    buffer::{self, Buffer, DrmFourcc},
    control::{ClipRect, Device as _, dumbbuffer::DumbBuffer, framebuffer},
};
use keyway::RegionReader;
use keyway_gui::protocol::{Rectangle, SurfaceConfig, SurfaceLayout};

use super::card::Card;
use crate::{
    damage::Damage,
    screen::{PIXEL_BYTES, ShowError, convert},
};

/// A buffer as large as a mode, XRGB8888.
#[derive(Debug)]
pub(super) struct Scanout {
    buffer: DumbBuffer,
    pub(super) framebuffer: framebuffer::Handle,
    /// What of the picture it does not hold.
    stale: Damage,
}

/// Bits of a pixel that say something, and all of its bits.
const DEPTH: u32 = 24;
const BITS: u32 = 32;

impl Scanout {
    /// Black memory of so many pixels.
    pub(super) fn new(card: &Card, (width, height): (u32, u32)) -> io::Result<Self> {
        let buffer = card.create_dumb_buffer((width, height), DrmFourcc::Xrgb8888, BITS)?;
        match card.add_framebuffer(&buffer, DEPTH, BITS) {
            Ok(framebuffer) => Ok(Scanout { buffer, framebuffer, stale: Damage::All }),
            Err(error) => {
                let _ = card.destroy_dumb_buffer(buffer);
                Err(error)
            }
        }
    }

    /// Two of them.
    pub(super) fn pair(card: &Card, size: (u32, u32)) -> io::Result<[Self; 2]> {
        let first = Self::new(card, size)?;
        match Self::new(card, size) {
            Ok(second) => Ok([first, second]),
            Err(error) => {
                first.free(card);
                Err(error)
            }
        }
    }

    /// Gives the memory back. What shows it is dark after that.
    pub(super) fn free(self, card: &Card) {
        // They end with the card's descriptor at the latest.
        let _ = card.destroy_framebuffer(self.framebuffer);
        let _ = card.destroy_dumb_buffer(self.buffer);
    }

    /// The picture that it holds differs by so much from the one that is to be shown.
    pub(super) fn spoil(&mut self, damage: &Damage) {
        self.stale.add(damage);
    }

    /// Draws what it does not hold of a surface into the upper left corner, on black; what is larger is cut off. Returns the
    /// parts that were drawn; none if it was all.
    pub(super) fn draw(
        &mut self,
        card: &Card,
        pixels: &RegionReader,
        (config, layout): (&SurfaceConfig, &SurfaceLayout),
    ) -> Result<Option<Vec<Rectangle>>, ShowError> {
        // Until it is done, nothing is certain.
        let stale = mem::replace(&mut self.stale, Damage::All);
        let drawn = match stale {
            Damage::All => {
                self.draw_all(card, pixels, (config, layout))?;
                None
            }
            parts @ Damage::Parts(_) => {
                let parts = parts.on_screen(config, self.buffer.size());
                self.draw_parts(card, pixels, (config, layout), &parts)?;
                Some(parts)
            }
        };
        self.stale = Damage::Parts(Vec::new());
        Ok(drawn)
    }

    fn draw_parts(
        &mut self,
        card: &Card,
        pixels: &RegionReader,
        (config, layout): (&SurfaceConfig, &SurfaceLayout),
        parts: &[Rectangle],
    ) -> Result<(), ShowError> {
        let pitch = self.buffer.pitch() as usize;
        let pixel_bytes = config.format.pixel_bytes().ok_or(ShowError::Format)? as usize;
        let mut mapping = card.map_dumb_buffer(&mut self.buffer)?;
        let memory = mapping.as_mut();
        for part in parts {
            let (left, width) = (part.x as usize, part.width as usize);
            let mut row = vec![0; width * pixel_bytes];
            for y in part.y as usize..(part.y + part.height) as usize {
                pixels.read(y * layout.stride as usize + left * pixel_bytes, &mut row)?;
                let at = y * pitch + left * PIXEL_BYTES;
                convert(config.format, &row, &mut memory[at..at + width * PIXEL_BYTES]);
            }
        }
        Ok(())
    }

    fn draw_all(
        &mut self,
        card: &Card,
        pixels: &RegionReader,
        (config, layout): (&SurfaceConfig, &SurfaceLayout),
    ) -> Result<(), ShowError> {
        let (screen_width, screen_height) = self.buffer.size();
        let pitch = self.buffer.pitch() as usize;
        let width = config.width.min(screen_width) as usize;
        let pixel_bytes = config.format.pixel_bytes().ok_or(ShowError::Format)? as usize;
        let mut row = vec![0; width * pixel_bytes];
        let mut mapping = card.map_dumb_buffer(&mut self.buffer)?;
        let rows = mapping.as_mut().chunks_mut(pitch).take(screen_height as usize);
        for (y, out) in rows.enumerate() {
            let (drawn, rest) = out.split_at_mut((width * PIXEL_BYTES).min(out.len()));
            if y < config.height as usize {
                pixels.read(y * layout.stride as usize, &mut row)?;
                convert(config.format, &row, drawn);
            } else {
                drawn.fill(0);
            }
            rest.fill(0);
        }
        Ok(())
    }

    /// All of it, as damage.
    pub(super) fn all(&self) -> ClipRect {
        let (width, height) = self.buffer.size();
        let side = |pixels: u32| u16::try_from(pixels).unwrap_or(u16::MAX);
        ClipRect::new(0, 0, side(width), side(height))
    }

    /// Makes it black.
    pub(super) fn blank(&mut self, card: &Card) -> io::Result<()> {
        self.stale = Damage::All;
        card.map_dumb_buffer(&mut self.buffer)?.as_mut().fill(0);
        Ok(())
    }
}

/// Black memory that nobody draws into, and pictures of any size that fit.
#[derive(Debug)]
pub(super) struct Black {
    memory: DumbBuffer,
    pictures: Vec<((u32, u32), framebuffer::Handle)>,
}

impl Black {
    /// Of so many pixels, with the picture of that size.
    pub(super) fn new(card: &Card, size: (u32, u32)) -> io::Result<(Self, framebuffer::Handle)> {
        let memory = card.create_dumb_buffer(size, DrmFourcc::Xrgb8888, BITS)?;
        let mut black = Black { memory, pictures: Vec::new() };
        match black.framebuffer(card, size) {
            Ok(picture) => Ok((black, picture)),
            Err(error) => {
                black.free(card);
                Err(error)
            }
        }
    }

    /// Whether a picture of so many pixels fits.
    pub(super) fn holds(&self, (width, height): (u32, u32)) -> bool {
        let (most, rows) = self.memory.size();
        width <= most && height <= rows
    }

    /// The picture of this size.
    pub(super) fn framebuffer(&mut self, card: &Card, size: (u32, u32)) -> io::Result<framebuffer::Handle> {
        if let Some((_, made)) = self.pictures.iter().find(|(known, _)| *known == size) {
            return Ok(*made);
        }
        let made = card.add_framebuffer(&Part { memory: &self.memory, size }, DEPTH, BITS)?;
        self.pictures.push((size, made));
        Ok(made)
    }

    /// As [`Scanout::free`].
    pub(super) fn free(self, card: &Card) {
        for (_, picture) in self.pictures {
            let _ = card.destroy_framebuffer(picture);
        }
        let _ = card.destroy_dumb_buffer(self.memory);
    }
}

/// The upper left corner of a buffer.
struct Part<'memory> {
    memory: &'memory DumbBuffer,
    size: (u32, u32),
}

impl Buffer for Part<'_> {
    fn size(&self) -> (u32, u32) {
        self.size
    }

    fn format(&self) -> DrmFourcc {
        self.memory.format()
    }

    fn pitch(&self) -> u32 {
        self.memory.pitch()
    }

    fn handle(&self) -> buffer::Handle {
        self.memory.handle()
    }
}
