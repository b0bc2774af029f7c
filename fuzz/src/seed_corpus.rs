//! Writes what the fuzzers begin with: runs of the simulator as steps, and their frames.
//!
//! `RUSTFLAGS="--cfg fuzzing" cargo run --release --bin seed-corpus -- DIRECTORY [RUNS]`

#![forbid(unsafe_code)]

use std::{collections::BTreeMap, env, error::Error, fs, path::Path};

use keyway_abi::{ProcessNumber, Request};
use keyway_fuzz::bridge::written;
use keyway_gui::protocol::{
    self, Answer, BufferKind, Capability, ConnectorId, ConnectorInfo, DenialReason, DeviceId, DeviceInfo,
    DeviceKind, Event, GpuLimits, GuiRequest, GuiResponse, LeaseId, PixelFormat, SessionId, SurfaceConfig,
    SurfaceId, SurfaceLayout, encode,
};
use keyway_kernel::{Effect, Kernel};
use keyway_sim::{
    Input, Simulation,
    bridge::{CONNECTORS, DEVICES, MODES, pid},
};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    let directory = words.first().ok_or("where to? seed-corpus DIRECTORY [RUNS]")?;
    let runs = words.get(1).map_or(Ok(8), |word| word.parse())?;
    let (frames, requests) = (Path::new(directory).join("frames"), Path::new(directory).join("requests"));
    fs::create_dir_all(&frames)?;
    fs::create_dir_all(&requests)?;
    for seed in 0..runs {
        let report = Simulation::run(seed, 250).map_err(|failure| failure.to_string())?;
        let mut writer = Writer::default();
        for entry in &report.journal.entries {
            writer.write_step(&entry.input);
            let (arrived, effects) = entry.give_to(&mut writer.kernel);
            writer.arrive(arrived, &effects);
            if let Input::Request(_, call, request, _) = &entry.input {
                let bytes = keyway_wire::encode_request(call.number, request, 0).map_err(|_| "too long")?;
                // One of each operation is enough.
                fs::write(frames.join(request.operation()), [&[0], &bytes[..]].concat())?;
            }
        }
        fs::write(requests.join(format!("seed-{seed}")), writer.steps)?;
    }
    write_bridge(Path::new(directory))
}

/// Each request, answer and event of the bridge as a message; the requests also as one history, and each after a compositor has
/// registered.
fn write_bridge(directory: &Path) -> Result<(), Box<dyn Error>> {
    let (steps, messages) = (directory.join("bridge"), directory.join("bridge-messages"));
    fs::create_dir_all(&steps)?;
    fs::create_dir_all(&messages)?;
    let (compositor, application) = (1, 2);
    let begin = [
        &[0, 0, 1, 0, 0, 1, 1, 0, 2, 0][..],
        &written(compositor, &document(GuiRequest::RegisterCompositor { pid: pid(1) })),
    ];
    let begin = begin.concat();
    let mut history = begin.clone();
    for (index, request) in requests_to_bridge().iter().enumerate() {
        fs::write(messages.join(format!("request-{index}")), [&[0], &encode(request)?[..]].concat())?;
        let by = [compositor, application].map(|client| written(client, request)).concat();
        // Both ask, and the hardware answers.
        let asked = [&by[..], &[7, 0, 0, 7, 0, 0]].concat();
        // Every other machine has a render node.
        let node = [(index % 2) as u8];
        fs::write(steps.join(format!("request-{index}")), [&node[..], &begin[1..], &asked].concat())?;
        history.extend(asked);
    }
    fs::write(steps.join("history"), history)?;
    // A session comes in, opens the seat and a card, is told to pause, and the bridge begins anew.
    let session = [
        0, 0, 3, 2, 6, 3, 0, 0, 7, 0, 0, 6, 3, 2, 0, 7, 0, 0, 0, 4, 2, 6, 4, 0, 0, 6, 3, 6, 2, 9, 232, 3, 7,
        0, 0, 11,
    ];
    fs::write(steps.join("session"), session)?;
    for (index, answer) in answers_of_bridge().iter().enumerate() {
        fs::write(messages.join(format!("answer-{index}")), [&[1], &encode(answer)?[..]].concat())?;
    }
    for (index, event) in events_of_bridge().iter().enumerate() {
        fs::write(messages.join(format!("event-{index}")), [&[2], &encode(event)?[..]].concat())?;
    }
    Ok(())
}

fn document(request: GuiRequest) -> protocol::Request {
    protocol::Request::Document(request)
}

const CONFIG: SurfaceConfig =
    SurfaceConfig { width: 16, height: 16, format: PixelFormat::XRGB8888, stride: None };

fn requests_to_bridge() -> Vec<protocol::Request> {
    let (own, connector, device) = (pid(1), ConnectorId(CONNECTORS[0]), DeviceId(DEVICES[0]));
    let documents = [
        GuiRequest::RequestGpu { pid: own, limits: GpuLimits::default() },
        GuiRequest::RequestGpu { pid: pid(2), limits: GpuLimits::default() },
        GuiRequest::RequestInputDevice { pid: own, device },
        GuiRequest::CreateSurface { pid: own, config: CONFIG },
        GuiRequest::CreateSurface { pid: pid(2), config: CONFIG },
        GuiRequest::SetDisplayMode { connector, mode: MODES[1] },
        GuiRequest::QueryDeviceType,
        GuiRequest::HasCapability { pid: own, capability: Capability::Compositor },
    ];
    let mut requests = vec![protocol::Request::RegisterApplication { pid: pid(2), process: 2 }];
    requests.extend(documents.map(document));
    requests.extend([
        protocol::Request::PresentSurface { connector, surface: SurfaceId(1), damage: vec![] },
        protocol::Request::RequestExclusiveInput { pid: own, device: DeviceId(DEVICES[1]) },
        protocol::Request::ListConnectors,
        protocol::Request::ListDevices,
        protocol::Request::Describe,
        protocol::Request::LeaseDisplay { connectors: CONNECTORS.map(ConnectorId).to_vec() },
        protocol::Request::EndLease { lease: LeaseId(1) },
        protocol::Request::SwitchSession { session: SessionId(2) },
        protocol::Request::UnregisterApplication { pid: pid(2) },
        document(GuiRequest::DestroySurface { pid: own, surface: SurfaceId(1) }),
        document(GuiRequest::UnregisterCompositor { pid: own }),
    ]);
    requests
}

fn answers_of_bridge() -> Vec<Answer> {
    let capability = Capability::GpuRendering { memory_mb: 256, max_surfaces: 16 };
    let buffer = BufferKind::Memfd;
    let connector = ConnectorInfo {
        id: ConnectorId(1),
        name: "c".into(),
        modes: MODES.to_vec(),
        current: Some(MODES[0]),
    };
    let device = DeviceInfo { id: DeviceId(1), name: "d".into(), kind: DeviceKind::Keyboard };
    vec![
        GuiResponse::Granted { capability }.into(),
        GuiResponse::Denied { reason: DenialReason::Other(3) }.into(),
        GuiResponse::Success.into(),
        GuiResponse::Error { message: "no".into() }.into(),
        GuiResponse::DeviceType { is_mobile: true }.into(),
        GuiResponse::HasCapabilityResult { has_capability: true }.into(),
        Answer::SurfaceCreated { surface: SurfaceId(1), stride: 64, bytes: 4096, buffer },
        Answer::Connectors(vec![connector]),
        Answer::Devices(vec![device]),
        Answer::DisplayLeased { lease: LeaseId(1) },
    ]
}

fn events_of_bridge() -> Vec<Event> {
    let device = DeviceInfo { id: DeviceId(1), name: "d".into(), kind: DeviceKind::Pointer };
    let layout = SurfaceLayout { stride: 64, bytes: 4096 };
    let buffer = BufferKind::Memfd;
    vec![
        Event::SurfaceCreated { surface: SurfaceId(1), owner: pid(2), config: CONFIG, layout, buffer },
        Event::Registered,
        Event::Revoked { capability: Capability::InputDevice { device: DeviceId(1), exclusive: false } },
        Event::DeviceAdded(device),
        Event::DisplayChanged { connector: ConnectorId(1), current: Some(MODES[0]) },
        Event::Resumed,
    ]
}

#[derive(Default)]
struct Writer {
    kernel: Kernel,
    /// In the order in which they came to be, as the fuzzed kernel's host counts them.
    numbers: BTreeMap<ProcessNumber, u8>,
    children: BTreeMap<ProcessNumber, bool>,
    steps: Vec<u8>,
}

impl Writer {
    fn arrive(&mut self, arrived: Option<ProcessNumber>, effects: &[Effect]) {
        let children = effects.iter().filter_map(|effect| match effect {
            Effect::CreatePair { process, .. } => Some(*process),
            _ => None,
        });
        for (process, is_child) in
            arrived.map(|it| (it, false)).into_iter().chain(children.map(|it| (it, true)))
        {
            let next = self.numbers.len() as u8;
            self.numbers.entry(process).or_insert(next);
            self.children.entry(process).or_insert(is_child);
        }
    }

    fn write_step(&mut self, input: &Input) {
        match input {
            Input::Connect(arrival) => self.steps.extend([0, (arrival.identity.uid % 3) as u8]),
            Input::Request(process, _, request, _) => {
                // Who connects says hello by itself.
                let greets =
                    matches!(request, Request::Hello(_)) && self.children.get(process) == Some(&false);
                let (Some(number), false) = (self.numbers.get(process), greets) else { return };
                let Ok(bytes) = keyway_wire::encode_request(1, request, 0) else { return };
                let body = &bytes[16..];
                let Ok(length) = u8::try_from(body.len()) else { return };
                self.steps.extend([1, *number]);
                self.steps.extend(request.opcode().to_le_bytes());
                self.steps.push(length);
                self.steps.extend(body);
            }
            Input::Answer(answer) => self.steps.extend([5, if answer.outcome.is_ok() { 0 } else { 5 }]),
            Input::End(process, _) => {
                if let Some(number) = self.numbers.get(process) {
                    self.steps.extend([6, *number]);
                }
            }
            Input::Sweep | Input::Expire => self.steps.extend([7, 1, 0]),
            _ => {}
        }
    }
}
