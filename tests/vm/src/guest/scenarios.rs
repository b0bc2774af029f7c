//! The scenarios, and the parts of them that other users run.

mod devices;
mod display;
mod example;
mod figures;
mod headless;
mod hotplug;
mod huge;
mod input;
mod lease;
mod raw_drm;
mod raw_keys;
mod render;
mod seatd;
mod weston;

use anyhow::{Context, Result};

use crate::stage::Stage;

/// A scenario. It runs as root, in a process of its own.
pub type Scenario = fn(&mut Stage) -> Result<()>;
/// A part of a scenario that [`Stage::as_user`] starts, with its arguments.
pub type Part = fn(&[&str]) -> Result<()>;

/// In the order in which they run. To add one, write it and name it here.
const SCENARIOS: &[(&str, Scenario)] = &[
    ("devices", devices::devices),
    ("headless", headless::headless),
    ("huge-lanes", huge::huge_lanes),
    ("raw-drm", raw_drm::raw_drm),
    ("raw-keys", raw_keys::raw_keys),
    ("display", display::display),
    ("compositor-dies", display::compositor_dies),
    ("example", example::example),
    ("input", input::input),
    ("render-node", render::render_node),
    ("hotplug", hotplug::hotplug),
    ("lease", lease::lease),
    ("lessee-dies", lease::lessee_dies),
    ("seatd", seatd::seatd),
    ("seatd-lease", seatd::seatd_lease),
    ("seatd-user", seatd::seatd_user),
    ("seat-switch", seatd::seat_switch),
    // Where these are installed, which the host sees to.
    ("figures", figures::figures),
    ("weston", weston::weston),
    ("weston-lease", weston::weston_lease),
];

const PARTS: &[(&str, Part)] = &[
    ("intruder", devices::intruder),
    ("stranger", headless::stranger),
    ("doomed", display::doomed),
    ("lessee", lease::lessee),
    ("renderer", render::renderer),
    ("seatd-seated", seatd::seated),
    ("seatd-stranger", seatd::stranger),
];

pub fn names() -> Vec<String> {
    let is_there = |name: &str| weston::is_there() || !(name.starts_with("weston") || name == "figures");
    SCENARIOS.iter().filter(|(name, _)| is_there(name)).map(|(name, _)| (*name).into()).collect()
}

pub fn scenario(name: &str) -> Result<Scenario> {
    find(SCENARIOS, name)
}

pub fn part(name: &str) -> Result<Part> {
    find(PARTS, name)
}

fn find<T: Copy>(table: &[(&str, T)], name: &str) -> Result<T> {
    let entry = table.iter().find(|(entry, _)| *entry == name);
    entry.map(|(_, found)| *found).with_context(|| format!("nothing is named {name:?}"))
}
