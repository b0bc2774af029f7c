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
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use keyway_abi::Farewell;
use keyway_broker::{Broker, Embedded, StartError};
use keyway_sys::{
    process::{self, Signal},
    socket,
    terminations::Terminations,
};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

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
    let broker = Broker::bind(Path::new(&argument)).unwrap_or_else(|error| {
        children::say(error);
        std::process::exit(1)
    });
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
    let mut player = Player::spawn(daemon_command(&env::current_exe().unwrap(), path), Vec::new());
    assert_eq!(player.hear(), "ready");
    player
}

fn daemon_command(program: &Path, path: &Path) -> Command {
    let mut command = Command::new("env");
    command.arg("--block-signal=TERM");
    children::direct(command.arg(program), "daemon", path.to_str().unwrap());
    command
}

/// Why a broker cannot begin, which is noted.
fn refused<T: std::fmt::Debug>(started: Result<T, StartError>) -> StartError {
    let error = started.unwrap_err();
    keyway_provoked::note(&error, "");
    error
}

#[test]
fn a_second_broker_on_a_socket_is_refused_with_the_firsts_pid() {
    let (_directory, path) = place();
    let first = daemon(&path);
    let refused = refused(Embedded::start_at(&path));
    let me = rustix::process::geteuid().as_raw();
    let StartError::AlreadyServed { pid: Some(pid), uid: Some(uid), .. } = refused else {
        panic!("{refused}")
    };
    assert_eq!((pid, uid), (first.pid(), me));
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
    let refused = refused(Embedded::start_at(&path));
    assert!(matches!(refused, StartError::NoSocket { .. }), "{refused}");
    assert!(refused.to_string().contains("is no socket; remove it, or choose"), "{refused}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's");
}

#[test]
fn a_path_that_is_too_long_is_refused_with_both_lengths_before_anything_is_made() {
    let (directory, _) = place();
    let name = |bytes: usize| {
        let below = directory.path().join("below");
        below.join("x".repeat(bytes - below.to_str().unwrap().len() - 1))
    };
    let refused = refused(Embedded::start_at(&name(108)));
    assert!(matches!(refused, StartError::PathTooLong { bytes: 108, bytes_max: 107, .. }), "{refused}");
    assert!(refused.to_string().contains("has 108 bytes, a Unix socket's has 107 at most"), "{refused}");
    assert!(!directory.path().join("below").exists());
    Embedded::start_at(&name(107)).unwrap();
}

#[test]
fn a_file_that_cannot_be_made_is_told_with_what_is_there_and_whose_it_is() {
    let (directory, _) = place();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let refused = refused(Embedded::start_at(&file.join("broker.sock")));
    let me = rustix::process::geteuid().as_raw();
    let StartError::Files { path, nearest: Some(nearest), own_uid, .. } = &refused else {
        panic!("{refused}")
    };
    assert_eq!(path, &file.join("broker.sock.lock"));
    assert_eq!((&nearest.path, nearest.uid, nearest.mode, *own_uid), (&file, me, 0o640, me));
    let text = refused.to_string();
    assert!(text.contains("(mode 640)") && text.contains("choose a --socket"), "{text}");
}

/// Why a broker does not start where Linux answers these calls with `errno`.
fn refused_without<const N: usize>(calls: [i64; N], errno: i32) -> StartError {
    let rules = calls.into_iter().map(|call| (call, vec![])).collect();
    let (allow, refuse) = (SeccompAction::Allow, SeccompAction::Errno(errno.cast_unsigned()));
    let filter = SeccompFilter::new(rules, allow, refuse, env::consts::ARCH.try_into().unwrap()).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    // The filter holds for that thread alone.
    let started = thread::spawn(move || {
        seccompiler::apply_filter(&program).unwrap();
        Embedded::start()
    });
    refused(started.join().unwrap())
}

#[test]
fn a_linux_that_lacks_what_is_needed_is_told_by_name() {
    let refused = refused_without([libc::SYS_pidfd_open, libc::SYS_futex_waitv], libc::ENOSYS);
    assert!(matches!(&refused, StartError::LinuxLacks(missing) if missing.features.len() == 2), "{refused}");
    let lacks =
        "this kernel lacks futex_waitv of Linux 5.16, pidfd_open of Linux 5.3; Linux 6.5 or newer has all";
    assert!(refused.to_string().starts_with(lacks), "{refused}");
}

#[test]
fn a_broker_without_a_descriptor_left_says_which_call_was_refused() {
    let refused = refused_without([libc::SYS_eventfd2], libc::EMFILE);
    assert_eq!(refused.to_string(), "eventfd: no file descriptors left (EMFILE)");
}

/// Only root can begin a broker of another user; otherwise there is nothing to see here.
#[test]
fn a_second_broker_of_another_user_is_told_whose_the_first_is_or_whose_the_directory_is() {
    const STRANGER_UID: u32 = 4242;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (directory, path) = place();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Where the tests were built, another user may not be able to look: this program is its standard input.
    let stranger = |path: &Path| {
        let mut command = daemon_command(Path::new("/proc/self/fd/0"), path);
        command.stdin(fs::File::open(env::current_exe().unwrap()).unwrap());
        command.current_dir("/").uid(STRANGER_UID).gid(STRANGER_UID).env_remove(keyway_provoked::VARIABLE);
        Player::spawn(command, Vec::new())
    };
    let text = stranger(&path).hear();
    let told = [path.with_extension("sock.lock").to_str().unwrap(), "Permission denied"].map(String::from);
    let whose =
        format!("{} belongs to root (mode 755), this broker runs as user 4242", directory.path().display());
    assert!(told.iter().chain([&whose]).all(|word| text.contains(word.as_str())), "{text}");
    let first = daemon(&path);
    let text = stranger(&path).hear();
    let told = format!("process {} of root serves {} already; stop it", first.pid(), path.display());
    assert!(text.contains(&told), "{text}");
    // And the other way round: root where a broker of theirs is.
    let theirs = directory.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(STRANGER_UID), None).unwrap();
    let path = theirs.join("broker.sock");
    let mut second = stranger(&path);
    assert_eq!(second.hear(), "ready");
    let text = Embedded::start_at(&path).unwrap_err().to_string();
    let told = format!("process {} of user 4242 serves {} already; stop it", second.pid(), path.display());
    assert!(text.contains(&told), "{text}");
}

#[test]
fn a_directory_that_others_can_write_is_refused_with_advice() {
    let (directory, path) = place();
    for mode in [0o777, 0o1777, 0o775, 0o757] {
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
        let refused = refused(Embedded::start_at(&path));
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
    let refused = refused(Embedded::start_at(&below));
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
