//! Lanes of huge pages, as long as there are any.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use keyway::{Audience, Client, Queue, QueueOptions, Rights, Sender, SenderOptions};

use crate::stage::{SOCKET, Stage};

const RESERVED: u64 = 3;
const PATIENCE: Duration = Duration::from_secs(5);
const RING_BYTES: u32 = 1 << 20;

/// Three pages of 2 MiB are reserved: a lane of 1 MiB takes one, a lane of 2 MiB two, and the next is of ordinary ones.
pub fn huge_lanes(stage: &mut Stage) -> Result<()> {
    let _broker = stage.start_broker(&[])?;
    fs::write("/proc/sys/vm/nr_hugepages", RESERVED.to_string())?;
    ensure!(free_pages()? == RESERVED, "the machine has {} huge pages, not {RESERVED}", free_pages()?);
    let [receiver, sender] = [Client::connect_to(Path::new(SOCKET))?, Client::connect_to(Path::new(SOCKET))?];
    let mut queue = receiver.create_queue(QueueOptions::default())?;
    let published = receiver.publish("huge", queue.capability(), Rights::SEND, Audience::Everyone)?;
    let mut open = |ring_bytes, pages_left| -> Result<Sender> {
        let options = SenderOptions { ring_bytes: Some(ring_bytes), huge: true, ..SenderOptions::default() };
        let mut lane = sender.open_sender_with(&sender.lookup("huge")?, options)?;
        converse(&mut queue, &mut lane)?;
        let free = free_pages()?;
        ensure!(free == pages_left, "a ring of {ring_bytes} B left {free} huge pages, not {pages_left}");
        Ok(lane)
    };
    let lanes = [open(RING_BYTES, 2)?, open(2 * RING_BYTES, 0)?, open(RING_BYTES, 0)?];
    drop(lanes);
    drop((published, queue, receiver, sender));
    let deadline = Instant::now() + PATIENCE;
    while free_pages()? != RESERVED {
        ensure!(Instant::now() < deadline, "{} huge pages came back, not {RESERVED}", free_pages()?);
        thread::sleep(Duration::from_millis(5));
    }
    fs::write("/proc/sys/vm/nr_hugepages", "0").context("give them back")
}

/// Several times round the ring, each byte checked.
fn converse(queue: &mut Queue, lane: &mut Sender) -> Result<()> {
    for round in 0..200_u8 {
        let payload = vec![round; 40_000 + usize::from(round)];
        lane.send(&payload)?;
        ensure!(queue.receive()?.payload == payload, "message {round} came otherwise");
    }
    Ok(())
}

fn free_pages() -> Result<u64> {
    let memory = fs::read_to_string("/proc/meminfo")?;
    let line = memory.lines().find_map(|line| line.strip_prefix("HugePages_Free:"));
    Ok(line.context("Linux has no huge pages")?.trim().parse()?)
}
