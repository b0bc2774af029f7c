//! What the processes that connect begin with, who may use which names, and how much there may be: built in, or from a file.

mod file;
mod mistake;
mod show;
mod text;

use keyway_abi::Rights;
use keyway_kernel::{Identity, Limits, NameRules, Subject};

pub use self::{
    file::{PolicyError, PolicyInForce, PolicySource},
    mistake::{Mistake, Wrong},
};

/// What a process gets when it connects: rights on itself, and on the directory of service names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// On its own process.
    pub own: Rights,
    /// On the directory.
    pub directory: Rights,
}

/// What some processes begin with, and what is taken from them whatever else gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct StandingRule {
    subject: Subject,
    gives: Standing,
    deny: Rights,
}

/// The rules by which processes are let in.
///
/// Without a file, root and the broker's own user may start children, hand in descriptors, publish, look up and inspect. Every
/// other user may start children and look up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    broker_uid: u32,
    standing: Vec<StandingRule>,
    names: NameRules,
    limits: Limits,
}

impl Policy {
    /// The rules for a broker that runs as this user, when there is no file.
    pub fn for_user(broker_uid: u32) -> Self {
        let everyone = Standing {
            own: Rights::DERIVE
                | Rights::GRANT
                | Rights::WATCH
                | Rights::ENDOW
                | Rights::START
                | Rights::RAISE,
            directory: Rights::DERIVE | Rights::GRANT | Rights::LOOKUP,
        };
        let trusted =
            Standing { own: Rights::DEPOSIT, directory: Rights::PUBLISH | Rights::INSPECT | Rights::AUDIT };
        let rule = |subject, gives| StandingRule { subject, gives, deny: Rights::empty() };
        let mut standing = vec![rule(Subject::Everyone, everyone), rule(Subject::User(ROOT_UID), trusted)];
        if broker_uid != ROOT_UID {
            standing.push(rule(Subject::User(broker_uid), trusted));
        }
        Policy { broker_uid, standing, names: NameRules::default(), limits: Limits::default() }
    }

    /// The same with these limits. A process or a user never has more descriptors than a part of those that the broker can have.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The rules that a policy file's text states, for a broker that runs as this user.
    ///
    /// # Errors
    /// Every mistake of the text, in the order of their places. While its syntax is broken, only what is wrong with that.
    pub fn parse(text: &str, broker_uid: u32) -> Result<Self, Vec<Mistake>> {
        text::parse(text, broker_uid)
    }

    /// What this process gets: what is given to it adds up, and what is denied to it is taken away.
    pub(crate) fn standing(&self, identity: &Identity) -> Standing {
        let mut given = Standing { own: Rights::empty(), directory: Rights::empty() };
        let mut denied = Rights::empty();
        for rule in self.standing.iter().filter(|rule| rule.subject.is(identity)) {
            given.own |= rule.gives.own;
            given.directory |= rule.gives.directory;
            denied |= rule.deny;
        }
        Standing { own: given.own - denied, directory: given.directory - denied }
    }

    /// Who may publish and look up which names.
    pub(crate) fn names(&self) -> &NameRules {
        &self.names
    }

    /// How much there may be.
    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// What it holds, in one line.
    pub fn summary(&self) -> String {
        let entries = |count: usize| format!("{count} {}", if count == 1 { "entry" } else { "entries" });
        let begin = match self.standing.len() {
            0 => "no [[standing]] entry, so that no process begins with anything".into(),
            count => format!("{} of what processes begin with", entries(count)),
        };
        let names = match self.names.rules().len() {
            0 => "names as the directory's rights have it".into(),
            count => format!("{} on names", entries(count)),
        };
        let built_in = self.limits == Limits::default();
        let limits = if built_in { "limits as built in" } else { "limits of its own" };
        format!("{begin}; {names}; {limits}")
    }
}

const ROOT_UID: u32 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    fn who(uid: u32) -> Identity {
        Identity {
            pid: 1,
            uid,
            gid: uid + 10,
            groups: vec![77],
            executable: "/bin/x".into(),
            account: (0, 1),
        }
    }

    #[test]
    fn strangers_can_neither_publish_nor_inspect_nor_deposit() {
        for broker_uid in [0, 1000] {
            let policy = Policy::for_user(broker_uid);
            let stranger = policy.standing(&who(1001));
            assert!(!stranger.directory.intersects(Rights::PUBLISH | Rights::INSPECT));
            assert!(!stranger.own.contains(Rights::DEPOSIT));
            assert!(stranger.directory.contains(Rights::LOOKUP));
            assert!(stranger.own.contains(Rights::RAISE), "everybody may raise signals at itself");
            for uid in [0, broker_uid] {
                let trusted = policy.standing(&who(uid));
                assert!(trusted.directory.contains(Rights::PUBLISH | Rights::INSPECT));
                assert!(trusted.own.contains(Rights::DEPOSIT));
            }
        }
    }

    #[test]
    fn entries_add_up_deny_wins_and_who_is_not_named_gets_nothing() {
        let text = r#"
            [[standing]]
            user = 1000
            own = ["derive", "start"]
            [[standing]]
            group = 1010
            own = ["watch"]
            directory = ["derive", "lookup"]
            [[standing]]
            executable = "/bin/x"
            deny = ["derive"]
            [[standing]]
            user = "broker"
            directory = ["publish"]
        "#;
        let policy = Policy::parse(text, 7).unwrap();
        let both = Standing { own: Rights::START | Rights::WATCH, directory: Rights::LOOKUP };
        assert_eq!(policy.standing(&who(1000)), both);
        let other = Identity { executable: "/bin/y".into(), ..who(1000) };
        assert_eq!(policy.standing(&other).own, both.own | Rights::DERIVE);
        let none = Standing { own: Rights::empty(), directory: Rights::empty() };
        assert_eq!(policy.standing(&who(1001)), none);
        assert_eq!(policy.standing(&who(7)), Standing { directory: Rights::PUBLISH, ..none });
        assert_eq!(Policy::parse("", 7).unwrap().standing(&who(0)), none, "an empty list grants nothing");
    }
}
