//! Rule `one-way`, inside a crate: no module imports what imports it.
//!
//! The nodes are the modules at the top of each crate; a file in a module's directory counts as that module. An edge is
//! a path that begins with `crate`, `super` or `self` and leads to another of them, also by a name that the crate's root
//! re-exports. The root itself is no node: it names its modules, and they may use what it defines.
//!
//! A method that one file adds to another file's type is no edge: the state and its dispatch call the operations, which
//! add themselves to the state, and only they import it. Code that only tests see is left out.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    edges::{self, Edges},
    source::{self, Source, Token},
    tree::Offence,
};

const RULE: &str = "one-way";

/// A path in the code: where it begins, and its parts from the crate's root on.
#[derive(Debug, PartialEq, Eq)]
struct Import {
    offset: usize,
    parts: Vec<String>,
    /// What the path is called from here on.
    alias: String,
}

/// Circles of imports, crate by crate.
pub(crate) fn offences(sources: &[Source]) -> Vec<Offence> {
    let mut crates: BTreeMap<&str, Vec<&Source>> = BTreeMap::new();
    for source in sources.iter().filter(|source| source.module().is_some()) {
        if let Some(directory) = source.crate_directory() {
            crates.entry(directory).or_default().push(source);
        }
    }
    crates.values().flat_map(|sources| circles(sources)).collect()
}

fn circles(sources: &[&Source]) -> Vec<Offence> {
    let is_product = |source: &&&Source| !source.product.trim().is_empty();
    let modules: BTreeSet<String> =
        sources.iter().filter(is_product).filter_map(|source| top(source)).map(String::from).collect();
    let exported = exported(sources, &modules);
    let mut edges = Edges::new();
    let mut places = BTreeMap::new();
    for source in sources {
        let Some(here) = top(source) else { continue };
        for import in imports(source) {
            let Some(first) = import.parts.first() else { continue };
            let there = if modules.contains(first) { Some(first) } else { exported.get(first) };
            let Some(there) = there.filter(|there| *there != here) else { continue };
            edges.entry(here.into()).or_default().insert(there.clone());
            let place = format!("{} ({})", source.place(import.offset), import.parts.join("::"));
            places.entry((here.to_string(), there.clone())).or_insert(place);
        }
    }
    let ways = modules.iter().filter_map(|module| edges::way_back(&edges, module));
    ways.map(|way| {
        let steps: Vec<&str> =
            way.windows(2).map(|step| places[&(step[0].clone(), step[1].clone())].as_str()).collect();
        let place = steps[0].split(':').next().unwrap_or_default();
        Offence::new(place, RULE, format!("{} by {}", way.join(" -> "), steps.join(", ")))
    })
    .collect()
}

fn top(source: &Source) -> Option<&str> {
    source.module()?.first().copied()
}

/// The names that the root has from its modules.
fn exported(sources: &[&Source], modules: &BTreeSet<String>) -> BTreeMap<String, String> {
    let roots = sources.iter().filter(|source| top(source).is_none());
    let imports = roots.flat_map(|root| imports(root));
    let named = imports.filter_map(|import| {
        let module = import.parts.first().filter(|first| modules.contains(*first))?;
        (!modules.contains(&import.alias)).then(|| (import.alias.clone(), module.clone()))
    });
    named.collect()
}

/// Every path of a file into its own crate.
fn imports(source: &Source) -> Vec<Import> {
    let tokens = source::tokens(&source.product);
    let file: Vec<String> = source.module().unwrap_or_default().into_iter().map(String::from).collect();
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let before = index.checked_sub(1).map_or("", |before| tokens[before].text);
        let leads_on = tokens.get(index + 1).is_some_and(|next| next.text == "::");
        if before == "use" {
            // In the root, a module's name alone begins a path.
            let start =
                if file.is_empty() || is_anchor(token.text) || token.text == "{" { index } else { continue };
            Tree { tokens: &tokens, here: &here(&file, &tokens, index) }.read(start, None, &mut found);
        } else if is_anchor(token.text)
            && leads_on
            && !matches!(before, "::" | "in")
            && !in_use(&tokens, index)
        {
            Tree { tokens: &tokens, here: &here(&file, &tokens, index) }.read(index, None, &mut found);
        }
    }
    found
}

fn is_anchor(word: &str) -> bool {
    matches!(word, "crate" | "self" | "super")
}

/// Whether a token stands inside a `use`, whose paths are read from its beginning.
fn in_use(tokens: &[Token<'_>], index: usize) -> bool {
    let earlier = tokens[..index].iter().rev();
    let mut inside = earlier.take_while(|token| {
        matches!(token.text, "{" | "," | "::" | "}" | "*")
            || token.text.chars().all(|c| c == '_' || c.is_alphanumeric())
    });
    inside.any(|token| token.text == "use")
}

/// The module at a token: the file's, and those that are written out in it.
fn here(file: &[String], tokens: &[Token<'_>], index: usize) -> Vec<String> {
    let mut here = file.to_vec();
    for at in 0..index {
        let [first, name, open] =
            [at, at + 1, at + 2].map(|at| tokens.get(at).map_or("", |token| token.text));
        if first == "mod" && open == "{" && source::closing(tokens, at + 2) > index && at + 2 < index {
            here.push(name.into());
        }
    }
    here
}

/// A tree of paths: `a::{b, c::{self, D as E}}`.
struct Tree<'a> {
    tokens: &'a [Token<'a>],
    here: &'a [String],
}

impl Tree<'_> {
    /// Reads a tree, adds its paths, and returns the index of what comes after it.
    fn read(&self, from: usize, prefix: Option<&[String]>, found: &mut Vec<Import>) -> usize {
        let offset = self.tokens[from].offset;
        let mut parts = prefix.map(<[String]>::to_vec);
        let mut at = from;
        loop {
            match self.text(at) {
                "{" => return self.read_branches(at, parts.as_deref(), found),
                word => parts = Some(self.step(parts, word)),
            }
            at += 1;
            if self.text(at) != "::" || self.text(at + 1) == "<" {
                break;
            }
            at += 1;
        }
        let parts = parts.unwrap_or_default();
        let mut alias = parts.last().cloned().unwrap_or_default();
        if self.text(at) == "as" {
            alias = self.text(at + 1).into();
            at += 2;
        }
        found.push(Import { offset, parts, alias });
        at
    }

    fn read_branches(&self, open: usize, prefix: Option<&[String]>, found: &mut Vec<Import>) -> usize {
        let mut at = open + 1;
        while !matches!(self.text(at), "}" | "") {
            at = if self.text(at) == "," { at + 1 } else { self.read(at, prefix, found).max(at + 1) };
        }
        at + 1
    }

    /// The path after one more word.
    fn step(&self, parts: Option<Vec<String>>, word: &str) -> Vec<String> {
        match (parts, word) {
            (None, "crate") => Vec::new(),
            (None, "self") => self.here.to_vec(),
            (None, "super") => self.here[..self.here.len().saturating_sub(1)].to_vec(),
            (None, word) if self.here.is_empty() => vec![word.into()],
            // Another crate's name, behind a part that no module has.
            (None, word) => vec![String::new(), word.into()],
            (Some(parts), "self") => parts,
            (Some(mut parts), "super") => {
                parts.pop();
                parts
            }
            (Some(mut parts), word) => {
                parts.push(word.into());
                parts
            }
        }
    }

    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| token.text)
    }
}

mod tests {
    use super::*;

    fn sources(files: &[(&str, &str)]) -> Vec<Source> {
        files.iter().map(|(path, text)| Source::new(&format!("crates/demo/src/{path}"), text)).collect()
    }

    fn ways(files: &[(&str, &str)]) -> Vec<String> {
        let found = offences(&sources(files)).into_iter();
        found.map(|offence| offence.what.split(" by ").next().unwrap_or_default().into()).collect()
    }

    #[test]
    fn a_circle_of_two_is_found_once_and_shown() {
        let found = offences(&sources(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use std::fmt;\nuse crate::{b::{self, B}};"),
            ("b.rs", "use crate::a::A;"),
        ]));
        let what = "a -> b -> a by crates/demo/src/a.rs:2 (b), crates/demo/src/b.rs:1 (a::A)";
        assert_eq!(found, [Offence::new("crates/demo/src/a.rs", RULE, what)]);
    }

    #[test]
    fn every_way_to_name_a_module_is_an_edge() {
        for import in [
            "use super::b::B;",
            "fn f(b: crate::b::B) {}",
            "fn f() { super::b::g::<u8>() }",
            "use crate::B;",
            "use crate::Renamed as Other;",
            "use crate::{c::{C, D as E}, b};",
            "use { std::fmt, crate::b::B };",
            "mod inner { use super::super::b::B; }",
            "mod inner { fn f() { crate::b::g() } }",
        ] {
            let root = "pub use crate::{b::{B, C as Renamed}};";
            let files = [
                ("lib.rs", root),
                ("a.rs", import),
                ("b/deep.rs", "use crate::a::A;"),
                ("b.rs", ""),
                ("c.rs", ""),
            ];
            // An empty module is no product, as is one of tests.
            let files = files.map(|(path, text)| (path, if text.is_empty() { "fn f() {}" } else { text }));
            assert_eq!(ways(&files), ["a -> b -> a"], "{import}");
        }
    }

    #[test]
    fn what_is_no_import_is_no_edge() {
        for text in [
            "// use crate::b::B;",
            "pub(in crate::b) fn f() {}",
            "pub(crate) fn f() {}",
            "#[cfg(test)] mod tests { use crate::b::B; }",
            "use self::inner::B; mod inner { use super::A; }",
            "use other::b::B;",
            "use { b::B, other::c };",
            "use crate::CONSTANT;",
        ] {
            assert_eq!(
                ways(&[("lib.rs", "mod a;"), ("a.rs", text), ("b.rs", "use crate::a::A;")]),
                [""; 0],
                "{text}"
            );
        }
    }

    #[test]
    fn a_circle_of_three_is_found() {
        let files =
            [("a.rs", "use crate::b::B;"), ("b.rs", "use crate::c::C;"), ("c.rs", "use crate::a::A;")];
        assert_eq!(ways(&files), ["a -> b -> c -> a"]);
    }
}
