//! The repository as it lies on disk: its Rust files, its directories, its manifests, and what an offence is.

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::source::Source;

/// Where Rust files that the rules judge are.
const ROOTS: [&str; 2] = ["crates", "bench/src"];

/// A rule broken at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offence {
    pub(crate) place: String,
    pub(crate) rule: &'static str,
    pub(crate) what: String,
}

impl Offence {
    pub(crate) fn new(place: impl Into<String>, rule: &'static str, what: impl Into<String>) -> Self {
        Offence { place: place.into(), rule, what: what.into() }
    }
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.rule, self.what)
    }
}

/// All files and directories that the rules judge.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) sources: Vec<Source>,
    /// From the root of the repository, with `/`.
    pub(crate) directories: Vec<String>,
}

impl Tree {
    /// Reads it from disk.
    pub(crate) fn read() -> Self {
        let mut tree = Tree { sources: Vec::new(), directories: Vec::new() };
        for root in ROOTS {
            tree.read_directory(root);
        }
        assert!(tree.sources.len() > 20, "only {} files found", tree.sources.len());
        mark_tests(&mut tree.sources);
        tree
    }

    fn read_directory(&mut self, directory: &str) {
        self.directories.push(directory.into());
        let entries = fs::read_dir(root().join(directory)).expect("the directory is there");
        let entries = entries.map(|entry| entry.expect("an entry").file_name());
        // In order, so that two runs say the same.
        let names: BTreeSet<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
        for name in names {
            let path = format!("{directory}/{name}");
            if root().join(&path).is_dir() {
                if name != "target" && !name.starts_with('.') {
                    self.read_directory(&path);
                }
            } else if Path::new(&name).extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(root().join(&path)).expect("a Rust file is UTF-8");
                self.sources.push(Source::new(&path, &text));
            }
        }
    }
}

/// Makes tests of the files whose `mod` stands under `#[cfg(test)]`, and of all that is below them.
fn mark_tests(sources: &mut [Source]) {
    let mut stems = Vec::new();
    for source in sources.iter() {
        let (directory, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
        let below = match file {
            "lib.rs" | "main.rs" | "mod.rs" => directory,
            _ => source.path.trim_end_matches(".rs"),
        };
        stems.extend(source.test_modules.iter().map(|name| format!("{below}/{name}")));
    }
    for source in sources {
        let path = &source.path;
        let is_test = stems.iter().any(|stem| {
            path.strip_prefix(stem.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        });
        if is_test {
            source.become_test();
        }
    }
}

/// When a dependency counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// For the product, or to build it.
    Product,
    /// For tests, examples and benchmarks.
    Tests,
}

/// One crate's line on another.
#[derive(Clone, Debug)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) purpose: Purpose,
    /// Whether a feature must be asked for to have it.
    pub(crate) optional: bool,
    /// Whether it is a crate of this workspace.
    pub(crate) inside: bool,
}

/// What a crate says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    /// The name of its directory, by which the house calls it.
    pub(crate) name: String,
    pub(crate) package: String,
    pub(crate) dependencies: Vec<Dependency>,
}

/// The manifests of the workspace, as cargo reads them.
pub(crate) fn manifests() -> Vec<Manifest> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]).current_dir(root());
    let output = command.output().expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    parse_metadata(&serde_json::from_slice(&output.stdout).expect("cargo writes JSON"))
}

/// Reads what `cargo metadata` says.
pub(crate) fn parse_metadata(metadata: &Value) -> Vec<Manifest> {
    let text = |value: &Value, key: &str| value[key].as_str().map(String::from);
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let packages = list(metadata, "packages").into_iter().map(|package| {
        let path = PathBuf::from(text(&package, "manifest_path").expect("a manifest has a path"));
        let directory = path.parent().and_then(Path::file_name).expect("a crate has a directory");
        let dependencies = list(&package, "dependencies").into_iter().map(|dependency| Dependency {
            name: text(&dependency, "name").expect("a dependency has a name"),
            purpose: if dependency["kind"] == "dev" { Purpose::Tests } else { Purpose::Product },
            optional: dependency["optional"] == true,
            inside: dependency["path"].is_string(),
        });
        Manifest {
            name: directory.to_string_lossy().into_owned(),
            package: text(&package, "name").expect("a crate has a name"),
            dependencies: dependencies.collect(),
        }
    });
    packages.collect()
}

/// A document at the root of the repository, if it exists.
pub(crate) fn read_document(path: &str) -> Option<String> {
    fs::read_to_string(root().join(path)).ok()
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

mod tests {
    use super::*;

    #[test]
    fn files_below_a_test_module_are_tests() {
        let mut sources = vec![
            Source::new("crates/gui/src/machine.rs", "#[cfg(test)] mod model; mod models;"),
            Source::new("crates/gui/src/machine/model.rs", "fn a() {}"),
            Source::new("crates/gui/src/machine/model/oracle.rs", "fn a() {}"),
            Source::new("crates/gui/src/machine/models.rs", "fn a() {}"),
            Source::new("crates/gui/src/model.rs", "fn a() {}"),
        ];
        mark_tests(&mut sources);
        let product: Vec<bool> = sources.iter().map(|source| !source.product.trim().is_empty()).collect();
        assert_eq!(product, [true, false, false, true, true]);
    }
}
