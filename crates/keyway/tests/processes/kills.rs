//! `SIGKILL` at random moments: whoever is left learns exactly what was committed, soon, and nothing stays behind.
//!
//! The moments come from a seed. `KEYWAY_KILLS` says how many processes die in each test.

use std::{
    env,
    time::{Duration, Instant},
};

use keyway::{Client, Ending, Error, Incoming, Outgoing, Queue, QueueOptions, SenderOptions, WaitStyle};

use crate::{
    players::{self, PATIENCE, Part, Player, SOON},
    stage::{Dice, Stage, eventually, open_inbox, publish},
};

/// How many processes each test kills.
fn kills() -> u64 {
    env::var("KEYWAY_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(24)
}

fn style(argument: &str) -> WaitStyle {
    if argument.contains("sleeping") { WaitStyle::Sleep } else { WaitStyle::Adaptive }
}

/// The bytes of message `number`, of many lengths.
fn payload(number: u64) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(8 + (number * 7 % 90) as usize, number as u8);
    bytes
}

/// What message `number` takes of a ring.
fn record_bytes(number: u64) -> u32 {
    (8 + payload(number).len()).next_multiple_of(8) as u32
}

/// Sends numbered messages until it is killed.
pub(crate) fn produce(part: &Part) {
    let client = Client::connect().unwrap();
    let options =
        SenderOptions { ring_bytes: Some(4096), wait: style(&part.argument), ..SenderOptions::default() };
    let mut sender = client.open_sender_with(&client.lookup("sink").unwrap(), options).unwrap();
    players::say("open");
    for number in 0.. {
        sender.send(&payload(number)).unwrap();
    }
}

/// Receives what a producer that dies has sent: its messages in order, and then its end. Returns how many there were.
fn receive_to_the_end(stage: &Stage, sink: &mut Queue, player: &Player, seed: u64) -> u64 {
    let mut expected = 0;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match sink.next_timeout(Duration::from_millis(20)) {
            Ok(Incoming::Message(message)) => {
                assert_eq!(message.sender.pid, player.pid(), "seed {seed}");
                assert_eq!(message.payload, payload(expected), "seed {seed}");
                expected += 1;
            }
            Ok(Incoming::Opened(_)) => {}
            Ok(Incoming::Ended { why, .. }) => {
                let is_death = matches!(why, Error::LaneEnded { ending: Ending::PeerDead, .. });
                assert!(is_death, "seed {seed}: {why}");
                return expected;
            }
            Err(Error::TimedOut(_)) => {
                // It may have died before it had opened a lane.
                let lanes = stage.witness.lanes().unwrap();
                if expected == 0 && lanes.is_empty() && !stage.knows(player.pid()) && !player.is_alive() {
                    return 0;
                }
            }
            Err(error) => panic!("seed {seed}: {error}"),
        }
        assert!(Instant::now() < deadline, "seed {seed}: no end after {expected}");
    }
}

#[test]
fn what_a_killed_producer_had_committed_is_received_whole_and_then_its_end() {
    let stage = Stage::begin();
    let client = stage.client();
    let (mut sink, _name) = open_inbox(&client, "sink");
    let mut before = None;
    for seed in 0..kills() {
        let mut dice = Dice(seed);
        let style = if seed % 2 == 0 { "sleeping" } else { "spinning" };
        let mut player = stage.player("producer", style);
        if seed % 3 == 0 {
            // At any moment of its life.
            let killer = player.kill_after(Duration::from_micros(dice.below(12_000)));
            receive_to_the_end(&stage, &mut sink, &player, seed);
            killer.join().unwrap();
        } else {
            assert_eq!(player.hear(), "open");
            let killer = player.kill_after(Duration::from_micros(dice.below(4_000)));
            receive_to_the_end(&stage, &mut sink, &player, seed);
            let late = killer.join().unwrap().elapsed();
            assert!(late < SOON, "seed {seed}: told of the death after {late:?}");
        }
        player.kill();
        stage.forgets(player.pid());
        // What it took of the stock and died with is laid in anew by who looks: the next one needs it.
        assert!(sink.try_next().unwrap().is_none(), "seed {seed}");
        match before {
            None => before = Some(stage.footprint()),
            Some(before) => stage.shrinks_to(before),
        }
    }
}

#[test]
fn what_waits_in_a_dead_producers_lane_is_received_to_the_last_byte() {
    let stage = Stage::begin();
    let client = stage.client();
    let (mut sink, _name) = open_inbox(&client, "sink");
    for seed in 0..kills() / 2 {
        let mut player = stage.player("producer", "sleeping");
        assert_eq!(player.hear(), "open");
        std::thread::sleep(Duration::from_micros(Dice(seed).below(3_000)));
        player.kill();
        eventually("the broker knows", || !stage.knows(player.pid()));
        let lanes = stage.witness.lanes().unwrap();
        assert!(lanes.len() == 1 && lanes[0].draining, "seed {seed}: {lanes:?}");
        let count = receive_to_the_end(&stage, &mut sink, &player, seed);
        let bytes: u32 = (0..count).map(record_bytes).sum();
        // It may have died with a message committed and its position not yet told.
        let untold = bytes - (0..count.saturating_sub(1)).map(record_bytes).sum::<u32>();
        let waiting = lanes[0].waiting_bytes;
        assert!(
            waiting == Some(bytes) || waiting == Some(bytes - untold),
            "seed {seed}: {waiting:?} of {bytes}"
        );
        stage.forgets(player.pid());
    }
}

/// Receives numbered messages until it is killed; a deaf one does not.
pub(crate) fn consume(part: &Part) {
    let client = Client::connect().unwrap();
    let options = QueueOptions { wait: style(&part.argument), ..QueueOptions::default() };
    let (mut queue, _name) = publish(&client, "drain", options);
    players::say("ready");
    if part.argument.contains("deaf") {
        players::stay();
    }
    for expected in 0.. {
        assert_eq!(queue.receive().unwrap().payload, payload(expected));
    }
}

#[test]
fn the_sender_to_a_killed_consumer_wakes_and_learns_what_was_taken() {
    let stage = Stage::begin();
    let client = stage.client();
    let before = stage.footprint();
    for seed in 0..kills() {
        let mut dice = Dice(seed);
        let consumer = ["sleeping", "spinning", "deaf"][(seed % 3) as usize];
        let mut player = stage.player("consumer", consumer);
        assert_eq!(player.hear(), "ready");
        let own = if seed % 2 == 0 { WaitStyle::Sleep } else { WaitStyle::Adaptive };
        let options = SenderOptions { ring_bytes: Some(4096), wait: own, ..SenderOptions::default() };
        let mut sender = client.open_sender_with(&client.lookup("drain").unwrap(), options).unwrap();
        let killer = player.kill_after(Duration::from_micros(dice.below(6_000)));
        let mut count = 0;
        let error = loop {
            match sender.send(&payload(count)) {
                Ok(()) => count += 1,
                Err(error) => break error,
            }
        };
        let late = killer.join().unwrap().elapsed();
        assert!(late < SOON, "seed {seed}: told of the death after {late:?}");
        let Error::LaneEnded { ending: Ending::PeerDead, acknowledged, sent } = error else {
            panic!("seed {seed}: {error}")
        };
        assert!(acknowledged <= sent && sent == count, "seed {seed}: {acknowledged} of {sent}, {count} sent");
        assert!(consumer != "deaf" || acknowledged == 0, "seed {seed}: {acknowledged} taken by nobody");
        // No more than a ring is ever under way.
        let under_way: u32 = (acknowledged..sent).map(record_bytes).sum();
        assert!(under_way <= 4096, "seed {seed}: {under_way} bytes under way");
        drop(sender);
        stage.forgets(player.pid());
    }
    stage.shrinks_to(before);
}

/// Answers every call with what was asked.
pub(crate) fn serve_calls() {
    let client = Client::connect().unwrap();
    let (mut queue, _name) = publish(&client, "echo", QueueOptions::default());
    players::say("ready");
    loop {
        let message = queue.receive().unwrap();
        queue.reply(message.reply_to.unwrap(), &Outgoing::bytes(&message.payload)).unwrap();
    }
}

#[test]
fn a_call_to_a_killed_server_ends_and_is_never_answered_wrongly() {
    let stage = Stage::begin();
    let client = stage.client();
    let before = stage.footprint();
    for seed in 0..kills() {
        let mut player = stage.player("server", "");
        assert_eq!(player.hear(), "ready");
        let mut caller = client.open_caller(&client.lookup("echo").unwrap()).unwrap();
        if seed % 2 == 0 {
            caller.set_wait_style(WaitStyle::Sleep);
        }
        let killer = player.kill_after(Duration::from_micros(Dice(seed).below(6_000)));
        let mut number = 0;
        let error = loop {
            match caller.call(&Outgoing::bytes(&payload(number)), PATIENCE) {
                Ok(answer) => assert_eq!(answer.payload, payload(number), "seed {seed}"),
                Err(error) => break error,
            }
            number += 1;
        };
        let late = killer.join().unwrap().elapsed();
        assert!(error.is_lane_end(), "seed {seed}, call {number}: {error}");
        assert!(late < SOON, "seed {seed}: told of the death after {late:?}");
        drop(caller);
        stage.forgets(player.pid());
    }
    stage.shrinks_to(before);
}

/// Calls until it is killed.
pub(crate) fn make_calls() {
    let client = Client::connect().unwrap();
    let mut caller = client.open_caller(&client.lookup("answers").unwrap()).unwrap();
    players::say("open");
    for number in 0.. {
        let answer = caller.call(&Outgoing::bytes(&payload(number)), PATIENCE).unwrap();
        assert_eq!(answer.payload, payload(number));
    }
}

#[test]
fn a_server_is_never_held_up_by_a_killed_caller() {
    let stage = Stage::begin();
    let client = stage.client();
    let (mut queue, _name) = open_inbox(&client, "answers");
    let mut before = None;
    for seed in 0..kills() {
        let mut player = stage.player("caller", "");
        let killer =
            (seed % 3 == 0).then(|| player.kill_after(Duration::from_micros(Dice(seed).below(15_000))));
        // Half of those that get so far are killed while they wait for their answer.
        let calls_max = Dice(seed).below(200);
        let (mut answered, deadline) = (0, Instant::now() + PATIENCE);
        loop {
            match queue.next_timeout(Duration::from_millis(20)) {
                Ok(Incoming::Message(message)) => {
                    if answered == calls_max && killer.is_none() {
                        player.kill();
                    }
                    answered += 1;
                    match queue.reply(message.reply_to.unwrap(), &Outgoing::bytes(&message.payload)) {
                        Ok(()) | Err(Error::NoReplyExpected | Error::LaneEnded { .. }) => {}
                        Err(error) => panic!("seed {seed}: {error}"),
                    }
                }
                Ok(Incoming::Ended { .. }) => break,
                Err(Error::TimedOut(_)) if !player.is_alive() && !stage.knows(player.pid()) => break,
                Ok(Incoming::Opened(_)) | Err(Error::TimedOut(_)) => {}
                Err(error) => panic!("seed {seed}: {error}"),
            }
            assert!(Instant::now() < deadline, "seed {seed}: no end after {answered} calls");
        }
        if let Some(killer) = killer {
            killer.join().unwrap();
        }
        player.kill();
        // A lane that was opened in the last moment is told of and ends as well.
        eventually("no lane is left", || {
            while queue.try_next().unwrap().is_some() {}
            stage.witness.lanes().unwrap().is_empty()
        });
        stage.forgets(player.pid());
        match before {
            None => before = Some(stage.footprint()),
            Some(before) => stage.shrinks_to(before),
        }
    }
}
