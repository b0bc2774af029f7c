//! The client of the bridge `rustica-gui`: for a compositor and its applications.
//!
//! A compositor registers, takes input devices, sets modes, registers applications and presents surfaces; an application
//! asks for the GPU and makes surfaces. Each request has a deadline, and a denial is a value ([`DenialReason`]).
//!
//! ```no_run
//! # fn main() -> Result<(), keyway::bridge::BridgeError> {
//! use keyway::{Client, bridge::Bridge};
//!
//! let client = Client::connect()?;
//! let mut bridge = Bridge::connect(&client)?;
//! bridge.register_compositor()?;
//! for connector in bridge.connectors()? {
//!     if let Some(mode) = connector.modes.first() {
//!         bridge.set_display_mode(connector.id, *mode)?;
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod gpu;
mod input;
mod lease;
mod surface;

use std::time::Duration;

use keyway_abi::{Denial, Rights};
pub use keyway_gui::limits::DAMAGE_MAX;
use keyway_gui::protocol;
pub use keyway_gui::protocol::{
    Answer, BufferKind, Capability, Chassis, ConnectorId, ConnectorInfo, DenialReason, Description, DeviceId,
    DeviceInfo, DeviceKind, DeviceType, DisplayMode, Enforcer, Event, GpuCapability, GpuGrant, GpuLimits,
    GrantTerms, GuiRequest, GuiResponse, LeaseId, Pid, PixelFormat, Presence, Reason, Rectangle, RenderNode,
    Request, Revocation, Role, SessionId, SurfaceConfig, SurfaceId, SurfaceLayout,
};
use thiserror::Error;

pub use self::{
    gpu::{Gpu, GpuNode},
    input::{InputDevice, InputEvent},
    lease::DisplayLease,
    surface::{SharedSurface, Surface},
};
use crate::{
    call::Caller,
    client::Client,
    error::Error as KeywayError,
    message::{Carried, Message, Outgoing},
    sender::Sender,
};

/// The name of the bridge's service.
pub const SERVICE: &str = "rustica-gui";
/// The name whose holder may register as the compositor.
pub const COMPOSITOR_SERVICE: &str = "rustica-gui/compositor";

/// Why the bridge did not do what was asked.
#[derive(Debug, Error)]
pub enum BridgeError {
    /// The bridge refused, for this reason.
    #[error("the bridge refused: {0:?}")]
    Denied(DenialReason),
    /// The bridge tried, and the hardware or the system refused.
    #[error("the bridge could not: {0}")]
    Failed(String),
    /// The bridge answered something else than what was asked.
    #[error("the bridge answered with something else")]
    Unexpected,
    /// The bridge's bytes are no answer.
    #[error("the bridge's answer cannot be read: {0}")]
    Malformed(protocol::Malformed),
    /// The way to the bridge failed.
    #[error(transparent)]
    Keyway(#[from] KeywayError),
}

impl BridgeError {
    /// The reason, if the bridge refused.
    pub fn denial_reason(&self) -> Option<DenialReason> {
        match self {
            BridgeError::Denied(reason) => Some(*reason),
            _ => None,
        }
    }
}

impl From<protocol::Malformed> for BridgeError {
    fn from(malformed: protocol::Malformed) -> Self {
        BridgeError::Malformed(malformed)
    }
}

/// What the bridge tells without having been asked.
#[derive(Debug)]
pub enum BridgeEvent {
    /// An application has made a surface (told to the compositor), and this is the way to its pixels.
    SurfaceCreated(SharedSurface),
    /// The compositor has an input device again, after a pause: this is its new descriptor.
    InputGranted(InputDevice),
    /// The compositor has asked for the GPU in the name of this application, and here is its render node.
    GpuGranted(Gpu),
    /// Anything else; also a surface that was gone before this process looked.
    Other(Event),
}

/// A process's line to the bridge.
#[derive(Debug)]
pub struct Bridge {
    client: Client,
    caller: Caller,
    /// Held by the compositor: it is what allows registering.
    door: Option<Sender>,
    timeout: Duration,
}

impl Bridge {
    /// Connects to the bridge: by the capability that the starter of a confined child gave as [`SERVICE`], else by name.
    ///
    /// # Errors
    /// [`BridgeError::Keyway`] with [`Denial::NameUnknown`] when no bridge runs.
    pub fn connect(client: &Client) -> Result<Self, BridgeError> {
        let service = find(client, SERVICE)?;
        let caller = client.open_caller(&service)?;
        Ok(Bridge { client: client.clone(), caller, door: None, timeout: Duration::from_secs(5) })
    }

    /// How long a request waits for its answer from now on. 5 s at the beginning.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Registers this process as the compositor. Needs the name [`COMPOSITOR_SERVICE`].
    ///
    /// # Errors
    /// [`DenialReason::Unauthorized`] without that name, [`DenialReason::AlreadyHeld`] when there is a compositor.
    pub fn register_compositor(&mut self) -> Result<(), BridgeError> {
        if self.door.is_none() {
            self.door = match find(&self.client, COMPOSITOR_SERVICE) {
                Ok(door) => Some(self.client.open_sender(&door)?),
                // Whoever may not even look the name up is told by the bridge itself.
                Err(error) if is_refusal(&error) => None,
                Err(error) => return Err(error.into()),
            };
        }
        let pid = self.own_pid();
        self.expect_success(GuiRequest::RegisterCompositor { pid })
    }

    /// Gives the role of the compositor up: every grant of it and of its applications ends.
    ///
    /// # Errors
    /// [`DenialReason::Unauthorized`] when this process is not the compositor.
    pub fn unregister_compositor(&mut self) -> Result<(), BridgeError> {
        let pid = self.own_pid();
        self.expect_success(GuiRequest::UnregisterCompositor { pid })
    }

    /// Asks for the GPU, within limits. Where the machine has a render node, its descriptor comes with it.
    ///
    /// # Errors
    /// [`DenialReason::Unauthorized`] for a process that no compositor has registered,
    /// [`DenialReason::ResourceLimitExceeded`], [`DenialReason::AlreadyHeld`], [`DenialReason::InvalidConfig`];
    /// [`BridgeError::Failed`] when Linux refused the render node.
    pub fn request_gpu(&mut self, limits: GpuLimits) -> Result<Gpu, BridgeError> {
        let pid = self.own_pid();
        let (answer, message) = self.ask(&Request::Document(GuiRequest::RequestGpu { pid, limits }), &[])?;
        match granted(answer)? {
            Answer::GpuGranted(grant) => Ok(Gpu::new(grant, take_capability(message)?.claim()?)),
            Answer::Document(GuiResponse::Granted {
                capability: Capability::GpuRendering { memory_mb, max_surfaces },
            }) => Ok(Gpu::of(GpuCapability { memory_mb, max_surfaces })),
            _ => Err(BridgeError::Unexpected),
        }
    }

    /// Takes an input device, as the compositor. Others who can open it, as the console, read it too.
    ///
    /// # Errors
    /// [`DenialReason::Unauthorized`], [`DenialReason::DeviceNotFound`], [`DenialReason::AlreadyHeld`].
    pub fn request_input_device(&mut self, device: DeviceId) -> Result<InputDevice, BridgeError> {
        let pid = self.own_pid();
        self.take_input(&Request::Document(GuiRequest::RequestInputDevice { pid, device }))
    }

    /// Takes an input device for this process alone, as the compositor: nobody else gets its events, the console included, until the
    /// grant ends or this process lets go of it (`EVIOCGRAB`).
    ///
    /// # Errors
    /// Those of [`Bridge::request_input_device`]; [`DenialReason::AlreadyHeld`] also when any other process has it so.
    pub fn request_exclusive_input(&mut self, device: DeviceId) -> Result<InputDevice, BridgeError> {
        let pid = self.own_pid();
        self.take_input(&Request::RequestExclusiveInput { pid, device })
    }

    /// Makes a surface, whose pixels this process writes and the compositor reads.
    ///
    /// # Errors
    /// [`DenialReason::Unauthorized`] without the GPU, [`DenialReason::InvalidConfig`],
    /// [`DenialReason::ResourceLimitExceeded`].
    pub fn create_surface(&mut self, config: SurfaceConfig) -> Result<Surface, BridgeError> {
        let pid = self.own_pid();
        let request = Request::Document(GuiRequest::CreateSurface { pid, config });
        let (answer, message) = self.ask(&request, &[])?;
        let Answer::SurfaceCreated { surface, stride, buffer: kind, .. } = granted(answer)? else {
            return Err(BridgeError::Unexpected);
        };
        let mapped = take_capability(message).and_then(|buffer| Ok(self.client.map_writer(&buffer)?));
        match mapped {
            Ok(writer) => Ok(Surface::new(surface, stride, kind, writer)),
            Err(error) => {
                // Nobody would ever draw on it.
                let _ = self.destroy_surface(surface);
                Err(error)
            }
        }
    }

    /// Ends a surface of this process.
    ///
    /// # Errors
    /// [`DenialReason::Unauthorized`] for another's, [`DenialReason::DeviceNotFound`] for one that does not exist.
    pub fn destroy_surface(&mut self, surface: SurfaceId) -> Result<(), BridgeError> {
        let pid = self.own_pid();
        self.expect_success(GuiRequest::DestroySurface { pid, surface })
    }

    /// Sets a connector's mode, as the compositor.
    ///
    /// # Errors
    /// [`DenialReason::Unauthorized`], [`DenialReason::DeviceNotFound`], [`DenialReason::InvalidConfig`] for a mode that
    /// the connector lacks.
    pub fn set_display_mode(&mut self, connector: ConnectorId, mode: DisplayMode) -> Result<(), BridgeError> {
        self.expect_success(GuiRequest::SetDisplayMode { connector, mode })
    }

    /// Whether the machine is a mobile device.
    ///
    /// # Errors
    /// When the bridge does not answer.
    pub fn is_mobile_device(&mut self) -> Result<bool, BridgeError> {
        match self.request(&Request::Document(GuiRequest::QueryDeviceType))? {
            Answer::Document(GuiResponse::DeviceType { is_mobile }) => Ok(is_mobile),
            _ => Err(BridgeError::Unexpected),
        }
    }

    /// Whether this process has a capability of the bridge's.
    ///
    /// # Errors
    /// When the bridge does not answer.
    pub fn has_capability(&mut self, capability: Capability) -> Result<bool, BridgeError> {
        let pid = self.own_pid();
        self.has_capability_of(pid, capability)
    }

    /// Whether a process has a capability of the bridge's: for oneself, and as the compositor for one's applications.
    ///
    /// # Errors
    /// [`DenialReason::Unauthorized`] for any other process.
    pub fn has_capability_of(&mut self, pid: Pid, capability: Capability) -> Result<bool, BridgeError> {
        let request = GuiRequest::HasCapability { pid, capability };
        match granted(self.request(&Request::Document(request))?)? {
            Answer::Document(GuiResponse::HasCapabilityResult { has_capability }) => Ok(has_capability),
            _ => Err(BridgeError::Unexpected),
        }
    }

    /// Registers an application, as the compositor: the process to which `process` is a capability, whose pid this is.
    ///
    /// # Errors
    /// [`DenialReason::Unauthorized`] when this process is not the compositor, or the pid is not that process's.
    pub fn register_application(
        &mut self,
        process: &crate::capability::Capability,
        pid: Pid,
    ) -> Result<(), BridgeError> {
        let carried = [Carried::Copy(process, Rights::WATCH)];
        // The bridge reads the process from the capability; the number in the request is not believed.
        let (answer, _) = self.ask(&Request::RegisterApplication { pid, process: 0 }, &carried)?;
        expect_done(&granted(answer)?)
    }

    /// Ends an application's registration, as the compositor: its grants end.
    ///
    /// # Errors
    /// [`DenialReason::Unauthorized`].
    pub fn unregister_application(&mut self, pid: Pid) -> Result<(), BridgeError> {
        let answer = self.request(&Request::UnregisterApplication { pid })?;
        expect_done(&granted(answer)?)
    }

    /// Shows a surface on a connector, as the compositor. `damage` is what has changed of it since it was last shown there, at most
    /// [`DAMAGE_MAX`] parts, in pixels; none means all of it. What is not named may look as it did,
    /// and need not: the first time after another surface all is drawn.
    ///
    /// # Errors
    /// [`DenialReason::Unauthorized`], [`DenialReason::DeviceNotFound`], [`DenialReason::InvalidConfig`] for a part that is not within
    /// the surface; [`BridgeError::Malformed`] for too many; [`BridgeError::Failed`] when nobody has drawn on the surface.
    pub fn present_surface(
        &mut self,
        connector: ConnectorId,
        surface: SurfaceId,
        damage: &[Rectangle],
    ) -> Result<(), BridgeError> {
        let damage = damage.to_vec();
        let answer = self.request(&Request::PresentSurface { connector, surface, damage })?;
        expect_done(&granted(answer)?)
    }

    /// Leases connectors of one card, as the compositor: it drives them itself by what is returned, as DRM's leases go, until it ends the
    /// lease or is the compositor no longer.
    ///
    /// # Errors
    /// [`DenialReason::Unauthorized`], [`DenialReason::DeviceNotFound`], [`DenialReason::InvalidConfig`] for none or one named twice,
    /// [`DenialReason::AlreadyHeld`] for one that is leased; [`BridgeError::Failed`] for virtual ones and those of several cards.
    pub fn lease_display(&mut self, connectors: &[ConnectorId]) -> Result<DisplayLease, BridgeError> {
        let request = Request::LeaseDisplay { connectors: connectors.to_vec() };
        let (answer, message) = self.ask(&request, &[])?;
        let Answer::DisplayLeased { lease } = granted(answer)? else { return Err(BridgeError::Unexpected) };
        Ok(DisplayLease::new(lease, take_capability(message)?.claim()?))
    }

    /// Ends a lease of this process: its descriptor is dead, and its connectors are as they were before the compositor.
    ///
    /// # Errors
    /// [`DenialReason::Unauthorized`], [`DenialReason::DeviceNotFound`] for one that has ended.
    pub fn end_lease(&mut self, lease: LeaseId) -> Result<(), BridgeError> {
        let answer = self.request(&Request::EndLease { lease })?;
        expect_done(&granted(answer)?)
    }

    /// Lets another session have the seat, as the compositor that has it: this one is paused, and told so, and again when it has the seat
    /// back ([`Event::Paused`], [`Event::Resumed`]).
    ///
    /// # Errors
    /// [`DenialReason::Unauthorized`], [`DenialReason::InvalidConfig`] for a number that no session has; [`DenialReason::Other`] with 3
    /// when another session has the seat already, with 6 when that session has not acknowledged its last pause.
    pub fn switch_session(&mut self, session: SessionId) -> Result<(), BridgeError> {
        let answer = self.request(&Request::SwitchSession { session })?;
        expect_done(&granted(answer)?)
    }

    /// The connectors with their modes, for the compositor.
    ///
    /// # Errors
    /// [`DenialReason::Unauthorized`].
    pub fn connectors(&mut self) -> Result<Vec<ConnectorInfo>, BridgeError> {
        match granted(self.request(&Request::ListConnectors)?)? {
            Answer::Connectors(connectors) => Ok(connectors),
            _ => Err(BridgeError::Unexpected),
        }
    }

    /// The input devices, for the compositor.
    ///
    /// # Errors
    /// [`DenialReason::Unauthorized`].
    pub fn devices(&mut self) -> Result<Vec<DeviceInfo>, BridgeError> {
        match granted(self.request(&Request::ListDevices)?)? {
            Answer::Devices(devices) => Ok(devices),
            _ => Err(BridgeError::Unexpected),
        }
    }

    /// What this process is to the bridge and holds of it.
    ///
    /// # Errors
    /// When the bridge does not answer.
    pub fn describe(&mut self) -> Result<Description, BridgeError> {
        match granted(self.request(&Request::Describe)?)? {
            Answer::Description(description) => Ok(description),
            _ => Err(BridgeError::Unexpected),
        }
    }

    /// The next thing that the bridge tells without having been asked.
    ///
    /// # Errors
    /// [`KeywayError::TimedOut`] when there is none in time; [`KeywayError::LaneEnded`] when the bridge is gone.
    pub fn next_event(&mut self, timeout: Duration) -> Result<BridgeEvent, BridgeError> {
        let message = self.caller.next_notice(timeout)?;
        let event = protocol::decode::<Event>(&message.payload)?;
        if let Event::Granted { capability: Capability::InputDevice { .. } } | Event::GpuGranted(_) = event {
            let fd = match take_capability(message).and_then(|capability| Ok(capability.claim()?)) {
                // It is taken back already, which is what will be told next.
                Err(BridgeError::Keyway(error)) if error.denial().is_some() => {
                    return Ok(BridgeEvent::Other(event));
                }
                claimed => claimed?,
            };
            return Ok(match event {
                Event::Granted { capability: Capability::InputDevice { device, exclusive } } => {
                    BridgeEvent::InputGranted(InputDevice::new(device, exclusive, fd))
                }
                Event::GpuGranted(grant) => BridgeEvent::GpuGranted(Gpu::new(grant, fd)),
                other => BridgeEvent::Other(other),
            });
        }
        let Event::SurfaceCreated { surface, owner, config, layout, buffer: kind } = event else {
            return Ok(BridgeEvent::Other(event));
        };
        let buffer = match take_capability(message) {
            // It is gone already, which is what will be told next.
            Err(BridgeError::Keyway(error)) if error.denial().is_some() => {
                return Ok(BridgeEvent::Other(event));
            }
            taken => taken?,
        };
        let client = self.client.clone();
        Ok(BridgeEvent::SurfaceCreated(SharedSurface {
            client,
            surface,
            owner,
            config,
            layout,
            kind,
            buffer,
        }))
    }

    /// Sends any request of the protocol and returns the answer as it is, denials among the answers.
    ///
    /// # Errors
    /// When the bridge does not answer in time, or not in its protocol.
    pub fn request(&mut self, request: &Request) -> Result<Answer, BridgeError> {
        self.ask(request, &[]).map(|(answer, _)| answer)
    }

    fn ask(&mut self, request: &Request, carried: &[Carried<'_>]) -> Result<(Answer, Message), BridgeError> {
        let payload = protocol::encode(request)?;
        let message = Outgoing { payload: &payload, capabilities: carried, ..Outgoing::default() };
        let message = self.caller.call(&message, self.timeout)?;
        let answer = protocol::decode::<Answer>(&message.payload)?;
        Ok((answer, message))
    }

    fn own_pid(&self) -> Pid {
        Pid(self.client.pid())
    }

    fn expect_success(&mut self, request: GuiRequest) -> Result<(), BridgeError> {
        let answer = self.request(&Request::Document(request))?;
        expect_done(&granted(answer)?)
    }

    fn take_input(&mut self, request: &Request) -> Result<InputDevice, BridgeError> {
        match self.expect_granted(request)? {
            (Capability::InputDevice { device, exclusive }, message) => {
                Ok(InputDevice::new(device, exclusive, take_capability(message)?.claim()?))
            }
            _ => Err(BridgeError::Unexpected),
        }
    }

    fn expect_granted(&mut self, request: &Request) -> Result<(Capability, Message), BridgeError> {
        let (answer, message) = self.ask(request, &[])?;
        match granted(answer)? {
            Answer::Document(GuiResponse::Granted { capability }) => Ok((capability, message)),
            _ => Err(BridgeError::Unexpected),
        }
    }
}

/// The capability to a service: given by the starter, else looked up.
fn find(client: &Client, name: &str) -> Result<crate::capability::Capability, KeywayError> {
    match client.inherited(name) {
        Err(KeywayError::NotInherited { .. }) => client.lookup(name),
        found => found,
    }
}

fn is_refusal(error: &KeywayError) -> bool {
    let refusal = |denial: &Denial| {
        matches!(
            denial,
            Denial::NameRefused { .. } | Denial::NameForbidden { .. } | Denial::UnknownHandle { .. }
        )
    };
    error.denial().is_some_and(refusal)
}

/// An answer that is neither a denial nor a failure.
fn granted(answer: Answer) -> Result<Answer, BridgeError> {
    match answer {
        Answer::Document(GuiResponse::Denied { reason }) => Err(BridgeError::Denied(reason)),
        Answer::Document(GuiResponse::Error { message }) => Err(BridgeError::Failed(message)),
        answer => Ok(answer),
    }
}

fn expect_done(answer: &Answer) -> Result<(), BridgeError> {
    match answer {
        Answer::Document(GuiResponse::Success) => Ok(()),
        _ => Err(BridgeError::Unexpected),
    }
}

fn take_capability(message: Message) -> Result<crate::capability::Capability, BridgeError> {
    let first = message.capabilities.into_iter().next().ok_or(BridgeError::Unexpected)?;
    Ok(first?)
}
