//! One process's handle table: handle to slot, with generations.
//!
//! Never looks at objects; never grows beyond `TABLE_MAX`.
//!
//! # Invariants
//! 1. A slot's generation grows each time it is emptied, and a slot whose generation can grow no more is never filled.
//! 2. `held` counts the slots that are filled or reserved.

use alloc::vec::Vec;

use keyway_abi::{Denial, Handle, limits::TABLE_MAX};

use crate::tree::CapabilityId;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    held: u32,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    content: Content,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Empty,
    Filled(CapabilityId),
    /// The capability is in escrow and may come back to this very slot.
    Reserved,
}

impl Table {
    /// Fills the next slot. The caller has checked [`Table::has_room`].
    pub(crate) fn insert(&mut self, capability: CapabilityId) -> Handle {
        self.held += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 1, content: Content::Empty });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        debug_assert_eq!(slot.content, Content::Empty, "table invariant 1: only empty slots are free");
        slot.content = Content::Filled(capability);
        Handle::new(index, slot.generation)
    }

    /// Empties a filled or reserved slot for good.
    pub(crate) fn empty(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        debug_assert_ne!(slot.content, Content::Empty, "table invariant 2: a slot is emptied once");
        slot.content = Content::Empty;
        self.held -= 1;
        if slot.generation < u32::MAX {
            slot.generation += 1;
            self.free.push(index);
        }
    }

    /// Keeps the slot for a capability that goes into escrow.
    pub(crate) fn reserve(&mut self, index: u32) {
        self.slots[index as usize].content = Content::Reserved;
    }

    /// Puts a capability that comes back out of escrow into its slot.
    pub(crate) fn restore(&mut self, index: u32, capability: CapabilityId) {
        self.slots[index as usize].content = Content::Filled(capability);
    }

    /// The capability that a handle names.
    pub(crate) fn get(&self, handle: Handle) -> Result<CapabilityId, Denial> {
        let Some(slot) = self.slots.get(handle.slot() as usize) else {
            return Err(Denial::UnknownHandle { handle });
        };
        match slot.content {
            Content::Filled(capability) if slot.generation == handle.generation() => Ok(capability),
            Content::Reserved if slot.generation == handle.generation() => {
                Err(Denial::StaleHandle { handle })
            }
            _ if handle.generation() != 0 && handle.generation() < slot.generation => {
                Err(Denial::StaleHandle { handle })
            }
            _ => Err(Denial::UnknownHandle { handle }),
        }
    }

    /// Whether one more slot can be filled.
    pub(crate) fn has_room(&self) -> bool {
        !self.free.is_empty() || (self.slots.len() as u64) < u64::from(TABLE_MAX)
    }

    /// Slots filled or reserved.
    pub(crate) fn held(&self) -> u32 {
        self.held
    }

    /// The handle that names the capability in `index`.
    pub(crate) fn handle(&self, index: u32) -> Handle {
        Handle::new(index, self.slots[index as usize].generation)
    }

    /// The filled slots from `first` on.
    pub(crate) fn filled(&self, first: u32) -> impl Iterator<Item = (Handle, CapabilityId)> + '_ {
        let slots = self.slots.iter().enumerate().skip(first as usize);
        slots.filter_map(|(index, slot)| match slot.content {
            Content::Filled(capability) => Some((Handle::new(index as u32, slot.generation), capability)),
            Content::Empty | Content::Reserved => None,
        })
    }

    /// Slots that were ever filled.
    pub(crate) fn slots_count(&self) -> u32 {
        self.slots.len() as u32
    }

    /// The capability in a slot.
    pub(crate) fn content(&self, index: u32) -> Option<CapabilityId> {
        match self.slots[index as usize].content {
            Content::Filled(capability) => Some(capability),
            Content::Empty | Content::Reserved => None,
        }
    }

    /// Filled and reserved slots, counted one by one.
    pub(crate) fn count_held(&self) -> u32 {
        self.slots.iter().filter(|slot| slot.content != Content::Empty).count() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::CapabilityId;

    #[test]
    fn an_emptied_slot_makes_its_handle_stale_and_its_next_one_new() {
        let mut table = Table::default();
        let first = table.insert(CapabilityId::at(7));
        assert_eq!(table.get(first), Ok(CapabilityId::at(7)));
        table.empty(first.slot());
        assert_eq!(table.get(first), Err(Denial::StaleHandle { handle: first }));
        let second = table.insert(CapabilityId::at(8));
        assert_eq!(second.slot(), first.slot());
        assert_ne!(second, first);
        assert_eq!(table.get(first), Err(Denial::StaleHandle { handle: first }));
    }

    #[test]
    fn a_handle_that_was_never_given_is_unknown() {
        let mut table = Table::default();
        let given = table.insert(CapabilityId::at(7));
        let ahead = Handle::new(given.slot(), given.generation() + 1);
        for handle in [Handle::NONE, Handle::new(5, 1), ahead, Handle::new(given.slot(), 0)] {
            assert_eq!(table.get(handle), Err(Denial::UnknownHandle { handle }));
        }
    }

    #[test]
    fn a_slot_at_the_end_of_its_generations_is_retired() {
        let mut table = Table::default();
        let first = table.insert(CapabilityId::at(7));
        table.slots[first.slot() as usize].generation = u32::MAX;
        table.empty(first.slot());
        assert_ne!(table.insert(CapabilityId::at(8)).slot(), first.slot());
    }

    #[test]
    fn a_reserved_slot_is_stale_until_restored() {
        let mut table = Table::default();
        let handle = table.insert(CapabilityId::at(7));
        table.reserve(handle.slot());
        assert_eq!(table.get(handle), Err(Denial::StaleHandle { handle }));
        assert_eq!(table.held(), 1);
        table.restore(handle.slot(), CapabilityId::at(7));
        assert_eq!(table.get(handle), Ok(CapabilityId::at(7)));
    }

    #[test]
    fn a_generation_ahead_of_its_slot_is_unknown_also_when_the_slot_is_reserved_or_empty() {
        let mut table = Table::default();
        let handle = table.insert(CapabilityId::at(7));
        let ahead = Handle::new(handle.slot(), handle.generation() + 1);
        let unknown = Err(Denial::UnknownHandle { handle: ahead });
        table.reserve(handle.slot());
        assert_eq!(table.get(ahead), unknown);
        table.empty(handle.slot());
        assert_eq!(table.get(ahead), unknown, "the slot's next generation, which nobody was given");
    }

    #[test]
    fn a_full_table_has_no_room() {
        let mut table = Table::default();
        for _ in 0..TABLE_MAX {
            assert!(table.has_room());
            table.insert(CapabilityId::at(1));
        }
        assert!(!table.has_room());
        table.empty(3);
        assert!(table.has_room());
    }
}
