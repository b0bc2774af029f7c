//! What threads of the hardware tell the bridge, and how any thread of its own wakes it.

use std::{os::fd::OwnedFd, sync::mpsc};

use keyway::Sender;
use keyway_gui::{
    BackendFailure, ClientId, Ticket,
    protocol::{CardId, ConnectorId, ConnectorInfo, LeaseId},
};

/// What the hardware tells.
#[derive(Debug)]
pub(crate) enum News {
    /// What the machine asked for is done, or was refused.
    Answered(Ticket, Result<(), BackendFailure>),
    /// A lease is made, or was refused.
    Leased(Ticket, LeaseId, Result<OwnedFd, String>),
    /// A card is open for a session, or was refused.
    CardOpened(Ticket, ClientId, CardId, Result<OwnedFd, String>),
    /// The render node is open for a client, or was refused.
    NodeOpened(Ticket, ClientId, Result<OwnedFd, String>),
    /// A connector came, or has other modes.
    ConnectorChanged(ConnectorInfo),
    /// Nothing is connected there any more.
    ConnectorRemoved(ConnectorId),
    /// Input devices came or went.
    InputChanged,
    /// A descriptor is dead for whoever has it.
    Revoked(u64),
}

/// How a thread of the bridge's own tells something.
#[derive(Debug)]
pub(crate) struct Bell<N> {
    news: mpsc::Sender<N>,
    lane: Sender,
}

impl<N> Bell<N> {
    pub(crate) fn new(news: mpsc::Sender<N>, lane: Sender) -> Self {
        Bell { news, lane }
    }

    /// Tells it, and wakes the bridge.
    pub(crate) fn tell(&mut self, news: Vec<N>) {
        if news.is_empty() {
            return;
        }
        for one in news {
            // The bridge has gone: nobody needs to know.
            let _ = self.news.send(one);
        }
        // A lane that is full has been rung already.
        let _ = self.lane.try_send(&[]);
    }
}
