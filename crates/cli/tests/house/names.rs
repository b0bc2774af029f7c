//! Rule `no-drawers`: nothing is named after not knowing where things belong.
//!
//! A function lives with its only user, or with the type that it is about. Judged are crates, directories, files and
//! modules that are written out in a file.

use crate::{
    source::{self, Source},
    tree::Offence,
};

const RULE: &str = "no-drawers";

/// Drawers by their whole name.
const DRAWERS: [&str; 10] =
    ["util", "utils", "common", "helper", "helpers", "misc", "types", "prelude", "shared", "utilities"];

/// Drawers whatever else is in the name. The others can be part of a noun (`shared_memory`).
const DRAWER_WORDS: [&str; 6] = ["util", "utils", "utilities", "helper", "helpers", "misc"];

/// Drawers among files and directories, each by its path, and among modules.
pub(crate) fn offences(sources: &[Source], directories: &[String]) -> Vec<Offence> {
    let files = sources.iter().map(|source| &source.path);
    let mut found: Vec<Offence> =
        files.chain(directories).filter_map(|path| Some(offence(path, stem(path)?))).collect();
    for source in sources {
        let tokens = source::tokens(&source.code);
        for pair in tokens.windows(2) {
            if pair[0].text == "mod" && is_drawer(pair[1].text) {
                found.push(offence(&source.place(pair[0].offset), pair[1].text));
            }
        }
    }
    found
}

fn offence(place: &str, name: &str) -> Offence {
    Offence::new(place, RULE, format!("`{name}` says nothing of what is in it"))
}

/// The last name of a path, if it is a drawer's.
fn stem(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next()?;
    let name = name.strip_suffix(".rs").unwrap_or(name);
    is_drawer(name).then_some(name)
}

fn is_drawer(name: &str) -> bool {
    let name = name.strip_prefix("keyway-").unwrap_or(name).to_ascii_lowercase();
    DRAWERS.contains(&name.as_str()) || name.split(['_', '-']).any(|word| DRAWER_WORDS.contains(&word))
}

mod tests {
    use super::*;

    #[test]
    fn drawers_are_found_as_files_directories_and_modules() {
        let source = |path, text| Source::new(path, text);
        for (path, text) in [
            ("crates/abi/src/util.rs", ""),
            ("crates/abi/src/path_utils.rs", ""),
            ("crates/abi/tests/types.rs", ""),
            ("crates/abi/src/lib.rs", "pub(crate) mod prelude { }"),
            ("crates/abi/src/lib.rs", "mod misc;"),
        ] {
            assert_eq!(offences(&[source(path, text)], &[]).len(), 1, "{path}");
        }
        let directories =
            ["crates/keyway-common", "crates/abi/tests/common", "crates/shared"].map(String::from);
        assert_eq!(offences(&[], &directories).len(), 3);
    }

    #[test]
    fn nouns_are_not() {
        let paths =
            ["gui/src/protocol/device_type.rs", "shm/src/shared_memory.rs", "abi/src/utility_rate.rs"];
        let sources = paths.map(|path| Source::new(path, "// mod util;"));
        assert_eq!(offences(&sources, &["crates/abi/src".into()]), []);
    }
}
