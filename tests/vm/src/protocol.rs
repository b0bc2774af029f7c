//! What the guest says to the host and what it is answered: one JSON object a line.
//!
//! The guest speaks, the host answers each line by one. Lines have numbers, so that the answer to somebody who was killed
//! while waiting is not taken for another's.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The name of the port between the two.
pub const PORT: &str = "keyway.dialogue";

/// A line with its number; an answer has that of what it answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Line<T> {
    pub number: u64,
    pub says: T,
}

/// A screen of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Display {
    /// The first output of virtio-gpu.
    Virtio,
    /// bochs-display.
    Bochs,
}

impl Display {
    /// The id of its device in QEMU.
    pub fn id(self) -> &'static str {
        match self {
            Display::Virtio => "gpu0",
            Display::Bochs => "gpu1",
        }
    }
}

/// A pixel as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pixel {
    pub x: u32,
    pub y: u32,
    pub rgb: [u8; 3],
}

impl fmt::Display for Pixel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [red, green, blue] = self.rgb;
        write!(f, "({red}, {green}, {blue}) at {}, {}", self.x, self.y)
    }
}

/// What the guest says. Pictures have names, without an extension.
#[derive(Debug, Serialize, Deserialize)]
pub enum Told {
    /// It is up, and has these scenarios. Answered by [`Answer::Run`].
    Booted { scenarios: Vec<String> },
    /// A scenario begins.
    Begins { scenario: String },
    /// A process of this scenario has written this. Comes before the scenario's end.
    Log { name: String, text: String },
    /// A scenario has come to a good end.
    Passed { scenario: String },
    /// A scenario has come to a bad end.
    Failed { scenario: String, why: String },
    /// There are no more scenarios; the guest powers off.
    Done,
    /// Keep a picture of what a screen shows.
    Screenshot { display: Display, name: String },
    /// A screen shows a picture of this size with these pixels, at once or soon. The last picture is kept.
    Pixels { display: Display, name: String, size: (u32, u32), expect: Vec<Pixel> },
    /// Show these lines to whoever started the run, and keep them.
    Figures { lines: Vec<String> },
    /// Compare two pictures that were kept. Answered by [`Answer::Differ`].
    Compare { first: String, second: String },
    /// Press and release keys one after the other, named as QEMU's qcodes: "a", "ret", "ctrl+alt+f2".
    Keys { keys: Vec<String> },
    /// Move the tablet's pointer: of both axes, 0 is the beginning and [`TABLET_END`] the end.
    Tablet { x: u16, y: u16 },
}

/// The largest coordinate of the tablet.
pub const TABLET_END: u16 = 0x7fff;

/// What the host answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// It is done, or it is so.
    Done,
    /// It is not so, or cannot be done.
    Wrong { why: String },
    /// Run these scenarios, in this order, none of them longer than so many seconds.
    Run { scenarios: Vec<String>, limit_seconds: u64 },
    /// So many pixels differ.
    Differ { pixels: u64 },
}
