//! The bridge's machine when somebody dies: every party, after every step of each history, whatever the hardware does then.
//!
//! Parties are all processes, by death and by the end of their lanes, and the bridge itself, which begins anew and knows
//! nothing. `KEYWAY_SIM_RUNS` makes more histories by chance, `KEYWAY_SIM_SEED` only that one.

use std::collections::BTreeSet;

use keyway_gui::{
    Door, Totals,
    protocol::{
        Capability, CardId, ConnectorId, DeviceId, DisplayMode, GpuLimits, GuiRequest, LeaseId, OpenNumber,
        PixelFormat, Request, SeatDevice, SessionId, SessionRequest, SurfaceConfig, SurfaceId,
    },
};
use keyway_sim::{
    Random,
    bridge::{CONNECTORS, DEVICES, MODES, Step, World, pid},
};

/// The compositor in each history, and who follows.
const COMPOSITOR: u64 = 1;
const NEXT: u64 = 9;

fn document(client: u64, request: GuiRequest) -> Step {
    Step::Ask(client, Request::Document(request))
}

fn register_compositor(client: u64) -> Step {
    document(client, GuiRequest::RegisterCompositor { pid: pid(client) })
}

fn unregister_compositor(client: u64) -> Step {
    document(client, GuiRequest::UnregisterCompositor { pid: pid(client) })
}

fn register(process: u64) -> Step {
    Step::Ask(COMPOSITOR, Request::RegisterApplication { pid: pid(process), process })
}

fn gpu(client: u64, memory_mb: u32, max_surfaces: u32) -> Step {
    let limits = GpuLimits { memory_mb, max_surfaces };
    document(client, GuiRequest::RequestGpu { pid: pid(client), limits })
}

fn create(client: u64, side: u32) -> Step {
    let config = SurfaceConfig { width: side, height: side, format: PixelFormat::XRGB8888, stride: None };
    document(client, GuiRequest::CreateSurface { pid: pid(client), config })
}

fn destroy(client: u64, surface: u64) -> Step {
    document(client, GuiRequest::DestroySurface { pid: pid(client), surface: SurfaceId(surface) })
}

fn present(connector: u32, surface: u64) -> Step {
    let (connector, surface) = (ConnectorId(connector), SurfaceId(surface));
    Step::Ask(COMPOSITOR, Request::PresentSurface { connector, surface, damage: vec![] })
}

fn set_mode(connector: u32, mode: DisplayMode) -> Step {
    document(COMPOSITOR, GuiRequest::SetDisplayMode { connector: ConnectorId(connector), mode })
}

fn take_input(device: u32) -> Step {
    let (pid, device) = (pid(COMPOSITOR), DeviceId(device));
    document(COMPOSITOR, GuiRequest::RequestInputDevice { pid, device })
}

fn lease(connectors: &[u32]) -> Step {
    let connectors = connectors.iter().copied().map(ConnectorId).collect();
    Step::Ask(COMPOSITOR, Request::LeaseDisplay { connectors })
}

fn end_lease(lease: u64) -> Step {
    Step::Ask(COMPOSITOR, Request::EndLease { lease: LeaseId(lease) })
}

fn switch_to(session: u32) -> Step {
    Step::Ask(COMPOSITOR, Request::SwitchSession { session: SessionId(session) })
}

fn session(client: u64, request: SessionRequest) -> Step {
    Step::AskSession(client, request)
}

fn opens(client: u64, device: SeatDevice) -> Step {
    session(client, SessionRequest::OpenDevice(device))
}

/// The hardware does the oldest of what it was asked.
const DONE: Step = Step::Hardware(0, true);

/// A compositor with two applications, and all that the document has.
fn documents() -> Vec<Step> {
    vec![
        Step::Open(COMPOSITOR, Door::Public),
        Step::Open(COMPOSITOR, Door::Compositor),
        Step::Open(2, Door::Public),
        register_compositor(COMPOSITOR),
        register(2),
        register(3),
        gpu(COMPOSITOR, 256, 16),
        // More than one may have, and what it would make of it.
        gpu(2, 2048, 2),
        create(2, 16_384),
        create(2, 16_384),
        DONE,
        DONE,
        gpu(2, 1024, 2),
        Step::Open(3, Door::Public),
        document(COMPOSITOR, GuiRequest::RequestGpu { pid: pid(3), limits: GpuLimits::default() }),
        create(2, 512),
        DONE,
        // More than is left.
        create(2, 16_384),
        create(3, 16),
        create(COMPOSITOR, 16),
        DONE,
        DONE,
        take_input(DEVICES[0]),
        DONE,
        set_mode(CONNECTORS[0], MODES[1]),
        DONE,
        present(CONNECTORS[0], 1),
        present(CONNECTORS[1], 3),
        DONE,
        DONE,
        destroy(2, 1),
        create(2, 16),
        DONE,
        Step::Ask(COMPOSITOR, Request::UnregisterApplication { pid: pid(3) }),
        unregister_compositor(COMPOSITOR),
    ]
}

/// All that the hardware can be asked is under way, and it takes its time.
fn waits() -> Vec<Step> {
    vec![
        Step::Open(COMPOSITOR, Door::Compositor),
        register_compositor(COMPOSITOR),
        register(2),
        Step::Open(2, Door::Public),
        gpu(2, 1, 4),
        gpu(COMPOSITOR, 1, 4),
        create(2, 16),
        DONE,
        create(2, 256),
        create(2, 256),
        create(COMPOSITOR, 16),
        take_input(DEVICES[0]),
        take_input(DEVICES[1]),
        set_mode(CONNECTORS[0], MODES[1]),
        present(CONNECTORS[0], 1),
        destroy(2, 1),
        lease(&[CONNECTORS[1]]),
        Step::Wait(1_999),
        Step::Hardware(1, true),
        Step::Wait(1),
        Step::Hardware(2, true),
        Step::Hardware(3, false),
        create(2, 16),
        Step::Stray(0),
    ]
}

/// Screens and devices that come and go while they are used.
fn plugs() -> Vec<Step> {
    vec![
        Step::Open(COMPOSITOR, Door::Compositor),
        register_compositor(COMPOSITOR),
        gpu(COMPOSITOR, 1, 4),
        create(COMPOSITOR, 16),
        DONE,
        take_input(DEVICES[0]),
        DONE,
        take_input(DEVICES[1]),
        Step::Replug(DEVICES[0]),
        Step::Replug(DEVICES[1]),
        set_mode(CONNECTORS[0], MODES[1]),
        present(CONNECTORS[0], 1),
        Step::Reconnect(CONNECTORS[0]),
        DONE,
        DONE,
        DONE,
        lease(&CONNECTORS),
        set_mode(CONNECTORS[0], MODES[1]),
        Step::Reconnect(CONNECTORS[1]),
        DONE,
        present(CONNECTORS[1], 1),
        set_mode(CONNECTORS[1], MODES[1]),
        Step::Reconnect(CONNECTORS[0]),
        Step::Look(true),
        end_lease(1),
        take_input(DEVICES[0]),
        DONE,
    ]
}

/// A compositor and two sessions that have the seat by turns.
fn turns() -> Vec<Step> {
    let (card, keys) = (SeatDevice::Card(CardId(0)), SeatDevice::Input(DeviceId(DEVICES[0])));
    vec![
        Step::Open(COMPOSITOR, Door::Compositor),
        register_compositor(COMPOSITOR),
        Step::Open(4, Door::Seatd),
        session(4, SessionRequest::OpenSeat),
        Step::Open(5, Door::Seatd),
        session(5, SessionRequest::OpenSeat),
        take_input(DEVICES[0]),
        DONE,
        take_input(DEVICES[1]),
        lease(&[CONNECTORS[0]]),
        DONE,
        DONE,
        lease(&[CONNECTORS[1]]),
        switch_to(2),
        DONE,
        DONE,
        opens(4, card),
        DONE,
        opens(4, keys),
        DONE,
        opens(4, keys),
        opens(4, SeatDevice::Input(DeviceId(DEVICES[1]))),
        session(4, SessionRequest::Switch(SessionId(3))),
        Step::Wait(1_000),
        DONE,
        session(4, SessionRequest::PauseDone),
        DONE,
        opens(5, keys),
        DONE,
        session(5, SessionRequest::CloseDevice(OpenNumber(1))),
        session(5, SessionRequest::Switch(SessionId(1))),
        session(5, SessionRequest::PauseDone),
        DONE,
        DONE,
        DONE,
        end_lease(1),
        unregister_compositor(COMPOSITOR),
        DONE,
        session(4, SessionRequest::CloseSeat),
        DONE,
    ]
}

/// The render node comes with the GPU, and an input device that nobody else reads; nodes come late, and stay.
fn nodes() -> Vec<Step> {
    let exclusive = Request::RequestExclusiveInput { pid: pid(COMPOSITOR), device: DeviceId(DEVICES[0]) };
    vec![
        Step::Open(COMPOSITOR, Door::Compositor),
        register_compositor(COMPOSITOR),
        Step::Open(2, Door::Public),
        register(2),
        register(3),
        gpu(2, 1, 2),
        gpu(COMPOSITOR, 1, 2),
        document(COMPOSITOR, GuiRequest::RequestGpu { pid: pid(3), limits: GpuLimits::default() }),
        create(2, 16),
        DONE,
        DONE,
        create(2, 16),
        DONE,
        Step::Open(3, Door::Public),
        Step::Ask(COMPOSITOR, Request::UnregisterApplication { pid: pid(2) }),
        register(2),
        document(COMPOSITOR, GuiRequest::RequestGpu { pid: pid(2), limits: GpuLimits::default() }),
        Step::Wait(2_000),
        DONE,
        gpu(2, 1, 2),
        Step::Hardware(0, false),
        gpu(2, 1, 2),
        DONE,
        Step::Ask(COMPOSITOR, exclusive),
        DONE,
        create(3, 16),
        DONE,
        unregister_compositor(COMPOSITOR),
    ]
}

/// Numbers that make any step likely to do something.
fn by_chance(seed: u64, count: usize) -> Vec<Step> {
    let mut random = Random::new(seed);
    let open =
        [(1, Door::Compositor), (2, Door::Public), (3, Door::Public), (4, Door::Seatd), (5, Door::Seatd)];
    let mut steps: Vec<Step> = open.map(|(client, door)| Step::Open(client, door)).to_vec();
    let seats = [4, 5].map(|client| session(client, SessionRequest::OpenSeat));
    steps.extend([register_compositor(COMPOSITOR), register(2), gpu(1, 1024, 4), gpu(2, 1024, 4)]);
    steps.extend(seats);
    while steps.len() < count {
        let step = chosen(&mut random);
        steps.push(step);
    }
    steps
}

fn chosen(random: &mut Random) -> Step {
    let client = [1, 1, 2, 2, 3][random.below(5)];
    let seated = 4 + random.below(2) as u64;
    let connector = CONNECTORS[random.below(2)];
    let device = DEVICES[random.below(2)];
    let number = 1 + random.below(6) as u64;
    let opened = [SeatDevice::Card(CardId(0)), SeatDevice::Input(DeviceId(device))][random.below(2)];
    match random.below(32) {
        0..=9 => Step::Hardware(random.below(4), !random.once_in(5)),
        10 => Step::Wait([500, 1_000, 2_000][random.below(3)]),
        11 => Step::Replug(device),
        12 => Step::Reconnect(connector),
        13 => register_compositor(COMPOSITOR),
        14 => register(client),
        15 | 16 => gpu(client, 1 + random.below(2048) as u32, 1 + random.below(4) as u32),
        17..=19 => create(client, [16, 512, 8192, 16_384][random.below(4)]),
        20 => destroy(client, number),
        21 => present(connector, number),
        22 => set_mode(connector, MODES[random.below(2)]),
        23 => take_input(device),
        24 => [lease(&[connector]), lease(&CONNECTORS), end_lease(number)][random.below(3)].clone(),
        25 => switch_to(1 + random.below(3) as u32),
        26 => session(seated, SessionRequest::OpenSeat),
        27 | 28 => opens(seated, opened),
        29 => session(seated, SessionRequest::CloseDevice(OpenNumber(number as i32))),
        30 => session(seated, SessionRequest::PauseDone),
        _ => session(seated, SessionRequest::Switch(SessionId(1 + random.below(3) as u32))),
    }
}

/// How a history is cut short for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Death(u64),
    Lanes(u64),
    Restart,
}

/// What the hardware does after that, before the history goes on.
#[derive(Clone, Copy, Debug)]
enum After {
    Nothing,
    Done,
    Refused,
    Late,
    Backwards,
}

fn parties(steps: &[Step]) -> BTreeSet<u64> {
    let mut parties = BTreeSet::new();
    for step in steps {
        match step {
            Step::Open(client, _) => drop(parties.insert(*client)),
            Step::Ask(_, Request::RegisterApplication { process, .. }) => drop(parties.insert(*process)),
            _ => {}
        }
    }
    parties
}

fn settle(world: &mut World, after: After) {
    match after {
        After::Nothing => {}
        After::Done => world.settle(true),
        After::Refused => world.settle(false),
        After::Late => {
            world.step(&Step::Wait(2_000));
            world.settle(true);
        }
        After::Backwards => {
            while let Some(last) = world.owed_count().checked_sub(1) {
                world.step(&Step::Hardware(last, true));
            }
        }
    }
}

/// Somebody new is the compositor at once, and can do what a compositor does.
fn succeed(world: &mut World) {
    world.step(&Step::Open(NEXT, Door::Compositor));
    world.step(&register_compositor(NEXT));
    assert_eq!(world.compositor(), Some(NEXT), "another may register");
    let before = world.totals();
    assert_eq!((before.applications_count, before.inputs_count), (0, 0), "nothing is inherited");
    assert_eq!((before.surfaces_count, before.charged_bytes), (0, 0), "nothing is inherited");
    world.step(&gpu(NEXT, 1, 1));
    let capability = Capability::SurfaceManagement;
    world.step(&document(NEXT, GuiRequest::HasCapability { pid: pid(NEXT), capability }));
    world.step(&create(NEXT, 16));
}

/// The history up to a step, the end of somebody, and the rest of it.
fn tell(has_node: bool, steps: &[Step], at: usize, end: End, after: After) {
    let mut world = World::new(has_node);
    steps[..at].iter().for_each(|step| world.step(step));
    let was = world.compositor();
    world.step(&match end {
        End::Death(client) => Step::Die(client),
        End::Lanes(client) => Step::CloseLanes(client),
        End::Restart => Step::Restart,
    });
    match end {
        End::Death(client) | End::Lanes(client) => {
            assert!(!world.has_anything(client), "{client} has something after its end");
            assert_eq!(
                world.compositor(),
                was.filter(|was| *was != client),
                "nobody else's end is the compositor's"
            );
        }
        End::Restart => {
            let left = Totals { clients_count: 0, ..world.totals() };
            assert_eq!(left, Totals::default(), "a bridge begins with nothing");
        }
    }
    settle(&mut world, after);
    if was.is_some() && world.compositor().is_none() {
        succeed(&mut world);
    }
    if let End::Lanes(client) = end {
        world.step(&Step::Open(client, Door::Compositor));
    }
    steps[at..].iter().for_each(|step| world.step(step));
    world.finish();
}

/// Ends everybody after every step, in every way. Returns how many histories that makes.
fn end_each_at_each(name: &str, has_node: bool, steps: &[Step]) -> usize {
    let mut count = 0;
    for at in 0..=steps.len() {
        let of_all = parties(steps).into_iter().flat_map(|client| [End::Death(client), End::Lanes(client)]);
        for end in of_all.chain([End::Restart]) {
            for after in [After::Nothing, After::Done, After::Refused, After::Late, After::Backwards] {
                let told = std::panic::catch_unwind(|| tell(has_node, steps, at, end, after));
                assert!(
                    told.is_ok(),
                    "{name}: {end:?} after {at} steps, then {after:?}: {:#?}",
                    &steps[..at]
                );
                count += 1;
            }
        }
    }
    count
}

/// A history that does nothing shows nothing: what each has reached when nobody dies.
fn reached(has_node: bool, steps: &[Step]) -> Totals {
    let mut world = World::new(has_node);
    let mut most = Totals::default();
    for step in steps {
        world.step(step);
        let now = world.totals();
        most.surfaces_count = most.surfaces_count.max(now.surfaces_count);
        most.applications_count = most.applications_count.max(now.applications_count);
        most.inputs_count = most.inputs_count.max(now.inputs_count);
        most.leases_count = most.leases_count.max(now.leases_count);
        most.sessions_count = most.sessions_count.max(now.sessions_count);
        most.opened_count = most.opened_count.max(now.opened_count);
        most.pending_count = most.pending_count.max(now.pending_count);
    }
    world.finish();
    most
}

#[test]
fn a_death_at_any_step_of_what_the_document_has_leaves_nothing() {
    let most = reached(false, &documents());
    assert_eq!((most.surfaces_count, most.applications_count, most.inputs_count), (3, 2, 1));
    assert!(end_each_at_each("documents", false, &documents()) >= 1_000);
}

#[test]
fn a_death_while_the_hardware_takes_its_time_leaves_nothing() {
    let most = reached(false, &waits());
    assert_eq!((most.pending_count, most.leases_count), (8, 1));
    end_each_at_each("waits", false, &waits());
}

#[test]
fn a_death_while_screens_and_devices_come_and_go_leaves_nothing() {
    let most = reached(false, &plugs());
    assert_eq!((most.leases_count, most.inputs_count), (1, 1));
    end_each_at_each("plugs", false, &plugs());
}

#[test]
fn a_death_while_render_nodes_are_opened_leaves_nothing() {
    let most = reached(true, &nodes());
    assert_eq!((most.applications_count, most.surfaces_count, most.inputs_count), (2, 1, 1));
    end_each_at_each("nodes", true, &nodes());
}

#[test]
fn a_death_at_any_turn_of_sessions_leaves_nothing() {
    let most = reached(false, &turns());
    assert_eq!((most.sessions_count, most.opened_count, most.leases_count), (3, 3, 2));
    end_each_at_each("turns", false, &turns());
}

#[test]
fn a_death_at_any_step_of_histories_by_chance_leaves_nothing() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("KEYWAY_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("KEYWAY_SIM_RUNS").unwrap_or(450) / 150,
    };
    let mut most = Totals::default();
    for seed in seeds {
        let steps = by_chance(seed, 45);
        let has_node = seed % 2 == 1;
        let now = reached(has_node, &steps);
        most.surfaces_count = most.surfaces_count.max(now.surfaces_count);
        most.opened_count = most.opened_count.max(now.opened_count);
        end_each_at_each(&format!("seed {seed}"), has_node, &steps);
    }
    assert!(most.surfaces_count > 0 && most.opened_count > 0, "{most:?}");
}
