//! What a hostile process costs others: a broker round trip beside a process that floods the broker in every way that it can,
//! beside the same beside one that merely spins with as many threads.
//!
//! The hostile process has no rights but those of everybody of its user, and as many sessions as it can open. Its threads: one
//! sends requests and never reads; one opens and closes lanes, regions and names; one makes trees of capabilities and takes them
//! back; one sends descriptors where none may be sent; one hands in descriptors whose close blocks.

use std::{
    fs,
    hint::black_box,
    io::{IoSlice, Write},
    mem::MaybeUninit,
    net::{TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use keyway::{
    Client, QueueOptions, Rights,
    abi::{DefaultActions, PROTOCOL_VERSION, Request, limits, request},
};
use keyway_broker::memory_use;
use rustix::net::{
    self, AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, sockopt,
};

use crate::{
    Result,
    reading::{Aim, Reading, Unit},
    rounds::median,
    stage::{Helper, HelperRole, Post, Stage, pin},
};

/// What is aimed at.
const TIMES: f64 = 2.0;

pub(super) fn measure(stage: &Stage) -> Result<Vec<Reading>> {
    pin(stage.cpus[0])?;
    let broker = stage.start_broker()?;
    let client = Client::connect_to(&stage.broker_path())?;
    let own = client.own_process().ok_or("the policy gives no capability to oneself")?;
    let mut grown = Growth::of(&broker)?;
    let mut readings = Vec::new();
    for (cpu, place) in [(1, "the broker's CPU"), (0, "the asker's CPU")] {
        let mut medians = [0.0; 2];
        for (role, found) in [HelperRole::Spinner, HelperRole::Flooder].into_iter().zip(&mut medians) {
            let mut helper = stage.start(role, Some(stage.cpus[cpu]), None)?;
            let mut trips = Vec::new();
            let begun = Instant::now();
            while begun.elapsed() < stage.effort.choose(Duration::from_millis(400), Duration::from_secs(3)) {
                let asked = Instant::now();
                own.permitted()?;
                trips.push(asked.elapsed().as_nanos() as f64);
                if trips.len().is_multiple_of(64) {
                    grown.look(&broker)?;
                }
            }
            if helper.has_ended()? {
                return Err(format!("the {role:?} ended before its time").into());
            }
            *found = median(trips);
        }
        let [spun, flooded] = medians;
        let reading = Reading::ns(format!("a round trip beside a flood on {place}"), flooded);
        readings.push(reading.beside("beside a spinning process", spun).aim(Aim::TimesBeside(TIMES)));
    }
    readings.extend(grown.readings());
    drop((own, client));
    broker.finish()?;
    Ok(readings)
}

/// How much more the broker had at most than before the flood.
struct Growth {
    before: [f64; 3],
    most: [f64; 3],
}

impl Growth {
    fn of(broker: &Helper) -> Result<Self> {
        let before = held(broker)?;
        Ok(Self { before, most: before })
    }

    fn look(&mut self, broker: &Helper) -> Result<()> {
        for (most, now) in self.most.iter_mut().zip(held(broker)?) {
            *most = most.max(now);
        }
        Ok(())
    }

    fn readings(&self) -> [Reading; 3] {
        let by = |index: usize| self.most[index] - self.before[index];
        // What waits for a process that does not read is most of what the broker itself keeps.
        let outboxes =
            limits::PROCESS_SESSIONS_MAX as usize * limits::OUTBOX_FRAMES_MAX * limits::FRAME_BYTES_MAX;
        let reading = |what: &str, unit, index: usize, most: f64| {
            Reading::new(format!("the flooded broker grew by at most: {what}"), unit, by(index))
                .aim(Aim::AtMost(most))
        };
        [
            reading("RssAnon", Unit::Bytes, 0, outboxes as f64),
            reading("RssShmem", Unit::Bytes, 1, limits::PROCESS_BYTES_MAX as f64),
            reading("descriptors", Unit::Number, 2, f64::from(limits::DESCRIPTORS_MAX)),
        ]
    }
}

fn held(broker: &Helper) -> Result<[f64; 3]> {
    let memory = memory_use(broker.pid())?;
    let descriptors = fs::read_dir(format!("/proc/{}/fd", broker.pid()))?.count();
    Ok([memory.anonymous_bytes as f64, memory.shared_bytes as f64, descriptors as f64])
}

/// What one thread does for as long as its process lives. An error is an answer, and it goes on.
type Attack = fn(&Path) -> Result<()>;

const ATTACKS: [Attack; 5] =
    [request_without_reading, open_and_close, revoke_trees, send_descriptors, deposit_lingering];

/// The hostile process.
pub(super) fn flood(post: &Post) -> Result<()> {
    let path = crate::stage::broker_path(&post.place);
    for attack in ATTACKS {
        let path: PathBuf = path.clone();
        thread::spawn(move || {
            loop {
                let _ = attack(&path);
            }
        });
    }
    post.say_ready()?;
    post.wait_for_end()
}

/// The process that merely spins, with as many threads.
pub(super) fn spin(post: &Post) -> Result<()> {
    for _ in ATTACKS {
        thread::spawn(|| {
            for round in 0_u64.. {
                black_box(round);
            }
        });
    }
    post.say_ready()?;
    post.wait_for_end()
}

fn connect(path: &Path) -> Result<OwnedFd> {
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let hello = request::Hello {
        version_min: PROTOCOL_VERSION,
        version_max: PROTOCOL_VERSION,
        default_actions: DefaultActions::Refused,
    };
    send(&socket, 1, &hello.into(), &[])?;
    Ok(socket)
}

fn send(socket: impl AsFd, number: u32, request: &Request, descriptors: &[OwnedFd]) -> Result<()> {
    let bytes = keyway_wire::encode_request(number, request, descriptors.len() as u16)
        .map_err(|error| format!("{error:?}"))?;
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut room);
    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    if !borrowed.is_empty() {
        beside.push(SendAncillaryMessage::ScmRights(&borrowed));
    }
    net::sendmsg(socket, &[IoSlice::new(&bytes)], &mut beside, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// As many requests as the socket takes; the replies are left to the broker.
fn request_without_reading(path: &Path) -> Result<()> {
    let socket = connect(path)?;
    for number in 2.. {
        let after = keyway::Handle::NONE;
        let request: Request = match number % 3 {
            0 => request::ListOwn { after }.into(),
            1 => request::CreateQueue {
                ring_bytes_max: 4096,
                senders_max: 1,
                stock: 0,
                order: request::QueueOrder::Fair,
            }
            .into(),
            _ => request::Delete { handle: after }.into(),
        };
        send(&socket, number, &request, &[])?;
    }
    Ok(())
}

fn open_and_close(path: &Path) -> Result<()> {
    let client = Client::connect_to(path)?;
    let mut kept = Vec::new();
    for _ in 0..200 {
        let queue = client.create_queue(QueueOptions::default())?;
        kept.push((client.open_sender(queue.capability())?, queue, client.create_region(4096)?));
    }
    Ok(())
}

fn revoke_trees(path: &Path) -> Result<()> {
    let client = Client::connect_to(path)?;
    let region = client.create_region(4096)?;
    let mut below = Vec::new();
    for _ in 0..2000 {
        below.push(region.derive(Rights::MAP, None)?.into_handle());
    }
    region.revoke()?;
    Ok(())
}

fn send_descriptors(path: &Path) -> Result<()> {
    let socket = connect(path)?;
    for number in 2.. {
        let request = request::ListOwn { after: keyway::Handle::NONE };
        send(&socket, number, &request.into(), &[OwnedFd::from(fs::File::open("/dev/null")?)])?;
    }
    Ok(())
}

/// Sockets that linger over bytes which nobody reads.
fn deposit_lingering(path: &Path) -> Result<()> {
    let client = Client::connect_to(path)?;
    let mut depositor = client.open_depositor()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut others = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(listener.local_addr()?)?;
        others.push(listener.accept()?.0);
        stream.set_nonblocking(true)?;
        while stream.write(&[0; 1 << 12]).is_ok() {}
        sockopt::set_socket_linger(&stream, Some(Duration::from_secs(2)))?;
        depositor.deposit("slow", &stream)?;
    }
    Ok(())
}
