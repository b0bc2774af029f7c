//! Whole messages: the document's, and beside them what the document lacks.
//!
//! A request travels from a client to the bridge, an answer back to it; an event tells a client what it did not ask.
//! Deliberately absent: descriptors and buffers. They travel beside a message, as capabilities attached to it.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use super::{
    BufferKind, Capability, ConnectorId, ConnectorInfo, DenialReason, DeviceId, DeviceInfo, DeviceType,
    DisplayMode, GpuCapability, GpuGrant, GuiRequest, GuiResponse, LeaseId, Pid, Rectangle, SessionId,
    SurfaceConfig, SurfaceId, SurfaceLayout,
};

/// From a client to the bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// One of the document's nine.
    Document(GuiRequest),
    /// Lets a process ask for GPU and surfaces; for the compositor. A capability to that process is attached.
    RegisterApplication {
        /// Its pid, by which requests will name it.
        pid: Pid,
        /// The number of the process. The bridge's process overwrites it with that of the attached capability.
        process: u64,
    },
    /// Takes from an application all that it holds; for the compositor.
    UnregisterApplication {
        /// Which application.
        pid: Pid,
    },
    /// Shows a surface; for the compositor.
    PresentSurface {
        /// Where.
        connector: ConnectorId,
        /// The compositor's own surface or one of an application.
        surface: SurfaceId,
        /// What has changed since it was last shown there; all of it, if none are named. At most `DAMAGE_MAX`.
        damage: Vec<Rectangle>,
    },
    /// What can show something; for the compositor.
    ListConnectors,
    /// What can be read; for the compositor.
    ListDevices,
    /// What the caller is and holds; for anyone.
    Describe,
    /// A descriptor by which the caller drives connectors itself, all of one card: a DRM lease; for the compositor. It ends with
    /// `EndLease`, with its holder's being the compositor, and with the bridge.
    LeaseDisplay {
        /// Which; at least one and at most `CONNECTORS_MAX`.
        connectors: Vec<ConnectorId>,
    },
    /// The end of a lease; for the compositor. Its connectors are as they were at first.
    EndLease {
        /// Which lease.
        lease: LeaseId,
    },
    /// Lets another session have the seat; for the compositor that has it.
    SwitchSession {
        /// Which session.
        session: SessionId,
    },
    /// Access to an input device that nobody else reads meanwhile, the console included; for the compositor. Answered as
    /// `RequestInputDevice` is.
    RequestExclusiveInput {
        /// The caller.
        pid: Pid,
        /// Which device.
        device: DeviceId,
    },
}

/// From the bridge to a client that asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// One of the document's six. The grant of an input device has its descriptor attached.
    Document(GuiResponse),
    /// The surface exists; its buffer is attached, to be written by the caller alone.
    SurfaceCreated {
        /// Its number.
        surface: SurfaceId,
        /// Bytes from one row to the next.
        stride: u32,
        /// Bytes of the buffer.
        bytes: u64,
        /// What the buffer is.
        buffer: BufferKind,
    },
    /// What can show something.
    Connectors(Vec<ConnectorInfo>),
    /// What can be read.
    Devices(Vec<DeviceInfo>),
    /// What the caller is and holds.
    Description(Description),
    /// The connectors are leased; the descriptor is attached.
    DisplayLeased {
        /// The lease's number.
        lease: LeaseId,
    },
    /// The GPU is granted with a render node, whose descriptor is attached. Where there is no node, the grant is the document's.
    GpuGranted(GpuGrant),
}

impl From<GuiResponse> for Answer {
    fn from(response: GuiResponse) -> Self {
        Answer::Document(response)
    }
}

impl From<DenialReason> for Answer {
    fn from(reason: DenialReason) -> Self {
        Answer::Document(GuiResponse::Denied { reason })
    }
}

/// From the bridge to a client that did not ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// To the compositor: an application has a new surface. Its buffer is attached, to be read.
    SurfaceCreated {
        /// Its number.
        surface: SurfaceId,
        /// Whose it is.
        owner: Pid,
        /// What it was asked to be.
        config: SurfaceConfig,
        /// What it is.
        layout: SurfaceLayout,
        /// What its buffer is.
        buffer: BufferKind,
    },
    /// To the compositor: the surface of an application ended, and its buffer with it.
    SurfaceDestroyed {
        /// Its number.
        surface: SurfaceId,
    },
    /// To an application: the compositor has registered it.
    Registered,
    /// To an application: the compositor has registered it no longer.
    Unregistered,
    /// To an application: the compositor asked for this in its name. To the compositor: an input device is granted anew after a
    /// pause; its descriptor is attached.
    Granted {
        /// What it now holds.
        capability: Capability,
    },
    /// What was held is held no longer.
    Revoked {
        /// What was held.
        capability: Capability,
    },
    /// To the compositor: an application died, or is not the process that was named.
    ApplicationGone {
        /// Which application.
        pid: Pid,
    },
    /// To an application: the compositor ended, and with it all that it had allowed.
    CompositorGone,
    /// To the compositor: a connector came, or has other modes than before.
    ConnectorChanged(ConnectorInfo),
    /// To the compositor: a connector is gone.
    ConnectorRemoved {
        /// Which connector.
        connector: ConnectorId,
    },
    /// To the compositor: an input device came.
    DeviceAdded(DeviceInfo),
    /// To the compositor: an input device is gone.
    DeviceRemoved {
        /// Which device.
        device: DeviceId,
    },
    /// To the compositor: the display is not as the compositor left it, because the hardware was late.
    DisplayChanged {
        /// Which connector.
        connector: ConnectorId,
        /// What it shows now.
        current: Option<DisplayMode>,
    },
    /// To the compositor: the machine became mobile or ceased to be (docked, folded).
    DeviceTypeChanged {
        /// True for a phone or tablet.
        is_mobile: bool,
    },
    /// To the compositor: another session has the seat. Its screens and leases stand still, its input devices are revoked.
    Paused,
    /// To the compositor: it has the seat again. Screens and leases go on; input devices are granted anew, each told as `Granted`
    /// with its descriptor attached.
    Resumed,
    /// To an application: the compositor asked for the GPU in its name. The render node's descriptor is attached.
    GpuGranted(GpuGrant),
    /// To the holder, and to the compositor: a grant of the GPU has ended, and its render node stays with its holder, as Linux cannot
    /// take it back.
    Irrevocable {
        /// The holder.
        pid: Pid,
        /// Which node; at most `NAME_BYTES_MAX` bytes.
        node: String,
    },
}

/// What a client is and holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// What it is to the bridge.
    pub role: Role,
    /// What it holds of the GPU, and how much of that is in use.
    pub gpu: Option<GpuUse>,
    /// What kind of machine this is, with the evidence.
    pub device_type: DeviceType,
}

/// What a client is to the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Neither of the others.
    Stranger,
    /// A process that the compositor registered.
    Application,
    /// The compositor.
    Compositor,
}

/// What a client holds of the GPU, and how much of that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuUse {
    /// What it holds.
    pub capability: GpuCapability,
    /// Bytes of its buffers.
    pub charged_bytes: u64,
    /// Its surfaces, those being made included.
    pub surfaces_count: u32,
}
