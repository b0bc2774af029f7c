//! Rule `one-way`: which crate may use which.
//!
//! The table is the one in ARCHITECTURE.md. A crate may use less than its row, never more; a crate without a row is an
//! offence, so that a new one must give its reason there first. Crates for tests may be used by tests as they like, as
//! long as nothing leads back to where it began.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::tree::{Dependency, Manifest, Offence, Purpose};

const RULE: &str = "one-way";

/// A crate, what it may use, and what it may use only where a feature asks for it.
const ROWS: [(&str, &[&str], &[&str]); 13] = [
    ("abi", &[], &[]),
    ("wire", &["abi"], &[]),
    ("shm", &["abi"], &[]),
    ("kernel", &["abi"], &[]),
    ("sys", &["shm"], &[]),
    ("broker", &["abi", "wire", "kernel", "shm", "sys"], &[]),
    ("keyway", &["abi", "wire", "shm", "sys"], &["broker", "gui"]),
    ("gui", &["abi"], &[]),
    ("seat", &["keyway", "gui", "sys"], &[]),
    ("cli", &["broker", "keyway", "seat"], &[]),
    ("sim", &["abi", "kernel", "gui"], &[]),
    ("tokio", &["keyway"], &[]),
    ("provoked", &[], &[]),
];

/// Crates that are missing in the table, and edges that are.
pub(crate) fn offences(manifests: &[Manifest]) -> Vec<Offence> {
    let mut found = Vec::new();
    for manifest in manifests {
        let place = format!("crates/{}/Cargo.toml", manifest.name);
        let Some((_, always, asked)) = ROWS.iter().find(|(name, _, _)| *name == manifest.name) else {
            let what = "this crate has no row in the table of crate edges";
            found.push(Offence::new(place, RULE, what));
            continue;
        };
        for (used, edge) in inside(manifest, manifests) {
            let used = used.name.as_str();
            if edge.purpose == Purpose::Tests || always.contains(&used) {
                continue;
            }
            let what = match asked.contains(&used) {
                true if edge.optional => continue,
                true => format!("`{used}` must be optional"),
                false => format!("`{}` may not use `{used}`, only {always:?} {asked:?}", manifest.name),
            };
            found.push(Offence::new(&place, RULE, what));
        }
    }
    found
}

/// Ways from a crate back to itself, by tests too.
pub(crate) fn circles(manifests: &[Manifest]) -> Vec<Offence> {
    let edges: Edges = manifests
        .iter()
        .map(|manifest| {
            let used = inside(manifest, manifests).map(|(used, _)| used.name.clone());
            (manifest.name.clone(), used.collect())
        })
        .collect();
    let circles = edges.keys().filter_map(|name| way_back(&edges, name));
    circles.map(|way| Offence::new(format!("crates/{}/Cargo.toml", way[0]), RULE, way.join(" -> "))).collect()
}

/// From each node to those that it uses.
pub(crate) type Edges = BTreeMap<String, BTreeSet<String>>;

/// The shortest way from a node back to itself, both ends named, by nodes that do not sort before it: so that each circle
/// is found from one of its nodes only.
pub(crate) fn way_back(edges: &Edges, start: &str) -> Option<Vec<String>> {
    let mut ways = VecDeque::from([vec![start.to_string()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        let here = way.last().expect("a way has a beginning");
        for next in edges.get(here).into_iter().flatten() {
            let longer = way.iter().chain([next]).cloned().collect();
            if next == start {
                return Some(longer);
            }
            if next.as_str() > start && seen.insert(next.clone()) {
                ways.push_back(longer);
            }
        }
    }
    None
}

/// The crates of the workspace that a manifest names.
fn inside<'a>(
    manifest: &'a Manifest,
    manifests: &'a [Manifest],
) -> impl Iterator<Item = (&'a Manifest, &'a Dependency)> {
    let edges = manifest.dependencies.iter().filter(|dependency| dependency.inside);
    edges.filter_map(|edge| Some((manifests.iter().find(|used| used.package == edge.name)?, edge)))
}

mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::tree;

    /// A dependency: its name, its kind, and whether it is optional.
    type Edge<'a> = (&'a str, Option<&'a str>, bool);

    /// A workspace of these crates.
    fn workspace(crates: &[(&str, &[Edge<'_>])]) -> Vec<Manifest> {
        let package = |name: &str| if name == "keyway" { name.into() } else { format!("keyway-{name}") };
        let packages = crates.iter().map(|(name, edges)| {
            let edges = edges.iter().map(|(used, kind, optional)| {
                json!({ "name": package(used), "kind": kind, "optional": optional, "path": "/somewhere" })
            });
            json!({
                "name": package(name),
                "manifest_path": format!("/w/crates/{name}/Cargo.toml"),
                "dependencies": edges.collect::<Vec<Value>>(),
            })
        });
        tree::parse_metadata(&json!({ "packages": packages.collect::<Vec<Value>>() }))
    }

    #[test]
    fn an_edge_upward_is_found_and_the_edges_of_the_table_are_not() {
        let lawful = workspace(&[("abi", &[]), ("wire", &[("abi", None, false)])]);
        assert_eq!(offences(&lawful), []);
        let upward = workspace(&[("abi", &[("wire", None, false)]), ("wire", &[])]);
        assert_eq!(offences(&upward)[0].place, "crates/abi/Cargo.toml");
        let building = workspace(&[("abi", &[("wire", Some("build"), false)]), ("wire", &[])]);
        assert_eq!(offences(&building).len(), 1);
        let testing = workspace(&[("wire", &[("kernel", Some("dev"), false)]), ("kernel", &[])]);
        assert_eq!(offences(&testing), []);
    }

    #[test]
    fn what_a_feature_asks_for_must_be_optional() {
        let optional = workspace(&[("keyway", &[("gui", None, true)]), ("gui", &[])]);
        assert_eq!(offences(&optional), []);
        let always = workspace(&[("keyway", &[("gui", None, false)]), ("gui", &[])]);
        assert_eq!(offences(&always)[0].what, "`gui` must be optional");
    }

    #[test]
    fn a_crate_without_a_row_is_found() {
        assert_eq!(offences(&workspace(&[("novelty", &[])])).len(), 1);
    }

    #[test]
    fn a_circle_by_way_of_tests_is_found_once() {
        let lawful = workspace(&[("abi", &[]), ("wire", &[("abi", None, false)])]);
        assert_eq!(circles(&lawful), []);
        let round = workspace(&[("abi", &[("wire", Some("dev"), false)]), ("wire", &[("abi", None, false)])]);
        let found: Vec<String> = circles(&round).into_iter().map(|offence| offence.what).collect();
        assert_eq!(found, ["abi -> wire -> abi"]);
    }
}
