//! A revocation under way, and who waits for it.

use alloc::collections::{BTreeMap, VecDeque};
use core::ops::Bound;

use keyway_abi::ProcessNumber;

use crate::{account::AccountId, effect::Call, tree::CapabilityId};

/// Who asks, and where the reply goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) process: ProcessNumber,
    pub(crate) call: Call,
}

/// Who waits for a reply that is to come, and whose account that is charged to until then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Awaiting {
    pub(crate) caller: Caller,
    pub(crate) account: AccountId,
}

/// Why something ends, which decides who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Its holder wanted it.
    Deleted,
    /// It was taken back.
    Revoked,
    /// Its object, or the process that owned it, is gone.
    Ended,
    /// Its time has come.
    Expired,
}

/// A revocation under way: everything below `root` counts as gone and is being cleared away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sweep {
    pub(crate) root: CapabilityId,
    /// Who waits for the answer.
    pub(crate) awaiting: Option<Awaiting>,
    /// Capabilities taken back so far.
    pub(crate) count: u64,
    pub(crate) loss: Loss,
    /// Whether `root` itself goes as well.
    pub(crate) whole: bool,
}

/// Whose turn a revocation takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: Option<u32>,
    pub(crate) account: Option<AccountId>,
}

/// Revocations that wait for their turn. Users take turns, whatever number of revocations each has; the accounts of a user take turns
/// among themselves, and so do the revocations of an account.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    users: Ring<Option<u32>, Ring<Option<AccountId>, VecDeque<CapabilityId>>>,
    count: usize,
}

impl Turns {
    /// It waits, after the others of its owner.
    pub(crate) fn push(&mut self, owner: Owner, root: CapabilityId) {
        let user = self.users.members.entry(owner.uid).or_default();
        user.members.entry(owner.account).or_default().push_back(root);
        self.count += 1;
    }

    /// Whose turn it is; it waits no more.
    pub(crate) fn next(&mut self) -> Option<(Owner, CapabilityId)> {
        let uid = self.users.turn()?;
        let user = self.users.members.get_mut(&uid)?;
        let account = user.turn()?;
        let roots = user.members.get_mut(&account)?;
        let root = roots.pop_front()?;
        if roots.is_empty() {
            user.members.remove(&account);
        }
        if user.members.is_empty() {
            self.users.members.remove(&uid);
        }
        self.count -= 1;
        Some((Owner { uid, account }, root))
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.count
    }
}

/// Those who take turns. None of them is empty.
#[derive(Debug)]
struct Ring<K, V> {
    members: BTreeMap<K, V>,
    last: Option<K>,
}

impl<K: Copy + Ord, V> Default for Ring<K, V> {
    fn default() -> Self {
        Ring { members: BTreeMap::new(), last: None }
    }
}

impl<K: Copy + Ord, V> Ring<K, V> {
    fn turn(&mut self) -> Option<K> {
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.members.range((after, Bound::Unbounded)).next();
        let (&key, _) = next.or_else(|| self.members.first_key_value())?;
        self.last = Some(key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn users_take_turns_and_within_one_its_accounts_and_their_revocations() {
        let owner = |uid| Owner { uid: Some(uid), account: None };
        let mut turns = Turns::default();
        for root in 0..4 {
            turns.push(owner(7), CapabilityId::at(root));
        }
        turns.push(owner(5), CapabilityId::at(10));
        turns.push(owner(9), CapabilityId::at(20));
        turns.push(Owner { uid: None, account: None }, CapabilityId::at(30));
        assert_eq!(turns.len(), 7);
        let order: Vec<CapabilityId> = core::iter::from_fn(|| turns.next().map(|(_, root)| root)).collect();
        assert_eq!(order, [30, 10, 0, 20, 1, 2, 3].map(CapabilityId::at));
        assert_eq!((turns.len(), turns.users.members.len()), (0, 0));
        let accounts = crate::account::tests::two();
        for (account, root) in [(0, 0), (0, 1), (0, 2), (1, 3)] {
            let owner = Owner { uid: Some(1), account: Some(accounts[account]) };
            turns.push(owner, CapabilityId::at(root));
        }
        let order: Vec<CapabilityId> = core::iter::from_fn(|| turns.next().map(|(_, root)| root)).collect();
        assert_eq!(order, [0, 3, 1, 2].map(CapabilityId::at));
    }
}
