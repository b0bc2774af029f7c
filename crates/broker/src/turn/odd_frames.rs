//! Frames that Linux brings only from elsewhere, or brought only before 6.16: without a sender, and with descriptors.

use std::fs::File;

use keyway_abi::{Event, PROTOCOL_VERSION, request};
use keyway_sys::socket::{Credentials, PairUse};
use keyway_wire::Incoming;

use super::*;

/// A broker with one session, which has said nothing yet, and the other end of it.
fn begin() -> (Broker, ProcessNumber, OwnedFd) {
    let policy = Policy::for_user(crate::identity::own_uid());
    let mut broker = Broker::new(policy, None).unwrap();
    let pair = socket::seqpacket_pair(PairUse::Session).unwrap();
    broker.admit(pair.broker_end);
    let process = *broker.hands.sessions.keys().next().unwrap();
    (broker, process, pair.client_end)
}

/// A frame that says hello, with what came beside it.
fn arrives(broker: &mut Broker, process: ProcessNumber, credentials: Option<Credentials>, fds: Vec<OwnedFd>) {
    let (version_min, version_max) = (PROTOCOL_VERSION, PROTOCOL_VERSION);
    let default_actions = keyway_abi::DefaultActions::Refused;
    let hello = request::Hello { version_min, version_max, default_actions };
    let bytes = keyway_wire::encode_request(1, &hello.into(), 0).unwrap();
    let mut buffer = [0; FRAME_BYTES_MAX + 1];
    buffer[..bytes.len()].copy_from_slice(&bytes);
    let (truncated, fds_truncated, pidfd) = (false, false, None);
    let bytes = bytes.len();
    broker.on_frame(process, &buffer, Received { bytes, truncated, fds, fds_truncated, credentials, pidfd });
}

/// The session has ended with this fault, and its process was told so.
fn ended(broker: &Broker, process: ProcessNumber, end: &OwnedFd, fault: Fault) {
    let mut buffer = [0; FRAME_BYTES_MAX];
    let Ok(Reception::Frame(received)) = frame::receive_frame(end, &mut buffer, 1, Waiting::DontWait) else {
        panic!("nothing was said")
    };
    let told = keyway_wire::decode_incoming(&buffer[..received.bytes], 0);
    assert_eq!(told, Ok(Incoming::Event(Event::Farewell(Farewell::Fault(fault)))));
    assert!(!broker.hands.sessions.contains_key(&process));
    keyway_provoked::note(&fault, "");
}

#[test]
fn a_frame_whose_sender_linux_does_not_name_ends_the_session() {
    let nobody = Credentials { pid: 0, uid: 0, gid: 0 };
    for credentials in [None, Some(nobody)] {
        let (mut broker, process, end) = begin();
        arrives(&mut broker, process, credentials, Vec::new());
        ended(&broker, process, &end, Fault::SenderUnknown);
    }
}

#[test]
fn descriptors_beside_a_frame_end_the_session_and_are_closed() {
    for count in [1, 3] {
        let (mut broker, process, end) = begin();
        let bound = broker.hands.sessions[&process].bound.as_ref().unwrap();
        let me = Credentials { pid: bound.pid, uid: bound.uid, gid: 0 };
        let fds = (0..count).map(|_| File::open("/dev/null").unwrap().into()).collect();
        arrives(&mut broker, process, Some(me), fds);
        ended(&broker, process, &end, Fault::DescriptorsSent { count });
    }
    // Without any it is served.
    let (mut broker, process, _end) = begin();
    let me = Credentials { pid: std::process::id(), uid: 0, gid: 0 };
    arrives(&mut broker, process, Some(me), Vec::new());
    assert!(broker.hands.sessions.contains_key(&process));
}
