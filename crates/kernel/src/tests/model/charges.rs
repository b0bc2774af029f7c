//! Who has used how much, counted anew from the lists each time, and what is refused for it.

use alloc::{vec, vec::Vec};

use keyway_abi::{Denial, Payer, Quota};

use super::oracle::{Body, Holder, Oracle};
use crate::{
    limits::Charge,
    tests::driver::{REGION_BYTES, RING_BYTES},
};

/// How much of each of [`ROWS`].
pub(super) type Use = [u64; ROWS.len()];

/// In the order in which they are judged.
pub(super) const ROWS: [Quota; 11] = [
    Quota::Sessions,
    Quota::Handles,
    Quota::Objects,
    Quota::Lanes,
    Quota::Mappings,
    Quota::Names,
    Quota::Descriptors,
    Quota::Derivations,
    Quota::Requests,
    Quota::Pages,
    Quota::Bytes,
];
const PAGE: u64 = 4096;
/// What a session begins with: its socket, its process, its first page, its deposit socket.
pub(super) const SESSION: [(Quota, u64); 3] =
    [(Quota::Sessions, 1), (Quota::Descriptors, 4), (Quota::Pages, 1)];
pub(super) const HANDLE: [(Quota, u64); 1] = [(Quota::Handles, 1)];
pub(super) const DERIVATION: [(Quota, u64); 1] = [(Quota::Derivations, 1)];
pub(super) const REQUEST: [(Quota, u64); 1] = [(Quota::Requests, 1)];
pub(super) const REGION: [(Quota, u64); 3] =
    [(Quota::Objects, 1), (Quota::Descriptors, 1), (Quota::Bytes, REGION_BYTES)];
pub(super) const NAME: [(Quota, u64); 2] = [(Quota::Objects, 1), (Quota::Names, 1)];
pub(super) const LANE: [(Quota, u64); 1] = [(Quota::Lanes, 1)];
pub(super) const RING: [(Quota, u64); 2] =
    [(Quota::Descriptors, 1), (Quota::Bytes, RING_BYTES as u64 + PAGE)];

/// What a queue costs with so many acknowledgement memories that no lane has.
pub(super) fn queue(stock: u32) -> [(Quota, u64); 3] {
    let stock = u64::from(stock);
    [(Quota::Objects, 1), (Quota::Descriptors, stock), (Quota::Bytes, stock * PAGE)]
}

pub(super) fn sum(parts: &[&[(Quota, u64)]]) -> Use {
    let mut sum = [0; ROWS.len()];
    for part in parts {
        add(&mut sum, part);
    }
    sum
}

fn add(to: &mut Use, part: &[(Quota, u64)]) {
    for (quota, count) in part {
        let row = ROWS.iter().position(|row| row == quota).expect("a row for each quota that is charged");
        to[row] += count;
    }
}

fn both(one: Use, other: Use) -> Use {
    core::array::from_fn(|row| one[row] + other[row])
}

/// The same rows of what the kernel counts.
pub(super) fn rows(charge: &Charge) -> Use {
    let narrow = [
        charge.sessions,
        charge.handles,
        charge.objects,
        charge.lanes,
        charge.mappings,
        charge.names,
        charge.descriptors,
        charge.derivations,
        charge.requests,
        charge.pages,
    ];
    core::array::from_fn(|row| narrow.get(row).map_or(charge.bytes, |count| (*count).into()))
}

/// Changes one row.
pub(super) fn set(charge: &mut Charge, row: usize, max: u64) {
    let narrow = max as u32;
    match ROWS[row] {
        Quota::Sessions => charge.sessions = narrow,
        Quota::Handles => charge.handles = narrow,
        Quota::Objects => charge.objects = narrow,
        Quota::Lanes => charge.lanes = narrow,
        Quota::Mappings => charge.mappings = narrow,
        Quota::Names => charge.names = narrow,
        Quota::Descriptors => charge.descriptors = narrow,
        Quota::Derivations => charge.derivations = narrow,
        Quota::Requests => charge.requests = narrow,
        Quota::Pages => charge.pages = narrow,
        _ => charge.bytes = max,
    }
}

fn fits(used: Use, asked: Use, max: Use, of: Payer) -> Result<(), Denial> {
    for row in 0..ROWS.len() {
        let (used, asked, max) = (used[row], asked[row], max[row]);
        if asked > 0 && used + asked > max {
            return Err(Denial::QuotaExceeded { quota: ROWS[row], of, asked, used, max });
        }
    }
    Ok(())
}

impl Oracle {
    /// What each account has used.
    pub(super) fn uses(&self) -> Vec<Use> {
        let mut uses = vec![[0; ROWS.len()]; self.accounts.len()];
        for (process, person) in self.people.iter().enumerate() {
            if !self.ended.contains(&process) {
                add(&mut uses[person.account], &SESSION);
            }
        }
        self.add_capabilities(&mut uses);
        self.add_objects(&mut uses);
        for lane in self.lanes.values() {
            let (sender, receiver) = (self.account(lane.sender), self.account(lane.receiver));
            add(&mut uses[sender], &LANE);
            if lane.receiver_here {
                add(&mut uses[sender], &RING);
                add(&mut uses[receiver], &LANE);
                add(&mut uses[receiver], &[(Quota::Descriptors, 1), (Quota::Bytes, PAGE)]);
            }
            add(&mut uses[sender], &[(Quota::Handles, lane.escrow.len() as u64)]);
        }
        for mapping in self.mappings.values() {
            add(&mut uses[self.account(mapping.process)], &[(Quota::Mappings, 1)]);
        }
        for (holder, name) in self.badges.keys() {
            if self.has_badge(*holder, *name) {
                add(&mut uses[self.account(*holder)], &DERIVATION);
            }
        }
        uses
    }

    /// Whether a look-up gives the process the badge that it has for the name, and makes none.
    pub(super) fn has_badge(&self, holder: usize, name: usize) -> bool {
        let published = matches!(self.objects[name], Body::Name { target: Some(_), .. });
        published && self.badges.contains_key(&(holder, name)) && !self.ended.contains(&holder)
    }

    fn add_capabilities(&self, uses: &mut [Use]) {
        let count = self.capabilities.len();
        let (mut stands, mut branches) = (vec![false; count], vec![0; count]);
        // Whatever comes from a capability was made after it.
        for id in (0..count).rev() {
            let capability = &self.capabilities[id];
            let is_held = capability.holder != Holder::Gone;
            stands[id] = is_held || branches[id] > 0;
            if let (true, Some(parent)) = (stands[id], capability.parent) {
                branches[parent] += 1;
            }
            if let Holder::Process(process, _) = capability.holder {
                add(&mut uses[self.account(process)], &HANDLE);
            }
            // Without a holder it is kept where branches meet, and where it bounds what is below.
            let kept = is_held || branches[id] > 1 || branches[id] == 1 && self.is_tighter(id);
            if let (true, Some(payer)) = (kept, capability.payer) {
                add(&mut uses[payer], &DERIVATION);
            }
        }
    }

    fn is_tighter(&self, id: usize) -> bool {
        let opens = |id: usize| self.capabilities[id].limits.opens;
        let above = self.capabilities[id].parent.and_then(opens);
        opens(id).is_some_and(|max| above.is_none_or(|above| max < above))
    }

    fn add_objects(&self, uses: &mut [Use]) {
        let stands = self.standing();
        for (object, body) in self.objects.iter().enumerate() {
            let (true, Some(owner)) = (stands[object], self.owners[object]) else { continue };
            match body {
                Body::Queue { stock, .. } => add(&mut uses[owner], &queue(*stock)),
                Body::Region(..) => add(&mut uses[owner], &REGION),
                Body::Name { .. } => add(&mut uses[owner], &NAME),
                Body::Process(_) | Body::Directory => {}
            }
            add(&mut uses[owner], &[(Quota::Handles, self.lists[object].entries.len() as u64)]);
        }
    }

    /// Which objects there are: those that somebody has a capability to, and regions that somebody maps.
    pub(super) fn standing(&self) -> Vec<bool> {
        let mut stands = vec![false; self.objects.len()];
        for capability in &self.capabilities {
            stands[capability.object] |= capability.holder != Holder::Gone;
        }
        self.mappings.values().for_each(|mapping| stands[mapping.region] = true);
        stands
    }

    pub(super) fn account(&self, process: usize) -> usize {
        self.people[process].account
    }

    /// Whether the account, its user and everyone have room for this.
    pub(super) fn affords(&self, account: usize, parts: &[&[(Quota, u64)]]) -> Result<(), Denial> {
        let (uses, asked) = (self.uses(), sum(parts));
        self.affords_of(&uses, account, asked)
    }

    fn affords_of(&self, uses: &[Use], account: usize, asked: Use) -> Result<(), Denial> {
        fits(uses[account], asked, rows(&self.limits.process), Payer::Process)?;
        self.shared(uses, self.accounts[account].1, asked)
    }

    /// The same for a process of a user who may have no account yet.
    pub(super) fn shared(&self, uses: &[Use], uid: u32, asked: Use) -> Result<(), Denial> {
        let of_user = uses.iter().zip(&self.accounts).filter(|(_, (_, of))| *of == uid);
        let of_user = of_user.fold([0; ROWS.len()], |sum, (used, _)| both(sum, *used));
        fits(of_user, asked, rows(&self.limits.user), Payer::User)?;
        self.everyone(uses, asked)
    }

    /// Whether two processes can each pay a part: the inner error is that only the second cannot.
    pub(super) fn afford_both(
        &self,
        (one, first): (usize, &[&[(Quota, u64)]]),
        (other, second): (usize, &[&[(Quota, u64)]]),
    ) -> Result<Result<(), Denial>, Denial> {
        let (uses, together) = (self.uses(), both(sum(first), sum(second)));
        if one == other {
            return self.affords_of(&uses, one, together).map(Ok);
        }
        self.affords_of(&uses, one, sum(first))?;
        if self.accounts[one].1 == self.accounts[other].1 {
            self.shared(&uses, self.accounts[one].1, together)?;
        } else {
            self.everyone(&uses, together)?;
        }
        Ok(self.affords_of(&uses, other, sum(second)))
    }

    fn everyone(&self, uses: &[Use], asked: Use) -> Result<(), Denial> {
        let all = uses.iter().fold([0; ROWS.len()], |sum, used| both(sum, *used));
        fits(all, asked, rows(&self.limits.everyone), Payer::Everyone)
    }
}
