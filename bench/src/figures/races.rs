//! Revocation races: a sender and a receiver at work on lanes which a third takes back.
//!
//! Four processes: the broker, the receiver (whose queue it is), the sender, and the owner, to whom the receiver has sent
//! a capability to the queue, and who publishes it under a name. Each cycle the sender looks that name up and opens as many lanes as one process
//! may have ([`LANES`]); it sends on all of them as fast as it can, and the receiver receives. Once a message has come
//! on each lane, and at a random moment after that, the owner revokes what was derived from its capability: all the
//! lanes. The broker takes them back one by one, so each lane is a race of its own. All run the client library.
//!
//! The owner says in memory that all have mapped when the revocation begins and when it has returned. The sender reads
//! that before each send and says it in the message, the receiver before each receive. Then there must be no
//! 1. message that a receive returned which began after the revocation had returned;
//! 2. message, accepted at any time, whose sending began after the revocation had returned.

use std::{
    fs::File,
    hint,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use keyway::{
    Audience, Capability, Carried, Client, Denial, Ending, Error, Incoming, Message, Outgoing, QueueOptions,
    Rights, Sender, SenderOptions,
};
use rustix::fs::{self, MemfdFlags};

use crate::{
    Result,
    figures::world::Random,
    memory::{MEMORY_BYTES, Memory},
    reading::{Aim, Reading, Unit},
    stage::{Helper, HelperRole, Post, Stage, broker_path},
};

/// Lanes of one process into another's queue of 120, at most; each is a race.
const LANES: usize = 30;

/// Under this name the owner has a queue, in which the receiver sends it a capability to its own.
const OWNER: &str = "races-owner";
/// And under this one it publishes what it will revoke.
const OWNED: &str = "races-owned";

/// The line of each word in the memory that all four have mapped. The first six say how far the one who writes it has
/// come: a cycle's number, from 1.
#[derive(Clone, Copy)]
enum Line {
    /// The owner: its capability can be looked up.
    Published,
    /// The receiver: a message has come on each lane.
    Heard,
    /// The owner: the revocation begins.
    Began,
    /// The owner: the revocation has returned.
    Returned,
    /// The sender: it has given its ends away.
    SenderDone,
    /// The receiver: each lane has ended.
    ReceiverDone,
    /// Messages accepted.
    Accepted,
    /// Messages accepted while the revocation was under way.
    AcceptedMeanwhile,
    /// Messages accepted by a receive that began after the revocation had returned.
    LateReceives,
    /// Messages accepted whose sending began after the revocation had returned.
    LateCommits,
    /// Sends that were refused and began after the revocation had returned.
    LateRefused,
}

/// [`Line::Published`] says this when there are no more cycles.
const OVER: u64 = u64::MAX;

fn word(memory: &Memory, line: Line) -> &AtomicU64 {
    memory.word(line as usize)
}

pub(super) fn measure(stage: &Stage) -> Result<Vec<Reading>> {
    let file = File::from(fs::memfd_create("keyway-bench", MemfdFlags::empty())?);
    file.set_len(MEMORY_BYTES as u64)?;
    let memory = Memory::map(&file)?;
    let broker = stage.start(HelperRole::Broker, None, None)?;
    let client = Client::connect_to(&stage.broker_path())?;
    let mut inbox = client.create_queue(QueueOptions::default())?;
    let published = client.publish(OWNER, inbox.capability(), Rights::SEND, Audience::Everyone)?;
    let receiver = stage.start(HelperRole::RaceReceiver, None, Some(&file))?;
    let lent = inbox.receive()?.capabilities.pop().ok_or("no capability came")??;
    let sender = stage.start(HelperRole::RaceSender, None, Some(&file))?;
    let mut owner = Owner { memory: &memory, racers: [receiver, sender] };
    let began = Instant::now();
    let races = owner.race(&client, &lent, stage.races)?;
    let each_ns = began.elapsed().as_nanos() as f64 / races as f64;
    word(&memory, Line::Published).store(OVER, SeqCst);
    for racer in owner.racers {
        racer.finish()?;
    }
    drop((lent, published, inbox, client));
    broker.finish()?;
    let count = |what: &str, line| Reading::new(what, Unit::Count, word(&memory, line).load(SeqCst) as f64);
    let none = |what: &str, line| count(what, line).aim(Aim::AtMost(0.0));
    Ok(vec![
        Reading::new("races run", Unit::Count, races as f64),
        none("received after the revocation returned", Line::LateReceives),
        none("sent after the revocation returned, and accepted", Line::LateCommits),
        count("received while it was under way", Line::AcceptedMeanwhile),
        count("received in all", Line::Accepted),
        count("sends after it returned, all refused", Line::LateRefused),
        Reading::ns("a race, from opening to clearing away", each_ns),
    ])
}

struct Owner<'m> {
    memory: &'m Memory,
    racers: [Helper; 2],
}

impl Owner<'_> {
    /// Answers how many races there were: `races` or a few more, because a cycle has [`LANES`].
    fn race(&mut self, client: &Client, owned: &Capability, races: u64) -> Result<u64> {
        let mut random = Random::new(races);
        let cycles = races.div_ceil(LANES as u64);
        for cycle in 1..=cycles {
            let published = client.publish(OWNED, owned, Rights::SEND, Audience::Everyone)?;
            word(self.memory, Line::Published).store(cycle, SeqCst);
            self.wait(Line::Heard, cycle)?;
            let until = Instant::now() + Duration::from_nanos(random.below(DELAY_NS_MAX) as u64);
            while Instant::now() < until {
                hint::spin_loop();
            }
            word(self.memory, Line::Began).store(cycle, SeqCst);
            owned.revoke()?;
            word(self.memory, Line::Returned).store(cycle, SeqCst);
            self.wait(Line::SenderDone, cycle)?;
            self.wait(Line::ReceiverDone, cycle)?;
            drop(published);
        }
        Ok(cycles * LANES as u64)
    }

    fn wait(&mut self, line: Line, cycle: u64) -> Result<()> {
        let mut waited = 0_u32;
        while word(self.memory, line).load(SeqCst) < cycle {
            pause();
            waited += 1;
            if waited.is_multiple_of(1000) {
                for racer in &mut self.racers {
                    if racer.has_ended()? {
                        return Err("a racer has ended before its time".into());
                    }
                }
            }
        }
        Ok(())
    }
}

/// The revocation begins at most so long after each lane has been heard of.
const DELAY_NS_MAX: usize = 100_000;

/// Leaves the CPU to those who race.
fn pause() {
    thread::sleep(Duration::from_micros(20));
}

/// Says what cycle comes next once there is one.
fn next_cycle(memory: &Memory, last: u64) -> Option<u64> {
    loop {
        match word(memory, Line::Published).load(SeqCst) {
            OVER => return None,
            cycle if cycle > last => return Some(cycle),
            _ => pause(),
        }
    }
}

/// What a message says.
struct Said {
    lane: u32,
    /// Whether the revocation had returned before this message's sending began.
    is_late: bool,
}

impl Said {
    fn to_bytes(&self) -> [u8; 8] {
        (u64::from(self.lane) << 1 | u64::from(self.is_late)).to_le_bytes()
    }

    fn of(message: &Message) -> Result<Self> {
        let bytes = message.payload[..].try_into().map_err(|_| "a message of another length")?;
        let word = u64::from_le_bytes(bytes);
        Ok(Self { lane: (word >> 1) as u32, is_late: word & 1 == 1 })
    }
}

/// The sender's process.
pub(super) fn send(post: &Post) -> Result<()> {
    let memory = post.memory.as_ref().ok_or("no memory was given")?;
    let client = Client::connect_to(&broker_path(&post.place))?;
    post.say_ready()?;
    let mut last = 0;
    while let Some(cycle) = next_cycle(memory, last) {
        let found = client.lookup(OWNED)?;
        let mut lanes: Vec<Sender> = (0..LANES).map(|_| open(&client, &found)).collect::<Result<_>>()?;
        send_until_revoked(memory, cycle, &mut lanes)?;
        drop((lanes, found));
        word(memory, Line::SenderDone).store(cycle, SeqCst);
        last = cycle;
    }
    post.wait_for_end()
}

/// Opens a lane, once the receiver has laid in what that takes.
fn open(client: &Client, found: &Capability) -> Result<Sender> {
    let options = SenderOptions { ring_bytes: Some(4096), ..SenderOptions::default() };
    loop {
        match client.open_sender_with(found, options) {
            Err(error) if error.denial() == Some(&Denial::StockEmpty) => pause(),
            opened => return Ok(opened?),
        }
    }
}

/// Sends on each lane until it is refused, and once more on each when the revocation has returned.
fn send_until_revoked(memory: &Memory, cycle: u64, lanes: &mut [Sender]) -> Result<()> {
    let returned = word(memory, Line::Returned);
    let mut is_open = [true; LANES];
    let mut is_last_pass = false;
    while !is_last_pass {
        is_last_pass = !is_open.contains(&true) && returned.load(SeqCst) == cycle;
        for ((lane, sender), is_open) in (0..).zip(lanes.iter_mut()).zip(&mut is_open) {
            if !*is_open && !is_last_pass {
                continue;
            }
            let is_late = returned.load(SeqCst) == cycle;
            match sender.try_send(&Said { lane, is_late }.to_bytes()) {
                Ok(()) | Err(Error::WouldBlock) => {}
                Err(Error::LaneEnded { ending: Ending::Revoked, .. }) => {
                    *is_open = false;
                    word(memory, Line::LateRefused).fetch_add(u64::from(is_late), SeqCst);
                }
                Err(error) => return Err(error.into()),
            }
        }
        if !is_open.contains(&true) {
            thread::yield_now();
        }
    }
    Ok(())
}

/// The receiver's process.
pub(super) fn receive(post: &Post) -> Result<()> {
    let memory = post.memory.as_ref().ok_or("no memory was given")?;
    let client = Client::connect_to(&broker_path(&post.place))?;
    let mut queue = client.create_queue(QueueOptions { stock: 8, ..QueueOptions::default() })?;
    let rights = Rights::SEND | Rights::DERIVE | Rights::GRANT;
    let mut sender = client.open_sender(&client.lookup(OWNER)?)?;
    let capabilities = [Carried::Copy(queue.capability(), rights)];
    sender.send_message(&Outgoing { capabilities: &capabilities, ..Outgoing::default() })?;
    post.say_ready()?;
    let (began, returned) = (word(memory, Line::Began), word(memory, Line::Returned));
    let mut tally = Tally { memory, cycle: 1, heard: 0, ended: 0 };
    while word(memory, Line::Published).load(SeqCst) != OVER {
        let is_late = returned.load(SeqCst) == tally.cycle;
        match queue.try_next()? {
            None => thread::yield_now(),
            Some(Incoming::Opened(_)) => {}
            Some(Incoming::Message(message)) => {
                let is_meanwhile = !is_late && began.load(SeqCst) == tally.cycle;
                tally.accept(&Said::of(&message)?, is_late, is_meanwhile);
            }
            Some(Incoming::Ended { why: Error::LaneEnded { ending: Ending::Revoked, .. }, .. }) => {
                tally.end();
            }
            Some(Incoming::Ended { why, .. }) => return Err(why.into()),
        }
    }
    drop((queue, sender));
    post.wait_for_end()
}

/// What the receiver keeps of a cycle.
struct Tally<'m> {
    memory: &'m Memory,
    cycle: u64,
    /// A bit for each lane on which a message has come.
    heard: u32,
    ended: usize,
}

impl Tally<'_> {
    fn accept(&mut self, said: &Said, is_late: bool, is_meanwhile: bool) {
        let add = |line, is: bool| {
            if is {
                word(self.memory, line).fetch_add(1, SeqCst);
            }
        };
        add(Line::Accepted, true);
        add(Line::AcceptedMeanwhile, is_meanwhile);
        add(Line::LateReceives, is_late);
        add(Line::LateCommits, said.is_late);
        self.heard |= 1 << said.lane;
        if self.heard.count_ones() as usize == LANES {
            word(self.memory, Line::Heard).store(self.cycle, SeqCst);
        }
    }

    fn end(&mut self) {
        self.ended += 1;
        if self.ended == LANES {
            word(self.memory, Line::ReceiverDone).store(self.cycle, SeqCst);
            *self = Tally { memory: self.memory, cycle: self.cycle + 1, heard: 0, ended: 0 };
        }
    }
}
