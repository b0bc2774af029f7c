//! Rings arrive, get lost where they may, and whatever else comes does no harm.

use std::time::Duration;

use super::*;
use crate::frame::{self, Waiting};

/// All that wait, however many calls it takes.
fn all(end: &OwnedFd) -> Vec<u64> {
    let mut lanes = Vec::new();
    while drain(end, &mut lanes).unwrap().packets > 0 {}
    lanes
}

#[test]
fn a_ring_names_its_lane_and_wakes_who_waits_at_either_end() {
    let ends = pair().unwrap();
    for (rings, hears) in [(0, 1), (1, 0)] {
        assert!(!socket::wait_readable(&ends[hears], Some(Duration::ZERO)).unwrap());
        assert_eq!(ring(&ends[rings], 7 << 40).unwrap(), Rung::Named);
        assert!(socket::wait_readable(&ends[hears], Some(Duration::ZERO)).unwrap());
        let mut lanes = vec![1];
        let drained = drain(&ends[hears], &mut lanes).unwrap();
        assert_eq!(drained, Drained { packets: 1, ..Drained::default() });
        assert_eq!(lanes, [1, 7 << 40]);
        assert!(!socket::wait_readable(&ends[hears], Some(Duration::ZERO)).unwrap());
    }
}

#[test]
fn a_full_doorbell_is_rung_all_the_same_and_its_reader_knows() {
    let [one, other] = pair().unwrap();
    let mut lost = 0;
    let mut named = 0;
    for lane in 0..1000 {
        match ring(&one, lane).unwrap() {
            Rung::Named => named += 1,
            Rung::Full => lost += 1,
            Rung::Closed => panic!("the other end is open"),
        }
    }
    assert!(lost > 0, "the buffer is small");
    assert!(named > RINGS_MIN && named <= DRAIN_MAX, "{named} fit");
    let mut lanes = Vec::new();
    assert!(drain(&other, &mut lanes).unwrap().may_be_more, "{} were read, and some lost", lanes.len());
    assert_eq!(lanes.len(), named);
    assert_eq!(ring(&one, 5).unwrap(), Rung::Named, "there is room again");
    assert!(!drain(&other, &mut lanes).unwrap().may_be_more);
}

#[test]
fn what_is_no_ring_is_passed_over_and_an_endless_ringer_is_left_after_a_bounded_number() {
    let [hostile, victim] = pair().unwrap();
    // Whoever has an end can make its own buffer as large as Linux lets it.
    socket::set_send_buffer(&hostile, 1 << 20).unwrap();
    for length in [1, 7, 9, 4000] {
        let _ = frame::send_frame(&hostile, &vec![b'x'; length], &[], Waiting::DontWait).unwrap();
    }
    assert_eq!(ring(&hostile, 3).unwrap(), Rung::Named);
    let mut lanes = Vec::new();
    let drained = drain(&victim, &mut lanes).unwrap();
    assert_eq!((drained.packets, drained.has_garbage, lanes), (5, true, vec![3]));
    while ring(&hostile, 4).unwrap() == Rung::Named {}
    let mut lanes = Vec::new();
    let drained = drain(&victim, &mut lanes).unwrap();
    assert_eq!((drained.packets, lanes.len(), drained.may_be_more), (DRAIN_MAX, DRAIN_MAX, true));
    assert!(!all(&victim).is_empty(), "the others wait for the next call");
}

#[test]
fn an_end_whose_peer_is_gone_says_so_once_all_is_taken() {
    let [gone, left] = pair().unwrap();
    // Unread at the end that goes, which Linux reports as a reset.
    assert_eq!(ring(&left, 1).unwrap(), Rung::Named);
    assert_eq!(ring(&gone, 2).unwrap(), Rung::Named);
    drop(gone);
    assert_eq!(ring(&left, 1).unwrap(), Rung::Closed);
    let mut lanes = Vec::new();
    let drained = drain(&left, &mut lanes).unwrap();
    assert!(drained.is_closed);
    assert_eq!(lanes, [2]);
    assert!(drain(&left, &mut lanes).unwrap().is_closed, "and again");
}

#[test]
fn neither_end_takes_descriptors() {
    let [one, other] = pair().unwrap();
    for (from, to) in [(&one, &other), (&other, &one)] {
        let sent = frame::send_frame(from, b"12345678", &[one.as_fd()], Waiting::DontWait);
        match sent {
            Err(Error { errno: Errno::PERM, .. }) => {}
            // Before Linux 6.16 they go on their way, and are closed where they are taken.
            _ => assert_eq!(all(to).len(), 1),
        }
    }
}
