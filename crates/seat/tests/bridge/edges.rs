//! What is easily forgotten: sizes that nobody needs, processes that are none, things that outlive their reason.

use std::{sync::mpsc, thread, time::Duration};

use keyway::{
    SenderOptions,
    bridge::{
        Bridge, BridgeEvent, ConnectorId, DenialReason, GpuLimits, GuiRequest, Pid, PixelFormat, SERVICE,
        SurfaceConfig,
    },
};
use keyway_seat::{Options, Seat};

use crate::{
    application::Application,
    stage::{PATIENCE, Stage},
};

const SMALL: SurfaceConfig =
    SurfaceConfig { width: 4, height: 4, format: PixelFormat::XRGB8888, stride: None };

#[test]
fn a_lane_has_no_larger_ring_than_messages_need() {
    let stage = Stage::begin();
    let client = stage.client();
    let capability = client.lookup(SERVICE).unwrap();
    let options = SenderOptions { ring_bytes: Some(1 << 26), ..SenderOptions::default() };
    assert!(client.open_sender_with(&capability, options).is_err());
}

#[test]
fn a_process_that_has_not_spoken_or_has_ended_is_no_application() {
    let stage = Stage::begin();
    let (client, mut bridge) = stage.compositor();
    let mut silent = keyway::Confined::new(&client, "/bin/sleep").unwrap();
    silent.command().arg("30");
    let mut started = silent.spawn().unwrap();
    let outcome = bridge.register_application(&started.process, Pid(0));
    started.child.kill().unwrap();
    started.child.wait().unwrap();
    assert_eq!(outcome.unwrap_err().denial_reason(), Some(DenialReason::Unauthorized));
}

#[test]
fn the_door_is_seen_before_who_asks_through_it() {
    let stage = Stage::begin();
    // Another keeps the bridge busy.
    let mut other = stage.stranger();
    let busy = thread::spawn(move || while other.describe().is_ok() {});
    for round in 0..200 {
        let client = stage.client();
        let mut bridge = Bridge::connect(&client).unwrap();
        // Its line is known; now the door and the request come close together.
        bridge.describe().unwrap();
        bridge.register_compositor().unwrap_or_else(|error| panic!("round {round}: {error}"));
        bridge.unregister_compositor().unwrap();
    }
    drop(stage);
    busy.join().unwrap();
}

#[test]
fn what_was_granted_ends_with_the_bridge() {
    let broker = keyway::Embedded::start().unwrap();
    let connect = || keyway::Client::over(broker.connect().unwrap()).unwrap();
    // The session that runs the bridge goes on after it.
    let owner = connect();
    let mut seat = Seat::start(&owner, Options::default()).unwrap();
    let (told, over) = mpsc::channel();
    let running = thread::spawn(move || {
        while over.try_recv().is_err() {
            seat.turn(Duration::from_millis(5)).unwrap();
        }
    });
    let client = connect();
    let mut bridge = Bridge::connect(&client).unwrap();
    bridge.register_compositor().unwrap();
    let mut application = Application::with_gpu(&client, &mut bridge, GpuLimits::default());
    application.create_surface(SMALL);
    let BridgeEvent::SurfaceCreated(shared) = bridge.next_event(PATIENCE).unwrap() else {
        panic!("no surface")
    };
    drop(shared.map(PATIENCE).unwrap());
    told.send(()).unwrap();
    running.join().unwrap();
    assert!(shared.map(PATIENCE).is_err(), "its buffer can still be mapped");
    owner.capabilities().unwrap();
}

#[test]
fn a_surface_that_ended_is_off_the_screen() {
    let stage = Stage::begin();
    let (client, mut bridge) = stage.compositor();
    let mut application = Application::with_gpu(&client, &mut bridge, GpuLimits::default());
    let drawable = application.create_surface(SMALL);
    application.draw(drawable.id, 0, &[255; 16]);
    bridge.present_surface(ConnectorId(2), drawable.id, &[]).unwrap();
    assert!(stage.picture(ConnectorId(2)).lit_count() > 0);
    let request = GuiRequest::DestroySurface { pid: application.pid(), surface: drawable.id };
    application.ask_document(request);
    // The next picture of the other connector saves all of them.
    bridge.request_gpu(GpuLimits::default()).unwrap();
    let own = bridge.create_surface(SMALL).unwrap();
    bridge.present_surface(ConnectorId(1), own.id(), &[]).unwrap();
    assert_eq!(stage.picture(ConnectorId(2)).lit_count(), 0);
}
