//! Memory that processes share: memfds, their seals, and mappings of them.
//!
//! The life of one memory that a single process writes:
//!
//! ```text
//!  broker: create_memory          SHRINK GROW, mode 0400
//!  writer: Mapping (Write)        says `mapped`
//!  broker: seal                   + FUTURE_WRITE (+ SEAL): from now on nobody can map it for writing
//!  broker: check_seals            exactly the expected seals, the size, and for a region its blocks
//!  broker: reopen_read_only       what readers get
//!  reader: Mapping (Read)
//! ```
//!
//! The mode 0400 keeps a reader of another uid from opening its descriptor anew for writing by way of /proc; the
//! descriptor in hand stays writable. One of the same uid can change the mode back, and then add seals, but
//! `FUTURE_WRITE` still refuses it every writable mapping and every `write`.

use std::{
    any::Any,
    ops::{Deref, DerefMut},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    ptr::{self, NonNull},
    slice,
    sync::Arc,
};

pub use keyway_shm::{Access, OutOfView, Own, Piece, View};
use rustix::{
    fs::{self, MemfdFlags, Mode, OFlags},
    io::Errno,
    mm::{self, Advice, MapFlags, ProtFlags},
};

use crate::Error;

pub use rustix::fs::SealFlags as Seals;

/// What a memory is for, which decides its seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SealUse {
    /// The ring of a lane, written by its sender.
    Lane,
    /// The same of huge pages, all of which must be in place: whoever touches one that cannot be had is killed.
    HugeLane,
    /// The acknowledgement page of a lane, written by its receiver.
    Acknowledgement,
    /// A page of words that the broker writes and one process reads.
    BrokerPage,
    /// A region that one process writes and others read.
    LiveRegion,
    /// A region declared freezable at its creation, and not frozen yet: its last seal is left for [`freeze`].
    FreezableRegion,
    /// A freezable region after [`freeze`]: nobody writes it any more.
    FrozenRegion,
    /// A region that several may write. It has no single writer; Linux promises only its size.
    SharedRegion,
}

impl SealUse {
    /// The seals that a memory of this use has once its writer has mapped it. `EXEC` is among them because each
    /// memfd is made with `MFD_NOEXEC_SEAL`.
    pub fn seals(self) -> Seals {
        let size = Seals::SHRINK | Seals::GROW | Seals::EXEC;
        match self {
            Self::Lane | Self::HugeLane | Self::Acknowledgement | Self::BrokerPage | Self::LiveRegion => {
                size | Seals::FUTURE_WRITE | Seals::SEAL
            }
            Self::FreezableRegion => size | Seals::FUTURE_WRITE,
            Self::FrozenRegion => size | Seals::FUTURE_WRITE | Seals::WRITE | Seals::SEAL,
            Self::SharedRegion => size | Seals::SEAL,
        }
    }

    /// Whether a reader must find every page in place, so that it pays for none.
    fn is_populated(self) -> bool {
        match self {
            Self::Lane | Self::Acknowledgement | Self::BrokerPage => false,
            Self::HugeLane
            | Self::LiveRegion
            | Self::FreezableRegion
            | Self::FrozenRegion
            | Self::SharedRegion => true,
        }
    }
}

/// Makes a memory of `bytes` zero bytes that can neither shrink nor grow nor be executed: `memfd_create(2)`, see also
/// `memfd_noexec` in the kernel's documentation.
///
/// The name is seen in /proc only. The descriptor is closed at `exec`.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`; `EINVAL` before Linux 6.3 and for a name longer than 249 bytes.
pub fn create_memory(name: &str, bytes: usize) -> Result<OwnedFd, Error> {
    create_memory_of(name, bytes, PageSize::Normal)
}

/// Of which pages a memory is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// The machine's ordinary ones.
    Normal,
    /// Of 2 MiB each, out of those that the administrator reserved (`/proc/sys/vm/nr_hugepages`); ordinary ones where not enough
    /// are left.
    HugeIfAny,
}

/// As [`create_memory`], of these pages.
///
/// # Errors
/// As [`create_memory`].
pub fn create_memory_of(name: &str, bytes: usize, pages: PageSize) -> Result<OwnedFd, Error> {
    if pages == PageSize::HugeIfAny && free_huge_pages() >= bytes.div_ceil(HUGE_PAGE_BYTES) {
        let huge = create_with(name, bytes, MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB);
        if huge.is_ok() {
            return huge;
        }
    }
    create_with(name, bytes, MemfdFlags::empty())
}

const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Huge pages that nobody has taken or reserved. Without this look, whoever touches one that is not there is killed.
fn free_huge_pages() -> usize {
    let read = |name: &str| {
        let path = format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{name}");
        std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<usize>().ok())
    };
    read("free_hugepages").unwrap_or(0).saturating_sub(read("resv_hugepages").unwrap_or(0))
}

fn create_with(name: &str, bytes: usize, pages: MemfdFlags) -> Result<OwnedFd, Error> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL | pages;
    let fd = fs::memfd_create(name, flags).map_err(Error::of("memfd_create"))?;
    fs::fchmod(&fd, Mode::RUSR).map_err(Error::of("fchmod"))?;
    fs::ftruncate(&fd, bytes as u64).map_err(Error::of("ftruncate"))?;
    add_seals(&fd, Seals::SHRINK | Seals::GROW)?;
    Ok(fd)
}

/// Adds the seals of `sealed_for` that [`create_memory`] left out, after the writer has mapped: `F_ADD_SEALS` in
/// `fcntl(2)`.
///
/// # Errors
/// `EPERM` when the memory was sealed for good before, or the descriptor is read-only.
pub fn seal(fd: impl AsFd, sealed_for: SealUse) -> Result<(), Error> {
    let found = fs::fcntl_get_seals(&fd).map_err(Error::of("fcntl(F_GET_SEALS)"))?;
    let missing = sealed_for.seals() - found;
    if missing.is_empty() { Ok(()) } else { add_seals(fd, missing) }
}

/// What came of [`freeze`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freeze {
    /// Nobody can change the memory any more.
    Frozen,
    /// A writable mapping exists, or a page is held by the kernel for some input or output.
    Pinned,
    /// Somebody closed the set of seals first; the memory cannot be frozen.
    SealedByOther,
}

/// Seals a freezable region for good: `F_SEAL_WRITE` and `F_SEAL_SEAL` in `fcntl(2)`.
///
/// The kernel may wait up to about 150 ms for pages that are pinned: not for a loop that serves others.
///
/// # Errors
/// Whatever else Linux answers; a writable mapping and a closed set of seals are no errors but outcomes.
pub fn freeze(fd: impl AsFd) -> Result<Freeze, Error> {
    match add_seals(fd, Seals::WRITE | Seals::SEAL) {
        Ok(()) => Ok(Freeze::Frozen),
        Err(Error { errno: Errno::BUSY, .. }) => Ok(Freeze::Pinned),
        Err(Error { errno: Errno::PERM, .. }) => Ok(Freeze::SealedByOther),
        Err(error) => Err(error),
    }
}

/// What [`check_seals`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealCheck {
    /// The seals, the size and the blocks are those expected.
    AsExpected,
    /// The descriptor is not of a file that can be sealed.
    NotSealable,
    /// Seals are missing, or somebody added some.
    Seals {
        /// The seals that the file has.
        found: Seals,
        /// The seals that its use asks for.
        expected: Seals,
    },
    /// The size differs.
    Size {
        /// The file's size.
        found_bytes: u64,
        /// The size that was asked for.
        expected_bytes: u64,
    },
    /// The writer did not populate the region: a reader would pay for the rest.
    Unpopulated {
        /// Bytes of the pages that are in place.
        found_bytes: u64,
        /// The size of the region.
        expected_bytes: u64,
    },
}

/// Compares a memory with what its use asks for: `F_GET_SEALS` in `fcntl(2)`, and `fstat(2)`.
///
/// # Errors
/// What Linux answers to `fstat`, which is nothing for an open descriptor.
pub fn check_seals(fd: impl AsFd, sealed_for: SealUse, bytes: usize) -> Result<SealCheck, Error> {
    let found = match fs::fcntl_get_seals(&fd) {
        Ok(found) => found,
        Err(Errno::INVAL) => return Ok(SealCheck::NotSealable),
        Err(errno) => return Err(Error { call: "fcntl(F_GET_SEALS)", errno }),
    };
    let expected = sealed_for.seals();
    if found != expected {
        return Ok(SealCheck::Seals { found, expected });
    }
    let stat = fs::fstat(fd).map_err(Error::of("fstat"))?;
    let (found_bytes, expected_bytes) = (u64::try_from(stat.st_size).unwrap_or(0), bytes as u64);
    if found_bytes != expected_bytes {
        return Ok(SealCheck::Size { found_bytes, expected_bytes });
    }
    let found_bytes = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
    if sealed_for.is_populated() && found_bytes < expected_bytes {
        return Ok(SealCheck::Unpopulated { found_bytes, expected_bytes });
    }
    Ok(SealCheck::AsExpected)
}

/// Opens the same memory once more, for reading only: `open(2)` of the descriptor's name in /proc.
///
/// # Errors
/// `EMFILE`, `ENFILE`; `ENOENT` where /proc is not mounted; `EACCES` for a memory of another uid.
pub fn reopen_read_only(fd: impl AsFd) -> Result<OwnedFd, Error> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(Error::of("open(/proc/self/fd)"))
}

/// Reads bytes of a memory without mapping it: `pread(2)`. What it reads is another process's claim.
///
/// # Errors
/// `EIO` for fewer bytes than asked for, and those of `pread(2)`.
pub fn read_at(fd: impl AsFd, offset: u64, out: &mut [u8]) -> Result<(), Error> {
    let wanted = out.len();
    match rustix::io::pread(fd, out, offset).map_err(Error::of("pread"))? {
        found if found == wanted => Ok(()),
        _ => Err(Error { call: "pread", errno: Errno::IO }),
    }
}

/// Whether a mapping's pages are put in place at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Populate {
    /// All of them, before the mapping is returned: `MADV_POPULATE_WRITE` or `MADV_POPULATE_READ`.
    Now,
    /// Each when it is first touched.
    OnUse,
}

/// Why a memory was not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// The file is not as long as it was said to be, or has no bytes at all.
    Size {
        /// The file's size.
        found_bytes: u64,
        /// The size that was asked for.
        asked_bytes: u64,
    },
    /// The length is no multiple of 8, and no view of it could be made.
    Uneven {
        /// The size that was asked for.
        asked_bytes: u64,
    },
    /// The file could be truncated while it is mapped, and a touch would then kill this process.
    Unsealed,
    /// Somebody could still write the file.
    NotFrozen,
    /// Linux refused a call.
    Refused(Error),
}

impl core::fmt::Display for MapError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Size { found_bytes, asked_bytes } => {
                write!(f, "the memory has {found_bytes} bytes, not {asked_bytes}")
            }
            Self::Uneven { asked_bytes } => {
                write!(f, "{asked_bytes} bytes of memory are not a multiple of 8")
            }
            Self::Unsealed => f.write_str("the memory is not sealed against a change of its size"),
            Self::NotFrozen => f.write_str("the memory is not sealed against writing"),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for MapError {}

impl From<Error> for MapError {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// A whole memory in this process's addresses. A clone is the same mapping; the last one unmaps it, and so do the views
/// made of it, which keep it.
#[derive(Clone, Debug)]
pub struct Mapping {
    addresses: Arc<Addresses>,
    view: View,
}

impl Mapping {
    /// Maps all `bytes` of the memory: `mmap(2)`, shared. Seals and size are verified on the descriptor first.
    ///
    /// A mapping to [`Access::Write`] is not inherited by forked children (`MADV_DONTFORK`), so that the memory keeps
    /// one writer. A mapping to [`Access::Read`] has no right to write, whatever the descriptor allows.
    ///
    /// # Errors
    /// See [`MapError`]; refused with `EPERM` when writing is asked for after the memory was sealed, with `EACCES` when
    /// it is asked for by a descriptor that only reads.
    pub fn new(fd: impl AsFd, bytes: usize, access: Access, populate: Populate) -> Result<Self, MapError> {
        Self::near(fd, bytes, access, populate, 0)
    }

    /// As [`new`](Self::new), at the address `hint` if that is free, else where there is room; 0 is no wish.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn near(
        fd: impl AsFd,
        bytes: usize,
        access: Access,
        populate: Populate,
        hint: usize,
    ) -> Result<Self, MapError> {
        let protection = match access {
            Access::Read => ProtFlags::READ,
            Access::Write => ProtFlags::READ | ProtFlags::WRITE,
        };
        let addresses = Addresses::map(&fd, bytes, protection, MapFlags::SHARED, hint)?;
        let mapping = Self::over(addresses, access)?;
        if matches!(access, Access::Write) {
            mapping.advise(Advice::LinuxDontFork, "madvise(MADV_DONTFORK)")?;
        }
        match (populate, access) {
            (Populate::OnUse, _) => {}
            (Populate::Now, Access::Read) => {
                mapping.advise(Advice::LinuxPopulateRead, "madvise(MADV_POPULATE_READ)")?;
            }
            (Populate::Now, Access::Write) => {
                mapping.advise(Advice::LinuxPopulateWrite, "madvise(MADV_POPULATE_WRITE)")?;
            }
        }
        Ok(mapping)
    }

    /// Maps a copy that this process alone sees change: `MAP_PRIVATE` in `mmap(2)`. A page that was not written here yet is still
    /// the memory's own, and follows its writer.
    ///
    /// # Errors
    /// As [`new`](Self::new); a descriptor that only reads is enough.
    pub fn copy_on_write(fd: impl AsFd, bytes: usize, hint: usize) -> Result<Self, MapError> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let addresses = Addresses::map(&fd, bytes, protection, MapFlags::PRIVATE, hint)?;
        Self::over(addresses, Access::Write)
    }

    /// Maps all `bytes` of a memory that this process is to be the one writer of, and hands it to whoever writes it.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn own(fd: impl AsFd, bytes: usize, populate: Populate) -> Result<Own, MapError> {
        let mapping = Self::new(fd, bytes, Access::Write, populate)?;
        let addresses = mapping.addresses;
        let (base, bytes) = (addresses.base, addresses.bytes);
        // SAFETY:
        // 1. As in `over`.
        // 2. The mapping's own view is dropped here, and nobody had it (check: this function). That no other process writes
        //    is the seal that the broker sets before anyone else has the memory; until then nobody has it.
        let own = unsafe { Own::new(base, bytes, addresses) };
        own.ok_or(MapError::Uneven { asked_bytes: bytes as u64 })
    }

    /// Maps all `bytes` of a memory that this process is to be the one writer of, every page of it put in place, as slices that
    /// can be divided.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn piece(fd: impl AsFd, bytes: usize) -> Result<Piece, MapError> {
        let mapping = Self::new(fd, bytes, Access::Write, Populate::Now)?;
        let addresses = mapping.addresses;
        let (base, bytes) = (addresses.base, addresses.bytes);
        // SAFETY:
        // 1. As in `over`; Linux hands out pages of zeros.
        // 2. As in `own`: the mapping's own view is dropped here, and nobody had it. Its addresses keep nothing else.
        let piece = unsafe { Piece::whole(base, bytes, addresses) };
        piece.ok_or(MapError::Uneven { asked_bytes: bytes as u64 })
    }

    fn over(addresses: Addresses, access: Access) -> Result<Self, MapError> {
        let addresses = Arc::new(addresses);
        let (base, bytes) = (addresses.base, addresses.bytes);
        let keep: Arc<dyn Any + Send + Sync> = Arc::<Addresses>::clone(&addresses);
        // SAFETY:
        // 1. `base` is valid for reads of `bytes` bytes, and for writes with `Access::Write`, until the last clone of
        //    `addresses` is dropped (type: `Addresses` invariant 1), and `keep` is one; the size was checked on the
        //    descriptor after the seals (type: `Addresses` invariant 2).
        // 2. `base` is where the mapping begins, and this module gives it to nobody but views (type: private field).
        let view = unsafe { View::new(base, bytes, access, keep) };
        let view = view.ok_or(MapError::Uneven { asked_bytes: bytes as u64 })?;
        Ok(Self { addresses, view })
    }

    /// Where the mapping begins in this process's addresses.
    pub fn address(&self) -> usize {
        self.addresses.base.as_ptr() as usize
    }

    /// A window on all of the mapping, which keeps it mapped.
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// The length of the memory.
    pub fn len_bytes(&self) -> usize {
        self.addresses.bytes
    }

    fn advise(&self, advice: Advice, call: &'static str) -> Result<(), Error> {
        let base = self.addresses.base.as_ptr();
        // SAFETY:
        // 1. The range is one mapping of ours (type: `Addresses` invariant 1).
        // 2. None of the advices given here changes bytes (check: the callers, all in this type).
        unsafe { mm::madvise(base.cast(), self.addresses.bytes, advice) }.map_err(Error::of(call))
    }
}

/// One `mmap`, undone on drop.
///
/// # Invariants
/// 1. `bytes` bytes from `base` are one mapping that only the drop of this value unmaps.
/// 2. The file mapped is sealed against a change of its size and is exactly `bytes` long.
#[derive(Debug)]
struct Addresses {
    base: NonNull<u8>,
    bytes: usize,
}

impl Addresses {
    fn map(
        fd: impl AsFd,
        bytes: usize,
        protection: ProtFlags,
        flags: MapFlags,
        hint: usize,
    ) -> Result<Self, MapError> {
        verify_size(&fd, bytes)?;
        let hint = ptr::without_provenance_mut(hint);
        // SAFETY:
        // 1. No address is demanded, so nothing that is mapped is replaced (check: no `FIXED` among `flags`).
        // 2. The file neither shrinks nor grows while it is mapped (check: `verify_size`).
        let base = unsafe { mm::mmap(hint, bytes, protection, flags, &fd, 0) }.map_err(Error::of("mmap"))?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(Error { call: "mmap", errno: Errno::FAULT })?;
        Ok(Addresses { base, bytes })
    }
}

/// The bytes of a frozen memory. They never change, whoever else has them.
#[derive(Debug)]
pub struct FrozenBytes {
    addresses: Addresses,
}

impl FrozenBytes {
    /// Maps a memory that is sealed against every change; the seals are verified on the descriptor.
    ///
    /// # Errors
    /// [`MapError::NotFrozen`], and those of [`Mapping::new`].
    pub fn map(fd: impl AsFd, bytes: usize, hint: usize) -> Result<Self, MapError> {
        verify_frozen(&fd)?;
        let addresses = Addresses::map(&fd, bytes, ProtFlags::READ, MapFlags::SHARED, hint)?;
        Ok(FrozenBytes { addresses })
    }
}

impl Deref for FrozenBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let Addresses { base, bytes } = self.addresses;
        // SAFETY:
        // 1. The range is mapped for reading as long as `self` lives (type: `Addresses` invariant 1), and no larger than
        //    `isize::MAX`, as it is one mapping.
        // 2. Nobody changes it: the file is sealed with `F_SEAL_WRITE`, which Linux grants only when no writable mapping
        //    exists, and after which it grants none (check: `verify_frozen` in `map`); this process maps it read-only.
        unsafe { slice::from_raw_parts(base.as_ptr(), bytes) }
    }
}

/// A copy of a frozen memory, to be changed at will: a page is copied when it is first written, and nobody else sees it.
#[derive(Debug)]
pub struct CopiedBytes {
    addresses: Addresses,
}

impl CopiedBytes {
    /// Maps a private copy of a memory that is sealed against every change.
    ///
    /// # Errors
    /// As [`FrozenBytes::map`].
    pub fn map(fd: impl AsFd, bytes: usize, hint: usize) -> Result<Self, MapError> {
        verify_frozen(&fd)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let addresses = Addresses::map(&fd, bytes, protection, MapFlags::PRIVATE, hint)?;
        Ok(CopiedBytes { addresses })
    }
}

impl Deref for CopiedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let Addresses { base, bytes } = self.addresses;
        // SAFETY:
        // 1. As in `FrozenBytes`: the range is mapped as long as `self` lives (type: `Addresses` invariant 1).
        // 2. Only `deref_mut` changes it, which borrows `self` exclusively: a page that was not written yet is of a sealed
        //    file (check: `verify_frozen` in `map`), and one that was is this mapping's alone (`MAP_PRIVATE`).
        unsafe { slice::from_raw_parts(base.as_ptr(), bytes) }
    }
}

impl DerefMut for CopiedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        let Addresses { base, bytes } = self.addresses;
        // SAFETY:
        // 1. The range is mapped for writing as long as `self` lives (type: `Addresses` invariant 1).
        // 2. `self` is borrowed exclusively, and nobody else has these pages (as in `deref`).
        unsafe { slice::from_raw_parts_mut(base.as_ptr(), bytes) }
    }
}

// SAFETY: the addresses belong to the process, not to a thread; the value itself reads and writes nothing.
unsafe impl Send for Addresses {}
// SAFETY: as above; a shared reference gives out the address and the length, both constant.
unsafe impl Sync for Addresses {}

impl Drop for Addresses {
    fn drop(&mut self) {
        // SAFETY:
        // 1. The range is one mapping of ours (type: invariant 1).
        // 2. No view uses it any more: each keeps the `Arc` that is being dropped (check: `Mapping::view`).
        // The call can fail only for a range that was never mapped.
        let _ = unsafe { mm::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

fn add_seals(fd: impl AsFd, seals: Seals) -> Result<(), Error> {
    fs::fcntl_add_seals(fd, seals).map_err(Error::of("fcntl(F_ADD_SEALS)"))
}

/// Holds when nobody can change the file any more.
fn verify_frozen(fd: impl AsFd) -> Result<(), MapError> {
    match fs::fcntl_get_seals(&fd) {
        Ok(found) if found.contains(Seals::WRITE | Seals::SHRINK | Seals::GROW) => Ok(()),
        Ok(_) | Err(Errno::INVAL) => Err(MapError::NotFrozen),
        Err(errno) => Err(Error { call: "fcntl(F_GET_SEALS)", errno }.into()),
    }
}

/// Holds when the file is exactly `bytes` long and stays so: the seals are looked at before the size.
fn verify_size(fd: impl AsFd, bytes: usize) -> Result<(), MapError> {
    let sealed = match fs::fcntl_get_seals(&fd) {
        Ok(found) => found.contains(Seals::SHRINK | Seals::GROW),
        Err(Errno::INVAL) => false,
        Err(errno) => return Err(Error { call: "fcntl(F_GET_SEALS)", errno }.into()),
    };
    if !sealed {
        return Err(MapError::Unsealed);
    }
    let stat = fs::fstat(fd).map_err(Error::of("fstat"))?;
    let (found_bytes, asked_bytes) = (u64::try_from(stat.st_size).unwrap_or(0), bytes as u64);
    if found_bytes == 0 || found_bytes != asked_bytes {
        return Err(MapError::Size { found_bytes, asked_bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
