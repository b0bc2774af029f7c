//! A process that is killed in the middle, and what is left of it: nothing.

use std::{
    fs,
    time::{Duration, Instant},
};

use keyway::{Client, Ending, Error, Incoming, LaneId, QueueOptions, Rights};

use super::{
    Role,
    narrator::Narrator,
    report::Failed,
    stage::{SOON, Stage},
};

/// Messages that the tour takes before it kills their sender.
const TAKEN_BEFORE: u64 = 20_000;

/// Kills a sender in the middle of its stream.
pub(super) fn show(stage: &mut Stage, narrator: &mut Narrator) -> Result<(), Failed> {
    narrator.scene("A process is killed in the middle");
    let mut queue = stage.client.create_queue(QueueOptions::default())?;
    let descriptors = open_descriptors()?;
    let (mut confined, badge) = stage.prepare(Role::Victim, &[])?;
    confined.give("queue", queue.capability(), Rights::SEND, None)?;
    let mut victim = Stage::start(Role::Victim, (confined, badge))?;
    let watch = victim.process.watch()?;
    let pid = victim.pid();
    let mut next = 0_u64;
    let mut lane = None;
    while next < TAKEN_BEFORE {
        let message = queue.receive_timeout(SOON)?;
        lane = Some(message.lane);
        check(&message.payload, &mut next)?;
    }
    victim.child.kill()?;
    let killed = Instant::now();
    let told = loop {
        match queue.next_timeout(SOON)? {
            Incoming::Message(message) => check(&message.payload, &mut next)?,
            Incoming::Ended { why: Error::LaneEnded { ending: Ending::PeerDead, .. }, .. } => {
                break killed.elapsed();
            }
            Incoming::Ended { why, .. } => return Err(Failed(format!("expected its death, heard {why}"))),
            Incoming::Opened(_) => {}
        }
    };
    watch.wait(SOON)?;
    victim.child.wait()?;
    narrator.fact(&format!(
        "a sender (pid {pid}) was killed in its stream: {next} messages came, in order, then a clear end, {:.1} ms after",
        told.as_secs_f64() * 1e3
    ));
    narrator.time("death of a sender, until its receiver has drained and knows", told.as_nanos() as u64);
    drop((watch, victim));
    check_nothing_left(stage, pid, lane, descriptors)?;
    narrator.fact("the broker lists neither it nor its lane any more, and holds no descriptor of it");
    narrator.held();
    Ok(())
}

/// The victim: sends numbers until it is killed.
pub(super) fn stream_for_ever() -> Result<(), Failed> {
    let client = Client::connect()?;
    let mut sender = client.open_sender(&client.inherited("queue")?)?;
    for number in 0_u64.. {
        sender.send(&number.to_le_bytes())?;
    }
    Ok(())
}

fn check(payload: &[u8], next: &mut u64) -> Result<(), Failed> {
    if payload != next.to_le_bytes() {
        return Err(Failed(format!("expected message {next}, got {payload:?}")));
    }
    *next += 1;
    Ok(())
}

fn check_nothing_left(
    stage: &Stage,
    pid: u32,
    lane: Option<LaneId>,
    descriptors: usize,
) -> Result<(), Failed> {
    // The kernel of the machine tells the broker of the death; our own clean-up is asked for in the same line.
    let deadline = Instant::now() + SOON;
    loop {
        let listed = stage.client.processes()?.iter().any(|entry| entry.pid == pid);
        let lanes = stage.client.lanes()?.iter().any(|entry| Some(entry.lane) == lane);
        let now = open_descriptors()?;
        if !listed && !lanes && now <= descriptors {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Failed(format!(
                "of process {pid} is left: listed {listed}, a lane {lanes}, descriptors {now} instead of {descriptors}"
            )));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The descriptors of this process, in which the broker runs.
fn open_descriptors() -> Result<usize, Failed> {
    Ok(fs::read_dir("/proc/self/fd")?.count())
}
