//! Everything within one process: a broker in a thread, and sessions of the same process as its peers.

#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use keyway::{
    AclEntry, AclKind, Audience, Badge, Carried, Client, DefaultActions, Denial, Embedded, Ending, Error,
    Incoming, LargePayloads, Outgoing, Queue, QueueOptions, QueueOrder, RegionOptions, Rights, Sender,
    SenderOptions, SessionOptions, Signal, SignalSet, Signals, Subject, Terms,
};
use keyway_sys::socket;

const SOON: Duration = Duration::from_secs(5);

fn client(broker: &Embedded) -> Client {
    Client::over(broker.connect().unwrap()).unwrap()
}

fn lane(client: &Client) -> (Queue, Sender) {
    let queue = client.create_queue(QueueOptions::default()).unwrap();
    let capability = queue.sender_capability(Some(Badge(7))).unwrap();
    let sender = client.open_sender(&capability).unwrap();
    (queue, sender)
}

#[test]
fn a_message_arrives_with_its_senders_badge_and_identity() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let (mut queue, mut sender) = lane(&client);
    let message = Outgoing { message_type: 3, flags: 9, payload: b"hello", capabilities: &[] };
    sender.send_message(&message).unwrap();
    let message = queue.receive_timeout(SOON).unwrap();
    assert_eq!(message.payload, b"hello");
    assert_eq!((message.message_type, message.flags, message.badge), (3, 9, Some(Badge(7))));
    assert_eq!(message.sender.pid, std::process::id());
}

#[test]
fn a_full_lane_says_so_and_a_deadline_ends() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let queue = client.create_queue(QueueOptions::default()).unwrap();
    let capability = queue.sender_capability(None).unwrap();
    let options =
        SenderOptions { ring_bytes: Some(4096), large: LargePayloads::Refuse, ..SenderOptions::default() };
    let mut sender = client.open_sender_with(&capability, options).unwrap();
    let sent = (0..1000).take_while(|_| sender.try_send(&[0; 100]).is_ok()).count();
    // Each with the word that commits it and padding, and one such word behind the last.
    assert_eq!(sent, (4096 - 8) / 112);
    assert!(matches!(sender.try_send(&[0; 100]), Err(Error::WouldBlock)));
    let short = Duration::from_millis(20);
    assert!(matches!(sender.send_timeout(&[0; 100], short), Err(Error::TimedOut(_))));
    assert!(matches!(sender.send(&[0; 5000]), Err(Error::MessageTooLarge { asked_bytes: 5000, .. })));
}

#[test]
fn threads_pass_many_messages_in_order_with_sleeping_and_spinning() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let (mut queue, mut sender) = lane(&client);
    let producer = thread::spawn(move || {
        for number in 0..100_000_u64 {
            sender.send(&number.to_le_bytes()).unwrap();
        }
        sender
    });
    for number in 0..100_000_u64 {
        let message = queue.receive_timeout(SOON).unwrap();
        assert_eq!(message.payload, number.to_le_bytes());
    }
    drop(producer.join().unwrap());
    assert!(matches!(queue.next_timeout(SOON).unwrap(), Incoming::Ended { .. }));
}

#[test]
fn a_call_is_answered_and_a_late_answer_is_dropped() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let mut queue = client.create_queue(QueueOptions::default()).unwrap();
    let name =
        client.publish("echo", queue.capability(), Rights::SEND | Rights::GRANT, Audience::Everyone).unwrap();
    let server = thread::spawn(move || {
        for answered in 0..3 {
            let message = queue.receive_timeout(SOON).unwrap();
            if answered == 1 {
                thread::sleep(Duration::from_millis(60));
            }
            let payload = [&message.payload[..], b"!"].concat();
            queue.reply(message.reply_to.unwrap(), &Outgoing::bytes(&payload)).unwrap();
        }
        queue
    });
    let capability = client.lookup("echo").unwrap();
    let mut caller = client.open_caller(&capability).unwrap();
    let answer = caller.call(&Outgoing::bytes(b"one"), SOON).unwrap();
    assert_eq!(answer.payload, b"one!");
    let late = caller.call(&Outgoing::bytes(b"two"), Duration::from_millis(10));
    assert!(matches!(late, Err(Error::TimedOut(_))), "{late:?}");
    assert_eq!(caller.call(&Outgoing::bytes(b"three"), SOON).unwrap().payload, b"three!");
    drop((server.join().unwrap(), name));
    assert!(caller.call(&Outgoing::bytes(b"four"), SOON).unwrap_err().is_lane_end());
}

/// The deadline of a call is kept also where the server says other things faster than they are taken in.
#[test]
fn a_server_that_talks_without_end_holds_up_no_call() {
    let broker = Embedded::start().unwrap();
    let server = client(&broker);
    let mut queue = server.create_queue(QueueOptions::default()).unwrap();
    let _name = server.publish("talker", queue.capability(), Rights::SEND, Audience::Everyone).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_over);
    let talker = thread::spawn(move || {
        let lane = queue.receive_timeout(SOON).unwrap().lane;
        while !told.load(Ordering::Relaxed) {
            // Full for now, or at its end.
            let _ = queue.notify(lane, &Outgoing::bytes(b"and another thing"));
        }
    });
    let client = client(&broker);
    let capability = client.lookup("talker").unwrap();
    let mut caller = client.open_caller(&capability).unwrap();
    let (done, called) = mpsc::channel();
    thread::spawn(move || {
        for _ in 0..20 {
            let answer = caller.call(&Outgoing::bytes(b"a question"), Duration::from_millis(20));
            assert!(matches!(answer, Err(Error::TimedOut(_))), "{answer:?}");
        }
        // What was said meanwhile is there.
        let notice = caller.next_notice(SOON).unwrap();
        assert_eq!(notice.payload, b"and another thing");
        done.send(()).unwrap();
    });
    let ended = called.recv_timeout(SOON);
    is_over.store(true, Ordering::Relaxed);
    assert_eq!(ended, Ok(()));
    talker.join().unwrap();
}

#[test]
fn a_capability_travels_in_a_message() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let (mut queue, mut sender) = lane(&client);
    let mut inbox = client.create_queue(QueueOptions::default()).unwrap();
    let carried = [Carried::Copy(inbox.capability(), Rights::SEND)];
    let message = Outgoing { payload: b"take this", capabilities: &carried, ..Outgoing::default() };
    sender.send_message(&message).unwrap();
    let mut message = queue.receive_timeout(SOON).unwrap();
    let capability = message.capabilities.pop().unwrap().unwrap();
    client.open_sender(&capability).unwrap().send(b"through it").unwrap();
    assert_eq!(inbox.receive_timeout(SOON).unwrap().payload, b"through it");
    let strong = [Carried::Copy(&capability, Rights::RECEIVE)];
    let refused = sender.send_message(&Outgoing { capabilities: &strong, ..Outgoing::default() });
    assert!(refused.unwrap_err().denial().is_some());
}

#[test]
fn revocation_ends_the_lane_and_drops_what_is_untaken() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let mut queue = client.create_queue(QueueOptions::default()).unwrap();
    let capability = queue.sender_capability(None).unwrap();
    let below = capability.derive(Rights::SEND, None).unwrap();
    let mut sender = client.open_sender(&below).unwrap();
    sender.send(b"taken").unwrap();
    assert_eq!(queue.receive_timeout(SOON).unwrap().payload, b"taken");
    sender.send(b"untaken").unwrap();
    assert_eq!(capability.revoke().unwrap(), 1);
    match queue.next_timeout(SOON).unwrap() {
        Incoming::Ended { why: Error::LaneEnded { ending: Ending::Revoked, .. }, .. } => {}
        other => panic!("expected the end of the lane, got {other:?}"),
    }
    match sender.send(b"after") {
        Err(Error::LaneEnded { ending: Ending::Revoked, acknowledged: 1, sent: 2 }) => {}
        other => panic!("expected a refusal, got {other:?}"),
    }
    let denied = client.open_sender(&below).unwrap_err();
    assert!(matches!(denied.denial(), Some(Denial::StaleHandle { .. })));
}

#[test]
fn a_region_has_one_writer_and_its_readers_see_it() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let region = client.create_region(10_000).unwrap();
    assert!(matches!(client.map_reader(&region).unwrap_err().denial(), Some(Denial::RegionUnwritten)));
    let writer = client.map_writer(&region).unwrap();
    assert_eq!(writer.len_bytes(), 12_288);
    assert!(matches!(client.map_writer(&region).unwrap_err().denial(), Some(Denial::WriterTaken)));
    let reader = client.map_reader(&region).unwrap();
    writer.write(9_990, b"at the end").unwrap();
    let mut bytes = [0; 10];
    reader.read(9_990, &mut bytes).unwrap();
    assert_eq!(&bytes, b"at the end");
    assert!(reader.read(12_288, &mut bytes).is_err());
}

#[test]
fn a_device_is_deposited_claimed_and_gone_with_its_depositor() {
    let broker = Embedded::start().unwrap();
    let (bridge, user) = (client(&broker), client(&broker));
    let (mut reading, writing) = std::io::pipe().unwrap();
    let device = bridge.open_depositor().unwrap().deposit("pipe", &writing).unwrap();
    drop(writing);
    let mut queue = user.create_queue(QueueOptions::default()).unwrap();
    let name = user.publish("q", queue.capability(), Rights::SEND, Audience::Everyone).unwrap();
    let mut sender = bridge.open_sender(&bridge.lookup("q").unwrap()).unwrap();
    let carried = [Carried::Copy(&device, Rights::CLAIM)];
    sender.send_message(&Outgoing { capabilities: &carried, ..Outgoing::default() }).unwrap();
    let claimed = queue.receive_timeout(SOON).unwrap().capabilities.pop().unwrap().unwrap();
    let mut file = std::fs::File::from(claimed.claim().unwrap());
    std::io::Write::write_all(&mut file, b"x").unwrap();
    drop(file);
    device.delete().unwrap();
    assert!(matches!(claimed.claim().unwrap_err().denial(), Some(Denial::StaleHandle { .. })));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut reading, &mut text).unwrap();
    assert_eq!(text, "x");
    drop(name);
}

#[test]
fn a_broker_that_stops_says_so() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    drop(broker);
    let error = client.create_queue(QueueOptions::default()).unwrap_err();
    assert!(matches!(error, Error::SessionEnded(_)), "{error}");
}

#[test]
fn nobody_at_the_socket_is_told_with_what_to_do() {
    let error = Client::connect_to("/nonexistent/keyway.sock".as_ref()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("/nonexistent/keyway.sock") && text.contains("keyway serve"), "{text}");
}

#[test]
fn a_capability_with_a_lifetime_ends_with_its_lanes_without_anyone_asking() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let mut queue = client.create_queue(QueueOptions::default()).unwrap();
    let send = queue.sender_capability(None).unwrap();
    let began = std::time::Instant::now();
    let lifetime = Duration::from_millis(60);
    let brief = send.derive_with(&Terms::new(Rights::SEND | Rights::DERIVE).lifetime(lifetime)).unwrap();
    let longer = brief.derive_with(&Terms::new(Rights::SEND).lifetime(2 * lifetime)).unwrap_err();
    assert!(matches!(longer.denial(), Some(Denial::ExpiryExceeded { .. })), "{longer}");
    let mut sender = client.open_sender(&brief).unwrap();
    sender.send(b"in time").unwrap();
    assert_eq!(queue.receive_timeout(SOON).unwrap().payload, b"in time");
    // Asleep on the lane: the broker's own timer ends it.
    match queue.next_timeout(SOON).unwrap() {
        Incoming::Ended { why: Error::LaneEnded { ending: Ending::Revoked, .. }, .. } => {}
        other => panic!("received after the end: {other:?}"),
    }
    assert!(began.elapsed() >= lifetime, "not before its time");
    assert!(matches!(sender.send(b"late"), Err(Error::LaneEnded { ending: Ending::Revoked, .. })));
    let gone = client.open_sender(&brief).unwrap_err();
    assert!(matches!(gone.denial(), Some(Denial::StaleHandle { .. })), "{gone}");
    client.open_sender(&send).unwrap();
}

#[test]
fn a_weakened_capability_keeps_its_handle_and_has_lost_the_rest() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let queue = client.create_queue(QueueOptions::default()).unwrap();
    let mut send = queue.sender_capability(None).unwrap();
    let handle = send.handle();
    let rights = send.rights();
    send.weaken(&Terms::new(Rights::SEND)).unwrap();
    assert_eq!((send.handle(), send.rights()), (handle, Rights::SEND));
    let refused = send.derive(Rights::SEND, None).unwrap_err();
    assert!(matches!(refused.denial(), Some(Denial::MissingRights { .. })), "{refused}");
    let back = send.weaken(&Terms::new(rights)).unwrap_err();
    assert!(matches!(back.denial(), Some(Denial::RightsExceeded { .. })), "{back}");
    client.open_sender(&send).unwrap();
}

#[test]
fn a_limited_capability_opens_so_many_lanes_with_rings_so_large() {
    use keyway::abi::CapabilityLimit;
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let queue = client.create_queue(QueueOptions::default()).unwrap();
    let send = queue.sender_capability(None).unwrap();
    let rights = Rights::SEND | Rights::DERIVE;
    let limited = send.derive_with(&Terms::new(rights).opens(1).ring_bytes(3 * 4096)).unwrap();
    let child = limited.derive(Rights::SEND, None).unwrap();
    let sender = client.open_sender(&child).unwrap();
    let second = client.open_sender(&limited).unwrap_err();
    let Some(Denial::LimitReached { limit: CapabilityLimit::Opens, used: 1, max: 1, .. }) = second.denial()
    else {
        panic!("one lane is all that it allows: {second}")
    };
    let large = SenderOptions { ring_bytes: Some(1 << 14), ..SenderOptions::default() };
    let other = send.derive_with(&Terms::new(Rights::SEND).ring_bytes(1 << 13)).unwrap();
    let refused = client.open_sender_with(&other, large).unwrap_err();
    let Some(Denial::LimitReached { limit: CapabilityLimit::RingBytes, asked: 16384, max: 8192, .. }) =
        refused.denial()
    else {
        panic!("a ring that is chosen is not shrunk: {refused}")
    };
    let more = limited.derive_with(&Terms::new(Rights::SEND).opens(2)).unwrap_err();
    assert!(matches!(more.denial(), Some(Denial::LimitExceeded { asked: 2, held: 1, .. })), "{more}");
    drop(sender);
}

#[test]
fn the_audit_log_names_what_was_granted_and_refused() {
    use keyway::abi::{Request, Verdict, request};
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let before = client.audit_log(None).unwrap().last().map(|entry| entry.sequence);
    let queue = client.create_queue(QueueOptions::default()).unwrap();
    let send = queue.sender_capability(Some(Badge(5))).unwrap();
    let refused = send.derive(Rights::RECEIVE, None).unwrap_err();
    let log = client.audit_log(before).unwrap();
    let verdicts: Vec<_> = log.iter().map(|entry| (entry.opcode, entry.verdict.clone())).collect();
    let granted = |(opcode, verdict): &(u16, Verdict)| {
        *opcode == request::Derive::OPCODE
            && matches!(verdict, Verdict::Granted { badge: Some(Badge(5)), .. })
    };
    assert!(verdicts.iter().any(granted), "{log:?}");
    let number = refused.denial().unwrap().number();
    assert_eq!(Denial::name_of(number), Some("RightsExceeded"));
    assert_eq!(verdicts.last().unwrap().1, Verdict::Refused { denial: number, times: 1 });
    assert!(log.iter().all(|entry| entry.pid == std::process::id()));
    assert_eq!(Request::operation_of(log.last().unwrap().opcode), Some("Derive"));
}

#[test]
fn a_frozen_region_is_read_in_place_and_copied_without_anyone_seeing_it() {
    let broker = Embedded::start().unwrap();
    let (writer, reader) = (client(&broker), client(&broker));
    let region = writer.create_region_with(10_000, RegionOptions::default().freezable()).unwrap();
    let shown = hand_over(&writer, &reader, &region, Rights::MAP);
    let mapped = writer.map_writer(&region).unwrap();
    mapped.write(5000, b"for good").unwrap();
    let early = reader.map_frozen(&shown).unwrap_err();
    assert_eq!(early.denial(), Some(&Denial::NotFrozen));
    let live = reader.map_reader(&shown).unwrap();
    let frozen = mapped.freeze().unwrap();
    assert_eq!((&frozen[5000..5008], frozen.len()), (&b"for good"[..], 12_288));
    let seen = reader.map_frozen(&shown).unwrap();
    let mut copy = seen.copy().unwrap();
    copy[5000..5003].copy_from_slice(b"not");
    assert_eq!(&copy[5000..5008], b"not good");
    let mut out = [0; 8];
    live.read(5000, &mut out).unwrap();
    assert_eq!(
        (&seen[5000..5008], &frozen[5000..5008], out),
        (&b"for good"[..], &b"for good"[..], *b"for good")
    );
    let again = writer.map_writer(&region).unwrap_err();
    assert_eq!(again.denial(), Some(&Denial::WriterTaken));
}

#[test]
fn a_region_that_was_not_made_for_it_is_not_frozen_and_not_shared() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let region = client.create_region(4096).unwrap();
    assert_eq!(
        client.map_shared(&region).unwrap_err().denial(),
        Some(&Denial::WrongSharing { shared: false })
    );
    let refused = client.map_writer(&region).unwrap().freeze().unwrap_err();
    assert_eq!(refused.denial(), Some(&Denial::NotFreezable));
    let both = RegionOptions::default().freezable().shared();
    let refused = client.create_region_with(4096, both).unwrap_err();
    assert!(matches!(refused.denial(), Some(Denial::InvalidFlags { .. })), "{refused}");
}

#[test]
fn several_write_a_shared_region_and_a_copy_of_it_is_ones_own() {
    let broker = Embedded::start().unwrap();
    let (one, other) = (client(&broker), client(&broker));
    let region = one.create_region_with(4096, RegionOptions::default().shared().huge()).unwrap();
    let shown = hand_over(&one, &other, &region, Rights::MAP | Rights::WRITE);
    let (left, right) = (one.map_shared(&region).unwrap(), other.map_shared(&shown).unwrap());
    assert_eq!(left.len_bytes(), 2 << 20, "whole huge pages, whether or not there are any");
    left.write(0, b"left ").unwrap();
    right.write(5, b"right").unwrap();
    let copy = other.map_copy(&shown).unwrap();
    copy.write(0, b"L").unwrap();
    let mut out = [0; 10];
    left.read(0, &mut out).unwrap();
    assert_eq!(&out, b"left right");
    copy.read(0, &mut out).unwrap();
    assert_eq!(&out, b"Left right");
}

/// Gives another session a capability, in a message.
fn hand_over(
    from: &Client,
    to: &Client,
    capability: &keyway::Capability,
    rights: Rights,
) -> keyway::Capability {
    let mut queue = to.create_queue(QueueOptions::default()).unwrap();
    let _name = to.publish("hand", queue.capability(), Rights::SEND, Audience::Everyone).unwrap();
    let mut sender = from.open_sender(&from.lookup("hand").unwrap()).unwrap();
    let capabilities = [Carried::Copy(capability, rights)];
    sender.send_message(&Outgoing { capabilities: &capabilities, ..Outgoing::default() }).unwrap();
    queue.receive_timeout(SOON).unwrap().capabilities.pop().unwrap().unwrap()
}

#[test]
fn an_access_list_lets_in_and_keeps_out() {
    let broker = Embedded::start().unwrap();
    let (keeper, guest) = (client(&broker), client(&broker));
    let region = keeper.create_region(4096).unwrap();
    let _writer = keeper.map_writer(&region).unwrap();
    let shown = hand_over(&keeper, &guest, &region, Rights::empty());
    assert!(guest.map_reader(&shown).is_err());
    let executable = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    let uid = guest.uid();
    let entry = |subject, kind| AclEntry { subject, permissions: Rights::MAP, kind };
    let allowed = region.acl_add(&entry(Subject::User(uid), AclKind::Allow)).unwrap();
    assert_eq!(shown.permitted().unwrap(), Rights::MAP);
    let mapped = guest.map_reader(&shown).unwrap();
    let cut: String = executable.chars().take(keyway::abi::limits::EXECUTABLE_BYTES_MAX).collect();
    let denied = region.acl_add(&entry(Subject::Executable(cut), AclKind::Deny)).unwrap();
    let refused = guest.map_reader(&shown).unwrap_err();
    assert!(matches!(refused.denial(), Some(Denial::DeniedByList { .. })), "{refused}");
    assert_eq!(region.acl().unwrap().iter().map(|item| item.number).collect::<Vec<_>>(), [allowed, denied]);
    region.acl_remove(denied).unwrap();
    drop(mapped);
    guest.map_reader(&shown).unwrap();
    assert!(region.acl_remove(denied).is_err());
}

#[test]
fn a_name_that_is_published_later_is_waited_for() {
    let broker = Embedded::start().unwrap();
    let (server, user) = (client(&broker), client(&broker));
    let early = user.lookup_timeout("late", Duration::from_millis(20)).unwrap_err();
    assert!(matches!(early, Error::TimedOut(_)), "{early}");
    let waiting = thread::spawn(move || user.lookup_timeout("late", SOON).map(|_| user));
    thread::sleep(Duration::from_millis(30));
    let queue = server.create_queue(QueueOptions::default()).unwrap();
    let name = server.publish("late", queue.capability(), Rights::SEND, Audience::Everyone).unwrap();
    let user = waiting.join().unwrap().unwrap();
    user.lookup_timeout("late", Duration::ZERO).unwrap();
    drop(name);
}

#[test]
fn a_broker_in_a_thread_acts_on_its_own_process_for_nobody() {
    let broker = Embedded::start().unwrap();
    let options = SessionOptions { default_actions: DefaultActions::Accepted };
    let client = Client::over_with(broker.connect().unwrap(), options).unwrap();
    let own = client.own_process().unwrap();
    for signal in [Signal::CONT, Signal::STOP, Signal::TERM] {
        let error = own.raise(signal, 0).unwrap_err();
        assert_eq!(error.denial(), Some(&Denial::Unsupported { signal }));
    }
}

#[test]
fn signals_are_heard_of_also_when_somebody_else_has_read_the_news() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let own = client.own_process().unwrap();
    let mut signals = client.signals().unwrap();
    let other = client.signals().unwrap();
    signals.on(Signal::USR1, |_| {}).unwrap();
    assert_eq!((signals.dispatch().unwrap(), other.try_wait(Signal::USR2).unwrap()), (0, None));
    let is_ready = |signals: &Signals| socket::wait_readable(signals, Some(Duration::ZERO)).unwrap();
    assert!(!is_ready(&signals) && !is_ready(&other));
    own.raise(Signal::USR1, 1).unwrap();
    // This reads every event that has come.
    client.take_notices().unwrap();
    assert!(is_ready(&signals) && is_ready(&other));
    assert_eq!(signals.dispatch().unwrap(), 1);
    assert!(!is_ready(&signals));
    assert_eq!(other.try_wait(SignalSet::ALL).unwrap(), None);
    assert!(!is_ready(&other));
}

#[test]
fn two_threads_that_wait_for_two_signals_each_get_their_own() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    client.signals().unwrap().block(SignalSet::ALL).unwrap();
    let own = client.own_process().unwrap();
    let wait = |number: u8| {
        let (client, signal) = (client.clone(), Signal::new(number).unwrap());
        thread::spawn(move || {
            let signals = client.signals().unwrap();
            (0..200).map(|_| signals.wait(signal, SOON).unwrap().value).collect::<Vec<_>>()
        })
    };
    let waits = [40, 41].map(wait);
    for value in 0..200 {
        for number in [40, 41] {
            let signal = Signal::new(number).unwrap();
            while own.raise(signal, value).is_err() {
                thread::yield_now();
            }
        }
    }
    for wait in waits {
        assert_eq!(wait.join().unwrap(), (0..200).collect::<Vec<_>>());
    }
}

#[test]
fn losing_thousands_of_capabilities_at_once_ends_no_session() {
    let broker = Embedded::start().unwrap();
    let owner = client(&broker);
    let queue = owner.create_queue(QueueOptions::default()).unwrap();
    let send = queue.sender_capability(None).unwrap();
    let all: Vec<_> = (0..3000).map(|_| send.derive(Rights::SEND, None).unwrap()).collect();
    assert_eq!(send.revoke().unwrap(), 3000);
    let lost = owner
        .take_notices()
        .unwrap()
        .into_iter()
        .filter(|notice| matches!(notice, keyway::Notice::CapabilityLost { .. }));
    assert!(lost.count() > 0, "they are told");
    assert!(all[0].derive(Rights::SEND, None).is_err());
    send.derive(Rights::SEND, None).unwrap();
}

#[test]
fn a_region_is_mapped_at_an_address_of_ones_choice_where_there_is_room() {
    use keyway::MapOptions;
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let bytes = 3 * 4096;
    // Where a mapping has just been, there is room.
    let wish = {
        let region = client.create_region(bytes).unwrap();
        client.map_writer(&region).unwrap().address()
    };
    let region = client.create_region(bytes).unwrap();
    let writer = client.map_writer_with(&region, MapOptions::default().near(wish)).unwrap();
    writer.write(0, b"here").unwrap();
    let taken = MapOptions::default().near(writer.address());
    let reader = client.map_reader_with(&region, taken).unwrap();
    assert_ne!(reader.address(), writer.address(), "what is there is never mapped over");
    let copy = client.map_copy_with(&region, taken).unwrap();
    let mut out = [[0; 4]; 2];
    reader.read(0, &mut out[0]).unwrap();
    copy.read(0, &mut out[1]).unwrap();
    assert_eq!(out, [*b"here"; 2]);
}

#[test]
fn a_broker_with_a_socket_takes_limits_too() {
    let mut limits = keyway::Limits::default();
    limits.process.sessions = 1;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.sock");
    let _broker = Embedded::start_at_with(&path, limits).unwrap();
    let _first = Client::connect_to(&path).unwrap();
    let refused = Client::connect_to(&path).unwrap_err();
    assert!(matches!(refused, Error::SessionEnded(_)), "{refused}");
}

#[test]
fn more_lanes_than_one_can_sleep_on_open_send_and_end() {
    const LANES: u16 = 300;
    let mut limits = keyway::Limits::default();
    // To itself: one end, and one acknowledgement memory, are this process's as well.
    limits.process.lanes = 2 * u32::from(LANES);
    limits.process.descriptors = 4 * u32::from(LANES);
    let broker = Embedded::start_with(limits).unwrap();
    let client = client(&broker);
    let options = QueueOptions { senders_max: LANES, stock: 64, ..QueueOptions::default() };
    let mut queue = client.create_queue(options).unwrap();
    let capability = queue.sender_capability(None).unwrap();
    let options = SenderOptions { ring_bytes: Some(4096), ..SenderOptions::default() };
    let mut senders = Vec::new();
    let mut opened = 0;
    while senders.len() < LANES.into() {
        match client.open_sender_with(&capability, options) {
            Ok(sender) => senders.push(sender),
            Err(Error::Denied { denial: Denial::StockEmpty, .. }) => {
                assert!(senders.len() >= opened + 64, "so many fit before one looks");
                opened = senders.len();
                while let Some(news) = queue.try_next().unwrap() {
                    assert!(matches!(news, Incoming::Opened(_)));
                }
            }
            Err(other) => panic!("{other}"),
        }
    }
    let one_more = client.open_sender_with(&capability, options).unwrap_err();
    assert!(matches!(one_more, Error::Denied { denial: Denial::SendersExceeded { senders_max: LANES }, .. }));
    for (number, sender) in (0_u16..).zip(&mut senders) {
        sender.send(&number.to_le_bytes()).unwrap();
    }
    let mut received = vec![];
    while received.len() < LANES.into() {
        received.push(queue.try_receive().unwrap().payload);
    }
    received.sort_by_key(|payload| u16::from_le_bytes([payload[0], payload[1]]));
    let sent: Vec<_> = (0..LANES).map(|number| number.to_le_bytes().to_vec()).collect();
    assert_eq!(received, sent);
    drop(senders);
    let mut ended = 0;
    while let Some(news) = queue.try_next().unwrap() {
        ended += u16::from(matches!(news, Incoming::Ended { .. }));
    }
    assert_eq!(ended, LANES);
}

#[test]
fn a_lanes_priority_is_what_was_asked_for_within_what_the_capability_allows() {
    let broker = Embedded::start().unwrap();
    let client = client(&broker);
    let options = QueueOptions { order: QueueOrder::Priority, ..QueueOptions::default() };
    let mut queue = client.create_queue(options).unwrap();
    let capability = queue.capability().derive_with(&Terms::new(Rights::SEND).priority(2)).unwrap();
    let open = |priority| {
        let options = SenderOptions { priority, ..SenderOptions::default() };
        client.open_sender_with(&capability, options)
    };
    let refused = open(3).unwrap_err();
    assert!(refused.to_string().contains("2 levels of priority"), "{refused}");
    let _senders = [open(2).unwrap(), open(0).unwrap()];
    while queue.try_next().unwrap().is_some() {}
    let priorities: Vec<u8> = queue.peers().map(|peer| peer.priority).collect();
    assert_eq!(priorities, [2, 0]);
    let listed = client.queues().unwrap().into_iter().find(|entry| entry.object == queue.object());
    assert_eq!(listed.map(|entry| entry.order), Some(QueueOrder::Priority));
}
