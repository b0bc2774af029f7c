//! Steps with signals, and watching for an end.

use alloc::collections::BTreeSet;

use keyway_abi::{
    Denial, Event, Handle, Kind, MaskChange, Reply, Rights, SigInfo, SignalAction, SignalCode, SignalSet,
    Taking, request,
};

use super::{
    oracle::{Body, Person},
    signals::{Aftermath, Inbox, Party, signal},
    steps::Duel,
};
use crate::{Effect, LinuxSignal};

/// Few, so that they meet: such as end, stop, continue and do nothing, and such as queue.
const CHOSEN: [u8; 16] = [1, 9, 10, 15, 17, 18, 18, 19, 20, 22, 23, 32, 33, 40, 40, 64];

impl Duel {
    /// Mostly once; sometimes as often as fills a share of a queue.
    pub(super) fn raise(&mut self, process: usize, first: u8, second: u8, bits: u32) -> bool {
        let times = if bits.is_multiple_of(23) { 20 } else { 1 };
        let handle = self.pick(process, first, Some(Kind::Process));
        let mut raised = false;
        for nth in 0..times {
            raised |= self.raise_once(process, handle, number(second), u64::from(bits) + nth);
        }
        raised
    }

    fn raise_once(&mut self, process: usize, handle: Handle, asked: i32, value: u64) -> bool {
        let plan = self.judge_raise(process, handle, asked, value);
        let request = request::Raise { process: handle, signal: asked, value };
        let Some(((to, inbox, after), reply)) = self.ask(process, request, plan) else { return false };
        assert_eq!(reply, Reply::Done);
        self.oracle.people[to].inbox = inbox;
        self.follow(to, &after);
        true
    }

    fn judge_raise(
        &self,
        process: usize,
        handle: Handle,
        asked: i32,
        value: u64,
    ) -> Result<(usize, Inbox, Aftermath), Denial> {
        let id = self.oracle.held(process, handle, Kind::Process, Rights::RAISE)?;
        let signal = signal(asked)?;
        let Body::Process(to) = self.oracle.objects[self.oracle.capabilities[id].object] else {
            panic!("a process")
        };
        if self.oracle.ended.contains(&to) {
            return Err(Denial::ProcessEnded { process: self.oracle.people[to].number });
        }
        let (from, at) = (&self.oracle.people[process], &self.oracle.people[to]);
        let (pid, uid) = (from.identity.pid, from.identity.uid);
        let info = SigInfo { signal, code: SignalCode::User, pid, uid, process: from.number, value };
        let party = |person: &Person| Party { account: person.account, uid: person.identity.uid };
        let mut inbox = at.inbox.clone();
        let after = inbox.raise(info, party(from), party(at))?;
        if after.waits {
            self.pays_for_a_request(process, ())?;
        }
        Ok((to, inbox, after))
    }

    /// The process was told, and Linux does what it must, and nothing else.
    fn follow(&mut self, process: usize, after: &Aftermath) {
        let number = self.oracle.people[process].number;
        let acts: BTreeSet<LinuxSignal> = self
            .driver
            .effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Signal { process, signal, .. } => {
                    assert_eq!(*process, number, "Linux does it to the right one");
                    Some(*signal)
                }
                _ => None,
            })
            .collect();
        assert_eq!(acts, after.acts, "what Linux does to {number}");
        if after.tell {
            self.oracle.tell(process, Event::SignalsPending);
        }
    }

    pub(super) fn set_action(&mut self, process: usize, first: u8, second: u8) -> bool {
        let action =
            [SignalAction::Default, SignalAction::Ignore, SignalAction::Handle][usize::from(second) % 3];
        // Mostly about one that is pending, because that is where an action changes most.
        let pending = SignalSet::from_bits(self.oracle.people[process].inbox.pending_bits());
        let asked = match pending.iter().nth(usize::from(first) % 4) {
            Some(signal) if first < 192 => signal.number().into(),
            _ => number(second),
        };
        let plan = signal(asked).and_then(|signal| match asked {
            9 | 19 => Err(Denial::SignalBound { signal }),
            _ => Ok(signal.number()),
        });
        let request = request::SetAction { signal: asked, action };
        let Some((signal, reply)) = self.ask(process, request, plan) else { return false };
        assert_eq!(reply, Reply::Done);
        let after = self.oracle.people[process].inbox.set_action(signal, action);
        self.follow(process, &after);
        true
    }

    pub(super) fn set_mask(&mut self, process: usize, first: u8, bits: u32) -> bool {
        let how = [MaskChange::Block, MaskChange::Unblock, MaskChange::Set][usize::from(first) % 3];
        let bits = set(bits);
        let request = request::SetMask { how, set: SignalSet::from_bits(bits) };
        let Some(((), reply)) = self.ask(process, request, Ok(())) else { return false };
        let (before, after) = self.oracle.people[process].inbox.set_mask(how, bits);
        assert_eq!(reply, Reply::Signals(SignalSet::from_bits(before)));
        self.follow(process, &after);
        true
    }

    pub(super) fn pending(&mut self, process: usize) -> bool {
        let Some(((), reply)) = self.ask(process, request::Pending {}, Ok(())) else { return false };
        let bits = self.oracle.people[process].inbox.pending_bits();
        assert_eq!(reply, Reply::Signals(SignalSet::from_bits(bits)));
        bits != 0
    }

    pub(super) fn take_signal(&mut self, process: usize, first: u8, bits: u32) -> bool {
        let (taking, handled_only) =
            if first.is_multiple_of(2) { (Taking::Any, false) } else { (Taking::Handled, true) };
        let bits = if first < 192 { u64::MAX } else { set(bits) };
        let request = request::TakeSignal { set: SignalSet::from_bits(bits), taking };
        let Some(((), reply)) = self.ask(process, request, Ok(())) else { return false };
        let expected = self.oracle.people[process].inbox.take(bits, handled_only);
        assert_eq!(reply, Reply::Signal(expected));
        expected.is_some()
    }

    pub(super) fn watch(&mut self, process: usize, first: u8) -> bool {
        let handle = self.pick(process, first, Some(Kind::Process));
        let plan = self.oracle.held(process, handle, Kind::Process, Rights::WATCH);
        let Some((id, reply)) = self.ask(process, request::Watch { process: handle }, plan) else {
            return false;
        };
        assert_eq!(reply, Reply::Done);
        let Body::Process(watched) = self.oracle.objects[self.oracle.capabilities[id].object] else {
            panic!("a process")
        };
        let watch = (process, handle, watched);
        if self.oracle.ended.contains(&watched) {
            self.oracle.tell(process, Event::ProcessEnded { process: handle });
        } else if !self.oracle.watches.contains(&watch) {
            self.oracle.watches.push(watch);
        }
        true
    }
}

/// Mostly one of the chosen ones, sometimes any, or none at all.
fn number(choice: u8) -> i32 {
    match choice {
        0..=223 => CHOSEN[usize::from(choice) % CHOSEN.len()].into(),
        224..=250 => i32::from(choice) - 190,
        251 => 0,
        252 => -1,
        253 => 256 + 10,
        254 => 65,
        255 => i32::MIN,
    }
}

/// A set of chosen signals.
fn set(bits: u32) -> u64 {
    let named = CHOSEN.iter().enumerate().filter(|(nth, _)| bits >> nth & 1 == 1);
    let named = named.fold(0, |set, (_, n)| set | 1 << (n - 1));
    if bits.is_multiple_of(13) { !named } else { named }
}
