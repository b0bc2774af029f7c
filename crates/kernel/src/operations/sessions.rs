//! Sessions: connecting, binding a confined child, hello, starting a child, watching for an end.

use alloc::vec;

use keyway_abi::{
    Created, Denial, Event, Farewell, Kind, PROTOCOL_VERSION, ProcessNumber, Reply, Rights, SessionStart,
    Terms, limits, request,
};

use crate::{
    effect::{Arrival, Descriptor, Effect, Identity, PairKind},
    kernel::{Kernel, Outcome},
    lane::Waiting,
    limits::Charge,
    object::{Body, DIRECTORY_RIGHTS, ProcessObject},
    process::Phase,
    signals::Signals,
    sweep::Caller,
};

impl Kernel {
    pub(crate) fn commit_connect(&mut self, arrival: Arrival) -> Result<ProcessNumber, Farewell> {
        let account = self.accounts.open(arrival.identity.account, arrival.identity.uid);
        let account = account.map_err(|denial| farewell(&denial))?;
        let number = self.commit_process(Phase::Silent, account);
        let root = self.process(number).root;
        self.process_mut(number).identity = Some(bounded(arrival.identity));
        // Judged here, because the policy is the broker's and the broker is not this crate.
        let own = arrival.own & ProcessObject::POSSIBLE;
        let directory = arrival.directory & DIRECTORY_RIGHTS;
        if self.check_room(number).is_ok() && !own.is_empty() {
            self.commit_derive_into(root, number, Terms::rights(own), None);
        }
        if self.check_room(number).is_ok() && !directory.is_empty() {
            self.commit_derive_into(self.directory_root, number, Terms::rights(directory), None);
        }
        Ok(number)
    }

    pub(crate) fn commit_bind(&mut self, number: ProcessNumber, identity: Identity) {
        let Some(process) = self.processes.get(&number) else { return };
        if process.phase != Phase::Unbound {
            return;
        }
        let (handles, derivations) = (process.table.held(), process.badged.len() as u32);
        let given = Charge { handles, derivations, ..Charge::NOTHING };
        let moved = Charge::SESSION.plus(process.charge_of_pages()).plus(given);
        let account = match self.accounts.bind(process.account, moved, identity.account, identity.uid) {
            Ok(account) => account,
            Err(denial) => return self.end_session(number, Some(farewell(&denial))),
        };
        let process = self.process_mut(number);
        process.account = account;
        process.identity = Some(bounded(identity));
        process.phase = Phase::Silent;
    }

    pub(crate) fn hello(&mut self, caller: Caller, request: &request::Hello) -> Result<Outcome, Denial> {
        let process = self.process(caller.process);
        if process.phase == Phase::Ready {
            return Ok(Outcome::Fault(keyway_abi::Fault::HelloRepeated));
        }
        if !(request.version_min..=request.version_max).contains(&PROTOCOL_VERSION) {
            let denial = Denial::VersionUnsupported {
                version_min: request.version_min,
                version_max: request.version_max,
                version: PROTOCOL_VERSION,
            };
            self.reply(caller, Reply::Denied(denial), vec![]);
            return Ok(Outcome::NoVersion);
        }
        let start = self.session_start(caller.process);
        let process = self.process_mut(caller.process);
        process.phase = Phase::Ready;
        process.signals = Signals::new(request.default_actions);
        Ok(Outcome::Reply(Reply::Welcome(start), vec![Descriptor::Page(0)]))
    }

    pub(crate) fn start_child(
        &mut self,
        caller: Caller,
        request: &request::StartChild,
    ) -> Result<Outcome, Denial> {
        self.check_self(caller, request.process, Rights::START)?;
        self.check_room(caller.process)?;
        self.check_request(caller.process)?;
        let starter = self.process(caller.process).account;
        self.accounts.open_child(starter)?;
        let child = self.commit_process(Phase::Unbound, starter);
        let task = self.wait_for(Some(caller), Waiting::Child(child));
        self.effects.push(Effect::CreatePair { task, process: child, kind: PairKind::Session });
        Ok(Outcome::Later)
    }

    /// The pair of a starting child is there.
    pub(crate) fn commit_child(&mut self, caller: Caller, child: ProcessNumber) {
        if !self.processes.contains_key(&child) {
            // Linux refused its first page.
            return self.reply(caller, Reply::Denied(Denial::ProcessEnded { process: child }), vec![]);
        }
        if let Err(denial) = self.check_room(caller.process) {
            self.end_session(child, None);
            return self.reply(caller, Reply::Denied(denial), vec![]);
        }
        let root = self.process(child).root;
        let rights = ProcessObject::CHILD;
        let handle = self.commit_derive_into(root, caller.process, Terms::rights(rights), None);
        let reply = Reply::Capability(Created { handle, rights, badge: None });
        self.reply(caller, reply, vec![Descriptor::PairEnd(child, PairKind::Session)]);
    }

    pub(crate) fn watch(&mut self, caller: Caller, request: &request::Watch) -> Result<Outcome, Denial> {
        let (_, capability) = self.held(caller.process, request.process, Kind::Process, Rights::WATCH)?;
        let object = capability.object;
        let watcher = self.process(caller.process);
        if watcher.watching.len() >= limits::WATCHES_MAX
            && !watcher.watching.contains(&(object, request.process))
        {
            let max = limits::WATCHES_MAX as u64;
            return Err(Denial::QuotaExceeded {
                quota: keyway_abi::Quota::Watches,
                of: keyway_abi::Payer::Process,
                asked: 1,
                used: max,
                max,
            });
        }
        let Body::Process(watched) = &mut self.object_mut(object).body else {
            return Outcome::reply(Reply::Done);
        };
        if watched.ended {
            self.reply(caller, Reply::Done, vec![]);
            self.notify(caller.process, Event::ProcessEnded { process: request.process }, vec![]);
            return Ok(Outcome::Later);
        }
        watched.watchers.insert((caller.process, request.process));
        self.process_mut(caller.process).watching.insert((object, request.process));
        Outcome::reply(Reply::Done)
    }

    /// The capability must be the asker's own process.
    pub(crate) fn check_self(
        &self,
        caller: Caller,
        handle: keyway_abi::Handle,
        needed: Rights,
    ) -> Result<(), Denial> {
        let (_, capability) = self.held(caller.process, handle, Kind::Process, needed)?;
        if capability.object == self.process(caller.process).object {
            return Ok(());
        }
        // A capability to another process never carries these rights, unless that process gave them away.
        Err(Denial::MissingRights { handle, needed, held: capability.rights - needed })
    }

    /// The process that a capability names, if it can still be endowed.
    pub(crate) fn check_endow(
        &self,
        caller: Caller,
        handle: keyway_abi::Handle,
    ) -> Result<ProcessNumber, Denial> {
        let (_, capability) = self.held(caller.process, handle, Kind::Process, Rights::ENDOW)?;
        match &self.object(capability.object).body {
            Body::Process(target) if !target.ended => Ok(target.process),
            Body::Process(target) => Err(Denial::ProcessEnded { process: target.process }),
            _ => unreachable!("the object is a process"),
        }
    }

    fn session_start(&self, number: ProcessNumber) -> SessionStart {
        let process = self.process(number);
        let find = |kind| {
            let found = process.table.filled(0).find(|(_, id)| {
                let object = self.tree.get(*id).object;
                self.object(object).kind() == kind && (kind != Kind::Process || object == process.object)
            });
            found.map(|(handle, _)| handle)
        };
        SessionStart {
            version: PROTOCOL_VERSION,
            process: number,
            pid: process.pid(),
            uid: process.uid(),
            gid: process.identity.as_ref().map_or(u32::MAX, |identity| identity.gid),
            own: find(Kind::Process),
            directory: find(Kind::Directory),
            now_ns: self.now_ns,
        }
    }
}

/// What a newcomer is told for whom there is no room.
fn farewell(denial: &Denial) -> Farewell {
    match *denial {
        Denial::QuotaExceeded { quota, of, used, max, .. } => Farewell::Full { quota, of, used, max },
        // INVARIANT: accounts refuse for a limit and for nothing else.
        _ => unreachable!("accounts refuse for a limit only"),
    }
}

/// The same identity with an executable's path that fits every event and listing.
fn bounded(mut identity: Identity) -> Identity {
    let mut end = identity.executable.len().min(limits::EXECUTABLE_BYTES_MAX);
    while !identity.executable.is_char_boundary(end) {
        end -= 1;
    }
    identity.executable.truncate(end);
    identity
}
