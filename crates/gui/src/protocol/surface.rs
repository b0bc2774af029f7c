//! What a surface is asked to be, and the buffer that follows from it.
//!
//! A [`SurfaceConfig`] is an allegation; a [`SurfaceLayout`] is proof that one was judged: its figures are within bounds and
//! have not overflowed.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{BUFFER_PAGE_BYTES, PIXELS_PER_SIDE_MAX, STRIDE_ALIGNMENT_BYTES, STRIDE_BYTES_MAX};

/// A surface's number. Numbers are consecutive and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SurfaceId(pub u64);

/// What a surface is asked to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SurfaceConfig {
    /// Pixels of a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// How a pixel is stored.
    pub format: PixelFormat,
    /// Bytes from one row to the next; none leaves it to the bridge.
    pub stride: Option<u32>,
}

impl SurfaceConfig {
    /// The buffer that this surface needs; none if the figures make no sense.
    pub fn layout(&self) -> Option<SurfaceLayout> {
        let sides = 1..=PIXELS_PER_SIDE_MAX;
        if !sides.contains(&self.width) || !sides.contains(&self.height) {
            return None;
        }
        let pixel_bytes = self.format.pixel_bytes()?;
        let row_bytes = self.width.checked_mul(pixel_bytes)?;
        let stride = match self.stride {
            Some(stride) if stride % pixel_bytes == 0 => stride,
            Some(_) => return None,
            None => row_bytes.checked_next_multiple_of(STRIDE_ALIGNMENT_BYTES)?,
        };
        if stride < row_bytes || stride > STRIDE_BYTES_MAX {
            return None;
        }
        let bytes = u64::from(stride).checked_mul(u64::from(self.height))?;
        Some(SurfaceLayout { stride, bytes: bytes.checked_next_multiple_of(BUFFER_PAGE_BYTES)? })
    }
}

/// A part of a surface, in pixels from its upper left corner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rectangle {
    /// Its first column.
    pub x: u32,
    /// Its first row.
    pub y: u32,
    /// Its columns.
    pub width: u32,
    /// Its rows.
    pub height: u32,
}

impl Rectangle {
    /// True if it has pixels, all of which the surface has.
    pub fn is_within(&self, config: &SurfaceConfig) -> bool {
        let ends_in = |first: u32, count: u32, all: u32| {
            count > 0 && first.checked_add(count).is_some_and(|end| end <= all)
        };
        ends_in(self.x, self.width, config.width) && ends_in(self.y, self.height, config.height)
    }
}

/// What a surface's buffer is made of, and who can write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BufferKind {
    /// Shared memory. Its owner alone writes it; Linux refuses that to everybody else.
    Memfd,
}

impl fmt::Display for BufferKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BufferKind::Memfd => f.write_str("memfd, read-only to others"),
        }
    }
}

/// A buffer's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SurfaceLayout {
    /// Bytes from one row to the next.
    pub stride: u32,
    /// Bytes of the buffer, whole pages: what is allocated, and what is charged.
    pub bytes: u64,
}

/// How a pixel is stored: a DRM format code. Codes other than the named ones are denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PixelFormat(pub u32);

impl PixelFormat {
    /// Red, green and blue, eight bits each, the first byte blue, the fourth unused.
    pub const XRGB8888: PixelFormat = PixelFormat(u32::from_le_bytes(*b"XR24"));
    /// As `XRGB8888`, the fourth byte being alpha.
    pub const ARGB8888: PixelFormat = PixelFormat(u32::from_le_bytes(*b"AR24"));
    /// Red, green and blue, eight bits each, the first byte red, the fourth unused.
    pub const XBGR8888: PixelFormat = PixelFormat(u32::from_le_bytes(*b"XB24"));
    /// As `XBGR8888`, the fourth byte being alpha.
    pub const ABGR8888: PixelFormat = PixelFormat(u32::from_le_bytes(*b"AB24"));
    /// Five bits red, six green, five blue, in two bytes.
    pub const RGB565: PixelFormat = PixelFormat(u32::from_le_bytes(*b"RG16"));

    /// Bytes of a pixel; none for a format that the bridge does not know.
    pub fn pixel_bytes(self) -> Option<u32> {
        match self {
            Self::XRGB8888 | Self::ARGB8888 | Self::XBGR8888 | Self::ABGR8888 => Some(4),
            Self::RGB565 => Some(2),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(width: u32, height: u32, format: PixelFormat, stride: Option<u32>) -> SurfaceConfig {
        SurfaceConfig { width, height, format, stride }
    }

    #[test]
    fn a_stride_left_open_is_aligned_and_a_buffer_is_whole_pages() {
        let layout = config(100, 3, PixelFormat::XRGB8888, None).layout();
        assert_eq!(layout, Some(SurfaceLayout { stride: 448, bytes: 4096 }));
        let layout = config(100, 3, PixelFormat::RGB565, Some(200)).layout();
        assert_eq!(layout, Some(SurfaceLayout { stride: 200, bytes: 4096 }));
    }

    #[test]
    fn a_part_has_pixels_and_all_of_them_within_the_surface() {
        let config = config(100, 3, PixelFormat::XRGB8888, None);
        let part = |x, y, width, height| Rectangle { x, y, width, height };
        for within in [part(0, 0, 100, 3), part(99, 2, 1, 1)] {
            assert!(within.is_within(&config), "{within:?}");
        }
        let beyond = [
            part(0, 0, 0, 1),
            part(0, 0, 1, 0),
            part(1, 0, 100, 1),
            part(0, 1, 1, 3),
            part(100, 0, 1, 1),
            part(0, 3, 1, 1),
            part(u32::MAX, 0, 1, 1),
            part(0, 1, 1, u32::MAX),
        ];
        for part in beyond {
            assert!(!part.is_within(&config), "{part:?}");
        }
    }

    #[test]
    fn the_largest_surface_is_one_gigabyte() {
        let layout = config(16_384, 16_384, PixelFormat::ARGB8888, None).layout();
        assert_eq!(layout, Some(SurfaceLayout { stride: 65_536, bytes: 1 << 30 }));
    }

    #[test]
    fn senseless_figures_have_no_layout() {
        let format = PixelFormat::XRGB8888;
        let senseless = [
            config(0, 1, format, None),
            config(1, 0, format, None),
            config(16_385, 1, format, None),
            config(1, 16_385, format, None),
            config(u32::MAX, u32::MAX, format, Some(u32::MAX)),
            config(1, 1, PixelFormat(0), None),
            config(100, 1, format, Some(396)),
            config(100, 1, format, Some(402)),
            config(100, 1, format, Some(65_540)),
            config(100, 1, format, Some(0)),
        ];
        for config in senseless {
            assert_eq!(config.layout(), None, "{config:?}");
        }
    }
}
