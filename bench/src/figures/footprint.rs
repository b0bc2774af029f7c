//! What the broker keeps for each session, capability, queue and lane.
//!
//! Twice. Exactly: what a kernel in this process has asked the allocator for, which is all that the kernel keeps.
//! Outside: what the memory of a broker in a process of its own grows by (`RssAnon`: the kernel's share, the broker's
//! own tables, and what the allocator adds; `RssShmem`: the shared pages that the broker has mapped).

use std::iter;

use keyway::{Client, Queue, QueueOptions, Rights, Sender, SenderOptions};
use keyway_broker::memory_use;

use crate::{
    Result, allocations,
    figures::world::{Held, World},
    reading::{Aim, Reading, Unit},
    stage::Stage,
};

pub(super) fn measure(stage: &Stage) -> Result<Vec<Reading>> {
    allocations::count();
    let mut readings = in_kernel()?;
    readings.extend(in_broker(stage)?);
    Ok(readings)
}

/// What is aimed at.
const CAPABILITY_BYTES: f64 = 128.0;

fn in_kernel() -> Result<Vec<Reading>> {
    let mut world = World::new()?;
    // The audit log fills first: it is bounded, and no capability's.
    for _ in 0..1024 {
        let region = world.region()?;
        world.delete(Held { by: world.hub(), handle: region })?;
    }
    let mut readings = Vec::new();
    let mut grown = |what: &str, count: usize, made: &mut dyn FnMut() -> Result<()>| -> Result<()> {
        let before = allocations::live_bytes();
        made()?;
        let each = (allocations::live_bytes() - before) / count as f64;
        let reading = Reading::new(format!("kernel: {what}"), Unit::Bytes, each);
        let is_capability = what.starts_with("a capability");
        readings.push(if is_capability { reading.aim(Aim::AtMost(CAPABILITY_BYTES)) } else { reading });
        Ok(())
    };
    grown("a session", 200, &mut || (0..200).try_for_each(|_| world.child().map(drop)))?;
    grown("a queue (with one acknowledgement memory)", 500, &mut || {
        (0..500).try_for_each(|_| world.queue(1).map(drop))
    })?;
    let (child, queues) = (world.child()?, (0..500).map(|_| world.queue(1)).collect::<Result<Vec<_>>>()?);
    grown("a lane (with its two capabilities)", 500, &mut || {
        queues.iter().try_for_each(|&queue| world.lane(queue, child).map(drop))
    })?;
    for (count, name) in [(10_000, "10^4"), (1_000_000, "10^6"), (CROWD_MIN, "2^19 + 10^4")] {
        let mut world = World::new()?;
        // Room of the caller's own, and what is no capability: children and regions.
        let region = world.region()?;
        let by = world.hub();
        let mut holders = Vec::new();
        for _ in 0..count.div_ceil(HOLDS) {
            let child = world.child()?;
            holders.push(world.grant(region, child)?);
        }
        world.derive(Held { by, handle: region })?;
        grown(&format!("a capability, of {name}"), count, &mut || {
            let all = holders.iter().flat_map(|&holder| iter::repeat_n(holder, HOLDS));
            all.take(count).try_for_each(|holder| world.derive(holder).map(drop))
        })?;
    }
    Ok(readings)
}

/// What each process derives: with the first one, as many as a table takes.
const HOLDS: usize = 4095;
/// Just more than a power of two: tables that grow by doubling are at their emptiest.
const CROWD_MIN: usize = (1 << 19) + 10_000;

fn in_broker(stage: &Stage) -> Result<Vec<Reading>> {
    let broker = stage.start_broker()?;
    let path = stage.broker_path();
    let client = Client::connect_to(&path)?;
    let region = client.create_region(4096)?;
    // What is made once, and tables that never shrink, are there before.
    for _ in 0..600 {
        region.derive(Rights::MAP, None)?;
    }
    let mut readings = Vec::new();
    let mut before = memory_use(broker.pid())?;
    let mut grown = |what: &str, count: usize| -> Result<()> {
        let now = memory_use(broker.pid())?;
        let own = now.anonymous_bytes as f64 - before.anonymous_bytes as f64;
        let shared = now.shared_bytes as f64 - before.shared_bytes as f64;
        readings.push(Reading::new(format!("broker: {what} (RssAnon)"), Unit::Bytes, own / count as f64));
        readings.push(Reading::new(format!("broker: {what} (RssShmem)"), Unit::Bytes, shared / count as f64));
        before = now;
        Ok(())
    };
    let sessions: Vec<Client> =
        (0..60).map(|_| Client::connect_to(&path)).collect::<std::result::Result<_, _>>()?;
    grown("a session", sessions.len())?;
    let derived = (0..3000).map(|_| region.derive(Rights::MAP, None).map(keyway::Capability::into_handle));
    let derived: Vec<_> = derived.collect::<std::result::Result<_, _>>()?;
    grown("a capability", derived.len())?;
    let options = QueueOptions { stock: 1, ..QueueOptions::default() };
    let queues: Vec<Queue> =
        (0..200).map(|_| client.create_queue(options)).collect::<std::result::Result<_, _>>()?;
    grown("a queue", queues.len())?;
    let options = SenderOptions { ring_bytes: Some(4096), ..SenderOptions::default() };
    let open = |queue: &Queue| client.open_sender_with(queue.capability(), options);
    let lanes: Vec<Sender> = queues.iter().map(open).collect::<std::result::Result<_, _>>()?;
    grown("a lane", lanes.len())?;
    drop((lanes, queues, sessions, region, client));
    broker.finish()?;
    Ok(readings)
}
