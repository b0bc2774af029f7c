//! The first program: a broker, a queue, one message.

use keyway::{Client, Embedded, QueueOptions};

fn main() -> Result<(), keyway::Error> {
    let broker = Embedded::start()?; // or `Client::connect()` to one that runs
    let client = Client::over(broker.connect()?)?;

    let mut queue = client.create_queue(QueueOptions::default())?;
    let capability = queue.sender_capability(None)?; // the right to send: pass it on as you like
    let mut sender = client.open_sender(&capability)?;

    sender.send(b"hello")?;
    let message = queue.receive()?;
    println!("{} from process {}", String::from_utf8_lossy(&message.payload), message.sender.pid);
    Ok(())
}
