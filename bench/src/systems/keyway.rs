//! Keyway, used as any program would use it.
//!
//! One queue and one lane for each direction, found by name. Messages are written in place (`send_with`, `send_each`) and received by
//! `receive_ref`, or in streams by `receive_each`, with every default except how one waits where the scenario says so, and
//! larger rings where a message would not fit; large payloads go through a pool. The broker is embedded in the first
//! answerer's process and so on that one's CPU: idle while messages pass, and a CPU away from the asker where it is what
//! answers. So is the bridge.

mod frames;
mod lanes;
mod requests;

use std::{ops::Range, path::PathBuf};

use keyway::{
    Audience, Capability, Client, Embedded, Limits, Queue, QueueOptions, Rights, Sender, SenderOptions,
    WaitStyle,
};

use self::frames::{FRAME_BYTES_MIN, Frames};
use crate::{
    Result, machine,
    payload::Content,
    place::Place,
    scenario::{Kind, LANES_MAX, Scenario, Waiting},
    side::{Port, Role, Side},
    systems::{Rank, System},
};

pub(crate) struct Keyway;

impl System for Keyway {
    fn name(&self) -> &'static str {
        "keyway"
    }

    fn rank(&self) -> Rank {
        Rank::Keyway
    }

    fn offers(&self, scenario: Scenario) -> bool {
        match scenario.kind {
            Kind::Lanes(count) => machine::descriptors() >= descriptors(count),
            _ => true,
        }
    }

    fn take_side(&self, side: &Side) -> Result<()> {
        let path = socket(side.place());
        let broker = match (side.role(), side.index()) {
            (Role::Answerer, 0) => Some(Embedded::start_at_with(&path, limits(side.scenario()))?),
            _ => None,
        };
        // The broker listens.
        side.meet()?;
        let client = Client::connect_to(&path)?;
        match side.scenario().kind {
            Kind::Broker => requests::look_up(side, &client),
            Kind::Derive => requests::derive(side, &client),
            Kind::Signal => requests::signal(side, &client),
            Kind::Bridge => requests::query_device_type(side, &client),
            Kind::Connect => lanes::connect(side, &client, &path),
            Kind::OpenLane => lanes::open(side, &client),
            Kind::IdleLane => lanes::leave_idle(side, &client),
            Kind::Lanes(count) => lanes::talk_beside_idle(side, &client, count),
            Kind::Bulk(_) | Kind::FanOut(_) | Kind::RoundTrip(_)
                if side.content().bytes >= FRAME_BYTES_MIN =>
            {
                let (senders, queue) = open(side, &client)?;
                side.talk(Frames::over(side, &client, senders, queue)?)
            }
            _ => side.talk(Ports::open(side, &client)?),
        }?;
        // The broker stays until all sides have put their ends away.
        side.meet()?;
        drop(broker);
        Ok(())
    }
}

/// The descriptors that the broker's process needs for so many lanes. It holds one for what each end of a lane writes, and lets one
/// process have less than half of all: here the receiver, who has both ends of some.
fn descriptors(count: usize) -> u64 {
    let foreign = count.min(lanes::FOREIGN_MAX);
    let of_receiver = foreign + 2 * (count - foreign) + 600;
    of_receiver as u64 * 23 / 10
}

/// Why there are fewer lanes than there could be, if that is so.
pub(crate) fn lanes_left_out() -> Option<String> {
    let (needed, found) = (descriptors(LANES_MAX), machine::descriptors());
    (found < needed).then(|| {
        format!("keyway, lanes-{LANES_MAX}: the broker needs {needed} descriptors, and may have {found} (ulimit -Hn)")
    })
}

/// The built-in limits, and room for the lanes of a scenario that is about many.
fn limits(scenario: Scenario) -> Limits {
    let mut limits = Limits::default();
    if let Kind::Lanes(count) = scenario.kind {
        let more = 4 * count as u32;
        for charge in [&mut limits.process, &mut limits.user, &mut limits.everyone] {
            charge.handles = charge.handles.saturating_add(more);
            charge.objects = charge.objects.saturating_add(more);
            charge.lanes = charge.lanes.saturating_add(more);
            charge.mappings = charge.mappings.saturating_add(more);
            charge.descriptors = charge.descriptors.saturating_add(more);
            charge.derivations = charge.derivations.saturating_add(more);
            charge.bytes = charge.bytes.saturating_add(u64::from(more) << 20);
        }
    }
    limits
}

/// The socket stands in the run's directory and goes with it.
fn socket(place: &Place) -> PathBuf {
    place.directory().join("broker.sock")
}

fn wait_style(scenario: Scenario) -> WaitStyle {
    match scenario.waiting() {
        Waiting::Spinning => WaitStyle::Spin,
        Waiting::Sleeping => WaitStyle::Sleep,
        Waiting::Default => WaitStyle::default(),
    }
}

/// The name under which a side's queue is published.
fn name(role: Role, index: usize) -> String {
    match role {
        Role::Asker => "asker".to_owned(),
        Role::Answerer => format!("answerer-{index}"),
    }
}

fn queue_options(scenario: Scenario) -> QueueOptions {
    QueueOptions { wait: wait_style(scenario), ..QueueOptions::default() }
}

fn sender_options(scenario: Scenario) -> SenderOptions {
    // Room for some messages: the default's, where they are small.
    let is_large = scenario.bytes * RING_MESSAGES > RING_BYTES_DEFAULT;
    let ring_bytes = is_large.then(|| (scenario.bytes * RING_MESSAGES).next_power_of_two() as u32);
    SenderOptions { ring_bytes, wait: wait_style(scenario), ..SenderOptions::default() }
}

/// How many messages a ring is to have room for at least.
const RING_MESSAGES: usize = 4;
const RING_BYTES_DEFAULT: usize = 64 << 10;

/// What a side sends on, one lane for each receiver, and what it receives from.
struct Ports {
    senders: Vec<Sender>,
    queue: Queue,
    content: Content,
}

impl Ports {
    fn open(side: &Side, client: &Client) -> Result<Self> {
        let (senders, queue) = open(side, client)?;
        Ok(Self::over(side, senders, queue))
    }

    fn over(side: &Side, senders: Vec<Sender>, queue: Queue) -> Self {
        let content = side.content();
        Self { senders, queue, content }
    }
}

/// This side's lanes and its queue.
fn open(side: &Side, client: &Client) -> Result<(Vec<Sender>, Queue)> {
    let queue = client.create_queue(queue_options(side.scenario()))?;
    let found = exchange(side, client, &queue)?;
    let open = |found: &Capability| client.open_sender_with(found, sender_options(side.scenario()));
    let senders = found.iter().map(open).collect::<std::result::Result<_, _>>()?;
    Ok((senders, queue))
}

/// Publishes this side's queue, and looks up all of the other role's.
fn exchange(side: &Side, client: &Client, queue: &Queue) -> Result<Vec<Capability>> {
    let own = name(side.role(), side.index());
    let _published = client.publish(&own, queue.capability(), Rights::SEND, Audience::Everyone)?;
    // All names are published.
    side.meet()?;
    let others = match side.role() {
        Role::Asker => (0..side.scenario().answerers()).map(|index| name(Role::Answerer, index)).collect(),
        Role::Answerer => vec![name(Role::Asker, 0)],
    };
    let found = others.iter().map(|other| client.lookup(other)).collect::<std::result::Result<_, _>>()?;
    // All have been looked up, and may be withdrawn.
    side.meet()?;
    Ok(found)
}

impl Port for Ports {
    #[inline]
    fn send(&mut self, number: u64) -> Result<()> {
        let content = self.content;
        for sender in &mut self.senders {
            sender.send_with(content.bytes, |payload| content.fill(payload, number))?;
        }
        Ok(())
    }

    #[inline]
    fn receive(&mut self) -> Result<u64> {
        self.content.judge(self.queue.receive_ref()?.payload)
    }

    #[inline]
    fn send_batch(&mut self, numbers: Range<u64>) -> Result<()> {
        let count = (numbers.end - numbers.start) as usize;
        if count == 1 {
            return self.send(numbers.start);
        }
        let content = self.content;
        for sender in &mut self.senders {
            sender.send_each(count, content.bytes, |index, payload| {
                content.fill(payload, numbers.start + index as u64);
            })?;
        }
        Ok(())
    }

    #[inline]
    fn receive_batch(&mut self, most: usize, take: &mut impl FnMut(u64) -> Result<()>) -> Result<()> {
        let content = self.content;
        let mut taken = Ok(());
        self.queue.receive_each(most, |received| {
            if taken.is_ok() {
                taken = content.judge(received.payload).and_then(&mut *take);
            }
        })?;
        taken
    }
}
