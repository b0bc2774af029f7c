//! Devices: descriptors that a trusted process hands to the broker, and others claim.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use keyway_abi::{Name, Reply, Request, limits::FRAME_BYTES_MAX, request};
use keyway_sys::{
    frame::{self, Reception, Sent, Waiting},
    socket,
};
use keyway_wire::Incoming;

use crate::{
    capability::Capability,
    control::{Control, REPLY_TIMEOUT},
    error::Error,
};

/// The socket on which this process hands descriptors to the broker. Needs the right `deposit`, which the policy gives to
/// root and to the broker's own user: [`Client::open_depositor`](crate::Client::open_depositor).
#[derive(Debug)]
pub struct Depositor {
    control: Arc<Control>,
    socket: OwnedFd,
    last_number: u32,
}

impl Depositor {
    pub(crate) fn open(control: &Arc<Control>) -> Result<Self, Error> {
        let process = control.start().own.unwrap_or(keyway_abi::Handle::NONE);
        let mut descriptors = control.ask(request::OpenDeposit { process })?;
        let socket = descriptors.pop().ok_or(Error::BrokerIncoherent { operation: "OpenDeposit" })?;
        Ok(Depositor { control: Arc::clone(control), socket, last_number: 0 })
    }

    /// Hands a copy of a descriptor over. It ends with this process, or with the capability returned.
    ///
    /// # Errors
    /// [`Error::Denied`] at a limit, [`Error::BrokerGone`].
    pub fn deposit(&mut self, label: &str, fd: impl AsFd) -> Result<Capability, Error> {
        self.last_number += 1;
        let request: Request = request::Deposit { label: Name::new(label)? }.into();
        // INVARIANT: no request is as long as a frame.
        let bytes = keyway_wire::encode_request(self.last_number, &request, 1).expect("every request fits");
        if frame::send_frame(&self.socket, &bytes, &[fd.as_fd()], Waiting::Block)? == Sent::Closed {
            return Err(Error::BrokerGone);
        }
        let silent = Error::BrokerSilent { operation: "Deposit", waited: REPLY_TIMEOUT };
        if !socket::wait_readable(&self.socket, Some(REPLY_TIMEOUT))? {
            return Err(silent);
        }
        let mut buffer = [0; FRAME_BYTES_MAX];
        let received = match frame::receive_frame(&self.socket, &mut buffer, 0, Waiting::DontWait)? {
            Reception::Frame(received) => received,
            Reception::WouldBlock => return Err(silent),
            Reception::End => return Err(Error::BrokerGone),
        };
        let incoming = keyway_wire::decode_incoming(&buffer[..received.bytes], 0);
        match incoming.map_err(Error::BrokerUnreadable)? {
            Incoming::Reply(_, Reply::Capability(created)) => {
                Ok(Capability::adopted(&self.control, created.handle, created.rights))
            }
            Incoming::Reply(_, Reply::Denied(denial)) => Err(Error::Denied { operation: "Deposit", denial }),
            _ => Err(Error::BrokerIncoherent { operation: "Deposit" }),
        }
    }
}
