//! An echo over tokio: one task serves, several ask, all in one thread.
//!
//!     cargo run -p keyway-tokio --example async_echo
//!
//! The broker runs in this program, so that there is nothing to start first; with `Client::connect()` in place of the two
//! sessions the same tasks run in two programs.

use keyway::{Client, Embedded, Error, QueueOptions, Rights, abi::request::Audience};
use keyway_tokio::{AsyncQueue, AsyncSender};

/// What each asker sends and gets back.
const ROUNDS: usize = 1000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let broker = Embedded::start()?;
    let server = Client::over(broker.connect()?)?;
    let queue = server.create_queue(QueueOptions::default())?;
    let _published = server.publish("echo", queue.capability(), Rights::SEND, Audience::Everyone)?;
    let serving = tokio::spawn(serve(server.clone(), AsyncQueue::new(queue)?));
    let asking: Vec<_> = ["red", "green", "blue"].map(|colour| (colour, broker.connect())).into();
    let mut tasks = Vec::new();
    for (colour, socket) in asking {
        tasks.push(tokio::spawn(ask(Client::over(socket?)?, colour)));
    }
    for task in tasks {
        println!("{}", task.await.expect("no task panics")?);
    }
    serving.abort();
    Ok(())
}

/// Sends each message back to the queue that its sender has published under its own name.
async fn serve(client: Client, mut queue: AsyncQueue) -> Result<(), Error> {
    let mut back = std::collections::BTreeMap::new();
    loop {
        let message = queue.receive().await?;
        let sender = match back.entry(message.lane) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            // The first message of a lane says where its answers go.
            std::collections::btree_map::Entry::Vacant(entry) => {
                let name = String::from_utf8_lossy(&message.payload).into_owned();
                entry.insert(AsyncSender::new(client.open_sender(&client.lookup(&name)?)?)?);
                continue;
            }
        };
        sender.send(&message.payload).await?;
    }
}

async fn ask(client: Client, colour: &'static str) -> Result<String, Error> {
    let queue = client.create_queue(QueueOptions::default())?;
    let _published = client.publish(colour, queue.capability(), Rights::SEND, Audience::Everyone)?;
    let mut answers = AsyncQueue::new(queue)?;
    let mut sender = AsyncSender::new(client.open_sender(&client.lookup("echo")?)?)?;
    sender.send(colour.as_bytes()).await?;
    for round in 0..ROUNDS {
        let question = format!("{colour} {round}");
        sender.send(question.as_bytes()).await?;
        let answer = answers.receive().await?;
        assert_eq!(answer.payload, question.as_bytes());
    }
    Ok(format!("{colour}: {ROUNDS} echoes"))
}
