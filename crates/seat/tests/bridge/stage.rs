//! A broker with the bridge's process in a thread, and what its screens show.

use std::{
    fs::File,
    io::BufReader,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use keyway::{
    Client, Embedded,
    bridge::{Bridge, BridgeEvent, ConnectorId, DenialReason, Event, SharedSurface},
};
use keyway_seat::{Options, Seat, SeatError};

/// Longer than anything here takes, also on a machine that has other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// See the module.
pub(crate) struct Stage {
    /// The session of the bridge's process.
    pub(crate) owner: Client,
    seat: Option<JoinHandle<Result<(), SeatError>>>,
    is_over: Arc<AtomicBool>,
    directory: tempfile::TempDir,
    broker: Embedded,
}

impl Stage {
    pub(crate) fn begin() -> Self {
        Self::begin_with(Options::default())
    }

    /// The screenshot goes where [`Stage::picture`] finds it.
    pub(crate) fn begin_with(options: Options) -> Self {
        let broker = Embedded::start().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let owner = Client::over(broker.connect().unwrap()).unwrap();
        let options = Options { screenshot: Some(directory.path().join("screen.png")), ..options };
        let mut seat = Seat::start(&owner, options).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        let run = move || {
            while !told.load(Ordering::Relaxed) {
                seat.turn(Duration::from_millis(20))?;
            }
            Ok(())
        };
        Stage { owner, seat: Some(thread::spawn(run)), is_over, directory, broker }
    }

    /// A session of this process.
    pub(crate) fn client(&self) -> Client {
        Client::over(self.broker.connect().unwrap()).unwrap()
    }

    /// A session that speaks to the bridge, and is nothing to it.
    pub(crate) fn stranger(&self) -> Bridge {
        Bridge::connect(&self.client()).unwrap()
    }

    /// A session that is the compositor.
    pub(crate) fn compositor(&self) -> (Client, Bridge) {
        let client = self.client();
        let mut bridge = Bridge::connect(&client).unwrap();
        bridge.register_compositor().unwrap();
        (client, bridge)
    }

    /// As [`Stage::compositor`], once the bridge has learned that the one before is gone.
    pub(crate) fn next_compositor(&self) -> (Client, Bridge) {
        let client = self.client();
        let mut bridge = Bridge::connect(&client).unwrap();
        eventually("the bridge forgets the compositor", || match bridge.register_compositor() {
            Ok(()) => true,
            Err(error) => {
                assert_eq!(error.denial_reason(), Some(DenialReason::AlreadyHeld), "{error}");
                false
            }
        });
        (client, bridge)
    }

    /// What a connector shows, as it was last saved.
    pub(crate) fn picture(&self, connector: ConnectorId) -> Picture {
        let name = match connector.0 {
            1 => "screen.png".to_owned(),
            number => format!("screen-{number}.png"),
        };
        Picture::read(self.directory.path().join(name))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let outcome = self.seat.take().map(JoinHandle::join);
        if !thread::panicking() {
            outcome.unwrap().unwrap().expect("the bridge goes on until it is told");
        }
    }
}

/// A picture that the bridge has saved.
pub(crate) struct Picture {
    pub(crate) size: (u32, u32),
    rgb: Vec<u8>,
}

impl Picture {
    fn read(path: PathBuf) -> Self {
        let mut reader = png::Decoder::new(BufReader::new(File::open(path).unwrap())).read_info().unwrap();
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut rgb).unwrap();
        assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
        Picture { size: (info.width, info.height), rgb }
    }

    /// The colour at a place: red, green, blue.
    pub(crate) fn at(&self, x: u32, y: u32) -> [u8; 3] {
        let at = (y as usize * self.size.0 as usize + x as usize) * 3;
        self.rgb[at..at + 3].try_into().unwrap()
    }

    /// How many pixels are not black.
    pub(crate) fn lit_count(&self) -> usize {
        self.rgb.chunks_exact(3).filter(|pixel| **pixel != [0, 0, 0]).count()
    }
}

/// The next thing that the bridge tells, which must not be a surface.
pub(crate) fn next_event(bridge: &mut Bridge) -> Event {
    match bridge.next_event(PATIENCE).unwrap() {
        BridgeEvent::Other(event) => event,
        other => panic!("a surface instead of news: {other:?}"),
    }
}

/// The next thing that the bridge tells, which must be a surface.
pub(crate) fn next_surface(bridge: &mut Bridge) -> SharedSurface {
    match bridge.next_event(PATIENCE).unwrap() {
        BridgeEvent::SurfaceCreated(surface) => surface,
        other => panic!("something else than a surface: {other:?}"),
    }
}

/// Waits until it holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
