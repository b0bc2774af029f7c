//! A broker turned by hand: what one turn does, and what it leaves to the next.

use std::{net::TcpListener, os::fd::AsFd};

use keyway_abi::{
    DefaultActions, Event, Handle, Name, PROTOCOL_VERSION, Reply, Rights, SessionStart, Terms,
    limits::SWEEP_STEP, request,
};
use keyway_sys::{
    frame::{Sent, Waiting},
    socket::PairUse,
};
use keyway_wire::Incoming;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::*;
use crate::{closing::tests::lingering, identity::own_uid};

struct Scene {
    broker: Broker,
    ready: Vec<Ready>,
}

impl Scene {
    fn begin() -> Self {
        let broker = Broker::new(Policy::for_user(own_uid()), None).unwrap();
        Scene { broker, ready: Vec::new() }
    }

    fn step(&mut self) {
        assert_eq!(self.broker.step(&mut self.ready).unwrap(), Next::GoOn);
    }

    /// A session of this process.
    fn connect(&mut self, rights: RightsFilter) -> (OwnedFd, SessionStart) {
        let (broker_end, client_end) = match rights {
            RightsFilter::On => {
                let pair = socket::seqpacket_pair(PairUse::Session).unwrap();
                (pair.broker_end, pair.client_end)
            }
            // As it is before Linux 6.16.
            RightsFilter::Missing => {
                let (family, kind, flags) =
                    (AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC);
                let (broker_end, client_end) = rustix::net::socketpair(family, kind, flags, None).unwrap();
                sockopt::set_socket_passcred(&broker_end, true).unwrap();
                (broker_end, client_end)
            }
        };
        self.broker.admit(broker_end);
        let hello = request::Hello {
            version_min: PROTOCOL_VERSION,
            version_max: PROTOCOL_VERSION,
            default_actions: DefaultActions::Refused,
        };
        let (reply, _) = self.ask(&client_end, hello);
        let Reply::Welcome(start) = reply else { panic!("no welcome: {reply:?}") };
        (client_end, start)
    }

    fn ask(&mut self, socket: &OwnedFd, request: impl Into<Request>) -> (Reply, Vec<OwnedFd>) {
        say(socket, request, &[]);
        loop {
            self.step();
            while let Some((incoming, fds)) = hear(socket) {
                if let Incoming::Reply(_, reply) = incoming {
                    return (reply, fds);
                }
            }
        }
    }
}

fn say(socket: &OwnedFd, request: impl Into<Request>, fds: &[&OwnedFd]) {
    let bytes = keyway_wire::encode_request(1, &request.into(), fds.len() as u16).unwrap();
    let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
    assert_eq!(frame::send_frame(socket, &bytes, &fds, Waiting::Block).unwrap(), Sent::Whole);
}

fn hear(socket: &OwnedFd) -> Option<(Incoming, Vec<OwnedFd>)> {
    let mut buffer = [0; FRAME_BYTES_MAX];
    match frame::receive_frame(socket, &mut buffer, 16, Waiting::DontWait).unwrap() {
        Reception::Frame(received) => {
            let incoming = keyway_wire::decode_incoming(&buffer[..received.bytes], received.fds.len());
            Some((incoming.unwrap(), received.fds))
        }
        Reception::WouldBlock | Reception::End => None,
    }
}

#[test]
fn what_is_due_together_ends_over_turns_in_which_others_are_served() {
    let mut scene = Scene::begin();
    let (socket, _start) = scene.connect(RightsFilter::On);
    let (bystander, _) = scene.connect(RightsFilter::On);
    let flags = request::RegionFlags::empty();
    let (Reply::Capability(region), _) = scene.ask(&socket, request::CreateRegion { bytes: 4096, flags })
    else {
        panic!("no region")
    };
    let soon = clock::boot_ns() + 1_500_000_000;
    for number in 0..3 * SWEEP_STEP as u64 {
        let terms = Terms { expires_ns: Some(soon + number), ..Terms::rights(Rights::MAP) };
        let (reply, _) = scene.ask(&socket, request::Derive { from: region.handle, terms });
        assert!(matches!(reply, Reply::Capability(_)), "{reply:?}");
    }
    std::thread::sleep(Duration::from_nanos(soon.saturating_sub(clock::boot_ns()) + 1_000_000));
    say(&bystander, request::ListOwn { after: Handle::NONE }, &[]);
    scene.step();
    assert!(matches!(hear(&bystander), Some((Incoming::Reply(..), _))), "served in the first turn");
    assert!(scene.broker.has_more_to_do(), "and not all is done in it");
    for _ in 0..200 {
        if scene.broker.has_more_to_do() {
            scene.step();
        }
    }
    assert!(!scene.broker.has_more_to_do(), "a bounded number of turns does all");
}

#[test]
fn one_turn_handles_one_deposit_of_a_process() {
    const COUNT: usize = 100;
    let mut scene = Scene::begin();
    let (socket, start) = scene.connect(RightsFilter::On);
    let process = start.own.unwrap();
    let (reply, doors) = scene.ask(&socket, request::OpenDeposit { process });
    assert_eq!(reply, Reply::Done);
    let null = OwnedFd::from(File::open("/dev/null").unwrap());
    for _ in 0..COUNT {
        let label = Name::new("thing").unwrap();
        say(&doors[0], request::Deposit { label }, &[&null]);
    }
    let mut answered = 0;
    while answered < COUNT {
        scene.step();
        let of_this_turn = std::iter::from_fn(|| hear(&doors[0])).count();
        assert!(of_this_turn <= 1, "{of_this_turn} in one turn");
        answered += of_this_turn;
    }
}

#[test]
fn where_linux_cannot_refuse_descriptors_a_user_gets_no_more_in_than_a_frame_above_its_limit() {
    let mut scene = Scene::begin();
    scene.broker.hands.rights_filter = RightsFilter::Missing;
    let mut sessions: Vec<OwnedFd> = (0..5).map(|_| scene.connect(RightsFilter::Missing).0).collect();
    let honest = sessions.pop().unwrap();
    let (slow, other_end) = lingering(&TcpListener::bind("127.0.0.1:0").unwrap(), 600);
    let uid = own_uid();
    scene.broker.hands.closers.close(uid, slow, Closing::default());
    let null = OwnedFd::from(File::open("/dev/null").unwrap());
    let files = vec![&null; 253];
    for session in &sessions {
        let bytes = [7; 30];
        let fds: Vec<_> = files.iter().map(|fd| fd.as_fd()).collect();
        let _ = frame::send_frame(session, &bytes, &fds, Waiting::Block).unwrap();
    }
    let mut farewells = Vec::new();
    while farewells.len() < sessions.len() {
        scene.step();
        farewells.extend(sessions.iter().filter_map(|session| match hear(session) {
            Some((Incoming::Event(Event::Farewell(farewell)), _)) => Some(farewell),
            _ => None,
        }));
    }
    let sent = Farewell::Fault(Fault::DescriptorsSent { count: 253 });
    assert_eq!(farewells.iter().filter(|farewell| **farewell == sent).count(), 1, "{farewells:?}");
    let full = |farewell: &&Farewell| matches!(farewell, Farewell::Full { quota: Quota::Descriptors, .. });
    assert_eq!(farewells.iter().filter(full).count(), 3, "{farewells:?}");
    // The lingering one, those of one frame, and the sessions' sockets.
    assert_eq!(scene.broker.hands.closers.strays(uid), 1 + 253 + 4);
    let (reply, _) = scene.ask(&honest, request::ListOwn { after: Handle::NONE });
    assert!(matches!(reply, Reply::Listing(_)), "who sends none is served");
    drop(other_end);
    while scene.broker.hands.closers.strays(uid) > 0 {
        scene.step();
    }
}
