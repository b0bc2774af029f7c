//! Steps with capabilities: deriving, granting, taking back, weakening, and time that passes.

use keyway_abi::{Badge, CapabilityLimits, Created, Event, Kind, Reply, Rights, Terms, request};

use super::{
    charges::{DERIVATION, HANDLE, REQUEST},
    oracle::{Holder, Why},
    steps::Duel,
};
use crate::tests::driver::RING_BYTES;

/// Capabilities.
impl Duel {
    pub(super) fn derive(&mut self, process: usize, first: u8, second: u8, bits: u32) -> bool {
        let from = match bits % 6 {
            0 | 1 => self.pick_listed(process, first),
            2 => self.pick_opening(process, first, Kind::Queue),
            3 => self.pick_opening(process, first, Kind::Region),
            _ => self.pick(process, first, None),
        };
        let rights = self.rights(process, from, bits);
        let badge = (second < 64).then_some(Badge(u64::from(second % 4)));
        let expires_ns = self.expiry(second);
        let terms = Terms { rights, badge, expires_ns, limits: limits(bits >> 20) };
        let payer = self.oracle.account(process);
        let plan = self.oracle.child_of(process, from, Rights::DERIVE, &terms).and_then(|child| {
            self.oracle.affords(payer, &[&DERIVATION])?;
            self.oracle.affords(payer, &[&HANDLE])?;
            Ok(child)
        });
        let request = request::Derive { from, terms };
        let Some(((parent, badge), reply)) = self.ask(process, request, plan) else { return false };
        let Reply::Capability(made) = reply else { panic!("a capability: {reply:?}") };
        assert_eq!((made.rights, made.badge), (rights, badge));
        self.oracle.child_until(parent, &terms, badge, Holder::Process(process, made.handle), payer);
        // What is open through one counts for the other, which is seen while both have room.
        if self.oracle.capabilities[parent].limits.opens.is_some() && !bits.is_multiple_of(4) {
            self.open_through(process, from, (bits >> 24) as u8 % 9);
            self.open_through(process, made.handle, (bits >> 28) as u8 % 9);
        }
        true
    }

    pub(super) fn weaken(&mut self, process: usize, first: u8, second: u8, bits: u32) -> bool {
        let handle = self.pick(process, first, None);
        let rights = self.rights(process, handle, bits);
        let expires_ns = self.expiry(second);
        let terms = Terms { expires_ns, limits: limits(bits >> 20), ..Terms::rights(rights) };
        let plan = self.oracle.replaceable(process, handle, &terms).and_then(|found| {
            self.oracle.affords(self.oracle.account(process), &[&DERIVATION])?;
            Ok(found)
        });
        let request = request::Weaken { handle, terms };
        let Some(((id, badge), reply)) = self.ask(process, request, plan) else { return false };
        assert_eq!(reply, Reply::Capability(Created { handle, rights, badge }));
        let watched = self.oracle.watches.clone();
        self.oracle.drop_one(id, Why::GivenUp);
        self.oracle.replace(id, &terms, badge, process, handle);
        if rights.contains(Rights::WATCH) {
            self.oracle.watches = watched;
        }
        true
    }

    pub(super) fn wait(&mut self, ns: u8) -> bool {
        self.driver.wait(ns.into());
        self.oracle.expire(self.driver.now_ns);
        true
    }

    pub(super) fn grant(&mut self, process: usize, first: u8, second: u8, bits: u32) -> bool {
        let from = match bits % 6 {
            0 | 1 => self.pick_listed(process, first),
            2 => self.pick_opening(process, first, Kind::Queue),
            3 => self.pick_opening(process, first, Kind::Region),
            _ => self.pick(process, first, None),
        };
        let to = self.pick(process, second, Some(Kind::Process));
        let rights = self.rights(process, from, bits);
        let badge = (bits >> 28 == 0).then_some(Badge(1));
        let expires_ns = self.expiry((bits >> 16) as u8);
        let terms = Terms { rights, badge, expires_ns, limits: limits(bits >> 20) };
        let plan = self.oracle.child_of(process, from, Rights::GRANT, &terms);
        let payer = self.oracle.account(process);
        let plan = plan.and_then(|child| {
            let to = self.oracle.endow(process, to)?;
            self.oracle.affords(payer, &[&DERIVATION])?;
            self.oracle.affords(self.oracle.account(to), &[&HANDLE])?;
            Ok((child, to))
        });
        let request = request::Grant { from, to, terms };
        let Some((((parent, badge), to), reply)) = self.ask(process, request, plan) else { return false };
        let Reply::Capability(made) = reply else { panic!("a capability: {reply:?}") };
        self.oracle.child_until(parent, &terms, badge, Holder::Process(to, made.handle), payer);
        self.received(process, to, parent, made);
        true
    }

    /// Who was given something by another is told.
    pub(super) fn received(&mut self, from: usize, to: usize, parent: usize, made: Created) {
        let kind = self.oracle.kind(parent);
        let Created { handle, rights, badge } = made;
        let from = self.oracle.people[from].number;
        self.oracle.tell(to, Event::CapabilityReceived { handle, kind, rights, badge, from });
    }

    pub(super) fn revoke(&mut self, process: usize, first: u8) -> bool {
        let handle = self.pick(process, first, None);
        let plan = self.oracle.held_any(process, handle).and_then(|id| {
            self.oracle.affords(self.oracle.account(process), &[&REQUEST])?;
            Ok(id)
        });
        let Some((id, reply)) = self.ask(process, request::Revoke { handle }, plan) else { return false };
        let Reply::Revoked { count } = reply else { panic!("revoked: {reply:?}") };
        // What a revoked lane carried goes with the lane, and counts if it was itself taken back before the lane was.
        assert!(self.oracle.revoke(id, Why::Taken).contains(&count), "{count} were taken back");
        true
    }

    pub(super) fn delete(&mut self, process: usize, first: u8) -> bool {
        let handle = self.pick(process, first, None);
        let plan = self.oracle.held_any(process, handle);
        let Some((id, _)) = self.ask(process, request::Delete { handle }, plan) else { return false };
        self.oracle.delete(id);
        true
    }
}

/// Mostly none; few, so that they are reached.
fn limits(choice: u32) -> CapabilityLimits {
    CapabilityLimits {
        opens: choice.is_multiple_of(2).then_some((choice >> 1) as u16 % 3),
        ring_bytes: (choice % 16 == 1).then_some(RING_BYTES << (choice >> 4 & 1) >> (choice >> 5 & 1)),
        // Up to one more than there is.
        priority: (choice % 16 == 3).then_some((choice >> 4) as u8 % 9),
    }
}
