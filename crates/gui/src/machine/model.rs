//! The machine against a naive oracle, under random requests of several clients and hardware that answers, refuses, is late.
//!
//! Three views must agree after each step: the machine's, the oracle's (flat lists, everything searched), and the hardware's
//! (what it has made and opened and was not yet told to take back).

use std::{collections::BTreeSet, format, string::String, vec, vec::Vec};

use proptest::prelude::*;

use self::oracle::{Oracle, Said};
use super::{gpu::Node, *};
use crate::protocol::{
    Capability, ConnectorInfo, DeviceKind, DisplayMode, GpuLimits, LeaseId, Pid, PixelFormat, Rectangle,
    SurfaceConfig, SurfaceId,
};

mod oracle;
mod sessions;

const MODE: DisplayMode = DisplayMode { width: 640, height: 480, refresh_mhz: 60_000 };
const LACKING: DisplayMode = DisplayMode { refresh_mhz: 1, ..MODE };

/// One input to the machine.
#[derive(Clone, Debug)]
enum Step {
    Open(u64, Door),
    Gone(u64),
    Ask(u64, Request),
    /// The hardware answers one of the open tickets.
    Backend(usize, bool),
    Expire,
}

fn pids() -> impl Strategy<Value = Pid> {
    (101_u32..=104).prop_map(Pid)
}

fn capabilities() -> impl Strategy<Value = Capability> {
    prop_oneof![
        (0_u32..3, 0_u32..3)
            .prop_map(|(memory_mb, max_surfaces)| Capability::GpuRendering { memory_mb, max_surfaces }),
        (20_u32..23, any::<bool>())
            .prop_map(|(device, exclusive)| Capability::InputDevice { device: DeviceId(device), exclusive }),
        (10_u32..12).prop_map(|connector| Capability::DisplayControl { connector: ConnectorId(connector) }),
        Just(Capability::SurfaceManagement),
        Just(Capability::Compositor),
    ]
}

fn configs() -> impl Strategy<Value = SurfaceConfig> {
    let sides = prop::sample::select(vec![0, 16, 512, 512, 8192]);
    let strides = prop::sample::select(vec![None, None, None, Some(2048), Some(3)]);
    let formats = prop::sample::select(vec![PixelFormat::XRGB8888, PixelFormat::RGB565, PixelFormat(3)]);
    (sides.clone(), sides, formats, strides).prop_map(|(width, height, format, stride)| SurfaceConfig {
        width,
        height,
        format,
        stride,
    })
}

fn documents() -> impl Strategy<Value = GuiRequest> {
    let memory_mb = prop::sample::select(vec![0, 1, 2, 1024, 1024, 1025]);
    let max_surfaces = prop::sample::select(vec![0, 1, 3, 3, 256, 257]);
    let modes = prop::sample::select(vec![MODE, MODE, LACKING]);
    prop_oneof![
        6 => (pids(), memory_mb, max_surfaces).prop_map(|(pid, memory_mb, max_surfaces)| {
            GuiRequest::RequestGpu { pid, limits: GpuLimits { memory_mb, max_surfaces } }
        }),
        4 => (pids(), 20_u32..23)
            .prop_map(|(pid, device)| GuiRequest::RequestInputDevice { pid, device: DeviceId(device) }),
        8 => (pids(), configs()).prop_map(|(pid, config)| GuiRequest::CreateSurface { pid, config }),
        6 => (pids(), 1_u64..9)
            .prop_map(|(pid, surface)| GuiRequest::DestroySurface { pid, surface: SurfaceId(surface) }),
        3 => (10_u32..12, modes)
            .prop_map(|(connector, mode)| GuiRequest::SetDisplayMode { connector: ConnectorId(connector), mode }),
        1 => Just(GuiRequest::QueryDeviceType),
        4 => pids().prop_map(|pid| GuiRequest::RegisterCompositor { pid }),
        1 => pids().prop_map(|pid| GuiRequest::UnregisterCompositor { pid }),
        4 => (pids(), capabilities()).prop_map(|(pid, capability)| GuiRequest::HasCapability { pid, capability }),
    ]
}

fn parts() -> impl Strategy<Value = Vec<Rectangle>> {
    let figures = || prop::sample::select(vec![0_u32, 1, 15, 16, 512, u32::MAX]);
    let part = (figures(), figures(), figures(), figures());
    let part = part.prop_map(|(x, y, width, height)| Rectangle { x: x % 16, y, width, height });
    prop_oneof![2 => Just(vec![]), 3 => prop::collection::vec(part, 1..3)]
}

fn requests() -> impl Strategy<Value = Request> {
    prop_oneof![
        8 => documents().prop_map(Request::Document),
        2 => (pids(), 1_u64..=4).prop_map(|(pid, process)| Request::RegisterApplication { pid, process }),
        2 => (1_u64..=4).prop_map(|process| {
            Request::RegisterApplication { pid: Pid(100 + process as u32), process }
        }),
        1 => pids().prop_map(|pid| Request::UnregisterApplication { pid }),
        2 => (10_u32..12, 1_u64..9, parts()).prop_map(|(connector, surface, damage)| Request::PresentSurface {
            connector: ConnectorId(connector),
            surface: SurfaceId(surface),
            damage,
        }),
        2 => (pids(), 20_u32..23).prop_map(|(pid, device)| {
            Request::RequestExclusiveInput { pid, device: DeviceId(device) }
        }),
        2 => prop::sample::select(vec![vec![10], vec![10], vec![], vec![10, 10], vec![11], vec![10, 11]])
            .prop_map(|list| Request::LeaseDisplay { connectors: list.into_iter().map(ConnectorId).collect() }),
        1 => (1_u64..6).prop_map(|lease| Request::EndLease { lease: LeaseId(lease) }),
    ]
}

/// Half of the requests name the asker's own pid: those get furthest.
fn with_own_pid(client: u64, mut request: Request) -> Request {
    if let Request::RequestExclusiveInput { pid, .. }
    | Request::Document(
        GuiRequest::RequestGpu { pid, .. }
        | GuiRequest::RequestInputDevice { pid, .. }
        | GuiRequest::CreateSurface { pid, .. }
        | GuiRequest::DestroySurface { pid, .. }
        | GuiRequest::RegisterCompositor { pid }
        | GuiRequest::UnregisterCompositor { pid }
        | GuiRequest::HasCapability { pid, .. },
    ) = &mut request
    {
        *pid = Pid(100 + client as u32);
    }
    request
}

fn steps() -> impl Strategy<Value = Step> {
    // Client 1 asks most, so that what the compositor may do happens often.
    let clients = || prop::sample::select(vec![1_u64, 1, 1, 2, 2, 3, 4]);
    let doors = prop::sample::select(vec![Door::Public, Door::Compositor]);
    prop_oneof![
        6 => (clients(), doors).prop_map(|(client, door)| Step::Open(client, door)),
        1 => (1_u64..=4).prop_map(Step::Gone),
        20 => (clients(), requests()).prop_map(|(client, request)| Step::Ask(client, request)),
        20 => (clients(), requests())
            .prop_map(|(client, request)| Step::Ask(client, with_own_pid(client, request))),
        12 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(which, is_ok)| Step::Backend(which, is_ok)),
        1 => Just(Step::Expire),
    ]
}

/// What the hardware has done and was not told to take back.
#[derive(Default)]
struct Hardware {
    /// In the order in which they were asked.
    tickets: Vec<(Ticket, Effect)>,
    buffers: BTreeSet<SurfaceId>,
    inputs: BTreeSet<(ClientId, DeviceId)>,
    leases: BTreeSet<LeaseId>,
    nodes: BTreeSet<ClientId>,
}

impl Hardware {
    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::SetMode { ticket, .. }
            | Effect::AllocateSurface { ticket, .. }
            | Effect::GrantInput { ticket, .. }
            | Effect::Present { ticket, .. }
            | Effect::OpenNode { ticket, .. }
            | Effect::LeaseDisplay { ticket, .. } => self.tickets.push((ticket, effect)),
            Effect::EndNode { client } => assert!(self.nodes.remove(&client), "ended what was not there"),
            Effect::EndLease { lease } => assert!(self.leases.remove(&lease), "ended what was not there"),
            Effect::FreeSurface { surface } => {
                assert!(self.buffers.remove(&surface), "freed what was not there");
            }
            Effect::RevokeInput { client, device } => {
                assert!(self.inputs.remove(&(client, device)), "revoked what was not there");
            }
            Effect::ShareSurface { surface, .. } => {
                assert!(self.buffers.contains(&surface), "shared what was not there");
            }
            _ => {}
        }
    }

    fn answer(&mut self, position: usize, is_ok: bool) -> Ticket {
        let (ticket, asked) = self.tickets.remove(position);
        match asked {
            Effect::AllocateSurface { surface, .. } if is_ok => {
                assert!(self.buffers.insert(surface));
            }
            Effect::GrantInput { client, device, .. } if is_ok => {
                assert!(self.inputs.insert((client, device)));
            }
            Effect::LeaseDisplay { lease, .. } if is_ok => assert!(self.leases.insert(lease)),
            Effect::OpenNode { client, .. } if is_ok => assert!(self.nodes.insert(client)),
            _ => {}
        }
        ticket
    }
}

/// Runs one step on the machine and the oracle; what each said.
fn run(
    bridge: &mut Bridge,
    oracle: &mut Oracle,
    hardware: &mut Hardware,
    now_ns: u64,
    step: Step,
) -> (Said, Said) {
    let (effects, expected): (Vec<Effect>, Said) = match step {
        Step::Open(client, door) => {
            let identity = Identity { pid: Pid(100 + client as u32), uid: 7 };
            let effects = bridge.on_lane_opened(ClientId(client), identity, door).unwrap().collect();
            (effects, oracle.open(client, door))
        }
        Step::Gone(client) => (bridge.on_client_gone(ClientId(client)).collect(), oracle.gone(client)),
        Step::Ask(client, request) => {
            let expected = oracle.ask(client, &request);
            (bridge.handle(now_ns, ClientId(client), RequestNumber(1), request).collect(), expected)
        }
        Step::Backend(which, is_ok) => {
            if hardware.tickets.is_empty() {
                return (vec![], vec![]);
            }
            let position = which % hardware.tickets.len();
            let ticket = hardware.answer(position, is_ok);
            let result = if is_ok { Ok(()) } else { Err(BackendFailure::Refused { message: "no".into() }) };
            (bridge.on_backend(ticket, result).collect(), oracle.backend(position, is_ok))
        }
        Step::Expire => {
            let effects = bridge.poll_expired(u64::MAX).map(Iterator::collect).unwrap_or_default();
            (effects, oracle.expire())
        }
    };
    let mut said = Said::new();
    for effect in effects {
        if let Effect::Answer { client, answer, .. } = &effect {
            said.push((client.0, answer.clone()));
        }
        hardware.carry_out(effect);
    }
    (said, expected)
}

/// The machine's state in the oracle's words.
fn state_of(bridge: &Bridge) -> String {
    let applications: Vec<_> = bridge.applications.clients().iter().map(|client| client.0).collect();
    let gpu: Vec<_> = bridge
        .gpu
        .iter()
        .map(|(client, gpu)| {
            let is_held = bridge.held_gpu(*client).is_some();
            (client.0, gpu.capability.memory_mb, gpu.capability.max_surfaces, gpu.charged_bytes, is_held)
        })
        .collect();
    let surfaces: Vec<_> = bridge
        .surfaces
        .iter()
        .map(|(id, surface)| (id.0, surface.owner.0, bridge.surface_owner(id).is_some()))
        .collect();
    let inputs: Vec<_> =
        bridge.inputs.iter().map(|(device, sharing)| (device.0, *sharing == Sharing::Exclusive)).collect();
    let compositor = bridge.compositor().map(|client| client.0);
    let totals = bridge.totals();
    format!(
        "{compositor:?} {applications:?} {gpu:?} {surfaces:?} {inputs:?} {} {} {}",
        totals.pending_count, totals.reserved_mb, totals.leases_count
    )
}

fn in_any_order(mut said: Said) -> Vec<String> {
    said.sort_by_key(|(client, _)| *client);
    let mut said: Vec<_> = said.into_iter().map(|said| format!("{said:?}")).collect();
    said.sort();
    said
}

fn check_hardware(bridge: &Bridge, hardware: &Hardware) -> Result<(), TestCaseError> {
    let live = bridge.surfaces.iter().map(|(id, _)| id).filter(|&id| bridge.surface_owner(id).is_some());
    prop_assert_eq!(live.collect::<BTreeSet<_>>(), hardware.buffers.clone());
    let held = bridge.compositor().into_iter();
    let held = held.flat_map(|client| bridge.inputs.keys().map(move |&device| (client, device)));
    prop_assert_eq!(held.collect::<BTreeSet<_>>(), hardware.inputs.clone());
    let leases = bridge.leases.iter().filter(|(_, lease)| lease.is_live).map(|(id, _)| id);
    prop_assert_eq!(leases.collect::<BTreeSet<_>>(), hardware.leases.clone());
    let nodes = bridge.gpu.iter().filter(|(_, gpu)| matches!(gpu.node, Node::Granted { .. }));
    prop_assert_eq!(nodes.map(|(client, _)| *client).collect::<BTreeSet<_>>(), hardware.nodes.clone());
    Ok(())
}

fn node() -> RenderNode {
    RenderNode { name: "renderD128".into(), card: "card0".into() }
}

fn machine(render_node: Option<RenderNode>) -> Bridge {
    let connector =
        ConnectorInfo { id: ConnectorId(10), name: "c".into(), modes: vec![MODE], current: Some(MODE) };
    let device = |id| DeviceInfo { id: DeviceId(id), name: "d".into(), kind: DeviceKind::Keyboard };
    let devices = vec![device(20), device(21)];
    Bridge::new(Facts { connectors: vec![connector], devices, render_node, ..Facts::default() }).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_machine_agrees_with_the_oracle(steps in prop::collection::vec(steps(), 1..150), has_node: bool) {
        let oracle = Oracle::with_node(has_node);
        let bridge = machine(has_node.then(node));
        let (mut bridge, mut oracle, mut hardware) = (bridge, oracle, Hardware::default());
        let open = [1, 2, 3].map(|client| Step::Open(client, Door::Public));
        let begin = [
            Step::Open(1, Door::Compositor),
            Step::Ask(1, Request::Document(GuiRequest::RegisterCompositor { pid: Pid(101) })),
        ];
        for (now_ns, step) in open.into_iter().chain(begin).chain(steps).enumerate() {
            let shown = format!("{step:?}");
            let (said, expected) = run(&mut bridge, &mut oracle, &mut hardware, now_ns as u64, step);
            bridge.audit();
            prop_assert_eq!(in_any_order(said), in_any_order(expected), "{}", shown);
            prop_assert_eq!(state_of(&bridge), oracle.state(), "{}", shown);
            check_hardware(&bridge, &hardware)?;
        }
        for client in 1..=4 {
            bridge.on_client_gone(ClientId(client)).for_each(|effect| hardware.carry_out(effect));
        }
        while !hardware.tickets.is_empty() {
            let ticket = hardware.answer(0, true);
            bridge.on_backend(ticket, Ok(())).for_each(|effect| hardware.carry_out(effect));
        }
        bridge.audit();
        prop_assert_eq!(bridge.totals(), Totals::default());
        check_hardware(&bridge, &hardware)?;
    }

    #[test]
    fn the_same_inputs_give_the_same_effects(steps in prop::collection::vec(steps(), 1..80)) {
        let trace = || {
            let oracle = Oracle::with_node(true);
            let (mut bridge, mut oracle, mut hardware) = (machine(Some(node())), oracle, Hardware::default());
            let said = steps.iter().map(|step| run(&mut bridge, &mut oracle, &mut hardware, 0, step.clone()).0);
            format!("{:?} {bridge:?}", said.collect::<Vec<_>>())
        };
        prop_assert_eq!(trace(), trace());
    }
}
