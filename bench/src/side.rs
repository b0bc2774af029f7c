//! One of the two processes of a run: what it shares with the other one, and the measuring itself.
//!
//! The sides have a seqpacket socket (standard input), a shared memory and a place for files in common. The asker
//! measures and prints what it found, one JSON object, on standard output. Nothing here has a timeout: the
//! controlling process kills both sides when their time is over or one of them has failed.

use std::{
    fs::File,
    hint, io,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use clap::ValueEnum;
use rustix::{
    event::{self, PollFd, PollFlags, Timespec},
    net::{self, RecvFlags, SendFlags},
    process::{self, Pid, Signal},
    thread::{self, CpuSet},
};
use serde_json::json;

use crate::{
    Result,
    latencies::Latencies,
    memory::Memory,
    payload::{LAST, Payload},
    place::Place,
    scenario::{Metric, Scenario},
    systems,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Asks and measures; in one-way scenarios it receives.
    Asker,
    /// Answers; in one-way scenarios it sends.
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

/// One end of a conversation in payloads.
pub(crate) trait Port {
    fn send(&mut self, payload: Payload) -> Result<()>;
    /// Waits for the next payload.
    fn receive(&mut self) -> Result<Payload>;
}

pub(crate) struct Side {
    role: Role,
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

    pub(crate) fn scenario(&self) -> Scenario {
        self.scenario
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// All zero at first. It stays mapped until the process ends.
    pub(crate) fn memory(&self) -> &'static Memory {
        self.memory
    }

    /// Free for use between meetings.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    /// Returns when the other side has called it too.
    pub(crate) fn meet(&self) -> Result<()> {
        net::send(self.socket(), b"m", SendFlags::NOSIGNAL)?;
        match net::recv(self.socket(), &mut [0; 1], RecvFlags::empty())? {
            (1, _) => Ok(()),
            _ => Err("the other side has ended".into()),
        }
    }

    /// Whether the other side has come to the next meeting already.
    pub(crate) fn is_awaited(&self) -> Result<bool> {
        let mut polled = [PollFd::from_borrowed_fd(self.socket(), PollFlags::IN)];
        Ok(event::poll(&mut polled, Some(&Timespec::default()))? > 0)
    }

    /// The whole conversation of the scenario, over a port that is ready on this side. It begins with a meeting, and
    /// ends with one because the port may need this process until the last message has been received.
    pub(crate) fn talk(&self, mut port: impl Port) -> Result<()> {
        self.meet()?;
        match (self.scenario, self.role) {
            (Scenario::OneWay, Role::Asker) => self.measure_rate(&mut port),
            (Scenario::OneWay, Role::Answerer) => self.pour(&mut port),
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
        for sequence in 0.. {
            let before = Instant::now();
            let returned = trip(sequence)?;
            let after = Instant::now();
            drop(returned);
            if before >= warm {
                latencies.record(((after - before).as_nanos() as u64).saturating_sub(clock_ns));
            }
            // A busy machine may have taken the whole duration from us: go on until there is something to report.
            if after >= end && latencies.total() >= TRIPS_MIN {
                break;
            }
        }
        let percentile = |percent| latencies.percentile(percent).ok_or("no trip ended within the run");
        println!(
            "{}",
            json!({
                Metric::P50.name(): percentile(50)?,
                Metric::P90.name(): percentile(90)?,
                Metric::P99.name(): percentile(99)?,
            })
        );
        Ok(())
    }

    /// Receives until the last message, each one expected and whole, and reports the rate.
    fn measure_rate(&self, port: &mut impl Port) -> Result<()> {
        let started = Instant::now();
        let mut warm = None;
        for expected in 0.. {
            let payload = port.receive()?;
            if payload.sequence() == LAST {
                let (skipped, since): (u64, Instant) = warm.unwrap_or((0, started));
                let rate = (expected - skipped) as f64 / since.elapsed().as_secs_f64();
                println!("{}", json!({ Metric::Rate.name(): rate }));
                break;
            }
            if payload != Payload::numbered(expected) {
                return Err(unexpected(&payload, expected));
            }
            if warm.is_none() && expected % CLOCK_STRIDE == 0 && started.elapsed() >= self.warm_up() {
                warm = Some((expected, Instant::now()));
            }
        }
        Ok(())
    }

    /// Sends for the run's duration.
    fn pour(&self, port: &mut impl Port) -> Result<()> {
        let end = Instant::now() + self.duration;
        let mut sequence = 0;
        while Instant::now() < end {
            for _ in 0..CLOCK_STRIDE {
                port.send(Payload::numbered(sequence))?;
                sequence += 1;
            }
        }
        port.send(Payload::numbered(LAST))
    }

    fn warm_up(&self) -> Duration {
        self.duration / 10
    }
}

/// The fewest trips that percentiles are taken from.
const TRIPS_MIN: u64 = 100;

/// How many messages of a stream pass between two looks at the clock.
const CLOCK_STRIDE: u64 = 256;

fn ask(port: &mut impl Port, sequence: u64) -> Result<()> {
    port.send(Payload::numbered(sequence))?;
    let answer = port.receive()?;
    if answer != Payload::numbered(sequence) {
        return Err(unexpected(&answer, sequence));
    }
    Ok(())
}

fn answer(port: &mut impl Port) -> Result<()> {
    for expected in 0.. {
        let question = port.receive()?;
        if question.sequence() != LAST && question != Payload::numbered(expected) {
            return Err(unexpected(&question, expected));
        }
        port.send(Payload::numbered(question.sequence()))?;
        if question.sequence() == LAST {
            break;
        }
    }
    Ok(())
}

#[cold]
fn unexpected(payload: &Payload, expected: u64) -> Box<dyn std::error::Error> {
    let state = if payload.is_whole() { "whole" } else { "torn" };
    format!("message {} came, {state}, where {expected} was due", payload.sequence()).into()
}

/// The median time between two readings of the clock.
fn clock_cost_ns() -> u64 {
    let mut latencies = Latencies::new();
    for _ in 0..10_001 {
        let before = Instant::now();
        let after = hint::black_box(Instant::now());
        latencies.record((after - before).as_nanos() as u64);
    }
    latencies.percentile(50).unwrap_or(0)
}
