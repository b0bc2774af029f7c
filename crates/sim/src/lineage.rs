//! What was derived from what, as the replies to one process tell, and what a revocation must therefore have ended.
//!
//! From the moment at which a revocation has begun, nothing below it can be used; once it is answered, every lane and
//! mapping that was opened below it shows a verdict. Handles of other processes are not followed: the kernel's own
//! tests do that.

use std::collections::{BTreeMap, BTreeSet};

use keyway_abi::{Handle, LaneId, MappingId, ProcessNumber, Request, WordPlace};

/// A handle of one process.
pub(crate) type Own = (ProcessNumber, Handle);

/// Where a verdict must stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Opened {
    Lane(LaneId),
    Mapping(MappingId),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Lineage {
    parents: BTreeMap<Own, Own>,
    gone: BTreeSet<Own>,
    opened: BTreeMap<(ProcessNumber, Opened), (Handle, WordPlace)>,
    /// Requests to open something that are not answered: through what, and when that ended by itself when it was asked.
    opening: BTreeMap<(ProcessNumber, u32), (Handle, Option<u64>)>,
    /// When a capability ends by itself, at the latest.
    expiries: BTreeMap<Own, u64>,
    /// When what was opened through it ends, at the latest.
    ends: BTreeMap<(ProcessNumber, Opened), u64>,
}

impl Lineage {
    pub(crate) fn on_derived(
        &mut self,
        process: ProcessNumber,
        from: Handle,
        made: Handle,
        expires_ns: Option<u64>,
    ) {
        self.parents.insert((process, made), (process, from));
        let parents = self.expiries.get(&(process, from)).copied();
        self.expiries.extend(parents.into_iter().chain(expires_ns).min().map(|at| ((process, made), at)));
    }

    /// Something weaker has taken its place: what was made through it before now hangs on what is above.
    pub(crate) fn on_weakened(&mut self, process: ProcessNumber, handle: Handle, expires_ns: Option<u64>) {
        let own = (process, handle);
        let above = self.parents.get(&own).copied();
        let children: Vec<Own> =
            self.parents.iter().filter(|(_, parent)| **parent == own).map(|(child, _)| *child).collect();
        for child in children {
            match above {
                Some(above) => self.parents.insert(child, above),
                None => self.parents.remove(&child),
            };
        }
        let next = above.filter(|(of, _)| *of == process).map_or(Handle::NONE, |(_, handle)| handle);
        let opened = self.opened.iter_mut().map(|((of, _), (through, _))| (of, through));
        let opening = self.opening.iter_mut().map(|((of, _), (through, _))| (of, through));
        for (of, through) in opened.chain(opening) {
            if (*of, *through) == own {
                *through = next;
            }
        }
        let before = self.expiries.get(&own).copied();
        self.expiries.extend(before.into_iter().chain(expires_ns).min().map(|at| (own, at)));
    }

    /// A process asks to open something through a capability.
    pub(crate) fn on_opening(&mut self, process: ProcessNumber, call: u32, through: Handle) {
        let ends = self.expiries.get(&(process, through)).copied();
        self.opening.insert((process, call), (through, ends));
    }

    /// It has been opened, with this word; or not.
    pub(crate) fn on_opened(
        &mut self,
        process: ProcessNumber,
        call: u32,
        opened: Option<(Opened, WordPlace)>,
    ) {
        let asked = self.opening.remove(&(process, call));
        let (Some((through, ends)), Some((opened, word))) = (asked, opened) else { return };
        self.opened.insert((process, opened), (through, word));
        self.ends.extend(ends.map(|at| ((process, opened), at)));
    }

    /// The words of a process's mappings.
    pub(crate) fn mapping_words(&self, process: ProcessNumber) -> impl Iterator<Item = WordPlace> + '_ {
        let own = self
            .opened
            .iter()
            .filter(move |((of, opened), _)| *of == process && matches!(opened, Opened::Mapping(_)));
        own.map(|(_, (_, word))| *word)
    }

    /// The words of all whose time has come.
    pub(crate) fn words_expired(&self, now_ns: u64) -> Vec<(ProcessNumber, Opened, WordPlace)> {
        let over = self.ends.iter().filter(|(_, at)| **at <= now_ns);
        over.filter_map(|(key, _)| self.opened.get(key).map(|(_, word)| (key.0, key.1, *word))).collect()
    }

    pub(crate) fn on_closed(&mut self, process: ProcessNumber, opened: Opened) {
        self.opened.remove(&(process, opened));
        self.ends.remove(&(process, opened));
    }

    pub(crate) fn on_gone(&mut self, own: Own) {
        self.gone.insert(own);
    }

    /// Everything below counts as gone from now on.
    pub(crate) fn on_revoking(&mut self, root: Own) {
        let below: Vec<Own> = self.parents.keys().copied().filter(|own| self.is_below(*own, root)).collect();
        self.gone.extend(below);
    }

    /// The words of this process that a finished revocation has set.
    pub(crate) fn words_below(&self, root: Own) -> Vec<(Opened, WordPlace)> {
        let mine = self.opened.iter().filter(|((process, _), _)| *process == root.0);
        mine.filter(|((process, _), (through, _))| {
            let own = (*process, *through);
            own == root || self.is_below(own, root)
        })
        .map(|((_, opened), (_, word))| (*opened, *word))
        .collect()
    }

    pub(crate) fn on_end(&mut self, process: ProcessNumber) {
        self.parents.retain(|(owner, _), _| *owner != process);
        self.gone.retain(|(owner, _)| *owner != process);
        self.opened.retain(|(owner, _), _| *owner != process);
        self.opening.retain(|(owner, _), _| *owner != process);
        self.expiries.retain(|(owner, _), _| *owner != process);
        self.ends.retain(|(owner, _), _| *owner != process);
    }

    /// Whether the request acts on something that is gone, so that it must be denied.
    pub(crate) fn must_be_denied(&self, now_ns: u64, process: ProcessNumber, request: &Request) -> bool {
        let acts_on = match request {
            Request::Derive(request) => request.from,
            Request::Grant(request) => request.from,
            Request::Revoke(request) => request.handle,
            Request::Delete(request) => request.handle,
            Request::Weaken(request) => request.handle,
            Request::Publish(request) => request.queue,
            Request::OpenLane(request) => request.queue,
            Request::TopUp(request) => request.queue,
            Request::MapRegion(request) => request.region,
            Request::EscrowPut(request) => request.from,
            Request::Watch(request) => request.process,
            Request::Claim(request) => request.device,
            _ => return false,
        };
        let own = (process, acts_on);
        self.gone.contains(&own) || self.expiries.get(&own).is_some_and(|at| *at <= now_ns)
    }

    fn is_below(&self, own: Own, root: Own) -> bool {
        let mut above = self.parents.get(&own);
        while let Some(parent) = above {
            if *parent == root {
                return true;
            }
            above = self.parents.get(parent);
        }
        false
    }
}
