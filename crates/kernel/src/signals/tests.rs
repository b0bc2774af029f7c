//! The signals of one process against a flat list that does the same naively.

use alloc::{string::String, vec::Vec};

use keyway_abi::{ProcessNumber, SignalCode};
use proptest::prelude::*;

use super::*;

fn identity(pid: u32, uid: u32) -> Identity {
    Identity {
        pid,
        uid,
        gid: uid,
        groups: alloc::vec![],
        executable: String::new(),
        account: (pid.into(), 0),
    }
}

fn signal(number: u8) -> Signal {
    Signal::new(number).unwrap()
}

fn info(signal: Signal, from: &Identity, value: u64) -> SigInfo {
    let process = ProcessNumber(from.pid.into());
    SigInfo { signal, code: SignalCode::User, pid: from.pid, uid: from.uid, process, value }
}

/// Everything that is pending in the order in which it was raised; all rules as loops over it.
#[derive(Debug)]
struct Naive {
    accepts: bool,
    blocked: [bool; 65],
    actions: [SignalAction; 65],
    pending: Vec<(u8, u64)>,
    told: bool,
}

/// What the naive one says of a raise.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Unsupported,
    Full,
    Lawful,
}

impl Naive {
    fn new(accepts: bool) -> Self {
        let actions = [SignalAction::Default; 65];
        Naive { accepts, blocked: [false; 65], actions, pending: Vec::new(), told: false }
    }

    fn does(number: u8) -> &'static str {
        match number {
            17 | 23 | 28 => "nothing",
            18 => "continue",
            19..=22 => "stop",
            9 => "kill",
            _ => "terminate",
        }
    }

    fn raise(&mut self, number: u8, value: u64, acts: &mut Vec<&'static str>) -> Said {
        let waits = self.blocked[number as usize] || self.actions[number as usize] == SignalAction::Handle;
        let there = self.pending.iter().any(|(pending, _)| *pending == number);
        let ignored = self.actions[number as usize] == SignalAction::Ignore;
        let does = Self::does(number);
        let nothing = does == "nothing" || ignored;
        if !waits && !nothing && !self.accepts {
            return Said::Unsupported;
        }
        if waits && number >= 32 && self.pending.iter().filter(|(number, _)| *number >= 32).count() == 64 {
            return Said::Full;
        }
        match does {
            "stop" => self.pending.retain(|(pending, _)| *pending != 18),
            "continue" => self.pending.retain(|(pending, _)| Self::does(*pending) != "stop"),
            _ => {}
        }
        if self.accepts && (does == "continue" || !waits && !nothing) {
            acts.push(does);
        }
        if waits && (number >= 32 || !there) {
            self.pending.push((number, value));
        }
        Said::Lawful
    }

    fn deliverable(&self) -> Vec<u8> {
        let handled = |number: &u8| {
            !self.blocked[*number as usize] && self.actions[*number as usize] == SignalAction::Handle
        };
        self.pending.iter().map(|(number, _)| *number).filter(handled).collect()
    }

    fn let_through(&mut self, acts: &mut Vec<&'static str>) {
        for number in 1..=64 {
            let there = self.pending.iter().any(|(pending, _)| *pending == number);
            let action = self.actions[number as usize];
            if !there || self.blocked[number as usize] || action == SignalAction::Handle {
                continue;
            }
            let nothing = action == SignalAction::Ignore || Self::does(number) == "nothing";
            if nothing || self.accepts {
                self.pending.retain(|(pending, _)| *pending != number);
            }
            if !nothing && self.accepts && !acts.contains(&Self::does(number)) {
                acts.push(Self::does(number));
            }
        }
    }

    fn set_action(&mut self, number: u8, action: SignalAction, acts: &mut Vec<&'static str>) {
        self.actions[number as usize] = action;
        let nothing = action == SignalAction::Default && Self::does(number) == "nothing";
        let drops = action == SignalAction::Ignore || nothing;
        self.pending.retain(|(pending, _)| !drops || *pending != number);
        self.let_through(acts);
    }

    fn set_mask(&mut self, how: MaskChange, set: SignalSet, acts: &mut Vec<&'static str>) {
        for number in (1..=64).filter(|number| ![9, 19].contains(number)) {
            let named = set.contains(signal(number));
            let blocked = &mut self.blocked[number as usize];
            *blocked = match how {
                MaskChange::Block => *blocked || named,
                MaskChange::Unblock => *blocked && !named,
                MaskChange::Set => named,
            };
        }
        self.let_through(acts);
    }

    fn take(&mut self, set: SignalSet, handled: bool) -> Option<(u8, u64)> {
        self.told = false;
        let deliverable = self.deliverable();
        let fits = |number: u8| set.contains(signal(number)) && (!handled || deliverable.contains(&number));
        let lowest = self.pending.iter().map(|(number, _)| *number).filter(|number| fits(*number)).min()?;
        let at = self.pending.iter().position(|(number, _)| *number == lowest)?;
        Some(self.pending.remove(at))
    }
}

fn names(acts: &BTreeSet<LinuxSignal>) -> Vec<&'static str> {
    let name = |act: &LinuxSignal| match act {
        LinuxSignal::Terminate => "terminate",
        LinuxSignal::Kill => "kill",
        LinuxSignal::Stop => "stop",
        LinuxSignal::Continue => "continue",
    };
    acts.iter().map(name).collect()
}

/// One step: what, a signal, a set.
type Step = (u8, u8, u64);

fn run(accepts: bool, steps: &[Step]) {
    let accepted = if accepts { DefaultActions::Accepted } else { DefaultActions::Refused };
    let (mut signals, mut naive) = (Signals::new(accepted), Naive::new(accepts));
    let own = identity(7, 1000);
    for (value, (what, number, bits)) in (0..).zip(steps) {
        let number = number % 64 + 1;
        // Few signals, so that they meet.
        let number = if bits % 3 == 0 { number } else { [9, 10, 17, 18, 20, 40, 41][number as usize % 7] };
        let mut expected = Vec::new();
        let was_deliverable = naive.deliverable();
        let (mut acts, mut tell) = (BTreeSet::new(), false);
        let mut is_new = false;
        match what % 8 {
            0..=2 => {
                let before = naive.pending.len();
                let said = naive.raise(number, value, &mut expected);
                let kept = naive.pending.iter().any(|(_, found)| *found == value);
                is_new = kept || naive.pending.len() > before;
                match signals.judge(signal(number), &own, &own) {
                    Err(Denial::Unsupported { .. }) => assert_eq!(said, Said::Unsupported),
                    Err(denial) => assert_eq!(said, Said::Full, "{denial}"),
                    Ok(course) => {
                        assert_eq!(said, Said::Lawful);
                        let info = info(signal(number), &own, value);
                        Consequences { acts, tell } = signals.commit(course, info, &own);
                    }
                }
            }
            3 if !signal(number).is_bound() => {
                let action = [SignalAction::Default, SignalAction::Ignore, SignalAction::Handle]
                    [(bits >> 8) as usize % 3];
                naive.set_action(number, action, &mut expected);
                Consequences { acts, tell } = signals.set_action(signal(number), action);
            }
            4 | 5 => {
                let how = [MaskChange::Block, MaskChange::Unblock, MaskChange::Set][(bits >> 8) as usize % 3];
                let set = SignalSet::from_bits(bits.rotate_left(20) | 1 << (number - 1));
                naive.set_mask(how, set, &mut expected);
                (_, Consequences { acts, tell }) = signals.set_mask(how, set);
            }
            _ => {
                let handled = bits % 2 == 0;
                let set = if bits % 5 == 0 { signal(number).into() } else { SignalSet::ALL };
                let taking = if handled { Taking::Handled } else { Taking::Any };
                let taken = signals.take(set, taking).map(|info| (info.signal.number(), info.value));
                assert_eq!(taken, naive.take(set, handled));
            }
        }
        is_new |= naive.deliverable().iter().any(|number| !was_deliverable.contains(number));
        let expected_tell = is_new && !naive.told;
        naive.told |= is_new;
        assert_eq!(tell, expected_tell, "told of {naive:?}");
        expected.sort_unstable_by_key(|name| {
            ["terminate", "kill", "stop", "continue"].iter().position(|known| known == name)
        });
        assert_eq!(names(&acts), expected);
        let pending: SignalSet = naive.pending.iter().map(|(number, _)| signal(*number)).collect();
        assert_eq!(signals.pending(), pending);
        signals.audit();
    }
    while let Some(info) = signals.take(SignalSet::ALL, Taking::Any) {
        assert_eq!(Some((info.signal.number(), info.value)), naive.take(SignalSet::ALL, false));
    }
    assert_eq!(naive.pending, []);
}

proptest! {
    #[test]
    fn signals_do_what_a_flat_list_says(
        accepts in any::<bool>(),
        steps in prop::collection::vec(any::<Step>(), 1..200),
    ) {
        run(accepts, &steps);
    }
}

#[test]
fn one_sender_leaves_room_for_others_and_one_user_for_other_users() {
    let mut signals = Signals::default();
    let at = identity(1, 1000);
    signals.set_mask(MaskChange::Set, SignalSet::ALL);
    let raise = |signals: &mut Signals, from: &Identity| {
        let course = signals.judge(signal(40), from, &at)?;
        signals.commit(course, info(signal(40), from, 0), from);
        Ok(())
    };
    let full = |of, max| Err(Denial::SignalQueueFull { of, max });
    for pid in 2..5 {
        let stranger = identity(pid, 2000);
        for _ in 0..PROCESS_SHARE {
            assert_eq!(raise(&mut signals, &stranger), Ok(()));
        }
        let own_share = full(Payer::Process, PROCESS_SHARE);
        assert_eq!(raise(&mut signals, &stranger), own_share);
    }
    assert_eq!(raise(&mut signals, &identity(5, 2000)), full(Payer::User, USER_SHARE));
    for _ in 0..SIGNALS_QUEUED_MAX - USER_SHARE {
        assert_eq!(raise(&mut signals, &at), Ok(()));
    }
    let all = full(Payer::Everyone, SIGNALS_QUEUED_MAX);
    assert_eq!(raise(&mut signals, &at), all);
    signals.take(SignalSet::ALL, Taking::Any);
    assert_eq!(raise(&mut signals, &at), Ok(()), "one was taken");
    signals.audit();
}

#[test]
#[should_panic(expected = "signals invariant 3")]
fn an_audit_finds_an_ignored_signal_that_waits() {
    let mut signals = Signals { ignored: SignalSet::default().with(Signal::TERM), ..Signals::default() };
    assert!(!signals.is_untouched());
    signals.standard.insert(Signal::TERM, info(Signal::TERM, &identity(1, 1), 0));
    signals.audit();
}

#[test]
fn whoever_has_chosen_nothing_has_nothing_pending_and_holds_nothing_back() {
    let mut signals = Signals::new(DefaultActions::Refused);
    assert!(signals.is_untouched());
    signals.set_mask(MaskChange::Set, SignalSet::default().with(Signal::TERM));
    assert!(!signals.is_untouched());
}
