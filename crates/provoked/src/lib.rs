//! Notes which refusals the tests provoke, so that `docs/refusals.md` can name for each the tests that do.
//!
//! Only the drivers of tests use this. Where `$KEYWAY_REFUSALS` names a directory, each refusal is written there once a
//! test, one line each, in a file of the test's crate; otherwise nothing happens and nothing is written. What a line says:
//!
//! ```text
//!  keyway_abi::denial::Denial ⇥ ReceiveBound ⇥ 8 ⇥ 1 ⇥ Derive ⇥ kernel ⇥ kernel ⇥ tests::denials::the_receive_right_..
//!  the type                     the variant  number errno operation crate    binary   the test
//! ```
//!
//! A refusal that is noted outside a test's own thread is nobody's, and left out.

#![forbid(unsafe_code)]

use std::{
    any,
    collections::BTreeSet,
    env,
    fmt::Debug,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
    thread,
};

/// The variable that names the directory.
pub const VARIABLE: &str = "KEYWAY_REFUSALS";

/// What a refusal is known by besides its name. Nothing where it has none, or where it is different each time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Its number.
    pub number: Option<u32>,
    /// Its errno.
    pub errno: Option<i32>,
}

/// Notes that the test which runs in this thread was refused like this when it asked for `operation`, which may be nothing.
pub fn note<R: Debug>(refusal: &R, operation: &str) {
    note_figures(refusal, operation, Figures::default());
}

/// As [`note`], of a refusal with figures.
pub fn note_figures<R: Debug>(refusal: &R, operation: &str, figures: Figures) {
    let Some(ledger) = ledger() else { return };
    let Some(test) = thread::current().name().map(String::from).filter(|name| name != "main") else { return };
    let number = figures.number.map(|number| number.to_string()).unwrap_or_default();
    let errno = figures.errno.map(|errno| errno.to_string()).unwrap_or_default();
    let name = variant(&format!("{refusal:?}"));
    let line = [any::type_name::<R>(), &name, &number, &errno, operation, &ledger.of, &ledger.binary, &test];
    ledger.write(line.join("\t"));
}

/// The name of the variant in what `Debug` says of a value.
fn variant(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

/// Where this process writes.
struct Ledger {
    file: Mutex<File>,
    written: Mutex<BTreeSet<String>>,
    /// The name of the crate's directory.
    of: String,
    /// The file of tests outside the crate, else the crate once more.
    binary: String,
}

impl Ledger {
    fn open(directory: &Path) -> Self {
        let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests"));
        let of = manifest.file_name().expect("a crate has a directory").to_string_lossy().into_owned();
        let program = env::current_exe().expect("a program has a path");
        let stem = program.file_stem().expect("a program has a name").to_string_lossy().into_owned();
        let stem = stem.rsplit_once('-').map_or(stem.as_str(), |(name, _)| name);
        let binary =
            if stem.strip_prefix("keyway_").unwrap_or(stem) == of { of.clone() } else { stem.into() };
        fs::create_dir_all(directory).expect("the directory can be made");
        let path = directory.join(format!("{of}-{binary}.tsv"));
        let file = File::options().create(true).append(true).open(&path).expect("the file can be written");
        Ledger { file: Mutex::new(file), written: Mutex::default(), of, binary }
    }

    fn write(&self, line: String) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.contains(&line) {
            return;
        }
        // One call a line, because processes that a test starts may write to the same file.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(format!("{line}\n").as_bytes()).expect("the file can be written");
        written.insert(line);
    }
}

fn ledger() -> Option<&'static Ledger> {
    static LEDGER: OnceLock<Option<Ledger>> = OnceLock::new();
    let open = || env::var_os(VARIABLE).map(|directory| Ledger::open(Path::new(&directory)));
    LEDGER.get_or_init(open).as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_is_what_stands_before_its_fields() {
        assert_eq!(variant(&format!("{:?}", None::<u8>)), "None");
        assert_eq!(variant(&format!("{:?}", Some(1))), "Some");
        assert_eq!(variant(&format!("{:?}", Figures::default())), "Figures");
    }
}
