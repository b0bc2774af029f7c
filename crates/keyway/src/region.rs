//! Shared memory: one process writes it, others read it.

use std::sync::Arc;

use keyway_abi::{Handle, MappingId, Reply, request, request::MapAccess};
use keyway_shm::{Access, OutOfView, Status, Verdict, View};
use keyway_sys::memory::{Mapping, Populate};

use crate::{control::Control, error::Error};

/// The one writable mapping of a region. Dropping it unmaps; what was written stays.
#[derive(Debug)]
pub struct RegionWriter {
    open: Open,
}

/// A read-only mapping of a region that another process may be writing. Bytes are copied out, because they can change at
/// any moment.
#[derive(Debug)]
pub struct RegionReader {
    open: Open,
}

#[derive(Debug)]
struct Open {
    control: Arc<Control>,
    mapping: MappingId,
    status: Status,
    view: View,
}

impl RegionWriter {
    pub(crate) fn map(control: &Arc<Control>, region: Handle) -> Result<Self, Error> {
        let open = Open::map(control, region, MapAccess::Write)?;
        control.ask(request::RegionMapped { mapping: open.mapping })?;
        Ok(RegionWriter { open })
    }

    /// Its size in bytes.
    pub fn len_bytes(&self) -> usize {
        self.open.view.len_bytes()
    }

    /// Writes `bytes` at `offset`.
    ///
    /// # Errors
    /// [`OutOfView`] when they do not fit.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), OutOfView> {
        self.open.view.copy_in(offset, bytes)
    }

    /// Reads bytes at `offset`.
    ///
    /// # Errors
    /// [`OutOfView`] beyond the end.
    pub fn read(&self, offset: usize, out: &mut [u8]) -> Result<(), OutOfView> {
        self.open.view.copy_out(offset, out)
    }
}

impl RegionReader {
    pub(crate) fn map(control: &Arc<Control>, region: Handle) -> Result<Self, Error> {
        Ok(RegionReader { open: Open::map(control, region, MapAccess::Read)? })
    }

    /// Its size in bytes.
    pub fn len_bytes(&self) -> usize {
        self.open.view.len_bytes()
    }

    /// Copies bytes at `offset` out. They may be of different moments, if the writer writes meanwhile.
    ///
    /// # Errors
    /// [`OutOfView`] beyond the end.
    pub fn read(&self, offset: usize, out: &mut [u8]) -> Result<(), OutOfView> {
        self.open.view.copy_out(offset, out)
    }

    /// Whether the writer lives and nobody has taken the mapping back. Pages stay readable after that, and say nothing
    /// any more.
    pub fn verdict(&self) -> Verdict {
        self.open.status.verdict()
    }
}

impl Open {
    fn map(control: &Arc<Control>, region: Handle, access: MapAccess) -> Result<Self, Error> {
        let (reply, descriptors) = control.request(request::MapRegion { region, access })?;
        let (Reply::Mapping { mapping, word, bytes }, Some(fd)) = (reply, descriptors.first()) else {
            return Err(Error::BrokerIncoherent { operation: "MapRegion" });
        };
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mapped = match access {
            // The writer pays for every page, so that no reader does.
            MapAccess::Write => Mapping::new(fd, bytes, Access::Write, Populate::Now),
            MapAccess::Read => Mapping::new(fd, bytes, Access::Read, Populate::OnUse),
        };
        let view = match mapped {
            Ok(mapped) => mapped.view(),
            Err(error) => {
                let _ = control.ask(request::Unmap { mapping });
                return Err(error.into());
            }
        };
        let status = control.status(word)?;
        Ok(Open { control: Arc::clone(control), mapping, status, view })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.control.is_over() {
            // It may be gone already.
            let _ = self.control.ask(request::Unmap { mapping: self.mapping });
        }
    }
}
