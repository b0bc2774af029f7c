//! Who may come in by the compositor's doors, besides root and the bridge's own user.

use std::str::FromStr;

use keyway_sys::users;

/// One rule. What is said of a process is what the operating system says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompositorRule {
    /// Processes of this user.
    User(u32),
    /// Processes whose group this is; other groups that they are in do not count.
    Group(u32),
    /// Processes that run this file. Advice only where processes of one user can change each other.
    Executable(String),
}

/// A rule that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}`: {why}; write `user:NAME`, `group:NAME` (or numbers) or `exe:/path`")]
pub struct BadRule {
    text: String,
    why: &'static str,
}

impl FromStr for CompositorRule {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<Self, BadRule> {
        let bad = |why| BadRule { text: text.to_owned(), why };
        let number =
            |name: &str, find: fn(&str) -> Result<Option<u32>, keyway_sys::Error>, none| match name.parse() {
                Ok(number) => Ok(number),
                Err(_) => find(name).ok().flatten().ok_or(bad(none)),
            };
        match text.split_once(':') {
            Some(("user", name)) => number(name, users::user, "there is no such user").map(Self::User),
            Some(("group", name)) => number(name, users::group, "there is no such group").map(Self::Group),
            Some(("exe", path)) if path.starts_with('/') => Ok(Self::Executable(path.to_owned())),
            Some(("exe", _)) => Err(bad("an executable is named by its whole path")),
            _ => Err(bad("it does not say of what kind it is")),
        }
    }
}

/// Who wants to come in, as the operating system says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Visitor {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The file that it runs; nothing where Linux does not tell.
    pub(crate) executable: String,
}

impl CompositorRule {
    fn is_met_by(&self, peer: &Visitor) -> bool {
        match self {
            Self::User(uid) => peer.uid == *uid,
            Self::Group(gid) => peer.gid == *gid,
            Self::Executable(path) => peer.executable == *path,
        }
    }
}

/// Whether the process may be the compositor. `own` is the bridge's own user.
pub(crate) fn lets_in(rules: &[CompositorRule], own: u32, peer: &Visitor) -> bool {
    peer.uid == 0 || peer.uid == own || rules.iter().any(|rule| rule.is_met_by(peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32, executable: &str) -> Visitor {
        Visitor { uid, gid, executable: executable.into() }
    }

    #[test]
    fn root_and_ones_own_user_come_in_and_others_by_a_rule() {
        let lets = |rules: &[&str], peer: &Visitor| {
            let rules: Vec<CompositorRule> = rules.iter().map(|rule| rule.parse().unwrap()).collect();
            lets_in(&rules, 900, peer)
        };
        let stranger = peer(1000, 100, "/usr/bin/weston");
        for rules in
            [&[][..], &["user:1001"], &["group:1000"], &["exe:/usr/bin/sway"], &["user:100", "group:1001"]]
        {
            assert!(!lets(rules, &stranger), "{rules:?}");
            assert!(lets(rules, &peer(0, 0, "")) && lets(rules, &peer(900, 5, "")), "{rules:?}");
        }
        for rules in [&["user:1000"][..], &["user:1", "group:100"], &["exe:/usr/bin/weston"]] {
            assert!(lets(rules, &stranger), "{rules:?}");
        }
    }

    #[test]
    fn names_are_looked_up_and_what_is_no_rule_says_why() {
        assert_eq!("user:root".parse(), Ok(CompositorRule::User(0)));
        assert_eq!("group:root".parse(), Ok(CompositorRule::Group(0)));
        let whys = [
            ("user:no such user", "no such user"),
            ("group:no such group", "no such group"),
            ("exe:weston", "whole path"),
            ("root", "what kind"),
            ("", "what kind"),
            ("uid:0", "what kind"),
        ];
        for (text, why) in whys {
            let refused = text.parse::<CompositorRule>().unwrap_err().to_string();
            assert!(refused.contains(why) && refused.contains(text), "{refused}");
        }
    }
}
