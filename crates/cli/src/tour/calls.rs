//! A server and a caller, and how long an answer takes.

use std::time::Instant;

use keyway::{Client, Incoming, Outgoing, QueueOptions, Rights};

use super::{
    Role,
    narrator::Narrator,
    report::{Failed, Percentiles, Report, Reporter},
    stage::{SOON, Stage},
};

const CALLS: u64 = 20_000;
const WARM_UP: u64 = 2_000;
const GRANTS: usize = 2_000;

/// Starts a server and a caller; measures calls, and what a capability costs.
pub(super) fn show(stage: &mut Stage, narrator: &mut Narrator) -> Result<(), Failed> {
    narrator.scene("Calls and their answers");
    let prepared = stage.prepare(Role::Server, &[])?;
    let mut server = Stage::start(Role::Server, prepared)?;
    let queue = stage.hear_queue(&mut server)?;
    let (mut confined, badge) = stage.prepare(Role::Caller, &[CALLS])?;
    confined.give("server", &queue, Rights::SEND, None)?;
    let mut caller = Stage::start(Role::Caller, (confined, badge))?;
    narrator.fact(&format!(
        "a caller (pid {}) asks a server (pid {}) {CALLS} times",
        caller.pid(),
        server.pid()
    ));
    let bar = narrator.progress(CALLS, "calls");
    let trips = loop {
        match stage.hear(&mut caller)?.0 {
            Report::Progress(count) => bar.set_position(count),
            Report::RoundTrips(trips) => break trips,
            other => return Err(Failed(format!("expected round trips, heard {other:?}"))),
        }
    };
    bar.finish_and_clear();
    caller.finish()?;
    server.finish()?;
    narrator.fact(&format!("{} calls were answered, each with its own answer", trips.count));
    narrator.time("call and reply, 64 B, p50", trips.p50_ns);
    narrator.time("call and reply, 64 B, p90", trips.p90_ns);
    narrator.time("call and reply, 64 B, p99", trips.p99_ns);
    let derived = measure_grants(stage)?;
    narrator.time("capability derived and handed out by the broker, p50", derived.p50_ns);
    narrator.time("capability derived and handed out by the broker, p99", derived.p99_ns);
    narrator.held();
    Ok(())
}

fn measure_grants(stage: &Stage) -> Result<Percentiles, Failed> {
    let own = stage.client.own_process().ok_or(Failed("the tour has no capability to itself".into()))?;
    let queue = stage.client.create_queue(QueueOptions::default())?;
    let mut times = Vec::new();
    for _ in 0..GRANTS {
        let began = Instant::now();
        let handle = queue.capability().grant(&own, Rights::SEND, None)?;
        times.push(began.elapsed().as_nanos() as u64);
        drop(stage.client.adopt(handle));
    }
    Ok(Percentiles::of(times))
}

/// The server: answers with the same bytes turned round, until its caller is gone.
pub(super) fn serve() -> Result<(), Failed> {
    let client = Client::connect()?;
    let mut reporter = Reporter::open(&client)?;
    let mut queue = client.create_queue(QueueOptions::default())?;
    reporter.hand_over(&queue)?;
    loop {
        match queue.next_timeout(SOON)? {
            Incoming::Message(mut message) => {
                message.payload.reverse();
                let to = message.reply_to.take().ok_or(Failed("a message that was no call".into()))?;
                queue.reply(to, &Outgoing::bytes(&message.payload))?;
            }
            Incoming::Ended { .. } => return Ok(()),
            Incoming::Opened(_) => {}
        }
    }
}

/// The caller: asks, checks each answer, and measures.
pub(super) fn call(numbers: &[u64]) -> Result<(), Failed> {
    let calls = numbers.first().copied().unwrap_or(CALLS);
    let client = Client::connect()?;
    let mut reporter = Reporter::open(&client)?;
    let mut caller = client.open_caller(&client.inherited("server")?)?;
    let mut times = Vec::with_capacity(calls as usize);
    for count in 0..WARM_UP + calls {
        let mut question = [7; 64];
        question[..8].copy_from_slice(&count.to_le_bytes());
        let began = Instant::now();
        let answer = caller.call(&Outgoing::bytes(&question), SOON)?;
        let elapsed_ns = began.elapsed().as_nanos() as u64;
        question.reverse();
        if answer.payload != question {
            return Err(Failed(format!("the answer to call {count} is another's")));
        }
        if count >= WARM_UP {
            times.push(elapsed_ns);
        }
        if count % 1_000 == 0 && count >= WARM_UP {
            reporter.tell(&Report::Progress(count - WARM_UP))?;
        }
    }
    reporter.tell(&Report::RoundTrips(Percentiles::of(times)))
}
