//! A Unix seqpacket socket pair, blocking: what the kernel offers for messages.
//!
//! Where a scenario is about connections, sockets that are found by a path: what any system needs at least that begins
//! with a connection. Several senders share one end; several receivers have a connection each.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use rustix::net::{
    self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};

use crate::{
    Result,
    payload::{Content, LAST},
    place::Place,
    scenario::{Kind, Scenario, Waiting},
    side::{Port, Role, Side},
    systems::{Rank, System},
};

pub(crate) struct Seqpacket;

impl System for Seqpacket {
    fn name(&self) -> &'static str {
        "seqpacket"
    }

    fn rank(&self) -> Rank {
        Rank::Peer
    }

    fn offers(&self, scenario: Scenario) -> bool {
        match scenario.kind {
            Kind::RoundTrip(waiting) => waiting != Waiting::Spinning,
            Kind::OneWay => scenario.batch == 1,
            Kind::Lanes(_) | Kind::IdleLane | Kind::Bridge | Kind::Signal => false,
            _ => true,
        }
    }

    fn take_side(&self, side: &Side) -> Result<()> {
        match (side.scenario().kind, side.role()) {
            (Kind::Connect, Role::Asker) => connect(side),
            (Kind::Connect, Role::Answerer) => accept(side),
            (Kind::FanOut(count), Role::Asker) => {
                let listener = listen(side.place())?;
                side.meet()?;
                let sockets = (0..count).map(|_| net::accept(&listener));
                side.talk(Socket::over(sockets.collect::<std::result::Result<_, _>>()?, side.content())?)
            }
            (Kind::FanOut(_), Role::Answerer) => {
                side.meet()?;
                side.talk(Socket::over(vec![dial(side.place())?], side.content())?)
            }
            _ => side.talk(Socket::over(vec![side.socket().try_clone_to_owned()?], side.content())?),
        }
    }
}

/// The asker connects and sends a message, over and over, each time anew.
fn connect(side: &Side) -> Result<()> {
    side.meet()?;
    let trip = |number| {
        let mut socket = Socket::over(vec![dial(side.place())?], side.content())?;
        socket.send(number)?;
        Ok(socket)
    };
    side.measure_trips(trip)?;
    trip(LAST)?;
    side.meet()
}

fn accept(side: &Side) -> Result<()> {
    let listener = listen(side.place())?;
    side.meet()?;
    while Socket::over(vec![net::accept(&listener)?], side.content())?.receive()? != LAST {}
    side.meet()
}

fn address(place: &Place) -> Result<SocketAddrUnix> {
    let path: PathBuf = place.directory().join("seqpacket.sock");
    // Of an earlier run, if there is one.
    let _ = std::fs::remove_file(&path);
    Ok(SocketAddrUnix::new(path)?)
}

fn socket() -> Result<OwnedFd> {
    Ok(net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

fn listen(place: &Place) -> Result<OwnedFd> {
    let listener = socket()?;
    net::bind(&listener, &address(place)?)?;
    net::listen(&listener, 16)?;
    Ok(listener)
}

fn dial(place: &Place) -> Result<OwnedFd> {
    let socket = socket()?;
    net::connect(&socket, &SocketAddrUnix::new(place.directory().join("seqpacket.sock"))?)?;
    Ok(socket)
}

/// One end, or the sender's end of several.
struct Socket {
    sockets: Vec<OwnedFd>,
    content: Content,
    buffer: Vec<u8>,
}

impl Socket {
    fn over(sockets: Vec<OwnedFd>, content: Content) -> Result<Self> {
        for socket in &sockets {
            // A message must fit into it whole; four of a large one, so that neither side waits for each. Without
            // privilege the system's own limit holds, and then large messages have no cell.
            let bytes = (4 * content.bytes).max(SOCKET_BYTES_MIN);
            sockopt::set_socket_send_buffer_size_force(socket.as_fd(), bytes)
                .or_else(|_| sockopt::set_socket_send_buffer_size(socket.as_fd(), bytes))?;
        }
        Ok(Self { sockets, content, buffer: vec![0; content.bytes] })
    }
}

/// What Linux gives a socket by default.
const SOCKET_BYTES_MIN: usize = 212_992;

impl Port for Socket {
    fn send(&mut self, number: u64) -> Result<()> {
        self.content.fill(&mut self.buffer, number);
        for socket in &self.sockets {
            net::send(socket, &self.buffer, SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<u64> {
        let (received_bytes, _) = net::recv(&self.sockets[0], &mut self.buffer[..], RecvFlags::empty())?;
        self.content.judge(&self.buffer[..received_bytes])
    }
}
