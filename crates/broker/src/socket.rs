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
    /// No Unix socket can have so long a path.
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its bytes.
        bytes: usize,
        /// Bytes that it can have.
        bytes_max: usize,
    },
    /// Another broker serves this socket.
    AlreadyServed {
        /// The socket.
        path: PathBuf,
        /// That broker's pid, if it is known.
        pid: Option<u32>,
        /// Its user, if it is known.
        uid: Option<u32>,
    },
    /// Something else is where the socket is to be.
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// The socket's directory belongs to another user, who could put a socket of theirs there.
    DirectoryForeign {
        /// The directory.
        directory: PathBuf,
        /// Its owner.
        uid: u32,
        /// The broker's user.
        own_uid: u32,
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
    /// The directory, the lock or the socket's file cannot be used.
    Files {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
        /// What is there of it, if anything: the file or the nearest directory above it.
        nearest: Option<Nearest>,
        /// The broker's user.
        own_uid: u32,
    },
    /// Linux refused a call.
    Refused(Error),
}

/// What is at a path, or nearest above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nearest {
    /// Where.
    pub path: PathBuf,
    /// Its owner.
    pub uid: u32,
    /// Its mode.
    pub mode: u32,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::LinuxLacks(missing) => write!(f, "{missing}"),
            StartError::PathTooLong { path, bytes, bytes_max } => write!(
                f,
                "the socket's path {} has {bytes} bytes, a Unix socket's has {bytes_max} at most; choose a shorter one, with \
                 --socket or KEYWAY_SOCKET",
                path.display()
            ),
            StartError::AlreadyServed { path, pid, uid } => {
                match pid {
                    Some(pid) => write!(f, "process {pid}")?,
                    None => write!(f, "another broker")?,
                }
                if let Some(uid) = uid {
                    write!(f, " of {}", user(*uid))?;
                }
                write!(f, " serves {} already; stop it, or choose another --socket", path.display())
            }
            StartError::NoSocket { path } => write!(
                f,
                "{} is there already and is no socket; remove it, or choose another --socket",
                path.display()
            ),
            StartError::DirectoryForeign { directory, uid, own_uid } => write!(
                f,
                "the directory {} belongs to {}, who could take the socket's place, and this broker runs as {}; choose a \
                 --socket in a directory of your own, or run it as {}",
                directory.display(),
                user(*uid),
                user(*own_uid),
                user(*uid),
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
            StartError::Files { path, error, nearest, own_uid } => {
                write!(f, "cannot use {}: {error}", path.display())?;
                if let Some(Nearest { path, uid, mode }) = nearest {
                    let (path, owner, own) = (path.display(), user(*uid), user(*own_uid));
                    write!(f, "; {path} belongs to {owner} (mode {mode:03o}), this broker runs as {own}")?;
                }
                write!(f, "; choose a --socket in a directory that this user can write")
            }
            StartError::Refused(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// A user, as people call it.
fn user(uid: u32) -> String {
    if uid == 0 { "root".into() } else { format!("user {uid}") }
}

impl StartError {
    fn files(path: &Path, error: io::Error) -> Self {
        let nearest = path.ancestors().find_map(|path| {
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            let found = fs::metadata(path).ok()?;
            Some(Nearest { path: path.into(), uid: found.uid(), mode: found.mode() & 0o7777 })
        });
        StartError::Files { path: path.into(), error, nearest, own_uid: own_uid() }
    }
}

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
        let (bytes, bytes_max) = (path.as_os_str().len(), socket::PATH_BYTES_MAX);
        if bytes > bytes_max {
            return Err(StartError::PathTooLong { path: path.into(), bytes, bytes_max });
        }
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        let lock =
            prepare_directory(directory, own_uid()).and_then(|()| lock(path)).map_err(
                |error| match error {
                    // Where this user may not be, another's broker may be: whose it is says more.
                    StartError::DirectoryForeign { .. } | StartError::Files { .. } => {
                        served(path).unwrap_or(error)
                    }
                    error => error,
                },
            )?;
        let files = |error: Error| StartError::files(path, error.into());
        if !socket::remove_stale(path).map_err(files)? {
            return Err(served(path).unwrap_or_else(|| StartError::NoSocket { path: path.into() }));
        }
        let fd = socket::listen(path, 0o666, 128).map_err(files)?;
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

fn prepare_directory(directory: &Path, own_uid: u32) -> Result<(), StartError> {
    let files = |error| StartError::files(directory, error);
    if !directory.exists() {
        fs::create_dir_all(directory).map_err(files)?;
        fs::set_permissions(directory, Permissions::from_mode(0o755)).map_err(files)?;
    }
    let state = |directory: &Path| fs::metadata(directory).map(|found| (found.uid(), found.mode() & 0o7777));
    let (uid, mode) = state(directory).map_err(files)?;
    if mode & 0o022 != 0 {
        return Err(StartError::DirectoryOpen { directory: directory.into(), uid, mode });
    }
    if uid != own_uid && uid != 0 {
        return Err(StartError::DirectoryForeign { directory: directory.into(), uid, own_uid });
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
    let files = |error| StartError::files(&name, error);
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
            let (pid, uid) = (text.trim().parse().ok(), file.metadata().ok().map(|found| found.uid()));
            return Err(served(path).unwrap_or(StartError::AlreadyServed { path: path.into(), pid, uid }));
        }
        Err(TryLockError::Error(error)) => return Err(files(error)),
    }
    file.set_len(0).map_err(files)?;
    write!(file, "{}", std::process::id()).map_err(files)?;
    Ok(file)
}

/// Who serves this path, if anybody does.
fn served(path: &Path) -> Option<StartError> {
    let broker = socket::connect(path).and_then(socket::peer_credentials).ok()?;
    Some(StartError::AlreadyServed { path: path.into(), pid: Some(broker.pid), uid: Some(broker.uid) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use super::*;

    #[test]
    fn a_directory_of_another_user_is_refused_with_both_users() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let (me, stranger) = (own_uid(), own_uid() + 1);
        assert!(prepare_directory(directory.path(), me).is_ok());
        // Root's own are good for everyone, so root has to give it away.
        let given = me == 0 && chown(directory.path(), Some(stranger), None).is_ok();
        let (own, owner) = if given { (me, stranger) } else { (stranger, me) };
        let refused = prepare_directory(directory.path(), own).unwrap_err();
        keyway_provoked::note(&refused, "");
        assert!(
            matches!(refused, StartError::DirectoryForeign { uid, own_uid, .. } if (uid, own_uid) == (owner, own)),
            "{refused}"
        );
        let text = refused.to_string();
        let words = [directory.path().to_str().unwrap(), &user(owner), &user(own), "choose a --socket"];
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
}
