//! D-Bus: the reference daemon, with the crate zbus at both ends.
//!
//! A bus of the run's own, whose limits are out of the way. A message is a method call that wants no reply, so that a round
//! trip is two messages as a call and its reply are; to several receivers it is a signal, which the bus multiplies. Bodies
//! are byte arrays that are written and read as one piece (`serde_bytes`). A batch is zbus's `send_all`. Who answers and who
//! asks is each a process, the bus is a third one, on whichever CPU is free.

use std::{
    any::Any,
    fs,
    future::poll_fn,
    num::NonZeroUsize,
    ops::Range,
    path::{Path, PathBuf},
    pin::Pin,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_bytes::Bytes;
use zbus::{
    Connection, MatchRule, Message, MessageStream, block_on,
    connection::Builder,
    export::futures_core::Stream,
    message::{Flags, Type},
};

use crate::{
    Result,
    payload::Content,
    place::Place,
    scenario::{Kind, Scenario, Waiting},
    side::{Port, Role, Side},
    systems::{Rank, System},
};

pub(crate) struct Dbus;

impl System for Dbus {
    fn name(&self) -> &'static str {
        "dbus"
    }

    fn rank(&self) -> Rank {
        Rank::Peer
    }

    fn offers(&self, scenario: Scenario) -> bool {
        match scenario.kind {
            Kind::RoundTrip(waiting) => waiting != Waiting::Spinning,
            Kind::OneWay | Kind::Bulk(_) | Kind::FanIn(_) | Kind::FanOut(_) => true,
            _ => false,
        }
    }

    fn missing(&self) -> Option<String> {
        let found = Command::new(DAEMON).arg("--version").stdout(Stdio::null()).status();
        found.err().map(|error| format!("{DAEMON} cannot be started ({error})"))
    }

    fn prepare(&self, _: Scenario, place: &Place) -> Result<Box<dyn Any>> {
        Ok(Box::new(Bus::start(place)?))
    }

    fn take_side(&self, side: &Side) -> Result<()> {
        let connection = block_on(connect(side))?;
        let is_signal = matches!(side.scenario().kind, Kind::FanOut(_));
        let stream = if is_signal && side.role() == Role::Answerer {
            let rule = MatchRule::builder().msg_type(Type::Signal).interface(INTERFACE).build()?;
            block_on(MessageStream::for_match_rule(rule, &connection, Some(QUEUED_MAX)))?
        } else {
            MessageStream::from(&connection)
        };
        let destination = match side.role() {
            _ if is_signal => None,
            Role::Asker => Some(name(Role::Answerer, 0)),
            Role::Answerer => Some(name(Role::Asker, 0)),
        };
        let content = side.content();
        side.talk(Ends { content, connection, stream, destination, buffer: vec![0; content.bytes] })
    }
}

const DAEMON: &str = "dbus-daemon";
const INTERFACE: &str = "keyway.Bench";
const MEMBER: &str = "Take";
const PATH: &str = "/keyway/bench";
/// Messages that zbus keeps for whoever receives.
const QUEUED_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

fn name(role: Role, index: usize) -> String {
    match role {
        Role::Asker => "keyway.bench.Asker".to_owned(),
        Role::Answerer => format!("keyway.bench.Answerer{index}"),
    }
}

fn socket(place: &Place) -> PathBuf {
    place.directory().join("bus.sock")
}

async fn connect(side: &Side) -> Result<Connection> {
    let address = format!("unix:path={}", socket(side.place()).display());
    let connection = Builder::address(address.as_str()).max_queued(QUEUED_MAX).build().await?;
    connection.request_name(name(side.role(), side.index())).await?;
    Ok(connection)
}

/// The daemon, ended when it is dropped.
struct Bus {
    daemon: Child,
    socket: PathBuf,
}

impl Bus {
    fn start(place: &Place) -> Result<Self> {
        let (socket, config) = (socket(place), place.directory().join("bus.conf"));
        fs::write(&config, configuration(&socket))?;
        let daemon = Command::new(DAEMON)
            .arg(format!("--config-file={}", config.display()))
            .arg("--nofork")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // It complains of limits that it may not raise.
            .stderr(Stdio::null())
            .spawn()?;
        let mut bus = Self { daemon, socket };
        let deadline = Instant::now() + START_MAX;
        while !bus.socket.exists() {
            if bus.daemon.try_wait()?.is_some() || Instant::now() >= deadline {
                return Err(format!("{DAEMON} does not listen").into());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(bus)
    }
}

const START_MAX: Duration = Duration::from_secs(5);

impl Drop for Bus {
    fn drop(&mut self) {
        // Both fail only where it has been reaped.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let _ = fs::remove_file(&self.socket);
    }
}

/// Everybody may do everything, and no limit is met.
fn configuration(socket: &Path) -> String {
    let limits = ["max_incoming_bytes", "max_outgoing_bytes", "max_message_size"]
        .map(|limit| format!("<limit name=\"{limit}\">1000000000</limit>"));
    format!(
        "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
         \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n<busconfig>\
         <listen>unix:path={}</listen><auth>EXTERNAL</auth>\
         <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>\
         <allow eavesdrop=\"true\"/><allow own=\"*\"/><allow user=\"*\"/></policy>{}</busconfig>\n",
        socket.display(),
        limits.concat()
    )
}

struct Ends {
    content: Content,
    connection: Connection,
    stream: MessageStream,
    /// Who gets what is sent; nobody by name where it is a signal.
    destination: Option<String>,
    buffer: Vec<u8>,
}

impl Ends {
    fn message(&mut self, number: u64) -> Result<Message> {
        self.content.fill(&mut self.buffer, number);
        let builder = match &self.destination {
            Some(destination) => Message::method_call(PATH, MEMBER)
                .interface(INTERFACE)
                .destination(destination.as_str())
                .with_flags(Flags::NO_REPLY_EXPECTED),
            None => Message::signal(PATH, INTERFACE, MEMBER),
        };
        Ok(builder.build(&Bytes::new(&self.buffer))?)
    }
}

impl Port for Ends {
    fn send(&mut self, number: u64) -> Result<()> {
        let message = self.message(number)?;
        Ok(block_on(self.connection.send(&message))?)
    }

    fn receive(&mut self) -> Result<u64> {
        loop {
            let next = block_on(poll_fn(|context| Pin::new(&mut self.stream).poll_next(context)));
            let message = next.ok_or("the bus has ended")??;
            // The bus speaks of names in between.
            if message.header().member().is_some_and(|member| member.as_str() == MEMBER) {
                let body = message.body();
                return self.content.judge(body.deserialize()?);
            }
        }
    }

    fn send_batch(&mut self, numbers: Range<u64>) -> Result<()> {
        let messages = numbers.map(|number| self.message(number)).collect::<Result<Vec<_>>>()?;
        Ok(block_on(self.connection.send_all(&messages))?)
    }
}
