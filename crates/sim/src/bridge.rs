//! A bridge's machine with everybody around it: hardware that answers, refuses or is late, and processes that come, ask and
//! die at any step.
//!
//! The machine is judged by what it says and has done, never by its own tables, beyond its audit.
//!
//! # Promises, checked after each step
//! 1. The machine's audit holds.
//! 2. Nothing is said to who is not here; each request is answered once, by its deadline, as long as its asker is here.
//! 3. Who has something of the hardware is here, and one process at a time reads input: one that was told it has the seat.
//! 4. Screens, leases and the compositor's input follow from what the compositor asked while it had the seat, and nobody else.
//! 5. Without a compositor, nobody has anything that comes by one, and the screens are as they were at first.
//! 6. A buffer goes to its owner to write and to the compositor to read, with the very next message.
//!
//! Absent: lanes and descriptors. That a lane's end, a death and a line through the broker that broke come to the same is
//! the shell's task; here they are two steps, [`Step::CloseLanes`] and [`Step::Die`].

mod hardware;

use std::collections::{BTreeMap, BTreeSet};

use keyway_gui::{
    Access, BackendFailure, Bridge, ClientId, Door, Driver, Effect, Facts, Identity, RequestNumber, Ticket,
    Totals,
    limits::PENDING_TIMEOUT_NS,
    protocol::{
        Answer, Capability, CardId, ConnectorId, ConnectorInfo, DeviceId, DeviceInfo, DeviceKind, DeviceType,
        DisplayMode, Event, GuiRequest, GuiResponse, Pid, RenderNode, Request, SessionAnswer, SessionEvent,
        SessionRequest,
    },
};

use self::hardware::Hardware;

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A process opens a lane, or comes in by the seatd door. Who came by the one comes not by the other.
    Open(u64, Door),
    /// A process dies. Its number is never used again.
    Die(u64),
    /// The last lane of a process ends, or its line through the broker, and it lives on.
    CloseLanes(u64),
    /// A process asks.
    Ask(u64, Request),
    /// A process that came by the seatd door asks, unless it waits for an answer.
    AskSession(u64, SessionRequest),
    /// The hardware answers one of what it was asked, counted from the oldest and around; done if true.
    Hardware(usize, bool),
    /// An answer under a ticket that is not open.
    Stray(u64),
    /// So many milliseconds pass.
    Wait(u64),
    /// An input device is pulled out, and plugged in again.
    Replug(u32),
    /// A connector goes, and comes again.
    Reconnect(u32),
    /// What kind of machine it is was looked at again.
    Look(bool),
    /// The bridge's process ends, whatever the reason, and another begins. Whoever is here comes in again.
    Restart,
}

/// See the module.
#[derive(Debug)]
pub struct World {
    has_node: bool,
    machine: Bridge,
    hardware: Hardware,
    now_ns: u64,
    /// Who is here, and by which doors.
    here: BTreeMap<ClientId, BTreeSet<Door>>,
    dead: BTreeSet<ClientId>,
    /// Who asked what, and when; what sessions ask is not kept.
    asked: BTreeMap<RequestNumber, (ClientId, Option<Request>, u64)>,
    requests_count: u64,
    compositor: Option<ClientId>,
    applications: BTreeMap<ClientId, Pid>,
    /// Whether who has a session was last told that it has the seat.
    has_seat: BTreeMap<ClientId, bool>,
    /// Who asks in the step at hand.
    asker: Option<ClientId>,
    /// Who must get the next message.
    shared_with: Option<ClientId>,
}

/// A connector's modes, the first of which it shows at first.
pub const MODES: [DisplayMode; 2] = [
    DisplayMode { width: 640, height: 480, refresh_mhz: 60_000 },
    DisplayMode { width: 320, height: 200, refresh_mhz: 50_000 },
];
/// The connectors that there are.
pub const CONNECTORS: [u32; 2] = [10, 11];
/// The input devices that there are.
pub const DEVICES: [u32; 2] = [20, 21];

fn connector(id: u32) -> ConnectorInfo {
    let modes = MODES.to_vec();
    ConnectorInfo { id: ConnectorId(id), name: "c".into(), modes, current: Some(MODES[0]) }
}

fn device(id: u32) -> DeviceInfo {
    DeviceInfo { id: DeviceId(id), name: "d".into(), kind: DeviceKind::Keyboard }
}

fn facts(has_node: bool) -> Facts {
    Facts {
        connectors: CONNECTORS.map(connector).to_vec(),
        cards: vec![CardId(0)],
        devices: DEVICES.map(device).to_vec(),
        render_node: has_node.then(|| RenderNode { name: "renderD128".into(), card: "card0".into() }),
        device_type: DeviceType::default(),
    }
}

/// The pid of a process. Numbers that are ten apart have the same: pids come again, numbers never.
#[must_use]
pub fn pid(client: u64) -> Pid {
    Pid(100 + (client % 10) as u32)
}

impl Default for World {
    /// On a machine without a render node.
    fn default() -> Self {
        World::new(false)
    }
}

impl World {
    /// On a machine that has a render node, or none.
    #[must_use]
    pub fn new(has_node: bool) -> Self {
        let facts = facts(has_node);
        World {
            has_node,
            hardware: Hardware::new(&facts),
            machine: Bridge::new(facts).expect("INVARIANT: the facts are within bounds"),
            now_ns: 0,
            here: BTreeMap::new(),
            dead: BTreeSet::new(),
            asked: BTreeMap::new(),
            requests_count: 0,
            compositor: None,
            applications: BTreeMap::new(),
            has_seat: BTreeMap::new(),
            asker: None,
            shared_with: None,
        }
    }

    /// Lets it happen; what cannot, since somebody is not here, does not.
    ///
    /// # Panics
    /// When a promise is broken.
    pub fn step(&mut self, step: &Step) {
        self.asker = None;
        match step {
            Step::Open(client, door) => self.open(ClientId(*client), *door),
            Step::Die(client) => self.die(ClientId(*client)),
            Step::CloseLanes(client) => self.leave(ClientId(*client)),
            Step::Ask(client, request) => self.ask(ClientId(*client), request),
            Step::AskSession(client, request) => self.ask_session(ClientId(*client), *request),
            Step::Hardware(which, is_done) => self.answer(*which, *is_done),
            Step::Stray(number) => self.stray(*number),
            Step::Wait(ms) => self.wait(*ms),
            Step::Replug(id) => self.replug(*id),
            Step::Reconnect(id) => self.reconnect(*id),
            Step::Look(is_mobile) => {
                let device_type = DeviceType { is_mobile: *is_mobile, reasons: vec![] };
                self.feed(|machine| machine.on_device_type(device_type).collect());
            }
            Step::Restart => self.restart(),
        }
        self.check();
    }

    /// The compositor, if there is one.
    #[must_use]
    pub fn compositor(&self) -> Option<u64> {
        self.compositor.map(|client| client.0)
    }

    /// What the machine keeps, counted.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.machine.totals()
    }

    /// Whether a process has something of the hardware.
    #[must_use]
    pub fn has_anything(&self, client: u64) -> bool {
        self.hardware.holders().contains(&ClientId(client))
    }

    /// How many answers the hardware owes.
    #[must_use]
    pub fn owed_count(&self) -> usize {
        self.hardware.owes_count()
    }

    /// Lets the hardware answer all that it was asked.
    pub fn settle(&mut self, is_done: bool) {
        while self.hardware.owes_count() > 0 {
            self.step(&Step::Hardware(0, is_done));
        }
    }

    /// Everybody goes and the hardware answers: nothing is left, and somebody new can be the compositor.
    ///
    /// # Panics
    /// When something is left.
    pub fn finish(mut self) {
        for client in self.here.keys().copied().collect::<Vec<_>>() {
            self.step(&Step::Die(client.0));
        }
        // A process that was registered and never came may be watched.
        for client in self.applications.keys().copied().collect::<Vec<_>>() {
            self.step(&Step::Die(client.0));
        }
        self.settle(true);
        self.check_nothing_left();
        let newcomer = self.dead.last().map_or(1, |last| last.0 + 1);
        self.step(&Step::Open(newcomer, Door::Compositor));
        let register = GuiRequest::RegisterCompositor { pid: pid(newcomer) };
        self.step(&Step::Ask(newcomer, Request::Document(register)));
        assert_eq!(self.compositor(), Some(newcomer), "somebody new can be the compositor");
        self.step(&Step::Die(newcomer));
        self.settle(true);
        self.check_nothing_left();
    }

    fn check_nothing_left(&self) {
        assert_eq!(self.machine.totals(), Totals::default(), "nothing is left in the machine");
        assert_eq!(self.machine.deadline_ns(), None, "nothing is waited for");
        assert!(self.hardware.holders().is_empty() && self.hardware.leases.is_empty(), "nothing is granted");
        assert!(self.hardware.is_as_at_first(), "the screens are as they were at first");
        assert!(self.asked.is_empty(), "nobody waits");
    }

    fn open(&mut self, client: ClientId, door: Door) {
        let doors = self.here.get(&client);
        let is_other_way = doors.is_some_and(|doors| (door == Door::Seatd) != doors.contains(&Door::Seatd));
        if self.dead.contains(&client) || is_other_way {
            return;
        }
        let identity = Identity { pid: pid(client.0), uid: 1000 };
        if self.applications.get(&client).is_some_and(|pid| *pid != identity.pid) {
            self.applications.remove(&client);
        }
        let opened = self.machine.on_lane_opened(client, identity, door).map(Iterator::collect::<Vec<_>>);
        if let Ok(effects) = opened {
            self.here.entry(client).or_default().insert(door);
            self.carry_out(effects);
        }
    }

    fn die(&mut self, client: ClientId) {
        if self.dead.insert(client) {
            self.leave(client);
        }
    }

    fn leave(&mut self, client: ClientId) {
        // The bridge watches who was registered and has no lane: that one has no lanes to close, and can die.
        if self.here.remove(&client).is_none() && !self.dead.contains(&client) {
            return;
        }
        self.asked.retain(|_, (asker, ..)| *asker != client);
        self.applications.remove(&client);
        self.has_seat.remove(&client);
        if self.compositor == Some(client) {
            self.end_compositor();
        }
        self.feed(|machine| machine.on_client_gone(client).collect());
    }

    fn end_compositor(&mut self) {
        if let Some(client) = self.compositor.take() {
            self.has_seat.remove(&client);
        }
        self.applications.clear();
    }

    fn ask(&mut self, client: ClientId, request: &Request) {
        let by_lane = self.here.get(&client).is_some_and(|doors| !doors.contains(&Door::Seatd));
        if !by_lane {
            return;
        }
        let number = self.note_request(client, Some(request.clone()));
        let (now_ns, request) = (self.now_ns, request.clone());
        self.feed(|machine| machine.handle(now_ns, client, number, request).collect());
    }

    fn ask_session(&mut self, client: ClientId, request: SessionRequest) {
        let by_door = self.here.get(&client).is_some_and(|doors| doors.contains(&Door::Seatd));
        if !by_door || self.asked.values().any(|(asker, ..)| *asker == client) {
            return;
        }
        let number = self.note_request(client, None);
        let now_ns = self.now_ns;
        self.feed(|machine| machine.on_session_request(now_ns, client, number, request).collect());
    }

    fn note_request(&mut self, client: ClientId, request: Option<Request>) -> RequestNumber {
        self.asker = Some(client);
        self.requests_count += 1;
        let number = RequestNumber(self.requests_count);
        self.asked.insert(number, (client, request, self.now_ns));
        number
    }

    fn answer(&mut self, which: usize, is_done: bool) {
        let Some(position) = which.checked_rem(self.hardware.owes_count()) else { return };
        let ticket = self.hardware.answer(position, is_done);
        self.feed(|machine| machine.on_backend(ticket, outcome(is_done)).collect());
    }

    fn stray(&mut self, number: u64) {
        // No number of those that are given.
        let ticket = Ticket(u64::MAX - number);
        let before = format!("{:?}", self.machine);
        self.feed(|machine| machine.on_backend(ticket, Ok(())).collect());
        assert_eq!(format!("{:?}", self.machine), before, "an answer to nothing changes nothing");
    }

    fn wait(&mut self, ms: u64) {
        self.now_ns += ms * 1_000_000;
        while let Some(effects) = self.machine.poll_expired(self.now_ns).map(Iterator::collect) {
            self.carry_out(effects);
        }
        let next = self.machine.deadline_ns();
        assert!(next.is_none_or(|next| next > self.now_ns), "a deadline that has passed is not passed over");
        for (client, _, at_ns) in self.asked.values() {
            assert!(at_ns + PENDING_TIMEOUT_NS > self.now_ns, "2: {client:?} waits too long");
            assert!(next.is_some_and(|next| next <= at_ns + PENDING_TIMEOUT_NS));
        }
    }

    fn replug(&mut self, id: u32) {
        self.feed(|machine| machine.on_device_removed(DeviceId(id)).collect());
        assert!(
            !self.hardware.inputs.iter().any(|(_, had)| *had == DeviceId(id)),
            "what is pulled out is revoked"
        );
        self.feed(|machine| machine.on_device_added(device(id)).map(Iterator::collect).unwrap_or_default());
    }

    fn reconnect(&mut self, id: u32) {
        self.feed(|machine| machine.on_connector_removed(ConnectorId(id)).collect());
        self.check();
        self.feed(|machine| {
            machine.on_connector_changed(connector(id)).map(Iterator::collect).unwrap_or_default()
        });
    }

    fn restart(&mut self) {
        let here = std::mem::take(&mut self.here);
        let (now_ns, dead) = (self.now_ns, std::mem::take(&mut self.dead));
        // What it had made and opened ended with its descriptors; what it was asked, nobody will answer.
        *self = World { now_ns, dead, ..World::new(self.has_node) };
        for (client, doors) in here {
            for door in doors {
                self.open(client, door);
            }
        }
    }

    fn feed(&mut self, input: impl FnOnce(&mut Bridge) -> Vec<Effect>) {
        let effects = input(&mut self.machine);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            self.check_share(&effect);
            match &effect {
                Effect::Answer { client, request, answer } => self.on_answer(*client, *request, answer),
                Effect::Notify { client, event } => self.on_event(*client, event),
                Effect::AnswerSession { client, answer } => self.on_session_answer(*client, *answer),
                Effect::TellSession { client, event } => self.on_session_event(*client, *event),
                Effect::SetMode { .. } | Effect::Present { .. } | Effect::LeaseDisplay { .. } => {
                    assert!(self.asker.is_some() && self.asker == self.compositor, "4: the compositor asked");
                    self.check_has_seat(self.asker);
                }
                Effect::GrantInput { client, .. } | Effect::OpenCard { client, .. } => {
                    self.check_has_seat(Some(*client));
                }
                Effect::AllocateSurface { client, .. } => {
                    let may = self.compositor == Some(*client) || self.applications.contains_key(client);
                    assert!(may && self.asker == Some(*client), "{client:?} asked, who may");
                }
                _ => {}
            }
            self.hardware.carry_out(&effect);
        }
        assert_eq!(self.shared_with, None, "6: a buffer goes with a message");
    }

    fn check_share(&mut self, effect: &Effect) {
        if let Some(with) = self.shared_with.take() {
            let to = match effect {
                Effect::Answer { client, .. } | Effect::Notify { client, .. } => Some(*client),
                _ => None,
            };
            assert_eq!(to, Some(with), "6: a buffer goes to whom it is for");
        }
        if let Effect::ShareSurface { surface, with, access } = effect {
            let allowed = match access {
                Access::Write => self.hardware.buffers.get(surface).map(|(owner, _)| *owner),
                Access::Read => self.compositor,
            };
            assert_eq!(allowed, Some(*with), "6: {access:?}");
            self.shared_with = Some(*with);
        }
    }

    fn check_has_seat(&self, client: Option<ClientId>) {
        let has = client.and_then(|client| self.has_seat.get(&client));
        assert_eq!(has, Some(&true), "3: {client:?} was told that it has the seat");
    }

    fn check_here(&self, client: ClientId) {
        assert!(self.here.contains_key(&client), "2: {client:?} is spoken to, who is not here");
    }

    fn on_answer(&mut self, client: ClientId, number: RequestNumber, answer: &Answer) {
        self.check_here(client);
        let Some((asker, request, _)) = self.asked.remove(&number) else {
            panic!("2: {client:?} is answered twice: {answer:?}");
        };
        assert_eq!(asker, client, "2: who asked is answered");
        let success = Answer::Document(GuiResponse::Success);
        match request {
            Some(Request::Document(GuiRequest::RegisterCompositor { .. })) if *answer == success => {
                assert_eq!(self.compositor, None, "one compositor at a time");
                assert!(self.here[&client].contains(&Door::Compositor), "by its door");
                self.compositor = Some(client);
                // One that waits was told so before.
                self.has_seat.entry(client).or_insert(true);
            }
            Some(Request::Document(GuiRequest::UnregisterCompositor { .. })) if *answer == success => {
                assert_eq!(self.compositor, Some(client), "who is the compositor unregisters");
                self.end_compositor();
            }
            Some(Request::RegisterApplication { pid, process }) if *answer == success => {
                assert_eq!(self.compositor, Some(client), "the compositor registers");
                self.applications.insert(ClientId(process), pid);
            }
            Some(Request::UnregisterApplication { pid }) if *answer == success => {
                self.applications.retain(|_, registered| *registered != pid);
            }
            Some(Request::LeaseDisplay { connectors }) => {
                if let Answer::DisplayLeased { lease } = answer {
                    assert_eq!(self.hardware.leases.get(lease).map(Vec::len), Some(connectors.len()));
                }
            }
            _ => {}
        }
        match answer {
            Answer::Document(GuiResponse::Granted { capability: Capability::InputDevice { device, .. } }) => {
                assert!(self.hardware.inputs.contains(&(client, *device)), "what is granted is there");
            }
            Answer::GpuGranted(_) => {
                assert!(self.hardware.nodes.contains(&client), "what is granted is there");
            }
            _ => {}
        }
    }

    fn on_event(&mut self, client: ClientId, event: &Event) {
        self.check_here(client);
        match event {
            Event::Paused => {
                assert!(!self.hardware.readers().contains(&client), "3: who is paused reads no input");
                assert_ne!(self.has_seat.insert(client, false), Some(false), "it is paused once");
            }
            Event::Resumed => {
                assert_eq!(self.hardware.driver, Driver::Bridge, "told after Linux has done it");
                assert_eq!(self.has_seat.insert(client, true), Some(false), "who was paused is resumed");
            }
            Event::Granted { capability: Capability::InputDevice { device, .. } } => {
                assert!(self.hardware.inputs.contains(&(client, *device)), "what is granted is there");
            }
            Event::Revoked { capability: Capability::InputDevice { device, .. } } => {
                assert!(!self.hardware.inputs.contains(&(client, *device)), "what is revoked is not there");
            }
            Event::GpuGranted(_) => {
                assert!(self.hardware.nodes.contains(&client), "what is granted is there");
            }
            Event::SurfaceCreated { surface, .. } => {
                assert_eq!(self.compositor, Some(client), "the compositor is told");
                assert!(self.hardware.buffers.contains_key(surface), "what it is told of is there");
            }
            Event::SurfaceDestroyed { surface } => {
                assert!(!self.hardware.buffers.contains_key(surface), "what ended is not there");
            }
            _ => {}
        }
    }

    fn on_session_answer(&mut self, client: ClientId, answer: SessionAnswer) {
        self.check_here(client);
        let number = self.asked.iter().find(|(_, (asker, ..))| *asker == client).map(|(number, _)| *number);
        let number = number.unwrap_or_else(|| panic!("2: {client:?} did not ask: {answer:?}"));
        self.asked.remove(&number);
        match answer {
            SessionAnswer::SeatOpened { .. } => drop(self.has_seat.insert(client, false)),
            SessionAnswer::SeatClosed => drop(self.has_seat.remove(&client)),
            _ => {}
        }
    }

    fn on_session_event(&mut self, client: ClientId, event: SessionEvent) {
        self.check_here(client);
        let has = event == SessionEvent::Resume;
        if has {
            assert_eq!(self.hardware.driver, Driver::Session(client), "told after Linux has done it");
        }
        assert_eq!(self.has_seat.insert(client, has), Some(!has), "{client:?} is told {event:?} in turn");
    }

    fn check(&self) {
        self.machine.audit();
        assert_eq!(self.machine.compositor(), self.compositor, "the compositor is whom it was told");
        for holder in self.hardware.holders() {
            assert!(self.here.contains_key(&holder), "3: {holder:?} has something and is not here");
        }
        let readers = self.hardware.readers();
        assert!(readers.len() <= 1, "3: {readers:?} read input");
        self.hardware.check_shown();
        if self.compositor.is_none() {
            assert!(
                self.hardware.buffers.is_empty() && self.hardware.leases.is_empty(),
                "5: nobody has anything"
            );
            assert!(self.hardware.is_as_at_first(), "5: the screens are as they were at first");
            assert!(self.applications.is_empty(), "5: nobody is an application");
        }
        for owner in self.hardware.buffers.values().map(|(owner, _)| owner) {
            let may = self.compositor == Some(*owner) || self.applications.contains_key(owner);
            assert!(may, "5: {owner:?} has a surface and is nobody");
        }
    }
}

fn outcome(is_done: bool) -> Result<(), BackendFailure> {
    if is_done { Ok(()) } else { Err(BackendFailure::Refused { message: "no".into() }) }
}
