//! The memories that the broker made and keeps, and the pages that it writes.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use keyway_abi::layout::{EVENT_WORD, MESSAGES_OFFSET, PAGE_BYTES, POSITION_OFFSET};
use keyway_kernel::{Answer, Refusal, SealUse, Task, Token};
use keyway_shm::{Access, View, broker_page};
use keyway_sys::{
    Errno, Error, futex,
    memory::{self, MapError, Mapping, PageSize, Populate, SealCheck},
};

use crate::freeing::Freeing;

/// Token to descriptor.
#[derive(Debug)]
pub(crate) struct Memories {
    memories: BTreeMap<Token, Arc<Memory>>,
    freeing: Arc<Freeing>,
    /// What is to be made once earlier memories are free.
    postponed: VecDeque<Making>,
    /// What was dropped before it was made.
    never_made: BTreeSet<Token>,
}

/// An open of a memory. Its last holder may have pages to free, so it is closed by [`Freeing`].
#[derive(Debug)]
pub(crate) struct Memory {
    /// There until it is dropped.
    fd: Option<OwnedFd>,
    bytes: u64,
    freeing: Arc<Freeing>,
}

/// Memories under consecutive tokens, all or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Making {
    pub(crate) task: Task,
    pub(crate) first: Token,
    pub(crate) count: u32,
    pub(crate) bytes: u64,
    pub(crate) huge: bool,
}

impl Memories {
    pub(crate) fn new(freeing: Arc<Freeing>) -> Self {
        Memories {
            memories: BTreeMap::new(),
            freeing,
            postponed: VecDeque::new(),
            never_made: BTreeSet::new(),
        }
    }

    /// Makes memories, or puts that off while too many wait to be freed; then `poll_made` answers. The kernel charges for each
    /// request whose answer waits, so that no more are put off than that.
    pub(crate) fn create(&mut self, making: Making) -> Option<Answer> {
        if self.freeing.is_behind() || !self.postponed.is_empty() {
            self.postponed.push_back(making);
            return None;
        }
        Some(Answer { task: making.task, outcome: self.make(making) })
    }

    /// The next answer that was put off. Call again after the bell has rung.
    pub(crate) fn poll_made(&mut self) -> Option<Answer> {
        if self.freeing.is_behind() {
            return None;
        }
        let making = self.postponed.pop_front()?;
        let outcome = self.make(making);
        for token in (making.first.0..).map(Token).take(making.count as usize) {
            if self.never_made.remove(&token) {
                self.memories.remove(&token);
            }
        }
        Some(Answer { task: making.task, outcome })
    }

    fn make(&mut self, making: Making) -> Result<(), Refusal> {
        let Making { first, count, bytes, huge, .. } = making;
        let Ok(size) = usize::try_from(bytes) else {
            return Err(Refusal::System(Errno::NOMEM.raw_os_error()));
        };
        let mut made = Vec::new();
        for _ in 0..count {
            let pages = if huge { PageSize::HugeIfAny } else { PageSize::Normal };
            let fd = memory::create_memory_of("keyway", size, pages).map_err(refusal)?;
            made.push(Arc::new(self.memory(fd, bytes)));
        }
        self.memories.extend((first.0..).map(Token).zip(made));
        Ok(())
    }

    fn memory(&self, fd: OwnedFd, bytes: u64) -> Memory {
        Memory { fd: Some(fd), bytes, freeing: Arc::clone(&self.freeing) }
    }

    /// Seals a memory whose writer has mapped it, and checks what it is.
    pub(crate) fn seal(&self, token: Token, seals: SealUse, bytes: u64) -> Result<(), Refusal> {
        let Some(fd) = self.memories.get(&token) else {
            return Err(Refusal::System(Errno::BADF.raw_os_error()));
        };
        let seals = match seals {
            SealUse::Ring => memory::SealUse::Lane,
            SealUse::HugeRing => memory::SealUse::HugeLane,
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
        let covers = |making: &Making| (making.first.0..).take(making.count as usize).any(|at| at == token.0);
        if self.memories.remove(&token).is_none() && self.postponed.iter().any(covers) {
            self.never_made.insert(token);
        }
    }

    /// The descriptor for the memory's writer.
    pub(crate) fn writable(&self, token: Token) -> Option<Arc<Memory>> {
        self.memories.get(&token).cloned()
    }

    /// A descriptor for a reader.
    pub(crate) fn readable(&self, token: Token) -> Result<Arc<Memory>, Error> {
        let memory = self.memories.get(&token).ok_or(Error { call: "dup", errno: Errno::BADF })?;
        let fd = memory::reopen_read_only(memory)?;
        Ok(Arc::new(self.memory(fd, memory.bytes)))
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

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // INVARIANT: only `drop` takes it.
        self.fd.as_ref().expect("it is there until it is dropped").as_fd()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(fd) = self.fd.take() {
            self.freeing.close(fd, self.bytes);
        }
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
        broker_page::tell(&self.view, offset, value);
        self.wake(offset);
    }

    /// Counts events that have been sent.
    pub(crate) fn count_events(&self, events: u32) {
        let offset = EVENT_WORD * 4;
        broker_page::count_events(&self.view, offset, events);
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

#[cfg(test)]
mod tests {
    use keyway_sys::epoll::EventFd;

    use super::*;

    #[test]
    fn while_too_much_waits_to_be_freed_memories_are_made_later_or_not_if_dropped_by_then() {
        let bell = Arc::new(EventFd::new().unwrap());
        let freeing = Freeing::start(Arc::clone(&bell)).unwrap();
        let mut memories = Memories::new(Arc::clone(&freeing));
        let making = |task, first, count| Making {
            task: Task(task),
            first: Token(first),
            count,
            bytes: 2 << 20,
            huge: false,
        };
        assert!(memories.create(making(1, 0, 1)).is_some_and(|answer| answer.outcome == Ok(())));
        let held_up = freeing.hold_up();
        memories.drop(Token(0));
        assert!(!freeing.is_behind());
        assert!(memories.create(making(2, 1, 70)).is_some());
        for token in 1..=70 {
            memories.drop(Token(token));
        }
        assert!(freeing.is_behind());
        assert!(memories.create(making(3, 80, 3)).is_none());
        assert!(memories.create(making(4, 90, 1)).is_none());
        memories.drop(Token(81));
        assert!(memories.poll_made().is_none());
        let _ = bell.drain();
        held_up.go_on();
        while freeing.is_behind() {
            std::thread::yield_now();
        }
        let made = std::iter::from_fn(|| memories.poll_made()).map(|answer| answer.task.0);
        assert_eq!(made.collect::<Vec<_>>(), [3, 4]);
        assert_eq!(memories.memories.keys().map(|token| token.0).collect::<Vec<_>>(), [80, 82, 90]);
        assert!(memories.never_made.is_empty());
        let began = std::time::Instant::now();
        while !bell.drain().unwrap() {
            assert!(began.elapsed() < std::time::Duration::from_secs(20), "the loop is told");
        }
    }
}
