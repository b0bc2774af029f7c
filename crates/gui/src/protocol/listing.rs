//! The machine's connectors and input devices, as they are listed.
//!
//! What the hardware says is cut to the bounds in [`limits`](crate::limits) before it is kept, so that every lawful listing
//! fits in one message.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::limits::{MODES_MAX, NAME_BYTES_MAX, PIXELS_PER_SIDE_MAX, REFRESH_MHZ_MAX};

/// A connector with what hangs on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectorInfo {
    /// Its number.
    pub id: ConnectorId,
    /// Its name, such as `HDMI-A-1`; at most `NAME_BYTES_MAX` bytes.
    pub name: String,
    /// What it can show, best first; at most `MODES_MAX`.
    pub modes: Vec<DisplayMode>,
    /// What it shows; none if it is dark.
    pub current: Option<DisplayMode>,
}

impl ConnectorInfo {
    /// Cuts the name and the list of modes to their bounds. The current mode stays in the list.
    #[must_use]
    pub fn into_bounded(self) -> Self {
        let current = self.current.filter(DisplayMode::is_possible);
        let mut modes: Vec<DisplayMode> = Vec::new();
        for mode in self.modes {
            if modes.len() < MODES_MAX && mode.is_possible() && !modes.contains(&mode) {
                modes.push(mode);
            }
        }
        if let Some(mode) = current
            && !modes.contains(&mode)
        {
            modes.truncate(MODES_MAX - 1);
            modes.push(mode);
        }
        ConnectorInfo { id: self.id, name: clipped(self.name, NAME_BYTES_MAX), modes, current }
    }
}

/// An input device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Its number.
    pub id: DeviceId,
    /// Its name; at most `NAME_BYTES_MAX` bytes.
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
}

impl DeviceInfo {
    /// Cuts the name to its bound.
    #[must_use]
    pub fn into_bounded(self) -> Self {
        DeviceInfo { name: clipped(self.name, NAME_BYTES_MAX), ..self }
    }
}

/// What an input device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Keys.
    Keyboard,
    /// A mouse or touchpad.
    Pointer,
    /// A screen that feels.
    Touchscreen,
    /// A pen on a tablet or screen.
    Pen,
    /// A joystick or gamepad.
    Joystick,
    /// Some keys that are no keyboard: power, volume, a remote control.
    Buttons,
    /// A lid, a tablet switch, a plug.
    Switch,
    /// Anything else.
    Other,
}

/// A resolution with its refresh rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisplayMode {
    /// Pixels of a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Refresh rate in thousandths of a hertz: 60 Hz is 60000.
    pub refresh_mhz: u32,
}

impl DisplayMode {
    /// True if the figures are within the bounds that a mode can have.
    pub fn is_possible(&self) -> bool {
        (1..=PIXELS_PER_SIDE_MAX).contains(&self.width)
            && (1..=PIXELS_PER_SIDE_MAX).contains(&self.height)
            && (1..=REFRESH_MHZ_MAX).contains(&self.refresh_mhz)
    }
}

/// A connector's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConnectorId(pub u32);

/// A lease's number. Numbers are consecutive and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseId(pub u64);

/// An input device's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeviceId(pub u32);

/// Cuts a text that came from the hardware, between characters.
pub(crate) fn clipped(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        // Position 0 is always between characters, so this finds one.
        let end = (0..=bytes_max).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    fn mode(width: u32) -> DisplayMode {
        DisplayMode { width, height: 1, refresh_mhz: 1 }
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(clipped("aé".to_string(), 2), "a");
        assert_eq!(clipped("aé".to_string(), 3), "aé");
        assert_eq!(clipped("é".to_string(), 1), "");
    }

    #[test]
    fn a_bounded_connector_keeps_its_current_mode() {
        let listed = ConnectorInfo {
            id: ConnectorId(1),
            name: "x".repeat(100),
            modes: (0..100).map(mode).chain([mode(1)]).collect(),
            current: Some(mode(99)),
        }
        .into_bounded();
        assert_eq!(listed.name.len(), NAME_BYTES_MAX);
        assert_eq!(listed.modes.len(), MODES_MAX);
        assert!(listed.modes.contains(&mode(99)));
        assert!(!listed.modes.contains(&mode(0)));
    }
}
