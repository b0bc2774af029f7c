//! The render node: a user who can open no graphics device gets it from the bridge, renders with it, shows nothing by it, and keeps it.

use std::{
    fs::{self, File},
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    process, thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use drm::{Device as _, control::Device as _};
use keyway::bridge::{BridgeEvent, Enforcer, Event, GpuLimits, Revocation};
use keyway_vm::protocol::Display;

use super::raw_drm::Card;
use crate::{compositor::Compositor, hardware, stage::Stage};

const USER: u32 = 1000;
/// What is there once the first grant was looked at.
const GO_ON: &str = "/run/renderer-goes-on";

pub fn render_node(stage: &mut Stage) -> Result<()> {
    let _broker = stage.start_broker(&[])?;
    let _bridge = stage.start_bridge(&["--backend", "drm", "--compositor", &format!("user:{USER}")])?;
    let card = hardware::card(Display::Virtio)?;
    let card = card.file_name().context("a card has a name")?.to_string_lossy().into_owned();
    let node = fs::read_dir(format!("/sys/class/drm/{card}/device/drm"))?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .find(|name| name.starts_with("render"))
        .context("the card has no render node")?;
    let number = fs::metadata(format!("/dev/dri/{node}"))?.rdev().to_string();
    let mut renderer = stage.start_as_user(USER, "renderer", &[&card, &node, &number])?;
    renderer.await_line("granted")?;
    let listed = stage.listed("caps")?;
    ensure!(listed.contains(&format!("{node}-irrevocable-memory-advisory")), "not listed in {listed}");
    File::create(GO_ON)?;
    renderer.await_line("kept")?;
    let listed = stage.listed("caps")?;
    ensure!(!listed.contains("irrevocable"), "the grant has ended, and is listed in {listed}");
    Ok(())
}

/// A compositor of a user's.
pub fn renderer(arguments: &[&str]) -> Result<()> {
    let [card, name, number] = arguments else { anyhow::bail!("{arguments:?} are not three") };
    ensure!(File::open(format!("/dev/dri/{name}")).is_err(), "the user can open the render node itself");
    let mut compositor = Compositor::begin()?;
    let node = compositor.gpu.node.take().context("no render node")?;
    ensure!((&*node.info.name, &*node.info.card) == (*name, *card), "another node: {:?}", node.info);
    ensure!(
        (node.terms.revocation, node.terms.memory) == (Revocation::Irrevocable, Enforcer::Nobody),
        "{:?}",
        node.terms
    );
    ensure!(compositor.gpu.surfaces.memory == Enforcer::Bridge, "{:?}", compositor.gpu.surfaces);
    let file = File::from(OwnedFd::from(node));
    let found = file.metadata()?;
    ensure!(found.file_type().is_char_device() && found.rdev().to_string() == *number, "another device");
    let node = Card(file);
    let driver = node.get_driver()?;
    ensure!(driver.name() == "virtio_gpu", "its driver is {:?}", driver.name());
    ensure!(node.resource_handles().is_err(), "what renders sees screens");
    println!("granted");
    while !fs::exists(GO_ON)? {
        thread::sleep(Duration::from_millis(10));
    }

    compositor.bridge.unregister_compositor()?;
    let pid = process::id();
    let told = compositor.next_event()?;
    let is_told = |told: &BridgeEvent| matches!(told, BridgeEvent::Other(Event::Irrevocable { pid: holder, node }) if holder.0 == pid && node == name);
    ensure!(is_told(&told), "not told that the node is kept, but {told:?}");
    ensure!(node.get_driver().is_ok(), "it was taken back, which the bridge says that it cannot be");
    // Another grant is another open file.
    compositor.bridge.register_compositor()?;
    let again = compositor.bridge.request_gpu(GpuLimits::default())?;
    ensure!(again.node.is_some(), "the second grant has no node");
    compositor.bridge.unregister_compositor()?;
    println!("kept");
    thread::sleep(Duration::from_secs(60));
    Ok(())
}
