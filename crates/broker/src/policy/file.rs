//! The file of a policy: which it is, whether it can be trusted, and what it says.

use std::{
    env, fmt, fs,
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{Mistake, Policy, Wrong};
use crate::identity::own_uid;

/// Bytes of a policy file, at most.
const BYTES_MAX: u64 = 1 << 18;
/// The file that holds when nothing else is asked for and it is there.
const STANDARD: &str = "/etc/keyway/policy.toml";

/// Why a policy file does not hold.
#[derive(Debug)]
pub enum PolicyError {
    /// It cannot be read.
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is no file, or too long.
    Unlawful {
        /// Which.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// Somebody else owns it, or others can write it.
    Untrusted {
        /// Which.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its mode.
        mode: u32,
        /// The broker's user.
        broker_uid: u32,
    },
    /// What it says cannot be.
    Mistaken {
        /// Which.
        path: PathBuf,
        /// Each mistake.
        mistakes: Vec<Mistake>,
    },
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicyError::Unreadable { path, error } => {
                write!(f, "the policy file {} cannot be read: {error}", path.display())
            }
            PolicyError::Unlawful { path, what } => {
                write!(f, "the policy file {} is {what}", path.display())
            }
            PolicyError::Untrusted { path, uid, mode, broker_uid } => write!(
                f,
                "the policy file {path} (owner {uid}, mode {mode:03o}) could be written by others, who could give themselves \
                 any right; it must belong to root or to the broker's user {broker_uid}, and only its owner may write it: \
                 chown {broker_uid} {path}; chmod go-w {path}",
                path = path.display(),
            ),
            PolicyError::Mistaken { path, mistakes } => {
                let count = mistakes.len();
                write!(f, "{count} {} in the policy file", if count == 1 { "mistake" } else { "mistakes" })?;
                mistakes.iter().try_for_each(|mistake| write!(f, "\n{}:{mistake}", path.display()))
            }
        }
    }
}

impl std::error::Error for PolicyError {}

/// Where a broker's policy comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySource {
    path: PathBuf,
    /// Whether what is built in holds when there is no such file.
    may_lack: bool,
}

/// A policy, and the file that states it, if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyInForce {
    /// What holds.
    pub policy: Policy,
    /// Nothing when it is what is built in.
    pub path: Option<PathBuf>,
}

impl PolicySource {
    /// The file that was asked for, else `$KEYWAY_POLICY`, else `/etc/keyway/policy.toml` if it is there, else what is built in.
    pub fn find(asked: Option<&Path>) -> Self {
        let set = || env::var_os("KEYWAY_POLICY").filter(|value| !value.is_empty()).map(PathBuf::from);
        match asked.map(PathBuf::from).or_else(set) {
            Some(path) => PolicySource { path, may_lack: false },
            None => PolicySource { path: STANDARD.into(), may_lack: true },
        }
    }

    /// The policy as it is now.
    ///
    /// # Errors
    /// [`PolicyError`] says what is wrong with the file and what to do.
    pub fn read(&self) -> Result<PolicyInForce, PolicyError> {
        let broker_uid = own_uid();
        if self.may_lack
            && fs::metadata(&self.path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        {
            return Ok(PolicyInForce { policy: Policy::for_user(broker_uid), path: None });
        }
        let text = trusted_text(&self.path, broker_uid)?;
        match Policy::parse(&text, broker_uid) {
            Ok(policy) => Ok(PolicyInForce { policy, path: Some(self.path.clone()) }),
            Err(mistakes) => Err(PolicyError::Mistaken { path: self.path.clone(), mistakes }),
        }
    }

    /// Once a file held, it holds until there is another: that it is gone is a mistake, and never means that what is built in
    /// holds.
    #[must_use]
    pub fn after(mut self, held: &PolicyInForce) -> Self {
        self.may_lack &= held.path.is_none();
        self
    }
}

/// What the file says, if nobody else could have written it.
fn trusted_text(path: &Path, broker_uid: u32) -> Result<String, PolicyError> {
    let unreadable = |error| PolicyError::Unreadable { path: path.into(), error };
    let unlawful = |what| PolicyError::Unlawful { path: path.into(), what };
    // Opening something else, such as a pipe, could take for ever.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(unlawful("no regular file; name the file itself"));
    }
    let file = File::open(path).map_err(unreadable)?;
    // Of the very file that is read.
    let metadata = file.metadata().map_err(unreadable)?;
    let (uid, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if (uid != 0 && uid != broker_uid) || mode & 0o022 != 0 {
        return Err(PolicyError::Untrusted { path: path.into(), uid, mode, broker_uid });
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(unlawful("longer than the 262144 bytes that are possible; use fewer entries"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
        let what = Wrong::NoToml { message: "a byte that is no UTF-8; save the file as UTF-8".into() };
        let mistakes = vec![Mistake::at(&before, before.len(), what)];
        PolicyError::Mistaken { path: path.into(), mistakes }
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    /// Why it is refused, which is noted.
    fn refused<T: fmt::Debug>(read: Result<T, PolicyError>) -> PolicyError {
        let error = read.unwrap_err();
        keyway_provoked::note(&error, "");
        error
    }

    #[test]
    fn what_is_no_file_or_too_long_or_mistaken_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let me = own_uid();
        let none = refused(trusted_text(directory.path(), me));
        assert!(
            matches!(none, PolicyError::Unlawful { what, .. } if what.starts_with("no regular")),
            "{none}"
        );
        assert!(none.to_string().contains(directory.path().to_str().unwrap()), "{none}");
        let path = directory.path().join("policy.toml");
        let write = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            PolicySource { path: path.clone(), may_lack: false }.read()
        };
        let longest = vec![b'#'; BYTES_MAX as usize];
        assert!(write(&longest).is_ok());
        let long = refused(write(&[&longest[..], b"#"].concat()));
        assert!(long.to_string().contains("longer than the 262144 bytes"), "{long}");
        for (text, place) in [(&b"x = 1\n"[..], (1, 1)), (&b"# \xc3\xa9 \xff"[..], (1, 5))] {
            let error = refused(write(text));
            let PolicyError::Mistaken { mistakes, .. } = error else { panic!("mistaken: {error}") };
            assert_eq!((mistakes[0].line, mistakes[0].column), place, "{mistakes:?}");
        }
    }

    #[test]
    fn a_file_of_another_user_is_not_trusted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.toml");
        fs::write(&path, "# trusted").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let (me, stranger) = (own_uid(), own_uid() + 1);
        assert_eq!(trusted_text(&path, me).unwrap(), "# trusted");
        // Root's own are trusted by everyone, so root has to give it away.
        let given = me == 0 && chown(&path, Some(stranger), None).is_ok();
        let (broker_uid, owner) = if given { (me, stranger) } else { (stranger, me) };
        let refused = refused(trusted_text(&path, broker_uid));
        assert!(
            matches!(refused, PolicyError::Untrusted { uid, mode: 0o600, .. } if uid == owner),
            "{refused}"
        );
        assert!(refused.to_string().contains(&format!("chown {broker_uid}")), "{refused}");
        assert!(trusted_text(&path, owner).is_ok(), "its owner's broker trusts it");
    }

    #[test]
    fn a_standard_file_may_lack_until_it_has_held() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.toml");
        let source = PolicySource { path: path.clone(), may_lack: true };
        let built_in = source.read().unwrap();
        assert_eq!(built_in, PolicyInForce { policy: Policy::for_user(own_uid()), path: None });
        let source = source.after(&built_in);
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let held = source.read().unwrap();
        assert_eq!(held.path.as_deref(), Some(path.as_path()));
        fs::remove_file(&path).unwrap();
        assert!(source.read().is_ok());
        let refused = refused(source.after(&held).read());
        assert!(matches!(refused, PolicyError::Unreadable { .. }), "{refused}");
        let named = PolicySource { path, may_lack: false };
        assert!(named.after(&built_in).read().is_err(), "a file that was asked for never may");
    }
}
