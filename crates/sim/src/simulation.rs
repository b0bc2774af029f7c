//! One run: processes come, act and die, the broker works, and every promise is checked after each step.

use std::{
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use keyway_abi::{ProcessNumber, Request, Rights};
use keyway_kernel::{Arrival, Call, Door, Identity, Limits, NameRule, NameRules, Subject, Token};

use crate::{
    broker::{Broker, News},
    journal::{Hash, Input, Journal},
    process::{Frame, Process},
    promises::Broken,
    random::Random,
};

/// Processes that run at a time, confined children besides.
const PROCESSES: usize = 6;
/// Inputs that a run may take to come to rest after its last step.
const SETTLE_STEPS: usize = 200_000;

/// How a run went that kept every promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Steps taken.
    pub steps: usize,
    /// Effects that the kernel asked for.
    pub effects: u64,
    /// The hash of the kernel's state just before all processes were ended.
    pub state: u64,
    /// The hash of all effects in order.
    pub asked: u64,
    /// How often each reply, denial and event was sent.
    pub sent: BTreeMap<String, u64>,
    /// How many inputs there were until then.
    pub inputs: usize,
    /// All inputs.
    pub journal: Journal,
}

/// A promise was broken, or an invariant of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed that repeats it.
    pub seed: u64,
    /// At which step.
    pub step: usize,
    /// What was broken.
    pub what: String,
    /// All inputs until then; replaying it reaches the same state.
    pub journal: Journal,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { seed, step, what, journal } = self;
        writeln!(f, "seed {seed} at step {step}: {what}")?;
        writeln!(f, "repeat it with KEYWAY_SIM_SEED={seed}; the last inputs of {}:", journal.entries.len())?;
        let first = journal.entries.len().saturating_sub(12);
        journal.entries[first..].iter().try_for_each(|entry| writeln!(f, "  {:?}", entry.input))
    }
}

impl std::error::Error for Failure {}

/// See the crate.
#[derive(Debug)]
pub struct Simulation {
    random: Random,
    broker: Broker,
    processes: BTreeMap<ProcessNumber, Process>,
    news: Vec<News>,
    calls: u32,
    pids: u32,
    devices: u64,
}

impl Simulation {
    /// Runs `steps` steps from `seed`, lets everything settle, ends every process, and finds the kernel vacant.
    ///
    /// # Errors
    /// [`Failure`] when a promise or an invariant was broken.
    pub fn run(seed: u64, steps: usize) -> Result<Report, Failure> {
        let mut simulation = Simulation::new(seed);
        let mut step = 0;
        let mut state = (0, 0);
        // A broken invariant of the kernel is a panic; it becomes a failure with its seed.
        let run = catch_unwind(AssertUnwindSafe(|| {
            while step < steps {
                simulation.step()?;
                step += 1;
            }
            simulation.settle()?;
            state = (Hash::of(&simulation.broker.kernel).0, simulation.broker.journal.entries.len());
            simulation.finish()
        }));
        let broken = match run {
            Ok(Ok(())) => None,
            Ok(Err(Broken(what))) => Some(what),
            Err(panic) => Some(panic_text(&*panic)),
        };
        let Broker { journal, effects, effects_hash, sent, .. } = simulation.broker;
        if let Some(what) = broken {
            return Err(Failure { seed, step, what, journal });
        }
        let (state, inputs) = state;
        Ok(Report { seed, steps, effects, state, asked: effects_hash.0, sent, inputs, journal })
    }

    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut broker = Broker::new();
        // A third of all runs have a Linux that refuses nothing.
        broker.refuses = [0, 40, 10][random.below(3)];
        Simulation {
            random,
            broker,
            processes: BTreeMap::new(),
            news: vec![],
            calls: 0,
            pids: 100,
            devices: 1 << 40,
        }
    }

    fn step(&mut self) -> Result<(), Broken> {
        if self.processes.len() < 2 {
            self.connect()?;
        }
        self.act();
        // Now one side is faster, now the other.
        for _ in 0..self.random.below(4) {
            self.handle_frame()?;
        }
        for _ in 0..self.random.below(3) {
            self.read();
        }
        match self.random.below(100) {
            0..=49 => self.answer()?,
            50..=79 => self.commit_message(),
            80..=83 if self.processes.len() < PROCESSES => self.connect()?,
            84 => self.kill(),
            85 => self.change_policy()?,
            _ => {}
        }
        if self.broker.kernel.is_sweeping() && self.random.once_in(3) {
            self.give(ProcessNumber(0), Input::Sweep)?;
        }
        if self.broker.is_expiry_due() && self.random.once_in(3) {
            self.give(ProcessNumber(0), Input::Expire)?;
        }
        Ok(())
    }

    /// No process does anything new; what is under way comes to its end.
    fn settle(&mut self) -> Result<(), Broken> {
        for _ in 0..SETTLE_STEPS {
            let frames = self.processes.values().any(|process| !process.outbox.is_empty() || process.dead);
            if frames {
                self.handle_frame()?;
            } else if !self.broker.waiting().is_empty() {
                self.answer()?;
            } else if self.broker.kernel.is_sweeping() {
                self.give(ProcessNumber(0), Input::Sweep)?;
            } else if self.broker.is_expiry_due() {
                self.give(ProcessNumber(0), Input::Expire)?;
            } else {
                return self.broker.promises.on_settled(self.broker.now_ns);
            }
        }
        Err(Broken("nothing settles".into()))
    }

    fn finish(&mut self) -> Result<(), Broken> {
        while let Some(number) = self.processes.keys().copied().nth(self.random.below(self.processes.len())) {
            self.give(number, Input::End(number, None))?;
        }
        self.settle()?;
        self.broker.promises.on_over()?;
        if self.broker.kernel.is_vacant() { Ok(()) } else { Err(Broken("the kernel is not vacant".into())) }
    }
}

/// One step of each sort.
impl Simulation {
    fn connect(&mut self) -> Result<(), Broken> {
        let mut identity = self.identity();
        let running: Vec<Identity> =
            self.processes.values().map(|process| process.identity.clone()).collect();
        if let (true, Some(again)) = (self.random.once_in(5), self.random.pick(&running)) {
            // A second session of a process that is there.
            identity = again.clone();
        }
        let few = self.random.once_in(8);
        let rights = if few { Rights::LOOKUP | Rights::WATCH } else { Rights::all() };
        let arrival = Arrival { identity: identity.clone(), own: rights, directory: rights };
        let number = self.give(ProcessNumber(0), Input::Connect(arrival))?;
        if let Some(number) = number.filter(|number| self.broker.is_there(*number)) {
            self.processes.insert(number, Process::new(number, identity, true));
        }
        Ok(())
    }

    fn act(&mut self) {
        if let Some(process) = choose(&mut self.processes, &mut self.random, |process| !process.dead) {
            process.act(&mut self.random, self.broker.now_ns);
        }
    }

    fn read(&mut self) {
        let reads = |process: &Process| !process.dead && !process.inbox.is_empty();
        let Some(process) = choose(&mut self.processes, &mut self.random, reads) else { return };
        let frames = 1 + self.random.below(8);
        (0..frames).for_each(|_| process.read());
    }

    /// One frame of one process. A dead process's frames are handled first, then its death.
    fn handle_frame(&mut self) -> Result<(), Broken> {
        let ready = |process: &Process| process.dead || !process.outbox.is_empty();
        let Some(process) = choose(&mut self.processes, &mut self.random, ready) else { return Ok(()) };
        let number = process.number;
        let Some(Frame { request, door }) = process.outbox.pop_front() else {
            return self.give(number, Input::End(number, None)).map(|_| ());
        };
        if !process.bound {
            process.bound = true;
            let identity = process.identity.clone();
            self.give(number, Input::Bind(number, identity))?;
        }
        self.calls += 1;
        let call = Call { number: self.calls, opcode: request.opcode(), door };
        if let Some(process) = self.processes.get_mut(&number) {
            process.on_sent(call, request.clone());
        }
        let deposits = matches!(request, Request::Deposit(_)) && !self.random.once_in(50);
        let device = (door == Door::Deposit && deposits).then(|| {
            self.devices += 1;
            Token(self.devices)
        });
        self.give(number, Input::Request(number, call, request, device)).map(|_| ())
    }

    fn answer(&mut self) -> Result<(), Broken> {
        let waiting = self.broker.waiting();
        let Some(owner) = self.random.pick(&waiting).copied() else { return Ok(()) };
        self.broker.answer(&mut self.random, owner, &mut self.news)?;
        self.spread();
        Ok(())
    }

    fn kill(&mut self) {
        if let Some(process) = choose(&mut self.processes, &mut self.random, |process| !process.dead) {
            process.dead = true;
        }
    }

    /// The broker reads another policy, while everything is in use.
    fn change_policy(&mut self) -> Result<(), Broken> {
        let mut limits = Limits::default();
        if self.random.once_in(3) {
            let few = self.random.below(24) as u32;
            limits.process.handles = few;
            limits.process.lanes = few / 4;
            limits.user.objects = few;
        }
        let mut rules = vec![];
        for _ in 0..self.random.below(3) {
            let subject = [Subject::Everyone, Subject::User(1000), Subject::Group(1001)];
            let verbs = [Rights::empty(), Rights::PUBLISH, Rights::LOOKUP, NameRules::VERBS];
            let (allow, deny) = (verbs[3 - self.random.below(2)], verbs[self.random.below(3)]);
            let subject = subject[self.random.below(3)].clone();
            rules.push(NameRule { prefix: String::new(), subject, allow, deny });
        }
        self.give(ProcessNumber(0), Input::Policy(NameRules::new(rules), limits)).map(|_| ())
    }

    /// A sender commits a message: its receiver learns of the ticket.
    fn commit_message(&mut self) {
        let sends = |process: &Process| !process.uncommitted.is_empty();
        let Some(sender) = choose(&mut self.processes, &mut self.random, sends) else { return };
        let Some(message) = sender.uncommitted.pop_front() else { return };
        self.processes.values_mut().for_each(|process| {
            if process.receives_on(message.lane) {
                process.messages.push_back(message);
            }
        });
    }

    fn give(&mut self, owner: ProcessNumber, input: Input) -> Result<Option<ProcessNumber>, Broken> {
        let arrived = self.broker.give(&mut self.random, owner, input, &mut self.news)?;
        self.spread();
        Ok(arrived)
    }

    /// Lets the processes have what the kernel's effects mean for them.
    fn spread(&mut self) {
        for news in std::mem::take(&mut self.news) {
            match news {
                News::Frame(to, frame) => {
                    if let Some(process) = self.processes.get_mut(&to) {
                        process.inbox.push_back(frame);
                    }
                }
                News::ChildStarted(number) => {
                    let identity = self.identity();
                    self.processes.insert(number, Process::new(number, identity, false));
                }
                News::Ended(number) => {
                    self.processes.remove(&number);
                }
            }
        }
    }

    fn identity(&mut self) -> Identity {
        self.pids += 1;
        let uid = 1000 + self.random.below(2) as u32;
        Identity {
            pid: self.pids,
            uid,
            gid: uid,
            groups: vec![uid + 1],
            executable: "/usr/bin/sim".into(),
            account: (self.pids.into(), 0),
        }
    }
}

/// One of the processes that fit.
fn choose<'p>(
    processes: &'p mut BTreeMap<ProcessNumber, Process>,
    random: &mut Random,
    fits: impl Fn(&Process) -> bool,
) -> Option<&'p mut Process> {
    let found: Vec<ProcessNumber> =
        processes.values().filter(|process| fits(process)).map(|process| process.number).collect();
    processes.get_mut(random.pick(&found)?)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    format!("the kernel panicked: {}", text.unwrap_or_default())
}
