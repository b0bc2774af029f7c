//! Who is served next: whoever has had the least of the broker's time.
//!
//! Time is counted for each user, and for each process of a user. Who was away for a while begins where those are who are served
//! now, so that nobody saves up for a flood.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// Whose time it is: a user's, and of that a process's. New connections, of which nobody knows whose they are, have a place of
/// their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Customer {
    Newcomers,
    Process { uid: u32, pid: u32 },
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Fairness {
    users: BTreeMap<Option<u32>, User>,
    /// What the user that was served last had had by then.
    floor: Duration,
    /// Processes of all users.
    count: usize,
}

#[derive(Debug, Default)]
struct User {
    used: Duration,
    processes: BTreeMap<u32, Duration>,
    /// What the process of it that was served last had had by then.
    floor: Duration,
}

impl Customer {
    fn split(self) -> (Option<u32>, u32) {
        match self {
            Customer::Newcomers => (None, 0),
            Customer::Process { uid, pid } => (Some(uid), pid),
        }
    }
}

impl Fairness {
    /// What has been used, to be served in this order: of the user, then of the process.
    pub(crate) fn used(&self, customer: Customer) -> (Duration, Duration) {
        let (uid, pid) = customer.split();
        let Some(user) = self.users.get(&uid) else { return (self.floor, Duration::ZERO) };
        let own = user.processes.get(&pid).copied().unwrap_or_default();
        (user.used.max(self.floor), own.max(user.floor))
    }

    /// It was served from `began` until now. Connecting is dear, and is made dearer, so that others go first who are there already.
    pub(crate) fn charge(&mut self, customer: Customer, began: Instant) {
        let ((of_user, own), (uid, pid)) = (self.used(customer), customer.split());
        let times = if customer == Customer::Newcomers { NEWCOMERS_PAY } else { 1 };
        let (taken, user) = (began.elapsed() * times, self.users.entry(uid).or_default());
        // Whoever waits has had at least as much as whoever is served before it.
        (self.floor, user.floor) = (of_user, own);
        user.used = of_user + taken;
        self.count += usize::from(user.processes.insert(pid, own + taken).is_none());
    }

    /// Forgets who is not there any more, when there are many of them.
    pub(crate) fn forget_absent(&mut self, count: usize, present: impl FnOnce() -> BTreeSet<Customer>) {
        if self.count <= 2 * count + FEW {
            return;
        }
        let present = present();
        for (uid, user) in &mut self.users {
            let is_present = |pid| uid.is_none_or(|uid| present.contains(&Customer::Process { uid, pid }));
            user.processes.retain(|pid, _| is_present(*pid));
        }
        self.users.retain(|_, user| !user.processes.is_empty());
        self.count = self.users.values().map(|user| user.processes.len()).sum();
    }
}

/// Customers that are kept in any case.
const FEW: usize = 64;

/// How many times the time that it takes a connection costs those who connect.
const NEWCOMERS_PAY: u32 = 4;

/// How long a turn serves those that were ready when it began, before it looks who else is.
pub(crate) const TURN: Duration = Duration::from_micros(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn process(uid: u32, pid: u32) -> Customer {
        Customer::Process { uid, pid }
    }

    fn charge(fairness: &mut Fairness, customer: Customer, ms: u64) {
        fairness.charge(customer, Instant::now().checked_sub(Duration::from_millis(ms)).unwrap());
    }

    /// Serves whoever is first, for as long as each asks for, and says how often each was served.
    fn serve(fairness: &mut Fairness, all: &[(Customer, u64)], times: usize) -> Vec<usize> {
        let mut served = vec![0; all.len()];
        for _ in 0..times {
            let order = |index: &usize| fairness.used(all[*index].0);
            let first = (0..all.len()).min_by_key(order).unwrap();
            charge(fairness, all[first].0, all[first].1);
            served[first] += 1;
        }
        served
    }

    #[test]
    fn who_asks_for_little_is_served_as_long_as_who_asks_for_much_and_more_often() {
        let mut fairness = Fairness::default();
        let served = serve(&mut fairness, &[(process(1, 1), 10), (process(2, 2), 1)], 110);
        assert!((8..=12).contains(&served[0]), "{served:?}");
    }

    #[test]
    fn a_user_has_no_more_for_having_many_processes() {
        let mut fairness = Fairness::default();
        let mut all: Vec<_> = (0..20).map(|pid| (process(1, pid), 1)).collect();
        all.push((process(2, 99), 1));
        let served = serve(&mut fairness, &all, 200);
        assert!((95..=105).contains(&served[20]), "{served:?}");
        let of_one_user: Vec<_> = served[..20].to_vec();
        assert!(of_one_user.iter().all(|count| (4..=6).contains(count)), "{served:?}");
    }

    #[test]
    fn who_was_away_is_first_and_has_saved_nothing_up() {
        let mut fairness = Fairness::default();
        let (busy, away) = (process(1, 1), process(2, 2));
        charge(&mut fairness, away, 1);
        for _ in 0..50 {
            charge(&mut fairness, busy, 10);
        }
        assert!(fairness.used(away) < fairness.used(busy));
        let served = serve(&mut fairness, &[(busy, 10), (away, 10)], 20);
        assert!((9..=12).contains(&served[1]), "{served:?}");
    }

    #[test]
    fn those_who_are_gone_are_forgotten_and_those_who_are_there_are_not() {
        let mut fairness = Fairness::default();
        let there = process(2, 1);
        charge(&mut fairness, there, 500);
        let used = fairness.used(there);
        for pid in 0..1000 {
            charge(&mut fairness, process(1, pid), 1);
            fairness.forget_absent(1, || BTreeSet::from([there]));
        }
        assert!(fairness.count <= 2 + FEW + 1, "{}", fairness.count);
        assert_eq!(fairness.users.values().map(|user| user.processes.len()).sum::<usize>(), fairness.count);
        assert_eq!(fairness.used(there).1, used.1, "its own is remembered");
    }
}
