//! Signals between real processes: default actions through the pidfd, and everything that a process takes itself.

use std::{
    env, fs,
    os::{fd::AsFd, unix::process::ExitStatusExt},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use keyway::{
    Capability, Client, Confined, ConfinedChild, DefaultActions, Denial, Error, SessionOptions, SigInfo,
    Signal, SignalAction, SignalSet,
    abi::{Payer, SignalCode, limits::SIGNALS_QUEUED_MAX},
};
use keyway_sys::socket;

use crate::{
    players::{self, PATIENCE, Player, SOON},
    stage::{Stage, eventually},
};

/// A child that plays this part, and the capability to it.
fn start(client: &Client, role: &str) -> (Player, Capability) {
    let mut confined = Confined::new(client, env::current_exe().unwrap()).unwrap();
    players::direct(confined.command(), role, "");
    let ConfinedChild { process, child } = confined.spawn().unwrap();
    (Player::of(child), process)
}

/// The letter of the process's state in `proc_pid_stat(5)`.
fn state(player: &Player) -> char {
    let stat = fs::read_to_string(format!("/proc/{}/stat", player.pid())).unwrap();
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap()
}

fn denial(error: &Error) -> Denial {
    error.denial().unwrap_or_else(|| panic!("a denial: {error}")).clone()
}

fn signal(number: u8) -> Signal {
    Signal::new(number).unwrap()
}

fn line(info: &SigInfo) -> String {
    format!("{}:{}", info.signal.number(), info.value)
}

/// Lets the broker do what signals do by default.
pub(crate) fn accept_and_stay() {
    let options = SessionOptions { default_actions: DefaultActions::Accepted };
    let _client = Client::connect_with(options).unwrap();
    players::say("ready");
    players::stay();
}

/// Does not.
pub(crate) fn refuse_and_answer() {
    let _client = Client::connect().unwrap();
    players::say("ready");
    loop {
        players::say(players::wait_to_be_told());
    }
}

#[test]
fn a_process_that_accepts_it_is_stopped_continued_and_ended_through_its_pidfd() {
    let stage = Stage::begin();
    let client = stage.client();
    for (last, number) in [(Signal::TERM, 15), (Signal::KILL, 9), (Signal::USR1, 15), (signal(64), 15)] {
        let (mut player, process) = start(&client, "accepter");
        assert_eq!(player.hear(), "ready");
        for stop in [Signal::STOP, Signal::TSTP] {
            process.raise(stop, 0).unwrap();
            eventually("it stops", || state(&player) == 'T');
            process.raise(Signal::CHLD, 0).unwrap();
            assert_eq!(state(&player), 'T', "that is ignored");
            process.raise(Signal::CONT, 0).unwrap();
            eventually("it goes on", || state(&player) != 'T');
        }
        process.raise(last, 0).unwrap();
        assert_eq!(player.child.wait().unwrap().signal(), Some(number), "{last}");
        stage.forgets(player.pid());
    }
}

#[test]
fn a_process_that_did_not_accept_it_lives_and_the_raiser_is_told() {
    let stage = Stage::begin();
    let client = stage.client();
    let (mut player, process) = start(&client, "refuser of actions");
    assert_eq!(player.hear(), "ready");
    for signal in [Signal::TERM, Signal::KILL, Signal::STOP, Signal::CONT, Signal::USR1] {
        let error = process.raise(signal, 0).unwrap_err();
        assert_eq!(denial(&error), Denial::Unsupported { signal });
        assert_eq!(error.errno(), 95);
    }
    process.raise(Signal::WINCH, 0).unwrap();
    player.tell("still there");
    assert_eq!(player.hear(), "still there");
}

#[test]
fn a_process_that_is_gone_is_esrch_and_one_without_a_session_too() {
    let stage = Stage::begin();
    let client = stage.client();
    let confined = Confined::new(&client, "/bin/true").unwrap();
    let (mut player, process) = start(&client, "accepter");
    assert_eq!(player.hear(), "ready");
    player.kill();
    stage.forgets(player.pid());
    for signal in [Signal::TERM, Signal::KILL, Signal::WINCH, Signal::USR1] {
        let error = process.raise(signal, 0).unwrap_err();
        assert!(matches!(denial(&error), Denial::ProcessEnded { .. }) && error.errno() == 3, "{error}");
    }
    drop(confined);
}

/// Waits for what it is told to wait for, and says what came. `N`: the signal with this number, held back before.
pub(crate) fn wait_when_told() {
    let client = Client::connect().unwrap();
    let signals = client.signals().unwrap();
    signals.block(SignalSet::ALL).unwrap();
    players::say("ready");
    loop {
        let told = players::wait_to_be_told();
        if told == "all" {
            let mut all = Vec::new();
            while let Some(info) = signals.try_wait(SignalSet::ALL).unwrap() {
                all.push(line(&info));
            }
            players::say(all.join(" "));
        } else {
            let set = signal(told.parse().unwrap());
            let short = signals.wait(set, Duration::from_millis(30));
            assert!(matches!(short, Err(Error::TimedOut(_))), "{short:?}");
            players::say("waiting");
            let info = signals.wait(set, PATIENCE).unwrap();
            assert_eq!(info.code, SignalCode::User);
            players::say(format!("{} {} {} {}", line(&info), info.pid, info.uid, info.process.0));
        }
    }
}

#[test]
fn standard_signals_merge_and_real_time_ones_queue_in_order_up_to_eagain() {
    let stage = Stage::begin();
    let client = stage.client();
    let (mut player, process) = start(&client, "waiter");
    assert_eq!(player.hear(), "ready");
    for (number, value) in [(50, 1), (10, 2), (40, 3), (10, 4), (1, 5), (40, 6), (50, 7), (10, 8)] {
        process.raise(signal(number), value).unwrap();
    }
    let share = u64::from(SIGNALS_QUEUED_MAX / 4);
    for value in 0..share - 4 {
        process.raise(signal(60), value).unwrap();
    }
    let error = process.raise(signal(40), 0).unwrap_err();
    let full = Denial::SignalQueueFull { of: Payer::Process, max: SIGNALS_QUEUED_MAX / 4 };
    assert_eq!((denial(&error), error.errno()), (full, 11));
    player.tell("all");
    let last: Vec<String> = (0..share - 4).map(|value| format!("60:{value}")).collect();
    assert_eq!(player.hear(), format!("1:5 10:2 40:3 40:6 50:1 50:7 {}", last.join(" ")));
    process.raise(signal(40), 9).unwrap();
    player.tell("all");
    assert_eq!(player.hear(), "40:9");
}

#[test]
fn a_wait_ends_with_its_deadline_or_with_the_signal_and_loses_nothing() {
    let stage = Stage::begin();
    let client = stage.client();
    let (mut player, process) = start(&client, "waiter");
    assert_eq!(player.hear(), "ready");
    let uid = fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own)).unwrap();
    for value in 0..20 {
        player.tell("12");
        assert_eq!(player.hear(), "waiting");
        process.raise(Signal::USR1, value).unwrap();
        let raised = Instant::now();
        process.raise(Signal::USR2, value).unwrap();
        let who = format!("{} {uid} {}", std::process::id(), client.process_number().0);
        assert_eq!(player.hear(), format!("12:{value} {who}"));
        assert!(raised.elapsed() < SOON);
    }
    player.tell("all");
    assert_eq!(player.hear(), "10:0", "what it did not wait for is still there");
}

#[test]
fn a_flood_does_not_end_the_session_of_a_process_that_does_not_read() {
    let stage = Stage::begin();
    let client = stage.client();
    let (mut player, process) = start(&client, "waiter");
    assert_eq!(player.hear(), "ready");
    for value in 0..4000 {
        process.raise(Signal::USR1, value).unwrap();
        // Each of these two takes the other's place.
        process.raise(Signal::TSTP, value).unwrap();
        process.raise(Signal::CONT, value).unwrap();
        let _ = process.raise(signal(33), value);
    }
    player.tell("all");
    let first: Vec<String> = (0..SIGNALS_QUEUED_MAX / 4).map(|value| format!("33:{value}")).collect();
    assert_eq!(player.hear(), format!("10:0 18:3999 {}", first.join(" ")));
}

/// An event loop over one descriptor, with handlers.
pub(crate) fn handle() {
    let client = Client::connect().unwrap();
    let mut signals = client.signals().unwrap();
    let handled = Arc::new(Mutex::new(Vec::new()));
    for signal in [Signal::HUP, Signal::USR1, signal(40)] {
        let handled = Arc::clone(&handled);
        signals.on(signal, move |info| handled.lock().unwrap().push(line(info))).unwrap();
    }
    signals.set_action(Signal::USR2, SignalAction::Ignore).unwrap();
    signals.block(Signal::HUP).unwrap();
    assert_eq!(signals.dispatch().unwrap(), 0);
    let quiet = Some(Duration::from_millis(30));
    let mut is_quiet = true;
    loop {
        assert_ne!(socket::wait_readable(signals.as_fd(), quiet).unwrap(), is_quiet);
        players::say("polls");
        assert!(socket::wait_readable(signals.as_fd(), Some(PATIENCE)).unwrap());
        let ran = signals.dispatch().unwrap();
        let lines = std::mem::take(&mut *handled.lock().unwrap());
        assert_eq!(ran, lines.len());
        players::say(lines.join(" "));
        is_quiet = players::wait_to_be_told() != "let through";
        if !is_quiet {
            signals.unblock(Signal::HUP).unwrap();
        }
    }
}

#[test]
fn a_descriptor_wakes_an_event_loop_and_handlers_run() {
    let stage = Stage::begin();
    let client = stage.client();
    let (mut player, process) = start(&client, "handler");
    assert_eq!(player.hear(), "polls");
    process.raise(Signal::USR2, 1).unwrap();
    process.raise(Signal::USR1, 2).unwrap();
    assert_eq!(player.hear(), "10:2");
    player.tell("go on");
    assert_eq!(player.hear(), "polls");
    process.raise(Signal::HUP, 3).unwrap();
    assert_eq!(player.hear(), "", "it is held back");
    player.tell("go on");
    assert_eq!(player.hear(), "polls");
    process.raise(signal(40), 4).unwrap();
    assert_eq!(player.hear(), "40:4");
    process.raise(Signal::HUP, 5).unwrap();
    player.tell("let through");
    assert_eq!(player.hear(), "polls");
    assert_eq!(player.hear(), "1:3");
}
