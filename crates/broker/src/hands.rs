//! What the kernel says, done.
//!
//! Never decides: an effect is carried out, or Linux refuses it and the kernel is told. A session that has to end is noted in
//! `doomed`, because the kernel must not be called from here: once, with the first reason, and nothing more is sent to it.

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
    Errno, Error, clock, doorbell,
    epoll::{Epoll, EventFd, Interest},
    process::{self, Signal},
    socket::{self, PairUse, RightsFilter},
};

use crate::{
    closing::{Closers, Closing},
    deferred::{Deferrals, Deferred, Dropped},
    deposits::Deposits,
    freeing::Freeing,
    memories::{BrokerPage, Making, Memories, refusal},
    session::{self, Beside, Parcel, Session, Until},
    unread::Unread,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Hands {
    pub(crate) epoll: Epoll,
    pub(crate) sessions: BTreeMap<ProcessNumber, Session>,
    pub(crate) deposits: Deposits,
    pub(crate) closers: Closers,
    /// Whether Linux refuses descriptors on sessions' sockets.
    pub(crate) rights_filter: RightsFilter,
    doomed: BTreeMap<ProcessNumber, Farewell>,
    unread: Unread,
    /// Sessions for which Linux lets the broker send no descriptor, each since when.
    starved: BTreeMap<ProcessNumber, u64>,
    /// When they are looked after again.
    retry_ns: Option<u64>,
    deferrals: Deferrals,
    freeing: Arc<Freeing>,
    memories: Memories,
    pages: BTreeMap<(ProcessNumber, u32), BrokerPage>,
    devices: BTreeMap<Token, Device>,
    /// The far ends of pairs, between being made and being handed on.
    pair_ends: BTreeMap<(ProcessNumber, PairKind), Arc<OwnedFd>>,
    /// Ends of doorbells, between being made and being handed on.
    doorbells: BTreeMap<Token, Vec<OwnedFd>>,
    last_device: u64,
}

/// A descriptor that a process handed in.
#[derive(Debug)]
struct Device {
    fd: Arc<Deferred>,
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
    /// The broker's end of a session that is over, see `Unread`.
    Left(u64),
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
            // Counted from 1: above the five.
            Watched::Left(number) => (number + 1) << 2 | 1,
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
            token if token & 3 == 1 => Watched::Left((token >> 2) - 1),
            _ => Watched::Socket(process),
        }
    }
}

impl Hands {
    /// `bell` is rung when another thread has something for the loop.
    pub(crate) fn new(epoll: Epoll, bell: &Arc<EventFd>) -> Result<Self, Error> {
        let rights_filter = socket::seqpacket_pair(PairUse::Session)?.rights_filter;
        let deposits = Deposits::start(Arc::clone(bell))?;
        let closers = Closers::new(Arc::clone(bell));
        let freeing = Freeing::start(Arc::clone(bell))?;
        Ok(Hands {
            epoll,
            sessions: BTreeMap::new(),
            deposits,
            closers,
            rights_filter,
            doomed: BTreeMap::new(),
            unread: Unread::new(process::descriptor_limit()),
            starved: BTreeMap::new(),
            retry_ns: None,
            deferrals: Deferrals::new(Arc::clone(bell)),
            memories: Memories::new(Arc::clone(&freeing)),
            freeing,
            pages: BTreeMap::new(),
            devices: BTreeMap::new(),
            pair_ends: BTreeMap::new(),
            doorbells: BTreeMap::new(),
            last_device: 0,
        })
    }

    /// A turn of the loop begins.
    pub(crate) fn begin_turn(&mut self) {
        self.freeing.begin_turn();
    }

    /// What was put off and can be done now: an answer for the kernel.
    pub(crate) fn poll_made(&mut self) -> Option<Answer> {
        self.memories.poll_made()
    }

    /// Keeps a descriptor that a process handed in.
    pub(crate) fn keep_device(&mut self, fd: OwnedFd, from: ProcessNumber) -> Token {
        // The kernel's own tokens count up from 0; these count in the upper half.
        self.last_device += 1;
        let token = Token(1 << 63 | self.last_device);
        let fd = self.deferrals.defer(fd, self.uid(from));
        self.devices.insert(token, Device { fd, from });
        token
    }

    /// Carries one effect out; what the kernel must be told of it goes to `answers`.
    pub(crate) fn execute(&mut self, kernel: &Kernel, effect: Effect, answers: &mut VecDeque<Answer>) {
        match effect {
            Effect::Send { to, frame, descriptors } => self.send(kernel, to, frame, &descriptors),
            Effect::CreateMemory { task, first, count, bytes, huge } => {
                answers.extend(self.memories.create(Making { task, first, count, bytes, huge }));
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
            Effect::CreateDoorbell { task, token } => {
                let made = doorbell::pair().map(|ends| self.doorbells.insert(token, ends.into()));
                answers.push_back(Answer { task, outcome: made.map(drop).map_err(refusal) });
            }
            Effect::DropDoorbell { token } => drop(self.doorbells.remove(&token)),
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
        if self.doomed.contains_key(&to) || !self.sessions.contains_key(&to) {
            return self.discard(descriptors);
        }
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
                        return self.doom(to, Farewell::SystemRefused { errno });
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
        let sent = session.send(&self.epoll, parcel);
        self.after_sending(to, sent);
    }

    /// What was to go beside a frame that nobody gets.
    fn discard(&mut self, descriptors: &[Descriptor]) {
        for descriptor in descriptors {
            match *descriptor {
                Descriptor::PairEnd(process, kind) => drop(self.pair_ends.remove(&(process, kind))),
                Descriptor::DoorbellEnd(token) => drop(self.take_doorbell_end(token)),
                Descriptor::Writable(_)
                | Descriptor::Readable(_)
                | Descriptor::Page(_)
                | Descriptor::Device(_) => {}
            }
        }
    }

    /// A session's socket is writable again, or its process has read something.
    pub(crate) fn flush(&mut self, process: ProcessNumber) {
        let Some(session) = self.sessions.get_mut(&process) else { return };
        let sent = session.flush(&self.epoll);
        self.after_sending(process, sent);
    }

    /// Nobody is at the other end any more.
    pub(crate) fn give_up(&mut self, process: ProcessNumber) {
        let Some(session) = self.sessions.get_mut(&process) else { return };
        session.give_up(&self.epoll);
        self.after_sending(process, Ok(0));
    }

    fn after_sending(&mut self, process: ProcessNumber, sent: Result<u32, Farewell>) {
        match sent {
            Ok(events) => self.count_events(process, events),
            Err(farewell) => return self.doom(process, farewell),
        }
        let Some(session) = self.sessions.get(&process) else { return };
        let (uid, count) = (session.uid(), session.on_the_way());
        if session.until() == Some(Until::Allowance) {
            let now = clock::boot_ns();
            self.starved.entry(process).or_insert(now);
            self.retry_ns.get_or_insert(now + RETRY_NS);
        } else {
            self.starved.remove(&process);
        }
        self.unread.count(process, uid, count);
        if self.unread.is_over(uid) {
            self.relieve(uid);
        }
    }

    /// A user has too many descriptors on their way: of its sessions, the one with most of them ends.
    fn relieve(&mut self, uid: u32) {
        let most = self.most_on_the_way(Some(uid));
        if self.unread.is_over(uid)
            && let Some(process) = most
        {
            self.doom_for_unread(process);
        }
    }

    /// Looks again what the sessions of a user, or of all, have on their way, and which has most.
    fn most_on_the_way(&mut self, of: Option<u32>) -> Option<ProcessNumber> {
        let mut most = None;
        for process in self.unread.sessions(of) {
            let Some(session) = self.sessions.get_mut(&process) else { continue };
            session.look_unread();
            let count = session.on_the_way();
            self.unread.count(process, session.uid(), count);
            if count > 0 && most.is_none_or(|(_, least)| count > least) {
                most = Some((process, count));
            }
        }
        most.map(|(process, _)| process)
    }

    fn doom_for_unread(&mut self, process: ProcessNumber) {
        let Some(session) = self.sessions.get(&process) else { return };
        // Who reads is not to blame: what others of its user have left unread is in its way.
        let errno = Errno::TOOMANYREFS.raw_os_error();
        let refused = Farewell::SystemRefused { errno };
        let farewell = if session.until() == Some(Until::Allowance) || !session.is_congested() {
            refused
        } else {
            session.not_reading()
        };
        self.doom(process, farewell);
    }

    /// Why a user can begin no session, as long as its processes have read too little.
    pub(crate) fn unread_farewell(&mut self, uid: u32) -> Option<Farewell> {
        self.unread.farewell(uid)?;
        self.most_on_the_way(Some(uid));
        self.unread.farewell(uid)
    }

    /// When [`Hands::retry`] is to be called.
    pub(crate) fn retry_ns(&self) -> Option<u64> {
        self.retry_ns
    }

    /// Linux let the broker send no descriptor: tries again. When it has not for a while, who holds most of what is unread and
    /// takes nothing is ended, one each time; who has waited too long ends as well.
    pub(crate) fn retry(&mut self, now_ns: u64) {
        if self.retry_ns.is_none_or(|at| at > now_ns) {
            return;
        }
        self.retry_ns = None;
        for process in self.starved.keys().copied().collect::<Vec<_>>() {
            self.flush(process);
        }
        let late = self.starved.iter().filter(|(_, since)| now_ns.saturating_sub(**since) > STARVED_NS_MAX);
        for process in late.map(|(process, _)| *process).collect::<Vec<_>>() {
            self.doom_for_unread(process);
        }
        let Some(oldest) = self.starved.values().min() else { return };
        self.retry_ns = Some(now_ns + RETRY_NS);
        if now_ns.saturating_sub(*oldest) < PATIENCE_NS {
            return;
        }
        let stuck = self.unread.sessions(None).into_iter().filter_map(|process| {
            let session = self.sessions.get(&process)?;
            let takes_nothing = matches!(session.until(), Some(Until::Read | Until::Room));
            takes_nothing.then_some((session.on_the_way(), process))
        });
        if let Some((_, process)) = stuck.max() {
            self.doom_for_unread(process);
        }
    }

    /// A session has to end, for this reason if there is none yet.
    pub(crate) fn doom(&mut self, process: ProcessNumber, farewell: Farewell) {
        let Some(session) = self.sessions.get_mut(&process) else { return };
        self.doomed.entry(process).or_insert(farewell);
        session.give_up(&self.epoll);
        self.unread.count(process, session.uid(), session.on_the_way());
        self.starved.remove(&process);
    }

    /// Whether a session has to end.
    pub(crate) fn is_doomed(&self, process: ProcessNumber) -> bool {
        self.doomed.contains_key(&process)
    }

    /// The next session that has to end. It stays until it has.
    pub(crate) fn next_doomed(&self) -> Option<(ProcessNumber, Farewell)> {
        self.doomed.first_key_value().map(|(process, farewell)| (*process, *farewell))
    }

    fn count_events(&self, process: ProcessNumber, events: u32) {
        if let (1.., Some(page)) = (events, self.pages.get(&(process, 0))) {
            page.count_events(events);
        }
    }

    /// The descriptor that goes beside a frame.
    fn resolve(&mut self, to: ProcessNumber, descriptor: Descriptor) -> Result<Beside, Error> {
        let gone = Error { call: "dup", errno: Errno::BADF };
        match descriptor {
            Descriptor::Writable(token) => self.memories.writable(token).map(Beside::Memory).ok_or(gone),
            Descriptor::Readable(token) => self.memories.readable(token).map(Beside::Memory),
            Descriptor::Device(token) => {
                let device = self.devices.get(&token).ok_or(gone)?;
                Ok(Beside::Device(Arc::clone(&device.fd)))
            }
            Descriptor::PairEnd(process, kind) => {
                self.pair_ends.remove(&(process, kind)).map(Beside::Own).ok_or(gone)
            }
            Descriptor::DoorbellEnd(token) => {
                self.take_doorbell_end(token).map(Arc::new).map(Beside::Own).ok_or(gone)
            }
            Descriptor::Page(page) => {
                self.pages.get_mut(&(to, page)).ok_or(gone)?.take_readable().map(Beside::Own)
            }
        }
    }

    fn take_doorbell_end(&mut self, token: Token) -> Option<OwnedFd> {
        let ends = self.doorbells.get_mut(&token)?;
        let end = ends.pop();
        if ends.is_empty() {
            self.doorbells.remove(&token);
        }
        end
    }

    fn create_page(&mut self, process: ProcessNumber, number: u32) -> Result<(), Refusal> {
        self.pages.insert((process, number), BrokerPage::create()?);
        Ok(())
    }

    fn create_pair(&mut self, process: ProcessNumber, kind: PairKind) -> Result<(), Error> {
        // The one before is closed with what waits in it, which nobody is charged for.
        if kind == PairKind::Deposit && self.closers.is_full(self.uid(process)) {
            return Err(Error { call: "socketpair", errno: Errno::MFILE });
        }
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
                let uid = self.uid(process);
                let gone = Error { call: "socketpair", errno: Errno::SRCH };
                let session = self.sessions.get_mut(&process).ok_or(gone)?;
                let socket = self.deferrals.defer(pair.broker_end, uid);
                session.deposit = Some(Arc::clone(&socket));
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
        self.sessions.get(&process).map_or(u32::MAX, Session::uid)
    }

    fn drop_device(&mut self, task: Task, token: Token) {
        if let Some(Device { fd, from }) = self.devices.remove(&token) {
            fd.tell(Closing { task: Some(task), resumes: Some(from) });
        }
    }

    /// Has closed what nobody holds any more.
    pub(crate) fn close_dropped(&mut self) {
        while let Some(Dropped { fd, uid, closing }) = self.deferrals.poll_dropped() {
            self.closers.close(uid, fd, closing);
        }
    }

    /// Closes the broker's end of a session, in which descriptors can wait if Linux does not refuse them.
    fn close_session(&mut self, socket: OwnedFd, uid: u32) {
        match self.rights_filter {
            RightsFilter::On => drop(socket),
            RightsFilter::Missing => self.closers.close(uid, socket, Closing::default()),
        }
    }

    fn end_session(&mut self, process: ProcessNumber, farewell: Option<Farewell>) {
        for kind in [PairKind::Session, PairKind::Deposit] {
            self.pair_ends.remove(&(process, kind));
        }
        // As many as this process has, however many there are.
        while let Some((key, _)) = self.pages.range((process, 0)..=(process, u32::MAX)).next() {
            let key = *key;
            self.pages.remove(&key);
        }
        let Some(mut session) = self.sessions.remove(&process) else { return };
        self.doomed.remove(&process);
        self.starved.remove(&process);
        self.unread.forget(process);
        if session.deposit.is_some() {
            self.deposits.forget(process);
        }
        let _ = self.epoll.delete(&session.socket);
        if let Some(bound) = &session.bound {
            let _ = self.epoll.delete(&bound.pidfd);
        }
        // Before the farewell, which nobody has read yet.
        let (uid, unread) = (session.uid(), session.look_unread());
        if let Some(farewell) = farewell {
            Self::bid_farewell(&session.socket, farewell);
        }
        let Session { socket, .. } = session;
        if unread == 0 {
            return self.close_session(socket, uid);
        }
        let token = |number| Watched::Left(number).token();
        if let Some(socket) = self.unread.leave(&self.epoll, token, (socket, uid, unread)) {
            self.close_session(socket, uid);
        }
    }

    /// Something became of the broker's end of a session that is over.
    pub(crate) fn look_left(&mut self, number: u64) {
        if let Some((socket, uid)) = self.unread.look(&self.epoll, number) {
            self.close_session(socket, uid);
        }
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

/// How long after Linux has let the broker send no descriptor it tries again.
const RETRY_NS: u64 = 20_000_000;
/// How long those who take nothing are borne with while others wait for that.
const PATIENCE_NS: u64 = 200_000_000;
/// How long a session waits for it.
const STARVED_NS_MAX: u64 = 2_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_what_they_were_made_for() {
        for number in [2, 3, 77, 1 << 40] {
            let process = ProcessNumber(number);
            for watched in [Watched::Socket(process), Watched::Pidfd(process), Watched::Left(number - 1)] {
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
        let bell = Arc::new(EventFd::new().unwrap());
        let mut hands = Hands::new(Epoll::new().unwrap(), &bell).unwrap();
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

    #[test]
    fn each_end_of_a_doorbell_goes_to_one_and_what_nobody_gets_is_closed() {
        let bell = Arc::new(EventFd::new().unwrap());
        let mut hands = Hands::new(Epoll::new().unwrap(), &bell).unwrap();
        let (kernel, task, mut answers) = (Kernel::default(), Task(1), VecDeque::new());
        let make = |hands: &mut Hands, token, answers: &mut VecDeque<Answer>| {
            hands.execute(&kernel, Effect::CreateDoorbell { task, token }, answers);
            assert_eq!(answers.pop_front(), Some(Answer { task, outcome: Ok(()) }));
        };
        let (one, other) = (Token(5), Token(6));
        make(&mut hands, one, &mut answers);
        make(&mut hands, other, &mut answers);
        let number = ProcessNumber(7);
        let taken = hands.resolve(number, Descriptor::DoorbellEnd(one)).unwrap();
        let frame = Outgoing::Event(Event::Doorbell { peer: number });
        // Its session is over already.
        hands.send(&kernel, number, frame, &[Descriptor::DoorbellEnd(one)]);
        let rung = doorbell::ring(&taken, 1).unwrap();
        assert_eq!(rung, doorbell::Rung::Closed, "the end that nobody gets is closed");
        assert!(
            hands.resolve(number, Descriptor::DoorbellEnd(one)).is_err(),
            "there are two ends, and no more"
        );
        hands.execute(&kernel, Effect::DropDoorbell { token: other }, &mut answers);
        assert!(hands.doorbells.is_empty());
    }

    #[test]
    fn with_a_session_goes_what_is_its_own_and_nothing_of_others() {
        let bell = Arc::new(EventFd::new().unwrap());
        let mut hands = Hands::new(Epoll::new().unwrap(), &bell).unwrap();
        let of = [6, 7, 8].map(ProcessNumber);
        for process in of {
            hands.create_pair(process, PairKind::Session).unwrap();
            hands.create_page(process, 0).unwrap();
            hands.create_page(process, u32::MAX).unwrap();
        }
        hands.doom(of[1], Farewell::Stopping);
        hands.doom(of[1], Farewell::VersionUnsupported);
        assert_eq!(hands.next_doomed(), Some((of[1], Farewell::Stopping)), "the first reason counts");
        // It is ended twice: once because the kernel says so, and once for sure.
        for _ in 0..2 {
            hands.end_session(of[1], None);
            assert_eq!(hands.sessions.keys().copied().collect::<Vec<_>>(), [of[0], of[2]]);
            assert_eq!(hands.pages.len(), 4);
            assert_eq!(hands.pair_ends.len(), 2);
            assert!(hands.next_doomed().is_none());
        }
    }
}
