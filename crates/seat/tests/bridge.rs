//! The bridge over the real path: a broker, the bridge's process, compositors and applications.
//!
//! The broker, the bridge and the compositors are sessions of this process. An application is another process, because
//! the bridge tells applications by their pid: this program once more, with orders to carry out.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "bridge/application.rs"]
mod application;
#[path = "bridge/compositor.rs"]
mod compositor;
#[path = "bridge/criteria.rs"]
mod criteria;
#[path = "bridge/edges.rs"]
mod edges;
#[path = "bridge/lanes.rs"]
mod lanes;
#[path = "bridge/lifetimes.rs"]
mod lifetimes;
#[path = "bridge/picture.rs"]
mod picture;
#[path = "bridge/refusals.rs"]
mod refusals;
#[path = "bridge/rules.rs"]
mod rules;
#[path = "bridge/seatd.rs"]
mod seatd;
#[path = "bridge/stage.rs"]
mod stage;

/// Plays an application when this program is started by one of its tests, and is nothing otherwise.
#[test]
fn the_other_process() {
    application::play_if_told();
}
