//! Where the machine's devices are, by what sysfs says of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use keyway_vm::protocol::{Display, PORT};

pub const KEYBOARD: &str = "QEMU Virtio Keyboard";
pub const TABLET: &str = "QEMU Virtio Tablet";

/// The driver of a display's PCI device. That of virtio-gpu knows nothing of graphics; there is one such card.
pub fn driver(display: Display) -> &'static str {
    match display {
        Display::Virtio => "virtio-pci",
        Display::Bochs => "bochs-drm",
    }
}

/// The card of a display, for modes and pictures.
pub fn card(display: Display) -> Result<PathBuf> {
    find("/sys/class/drm", "/dev/dri", |device, name| {
        // Connectors are there too, as `card0-Virtual-1`.
        let is_card = name.strip_prefix("card").is_some_and(|number| number.parse::<u32>().is_ok());
        let used = fs::read_link(device.join("device/driver")).unwrap_or_default();
        is_card && used.file_name().is_some_and(|used| used == driver(display))
    })
    .with_context(|| format!("no card of {}", driver(display)))
}

/// The events of an input device.
pub fn input(wanted: &str) -> Result<PathBuf> {
    find("/sys/class/input", "/dev/input", |device, name| {
        name.starts_with("event") && says(&device.join("device/name"), wanted)
    })
    .with_context(|| format!("no input device {wanted:?}"))
}

/// The port to the host.
pub fn port() -> Result<PathBuf> {
    find("/sys/class/virtio-ports", "/dev", |port, _| says(&port.join("name"), PORT))
        .context("no port to the host")
}

fn says(file: &Path, text: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|found| found.trim() == text)
}

/// The node of the device of a class of which something is so.
fn find(class: &str, nodes: &str, is_it: impl Fn(&Path, &str) -> bool) -> Result<PathBuf> {
    for entry in fs::read_dir(class)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let node = Path::new(nodes).join(&name);
        if is_it(&entry.path(), &name) && node.exists() {
            return Ok(node);
        }
    }
    bail!("nothing of that kind in {class}")
}
