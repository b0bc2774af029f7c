//! The broker's socket: where it is, who may be there already, and whose directory that is.

use std::{
    fmt, fs,
    fs::{File, Permissions, TryLockError},
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use keyway_sys::{Error, kernel_support, notify, socket};

use crate::identity::own_uid;

/// Why a broker cannot begin.
#[derive(Debug)]
pub enum StartError {
    /// This Linux lacks what the broker needs.
    LinuxLacks(kernel_support::Missing),
    /// Another broker serves this socket.
    AlreadyServed {
        /// The socket.
        path: PathBuf,
        /// That broker's pid, if it is known.
        pid: Option<u32>,
    },
    /// Others can write the socket's directory, so that they could put a socket of theirs there.
    DirectoryOpen {
        /// The directory.
        directory: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its mode.
        mode: u32,
    },
    /// The directory or the lock cannot be used.
    Files {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Linux refused a call.
    Refused(Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::LinuxLacks(missing) => write!(f, "{missing}"),
            StartError::AlreadyServed { path, pid: Some(pid) } => write!(
                f,
                "process {pid} serves {} already; stop it, or choose another --socket",
                path.display()
            ),
            StartError::AlreadyServed { path, pid: None } => write!(
                f,
                "another broker serves {} already; stop it, or choose another --socket",
                path.display()
            ),
            StartError::DirectoryOpen { directory, uid, mode } => write!(
                f,
                "the directory {} (owner {uid}, mode {mode:03o}) can be written by others, who could take the socket's \
                 place; use a directory of your own that only you can write{}",
                directory.display(),
                // Below a directory like /tmp one's own is safe; elsewhere it could be moved away.
                if mode & STICKY == 0 {
                    ", below none that everybody can".to_owned()
                } else {
                    format!(", such as {}", directory.join("keyway").join("broker.sock").display())
                },
            ),
            StartError::Files { path, error } => write!(f, "{}: {error}", path.display()),
            StartError::Refused(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<Error> for StartError {
    fn from(error: Error) -> Self {
        StartError::Refused(error)
    }
}

/// A socket that this process alone serves. It is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    fd: OwnedFd,
    /// Nothing for a socket that a service manager listens on.
    file: Option<SocketFile>,
}

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Held for as long as the socket is served. It is never removed, so that two brokers lock the same file.
    _lock: File,
}

impl Listener {
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Where it is; nothing for a socket that a service manager listens on.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }

    /// Listens at `path`, in place of a broker that has died.
    pub(crate) fn at(path: &Path) -> Result<Self, StartError> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        prepare_directory(directory)?;
        let lock = lock(path)?;
        if !socket::remove_stale(path)? {
            return Err(already_served(path, None));
        }
        let fd = socket::listen(path, 0o666, 128)?;
        Ok(Listener { fd, file: Some(SocketFile { path: path.into(), _lock: lock }) })
    }

    /// Takes the socket that a service manager listens on, if it does.
    pub(crate) fn inherited() -> Result<Option<Self>, StartError> {
        let Some(fd) = notify::listen_fd()? else { return Ok(None) };
        socket::set_broker_options(&fd)?;
        Ok(Some(Listener { fd, file: None }))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            // It may have been removed by hand.
            let _ = fs::remove_file(&file.path);
        }
    }
}

fn prepare_directory(directory: &Path) -> Result<(), StartError> {
    let files = |error| StartError::Files { path: directory.into(), error };
    if !directory.exists() {
        fs::create_dir_all(directory).map_err(files)?;
        fs::set_permissions(directory, Permissions::from_mode(0o755)).map_err(files)?;
    }
    let state = |directory: &Path| fs::metadata(directory).map(|found| (found.uid(), found.mode() & 0o7777));
    let (uid, mode) = state(directory).map_err(files)?;
    if !(uid == own_uid() || uid == 0) || mode & 0o022 != 0 {
        return Err(StartError::DirectoryOpen { directory: directory.into(), uid, mode });
    }
    // Above it, everybody who can write could put another directory in its place, unless only owners can move what is there.
    let whole = fs::canonicalize(directory).map_err(files)?;
    for above in whole.ancestors().skip(1) {
        let (uid, mode) = state(above).map_err(files)?;
        if mode & 0o002 != 0 && mode & STICKY == 0 {
            return Err(StartError::DirectoryOpen { directory: above.into(), uid, mode });
        }
    }
    Ok(())
}

const STICKY: u32 = 0o1000;

fn lock(path: &Path) -> Result<File, StartError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let files = |error| StartError::Files { path: name.clone(), error };
    let mut options = File::options();
    // Nobody else may open it: whoever can read a file can lock it.
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&name).map_err(files)?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(files)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let _ = file.read_to_string(&mut text);
            return Err(already_served(path, text.trim().parse().ok()));
        }
        Err(TryLockError::Error(error)) => return Err(files(error)),
    }
    file.set_len(0).map_err(files)?;
    write!(file, "{}", std::process::id()).map_err(files)?;
    Ok(file)
}

fn already_served(path: &Path, pid: Option<u32>) -> StartError {
    let asked = || socket::connect(path).and_then(socket::peer_credentials).ok();
    let pid = pid.or_else(|| asked().map(|credentials| credentials.pid));
    StartError::AlreadyServed { path: path.into(), pid }
}
