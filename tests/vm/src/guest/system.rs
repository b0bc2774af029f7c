//! What makes a system out of a kernel and a few files.

use std::{
    fs::{self, File},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use keyway_vm::protocol::Display;
use rustix::mount::{MountFlags, mount};

use crate::hardware;

/// How long devices may take to appear, once their drivers are there.
const PATIENCE: Duration = Duration::from_secs(10);

/// Mounts what programs expect.
pub fn mount_all() -> Result<()> {
    for (kind, place) in
        [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run"), ("tmpfs", "/tmp")]
    {
        mount(kind, place, kind, MountFlags::empty(), None).with_context(|| format!("mount {place}"))?;
    }
    Ok(())
}

/// Loads the modules, which are named in their order.
pub fn load_modules() -> Result<()> {
    let entries: Result<Vec<_>, _> = fs::read_dir("/modules")?.map(|entry| entry.map(|e| e.path())).collect();
    let mut paths = entries?;
    paths.sort();
    for path in paths {
        let load = || rustix::system::finit_module(File::open(&path)?, c"", 0).map_err(anyhow::Error::from);
        load().with_context(|| format!("load {}", path.display()))?;
    }
    Ok(())
}

/// Waits until all devices are there. Which is missing after that is for a scenario to say.
pub fn await_devices() {
    let deadline = Instant::now() + PATIENCE;
    let are_there = || {
        [Display::Virtio, Display::Bochs].iter().all(|display| hardware::card(*display).is_ok())
            && [hardware::KEYBOARD, hardware::TABLET].iter().all(|name| hardware::input(name).is_ok())
            && hardware::port().is_ok()
    };
    while !are_there() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
}
