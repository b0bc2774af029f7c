//! One cache line handed to and fro: the limit for spinning.
//!
//! The line carries nothing but a number. Whatever two processes tell each other by polling needs at least these two
//! transfers. The number's lowest bit says whose turn it is. The loops poll with a pause instruction: without it
//! the reader takes the line back before it is written, and a trip takes a fifth longer.

use std::{hint, sync::atomic::Ordering};

use crate::{
    Result,
    memory::LINE_BYTES,
    payload::LAST,
    scenario::{Kind, Scenario, Waiting},
    side::{Role, Side},
    systems::{Rank, System},
};

pub(crate) struct CacheLine;

/// The asker's last word; it is nobody's turn after it.
const END: u64 = LAST;

impl System for CacheLine {
    fn name(&self) -> &'static str {
        "cache-line"
    }

    fn rank(&self) -> Rank {
        Rank::Limit
    }

    fn offers(&self, scenario: Scenario) -> bool {
        scenario.kind == Kind::RoundTrip(Waiting::Spinning) && scenario.bytes <= LINE_BYTES
    }

    fn take_side(&self, side: &Side) -> Result<()> {
        let line = side.memory().word(0);
        side.meet()?;
        match side.role() {
            Role::Asker => {
                side.measure_trips(|sequence| {
                    line.store(2 * sequence + 1, Ordering::Release);
                    while line.load(Ordering::Acquire) != 2 * sequence + 2 {
                        hint::spin_loop();
                    }
                    Ok(())
                })?;
                line.store(END, Ordering::Release);
            }
            Role::Answerer => loop {
                let seen = line.load(Ordering::Acquire);
                if seen == END {
                    break;
                }
                if seen & 1 == 1 {
                    line.store(seen + 1, Ordering::Release);
                } else {
                    hint::spin_loop();
                }
            },
        }
        Ok(())
    }
}
