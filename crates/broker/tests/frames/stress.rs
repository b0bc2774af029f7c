//! Clients that ask without end, read nothing, revoke and die, over and over, beside one whose every answer is right.

use std::path::Path;

use keyway_abi::{
    Event, Handle, LaneId, Listing, MappingId, Name, Reply, Request, Rights, Terms, layout::PAGE_BYTES,
    request,
};
use keyway_shm::Access;
use keyway_sys::{
    frame::{self, Sent, Waiting},
    memory::{Mapping, Populate},
};

use crate::{
    broken::Dice,
    children::{self, Player},
    crowd::{descriptors, eventually},
    session::Session,
};

const ROUNDS: u64 = 10;
const AT_A_TIME: u64 = 3;
const SERVICE: &str = "stress/service";

/// Is a hostile client: opens lanes to the service, then asks for anything that comes to its mind, reads nothing, and dies.
pub(crate) fn rampage(argument: &str) {
    let (path, seed) = argument.split_once(' ').unwrap();
    let mut dice = Dice(seed.parse().unwrap());
    let sessions: Vec<Session> = (0..=dice.below(3)).map(|_| attack(path.as_ref(), &mut dice)).collect();
    children::say("done");
    if dice.below(2) == 0 {
        // Its frames wait unread until it is killed.
        loop {
            std::thread::park();
        }
    }
    drop(sessions);
}

fn attack(path: &Path, dice: &mut Dice) -> Session {
    let mut session = Session::open(path);
    let directory = session.directory();
    let name = Name::new(SERVICE).unwrap();
    let (reply, _) = session.ask(request::Lookup { directory, name, on_behalf_of: None });
    let queue = if let Reply::Capability(created) = reply { created.handle } else { Handle::NONE };
    for _ in 0..dice.below(4) {
        if let (Reply::LaneOpening { lane, .. }, _) =
            session.ask(request::OpenLane { queue, ring_bytes: 4096, priority: 0, huge: false })
        {
            session.ask(request::LaneMapped { lane });
        }
    }
    let flags = request::RegionFlags::empty();
    let bytes = PAGE_BYTES as u64;
    let (region, _) = session.create(request::CreateRegion { bytes, flags });
    for _ in 0..3000 {
        let number = dice.below(1 << 10) as u64;
        let handle = [region, queue, session.own(), Handle::from_raw(number)][dice.below(4)];
        let request: Request = match dice.below(12) {
            0 => request::CreateQueue {
                ring_bytes_max: 4096,
                senders_max: 2,
                stock: 8,
                order: request::QueueOrder::Fair,
            }
            .into(),
            1 => request::CreateRegion { bytes: bytes << dice.below(9), flags }.into(),
            2 => request::MapRegion { region: handle, access: request::MapAccess::Write }.into(),
            3 => request::RegionMapped { mapping: MappingId(number) }.into(),
            4 => request::OpenLane { queue, ring_bytes: 4096, priority: 0, huge: false }.into(),
            5 => request::LaneMapped { lane: LaneId(number) }.into(),
            6 => request::Derive { from: handle, terms: Terms::rights(Rights::MAP | Rights::SEND) }.into(),
            7 => request::Revoke { handle }.into(),
            8 => request::Delete { handle: Handle::from_raw(number) }.into(),
            9 => request::StartChild { process: session.own() }.into(),
            10 => request::ListProcesses { directory, after: None }.into(),
            _ => request::ListOwn { after: Handle::NONE }.into(),
        };
        let frame = session.frame(request);
        match frame::send_frame(&session.socket, &frame, &[], Waiting::DontWait) {
            Ok(Sent::Whole) => {}
            Ok(Sent::WouldBlock) => break,
            Ok(Sent::Closed) | Err(_) => return session,
        }
    }
    if dice.below(3) == 0 {
        let _ = frame::send_frame(&session.socket, &[0; 40], &[], Waiting::DontWait);
    }
    session
}

/// What the broker has to answer rightly: a region is made, mapped, listed and gone again.
fn round_trip(session: &mut Session) {
    let flags = request::RegionFlags::empty();
    let bytes = 2 * PAGE_BYTES as u64;
    let (region, none) = session.create(request::CreateRegion { bytes, flags });
    assert!(none.is_empty());
    let (reply, fds) = session.ask(request::MapRegion { region, access: request::MapAccess::Write });
    let Reply::Mapping { mapping, .. } = reply else { panic!("no mapping: {reply:?}") };
    let mapped = Mapping::new(&fds[0], bytes as usize, Access::Write, Populate::Now).unwrap();
    assert_eq!(session.ask(request::RegionMapped { mapping }).0, Reply::Done);
    mapped.view().copy_in(0, b"right").unwrap();
    let (reply, fds) = session.ask(request::MapRegion { region, access: request::MapAccess::Read });
    let Reply::Mapping { mapping: second, .. } = reply else { panic!("no mapping: {reply:?}") };
    let read = Mapping::new(&fds[0], bytes as usize, Access::Read, Populate::OnUse).unwrap();
    let mut found = [0; 5];
    read.view().copy_out(0, &mut found).unwrap();
    assert_eq!(&found, b"right", "it is the same memory");
    for mapping in [mapping, second] {
        assert_eq!(session.ask(request::Unmap { mapping }).0, Reply::Done);
    }
    assert_eq!(session.ask(request::Delete { handle: region }).0, Reply::Done);
    let (reply, _) = session.ask(request::ListOwn { after: Handle::NONE });
    let Reply::Listing(Listing::Capabilities(entries)) = reply else { panic!("no listing: {reply:?}") };
    assert!(entries.iter().all(|entry| entry.handle != region), "{entries:?}");
    close_lanes(session);
}

/// Closes the lanes that came in: what a dead sender has left in them stays until then.
fn close_lanes(session: &mut Session) {
    while let Some(event) = session.events.pop_front() {
        match event {
            Event::LaneOpened { lane, .. } => {
                let (reply, _) = session.ask(request::CloseLane { lane });
                // Its sender or a revocation may have been earlier.
                assert!(matches!(reply, Reply::Done | Reply::Denied(_)), "{reply:?}");
            }
            Event::Farewell(farewell) => panic!("{farewell}"),
            _ => {}
        }
    }
}

#[test]
fn whatever_hostile_clients_do_and_however_they_die_others_get_each_answer_and_nothing_stays_behind() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.sock");
    let mut broker = Player::start("broker", path.to_str().unwrap(), Vec::new());
    assert_eq!(broker.hear(), "ready");
    let mut witness = Session::open(&path);
    let request = request::CreateQueue {
        ring_bytes_max: 4096,
        senders_max: 60,
        stock: 8,
        order: request::QueueOrder::Fair,
    };
    let (Reply::Queue { queue, first_ack, .. }, acks) = witness.ask(request) else { panic!("no queue") };
    for ack in &acks {
        Mapping::new(ack, PAGE_BYTES, Access::Write, Populate::OnUse).unwrap();
    }
    let mapped = request::AcksMapped { queue: queue.handle, first: first_ack, count: 8 };
    assert_eq!(witness.ask(mapped).0, Reply::Done);
    let (name, audience) = (Name::new(SERVICE).unwrap(), request::Audience::Everyone);
    let directory = witness.directory();
    let publish = request::Publish { directory, name, queue: queue.handle, rights: Rights::SEND, audience };
    witness.ask(publish);
    round_trip(&mut witness);
    let before = descriptors(broker.pid());
    for round in 0..ROUNDS {
        let start = |number| {
            let argument = format!("{} {}", path.display(), round * AT_A_TIME + number);
            Player::start("rampage", &argument, Vec::new())
        };
        let mut hostile: Vec<Player> = (0..AT_A_TIME).map(start).collect();
        for _ in 0..20 {
            round_trip(&mut witness);
        }
        for player in &mut hostile {
            assert_eq!(player.hear(), "done");
            round_trip(&mut witness);
        }
        // Some have ended, the others are killed.
        drop(hostile);
        round_trip(&mut witness);
    }
    eventually("one session", || witness.processes().len() == 1);
    // The acknowledgement memories that lanes have used up are gone.
    eventually("no more descriptors than before", || {
        round_trip(&mut witness);
        descriptors(broker.pid()) <= before
    });
    round_trip(&mut witness);
    assert!(broker.child.try_wait().unwrap().is_none(), "the broker lives");
}
