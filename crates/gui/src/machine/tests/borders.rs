//! Just enough and one too many, and the rarer turns of events that the other tests pass by.

use super::*;

fn connector(id: u32) -> ConnectorInfo {
    ConnectorInfo { id: ConnectorId(id), name: "c".to_string(), modes: vec![MODE], current: None }
}

fn device(id: u32) -> DeviceInfo {
    DeviceInfo { id: DeviceId(id), name: "d".to_string(), kind: DeviceKind::Pointer }
}

#[test]
fn as_many_facts_as_there_may_be_are_kept() {
    let facts = Facts {
        connectors: (0..limits::CONNECTORS_MAX as u32).map(connector).collect(),
        cards: (0..limits::CARDS_MAX as u32).map(CardId).collect(),
        devices: (0..limits::DEVICES_MAX as u32).map(device).collect(),
        ..Facts::default()
    };
    let mut bridge = Bridge::new(facts).unwrap();
    // One that is known may change where there is no room for another.
    bridge.on_connector_changed(connector(0)).unwrap().for_each(drop);
    let too_many = FactsRefused::TooManyConnectors { connectors_max: limits::CONNECTORS_MAX };
    assert_eq!(bridge.on_connector_changed(connector(99)).err(), Some(too_many));
    bridge.on_connector_removed(ConnectorId(0)).for_each(drop);
    bridge.on_connector_changed(connector(99)).unwrap().for_each(drop);
    bridge.audit();
}

#[test]
fn a_connector_that_comes_is_told_and_can_be_used() {
    let mut world = World::with_compositor();
    let effects: Vec<_> = world.bridge.on_connector_changed(connector(99)).unwrap().collect();
    assert_eq!(effects, [notify(COMPOSITOR, Event::ConnectorChanged(connector(99)))]);
    assert_eq!(world.carried_out(COMPOSITOR, set_mode(ConnectorId(99), MODE)), success());
}

#[test]
fn a_name_that_is_too_long_is_told_as_far_as_it_may_go() {
    let mut world = World::with_compositor();
    let name = "n".repeat(limits::NAME_BYTES_MAX + 1);
    let clipped = "n".repeat(limits::NAME_BYTES_MAX);
    let long = DeviceInfo { name: name.clone(), ..device(99) };
    let effects: Vec<_> = world.bridge.on_device_added(long).unwrap().collect();
    let told = DeviceInfo { name: clipped.clone(), ..device(99) };
    assert_eq!(effects, [notify(COMPOSITOR, Event::DeviceAdded(told))]);
    let long = ConnectorInfo { name, ..connector(99) };
    let effects: Vec<_> = world.bridge.on_connector_changed(long).unwrap().collect();
    let told = ConnectorInfo { name: clipped, ..connector(99) };
    assert_eq!(effects, [notify(COMPOSITOR, Event::ConnectorChanged(told))]);
}
