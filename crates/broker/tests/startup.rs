//! How a broker begins: alone on its socket, in place of one that died, in a directory that nobody else can write, or on
//! a socket that a service manager listens on.

// All of this file is tests; clippy's leave for tests does not reach the functions that they share.
#![allow(clippy::unwrap_used)]

#[path = "frames/children.rs"]
#[expect(dead_code, reason = "the tests of frames ask for more")]
mod children;
#[path = "frames/session.rs"]
#[expect(dead_code, reason = "the tests of frames ask for more")]
mod session;

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use keyway_abi::Farewell;
use keyway_broker::{Broker, Embedded, StartError};
use keyway_sys::{
    process::{self, Signal},
    socket,
    terminations::Terminations,
};

use crate::{
    children::{Part, Player},
    session::Session,
};

/// Plays the other process when this file is started by one of its tests, and is nothing otherwise.
#[test]
fn the_other_process() {
    let Some(Part { role, argument, .. }) = children::part() else { return };
    assert_eq!(role, "daemon");
    let terminations = Terminations::block().unwrap();
    let broker = Broker::bind(Path::new(&argument)).unwrap();
    children::say("ready");
    broker.run(&terminations).unwrap();
    children::say("stopped");
    std::process::exit(0);
}

/// A directory that goes with the test, and the path of a socket in it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.sock");
    (directory, path)
}

/// A broker in a process of its own. `SIGTERM` is blocked before that process begins, because the test harness has a
/// thread of its own which would die of it.
fn daemon(path: &Path) -> Player {
    let mut command = Command::new("env");
    command.arg("--block-signal=TERM");
    children::direct(command.arg(env::current_exe().unwrap()), "daemon", path.to_str().unwrap());
    let mut player = Player::spawn(command, Vec::new());
    assert_eq!(player.hear(), "ready");
    player
}

#[test]
fn a_second_broker_on_a_socket_is_refused_with_the_firsts_pid() {
    let (_directory, path) = place();
    let first = daemon(&path);
    let refused = Embedded::start_at(&path).unwrap_err();
    assert!(matches!(refused, StartError::AlreadyServed { pid: Some(pid), .. } if pid == first.pid()));
    let text = refused.to_string();
    assert!(text.contains(&first.pid().to_string()) && text.contains(path.to_str().unwrap()), "{text}");
    Session::open(&path).is_served();
}

#[test]
fn the_socket_of_a_killed_broker_is_taken_over() {
    let (_directory, path) = place();
    let mut first = daemon(&path);
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    assert!(path.exists(), "a killed broker leaves its socket");
    assert!(socket::connect(&path).is_err());
    let mut second = daemon(&path);
    Session::open(&path).is_served();
    let pidfd = process::pidfd_open(second.pid()).unwrap();
    let mut last = Session::open(&path);
    process::kill(pidfd, Signal::Terminate).unwrap();
    assert_eq!(last.farewell(), Farewell::Stopping);
    assert_eq!(second.hear(), "stopped");
    assert!(second.child.wait().unwrap().success());
    assert!(!path.exists(), "a broker that stops removes its socket");
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let (_directory, path) = place();
    fs::write(&path, "somebody's").unwrap();
    assert!(Embedded::start_at(&path).is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's");
}

#[test]
fn a_directory_that_others_can_write_is_refused_with_advice() {
    let (directory, path) = place();
    for mode in [0o777, 0o1777, 0o775, 0o757] {
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
        let refused = Embedded::start_at(&path).unwrap_err();
        assert!(
            matches!(refused, StartError::DirectoryOpen { mode: found, .. } if found == mode),
            "{mode:o}: {refused}"
        );
        let text = refused.to_string();
        let sticky = mode & 0o1000 != 0;
        let advice = if sticky { "keyway/broker.sock" } else { "below none that everybody can" };
        assert!(text.contains("only you can write") && text.contains(advice), "{text}");
        assert!(!path.exists());
    }
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    Embedded::start_at(&path).unwrap();
}

#[test]
fn a_directory_below_one_that_everybody_can_write_is_refused_unless_it_is_sticky() {
    let (directory, _) = place();
    let below = directory.path().join("own").join("broker.sock");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let refused = Embedded::start_at(&below).unwrap_err();
    assert!(matches!(refused, StartError::DirectoryOpen { mode: 0o777, .. }), "{refused}");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    Embedded::start_at(&below).unwrap();
}

#[test]
fn a_socket_that_a_service_manager_listens_on_is_served_and_left_there() {
    let (directory, path) = place();
    let listening = socket::listen(&path, 0o600, 16).unwrap();
    // As systemd does it: the socket is descriptor 3, and the variables name the very process that runs the program.
    let mut command = Command::new("sh");
    let script = r#"exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec env --block-signal=TERM "$0" "$@""#;
    command.args(["-c", script]).arg(env::current_exe().unwrap()).stdin(listening);
    let another = directory.path().join("another.sock");
    children::direct(&mut command, "daemon", another.to_str().unwrap());
    let mut session = Session::silent(&path);
    let mut broker = Player::spawn(command, Vec::new());
    assert_eq!(broker.hear(), "ready");
    session.greet();
    session.is_served();
    assert!(!another.exists(), "it serves that socket only");
    process::kill(process::pidfd_open(broker.pid()).unwrap(), Signal::Terminate).unwrap();
    assert_eq!(session.farewell(), Farewell::Stopping);
    assert_eq!(broker.hear(), "stopped");
    assert!(path.exists(), "the socket is the service manager's");
}
