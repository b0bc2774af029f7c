//! The bridge on real screens: a mode, pictures, what is taken off, and what comes back when the compositor goes.

use std::{fs, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use keyway::bridge::Rectangle;
use keyway_vm::protocol::Display;

use crate::{
    compositor::{BLACK, Compositor, EVENING, FIRST_MODE, MORNING, OTHER_MODE, paint, pixels},
    stage::Stage,
};

const DISPLAYS: [(Display, &str); 2] = [(Display::Virtio, "virtio"), (Display::Bochs, "bochs")];

const USER: u32 = 1000;

/// On each card: another mode, two pictures one after the other, black when their surface is gone, and the first mode at the end.
pub fn display(stage: &mut Stage) -> Result<()> {
    let _broker = stage.start_broker(&[])?;
    let _bridge = stage.start_bridge(&["--backend", "drm"])?;
    let mut compositor = Compositor::begin()?;
    let mut before = Vec::new();
    for (display, name) in DISPLAYS {
        let connector = compositor.connector(display)?;
        before.push((connector.name.clone(), enabled(&connector.name)?));
        let preferred = connector.modes.first().map(|mode| (mode.width, mode.height));
        ensure!(preferred == Some(FIRST_MODE), "the best mode of {name} is {preferred:?}");
        compositor.set_mode(&connector, OTHER_MODE)?;
        let shown = |kind: &str| format!("display-{name}-{kind}");
        stage.expect_pixels(display, &shown("mode"), OTHER_MODE, &pixels(OTHER_MODE, BLACK))?;

        let first = compositor.surface(OTHER_MODE, MORNING)?;
        compositor.bridge.present_surface(connector.id, first.id(), &[])?;
        stage.expect_pixels(display, &shown("first"), OTHER_MODE, &pixels(OTHER_MODE, MORNING))?;
        let second = compositor.surface(OTHER_MODE, EVENING)?;
        compositor.bridge.present_surface(connector.id, second.id(), &[])?;
        stage.expect_pixels(display, &shown("second"), OTHER_MODE, &pixels(OTHER_MODE, EVENING))?;
        // Of another picture on the same surface one quarter after another is shown, and what is named at no time stays, once
        // both of the screen's memories have the surface.
        let pixel = Rectangle { x: 0, y: 0, width: 1, height: 1 };
        compositor.bridge.present_surface(connector.id, second.id(), &[pixel])?;
        paint(&second, OTHER_MODE, MORNING)?;
        let (width, height) = (OTHER_MODE.0 / 2, OTHER_MODE.1 / 2);
        let mut expected = EVENING;
        for (quarter, x) in [(0, 0), (1, width)] {
            compositor.bridge.present_surface(
                connector.id,
                second.id(),
                &[Rectangle { x, y: 0, width, height }],
            )?;
            expected[quarter] = MORNING[quarter];
            let name = shown(&format!("part-{quarter}"));
            stage.expect_pixels(display, &name, OTHER_MODE, &pixels(OTHER_MODE, expected))?;
        }
        // What is not shown is taken off without a trace.
        compositor.bridge.destroy_surface(first.id())?;
        stage.expect_pixels(display, &shown("still"), OTHER_MODE, &pixels(OTHER_MODE, expected))?;
        compositor.bridge.destroy_surface(second.id())?;
        stage.expect_pixels(display, &shown("gone"), OTHER_MODE, &pixels(OTHER_MODE, BLACK))?;
    }
    compositor.bridge.unregister_compositor()?;
    // The kernel's console is on one screen, and on the other there was nothing; QEMU goes on showing what that showed last.
    stage.expect_pixels(Display::Virtio, "display-virtio-restored", FIRST_MODE, &[])?;
    for (name, was) in before {
        let is = enabled(&name)?;
        ensure!(is == was, "{name} was {was} before there was a compositor, and is {is} after it");
    }
    Ok(())
}

/// Whether a connector shows something, as the kernel says.
fn enabled(connector: &str) -> Result<String> {
    let said = fs::read_to_string(format!("/sys/class/drm/{connector}/enabled"));
    Ok(said.with_context(|| format!("no connector {connector} in sysfs"))?.trim().to_owned())
}

/// A compositor that is killed leaves the screens as they were, and another can begin.
pub fn compositor_dies(stage: &mut Stage) -> Result<()> {
    let _broker = stage.start_broker(&[])?;
    // Of a user who can open none of the devices.
    let _bridge = stage.start_bridge(&["--backend", "drm", "--compositor", &format!("user:{USER}")])?;
    // Whoever is not named may look the door's name up here, and is told by the bridge.
    stage.as_user(USER + 1, "stranger", &[])?;
    for round in ["first", "second"] {
        let mut doomed = stage.start_as_user(USER, "doomed", &[])?;
        doomed.await_line("shown")?;
        let expected = pixels(OTHER_MODE, MORNING);
        stage.expect_pixels(Display::Virtio, &format!("dies-{round}-alive"), OTHER_MODE, &expected)?;
        // By SIGKILL.
        drop(doomed);
        stage.expect_pixels(Display::Virtio, &format!("dies-{round}-dead"), FIRST_MODE, &[])?;
    }
    Ok(())
}

/// Shows something until it is killed.
pub fn doomed(_: &[&str]) -> Result<()> {
    let mut compositor = Compositor::begin()?;
    let connector = compositor.connector(Display::Virtio)?;
    compositor.set_mode(&connector, OTHER_MODE)?;
    let surface = compositor.surface(OTHER_MODE, MORNING)?;
    compositor.bridge.present_surface(connector.id, surface.id(), &[])?;
    println!("shown");
    thread::sleep(Duration::from_secs(60));
    Ok(())
}
