//! All capabilities, and who was derived from whom.
//!
//! Knows nothing of processes or of what an object is. A capability whose holder drops it while others derive from it
//! stays as a joint that nobody holds, so that what lies below it still belongs to what lies above.
//!
//! # Invariants
//! 1. A child has its parent's object, no right that its parent lacks, its parent's badge if that has one, and ends no later.
//!    It allows no more to be opened than its parent does.
//! 2. A joint (holder `Nobody`) has at least two children, or is the root of a revocation under way, or bounds what is below more
//!    tightly than what is above does.
//! 3. A capability lies at most `DERIVATION_DEPTH_MAX + 1` deep; the last step is for what lanes, mappings and names hold.
//! 4. `expiries` names exactly the capabilities that end by themselves.
//! 5. What is open through a capability that bounds it is what is open through all below.

use alloc::{boxed::Box, collections::BTreeSet, vec::Vec};
use core::num::NonZeroU32;

use keyway_abi::{Badge, CapabilityLimits, LaneId, MappingId, ProcessNumber, Rights, Terms, Ticket};

use crate::account::AccountId;

/// The kernel's number for an object. Given once, never given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ObjectId(pub(crate) u64);

/// One capability. Used again after the capability is gone, so nobody keeps one across inputs without the holder
/// being told of the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CapabilityId(NonZeroU32);

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
    /// Whose account the derivation is charged to, if to any.
    pub(crate) payer: Option<AccountId>,
    pub(crate) depth: u8,
    /// Everything below is being taken back, and counts as gone.
    pub(crate) revoking: bool,
    /// It is what a lane or a mapping holds.
    is_open: bool,
    /// How many lanes and mappings may be open through it; `OPENS_UNBOUND` is any number, and then they are not counted.
    opens_max: u16,
    opens: u16,
    /// How large the ring of a lane through it may be; `u32::MAX` is any size.
    ring_bytes_max: u32,
    /// How high the priority of a lane through it may be; `u8::MAX` is any.
    priority_max: u8,
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

    /// How much may be opened through it.
    pub(crate) fn limits(&self) -> CapabilityLimits {
        CapabilityLimits {
            opens: Some(self.opens_max).filter(|max| *max != OPENS_UNBOUND),
            ring_bytes: Some(self.ring_bytes_max).filter(|max| *max != u32::MAX),
            priority: Some(self.priority_max).filter(|max| *max != u8::MAX),
        }
    }

    /// How many lanes and mappings are open through it, if they are counted.
    pub(crate) fn opens(&self) -> u16 {
        self.opens
    }
}

const OPENS_UNBOUND: u16 = u16::MAX;

type Link = Option<CapabilityId>;

impl CapabilityId {
    pub(crate) fn at(index: u32) -> Self {
        // INVARIANT: there is no memory for so many capabilities.
        CapabilityId(NonZeroU32::new(index + 1).expect("an index is below u32::MAX"))
    }

    /// The chunk, and the place in it.
    fn place(self) -> (usize, usize) {
        let index = (self.0.get() - 1) as usize;
        (index / CHUNK, index % CHUNK)
    }
}

/// Capabilities that are no more, all of one object.
#[derive(Debug, Default)]
pub(crate) struct Freed {
    /// How many.
    pub(crate) count: u32,
    /// Who paid for the first, and for the others. Mostly there is one.
    first: Option<AccountId>,
    others: Vec<AccountId>,
}

impl Freed {
    fn push(&mut self, payer: Option<AccountId>) {
        self.count += 1;
        match (payer, self.first) {
            (Some(payer), Some(_)) => self.others.push(payer),
            (Some(_), None) => self.first = payer,
            (None, _) => {}
        }
    }

    /// Who paid for them, once for each.
    pub(crate) fn payers(self) -> impl Iterator<Item = AccountId> {
        self.first.into_iter().chain(self.others)
    }
}

/// What a child is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Child {
    /// Judged against the parent, with the badge that the child carries.
    pub(crate) terms: Terms,
    pub(crate) bearer: Option<ProcessNumber>,
    pub(crate) holder: Holder,
    pub(crate) payer: Option<AccountId>,
}

/// Capabilities of which room is made at a time. A tree that grows never moves what is there.
const CHUNK: usize = 256;

type Node = Option<Capability>;

/// With the slot of a table that names it, a capability takes less than 128 bytes.
const _: () = assert!(size_of::<Node>() <= 112, "a capability is small");

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    chunks: Vec<Box<[Node]>>,
    free: Vec<CapabilityId>,
    /// Places that were ever filled.
    filled: u32,
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
            payer: None,
            depth: 0,
            revoking: false,
            is_open: false,
            opens_max: OPENS_UNBOUND,
            opens: 0,
            ring_bytes_max: u32::MAX,
            priority_max: u8::MAX,
            parent: None,
            first_child: None,
            previous: None,
            next: None,
        })
    }

    /// A child of `parent`. The caller has checked rights, badge and depth.
    pub(crate) fn derive(&mut self, parent: CapabilityId, child: Child) -> CapabilityId {
        let (from, terms) = (self.get(parent), child.terms);
        debug_assert!(from.rights.contains(terms.rights), "tree invariant 1: rights only shrink");
        debug_assert!(from.badge.is_none() || from.badge == terms.badge, "tree invariant 1: a badge stays");
        let first_child = from.first_child;
        let is_open = matches!(child.holder, Holder::Lane(_) | Holder::Mapping(_));
        let node = Capability {
            object: from.object,
            rights: terms.rights,
            badge: terms.badge,
            bearer: child.bearer,
            holder: child.holder,
            expires_ns: terms.expires_ns.unwrap_or(u64::MAX).min(from.expires_ns),
            payer: child.payer,
            depth: from.depth.saturating_add(1),
            revoking: false,
            is_open,
            opens_max: terms.limits.opens.unwrap_or(OPENS_UNBOUND).min(from.opens_max),
            opens: 0,
            ring_bytes_max: terms.limits.ring_bytes.unwrap_or(u32::MAX).min(from.ring_bytes_max),
            priority_max: terms.limits.priority.unwrap_or(u8::MAX).min(from.priority_max),
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
        if is_open {
            self.count_open(parent, |opens| opens + 1);
        }
        id
    }

    /// The capability, this one or one above, that allows no more to be opened.
    pub(crate) fn full(&self, id: CapabilityId) -> Option<&Capability> {
        let mut at = Some(id);
        while let Some(id) = at {
            let node = self.get(id);
            if node.opens_max == OPENS_UNBOUND {
                // Invariant 1: nothing above bounds it either.
                return None;
            }
            if node.opens >= node.opens_max {
                return Some(node);
            }
            at = node.parent;
        }
        None
    }

    /// Takes the holder away: the capability is freed, or stays as a joint. Returns what was freed: joints that are
    /// needed no more go with it.
    pub(crate) fn abandon(&mut self, id: CapabilityId) -> Freed {
        self.get_mut(id).holder = Holder::Nobody;
        self.tidy(Some(id))
    }

    /// Ends the mark of a revocation under way. Returns which joints were freed.
    pub(crate) fn end_revoking(&mut self, id: CapabilityId) -> Freed {
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
        let (chunk, index) = id.place();
        self.chunks[chunk][index].is_some()
    }

    pub(crate) fn get(&self, id: CapabilityId) -> &Capability {
        // INVARIANT: ids come from holders, and a holder is told before its capability is freed.
        let (chunk, index) = id.place();
        self.chunks[chunk][index].as_ref().expect("a held capability exists")
    }

    pub(crate) fn get_mut(&mut self, id: CapabilityId) -> &mut Capability {
        // INVARIANT: as in `get`.
        self.node_mut(id).as_mut().expect("a held capability exists")
    }

    /// The capability above, unless it is a joint.
    pub(crate) fn held_parent(&self, id: CapabilityId) -> Option<&Capability> {
        let parent = self.get(self.get(id).parent?);
        (parent.holder != Holder::Nobody).then_some(parent)
    }

    /// All capabilities, for the audit and for listings.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (CapabilityId, &Capability)> {
        (0..self.filled).map(CapabilityId::at).filter_map(|id| {
            let (chunk, index) = id.place();
            Some((id, self.chunks[chunk][index].as_ref()?))
        })
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
        let id = self.free.pop().unwrap_or_else(|| {
            let id = CapabilityId::at(self.filled);
            self.filled += 1;
            if id.place().0 == self.chunks.len() {
                self.chunks.push(core::iter::repeat_with(|| None).take(CHUNK).collect());
            }
            id
        });
        *self.node_mut(id) = Some(node);
        if expires_ns != u64::MAX {
            self.expiries.insert((expires_ns, id));
        }
        id
    }

    /// Frees or splices out joints from `at` upward until one is needed.
    fn tidy(&mut self, mut at: Link) -> Freed {
        let mut freed = Freed::default();
        while let Some(id) = at {
            let node = self.get(id);
            if node.holder != Holder::Nobody || node.revoking {
                break;
            }
            let &Capability { parent, first_child, expires_ns, payer, is_open, opens_max, .. } = node;
            match first_child {
                None => self.unlink(id),
                Some(child) if self.get(child).next.is_none() && !self.is_tighter(opens_max, parent) => {
                    self.splice(id, child);
                }
                Some(_) => break,
            }
            self.expiries.remove(&(expires_ns, id));
            *self.node_mut(id) = None;
            self.free.push(id);
            if let (true, Some(parent)) = (is_open, parent) {
                self.count_open(parent, |opens| opens - 1);
            }
            freed.push(payer);
            at = parent;
        }
        freed
    }

    /// Whether so many allow less than what is above.
    fn is_tighter(&self, opens_max: u16, parent: Link) -> bool {
        opens_max < parent.map_or(OPENS_UNBOUND, |parent| self.get(parent).opens_max)
    }

    /// Something is opened, or closed, through a capability.
    fn count_open(&mut self, through: CapabilityId, change: impl Fn(u16) -> u16) {
        let mut at = Some(through);
        while let Some(id) = at {
            let node = self.get_mut(id);
            if node.opens_max == OPENS_UNBOUND {
                // Invariant 1: nothing above bounds it either.
                return;
            }
            node.opens = change(node.opens);
            at = node.parent;
        }
    }

    fn node_mut(&mut self, id: CapabilityId) -> &mut Node {
        let (chunk, index) = id.place();
        &mut self.chunks[chunk][index]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_in_pieces_and_what_was_given_back_is_used_first() {
        let mut tree = Tree::default();
        let root = tree.insert_root(ObjectId(7), Rights::all(), Holder::Kernel);
        let terms = Terms::rights(Rights::MAP);
        let child = Child { terms, bearer: None, holder: Holder::Kernel, payer: None };
        let made: Vec<_> = (1..3 * CHUNK).map(|_| tree.derive(root, child)).collect();
        let expected: Vec<_> = (1..3 * CHUNK as u32).map(CapabilityId::at).collect();
        assert_eq!(made, expected);
        assert_eq!(tree.chunks.len(), 3, "they are full");
        assert_eq!(tree.iter().map(|(id, _)| id).skip(1).collect::<Vec<_>>(), expected);
        assert_eq!(tree.abandon(made[CHUNK]).count, 1);
        assert!(!tree.contains(made[CHUNK]) && tree.contains(made[CHUNK + 1]));
        assert_eq!(tree.derive(root, child), made[CHUNK]);
        tree.derive(root, child);
        assert_eq!(tree.chunks.len(), 4);
    }
}
