//! Rules on how files and functions look: their sizes, their first line, and what must not be left lying in them.
//!
//! | rule | judges |
//! |---|---|
//! | `file-800` | lines of a file |
//! | `fn-70` | lines of a function, from `fn` to its last bracket, tests excepted |
//! | `first-line` | a file opens with its purpose |
//! | `todo-number` | what is left to do has an issue |
//! | `no-dead-proof` | a test that is not run has an issue |
//! | `bugs-crash` | `unwrap` says nothing of why it cannot fail; tests excepted |

use crate::{
    source::{self, Source},
    tree::Offence,
};

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;

/// What breaks one of the module's rules.
pub(crate) fn offences(sources: &[Source]) -> Vec<Offence> {
    let judges = [long_file, long_functions, first_line, left_to_do, ignored, unwrapped];
    judges.iter().flat_map(|judge| sources.iter().flat_map(judge)).collect()
}

fn long_file(source: &Source) -> Vec<Offence> {
    let lines = source.text.lines().count();
    let what = format!("{lines} lines, at most {FILE_LINES_MAX}");
    (lines > FILE_LINES_MAX).then(|| Offence::new(&source.path, "file-800", what)).into_iter().collect()
}

fn long_functions(source: &Source) -> Vec<Offence> {
    let tokens = source::tokens(&source.product);
    let mut found = Vec::new();
    for (index, pair) in tokens.windows(2).enumerate() {
        // `fn(` is a type.
        if pair[0].text != "fn" || pair[1].text == "(" {
            continue;
        }
        let end = tokens[source::item_end(&tokens, index)].offset;
        let lines = source.line(end) - source.line(pair[0].offset) + 1;
        if lines > FUNCTION_LINES_MAX {
            let what = format!("`{}` has {lines} lines, at most {FUNCTION_LINES_MAX}", pair[1].text);
            found.push(Offence::new(source.place(pair[0].offset), "fn-70", what));
        }
    }
    found
}

fn first_line(source: &Source) -> Vec<Offence> {
    let first = source.text.lines().next().and_then(|line| line.strip_prefix("//! "));
    if first.is_some_and(|first| {
        first.starts_with(|character: char| character.is_alphanumeric() || character == '`')
    }) {
        return Vec::new();
    }
    vec![Offence::new(&source.path, "first-line", "does not open with `//! ` and a sentence of purpose")]
}

fn left_to_do(source: &Source) -> Vec<Offence> {
    let mut found = Vec::new();
    for (index, line) in source.comments.lines().enumerate() {
        let mut words = line.split(|character: char| !character.is_alphanumeric());
        if words.any(|word| word == "TODO" || word == "FIXME") && !has_issue(line) {
            let place = format!("{}:{}", source.path, index + 1);
            found.push(Offence::new(place, "todo-number", "name the issue: #<number>"));
        }
    }
    let tokens = source::tokens(&source.code);
    for pair in tokens.windows(2) {
        if matches!(pair[0].text, "todo" | "unimplemented" | "dbg") && pair[1].text == "!" {
            let what = format!("`{}!` is left", pair[0].text);
            found.push(Offence::new(source.place(pair[0].offset), "todo-number", what));
        }
    }
    found
}

fn ignored(source: &Source) -> Vec<Offence> {
    let tokens = source::tokens(&source.code);
    let attributes = tokens.windows(3).enumerate();
    let attributes =
        attributes.filter(|(_, words)| [words[0].text, words[1].text, words[2].text] == ["#", "[", "ignore"]);
    let nameless = attributes.filter(|(index, words)| {
        let end = tokens[source::closing(&tokens, index + 1)].offset;
        // The first sign is the attribute's own.
        !has_issue(&source.text[words[1].offset..end])
    });
    nameless
        .map(|(_, words)| {
            let what = "a test that is not run names its issue: #<number>";
            Offence::new(source.place(words[0].offset), "no-dead-proof", what)
        })
        .collect()
}

fn unwrapped(source: &Source) -> Vec<Offence> {
    let tokens = source::tokens(&source.product);
    let calls = tokens
        .windows(3)
        .filter(|words| [words[0].text, words[1].text, words[2].text] == [".", "unwrap", "("]);
    calls
        .map(|words| {
            let what = "`unwrap` outside tests; return the error, or `expect` below an `INVARIANT:`";
            Offence::new(source.place(words[0].offset), "bugs-crash", what)
        })
        .collect()
}

fn has_issue(text: &str) -> bool {
    text.split('#').skip(1).any(|rest| rest.starts_with(|character: char| character.is_ascii_digit()))
}

mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<&'static str> {
        rules_of("crates/abi/src/lib.rs", text)
    }

    fn rules_of(path: &str, text: &str) -> Vec<&'static str> {
        offences(&[Source::new(path, text)]).iter().map(|offence| offence.rule).collect()
    }

    #[test]
    fn sizes_are_bounded_to_the_line() {
        let file = |lines: usize| format!("//! A file.\n{}", "\n".repeat(lines - 1));
        assert_eq!(rules(&file(800)), [""; 0]);
        assert_eq!(rules(&file(801)), ["file-800"]);
        let function = |lines: usize| {
            format!(
                "//! A file.\npub fn f(a: [u8; 4]) -> u8\nwhere u8: Copy {{\n{}}}\n",
                "{}\n".repeat(lines - 3)
            )
        };
        assert_eq!(rules(&function(70)), [""; 0]);
        assert_eq!(rules(&function(71)), ["fn-70"]);
        assert_eq!(rules_of("crates/abi/tests/a.rs", &function(71)), [""; 0]);
        assert_eq!(
            rules(&format!("//! A file.\nstruct S {{ f: fn(u8),\n{}}}", "g: u8,\n".repeat(80))),
            [""; 0]
        );
    }

    #[test]
    fn a_file_opens_with_its_purpose() {
        for text in ["", "use std::fmt;", "// A comment.", "//!", "\n//! Late.", "//! (to come)\n"] {
            assert_eq!(rules(text), ["first-line"], "{text}");
        }
    }

    #[test]
    fn what_is_left_to_do_has_an_issue() {
        let todo = ["TO", "DO"].concat();
        for text in [
            format!("// {todo}: more"),
            format!("/* {todo} */"),
            "fn f() { todo!() }".into(),
            "dbg!(1)".into(),
        ] {
            assert_eq!(rules(&format!("//! A file.\n{text}")), ["todo-number"], "{text}");
        }
        for text in [format!("// {todo} #12: more"), format!("let a = \"{todo}\";"), "let todo = 1;".into()] {
            assert_eq!(rules(&format!("//! A file.\n{text}")), [""; 0], "{text}");
        }
    }

    #[test]
    fn a_test_that_is_not_run_has_an_issue() {
        for (text, broken) in [
            ("#[ignore]", true),
            ("#[ignore = \"slow\"]", true),
            ("#[ignore = \"#x\"]", true),
            ("#[ignore = \"slow, see #12\"]", false),
            ("// #[ignore]", false),
        ] {
            let text = format!("//! A file.\n{text}\nfn f() {{}}");
            assert_eq!(rules_of("crates/abi/tests/a.rs", &text).len(), usize::from(broken), "{text}");
        }
    }

    #[test]
    fn unwrap_is_for_tests() {
        assert_eq!(rules("//! A file.\nfn f() { g()\n.unwrap(); }"), ["bugs-crash"]);
        for text in [
            "#[cfg(test)] mod t { fn f() { g().unwrap() } }",
            "fn f() { g().unwrap_or(1) }",
            "/// g().unwrap()",
        ] {
            assert_eq!(rules(&format!("//! A file.\n{text}")), [""; 0], "{text}");
        }
    }
}
