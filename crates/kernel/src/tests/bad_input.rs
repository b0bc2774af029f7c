//! What a careless or hostile program asks for, one by one: what was asked and what stood against it are both said, and nothing has
//! changed. What else can be asked for wrongly is in `denials`, `expiry`, `signals` and `refusals`.

use keyway_abi::{
    Denial, Kind, Reply, Rights, Terms, Ticket,
    limits::REGION_BYTES_MAX,
    request::{self, EscrowHow, MapAccess, RegionFlags},
};

use super::driver::{Driver, Joined, RING_BYTES, derive, lost};

#[test]
fn a_region_of_nothing_of_half_of_everything_or_of_no_whole_pages_is_refused_with_the_bounds() {
    let mut driver = Driver::new();
    let a = driver.connect();
    for asked in [0, 1, 4095, 4097, 1 << 63, (1 << 63) + 4096, REGION_BYTES_MAX + 4096, u64::MAX] {
        for flags in [RegionFlags::empty(), RegionFlags::FREEZABLE, RegionFlags::SHARED] {
            let denial = driver.denied(a.number, request::CreateRegion { bytes: asked, flags });
            assert_eq!(denial, Denial::InvalidSize { asked, min: 4096, max: REGION_BYTES_MAX });
        }
    }
    driver.finish();
}

#[test]
fn a_protection_that_the_capability_lacks_is_refused_with_what_it_has() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let flags = RegionFlags::SHARED;
    let shared = driver.made(a.number, request::CreateRegion { bytes: 4096, flags }).handle;
    let (written, ..) = driver.written_region(a);
    for (region, held, access, needed) in [
        (written, Rights::GRANT, MapAccess::Read, Rights::MAP),
        (written, Rights::WRITE, MapAccess::Read, Rights::MAP),
        (written, Rights::GRANT, MapAccess::Frozen, Rights::MAP),
        (written, Rights::MAP, MapAccess::Write, Rights::WRITE),
        (shared, Rights::MAP | Rights::GRANT, MapAccess::Share, Rights::WRITE),
    ] {
        let handle = driver.give(a, region, b, held);
        let denial = driver.denied(b.number, request::MapRegion { region: handle, access });
        assert_eq!(denial, Denial::MissingRights { handle, needed, held }, "{access:?}");
    }
    driver.finish();
}

#[test]
fn a_revoked_capability_is_refused_whatever_is_asked_with_it() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(a, 1);
    let handle = driver.give(a, queue, b, Rights::SEND | Rights::DERIVE | Rights::GRANT);
    let to = driver.introduce(a, b, Rights::ENDOW);
    assert_eq!(driver.ask(a.number, request::Revoke { handle: queue }), Reply::Revoked { count: 1 });
    let stale = Denial::StaleHandle { handle };
    assert_eq!(driver.denied(b.number, derive(handle, Rights::SEND)), stale);
    let open = request::OpenLane { queue: handle, ring_bytes: RING_BYTES, priority: 0, huge: false };
    assert_eq!(driver.denied(b.number, open), stale);
    let rights = Rights::SEND;
    let grant = request::Grant { from: handle, to, terms: Terms::rights(rights) };
    assert_eq!(driver.denied(b.number, grant), stale);
    assert_eq!(driver.denied(b.number, request::Weaken { handle, terms: Terms::rights(rights) }), stale);
    assert_eq!(driver.denied(b.number, request::Revoke { handle }), stale);
    assert_eq!(driver.denied(b.number, request::Delete { handle }), stale);
    driver.finish();
}

#[test]
fn what_is_granted_to_a_process_that_has_died_goes_nowhere_and_the_denial_names_it() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(a, 0);
    let to = driver.introduce(b, a, Rights::ENDOW);
    driver.end(b.number);
    let rights = Rights::SEND;
    let grant = request::Grant { from: queue, to, terms: Terms::rights(rights) };
    assert_eq!(driver.denied(a.number, grant), Denial::ProcessEnded { process: b.number });
    driver.finish();
}

#[test]
fn a_queue_goes_through_itself_as_a_right_to_send_and_never_as_the_right_to_receive() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { lane, send, queue, .. } = driver.lane(a, b);
    let (own, _) = driver.open(b, queue);
    for how in [
        EscrowHow::Move,
        EscrowHow::Copy(Terms::rights(Rights::RECEIVE)),
        EscrowHow::Copy(Terms::rights(Rights::RECEIVE | Rights::SEND)),
    ] {
        let put = request::EscrowPut { lane: own, from: queue, how };
        assert_eq!(driver.denied(b.number, put), Denial::ReceiveBound);
    }
    let copy = request::EscrowPut { lane, from: send, how: EscrowHow::Copy(Terms::rights(Rights::SEND)) };
    assert_eq!(driver.ask(a.number, copy), Reply::Ticket(Ticket(1)));
    let taken = driver.ask(b.number, request::EscrowTake { lane, ticket: Ticket(1) });
    let Reply::Taken(entry) = taken else { panic!("a capability: {taken:?}") };
    assert_eq!((entry.kind, entry.rights), (Kind::Queue, Rights::SEND));
    assert_eq!(entry.parent, Some((a.number, send)));
    driver.finish();
}

#[test]
fn a_circle_of_a_queue_a_lane_and_what_lies_in_it_keeps_nothing_alive() {
    for revoked in [false, true] {
        let mut driver = Driver::new();
        let (a, b) = (driver.connect(), driver.connect());
        // The very capability through which the lane was opened lies in that lane, and names the lane's queue.
        let Joined { lane, send, queue, .. } = driver.lane(a, b);
        let put = request::EscrowPut { lane, from: send, how: EscrowHow::Move };
        assert_eq!(driver.ask(a.number, put), Reply::Ticket(Ticket(1)));
        let stale = Denial::StaleHandle { handle: send };
        assert_eq!(driver.denied(a.number, derive(send, Rights::SEND)), stale);
        let take = request::EscrowTake { lane, ticket: Ticket(1) };
        if revoked {
            let reply = driver.ask(b.number, request::Revoke { handle: queue });
            assert!(matches!(reply, Reply::Revoked { .. }), "{reply:?}");
            assert!(driver.events(a.number).contains(&lost(send)));
            assert_eq!(driver.denied(b.number, take), Denial::UnknownTicket { lane, ticket: Ticket(1) });
        } else {
            driver.done(b.number, request::Delete { handle: queue });
            assert_eq!(driver.denied(b.number, take), Denial::UnknownLane { lane });
        }
        assert_eq!(driver.denied(a.number, derive(send, Rights::SEND)), stale);
        driver.finish();
    }
}
