//! Shared memory: one process writes it and others read it, until it is frozen; or several write it, and say so.
//!
//! | what | made with | mapped with | read as |
//! |---|---|---|---|
//! | one writer | [`Client::create_region`](crate::Client::create_region) | `map_writer`, `map_reader` | copies |
//! | frozen for good | [`RegionOptions::freezable`] | `map_writer`, [`RegionWriter::freeze`], then `map_frozen` | `&[u8]` |
//! | a copy of one's own | any of these | `map_copy`, of a frozen one [`FrozenRegion::copy`] | copies, `&mut [u8]` |
//! | several writers | [`RegionOptions::shared`] | `map_shared` | copies |

use std::{
    ops::{Deref, DerefMut},
    os::fd::OwnedFd,
    sync::Arc,
};

use keyway_abi::{
    Denial, Handle, MappingId, Reply,
    layout::PAGE_BYTES,
    limits::HUGE_PAGE_BYTES,
    request::{self, MapAccess, RegionFlags},
};
use keyway_shm::{Access, OutOfView, Status, Verdict, View};
use keyway_sys::memory::{CopiedBytes, FrozenBytes, Mapping, Piece, Populate};

use crate::{control::Control, error::Error};

/// What a region is to be. Without any of these one process writes it and others read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionOptions {
    flags: RegionFlags,
}

impl RegionOptions {
    /// Its writer can give up writing for good, so that others read it in place: [`RegionWriter::freeze`].
    #[must_use]
    pub fn freezable(mut self) -> Self {
        self.flags |= RegionFlags::FREEZABLE;
        self
    }

    /// All who have the right `write` can write it at a time: [`Client::map_shared`](crate::Client::map_shared). Nothing in it can
    /// be relied upon.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.flags |= RegionFlags::SHARED;
        self
    }

    /// Its memory is of pages of 2 MiB, where the administrator has reserved enough of them; its size is rounded up to such.
    #[must_use]
    pub fn huge(mut self) -> Self {
        self.flags |= RegionFlags::HUGE;
        self
    }

    pub(crate) fn request(self, bytes: u64) -> request::CreateRegion {
        let page = if self.flags.contains(RegionFlags::HUGE) { HUGE_PAGE_BYTES } else { PAGE_BYTES as u64 };
        let bytes = bytes.checked_next_multiple_of(page).unwrap_or(u64::MAX);
        request::CreateRegion { bytes, flags: self.flags }
    }
}

/// Where a region is to be mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapOptions {
    hint: usize,
}

impl MapOptions {
    /// At this address if it is free, a multiple of the page size; else wherever there is room.
    #[must_use]
    pub fn near(mut self, address: usize) -> Self {
        self.hint = address;
        self
    }
}

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

/// A copy of a region that this process alone changes. A page that it has not written yet follows the region's writer.
#[derive(Debug)]
pub struct RegionCopy {
    open: Open,
}

/// A mapping of a region that several processes write at the same time. Every byte can change at any moment.
#[derive(Debug)]
pub struct SharedRegion {
    open: Open,
}

/// A region that nobody can change any more: its bytes, in place.
#[derive(Debug)]
pub struct FrozenRegion {
    bytes: FrozenBytes,
    memory: OwnedFd,
    // After the bytes, which it makes up for.
    mapped: Mapped,
}

/// A copy of a frozen region, in place: a page is copied when it is first written, and nobody else sees it.
#[derive(Debug)]
pub struct FrozenCopy {
    bytes: CopiedBytes,
}

#[derive(Debug)]
struct Open {
    // Unmapped before the broker is told.
    mapping: Mapping,
    view: View,
    status: Status,
    mapped: Mapped,
}

/// What the kernel knows of a mapping. Dropping it tells that the mapping is gone.
#[derive(Debug)]
pub(crate) struct Mapped {
    control: Arc<Control>,
    mapping: MappingId,
    region: Handle,
}

/// Becomes a region's one writer, with its memory as slices that can be divided. The mapping is told to be gone when the second
/// value is dropped, which is to be after the first.
pub(crate) fn map_own(control: &Arc<Control>, region: Handle) -> Result<(Piece, Mapped), Error> {
    let (mapped, _, bytes, memory) = ask_to_map(control, region, MapAccess::Write)?;
    let piece = Mapping::piece(memory, bytes)?;
    control.ask(request::RegionMapped { mapping: mapped.mapping })?;
    Ok((piece, mapped))
}

impl RegionWriter {
    pub(crate) fn map(control: &Arc<Control>, region: Handle, options: MapOptions) -> Result<Self, Error> {
        let open = Open::map(control, region, MapAccess::Write, options)?;
        control.ask(request::RegionMapped { mapping: open.mapped.mapping })?;
        Ok(RegionWriter { open })
    }

    /// Its size in bytes.
    pub fn len_bytes(&self) -> usize {
        self.open.view.len_bytes()
    }

    /// Where it begins in this process's addresses.
    pub fn address(&self) -> usize {
        self.open.mapping.address()
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

    /// Gives up writing for good. From now on the bytes never change, and others can [map them](crate::Client::map_frozen) as such.
    ///
    /// The mapping is gone also when this fails; what was written stays readable.
    ///
    /// # Errors
    /// [`Error::Denied`]: the region was not made freezable; `Pinned` while the kernel of the machine or another process holds
    /// pages of it; `SealedByOther` when a reader closed the set of seals first, which only one of this user can.
    pub fn freeze(self) -> Result<FrozenRegion, Error> {
        let Open { mapping, view, mapped, status } = self.open;
        let bytes = view.len_bytes();
        // The last clones: what is mapped for writing cannot be frozen.
        drop((view, mapping, status));
        let memory = mapped.control.ask(request::Freeze { mapping: mapped.mapping })?.pop();
        let memory = memory.ok_or(Error::BrokerIncoherent { operation: "Freeze" })?;
        FrozenRegion::over(mapped, memory, bytes, MapOptions::default())
    }
}

impl RegionReader {
    pub(crate) fn map(control: &Arc<Control>, region: Handle, options: MapOptions) -> Result<Self, Error> {
        Ok(RegionReader { open: Open::map(control, region, MapAccess::Read, options)? })
    }

    /// Its size in bytes.
    pub fn len_bytes(&self) -> usize {
        self.open.view.len_bytes()
    }

    /// Where it begins in this process's addresses.
    pub fn address(&self) -> usize {
        self.open.mapping.address()
    }

    /// Copies bytes at `offset` out. They may be of different moments, if the writer writes meanwhile.
    ///
    /// # Errors
    /// [`OutOfView`] beyond the end.
    pub fn read(&self, offset: usize, out: &mut [u8]) -> Result<(), OutOfView> {
        self.open.view.copy_out(offset, out)
    }

    /// See [`View::read_lines`].
    #[inline]
    pub(crate) fn read_lines(
        &self,
        offset: usize,
        len: usize,
        each: impl FnMut(&[u8]),
    ) -> Result<(), OutOfView> {
        self.open.view.read_lines(offset, len, each)
    }

    /// Whether the writer lives and nobody has taken the mapping back. Pages stay readable after that, and say nothing
    /// any more.
    pub fn verdict(&self) -> Verdict {
        self.open.status.verdict()
    }
}

impl RegionCopy {
    pub(crate) fn map(control: &Arc<Control>, region: Handle, options: MapOptions) -> Result<Self, Error> {
        let (mapped, word, bytes, memory) = ask_to_map(control, region, MapAccess::Read)?;
        let mapping = Mapping::copy_on_write(memory, bytes, options.hint)?;
        Ok(RegionCopy { open: Open::over(mapped, control.status(word)?, mapping) })
    }

    /// Its size in bytes.
    pub fn len_bytes(&self) -> usize {
        self.open.view.len_bytes()
    }

    /// Copies bytes at `offset` out.
    ///
    /// # Errors
    /// [`OutOfView`] beyond the end.
    pub fn read(&self, offset: usize, out: &mut [u8]) -> Result<(), OutOfView> {
        self.open.view.copy_out(offset, out)
    }

    /// Writes `bytes` at `offset`, for this process alone. The pages that they lie in follow the writer no longer.
    ///
    /// # Errors
    /// [`OutOfView`] when they do not fit.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), OutOfView> {
        self.open.view.copy_in(offset, bytes)
    }

    /// As [`RegionReader::verdict`].
    pub fn verdict(&self) -> Verdict {
        self.open.status.verdict()
    }
}

impl SharedRegion {
    pub(crate) fn map(control: &Arc<Control>, region: Handle, options: MapOptions) -> Result<Self, Error> {
        let open = Open::map(control, region, MapAccess::Share, options)?;
        match control.ask(request::RegionMapped { mapping: open.mapped.mapping }) {
            // Or another process was the first.
            Ok(_) | Err(Error::Denied { denial: Denial::AlreadyMapped, .. }) => Ok(SharedRegion { open }),
            Err(error) => Err(error),
        }
    }

    /// Its size in bytes.
    pub fn len_bytes(&self) -> usize {
        self.open.view.len_bytes()
    }

    /// Writes `bytes` at `offset`. Others can write there at the same time; what is there then is a mixture.
    ///
    /// # Errors
    /// [`OutOfView`] when they do not fit.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), OutOfView> {
        self.open.view.copy_in(offset, bytes)
    }

    /// Copies bytes at `offset` out.
    ///
    /// # Errors
    /// [`OutOfView`] beyond the end.
    pub fn read(&self, offset: usize, out: &mut [u8]) -> Result<(), OutOfView> {
        self.open.view.copy_out(offset, out)
    }

    /// Whether nobody has taken the mapping back.
    pub fn verdict(&self) -> Verdict {
        self.open.status.verdict()
    }
}

impl FrozenRegion {
    pub(crate) fn map(control: &Arc<Control>, region: Handle, options: MapOptions) -> Result<Self, Error> {
        let (mapped, _, bytes, memory) = ask_to_map(control, region, MapAccess::Frozen)?;
        FrozenRegion::over(mapped, memory, bytes, options)
    }

    fn over(mapped: Mapped, memory: OwnedFd, bytes: usize, options: MapOptions) -> Result<Self, Error> {
        // The seals are looked at here once more, on the very descriptor that is mapped.
        let bytes = FrozenBytes::map(&memory, bytes, options.hint)?;
        Ok(FrozenRegion { bytes, memory, mapped })
    }

    /// The handle by which it was mapped, and by which it is sent on.
    pub(crate) fn region(&self) -> Handle {
        self.mapped.region
    }

    /// A copy to be changed at will. Costs memory only for the pages that are written.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn copy(&self) -> Result<FrozenCopy, Error> {
        Ok(FrozenCopy { bytes: CopiedBytes::map(&self.memory, self.bytes.len(), 0)? })
    }
}

impl Deref for FrozenRegion {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Deref for FrozenCopy {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for FrozenCopy {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Open {
    fn map(
        control: &Arc<Control>,
        region: Handle,
        access: MapAccess,
        options: MapOptions,
    ) -> Result<Self, Error> {
        let (mapped, word, bytes, memory) = ask_to_map(control, region, access)?;
        let (access, populate) = match access {
            // The writer pays for every page, so that no reader does.
            MapAccess::Write | MapAccess::Share => (Access::Write, Populate::Now),
            MapAccess::Read | MapAccess::Frozen => (Access::Read, Populate::OnUse),
        };
        let mapping = Mapping::near(memory, bytes, access, populate, options.hint)?;
        Ok(Open::over(mapped, control.status(word)?, mapping))
    }

    fn over(mapped: Mapped, status: Status, mapping: Mapping) -> Self {
        let view = mapping.view();
        Open { mapping, view, status, mapped }
    }
}

fn ask_to_map(
    control: &Arc<Control>,
    region: Handle,
    access: MapAccess,
) -> Result<(Mapped, keyway_abi::WordPlace, usize, OwnedFd), Error> {
    let (reply, mut descriptors) = control.request(request::MapRegion { region, access })?;
    let (Reply::Mapping { mapping, word, bytes }, Some(memory)) = (reply, descriptors.pop()) else {
        return Err(Error::BrokerIncoherent { operation: "MapRegion" });
    };
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    Ok((Mapped { control: Arc::clone(control), mapping, region }, word, bytes, memory))
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if !self.control.is_over() {
            // It may be gone already.
            let _ = self.control.ask(request::Unmap { mapping: self.mapping });
        }
    }
}
