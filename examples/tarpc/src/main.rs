//! A service written for [tarpc](https://docs.rs/tarpc), put on Keyway: only the transport differs from a service over TCP.
//!
//! ```text
//! cargo run --release --manifest-path examples/tarpc/Cargo.toml
//! ```
//!
//! It brings its own broker and starts its two clients itself. Each client asks many questions at a time, whose answers come as
//! they are ready; the service knows which process asks, because the broker told it.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    process::{Child, Command, ExitCode},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future::join_all};
use keyway::{Audience, Client, Embedded};
use keyway_tokio::{Listener, Transport};
use tarpc::{
    client, context,
    server::{BaseChannel, Channel},
};

/// What the service offers. tarpc makes its client, its server and their messages of this.
#[tarpc::service]
trait Words {
    /// How often each of these words has been said by this process, this time included.
    async fn say(words: Vec<String>) -> Vec<u32>;
    /// The pid of who asks, as the broker knows it.
    async fn whoami() -> u32;
}

const NAME: &str = "examples/words";
const CLIENTS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(10);
/// Questions of each client, and how many of them at a time.
const QUESTIONS: u32 = 20_000;
const AT_A_TIME: u32 = 16;

#[tokio::main]
async fn main() -> ExitCode {
    let done = match env::args().nth(1).as_deref() {
        Some("client") => ask().await,
        _ => serve().await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tarpc: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The service.
async fn serve() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("broker.sock");
    let _broker = Embedded::start_at(&socket)?; // or a broker that runs, and `Client::connect()`
    let keyway = Client::connect_to(&socket)?;
    let mut listener = Listener::bind(&keyway, NAME, Audience::Everyone)?;
    let clients: Vec<Child> = (0..CLIENTS)
        .map(|_| Command::new(env::current_exe()?).arg("client").env("KEYWAY_SOCKET", &socket).spawn())
        .collect::<Result<_, _>>()?;
    let serving = tokio::spawn(async move {
        while let Ok(accepted) = listener.accept().await {
            let server = Server { pid: accepted.peer.pid, said: Arc::default() };
            let answers = BaseChannel::with_defaults(accepted.transport).execute(server.serve());
            tokio::spawn(answers.for_each_concurrent(None, |answer| answer));
        }
    });
    for mut client in clients {
        if !tokio::task::spawn_blocking(move || client.wait()).await??.success() {
            return Err("a client has failed".into());
        }
    }
    serving.abort();
    Ok(())
}

/// What the service keeps for one client.
#[derive(Clone)]
struct Server {
    pid: u32,
    said: Arc<Mutex<BTreeMap<String, u32>>>,
}

impl Words for Server {
    async fn say(self, _: context::Context, words: Vec<String>) -> Vec<u32> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = |word| {
            let times = said.entry(word).or_default();
            *times += 1;
            *times
        };
        words.into_iter().map(&mut count).collect()
    }

    async fn whoami(self, _: context::Context) -> u32 {
        self.pid
    }
}

/// A client.
async fn ask() -> Result<(), Box<dyn Error>> {
    let keyway = Client::connect()?;
    let transport = Transport::connect(&keyway, NAME, PATIENCE).await?;
    let service = WordsClient::new(client::Config::default(), transport).spawn();
    let pid = service.whoami(context::current()).await?;
    if pid != std::process::id() {
        return Err(format!("the service takes us for process {pid}").into());
    }
    let began = Instant::now();
    for round in 0..QUESTIONS / AT_A_TIME {
        let question =
            |_| service.say(context::current(), vec!["hello".to_owned(), format!("round {round}")]);
        let mut hellos = Vec::new();
        for answer in join_all((0..AT_A_TIME).map(question)).await {
            hellos.push(answer?[0]);
        }
        hellos.sort_unstable();
        let first = round * AT_A_TIME + 1;
        if hellos != (first..first + AT_A_TIME).collect::<Vec<_>>() {
            return Err(format!("round {round}: {hellos:?}").into());
        }
    }
    let micros = began.elapsed().as_micros() as f64 / f64::from(QUESTIONS);
    println!(
        "process {pid}: {QUESTIONS} calls, {AT_A_TIME} at a time, each answered once; {micros:.1} µs a call"
    );
    Ok(())
}
