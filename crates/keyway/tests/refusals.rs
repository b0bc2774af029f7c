//! Each error of the library, brought about as a program can, with its figures and its errno.
//!
//! Some need a broker that misbehaves: there the other end of the socket is spoken by hand.

#![cfg(feature = "embedded")]
// All of this file is tests; clippy's leave for tests does not reach the functions that they share.
#![allow(clippy::unwrap_used)]

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::atomic::Ordering,
    thread,
    time::Duration,
};

use keyway::{
    Audience, Carried, Client, Confined, Denial, Embedded, Ending, Error, Incoming, LargePayloads, Outgoing,
    PoolOptions, Queue, QueueOptions, Rights, SenderOptions, StartError,
};
use keyway_abi::{
    DefaultActions, Farewell, Handle, Malformed, Name, NameError, PROTOCOL_VERSION, ProcessNumber, Reply,
    Request, SessionStart,
    layout::{POSITION_OFFSET, RECORDS_OFFSET},
    limits::{FRAME_BYTES_MAX, FRAME_DESCRIPTORS_MAX},
    request,
};
use keyway_provoked::Figures;
use keyway_shm::{Access, LaneFault};
use keyway_sys::{
    Errno,
    frame::{self, Reception, Sent, Waiting},
    memory::{Mapping, Populate},
    socket::{self, PairUse},
};

const SOON: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(20);

/// Why something was refused, which is noted, with the errno that C is told.
fn refused<T>(outcome: Result<T, Error>, errno: Errno) -> Error {
    let Err(error) = outcome else { panic!("nothing was refused") };
    assert_eq!(error.errno(), errno.raw_os_error(), "{error}");
    // Of these it is what Linux or the broker said.
    let passed_on = matches!(
        error,
        Error::BrokerNotFound { .. }
            | Error::Denied { .. }
            | Error::Map(_)
            | Error::Spawn { .. }
            | Error::System(_)
    );
    let errno = Some(error.errno()).filter(|_| !passed_on);
    let figures = Figures { number: None, errno };
    keyway_provoked::note_figures(&error, "", figures);
    error
}

fn begin() -> (Embedded, Client) {
    let broker = Embedded::start().unwrap();
    let client = Client::over(broker.connect().unwrap()).unwrap();
    (broker, client)
}

fn queue_and_sender(client: &Client, ring_bytes: u32) -> (Queue, keyway::Sender) {
    let queue = client.create_queue(QueueOptions::default()).unwrap();
    let capability = queue.sender_capability(None).unwrap();
    let options = SenderOptions {
        ring_bytes: Some(ring_bytes),
        large: LargePayloads::Refuse,
        ..SenderOptions::default()
    };
    let sender = client.open_sender_with(&capability, options).unwrap();
    (queue, sender)
}

#[test]
fn where_no_broker_is_or_can_be_is_said_with_the_path() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = directory.path().join("none.sock");
    let error = refused(Client::connect_to(&nobody), Errno::NOENT);
    assert!(matches!(&error, Error::BrokerNotFound { path, .. } if *path == nobody), "{error}");
    let long = PathBuf::from(format!("/{}", "x".repeat(107)));
    let error = refused(Client::connect_to(&long), Errno::NAMETOOLONG);
    assert!(matches!(error, Error::SocketPathTooLong { bytes: 108, bytes_max: 107, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(long.to_str().unwrap()) && text.contains("set KEYWAY_SOCKET"), "{text}");
    let longest = PathBuf::from(format!("/{}", "x".repeat(106)));
    assert!(matches!(Client::connect_to(&longest), Err(Error::BrokerNotFound { .. })));
}

/// A library's end of a socket, and a broker's that answers its hello like this.
fn answered_by(answer: impl FnOnce(&OwnedFd, u32) + Send + 'static) -> Result<Client, Error> {
    let pair = socket::seqpacket_pair(PairUse::Session).unwrap();
    let broker = thread::spawn(move || {
        let mut buffer = [0; FRAME_BYTES_MAX];
        socket::wait_readable(&pair.broker_end, Some(SOON)).unwrap();
        let heard = frame::receive_frame(&pair.broker_end, &mut buffer, 0, Waiting::DontWait).unwrap();
        let Reception::Frame(heard) = heard else { panic!("no hello") };
        let (head, _) = keyway_wire::decode_request(&buffer[..heard.bytes], 0).unwrap();
        answer(&pair.broker_end, head.number);
        pair.broker_end
    });
    let client = Client::over(pair.client_end);
    drop(broker.join().unwrap());
    client
}

fn reply(end: &OwnedFd, number: u32, reply: &Reply, descriptors: &[File]) {
    let count = descriptors.len() as u16;
    let bytes = keyway_wire::encode_reply(request::Hello::OPCODE, number, reply, count).unwrap();
    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    assert_eq!(frame::send_frame(end, &bytes, &descriptors, Waiting::Block).unwrap(), Sent::Whole);
}

#[test]
fn a_broker_that_goes_stops_keeps_silent_or_talks_nonsense_is_told_apart() {
    let pair = socket::seqpacket_pair(PairUse::Session).unwrap();
    drop(pair.broker_end);
    let error = refused(Client::over(pair.client_end), Errno::CONNRESET);
    assert!(matches!(error, Error::BrokerGone), "{error}");

    let (broker, client) = begin();
    drop(broker);
    let error = refused(client.capabilities(), Errno::CONNRESET);
    assert!(matches!(error, Error::SessionEnded(Farewell::Stopping)), "{error}");

    let error = refused(
        answered_by(|end, _| {
            let _ = frame::send_frame(end, &[1, 2, 3], &[], Waiting::Block).unwrap();
        }),
        Errno::PROTO,
    );
    let short = Malformed::TooShort { bytes: 3, bytes_min: 16 };
    assert!(matches!(error, Error::BrokerUnreadable(why) if why == short), "{error}");

    let error = refused(answered_by(|end, number| reply(end, number, &Reply::Done, &[])), Errno::PROTO);
    assert!(matches!(error, Error::BrokerIncoherent { operation: "Hello" }), "{error}");

    let start = SessionStart {
        version: PROTOCOL_VERSION,
        process: ProcessNumber(1),
        pid: 1,
        uid: 0,
        gid: 0,
        own: None,
        directory: None,
        now_ns: 0,
    };
    let page = move |end: &OwnedFd, number| {
        let empty = tempfile::tempfile().unwrap();
        reply(end, number, &Reply::Welcome(start), &[empty]);
    };
    let error = refused(answered_by(page), Errno::INVAL);
    assert!(matches!(error, Error::Map(_)), "{error}");

    let file = File::open("/dev/null").unwrap();
    let error = refused(Client::over(file.into()), Errno::NOTSOCK);
    assert!(matches!(error, Error::System(_)), "{error}");
}

#[test]
fn a_broker_that_does_not_answer_is_waited_for_ten_seconds() {
    let pair = socket::seqpacket_pair(PairUse::Session).unwrap();
    let error = refused(Client::over(pair.client_end), Errno::TIMEDOUT);
    let ten = Duration::from_secs(10);
    assert!(matches!(error, Error::BrokerSilent { operation: "Hello", waited } if waited == ten), "{error}");
}

#[test]
fn what_the_broker_denies_comes_with_the_operation_and_the_denial() {
    let (_broker, client) = begin();
    let error = refused(client.lookup("nobody"), Errno::NOENT);
    let unknown = Denial::NameUnknown { name: Name::new("nobody").unwrap() };
    assert!(matches!(&error, Error::Denied { operation: "Lookup", denial } if *denial == unknown), "{error}");
}

#[test]
fn messages_that_do_not_fit_or_carry_too_much_are_refused_with_both_numbers() {
    let (_broker, client) = begin();
    let (_queue, mut sender) = queue_and_sender(&client, 4096);
    let error = refused(sender.try_send(&[0; 5000]), Errno::MSGSIZE);
    let Error::MessageTooLarge { asked_bytes: 5000, bytes_max } = error else { panic!("{error}") };
    assert!((4000..4096).contains(&bytes_max), "{bytes_max}");
    let own = client.own_process().unwrap();
    let carried: Vec<_> = (0..17).map(|_| Carried::Copy(&own, Rights::WATCH)).collect();
    let message = Outgoing { capabilities: &carried, ..Outgoing::default() };
    let error = refused(sender.send_message(&message), Errno::INVAL);
    assert!(matches!(error, Error::TooManyCapabilities { asked: 17, max: 16 }), "{error}");
    sender.send_message(&Outgoing { capabilities: &carried[..16], ..Outgoing::default() }).unwrap();
}

#[test]
fn a_buffer_that_is_too_small_is_refused_with_both_numbers() {
    let (_broker, client) = begin();
    let (mut queue, mut sender) = queue_and_sender(&client, 4096);
    sender.send(&[1; 11]).unwrap();
    for _ in 0..2 {
        let error = refused(queue.receive_into(&mut [0; 10]), Errno::MSGSIZE);
        let is_right = matches!(error, Error::BufferTooSmall { needed_bytes: 11, given_bytes: 10 });
        assert!(is_right, "{error}");
    }
    assert_eq!(queue.receive_into(&mut [0; 11]).unwrap(), 11, "it stayed where it was");
}

#[test]
fn bytes_that_are_not_the_value_expected_are_refused_by_its_name() {
    let (_broker, client) = begin();
    let (mut queue, mut sender) = queue_and_sender(&client, 4096);
    sender.send_value(&(7_u32, "seven")).unwrap();
    let message = queue.receive().unwrap();
    assert_eq!(message.value::<(u32, String)>().unwrap(), (7, "seven".to_owned()));
    for error in [
        refused(message.value::<(u32, u8)>(), Errno::BADMSG),
        refused(message.value::<Vec<String>>(), Errno::BADMSG),
        refused(message.plain::<[u8; 3]>(), Errno::BADMSG),
    ] {
        assert!(matches!(error, Error::NoSuchValue { .. }), "{error}");
    }
}

#[test]
fn a_full_lane_and_an_empty_queue_say_not_now_and_not_in_time() {
    let (_broker, client) = begin();
    let (mut queue, mut sender) = queue_and_sender(&client, 4096);
    let error = refused(queue.try_receive(), Errno::AGAIN);
    assert!(matches!(error, Error::WouldBlock), "{error}");
    let error = refused(queue.receive_timeout(SHORT), Errno::TIMEDOUT);
    assert!(matches!(error, Error::TimedOut(waited) if waited == SHORT), "{error}");
    while sender.try_send(&[0; 1000]).is_ok() {}
    let error = refused(sender.try_send(&[0; 1000]), Errno::AGAIN);
    assert!(matches!(error, Error::WouldBlock), "{error}");
    let error = refused(sender.send_timeout(&[0; 1000], SHORT), Errno::TIMEDOUT);
    assert!(matches!(error, Error::TimedOut(waited) if waited == SHORT), "{error}");
}

#[test]
fn a_lane_that_has_ended_says_how_and_how_much_was_taken() {
    let (_broker, client) = begin();
    let (mut queue, mut sender) = queue_and_sender(&client, 4096);
    sender.send(b"taken").unwrap();
    queue.receive_timeout(SOON).unwrap();
    sender.send(b"untaken").unwrap();
    drop(queue);
    let error = loop {
        if let Err(error) = sender.send_timeout(b"late", SOON) {
            break error;
        }
    };
    let Error::LaneEnded { ending: Ending::PeerDead, acknowledged: 1, sent } = error else {
        panic!("{error}")
    };
    assert!(sent >= 2);
    refused(Err::<(), _>(error), Errno::PIPE);

    let queue = client.create_queue(QueueOptions::default()).unwrap();
    let capability = queue.sender_capability(None).unwrap();
    let below = capability.derive(Rights::SEND, None).unwrap();
    let mut sender = client.open_sender(&below).unwrap();
    capability.revoke().unwrap();
    let error = refused(sender.send(b"late"), Errno::PERM);
    assert!(
        matches!(error, Error::LaneEnded { ending: Ending::Revoked, acknowledged: 0, sent: 0 }),
        "{error}"
    );
}

#[test]
fn an_answer_that_nobody_waits_for_is_refused() {
    let (_broker, client) = begin();
    let mut queue = client.create_queue(QueueOptions::default()).unwrap();
    let capability = queue.sender_capability(None).unwrap();
    let mut caller = client.open_caller(&capability).unwrap();
    assert!(matches!(caller.call(&Outgoing::bytes(b"ask"), SHORT), Err(Error::TimedOut(_))));
    let asked = queue.receive_timeout(SOON).unwrap();
    drop(caller);
    while !matches!(queue.next_timeout(SOON).unwrap(), Incoming::Ended { .. }) {}
    let error = refused(queue.reply(asked.reply_to.unwrap(), &Outgoing::bytes(b"answer")), Errno::NOENT);
    assert!(matches!(error, Error::NoReplyExpected), "{error}");
}

#[test]
fn names_that_are_none_and_capabilities_that_were_not_given_are_refused() {
    let (_broker, client) = begin();
    let error = refused(client.lookup(&"x".repeat(64)), Errno::INVAL);
    let length = NameError::Length { asked_bytes: 64, bytes_max: 63 };
    assert!(matches!(error, Error::Name(why) if why == length), "{error}");
    let error = refused(client.inherited("queue"), Errno::NOENT);
    assert!(
        matches!(&error, Error::NotInherited { name, given } if name == "queue" && given == "none"),
        "{error}"
    );
}

#[test]
fn programs_and_brokers_that_cannot_begin_are_named() {
    let (_broker, client) = begin();
    let error = refused(Confined::new(&client, "/nonexistent").unwrap().spawn(), Errno::NOENT);
    assert!(matches!(&error, Error::Spawn { program, .. } if program == "/nonexistent"), "{error}");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.sock");
    let _first = Embedded::start_at(&path).unwrap();
    let error = refused(Embedded::start_at(&path).map_err(Error::from), Errno::ADDRINUSE);
    let me = std::process::id();
    assert!(
        matches!(error, Error::Start(StartError::AlreadyServed { pid: Some(pid), .. }) if pid == me),
        "{error}"
    );
    let long = PathBuf::from(format!("/{}", "x".repeat(107)));
    refused(Embedded::start_at(&long).map_err(Error::from), Errno::NAMETOOLONG);
}

/// A session spoken by hand.
struct Spoken(OwnedFd, u32);

impl Spoken {
    fn ask(&mut self, request: impl Into<Request>) -> (Reply, Vec<OwnedFd>) {
        self.1 += 1;
        let bytes = keyway_wire::encode_request(self.1, &request.into(), 0).unwrap();
        assert_eq!(frame::send_frame(&self.0, &bytes, &[], Waiting::Block).unwrap(), Sent::Whole);
        let mut buffer = [0; FRAME_BYTES_MAX];
        loop {
            assert!(socket::wait_readable(&self.0, Some(SOON)).unwrap());
            let heard = frame::receive_frame(&self.0, &mut buffer, FRAME_DESCRIPTORS_MAX, Waiting::DontWait);
            let Reception::Frame(heard) = heard.unwrap() else { panic!("the session ended") };
            let incoming = keyway_wire::decode_incoming(&buffer[..heard.bytes], heard.fds.len()).unwrap();
            if let keyway_wire::Incoming::Reply(_, reply) = incoming {
                return (reply, heard.fds);
            }
        }
    }
}

#[test]
fn a_sender_that_writes_what_no_honest_one_writes_ends_its_lane_by_name() {
    let (broker, client) = begin();
    let mut queue = client.create_queue(QueueOptions::default()).unwrap();
    let _name = client.publish("victim", queue.capability(), Rights::SEND, Audience::Everyone).unwrap();
    let mut hostile = Spoken(broker.connect().unwrap(), 0);
    let (version_min, version_max) = (PROTOCOL_VERSION, PROTOCOL_VERSION);
    let default_actions = DefaultActions::Refused;
    let (hello, _page) = hostile.ask(request::Hello { version_min, version_max, default_actions });
    let Reply::Welcome(start) = hello else { panic!("{hello:?}") };
    let directory = start.directory.unwrap_or(Handle::NONE);
    let name = Name::new("victim").unwrap();
    let (found, _) = hostile.ask(request::Lookup { directory, name, on_behalf_of: None });
    let Reply::Capability(found) = found else { panic!("{found:?}") };
    let (opening, memories) =
        hostile.ask(request::OpenLane { queue: found.handle, ring_bytes: 4096, priority: 0, huge: false });
    let Reply::LaneOpening { lane, .. } = opening else { panic!("{opening:?}") };
    let ring = Mapping::new(&memories[0], RECORDS_OFFSET + 4096, Access::Write, Populate::Now).unwrap();
    assert_eq!(hostile.ask(request::LaneMapped { lane }).0, Reply::Done);
    ring.view().store_u32(POSITION_OFFSET, 4, Ordering::Release);
    let why = loop {
        if let Incoming::Ended { why, .. } = queue.next_timeout(SOON).unwrap() {
            break why;
        }
    };
    let fault = LaneFault::PositionUnaligned { position: 4, align_bytes: 8 };
    assert!(matches!(why, Error::PeerFault(found) if found == fault), "{why}");
    refused(Err::<(), _>(why), Errno::PROTO);
}

#[test]
fn what_a_pool_has_not_and_what_no_message_can_name_is_refused_with_the_numbers() {
    let (_broker, client) = begin();
    let (_queue, mut sender) = queue_and_sender(&client, 4096);
    let pool = client.create_pool(PoolOptions { bytes: 4096, ..PoolOptions::default() }).unwrap();
    let error = refused(pool.try_loan(4097), Errno::MSGSIZE);
    assert!(matches!(error, Error::LoanTooLarge { asked_bytes: 4097, bytes_max: 4096 }), "{error}");
    let block = pool.loan(100).unwrap().share();
    let message = Outgoing::default();
    for (start, end) in [(0, 101), (101, 101), (5, 4), (0, usize::MAX)] {
        let error = refused(sender.send_segments(&message, &[block.part(start..end)]), Errno::INVAL);
        let Error::PartOutOfBlock { start: said, end: until, len_bytes: 100 } = error else {
            panic!("{error}")
        };
        assert_eq!((said, until), (start, end));
    }
    let error = refused(sender.send_segments(&message, &vec![block.whole(); 65]), Errno::INVAL);
    assert!(matches!(error, Error::TooManySegments { asked: 65, max: 64 }), "{error}");
    sender.send_segments(&message, &vec![block.whole(); 64]).unwrap();
}

#[test]
fn a_message_that_is_larger_than_the_buffer_stays_and_says_so_whichever_way_it_came() {
    let (_broker, client) = begin();
    let mut queue = client.create_queue(QueueOptions::default()).unwrap();
    let mut sender = client.open_sender(&queue.sender_capability(None).unwrap()).unwrap();
    let mut buffer = vec![0; 100_000];
    for len in [101, 100_000] {
        sender.send(&buffer[..len]).unwrap();
        let error = refused(queue.receive_into(&mut buffer[..100]), Errno::MSGSIZE);
        let Error::BufferTooSmall { needed_bytes, given_bytes: 100 } = error else { panic!("{error}") };
        assert_eq!(needed_bytes, len);
        assert_eq!(queue.receive_into(&mut buffer).unwrap(), len);
    }
}
