//! Scenarios in which the broker or the bridge answers.

use std::{
    hint,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use keyway::{Audience, Carried, Client, Outgoing, QueueOptions, Rights, Signal, bridge::Bridge};
use keyway_seat::{Options, Seat};
use rustix::event::{self, PollFd, PollFlags};

use crate::{
    Result,
    payload::LAST,
    side::{Role, Side},
};

/// The names under which the sides publish what the other one looks up.
const ASKER: &str = "asker";
const ANSWERER: &str = "answerer";

/// The asker looks the answerer's queue up, over and over. Each capability is given back between two trips.
pub(super) fn look_up(side: &Side, client: &Client) -> Result<()> {
    match side.role() {
        Role::Asker => {
            side.meet()?;
            side.measure_trips(|_| Ok(client.lookup(ANSWERER)?))?;
            side.meet()
        }
        Role::Answerer => {
            let queue = client.create_queue(QueueOptions::default())?;
            let _published =
                client.publish(ANSWERER, queue.capability(), Rights::SEND, Audience::Everyone)?;
            side.meet()?;
            // Until the asker has measured.
            side.meet()
        }
    }
}

/// The asker derives from a capability of its own, over and over. Each is given back between two trips.
pub(super) fn derive(side: &Side, client: &Client) -> Result<()> {
    side.meet()?;
    if side.role() == Role::Asker {
        let region = client.create_region(4096)?;
        side.measure_trips(|_| Ok(region.derive(Rights::MAP, None)?))?;
    }
    side.meet()
}

/// The asker raises a signal at the answerer and waits until its handler has said so, over and over. The answerer sleeps on
/// the descriptor of its signals, and gives the asker the right to raise in a message.
pub(super) fn signal(side: &Side, client: &Client) -> Result<()> {
    let heard = side.memory().word(0);
    match side.role() {
        Role::Asker => {
            let mut queue = client.create_queue(QueueOptions::default())?;
            let _published = client.publish(ASKER, queue.capability(), Rights::SEND, Audience::Everyone)?;
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
            let mut sender = client.open_sender(&client.lookup(ASKER)?)?;
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
pub(super) fn query_device_type(side: &Side, client: &Client) -> Result<()> {
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
                    if side.is_awaited() {
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
