//! Many seeds keep every promise; a seed gives one journal, and a journal one state.
//!
//! `KEYWAY_SIM_SEED` runs that one seed; `KEYWAY_SIM_RUNS` and `KEYWAY_SIM_STEPS` run more or longer.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use keyway_sim::{Hash, Simulation};

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Runs seeds on all processors. Returns how often each reply, denial and event was sent.
fn run(seeds: Range<u64>, steps: usize) -> BTreeMap<String, u64> {
    let (next, sent) = (AtomicU64::new(seeds.start), Mutex::new(BTreeMap::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                return;
            }
            let report = Simulation::run(seed, steps).unwrap_or_else(|failure| {
                next.store(seeds.end, Ordering::Relaxed);
                panic!("{failure}")
            });
            for (words, count) in report.sent {
                *sent.lock().expect("no thread died with it").entry(words).or_default() += count;
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    sent.into_inner().expect("no thread died with it")
}

#[test]
fn every_seed_keeps_every_promise_and_together_they_reach_nearly_everything() {
    let steps = usize::try_from(number("KEYWAY_SIM_STEPS", 400)).unwrap();
    let runs = number("KEYWAY_SIM_RUNS", 450);
    if let Ok(seed) = std::env::var("KEYWAY_SIM_SEED") {
        let seed = seed.parse().unwrap();
        run(seed..seed + 1, steps);
        return;
    }
    let sent = run(0..runs, steps);
    // A simulation in which everything is denied would keep every promise as well.
    for words in SENT.iter().filter(|_| runs >= 450) {
        assert!(sent.contains_key(*words), "{words} was never sent: {sent:?}");
    }
    println!("{sent:?}");
}

/// All replies, all events but those of pages, and the denials that need no built-in limit to be reached.
const SENT: [&str; 55] = [
    "Done",
    "Welcome",
    "Queue",
    "Acks",
    "Capability",
    "Revoked",
    "LaneOpening",
    "Mapping",
    "Ticket",
    "Taken",
    "Listing",
    "LaneOpenedOpener",
    "LaneOpenedOther",
    "LaneOpenedUnnamed",
    "AcksDropped",
    "LanesEndedClosed",
    "LanesEndedPeerDead",
    "LanesEndedRevoked",
    "LanesEndedQueueDeleted",
    "Doorbell",
    "DoorbellsEnded",
    "DoorbellExists",
    "CapabilityReceived",
    "CapabilitiesLost",
    "ProcessEnded",
    "UnknownHandle",
    "StaleHandle",
    "WrongKind",
    "MissingRights",
    "RightsExceeded",
    "BadgeFixed",
    "ReceiveBound",
    "InvalidCount",
    "ObjectEnded",
    "SendersExceeded",
    "StockEmpty",
    "NameTaken",
    "NameUnknown",
    "UnknownLane",
    "LaneEnded",
    "UnknownMapping",
    "RegionUnwritten",
    "WriterTaken",
    "UnknownTicket",
    "Revoking",
    "SystemRefused",
    "WrongEnd",
    "Signal",
    "Signals",
    "SignalsPending",
    "InvalidSignal",
    "SignalBound",
    "Unsupported",
    "NameForbidden",
    "QuotaExceeded",
];

#[test]
fn a_seed_gives_one_journal_and_a_journal_one_state() {
    for seed in [1, 2, 77] {
        let first = Simulation::run(seed, 400).unwrap();
        let second = Simulation::run(seed, 400).unwrap();
        assert_eq!(first, second);
        let mut journal = first.journal.clone();
        let (_, asked) = journal.replay();
        assert_eq!(asked.0, first.asked, "the same effects, byte for byte");
        journal.entries.truncate(first.inputs);
        let (kernel, _) = journal.replay();
        assert_eq!(Hash::of(&kernel).0, first.state, "the same state, byte for byte");
    }
}

#[test]
fn other_seeds_give_other_journals() {
    assert_ne!(Simulation::run(1, 100).unwrap().journal, Simulation::run(2, 100).unwrap().journal);
}

#[test]
fn a_run_reaches_every_operation() {
    let mut text = String::new();
    for seed in 0..20 {
        text += &Simulation::run(seed, 400).unwrap().journal.to_string();
    }
    macro_rules! reached {
        ($( $opcode:literal $name:ident, )*) => {
            $( assert!(text.contains(concat!(stringify!($name), "(", stringify!($name))), stringify!($name)); )*
        };
    }
    keyway_abi::for_each_request!(reached);
}
