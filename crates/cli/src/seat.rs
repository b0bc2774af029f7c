//! `keyway seat`: the bridge, as a process.

use std::{path::PathBuf, time::Duration};

use keyway_broker::{Terminations, notify_manager};
use keyway_seat::{CardGrant, CompositorRule, Seat};

use crate::{Socket, Stop};

/// The options of `keyway seat`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    socket: Socket,
    /// Which hardware.
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    backend: Backend,
    /// Save what the first virtual screen shows as a PNG, each time that something is presented; the other screens beside it.
    #[arg(long, value_name = "FILE")]
    screenshot: Option<PathBuf>,
    /// What the virtual keyboard types to whoever takes it.
    #[arg(long, value_name = "TEXT", default_value = "")]
    keys: String,
    /// Who may be the compositor, besides root and the user of this process: `user:NAME`, `group:NAME`, `exe:/path`. Several at will.
    #[arg(long, value_name = "WHO")]
    compositor: Vec<CompositorRule>,
    /// Let compositors that use libseat have the seat by this socket, which they are told by `SEATD_SOCK`. Who may is what
    /// `--compositor` says.
    #[arg(long, value_name = "PATH")]
    seatd_socket: Option<PathBuf>,
    /// Give those compositors a DRM lease of a card instead of its master's descriptor.
    #[arg(long, requires = "seatd_socket")]
    seatd_lease: bool,
    /// Say that the machine is a mobile device, or that it is none, instead of looking at it.
    #[arg(long, value_name = "BOOL")]
    mobile: Option<bool>,
}

/// The hardware behind the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Backend {
    /// Real screens and input devices where this process can have the screens, else virtual ones.
    Auto,
    /// Real ones.
    Drm,
    /// Two virtual connectors with several modes, a virtual keyboard, pointer and touchscreen.
    Headless,
}

/// How often the loop looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// Runs the bridge until SIGTERM or SIGINT.
pub(crate) fn run(options: &Options) -> Result<(), Stop> {
    // Before any other thread: they inherit the blocking of the signals.
    let terminations = Terminations::block()?;
    let client = options.socket.connect()?;
    let backend = match options.backend {
        Backend::Auto => keyway_seat::Backend::Auto,
        Backend::Drm => keyway_seat::Backend::Drm,
        Backend::Headless => keyway_seat::Backend::Headless,
    };
    let seat = keyway_seat::Options {
        backend,
        screenshot: options.screenshot.clone(),
        keys: options.keys.clone(),
        is_mobile: options.mobile,
        compositors: options.compositor.clone(),
        seatd_socket: options.seatd_socket.clone(),
        seatd_cards: if options.seatd_lease { CardGrant::Lease } else { CardGrant::Master },
    };
    let mut seat = Seat::start(&client, seat)?;
    println!("keyway: the bridge `{}` is there", keyway::bridge::SERVICE);
    notify_manager("READY=1")?;
    while terminations.take()?.is_none() {
        seat.turn(LOOK)?;
    }
    notify_manager("STOPPING=1")?;
    Ok(())
}
