//! One of the processes of a run: what it shares with the others, and the measuring itself.
//!
//! There is one asker and one answerer or several. They have a seqpacket socket (standard input: the asker's end, and the
//! other one, which all answerers share), a shared memory and a place for files in common. The asker measures and prints
//! what it found, one JSON object, on standard output. Nothing here has a timeout: the controlling process kills all
//! sides when their time is over or one of them has failed.

use std::{
    fs::File,
    hint, io, mem,
    ops::Range,
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use clap::ValueEnum;
use rustix::{
    io::Errno,
    process::{self, Pid, Signal},
    thread::{self, CpuSet, futex},
};
use serde_json::{Map, Value, json};

use crate::{
    Result,
    latencies::Latencies,
    memory::{MEETING_LINE, Memory},
    payload::{Content, LAST, number, sender, sequence},
    place::Place,
    scenario::{Kind, Metric, Scenario},
    systems,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Asks and measures. In one direction it receives; of several receivers it is the sender.
    Asker,
    /// Answers. In one direction it sends, or is one of several receivers.
    Answerer,
}

/// What the controlling process tells a side on its command line.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Order {
    #[arg(long)]
    pub(crate) system: String,
    #[arg(long)]
    pub(crate) scenario: Scenario,
    #[arg(long)]
    pub(crate) role: Role,
    /// Which of the answerers.
    #[arg(long)]
    pub(crate) index: usize,
    #[arg(long)]
    pub(crate) cpu: usize,
    #[arg(long)]
    pub(crate) duration_ms: u64,
    /// The inherited descriptor of the shared memory.
    #[arg(long)]
    pub(crate) memory_fd: i32,
    #[arg(long)]
    pub(crate) place: String,
    #[arg(long)]
    pub(crate) controller_pid: i32,
}

/// One end of a conversation in messages. A message is known by its number; the port fills and judges it
/// ([`Content`]). Where there are several receivers, the asker's port sends to all of them.
pub(crate) trait Port {
    fn send(&mut self, number: u64) -> Result<()>;

    /// Waits for the next message and answers its number.
    fn receive(&mut self) -> Result<u64>;

    /// Sends messages together. Only a port that has a cheaper way than one by one says how, and only such a system offers
    /// scenarios with batches.
    fn send_batch(&mut self, numbers: Range<u64>) -> Result<()> {
        for number in numbers {
            self.send(number)?;
        }
        Ok(())
    }

    /// Waits for a message, and gives it and those that have come with it to `take`, at most `most`.
    fn receive_batch(&mut self, most: usize, take: &mut impl FnMut(u64) -> Result<()>) -> Result<()> {
        let _ = most;
        take(self.receive()?)
    }
}

pub(crate) struct Side {
    role: Role,
    index: usize,
    scenario: Scenario,
    duration: Duration,
    memory: &'static Memory,
    place: Place,
    input: io::Stdin,
}

/// Plays the side that the order describes.
pub(crate) fn take(order: Order) -> Result<()> {
    die_with(order.controller_pid)?;
    let mut cpus = CpuSet::new();
    cpus.set(order.cpu);
    thread::sched_setaffinity(None, &cpus)?;
    let system = systems::named(&order.system).ok_or("no such system")?;
    // Opened anew instead of adopting the descriptor's number, which would take unsafe code.
    let path = format!("/proc/self/fd/{}", order.memory_fd);
    let file = File::options().read(true).write(true).open(path)?;
    let side = Side {
        role: order.role,
        index: order.index,
        scenario: order.scenario,
        duration: Duration::from_millis(order.duration_ms),
        memory: Box::leak(Box::new(Memory::map(&file)?)),
        place: Place::named(order.place),
        input: io::stdin(),
    };
    system.take_side(&side)
}

/// Has the kernel kill this process when the controlling one ends, however that happens.
pub(crate) fn die_with(controller_pid: i32) -> Result<()> {
    process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if process::getppid() != Pid::from_raw(controller_pid) {
        return Err("the controlling process has ended".into());
    }
    Ok(())
}

impl Side {
    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// Which of the answerers this is, from 0.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    pub(crate) fn scenario(&self) -> Scenario {
        self.scenario
    }

    pub(crate) fn content(&self) -> Content {
        Content::of(self.scenario)
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// All zero at first. It stays mapped until the process ends.
    pub(crate) fn memory(&self) -> &'static Memory {
        self.memory
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    /// Returns when all sides have called it.
    pub(crate) fn meet(&self) -> Result<()> {
        let (here, held) = self.meeting();
        let meeting = held.load(Ordering::Acquire);
        let before = here.fetch_add(1, Ordering::AcqRel);
        if before as usize == self.scenario.answerers() {
            here.store(0, Ordering::Release);
            held.fetch_add(1, Ordering::AcqRel);
            futex::wake(held, futex::Flags::empty(), i32::MAX as u32)?;
            return Ok(());
        }
        while held.load(Ordering::Acquire) == meeting {
            match futex::wait(held, futex::Flags::empty(), meeting, None) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Whether another side has come to the next meeting already.
    pub(crate) fn is_awaited(&self) -> bool {
        self.meeting().0.load(Ordering::Acquire) > 0
    }

    /// How many have come to the next meeting, and how many meetings were held.
    fn meeting(&self) -> (&AtomicU32, &AtomicU32) {
        (self.memory.futex_word(MEETING_LINE), self.memory.futex_word(MEETING_LINE + 2))
    }

    /// The whole conversation of the scenario, over a port that is ready on this side. It begins with a meeting, and
    /// ends with one because the port may need this process until the last message has been received.
    pub(crate) fn talk(&self, mut port: impl Port) -> Result<()> {
        self.meet()?;
        match (self.scenario.kind, self.role) {
            (Kind::OneWay | Kind::Bulk(_), Role::Asker) => self.measure_rate::<1>(&mut port),
            (Kind::FanIn(_), Role::Asker) => self.measure_rate::<SENDERS_MAX>(&mut port),
            (Kind::OneWay | Kind::Bulk(_) | Kind::FanIn(_), Role::Answerer) => self.pour(&mut port),
            (Kind::FanOut(_), Role::Asker) => return self.measure_deliveries(&mut port),
            (Kind::FanOut(_), Role::Answerer) => Self::drain(&mut port),
            (_, Role::Asker) => {
                self.measure_trips(|sequence| ask(&mut port, sequence))?;
                ask(&mut port, LAST)
            }
            (_, Role::Answerer) => answer(&mut port),
        }?;
        self.meet()
    }

    /// Repeats `trip` for the run's duration and reports how long it took. Two readings of the clock enclose each
    /// trip; the cost of one is taken off again. What a trip returns is dropped outside of them.
    pub(crate) fn measure_trips<T>(&self, mut trip: impl FnMut(u64) -> Result<T>) -> Result<()> {
        let clock_ns = clock_cost_ns();
        let mut latencies = Latencies::new();
        let started = Instant::now();
        let warm = started + self.warm_up();
        let end = started + self.duration;
        let mut sleeps_before = None;
        for sequence in 0.. {
            let before = Instant::now();
            if sleeps_before.is_none() && before >= warm {
                sleeps_before = Some(sleeps());
                continue;
            }
            let returned = trip(sequence)?;
            let after = Instant::now();
            drop(returned);
            if sleeps_before.is_some() {
                latencies.record(((after - before).as_nanos() as u64).saturating_sub(clock_ns));
            }
            // A busy machine may have taken the whole duration from us: go on until there is something to report.
            if after >= end && latencies.total() >= TRIPS_MIN {
                break;
            }
        }
        let slept = sleeps() - sleeps_before.unwrap_or_default();
        let percentile = |per_mille| latencies.per_mille(per_mille).ok_or("no trip ended within the run");
        report(&[
            (Metric::P50, percentile(500)? as f64),
            (Metric::P99, percentile(990)? as f64),
            (Metric::P999, percentile(999)? as f64),
            (Metric::Sleeps, slept as f64 / latencies.total() as f64),
        ]);
        Ok(())
    }

    /// Has all sides do their part of so many idle lanes, and reports by how much their memory has grown for each, a page
    /// counted once. What `open` returns is kept until then.
    pub(crate) fn measure_idle<T>(&self, count: usize, open: impl FnOnce() -> Result<T>) -> Result<T> {
        let grown = self.memory.word(GROWN_LINE);
        self.meet()?;
        let before = resident_bytes()?;
        self.meet()?;
        let opened = open()?;
        self.meet()?;
        let own = resident_bytes()?.saturating_sub(before);
        if self.role == Role::Answerer {
            grown.fetch_add(own, Ordering::AcqRel);
        }
        self.meet()?;
        if self.role == Role::Asker {
            let all = own + grown.load(Ordering::Acquire);
            report(&[(Metric::Bytes, all as f64 / count as f64)]);
        }
        Ok(opened)
    }

    /// Receives until each sender's last message, each one expected and whole, and reports the rate. There are `N` senders
    /// at most: what is due from a single one stays in a register.
    fn measure_rate<const N: usize>(&self, port: &mut impl Port) -> Result<()> {
        let mut senders = [Expected::default(); N];
        let mut left = self.scenario.answerers();
        let mut seen: u64 = 0;
        let mut looked: u64 = 0;
        let started = Instant::now();
        let mut warm = None;
        while left > 0 {
            let mut take = |number| {
                let expected = senders.get_mut(sender(number)).ok_or("a sender that there is not")?;
                if expected.take(number)? {
                    left -= 1;
                } else {
                    seen += 1;
                }
                Ok(())
            };
            port.receive_batch(RECEIVE_MAX, &mut take)?;
            if warm.is_none() && seen - looked >= self.clock_stride() {
                looked = seen;
                if started.elapsed() >= self.warm_up() {
                    warm = Some((seen, Instant::now()));
                }
            }
        }
        let (skipped, since): (u64, Instant) = warm.unwrap_or((0, started));
        let rate = (seen - skipped) as f64 / since.elapsed().as_secs_f64();
        report(&[(Metric::Rate, rate), (Metric::Throughput, rate * self.scenario.bytes as f64)]);
        Ok(())
    }

    /// Sends for the run's duration.
    fn pour(&self, port: &mut impl Port) -> Result<()> {
        self.send_for_a_while(port, self.index, |_| ())?;
        port.send(number(self.index, LAST))
    }

    /// Sends to all receivers for the run's duration, waits until they have it all, and reports what they got. It holds
    /// the last meeting: what was sent has arrived when the receivers come to it.
    fn measure_deliveries(&self, port: &mut impl Port) -> Result<()> {
        let started = Instant::now();
        let mut warm = None;
        let sent = self.send_for_a_while(port, 0, |sent| {
            if warm.is_none() && started.elapsed() >= self.warm_up() {
                warm = Some((sent, Instant::now()));
            }
        })?;
        port.send(LAST)?;
        self.meet()?;
        let (skipped, since) = warm.unwrap_or((0, started));
        let deliveries = (sent - skipped) as f64 * self.scenario.answerers() as f64;
        report(&[(Metric::Deliveries, deliveries / since.elapsed().as_secs_f64())]);
        Ok(())
    }

    /// Answers how many messages it sent.
    fn send_for_a_while(
        &self,
        port: &mut impl Port,
        sender: usize,
        mut look: impl FnMut(u64),
    ) -> Result<u64> {
        let end = Instant::now() + self.duration;
        let batch = self.scenario.batch as u64;
        let mut sequence = 0;
        while Instant::now() < end {
            look(sequence);
            for _ in 0..self.clock_stride().div_ceil(batch) {
                if batch == 1 {
                    port.send(number(sender, sequence))?;
                } else {
                    port.send_batch(number(sender, sequence)..number(sender, sequence + batch))?;
                }
                sequence += batch;
            }
        }
        Ok(sequence)
    }

    /// Receives until the last message, each one expected and whole.
    fn drain(port: &mut impl Port) -> Result<()> {
        let mut expected = Expected::default();
        let mut is_last = false;
        while !is_last {
            let mut take = |number| {
                is_last = expected.take(number)?;
                Ok(())
            };
            port.receive_batch(RECEIVE_MAX, &mut take)?;
        }
        Ok(())
    }

    fn warm_up(&self) -> Duration {
        self.duration / 10
    }

    /// How many messages of a stream pass between two looks at the clock: few where they are large.
    fn clock_stride(&self) -> u64 {
        if self.scenario.bytes >= 1 << 14 { 8 } else { 256 }
    }
}

/// The most messages that a receiver takes at once of those that have come, however they were sent.
const RECEIVE_MAX: usize = 32;

/// Where the answerers say by how much they have grown.
const GROWN_LINE: usize = MEETING_LINE + 1;

/// The most answerers.
const SENDERS_MAX: usize = 4;

/// The fewest trips that percentiles are taken from.
const TRIPS_MIN: u64 = 100;

/// The next message of a sender.
#[derive(Clone, Copy, Default)]
struct Expected(u64);

impl Expected {
    /// Whether it was the sender's last one.
    #[inline]
    fn take(&mut self, number: u64) -> Result<bool> {
        let sequence = sequence(number);
        if sequence == self.0 {
            self.0 += 1;
            return Ok(false);
        }
        if sequence == LAST { Ok(true) } else { Err(unexpected(number, self.0)) }
    }
}

fn ask(port: &mut impl Port, number: u64) -> Result<()> {
    port.send(number)?;
    let answer = port.receive()?;
    if answer == number { Ok(()) } else { Err(unexpected(answer, number)) }
}

fn answer(port: &mut impl Port) -> Result<()> {
    let mut least = 0;
    loop {
        let question = port.receive()?;
        // The asker leaves numbers out, but never goes back.
        if question < least {
            return Err(unexpected(question, least));
        }
        least = question;
        port.send(question)?;
        if question == LAST {
            return Ok(());
        }
    }
}

#[cold]
fn unexpected(number: u64, expected: u64) -> Box<dyn std::error::Error> {
    let (sender, sequence) = (sender(number), sequence(number));
    format!("message {sequence} of sender {sender} came where {expected} was due").into()
}

fn report(figures: &[(Metric, f64)]) {
    let figures = figures.iter().map(|(metric, value)| (metric.name().to_owned(), json!(value)));
    println!("{}", Value::from(figures.collect::<Map<_, _>>()));
}

/// Anonymous and shared memory of this process, a page that several processes have mapped counted in parts. Files that
/// programs are made of are left out.
fn resident_bytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let lines = text.lines().filter_map(|line| {
        let kib = line.strip_prefix("Pss_Anon:").or_else(|| line.strip_prefix("Pss_Shmem:"))?;
        kib.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    Ok(lines.sum::<u64>() << 10)
}

/// How often threads of this process have gone to sleep by themselves.
fn sleeps() -> u64 {
    let mut usage = mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the record is ours to write. The call cannot fail with these arguments, and zeroes are a record as well.
    let _ = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    // SAFETY: all zero at first, then as Linux wrote it: numbers either way.
    let usage = unsafe { usage.assume_init() };
    usage.ru_nvcsw as u64
}

/// The median time between two readings of the clock.
fn clock_cost_ns() -> u64 {
    let mut latencies = Latencies::new();
    for _ in 0..10_001 {
        let before = Instant::now();
        let after = hint::black_box(Instant::now());
        latencies.record((after - before).as_nanos() as u64);
    }
    latencies.per_mille(500).unwrap_or(0)
}
