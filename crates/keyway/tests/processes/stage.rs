//! A broker in a process of its own, and somebody who watches what it knows.

use std::{
    env, fs,
    os::fd::OwnedFd,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use keyway::{Client, Embedded, Queue, QueueOptions, Rights};

use crate::players::{self, PATIENCE, Part, Player};

/// See the module.
pub(crate) struct Stage {
    pub(crate) broker: Player,
    pub(crate) witness: Client,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

/// What a broker has of its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footprint {
    descriptors: usize,
    mappings: usize,
}

/// Is a broker, until it is killed.
pub(crate) fn serve(part: &Part) {
    let _broker = Embedded::start_at(part.argument.as_ref()).unwrap();
    players::say("ready");
    players::stay();
}

impl Stage {
    pub(crate) fn begin() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("broker.sock");
        let mut broker = Player::start("broker", path.to_str().unwrap(), "");
        assert_eq!(broker.hear(), "ready");
        let witness = Client::connect_to(&path).unwrap();
        Stage { broker, witness, path, _directory: directory }
    }

    /// A session of the test itself.
    pub(crate) fn client(&self) -> Client {
        Client::connect_to(&self.path).unwrap()
    }

    /// Another process.
    pub(crate) fn player(&self, role: &str, argument: &str) -> Player {
        Player::start(role, argument, self.path.to_str().unwrap())
    }

    /// Another process, in a time namespace of its own whose monotonic clock goes by so many seconds differently.
    pub(crate) fn player_by_another_clock(&self, role: &str, offset_seconds: i64) -> Player {
        let mut command = Command::new("unshare");
        command.args(["--time", &format!("--monotonic={offset_seconds}")]).arg(env::current_exe().unwrap());
        Player::start_by(command, role, "", self.path.to_str().unwrap())
    }

    /// Another process that inherits something: see `Player::start_with`.
    pub(crate) fn player_with(&self, role: &str, argument: &str, inherit: OwnedFd) -> Player {
        Player::start_with(role, argument, self.path.to_str().unwrap(), vec![inherit])
    }

    /// Whether the broker has a session of a process with this pid.
    pub(crate) fn knows(&self, pid: u32) -> bool {
        self.witness.processes().unwrap().iter().any(|entry| entry.pid == pid)
    }

    /// Waits until the broker knows nothing of a process: neither it, nor a queue or a lane of it.
    pub(crate) fn forgets(&self, pid: u32) {
        eventually("the broker forgets the process", || !self.knows(pid));
        eventually("its queues are gone", || {
            self.witness.queues().unwrap().iter().all(|queue| queue.receiver_pid != pid)
        });
        eventually("its lanes are gone", || {
            self.witness.lanes().unwrap().iter().all(|lane| lane.sender_pid != pid && lane.sender_pid != 0)
        });
    }

    /// What the broker has once it has nothing more to close: it closes some things in threads apart.
    pub(crate) fn footprint(&self) -> Footprint {
        let mut now = self.look();
        let deadline = Instant::now() + PATIENCE;
        loop {
            thread::sleep(Duration::from_millis(20));
            let before = std::mem::replace(&mut now, self.look());
            if before == now {
                return now;
            }
            assert!(Instant::now() < deadline, "never at rest: {before:?}, {now:?}");
        }
    }

    fn look(&self) -> Footprint {
        // What others asked before is done once this is answered.
        self.witness.processes().unwrap();
        let pid = self.broker.pid();
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        Footprint {
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            mappings: maps.lines().filter(|line| line.contains("memfd:keyway")).count(),
        }
    }

    /// Waits until the broker has again what it had, and no more.
    ///
    /// It may have fewer descriptors: on a busy machine the thread that closes may stand still for longer than
    /// `footprint` looks, and what it had yet to close was counted then.
    /// A session that goes on may have come to two more pages than it had: a broker word is never used twice, so a
    /// thousand lanes use a page up, and the next is made before that.
    pub(crate) fn shrinks_to(&self, before: Footprint) {
        let is_back = |now: Footprint| {
            now.descriptors <= before.descriptors
                && (before.mappings..=before.mappings + 2).contains(&now.mappings)
        };
        let mut now = self.look();
        let deadline = Instant::now() + PATIENCE;
        while !is_back(now) {
            assert!(Instant::now() < deadline, "{now:?} instead of {before:?}");
            thread::sleep(Duration::from_millis(5));
            now = self.look();
        }
    }
}

/// A queue that everyone can find under this name for as long as both values are kept. Its stock is always one, so that
/// footprints can be compared.
pub(crate) fn open_inbox(client: &Client, name: &str) -> (Queue, keyway::Capability) {
    publish(client, name, QueueOptions { stock: 1, ..QueueOptions::default() })
}

/// A queue under a name.
pub(crate) fn publish(client: &Client, name: &str, options: QueueOptions) -> (Queue, keyway::Capability) {
    let queue = client.create_queue(options).unwrap();
    let rights = Rights::SEND | Rights::GRANT | Rights::DERIVE;
    let name = client.publish(name, queue.capability(), rights, keyway::Audience::Everyone).unwrap();
    (queue, name)
}

/// Waits until it holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Numbers from a seed (splitmix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % bound
    }
}
