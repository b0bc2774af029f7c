//! Capabilities in messages: copied, moved, withdrawn, taken, dropped.

use keyway_abi::{
    CapabilityEntry, Denial, Handle, Kind, LaneId, Reply, Rights, Terms, Ticket,
    request::{self, EscrowHow},
};

use super::driver::{Driver, Joined, Who, lost};

fn put(driver: &mut Driver, who: Who, lane: LaneId, from: Handle, how: EscrowHow) -> Ticket {
    let reply = driver.ask(who.number, request::EscrowPut { lane, from, how });
    let Reply::Ticket(ticket) = reply else { panic!("a ticket: {reply:?}") };
    ticket
}

fn take(driver: &mut Driver, who: Who, lane: LaneId, ticket: Ticket) -> CapabilityEntry {
    let reply = driver.ask(who.number, request::EscrowTake { lane, ticket });
    let Reply::Taken(entry) = reply else { panic!("a capability: {reply:?}") };
    entry
}

#[test]
fn a_copy_leaves_the_sender_its_own() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { lane, .. } = driver.lane(a, b);
    let region = driver.region(a);
    let ticket = put(&mut driver, a, lane, region, EscrowHow::Copy(Terms::rights(Rights::MAP)));
    let entry = take(&mut driver, b, lane, ticket);
    assert_eq!((entry.kind, entry.rights), (Kind::Region, Rights::MAP));
    assert_eq!(entry.parent, Some((a.number, region)));
    assert!(driver.holds(a.number, region));
    assert!(driver.holds(b.number, entry.handle));
    driver.finish();
}

#[test]
fn a_moved_capability_is_with_nobody_and_then_with_the_receiver() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { lane, .. } = driver.lane(a, b);
    let region = driver.region(a);
    let ticket = put(&mut driver, a, lane, region, EscrowHow::Move);
    let stale = Denial::StaleHandle { handle: region };
    assert_eq!(driver.denied(a.number, request::Delete { handle: region }), stale);
    let entry = take(&mut driver, b, lane, ticket);
    assert!(entry.rights.contains(Rights::MAP | Rights::WRITE));
    assert_eq!(driver.denied(a.number, request::Delete { handle: region }), stale);
    let next = driver.region(a);
    assert_eq!((next.slot(), next.generation()), (region.slot(), region.generation() + 1));
    driver.finish();
}

#[test]
fn a_withdrawn_capability_comes_back_under_its_handle() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { lane, .. } = driver.lane(a, b);
    let region = driver.region(a);
    let before = driver.list(a.number);
    let moved = put(&mut driver, a, lane, region, EscrowHow::Move);
    let copied = put(&mut driver, a, lane, a.own, EscrowHow::Copy(Terms::rights(Rights::WATCH)));
    for ticket in [moved, copied] {
        driver.done(a.number, request::EscrowWithdraw { lane, ticket });
    }
    assert_eq!(driver.list(a.number), before);
    driver.finish();
}

#[test]
fn taking_one_drops_those_with_lower_tickets_and_no_others() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { lane, .. } = driver.lane(a, b);
    let region = driver.region(a);
    let tickets: alloc::vec::Vec<_> = (0..4)
        .map(|_| put(&mut driver, a, lane, region, EscrowHow::Copy(Terms::rights(Rights::MAP))))
        .collect();
    assert!(tickets.is_sorted() && tickets[0] == Ticket(1));
    take(&mut driver, b, lane, tickets[2]);
    for ticket in [tickets[0], tickets[1], tickets[2]] {
        let unknown = Denial::UnknownTicket { lane, ticket };
        assert_eq!(driver.denied(b.number, request::EscrowTake { lane, ticket }), unknown);
    }
    take(&mut driver, b, lane, tickets[3]);
    driver.finish();
}

#[test]
fn what_is_in_escrow_survives_the_sender_and_goes_with_the_receivers_end() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { lane, .. } = driver.lane(a, b);
    let region = driver.region(a);
    let first = put(&mut driver, a, lane, region, EscrowHow::Copy(Terms::rights(Rights::MAP)));
    let second = put(&mut driver, a, lane, region, EscrowHow::Move);
    driver.end(a.number);
    let entry = take(&mut driver, b, lane, first);
    assert!(driver.holds(b.number, entry.handle));
    driver.done(b.number, request::CloseLane { lane });
    let unknown = Denial::UnknownLane { lane };
    assert_eq!(driver.denied(b.number, request::EscrowTake { lane, ticket: second }), unknown);
    driver.finish();
}

#[test]
fn a_sender_that_closes_its_lane_keeps_no_slot_for_what_it_moved() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { lane, .. } = driver.lane(a, b);
    let region = driver.region(a);
    let ticket = put(&mut driver, a, lane, region, EscrowHow::Move);
    driver.done(a.number, request::CloseLane { lane });
    let next = driver.region(a);
    assert_eq!((next.slot(), next.generation()), (region.slot(), region.generation() + 1));
    let entry = take(&mut driver, b, lane, ticket);
    assert!(driver.holds(b.number, entry.handle));
    assert!(driver.holds(a.number, next));
    driver.finish();
}

#[test]
fn the_lanes_end_drops_the_rest_and_tells_the_sender_what_it_lost() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { lane, .. } = driver.lane(a, b);
    let region = driver.region(a);
    put(&mut driver, a, lane, region, EscrowHow::Move);
    put(&mut driver, a, lane, a.own, EscrowHow::Copy(Terms::rights(Rights::WATCH)));
    assert_eq!(driver.memories.len(), 4, "region, ring, two acknowledgement memories");
    driver.done(b.number, request::CloseLane { lane });
    let events = driver.events(a.number);
    assert!(events.contains(&lost(region)), "{events:?}");
    assert_eq!(driver.memories.len(), 1, "the region, the ring and its acknowledgement memory are gone");
    driver.finish();
}

#[test]
fn a_revoked_lane_carries_no_capability_any_more() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { lane, queue, .. } = driver.lane(a, b);
    let region = driver.region(a);
    let ticket = put(&mut driver, a, lane, region, EscrowHow::Move);
    driver.ask(b.number, request::Revoke { handle: queue });
    let unknown = Denial::UnknownTicket { lane, ticket };
    assert_eq!(driver.denied(b.number, request::EscrowTake { lane, ticket }), unknown);
    assert!(driver.events(a.number).contains(&lost(region)));
    let ended = Denial::LaneEnded { lane };
    let put = request::EscrowPut { lane, from: a.own, how: EscrowHow::Copy(Terms::rights(Rights::WATCH)) };
    assert_eq!(driver.denied(a.number, put), ended);
    driver.finish();
}

#[test]
fn revocation_reaches_into_escrow() {
    let mut driver = Driver::new();
    let (a, b, c) = (driver.connect(), driver.connect(), driver.connect());
    let Joined { lane, .. } = driver.lane(a, b);
    let region = driver.region(c);
    let shared = driver.give(c, region, a, Rights::MAP | Rights::GRANT | Rights::DERIVE);
    let copied = put(&mut driver, a, lane, shared, EscrowHow::Copy(Terms::rights(Rights::MAP)));
    let moved = put(&mut driver, a, lane, shared, EscrowHow::Move);
    let revoked = driver.ask(c.number, request::Revoke { handle: region });
    assert_eq!(revoked, Reply::Revoked { count: 2 });
    for ticket in [copied, moved] {
        let unknown = Denial::UnknownTicket { lane, ticket };
        assert_eq!(driver.denied(b.number, request::EscrowTake { lane, ticket }), unknown);
        assert_eq!(driver.denied(a.number, request::EscrowWithdraw { lane, ticket }), unknown);
    }
    assert_eq!(driver.events(a.number), [lost(shared)]);
    driver.finish();
}

#[test]
fn a_process_that_sends_to_itself_gets_its_capability_back() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let queue = driver.queue(a, 1);
    let (lane, _) = driver.open(a, queue);
    let region = driver.region(a);
    let ticket = put(&mut driver, a, lane, region, EscrowHow::Move);
    let entry = take(&mut driver, a, lane, ticket);
    assert!(driver.holds(a.number, entry.handle));
    put(&mut driver, a, lane, entry.handle, EscrowHow::Move);
    driver.finish();
}
