//! Leases: connectors that the compositor drives itself, by a descriptor that the hardware ends.
//!
//! A connector is in one lease at most, and as long as it is, nothing is shown on it by way of the bridge.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use super::{
    BackendFailure, Bridge, Effect, Outcome,
    pending::{Asker, Wait, Work},
};
use crate::{
    ClientId,
    protocol::{Answer, ConnectorId, DenialReason, GuiResponse, LeaseId},
};

/// The leases that there are.
#[derive(Debug, Default)]
pub(super) struct Leases {
    by_id: BTreeMap<LeaseId, Lease>,
    made_count: u64,
}

#[derive(Debug)]
pub(super) struct Lease {
    pub(super) connectors: BTreeSet<ConnectorId>,
    /// Whether the hardware has made it. Until then, it is kept for its connectors' sake, whoever asked for it.
    pub(super) is_live: bool,
}

impl Leases {
    /// Whether a connector is in a lease.
    pub(super) fn has(&self, connector: ConnectorId) -> bool {
        self.by_id.values().any(|lease| lease.connectors.contains(&connector))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (LeaseId, &Lease)> {
        self.by_id.iter().map(|(id, lease)| (*id, lease))
    }

    pub(super) fn made_count(&self) -> u64 {
        self.made_count
    }

    pub(super) fn count(&self) -> usize {
        self.by_id.len()
    }
}

impl Bridge {
    pub(super) fn lease_display(
        &mut self,
        now_ns: u64,
        asker: Asker,
        connectors: &[ConnectorId],
    ) -> Result<Outcome, DenialReason> {
        let connectors = self.check_lease_display(asker.client, connectors)?;
        self.leases.made_count += 1;
        let lease = LeaseId(self.leases.made_count);
        let listed: Vec<ConnectorId> = connectors.iter().copied().collect();
        self.leases.by_id.insert(lease, Lease { connectors, is_live: false });
        let ticket = self.pending.insert(now_ns, asker, Work::Lease { lease });
        self.outbox.push_back(Effect::LeaseDisplay { ticket, lease, connectors: listed });
        Ok(Outcome::Pending)
    }

    fn check_lease_display(
        &self,
        caller: ClientId,
        connectors: &[ConnectorId],
    ) -> Result<BTreeSet<ConnectorId>, DenialReason> {
        self.check_ruling_compositor(caller)?;
        let wanted: BTreeSet<ConnectorId> = connectors.iter().copied().collect();
        if wanted.is_empty() || wanted.len() != connectors.len() {
            return Err(DenialReason::InvalidConfig);
        }
        if !wanted.iter().all(|connector| self.connectors.contains_key(connector)) {
            return Err(DenialReason::DeviceNotFound);
        }
        if wanted.iter().any(|connector| self.leases.has(*connector)) {
            return Err(DenialReason::AlreadyHeld);
        }
        self.pending.check_room(caller)?;
        Ok(wanted)
    }

    /// The hardware has made a lease, or refused.
    pub(super) fn on_leased(
        &mut self,
        asker: Asker,
        wait: Wait,
        lease: LeaseId,
        result: Result<(), BackendFailure>,
    ) {
        let answer = match (wait, result) {
            (Wait::Until { .. }, Ok(())) => {
                if let Some(made) = self.leases.by_id.get_mut(&lease) {
                    made.is_live = true;
                }
                return self.answer(asker, Answer::DisplayLeased { lease });
            }
            (Wait::Until { .. }, Err(failure)) => Some(Answer::from(failure)),
            (Wait::Overdue | Wait::Orphaned, Ok(())) => {
                self.outbox.push_back(Effect::EndLease { lease });
                None
            }
            (Wait::Overdue | Wait::Orphaned, Err(_)) => None,
        };
        self.leases.by_id.remove(&lease);
        if let Some(answer) = answer {
            self.answer(asker, answer);
        }
    }

    pub(super) fn end_lease(&mut self, caller: ClientId, lease: LeaseId) -> Result<Outcome, DenialReason> {
        self.check_compositor(caller)?;
        let is_live = self.leases.by_id.get(&lease).is_some_and(|lease| lease.is_live);
        if !is_live {
            return Err(DenialReason::DeviceNotFound);
        }
        self.leases.by_id.remove(&lease);
        self.outbox.push_back(Effect::EndLease { lease });
        Ok(GuiResponse::Success.into())
    }

    /// Ends every lease of the compositor that was; one that is being made ends when it is there.
    pub(super) fn end_leases(&mut self) {
        let live = self.leases.by_id.iter().filter(|(_, lease)| lease.is_live);
        let live: Vec<LeaseId> = live.map(|(id, _)| *id).collect();
        for lease in live {
            self.leases.by_id.remove(&lease);
            self.outbox.push_back(Effect::EndLease { lease });
        }
    }
}
