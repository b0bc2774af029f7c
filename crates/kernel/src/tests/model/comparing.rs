//! After each step: whether each table, lane, mapping, name, list and charge is as predicted, and who was told what.

use alloc::vec::Vec;

use keyway_abi::{Event, Handle, Listing, Name, Reply, request};

use super::{charges, oracle::Body, steps::Duel};
use crate::neighbours::Doorbell;

/// How many steps pass between two listings of everything; in between the kernel's tables are read where they are.
const LISTED_EVERY: u64 = 16;

impl Duel {
    /// Everything is as predicted.
    pub(super) fn compare(&mut self) {
        self.oracle.settle_doorbells();
        self.compare_news();
        for process in 0..self.oracle.people.len() {
            if !self.oracle.ended.contains(&process) {
                self.compare_table(process);
                self.compare_process(process);
            }
        }
        self.compare_lanes();
        self.compare_objects();
        self.compare_charges();
        if self.steps.is_multiple_of(LISTED_EVERY) {
            self.compare_listings();
        }
    }

    /// Each was told what was predicted, and nothing else, in any order.
    fn compare_news(&mut self) {
        let mut told = core::mem::take(&mut self.told);
        for process in 0..self.oracle.people.len() {
            let events = self.driver.events(self.oracle.people[process].number);
            told.extend(events.into_iter().map(|event| (process, event)));
        }
        for expected in self.oracle.news.drain(..) {
            let place = told.iter().position(|found| *found == expected);
            let Some(place) = place else { panic!("told: {expected:?}; there were only {told:?}") };
            told.swap_remove(place);
        }
        // A page more is the kernel's own affair.
        told.retain(|(_, event)| !matches!(event, Event::PageAdded { .. } | Event::PageDropped { .. }));
        assert_eq!(told, [], "told besides");
    }

    fn compare_table(&mut self, process: usize) {
        let kernel = &self.driver.kernel;
        let held = kernel.process(self.oracle.people[process].number).table.filled(0);
        let table = self.oracle.table(process);
        let mut expected = table.iter();
        for (handle, found) in held {
            let found = kernel.tree.get(found);
            let Some((known, id)) = expected.next() else { panic!("process {process} has {handle}") };
            let capability = &self.oracle.capabilities[*id];
            assert_eq!(
                (
                    handle,
                    kernel.object(found.object).kind(),
                    found.rights,
                    found.badge,
                    found.expires_ns,
                    found.limits()
                ),
                (
                    *known,
                    self.oracle.kind(*id),
                    capability.rights,
                    capability.badge,
                    capability.expires_ns,
                    capability.limits
                ),
                "the table of process {process}"
            );
            let number = *self.numbers.entry(capability.object).or_insert(found.object.0);
            assert_eq!(number, found.object.0, "same object");
        }
        assert_eq!(expected.next(), None, "the table of process {process}");
    }

    fn compare_process(&self, process: usize) {
        let person = &self.oracle.people[process];
        let found = self.driver.kernel.process(person.number);
        assert_eq!(found.signals.pending().bits(), person.inbox.pending_bits(), "pending at {process}");
        let waits = found.waited_names.iter().map(Name::as_str);
        assert!(waits.eq(person.waits.iter().copied()), "names that {process} waits for");
        let watches = self.oracle.watches.iter().filter(|(watcher, ..)| *watcher == process);
        let mut watches: Vec<Handle> = watches.map(|(_, through, _)| *through).collect();
        let mut watching: Vec<Handle> = found.watching.iter().map(|(_, through)| *through).collect();
        watches.sort_unstable();
        watching.sort_unstable();
        assert_eq!(watching, watches, "watched by {process}");
    }

    fn compare_lanes(&self) {
        let kernel = &self.driver.kernel;
        let number = |process: usize| self.oracle.people[process].number;
        assert!(kernel.lanes.keys().eq(self.oracle.lanes.keys()), "the lanes that there are");
        for (id, lane) in &kernel.lanes {
            let known = &self.oracle.lanes[id];
            assert_eq!(
                (lane.sender, lane.receiver, lane.sender_here, lane.receiver_here, lane.ended.is_some()),
                (
                    number(known.sender),
                    number(known.receiver),
                    known.sender_here,
                    known.receiver_here,
                    known.ended
                ),
                "lane {id}"
            );
            assert!(lane.escrow.keys().eq(known.escrow.keys()), "what lane {id} carries");
        }
        let have = kernel.neighbours.values().filter(|found| found.doorbell == Doorbell::There).count();
        assert_eq!(have, self.oracle.doorbells.len(), "the doorbells that there are");
        assert!(kernel.mappings.keys().eq(self.oracle.mappings.keys()), "the mappings that there are");
        for (id, mapping) in &kernel.mappings {
            assert_eq!(mapping.process, number(self.oracle.mappings[id].process), "mapping {id:?}");
        }
    }

    fn compare_objects(&self) {
        let kernel = &self.driver.kernel;
        let standing = self.oracle.standing();
        let count = standing.iter().filter(|stands| **stands).count();
        assert_eq!(kernel.objects.len(), count, "objects that there are");
        for (object, number) in &self.numbers {
            let found = kernel.objects.get(&crate::tree::ObjectId(*number));
            assert_eq!(found.is_some(), standing[*object], "object {number}");
            let entries =
                found.and_then(|found| found.acl.as_ref()).into_iter().flat_map(|acl| acl.entries_from(0));
            let known = self.oracle.lists[*object].entries.iter().filter(|_| standing[*object]);
            assert!(
                entries
                    .map(|(number, entry)| (number, entry.permissions, entry.kind))
                    .eq(known.map(|(number, _, permissions, kind)| (*number, *permissions, *kind))),
                "the list of object {number}"
            );
        }
        let mut names: Vec<&str> = self
            .oracle
            .objects
            .iter()
            .filter_map(|body| match body {
                Body::Name { text, target: Some(_), .. } => Some(*text),
                _ => None,
            })
            .collect();
        names.sort_unstable();
        assert!(kernel.names.keys().map(Name::as_str).eq(names), "published names");
    }

    fn compare_charges(&self) {
        let uses = self.oracle.uses();
        for ((key, uid), expected) in self.oracle.accounts.iter().zip(uses) {
            let found = charges::rows(&self.driver.kernel.accounts.used_by(*key));
            assert_eq!(found, expected, "charged to {key:?} of user {uid}, by {:?}", charges::ROWS);
        }
    }

    /// What listings say is what the tables say. They change nothing.
    fn compare_listings(&mut self) {
        self.driver.audits = false;
        let mut inspected = false;
        for process in 0..self.oracle.people.len() {
            if self.oracle.ended.contains(&process) {
                continue;
            }
            let number = self.oracle.people[process].number;
            let listed = self.driver.list(number).into_iter();
            let found = listed.map(|entry| {
                let expires_ns = entry.expires_ns.unwrap_or(u64::MAX);
                (entry.handle, entry.kind, entry.rights, entry.badge, expires_ns, entry.limits)
            });
            let expected = self.oracle.table(process).into_iter().map(|(handle, id)| {
                let found = &self.oracle.capabilities[id];
                (handle, self.oracle.kind(id), found.rights, found.badge, found.expires_ns, found.limits)
            });
            assert!(found.eq(expected), "the listing of process {process}");
            let directory = self.directories[process];
            if !inspected && self.oracle.inspects(process, directory) {
                inspected = true;
                self.compare_listed_lanes(process, directory);
            }
        }
        self.driver.audits = true;
    }

    fn compare_listed_lanes(&mut self, process: usize, directory: Handle) {
        let list = request::ListLanes { directory, after: None };
        let reply = self.driver.ask(self.oracle.people[process].number, list);
        let Reply::Listing(Listing::Lanes(found)) = reply else { panic!("lanes") };
        let found: Vec<_> = found.iter().map(|lane| (lane.lane, lane.sender, lane.draining)).collect();
        let expected = self.oracle.lanes.iter();
        let expected =
            expected.map(|(id, lane)| (*id, self.oracle.people[lane.sender].number, !lane.sender_here));
        assert_eq!(found, expected.take(24).collect::<Vec<_>>());
    }
}
