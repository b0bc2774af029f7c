//! Work and memory that a process could make others pay for: each bounded by what it is charged, and shared out.

use alloc::{format, vec::Vec};

use keyway_abi::{
    AclEntry, AclKind, Denial, Event, Listing, Payer, Quota, Reply, Rights, Subject,
    limits::{MAPPINGS_MAX, SWEEP_STEP},
    request::{self, MapAccess, RegionFlags},
};

use super::driver::{Driver, REGION_BYTES, RING_BYTES, Who, derive, name};
use crate::{Limits, kernel::EFFECTS_KEPT, limits::Charge};

/// A region that its creator has written and can freeze.
fn freezable(driver: &mut Driver, who: Who) -> (keyway_abi::Handle, keyway_abi::MappingId) {
    let create = request::CreateRegion { bytes: REGION_BYTES, flags: RegionFlags::FREEZABLE };
    let region = driver.made(who.number, create).handle;
    let (mapping, _) = driver.map(who, region, MapAccess::Write);
    driver.done(who.number, request::RegionMapped { mapping });
    (region, mapping)
}

#[test]
fn a_region_that_linux_is_freezing_stays_charged_until_linux_has_answered() {
    for outcome in [Ok(()), Err(crate::Refusal::System(16))] {
        let mut driver = Driver::new();
        let a = driver.connect();
        let (region, mapping) = freezable(&mut driver, a);
        let (deaf, again) = freezable(&mut driver, a);
        driver.hold = true;
        let call = driver.post(a.number, request::Freeze { mapping });
        driver.done(a.number, request::Unmap { mapping });
        driver.done(a.number, request::Delete { handle: region });
        driver.post(a.number, request::Freeze { mapping: again });
        driver.done(a.number, request::Unmap { mapping: again });
        driver.done(a.number, request::Delete { handle: deaf });
        assert_eq!(driver.memories.len(), 2, "the broker still has both");
        let account = driver.kernel.process(a.number).account;
        assert_eq!(driver.kernel.accounts.used(account).bytes, 2 * REGION_BYTES);
        driver.answer_next(outcome);
        assert!(driver.reply_to(a.number, call).is_some());
        assert_eq!(driver.kernel.accounts.used(account).bytes, REGION_BYTES);
        driver.end(a.number);
        assert_eq!(driver.memories.len(), 1, "also when nobody waits for the answer");
        driver.answer_next(outcome);
        assert_eq!(driver.memories.len(), 0);
        driver.finish();
    }
}

#[test]
fn words_that_were_given_up_serve_again_so_that_nobody_uses_up_anothers() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect_uid(2000));
    let queue = driver.queue(a, 8);
    let send = driver.give(a, queue, b, Rights::SEND);
    driver.audits = false;
    let mut kept = Vec::new();
    for round in 0..3000 {
        let (lane, word) = driver.open(b, send);
        let Event::LaneOpened { peer_handle: handle, .. } = driver.opened(a) else { unreachable!() };
        driver.done(a.number, request::Delete { handle });
        let reply = driver.ask(a.number, request::TopUp { queue, count: 1 });
        let Reply::Acks { first_ack: first } = reply else { panic!("a memory: {reply:?}") };
        driver.done(a.number, request::AcksMapped { queue, first, count: 1 });
        if round % 1000 == 0 {
            kept.push((lane, word));
        } else {
            driver.done(b.number, request::CloseLane { lane });
            driver.done(a.number, request::CloseLane { lane });
        }
    }
    driver.audits = true;
    driver.kernel.audit();
    for who in [a, b] {
        assert_eq!(driver.kernel.process(who.number).pages.count(), 1, "one page is enough");
    }
    for (_, word) in kept {
        assert_eq!(driver.word(b.number, word), word.generation, "nobody else's word was touched");
    }
    driver.finish();
}

#[test]
fn broker_pages_are_charged_and_given_back() {
    let mut limits = Limits::default();
    limits.user.pages = 3;
    let mut driver = Driver::new();
    driver.kernel.set_limits(limits);
    let (a, b) = (driver.connect(), driver.connect());
    let account = driver.kernel.process(a.number).account;
    let used = |driver: &Driver| driver.kernel.accounts.used(account).pages;
    assert_eq!(used(&driver), 1, "a session begins with one");
    let (region, ..) = driver.written_region(a);
    driver.audits = false;
    let all: Vec<_> = (1..MAPPINGS_MAX).map(|_| driver.map(a, region, MapAccess::Read).0).collect();
    driver.audits = true;
    driver.kernel.audit();
    assert_eq!(used(&driver), 2);
    assert!(driver.events(a.number).contains(&Event::PageAdded { page: 1 }));
    let of_b = driver.give(a, region, b, Rights::MAP);
    driver.audits = false;
    let map = request::MapRegion { region: of_b, access: MapAccess::Read };
    let denial = loop {
        match driver.ask(b.number, map.clone()) {
            Reply::Denied(denial) => break denial,
            Reply::Mapping { .. } => {}
            other => panic!("a mapping: {other:?}"),
        }
    };
    let (quota, of) = (Quota::Pages, Payer::User);
    assert_eq!(denial, Denial::QuotaExceeded { quota, of, asked: 1, used: 3, max: 3 });
    for mapping in all {
        driver.done(a.number, request::Unmap { mapping });
    }
    driver.audits = true;
    driver.kernel.audit();
    assert_eq!(used(&driver), 1, "what is not needed is given back");
    let missing = driver.ask(b.number, map.clone());
    assert!(matches!(missing, Reply::Denied(_)), "it asks for a page, and");
    assert!(matches!(driver.ask(b.number, map), Reply::Mapping { .. }), "has it the next time");
    driver.audits = false;
    driver.finish();
}

/// A capability of one's own below which there are so many.
fn tree(driver: &mut Driver, who: Who, below: usize) -> keyway_abi::Handle {
    let root = driver.made(who.number, derive(who.own, Rights::DERIVE)).handle;
    for _ in 0..below {
        driver.made(who.number, derive(root, Rights::empty()));
    }
    root
}

#[test]
fn many_revocations_of_one_user_do_not_hold_up_anothers() {
    let mut driver = Driver::new();
    driver.audits = false;
    let (a, b) = (driver.connect(), driver.connect_uid(2000));
    let mut limits = Limits::default();
    limits.process.requests = 1024;
    driver.kernel.set_limits(limits);
    let many: Vec<_> = (0..12).map(|_| tree(&mut driver, a, 300)).collect();
    let other = tree(&mut driver, b, 600);
    for handle in many {
        driver.post(a.number, request::Revoke { handle });
    }
    let call = driver.post(b.number, request::Revoke { handle: other });
    let left = 600_usize - SWEEP_STEP;
    let mut steps = 0;
    let reply = loop {
        driver.sweep();
        steps += 1;
        if let Some(reply) = driver.reply_to(b.number, call) {
            break reply;
        }
    };
    assert_eq!(reply, Reply::Revoked { count: 600 });
    assert!(steps <= left.div_ceil(SWEEP_STEP / 2) + 1, "it has half of each turn: {steps}");
    driver.finish();
}

#[test]
fn what_ends_by_itself_in_many_pieces_does_not_hold_up_a_revocation() {
    let mut driver = Driver::new();
    driver.audits = false;
    let (a, b) = (driver.connect(), driver.connect_uid(2000));
    for _ in 0..1000 {
        let terms = keyway_abi::Terms { expires_ns: Some(10), ..keyway_abi::Terms::rights(Rights::DERIVE) };
        let pair = driver.made(a.number, request::Derive { from: a.own, terms }).handle;
        driver.made(a.number, derive(pair, Rights::empty()));
    }
    let other = tree(&mut driver, b, 600);
    driver.now_ns = 11;
    while driver.kernel.next_expiry_ns().is_some_and(|at| at <= 11) {
        let effects: Vec<_> = driver.kernel.expire(11).collect();
        assert!(effects.len() <= 2 * SWEEP_STEP + 1, "{}", effects.len());
    }
    let call = driver.post(b.number, request::Revoke { handle: other });
    let mut steps = 0;
    while driver.reply_to(b.number, call).is_none() {
        driver.sweep();
        steps += 1;
    }
    assert!(steps <= 6, "{steps}");
    while driver.kernel.is_sweeping() {
        driver.sweep();
    }
    driver.finish();
}

#[test]
fn one_step_clears_no_more_than_its_share_and_one_lanes_messages() {
    let mut driver = Driver::new();
    driver.audits = false;
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(b, 8);
    let send = driver.give(b, queue, a, Rights::SEND);
    for _ in 0..8 {
        let (lane, _) = driver.open(a, send);
        for _ in 0..60 {
            let from = a.own;
            let how = request::EscrowHow::Copy(keyway_abi::Terms::rights(Rights::WATCH));
            driver.ask(a.number, request::EscrowPut { lane, from, how });
        }
    }
    let call = driver.post(b.number, request::Revoke { handle: queue });
    assert_eq!(driver.reply_to(b.number, call), None);
    let gone = 8 * 60 - driver.kernel.tree.iter().filter(|(_, found)| is_on_its_way(found)).count();
    assert!(gone <= SWEEP_STEP + 60, "{gone}");
    while driver.kernel.is_sweeping() {
        driver.sweep();
    }
    assert!(driver.reply_to(b.number, call).is_some());
    driver.audits = true;
    driver.kernel.audit();
    driver.finish();
}

fn is_on_its_way(capability: &crate::tree::Capability) -> bool {
    matches!(capability.holder, crate::tree::Holder::Escrow(..))
}

#[test]
fn what_a_process_holds_of_an_object_is_known_through_all_its_changes() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect_uid(2000));
    let (region, ..) = driver.written_region(a);
    let badge_of = driver.queue(a, 0);
    let of_b = driver.give(a, region, b, Rights::empty());
    let subject = Subject::Holder(badge_of);
    let entry = AclEntry { subject, permissions: Rights::MAP, kind: AclKind::Allow };
    driver.ask(a.number, request::AclAdd { object: region, entry });
    let permitted = |driver: &mut Driver| {
        let reply = driver.ask(b.number, request::AclCheck { object: of_b });
        let Reply::Permitted { rights } = reply else { panic!("rights: {reply:?}") };
        rights == Rights::MAP
    };
    assert!(!permitted(&mut driver));
    let held = driver.give(a, badge_of, b, Rights::GRANT | Rights::DERIVE);
    assert!(permitted(&mut driver));
    let joined = driver.lane(b, a);
    let put = |driver: &mut Driver| {
        let how = request::EscrowHow::Move;
        match driver.ask(b.number, request::EscrowPut { lane: joined.lane, from: held, how }) {
            Reply::Ticket(ticket) => ticket,
            other => panic!("a ticket: {other:?}"),
        }
    };
    let ticket = put(&mut driver);
    assert!(!permitted(&mut driver), "it is on its way");
    driver.done(b.number, request::EscrowWithdraw { lane: joined.lane, ticket });
    assert!(permitted(&mut driver), "it has come back");
    let terms = keyway_abi::Terms::rights(Rights::GRANT);
    driver.made(b.number, request::Weaken { handle: held, terms });
    assert!(permitted(&mut driver));
    let ticket = put(&mut driver);
    driver.ask(a.number, request::EscrowTake { lane: joined.lane, ticket });
    assert!(!permitted(&mut driver), "it was taken");
    let other = driver.give(a, badge_of, b, Rights::empty());
    assert!(permitted(&mut driver));
    assert!(driver.kernel.process(b.number).held.known().is_some(), "the audit has compared it each time");
    driver.done(b.number, request::Delete { handle: other });
    assert!(!permitted(&mut driver));
    driver.finish();
}

#[test]
fn queues_are_listed_without_looking_at_anything_else() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let mut expected = Vec::new();
    for _ in 0..30 {
        driver.region(a);
        driver.queue(a, 0);
    }
    expected.extend(driver.kernel.queues.iter().map(|id| id.0));
    let mut found = Vec::new();
    while let Reply::Listing(Listing::Queues(part)) =
        driver.ask(a.number, request::ListQueues { directory: a.directory, after: found.last().copied() })
    {
        if part.is_empty() {
            break;
        }
        found.extend(part.iter().map(|entry| entry.object));
    }
    assert_eq!(found, expected);
    assert_eq!(found.len(), 30);
    driver.finish();
}

#[test]
fn a_badge_is_charged_to_who_has_it_until_the_name_or_the_process_ends() {
    let mut driver = Driver::new();
    let (a, b, c) = (driver.connect(), driver.connect(), driver.connect());
    let queue = driver.queue(a, 0);
    let used = |driver: &Driver, who: Who| {
        let account = driver.kernel.process(who.number).account;
        driver.kernel.accounts.used(account).derivations
    };
    let published = driver.publish(a, queue, "service");
    let before = used(&driver, b);
    let first = driver.lookup(b, "service").handle;
    assert_eq!(used(&driver, b), before + 2, "a capability and a badge");
    driver.lookup(b, "service");
    assert_eq!(used(&driver, b), before + 3, "the badge is the same");
    driver.done(b.number, request::Delete { handle: first });
    assert_eq!(used(&driver, b), before + 2);
    let to = driver.introduce(c, b, Rights::ENDOW);
    let (of_b, of_c) = (used(&driver, b), used(&driver, c));
    let on_behalf_of = Some(to);
    driver.made(b.number, request::Lookup { directory: b.directory, name: name("service"), on_behalf_of });
    assert_eq!(
        (used(&driver, b), used(&driver, c)),
        (of_b + 1, of_c + 1),
        "who asks derives, who is named has the badge"
    );
    driver.done(a.number, request::Delete { handle: published });
    assert_eq!(used(&driver, c), of_c);
    driver.finish();
}

#[test]
fn what_a_child_was_given_is_paid_by_its_starter_until_it_has_spoken() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let queue = driver.queue(a, 1);
    let account = driver.kernel.process(a.number).account;
    let before = driver.kernel.accounts.used(account);
    let child = driver.made(a.number, request::StartChild { process: a.own }).handle;
    let terms = keyway_abi::Terms::rights(Rights::SEND);
    driver.made(a.number, request::Grant { from: queue, to: child, terms });
    let paid = driver.kernel.accounts.used(account).minus(before);
    let expected = Charge { handles: 2, derivations: 1, ..Charge::SESSION };
    assert_eq!(paid, expected, "its session, its starter's handle of it, and the one that it was given");
    let number = *driver.kernel.processes.last_key_value().expect("the child").0;
    let identity = driver.identity(1000);
    driver.bind(number, identity);
    let paid = driver.kernel.accounts.used(account).minus(before);
    assert_eq!(paid, Charge { handles: 1, derivations: 1, ..Charge::NOTHING });
    let open = request::OpenLane { queue, ring_bytes: RING_BYTES, priority: 0, huge: false };
    assert!(matches!(driver.ask(a.number, open), Reply::LaneOpening { .. }));
    driver.finish();
}

#[test]
fn a_childs_badge_is_paid_by_its_starter_until_it_has_spoken() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(b, 0);
    driver.publish(b, queue, "service");
    let child = driver.made(a.number, request::StartChild { process: a.own }).handle;
    let number = *driver.kernel.processes.last_key_value().expect("the child").0;
    let used = |driver: &Driver, process| {
        let account = driver.kernel.process(process).account;
        driver.kernel.accounts.used(account).derivations
    };
    let before = used(&driver, a.number);
    let on_behalf_of = Some(child);
    driver.made(a.number, request::Lookup { directory: a.directory, name: name("service"), on_behalf_of });
    assert_eq!(used(&driver, a.number), before + 2, "a capability and a badge");
    let identity = driver.identity(2000);
    driver.bind(number, identity);
    assert_eq!((used(&driver, a.number), used(&driver, number)), (before + 1, 1), "the badge is the child's");
    driver.end(number);
    assert_eq!(used(&driver, a.number), before);
    driver.finish();
}

#[test]
fn room_for_effects_is_kept_up_to_a_bound() {
    let mut driver = Driver::new();
    for (room, kept) in [(EFFECTS_KEPT, EFFECTS_KEPT), (EFFECTS_KEPT + 1, 0)] {
        driver.kernel.effects = Vec::with_capacity(room);
        assert_eq!(driver.kernel.effects.capacity(), room);
        driver.sweep();
        assert_eq!(driver.kernel.effects.capacity(), kept);
    }
    driver.finish();
}

#[test]
fn what_a_process_loses_at_once_is_told_in_few_frames() {
    let mut driver = Driver::new();
    driver.audits = false;
    let (a, b) = (driver.connect(), driver.connect());
    let to = driver.introduce(b, a, Rights::ENDOW);
    let queue = driver.queue(a, 0);
    let terms = keyway_abi::Terms::rights(Rights::SEND);
    let granted: Vec<_> =
        (0..1500).map(|_| driver.made(a.number, request::Grant { from: queue, to, terms }).handle).collect();
    driver.events(b.number);
    let mut frames = 0;
    let mut count = |driver: &Driver| {
        let to_b =
            |effect: &&crate::Effect| matches!(effect, crate::Effect::Send { to, .. } if *to == b.number);
        frames += driver.effects.iter().filter(to_b).count();
    };
    driver.post(a.number, request::Revoke { handle: queue });
    count(&driver);
    while driver.kernel.is_sweeping() {
        driver.sweep();
        count(&driver);
    }
    let mut lost = driver.events(b.number);
    lost.sort_by_key(|event| format!("{event:?}"));
    let mut expected: Vec<_> = granted.into_iter().map(super::driver::lost).collect();
    expected.sort_by_key(|event| format!("{event:?}"));
    assert!(lost == expected, "each is told once");
    assert_eq!(frames, 1500_usize.div_ceil(SWEEP_STEP), "one frame a step");
    driver.finish();
}

#[test]
fn lanes_that_end_at_once_are_told_in_one_frame() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(b, 8);
    let send = driver.give(b, queue, a, Rights::SEND);
    for _ in 0..8 {
        driver.open(a, send);
    }
    driver.events(b.number);
    driver.end(a.number);
    let sent = driver.effects.iter().filter(|effect| matches!(effect, crate::Effect::Send { .. })).count();
    assert_eq!(sent, 1, "{:?}", driver.effects);
    assert_eq!(driver.events(b.number).len(), 8);
    driver.finish();
}
