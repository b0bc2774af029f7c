//! A part that a message named, from its reader's last look to its sender's next write.

use std::sync::Arc;

use keyway_abi::layout::{PAGE_BYTES, RELEASE_WAITING_OFFSET};
use keyway_shm::{View, WakeBy, Word, own_barrier, releases};
use loom::{cell::UnsafeCell, sync::atomic::Ordering, thread};

use crate::{Futex, model};

const SLOT: u16 = 1;
const GENERATION: u32 = 7;

/// The reader's page, mapped by both, and the sender's word, mapped by both.
struct Words {
    ack: View,
    ack_reader: View,
    waits: Word,
    waits_reader: Word,
}

fn words() -> Words {
    let (ack, ack_reader) = View::modelled_with(PAGE_BYTES, &[releases::place(SLOT)]);
    let (ring, ring_reader) = View::modelled_with(PAGE_BYTES, &[RELEASE_WAITING_OFFSET]);
    let word = |view: &View| view.word(RELEASE_WAITING_OFFSET).expect("a word");
    Words { ack, ack_reader, waits: word(&ring), waits_reader: word(&ring_reader) }
}

/// What was lent. Loom reports a read that nothing orders before the next write.
#[derive(Default)]
struct Part(UnsafeCell<()>);

// SAFETY: loom runs one thread at a time and ends the test at the first access that races with another (loom).
unsafe impl Sync for Part {}

/// Breaks with the release of the reader's word, or its acquire: what is being read is written anew.
#[test]
fn a_part_is_written_anew_only_after_it_was_read() {
    model(|| {
        let Words { ack, ack_reader, waits_reader, .. } = words();
        let part = Arc::new(Part::default());
        let reading = thread::spawn({
            let part = Arc::clone(&part);
            move || {
                part.0.with(|_| ());
                assert_eq!(releases::release(&ack, &waits_reader, SLOT, GENERATION), 0, "nobody waits");
            }
        });
        if releases::released(&ack_reader, SLOT) == GENERATION {
            part.0.with_mut(|_| ());
        }
        reading.join().expect("no panic");
    });
}

/// A lost wake is a deadlock, which loom reports. Breaks with either fence.
#[test]
fn who_waits_for_a_release_is_woken_by_it() {
    model(|| {
        let Words { ack, ack_reader, waits, waits_reader } = words();
        let futex = Arc::new(Futex::default());
        let reading = thread::spawn({
            let futex = Arc::clone(&futex);
            move || {
                if releases::release(&ack, &waits_reader, SLOT, GENERATION) != 0 {
                    futex.wake(WakeBy::Futex);
                }
            }
        });
        let word = ack_reader.word(releases::place(SLOT)).expect("a word");
        loop {
            waits.store(1, Ordering::Relaxed);
            own_barrier();
            let said = releases::released(&ack_reader, SLOT);
            if said == GENERATION {
                break;
            }
            futex.sleep_on(&[&(word.clone(), said)]);
            waits.store(0, Ordering::Relaxed);
        }
        reading.join().expect("no panic");
    });
}
