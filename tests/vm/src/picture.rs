//! A picture of a screen, read from a PNG.

use std::{fs::File, io::BufReader, path::Path};

use anyhow::{Context, Result, ensure};

use crate::protocol::Pixel;

/// Pixels of red, green and blue, row by row.
#[derive(Debug, PartialEq, Eq)]
pub struct Picture {
    /// Width and height.
    pub size: (u32, u32),
    rgb: Vec<[u8; 3]>,
}

impl Picture {
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("no picture {}", path.display()))?;
        let mut reader = png::Decoder::new(BufReader::new(file)).read_info()?;
        let mut bytes = vec![0; reader.output_buffer_size().context("the picture is too large")?];
        let info = reader.next_frame(&mut bytes)?;
        let kind = (info.color_type, info.bit_depth);
        ensure!(kind == (png::ColorType::Rgb, png::BitDepth::Eight), "not RGB of 8 bits each: {kind:?}");
        let rgb = bytes[..info.buffer_size()].as_chunks().0.to_vec();
        Ok(Picture { size: (info.width, info.height), rgb })
    }

    /// The colour at a place, if the picture is large enough.
    pub fn at(&self, x: u32, y: u32) -> Option<[u8; 3]> {
        let (width, height) = self.size;
        let is_inside = x < width && y < height;
        is_inside.then(|| self.rgb[y as usize * width as usize + x as usize])
    }

    /// Says where the picture is not as it should be.
    pub fn check(&self, size: (u32, u32), expect: &[Pixel]) -> Result<(), String> {
        if self.size != size {
            return Err(format!("expected {size:?} pixels, found {:?}", self.size));
        }
        let mut wrong = Vec::new();
        for pixel in expect {
            match self.at(pixel.x, pixel.y) {
                Some(rgb) if rgb == pixel.rgb => {}
                Some(rgb) => wrong.push(format!("expected {pixel}, found {rgb:?}")),
                None => wrong.push(format!("expected {pixel}, which is outside of {size:?}")),
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    /// How many pixels differ between two pictures of the same size.
    pub fn count_differing(&self, other: &Picture) -> Result<u64> {
        ensure!(self.size == other.size, "one has {:?} pixels, the other {:?}", self.size, other.size);
        let pairs = self.rgb.iter().zip(&other.rgb);
        Ok(pairs.map(|(one, other)| u64::from(one != other)).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_picture_is_said_with_its_place() {
        let picture = Picture { size: (2, 1), rgb: vec![[1, 2, 3], [4, 5, 6]] };
        let pixel = |x, rgb| Pixel { x, y: 0, rgb };
        assert_eq!(picture.check((2, 1), &[pixel(0, [1, 2, 3]), pixel(1, [4, 5, 6])]), Ok(()));
        let wrong = picture.check((2, 1), &[pixel(1, [4, 5, 7])]);
        assert_eq!(wrong, Err("expected (4, 5, 7) at 1, 0, found [4, 5, 6]".into()));
        assert!(picture.check((2, 1), &[pixel(2, [0; 3])]).is_err());
        assert_eq!(picture.check((1, 2), &[]), Err("expected (1, 2) pixels, found (2, 1)".into()));
    }

    #[test]
    fn pixels_that_differ_are_counted() {
        let one = Picture { size: (2, 1), rgb: vec![[1, 2, 3], [4, 5, 6]] };
        let other = Picture { size: (2, 1), rgb: vec![[1, 2, 3], [4, 5, 7]] };
        assert_eq!(one.count_differing(&one).ok(), Some(0));
        assert_eq!(one.count_differing(&other).ok(), Some(1));
        assert!(one.count_differing(&Picture { size: (1, 1), rgb: vec![[0; 3]] }).is_err());
    }
}
