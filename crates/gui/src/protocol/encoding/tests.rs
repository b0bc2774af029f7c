//! Round trips, refusals and garbage; the numbers of variants are pinned here.

use alloc::{string::String, vec, vec::Vec};

use proptest::prelude::*;

use super::*;
use crate::protocol::{
    BufferKind, Capability, Chassis, ConnectorId, DenialReason, Description, DeviceId, DeviceKind,
    DisplayMode, Enforcer, GpuCapability, GpuGrant, GpuLimits, GpuUse, GrantTerms, GuiRequest, LeaseId,
    OtherDenial, Pid, PixelFormat, Presence, Reason, Rectangle, RenderNode, Revocation, Role, SurfaceConfig,
    SurfaceId, SurfaceLayout,
};

/// The crate's own, whose refusals are noted.
fn encode<M: Message>(message: &M) -> Result<Vec<u8>, Malformed> {
    super::encode(message).inspect_err(|error| keyway_provoked::note(error, "encode"))
}

/// The crate's own, whose refusals are noted.
fn decode<M: Message>(bytes: &[u8]) -> Result<M, Malformed> {
    super::decode(bytes).inspect_err(|error| keyway_provoked::note(error, "decode"))
}

fn modes() -> impl Strategy<Value = DisplayMode> {
    any::<[u32; 3]>().prop_map(|[width, height, refresh_mhz]| DisplayMode { width, height, refresh_mhz })
}

fn configs() -> impl Strategy<Value = SurfaceConfig> {
    (any::<[u32; 3]>(), any::<Option<u32>>()).prop_map(|([width, height, format], stride)| SurfaceConfig {
        width,
        height,
        format: PixelFormat(format),
        stride,
    })
}

fn capabilities() -> impl Strategy<Value = Capability> {
    prop_oneof![
        any::<[u32; 2]>()
            .prop_map(|[memory_mb, max_surfaces]| Capability::GpuRendering { memory_mb, max_surfaces }),
        (any::<u32>(), any::<bool>())
            .prop_map(|(device, exclusive)| Capability::InputDevice { device: DeviceId(device), exclusive }),
        any::<u32>().prop_map(|connector| Capability::DisplayControl { connector: ConnectorId(connector) }),
        Just(Capability::SurfaceManagement),
        Just(Capability::Compositor),
    ]
}

fn denials() -> impl Strategy<Value = DenialReason> {
    prop_oneof![
        Just(DenialReason::Unauthorized),
        Just(DenialReason::ResourceLimitExceeded),
        Just(DenialReason::DeviceNotFound),
        Just(DenialReason::InvalidConfig),
        Just(DenialReason::AlreadyHeld),
        any::<u32>().prop_map(DenialReason::Other),
    ]
}

fn document_requests() -> impl Strategy<Value = GuiRequest> {
    let pids = || any::<u32>().prop_map(Pid);
    prop_oneof![
        (pids(), any::<[u32; 2]>()).prop_map(|(pid, [memory_mb, max_surfaces])| GuiRequest::RequestGpu {
            pid,
            limits: GpuLimits { memory_mb, max_surfaces },
        }),
        (pids(), any::<u32>())
            .prop_map(|(pid, device)| GuiRequest::RequestInputDevice { pid, device: DeviceId(device) }),
        (pids(), configs()).prop_map(|(pid, config)| GuiRequest::CreateSurface { pid, config }),
        (pids(), any::<u64>())
            .prop_map(|(pid, surface)| GuiRequest::DestroySurface { pid, surface: SurfaceId(surface) }),
        (any::<u32>(), modes()).prop_map(|(connector, mode)| GuiRequest::SetDisplayMode {
            connector: ConnectorId(connector),
            mode
        }),
        Just(GuiRequest::QueryDeviceType),
        pids().prop_map(|pid| GuiRequest::RegisterCompositor { pid }),
        pids().prop_map(|pid| GuiRequest::UnregisterCompositor { pid }),
        (pids(), capabilities()).prop_map(|(pid, capability)| GuiRequest::HasCapability { pid, capability }),
    ]
}

fn rectangles() -> impl Strategy<Value = Rectangle> {
    any::<[u32; 4]>().prop_map(|[x, y, width, height]| Rectangle { x, y, width, height })
}

fn requests() -> impl Strategy<Value = Request> {
    prop_oneof![
        6 => document_requests().prop_map(Request::Document),
        1 => (any::<u32>(), any::<u64>())
            .prop_map(|(pid, process)| Request::RegisterApplication { pid: Pid(pid), process }),
        1 => any::<u32>().prop_map(|pid| Request::UnregisterApplication { pid: Pid(pid) }),
        1 => (any::<u32>(), any::<u64>(), prop::collection::vec(rectangles(), 0..=DAMAGE_MAX)).prop_map(
            |(connector, surface, damage)| Request::PresentSurface {
                connector: ConnectorId(connector),
                surface: SurfaceId(surface),
                damage,
            }
        ),
        1 => prop_oneof![Just(Request::ListConnectors), Just(Request::ListDevices), Just(Request::Describe)],
        1 => prop::collection::vec(any::<u32>().prop_map(ConnectorId), 0..=CONNECTORS_MAX)
            .prop_map(|connectors| Request::LeaseDisplay { connectors }),
        1 => any::<u64>().prop_map(|lease| Request::EndLease { lease: LeaseId(lease) }),
        1 => any::<[u32; 2]>().prop_map(|[pid, device]| Request::RequestExclusiveInput {
            pid: Pid(pid),
            device: DeviceId(device),
        }),
        1 => any::<u32>().prop_map(|session| Request::SwitchSession { session: crate::protocol::SessionId(session) }),
    ]
}

fn connectors() -> impl Strategy<Value = ConnectorInfo> {
    (any::<u32>(), "[a-zA-Z0-9-]{0,32}", prop::collection::vec(modes(), 0..9), prop::option::of(modes()))
        .prop_map(|(id, name, modes, current)| ConnectorInfo { id: ConnectorId(id), name, modes, current })
}

fn devices() -> impl Strategy<Value = DeviceInfo> {
    let kinds =
        prop::sample::select(vec![DeviceKind::Keyboard, DeviceKind::Pointer, DeviceKind::Touchscreen]);
    (any::<u32>(), ".{0,8}", kinds).prop_map(|(id, name, kind)| DeviceInfo { id: DeviceId(id), name, kind })
}

fn responses() -> impl Strategy<Value = GuiResponse> {
    prop_oneof![
        capabilities().prop_map(|capability| GuiResponse::Granted { capability }),
        denials().prop_map(|reason| GuiResponse::Denied { reason }),
        Just(GuiResponse::Success),
        ".{0,100}".prop_map(|message| GuiResponse::Error { message }),
        any::<bool>().prop_map(|is_mobile| GuiResponse::DeviceType { is_mobile }),
        any::<bool>().prop_map(|has_capability| GuiResponse::HasCapabilityResult { has_capability }),
    ]
}

fn gpu_grants() -> impl Strategy<Value = GpuGrant> {
    let terms = || {
        let enforcers = prop::sample::select(vec![Enforcer::Linux, Enforcer::Bridge, Enforcer::Nobody]);
        let revocations = prop::sample::select(vec![Revocation::WithGrant, Revocation::Irrevocable]);
        (enforcers, revocations).prop_map(|(memory, revocation)| GrantTerms { memory, revocation })
    };
    (any::<[u32; 2]>(), "[a-zA-Z0-9]{0,32}", "[a-z0-9]{0,32}", terms(), terms()).prop_map(
        |([memory_mb, max_surfaces], name, card, surfaces, node_terms)| GpuGrant {
            capability: GpuCapability { memory_mb, max_surfaces },
            surfaces,
            node: RenderNode { name, card },
            node_terms,
        },
    )
}

fn answers() -> impl Strategy<Value = Answer> {
    prop_oneof![
        gpu_grants().prop_map(Answer::GpuGranted),
        responses().prop_map(Answer::Document),
        any::<(u64, u32, u64)>().prop_map(|(surface, stride, bytes)| Answer::SurfaceCreated {
            surface: SurfaceId(surface),
            stride,
            bytes,
            buffer: BufferKind::Memfd,
        }),
        prop::collection::vec(connectors(), 0..=8).prop_map(Answer::Connectors),
        prop::collection::vec(devices(), 0..=20).prop_map(Answer::Devices),
        any::<([u32; 3], u64, bool)>().prop_map(
            |([memory_mb, max_surfaces, surfaces_count], bytes, is_mobile)| {
                Answer::Description(Description {
                    role: Role::Application,
                    gpu: Some(GpuUse {
                        capability: GpuCapability { memory_mb, max_surfaces },
                        charged_bytes: bytes,
                        surfaces_count,
                    }),
                    device_type: DeviceType {
                        is_mobile,
                        reasons: vec![Reason::Chassis(Chassis::Embedded), Reason::Battery(Presence::Present)],
                    },
                })
            }
        ),
    ]
}

fn events() -> impl Strategy<Value = Event> {
    let surface = || any::<u64>().prop_map(SurfaceId);
    prop_oneof![
        gpu_grants().prop_map(Event::GpuGranted),
        (any::<u32>(), "[a-zA-Z0-9]{0,32}")
            .prop_map(|(pid, node)| Event::Irrevocable { pid: Pid(pid), node }),
        (surface(), any::<(u32, u32, u64)>(), configs()).prop_map(
            |(surface, (pid, stride, bytes), config)| {
                Event::SurfaceCreated {
                    surface,
                    owner: Pid(pid),
                    config,
                    layout: SurfaceLayout { stride, bytes },
                    buffer: BufferKind::Memfd,
                }
            }
        ),
        surface().prop_map(|surface| Event::SurfaceDestroyed { surface }),
        Just(Event::Registered),
        Just(Event::Unregistered),
        capabilities().prop_map(|capability| Event::Granted { capability }),
        capabilities().prop_map(|capability| Event::Revoked { capability }),
        any::<u32>().prop_map(|pid| Event::ApplicationGone { pid: Pid(pid) }),
        prop_oneof![Just(Event::CompositorGone), Just(Event::Paused), Just(Event::Resumed)],
        connectors().prop_map(Event::ConnectorChanged),
        any::<u32>().prop_map(|id| Event::ConnectorRemoved { connector: ConnectorId(id) }),
        devices().prop_map(Event::DeviceAdded),
        any::<u32>().prop_map(|id| Event::DeviceRemoved { device: DeviceId(id) }),
        (any::<u32>(), prop::option::of(modes()))
            .prop_map(|(id, current)| Event::DisplayChanged { connector: ConnectorId(id), current }),
        any::<bool>().prop_map(|is_mobile| Event::DeviceTypeChanged { is_mobile }),
    ]
}

fn check_round_trip<M: Message + PartialEq + core::fmt::Debug>(message: &M) -> Result<(), TestCaseError> {
    let bytes = encode(message).expect("within bounds");
    let decoded = decode::<M>(&bytes);
    prop_assert_eq!(decoded.as_ref(), Ok(message));

    let mut longer = bytes.clone();
    longer.push(0);
    prop_assert_eq!(decode::<M>(&longer).err(), Some(Malformed::TrailingBytes { count: 1 }));
    // Each variant ends with a value that needs its last byte.
    prop_assert_eq!(decode::<M>(&bytes[..bytes.len() - 1]).err(), Some(Malformed::Truncated));
    Ok(())
}

proptest! {
    #[test]
    fn requests_return_as_they_went(request in requests()) {
        check_round_trip(&request)?;
    }

    #[test]
    fn answers_return_as_they_went(answer in answers()) {
        check_round_trip(&answer)?;
    }

    #[test]
    fn events_return_as_they_went(event in events()) {
        check_round_trip(&event)?;
    }

    #[test]
    fn garbage_is_refused_or_means_something(bytes in prop::collection::vec(any::<u8>(), 0..6000)) {
        // What decodes is within bounds, so it encodes; postcard never writes it longer than it was read.
        if let Ok(request) = decode::<Request>(&bytes) {
            prop_assert!(encode(&request).expect("within bounds").len() <= bytes.len());
        }
        if let Ok(answer) = decode::<Answer>(&bytes) {
            prop_assert!(encode(&answer).expect("within bounds").len() <= bytes.len());
        }
        if let Ok(event) = decode::<Event>(&bytes) {
            prop_assert!(encode(&event).expect("within bounds").len() <= bytes.len());
        }
    }

    #[test]
    fn a_flipped_byte_never_panics(request in requests(), position: usize, flip in 1_u8..) {
        let mut bytes = encode(&request).expect("within bounds");
        let position = position % bytes.len();
        bytes[position] ^= flip;
        let _ = decode::<Request>(&bytes);
        let _ = decode::<Answer>(&bytes);
        let _ = decode::<Event>(&bytes);
    }
}

#[test]
fn every_request_of_the_document_keeps_its_number() {
    let pid = Pid(1);
    let config = SurfaceConfig { width: 1, height: 1, format: PixelFormat::XRGB8888, stride: None };
    let mode = DisplayMode { width: 1, height: 1, refresh_mhz: 1 };
    let document = [
        GuiRequest::RequestGpu { pid, limits: GpuLimits::default() },
        GuiRequest::RequestInputDevice { pid, device: DeviceId(1) },
        GuiRequest::CreateSurface { pid, config },
        GuiRequest::DestroySurface { pid, surface: SurfaceId(1) },
        GuiRequest::SetDisplayMode { connector: ConnectorId(1), mode },
        GuiRequest::QueryDeviceType,
        GuiRequest::RegisterCompositor { pid },
        GuiRequest::UnregisterCompositor { pid },
        GuiRequest::HasCapability { pid, capability: Capability::Compositor },
    ];
    for (number, request) in document.into_iter().enumerate() {
        let bytes = encode(&Request::Document(request)).expect("within bounds");
        assert_eq!(bytes[..2], [0, number as u8]);
    }
}

#[test]
fn every_denial_keeps_its_number() {
    let denials = [
        DenialReason::Unauthorized,
        DenialReason::ResourceLimitExceeded,
        DenialReason::DeviceNotFound,
        DenialReason::InvalidConfig,
        DenialReason::AlreadyHeld,
    ];
    for (number, reason) in denials.into_iter().enumerate() {
        assert_eq!(encode(&Answer::from(reason)), Ok(vec![0, 1, number as u8]));
    }
    assert_eq!(encode(&Answer::from(DenialReason::from(OtherDenial::DeadlinePassed))), Ok(vec![0, 1, 5, 1]));
    assert_eq!(encode(&Answer::from(DenialReason::from(OtherDenial::CompositorGone))), Ok(vec![0, 1, 5, 2]));
}

#[test]
fn the_longest_lawful_messages_fit() {
    let mode = |height| DisplayMode { width: 16_384, height, refresh_mhz: 1_000_000 };
    let connector = ConnectorInfo {
        id: ConnectorId(u32::MAX),
        name: "n".repeat(NAME_BYTES_MAX),
        modes: (0..100).map(|less| mode(16_384 - less)).collect(),
        current: Some(mode(1)),
    }
    .into_bounded();
    assert_eq!(connector.modes.len(), MODES_MAX);
    assert!(encode(&Answer::Connectors(vec![connector; CONNECTORS_MAX])).is_ok());

    let name = "n".repeat(NAME_BYTES_MAX);
    let device = DeviceInfo { id: DeviceId(u32::MAX), name, kind: DeviceKind::Touchscreen };
    assert!(encode(&Answer::Devices(vec![device; DEVICES_MAX])).is_ok());

    let most = u32::MAX;
    let damage = vec![Rectangle { x: most, y: most, width: most, height: most }; DAMAGE_MAX];
    let (connector, surface) = (ConnectorId(most), SurfaceId(u64::MAX));
    assert!(encode(&Request::PresentSurface { connector, surface, damage }).is_ok());
}

#[test]
fn a_message_over_the_bound_is_refused_unread() {
    let bytes = vec![0; GUI_MESSAGE_BYTES_MAX + 1];
    let too_long = Malformed::TooLong { bytes: 4097, bytes_max: 4096 };
    assert_eq!(decode::<Request>(&bytes), Err(too_long));

    let mode = DisplayMode { width: u32::MAX, height: u32::MAX, refresh_mhz: u32::MAX };
    let connector = ConnectorInfo {
        id: ConnectorId(0),
        name: String::new(),
        modes: vec![mode; MODES_MAX],
        current: None,
    };
    let listing = Answer::Connectors(vec![connector; CONNECTORS_MAX]);
    assert!(matches!(encode(&listing), Err(Malformed::TooLong { .. })));
}

#[test]
fn texts_and_lists_over_their_bounds_are_refused_in_both_directions() {
    fn refused<M: Message + PartialEq + core::fmt::Debug>(message: &M, why: Malformed) {
        assert_eq!(encode(message), Err(why));
        let bytes = postcard::to_allocvec(message).expect("postcard has no such bound");
        assert_eq!(decode::<M>(&bytes), Err(why));
    }
    let text_too_long = |bytes, bytes_max| Malformed::TextTooLong { bytes, bytes_max };
    let list_too_long = |count, count_max| Malformed::ListTooLong { count, count_max };
    let mode = DisplayMode { width: 1, height: 1, refresh_mhz: 1 };
    let connector = |name: String, modes: Vec<DisplayMode>| ConnectorInfo {
        id: ConnectorId(1),
        name,
        modes,
        current: None,
    };
    let device = |name: String| DeviceInfo { id: DeviceId(1), name, kind: DeviceKind::Pointer };

    refused(&Answer::from(GuiResponse::Error { message: "x".repeat(513) }), text_too_long(513, 512));
    refused(&Event::DeviceAdded(device("x".repeat(33))), text_too_long(33, 32));
    refused(&Event::ConnectorChanged(connector("x".repeat(33), vec![])), text_too_long(33, 32));
    refused(&Event::ConnectorChanged(connector(String::new(), vec![mode; 49])), list_too_long(49, 48));
    refused(&Answer::Connectors(vec![connector(String::new(), vec![]); 9]), list_too_long(9, 8));
    refused(&Answer::Devices(vec![device(String::new()); 65]), list_too_long(65, 64));
    let device_type = DeviceType { is_mobile: true, reasons: vec![Reason::Decreed; 17] };
    let description = Description { role: Role::Stranger, gpu: None, device_type };
    refused(&Answer::Description(description), list_too_long(17, 16));
    let nine = vec![ConnectorId(1); 9];
    refused(&Request::LeaseDisplay { connectors: nine }, list_too_long(9, 8));
    let part = Rectangle { x: 0, y: 0, width: 1, height: 1 };
    let (connector, surface) = (ConnectorId(1), SurfaceId(1));
    let damaged = Request::PresentSurface { connector, surface, damage: vec![part; 33] };
    refused(&damaged, list_too_long(33, 32));
    let grant = |name: usize, card: usize| GpuGrant {
        capability: GpuCapability { memory_mb: 1, max_surfaces: 1 },
        surfaces: GrantTerms::SURFACES,
        node: RenderNode { name: "x".repeat(name), card: "x".repeat(card) },
        node_terms: GrantTerms::SURFACES,
    };
    refused(&Answer::GpuGranted(grant(33, 1)), text_too_long(33, 32));
    refused(&Event::GpuGranted(grant(1, 33)), text_too_long(33, 32));
    let bounded = grant(33, 40).node.into_bounded();
    assert_eq!((bounded.name.len(), bounded.card.len()), (32, 32));
    refused(&Event::Irrevocable { pid: Pid(1), node: "x".repeat(33) }, text_too_long(33, 32));
}

#[test]
fn an_unknown_variant_is_refused() {
    assert_eq!(decode::<Request>(&[11]), Err(Malformed::Unreadable));
    assert_eq!(decode::<Request>(&[0, 9]), Err(Malformed::Unreadable));
    assert_eq!(decode::<Request>(&[]), Err(Malformed::Truncated));
}

#[test]
fn a_byte_after_the_message_is_refused() {
    let bytes = encode(&Request::ListDevices).expect("within bounds");
    assert_eq!(decode(&bytes), Ok(Request::ListDevices));
    let longer = [bytes.as_slice(), &[0, 0]].concat();
    assert_eq!(decode::<Request>(&longer), Err(Malformed::TrailingBytes { count: 2 }));
}
