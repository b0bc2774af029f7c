//! The stage: a broker in this process, and the children that play on it.

use std::{
    collections::VecDeque,
    env,
    path::PathBuf,
    process::{Child, Stdio},
    time::Duration,
};

use keyway::{Badge, Capability, Client, Confined, Embedded, Incoming, Message, Queue, QueueOptions, Rights};

use super::{
    Role,
    report::{Failed, REPORT, Report},
};

const SOCKET: &str = "broker.sock";

/// The longest that the tour waits for anything.
pub(super) const SOON: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Stage {
    pub(super) client: Client,
    pub(super) broker: Embedded,
    directory: tempfile::TempDir,
    reports: Queue,
    early: VecDeque<Message>,
    last_badge: u64,
}

/// A child that plays a role. It is killed when this is dropped.
pub(super) struct Actor {
    pub(super) role: Role,
    pub(super) badge: Badge,
    pub(super) process: Capability,
    pub(super) child: Child,
}

impl Stage {
    pub(super) fn new() -> Result<Self, Failed> {
        let directory = tempfile::Builder::new().prefix("keyway-tour-").tempdir()?;
        let broker = Embedded::start_at(&directory.path().join(SOCKET))?;
        let client = Client::over(broker.connect()?)?;
        let reports = client.create_queue(QueueOptions { stock: 8, ..QueueOptions::default() })?;
        Ok(Stage { client, broker, directory, reports, early: VecDeque::new(), last_badge: 0 })
    }

    /// The broker's socket, for the one process that connects by itself.
    pub(super) fn socket_path(&self) -> PathBuf {
        self.path(SOCKET)
    }

    /// A file in the tour's own directory, which goes with the tour.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Prepares a confined child for a role, with a line to the tour and nothing else.
    pub(super) fn prepare(&mut self, role: Role, numbers: &[u64]) -> Result<(Confined, Badge), Failed> {
        let mut confined = Confined::new(&self.client, env::current_exe()?)?;
        confined.command().arg("tour-role").arg(role.name()).stdin(Stdio::null());
        confined.command().args(numbers.iter().map(u64::to_string));
        self.last_badge += 1;
        let badge = Badge(self.last_badge);
        confined.give(REPORT, self.reports.capability(), Rights::SEND, Some(badge))?;
        Ok((confined, badge))
    }

    /// Starts a prepared child.
    pub(super) fn start(role: Role, prepared: (Confined, Badge)) -> Result<Actor, Failed> {
        let (confined, badge) = prepared;
        let started = confined.spawn()?;
        Ok(Actor { role, badge, process: started.process, child: started.child })
    }

    /// The next report of a child, with the capabilities that came in it.
    pub(super) fn hear(&mut self, actor: &mut Actor) -> Result<(Report, Vec<Capability>), Failed> {
        if let Some(index) = self.early.iter().position(|message| message.badge == Some(actor.badge))
            && let Some(message) = self.early.remove(index)
        {
            return understand(message);
        }
        loop {
            match self.reports.next_timeout(SOON) {
                Ok(Incoming::Message(message)) if message.badge == Some(actor.badge) => {
                    return understand(message);
                }
                Ok(Incoming::Message(message)) => self.early.push_back(message),
                Ok(Incoming::Ended { peer, .. }) if peer.badge == Some(actor.badge) => {
                    return Err(Failed(format!("the {} ended before its report", actor.role.name())));
                }
                Ok(_) => {}
                Err(error) => return Err(Failed(format!("nothing of the {}: {error}", actor.role.name()))),
            }
        }
    }

    /// A child's queue, once it says that it is ready.
    pub(super) fn hear_queue(&mut self, actor: &mut Actor) -> Result<Capability, Failed> {
        match self.hear(actor)? {
            (Report::QueueReady, mut capabilities) => {
                capabilities.pop().ok_or(Failed("a queue without the right to send to it".into()))
            }
            (other, _) => Err(Failed(format!("expected a queue, heard {other:?}"))),
        }
    }
}

impl Actor {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the child's end, which must be a good one.
    pub(super) fn finish(mut self) -> Result<(), Failed> {
        let status = self.child.wait()?;
        if status.success() {
            return Ok(());
        }
        Err(Failed(format!("the {} ended with {status}", self.role.name())))
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn understand(message: Message) -> Result<(Report, Vec<Capability>), Failed> {
    let report = serde_json::from_slice(&message.payload)?;
    let capabilities = message.capabilities.into_iter().collect::<Result<_, _>>()?;
    Ok((report, capabilities))
}

/// The role of one who is connected and does nothing.
pub(super) fn stand_by() -> Result<(), Failed> {
    let client = Client::connect()?;
    let mut reporter = super::report::Reporter::open(&client)?;
    reporter.tell(&Report::Ready)?;
    let mut queue = client.create_queue(QueueOptions::default())?;
    // Until the tour, which holds the other end of everything, is over.
    loop {
        queue.next_timeout(Duration::from_secs(3600))?;
    }
}
