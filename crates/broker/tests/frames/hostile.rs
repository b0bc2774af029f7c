//! Processes that take nothing, or more than their share, in numbers that the broker has to bear: it lives, and others are
//! served.

use std::{
    io::Write,
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::chown, process::CommandExt},
    },
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use keyway_abi::{
    Event, Farewell, Fault, Handle, Name, Payer, Quota, Reply, Rights, Terms, layout::PAGE_BYTES, request,
};
use keyway_broker::Embedded;
use keyway_shm::Access;
use keyway_sys::{
    Errno,
    frame::{self, Sent, Waiting},
    inherited,
    memory::{Mapping, Populate},
    socket::{self, PairUse},
};
use keyway_wire::Incoming;
use rustix::{
    net::sockopt,
    process::{Resource, Rlimit},
};

use crate::{
    Scene,
    children::{self, Player},
    crowd::eventually,
    session::{Heard, Session},
};

/// Watches the process of each of so many capabilities that it is given, and then hears nothing more.
pub(crate) fn turn_deaf(descriptor: i32, argument: &str) {
    let mut session = Session::over(inherited::take(descriptor).unwrap());
    session.greet();
    children::say("here");
    for _ in 0..argument.parse().unwrap() {
        let process = loop {
            if let Heard::Frame(Incoming::Event(Event::CapabilityReceived { handle, .. }), _) = session.hear()
            {
                break handle;
            }
        };
        assert_eq!(session.ask(request::Watch { process }).0, Reply::Done);
        children::say("watching");
    }
    children::say("deaf");
    loop {
        std::thread::park();
    }
}

#[test]
fn hundreds_of_frames_for_who_does_not_read_end_its_session_once_and_not_the_broker() {
    const EACH: usize = 1000;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.sock");
    let mut broker = Player::start("broker", path.to_str().unwrap(), Vec::new());
    assert_eq!(broker.hear(), "ready");
    let (mut bystander, mut owner) = (Session::open(&path), Session::open(&path));
    let own = owner.own();
    let mut deaf = Vec::new();
    for _ in 0..2 {
        let (child, sockets) = owner.create(request::StartChild { process: own });
        let mut player = Player::start("deaf", &EACH.to_string(), sockets);
        assert_eq!(player.hear(), "here");
        for _ in 0..EACH {
            let terms = Terms::rights(Rights::WATCH);
            owner.create(request::Grant { from: own, to: child, terms });
            assert_eq!(player.hear(), "watching");
        }
        assert_eq!(player.hear(), "deaf");
        deaf.push(player);
    }
    // Each of the deaf is told of its end once for each capability.
    drop(owner);
    eventually("the deaf are let go", || bystander.processes().len() == 1);
    assert!(broker.child.try_wait().unwrap().is_none(), "the broker lives");
}

/// A socket whose close takes minutes: it lingers over bytes that the other end does not read.
fn lingering(listener: &TcpListener) -> (OwnedFd, TcpStream) {
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (other, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    // The other end's buffer grows for a while, and what it takes is not waited for.
    while stream.write(&[0; 1 << 12]).is_ok() || {
        std::thread::sleep(Duration::from_millis(100));
        stream.write(&[0; 1 << 12]).is_ok()
    } {}
    stream.set_nonblocking(false).unwrap();
    sockopt::set_socket_linger(&stream, Some(Duration::from_secs(600))).unwrap();
    (stream.into(), other)
}

#[test]
fn what_waits_unread_in_a_deposit_socket_is_closed_where_it_keeps_nobody_waiting() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (slow, other_end) = lingering(&listener);
    let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let mut scene = Scene::begin();
    let mut offender = scene.offender();
    let process = offender.own();
    let (_, doors) = offender.ask(request::OpenDeposit { process });
    // The first ends the session; the others are still in the socket by then.
    let beside = [&null, &slow, &slow, &slow];
    for fd in beside {
        let sent = frame::send_frame(&doors[0], b"junk", &[fd.as_fd()], Waiting::Block).unwrap();
        assert_eq!(sent, Sent::Whole);
    }
    drop(slow);
    offender.farewell();
    scene.bystander.is_served();
    let mut depositor = scene.offender();
    let process = depositor.own();
    let (_, doors) = depositor.ask(request::OpenDeposit { process });
    for _ in 0..3 {
        let request = request::Deposit { label: Name::new("thing").unwrap() };
        let bytes = keyway_wire::encode_request(1, &request.into(), 1).unwrap();
        let sent = frame::send_frame(&doors[0], &bytes, &[null.as_fd()], Waiting::Block).unwrap();
        assert_eq!(sent, Sent::Whole);
        let door = Session::over(doors[0].try_clone().unwrap());
        assert!(matches!(door.hear(), Heard::Frame(Incoming::Reply(..), _)), "it is answered");
    }
    scene.bystander.is_served();
    // With the other end gone nothing is left to wait for.
    drop(other_end);
}

/// Descriptors that the broker of these tests can have open, and send.
const FEW: u64 = 256;
/// Those who use up what a user can send in all are alone with their user's broker.
static ALONE: Mutex<()> = Mutex::new(());

/// A user without privileges, to whom Linux's limit applies: one that no other run of these tests takes at the same time, or the
/// own one of whoever cannot choose.
fn limited_user() -> Option<u32> {
    rustix::process::geteuid().is_root().then(|| 20_000 + std::process::id() % 40_000)
}

fn limit_descriptors() {
    let limit = Rlimit { current: Some(FEW), maximum: Some(FEW) };
    rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
}

/// Is a broker with few descriptors.
pub(crate) fn serve_few(path: &str) {
    limit_descriptors();
    let _broker = Embedded::start_at(path.as_ref()).unwrap();
    children::say("ready");
    loop {
        std::thread::park();
    }
}

/// Sends descriptors to itself until Linux lets its user send no more.
pub(crate) fn hoard() {
    limit_descriptors();
    let mut pairs = Vec::new();
    let mut sent = 0;
    loop {
        let pair = socket::seqpacket_pair(PairUse::Session).unwrap();
        let fds = [pair.client_end.as_fd(); 32];
        match frame::send_frame(&pair.broker_end, b"x", &fds, Waiting::DontWait) {
            Ok(_) => sent += fds.len(),
            Err(error) => {
                assert_eq!(error.errno, Errno::TOOMANYREFS, "after {sent}");
                break;
            }
        }
        pairs.push(pair);
    }
    children::say("full");
    loop {
        std::thread::park();
    }
}

/// Starts this program as a user whom Linux limits.
fn start_limited(role: &str, argument: &str) -> Player {
    let mut command = Command::new(std::env::current_exe().unwrap());
    children::direct(&mut command, role, argument);
    if let Some(user) = limited_user() {
        command.uid(user).gid(user);
    }
    Player::spawn(command, Vec::new())
}

/// A broker that can send few descriptors.
struct Limited {
    path: std::path::PathBuf,
    _broker: Player,
    _directory: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Limited {
    fn begin() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::tempdir().unwrap();
        if let Some(user) = limited_user() {
            chown(directory.path(), Some(user), Some(user)).unwrap();
        }
        let path = directory.path().join("broker.sock");
        let mut broker = start_limited("few", path.to_str().unwrap());
        assert_eq!(broker.hear(), "ready");
        Limited { path, _broker: broker, _directory: directory, _alone: alone }
    }
}

/// Asks for so many descriptors, reads none, and tells how often it has asked.
fn leave_unread(session: &mut Session, region: Handle) -> u64 {
    let mut asked = 0;
    for _ in 0..2 * FEW {
        let bytes = session.frame(request::MapRegion { region, access: request::MapAccess::Read });
        match frame::send_frame(&session.socket, &bytes, &[], Waiting::DontWait).unwrap() {
            Sent::Whole => asked += 1,
            Sent::WouldBlock => std::thread::sleep(Duration::from_millis(1)),
            Sent::Closed => break,
        }
    }
    asked
}

/// A region of this session that can be read.
fn region(session: &mut Session) -> Handle {
    let bytes = PAGE_BYTES as u64;
    let (region, _) = session.create(request::CreateRegion { bytes, flags: request::RegionFlags::empty() });
    let (reply, fds) = session.ask(request::MapRegion { region, access: request::MapAccess::Write });
    let Reply::Mapping { mapping, .. } = reply else { panic!("no mapping: {reply:?}") };
    let _mapped = Mapping::new(&fds[0], PAGE_BYTES, Access::Write, Populate::Now).unwrap();
    assert_eq!(session.ask(request::RegionMapped { mapping }).0, Reply::Done);
    region
}

#[test]
fn a_process_that_reads_no_descriptors_leaves_others_theirs_and_gets_all_of_its_own() {
    let limited = Limited::begin();
    let mut unreading = Session::open(&limited.path);
    let handle = region(&mut unreading);
    let asked = leave_unread(&mut unreading, handle);
    assert!(asked > FEW / 2, "{asked}");
    for _ in 0..20 {
        let mut late = Session::open(&limited.path);
        region(&mut late);
    }
    // Now it reads: each of its requests is answered, and no answer has lost its descriptor.
    let mut answered = 0;
    while answered < asked {
        match unreading.hear() {
            Heard::Frame(Incoming::Reply(_, reply), fds) => {
                assert_eq!(fds.len(), usize::from(matches!(reply, Reply::Mapping { .. })), "{reply:?}");
                answered += 1;
            }
            // A further page, for the words of its mappings.
            Heard::Frame(Incoming::Event(event), _) => {
                assert!(matches!(event, Event::PageAdded { .. }), "{event:?}");
            }
            Heard::End => panic!("its session ended after {answered} of {asked} answers"),
        }
    }
    unreading.is_served();
}

#[test]
fn a_user_has_a_share_of_what_is_unread_also_after_its_sessions_have_ended() {
    let limited = Limited::begin();
    let mut bystander = Session::open(&limited.path);
    let mut unreading = Vec::new();
    for _ in 0..6 {
        let socket = socket::connect(&limited.path).unwrap();
        let mut session = Session::over(socket);
        let bytes = session.frame(crate::session::hello());
        if frame::send_frame(&session.socket, &bytes, &[], Waiting::DontWait).unwrap() == Sent::Whole
            && let Heard::Frame(Incoming::Reply(_, Reply::Welcome(_)), _) = session.hear()
        {
            let handle = region_or_end(&mut session);
            if let Some(handle) = handle {
                leave_unread(&mut session, handle);
            }
        }
        unreading.push(session);
    }
    let mut refused = Session::silent(&limited.path);
    let farewell = refused.farewell();
    let Farewell::Full { quota: Quota::Descriptors, of: Payer::User, used, max } = farewell else {
        panic!("another reason: {farewell}")
    };
    assert!(used >= max && used <= FEW, "{used} of {max}");
    bystander.is_served();
    // Their sessions are over, and what they have not read is in their sockets.
    drop(unreading);
    eventually("there is room", || {
        let mut session = Session::silent(&limited.path);
        let bytes = session.frame(crate::session::hello());
        let _ = frame::send_frame(&session.socket, &bytes, &[], Waiting::DontWait);
        matches!(session.hear(), Heard::Frame(Incoming::Reply(_, Reply::Welcome(_)), _))
    });
    bystander.is_served();
}

/// A region, unless the session is ended meanwhile.
fn region_or_end(session: &mut Session) -> Option<Handle> {
    let flags = request::RegionFlags::empty();
    let bytes = PAGE_BYTES as u64;
    let handle = {
        let frame = session.frame(request::CreateRegion { bytes, flags });
        session.send(&frame);
        match session.hear() {
            Heard::Frame(Incoming::Reply(_, Reply::Capability(created)), _) => created.handle,
            _ => return None,
        }
    };
    let frame = session.frame(request::MapRegion { region: handle, access: request::MapAccess::Write });
    session.send(&frame);
    let Heard::Frame(Incoming::Reply(_, Reply::Mapping { mapping, .. }), fds) = session.hear() else {
        return None;
    };
    let _mapped = Mapping::new(&fds[0], PAGE_BYTES, Access::Write, Populate::Now).unwrap();
    let frame = session.frame(request::RegionMapped { mapping });
    session.send(&frame);
    matches!(session.hear(), Heard::Frame(Incoming::Reply(_, Reply::Done), _)).then_some(handle)
}

#[test]
fn a_frame_whose_descriptor_linux_refuses_is_sent_later_or_its_session_ends_with_a_reason() {
    let limited = Limited::begin();
    let mut bystander = Session::open(&limited.path);
    let mut hoarder = start_limited("hoard", "");
    assert_eq!(hoarder.hear(), "full");
    let mut kept_waiting = Session::silent(&limited.path);
    let bytes = kept_waiting.frame(crate::session::hello());
    kept_waiting.send(&bytes);
    assert!(kept_waiting.hear_within(Duration::from_millis(200)).is_none());
    bystander.is_served();
    drop(hoarder);
    let heard = kept_waiting.hear();
    let Heard::Frame(Incoming::Reply(_, Reply::Welcome(_)), fds) = heard else { panic!("no welcome") };
    assert_eq!(fds.len(), 1);

    let mut hoarder = start_limited("hoard", "");
    assert_eq!(hoarder.hear(), "full");
    let mut given_up = Session::silent(&limited.path);
    let bytes = given_up.frame(crate::session::hello());
    given_up.send(&bytes);
    let errno = Errno::TOOMANYREFS.raw_os_error();
    assert_eq!(given_up.farewell(), Farewell::SystemRefused { errno });
    bystander.is_served();
}

#[test]
fn while_linux_refuses_descriptors_who_leaves_most_unread_is_let_go() {
    let limited = Limited::begin();
    let mut unreading = Session::open(&limited.path);
    let handle = region(&mut unreading);
    leave_unread(&mut unreading, handle);
    let mut hoarder = start_limited("hoard", "");
    assert_eq!(hoarder.hear(), "full");
    let mut kept_waiting = Session::silent(&limited.path);
    let bytes = kept_waiting.frame(crate::session::hello());
    kept_waiting.send(&bytes);
    assert!(kept_waiting.hear_within(Duration::from_millis(350)).is_none());
    // What it was sent is still there, and counts until it has read it.
    let farewell = unreading.farewell();
    assert!(matches!(farewell, Farewell::Fault(Fault::NotReading { .. })), "{farewell}");
    let heard = kept_waiting.hear();
    let Heard::Frame(Incoming::Reply(_, Reply::Welcome(_)), fds) = heard else { panic!("no welcome") };
    assert_eq!(fds.len(), 1);
}
