//! The name of a service or of a region: short, printable, judged once.

use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};
use thiserror::Error;

/// A name of 1 to 63 bytes out of `a-z A-Z 0-9 . _ - /`, neither beginning nor ending with `/`.
///
/// Having one tells you that it is printable in a terminal and in a path. It says nothing of whether it exists.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Name(String);

/// Why a text is not a [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// It has no characters, or too many.
    #[error("a name has 1 to {bytes_max} bytes, this one has {asked_bytes}")]
    Length {
        /// Bytes in the text.
        asked_bytes: usize,
        /// Bytes that a name can have.
        bytes_max: usize,
    },
    /// It has a character outside the set.
    #[error(
        "a name holds a-z A-Z 0-9 . _ - / and neither begins nor ends with /; the byte at {at} is not lawful"
    )]
    Character {
        /// The offset of the first unlawful byte.
        at: usize,
    },
}

impl Name {
    /// Bytes of the longest name.
    pub const BYTES_MAX: usize = 63;

    /// Judges `text`.
    ///
    /// # Errors
    /// [`NameError`] when the text is empty, too long or holds an unlawful byte.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let bytes = text.as_bytes();
        if bytes.is_empty() || bytes.len() > Self::BYTES_MAX {
            return Err(NameError::Length { asked_bytes: bytes.len(), bytes_max: Self::BYTES_MAX });
        }
        let lawful = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-/".contains(byte);
        let unlawful = bytes.iter().position(|byte| !lawful(byte));
        let slash = match (bytes[0], bytes[bytes.len() - 1]) {
            (b'/', _) => Some(0),
            (_, b'/') => Some(bytes.len() - 1),
            _ => None,
        };
        match unlawful.or(slash) {
            Some(at) => Err(NameError::Character { at }),
            None => Ok(Name(text.into())),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        Name::new(text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lawful_names_pass() {
        for text in ["a", "rustica-gui", "rustica-gui/compositor", "A.b_c-9", &"x".repeat(63)] {
            assert_eq!(Name::new(text).map(|name| name.as_str() == text), Ok(true));
        }
    }

    #[test]
    fn unlawful_names_say_what_is_wrong() {
        assert_eq!(Name::new(""), Err(NameError::Length { asked_bytes: 0, bytes_max: 63 }));
        assert_eq!(Name::new(&"x".repeat(64)), Err(NameError::Length { asked_bytes: 64, bytes_max: 63 }));
        assert_eq!(Name::new("a b"), Err(NameError::Character { at: 1 }));
        assert_eq!(Name::new("/a"), Err(NameError::Character { at: 0 }));
        assert_eq!(Name::new("ab/"), Err(NameError::Character { at: 2 }));
        assert_eq!(Name::new("a\u{1b}[2J"), Err(NameError::Character { at: 1 }));
    }
}
