//! What goes into the kernel besides requests, and all that comes out of it.
//!
//! Descriptors never enter: a [`Token`] stands for each, and only the broker knows which descriptor it is.

use alloc::{string::String, vec, vec::Vec};

use keyway_abi::{Event, Farewell, Fault, ProcessNumber, Reply, Rights};

/// A descriptor that the broker keeps. Given once by the kernel (memory) or the broker (devices), never given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Something that Linux may refuse, whose outcome the kernel must be told with [`Answer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Task(pub u64);

/// What Linux told the broker about a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The pid.
    pub pid: u32,
    /// The effective user.
    pub uid: u32,
    /// The effective group.
    pub gid: u32,
    /// The supplementary groups, in any order.
    pub groups: Vec<u32>,
    /// The executable's path.
    pub executable: String,
    /// The same for all sessions of one running process, and never another's.
    pub account: (u64, u64),
}

impl Identity {
    /// Whether this is its effective group, or one of its supplementary ones.
    pub fn is_in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}

/// A process that has connected to the broker's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Who it is.
    pub identity: Identity,
    /// The policy's rights on its own process.
    pub own: Rights,
    /// The policy's rights on the directory.
    pub directory: Rights,
}

/// On which of a process's sockets a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    /// The session's own socket.
    Control,
    /// The socket on which descriptors are handed in.
    Deposit,
}

/// To what a reply belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// The request's number, chosen by the process.
    pub number: u32,
    /// The operation.
    pub opcode: u16,
    /// Where it came in.
    pub door: Door,
}

/// Which seals a memory must have once its writer has mapped it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SealUse {
    /// A lane's ring.
    Ring,
    /// A lane's ring of huge pages; every page must be there.
    HugeRing,
    /// An acknowledgement memory.
    Acknowledgement,
    /// A region that its one writer goes on writing; every page must be there.
    LiveRegion,
    /// The same of a region that can be frozen later.
    FreezableRegion,
    /// A region that several write; every page must be there.
    SharedRegion,
}

/// Which pair of sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PairKind {
    /// The session of a confined child.
    Session,
    /// The socket on which a process hands in descriptors.
    Deposit,
}

/// What the broker can have Linux do to a process, through its pidfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinuxSignal {
    /// `SIGTERM`.
    Terminate,
    /// `SIGKILL`.
    Kill,
    /// `SIGSTOP`.
    Stop,
    /// `SIGCONT`.
    Continue,
}

/// What travels beside a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Descriptor {
    /// A memory, for its writer.
    Writable(Token),
    /// A read-only open of a memory.
    Readable(Token),
    /// A read-only open of a broker page of the receiver of the frame.
    Page(u32),
    /// A device's descriptor.
    Device(Token),
    /// The far end of a pair; the broker keeps none of it.
    PairEnd(ProcessNumber, PairKind),
    /// One of the two ends of a doorbell, whichever; the broker keeps neither.
    DoorbellEnd(Token),
}

/// A frame to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// The reply to a request.
    Reply(Call, Reply),
    /// An event.
    Event(Event),
}

/// One thing that the kernel asks the broker to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a frame. Nothing happens if the process has gone.
    Send {
        /// To whom.
        to: ProcessNumber,
        /// What.
        frame: Outgoing,
        /// What goes beside it.
        descriptors: Vec<Descriptor>,
    },
    /// Make memories, sealed against shrinking and growing. Wants an answer.
    CreateMemory {
        /// Answer with this.
        task: Task,
        /// The first token; the others follow it.
        first: Token,
        /// How many.
        count: u32,
        /// Bytes of each.
        bytes: u64,
        /// Whether huge pages are wanted; there may be none.
        huge: bool,
    },
    /// Seal memories that their writer has mapped, and check that they are what they must be. Wants an answer.
    SealMemory {
        /// Answer with this.
        task: Task,
        /// Which.
        tokens: Vec<Token>,
        /// The seals.
        seals: SealUse,
        /// Bytes of each.
        bytes: u64,
    },
    /// Seal a memory against every change, for good. Wants an answer. Linux can take its time over it.
    FreezeMemory {
        /// Answer with this.
        task: Task,
        /// Which.
        token: Token,
        /// Whose it is.
        process: ProcessNumber,
    },
    /// Close a memory.
    DropMemory {
        /// Which.
        token: Token,
    },
    /// Close a descriptor that came from a process. Wants an answer once it is closed, which can take as long as its maker
    /// likes.
    DropDevice {
        /// Answer with this.
        task: Task,
        /// Which.
        token: Token,
    },
    /// Make a broker page for a process. Wants an answer.
    CreatePage {
        /// Answer with this.
        task: Task,
        /// Whose.
        process: ProcessNumber,
        /// Its number.
        page: u32,
    },
    /// Unmap a broker page.
    DropPage {
        /// Whose.
        process: ProcessNumber,
        /// Its number.
        page: u32,
    },
    /// Store a word in a broker page, and wake whoever sleeps on it.
    SetWord {
        /// Whose page.
        process: ProcessNumber,
        /// Its number.
        page: u32,
        /// The word.
        index: u16,
        /// What it says from now on.
        value: u32,
    },
    /// Make a pair of sockets. Wants an answer.
    CreatePair {
        /// Answer with this.
        task: Task,
        /// Whose requests will come in on it.
        process: ProcessNumber,
        /// For what.
        kind: PairKind,
    },
    /// Make the two ends of a doorbell, which are sent once this is answered. Wants an answer.
    CreateDoorbell {
        /// Answer with this.
        task: Task,
        /// The name of both.
        token: Token,
    },
    /// Close both ends of a doorbell that was made and is not wanted any more. None of them was sent.
    DropDoorbell {
        /// Which.
        token: Token,
    },
    /// Carry out a default action on a process that accepts it. Wants an answer.
    Signal {
        /// Answer with this.
        task: Task,
        /// Whom.
        process: ProcessNumber,
        /// With what.
        signal: LinuxSignal,
    },
    /// End a session, this being the last frame. The kernel has already forgotten the process.
    EndSession {
        /// Whose.
        process: ProcessNumber,
        /// Why; `None` when the process itself has gone.
        farewell: Option<Farewell>,
    },
}

/// Why an effect that wants an answer failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Linux refused: errno.
    System(i32),
    /// The process broke the protocol.
    Fault(Fault),
}

/// How an effect that wants an answer went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Which.
    pub task: Task,
    /// How.
    pub outcome: Result<(), Refusal>,
}

/// What the broker must do, in order. Borrows the kernel, so that nothing else happens to it before this is drained;
/// what is not taken is dropped with it.
#[derive(Debug)]
pub struct Effects<'k>(vec::Drain<'k, Effect>);

impl<'k> Effects<'k> {
    pub(crate) fn new(effects: &'k mut Vec<Effect>) -> Self {
        Effects(effects.drain(..))
    }
}

impl Iterator for Effects<'_> {
    type Item = Effect;

    fn next(&mut self) -> Option<Effect> {
        self.0.next()
    }
}
