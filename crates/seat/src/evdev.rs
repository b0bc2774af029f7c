//! Real input devices: evdev nodes, found by the kernel's own list and told apart by what they can do.
//!
//! A device is what its capability bits say (`/sys/class/input/event*/device/capabilities`, `input-event-codes.h`), by the rules of
//! udev's `input_id`; never what its path says.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use keyway_gui::{
    BackendFailure, Sharing,
    protocol::{DeviceId, DeviceInfo, DeviceKind, Evidence, Presence},
};
use keyway_sys::{
    Errno,
    device::{self, DeviceNumber},
};

/// The devices that are there.
#[derive(Debug)]
pub(crate) struct Devices {
    root: PathBuf,
    there: BTreeMap<DeviceId, Device>,
    last_id: u32,
}

#[derive(Clone, Debug)]
struct Device {
    /// As the kernel names it: `event3`.
    name: String,
    number: DeviceNumber,
    path: PathBuf,
    /// Made by a program: `uinput`.
    is_virtual: bool,
    info: DeviceInfo,
}

impl Devices {
    /// None yet. `root` is `/` but for tests.
    pub(crate) fn new(root: &Path) -> Self {
        Devices { root: root.to_owned(), there: BTreeMap::new(), last_id: 0 }
    }

    /// Looks at what is there now: what came, and what went.
    pub(crate) fn scan(&mut self) -> (Vec<DeviceInfo>, Vec<DeviceId>) {
        let entries = fs::read_dir(self.root.join("sys/class/input")).ok().into_iter().flatten().flatten();
        let mut found: Vec<Device> =
            entries.filter_map(|entry| Device::read(&self.root, &entry.path())).collect();
        found.sort_by_key(|device| device.number);
        // The same number may be another device by now.
        let is_there = |device: &Device| {
            found.iter().any(|other| {
                (other.number, &other.name, &other.info.name)
                    == (device.number, &device.name, &device.info.name)
                    && other.info.kind == device.info.kind
            })
        };
        let gone = self.there.iter().filter(|(_, device)| !is_there(device));
        let gone: Vec<DeviceId> = gone.map(|(id, _)| *id).collect();
        self.there.retain(|id, _| !gone.contains(id));
        let mut came = Vec::new();
        for mut device in found {
            if self.there.values().any(|known| known.number == device.number) {
                continue;
            }
            self.last_id += 1;
            device.info.id = DeviceId(self.last_id);
            came.push(device.info.clone());
            self.there.insert(device.info.id, device);
        }
        (came, gone)
    }

    /// Which device has this number.
    pub(crate) fn by_number(&self, number: DeviceNumber) -> Option<DeviceId> {
        self.there.iter().find(|(_, device)| device.number == number).map(|(id, _)| *id)
    }

    /// Opens a device.
    ///
    /// # Errors
    /// What Linux answers; `ENODEV` when it is gone, or another by now. [`BackendFailure::HeldElsewhere`] when it is to be
    /// exclusive and another process has it so.
    pub(crate) fn open(&self, id: DeviceId, sharing: Sharing) -> Result<OwnedFd, BackendFailure> {
        let gone = || BackendFailure::Refused { message: "the device is gone".into() };
        let device = self.there.get(&id).ok_or_else(gone)?;
        let refused = |error| {
            let message = format!("{} (`{}`): {error}", device.path.display(), device.info.name);
            BackendFailure::Refused { message }
        };
        let fd = device::open(&device.path, device.number).map_err(refused)?;
        if sharing == Sharing::Exclusive {
            device::grab_input(&fd).map_err(|error| match error.errno {
                Errno::BUSY => BackendFailure::HeldElsewhere,
                _ => refused(error),
            })?;
        }
        Ok(fd)
    }

    /// What the devices say of the machine, besides what it says itself.
    pub(crate) fn evidence(&self, says: Evidence) -> Evidence {
        let has = |kind: DeviceKind| {
            let found = self.there.values().any(|device| device.info.kind == kind && !device.is_virtual);
            if found { Presence::Present } else { Presence::Absent }
        };
        // A touchscreen counts also where a program makes it: some drivers are programs.
        let touches = self.there.values().any(|device| device.info.kind == DeviceKind::Touchscreen);
        Evidence {
            touchscreen: if touches { Presence::Present } else { Presence::Absent },
            keyboard: has(DeviceKind::Keyboard),
            pointer: has(DeviceKind::Pointer),
            ..says
        }
    }
}

impl Device {
    fn read(root: &Path, entry: &Path) -> Option<Device> {
        let name = entry.file_name()?.to_str()?.to_owned();
        if !name.starts_with("event") {
            return None;
        }
        let read = |file: &str| fs::read_to_string(entry.join(file));
        let number = DeviceNumber::parse(&read("dev").ok()?)?;
        let notice = read("uevent").ok()?;
        let node = notice.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
        let bits = |file: &str| Bits::parse(&read(file).unwrap_or_default());
        let kind = kind(&Abilities {
            keys: bits("device/capabilities/key"),
            moves: bits("device/capabilities/rel"),
            places: bits("device/capabilities/abs"),
            switches: bits("device/capabilities/sw"),
            properties: bits("device/properties"),
        });
        let is_virtual = fs::canonicalize(entry)
            .is_ok_and(|path| path.components().any(|part| part.as_os_str() == "virtual"));
        let name_of = read("device/name").unwrap_or_default().trim().to_owned();
        let info = DeviceInfo { id: DeviceId(0), name: name_of, kind };
        Some(Device { name, number, path: root.join("dev").join(node), is_virtual, info })
    }
}

/// What a device can tell.
struct Abilities {
    keys: Bits,
    moves: Bits,
    places: Bits,
    switches: Bits,
    properties: Bits,
}

/// A set of codes, as sysfs writes it: words in hexadecimal, the highest first.
struct Bits(Vec<u64>);

impl Bits {
    fn parse(text: &str) -> Self {
        let words = text.split_whitespace().rev();
        Bits(words.map(|word| u64::from_str_radix(word, 16).unwrap_or(0)).collect())
    }

    fn has(&self, code: usize) -> bool {
        self.0.get(code / 64).is_some_and(|word| word >> (code % 64) & 1 == 1)
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

// `input-event-codes.h`.
const BTN_MOUSE: usize = 0x110;
const BTN_JOYSTICK: usize = 0x120;
const BTN_GAMEPAD: usize = 0x130;
const BTN_TOOL_PEN: usize = 0x140;
const BTN_TOOL_FINGER: usize = 0x145;
const BTN_TOUCH: usize = 0x14a;
const BTN_STYLUS: usize = 0x14b;
const KEY_ESC: usize = 1;
const KEY_S: usize = 31;
const X: usize = 0;
const Y: usize = 1;
const ABS_MT_POSITION_X: usize = 0x35;
const ABS_MT_POSITION_Y: usize = 0x36;
const INPUT_PROP_DIRECT: usize = 1;

fn kind(can: &Abilities) -> DeviceKind {
    let Abilities { keys, moves, places, switches, properties } = can;
    let has_place =
        places.has(X) && places.has(Y) || places.has(ABS_MT_POSITION_X) && places.has(ABS_MT_POSITION_Y);
    let is_direct = properties.has(INPUT_PROP_DIRECT);
    if has_place {
        let is_pen = keys.has(BTN_TOOL_PEN) || keys.has(BTN_STYLUS);
        let is_touchpad = keys.has(BTN_TOOL_FINGER) && !is_direct;
        match () {
            () if is_pen => return DeviceKind::Pen,
            () if is_touchpad || keys.has(BTN_MOUSE) => return DeviceKind::Pointer,
            () if keys.has(BTN_TOUCH) || is_direct => return DeviceKind::Touchscreen,
            () if keys.has(BTN_JOYSTICK) || keys.has(BTN_GAMEPAD) => return DeviceKind::Joystick,
            () => {}
        }
    }
    if moves.has(X) && moves.has(Y) && keys.has(BTN_MOUSE) {
        return DeviceKind::Pointer;
    }
    // Escape, the digits, and the letters from Q to S: what no remote control has.
    if (KEY_ESC..=KEY_S).all(|key| keys.has(key)) {
        return DeviceKind::Keyboard;
    }
    if keys.has(BTN_JOYSTICK) || keys.has(BTN_GAMEPAD) {
        return DeviceKind::Joystick;
    }
    match (keys.is_empty(), switches.is_empty()) {
        (false, _) => DeviceKind::Buttons,
        (true, false) => DeviceKind::Switch,
        (true, true) => DeviceKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device as sysfs lists it: name, number, and what it can do, word by word as Linux 6.12 wrote it for real ones.
    #[derive(Clone, Copy)]
    struct Fixture<'f> {
        name: &'f str,
        minor: u32,
        key: &'f str,
        rel: &'f str,
        abs: &'f str,
        sw: &'f str,
        properties: &'f str,
    }

    const NOTHING: Fixture<'_> =
        Fixture { name: "nothing", minor: 64, key: "0", rel: "0", abs: "0", sw: "0", properties: "0" };
    const KEYBOARD: Fixture<'_> = Fixture {
        name: "AT Translated Set 2 keyboard",
        key: "402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe",
        ..NOTHING
    };
    const MOUSE: Fixture<'_> = Fixture { name: "Mouse", key: "1f0000 0 0 0 0", rel: "1943", ..NOTHING };
    const TOUCHSCREEN: Fixture<'_> = Fixture {
        name: "Touchscreen",
        key: "400 0 0 0 0 0",
        abs: "260800000000003",
        properties: "2",
        ..NOTHING
    };

    fn write(root: &Path, fixture: &Fixture<'_>, is_virtual: bool) {
        let event = format!("event{}", fixture.minor - 64);
        let bus = if is_virtual { "virtual" } else { "pci0000:00" };
        let device = root.join("sys/devices").join(bus).join(format!("input{}", fixture.minor)).join(&event);
        fs::create_dir_all(device.join("device/capabilities")).unwrap();
        let file = |name: &str, text: &str| fs::write(device.join(name), format!("{text}\n")).unwrap();
        file("dev", &format!("13:{}", fixture.minor));
        file("uevent", &format!("MAJOR=13\nMINOR={}\nDEVNAME=input/{event}", fixture.minor));
        file("device/name", fixture.name);
        file("device/properties", fixture.properties);
        file("device/capabilities/key", fixture.key);
        file("device/capabilities/rel", fixture.rel);
        file("device/capabilities/abs", fixture.abs);
        file("device/capabilities/sw", fixture.sw);
        let class = root.join("sys/class/input");
        fs::create_dir_all(&class).unwrap();
        std::os::unix::fs::symlink(&device, class.join(&event)).unwrap();
    }

    fn kind_of(fixture: Fixture<'_>) -> DeviceKind {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &fixture, false);
        let (came, gone) = Devices::new(root.path()).scan();
        assert_eq!((came.len(), gone.len()), (1, 0));
        assert_eq!(came[0].name, fixture.name);
        came[0].kind
    }

    #[test]
    fn devices_are_told_apart_by_what_they_can_do() {
        assert_eq!(kind_of(KEYBOARD), DeviceKind::Keyboard);
        assert_eq!(kind_of(MOUSE), DeviceKind::Pointer);
        assert_eq!(kind_of(TOUCHSCREEN), DeviceKind::Touchscreen);
        assert_eq!(kind_of(NOTHING), DeviceKind::Other);
        let power = Fixture { key: "10000000000000 0", ..NOTHING };
        assert_eq!(kind_of(power), DeviceKind::Buttons);
        assert_eq!(kind_of(Fixture { sw: "1", ..NOTHING }), DeviceKind::Switch);
        // What a virtual machine calls a tablet points: it has a mouse's buttons.
        let tablet = Fixture { key: "1f0000 0 0 0 0", abs: "3", ..NOTHING };
        assert_eq!(kind_of(tablet), DeviceKind::Pointer);
        let touchpad =
            Fixture { key: "e520 10000 0 0 0 0", abs: "260800011000003", properties: "1", ..NOTHING };
        assert_eq!(kind_of(touchpad), DeviceKind::Pointer);
        let pen = Fixture { key: "1c01 0 0 0 0 0", abs: "1000003", properties: "2", ..NOTHING };
        assert_eq!(kind_of(pen), DeviceKind::Pen);
        let gamepad = Fixture { key: "7fdb000000000000 0 0 0 0", abs: "3003f", ..NOTHING };
        assert_eq!(kind_of(gamepad), DeviceKind::Joystick);
        // All keys of a keyboard but one.
        let remote = Fixture { key: "fffffffffffffff6", ..NOTHING };
        assert_eq!(kind_of(remote), DeviceKind::Buttons);
    }

    #[test]
    fn what_comes_and_goes_is_told_once_and_numbers_are_not_used_again() {
        let root = tempfile::tempdir().unwrap();
        let mut devices = Devices::new(root.path());
        assert_eq!(devices.scan(), (vec![], vec![]));
        write(root.path(), &KEYBOARD, false);
        write(root.path(), &Fixture { minor: 65, ..MOUSE }, false);
        let (came, gone) = devices.scan();
        let ids: Vec<u32> = came.iter().map(|device| device.id.0).collect();
        assert_eq!((ids, gone), (vec![1, 2], vec![]));
        assert_eq!(devices.scan(), (vec![], vec![]), "nothing has changed");
        // Another device under the number of the mouse.
        fs::remove_file(root.path().join("sys/class/input/event1")).unwrap();
        fs::remove_dir_all(root.path().join("sys/devices/pci0000:00/input65")).unwrap();
        write(root.path(), &Fixture { minor: 65, ..TOUCHSCREEN }, false);
        let (came, gone) = devices.scan();
        assert_eq!(gone, [DeviceId(2)]);
        assert_eq!((came[0].id, came[0].kind), (DeviceId(3), DeviceKind::Touchscreen));
        let gone = BackendFailure::Refused { message: "the device is gone".into() };
        assert_eq!(devices.open(DeviceId(2), Sharing::Shared).unwrap_err(), gone);
    }

    #[test]
    fn evidence_counts_real_keyboards_and_any_touchscreen() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &KEYBOARD, true);
        write(root.path(), &Fixture { minor: 65, ..TOUCHSCREEN }, true);
        let mut devices = Devices::new(root.path());
        devices.scan();
        let machine = Evidence { panel_diagonal_mm: Some(150), ..Evidence::default() };
        let says = devices.evidence(machine);
        assert_eq!((says.keyboard, says.touchscreen), (Presence::Absent, Presence::Present));
        assert_eq!(says.panel_diagonal_mm, Some(150));
        write(root.path(), &Fixture { minor: 66, ..MOUSE }, false);
        devices.scan();
        assert_eq!(devices.evidence(Evidence::default()).pointer, Presence::Present);
    }
}
