//! A million messages, from one process to another.

use std::time::Instant;

use keyway::{Client, QueueOptions, Rights};

use super::{
    Role,
    narrator::Narrator,
    report::{Failed, Report, Reporter},
    stage::{SOON, Stage},
};

const MESSAGE_BYTES: usize = 64;
const PROGRESS_EVERY: u64 = 50_000;

/// Starts a consumer and a producer, and has the messages counted and checked.
pub(super) fn show(stage: &mut Stage, narrator: &mut Narrator, messages: u64) -> Result<(), Failed> {
    narrator.scene("Messages at memory speed");
    let prepared = stage.prepare(Role::Consumer, &[])?;
    let mut consumer = Stage::start(Role::Consumer, prepared)?;
    let queue = stage.hear_queue(&mut consumer)?;
    let (mut confined, badge) = stage.prepare(Role::Producer, &[messages])?;
    confined.give("queue", &queue, Rights::SEND, None)?;
    let producer = Stage::start(Role::Producer, (confined, badge))?;
    narrator.fact(&format!(
        "a consumer (pid {}) makes a queue; a producer (pid {}) is given the right to send to it, and no other",
        consumer.pid(),
        producer.pid()
    ));
    let bar = narrator.progress(messages, "messages");
    let (counted, elapsed_ns, wrong) = loop {
        match stage.hear(&mut consumer)?.0 {
            Report::Progress(count) => bar.set_position(count),
            Report::Counted { messages, elapsed_ns, wrong } => break (messages, elapsed_ns, wrong),
            other => return Err(Failed(format!("expected a count, heard {other:?}"))),
        }
    };
    bar.finish_and_clear();
    producer.finish()?;
    consumer.finish()?;
    if counted != messages || wrong.is_some() {
        return Err(Failed(format!(
            "{messages} messages were sent, {counted} came, the first wrong one is {wrong:?}"
        )));
    }
    let rate = counted as f64 * 1e9 / elapsed_ns.max(1) as f64;
    narrator.fact(&format!("{counted} messages of {MESSAGE_BYTES} B came, each once, in order and whole"));
    let text = format!("{:.2} million/s", rate / 1e6);
    narrator.figure("messages received and checked", counted as f64, "messages", counted.to_string());
    narrator.figure("one way, 64 B, message rate", rate, "messages/s", text);
    narrator.held();
    Ok(())
}

/// The consumer: makes a queue, hands out the right to send, counts and checks.
pub(super) fn consume() -> Result<(), Failed> {
    let client = Client::connect()?;
    let mut reporter = Reporter::open(&client)?;
    let mut queue = client.create_queue(QueueOptions::default())?;
    reporter.hand_over(&queue)?;
    let mut began = None;
    let (mut count, mut total, mut wrong) = (0, 1, None);
    while count < total {
        let message = queue.receive_timeout(SOON)?;
        let began = *began.get_or_insert_with(Instant::now);
        total = number(&message.payload, 1);
        if message.payload != picture(count, total) {
            wrong = wrong.or(Some(count));
        }
        count += 1;
        if count % PROGRESS_EVERY == 0 && count < total {
            reporter.tell(&Report::Progress(count))?;
        }
        if count == total {
            let elapsed_ns = began.elapsed().as_nanos() as u64;
            reporter.tell(&Report::Counted { messages: count, elapsed_ns, wrong })?;
        }
    }
    Ok(())
}

/// The producer: sends numbered messages.
pub(super) fn produce(numbers: &[u64]) -> Result<(), Failed> {
    let total = *numbers.first().ok_or(Failed("how many messages?".into()))?;
    let client = Client::connect()?;
    let mut sender = client.open_sender(&client.inherited("queue")?)?;
    for count in 0..total {
        sender.send(&picture(count, total))?;
    }
    Ok(())
}

/// What message `count` of `total` must be: its number, how many there are, and a pattern that depends on both.
fn picture(count: u64, total: u64) -> [u8; MESSAGE_BYTES] {
    let mut bytes = [0; MESSAGE_BYTES];
    for (index, word) in bytes.chunks_exact_mut(8).enumerate() {
        let value = match index {
            0 => count,
            1 => total,
            _ => {
                (count ^ total.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(index as u32)
            }
        };
        word.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// The `index`th number in a message.
fn number(payload: &[u8], index: usize) -> u64 {
    let bytes = payload.get(8 * index..8 * index + 8).and_then(|bytes| bytes.try_into().ok());
    u64::from_le_bytes(bytes.unwrap_or_default())
}
