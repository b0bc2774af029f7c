//! What a confined program can and cannot do, tried by starting this test program once more as that program, and who
//! the broker's end says has sent a frame when several processes hold the other end.

// All of this file is tests; clippy's leave for tests does not reach the functions that they share.
#![allow(clippy::unwrap_used)]

use std::{
    env,
    fmt::Write,
    io::Error,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::process::ExitStatusExt,
    },
    process::{Child, Command, Stdio},
    time::Duration,
};

use keyway_sys::{
    confine::{self, Filter, ParentDeath},
    frame::{self, Received, Reception, Sent, Waiting},
    inherited,
    process::{self, Signal},
    socket::{self, PairUse},
};

/// The variable that makes a test of this file play the program: what it is to do, and its descriptor.
const ROLE: &str = "KEYWAY_TEST_ROLE";

fn program(role: &str, filter: Filter, inherit: Vec<OwnedFd>, parent_death: ParentDeath) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "the_program", "--nocapture", "--test-threads=1"]).stdout(Stdio::null());
    let numbers = confine::confine(&mut command, inherit, filter, parent_death).unwrap();
    let number = numbers.first().copied().unwrap_or(-1);
    command.env(ROLE, format!("{role}:{number}"));
    command
}

/// Plays the program when this file is started by one of its tests, and is nothing otherwise.
#[test]
fn the_program() {
    let Ok(role) = env::var(ROLE) else { return };
    let (role, number) = role.split_once(':').unwrap();
    let number: RawFd = number.parse().unwrap();
    match role {
        "report" => report(&inherited::take(number).unwrap()),
        "speak" => speak(&inherited::take(number).unwrap()),
        "start_another" => start_another(inherited::take(number).unwrap()),
        "32bit" => call_as_32bit(),
        role => panic!("no such role: {role}"),
    }
    // Not by way of the test harness, which the filter may disturb.
    std::process::exit(0);
}

fn say(fd: impl AsFd, text: &str) {
    assert_eq!(frame::send_frame(fd, text.as_bytes(), &[], Waiting::Block).unwrap(), Sent::Whole);
}

fn hear(fd: impl AsFd) -> (String, Received) {
    assert!(socket::wait_readable(&fd, Some(Duration::from_secs(30))).unwrap(), "nothing was said");
    let mut buffer = [0; 8192];
    match frame::receive_frame(fd, &mut buffer, 16, Waiting::DontWait).unwrap() {
        Reception::Frame(received) => {
            (String::from_utf8(buffer[..received.bytes].to_vec()).unwrap(), received)
        }
        other => panic!("nothing was said: {other:?}"),
    }
}

/// Tries each call and says what came of it, a line each: its name and its errno, or 0.
fn report(fd: &OwnedFd) {
    let mut lines = String::new();
    for (name, number, arguments) in attempts(fd.as_raw_fd()) {
        let [first, second, third, fourth, fifth] = arguments;
        // SAFETY: each call is made with arguments that name no memory, or none that is valid, so that the kernel reads
        // and writes nothing of this process (check: `attempts`).
        let answer = unsafe { libc::syscall(number, first, second, third, fourth, fifth) };
        let errno = if answer < 0 { Error::last_os_error().raw_os_error().unwrap() } else { 0 };
        writeln!(lines, "{name} {errno}").unwrap();
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    writeln!(lines, "NoNewPrivs {}\nSeccomp {}", field("NoNewPrivs:"), field("Seccomp:")).unwrap();
    say(fd, &lines);
}

type Attempt = (&'static str, i64, [i64; 5]);

fn attempts(fd: RawFd) -> Vec<Attempt> {
    let unix = i64::from(libc::AF_UNIX);
    let cloexec = i64::from(libc::SOCK_CLOEXEC);
    let [stream, datagram, raw, seqpacket] =
        [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW, libc::SOCK_SEQPACKET].map(i64::from);
    let socket_level = i64::from(libc::SOL_SOCKET);
    let fd = i64::from(fd);
    let mut attempts = vec![
        ("socket", libc::SYS_socket, [unix, stream, 0, 0, 0]),
        ("connect", libc::SYS_connect, [fd, 0, 0, 0, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0, 0, 0]),
        ("io_uring_enter", libc::SYS_io_uring_enter, [-1, 0, 0, 0, 0]),
        ("io_uring_register", libc::SYS_io_uring_register, [-1, 0, 0, 0, 0]),
        ("ptrace", libc::SYS_ptrace, [i64::from(libc::PTRACE_PEEKUSER), i64::from(i32::MAX), 0, 0, 0]),
        ("process_vm_readv", libc::SYS_process_vm_readv, [i64::from(i32::MAX), 0, 0, 0, 0]),
        ("process_vm_writev", libc::SYS_process_vm_writev, [i64::from(i32::MAX), 0, 0, 0, 0]),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, [-1, 0, 0, 0, 0]),
        ("socketpair_datagram", libc::SYS_socketpair, [unix, datagram | cloexec, 0, 0, 0]),
        ("socketpair_raw", libc::SYS_socketpair, [unix, raw, 0, 0, 0]),
        ("socketpair_netlink", libc::SYS_socketpair, [16, seqpacket, 0, 0, 0]),
        ("socketpair_stream", libc::SYS_socketpair, [unix, stream | cloexec, 0, 0, 0]),
        ("socketpair_seqpacket", libc::SYS_socketpair, [unix, seqpacket, 0, 0, 0]),
        ("setsockopt_passrights", libc::SYS_setsockopt, [fd, socket_level, 83, 0, 4]),
        ("setsockopt_passcred", libc::SYS_setsockopt, [fd, socket_level, 16, 0, 4]),
    ];
    if cfg!(target_arch = "x86_64") {
        // `ptrace` is 521 by x32's own numbers.
        attempts.push(("x32_getpid", 0x4000_0000 + 39, [0; 5]));
        attempts.push(("x32_socket", 0x4000_0000 + 41, [unix, stream, 0, 0, 0]));
        attempts.push(("x32_ptrace", 0x4000_0000 + 521, [0; 5]));
    }
    attempts
}

/// What a program reports of itself, by name.
fn reported(filter: Filter) -> impl Fn(&str) -> i32 {
    let pair = socket::seqpacket_pair(PairUse::Session).unwrap();
    let mut command = program("report", filter, vec![pair.client_end], ParentDeath::Kill);
    let mut child = command.spawn().unwrap();
    drop(command);
    let (text, received) = hear(&pair.broker_end);
    assert_eq!(received.credentials.unwrap().pid, child.id());
    assert!(child.wait().unwrap().success());
    move |name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in {text}")).parse().unwrap()
    }
}

#[test]
fn a_confined_program_cannot_reach_others() {
    let errno_of = reported(Filter::Full);
    let mut refused = vec![
        "socket",
        "connect",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "pidfd_getfd",
        "socketpair_datagram",
        "socketpair_raw",
        "socketpair_netlink",
        "setsockopt_passrights",
    ];
    if cfg!(target_arch = "x86_64") {
        refused.extend(["x32_getpid", "x32_socket", "x32_ptrace"]);
    }
    for name in refused {
        assert_eq!(errno_of(name), libc::EPERM, "{name}");
    }
    // They get as far as the bad address that they were given.
    for name in ["socketpair_stream", "socketpair_seqpacket", "setsockopt_passcred"] {
        assert_eq!(errno_of(name), libc::EFAULT, "{name}");
    }
    assert_eq!(errno_of("NoNewPrivs"), 1);
    assert_eq!(errno_of("Seccomp"), 2);
}

#[test]
fn without_the_filter_only_new_privileges_are_refused() {
    let errno_of = reported(Filter::None);
    let outer_filter = errno_of("Seccomp") != 0;
    for name in ["socket", "connect", "process_vm_readv", "pidfd_getfd", "socketpair_datagram"] {
        assert!(outer_filter || errno_of(name) != libc::EPERM, "{name}");
    }
    assert_eq!(errno_of("NoNewPrivs"), 1);
}

/// Says who it is; then starts another that says it over the same descriptor.
fn start_another(fd: OwnedFd) {
    say(&fd, "first");
    let mut command = program("speak", Filter::Full, vec![fd], ParentDeath::Kill);
    assert!(command.status().unwrap().success());
}

fn speak(fd: &OwnedFd) {
    say(fd, "second");
}

#[test]
fn each_frame_names_the_process_that_sent_it() {
    let pair = socket::seqpacket_pair(PairUse::Session).unwrap();
    let mut command = program("start_another", Filter::Full, vec![pair.client_end], ParentDeath::Kill);
    let mut child = command.spawn().unwrap();
    drop(command);
    assert_eq!(socket::peer_credentials(&pair.broker_end).unwrap().pid, std::process::id());
    let (text, first) = hear(&pair.broker_end);
    assert_eq!(text, "first");
    assert_eq!(first.credentials.unwrap().pid, child.id());
    let child_key = process::process_key(process::pidfd_open(child.id()).unwrap()).unwrap();
    assert_eq!(process::process_key(first.pidfd.unwrap()).unwrap(), child_key);
    let (text, second) = hear(&pair.broker_end);
    assert_eq!(text, "second");
    let pid = second.credentials.unwrap().pid;
    assert!(pid != child.id() && pid != std::process::id());
    if let Some(pidfd) = second.pidfd {
        assert_ne!(process::process_key(pidfd).unwrap(), child_key);
    }
    assert!(child.wait().unwrap().success());
    let end = frame::receive_frame(&pair.broker_end, &mut [0; 8], 0, Waiting::Block).unwrap();
    assert!(matches!(end, Reception::End), "nobody holds the other end any more");
}

#[test]
fn a_program_that_must_not_outlive_its_starter_is_killed_with_its_thread() {
    let start = |parent_death| -> (Child, OwnedFd) {
        std::thread::spawn(move || {
            let mut command = Command::new("cat");
            command.stdin(Stdio::piped()).stdout(Stdio::null());
            confine::confine(&mut command, Vec::new(), Filter::Full, parent_death).unwrap();
            let child = command.spawn().unwrap();
            let pidfd = process::pidfd_open(child.id()).unwrap();
            (child, pidfd)
        })
        .join()
        .unwrap()
    };
    let (mut child, pidfd) = start(ParentDeath::Kill);
    assert!(socket::wait_readable(&pidfd, Some(Duration::from_secs(10))).unwrap(), "it lives on");
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));

    let (mut child, pidfd) = start(ParentDeath::Outlive);
    assert!(!socket::wait_readable(&pidfd, Some(Duration::from_millis(200))).unwrap());
    process::kill(&pidfd, Signal::Terminate).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
}

#[test]
fn no_other_descriptors_are_inherited() {
    let pair = socket::seqpacket_pair(PairUse::Session).unwrap();
    // One that this process itself would have inherited: it stays open at `exec`.
    let (left_open, _other) = std::io::pipe().unwrap();
    rustix::io::fcntl_setfd(&left_open, rustix::io::FdFlags::empty()).unwrap();
    let mut command = Command::new("ls");
    command.arg("/proc/self/fd");
    let numbers =
        confine::confine(&mut command, vec![pair.client_end], Filter::Full, ParentDeath::Kill).unwrap();
    let output = command.output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    let mut listed: Vec<RawFd> = listed.lines().map(|line| line.parse().unwrap()).collect();
    listed.sort_unstable();
    // The lowest number that is free is that of the directory which `ls` reads.
    let directory = if numbers[0] == 3 { 4 } else { 3 };
    let mut expected = vec![0, 1, 2, directory, numbers[0]];
    expected.sort_unstable();
    assert_eq!(listed, expected);
}

#[cfg(target_arch = "x86_64")]
fn call_as_32bit() {
    // SAFETY: `getpid` by the numbers of 32-bit x86 (20) touches no memory; `int 0x80` clobbers what is named.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("eax") 20 => _, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    };
}

#[cfg(not(target_arch = "x86_64"))]
fn call_as_32bit() {}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_call_by_32_bit_numbers_kills_the_program() {
    let status = |filter| {
        program("32bit", filter, Vec::new(), ParentDeath::Kill).stderr(Stdio::null()).status().unwrap()
    };
    assert_eq!(status(Filter::Full).signal(), Some(libc::SIGSYS));
    let unfiltered = status(Filter::None);
    // A kernel without 32-bit calls ends it otherwise.
    assert!(unfiltered.success() || unfiltered.signal() == Some(libc::SIGSEGV), "{unfiltered}");
}
