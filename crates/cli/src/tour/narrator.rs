//! What people see of the tour: plain words on a pipe, a little more on a terminal, or JSON at the end.

use std::{
    io::{IsTerminal, stdout},
    time::Duration,
};

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::table::{self, Align};

/// How to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Text,
    Json,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Narrator {
    manner: Manner,
    scenes: Vec<Scene>,
    figures: Vec<Figure>,
}

#[derive(Debug, Serialize)]
struct Scene {
    name: String,
    facts: Vec<String>,
    refusals: Vec<Refusal>,
    held: bool,
}

#[derive(Debug, Serialize)]
struct Refusal {
    tried: String,
    answer: String,
}

#[derive(Debug, Serialize)]
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    #[serde(skip)]
    text: String,
}

#[derive(Serialize)]
struct Told<'n> {
    version: &'static str,
    held: bool,
    seconds: f64,
    scenes: &'n [Scene],
    figures: &'n [Figure],
}

const HEADING: Style = AnsiColor::Cyan.on_default().bold();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const QUIET: Style = Style::new().dimmed();

impl Narrator {
    pub(super) fn new(manner: Manner) -> Self {
        Narrator { manner, scenes: Vec::new(), figures: Vec::new() }
    }

    pub(super) fn open(&self) {
        self.say(&format!(
            "{HEADING}Keyway {}{HEADING:#}: the tour. A broker in this process, and child processes of their own.",
            env!("CARGO_PKG_VERSION")
        ));
    }

    /// Begins a scene.
    pub(super) fn scene(&mut self, name: &str) {
        let number = self.scenes.len() + 1;
        self.say(&format!("\n{HEADING}{number}. {name}{HEADING:#}"));
        self.scenes.push(Scene { name: name.into(), facts: Vec::new(), refusals: Vec::new(), held: false });
    }

    /// Says what happens, or what was found.
    pub(super) fn fact(&mut self, text: &str) {
        self.say(&format!("   {text}"));
        if let Some(scene) = self.scenes.last_mut() {
            scene.facts.push(text.into());
        }
    }

    /// Something was refused, as it must be.
    pub(super) fn refused(&mut self, tried: &str, answer: &str) {
        self.say(&format!("   {GOOD}refused{GOOD:#}  {tried}: {QUIET}{answer}{QUIET:#}"));
        if let Some(scene) = self.scenes.last_mut() {
            scene.refusals.push(Refusal { tried: tried.into(), answer: answer.into() });
        }
    }

    /// The scene held.
    pub(super) fn held(&mut self) {
        if let Some(scene) = self.scenes.last_mut() {
            scene.held = true;
        }
    }

    /// Keeps a figure for the table at the end.
    pub(super) fn figure(&mut self, name: &str, value: f64, unit: &'static str, text: String) {
        self.figures.push(Figure { name: name.into(), value, unit, text });
    }

    /// Keeps a time for the table at the end.
    pub(super) fn time(&mut self, name: &str, value_ns: u64) {
        self.figure(name, value_ns as f64, "ns", table::nanoseconds(value_ns));
    }

    /// Shows how far something is, on a terminal.
    pub(super) fn progress(&self, total: u64, what: &str) -> ProgressBar {
        let bar = ProgressBar::new(total);
        if self.manner == Manner::Json || !stdout().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        if let Ok(style) = ProgressStyle::with_template("   {bar:30.cyan} {human_pos} of {human_len} {msg}") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar
    }

    /// The tour stops here.
    pub(super) fn failed(&self, why: &str) {
        match self.manner {
            Manner::Text => anstream::eprintln!("   {BAD}failed{BAD:#}   {why}"),
            Manner::Json => eprintln!("keyway: {why}"),
        }
    }

    /// Shows what was measured. Tells whether every scene held.
    pub(super) fn finish(&self, elapsed: Duration) -> bool {
        let held = !self.scenes.is_empty() && self.scenes.iter().all(|scene| scene.held);
        if self.manner == Manner::Json {
            let (scenes, figures) = (&self.scenes[..], &self.figures[..]);
            let seconds = elapsed.as_secs_f64();
            let told = Told { version: env!("CARGO_PKG_VERSION"), held, seconds, scenes, figures };
            return table::print_json(&told).is_ok() && held;
        }
        if !self.figures.is_empty() {
            let rows: Vec<Vec<String>> =
                self.figures.iter().map(|figure| vec![figure.name.clone(), figure.text.clone()]).collect();
            let columns = [("MEASURED HERE", Align::Left), ("", Align::Right)];
            self.say(&format!("\n{}", table::render(&columns, &rows)));
        }
        let seconds = elapsed.as_secs_f64();
        if held {
            self.say(&format!("\n{GOOD}Every step held{GOOD:#}, in {seconds:.1} s."));
        } else {
            self.say(&format!("\n{BAD}Not every step held{BAD:#}, after {seconds:.1} s."));
        }
        held
    }

    fn say(&self, text: &str) {
        if self.manner == Manner::Text {
            anstream::println!("{text}");
        }
    }
}
