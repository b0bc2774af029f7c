//! One graphics card: its node, found by the kernel's own list, and what of its properties mode setting needs.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs, io,
    ops::RangeInclusive,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use drm::{
    ClientCapability, Device as _, DriverCapability,
    control::{self, Device as _, PlaneType, ResourceHandle, crtc, plane, property},
};
use keyway_sys::device::{self, DeviceNumber};

/// A card of which this process is the master.
#[derive(Debug)]
pub(super) struct Card {
    fd: OwnedFd,
    /// As the kernel lists it.
    pub(super) node: Node,
    /// Whether modes are set atomically.
    pub(super) is_atomic: bool,
    /// The properties of objects that were asked for, by their names: to ask the driver takes a call for each of them, and
    /// longer than to set a mode.
    properties: RefCell<BTreeMap<control::RawResourceHandle, Properties>>,
    /// The plane that a CRTC shows its picture on.
    primary_planes: RefCell<BTreeMap<control::RawResourceHandle, Option<plane::Handle>>>,
}

/// They are the same for as long as the object is there.
type Properties = BTreeMap<String, property::Handle>;

impl AsFd for Card {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl drm::Device for Card {}
impl control::Device for Card {}

impl Card {
    /// Opens a card and becomes its master.
    ///
    /// # Errors
    /// What Linux answers; in words when somebody else is its master, or it has no screens.
    pub(super) fn open(node: &Node) -> Result<Self, String> {
        let fail =
            |what: &str, error: &dyn std::fmt::Display| format!("{}: {what}: {error}", node.path.display());
        let fd = device::open(&node.path, node.number).map_err(|error| fail("not opened", &error))?;
        let (properties, primary_planes) = (RefCell::default(), RefCell::default());
        let mut card = Card { fd, node: node.clone(), is_atomic: false, properties, primary_planes };
        card.acquire_master_lock()
            .map_err(|error| fail("another process sets its modes (DRM master)", &error))?;
        let has_buffers = card.get_driver_capability(DriverCapability::DumbBuffer);
        if has_buffers.unwrap_or(0) == 0 {
            return Err(fail("no buffers", &"the driver has none that a processor can write"));
        }
        // A driver without either is set in the older way.
        let planes = card.set_client_capability(ClientCapability::UniversalPlanes, true);
        let atomic = card.set_client_capability(ClientCapability::Atomic, true);
        card.is_atomic = planes.is_ok() && atomic.is_ok();
        Ok(card)
    }

    /// Forgets what was asked before: objects may have come and gone.
    pub(super) fn ask_anew(&self) {
        self.properties.borrow_mut().clear();
        self.primary_planes.borrow_mut().clear();
    }

    /// The plane that a CRTC shows its picture on.
    pub(super) fn primary_plane(&self, crtc: crtc::Handle) -> io::Result<Option<plane::Handle>> {
        if let Some(known) = self.primary_planes.borrow().get(&crtc.into()) {
            return Ok(*known);
        }
        let found = self.find_primary_plane(crtc)?;
        self.primary_planes.borrow_mut().insert(crtc.into(), found);
        Ok(found)
    }

    fn find_primary_plane(&self, crtc: crtc::Handle) -> io::Result<Option<plane::Handle>> {
        let resources = self.resource_handles()?;
        for handle in self.plane_handles()? {
            let info = self.get_plane(handle)?;
            let reaches = resources.filter_crtcs(info.possible_crtcs()).contains(&crtc);
            let is_primary = self.value(handle, "type")? == Some(PlaneType::Primary as u64);
            if reaches && is_primary {
                return Ok(Some(handle));
            }
        }
        Ok(None)
    }

    /// The planes that a holder of the CRTC needs: what it shows its picture on, and its pointer.
    pub(super) fn planes(&self, crtc: crtc::Handle) -> io::Result<Vec<plane::Handle>> {
        let resources = self.resource_handles()?;
        let mut planes = Vec::new();
        for handle in self.plane_handles()? {
            let reached = resources.filter_crtcs(self.get_plane(handle)?.possible_crtcs());
            let kind = self.value(handle, "type")?;
            let is_its_own = reached == [crtc]
                || kind == Some(PlaneType::Primary as u64) && self.primary_plane(crtc)? == Some(handle);
            if is_its_own {
                planes.push(handle);
            }
        }
        Ok(planes)
    }

    /// A property of an object, by its name.
    pub(super) fn property<T: ResourceHandle>(&self, object: T, name: &str) -> io::Result<property::Handle> {
        let found = self.find(object, name)?;
        found.ok_or_else(|| io::Error::other(format!("the driver has no property {name}")))
    }

    fn value<T: ResourceHandle>(&self, object: T, name: &str) -> io::Result<Option<u64>> {
        let Some(wanted) = self.find(object, name)? else { return Ok(None) };
        let values = self.get_properties(object)?;
        Ok(values.iter().find(|(handle, _)| **handle == wanted).map(|(_, value)| *value))
    }

    fn find<T: ResourceHandle>(&self, object: T, name: &str) -> io::Result<Option<property::Handle>> {
        if let Some(known) = self.properties.borrow().get(&object.into()) {
            return Ok(known.get(name).copied());
        }
        let mut named = Properties::new();
        for (&handle, _) in &self.get_properties(object)? {
            named.insert(self.get_property(handle)?.name().to_string_lossy().into_owned(), handle);
        }
        let found = named.get(name).copied();
        self.properties.borrow_mut().insert(object.into(), named);
        Ok(found)
    }
}

/// A card's node, as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) number: DeviceNumber,
    pub(super) path: PathBuf,
}

impl Node {
    /// The cards that the kernel lists below `root`, which is `/` but for tests.
    pub(super) fn all(root: &Path) -> Vec<Node> {
        let Ok(entries) = fs::read_dir(root.join("sys/class/drm")) else { return Vec::new() };
        // Connectors are listed there too, and nodes that only render.
        let is_card = |name: &str| {
            let digits = name.strip_prefix("card");
            digits
                .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let nodes = entries.flatten().filter_map(|entry| Node::read(root, &entry.path()));
        let mut nodes: Vec<Node> = nodes.filter(|node| is_card(&node.name)).collect();
        nodes.sort_by_key(|node| node.number);
        nodes
    }

    /// The node of the same graphics processor that renders and shows nothing, if it has one. It is told by its number.
    pub(super) fn render(&self, root: &Path) -> Option<Node> {
        let siblings = root.join("sys/class/drm").join(&self.name).join("device/drm");
        let siblings = fs::read_dir(siblings).ok()?.flatten();
        let nodes = siblings.filter_map(|entry| Node::read(root, &entry.path()));
        let renders =
            |node: &Node| node.number.major == DRM_MAJOR && RENDER_MINORS.contains(&node.number.minor);
        nodes.filter(renders).min_by_key(|node| node.number)
    }

    fn read(root: &Path, entry: &Path) -> Option<Node> {
        let name = entry.file_name()?.to_str()?.to_owned();
        let number = DeviceNumber::parse(&fs::read_to_string(entry.join("dev")).ok()?)?;
        let notice = fs::read_to_string(entry.join("uevent")).ok()?;
        let device = notice.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
        Some(Node { name, number, path: root.join("dev").join(device) })
    }
}

/// Graphics, by the numbers of the kernel's `devices.txt`.
const DRM_MAJOR: u32 = 226;
/// What of it renders: `DRM_MINOR_RENDER` of `drm_file.h`, 64 numbers of each sort.
const RENDER_MINORS: RangeInclusive<u32> = 128..=191;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_found_among_connectors_and_render_nodes() {
        let root = tempfile::tempdir().unwrap();
        let entry = |name: &str, dev: &str| {
            let directory = root.path().join("sys/class/drm").join(name);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("dev"), format!("{dev}\n")).unwrap();
            fs::write(directory.join("uevent"), format!("MAJOR=226\nDEVNAME=dri/{name}\n")).unwrap();
        };
        entry("card1", "226:1");
        entry("card0", "226:0");
        entry("card0-Virtual-1", "226:9");
        entry("renderD128", "226:128");
        let found = Node::all(root.path());
        let names: Vec<&str> = found.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["card0", "card1"]);
        assert_eq!(found[0].number, DeviceNumber { major: 226, minor: 0 });
        assert_eq!(found[0].path, root.path().join("dev/dri/card0"));
        assert_eq!(Node::all(Path::new("/nowhere")), []);
    }

    #[test]
    fn the_render_node_of_a_card_is_told_by_its_number() {
        let root = tempfile::tempdir().unwrap();
        let entry = |name: &str, dev: &str| {
            let directory = root.path().join("sys/class/drm/card1/device/drm").join(name);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("dev"), format!("{dev}\n")).unwrap();
            fs::write(directory.join("uevent"), format!("DEVNAME=dri/{name}\n")).unwrap();
        };
        let card = |name: &str, minor| Node {
            name: name.into(),
            number: DeviceNumber { major: 226, minor },
            path: root.path().join("dev/dri").join(name),
        };
        entry("card1", "226:1");
        // Numbers of other sorts, and of another driver.
        for (name, dev) in [("renderD1", "226:127"), ("renderD2", "226:192"), ("renderD3", "227:130")] {
            entry(name, dev);
        }
        assert_eq!(card("card1", 1).render(root.path()), None);
        entry("second", "226:191");
        entry("first", "226:128");
        let found = card("card1", 1).render(root.path()).unwrap();
        assert_eq!((found.number.minor, found.path), (128, root.path().join("dev/dri/first")));
        assert_eq!(card("card0", 0).render(root.path()), None);
    }

    #[test]
    fn a_node_that_is_another_device_is_not_opened() {
        let node = Node {
            name: "card0".into(),
            number: DeviceNumber { major: 226, minor: 0 },
            path: "/dev/null".into(),
        };
        let refused = Card::open(&node).unwrap_err();
        assert!(refused.contains("/dev/null: not opened"), "{refused}");
    }
}
