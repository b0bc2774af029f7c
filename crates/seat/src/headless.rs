//! Hardware where there is none: virtual connectors with modes, and a virtual keyboard, pointer and touchscreen.

use std::{collections::BTreeMap, path::Path};

use keyway::RegionReader;
use keyway_gui::{
    Facts,
    protocol::{
        ConnectorId, ConnectorInfo, DeviceId, DeviceInfo, DeviceKind, DisplayMode, Evidence, Presence,
        Rectangle, SurfaceConfig, SurfaceId, SurfaceLayout, device_type,
    },
};

use crate::{
    damage::Damage,
    screen::{Screen, ShowError},
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Headless {
    screens: BTreeMap<ConnectorId, Screen>,
    /// What each connector shows. The picture goes with the surface.
    shown: BTreeMap<ConnectorId, SurfaceId>,
}

/// The keyboard, on which a text can be typed.
pub(crate) const KEYBOARD: DeviceId = DeviceId(1);

impl Headless {
    /// The hardware, and what the machine is told of it. `evidence` is what the machine says of itself.
    pub(crate) fn new(evidence: Evidence) -> (Self, Facts) {
        let connectors = vec![
            connector(1, "Virtual-1", &[(1280, 720, 60), (1920, 1080, 60), (1024, 768, 75), (640, 480, 60)]),
            connector(2, "Virtual-2", &[(1080, 2400, 120), (1080, 2400, 60), (720, 1600, 60)]),
        ];
        let device = |id: DeviceId, name: &str, kind| DeviceInfo { id, name: name.into(), kind };
        let devices = vec![
            device(KEYBOARD, "Virtual keyboard", DeviceKind::Keyboard),
            device(DeviceId(2), "Virtual pointer", DeviceKind::Pointer),
            device(DeviceId(3), "Virtual touchscreen", DeviceKind::Touchscreen),
        ];
        let present = Presence::Present;
        let evidence = Evidence { keyboard: present, pointer: present, touchscreen: present, ..evidence };
        let screen = |info: &ConnectorInfo| Some((info.id, Screen::new(info.current?)));
        let screens = connectors.iter().filter_map(screen).collect();
        let shown = BTreeMap::new();
        (
            Headless { screens, shown },
            Facts { connectors, devices, device_type: device_type(&evidence), ..Facts::default() },
        )
    }

    pub(crate) fn set_mode(&mut self, connector: ConnectorId, mode: DisplayMode) {
        if let Some(screen) = self.screens.get_mut(&connector) {
            screen.set_mode(mode);
            self.shown.remove(&connector);
        }
    }

    pub(crate) fn restore(&mut self) {
        self.screens.values_mut().for_each(Screen::restore);
        self.shown.clear();
    }

    pub(crate) fn show(
        &mut self,
        connector: ConnectorId,
        surface: SurfaceId,
        pixels: &RegionReader,
        picture: (&SurfaceConfig, &SurfaceLayout),
        damage: Vec<Rectangle>,
    ) -> Result<(), ShowError> {
        let Some(screen) = self.screens.get_mut(&connector) else { return Ok(()) };
        let is_same = self.shown.insert(connector, surface) == Some(surface);
        let damage = if is_same { Damage::named(damage) } else { Damage::All };
        let shown = screen.show(pixels, picture, &damage);
        if shown.is_err() {
            // What is on the screen is no picture as a whole.
            self.shown.remove(&connector);
        }
        shown
    }

    /// Takes a surface off the connectors that show it; they are black after that.
    pub(crate) fn hide(&mut self, surface: SurfaceId) {
        for (connector, screen) in &mut self.screens {
            if self.shown.get(connector) == Some(&surface) {
                self.shown.remove(connector);
                screen.blank();
            }
        }
    }

    /// Saves every screen: the first as `path`, the others with their number before the extension.
    pub(crate) fn save(&mut self, path: &Path) -> Result<(), ShowError> {
        for (index, screen) in self.screens.values_mut().enumerate() {
            if index == 0 {
                screen.save(path)?;
                continue;
            }
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let extension = path.extension().unwrap_or_default().to_string_lossy();
            screen.save(&path.with_file_name(format!("{stem}-{}.{extension}", index + 1)))?;
        }
        Ok(())
    }
}

fn connector(id: u32, name: &str, modes: &[(u32, u32, u32)]) -> ConnectorInfo {
    let mode = |(width, height, hz): &(u32, u32, u32)| DisplayMode {
        width: *width,
        height: *height,
        refresh_mhz: hz * 1000,
    };
    let modes: Vec<DisplayMode> = modes.iter().map(mode).collect();
    ConnectorInfo { id: ConnectorId(id), name: name.into(), current: modes.first().copied(), modes }
}
