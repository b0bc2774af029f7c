//! One random step: the oracle predicts, the kernel answers, both are compared.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec,
    vec::Vec,
};

use keyway_abi::{
    DefaultActions, Denial, Event, Farewell, Handle, Kind, LaneId, MappingId, Payer, ProcessNumber, Quota,
    Reply, Request, Rights, request,
};

use super::{
    Step,
    charges::{self, HANDLE, SESSION},
    oracle::{Body, Holder, Lane, Oracle, Person},
    signals::Inbox,
};
use crate::{
    Arrival, Identity, Limits,
    object::{DIRECTORY_RIGHTS, ProcessObject},
    tests::driver::{Driver, HELLO, Who},
};

/// What each kind of step is, in the order of the match in [`Duel::step`], and how often it is taken.
pub(super) const STEPS: [(&str, u8); KINDS] = [
    ("derive", 2),
    ("grant", 3),
    ("revoke", 1),
    ("delete", 1),
    ("publish", 3),
    ("lookup", 3),
    ("create_queue", 3),
    ("open_lane", 6),
    ("close_lane", 1),
    ("escrow_put", 8),
    ("escrow_withdraw", 3),
    ("escrow_take", 6),
    ("create_region", 2),
    ("map", 3),
    ("written_or_unmapped", 2),
    ("weaken", 2),
    ("wait", 1),
    ("end_or_connect", 1),
    ("acl_add", 4),
    ("acl_remove", 2),
    ("acl_list", 1),
    ("acl_check", 3),
    ("wait_name", 2),
    ("forget_name", 1),
    ("set_rules", 1),
    ("raise", 9),
    ("set_action", 3),
    ("set_mask", 3),
    ("pending", 1),
    ("take_signal", 3),
    ("watch", 3),
    ("set_limits", 1),
    ("doorbell", 3),
];
/// Kinds of steps.
pub(super) const KINDS: usize = 33;
const PROCESSES: usize = 4;
/// Who they are: of different users, groups and programs; two accept default actions, and two do not.
const FIRST: [u32; PROCESSES] = [0, 0x0001_0101, 0x0010_0104, 0x0011_0202];
pub(super) const UIDS: [u32; 3] = [1000, 1001, 0];
pub(super) const GROUPS: [u32; 4] = [1001, 2000, 2001, 1];
pub(super) const PROGRAMS: [&str; 2] = ["/usr/bin/probe", "/usr/bin/other"];

fn kind_of(what: u8) -> usize {
    let mut left = what % STEPS.iter().map(|(_, weight)| weight).sum::<u8>();
    for (kind, (_, weight)) in STEPS.iter().enumerate() {
        match left.checked_sub(*weight) {
            Some(rest) => left = rest,
            None => return kind,
        }
    }
    unreachable!("the remainder is below the sum")
}

/// The kernel and the oracle, side by side.
pub(super) struct Duel {
    pub(super) driver: Driver,
    pub(super) oracle: Oracle,
    /// The handle of the directory with which each process began.
    pub(super) directories: Vec<Handle>,
    directory: usize,
    /// The kernel's number of each object.
    pub(super) numbers: BTreeMap<usize, u64>,
    pub(super) lanes: Vec<LaneId>,
    pub(super) mappings: Vec<MappingId>,
    /// What processes were told in this step and the driver has no more.
    pub(super) told: Vec<(usize, Event)>,
    pub(super) steps: u64,
    pub(super) successes: [u64; KINDS],
    /// How often each refusal was predicted, by its number.
    pub(super) denials: BTreeMap<u32, u64>,
    pub(super) quotas: BTreeMap<(Quota, Payer), u64>,
}

impl Duel {
    pub(super) fn new() -> Self {
        let mut oracle = Oracle { limits: Limits::default(), ..Oracle::default() };
        let directory = oracle.object(Body::Directory, DIRECTORY_RIGHTS, Holder::Kernel);
        let mut duel = Duel {
            driver: Driver::new(),
            oracle,
            directories: vec![],
            directory,
            numbers: BTreeMap::new(),
            lanes: vec![],
            mappings: vec![],
            told: vec![],
            steps: 0,
            successes: [0; KINDS],
            denials: BTreeMap::new(),
            quotas: BTreeMap::new(),
        };
        for bits in FIRST {
            duel.connect(bits);
        }
        duel
    }

    /// Who comes: of few users, groups and programs, and sometimes a second session of who was here already.
    fn newcomer(&mut self, bits: u32) -> (Identity, usize) {
        if bits >> 29 == 1 {
            let person = &self.oracle.people[bits as usize % self.oracle.people.len()];
            return (person.identity.clone(), person.account);
        }
        let mut identity = self.driver.identity(UIDS[bits as usize % 5 % UIDS.len()]);
        identity.groups = GROUPS.into_iter().skip(1).take((bits >> 8) as usize % 3).collect();
        identity.executable = String::from(PROGRAMS[(bits >> 16) as usize % PROGRAMS.len()]);
        self.oracle.accounts.push((identity.account, identity.uid));
        (identity, self.oracle.accounts.len() - 1)
    }

    /// A process joins, which has and gives a capability to each of the others.
    fn connect(&mut self, bits: u32) -> bool {
        let (identity, account) = self.newcomer(bits);
        let full = self.judge_session(account, identity.uid);
        let arrival =
            Arrival { identity: identity.clone(), own: ProcessObject::POSSIBLE, directory: DIRECTORY_RIGHTS };
        let number = match (self.driver.arrive_with(arrival), full) {
            (Ok(number), Ok(())) => number,
            (Err(farewell), Err(Denial::QuotaExceeded { quota, of, used, max, .. })) => {
                assert_eq!(farewell, Farewell::Full { quota, of, used, max });
                return false;
            }
            (found, expected) => panic!("{found:?} came, and {expected:?} was expected"),
        };
        let accepts = bits >> 20 & 1 == 0;
        let default_actions = if accepts { DefaultActions::Accepted } else { DefaultActions::Refused };
        let Reply::Welcome(start) = self.driver.ask(number, request::Hello { default_actions, ..HELLO })
        else {
            panic!("a hello is welcome")
        };
        let process = self.oracle.people.len();
        let root = self.oracle.capabilities.len();
        let (inbox, waits) = (Inbox::new(accepts), BTreeSet::new());
        self.oracle.people.push(Person { number, identity, account, root, inbox, waits });
        self.oracle.seen.push(BTreeMap::new());
        self.oracle.object(Body::Process(process), ProcessObject::POSSIBLE, Holder::Kernel);
        let directory = self.oracle.capabilities.iter().position(|found| found.object == self.directory);
        let given = [
            (start.own, root, ProcessObject::POSSIBLE),
            (start.directory, directory.expect("the directory stands"), DIRECTORY_RIGHTS),
        ];
        for (handle, from, rights) in given {
            let has_room = self.oracle.affords(account, &[&HANDLE]).is_ok();
            assert_eq!(handle.is_some(), has_room, "a newcomer is given what there is room for");
            if let Some(handle) = handle {
                self.oracle.child(from, rights, None, Holder::Process(process, handle));
            }
        }
        self.directories.push(start.directory.unwrap_or(Handle::NONE));
        (0..process).for_each(|other| self.introduce(process, other));
        true
    }

    /// Whether there is room for one more session. Nobody's own limit counts before anything is charged to them.
    fn judge_session(&self, account: usize, uid: u32) -> Result<(), Denial> {
        let uses = self.oracle.uses();
        if uses[account].iter().any(|count| *count > 0) {
            return self.oracle.affords(account, &[&SESSION]);
        }
        self.oracle.shared(&uses, uid, charges::sum(&[&SESSION]))
    }

    /// Each has a capability to the other, as if it had come in a message.
    fn introduce(&mut self, process: usize, other: usize) {
        if self.oracle.ended.contains(&other) {
            return;
        }
        for (whom, holder) in [(process, other), (other, process)] {
            let who = |process: usize| {
                let number: ProcessNumber = self.oracle.people[process].number;
                Who { number, own: Handle::NONE, directory: Handle::NONE }
            };
            let (rights, root) = (ProcessObject::CHILD, self.oracle.people[whom].root);
            let handle = self.driver.introduce(who(whom), who(holder), rights);
            self.oracle.child(root, rights, None, Holder::Process(holder, handle));
        }
    }

    pub(super) fn step(&mut self, (who, what, first, second, bits): Step) {
        self.steps += 1;
        let kind = kind_of(what);
        let here = |process: &usize| !self.oracle.ended.contains(process);
        let here: Vec<usize> = (0..self.oracle.people.len()).filter(here).collect();
        // Mostly one who can do this at all.
        let able: Vec<usize> = here.iter().copied().filter(|process| self.suits(*process, kind)).collect();
        let among = if first % 16 == 15 || able.is_empty() { &here } else { &able };
        let Some(process) = usize::from(who).checked_rem(among.len()).map(|nth| among[nth]) else { return };
        let succeeded = match kind {
            0 => self.derive(process, first, second, bits),
            1 => self.grant(process, first, second, bits),
            2 => self.revoke(process, first),
            3 => self.delete(process, first),
            4 => self.publish(process, first, second, bits),
            5 => self.lookup(process, first, second),
            6 => self.create_queue(process, first),
            7 => self.open_lane(process, first),
            8 => self.close_lane(process, first),
            9 => self.escrow_put(process, first, second, bits),
            10 => self.escrow_withdraw(process, first, second),
            11 => self.escrow_take(process, first, second),
            12 => self.create_region(process, first),
            13 => self.map(process, first, second),
            14 => self.written_or_unmapped(process, first, second),
            15 => self.weaken(process, first, second, bits),
            16 => self.wait(second),
            17 => self.end_or_connect(process, first, second, bits),
            18 => self.acl_add(process, first, second, bits),
            19 => self.acl_remove(process, first, second),
            20 => self.acl_list(process, first, second),
            21 => self.acl_check(process, first),
            22 => self.wait_name(process, second),
            23 => self.forget_name(process, second),
            24 => self.set_rules(first, bits),
            25 => self.raise(process, first, second, bits),
            26 => self.set_action(process, first, second),
            27 => self.set_mask(process, first, bits),
            28 => self.pending(process),
            29 => self.take_signal(process, first, bits),
            30 => self.watch(process, first),
            31 => self.set_limits(process, first, second, bits),
            _ => self.doorbell(process, first),
        };
        self.successes[kind] += u64::from(succeeded);
    }

    /// Whether the process has what a step of this kind is about.
    fn suits(&self, process: usize, kind: usize) -> bool {
        let has = |kind: Kind, rights: Rights| {
            let held = self.oracle.table(process);
            let found = |id: usize| {
                self.oracle.kind(id) == kind && self.oracle.capabilities[id].rights.contains(rights)
            };
            held.into_iter().any(|(_, id)| found(id))
        };
        let lane = |is_end: &dyn Fn(&Lane) -> bool| self.oracle.lanes.values().any(is_end);
        let sends = |lane: &Lane| lane.sender == process && lane.sender_here;
        let receives = |lane: &Lane| lane.receiver == process && lane.receiver_here;
        match STEPS[kind].0 {
            "publish" => has(Kind::Queue, Rights::GRANT),
            "open_lane" => has(Kind::Queue, Rights::SEND),
            "close_lane" => lane(&|lane| sends(lane) || receives(lane)),
            "doorbell" => lane(&|lane| (sends(lane) || receives(lane)) && !lane.ended),
            "escrow_put" => lane(&|lane| sends(lane) && !lane.ended),
            "escrow_withdraw" => lane(&|lane| sends(lane) && !lane.escrow.is_empty()),
            "escrow_take" => lane(&|lane| receives(lane) && !lane.escrow.is_empty()),
            "map" => has(Kind::Region, Rights::empty()),
            "written_or_unmapped" => self.oracle.mappings.values().any(|found| found.process == process),
            "acl_add" => has(Kind::Queue, Rights::CONTROL) || has(Kind::Region, Rights::CONTROL),
            "acl_remove" | "acl_list" => self.oracle.table(process).into_iter().any(|(_, id)| {
                let capability = &self.oracle.capabilities[id];
                let list = &self.oracle.lists[capability.object];
                capability.rights.contains(Rights::CONTROL) && !list.entries.is_empty()
            }),
            "acl_check" => self
                .oracle
                .table(process)
                .into_iter()
                .any(|(_, id)| !self.oracle.lists[self.oracle.capabilities[id].object].entries.is_empty()),
            "forget_name" => !self.oracle.people[process].waits.is_empty(),
            "pending" | "take_signal" => self.oracle.people[process].inbox.pending_bits() != 0,
            _ => true,
        }
    }

    pub(super) fn finish(self) {
        self.driver.finish();
    }

    fn end_or_connect(&mut self, process: usize, first: u8, second: u8, bits: u32) -> bool {
        if first < 128 && self.oracle.people.len() < 2 * PROCESSES {
            return self.connect(bits);
        }
        if second >= 64 || self.oracle.ended.len() + 1 == self.oracle.people.len() {
            return false;
        }
        self.driver.end(self.oracle.people[process].number);
        self.oracle.end_process(process);
        true
    }

    /// Mostly the limits that there are by default; else one of them is about what is used already.
    fn set_limits(&mut self, process: usize, first: u8, second: u8, bits: u32) -> bool {
        let mut limits = Limits::default();
        if first < 128 {
            let (account, row) = (self.oracle.account(process), usize::from(second) % charges::ROWS.len());
            let uses = self.oracle.uses();
            let uid = self.oracle.accounts[account].1;
            let of = |of: &dyn Fn(usize) -> bool| {
                (0..uses.len()).filter(|account| of(*account)).map(|account| uses[account][row]).sum::<u64>()
            };
            let (of_whom, used) = match bits % 4 {
                0 => (&mut limits.everyone, of(&|_| true)),
                1 => (&mut limits.user, of(&|account| self.oracle.accounts[account].1 == uid)),
                _ => (&mut limits.process, uses[account][row]),
            };
            let room = u64::from(bits >> 8 & 3);
            charges::set(of_whom, row, used + if row == charges::ROWS.len() - 1 { room << 13 } else { room });
        }
        self.driver.kernel.set_limits(limits);
        self.oracle.limits = limits;
        true
    }

    /// Sends a request; if the oracle denies it, the kernel must deny it in the same words and change nothing.
    pub(super) fn ask<T>(
        &mut self,
        process: usize,
        request: impl Into<Request>,
        predicted: Result<T, Denial>,
    ) -> Option<(T, Reply)> {
        let (number, request) = (self.oracle.people[process].number, request.into());
        match predicted {
            Ok(plan) => {
                let reply = self.driver.ask(number, request.clone());
                let denied = matches!(reply, Reply::Denied(_));
                assert!(!denied, "{request:?} of process {process} is lawful: {reply:?}");
                Some((plan, reply))
            }
            Err(denial) => {
                *self.denials.entry(denial.number()).or_default() += 1;
                if let Denial::QuotaExceeded { quota, of, .. } = denial {
                    *self.quotas.entry((quota, of)).or_default() += 1;
                }
                assert_eq!(self.driver.denied(number, request), denial);
                None
            }
        }
    }

    /// A handle: mostly one of the kind that is needed, sometimes any other, stale, foreign or invented.
    pub(super) fn pick(&self, process: usize, choice: u8, kind: Option<Kind>) -> Handle {
        let (choice, nth) = (choice % 8, usize::from(choice / 8));
        let held = self.oracle.table(process);
        let wanted = held.iter().filter(|(_, id)| kind.is_none_or(|kind| self.oracle.kind(*id) == kind));
        let wanted: Vec<Handle> = wanted.map(|(handle, _)| *handle).collect();
        let all: Vec<Handle> = match choice {
            0..=4 if !wanted.is_empty() => wanted,
            0..=5 => held.iter().map(|(handle, _)| *handle).collect(),
            6 => self.oracle.seen[process].keys().copied().collect(),
            _ => self.oracle.seen[(process + 1) % self.oracle.people.len()].keys().copied().collect(),
        };
        // Backwards, so that what was made last is chosen first.
        let nth = nth.checked_rem(all.len()).map(|nth| all.len() - 1 - nth);
        nth.map_or(Handle::new(choice.into(), 1), |nth| all[nth])
    }

    /// A handle through which something can be opened: sometimes one that bounds how much.
    pub(super) fn pick_opening(&self, process: usize, choice: u8, kind: Kind) -> Handle {
        let held = self.oracle.table(process).into_iter().filter(|(_, id)| {
            self.oracle.kind(*id) == kind && self.oracle.capabilities[*id].limits.opens.is_some()
        });
        let bounded: Vec<Handle> = held.map(|(handle, _)| handle).collect();
        match bounded.len() {
            count @ 1.. if choice % 8 < 3 => bounded[count - 1 - usize::from(choice / 8) % count],
            _ => self.pick(process, choice, Some(kind)),
        }
    }

    /// A handle, mostly of something that has an access list.
    pub(super) fn pick_listed(&self, process: usize, choice: u8) -> Handle {
        let listed = self.oracle.table(process).into_iter().filter(|(_, id)| {
            let object = self.oracle.capabilities[*id].object;
            !self.oracle.lists[object].entries.is_empty()
        });
        let listed: Vec<Handle> = listed.map(|(handle, _)| handle).collect();
        match listed.len() {
            count @ 1.. if choice % 8 < 6 => listed[count - 1 - usize::from(choice / 8) % count],
            _ => self.pick(process, choice, None),
        }
    }

    /// Rights: mostly a part of what the capability has.
    pub(super) fn rights(&self, process: usize, from: Handle, bits: u32) -> Rights {
        let asked = Rights::from_bits_truncate(bits >> 3);
        match (self.oracle.held_any(process, from), bits % 8) {
            (Ok(id), 0..=4) => self.oracle.capabilities[id].rights - Rights::RECEIVE,
            (Ok(id), 5 | 6) => self.oracle.capabilities[id].rights & asked,
            _ => asked,
        }
    }

    /// A lane: mostly one of which the process has this end, sometimes any that ever was.
    pub(super) fn lane(&self, choice: u8, is_end: impl Fn(&Lane) -> bool) -> LaneId {
        let open = self.oracle.lanes.iter().filter(|(_, lane)| is_end(lane));
        let open: Vec<LaneId> = open.map(|(id, _)| *id).collect();
        let all = if choice % 8 < 6 && !open.is_empty() { &open } else { &self.lanes };
        match all.len() {
            0 => LaneId(choice.into()),
            count => all[count - 1 - usize::from(choice / 8) % count],
        }
    }

    /// An expiry: mostly none, sometimes soon, late or past.
    pub(super) fn expiry(&self, choice: u8) -> Option<u64> {
        match choice % 8 {
            0..=3 => None,
            4 => Some(self.driver.now_ns.saturating_sub(u64::from(choice / 8))),
            _ => Some(self.driver.now_ns + u64::from(choice / 4)),
        }
    }

    pub(super) fn directory(&self, process: usize, choice: u8) -> Handle {
        if choice.is_multiple_of(16) {
            self.pick(process, choice, Some(Kind::Directory))
        } else {
            self.directories[process]
        }
    }
}
