//! Each mistake with its exact place, and what lawful texts mean.

use keyway_abi::limits::{PROCESS_SESSIONS_MAX, USER_SESSIONS_MAX};
use keyway_kernel::Identity;

use super::*;

const BROKER_UID: u32 = 1000;

/// The module's own, whose mistakes are noted.
fn parse(text: &str, broker_uid: u32) -> Result<Policy, Vec<Mistake>> {
    let judged = super::parse(text, broker_uid);
    judged.inspect_err(|mistakes| {
        for mistake in mistakes {
            keyway_provoked::note(&mistake.what, "");
        }
    })
}

/// A text with one mistake, where that is, and words of what is said about it.
const MISTAKES: [(&str, usize, usize, &[&str]); 49] = [
    // No TOML.
    ("[[standing]\n", 1, 12, &["no TOML", "expected `]`"]),
    ("\n\nx y\n", 3, 3, &["no TOML"]),
    ("[[name]]\nprefix = \"a\nallow = []\n", 2, 12, &["no TOML", "`\"`"]),
    ("[limits.user]\nbytes = 1\nbytes = 2\n", 3, 1, &["no TOML", "duplicate key"]),
    ("[limits.user]\nbytes =", 2, 8, &["no TOML"]),
    ("[limits.user]\nbytes = # none\nlanes = 1\n", 2, 9, &["no TOML"]),
    // Tables.
    ("[[standings]]\nuser = 1\n", 1, 3, &["\"standings\"", "[[standing]], [[name]], [limits]"]),
    ("standing = 5\n", 1, 12, &["standing is of type integer", "[[standing]]"]),
    ("standing = [7]\n", 1, 13, &["of type integer", "[[standing]]"]),
    ("[name]\nprefix = \"\"\n", 1, 1, &["name is of type table", "[[name]]"]),
    ("limits = true\n", 1, 10, &["of type boolean", "[limits.process]"]),
    ("[limits]\neveryone = 1\n", 2, 1, &["\"everyone\"", "process, user"]),
    ("[limits]\nuser = 1\n", 2, 8, &["of type integer", "[limits.user]"]),
    // Keys.
    (
        "[[standing]]\nuser = 1\n  owns = [\"derive\"]\nown = [\"derive\"]\n",
        3,
        3,
        &["\"owns\"", "own, directory"],
    ),
    (
        "[[name]]\nprefix = \"\"\nuser = 1\nallow = [\"lookup\"]\nown = []\n",
        5,
        1,
        &["\"own\"", "prefix, allow"],
    ),
    ("[limits.process]\nhandle = 1\n", 2, 1, &["\"handle\"", "sessions, handles, objects"]),
    // Whom an entry is about.
    ("# x\n\n[[standing]]\nown = [\"derive\"]\n", 3, 1, &["[[standing]] does not say whom", "user, group"]),
    ("[[name]]\nprefix = \"\"\nallow = [\"lookup\"]\n", 1, 1, &["[[name]] does not say whom"]),
    ("[[standing]]\nuser = 1\ngroup = 1\nown = [\"derive\"]\n", 3, 1, &["group beside user", "about one"]),
    (
        "[[standing]]\neveryone = true\nexecutable = \"/x\"\ndeny = [\"start\"]\n",
        3,
        1,
        &["executable beside everyone"],
    ),
    ("[[standing]]\neveryone = false\nown = [\"derive\"]\n", 2, 12, &["can only be true"]),
    (
        "[[standing]]\nuser = \"no:such\"\nown = [\"derive\"]\n",
        2,
        8,
        &["\"no:such\"", "\"broker\" or the name of a user"],
    ),
    (
        "[[standing]]\ngroup = \"no:such\"\nown = [\"derive\"]\n",
        2,
        9,
        &["\"no:such\"", "or the name of a group"],
    ),
    ("[[standing]]\nuser = 1.5\nown = [\"derive\"]\n", 2, 8, &["of type float", "a number or a name"]),
    ("[[standing]]\nuser = -1\nown = [\"derive\"]\n", 2, 8, &["user is -1", "0 to 4294967294"]),
    ("[[standing]]\nuser = 4294967295\nown = [\"derive\"]\n", 2, 8, &["4294967295; 0 to 4294967294"]),
    (
        "[[standing]]\ngroup = 99999999999999999999\nown = [\"derive\"]\n",
        2,
        9,
        &["group is 99999999999999999999"],
    ),
    ("[[standing]]\nexecutable = 1\nown = [\"derive\"]\n", 2, 14, &["of type integer", "the path"]),
    (
        "[[standing]]\nexecutable = \"bin/x\"\nown = [\"derive\"]\n",
        2,
        14,
        &["\"bin/x\" (5 bytes)", "from / on"],
    ),
    ("[[standing]]\nexecutable = \"/x\\n\"\nown = [\"derive\"]\n", 2, 14, &["\"/x\\n\""]),
    ("[[standing]]\nexecutable = \"/\\uFFFD\"\nown = [\"derive\"]\n", 2, 14, &["from / on"]),
    // Rights.
    ("[[standing]]\nuser = 1\nown = [\"derive\", \"fly\"]\n", 3, 18, &["no right \"fly\"", "derive, grant"]),
    ("[[standing]]\nuser = 1\nown = [\"Derive\"]\n", 3, 8, &["no right \"Derive\""]),
    ("[[standing]]\nuser = 1\nown = [\n  \"publish\",\n]\n", 4, 3, &["own process has no right \"publish\""]),
    (
        "[[standing]]\nuser = 1\ndirectory = [\"start\"]\n",
        3,
        14,
        &["the directory has no right \"start\"", "lookup"],
    ),
    ("[[standing]]\nuser = 1\ndeny = [\"send\"]\n", 3, 9, &["has no right \"send\"", "start", "publish"]),
    (
        "[[name]]\nprefix = \"\"\nuser = 1\nallow = [\"derive\"]\n",
        4,
        10,
        &["a name has no right", "publish, lookup"],
    ),
    ("[[name]]\nprefix = \"\"\nuser = 1\ndeny = \"lookup\"\n", 4, 8, &["deny is of type string", "a list"]),
    ("[[name]]\nprefix = \"\"\nuser = 1\ndeny = [\"é\", 4]\n", 4, 9, &["no right \"é\""]),
    ("[[standing]]\nuser = 1\nown = []\n", 1, 1, &["neither gives nor denies"]),
    ("[[name]]\nprefix = \"\"\nuser = 1\n", 1, 1, &["neither allows nor denies"]),
    // Prefixes.
    ("[[name]]\nuser = 1\nallow = [\"lookup\"]\n", 1, 1, &["has no prefix"]),
    ("[[name]]\nprefix = 3\nuser = 1\nallow = [\"lookup\"]\n", 2, 10, &["prefix is of type integer"]),
    (
        "[[name]]\nprefix = \"a b\"\nuser = 1\nallow = [\"lookup\"]\n",
        2,
        10,
        &["no name can begin with \"a b\""],
    ),
    ("[[name]]\nprefix = \"/a\"\nuser = 1\nallow = [\"lookup\"]\n", 2, 10, &["begins with no /"]),
    // Limits.
    ("[limits.process]\nsessions = 0\n", 2, 12, &["sessions is 0", "1 to 4294967295"]),
    ("[limits.user]\nlanes = 4294967296\n", 2, 9, &["lanes is 4294967296", "0 to 4294967295"]),
    ("[limits.process]\nhandles = 0x10001\n", 2, 11, &["handles is", "0 to 65536"]),
    ("[limits.process]\nnames = \"9\"\n", 2, 9, &["names is of type string", "0 to 4294967295"]),
];

#[test]
fn each_mistake_is_told_with_its_place_and_what_is_possible() {
    for (text, line, column, words) in MISTAKES {
        let Err(mistakes) = parse(text, BROKER_UID) else { panic!("this is a mistake: {text}") };
        let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        assert_eq!((mistakes[0].line, mistakes[0].column), (line, column), "{text}\n{told:#?}");
        for word in words {
            assert!(mistakes[0].what.to_string().contains(word), "{word:?} for\n{text}\n{told:#?}");
        }
        let expected = if text.contains(", 4]") { 2 } else { 1 };
        assert_eq!(mistakes.len(), expected, "{text}\n{told:#?}");
    }
}

#[test]
fn a_limit_of_a_process_above_its_users_is_told_where_it_is_stated() {
    let over = PROCESS_SESSIONS_MAX - 1;
    for (text, place, words) in [
        (
            "[limits.process]\nnames = 9\n[limits.user]\nnames = 8\n".to_string(),
            (2, 9),
            "is 9, above its user's 8;",
        ),
        (format!("[limits.user]\nsessions = {over}\n"), (2, 12), "(as built in), above"),
        (
            format!("[limits.process]\nsessions = {}\n", USER_SESSIONS_MAX + 1),
            (2, 12),
            "(as built in); lower",
        ),
    ] {
        let mistakes = parse(&text, BROKER_UID).unwrap_err();
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert_eq!((mistakes[0].line, mistakes[0].column), place, "{mistakes:?}");
        assert!(mistakes[0].what.to_string().contains(words), "{mistakes:?}");
    }
    let equal = format!("[limits.user]\nsessions = {PROCESS_SESSIONS_MAX}\n");
    assert!(parse(&equal, BROKER_UID).is_ok());
}

#[test]
fn all_mistakes_are_told_at_once_in_their_order() {
    let text = "[limits.user]\nx = 1\n\n[[standing]]\nuser = -1\nown = [\"a\", \"b\"]\n\n[[name]]\nzzz = 1\n";
    let mistakes = parse(text, BROKER_UID).unwrap_err();
    let places: Vec<_> = mistakes.iter().map(|mistake| (mistake.line, mistake.column)).collect();
    assert_eq!(places, [(2, 1), (5, 8), (6, 8), (6, 13), (8, 1), (8, 1), (9, 1)], "{mistakes:#?}");
    let mistakes = parse("c = \n[[x]\na b\nd = 1\n", BROKER_UID).unwrap_err();
    let lines: Vec<_> = mistakes.iter().map(|mistake| mistake.line).collect();
    assert!([1, 2, 3].iter().all(|line| lines.contains(line)), "{mistakes:#?}");
}

#[test]
fn columns_count_characters_and_not_bytes() {
    let text = "# é\n[[name]]\nprefix = \"\"\nuser = 1\ndeny = [\"éé\", \"lookup\", \"x\"]";
    let mistakes = parse(text, BROKER_UID).unwrap_err();
    let places: Vec<_> = mistakes.iter().map(|mistake| (mistake.line, mistake.column)).collect();
    assert_eq!(places, [(5, 9), (5, 25)], "{mistakes:#?}");
}

#[test]
fn prefixes_are_as_long_as_names_and_paths_are_shorter_than_what_the_kernel_keeps() {
    let prefix = |text: &str| format!("[[name]]\nprefix = {text:?}\neveryone = true\nallow = [\"lookup\"]\n");
    for lawful in [String::new(), "a/".into(), "a.".into(), "x".repeat(62), "x".repeat(63)] {
        assert!(parse(&prefix(&lawful), BROKER_UID).is_ok(), "{lawful}");
    }
    for unlawful in ["x".repeat(64), format!("{}/", "x".repeat(62)), "/".into(), "é".into()] {
        assert_eq!(parse(&prefix(&unlawful), BROKER_UID).unwrap_err().len(), 1, "{unlawful}");
    }
    let program = |bytes: usize| {
        let path = format!("/{}", "x".repeat(bytes - 1));
        parse(&format!("[[standing]]\nexecutable = {path:?}\nown = [\"start\"]\n"), BROKER_UID)
    };
    assert!(program(PATH_BYTES_MAX).is_ok());
    assert!(program(PATH_BYTES_MAX + 1).is_err());
    // However the kernel shortens a path at a character, it is longer than any that can be stated.
    assert!(EXECUTABLE_BYTES_MAX - (char::MAX.len_utf8() - 1) > PATH_BYTES_MAX);
}

#[test]
fn every_limit_is_set_by_its_own_key_and_no_other_changes() {
    let built_in = Limits::default();
    for row in &ROWS {
        let text = format!("[limits.process]\n{} = 11\n[limits.user]\n{0} = 1_2\n", row.key);
        let limits = parse(&text, BROKER_UID).unwrap().limits;
        for other in &ROWS {
            let expected = if other.key == row.key {
                (11, 12)
            } else {
                ((other.get)(&built_in.process), (other.get)(&built_in.user))
            };
            assert_eq!(((other.get)(&limits.process), (other.get)(&limits.user)), expected, "{text}");
        }
    }
}

#[test]
fn what_is_shown_of_a_policy_states_the_same_policy() {
    let text = r#"
        limits.process = { bytes = 4096, sessions = 3 }
        limits.user.bytes = 9223372036854775807
        [[standing]]
        user = "broker"
        own = ["derive", "derive"]
        [[standing]]
        group = 0x10
        directory = ["lookup"]
        deny = ["start"]
        [[standing]]
        executable = '/usr/bin/a "b" \c é'
        deny = ["publish"]
        [[name]]
        prefix = "org.example/"
        user = "root"
        allow = ["publish", "lookup"]
        [[name]]
        prefix = ""
        everyone = true
        deny = ["lookup"]
    "#;
    for uid in [0, BROKER_UID] {
        let stated = parse(text, uid).unwrap();
        assert_eq!(stated.limits.process.bytes, 4096);
        assert_eq!(stated.names.rules().len(), 2);
        for policy in [stated, Policy::for_user(uid)] {
            let shown = policy.to_string();
            let again = parse(&shown, uid);
            assert_eq!(again, Ok(policy), "{shown}");
        }
    }
}

#[test]
fn the_document_states_lawful_policies_and_what_is_built_in() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/policy.md");
    let document = std::fs::read_to_string(path).unwrap();
    let blocks: Vec<&str> =
        document.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 2);
    for block in blocks {
        assert!(parse(block, BROKER_UID).is_ok(), "{block}");
    }
    let built_in = Limits::default();
    for row in &ROWS {
        let begins = format!("| `{}` |", row.key);
        let line = document.lines().find(|line| line.starts_with(&begins)).unwrap();
        let ends = format!("| {} | {} |", (row.get)(&built_in.process), (row.get)(&built_in.user));
        assert!(line.ends_with(&ends), "{line}, not {ends}");
    }
    for (key, rights) in [("own", OWN_RIGHTS), ("directory", DIRECTORY_RIGHTS)] {
        let begins = format!("| `{key}` |");
        let line = document.lines().find(|line| line.starts_with(&begins)).unwrap();
        for word in words(rights) {
            assert!(line.contains(&format!("`{word}`")), "{word}: {line}");
        }
    }
}

#[test]
fn users_and_groups_are_named_as_the_machine_names_them() {
    let first = |path: &str| {
        let text = std::fs::read_to_string(path).unwrap();
        let mut fields = text.lines().next().unwrap().split(':').map(str::to_owned);
        (fields.next().unwrap(), fields.nth(1).unwrap().parse().unwrap())
    };
    let ((user, uid), (group, gid)) = (first("/etc/passwd"), first("/etc/group"));
    let text = format!(
        "[[standing]]\nuser = {user:?}\nown = [\"watch\"]\n[[standing]]\ngroup = {group:?}\ndirectory = [\"lookup\"]\n"
    );
    let policy = parse(&text, 7).unwrap();
    let is =
        |uid, gid, groups| Identity { pid: 1, uid, gid, groups, executable: String::new(), account: (0, 1) };
    let given = |identity: &Identity| policy.standing(identity);
    let nobody = given(&is(uid + 1, gid + 1, vec![]));
    assert_ne!(given(&is(uid, gid + 1, vec![])), nobody, "the user");
    assert_ne!(given(&is(uid + 1, gid, vec![])), nobody, "the effective group");
    assert_eq!(
        given(&is(uid + 1, gid, vec![])),
        given(&is(uid + 1, gid + 1, vec![5, gid])),
        "a supplementary one"
    );
}

#[test]
fn a_long_text_of_mistakes_is_gone_through_once() {
    let lines = 1 << 17;
    let began = std::time::Instant::now();
    let mistakes = parse(&"=\n".repeat(lines), BROKER_UID).unwrap_err();
    let places = mistakes.iter().map(|mistake| mistake.line);
    assert!(places.is_sorted() && mistakes.last().unwrap().line >= lines, "each line has its mistake");
    assert!(mistakes.len() >= lines, "{}", mistakes.len());
    // By looking from the beginning for each it takes minutes.
    assert!(began.elapsed() < std::time::Duration::from_secs(15), "{:?}", began.elapsed());
}

#[test]
fn a_place_counts_characters_and_goes_on_from_the_one_before() {
    let text = "aé\nß€x\n\n😀b";
    let mut place = Place::START;
    for (offset, _) in text.char_indices().chain([(text.len(), ' '), (text.len() + 9, ' ')]) {
        let before = &text[..offset.min(text.len())];
        let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
        place.advance(text, offset);
        assert_eq!((place.line, place.column), (before.matches('\n').count() + 1, column), "{offset}");
    }
}
