//! A virtual screen: what stands in for the memory that a display controller scans out.
//!
//! Its memory is made when something is first shown, and is shared memory as a real framebuffer would be, so that it
//! does not count as the bridge's own.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
};

use keyway::RegionReader;
use keyway_gui::protocol::{DisplayMode, PixelFormat, SurfaceConfig, SurfaceLayout};
use keyway_sys::memory::{self, Access, MapError, Mapping, OutOfView, Populate, View};

use crate::damage::Damage;

/// See the module. Pixels are XRGB8888, row after row without gaps.
#[derive(Debug)]
pub(crate) struct Screen {
    initial: DisplayMode,
    mode: DisplayMode,
    frame: Option<View>,
}

/// Bytes of a pixel on the screen.
pub(crate) const PIXEL_BYTES: usize = 4;

impl Screen {
    pub(crate) fn new(mode: DisplayMode) -> Self {
        Screen { initial: mode, mode, frame: None }
    }

    /// Changes the mode; the screen is black after that.
    pub(crate) fn set_mode(&mut self, mode: DisplayMode) {
        self.mode = mode;
        self.blank();
    }

    /// Makes it black.
    pub(crate) fn blank(&mut self) {
        self.frame = None;
    }

    /// Goes back to the mode that was there at the beginning.
    pub(crate) fn restore(&mut self) {
        self.set_mode(self.initial);
    }

    /// Shows what is damaged of a surface in the upper left corner; what is larger than the screen is cut off.
    pub(crate) fn show(
        &mut self,
        pixels: &RegionReader,
        (config, layout): (&SurfaceConfig, &SurfaceLayout),
        damage: &Damage,
    ) -> Result<(), ShowError> {
        let screen_width = self.mode.width as usize;
        let pixel_bytes = config.format.pixel_bytes().ok_or(ShowError::Format)? as usize;
        let frame = self.frame()?.clone();
        for part in damage.on_screen(config, (self.mode.width, self.mode.height)) {
            let (left, width) = (part.x as usize, part.width as usize);
            let mut row = vec![0; width * pixel_bytes];
            let mut out = vec![0; width * PIXEL_BYTES];
            for y in part.y as usize..(part.y + part.height) as usize {
                pixels.read(y * layout.stride as usize + left * pixel_bytes, &mut row)?;
                convert(config.format, &row, &mut out);
                frame.copy_in((y * screen_width + left) * PIXEL_BYTES, &out)?;
            }
        }
        Ok(())
    }

    /// Writes what is on the screen as a PNG, so that nobody sees half a file.
    pub(crate) fn save(&mut self, path: &Path) -> Result<(), ShowError> {
        let frame = self.frame()?.clone();
        let (width, height) = (self.mode.width, self.mode.height);
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".unfinished");
        let mut encoder = png::Encoder::new(BufWriter::new(File::create(&unfinished)?), width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        let mut writer = encoder.write_header()?;
        let mut stream = writer.stream_writer()?;
        let mut row = vec![0; width as usize * PIXEL_BYTES];
        for y in 0..height as usize {
            frame.copy_out(y * row.len(), &mut row)?;
            let rgb: Vec<u8> = row.chunks_exact(PIXEL_BYTES).flat_map(rgb).collect();
            stream.write_all(&rgb)?;
        }
        stream.finish()?;
        writer.finish()?;
        fs::rename(&unfinished, path)?;
        Ok(())
    }

    fn frame(&mut self) -> Result<&View, ShowError> {
        let bytes = self.mode.width as usize * self.mode.height as usize * PIXEL_BYTES;
        // Views come in multiples of 8 bytes, and a screen of odd pixels has 4 bytes over.
        let bytes = bytes.next_multiple_of(8);
        let frame = if let Some(frame) = self.frame.take() {
            frame
        } else {
            let memory = memory::create_memory("keyway-screen", bytes).map_err(MapError::from)?;
            Mapping::new(memory, bytes, Access::Write, Populate::OnUse)?.view()
        };
        Ok(self.frame.insert(frame))
    }
}

/// Why something cannot be shown or saved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShowError {
    #[error("the pixel format is unknown")]
    Format,
    #[error("the connector shows nothing: set a mode first")]
    Dark,
    #[error("the buffer is smaller than its surface: {0:?}")]
    Buffer(OutOfView),
    #[error("no memory for the screen: {0}")]
    Memory(#[from] MapError),
    #[error("{0}")]
    File(#[from] io::Error),
    #[error("{0}")]
    Png(#[from] png::EncodingError),
}

impl From<OutOfView> for ShowError {
    fn from(error: OutOfView) -> Self {
        ShowError::Buffer(error)
    }
}

/// A row of pixels in the screen's own format.
pub(crate) fn convert(format: PixelFormat, row: &[u8], out: &mut [u8]) {
    match format {
        PixelFormat::XBGR8888 | PixelFormat::ABGR8888 => {
            for (from, to) in row.chunks_exact(4).zip(out.chunks_exact_mut(PIXEL_BYTES)) {
                to.copy_from_slice(&[from[2], from[1], from[0], 0]);
            }
        }
        PixelFormat::RGB565 => {
            for (from, to) in row.chunks_exact(2).zip(out.chunks_exact_mut(PIXEL_BYTES)) {
                let pixel = u16::from_le_bytes([from[0], from[1]]);
                let wide = |value: u16, bits: u16| (u32::from(value) * 255 / ((1 << bits) - 1)) as u8;
                to.copy_from_slice(&[
                    wide(pixel & 0x1f, 5),
                    wide(pixel >> 5 & 0x3f, 6),
                    wide(pixel >> 11, 5),
                    0,
                ]);
            }
        }
        _ => out.copy_from_slice(row),
    }
}

/// DRM formats are little endian: blue comes first in memory.
fn rgb(pixel: &[u8]) -> [u8; 3] {
    [pixel[2], pixel[1], pixel[0]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_become_the_screens_own() {
        let mut out = [0; 4];
        convert(PixelFormat::XRGB8888, &[1, 2, 3, 9], &mut out);
        assert_eq!(rgb(&out), [3, 2, 1]);
        convert(PixelFormat::ABGR8888, &[1, 2, 3, 9], &mut out);
        assert_eq!(rgb(&out), [1, 2, 3]);
        convert(PixelFormat::RGB565, &0xf801_u16.to_le_bytes(), &mut out);
        assert_eq!(rgb(&out), [255, 0, 8]);
    }

    #[test]
    fn a_new_mode_is_black_and_the_first_one_comes_back() {
        let mode = |width, height| DisplayMode { width, height, refresh_mhz: 60_000 };
        let mut screen = Screen::new(mode(3, 3));
        screen.frame().unwrap().copy_in(0, &[255; 4]).unwrap();
        screen.set_mode(mode(4, 2));
        let path = tempfile::tempdir().unwrap();
        let file = path.path().join("screen.png");
        screen.save(&file).unwrap();
        let mut picture =
            png::Decoder::new(io::BufReader::new(File::open(&file).unwrap())).read_info().unwrap();
        let mut bytes = vec![1; picture.output_buffer_size().unwrap()];
        let info = picture.next_frame(&mut bytes).unwrap();
        assert_eq!((info.width, info.height), (4, 2));
        assert!(bytes.iter().all(|byte| *byte == 0));
        screen.restore();
        assert_eq!(screen.mode, mode(3, 3));
    }
}
