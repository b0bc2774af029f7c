//! A session with a broker: where everything begins.

use std::{collections::BTreeMap, env, os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};

use keyway_abi::{
    AuditEntry, CapabilityEntry, DefaultActions, Denial, Handle, LaneEntry, Listing, Name, ProcessEntry,
    ProcessNumber, QueueEntry, Reply, Rights, request, request::Audience,
};
use keyway_sys::{inherited, rendezvous, socket};

use crate::{
    call::Caller,
    capability::Capability,
    control::{Control, Notice},
    device::Depositor,
    error::Error,
    pool::{Pool, PoolOptions},
    queue::{Queue, QueueOptions},
    region::{FrozenRegion, MapOptions, RegionCopy, RegionOptions, RegionReader, RegionWriter, SharedRegion},
    sender::{Sender, SenderOptions},
    signals::Signals,
    waiting::Until,
};

/// A session with a broker. A clone is the same session; it ends with the last clone and all that was made from it.
///
/// May be used from several threads: requests to the broker take turns, messages do not involve it.
///
/// # Forks
/// A session belongs to one process. A forked child that uses it ends it, for both; start children with
/// [`Confined`](crate::Confined), or let them connect themselves.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) control: Arc<Control>,
    inherited: Arc<BTreeMap<String, Handle>>,
}

/// How a session begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionOptions {
    /// Whether the broker may terminate, stop and continue this process (`SIGTERM`, `SIGKILL`, `SIGSTOP`, `SIGCONT`) when a
    /// signal with such a default action is raised at it. Refused by default; then whoever raises one hears
    /// [`Unsupported`](keyway_abi::Denial::Unsupported), unless the signal is handled or held back.
    pub default_actions: DefaultActions,
}

/// The variable that names the descriptor of an inherited socket.
pub(crate) const SOCKET_VARIABLE: &str = "KEYWAY_FD";
/// The variable that names the capabilities that the starter gave: `name=number` apart by `;`.
pub(crate) const CAPABILITIES_VARIABLE: &str = "KEYWAY_CAPABILITIES";

impl Client {
    /// Connects to the broker: a confined child over the socket that it inherited, any other process over
    /// `$KEYWAY_SOCKET`, else `$XDG_RUNTIME_DIR/keyway/broker.sock`, else `/run/keyway/broker.sock`.
    ///
    /// # Errors
    /// [`Error::BrokerNotFound`] says where it looked and how to start one, [`Error::SocketPathTooLong`] that none can be there.
    pub fn connect() -> Result<Self, Error> {
        Self::connect_with(SessionOptions::default())
    }

    /// As [`Client::connect`], with options.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn connect_with(options: SessionOptions) -> Result<Self, Error> {
        let inherited = env::var(SOCKET_VARIABLE).ok().and_then(|text| text.parse().ok());
        match inherited {
            Some(number) => Self::over_with(inherited::take(number)?, options),
            None => Self::over_with(dial(&rendezvous::socket_path())?, options),
        }
    }

    /// Connects to the broker that serves the socket at `path`.
    ///
    /// # Errors
    /// [`Error::BrokerNotFound`], [`Error::SocketPathTooLong`].
    pub fn connect_to(path: &Path) -> Result<Self, Error> {
        Self::over(dial(path)?)
    }

    /// Begins a session over a socket that leads to the broker.
    ///
    /// # Errors
    /// [`Error::SessionEnded`] when the broker does not want this process on it.
    pub fn over(socket: OwnedFd) -> Result<Self, Error> {
        Self::over_with(socket, SessionOptions::default())
    }

    /// As [`Client::over`], with options.
    ///
    /// # Errors
    /// As [`Client::over`].
    pub fn over_with(socket: OwnedFd, options: SessionOptions) -> Result<Self, Error> {
        let control = Arc::new(Control::begin(socket, options.default_actions)?);
        let given = env::var(CAPABILITIES_VARIABLE).unwrap_or_default();
        let parse = |pair: &str| {
            let (name, number) = pair.split_once('=')?;
            Some((name.to_owned(), Handle::from_raw(number.parse().ok()?)))
        };
        let inherited = given.split(';').filter_map(parse).collect();
        Ok(Client { control, inherited: Arc::new(inherited) })
    }

    /// This process's user, as the broker was told by Linux.
    pub fn uid(&self) -> u32 {
        self.control.start().uid
    }

    /// This process's group, as the broker was told by Linux.
    pub fn gid(&self) -> u32 {
        self.control.start().gid
    }

    /// The kernel's number for this process.
    pub fn process_number(&self) -> ProcessNumber {
        self.control.start().process
    }

    /// The pid, as the broker knows it.
    pub fn pid(&self) -> u32 {
        self.control.start().pid
    }

    /// The capability to this process itself. A confined child has none.
    pub fn own_process(&self) -> Option<Capability> {
        let rights =
            Rights::WATCH | Rights::ENDOW | Rights::START | Rights::RAISE | Rights::GRANT | Rights::DERIVE;
        self.control.start().own.map(|handle| Capability::kept(&self.control, handle, rights))
    }

    /// The capability that the starter of this confined process gave under `name`.
    ///
    /// # Errors
    /// [`Error::NotInherited`] lists the names that were given.
    pub fn inherited(&self, name: &str) -> Result<Capability, Error> {
        let Some(handle) = self.inherited.get(name) else {
            let given: Vec<&str> = self.inherited.keys().map(String::as_str).collect();
            let given = if given.is_empty() { "none".into() } else { given.join(", ") };
            return Err(Error::NotInherited { name: name.into(), given });
        };
        let rights = self.entry(*handle)?.map_or(Rights::empty(), |entry| entry.rights);
        Ok(Capability::adopted(&self.control, *handle, rights))
    }

    /// Makes a queue, of which this process is the receiver.
    ///
    /// # Errors
    /// [`Error::Denied`] at a limit, or for a size that no queue has.
    pub fn create_queue(&self, options: QueueOptions) -> Result<Queue, Error> {
        Queue::create(&self.control, options)
    }

    /// Opens a lane to a queue, with the default options.
    ///
    /// # Errors
    /// [`Error::Denied`] without the right `send`, or when the queue takes no further lane.
    pub fn open_sender(&self, capability: &Capability) -> Result<Sender, Error> {
        self.open_sender_with(capability, SenderOptions::default())
    }

    /// Opens a lane to a queue.
    ///
    /// # Errors
    /// As [`Client::open_sender`].
    pub fn open_sender_with(&self, capability: &Capability, options: SenderOptions) -> Result<Sender, Error> {
        Sender::open(&self.control, capability.handle(), options)
    }

    /// Opens lanes to and from a queue, for calls.
    ///
    /// # Errors
    /// As [`Client::open_sender`].
    pub fn open_caller(&self, capability: &Capability) -> Result<Caller, Error> {
        Caller::open(&self.control, capability)
    }

    /// Makes shared memory of `bytes`, rounded up to whole pages, which one process will write and others read.
    ///
    /// # Errors
    /// [`Error::Denied`] for no bytes, too many, or at a limit.
    pub fn create_region(&self, bytes: u64) -> Result<Capability, Error> {
        self.create_region_with(bytes, RegionOptions::default())
    }

    /// As [`create_region`](Self::create_region), of another sort.
    ///
    /// # Errors
    /// [`Error::Denied`] for no bytes, too many, options that exclude each other, or at a limit.
    pub fn create_region_with(&self, bytes: u64, options: RegionOptions) -> Result<Capability, Error> {
        let (created, _) = self.control.create(options.request(bytes))?;
        Ok(Capability::adopted(&self.control, created.handle, created.rights))
    }

    /// Becomes a region's one writer. When this returns, others can map it for reading.
    ///
    /// # Errors
    /// [`Error::Denied`] without the right `write`, when the region has its writer, or when it was made to have several.
    pub fn map_writer(&self, region: &Capability) -> Result<RegionWriter, Error> {
        self.map_writer_with(region, MapOptions::default())
    }

    /// As [`map_writer`](Self::map_writer), at an address of one's choice.
    ///
    /// # Errors
    /// As [`map_writer`](Self::map_writer).
    pub fn map_writer_with(&self, region: &Capability, options: MapOptions) -> Result<RegionWriter, Error> {
        RegionWriter::map(&self.control, region.handle(), options)
    }

    /// Maps a region that another process writes.
    ///
    /// # Errors
    /// [`Error::Denied`] without the right `map`, or before its writer has mapped it.
    pub fn map_reader(&self, region: &Capability) -> Result<RegionReader, Error> {
        self.map_reader_with(region, MapOptions::default())
    }

    /// As [`map_reader`](Self::map_reader), at an address of one's choice.
    ///
    /// # Errors
    /// As [`map_reader`](Self::map_reader).
    pub fn map_reader_with(&self, region: &Capability, options: MapOptions) -> Result<RegionReader, Error> {
        RegionReader::map(&self.control, region.handle(), options)
    }

    /// Maps a copy of a region: what this process writes to it nobody else sees.
    ///
    /// # Errors
    /// As [`map_reader`](Self::map_reader).
    pub fn map_copy(&self, region: &Capability) -> Result<RegionCopy, Error> {
        self.map_copy_with(region, MapOptions::default())
    }

    /// As [`map_copy`](Self::map_copy), at an address of one's choice.
    ///
    /// # Errors
    /// As [`map_copy`](Self::map_copy).
    pub fn map_copy_with(&self, region: &Capability, options: MapOptions) -> Result<RegionCopy, Error> {
        RegionCopy::map(&self.control, region.handle(), options)
    }

    /// Maps a region that its writer has frozen, as bytes that never change.
    ///
    /// # Errors
    /// [`Error::Denied`] without the right `map`, or while the region is not frozen.
    pub fn map_frozen(&self, region: &Capability) -> Result<FrozenRegion, Error> {
        self.map_frozen_with(region, MapOptions::default())
    }

    /// As [`map_frozen`](Self::map_frozen), at an address of one's choice.
    ///
    /// # Errors
    /// As [`map_frozen`](Self::map_frozen).
    pub fn map_frozen_with(&self, region: &Capability, options: MapOptions) -> Result<FrozenRegion, Error> {
        FrozenRegion::map(&self.control, region.handle(), options)
    }

    /// Maps a region that several processes write.
    ///
    /// # Errors
    /// [`Error::Denied`] without the right `write`, or when the region was made to have one writer.
    pub fn map_shared(&self, region: &Capability) -> Result<SharedRegion, Error> {
        self.map_shared_with(region, MapOptions::default())
    }

    /// As [`map_shared`](Self::map_shared), at an address of one's choice.
    ///
    /// # Errors
    /// As [`map_shared`](Self::map_shared).
    pub fn map_shared_with(&self, region: &Capability, options: MapOptions) -> Result<SharedRegion, Error> {
        SharedRegion::map(&self.control, region.handle(), options)
    }

    /// Makes memory of this process's own, from which messages send parts without a copy: [`Sender::send_segments`].
    ///
    /// # Errors
    /// [`Error::Denied`] for no bytes, too many, or at a limit.
    pub fn create_pool(&self, options: PoolOptions) -> Result<Pool, Error> {
        Pool::create(&self.control, options)
    }

    /// Publishes a queue under a name. The name is withdrawn when the capability returned is dropped.
    ///
    /// # Errors
    /// [`Error::Denied`] when the name is taken, or this process may not publish.
    pub fn publish(
        &self,
        name: &str,
        queue: &Capability,
        rights: Rights,
        audience: Audience,
    ) -> Result<Capability, Error> {
        let (name, directory) = (Name::new(name)?, self.control.directory());
        let queue = queue.handle();
        let (created, _) =
            self.control.create(request::Publish { directory, name, queue, rights, audience })?;
        Ok(Capability::adopted(&self.control, created.handle, created.rights))
    }

    /// Looks a published queue up. The capability carries a badge that is this process's alone.
    ///
    /// # Errors
    /// [`Error::Denied`] when nobody has published the name, or not for this process.
    pub fn lookup(&self, name: &str) -> Result<Capability, Error> {
        let (name, directory) = (Name::new(name)?, self.control.directory());
        let (created, _) = self.control.create(request::Lookup { directory, name, on_behalf_of: None })?;
        Ok(Capability::adopted(&self.control, created.handle, created.rights))
    }

    /// Looks a queue up, and waits until it is published if it is not.
    ///
    /// # Errors
    /// [`Error::TimedOut`] when nobody has published it in that time; [`Error::Denied`] when it is not for this process.
    pub fn lookup_timeout(&self, name: &str, timeout: Duration) -> Result<Capability, Error> {
        let (until, name) = (Until::after(timeout), Name::new(name)?);
        let directory = self.control.directory();
        loop {
            let request = request::Lookup { directory, name: name.clone(), on_behalf_of: None };
            match self.control.create(request) {
                Ok((created, _)) => {
                    return Ok(Capability::adopted(&self.control, created.handle, created.rights));
                }
                Err(Error::Denied { denial: Denial::NameUnknown { .. }, .. }) => {}
                Err(error) => return Err(error),
            }
            self.control.ask(request::WaitName { directory, name: name.clone() })?;
            loop {
                let seen = self.control.events_seen();
                self.control.pump()?;
                if self.control.routes().appeared.remove(&name) {
                    break;
                }
                let Some(sleep) = until.sleep() else {
                    self.control.ask(request::ForgetName { name: name.clone() })?;
                    // It may have appeared at the last moment, for nobody any more.
                    self.control.routes().appeared.remove(&name);
                    return Err(Error::TimedOut(timeout));
                };
                keyway_sys::futex::wait(&[(self.control.event_word(), seen)], sleep)?;
            }
        }
    }

    /// The socket on which this process hands descriptors to the broker. Needs the right `deposit`.
    ///
    /// # Errors
    /// [`Error::Denied`] without that right.
    pub fn open_depositor(&self) -> Result<Depositor, Error> {
        Depositor::open(&self.control)
    }

    /// What other processes raise at this one: [`Capability::raise`].
    ///
    /// # Errors
    /// [`Error::System`] without descriptors left.
    pub fn signals(&self) -> Result<Signals, Error> {
        Signals::of(&self.control)
    }

    /// What has happened to this process's capabilities and lanes since the last call, oldest first.
    ///
    /// # Errors
    /// [`Error::BrokerGone`], [`Error::SessionEnded`].
    pub fn take_notices(&self) -> Result<Vec<Notice>, Error> {
        self.control.pump()?;
        Ok(self.control.routes().notices.drain(..).collect())
    }

    /// All capabilities of this process.
    ///
    /// # Errors
    /// [`Error::BrokerGone`].
    pub fn capabilities(&self) -> Result<Vec<CapabilityEntry>, Error> {
        self.collect(
            |last: Option<&CapabilityEntry>| {
                request::ListOwn { after: last.map_or(Handle::NONE, |entry| entry.handle) }.into()
            },
            |listing| if let Listing::Capabilities(part) = listing { part } else { Vec::new() },
        )
    }

    /// All processes that the broker knows. Needs the right `inspect` on the directory.
    ///
    /// # Errors
    /// [`Error::Denied`] without that right.
    pub fn processes(&self) -> Result<Vec<ProcessEntry>, Error> {
        let directory = self.control.directory();
        self.collect(
            |last: Option<&ProcessEntry>| {
                request::ListProcesses { directory, after: last.map(|entry| entry.process) }.into()
            },
            |listing| if let Listing::Processes(part) = listing { part } else { Vec::new() },
        )
    }

    /// All capabilities of a process. Needs the right `inspect` on the directory.
    ///
    /// # Errors
    /// [`Error::Denied`] without that right, or when the process has ended.
    pub fn capabilities_of(&self, process: ProcessNumber) -> Result<Vec<CapabilityEntry>, Error> {
        let directory = self.control.directory();
        self.collect(
            |last: Option<&CapabilityEntry>| {
                let after = last.map_or(Handle::NONE, |entry| entry.handle);
                request::ListCapabilities { directory, process, after }.into()
            },
            |listing| if let Listing::Capabilities(part) = listing { part } else { Vec::new() },
        )
    }

    /// How long it is until a moment of the broker's clock, such as a capability's [`expires_ns`](CapabilityEntry::expires_ns);
    /// zero if it has passed.
    pub fn remaining(&self, at_ns: u64) -> Duration {
        self.control.remaining(at_ns)
    }

    /// What was granted, refused and taken back lately, oldest first, after the record with this number. Needs the right `audit` on the
    /// directory.
    ///
    /// The broker keeps as many records as [`AUDIT_ENTRIES_MAX`](keyway_abi::limits::AUDIT_ENTRIES_MAX) of what was granted or
    /// taken back, and as many of what was refused.
    ///
    /// # Errors
    /// [`Error::Denied`] without that right.
    pub fn audit_log(&self, after: Option<u64>) -> Result<Vec<AuditEntry>, Error> {
        let directory = self.control.directory();
        self.collect(
            |last: Option<&AuditEntry>| {
                let after = last.map(|entry| entry.sequence).or(after);
                request::ListAudit { directory, after }.into()
            },
            |listing| if let Listing::Audit(part) = listing { part } else { Vec::new() },
        )
    }

    /// All queues. Needs the right `inspect` on the directory.
    ///
    /// # Errors
    /// [`Error::Denied`] without that right.
    pub fn queues(&self) -> Result<Vec<QueueEntry>, Error> {
        let directory = self.control.directory();
        self.collect(
            |last: Option<&QueueEntry>| {
                request::ListQueues { directory, after: last.map(|entry| entry.object) }.into()
            },
            |listing| if let Listing::Queues(part) = listing { part } else { Vec::new() },
        )
    }

    /// All lanes, with what is in them. Needs the right `inspect` on the directory.
    ///
    /// # Errors
    /// [`Error::Denied`] without that right.
    pub fn lanes(&self) -> Result<Vec<LaneEntry>, Error> {
        let directory = self.control.directory();
        self.collect(
            |last: Option<&LaneEntry>| {
                request::ListLanes { directory, after: last.map(|entry| entry.lane) }.into()
            },
            |listing| if let Listing::Lanes(part) = listing { part } else { Vec::new() },
        )
    }

    /// Whatever a handle of this process names, for code that keeps handles elsewhere. The kernel judges it at each use;
    /// its [`rights`](Capability::rights) are unknown here and shown as none. It is given up with the value.
    pub fn adopt(&self, handle: Handle) -> Capability {
        Capability::adopted(&self.control, handle, Rights::empty())
    }

    /// A descriptor that the starter of this confined process let it inherit: see
    /// [`Confined::inherit`](crate::Confined::inherit). It can be taken once.
    ///
    /// # Errors
    /// [`Error::NotInherited`] when the variable names none.
    pub fn inherited_descriptor(variable: &str) -> Result<OwnedFd, Error> {
        let number = env::var(variable).ok().and_then(|text| text.parse().ok());
        let missing = || Error::NotInherited { name: variable.into(), given: "no such descriptor".into() };
        Ok(inherited::take(number.ok_or_else(missing)?)?)
    }

    fn entry(&self, handle: Handle) -> Result<Option<CapabilityEntry>, Error> {
        Ok(self.capabilities()?.into_iter().find(|entry| entry.handle == handle))
    }

    /// Asks for one part after the other until one is empty.
    fn collect<T>(
        &self,
        ask: impl Fn(Option<&T>) -> keyway_abi::Request,
        part: impl Fn(Listing) -> Vec<T>,
    ) -> Result<Vec<T>, Error> {
        let mut all = Vec::new();
        loop {
            let (Reply::Listing(listing), _) = self.control.request(ask(all.last()))? else {
                return Err(Error::BrokerIncoherent { operation: "a listing" });
            };
            let part = part(listing);
            if part.is_empty() {
                return Ok(all);
            }
            all.extend(part);
        }
    }
}

fn dial(path: &Path) -> Result<OwnedFd, Error> {
    let (bytes, bytes_max) = (path.as_os_str().len(), socket::PATH_BYTES_MAX);
    if bytes > bytes_max {
        return Err(Error::SocketPathTooLong { path: path.into(), bytes, bytes_max });
    }
    socket::connect(path).map_err(|error| Error::BrokerNotFound { path: path.into(), error })
}
