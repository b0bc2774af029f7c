//! A Unix seqpacket socket pair, blocking: what the kernel offers for messages.

use std::os::fd::BorrowedFd;

use rustix::net::{self, RecvFlags, SendFlags};

use crate::{
    Result,
    payload::{PAYLOAD_BYTES, Payload},
    scenario::Scenario,
    side::{Port, Side},
    systems::System,
};

pub(crate) struct Seqpacket;

impl System for Seqpacket {
    fn name(&self) -> &'static str {
        "seqpacket"
    }

    fn offers(&self, scenario: Scenario) -> bool {
        matches!(
            scenario,
            Scenario::RoundTripSleeping | Scenario::OneWay | Scenario::Broker | Scenario::Derive
        )
    }

    fn take_side(&self, side: &Side) -> Result<()> {
        // The socket on which the sides meet is idle between meetings.
        side.talk(Socket(side.socket()))
    }
}

struct Socket<'s>(BorrowedFd<'s>);

impl Port for Socket<'_> {
    fn send(&mut self, payload: Payload) -> Result<()> {
        net::send(self.0, &payload.to_bytes(), SendFlags::NOSIGNAL)?;
        Ok(())
    }

    fn receive(&mut self) -> Result<Payload> {
        let mut bytes = [0; PAYLOAD_BYTES];
        match net::recv(self.0, &mut bytes, RecvFlags::empty())? {
            (PAYLOAD_BYTES, _) => Ok(Payload::from_bytes(bytes)),
            (received_bytes, _) => {
                Err(format!("received {received_bytes} bytes instead of {PAYLOAD_BYTES}").into())
            }
        }
    }
}
