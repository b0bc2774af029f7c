//! One connection of the seatd door: bytes in, requests out, messages back, and what ends it.
//!
//! # Invariants
//! 1. No more than one request is kept unread, and none is handed on before the one before is answered.
//! 2. Whatever is missing is missing until [`Connection::deadline`] at most.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    mem,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    time::{Duration, Instant},
};

use keyway_gui::seatd::{self, Malformed, Message, REQUEST_BYTES_MAX, Request};
use keyway_sys::{
    device,
    epoll::Interest,
    frame::{self, FRAME_FDS_MAX, Reception, Sent, Waiting},
};

use super::Ask;

/// How far somebody has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It may not be a compositor, and is not listened to.
    Refused,
    /// It has no session, or not yet.
    WithoutSeat,
    /// It has one.
    Seated,
}

/// How a client breaks the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Offence {
    /// Its bytes are no request.
    #[error("{0}")]
    Malformed(Malformed),
    /// It has sent descriptors, which nobody asks for.
    #[error("it has sent descriptors")]
    Descriptors,
    /// The rest of a request has not come.
    #[error("it has sent half a request, and no more for {} ms", HALF_PATIENCE.as_millis())]
    HalfRequest,
    /// It does not read what it is sent.
    #[error("it does not read: {OUTGOING_MAX} messages wait")]
    NotReading,
    /// It asks for what needs a seat, and has none.
    #[error("it asks for what needs an open seat")]
    NoSeat,
    /// It opens the seat again.
    #[error("it opens a seat that it has")]
    SeatTwice,
    /// It has not opened the seat in time.
    #[error("it has not opened the seat for {} s", SEAT_PATIENCE.as_secs())]
    Idle,
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ending {
    /// The other end is closed, or was turned away.
    #[error("it has left")]
    Left,
    /// It broke the protocol.
    #[error("{0}")]
    Offence(Offence),
    /// Linux refused something.
    #[error("{0}")]
    Linux(keyway_sys::Error),
}

impl From<Offence> for Ending {
    fn from(offence: Offence) -> Self {
        Ending::Offence(offence)
    }
}

/// How long the rest of a request may take.
const HALF_PATIENCE: Duration = Duration::from_secs(2);
/// How long somebody may be connected without a seat.
const SEAT_PATIENCE: Duration = Duration::from_secs(10);
/// How long somebody who was refused may take to read why.
const REFUSED_PATIENCE: Duration = Duration::from_secs(1);
/// LIMIT: messages that wait to be read.
const OUTGOING_MAX: usize = 32;

/// See the module.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    pub(super) pid: u32,
    pub(super) uid: u32,
    standing: Standing,
    /// Since when it has no seat.
    since: Instant,
    incoming: Vec<u8>,
    half_since: Option<Instant>,
    /// A request is with the bridge.
    is_asking: bool,
    outgoing: VecDeque<(Message, Option<OwnedFd>)>,
    /// What it has sent beside bytes.
    unwanted: Vec<OwnedFd>,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, (pid, uid): (u32, u32), standing: Standing) -> Self {
        Connection {
            socket,
            pid,
            uid,
            standing,
            since: Instant::now(),
            incoming: Vec::new(),
            half_since: None,
            is_asking: false,
            outgoing: VecDeque::new(),
            unwanted: Vec::new(),
        }
    }

    /// Whether the bridge was told of it.
    pub(super) fn is_known(&self) -> bool {
        self.standing != Standing::Refused
    }

    /// Takes what has come, at most as much as makes one request.
    pub(super) fn receive(&mut self) -> Result<(), Ending> {
        let mut buffer = [0; REQUEST_BYTES_MAX];
        let room = REQUEST_BYTES_MAX - self.incoming.len();
        let received =
            frame::receive_frame(&self.socket, &mut buffer[..room], FRAME_FDS_MAX, Waiting::DontWait);
        match received.map_err(Ending::Linux)? {
            Reception::Frame(received) => {
                self.incoming.extend_from_slice(&buffer[..received.bytes]);
                if received.fds_truncated || !received.fds.is_empty() {
                    self.unwanted = received.fds;
                    return Err(Offence::Descriptors.into());
                }
                Ok(())
            }
            Reception::WouldBlock => Ok(()),
            Reception::End => Err(Ending::Left),
        }
    }

    /// The next request that the bridge has to judge, if it is whole and the one before is answered. What needs no judging is
    /// answered here.
    pub(super) fn next_ask(&mut self) -> Result<Option<Ask>, Ending> {
        while !self.is_asking && self.standing != Standing::Refused {
            let decoded = seatd::decode(&self.incoming).map_err(Offence::Malformed)?;
            let Some((request, used)) = decoded else {
                let is_half = !self.incoming.is_empty();
                self.half_since = is_half.then(|| self.half_since.unwrap_or_else(Instant::now));
                return Ok(None);
            };
            let ask = match (self.standing, request) {
                (_, Request::Ping) => None,
                (Standing::Seated, Request::OpenSeat) => return Err(Offence::SeatTwice.into()),
                (_, Request::OpenSeat) => Some(Ask::OpenSeat),
                (Standing::Seated, request) => Some(ask(request)),
                _ => return Err(Offence::NoSeat.into()),
            };
            self.incoming.drain(..used);
            self.half_since = None;
            match ask {
                None => self.tell(Message::Pong, None),
                Some(ask) => {
                    self.is_asking = true;
                    return Ok(Some(ask));
                }
            }
        }
        Ok(None)
    }

    /// Has a message sent. Where it answers the request that is with the bridge, the next one is looked at after this.
    pub(super) fn tell(&mut self, message: Message, descriptor: Option<OwnedFd>) {
        match message {
            Message::DisableSeat | Message::EnableSeat | Message::Pong => {}
            _ => self.is_asking = false,
        }
        match message {
            Message::SeatOpened => self.standing = Standing::Seated,
            Message::SeatClosed => (self.standing, self.since) = (Standing::WithoutSeat, Instant::now()),
            _ => {}
        }
        self.outgoing.push_back((message, descriptor));
    }

    /// The bridge will not have it.
    pub(super) fn refuse(&mut self) {
        self.tell(Message::Error(keyway_sys::Errno::MFILE.raw_os_error()), None);
        (self.standing, self.since) = (Standing::Refused, Instant::now());
    }

    /// Sends what there is room for.
    pub(super) fn send(&mut self) -> Result<(), Ending> {
        while let Some((message, descriptor)) = self.outgoing.front() {
            let descriptors = descriptor.as_ref().map(AsFd::as_fd);
            // So few bytes are taken whole or not at all, also by a stream.
            let sent =
                frame::send_frame(&self.socket, &message.encode(), descriptors.as_slice(), Waiting::DontWait);
            match sent.map_err(Ending::Linux)? {
                Sent::Whole => drop(self.outgoing.pop_front()),
                Sent::WouldBlock if self.outgoing.len() > OUTGOING_MAX => {
                    return Err(Offence::NotReading.into());
                }
                Sent::WouldBlock => return Ok(()),
                Sent::Closed => return Err(Ending::Left),
            }
        }
        Ok(())
    }

    /// What to watch for.
    pub(super) fn interest(&self) -> Interest {
        let is_read = !self.is_asking && self.standing != Standing::Refused;
        match (is_read, self.outgoing.is_empty()) {
            (true, true) => Interest::Read,
            (true, false) => Interest::ReadWrite,
            (false, true) => Interest::End,
            (false, false) => Interest::Write,
        }
    }

    /// Until when something has to come; look again after each of the calls above.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due().map(|(deadline, _)| deadline)
    }

    /// Why it ends now, if its time is over.
    pub(super) fn late(&self, now: Instant) -> Option<Ending> {
        self.due().filter(|(deadline, _)| *deadline <= now).map(|(_, ending)| ending)
    }

    fn due(&self) -> Option<(Instant, Ending)> {
        let half = self.half_since.map(|since| (since + HALF_PATIENCE, Offence::HalfRequest.into()));
        let seat = match self.standing {
            Standing::Refused => Some((self.since + REFUSED_PATIENCE, Ending::Left)),
            // While it asks, it waits for the bridge, not the bridge for it.
            Standing::WithoutSeat if !self.is_asking => {
                Some((self.since + SEAT_PATIENCE, Offence::Idle.into()))
            }
            _ => None,
        };
        half.into_iter().chain(seat).min_by_key(|(deadline, _)| *deadline)
    }

    /// Its socket, and what it has sent that nobody wanted.
    pub(super) fn into_descriptors(mut self) -> (OwnedFd, Vec<OwnedFd>) {
        (self.socket, mem::take(&mut self.unwanted))
    }
}

/// A request as the bridge judges it. A path is only how a device is named: what it leads to is a number.
fn ask(request: Request<'_>) -> Ask {
    match request {
        Request::OpenSeat | Request::Ping => Ask::OpenSeat,
        Request::CloseSeat => Ask::CloseSeat,
        Request::OpenDevice(path) => {
            Ask::OpenDevice(device::number_below_dev(Path::new(OsStr::from_bytes(path))).ok())
        }
        Request::CloseDevice(number) => Ask::CloseDevice(number),
        Request::DisableSeat => Ask::PauseDone,
        Request::SwitchSession(number) => Ask::Switch(number),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
    };

    use super::*;

    fn connected(standing: Standing) -> (Connection, UnixStream) {
        let (own, other) = UnixStream::pair().unwrap();
        (Connection::new(own.into(), (7, 1000), standing), other)
    }

    fn request(opcode: u16, body: &[u8]) -> Vec<u8> {
        [&opcode.to_ne_bytes(), &(body.len() as u16).to_ne_bytes(), body].concat()
    }

    fn offence<T: std::fmt::Debug>(outcome: Result<T, Ending>) -> Offence {
        match outcome {
            Err(Ending::Offence(offence)) => offence,
            other => panic!("no offence: {other:?}"),
        }
    }

    #[test]
    fn one_request_at_a_time_is_handed_on_and_pings_are_answered_in_their_turn() {
        let (mut connection, mut other) = connected(Standing::WithoutSeat);
        let all = [request(7, &[]), request(1, &[]), request(7, &[]), request(5, &[])].concat();
        other.write_all(&all).unwrap();
        connection.receive().unwrap();
        assert_eq!(connection.next_ask().unwrap(), Some(Ask::OpenSeat));
        // It is with the bridge: nothing is read, nothing is answered.
        assert_eq!(connection.interest(), Interest::Write);
        connection.send().unwrap();
        assert_eq!(connection.interest(), Interest::End);
        assert_eq!(connection.next_ask().unwrap(), None);
        connection.tell(Message::SeatOpened, None);
        connection.tell(Message::EnableSeat, None);
        assert_eq!(connection.next_ask().unwrap(), Some(Ask::PauseDone));
        connection.send().unwrap();
        let expected = [Message::Pong, Message::SeatOpened, Message::EnableSeat, Message::Pong];
        let expected: Vec<u8> = expected.into_iter().flat_map(Message::encode).collect();
        let mut bytes = vec![0; expected.len()];
        other.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn what_needs_a_seat_is_an_offence_without_one_and_so_is_a_second_seat() {
        for body in [request(2, &[]), request(3, b"\x03\x00/a\0"), request(4, &[0; 4]), request(6, &[0; 4])] {
            let (mut connection, mut other) = connected(Standing::WithoutSeat);
            other.write_all(&body).unwrap();
            connection.receive().unwrap();
            assert_eq!(offence(connection.next_ask()), Offence::NoSeat);
        }
        let (mut connection, mut other) = connected(Standing::Seated);
        other.write_all(&request(1, &[])).unwrap();
        connection.receive().unwrap();
        assert_eq!(offence(connection.next_ask()), Offence::SeatTwice);
    }

    #[test]
    fn what_is_missing_has_a_deadline() {
        let (mut connection, mut other) = connected(Standing::WithoutSeat);
        let begun = connection.since;
        assert_eq!(connection.deadline(), Some(begun + SEAT_PATIENCE));
        assert!(connection.late(begun + SEAT_PATIENCE / 2).is_none());
        assert!(matches!(connection.late(begun + SEAT_PATIENCE), Some(Ending::Offence(Offence::Idle))));
        // Half a request; more of it does not begin the time anew.
        other.write_all(&request(4, &[0; 4])[..3]).unwrap();
        connection.receive().unwrap();
        connection.next_ask().unwrap();
        let half = connection.half_since.unwrap();
        other.write_all(&[0]).unwrap();
        connection.receive().unwrap();
        connection.next_ask().unwrap();
        let late = connection.late(half + HALF_PATIENCE);
        assert!(matches!(late, Some(Ending::Offence(Offence::HalfRequest))), "{late:?}");
        // With a seat nothing is missing.
        let (connection, _other) = connected(Standing::Seated);
        assert_eq!(connection.deadline(), None);
        // Who was refused has time to read it.
        let (mut connection, _other) = connected(Standing::WithoutSeat);
        connection.refuse();
        assert!(matches!(connection.late(connection.since + REFUSED_PATIENCE), Some(Ending::Left)));
    }

    #[test]
    fn who_does_not_read_is_let_go() {
        let (mut connection, mut other) = connected(Standing::Seated);
        other.set_nonblocking(true).unwrap();
        let pings = request(7, &[]).repeat(60);
        let ended = (0..1_000_000).find_map(|_| {
            let _ = other.write(&pings);
            connection.receive().and_then(|()| connection.next_ask()).and_then(|_| connection.send()).err()
        });
        assert!(matches!(ended, Some(Ending::Offence(Offence::NotReading))), "{ended:?}");
        assert!(connection.outgoing.len() <= OUTGOING_MAX + pings.len() / 4 + 1);
    }

    #[test]
    fn descriptors_are_an_offence_and_kept_to_be_closed() {
        let (mut connection, other) = connected(Standing::Seated);
        let ping = request(7, &[]);
        let sent = frame::send_frame(&other, &ping, &[other.as_fd()], Waiting::DontWait).unwrap();
        assert_eq!(sent, Sent::Whole);
        assert_eq!(offence(connection.receive()), Offence::Descriptors);
        assert_eq!(connection.into_descriptors().1.len(), 1);
    }
}
