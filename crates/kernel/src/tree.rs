//! All capabilities, and who was derived from whom.
//!
//! Knows nothing of processes or of what an object is. A capability whose holder drops it while others derive from it
//! stays as a joint that nobody holds, so that what lies below it still belongs to what lies above.
//!
//! # Invariants
//! 1. A child has its parent's object, no right that its parent lacks, its parent's badge if that has one, and ends no later.
//! 2. A joint (holder `Nobody`) has at least two children, or is the root of a revocation under way.
//! 3. A capability lies at most `DERIVATION_DEPTH_MAX + 1` deep; the last step is for what lanes, mappings and names hold.
//! 4. `expiries` names exactly the capabilities that end by themselves.

use alloc::{collections::BTreeSet, vec::Vec};
use core::num::NonZeroU32;

use keyway_abi::{Badge, LaneId, MappingId, ProcessNumber, Rights, Ticket};

/// The kernel's number for an object. Given once, never given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ObjectId(pub(crate) u64);

/// One capability. Used again after the capability is gone, so nobody keeps one across inputs without the holder
/// being told of the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CapabilityId(NonZeroU32);

impl CapabilityId {
    /// The one at this place. Places count from 0 and ids from 1, so that a link to none takes no room of its own.
    pub(crate) fn at(place: usize) -> Self {
        let number = u32::try_from(place + 1).ok().and_then(NonZeroU32::new);
        // INVARIANT: memory ends long before 2^32 capabilities, which are some 400 GiB.
        CapabilityId(number.expect("places fit an id"))
    }

    fn place(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// Who holds a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Holder {
    /// A process, in a slot of its table.
    Process(ProcessNumber, u32),
    /// A lane that was opened through the parent.
    Lane(LaneId),
    /// A mapping that was made through the parent.
    Mapping(MappingId),
    /// A published name (its object).
    Name(ObjectId),
    /// A message on its way.
    Escrow(LaneId, Ticket),
    /// The kernel itself.
    Kernel,
    /// Nobody: a joint.
    Nobody,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Capability {
    pub(crate) object: ObjectId,
    pub(crate) rights: Rights,
    pub(crate) badge: Option<Badge>,
    /// For which process the directory made the badge.
    pub(crate) bearer: Option<ProcessNumber>,
    pub(crate) holder: Holder,
    /// When it ends by itself; `u64::MAX` is never.
    pub(crate) expires_ns: u64,
    pub(crate) depth: u8,
    /// Everything below is being taken back, and counts as gone.
    pub(crate) revoking: bool,
    parent: Link,
    first_child: Link,
    previous: Link,
    next: Link,
}

impl Capability {
    /// Whether a process holds it, or is to: joints, and what lanes, mappings and names hold, are not counted by people.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self.holder, Holder::Process(..) | Holder::Escrow(..))
    }
}

type Link = Option<CapabilityId>;

/// What a child is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Child {
    pub(crate) rights: Rights,
    pub(crate) badge: Option<Badge>,
    pub(crate) bearer: Option<ProcessNumber>,
    pub(crate) holder: Holder,
    /// When it is to end, if before its parent.
    pub(crate) expires_ns: Option<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: Nodes,
    free: Vec<CapabilityId>,
    /// Those that end by themselves, soonest first.
    expiries: BTreeSet<(u64, CapabilityId)>,
}

impl Tree {
    /// The first capability of an object.
    pub(crate) fn insert_root(&mut self, object: ObjectId, rights: Rights, holder: Holder) -> CapabilityId {
        self.insert(Capability {
            object,
            rights,
            badge: None,
            bearer: None,
            holder,
            expires_ns: u64::MAX,
            depth: 0,
            revoking: false,
            parent: None,
            first_child: None,
            previous: None,
            next: None,
        })
    }

    /// A child of `parent`. The caller has checked rights, badge and depth.
    pub(crate) fn derive(&mut self, parent: CapabilityId, child: Child) -> CapabilityId {
        let from = self.get(parent);
        debug_assert!(from.rights.contains(child.rights), "tree invariant 1: rights only shrink");
        debug_assert!(from.badge.is_none() || from.badge == child.badge, "tree invariant 1: a badge stays");
        let first_child = from.first_child;
        let node = Capability {
            object: from.object,
            rights: child.rights,
            badge: child.badge,
            bearer: child.bearer,
            holder: child.holder,
            expires_ns: child.expires_ns.unwrap_or(u64::MAX).min(from.expires_ns),
            depth: from.depth.saturating_add(1),
            revoking: false,
            parent: Some(parent),
            first_child: None,
            previous: None,
            next: first_child,
        };
        let id = self.insert(node);
        if let Some(sibling) = first_child {
            self.get_mut(sibling).previous = Some(id);
        }
        self.get_mut(parent).first_child = Some(id);
        id
    }

    /// Takes the holder away: the capability is freed, or stays as a joint. Returns how many capabilities of the
    /// object were freed: joints that are needed no more go with it.
    pub(crate) fn abandon(&mut self, id: CapabilityId) -> u32 {
        self.get_mut(id).holder = Holder::Nobody;
        self.tidy(Some(id))
    }

    /// Ends the mark of a revocation under way. Returns how many joints were freed.
    pub(crate) fn end_revoking(&mut self, id: CapabilityId) -> u32 {
        self.get_mut(id).revoking = false;
        self.tidy(Some(id))
    }

    /// A capability below `root` that has nothing below itself; `None` when there is none.
    pub(crate) fn leaf_below(&self, root: CapabilityId) -> Option<CapabilityId> {
        let mut leaf = self.get(root).first_child?;
        while let Some(child) = self.get(leaf).first_child {
            leaf = child;
        }
        Some(leaf)
    }

    /// Whether no capability above is being revoked. Walks at most `DERIVATION_DEPTH_MAX + 1` parents (invariant 3).
    pub(crate) fn is_live(&self, id: CapabilityId) -> bool {
        let mut above = self.get(id).parent;
        while let Some(parent) = above {
            let parent = self.get(parent);
            if parent.revoking {
                return false;
            }
            above = parent.parent;
        }
        true
    }

    /// Whether the capability is still there. Only for ids from this very input, see [`CapabilityId`].
    pub(crate) fn contains(&self, id: CapabilityId) -> bool {
        self.nodes.get(id).is_some()
    }

    pub(crate) fn get(&self, id: CapabilityId) -> &Capability {
        // INVARIANT: ids come from holders, and a holder is told before its capability is freed.
        self.nodes.get(id).expect("a held capability exists")
    }

    pub(crate) fn get_mut(&mut self, id: CapabilityId) -> &mut Capability {
        // INVARIANT: as in `get`.
        self.nodes.get_mut(id).as_mut().expect("a held capability exists")
    }

    /// The capability above, unless it is a joint.
    pub(crate) fn held_parent(&self, id: CapabilityId) -> Option<&Capability> {
        let parent = self.get(self.get(id).parent?);
        (parent.holder != Holder::Nobody).then_some(parent)
    }

    /// All capabilities, for the audit and for listings.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (CapabilityId, &Capability)> {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter_map(|(place, node)| Some((CapabilityId::at(place), node.as_ref()?)))
    }

    /// The capability above, joint or not.
    pub(crate) fn parent(&self, id: CapabilityId) -> Option<CapabilityId> {
        self.get(id).parent
    }

    /// The capabilities directly below.
    pub(crate) fn children(&self, id: CapabilityId) -> impl Iterator<Item = CapabilityId> + '_ {
        let mut next = self.get(id).first_child;
        core::iter::from_fn(move || {
            let child = next?;
            next = self.get(child).next;
            Some(child)
        })
    }

    /// The capability that ends soonest, and when.
    pub(crate) fn next_expiry(&self) -> Option<(u64, CapabilityId)> {
        self.expiries.first().copied()
    }

    /// Its end is being carried out.
    pub(crate) fn begin_expiry(&mut self, id: CapabilityId) {
        let expires_ns = self.get(id).expires_ns;
        self.expiries.remove(&(expires_ns, id));
    }

    /// Capabilities that end by themselves and have not begun to.
    pub(crate) fn expiries_count(&self) -> usize {
        self.expiries.len()
    }

    fn insert(&mut self, node: Capability) -> CapabilityId {
        let expires_ns = node.expires_ns;
        let id = if let Some(id) = self.free.pop() {
            *self.nodes.get_mut(id) = Some(node);
            id
        } else {
            self.nodes.push(node)
        };
        if expires_ns != u64::MAX {
            self.expiries.insert((expires_ns, id));
        }
        id
    }

    /// Frees or splices out joints from `at` upward until one is needed.
    fn tidy(&mut self, mut at: Link) -> u32 {
        let mut freed = 0;
        while let Some(id) = at {
            let node = self.get(id);
            if node.holder != Holder::Nobody || node.revoking {
                break;
            }
            let (parent, only_child, expires_ns) = (node.parent, node.first_child, node.expires_ns);
            match only_child {
                None => self.unlink(id),
                Some(child) if self.get(child).next.is_none() => self.splice(id, child),
                Some(_) => break,
            }
            self.expiries.remove(&(expires_ns, id));
            *self.nodes.get_mut(id) = None;
            self.free.push(id);
            freed += 1;
            at = parent;
        }
        freed
    }

    fn unlink(&mut self, id: CapabilityId) {
        let Capability { parent, previous, next, .. } = *self.get(id);
        match (previous, parent) {
            (Some(previous), _) => self.get_mut(previous).next = next,
            (None, Some(parent)) => self.get_mut(parent).first_child = next,
            (None, None) => {}
        }
        if let Some(next) = next {
            self.get_mut(next).previous = previous;
        }
    }

    /// Puts the only child in the place of its parent.
    fn splice(&mut self, id: CapabilityId, child: CapabilityId) {
        let Capability { parent, previous, next, .. } = *self.get(id);
        let node = self.get_mut(child);
        (node.parent, node.previous, node.next) = (parent, previous, next);
        match (previous, parent) {
            (Some(previous), _) => self.get_mut(previous).next = Some(child),
            (None, Some(parent)) => self.get_mut(parent).first_child = Some(child),
            (None, None) => {}
        }
        if let Some(next) = next {
            self.get_mut(next).previous = Some(child);
        }
    }
}

/// Room for capabilities, in pieces that stay where they are: one more never copies all the others, nor takes as much
/// room again.
#[derive(Debug, Default)]
struct Nodes {
    /// All full but the last.
    pieces: Vec<Vec<Option<Capability>>>,
}

/// Capabilities of one piece.
const PIECE: usize = 256;

impl Nodes {
    fn push(&mut self, node: Capability) -> CapabilityId {
        if self.pieces.last().is_none_or(|piece| piece.len() == PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        let index = self.pieces.len() - 1;
        let piece = &mut self.pieces[index];
        piece.push(Some(node));
        CapabilityId::at(index * PIECE + piece.len() - 1)
    }

    fn get(&self, id: CapabilityId) -> Option<&Capability> {
        self.pieces[id.place() / PIECE][id.place() % PIECE].as_ref()
    }

    fn get_mut(&mut self, id: CapabilityId) -> &mut Option<Capability> {
        &mut self.pieces[id.place() / PIECE][id.place() % PIECE]
    }

    fn iter(&self) -> impl Iterator<Item = &Option<Capability>> {
        self.pieces.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_and_its_slot_stay_below_their_aim() {
        assert!(size_of::<Option<Capability>>() <= 88, "{}", size_of::<Option<Capability>>());
        assert_eq!(size_of::<Link>(), 4);
    }

    #[test]
    fn ids_count_on_from_piece_to_piece() {
        let mut tree = Tree::default();
        let root = tree.insert_root(ObjectId(7), Rights::all(), Holder::Kernel);
        let (rights, holder) = (Rights::MAP, Holder::Kernel);
        let child = Child { rights, badge: None, bearer: None, holder, expires_ns: None };
        let made: Vec<_> = (0..3 * PIECE).map(|_| tree.derive(root, child)).collect();
        let expected: Vec<_> = (1..=3 * PIECE).map(CapabilityId::at).collect();
        assert_eq!(made, expected);
        assert_eq!(tree.iter().map(|(id, _)| id).skip(1).collect::<Vec<_>>(), expected);
        assert_eq!(tree.abandon(made[PIECE]), 1);
        assert!(!tree.contains(made[PIECE]));
        assert_eq!(tree.derive(root, child), made[PIECE], "room that was given back is used first");
    }
}
