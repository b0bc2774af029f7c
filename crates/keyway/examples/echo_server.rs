//! Answers calls: whatever `echo_call` asks comes back in capitals.
//!
//! ```text
//! keyway serve &
//! cargo run -p keyway --example echo_server &
//! cargo run -p keyway --example echo_call -- hello
//! ```

use std::error::Error;

use keyway::{Audience, Client, Error as KeywayError, Outgoing, QueueOptions, Rights};

fn main() -> Result<(), Box<dyn Error>> {
    let client = Client::connect()?;
    let mut queue = client.create_queue(QueueOptions::default())?;
    let _name = client.publish("echo", queue.capability(), Rights::SEND, Audience::Everyone)?;
    println!("answering calls to `echo`");
    loop {
        let message = queue.receive()?;
        // One who only sends waits for no answer.
        let Some(to) = message.reply_to else { continue };
        let answer = message.payload.to_ascii_uppercase();
        match queue.reply(to, &Outgoing::bytes(&answer)) {
            Ok(()) => println!("answered process {}", message.sender.pid),
            // A caller that is gone, or that takes no answers, is no reason to stop.
            Err(error @ (KeywayError::NoReplyExpected | KeywayError::WouldBlock)) => println!("{error}"),
            Err(error) if error.is_lane_end() => println!("{error}"),
            Err(error) => return Err(error.into()),
        }
    }
}
