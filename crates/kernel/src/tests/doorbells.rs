//! Doorbells: who gets one, who is refused, when they end, and that nothing is left of them.

use alloc::{vec, vec::Vec};

use keyway_abi::{Denial, Event, LaneEnd, LaneId, Reply, Request, Rights, request};

use super::driver::{Driver, Joined, RING_BYTES, Who, doorbell_ended, lane_ended};
use crate::{Descriptor, Effect, Outgoing, Refusal};

fn ask(lane: LaneId) -> Request {
    request::Doorbell { lane }.into()
}

/// Makes a doorbell; both have been told.
fn join(driver: &mut Driver, asker: Who, other: Who, lane: LaneId) {
    let (reply, ends) = driver.ask_all(asker.number, ask(lane));
    assert_eq!(reply, Reply::Doorbell { peer: other.number });
    assert!(matches!(ends[..], [Descriptor::DoorbellEnd(_)]));
    assert_eq!(driver.events(other.number), [Event::Doorbell { peer: asker.number }]);
}

#[test]
fn either_end_of_a_lane_makes_a_doorbell_and_the_other_has_its_end_first() {
    for sender_asks in [true, false] {
        let mut driver = Driver::new();
        let (a, b) = (driver.connect(), driver.connect_uid(1001));
        let Joined { lane, .. } = driver.lane(a, b);
        let (asker, other) = if sender_asks { (a, b) } else { (b, a) };
        driver.hold = true;
        let call = driver.post(asker.number, ask(lane));
        let [Effect::CreateDoorbell { .. }] = driver.effects[..] else {
            panic!("made: {:?}", driver.effects)
        };
        assert_eq!((driver.events(a.number), driver.events(b.number)), (vec![], vec![]));
        driver.answer_next(Ok(()));
        let sent = driver.effects.iter().map(|effect| match effect {
            Effect::Send { to, descriptors, .. } => (*to, descriptors.len()),
            other => panic!("both are sent an end: {other:?}"),
        });
        let sent: Vec<_> = sent.collect();
        assert_eq!(sent, [(other.number, 1), (asker.number, 1)]);
        assert_eq!(driver.reply_to(asker.number, call), Some(Reply::Doorbell { peer: other.number }));
        assert_eq!(driver.events(other.number), [Event::Doorbell { peer: asker.number }]);
        driver.finish();
    }
}

#[test]
fn an_opening_lane_names_the_session_that_its_doorbell_will_lead_to() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let queue = driver.queue(b, 1);
    let send = driver.give(b, queue, a, Rights::SEND);
    let reply = driver
        .ask(a.number, request::OpenLane { queue: send, ring_bytes: RING_BYTES, priority: 0, huge: false });
    let Reply::LaneOpening { lane, peer, .. } = reply else { panic!("a lane: {reply:?}") };
    assert_eq!(peer, b.number);
    let denial = driver.denied(a.number, ask(lane));
    assert_eq!(denial, Denial::LaneUnopened { lane }, "its receiver has not been told of it");
    assert_eq!(driver.denied(b.number, ask(lane)), Denial::UnknownLane { lane });
    driver.done(a.number, request::LaneMapped { lane });
    driver.opened(b);
    join(&mut driver, a, b, lane);
    driver.finish();
}

#[test]
fn a_process_that_sends_to_itself_has_both_ends() {
    let mut driver = Driver::new();
    let a = driver.connect();
    let queue = driver.queue(a, 1);
    let (lane, _) = driver.open(a, queue);
    driver.opened(a);
    join(&mut driver, a, a, lane);
    driver.done(a.number, request::CloseLane { lane });
    driver.events(a.number);
    driver.done(a.number, request::CloseLane { lane });
    assert_eq!(driver.events(a.number), [doorbell_ended(a.number)], "once, although it has both");
    driver.finish();
}

#[test]
fn two_sessions_have_one_doorbell_for_all_their_lanes_in_both_directions() {
    let mut driver = Driver::new();
    let (a, b, c) = (driver.connect(), driver.connect(), driver.connect());
    let (there, back, other) = (driver.lane(a, b).lane, driver.lane(b, a).lane, driver.lane(a, c).lane);
    join(&mut driver, a, b, there);
    for lane in [there, back] {
        assert_eq!(driver.denied(a.number, ask(lane)), Denial::DoorbellExists { peer: b.number });
        assert_eq!(driver.denied(b.number, ask(lane)), Denial::DoorbellExists { peer: a.number });
    }
    assert_eq!(driver.denied(c.number, ask(there)), Denial::UnknownLane { lane: there });
    join(&mut driver, c, a, other);
    // Another session of the same process is another neighbour.
    let identity = driver.kernel.process(a.number).identity.clone().expect("it is known");
    let number = driver.arrive(identity);
    let second = driver.hello(number);
    let further = driver.lane(second, b).lane;
    join(&mut driver, b, second, further);
    driver.finish();
}

#[test]
fn while_one_is_being_made_both_are_refused_a_second() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { lane, .. } = driver.lane(a, b);
    driver.hold = true;
    let call = driver.post(a.number, ask(lane));
    assert_eq!(driver.denied(a.number, ask(lane)), Denial::DoorbellExists { peer: b.number });
    assert_eq!(driver.denied(b.number, ask(lane)), Denial::DoorbellExists { peer: a.number });
    driver.answer_next(Ok(()));
    assert_eq!(driver.reply_to(a.number, call), Some(Reply::Doorbell { peer: b.number }));
    driver.finish();
}

#[test]
fn what_linux_refuses_leaves_nothing_and_may_be_asked_for_again() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { lane, .. } = driver.lane(a, b);
    driver.hold = true;
    let call = driver.post(a.number, ask(lane));
    driver.answer_next(Err(Refusal::System(24)));
    let denial = Denial::SystemRefused { errno: 24 };
    assert_eq!(driver.reply_to(a.number, call), Some(Reply::Denied(denial)));
    assert_eq!(driver.events(b.number), []);
    driver.hold = false;
    join(&mut driver, b, a, lane);
    driver.finish();
}

#[test]
fn it_lasts_until_the_last_lane_is_gone_from_both_ends() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let (there, back) = (driver.lane(a, b).lane, driver.lane(b, a).lane);
    join(&mut driver, a, b, there);
    driver.done(a.number, request::CloseLane { lane: there });
    driver.done(b.number, request::CloseLane { lane: there });
    assert_eq!(driver.events(b.number), [lane_ended(there, LaneEnd::Closed)], "one lane is left");
    driver.done(a.number, request::CloseLane { lane: back });
    assert_eq!(driver.events(b.number), [lane_ended(back, LaneEnd::Closed)], "the sender has not left");
    driver.done(b.number, request::CloseLane { lane: back });
    assert_eq!(driver.events(a.number), [doorbell_ended(b.number)]);
    assert_eq!(driver.events(b.number), [doorbell_ended(a.number)]);
    let Joined { lane, .. } = driver.lane(a, b);
    join(&mut driver, b, a, lane);
    driver.finish();
}

#[test]
fn a_lane_that_has_ended_makes_none() {
    let mut driver = Driver::new();
    let (a, b) = (driver.connect(), driver.connect());
    let Joined { lane, queue, send, .. } = driver.lane(a, b);
    driver.done(a.number, request::CloseLane { lane });
    assert_eq!(driver.denied(a.number, ask(lane)), Denial::UnknownLane { lane });
    assert_eq!(driver.denied(b.number, ask(lane)), Denial::LaneEnded { lane });
    let (lane, _) = driver.open(a, send);
    driver.ask(b.number, request::Revoke { handle: queue });
    assert_eq!(driver.denied(a.number, ask(lane)), Denial::LaneEnded { lane });
    assert_eq!(driver.denied(b.number, ask(lane)), Denial::LaneEnded { lane });
    driver.finish();
}

#[test]
fn a_session_that_ends_takes_its_doorbells_along_whatever_lanes_drain() {
    for sender_dies in [true, false] {
        let mut driver = Driver::new();
        let (a, b) = (driver.connect(), driver.connect());
        let Joined { lane, .. } = driver.lane(a, b);
        join(&mut driver, a, b, lane);
        let (dead, left) = if sender_dies { (a, b) } else { (b, a) };
        driver.end(dead.number);
        let events = driver.events(left.number);
        assert!(events.contains(&doorbell_ended(dead.number)), "{events:?}");
        assert_eq!(driver.denied(left.number, ask(lane)), Denial::LaneEnded { lane });
        driver.done(left.number, request::CloseLane { lane });
        assert_eq!(driver.events(left.number), [], "told once");
        driver.finish();
    }
}

#[test]
fn one_that_comes_too_late_is_dropped_and_the_asker_told() {
    for (close_first, reopen) in [(true, false), (false, false), (true, true)] {
        let mut driver = Driver::new();
        let (a, b) = (driver.connect(), driver.connect());
        let Joined { lane, send, .. } = driver.lane(a, b);
        driver.hold = true;
        let call = driver.post(a.number, ask(lane));
        if close_first {
            driver.done(a.number, request::CloseLane { lane });
            driver.done(b.number, request::CloseLane { lane });
        } else {
            driver.end(b.number);
        }
        driver.events(b.number);
        let mut later = None;
        if reopen {
            driver.hold = false;
            let (lane, _) = driver.open(a, send);
            driver.opened(b);
            driver.hold = true;
            later = Some(driver.post(b.number, ask(lane)));
        }
        driver.answer_next(Ok(()));
        assert!(driver.effects.iter().any(|effect| matches!(effect, Effect::DropDoorbell { .. })));
        match driver.reply_to(a.number, call) {
            Some(Reply::Denied(denial)) => assert_eq!(denial, Denial::LaneEnded { lane }),
            other => panic!("denied: {other:?}"),
        }
        if let Some(call) = later {
            assert_eq!(driver.events(a.number), [], "not by the doorbell of earlier");
            driver.answer_next(Ok(()));
            assert_eq!(driver.reply_to(b.number, call), Some(Reply::Doorbell { peer: a.number }));
        }
        driver.finish();
    }
}

#[test]
fn one_that_was_asked_for_by_who_has_died_is_dropped() {
    for outcome in [Ok(()), Err(Refusal::System(12))] {
        let mut driver = Driver::new();
        let (a, b) = (driver.connect(), driver.connect());
        let Joined { lane, .. } = driver.lane(a, b);
        driver.hold = true;
        driver.post(a.number, ask(lane));
        driver.end(a.number);
        let dropped = outcome.is_ok();
        driver.answer_next(outcome);
        let found = driver.effects.iter().any(|effect| matches!(effect, Effect::DropDoorbell { .. }));
        assert_eq!(found, dropped);
        assert_eq!(driver.events(b.number), [lane_ended(lane, LaneEnd::PeerDead)], "it had none");
        driver.finish();
    }
}

#[test]
fn the_ends_of_many_doorbells_at_once_are_told_in_one_event() {
    let mut driver = Driver::new();
    let b = driver.connect();
    let senders: Vec<Who> = (0..6).map(|_| driver.connect()).collect();
    let queue = driver.queue(b, 6);
    let mut lanes = Vec::new();
    for a in &senders {
        let send = driver.give(b, queue, *a, Rights::SEND);
        let (lane, _) = driver.open(*a, send);
        driver.opened(b);
        join(&mut driver, *a, b, lane);
        lanes.push(lane);
    }
    for (a, lane) in senders.iter().zip(lanes) {
        driver.done(a.number, request::CloseLane { lane });
        assert_eq!(driver.events(a.number), [], "the lane drains");
    }
    driver.done(b.number, request::Delete { handle: queue });
    let peers: Vec<_> = senders.iter().map(|who| who.number).collect();
    let told = Outgoing::Event(Event::DoorbellsEnded { peers });
    let is_it = |effect: &&Effect| matches!(effect, Effect::Send { to, frame, .. } if (*to, frame) == (b.number, &told));
    assert_eq!(driver.effects.iter().filter(is_it).count(), 1, "{:?}", driver.effects);
    for a in senders {
        assert!(driver.events(a.number).contains(&doorbell_ended(b.number)));
    }
    driver.finish();
}
