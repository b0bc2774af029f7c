//! `keyway serve`: a broker until it is told to stop.

use std::{io, io::Write, path::PathBuf};

use keyway_broker::{
    Broker, PolicyError, PolicyInForce, PolicySource, Reloads, Terminations, default_socket_path,
    notify_manager,
};

use crate::{Socket, Stop, policy::described};

/// The options of `keyway serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    socket: Socket,
    /// The policy file: who may do what, and how much. It is read again on SIGHUP [default: `$KEYWAY_POLICY`, else
    /// `/etc/keyway/policy.toml` if it is there, else what is built in].
    #[arg(long, value_name = "PATH")]
    policy: Option<PathBuf>,
}

/// Serves until SIGTERM or SIGINT, and then ends cleanly: every process is told, the socket is removed.
pub(crate) fn run(options: &Options) -> Result<(), Stop> {
    // Before any other thread: they inherit the blocking of the signals.
    let terminations = Terminations::block()?;
    let reloads = Reloads::block()?;
    let source = PolicySource::find(options.policy.as_deref());
    let held = source.read()?;
    Broker::protect_process()?;
    let path = options.socket.socket.clone().unwrap_or_else(default_socket_path);
    let mut broker = Broker::bind(&path)?;
    broker.adopt(held.policy.clone());
    broker.reload_on(reloads, source.after(&held), tell)?;
    // A terminal, or a service manager's log, is told where; the manager itself, that it can go on.
    match broker.socket_path() {
        Some(path) => eprintln!("keyway: serving {}", path.display()),
        None => eprintln!("keyway: serving the socket that the service manager listens on"),
    }
    eprintln!("keyway: {}", described(&held));
    notify_manager("READY=1\nSTATUS=serving")?;
    broker.run(&terminations)?;
    notify_manager("STOPPING=1")?;
    eprintln!("keyway: stopped");
    Ok(())
}

/// Says how reading the policy again went.
fn tell(read: &Result<PolicyInForce, PolicyError>) {
    let text = match read {
        Ok(held) => format!("{} (read again)", described(held)),
        Err(error) => format!("the old policy holds on, the new one does not: {error}"),
    };
    // Whoever began the broker may have closed it; the broker goes on.
    let _ = writeln!(io::stderr(), "keyway: {text}");
}
