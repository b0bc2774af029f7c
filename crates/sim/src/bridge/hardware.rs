//! The hardware behind a bridge: what it was asked, what it has made and opened, and what it shows.
//!
//! It judges the machine by that alone: nothing is taken back that was not there, nothing is had twice, a leased connector is
//! left alone, and what is promised in memory fits.

use std::collections::{BTreeMap, BTreeSet};

use keyway_gui::{
    ClientId, Driver, Effect, Facts, Ticket,
    limits::{MAX_PROCESS_GPU_MEMORY, MAX_TOTAL_GPU_MEMORY, MB_BYTES, SURFACES_PER_PROCESS_MAX},
    protocol::{CardId, ConnectorId, DeviceId, DisplayMode, LeaseId, SurfaceId},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Hardware {
    /// What it was asked and has not answered, in that order.
    asked: Vec<(Ticket, Effect)>,
    /// Whose each buffer is, and its bytes.
    pub(super) buffers: BTreeMap<SurfaceId, (ClientId, u64)>,
    pub(super) inputs: BTreeSet<(ClientId, DeviceId)>,
    pub(super) cards: BTreeSet<(ClientId, CardId)>,
    /// Who is given the render node. Who has taken it keeps it, which is not the bridge's to end.
    pub(super) nodes: BTreeSet<ClientId>,
    pub(super) leases: BTreeMap<LeaseId, Vec<ConnectorId>>,
    shown: BTreeMap<ConnectorId, SurfaceId>,
    modes: BTreeMap<ConnectorId, Option<DisplayMode>>,
    initial: BTreeMap<ConnectorId, Option<DisplayMode>>,
    pub(super) driver: Driver,
}

impl Hardware {
    pub(super) fn new(facts: &Facts) -> Self {
        let modes = facts.connectors.iter().map(|connector| (connector.id, connector.current));
        let modes: BTreeMap<ConnectorId, Option<DisplayMode>> = modes.collect();
        Hardware {
            asked: Vec::new(),
            buffers: BTreeMap::new(),
            inputs: BTreeSet::new(),
            cards: BTreeSet::new(),
            nodes: BTreeSet::new(),
            leases: BTreeMap::new(),
            shown: BTreeMap::new(),
            initial: modes.clone(),
            modes,
            driver: Driver::Nobody,
        }
    }

    /// How many answers it owes.
    pub(super) fn owes_count(&self) -> usize {
        self.asked.len()
    }

    /// Does what needs no answer, and keeps what needs one.
    pub(super) fn carry_out(&mut self, effect: &Effect) {
        match effect {
            Effect::SetMode { ticket, connector, .. } | Effect::Present { ticket, connector, .. } => {
                assert!(!self.is_leased(*connector), "{connector:?} is leased, and something is shown there");
                self.asked.push((*ticket, effect.clone()));
            }
            Effect::AllocateSurface { ticket, .. }
            | Effect::GrantInput { ticket, .. }
            | Effect::OpenCard { ticket, .. }
            | Effect::OpenNode { ticket, .. }
            | Effect::HandOver { ticket, .. } => self.asked.push((*ticket, effect.clone())),
            Effect::LeaseDisplay { ticket, connectors, .. } => {
                for connector in connectors {
                    assert!(!self.is_leased(*connector), "{connector:?} is leased twice");
                }
                self.asked.push((*ticket, effect.clone()));
            }
            Effect::FreeSurface { surface } => {
                assert!(self.buffers.remove(surface).is_some(), "{surface:?} is freed and was not there");
                self.shown.retain(|_, shown| shown != surface);
            }
            Effect::RevokeInput { client, device } => {
                let had = self.inputs.remove(&(*client, *device));
                assert!(had, "{device:?} is taken from {client:?}, who had it not");
            }
            Effect::CloseCard { client, card } => {
                assert!(self.cards.remove(&(*client, *card)), "{card:?} is closed and was not open");
            }
            Effect::EndNode { client } => {
                assert!(
                    self.nodes.remove(client),
                    "{client:?} is to have the render node no longer, and had it not"
                );
            }
            Effect::EndLease { lease } => {
                assert!(self.leases.remove(lease).is_some(), "{lease:?} is ended and was not there");
            }
            Effect::ShareSurface { surface, .. } => {
                assert!(self.buffers.contains_key(surface), "{surface:?} is shared and is not there");
            }
            Effect::RestoreDisplay => {
                self.modes.clone_from(&self.initial);
                self.shown.clear();
            }
            _ => {}
        }
        self.check_memory();
    }

    /// Answers one of what it was asked; done, if `is_done`.
    pub(super) fn answer(&mut self, position: usize, is_done: bool) -> Ticket {
        let (ticket, effect) = self.asked.remove(position);
        match effect {
            // Linux hands over or says why not: whoever is let drive them learns it from its own calls.
            Effect::HandOver { to, .. } => self.driver = to,
            _ if !is_done => {}
            Effect::SetMode { connector, mode, .. } => {
                self.modes.insert(connector, Some(mode));
            }
            Effect::Present { connector, surface, .. } if self.buffers.contains_key(&surface) => {
                self.shown.insert(connector, surface);
            }
            Effect::AllocateSurface { surface, client, layout, .. } => {
                let before = self.buffers.insert(surface, (client, layout.bytes));
                assert_eq!(before, None, "{surface:?} is made twice");
            }
            Effect::GrantInput { client, device, .. } => {
                assert!(self.inputs.insert((client, device)), "{device:?} is opened twice for {client:?}");
            }
            Effect::OpenCard { client, card, .. } => {
                assert!(self.cards.insert((client, card)), "{card:?} is opened twice for {client:?}");
            }
            Effect::OpenNode { client, .. } => {
                assert!(self.nodes.insert(client), "the render node is opened twice for {client:?}");
            }
            Effect::LeaseDisplay { lease, connectors, .. } => {
                assert_eq!(self.leases.insert(lease, connectors), None, "{lease:?} is made twice");
            }
            _ => {}
        }
        ticket
    }

    fn is_leased(&self, connector: ConnectorId) -> bool {
        let making = self.asked.iter().filter_map(|(_, effect)| match effect {
            Effect::LeaseDisplay { connectors, .. } => Some(connectors),
            _ => None,
        });
        making.chain(self.leases.values()).any(|connectors| connectors.contains(&connector))
    }

    /// What is made and being made fits what all may have; what one has, what one may.
    fn check_memory(&self) {
        let making = self.asked.iter().filter_map(|(_, effect)| match effect {
            Effect::AllocateSurface { layout, .. } => Some(layout.bytes),
            _ => None,
        });
        let all: u64 = self.buffers.values().map(|(_, bytes)| *bytes).chain(making).sum();
        assert!(all <= u64::from(MAX_TOTAL_GPU_MEMORY) * MB_BYTES, "{all} bytes are more than there are");
        let mut of_each: BTreeMap<ClientId, (u32, u64)> = BTreeMap::new();
        for (owner, bytes) in self.buffers.values() {
            let (count, sum) = of_each.entry(*owner).or_default();
            (*count, *sum) = (*count + 1, *sum + bytes);
        }
        for (owner, (count, bytes)) in of_each {
            assert!(count <= SURFACES_PER_PROCESS_MAX, "{owner:?} has {count} surfaces");
            assert!(bytes <= u64::from(MAX_PROCESS_GPU_MEMORY) * MB_BYTES, "{owner:?} has {bytes} bytes");
        }
    }

    /// Whether the screens are as they were at first.
    pub(super) fn is_as_at_first(&self) -> bool {
        self.modes == self.initial && self.shown.is_empty()
    }

    /// Everybody who has something of it.
    pub(super) fn holders(&self) -> BTreeSet<ClientId> {
        let inputs = self.inputs.iter().map(|(client, _)| *client);
        let cards = self.cards.iter().map(|(client, _)| *client);
        let nodes = self.nodes.iter().copied();
        inputs.chain(cards).chain(nodes).chain(self.buffers.values().map(|(client, _)| *client)).collect()
    }

    /// Everybody who reads input.
    pub(super) fn readers(&self) -> BTreeSet<ClientId> {
        self.inputs.iter().map(|(client, _)| *client).collect()
    }

    /// What it shows is there to be shown.
    pub(super) fn check_shown(&self) {
        for (connector, surface) in &self.shown {
            assert!(self.buffers.contains_key(surface), "{connector:?} shows {surface:?}, which is gone");
        }
    }
}
