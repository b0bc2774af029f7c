//! The example of a compositor, as a user has it: its picture is on a real screen and moves with the keys of a real keyboard.

use std::{os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result};
use keyway_vm::protocol::{Display, Pixel};

use crate::{
    compositor::FIRST_MODE,
    hardware,
    stage::{SOCKET, Stage},
};

const USER: u32 = 1000;
/// What the example calls so.
const SIDE: u32 = 64;
const ORANGE: [u8; 3] = [255, 128, 0];
const NIGHT: [u8; 3] = [16, 16, 48];

/// By a user who can open none of the devices.
pub fn example(stage: &mut Stage) -> Result<()> {
    let _broker = stage.start_broker(&[])?;
    let _bridge = stage.start_bridge(&["--backend", "drm", "--compositor", &format!("user:{USER}")])?;
    let card = hardware::card(Display::Virtio)?;
    let card = card.file_name().context("a card has a name")?.to_string_lossy().into_owned();
    let mut command = Command::new("/bin/picture");
    command.arg(format!("{card}-")).env("KEYWAY_SOCKET", SOCKET).uid(USER).gid(USER);
    let mut picture = stage.start("picture", &mut command)?;
    let moves: [(&[&str], (u32, u32)); 4] =
        [(&[], (0, 0)), (&["right", "right"], (2, 0)), (&["down"], (2, 1)), (&["left"], (1, 1))];
    for (step, (keys, (column, row))) in moves.into_iter().enumerate() {
        let (x, y) = (column * SIDE, row * SIDE);
        if !keys.is_empty() {
            stage.press(keys)?;
        }
        picture.await_line(&format!("shown at {x},{y}"))?;
        let (far_x, far_y) = (x + SIDE - 1, y + SIDE - 1);
        let inside =
            [(x, y), (far_x, y), (x, far_y), (far_x, far_y)].map(|(x, y)| Pixel { x, y, rgb: ORANGE });
        let outside = [(far_x + 1, y), (x, far_y + 1), (FIRST_MODE.0 - 1, FIRST_MODE.1 - 1)];
        let outside = outside.map(|(x, y)| Pixel { x, y, rgb: NIGHT });
        let expected: Vec<Pixel> = inside.into_iter().chain(outside).collect();
        stage.expect_pixels(Display::Virtio, &format!("example-{step}"), FIRST_MODE, &expected)?;
    }
    stage.press(&["q"])?;
    picture.await_success()
}
