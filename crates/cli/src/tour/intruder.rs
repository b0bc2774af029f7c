//! A confined child that holds `rustica-gui` and no more, and tries what it must not.
//!
//! Every refusal that it reports comes from the kernel, the broker, the bridge or Linux; the tour knows which it must be.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    process::{ChildStdin, ChildStdout, Stdio},
    time::Duration,
};

use keyway::{
    Audience, Client, Confined, Error, Handle, QueueOptions, Rights,
    bridge::{
        Answer, Bridge, Capability, ConnectorId, DeviceId, DisplayMode, GpuLimits, GuiRequest, GuiResponse,
        Pid, Request, SurfaceId,
    },
};

use super::{
    Role,
    narrator::Narrator,
    report::{Attempt, Failed},
    stage::{Actor, Stage},
};

/// The variable that names a session socket of another process.
const STOLEN: &str = "KEYWAY_TOUR_STOLEN";
/// The name of the only service that it is given.
const BRIDGE: &str = "rustica-gui";
/// How long it waits for an answer of the bridge.
const PATIENCE: Duration = Duration::from_secs(5);

/// What must be refused before any compositor has registered, and how.
const BEFORE: &[(&str, &str)] = &[
    ("register as compositor, being the first to ask", "Unauthorized"),
    ("set the display mode while there is no compositor", "Unauthorized"),
    ("take the keyboard while there is no compositor", "Unauthorized"),
];

/// What must be refused at any time, and how.
const AFTER: &[(&str, &str)] = &[
    ("register as compositor beside the one that is", "Unauthorized"),
    ("set the display mode", "Unauthorized"),
    ("take the keyboard", "Unauthorized"),
    ("ask for the GPU with the compositor's pid", "Unauthorized"),
    ("end the compositor's registration with its pid", "Unauthorized"),
    ("ask what the compositor holds", "Unauthorized"),
    ("ask for the GPU without being registered", "Unauthorized"),
    ("destroy the application's surface with its own pid", "Unauthorized"),
    ("send through a capability without the right to send", "MissingRights"),
    ("derive more than it holds", "RightsExceeded"),
    ("use a handle of another process", "UnknownHandle"),
    ("use a handle that it had given up", "StaleHandle"),
    ("look up the compositor's door without a directory", "UnknownHandle"),
    ("publish a name without a directory", "UnknownHandle"),
    ("list everybody's capabilities without a directory", "UnknownHandle"),
    ("speak on another process's session", "ForeignFrame"),
    ("connect to the broker's socket", "EPERM"),
    ("open a network socket", "EPERM"),
];

/// The tour's side of the intruder.
pub(super) struct Intruder {
    actor: Actor,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// The session that the intruder will try to speak on.
    robbed: Client,
}

impl Intruder {
    /// Starts the intruder with nothing but the bridge's name, and a session socket that it stole.
    pub(super) fn start(stage: &Stage) -> Result<Self, Failed> {
        let socket = stage.broker.connect()?;
        let stolen = socket.try_clone()?;
        let robbed = Client::over(socket)?;
        let mut confined = Confined::new(&stage.client, std::env::current_exe()?)?;
        let path = stage.socket_path();
        confined.command().arg("tour-role").arg(Role::Intruder.name()).env("KEYWAY_TOUR_BROKER", path);
        confined.command().stdin(Stdio::piped()).stdout(Stdio::piped());
        confined.give_service(BRIDGE)?;
        confined.inherit(STOLEN, stolen);
        let started = confined.spawn()?;
        let mut child = started.child;
        let (orders, answers) = (child.stdin.take(), child.stdout.take());
        let (Some(orders), Some(answers)) = (orders, answers) else {
            return Err(Failed("the intruder has no pipes".into()));
        };
        let actor = Actor { role: Role::Intruder, badge: keyway::Badge(0), process: started.process, child };
        Ok(Intruder { actor, orders, answers: BufReader::new(answers), robbed })
    }

    pub(super) fn pid(&self) -> u32 {
        self.actor.pid()
    }

    /// Lets it try what is to be tried before there is a compositor.
    pub(super) fn try_before(&mut self, narrator: &mut Narrator) -> Result<(), Failed> {
        self.judge(narrator, BEFORE)
    }

    /// Lets it try the rest: against the compositor of this pid, a surface, and a handle of another process.
    pub(super) fn try_after(
        &mut self,
        narrator: &mut Narrator,
        compositor: u32,
        surface: u64,
        foreign: Handle,
    ) -> Result<(), Failed> {
        writeln!(self.orders, "{compositor} {surface} {}", foreign.raw())?;
        self.judge(narrator, AFTER)?;
        // Speaking on another's session has ended that session, and no other. Its last frame may have gone to the thief,
        // who reads from the same socket.
        match self.robbed.capabilities() {
            Err(Error::SessionEnded(_) | Error::BrokerGone) => {}
            other => return Err(Failed(format!("the robbed session is to be over, it said {other:?}"))),
        }
        Ok(())
    }

    /// Waits for its end, which must be a good one.
    pub(super) fn finish(self) -> Result<(), Failed> {
        drop(self.orders);
        self.actor.finish()
    }

    fn judge(&mut self, narrator: &mut Narrator, expected: &[(&str, &str)]) -> Result<(), Failed> {
        for (what, answer) in expected {
            let mut line = String::new();
            self.answers.read_line(&mut line)?;
            let attempt: Attempt = serde_json::from_str(&line).map_err(|error| {
                Failed(format!("the intruder said {line:?} instead of {what:?}: {error}"))
            })?;
            if attempt.what != *what {
                return Err(Failed(format!("expected the intruder to {what}, it tried to {}", attempt.what)));
            }
            if attempt.answer != *answer {
                return Err(Failed(format!(
                    "the intruder tried to {what}; it must be refused as {answer}, the answer was {}",
                    attempt.answer
                )));
            }
            narrator.refused(what, &attempt.answer);
        }
        Ok(())
    }
}

/// The intruder.
pub(super) fn intrude() -> Result<(), Failed> {
    let client = Client::connect()?;
    let mut bridge = Bridge::connect(&client)?;
    bridge.set_timeout(PATIENCE);
    let own = Pid(std::process::id());
    let answers = [
        gui(&mut bridge, GuiRequest::RegisterCompositor { pid: own }),
        gui(&mut bridge, set_mode()),
        gui(&mut bridge, GuiRequest::RequestInputDevice { pid: own, device: DeviceId(1) }),
    ];
    tell(BEFORE, &answers)?;
    let mut order = String::new();
    io::stdin().lock().read_line(&mut order)?;
    let mut numbers = order.split_whitespace().map(str::parse::<u64>);
    let mut number = || numbers.next().ok_or(Failed("too few numbers".into()));
    let compositor = Pid(number()?? as u32);
    let surface = SurfaceId(number()??);
    let foreign = Handle::from_raw(number()??);
    let mut answers = Vec::from(at_the_bridge(&mut bridge, own, compositor, surface));
    answers.extend(at_the_kernel(&client, foreign)?);
    answers.extend(at_linux()?);
    tell(AFTER, &answers)
}

fn at_the_bridge(bridge: &mut Bridge, own: Pid, compositor: Pid, surface: SurfaceId) -> [String; 8] {
    let limits = GpuLimits::default();
    let capability = Capability::Compositor;
    [
        gui(bridge, GuiRequest::RegisterCompositor { pid: own }),
        gui(bridge, set_mode()),
        gui(bridge, GuiRequest::RequestInputDevice { pid: own, device: DeviceId(1) }),
        gui(bridge, GuiRequest::RequestGpu { pid: compositor, limits }),
        gui(bridge, GuiRequest::UnregisterCompositor { pid: compositor }),
        gui(bridge, GuiRequest::HasCapability { pid: compositor, capability }),
        gui(bridge, GuiRequest::RequestGpu { pid: own, limits }),
        gui(bridge, GuiRequest::DestroySurface { pid: own, surface }),
    ]
}

fn at_the_kernel(client: &Client, foreign: Handle) -> Result<Vec<String>, Failed> {
    // Its own queue, because it was given nothing from which to derive.
    let queue = client.create_queue(QueueOptions::default())?;
    let mute = queue.capability().derive(Rights::DERIVE, None)?;
    let given_up = queue.capability().derive(Rights::SEND, None)?;
    let stale = given_up.handle();
    given_up.delete()?;
    // Its slot is filled again, by a capability that may send: only the generation tells the two apart.
    let again = queue.capability().derive(Rights::SEND, None)?;
    if again.handle().slot() != stale.slot() {
        return Err(Failed("the slot was not used again".into()));
    }
    let name = "rustica-gui/compositor";
    let own = client.process_number();
    Ok(vec![
        refusal(client.open_sender(&mute)),
        refusal(mute.derive(Rights::SEND, None)),
        refusal(client.open_sender(&client.adopt(foreign))),
        refusal(client.open_sender(&client.adopt(stale))),
        refusal(client.lookup(name)),
        refusal(client.publish("intruders", queue.capability(), Rights::SEND, Audience::Everyone)),
        refusal(client.capabilities_of(own)),
        refusal(Client::over(Client::inherited_descriptor(STOLEN)?)),
    ])
}

fn at_linux() -> Result<[String; 2], Failed> {
    let path = std::env::var_os("KEYWAY_TOUR_BROKER").ok_or(Failed("where is the broker?".into()))?;
    Ok([system(UnixStream::connect(path)), system(std::net::TcpListener::bind("127.0.0.1:0"))])
}

fn set_mode() -> GuiRequest {
    let mode = DisplayMode { width: 640, height: 480, refresh_mhz: 60_000 };
    GuiRequest::SetDisplayMode { connector: ConnectorId(1), mode }
}

/// What the bridge says to a request of the document.
fn gui(bridge: &mut Bridge, request: GuiRequest) -> String {
    match bridge.request(&Request::Document(request)) {
        Ok(Answer::Document(GuiResponse::Denied { reason })) => format!("{reason:?}"),
        other => format!("{other:?}"),
    }
}

/// The name of what the kernel or the broker says.
fn refusal<T: std::fmt::Debug>(answer: Result<T, Error>) -> String {
    let text = match answer {
        Err(Error::Denied { denial, .. }) => format!("{denial:?}"),
        Err(Error::SessionEnded(keyway::abi::Farewell::Fault(fault))) => format!("{fault:?}"),
        other => return format!("{other:?}"),
    };
    text.split([' ', '{']).next().unwrap_or_default().to_owned()
}

fn system<T: std::fmt::Debug>(answer: io::Result<T>) -> String {
    match answer {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => "EPERM".into(),
        other => format!("{other:?}"),
    }
}

fn tell(tried: &[(&str, &str)], answers: &[String]) -> Result<(), Failed> {
    for ((what, _), answer) in tried.iter().zip(answers) {
        let attempt = Attempt { what: (*what).to_owned(), answer: answer.clone() };
        println!("{}", serde_json::to_string(&attempt)?);
    }
    Ok(())
}
