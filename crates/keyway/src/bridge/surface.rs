//! Surfaces: pixels that one process writes and the compositor reads.

use std::{
    thread,
    time::{Duration, Instant},
};

use keyway_abi::Denial;
use keyway_gui::protocol::{BufferKind, Pid, SurfaceConfig, SurfaceId, SurfaceLayout};
use keyway_shm::OutOfView;

use crate::{
    capability::Capability,
    client::Client,
    error::Error,
    region::{RegionReader, RegionWriter},
};

/// A surface of this process.
#[derive(Debug)]
pub struct Surface {
    id: SurfaceId,
    stride: u32,
    kind: BufferKind,
    writer: RegionWriter,
}

impl Surface {
    pub(super) fn new(id: SurfaceId, stride: u32, kind: BufferKind, writer: RegionWriter) -> Self {
        Surface { id, stride, kind, writer }
    }

    /// Its number.
    pub fn id(&self) -> SurfaceId {
        self.id
    }

    /// Bytes from one row of pixels to the next.
    pub fn stride(&self) -> u32 {
        self.stride
    }

    /// Bytes of its buffer.
    pub fn len_bytes(&self) -> usize {
        self.writer.len_bytes()
    }

    /// What its buffer is.
    pub fn kind(&self) -> BufferKind {
        self.kind
    }

    /// Writes bytes of pixels, in the surface's format.
    ///
    /// # Errors
    /// [`OutOfView`] beyond the buffer's end.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), OutOfView> {
        self.writer.write(offset, bytes)
    }
}

/// A surface of an application, as the compositor is told of it.
#[derive(Debug)]
pub struct SharedSurface {
    pub(super) client: Client,
    /// Its number.
    pub surface: SurfaceId,
    /// Whose it is.
    pub owner: Pid,
    /// What was asked for.
    pub config: SurfaceConfig,
    /// How its buffer is laid out.
    pub layout: SurfaceLayout,
    /// What its buffer is.
    pub kind: BufferKind,
    pub(super) buffer: Capability,
}

impl SharedSurface {
    /// Maps its pixels for reading; waits until its owner has mapped them, but no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], [`Error::Denied`] when the surface is gone.
    pub fn map(&self, timeout: Duration) -> Result<RegionReader, Error> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            match self.client.map_reader(&self.buffer) {
                Err(error) if matches!(error.denial(), Some(Denial::RegionUnwritten)) => {}
                mapped => return mapped,
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(Error::TimedOut(timeout));
            }
            // The owner maps it as soon as it has its answer.
            thread::sleep(Duration::from_millis(1));
        }
    }
}
