//! A kernel in this process, driven without a broker: what a request costs there, and nothing else.
//!
//! Tasks that Linux would carry out are answered at once with success. One process, the hub, makes the objects and
//! starts the others as its children, because a starter may put capabilities into its child's table.

use std::time::Instant;

use keyway::abi::{
    DefaultActions, Handle, LaneId, PROTOCOL_VERSION, ProcessNumber, Reply, Request, Rights, Terms,
    request::{self, RegionFlags},
};
use keyway_kernel::{
    Answer, Arrival, Call, DIRECTORY_RIGHTS, Door, Effect, Effects, Identity, Kernel, Limits, OWN_RIGHTS,
    Outgoing, Task,
};

use crate::Result;

pub(crate) struct World {
    kernel: Kernel,
    calls: u32,
    tasks: Vec<Task>,
    /// The last child that was made.
    newcomer: Option<ProcessNumber>,
    hub: ProcessNumber,
    hub_own: Handle,
    pids: u32,
}

/// A child of the hub.
#[derive(Clone, Copy)]
pub(crate) struct Child {
    pub(crate) number: ProcessNumber,
    /// It, in the hub's table.
    pub(crate) process: Handle,
}

/// A capability and who holds it.
#[derive(Clone, Copy)]
pub(crate) struct Held {
    pub(crate) by: ProcessNumber,
    pub(crate) handle: Handle,
}

/// Rights of what is granted and derived here.
pub(crate) const RIGHTS: Rights = Rights::DERIVE.union(Rights::GRANT).union(Rights::MAP);

impl World {
    pub(crate) fn new() -> Result<Self> {
        let kernel = Kernel::new(Limits::NONE);
        let hub = ProcessNumber(0);
        let mut world = Self {
            kernel,
            calls: 0,
            tasks: Vec::new(),
            newcomer: None,
            hub,
            hub_own: Handle::NONE,
            pids: 100,
        };
        let arrival = Arrival { identity: world.identity(), own: OWN_RIGHTS, directory: DIRECTORY_RIGHTS };
        let (arrived, effects) = world.kernel.on_connect(NOW_NS, arrival);
        let mut tasks = Vec::new();
        note(effects, None, &mut tasks, &mut world.newcomer);
        world.hub = arrived.map_err(|farewell| format!("the hub was turned away: {farewell}"))?;
        world.tasks = tasks;
        world.settle(None);
        match world.ask(world.hub, HELLO)? {
            Reply::Welcome(start) => world.hub_own = start.own.ok_or("no capability to oneself")?,
            other => return Err(unexpected(&other)),
        }
        Ok(world)
    }

    pub(crate) fn hub(&self) -> ProcessNumber {
        self.hub
    }

    /// Sends a request, answers its tasks, and returns the reply, which must be there.
    pub(crate) fn ask(&mut self, process: ProcessNumber, request: impl Into<Request>) -> Result<Reply> {
        self.post(process, request.into()).ok_or_else(|| "no reply".into())
    }

    /// The same for a request that is answered later.
    fn post(&mut self, process: ProcessNumber, request: Request) -> Option<Reply> {
        self.calls = self.calls.wrapping_add(1);
        let number = self.calls;
        let call = Call { number, opcode: request.opcode(), door: Door::Control };
        let effects = self.kernel.handle(NOW_NS, process, call, request, None);
        let reply = note(effects, Some(number), &mut self.tasks, &mut self.newcomer);
        if self.tasks.is_empty() { reply } else { reply.or(self.settle(Some(number))) }
    }

    /// Answers tasks until there is none, and returns the reply that they led to.
    fn settle(&mut self, call: Option<u32>) -> Option<Reply> {
        let mut reply = None;
        while let Some(task) = self.tasks.pop() {
            let effects = self.kernel.on_answer(NOW_NS, Answer { task, outcome: Ok(()) });
            reply = note(effects, call, &mut self.tasks, &mut self.newcomer).or(reply);
        }
        reply
    }

    pub(crate) fn made(&mut self, process: ProcessNumber, request: impl Into<Request>) -> Result<Handle> {
        match self.ask(process, request)? {
            Reply::Capability(created) => Ok(created.handle),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) fn done(&mut self, process: ProcessNumber, request: impl Into<Request>) -> Result<()> {
        match self.ask(process, request)? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// A process that has said hello and holds nothing.
    pub(crate) fn child(&mut self) -> Result<Child> {
        let process = self.made(self.hub, request::StartChild { process: self.hub_own })?;
        let number = self.newcomer.take().ok_or("no child was made")?;
        let identity = self.identity();
        let effects = self.kernel.on_bind(NOW_NS, number, identity);
        note(effects, None, &mut self.tasks, &mut self.newcomer);
        self.settle(None);
        self.ask(number, HELLO)?;
        Ok(Child { number, process })
    }

    /// A region of the hub's.
    pub(crate) fn region(&mut self) -> Result<Handle> {
        self.made(self.hub, request::CreateRegion { bytes: 4096, flags: RegionFlags::empty() })
    }

    pub(crate) fn derive(&mut self, from: Held) -> Result<Handle> {
        let derive = request::Derive { from: from.handle, terms: Terms::rights(RIGHTS) };
        self.made(from.by, derive)
    }

    /// Gives the child a capability that is derived from one of the hub's.
    pub(crate) fn grant(&mut self, from: Handle, to: Child) -> Result<Held> {
        let grant = request::Grant { from, to: to.process, terms: Terms::rights(RIGHTS) };
        Ok(Held { by: to.number, handle: self.made(self.hub, grant)? })
    }

    pub(crate) fn delete(&mut self, held: Held) -> Result<()> {
        self.done(held.by, request::Delete { handle: held.handle })
    }

    /// Takes back all that was derived from a capability of the hub's, with every step of the sweep. Returns how many.
    pub(crate) fn revoke(&mut self, handle: Handle) -> Result<u64> {
        let mut reply = self.post(self.hub, request::Revoke { handle }.into());
        while self.kernel.is_sweeping() {
            let effects = self.kernel.sweep(NOW_NS);
            reply = note(effects, Some(self.calls), &mut self.tasks, &mut self.newcomer).or(reply);
        }
        match reply {
            Some(Reply::Revoked { count }) => Ok(count),
            Some(other) => Err(unexpected(&other)),
            None => Err("a revocation without an end".into()),
        }
    }

    /// A queue of the hub's with this many acknowledgement memories.
    pub(crate) fn queue(&mut self, stock: u8) -> Result<Handle> {
        let request = request::CreateQueue {
            ring_bytes_max: 1 << 16,
            senders_max: 120,
            stock,
            order: request::QueueOrder::Fair,
        };
        let Reply::Queue { queue, first_ack, .. } = self.ask(self.hub, request)? else {
            return Err("no queue".into());
        };
        let (queue, first, count) = (queue.handle, first_ack, stock);
        self.done(self.hub, request::AcksMapped { queue, first, count })?;
        Ok(queue)
    }

    /// A lane from the child to a queue of the hub's.
    pub(crate) fn lane(&mut self, queue: Handle, child: Child) -> Result<LaneId> {
        let rights = Rights::SEND;
        let grant = request::Grant { from: queue, to: child.process, terms: Terms::rights(rights) };
        let queue = self.made(self.hub, grant)?;
        let Reply::LaneOpening { lane, .. } =
            self.ask(child.number, request::OpenLane { queue, ring_bytes: 4096, priority: 0, huge: false })?
        else {
            return Err("no lane".into());
        };
        self.done(child.number, request::LaneMapped { lane })?;
        Ok(lane)
    }

    /// `count` capabilities of children: each region gives one to a child, which derives the others from it. A child
    /// holds [`EACH`] at most, and a region has at most [`EACH_REGION`].
    pub(crate) fn populate(&mut self, count: usize) -> Result<Vec<Held>> {
        let mut all = Vec::with_capacity(count);
        let mut child = self.child()?;
        let mut of_child = 0;
        while all.len() < count {
            if of_child >= EACH {
                (child, of_child) = (self.child()?, 0);
            }
            let region = self.region()?;
            let first = self.grant(region, child)?;
            all.push(first);
            let more = (EACH_REGION - 1).min(count - all.len());
            for _ in 0..more {
                let handle = self.derive(first)?;
                all.push(Held { by: child.number, handle });
            }
            of_child += more + 1;
        }
        Ok(all)
    }

    fn identity(&mut self) -> Identity {
        self.pids += 1;
        let executable = String::from("/usr/bin/figure");
        Identity {
            pid: self.pids,
            uid: 1000,
            gid: 1000,
            groups: Vec::new(),
            executable,
            account: (self.pids.into(), 1),
        }
    }
}

/// Capabilities of one child, so that a table is nearly full.
pub(crate) const EACH: usize = 4000;
/// Capabilities of one region.
const EACH_REGION: usize = 1000;
/// No time passes: nothing here ends by itself.
const NOW_NS: u64 = 1;

const HELLO: request::Hello = request::Hello {
    version_min: PROTOCOL_VERSION,
    version_max: PROTOCOL_VERSION,
    default_actions: DefaultActions::Refused,
};

/// Goes through all effects as a broker would, keeps the tasks, and returns the reply to `call`.
#[inline]
fn note(
    effects: Effects<'_>,
    call: Option<u32>,
    tasks: &mut Vec<Task>,
    newcomer: &mut Option<ProcessNumber>,
) -> Option<Reply> {
    let mut answered = None;
    for effect in effects {
        match effect {
            Effect::Send { frame: Outgoing::Reply(to, reply), .. } if Some(to.number) == call => {
                answered = Some(reply);
            }
            Effect::CreatePair { task, process, .. } => {
                *newcomer = Some(process);
                tasks.push(task);
            }
            Effect::CreateMemory { task, .. }
            | Effect::SealMemory { task, .. }
            | Effect::FreezeMemory { task, .. }
            | Effect::CreatePage { task, .. }
            | Effect::CreateDoorbell { task, .. }
            | Effect::DropDevice { task, .. }
            | Effect::Signal { task, .. } => tasks.push(task),
            Effect::Send { .. }
            | Effect::DropMemory { .. }
            | Effect::DropPage { .. }
            | Effect::DropDoorbell { .. }
            | Effect::SetWord { .. }
            | Effect::EndSession { .. } => {}
        }
    }
    answered
}

#[cold]
pub(crate) fn unexpected(reply: &Reply) -> Box<dyn std::error::Error> {
    format!("the kernel answered {reply:?}").into()
}

/// How long each of `count` took, in nanoseconds: one reading of the clock before all of them and one after.
pub(crate) fn time_each(count: usize, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed().as_nanos() as f64 / count as f64)
}

/// A sequence of random numbers from a seed (xorshift64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}
