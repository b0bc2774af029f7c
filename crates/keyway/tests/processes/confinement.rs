//! Confined children: what they were given is all that they have, and their session is theirs alone.

use std::{
    env,
    io::ErrorKind,
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    process::Command,
    time::Duration,
};

use keyway::{
    Audience, Badge, Client, Confined, ConfinedChild, Denial, Error, Handle, Incoming, QueueOptions, Rights,
    abi::{self, DefaultActions, Event, Farewell, Fault, PROTOCOL_VERSION, Reply, Request, request},
};
use keyway_sys::{
    confine::{self, Filter, ParentDeath},
    frame::{self, Reception, Sent, Waiting},
    inherited, socket,
};

use crate::{
    players::{self, PATIENCE, Player, SOON},
    stage::{Stage, open_inbox},
};

/// Prepares a confined process that will play this part.
fn confined(client: &Client, role: &str, argument: &str) -> Confined {
    let mut confined = Confined::new(client, env::current_exe().unwrap()).unwrap();
    players::direct(confined.command(), role, argument);
    confined
}

/// Starts it. The player is the process; the capability is to it.
fn start(confined: Confined) -> (Player, keyway::Capability) {
    let ConfinedChild { process, child } = confined.spawn().unwrap();
    (Player::of(child), process)
}

fn is_unknown<T>(outcome: Result<T, Error>) -> bool {
    let denial = outcome.err().and_then(|error| error.denial().cloned());
    matches!(denial, Some(Denial::UnknownHandle { .. }))
}

/// Tries what a confined process must not, and then what it may.
pub(crate) fn try_everything() {
    let refused = |error: std::io::Error| error.kind() == ErrorKind::PermissionDenied;
    let socket_path = env::temp_dir().join("keyway-nobody-listens-here");
    assert!(refused(UnixStream::connect(&socket_path).unwrap_err()), "connect");
    assert!(refused(UnixListener::bind(&socket_path).unwrap_err()), "bind");
    assert!(refused(std::net::TcpListener::bind("127.0.0.1:0").unwrap_err()), "tcp");
    assert!(env::var("KEYWAY_SOCKET").is_err());

    let client = Client::connect().unwrap();
    assert_eq!(client.pid(), std::process::id());
    assert!(client.own_process().is_none());
    assert!(is_unknown(client.lookup("inbox")), "lookup");
    assert!(is_unknown(client.processes()), "processes");
    assert!(is_unknown(client.lanes()), "lanes");
    assert!(is_unknown(client.open_depositor()), "deposit");
    assert!(is_unknown(Confined::new(&client, "/bin/true")), "start");
    let queue = client.create_queue(QueueOptions::default()).unwrap();
    let published = client.publish("mine", queue.capability(), Rights::SEND, Audience::Everyone);
    assert!(is_unknown(published), "publish");
    drop(queue);

    let missing = client.inherited("more").unwrap_err().to_string();
    assert!(missing.contains("out") && missing.contains("picture"), "{missing}");
    let out = client.inherited("out").unwrap();
    assert_eq!(out.rights(), Rights::SEND);
    assert!(client.map_reader(&out).unwrap_err().denial().is_some(), "a queue is no region");
    assert!(out.derive(Rights::SEND, None).unwrap_err().denial().is_some(), "not given");
    let picture = client.inherited("picture").unwrap();
    assert!(client.map_writer(&picture).unwrap_err().denial().is_some(), "not given");
    let mut bytes = [0; 7];
    client.map_reader(&picture).unwrap().read(0, &mut bytes).unwrap();
    assert_eq!(client.capabilities().unwrap().len(), 2);
    let mut sender = client.open_sender(&out).unwrap();
    sender.send(&bytes).unwrap();
    // The lane goes with the session, so the message is the last thing.
    players::say("done");
    players::wait_to_be_told();
}

#[test]
fn a_confined_child_has_what_it_was_given_and_nothing_else() {
    let stage = Stage::begin();
    let client = stage.client();
    let (mut inbox, _name) = open_inbox(&client, "inbox");
    let region = client.create_region(4096).unwrap();
    let writer = client.map_writer(&region).unwrap();
    writer.write(0, b"picture").unwrap();
    let mut child = confined(&client, "confined", "");
    let out = inbox.sender_capability(None).unwrap();
    child.give("out", &out, Rights::SEND, Some(Badge(5))).unwrap();
    child.give("picture", &region, Rights::MAP, None).unwrap();
    let (mut player, process) = start(child);
    assert_eq!(player.hear(), "done");
    let message = inbox.receive_timeout(PATIENCE).unwrap();
    assert_eq!(message.payload, b"picture");
    assert_eq!((message.badge, message.sender.pid), (Some(Badge(5)), player.pid()));
    let entries = stage.witness.processes().unwrap();
    assert!(entries.iter().any(|entry| entry.pid == player.pid() && entry.confined));

    let watch = process.watch().unwrap();
    assert!(!watch.has_ended().unwrap());
    player.tell("end");
    player.ends_well();
    assert!(watch.wait(SOON).unwrap() < SOON);
    assert!(matches!(inbox.next_timeout(SOON).unwrap(), Incoming::Ended { .. }));
    stage.forgets(player.pid());
}

/// Takes the socket that a confined process inherits.
fn inherited_socket() -> OwnedFd {
    inherited::take(env::var("KEYWAY_FD").unwrap().parse().unwrap()).unwrap()
}

fn send(socket: &OwnedFd, request: impl Into<Request>) {
    let bytes = keyway_wire::encode_request(1, &request.into(), 0).unwrap();
    assert_eq!(frame::send_frame(socket, &bytes, &[], Waiting::Block).unwrap(), Sent::Whole);
}

fn hear(socket: &OwnedFd) -> keyway_wire::Incoming {
    assert!(socket::wait_readable(socket, Some(PATIENCE)).unwrap(), "nothing was said");
    let mut buffer = [0; abi::limits::FRAME_BYTES_MAX];
    let Reception::Frame(received) =
        frame::receive_frame(socket, &mut buffer, 16, Waiting::DontWait).unwrap()
    else {
        panic!("the session ended without a word")
    };
    keyway_wire::decode_incoming(&buffer[..received.bytes], received.fds.len()).unwrap()
}

/// Begins a session by hand.
fn greet(socket: &OwnedFd) {
    send(
        socket,
        request::Hello {
            version_min: PROTOCOL_VERSION,
            version_max: PROTOCOL_VERSION,
            default_actions: DefaultActions::Refused,
        },
    );
    let welcome = hear(socket);
    assert!(matches!(welcome, keyway_wire::Incoming::Reply(_, Reply::Welcome(_))), "{welcome:?}");
}

/// Begins its session, and lets a child of its own speak there.
pub(crate) fn let_a_child_speak() {
    let socket = inherited_socket();
    greet(&socket);
    let mut command = Command::new(env::current_exe().unwrap());
    players::direct(&mut command, "grandchild", "");
    let inherit = vec![socket.try_clone().unwrap()];
    let numbers = confine::confine(&mut command, inherit, Filter::Full, ParentDeath::Kill).unwrap();
    command.env("KEYWAY_FD", numbers[0].to_string());
    let mut grandchild = Player::of(command.spawn().unwrap());
    assert_eq!(grandchild.hear(), "spoken");
    let heard = hear(&socket);
    let keyway_wire::Incoming::Event(Event::Farewell(farewell)) = heard else {
        panic!("no farewell: {heard:?}")
    };
    let expected = Fault::ForeignFrame { bound_pid: std::process::id(), found_pid: grandchild.pid() };
    assert_eq!(farewell, Farewell::Fault(expected));
    players::say("ended");
}

/// Speaks where its parent has begun.
pub(crate) fn speak_on_an_inherited_socket() {
    let socket = inherited_socket();
    send(&socket, request::ListOwn { after: Handle::NONE });
    players::say("spoken");
    players::wait_to_be_told();
}

#[test]
fn a_child_of_a_confined_child_has_no_session_and_its_frame_ends_its_parents() {
    let stage = Stage::begin();
    let client = stage.client();
    let (mut player, process) = start(confined(&client, "confined parent", ""));
    assert_eq!(player.hear(), "ended");
    assert!(process.watch().unwrap().wait(SOON).unwrap() < SOON);
    player.ends_well();
    stage.forgets(player.pid());
}

/// Uses handles by number that it was never given.
pub(crate) fn use_the_handle_of_another() {
    let socket = inherited_socket();
    greet(&socket);
    let own = Handle::from_raw(
        env::var("KEYWAY_CAPABILITIES").unwrap().split_once('=').unwrap().1.parse().unwrap(),
    );
    for slot in 0..64 {
        for generation in 0..4 {
            let handle = Handle::new(slot, generation);
            if handle == own {
                continue;
            }
            send(&socket, request::Derive { from: handle, terms: abi::Terms::rights(Rights::SEND) });
            let keyway_wire::Incoming::Reply(_, Reply::Denied(denial)) = hear(&socket) else {
                panic!("{handle} was not denied")
            };
            let is_nothing = matches!(denial, Denial::UnknownHandle { .. } | Denial::StaleHandle { .. });
            assert!(is_nothing, "{handle}: {denial}");
        }
    }
    players::say("nothing");
}

#[test]
fn a_confined_child_gains_nothing_by_the_handles_of_its_starter() {
    let stage = Stage::begin();
    let client = stage.client();
    let queues: Vec<_> = (0..20).map(|_| client.create_queue(QueueOptions::default()).unwrap()).collect();
    let mut child = confined(&client, "forger", "");
    child.give("one", queues[3].capability(), Rights::SEND | Rights::DERIVE, None).unwrap();
    let (mut player, _process) = start(child);
    assert_eq!(player.hear(), "nothing");
    player.ends_well();
}

/// Connects, and waits.
pub(crate) fn idle() {
    let client = Client::connect().unwrap();
    players::say("connected");
    players::wait_to_be_told();
    let lost = client.take_notices().unwrap();
    players::say(lost.len());
    players::stay();
}

#[test]
fn a_starter_that_dies_leaves_its_child_alive_and_takes_back_what_was_its_own() {
    let stage = Stage::begin();
    let starter = stage.client();
    let queue = starter.create_queue(QueueOptions::default()).unwrap();
    let mut child = confined(&starter, "idler", "");
    child.give("queue", queue.capability(), Rights::SEND, None).unwrap();
    let (mut player, process) = start(child);
    assert_eq!(player.hear(), "connected");
    drop((queue, process, starter));
    std::thread::sleep(Duration::from_millis(20));
    player.tell("look");
    assert_eq!(player.hear(), "1", "the queue ended, and the child was told");
    assert!(stage.knows(player.pid()));
    player.kill();
    stage.forgets(player.pid());
}

#[test]
fn a_program_that_cannot_be_started_leaves_no_process_behind() {
    let stage = Stage::begin();
    let client = stage.client();
    let before = stage.footprint();
    for _ in 0..20 {
        let error = Confined::new(&client, "/nonexistent").unwrap().spawn().unwrap_err();
        assert!(matches!(&error, Error::Spawn { program, .. } if program == "/nonexistent"), "{error}");
    }
    stage.forgets(0);
    stage.shrinks_to(before);
}
