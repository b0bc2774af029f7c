//! A word of a view that somebody can sleep on.

use core::sync::atomic::Ordering;

use crate::view::{Access, View};

/// A `u32` inside a view: its writer publishes through it, its readers load it or sleep on it.
#[derive(Clone, Debug)]
pub struct Word {
    /// Holds a word at `offset`: checked by [`View::word`], and a view never shrinks.
    view: View,
    offset: usize,
}

impl View {
    /// The word at `offset`, or `None` where a view has no words: outside it, beside a multiple of four, or past its
    /// first page.
    pub fn word(&self, offset: usize) -> Option<Word> {
        self.has_word(offset).then(|| Word { view: self.clone(), offset })
    }
}

impl Word {
    /// Loads the word; `ordering` is `Relaxed` or `Acquire`.
    pub fn load(&self, ordering: Ordering) -> u32 {
        self.view.load_u32(self.offset, ordering)
    }

    /// Stores the word; `ordering` is `Relaxed` or `Release`.
    ///
    /// # Panics
    ///
    /// When the view is not [`Access::Write`].
    pub fn store(&self, value: u32, ordering: Ordering) {
        self.view.store_u32(self.offset, value, ordering);
    }

    /// What this process may do with the word.
    pub fn access(&self) -> Access {
        self.view.access()
    }

    /// The word's address, for a futex call. Valid while this word or a clone of it lives; nobody dereferences it.
    pub fn as_ptr(&self) -> *const u32 {
        self.view.word_ptr(self.offset)
    }
}
