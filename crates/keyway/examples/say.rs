//! Says something to whoever has published a name: its arguments, or else each line that it reads.
//!
//! ```text
//! say NAME [--every MILLISECONDS] [WORDS...]
//! ```
//!
//! With `--every` it says the same again and again, until it is killed or nobody listens any more.

use std::{env, error::Error, io, process::ExitCode, thread, time::Duration};

use keyway::{Client, Sender};

const USAGE: &str = "usage: say NAME [--every MILLISECONDS] [WORDS...]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("say: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1).peekable();
    let name = arguments.next().ok_or(USAGE)?;
    let mut every = None;
    if arguments.peek().is_some_and(|argument| argument == "--every") {
        let milliseconds = arguments.nth(1).ok_or(USAGE)?;
        every = Some(Duration::from_millis(milliseconds.parse()?));
    }
    let words: Vec<String> = arguments.collect();
    let client = Client::connect()?;
    let mut sender = client.open_sender(&client.lookup(&name)?)?;
    match every {
        Some(pause) => loop {
            say(&mut sender, &words.join(" "))?;
            thread::sleep(pause);
        },
        None if words.is_empty() => {
            for line in io::stdin().lines() {
                say(&mut sender, &line?)?;
            }
        }
        None => say(&mut sender, &words.join(" "))?,
    }
    Ok(())
}

fn say(sender: &mut Sender, text: &str) -> Result<(), keyway::Error> {
    sender.send(text.as_bytes())?;
    println!("said: {text}");
    Ok(())
}
