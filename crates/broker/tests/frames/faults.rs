//! Lawful bytes that break the protocol: each fault, by name.

use std::os::fd::AsFd;

use keyway_abi::{
    DefaultActions, Denial, Event, Farewell, Fault, Handle, Name, PROTOCOL_VERSION, Reply, Rights, Terms,
    layout::PAGE_BYTES,
    limits::{HANDLES_MAX, OUTBOX_FRAMES_MAX},
    request::{self, MapAccess},
};
use keyway_shm::Access;
use keyway_sys::{
    Errno,
    frame::{self, Sent, Waiting},
    memory::{self, Mapping, Populate, SealUse},
};
use keyway_wire::Incoming;

use crate::{
    Scene,
    session::{Heard, Session, hello},
};

#[test]
fn whoever_does_not_say_hello_first_is_told_so() {
    let mut scene = Scene::begin();
    let mut offender = Session::silent(&scene.path);
    let bytes = offender.frame(request::ListOwn { after: Handle::NONE });
    offender.send(&bytes);
    scene.ends_by_fault(offender, Fault::HelloMissing);
}

#[test]
fn whoever_says_hello_twice_is_told_so() {
    let mut scene = Scene::begin();
    let mut offender = scene.offender();
    let bytes = offender.frame(hello());
    offender.send(&bytes);
    scene.ends_by_fault(offender, Fault::HelloRepeated);
}

#[test]
fn a_version_that_the_broker_does_not_speak_is_denied_with_both_numbers() {
    let mut scene = Scene::begin();
    let mut offender = Session::silent(&scene.path);
    let (reply, _) = offender.ask(request::Hello {
        version_min: 7,
        version_max: 9,
        default_actions: DefaultActions::Refused,
    });
    let denial = Denial::VersionUnsupported { version_min: 7, version_max: 9, version: PROTOCOL_VERSION };
    assert_eq!(reply, Reply::Denied(denial));
    scene.ends(offender, Farewell::VersionUnsupported);
}

#[test]
fn descriptors_on_a_session_are_refused_by_linux_or_end_it() {
    let mut scene = Scene::begin();
    for count in [1, 16, 253] {
        let mut offender = scene.offender();
        let bytes = offender.frame(request::ListOwn { after: Handle::NONE });
        let file = std::fs::File::open("/dev/null").unwrap();
        let files = vec![file.as_fd(); count];
        if let Err(error) = frame::send_frame(&offender.socket, &bytes, &files, Waiting::Block) {
            // Since Linux 6.16: the frame was not sent, and nothing has happened.
            assert_eq!(error.errno, Errno::PERM);
            offender.is_served();
        } else {
            scene.ends_by_fault(offender, Fault::DescriptorsSent { count: count as u32 });
        }
    }
    scene.bystander.is_served();
}

/// What a seal that the broker did not ask for leads to.
fn ends_by_seals(scene: &mut Scene, mut offender: Session) {
    let farewell = offender.farewell();
    let Farewell::Fault(Fault::SealsWrong { found, expected }) = farewell else {
        panic!("another reason: {farewell}")
    };
    assert_ne!(found, expected);
    assert_eq!(expected, SealUse::Lane.seals().bits());
    scene.bystander.is_served();
    assert_eq!(scene.bystander.processes().len(), 1);
}

/// A queue of this session, with one acknowledgement memory that it has mapped, so that others can open lanes.
pub(crate) fn queue(session: &mut Session) -> Handle {
    let request = request::CreateQueue {
        ring_bytes_max: 1 << 16,
        senders_max: 4,
        stock: 1,
        order: request::QueueOrder::Fair,
    };
    let (reply, descriptors) = session.ask(request);
    let Reply::Queue { queue, first_ack, .. } = reply else { panic!("no queue: {reply:?}") };
    let _mapped = Mapping::new(&descriptors[0], PAGE_BYTES, Access::Write, Populate::OnUse).unwrap();
    let mapped = request::AcksMapped { queue: queue.handle, first: first_ack, count: 1 };
    assert_eq!(session.ask(mapped).0, Reply::Done);
    queue.handle
}

#[test]
fn a_ring_with_foreign_seals_is_never_handed_on() {
    let mut scene = Scene::begin();
    // Closing the set before the broker could add to it; or sealing off all writing, which looks like more safety.
    for seals in [SealUse::SharedRegion, SealUse::FrozenRegion] {
        let mut offender = scene.offender();
        let queue = queue(&mut offender);
        let (reply, descriptors) =
            offender.ask(request::OpenLane { queue, ring_bytes: 4096, priority: 0, huge: false });
        let Reply::LaneOpening { lane, .. } = reply else { panic!("no lane: {reply:?}") };
        memory::seal(&descriptors[0], seals).unwrap();
        let bytes = offender.frame(request::LaneMapped { lane });
        offender.send(&bytes);
        ends_by_seals(&mut scene, offender);
    }
}

#[test]
fn an_acknowledgement_memory_with_foreign_seals_is_never_handed_on() {
    let mut scene = Scene::begin();
    for seals in [SealUse::SharedRegion, SealUse::FrozenRegion] {
        let mut offender = scene.offender();
        let request = request::CreateQueue {
            ring_bytes_max: 4096,
            senders_max: 4,
            stock: 2,
            order: request::QueueOrder::Fair,
        };
        let (reply, descriptors) = offender.ask(request);
        let Reply::Queue { queue, first_ack, .. } = reply else { panic!("no queue: {reply:?}") };
        memory::seal(&descriptors[1], seals).unwrap();
        let mapped = request::AcksMapped { queue: queue.handle, first: first_ack, count: 2 };
        let bytes = offender.frame(mapped);
        offender.send(&bytes);
        ends_by_seals(&mut scene, offender);
    }
}

#[test]
fn a_region_with_foreign_seals_is_never_handed_on() {
    let mut scene = Scene::begin();
    for seals in [SealUse::SharedRegion, SealUse::FrozenRegion] {
        let mut offender = scene.offender();
        let (region, _) =
            offender.create(request::CreateRegion { bytes: 8192, flags: request::RegionFlags::empty() });
        let (reply, descriptors) = offender.ask(request::MapRegion { region, access: MapAccess::Write });
        let Reply::Mapping { mapping, .. } = reply else { panic!("no mapping: {reply:?}") };
        memory::seal(&descriptors[0], seals).unwrap();
        let bytes = offender.frame(request::RegionMapped { mapping });
        offender.send(&bytes);
        ends_by_seals(&mut scene, offender);
    }
}

#[test]
fn a_region_whose_pages_its_reader_would_pay_for_is_never_handed_on() {
    let mut scene = Scene::begin();
    let mut offender = scene.offender();
    let (region, _) =
        offender.create(request::CreateRegion { bytes: 16_384, flags: request::RegionFlags::empty() });
    let (reply, descriptors) = offender.ask(request::MapRegion { region, access: MapAccess::Write });
    let Reply::Mapping { mapping, .. } = reply else { panic!("no mapping: {reply:?}") };
    let mapped = Mapping::new(&descriptors[0], 16_384, Access::Write, Populate::OnUse).unwrap();
    mapped.view().copy_in(0, b"one page of four").unwrap();
    let bytes = offender.frame(request::RegionMapped { mapping });
    offender.send(&bytes);
    scene.ends_by_fault(offender, Fault::MemoryWrong { found_bytes: 4096, expected_bytes: 16_384 });
}

#[test]
fn nor_is_a_lane_of_huge_pages() {
    let mut scene = Scene::begin();
    let mut offender = scene.offender();
    let queue = queue(&mut offender);
    let open = request::OpenLane { queue, ring_bytes: 4096, priority: 0, huge: true };
    let (reply, descriptors) = offender.ask(open);
    let Reply::LaneOpening { lane, .. } = reply else { panic!("no lane: {reply:?}") };
    let _mapped = Mapping::new(&descriptors[0], 2 << 20, Access::Write, Populate::OnUse).unwrap();
    let bytes = offender.frame(request::LaneMapped { lane });
    offender.send(&bytes);
    scene.ends_by_fault(offender, Fault::MemoryWrong { found_bytes: 0, expected_bytes: 2 << 20 });
}

#[test]
fn whoever_does_not_read_what_others_cause_is_let_go_and_others_are_not_held_up() {
    let mut scene = Scene::begin();
    let mut grantor = scene.offender();
    let own = grantor.own();
    let (child, mut socket) = grantor.create(request::StartChild { process: own });
    let mut deaf = Session::over(socket.pop().unwrap());
    deaf.greet();
    assert_eq!(grantor.ask(request::Watch { process: child }).0, Reply::Done);
    let (region, _) =
        grantor.create(request::CreateRegion { bytes: 4096, flags: request::RegionFlags::empty() });
    let mut granted = 0;
    let ended = |event: &Event| matches!(event, Event::ProcessEnded { .. });
    while !grantor.events.iter().any(ended) && granted < HANDLES_MAX - 10 {
        let grant = request::Grant { from: region, to: child, terms: Terms::rights(Rights::MAP) };
        let (reply, _) = grantor.ask(grant);
        assert!(
            matches!(reply, Reply::Capability(_) | Reply::Denied(Denial::ProcessEnded { .. })),
            "{reply:?}"
        );
        granted += 1;
    }
    grantor.is_served();
    assert!(grantor.events.iter().any(ended), "{granted} frames unread and still there");
    assert!(granted > OUTBOX_FRAMES_MAX as u32, "let go after {granted}");
    // The farewell has no room either; what had fitted in is there, and then the end.
    let heard = std::iter::from_fn(|| match deaf.hear() {
        Heard::Frame(Incoming::Event(Event::Farewell(farewell)), _) => Some(Some(farewell)),
        Heard::Frame(..) => Some(None),
        Heard::End => None,
    });
    let told: Vec<Farewell> = heard.flatten().collect();
    let fault = Fault::NotReading { frames: OUTBOX_FRAMES_MAX as u32 };
    assert!(told.is_empty() || told == [Farewell::Fault(fault)], "{told:?}");
    drop(grantor);
    scene.bystander.is_served();
}

#[test]
fn whoever_asks_and_does_not_read_waits_alone() {
    let mut scene = Scene::begin();
    let mut flooder = scene.offender();
    let bytes = flooder.frame(request::ListOwn { after: Handle::NONE });
    let mut sent = 0;
    // LIMIT: two socket buffers and what the broker keeps are far less than this.
    for _ in 0..100_000 {
        match frame::send_frame(&flooder.socket, &bytes, &[], Waiting::DontWait).unwrap() {
            Sent::Whole => sent += 1,
            Sent::WouldBlock if sent > 0 && is_stuck(&flooder) => break,
            Sent::WouldBlock => {}
            Sent::Closed => panic!("flooding with lawful requests is no offence"),
        }
    }
    assert!(is_stuck(&flooder), "{sent} requests went through");
    for _ in 0..100 {
        scene.bystander.is_served();
    }
    // Once it reads, every request is answered.
    for _ in 0..sent {
        assert!(matches!(flooder.hear(), Heard::Frame(Incoming::Reply(..), _)));
    }
    flooder.is_served();
}

/// Whether nobody takes what this session sends.
fn is_stuck(session: &Session) -> bool {
    let timeout = std::time::Duration::from_millis(100);
    !keyway_sys::socket::wait_writable(&session.socket, Some(timeout)).unwrap()
}

/// The socket on which this session hands descriptors in.
fn deposit_socket(session: &mut Session) -> Session {
    let process = session.own();
    let (reply, mut descriptors) = session.ask(request::OpenDeposit { process });
    assert_eq!(reply, Reply::Done);
    Session::over(descriptors.pop().unwrap())
}

#[test]
fn a_deposit_without_exactly_one_descriptor_ends_the_session() {
    let mut scene = Scene::begin();
    let request = request::Deposit { label: Name::new("thing").unwrap() };
    let file = std::fs::File::open("/dev/null").unwrap();
    for count in [0, 2, 16] {
        let mut offender = scene.offender();
        let door = deposit_socket(&mut offender);
        let bytes = keyway_wire::encode_request(1, &request.clone().into(), count).unwrap();
        let files = vec![file.as_fd(); usize::from(count)];
        assert_eq!(frame::send_frame(&door.socket, &bytes, &files, Waiting::Block).unwrap(), Sent::Whole);
        scene.ends_by_fault(offender, Fault::DepositEmpty { found: u32::from(count) });
        assert!(matches!(door.hear(), Heard::End));
    }
}

#[test]
fn a_deposit_on_the_wrong_socket_and_another_request_on_a_deposit_socket_end_the_session() {
    let mut scene = Scene::begin();
    let mut offender = scene.offender();
    let bytes = offender.frame(request::Deposit { label: Name::new("thing").unwrap() });
    offender.send(&bytes);
    scene.ends_by_fault(offender, Fault::DepositEmpty { found: 0 });

    let mut offender = scene.offender();
    let door = deposit_socket(&mut offender);
    let bytes = offender.frame(request::ListOwn { after: Handle::NONE });
    door.send(&bytes);
    scene.ends_by_fault(offender, Fault::DepositEmpty { found: 0 });
}

#[test]
fn garbage_on_a_deposit_socket_ends_the_session_by_name() {
    let mut scene = Scene::begin();
    let mut offender = scene.offender();
    let door = deposit_socket(&mut offender);
    door.send(&[5; 3]);
    let malformed = keyway_abi::Malformed::TooShort { bytes: 3, bytes_min: 16 };
    scene.ends(offender, Farewell::Malformed(malformed));
}
