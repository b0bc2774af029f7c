//! The machine's invariants, asserted by name.
//!
//! # Invariants
//! 1. The compositor has a lane by the compositor's door.
//! 2. Clients are bounded, in all and by user.
//! 3. Applications are bounded, found by their one pid, and none is the compositor; one with a lane has that pid.
//! 4. Without a compositor nobody holds anything, and connectors show what they showed at first.
//! 5. Whoever holds GPU is the compositor or an application; each and all are within the limits.
//! 6. A surface and its owner's holding name each other; charges are the sum of the buffers, within the promise.
//! 7. A surface that is being made has one open ticket that is not orphaned, and such a ticket has its surface.
//! 8. Granted input devices exist.
//! 9. Open tickets are bounded, in all and by client; who waits has a lane; a device has one grant under way by client.
//! 10. A connector is in one lease; a lease that is being made has an open ticket, and no other has.
//! 11. Sessions are bounded, and each number is one's; the compositor has one. Whose the seat is has a session; it is nobody's only
//!     where nobody could have it.
//! 12. An input device works for the session that has the seat, and for no other. What a session is opening has an open ticket.
//! 13. A render node is granted where there is one; a grant that waits for it has one open ticket that is not orphaned, and such a ticket
//!     has its grant.

use alloc::vec::Vec;

use super::{
    Bridge, Door,
    gpu::Node,
    opened::State as Opening,
    pending::{Wait, Work},
    rule::Rule,
    session::Way,
    surface::State,
};
use crate::limits::{
    APPLICATIONS_MAX, CLIENTS_MAX, CLIENTS_PER_UID_MAX, CONNECTORS_MAX, DEVICES_MAX, MAX_PROCESS_GPU_MEMORY,
    MAX_TOTAL_GPU_MEMORY, PENDING_MAX, PENDING_PER_CLIENT_MAX, SESSION_DEVICES_MAX, SESSIONS_MAX,
    SURFACES_MAX, SURFACES_PER_PROCESS_MAX,
};
use crate::protocol::{ConnectorId, SeatDevice};

impl Bridge {
    /// Asserts every invariant. For tests and simulators, after each step.
    ///
    /// # Panics
    /// With the name of the invariant that does not hold.
    pub fn audit(&self) {
        self.audit_clients();
        self.audit_applications();
        self.audit_no_compositor();
        self.audit_gpu();
        self.audit_nodes();
        self.audit_surfaces();
        self.audit_pending();
        self.audit_hardware();
        self.audit_leases();
        self.audit_sessions();
        self.audit_opened();
    }

    fn audit_sessions(&self) {
        let sessions = &self.sessions.by_client;
        assert!(sessions.len() <= SESSIONS_MAX, "11: sessions are bounded");
        for (&client, session) in sessions {
            assert_eq!(
                self.sessions.by_id(session.id).map(|(of, _)| of),
                Some(client),
                "11: a number is one's"
            );
            let door = if session.way == Way::Native { Door::Compositor } else { Door::Seatd };
            let came = self.clients.get(client).is_some_and(|client| client.doors.contains(&door));
            assert!(came, "11: a session came by its door");
            let is_compositor = self.compositor == Some(client);
            assert_eq!(session.way == Way::Native, is_compositor, "11: the compositor has a session");
        }
        assert!(
            self.compositor.is_none_or(|client| sessions.contains_key(&client)),
            "11: the compositor has one"
        );
        match self.sessions.rule {
            Rule::Nobody => assert_eq!(self.sessions.heir(), None, "11: nobody could have the seat"),
            Rule::Rules { client } => assert!(sessions.contains_key(&client), "11: who rules has a session"),
            Rule::Leaving { client, next, .. } => {
                assert!(sessions.contains_key(&client), "11: who leaves has a session");
                assert!(
                    next.is_none_or(|next| sessions.contains_key(&next)),
                    "11: who follows has a session"
                );
            }
            Rule::HandingOver { ticket, .. } => {
                assert!(ticket.0 <= self.pending.issued_count(), "11: a hand-over has a ticket");
            }
        }
    }

    fn audit_opened(&self) {
        for (&client, session) in &self.sessions.by_client {
            assert!(session.opened.len() <= SESSION_DEVICES_MAX, "12: what is open is bounded");
            let has_seat = match self.sessions.rule {
                Rule::Rules { client: has } | Rule::Leaving { client: has, .. } => has == client,
                Rule::Nobody | Rule::HandingOver { .. } => false,
            };
            for (&number, opened) in &session.opened {
                assert!(opened.openings > 0, "12: what is open was not closed");
                assert!(number.0 <= session.opened_ever, "12: numbers are given once");
                let is_input = matches!(opened.device, SeatDevice::Input(_));
                let works = is_input && opened.state == Opening::Live;
                assert!(has_seat || !works, "12: who has not the seat reads no input");
                let ticket = self.pending.iter().find(|(_, waiting)| {
                    waiting.asker.client == client
                        && waiting.work == Work::Open { number, device: opened.device }
                });
                let is_opening = opened.state == Opening::Opening;
                assert!(!is_opening || ticket.is_some(), "12: what is being opened has a ticket");
            }
        }
        let has_seat = self.compositor.is_some_and(|client| self.sessions.rules(client));
        assert!(has_seat || self.inputs.is_empty(), "12: a compositor without the seat reads no input");
        assert!(
            self.compositor.is_some() || self.suspended_inputs.is_empty(),
            "12: what is suspended is somebody's"
        );
    }

    fn audit_leases(&self) {
        let mut leased: Vec<ConnectorId> = Vec::new();
        for (id, lease) in self.leases.iter() {
            assert!(id.0 <= self.leases.made_count(), "10: numbers are given once");
            leased.extend(&lease.connectors);
            let open = self.pending.iter().filter(|(_, waiting)| waiting.work == Work::Lease { lease: id });
            assert_eq!(open.count(), usize::from(!lease.is_live), "10: one ticket while it is made");
        }
        let count = leased.len();
        leased.sort();
        leased.dedup();
        assert_eq!(leased.len(), count, "10: a connector is in one lease");
    }

    fn audit_clients(&self) {
        if let Some(compositor) = self.compositor {
            let client = self.clients.get(compositor);
            let has_door = client.is_some_and(|client| client.doors.contains(&Door::Compositor));
            assert!(has_door, "1: the compositor came by its door");
        }
        assert!(self.clients.count() <= CLIENTS_MAX, "2: clients are bounded");
        for (_, client) in self.clients.iter() {
            let of_uid = self.clients.count_of_uid(client.identity.uid);
            assert!(of_uid <= CLIENTS_PER_UID_MAX, "2: clients of a user are bounded");
            assert!(!client.doors.is_empty(), "2: a client has a lane");
        }
    }

    fn audit_applications(&self) {
        self.applications.audit();
        assert!(self.applications.count() <= APPLICATIONS_MAX, "3: applications are bounded");
        for application in self.applications.clients() {
            assert_ne!(self.compositor, Some(application), "3: the compositor is no application");
            let pid = self.applications.pid_of(application);
            if let Some(client) = self.clients.get(application) {
                assert_eq!(pid, Some(client.identity.pid), "3: an application has its pid");
            }
        }
    }

    fn audit_no_compositor(&self) {
        if self.compositor.is_some() {
            return;
        }
        let is_empty = self.applications.count() == 0
            && self.gpu.is_empty()
            && self.surfaces.count() == 0
            && self.inputs.is_empty()
            && self.leases.iter().all(|(_, lease)| !lease.is_live);
        assert!(is_empty, "4: without a compositor nobody holds anything");
        for connector in self.connectors.values() {
            assert_eq!(connector.info.current, connector.initial, "4: the display is given back");
        }
    }

    fn audit_gpu(&self) {
        for (&holder, gpu) in &self.gpu {
            let has_standing = self.compositor == Some(holder) || self.applications.pid_of(holder).is_some();
            assert!(has_standing, "5: a holder has standing");
            let capability = gpu.capability;
            assert!((1..=MAX_PROCESS_GPU_MEMORY).contains(&capability.memory_mb), "5: memory of one");
            assert!((1..=SURFACES_PER_PROCESS_MAX).contains(&capability.max_surfaces), "5: surfaces of one");

            let owned = self.surfaces.iter().filter(|(_, surface)| surface.owner == holder);
            let owned: Vec<_> = owned.collect();
            assert!(owned.iter().all(|(id, _)| gpu.surfaces.contains(id)), "6: a surface is its owner's");
            assert_eq!(owned.len(), gpu.surfaces.len(), "6: an owner's surface exists");
            let bytes: u64 = owned.iter().map(|(_, surface)| surface.layout.bytes).sum();
            assert_eq!(bytes, gpu.charged_bytes, "6: charges are the sum of the buffers");
            assert!(bytes <= gpu.bytes_max(), "6: charges are within the promise");
            assert!(owned.len() <= capability.max_surfaces as usize, "6: surfaces are within the promise");
        }
        assert!(self.reserved_mb() <= u64::from(MAX_TOTAL_GPU_MEMORY), "5: memory of all");
        assert!(self.reserved_surfaces() <= u64::from(SURFACES_MAX), "5: surfaces of all");
    }

    fn audit_nodes(&self) {
        let tickets = |wanted| {
            let live = self.pending.iter().filter(|(_, waiting)| waiting.wait != Wait::Orphaned);
            live.filter(|(_, waiting)| waiting.work == Work::OpenNode { holder: wanted }).count()
        };
        for (&holder, gpu) in &self.gpu {
            assert!(gpu.node == Node::Absent || self.render_node.is_some(), "13: there is a node");
            let expected = usize::from(gpu.node == Node::Opening);
            assert_eq!(tickets(holder), expected, "13: one ticket while it is opened");
            assert!(expected == 0 || gpu.surfaces.is_empty(), "13: nothing is made before it is granted");
        }
        for (_, waiting) in self.pending.iter().filter(|(_, waiting)| waiting.wait != Wait::Orphaned) {
            if let Work::OpenNode { holder } = waiting.work {
                assert!(self.gpu.contains_key(&holder), "13: a ticket has its grant");
            }
        }
    }

    fn audit_surfaces(&self) {
        for (id, surface) in self.surfaces.iter() {
            assert!(self.gpu.contains_key(&surface.owner), "6: an owner holds GPU");
            assert!(id.0 <= self.surfaces.made_count(), "6: numbers are given once");
            let tickets = self.pending.iter().filter(|(_, waiting)| {
                waiting.wait != Wait::Orphaned
                    && matches!(waiting.work, Work::MakeSurface { surface, .. } if surface == id)
            });
            let expected = usize::from(surface.state == State::Making);
            assert_eq!(tickets.count(), expected, "7: one ticket while it is made");
        }
    }

    fn audit_pending(&self) {
        // Devices that are granted anew are asked for by nobody, one at a time.
        assert!(self.pending.count() <= PENDING_MAX + DEVICES_MAX, "9: tickets are bounded");
        for (ticket, waiting) in self.pending.iter() {
            let client = waiting.asker.client;
            assert!(ticket.0 <= self.pending.issued_count(), "9: tickets are given once");
            assert!(self.pending.count_of(client) <= PENDING_PER_CLIENT_MAX, "9: tickets of one are bounded");
            if waiting.wait != Wait::Orphaned {
                assert!(self.clients.get(client).is_some(), "9: who waits has a lane");
            }
            match waiting.work {
                Work::MakeSurface { surface, .. } if waiting.wait != Wait::Orphaned => {
                    let made = self.surfaces.get(surface);
                    let is_asked =
                        made.is_some_and(|made| made.state == State::Making && made.owner == client);
                    assert!(is_asked, "7: a ticket has its surface");
                }
                Work::GrantInput { device, .. } => {
                    let grants = self.pending.iter().filter(|(_, other)| {
                        other.asker.client == client && other.work.granted_input() == Some(device)
                    });
                    assert_eq!(grants.count(), 1, "9: one grant under way");
                }
                _ => {}
            }
        }
    }

    fn audit_hardware(&self) {
        assert!(self.connectors.len() <= CONNECTORS_MAX, "8: connectors are bounded");
        assert!(self.devices.len() <= DEVICES_MAX, "8: devices are bounded");
        let all_exist = self.inputs.keys().all(|device| self.devices.contains_key(device));
        assert!(all_exist, "8: granted devices exist");
    }
}
