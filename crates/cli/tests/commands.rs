//! The command as a user runs it: the tour, a broker in one terminal, and looking at it from another.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs::Permissions,
    io::{BufRead, BufReader, Lines, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, ChildStderr, Command, Output, Stdio},
    time::{Duration, Instant},
};

use keyway::{Audience, Badge, Client, Queue, QueueOptions, Rights};
use serde_json::Value;

/// A broker in a process of its own.
struct Served {
    directory: tempfile::TempDir,
    child: Child,
}

impl Served {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("broker.sock");
        let mut child = keyway(&["serve", "--socket", path(&socket)]).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("serving"), "{line}");
        Served { directory, child }
    }

    /// A broker with this policy, and what it says.
    fn start_under(policy: &str) -> (Self, Lines<BufReader<ChildStderr>>) {
        let directory = tempfile::tempdir().unwrap();
        let (file, socket) = (directory.path().join("policy.toml"), directory.path().join("broker.sock"));
        write_policy(&file, policy);
        let mut command = keyway(&["serve", "--socket", path(&socket), "--policy", path(&file)]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(told.next().unwrap().unwrap().contains("serving"));
        let held = told.next().unwrap().unwrap();
        assert!(held.contains(path(&file)), "{held}");
        (Served { directory, child }, told)
    }

    /// Another policy, which is read; returns what the broker says of that.
    fn reload(&self, policy: &str, told: &mut Lines<BufReader<ChildStderr>>) -> String {
        write_policy(&self.directory.path().join("policy.toml"), policy);
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
        told.next().unwrap().unwrap()
    }

    fn socket(&self) -> std::path::PathBuf {
        self.directory.path().join("broker.sock")
    }

    fn look(&self, command: &[&str]) -> Output {
        let mut arguments = command.to_vec();
        let socket = self.socket();
        arguments.extend(["--socket", path(&socket)]);
        keyway(&arguments).output().unwrap()
    }

    fn look_json(&self, command: &[&str]) -> Value {
        let mut arguments = command.to_vec();
        arguments.push("--json");
        let output = self.look(&arguments);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn keyway(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyway"));
    command.args(arguments).stdin(Stdio::null()).env_remove("KEYWAY_SOCKET").env_remove("KEYWAY_POLICY");
    command
}

/// A file that only its owner can write, whatever this process's mask is.
fn write_policy(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_tour_holds_and_says_so_in_json() {
    let output = keyway(&["--json", "--messages", "100000"]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["held"], true, "{errors}");
    let scenes = told["scenes"].as_array().unwrap();
    assert!(scenes.len() >= 4 && scenes.iter().all(|scene| scene["held"] == true));
    let refusals: usize = scenes.iter().map(|scene| scene["refusals"].as_array().unwrap().len()).sum();
    assert!(refusals >= 20, "{refusals} refusals");
    let figures = told["figures"].as_array().unwrap();
    assert!(figures.iter().any(|figure| figure["value"] == 100_000.0 && figure["unit"] == "messages"));
    assert!(figures.iter().all(|figure| figure["value"].as_f64().unwrap() > 0.0));
}

#[test]
fn the_tour_is_plain_text_on_a_pipe_and_saves_the_screen() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("screen.png");
    let output = keyway(&["tour", "--messages", "20000", "--screenshot", path(&file)]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains('\u{1b}') && !text.contains('\r'), "no escapes on a pipe");
    assert!(text.contains("Every step held"), "{text}");
    assert_eq!(&std::fs::read(&file).unwrap()[..8], b"\x89PNG\r\n\x1a\n");
}

#[test]
fn ps_caps_and_queues_show_what_is_there() {
    let served = Served::start();
    let client = Client::connect_to(&served.socket()).unwrap();
    let mut queue = client.create_queue(QueueOptions::default()).unwrap();
    let name = client.publish("shown", queue.capability(), Rights::SEND, Audience::Everyone).unwrap();
    let capability = queue.sender_capability(Some(Badge(42))).unwrap();
    let mut sender = client.open_sender(&capability).unwrap();
    sender.send(&[7; 100]).unwrap();
    queue.receive().unwrap();
    sender.send(&[7; 100]).unwrap();
    let pid = u64::from(std::process::id());
    let processes = served.look_json(&["ps"]);
    let mine = processes.as_array().unwrap().iter().find(|entry| entry["pid"] == pid).unwrap();
    assert_eq!((mine["lanes_sending"].as_u64(), mine["lanes_receiving"].as_u64()), (Some(1), Some(1)));
    let held = served.look_json(&["caps", &pid.to_string()]);
    let held = held.as_array().unwrap();
    let badged = held.iter().find(|entry| entry["badge"] == 42).unwrap();
    let root = held.iter().find(|entry| entry["kind"] == "Queue" && entry["parent"].is_null()).unwrap();
    assert_eq!(badged["object"], root["object"]);
    assert_eq!(badged["parent"][1], root["handle"]);
    let queues = served.look_json(&["queues"]);
    let shown = queues.as_array().unwrap().iter().find(|entry| entry["name"] == "shown").unwrap();
    let lane = &shown["lanes"][0];
    assert_eq!((lane["waiting_bytes"].as_u64(), lane["messages_taken"].as_u64()), (Some(112), Some(1)));
    for command in ["ps", "caps", "queues", "audit"] {
        let output = served.look(&[command]);
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.lines().count() >= 2 && text.contains(&pid.to_string()), "{text}");
    }
    drop(name);
}

#[test]
fn a_process_that_is_killed_is_listed_no_more() {
    let served = Served::start();
    let client = Client::connect_to(&served.socket()).unwrap();
    let socket = served.socket();
    // The bridge is a process that connects by itself.
    let mut seat = keyway(&["seat", "--backend", "headless", "--socket", path(&socket)])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(seat.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let listed = |pid: u32| client.processes().unwrap().iter().any(|entry| entry.pid == pid);
    assert!(listed(seat.id()), "{line}");
    seat.kill().unwrap();
    let killed = Instant::now();
    while listed(seat.id()) {
        assert!(killed.elapsed() < Duration::from_secs(5), "still listed");
    }
    seat.wait().unwrap();
    assert!(client.lookup("rustica-gui").unwrap_err().denial().is_some(), "its names are gone");
}

#[test]
fn a_broker_that_is_told_to_stop_ends_well_and_takes_its_socket_along() {
    let mut served = Served::start();
    let client = Client::connect_to(&served.socket()).unwrap();
    let pid = served.child.id().to_string();
    assert!(Command::new("kill").arg(&pid).status().unwrap().success());
    assert!(served.child.wait().unwrap().success());
    assert!(!served.socket().exists());
    assert!(client.capabilities().unwrap_err().to_string().contains("the broker stops"));
}

#[test]
fn a_second_broker_is_refused_and_told_whose_socket_it_is() {
    let served = Served::start();
    let output = served.look(&["serve"]);
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(&format!("process {}", served.child.id())), "{text}");
}

#[test]
fn a_broker_with_few_descriptors_shares_them_out() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("broker.sock");
    // Some of them are open already when the broker begins, and some it keeps in reserve.
    let script =
        format!("ulimit -n 160; exec {} serve --socket {}", env!("CARGO_BIN_EXE_keyway"), path(&socket));
    let child = Command::new("sh").args(["-c", &script]).stderr(Stdio::piped()).spawn().unwrap();
    let mut served = Served { directory, child };
    let mut line = String::new();
    BufReader::new(served.child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    let mut clients = Vec::new();
    let refused = loop {
        match Client::connect_to(&socket) {
            Ok(client) => clients.push(client),
            Err(error) => break error,
        }
        assert!(clients.len() < 40, "more sessions than descriptors");
    };
    assert!(refused.to_string().contains("descriptors are in use by this process"), "{refused}");
    for client in &clients {
        assert!(!client.capabilities().unwrap().is_empty());
    }
    // Another process has its share still.
    assert!(served.look(&["ps"]).status.success());
    clients.pop();
    let began = Instant::now();
    while Client::connect_to(&socket).is_err() {
        assert!(began.elapsed() < Duration::from_secs(5), "nobody is let in again");
    }
}

#[test]
fn a_broker_that_linux_gives_no_descriptor_turns_newcomers_away_and_serves_the_others() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let served = Served::start();
    let client = Client::connect_to(&served.socket()).unwrap();
    let pid = Pid::from_raw(served.child.id().cast_signed());
    // More than it has open at the beginning, and less than many sessions need.
    let before = prlimit(pid, Resource::Nofile, Rlimit { current: Some(64), maximum: Some(1 << 10) });
    assert!(before.is_ok());
    let mut others = Vec::new();
    let refused = loop {
        match Client::connect_to(&served.socket()) {
            Ok(other) => others.push(other),
            Err(error) => break error,
        }
        assert!(others.len() < 64, "more sessions than descriptors");
    };
    assert!(refused.to_string().contains("errno 24"), "{refused}");
    assert!(!client.capabilities().unwrap().is_empty());
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(1 << 10), maximum: Some(1 << 10) }).unwrap();
    Client::connect_to(&served.socket()).unwrap();
}

#[test]
fn nobody_there_and_nobody_of_that_pid_are_told_with_what_to_do() {
    let output = keyway(&["ps", "--socket", "/nonexistent/broker.sock"]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("keyway serve"), "{text}");
    let served = Served::start();
    let output = served.look(&["caps", "1"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("keyway ps"), "{text}");
}

#[test]
fn whoever_may_not_look_is_told_which_right_is_missing_and_who_gives_it() {
    let mut policy = names("");
    for directory in [true, false] {
        if !directory {
            policy = policy.replace("directory = [\"derive\", \"publish\", \"lookup\"]", "");
        }
        let (served, _told) = Served::start_under(&policy);
        let uid = Client::connect_to(&served.socket()).unwrap().uid();
        for (command, right) in
            [("ps", "inspect"), ("caps", "inspect"), ("queues", "inspect"), ("audit", "audit")]
        {
            let output = served.look(&[command]);
            assert_eq!(output.status.code(), Some(1));
            let text = String::from_utf8(output.stderr).unwrap();
            let held = if directory { "derive+publish+lookup" } else { "none" };
            let words = [
                format!(
                    "needs the right {right} on the directory, and this process of user {uid} has {held}"
                ),
                "keyway policy show".into(),
                format!("user = {uid} and directory = [\"{right}\"]"),
            ];
            assert!(words.iter().all(|word| text.contains(word)), "{command}: {text}");
        }
    }
}

#[test]
fn a_path_too_long_for_a_socket_is_told_with_both_lengths() {
    let directory = tempfile::tempdir().unwrap();
    let length = path(directory.path()).len();
    // Both at the limit and above it: 107 bytes are possible.
    let long = directory.path().join("x".repeat(107 - length));
    for command in ["serve", "ps"] {
        let output = keyway(&[command, "--socket", path(&long)]).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        let told = format!("path {} has 108 bytes, a Unix socket's has 107 at most; choose", path(&long));
        assert!(text.contains(&told), "{command}: {text}");
    }
    assert!(!long.exists() && std::fs::read_dir(directory.path()).unwrap().count() == 0, "nothing was made");
}

#[test]
fn help_names_every_command() {
    let mut text = String::new();
    let mut child = keyway(&["--help"]).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    for command in ["tour", "serve", "seat", "ps", "caps", "queues", "audit", "policy"] {
        assert!(text.contains(command), "{text}");
    }
    assert!(!text.contains("tour-role"), "{text}");
}

/// A policy under which the broker's user may do everything with the names that begin like this.
fn names(prefix: &str) -> String {
    format!(
        r#"
        [[standing]]
        user = "broker"
        own = ["derive", "grant"]
        directory = ["derive", "publish", "lookup"]
        [[name]]
        prefix = "{prefix}"
        user = "broker"
        allow = ["publish", "lookup"]
        "#
    )
}

/// The number of the denial, when a name cannot be published.
fn refused(client: &Client, queue: &Queue, name: &str) -> Option<u32> {
    let published = client.publish(name, queue.capability(), Rights::SEND, Audience::Everyone);
    published.err().map(|error| error.denial().expect("a denial").number())
}

const NAME_FORBIDDEN: u32 = 60;

#[test]
fn a_policy_is_checked_with_every_mistake_and_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("policy.toml");
    write_policy(&file, &names("org."));
    let output = keyway(&["policy", "check", path(&file)]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.lines().count() == 1, "{text}");
    assert!(text.contains(path(&file)) && text.contains("1 entry on names"), "{text}");
    write_policy(&file, "[[standing]]\nuser = 1\nown = [\"fly\"]\n\n[limits.user]\nwings = 2\n");
    for command in [["policy", "check", path(&file)], ["serve", "--policy", path(&file)]] {
        let output = keyway(&command).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].contains("2 mistakes"), "{text}");
        assert!(lines[1].starts_with(&format!("{}:3:8: there is no right \"fly\"", path(&file))), "{text}");
        assert!(lines[2].starts_with(&format!("{}:6:1: [limits.user] has no key", path(&file))), "{text}");
    }
}

#[test]
fn a_file_that_others_could_write_or_that_is_none_is_refused_with_advice() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("policy.toml");
    let check = |words: &[&str]| {
        let output = keyway(&["policy", "check"]).env("KEYWAY_POLICY", &file).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.success(), words.is_empty(), "{text}");
        assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
    };
    check(&["cannot be read", path(&file)]);
    write_policy(&file, &names(""));
    check(&[]);
    for mode in [0o646, 0o664] {
        std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        check(&["could be written by others", &format!("mode {mode:o}"), "chmod go-w"]);
    }
    write_policy(&file, &"#".repeat((1 << 18) + 1));
    check(&["longer than the 262144 bytes"]);
    write_policy(&file, &"#".repeat(1 << 18));
    check(&[]);
    std::fs::write(&file, b"# \xc3\xa9\n# \xff\n").unwrap();
    check(&[":2:3: ", "UTF-8"]);
    std::fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    check(&["no regular file"]);
}

#[test]
fn what_is_shown_of_a_policy_passes_the_check_and_shows_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let (file, copy) = (directory.path().join("policy.toml"), directory.path().join("copy.toml"));
    write_policy(&file, &names("org."));
    let show = |of: &[&str]| {
        let output = keyway(&["policy", "show"]).args(of).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for shown in [show(&[]), show(&[path(&file)])] {
        assert!(shown.contains("[[standing]]") && shown.contains("[limits.process]"), "{shown}");
        write_policy(&copy, &shown);
        assert!(keyway(&["policy", "check", path(&copy)]).output().unwrap().status.success());
        assert_eq!(show(&[path(&copy)]), shown);
    }
}

#[test]
fn a_policy_read_again_changes_who_may_publish_and_ends_no_session() {
    let (served, mut told) = Served::start_under(&names("first."));
    let client = Client::connect_to(&served.socket()).unwrap();
    let mut queue = client.create_queue(QueueOptions::default()).unwrap();
    let kept = client.publish("first.a", queue.capability(), Rights::SEND, Audience::Everyone).unwrap();
    let mut sender = client.open_sender(&client.lookup("first.a").unwrap()).unwrap();
    assert_eq!(refused(&client, &queue, "second.a"), Some(NAME_FORBIDDEN));
    let line = served.reload(&format!("limits.process.objects = 3\n{}", names("second.")), &mut told);
    assert!(line.contains("read again") && line.contains("limits of its own"), "{line}");
    sender.send(b"still here").unwrap();
    assert_eq!(&queue.receive().unwrap().payload[..], b"still here");
    assert_eq!(refused(&client, &queue, "first.b"), Some(NAME_FORBIDDEN));
    assert_eq!(refused(&client, &queue, "second.a"), None);
    let looked_up = client.lookup("first.a").unwrap_err();
    assert_eq!(looked_up.denial().map(keyway::Denial::number), Some(NAME_FORBIDDEN), "{looked_up}");
    let another = client.create_queue(QueueOptions::default()).unwrap();
    let full = client.create_queue(QueueOptions::default()).unwrap_err();
    assert!(full.to_string().contains("the limit is 3"), "{full}");
    let line = served.reload(&names("first."), &mut told);
    assert!(line.contains("limits as built in"), "{line}");
    client.lookup("first.a").unwrap();
    client.create_queue(QueueOptions::default()).unwrap();
    drop((kept, another));
}

#[test]
fn a_policy_with_a_mistake_is_told_and_the_old_one_holds_on() {
    let (served, mut told) = Served::start_under(&names("first."));
    let client = Client::connect_to(&served.socket()).unwrap();
    let queue = client.create_queue(QueueOptions::default()).unwrap();
    let line = served.reload("[[standing]]\neveryone = true\nown = [\"fly\"]\n", &mut told);
    assert!(line.contains("the old policy holds on"), "{line}");
    let line = told.next().unwrap().unwrap();
    assert!(line.contains("policy.toml:3:8: there is no right \"fly\""), "{line}");
    assert_eq!(refused(&client, &queue, "second.a"), Some(NAME_FORBIDDEN));
    assert_eq!(refused(&client, &queue, "first.a"), None);
    // Whoever connects now begins under the old one too.
    assert!(!Client::connect_to(&served.socket()).unwrap().capabilities().unwrap().is_empty());
    std::fs::remove_file(served.directory.path().join("policy.toml")).unwrap();
    let pid = served.child.id().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    assert!(told.next().unwrap().unwrap().contains("the old policy holds on"));
    assert_eq!(refused(&client, &queue, "second.a"), Some(NAME_FORBIDDEN));
    // What it began with it keeps, whatever the policy says of those who come.
    let line = served.reload("", &mut told);
    assert!(line.contains("no process begins with anything"), "{line}");
    assert_eq!(refused(&client, &queue, "third"), None);
    assert!(Client::connect_to(&served.socket()).unwrap().capabilities().unwrap().is_empty());
}
