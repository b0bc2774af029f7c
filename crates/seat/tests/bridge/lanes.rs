//! Lanes: who may have one to the bridge, what ends it, and that one client's troubles are not another's.

use std::{thread, time::Duration};

use keyway::{
    Audience, Carried, Client, Denial, Error, Handle, Kind, Outgoing, QueueOptions, Rights, Sender,
    bridge::{
        Answer, Bridge, BridgeError, BridgeEvent, COMPOSITOR_SERVICE, ConnectorId, DenialReason, Event,
        GpuLimits, GuiRequest, Pid, PixelFormat, Request, Role, SERVICE,
    },
};
use keyway_gui::protocol::encode;
use keyway_seat::{Options, Seat, SeatError};

use crate::{
    application::Application,
    picture::config,
    stage::{PATIENCE, Stage, eventually},
};

fn works(bridge: &mut Bridge) {
    assert_eq!(bridge.describe().unwrap().role, Role::Stranger);
}

fn await_end(sender: &mut Sender) {
    eventually("the lane ends", || sender.ending().is_some_and(|error| error.is_lane_end()));
}

/// A lane by a name. More of them than the bridge has in stock takes a little while.
fn open(client: &Client, name: &str) -> Option<Sender> {
    let service = client.lookup(name).unwrap();
    client.open_sender(&service).ok()
}

/// The queues of the bridge's process, its own handles.
fn queues(stage: &Stage) -> Vec<Handle> {
    let entries = stage.owner.capabilities().unwrap();
    let own =
        entries.iter().filter(|entry| entry.kind == Kind::Queue && entry.rights.contains(Rights::RECEIVE));
    own.map(|entry| entry.handle).collect()
}

#[test]
fn bytes_that_are_no_request_end_their_lane_and_no_other() {
    let stage = Stage::begin();
    let (client, mut other) = (stage.client(), stage.stranger());
    let mut own = Bridge::connect(&client).unwrap();
    for garbage in [&b"\xff\xff\xff\xff garbage"[..], b"", &[0; 5000]] {
        let mut caller = client.open_caller(&client.lookup(SERVICE).unwrap()).unwrap();
        let error = caller.call(&Outgoing::bytes(garbage), PATIENCE).unwrap_err();
        assert!(error.is_lane_end(), "{error}");
        let mut sender = open(&client, SERVICE).unwrap();
        sender.send(garbage).unwrap();
        await_end(&mut sender);
        works(&mut own);
        works(&mut other);
    }
}

#[test]
fn a_request_that_is_no_call_ends_its_lane_and_is_not_carried_out() {
    let stage = Stage::begin();
    let (client, mut bridge) = stage.compositor();
    let mut other = stage.stranger();
    let mut sender = open(&client, SERVICE).unwrap();
    let pid = Pid(client.pid());
    sender.send(&encode(&Request::Document(GuiRequest::UnregisterCompositor { pid })).unwrap()).unwrap();
    await_end(&mut sender);
    works(&mut other);
    assert_eq!(bridge.describe().unwrap().role, Role::Compositor);
}

#[test]
fn a_message_through_the_door_closes_that_lane_and_the_client_is_still_forgotten_with_its_last() {
    let stage = Stage::begin();
    let (client, mut bridge) = stage.compositor();
    let mut door = open(&client, COMPOSITOR_SERVICE).unwrap();
    door.send(b"knock").unwrap();
    await_end(&mut door);
    assert_eq!(bridge.describe().unwrap().role, Role::Compositor);
    drop((door, bridge, client));
    let (_client, mut next) = stage.next_compositor();
    assert_eq!(next.describe().unwrap().role, Role::Compositor);
}

#[test]
fn a_compositor_that_speaks_garbage_can_be_followed_by_another() {
    let stage = Stage::begin();
    let client = stage.client();
    let door = open(&client, COMPOSITOR_SERVICE).unwrap();
    let mut caller = client.open_caller(&client.lookup(SERVICE).unwrap()).unwrap();
    let pid = Pid(client.pid());
    let request = encode(&Request::Document(GuiRequest::RegisterCompositor { pid })).unwrap();
    caller.call(&Outgoing::bytes(&request), PATIENCE).unwrap();
    drop(door);
    let error = caller.call(&Outgoing::bytes(b"\xff"), PATIENCE).unwrap_err();
    assert!(error.is_lane_end(), "{error}");
    stage.next_compositor();
    // And this session may speak again, being nobody.
    works(&mut Bridge::connect(&client).unwrap());
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_requests_harms_nobody() {
    let stage = Stage::begin();
    let mut other = stage.stranger();
    for _ in 0..20 {
        let client = stage.client();
        let mut bridge = Bridge::connect(&client).unwrap();
        bridge.set_timeout(Duration::ZERO);
        for _ in 0..10 {
            // Answered or not.
            let _ = bridge.describe();
        }
        drop((bridge, client));
        works(&mut other);
    }
}

#[test]
fn a_compositor_that_takes_no_events_blocks_neither_others_nor_itself() {
    let stage = Stage::begin();
    let (client, mut bridge) = stage.compositor();
    let mut application = Application::with_gpu(&client, &mut bridge, GpuLimits::default());
    let mut other = stage.stranger();
    let pid = application.pid();
    let config = config(4, 4, PixelFormat::RGB565);
    for round in 0..1500 {
        let create = Request::Document(GuiRequest::CreateSurface { pid, config });
        let Answer::SurfaceCreated { surface, .. } = application.ask(&create) else {
            panic!("no surface in round {round}");
        };
        application.ask_document(GuiRequest::DestroySurface { pid, surface });
    }
    works(&mut other);
    assert_eq!(bridge.connectors().unwrap().len(), 2);
    assert_eq!(bridge.describe().unwrap().role, Role::Compositor);
    // What it was told in the meantime is still there to be read, and then what is new.
    let mut told_count = 0;
    loop {
        match bridge.next_event(Duration::from_millis(50)) {
            // Its surfaces are gone, and the news of them is no error.
            Ok(BridgeEvent::Other(Event::SurfaceCreated { .. } | Event::SurfaceDestroyed { .. })) => {
                told_count += 1;
            }
            Err(BridgeError::Keyway(Error::TimedOut(_))) => break,
            other => panic!("after {told_count} events: {other:?}"),
        }
    }
    assert!(told_count > 100, "{told_count}");
    let drawable = application.create_surface(config);
    match bridge.next_event(PATIENCE).unwrap() {
        BridgeEvent::SurfaceCreated(shared) => {
            assert_eq!(shared.surface, drawable.id);
            shared.map(PATIENCE).unwrap();
        }
        other => panic!("not the new surface: {other:?}"),
    }
}

#[test]
fn an_application_that_takes_no_events_blocks_neither_others_nor_itself() {
    let stage = Stage::begin();
    let (client, mut bridge) = stage.compositor();
    let mut application = Application::connected(&client);
    for _ in 0..5000 {
        bridge.register_application(&application.process, application.pid()).unwrap();
        bridge.unregister_application(application.pid()).unwrap();
    }
    works(&mut stage.stranger());
    assert!(matches!(application.ask(&Request::Describe), Answer::Description(_)));
    // Which of the many comes first depends on how many its lane had room for, and on how many its caller keeps.
    let first = application.next_event();
    assert!(matches!(first, Event::Registered | Event::Unregistered), "{first:?}");
}

#[test]
fn a_client_that_opens_many_lanes_locks_nobody_out_and_does_not_end_the_bridge() {
    let stage = Stage::begin();
    let client = stage.client();
    let mut other = stage.stranger();
    let mut lanes = Vec::new();
    for name in [SERVICE, COMPOSITOR_SERVICE] {
        for _ in 0..200 {
            lanes.extend(open(&client, name));
            if lanes.len() % 4 == 0 {
                thread::sleep(Duration::from_millis(2));
            }
        }
    }
    works(&mut other);
    works(&mut stage.stranger());
    let (_client, mut compositor) = stage.compositor();
    assert_eq!(compositor.describe().unwrap().role, Role::Compositor);
    drop(lanes);
    works(&mut other);
}

#[test]
fn what_the_directory_gives_cannot_be_passed_on() {
    let stage = Stage::begin();
    let (one, another) = (stage.client(), stage.client());
    for name in [SERVICE, COMPOSITOR_SERVICE] {
        let service = one.lookup(name).unwrap();
        assert_eq!(service.rights(), Rights::SEND);
        let refused = service.derive(Rights::SEND, None).unwrap_err();
        assert!(matches!(refused.denial(), Some(Denial::MissingRights { .. })), "{refused}");
        let inbox = another.create_queue(QueueOptions::default()).unwrap();
        let _name = another.publish("inbox", inbox.capability(), Rights::SEND, Audience::Everyone).unwrap();
        let mut sender = one.open_sender(&one.lookup("inbox").unwrap()).unwrap();
        for carried in [Carried::Copy(&service, Rights::SEND), Carried::Move(&service)] {
            let message = Outgoing { capabilities: &[carried], ..Outgoing::default() };
            let refused = sender.send_message(&message).unwrap_err();
            assert!(matches!(refused.denial(), Some(Denial::MissingRights { .. })), "{refused}");
        }
    }
}

#[test]
fn a_lane_through_anothers_capability_or_one_that_the_directory_did_not_make_is_closed() {
    let stage = Stage::begin();
    let (one, another) = (stage.client(), stage.client());
    let mut inbox = another.create_queue(QueueOptions::default()).unwrap();
    let _name = another.publish("inbox", inbox.capability(), Rights::SEND, Audience::Everyone).unwrap();
    let queues = queues(&stage);
    assert_eq!(queues.len(), 2);
    for (index, queue) in queues.iter().enumerate() {
        let queue = stage.owner.adopt(*queue);
        // Made for one session by the directory, and passed on to another.
        let side = format!("side-door-{index}");
        let rights = Rights::SEND | Rights::GRANT;
        let _side = stage.owner.publish(&side, &queue, rights, Audience::Everyone).unwrap();
        let mut to_inbox = one.open_sender(&one.lookup("inbox").unwrap()).unwrap();
        let made_for_one = one.lookup(&side).unwrap();
        let mut from_owner = stage.owner.open_sender(&stage.owner.lookup("inbox").unwrap()).unwrap();
        let carried = [Carried::Copy(&made_for_one, Rights::SEND)];
        to_inbox.send_message(&Outgoing { capabilities: &carried, ..Outgoing::default() }).unwrap();
        let carried = [Carried::Copy(&queue, Rights::SEND)];
        from_owner.send_message(&Outgoing { capabilities: &carried, ..Outgoing::default() }).unwrap();
        for _ in 0..2 {
            let capability = inbox.receive_timeout(PATIENCE).unwrap().capabilities.pop().unwrap().unwrap();
            let request = encode(&Request::Describe).unwrap();
            // The bridge may be faster than the caller, who has something to send at once.
            let answer = another
                .open_caller(&capability)
                .and_then(|mut caller| caller.call(&Outgoing::bytes(&request), PATIENCE));
            let error = answer.unwrap_err();
            let is_closed = matches!(error.denial(), Some(Denial::LaneEnded { .. }));
            assert!(is_closed || error.is_lane_end(), "{error}");
            let mut sender = another.open_sender(&capability).unwrap();
            await_end(&mut sender);
        }
        // The one for whom it was made may use it.
        let mut sender = one.open_sender(&made_for_one).unwrap();
        thread::sleep(Duration::from_millis(50));
        assert!(sender.ending().is_none());
        queue.into_handle();
    }
    works(&mut Bridge::connect(&another).unwrap());
    // Nobody came through the door by a capability that was not theirs.
    let pid = Pid(another.pid());
    let request = Request::Document(GuiRequest::RegisterCompositor { pid });
    let answer = Bridge::connect(&another).unwrap().request(&request).unwrap();
    assert_eq!(answer, DenialReason::Unauthorized.into());
}

#[test]
fn there_is_one_bridge_at_a_time_and_the_next_may_follow() {
    let stage = Stage::begin();
    let client = stage.client();
    match Seat::start(&client, Options::default()) {
        Err(SeatError::Keyway(error)) => {
            assert!(matches!(error.denial(), Some(Denial::NameTaken { .. })), "{error}");
        }
        other => panic!("a second bridge: {other:?}"),
    }
    works(&mut stage.stranger());
    let (_compositor, mut bridge) = stage.compositor();
    assert!(bridge.connectors().unwrap().iter().any(|connector| connector.id == ConnectorId(1)));
}
