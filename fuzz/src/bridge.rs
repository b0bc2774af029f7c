//! A bridge's machine with everybody around it, driven by bytes.
//!
//! The first byte says whether the machine has a render node: an odd one. After it, the bytes are a list of steps, one after another,
//! until they end:
//!
//! | first byte, modulo 12 | then | what happens |
//! |---|---|---|
//! | 0 | 1: process, 1: door | a process comes in |
//! | 1 | 1: process | a process dies |
//! | 2 | 1: process | its lanes end |
//! | 3 to 5 | 1: process, 1: length, the request's bytes | a process asks |
//! | 6 | 1: process, 1: what, 1: number | a session asks |
//! | 7 | 1: which, 1: how | the hardware answers, or refuses where that is odd |
//! | 8 | 1: number | an answer to nothing |
//! | 9 | 2: milliseconds | time passes |
//! | 10 | 1: what | a device or connector goes and comes, or the machine is looked at |
//! | 11 | nothing | the bridge begins anew |

use keyway_gui::{
    Door,
    protocol::{
        CardId, DeviceId, OpenNumber, Request, SeatDevice, SessionId, SessionRequest, decode, encode,
    },
};
use keyway_sim::bridge::{CONNECTORS, DEVICES, Step, World};

use crate::Bytes;

/// Steps of one run.
const STEPS: usize = 300;
/// Processes, of which some have the same pid.
const PROCESSES: u8 = 12;

/// Runs a bridge through the steps in `bytes`, and ends everybody.
///
/// # Panics
/// When a promise of the world is broken.
pub fn drive(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let Some(first) = bytes.byte() else { return };
    let mut world = World::new(first % 2 == 1);
    for _ in 0..STEPS {
        match read(&mut bytes) {
            Some(Some(step)) => world.step(&step),
            Some(None) => {}
            None => break,
        }
    }
    world.finish();
}

/// The next step; none in it if its bytes are no request.
fn read(bytes: &mut Bytes<'_>) -> Option<Option<Step>> {
    let kind = bytes.byte()? % 12;
    let client = |bytes: &mut Bytes<'_>| bytes.byte().map(|byte| u64::from(byte % PROCESSES));
    Some(Some(match kind {
        0 => {
            let doors = [Door::Public, Door::Compositor, Door::Seatd];
            Step::Open(client(bytes)?, doors[usize::from(bytes.byte()? % 3)])
        }
        1 => Step::Die(client(bytes)?),
        2 => Step::CloseLanes(client(bytes)?),
        3..=5 => {
            let (client, length) = (client(bytes)?, bytes.byte()?);
            match decode::<Request>(bytes.take(length.into())?) {
                Ok(request) => Step::Ask(client, request),
                Err(_) => return Some(None),
            }
        }
        6 => Step::AskSession(client(bytes)?, session_request(bytes.byte()?, bytes.byte()?)),
        7 => Step::Hardware(bytes.byte()?.into(), bytes.byte()? % 2 == 0),
        8 => Step::Stray(bytes.byte()?.into()),
        9 => Step::Wait(bytes.word()?.into()),
        10 => match bytes.byte()? % 6 {
            which @ (0 | 1) => Step::Replug(DEVICES[usize::from(which)]),
            which @ (2 | 3) => Step::Reconnect(CONNECTORS[usize::from(which - 2)]),
            what => Step::Look(what == 4),
        },
        _ => Step::Restart,
    }))
}

fn session_request(what: u8, number: u8) -> SessionRequest {
    match what % 7 {
        0 => SessionRequest::OpenSeat,
        1 => SessionRequest::CloseSeat,
        2 => SessionRequest::OpenDevice(SeatDevice::Card(CardId(u32::from(number % 2)))),
        3 => SessionRequest::OpenDevice(SeatDevice::Input(DeviceId(20 + u32::from(number % 3)))),
        4 => SessionRequest::CloseDevice(OpenNumber(number.into())),
        5 => SessionRequest::PauseDone,
        _ => SessionRequest::Switch(SessionId(number.into())),
    }
}

/// The bytes of a request by a process.
///
/// # Panics
/// When the request is over its bounds.
#[must_use]
pub fn written(client: u8, request: &Request) -> Vec<u8> {
    let body = encode(request).expect("the request is within bounds");
    let length = u8::try_from(body.len()).expect("requests are short");
    [&[3, client, length][..], &body].concat()
}
