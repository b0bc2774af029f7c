//! The virtual machine: QEMU, without KVM, and the control of it by QMP.
//!
//! QEMU has its lines to this process as descriptors, so that no socket lies around. It dies with this process, however
//! that ends.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use keyway_vm::protocol::{Display, PORT, TABLET_END};
use rustix::{
    io::FdFlags,
    process::{Signal, set_parent_process_death_signal},
};
use serde_json::{Value, json};

/// What the guest's consoles say, in the directory that is kept.
pub const CONSOLE: &str = "console.log";
/// What QEMU says there.
pub const QEMU_LOG: &str = "qemu.log";

/// How long QEMU may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A machine that runs. It is killed with this value.
pub struct Machine {
    qemu: Child,
    qmp: BufReader<UnixStream>,
}

impl Machine {
    /// Starts it, with `directory` as the place of what it writes. The second value is the line to the guest.
    pub fn boot(kernel: &Path, initramfs: &Path, directory: &Path) -> Result<(Self, UnixStream)> {
        let (qmp, qmp_inside) = line()?;
        let (guest, guest_inside) = line()?;
        let log = File::create(directory.join(QEMU_LOG))?;
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(MACHINE)
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(initramfs)
            .args(["-append", KERNEL_ARGUMENTS])
            .args(["-serial", &format!("file:{CONSOLE}")])
            .args(["-chardev", &format!("socket,id=qmp,fd={}", qmp_inside.as_raw_fd())])
            .args(["-mon", "chardev=qmp,mode=control"])
            .args(["-chardev", &format!("socket,id=guest,fd={}", guest_inside.as_raw_fd())])
            .args(["-device", "virtio-serial-pci"])
            .args(["-device", &format!("virtserialport,chardev=guest,name={PORT}")])
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // SAFETY: between fork and exec this makes one system call, and takes neither memory nor locks.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        let qemu = command.spawn().context("no QEMU")?;
        let mut machine = Machine { qemu, qmp: BufReader::new(qmp) };
        // Once no end of QEMU's is open here, a line ends with QEMU.
        drop((qmp_inside, guest_inside));
        match machine.greet() {
            Ok(()) => Ok((machine, guest)),
            Err(error) => {
                let said = fs::read_to_string(directory.join(QEMU_LOG)).unwrap_or_default();
                Err(error.context(format!("QEMU did not start: {}", said.trim())))
            }
        }
    }

    /// Saves what a screen shows as a PNG, named from the machine's directory; the file is complete after this.
    pub fn screenshot(&mut self, display: Display, file: &str) -> Result<()> {
        let arguments = json!({ "device": display.id(), "filename": file, "format": "png" });
        self.execute("screendump", &arguments).map(drop)
    }

    /// Presses keys and releases each; those that a plus joins, together.
    pub fn press(&mut self, keys: &[String]) -> Result<()> {
        for chord in keys {
            let event = |key: &str, down: bool| json!({ "type": "key", "data": { "down": down, "key": { "type": "qcode", "data": key } } });
            let pressed = chord.split('+').map(|key| event(key, true));
            let released = chord.rsplit('+').map(|key| event(key, false));
            let events: Vec<Value> = pressed.chain(released).collect();
            self.execute("input-send-event", &json!({ "events": events }))?;
        }
        Ok(())
    }

    /// Moves the tablet's pointer.
    pub fn point(&mut self, x: u16, y: u16) -> Result<()> {
        if x.max(y) > TABLET_END {
            bail!("the tablet ends at {TABLET_END}");
        }
        let axis = |axis, value| json!({ "type": "abs", "data": { "axis": axis, "value": value } });
        self.execute("input-send-event", &json!({ "events": [axis("x", x), axis("y", y)] })).map(drop)
    }

    /// Waits until the machine is off, but not for long.
    pub fn await_end(mut self) {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && matches!(self.qemu.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn greet(&mut self) -> Result<()> {
        self.qmp.get_ref().set_read_timeout(Some(PATIENCE))?;
        self.qmp.get_ref().set_write_timeout(Some(PATIENCE))?;
        self.hear().map(drop)?;
        self.execute("qmp_capabilities", &json!({})).map(drop)
    }

    fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let order = json!({ "execute": command, "arguments": arguments });
        writeln!(self.qmp.get_mut(), "{order}").context("QEMU has ended")?;
        loop {
            let mut said = self.hear()?;
            if let Some(error) = said.get("error") {
                bail!("QEMU refused {command}: {}", error["desc"].as_str().unwrap_or_default());
            }
            // Anything else is an event.
            if let Some(value) = said.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    fn hear(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.qmp.read_line(&mut line).context("QEMU does not answer")? == 0 {
            bail!("QEMU has ended");
        }
        serde_json::from_str(&line).context("QEMU says what is no JSON")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// Both ends of a line, the second one for the child that is started next.
fn line() -> Result<(UnixStream, OwnedFd)> {
    let (outside, inside) = UnixStream::pair()?;
    rustix::io::fcntl_setfd(&inside, FdFlags::empty())?;
    Ok((outside, inside.into()))
}

/// A machine with two screens, a keyboard and a tablet, and nothing that is not asked for. KVM is not used even where it
/// seems to be there: a nested one may be unable to run an ordinary kernel.
const MACHINE: [&str; 25] = [
    "-M",
    "q35,usb=off",
    "-accel",
    "tcg,thread=multi,tb-size=512",
    "-cpu",
    "qemu64",
    "-smp",
    "2",
    "-m",
    "1024",
    "-nodefaults",
    "-no-user-config",
    "-no-reboot",
    "-display",
    "none",
    "-vga",
    "none",
    "-device",
    "virtio-gpu-pci,id=gpu0,xres=1280,yres=800,max_outputs=1",
    "-device",
    "bochs-display,id=gpu1",
    "-device",
    "virtio-keyboard-pci",
    "-device",
    "virtio-tablet-pci",
];

/// A panic ends the machine, and so does the end of the guest's program. What is slow under emulation is left out.
const KERNEL_ARGUMENTS: &str =
    "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off tsc=reliable random.trust_cpu=on";
