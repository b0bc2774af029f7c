//! POSIX message queues (`mq_overview(7)`).
//!
//! One for each direction and receiver, of as many messages as the limits allow: the deeper a queue, the seldomer anybody
//! waits. Several senders share one. A queue needs no file system to be mounted, only limits that let it be made.

use std::{any::Any, ffi::CString, io, mem, ptr};

use crate::{
    Result,
    payload::Content,
    place::Place,
    scenario::{Kind, Scenario, Waiting},
    side::{Port, Role, Side},
    systems::{Rank, System},
};

pub(crate) struct Mqueue;

impl System for Mqueue {
    fn name(&self) -> &'static str {
        "mqueue"
    }

    fn rank(&self) -> Rank {
        Rank::Peer
    }

    fn offers(&self, scenario: Scenario) -> bool {
        // What is larger than that fits into the limits on few machines (`RLIMIT_MSGQUEUE`, `msgsize_max`).
        let is_allowed = scenario.bytes <= MESSAGE_BYTES_MAX;
        is_allowed
            && match scenario.kind {
                Kind::OneWay => scenario.batch == 1,
                Kind::RoundTrip(_) | Kind::FanIn(_) | Kind::FanOut(_) => true,
                _ => false,
            }
    }

    fn missing(&self) -> Option<String> {
        let name = format!("/keyway-bench-{}-probe", std::process::id());
        let made = Queue::make(&name, USUAL_BYTES, 1);
        unlink(&name);
        made.err().map(|error| format!("this process may make no message queue ({error})"))
    }

    fn prepare(&self, scenario: Scenario, place: &Place) -> Result<Box<dyn Any>> {
        let names = (0..scenario.answerers()).map(|index| name(place, index)).chain([back(place)]);
        let mut made = Made { names: Vec::new() };
        let share = scenario.answerers() + 1;
        for name in names {
            Queue::make(&name, scenario.bytes, share)?;
            made.names.push(name);
        }
        Ok(Box::new(made))
    }

    fn take_side(&self, side: &Side) -> Result<()> {
        let polls = matches!(side.scenario().kind, Kind::RoundTrip(Waiting::Spinning));
        let flags = if polls { libc::O_NONBLOCK } else { 0 };
        let (outgoing, incoming) = match side.role() {
            Role::Asker => {
                let all = (0..side.scenario().answerers())
                    .map(|index| Queue::open(&name(side.place(), index), flags));
                (all.collect::<Result<_>>()?, Queue::open(&back(side.place()), flags)?)
            }
            Role::Answerer => (
                vec![Queue::open(&back(side.place()), flags)?],
                Queue::open(&name(side.place(), side.index()), flags)?,
            ),
        };
        let content = side.content();
        side.talk(Ends { content, outgoing, incoming, buffer: vec![0; content.bytes] })
    }
}

/// The default of `msgsize_max`.
const MESSAGE_BYTES_MAX: usize = 8192;
const USUAL_BYTES: usize = 64;
/// Messages that a queue may hold, as many as the limits allow.
const DEPTHS: [i64; 4] = [1024, 256, 64, 10];
/// The default of `RLIMIT_MSGQUEUE`, which all queues of a user share.
const QUEUES_BYTES: usize = 819_200;
/// What Linux counts for a message beside its bytes, and more.
const OVERHEAD_BYTES: usize = 128;

fn name(place: &Place, answerer: usize) -> String {
    format!("/{}-{answerer}", place.name())
}

fn back(place: &Place) -> String {
    format!("/{}-back", place.name())
}

/// The queues go when it is dropped, once those who have them open have closed them.
struct Made {
    names: Vec<String>,
}

impl Drop for Made {
    fn drop(&mut self) {
        self.names.iter().for_each(|name| unlink(name));
    }
}

fn unlink(name: &str) {
    if let Ok(name) = CString::new(name) {
        // SAFETY: the name ends with a zero. A queue that is gone already is no matter.
        let _ = unsafe { libc::mq_unlink(name.as_ptr()) };
    }
}

struct Queue(libc::mqd_t);

impl Queue {
    /// Makes a queue that may take its share of the limit.
    fn make(name: &str, bytes: usize, share: usize) -> Result<Self> {
        let name = CString::new(name)?;
        let mut error = io::Error::from_raw_os_error(libc::EINVAL);
        for depth in DEPTHS {
            if depth > 10 && depth as usize * (bytes + OVERHEAD_BYTES) * share > QUEUES_BYTES {
                continue;
            }
            // SAFETY: all zero is a set of attributes.
            let mut attributes: libc::mq_attr = unsafe { mem::zeroed() };
            attributes.mq_maxmsg = depth;
            attributes.mq_msgsize = i64::try_from(bytes)?;
            let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
            // SAFETY: the name ends with a zero; with `O_CREAT` a mode and attributes follow (mq_open(3)).
            let queue = unsafe { libc::mq_open(name.as_ptr(), flags, 0o600, &raw const attributes) };
            if queue >= 0 {
                return Ok(Self(queue));
            }
            error = io::Error::last_os_error();
        }
        Err(error.into())
    }

    /// With `O_NONBLOCK` for those who poll; a round trip's queue is never full.
    fn open(name: &str, flags: libc::c_int) -> Result<Self> {
        let name = CString::new(name)?;
        // SAFETY: the name ends with a zero; without `O_CREAT` nothing follows (mq_open(3)).
        let queue = unsafe { libc::mq_open(name.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC | flags) };
        if queue >= 0 { Ok(Self(queue)) } else { Err(io::Error::last_os_error().into()) }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the queue is ours and open.
        let _ = unsafe { libc::mq_close(self.0) };
    }
}

struct Ends {
    content: Content,
    outgoing: Vec<Queue>,
    incoming: Queue,
    buffer: Vec<u8>,
}

impl Port for Ends {
    fn send(&mut self, number: u64) -> Result<()> {
        self.content.fill(&mut self.buffer, number);
        for queue in &self.outgoing {
            // SAFETY: the buffer has so many bytes.
            let sent = unsafe { libc::mq_send(queue.0, self.buffer.as_ptr().cast(), self.buffer.len(), 0) };
            if sent != 0 {
                return Err(io::Error::last_os_error().into());
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<u64> {
        let (start, bytes) = (self.buffer.as_mut_ptr().cast(), self.buffer.len());
        loop {
            // SAFETY: the buffer has so many bytes, and is ours to write.
            let received = unsafe { libc::mq_receive(self.incoming.0, start, bytes, ptr::null_mut()) };
            if let Ok(received) = usize::try_from(received) {
                return self.content.judge(&self.buffer[..received]);
            }
            let error = io::Error::last_os_error();
            // Only where both sides poll.
            if error.kind() != io::ErrorKind::WouldBlock {
                return Err(error.into());
            }
        }
    }
}
