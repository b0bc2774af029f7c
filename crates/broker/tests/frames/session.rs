//! A session with a broker, spoken by hand: nothing is hidden, nothing is checked for the speaker.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use keyway_abi::{
    DefaultActions, Event, Farewell, Fault, Handle, Listing, PROTOCOL_VERSION, ProcessEntry, ProcessNumber,
    Reply, Request, SessionStart, limits::FRAME_BYTES_MAX, request,
};
use keyway_sys::{
    frame::{self, Reception, Sent, Waiting},
    socket,
};
use keyway_wire::Incoming;

/// Longer than anything here takes, also on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// See the module.
pub(crate) struct Session {
    pub(crate) socket: OwnedFd,
    pub(crate) events: VecDeque<Event>,
    start: Option<SessionStart>,
    last_number: u32,
}

/// What came.
pub(crate) enum Heard {
    Frame(Incoming, Vec<OwnedFd>),
    End,
}

impl Session {
    /// Over this socket, without a word.
    pub(crate) fn over(socket: OwnedFd) -> Self {
        Session { socket, events: VecDeque::new(), start: None, last_number: 0 }
    }

    /// Connects, without a word.
    pub(crate) fn silent(path: &Path) -> Self {
        Self::over(socket::connect(path).unwrap())
    }

    /// Connects and says hello.
    pub(crate) fn open(path: &Path) -> Self {
        let mut session = Self::silent(path);
        session.greet();
        session
    }

    /// Says hello.
    pub(crate) fn greet(&mut self) {
        let (reply, descriptors) = self.ask(hello());
        let Reply::Welcome(start) = reply else { panic!("no welcome: {reply:?}") };
        assert_eq!(descriptors.len(), 1, "the first broker page is beside the welcome");
        self.start = Some(start);
    }

    pub(crate) fn number(&self) -> ProcessNumber {
        self.start.as_ref().unwrap().process
    }

    pub(crate) fn own(&self) -> Handle {
        self.start.as_ref().unwrap().own.unwrap()
    }

    pub(crate) fn directory(&self) -> Handle {
        self.start.as_ref().unwrap().directory.unwrap()
    }

    /// The bytes of a request, with the next number.
    pub(crate) fn frame(&mut self, request: impl Into<Request>) -> Vec<u8> {
        self.last_number += 1;
        keyway_wire::encode_request(self.last_number, &request.into(), 0).unwrap()
    }

    /// Sends bytes as one frame.
    pub(crate) fn send(&self, bytes: &[u8]) {
        assert_eq!(frame::send_frame(&self.socket, bytes, &[], Waiting::Block).unwrap(), Sent::Whole);
    }

    /// Asks, and waits for the answer.
    pub(crate) fn ask(&mut self, request: impl Into<Request>) -> (Reply, Vec<OwnedFd>) {
        let bytes = self.frame(request);
        self.send(&bytes);
        loop {
            match self.hear() {
                Heard::Frame(Incoming::Reply(number, reply), descriptors) if number == self.last_number => {
                    return (reply, descriptors);
                }
                Heard::Frame(Incoming::Reply(..), _) => {}
                Heard::Frame(Incoming::Event(event), _) => self.events.push_back(event),
                Heard::End => panic!("the session ended instead of an answer; events {:?}", self.events),
            }
        }
    }

    /// Asks for something that makes a capability.
    pub(crate) fn create(&mut self, request: impl Into<Request>) -> (Handle, Vec<OwnedFd>) {
        match self.ask(request) {
            (Reply::Capability(created), descriptors) => (created.handle, descriptors),
            (other, _) => panic!("no capability: {other:?}"),
        }
    }

    /// The next thing that comes.
    pub(crate) fn hear(&self) -> Heard {
        self.hear_within(PATIENCE).expect("nothing was said")
    }

    /// What comes within a time, if anything does.
    pub(crate) fn hear_within(&self, timeout: Duration) -> Option<Heard> {
        let mut buffer = [0; FRAME_BYTES_MAX];
        let deadline = Instant::now() + timeout;
        while !socket::wait_readable(&self.socket, Some(deadline - Instant::now())).unwrap() {
            if Instant::now() >= deadline {
                return None;
            }
        }
        match frame::receive_frame(&self.socket, &mut buffer, 16, Waiting::DontWait).unwrap() {
            Reception::WouldBlock => None,
            Reception::End => Some(Heard::End),
            Reception::Frame(received) => {
                let bytes = &buffer[..received.bytes];
                let incoming = keyway_wire::decode_incoming(bytes, received.fds.len()).unwrap();
                Some(Heard::Frame(incoming, received.fds))
            }
        }
    }

    /// Why the broker ended the session. It is the last frame.
    pub(crate) fn farewell(&mut self) -> Farewell {
        loop {
            match self.hear() {
                Heard::Frame(Incoming::Event(Event::Farewell(farewell)), _) => {
                    assert!(matches!(self.hear(), Heard::End), "something came after the farewell");
                    note(farewell);
                    return farewell;
                }
                Heard::Frame(..) => {}
                Heard::End => panic!("the session ended without a word"),
            }
        }
    }

    /// Requests are answered.
    pub(crate) fn is_served(&mut self) {
        let (reply, _) = self.ask(request::ListOwn { after: Handle::NONE });
        assert!(matches!(reply, Reply::Listing(Listing::Capabilities(_))), "{reply:?}");
    }

    /// All processes, once those that are on their way out have gone.
    pub(crate) fn processes(&mut self) -> Vec<ProcessEntry> {
        let directory = self.directory();
        let mut all: Vec<ProcessEntry> = Vec::new();
        loop {
            let after = all.last().map(|entry| entry.process);
            match self.ask(request::ListProcesses { directory, after }).0 {
                Reply::Listing(Listing::Processes(part)) if part.is_empty() => return all,
                Reply::Listing(Listing::Processes(part)) => all.extend(part),
                other => panic!("no listing: {other:?}"),
            }
        }
    }
}

/// Notes why a session has ended.
fn note(farewell: Farewell) {
    keyway_provoked::note(&farewell, "");
    match farewell {
        Farewell::Malformed(malformed) => keyway_provoked::note(&malformed, ""),
        // Linux itself refuses descriptors since 6.16: a list of what was noted must not depend on that.
        Farewell::Fault(Fault::DescriptorsSent { .. }) => {}
        Farewell::Fault(fault) => keyway_provoked::note(&fault, ""),
        _ => {}
    }
}

/// The first request of a session.
pub(crate) fn hello() -> Request {
    request::Hello {
        version_min: PROTOCOL_VERSION,
        version_max: PROTOCOL_VERSION,
        default_actions: DefaultActions::Refused,
    }
    .into()
}
