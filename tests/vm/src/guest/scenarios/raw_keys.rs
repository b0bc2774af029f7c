//! What is typed and pointed at comes out of evdev alone: that the machine works, without anything of Keyway's.

use std::{fs::File, io::Read};

use anyhow::{Result, ensure};
use keyway_vm::protocol::TABLET_END;
use rustix::{
    event::{PollFd, PollFlags, poll},
    time::Timespec,
};

use crate::{hardware, stage::Stage};

/// Type, code and value, as `input-event-codes.h` numbers them.
type Event = (u16, u16, i32);

const EV_KEY: u16 = 1;
const EV_ABS: u16 = 3;
pub const KEY_A: u16 = 30;
pub const KEY_B: u16 = 48;
const ABS_X: u16 = 0;
const ABS_Y: u16 = 1;

/// Of `struct input_event`: two words of time, then what [`Event`] has.
const EVENT_BYTES: usize = 24;

pub fn raw_keys(stage: &mut Stage) -> Result<()> {
    let mut keyboard = File::open(hardware::input(hardware::KEYBOARD)?)?;
    stage.press(&["a", "b"])?;
    let expected = [(EV_KEY, KEY_A, 1), (EV_KEY, KEY_A, 0), (EV_KEY, KEY_B, 1), (EV_KEY, KEY_B, 0)];
    expect_events(&mut keyboard, EV_KEY, &expected)?;

    let mut tablet = File::open(hardware::input(hardware::TABLET)?)?;
    let (x, y) = (TABLET_END / 4, TABLET_END / 2);
    stage.point(x, y)?;
    expect_events(&mut tablet, EV_ABS, &[(EV_ABS, ABS_X, x.into()), (EV_ABS, ABS_Y, y.into())])
}

/// Demands exactly these events of a type, within some seconds.
fn expect_events(device: &mut File, kind: u16, expected: &[Event]) -> Result<()> {
    let mut found = Vec::new();
    let patience = Timespec { tv_sec: 5, tv_nsec: 0 };
    while found.len() < expected.len()
        && poll(&mut [PollFd::new(&*device, PollFlags::IN)], Some(&patience))? > 0
    {
        let mut bytes = [0; 64 * EVENT_BYTES];
        let count = device.read(&mut bytes)?;
        found.extend(bytes[..count].as_chunks().0.iter().map(event).filter(|event| event.0 == kind));
    }
    ensure!(found == expected, "expected {expected:?}, found {found:?}");
    Ok(())
}

/// The keys that went down, until one was let go and nothing came for a while.
pub fn pressed(device: &mut File) -> Result<Vec<u16>> {
    let mut keys = Vec::new();
    let mut patience = Timespec { tv_sec: 5, tv_nsec: 0 };
    while poll(&mut [PollFd::new(&*device, PollFlags::IN)], Some(&patience))? > 0 {
        let mut bytes = [0; 64 * EVENT_BYTES];
        let count = device.read(&mut bytes)?;
        let events = bytes[..count].as_chunks().0.iter().map(event);
        keys.extend(events.filter(|(kind, _, value)| (*kind, *value) == (EV_KEY, 1)).map(|(_, key, _)| key));
        patience = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
    }
    Ok(keys)
}

fn event(bytes: &[u8; EVENT_BYTES]) -> Event {
    let [.., type_low, type_high, code_low, code_high, v0, v1, v2, v3] = *bytes;
    let kind = u16::from_ne_bytes([type_low, type_high]);
    (kind, u16::from_ne_bytes([code_low, code_high]), i32::from_ne_bytes([v0, v1, v2, v3]))
}
