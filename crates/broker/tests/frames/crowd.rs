//! Sockets that are closed, half closed, left silent, and many of them: nothing stays behind in the broker.

use std::{
    fs,
    net::Shutdown,
    os::unix::net::UnixDatagram,
    path::Path,
    time::{Duration, Instant},
};

use keyway_abi::{Handle, Reply, request};
use keyway_broker::Embedded;
use keyway_sys::socket;

use crate::{
    Scene,
    children::{self, Player},
    session::{Heard, Session},
};

/// Is a broker in a process of its own, whose descriptors nobody else's come between.
pub(crate) fn serve(path: &Path) {
    let _broker = Embedded::start_at(path).unwrap();
    children::say("ready");
    // The test ends this process.
    loop {
        std::thread::park();
    }
}

/// Waits until it holds; what a broker does about a closed socket takes a turn or two.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn two_hundred_quick_sessions_leave_neither_session_nor_descriptor() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.sock");
    let mut broker = Player::start("broker", path.to_str().unwrap(), Vec::new());
    assert_eq!(broker.hear(), "ready");
    let mut witness = Session::open(&path);
    witness.is_served();
    let before = descriptors(broker.pid());
    for number in 0..200 {
        let mut session = Session::silent(&path);
        if number % 4 == 1 {
            session.greet();
        }
        if number % 4 == 2 {
            session.greet();
            let bytes = session.frame(request::CreateQueue {
                ring_bytes_max: 4096,
                senders_max: 2,
                stock: 2,
                order: request::QueueOrder::Fair,
            });
            // Gone before the answer comes.
            session.send(&bytes);
        }
        if number % 4 == 3 {
            let own = {
                session.greet();
                session.own()
            };
            let _child = session.create(request::StartChild { process: own });
            let _door = session.ask(request::OpenDeposit { process: own });
            let _region =
                session.create(request::CreateRegion { bytes: 4096, flags: request::RegionFlags::empty() });
        }
    }
    eventually("one session", || witness.processes().len() == 1);
    eventually("as many descriptors as before", || descriptors(broker.pid()) == before);
    witness.is_served();
}

#[test]
fn a_socket_closed_with_unread_answers_harms_nobody() {
    let mut scene = Scene::begin();
    let mut session = scene.offender();
    for _ in 0..50 {
        let bytes = session.frame(request::ListOwn { after: Handle::NONE });
        session.send(&bytes);
    }
    drop(session);
    eventually("it is forgotten", || scene.bystander.processes().len() == 1);
}

#[test]
fn a_half_closed_socket_is_an_end_after_what_it_had_said() {
    let mut scene = Scene::begin();
    let mut session = scene.offender();
    let bytes = session.frame(request::CreateRegion { bytes: 4096, flags: request::RegionFlags::empty() });
    session.send(&bytes);
    UnixDatagram::from(session.socket.try_clone().unwrap()).shutdown(Shutdown::Write).unwrap();
    let Heard::Frame(keyway_wire::Incoming::Reply(_, reply), _) = session.hear() else { panic!("no answer") };
    assert!(matches!(reply, Reply::Capability(_)), "{reply:?}");
    assert!(matches!(session.hear(), Heard::End));
    eventually("it is forgotten", || scene.bystander.processes().len() == 1);
}

#[test]
fn a_session_that_will_hear_nothing_more_is_served_until_it_ends() {
    let mut scene = Scene::begin();
    let mut session = scene.offender();
    UnixDatagram::from(session.socket.try_clone().unwrap()).shutdown(Shutdown::Read).unwrap();
    let bytes = session.frame(request::ListOwn { after: Handle::NONE });
    let _ = keyway_sys::frame::send_frame(&session.socket, &bytes, &[], keyway_sys::frame::Waiting::DontWait);
    scene.bystander.is_served();
    drop(session);
    eventually("it is forgotten", || scene.bystander.processes().len() == 1);
}

#[test]
fn those_who_connect_and_say_nothing_keep_nobody_waiting() {
    let mut scene = Scene::begin();
    let silent: Vec<Session> = (0..50).map(|_| Session::silent(&scene.path)).collect();
    for _ in 0..100 {
        scene.bystander.is_served();
    }
    // Who is there already goes first.
    eventually("all have their sessions", || scene.bystander.processes().len() == 51);
    let mut late = scene.offender();
    late.is_served();
    drop((silent, late));
    eventually("they are forgotten", || scene.bystander.processes().len() == 1);
}

#[test]
fn a_process_with_all_its_sessions_is_told_so_and_the_others_go_on() {
    let mut scene = Scene::begin();
    let mut crowd = Vec::new();
    let mut refused = loop {
        let mut session = Session::over(socket::connect(&scene.path).unwrap());
        // The answer to a connection that is one too many comes without a question.
        if crowd.len() as u32 >= keyway_abi::limits::PROCESS_SESSIONS_MAX - 1 {
            break session;
        }
        session.greet();
        crowd.push(session);
    };
    let max = keyway_abi::limits::PROCESS_SESSIONS_MAX.into();
    let (quota, of) = (keyway_abi::Quota::Sessions, keyway_abi::Payer::Process);
    assert_eq!(refused.farewell(), keyway_abi::Farewell::Full { quota, of, used: max, max });
    scene.bystander.is_served();
    crowd.pop();
    eventually("one has gone", || scene.bystander.processes().len() == crowd.len() + 1);
    scene.offender().is_served();
}
