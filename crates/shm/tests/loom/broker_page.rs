//! What the broker says in words, and what lies in the socket beside them.

use std::sync::Arc;

use keyway_abi::layout::{EVENT_WORD, PAGE_BYTES, WORD_DEAD};
use keyway_shm::{Status, Verdict, View, WakeBy, broker_page};
use loom::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::{Futex, GENERATION, model};

const EVENTS: usize = EVENT_WORD * 4;
const STATUS: usize = EVENTS + 4;

/// A broker page: the broker's, and its process's.
fn page() -> (View, View) {
    let (page, reader) = View::modelled_with(PAGE_BYTES, &[EVENTS, STATUS]);
    broker_page::tell(&page, STATUS, GENERATION);
    (page, reader)
}

/// A socket that orders nothing but what was sent before: what a frame in it is to be seen by, the words must say.
#[derive(Default)]
struct Socket(AtomicBool);

impl Socket {
    fn send(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn has_frame(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Breaks with the release of the event word, or its acquire: a process would look for what was counted, find nothing, and sleep
/// beside it.
#[test]
fn who_sees_that_an_event_was_counted_finds_it_in_the_socket() {
    model(|| {
        let (page, reader) = page();
        let socket = Arc::new(Socket::default());
        let looking = thread::spawn({
            let socket = Arc::clone(&socket);
            move || {
                let word = reader.word(EVENTS).expect("a word");
                assert!(broker_page::events_seen(&word) == 0 || socket.has_frame(), "counted, and not there");
            }
        });
        socket.send();
        broker_page::count_events(&page, EVENTS, 1);
        looking.join().expect("no panic");
    });
}

/// A receiver does not sleep on its lanes' words: each verdict is also an event, told behind it. Breaks with the release of the
/// event word, or its acquire.
#[test]
fn who_sleeps_on_the_event_word_learns_the_verdict() {
    model(|| {
        let (page, reader) = page();
        let futex = Arc::new(Futex::default());
        let telling = thread::spawn({
            let futex = Arc::clone(&futex);
            move || {
                broker_page::tell(&page, STATUS, WORD_DEAD);
                broker_page::count_events(&page, EVENTS, 1);
                futex.wake(WakeBy::Futex);
            }
        });
        let word = reader.word(EVENTS).expect("a word");
        while broker_page::events_seen(&word) == 0 {
            futex.sleep_on(&[&(word.clone(), 0)]);
        }
        let status = Status::new(reader.word(STATUS).expect("a word"), GENERATION);
        assert_eq!(status.verdict(), Verdict::Dead);
        telling.join().expect("no panic");
    });
}

/// Breaks with the release of the broker's word, or the acquire of the verdict.
#[test]
fn who_sees_a_verdict_sees_what_it_is_about() {
    model(|| {
        let (page, reader) = page();
        let died = Arc::new(AtomicBool::new(false));
        let telling = thread::spawn({
            let died = Arc::clone(&died);
            move || {
                died.store(true, Ordering::Relaxed);
                broker_page::tell(&page, STATUS, WORD_DEAD);
            }
        });
        let status = Status::new(reader.word(STATUS).expect("a word"), GENERATION);
        if status.verdict() == Verdict::Dead {
            assert!(died.load(Ordering::Relaxed), "told of a death before it was");
        }
        telling.join().expect("no panic");
    });
}
