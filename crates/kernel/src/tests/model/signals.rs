//! What must become of signals, as one list of what is pending and two lookups by number.

use alloc::{collections::BTreeSet, vec::Vec};

use keyway_abi::{Denial, MaskChange, Payer, SigInfo, Signal, SignalAction, limits::SIGNALS_QUEUED_MAX};

use crate::LinuxSignal;

/// The signals of one process. Arrays are by number; place 0 stands for nothing.
#[derive(Clone, Debug)]
pub(super) struct Inbox {
    accepts: bool,
    mask: [bool; 65],
    actions: [SignalAction; 65],
    /// In the order in which they came, each with whose it is.
    pending: Vec<(SigInfo, usize)>,
    told: bool,
}

/// Who raises, or at whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Party {
    pub(super) account: usize,
    pub(super) uid: u32,
}

/// What follows.
#[derive(Debug, Default)]
pub(super) struct Aftermath {
    pub(super) tell: bool,
    pub(super) acts: BTreeSet<LinuxSignal>,
    /// Whether who raised it hears from Linux how that went.
    pub(super) waits: bool,
}

impl Inbox {
    pub(super) fn new(accepts: bool) -> Self {
        let (mask, actions) = ([false; 65], [SignalAction::Default; 65]);
        Inbox { accepts, mask, actions, pending: Vec::new(), told: false }
    }

    pub(super) fn raise(&mut self, info: SigInfo, from: Party, at: Party) -> Result<Aftermath, Denial> {
        let n = info.signal.number();
        let (action, default) = (self.actions[usize::from(n)], default_of(n));
        let waits_here = self.mask[usize::from(n)] || action == SignalAction::Handle;
        let continues = n == 18 && self.accepts;
        let was_pending = self.has(n);
        if waits_here && n >= 32 {
            self.check_room(from, at)?;
        }
        let acts_by_default = default.filter(|_| action != SignalAction::Ignore);
        if !waits_here && !continues && !self.accepts && acts_by_default.is_some() {
            return Err(Denial::Unsupported { signal: info.signal });
        }
        if stops(n) {
            self.pending.retain(|(other, _)| other.signal.number() != 18);
        }
        if n == 18 {
            self.pending.retain(|(other, _)| !stops(other.signal.number()));
        }
        let mut after = Aftermath::default();
        if continues {
            after.acts.insert(LinuxSignal::Continue);
            after.waits = !waits_here;
        }
        if waits_here {
            if n >= 32 || !was_pending {
                self.pending.push((info, from.account));
                after.tell = self.tell();
            }
        } else if let Some(act) = acts_by_default {
            after.acts.insert(act);
            after.waits = true;
        }
        Ok(after)
    }

    /// Of 64 in all, one process has 16 at another and one user 48 at another's.
    fn check_room(&self, from: Party, at: Party) -> Result<(), Denial> {
        let queued = || self.pending.iter().filter(|(info, _)| info.signal.number() >= 32);
        let full = |of, max| Err(Denial::SignalQueueFull { of, max });
        if queued().count() >= SIGNALS_QUEUED_MAX as usize {
            return full(Payer::Everyone, SIGNALS_QUEUED_MAX);
        }
        if from.account != at.account && queued().filter(|(_, of)| *of == from.account).count() >= 16 {
            return full(Payer::Process, 16);
        }
        if from.uid != at.uid && queued().filter(|(info, _)| info.uid == from.uid).count() >= 48 {
            return full(Payer::User, 48);
        }
        Ok(())
    }

    pub(super) fn set_action(&mut self, n: u8, action: SignalAction) -> Aftermath {
        let before = self.for_handlers();
        self.actions[usize::from(n)] = action;
        let dropped = match action {
            SignalAction::Ignore => true,
            SignalAction::Default => default_of(n).is_none(),
            SignalAction::Handle => false,
        };
        if dropped {
            self.drop_all(n);
        }
        self.let_through(&before)
    }

    /// The bits are those of the set: the lowest is the signal 1.
    pub(super) fn set_mask(&mut self, how: MaskChange, bits: u64) -> (u64, Aftermath) {
        let before = self.for_handlers();
        let mut old = 0;
        for n in 1..=64_u8 {
            let (named, held) = (bits >> (n - 1) & 1 == 1, &mut self.mask[usize::from(n)]);
            old |= u64::from(*held) << (n - 1);
            *held = match how {
                MaskChange::Block => *held || named,
                MaskChange::Unblock => *held && !named,
                MaskChange::Set => named,
            };
        }
        (self.mask[9], self.mask[19]) = (false, false);
        (old, self.let_through(&before))
    }

    pub(super) fn pending_bits(&self) -> u64 {
        self.pending.iter().fold(0, |bits, (info, _)| bits | 1 << (info.signal.number() - 1))
    }

    pub(super) fn take(&mut self, bits: u64, handled_only: bool) -> Option<SigInfo> {
        self.told = false;
        for n in 1..=64_u8 {
            let wanted = bits >> (n - 1) & 1 == 1 && (!handled_only || self.goes_to_a_handler(n));
            let first = self.pending.iter().position(|(info, _)| info.signal.number() == n);
            if let (true, Some(first)) = (wanted, first) {
                return Some(self.pending.remove(first).0);
            }
        }
        None
    }

    fn has(&self, n: u8) -> bool {
        self.pending.iter().any(|(info, _)| info.signal.number() == n)
    }

    fn goes_to_a_handler(&self, n: u8) -> bool {
        !self.mask[usize::from(n)] && self.actions[usize::from(n)] == SignalAction::Handle
    }

    fn for_handlers(&self) -> Vec<u8> {
        (1..=64).filter(|n| self.has(*n) && self.goes_to_a_handler(*n)).collect()
    }

    fn drop_all(&mut self, n: u8) {
        self.pending.retain(|(info, _)| info.signal.number() != n);
    }

    fn tell(&mut self) -> bool {
        !core::mem::replace(&mut self.told, true)
    }

    /// What was held back and is not any more, or has another action now, goes its way.
    fn let_through(&mut self, before: &[u8]) -> Aftermath {
        let mut after = Aftermath::default();
        for n in 1..=64_u8 {
            let action = self.actions[usize::from(n)];
            if !self.has(n) || self.mask[usize::from(n)] || action == SignalAction::Handle {
                continue;
            }
            match default_of(n) {
                Some(act) if action == SignalAction::Default => {
                    if self.accepts {
                        after.acts.insert(act);
                        self.drop_all(n);
                    }
                }
                _ => self.drop_all(n),
            }
        }
        if self.for_handlers().iter().any(|n| !before.contains(n)) {
            after.tell = self.tell();
        }
        after
    }
}

fn stops(n: u8) -> bool {
    (19..=22).contains(&n)
}

/// What Linux does of itself: `signal(7)`.
fn default_of(n: u8) -> Option<LinuxSignal> {
    match n {
        9 => Some(LinuxSignal::Kill),
        17 | 23 | 28 => None,
        18 => Some(LinuxSignal::Continue),
        _ if stops(n) => Some(LinuxSignal::Stop),
        _ => Some(LinuxSignal::Terminate),
    }
}

/// The signal of a number that may be none.
pub(super) fn signal(asked: i32) -> Result<Signal, Denial> {
    let lawful = u8::try_from(asked).ok().filter(|n| (1..=64).contains(n)).and_then(Signal::new);
    lawful.ok_or(Denial::InvalidSignal { asked })
}
