//! Steps with names: publishing, looking up, waiting, and rules that change.

use alloc::{string::String, vec::Vec};

use keyway_abi::{
    Badge, Denial, Event, Kind, Reply, Rights,
    request::{self, Audience},
};

use super::{
    charges::{DERIVATION, HANDLE, NAME},
    oracle::{Body, Holder},
    steps::{Duel, GROUPS, PROGRAMS, UIDS},
};
use crate::{NameRule, NameRules, Subject, tests::driver::name};

const NAMES: [&str; 3] = ["one", "two", "one.two"];

impl Duel {
    pub(super) fn publish(&mut self, process: usize, first: u8, second: u8, bits: u32) -> bool {
        let (directory, queue) =
            (self.directory(process, second), self.pick(process, first, Some(Kind::Queue)));
        let (rights, text) = (self.rights(process, queue, bits), chosen(second));
        let audience = if bits >> 31 == 0 { Audience::OwnUserAndRoot } else { Audience::Everyone };
        let plan = self.oracle.held(process, directory, Kind::Directory, Rights::PUBLISH).and_then(|_| {
            self.oracle.ruled(process, text, Rights::PUBLISH)?;
            let id = self.oracle.held(process, queue, Kind::Queue, Rights::GRANT)?;
            self.oracle.weaker(id, rights, None)?;
            if let Some(held) = self.oracle.capabilities[id].badge {
                return Err(Denial::BadgeFixed { asked: Badge(0), held });
            }
            if self.oracle.name(text).is_some() {
                return Err(Denial::NameTaken { name: name(text) });
            }
            self.oracle.affords(self.oracle.account(process), &[&HANDLE])?;
            self.oracle.affords(self.oracle.account(process), &[&HANDLE, &NAME])?;
            Ok(id)
        });
        let request = request::Publish { directory, name: name(text), queue, rights, audience };
        let Some((id, reply)) = self.ask(process, request, plan) else { return false };
        let Reply::Capability(made) = reply else { panic!("a name: {reply:?}") };
        let object = self.oracle.objects.len();
        let body = Body::Name { text, publisher: process, root: 0, target: None, audience };
        let own = self.oracle.object(body, Rights::empty(), Holder::Process(process, made.handle));
        let child = self.oracle.child(id, rights, None, Holder::Name(object));
        if let Body::Name { root, target, .. } = &mut self.oracle.objects[object] {
            (*root, *target) = (own, Some(child));
        }
        self.tell_waiters(text);
        true
    }

    /// Whoever waits for a name and may look it up now is told.
    fn tell_waiters(&mut self, text: &'static str) {
        for waiter in 0..self.oracle.people.len() {
            let may = self.oracle.ruled(waiter, text, Rights::LOOKUP).is_ok()
                && self.oracle.name_for(waiter, text).is_ok();
            if may && self.oracle.people[waiter].waits.remove(text) {
                self.oracle.tell(waiter, Event::NameAppeared { name: name(text) });
            }
        }
    }

    pub(super) fn lookup(&mut self, process: usize, first: u8, second: u8) -> bool {
        let directory = self.directory(process, second);
        let text = chosen(second);
        let payer = self.oracle.account(process);
        let on_behalf_of = (first >= 128).then(|| self.pick(process, first, Some(Kind::Process)));
        let plan = self.oracle.held(process, directory, Kind::Directory, Rights::LOOKUP).and_then(|_| {
            self.oracle.ruled(process, text, Rights::LOOKUP)?;
            let holder = match on_behalf_of {
                None => process,
                Some(handle) => self.oracle.endow(process, handle)?,
            };
            let (object, target) = self.oracle.name_for(process, text)?;
            self.oracle.weaker(target, self.oracle.capabilities[target].rights, None)?;
            let badge: &[_] = if self.oracle.has_badge(holder, object) { &[] } else { &DERIVATION };
            let other = self.oracle.account(holder);
            self.oracle.afford_both((payer, &[&DERIVATION]), (other, &[badge]))??;
            self.oracle.affords(other, &[&HANDLE])?;
            Ok((holder, object, target))
        });
        let request = request::Lookup { directory, name: name(text), on_behalf_of };
        let Some(((holder, object, target), reply)) = self.ask(process, request, plan) else { return false };
        let Reply::Capability(made) = reply else { panic!("a capability: {reply:?}") };
        let badge = made.badge.expect("a look-up fixes a badge");
        let known = *self.oracle.badges.entry((holder, object)).or_insert(badge);
        assert_eq!(known, badge, "one badge for a process and a name");
        let others = self.oracle.badges.iter().filter(|(_, other)| **other == badge);
        assert_eq!(others.count(), 1, "no two share a badge");
        let id = self.oracle.child(target, made.rights, Some(badge), Holder::Process(holder, made.handle));
        self.oracle.capabilities[id].bearer = Some(holder);
        self.oracle.capabilities[id].payer = Some(payer);
        if holder != process {
            self.received(process, holder, target, made);
        }
        true
    }

    pub(super) fn wait_name(&mut self, process: usize, second: u8) -> bool {
        let (directory, text) = (self.directory(process, second), chosen(second));
        let plan = self
            .oracle
            .held(process, directory, Kind::Directory, Rights::LOOKUP)
            .and_then(|_| self.oracle.ruled(process, text, Rights::LOOKUP));
        let request = request::WaitName { directory, name: name(text) };
        let Some(((), reply)) = self.ask(process, request, plan) else { return false };
        assert_eq!(reply, Reply::Done);
        if self.oracle.name_for(process, text).is_ok() {
            self.oracle.people[process].waits.remove(text);
            self.oracle.tell(process, Event::NameAppeared { name: name(text) });
        } else {
            self.oracle.people[process].waits.insert(text);
        }
        true
    }

    pub(super) fn forget_name(&mut self, process: usize, second: u8) -> bool {
        let text = chosen(second);
        let request = request::ForgetName { name: name(text) };
        let Some(((), reply)) = self.ask(process, request, Ok(())) else { return false };
        assert_eq!(reply, Reply::Done);
        self.oracle.people[process].waits.remove(text)
    }

    /// Other rules for names hold from now on; mostly few, often none.
    pub(super) fn set_rules(&mut self, first: u8, bits: u32) -> bool {
        let verbs = [Rights::empty(), Rights::PUBLISH, Rights::LOOKUP, NameRules::VERBS];
        let rule = |nth: u32| {
            let bits = bits.rotate_right(9 * nth);
            let subject = match bits % 8 {
                0 => Subject::Executable(String::from(PROGRAMS[bits as usize / 8 % 2])),
                1 | 2 => Subject::User(UIDS[bits as usize / 8 % 3]),
                3 | 4 => Subject::Group(GROUPS[bits as usize / 8 % 4]),
                _ => Subject::Everyone,
            };
            let prefix = String::from(["", "", "one", "o", "one.", "two"][(bits >> 5) as usize % 6]);
            let deny = if (bits >> 8).is_multiple_of(4) {
                verbs[(bits >> 10) as usize % 4]
            } else {
                Rights::empty()
            };
            NameRule { prefix, subject, allow: verbs[3 - (bits >> 12) as usize % 4], deny }
        };
        let rules: Vec<NameRule> = (0..u32::from(first % 4)).map(rule).collect();
        let effects = self.driver.kernel.set_rules(self.driver.now_ns, NameRules::new(rules.clone()));
        let effects = effects.collect();
        self.driver.run(effects);
        self.oracle.rules = rules;
        for text in NAMES {
            self.tell_waiters(text);
        }
        true
    }
}

fn chosen(choice: u8) -> &'static str {
    NAMES[usize::from(choice) % NAMES.len()]
}
