//! Real screens: DRM/KMS, `drm(7)` and `drm-kms(7)`.
//!
//! A thread of its own has the cards, because setting a mode takes tens of milliseconds and a picture is on the screen only when
//! the screen says so: whoever waits for that holds up nobody else. It takes [`Job`]s and tells [`News`].
//!
//! Floors, lowest first: `card`, `scanout`, `output`, `master`; this.

mod card;
mod master;
mod output;
mod scanout;

use std::{
    collections::BTreeMap,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{Arc, mpsc},
};

use drm::control::{self, Device as _, Event, RawResourceHandle, connector, crtc};
use keyway::RegionReader;
use keyway_gui::{
    BackendFailure, ClientId, Driver, Ticket,
    protocol::{
        CardId, ConnectorId, ConnectorInfo, DisplayMode, LeaseId, Rectangle, RenderNode, SurfaceConfig,
        SurfaceId, SurfaceLayout,
    },
};
use keyway_sys::{
    device::{self, DeviceNumber},
    epoll::{Epoll, Interest, Ready},
    uevent::{Heard, Uevents},
};

pub use self::master::CardGrant;
use self::{
    card::{Card, Node},
    master::Masters,
    output::{Output, Picture},
};
use crate::{
    damage::Damage,
    news::{Bell, News},
};

/// What the cards are to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// Set a connector's mode.
    SetMode { ticket: Ticket, connector: ConnectorId, mode: DisplayMode },
    /// Show a surface.
    Show {
        ticket: Ticket,
        connector: ConnectorId,
        surface: SurfaceId,
        pixels: Arc<RegionReader>,
        config: SurfaceConfig,
        layout: SurfaceLayout,
        damage: Vec<Rectangle>,
    },
    /// Take a surface off all screens.
    Hide(SurfaceId),
    /// Make a descriptor by which connectors of one card can be driven.
    Lease { ticket: Ticket, lease: LeaseId, connectors: Vec<ConnectorId> },
    /// End it, whoever has it, and give its connectors back as they were.
    EndLease(LeaseId),
    /// Open a card for a session, which has the seat.
    OpenCard { ticket: Ticket, client: ClientId, card: CardId, grant: CardGrant },
    /// End what a session has of a card.
    CloseCard { client: ClientId, card: CardId },
    /// Open the render node.
    OpenNode { ticket: Ticket, client: ClientId },
    /// Let another drive the screens.
    HandOver { ticket: Ticket, to: Driver },
    /// Give all screens back as they were.
    Restore,
    /// Give all back and end.
    Stop,
}

/// The cards and what hangs on them.
#[derive(Debug)]
pub(crate) struct Cards {
    cards: Vec<Card>,
    /// Of each card, in the same order.
    masters: Vec<Masters>,
    /// Leases that have ended while the bridge was not the master, which alone can end them.
    ended: Vec<(usize, control::LeaseId)>,
    outputs: BTreeMap<ConnectorId, (usize, Output)>,
    leases: BTreeMap<LeaseId, Leased>,
    /// By which others render, with the name of its card.
    render: Option<(Node, String)>,
}

/// What was leased.
#[derive(Debug)]
struct Leased {
    card: usize,
    lessee: control::LeaseId,
    connectors: Vec<ConnectorId>,
}

impl Cards {
    /// All cards of which this process can be the master, and why not the others.
    pub(crate) fn open(root: &Path) -> (Self, Vec<String>) {
        let (mut cards, mut refused) = (Vec::new(), Vec::new());
        for node in Node::all(root) {
            match Card::open(&node) {
                Ok(card) => cards.push(card),
                Err(why) => refused.push(why),
            }
        }
        let masters = cards.iter().map(|card| Masters::new(card.node.clone())).collect();
        let (outputs, leases, ended) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let mut found = Cards { cards, masters, ended, outputs, leases, render: None };
        found.probe(None);
        found.render = found.find_render_node(root);
        (found, refused)
    }

    /// Whether there is nothing to show anything on.
    pub(crate) fn is_empty(&self) -> bool {
        self.cards.is_empty()
    }

    /// What can show something.
    pub(crate) fn connectors(&self) -> Vec<ConnectorInfo> {
        self.outputs.values().map(|(_, output)| output.info()).collect()
    }

    /// The cards, by the numbers of their devices.
    pub(crate) fn numbers(&self) -> Vec<(DeviceNumber, CardId)> {
        let cards = (0..).map(CardId).zip(&self.cards);
        cards.map(|(id, card)| (card.node.number, id)).collect()
    }

    /// By which others render.
    pub(crate) fn render_node(&self) -> Option<RenderNode> {
        let (node, card) = self.render.as_ref()?;
        Some(RenderNode { name: node.name.clone(), card: card.clone() })
    }

    /// The render node of the first card that drives a screen, or else of the first that could, if this process may open it.
    fn find_render_node(&self, root: &Path) -> Option<(Node, String)> {
        let drives = |index: &usize| self.outputs.values().any(|(of, _)| of == index);
        let (first, rest): (Vec<usize>, Vec<usize>) = (0..self.cards.len()).partition(drives);
        first.into_iter().chain(rest).find_map(|index| {
            let card = &self.cards[index].node;
            let node = card.render(root)?;
            device::open(&node.path, node.number).ok()?;
            Some((node, card.name.clone()))
        })
    }

    fn open_node(&self) -> Result<OwnedFd, String> {
        let (node, _) = self.render.as_ref().ok_or("the machine has no render node")?;
        device::open(&node.path, node.number).map_err(|error| format!("{}: {error}", node.path.display()))
    }

    /// Diagonal of the smallest built-in panel, in millimetres.
    pub(crate) fn panel_mm(&self) -> Option<u32> {
        self.outputs.values().filter_map(|(_, output)| output.panel_mm).min()
    }

    /// Looks at the connectors of a card, or of all. Tells what came, changed and went.
    fn probe(&mut self, name: Option<&str>) -> Vec<News> {
        let mut news = Vec::new();
        for index in 0..self.cards.len() {
            let card = &self.cards[index];
            if name.is_some_and(|name| name != card.node.name) {
                continue;
            }
            card.ask_anew();
            // A card that is gone has no connectors any more.
            let handles =
                card.resource_handles().map(|found| found.connectors().to_vec()).unwrap_or_default();
            let mut there: BTreeMap<ConnectorId, Output> = BTreeMap::new();
            for handle in handles {
                let id = number(index, handle);
                if let Ok(Some(output)) = Output::read(card, id, handle, true) {
                    there.insert(id, output);
                }
            }
            news.extend(self.take_in(index, there));
        }
        news
    }

    fn take_in(&mut self, index: usize, there: BTreeMap<ConnectorId, Output>) -> Vec<News> {
        let mut news = Vec::new();
        let of_card = |(id, (card, _)): (&ConnectorId, &(usize, Output))| (*card == index).then_some(*id);
        let before: Vec<ConnectorId> = self.outputs.iter().filter_map(of_card).collect();
        for id in before.into_iter().filter(|id| !there.contains_key(id)) {
            if let Some((_, mut output)) = self.outputs.remove(&id) {
                news.extend(gone(output.restore(&self.cards[index])));
                news.push(News::ConnectorRemoved(id));
            }
        }
        for (id, output) in there {
            if let Some((_, known)) = self.outputs.get_mut(&id) {
                let before = known.info();
                known.take_modes(output);
                if known.info() != before {
                    news.push(News::ConnectorChanged(known.info()));
                }
            } else {
                news.push(News::ConnectorChanged(output.info()));
                self.outputs.insert(id, (index, output));
            }
        }
        news
    }

    fn carry_out(&mut self, job: Job) -> Vec<News> {
        match job {
            Job::SetMode { ticket, connector, mode } => {
                let done = self.set_mode(connector, mode).map_err(|error| failed(&error));
                // A picture that was on its way is not seen any more.
                let seen = self.outputs.get_mut(&connector).filter(|_| done.is_ok());
                let seen = seen.and_then(|(_, output)| output.on_flip());
                let seen = seen.map(|ticket| News::Answered(ticket, Ok(())));
                seen.into_iter().chain([News::Answered(ticket, done)]).collect()
            }
            Job::Show { ticket, connector, surface, pixels, config, layout, damage } => {
                let damage = Damage::named(damage);
                let picture = Picture { ticket, surface, pixels, config, layout, damage };
                let Some((card, output)) = self.outputs.get_mut(&connector) else {
                    return vec![News::Answered(ticket, Err(failed(&"the connector is gone")))];
                };
                let card = &self.cards[*card];
                output.show(card, picture).err().map(refused).into_iter().collect()
            }
            Job::Hide(surface) => {
                let hidden = self.outputs.values_mut();
                hidden.flat_map(|(card, output)| gone(output.hide(&self.cards[*card], surface))).collect()
            }
            Job::Lease { ticket, lease, connectors } => {
                vec![News::Leased(
                    ticket,
                    lease,
                    self.lease(lease, connectors).map_err(|error| error.to_string()),
                )]
            }
            Job::EndLease(lease) => self.end_lease(lease),
            Job::OpenCard { ticket, client, card, grant } => {
                let opened = self.open_card(client, card, grant).map_err(|error| error.to_string());
                vec![News::CardOpened(ticket, client, card, opened)]
            }
            Job::CloseCard { client, card } => {
                let (cards, masters) = (&self.cards, &mut self.masters);
                let card = card.0 as usize;
                if let (Some(card), Some(masters)) = (cards.get(card), masters.get_mut(card)) {
                    note(&card.node.name, masters.close(card.as_fd(), client));
                }
                Vec::new()
            }
            Job::OpenNode { ticket, client } => {
                vec![News::NodeOpened(ticket, client, self.open_node())]
            }
            Job::HandOver { ticket, to } => self.hand_over(ticket, to),
            Job::Restore | Job::Stop => {
                let restored = self.outputs.values_mut();
                restored.flat_map(|(card, output)| gone(output.restore(&self.cards[*card]))).collect()
            }
        }
    }

    /// Leases connectors, each with a CRTC and its planes: `drm-kms(7)`, `DRM_IOCTL_MODE_CREATE_LEASE`.
    fn lease(&mut self, lease: LeaseId, connectors: Vec<ConnectorId>) -> io::Result<OwnedFd> {
        let gone = || io::Error::other("the connector is gone");
        let first = connectors.first().and_then(|connector| self.outputs.get(connector)).ok_or_else(gone)?;
        let of = first.0;
        let mut taken = self.crtcs_of_others(of, &connectors);
        let (mut objects, mut lent) = (Vec::new(), Vec::new());
        for connector in &connectors {
            let (card, output) = self.outputs.get(connector).ok_or_else(gone)?;
            if *card != of {
                return Err(io::Error::other("a lease is of the connectors of one card"));
            }
            let crtc = output.choose_crtc(&self.cards[of], &taken)?;
            taken.push(crtc);
            lent.push((*connector, crtc));
            objects.extend([RawResourceHandle::from(output.connector()), crtc.into()]);
            objects.extend(self.cards[of].planes(crtc)?.into_iter().map(RawResourceHandle::from));
        }
        let (lessee, fd) = self.cards[of].create_lease(&objects, LEASE_FLAGS)?;
        for (connector, crtc) in lent {
            if let Some((_, output)) = self.outputs.get_mut(&connector) {
                output.lend(crtc);
            }
        }
        self.leases.insert(lease, Leased { card: of, lessee, connectors });
        Ok(fd)
    }

    fn end_lease(&mut self, lease: LeaseId) -> Vec<News> {
        let Some(Leased { card: of, lessee, connectors }) = self.leases.remove(&lease) else {
            return Vec::new();
        };
        let card = &self.cards[of];
        if self.masters[of].is_own() {
            // Its holder may have closed it, which ends it too.
            let _ = card.revoke_lease(lessee);
        } else {
            self.ended.push((of, lessee));
        }
        let mut news = Vec::new();
        for connector in connectors {
            if let Some((_, output)) = self.outputs.get_mut(&connector) {
                news.extend(gone(output.restore(card)));
            }
        }
        news
    }

    fn open_card(&mut self, client: ClientId, card: CardId, grant: CardGrant) -> io::Result<OwnedFd> {
        let index = card.0 as usize;
        let gone = || io::Error::other("the card is gone");
        let own = self.cards.get(index).ok_or_else(gone)?;
        self.masters.get_mut(index).ok_or_else(gone)?.open(own.as_fd(), client, grant)
    }

    /// Lets another drive the screens of all cards. Where Linux refuses a card, the others are handed over all the same, and whoever drives
    /// that card is told by its own calls.
    fn hand_over(&mut self, ticket: Ticket, to: Driver) -> Vec<News> {
        let mut news = Vec::new();
        for (index, card) in self.cards.iter().enumerate() {
            let (masters, own) = (&mut self.masters[index], card.as_fd());
            let outputs = self.outputs.values_mut().filter(|(of, _)| *of == index);
            let was_own = masters.is_own();
            if let Driver::Session(client) = to {
                news.extend(outputs.flat_map(|(_, output)| gone(output.stand_still())));
                note(&card.node.name, masters.hand_to(own, client));
                continue;
            }
            note(&card.node.name, masters.take_back(own));
            if masters.is_own() && !was_own {
                for (_, lessee) in self.ended.extract_if(.., |(of, _)| *of == index) {
                    let _ = card.revoke_lease(lessee);
                }
                for (_, output) in outputs {
                    note(&card.node.name, output.show_again(card));
                }
            }
        }
        news.push(News::Answered(ticket, Ok(())));
        news
    }

    fn crtcs_of_others(&self, card: usize, connectors: &[ConnectorId]) -> Vec<crtc::Handle> {
        let others =
            self.outputs.values().filter(|(of, output)| *of == card && !connectors.contains(&output.id));
        others.filter_map(|(_, output)| output.crtc()).collect()
    }

    fn set_mode(&mut self, connector: ConnectorId, mode: DisplayMode) -> io::Result<()> {
        let of = self.outputs.get(&connector).map(|(card, _)| *card);
        let of = of.ok_or_else(|| io::Error::other("the connector is gone"))?;
        let taken = self.crtcs_of_others(of, &[connector]);
        match self.outputs.get_mut(&connector) {
            Some((_, output)) => output.set_mode(&self.cards[of], mode, &taken),
            None => Ok(()),
        }
    }

    /// Something was plugged in or pulled out.
    fn look_around(&mut self, uevents: &Uevents) -> Result<Vec<News>, keyway_sys::Error> {
        let (mut news, mut is_input) = (Vec::new(), false);
        loop {
            match uevents.hear()? {
                Heard::Nothing => break,
                Heard::Lost => {
                    is_input = true;
                    news.extend(self.probe(None));
                }
                Heard::Uevent(uevent) => match uevent.get("SUBSYSTEM") {
                    Some("input") => is_input = true,
                    Some("drm") if uevent.get("HOTPLUG") == Some("1") => {
                        let card = uevent.get("DEVNAME").and_then(|node| node.strip_prefix("dri/"));
                        news.extend(self.probe(card));
                    }
                    _ => {}
                },
            }
        }
        if is_input {
            news.push(News::InputChanged);
        }
        Ok(news)
    }

    /// A card has something to tell: pictures that are on the screen now.
    fn on_events(&mut self, index: usize) -> Vec<News> {
        let card = &self.cards[index];
        let Ok(events) = card.receive_events() else { return Vec::new() };
        let mut news = Vec::new();
        for event in events {
            let Event::PageFlip(flip) = event else { continue };
            let of_crtc =
                |(card, output): &&mut (usize, Output)| *card == index && output.crtc() == Some(flip.crtc);
            let Some((_, output)) = self.outputs.values_mut().find(of_crtc) else { continue };
            news.extend(output.on_flip().map(|ticket| News::Answered(ticket, Ok(()))));
            news.extend(output.show_next(card).err().map(refused));
        }
        news
    }
}

/// Of the lease's descriptor: `O_CLOEXEC | O_NONBLOCK`.
const LEASE_FLAGS: u32 = 0o2_004_000;

/// A connector's number: the card's and its own, which are small.
fn number(card: usize, handle: connector::Handle) -> ConnectorId {
    ConnectorId((card as u32) << 24 | u32::from(handle) & 0x00ff_ffff)
}

fn failed(error: &dyn std::fmt::Display) -> BackendFailure {
    BackendFailure::Refused { message: error.to_string() }
}

fn refused((ticket, error): (Ticket, crate::screen::ShowError)) -> News {
    News::Answered(ticket, Err(failed(&error)))
}

/// Says what went wrong where nobody waits for an answer.
fn note(card: &str, outcome: io::Result<()>) {
    if let Err(error) = outcome {
        eprintln!("keyway: {card}: {error}");
    }
}

fn gone(tickets: Vec<Ticket>) -> Vec<News> {
    let why = || Err(failed(&"what was to be shown is gone"));
    tickets.into_iter().map(|ticket| News::Answered(ticket, why())).collect()
}

/// Serves the cards until [`Job::Stop`]; `wake` has a byte for each job.
///
/// # Errors
/// What Linux answers to waiting, which is nothing that is known.
pub(crate) fn serve(
    mut cards: Cards,
    uevents: &Uevents,
    jobs: &mpsc::Receiver<Job>,
    mut wake: io::PipeReader,
    bell: &mut Bell<News>,
) -> Result<(), keyway_sys::Error> {
    let epoll = Epoll::new()?;
    epoll.add(wake.as_fd(), JOBS, Interest::Read)?;
    epoll.add(uevents, UEVENTS, Interest::Read)?;
    for (index, card) in cards.cards.iter().enumerate() {
        epoll.add(card, index as u64, Interest::Read)?;
    }
    let mut ready: Vec<Ready> = Vec::new();
    loop {
        epoll.wait(&mut ready, None)?;
        for Ready { token, hangup, .. } in ready.iter().copied() {
            match token {
                JOBS => {
                    let mut bytes = [0; 64];
                    // Nobody can send a job any more if there is nothing to read.
                    let is_over = !matches!(wake.read(&mut bytes), Ok(1..));
                    for job in jobs.try_iter().chain(is_over.then_some(Job::Stop)) {
                        let is_last = matches!(job, Job::Stop);
                        bell.tell(cards.carry_out(job));
                        if is_last {
                            return Ok(());
                        }
                    }
                }
                UEVENTS => bell.tell(cards.look_around(uevents)?),
                card => {
                    let card = card as usize;
                    bell.tell(cards.on_events(card));
                    if hangup {
                        // It was pulled out.
                        epoll.delete(&cards.cards[card])?;
                        bell.tell(cards.take_in(card, BTreeMap::new()));
                    }
                }
            }
        }
    }
}

const JOBS: u64 = u64::MAX;
const UEVENTS: u64 = u64::MAX - 1;
