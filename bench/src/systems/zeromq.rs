//! The library libzmq (`ZeroMQ`) over `ipc://`, as the crate `zmq` builds it.
//!
//! Each receiver binds a `PULL` socket and each sender connects a `PUSH` socket to it, one I/O thread a process, as its
//! guide has it for less than a gigabyte a second. Messages are filled in place, in memory that the library then owns. The
//! high-water mark is higher than the default, which the guide names as the first thing to tune. Several receivers have a
//! socket each and not a subscription, because a publisher drops what a subscriber is too slow for. Polling is receiving
//! with `DONTWAIT`. It batches by itself; there is no call for batches.

use zmq::{Context, DONTWAIT, Error, Message, Socket, SocketType};

use crate::{
    Result,
    payload::Content,
    place::Place,
    scenario::{Kind, Scenario, Waiting},
    side::{Port, Role, Side},
    systems::{Rank, System},
};

pub(crate) struct Zeromq;

impl System for Zeromq {
    fn name(&self) -> &'static str {
        "zeromq"
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
        let context = Context::new();
        let (own, others): (_, Vec<String>) = match side.role() {
            Role::Asker => {
                let others = 0..side.scenario().answerers();
                (endpoint(side.place(), "asker"), others.map(|index| answerer(side.place(), index)).collect())
            }
            Role::Answerer => (answerer(side.place(), side.index()), vec![endpoint(side.place(), "asker")]),
        };
        let marks = |socket: &Socket| -> Result<()> {
            socket.set_sndhwm(MESSAGES_MAX)?;
            socket.set_rcvhwm(MESSAGES_MAX)?;
            Ok(())
        };
        let incoming = context.socket(SocketType::PULL)?;
        marks(&incoming)?;
        incoming.bind(&own)?;
        // All have bound.
        side.meet()?;
        let dial = |other: &String| -> Result<Socket> {
            let socket = context.socket(SocketType::PUSH)?;
            marks(&socket)?;
            socket.connect(other)?;
            Ok(socket)
        };
        let outgoing = others.iter().map(dial).collect::<Result<_>>()?;
        let is_polling = side.scenario().waiting() == Waiting::Spinning;
        side.talk(Ends { content: side.content(), outgoing, incoming, message: Message::new(), is_polling })
    }
}

/// Ten times the default; small enough that large messages do not fill the memory.
const MESSAGES_MAX: i32 = 10_000;

fn endpoint(place: &Place, end: &str) -> String {
    format!("ipc://{}/zeromq-{end}", place.directory().display())
}

fn answerer(place: &Place, index: usize) -> String {
    endpoint(place, &format!("answerer-{index}"))
}

struct Ends {
    content: Content,
    outgoing: Vec<Socket>,
    incoming: Socket,
    /// What was received last.
    message: Message,
    is_polling: bool,
}

impl Port for Ends {
    fn send(&mut self, number: u64) -> Result<()> {
        for socket in &self.outgoing {
            let mut message = Message::with_size(self.content.bytes);
            self.content.fill(&mut message, number);
            socket.send(message, 0)?;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<u64> {
        let flags = if self.is_polling { DONTWAIT } else { 0 };
        loop {
            match self.incoming.recv(&mut self.message, flags) {
                Ok(()) => return self.content.judge(&self.message),
                Err(Error::EAGAIN | Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
