//! The processes that have a lane to the bridge, and by which doors they came.
//!
//! Who a client is comes from the operating system, by the process around the machine; nothing here is a client's word.

use alloc::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::{Bridge, Effect, Effects};
use crate::{
    limits::{CLIENTS_MAX, CLIENTS_PER_UID_MAX},
    protocol::{DenialReason, Event, Pid},
};

/// A process, by the number that the kernel gave it and never gives again. It outlives lanes, not the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// Who a client is, as the operating system says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its process number.
    pub pid: Pid,
    /// Its user.
    pub uid: u32,
}

/// By which name a lane was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    /// `rustica-gui`, for everyone.
    Public,
    /// `rustica-gui/compositor`, for whom the policy lets be the compositor.
    Compositor,
    /// The socket of the seatd protocol, for the same ones. Such a client has a session and asks nothing else.
    Seatd,
}

/// Why a lane is refused. The process around the machine closes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LaneRefused {
    /// The bridge has as many clients as it can have.
    #[error("the bridge has {clients_max} clients, and no room for another")]
    TooManyClients {
        /// The limit.
        clients_max: usize,
    },
    /// The user has as many clients as one user can have.
    #[error("user {uid} has {clients_max} clients of the bridge, and no room for another")]
    TooManyOfUser {
        /// Which user.
        uid: u32,
        /// The limit.
        clients_max: usize,
    },
    /// The client was somebody else when it opened its first lane.
    #[error("client {} was pid {} of user {} and is now pid {} of user {}", client.0, was.pid.0, was.uid, is.pid.0, is.uid)]
    IdentityChanged {
        /// Which client.
        client: ClientId,
        /// Who it was.
        was: Identity,
        /// Who it is said to be now.
        is: Identity,
    },
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) identity: Identity,
    pub(super) doors: BTreeSet<Door>,
}

/// The clients, by number.
#[derive(Debug, Default)]
pub(super) struct Clients {
    by_id: BTreeMap<ClientId, Client>,
}

impl Bridge {
    /// A process has opened a lane, perhaps its second.
    ///
    /// # Errors
    /// [`LaneRefused`] if there is no room, or the client is not who it was; nothing has changed then.
    pub fn on_lane_opened(
        &mut self,
        client: ClientId,
        identity: Identity,
        door: Door,
    ) -> Result<Effects<'_>, LaneRefused> {
        self.clients.check_open(client, identity)?;
        let registered_pid = self.applications.pid_of(client);
        if let Some(pid) = registered_pid
            && pid != identity.pid
        {
            // The compositor named the pid of another process: what it allowed, it allowed to nobody.
            self.end_application(client, DenialReason::Unauthorized);
            self.notify_compositor(Event::ApplicationGone { pid });
        }
        let is_new = self.clients.commit_open(client, identity, door);
        if is_new && registered_pid == Some(identity.pid) {
            self.notify(client, Event::Registered);
        }
        Ok(self.effects())
    }

    /// A process died, or closed its last lane: all that it held ends. Also for a process that is watched without a lane.
    pub fn on_client_gone(&mut self, client: ClientId) -> Effects<'_> {
        // First of all, so that nothing is sent to it any more.
        self.clients.remove(client);
        self.end_seat(client);
        if self.compositor == Some(client) {
            self.end_compositor();
        } else if let Some(pid) = self.applications.pid_of(client) {
            self.end_application(client, DenialReason::Unauthorized);
            self.notify_compositor(Event::ApplicationGone { pid });
        }
        self.effects()
    }

    /// Tells a client something, if it has a lane.
    pub(super) fn notify(&mut self, client: ClientId, event: Event) {
        if self.clients.get(client).is_some() {
            self.outbox.push_back(Effect::Notify { client, event });
        }
    }

    /// Tells the compositor something, if there is one.
    pub(super) fn notify_compositor(&mut self, event: Event) {
        if let Some(compositor) = self.compositor {
            self.notify(compositor, event);
        }
    }

    /// Judges the pid in a request: the caller's own, or that of an application which the caller registered. Proof that the
    /// caller may speak for the client that comes out, not that this client may do what is asked.
    pub(super) fn check_pid(&self, caller: ClientId, pid: Pid) -> Result<ClientId, DenialReason> {
        if self.check_own_pid(caller, pid).is_ok() {
            return Ok(caller);
        }
        self.check_compositor(caller)?;
        self.applications.by_pid(pid).ok_or(DenialReason::Unauthorized)
    }

    /// Judges the pid in a request that nobody can make for another.
    pub(super) fn check_own_pid(&self, caller: ClientId, pid: Pid) -> Result<(), DenialReason> {
        match self.clients.get(caller) {
            Some(client) if client.identity.pid == pid => Ok(()),
            _ => Err(DenialReason::Unauthorized),
        }
    }

    /// Judges whether the caller is the compositor.
    pub(super) fn check_compositor(&self, caller: ClientId) -> Result<(), DenialReason> {
        if self.compositor == Some(caller) { Ok(()) } else { Err(DenialReason::Unauthorized) }
    }
}

impl Clients {
    fn check_open(&self, client: ClientId, identity: Identity) -> Result<(), LaneRefused> {
        if let Some(Client { identity: was, .. }) = self.by_id.get(&client) {
            if *was == identity {
                return Ok(());
            }
            return Err(LaneRefused::IdentityChanged { client, was: *was, is: identity });
        }
        if self.by_id.len() >= CLIENTS_MAX {
            return Err(LaneRefused::TooManyClients { clients_max: CLIENTS_MAX });
        }
        if self.count_of_uid(identity.uid) >= CLIENTS_PER_UID_MAX {
            return Err(LaneRefused::TooManyOfUser { uid: identity.uid, clients_max: CLIENTS_PER_UID_MAX });
        }
        Ok(())
    }

    /// True if this is the client's first lane.
    fn commit_open(&mut self, id: ClientId, identity: Identity, door: Door) -> bool {
        let is_new = !self.by_id.contains_key(&id);
        let client = self.by_id.entry(id).or_insert_with(|| Client { identity, doors: BTreeSet::new() });
        client.doors.insert(door);
        is_new
    }

    fn remove(&mut self, client: ClientId) {
        self.by_id.remove(&client);
    }

    pub(super) fn get(&self, client: ClientId) -> Option<&Client> {
        self.by_id.get(&client)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ClientId, &Client)> {
        self.by_id.iter().map(|(&id, client)| (id, client))
    }

    pub(super) fn count(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn count_of_uid(&self, uid: u32) -> usize {
        self.by_id.values().filter(|client| client.identity.uid == uid).count()
    }
}
