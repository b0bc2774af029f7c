//! Users and groups by name, as the machine's name services have them: `getpwnam_r(3)`, `getgrnam_r(3)`.

use nix::unistd::{Group, User};
use rustix::io::Errno;

use crate::Error;

/// The number of the user with this name; `None` when there is none.
///
/// # Errors
/// What the name service says, `EMFILE` and `ENOMEM` among it.
pub fn user(name: &str) -> Result<Option<u32>, Error> {
    let found = User::from_name(name).map_err(|errno| error("getpwnam_r", errno))?;
    Ok(found.map(|user| user.uid.as_raw()))
}

/// The number of the group with this name; `None` when there is none.
///
/// # Errors
/// As [`user`].
pub fn group(name: &str) -> Result<Option<u32>, Error> {
    let found = Group::from_name(name).map_err(|errno| error("getgrnam_r", errno))?;
    Ok(found.map(|group| group.gid.as_raw()))
}

fn error(call: &'static str, errno: nix::Error) -> Error {
    Error { call, errno: Errno::from_raw_os_error(errno as i32) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The first name of a file like /etc/passwd, and its number, which is the third field of both.
    fn first_of(path: &str) -> (String, u32) {
        let text = fs::read_to_string(path).unwrap();
        let mut fields = text.lines().next().unwrap().split(':');
        (fields.next().unwrap().into(), fields.nth(1).unwrap().parse().unwrap())
    }

    #[test]
    fn names_have_the_numbers_that_the_machine_gives_them() {
        let (name, number) = first_of("/etc/passwd");
        assert_eq!(user(&name), Ok(Some(number)));
        let (name, number) = first_of("/etc/group");
        assert_eq!(group(&name), Ok(Some(number)));
        for unknown in ["nobody-of-this-name", "", "a:b", "a\0b"] {
            assert!(!matches!(user(unknown), Ok(Some(_))), "{unknown:?}");
            assert!(!matches!(group(unknown), Ok(Some(_))), "{unknown:?}");
        }
    }
}
