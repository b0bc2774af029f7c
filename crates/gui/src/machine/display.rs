//! The machine's facts, its connectors, and what the compositor shows on them.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use thiserror::Error;

use super::{
    BackendFailure, Bridge, ClientId, Effect, Effects, Outcome,
    pending::{Asker, Wait, Work},
};
use crate::{
    limits::{CARDS_MAX, CONNECTORS_MAX, DAMAGE_MAX, DEVICES_MAX},
    protocol::{
        Answer, CardId, ConnectorId, ConnectorInfo, DenialReason, DeviceId, DeviceInfo, DeviceType,
        DisplayMode, Event, GuiResponse, Rectangle, RenderNode, SurfaceId,
    },
};

/// What is known of the machine when the bridge starts.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Facts {
    /// What can show something.
    pub connectors: Vec<ConnectorInfo>,
    /// What sessions can open besides input devices.
    pub cards: Vec<CardId>,
    /// What can be read.
    pub devices: Vec<DeviceInfo>,
    /// What processes can render with, if the bridge may open it.
    pub render_node: Option<RenderNode>,
    /// What kind of machine it is.
    pub device_type: DeviceType,
}

/// Facts that the bridge cannot keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FactsRefused {
    /// More connectors than the bridge lists.
    #[error("the bridge has {connectors_max} connectors, and no room for another")]
    TooManyConnectors {
        /// The limit.
        connectors_max: usize,
    },
    /// More input devices than the bridge lists.
    #[error("the bridge has {devices_max} input devices, and no room for another")]
    TooManyDevices {
        /// The limit.
        devices_max: usize,
    },
    /// More graphics cards than sessions can open.
    #[error("the bridge has {cards_max} graphics cards at most")]
    TooManyCards {
        /// The limit.
        cards_max: usize,
    },
    /// Two connectors of one number.
    #[error("connector {} is named twice", connector.0)]
    ConnectorTwice {
        /// Which number.
        connector: ConnectorId,
    },
    /// Two input devices of one number.
    #[error("input device {} is named twice", device.0)]
    DeviceTwice {
        /// Which number.
        device: DeviceId,
    },
}

#[derive(Debug)]
pub(super) struct Connector {
    pub(super) info: ConnectorInfo,
    /// What it showed before there was a compositor.
    pub(super) initial: Option<DisplayMode>,
}

/// Facts that are judged.
pub(super) struct Bounded {
    pub(super) connectors: BTreeMap<ConnectorId, Connector>,
    pub(super) cards: BTreeSet<CardId>,
    pub(super) devices: BTreeMap<DeviceId, DeviceInfo>,
    pub(super) render_node: Option<RenderNode>,
    pub(super) device_type: DeviceType,
}

impl Facts {
    /// Judges the facts, and cuts names and lists to their bounds.
    pub(super) fn into_bounded(self) -> Result<Bounded, FactsRefused> {
        if self.connectors.len() > CONNECTORS_MAX {
            return Err(FactsRefused::TooManyConnectors { connectors_max: CONNECTORS_MAX });
        }
        if self.devices.len() > DEVICES_MAX {
            return Err(FactsRefused::TooManyDevices { devices_max: DEVICES_MAX });
        }
        if self.cards.len() > CARDS_MAX {
            return Err(FactsRefused::TooManyCards { cards_max: CARDS_MAX });
        }
        let mut connectors = BTreeMap::new();
        for info in self.connectors {
            let connector = Connector::new(info);
            let id = connector.info.id;
            if connectors.insert(id, connector).is_some() {
                return Err(FactsRefused::ConnectorTwice { connector: id });
            }
        }
        let mut devices = BTreeMap::new();
        for device in self.devices {
            let id = device.id;
            if devices.insert(id, device.into_bounded()).is_some() {
                return Err(FactsRefused::DeviceTwice { device: id });
            }
        }
        Ok(Bounded {
            connectors,
            cards: self.cards.into_iter().collect(),
            devices,
            render_node: self.render_node.map(RenderNode::into_bounded),
            device_type: self.device_type,
        })
    }
}

impl Connector {
    fn new(info: ConnectorInfo) -> Self {
        let info = info.into_bounded();
        Connector { initial: info.current, info }
    }
}

impl Bridge {
    /// A connector came, or has other modes than before.
    ///
    /// # Errors
    /// [`FactsRefused`] if there are too many; nothing has changed then.
    pub fn on_connector_changed(&mut self, info: ConnectorInfo) -> Result<Effects<'_>, FactsRefused> {
        if !self.connectors.contains_key(&info.id) && self.connectors.len() >= CONNECTORS_MAX {
            return Err(FactsRefused::TooManyConnectors { connectors_max: CONNECTORS_MAX });
        }
        let mut connector = Connector::new(info);
        let info = connector.info.clone();
        if let (Some(_), Some(before)) = (self.compositor, self.connectors.get(&info.id)) {
            // What it shows now is the compositor's choice, not what is to be given back.
            connector.initial = before.initial;
        }
        self.connectors.insert(info.id, connector);
        self.notify_compositor(Event::ConnectorChanged(info));
        Ok(self.effects())
    }

    /// A connector is gone.
    pub fn on_connector_removed(&mut self, connector: ConnectorId) -> Effects<'_> {
        if self.connectors.remove(&connector).is_some() {
            self.orphan_work(|work| work.connector() == Some(connector));
            self.notify_compositor(Event::ConnectorRemoved { connector });
        }
        self.effects()
    }

    /// The evidence for the device type was looked at again.
    pub fn on_device_type(&mut self, device_type: DeviceType) -> Effects<'_> {
        if self.device_type.is_mobile != device_type.is_mobile {
            self.notify_compositor(Event::DeviceTypeChanged { is_mobile: device_type.is_mobile });
        }
        self.device_type = device_type;
        self.effects()
    }

    pub(super) fn query_device_type(&self) -> Outcome {
        GuiResponse::DeviceType { is_mobile: self.device_type.is_mobile }.into()
    }

    pub(super) fn list_connectors(&self, caller: ClientId) -> Result<Outcome, DenialReason> {
        self.check_compositor(caller)?;
        let connectors = self.connectors.values().map(|connector| connector.info.clone()).collect();
        Ok(Outcome::Now(Answer::Connectors(connectors)))
    }

    pub(super) fn set_display_mode(
        &mut self,
        now_ns: u64,
        asker: Asker,
        connector: ConnectorId,
        mode: DisplayMode,
    ) -> Result<Outcome, DenialReason> {
        self.check_ruling_compositor(asker.client)?;
        let known = self.connectors.get(&connector).ok_or(DenialReason::DeviceNotFound)?;
        if !known.info.modes.contains(&mode) {
            return Err(DenialReason::InvalidConfig);
        }
        if self.leases.has(connector) {
            return Err(DenialReason::AlreadyHeld);
        }
        self.pending.check_room(asker.client)?;

        let ticket = self.pending.insert(now_ns, asker, Work::SetMode { connector, mode });
        self.outbox.push_back(Effect::SetMode { ticket, connector, mode });
        Ok(Outcome::Pending)
    }

    pub(super) fn present_surface(
        &mut self,
        now_ns: u64,
        asker: Asker,
        (connector, surface): (ConnectorId, SurfaceId),
        damage: Vec<Rectangle>,
    ) -> Result<Outcome, DenialReason> {
        self.check_ruling_compositor(asker.client)?;
        let live = self.surfaces.live(surface).filter(|_| self.connectors.contains_key(&connector));
        let config = live.ok_or(DenialReason::DeviceNotFound)?.config;
        if damage.len() > DAMAGE_MAX || !damage.iter().all(|part| part.is_within(&config)) {
            return Err(DenialReason::InvalidConfig);
        }
        if self.leases.has(connector) {
            return Err(DenialReason::AlreadyHeld);
        }
        self.pending.check_room(asker.client)?;

        let ticket = self.pending.insert(now_ns, asker, Work::Present { connector, surface });
        self.outbox.push_back(Effect::Present { ticket, connector, surface, damage });
        Ok(Outcome::Pending)
    }

    /// The hardware has changed what a connector shows, or refused. `mode` is the mode that it set, if that was the work.
    pub(super) fn on_display_answered(
        &mut self,
        asker: Asker,
        wait: Wait,
        (connector, mode): (ConnectorId, Option<DisplayMode>),
        result: Result<(), BackendFailure>,
    ) {
        if let Err(failure) = result {
            if matches!(wait, Wait::Until { .. }) {
                self.answer(asker, failure.into());
            }
            return;
        }
        if let (Some(known), Some(mode)) = (self.connectors.get_mut(&connector), mode) {
            known.info.current = Some(mode);
        }
        match wait {
            Wait::Until { .. } => self.answer(asker, GuiResponse::Success.into()),
            Wait::Overdue | Wait::Orphaned => self.on_display_late(connector),
        }
    }

    /// The display changed after nobody waited for it any more: it is given back, or whoever has it is told.
    fn on_display_late(&mut self, connector: ConnectorId) {
        if self.compositor.is_none() {
            return self.restore_display();
        }
        if let Some(known) = self.connectors.get(&connector) {
            let current = known.info.current;
            self.notify_compositor(Event::DisplayChanged { connector, current });
        }
    }
}
