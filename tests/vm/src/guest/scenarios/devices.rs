//! The machine has the devices that the other scenarios are about, and only root can open them.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::FileTypeExt,
    path::Path,
};

use anyhow::{Result, bail, ensure};
use keyway_vm::protocol::Display;

use crate::{hardware, stage::Stage};

/// Somebody without rights.
const USER: u32 = 1000;

pub fn devices(stage: &mut Stage) -> Result<()> {
    let mut nodes = Vec::new();
    for (display, card, connector) in
        [(Display::Virtio, "card0", "card0-Virtual-1"), (Display::Bochs, "card1", "card1-Virtual-2")]
    {
        let found = hardware::card(display)?;
        ensure!(found == Path::new("/dev/dri").join(card), "{display:?} is {}", found.display());
        let status = fs::read_to_string(format!("/sys/class/drm/{connector}/status"))?;
        ensure!(status.trim() == "connected", "{connector} is {}", status.trim());
        nodes.push(found);
    }
    nodes.push("/dev/dri/renderD128".into());
    for name in [hardware::KEYBOARD, hardware::TABLET] {
        let found = hardware::input(name)?;
        println!("{name}: {}", found.display());
        nodes.push(found);
    }
    let nodes: Vec<&str> = nodes.iter().filter_map(|node| node.to_str()).collect();
    for node in &nodes {
        ensure!(fs::metadata(node)?.file_type().is_char_device(), "{node} is no device");
        File::options().read(true).write(true).open(node)?;
    }
    stage.as_user(USER, "intruder", &nodes)
}

/// Demands that it can open none of these.
pub fn intruder(nodes: &[&str]) -> Result<()> {
    for node in nodes {
        match File::open(node) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            other => bail!("{node} is not refused: {other:?}"),
        }
    }
    Ok(())
}
