//! Where the systems of a run may leave files: a directory and a name that no other run has.
//!
//! The name carries the controlling process's id, so that a later run can tell which places are abandoned.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
};

use crate::Result;

const PREFIX: &str = "keyway-bench-";

#[derive(Clone, Debug)]
pub(crate) struct Place {
    name: String,
}

impl Place {
    /// The place of this process, made anew and without what abandoned runs left.
    pub(crate) fn claim() -> Result<Claim> {
        sweep_abandoned();
        let place = Self { name: format!("{PREFIX}{}", process::id()) };
        fs::create_dir(place.directory())?;
        Ok(Claim(place))
    }

    /// The place that another process claimed.
    pub(crate) fn named(name: String) -> Self {
        Self { name }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn directory(&self) -> PathBuf {
        env::temp_dir().join(&self.name)
    }
}

/// Removes the place when it is dropped.
pub(crate) struct Claim(Place);

impl Claim {
    pub(crate) fn place(&self) -> &Place {
        &self.0
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.directory());
    }
}

/// Removes directories and shared memory of runs whose controlling process is gone.
pub(crate) fn sweep_abandoned() {
    for parent in [env::temp_dir(), PathBuf::from("/dev/shm")] {
        let Ok(entries) = fs::read_dir(parent) else { continue };
        for entry in entries.flatten() {
            if entry.file_name().to_str().and_then(owner).is_some_and(is_gone) {
                remove(&entry.path());
            }
        }
    }
}

/// The process id after the prefix, wherever in the name it stands: libraries put their own prefix before it.
fn owner(name: &str) -> Option<u32> {
    let rest = &name[name.find(PREFIX)? + PREFIX.len()..];
    let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

fn is_gone(pid: u32) -> bool {
    !Path::new("/proc").join(pid.to_string()).exists()
}

/// A failure leaves the entry to the next sweep.
fn remove(path: &Path) {
    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

#[cfg(test)]
mod tests {
    use super::owner;

    #[test]
    fn the_owner_is_found_behind_foreign_prefixes() {
        assert_eq!(owner("keyway-bench-17"), Some(17));
        assert_eq!(owner("iox2_keyway-bench-17_8f.data"), Some(17));
        assert_eq!(owner("keyway-bench-"), None);
        assert_eq!(owner("iox2_8f.data"), None);
    }
}
