//! Sessions under random requests, deaths and hardware that answers, refuses and is late.
//!
//! What the hardware was told is kept beside the machine and judged after each step: input works for one client at a time,
//! which has the seat; who drives the screens is whom the machine let; each session is told to pause and to resume in turn.

use std::collections::BTreeMap;

use super::*;
use crate::protocol::{
    CardId, Event, OpenNumber, SeatDevice, SessionAnswer, SessionEvent, SessionId, SessionRequest,
};

/// One input to the machine.
#[derive(Clone, Debug)]
enum Move {
    Open(u64, Door),
    Gone(u64),
    Native(u64, Request),
    Session(u64, SessionRequest),
    Backend(usize, bool),
    /// So much time passes, in milliseconds.
    Wait(u64),
    Unplug,
}

fn session_requests() -> impl Strategy<Value = SessionRequest> {
    let devices = prop::sample::select(vec![
        SeatDevice::Card(CardId(0)),
        SeatDevice::Input(DeviceId(20)),
        SeatDevice::Input(DeviceId(21)),
        SeatDevice::Input(DeviceId(29)),
    ]);
    prop_oneof![
        4 => Just(SessionRequest::OpenSeat),
        1 => Just(SessionRequest::CloseSeat),
        8 => devices.prop_map(SessionRequest::OpenDevice),
        4 => (0_i32..5).prop_map(|number| SessionRequest::CloseDevice(OpenNumber(number))),
        6 => Just(SessionRequest::PauseDone),
        6 => (0_u32..5).prop_map(|session| SessionRequest::Switch(SessionId(session))),
    ]
}

fn moves() -> impl Strategy<Value = Move> {
    let natives = prop_oneof![
        Just(Request::Document(GuiRequest::RegisterCompositor { pid: Pid(101) })),
        Just(Request::Document(GuiRequest::UnregisterCompositor { pid: Pid(101) })),
        Just(Request::Document(GuiRequest::RequestInputDevice { pid: Pid(101), device: DeviceId(20) })),
        Just(Request::RequestExclusiveInput { pid: Pid(101), device: DeviceId(21) }),
        Just(Request::LeaseDisplay { connectors: vec![ConnectorId(10)] }),
        (0_u32..5).prop_map(|session| Request::SwitchSession { session: SessionId(session) }),
    ];
    let doors = prop::sample::select(vec![Door::Seatd, Door::Seatd, Door::Compositor]);
    prop_oneof![
        3 => (1_u64..=4, doors).prop_map(|(client, door)| Move::Open(client, door)),
        1 => (1_u64..=4).prop_map(Move::Gone),
        8 => natives.prop_map(|request| Move::Native(1, request)),
        20 => (2_u64..=4, session_requests()).prop_map(|(client, request)| Move::Session(client, request)),
        14 => (any::<usize>(), prop::bool::weighted(0.9)).prop_map(|(which, is_ok)| Move::Backend(which, is_ok)),
        2 => (0_u64..1500).prop_map(Move::Wait),
        1 => Just(Move::Unplug),
    ]
}

/// What the hardware and the sessions were told.
#[derive(Default)]
struct World {
    tickets: Vec<(Ticket, Effect)>,
    inputs: BTreeSet<(ClientId, DeviceId)>,
    cards: BTreeSet<(ClientId, CardId)>,
    /// Whether a session was last told to resume.
    is_active: BTreeMap<ClientId, bool>,
    driver: Option<Driver>,
}

impl World {
    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::GrantInput { ticket, .. }
            | Effect::OpenCard { ticket, .. }
            | Effect::HandOver { ticket, .. }
            | Effect::LeaseDisplay { ticket, .. } => self.tickets.push((ticket, effect)),
            Effect::RevokeInput { client, device } => {
                assert!(self.inputs.remove(&(client, device)), "revoked what was not there");
            }
            Effect::CloseCard { client, card } => {
                assert!(self.cards.remove(&(client, card)), "closed what was not there");
            }
            Effect::TellSession { client, event } => {
                let is_active = event == SessionEvent::Resume;
                assert_ne!(self.is_active.insert(client, is_active), Some(is_active), "told the same twice");
                if is_active {
                    assert_eq!(self.driver, Some(Driver::Session(client)), "told before Linux has done it");
                }
            }
            Effect::Notify { client, event: Event::Resumed } => {
                assert_eq!(self.driver, Some(Driver::Bridge), "{client:?} resumed before Linux has done it");
            }
            Effect::AnswerSession { client, answer: SessionAnswer::SeatOpened { .. } } => {
                self.is_active.remove(&client);
            }
            _ => {}
        }
    }

    fn answer(&mut self, position: usize, is_ok: bool) -> Ticket {
        let (ticket, asked) = self.tickets.remove(position);
        match asked {
            Effect::GrantInput { client, device, .. } if is_ok => {
                assert!(self.inputs.insert((client, device)), "granted twice");
            }
            Effect::OpenCard { client, card, .. } if is_ok => {
                assert!(self.cards.insert((client, card)), "opened twice");
            }
            Effect::HandOver { to, .. } => self.driver = Some(to),
            _ => {}
        }
        ticket
    }
}

fn play(bridge: &mut Bridge, world: &mut World, now_ns: &mut u64, step: Move) {
    let effects: Vec<Effect> = match step {
        Move::Open(client, door) => {
            let identity = Identity { pid: Pid(100 + client as u32), uid: 7 };
            // The compositor's process and those of sessions are different ones here, as clients are by their doors.
            let door = if client == 1 { Door::Compositor } else { door };
            let door = if client > 1 && door == Door::Compositor { Door::Public } else { door };
            bridge.on_lane_opened(ClientId(client), identity, door).unwrap().collect()
        }
        Move::Gone(client) => bridge.on_client_gone(ClientId(client)).collect(),
        Move::Native(client, request) => {
            bridge.handle(*now_ns, ClientId(client), RequestNumber(1), request).collect()
        }
        Move::Session(client, request) => {
            bridge.on_session_request(*now_ns, ClientId(client), RequestNumber(1), request).collect()
        }
        Move::Backend(..) if world.tickets.is_empty() => vec![],
        Move::Backend(which, is_ok) => {
            let ticket = world.answer(which % world.tickets.len(), is_ok);
            let result = if is_ok { Ok(()) } else { Err(BackendFailure::Refused { message: "no".into() }) };
            bridge.on_backend(ticket, result).collect()
        }
        Move::Wait(ms) => {
            *now_ns += ms * 1_000_000;
            bridge.poll_expired(*now_ns).map(Iterator::collect).unwrap_or_default()
        }
        Move::Unplug => {
            let mut effects: Vec<Effect> = bridge.on_device_removed(DeviceId(21)).collect();
            let device = DeviceInfo { id: DeviceId(21), name: "d".into(), kind: DeviceKind::Keyboard };
            effects.extend(bridge.on_device_added(device).unwrap());
            effects
        }
    };
    for effect in effects {
        world.carry_out(effect);
    }
}

fn with_card() -> Bridge {
    let connector =
        ConnectorInfo { id: ConnectorId(10), name: "c".into(), modes: vec![MODE], current: Some(MODE) };
    let device = |id| DeviceInfo { id: DeviceId(id), name: "d".into(), kind: DeviceKind::Keyboard };
    let devices = vec![device(20), device(21)];
    Bridge::new(Facts { connectors: vec![connector], cards: vec![CardId(0)], devices, ..Facts::default() })
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_session_at_a_time_has_the_seat(moves in prop::collection::vec(moves(), 1..200)) {
        let (mut bridge, mut world, mut now_ns) = (with_card(), World::default(), 0);
        for step in moves {
            let shown = format!("{step:?}");
            play(&mut bridge, &mut world, &mut now_ns, step);
            bridge.audit();
            let readers: BTreeSet<ClientId> = world.inputs.iter().map(|(client, _)| *client).collect();
            // One that came late is revoked in the same step, so nothing is left over in between.
            prop_assert!(readers.len() <= 1, "{} readers after {}", readers.len(), shown);
        }
        for client in 1..=4 {
            bridge.on_client_gone(ClientId(client)).for_each(|effect| world.carry_out(effect));
            bridge.audit();
        }
        while !world.tickets.is_empty() {
            let ticket = world.answer(0, true);
            bridge.on_backend(ticket, Ok(())).for_each(|effect| world.carry_out(effect));
            bridge.audit();
        }
        prop_assert_eq!(bridge.totals(), Totals::default());
        prop_assert!(world.inputs.is_empty() && world.cards.is_empty());
    }
}
