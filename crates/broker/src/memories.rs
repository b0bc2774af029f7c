//! The memories that the broker made and keeps, and the pages that it writes.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, atomic::Ordering},
};

use keyway_abi::layout::{EVENT_WORD, MESSAGES_OFFSET, PAGE_BYTES, POSITION_OFFSET};
use keyway_kernel::{Refusal, SealUse, Token};
use keyway_shm::{Access, View};
use keyway_sys::{
    Errno, Error, futex,
    memory::{self, MapError, Mapping, PageSize, Populate, SealCheck},
};

/// Token to descriptor.
#[derive(Debug, Default)]
pub(crate) struct Memories {
    memories: BTreeMap<Token, Arc<OwnedFd>>,
}

impl Memories {
    /// Makes `count` memories under consecutive tokens, all or none.
    pub(crate) fn create(&mut self, first: Token, count: u32, bytes: u64, huge: bool) -> Result<(), Refusal> {
        let Ok(bytes) = usize::try_from(bytes) else {
            return Err(Refusal::System(Errno::NOMEM.raw_os_error()));
        };
        let mut made = Vec::new();
        for _ in 0..count {
            let pages = if huge { PageSize::HugeIfAny } else { PageSize::Normal };
            made.push(Arc::new(memory::create_memory_of("keyway", bytes, pages).map_err(refusal)?));
        }
        self.memories.extend((first.0..).map(Token).zip(made));
        Ok(())
    }

    /// Seals a memory whose writer has mapped it, and checks what it is.
    pub(crate) fn seal(&self, token: Token, seals: SealUse, bytes: u64) -> Result<(), Refusal> {
        let Some(fd) = self.memories.get(&token) else {
            return Err(Refusal::System(Errno::BADF.raw_os_error()));
        };
        let seals = match seals {
            SealUse::Ring => memory::SealUse::Lane,
            SealUse::Acknowledgement => memory::SealUse::Acknowledgement,
            SealUse::LiveRegion => memory::SealUse::LiveRegion,
            SealUse::FreezableRegion => memory::SealUse::FreezableRegion,
            SealUse::SharedRegion => memory::SealUse::SharedRegion,
        };
        match memory::seal(fd, seals) {
            // When someone has closed the set of seals, the check below says which are there.
            Ok(()) | Err(Error { errno: Errno::PERM, .. }) => {}
            Err(error) => return Err(refusal(error)),
        }
        let check = memory::check_seals(fd, seals, bytes as usize).map_err(refusal)?;
        match check {
            SealCheck::AsExpected => Ok(()),
            SealCheck::Seals { found, expected } => Err(Refusal::Fault(keyway_abi::Fault::SealsWrong {
                found: found.bits(),
                expected: expected.bits(),
            })),
            SealCheck::NotSealable => Err(Refusal::Fault(keyway_abi::Fault::SealsWrong {
                found: 0,
                expected: seals.seals().bits(),
            })),
            SealCheck::Size { found_bytes, expected_bytes }
            | SealCheck::Unpopulated { found_bytes, expected_bytes } => {
                Err(Refusal::Fault(keyway_abi::Fault::MemoryWrong { found_bytes, expected_bytes }))
            }
        }
    }

    pub(crate) fn drop(&mut self, token: Token) {
        self.memories.remove(&token);
    }

    /// The descriptor for the memory's writer.
    pub(crate) fn writable(&self, token: Token) -> Option<Arc<OwnedFd>> {
        self.memories.get(&token).cloned()
    }

    /// A descriptor for a reader.
    pub(crate) fn readable(&self, token: Token) -> Result<Arc<OwnedFd>, Error> {
        let fd = self.memories.get(&token).ok_or(Error { call: "dup", errno: Errno::BADF })?;
        memory::reopen_read_only(fd).map(Arc::new)
    }

    /// The position and the count of messages in a lane's memory, for a broker that is asked to look. They are another process's claim.
    pub(crate) fn peek(&self, token: Token) -> Option<[u32; 2]> {
        let fd = self.memories.get(&token)?;
        let (mut position, mut messages) = ([0; 4], [0; 4]);
        memory::read_at(fd, POSITION_OFFSET as u64, &mut position).ok()?;
        memory::read_at(fd, MESSAGES_OFFSET as u64, &mut messages).ok()?;
        Some([u32::from_ne_bytes(position), u32::from_ne_bytes(messages)])
    }
}

/// One broker page: this side writes, one process reads.
#[derive(Debug)]
pub(crate) struct BrokerPage {
    view: View,
    /// Until it has been handed on.
    fd: Option<OwnedFd>,
}

impl BrokerPage {
    pub(crate) fn create() -> Result<Self, Refusal> {
        let fd = memory::create_memory("keyway-page", PAGE_BYTES).map_err(refusal)?;
        let mapping = Mapping::new(&fd, PAGE_BYTES, Access::Write, Populate::Now).map_err(|error| {
            let MapError::Refused(error) = error else {
                return Refusal::System(Errno::INVAL.raw_os_error());
            };
            refusal(error)
        })?;
        memory::seal(&fd, memory::SealUse::BrokerPage).map_err(refusal)?;
        Ok(BrokerPage { view: mapping.view(), fd: Some(fd) })
    }

    /// The descriptor for its reader, once.
    pub(crate) fn take_readable(&mut self) -> Result<Arc<OwnedFd>, Error> {
        let fd = self.fd.take().ok_or(Error { call: "dup", errno: Errno::BADF })?;
        memory::reopen_read_only(fd.as_fd()).map(Arc::new)
    }

    /// Stores a word and wakes whoever sleeps on it.
    pub(crate) fn set(&self, index: u16, value: u32) {
        let offset = usize::from(index) * 4;
        // SYNC broker-word: all that the kernel did before is seen by who sees the word.
        self.view.store_u32(offset, value, Ordering::Release);
        self.wake(offset);
    }

    /// Counts events that have been sent.
    pub(crate) fn count_events(&self, events: u32) {
        let offset = EVENT_WORD * 4;
        let next = self.view.load_u32(offset, Ordering::Relaxed).wrapping_add(events);
        // SYNC event-word: the frame is in the socket before the word says so.
        self.view.store_u32(offset, next, Ordering::Release);
        self.wake(offset);
    }

    fn wake(&self, offset: usize) {
        if let Some(word) = self.view.word(offset) {
            // Nobody may sleep there; and a wake of a mapped word has no way to fail.
            let _ = futex::wake(&word, u32::MAX);
        }
    }
}

pub(crate) fn refusal(error: Error) -> Refusal {
    Refusal::System(error.raw_os_error())
}
