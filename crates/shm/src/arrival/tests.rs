//! Tests of the order by itself: lanes that are sent on between any two looks of the receiver, and senders that lie.

mod scene;

use std::{vec, vec::Vec};

use proptest::prelude::*;

use self::scene::{Deed, Kind, MESSAGE_BYTES, RING_BYTES, World};
use super::*;

/// The one scan that misorders: what it has seen last was sent after something that it had not yet seen.
#[test]
fn what_is_committed_behind_the_scan_comes_before_what_is_sent_before_it() {
    // The third is: the clock, new lanes, lane 0 is empty; then this happens, and lane 1 is looked at.
    for steps in 0..6 {
        let mut world = World::new(&[Kind::Honest, Kind::Honest]);
        let mut order = ByArrival::default();
        world.after_steps(steps, &[Deed::Send(0), Deed::Send(1)]);
        let mut taken = world.take_all(&mut order);
        taken.extend(world.take_all(&mut order));
        assert_eq!(taken, [(0, 0), (1, 0)], "after {steps} steps");
    }
}

/// The same with the smaller stamp on a lane that was opened behind the scan.
#[test]
fn a_lane_that_is_opened_behind_the_scan_is_looked_at_before_what_is_sent_then() {
    for steps in 0..6 {
        let mut world = World::new(&[Kind::Honest]);
        let mut order = ByArrival::default();
        world.after_steps(steps, &[Deed::Open(Kind::Honest), Deed::Send(1), Deed::Send(0)]);
        let mut taken = world.take_all(&mut order);
        taken.extend(world.take_all(&mut order));
        assert_eq!(taken, [(1, 0), (0, 0)], "after {steps} steps");
    }
}

/// What was committed before the lane was taken in keeps its stamp.
#[test]
fn what_was_sent_on_a_lane_before_it_was_taken_in_is_not_late() {
    let mut world = World::new(&[Kind::Honest]);
    let mut order = ByArrival::default();
    assert_eq!(order.next(&mut world), None);
    world.act(&[Deed::Open(Kind::Honest), Deed::Send(1), Deed::Send(0), Deed::Send(1)]);
    assert_eq!(world.take_all(&mut order), [(1, 0), (0, 0), (1, 1)]);
}

/// A sender that was stamping while its lane was looked at and empty is not put behind what was sent after its commit.
#[test]
fn a_lane_that_was_empty_while_its_sender_was_stamping_is_not_late() {
    let mut world = World::new(&[Kind::Honest, Kind::Honest]);
    let mut order = ByArrival::default();
    world.act(&[Deed::Begin(0)]);
    assert_eq!(order.next(&mut world), None);
    world.act(&[Deed::Commit(0), Deed::Send(1)]);
    assert_eq!(world.take_all(&mut order), [(0, 0), (1, 0)]);
}

/// A sender has room a ring further on once the receiver has come so far: what it sent there before that is not late.
#[test]
fn what_fits_into_a_ring_is_not_late() {
    let ring = (RING_BYTES / MESSAGE_BYTES) as usize;
    for first in 1..ring {
        let mut world = World::new(&[Kind::Honest, Kind::Honest]);
        let mut order = ByArrival::default();
        world.act(&vec![Deed::Send(0); ring]);
        for _ in 0..first {
            assert_eq!(order.next(&mut world), Some(0));
            world.take(0);
        }
        world.act(&vec![Deed::Send(0); first]);
        world.act(&[Deed::Send(1)]);
        assert_eq!(world.take_all(&mut order).last(), Some(&(1, 0)), "{first} were taken");
        world.check();
    }
}

#[test]
fn what_another_clock_says_counts_for_nothing() {
    let mut world = World::new(&[Kind::OtherClock, Kind::Honest]);
    let mut order = ByArrival::default();
    world.act(&[Deed::Send(1), Deed::Send(0)]);
    assert_eq!(world.take_all(&mut order), [(1, 0), (0, 0)]);
}

#[test]
fn what_has_piled_up_is_taken_without_a_look_at_empty_lanes_in_between() {
    let mut world = World::new(&[Kind::Honest; 100]);
    let mut order = ByArrival::default();
    for _ in 0..50 {
        world.act(&[Deed::Send(7), Deed::Send(93)]);
    }
    assert_eq!(world.take_all(&mut order).len(), 100);
    // A renewal at the beginning and one at the end, and each message.
    assert!(world.looks <= 2 * 100 + 100, "{} looks", world.looks);
}

#[test]
fn messages_of_one_stamp_go_in_turns() {
    let kinds = [Kind::Says(|_| 0); 3];
    let mut world = World::new(&kinds);
    let mut order = ByArrival::default();
    for _ in 0..3 {
        world.act(&[Deed::Send(0), Deed::Send(1), Deed::Send(2)]);
    }
    let taken = world.take_all(&mut order);
    let lanes: Vec<usize> = taken.iter().map(|(lane, _)| *lane).collect();
    assert_eq!(lanes, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
}

/// Whatever a sender says that never stops, another gets its turn after two rings of it.
#[test]
fn who_lies_without_end_starves_nobody() {
    let lies: [fn(u64) -> u64; 5] = [|_| 0, |_| u64::MAX, |now| u64::MAX - now, |now| now / 2, |_| 1];
    for (index, lie) in lies.into_iter().enumerate() {
        for (slot, other) in [(0, 1), (1, 0)] {
            let mut kinds = [Kind::Honest; 2];
            kinds[slot] = Kind::Says(lie);
            let mut world = World::new(&kinds);
            let mut order = ByArrival::default();
            let ring = (RING_BYTES / MESSAGE_BYTES) as usize;
            world.act(&vec![Deed::Send(slot); ring]);
            assert_eq!(order.next(&mut world), Some(slot));
            world.act(&[Deed::Send(other)]);
            let mut before = 0;
            while order.next(&mut world) == Some(slot) {
                world.take(slot);
                world.act(&[Deed::Send(slot)]);
                before += 1;
                assert!(before <= 2 * ring + 1, "lie {index}: {before} messages of it came first");
            }
            assert_eq!(order.next(&mut world), Some(other), "lie {index}");
        }
    }
}

/// A sender that says it sent long ago, but whose lane was empty, is not believed.
#[test]
fn who_says_it_was_first_is_not_before_what_was_there_when_its_lane_was_empty() {
    let mut world = World::new(&[Kind::Says(|_| 0), Kind::Honest]);
    let mut order = ByArrival::default();
    world.act(&[Deed::Send(1)]);
    assert_eq!(order.next(&mut world), Some(1));
    world.act(&[Deed::Send(0)]);
    assert_eq!(world.take_all(&mut order), [(1, 0), (0, 0)]);
}

/// What a sender says of the future is what the time is when it is seen.
#[test]
fn who_says_it_will_send_is_before_what_is_sent_after_it_was_seen() {
    let mut world = World::new(&[Kind::Says(|_| u64::MAX), Kind::Honest, Kind::OtherClock]);
    let mut order = ByArrival::default();
    world.act(&[Deed::Send(0), Deed::Send(2)]);
    assert!(order.next(&mut world).is_some());
    world.act(&[Deed::Send(1)]);
    let taken = world.take_all(&mut order);
    assert_eq!(taken.last(), Some(&(1, 0)), "{taken:?}");
}

/// A message that is taken away again, once it was seen, leaves its lane behind those of others.
#[test]
fn who_takes_away_what_was_seen_goes_behind_the_others() {
    let mut world = World::new(&[Kind::Says(|_| 0), Kind::Honest]);
    let mut order = ByArrival::default();
    world.act(&[Deed::Send(0), Deed::Send(1)]);
    assert_eq!(order.next(&mut world), Some(0));
    world.withdraw(0);
    // As the queue does that finds nothing.
    let now_ns = world.now_ns();
    let (stamps, _) = world.lane(0).unwrap();
    stamps.withdraw(now_ns);
    world.act(&[Deed::Send(0)]);
    assert_eq!(order.next(&mut world), Some(1));
}

#[test]
fn the_end_of_a_lane_is_told_and_its_slot_can_be_anothers() {
    let mut world = World::new(&[Kind::Honest, Kind::Honest]);
    let mut order = ByArrival::default();
    world.act(&[Deed::Send(0), Deed::Send(1), Deed::Close(0)]);
    assert_eq!(order.next(&mut world), Some(0));
    world.take(0);
    assert_eq!(order.next(&mut world), Some(0), "over");
    world.replace(0, Kind::Honest);
    world.act(&[Deed::Send(0)]);
    assert_eq!(world.take_all(&mut order), [(1, 0), (0, 0)]);
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let lane = 0..5_usize;
    let deed = prop_oneof![
        4 => lane.clone().prop_map(Deed::Send),
        3 => lane.clone().prop_map(Deed::Begin),
        4 => lane.clone().prop_map(Deed::Commit),
        2 => (lane.clone(), 1..4_usize).prop_map(|(lane, count)| Deed::SendBatch(lane, count)),
        1 => prop_oneof![Just(Kind::Honest), Just(Kind::Says(|_| 0)), Just(Kind::Says(|_| u64::MAX))]
            .prop_map(Deed::Open),
        1 => Just(Deed::Rest),
    ];
    prop::collection::vec(deed, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 4000 }))]

    /// Senders send at any moment: between any two steps of the receiver, and between their own stamp and commit. Of two messages
    /// of honest ones, that which was committed before the other was sent is received first, and all of them are.
    #[test]
    fn whatever_happens_between_two_looks_the_order_holds(
        deeds in deeds(),
        pace in prop::collection::vec(0..4_usize, 1..40),
        liar in prop::option::of(0..3_usize),
        takes in 1..6_usize,
    ) {
        let mut kinds = [Kind::Honest; 3];
        if let Some(liar) = liar {
            kinds[liar] = Kind::Says(|now| now.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        }
        let mut world = World::new(&kinds);
        let mut order = ByArrival::default();
        world.act_meanwhile(deeds, pace);
        while world.is_busy() {
            for _ in 0..takes {
                if let Some(slot) = order.next(&mut world) {
                    world.take(slot);
                }
            }
            world.pass_time();
        }
        world.finish();
        world.take_all(&mut order);
        world.check();
    }
}

#[test]
fn a_first_message_is_known_until_it_is_taken_or_withdrawn() {
    let mut stamps = Stamps::new(true, RING_BYTES);
    assert!(!stamps.is_known_after(0));
    stamps.head = Some(Head { number: 1, taken: 4 });
    assert!(stamps.is_known_after(4) && !stamps.is_known_after(3) && !stamps.is_known_after(5));
    stamps.withdraw(100);
    assert!(!stamps.is_known_after(4));
}
