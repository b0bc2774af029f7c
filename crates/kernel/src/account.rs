//! Who pays for what: one account a running process, one total a user.
//!
//! Charged before a thing exists, released by its teardown. An account outlives its process while something of it is
//! still charged, such as a lane that its receiver has not drained.
//!
//! # Invariants
//! 1. A user's total is the sum over the accounts of that user.
//! 2. An account without sessions and charges does not exist.

use alloc::collections::BTreeMap;

use keyway_abi::{
    Denial, Quota,
    limits::{
        DESCRIPTORS_MAX, HANDLES_MAX, LANES_MAX, MAPPINGS_MAX, NAMES_MAX, OBJECTS_MAX, PROCESS_BYTES_MAX,
        USER_BYTES_MAX, USER_DESCRIPTORS_MAX, USER_HANDLES_MAX, USER_LANES_MAX, USER_MAPPINGS_MAX,
        USER_NAMES_MAX, USER_OBJECTS_MAX, USER_SESSIONS_MAX,
    },
};

/// The kernel's number for an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AccountId(u64);

/// What one thing costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Charge {
    pub(crate) handles: u32,
    pub(crate) objects: u32,
    pub(crate) lanes: u32,
    pub(crate) mappings: u32,
    pub(crate) names: u32,
    pub(crate) descriptors: u32,
    pub(crate) bytes: u64,
}

#[derive(Debug)]
struct Account {
    uid: u32,
    key: Option<(u64, u64)>,
    sessions: u32,
    used: Charge,
}

#[derive(Debug, Default)]
struct User {
    accounts: u32,
    sessions: u32,
    used: Charge,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    accounts: BTreeMap<AccountId, Account>,
    users: BTreeMap<u32, User>,
    keys: BTreeMap<(u64, u64), AccountId>,
    last: u64,
}

impl Charge {
    /// One capability.
    pub(crate) const HANDLE: Charge = Charge { handles: 1, ..Charge::NOTHING };
    /// Nothing.
    pub(crate) const NOTHING: Charge =
        Charge { handles: 0, objects: 0, lanes: 0, mappings: 0, names: 0, descriptors: 0, bytes: 0 };

    fn zip(self, other: Charge, with: impl Fn(u64, u64) -> u64) -> Charge {
        let narrow = |a: u32, b: u32| with(a.into(), b.into()) as u32;
        Charge {
            handles: narrow(self.handles, other.handles),
            objects: narrow(self.objects, other.objects),
            lanes: narrow(self.lanes, other.lanes),
            mappings: narrow(self.mappings, other.mappings),
            names: narrow(self.names, other.names),
            descriptors: narrow(self.descriptors, other.descriptors),
            bytes: with(self.bytes, other.bytes),
        }
    }

    /// Both together. Cannot overflow: what is used is below the limits, and what is asked for is judged first.
    pub(crate) fn plus(self, other: Charge) -> Charge {
        self.zip(other, u64::saturating_add)
    }

    fn minus(self, other: Charge) -> Charge {
        self.zip(other, |used, released| {
            debug_assert!(used >= released, "what is released was charged");
            used.saturating_sub(released)
        })
    }

    fn rows(self) -> [(Quota, u64); 7] {
        [
            (Quota::Handles, self.handles.into()),
            (Quota::Objects, self.objects.into()),
            (Quota::Lanes, self.lanes.into()),
            (Quota::Mappings, self.mappings.into()),
            (Quota::Names, self.names.into()),
            (Quota::Descriptors, self.descriptors.into()),
            (Quota::Bytes, self.bytes),
        ]
    }

    fn fits(self, asked: Charge, limits: Charge) -> Result<(), Denial> {
        let rows = self.rows().into_iter().zip(asked.rows()).zip(limits.rows());
        for (((quota, used), (_, asked)), (_, max)) in rows {
            if asked > max.saturating_sub(used) {
                return Err(Denial::QuotaExceeded { quota, asked, used, max });
            }
        }
        Ok(())
    }
}

const PROCESS_LIMITS: Charge = Charge {
    handles: HANDLES_MAX,
    objects: OBJECTS_MAX,
    lanes: LANES_MAX,
    mappings: MAPPINGS_MAX,
    names: NAMES_MAX,
    descriptors: DESCRIPTORS_MAX,
    bytes: PROCESS_BYTES_MAX,
};

const USER_LIMITS: Charge = Charge {
    handles: USER_HANDLES_MAX,
    objects: USER_OBJECTS_MAX,
    lanes: USER_LANES_MAX,
    mappings: USER_MAPPINGS_MAX,
    names: USER_NAMES_MAX,
    descriptors: USER_DESCRIPTORS_MAX,
    bytes: USER_BYTES_MAX,
};

impl Accounts {
    /// The account of a running process, made if it has none; a session is counted on it.
    pub(crate) fn open(&mut self, key: (u64, u64), uid: u32) -> Option<AccountId> {
        if !self.has_room_for_session(uid) {
            return None;
        }
        let id = match self.keys.get(&key) {
            Some(&id) => id,
            None => self.create(Some(key), uid),
        };
        self.count_session(id, 1);
        Some(id)
    }

    /// An account for a child that has not spoken yet. `None` when its starter's user has its sessions.
    pub(crate) fn open_unbound(&mut self, starter: AccountId) -> Option<AccountId> {
        let uid = self.accounts[&starter].uid;
        if !self.has_room_for_session(uid) {
            return None;
        }
        let id = self.create(None, uid);
        self.count_session(id, 1);
        Some(id)
    }

    /// Now it is known which process the account's is. Charges move to that process's account.
    pub(crate) fn bind(&mut self, unbound: AccountId, key: (u64, u64), uid: u32) -> AccountId {
        let id = match self.keys.get(&key) {
            Some(&id) => id,
            None => self.create(Some(key), uid),
        };
        let used = self.accounts[&unbound].used;
        self.count_session(id, 1);
        self.charge(id, used);
        self.release(unbound, used);
        self.close(unbound);
        id
    }

    /// A session of the account has ended.
    pub(crate) fn close(&mut self, id: AccountId) {
        self.count_session(id, -1);
        self.drop_if_empty(id);
    }

    /// Whether the process and its user may have so much more.
    pub(crate) fn check(&self, id: AccountId, asked: Charge) -> Result<(), Denial> {
        let account = &self.accounts[&id];
        account.used.fits(asked, PROCESS_LIMITS)?;
        self.users[&account.uid].used.fits(asked, USER_LIMITS)
    }

    /// Charges what was checked.
    pub(crate) fn charge(&mut self, id: AccountId, charge: Charge) {
        self.change(id, |used| used.plus(charge));
    }

    /// Gives back what was charged.
    pub(crate) fn release(&mut self, id: AccountId, charge: Charge) {
        self.change(id, |used| used.minus(charge));
        self.drop_if_empty(id);
    }

    /// Whose user's it is.
    pub(crate) fn uid(&self, id: AccountId) -> u32 {
        self.accounts[&id].uid
    }

    /// What is charged.
    pub(crate) fn used(&self, id: AccountId) -> Charge {
        self.accounts[&id].used
    }

    /// Checks the invariants, and that the charges of all accounts together are `expected`.
    pub(crate) fn audit(&self, expected: &BTreeMap<AccountId, Charge>) {
        let mut users = BTreeMap::<u32, Charge>::new();
        for (id, account) in &self.accounts {
            let total = expected.get(id).copied().unwrap_or_default();
            assert_eq!(account.used, total, "charges are exactly what exists: {id:?}");
            assert!(account.sessions > 0 || account.used != Charge::NOTHING, "account invariant 2");
            let user = users.entry(account.uid).or_default();
            *user = user.plus(account.used);
        }
        for id in expected.keys() {
            assert!(self.accounts.contains_key(id), "what exists is charged to an account: {id:?}");
        }
        for (uid, user) in &self.users {
            assert_eq!(Some(&user.used), users.get(uid), "account invariant 1");
        }
    }

    /// Whether nothing is charged to anyone and nobody is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.accounts.is_empty() && self.users.is_empty() && self.keys.is_empty()
    }

    fn has_room_for_session(&self, uid: u32) -> bool {
        self.users.get(&uid).is_none_or(|user| user.sessions < USER_SESSIONS_MAX)
    }

    fn create(&mut self, key: Option<(u64, u64)>, uid: u32) -> AccountId {
        self.last += 1;
        let id = AccountId(self.last);
        self.accounts.insert(id, Account { uid, key, sessions: 0, used: Charge::NOTHING });
        self.users.entry(uid).or_default().accounts += 1;
        if let Some(key) = key {
            self.keys.insert(key, id);
        }
        id
    }

    fn count_session(&mut self, id: AccountId, by: i32) {
        if let Some(account) = self.accounts.get_mut(&id) {
            account.sessions = account.sessions.saturating_add_signed(by);
            if let Some(user) = self.users.get_mut(&account.uid) {
                user.sessions = user.sessions.saturating_add_signed(by);
            }
        }
    }

    fn change(&mut self, id: AccountId, to: impl Fn(Charge) -> Charge) {
        if let Some(account) = self.accounts.get_mut(&id) {
            account.used = to(account.used);
            if let Some(user) = self.users.get_mut(&account.uid) {
                user.used = to(user.used);
            }
        }
    }

    fn drop_if_empty(&mut self, id: AccountId) {
        let Some(account) = self.accounts.get(&id) else { return };
        if account.sessions > 0 || account.used != Charge::NOTHING {
            return;
        }
        if let Some(key) = account.key {
            self.keys.remove(&key);
        }
        let uid = account.uid;
        self.accounts.remove(&id);
        if let Some(user) = self.users.get_mut(&uid) {
            user.accounts -= 1;
            if user.accounts == 0 {
                self.users.remove(&uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    const KEY: (u64, u64) = (0, 7);
    const BYTES: Charge = Charge { bytes: 4096, ..Charge::NOTHING };

    #[test]
    fn an_account_goes_with_its_last_session_and_its_last_charge() {
        let mut accounts = Accounts::default();
        assert!(accounts.is_empty());
        let id = accounts.open(KEY, 1000).expect("room");
        assert!(!accounts.is_empty());
        accounts.charge(id, BYTES);
        accounts.close(id);
        assert_eq!(accounts.used(id), BYTES, "it outlives its session");
        accounts.release(id, BYTES);
        assert!(accounts.is_empty());
        let id = accounts.open(KEY, 1000).expect("room");
        accounts.charge(id, BYTES);
        accounts.release(id, BYTES);
        assert_eq!(accounts.used(id), Charge::NOTHING, "it outlives its charges");
        accounts.close(id);
        assert!(accounts.is_empty());
    }

    #[test]
    fn a_user_has_no_more_sessions_than_the_limit() {
        let mut accounts = Accounts::default();
        let sessions: Vec<_> = (0..USER_SESSIONS_MAX).map(|_| accounts.open(KEY, 1000)).collect();
        assert!(sessions.iter().all(Option::is_some));
        assert_eq!(accounts.open(KEY, 1000), None);
        assert_eq!(accounts.open((0, 8), 1000), None, "another process of the same user");
        assert_eq!(accounts.open_unbound(sessions[0].expect("room")), None);
        assert!(accounts.open((0, 9), 1001).is_some(), "another user");
        accounts.close(sessions[0].expect("room"));
        assert!(accounts.open(KEY, 1000).is_some());
    }

    #[test]
    fn what_an_unbound_child_was_charged_is_its_processes_once_it_is_known() {
        let mut accounts = Accounts::default();
        let starter = accounts.open(KEY, 1000).expect("room");
        let unbound = accounts.open_unbound(starter).expect("room");
        accounts.charge(unbound, BYTES);
        let bound = accounts.bind(unbound, (0, 8), 1001);
        assert_eq!((accounts.used(bound), accounts.used(starter)), (BYTES, Charge::NOTHING));
        assert!(!accounts.accounts.contains_key(&unbound));
        assert_eq!(accounts.users[&1001].used, BYTES);
        assert_eq!(accounts.users[&1000].used, Charge::NOTHING);
        assert_eq!((accounts.users[&1000].sessions, accounts.users[&1001].sessions), (1, 1));
    }

    #[test]
    #[should_panic(expected = "charges are exactly what exists")]
    fn an_audit_finds_a_charge_for_nothing() {
        let mut accounts = Accounts::default();
        let id = accounts.open(KEY, 1000).expect("room");
        accounts.charge(id, BYTES);
        accounts.audit(&BTreeMap::new());
    }
}
