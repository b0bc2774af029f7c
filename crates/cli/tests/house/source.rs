//! One Rust file, read so that a rule can look at its code without being misled by its comments and literals.
//!
//! All views have the length of the text: what does not belong to a view is blank in it, so that an offset means the same
//! place in each.
//!
//! ```text
//!  text      let a = "fn"; // SAFETY: why
//!  code      let a =     ;
//!  comments                // SAFETY: why
//! ```
//!
//! This is a lexer and no parser: it knows comments, literals and brackets, which is all that the rules need. What stands
//! under `#[cfg(test)]` is found by its brackets.

use std::ops::Range;

/// One file and its views.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// From the root of the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// Without comments and literals.
    pub(crate) code: String,
    /// Comments alone.
    pub(crate) comments: String,
    /// Code without what only tests see. Blank when the whole file is a test.
    pub(crate) product: String,
    /// Modules in files of their own that only tests see.
    pub(crate) test_modules: Vec<String>,
}

/// A word or a sign of the code, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) offset: usize,
    pub(crate) text: &'a str,
}

impl Source {
    /// Reads a file's text.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let spans = spans(text.as_bytes());
        let code = blank(text, |kind| kind == Span::Code, &spans);
        let comments = blank(text, |kind| kind == Span::Comment, &spans);
        let mut source = Source {
            path: path.into(),
            text: text.into(),
            product: code.clone(),
            code,
            comments,
            test_modules: Vec::new(),
        };
        if path.split('/').any(|part| part == "tests" || part == "tests.rs") {
            source.become_test();
        } else {
            source.blank_test_items();
        }
        source
    }

    /// Makes the whole file a test.
    pub(crate) fn become_test(&mut self) {
        self.product = blank_range(&self.product, 0..self.product.len());
    }

    /// The line of an offset, from 1.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.text[..offset].matches('\n').count() + 1
    }

    /// The place of an offset, for people.
    pub(crate) fn place(&self, offset: usize) -> String {
        format!("{}:{}", self.path, self.line(offset))
    }

    /// The module path inside the crate: none for the root, `["machine", "client"]` for `src/machine/client.rs`.
    /// `None` for a file outside `src`.
    pub(crate) fn module(&self) -> Option<Vec<&str>> {
        let (_, inside) = self.path.split_once("/src/")?;
        let mut module: Vec<&str> = inside.strip_suffix(".rs")?.split('/').collect();
        if matches!(module.last(), Some(&"lib" | &"main" | &"mod")) {
            module.pop();
        }
        Some(module)
    }

    /// The name of the crate's directory under `crates/`.
    pub(crate) fn crate_directory(&self) -> Option<&str> {
        self.path.strip_prefix("crates/")?.split('/').next()
    }

    fn blank_test_items(&mut self) {
        let code = self.code.clone();
        let tokens = tokens(&code);
        for (index, token) in tokens.iter().enumerate() {
            if token.text != "#" || !is_test_attribute(&tokens[index..]) {
                continue;
            }
            let item = skip_attributes(&tokens, index);
            if let Some(name) = module_in_file(&tokens[item..]) {
                self.test_modules.push(name.into());
            }
            let end = tokens.get(item_end(&tokens, item)).map_or(code.len(), |last| last.offset + 1);
            self.product = blank_range(&self.product, token.offset..end);
        }
    }
}

/// The words and signs of code. `::` is one sign, every other is one character.
pub(crate) fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut characters = code.char_indices().peekable();
    while let Some((offset, first)) = characters.next() {
        let mut end = offset + first.len_utf8();
        if is_word(first) {
            while let Some((at, next)) = characters.next_if(|(_, next)| is_word(*next)) {
                end = at + next.len_utf8();
            }
        } else if first.is_whitespace() {
            continue;
        } else if first == ':' && characters.next_if(|(_, next)| *next == ':').is_some() {
            end += 1;
        }
        found.push(Token { offset, text: &code[offset..end] });
    }
    found
}

/// The index of the token that ends the item which begins at `from`: its `;`, or the bracket that closes its body.
pub(crate) fn item_end(tokens: &[Token<'_>], from: usize) -> usize {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(from) {
        match token.text {
            "(" | "[" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            ";" if depth == 0 => return index,
            "{" if depth == 0 => return closing(tokens, index),
            _ => {}
        }
    }
    tokens.len().saturating_sub(1)
}

/// The index of the bracket that closes the one at `open`.
pub(crate) fn closing(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" if depth == 1 => return index,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
    }
    tokens.len().saturating_sub(1)
}

/// Whether these tokens begin with `#[cfg(..)]` that holds in tests only, or with `#[test]`.
fn is_test_attribute(tokens: &[Token<'_>]) -> bool {
    let words: Vec<&str> = tokens.iter().take(2).map(|token| token.text).collect();
    if words != ["#", "["] {
        return false;
    }
    let attribute: Vec<&str> = tokens[2..closing(tokens, 1)].iter().map(|token| token.text).collect();
    match attribute.as_slice() {
        ["test"] | ["cfg", "(", "test", ")"] => true,
        // One of several conditions that must all hold.
        ["cfg", "(", "all", rest @ ..] => {
            (0..rest.len()).any(|at| rest[at] == "test" && !rest[..at].ends_with(&["not", "("]))
        }
        _ => false,
    }
}

fn skip_attributes(tokens: &[Token<'_>], from: usize) -> usize {
    let mut index = from;
    while tokens.get(index).is_some_and(|token| token.text == "#") {
        index = closing(tokens, index + 1) + 1;
    }
    index.min(tokens.len().saturating_sub(1))
}

/// The name in `mod name;`, with any visibility.
fn module_in_file<'a>(item: &[Token<'a>]) -> Option<&'a str> {
    let end = item.iter().position(|token| matches!(token.text, ";" | "{"))?;
    let at = item[..end].iter().position(|token| token.text == "mod")?;
    (item[end].text == ";" && end == at + 2).then(|| item[at + 1].text)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Span {
    Code,
    Comment,
    Literal,
}

/// What each byte belongs to.
fn spans(bytes: &[u8]) -> Vec<Span> {
    let mut spans = vec![Span::Code; bytes.len()];
    let mut at = 0;
    while at < bytes.len() {
        let (kind, len) = span_at(bytes, at);
        let end = (at + len).min(bytes.len());
        spans[at..end].fill(kind);
        at = end;
    }
    spans
}

fn span_at(bytes: &[u8], at: usize) -> (Span, usize) {
    let rest = &bytes[at..];
    let after_word = at > 0 && is_word(char::from(bytes[at - 1]));
    match rest {
        [b'/', b'/', ..] => {
            (Span::Comment, rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()))
        }
        [b'/', b'*', ..] => (Span::Comment, block_comment_len(rest)),
        [b'"', ..] => (Span::Literal, quoted_len(rest, b'"')),
        [b'\'', b'\\', ..] => (Span::Literal, quoted_len(rest, b'\'')),
        [b'\'', first, ..] if rest.get(1 + utf8_len(*first)) == Some(&b'\'') => {
            (Span::Literal, 2 + utf8_len(*first))
        }
        [b'r', ..] if !after_word => {
            raw_string_len(rest, 1).map_or((Span::Code, 1), |len| (Span::Literal, len))
        }
        [b'b' | b'c', b'r', ..] if !after_word => {
            raw_string_len(rest, 2).map_or((Span::Code, 1), |len| (Span::Literal, len))
        }
        _ => (Span::Code, 1),
    }
}

/// The length of a literal that ends at its quote, escapes included.
fn quoted_len(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            byte if *byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The length of `r#".."#`, whose first `prefix` bytes are letters; `None` when it is no literal.
fn raw_string_len(bytes: &[u8], prefix: usize) -> Option<usize> {
    let marks = bytes[prefix..].iter().take_while(|byte| **byte == b'#').count();
    let open = prefix + marks;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let end = [b"\"".as_slice(), &b"#".repeat(marks)].concat();
    let len = bytes[open + 1..].windows(end.len()).position(|window| window == end);
    Some(len.map_or(bytes.len(), |len| open + 1 + len + end.len()))
}

/// The length of a block comment, in which others may stand.
fn block_comment_len(bytes: &[u8]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    bytes.len()
}

fn utf8_len(first: u8) -> usize {
    match first {
        0..0x80 => 1,
        0x80..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0.. => 4,
    }
}

fn is_word(character: char) -> bool {
    character == '_' || character.is_alphanumeric()
}

fn blank(text: &str, keep: impl Fn(Span) -> bool, spans: &[Span]) -> String {
    let bytes = text.bytes().zip(spans);
    let kept = bytes.map(|(byte, span)| if byte == b'\n' || keep(*span) { byte } else { b' ' }).collect();
    String::from_utf8(kept).expect("spans end between characters")
}

fn blank_range(text: &str, range: Range<usize>) -> String {
    let bytes = text.bytes().enumerate();
    let kept =
        bytes.map(|(at, byte)| if byte == b'\n' || !range.contains(&at) { byte } else { b' ' }).collect();
    String::from_utf8(kept).expect("items end between characters")
}

mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Source::new("crates/abi/src/lib.rs", text).code
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        for (text, words) in [
            ("a // b\nc /* d /* e */ f */ g", "a c g"),
            (r#"a "b \" c" d"#, "a d"),
            ("a r#\"b \" c\"# d r#fn", "a d r # fn"),
            ("br\"x\" b\"y\" z", "b z"),
            (r"x '\'' 'y' 'é' &'a b", "x & ' a b"),
            ("/* open", ""),
            ("\"open", ""),
        ] {
            let code = code(text);
            assert_eq!(code.len(), text.len(), "{text}");
            let found: Vec<&str> = tokens(&code).iter().map(|token| token.text).collect();
            assert_eq!(found.join(" "), words, "{text}");
        }
    }

    #[test]
    fn comments_alone_are_kept() {
        let source = Source::new("crates/abi/src/lib.rs", "a // b \"c\"\n\"// d\"");
        assert_eq!(source.comments.trim(), "// b \"c\"");
    }

    #[test]
    fn what_only_tests_see_is_no_product() {
        let text = "fn a() {}\n#[cfg(test)]\n#[allow(x)]\nmod model { fn b() {} }\n#[cfg(not(test))] fn c() {}\n\
                    #[cfg(all(test, not(loom)))]\nmod heap;\n#[cfg(any(test, loom))] fn d() {}\n\
                    #[cfg(all(loom, not(test)))] fn e() {}";
        let source = Source::new("crates/abi/src/lib.rs", text);
        let words: Vec<&str> = tokens(&source.product).iter().map(|token| token.text).collect();
        for (word, seen) in
            [("a", true), ("b", false), ("c", true), ("heap", false), ("d", true), ("e", true)]
        {
            assert_eq!(words.contains(&word), seen, "{word}");
        }
        assert_eq!(source.test_modules, ["heap"]);
        let source = Source::new("crates/abi/src/lane/tests.rs", "fn a() {}");
        assert_eq!(source.product.trim(), "");
    }

    #[test]
    fn modules_are_named_after_their_files() {
        let module = |path| Source::new(path, "").module().map(|module| module.join("::"));
        assert_eq!(module("crates/gui/src/lib.rs").as_deref(), Some(""));
        assert_eq!(module("crates/gui/src/machine/client.rs").as_deref(), Some("machine::client"));
        assert_eq!(module("crates/kernel/src/operations/mod.rs").as_deref(), Some("operations"));
        assert_eq!(module("crates/shm/tests/loom.rs"), None);
    }
}
