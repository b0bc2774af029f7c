//! What the others learn when a process dies, when, and how often; and when the broker itself dies.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use keyway::{
    Carried, Client, Denial, Ending, Error, Incoming, Notice, Outgoing, QueueOptions, Rights, SenderOptions,
    SignalSet, Verdict, WaitStyle,
};

use crate::{
    players::{self, PATIENCE, SOON},
    stage::{Stage, eventually, open_inbox, publish},
};

/// Opens a lane to the test, says something there, and stays.
pub(crate) fn send_once_and_stay() {
    let client = Client::connect().unwrap();
    let mut sender = client.open_sender(&client.lookup("inbox").unwrap()).unwrap();
    sender.send(b"here").unwrap();
    players::stay();
}

#[test]
fn a_watch_tells_of_a_death_soon_and_a_later_one_at_once() {
    let stage = Stage::begin();
    let client = stage.client();
    let (mut inbox, _name) = open_inbox(&client, "inbox");
    for _ in 0..5 {
        let mut player = stage.player("sender", "");
        let lane = inbox.receive_timeout(PATIENCE).unwrap().lane;
        let process = inbox.sender_process(lane).unwrap();
        let (watch, again) = (process.watch().unwrap(), process.watch().unwrap());
        assert!(!watch.has_ended().unwrap());
        assert!(matches!(watch.wait(Duration::from_millis(20)), Err(Error::TimedOut(_))));
        player.kill();
        assert!(watch.wait(SOON).unwrap() < SOON);
        assert!(again.has_ended().unwrap());
        let late = process.watch().unwrap();
        assert!(late.wait(SOON).unwrap() < SOON);
        assert!(matches!(inbox.next_timeout(SOON).unwrap(), Incoming::Ended { .. }));
        stage.forgets(player.pid());
    }
}

/// Sends two capabilities, one of a region that it wrote and one that it moves away, and stays.
pub(crate) fn give_a_capability_and_stay() {
    let client = Client::connect().unwrap();
    let mut sender = client.open_sender(&client.lookup("inbox").unwrap()).unwrap();
    let region = client.create_region(4096).unwrap();
    let writer = client.map_writer(&region).unwrap();
    writer.write(0, b"a dead hand's").unwrap();
    let moved = client.lookup("inbox").unwrap();
    let carried = [Carried::Copy(&region, Rights::MAP), Carried::Move(&moved)];
    sender.send_message(&Outgoing { capabilities: &carried, ..Outgoing::default() }).unwrap();
    players::say("given");
    players::stay();
}

#[test]
fn capabilities_in_a_message_outlive_its_sender() {
    let stage = Stage::begin();
    let client = stage.client();
    let (mut inbox, _name) = open_inbox(&client, "inbox");
    let mut before = None;
    for _ in 0..4 {
        let mut player = stage.player("giver", "");
        assert_eq!(player.hear(), "given");
        player.kill();
        eventually("the broker knows", || !stage.knows(player.pid()));
        let draining = stage.witness.lanes().unwrap();
        assert!(draining.iter().any(|lane| lane.draining), "{draining:?}");
        let mut message = inbox.receive_timeout(PATIENCE).unwrap();
        let moved = message.capabilities.pop().unwrap().unwrap();
        let region = message.capabilities.pop().unwrap().unwrap();
        let reader = client.map_reader(&region).unwrap();
        let mut bytes = [0; 13];
        reader.read(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"a dead hand's");
        let end = inbox.next_timeout(SOON).unwrap();
        assert!(matches!(end, Incoming::Ended { .. }), "{end:?}");
        // It was the dead process's own, and is ours now.
        let mut sender = client.open_sender(&moved).unwrap();
        sender.send(b"through it").unwrap();
        assert_eq!(inbox.receive_timeout(SOON).unwrap().payload, b"through it");
        drop(sender);
        assert!(matches!(inbox.next_timeout(SOON).unwrap(), Incoming::Ended { .. }));
        drop((reader, region, moved));
        stage.forgets(player.pid());
        match before {
            None => before = Some(stage.footprint()),
            Some(before) => stage.shrinks_to(before),
        }
    }
}

#[test]
fn a_reader_is_told_that_its_writer_is_dead() {
    let stage = Stage::begin();
    let client = stage.client();
    let (mut inbox, _name) = open_inbox(&client, "inbox");
    let mut player = stage.player("giver", "");
    let mut message = inbox.receive_timeout(PATIENCE).unwrap();
    let _moved = message.capabilities.pop();
    let region = message.capabilities.pop().unwrap().unwrap();
    let reader = client.map_reader(&region).unwrap();
    assert_eq!(reader.verdict(), Verdict::Live);
    player.kill();
    eventually("the verdict", || reader.verdict() == Verdict::Dead);
}

/// Takes lanes in, and nothing from them.
pub(crate) fn receive_nothing_and_stay() {
    let client = Client::connect().unwrap();
    let _queue = publish(&client, "refuser", QueueOptions::default());
    players::say("ready");
    players::stay();
}

#[test]
fn a_capability_moved_to_a_receiver_that_dies_is_gone_and_its_sender_is_told() {
    let stage = Stage::begin();
    let client = stage.client();
    let own = client.create_queue(QueueOptions::default()).unwrap();
    let moved = own.sender_capability(None).unwrap();
    let mut player = stage.player("refuser", "");
    assert_eq!(player.hear(), "ready");
    let mut sender = client.open_sender(&client.lookup("refuser").unwrap()).unwrap();
    let carried = [Carried::Move(&moved)];
    sender.send_message(&Outgoing { capabilities: &carried, ..Outgoing::default() }).unwrap();
    assert!(client.open_sender(&moved).is_err(), "it is on its way");
    player.kill();
    let lost = Notice::CapabilityLost { handle: moved.handle() };
    let mut notices = Vec::new();
    eventually("the sender is told", || {
        notices.extend(client.take_notices().unwrap());
        notices.contains(&lost)
    });
    let stale = client.open_sender(&moved).unwrap_err();
    assert!(matches!(stale.denial(), Some(Denial::StaleHandle { .. })), "{stale}");
    // Of what carries a capability the broker hears first.
    let kept = own.sender_capability(None).unwrap();
    let carried = [Carried::Copy(&kept, Rights::SEND)];
    let outgoing = [&carried[..], &[]].map(|capabilities| Outgoing { capabilities, ..Outgoing::default() });
    for outgoing in &outgoing {
        match sender.send_message(outgoing) {
            Err(Error::LaneEnded { ending: Ending::PeerDead, acknowledged: 0, sent: 1 }) => {}
            other => panic!("nobody is there: {other:?}"),
        }
    }
    drop(sender);
    stage.forgets(player.pid());
}

#[test]
fn a_receiver_that_did_not_look_for_long_misses_no_sender() {
    let stage = Stage::begin();
    let (busy, other) = (stage.client(), stage.client());
    let (mut inbox, _name) = open_inbox(&busy, "inbox");
    let (mut door, _door_name) = open_inbox(&other, "door");
    let own = busy.own_process().unwrap();
    let carried = [Carried::Copy(&own, Rights::ENDOW)];
    let mut to_door = busy.open_sender(&busy.lookup("door").unwrap()).unwrap();
    to_door.send_message(&Outgoing { capabilities: &carried, ..Outgoing::default() }).unwrap();
    let to_busy = door.receive_timeout(SOON).unwrap().capabilities.pop().unwrap().unwrap();
    // More news than its socket takes, so that some wait in the broker; the sender comes last.
    for _ in 0..450 {
        door.capability().grant(&to_busy, Rights::SEND, None).unwrap();
    }
    let mut sender = other.open_sender(&other.lookup("inbox").unwrap()).unwrap();
    sender.send(b"at last").unwrap();
    let began = Instant::now();
    assert_eq!(inbox.receive_timeout(PATIENCE / 4).unwrap().payload, b"at last");
    assert!(began.elapsed() < SOON, "after {:?}", began.elapsed());
}

/// Runs something that waits for ever in a thread, and says what came of it.
fn waiting<T: Send + 'static>(wait: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
    let (said, outcome) = mpsc::channel();
    thread::spawn(move || {
        // The test may have given up.
        let _ = said.send(wait());
    });
    outcome
}

const STYLES: [WaitStyle; 3] = [WaitStyle::Adaptive, WaitStyle::Sleep, WaitStyle::Spin];

#[test]
fn when_the_broker_is_killed_whoever_waits_learns_it() {
    let mut stage = Stage::begin();
    let mut waits = Vec::new();
    let mut kept = Vec::new();
    for (number, style) in STYLES.into_iter().enumerate() {
        let client = stage.client();
        let mut idle = client.create_queue(QueueOptions { wait: style, ..QueueOptions::default() }).unwrap();
        waits.push((format!("receive, {style:?}"), waiting(move || idle.receive().map(drop))));

        let full = client.create_queue(QueueOptions::default()).unwrap();
        let options = SenderOptions { ring_bytes: Some(4096), wait: style, ..SenderOptions::default() };
        let mut sender = client.open_sender_with(&full.sender_capability(None).unwrap(), options).unwrap();
        while sender.try_send(&[0; 64]).is_ok() {}
        waits.push((format!("send, {style:?}"), waiting(move || sender.send(&[0; 64]))));

        let name = format!("mute-{number}");
        let mute = open_inbox(&client, &name);
        let mut caller = client.open_caller(&client.lookup(&name).unwrap()).unwrap();
        caller.set_wait_style(style);
        let call = move || caller.call(&Outgoing::bytes(b"?"), PATIENCE * 2).map(drop);
        waits.push((format!("call, {style:?}"), waiting(call)));

        let own = client.own_process().unwrap();
        let watch = own.watch().unwrap();
        waits.push((format!("watch {number}"), waiting(move || watch.wait(PATIENCE * 2).map(drop))));
        let signals = client.signals().unwrap();
        waits.push((
            format!("signals {number}"),
            waiting(move || signals.wait(SignalSet::ALL, PATIENCE * 2).map(drop)),
        ));
        kept.push((client, full, mute));
    }
    thread::sleep(Duration::from_millis(50));
    let killed = Instant::now();
    stage.broker.kill();
    for (what, outcome) in waits {
        let outcome = outcome.recv_timeout(SOON + SOON).unwrap_or_else(|_| panic!("{what} hangs"));
        assert!(matches!(outcome, Err(Error::BrokerGone)), "{what}: {outcome:?}");
    }
    assert!(killed.elapsed() < SOON + SOON);
    for (client, ..) in &kept {
        assert!(matches!(client.create_region(4096), Err(Error::BrokerGone)));
        assert!(matches!(client.take_notices(), Err(Error::BrokerGone)));
    }
    // Dropping everything hangs no more than that.
    drop(kept);
    assert!(killed.elapsed() < PATIENCE);
}

#[test]
fn lanes_that_are_open_go_on_without_the_broker_until_somebody_must_wait() {
    let mut stage = Stage::begin();
    let client = stage.client();
    let (mut queue, name) = open_inbox(&client, "inbox");
    let mut sender = client.open_sender(&client.lookup("inbox").unwrap()).unwrap();
    sender.send(b"before").unwrap();
    queue.receive_timeout(SOON).unwrap();
    stage.broker.kill();
    sender.send(b"after").unwrap();
    assert_eq!(queue.receive_timeout(SOON).unwrap().payload, b"after");
    assert!(matches!(queue.receive_timeout(SOON), Err(Error::BrokerGone)));
    drop((queue, sender, name));
}
