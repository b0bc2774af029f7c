//! The text of a policy file: read as TOML, and judged key by key, so that each mistake is told with its place.
//!
//! LIMIT: a text is at most `file::BYTES_MAX` long, and TOML nests no deeper than its parser allows.

use std::{fmt, ops::Range};

use keyway_abi::{
    Name, Rights,
    limits::{EXECUTABLE_BYTES_MAX, HANDLES_MAX, SESSION_DESCRIPTORS},
};
use keyway_kernel::{Charge, DIRECTORY_RIGHTS, Limits, NameRule, NameRules, OWN_RIGHTS, Subject};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Policy, ROOT_UID, Standing, StandingRule};

/// Something in a policy file that cannot be, and what could.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
    /// What was found, and what is possible.
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.what)
    }
}

/// See [`Policy::parse`].
pub(super) fn parse(text: &str, broker_uid: u32) -> Result<Policy, Vec<Mistake>> {
    let (document, broken) = DeTable::parse_recoverable(text);
    let mut judge = Judge { broker_uid, mistakes: Vec::new() };
    if broken.is_empty() {
        let policy = judge.document(document.get_ref());
        if judge.mistakes.is_empty() {
            return Ok(policy);
        }
    }
    for error in broken {
        let at = error.span().map_or(text.len(), |span| span.start);
        judge.mistakes.push((at, format!("this is no TOML: {}", error.message())));
    }
    judge.mistakes.sort_by_key(|(at, _)| *at);
    let mut place = Place::START;
    let told = judge.mistakes.into_iter().map(|(at, what)| {
        place.advance(text, at);
        place.mistake(what)
    });
    Err(told.collect())
}

impl Mistake {
    /// A mistake at this offset.
    pub(super) fn at(text: &str, offset: usize, what: String) -> Self {
        let mut place = Place::START;
        place.advance(text, offset);
        place.mistake(what)
    }
}

/// A place in a text, found from an earlier one, so that a text is gone through once for all its mistakes.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: usize,
    line: usize,
    column: usize,
}

impl Place {
    const START: Place = Place { offset: 0, line: 1, column: 1 };

    /// Goes on to an offset, which lies not before this place.
    fn advance(&mut self, text: &str, offset: usize) {
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

    fn mistake(self, what: String) -> Mistake {
        Mistake { line: self.line, column: self.column, what }
    }
}

type Value<'t> = Spanned<DeValue<'t>>;
type Entry<'a, 't> = (&'a str, Range<usize>, &'a Value<'t>);

struct Judge {
    broker_uid: u32,
    /// Each with its offset in the text.
    mistakes: Vec<(usize, String)>,
}

/// Tables.
impl Judge {
    fn document(&mut self, table: &DeTable<'_>) -> Policy {
        let mut policy = Policy {
            broker_uid: self.broker_uid,
            standing: Vec::new(),
            names: NameRules::default(),
            limits: Limits::default(),
        };
        for (key, span, value) in entries(table) {
            match key {
                "standing" => {
                    let rules = self.tables(key, value);
                    policy.standing = rules.filter_map(|(at, table)| self.standing(at, table)).collect();
                }
                "name" => {
                    let rules = self.tables(key, value);
                    let rules = rules.filter_map(|(at, table)| self.name(at, table)).collect();
                    policy.names = NameRules::new(rules);
                }
                "limits" => policy.limits = self.limits(value),
                _ => self.unknown_key(&span, key, "a policy", "[[standing]], [[name]], [limits]"),
            }
        }
        policy
    }

    /// The tables of `[[key]]`, each with its place.
    fn tables<'a, 't>(
        &mut self,
        key: &str,
        value: &'a Value<'t>,
    ) -> impl Iterator<Item = (usize, &'a DeTable<'t>)> + use<'a, 't> {
        let mut tables = Vec::new();
        match value.get_ref().as_array() {
            Some(array) => {
                for item in array {
                    match item.get_ref().as_table() {
                        Some(table) => tables.push((item.span().start, table)),
                        None => self.wrong_type(item, key, &format!("a table, begun by [[{key}]]")),
                    }
                }
            }
            None => self.wrong_type(value, key, &format!("tables, each begun by [[{key}]]")),
        }
        tables.into_iter()
    }

    fn standing(&mut self, at: usize, table: &DeTable<'_>) -> Option<StandingRule> {
        let before = self.mistakes.len();
        let none = Rights::empty();
        let (mut gives, mut deny) = (Standing { own: none, directory: none }, none);
        let subject = self.subject(at, table, "[[standing]]");
        for (key, span, value) in entries(table) {
            match key {
                "own" => gives.own = self.rights(key, value, OWN_RIGHTS, "one's own process"),
                "directory" => gives.directory = self.rights(key, value, DIRECTORY_RIGHTS, "the directory"),
                "deny" => {
                    let both = OWN_RIGHTS | DIRECTORY_RIGHTS;
                    deny = self.rights(key, value, both, "one's own process or the directory");
                }
                key if SUBJECTS.contains(&key) => {}
                _ => self.unknown_key(&span, key, "[[standing]]", STANDING_KEYS),
            }
        }
        let idle = (gives.own | gives.directory | deny).is_empty();
        if idle && self.mistakes.len() == before {
            self.mistake(
                at,
                "this entry neither gives nor denies a right; name one in own, directory or deny",
            );
        }
        Some(StandingRule { subject: subject?, gives, deny })
    }

    fn name(&mut self, at: usize, table: &DeTable<'_>) -> Option<NameRule> {
        let before = self.mistakes.len();
        let (mut prefix, mut allow, mut deny) = (None, Rights::empty(), Rights::empty());
        let subject = self.subject(at, table, "[[name]]");
        for (key, span, value) in entries(table) {
            match key {
                "prefix" => prefix = Some(self.prefix(value)),
                "allow" => allow = self.rights(key, value, NameRules::VERBS, "a name"),
                "deny" => deny = self.rights(key, value, NameRules::VERBS, "a name"),
                key if SUBJECTS.contains(&key) => {}
                _ => self.unknown_key(&span, key, "[[name]]", NAME_KEYS),
            }
        }
        if prefix.is_none() {
            self.mistake(at, "this entry has no prefix; say what its names begin with, \"\" for all of them");
        }
        if (allow | deny).is_empty() && self.mistakes.len() == before {
            self.mistake(at, "this entry neither allows nor denies anything; name a right in allow or deny");
        }
        Some(NameRule { prefix: prefix??, subject: subject?, allow, deny })
    }

    fn limits(&mut self, value: &Value<'_>) -> Limits {
        let mut limits = Limits::default();
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(value, "limits", "the tables [limits.process] and [limits.user]");
            return limits;
        };
        let mut places = Vec::new();
        for (key, span, value) in entries(table) {
            let (of, charge, handles_max) = match key {
                "process" => ("process", &mut limits.process, HANDLES_MAX),
                "user" => ("user", &mut limits.user, u32::MAX),
                _ => {
                    self.unknown_key(&span, key, "[limits]", "process, user");
                    continue;
                }
            };
            match value.get_ref().as_table() {
                Some(table) => self.charge(of, table, charge, handles_max, &mut places),
                None => self.wrong_type(value, key, &format!("a table, begun by [limits.{key}]")),
            }
        }
        self.compare(limits, &places);
        limits
    }

    fn charge(
        &mut self,
        of: &'static str,
        table: &DeTable<'_>,
        charge: &mut Charge,
        handles_max: u32,
        places: &mut Vec<(&'static str, &'static str, usize)>,
    ) {
        for (key, span, value) in entries(table) {
            let Some(row) = ROWS.iter().find(|row| row.key == key) else {
                let keys: Vec<&str> = ROWS.iter().map(|row| row.key).collect();
                self.unknown_key(&span, key, &format!("[limits.{of}]"), &keys.join(", "));
                continue;
            };
            let max = if row.key == "handles" { handles_max.into() } else { row.max };
            if let Some(number) = self.number(key, value, row.min, max) {
                (row.set)(charge, number);
                places.push((of, row.key, value.span().start));
            }
        }
    }

    /// A process's limit above its user's would never be reached, and is a slip.
    fn compare(&mut self, limits: Limits, places: &[(&'static str, &'static str, usize)]) {
        for row in &ROWS {
            let (process, user) = ((row.get)(&limits.process), (row.get)(&limits.user));
            let stated = |of| places.iter().find(|place| place.0 == of && place.1 == row.key);
            // Both at most; with neither stated, what is built in is in order.
            let Some((_, key, at)) = stated("process").or_else(|| stated("user")) else { continue };
            if process > user {
                let built_in = |of| if stated(of).is_some() { "" } else { " (as built in)" };
                let (of_process, of_user) = (built_in("process"), built_in("user"));
                self.mistake(
                    *at,
                    &format!(
                        "{key} of a process is {process}{of_process}, above its user's {user}{of_user}; lower \
                         [limits.process] or raise [limits.user]"
                    ),
                );
            }
        }
    }
}

/// Values.
impl Judge {
    fn subject(&mut self, at: usize, table: &DeTable<'_>, entry: &str) -> Option<Subject> {
        let mut named: Vec<Entry<'_, '_>> =
            entries(table).filter(|(key, ..)| SUBJECTS.contains(key)).collect();
        named.sort_by_key(|(_, span, _)| span.start);
        let Some((first, rest)) = named.split_first() else {
            self.mistake(at, &format!("{entry} does not say whom it is about; {SUBJECT_WORDS}"));
            return None;
        };
        for (key, span, _) in rest {
            let already = first.0;
            self.mistake(
                span.start,
                &format!("{key} beside {already}: an entry is about one; {SUBJECT_WORDS}"),
            );
        }
        let (key, _, value) = first;
        match *key {
            "user" => self.user(value).map(Subject::User),
            "group" => self.id("group", value, "").map(Subject::Group),
            "executable" => self.executable(value).map(Subject::Executable),
            _ if value.get_ref().as_bool() == Some(true) => Some(Subject::Everyone),
            _ => {
                self.mistake(value.span().start, "everyone can only be true; leave it out otherwise");
                None
            }
        }
    }

    fn user(&mut self, value: &Value<'_>) -> Option<u32> {
        match value.get_ref().as_str() {
            Some("root") => Some(ROOT_UID),
            Some("broker") => Some(self.broker_uid),
            Some(other) => {
                let what = format!("user {other:?} is unknown; a number, \"root\" or \"broker\" is possible");
                self.mistake(value.span().start, &what);
                None
            }
            None => self.id("user", value, ", \"root\" or \"broker\""),
        }
    }

    fn id(&mut self, key: &str, value: &Value<'_>, others: &str) -> Option<u32> {
        if !value.get_ref().is_integer() {
            self.wrong_type(value, key, &format!("a number{others}"));
            return None;
        }
        // The last number means nobody.
        self.number(key, value, 0, u64::from(u32::MAX) - 1).map(|number| number as u32)
    }

    fn number(&mut self, key: &str, value: &Value<'_>, min: u64, max: u64) -> Option<u64> {
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(value, key, &format!("a number from {min} to {max}"));
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.filter(|number| (min..=max).contains(number));
        if number.is_none() {
            let what = format!("{key} is {integer}; {min} to {max} are possible");
            self.mistake(value.span().start, &what);
        }
        number
    }

    fn executable(&mut self, value: &Value<'_>) -> Option<String> {
        let Some(path) = value.get_ref().as_str() else {
            self.wrong_type(value, "executable", "the path of a program");
            return None;
        };
        // A path that is not text is known with this in it, and others with it.
        let unknowable = |c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER;
        if path.starts_with('/') && path.len() <= PATH_BYTES_MAX && !path.contains(unknowable) {
            return Some(path.into());
        }
        let what = format!(
            "executable is {path:?} ({} bytes); a path from / on, of at most {PATH_BYTES_MAX} bytes, is possible",
            path.len()
        );
        self.mistake(value.span().start, &what);
        None
    }

    fn prefix(&mut self, value: &Value<'_>) -> Option<String> {
        let Some(prefix) = value.get_ref().as_str() else {
            self.wrong_type(value, "prefix", "the beginning of names, \"\" for all of them");
            return None;
        };
        // A letter makes a name of whatever can begin one.
        let begins_a_name = prefix.len() <= Name::BYTES_MAX
            && (prefix.len() == Name::BYTES_MAX || Name::new(&format!("{prefix}x")).is_ok())
            && (prefix.len() < Name::BYTES_MAX || Name::new(prefix).is_ok());
        if begins_a_name {
            return Some(prefix.into());
        }
        let what = format!(
            "no name can begin with {prefix:?}; a name has at most {} bytes of a-z A-Z 0-9 . _ - / and begins with no /",
            Name::BYTES_MAX
        );
        self.mistake(value.span().start, &what);
        None
    }

    fn rights(&mut self, key: &str, value: &Value<'_>, possible: Rights, of: &str) -> Rights {
        let mut rights = Rights::empty();
        let Some(list) = value.get_ref().as_array() else {
            self.wrong_type(value, key, &format!("a list out of {}", listed(possible)));
            return rights;
        };
        for item in list {
            let Some(word) = item.get_ref().as_str() else {
                self.wrong_type(item, key, &format!("words out of {}", listed(possible)));
                continue;
            };
            let found = Rights::all().iter_names().find(|(name, _)| name.to_ascii_lowercase() == word);
            let what = match found {
                Some((_, right)) if possible.contains(right) => {
                    rights |= right;
                    continue;
                }
                Some(_) => format!("{of} has no right {word:?}; possible are {}", listed(possible)),
                None => format!("there is no right {word:?}; possible are {}", listed(possible)),
            };
            self.mistake(item.span().start, &what);
        }
        rights
    }

    fn unknown_key(&mut self, span: &Range<usize>, key: &str, of: &str, possible: &str) {
        self.mistake(span.start, &format!("{of} has no key {key:?}; possible are {possible}"));
    }

    fn wrong_type(&mut self, value: &Value<'_>, key: &str, possible: &str) {
        let found = value.get_ref().type_str();
        self.mistake(value.span().start, &format!("{key} is of type {found}; possible is {possible}"));
    }

    fn mistake(&mut self, at: usize, what: &str) {
        self.mistakes.push((at, what.into()));
    }
}

fn entries<'a, 't>(table: &'a DeTable<'t>) -> impl Iterator<Item = Entry<'a, 't>> {
    table.iter().map(|(key, value)| (key.get_ref().as_ref(), key.span(), value))
}

/// Rights as a file has them.
pub(super) fn words(rights: Rights) -> Vec<String> {
    rights.iter_names().map(|(name, _)| name.to_ascii_lowercase()).collect()
}

fn listed(rights: Rights) -> String {
    words(rights).join(", ")
}

/// The keys that say whom an entry is about.
const SUBJECTS: [&str; 4] = ["user", "group", "executable", "everyone"];
const SUBJECT_WORDS: &str = "one of user, group, executable, everyone is possible";
const STANDING_KEYS: &str = "user, group, executable, everyone, own, directory, deny";
const NAME_KEYS: &str = "user, group, executable, everyone, prefix, allow, deny";

/// Bytes of a program's path. The kernel keeps the beginning of longer ones, which must not be taken for the whole.
const PATH_BYTES_MAX: usize = EXECUTABLE_BYTES_MAX - 4;

/// A limit: its key, the numbers that are possible, and where it is.
pub(super) struct Row {
    pub(super) key: &'static str,
    min: u64,
    max: u64,
    pub(super) get: fn(&Charge) -> u64,
    set: fn(&mut Charge, u64),
}

/// A row for a field of 32 bits. What is set was judged by `max`.
macro_rules! row {
    ($field:ident, $min:expr) => {
        Row {
            key: stringify!($field),
            min: $min,
            max: u32::MAX as u64,
            get: |charge| charge.$field.into(),
            set: |charge, number| charge.$field = number as u32,
        }
    };
}

/// All limits. Without a session, or the descriptors of one, nobody could connect.
pub(super) const ROWS: [Row; 10] = [
    row!(sessions, 1),
    row!(handles, 0),
    row!(objects, 0),
    row!(lanes, 0),
    row!(mappings, 0),
    row!(names, 0),
    row!(descriptors, SESSION_DESCRIPTORS as u64),
    row!(derivations, 0),
    row!(requests, 1),
    Row {
        key: "bytes",
        min: 0,
        max: i64::MAX as u64,
        get: |charge| charge.bytes,
        set: |charge, number| charge.bytes = number,
    },
];

#[cfg(test)]
mod tests;
