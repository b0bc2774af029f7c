//! Who may publish and look up which names.
//!
//! The broker reads the rules from its policy file and hands them over; here they are judged. They stand beside the rights of a
//! capability to the directory and never in place of them.

use alloc::{string::String, vec::Vec};

use keyway_abi::{Name, Rights};

use crate::effect::Identity;

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Every process.
    Everyone,
    /// The processes of this effective user.
    User(u32),
    /// The processes of which this is the effective group or a supplementary one.
    Group(u32),
    /// The processes that run the program at this path.
    Executable(String),
}

impl Subject {
    /// Whether it is this process.
    pub fn is(&self, identity: &Identity) -> bool {
        match self {
            Subject::Everyone => true,
            Subject::User(uid) => *uid == identity.uid,
            Subject::Group(gid) => identity.is_in_group(*gid),
            Subject::Executable(path) => *path == identity.executable,
        }
    }
}

/// What some processes may do with the names that begin alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRule {
    /// What the names begin with; all names begin with nothing.
    pub prefix: String,
    /// Whom it is about.
    pub subject: Subject,
    /// What it permits, out of [`NameRules::VERBS`].
    pub allow: Rights,
    /// What it forbids, whatever else permits it.
    pub deny: Rights,
}

/// All rules for names. None at all permit everything; the rights of the directory's capability are judged apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameRules(Vec<NameRule>);

impl NameRules {
    /// What can be done with a name.
    pub const VERBS: Rights = Rights::PUBLISH.union(Rights::LOOKUP);

    /// These rules. Their order says nothing.
    pub fn new(rules: Vec<NameRule>) -> Self {
        NameRules(rules)
    }

    /// The rules.
    pub fn rules(&self) -> &[NameRule] {
        &self.0
    }

    /// Whether a process may do this with a name: rules that permit add up, and one that forbids wins.
    pub fn permits(&self, identity: &Identity, name: &Name, verb: Rights) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let (mut allowed, mut denied) = (Rights::empty(), Rights::empty());
        for rule in &self.0 {
            if name.as_str().starts_with(&rule.prefix) && rule.subject.is(identity) {
                allowed |= rule.allow;
                denied |= rule.deny;
            }
        }
        (allowed - denied).contains(verb)
    }
}

#[cfg(test)]
mod tests {
    use alloc::{format, string::ToString};

    use proptest::prelude::*;

    use super::*;

    /// The same question, asked without adding anything up.
    fn naive(rules: &[NameRule], identity: &Identity, name: &str, verb: Rights) -> bool {
        let speaks = |rule: &&NameRule| {
            let about = match &rule.subject {
                Subject::Everyone => true,
                Subject::User(uid) => identity.uid == *uid,
                Subject::Group(gid) => identity.groups.iter().chain([&identity.gid]).any(|of| of == gid),
                Subject::Executable(path) => identity.executable.as_bytes() == path.as_bytes(),
            };
            about
                && name.as_bytes().iter().zip(rule.prefix.bytes()).filter(|(a, b)| **a == *b).count() == {
                    rule.prefix.len()
                }
        };
        let forbidden = rules.iter().filter(speaks).any(|rule| rule.deny.intersects(verb));
        let permitted = rules.iter().filter(speaks).any(|rule| rule.allow.intersects(verb));
        rules.is_empty() || (permitted && !forbidden)
    }

    fn subject() -> impl Strategy<Value = Subject> {
        prop_oneof![
            Just(Subject::Everyone),
            (0u32..3).prop_map(Subject::User),
            (0u32..3).prop_map(Subject::Group),
            (0u32..3).prop_map(|n| Subject::Executable(format!("/bin/{n}"))),
        ]
    }

    fn verbs() -> impl Strategy<Value = Rights> {
        let (publish, lookup) = (Rights::PUBLISH, Rights::LOOKUP);
        prop::sample::select(alloc::vec![Rights::empty(), publish, lookup, publish | lookup])
    }

    fn rule() -> impl Strategy<Value = NameRule> {
        ("[ab]{0,3}", subject(), verbs(), verbs()).prop_map(|(prefix, subject, allow, deny)| NameRule {
            prefix,
            subject,
            allow,
            deny,
        })
    }

    proptest! {
        #[test]
        fn rules_permit_what_a_naive_reading_permits(
            rules in prop::collection::vec(rule(), 0..8),
            uid in 0u32..3,
            gid in 0u32..3,
            groups in prop::collection::vec(0u32..4, 0..3),
            program in 0u32..3,
            name in "[ab]{1,4}",
        ) {
            let executable = format!("/bin/{program}");
            let identity = Identity { pid: 1, uid, gid, groups, executable, account: (0, 1) };
            let judged = NameRules::new(rules.clone());
            let lawful = Name::new(&name).expect("letters");
            for verb in [Rights::PUBLISH, Rights::LOOKUP] {
                let expected = naive(&rules, &identity, &name, verb);
                prop_assert_eq!(judged.permits(&identity, &lawful, verb), expected);
            }
        }
    }

    #[test]
    fn a_program_is_its_whole_path() {
        let run = |path: &str| Identity {
            pid: 1,
            uid: 0,
            gid: 0,
            groups: alloc::vec![],
            executable: path.to_string(),
            account: (0, 1),
        };
        let subject = Subject::Executable("/bin/x".into());
        assert!(subject.is(&run("/bin/x")));
        for path in ["", "/bin/", "/bin/xy", "/bin/x (deleted)"] {
            assert!(!subject.is(&run(path)), "{path}");
        }
    }
}
