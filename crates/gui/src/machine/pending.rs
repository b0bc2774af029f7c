//! Requests that wait for the hardware, by ticket.
//!
//! A ticket stays open until the hardware has answered, also when nobody waits any more: only then is it known what there is
//! to undo. Each is bounded in number and, for whoever asked, in time.

use alloc::{collections::BTreeMap, vec::Vec};

use super::{ClientId, Sharing};
use crate::{
    limits::{PENDING_MAX, PENDING_PER_CLIENT_MAX, PENDING_TIMEOUT_NS},
    protocol::{
        ConnectorId, DenialReason, DeviceId, DisplayMode, LeaseId, OpenNumber, SeatDevice, SurfaceId,
    },
};

/// The number of something that the hardware was asked. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// The number of a request: the process around the machine chooses it and gets it back with the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestNumber(pub u64);

/// Who asked, in which request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) client: ClientId,
    pub(super) number: RequestNumber,
}

/// What the hardware was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    SetMode {
        connector: ConnectorId,
        mode: DisplayMode,
    },
    Present {
        connector: ConnectorId,
        surface: SurfaceId,
    },
    MakeSurface {
        surface: SurfaceId,
        bytes: u64,
    },
    GrantInput {
        device: DeviceId,
        sharing: Sharing,
    },
    Lease {
        lease: LeaseId,
    },
    /// The device is the compositor's from before a pause; nobody asked.
    RegrantInput {
        device: DeviceId,
        sharing: Sharing,
    },
    Open {
        number: OpenNumber,
        device: SeatDevice,
    },
    /// The asker is the holder, or the compositor for it.
    OpenNode {
        holder: ClientId,
    },
}

impl Work {
    /// Whether somebody asked for it, who is to be answered.
    fn is_request(&self) -> bool {
        !matches!(self, Work::RegrantInput { .. })
    }

    /// The input device that it grants the compositor, if it does.
    pub(super) fn granted_input(&self) -> Option<DeviceId> {
        match self {
            Work::GrantInput { device, .. } | Work::RegrantInput { device, .. } => Some(*device),
            _ => None,
        }
    }

    /// The connector that it changes, if it does.
    pub(super) fn connector(&self) -> Option<ConnectorId> {
        match self {
            Work::SetMode { connector, .. } | Work::Present { connector, .. } => Some(*connector),
            _ => None,
        }
    }
}

/// Whether somebody still waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The asker waits until then.
    Until { deadline_ns: u64 },
    /// The asker was told that the deadline passed; what comes is undone. Its charges stand until then.
    Overdue,
    /// The asker lost what it asked by, or what it asked for is gone; what comes is undone.
    Orphaned,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) asker: Asker,
    pub(super) work: Work,
    pub(super) wait: Wait,
}

/// The open tickets.
#[derive(Debug, Default)]
pub(super) struct Pending {
    by_ticket: BTreeMap<Ticket, Waiting>,
    issued_count: u64,
}

impl Pending {
    /// Judges whether a client may wait for one more.
    pub(super) fn check_room(&self, client: ClientId) -> Result<(), DenialReason> {
        if self.by_ticket.len() >= PENDING_MAX || self.count_of(client) >= PENDING_PER_CLIENT_MAX {
            return Err(DenialReason::ResourceLimitExceeded);
        }
        Ok(())
    }

    pub(super) fn insert(&mut self, now_ns: u64, asker: Asker, work: Work) -> Ticket {
        let ticket = self.issue();
        let wait = Wait::Until { deadline_ns: now_ns.saturating_add(PENDING_TIMEOUT_NS) };
        self.by_ticket.insert(ticket, Waiting { asker, work, wait });
        ticket
    }

    /// A ticket for what has no asker and no deadline.
    pub(super) fn issue(&mut self) -> Ticket {
        self.issued_count += 1;
        Ticket(self.issued_count)
    }

    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Waiting> {
        self.by_ticket.remove(&ticket)
    }

    /// Makes overdue what has waited too long, and names its askers.
    pub(super) fn expire(&mut self, now_ns: u64) -> Vec<Asker> {
        let mut askers = Vec::new();
        for waiting in self.by_ticket.values_mut() {
            if let Wait::Until { deadline_ns } = waiting.wait
                && deadline_ns <= now_ns
                && waiting.work.is_request()
            {
                waiting.wait = Wait::Overdue;
                askers.push(waiting.asker);
            }
        }
        askers
    }

    /// Orphans what is chosen, and names the askers that still waited.
    pub(super) fn orphan(&mut self, is_chosen: impl Fn(&Waiting) -> bool) -> Vec<Asker> {
        let mut askers = Vec::new();
        for waiting in self.by_ticket.values_mut() {
            if is_chosen(waiting) {
                if matches!(waiting.wait, Wait::Until { .. }) && waiting.work.is_request() {
                    askers.push(waiting.asker);
                }
                waiting.wait = Wait::Orphaned;
            }
        }
        askers
    }

    pub(super) fn deadline_ns(&self) -> Option<u64> {
        let deadlines = self.by_ticket.values().filter_map(|waiting| match waiting.wait {
            Wait::Until { deadline_ns } if waiting.work.is_request() => Some(deadline_ns),
            Wait::Until { .. } | Wait::Overdue | Wait::Orphaned => None,
        });
        deadlines.min()
    }

    /// Bytes of buffers under way whose owner's capability has ended.
    pub(super) fn orphaned_bytes(&self) -> u64 {
        let orphaned = self.by_ticket.values().filter(|waiting| waiting.wait == Wait::Orphaned);
        orphaned
            .map(|waiting| match waiting.work {
                Work::MakeSurface { bytes, .. } => bytes,
                _ => 0,
            })
            .sum()
    }

    /// True if a render node is being opened for the client, waited for or not.
    pub(super) fn has_node_for(&self, holder: ClientId) -> bool {
        self.by_ticket.values().any(|waiting| waiting.work == Work::OpenNode { holder })
    }

    /// True if a grant of the device is under way for the client, waited for or not.
    pub(super) fn has_grant_for(&self, client: ClientId, device: DeviceId) -> bool {
        let of_client = self.by_ticket.values().filter(|waiting| waiting.asker.client == client);
        of_client.filter_map(|waiting| waiting.work.granted_input()).any(|granted| granted == device)
    }

    /// The devices that are being granted anew.
    pub(super) fn regrants(&self) -> impl Iterator<Item = (DeviceId, Sharing)> {
        let waited = self.by_ticket.values().filter(|waiting| matches!(waiting.wait, Wait::Until { .. }));
        waited.filter_map(|waiting| match waiting.work {
            Work::RegrantInput { device, sharing } => Some((device, sharing)),
            _ => None,
        })
    }

    /// True if the device is being opened for the client, waited for or not.
    pub(super) fn has_opening(&self, client: ClientId, wanted: SeatDevice) -> bool {
        let opens = |work: &Work| matches!(work, Work::Open { device, .. } if *device == wanted);
        self.by_ticket.values().any(|waiting| waiting.asker.client == client && opens(&waiting.work))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Ticket, &Waiting)> {
        self.by_ticket.iter().map(|(&ticket, waiting)| (ticket, waiting))
    }

    pub(super) fn count(&self) -> usize {
        self.by_ticket.len()
    }

    pub(super) fn count_of(&self, client: ClientId) -> usize {
        let is_own = |waiting: &&Waiting| waiting.asker.client == client && waiting.work.is_request();
        self.by_ticket.values().filter(is_own).count()
    }

    pub(super) fn issued_count(&self) -> u64 {
        self.issued_count
    }
}
