//! The bridge's state machine: inputs come in by methods, effects go out by [`Effects`], nothing else happens.
//!
//! One match names every operation. Each is a check that changes nothing and a commit that cannot fail; what needs the
//! hardware waits under a ticket until [`Bridge::on_backend`] brings the answer or its deadline passes.
//!
//! # Invariants
//! `audit.rs` lists and asserts them; tests and the simulator call [`Bridge::audit`] after each step.
//!
//! # Absent
//! No clock (time is an argument), no descriptors, no buffers, no hash order. The hardware is never trusted to answer: what
//! comes late, twice or under a number that was never given is undone or ignored.

mod application;
mod audit;
mod backend;
mod client;
mod compositor;
mod display;
mod effect;
mod gpu;
mod holding;
mod input;
mod lease;
mod opened;
mod pending;
mod rule;
mod session;
mod surface;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

pub use backend::BackendFailure;
pub use client::{ClientId, Door, Identity, LaneRefused};
pub use display::{Facts, FactsRefused};
pub use effect::{Access, Driver, Effect, Effects, Sharing};
pub use holding::Totals;
pub use pending::{RequestNumber, Ticket};

use self::{
    application::Applications,
    client::Clients,
    display::{Bounded, Connector},
    gpu::GpuHolding,
    lease::Leases,
    pending::{Asker, Pending},
    session::Sessions,
    surface::Surfaces,
};
use crate::protocol::{
    Answer, CardId, ConnectorId, DenialReason, DeviceId, DeviceInfo, DeviceType, GuiRequest, GuiResponse,
    RenderNode, Request,
};

/// The state machine.
#[derive(Debug)]
pub struct Bridge {
    clients: Clients,
    compositor: Option<ClientId>,
    applications: Applications,
    gpu: BTreeMap<ClientId, GpuHolding>,
    surfaces: Surfaces,
    /// Input devices that the compositor reads; nobody else ever does.
    inputs: BTreeMap<DeviceId, Sharing>,
    /// Those that it had when it was paused, to be granted anew.
    suspended_inputs: BTreeMap<DeviceId, Sharing>,
    sessions: Sessions,
    cards: BTreeSet<CardId>,
    leases: Leases,
    connectors: BTreeMap<ConnectorId, Connector>,
    devices: BTreeMap<DeviceId, DeviceInfo>,
    render_node: Option<RenderNode>,
    device_type: DeviceType,
    pending: Pending,
    outbox: VecDeque<Effect>,
}

/// What a request comes to, unless it is denied.
enum Outcome {
    /// It is done.
    Now(Answer),
    /// It waits for the hardware, under a ticket.
    Pending,
}

impl Bridge {
    /// A bridge for a machine of which these facts hold.
    ///
    /// # Errors
    /// [`FactsRefused`] if there are too many of something, or two of one number.
    pub fn new(facts: Facts) -> Result<Self, FactsRefused> {
        let Bounded { connectors, cards, devices, render_node, device_type } = facts.into_bounded()?;
        Ok(Bridge {
            clients: Clients::default(),
            compositor: None,
            applications: Applications::default(),
            gpu: BTreeMap::new(),
            surfaces: Surfaces::default(),
            inputs: BTreeMap::new(),
            suspended_inputs: BTreeMap::new(),
            sessions: Sessions::default(),
            cards,
            leases: Leases::default(),
            connectors,
            devices,
            render_node,
            device_type,
            pending: Pending::default(),
            outbox: VecDeque::new(),
        })
    }

    /// Judges and carries out one request. `number` is the caller's own and returns with the answer.
    ///
    /// The answer is among the effects, unless the hardware is needed; then it follows from [`Bridge::on_backend`] or
    /// [`Bridge::poll_expired`], exactly once as long as the client lives.
    pub fn handle(
        &mut self,
        now_ns: u64,
        client: ClientId,
        number: RequestNumber,
        request: Request,
    ) -> Effects<'_> {
        let asker = Asker { client, number };
        let answer = match self.dispatch(now_ns, asker, request) {
            Ok(Outcome::Now(answer)) => Some(answer),
            Ok(Outcome::Pending) => None,
            Err(reason) => Some(Answer::from(reason)),
        };
        if let Some(answer) = answer {
            self.outbox.push_back(Effect::Answer { client, request: number, answer });
        }
        self.effects()
    }

    /// The one match that names every operation.
    fn dispatch(&mut self, now_ns: u64, asker: Asker, request: Request) -> Result<Outcome, DenialReason> {
        let client = asker.client;
        if self.clients.get(client).is_none() {
            return Err(DenialReason::Unauthorized);
        }
        let document = match request {
            Request::Document(document) => document,
            Request::RegisterApplication { pid, process } => {
                return self.register_application(client, pid, ClientId(process));
            }
            Request::UnregisterApplication { pid } => return self.unregister_application(client, pid),
            Request::PresentSurface { connector, surface, damage } => {
                return self.present_surface(now_ns, asker, (connector, surface), damage);
            }
            Request::ListConnectors => return self.list_connectors(client),
            Request::ListDevices => return self.list_devices(client),
            Request::Describe => return Ok(self.describe(client)),
            Request::LeaseDisplay { connectors } => return self.lease_display(now_ns, asker, &connectors),
            Request::EndLease { lease } => return self.end_lease(client, lease),
            Request::SwitchSession { session } => return self.switch_compositor(now_ns, client, session),
            Request::RequestExclusiveInput { pid, device } => {
                return self.request_input_device(now_ns, asker, pid, (device, Sharing::Exclusive));
            }
        };
        match document {
            GuiRequest::RequestGpu { pid, limits } => self.request_gpu(now_ns, asker, pid, limits),
            GuiRequest::RequestInputDevice { pid, device } => {
                self.request_input_device(now_ns, asker, pid, (device, Sharing::Shared))
            }
            GuiRequest::CreateSurface { pid, config } => self.create_surface(now_ns, asker, pid, config),
            GuiRequest::DestroySurface { pid, surface } => self.destroy_surface(client, pid, surface),
            GuiRequest::SetDisplayMode { connector, mode } => {
                self.set_display_mode(now_ns, asker, connector, mode)
            }
            GuiRequest::QueryDeviceType => Ok(self.query_device_type()),
            GuiRequest::RegisterCompositor { pid } => self.register_compositor(client, pid),
            GuiRequest::UnregisterCompositor { pid } => self.unregister_compositor(client, pid),
            GuiRequest::HasCapability { pid, capability } => self.has_capability(client, pid, capability),
        }
    }

    /// What is to be carried out, in order.
    fn effects(&mut self) -> Effects<'_> {
        Effects::new(&mut self.outbox)
    }
}

impl From<GuiResponse> for Outcome {
    fn from(response: GuiResponse) -> Self {
        Outcome::Now(Answer::Document(response))
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
