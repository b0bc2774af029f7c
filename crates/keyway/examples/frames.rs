//! Frames: one process writes a stream of 4 MiB frames, two others read them where they are. Nothing is copied.
//!
//! ```text
//! cargo run --release -p keyway --example frames
//! ```
//!
//! It brings its own broker and starts its readers itself, and ends after a second. Each frame is written once, into a block of a
//! pool, and sent on two lanes; its memory is written anew when both readers have released it. A reader checks some bytes of each
//! frame and that none is missing.

use std::{
    env,
    error::Error,
    process::{Child, Command, ExitCode},
    time::{Duration, Instant},
};

use keyway::{
    Audience, Client, Embedded, Error as KeywayError, Outgoing, Pool, PoolOptions, QueueOptions, Rights,
    Segment, Sender,
};

const FRAME_BYTES: usize = 4 << 20;
const FRAMES_IN_POOL: usize = 4;
const READERS: usize = 2;
const RUNS_FOR: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let done = match env::args().nth(1) {
        Some(name) => read(&name),
        None => write(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("frames: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The writer.
fn write() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("broker.sock");
    let _broker = Embedded::start_at(&socket)?;
    let client = Client::connect_to(&socket)?;
    let mut readers: Vec<Child> = Vec::new();
    let mut lanes: Vec<Sender> = Vec::new();
    for number in 0..READERS {
        let name = format!("frames/{number}");
        readers.push(Command::new(env::current_exe()?).arg(&name).env("KEYWAY_SOCKET", &socket).spawn()?);
        lanes.push(client.open_sender(&client.lookup_timeout(&name, PATIENCE)?)?);
    }
    let bytes = (FRAMES_IN_POOL * FRAME_BYTES) as u64;
    let pool = client.create_pool(PoolOptions { bytes, ..PoolOptions::default() })?;
    let began = Instant::now();
    let mut frames = 0_u64;
    while began.elapsed() < RUNS_FOR {
        send_frame(&pool, &mut lanes, frames)?;
        frames += 1;
    }
    let seconds = began.elapsed().as_secs_f64();
    // A message without a frame is the last.
    for lane in &mut lanes {
        lane.send(&frames.to_le_bytes())?;
    }
    for reader in &mut readers {
        if !reader.wait()?.success() {
            return Err("a reader has failed".into());
        }
    }
    let gigabytes = frames as f64 * FRAME_BYTES as f64 / 1e9;
    println!(
        "{frames} frames of 4 MiB to {READERS} readers: {:.0} a second, {:.1} GB/s written",
        frames as f64 / seconds,
        gigabytes / seconds
    );
    Ok(())
}

fn send_frame(pool: &Pool, lanes: &mut [Sender], number: u64) -> Result<(), KeywayError> {
    let mut frame = pool.loan_timeout(FRAME_BYTES, PATIENCE)?;
    frame.fill(number as u8);
    let frame = frame.share();
    for lane in lanes {
        lane.send_segments(&Outgoing::bytes(&number.to_le_bytes()), &[frame.whole()])?;
    }
    Ok(())
}

/// A reader.
fn read(name: &str) -> Result<(), Box<dyn Error>> {
    let client = Client::connect()?;
    let mut queue = client.create_queue(QueueOptions::default())?;
    let _name = client.publish(name, queue.capability(), Rights::SEND, Audience::Everyone)?;
    for expected in 0_u64.. {
        let message = queue.receive_timeout(PATIENCE)?;
        if message.payload != expected.to_le_bytes() {
            return Err(format!("frame {expected} was expected, {:?} came", message.payload).into());
        }
        let Some(frame) = message.segments.first() else {
            println!("{name}: all {expected} frames have come");
            return Ok(());
        };
        check(frame, expected)?;
        // Released with the message.
    }
    Ok(())
}

/// Looks at some bytes of a frame where they are.
fn check(frame: &Segment, number: u64) -> Result<(), Box<dyn Error>> {
    let mut byte = [0];
    for at in (0..frame.len()).step_by(FRAME_BYTES / 16).chain([FRAME_BYTES - 1]) {
        frame.copy_out(at, &mut byte)?;
        if byte != [number as u8] {
            return Err(format!("byte {at} of frame {number} is {}", byte[0]).into());
        }
    }
    Ok(())
}
