//! Rules `three-walls` and `sourced-safety`: where unsafe code may be, what it may rest on, and that it is argued for.
//!
//! | crates | must |
//! |---|---|
//! | `abi`, `wire`, `shm`, `kernel`, `gui` | do without `std` |
//! | all but `shm`, `sys`, `capi` | forbid unsafe code at their root |
//! | `shm`, `sys`, `capi` | argue for each unsafe block, impl, function and trait right above it, in tests too |

use crate::{
    source::{self, Source, Token},
    tree::Offence,
};

const WITHOUT_STD: [&str; 5] = ["abi", "wire", "shm", "kernel", "gui"];
const WALLS: [&str; 3] = ["shm", "sys", "capi"];

/// What breaks one of the module's rules.
pub(crate) fn offences(sources: &[Source]) -> Vec<Offence> {
    let mut found = Vec::new();
    for source in sources {
        let Some(directory) = source.crate_directory() else { continue };
        if source.module().is_some_and(|module| module.is_empty()) {
            found.extend(missing_attributes(source, directory));
        }
        if WALLS.contains(&directory) {
            found.extend(unargued(source));
        }
    }
    found
}

fn missing_attributes(root: &Source, directory: &str) -> Vec<Offence> {
    let words: String = source::tokens(&root.code).iter().map(|token| token.text).collect();
    let mut found = Vec::new();
    if WITHOUT_STD.contains(&directory) && !words.contains("#![no_std]") {
        found.push(Offence::new(&root.path, "pure-core", "lacks `#![no_std]`"));
    }
    if !WALLS.contains(&directory) && !words.contains("#![forbid(unsafe_code)]") {
        found.push(Offence::new(&root.path, "three-walls", "lacks `#![forbid(unsafe_code)]`"));
    }
    found
}

fn unargued(source: &Source) -> Vec<Offence> {
    let tokens = source::tokens(&source.code);
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate().filter(|(_, token)| token.text == "unsafe") {
        let wanted = match kind(&tokens[index..]) {
            Kind::Made => "// SAFETY:",
            Kind::Asked => "# Safety",
            Kind::Type => continue,
        };
        if !comment_above(source, token.offset).contains(wanted) {
            let what = format!("unsafe without `{wanted}` right above it");
            found.push(Offence::new(source.place(token.offset), "sourced-safety", what));
        }
    }
    found
}

enum Kind {
    /// A block or an impl: here the argument is made.
    Made,
    /// A function or a trait: here it is asked for.
    Asked,
    /// A function's type, or the word in an attribute.
    Type,
}

fn kind(tokens: &[Token<'_>]) -> Kind {
    let words: Vec<&str> = tokens.iter().skip(1).take(6).map(|token| token.text).collect();
    match words.as_slice() {
        ["{" | "impl", ..] | ["extern", "{", ..] => Kind::Made,
        ["fn", "(", ..] | ["extern", "fn", "(", ..] => Kind::Type,
        ["fn" | "trait" | "extern" | "auto", ..] => Kind::Asked,
        _ => Kind::Type,
    }
}

/// The comment above the statement or the item in which an offset lies; attributes may stand between.
fn comment_above(source: &Source, offset: usize) -> String {
    let code: Vec<&str> = source.code.lines().collect();
    let comments: Vec<&str> = source.comments.lines().collect();
    let is_comment = |line: usize| code[line].trim().is_empty() && !comments[line].trim().is_empty();
    let mut line = source.line(offset) - 1;
    while line > 0 && !is_comment(line - 1) {
        let above = code[line - 1].trim();
        let goes_on = !above.is_empty() && !above.ends_with([';', '{', '}', ',']);
        if !goes_on {
            return String::new();
        }
        line -= 1;
    }
    let above = (0..line).rev().take_while(|line| is_comment(*line));
    above.map(|line| comments[line]).collect::<Vec<_>>().join("\n")
}

mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<&'static str> {
        offences(&[Source::new(path, text)]).iter().map(|offence| offence.rule).collect()
    }

    #[test]
    fn roots_say_what_they_do_without() {
        let both = "#![no_std]\n#![forbid(unsafe_code)]";
        assert_eq!(rules("crates/abi/src/lib.rs", both), [""; 0]);
        assert_eq!(rules("crates/abi/src/lib.rs", "#![no_std] // #![forbid(unsafe_code)]"), ["three-walls"]);
        assert_eq!(
            rules("crates/kernel/src/lib.rs", "#![cfg_attr(x, no_std)]\n#![forbid(unsafe_code)]"),
            ["pure-core"]
        );
        assert_eq!(rules("crates/cli/src/main.rs", ""), ["three-walls"]);
        assert_eq!(rules("crates/cli/src/tour.rs", ""), [""; 0]);
        assert_eq!(rules("crates/sys/src/lib.rs", ""), [""; 0]);
    }

    #[test]
    fn unsafe_code_without_its_argument_is_found() {
        for text in [
            "fn f() {\n    unsafe { g() }\n}",
            "// SAFETY: it is.\n\nunsafe impl Send for S {}",
            "// It is safe.\nunsafe impl Send for S {}",
            "fn f() {\n    // SAFETY: it is.\n    let a = unsafe { g() };\n    let b = unsafe { g() };\n}",
            "/// Does it.\npub unsafe fn f() {}",
            "fn f() {\n    let s = \"// SAFETY:\";\n    unsafe { g() }\n}",
        ] {
            assert_eq!(rules("crates/sys/src/futex.rs", text), ["sourced-safety"], "{text}");
        }
    }

    #[test]
    fn unsafe_code_with_its_argument_is_not() {
        for text in [
            "fn f() {\n    // SAFETY:\n    // 1. It is.\n    let a: u8 =\n        unsafe { g() };\n}",
            "// SAFETY: it is.\n#[allow(unsafe_code)]\nunsafe impl Send for S {}",
            "/// Does it.\n///\n/// # Safety\n/// It is.\n#[inline]\npub unsafe fn f() {}",
            "type F = unsafe fn(u8);",
            "// unsafe { }\n#![deny(unsafe_code)]",
        ] {
            assert_eq!(rules("crates/sys/src/futex.rs", text), [""; 0], "{text}");
        }
    }
}
