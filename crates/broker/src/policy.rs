//! Which rights a process that connects begins with.

use keyway_abi::Rights;

use crate::identity::Who;

/// What a process gets when it connects: rights on itself, and on the directory of service names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// On its own process.
    pub own: Rights,
    /// On the directory.
    pub directory: Rights,
}

/// The rules by which processes are let in.
///
/// Root and the broker's own user may start children, hand in descriptors, publish, look up and inspect. Every other
/// user may start children and look up.
#[derive(Clone, Debug)]
pub struct Policy {
    broker_uid: u32,
}

impl Policy {
    /// The rules for a broker that runs as this user.
    pub fn for_user(broker_uid: u32) -> Self {
        Policy { broker_uid }
    }

    /// What this process gets.
    pub(crate) fn standing(&self, who: &Who) -> Standing {
        let everyone = Standing {
            own: Rights::DERIVE
                | Rights::GRANT
                | Rights::WATCH
                | Rights::ENDOW
                | Rights::START
                | Rights::RAISE,
            directory: Rights::DERIVE | Rights::GRANT | Rights::LOOKUP,
        };
        if who.uid != 0 && who.uid != self.broker_uid {
            return everyone;
        }
        Standing {
            own: everyone.own | Rights::DEPOSIT,
            directory: everyone.directory | Rights::PUBLISH | Rights::INSPECT | Rights::AUDIT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(uid: u32) -> Who {
        Who { pid: 1, uid, gid: uid, executable: String::new(), key: (0, 1) }
    }

    #[test]
    fn strangers_can_neither_publish_nor_inspect_nor_deposit() {
        let policy = Policy::for_user(1000);
        let stranger = policy.standing(&who(1001));
        assert!(!stranger.directory.intersects(Rights::PUBLISH | Rights::INSPECT));
        assert!(!stranger.own.contains(Rights::DEPOSIT));
        assert!(stranger.directory.contains(Rights::LOOKUP));
        assert!(stranger.own.contains(Rights::RAISE), "everybody may raise signals at itself");
        for uid in [0, 1000] {
            let trusted = policy.standing(&who(uid));
            assert!(trusted.directory.contains(Rights::PUBLISH | Rights::INSPECT));
            assert!(trusted.own.contains(Rights::DEPOSIT));
        }
    }
}
