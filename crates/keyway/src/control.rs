//! The session with the broker: requests and replies, events, broker pages.
//!
//! One request at a time goes over the socket, whichever thread asks. Events that come in between are sorted to those
//! whom they concern ([`Routes`]); whoever sleeps on memory sleeps on the event word as well.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use keyway_abi::{
    DefaultActions, Denial, Event, Farewell, Handle, LaneEnd, LaneId, Name, PROTOCOL_VERSION, ProcessNumber,
    Reply, Request, SessionStart, WordPlace,
    layout::{EVENT_WORD, PAGE_BYTES, lane_bytes},
    limits::{FRAME_BYTES_MAX, FRAME_DESCRIPTORS_MAX},
    request,
};
use keyway_shm::{Access, Status, Word, broker_page};
use keyway_sys::{
    clock, doorbell,
    epoll::EventFd,
    frame::{self, Reception, Sent, Waiting},
    memory::{Mapping, Populate},
    socket,
};
use keyway_wire::Incoming;

use crate::{
    bells::{Bells, Ear},
    broker_clock::BrokerClock,
    error::Error,
};

/// The longest that a request waits for its reply.
pub(crate) const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// What has happened to this process's capabilities. LIMIT: the newest `NOTICES_MAX` are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Another process has put a capability into this one's table.
    CapabilityReceived {
        /// Its handle.
        handle: Handle,
        /// The kind of the object.
        kind: keyway_abi::Kind,
        /// What it may do.
        rights: keyway_abi::Rights,
    },
    /// A capability was taken back, or its object has ended.
    CapabilityLost {
        /// Its handle, stale from now on.
        handle: Handle,
    },
    /// A lane of this process has ended.
    LaneEnded {
        /// Which.
        lane: LaneId,
        /// Why.
        why: LaneEnd,
    },
}

const NOTICES_MAX: usize = 1024;

/// A lane that a sender has opened, as its receiver is told.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) event: Event,
    /// Nothing when it could not be mapped: then the lane is to be closed.
    pub(crate) ring: Option<Mapping>,
}

/// This session's end of a doorbell.
#[derive(Clone, Debug)]
pub(crate) struct Bell {
    /// Where the other session is rung.
    pub(crate) rings: Arc<OwnedFd>,
    /// Where the other session rings. The same, unless that is this session itself, which has both ends.
    pub(crate) hears: Arc<OwnedFd>,
}

/// Events, sorted.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    /// By queue: lanes opened.
    pub(crate) arrivals: BTreeMap<Handle, VecDeque<Arrival>>,
    /// By queue: acknowledgement memories that are no longer of use.
    pub(crate) acks_dropped: BTreeMap<Handle, Vec<u32>>,
    /// By the capability with which they were watched: processes that have ended.
    pub(crate) ended: BTreeSet<Handle>,
    /// Names that were waited for and can be looked up now.
    pub(crate) appeared: BTreeSet<Name>,
    pub(crate) notices: VecDeque<Notice>,
    /// Doorbells, by the session at the other end.
    bells: BTreeMap<ProcessNumber, Bell>,
    /// Sessions that have closed their end of the doorbell, or spoilt it, until the broker says that there is none.
    closed_bells: BTreeSet<ProcessNumber>,
    /// Rung when a signal is pending.
    signal_bells: Vec<Weak<EventFd>>,
    /// Woken with each event: who sleeps on descriptors does not see the event word.
    ears: Vec<Weak<Ear>>,
    farewell: Option<Farewell>,
    is_over: bool,
}

impl Routes {
    /// Has this rung each time that a signal is pending, for as long as somebody keeps it.
    pub(crate) fn add_signal_bell(&mut self, bell: &Arc<EventFd>) {
        self.signal_bells.retain(|bell| bell.strong_count() > 0);
        self.signal_bells.push(Arc::downgrade(bell));
    }

    /// Has this woken with each event, for as long as somebody keeps it.
    pub(crate) fn add_ear(&mut self, ear: &Arc<Ear>) {
        self.ears.retain(|ear| ear.strong_count() > 0);
        self.ears.push(Arc::downgrade(ear));
    }

    fn wake_ears(&self) {
        for ear in &self.ears {
            if let Some(ear) = ear.upgrade() {
                ear.wake();
            }
        }
    }

    /// An end of a doorbell has come: the only one, or the second where this session is its own peer.
    fn keep_bell(&mut self, peer: ProcessNumber, end: OwnedFd) {
        let end = Arc::new(end);
        let first = self.bells.get(&peer).map_or_else(|| Arc::clone(&end), |bell| Arc::clone(&bell.rings));
        self.bells.insert(peer, Bell { rings: first, hears: end });
        self.closed_bells.remove(&peer);
    }

    fn ring_signal_bells(&mut self) {
        // Linux refuses nothing here, and whoever sleeps on the event word wakes anyway.
        self.signal_bells.retain(|bell| bell.upgrade().is_some_and(|bell| bell.ring().is_ok()));
    }
}

#[derive(Debug)]
struct Line {
    last_number: u32,
    buffer: Box<[u8; FRAME_BYTES_MAX]>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Control {
    socket: OwnedFd,
    line: Mutex<Line>,
    routes: Mutex<Routes>,
    pages: Mutex<BTreeMap<u32, Mapping>>,
    event_word: Word,
    clock: BrokerClock,
    /// Lanes of which rings are awaited.
    pub(crate) bells: Bells,
    start: SessionStart,
}

impl Control {
    /// Says hello on a socket that leads to the broker.
    pub(crate) fn begin(socket: OwnedFd, default_actions: DefaultActions) -> Result<Self, Error> {
        let mut line = Line { last_number: 0, buffer: Box::new([0; FRAME_BYTES_MAX]) };
        let hello =
            request::Hello { version_min: PROTOCOL_VERSION, version_max: PROTOCOL_VERSION, default_actions };
        let mut farewell = None;
        let mut keep = |incoming, _| {
            if let Event::Farewell(reason) = incoming {
                farewell = Some(reason);
            }
        };
        let before_ns = clock::boot_ns();
        let answer = line.exchange(&socket, &hello.into(), &mut keep);
        let after_ns = clock::boot_ns();
        let (reply, descriptors) = match (answer, farewell) {
            (Err(Error::BrokerGone), Some(farewell)) => return Err(Error::SessionEnded(farewell)),
            (answer, _) => answer?,
        };
        let (Reply::Welcome(start), Some(page)) = (reply, descriptors.first()) else {
            return Err(Error::BrokerIncoherent { operation: "Hello" });
        };
        let page = Mapping::new(page, PAGE_BYTES, Access::Read, Populate::OnUse)?;
        let event_word = page.view().word(EVENT_WORD * 4);
        let event_word = event_word.ok_or(Error::BrokerIncoherent { operation: "Hello" })?;
        Ok(Control {
            socket,
            line: Mutex::new(line),
            routes: Mutex::new(Routes::default()),
            pages: Mutex::new(BTreeMap::from([(0, page)])),
            event_word,
            bells: Bells::default(),
            clock: BrokerClock::new(before_ns, start.now_ns, after_ns),
            start,
        })
    }

    /// The time at which something ends that lasts so long, as the broker counts.
    pub(crate) fn expiry_ns(&self, lifetime: Option<Duration>) -> Option<u64> {
        lifetime.map(|lifetime| self.clock.expiry_ns(lifetime))
    }

    /// How long it is until a moment of the broker's clock; zero if it has passed.
    pub(crate) fn remaining(&self, at_ns: u64) -> Duration {
        self.clock.remaining(at_ns)
    }

    /// Readable when something has come from the broker; for readiness only.
    pub(crate) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    pub(crate) fn start(&self) -> &SessionStart {
        &self.start
    }

    /// The directory. A process without one asks with a handle that names nothing, and is denied by the kernel.
    pub(crate) fn directory(&self) -> Handle {
        self.start.directory.unwrap_or(Handle::NONE)
    }

    /// Asks, and waits for the answer.
    pub(crate) fn request(&self, request: impl Into<Request>) -> Result<(Reply, Vec<OwnedFd>), Error> {
        let request = request.into();
        let mut keep = |event, descriptors| self.sort(event, descriptors);
        let mut line = locked(&self.line);
        let mut answer = line.exchange(&self.socket, &request, &mut keep);
        if let Ok((Reply::Doorbell { peer }, descriptors)) = &mut answer
            && let Some(end) = descriptors.pop()
        {
            // Before anybody can read of its end.
            self.routes().keep_bell(*peer, end);
        }
        drop(line);
        match answer {
            Err(Error::BrokerGone) => Err(self.over()),
            Ok((Reply::Denied(denial), _)) => Err(Error::Denied { operation: request.operation(), denial }),
            answer => answer,
        }
    }

    /// Asks for something whose reply says no more than that it is done.
    pub(crate) fn ask(&self, request: impl Into<Request>) -> Result<Vec<OwnedFd>, Error> {
        let request = request.into();
        let operation = request.operation();
        match self.request(request)? {
            (Reply::Done, descriptors) => Ok(descriptors),
            _ => Err(Error::BrokerIncoherent { operation }),
        }
    }

    /// Asks for something that makes a capability.
    pub(crate) fn create(
        &self,
        request: impl Into<Request>,
    ) -> Result<(keyway_abi::Created, Vec<OwnedFd>), Error> {
        let request = request.into();
        let operation = request.operation();
        match self.request(request)? {
            (Reply::Capability(created), descriptors) => Ok((created, descriptors)),
            _ => Err(Error::BrokerIncoherent { operation }),
        }
    }

    /// Reads every event that has come, without waiting.
    pub(crate) fn pump(&self) -> Result<(), Error> {
        let mut line = locked(&self.line);
        let keep = |event, descriptors| self.sort(event, descriptors);
        // LIMIT: the socket's own buffer bounds what can have come.
        loop {
            match line.receive(&self.socket) {
                Ok(Some((Incoming::Event(event), descriptors))) => keep(event, descriptors),
                // The reply to a request that nobody waits for any more.
                Ok(Some((Incoming::Reply(..), _))) => {}
                Ok(None) => return Ok(()),
                Err(Error::BrokerGone) => return Err(self.over()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Grows with each event. Read it first, then [`Control::pump`], then sleep on it with the value read.
    pub(crate) fn event_word(&self) -> &Word {
        &self.event_word
    }

    /// What the event word says now.
    #[inline]
    pub(crate) fn events_seen(&self) -> u32 {
        broker_page::events_seen(&self.event_word)
    }

    pub(crate) fn routes(&self) -> MutexGuard<'_, Routes> {
        locked(&self.routes)
    }

    /// Makes a doorbell to the session at the other end of a lane, if there is none, and says which session that is.
    pub(crate) fn doorbell(&self, lane: LaneId) -> Result<ProcessNumber, Error> {
        match self.request(request::Doorbell { lane }) {
            // If the other has asked at the same time, the event may still be on its way.
            Ok((Reply::Doorbell { peer }, _))
            | Err(Error::Denied { denial: Denial::DoorbellExists { peer }, .. }) => Ok(peer),
            Ok(_) => Err(Error::BrokerIncoherent { operation: "Doorbell" }),
            Err(error) => Err(error),
        }
    }

    /// This session's end of the doorbell to another, while it has one.
    pub(crate) fn bell(&self, peer: ProcessNumber) -> Option<Bell> {
        self.routes().bells.get(&peer).cloned()
    }

    /// Lets go of a doorbell of which the other end is closed, before the broker says so or although it never will: a socket
    /// that is at its end is readable for ever.
    pub(crate) fn drop_bell(&self, peer: ProcessNumber) {
        let mut routes = self.routes();
        if routes.bells.remove(&peer).is_some() {
            routes.closed_bells.insert(peer);
        }
    }

    /// This session's end of the doorbell to a peer, with which there is a lane; made if there is none.
    pub(crate) fn bell_for(&self, lane: LaneId, peer: ProcessNumber) -> Result<Bell, Error> {
        if let Some(bell) = self.bell(peer) {
            return Ok(bell);
        }
        if self.routes().closed_bells.contains(&peer) {
            // The broker has no other. Its end, if it has died, will be told.
            let closed = std::io::Error::from_raw_os_error(keyway_sys::Errno::CONNRESET.raw_os_error());
            return Err(Error::from_io("recv(doorbell)", &closed));
        }
        let peer = self.doorbell(lane)?;
        // If the other has asked, its event precedes the denial of ours.
        self.pump()?;
        self.bell(peer).ok_or(Error::BrokerIncoherent { operation: "Doorbell" })
    }

    /// Rings for a lane, if the doorbell is there. Whoever asks to be woken by it has got it before, and so has this session.
    pub(crate) fn ring(&self, peer: ProcessNumber, lane: LaneId) -> Result<(), Error> {
        let mut bell = self.bell(peer);
        if bell.is_none() {
            // Also what came before the end of the session counts.
            let pumped = self.pump();
            bell = self.bell(peer);
            if bell.is_none() {
                return pumped;
            }
        }
        if let Some(bell) = bell {
            // Full: who has so many rings to take is awake. Closed: who is gone is told of by the broker.
            let _ = doorbell::ring(&bell.rings, lane.0)?;
        }
        Ok(())
    }

    /// Takes the rings of a peer, and tells whom they concern.
    pub(crate) fn hear(&self, peer: ProcessNumber) -> Result<(), Error> {
        let Some(bell) = self.bell(peer) else { return Ok(()) };
        let mut lanes = Vec::new();
        let drained = doorbell::drain(&bell.hears, &mut lanes)?;
        for lane in lanes {
            self.bells.tell_rung(peer, LaneId(lane));
        }
        if drained.is_closed {
            self.drop_bell(peer);
        }
        if drained.may_be_more || drained.is_closed {
            self.bells.tell_all(peer);
        }
        Ok(())
    }

    /// The broker's word for a lane or mapping.
    pub(crate) fn status(&self, place: WordPlace) -> Result<Status, Error> {
        let pages = locked(&self.pages);
        let word = pages.get(&place.page).and_then(|page| page.view().word(usize::from(place.index) * 4));
        match word {
            Some(word) => Ok(Status::new(word, place.generation)),
            None => Err(Error::BrokerIncoherent { operation: "OpenLane" }),
        }
    }

    /// Fails once the broker has gone or ended the session, as often as it is asked: a descriptor of which one reads the end tells an
    /// event loop so once.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.is_over() { Err(self.over()) } else { Ok(()) }
    }

    /// Whether the broker has gone or ended the session.
    pub(crate) fn is_over(&self) -> bool {
        self.routes().is_over
    }

    fn over(&self) -> Error {
        let mut routes = self.routes();
        routes.is_over = true;
        match routes.farewell {
            Some(farewell) => Error::SessionEnded(farewell),
            None => Error::BrokerGone,
        }
    }

    fn sort(&self, event: Event, descriptors: Vec<OwnedFd>) {
        self.sort_out(event, descriptors);
        self.routes().wake_ears();
    }

    fn sort_out(&self, event: Event, mut descriptors: Vec<OwnedFd>) {
        match &event {
            Event::LaneOpened { queue, ring_bytes, huge, .. } => {
                let bytes = lane_bytes(*ring_bytes, *huge) as usize;
                let ring = descriptors.pop();
                let ring = ring.and_then(|fd| Mapping::new(fd, bytes, Access::Read, Populate::OnUse).ok());
                let queue = *queue;
                self.routes().arrivals.entry(queue).or_default().push_back(Arrival { event, ring });
            }
            Event::AcksDropped { acks } => {
                for (queue, ack) in acks {
                    self.routes().acks_dropped.entry(*queue).or_default().push(*ack);
                }
            }
            Event::LanesEnded { lanes, why } => {
                for lane in lanes {
                    self.bells.tell(*lane);
                    self.notice(Notice::LaneEnded { lane: *lane, why: *why });
                }
            }
            Event::CapabilityReceived { handle, kind, rights, .. } => {
                let (handle, kind, rights) = (*handle, *kind, *rights);
                self.notice(Notice::CapabilityReceived { handle, kind, rights });
            }
            Event::CapabilitiesLost { handles } => {
                for handle in handles {
                    self.notice(Notice::CapabilityLost { handle: *handle });
                }
            }
            Event::ProcessEnded { process } => drop(self.routes().ended.insert(*process)),
            Event::NameAppeared { name } => drop(self.routes().appeared.insert(name.clone())),
            Event::PageAdded { page } => {
                let mapped =
                    descriptors.pop().map(|fd| Mapping::new(fd, PAGE_BYTES, Access::Read, Populate::OnUse));
                if let Some(Ok(mapping)) = mapped {
                    locked(&self.pages).insert(*page, mapping);
                }
            }
            Event::PageDropped { page } => drop(locked(&self.pages).remove(page)),
            Event::SignalsPending => self.routes().ring_signal_bells(),
            Event::Doorbell { peer } => {
                if let Some(end) = descriptors.pop() {
                    self.routes().keep_bell(*peer, end);
                }
            }
            Event::DoorbellsEnded { peers } => {
                let mut routes = self.routes();
                for peer in peers {
                    routes.bells.remove(peer);
                    routes.closed_bells.remove(peer);
                }
            }
            Event::Farewell(farewell) => self.routes().farewell = Some(*farewell),
        }
    }

    fn notice(&self, notice: Notice) {
        let mut routes = self.routes();
        if routes.notices.len() >= NOTICES_MAX {
            routes.notices.pop_front();
        }
        routes.notices.push_back(notice);
    }
}

impl Line {
    fn exchange(
        &mut self,
        socket: &OwnedFd,
        request: &Request,
        keep: &mut impl FnMut(Event, Vec<OwnedFd>),
    ) -> Result<(Reply, Vec<OwnedFd>), Error> {
        self.last_number = self.last_number.wrapping_add(1);
        let number = self.last_number;
        // INVARIANT: no request is as long as a frame.
        let bytes = keyway_wire::encode_request(number, request, 0).expect("every request fits");
        let sent = frame::send_frame(socket, &bytes, &[], Waiting::Block)?;
        let deadline = Instant::now() + REPLY_TIMEOUT;
        // What had been sent to us can still say why the broker has gone.
        loop {
            match self.receive(socket)? {
                Some((Incoming::Reply(of, reply), descriptors)) if of == number => {
                    return Ok((reply, descriptors));
                }
                Some((Incoming::Reply(..), _)) => {}
                Some((Incoming::Event(event), descriptors)) => keep(event, descriptors),
                None if sent == Sent::Closed => return Err(Error::BrokerGone),
                None => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        let operation = request.operation();
                        return Err(Error::BrokerSilent { operation, waited: REPLY_TIMEOUT });
                    }
                    socket::wait_readable(socket, Some(left))?;
                }
            }
        }
    }

    fn receive(&mut self, socket: &OwnedFd) -> Result<Option<(Incoming, Vec<OwnedFd>)>, Error> {
        let buffer = &mut self.buffer[..];
        match frame::receive_frame(socket, buffer, FRAME_DESCRIPTORS_MAX, Waiting::DontWait)? {
            Reception::WouldBlock => Ok(None),
            Reception::End => Err(Error::BrokerGone),
            Reception::Frame(received) => {
                let bytes = &self.buffer[..received.bytes];
                let mut descriptors = received.fds;
                let mut count = descriptors.len();
                if received.fds_truncated {
                    // This process may have no more of them. Who needs one finds it missing, and the session goes on: others can
                    // make the broker send one, and must not end it by that.
                    descriptors.clear();
                    count = keyway_wire::descriptors_said(bytes);
                }
                let incoming = keyway_wire::decode_incoming(bytes, count);
                Ok(Some((incoming.map_err(Error::BrokerUnreadable)?, descriptors)))
            }
        }
    }
}

/// A lock that a panicking thread held is as good as any: nothing is left half done under these locks.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[cfg(feature = "embedded")]
mod tests;
