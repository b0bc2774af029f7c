//! `keyway policy`: judges a policy file, and shows what holds.

use std::{io, io::Write, path::PathBuf};

use keyway_broker::{PolicyInForce, PolicySource};

use crate::Stop;

/// What is to be done with a policy file.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Find every mistake of a policy file, each with its line and column.
    Check(File),
    /// Print the policy that a broker of yours would have now, as the text of a file: a beginning for one of your own.
    Show(File),
}

/// A policy file.
#[derive(Debug, clap::Args)]
pub(crate) struct File {
    /// The file [default: `$KEYWAY_POLICY`, else `/etc/keyway/policy.toml` if it is there, else what is built in].
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
}

pub(crate) fn run(action: &Action) -> Result<(), Stop> {
    let (Action::Check(file) | Action::Show(file)) = action;
    let held = PolicySource::find(file.path.as_deref()).read()?;
    let mut out = io::stdout().lock();
    match action {
        Action::Check(_) => writeln!(out, "{}", described(&held)),
        Action::Show(_) => write!(out, "{}", held.policy),
    }?;
    Ok(())
}

/// Which policy it is and what it holds, in one line.
pub(crate) fn described(held: &PolicyInForce) -> String {
    let summary = held.policy.summary();
    match &held.path {
        Some(path) => format!("policy {}: {summary}", path.display()),
        None => format!("policy built in, there is no file: {summary}"),
    }
}
