//! The bridge's process: it runs the state machine of `keyway-gui` as an ordinary client of the broker.
//!
//! It decides nothing about who may do what (the machine does), and has no privilege in the broker but the right
//! `deposit`, by which input devices reach their holders. It rests on `keyway` for messages, regions and devices, and on
//! `keyway-sys` for the memory of its virtual screens.
//!
//! ```text
//!  lanes ──▶ Seat ──▶ gui::Bridge ──▶ effects ──▶ Seat ──▶ headless: virtual screens and devices
//!              ▲                                    │      drm, evdev: real ones, on threads of their own
//!              └──── what the hardware answered ◀───┘
//!  seatd's socket ──▶ seatd, a thread ──▶ Seat
//! ```
//!
//! Floors, lowest first: `damage`, `door`, `evidence`, `screen`, `input`, `news`; `headless`, `drm`, `evdev`; `hardware`, `seatd`; `seat`.

#![forbid(unsafe_code)]

mod damage;
mod door;
mod drm;
mod evdev;
mod evidence;
mod hardware;
mod headless;
mod input;
mod news;
mod screen;
mod seat;
mod seatd;

pub use crate::{
    door::{BadRule, CompositorRule},
    drm::CardGrant,
    hardware::{Backend, HardwareError},
    seat::{Options, Seat, SeatError},
    seatd::SeatdError,
};
