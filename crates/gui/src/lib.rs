//! The bridge between a compositor, its applications and the hardware: what they may ask, and who may ask it.
//!
//! Its floors, lowest first:
//!
//! * [`limits`]: every bound, by name.
//! * [`protocol`]: the messages and their bytes, the rule for the device type among them.
//! * [`seatd`]: the bytes of the seatd protocol, by which compositors that use `libseat` have a seat.
//! * [`machine`]: [`Bridge`], the deterministic state machine that judges each request.
//!
//! Deliberately absent: sockets, descriptors, DRM, evdev, clocks. A process around the machine hands it what happened and
//! carries out the [`Effect`]s it returns; the same inputs give the same effects, byte for byte.
//!
//! ```
//! use keyway_gui::{Bridge, ClientId, Door, Effect, Facts, Identity, RequestNumber};
//! use keyway_gui::protocol::{Answer, GuiRequest, GuiResponse, Pid, Request};
//!
//! let mut bridge = Bridge::new(Facts::default()).expect("nothing to refuse");
//! let identity = Identity { pid: Pid(7), uid: 1000 };
//! bridge.on_lane_opened(ClientId(1), identity, Door::Compositor).expect("room for one").for_each(drop);
//!
//! let request = Request::Document(GuiRequest::RegisterCompositor { pid: Pid(7) });
//! let effects: Vec<Effect> = bridge.handle(0, ClientId(1), RequestNumber(1), request).collect();
//! assert_eq!(
//!     effects,
//!     [Effect::Answer {
//!         client: ClientId(1),
//!         request: RequestNumber(1),
//!         answer: Answer::Document(GuiResponse::Success),
//!     }],
//! );
//! ```

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod limits;
pub mod machine;
pub mod protocol;
pub mod seatd;

pub use machine::{
    Access, BackendFailure, Bridge, ClientId, Door, Driver, Effect, Effects, Facts, FactsRefused, Identity,
    LaneRefused, RequestNumber, Sharing, Ticket, Totals,
};
