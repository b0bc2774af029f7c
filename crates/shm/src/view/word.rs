//! A word of a view that somebody can sleep on.

use core::{ops::Deref, sync::atomic::Ordering};

use crate::view::{Access, View, order};

/// A `u32` inside a view: its writer publishes through it, its readers load it or sleep on it.
#[derive(Clone, Debug)]
pub struct Word {
    place: Place,
    access: Access,
}

#[cfg(not(loom))]
type Place = super::mapped::Place;
#[cfg(loom)]
type Place = super::modelled::Place;

impl View {
    /// The word at `offset`, or `None` where a view has no words: outside it, beside a multiple of four, or past its
    /// first page.
    pub fn word(&self, offset: usize) -> Option<Word> {
        let access = self.access();
        self.place(offset).map(|place| Word { place, access })
    }
}

impl Word {
    /// Loads the word; `ordering` is `Relaxed` or `Acquire`.
    #[inline]
    pub fn load(&self, ordering: Ordering) -> u32 {
        order::load(self.place.word(), ordering)
    }

    /// Stores the word; `ordering` is `Relaxed` or `Release`.
    ///
    /// # Panics
    ///
    /// When the view is not [`Access::Write`].
    #[inline]
    pub fn store(&self, value: u32, ordering: Ordering) {
        // INVARIANT store-needs-write: a store to a read-only mapping would be a SIGSEGV without a name.
        assert!(self.access == Access::Write, "INVARIANT store-needs-write");
        self.place.word().store(value, ordering);
    }

    /// The word for one who looks at it many times: where it lies stays in a register.
    #[inline(always)]
    pub(crate) fn glance(&self) -> Glance<'_> {
        Glance(self.place.word())
    }

    /// What this process may do with the word.
    pub fn access(&self) -> Access {
        self.access
    }

    /// The word's address, for a futex call. Valid while this word or a clone of it lives; nobody dereferences it.
    pub fn as_ptr(&self) -> *const u32 {
        self.place.as_ptr()
    }
}

/// See [`Word::glance`].
#[derive(Clone, Copy)]
pub(crate) struct Glance<'w>(&'w order::AtomicU32);

impl Glance<'_> {
    /// As [`Word::load`].
    #[inline(always)]
    pub(crate) fn load(self, ordering: Ordering) -> u32 {
        order::load(self.0, ordering)
    }
}

/// A word that this process writes, with each message.
///
/// # Invariants
/// 1. Its access is `Write`.
#[derive(Clone, Debug)]
pub(crate) struct OwnWord(Word);

impl OwnWord {
    /// `None` when another process writes it.
    pub(crate) fn new(word: Word) -> Option<Self> {
        (word.access == Access::Write).then_some(Self(word))
    }

    /// As [`Word::store`].
    #[inline(always)]
    pub(crate) fn store(&self, value: u32, ordering: Ordering) {
        self.0.place.word().store(value, ordering);
    }
}

impl Deref for OwnWord {
    type Target = Word;

    fn deref(&self) -> &Word {
        &self.0
    }
}
