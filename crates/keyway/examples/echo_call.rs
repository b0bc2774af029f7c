//! Calls `echo_server` and waits for the answer, but no longer than its deadline.
//!
//! ```text
//! echo_call [--within MILLISECONDS] WORDS...
//! ```
//!
//! Stop the server with `kill -STOP`, and the call ends at its deadline; kill it, and the call ends at once.

use std::{
    env,
    error::Error,
    process::ExitCode,
    time::{Duration, Instant},
};

use keyway::{Client, Outgoing};

const USAGE: &str = "usage: echo_call [--within MILLISECONDS] WORDS...";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo_call: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1).peekable();
    let mut within = Duration::from_secs(1);
    if arguments.peek().is_some_and(|argument| argument == "--within") {
        within = Duration::from_millis(arguments.nth(1).ok_or(USAGE)?.parse()?);
    }
    let words: Vec<String> = arguments.collect();
    if words.is_empty() {
        return Err(USAGE.into());
    }
    let client = Client::connect()?;
    let mut caller = client.open_caller(&client.lookup("echo")?)?;
    let asked = Instant::now();
    let answer = caller.call(&Outgoing::bytes(words.join(" ").as_bytes()), within)?;
    println!("{} (after {:?})", String::from_utf8_lossy(&answer.payload), asked.elapsed());
    Ok(())
}
