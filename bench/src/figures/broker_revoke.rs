//! A revocation through a broker in a process of its own: what its owner waits for.
//!
//! The owner publishes a capability to a queue. Other sessions look it up and derive from what they found, so that each
//! holds [`EACH`] capabilities at most; the broker tells them of each that is gone. (One that held more than that, and
//! was slow to read, would be ended by its outbox: [`OUTBOX_FRAMES_MAX`](keyway::abi::limits::OUTBOX_FRAMES_MAX).)

use std::time::Instant;

use keyway::{Audience, Capability, Client, QueueOptions, Rights};

use crate::{
    Result,
    reading::Reading,
    rounds::median,
    stage::{Stage, pin},
};

/// Capabilities of one session.
const EACH: usize = 200;
const NAME: &str = "figures";

pub(super) fn measure(stage: &Stage) -> Result<Vec<Reading>> {
    pin(stage.cpus[0])?;
    let broker = stage.start_broker()?;
    let path = stage.broker_path();
    let owner = Client::connect_to(&path)?;
    let queue = owner.create_queue(QueueOptions::default())?;
    let root = queue.sender_capability(None)?;
    let holders: Vec<Client> =
        (0..5).map(|_| Client::connect_to(&path)).collect::<std::result::Result<_, _>>()?;
    let mut readings = Vec::new();
    for (count, name, repeats) in
        [(10_usize, "10", stage.effort.choose(50, 500)), (1000, "10^3", stage.effort.choose(3, 20))]
    {
        let mut times = Vec::new();
        for _ in 0..repeats {
            let published = owner.publish(NAME, &root, Rights::SEND | Rights::DERIVE, Audience::Everyone)?;
            for (index, holder) in holders.iter().take(count.div_ceil(EACH)).enumerate() {
                hold(holder, EACH.min(count - index * EACH))?;
            }
            let began = Instant::now();
            let revoked = root.revoke()?;
            times.push(began.elapsed().as_nanos() as f64);
            drop(published);
            if revoked != count as u64 {
                return Err(format!("{revoked} capabilities were taken back, not {count}").into());
            }
        }
        let whole = median(times);
        readings.push(Reading::ns(format!("{name}: the whole"), whole));
        readings.push(Reading::ns(format!("{name}: each"), whole / count as f64));
    }
    drop((holders, root, queue, owner));
    broker.finish()?;
    Ok(readings)
}

/// What is looked up, and derived from that. None of them is given back: they will be revoked.
fn hold(holder: &Client, count: usize) -> Result<()> {
    let found = holder.lookup(NAME)?;
    for _ in 1..count {
        found.derive(Rights::SEND, None).map(Capability::into_handle)?;
    }
    found.into_handle();
    Ok(())
}
