//! Scenarios that are about lanes: made, left idle, and used beside idle ones.

use std::{iter, path::Path, time::Duration};

use keyway::{Audience, Capability, Client, Queue, QueueOptions, Rights, Sender, SenderOptions};

use crate::{
    Result,
    side::{IDLE_LANES, Role, Side},
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
        let mut sender = client.open_sender(&client.lookup(&name(Role::Answerer, 0))?)?;
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
        Role::Asker => side.measure_trips(|_| Ok(client.open_sender(&found[0])?))?,
        Role::Answerer => take_lanes(side, &mut queue)?,
    }
    side.meet()
}

/// The asker opens many lanes of the default size, and nobody sends on them.
pub(super) fn leave_idle(side: &Side, client: &Client, path: &Path) -> Result<()> {
    let mut queue = client.create_queue(options())?;
    let sessions = Sessions::begin(side, client, path, &queue, IDLE_LANES)?;
    let _lanes = side.measure_idle(|| match side.role() {
        Role::Asker => sessions.open(IDLE_LANES, SenderOptions::default()),
        Role::Answerer => take_lanes(side, &mut queue).map(|()| Vec::new()),
    })?;
    side.meet()
}

/// A conversation on the last of so many lanes to the answerer's queue; back there is one.
pub(super) fn talk_beside_idle(side: &Side, client: &Client, path: &Path, count: usize) -> Result<()> {
    let options = sender_options(side.scenario());
    let mut queue = client.create_queue(QueueOptions { stock: STOCK, ..queue_options(side.scenario()) })?;
    let found = exchange(side, client, &queue)?;
    let sessions = Sessions::begin(side, client, path, &queue, count - 1)?;
    let _idle = match side.role() {
        Role::Asker => sessions.open(count - 1, options)?,
        Role::Answerer => take_lanes(side, &mut queue).map(|()| Vec::new())?,
    };
    side.meet()?;
    let senders = vec![client.open_sender_with(&found[0], options)?];
    side.talk(Ports::over(side, senders, queue))
}

/// The asker's sessions for lanes that stay idle: one session may have only so many lanes of a queue.
struct Sessions(Vec<(Client, Capability)>);

/// Lanes of one session to one queue: a few less than the most, of which the active one is one.
const SESSION_LANES: usize = 25;

impl Sessions {
    /// Looks the answerer's queue up in each session; the answerer has it published meanwhile.
    fn begin(side: &Side, client: &Client, path: &Path, queue: &Queue, lanes: usize) -> Result<Self> {
        let name = name(Role::Answerer, 0);
        let mut all = Vec::new();
        let _published = match side.role() {
            Role::Asker => None,
            Role::Answerer => {
                Some(client.publish(&name, queue.capability(), Rights::SEND, Audience::Everyone)?)
            }
        };
        side.meet()?;
        if side.role() == Role::Asker {
            for _ in 0..lanes.div_ceil(SESSION_LANES) {
                let client = Client::connect_to(path)?;
                let queue = client.lookup(&name)?;
                all.push((client, queue));
            }
        }
        side.meet()?;
        Ok(Self(all))
    }

    fn open(&self, lanes: usize, options: SenderOptions) -> Result<Vec<Sender>> {
        let sessions = self.0.iter().flat_map(|session| iter::repeat_n(session, SESSION_LANES));
        let open = |(client, queue): &(Client, Capability)| Ok(client.open_sender_with(queue, options)?);
        sessions.take(lanes).map(open).collect()
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
            Ok(_) | Err(keyway::Error::TimedOut { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
