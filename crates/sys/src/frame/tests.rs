//! Frames, their ends, their limits, and what comes beside them.

use std::{
    os::fd::{AsFd, AsRawFd},
    path::Path,
};

use rustix::io::{self, FdFlags};

use super::*;
use crate::{
    process,
    socket::{self, Pair, PairUse, RightsFilter},
};

fn pair(pair_use: PairUse) -> Pair {
    socket::seqpacket_pair(pair_use).unwrap()
}

fn frame(fd: &OwnedFd, buffer: &mut [u8], fds_max: usize) -> Received {
    match receive_frame(fd, buffer, fds_max, Waiting::DontWait).unwrap() {
        Reception::Frame(received) => received,
        other => panic!("no frame: {other:?}"),
    }
}

fn send(fd: &OwnedFd, bytes: &[u8]) -> Sent {
    send_frame(fd, bytes, &[], Waiting::DontWait).unwrap()
}

#[test]
fn a_frame_arrives_whole_with_its_sender() {
    let pair = pair(PairUse::Session);
    assert_eq!(send(&pair.client_end, b"one"), Sent::Whole);
    assert_eq!(send(&pair.client_end, b"second"), Sent::Whole);
    let mut buffer = [0; 16];
    let first = frame(&pair.broker_end, &mut buffer, 0);
    assert_eq!(&buffer[..first.bytes], b"one");
    assert!(!first.truncated && !first.fds_truncated && first.fds.is_empty());
    let sender = first.credentials.unwrap();
    assert_eq!(sender.pid, std::process::id());
    assert_eq!(sender.uid, rustix::process::geteuid().as_raw());
    assert_eq!(process::pid(first.pidfd.unwrap()).unwrap(), std::process::id());
    let second = frame(&pair.broker_end, &mut buffer, 0);
    assert_eq!(&buffer[..second.bytes], b"second");
    let none = receive_frame(&pair.broker_end, &mut buffer, 0, Waiting::DontWait).unwrap();
    assert!(matches!(none, Reception::WouldBlock));
}

#[test]
fn the_end_is_told_after_what_was_sent_before_it() {
    let Pair { broker_end, client_end, .. } = pair(PairUse::Session);
    // A frame that the client never reads makes Linux report a reset first.
    assert_eq!(send(&broker_end, b"unread"), Sent::Whole);
    assert_eq!(send(&client_end, b"one"), Sent::Whole);
    assert_eq!(send(&client_end, b"two"), Sent::Whole);
    drop(client_end);
    let mut buffer = [0; 16];
    for expected in [b"one", b"two"] {
        let received = frame(&broker_end, &mut buffer, 0);
        assert_eq!(&buffer[..received.bytes], expected);
    }
    for _ in 0..2 {
        let end = receive_frame(&broker_end, &mut buffer, 0, Waiting::Block).unwrap();
        assert!(matches!(end, Reception::End));
    }
    assert_eq!(send(&broker_end, b"late"), Sent::Closed);
}

#[test]
fn a_send_after_a_reset_says_closed_and_leaves_the_frames() {
    let Pair { broker_end, client_end, .. } = pair(PairUse::Session);
    assert_eq!(send(&broker_end, b"unread"), Sent::Whole);
    assert_eq!(send(&client_end, b"one"), Sent::Whole);
    drop(client_end);
    assert_eq!(send(&broker_end, b"late"), Sent::Closed);
    assert_eq!(frame(&broker_end, &mut [0; 16], 0).bytes, 3);
}

#[test]
fn too_small_a_buffer_says_so() {
    let pair = pair(PairUse::Session);
    assert_eq!(send(&pair.client_end, b"longer than that"), Sent::Whole);
    let mut buffer = [0; 4];
    let received = frame(&pair.broker_end, &mut buffer, 0);
    assert!(received.truncated);
    assert_eq!((received.bytes, &buffer), (4, b"long"));
}

#[test]
fn a_full_socket_would_block_and_drains() {
    let pair = pair(PairUse::Session);
    socket::set_send_buffer(&pair.client_end, 8192).unwrap();
    let mut sent = 0;
    while send(&pair.client_end, &[0; 1024]) == Sent::Whole {
        sent += 1;
        assert!(sent < 1000, "the send buffer has no limit");
    }
    let huge = send_frame(&pair.client_end, &vec![0; 1 << 20], &[], Waiting::DontWait);
    assert_eq!(huge.unwrap_err().errno, Errno::MSGSIZE);
    for _ in 0..sent {
        frame(&pair.broker_end, &mut [0; 1024], 0);
    }
    assert_eq!(send(&pair.client_end, b"again"), Sent::Whole);
}

#[test]
fn empty_frames_are_not_sent_and_not_taken_for_the_end() {
    let pair = pair(PairUse::Session);
    let empty = send_frame(&pair.client_end, &[], &[], Waiting::DontWait);
    assert_eq!(empty.unwrap_err().errno, Errno::INVAL);
    // A hostile process can send one all the same.
    net::send(&pair.client_end, &[], SendFlags::empty()).unwrap();
    assert_eq!(frame(&pair.broker_end, &mut [0; 16], 0).bytes, 0);
}

#[test]
fn descriptors_arrive_closed_at_exec_and_up_to_the_limit() {
    let pair = pair(PairUse::Deposit);
    let (pipe, _other) = std::io::pipe().unwrap();
    let fds = [pipe.as_fd(); FRAME_FDS_MAX];
    let before = ends_of(&pipe);
    for (fds_max, kept) in [(FRAME_FDS_MAX, FRAME_FDS_MAX), (2, 2), (0, 0)] {
        let sent = send_frame(&pair.client_end, b"x", &fds, Waiting::DontWait).unwrap();
        assert_eq!(sent, Sent::Whole);
        let received = frame(&pair.broker_end, &mut [0; 16], fds_max);
        assert_eq!(received.fds.len(), kept);
        assert_eq!(received.fds_truncated, kept < FRAME_FDS_MAX);
        assert!(received.pidfd.is_some() && received.credentials.is_some());
        for fd in &received.fds {
            assert!(io::fcntl_getfd(fd).unwrap().contains(FdFlags::CLOEXEC));
        }
    }
    assert_eq!(ends_of(&pipe), before, "what was not wanted is closed");
    let fds = [pipe.as_fd(); FRAME_FDS_MAX + 1];
    let many = send_frame(&pair.client_end, b"x", &fds, Waiting::DontWait);
    assert_eq!(many.unwrap_err().errno, Errno::INVAL);
}

#[test]
fn descriptors_beside_the_next_frame_are_seen_and_stay_beside_it() {
    let pair = pair(PairUse::Deposit);
    socket::stop_pidfds(&pair.broker_end).unwrap();
    assert!(!has_descriptors(&pair.broker_end).unwrap(), "no frame, no descriptors");
    assert_eq!(send(&pair.client_end, b"bare"), Sent::Whole);
    for count in [1, FRAME_FDS_MAX] {
        let fds = vec![pair.client_end.as_fd(); count];
        let _ = send_frame(&pair.client_end, b"laden", &fds, Waiting::DontWait).unwrap();
    }
    assert!(!has_descriptors(&pair.broker_end).unwrap());
    let mut buffer = [0; 16];
    assert_eq!(frame(&pair.broker_end, &mut buffer, 0).bytes, 4);
    for count in [1, FRAME_FDS_MAX] {
        assert!(has_descriptors(&pair.broker_end).unwrap());
        assert!(has_descriptors(&pair.broker_end).unwrap(), "it has stayed");
        assert_eq!(frame(&pair.broker_end, &mut buffer, FRAME_FDS_MAX).fds.len(), count);
    }
    drop(pair.client_end);
    assert!(!has_descriptors(&pair.broker_end).unwrap());
}

#[test]
fn a_refused_descriptor_takes_its_frame_along() {
    let pair = pair(PairUse::Session);
    if pair.rights_filter == RightsFilter::Missing {
        return;
    }
    let fds = [pair.client_end.as_fd()];
    let refused = send_frame(&pair.client_end, b"x", &fds, Waiting::DontWait);
    assert_eq!(refused.unwrap_err(), Error { call: "sendmsg", errno: Errno::PERM });
    let none = receive_frame(&pair.broker_end, &mut [0; 16], 16, Waiting::DontWait).unwrap();
    assert!(matches!(none, Reception::WouldBlock));
}

#[test]
fn control_messages_that_make_no_sense_end_the_walk() {
    let walk = |bytes: &[u8]| ControlMessages { rest: bytes }.count();
    let message = |length: usize, level: i32, kind: i32| {
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(CMSG_HEADER_BYTES + 8, 0);
        bytes
    };
    let good = message(CMSG_HEADER_BYTES + 4, libc::SOL_SOCKET, SCM_PIDFD);
    assert_eq!(walk(&good), 1);
    assert_eq!(walk(&[good.clone(), good.clone()].concat()), 2);
    assert_eq!(walk(&[message(CMSG_HEADER_BYTES + 4, 0, 0), good.clone()].concat()), 1);
    assert_eq!(walk(&good[..CMSG_HEADER_BYTES - 1]), 0);
    for length in [0, 1, CMSG_HEADER_BYTES - 1, CMSG_HEADER_BYTES + 9, usize::MAX] {
        assert_eq!(walk(&message(length, libc::SOL_SOCKET, SCM_PIDFD)), 0, "{length}");
    }
}

/// How many descriptors of this process are an end of that pipe: other tests open and close theirs meanwhile.
fn ends_of(pipe: &impl AsRawFd) -> usize {
    let target = |fd: &Path| std::fs::read_link(fd).ok();
    let is = target(&Path::new("/proc/self/fd").join(pipe.as_raw_fd().to_string()));
    let all = std::fs::read_dir("/proc/self/fd").unwrap();
    all.filter(|fd| target(&fd.as_ref().unwrap().path()) == is).count()
}
