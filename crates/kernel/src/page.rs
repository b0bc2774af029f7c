//! The broker pages of one session: which words are free, and which page is not needed any more.
//!
//! A word speaks of one lane or mapping, by its generation, until its process has given that up; then it speaks of another, by
//! another generation. Words of low pages are handed out first, so that high ones become free; page 0 stays, because its
//! first word counts events.
//!
//! # Invariants
//! 1. A word that is handed out is handed out again only after it was retired.
//! 2. `free` is the number of words that can be handed out.

use alloc::{collections::BTreeMap, vec::Vec};

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
    /// Why there was no further page, the last time that one was wanted.
    refused: Option<Denial>,
    free: usize,
}

#[derive(Debug)]
struct Page {
    /// Words from here on were never handed out.
    next: u16,
    /// Words that were, and are not any more.
    retired: Vec<u16>,
}

impl Page {
    fn free(&self) -> usize {
        WORDS_PER_PAGE - usize::from(self.next) + self.retired.len()
    }

    fn live(&self) -> usize {
        WORDS_PER_PAGE - 1 - self.free()
    }
}

impl Pages {
    /// Whether a further page is to be made.
    pub(crate) fn wants_page(&self) -> bool {
        !self.creating && self.free < BROKER_WORDS_RESERVE && self.pages.len() < BROKER_PAGES_MAX
    }

    /// The number of the page that is being made now. Until [`Pages::on_created`] no other is.
    pub(crate) fn begin_page(&mut self) -> u32 {
        self.creating = true;
        self.next_number
    }

    /// The page that was wanted is there, or could not be made.
    pub(crate) fn on_created(&mut self, made: Result<(), i32>) {
        self.creating = false;
        self.refused = made.err().map(|errno| Denial::SystemRefused { errno });
        if made.is_ok() {
            // Word 0 of page 0 counts events; leaving word 0 of every page unused keeps the rule simple.
            self.pages.insert(self.next_number, Page { next: 1, retired: Vec::new() });
            self.next_number += 1;
            self.free += WORDS_PER_PAGE - 1;
        }
    }

    /// The page that was wanted would be one too many.
    pub(crate) fn on_refused(&mut self, denial: Denial) {
        self.refused = Some(denial);
    }

    /// Pages that are there or being made.
    pub(crate) fn count(&self) -> u32 {
        self.pages.len() as u32 + u32::from(self.creating)
    }

    /// Whether a word can be handed out.
    pub(crate) fn has_word(&self) -> bool {
        self.free > 0
    }

    /// As [`Pages::has_word`], with what stands against it: Linux, or a limit.
    pub(crate) fn check_word(&self) -> Result<(), Denial> {
        if self.has_word() {
            return Ok(());
        }
        if let Some(denial) = &self.refused {
            return Err(denial.clone());
        }
        let (quota, of) = (Quota::Pages, Payer::Process);
        let (used, max) = (self.pages.len() as u64, BROKER_PAGES_MAX as u64);
        Err(Denial::QuotaExceeded { quota, of, asked: 1, used, max })
    }

    /// Hands a word out. The caller has checked [`Pages::has_word`].
    pub(crate) fn take_word(&mut self, generation: u32) -> WordPlace {
        debug_assert!(generation >= GENERATION_FIRST, "smaller generations are verdicts");
        // LIMIT: BROKER_PAGES_MAX.
        let open = self.pages.iter_mut().find(|(_, page)| page.free() > 0);
        // INVARIANT: the caller checked `has_word`, and invariant 2.
        let (&number, page) = open.expect("a free word exists");
        let index = page.retired.pop().unwrap_or_else(|| {
            page.next += 1;
            page.next - 1
        });
        self.free -= 1;
        WordPlace { page: number, index, generation }
    }

    /// Its process will not look at the word any more. Returns the page's number if none of its words is needed.
    pub(crate) fn retire_word(&mut self, place: WordPlace) -> Option<u32> {
        let page = self.pages.get_mut(&place.page)?;
        page.retired.push(place.index);
        self.free += 1;
        let (others, is_unused) = (self.free - page.free(), page.live() == 0);
        // Enough is left for a while, so that a page does not come and go.
        if place.page == 0 || !is_unused || others < 2 * BROKER_WORDS_RESERVE {
            return None;
        }
        self.pages.remove(&place.page);
        self.free = others;
        Some(place.page)
    }

    /// The number that the next page will have.
    pub(crate) fn next_number(&self) -> u32 {
        self.next_number
    }

    /// Words that can be handed out.
    pub(crate) fn free_words(&self) -> usize {
        self.free
    }

    /// Words handed out and not retired.
    pub(crate) fn live(&self) -> usize {
        self.pages.values().map(Page::live).sum()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    const WORDS: usize = WORDS_PER_PAGE - 1;

    fn with_page() -> Pages {
        let mut pages = Pages::default();
        assert!(!pages.has_word());
        assert!(pages.wants_page());
        assert_eq!(pages.begin_page(), 0);
        assert!(!pages.wants_page(), "one at a time");
        assert_eq!(pages.count(), 1);
        pages.on_created(Ok(()));
        assert_eq!((pages.count(), pages.free_words()), (1, WORDS));
        pages
    }

    #[test]
    fn no_word_is_given_twice_until_it_is_retired() {
        let mut pages = with_page();
        let mut words: Vec<_> = (0..WORDS).map(|_| pages.take_word(2)).collect();
        assert!(!pages.has_word());
        assert!(pages.wants_page());
        assert_eq!(pages.begin_page(), 1);
        pages.on_created(Ok(()));
        words.extend((0..WORDS).map(|_| pages.take_word(3)));
        let mut places: Vec<_> = words.iter().map(|word| (word.page, word.index)).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 2 * WORDS);
        assert!(words.iter().all(|word| (1..WORDS_PER_PAGE).contains(&usize::from(word.index))));
        let back = words[5];
        assert_eq!(pages.retire_word(back), None);
        assert_eq!((pages.live(), pages.free_words()), (2 * WORDS - 1, 1));
        let again = pages.take_word(4);
        assert_eq!(again, WordPlace { generation: 4, ..back }, "it speaks of another now");
        assert!(!pages.has_word());
    }

    #[test]
    fn low_pages_are_used_first_and_what_is_not_needed_goes() {
        let mut pages = with_page();
        let low: Vec<_> = (0..WORDS).map(|_| pages.take_word(2)).collect();
        pages.begin_page();
        pages.on_created(Ok(()));
        let high = pages.take_word(2);
        assert_eq!(high.page, 1);
        assert_eq!(pages.retire_word(high), None, "few others are free");
        assert_eq!(pages.retire_word(low[0]), None);
        assert_eq!(pages.take_word(3).page, 0);
        let high = pages.take_word(3);
        assert_eq!(high.page, 1);
        for word in &low[..2 * BROKER_WORDS_RESERVE] {
            assert_eq!(pages.retire_word(*word), None, "page 0 stays");
        }
        assert_eq!(pages.retire_word(high), Some(1));
        assert_eq!((pages.count(), pages.free_words()), (1, 2 * BROKER_WORDS_RESERVE));
        assert_eq!(pages.begin_page(), 2, "a page's number is not given again");
    }

    #[test]
    fn a_page_goes_only_when_none_of_its_words_is_needed_and_enough_others_are_free_and_page_0_never() {
        let mut pages = with_page();
        let low: Vec<_> = (0..WORDS).map(|_| pages.take_word(2)).collect();
        pages.begin_page();
        pages.on_created(Ok(()));
        let [one, other, last] = [(); 3].map(|()| pages.take_word(2));
        let (few, more) = low.split_at(2 * BROKER_WORDS_RESERVE - 1);
        for word in few {
            assert_eq!(pages.retire_word(*word), None);
        }
        assert_eq!(pages.retire_word(one), None);
        assert_eq!(pages.retire_word(other), None);
        assert_eq!(pages.retire_word(last), None, "one other too few is free");
        for word in more {
            assert_eq!(pages.retire_word(*word), None, "page 0 stays, though another is free");
        }
        assert_eq!((pages.count(), pages.live()), (2, 0));
        pages.begin_page();
        pages.on_created(Ok(()));
        let all: Vec<_> = (0..2 * WORDS + 2).map(|_| pages.take_word(3)).collect();
        for word in &all[..2 * BROKER_WORDS_RESERVE] {
            assert_eq!(pages.retire_word(*word), None);
        }
        let [.., kept, given_up] = all[..] else { panic!("two words of page 2") };
        assert_eq!((kept.page, given_up.page), (2, 2));
        assert_eq!(pages.retire_word(given_up), None, "the other word is needed");
        assert_eq!(pages.retire_word(kept), Some(2));
    }

    #[test]
    fn a_page_is_wanted_when_few_words_are_left_and_while_there_may_be_more() {
        let mut pages = with_page();
        while pages.free_words() > BROKER_WORDS_RESERVE {
            pages.take_word(2);
        }
        assert!(!pages.wants_page());
        pages.take_word(2);
        assert!(pages.wants_page());
        while pages.pages.len() < BROKER_PAGES_MAX {
            assert!(pages.wants_page());
            pages.begin_page();
            pages.on_created(Ok(()));
            while pages.has_word() {
                pages.take_word(2);
            }
        }
        assert!(!pages.wants_page());
    }

    #[test]
    fn a_refused_page_can_be_wanted_again() {
        let mut pages = Pages::default();
        assert_eq!(pages.begin_page(), 0);
        pages.on_created(Err(12));
        assert_eq!(pages.check_word(), Err(Denial::SystemRefused { errno: 12 }));
        assert!(pages.wants_page());
        let full = Denial::QuotaExceeded { quota: Quota::Pages, of: Payer::User, asked: 1, used: 9, max: 9 };
        pages.on_refused(full.clone());
        assert_eq!(pages.check_word(), Err(full));
        assert!(pages.wants_page());
        pages.begin_page();
        pages.on_created(Ok(()));
        assert_eq!(pages.check_word(), Ok(()));
    }
}
