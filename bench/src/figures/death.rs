//! How long one sleeps on whose peer is killed: from the signal until it has the reason. Beside it, how long Linux takes to end the
//! same process, as the end of a bare socket tells.

use std::{
    thread,
    time::{Duration, Instant},
};

use keyway::{
    Audience, Client, Ending, Error, Incoming, Queue, QueueOptions, Rights, Sender, SenderOptions, WaitStyle,
};

use crate::{
    Result,
    reading::{Aim, Reading},
    rounds::median,
    stage::{Helper, HelperRole, Post, Stage, broker_path},
};

/// What is promised.
const WITHIN_NS: f64 = 100e6;
/// By then whoever waits sleeps, however long it spins first.
const ASLEEP_AFTER: Duration = Duration::from_millis(20);
const RECEIVES: &str = "figures.receives";
const IS_SENT_TO: &str = "figures.is-sent-to";

pub(super) fn measure(stage: &Stage) -> Result<Vec<Reading>> {
    let broker = stage.start_broker()?;
    let client = Client::connect_to(&stage.broker_path())?;
    let deaths = stage.effort.choose(10, 100);
    let mut readings = Vec::new();
    for (what, die) in [
        ("a receiver, until it knows that its sender was killed", sender_dies as Death),
        ("a sender to a full lane, until it knows that its receiver was killed", receiver_dies),
    ] {
        let (mut told, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..deaths {
            told.push(die(stage, &client)?);
            bare.push(process_dies(stage)?);
        }
        let worst = told.iter().copied().fold(0.0, f64::max);
        let beside = "a bare socket's end";
        readings.push(Reading::ns(what, median(told)).beside(beside, median(bare)));
        readings.push(Reading::ns(format!("{what}: the longest"), worst).aim(Aim::AtMost(WITHIN_NS)));
    }
    drop(client);
    broker.finish()?;
    Ok(readings)
}

/// Has a helper die of which somebody waits, and answers the nanoseconds until that one knew.
type Death = fn(&Stage, &Client) -> Result<f64>;

fn sender_dies(stage: &Stage, client: &Client) -> Result<f64> {
    let options = QueueOptions { wait: WaitStyle::Sleep, ..QueueOptions::default() };
    let mut queue = client.create_queue(options)?;
    let published = client.publish(RECEIVES, queue.capability(), Rights::SEND, Audience::Everyone)?;
    let victim = stage.start(HelperRole::DoomedSender, Some(stage.cpus[1]), None)?;
    queue.receive()?;
    let took = until_told(victim, move || wait_for_end(&mut queue));
    drop(published);
    took
}

fn wait_for_end(queue: &mut Queue) -> Result<()> {
    match queue.next_timeout(Duration::from_secs(10))? {
        Incoming::Ended { why: Error::LaneEnded { ending: Ending::PeerDead, .. }, .. } => Ok(()),
        other => Err(format!("expected the lane's end, found {other:?}").into()),
    }
}

fn receiver_dies(stage: &Stage, client: &Client) -> Result<f64> {
    let victim = stage.start(HelperRole::DoomedReceiver, Some(stage.cpus[1]), None)?;
    let options =
        SenderOptions { ring_bytes: Some(4096), wait: WaitStyle::Sleep, ..SenderOptions::default() };
    let mut sender: Sender = client.open_sender_with(&client.lookup(IS_SENT_TO)?, options)?;
    while sender.try_send(&[0; 64]).is_ok() {}
    until_told(victim, move || match sender.send_timeout(&[0; 64], Duration::from_secs(10)) {
        Err(Error::LaneEnded { ending: Ending::PeerDead, .. }) => Ok(()),
        other => Err(format!("expected the lane's end, found {other:?}").into()),
    })
}

/// Only Linux and this process.
fn process_dies(stage: &Stage) -> Result<f64> {
    let mut victim = stage.start(HelperRole::Idler, Some(stage.cpus[1]), None)?;
    let socket = victim.take_socket()?;
    until_told(victim, move || Helper::wait_for_end_of(&socket))
}

fn until_told(mut victim: Helper, wait: impl FnOnce() -> Result<()> + Send) -> Result<f64> {
    thread::scope(|scope| {
        let waiting = scope.spawn(move || -> std::result::Result<Instant, String> {
            wait().map_err(|error| error.to_string())?;
            Ok(Instant::now())
        });
        thread::sleep(ASLEEP_AFTER);
        if waiting.is_finished() {
            return Err("it had ended before its peer was killed".into());
        }
        let killed = Instant::now();
        victim.kill()?;
        let told = waiting.join().map_err(|_| "the waiting thread panicked")??;
        Ok(told.duration_since(killed).as_nanos() as f64)
    })
}

/// The process whose end is waited for at a queue.
pub(super) fn send(post: &Post) -> Result<()> {
    let client = Client::connect_to(&broker_path(&post.place))?;
    let mut sender = client.open_sender(&client.lookup(RECEIVES)?)?;
    sender.send(b"here")?;
    post.say_ready()?;
    post.wait_for_end()
}

/// The process whose end is waited for at a full lane.
pub(super) fn receive(post: &Post) -> Result<()> {
    let client = Client::connect_to(&broker_path(&post.place))?;
    let queue = client.create_queue(QueueOptions::default())?;
    let _published = client.publish(IS_SENT_TO, queue.capability(), Rights::SEND, Audience::Everyone)?;
    post.say_ready()?;
    post.wait_for_end()
}

/// The process whose end nobody but Linux has to do with.
pub(super) fn idle(post: &Post) -> Result<()> {
    post.say_ready()?;
    post.wait_for_end()
}
