//! What a large payload costs, by size: copied through the ring, copied through a pool, and written and read in place; each
//! beside the same shared memory handed to and fro without any messages.
//!
//! ```text
//! cargo run --release -p keyway --example large -- [ROUNDS] [together]
//! ```
//!
//! One thread sends and receives by turns, which shows what the processor has to do and little of what else the machine does. With
//! `together`, one thread sends while another receives: for a machine that has nothing else to do.
//!
//! Every byte is written once and read once in each. All take turns within a round, and what is printed are medians over the rounds,
//! in gigabytes a second and as ratios of one round: other load comes and goes.

use std::{
    env,
    error::Error,
    hint::{self, black_box},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use keyway::{
    Client, Embedded, Error as KeywayError, LargePayloads, Outgoing, Pool, PoolOptions, Queue, QueueOptions,
    Sender, SenderOptions,
};

const SIZES: [usize; 7] = [16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 1 << 20, 4 << 20];
/// Payloads that are on their way at a time, in each way.
const DEPTH: usize = 4;
const BYTES_EACH: usize = 512 << 20;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Clone, Copy)]
enum Style {
    ByTurns,
    Together,
}

fn main() -> Outcome<()> {
    let rounds = env::args().nth(1).map_or(Ok(7), |text| text.parse())?;
    let broker = Embedded::start()?;
    let style = match env::args().nth(2).as_deref() {
        None => Style::ByTurns,
        Some("together") => Style::Together,
        Some(_) => return Err("usage: large [ROUNDS] [together]".into()),
    };
    println!("median GB/s of {rounds} rounds; in brackets the median ratio to bare memory in the same round");
    println!(
        "{:>8} {:>8} {:>16} {:>16} {:>16}",
        "KiB", "bare", "ring, copied", "pool, copied", "pool, in place"
    );
    for size in SIZES {
        let ways: [&dyn Fn() -> Outcome<f64>; 4] = [
            &|| bare(style, &broker, size),
            &|| copied(style, &broker, size, LargePayloads::Refuse, ring_bytes(size)),
            &|| copied(style, &broker, size, LargePayloads::Pool, 1 << 12),
            &|| in_place(style, &broker, size),
        ];
        let mut speeds = [const { Vec::new() }; 4];
        for _ in 0..rounds {
            for (way, speeds) in ways.iter().zip(&mut speeds) {
                speeds.push(way()?);
            }
        }
        let ratios = speeds.clone().map(|speeds_of| {
            median(speeds_of.iter().zip(&speeds[0]).map(|(speed, bare)| speed / bare).collect())
        });
        let [bare, ring, pool, place] = speeds.map(median);
        println!(
            "{:>8} {bare:>8.1} {ring:>8.1} [{:.2}] {pool:>9.1} [{:.2}] {place:>9.1} [{:.2}]",
            size >> 10,
            ratios[1],
            ratios[2],
            ratios[3]
        );
    }
    Ok(())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn ring_bytes(size: usize) -> u32 {
    (size * DEPTH).next_power_of_two() as u32
}

fn count(size: usize) -> usize {
    BYTES_EACH / size / 2
}

fn speed(size: usize, began: Instant) -> f64 {
    (count(size) * size) as f64 / began.elapsed().as_secs_f64() / 1e9
}

/// Reads every byte.
fn sum(bytes: &[u8]) -> u64 {
    bytes.as_chunks().0.iter().fold(0, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)))
}

/// Parts of the same sort of memory that a writer and a reader hand to and fro.
fn bare(style: Style, broker: &Embedded, size: usize) -> Outcome<f64> {
    let pool = pool(&Client::over(broker.connect()?)?, size)?;
    let depth = match style {
        // Where messages go by turns, they use the same memory again and again.
        Style::ByTurns => 1,
        Style::Together => DEPTH,
    };
    let buffers: Result<Vec<_>, _> = (0..depth).map(|_| pool.try_loan(size).map(Mutex::new)).collect();
    let buffers = buffers?;
    let (written, read) = (AtomicU64::new(0), AtomicU64::new(0));
    let wait = |is_over: &dyn Fn() -> bool| {
        let mut spun = 0_u32;
        while !is_over() {
            spun += 1;
            // Another program may have the other core.
            if spun.is_multiple_of(1000) { thread::yield_now() } else { hint::spin_loop() }
        }
    };
    let mut next = 0;
    exchange(
        style,
        size,
        |number| {
            wait(&|| number as u64 - read.load(Ordering::Acquire) < depth as u64);
            buffers[number % depth].lock().map_err(|_| "a thread has panicked")?.fill(number as u8);
            written.store(number as u64 + 1, Ordering::Release);
            Ok(())
        },
        || {
            wait(&|| written.load(Ordering::Acquire) > next);
            let all = sum(&buffers[next as usize % depth].lock().map_err(|_| "a thread has panicked")?);
            next += 1;
            read.store(next, Ordering::Release);
            Ok(black_box(all))
        },
    )
}

fn lane(broker: &Embedded, options: SenderOptions) -> Outcome<(Client, Queue, Sender)> {
    let client = Client::over(broker.connect()?)?;
    let queue = client.create_queue(QueueOptions::default())?;
    let sender = client.open_sender_with(&queue.sender_capability(None)?, options)?;
    Ok((client, queue, sender))
}

fn pool(client: &Client, size: usize) -> Result<Pool, KeywayError> {
    client.create_pool(PoolOptions { bytes: (size * DEPTH) as u64, ..PoolOptions::default() })
}

/// The payload is written, copied in, copied out and read.
fn copied(
    style: Style,
    broker: &Embedded,
    size: usize,
    large: LargePayloads,
    ring_bytes: u32,
) -> Outcome<f64> {
    let options = SenderOptions { ring_bytes: Some(ring_bytes), large, ..SenderOptions::default() };
    let (client, mut queue, mut sender) = lane(broker, options)?;
    if large == LargePayloads::Pool {
        sender.set_pool(pool(&client, size)?);
    }
    let mut payload = vec![0; size];
    exchange(
        style,
        size,
        move |number| {
            payload.fill(number as u8);
            Ok(sender.send(&payload)?)
        },
        || Ok(black_box(sum(queue.receive_ref()?.payload))),
    )
}

/// The payload is written where it is read.
fn in_place(style: Style, broker: &Embedded, size: usize) -> Outcome<f64> {
    let (client, mut queue, mut sender) = lane(broker, SenderOptions::default())?;
    let pool = pool(&client, size)?;
    exchange(
        style,
        size,
        move |number| {
            let mut block = pool.loan(size)?;
            block.fill(number as u8);
            Ok(sender.send_segments(&Outgoing::default(), &[block.share().whole()])?)
        },
        || {
            let message = queue.receive()?;
            let mut all = 0_u64;
            message.segments[0].read(|piece| all = all.wrapping_add(sum(piece)));
            Ok(black_box(all))
        },
    )
}

fn exchange(
    style: Style,
    size: usize,
    mut send: impl FnMut(usize) -> Outcome<()> + Send,
    mut receive: impl FnMut() -> Outcome<u64>,
) -> Outcome<f64> {
    let began = Instant::now();
    match style {
        Style::ByTurns => {
            for number in 0..count(size) {
                send(number)?;
                receive()?;
            }
        }
        Style::Together => thread::scope(|scope| {
            let sender = scope.spawn(move || (0..count(size)).try_for_each(&mut send));
            for _ in 0..count(size) {
                receive()?;
            }
            sender.join().map_err(|_| "the sender has panicked")?
        })?,
    }
    Ok(speed(size, began))
}
