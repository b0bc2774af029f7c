//! What derive, grant, transfer and delete cost in the kernel, with 10^4 capabilities live.
//!
//! A transfer is `EscrowPut` by the sender of a lane and `EscrowTake` by its receiver: what the kernel does for one
//! capability in a message. Each line is of batches, so that the clock costs nothing.

use keyway::abi::{
    Handle, LaneId, Reply, Terms,
    request::{self, EscrowHow},
};

use crate::{
    Result,
    figures::world::{Child, Held, RIGHTS, World, time_each, unexpected},
    reading::Reading,
    rounds::median,
    stage::Stage,
};

pub(super) fn measure(stage: &Stage) -> Result<Vec<Reading>> {
    let mut world = World::new()?;
    world.populate(10_000)?;
    let child = world.child()?;
    let region = world.region()?;
    let held = world.grant(region, child)?;
    let batches = stage.effort.choose(30, 300);
    let mut times: [Vec<f64>; 5] = Default::default();
    for _ in 0..batches {
        let [derive, delete] = derive_and_delete(&mut world, held)?;
        times[0].push(derive);
        times[1].push(delete);
        times[2].push(grant(&mut world, region, child)?);
    }
    let queue = world.queue(1)?;
    let route = Route { lane: world.lane(queue, child)?, from: held };
    for _ in 0..batches {
        times[3].push(transfer(&mut world, &route, Travel::Copy)?);
        times[4].push(transfer(&mut world, &route, Travel::Move)?);
    }
    let names =
        ["derive", "delete", "grant", "transfer of a copy (put and take)", "transfer by move (put and take)"];
    Ok(names.into_iter().zip(times).map(|(name, times)| Reading::ns(name, median(times))).collect())
}

const BATCH: usize = 500;
/// Below `ESCROW_MAX`.
const IN_ESCROW: usize = 32;

/// What one of each costs.
fn derive_and_delete(world: &mut World, from: Held) -> Result<[f64; 2]> {
    let mut made = Vec::with_capacity(BATCH);
    let derive = time_each(BATCH, || {
        for _ in 0..BATCH {
            made.push(world.derive(from)?);
        }
        Ok(())
    })?;
    let delete = time_each(BATCH, || {
        made.into_iter().try_for_each(|handle| world.delete(Held { by: from.by, handle }))
    })?;
    Ok([derive, delete])
}

fn grant(world: &mut World, from: Handle, to: Child) -> Result<f64> {
    let mut made = Vec::with_capacity(BATCH);
    let ns = time_each(BATCH, || {
        for _ in 0..BATCH {
            made.push(world.grant(from, to)?);
        }
        Ok(())
    })?;
    made.into_iter().try_for_each(|held| world.delete(held))?;
    Ok(ns)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Travel {
    Copy,
    Move,
}

/// A lane to the hub, and what its sender sends on it.
struct Route {
    lane: LaneId,
    from: Held,
}

fn transfer(world: &mut World, route: &Route, travel: Travel) -> Result<f64> {
    let Route { lane, from } = *route;
    let sent: Vec<(Handle, EscrowHow)> = match travel {
        Travel::Copy => vec![(from.handle, EscrowHow::Copy(Terms::rights(RIGHTS))); IN_ESCROW],
        Travel::Move => {
            let derived: Result<Vec<_>> = (0..IN_ESCROW).map(|_| world.derive(from)).collect();
            derived?.into_iter().map(|handle| (handle, EscrowHow::Move)).collect()
        }
    };
    let mut taken = Vec::with_capacity(IN_ESCROW);
    let mut tickets = Vec::with_capacity(IN_ESCROW);
    let ns = time_each(IN_ESCROW, || {
        for (handle, how) in sent {
            match world.ask(from.by, request::EscrowPut { lane, from: handle, how })? {
                Reply::Ticket(ticket) => tickets.push(ticket),
                other => return Err(unexpected(&other)),
            }
        }
        for &ticket in &tickets {
            match world.ask(world.hub(), request::EscrowTake { lane, ticket })? {
                Reply::Taken(entry) => taken.push(entry.handle),
                other => return Err(unexpected(&other)),
            }
        }
        Ok(())
    })?;
    let by = world.hub();
    taken.into_iter().try_for_each(|handle| world.delete(Held { by, handle }))?;
    Ok(ns)
}
