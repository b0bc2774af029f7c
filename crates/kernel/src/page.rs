//! The broker pages of one process: which words are free, and which page is spent.
//!
//! A word speaks of one lane or mapping and of no other after it. A page whose every word has spoken for the last time
//! is dropped; page 0 stays, because its first word counts events.
//!
//! # Invariants
//! 1. A word is handed out once.
//! 2. `free` is the number of words that can still be handed out.

use alloc::collections::BTreeMap;

use keyway_abi::{
    Denial, Payer, Quota, WordPlace,
    layout::{GENERATION_FIRST, WORDS_PER_PAGE},
    limits::{BROKER_PAGES_MAX, BROKER_WORDS_RESERVE},
};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    pages: BTreeMap<u32, Page>,
    next_number: u32,
    creating: bool,
    /// Why Linux gave no further page, the last time that it was asked.
    refused: Option<i32>,
    free: usize,
}

#[derive(Debug)]
struct Page {
    next: usize,
    live: usize,
}

impl Pages {
    /// The number of a page to make now, if one is wanted. Until [`Pages::on_created`] none further is.
    pub(crate) fn take_wanted(&mut self) -> Option<u32> {
        if self.creating || self.free >= BROKER_WORDS_RESERVE || self.pages.len() >= BROKER_PAGES_MAX {
            return None;
        }
        self.creating = true;
        Some(self.next_number)
    }

    /// The page that was wanted is there, or could not be made.
    pub(crate) fn on_created(&mut self, made: Result<(), i32>) {
        self.creating = false;
        self.refused = made.err();
        if made.is_ok() {
            // Word 0 of page 0 counts events; leaving word 0 of every page unused keeps the rule simple.
            self.pages.insert(self.next_number, Page { next: 1, live: 0 });
            self.next_number += 1;
            self.free += WORDS_PER_PAGE - 1;
        }
    }

    /// Whether a word can be handed out.
    pub(crate) fn has_word(&self) -> bool {
        self.free > 0
    }

    /// As [`Pages::has_word`], with what stands against it: Linux, or the limit.
    pub(crate) fn check_word(&self) -> Result<(), Denial> {
        if self.has_word() {
            return Ok(());
        }
        if let Some(errno) = self.refused {
            return Err(Denial::SystemRefused { errno });
        }
        let (quota, of) = (Quota::Pages, Payer::Process);
        let (used, max) = (self.pages.len() as u64, BROKER_PAGES_MAX as u64);
        Err(Denial::QuotaExceeded { quota, of, asked: 1, used, max })
    }

    /// Hands a word out. The caller has checked [`Pages::has_word`].
    pub(crate) fn take_word(&mut self, generation: u32) -> WordPlace {
        debug_assert!(generation >= GENERATION_FIRST, "smaller generations are verdicts");
        let open = self.pages.iter_mut().find(|(_, page)| page.next < WORDS_PER_PAGE);
        // INVARIANT: the caller checked `has_word`, and invariant 2.
        let (&number, page) = open.expect("a free word exists");
        let index = page.next as u16;
        page.next += 1;
        page.live += 1;
        self.free -= 1;
        WordPlace { page: number, index, generation }
    }

    /// The word will not be looked at again. Returns the page's number if that was its last and the page is spent.
    pub(crate) fn retire_word(&mut self, place: WordPlace) -> Option<u32> {
        let page = self.pages.get_mut(&place.page)?;
        page.live -= 1;
        let spent = page.live == 0 && page.next == WORDS_PER_PAGE && place.page != 0;
        if spent {
            self.pages.remove(&place.page);
        }
        spent.then_some(place.page)
    }

    /// The number that the next page will have.
    pub(crate) fn next_number(&self) -> u32 {
        self.next_number
    }

    /// Words that can still be handed out.
    pub(crate) fn free_words(&self) -> usize {
        self.free
    }

    /// Words handed out and not retired.
    pub(crate) fn live(&self) -> usize {
        self.pages.values().map(|page| page.live).sum()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn words_are_given_once_and_spent_pages_go() {
        let mut pages = Pages::default();
        assert!(!pages.has_word());
        assert_eq!(pages.take_wanted(), Some(0));
        assert_eq!(pages.take_wanted(), None, "one at a time");
        pages.on_created(Ok(()));
        let mut words: Vec<_> = (0..WORDS_PER_PAGE - 1).map(|_| pages.take_word(2)).collect();
        assert!(!pages.has_word());
        assert_eq!(pages.take_wanted(), Some(1));
        pages.on_created(Ok(()));
        let more: Vec<_> = (0..WORDS_PER_PAGE - 1).map(|_| pages.take_word(3)).collect();
        words.extend(&more);
        let mut places: Vec<_> = words.iter().map(|word| (word.page, word.index)).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 2 * (WORDS_PER_PAGE - 1));
        assert!(words.iter().all(|word| word.index != 0));
        let dropped: Vec<_> = words.into_iter().filter_map(|word| pages.retire_word(word)).collect();
        assert_eq!(dropped, [1], "page 0 stays");
    }

    #[test]
    fn a_refused_page_can_be_wanted_again() {
        let mut pages = Pages::default();
        assert_eq!(pages.take_wanted(), Some(0));
        pages.on_created(Err(12));
        assert_eq!(pages.check_word(), Err(Denial::SystemRefused { errno: 12 }));
        assert_eq!(pages.take_wanted(), Some(0));
    }
}
