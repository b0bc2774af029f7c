//! The state, and the dispatch: one match names every operation.
//!
//! # Invariants
//! Each has a line in `audit.rs`.
//! 1. A handle of a process names a capability whose holder is that process and slot, and the other way round.
//! 2. An object's count of capabilities is the number of capabilities that name it; at 0 it does not exist.
//! 3. What is charged to an account is exactly what exists for it.
//! 4. A lane is known to its queue, its ends and its capability, and to nobody else.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use keyway_abi::{
    AuditEntry, Denial, Event, Farewell, Fault, Handle, Kind, LaneId, MappingId, Name, ProcessNumber, Reply,
    Request, Rights, Terms, Verdict, WordPlace,
    layout::{GENERATION_FIRST, WORD_REVOKED},
    limits::SWEEP_STEP,
};

use crate::{
    account::{AccountId, Accounts},
    effect::{Answer, Arrival, Call, Descriptor, Effect, Effects, Identity, Outgoing, Task, Token},
    lane::{Lane, Mapping, Waiting},
    limits::{Charge, Limits},
    log::Log,
    neighbours::{Neighbours, Pair},
    news::News,
    object::{Body, DIRECTORY_RIGHTS, Object},
    process::{HeldObjects, Phase, Process},
    rules::NameRules,
    sweep::{Awaiting, Caller, Sweep, Turns},
    table::Table,
    tree::{Capability, CapabilityId, Child, Holder, ObjectId, Tree},
};

/// Effects of which the room is kept between inputs.
pub(crate) const EFFECTS_KEPT: usize = 4096;

/// What an operation that was not denied leads to.
pub(crate) enum Outcome {
    /// This reply, with these descriptors beside it.
    Reply(Reply, Vec<Descriptor>),
    /// The reply comes later: after an answer from Linux, or after a revocation.
    Later,
    /// The process broke the protocol.
    Fault(Fault),
    /// There is no version in common.
    NoVersion,
}

impl Outcome {
    pub(crate) fn reply(reply: Reply) -> Result<Self, Denial> {
        Ok(Outcome::Reply(reply, Vec::new()))
    }
}

/// The state machine. See the crate.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) now_ns: u64,
    pub(crate) tree: Tree,
    pub(crate) accounts: Accounts,
    pub(crate) objects: BTreeMap<ObjectId, Object>,
    pub(crate) processes: BTreeMap<ProcessNumber, Process>,
    /// Which of the objects are queues.
    pub(crate) queues: BTreeSet<ObjectId>,
    pub(crate) lanes: BTreeMap<LaneId, Lane>,
    /// Who shares lanes with whom.
    pub(crate) neighbours: BTreeMap<Pair, Neighbours>,
    pub(crate) mappings: BTreeMap<MappingId, Mapping>,
    pub(crate) names: BTreeMap<Name, ObjectId>,
    /// Who waits for which name.
    pub(crate) name_waits: BTreeSet<(Name, ProcessNumber)>,
    pub(crate) waiting: BTreeMap<Task, (Option<Awaiting>, Waiting)>,
    /// Revocations under way, by what they stand on.
    pub(crate) sweeps: BTreeMap<CapabilityId, Sweep>,
    /// Whose turn it is. Some may have ended meanwhile.
    pub(crate) turns: Turns,
    /// How many more capabilities may be cleared away before somebody else is served.
    pub(crate) budget: usize,
    pub(crate) directory_root: CapabilityId,
    pub(crate) effects: Vec<Effect>,
    /// What the processes are to be told once this input has been handled.
    pub(crate) news: BTreeMap<ProcessNumber, News>,
    pub(crate) last_number: u64,
    pub(crate) last_generation: u32,
    pub(crate) log: Log,
    /// Who may publish and look up which names.
    pub(crate) rules: NameRules,
}

impl Default for Kernel {
    fn default() -> Self {
        Kernel::new(Limits::default())
    }
}

impl Kernel {
    /// A kernel that knows of nobody.
    pub fn new(limits: Limits) -> Self {
        let mut tree = Tree::default();
        let directory = ObjectId(1);
        let directory_root = tree.insert_root(directory, DIRECTORY_RIGHTS, Holder::Kernel);
        let object = Object { capabilities: 1, account: None, acl: None, body: Body::Directory };
        Kernel {
            now_ns: 0,
            tree,
            accounts: Accounts::new(limits),
            objects: BTreeMap::from([(directory, object)]),
            processes: BTreeMap::new(),
            queues: BTreeSet::new(),
            lanes: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            mappings: BTreeMap::new(),
            names: BTreeMap::new(),
            name_waits: BTreeSet::new(),
            waiting: BTreeMap::new(),
            sweeps: BTreeMap::new(),
            turns: Turns::default(),
            budget: 0,
            directory_root,
            effects: Vec::new(),
            news: BTreeMap::new(),
            last_number: 1,
            last_generation: GENERATION_FIRST - 1,
            log: Log::default(),
            rules: NameRules::default(),
        }
    }

    /// From now on these rules for names hold. What is published, and what was looked up, stays. Who waits for a name that is there
    /// and could not look it up until now is told.
    pub fn set_rules(&mut self, now_ns: u64, rules: NameRules) -> Effects<'_> {
        self.begin(now_ns);
        self.rules = rules;
        self.tell_all_waiters();
        self.finish()
    }

    /// From now on these limits hold. Who has more than that keeps it, and gets no more.
    pub fn set_limits(&mut self, limits: Limits) {
        self.accounts.set_limits(limits);
    }

    /// A process has connected to the broker's socket. Returns its number, or, when a limit is reached, what the broker tells it
    /// before it closes the connection.
    pub fn on_connect(
        &mut self,
        now_ns: u64,
        arrival: Arrival,
    ) -> (Result<ProcessNumber, Farewell>, Effects<'_>) {
        self.begin(now_ns);
        let number = self.commit_connect(arrival);
        (number, self.finish())
    }

    /// The first frame of a confined child has come, from this process.
    pub fn on_bind(&mut self, now_ns: u64, process: ProcessNumber, identity: Identity) -> Effects<'_> {
        self.begin(now_ns);
        self.commit_bind(process, identity);
        self.finish()
    }

    /// A request has come. `device` stands for the one descriptor that came beside it on a deposit socket.
    pub fn handle(
        &mut self,
        now_ns: u64,
        process: ProcessNumber,
        call: Call,
        request: Request,
        device: Option<Token>,
    ) -> Effects<'_> {
        self.begin(now_ns);
        self.expire_step();
        // What is over by now is told before what is asked for is answered.
        self.tell_news();
        let caller = Caller { process, call };
        self.log.set_asker(Some((process, call.opcode)));
        let known = self.processes.get(&process).map(|process| process.phase);
        let outcome = match (known, &request) {
            (None | Some(Phase::Ending | Phase::Unbound), _) => Ok(Outcome::Later),
            (Some(Phase::Silent), Request::Hello(_)) | (Some(Phase::Ready), _) => {
                self.dispatch(caller, request, device)
            }
            (Some(Phase::Silent), _) => Ok(Outcome::Fault(Fault::HelloMissing)),
        };
        let taken =
            matches!((&outcome, call.opcode), (Ok(Outcome::Reply(..)), keyway_abi::request::Deposit::OPCODE));
        if let (Some(token), false) = (device, taken) {
            self.refuse_device(process, token);
        }
        self.log.set_asker(None);
        match outcome {
            Ok(Outcome::Reply(reply, descriptors)) => self.reply(caller, reply, descriptors),
            Ok(Outcome::Later) => {}
            Ok(Outcome::Fault(fault)) => self.end_session(process, Some(Farewell::Fault(fault))),
            Ok(Outcome::NoVersion) => self.end_session(process, Some(Farewell::VersionUnsupported)),
            Err(denial) => {
                // Linux may have refused a page for want of memory that has come back since.
                self.want_page(process);
                self.reply(caller, Reply::Denied(denial), Vec::new());
            }
        }
        self.finish()
    }

    /// Linux has done, or refused, what an effect asked for.
    pub fn on_answer(&mut self, now_ns: u64, answer: Answer) -> Effects<'_> {
        self.begin(now_ns);
        self.commit_answer(answer);
        self.finish()
    }

    /// A process has died, closed its socket, or must go because of what `farewell` says.
    pub fn on_end(&mut self, now_ns: u64, process: ProcessNumber, farewell: Option<Farewell>) -> Effects<'_> {
        self.begin(now_ns);
        self.end_session(process, farewell);
        self.finish()
    }

    /// One more bounded step of the revocations under way. Call it once a turn while [`Kernel::is_sweeping`].
    pub fn sweep(&mut self, now_ns: u64) -> Effects<'_> {
        self.begin(now_ns);
        self.sweep_step();
        self.finish()
    }

    /// When [`Kernel::expire`] is next to be called, in nanoseconds of `now_ns`.
    pub fn next_expiry_ns(&self) -> Option<u64> {
        self.tree.next_expiry().map(|(at, _)| at)
    }

    /// Ends what ends by itself, in bounded steps: call it at [`Kernel::next_expiry_ns`], and again while that has passed.
    pub fn expire(&mut self, now_ns: u64) -> Effects<'_> {
        self.begin(now_ns);
        self.expire_step();
        self.finish()
    }

    /// Whether a revocation is under way.
    pub fn is_sweeping(&self) -> bool {
        debug_assert!(self.sweeps.len() <= self.turns.len(), "each revocation has its turn");
        !self.sweeps.is_empty()
    }

    /// An input has been handled.
    fn finish(&mut self) -> Effects<'_> {
        self.tell_news();
        Effects::new(&mut self.effects)
    }

    /// An input is to be handled.
    fn begin(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        self.budget = SWEEP_STEP;
        if self.effects.capacity() > EFFECTS_KEPT {
            self.effects = Vec::new();
        }
    }

    fn dispatch(
        &mut self,
        caller: Caller,
        request: Request,
        device: Option<Token>,
    ) -> Result<Outcome, Denial> {
        match request {
            Request::Hello(request) => self.hello(caller, &request),
            Request::CreateQueue(request) => self.create_queue(caller, &request),
            Request::TopUp(request) => self.top_up(caller, &request),
            Request::AcksMapped(request) => self.acks_mapped(caller, &request),
            Request::LaneMapped(request) => self.lane_mapped(caller, &request),
            Request::RegionMapped(request) => self.region_mapped(caller, &request),
            Request::Delete(request) => self.delete(caller, &request),
            Request::Derive(request) => self.derive(caller, &request),
            Request::Grant(request) => self.grant(caller, &request),
            Request::Revoke(request) => self.revoke(caller, &request),
            Request::Publish(request) => self.publish(caller, request),
            Request::Lookup(request) => self.lookup(caller, &request),
            Request::OpenLane(request) => self.open_lane(caller, &request),
            Request::CloseLane(request) => self.close_lane(caller, &request),
            Request::CreateRegion(request) => self.create_region(caller, &request),
            Request::MapRegion(request) => self.map_region(caller, &request),
            Request::Unmap(request) => self.unmap(caller, &request),
            Request::OpenDeposit(request) => self.open_deposit(caller, &request),
            Request::Deposit(request) => self.deposit(caller, request, device),
            Request::Claim(request) => self.claim(caller, &request),
            Request::EscrowPut(request) => self.escrow_put(caller, &request),
            Request::EscrowWithdraw(request) => self.escrow_withdraw(caller, &request),
            Request::EscrowTake(request) => self.escrow_take(caller, &request),
            Request::Watch(request) => self.watch(caller, &request),
            Request::ListOwn(request) => self.list_own(caller, &request),
            Request::StartChild(request) => self.start_child(caller, &request),
            Request::ListProcesses(request) => self.list_processes(caller, &request),
            Request::ListCapabilities(request) => self.list_capabilities(caller, &request),
            Request::ListQueues(request) => self.list_queues(caller, &request),
            Request::ListLanes(request) => self.list_lanes(caller, &request),
            Request::Doorbell(request) => self.doorbell(caller, &request),
            Request::AclAdd(request) => self.acl_add(caller, &request),
            Request::AclRemove(request) => self.acl_remove(caller, &request),
            Request::AclList(request) => self.acl_list(caller, &request),
            Request::AclCheck(request) => self.acl_check(caller, &request),
            Request::WaitName(request) => self.wait_name(caller, request),
            Request::ForgetName(request) => self.forget_name(caller, &request),
            Request::Freeze(request) => self.freeze(caller, &request),
            Request::Weaken(request) => self.weaken(caller, &request),
            Request::ListAudit(request) => self.list_audit(caller, &request),
            Request::Raise(request) => self.raise(caller, &request),
            Request::SetAction(request) => self.set_action(caller, &request),
            Request::SetMask(request) => self.set_mask(caller, &request),
            Request::Pending(request) => self.pending(caller, &request),
            Request::TakeSignal(request) => self.take_signal(caller, &request),
        }
    }
}

/// What every operation uses.
impl Kernel {
    /// The capability that a handle of `process` names, if it is of `kind` and has the rights `needed`.
    pub(crate) fn held(
        &self,
        process: ProcessNumber,
        handle: Handle,
        kind: Kind,
        needed: Rights,
    ) -> Result<(CapabilityId, &Capability), Denial> {
        let (id, capability) = self.held_any(process, handle)?;
        let found = self.object(capability.object).kind();
        if found != kind {
            return Err(Denial::WrongKind { handle, needed: kind, found });
        }
        self.check_rights(process, handle, capability, needed)?;
        Ok((id, capability))
    }

    /// The capability that a handle of `process` names.
    pub(crate) fn held_any(
        &self,
        process: ProcessNumber,
        handle: Handle,
    ) -> Result<(CapabilityId, &Capability), Denial> {
        let id = self.process(process).table.get(handle)?;
        if !self.tree.is_live(id) {
            return Err(Denial::StaleHandle { handle });
        }
        let capability = self.tree.get(id);
        if capability.expires_ns <= self.now_ns {
            // Its end has not been carried out yet, when many end at once.
            let (expired_ns, now_ns) = (capability.expires_ns, self.now_ns);
            return Err(Denial::Expired { handle, expired_ns, now_ns });
        }
        Ok((id, capability))
    }

    /// Whether a capability is neither being taken back nor at its end, carried out or not.
    pub(crate) fn is_usable(&self, id: CapabilityId) -> bool {
        self.tree.is_live(id) && self.tree.get(id).expires_ns > self.now_ns
    }

    /// Whether `process` can hold one more capability.
    pub(crate) fn check_room(&self, process: ProcessNumber) -> Result<(), Denial> {
        let process = self.process(process);
        self.accounts.check(process.account, Charge::HANDLE)?;
        if !process.table.has_room() {
            let used = u64::from(process.table.held());
            return Err(Denial::QuotaExceeded {
                quota: keyway_abi::Quota::Handles,
                of: keyway_abi::Payer::Process,
                asked: 1,
                used,
                max: used,
            });
        }
        Ok(())
    }

    /// Whether `process` can have one more capability derived. Returns its account, to which that is charged.
    pub(crate) fn check_derivation(&self, process: ProcessNumber) -> Result<AccountId, Denial> {
        let account = self.process(process).account;
        self.accounts.check(account, Charge::DERIVATION)?;
        Ok(account)
    }

    /// A new object with its first capability, in the table of `process`. Checked: `check_room`.
    pub(crate) fn commit_object(
        &mut self,
        process: ProcessNumber,
        rights: Rights,
        charge: Charge,
        body: impl FnOnce(ObjectId, CapabilityId) -> Body,
    ) -> (ObjectId, Handle) {
        let object = ObjectId(self.next_number());
        let root = self.tree.insert_root(object, rights, Holder::Nobody);
        let account = self.process(process).account;
        self.accounts.charge(account, charge);
        let body = body(object, root);
        self.objects.insert(object, Object { capabilities: 1, account: Some(account), acl: None, body });
        let handle = self.commit_hold(process, root);
        (object, handle)
    }

    /// A capability derived from `parent`, held by something that is no process.
    pub(crate) fn commit_derive(&mut self, parent: CapabilityId, child: Child) -> CapabilityId {
        if let Some(payer) = child.payer {
            self.accounts.charge(payer, Charge::DERIVATION);
        }
        let id = self.tree.derive(parent, child);
        let object = self.tree.get(id).object;
        self.object_mut(object).capabilities += 1;
        id
    }

    /// A capability derived from `parent`, in the table of `process`. Checked: `check_room`, and `check_derivation` of who pays.
    pub(crate) fn commit_derive_into(
        &mut self,
        parent: CapabilityId,
        process: ProcessNumber,
        terms: Terms,
        payer: Option<AccountId>,
    ) -> Handle {
        let (bearer, holder) = (self.tree.get(parent).bearer, Holder::Nobody);
        let id = self.commit_derive(parent, Child { terms, bearer, holder, payer });
        self.commit_hold(process, id)
    }

    /// Puts a capability that nobody holds into the table of `process`.
    pub(crate) fn commit_hold(&mut self, process: ProcessNumber, id: CapabilityId) -> Handle {
        let entry = self.process_mut(process);
        let handle = entry.table.insert(id);
        let account = entry.account;
        self.accounts.charge(account, Charge::HANDLE);
        let capability = self.tree.get_mut(id);
        capability.holder = Holder::Process(process, handle.slot());
        let (object, rights, badge) = (capability.object, capability.rights, capability.badge);
        self.process_mut(process).held.insert(object, handle.slot());
        let kind = self.objects.get(&object).map(Object::kind);
        if let Some(kind) = kind {
            self.record(Verdict::Granted { to: process, kind, object: object.0, rights, badge });
        }
        handle
    }

    /// Sends a reply.
    pub(crate) fn reply(&mut self, caller: Caller, reply: Reply, descriptors: Vec<Descriptor>) {
        if let Reply::Denied(denial) = &reply {
            self.record_refusal(caller, denial);
        }
        if self.is_reachable(caller.process) {
            let frame = Outgoing::Reply(caller.call, reply);
            self.effects.push(Effect::Send { to: caller.process, frame, descriptors });
        }
    }

    /// Sends an event.
    pub(crate) fn notify(&mut self, to: ProcessNumber, event: Event, descriptors: Vec<Descriptor>) {
        if self.processes.get(&to).is_some_and(|process| process.phase == Phase::Ready) {
            self.effects.push(Effect::Send { to, frame: Outgoing::Event(event), descriptors });
        }
    }

    /// Stores a word, if the process is still there to read it.
    pub(crate) fn set_word(&mut self, process: ProcessNumber, place: WordPlace, value: u32) {
        if self.is_reachable(process) {
            self.effects.push(Effect::SetWord { process, page: place.page, index: place.index, value });
        }
    }

    /// Hands out a broker word, and asks for a further page when few are left. Checked: `has_word`.
    pub(crate) fn take_word(&mut self, process: ProcessNumber) -> WordPlace {
        self.last_generation = self.last_generation.checked_add(1).unwrap_or(GENERATION_FIRST);
        let generation = self.last_generation;
        let place = self.process_mut(process).pages.take_word(generation);
        self.want_page(process);
        place
    }

    /// Takes a broker word back from a process that has given up what it spoke of.
    pub(crate) fn retire_word(&mut self, process: ProcessNumber, place: WordPlace) {
        // Whoever has it next finds what a word says that never spoke.
        self.set_word(process, place, WORD_REVOKED);
        let Some(entry) = self.processes.get_mut(&process) else { return };
        let account = entry.account;
        if let Some(page) = entry.pages.retire_word(place) {
            self.accounts.release(account, Charge::PAGE);
            self.effects.push(Effect::DropPage { process, page });
            self.notify(process, Event::PageDropped { page }, Vec::new());
        }
        self.want_page(process);
    }

    /// Asks for a further broker page if few words are left.
    pub(crate) fn want_page(&mut self, process: ProcessNumber) {
        if !self.is_reachable(process) {
            return;
        }
        let found = self.process(process);
        if !found.pages.wants_page() {
            return;
        }
        let (account, is_first) = (found.account, found.pages.count() == 0);
        // The first one was charged with the session.
        let charge = if is_first { Charge::NOTHING } else { Charge::PAGE };
        if let Err(denial) = self.accounts.check(account, charge) {
            return self.process_mut(process).pages.on_refused(denial);
        }
        self.accounts.charge(account, charge);
        let page = self.process_mut(process).pages.begin_page();
        let task = self.wait_for(None, Waiting::Page(process));
        self.effects.push(Effect::CreatePage { task, process, page });
    }

    /// Notes what an answer will be for. Checked, if somebody waits for a reply: `check_request`.
    pub(crate) fn wait_for(&mut self, caller: Option<Caller>, waiting: Waiting) -> Task {
        let task = Task(self.next_number());
        let awaiting = caller.map(|caller| self.commit_awaiting(caller));
        self.waiting.insert(task, (awaiting, waiting));
        task
    }

    /// Whether one more request of `process` can be under way.
    pub(crate) fn check_request(&self, process: ProcessNumber) -> Result<(), Denial> {
        self.accounts.check(self.process(process).account, Charge::REQUEST)
    }

    /// A reply is to come. Checked: `check_request`.
    pub(crate) fn commit_awaiting(&mut self, caller: Caller) -> Awaiting {
        let account = self.process(caller.process).account;
        self.accounts.charge(account, Charge::REQUEST);
        Awaiting { caller, account }
    }

    /// The reply can be given now. Returns to whom.
    pub(crate) fn end_awaiting(&mut self, awaiting: Awaiting) -> Caller {
        self.accounts.release(awaiting.account, Charge::REQUEST);
        awaiting.caller
    }

    /// A process that is there, silent or not.
    pub(crate) fn is_reachable(&self, process: ProcessNumber) -> bool {
        self.processes.get(&process).is_some_and(|process| process.phase != Phase::Ending)
    }

    /// A number that was never given before, to anything.
    pub(crate) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(crate) fn process(&self, number: ProcessNumber) -> &Process {
        // INVARIANT: dispatch found the caller; every other number comes from a record that ends with the process.
        self.processes.get(&number).expect("a process in use exists")
    }

    pub(crate) fn process_mut(&mut self, number: ProcessNumber) -> &mut Process {
        // INVARIANT: as in `process`.
        self.processes.get_mut(&number).expect("a process in use exists")
    }

    pub(crate) fn object(&self, object: ObjectId) -> &Object {
        // INVARIANT: kernel invariant 2; an id comes from a capability or from a record that ends with the object.
        self.objects.get(&object).expect("an object that is named exists")
    }

    pub(crate) fn object_mut(&mut self, object: ObjectId) -> &mut Object {
        // INVARIANT: as in `object`.
        self.objects.get_mut(&object).expect("an object that is named exists")
    }

    /// A session with an empty table. Nothing is reachable of it yet.
    pub(crate) fn commit_process(&mut self, phase: Phase, account: AccountId) -> ProcessNumber {
        let number = ProcessNumber(self.next_number());
        let object = ObjectId(self.next_number());
        let root = self.tree.insert_root(object, crate::object::ProcessObject::POSSIBLE, Holder::Kernel);
        let body = Body::Process(crate::object::ProcessObject {
            process: number,
            ended: false,
            watchers: BTreeSet::new(),
        });
        self.objects.insert(object, Object { capabilities: 1, account: None, acl: None, body });
        let process = Process {
            identity: None,
            phase,
            confined: phase == Phase::Unbound,
            account,
            table: Table::default(),
            held: HeldObjects::default(),
            object,
            root,
            since_ns: self.now_ns,
            owned: BTreeSet::new(),
            sending: BTreeSet::new(),
            receiving: BTreeSet::new(),
            mappings: BTreeSet::new(),
            watching: BTreeSet::new(),
            doorbells: BTreeSet::new(),
            badged: BTreeSet::new(),
            waited_names: BTreeSet::new(),
            pages: crate::page::Pages::default(),
            signals: crate::signals::Signals::default(),
        };
        self.processes.insert(number, process);
        self.want_page(number);
        number
    }
}

/// What is recorded.
impl Kernel {
    /// Records what happened on behalf of whoever asked for it.
    pub(crate) fn record(&mut self, verdict: Verdict) {
        let asker = self.log.asker();
        self.push_record(asker, verdict);
    }

    /// Records that a request was denied.
    pub(crate) fn record_refusal(&mut self, caller: Caller, denial: &Denial) {
        let verdict = Verdict::Refused { denial: denial.number(), times: 1 };
        self.push_record(Some((caller.process, caller.call.opcode)), verdict);
    }

    fn push_record(&mut self, asker: Option<(ProcessNumber, u16)>, verdict: Verdict) {
        let process = asker.map(|(process, _)| process);
        let known = process.and_then(|process| self.processes.get(&process));
        let (pid, uid) = known.map_or((0, u32::MAX), |process| (process.pid(), process.uid()));
        let opcode = asker.map_or(0, |(_, opcode)| opcode);
        self.log.push(AuditEntry { sequence: 0, at_ns: self.now_ns, process, pid, uid, opcode, verdict });
    }
}
