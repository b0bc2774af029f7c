//! Signals: who may raise them, what becomes of them, and what a process that does not look is spared.

use alloc::{vec, vec::Vec};

use keyway_abi::{
    DefaultActions, Denial, Event, Handle, Kind, MaskChange, Payer, Reply, Rights, SigInfo, Signal,
    SignalAction, SignalCode, SignalSet, Taking, Terms, limits::SIGNALS_QUEUED_MAX, request,
};

use super::driver::{Driver, HELLO, Who};
use crate::{Effect, LinuxSignal, Refusal, object::ProcessObject};

const EPERM: i32 = 1;
const ESRCH: i32 = 3;
const ENOMEM: i32 = 12;

fn raise(process: Handle, signal: Signal, value: u64) -> request::Raise {
    request::Raise { process, signal: signal.number().into(), value }
}

fn set_action(signal: Signal, action: SignalAction) -> request::SetAction {
    request::SetAction { signal: signal.number().into(), action }
}

const TAKE: request::TakeSignal = request::TakeSignal { set: SignalSet::ALL, taking: Taking::Any };
const TAKE_HANDLED: request::TakeSignal =
    request::TakeSignal { set: SignalSet::ALL, taking: Taking::Handled };

fn real_time(number: u8) -> Signal {
    Signal::new(number).unwrap()
}

/// A raiser, a target, and the raiser's capability to it.
fn pair(driver: &mut Driver) -> (Who, Who, Handle) {
    pair_of(driver, DefaultActions::Refused)
}

fn pair_of(driver: &mut Driver, default_actions: DefaultActions) -> (Who, Who, Handle) {
    let a = driver.connect();
    let b = connect(driver, default_actions);
    let process = driver.introduce(b, a, Rights::RAISE);
    (a, b, process)
}

fn connect(driver: &mut Driver, default_actions: DefaultActions) -> Who {
    let identity = driver.identity(1000);
    let number = driver.arrive(identity);
    match driver.ask(number, request::Hello { default_actions, ..HELLO }) {
        Reply::Welcome(start) => Who { number, own: start.own.unwrap(), directory: start.directory.unwrap() },
        other => panic!("a hello is welcome: {other:?}"),
    }
}

fn mask(driver: &mut Driver, who: Who, how: MaskChange, set: SignalSet) -> SignalSet {
    match driver.ask(who.number, request::SetMask { how, set }) {
        Reply::Signals(before) => before,
        other => panic!("a mask: {other:?}"),
    }
}

fn take(driver: &mut Driver, who: Who, request: request::TakeSignal) -> Option<SigInfo> {
    match driver.ask(who.number, request) {
        Reply::Signal(taken) => taken,
        other => panic!("a signal or none: {other:?}"),
    }
}

fn pending(driver: &mut Driver, who: Who) -> SignalSet {
    match driver.ask(who.number, request::Pending {}) {
        Reply::Signals(pending) => pending,
        other => panic!("a set: {other:?}"),
    }
}

/// What Linux was told to do by the last input.
fn acts(driver: &Driver) -> Vec<LinuxSignal> {
    let acts = driver.effects.iter().filter_map(|effect| match effect {
        Effect::Signal { signal, .. } => Some(*signal),
        _ => None,
    });
    acts.collect()
}

fn values(driver: &mut Driver, who: Who) -> Vec<(u8, u64)> {
    let mut all = Vec::new();
    while let Some(info) = take(driver, who, TAKE) {
        all.push((info.signal.number(), info.value));
    }
    all
}

#[test]
fn a_signal_says_who_raised_it_and_what_the_sender_chose() {
    let mut driver = Driver::new();
    let (a, b, process) = pair(&mut driver);
    driver.done(b.number, set_action(Signal::USR1, SignalAction::Handle));
    driver.done(a.number, raise(process, Signal::USR1, 77));
    assert_eq!(driver.events(b.number), [Event::SignalsPending]);
    let sender = driver.kernel.process(a.number).identity.clone().unwrap();
    let expected = SigInfo {
        signal: Signal::USR1,
        code: SignalCode::User,
        pid: sender.pid,
        uid: sender.uid,
        process: a.number,
        value: 77,
    };
    assert_eq!(take(&mut driver, b, TAKE_HANDLED), Some(expected));
    assert_eq!(take(&mut driver, b, TAKE_HANDLED), None, "delivered once");
    driver.finish();
}

#[test]
fn only_who_holds_the_right_raises() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let watch = driver.introduce(b, a, Rights::WATCH);
    let missing = Denial::MissingRights { handle: watch, needed: Rights::RAISE, held: Rights::WATCH };
    assert_eq!(driver.denied(a.number, raise(watch, Signal::USR1, 0)), missing);
    let region = driver.region(a);
    let wrong = Denial::WrongKind { handle: region, needed: Kind::Process, found: Kind::Region };
    assert_eq!(driver.denied(a.number, raise(region, Signal::USR1, 0)), wrong);
    let unknown = Denial::UnknownHandle { handle: Handle::NONE };
    assert_eq!(driver.denied(a.number, raise(Handle::NONE, Signal::USR1, 0)), unknown);
    let held = driver.introduce(b, a, Rights::RAISE | Rights::DERIVE);
    let derive = request::Derive { from: held, terms: Terms::rights(Rights::RAISE) };
    let derived = driver.made(a.number, derive).handle;
    driver.done(b.number, set_action(Signal::USR1, SignalAction::Handle));
    driver.done(a.number, raise(derived, Signal::USR1, 0));
    driver.ask(a.number, request::Revoke { handle: held });
    let stale = Denial::StaleHandle { handle: derived };
    assert_eq!(driver.denied(a.number, raise(derived, Signal::USR1, 0)), stale);
    assert!(ProcessObject::CHILD.contains(Rights::RAISE), "a starter raises at its child");
    assert!(!ProcessObject::PEER.contains(Rights::RAISE), "a receiver does not raise at its senders");
    driver.finish();
}

#[test]
fn a_number_that_is_no_signal_is_refused_and_changes_nothing() {
    let mut driver = Driver::new();
    let (a, _, process) = pair(&mut driver);
    for asked in [0, 65, -1, 256 + 10, i32::MAX, i32::MIN] {
        let request = request::Raise { process, signal: asked, value: 0 };
        assert_eq!(driver.denied(a.number, request), Denial::InvalidSignal { asked });
        let request = request::SetAction { signal: asked, action: SignalAction::Handle };
        assert_eq!(driver.denied(a.number, request), Denial::InvalidSignal { asked });
    }
    driver.finish();
}

#[test]
fn kill_and_stop_are_neither_handled_nor_ignored_nor_held_back() {
    let mut driver = Driver::new();
    let (a, b, process) = pair_of(&mut driver, DefaultActions::Accepted);
    for signal in [Signal::KILL, Signal::STOP] {
        for action in [SignalAction::Default, SignalAction::Ignore, SignalAction::Handle] {
            let denial = driver.denied(b.number, set_action(signal, action));
            assert_eq!(denial, Denial::SignalBound { signal });
        }
    }
    mask(&mut driver, b, MaskChange::Set, SignalSet::ALL);
    let held_back = mask(&mut driver, b, MaskChange::Block, SignalSet::ALL);
    assert_eq!(held_back, SignalSet::ALL.difference(SignalSet::BOUND));
    driver.done(a.number, raise(process, Signal::KILL, 0));
    assert_eq!(acts(&driver), [LinuxSignal::Kill]);
    driver.done(a.number, raise(process, Signal::STOP, 0));
    assert_eq!(acts(&driver), [LinuxSignal::Stop]);
    assert_eq!(pending(&mut driver, b), SignalSet::EMPTY);
    driver.finish();
}

#[test]
fn default_actions_reach_only_a_process_that_accepts_them() {
    let mut driver = Driver::new();
    let (a, _, refuses) = pair(&mut driver);
    let b = connect(&mut driver, DefaultActions::Accepted);
    let accepts = driver.introduce(b, a, Rights::RAISE);
    for signal in SignalSet::ALL.iter() {
        let expected = match signal.number() {
            17 | 23 | 28 => None,
            9 => Some(LinuxSignal::Kill),
            18 => Some(LinuxSignal::Continue),
            19..=22 => Some(LinuxSignal::Stop),
            _ => Some(LinuxSignal::Terminate),
        };
        driver.done(a.number, raise(accepts, signal, 0));
        assert_eq!(acts(&driver), expected.into_iter().collect::<Vec<_>>(), "{signal}");
        if expected.is_none() {
            driver.done(a.number, raise(refuses, signal, 0));
        } else {
            let denial = driver.denied(a.number, raise(refuses, signal, 0));
            assert_eq!(denial, Denial::Unsupported { signal });
        }
    }
    driver.finish();
}

#[test]
fn who_raises_hears_what_linux_answered() {
    let mut driver = Driver::new();
    let (a, b, process) = pair_of(&mut driver, DefaultActions::Accepted);
    let signal = Signal::TERM;
    let outcomes = [
        (Ok(()), Reply::Done),
        (Err(EPERM), Reply::Denied(Denial::Unsupported { signal })),
        (Err(ESRCH), Reply::Denied(Denial::ProcessEnded { process: b.number })),
        (Err(ENOMEM), Reply::Denied(Denial::SystemRefused { errno: ENOMEM })),
    ];
    driver.hold = true;
    for (outcome, expected) in outcomes {
        let call = driver.post(a.number, raise(process, signal, 0));
        assert_eq!(driver.reply_to(a.number, call), None, "not before Linux has answered");
        driver.answer_next(outcome.map_err(Refusal::System));
        assert_eq!(driver.reply_to(a.number, call), Some(expected));
    }
    let call = driver.post(a.number, raise(process, signal, 0));
    driver.end(a.number);
    driver.answer_next(Ok(()));
    assert_eq!(driver.reply_to(a.number, call), None, "who has ended hears nothing");
    driver.hold = false;
    driver.finish();
}

#[test]
fn a_process_that_is_gone_or_has_not_spoken_is_not_there() {
    let mut driver = Driver::new();
    let (a, b, process) = pair_of(&mut driver, DefaultActions::Accepted);
    let ended = |process| Denial::ProcessEnded { process };
    let silent = driver.identity(1000);
    let silent = driver.arrive(silent);
    let silent = Who { number: silent, own: Handle::NONE, directory: Handle::NONE };
    let to_silent = driver.introduce(silent, a, Rights::RAISE);
    assert_eq!(driver.denied(a.number, raise(to_silent, Signal::KILL, 0)), ended(silent.number));
    let child = driver.made(a.number, request::StartChild { process: a.own }).handle;
    let number = *driver.kernel.processes.keys().last().unwrap();
    assert_eq!(driver.denied(a.number, raise(child, Signal::KILL, 0)), ended(number));
    let identity = driver.kernel.process(b.number).identity.clone().unwrap();
    driver.end(b.number);
    // The next owner of the pid, and even of the account.
    let next = driver.arrive(identity);
    let next = driver.hello(next);
    driver.done(next.number, set_action(Signal::TERM, SignalAction::Handle));
    for signal in [Signal::TERM, Signal::KILL, Signal::CHLD] {
        assert_eq!(driver.denied(a.number, raise(process, signal, 0)), ended(b.number));
    }
    assert_eq!(pending(&mut driver, next), SignalSet::EMPTY);
    driver.finish();
}

#[test]
fn standard_signals_merge_into_the_first_and_real_time_ones_queue_in_order() {
    let mut driver = Driver::new();
    let (a, b, process) = pair(&mut driver);
    mask(&mut driver, b, MaskChange::Set, SignalSet::ALL);
    let raised = [(41, 1), (10, 2), (40, 3), (12, 4), (10, 5), (40, 6), (41, 7), (1, 8), (40, 9)];
    for (number, value) in raised {
        driver.done(a.number, raise(process, real_time(number), value));
    }
    let set: SignalSet = raised.iter().map(|(number, _)| real_time(*number)).collect();
    assert_eq!(pending(&mut driver, b), set);
    let one = request::TakeSignal { set: real_time(41).into(), taking: Taking::Any };
    assert_eq!(take(&mut driver, b, one).map(|info| info.value), Some(1), "only what is asked for");
    assert_eq!(take(&mut driver, b, TAKE_HANDLED), None, "held back, so no handler gets it");
    let expected = vec![(1, 8), (10, 2), (12, 4), (40, 3), (40, 6), (40, 9), (41, 7)];
    assert_eq!(values(&mut driver, b), expected);
    driver.finish();
}

#[test]
fn a_full_queue_refuses_and_has_room_again() {
    let mut driver = Driver::new();
    let (a, b, process) = pair(&mut driver);
    mask(&mut driver, b, MaskChange::Set, SignalSet::ALL);
    let share = SIGNALS_QUEUED_MAX / 4;
    for value in 0..share {
        driver.done(a.number, raise(process, real_time(50), value.into()));
    }
    let full = Denial::SignalQueueFull { of: Payer::Process, max: share };
    assert_eq!(driver.denied(a.number, raise(process, real_time(51), 0)), full);
    assert_eq!(full.errno(), 11);
    // A second session of the same process has the same share.
    let identity = driver.kernel.process(a.number).identity.clone().unwrap();
    let again = driver.arrive(identity);
    let again = driver.hello(again);
    let again_process = driver.introduce(b, again, Rights::RAISE);
    assert_eq!(driver.denied(again.number, raise(again_process, real_time(51), 0)), full);
    driver.done(a.number, raise(process, Signal::USR1, 0));
    for value in 0..SIGNALS_QUEUED_MAX - share {
        driver.done(b.number, raise(b.own, real_time(50), value.into()));
    }
    let all = Denial::SignalQueueFull { of: Payer::Everyone, max: SIGNALS_QUEUED_MAX };
    assert_eq!(driver.denied(b.number, raise(b.own, real_time(50), 0)), all);
    assert_eq!(values(&mut driver, b).len(), 1 + SIGNALS_QUEUED_MAX as usize);
    driver.done(a.number, raise(process, real_time(50), 0));
    driver.finish();
}

#[test]
fn a_flood_leaves_one_frame_for_who_does_not_look() {
    let mut driver = Driver::new();
    let (a, b, process) = pair(&mut driver);
    for signal in [Signal::USR1, real_time(40)] {
        driver.done(b.number, set_action(signal, SignalAction::Handle));
    }
    let held_back = [Signal::USR2, Signal::TSTP, Signal::CONT];
    mask(&mut driver, b, MaskChange::Set, held_back.into_iter().collect());
    for value in 0..2000 {
        driver.done(a.number, raise(process, Signal::USR1, value));
        driver.done(a.number, raise(process, Signal::USR2, value));
        driver.post(a.number, raise(process, real_time(40), value));
        // Each of these two takes the other's place.
        driver.done(a.number, raise(process, Signal::TSTP, value));
        driver.done(a.number, raise(process, Signal::CONT, value));
    }
    assert_eq!(driver.events(b.number), [Event::SignalsPending]);
    let first = take(&mut driver, b, TAKE).unwrap();
    assert_eq!((first.signal, first.value), (Signal::USR1, 0));
    for value in 0..2000 {
        driver.done(a.number, raise(process, Signal::USR1, value));
        driver.done(a.number, raise(process, Signal::USR2, value));
    }
    assert_eq!(driver.events(b.number), [Event::SignalsPending], "once more, as it has looked");
    driver.finish();
}

#[test]
fn what_is_let_through_is_told_of_and_goes_its_way() {
    let mut driver = Driver::new();
    let (a, b, process) = pair_of(&mut driver, DefaultActions::Accepted);
    let three: SignalSet = [Signal::USR1, Signal::USR2, Signal::TERM].into_iter().collect();
    assert_eq!(mask(&mut driver, b, MaskChange::Block, three), SignalSet::EMPTY);
    driver.done(b.number, set_action(Signal::USR1, SignalAction::Handle));
    for signal in three.iter() {
        driver.done(a.number, raise(process, signal, 5));
        assert_eq!(acts(&driver), []);
    }
    assert_eq!(driver.events(b.number), [Event::SignalsPending]);
    assert_eq!(take(&mut driver, b, TAKE_HANDLED), None);
    // The one that is handled is told of again, the ignored one is dropped, the other is done by Linux.
    driver.done(b.number, set_action(Signal::USR2, SignalAction::Ignore));
    assert_eq!(pending(&mut driver, b), three.without(Signal::USR2));
    assert_eq!(mask(&mut driver, b, MaskChange::Unblock, three), three);
    assert_eq!(acts(&driver), [LinuxSignal::Terminate]);
    assert_eq!(driver.events(b.number), [Event::SignalsPending]);
    assert_eq!(take(&mut driver, b, TAKE_HANDLED).map(|info| info.value), Some(5));
    assert_eq!(pending(&mut driver, b), SignalSet::EMPTY);
    driver.finish();
}

#[test]
fn what_nobody_may_carry_out_stays_pending() {
    let mut driver = Driver::new();
    let (a, b, process) = pair(&mut driver);
    mask(&mut driver, b, MaskChange::Set, Signal::TERM.into());
    driver.done(a.number, raise(process, Signal::TERM, 3));
    mask(&mut driver, b, MaskChange::Set, SignalSet::EMPTY);
    assert_eq!((acts(&driver), pending(&mut driver, b)), (vec![], Signal::TERM.into()));
    let denial = driver.denied(a.number, raise(process, Signal::TERM, 4));
    assert_eq!(denial, Denial::Unsupported { signal: Signal::TERM });
    assert_eq!(values(&mut driver, b), [(15, 3)]);
    driver.finish();
}

#[test]
fn an_ignored_signal_is_dropped_unless_it_is_held_back() {
    let mut driver = Driver::new();
    let (a, b, process) = pair(&mut driver);
    driver.done(b.number, set_action(Signal::HUP, SignalAction::Ignore));
    for signal in [Signal::HUP, Signal::CHLD] {
        driver.done(a.number, raise(process, signal, 0));
    }
    assert_eq!(pending(&mut driver, b), SignalSet::EMPTY);
    mask(&mut driver, b, MaskChange::Set, SignalSet::ALL);
    for signal in [Signal::HUP, Signal::CHLD] {
        driver.done(a.number, raise(process, signal, 1));
    }
    assert_eq!(values(&mut driver, b), [(1, 1), (17, 1)], "as sigwait(3) wants it");
    driver.done(a.number, raise(process, Signal::CHLD, 2));
    mask(&mut driver, b, MaskChange::Set, SignalSet::EMPTY);
    assert_eq!(pending(&mut driver, b), SignalSet::EMPTY);
    assert_eq!(driver.events(b.number).len(), 2, "one for each time that it had looked");
    driver.finish();
}

#[test]
fn stopping_and_continuing_cancel_each_other() {
    let mut driver = Driver::new();
    let (a, b, process) = pair_of(&mut driver, DefaultActions::Accepted);
    mask(&mut driver, b, MaskChange::Set, SignalSet::ALL);
    driver.done(a.number, raise(process, Signal::TSTP, 0));
    driver.done(a.number, raise(process, Signal::CONT, 0));
    assert_eq!(acts(&driver), [LinuxSignal::Continue], "it goes on, also when that is held back");
    assert_eq!(pending(&mut driver, b), Signal::CONT.into());
    driver.done(a.number, raise(process, Signal::STOP, 0));
    assert_eq!(acts(&driver), [LinuxSignal::Stop]);
    assert_eq!(pending(&mut driver, b), SignalSet::EMPTY);
    mask(&mut driver, b, MaskChange::Set, SignalSet::EMPTY);
    driver.done(b.number, set_action(Signal::CONT, SignalAction::Ignore));
    driver.done(a.number, raise(process, Signal::CONT, 0));
    assert_eq!(acts(&driver), [LinuxSignal::Continue], "also when that is ignored");
    driver.finish();
}

#[test]
fn what_was_pending_at_a_process_ends_with_it() {
    let mut driver = Driver::new();
    let (a, b, process) = pair(&mut driver);
    mask(&mut driver, b, MaskChange::Set, SignalSet::ALL);
    driver.done(a.number, raise(process, Signal::USR1, 1));
    driver.done(a.number, raise(process, real_time(33), 1));
    driver.end(a.number);
    let info = take(&mut driver, b, TAKE).unwrap();
    assert_eq!((info.process, info.value), (a.number, 1), "it outlives its sender");
    driver.end(b.number);
    driver.finish();
}
