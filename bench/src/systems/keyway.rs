//! Keyway, used as any program would use it.
//!
//! One queue and one lane for each direction, found by name; `send` and `receive` with every default except how one
//! waits where the scenario says so. The broker is embedded in the answerer's process and so on the answerer's CPU:
//! idle while messages pass, and a CPU away from the asker where it is what answers. So is the bridge.

use std::{
    hint,
    path::PathBuf,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use keyway::{
    Audience, Carried, Client, Embedded, Outgoing, Queue, QueueOptions, Rights, Sender, SenderOptions,
    Signal, WaitStyle, bridge::Bridge,
};
use keyway_seat::{Options, Seat};
use rustix::event::{self, PollFd, PollFlags};

use crate::{
    Result,
    payload::{LAST, PAYLOAD_BYTES, Payload},
    place::Place,
    scenario::Scenario,
    side::{Port, Role, Side},
    systems::System,
};

pub(crate) struct Keyway;

impl System for Keyway {
    fn name(&self) -> &'static str {
        "keyway"
    }

    fn offers(&self, _: Scenario) -> bool {
        true
    }

    fn take_side(&self, side: &Side) -> Result<()> {
        let path = socket(side.place());
        let broker = match side.role() {
            Role::Asker => None,
            Role::Answerer => Some(Embedded::start_at(&path)?),
        };
        // The broker listens.
        side.meet()?;
        let client = Client::connect_to(&path)?;
        match side.scenario() {
            Scenario::Broker => look_up(side, &client),
            Scenario::Derive => derive(side, &client),
            Scenario::Signal => signal(side, &client),
            Scenario::Bridge => query_device_type(side, &client),
            scenario => side.talk(Ports::open(side, &client, waiting(scenario))?),
        }?;
        // The broker stays until both sides have put their ends away.
        side.meet()?;
        drop(broker);
        Ok(())
    }
}

/// The socket stands in the run's directory and goes with it.
fn socket(place: &Place) -> PathBuf {
    place.directory().join("broker.sock")
}

fn waiting(scenario: Scenario) -> WaitStyle {
    match scenario {
        Scenario::RoundTripSpinning => WaitStyle::Spin,
        Scenario::RoundTripSleeping => WaitStyle::Sleep,
        _ => WaitStyle::default(),
    }
}

/// The name under which a side's queue is published.
fn name(role: Role) -> &'static str {
    match role {
        Role::Asker => "asker",
        Role::Answerer => "answerer",
    }
}

/// The asker looks the answerer's queue up, over and over. Each capability is given back between two trips.
fn look_up(side: &Side, client: &Client) -> Result<()> {
    match side.role() {
        Role::Asker => {
            side.meet()?;
            side.measure_trips(|_| Ok(client.lookup(name(Role::Answerer))?))?;
            side.meet()
        }
        Role::Answerer => {
            let queue = client.create_queue(QueueOptions::default())?;
            let _published =
                client.publish(name(Role::Answerer), queue.capability(), Rights::SEND, Audience::Everyone)?;
            side.meet()?;
            // Until the asker has measured.
            side.meet()
        }
    }
}

/// The asker derives from a capability of its own, over and over. Each is given back between two trips.
fn derive(side: &Side, client: &Client) -> Result<()> {
    side.meet()?;
    if side.role() == Role::Asker {
        let region = client.create_region(4096)?;
        side.measure_trips(|_| Ok(region.derive(Rights::MAP, None)?))?;
    }
    side.meet()
}

/// The asker raises a signal at the answerer and waits until its handler has said so, over and over. The answerer sleeps on
/// the descriptor of its signals, and gives the asker the right to raise in a message.
fn signal(side: &Side, client: &Client) -> Result<()> {
    let heard = side.memory().word(0);
    match side.role() {
        Role::Asker => {
            let mut queue = client.create_queue(QueueOptions::default())?;
            let _published =
                client.publish(name(Role::Asker), queue.capability(), Rights::SEND, Audience::Everyone)?;
            side.meet()?;
            let answerer = queue.receive()?.capabilities.pop().ok_or("no capability came")??;
            side.meet()?;
            side.measure_trips(|sequence| {
                answerer.raise(Signal::USR1, sequence + 1)?;
                while heard.load(Ordering::Acquire) != sequence + 1 {
                    hint::spin_loop();
                }
                Ok(())
            })?;
            answerer.raise(Signal::USR1, LAST)?;
        }
        Role::Answerer => {
            let mut signals = client.signals()?;
            signals.on(Signal::USR1, move |info| heard.store(info.value, Ordering::Release))?;
            side.meet()?;
            let mut sender = client.open_sender(&client.lookup(name(Role::Asker))?)?;
            let own = client.own_process().ok_or("no capability to oneself")?;
            let capabilities = [Carried::Copy(&own, Rights::RAISE)];
            sender.send_message(&Outgoing { capabilities: &capabilities, ..Outgoing::default() })?;
            side.meet()?;
            while heard.load(Ordering::Acquire) != LAST {
                event::poll(&mut [PollFd::new(&signals, PollFlags::IN)], None)?;
                signals.dispatch()?;
            }
        }
    }
    side.meet()
}

/// The asker asks the bridge for the device type, over and over.
fn query_device_type(side: &Side, client: &Client) -> Result<()> {
    match side.role() {
        Role::Asker => {
            side.meet()?;
            let mut bridge = Bridge::connect(client)?;
            side.measure_trips(|_| {
                let is_mobile = bridge.is_mobile_device()?;
                if is_mobile == IS_MOBILE { Ok(()) } else { Err("the bridge answered something else".into()) }
            })?;
            side.meet()
        }
        Role::Answerer => {
            let mut seat = Seat::start(client, Options { is_mobile: Some(IS_MOBILE), ..Options::default() })?;
            side.meet()?;
            let mut looked = Instant::now();
            // Until the asker has measured.
            loop {
                seat.turn(LOOK_INTERVAL)?;
                if looked.elapsed() >= LOOK_INTERVAL {
                    if side.is_awaited()? {
                        break;
                    }
                    looked = Instant::now();
                }
            }
            side.meet()
        }
    }
}

/// What the bridge is told to answer.
const IS_MOBILE: bool = true;

/// How often the answerer looks whether the asker has measured: seldom, as a look is a system call.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

struct Ports {
    sender: Sender,
    queue: Queue,
}

impl Ports {
    fn open(side: &Side, client: &Client, wait: WaitStyle) -> Result<Self> {
        let (own, other) = match side.role() {
            Role::Asker => (Role::Asker, Role::Answerer),
            Role::Answerer => (Role::Answerer, Role::Asker),
        };
        let queue = client.create_queue(QueueOptions { wait, ..QueueOptions::default() })?;
        let _published = client.publish(name(own), queue.capability(), Rights::SEND, Audience::Everyone)?;
        // Both names are published.
        side.meet()?;
        let found = client.lookup(name(other))?;
        let sender = client.open_sender_with(&found, SenderOptions { wait, ..SenderOptions::default() })?;
        // Both have been looked up, and may be withdrawn.
        side.meet()?;
        Ok(Self { sender, queue })
    }
}

impl Port for Ports {
    fn send(&mut self, payload: Payload) -> Result<()> {
        Ok(self.sender.send(&payload.to_bytes())?)
    }

    fn receive(&mut self) -> Result<Payload> {
        let received = self.queue.receive()?.payload;
        let bytes = <[u8; PAYLOAD_BYTES]>::try_from(&received[..]);
        let bytes =
            bytes.map_err(|_| format!("received {} bytes instead of {PAYLOAD_BYTES}", received.len()))?;
        Ok(Payload::from_bytes(bytes))
    }
}
