//! What it costs to take a tree of capabilities back, for each capability: in the kernel, all steps of the sweep included.
//!
//! Three shapes. Wide: all hang on the root. Deep: chains as long as `DERIVATION_DEPTH_MAX` allows. Mixed: each hangs on
//! a random one that its holder made before. The holders are as many processes as are needed, and all are told.

use keyway::abi::Handle;

use crate::{
    Result,
    figures::world::{Child, EACH, Held, Random, World, time_each},
    reading::{Aim, Reading},
    rounds::median,
    stage::Stage,
};

pub(super) fn measure(stage: &Stage) -> Result<Vec<Reading>> {
    let mut readings = Vec::new();
    for shape in [Shape::Wide, Shape::Deep, Shape::Mixed] {
        let mut small = None;
        for (count, name, repeats) in [
            (10, "10", stage.effort.choose(300, 3000)),
            (1000, "10^3", stage.effort.choose(5, 50)),
            (100_000, "10^5", stage.effort.choose(1, 3)),
        ] {
            let ns = revoke(shape, count, repeats)?;
            let reading = Reading::ns(format!("{}, {name}: each", shape.name()), ns);
            readings.push(match small {
                None => reading,
                Some(small) => reading.beside("10", small).aim(Aim::TimesBeside(2.0)),
            });
            small = small.or(Some(ns));
        }
    }
    Ok(readings)
}

#[derive(Clone, Copy)]
enum Shape {
    Wide,
    Deep,
    Mixed,
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Self::Wide => "wide",
            Self::Deep => "deep",
            Self::Mixed => "mixed",
        }
    }
}

/// How deep the chains of a tree go below what was granted; the root, and what it was derived from, lie above.
const DEPTH: usize = 60;

/// Answers the cost of one capability.
fn revoke(shape: Shape, count: usize, repeats: usize) -> Result<f64> {
    let mut world = World::new()?;
    let region = world.region()?;
    let by = world.hub();
    let root = world.derive(Held { by, handle: region })?;
    let children: Result<Vec<Child>> = (0..count.div_ceil(EACH)).map(|_| world.child()).collect();
    let children = children?;
    let mut times = Vec::with_capacity(repeats);
    for _ in 0..repeats {
        for (index, &child) in children.iter().enumerate() {
            grow(&mut world, shape, root, child, EACH.min(count - index * EACH))?;
        }
        let mut revoked = 0;
        times.push(time_each(count, || {
            revoked = world.revoke(root)?;
            Ok(())
        })?);
        if revoked != count as u64 {
            return Err(format!("{revoked} capabilities were taken back, not {count}").into());
        }
    }
    Ok(median(times))
}

/// `count` capabilities of one child below `root`.
fn grow(world: &mut World, shape: Shape, root: Handle, child: Child, count: usize) -> Result<()> {
    let mut random = Random::new(count as u64);
    let mut made: Vec<(Held, usize)> = Vec::with_capacity(count);
    for index in 0..count {
        let above = match shape {
            Shape::Wide => None,
            Shape::Deep => made.last().copied().filter(|(_, depth)| *depth < DEPTH),
            Shape::Mixed if index == 0 => None,
            Shape::Mixed => Some(made[random.below(made.len())]).filter(|(_, depth)| *depth < DEPTH),
        };
        made.push(match above {
            None => (world.grant(root, child)?, 0),
            Some((held, depth)) => (Held { by: child.number, handle: world.derive(held)? }, depth + 1),
        });
    }
    Ok(())
}
