//! The kernel against a naive oracle: random requests, each reply, each event, each table and each charge predicted.
//!
//! The oracle ([`oracle`]) keeps every capability that ever was in one flat list with the number of its parent. It has
//! no joints, no arena and no words, revokes by walking the whole list, and counts what is charged anew each time. It
//! keeps signals, access lists, rules and waiters in lists, too, and asks none of the kernel's code. After each step the
//! kernel's reply is the predicted one, each process was told what was predicted, all that there is is as predicted, and
//! the kernel is audited.
//!
//! `PROPTEST_CASES` sets how many sequences are tried that shrink when they fail. `KEYWAY_MODEL_STEPS` sets how many steps
//! [`the_oracle_sees_successes_of_every_kind`] goes, and `KEYWAY_MODEL_SEED` where it begins; it says what it came upon:
//!
//! ```text
//! KEYWAY_MODEL_STEPS=1000000 CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true \
//!     cargo test -p keyway-kernel --release --lib -- --nocapture the_oracle_sees
//! ```

mod capabilities;
mod charges;
mod comparing;
mod judging;
mod lists;
mod messages;
mod names;
mod oracle;
mod regions;
mod signalling;
mod signals;
mod steps;

use alloc::{collections::BTreeMap, vec::Vec};

use keyway_abi::{Denial, Payer, Quota};
use proptest::prelude::*;

use self::steps::{Duel, KINDS, STEPS};
use super::std;

/// What a step is made of: who, what, and three numbers that choose handles, rights and names.
type Step = (u8, u8, u8, u8, u32);

/// Sequences that are tried when nobody says how many; a build without optimization takes some seconds for them.
const CASES: u32 = 96;
/// Steps of one sequence that does not shrink.
const SEQUENCE: u64 = 300;
/// How many steps such sequences have together when nobody says how many.
const STEPS_DEFAULT: u64 = 9_000;

/// What even few sequences have to come upon, besides the plainest refusals.
const REFUSALS: [&str; 13] = [
    "MissingRights",
    "RightsExceeded",
    "DeniedByList",
    "UnknownAclEntry",
    "NameForbidden",
    "NameRefused",
    "NameTaken",
    "SignalQueueFull",
    "Unsupported",
    "QuotaExceeded",
    "ReceiverFull",
    "SendersExceeded",
    "LimitReached",
];

/// What several sequences came upon together.
#[derive(Default)]
struct Seen {
    steps: u64,
    successes: Vec<u64>,
    denials: BTreeMap<u32, u64>,
    quotas: BTreeMap<(Quota, Payer), u64>,
}

impl Seen {
    fn add(&mut self, duel: &Duel) {
        self.steps += duel.steps;
        self.successes.resize(KINDS, 0);
        for (seen, count) in self.successes.iter_mut().zip(duel.successes) {
            *seen += count;
        }
        for (denial, count) in &duel.denials {
            *self.denials.entry(*denial).or_default() += count;
        }
        for (quota, count) in &duel.quotas {
            *self.quotas.entry(*quota).or_default() += count;
        }
    }

    fn show(&self) {
        std::println!("{} steps", self.steps);
        for ((kind, _), count) in STEPS.iter().zip(&self.successes) {
            std::println!("  {kind}: {count} succeeded");
        }
        for (denial, count) in &self.denials {
            std::println!("  {}: {count} predicted", Denial::name_of(*denial).unwrap_or("?"));
        }
        for ((quota, of), count) in &self.quotas {
            std::println!("  {quota} of {of:?}: {count} predicted");
        }
    }
}

fn run(steps: impl IntoIterator<Item = Step>, seen: &mut Seen) {
    let mut duel = Duel::new();
    for step in steps {
        duel.step(step);
        duel.compare();
    }
    seen.add(&duel);
    duel.finish();
}

/// Numbers that look random, the same ones for the same seed.
fn numbers(seed: u64) -> impl FnMut() -> u32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    }
}

fn sequence(seed: u64, count: u64) -> impl Iterator<Item = Step> {
    let mut next = numbers(seed);
    (0..count).map(move |_| {
        let [who, what, first, second] = [(); 4].map(|()| (next() >> 24) as u8);
        (who, what, first, second, next())
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES),
        max_shrink_iters: 4096,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_kernel_does_what_the_oracle_says(
        steps in prop::collection::vec(any::<Step>(), 1..120)
    ) {
        run(steps, &mut Seen::default());
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Says which sequence it was that failed.
struct Attempt(u64);

impl Drop for Attempt {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::eprintln!("it was sequence {}: KEYWAY_MODEL_SEED={0} KEYWAY_MODEL_STEPS=1", self.0);
        }
    }
}

#[test]
fn the_oracle_sees_successes_of_every_kind() {
    let (count, first) = (setting("KEYWAY_MODEL_STEPS", STEPS_DEFAULT), setting("KEYWAY_MODEL_SEED", 1));
    let mut seen = Seen::default();
    for seed in first.. {
        if seen.steps >= count {
            break;
        }
        let attempt = Attempt(seed);
        run(sequence(seed, SEQUENCE), &mut seen);
        drop(attempt);
    }
    seen.show();
    if seen.steps < STEPS_DEFAULT {
        return;
    }
    // A model that only ever predicts denials, or none, would prove nothing.
    let missing = STEPS.iter().zip(&seen.successes).filter(|(_, count)| **count == 0);
    let missing: Vec<_> = missing.map(|((kind, _), _)| kind).collect();
    assert!(missing.is_empty(), "nothing of this succeeds: {missing:?}");
    let predicted: Vec<&str> = seen.denials.keys().filter_map(|number| Denial::name_of(*number)).collect();
    for refusal in REFUSALS {
        assert!(predicted.contains(&refusal), "{refusal} is not among {predicted:?}");
    }
}
