//! Sleeping and waking across two mappings of one memory.

use std::{
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use keyway_shm::Access;

use super::*;
use crate::memory::{self, Mapping, Populate};

const BYTES: usize = 4096;

/// A writer's mapping and a mapping, elsewhere, that can only be read.
fn two_mappings() -> (Mapping, Mapping) {
    let fd = memory::create_memory("test", BYTES).unwrap();
    let writer = Mapping::new(&fd, BYTES, Access::Write, Populate::OnUse).unwrap();
    let reader = memory::reopen_read_only(&fd).unwrap();
    let reader = Mapping::new(&reader, BYTES, Access::Read, Populate::OnUse).unwrap();
    (writer, reader)
}

#[test]
fn a_sleeper_that_can_only_read_is_woken_by_the_writer() {
    let (writer, reader) = two_mappings();
    let (other_writer, other_reader) = two_mappings();
    // Either of the two words wakes.
    for (mapping, offset) in [(&writer, 128), (&other_writer, 64)] {
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                let (one, two) = (reader.view(), other_reader.view());
                let (one, two) = (one.word(128).unwrap(), two.word(64).unwrap());
                let start = Instant::now();
                let woken = wait(&[(&one, 0), (&two, 0)], Duration::from_secs(20)).unwrap();
                (woken, start.elapsed())
            });
            let view = mapping.view();
            let word = view.word(offset).unwrap();
            // The wake finds the sleeper only once it sleeps.
            while wake(&word, 1).unwrap() == 0 {
                assert_eq!(wake(&word, 0).unwrap(), 0);
                thread::sleep(Duration::from_millis(1));
            }
            let (woken, slept) = sleeper.join().unwrap();
            assert_eq!(woken, Woken::Woken);
            assert!(slept < Duration::from_secs(10));
        });
    }
}

#[test]
fn a_changed_word_prevents_the_sleep() {
    let (writer, reader) = two_mappings();
    let (written, read) = (writer.view(), reader.view());
    written.word(8).unwrap().store(5, Ordering::Release);
    let (same, changed) = (read.word(0).unwrap(), read.word(8).unwrap());
    assert_eq!(wait(&[(&same, 0), (&changed, 4)], Duration::from_secs(20)).unwrap(), Woken::Changed);
}

#[test]
fn a_sleep_ends_when_its_time_is_over() {
    let (_writer, reader) = two_mappings();
    let view = reader.view();
    let word = view.word(0).unwrap();
    let start = Instant::now();
    assert_eq!(wait(&[(&word, 0)], Duration::from_millis(30)).unwrap(), Woken::TimedOut);
    assert!(start.elapsed() >= Duration::from_millis(30));
}

#[test]
fn a_very_long_timeout_is_no_error() {
    let (_writer, reader) = two_mappings();
    let view = reader.view();
    let word = view.word(0).unwrap();
    assert_eq!(wait(&[(&word, 1)], Duration::MAX).unwrap(), Woken::Changed);
}

#[test]
fn none_and_too_many_words_are_refused() {
    let (_writer, reader) = two_mappings();
    let view = reader.view();
    let word = view.word(0).unwrap();
    for count in [0, WORDS_MAX + 1] {
        let words = vec![(&word, 0); count];
        assert_eq!(wait(&words, Duration::ZERO).unwrap_err().errno, Errno::INVAL);
    }
    let words = vec![(&word, 0); WORDS_MAX];
    assert_eq!(wait(&words, Duration::ZERO).unwrap(), Woken::TimedOut);
}

#[test]
fn a_wake_without_sleepers_wakes_nobody() {
    let (writer, _reader) = two_mappings();
    assert_eq!(wake(&writer.view().word(0).unwrap(), u32::MAX).unwrap(), 0);
}
