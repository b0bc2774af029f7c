//! Processes that live and die, and what /proc says of them.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::*;
use crate::socket;

/// A process that waits until its input is closed.
fn start() -> (Child, OwnedFd) {
    let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let pidfd = pidfd_open(child.id()).unwrap();
    (child, pidfd)
}

#[test]
fn a_killed_process_is_not_alive_even_before_it_is_waited_for() {
    let (mut child, pidfd) = start();
    assert!(is_alive(&pidfd).unwrap());
    kill(&pidfd, Signal::Kill).unwrap();
    assert!(socket::wait_readable(&pidfd, Some(Duration::from_secs(10))).unwrap());
    assert!(!is_alive(&pidfd).unwrap());
    child.wait().unwrap();
    assert_eq!(kill(&pidfd, Signal::Terminate).unwrap_err().errno, Errno::SRCH);
    assert_eq!(pid(&pidfd).unwrap_err().errno, Errno::SRCH);
    assert_eq!(executable(&pidfd).unwrap(), None);
}

#[test]
fn a_stopped_process_is_alive_and_goes_on() {
    let (mut child, pidfd) = start();
    kill(&pidfd, Signal::Stop).unwrap();
    assert!(is_alive(&pidfd).unwrap());
    kill(&pidfd, Signal::Continue).unwrap();
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_process_is_within_reach_of_its_own_user_and_of_root() {
    let (mut child, pidfd) = start();
    let uid = process::getuid().as_raw();
    assert!(is_within_reach(&pidfd, uid).unwrap());
    assert!(is_within_reach(&pidfd, 0).unwrap());
    assert!(!is_within_reach(&pidfd, uid + 1).unwrap());
    kill(&pidfd, Signal::Kill).unwrap();
    child.wait().unwrap();
    assert_eq!(is_within_reach(&pidfd, uid).unwrap_err().errno, Errno::SRCH);
    assert_eq!(real_and_saved("Name:\tsu\nUid:\t1000\t0\t7\t0\n"), Some((1000, 7)));
    assert_eq!(real_and_saved("Uid:\t1000\t0\n"), None);
}

#[test]
fn a_process_has_one_key_and_no_other_has_it() {
    let (mut first, first_fd) = start();
    let (mut second, second_fd) = start();
    let key = process_key(&first_fd).unwrap();
    assert_eq!(key, process_key(pidfd_open(first.id()).unwrap()).unwrap());
    assert_ne!(key, process_key(&second_fd).unwrap());
    assert!(start_ticks(first.id()).unwrap() > 0);
    for child in [&mut first, &mut second] {
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}

#[test]
fn this_process_runs_this_test() {
    let pidfd = pidfd_open(std::process::id()).unwrap();
    assert_eq!(pid(&pidfd).unwrap(), std::process::id());
    assert_eq!(executable(&pidfd).unwrap(), Some(std::env::current_exe().unwrap()));
}

#[test]
fn no_process_has_these_numbers() {
    assert_eq!(pidfd_open(0).unwrap_err().errno, Errno::INVAL);
    assert_eq!(pidfd_open(u32::MAX).unwrap_err().errno, Errno::INVAL);
    assert_eq!(pidfd_open(i32::MAX.unsigned_abs()).unwrap_err().errno, Errno::SRCH);
    let (pipe, _other) = std::io::pipe().unwrap();
    assert_eq!(pid(&pipe).unwrap_err().errno, Errno::INVAL);
}

#[test]
fn written_memory_is_counted() {
    let before = memory_use(std::process::id()).unwrap();
    let written = vec![1_u8; 32 << 20];
    let after = memory_use(std::process::id()).unwrap();
    drop(std::hint::black_box(written));
    assert!(after.private_dirty_bytes >= before.private_dirty_bytes + (24 << 20), "{before:?} {after:?}");
    assert!(after.anonymous_bytes >= before.anonymous_bytes + (24 << 20), "{before:?} {after:?}");
    assert_eq!(memory_use(i32::MAX.unsigned_abs()).unwrap_err().errno, Errno::NOENT);
}

#[test]
fn the_numbers_of_all_such_lines_are_summed() {
    let text = "Private_Dirty:   12 kB\nShared_Dirty: 7 kB\nPrivate_Dirty: 1 kB\nPrivate_Dirty: none\n";
    assert_eq!(kilobytes(text, "Private_Dirty:"), 13 * 1024);
}

#[test]
fn the_descriptor_limit_is_raised_to_what_is_allowed() {
    let raised = raise_descriptor_limit().unwrap();
    let limit = process::getrlimit(Resource::Nofile);
    assert_eq!(limit.current, limit.maximum);
    assert_eq!(raised, limit.current.unwrap_or(u64::MAX));
}

#[test]
fn a_thread_is_pinned_and_gives_up_privileges() {
    std::thread::spawn(|| {
        let cpu = thread::sched_getcpu();
        pin_to_cpu(cpu).unwrap();
        let cpus = thread::sched_getaffinity(None).unwrap();
        assert!(cpus.is_set(cpu));
        assert_eq!(cpus.count(), 1);
        assert_eq!(pin_to_cpu(1 << 20).unwrap_err().errno, Errno::INVAL);
        set_no_new_privs().unwrap();
        assert!(thread::no_new_privs().unwrap());
    })
    .join()
    .unwrap();
}
