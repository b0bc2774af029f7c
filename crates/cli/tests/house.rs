//! The house rules, as far as a machine can judge them: each test names the file and the rule that it breaks.
//!
//! The rules and their reasons are in ARCHITECTURE.md. What is judged is the tree as it lies on disk: the manifests as
//! cargo reads them, and every Rust file with its comments and literals set apart. Each rule is a function from sources
//! to offences and has planted offenders beside it, so that a rule that no longer sees anything fails too.
//!
//! Not judged: what the compiler and clippy judge, and whether a sentence is a good one.
//!
//! Floors, lowest first: `source` (one file), `tree` (the repository), then the rules, which do not know each other.

#[path = "house/edges.rs"]
mod edges;
#[path = "house/modules.rs"]
mod modules;
#[path = "house/names.rs"]
mod names;
#[path = "house/papers.rs"]
mod papers;
#[path = "house/refusals.rs"]
mod refusals;
#[path = "house/shape.rs"]
mod shape;
#[path = "house/source.rs"]
mod source;
#[path = "house/tree.rs"]
mod tree;
#[path = "house/walls.rs"]
mod walls;

use std::{env, fs, path::PathBuf};

use crate::tree::{Offence, Tree};

/// Fails with one line for each offence.
fn demand(offences: &[Offence]) {
    let lines: Vec<String> = offences.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{} broken:\n{}\n", lines.len(), lines.join("\n"));
}

#[test]
fn crates_use_only_what_their_row_allows() {
    demand(&edges::offences(&tree::manifests()));
}

#[test]
fn no_dependency_leads_back_to_its_own_crate() {
    demand(&edges::circles(&tree::manifests()));
}

#[test]
fn no_import_leads_back_to_its_own_module() {
    demand(&modules::offences(&Tree::read().sources));
}

#[test]
fn unsafe_code_stays_behind_its_walls_and_is_argued_for() {
    demand(&walls::offences(&Tree::read().sources));
}

#[test]
fn nothing_is_named_like_a_drawer() {
    let tree = Tree::read();
    demand(&names::offences(&tree.sources, &tree.directories));
}

#[test]
fn files_and_functions_keep_their_shape() {
    demand(&shape::offences(&Tree::read().sources));
}

#[test]
fn every_dependency_and_every_crate_has_a_line_in_the_architecture() {
    demand(&papers::undescribed(&tree::manifests(), tree::read_document("ARCHITECTURE.md").as_deref()));
}

#[test]
fn every_proof_that_a_document_names_exists() {
    let sources = Tree::read().sources;
    for document in ["SECURITY.md", "docs/threat-model.md"] {
        demand(&papers::missing_proofs(document, tree::read_document(document).as_deref(), &sources));
    }
}

#[test]
fn every_ordering_that_has_a_label_is_listed() {
    let (path, sources) = ("docs/orderings.md", Tree::read().sources);
    demand(&papers::unlisted_orderings(path, tree::read_document(path).as_deref(), &sources));
}

#[test]
fn every_promise_of_the_bridge_names_its_tests() {
    let (path, sources) = ("docs/seat.md", Tree::read().sources);
    demand(&papers::untested(path, tree::read_document(path).as_deref(), &sources));
}

#[test]
fn every_refusal_is_listed_beside_tests_that_exist() {
    let document = tree::read_document(refusals::DOCUMENT);
    demand(&refusals::unlisted(&Tree::read().sources, document.as_deref()));
}

/// Judges or writes the list of refusals by what the tests have noted, when `tools/refusals` asks for it.
#[test]
fn every_refusal_is_provoked_by_a_test() {
    let (Some(task), Some(directory)) = (env::var_os("KEYWAY_REFUSALS_LIST"), env::var_os("KEYWAY_REFUSALS"))
    else {
        return;
    };
    let sources = Tree::read().sources;
    let notes = refusals::Notes::read(&PathBuf::from(directory), &sources);
    if task == "write" {
        let path = tree::root().join(refusals::DOCUMENT);
        fs::write(path, refusals::write(&sources, &notes)).expect("the document can be written");
    }
    demand(&refusals::unprovoked(&sources, &notes, tree::read_document(refusals::DOCUMENT).as_deref()));
}
