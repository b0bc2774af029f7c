//! Surfaces: who writes them, who sees them, and how they look on the screen.

use keyway::{
    Capability, Client, Denial, Kind, Outgoing, Rights,
    bridge::{
        Answer, Bridge, BridgeError, BufferKind, ConnectorId, DAMAGE_MAX, DenialReason, GpuLimits,
        GuiRequest, Pid, PixelFormat, Rectangle, Request, SERVICE, Surface, SurfaceConfig, SurfaceId,
    },
};

use keyway_gui::protocol::encode;

use crate::{
    application::Application,
    stage::{PATIENCE, Stage, next_surface},
};

const FIRST: ConnectorId = ConnectorId(1);

pub(crate) fn config(width: u32, height: u32, format: PixelFormat) -> SurfaceConfig {
    SurfaceConfig { width, height, format, stride: None }
}

/// Asks for a surface, and never maps it.
fn create_unmapped(bridge: &mut Bridge, client: &Client, config: SurfaceConfig) -> SurfaceId {
    let pid = Pid(client.pid());
    match bridge.request(&Request::Document(GuiRequest::CreateSurface { pid, config })).unwrap() {
        Answer::SurfaceCreated { surface, .. } => surface,
        other => panic!("no surface: {other:?}"),
    }
}

/// The region that a session holds a capability to, with its rights. It is deleted with the value.
fn only_region(client: &Client) -> (Capability, Rights) {
    let entries = client.capabilities().unwrap();
    let regions: Vec<_> = entries.iter().filter(|entry| entry.kind == Kind::Region).collect();
    assert_eq!(regions.len(), 1, "{regions:?}");
    (client.adopt(regions[0].handle), regions[0].rights)
}

#[test]
fn the_compositor_sees_what_an_application_draws_and_shows_it_pixel_by_pixel() {
    let stage = Stage::begin();
    let (client, mut bridge) = stage.compositor();
    let mut application = Application::with_gpu(&client, &mut bridge, GpuLimits::default());
    let config = config(3, 2, PixelFormat::XRGB8888);
    let drawable = application.create_surface(config);
    assert_eq!((drawable.stride, drawable.len_bytes), (64, 4096));

    let shared = next_surface(&mut bridge);
    assert_eq!((shared.surface, shared.owner, shared.config), (drawable.id, application.pid(), config));
    assert_eq!((shared.layout.stride, shared.layout.bytes), (64, 4096));
    assert_eq!(shared.kind, BufferKind::Memfd);
    let pixels = shared.map(PATIENCE).unwrap();
    let rows = [[1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0], [10, 20, 30, 0, 40, 50, 60, 0, 70, 80, 90, 0]];
    application.draw(drawable.id, 0, &rows[0]);
    application.draw(drawable.id, 64, &rows[1]);
    let mut seen = [0; 12];
    for (index, row) in rows.iter().enumerate() {
        pixels.read(index * 64, &mut seen).unwrap();
        assert_eq!(seen, *row);
    }

    bridge.present_surface(FIRST, shared.surface, &[]).unwrap();
    let picture = stage.picture(FIRST);
    let expected = [[[3, 2, 1], [6, 5, 4], [9, 8, 7]], [[30, 20, 10], [60, 50, 40], [90, 80, 70]]];
    for (y, row) in (0..).zip(expected) {
        for (x, pixel) in (0..).zip(row) {
            assert_eq!(picture.at(x, y), pixel, "at {x}, {y}");
        }
    }
    assert_eq!(picture.lit_count(), 6);
    assert_eq!(stage.picture(ConnectorId(2)).lit_count(), 0);

    application.draw(drawable.id, 0, &[0, 0, 255, 0]);
    assert_eq!(stage.picture(FIRST).at(0, 0), [3, 2, 1]);
    bridge.present_surface(FIRST, shared.surface, &[]).unwrap();
    assert_eq!(stage.picture(FIRST).at(0, 0), [255, 0, 0]);
    bridge.present_surface(ConnectorId(2), shared.surface, &[]).unwrap();
    assert_eq!(stage.picture(ConnectorId(2)).at(2, 1), [90, 80, 70]);
}

#[test]
fn of_a_surface_that_is_shown_again_only_what_is_named_is_drawn() {
    let stage = Stage::begin();
    let (_client, mut bridge) = stage.compositor();
    bridge.request_gpu(GpuLimits::default()).unwrap();
    let surface = bridge.create_surface(config(4, 2, PixelFormat::XRGB8888)).unwrap();
    assert_eq!(surface.kind().to_string(), "memfd, read-only to others");
    let fill = |surface: &Surface, shade: u8| {
        for y in 0..2 {
            surface.write((y * surface.stride()) as usize, &[shade, shade, shade, 0].repeat(4)).unwrap();
        }
    };
    let part = |x, y, width, height| Rectangle { x, y, width, height };
    // Parts of what is not shown yet are all of it.
    fill(&surface, 10);
    bridge.present_surface(FIRST, surface.id(), &[part(0, 0, 1, 1)]).unwrap();
    assert_eq!(stage.picture(FIRST).lit_count(), 8);

    fill(&surface, 20);
    bridge.present_surface(FIRST, surface.id(), &[part(1, 0, 1, 2), part(3, 1, 1, 1)]).unwrap();
    let picture = stage.picture(FIRST);
    let shades = |y| [0, 1, 2, 3].map(|x| picture.at(x, y)[0]);
    assert_eq!((shades(0), shades(1)), ([10, 20, 10, 10], [10, 20, 10, 20]));

    // Another surface in between, and the first again.
    let other = bridge.create_surface(config(4, 2, PixelFormat::XRGB8888)).unwrap();
    fill(&other, 30);
    for (shown, shade) in [(&other, 30), (&surface, 20)] {
        bridge.present_surface(FIRST, shown.id(), &[part(0, 0, 1, 1)]).unwrap();
        assert_eq!(stage.picture(FIRST).at(3, 0), [shade; 3]);
    }

    for beyond in [part(4, 0, 1, 1), part(0, 1, 1, 2), part(0, 0, 0, 1), part(u32::MAX, 0, 2, 1)] {
        let refused = bridge.present_surface(FIRST, surface.id(), &[part(0, 0, 1, 1), beyond]).unwrap_err();
        assert_eq!(refused.denial_reason(), Some(DenialReason::InvalidConfig), "{beyond:?}");
    }
    let too_many = bridge.present_surface(FIRST, surface.id(), &[part(0, 0, 1, 1); DAMAGE_MAX + 1]);
    assert!(matches!(too_many, Err(BridgeError::Malformed(_))), "{too_many:?}");
}

#[test]
fn each_format_is_shown_in_its_colours() {
    let stage = Stage::begin();
    let (_client, mut bridge) = stage.compositor();
    bridge.request_gpu(GpuLimits::default()).unwrap();
    // Five bits of red, and the last of blue.
    let narrow = 0xf801_u16.to_le_bytes();
    let formats: [(PixelFormat, &[u8], [u8; 3]); 6] = [
        (PixelFormat::XRGB8888, &[1, 2, 3, 9], [3, 2, 1]),
        (PixelFormat::ARGB8888, &[1, 2, 3, 9], [3, 2, 1]),
        (PixelFormat::XBGR8888, &[1, 2, 3, 9], [1, 2, 3]),
        (PixelFormat::ABGR8888, &[1, 2, 3, 9], [1, 2, 3]),
        (PixelFormat::RGB565, &narrow, [255, 0, 8]),
        (PixelFormat::RGB565, &[0xe0, 0x07], [0, 255, 0]),
    ];
    for (format, pixel, expected) in formats {
        let surface = bridge.create_surface(config(2, 1, format)).unwrap();
        surface.write(pixel.len(), pixel).unwrap();
        bridge.present_surface(FIRST, surface.id(), &[]).unwrap();
        let picture = stage.picture(FIRST);
        assert_eq!((picture.at(0, 0), picture.at(1, 0)), ([0; 3], expected), "{format:?}");
    }
}

#[test]
fn a_stride_of_ones_own_is_kept_and_what_does_not_fit_is_cut_off() {
    let stage = Stage::begin();
    let (_client, mut bridge) = stage.compositor();
    bridge.request_gpu(GpuLimits::default()).unwrap();
    let connectors = bridge.connectors().unwrap();
    let small = connectors[0].modes.iter().min_by_key(|mode| mode.width).unwrap();
    bridge.set_display_mode(FIRST, *small).unwrap();
    let (width, height) = (small.width + 10, small.height + 10);
    let stride = width * 4 + 4;
    let wide = SurfaceConfig { stride: Some(stride), ..config(width, height, PixelFormat::XRGB8888) };
    let surface = bridge.create_surface(wide).unwrap();
    assert_eq!(surface.stride(), stride);
    let at = |x: u32, y: u32| (y * stride + x * 4) as usize;
    let corner = (small.width - 1, small.height - 1);
    for (x, y) in [corner, (small.width, 0), (0, small.height), (0, 1)] {
        surface.write(at(x, y), &[0, 0, 255, 0]).unwrap();
    }
    bridge.present_surface(FIRST, surface.id(), &[]).unwrap();
    let picture = stage.picture(FIRST);
    assert_eq!(picture.size, (small.width, small.height));
    assert_eq!(picture.at(corner.0, corner.1), [255, 0, 0]);
    assert_eq!(picture.at(0, 1), [255, 0, 0]);
    assert_eq!(picture.lit_count(), 2);
}

#[test]
fn a_surface_that_nobody_has_mapped_cannot_be_shown() {
    let stage = Stage::begin();
    let (client, mut bridge) = stage.compositor();
    bridge.request_gpu(GpuLimits::default()).unwrap();
    let surface = create_unmapped(&mut bridge, &client, config(4, 4, PixelFormat::XRGB8888));
    match bridge.present_surface(FIRST, surface, &[]) {
        Err(BridgeError::Failed(message)) => assert!(!message.is_empty()),
        other => panic!("shown, though there is nothing to show: {other:?}"),
    }
    // The next one is shown.
    let surface = bridge.create_surface(config(4, 4, PixelFormat::XRGB8888)).unwrap();
    bridge.present_surface(FIRST, surface.id(), &[]).unwrap();
}

#[test]
fn only_its_owner_can_write_a_surface_and_nobody_can_pass_it_on() {
    let stage = Stage::begin();
    let (client, mut bridge) = stage.compositor();
    let mut application = Application::with_gpu(&client, &mut bridge, GpuLimits::default());
    // Not mapped by its owner, so that the place of the writer is free.
    let request =
        GuiRequest::CreateSurface { pid: application.pid(), config: config(4, 4, PixelFormat::RGB565) };
    assert!(matches!(application.ask(&Request::Document(request)), Answer::SurfaceCreated { .. }));
    let _shared = next_surface(&mut bridge);
    let (region, rights) = only_region(&client);
    assert_eq!(rights, Rights::MAP);
    let refused = client.map_writer(&region).unwrap_err();
    assert!(matches!(refused.denial(), Some(Denial::MissingRights { .. })), "{refused}");
    let unwritten = client.map_reader(&region).unwrap_err();
    assert!(matches!(unwritten.denial(), Some(Denial::RegionUnwritten)), "{unwritten}");
    let refused = region.derive(Rights::MAP, None).unwrap_err();
    assert!(matches!(refused.denial(), Some(Denial::MissingRights { .. })), "{refused}");
    // It is given up once, by the shared surface.
    region.into_handle();

    drop((bridge, client));
    let (client, mut bridge) = stage.next_compositor();
    bridge.request_gpu(GpuLimits::default()).unwrap();
    let mut caller = client.open_caller(&client.lookup(SERVICE).unwrap()).unwrap();
    let (pid, config) = (Pid(client.pid()), config(4, 4, PixelFormat::RGB565));
    let request = encode(&Request::Document(GuiRequest::CreateSurface { pid, config })).unwrap();
    let mut answer = caller.call(&Outgoing::bytes(&request), PATIENCE).unwrap();
    let buffer = answer.capabilities.pop().unwrap().unwrap();
    assert_eq!(buffer.rights(), Rights::WRITE | Rights::MAP);
    let _writer = client.map_writer(&buffer).unwrap();
    // The place is taken.
    assert!(client.map_writer(&buffer).unwrap_err().denial().is_some());
}
