//! Who may do what: capabilities that pass through three processes, accounts that two sessions share, what a process
//! leaves that exits without a word.

use keyway::{
    Audience, Badge, Carried, Client, Confined, Denial, Ending, Error, Incoming, Outgoing, QueueOptions,
    Rights,
    abi::{Quota, limits::PROCESS_BYTES_MAX},
};

use crate::{
    players::{self, PATIENCE, Player},
    stage::{Stage, eventually, open_inbox, publish},
};

/// Derives from what it was given, and passes that on in a message.
pub(crate) fn derive_and_pass_on() {
    let client = Client::connect().unwrap();
    let (target, inbox) = (client.inherited("target").unwrap(), client.inherited("inbox").unwrap());
    let weaker = target.derive(Rights::SEND | Rights::GRANT, None).unwrap();
    let mut sender = client.open_sender(&inbox).unwrap();
    let carried = [Carried::Copy(&weaker, Rights::SEND)];
    sender.send_message(&Outgoing { capabilities: &carried, ..Outgoing::default() }).unwrap();
    players::say("passed on");
    players::wait_to_be_told();
    let own = client.open_sender(&target).unwrap_err();
    players::say(matches!(own.denial(), Some(Denial::StaleHandle { .. })));
    players::stay();
}

/// Takes a capability out of a message and sends through it, each time it is told to.
pub(crate) fn receive_and_use() {
    let client = Client::connect().unwrap();
    let (mut inbox, _name) = publish(&client, "inbox", QueueOptions::default());
    players::say("ready");
    let mut message = inbox.receive_timeout(PATIENCE).unwrap();
    let capability = message.capabilities.pop().unwrap().unwrap();
    assert_eq!(capability.rights(), Rights::SEND);
    let mut sender = client.open_sender(&capability).unwrap();
    for number in 0_u64.. {
        let said = match sender.send(&number.to_le_bytes()) {
            Ok(()) => "sent".to_owned(),
            Err(Error::LaneEnded { ending: Ending::Revoked, acknowledged, sent }) => {
                let again = client.open_sender(&capability).unwrap_err();
                assert!(matches!(again.denial(), Some(Denial::StaleHandle { .. })), "{again}");
                format!("revoked {acknowledged} of {sent}")
            }
            Err(error) => error.to_string(),
        };
        players::say(said);
        players::wait_to_be_told();
    }
}

#[test]
fn revoking_what_one_process_has_reaches_the_next_and_what_is_untaken_is_dropped() {
    let stage = Stage::begin();
    let client = stage.client();
    let mut queue = client.create_queue(QueueOptions::default()).unwrap();
    let for_first = queue.sender_capability(Some(Badge(77))).unwrap();
    let mut second = stage.player("recipient", "");
    assert_eq!(second.hear(), "ready");

    let mut first = Confined::new(&client, std::env::current_exe().unwrap()).unwrap();
    players::direct(first.command(), "deriver", "");
    let rights = Rights::SEND | Rights::DERIVE | Rights::GRANT;
    first.give("target", &for_first, rights, None).unwrap();
    first.give("inbox", &client.lookup("inbox").unwrap(), Rights::SEND, None).unwrap();
    let mut first = Player::of(first.spawn().unwrap().child);
    assert_eq!(first.hear(), "passed on");

    assert_eq!(second.hear(), "sent");
    for _ in 1..5 {
        second.tell("on");
        assert_eq!(second.hear(), "sent");
    }
    for number in 0..2_u64 {
        let message = queue.receive_timeout(PATIENCE).unwrap();
        assert_eq!(message.payload, number.to_le_bytes());
        assert_eq!((message.badge, message.sender.pid), (Some(Badge(77)), second.pid()));
    }
    // The first process's, the one that it derived, and the second's.
    assert_eq!(for_first.revoke().unwrap(), 3);
    match queue.next_timeout(PATIENCE).unwrap() {
        Incoming::Ended { why: Error::LaneEnded { ending: Ending::Revoked, .. }, peer, .. } => {
            assert_eq!(peer.identity.pid, second.pid());
        }
        other => panic!("received after the revocation: {other:?}"),
    }
    second.tell("on");
    assert_eq!(second.hear(), "revoked 2 of 5");
    first.tell("try");
    assert_eq!(first.hear(), "true");
    assert!(matches!(queue.try_receive(), Err(Error::WouldBlock)));
}

/// Fills the account in one session and asks for more in another.
pub(crate) fn open_two_sessions() {
    let (one, other) = (Client::connect().unwrap(), Client::connect().unwrap());
    let halves = [(); 2].map(|()| one.create_region(PROCESS_BYTES_MAX / 2 - 65_536).unwrap());
    let refused = other.create_region(1 << 20).unwrap_err();
    let is_quota = matches!(refused.denial(), Some(Denial::QuotaExceeded { quota: Quota::Bytes, .. }));
    players::say(if is_quota { "refused" } else { "another reason" });
    players::wait_to_be_told();
    drop((halves, one));
    other.create_region(1 << 20).unwrap();
    players::say("given back");
}

#[test]
fn two_sessions_of_one_process_share_its_account_and_no_other_process_does() {
    let stage = Stage::begin();
    let mut player = stage.player("two sessions", "");
    assert_eq!(player.hear(), "refused");
    let entries = stage.witness.processes().unwrap();
    assert_eq!(entries.iter().filter(|entry| entry.pid == player.pid()).count(), 2);
    stage.client().create_region(1 << 20).unwrap();
    player.tell("on");
    assert_eq!(player.hear(), "given back");
    player.ends_well();
    stage.forgets(player.pid());
}

/// Makes one of everything, and exits without giving anything back.
pub(crate) fn leave_everything() {
    let client = Client::connect().unwrap();
    let published = publish(&client, "left", QueueOptions::default());
    let region = client.create_region(1 << 20).unwrap();
    let writer = client.map_writer(&region).unwrap();
    let lane = client.open_sender(&published.0.sender_capability(None).unwrap()).unwrap();
    let mut to_test = client.open_sender(&client.lookup("inbox").unwrap()).unwrap();
    to_test.send(b"last words").unwrap();
    let (reading, _writing) = std::io::pipe().unwrap();
    let device = client.open_depositor().unwrap().deposit("pipe", &reading).unwrap();
    let _child = Confined::new(&client, "/nonexistent").unwrap();
    std::mem::forget((published, region, writer, lane, to_test, device));
    std::process::exit(0);
}

#[test]
fn a_process_that_exits_without_giving_back_leaves_only_what_was_sent() {
    let stage = Stage::begin();
    let client = stage.client();
    let (mut inbox, _name) = open_inbox(&client, "inbox");
    let mut before = None;
    for _ in 0..5 {
        let mut player = stage.player("leaver", "");
        assert_eq!(inbox.receive_timeout(PATIENCE).unwrap().payload, b"last words");
        let end = inbox.next_timeout(PATIENCE).unwrap();
        assert!(matches!(end, Incoming::Ended { .. }), "{end:?}");
        player.ends_well();
        stage.forgets(player.pid());
        eventually("the name is free", || client.lookup("left").is_err());
        let unknown = client.lookup("left").unwrap_err();
        assert!(matches!(unknown.denial(), Some(Denial::NameUnknown { .. })), "{unknown}");
        // The second time costs what the first did.
        match before {
            None => before = Some(stage.footprint()),
            Some(before) => stage.shrinks_to(before),
        }
    }
    let again = client.publish("left", inbox.capability(), Rights::SEND, Audience::Everyone);
    assert!(again.is_ok());
}
