//! The library libzmq (`ZeroMQ`) over `ipc://`, as the crate `zmq` builds it.
//!
//! Each receiver binds a `PULL` socket and each sender connects a `PUSH` socket to it, one I/O thread a process, as its
//! guide has it for less than a gigabyte a second. Messages are filled in place, in memory that the library then owns. The
//! high-water mark is higher than the default, which the guide names as the first thing to tune. Several receivers have a
//! socket each and not a subscription, because a publisher drops what a subscriber is too slow for. Polling is receiving
//! with `DONTWAIT`. It batches by itself; there is no call for batches.

use std::{thread, time::Duration};

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
            Kind::RoundTrip(_)
            | Kind::Bulk(_)
            | Kind::FanIn(_)
            | Kind::FanOut(_)
            | Kind::OpenLane
            | Kind::IdleLane => true,
            Kind::Lanes(lanes) => lanes <= LANES_MAX,
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
        let dial = || dial(&others[0]);
        let _idle = match side.scenario().kind {
            Kind::OpenLane => return open_lanes(side, dial),
            Kind::IdleLane => return leave_idle(side, dial),
            Kind::Lanes(lanes) if side.role() == Role::Asker => {
                (1..lanes).map(|_| dial()).collect::<Result<_>>()?
            }
            _ => Vec::new(),
        };
        let is_polling = side.scenario().waiting() == Waiting::Spinning;
        side.talk(Ends { content: side.content(), outgoing, incoming, message: Message::new(), is_polling })
    }
}

/// The asker makes and connects a socket, over and over. A message can be sent then, though nobody may have accepted it
/// yet. A connected socket is what comes closest to a lane.
fn open_lanes(side: &Side, dial: impl Fn() -> Result<Socket>) -> Result<()> {
    side.meet()?;
    if side.role() == Role::Asker {
        side.measure_trips(|_| dial())?;
    }
    side.meet()
}

fn leave_idle(side: &Side, dial: impl Fn() -> Result<Socket>) -> Result<()> {
    let lanes = if side.role() == Role::Asker { IDLE_LANES } else { 0 };
    let _idle: Vec<Socket> = side.measure_idle(IDLE_LANES, || {
        let idle = (0..lanes).map(|_| dial()).collect::<Result<_>>()?;
        // The other side accepts them on its own.
        thread::sleep(SETTLING);
        Ok(idle)
    })?;
    side.meet()
}

const SETTLING: Duration = Duration::from_millis(50);

/// Each takes some of the descriptors that a process may have by default.
const LANES_MAX: usize = 100;
const IDLE_LANES: usize = 25;

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
