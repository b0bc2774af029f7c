//! Doorbells of a real broker: what each end gets, what it can do to the other, and when it is over.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use keyway_abi::{
    Denial, Event, Handle, LaneId, ProcessNumber, Reply, Rights, Terms, layout::PAGE_BYTES, request,
};
use keyway_shm::Access;
use keyway_sys::{
    Errno, doorbell,
    frame::{self, Waiting},
    memory::{Mapping, Populate},
    socket,
};
use keyway_wire::Incoming;

use crate::{
    Scene, faults,
    session::{Heard, Session},
};

const RING_BYTES: u32 = 4096;

/// Two sessions with a lane from the first to the second.
struct Two {
    scene: Scene,
    sender: Session,
    receiver: Session,
    lane: LaneId,
}

impl Two {
    fn begin() -> Self {
        let scene = Scene::begin();
        let (mut sender, mut receiver) = (scene.offender(), scene.offender());
        let queue = faults::queue(&mut receiver);
        let lane = open(&mut sender, &mut receiver, queue);
        Two { scene, sender, receiver, lane }
    }
}

/// A lane from one to a queue of the other, which hears of it.
fn open(sender: &mut Session, receiver: &mut Session, queue: Handle) -> LaneId {
    // The receiver publishes its queue, so that the sender has a capability to it.
    let (directory, name) = (receiver.directory(), keyway_abi::Name::new("org.example.bell").unwrap());
    let audience = request::Audience::Everyone;
    let publish = request::Publish { directory, name: name.clone(), queue, rights: Rights::SEND, audience };
    receiver.create(publish);
    let lookup = request::Lookup { directory: sender.directory(), name, on_behalf_of: None };
    let (queue, _) = sender.create(lookup);
    let (reply, descriptors) =
        sender.ask(request::OpenLane { queue, ring_bytes: RING_BYTES, priority: 0, huge: false });
    let Reply::LaneOpening { lane, peer, .. } = reply else { panic!("no lane: {reply:?}") };
    assert_eq!(peer, receiver.number());
    let _mapped = map(&descriptors[0]);
    assert_eq!(sender.ask(request::LaneMapped { lane }).0, Reply::Done);
    let (event, descriptors) = event(receiver);
    assert!(matches!(event, Event::LaneOpened { .. }) && descriptors.len() == 1, "{event:?}");
    lane
}

fn map(ring: &OwnedFd) -> Mapping {
    let bytes = RING_BYTES as usize + PAGE_BYTES;
    Mapping::new(ring, bytes, Access::Write, Populate::OnUse).unwrap()
}

/// The next event, with what is beside it.
fn event(session: &mut Session) -> (Event, Vec<OwnedFd>) {
    if let Some(event) = session.events.pop_front() {
        return (event, Vec::new());
    }
    match session.hear() {
        Heard::Frame(Incoming::Event(event), descriptors) => (event, descriptors),
        Heard::Frame(other, _) => panic!("an event: {other:?}"),
        Heard::End => panic!("the session ended"),
    }
}

fn only(descriptors: Vec<OwnedFd>) -> OwnedFd {
    let [end] = <[OwnedFd; 1]>::try_from(descriptors).unwrap();
    end
}

/// Both ends, the asker's first. The other's is in its socket before the asker has its own.
fn join(asker: &mut Session, other: &mut Session, lane: LaneId) -> [OwnedFd; 2] {
    let (reply, descriptors) = asker.ask(request::Doorbell { lane });
    assert_eq!(reply, Reply::Doorbell { peer: other.number() });
    assert!(socket::wait_readable(&other.socket, Some(Duration::ZERO)).unwrap(), "it was told before");
    let (told, beside) = event(other);
    assert_eq!(told, Event::Doorbell { peer: asker.number() });
    [only(descriptors), only(beside)]
}

fn heard(end: &OwnedFd) -> Vec<u64> {
    assert!(socket::wait_readable(end, Some(Duration::from_secs(20))).unwrap(), "nobody rang");
    let mut lanes = Vec::new();
    let _ = doorbell::drain(end, &mut lanes).unwrap();
    lanes
}

#[test]
fn each_rings_the_other() {
    let Two { mut scene, mut sender, mut receiver, lane } = Two::begin();
    let [of_receiver, of_sender] = join(&mut receiver, &mut sender, lane);
    for (rings, hears) in [(&of_sender, &of_receiver), (&of_receiver, &of_sender)] {
        assert_eq!(doorbell::ring(rings, lane.0).unwrap(), doorbell::Rung::Named);
        assert_eq!(heard(hears), [lane.0]);
        match frame::send_frame(rings, b"12345678", &[hears.as_fd()], Waiting::DontWait) {
            Err(error) => assert_eq!(error.errno, Errno::PERM, "no descriptor goes this way"),
            // Before Linux 6.16 it does, and is closed where it is taken.
            Ok(_) => assert_eq!(heard(hears).len(), 1),
        }
    }
    let (refused, _) = sender.ask(request::Doorbell { lane });
    assert_eq!(refused, Reply::Denied(Denial::DoorbellExists { peer: receiver.number() }));
    scene.bystander.is_served();
}

#[test]
fn with_the_last_lane_both_are_told_that_it_is_over_and_may_make_another() {
    let Two { scene: _scene, mut sender, mut receiver, lane } = Two::begin();
    let _ends = join(&mut sender, &mut receiver, lane);
    assert_eq!(sender.ask(request::CloseLane { lane }).0, Reply::Done);
    assert!(matches!(event(&mut receiver).0, Event::LanesEnded { .. }));
    assert_eq!(receiver.ask(request::CloseLane { lane }).0, Reply::Done);
    let over = |peer: ProcessNumber| Event::DoorbellsEnded { peers: vec![peer] };
    assert_eq!(event(&mut sender).0, over(receiver.number()));
    assert_eq!(event(&mut receiver).0, over(sender.number()));
}

#[test]
fn a_process_that_dies_leaves_its_peer_a_closed_end_and_the_news() {
    let Two { mut scene, mut sender, mut receiver, lane } = Two::begin();
    let [of_sender, of_receiver] = join(&mut sender, &mut receiver, lane);
    let dead = sender.number();
    drop((sender, of_sender));
    let told: Vec<Event> = (0..2).map(|_| event(&mut receiver).0).collect();
    assert!(told.contains(&Event::DoorbellsEnded { peers: vec![dead] }), "{told:?}");
    assert_eq!(doorbell::ring(&of_receiver, 1).unwrap(), doorbell::Rung::Closed);
    scene.bystander.is_served();
}

#[test]
fn a_process_that_sends_to_itself_gets_both_ends() {
    let mut scene = Scene::begin();
    let session = &mut scene.bystander;
    let queue = faults::queue(session);
    let (own, _) = session.create(request::Derive { from: queue, terms: Terms::rights(Rights::SEND) });
    let (reply, descriptors) =
        session.ask(request::OpenLane { queue: own, ring_bytes: RING_BYTES, priority: 0, huge: false });
    let Reply::LaneOpening { lane, peer, .. } = reply else { panic!("no lane: {reply:?}") };
    assert_eq!(peer, session.number());
    let (refused, _) = session.ask(request::Doorbell { lane });
    assert_eq!(refused, Reply::Denied(Denial::LaneUnopened { lane }));
    let _mapped = map(&descriptors[0]);
    assert_eq!(session.ask(request::LaneMapped { lane }).0, Reply::Done);
    session.events.clear();
    let bytes = session.frame(request::Doorbell { lane });
    session.send(&bytes);
    let own = session.number();
    let Heard::Frame(Incoming::Event(told), first) = session.hear() else { panic!("the event comes first") };
    let Heard::Frame(Incoming::Reply(_, reply), second) = session.hear() else { panic!("then the reply") };
    assert_eq!((told, reply), (Event::Doorbell { peer: own }, Reply::Doorbell { peer: own }));
    let [one, other] = [only(first), only(second)];
    assert_eq!(doorbell::ring(&one, 8).unwrap(), doorbell::Rung::Named);
    assert_eq!(heard(&other), [8]);
}
