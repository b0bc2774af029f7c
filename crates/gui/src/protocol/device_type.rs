//! Whether the machine is mobile: a pure rule over evidence that the bridge's process has gathered.
//!
//! In this order: what the administrator says; what the maker says (the chassis word, as systemd-hostnamed reads it); the
//! tablet switch of a convertible; and where the maker says nothing, a vote of the hardware that is there. The reasons are
//! kept beside the verdict, because a wrong verdict is only understood from them.

use alloc::{vec, vec::Vec};

use serde::{Deserialize, Serialize};

/// A built-in panel with a smaller diagonal counts for mobile: 8.5 inches.
const SMALL_PANEL_MM: u32 = 215;

/// Judges the evidence.
pub fn device_type(evidence: &Evidence) -> DeviceType {
    if let Some(is_mobile) = evidence.decreed_mobile {
        return DeviceType { is_mobile, reasons: vec![Reason::Decreed] };
    }
    let chassis = Reason::Chassis(evidence.chassis);
    match evidence.chassis {
        Chassis::Handset | Chassis::Tablet | Chassis::Watch => {
            DeviceType { is_mobile: true, reasons: vec![chassis] }
        }
        Chassis::Desktop | Chassis::Laptop | Chassis::Server | Chassis::AllInOne => {
            DeviceType { is_mobile: false, reasons: vec![chassis] }
        }
        Chassis::Convertible | Chassis::Detachable => match evidence.tablet_mode {
            Some(is_mobile) => DeviceType { is_mobile, reasons: vec![chassis, Reason::TabletSwitch] },
            None => vote(evidence),
        },
        Chassis::Embedded | Chassis::VirtualMachine | Chassis::Container | Chassis::Unknown => vote(evidence),
    }
}

/// Mobile is what is touched, lacks a keyboard and has a small panel. Where no panel tells its size, a battery without a
/// pointing device stands in for it.
fn vote(evidence: &Evidence) -> DeviceType {
    use Presence::{Absent, Present};

    let (pocketable, panel) = match evidence.panel_diagonal_mm {
        Some(diagonal) if diagonal < SMALL_PANEL_MM => (true, Reason::SmallPanel),
        Some(_) => (false, Reason::LargePanel),
        None => (evidence.battery == Present && evidence.pointer == Absent, Reason::NoPanelSize),
    };
    DeviceType {
        is_mobile: evidence.touchscreen == Present && evidence.keyboard == Absent && pocketable,
        reasons: vec![
            Reason::Chassis(evidence.chassis),
            Reason::Touchscreen(evidence.touchscreen),
            Reason::Keyboard(evidence.keyboard),
            Reason::Pointer(evidence.pointer),
            Reason::Battery(evidence.battery),
            panel,
        ],
    }
}

/// What is known of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Evidence {
    /// What the administrator says, if anything.
    pub decreed_mobile: Option<bool>,
    /// What the maker says.
    pub chassis: Chassis,
    /// The tablet switch, where there is one: true is folded or detached.
    pub tablet_mode: Option<bool>,
    /// A touchscreen.
    pub touchscreen: Presence,
    /// A full keyboard of real hardware.
    pub keyboard: Presence,
    /// A mouse or touchpad.
    pub pointer: Presence,
    /// A battery that feeds the machine, not one of its devices.
    pub battery: Presence,
    /// Diagonal of the built-in panel; none if there is none or it does not say.
    pub panel_diagonal_mm: Option<u32>,
}

/// Whether something is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Presence {
    /// It is not.
    #[default]
    Absent,
    /// It is.
    Present,
}

/// What the maker says the machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Chassis {
    /// No word, or one that this list lacks.
    #[default]
    Unknown,
    /// `desktop`.
    Desktop,
    /// `laptop`.
    Laptop,
    /// `server`.
    Server,
    /// `all-in-one`.
    AllInOne,
    /// `tablet`.
    Tablet,
    /// `handset`.
    Handset,
    /// `watch`.
    Watch,
    /// `convertible`.
    Convertible,
    /// `detachable`.
    Detachable,
    /// `embedded`.
    Embedded,
    /// `vm`.
    VirtualMachine,
    /// `container`.
    Container,
}

impl Chassis {
    /// Reads the word that systemd-hostnamed, the device tree or machine-info uses.
    pub fn from_word(word: &str) -> Self {
        match word {
            "desktop" => Chassis::Desktop,
            "laptop" => Chassis::Laptop,
            "server" => Chassis::Server,
            "all-in-one" => Chassis::AllInOne,
            "tablet" => Chassis::Tablet,
            "handset" => Chassis::Handset,
            "watch" => Chassis::Watch,
            "convertible" => Chassis::Convertible,
            "detachable" => Chassis::Detachable,
            "embedded" => Chassis::Embedded,
            "vm" => Chassis::VirtualMachine,
            "container" => Chassis::Container,
            _ => Chassis::Unknown,
        }
    }
}

/// The verdict, with what it rests on.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DeviceType {
    /// True for a phone or tablet.
    pub is_mobile: bool,
    /// What was looked at, in the order in which it was.
    pub reasons: Vec<Reason>,
}

/// One thing that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The administrator says so.
    Decreed,
    /// The maker says this word.
    Chassis(Chassis),
    /// The tablet switch says so.
    TabletSwitch,
    /// Whether there is a touchscreen.
    Touchscreen(Presence),
    /// Whether there is a full keyboard.
    Keyboard(Presence),
    /// Whether there is a pointing device.
    Pointer(Presence),
    /// Whether there is a battery.
    Battery(Presence),
    /// The built-in panel is small.
    SmallPanel,
    /// The built-in panel is large.
    LargePanel,
    /// No built-in panel tells its size.
    NoPanelSize,
}

#[cfg(test)]
mod tests {
    use super::{Presence::Present, *};

    fn phone() -> Evidence {
        Evidence {
            touchscreen: Present,
            battery: Present,
            panel_diagonal_mm: Some(150),
            ..Evidence::default()
        }
    }

    fn is_mobile(evidence: Evidence) -> bool {
        device_type(&evidence).is_mobile
    }

    #[test]
    fn the_decree_outweighs_the_maker() {
        assert!(!is_mobile(Evidence { decreed_mobile: Some(false), chassis: Chassis::Handset, ..phone() }));
        assert!(is_mobile(Evidence {
            decreed_mobile: Some(true),
            chassis: Chassis::Server,
            ..Evidence::default()
        }));
    }

    #[test]
    fn the_maker_outweighs_the_hardware() {
        for word in ["handset", "tablet", "watch"] {
            let evidence =
                Evidence { chassis: Chassis::from_word(word), keyboard: Present, ..Evidence::default() };
            assert!(is_mobile(evidence), "{word}");
        }
        for word in ["desktop", "laptop", "server", "all-in-one"] {
            assert!(!is_mobile(Evidence { chassis: Chassis::from_word(word), ..phone() }), "{word}");
        }
    }

    #[test]
    fn a_convertible_follows_its_switch_and_without_one_the_vote() {
        for word in ["convertible", "detachable"] {
            let chassis = Chassis::from_word(word);
            assert!(is_mobile(Evidence { chassis, tablet_mode: Some(true), keyboard: Present, ..phone() }));
            assert!(!is_mobile(Evidence { chassis, tablet_mode: Some(false), ..phone() }));
            assert!(is_mobile(Evidence { chassis, ..phone() }));
        }
    }

    #[test]
    fn the_vote_needs_touch_and_a_small_panel_and_no_keyboard() {
        for word in ["", "embedded", "vm", "container"] {
            let phone = Evidence { chassis: Chassis::from_word(word), ..phone() };
            assert!(is_mobile(phone), "{word}");
            assert!(!is_mobile(Evidence { touchscreen: Presence::Absent, ..phone }));
            assert!(!is_mobile(Evidence { keyboard: Present, ..phone }));
            assert!(is_mobile(Evidence { panel_diagonal_mm: Some(214), ..phone }));
            assert!(!is_mobile(Evidence { panel_diagonal_mm: Some(215), ..phone }));
        }
    }

    #[test]
    fn a_battery_without_a_pointer_stands_in_for_an_unknown_panel() {
        let unknown = Evidence { panel_diagonal_mm: None, ..phone() };
        assert!(is_mobile(unknown));
        assert!(!is_mobile(Evidence { battery: Presence::Absent, ..unknown }));
        assert!(!is_mobile(Evidence { pointer: Present, ..unknown }));
    }

    #[test]
    fn nothing_known_is_a_desktop_and_the_evidence_is_told() {
        let verdict = device_type(&Evidence::default());
        assert!(!verdict.is_mobile);
        assert_eq!(verdict.reasons.len(), 6);
        assert!(verdict.reasons.contains(&Reason::NoPanelSize));
    }
}
