//! Whoever sleeps is woken: by a message, by room, by a death, by a revocation.
//!
//! A sleep ends by itself after half a second, so a wake that got lost shows as a delay. Each scene is played several
//! times, and the middle one of the delays must be far below that.

use std::{
    thread,
    time::{Duration, Instant},
};

use keyway::{Client, Ending, Error, Incoming, QueueOptions, SenderOptions, WaitStyle};

use crate::{
    players::{self, PATIENCE, SOON},
    stage::{Stage, publish},
};

/// How often each scene is played.
const TIMES: usize = 7;
/// Far above what a wake takes here, and far below the half second.
const WAKE_MAX: Duration = Duration::from_millis(200);
/// Until the other side sleeps.
const NAP: Duration = Duration::from_millis(30);

fn are_wakes(what: &str, mut delays: Vec<Duration>) {
    delays.sort();
    assert!(delays[delays.len() / 2] < WAKE_MAX, "{what}: {delays:?}");
    assert!(delays.last() < Some(&SOON), "{what}: {delays:?}");
}

/// Sends one message each time it is told to.
pub(crate) fn send_when_told() {
    let client = Client::connect().unwrap();
    let mut sender = client.open_sender(&client.lookup("inbox").unwrap()).unwrap();
    players::say("open");
    loop {
        players::wait_to_be_told();
        sender.send(b"wake").unwrap();
    }
}

/// A queue whose receiver sleeps at once.
fn sleepy(client: &Client) -> (keyway::Queue, keyway::Capability) {
    publish(client, "inbox", QueueOptions { wait: WaitStyle::Sleep, ..QueueOptions::default() })
}

#[test]
fn a_sleeping_receiver_wakes_on_a_message_and_on_its_senders_death() {
    let stage = Stage::begin();
    let client = stage.client();
    let (mut inbox, _name) = sleepy(&client);
    let (mut messages, mut deaths) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        let mut player = stage.player("slow sender", "");
        assert_eq!(player.hear(), "open");
        assert!(matches!(inbox.next_timeout(PATIENCE).unwrap(), Incoming::Opened(_)));
        let teller = thread::spawn(move || {
            thread::sleep(NAP);
            player.tell("on");
            (player, Instant::now())
        });
        let message = inbox.next_timeout(PATIENCE).unwrap();
        let woken = Instant::now();
        assert!(matches!(message, Incoming::Message(_)), "{message:?}");
        let (player, told) = teller.join().unwrap();
        messages.push(woken.saturating_duration_since(told));
        let killer = player.kill_after(NAP);
        let end = inbox.next_timeout(PATIENCE).unwrap();
        let woken = Instant::now();
        assert!(
            matches!(&end, Incoming::Ended { why: Error::LaneEnded { ending: Ending::PeerDead, .. }, .. }),
            "{end:?}"
        );
        deaths.push(woken.saturating_duration_since(killer.join().unwrap()));
    }
    are_wakes("a message", messages);
    are_wakes("a death", deaths);
}

#[test]
fn a_sleeping_receiver_wakes_on_a_revocation() {
    let stage = Stage::begin();
    let client = stage.client();
    let mut delays = Vec::new();
    for _ in 0..TIMES {
        let (mut inbox, name) = sleepy(&client);
        let mut player = stage.player("slow sender", "");
        assert_eq!(player.hear(), "open");
        assert!(matches!(inbox.next_timeout(PATIENCE).unwrap(), Incoming::Opened(_)));
        let handle = inbox.capability().handle();
        let receiver = thread::spawn(move || {
            let end = inbox.next_timeout(PATIENCE).unwrap();
            (inbox, end, Instant::now())
        });
        thread::sleep(NAP);
        let root = client.adopt(handle);
        let revoked = Instant::now();
        root.revoke().unwrap();
        root.into_handle();
        let (inbox, end, woken) = receiver.join().unwrap();
        assert!(
            matches!(&end, Incoming::Ended { why: Error::LaneEnded { ending: Ending::Revoked, .. }, .. }),
            "{end:?}"
        );
        delays.push(woken.saturating_duration_since(revoked));
        drop((inbox, name));
    }
    are_wakes("a revocation", delays);
}

/// Takes one message each time it is told to.
pub(crate) fn receive_when_told() {
    let client = Client::connect().unwrap();
    let (mut queue, _name) = publish(&client, "drain", QueueOptions::default());
    players::say("ready");
    loop {
        players::wait_to_be_told();
        queue.receive_timeout(PATIENCE).unwrap();
    }
}

#[test]
fn a_sleeping_sender_wakes_on_room_and_on_its_receivers_death() {
    let stage = Stage::begin();
    let client = stage.client();
    let (mut rooms, mut deaths) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        let mut player = stage.player("slow receiver", "");
        assert_eq!(player.hear(), "ready");
        let options =
            SenderOptions { ring_bytes: Some(4096), wait: WaitStyle::Sleep, ..SenderOptions::default() };
        let mut sender = client.open_sender_with(&client.lookup("drain").unwrap(), options).unwrap();
        let mut filled = 0;
        while sender.try_send(&[0; 1000]).is_ok() {
            filled += 1;
        }
        let teller = thread::spawn(move || {
            thread::sleep(NAP);
            player.tell("on");
            (player, Instant::now())
        });
        sender.send(&[0; 1000]).unwrap();
        let woken = Instant::now();
        let (player, told) = teller.join().unwrap();
        rooms.push(woken.saturating_duration_since(told));
        let killer = player.kill_after(NAP);
        let error = sender.send(&[0; 1000]).unwrap_err();
        let woken = Instant::now();
        match error {
            Error::LaneEnded { ending: Ending::PeerDead, acknowledged: 1, sent } => {
                assert_eq!(sent, filled + 1);
            }
            other => panic!("not the end: {other}"),
        }
        deaths.push(woken.saturating_duration_since(killer.join().unwrap()));
    }
    are_wakes("room", rooms);
    are_wakes("a death", deaths);
}
