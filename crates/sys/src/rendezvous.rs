//! Where a broker and its clients find each other.

use std::{env, path::PathBuf};

/// The path of the broker's socket: `$KEYWAY_SOCKET`, else `$XDG_RUNTIME_DIR/keyway/broker.sock`, else
/// `/run/keyway/broker.sock`.
pub fn socket_path() -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = set("KEYWAY_SOCKET") {
        return path;
    }
    set("XDG_RUNTIME_DIR").unwrap_or_else(|| PathBuf::from("/run")).join("keyway/broker.sock")
}
