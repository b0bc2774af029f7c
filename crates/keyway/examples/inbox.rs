//! An inbox: publishes a queue under a name and prints what comes, from whom, and who comes and goes.
//!
//! ```text
//! keyway serve &
//! cargo run -p keyway --example inbox -- letters
//! cargo run -p keyway --example say -- letters hello
//! ```
//!
//! What it prints of a sender is what Linux told the broker. Kill a sender with `kill -9`, and it is told at once.

use std::{env, error::Error, process::ExitCode, time::Duration};

use keyway::{Audience, Client, Error as KeywayError, Incoming, QueueOptions, Rights};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("inbox: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let name = env::args().nth(1).ok_or("usage: inbox NAME")?;
    let client = Client::connect()?;
    let mut queue = client.create_queue(QueueOptions::default())?;
    // The name is withdrawn when this value is dropped.
    let _name = client.publish(&name, queue.capability(), Rights::SEND, Audience::Everyone)?;
    println!("{name} is open; say something with `say {name} hello`");
    loop {
        match queue.next_timeout(Duration::from_secs(3600)) {
            Ok(Incoming::Opened(peer)) => {
                println!("+ process {} ({}) can send", peer.identity.pid, peer.identity.executable);
            }
            Ok(Incoming::Message(message)) => {
                let text = String::from_utf8_lossy(&message.payload);
                // Escaped: it is another process's text, and this is our terminal.
                println!("  process {}: {}", message.sender.pid, text.escape_debug());
            }
            Ok(Incoming::Ended { peer, why, .. }) => match why {
                KeywayError::LaneEnded { ending, acknowledged, .. } => {
                    println!("- process {}: {ending}; received {acknowledged}", peer.identity.pid);
                }
                fault => println!("- process {}: {fault}", peer.identity.pid),
            },
            Err(KeywayError::TimedOut(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
