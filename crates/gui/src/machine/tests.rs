//! What must happen and what must be refused, one rule at a time; the machine is audited after each step.

use std::{
    collections::BTreeMap as Map,
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};

use keyway_provoked::Figures;

use super::*;
use crate::{
    limits,
    protocol::{
        BufferKind, Capability, ConnectorInfo, DeviceKind, DisplayMode, Event, GpuLimits, LeaseId,
        OtherDenial, Pid, PixelFormat, Rectangle, Role, SurfaceConfig, SurfaceId,
    },
};

mod borders;
mod gpu;
mod hardware;
mod lifetime;
mod refusals;
mod sessions;

const COMPOSITOR: u64 = 1;
const APPLICATION: u64 = 2;
const STRANGER: u64 = 3;

const MODE: DisplayMode = DisplayMode { width: 1920, height: 1080, refresh_mhz: 60_000 };
const OTHER_MODE: DisplayMode = DisplayMode { width: 1280, height: 720, refresh_mhz: 60_000 };
const CONNECTOR: ConnectorId = ConnectorId(10);
const DEVICE: DeviceId = DeviceId(20);
const CARD: CardId = CardId(0);
/// One page of buffer.
const SMALL: SurfaceConfig =
    SurfaceConfig { width: 16, height: 16, format: PixelFormat::XRGB8888, stride: None };
/// One megabyte of buffer.
const MEGABYTE: SurfaceConfig =
    SurfaceConfig { width: 512, height: 512, format: PixelFormat::XRGB8888, stride: None };

/// A bridge whose clients have the pid 100 + number, which is audited after each step.
struct World {
    bridge: Bridge,
    now_ns: u64,
    /// What each client has asked last.
    asked: Map<u64, String>,
}

impl World {
    fn new() -> Self {
        World::with_facts(None)
    }

    fn with_facts(render_node: Option<RenderNode>) -> Self {
        let connector = ConnectorInfo {
            id: CONNECTOR,
            name: "HDMI-A-1".to_string(),
            modes: vec![MODE, OTHER_MODE],
            current: Some(MODE),
        };
        let device = DeviceInfo { id: DEVICE, name: "keys".to_string(), kind: DeviceKind::Keyboard };
        let facts = Facts {
            connectors: vec![connector],
            cards: vec![CARD],
            devices: vec![device],
            render_node,
            device_type: DeviceType { is_mobile: true, reasons: vec![] },
        };
        World { bridge: Bridge::new(facts).unwrap(), now_ns: 0, asked: Map::new() }
    }

    /// A compositor, an application that it registered, and a stranger. Nobody holds GPU.
    fn with_compositor() -> Self {
        World::new().peopled()
    }

    fn peopled(self) -> Self {
        let mut world = self;
        world.open(COMPOSITOR, Door::Compositor);
        world.open(APPLICATION, Door::Public);
        world.open(STRANGER, Door::Public);
        assert_eq!(world.document(COMPOSITOR, register_compositor(COMPOSITOR)), success());
        assert_eq!(world.answer(COMPOSITOR, register(APPLICATION)), success());
        world
    }

    /// The same, and all three hold GPU who can.
    fn with_gpu() -> Self {
        let mut world = World::with_compositor();
        world.document(COMPOSITOR, request_gpu(COMPOSITOR, GpuLimits::default()));
        world.document(APPLICATION, request_gpu(APPLICATION, GpuLimits::default()));
        world
    }

    fn open(&mut self, client: u64, door: Door) -> Vec<Effect> {
        self.open_as(client, identity(client), door).unwrap()
    }

    fn open_as(&mut self, client: u64, identity: Identity, door: Door) -> Result<Vec<Effect>, LaneRefused> {
        let effects = self.bridge.on_lane_opened(ClientId(client), identity, door).map(Iterator::collect);
        let effects = effects.inspect_err(|refused| keyway_provoked::note(refused, ""));
        self.bridge.audit();
        effects
    }

    fn gone(&mut self, client: u64) -> Vec<Effect> {
        let effects = self.bridge.on_client_gone(ClientId(client)).collect();
        self.bridge.audit();
        self.noted(effects)
    }

    fn ask(&mut self, client: u64, request: Request) -> Vec<Effect> {
        self.asked.insert(client, operation(&request));
        let effects =
            self.bridge.handle(self.now_ns, ClientId(client), RequestNumber(client), request).collect();
        self.bridge.audit();
        self.noted(effects)
    }

    fn backend(&mut self, ticket: Ticket, result: Result<(), &str>) -> Vec<Effect> {
        let result = result.map_err(|message| BackendFailure::Refused { message: message.to_string() });
        let effects = self.bridge.on_backend(ticket, result).collect();
        self.bridge.audit();
        self.noted(effects)
    }

    fn expire(&mut self) -> Vec<Effect> {
        self.now_ns += limits::PENDING_TIMEOUT_NS;
        let effects = self.bridge.poll_expired(self.now_ns).map(Iterator::collect).unwrap_or_default();
        self.bridge.audit();
        self.noted(effects)
    }

    /// Notes the denials among the effects.
    fn noted(&self, effects: Vec<Effect>) -> Vec<Effect> {
        for effect in &effects {
            let Effect::Answer { client, answer: Answer::Document(GuiResponse::Denied { reason }), .. } =
                effect
            else {
                continue;
            };
            let asked = self.asked.get(&client.0).map_or("", String::as_str);
            keyway_provoked::note(reason, asked);
            for other in [
                OtherDenial::DeadlinePassed,
                OtherDenial::CompositorGone,
                OtherDenial::Paused,
                OtherDenial::NotOpened,
                OtherDenial::NotPausing,
                OtherDenial::PauseOwed,
            ] {
                if *reason == DenialReason::from(other) {
                    let number = Some(other as u32);
                    keyway_provoked::note_figures(&other, asked, Figures { number, errno: None });
                }
            }
        }
        effects
    }

    /// The answer to a request that needs no hardware.
    fn answer(&mut self, client: u64, request: Request) -> Answer {
        let effects = self.ask(client, request);
        answer_among(&effects, client).unwrap()
    }

    fn document(&mut self, client: u64, request: GuiRequest) -> Answer {
        self.answer(client, Request::Document(request))
    }

    /// The ticket of a request that needs hardware.
    fn ticket(&mut self, client: u64, request: Request) -> Ticket {
        let effects = self.ask(client, request);
        assert_eq!(effects.len(), 1, "{effects:?}");
        ticket_of(&effects[0]).unwrap()
    }

    /// The answer to a request for which the hardware does what it is asked.
    fn carried_out(&mut self, client: u64, request: Request) -> Answer {
        let ticket = self.ticket(client, request);
        let effects = self.backend(ticket, Ok(()));
        answer_among(&effects, client).unwrap()
    }

    fn surface(&mut self, client: u64, config: SurfaceConfig) -> SurfaceId {
        match self.carried_out(client, create(client, config)) {
            Answer::SurfaceCreated { surface, .. } => surface,
            other => panic!("{other:?}"),
        }
    }

    fn holds(&mut self, client: u64, capability: Capability) -> bool {
        let question = GuiRequest::HasCapability { pid: pid(client), capability };
        match self.document(client, question) {
            Answer::Document(GuiResponse::HasCapabilityResult { has_capability }) => has_capability,
            other => panic!("{other:?}"),
        }
    }
}

/// The name of what is asked.
fn operation(request: &Request) -> String {
    let text = match request {
        Request::Document(document) => format!("{document:?}"),
        other => format!("{other:?}"),
    };
    text.split([' ', '(']).next().unwrap_or_default().to_string()
}

fn pid(client: u64) -> Pid {
    Pid(100 + client as u32)
}

fn identity(client: u64) -> Identity {
    Identity { pid: pid(client), uid: 1000 }
}

fn success() -> Answer {
    Answer::Document(GuiResponse::Success)
}

fn denied(reason: DenialReason) -> Answer {
    Answer::Document(GuiResponse::Denied { reason })
}

fn granted_gpu(memory_mb: u32, max_surfaces: u32) -> Answer {
    let capability = Capability::GpuRendering { memory_mb, max_surfaces };
    Answer::Document(GuiResponse::Granted { capability })
}

fn answer_of(client: u64, answer: Answer) -> Effect {
    Effect::Answer { client: ClientId(client), request: RequestNumber(client), answer }
}

fn notify(client: u64, event: Event) -> Effect {
    Effect::Notify { client: ClientId(client), event }
}

fn answer_among(effects: &[Effect], asked: u64) -> Option<Answer> {
    effects.iter().find_map(|effect| match effect {
        Effect::Answer { client, request, answer } => {
            assert_eq!((*client, *request), (ClientId(asked), RequestNumber(asked)));
            Some(answer.clone())
        }
        _ => None,
    })
}

fn ticket_of(effect: &Effect) -> Option<Ticket> {
    match effect {
        Effect::SetMode { ticket, .. }
        | Effect::AllocateSurface { ticket, .. }
        | Effect::GrantInput { ticket, .. }
        | Effect::Present { ticket, .. }
        | Effect::LeaseDisplay { ticket, .. }
        | Effect::OpenNode { ticket, .. }
        | Effect::OpenCard { ticket, .. }
        | Effect::HandOver { ticket, .. } => Some(*ticket),
        _ => None,
    }
}

fn register_compositor(client: u64) -> GuiRequest {
    GuiRequest::RegisterCompositor { pid: pid(client) }
}

fn unregister_compositor(client: u64) -> GuiRequest {
    GuiRequest::UnregisterCompositor { pid: pid(client) }
}

fn register(client: u64) -> Request {
    Request::RegisterApplication { pid: pid(client), process: client }
}

fn unregister(client: u64) -> Request {
    Request::UnregisterApplication { pid: pid(client) }
}

fn request_gpu(client: u64, limits: GpuLimits) -> GuiRequest {
    GuiRequest::RequestGpu { pid: pid(client), limits }
}

fn gpu(memory_mb: u32, max_surfaces: u32) -> GpuLimits {
    GpuLimits { memory_mb, max_surfaces }
}

fn create(client: u64, config: SurfaceConfig) -> Request {
    Request::Document(GuiRequest::CreateSurface { pid: pid(client), config })
}

fn destroy(client: u64, surface: SurfaceId) -> GuiRequest {
    GuiRequest::DestroySurface { pid: pid(client), surface }
}

fn request_input(client: u64, device: DeviceId) -> Request {
    Request::Document(GuiRequest::RequestInputDevice { pid: pid(client), device })
}

fn set_mode(connector: ConnectorId, mode: DisplayMode) -> Request {
    Request::Document(GuiRequest::SetDisplayMode { connector, mode })
}

fn present(connector: ConnectorId, surface: SurfaceId) -> Request {
    Request::PresentSurface { connector, surface, damage: vec![] }
}

fn request_exclusive(client: u64, device: DeviceId) -> Request {
    Request::RequestExclusiveInput { pid: pid(client), device }
}

fn input(device: DeviceId) -> Capability {
    Capability::InputDevice { device, exclusive: false }
}

fn exclusive_input(device: DeviceId) -> Capability {
    Capability::InputDevice { device, exclusive: true }
}
