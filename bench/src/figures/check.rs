//! What a capability check costs, with few and with many live capabilities in the kernel.
//!
//! The probe is `AclCheck`, the one request that does nothing but find the asker's capability, check that nothing above
//! it is being revoked and that it has not expired, and look at its object; it changes nothing and logs nothing. Beside
//! it stands `Pending`, which runs through the same dispatch and reply without any capability.

use std::hint;

use keyway::abi::{Reply, request};

use crate::{
    Result,
    figures::world::{Held, Random, World, time_each, unexpected},
    reading::{Aim, Reading},
    rounds::median,
    stage::Stage,
};

pub(super) fn measure(_: &Stage) -> Result<Vec<Reading>> {
    let mut readings = Vec::new();
    let (mut few_same, mut few_random) = (0.0, 0.0);
    for (count, name) in [(10, "10"), (10_000, "10^4"), (1_000_000, "10^6")] {
        let mut world = World::new()?;
        let all = world.populate(count)?;
        let mut random = Random::new(count as u64);
        let picked: Vec<Held> = (0..PICKS).map(|_| all[random.below(all.len())]).collect();
        let same = batches(&vec![all[0]; PICKS], |batch| check(&mut world, batch))?;
        let random = batches(&picked, |batch| check(&mut world, batch))?;
        let (of_same, of_random) =
            (format!("{name} live, the same handle"), format!("{name} live, random handles"));
        if count == 10 {
            let bare = batches(&picked, |batch| ask_nothing(&mut world, batch))?;
            readings.push(Reading::ns(of_same, same).beside("a request without a capability", bare));
            readings.push(Reading::ns(of_random, random));
            readings.push(deep(&mut world)?.beside(format!("{name} live, the same"), same));
            (few_same, few_random) = (same, random);
        } else {
            readings.push(Reading::ns(of_same, same).beside("10 live", few_same).aim(Aim::TimesBeside(1.5)));
            readings.push(Reading::ns(of_random, random).beside("10 live", few_random));
        }
    }
    Ok(readings)
}

/// So many that, of a million capabilities, nearly each is looked at for the first time.
const PICKS: usize = 1 << 16;

/// How deep the deepest capability lies below the one that was granted.
const DEPTH: usize = 60;

/// The clock is read before and after so many; the median of them all is less disturbed by other work than one long
/// time would be.
const BATCH: usize = 1 << 10;

fn batches(all: &[Held], mut work: impl FnMut(&[Held]) -> Result<()>) -> Result<f64> {
    let times = all.chunks(BATCH).map(|batch| time_each(batch.len(), || work(batch)));
    Ok(median(times.collect::<Result<_>>()?))
}

fn check(world: &mut World, handles: &[Held]) -> Result<()> {
    for held in handles {
        match world.ask(held.by, request::AclCheck { object: held.handle })? {
            Reply::Permitted { rights } => {
                hint::black_box(rights);
            }
            other => return Err(unexpected(&other)),
        }
    }
    Ok(())
}

fn ask_nothing(world: &mut World, handles: &[Held]) -> Result<()> {
    for held in handles {
        hint::black_box(world.ask(held.by, request::Pending {})?);
    }
    Ok(())
}

/// A check walks all that is above.
fn deep(world: &mut World) -> Result<Reading> {
    let child = world.child()?;
    let region = world.region()?;
    let mut deepest = world.grant(region, child)?;
    for _ in 0..DEPTH {
        deepest.handle = world.derive(deepest)?;
    }
    let ns = batches(&vec![deepest; PICKS], |batch| check(world, batch))?;
    Ok(Reading::ns(format!("10 live, the same handle, {DEPTH} deep"), ns))
}
