//! What the machine asks of the process around it.
//!
//! Effects are carried out in the order in which they come. A message after a [`Effect::RevokeInput`] or
//! [`Effect::FreeSurface`] tells that it is done, so it is sent once that is so.

use alloc::{collections::VecDeque, vec::Vec};

use super::{ClientId, RequestNumber, Ticket};
use crate::protocol::{
    Answer, CardId, ConnectorId, DeviceId, DisplayMode, Event, LeaseId, Rectangle, SessionAnswer,
    SessionEvent, SurfaceConfig, SurfaceId, SurfaceLayout,
};

/// One thing to carry out. Those with a ticket are answered by [`Bridge::on_backend`](super::Bridge::on_backend).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Answer a request. The grant of an input device carries the descriptor that its `GrantInput` brought, and
    /// `Answer::GpuGranted` that of the client's `OpenNode`; events that tell the same do so too.
    Answer {
        /// Who asked.
        client: ClientId,
        /// The number that came with the request.
        request: RequestNumber,
        /// The answer.
        answer: Answer,
    },
    /// Tell a client something. It has at least one lane open.
    Notify {
        /// Whom.
        client: ClientId,
        /// What.
        event: Event,
    },
    /// Set a connector's mode.
    SetMode {
        /// For the answer.
        ticket: Ticket,
        /// Which connector.
        connector: ConnectorId,
        /// One of its modes.
        mode: DisplayMode,
    },
    /// Make a surface's buffer, with exactly this layout.
    AllocateSurface {
        /// For the answer.
        ticket: Ticket,
        /// Its number.
        surface: SurfaceId,
        /// Who will write it.
        client: ClientId,
        /// What it was asked to be.
        config: SurfaceConfig,
        /// What it must be.
        layout: SurfaceLayout,
    },
    /// End a surface and its buffer: take it off the screen, revoke what was shared of it.
    FreeSurface {
        /// Which surface.
        surface: SurfaceId,
    },
    /// Make a capability to a surface's buffer and attach it to the message in the next effect.
    ShareSurface {
        /// Which surface.
        surface: SurfaceId,
        /// To whom the next effect's message goes.
        with: ClientId,
        /// What the capability allows.
        access: Access,
    },
    /// Open an input device for a client.
    GrantInput {
        /// For the answer.
        ticket: Ticket,
        /// For whom.
        client: ClientId,
        /// Which device.
        device: DeviceId,
        /// Whether others may read it meanwhile.
        sharing: Sharing,
    },
    /// Take an input device from a client. The client or the device may be gone already.
    RevokeInput {
        /// From whom.
        client: ClientId,
        /// Which device.
        device: DeviceId,
    },
    /// Open the render node for a client.
    OpenNode {
        /// For the answer.
        ticket: Ticket,
        /// For whom.
        client: ClientId,
    },
    /// Give the render node to a client no longer. What the client has taken already stays with it.
    EndNode {
        /// Whom.
        client: ClientId,
    },
    /// Show a surface.
    Present {
        /// For the answer.
        ticket: Ticket,
        /// Where.
        connector: ConnectorId,
        /// What.
        surface: SurfaceId,
        /// What has changed since it was last shown there; all of it, if none are named.
        damage: Vec<Rectangle>,
    },
    /// Make a descriptor by which connectors can be driven.
    LeaseDisplay {
        /// For the answer.
        ticket: Ticket,
        /// Its number.
        lease: LeaseId,
        /// Which connectors.
        connectors: Vec<ConnectorId>,
    },
    /// End a lease, whoever holds it, and give its connectors back as they were. It may be gone already.
    EndLease {
        /// Which lease.
        lease: LeaseId,
    },
    /// Open a card for a session, which becomes its master.
    OpenCard {
        /// For the answer.
        ticket: Ticket,
        /// For whom.
        client: ClientId,
        /// Which card.
        card: CardId,
    },
    /// Close a card that was opened for a session. The client may be gone already.
    CloseCard {
        /// For whom it was opened.
        client: ClientId,
        /// Which card.
        card: CardId,
    },
    /// Stop whoever drives the screens and let another do it.
    HandOver {
        /// For the answer.
        ticket: Ticket,
        /// Who is to drive them.
        to: Driver,
    },
    /// Answer what a session asked. An opened device goes with its descriptor.
    AnswerSession {
        /// Who asked.
        client: ClientId,
        /// The answer.
        answer: SessionAnswer,
    },
    /// Tell a session something.
    TellSession {
        /// Whom.
        client: ClientId,
        /// What.
        event: SessionEvent,
    },
    /// Give the display back as it was before there was a compositor: modes and contents of all connectors.
    RestoreDisplay,
    /// Watch a process that has no lane open, and call `on_client_gone` when it dies.
    WatchProcess {
        /// Which process.
        client: ClientId,
    },
}

/// Who drives the screens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Nobody: they show what they showed at first.
    Nobody,
    /// The bridge itself, for the compositor, whose leases go on.
    Bridge,
    /// This client, by the cards that it has open.
    Session(ClientId),
}

/// Whether others may read an input device beside who was granted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// They may.
    Shared,
    /// Nobody else gets its events, the console included.
    Exclusive,
}

/// What a shared buffer's capability allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To be its one writer.
    Write,
    /// To read it.
    Read,
}

/// What is to be carried out, in order. It borrows the machine, so the next input waits until it is drained; what is left
/// in it when it is dropped comes first the next time.
#[derive(Debug)]
#[must_use = "effects must be carried out"]
pub struct Effects<'bridge> {
    outbox: &'bridge mut VecDeque<Effect>,
}

impl<'bridge> Effects<'bridge> {
    pub(super) fn new(outbox: &'bridge mut VecDeque<Effect>) -> Self {
        Effects { outbox }
    }
}

impl Iterator for Effects<'_> {
    type Item = Effect;

    fn next(&mut self) -> Option<Effect> {
        self.outbox.pop_front()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.outbox.len(), Some(self.outbox.len()))
    }
}

impl ExactSizeIterator for Effects<'_> {}
