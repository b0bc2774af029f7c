//! Scenarios that are about lanes: made, left idle, and used beside idle ones.

use std::{path::Path, thread, time::Duration};

use keyway::{
    Audience, Capability, Client, Denial, Error, Queue, QueueOptions, Rights, Sender, SenderOptions,
    abi::limits::QUEUE_SENDERS_MAX,
};

use crate::{
    Result,
    side::{Role, Side},
};

use super::{Ports, exchange, name, queue_options, sender_options};

/// How often a receiver that waits for lanes looks whether it is awaited.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// A new connection, and a message on a lane of its own, over and over.
pub(super) fn connect(side: &Side, client: &Client, path: &Path) -> Result<()> {
    if side.role() == Role::Answerer {
        let mut queue = client.create_queue(options())?;
        let name = name(Role::Answerer, 0);
        let _published = client.publish(&name, queue.capability(), Rights::SEND, Audience::Everyone)?;
        side.meet()?;
        take_lanes(side, &mut queue)?;
        return side.meet();
    }
    side.meet()?;
    let message = vec![0; side.content().bytes];
    side.measure_trips(|_| {
        let client = Client::connect_to(path)?;
        let found = client.lookup(&name(Role::Answerer, 0))?;
        let mut sender = open_one(&client, &found, SenderOptions::default())?;
        sender.send(&message)?;
        Ok((sender, client))
    })?;
    side.meet()
}

/// The asker opens a lane to the answerer's queue, over and over, on one connection.
pub(super) fn open(side: &Side, client: &Client) -> Result<()> {
    let mut queue = client.create_queue(options())?;
    let found = exchange(side, client, &queue)?;
    side.meet()?;
    match side.role() {
        Role::Asker => side.measure_trips(|_| open_one(client, &found[0], SenderOptions::default()))?,
        Role::Answerer => take_lanes(side, &mut queue)?,
    }
    side.meet()
}

/// The asker opens many lanes of the default size, and nobody sends on them.
pub(super) fn leave_idle(side: &Side, client: &Client) -> Result<()> {
    let mut queue = client.create_queue(options())?;
    let found = exchange(side, client, &queue)?;
    let _lanes = side.measure_idle(IDLE_LANES, || match side.role() {
        Role::Asker => open_many(client, &found[0], IDLE_LANES, SenderOptions::default()),
        Role::Answerer => take_lanes(side, &mut queue).map(|()| Vec::new()),
    })?;
    side.meet()
}

/// A conversation on the last of so many lanes to the answerer's queue; back there is one.
pub(super) fn talk_beside_idle(side: &Side, client: &Client, count: usize) -> Result<()> {
    let options = sender_options(side.scenario());
    let usual = QueueOptions { stock: STOCK, ..queue_options(side.scenario()) };
    let senders_max = usual.senders_max.max((4 * count).min(usize::from(QUEUE_SENDERS_MAX)) as u16);
    let mut queue = client.create_queue(QueueOptions { senders_max, ..usual })?;
    let found = exchange(side, client, &queue)?;
    let foreign = count.min(FOREIGN_MAX);
    let _own = match side.role() {
        Role::Asker => None,
        Role::Answerer => Some(open_to_oneself(client, &mut queue, count - foreign)?),
    };
    let mut lanes = match side.role() {
        Role::Asker => open_many(client, &found[0], foreign, options)?,
        Role::Answerer => {
            take_lanes(side, &mut queue)?;
            vec![client.open_sender_with(&found[0], options)?]
        }
    };
    side.meet()?;
    let active = lanes.pop().ok_or("no lane to talk on")?;
    side.talk(Ports::over(side, vec![active], queue))
}

/// The most lanes that a process may have on another's queue: a quarter of what a queue takes.
pub(super) const FOREIGN_MAX: usize = 4096;

/// Lanes to the process's own queue, of which it may have all, with as small a ring as there is: they stay idle.
fn open_to_oneself(client: &Client, queue: &mut Queue, count: usize) -> Result<(Capability, Vec<Sender>)> {
    let capability = queue.capability().derive(Rights::SEND, None)?;
    let options = SenderOptions { ring_bytes: Some(4096), ..SenderOptions::default() };
    let mut lanes = Vec::with_capacity(count);
    while lanes.len() < count {
        match client.open_sender_with(&capability, options) {
            // Looking makes more of what a lane needs.
            Err(Error::Denied { denial: Denial::StockEmpty, .. }) => drop(queue.try_next()?),
            opened => lanes.push(opened?),
        }
    }
    // They are taken back with the capability.
    Ok((capability, lanes))
}

/// As many as the asker's process may have of one queue, and a round number.
const IDLE_LANES: usize = 25;

fn open_many(
    client: &Client,
    queue: &Capability,
    count: usize,
    options: SenderOptions,
) -> Result<Vec<Sender>> {
    (0..count).map(|_| open_one(client, queue, options)).collect()
}

/// Opens a lane. Its receiver has only some in stock and makes more when it looks.
fn open_one(client: &Client, queue: &Capability, options: SenderOptions) -> Result<Sender> {
    loop {
        match client.open_sender_with(queue, options) {
            Err(Error::Denied { denial: Denial::StockEmpty, .. }) => thread::yield_now(),
            opened => return Ok(opened?),
        }
    }
}

const STOCK: u8 = 8;

fn options() -> QueueOptions {
    QueueOptions { stock: STOCK, ..QueueOptions::default() }
}

/// Lets lanes come and go until the asker has no more of them.
fn take_lanes(side: &Side, queue: &mut Queue) -> Result<()> {
    while !side.is_awaited() {
        match queue.next_timeout(LOOK_INTERVAL) {
            Ok(_) | Err(Error::TimedOut(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
