//! A policy as the text of a file that states it.

use std::fmt;

use keyway_abi::Rights;
use keyway_kernel::{Charge, Subject};

use super::{
    Policy, ROOT_UID,
    text::{ROWS, words},
};

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# What processes begin with: all entries that match add up, and deny wins.")?;
        for rule in &self.standing {
            writeln!(f, "[[standing]]")?;
            self.subject(f, &rule.subject)?;
            rights(f, "own", rule.gives.own)?;
            rights(f, "directory", rule.gives.directory)?;
            rights(f, "deny", rule.deny)?;
            writeln!(f)?;
        }
        writeln!(f, "# Who may use which names; without an entry, whoever has the right on the directory.")?;
        for rule in self.names.rules() {
            writeln!(f, "[[name]]\nprefix = {}", quoted(&rule.prefix))?;
            self.subject(f, &rule.subject)?;
            rights(f, "allow", rule.allow)?;
            rights(f, "deny", rule.deny)?;
            writeln!(f)?;
        }
        writeln!(f, "\n# How much one running process may have, and all processes of one user together.")?;
        limits(f, "process", &self.limits.process)?;
        writeln!(f)?;
        limits(f, "user", &self.limits.user)
    }
}

impl Policy {
    fn subject(&self, f: &mut fmt::Formatter<'_>, subject: &Subject) -> fmt::Result {
        match subject {
            Subject::Everyone => writeln!(f, "everyone = true"),
            Subject::User(ROOT_UID) => writeln!(f, "user = \"root\""),
            Subject::User(uid) if *uid == self.broker_uid => writeln!(f, "user = \"broker\""),
            Subject::User(uid) => writeln!(f, "user = {uid}"),
            Subject::Group(gid) => writeln!(f, "group = {gid}"),
            Subject::Executable(path) => writeln!(f, "executable = {}", quoted(path)),
        }
    }
}

fn rights(f: &mut fmt::Formatter<'_>, key: &str, rights: Rights) -> fmt::Result {
    if rights.is_empty() {
        return Ok(());
    }
    let words: Vec<String> = words(rights).iter().map(|word| quoted(word)).collect();
    writeln!(f, "{key} = [{}]", words.join(", "))
}

fn limits(f: &mut fmt::Formatter<'_>, of: &str, charge: &Charge) -> fmt::Result {
    writeln!(f, "[limits.{of}]")?;
    ROWS.iter().try_for_each(|row| writeln!(f, "{} = {}", row.key, (row.get)(charge)))
}

/// A text as TOML has it. What is shown has no control characters.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
