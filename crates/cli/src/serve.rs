//! `keyway serve`: a broker until it is told to stop.

use keyway_broker::{Broker, Terminations, default_socket_path, notify_manager};

use crate::{Socket, Stop};

/// The options of `keyway serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    socket: Socket,
}

/// Serves until SIGTERM or SIGINT, and then ends cleanly: every process is told, the socket is removed.
pub(crate) fn run(options: &Options) -> Result<(), Stop> {
    // Before any other thread: they inherit the blocking of the signals.
    let terminations = Terminations::block()?;
    Broker::protect_process()?;
    let path = options.socket.socket.clone().unwrap_or_else(default_socket_path);
    let broker = Broker::bind(&path)?;
    // A terminal, or a service manager's log, is told where; the manager itself, that it can go on.
    match broker.socket_path() {
        Some(path) => eprintln!("keyway: serving {}", path.display()),
        None => eprintln!("keyway: serving the socket that the service manager listens on"),
    }
    notify_manager("READY=1\nSTATUS=serving")?;
    broker.run(&terminations)?;
    notify_manager("STOPPING=1")?;
    eprintln!("keyway: stopped");
    Ok(())
}
