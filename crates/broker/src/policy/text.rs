//! The text of a policy file: read as TOML, and judged key by key, so that each mistake is told with its place.
//!
//! LIMIT: a text is at most `file::BYTES_MAX` long, and TOML nests no deeper than its parser allows.

use std::ops::Range;

use keyway_abi::{
    Name, Rights,
    limits::{EXECUTABLE_BYTES_MAX, SESSION_DESCRIPTORS, TABLE_MAX},
};
use keyway_kernel::{Charge, DIRECTORY_RIGHTS, Limits, NameRule, NameRules, OWN_RIGHTS, Subject};
use keyway_sys::users;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Mistake, Policy, ROOT_UID, Standing, StandingRule, Wrong, mistake::Place};

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
        judge.mistakes.push((at, Wrong::NoToml { message: error.message().into() }));
    }
    judge.mistakes.sort_by_key(|(at, _)| *at);
    let mut place = Place::START;
    let told = judge.mistakes.into_iter().map(|(at, what)| {
        place.advance(text, at);
        place.mistake(what)
    });
    Err(told.collect())
}

type Value<'t> = Spanned<DeValue<'t>>;
type Entry<'a, 't> = (&'a str, Range<usize>, &'a Value<'t>);

struct Judge {
    broker_uid: u32,
    /// Each with its offset in the text.
    mistakes: Vec<(usize, Wrong)>,
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
            self.mistake(at, Wrong::NothingGiven);
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
            self.mistake(at, Wrong::PrefixMissing);
        }
        if (allow | deny).is_empty() && self.mistakes.len() == before {
            self.mistake(at, Wrong::NothingAllowed);
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
                "process" => ("process", &mut limits.process, TABLE_MAX),
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
                let (process_origin, user_origin) = (built_in("process"), built_in("user"));
                let what = Wrong::LimitAboveUser { key, process, process_origin, user, user_origin };
                self.mistake(*at, what);
            }
        }
    }
}

/// Values.
impl Judge {
    fn subject(&mut self, at: usize, table: &DeTable<'_>, entry: &'static str) -> Option<Subject> {
        let mut named: Vec<Entry<'_, '_>> =
            entries(table).filter(|(key, ..)| SUBJECTS.contains(key)).collect();
        named.sort_by_key(|(_, span, _)| span.start);
        let Some((first, rest)) = named.split_first() else {
            self.mistake(at, Wrong::SubjectMissing { entry });
            return None;
        };
        for (key, span, _) in rest {
            let what = Wrong::SubjectRepeated { key: (*key).into(), already: first.0.into() };
            self.mistake(span.start, what);
        }
        let (key, _, value) = first;
        match *key {
            "user" => self.user(value).map(Subject::User),
            "group" => self.group(value).map(Subject::Group),
            "executable" => self.executable(value).map(Subject::Executable),
            _ if value.get_ref().as_bool() == Some(true) => Some(Subject::Everyone),
            _ => {
                self.mistake(value.span().start, Wrong::EveryoneFalse);
                None
            }
        }
    }

    fn user(&mut self, value: &Value<'_>) -> Option<u32> {
        match value.get_ref().as_str() {
            Some("root") => Some(ROOT_UID),
            Some("broker") => Some(self.broker_uid),
            Some(name) => {
                let what = |reason| Wrong::UserUnknown { user: name.into(), reason };
                self.named(value, users::user(name), what)
            }
            None => self.id("user", value, " or a name"),
        }
    }

    fn group(&mut self, value: &Value<'_>) -> Option<u32> {
        match value.get_ref().as_str() {
            Some(name) => {
                let what = |reason| Wrong::GroupUnknown { group: name.into(), reason };
                self.named(value, users::group(name), what)
            }
            None => self.id("group", value, " or a name"),
        }
    }

    /// The number that a name has on this machine.
    fn named(
        &mut self,
        value: &Value<'_>,
        found: Result<Option<u32>, keyway_sys::Error>,
        what: impl FnOnce(String) -> Wrong,
    ) -> Option<u32> {
        let reason = match found {
            Ok(Some(number)) => return Some(number),
            Ok(None) => "this machine has none of that name".into(),
            Err(error) => error.to_string(),
        };
        self.mistake(value.span().start, what(reason));
        None
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
            let what = Wrong::NumberOutside { key: key.into(), number: integer.to_string(), min, max };
            self.mistake(value.span().start, what);
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
        let (bytes, bytes_max) = (path.len(), PATH_BYTES_MAX);
        self.mistake(value.span().start, Wrong::ExecutableUnlawful { path: path.into(), bytes, bytes_max });
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
        self.mistake(value.span().start, Wrong::PrefixUnlawful { prefix: prefix.into() });
        None
    }

    fn rights(&mut self, key: &str, value: &Value<'_>, possible: Rights, of: &'static str) -> Rights {
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
                Some(_) => Wrong::RightElsewhere { of, word: word.into(), possible: listed(possible) },
                None => Wrong::RightUnknown { word: word.into(), possible: listed(possible) },
            };
            self.mistake(item.span().start, what);
        }
        rights
    }

    fn unknown_key(&mut self, span: &Range<usize>, key: &str, of: &str, possible: &str) {
        let what = Wrong::UnknownKey { of: of.into(), key: key.into(), possible: possible.into() };
        self.mistake(span.start, what);
    }

    fn wrong_type(&mut self, value: &Value<'_>, key: &str, possible: &str) {
        let found = value.get_ref().type_str();
        let what = Wrong::WrongType { key: key.into(), found, possible: possible.into() };
        self.mistake(value.span().start, what);
    }

    fn mistake(&mut self, at: usize, what: Wrong) {
        self.mistakes.push((at, what));
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
pub(super) const ROWS: [Row; 11] = [
    row!(sessions, 1),
    row!(handles, 0),
    row!(objects, 0),
    row!(lanes, 0),
    row!(mappings, 0),
    row!(names, 0),
    row!(descriptors, SESSION_DESCRIPTORS as u64),
    row!(derivations, 0),
    row!(requests, 1),
    row!(pages, 1),
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
