//! Memory of the sender's own, lent in blocks of any size, from which messages send parts without a copy.
//!
//! ```text
//!  Pool ── loan ──▶ Block (to be written) ── share ──▶ SharedBlock ── part ──▶ messages, on many lanes
//!    ▲                                                     │
//!    └──────────── the last one is gone: here, and at every reader ────────────┘
//! ```
//!
//! Where a block lies is decided by private memory alone. What a reader says, that it has released a segment, frees its
//! own share of a block and nothing else: one that lies reads what comes next.
//!
//! Neighbours: `space` (which parts are free), `shares` (what each lane's reader has not released).

mod shares;
mod space;

use std::{
    ops::{Deref, DerefMut, Range},
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};

use keyway_abi::{Handle, limits::REGION_BYTES_MAX};
use keyway_sys::memory::Piece;

use self::space::Space;
use crate::{
    bells::Ear,
    capability::Capability,
    control::{Control, locked},
    error::Error,
    region::{FrozenRegion, Mapped, RegionOptions, map_own},
    waiting::Until,
};

pub(crate) use self::shares::{Awaited, Shares, Slot, wait_for_release};

/// How a pool is to be.
///
/// ```
/// use keyway::PoolOptions;
///
/// // Room for eight frames, of which one reader keeps at most six from being used again.
/// let options = PoolOptions { bytes: 32 << 20, lane_bytes_max: Some(24 << 20), ..PoolOptions::default() };
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PoolOptions {
    /// Its bytes, at most 1 GiB, rounded up to whole pages; 16 MiB by default.
    pub bytes: u64,
    /// Bytes of blocks that one lane's reader can keep from being used again, by not releasing them. `None`: all. Choose less
    /// where several readers share a pool and one that does nothing must not hold the others up.
    pub lane_bytes_max: Option<u64>,
    /// Whether its memory is of pages of 2 MiB, where the administrator has reserved enough of them.
    pub huge: bool,
}

impl Default for PoolOptions {
    fn default() -> Self {
        PoolOptions { bytes: 16 << 20, lane_bytes_max: None, huge: false }
    }
}

/// Memory of this process's own, from which it lends blocks. A clone is the same pool.
///
/// # Examples
/// ```
/// # #[cfg(feature = "embedded")]
/// # fn main() -> Result<(), keyway::Error> {
/// use keyway::{Client, Embedded, Outgoing, PoolOptions, QueueOptions};
///
/// let broker = Embedded::start()?;
/// let client = Client::over(broker.connect()?)?;
/// let mut queue = client.create_queue(QueueOptions::default())?;
/// let mut sender = client.open_sender(&queue.sender_capability(None)?)?;
///
/// let pool = client.create_pool(PoolOptions::default())?;
/// let mut block = pool.loan(1 << 20)?;
/// block.fill(7);
/// let block = block.share();
/// // The first half, without a copy; the same block can go to others as well.
/// sender.send_segments(&Outgoing::bytes(b"a frame"), &[block.part(0..1 << 19)])?;
///
/// let message = queue.receive()?;
/// assert_eq!(message.payload, b"a frame");
/// let mut first = [0; 3];
/// message.segments[0].copy_out(0, &mut first).unwrap();
/// assert_eq!(first, [7; 3]);
/// // Released: the pool may lend that memory again once the sender drops its block.
/// drop(message);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "embedded"))]
/// # fn main() {}
/// ```
#[derive(Clone, Debug)]
pub struct Pool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    control: Arc<Control>,
    memory: Arc<Memory>,
    /// The lanes that have carried its blocks. Who holds blocks does not hold this, so that no circle keeps them.
    lanes: Mutex<Vec<Arc<Shares>>>,
    lane_bytes_max: u64,
}

/// What blocks lie in.
#[derive(Debug)]
struct Memory {
    /// Unmapped before the broker is told.
    space: Mutex<Space>,
    /// Who is to be told when a block is free again; each once.
    ears: Mutex<Vec<Arc<Ear>>>,
    len_bytes: usize,
    _mapped: Mapped,
    region: Capability,
    pool: Weak<Inner>,
}

/// A block of a pool, this process's alone: to be written, then [shared](Block::share). Dropped without that, it is free again.
///
/// Its content is what the pool carried there before, and zero at first.
#[derive(Debug)]
pub struct Block {
    /// Gone only in `drop`.
    piece: Option<Piece>,
    len: usize,
    memory: Arc<Memory>,
}

/// A block that is sent. Nobody writes it any more until all clones are dropped and all readers have released it; then it is
/// lent anew.
#[derive(Clone, Debug)]
pub struct SharedBlock {
    block: Arc<Block>,
}

/// What a message sends without a copy: a part of a block, or of a frozen region.
#[derive(Clone, Debug)]
pub struct Part<'p> {
    pub(crate) memory: PartMemory<'p>,
    pub(crate) range: Range<usize>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum PartMemory<'p> {
    Block(&'p SharedBlock),
    Frozen(&'p FrozenRegion),
}

impl Pool {
    pub(crate) fn create(control: &Arc<Control>, options: PoolOptions) -> Result<Self, Error> {
        let PoolOptions { bytes, lane_bytes_max, huge } = options;
        let region_options = if huge { RegionOptions::default().huge() } else { RegionOptions::default() };
        let (created, _) = control.create(region_options.request(bytes))?;
        let region = Capability::adopted(control, created.handle, created.rights);
        let (piece, mapped) = map_own(control, region.handle())?;
        let len_bytes = piece.len();
        let lane_bytes_max = lane_bytes_max.unwrap_or(REGION_BYTES_MAX);
        let inner = Arc::new_cyclic(|pool: &Weak<Inner>| {
            let space = Mutex::new(Space::new(piece));
            let memory = Memory {
                space,
                ears: Mutex::default(),
                len_bytes,
                _mapped: mapped,
                region,
                pool: Weak::clone(pool),
            };
            Inner {
                control: Arc::clone(control),
                memory: Arc::new(memory),
                lanes: Mutex::new(Vec::new()),
                lane_bytes_max,
            }
        });
        Ok(Pool { inner })
    }

    /// Its size in bytes: the largest block that it ever lends.
    pub fn len_bytes(&self) -> usize {
        self.inner.memory.len_bytes
    }

    /// Lends a block of `len` bytes; waits until there is room for it in one piece.
    ///
    /// # Errors
    /// [`Error::LoanTooLarge`] for more than the pool has, [`Error::BrokerGone`].
    pub fn loan(&self, len: usize) -> Result<Block, Error> {
        self.loan_until(len, Until::Forever)
    }

    /// As [`Pool::loan`], if there is room now.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] when what is not in use is too little, or in too small pieces; and as [`Pool::loan`].
    pub fn try_loan(&self, len: usize) -> Result<Block, Error> {
        if len > self.len_bytes() {
            return Err(Error::LoanTooLarge { asked_bytes: len, bytes_max: self.len_bytes() });
        }
        // What was read already comes first: the machine may still have it in its caches.
        self.inner.collect();
        let piece = locked(&self.inner.memory.space).take(len).ok_or(Error::WouldBlock)?;
        Ok(Block { piece: Some(piece), len, memory: Arc::clone(&self.inner.memory) })
    }

    /// As [`Pool::loan`], but waits no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], and as [`Pool::loan`].
    pub fn loan_timeout(&self, len: usize, timeout: Duration) -> Result<Block, Error> {
        match self.loan_until(len, Until::after(timeout)) {
            Err(Error::WouldBlock) => Err(Error::TimedOut(timeout)),
            lent => lent,
        }
    }

    /// How much of a pool a block of `len` bytes keeps.
    pub(crate) fn kept_for(len: usize) -> u64 {
        Space::piece_bytes(len).map_or(u64::MAX, |bytes| bytes as u64)
    }

    /// What one lane's reader may keep of it.
    pub(crate) fn lane_bytes_max(&self) -> u64 {
        self.inner.lane_bytes_max
    }

    /// The lanes whose readers have blocks of it. From now on `ear` is told once, when a block is free again or sent on any lane.
    pub(crate) fn listen(&self, ear: &Arc<Ear>) -> Vec<Arc<Shares>> {
        let mut ears = locked(&self.inner.memory.ears);
        if !ears.iter().any(|known| Arc::ptr_eq(known, ear)) {
            ears.push(Arc::clone(ear));
        }
        drop(ears);
        locked(&self.inner.lanes).clone()
    }

    pub(crate) fn loan_until(&self, len: usize, until: Until) -> Result<Block, Error> {
        let mut began = None;
        loop {
            match self.try_loan(len) {
                Err(Error::WouldBlock) => {}
                lent => return lent,
            }
            let lanes = locked(&self.inner.lanes).clone();
            let began = *began.get_or_insert_with(Instant::now);
            wait_for_release(&self.inner.control, &lanes, began, until)?;
        }
    }
}

impl Inner {
    /// Frees what readers have released, and forgets lanes from which nothing more will come.
    fn collect(&self) {
        locked(&self.lanes).retain(|lane| lane.collect());
    }
}

impl Memory {
    /// Tells those who wait for room.
    fn tell_ears(&self) {
        // Once: who still finds no room listens again before it sleeps.
        for ear in std::mem::take(&mut *locked(&self.ears)) {
            ear.wake();
        }
    }
}

impl Block {
    /// Ends the writing: from now on it can be sent, on as many lanes as one likes.
    #[must_use]
    pub fn share(self) -> SharedBlock {
        SharedBlock { block: Arc::new(self) }
    }
}

impl Deref for Block {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.piece.as_deref().map_or(&[], |bytes| &bytes[..self.len])
    }
}

impl DerefMut for Block {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        self.piece.as_deref_mut().map_or(&mut [], |bytes| &mut bytes[..len])
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(piece) = self.piece.take() {
            locked(&self.memory.space).put(piece);
            self.memory.tell_ears();
        }
    }
}

impl SharedBlock {
    /// A part of it, to be sent. A range that it does not have is refused when it is sent.
    pub fn part(&self, range: Range<usize>) -> Part<'_> {
        Part { memory: PartMemory::Block(self), range }
    }

    /// All of it, to be sent.
    pub fn whole(&self) -> Part<'_> {
        self.part(0..self.len())
    }

    /// How much of the pool it keeps.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.block.piece.as_ref().map_or(0, |piece| piece.len() as u64)
    }

    /// What one lane's reader may keep of its pool.
    pub(crate) fn lane_bytes_max(&self) -> u64 {
        self.block.memory.pool.upgrade().map_or(u64::MAX, |pool| pool.lane_bytes_max)
    }

    /// The pool looks at this lane for what is released.
    pub(crate) fn tell_pool_of(&self, lane: &Arc<Shares>) {
        // Nobody lends of a pool that is gone.
        let Some(pool) = self.block.memory.pool.upgrade() else { return };
        let mut lanes = locked(&pool.lanes);
        if !lanes.iter().any(|known| Arc::ptr_eq(known, lane)) {
            lanes.push(Arc::clone(lane));
        }
        drop(lanes);
        // They may not listen at this one yet.
        self.block.memory.tell_ears();
    }
}

impl Deref for SharedBlock {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.block
    }
}

impl<'p> Part<'p> {
    /// A part of a frozen region, to be sent. Its capability must still be this process's, with the right to grant it on.
    pub fn frozen(region: &'p FrozenRegion, range: Range<usize>) -> Self {
        Part { memory: PartMemory::Frozen(region), range }
    }

    /// Its region, where it begins there, and how long it is.
    pub(crate) fn place(&self) -> Result<(Handle, u64, u64), Error> {
        let Range { start, end } = self.range.clone();
        let (region, first, len_bytes) = match self.memory {
            PartMemory::Block(block) => {
                let first = block.block.piece.as_ref().map_or(0, Piece::offset);
                (block.block.memory.region.handle(), first, block.len())
            }
            PartMemory::Frozen(region) => (region.region(), 0, region.len()),
        };
        if start > end || end > len_bytes {
            return Err(Error::PartOutOfBlock { start, end, len_bytes });
        }
        Ok((region, (first + start) as u64, (end - start) as u64))
    }
}
