//! A kernel driven by bytes, in [`lanes`] one end of a lane, in [`segments`] what messages say of their parts, and in [`bridge`] the
//! bridge's machine.
//!
//! The bytes are a list of steps, one after another, until they end:
//!
//! | first byte, modulo 8 | then | what happens |
//! |---|---|---|
//! | 0 | 1: user | a process connects and says hello |
//! | 1 to 4 | 1: process, 2: opcode, 1: length, the body | a request, as it stands in a frame |
//! | 5 | 1: how | Linux answers the oldest task: granted, refused, or a fault |
//! | 6 | 1: process | a process ends |
//! | 7 | 2: microseconds | time passes; what has come to its end ends, and revocations go on |

#![forbid(unsafe_code)]

pub mod bridge;
pub mod lanes;
pub mod segments;

use std::collections::{BTreeSet, VecDeque};

use keyway_abi::{Fault, PROTOCOL_VERSION, ProcessNumber, Reply, Request, Rights, request};
use keyway_kernel::{Answer, Arrival, Call, Door, Effect, Identity, Kernel, Outgoing, Refusal, Task, Token};

/// Processes at a time.
const PROCESSES: usize = 6;
/// Steps of one run.
const STEPS: usize = 400;

/// Runs a kernel through the steps in `bytes`.
///
/// # Panics
/// When an invariant of the kernel does not hold, or it speaks to who is gone.
pub fn drive(bytes: &[u8]) {
    let mut host = Host::default();
    let mut bytes = Bytes(bytes);
    for _ in 0..STEPS {
        if host.step(&mut bytes).is_none() {
            break;
        }
        host.kernel.audit();
    }
    host.finish();
}

#[derive(Default)]
struct Host {
    kernel: Kernel,
    now_ns: u64,
    processes: Vec<ProcessNumber>,
    here: BTreeSet<ProcessNumber>,
    /// Children that have not spoken.
    unbound: BTreeSet<ProcessNumber>,
    tasks: VecDeque<Task>,
    calls: u32,
    pids: u32,
    devices: u64,
}

struct Bytes<'b>(&'b [u8]);

impl<'b> Bytes<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn word(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
    }
}

impl Host {
    fn step(&mut self, bytes: &mut Bytes<'_>) -> Option<()> {
        self.now_ns += 1000;
        match bytes.byte()? % 8 {
            0 => {
                let user = bytes.byte()?;
                self.connect(u32::from(user % 3));
            }
            1..=4 => {
                let (process, opcode, length) = (bytes.byte()?, bytes.word()?, bytes.byte()?);
                let body = bytes.take(length.into())?;
                self.request(process, opcode, body);
            }
            5 => {
                let how = bytes.byte()?;
                self.answer(how);
            }
            6 => {
                let process = bytes.byte()?;
                if let Some(process) = self.chosen(process) {
                    self.feed(|kernel, now| kernel.on_end(now, process, None).collect());
                }
            }
            _ => {
                self.now_ns += u64::from(bytes.word()?) * 1000;
                self.feed(|kernel, now| kernel.expire(now).collect());
                self.feed(|kernel, now| kernel.sweep(now).collect());
            }
        }
        Some(())
    }

    fn connect(&mut self, user: u32) {
        if self.here.len() >= PROCESSES {
            return;
        }
        let identity = self.identity(1000 + user);
        let (own, directory) = (Rights::all(), Rights::all());
        let (number, effects) = self.kernel.on_connect(self.now_ns, Arrival { identity, own, directory });
        let effects: Vec<Effect> = effects.collect();
        if let Ok(number) = number {
            self.here.insert(number);
            self.processes.push(number);
        }
        self.carry_out(effects);
        // Its first page.
        self.answer(0);
        if let Ok(number) = number {
            let hello = request::Hello {
                version_min: PROTOCOL_VERSION,
                version_max: PROTOCOL_VERSION,
                default_actions: keyway_abi::DefaultActions::Accepted,
            };
            self.ask(number, hello.into());
        }
    }

    fn identity(&mut self, uid: u32) -> Identity {
        self.pids += 1;
        let executable = String::from("/usr/bin/fuzzed");
        Identity {
            pid: self.pids,
            uid,
            gid: uid,
            groups: vec![uid + 1],
            executable,
            account: (self.pids.into(), 0),
        }
    }

    fn chosen(&self, choice: u8) -> Option<ProcessNumber> {
        let count = self.processes.len();
        self.processes.get(usize::from(choice).checked_rem(count)?).copied()
    }

    fn request(&mut self, process: u8, opcode: u16, body: &[u8]) {
        let Some(process) = self.chosen(process) else { return };
        let mut frame = Vec::with_capacity(16 + body.len());
        frame.extend(PROTOCOL_VERSION.to_le_bytes());
        frame.extend(opcode.to_le_bytes());
        frame.extend([0; 4]);
        frame.extend(1_u32.to_le_bytes());
        frame.extend((body.len() as u32).to_le_bytes());
        frame.extend(body);
        if let Ok((_, request)) = keyway_wire::decode_request(&frame, 0) {
            self.ask(process, request);
        }
    }

    fn ask(&mut self, process: ProcessNumber, request: Request) {
        if self.unbound.remove(&process) {
            let identity = self.identity(1000);
            self.feed(|kernel, now| kernel.on_bind(now, process, identity).collect());
        }
        self.calls += 1;
        let is_deposit = matches!(request, Request::Deposit(_));
        let door = if is_deposit { Door::Deposit } else { Door::Control };
        let device = is_deposit.then(|| {
            self.devices += 1;
            Token(1 << 63 | self.devices)
        });
        let call = Call { number: self.calls, opcode: request.opcode(), door };
        self.feed(|kernel, now| kernel.handle(now, process, call, request, device).collect());
    }

    fn answer(&mut self, how: u8) {
        let Some(task) = self.tasks.pop_front() else { return };
        let outcome = match how % 8 {
            0..=4 => Ok(()),
            5 => Err(Refusal::System(12)),
            6 => Err(Refusal::System(i32::from(how))),
            _ => Err(Refusal::Fault(Fault::SealsWrong { found: 0, expected: 1 })),
        };
        self.feed(|kernel, now| kernel.on_answer(now, Answer { task, outcome }).collect());
    }

    fn feed(&mut self, input: impl FnOnce(&mut Kernel, u64) -> Vec<Effect>) {
        let effects = input(&mut self.kernel, self.now_ns);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, frame, .. } => {
                    assert!(self.here.contains(&to), "{frame:?} is sent to {to}, which is gone");
                    // A frame that is too long would be the broker's end.
                    let bytes = match &frame {
                        Outgoing::Reply(call, reply) => {
                            keyway_wire::encode_reply(call.opcode, call.number, reply, 0)
                        }
                        Outgoing::Event(event) => keyway_wire::encode_event(event, 0),
                    };
                    assert!(bytes.is_ok(), "{frame:?} fits in a frame");
                    if let Outgoing::Reply(_, Reply::Denied(denial)) = frame {
                        assert_ne!((denial.number(), denial.errno()), (0, 0));
                        assert!(!denial.to_string().is_empty());
                    }
                }
                Effect::EndSession { process, .. } => {
                    self.here.remove(&process);
                }
                Effect::CreateMemory { task, .. }
                | Effect::SealMemory { task, .. }
                | Effect::FreezeMemory { task, .. }
                | Effect::DropDevice { task, .. }
                | Effect::Signal { task, .. }
                | Effect::CreateDoorbell { task, .. }
                | Effect::CreatePage { task, .. } => self.tasks.push_back(task),
                Effect::CreatePair { task, process, .. } => {
                    if self.here.insert(process) {
                        self.processes.push(process);
                        self.unbound.insert(process);
                    }
                    self.tasks.push_back(task);
                }
                Effect::DropMemory { .. }
                | Effect::DropPage { .. }
                | Effect::DropDoorbell { .. }
                | Effect::SetWord { .. } => {}
            }
        }
    }

    /// Everybody goes, and nothing is left.
    fn finish(mut self) {
        while let Some(process) = self.here.first().copied() {
            self.feed(|kernel, now| kernel.on_end(now, process, None).collect());
            self.here.remove(&process);
        }
        while !self.tasks.is_empty() || self.kernel.is_sweeping() {
            self.answer(0);
            self.feed(|kernel, now| kernel.sweep(now).collect());
        }
        self.kernel.audit();
        assert!(self.kernel.is_vacant(), "nothing is left");
    }
}
