//! Sending without a copy into the lane: messages that name parts of memory which the receiver maps once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use keyway_abi::{
    Handle, Rights,
    limits::{MESSAGE_SEGMENTS_MAX, REGION_BYTES_MAX, SEGMENT_REGIONS_MAX},
};

use keyway_shm::RecordHeader;

use super::{Sender, timed_out};
use crate::{
    capability::Capability,
    error::Error,
    message::{Carried, Outgoing, flags},
    pool::{Block, Part, PartMemory, Pool, PoolOptions, SharedBlock, Shares, Slot, wait_for_release},
    segment::{Entry, NO_SLOT, Table},
    waiting::Until,
};

/// What becomes of payloads that are too large for a lane's ring.
///
/// Those of more than 1 MiB count as too large for every ring: from there on a copy through a pool was measured to be faster, up to
/// 256 KiB one through the ring (`cargo run --release -p keyway --example large`). Who wants to save the copies writes into a
/// [`Pool`] and sends with [`Sender::send_segments`], which pays from some 64 KiB on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LargePayloads {
    /// They are copied into a pool, sent as a segment, copied out by the receiver and released: it receives an ordinary message.
    /// The pool is made when the first such payload is sent, unless there is one: [`Sender::set_pool`].
    #[default]
    Pool,
    /// They are refused: [`Error::MessageTooLarge`].
    Refuse,
}

/// What a sender knows of its lane's segments.
#[derive(Debug)]
pub(super) struct Segments {
    shares: Arc<Shares>,
    /// The regions that the receiver has mapped, by their place.
    places: Vec<Handle>,
    /// The place that the next region takes once all are taken.
    next_place: usize,
    pool: Option<Pool>,
    large: LargePayloads,
    /// What the receiver takes at most, by its own account.
    payload_bytes_max: u64,
    /// What goes in front of the user's bytes.
    prefix: Vec<u8>,
}

/// Larger payloads go through a pool though there would be room in the ring.
const RING_PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// A pool that the library makes has room for so many of the payload for which it is made, if it may.
const POOL_PAYLOADS: u64 = 4;
/// The record of a payload that goes through a pool is no larger: a call's number, and a table of one region and one segment.
const LARGE_RECORD_BYTES_MAX: usize = 64;
/// It has so many bytes, at least.
const POOL_BYTES_MIN: u64 = 1 << 20;

impl Segments {
    pub(super) fn new(shares: Arc<Shares>, large: LargePayloads, payload_bytes_max: u64) -> Self {
        Segments {
            shares,
            places: Vec::new(),
            next_place: 0,
            pool: None,
            large,
            payload_bytes_max,
            prefix: Vec::new(),
        }
    }

    /// From what payload on segments are used.
    pub(super) fn payloads_above(&self, lane_bytes_max: usize) -> usize {
        match self.large {
            // Of no use where the receiver takes no more by a pool than the ring does.
            LargePayloads::Pool if self.payload_bytes_max <= lane_bytes_max as u64 => lane_bytes_max,
            LargePayloads::Pool => lane_bytes_max.min(RING_PAYLOAD_BYTES_MAX),
            LargePayloads::Refuse => usize::MAX,
        }
    }

    pub(super) fn close(&self) {
        self.shares.close();
    }

    /// What the lane's reader may release, and the pool by which large payloads go.
    pub(super) fn what_is_awaited(&self) -> (&Arc<Shares>, Option<&Pool>) {
        (&self.shares, self.pool.as_ref())
    }

    /// The place of a region, and whether the receiver has to be told of it. `used` are not given to another.
    fn place_of(&mut self, region: Handle, used: &[Entry]) -> (u16, bool) {
        if let Some(place) = self.places.iter().position(|known| *known == region) {
            return (place as u16, false);
        }
        if self.places.len() < SEGMENT_REGIONS_MAX {
            self.places.push(region);
            return (self.places.len() as u16 - 1, true);
        }
        // LIMIT: a message has no more segments than there are places.
        while used.iter().any(|entry| usize::from(entry.place) == self.next_place) {
            self.next_place = (self.next_place + 1) % SEGMENT_REGIONS_MAX;
        }
        let place = self.next_place;
        self.next_place = (place + 1) % SEGMENT_REGIONS_MAX;
        self.places[place] = region;
        (place as u16, true)
    }

    /// The receiver has not been told of these after all.
    fn forget(&mut self, regions: &[(u64, bool)]) {
        for (place, _) in regions {
            if let Some(known) = self.places.get_mut(*place as usize) {
                *known = Handle::NONE;
            }
        }
    }

    /// Says where the parts are, and what regions the receiver has to be told of.
    fn table(&mut self, parts: &[Part<'_>]) -> Result<(Table, Vec<Handle>), Error> {
        let (asked, max) = (parts.len(), MESSAGE_SEGMENTS_MAX);
        if asked > max {
            return Err(Error::TooManySegments { asked, max });
        }
        let places: Result<Vec<_>, _> = parts.iter().map(Part::place).collect();
        let (mut table, mut regions) = (Table::default(), Vec::new());
        for ((region, offset, len), part) in places?.into_iter().zip(parts) {
            let (place, is_new) = self.place_of(region, &table.entries);
            if is_new {
                table.regions.push((place.into(), matches!(part.memory, PartMemory::Frozen(_))));
                regions.push(region);
            }
            table.entries.push(Entry { offset, len, place, slot: NO_SLOT, generation: 0 });
        }
        Ok((table, regions))
    }
}

impl Sender {
    /// Sends a message that names parts of blocks and of frozen regions, at most 64, which its receiver reads where they are; waits
    /// while the lane is full, or while the receiver has as many parts as it can have without releasing some.
    ///
    /// The blocks can be sent on other lanes as well. Memory that was lent is lent anew once all readers have released it; a reader
    /// that dies, or whose lane ends on its side, has released everything, as long as this sender is there to see it. After the sender is
    /// dropped, what a reader never releases is lent no more until the pool is dropped.
    ///
    /// # Errors
    /// [`Error::TooManySegments`], [`Error::PartOutOfBlock`], [`Error::TooManyCapabilities`] when regions that the receiver does not
    /// know yet are too many beside the message's own, and as [`Sender::send_message`].
    ///
    /// # Examples
    /// See [`Pool`].
    pub fn send_segments(&mut self, message: &Outgoing<'_>, parts: &[Part<'_>]) -> Result<(), Error> {
        self.send_named(message, &Named::parts(parts), Until::Forever)
    }

    /// As [`Sender::send_segments`], if there is room now.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] when the lane is full or the receiver has too many parts, and as [`Sender::send_segments`].
    pub fn try_send_segments(&mut self, message: &Outgoing<'_>, parts: &[Part<'_>]) -> Result<(), Error> {
        self.send_named(message, &Named::parts(parts), Until::after(Duration::ZERO))
    }

    /// As [`Sender::send_segments`], but waits no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], and as [`Sender::send_segments`].
    pub fn send_segments_timeout(
        &mut self,
        message: &Outgoing<'_>,
        parts: &[Part<'_>],
        timeout: Duration,
    ) -> Result<(), Error> {
        let sent = self.send_named(message, &Named::parts(parts), Until::after(timeout));
        sent.map_err(|error| timed_out(error, timeout))
    }

    /// From now on payloads that are too large for the ring go through this pool, which others may use as well.
    pub fn set_pool(&mut self, pool: Pool) {
        self.segments.large = LargePayloads::Pool;
        self.segments.pool = Some(pool);
        self.segments_above = self.segments.payloads_above(self.inner.payload_bytes_max());
    }

    /// Lends a block of `len` bytes of the pool by which large payloads go ([`Sender::set_pool`]), which is made if there is none,
    /// for [`Sender::send_segments`]; waits until there is room.
    ///
    /// # Errors
    /// As [`Pool::loan`]; what the broker answers to the request for a pool.
    pub fn block(&mut self, len: usize) -> Result<Block, Error> {
        self.pool_for(len)?.loan(len)
    }

    /// As [`Sender::block`], but waits no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], and as [`Sender::block`].
    pub fn block_timeout(&mut self, len: usize, timeout: Duration) -> Result<Block, Error> {
        self.pool_for(len)?.loan_timeout(len, timeout)
    }

    /// As [`Sender::block`], if there is room now.
    ///
    /// # Errors
    /// [`Error::WouldBlock`], and as [`Sender::block`].
    pub fn try_block(&mut self, len: usize) -> Result<Block, Error> {
        self.pool_for(len)?.try_loan(len)
    }

    /// Sends a message whose payload does not fit into the ring: copied into a pool, and from there by the receiver.
    #[cold]
    pub(super) fn send_large(
        &mut self,
        message: &Outgoing<'_>,
        extra_flags: u32,
        number: &[u8],
        until: Until,
    ) -> Result<(), Error> {
        let mut block = self.block_for(message.payload.len(), until)?;
        block.copy_from_slice(message.payload);
        let block = block.share();
        let message = Outgoing { payload: &[], ..*message };
        let parts = [block.whole()];
        self.send_named(&message, &Named { extra_flags, number, parts: &parts, is_payload: true }, until)
    }

    /// The same of a payload that `fill` writes, once there is a place for it.
    #[cold]
    pub(super) fn send_large_with(
        &mut self,
        payload_bytes: usize,
        fill: &mut dyn FnMut(&mut [u8]),
        until: Until,
    ) -> Result<(), Error> {
        let mut block = self.block_for(payload_bytes, until)?;
        fill(&mut block);
        let block = block.share();
        let parts = [block.whole()];
        let named = Named { extra_flags: 0, number: &[], parts: &parts, is_payload: true };
        self.send_named(&Outgoing::default(), &named, until)
    }

    /// A place in a pool, unless the lane is over or the payload can never be sent. Once there is one, nothing else is waited for:
    /// who is told that there is no room has neither copied in vain nor kept the place from others.
    fn block_for(&mut self, asked_bytes: usize, until: Until) -> Result<Block, Error> {
        if let Some(ending) = self.ending() {
            return Err(ending);
        }
        let bytes_max = self.segments.payload_bytes_max;
        if asked_bytes as u64 > bytes_max {
            return Err(Error::MessageTooLarge { asked_bytes, bytes_max: bytes_max as usize });
        }
        let pool = self.pool_for(asked_bytes)?;
        let header = RecordHeader { flags: flags::SEGMENTS, ..RecordHeader::default() };
        self.wait_while_full(until, |lane| lane.check_loan(header, LARGE_RECORD_BYTES_MAX))?;
        let shares = &self.segments.shares;
        self.wait_for_shares(until, || shares.has_room(Pool::kept_for(asked_bytes), pool.lane_bytes_max()))?;
        pool.loan_until(asked_bytes, until)
    }

    /// The pool for a payload of so many bytes; made if there is none that is large enough.
    fn pool_for(&mut self, payload_bytes: usize) -> Result<Pool, Error> {
        if let Some(pool) = &self.segments.pool
            && pool.len_bytes() >= payload_bytes
        {
            return Ok(pool.clone());
        }
        let least = payload_bytes as u64;
        let wanted = least.next_power_of_two().saturating_mul(POOL_PAYLOADS);
        let wanted = wanted.clamp(POOL_BYTES_MIN, REGION_BYTES_MAX);
        let create = |bytes| Pool::create(&self.control, PoolOptions { bytes, ..PoolOptions::default() });
        let pool = match create(wanted) {
            // Less is enough, if that is what we may have.
            Err(Error::Denied { .. }) => create(least)?,
            created => created?,
        };
        self.segments.pool = Some(pool.clone());
        Ok(pool)
    }

    fn send_named(&mut self, message: &Outgoing<'_>, named: &Named<'_>, until: Until) -> Result<(), Error> {
        let (mut table, regions) = self.segments.table(named.parts)?;
        table.is_payload = named.is_payload;
        let sent = self.send_table(message, named, &mut table, &regions, until);
        if sent.is_err() {
            self.segments.forget(&table.regions);
        }
        sent
    }

    fn send_table(
        &mut self,
        message: &Outgoing<'_>,
        named: &Named<'_>,
        table: &mut Table,
        regions: &[Handle],
        until: Until,
    ) -> Result<(), Error> {
        let slots = self.take_slots(named.parts, until)?;
        let of_blocks = |(_, part): &(&mut Entry, &Part<'_>)| matches!(part.memory, PartMemory::Block(_));
        let entries = table.entries.iter_mut().zip(named.parts).filter(of_blocks);
        for ((entry, _), slot) in entries.zip(&slots) {
            (entry.slot, entry.generation) = (slot.number, slot.generation);
        }
        let mut prefix = std::mem::take(&mut self.segments.prefix);
        prefix.clear();
        prefix.extend_from_slice(named.number);
        table.encode(&mut prefix);
        let extra_flags = named.extra_flags | flags::SEGMENTS;
        let sent = if regions.is_empty() {
            self.send_record(message, extra_flags, &prefix, until)
        } else {
            let kept = |region: &Handle| Capability::kept(&self.control, *region, Rights::MAP);
            let brought: Vec<Capability> = regions.iter().map(kept).collect();
            let copies = brought.iter().map(|region| Carried::Copy(region, Rights::MAP));
            let capabilities: Vec<Carried<'_>> = message.capabilities.iter().copied().chain(copies).collect();
            self.send_record(
                &Outgoing { capabilities: &capabilities, ..*message },
                extra_flags,
                &prefix,
                until,
            )
        };
        self.segments.prefix = prefix;
        if sent.is_err() {
            self.segments.shares.give_back(&slots);
        }
        sent
    }

    /// Waits until `attempt` has found its reader to have released enough.
    fn wait_for_shares(&self, until: Until, mut attempt: impl FnMut() -> bool) -> Result<(), Error> {
        let mut began = None;
        while !attempt() {
            let began = *began.get_or_insert_with(Instant::now);
            wait_for_release(&self.control, std::slice::from_ref(&self.segments.shares), began, until)?;
        }
        Ok(())
    }

    /// A slot for each part of a block, in order; waits until there are so many. A lane that is over has all of them.
    fn take_slots(&self, parts: &[Part<'_>], until: Until) -> Result<Vec<Slot>, Error> {
        let block = |part: &Part<'_>| match part.memory {
            PartMemory::Block(block) => Some(block.clone()),
            PartMemory::Frozen(_) => None,
        };
        let blocks: Vec<SharedBlock> = parts.iter().filter_map(block).collect();
        let shares = &self.segments.shares;
        let mut slots = Vec::with_capacity(blocks.len());
        self.wait_for_shares(until, || shares.take(&blocks, &mut slots))?;
        for block in &blocks {
            block.tell_pool_of(shares);
        }
        Ok(slots)
    }
}

/// What a message names.
struct Named<'m> {
    /// The library's own, of a call or an answer.
    extra_flags: u32,
    /// The call's number, or nothing.
    number: &'m [u8],
    parts: &'m [Part<'m>],
    /// The one part is the payload.
    is_payload: bool,
}

impl<'m> Named<'m> {
    fn parts(parts: &'m [Part<'m>]) -> Self {
        Named { extra_flags: 0, number: &[], parts, is_payload: false }
    }
}

#[cfg(test)]
#[cfg(feature = "embedded")]
mod tests;
