//! Processes by different clocks send to a queue that goes by arrival: what their stamps say is compared with nothing.

use std::process::{Command, Stdio};

use keyway::{Client, Error, Incoming, Queue, QueueOptions, QueueOrder};
use keyway_sys::clock;

use crate::{
    players::{self, PATIENCE, Player},
    stage::{Stage, publish},
};

/// Sends what it is told, each time it is told something.
pub(crate) fn send_when_told() {
    let client = Client::connect().unwrap();
    let mut sender = client.open_sender(&client.lookup("inbox").unwrap()).unwrap();
    players::say(clock::namespace().map_or(0, u32::from));
    loop {
        let text = players::wait_to_be_told();
        sender.send(text.as_bytes()).unwrap();
        players::say("sent");
    }
}

/// Whether this machine lets a test make time namespaces.
fn has_other_clocks() -> bool {
    let unshare =
        Command::new("unshare").args(["--time", "--monotonic=-1", "true"]).stderr(Stdio::null()).status();
    let is_possible = unshare.is_ok_and(|status| status.success());
    if !is_possible {
        println!(
            "skipped: no time namespace can be made here (unshare --time needs CAP_SYS_ADMIN, and Linux time namespaces)"
        );
    }
    is_possible
}

fn tell(player: &mut Player, text: &str) {
    player.tell(text);
    assert_eq!(player.hear(), "sent");
}

fn receive(queue: &mut Queue) -> String {
    String::from_utf8(queue.receive_timeout(PATIENCE).unwrap().payload).unwrap()
}

/// Looks at what there is without taking it.
fn look(queue: &mut Queue) {
    assert!(matches!(queue.receive_into(&mut []), Err(Error::BufferTooSmall { .. })));
}

#[test]
fn what_a_sender_by_another_clock_sends_counts_as_sent_when_it_is_seen() {
    if !has_other_clocks() {
        return;
    }
    let stage = Stage::begin();
    let client = stage.client();
    let options = QueueOptions { order: QueueOrder::Arrival, ..QueueOptions::default() };
    let (mut queue, _name) = publish(&client, "inbox", options);
    // A clock that is behind would come first always, and one that is ahead last.
    for offset_seconds in [-3000, -1, 1, 3000] {
        let mut other = stage.player_by_another_clock("stamper", offset_seconds);
        let mut same = stage.player("stamper", "");
        let own = clock::namespace().unwrap().to_string();
        assert_ne!(other.hear(), own);
        assert_eq!(same.hear(), own);
        for _ in 0..2 {
            assert!(matches!(queue.next_timeout(PATIENCE).unwrap(), Incoming::Opened(_)));
        }
        for _ in 0..3 {
            tell(&mut same, "one");
            tell(&mut other, "two");
            assert_eq!([receive(&mut queue), receive(&mut queue)], ["one", "two"], "by {offset_seconds} s");
            tell(&mut other, "three");
            look(&mut queue);
            tell(&mut same, "four");
            assert_eq!(
                [receive(&mut queue), receive(&mut queue)],
                ["three", "four"],
                "by {offset_seconds} s"
            );
        }
        drop((other, same));
        for _ in 0..2 {
            assert!(matches!(queue.next_timeout(PATIENCE).unwrap(), Incoming::Ended { .. }));
        }
    }
}

/// Processes that take turns, of one clock.
#[test]
fn processes_that_take_turns_are_received_in_turn() {
    let stage = Stage::begin();
    let client = stage.client();
    let options = QueueOptions { order: QueueOrder::Arrival, ..QueueOptions::default() };
    let (mut queue, _name) = publish(&client, "inbox", options);
    let mut players: Vec<Player> = (0..4).map(|_| stage.player("stamper", "")).collect();
    for player in &mut players {
        player.hear();
    }
    let mut expected = Vec::new();
    for turn in 0..200_u32 {
        let whose = (turn.wrapping_mul(2_654_435_761) >> 20) as usize % players.len();
        tell(&mut players[whose], &turn.to_string());
        expected.push(turn.to_string());
        if turn % 10 == 9 {
            let received: Vec<String> = expected.iter().map(|_| receive(&mut queue)).collect();
            assert_eq!(received, expected);
            expected.clear();
        }
    }
}
