//! How many lanes of one queue each process and each user has.
//!
//! Counted as they come and go, so that opening one of ten thousand costs what opening the first does.

use alloc::collections::BTreeMap;

use crate::account::AccountId;

/// See the module. Nobody is named who has none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Shares {
    accounts: BTreeMap<AccountId, u16>,
    users: BTreeMap<u32, u16>,
}

impl Shares {
    /// A lane of this account, which is this user's, is there.
    pub(crate) fn add(&mut self, account: AccountId, uid: u32) {
        *self.accounts.entry(account).or_default() += 1;
        *self.users.entry(uid).or_default() += 1;
    }

    /// A lane of this account is gone.
    pub(crate) fn remove(&mut self, account: AccountId, uid: u32) {
        remove(&mut self.accounts, account);
        remove(&mut self.users, uid);
    }

    pub(crate) fn of_account(&self, account: AccountId) -> u16 {
        self.accounts.get(&account).copied().unwrap_or(0)
    }

    pub(crate) fn of_user(&self, uid: u32) -> u16 {
        self.users.get(&uid).copied().unwrap_or(0)
    }
}

fn remove<K: Copy + Ord>(counts: &mut BTreeMap<K, u16>, of: K) {
    let Some(count) = counts.get_mut(&of) else { return };
    *count -= 1;
    if *count == 0 {
        counts.remove(&of);
    }
}
