//! The kernel against a naive oracle: random requests, each reply and each table predicted.
//!
//! The oracle ([`oracle`]) keeps every capability that ever was in one flat list with the number of its parent. It has
//! no joints, no arena, no charges and no words, and revokes by walking the whole list. After each step the kernel's
//! reply is the predicted one, each process's table and each lane is as predicted, and the kernel is audited.
//!
//! `PROPTEST_CASES` sets how many sequences are tried.

mod oracle;
mod steps;

use alloc::vec::Vec;

use proptest::{prelude::*, test_runner::TestCaseError};

use self::steps::Duel;

/// What a step is made of: who, what, and three numbers that choose handles, rights and names.
type Step = (u8, u8, u8, u8, u32);

fn run(steps: &[Step]) {
    let mut duel = Duel::new();
    for step in steps {
        duel.step(*step);
        duel.compare();
    }
    duel.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4096, ..ProptestConfig::default() })]

    #[test]
    fn the_kernel_does_what_the_oracle_says(
        steps in prop::collection::vec(any::<Step>(), 1..120)
    ) {
        run(&steps);
    }
}

#[test]
fn the_oracle_sees_successes_of_every_kind() -> Result<(), TestCaseError> {
    // A model that only ever predicts denials would prove nothing.
    let mut seen = [0_u32; steps::KINDS];
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    for _ in 0..40 {
        let steps: Vec<Step> =
            (0..60).map(|_| (next() as u8, next() as u8, next() as u8, next() as u8, next())).collect();
        let mut duel = Duel::new();
        for step in steps {
            duel.step(step);
        }
        for (seen, count) in seen.iter_mut().zip(duel.successes) {
            *seen += count;
        }
    }
    prop_assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    Ok(())
}
