//! Options, listening and who is at the other end.

use std::{
    fs::Permissions,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use super::*;
use crate::{
    frame::{self, Received, Reception, Sent, Waiting},
    process,
};

fn send(fd: &OwnedFd, fds: &[&OwnedFd]) -> Result<Sent, Error> {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    frame::send_frame(fd, b"frame", &fds, Waiting::DontWait)
}

fn receive(fd: &OwnedFd) -> Received {
    match frame::receive_frame(fd, &mut [0; 64], 16, Waiting::DontWait).unwrap() {
        Reception::Frame(received) => received,
        other => panic!("no frame: {other:?}"),
    }
}

/// Whether descriptors can be sent from one end to the other.
fn takes_descriptors(to: &OwnedFd, from: &OwnedFd) -> bool {
    match send(from, &[from]) {
        Ok(sent) => {
            assert_eq!(sent, Sent::Whole);
            assert_eq!(receive(to).fds.len(), 1);
            true
        }
        Err(error) => {
            assert_eq!(error, Error { call: "sendmsg", errno: Errno::PERM });
            false
        }
    }
}

#[test]
fn each_use_lets_descriptors_in_where_it_should() {
    let cases =
        [(PairUse::Session, false, true), (PairUse::Deposit, true, false), (PairUse::Doorbell, false, false)];
    for (pair_use, at_broker, at_client) in cases {
        let pair = seqpacket_pair(pair_use).unwrap();
        let missing = pair.rights_filter == RightsFilter::Missing;
        let (broker, client) = (&pair.broker_end, &pair.client_end);
        assert_eq!(takes_descriptors(broker, client), at_broker || missing, "{pair_use:?}");
        assert_eq!(takes_descriptors(client, broker), at_client || missing, "{pair_use:?}");
    }
}

#[test]
fn only_the_brokers_end_learns_who_sends() {
    for (pair_use, learns) in [(PairUse::Session, true), (PairUse::Deposit, true), (PairUse::Doorbell, false)]
    {
        let pair = seqpacket_pair(pair_use).unwrap();
        assert_eq!(send(&pair.client_end, &[]).unwrap(), Sent::Whole);
        let received = receive(&pair.broker_end);
        assert_eq!(received.credentials.map(|c| c.pid), learns.then(std::process::id));
        assert_eq!(received.pidfd.is_some(), learns);
        assert_eq!(send(&pair.broker_end, &[]).unwrap(), Sent::Whole);
        let received = receive(&pair.client_end);
        assert!(received.credentials.is_none() && received.pidfd.is_none());
    }
}

#[test]
fn a_connection_has_the_brokers_options_before_it_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.sock");
    let listening = listen(&path, 0o666, 8).unwrap();
    assert!(accept(&listening).unwrap().is_none());
    let client = connect(&path).unwrap();
    let filter = set_broker_options(&listening).unwrap();
    if filter == RightsFilter::On {
        assert_eq!(send(&client, &[&client]).unwrap_err().errno, Errno::PERM);
    }
    assert_eq!(send(&client, &[]).unwrap(), Sent::Whole);
    let accepted = accept(&listening).unwrap().unwrap();
    if filter == RightsFilter::On {
        // Inherited when the client connected, and not only by what follows.
        let received = receive(&accepted);
        assert!(received.pidfd.is_some() && received.credentials.is_some());
        assert_eq!(send(&client, &[]).unwrap(), Sent::Whole);
    }
    set_broker_options(&accepted).unwrap();
    let received = receive(&accepted);
    assert_eq!(received.credentials.unwrap().pid, std::process::id());
    assert!(received.pidfd.is_some());
    assert!(takes_descriptors(&client, &accepted));
}

#[test]
fn both_sides_of_a_connection_learn_who_the_other_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.sock");
    let listening = listen(&path, 0o600, 8).unwrap();
    let client = connect(&path).unwrap();
    let accepted = accept(&listening).unwrap().unwrap();
    for end in [&client, &accepted] {
        let credentials = peer_credentials(end).unwrap();
        assert_eq!(credentials.pid, std::process::id());
        assert_eq!(credentials.uid, rustix::process::geteuid().as_raw());
        assert_eq!(credentials.gid, rustix::process::getegid().as_raw());
        let pidfd = peer_pidfd(end).unwrap();
        assert_eq!(process::pid(&pidfd).unwrap(), std::process::id());
        let groups = process::groups(&pidfd).unwrap();
        assert_eq!(peer_groups(end).unwrap(), groups);
        assert_eq!(peer_groups_into(end, Vec::new()).unwrap(), groups, "room is made for them");
    }
    let (pipe, _other) = std::io::pipe().unwrap();
    assert_eq!(peer_credentials(&pipe).unwrap_err().errno, Errno::NOTSOCK);
    assert!(peer_pidfd(&pipe).is_err());
    assert_eq!(peer_groups(&pipe).unwrap_err().errno, Errno::NOTSOCK);
}

#[test]
fn the_socket_file_has_the_mode_that_was_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    for mode in [0o600, 0o660, 0o666] {
        let path = directory.path().join(format!("{mode:o}"));
        let _listening = listen(&path, mode, 8).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, mode);
    }
    let path = directory.path().join("x".repeat(120));
    assert_eq!(listen(&path, 0o600, 8).unwrap_err().errno, Errno::NAMETOOLONG);
}

#[test]
fn only_a_socket_that_nobody_listens_on_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.sock");
    assert!(remove_stale(&path).unwrap(), "nothing is there");
    let listening = listen(&path, 0o600, 8).unwrap();
    assert!(!remove_stale(&path).unwrap());
    assert_eq!(listen(&path, 0o600, 8).unwrap_err().errno, Errno::ADDRINUSE);
    drop(listening);
    assert_eq!(connect(&path).unwrap_err().errno, Errno::CONNREFUSED);
    assert!(remove_stale(&path).unwrap());
    assert!(!path.exists());

    std::fs::write(&path, "a file").unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    assert!(!remove_stale(&path).unwrap());
    assert!(path.exists());
}

#[test]
fn waiting_ends_with_a_frame_or_the_time() {
    let pair = seqpacket_pair(PairUse::Doorbell).unwrap();
    let short = Some(Duration::from_millis(10));
    assert!(!wait_readable(&pair.broker_end, short).unwrap());
    assert!(wait_writable(&pair.broker_end, short).unwrap());
    assert_eq!(send(&pair.client_end, &[]).unwrap(), Sent::Whole);
    assert!(wait_readable(&pair.broker_end, None).unwrap());
}

#[test]
fn shutting_down_leaves_what_was_received() {
    let pair = seqpacket_pair(PairUse::Session).unwrap();
    assert_eq!(send(&pair.client_end, &[]).unwrap(), Sent::Whole);
    shutdown(&pair.client_end).unwrap();
    assert_eq!(receive(&pair.broker_end).bytes, 5);
    let end = frame::receive_frame(&pair.broker_end, &mut [0; 64], 0, Waiting::Block).unwrap();
    assert!(matches!(end, Reception::End));
    assert_eq!(send(&pair.broker_end, &[]).unwrap(), Sent::Closed);
}
