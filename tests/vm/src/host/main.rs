//! Boots the test machine, serves its guest, and says what came of the scenarios.

mod initramfs;
mod kernel;
mod machine;
mod serve;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Parser;

use crate::{
    initramfs::Initramfs,
    kernel::Kernel,
    machine::Machine,
    serve::{Server, Tally},
};

/// The drivers of the machine's devices, and what they need besides. The order decides which card is the first.
const MODULES: [&str; 7] =
    ["virtio_pci", "virtio_console", "virtio_gpu", "bochs", "virtio_input", "evdev", "uinput"];

/// Runs scenarios in a virtual machine with real screens and input devices.
#[derive(Debug, Parser)]
#[command(name = "tests/vm/run")]
struct Arguments {
    /// The scenarios to run [default: all].
    scenarios: Vec<String>,
    /// Where pictures and logs go [default: tests/vm/out, which is emptied first].
    #[arg(long, value_name = "DIRECTORY")]
    keep: Option<PathBuf>,
    /// How long the whole run may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 240)]
    limit: u64,
    /// A kernel with its modules, as its package lays them out.
    #[arg(long, value_name = "DIRECTORY", hide = true)]
    kernel: PathBuf,
    /// A root file system with weston.
    #[arg(long, value_name = "DIRECTORY", hide = true)]
    weston: Option<PathBuf>,
    /// Why there is none.
    #[arg(long, value_name = "REASON", hide = true, default_value = "it was not asked for")]
    no_weston: String,
    /// The guest's program.
    #[arg(long, value_name = "FILE", hide = true)]
    guest: PathBuf,
    /// The `keyway` command.
    #[arg(long, value_name = "FILE", hide = true)]
    keyway: PathBuf,
    /// Further programs, which are in the guest's `/bin` by their names.
    #[arg(long, value_name = "FILE", hide = true)]
    program: Vec<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(Tally { passed, failed, skipped }) => {
            println!("{passed} passed, {failed} failed");
            if failed == 0 && passed + skipped > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("tests/vm/run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<Tally> {
    let own = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/out"));
    if arguments.keep.is_none() && own.exists() {
        fs::remove_dir_all(&own)?;
    }
    let directory = arguments.keep.clone().unwrap_or(own);
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let directory = directory.canonicalize()?;
    let kernel = Kernel::find(&arguments.kernel)?;
    println!("kernel {}", kernel.version());
    let limit = Duration::from_secs(arguments.limit);
    let (of_weston, others): (Vec<String>, Vec<String>) =
        arguments.scenarios.iter().cloned().partition(|name| WESTON.contains(&name.as_str()));
    let mut tally = Tally::default();
    if !others.is_empty() || of_weston.is_empty() {
        tally = boot(
            &kernel,
            &files(&kernel, arguments, None)?,
            &directory,
            (others.clone(), SCENARIO_LIMIT, limit),
        )?;
    }
    if others.is_empty() || !of_weston.is_empty() {
        let wanted = if of_weston.is_empty() { WESTON.map(String::from).to_vec() } else { of_weston };
        // A machine of its own, so that the others' is small.
        if let Some(root) = &arguments.weston {
            let directory = directory.join("weston");
            fs::create_dir_all(&directory)?;
            let files = files(&kernel, arguments, Some(root))?;
            tally += boot(&kernel, &files, &directory, (wanted, WESTON_LIMIT, limit))?;
        } else {
            for name in &wanted {
                println!("{name:<20} skipped: {}", arguments.no_weston);
            }
            tally.skipped += wanted.len();
        }
    }
    Ok(tally)
}

/// The scenarios that have a machine of their own.
const WESTON: [&str; 3] = ["figures", "weston", "weston-lease"];
/// How long a scenario may take; the guest ends it after that.
const SCENARIO_LIMIT: Duration = Duration::from_secs(60);
/// The same, of weston, which is not optimised for emulated machines.
const WESTON_LIMIT: Duration = Duration::from_secs(200);

/// Boots a machine with these files and runs scenarios in it.
fn boot(
    kernel: &Kernel,
    files: &[u8],
    directory: &Path,
    (scenarios, scenario_limit, limit): (Vec<String>, Duration, Duration),
) -> Result<Tally> {
    let initramfs = directory.join("initramfs.cpio");
    fs::write(&initramfs, files)?;
    let booted = Machine::boot(&kernel.elf()?.canonicalize()?, &initramfs, directory)?;
    let tally = Server::new(booted, directory, (scenarios, scenario_limit), limit)?.run();
    // What is kept is for people to look at.
    fs::remove_file(initramfs)?;
    Ok(tally)
}

/// The guest's files: its program, the command, and the modules, named in the order in which they load; in a root file system, or alone.
fn files(kernel: &Kernel, arguments: &Arguments, root: Option<&PathBuf>) -> Result<Vec<u8>> {
    let read = |path: &PathBuf| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut files = Initramfs::default();
    let programs = if let Some(root) = root {
        files.tree(root)?;
        "usr/bin"
    } else {
        files.directory("bin");
        "bin"
    };
    for directory in ["dev", "modules", "proc", "run", "sys", "tmp"] {
        files.directory(directory);
    }
    files.program("init", &read(&arguments.guest)?);
    files.program(&format!("{programs}/keyway"), &read(&arguments.keyway)?);
    for program in &arguments.program {
        let name = program.file_name().context("a program has a name")?.to_string_lossy();
        files.program(&format!("{programs}/{name}"), &read(program)?);
    }
    for (index, (name, module)) in kernel.modules(&MODULES)?.iter().enumerate() {
        files.program(&format!("modules/{index:02}-{name}.ko"), module);
    }
    Ok(files.finish())
}
