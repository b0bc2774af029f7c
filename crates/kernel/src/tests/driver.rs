//! A broker for tests: it connects processes, sends their requests, answers tasks, and keeps what each process is told.
//!
//! Tasks are answered at once with success, unless [`Driver::hold`] keeps them for [`Driver::answer_next`]. The kernel
//! is audited after each input. [`Driver::finish`] ends every process and finds the kernel vacant.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::String,
    vec::Vec,
};

use keyway_abi::{
    Badge, CapabilityEntry, Created, DefaultActions, Denial, Event, Farewell, Handle, LaneEnd, LaneId,
    Listing, MappingId, Name, PROTOCOL_VERSION, ProcessNumber, Reply, Request, Rights, Terms, WordPlace,
    request::{self, Audience, MapAccess},
};

use keyway_provoked::Figures;

use crate::{
    Answer, Arrival, Call, Descriptor, Door, Effect, Identity, Kernel, Outgoing, Refusal, Task, Token,
    object::{DIRECTORY_RIGHTS, ProcessObject},
};

pub(super) const RING_BYTES: u32 = 4096;
pub(super) const REGION_BYTES: u64 = 8192;

/// A process that has said hello, with what its session began with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who {
    pub(super) number: ProcessNumber,
    pub(super) own: Handle,
    pub(super) directory: Handle,
}

/// See the module.
pub(super) struct Driver {
    pub(super) kernel: Kernel,
    /// Whether tasks wait for [`Driver::answer_next`].
    pub(super) hold: bool,
    /// The time of every input, in nanoseconds.
    pub(super) now_ns: u64,
    pub(super) pending: Vec<Task>,
    /// Whether each input is followed by an audit. Off only while a test fills something to its limit.
    pub(super) audits: bool,
    /// Each memory that was made and not dropped, with its size.
    pub(super) memories: BTreeMap<Token, u64>,
    pub(super) devices: BTreeSet<Token>,
    /// Each doorbell that was made, with how many of its ends were not sent.
    pub(super) doorbells: BTreeMap<Token, u32>,
    pub(super) farewells: BTreeMap<ProcessNumber, Option<Farewell>>,
    /// The effects of the last input.
    pub(super) effects: Vec<Effect>,
    replies: BTreeMap<(ProcessNumber, u32), (Reply, Vec<Descriptor>)>,
    events: BTreeMap<ProcessNumber, Vec<Event>>,
    words: BTreeMap<(ProcessNumber, u32, u16), u32>,
    making: BTreeMap<Task, Token>,
    present: BTreeSet<ProcessNumber>,
    calls: u32,
    pids: u32,
}

impl Driver {
    pub(super) fn new() -> Self {
        Driver {
            kernel: Kernel::default(),
            hold: false,
            now_ns: 0,
            pending: Vec::new(),
            audits: true,
            memories: BTreeMap::new(),
            devices: BTreeSet::new(),
            doorbells: BTreeMap::new(),
            farewells: BTreeMap::new(),
            effects: Vec::new(),
            replies: BTreeMap::new(),
            events: BTreeMap::new(),
            words: BTreeMap::new(),
            making: BTreeMap::new(),
            present: BTreeSet::new(),
            calls: 0,
            pids: 100,
        }
    }

    /// A process with all rights, which has said hello.
    pub(super) fn connect(&mut self) -> Who {
        self.connect_uid(1000)
    }

    pub(super) fn connect_uid(&mut self, uid: u32) -> Who {
        let identity = self.identity(uid);
        let number = self.arrive(identity);
        self.hello(number)
    }

    /// An identity that no process has had.
    pub(super) fn identity(&mut self, uid: u32) -> Identity {
        self.pids += 1;
        let executable = String::from("/usr/bin/probe");
        Identity {
            pid: self.pids,
            uid,
            gid: uid + 1,
            groups: Vec::new(),
            executable,
            account: (self.pids.into(), 7),
        }
    }

    /// A process that has connected and not said hello.
    pub(super) fn arrive(&mut self, identity: Identity) -> ProcessNumber {
        let arrival = Arrival { identity, own: ProcessObject::POSSIBLE, directory: DIRECTORY_RIGHTS };
        self.arrive_with(arrival).expect("the user has room for a session")
    }

    pub(super) fn arrive_with(&mut self, arrival: Arrival) -> Result<ProcessNumber, Farewell> {
        let (number, effects) = self.kernel.on_connect(self.now_ns, arrival);
        let effects = effects.collect();
        self.present.extend(number.ok());
        let _ = number.map_err(|farewell| note_farewell(farewell, ""));
        self.run(effects);
        number
    }

    pub(super) fn hello(&mut self, number: ProcessNumber) -> Who {
        match self.ask(number, HELLO) {
            Reply::Welcome(start) => Who {
                number,
                own: start.own.unwrap_or(Handle::NONE),
                directory: start.directory.unwrap_or(Handle::NONE),
            },
            other => panic!("a hello is welcome: {other:?}"),
        }
    }

    /// Sends a request on the control socket. Returns its number.
    pub(super) fn post(&mut self, process: ProcessNumber, request: impl Into<Request>) -> u32 {
        self.post_with(process, request, Door::Control, None)
    }

    pub(super) fn post_with(
        &mut self,
        process: ProcessNumber,
        request: impl Into<Request>,
        door: Door,
        device: Option<Token>,
    ) -> u32 {
        let request = request.into();
        self.calls += 1;
        let call = Call { number: self.calls, opcode: request.opcode(), door };
        self.devices.extend(device);
        let operation = request.operation();
        let effects = self.kernel.handle(self.now_ns, process, call, request, device).collect();
        self.run(effects);
        // Only what the kernel itself finds against a request: what a test says in Linux's place it has not provoked.
        if let Some(Some(farewell)) = self.farewells.get(&process) {
            note_farewell(*farewell, operation);
        }
        call.number
    }

    /// Sends a request and returns its reply, which must be there.
    pub(super) fn ask(&mut self, process: ProcessNumber, request: impl Into<Request>) -> Reply {
        self.ask_all(process, request).0
    }

    pub(super) fn ask_all(
        &mut self,
        process: ProcessNumber,
        request: impl Into<Request>,
    ) -> (Reply, Vec<Descriptor>) {
        let call = self.post(process, request);
        self.take_reply(process, call).expect("a reply to the request")
    }

    pub(super) fn reply_to(&mut self, process: ProcessNumber, call: u32) -> Option<Reply> {
        self.take_reply(process, call).map(|(reply, _)| reply)
    }

    /// Sends a request that must be denied, and finds that nothing else happened.
    pub(super) fn denied(&mut self, process: ProcessNumber, request: impl Into<Request>) -> Denial {
        let before = self.state();
        let reply = self.ask(process, request);
        let after = self.state();
        let same = before.bytes().zip(after.bytes()).take_while(|(before, after)| before == after).count();
        let from = |text: &str| text[same.saturating_sub(300)..].chars().take(400).collect::<String>();
        assert!(before == after, "a denial changes nothing: {}\n{}", from(&before), from(&after));
        assert_eq!(self.effects.len(), 1, "a denial does nothing: {:?}", self.effects);
        match reply {
            Reply::Denied(denial) => denial,
            other => panic!("denied: {other:?}"),
        }
    }

    /// The kernel's state, without its log and without what is left of the last input's budget.
    fn state(&mut self) -> String {
        let log = core::mem::take(&mut self.kernel.log);
        self.kernel.budget = 0;
        let text = format!("{:?}", self.kernel);
        self.kernel.log = log;
        text
    }

    /// Sends a request that must be answered with `Done`.
    pub(super) fn done(&mut self, process: ProcessNumber, request: impl Into<Request>) {
        assert_eq!(self.ask(process, request), Reply::Done);
    }

    /// Sends a request that must make a capability.
    pub(super) fn made(&mut self, process: ProcessNumber, request: impl Into<Request>) -> Created {
        match self.ask(process, request) {
            Reply::Capability(created) => created,
            other => panic!("a capability was made: {other:?}"),
        }
    }

    /// Answers the task that has waited longest.
    pub(super) fn answer_next(&mut self, outcome: Result<(), Refusal>) {
        let task = self.pending.remove(0);
        self.note_doorbell(task, outcome.is_ok());
        let effects = self.kernel.on_answer(self.now_ns, Answer { task, outcome }).collect();
        self.run(effects);
    }

    pub(super) fn end(&mut self, process: ProcessNumber) {
        let effects = self.kernel.on_end(self.now_ns, process, None).collect();
        self.run(effects);
    }

    pub(super) fn bind(&mut self, process: ProcessNumber, identity: Identity) {
        let effects = self.kernel.on_bind(self.now_ns, process, identity).collect();
        self.run(effects);
    }

    pub(super) fn sweep(&mut self) {
        let effects = self.kernel.sweep(self.now_ns).collect();
        self.run(effects);
    }

    /// Time passes, and what ends by itself meanwhile has ended.
    pub(super) fn wait(&mut self, ns: u64) {
        self.now_ns += ns;
        loop {
            let effects = self.kernel.expire(self.now_ns).collect();
            self.run(effects);
            let is_due = self.kernel.next_expiry_ns().is_some_and(|at| at <= self.now_ns);
            if !is_due && !self.kernel.is_sweeping() {
                return;
            }
            self.sweep();
        }
    }

    /// What a process was told since this was last asked.
    pub(super) fn events(&mut self, process: ProcessNumber) -> Vec<Event> {
        self.events.remove(&process).unwrap_or_default()
    }

    pub(super) fn word(&self, process: ProcessNumber, place: WordPlace) -> u32 {
        self.words.get(&(process, place.page, place.index)).copied().unwrap_or(0)
    }

    pub(super) fn list(&mut self, process: ProcessNumber) -> Vec<CapabilityEntry> {
        let mut all = Vec::new();
        let mut after = Handle::NONE;
        loop {
            let reply = self.ask(process, request::ListOwn { after });
            let Reply::Listing(Listing::Capabilities(part)) = reply else { panic!("a listing: {reply:?}") };
            let Some(last) = part.last() else { return all };
            after = last.handle;
            all.extend(part);
        }
    }

    pub(super) fn holds(&mut self, process: ProcessNumber, handle: Handle) -> bool {
        self.list(process).iter().any(|entry| entry.handle == handle)
    }

    /// Ends every process; then nothing may be left.
    pub(super) fn finish(mut self) {
        for process in core::mem::take(&mut self.present) {
            self.end(process);
        }
        while !self.pending.is_empty() {
            self.answer_next(Ok(()));
        }
        while self.kernel.is_sweeping() {
            self.sweep();
        }
        assert!(self.kernel.is_vacant(), "nothing is left: {:?}", self.kernel);
        assert!(self.memories.is_empty(), "every memory was dropped: {:?}", self.memories);
        assert!(self.devices.is_empty(), "every device was dropped: {:?}", self.devices);
        assert!(self.doorbells.is_empty(), "every end went somewhere: {:?}", self.doorbells);
    }

    fn take_reply(&mut self, process: ProcessNumber, call: u32) -> Option<(Reply, Vec<Descriptor>)> {
        self.replies.remove(&(process, call))
    }

    /// Does what the kernel asks for, and answers it unless answers are held.
    pub(super) fn run(&mut self, effects: Vec<Effect>) {
        if self.audits {
            self.kernel.audit();
        }
        self.effects.clone_from(&effects);
        let held = self.pending.len();
        for effect in effects {
            self.perform(effect);
        }
        if self.hold {
            return;
        }
        let first = core::mem::take(&mut self.effects);
        while self.pending.len() > held {
            let task = self.pending.remove(held);
            self.note_doorbell(task, true);
            let effects = self.kernel.on_answer(self.now_ns, Answer { task, outcome: Ok(()) }).collect();
            self.run(effects);
        }
        self.effects = first;
    }

    fn note_doorbell(&mut self, task: Task, made: bool) {
        if let (Some(token), true) = (self.making.remove(&task), made) {
            self.doorbells.insert(token, 2);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send { to, frame, descriptors } => {
                assert!(!self.farewells.contains_key(&to), "nothing is sent to who is gone");
                for descriptor in &descriptors {
                    if let Descriptor::Writable(token) | Descriptor::Readable(token) = descriptor {
                        assert!(self.memories.contains_key(token), "what is sent is there: {token:?}");
                    }
                    if let Descriptor::DoorbellEnd(token) = descriptor {
                        let left = self.doorbells.get_mut(token).expect("an end that is sent is there");
                        *left -= 1;
                        if *left == 0 {
                            self.doorbells.remove(token);
                        }
                    }
                }
                match frame {
                    Outgoing::Reply(call, reply) => {
                        note(&reply, call.opcode);
                        let before = self.replies.insert((to, call.number), (reply, descriptors));
                        assert_eq!(before, None, "one reply a request");
                    }
                    Outgoing::Event(event) => self.events.entry(to).or_default().extend(each(event)),
                }
            }
            Effect::CreateMemory { task, first, count, bytes, .. } => {
                self.memories
                    .extend((first.0..first.0 + u64::from(count)).map(|token| (Token(token), bytes)));
                self.pending.push(task);
            }
            Effect::SealMemory { task, tokens, bytes, .. } => {
                for token in &tokens {
                    assert_eq!(
                        self.memories.get(token),
                        Some(&bytes),
                        "what is sealed is there, and as it was made"
                    );
                }
                self.pending.push(task);
            }
            Effect::FreezeMemory { task, token, .. } => {
                assert!(self.memories.contains_key(&token), "what is frozen is there");
                self.pending.push(task);
            }
            // What Linux refuses was never made, see `answer_next`.
            Effect::CreateDoorbell { task, token } => {
                self.making.insert(task, token);
                self.pending.push(task);
            }
            Effect::DropDoorbell { token } => {
                assert_eq!(self.doorbells.remove(&token), Some(2), "dropped once, and whole: {token:?}");
            }
            Effect::CreatePage { task, .. } | Effect::Signal { task, .. } => self.pending.push(task),
            Effect::CreatePair { task, process, .. } => {
                self.present.insert(process);
                self.pending.push(task);
            }
            Effect::DropMemory { token } => {
                assert!(self.memories.remove(&token).is_some(), "dropped once: {token:?}");
            }
            Effect::DropDevice { task, token } => {
                assert!(self.devices.remove(&token), "dropped once: {token:?}");
                self.pending.push(task);
            }
            Effect::DropPage { .. } => {}
            Effect::SetWord { process, page, index, value } => {
                self.words.insert((process, page, index), value);
            }
            Effect::EndSession { process, farewell } => {
                if let Some(farewell @ Farewell::SystemRefused { .. }) = farewell {
                    note_farewell(farewell, "");
                }
                assert_eq!(self.farewells.insert(process, farewell), None, "a session ends once");
                self.present.remove(&process);
            }
        }
    }
}

/// What scenarios begin with.
impl Driver {
    /// A queue with `stock` acknowledgement memories mapped.
    pub(super) fn queue(&mut self, receiver: Who, stock: u8) -> Handle {
        let request = request::CreateQueue {
            ring_bytes_max: 1 << 16,
            senders_max: 8,
            stock,
            order: request::QueueOrder::Fair,
        };
        let reply = self.ask(receiver.number, request);
        let Reply::Queue { queue, first_ack, .. } = reply else { panic!("a queue: {reply:?}") };
        if stock > 0 {
            let mapped = request::AcksMapped { queue: queue.handle, first: first_ack, count: stock };
            self.done(receiver.number, mapped);
        }
        queue.handle
    }

    /// A region with its memory made and nothing mapped.
    pub(super) fn region(&mut self, creator: Who) -> Handle {
        self.made(
            creator.number,
            request::CreateRegion { bytes: REGION_BYTES, flags: request::RegionFlags::empty() },
        )
        .handle
    }

    /// A capability to `whom` with these rights, in the table of `holder`: as if it had come in a message.
    pub(super) fn introduce(&mut self, whom: Who, holder: Who, rights: Rights) -> Handle {
        let root = self.kernel.process(whom.number).root;
        self.kernel.commit_derive_into(root, holder.number, Terms::rights(rights), None)
    }

    /// Gives `to` a part of what `from` has. Returns the handle in the table of `to`.
    pub(super) fn give(&mut self, from: Who, handle: Handle, to: Who, rights: Rights) -> Handle {
        self.give_badged(from, handle, to, rights, None)
    }

    pub(super) fn give_badged(
        &mut self,
        from: Who,
        handle: Handle,
        to: Who,
        rights: Rights,
        badge: Option<Badge>,
    ) -> Handle {
        let process = self.introduce(to, from, Rights::ENDOW);
        let grant =
            request::Grant { from: handle, to: process, terms: Terms { badge, ..Terms::rights(rights) } };
        let made = self.made(from.number, grant);
        self.done(from.number, request::Delete { handle: process });
        self.events(to.number);
        made.handle
    }

    pub(super) fn open(&mut self, sender: Who, queue: Handle) -> (LaneId, WordPlace) {
        let reply = self.ask(
            sender.number,
            request::OpenLane { queue, ring_bytes: RING_BYTES, priority: 0, huge: false },
        );
        let Reply::LaneOpening { lane, word, .. } = reply else { panic!("a lane: {reply:?}") };
        self.done(sender.number, request::LaneMapped { lane });
        (lane, word)
    }

    /// A lane from `sender` to a queue of `receiver`, both ends told; the last events of the receiver are taken.
    pub(super) fn lane(&mut self, sender: Who, receiver: Who) -> Joined {
        let queue = self.queue(receiver, 2);
        let send = self.give(receiver, queue, sender, Rights::SEND | Rights::DERIVE | Rights::GRANT);
        let (lane, sender_word) = self.open(sender, send);
        let opened = self.opened(receiver);
        let Event::LaneOpened { word: receiver_word, peer_handle, .. } = opened else { unreachable!() };
        Joined { queue, send, lane, sender_word, receiver_word, peer_handle }
    }

    /// The one event that a process was told, which is a lane opened.
    pub(super) fn opened(&mut self, receiver: Who) -> Event {
        let mut events = self.events(receiver.number);
        events.retain(|event| matches!(event, Event::LaneOpened { .. }));
        assert_eq!(events.len(), 1, "one lane was opened");
        events.remove(0)
    }

    pub(super) fn map(&mut self, who: Who, region: Handle, access: MapAccess) -> (MappingId, WordPlace) {
        let reply = self.ask(who.number, request::MapRegion { region, access });
        let Reply::Mapping { mapping, word, bytes } = reply else { panic!("a mapping: {reply:?}") };
        assert_eq!(bytes, REGION_BYTES);
        (mapping, word)
    }

    /// A region whose creator has written it.
    pub(super) fn written_region(&mut self, writer: Who) -> (Handle, MappingId, WordPlace) {
        let region = self.region(writer);
        let (mapping, word) = self.map(writer, region, MapAccess::Write);
        self.done(writer.number, request::RegionMapped { mapping });
        (region, mapping, word)
    }

    pub(super) fn publish(&mut self, who: Who, queue: Handle, text: &str) -> Handle {
        let rights = Rights::SEND | Rights::DERIVE | Rights::GRANT;
        let audience = Audience::Everyone;
        let publish =
            request::Publish { directory: who.directory, name: name(text), queue, rights, audience };
        self.made(who.number, publish).handle
    }

    pub(super) fn lookup(&mut self, who: Who, text: &str) -> Created {
        self.made(
            who.number,
            request::Lookup { directory: who.directory, name: name(text), on_behalf_of: None },
        )
    }
}

/// Notes a denial, by the operation that was asked for.
fn note(reply: &Reply, opcode: u16) {
    let Reply::Denied(denial) = reply else { return };
    let operation = Request::operation_of(opcode).expect("what is answered was asked for");
    let errno = Some(denial.errno()).filter(|_| !matches!(denial, Denial::SystemRefused { .. }));
    let figures = Figures { number: Some(denial.number()), errno };
    keyway_provoked::note_figures(denial, operation, figures);
    if let Denial::QuotaExceeded { quota, .. } | Denial::ReceiverFull { quota } = denial {
        keyway_provoked::note(quota, operation);
    }
}

fn note_farewell(farewell: Farewell, operation: &str) {
    keyway_provoked::note(&farewell, operation);
    if let Farewell::Fault(fault) = farewell {
        keyway_provoked::note(&fault, operation);
    }
}

/// A lane between two processes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joined {
    /// The handle that made the queue, in the receiver's table.
    pub(super) queue: Handle,
    /// The handle through which the lane was opened, in the sender's table.
    pub(super) send: Handle,
    pub(super) lane: LaneId,
    pub(super) sender_word: WordPlace,
    pub(super) receiver_word: WordPlace,
    pub(super) peer_handle: Handle,
}

pub(super) const HELLO: request::Hello = request::Hello {
    version_min: PROTOCOL_VERSION,
    version_max: PROTOCOL_VERSION,
    default_actions: DefaultActions::Refused,
};

pub(super) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(super) fn derive(from: Handle, rights: Rights) -> request::Derive {
    request::Derive { from, terms: Terms::rights(rights) }
}

/// What one event says of several things, as one event for each.
fn each(event: Event) -> Vec<Event> {
    match event {
        Event::CapabilitiesLost { handles } => handles.into_iter().map(lost).collect(),
        Event::LanesEnded { lanes, why } => lanes.into_iter().map(|lane| lane_ended(lane, why)).collect(),
        Event::DoorbellsEnded { peers } => peers.into_iter().map(doorbell_ended).collect(),
        Event::AcksDropped { acks } => acks.into_iter().map(|(queue, ack)| ack_dropped(queue, ack)).collect(),
        other => alloc::vec![other],
    }
}

pub(super) fn lost(handle: Handle) -> Event {
    Event::CapabilitiesLost { handles: alloc::vec![handle] }
}

pub(super) fn lane_ended(lane: LaneId, why: LaneEnd) -> Event {
    Event::LanesEnded { lanes: alloc::vec![lane], why }
}

pub(super) fn doorbell_ended(peer: ProcessNumber) -> Event {
    Event::DoorbellsEnded { peers: alloc::vec![peer] }
}

pub(super) fn ack_dropped(queue: Handle, ack: u32) -> Event {
    Event::AcksDropped { acks: alloc::vec![(queue, ack)] }
}
