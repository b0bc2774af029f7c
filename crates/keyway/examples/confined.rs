//! A confined child: it begins with one capability, and that is all that it can do.
//!
//! ```text
//! cargo run -p keyway --example confined
//! ```
//!
//! The program runs a broker of its own and starts itself once more as the child, under a filter that refuses sockets.

use std::{env, error::Error, os::unix::net::UnixStream, time::Duration};

use keyway::{Badge, Client, Confined, Embedded, Incoming, QueueOptions, Rights};

/// The word that makes this program the child.
const CHILD: &str = "as-the-confined-child";

fn main() -> Result<(), Box<dyn Error>> {
    if env::args().nth(1).as_deref() == Some(CHILD) { child() } else { parent() }
}

fn parent() -> Result<(), Box<dyn Error>> {
    let broker = Embedded::start()?;
    let client = Client::over(broker.connect()?)?;
    let mut queue = client.create_queue(QueueOptions::default())?;

    let mut confined = Confined::new(&client, env::current_exe()?)?;
    confined.command().arg(CHILD);
    // The badge is how its messages are known. It cannot forge it.
    confined.give("report", queue.capability(), Rights::SEND, Some(Badge(7)))?;
    let mut started = confined.spawn()?;
    println!("parent: started process {} with one capability, `report`", started.child.id());
    loop {
        match queue.next_timeout(Duration::from_secs(10))? {
            Incoming::Opened(_) => {}
            Incoming::Message(message) => {
                let badge = message.badge.map_or(0, |badge| badge.0);
                println!("parent: badge {badge} says: {}", String::from_utf8_lossy(&message.payload));
            }
            Incoming::Ended { .. } => break,
        }
    }
    println!("parent: the child has ended, {}", started.child.wait()?);
    Ok(())
}

fn child() -> Result<(), Box<dyn Error>> {
    let client = Client::connect()?;
    let mut report = client.open_sender(&client.inherited("report")?)?;
    report.send(b"this is what I was given")?;
    let refusals = [
        ("connect to a socket", UnixStream::connect("/run/anything").err().map(|error| error.to_string())),
        ("look a name up", client.lookup("anything").err().map(|error| error.to_string())),
        ("list the processes", client.processes().err().map(|error| error.to_string())),
    ];
    for (attempt, refusal) in refusals {
        let refusal = refusal.unwrap_or("nobody refused".into());
        report.send(format!("I tried to {attempt}: {refusal}").as_bytes())?;
    }
    Ok(())
}
