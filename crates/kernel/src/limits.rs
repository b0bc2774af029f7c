//! How much may exist: for one process, for one user, and in all.
//!
//! The broker chooses them when it begins; what it cannot know better it takes from [`keyway_abi::limits`].

use keyway_abi::{
    Denial, Payer, Quota,
    limits::{
        DERIVATIONS_MAX, DESCRIPTORS_MAX, EVERYONE_PAGES_MAX, HANDLES_MAX, LANES_MAX, MAPPINGS_MAX,
        NAMES_MAX, OBJECTS_MAX, PAGES_MAX, PROCESS_BYTES_MAX, PROCESS_SESSIONS_MAX, REQUESTS_MAX,
        SESSION_DESCRIPTORS, USER_BYTES_MAX, USER_DERIVATIONS_MAX, USER_DESCRIPTORS_MAX, USER_HANDLES_MAX,
        USER_LANES_MAX, USER_MAPPINGS_MAX, USER_NAMES_MAX, USER_OBJECTS_MAX, USER_PAGES_MAX,
        USER_REQUESTS_MAX, USER_SESSIONS_MAX,
    },
};

/// What something costs, or how much of it there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// Sessions, bound or not.
    pub sessions: u32,
    /// Capabilities held.
    pub handles: u32,
    /// Objects made.
    pub objects: u32,
    /// Lane ends.
    pub lanes: u32,
    /// Mappings open.
    pub mappings: u32,
    /// Names published.
    pub names: u32,
    /// Descriptors that the broker holds.
    pub descriptors: u32,
    /// Capabilities made from others, whoever holds them.
    pub derivations: u32,
    /// Requests whose reply is to come.
    pub requests: u32,
    /// Broker pages.
    pub pages: u32,
    /// Bytes of shared memory.
    pub bytes: u64,
}

impl Charge {
    /// Nothing.
    pub const NOTHING: Charge = Charge {
        sessions: 0,
        handles: 0,
        objects: 0,
        lanes: 0,
        mappings: 0,
        names: 0,
        descriptors: 0,
        derivations: 0,
        requests: 0,
        pages: 0,
        bytes: 0,
    };
    /// One capability.
    pub(crate) const HANDLE: Charge = Charge { handles: 1, ..Charge::NOTHING };
    /// One capability made from another.
    pub(crate) const DERIVATION: Charge = Charge { derivations: 1, ..Charge::NOTHING };
    /// One request whose reply is to come.
    pub(crate) const REQUEST: Charge = Charge { requests: 1, ..Charge::NOTHING };
    /// One session.
    pub(crate) const SESSION: Charge =
        Charge { sessions: 1, descriptors: SESSION_DESCRIPTORS, pages: 1, ..Charge::NOTHING };
    /// One more broker page.
    pub(crate) const PAGE: Charge = Charge { pages: 1, ..Charge::NOTHING };
    /// One descriptor that came from a process and is not closed yet.
    pub(crate) const DESCRIPTOR: Charge = Charge { descriptors: 1, ..Charge::NOTHING };
    /// No limit at all.
    const UNLIMITED: Charge = Charge {
        sessions: u32::MAX,
        handles: u32::MAX,
        objects: u32::MAX,
        lanes: u32::MAX,
        mappings: u32::MAX,
        names: u32::MAX,
        descriptors: u32::MAX,
        derivations: u32::MAX,
        requests: u32::MAX,
        pages: u32::MAX,
        bytes: u64::MAX,
    };

    fn zip(self, other: Charge, with: impl Fn(u64, u64) -> u64) -> Charge {
        let narrow = |a: u32, b: u32| with(a.into(), b.into()) as u32;
        Charge {
            sessions: narrow(self.sessions, other.sessions),
            handles: narrow(self.handles, other.handles),
            objects: narrow(self.objects, other.objects),
            lanes: narrow(self.lanes, other.lanes),
            mappings: narrow(self.mappings, other.mappings),
            names: narrow(self.names, other.names),
            descriptors: narrow(self.descriptors, other.descriptors),
            derivations: narrow(self.derivations, other.derivations),
            requests: narrow(self.requests, other.requests),
            pages: narrow(self.pages, other.pages),
            bytes: with(self.bytes, other.bytes),
        }
    }

    /// Both together. Cannot overflow: what is used is below the limits, and what is asked for is judged first.
    pub(crate) fn plus(self, other: Charge) -> Charge {
        self.zip(other, u64::saturating_add)
    }

    pub(crate) fn minus(self, other: Charge) -> Charge {
        self.zip(other, |used, released| {
            debug_assert!(used >= released, "what is released was charged");
            used.saturating_sub(released)
        })
    }

    fn rows(self) -> [(Quota, u64); 11] {
        [
            (Quota::Sessions, self.sessions.into()),
            (Quota::Handles, self.handles.into()),
            (Quota::Objects, self.objects.into()),
            (Quota::Lanes, self.lanes.into()),
            (Quota::Mappings, self.mappings.into()),
            (Quota::Names, self.names.into()),
            (Quota::Descriptors, self.descriptors.into()),
            (Quota::Derivations, self.derivations.into()),
            (Quota::Requests, self.requests.into()),
            (Quota::Pages, self.pages.into()),
            (Quota::Bytes, self.bytes),
        ]
    }

    /// Whether so much more is within `limits`, which are those of `of`.
    pub(crate) fn fits(self, asked: Charge, limits: Charge, of: Payer) -> Result<(), Denial> {
        let rows = self.rows().into_iter().zip(asked.rows()).zip(limits.rows());
        for (((quota, used), (_, asked)), (_, max)) in rows {
            if asked > max.saturating_sub(used) {
                return Err(Denial::QuotaExceeded { quota, of, asked, used, max });
            }
        }
        Ok(())
    }
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of one process, over all its sessions.
    pub process: Charge,
    /// Of the processes of one user together.
    pub user: Charge,
    /// Of all processes together.
    pub everyone: Charge,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            process: Charge {
                sessions: PROCESS_SESSIONS_MAX,
                handles: HANDLES_MAX,
                objects: OBJECTS_MAX,
                lanes: LANES_MAX,
                mappings: MAPPINGS_MAX,
                names: NAMES_MAX,
                descriptors: DESCRIPTORS_MAX,
                derivations: DERIVATIONS_MAX,
                requests: REQUESTS_MAX,
                pages: PAGES_MAX,
                bytes: PROCESS_BYTES_MAX,
            },
            user: Charge {
                sessions: USER_SESSIONS_MAX,
                handles: USER_HANDLES_MAX,
                objects: USER_OBJECTS_MAX,
                lanes: USER_LANES_MAX,
                mappings: USER_MAPPINGS_MAX,
                names: USER_NAMES_MAX,
                descriptors: USER_DESCRIPTORS_MAX,
                derivations: USER_DERIVATIONS_MAX,
                requests: USER_REQUESTS_MAX,
                pages: USER_PAGES_MAX,
                bytes: USER_BYTES_MAX,
            },
            everyone: Charge { pages: EVERYONE_PAGES_MAX, ..Charge::UNLIMITED },
        }
    }
}

impl Limits {
    /// No limits at all, for a kernel of one's own. A table still ends at
    /// [`TABLE_MAX`](keyway_abi::limits::TABLE_MAX).
    pub const NONE: Limits =
        Limits { process: Charge::UNLIMITED, user: Charge::UNLIMITED, everyone: Charge::UNLIMITED };

    /// The same for a broker that can have `descriptors` open for its processes: a user has at most three quarters of them, a
    /// process half.
    #[must_use]
    pub fn with_descriptors(mut self, descriptors: u32) -> Self {
        self.everyone.descriptors = descriptors;
        self.user.descriptors = self.user.descriptors.min(descriptors - descriptors / 4);
        self.process.descriptors = self.process.descriptors.min(descriptors / 2);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_descriptors_are_shared_out_and_many_change_nothing() {
        let limits = Limits::default().with_descriptors(100);
        let shares = [limits.process, limits.user, limits.everyone].map(|share| share.descriptors);
        assert_eq!(shares, [50, 75, 100]);
        let limits = Limits::default().with_descriptors(1 << 20);
        assert_eq!(limits.process, Limits::default().process);
        assert_eq!(limits.user, Limits::default().user);
    }

    #[test]
    fn what_is_over_its_limit_already_refuses_only_more_of_the_same() {
        let max = Charge { handles: 2, lanes: 2, ..Charge::NOTHING };
        let used = Charge { handles: 3, lanes: 1, ..Charge::NOTHING };
        assert_eq!(used.fits(Charge { lanes: 1, ..Charge::NOTHING }, max, Payer::User), Ok(()));
        let denial =
            Denial::QuotaExceeded { quota: Quota::Handles, of: Payer::User, asked: 1, used: 3, max: 2 };
        assert_eq!(used.fits(Charge::HANDLE, max, Payer::User), Err(denial));
    }
}
