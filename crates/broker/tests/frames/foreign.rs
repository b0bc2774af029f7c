//! Frames from a process that is not the session's: over an inherited socket, over a socket handed on, by a handle of
//! somebody else.

use keyway_abi::{Denial, Event, Fault, Handle, Reply, Rights, Terms, request};
use keyway_sys::{
    inherited,
    process::{self, Signal},
};

use crate::{
    Scene,
    children::{self, Player},
    session::{Heard, Session},
};

/// Speaks on a socket that it inherited.
pub(crate) fn speak(descriptor: i32) {
    let mut session = Session::over(inherited::take(descriptor).unwrap());
    let bytes = session.frame(request::ListOwn { after: Handle::NONE });
    session.send(&bytes);
    children::say("spoken");
}

/// Begins the session of a confined child, and stays.
pub(crate) fn greet(descriptor: i32) {
    let mut session = Session::over(inherited::take(descriptor).unwrap());
    session.greet();
    children::say(session.number());
    std::thread::park();
}

/// How many requests a process makes before it dies without having read an answer.
const LAST_REQUESTS: usize = 40;

/// Stops the broker, grants something to a process, often, and dies before the broker goes on.
pub(crate) fn hurry(descriptor: i32, argument: &str) {
    let (broker, handle) = argument.split_once(' ').unwrap();
    let mut session = Session::over(inherited::take(descriptor).unwrap());
    session.greet();
    let to = Handle::from_raw(handle.parse().unwrap());
    let (region, _) =
        session.create(request::CreateRegion { bytes: 4096, flags: request::RegionFlags::empty() });
    let broker = process::pidfd_open(broker.parse().unwrap()).unwrap();
    process::kill(broker, Signal::Stop).unwrap();
    for _ in 0..LAST_REQUESTS {
        let bytes = session.frame(request::Grant { from: region, to, terms: Terms::rights(Rights::MAP) });
        session.send(&bytes);
    }
}

#[test]
fn what_a_process_had_asked_before_it_died_is_done_before_its_death_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.sock");
    let mut broker = Player::start("broker", path.to_str().unwrap(), Vec::new());
    assert_eq!(broker.hear(), "ready");
    let mut witness = Session::open(&path);
    let own = witness.own();
    let (child, sockets) = witness.create(request::StartChild { process: own });
    let endow = request::Grant { from: own, to: child, terms: Terms::rights(Rights::ENDOW) };
    let (handle_there, _) = witness.create(endow);
    assert_eq!(witness.ask(request::Watch { process: child }).0, Reply::Done);
    let argument = format!("{} {}", broker.pid(), handle_there.raw());
    let mut player = Player::start("hurry", &argument, sockets);
    assert!(player.child.wait().unwrap().success());
    process::kill(process::pidfd_open(broker.pid()).unwrap(), Signal::Continue).unwrap();
    let is_end = |event: &Event| matches!(event, Event::ProcessEnded { .. });
    while !witness.events.iter().any(is_end) {
        witness.is_served();
    }
    let granted = witness.events.iter().take_while(|event| !is_end(event));
    let granted = granted.filter(|event| matches!(event, Event::CapabilityReceived { .. })).count();
    assert_eq!(granted, LAST_REQUESTS, "{:?}", witness.events);
}

#[test]
fn a_session_ends_with_its_process_though_another_holds_its_socket() {
    let mut scene = Scene::begin();
    let process = scene.bystander.own();
    let (_child, mut sockets) = scene.bystander.create(request::StartChild { process });
    let kept = Session::over(sockets.pop().unwrap());
    let mut player = Player::start("greet", "", vec![kept.socket.try_clone().unwrap()]);
    player.hear();
    assert_eq!(scene.bystander.processes().len(), 2);
    player.child.kill().unwrap();
    player.child.wait().unwrap();
    assert!(matches!(kept.hear(), Heard::End));
    assert_eq!(scene.bystander.processes().len(), 1);
}

#[test]
fn a_child_that_speaks_on_its_parents_socket_ends_the_parents_session() {
    let mut scene = Scene::begin();
    let offender = scene.offender();
    let mut child = Player::start("speak", "", vec![offender.socket.try_clone().unwrap()]);
    assert_eq!(child.hear(), "spoken");
    let fault = Fault::ForeignFrame { bound_pid: std::process::id(), found_pid: child.pid() };
    scene.ends_by_fault(offender, fault);
}

#[test]
fn a_silent_session_belongs_to_who_connected_and_not_to_who_speaks_first() {
    let mut scene = Scene::begin();
    let offender = Session::silent(&scene.path);
    let mut child = Player::start("speak", "", vec![offender.socket.try_clone().unwrap()]);
    assert_eq!(child.hear(), "spoken");
    let fault = Fault::ForeignFrame { bound_pid: std::process::id(), found_pid: child.pid() };
    scene.ends_by_fault(offender, fault);
}

#[test]
fn an_inherited_session_belongs_to_the_first_that_speaks_and_its_starter_is_foreign_to_it() {
    let mut scene = Scene::begin();
    let process = scene.bystander.own();
    let (child, mut sockets) = scene.bystander.create(request::StartChild { process });
    assert_eq!(scene.bystander.ask(request::Watch { process: child }).0, Reply::Done);
    let kept = Session::over(sockets.pop().unwrap());
    let mut player = Player::start("greet", "", vec![kept.socket.try_clone().unwrap()]);
    let number: u64 = player.hear().parse().unwrap();
    let entries = scene.bystander.processes();
    let entry = entries.iter().find(|entry| entry.process.0 == number).unwrap();
    assert_eq!((entry.pid, entry.confined), (player.pid(), true));
    kept.send(&[0; 40]);
    let fault = Fault::ForeignFrame { bound_pid: player.pid(), found_pid: std::process::id() };
    scene.ends_by_fault(kept, fault);
    let told = |event: &&Event| matches!(event, Event::ProcessEnded { process } if *process == child);
    assert_eq!(scene.bystander.events.iter().filter(told).count(), 1, "told once");
}

#[test]
fn a_foreign_process_on_a_deposit_socket_ends_the_session() {
    let mut scene = Scene::begin();
    let mut offender = scene.offender();
    let process = offender.own();
    let (_, sockets) = offender.ask(request::OpenDeposit { process });
    let mut child = Player::start("speak", "", sockets);
    assert_eq!(child.hear(), "spoken");
    let fault = Fault::ForeignFrame { bound_pid: std::process::id(), found_pid: child.pid() };
    scene.ends_by_fault(offender, fault);
}

#[test]
fn the_handle_of_another_process_names_nothing() {
    let mut scene = Scene::begin();
    let regions: Vec<Handle> = (0..8)
        .map(|_| {
            scene
                .bystander
                .create(request::CreateRegion { bytes: 4096, flags: request::RegionFlags::empty() })
                .0
        })
        .collect();
    let mut thief = scene.offender();
    let thiefs_own = [thief.own(), thief.directory()];
    for handle in regions.into_iter().filter(|handle| !thiefs_own.contains(handle)) {
        for attempt in [
            request::Delete { handle }.into(),
            request::Revoke { handle }.into(),
            request::Derive { from: handle, terms: Terms::rights(Rights::MAP) }.into(),
            request::MapRegion { region: handle, access: request::MapAccess::Read }.into(),
            keyway_abi::Request::from(request::Watch { process: handle }),
        ] {
            let operation = attempt.operation();
            match thief.ask(attempt).0 {
                Reply::Denied(Denial::UnknownHandle { .. } | Denial::StaleHandle { .. }) => {}
                other => panic!("{operation} of {handle}: {other:?}"),
            }
        }
    }
    // Nothing was taken from the one whose they are.
    let (reply, _) = scene.bystander.ask(request::ListOwn { after: Handle::NONE });
    let Reply::Listing(keyway_abi::Listing::Capabilities(entries)) = reply else { panic!("{reply:?}") };
    assert_eq!(entries.len(), 10);
}
