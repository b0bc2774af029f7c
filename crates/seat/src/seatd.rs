//! The second door to the seat: the seatd protocol on a socket of its own, for compositors that use `libseat`.
//!
//! A thread of its own reads and writes, so that whatever comes by this door holds up nobody at the other. It knows the
//! protocol and its order, not who may have what: each whole request is handed to the bridge ([`Heard`]), one of a
//! connection at a time, and what the bridge decides comes back ([`Order`]). Whoever breaks the protocol is let go, with the
//! reason on standard error.
//!
//! Absent: a descriptor that a client sent. Before Linux 6.16, which refuses them, one that arrives is closed unseen, and so are
//! sockets, in threads apart, because closing can block. Who makes 64 of them block keeps newcomers from this door, and nobody
//! who is in.
//!
//! Floors, lowest first: `connection`; this.

mod connection;

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use keyway::{Client, Queue, QueueOptions, SenderOptions};
use keyway_gui::{ClientId, seatd::Message};
use keyway_sys::{
    device::DeviceNumber,
    epoll::{Epoll, EventFd, Interest, Ready},
    process, socket,
};

use self::connection::{Connection, Ending, Standing};
use crate::{
    door::{CompositorRule, Visitor, lets_in},
    news::Bell,
};

/// What a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    OpenSeat,
    CloseSeat,
    /// The device to which the path leads; none if it leads to no device.
    OpenDevice(Option<DeviceNumber>),
    CloseDevice(i32),
    PauseDone,
    Switch(i32),
}

/// What the door tells the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Somebody connected who may.
    Came { client: ClientId, pid: u32, uid: u32 },
    /// It asks, and waits for the answer before it is read again.
    Asked { client: ClientId, ask: Ask },
    /// It has left, or was let go.
    Gone { client: ClientId },
}

/// What the bridge tells the door.
#[derive(Debug)]
pub(crate) enum Order {
    /// Send it; a descriptor goes with [`Message::DeviceOpened`].
    Tell { client: ClientId, message: Message, descriptor: Option<OwnedFd> },
    /// The bridge has no room for it.
    TurnAway { client: ClientId },
}

/// The bridge's side of the door. The socket and all its connections end with this.
#[derive(Debug)]
pub(crate) struct SeatdDoor {
    /// Rung when something was heard. Its messages are empty.
    pub(crate) queue: Queue,
    pub(crate) heard: mpsc::Receiver<Heard>,
    orders: Option<mpsc::Sender<Order>>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

/// Why there is no such door.
#[derive(Debug, thiserror::Error)]
pub enum SeatdError {
    /// Somebody else has the socket, or it is a file of another kind.
    #[error("{}: another process listens there, or it is no socket; end that, or choose another path", path.display())]
    Taken {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// Linux refused something.
    #[error("{}: {error}", path.display())]
    Linux {
        /// The path that was asked for.
        path: PathBuf,
        /// What it refused.
        error: keyway_sys::Error,
    },
    /// No further thread.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The broker refused something.
    #[error("{0}")]
    Keyway(#[from] keyway::Error),
}

/// The first client of this door; the numbers of the broker's processes are far below.
pub(crate) const FIRST_CLIENT: u64 = 1 << 63;

/// LIMIT: connections at a time, in all and of one user, those included whose socket is still being closed.
const CONNECTIONS_MAX: usize = 64;
const CONNECTIONS_PER_UID_MAX: usize = 16;
/// LIMIT: connections that are being closed; nobody is taken in while there are as many.
const CLOSING_MAX: usize = 64;
/// LIMIT: connections that are taken between two looks at the others.
const ACCEPTED_MAX: usize = 16;
const BACKLOG: u16 = 32;
const RING_BYTES: u32 = 4096;

impl SeatdDoor {
    /// Listens at the path. Anybody may connect where the rules let others in than the bridge's own user and root: who does is
    /// looked at when it does.
    pub(crate) fn open(client: &Client, path: &Path, rules: Vec<CompositorRule>) -> Result<Self, SeatdError> {
        let linux = |error| SeatdError::Linux { path: path.to_owned(), error };
        if !socket::remove_stale_stream(path).map_err(linux)? {
            return Err(SeatdError::Taken { path: path.to_owned() });
        }
        let mode = if rules.is_empty() { 0o600 } else { 0o666 };
        let listening = socket::listen_stream(path, mode, BACKLOG).map_err(linux)?;
        let narrow = QueueOptions { ring_bytes_max: RING_BYTES, senders_max: 1, ..QueueOptions::default() };
        let queue = client.create_queue(QueueOptions { stock: 1, ..narrow })?;
        let options = SenderOptions { ring_bytes: Some(RING_BYTES), ..SenderOptions::default() };
        let lane = client.open_sender_with(&queue.sender_capability(None)?, options)?;
        let (told, heard) = mpsc::channel();
        let (orders, ordered) = mpsc::channel();
        let wake = Arc::new(EventFd::new().map_err(linux)?);
        let epoll = Epoll::new().map_err(linux)?;
        epoll.add(&listening, LISTENING, Interest::Read).map_err(linux)?;
        epoll.add(wake.as_ref(), WOKEN, Interest::Read).map_err(linux)?;
        let server = Server {
            epoll,
            listening,
            wake: Arc::clone(&wake),
            ordered,
            bell: Bell::new(told, lane),
            rules,
            connections: BTreeMap::new(),
            closer: Closer::default(),
            log: Log::default(),
            last_number: 0,
        };
        let thread = thread::Builder::new().name("keyway-seatd".into()).spawn(move || server.serve())?;
        let path = path.to_owned();
        Ok(SeatdDoor { queue, heard, orders: Some(orders), wake, thread: Some(thread), path })
    }

    /// Has the door do something.
    pub(crate) fn order(&self, order: Order) {
        // The thread ends with the bridge alone.
        if let Some(orders) = &self.orders
            && orders.send(order).is_ok()
        {
            let _ = self.wake.ring();
        }
    }

    /// Whether the thread has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for SeatdDoor {
    fn drop(&mut self) {
        // Nobody connects to what is about to end.
        let _ = fs::remove_file(&self.path);
        drop(self.orders.take());
        let _ = self.wake.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const LISTENING: u64 = u64::MAX;
const WOKEN: u64 = u64::MAX - 1;

/// The thread's own.
struct Server {
    epoll: Epoll,
    listening: OwnedFd,
    wake: Arc<EventFd>,
    ordered: mpsc::Receiver<Order>,
    bell: Bell<Heard>,
    rules: Vec<CompositorRule>,
    connections: BTreeMap<ClientId, Connection>,
    closer: Closer,
    log: Log,
    last_number: u64,
}

impl Server {
    fn serve(mut self) {
        let mut ready: Vec<Ready> = Vec::new();
        let mut is_full = false;
        loop {
            let deadline = self.connections.values().filter_map(Connection::deadline).min();
            let patience = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            // While nobody can be taken in, the socket is not watched, and looked at again a little later.
            let patience = if is_full { Some(patience.map_or(PAUSE, |p| p.min(PAUSE))) } else { patience };
            if self.epoll.wait(&mut ready, patience).is_err() {
                return;
            }
            let was_full = std::mem::take(&mut is_full);
            for one in ready.iter().copied() {
                match one.token {
                    LISTENING => is_full = !self.accept(),
                    WOKEN => {
                        let _ = self.wake.drain();
                        if !self.obey() {
                            return;
                        }
                    }
                    number => self.look_at(ClientId(number), one),
                }
            }
            self.end_late();
            if is_full != was_full {
                let interest = if is_full { Interest::End } else { Interest::Read };
                let _ = self.epoll.modify(&self.listening, LISTENING, interest);
            }
        }
    }

    /// Takes those who wait. False if there are too many whose end takes long, or Linux has no descriptor for more.
    fn accept(&mut self) -> bool {
        for _ in 0..ACCEPTED_MAX {
            if self.closer.count() >= CLOSING_MAX {
                return false;
            }
            match socket::accept(&self.listening) {
                Ok(Some(socket)) => self.take_in(socket),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    fn take_in(&mut self, socket: OwnedFd) {
        let Ok(credentials) = socket::peer_credentials(&socket) else {
            return self.closer.close(vec![socket], u32::MAX);
        };
        let (pid, uid) = (credentials.pid, credentials.uid);
        let of_user = self.connections.values().filter(|connection| connection.uid == uid).count();
        if self.connections.len() >= CONNECTIONS_MAX
            || of_user + self.closer.count_of(uid) >= CONNECTIONS_PER_UID_MAX
        {
            self.log.say(&format_args!(
                "process {pid} of user {uid} is turned away: there are {CONNECTIONS_MAX} connections at most, \
                 {CONNECTIONS_PER_UID_MAX} of one user"
            ));
            return self.closer.close(vec![socket], uid);
        }
        // It has sent nothing yet that was looked at.
        let _ = socket::refuse_descriptors(&socket);
        let executable = socket::peer_pidfd(&socket).and_then(process::executable).ok().flatten();
        let executable = executable.unwrap_or_default();
        let visitor =
            Visitor { uid, gid: credentials.gid, executable: executable.to_string_lossy().into_owned() };
        let standing = if lets_in(&self.rules, process::own_uid(), &visitor) {
            Standing::WithoutSeat
        } else {
            Standing::Refused
        };
        self.last_number += 1;
        let client = ClientId(FIRST_CLIENT + self.last_number);
        if self.epoll.add(&socket, client.0, Interest::End).is_err() {
            return self.closer.close(vec![socket], uid);
        }
        let mut connection = Connection::new(socket, (pid, uid), standing);
        if standing == Standing::Refused {
            self.log.say(&format_args!(
                "process {pid} of user {uid} may not be a compositor here; `--compositor` says who may"
            ));
            connection.tell(Message::Error(keyway_sys::Errno::ACCESS.raw_os_error()), None);
        } else {
            self.bell.tell(vec![Heard::Came { client, pid, uid }]);
        }
        self.connections.insert(client, connection);
        self.go_on(client);
    }

    /// Carries out what the bridge has ordered. False when it has ended.
    fn obey(&mut self) -> bool {
        loop {
            match self.ordered.try_recv() {
                Ok(Order::Tell { client, message, descriptor }) => {
                    if let Some(connection) = self.connections.get_mut(&client) {
                        connection.tell(message, descriptor);
                        self.go_on(client);
                    }
                }
                Ok(Order::TurnAway { client }) => {
                    if let Some(connection) = self.connections.get_mut(&client) {
                        connection.refuse();
                        self.go_on(client);
                    }
                }
                Err(mpsc::TryRecvError::Empty) => return true,
                Err(mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn look_at(&mut self, client: ClientId, ready: Ready) {
        let Some(connection) = self.connections.get_mut(&client) else { return };
        if ready.hangup {
            return self.end(client, &Ending::Left);
        }
        if ready.readable
            && let Err(ending) = connection.receive()
        {
            return self.end(client, &ending);
        }
        self.go_on(client);
    }

    /// Hands on what is whole, sends what there is room for, and watches for what is missing.
    fn go_on(&mut self, client: ClientId) {
        let Some(connection) = self.connections.get_mut(&client) else { return };
        let asked = match connection.next_ask() {
            Ok(asked) => asked,
            Err(ending) => return self.end(client, &ending),
        };
        let sent = connection.send();
        let interest = connection.interest();
        let watched = self.epoll.modify(&connection.socket, client.0, interest);
        if let Some(ask) = asked {
            self.bell.tell(vec![Heard::Asked { client, ask }]);
        }
        match (sent, watched) {
            (Err(ending), _) => self.end(client, &ending),
            (_, Err(error)) => self.end(client, &Ending::Linux(error)),
            _ => {}
        }
    }

    fn end_late(&mut self) {
        let now = Instant::now();
        let late =
            self.connections.iter().filter_map(|(client, connection)| Some((*client, connection.late(now)?)));
        let late: Vec<_> = late.collect();
        for (client, ending) in late {
            self.end(client, &ending);
        }
    }

    fn end(&mut self, client: ClientId, ending: &Ending) {
        let Some(connection) = self.connections.remove(&client) else { return };
        let _ = self.epoll.delete(&connection.socket);
        let (pid, uid) = (connection.pid, connection.uid);
        if !matches!(ending, Ending::Left) {
            self.log.say(&format_args!("process {pid} of user {uid} is disconnected: {ending}"));
        }
        if connection.is_known() {
            self.bell.tell(vec![Heard::Gone { client }]);
        }
        let (socket, mut all) = connection.into_descriptors();
        // Whoever waits at the other end is told now, however long closing takes.
        let _ = socket::shutdown(&socket);
        all.push(socket);
        self.closer.close(all, uid);
    }
}

/// How long nobody is taken in while Linux has no descriptor for a newcomer.
const PAUSE: Duration = Duration::from_millis(100);

/// What is said on standard error of those who come by this door. LIMIT: ten lines a second, whatever they do.
#[derive(Default)]
struct Log {
    second: Option<Instant>,
    said_count: u32,
    unsaid_count: u32,
}

impl Log {
    fn say(&mut self, what: &dyn std::fmt::Display) {
        if self.second.is_none_or(|second| second.elapsed() >= Duration::from_secs(1)) {
            if self.unsaid_count > 0 {
                eprintln!("keyway: seatd: {} more of that kind", self.unsaid_count);
            }
            *self = Log { second: Some(Instant::now()), ..Log::default() };
        }
        if self.said_count < LINES_PER_SECOND_MAX {
            self.said_count += 1;
            eprintln!("keyway: seatd: {what}");
        } else {
            self.unsaid_count += 1;
        }
    }
}

const LINES_PER_SECOND_MAX: u32 = 10;

/// Closes descriptors in a thread for each connection: before Linux 6.16 somebody may have sent one along whose end takes as long as its
/// maker likes.
#[derive(Default)]
struct Closer {
    /// How many of each user are being closed.
    of_user: Arc<Mutex<BTreeMap<u32, usize>>>,
}

impl Closer {
    /// Closes what a connection leaves; charged to a user until it is done.
    fn close(&self, descriptors: Vec<OwnedFd>, uid: u32) {
        *self.counts().entry(uid).or_default() += 1;
        let of_user = Arc::clone(&self.of_user);
        // Without a thread more it is closed here: the machine has none left for anybody.
        let _ = thread::Builder::new().name("keyway-closer".into()).spawn(move || {
            drop(descriptors);
            let mut counts = of_user.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = counts.get_mut(&uid) {
                *count -= 1;
            }
            counts.retain(|_, count| *count > 0);
        });
    }

    fn count(&self) -> usize {
        self.counts().values().sum()
    }

    fn count_of(&self, uid: u32) -> usize {
        self.counts().get(&uid).copied().unwrap_or(0)
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<u32, usize>> {
        self.of_user.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
