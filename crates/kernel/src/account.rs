//! Who pays for what: one account a running process, one total a user, one for all.
//!
//! Charged before a thing exists, released by its teardown. An account outlives its process while something of it is
//! still charged, such as a lane that its receiver has not drained.
//!
//! # Invariants
//! 1. A user's total is the sum over the accounts of that user, and everyone's the sum over the users.
//! 2. An account to which nothing is charged does not exist.

use alloc::collections::BTreeMap;
use core::num::NonZeroU64;

use keyway_abi::{Denial, Payer};

use crate::limits::{Charge, Limits};

/// The kernel's number for an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AccountId(NonZeroU64);

#[derive(Debug)]
struct Account {
    uid: u32,
    key: Option<(u64, u64)>,
    used: Charge,
}

#[derive(Debug, Default)]
struct User {
    accounts: u32,
    used: Charge,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Accounts {
    limits: Limits,
    accounts: BTreeMap<AccountId, Account>,
    users: BTreeMap<u32, User>,
    everyone: Charge,
    keys: BTreeMap<(u64, u64), AccountId>,
    last: NonZeroU64,
}

impl Accounts {
    pub(crate) fn new(limits: Limits) -> Self {
        let (accounts, users, keys) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Accounts { limits, accounts, users, everyone: Charge::NOTHING, keys, last: NonZeroU64::MIN }
    }

    /// From now on these limits hold. What is charged stays charged.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The account of a running process, made if it has none; a session is charged to it.
    pub(crate) fn open(&mut self, key: (u64, u64), uid: u32) -> Result<AccountId, Denial> {
        let found = self.keys.get(&key).copied();
        match found {
            Some(id) => self.check(id, Charge::SESSION)?,
            None => self.check_shared(uid, Charge::SESSION)?,
        }
        let id = found.unwrap_or_else(|| self.create(Some(key), uid));
        self.charge(id, Charge::SESSION);
        Ok(id)
    }

    /// The starter of a child pays for its session until it is known which process it is.
    pub(crate) fn open_child(&mut self, starter: AccountId) -> Result<(), Denial> {
        self.check(starter, Charge::SESSION)?;
        self.charge(starter, Charge::SESSION);
        Ok(())
    }

    /// Now it is known which process a child is: what its starter was charged for it moves to that process's account, if it
    /// fits there.
    pub(crate) fn bind(
        &mut self,
        starter: AccountId,
        moved: Charge,
        key: (u64, u64),
        uid: u32,
    ) -> Result<AccountId, Denial> {
        let found = self.keys.get(&key).copied();
        if found == Some(starter) {
            return Ok(starter);
        }
        let uid = found.map_or(uid, |id| self.accounts[&id].uid);
        let process = found.map_or(Charge::NOTHING, |id| self.accounts[&id].used);
        process.fits(moved, self.limits.process, Payer::Process)?;
        if uid != self.accounts[&starter].uid {
            self.user(uid).fits(moved, self.limits.user, Payer::User)?;
        }
        let id = found.unwrap_or_else(|| self.create(Some(key), uid));
        self.charge(id, moved);
        self.release(starter, moved);
        Ok(id)
    }

    /// Whether the process and its user may have so much more.
    pub(crate) fn check(&self, id: AccountId, asked: Charge) -> Result<(), Denial> {
        let account = &self.accounts[&id];
        account.used.fits(asked, self.limits.process, Payer::Process)?;
        self.check_shared(account.uid, asked)
    }

    /// Whether two processes may each have so much more, which may be one, or of one user. The errors are the second's when
    /// only the second has no room.
    pub(crate) fn check_both(
        &self,
        first: (AccountId, Charge),
        second: (AccountId, Charge),
    ) -> Result<Result<(), Denial>, Denial> {
        let ((one, asked_of_one), (other, asked_of_other)) = (first, second);
        let together = asked_of_one.plus(asked_of_other);
        if one == other {
            return self.check(one, together).map(Ok);
        }
        self.check(one, asked_of_one)?;
        let uid = self.uid(one);
        if uid == self.uid(other) {
            self.user(uid).fits(together, self.limits.user, Payer::User)?;
        }
        self.everyone.fits(together, self.limits.everyone, Payer::Everyone)?;
        Ok(self.check(other, asked_of_other))
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

    /// How many lanes a process can have.
    pub(crate) fn lanes_max(&self) -> u32 {
        self.limits.process.lanes
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
            assert!(account.used != Charge::NOTHING, "account invariant 2");
            let user = users.entry(account.uid).or_default();
            *user = user.plus(account.used);
        }
        for id in expected.keys() {
            assert!(self.accounts.contains_key(id), "what exists is charged to an account: {id:?}");
        }
        for (uid, user) in &self.users {
            assert_eq!(Some(&user.used), users.get(uid), "account invariant 1");
        }
        let everyone = users.values().fold(Charge::NOTHING, |sum, user| sum.plus(*user));
        assert_eq!(self.everyone, everyone, "account invariant 1");
    }

    /// Whether nothing is charged to anyone and nobody is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.accounts.is_empty()
            && self.users.is_empty()
            && self.keys.is_empty()
            && self.everyone == Charge::NOTHING
    }

    /// Whether the user, and everyone together, may have so much more.
    fn check_shared(&self, uid: u32, asked: Charge) -> Result<(), Denial> {
        self.user(uid).fits(asked, self.limits.user, Payer::User)?;
        self.everyone.fits(asked, self.limits.everyone, Payer::Everyone)
    }

    fn user(&self, uid: u32) -> Charge {
        self.users.get(&uid).map_or(Charge::NOTHING, |user| user.used)
    }

    /// The caller charges something to it at once, see invariant 2.
    fn create(&mut self, key: Option<(u64, u64)>, uid: u32) -> AccountId {
        self.last = self.last.saturating_add(1);
        let id = AccountId(self.last);
        self.accounts.insert(id, Account { uid, key, used: Charge::NOTHING });
        self.users.entry(uid).or_default().accounts += 1;
        if let Some(key) = key {
            self.keys.insert(key, id);
        }
        id
    }

    fn change(&mut self, id: AccountId, to: impl Fn(Charge) -> Charge) {
        if let Some(account) = self.accounts.get_mut(&id) {
            account.used = to(account.used);
            if let Some(user) = self.users.get_mut(&account.uid) {
                user.used = to(user.used);
            }
            self.everyone = to(self.everyone);
        }
    }

    fn drop_if_empty(&mut self, id: AccountId) {
        let Some(account) = self.accounts.get(&id) else { return };
        if account.used != Charge::NOTHING {
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
pub(crate) mod tests {
    use alloc::vec::Vec;

    use keyway_abi::{
        Quota,
        limits::{PROCESS_SESSIONS_MAX, USER_SESSIONS_MAX},
    };

    use super::*;

    const KEY: (u64, u64) = (0, 7);
    const BYTES: Charge = Charge { bytes: 4096, ..Charge::NOTHING };

    /// Two different accounts.
    pub(crate) fn two() -> [AccountId; 2] {
        let mut accounts = accounts();
        [KEY, (0, 8)].map(|key| accounts.open(key, 1000).expect("room"))
    }

    fn accounts() -> Accounts {
        Accounts::new(Limits::default())
    }

    impl Accounts {
        /// What is charged to the process with this key, which may have no account.
        pub(crate) fn used_by(&self, key: (u64, u64)) -> Charge {
            self.keys.get(&key).map_or(Charge::NOTHING, |id| self.used(*id))
        }

        fn release_session(&mut self, id: AccountId) {
            self.release(id, Charge::SESSION);
        }
    }

    fn full(of: Payer, max: u32) -> Denial {
        let max = max.into();
        Denial::QuotaExceeded { quota: Quota::Sessions, of, asked: 1, used: max, max }
    }

    #[test]
    fn an_account_goes_with_its_last_session_and_its_last_charge() {
        let mut accounts = accounts();
        assert!(accounts.is_empty());
        let id = accounts.open(KEY, 1000).expect("room");
        assert!(!accounts.is_empty());
        accounts.charge(id, BYTES);
        accounts.release_session(id);
        assert_eq!(accounts.used(id), BYTES, "it outlives its session");
        accounts.release(id, BYTES);
        assert!(accounts.is_empty());
        let id = accounts.open(KEY, 1000).expect("room");
        accounts.charge(id, BYTES);
        accounts.release(id, BYTES);
        assert_eq!(accounts.used(id), Charge::SESSION, "it outlives its charges");
        accounts.release_session(id);
        assert!(accounts.is_empty());
    }

    #[test]
    fn a_process_has_no_more_sessions_than_its_limit() {
        let mut accounts = accounts();
        let sessions: Vec<_> = (0..PROCESS_SESSIONS_MAX).map(|_| accounts.open(KEY, 1000)).collect();
        assert!(sessions.iter().all(Result::is_ok));
        assert_eq!(accounts.open(KEY, 1000), Err(full(Payer::Process, PROCESS_SESSIONS_MAX)));
        let starter = *sessions[0].as_ref().expect("room");
        let refused = accounts.open_child(starter);
        assert_eq!(refused, Err(full(Payer::Process, PROCESS_SESSIONS_MAX)), "nor for a child");
        let other = accounts.open((0, 8), 1000).expect("another process");
        accounts.open_child(other).expect("room");
        let refused = accounts.bind(other, Charge::SESSION, KEY, 1000);
        assert_eq!(refused, Err(full(Payer::Process, PROCESS_SESSIONS_MAX)), "nor through a child's session");
        accounts.release_session(starter);
        assert_eq!(accounts.bind(other, Charge::SESSION, KEY, 1000), Ok(starter));
        assert_eq!(accounts.used(other), Charge::SESSION);
    }

    #[test]
    fn a_user_has_no_more_sessions_than_the_limit() {
        let mut accounts = accounts();
        let open =
            |accounts: &mut Accounts, n: u32| accounts.open((1, (n / PROCESS_SESSIONS_MAX).into()), 1000);
        let sessions: Vec<_> = (0..USER_SESSIONS_MAX).map(|n| open(&mut accounts, n)).collect();
        let first = *sessions[0].as_ref().expect("room");
        assert!(sessions.iter().all(Result::is_ok));
        let refused = full(Payer::User, USER_SESSIONS_MAX);
        assert_eq!(accounts.open((0, 8), 1000), Err(refused.clone()));
        let stranger = accounts.open((0, 9), 1001).expect("another user has room");
        accounts.open_child(stranger).expect("room");
        let bind = |accounts: &mut Accounts| accounts.bind(stranger, Charge::SESSION, (0, 10), 1000);
        assert_eq!(bind(&mut accounts), Err(refused), "nor through another user's child");
        accounts.release_session(first);
        assert!(bind(&mut accounts).is_ok());
    }

    #[test]
    fn what_everyone_has_together_is_bounded() {
        let limits = Limits::default().with_descriptors(2 * Charge::SESSION.descriptors);
        let mut accounts = Accounts::new(limits);
        let first = accounts.open(KEY, 1000).expect("room");
        let second = accounts.open((0, 8), 1001).expect("room");
        let room = accounts.open((0, 9), 1002);
        let of = Payer::Everyone;
        assert!(
            matches!(room, Err(Denial::QuotaExceeded { quota: Quota::Descriptors, of: found, .. }) if found == of)
        );
        let both = accounts.check_both((first, Charge::DESCRIPTOR), (second, Charge::NOTHING));
        assert!(matches!(both, Err(Denial::QuotaExceeded { .. })));
        accounts.release_session(first);
        assert!(accounts.open((0, 9), 1002).is_ok());
    }

    #[test]
    fn two_of_one_user_do_not_each_take_the_last_of_it() {
        let mut limits = Limits::default();
        limits.user.lanes = 1;
        let mut accounts = Accounts::new(limits);
        let ids = [(KEY, 1000), ((0, 8), 1000), ((0, 9), 1001)];
        let [one, other, stranger] = ids.map(|(key, uid)| accounts.open(key, uid).expect("room"));
        let lane = Charge { lanes: 1, ..Charge::NOTHING };
        assert_eq!(accounts.check_both((one, lane), (stranger, lane)), Ok(Ok(())));
        assert!(accounts.check_both((one, lane), (other, lane)).is_err());
        assert!(accounts.check_both((one, lane), (one, lane)).is_err());
        accounts.charge(stranger, lane);
        assert!(matches!(accounts.check_both((one, lane), (stranger, lane)), Ok(Err(_))));
    }

    #[test]
    fn what_the_starter_of_a_child_was_charged_is_the_childs_once_it_is_known() {
        let mut accounts = accounts();
        let starter = accounts.open(KEY, 1000).expect("room");
        accounts.open_child(starter).expect("room");
        accounts.charge(starter, BYTES);
        let moved = BYTES.plus(Charge::SESSION);
        assert_eq!(accounts.used(starter), moved.plus(Charge::SESSION));
        assert_eq!(accounts.bind(starter, moved, KEY, 1000), Ok(starter), "it is its own starter");
        let bound = accounts.bind(starter, moved, (0, 8), 1001).expect("room");
        assert_eq!(accounts.used(bound), moved);
        assert_eq!(accounts.used(starter), Charge::SESSION);
        assert_eq!(accounts.users[&1001].used, moved);
        assert_eq!(accounts.users[&1000].used, Charge::SESSION);
    }

    #[test]
    fn accounts_of_which_anything_is_left_are_not_empty() {
        let leave: [fn(&mut Accounts); 4] = [
            |accounts| {
                accounts
                    .accounts
                    .insert(AccountId(NonZeroU64::MIN), Account { uid: 0, key: None, used: Charge::NOTHING });
            },
            |accounts| {
                accounts.users.insert(0, User::default());
            },
            |accounts| {
                accounts.keys.insert(KEY, AccountId(NonZeroU64::MIN));
            },
            |accounts| accounts.everyone = BYTES,
        ];
        for leave in leave {
            let mut accounts = accounts();
            leave(&mut accounts);
            assert!(!accounts.is_empty(), "{accounts:?}");
        }
    }

    #[test]
    #[should_panic(expected = "charges are exactly what exists")]
    fn an_audit_finds_a_charge_for_nothing() {
        let mut accounts = accounts();
        let id = accounts.open(KEY, 1000).expect("room");
        accounts.charge(id, BYTES);
        accounts.audit(&BTreeMap::from([(id, Charge::SESSION)]));
    }
}
