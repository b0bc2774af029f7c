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
}

impl Lineage {
    pub(crate) fn on_derived(&mut self, process: ProcessNumber, from: Handle, made: Handle) {
        self.parents.insert((process, made), (process, from));
    }

    pub(crate) fn on_opened(
        &mut self,
        process: ProcessNumber,
        opened: Opened,
        through: Handle,
        word: WordPlace,
    ) {
        self.opened.insert((process, opened), (through, word));
    }

    pub(crate) fn on_closed(&mut self, process: ProcessNumber, opened: Opened) {
        self.opened.remove(&(process, opened));
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
    }

    /// Whether the request acts on something that is gone, so that it must be denied.
    pub(crate) fn must_be_denied(&self, process: ProcessNumber, request: &Request) -> bool {
        let acts_on = match request {
            Request::Derive(request) => request.from,
            Request::Grant(request) => request.from,
            Request::Revoke(request) => request.handle,
            Request::Delete(request) => request.handle,
            Request::Publish(request) => request.queue,
            Request::OpenLane(request) => request.queue,
            Request::TopUp(request) => request.queue,
            Request::MapRegion(request) => request.region,
            Request::EscrowPut(request) => request.from,
            Request::Watch(request) => request.process,
            Request::Claim(request) => request.device,
            _ => return false,
        };
        self.gone.contains(&(process, acts_on))
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
