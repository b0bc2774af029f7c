//! Boots the test machine, serves its guest, and says what came of the scenarios.

mod initramfs;
mod kernel;
mod machine;
mod serve;

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

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
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    limit: u64,
    /// A kernel with its modules, as its package lays them out.
    #[arg(long, value_name = "DIRECTORY", hide = true)]
    kernel: PathBuf,
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
    match run(Arguments::parse()) {
        Ok(Tally { passed, failed }) => {
            println!("{passed} passed, {failed} failed");
            if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("tests/vm/run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<Tally> {
    let own = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/out"));
    if arguments.keep.is_none() && own.exists() {
        fs::remove_dir_all(&own)?;
    }
    let directory = arguments.keep.clone().unwrap_or(own);
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let directory = directory.canonicalize()?;
    let kernel = Kernel::find(&arguments.kernel)?;
    let initramfs = directory.join("initramfs.cpio");
    fs::write(&initramfs, files(&kernel, &arguments)?)?;
    println!("kernel {}", kernel.version());
    let booted = Machine::boot(&kernel.elf()?.canonicalize()?, &initramfs, &directory)?;
    let limit = Duration::from_secs(arguments.limit);
    Ok(Server::new(booted, &directory, arguments.scenarios, limit)?.run())
}

/// The guest's files: its program, the command, and the modules, named in the order in which they load.
fn files(kernel: &Kernel, arguments: &Arguments) -> Result<Vec<u8>> {
    let read = |path: &PathBuf| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut files = Initramfs::default();
    for directory in ["bin", "dev", "modules", "proc", "run", "sys", "tmp"] {
        files.directory(directory);
    }
    files.program("init", &read(&arguments.guest)?);
    files.program("bin/keyway", &read(&arguments.keyway)?);
    for program in &arguments.program {
        let name = program.file_name().context("a program has a name")?.to_string_lossy();
        files.program(&format!("bin/{name}"), &read(program)?);
    }
    for (index, (name, module)) in kernel.modules(&MODULES)?.iter().enumerate() {
        files.program(&format!("modules/{index:02}-{name}.ko"), module);
    }
    Ok(files.finish())
}
