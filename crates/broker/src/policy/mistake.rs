//! What can be wrong in the text of a policy file: one variant a mistake, with what was found and what is possible.

use std::fmt;

use keyway_abi::Name;
use thiserror::Error;

/// Something in a policy file that cannot be, and what could.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
    /// What was found, and what is possible.
    pub what: Wrong,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.what)
    }
}

impl Mistake {
    /// A mistake at this offset.
    pub(super) fn at(text: &str, offset: usize, what: Wrong) -> Self {
        let mut place = Place::START;
        place.advance(text, offset);
        place.mistake(what)
    }
}

/// A place in a text, found from an earlier one, so that a text is gone through once for all its mistakes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    offset: usize,
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Place {
    pub(super) const START: Place = Place { offset: 0, line: 1, column: 1 };

    /// Goes on to an offset, which lies not before this place.
    pub(super) fn advance(&mut self, text: &str, offset: usize) {
        let offset = offset.min(text.len());
        for byte in text.as_bytes().get(self.offset..offset).unwrap_or_default() {
            match byte {
                b'\n' => (self.line, self.column) = (self.line + 1, 1),
                // The rest of a character that was counted by its first byte.
                0x80..=0xbf => {}
                _ => self.column += 1,
            }
        }
        self.offset = offset.max(self.offset);
    }

    pub(super) fn mistake(self, what: Wrong) -> Mistake {
        Mistake { line: self.line, column: self.column, what }
    }
}

/// A way in which a text is no policy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Wrong {
    /// The text is no TOML.
    #[error("this is no TOML: {message}")]
    NoToml {
        /// What TOML's parser says.
        message: String,
    },
    /// A table has no such key.
    #[error("{of} has no key {key:?}; possible are {possible}")]
    UnknownKey {
        /// Which table.
        of: String,
        /// The key.
        key: String,
        /// Those that it has.
        possible: String,
    },
    /// A value is of another type than its key's.
    #[error("{key} is of type {found}; possible is {possible}")]
    WrongType {
        /// The key.
        key: String,
        /// The type that is there.
        found: &'static str,
        /// What can be there.
        possible: String,
    },
    /// A standing entry without effect.
    #[error("this entry neither gives nor denies a right; name one in own, directory or deny")]
    NothingGiven,
    /// A name entry without effect.
    #[error("this entry neither allows nor denies anything; name a right in allow or deny")]
    NothingAllowed,
    /// A name entry that does not say which names.
    #[error("this entry has no prefix; say what its names begin with, \"\" for all of them")]
    PrefixMissing,
    /// An entry that is about nobody.
    #[error("{entry} does not say whom it is about; {SUBJECT_WORDS}")]
    SubjectMissing {
        /// Which kind of entry.
        entry: &'static str,
    },
    /// An entry that is about several.
    #[error("{key} beside {already}: an entry is about one; {SUBJECT_WORDS}")]
    SubjectRepeated {
        /// The second.
        key: String,
        /// The first.
        already: String,
    },
    /// An entry about not everyone.
    #[error("everyone can only be true; leave it out otherwise")]
    EveryoneFalse,
    /// A user of no known name.
    #[error(
        "user {user:?} is unknown ({reason}); a number, \"broker\" or the name of a user of this machine is possible"
    )]
    UserUnknown {
        /// The name.
        user: String,
        /// Why.
        reason: String,
    },
    /// A group of no known name.
    #[error(
        "group {group:?} is unknown ({reason}); a number or the name of a group of this machine is possible"
    )]
    GroupUnknown {
        /// The name.
        group: String,
        /// Why.
        reason: String,
    },
    /// A number that cannot be.
    #[error("{key} is {number}; {min} to {max} are possible")]
    NumberOutside {
        /// Its key.
        key: String,
        /// As the text has it, since it can be longer than any number here.
        number: String,
        /// The least that is possible.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A process's limit above its user's, which would never be reached.
    #[error(
        "{key} of a process is {process}{process_origin}, above its user's {user}{user_origin}; lower \
         [limits.process] or raise [limits.user]"
    )]
    LimitAboveUser {
        /// Which limit.
        key: &'static str,
        /// The process's.
        process: u64,
        /// Where that is from, unless from the text.
        process_origin: &'static str,
        /// The user's.
        user: u64,
        /// Where that is from, unless from the text.
        user_origin: &'static str,
    },
    /// A program that is named by no whole path.
    #[error(
        "executable is {path:?} ({bytes} bytes); a path from / on, of at most {bytes_max} bytes, is possible"
    )]
    ExecutableUnlawful {
        /// The text.
        path: String,
        /// Its bytes.
        bytes: usize,
        /// Bytes that it can have.
        bytes_max: usize,
    },
    /// Something with which no name begins.
    #[error(
        "no name can begin with {prefix:?}; a name has at most {max} bytes of a-z A-Z 0-9 . _ - / and begins with no /",
        max = Name::BYTES_MAX
    )]
    PrefixUnlawful {
        /// The text.
        prefix: String,
    },
    /// A right that exists, on something else.
    #[error("{of} has no right {word:?}; possible are {possible}")]
    RightElsewhere {
        /// On what it is to be.
        of: &'static str,
        /// The right.
        word: String,
        /// Those that are possible there.
        possible: String,
    },
    /// A right that does not exist.
    #[error("there is no right {word:?}; possible are {possible}")]
    RightUnknown {
        /// The word.
        word: String,
        /// Those that are possible there.
        possible: String,
    },
}

/// Whom an entry can be about.
const SUBJECT_WORDS: &str = "one of user, group, executable, everyone is possible";
