//! The bridge: a seat, a compositor, an application, and an intruder between them.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use keyway::{Carried, Handle, Outgoing, Rights};
use keyway_broker::memory_use;

use super::{
    Role,
    compositor::{TYPED, WINDOW},
    intruder::Intruder,
    narrator::Narrator,
    report::{Failed, Report},
    stage::{Actor, Stage},
};

const BRIDGE: &str = "rustica-gui";
const COMPOSITOR_DOOR: &str = "rustica-gui/compositor";
/// Further processes that are connected when the broker's memory is measured.
const BYSTANDERS: usize = 8;

/// Shows the bridge at work, and what it refuses.
pub(super) fn show(
    stage: &mut Stage,
    narrator: &mut Narrator,
    screenshot: Option<&Path>,
    memory_before: u64,
) -> Result<(), Failed> {
    narrator.scene("A screen, a compositor, an application, and an intruder");
    let screen = stage.path("screen.png");
    let seat = Seat::start(stage, &screen)?;
    narrator
        .fact(&format!("the bridge `{BRIDGE}` (pid {}) has virtual screens and devices", seat.child.id()));
    let mut intruder = Intruder::start(stage)?;
    narrator.fact(&format!(
        "an intruder (pid {}) holds `{BRIDGE}` and no more; there is no compositor yet",
        intruder.pid()
    ));
    intruder.try_before(narrator)?;
    let (mut confined, badge) = stage.prepare(Role::Compositor, &[])?;
    confined.give_service(BRIDGE)?.give_service(COMPOSITOR_DOOR)?;
    let mut compositor = Stage::start(Role::Compositor, (confined, badge))?;
    let inbox = stage.hear_queue(&mut compositor)?;
    let (mut confined, badge) = stage.prepare(Role::Application, &[])?;
    confined.give_service(BRIDGE)?;
    let mut application = Stage::start(Role::Application, (confined, badge))?;
    stage.hear(&mut application)?;
    introduce(stage, &inbox, &application)?;
    let (surface, pixel) = match stage.hear(&mut application)?.0 {
        Report::Drawn { surface, pixel } => (surface, pixel),
        other => return Err(Failed(format!("expected a surface, heard {other:?}"))),
    };
    hear_compositor(stage, narrator, &mut compositor)?;
    // It composes once the application has drawn.
    stage.client.open_sender(&inbox)?.send(&[])?;
    look_at_screen(stage, narrator, &mut compositor, &screen, pixel)?;
    if let Some(file) = screenshot {
        std::fs::copy(&screen, file).map_err(|error| Failed(format!("{}: {error}", file.display())))?;
        narrator.fact(&format!("the screen is saved in {}", file.display()));
    }
    let foreign = highest_handle(stage)?;
    intruder.try_after(narrator, compositor.pid(), surface, foreign)?;
    measure_memory(stage, narrator, memory_before, &seat)?;
    // Leaving: the compositor unregisters, and everything that was granted ends.
    stage.client.open_sender(&inbox)?.send(&[])?;
    match stage.hear(&mut compositor)?.0 {
        Report::InputEnded => {
            narrator.fact("the compositor has unregistered: its keyboard is dead, its grants are gone");
        }
        other => return Err(Failed(format!("expected the keyboard's end, heard {other:?}"))),
    }
    application.finish()?;
    compositor.finish()?;
    intruder.finish()?;
    narrator.held();
    Ok(())
}

/// The bridge's process, which connects by itself: it needs the directory and the right to hand in devices.
struct Seat {
    child: Child,
}

impl Seat {
    fn start(stage: &Stage, screen: &Path) -> Result<Self, Failed> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["seat", "--backend", "headless"])
            .arg("--socket")
            .arg(stage.socket_path())
            .arg("--screenshot")
            .arg(screen);
        command.args(["--keys", TYPED]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut seat = Seat { child: command.spawn()? };
        let mut line = String::new();
        if let Some(output) = seat.child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        if line.trim().is_empty() {
            return Err(Failed("the bridge did not come up".into()));
        }
        Ok(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tells the compositor of the application, by a capability to that process.
fn introduce(stage: &Stage, inbox: &keyway::Capability, application: &Actor) -> Result<(), Failed> {
    let carried = [Carried::Copy(&application.process, Rights::WATCH | Rights::GRANT)];
    let payload = application.pid().to_le_bytes();
    let message = Outgoing { payload: &payload, capabilities: &carried, ..Outgoing::default() };
    Ok(stage.client.open_sender(inbox)?.send_message(&message)?)
}

/// A handle of this process whose slot no other process has filled.
fn highest_handle(stage: &Stage) -> Result<Handle, Failed> {
    let handles = stage.client.capabilities()?.into_iter().map(|entry| entry.handle);
    handles.max_by_key(|handle| handle.slot()).ok_or(Failed("the tour holds nothing".into()))
}

fn hear_compositor(stage: &mut Stage, narrator: &mut Narrator, compositor: &mut Actor) -> Result<(), Failed> {
    match stage.hear(compositor)?.0 {
        Report::Composed { register_ns, input_grant_ns, gpu_grant_ns, mode_set, bridge } => {
            narrator.fact(&format!(
                "a compositor (pid {}) has registered, taken the keyboard and set the mode",
                compositor.pid()
            ));
            narrator.time("bridge round trip, p50", bridge.p50_ns);
            narrator.time("bridge round trip, p99", bridge.p99_ns);
            narrator.time("registration of the compositor", register_ns);
            narrator.time("grant: keyboard, with its descriptor", input_grant_ns);
            narrator.time("grant: GPU", gpu_grant_ns);
            narrator.time("mode set, headless, p50", mode_set.p50_ns);
            narrator.time("mode set, headless, p99", mode_set.p99_ns);
        }
        other => return Err(Failed(format!("expected the compositor's figures, heard {other:?}"))),
    }
    match stage.hear(compositor)?.0 {
        Report::Typed(text) if text == TYPED => {
            narrator.fact(&format!("what was typed on the virtual keyboard reached it: {text:?}"));
            Ok(())
        }
        other => Err(Failed(format!("expected {TYPED:?} from the keyboard, heard {other:?}"))),
    }
}

/// Compares the picture that the bridge saved with what the two said that they drew.
fn look_at_screen(
    stage: &mut Stage,
    narrator: &mut Narrator,
    compositor: &mut Actor,
    screen: &Path,
    pixel: u32,
) -> Result<(), Failed> {
    let (x, y, background) = match stage.hear(compositor)?.0 {
        Report::Shown { x, y, background } => (x, y, background),
        other => return Err(Failed(format!("expected a picture, heard {other:?}"))),
    };
    let picture = Picture::read(screen)?;
    let found = [picture.at(x, y), picture.at(x + WINDOW.0 - 1, y + WINDOW.1 - 1)];
    let around = [picture.at(x - 1, y), picture.at(x + WINDOW.0, y)];
    if found != [Some(pixel); 2] || around != [Some(background); 2] {
        return Err(Failed(format!(
            "the screen shows {found:06x?} inside and {around:06x?} around; drawn were {pixel:06x} and {background:06x}"
        )));
    }
    narrator.fact(&format!(
        "the screen of {}x{} shows the application's surface where the compositor put it, pixel by pixel",
        picture.width, picture.height
    ));
    Ok(())
}

fn measure_memory(
    stage: &mut Stage,
    narrator: &mut Narrator,
    memory_before: u64,
    seat: &Seat,
) -> Result<(), Failed> {
    let mut bystanders = Vec::new();
    for _ in 0..BYSTANDERS {
        let prepared = stage.prepare(Role::Bystander, &[])?;
        let mut bystander = Stage::start(Role::Bystander, prepared)?;
        stage.hear(&mut bystander)?;
        bystanders.push(bystander);
    }
    let connected = stage.client.processes()?.len();
    let grown = memory_use(std::process::id())?.anonymous_bytes.saturating_sub(memory_before);
    let name = format!(
        "private memory that this process with its broker has taken since it began, {connected} sessions"
    );
    narrator.figure(&name, grown as f64, "bytes", crate::table::bytes(grown));
    let seat_bytes = memory_use(seat.child.id())?.anonymous_bytes;
    narrator.figure(
        "private memory: the bridge's process, without its screens",
        seat_bytes as f64,
        "bytes",
        crate::table::bytes(seat_bytes),
    );
    Ok(())
}

/// A picture that the bridge has saved.
struct Picture {
    width: u32,
    height: u32,
    bytes_per_pixel: usize,
    bytes: Vec<u8>,
}

impl Picture {
    fn read(path: &Path) -> Result<Self, Failed> {
        let mut reader = png::Decoder::new(BufReader::new(File::open(path)?)).read_info()?;
        let size = reader.output_buffer_size().ok_or(Failed("a picture too large".into()))?;
        let mut bytes = vec![0; size];
        let info = reader.next_frame(&mut bytes)?;
        let bytes_per_pixel = info.color_type.samples();
        Ok(Picture { width: info.width, height: info.height, bytes_per_pixel, bytes })
    }

    /// The colour at a place, as 0xRRGGBB.
    fn at(&self, x: u32, y: u32) -> Option<u32> {
        let at = (y as usize * self.width as usize + x as usize) * self.bytes_per_pixel;
        let [red, green, blue] = self.bytes.get(at..at + 3)?.try_into().ok()?;
        Some(u32::from_be_bytes([0, red, green, blue]))
    }
}
