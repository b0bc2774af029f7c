//! The loop: readiness, kernel, effects.
//!
//! Each turn serves, for a short while, those who have had the least of the broker's time: at most one frame of each session.
//! Then come one step of the revocations under way, one of what is over by its time, and the end of one session that has to
//! end. So no session starves another, nor does a process or a user with many sessions.

use std::{
    collections::VecDeque,
    fs::File,
    os::fd::OwnedFd,
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, Sender},
    },
    time::{Duration, Instant},
};

use keyway_abi::{Farewell, Fault, Malformed, Payer, ProcessNumber, Quota, Request, limits::FRAME_BYTES_MAX};
use keyway_kernel::{Answer, Arrival, Call, Door, Effect, Effects, Kernel};
use keyway_sys::{
    Errno, Error, clock,
    epoll::{Epoll, EventFd, Interest, Ready},
    frame::{self, Received, Reception, Waiting},
    process,
    reloads::Reloads,
    socket::{self, RightsFilter},
    terminations::Terminations,
    timer::Timer,
};

use crate::{
    closing::{Closing, Did, STRAYS_MAX},
    deposits::Arrived,
    fairness::{Customer, Fairness, TURN},
    hands::{Hands, Watched},
    identity::Who,
    policy::{Policy, PolicyError, PolicyInForce, PolicySource},
    session::{Bound, Session},
    socket::Listener,
};

/// A broker that is ready to run.
#[derive(Debug)]
pub struct Broker {
    kernel: Kernel,
    hands: Hands,
    policy: Policy,
    listener: Option<Listener>,
    bell: Arc<EventFd>,
    orders: Option<Receiver<Order>>,
    answers: VecDeque<Answer>,
    /// Wakes the loop when something comes to its end.
    timer: Timer,
    /// What the timer is set to.
    timer_ns: Option<u64>,
    /// A descriptor in reserve, see `turn_away`.
    spare: Option<File>,
    /// Descriptors that processes can be given in all.
    descriptors: u32,
    reloading: Option<Reloading>,
    fairness: Fairness,
    /// Who has just begun a session.
    admitted: Option<Customer>,
    /// Room to write that is told once, and was not used yet.
    put_off: Vec<Ready>,
}

/// When the policy is read again, from where, and who is told.
#[derive(Debug)]
struct Reloading {
    reloads: Reloads,
    source: PolicySource,
    tell: fn(&Result<PolicyInForce, PolicyError>),
}

/// What the program asks of the broker's thread.
pub(crate) enum Order {
    /// Begin a session of this very process.
    Connect(Sender<Result<OwnedFd, Error>>),
    /// Stop.
    Stop,
}

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    Stop,
}

impl Broker {
    pub(crate) fn new(policy: Policy, listener: Option<Listener>) -> Result<Self, Error> {
        let bell = Arc::new(EventFd::new()?);
        let epoll = Epoll::new()?;
        epoll.add(bell.as_ref(), Watched::Bell.token(), Interest::Read)?;
        if let Some(listener) = &listener {
            epoll.add(listener.fd(), Watched::Listener.token(), Interest::Read)?;
        }
        let timer = Timer::new()?;
        epoll.add(&timer, Watched::Timer.token(), Interest::Read)?;
        let hands = Hands::new(epoll, &bell)?;
        let descriptors = descriptors()?;
        let mut kernel = Kernel::new(policy.limits().with_descriptors(descriptors));
        // Nobody waits for a name yet.
        drop(kernel.set_rules(clock::boot_ns(), policy.names().clone()));
        let spare = File::open("/dev/null").ok();
        let (answers, timer_ns) = (VecDeque::new(), None);
        Ok(Broker {
            kernel,
            hands,
            policy,
            listener,
            bell,
            orders: None,
            answers,
            timer,
            timer_ns,
            spare,
            descriptors,
            reloading: None,
            fairness: Fairness::default(),
            admitted: None,
            put_off: Vec::new(),
        })
    }

    /// From now on this policy holds: for whoever connects, and its rules for names and its limits for all. Who is connected
    /// keeps what it has.
    pub fn adopt(&mut self, policy: Policy) {
        self.feed(|kernel, now| kernel.set_rules(now, policy.names().clone()));
        self.kernel.set_limits(policy.limits().with_descriptors(self.descriptors));
        self.policy = policy;
    }

    /// The policy is read again from `source` whenever that is asked for, and `tell` learns how it went. The old one holds while
    /// the new one has a mistake.
    ///
    /// # Errors
    /// What Linux refuses.
    pub fn reload_on(
        &mut self,
        reloads: Reloads,
        source: PolicySource,
        tell: fn(&Result<PolicyInForce, PolicyError>),
    ) -> Result<(), Error> {
        self.hands.epoll.add(&reloads, Watched::Reloads.token(), Interest::Read)?;
        self.reloading = Some(Reloading { reloads, source, tell });
        Ok(())
    }

    fn reload(&mut self) {
        let Some(mut reloading) = self.reloading.take() else { return };
        // Requests that came together are one.
        while reloading.reloads.take().unwrap_or(false) {}
        let read = reloading.source.read();
        if let Ok(read) = &read {
            self.adopt(read.policy.clone());
            reloading.source = reloading.source.after(read);
        }
        (reloading.tell)(&read);
        self.reloading = Some(reloading);
    }

    /// Where its socket is; nothing without one, or for one that a service manager listens on.
    pub fn socket_path(&self) -> Option<&Path> {
        self.listener.as_ref()?.path()
    }

    pub(crate) fn accept_orders(&mut self, orders: Receiver<Order>) -> Arc<EventFd> {
        self.orders = Some(orders);
        Arc::clone(&self.bell)
    }

    /// Runs until a termination is asked for; then every process is told, and the socket is removed.
    ///
    /// # Errors
    /// What Linux refuses to the loop itself; nothing that a process does.
    pub fn run(mut self, terminations: &Terminations) -> Result<(), Error> {
        self.hands.epoll.add(terminations, Watched::Terminations.token(), Interest::Read)?;
        self.run_until_told()
    }

    pub(crate) fn run_until_told(&mut self) -> Result<(), Error> {
        let mut ready = Vec::new();
        while self.step(&mut ready)? == Next::GoOn {}
        self.stop();
        Ok(())
    }

    /// One turn. Waits only when nothing is to be done already.
    fn step(&mut self, ready: &mut Vec<Ready>) -> Result<Next, Error> {
        let timeout = if self.has_more_to_do() { Some(Duration::ZERO) } else { None };
        self.hands.epoll.wait(ready, timeout)?;
        self.hands.begin_turn();
        let next = self.serve(ready);
        self.on_time();
        if self.kernel.is_sweeping() {
            self.feed(Kernel::sweep);
        }
        if let Some((process, farewell)) = self.hands.next_doomed() {
            self.end(process, Some(farewell));
        }
        self.hands.close_dropped();
        Ok(next)
    }

    /// Serves those who are ready: first what belongs to no process, then whoever has had the least of the broker's time, until
    /// the turn is over. Whoever was not served is told of again.
    fn serve(&mut self, ready: &mut Vec<Ready>) -> Next {
        ready.append(&mut self.put_off);
        let mut next = Next::GoOn;
        let mut customers = Vec::with_capacity(ready.len());
        for ready in ready.drain(..) {
            match self.customer(ready) {
                Some(customer) => customers.push((customer, ready)),
                None if self.turn(ready) == Next::Stop => next = Next::Stop,
                None => {}
            }
        }
        customers.sort_by_key(|(customer, _)| self.fairness.used(*customer));
        let turn = Instant::now();
        for (customer, ready) in customers {
            let began = Instant::now();
            // At least one is served.
            if began.duration_since(turn) < TURN {
                self.turn(ready);
                self.fairness.charge(customer, began);
                if let Some(admitted) = self.admitted.take() {
                    self.fairness.charge(admitted, began);
                }
            } else if ready.writable {
                self.put_off.push(ready);
            }
        }
        let sessions = &self.hands.sessions;
        self.fairness.forget_absent(sessions.len(), || sessions.values().map(of).collect());
        next
    }

    /// Whose time it takes to serve what is ready; nobody's when it is the broker's own business.
    fn customer(&self, ready: Ready) -> Option<Customer> {
        match Watched::of(ready.token) {
            Watched::Listener => Some(Customer::Newcomers),
            Watched::Socket(process) | Watched::Pidfd(process) => self.hands.sessions.get(&process).map(of),
            Watched::Bell | Watched::Terminations | Watched::Timer | Watched::Reloads | Watched::Left(_) => {
                None
            }
        }
    }

    fn has_more_to_do(&self) -> bool {
        !self.put_off.is_empty()
            || self.kernel.is_sweeping()
            || self.hands.next_doomed().is_some()
            || self.is_something_due()
    }

    fn is_something_due(&self) -> bool {
        self.kernel.next_expiry_ns().is_some_and(|at| at <= clock::boot_ns())
    }

    /// Ends one thing that has come to its end, and sets the timer for what comes next.
    fn on_time(&mut self) {
        if self.is_something_due() {
            self.feed(Kernel::expire);
        }
        self.hands.retry(clock::boot_ns());
        let next = [self.kernel.next_expiry_ns(), self.hands.retry_ns()].into_iter().flatten().min();
        // It was set before, and nothing is refused a timer that is there.
        if next != self.timer_ns && self.timer.set(next).is_ok() {
            self.timer_ns = next;
        }
    }

    fn turn(&mut self, ready: Ready) -> Next {
        match Watched::of(ready.token) {
            Watched::Terminations => return Next::Stop,
            Watched::Listener => self.accept(),
            Watched::Bell => return self.on_bell(),
            Watched::Reloads => self.reload(),
            // What it stands for is done at the end of each turn.
            Watched::Timer => {
                let _ = self.timer.drain();
                self.timer_ns = None;
            }
            Watched::Socket(process) => {
                if ready.hangup {
                    self.hands.give_up(process);
                } else if ready.writable {
                    self.hands.flush(process);
                }
                if ready.readable || ready.hangup {
                    self.receive(process, Liveness::Unknown);
                }
            }
            Watched::Pidfd(process) => self.receive(process, Liveness::Dead),
            Watched::Left(number) => self.hands.look_left(number),
        }
        Next::GoOn
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let accepted = match socket::accept(listener.fd()) {
            Err(Error { errno: Errno::MFILE | Errno::NFILE, .. }) => return self.turn_away(),
            accepted => accepted,
        };
        let Ok(Some(fd)) = accepted else { return };
        if socket::set_broker_options(&fd).is_ok() {
            self.admit(fd);
        }
    }

    /// No descriptor is left, although the kernel counts them: others in this process may have taken them. Whoever connects now is
    /// told so, with the one that is kept for this. Otherwise it would wait in the backlog, and the loop would be told of it
    /// for ever.
    fn turn_away(&mut self) {
        self.spare = None;
        if let Some(Ok(Some(fd))) = self.listener.as_ref().map(|listener| socket::accept(listener.fd())) {
            Hands::bid_farewell(&fd, Farewell::SystemRefused { errno: Errno::MFILE.raw_os_error() });
        }
        self.spare = File::open("/dev/null").ok();
    }

    /// A process that connected begins its session.
    fn admit(&mut self, fd: OwnedFd) {
        let (who, pidfd) = match Who::of_peer(&fd) {
            Ok(found) => found,
            // Or the process has gone already, and reads nothing.
            Err(error) => {
                let errno = error.raw_os_error();
                return Hands::bid_farewell(&fd, Farewell::SystemRefused { errno });
            }
        };
        // A connected socket's process is known once for all; each frame names its sender by credentials.
        let _ = socket::stop_pidfds(&fd);
        let (pid, uid) = (who.pid, who.uid);
        self.admitted = Some(Customer::Process { uid, pid });
        if let Some(farewell) = self.strays_farewell(uid).or_else(|| self.hands.unread_farewell(uid)) {
            return Hands::bid_farewell(&fd, farewell);
        }
        let identity = who.into();
        let standing = self.policy.standing(&identity);
        let arrival = Arrival { identity, own: standing.own, directory: standing.directory };
        let (number, effects) = self.kernel.on_connect(clock::boot_ns(), arrival);
        let effects: Vec<Effect> = effects.collect();
        let number = match number {
            Ok(number) => number,
            Err(farewell) => return Hands::bid_farewell(&fd, farewell),
        };
        let token = Watched::Socket(number).token();
        let watched = self
            .hands
            .epoll
            .add(&fd, token, Interest::Read)
            .and_then(|()| self.hands.epoll.add(&pidfd, Watched::Pidfd(number).token(), Interest::Read));
        self.hands.sessions.insert(number, Session::new(fd, Some(Bound { pid, uid, pidfd }), token));
        self.carry_out(effects);
        if let Err(error) = watched {
            self.end(number, Some(Farewell::SystemRefused { errno: error.raw_os_error() }));
        }
    }

    /// Why a user can have no further descriptors closed, while it cannot.
    fn strays_farewell(&mut self, uid: u32) -> Option<Farewell> {
        if self.hands.closers.is_full(uid) {
            // Some may be closed by now.
            self.on_closed();
        }
        let (used, max) = (self.hands.closers.strays(uid), STRAYS_MAX);
        let (quota, of) = (Quota::Descriptors, Payer::User);
        (used > max).then_some(Farewell::Full { quota, of, used: used.into(), max: max.into() })
    }

    /// Where Linux cannot refuse descriptors, a user that has too many waiting to be closed gets no more of them into the broker:
    /// the session to which they are sent ends, and they are closed with its socket. Why it ends, if it does.
    fn overflow(&mut self, process: ProcessNumber) -> Option<Farewell> {
        if self.hands.rights_filter == RightsFilter::On {
            return None;
        }
        let farewell = self.strays_farewell(self.hands.uid(process))?;
        let session = self.hands.sessions.get(&process)?;
        // Of a child that has not spoken yet a pidfd is asked for, beside which they cannot be told apart.
        let laden = session.bound.is_none() || frame::has_descriptors(&session.socket).unwrap_or(true);
        laden.then_some(farewell)
    }

    fn receive(&mut self, process: ProcessNumber, liveness: Liveness) {
        let Some(session) = self.hands.sessions.get(&process) else { return };
        if self.hands.is_doomed(process) || session.is_congested() && liveness == Liveness::Unknown {
            return;
        }
        if let Some(farewell) = self.overflow(process) {
            return self.end(process, Some(farewell));
        }
        let Some(session) = self.hands.sessions.get(&process) else { return };
        let mut buffer = [0; FRAME_BYTES_MAX + 1];
        match frame::receive_frame(&session.socket, &mut buffer, frame::FRAME_FDS_MAX, Waiting::DontWait) {
            Ok(Reception::Frame(received)) => self.on_frame(process, &buffer, received),
            // The frames that a process had sent are handled; only now has it died.
            Ok(Reception::WouldBlock) if liveness == Liveness::Dead => self.end(process, None),
            Ok(Reception::WouldBlock) => {}
            Ok(Reception::End) | Err(_) => self.end(process, None),
        }
    }

    fn on_frame(&mut self, process: ProcessNumber, buffer: &[u8], received: Received) {
        let descriptors = received.fds.len();
        let uid = self.hands.uid(process);
        for fd in received.fds {
            self.hands.closers.close(uid, fd, Closing::default());
        }
        let bytes = &buffer[..received.bytes];
        let farewell = match self.check_sender(process, received.credentials, received.pidfd) {
            Err(fault) => Err(Farewell::Fault(fault)),
            Ok(()) if descriptors > 0 || received.fds_truncated => {
                let count = descriptors as u32;
                Err(Farewell::Fault(Fault::DescriptorsSent { count }))
            }
            Ok(()) if received.truncated => {
                Err(Farewell::Malformed(Malformed::TooLong { bytes_max: FRAME_BYTES_MAX as u32 }))
            }
            Ok(()) => keyway_wire::decode_request(bytes, descriptors).map_err(Farewell::Malformed),
        };
        match farewell {
            Ok((head, request)) => {
                let call = Call { number: head.number, opcode: head.opcode, door: Door::Control };
                self.feed(|kernel, now| kernel.handle(now, process, call, request, None));
            }
            Err(farewell) => self.end(process, Some(farewell)),
        }
    }

    /// Whether the frame comes from the session's process. The first frame of a confined child says which that is.
    fn check_sender(
        &mut self,
        process: ProcessNumber,
        credentials: Option<socket::Credentials>,
        pidfd: Option<OwnedFd>,
    ) -> Result<(), Fault> {
        // Whoever has no number in this PID namespace has the number 0, and so has everyone else there.
        let credentials = credentials.filter(|found| found.pid != 0).ok_or(Fault::SenderUnknown)?;
        let Some(session) = self.hands.sessions.get_mut(&process) else { return Ok(()) };
        if let Some(bound) = &session.bound {
            if bound.pid == credentials.pid {
                return Ok(());
            }
            return Err(Fault::ForeignFrame { bound_pid: bound.pid, found_pid: credentials.pid });
        }
        let pidfd = pidfd.ok_or(Fault::SenderUnknown)?;
        let who = Who::of(credentials, &pidfd).map_err(|_| Fault::SenderUnknown)?;
        let token = Watched::Pidfd(process).token();
        if self.hands.epoll.add(&pidfd, token, Interest::Read).is_err() {
            return Err(Fault::SenderUnknown);
        }
        let _ = socket::stop_pidfds(&session.socket);
        session.bound = Some(Bound { pid: who.pid, uid: who.uid, pidfd });
        self.feed(|kernel, now| kernel.on_bind(now, process, who.into()));
        Ok(())
    }

    fn on_bell(&mut self) -> Next {
        let _ = self.bell.drain();
        // LIMIT: one of each process, as the next is received only after this.
        let mut handled = Vec::new();
        while let Some(arrived) = self.hands.deposits.poll_arrived() {
            let process = arrived.process;
            if self.on_deposit(arrived) == Deposited::Kept {
                handled.push(process);
            }
        }
        for process in handled {
            self.hands.deposits.resume(process);
        }
        self.on_closed();
        // LIMIT: the requests whose reply waits.
        while let Some(answer) = self.hands.poll_made() {
            self.answers.push_back(answer);
            self.carry_out(Vec::new());
        }
        let mut next = Next::GoOn;
        while let Some(order) = self.orders.as_ref().and_then(|orders| orders.try_recv().ok()) {
            match order {
                Order::Stop => next = Next::Stop,
                Order::Connect(answer) => {
                    let pair = socket::seqpacket_pair(socket::PairUse::Session);
                    let end = pair.map(|pair| {
                        self.admit(pair.broker_end);
                        pair.client_end
                    });
                    // Whoever asked may have given up.
                    let _ = answer.send(end);
                }
            }
        }
        next
    }

    /// LIMIT: what was given to be closed or frozen; a process that hands in more waits until this has come.
    fn on_closed(&mut self) {
        let mut resumes = Vec::new();
        while let Some(did) = self.hands.closers.poll_done() {
            let answer = match did {
                Did::Close(Closing { task, resumes: resumed }) => {
                    resumes.extend(resumed);
                    task.map(|task| Answer { task, outcome: Ok(()) })
                }
                Did::Freeze(answer) => Some(answer),
            };
            if let Some(answer) = answer {
                self.answers.push_back(answer);
                self.carry_out(Vec::new());
            }
        }
        for process in resumes {
            self.hands.deposits.resume(process);
        }
    }

    fn on_deposit(&mut self, arrived: Arrived) -> Deposited {
        let Arrived { process, bytes, truncated, mut descriptors, credentials } = arrived;
        let count = descriptors.len();
        let device = if count == 1 && !truncated { descriptors.pop() } else { None };
        let uid = self.hands.uid(process);
        for fd in descriptors {
            self.hands.closers.close(uid, fd, Closing::default());
        }
        let pid = self.hands.sessions.get(&process).and_then(|session| session.bound.as_ref());
        let farewell = match (pid, credentials) {
            (Some(bound), Some(credentials)) if bound.pid != 0 && bound.pid == credentials.pid => {
                keyway_wire::decode_request(&bytes, count).map_err(Farewell::Malformed)
            }
            (Some(bound), Some(found)) => {
                Err(Farewell::Fault(Fault::ForeignFrame { bound_pid: bound.pid, found_pid: found.pid }))
            }
            _ => Err(Farewell::Fault(Fault::SenderUnknown)),
        };
        let farewell = farewell.and_then(|(head, request)| match (&device, &request) {
            (Some(_), Request::Deposit(_)) => Ok((head, request)),
            _ => Err(Farewell::Fault(Fault::DepositEmpty { found: count as u32 })),
        });
        match (farewell, device) {
            (Ok((head, request)), Some(fd)) => {
                let token = self.hands.keep_device(fd, process);
                let call = Call { number: head.number, opcode: head.opcode, door: Door::Deposit };
                self.feed(|kernel, now| kernel.handle(now, process, call, request, Some(token)));
                // Or it is refused, and the next one waits until it is closed.
                if self.hands.is_dropped(token) { Deposited::Closing } else { Deposited::Kept }
            }
            (Err(farewell), device) => {
                if let Some(fd) = device {
                    self.hands.closers.close(uid, fd, Closing::default());
                }
                self.end(process, Some(farewell));
                Deposited::Closing
            }
            (Ok(_), None) => Deposited::Kept,
        }
    }

    fn end(&mut self, process: ProcessNumber, farewell: Option<Farewell>) {
        self.feed(|kernel, now| kernel.on_end(now, process, farewell));
        // A session that the kernel never knew, or has forgotten, goes as well.
        let mut none = VecDeque::new();
        self.hands.execute(&self.kernel, Effect::EndSession { process, farewell }, &mut none);
    }

    /// Gives the kernel one input and carries out what it says, also about what Linux answered to that.
    fn feed(&mut self, input: impl FnOnce(&mut Kernel, u64) -> Effects<'_>) {
        let effects: Vec<Effect> = input(&mut self.kernel, clock::boot_ns()).collect();
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            self.hands.execute(&self.kernel, effect, &mut self.answers);
        }
        while let Some(answer) = self.answers.pop_front() {
            let effects: Vec<Effect> = self.kernel.on_answer(clock::boot_ns(), answer).collect();
            for effect in effects {
                self.hands.execute(&self.kernel, effect, &mut self.answers);
            }
        }
    }

    fn stop(&mut self) {
        while let Some(process) = self.hands.sessions.keys().next().copied() {
            self.end(process, Some(Farewell::Stopping));
        }
        self.hands.close_dropped();
        self.listener.take();
    }
}

/// Whose session it is.
fn of(session: &Session) -> Customer {
    let process = |bound: &Bound| Customer::Process { uid: bound.uid, pid: bound.pid };
    session.bound.as_ref().map_or(Customer::Newcomers, process)
}

/// What became of a descriptor that was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deposited {
    Kept,
    /// It was refused.
    Closing,
}

/// The descriptors that this process can still have for others: an eighth, and some more, is left for what is on its way and for
/// the program around an embedded broker.
fn descriptors() -> Result<u32, Error> {
    let free = process::descriptor_limit().saturating_sub(process::open_descriptors()?);
    let usable = free.saturating_sub(free / 8 + DESCRIPTORS_RESERVE);
    Ok(u32::try_from(usable).unwrap_or(u32::MAX))
}

/// Descriptors that processes are not charged for: the loop's own, and those beside frames.
const DESCRIPTORS_RESERVE: u64 = 24;

/// What is known of a process when its socket is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Liveness {
    Unknown,
    Dead,
}

#[cfg(test)]
mod odd_frames;
#[cfg(test)]
mod tests;
