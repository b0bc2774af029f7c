//! What the kernel says, done.
//!
//! Never decides: an effect is carried out, or Linux refuses it and the kernel is told. A process that does not read is
//! noted in `doomed`, because the kernel must not be called from here.

use std::{
    collections::{BTreeMap, VecDeque},
    os::fd::OwnedFd,
    sync::Arc,
};

use keyway_abi::{Event, Farewell, LaneEntry, Listing, ProcessNumber, Reply};
use keyway_kernel::{
    Answer, Call, Descriptor, Door, Effect, Kernel, LinuxSignal, Outgoing, PairKind, Refusal, Task, Token,
};
use keyway_sys::{
    Errno, Error,
    epoll::{Epoll, Interest},
    process::{self, Signal},
    socket::{self, PairUse},
};

use crate::{
    closing::{Closers, Closing},
    deposits::Deposits,
    memories::{BrokerPage, Memories, refusal},
    session::{self, Parcel, Session},
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Hands {
    pub(crate) epoll: Epoll,
    pub(crate) sessions: BTreeMap<ProcessNumber, Session>,
    pub(crate) deposits: Deposits,
    pub(crate) closers: Closers,
    pub(crate) doomed: Vec<(ProcessNumber, Farewell)>,
    memories: Memories,
    pages: BTreeMap<(ProcessNumber, u32), BrokerPage>,
    devices: BTreeMap<Token, Device>,
    /// Devices that are dropped and still on their way to someone.
    leaving: Vec<(Device, Closing)>,
    /// The far ends of pairs, between being made and being handed on.
    pair_ends: BTreeMap<(ProcessNumber, PairKind), Arc<OwnedFd>>,
    last_device: u64,
}

/// A descriptor that a process handed in.
#[derive(Debug)]
struct Device {
    fd: Arc<OwnedFd>,
    /// The user of that process.
    uid: u32,
    from: ProcessNumber,
}

/// Which descriptor of a session epoll speaks of. Tokens of sessions are even steps above these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    Listener,
    Bell,
    Terminations,
    Timer,
    Reloads,
    Socket(ProcessNumber),
    Pidfd(ProcessNumber),
}

impl Watched {
    pub(crate) fn token(self) -> u64 {
        match self {
            Watched::Listener => 0,
            Watched::Bell => 1,
            Watched::Terminations => 2,
            Watched::Timer => 3,
            Watched::Reloads => 4,
            Watched::Socket(process) => process.0 << 2 | 3,
            Watched::Pidfd(process) => process.0 << 2 | 2 | 1 << 63,
        }
    }

    pub(crate) fn of(token: u64) -> Watched {
        let process = ProcessNumber((token & !(1 << 63)) >> 2);
        match token {
            0 => Watched::Listener,
            1 => Watched::Bell,
            2 => Watched::Terminations,
            3 => Watched::Timer,
            4 => Watched::Reloads,
            token if token >> 63 == 1 => Watched::Pidfd(process),
            _ => Watched::Socket(process),
        }
    }
}

impl Hands {
    pub(crate) fn new(epoll: Epoll, deposits: Deposits, closers: Closers) -> Self {
        Hands {
            epoll,
            sessions: BTreeMap::new(),
            deposits,
            closers,
            leaving: Vec::new(),
            doomed: Vec::new(),
            memories: Memories::default(),
            pages: BTreeMap::new(),
            devices: BTreeMap::new(),
            pair_ends: BTreeMap::new(),
            last_device: 0,
        }
    }

    /// Keeps a descriptor that a process handed in.
    pub(crate) fn keep_device(&mut self, fd: OwnedFd, from: ProcessNumber) -> Token {
        // The kernel's own tokens count up from 0; these count in the upper half.
        self.last_device += 1;
        let token = Token(1 << 63 | self.last_device);
        let uid = self.uid(from);
        self.devices.insert(token, Device { fd: Arc::new(fd), uid, from });
        token
    }

    /// Carries one effect out; what the kernel must be told of it goes to `answers`.
    pub(crate) fn execute(&mut self, kernel: &Kernel, effect: Effect, answers: &mut VecDeque<Answer>) {
        match effect {
            Effect::Send { to, frame, descriptors } => self.send(kernel, to, frame, &descriptors),
            Effect::CreateMemory { task, first, count, bytes, huge } => {
                let outcome = self.memories.create(first, count, bytes, huge);
                answers.push_back(Answer { task, outcome });
            }
            Effect::SealMemory { task, tokens, seals, bytes } => {
                let mut seal = tokens.iter().map(|token| self.memories.seal(*token, seals, bytes));
                let outcome = seal.find(Result::is_err).unwrap_or(Ok(()));
                answers.push_back(Answer { task, outcome });
            }
            Effect::FreezeMemory { task, token, process } => {
                if let Some(fd) = self.memories.writable(token) {
                    return self.closers.freeze(self.uid(process), fd, task);
                }
                let outcome = Err(Refusal::System(Errno::BADF.raw_os_error()));
                answers.push_back(Answer { task, outcome });
            }
            Effect::DropMemory { token } => self.memories.drop(token),
            Effect::DropDevice { task, token } => self.drop_device(task, token),
            Effect::CreatePage { task, process, page } => {
                let outcome = self.create_page(process, page);
                answers.push_back(Answer { task, outcome });
            }
            Effect::DropPage { process, page } => {
                self.pages.remove(&(process, page));
            }
            Effect::SetWord { process, page, index, value } => {
                if let Some(page) = self.pages.get(&(process, page)) {
                    page.set(index, value);
                }
            }
            Effect::CreatePair { task, process, kind } => {
                let outcome = self.create_pair(process, kind).map_err(refusal);
                answers.push_back(Answer { task, outcome });
            }
            Effect::Signal { task, process, signal } => {
                let outcome = self.signal(process, signal).map_err(refusal);
                answers.push_back(Answer { task, outcome });
            }
            Effect::EndSession { process, farewell } => self.end_session(process, farewell),
        }
    }

    /// Sends the last frame to a process that has no session, or no longer one.
    pub(crate) fn bid_farewell(socket: &OwnedFd, farewell: Farewell) {
        if let Ok(bytes) = keyway_wire::encode_event(&Event::Farewell(farewell), 0) {
            // It may have gone, or not read: it is told what can be told.
            let _ = session::send(socket, &Parcel { bytes, descriptors: Vec::new(), is_event: true });
        }
    }

    fn send(&mut self, kernel: &Kernel, to: ProcessNumber, mut frame: Outgoing, descriptors: &[Descriptor]) {
        if let Outgoing::Reply(_, Reply::Listing(Listing::Lanes(lanes))) = &mut frame {
            for lane in lanes {
                self.look_into(kernel, lane);
            }
        }
        let mut found = Vec::with_capacity(descriptors.len());
        for descriptor in descriptors {
            match self.resolve(to, *descriptor) {
                Ok(fd) => found.push(fd),
                Err(error) => {
                    // Out of descriptors at the last moment: the request is refused instead of half answered. A session that
                    // cannot be welcomed ends.
                    if matches!(frame, Outgoing::Reply(_, Reply::Welcome(_))) {
                        let errno = error.raw_os_error();
                        return self.doomed.push((to, Farewell::SystemRefused { errno }));
                    }
                    tell_refused(&mut frame, &error);
                    found.clear();
                    break;
                }
            }
        }
        let count = found.len() as u16;
        let (door, bytes) = match &frame {
            Outgoing::Reply(Call { number, opcode, door }, reply) => {
                (*door, keyway_wire::encode_reply(*opcode, *number, reply, count))
            }
            Outgoing::Event(event) => (Door::Control, keyway_wire::encode_event(event, count)),
        };
        // INVARIANT: the kernel bounds its listings by LISTING_ENTRIES_MAX, which fits in a frame.
        let bytes = bytes.expect("every frame of the kernel's fits");
        let is_event = matches!(frame, Outgoing::Event(_));
        let parcel = Parcel { bytes, descriptors: found, is_event };
        let Some(session) = self.sessions.get_mut(&to) else { return };
        if door == Door::Deposit {
            if let Some(socket) = &session.deposit {
                // One reply a deposit: who does not read it misses it.
                let _ = session::send(socket.as_ref(), &parcel);
            }
            return;
        }
        match session.send(&self.epoll, parcel) {
            Ok(events) => self.count_events(to, events),
            Err(fault) => self.doomed.push((to, Farewell::Fault(fault))),
        }
    }

    /// A session's socket is writable again.
    pub(crate) fn flush(&mut self, process: ProcessNumber) {
        let Some(session) = self.sessions.get_mut(&process) else { return };
        let events = session.flush(&self.epoll);
        self.count_events(process, events);
        self.close_leaving();
    }

    fn count_events(&self, process: ProcessNumber, events: u32) {
        if let (1.., Some(page)) = (events, self.pages.get(&(process, 0))) {
            page.count_events(events);
        }
    }

    /// The descriptor that goes beside a frame.
    fn resolve(&mut self, to: ProcessNumber, descriptor: Descriptor) -> Result<Arc<OwnedFd>, Error> {
        let gone = Error { call: "dup", errno: Errno::BADF };
        match descriptor {
            Descriptor::Writable(token) => self.memories.writable(token).ok_or(gone),
            Descriptor::Readable(token) => self.memories.readable(token),
            Descriptor::Device(token) => {
                self.devices.get(&token).map(|device| Arc::clone(&device.fd)).ok_or(gone)
            }
            Descriptor::PairEnd(process, kind) => self.pair_ends.remove(&(process, kind)).ok_or(gone),
            Descriptor::Page(page) => self.pages.get_mut(&(to, page)).ok_or(gone)?.take_readable(),
        }
    }

    fn create_page(&mut self, process: ProcessNumber, number: u32) -> Result<(), Refusal> {
        self.pages.insert((process, number), BrokerPage::create()?);
        Ok(())
    }

    fn create_pair(&mut self, process: ProcessNumber, kind: PairKind) -> Result<(), Error> {
        let pair = match kind {
            PairKind::Session => socket::seqpacket_pair(PairUse::Session)?,
            PairKind::Deposit => socket::seqpacket_pair(PairUse::Deposit)?,
        };
        match kind {
            PairKind::Session => {
                let token = Watched::Socket(process).token();
                self.epoll.add(&pair.broker_end, token, Interest::Read)?;
                self.sessions.insert(process, Session::new(pair.broker_end, None, token));
            }
            PairKind::Deposit => {
                let socket = Arc::new(pair.broker_end);
                if let Some(session) = self.sessions.get_mut(&process) {
                    session.deposit = Some(Arc::clone(&socket));
                }
                self.deposits.watch(process, socket);
            }
        }
        self.pair_ends.insert((process, kind), Arc::new(pair.client_end));
        Ok(())
    }

    /// Sends a signal to a session's process, through its pidfd: never to a process that has its pid later. A process that the
    /// user of the session could not reach any more, because it has become another user's, is out of the broker's reach too,
    /// whatever the broker's own privilege; and so is the broker itself, which serves others.
    fn signal(&self, process: ProcessNumber, signal: LinuxSignal) -> Result<(), Error> {
        let refuse = |errno| Error { call: "pidfd_send_signal", errno };
        let session = self.sessions.get(&process).and_then(|session| session.bound.as_ref());
        let bound = session.ok_or(refuse(Errno::SRCH))?;
        if bound.pid == std::process::id() || !process::is_within_reach(&bound.pidfd, bound.uid)? {
            return Err(refuse(Errno::PERM));
        }
        let signal = match signal {
            LinuxSignal::Terminate => Signal::Terminate,
            LinuxSignal::Kill => Signal::Kill,
            LinuxSignal::Stop => Signal::Stop,
            LinuxSignal::Continue => Signal::Continue,
        };
        process::kill(&bound.pidfd, signal)
    }

    /// Whether the descriptor that came with a request is gone already: it was refused.
    pub(crate) fn is_dropped(&self, token: Token) -> bool {
        !self.devices.contains_key(&token)
    }

    /// The user of a process; nobody's before a confined child has spoken.
    pub(crate) fn uid(&self, process: ProcessNumber) -> u32 {
        let bound = self.sessions.get(&process).and_then(|session| session.bound.as_ref());
        bound.map_or(u32::MAX, |bound| bound.uid)
    }

    fn drop_device(&mut self, task: Task, token: Token) {
        if let Some(device) = self.devices.remove(&token) {
            let closing = Closing { task: Some(task), resumes: Some(device.from) };
            self.leaving.push((device, closing));
            self.close_leaving();
        }
    }

    /// Closes what was dropped, unless a frame that waits to be sent still has it: the last of them must not be closed here.
    fn close_leaving(&mut self) {
        for (device, closing) in std::mem::take(&mut self.leaving) {
            let Device { fd, uid, from } = device;
            match Arc::try_unwrap(fd) {
                Ok(fd) => self.closers.close(uid, fd, closing),
                Err(fd) => self.leaving.push((Device { fd, uid, from }, closing)),
            }
        }
    }

    fn end_session(&mut self, process: ProcessNumber, farewell: Option<Farewell>) {
        self.pair_ends.retain(|(of, _), _| *of != process);
        self.pages.retain(|(of, _), _| *of != process);
        self.deposits.forget(process);
        let Some(session) = self.sessions.remove(&process) else { return };
        let _ = self.epoll.delete(&session.socket);
        if let Some(bound) = &session.bound {
            let _ = self.epoll.delete(&bound.pidfd);
        }
        if let Some(farewell) = farewell {
            Self::bid_farewell(&session.socket, farewell);
        }
        drop(session);
        self.close_leaving();
    }

    /// What the two ends of a lane say of themselves. Only for people; nothing is decided by it.
    fn look_into(&self, kernel: &Kernel, entry: &mut LaneEntry) {
        let Some((ring, ack)) = kernel.lane_memories(entry.lane) else { return };
        let (Some([written, _]), Some([taken, messages])) =
            (self.memories.peek(ring), self.memories.peek(ack))
        else {
            return;
        };
        let waiting = written.wrapping_sub(taken);
        entry.waiting_bytes = (waiting <= entry.ring_bytes).then_some(waiting);
        entry.messages_taken = Some(messages);
    }
}

fn tell_refused(frame: &mut Outgoing, error: &Error) {
    let errno = error.raw_os_error();
    if let Outgoing::Reply(_, reply) = frame {
        *reply = Reply::Denied(keyway_abi::Denial::SystemRefused { errno });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_what_they_were_made_for() {
        for number in [2, 3, 77, 1 << 40] {
            let process = ProcessNumber(number);
            for watched in [Watched::Socket(process), Watched::Pidfd(process)] {
                assert_eq!(Watched::of(watched.token()), watched);
            }
        }
        for watched in
            [Watched::Listener, Watched::Bell, Watched::Terminations, Watched::Timer, Watched::Reloads]
        {
            assert_eq!(Watched::of(watched.token()), watched);
        }
    }

    #[test]
    fn a_process_that_its_user_cannot_reach_any_more_is_out_of_the_brokers_reach() {
        use std::process::{Child, Command, Stdio};
        let start = || Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let bell = Arc::new(keyway_sys::epoll::EventFd::new().unwrap());
        let deposits = Deposits::start(Arc::clone(&bell)).unwrap();
        let mut hands = Hands::new(Epoll::new().unwrap(), deposits, Closers::new(bell));
        let number = ProcessNumber(7);
        let stand_for = |hands: &mut Hands, child: &Child, uid| {
            let socket = socket::seqpacket_pair(PairUse::Session).unwrap().broker_end;
            let pid = child.id();
            let pidfd = process::pidfd_open(pid).unwrap();
            let bound = session::Bound { pid, uid, pidfd };
            hands.sessions.insert(number, Session::new(socket, Some(bound), 31));
        };
        let uid = rustix::process::getuid().as_raw();
        let (mut child, mut other) = (start(), start());
        // Whoever has this user now, its session began as another's.
        stand_for(&mut hands, &child, uid + 1);
        let refused = hands.signal(number, LinuxSignal::Kill).unwrap_err();
        assert_eq!(refused.errno, Errno::PERM);
        stand_for(&mut hands, &child, uid);
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success(), "nothing was done to it");
        assert_eq!(hands.signal(number, LinuxSignal::Kill).unwrap_err().errno, Errno::SRCH);
        assert_eq!(hands.signal(ProcessNumber(8), LinuxSignal::Kill).unwrap_err().errno, Errno::SRCH);
        stand_for(&mut hands, &other, uid);
        hands.signal(number, LinuxSignal::Kill).unwrap();
        assert!(!other.wait().unwrap().success());
    }
}
