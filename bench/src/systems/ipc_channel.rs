//! The crate ipc-channel, which Servo uses.
//!
//! Its channels for bytes, which spare the serialisation of messages, one for each receiver; its one-shot server brings the
//! sending ends to the senders. Channels are unbounded, as its documentation says. Polling is `try_recv`. There are no
//! batches. (`IpcSharedMemory`, the other way for large messages, makes, maps and unmaps a memory for each one.)

use std::{fs, path::PathBuf};

use ipc_channel::{
    TryRecvError,
    ipc::{IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcSender, bytes_channel},
};

use crate::{
    Result,
    payload::Content,
    place::Place,
    scenario::{Kind, Scenario, Waiting},
    side::{Port, Role, Side},
    systems::{Rank, System},
};

pub(crate) struct IpcChannel;

impl System for IpcChannel {
    fn name(&self) -> &'static str {
        "ipc-channel"
    }

    fn rank(&self) -> Rank {
        Rank::Peer
    }

    fn offers(&self, scenario: Scenario) -> bool {
        match scenario.kind {
            Kind::OneWay => scenario.batch == 1,
            Kind::RoundTrip(_) | Kind::Bulk(_) | Kind::FanIn(_) | Kind::FanOut(_) => true,
            _ => false,
        }
    }

    fn take_side(&self, side: &Side) -> Result<()> {
        // How many there are on the other side, and which of its own this one is.
        let others = match side.role() {
            Role::Asker => side.scenario().answerers(),
            Role::Answerer => 1,
        };
        // A sender waits for the end that each receiver has for it.
        let mut servers = Vec::new();
        for other in 0..others {
            let (server, name) = IpcOneShotServer::<IpcBytesSender>::new()?;
            fs::write(server_of(side.place(), side.role(), side.index(), other), name)?;
            servers.push(server);
        }
        // All servers are there.
        side.meet()?;
        let (sender, incoming) = bytes_channel()?;
        for other in 0..others {
            let role = if side.role() == Role::Asker { Role::Answerer } else { Role::Asker };
            let name = fs::read_to_string(server_of(side.place(), role, other, side.index()))?;
            IpcSender::connect(name)?.send(sender.clone())?;
        }
        let accepted = servers.into_iter().map(|server| Ok(server.accept()?.1));
        let outgoing = accepted.collect::<Result<_>>()?;
        let (content, is_polling) = (side.content(), side.scenario().waiting() == Waiting::Spinning);
        side.talk(Ends { content, outgoing, incoming, buffer: vec![0; content.bytes], is_polling })
    }
}

/// Where a sender writes the name of its server for a receiver.
fn server_of(place: &Place, role: Role, sender: usize, receiver: usize) -> PathBuf {
    let end = if role == Role::Asker { "asker" } else { "answerer" };
    place.directory().join(format!("ipc-channel-{end}-{sender}-{receiver}"))
}

struct Ends {
    content: Content,
    outgoing: Vec<IpcBytesSender>,
    incoming: IpcBytesReceiver,
    buffer: Vec<u8>,
    is_polling: bool,
}

impl Port for Ends {
    fn send(&mut self, number: u64) -> Result<()> {
        self.content.fill(&mut self.buffer, number);
        for sender in &self.outgoing {
            sender.send(&self.buffer)?;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<u64> {
        if !self.is_polling {
            let message = self.incoming.recv().map_err(|error| format!("{error:?}"))?;
            return self.content.judge(&message);
        }
        loop {
            match self.incoming.try_recv() {
                Ok(message) => return self.content.judge(&message),
                Err(TryRecvError::Empty) => {}
                Err(error) => return Err(format!("{error:?}").into()),
            }
        }
    }
}
