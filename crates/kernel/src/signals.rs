//! The signals of one process: what it holds back, what it wants done, and what is pending.
//!
//! Judging changes nothing, and what is judged lawful is kept without failing, as everywhere in the kernel. A process is
//! told *that* something is pending, once, and then not before it has asked for a signal: what was not taken merges or
//! queues here, and not among the frames that wait for it.
//!
//! ```text
//!            held back? ──yes──▶ pending ──taken──▶ the process
//!  raised ──▶    no                ▲ │
//!            handled? ────yes──────┘ └──let through──▶ handled? no: as below
//!                no
//!            ignored? ────yes──▶ dropped
//!                no
//!            default action ──▶ dropped, or Linux carries it out
//! ```
//!
//! # Invariants
//! 1. `KILL` and `STOP` are never held back, handled, ignored or pending; no signal is both handled and ignored.
//! 2. Of a standard signal one is pending at most; of real-time ones [`SIGNALS_QUEUED_MAX`] at most, all together.
//! 3. What is pending is held back or handled, or waits for an action that nobody may carry out.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

use keyway_abi::{
    DefaultAction, DefaultActions, Denial, MaskChange, Payer, SigInfo, Signal, SignalAction, SignalSet,
    Taking, limits::SIGNALS_QUEUED_MAX,
};

use crate::effect::{Identity, LinuxSignal};

/// Real-time signals that one process can have queued at another.
pub(crate) const PROCESS_SHARE: u32 = SIGNALS_QUEUED_MAX / 4;
/// Real-time signals that the processes of one user can have queued at another user's process.
pub(crate) const USER_SHARE: u32 = SIGNALS_QUEUED_MAX - SIGNALS_QUEUED_MAX / 4;

/// What becomes of a signal that is raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// It is ignored.
    Drop,
    /// It becomes pending. A process that it continues goes on, whatever else is done about it.
    Keep { goes_on: bool },
    /// One is pending already, and this is it.
    Merge { goes_on: bool },
    /// Linux carries its default action out.
    Act(LinuxSignal),
}

/// What a change leads to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Consequences {
    /// Whether the process is to be told that something is pending.
    pub(crate) tell: bool,
    /// What Linux is to do.
    pub(crate) acts: BTreeSet<LinuxSignal>,
}

/// A real-time signal that waits.
#[derive(Debug)]
struct Queued {
    info: SigInfo,
    /// Whose share it is of.
    account: (u64, u64),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    default_actions: DefaultActions,
    mask: SignalSet,
    handled: SignalSet,
    ignored: SignalSet,
    standard: BTreeMap<Signal, SigInfo>,
    /// No queue in it is empty.
    real_time: BTreeMap<Signal, VecDeque<Queued>>,
    /// Whether it was told that something is pending, and has asked for nothing since.
    told: bool,
}

impl Signals {
    pub(crate) fn new(default_actions: DefaultActions) -> Self {
        Signals { default_actions, ..Signals::default() }
    }

    /// What is pending.
    pub(crate) fn pending(&self) -> SignalSet {
        self.standard.keys().chain(self.real_time.keys()).copied().collect()
    }

    /// What becomes of a signal that `from` raises at this process, which is `at`.
    pub(crate) fn judge(&self, signal: Signal, from: &Identity, at: &Identity) -> Result<Course, Denial> {
        let accepted = self.default_actions == DefaultActions::Accepted;
        let goes_on = accepted && signal == Signal::CONT;
        if self.mask.contains(signal) || self.handled.contains(signal) {
            if self.standard.contains_key(&signal) {
                return Ok(Course::Merge { goes_on });
            }
            if signal.is_real_time() {
                self.check_room(from, at)?;
            }
            return Ok(Course::Keep { goes_on });
        }
        match act_of(signal) {
            Some(act) if goes_on => Ok(Course::Act(act)),
            None => Ok(Course::Drop),
            Some(_) if self.ignored.contains(signal) => Ok(Course::Drop),
            Some(act) if accepted => Ok(Course::Act(act)),
            Some(_) => Err(Denial::Unsupported { signal }),
        }
    }

    /// Whether `from` leaves room for others: a process has a quarter, a user that is not the receiver's three quarters. A
    /// process that raises at itself has all.
    fn check_room(&self, from: &Identity, at: &Identity) -> Result<(), Denial> {
        let queued = || self.real_time.values().flatten();
        let full = |count: usize, of, max: u32| {
            if count >= max as usize { Err(Denial::SignalQueueFull { of, max }) } else { Ok(()) }
        };
        full(queued().count(), Payer::Everyone, SIGNALS_QUEUED_MAX)?;
        if from.account != at.account {
            let own = queued().filter(|queued| queued.account == from.account).count();
            full(own, Payer::Process, PROCESS_SHARE)?;
        }
        if from.uid != at.uid {
            let of_user = queued().filter(|queued| queued.info.uid == from.uid).count();
            full(of_user, Payer::User, USER_SHARE)?;
        }
        Ok(())
    }

    /// Does what was judged.
    pub(crate) fn commit(&mut self, course: Course, info: SigInfo, from: &Identity) -> Consequences {
        let mut consequences = Consequences::default();
        self.cancel_opposites(info.signal);
        match course {
            Course::Act(act) => drop(consequences.acts.insert(act)),
            Course::Merge { goes_on } | Course::Keep { goes_on } if goes_on => {
                consequences.acts.insert(LinuxSignal::Continue);
            }
            Course::Drop | Course::Merge { .. } | Course::Keep { .. } => {}
        }
        if let Course::Keep { .. } = course {
            if info.signal.is_real_time() {
                let queued = Queued { info, account: from.account };
                self.real_time.entry(info.signal).or_default().push_back(queued);
            } else {
                self.standard.insert(info.signal, info);
            }
            consequences.tell = !self.told;
            self.told = true;
        }
        consequences
    }

    /// Takes the first pending signal of the set.
    pub(crate) fn take(&mut self, set: SignalSet, taking: Taking) -> Option<SigInfo> {
        self.told = false;
        let set = match taking {
            Taking::Any => set,
            Taking::Handled => set.intersection(self.deliverable()),
        };
        // Numbers of standard signals are lower than all others.
        let first = self.pending().intersection(set).iter().next()?;
        match self.standard.remove(&first) {
            Some(info) => Some(info),
            None => self.take_real_time(first),
        }
    }

    /// Chooses what is done about a signal that is not bound.
    pub(crate) fn set_action(&mut self, signal: Signal, action: SignalAction) -> Consequences {
        let before = self.deliverable();
        self.handled = self.handled.without(signal);
        self.ignored = self.ignored.without(signal);
        match action {
            SignalAction::Handle => self.handled = self.handled.with(signal),
            SignalAction::Ignore => self.ignored = self.ignored.with(signal),
            SignalAction::Default => {}
        }
        if action == SignalAction::Ignore || action == SignalAction::Default && act_of(signal).is_none() {
            self.discard(signal);
        }
        self.settle(before)
    }

    /// Changes what is held back. Returns what was.
    pub(crate) fn set_mask(&mut self, how: MaskChange, set: SignalSet) -> (SignalSet, Consequences) {
        let (mask, before) = (self.mask, self.deliverable());
        let changed = match how {
            MaskChange::Block => mask.union(set),
            MaskChange::Unblock => mask.difference(set),
            MaskChange::Set => set,
        };
        self.mask = changed.difference(SignalSet::BOUND);
        (mask, self.settle(before))
    }

    /// What is pending and would go to a handler.
    fn deliverable(&self) -> SignalSet {
        self.pending().difference(self.mask).intersection(self.handled)
    }

    /// What is let through now, and was not before, goes its way.
    fn settle(&mut self, deliverable_before: SignalSet) -> Consequences {
        let mut consequences = Consequences::default();
        let astray = self.pending().difference(self.mask).difference(self.handled);
        for signal in astray.iter() {
            match act_of(signal).filter(|_| !self.ignored.contains(signal)) {
                None => self.discard(signal),
                Some(act) if self.default_actions == DefaultActions::Accepted => {
                    self.discard(signal);
                    consequences.acts.insert(act);
                }
                // Nobody may carry it out, and whoever raised it was told that it is pending.
                Some(_) => {}
            }
        }
        if !self.deliverable().difference(deliverable_before).is_empty() {
            consequences.tell = !self.told;
            self.told = true;
        }
        consequences
    }

    /// What stops and what continues do not wait together.
    fn cancel_opposites(&mut self, signal: Signal) {
        match signal.default_action() {
            DefaultAction::Stop => self.discard(Signal::CONT),
            DefaultAction::Continue => {
                self.standard.retain(|pending, _| pending.default_action() != DefaultAction::Stop);
            }
            DefaultAction::Terminate | DefaultAction::Ignore => {}
        }
    }

    fn take_real_time(&mut self, signal: Signal) -> Option<SigInfo> {
        let queue = self.real_time.get_mut(&signal)?;
        let first = queue.pop_front();
        if queue.is_empty() {
            self.real_time.remove(&signal);
        }
        first.map(|queued| queued.info)
    }

    fn discard(&mut self, signal: Signal) {
        self.standard.remove(&signal);
        self.real_time.remove(&signal);
    }

    /// Checks the module's invariants.
    pub(crate) fn audit(&self) {
        let chosen = self.mask.union(self.handled).union(self.ignored).union(self.pending());
        assert!(chosen.intersection(SignalSet::BOUND).is_empty(), "signals invariant 1: bound signals");
        assert!(self.handled.intersection(self.ignored).is_empty(), "signals invariant 1: one action");
        let right = |signal: &Signal, info: &SigInfo| info.signal == *signal;
        assert!(
            self.standard.iter().all(|(signal, info)| right(signal, info) && !signal.is_real_time()),
            "signals invariant 2: standard signals"
        );
        for (signal, queue) in &self.real_time {
            assert!(signal.is_real_time() && !queue.is_empty(), "signals invariant 2: a queue waits");
            assert!(queue.iter().all(|queued| right(signal, &queued.info)), "signals invariant 2: a queue");
        }
        let queued = self.real_time.values().flatten().count();
        assert!(queued <= SIGNALS_QUEUED_MAX as usize, "signals invariant 2: real-time signals");
        let astray = self.pending().difference(self.mask).difference(self.handled);
        let stuck = self.default_actions == DefaultActions::Refused;
        let acts = |signal: Signal| act_of(signal).is_some() && !self.ignored.contains(signal);
        assert!(astray.iter().all(|signal| stuck && acts(signal)), "signals invariant 3");
    }

    pub(crate) fn is_untouched(&self) -> bool {
        self.mask.union(self.handled).union(self.ignored).union(self.pending()).is_empty()
    }
}

/// What Linux does by default, if anything.
fn act_of(signal: Signal) -> Option<LinuxSignal> {
    match signal.default_action() {
        DefaultAction::Terminate if signal == Signal::KILL => Some(LinuxSignal::Kill),
        DefaultAction::Terminate => Some(LinuxSignal::Terminate),
        DefaultAction::Stop => Some(LinuxSignal::Stop),
        DefaultAction::Continue => Some(LinuxSignal::Continue),
        DefaultAction::Ignore => None,
    }
}

#[cfg(test)]
mod tests;
