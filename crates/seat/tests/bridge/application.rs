//! An application: another process, confined, that does with the bridge what it is told, and says what came of it.
//!
//! Orders and what is said are lines: a word, then the bytes of a message as numbers.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Stdio},
    time::Duration,
};

use keyway::{
    Capability, Client, Confined,
    bridge::{
        Answer, Bridge, BridgeEvent, COMPOSITOR_SERVICE, DenialReason, Event, GpuLimits, GuiRequest,
        GuiResponse, Pid, Request, SERVICE, Surface, SurfaceConfig, SurfaceId,
    },
};
use keyway_gui::protocol::{decode, encode};

const ROLE: &str = "KEYWAY_TEST_ROLE";
/// What stands before what it says, because the test harness speaks too.
const MARK: &str = "says:";

/// See the module. It is killed with this value.
pub(crate) struct Application {
    /// A capability of the session that started it.
    pub(crate) process: Capability,
    child: Child,
    orders: ChildStdin,
    lines: BufReader<ChildStdout>,
}

/// A surface as the application has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drawable {
    pub(crate) id: SurfaceId,
    pub(crate) stride: u32,
    pub(crate) len_bytes: u64,
}

impl Application {
    /// Starts one, which has a session and no line to the bridge yet.
    pub(crate) fn start(client: &Client) -> Self {
        let mut confined = Confined::new(client, env::current_exe().unwrap()).unwrap();
        confined.give_service(SERVICE).unwrap();
        Self::spawn(confined)
    }

    /// Starts one of another user, which only root can, and gives it the compositor's door, too. This program is copied to the
    /// directory for it, as that user may not be able to look where it was built.
    pub(crate) fn start_as(user: u32, client: &Client, directory: &Path) -> Self {
        let program = directory.join("application");
        fs::copy(env::current_exe().unwrap(), &program).unwrap();
        for path in [directory, &program] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut confined = Confined::new(client, program).unwrap();
        confined.give_service(SERVICE).unwrap().give_service(COMPOSITOR_SERVICE).unwrap();
        confined.command().current_dir("/").uid(user).gid(user).env_remove("KEYWAY_REFUSALS");
        Self::spawn(confined)
    }

    fn spawn(mut confined: Confined) -> Self {
        let command = confined.command();
        command.args(["--exact", "the_other_process", "--nocapture", "--test-threads=1"]);
        command.env(ROLE, "application").stdin(Stdio::piped()).stdout(Stdio::piped());
        let started = confined.spawn().unwrap();
        let mut child = started.child;
        let orders = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut application = Application { process: started.process, child, orders, lines };
        assert!(application.hear().is_empty());
        application
    }

    /// Starts one and lets it connect to the bridge.
    pub(crate) fn connected(client: &Client) -> Self {
        let mut application = Self::start(client);
        application.connect();
        application
    }

    /// Starts one that the compositor registers and that gets the GPU.
    pub(crate) fn with_gpu(client: &Client, compositor: &mut Bridge, limits: GpuLimits) -> Self {
        let mut application = Self::connected(client);
        compositor.register_application(&application.process, application.pid()).unwrap();
        let request = GuiRequest::RequestGpu { pid: application.pid(), limits };
        let answer = application.ask_document(request);
        assert!(matches!(answer, GuiResponse::Granted { .. }), "{answer:?}");
        application
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid(self.child.id())
    }

    pub(crate) fn connect(&mut self) {
        assert!(self.order("connect", &[]).is_empty());
    }

    /// Whether it can be the compositor.
    pub(crate) fn registers_as_compositor(&mut self) -> bool {
        self.order("register", &[]) == [1]
    }

    /// What the bridge answers it.
    pub(crate) fn ask(&mut self, request: &Request) -> Answer {
        let said = self.order("ask", &encode(request).unwrap());
        decode(&said).unwrap()
    }

    /// As [`Application::ask`], for the document's requests.
    pub(crate) fn ask_document(&mut self, request: GuiRequest) -> GuiResponse {
        match self.ask(&Request::Document(request)) {
            Answer::Document(response) => response,
            other => panic!("not of the document: {other:?}"),
        }
    }

    /// Why the bridge refuses it something.
    pub(crate) fn denial(&mut self, request: GuiRequest) -> DenialReason {
        match self.ask_document(request) {
            GuiResponse::Denied { reason } => reason,
            other => panic!("not denied: {other:?}"),
        }
    }

    /// Makes a surface and maps it.
    pub(crate) fn create_surface(&mut self, config: SurfaceConfig) -> Drawable {
        let request = Request::Document(GuiRequest::CreateSurface { pid: self.pid(), config });
        let said = self.order("create", &encode(&request).unwrap());
        let number = |at: usize| u64::from_le_bytes(said[at..at + 8].try_into().unwrap());
        Drawable { id: SurfaceId(number(0)), stride: number(8) as u32, len_bytes: number(16) }
    }

    /// Writes bytes on a surface of its own.
    pub(crate) fn draw(&mut self, surface: SurfaceId, offset: u64, bytes: &[u8]) {
        let order = [&surface.0.to_le_bytes(), &offset.to_le_bytes(), bytes].concat();
        assert!(self.order("draw", &order).is_empty());
    }

    /// The next thing that the bridge tells it.
    pub(crate) fn next_event(&mut self) -> Event {
        decode(&self.order("event", &[])).unwrap()
    }

    /// Kills it and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn order(&mut self, word: &str, bytes: &[u8]) -> Vec<u8> {
        writeln!(self.orders, "{word} {}", numbers(bytes)).unwrap();
        self.hear()
    }

    fn hear(&mut self) -> Vec<u8> {
        loop {
            let mut line = String::new();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "the application has ended");
            if let Some((_, said)) = line.split_once(MARK) {
                return bytes(said);
            }
        }
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn numbers(bytes: &[u8]) -> String {
    bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(" ")
}

fn bytes(numbers: &str) -> Vec<u8> {
    numbers.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

/// The application itself, if this process is one: carries orders out until there are no more.
pub(crate) fn play_if_told() {
    if env::var_os(ROLE).is_none() {
        return;
    }
    let client = Client::connect().unwrap();
    let mut bridge = None;
    let mut surfaces = BTreeMap::new();
    println!("{MARK}");
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let (word, rest) = line.split_once(' ').unwrap();
        let order = bytes(rest);
        let said = match word {
            "connect" => {
                bridge = Some(Bridge::connect(&client).unwrap());
                Vec::new()
            }
            "draw" => {
                draw(&surfaces, &order);
                Vec::new()
            }
            word => speak(bridge.as_mut().unwrap(), &mut surfaces, word, &order),
        };
        println!("{MARK}{}", numbers(&said));
    }
    std::process::exit(0);
}

fn speak(bridge: &mut Bridge, surfaces: &mut BTreeMap<u64, Surface>, word: &str, order: &[u8]) -> Vec<u8> {
    match word {
        "ask" => encode(&bridge.request(&decode::<Request>(order).unwrap()).unwrap()).unwrap(),
        "create" => {
            let Ok(Request::Document(GuiRequest::CreateSurface { config, .. })) = decode(order) else {
                panic!("an order to create something else");
            };
            let surface = bridge.create_surface(config).unwrap();
            let figures = [surface.id().0, surface.stride().into(), surface.len_bytes() as u64];
            surfaces.insert(surface.id().0, surface);
            figures.iter().flat_map(|figure| figure.to_le_bytes()).collect()
        }
        "register" => vec![bridge.register_compositor().is_ok().into()],
        "event" => match bridge.next_event(Duration::from_secs(10)).unwrap() {
            BridgeEvent::Other(event) => encode(&event).unwrap(),
            other => panic!("a surface of another: {other:?}"),
        },
        word => panic!("no such order: {word}"),
    }
}

fn draw(surfaces: &BTreeMap<u64, Surface>, order: &[u8]) {
    let number = |at: usize| u64::from_le_bytes(order[at..at + 8].try_into().unwrap());
    surfaces[&number(0)].write(number(8) as usize, &order[16..]).unwrap();
}
