//! Rules on what documents say of the tree: each dependency has its reason, each crate its place, each proof exists, each ordering is
//! listed.
//!
//! In ARCHITECTURE.md a dependency's reason is a list item that begins with its name: ``- `name` ``. A proof is what a
//! document names in backticks like a test, a sentence of four words or more: `` `a_stale_handle_is_denied` ``.

use std::collections::BTreeSet;

use crate::{
    source::{self, Source},
    tree::{Manifest, Offence},
};

/// Dependencies without a reason, and crates without a place.
pub(crate) fn undescribed(manifests: &[Manifest], architecture: Option<&str>) -> Vec<Offence> {
    let place = "ARCHITECTURE.md";
    let Some(architecture) = architecture else {
        return vec![Offence::new(
            place,
            "few-rooms",
            "the file is missing: it says why crates and dependencies exist",
        )];
    };
    let mut found = Vec::new();
    for Manifest { name, package, dependencies } in manifests {
        if ![name, package].iter().any(|name| architecture.contains(&format!("`{name}`"))) {
            found.push(Offence::new(place, "few-rooms", format!("does not name the crate `{name}`")));
        }
        for dependency in dependencies.iter().filter(|dependency| !dependency.inside) {
            let item = format!("- `{}`", dependency.name);
            if !architecture.lines().any(|line| line.trim_start().starts_with(&item)) {
                let what = format!("has no line \"{item}\" that says why `{name}` uses it");
                found.push(Offence::new(place, "dependency-reasons", what));
            }
        }
    }
    found
}

/// Proofs that a document names and the tree does not have.
pub(crate) fn missing_proofs(path: &str, document: Option<&str>, sources: &[Source]) -> Vec<Offence> {
    let rule = "named-proofs";
    let Some(document) = document else {
        return vec![Offence::new(path, rule, "the file is missing")];
    };
    let mut found = Vec::new();
    for (index, line) in document.lines().enumerate() {
        for name in line.split('`').skip(1).step_by(2).filter(|name| is_sentence(name)) {
            if !sources.iter().any(|source| defines(source, name)) {
                let what = format!("there is no test `{name}`");
                found.push(Offence::new(format!("{path}:{}", index + 1), rule, what));
            }
        }
    }
    found
}

/// Orderings that the sources label and the document does not name.
///
/// A label is the word behind `SYNC` in a comment: `// SYNC lane-publish: …`.
pub(crate) fn unlisted_orderings(path: &str, document: Option<&str>, sources: &[Source]) -> Vec<Offence> {
    let rule = "named-orderings";
    let Some(document) = document else {
        return vec![Offence::new(path, rule, "the file is missing")];
    };
    let named: BTreeSet<&str> = document.split(|it| !is_of_label(it)).collect();
    let mut found = Vec::new();
    for source in sources {
        for (index, line) in source.comments.lines().enumerate() {
            for label in
                line.split("SYNC ").skip(1).filter_map(|rest| rest.split(|it| !is_of_label(it)).next())
            {
                if !named.contains(label) {
                    let place = format!("{}:{}", source.path, index + 1);
                    found.push(Offence::new(place, rule, format!("`SYNC {label}` is not in {path}")));
                }
            }
        }
    }
    found
}

/// Rows of a document's tables of tests that name no test, or one that the tree does not have.
///
/// Such a table is one whose last column is headed `test`. In one whose first column is headed `criterion`, the test bears its name:
/// `GPU requests work` is shown by `gpu_requests_work`.
pub(crate) fn untested(path: &str, document: Option<&str>, sources: &[Source]) -> Vec<Offence> {
    let rule = "named-tests";
    let Some(document) = document else {
        return vec![Offence::new(path, rule, "the file is missing")];
    };
    let tests: BTreeSet<String> = sources.iter().flat_map(tests_of).collect();
    let (mut header, mut found, mut tables_count) = (None, Vec::new(), 0);
    for (index, line) in document.lines().enumerate() {
        let Some(cells) = cells(line) else {
            header = None;
            continue;
        };
        let (first, last) = (cells[0], cells[cells.len() - 1]);
        if header.is_none() {
            header = Some((first, last));
            tables_count += usize::from(last == "test");
            continue;
        }
        if header.is_none_or(|(_, last)| last != "test") || last.starts_with("---") {
            continue;
        }
        let mut complain = |what| found.push(Offence::new(format!("{path}:{}", index + 1), rule, what));
        let named: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
        if named.is_empty() {
            complain(format!("\"{first}\" has no test"));
        }
        if header.is_some_and(|(first, _)| first == "criterion") && named != [as_name(first)] {
            complain(format!("\"{first}\" is not shown by `{}`", as_name(first)));
        }
        for name in named.iter().filter(|name| !tests.contains(**name)) {
            complain(format!("there is no test `{name}`"));
        }
    }
    if tables_count == 0 {
        found.push(Offence::new(path, rule, "it has no table of tests"));
    }
    found
}

/// The cells of a line of a table.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inside = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(inside.split('|').map(str::trim).collect())
}

fn as_name(words: &str) -> String {
    words.to_lowercase().replace(' ', "_")
}

/// The names of the functions that are tests.
fn tests_of(source: &Source) -> Vec<String> {
    let tokens = source::tokens(&source.code);
    let marks = ["#", "[", "test", "]", "fn"];
    let is_test = |window: &&[source::Token<'_>]| window.iter().map(|token| token.text).take(5).eq(marks);
    tokens.windows(6).filter(is_test).map(|window| window[5].text.to_owned()).collect()
}

fn is_of_label(character: char) -> bool {
    character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-'
}

fn is_sentence(name: &str) -> bool {
    let is_name = name
        .chars()
        .all(|character| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '_');
    is_name && name.split('_').filter(|word| !word.is_empty()).count() >= 4
}

fn defines(source: &Source, function: &str) -> bool {
    let tokens = source::tokens(&source.code);
    tokens.windows(2).any(|pair| pair[0].text == "fn" && pair[1].text == function)
}

mod tests {
    use super::*;
    use crate::tree::{Dependency, Purpose};

    #[test]
    fn a_dependency_without_its_line_is_found() {
        let dependency =
            Dependency { name: "serde".into(), purpose: Purpose::Tests, optional: false, inside: false };
        let inside = Dependency { name: "keyway-shm".into(), inside: true, ..dependency.clone() };
        let manifest = Manifest {
            name: "abi".into(),
            package: "keyway-abi".into(),
            dependencies: vec![dependency, inside],
        };
        let rules = |text| -> Vec<_> {
            undescribed(std::slice::from_ref(&manifest), text).iter().map(|offence| offence.rule).collect()
        };
        assert_eq!(rules(Some("| `abi` | numbers |\n- `serde`: bytes")), [""; 0]);
        assert_eq!(rules(Some("`keyway-abi` uses `serde`\n- `serde_json`: text")), ["dependency-reasons"]);
        assert_eq!(rules(Some("- `serde`: bytes")), ["few-rooms"]);
        assert_eq!(rules(None), ["few-rooms"]);
    }

    #[test]
    fn a_proof_that_does_not_exist_is_found() {
        let sources = [Source::new(
            "crates/abi/src/lib.rs",
            "#[test] fn a_stale_handle_is_denied() {} // fn not_a_test_at_all",
        )];
        let found = |text| missing_proofs("SECURITY.md", Some(text), &sources).len();
        assert_eq!(
            found("shown by `a_stale_handle_is_denied`, in `kernel::check_derive` of `futex_waitv`"),
            0
        );
        assert_eq!(found("shown by `a_fresh_handle_is_denied`"), 1);
        assert_eq!(found("shown by `not_a_test_at_all`"), 1);
    }
    #[test]
    fn an_ordering_that_is_not_listed_is_found() {
        let text =
            "// SYNC lane-publish: the bytes first.\nlet a = \"SYNC no-comment\";\n/* SYNC lane: both */";
        let sources = [Source::new("crates/shm/src/lib.rs", text)];
        let found = |document| -> Vec<String> {
            let offences = unlisted_orderings("docs/orderings.md", document, &sources);
            offences.iter().map(|offence| offence.place.clone()).collect()
        };
        assert_eq!(found(Some("| lane-publish, store | and `lane` |")), [""; 0]);
        assert_eq!(found(Some("| lane-publish-2 | lane |")), ["crates/shm/src/lib.rs:1"]);
        assert_eq!(found(Some("| lane-publish |")), ["crates/shm/src/lib.rs:3"]);
        assert_eq!(found(None), ["docs/orderings.md"]);
    }

    #[test]
    fn a_row_without_a_test_that_exists_is_found() {
        let code = "#[test]\nfn gpu_works() {}\n#[test] fn another_one() {}\nfn no_test() {}";
        let sources = [Source::new("crates/gui/src/tests.rs", code)];
        let found = |document: Option<&str>| -> Vec<String> {
            untested("a.md", document, &sources).iter().map(|offence| offence.place.clone()).collect()
        };
        let table = |head: &str, row: &str| format!("text\n\n| {head} |\n|---|---|\n| {row} |\n");
        assert_eq!(found(Some(&table("criterion | test", "GPU works | `gpu_works`"))), [""; 0]);
        assert_eq!(found(Some(&table("criterion | test", "GPU works | `another_one`"))), ["a.md:5"]);
        assert_eq!(found(Some(&table("rule | test", "x | `another_one`, `gpu_works`"))), [""; 0]);
        assert_eq!(found(Some(&table("rule | test", "x | `gpu_works`, `no_test`"))), ["a.md:5"]);
        assert_eq!(found(Some(&table("rule | test", "x | none"))), ["a.md:5"]);
        // A table of something else.
        assert_eq!(found(Some(&table("who | what", "x | none"))), ["a.md"]);
        assert_eq!(found(None), ["a.md"]);
    }
}
