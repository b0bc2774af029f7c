//! Rule `refusals-provoked`: every refusal stands in docs/refusals.md, beside the tests that provoke it.
//!
//! The refusals are the variants of the enums below, as their source has them, so that none is left out. Which test
//! provokes which is what the tests' drivers noted while they ran (`keyway-provoked`), and never guessed from a name. Tests
//! with random inputs do not count: what they provoke, another run may not.
//!
//! `tools/refusals` runs the tests and then this with what they noted. Without that, the document is held against the
//! source alone: a refusal without a row, or a test that is gone, needs no run to be found.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::Path,
};

use crate::{
    source::{self, Source, Token},
    tree::Offence,
};

pub(crate) const DOCUMENT: &str = "docs/refusals.md";
const RULE: &str = "refusals-provoked";

/// An enum whose variants are refusals.
struct Family {
    path: &'static str,
    name: &'static str,
    title: &'static str,
    about: &'static str,
}

const fn family(path: &'static str, name: &'static str, title: &'static str, about: &'static str) -> Family {
    Family { path, name, title, about }
}

const FAMILIES: [Family; 17] = [
    family(
        "crates/abi/src/denial.rs",
        "Denial",
        "Denials",
        "A lawful request, refused. Nothing has changed, and the session lives on. The numbers never change.",
    ),
    family(
        "crates/abi/src/denial.rs",
        "Quota",
        "Limits",
        "What `QuotaExceeded` and `ReceiverFull` say is used up.",
    ),
    family(
        "crates/abi/src/farewell.rs",
        "Malformed",
        "Malformed frames",
        "Bytes that are no frame. They end the session that sent them, and no other.",
    ),
    family(
        "crates/abi/src/farewell.rs",
        "Fault",
        "Faults",
        "Lawful bytes against the protocol. They end the session that sent them, and no other.",
    ),
    family(
        "crates/abi/src/farewell.rs",
        "Farewell",
        "Farewells",
        "Why the broker ended a session, or began none: its last frame.",
    ),
    family(
        "crates/shm/src/lane/fault.rs",
        "LaneFault",
        "Faults of a lane",
        "What the other end of a lane wrote that no honest one writes. It ends the lane, for the end that found it.",
    ),
    family(
        "crates/keyway/src/fault.rs",
        "SegmentFault",
        "Faults of segments",
        "What the sender of a lane named that is not there. It ends the lane, for the receiver that found it.",
    ),
    family(
        "crates/keyway/src/error.rs",
        "Error",
        "Errors of the library",
        "What a program is told by the client library. `Denied` and `SessionEnded` carry what stands above.",
    ),
    family(
        "crates/broker/src/socket.rs",
        "StartError",
        "Why a broker cannot begin",
        "What `keyway serve` and an embedded broker say.",
    ),
    family(
        "crates/broker/src/policy/file.rs",
        "PolicyError",
        "Policy files",
        "Why a policy file does not hold. The broker does not begin, or keeps the policy that it had.",
    ),
    family(
        "crates/broker/src/policy/mistake.rs",
        "Wrong",
        "Mistakes in a policy file",
        "Each is told with its line and column, all of a file at once.",
    ),
    family(
        "crates/gui/src/protocol/document.rs",
        "DenialReason",
        "Denials of the bridge",
        "A lawful request to `rustica-gui`, refused. Nothing has changed.",
    ),
    family(
        "crates/gui/src/protocol/document.rs",
        "OtherDenial",
        "Other denials of the bridge",
        "What stands behind `Other`, by its number.",
    ),
    family(
        "crates/gui/src/machine/client.rs",
        "LaneRefused",
        "Lanes that the bridge refuses",
        "The bridge closes the lane.",
    ),
    family(
        "crates/gui/src/machine/display.rs",
        "FactsRefused",
        "Facts that the bridge refuses",
        "What is said of the machine, and cannot be.",
    ),
    family(
        "crates/gui/src/protocol/encoding.rs",
        "Malformed",
        "Malformed messages of the bridge",
        "Bytes that are no message, or a message that cannot become bytes.",
    ),
    family(
        "crates/gui/src/seatd.rs",
        "Malformed",
        "Malformed requests of the seatd door",
        "Bytes that are no request of that protocol. They end the connection that sent them, and no other.",
    ),
];

/// A refusal, as its source has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    name: String,
    /// What people read, with the names of figures in braces.
    sentence: String,
}

/// What the tests noted of one refusal.
#[derive(Clone, Debug, Default)]
struct Provoked {
    numbers: BTreeSet<u32>,
    errnos: BTreeSet<i32>,
    operations: BTreeSet<String>,
    tests: BTreeSet<String>,
}

/// What was noted, by the type and the name of the refusal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes(BTreeMap<(String, String), Provoked>);

impl Notes {
    /// Reads what the tests noted in a directory, without the tests whose inputs are random.
    pub(crate) fn read(directory: &Path, sources: &[Source]) -> Self {
        let files = fs::read_dir(directory).expect("the tests have noted something");
        let texts = files.map(|file| fs::read_to_string(file.expect("a file").path()).expect("text"));
        Self::parse(&texts.collect::<String>(), &random(sources))
    }

    fn parse(text: &str, random: &BTreeSet<Function>) -> Self {
        let mut notes = Notes::default();
        for line in text.lines() {
            let columns: Vec<&str> = line.split('\t').collect();
            let [kind, name, number, errno, operation, of, binary, test] = columns[..] else {
                panic!("a line of eight columns: {line}")
            };
            let function = test.rsplit("::").next().expect("a test has a name");
            // What a model asks for is random too, also where its seed is fixed: nobody says what must come of it.
            let is_model = test.split("::").any(|module| module == "model");
            if is_model || random.contains(&(of.into(), function.into())) {
                continue;
            }
            let provoked = notes.0.entry((kind.into(), name.into())).or_default();
            provoked.numbers.extend(number.parse::<u32>());
            provoked.errnos.extend(errno.parse::<i32>());
            if !operation.is_empty() {
                provoked.operations.insert(operation.into());
            }
            let binary = if binary == of { String::new() } else { format!("{binary}::") };
            provoked.tests.insert(format!("{of}::{binary}{test}"));
        }
        notes
    }

    fn of(&self, family: &Family, refusal: &Refusal) -> Provoked {
        self.0.get(&(family.type_name(), refusal.name.clone())).cloned().unwrap_or_default()
    }
}

impl Family {
    fn source<'a>(&self, sources: &'a [Source]) -> &'a Source {
        sources.iter().find(|source| source.path == self.path).expect("the family's file is there")
    }

    /// The type's name, as the compiler has it.
    fn type_name(&self) -> String {
        let source = Source::new(self.path, "");
        let directory = source.crate_directory().expect("a crate").to_string();
        let root = if directory == "keyway" { directory } else { format!("keyway_{directory}") };
        let modules = source.module().expect("a module").join("::");
        format!("{root}::{modules}::{}", self.name)
    }
}

/// Refusals that no test has provoked, and what differs in the document.
pub(crate) fn unprovoked(sources: &[Source], notes: &Notes, document: Option<&str>) -> Vec<Offence> {
    let mut found = Vec::new();
    for family in &FAMILIES {
        for refusal in variants(family.source(sources), family.name) {
            if notes.of(family, &refusal).tests.is_empty() {
                let what = format!("no test provokes `{}::{}`", family.name, refusal.name);
                found.push(Offence::new(family.path, RULE, what));
            }
        }
    }
    let expected = write(sources, notes);
    if document != Some(expected.as_str()) {
        let (document, mut lines) = (document.unwrap_or_default(), expected.lines());
        let same = document.lines().take_while(|line| lines.next() == Some(line)).count();
        let what = "differs from what the tests provoked; write it anew with tools/refusals";
        found.push(Offence::new(format!("{DOCUMENT}:{}", same + 1), RULE, what));
    }
    found
}

/// Refusals without their row, and tests that the document names and the tree does not have. Needs no run of the tests.
pub(crate) fn unlisted(sources: &[Source], document: Option<&str>) -> Vec<Offence> {
    let sections: Vec<&str> = document.unwrap_or_default().split("\n## ").collect();
    let functions = functions(sources);
    let mut found = Vec::new();
    for family in &FAMILIES {
        let heading = format!("{}\n", family.title);
        let section = sections.iter().find(|section| section.starts_with(&heading)).copied();
        for refusal in variants(family.source(sources), family.name) {
            let begins = [format!("| `{}` |", refusal.name), format!(" {} |", cell(&refusal.sentence))];
            let mut rows = section.unwrap_or_default().lines();
            if !rows.any(|row| begins.iter().all(|part| row.contains(part))) {
                let what = format!("`{}::{}` has no row; run tools/refusals", family.name, refusal.name);
                found.push(Offence::new(DOCUMENT, RULE, what));
            }
        }
    }
    for row in document.unwrap_or_default().lines().filter(|line| line.starts_with("| ")) {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        for test in tests.split('`').skip(1).step_by(2) {
            let (of, rest) = test.split_once("::").unwrap_or_default();
            let function = rest.rsplit("::").next().unwrap_or_default();
            if !functions.contains(&(of.into(), function.into())) {
                found.push(Offence::new(DOCUMENT, RULE, format!("there is no test `{test}`")));
            }
        }
    }
    found
}

/// The document.
pub(crate) fn write(sources: &[Source], notes: &Notes) -> String {
    let mut text = String::from(INTRODUCTION);
    for family in &FAMILIES {
        write!(text, "\n## {}\n\n{}\n\n", family.title, family.about).expect("a string takes all");
        let rows: Vec<(Refusal, Provoked)> = variants(family.source(sources), family.name)
            .into_iter()
            .map(|refusal| (refusal.clone(), notes.of(family, &refusal)))
            .collect();
        text.push_str(&table(rows));
    }
    text
}

/// What stands in a column.
type Column = fn(&Refusal, &Provoked) -> String;

/// A table without the columns in which nothing would stand.
fn table(mut rows: Vec<(Refusal, Provoked)>) -> String {
    rows.sort_by_key(|(_, provoked)| provoked.numbers.first().copied());
    let columns: [(&str, Column); 6] = [
        ("number", |_, provoked| listed(&provoked.numbers, ToString::to_string)),
        ("name", |refusal, _| format!("`{}`", refusal.name)),
        ("errno", |_, provoked| listed(&provoked.errnos, |errno| symbol(*errno))),
        ("what it says", |refusal, _| cell(&refusal.sentence)),
        ("asked for", |_, provoked| listed(&provoked.operations, String::clone)),
        ("provoked by", |_, provoked| listed(&provoked.tests, |test| format!("`{test}`"))),
    ];
    let lines: Vec<Vec<String>> = rows
        .iter()
        .map(|(refusal, provoked)| columns.iter().map(|(_, of)| of(refusal, provoked)).collect())
        .collect();
    let shown: Vec<usize> =
        (0..columns.len()).filter(|column| lines.iter().any(|line| !line[*column].is_empty())).collect();
    let line = |of: &dyn Fn(usize) -> String| {
        let cells: Vec<String> = shown.iter().map(|column| of(*column)).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let mut text = line(&|column| columns[column].0.into());
    text.push_str(&line(&|_| "---".into()));
    for row in &lines {
        text.push_str(&line(&|column| {
            if row[column].is_empty() { "–".into() } else { row[column].clone() }
        }));
    }
    text
}

fn listed<T>(all: &BTreeSet<T>, show: impl Fn(&T) -> String) -> String {
    all.iter().map(show).collect::<Vec<_>>().join(", ")
}

/// A text that can stand in a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "\\<")
}

/// An errno as C has it.
fn symbol(errno: i32) -> String {
    let found = ERRNOS.iter().find(|(number, _)| *number == errno);
    found.map_or_else(|| errno.to_string(), |(number, symbol)| format!("{symbol} ({number})"))
}

const ERRNOS: [(i32, &str); 20] = [
    (1, "EPERM"),
    (2, "ENOENT"),
    (3, "ESRCH"),
    (9, "EBADF"),
    (11, "EAGAIN"),
    (12, "ENOMEM"),
    (13, "EACCES"),
    (16, "EBUSY"),
    (17, "EEXIST"),
    (22, "EINVAL"),
    (32, "EPIPE"),
    (36, "ENAMETOOLONG"),
    (71, "EPROTO"),
    (90, "EMSGSIZE"),
    (93, "EPROTONOSUPPORT"),
    (95, "EOPNOTSUPP"),
    (98, "EADDRINUSE"),
    (104, "ECONNRESET"),
    (110, "ETIMEDOUT"),
    (111, "ECONNREFUSED"),
];

/// The variants of an enum.
fn variants(source: &Source, name: &str) -> Vec<Refusal> {
    let tokens = source::tokens(&source.code);
    let begins = |at: &usize| tokens[*at].text == "enum" && tokens[at + 1].text == name;
    let at = (0..tokens.len() - 2).find(begins).unwrap_or_else(|| panic!("{}: no enum {name}", source.path));
    let end = source::closing(&tokens, at + 2);
    let mut found = Vec::new();
    let mut next = at + 3;
    while next < end {
        let begin = next;
        let mut sentence = None;
        while tokens[next].text == "#" {
            let closing = source::closing(&tokens, next + 1);
            if tokens[next + 2].text == "error" {
                sentence = literal(&source.text[tokens[next].offset..tokens[closing].offset]);
            }
            next = closing + 1;
        }
        let name = tokens[next].text.to_string();
        let sentence = sentence.unwrap_or_else(|| documented(source, tokens[begin]));
        found.push(Refusal { name, sentence });
        while next < end && tokens[next].text != "," {
            let opens = matches!(tokens[next].text, "(" | "{" | "[");
            next = if opens { source::closing(&tokens, next) } else { next } + 1;
        }
        next += 1;
    }
    found
}

/// The first literal in a piece of source, as the compiler has it. Nothing if it has no words of its own.
fn literal(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('"')?;
    let mut said = String::new();
    let mut characters = rest.chars().peekable();
    loop {
        match characters.next()? {
            '"' => break,
            '\\' if characters.peek() == Some(&'\n') => {
                while characters.next_if(|character| character.is_whitespace()).is_some() {}
            }
            '\\' => said.extend(characters.next()),
            other => said.push(other),
        }
    }
    let arguments = characters.collect::<String>();
    for argument in arguments.trim_matches([',', ' ', '\n', ')']).split(", ").filter(|text| !text.is_empty())
    {
        said = said.replacen("{}", &format!("{{{}}}", argument.trim()), 1);
    }
    said.contains(' ').then_some(said)
}

/// The first paragraph of the comment above a token.
fn documented(source: &Source, token: Token<'_>) -> String {
    let above: Vec<&str> = source.text[..token.offset].lines().collect();
    let above = above[..source.line(token.offset) - 1].iter().rev().map(|line| line.trim());
    let lines: Vec<&str> = above.map_while(|line| line.strip_prefix("///")).map(str::trim).collect();
    let first = lines.rsplit(|line| line.is_empty()).next().unwrap_or_default();
    first.iter().rev().copied().collect::<Vec<_>>().join(" ").replace(['[', ']'], "")
}

/// A function: the directory of its crate, and its name.
type Function = (String, String);

/// The functions of the crates.
fn functions(sources: &[Source]) -> BTreeSet<Function> {
    sources.iter().flat_map(|source| named(source, &source::tokens(&source.code))).collect()
}

/// The tests whose inputs are random.
fn random(sources: &[Source]) -> BTreeSet<Function> {
    let mut found = BTreeSet::new();
    for source in sources {
        let tokens = source::tokens(&source.code);
        for at in 0..tokens.len().saturating_sub(2) {
            if tokens[at].text == "proptest" && tokens[at + 1].text == "!" {
                found.extend(named(source, &tokens[at..source::closing(&tokens, at + 2)]));
            }
        }
    }
    found
}

fn named(source: &Source, tokens: &[Token<'_>]) -> Vec<Function> {
    let Some(directory) = source.crate_directory() else { return Vec::new() };
    let pairs = tokens.windows(2).filter(|pair| pair[0].text == "fn");
    pairs.map(|pair| (directory.to_string(), pair[1].text.to_string())).collect()
}

const INTRODUCTION: &str = "\
# What is refused, and which test shows it

Every refusal of Keyway, with the number and the errno by which other languages know it, what it says, what was asked for when
it was given, and the tests that provoke it. What stands in braces is a figure of the case: what was asked for, and what stood
against it.

This file is written by `tools/refusals`: the refusals come from the enums in the code, and each test stands where the refusal
came out while it ran. `tools/refusals --check`, and with it `.ci/run`, fails when a refusal has no test, or when this file is
not what the tests show. Tests with random inputs are left out.
";

mod tests {
    use super::*;

    const ENUM: &str = "/// Why.\n#[derive(Debug)]\npub enum Why {\n    /// It is late,\n    /// or early.\n    ///\n    \
                        /// More.\n    Late,\n    /// Doc.\n    #[error(\"{by} \\\"late\\\", \\\n        at most {max}\", \
                        max = 3)]\n    Later {\n        /// By.\n        by: Vec<u8>,\n    },\n    /// Wrapped.\n    \
                        #[error(\"{0}\")]\n    Other(#[from] u8),\n    /// Numbered.\n    Last = 4,\n}\n";

    #[test]
    fn variants_are_found_with_what_they_say() {
        let source = Source::new("crates/abi/src/why.rs", ENUM);
        let found: Vec<(String, String)> =
            variants(&source, "Why").into_iter().map(|refusal| (refusal.name, refusal.sentence)).collect();
        let expected = [
            ("Late", "It is late, or early."),
            ("Later", "{by} \"late\", at most {max}"),
            ("Other", "Wrapped."),
            ("Last", "Numbered."),
        ];
        assert_eq!(found, expected.map(|(name, sentence)| (name.to_string(), sentence.to_string())));
    }

    #[test]
    fn tests_with_random_inputs_do_not_count() {
        let text = "fn a() {}\nproptest! {\n    #[test]\n    fn b(x in 0..9) {}\n}\nfn c() {}";
        let random = random(&[Source::new("crates/abi/src/tests.rs", text)]);
        assert_eq!(random.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>(), ["b"]);
        let line =
            |test: &str| format!("keyway_abi::why::Why\tLate\t7\t1\tDerive\tabi\tabi\ttests::{test}\n");
        let notes = Notes::parse(&(line("a") + &line("b")), &random);
        let provoked = notes.0.values().next().expect("one refusal");
        assert_eq!(provoked.tests.iter().collect::<Vec<_>>(), ["abi::tests::a"]);
        assert_eq!(symbol(1), "EPERM (1)");
    }

    #[test]
    fn a_refusal_without_a_test_or_without_its_row_and_a_test_that_is_gone_are_found() {
        let sources = crate::Tree::read().sources;
        let mut notes = Notes::default();
        for family in &FAMILIES {
            for refusal in variants(family.source(&sources), family.name) {
                let tests = BTreeSet::from(["cli::house::demand".to_string()]);
                let provoked = Provoked { tests, ..Provoked::default() };
                notes.0.insert((family.type_name(), refusal.name), provoked);
            }
        }
        let document = write(&sources, &notes);
        assert_eq!(unprovoked(&sources, &notes, Some(&document)), []);
        assert_eq!(unlisted(&sources, Some(&document)), []);
        let stale = document.replace("# What is", "# What was");
        assert_eq!(unprovoked(&sources, &notes, Some(&stale))[0].place, "docs/refusals.md:1");
        let lines = document.lines().filter(|line| !line.contains("| `ReceiveBound` |"));
        let without_row = lines.collect::<Vec<_>>().join("\n");
        assert_eq!(unlisted(&sources, Some(&without_row)).len(), 1);
        let gone = document.replacen("cli::house::demand", "cli::house::demanded", 1);
        assert_eq!(unlisted(&sources, Some(&gone)).len(), 1);
        let denial = ("keyway_abi::denial::Denial".to_string(), "ReceiveBound".to_string());
        assert!(notes.0.remove(&denial).is_some());
        let without_test = write(&sources, &notes);
        let found = unprovoked(&sources, &notes, Some(&without_test));
        assert_eq!(found[0].what, "no test provokes `Denial::ReceiveBound`");
        assert_eq!(found.len(), 1);
    }
}
