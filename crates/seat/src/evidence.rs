//! What the machine says of itself, as evidence for whether it is a mobile device.
//!
//! The same sources in the same order as systemd-hostnamed: `/etc/machine-info`, the DMI chassis type
//! (SMBIOS 7.4.1), the device tree.

use std::{fs, path::Path};

use keyway_gui::protocol::{Chassis, Evidence, Presence};

/// The evidence in the file system below `root`, which is `/` but for tests.
pub(crate) fn gather(root: &Path) -> Evidence {
    Evidence { chassis: chassis(root), battery: battery(root), ..Evidence::default() }
}

fn chassis(root: &Path) -> Chassis {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let info = read("etc/machine-info").unwrap_or_default();
    let word = info.lines().find_map(|line| line.strip_prefix("CHASSIS="));
    let word = word.unwrap_or_default().trim().trim_matches(['"', '\'']);
    if !word.is_empty() {
        return Chassis::from_word(word);
    }
    if root.join("run/systemd/container").exists() || root.join(".dockerenv").exists() {
        return Chassis::Container;
    }
    if root.join("proc/xen").exists() || read("sys/hypervisor/type").is_some() {
        return Chassis::VirtualMachine;
    }
    if let Some(chassis) = read("sys/class/dmi/id/chassis_type").and_then(|text| dmi(text.trim())) {
        return chassis;
    }
    let tree = read("proc/device-tree/chassis-type").unwrap_or_default();
    Chassis::from_word(tree.trim_end_matches('\0').trim())
}

/// SMBIOS 7.4.1, table 17.
fn dmi(text: &str) -> Option<Chassis> {
    let number: u8 = text.parse().ok()?;
    match number {
        0x03 | 0x04 | 0x06 | 0x07 | 0x23 | 0x24 => Some(Chassis::Desktop),
        0x0d => Some(Chassis::AllInOne),
        0x08 | 0x09 | 0x0a | 0x0e => Some(Chassis::Laptop),
        0x0b => Some(Chassis::Handset),
        0x11 | 0x1c | 0x1d => Some(Chassis::Server),
        0x1e => Some(Chassis::Tablet),
        0x1f => Some(Chassis::Convertible),
        0x20 => Some(Chassis::Detachable),
        0x21 | 0x22 => Some(Chassis::Embedded),
        _ => None,
    }
}

/// A battery of the machine, not of a mouse.
fn battery(root: &Path) -> Presence {
    let Ok(supplies) = fs::read_dir(root.join("sys/class/power_supply")) else { return Presence::Absent };
    let is_battery = |path: &Path| {
        let says = |file: &str, word: &str| {
            fs::read_to_string(path.join(file)).is_ok_and(|text| text.trim() == word)
        };
        says("type", "Battery") && !says("scope", "Device")
    };
    let found = supplies.flatten().any(|entry| is_battery(&entry.path()));
    if found { Presence::Present } else { Presence::Absent }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn machine_info_wins_over_dmi() {
        let root =
            root(&[("etc/machine-info", "CHASSIS=\"tablet\"\n"), ("sys/class/dmi/id/chassis_type", "3\n")]);
        assert_eq!(gather(root.path()).chassis, Chassis::Tablet);
    }

    #[test]
    fn an_empty_word_says_nothing() {
        let root = root(&[("etc/machine-info", "CHASSIS=\n"), ("sys/class/dmi/id/chassis_type", "30\n")]);
        assert_eq!(gather(root.path()).chassis, Chassis::Tablet);
    }

    #[test]
    fn a_container_says_nothing_of_the_machine_around_it() {
        let root = root(&[("run/systemd/container", "podman\n"), ("sys/class/dmi/id/chassis_type", "10\n")]);
        assert_eq!(gather(root.path()).chassis, Chassis::Container);
    }

    #[test]
    fn dmi_and_the_device_tree_are_read() {
        let laptop = root(&[("sys/class/dmi/id/chassis_type", "10\n")]);
        assert_eq!(gather(laptop.path()).chassis, Chassis::Laptop);
        let handset = root(&[("proc/device-tree/chassis-type", "handset\0")]);
        assert_eq!(gather(handset.path()).chassis, Chassis::Handset);
        assert_eq!(gather(root(&[]).path()).chassis, Chassis::Unknown);
    }

    #[test]
    fn the_battery_of_a_mouse_is_not_the_machines() {
        let supply = "sys/class/power_supply";
        let mouse = [(format!("{supply}/m/type"), "Battery\n"), (format!("{supply}/m/scope"), "Device\n")];
        let mouse: Vec<(&str, &str)> = mouse.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        assert_eq!(gather(root(&mouse).path()).battery, Presence::Absent);
        let path = format!("{supply}/b/type");
        assert_eq!(gather(root(&[(&path, "Battery\n")]).path()).battery, Presence::Present);
    }
}
