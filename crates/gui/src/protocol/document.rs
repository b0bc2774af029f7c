//! The document's requests, responses, capabilities and denials, with its names and fields.
//!
//! Nine requests, six responses, five capabilities, six denials: never more. Additions are in `message`.
//! What a request says is an allegation until the machine has judged it, the `pid` above all.

use alloc::string::String;

use serde::{Deserialize, Serialize};

use super::{ConnectorId, DeviceId, DisplayMode, SurfaceConfig, SurfaceId};
use crate::limits::{DEFAULT_GPU_MEMORY, DEFAULT_MAX_SURFACES};

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuiRequest {
    /// The capability to render, within limits.
    RequestGpu {
        /// For whom: the caller, or an application that the caller registered.
        pid: Pid,
        /// How much.
        limits: GpuLimits,
    },
    /// Access to an input device, which others may read too; for the compositor.
    RequestInputDevice {
        /// The caller.
        pid: Pid,
        /// Which device.
        device: DeviceId,
    },
    /// A surface with its buffer.
    CreateSurface {
        /// The caller.
        pid: Pid,
        /// Its size and format.
        config: SurfaceConfig,
    },
    /// The end of a surface of the caller's own.
    DestroySurface {
        /// The caller.
        pid: Pid,
        /// Which surface.
        surface: SurfaceId,
    },
    /// Another resolution or refresh rate; for the compositor.
    SetDisplayMode {
        /// Which connector.
        connector: ConnectorId,
        /// One of the connector's modes.
        mode: DisplayMode,
    },
    /// Whether the machine is mobile; for anyone.
    QueryDeviceType,
    /// To become the compositor; for who came through the compositor's door.
    RegisterCompositor {
        /// The caller.
        pid: Pid,
    },
    /// To be the compositor no longer.
    UnregisterCompositor {
        /// The caller.
        pid: Pid,
    },
    /// Whether a process holds a capability.
    HasCapability {
        /// The caller, or an application that the caller registered.
        pid: Pid,
        /// With at least these figures.
        capability: Capability,
    },
}

/// What the bridge answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuiResponse {
    /// The request was granted.
    Granted {
        /// What the process now holds.
        capability: Capability,
    },
    /// The request was lawful and is refused.
    Denied {
        /// Why.
        reason: DenialReason,
    },
    /// The request was carried out.
    Success,
    /// The hardware refused.
    Error {
        /// In its own words, at most `TEXT_BYTES_MAX` bytes.
        message: String,
    },
    /// The device type.
    DeviceType {
        /// True for a phone or tablet.
        is_mobile: bool,
    },
    /// The answer to `HasCapability`.
    HasCapabilityResult {
        /// True if the process holds at least what was named.
        has_capability: bool,
    },
}

/// What a process can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Capability {
    /// Rendering within limits.
    GpuRendering {
        /// Memory for its surfaces, in MB.
        memory_mb: u32,
        /// How many surfaces.
        max_surfaces: u32,
    },
    /// Reading an input device.
    InputDevice {
        /// Which device.
        device: DeviceId,
        /// True if nobody else reads it, the console included.
        exclusive: bool,
    },
    /// Setting a connector's mode; the compositor holds it for each connector.
    DisplayControl {
        /// Which connector.
        connector: ConnectorId,
    },
    /// Creating and destroying surfaces of one's own; comes with `GpuRendering`.
    SurfaceManagement,
    /// Being the compositor.
    Compositor,
}

/// Why a lawful request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DenialReason {
    /// The caller may not ask this, or not for that process.
    Unauthorized,
    /// A limit stands against it.
    ResourceLimitExceeded,
    /// No such device, connector or surface.
    DeviceNotFound,
    /// The figures make no sense.
    InvalidConfig,
    /// Held already, by the caller or by another.
    AlreadyHeld,
    /// One of [`OtherDenial`], by its number.
    Other(u32),
}

/// The reasons that the document has no word for; the numbers never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum OtherDenial {
    /// The hardware did not answer in time.
    DeadlinePassed = 1,
    /// The compositor ended while the request waited for the hardware.
    CompositorGone = 2,
    /// Another session has the seat.
    Paused = 3,
    /// Nothing is open under this number.
    NotOpened = 4,
    /// The session was not told to pause.
    NotPausing = 5,
    /// That session has yet to say that it paused.
    PauseOwed = 6,
}

impl From<OtherDenial> for DenialReason {
    fn from(other: OtherDenial) -> Self {
        DenialReason::Other(other as u32)
    }
}

/// A process's number, as the bridge sees it. One in a request is checked, never believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pid(pub u32);

/// How much of the GPU a process asks for. Zero is no request, and denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuLimits {
    /// Memory for surfaces, in MB.
    pub memory_mb: u32,
    /// How many surfaces.
    pub max_surfaces: u32,
}

impl Default for GpuLimits {
    fn default() -> Self {
        GpuLimits { memory_mb: DEFAULT_GPU_MEMORY, max_surfaces: DEFAULT_MAX_SURFACES }
    }
}

/// How much of the GPU a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuCapability {
    /// Memory for surfaces, in MB.
    pub memory_mb: u32,
    /// How many surfaces.
    pub max_surfaces: u32,
}

impl From<GpuCapability> for Capability {
    fn from(held: GpuCapability) -> Self {
        Capability::GpuRendering { memory_mb: held.memory_mb, max_surfaces: held.max_surfaces }
    }
}
