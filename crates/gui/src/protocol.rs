//! What a compositor, its applications and the bridge say to each other.
//!
//! The document's enums are exactly the document's; what they lack stands beside them in [`Request`], [`Answer`] and
//! [`Event`]. The bytes are postcard's: the order of variants and fields is the protocol, and grows at the end only.

mod device_type;
mod document;
mod encoding;
mod gpu;
mod listing;
mod message;
mod session;
mod surface;

pub use device_type::{Chassis, DeviceType, Evidence, Presence, Reason, device_type};
pub use document::{
    Capability, DenialReason, GpuCapability, GpuLimits, GuiRequest, GuiResponse, OtherDenial, Pid,
};
pub use encoding::{Malformed, Message, decode, encode};
pub use gpu::{Enforcer, GpuGrant, GrantTerms, RenderNode, Revocation};
pub(crate) use listing::clipped;
pub use listing::{ConnectorId, ConnectorInfo, DeviceId, DeviceInfo, DeviceKind, DisplayMode, LeaseId};
pub use message::{Answer, Description, Event, GpuUse, Request, Role};
pub use session::{CardId, OpenNumber, SeatDevice, SessionAnswer, SessionEvent, SessionId, SessionRequest};
pub use surface::{BufferKind, PixelFormat, Rectangle, SurfaceConfig, SurfaceId, SurfaceLayout};
