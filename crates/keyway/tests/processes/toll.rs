//! The long run of kills: `SIGKILL` at any instruction while messages go through a lane at full speed.
//!
//! One process survives and plays scene after scene with a victim in each; a seed decides what both do and when the victim dies.
//! Whatever has come must be whole and in order, and as many as the victim's own notes allow: not one more, not one less. A session
//! that survives all has in the end what it had in the beginning, and so has the broker.
//!
//! | variable | |
//! |---|---|
//! | `KEYWAY_KILLS` | so many kills at least |
//! | `KEYWAY_KILL_MESSAGES` | and so many messages |
//! | `KEYWAY_KILL_SEED` | the seed of the first scene; each that follows has the next one |

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::process::ExitStatusExt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use keyway::{Acknowledged, Capability, Client, Ending, Error, Incoming, Queue, Sender};

use crate::{
    players::{self, Player, SOON},
    scenes::{Notes, Pace, Scene, Victim},
    stage::{Footprint, Stage, eventually, open_inbox},
    victims::{self, Sending, Taking},
};

/// Also a machine that stands still for a while is waited for.
const FOREVER: Duration = Duration::from_secs(600);
/// Who was told later than this is counted.
const PROMPT: Duration = Duration::from_millis(100);
/// Far above what a wake takes, and far below the half second after which every sleep ends by itself.
const WAKE_MAX: Duration = Duration::from_millis(200);
/// So many scenes lie between two looks at what is left behind.
const LOOK_EVERY: u64 = 100;
/// After so many scenes everything is there that is made once.
const WARM_UP: u64 = 8;

fn variable(name: &str, otherwise: u64) -> u64 {
    env::var(name).map_or(otherwise, |text| text.replace('_', "").parse().unwrap())
}

#[test]
fn killed_at_any_instruction_one_leaves_exactly_what_was_committed() {
    let mut survivor = Player::start("survivor", "", "");
    survivor.listen(FOREVER, |line| println!("{line}"));
    survivor.ends_well();
}

/// Plays the scenes, and tells what came of them.
pub(crate) fn survive() {
    let (kills, messages) = (variable("KEYWAY_KILLS", 60), variable("KEYWAY_KILL_MESSAGES", 0));
    let first = variable("KEYWAY_KILL_SEED", 1);
    let mut run = Run::begin();
    let mut tally = Tally::default();
    let mut before = None;
    for seed in first.. {
        let scene = Scene::of(seed);
        tally.add(scene, &run.play(scene));
        let played = seed - first + 1;
        let is_over = played >= kills && tally.messages >= messages;
        if played == WARM_UP.min(kills) {
            before = Some(run.possessions());
        } else if is_over || played.is_multiple_of(LOOK_EVERY) {
            run.has_no_more_than(before.unwrap());
        }
        if is_over || played.is_multiple_of(1000) {
            players::say(format!("seed {seed}: {played} kills, {} messages", tally.messages));
        }
        if is_over {
            break;
        }
    }
    tally.tell(first);
    players::say(format!("no time was taken in {} scenes, as the survivor stood still", run.stopped));
    let (before, after) = (before.unwrap(), run.possessions());
    players::say(format!("the survivor has {:?}, had {:?}", after.0, before.0));
    players::say(format!("the broker has {:?}, had {:?}", after.1, before.1));
    tally.judge();
}

/// What came of one scene.
struct Outcome {
    /// Messages that arrived and were judged.
    messages: u64,
    /// When the survivor was told, if it had nothing to do but to learn it.
    told_after: Option<Duration>,
    /// The victim died within a call that sends, or takes.
    is_within: bool,
    /// What that call was for was done.
    is_done: bool,
}

/// The session that survives.
struct Run {
    stage: Stage,
    client: Client,
    sink: Queue,
    _name: Capability,
    clock: Heart,
    /// Scenes in which the clock stopped.
    stopped: u64,
}

impl Run {
    fn begin() -> Self {
        let stage = Stage::begin();
        let client = stage.client();
        let (sink, name) = open_inbox(&client, "sink");
        Run { stage, client, sink, _name: name, clock: Heart::begin(), stopped: 0 }
    }

    fn play(&mut self, scene: Scene) -> Outcome {
        self.clock.forget();
        let mut outcome = match scene.victim {
            Victim::Sender => self.play_receiver(scene),
            Victim::Receiver => self.play_sender(scene),
        };
        if self.clock.has_stopped() {
            outcome.told_after = None;
            self.stopped += 1;
        }
        outcome
    }

    /// A victim, and what it notes.
    fn cast(&self, role: &str, scene: Scene) -> (Player, Notes) {
        let (notes, page) = Notes::lay_out();
        (self.stage.player_with(role, &scene.seed.to_string(), page), notes)
    }

    /// The victim sends.
    fn play_receiver(&mut self, scene: Scene) -> Outcome {
        let (mut player, notes) = self.cast("victim that sends", scene);
        if !scene.is_from_birth {
            assert_eq!(player.hear_within(FOREVER), "ready", "{scene:?}");
        }
        let killer = player.kill_after(scene.delay);
        self.sink.set_wait_style(scene.receiver_waits);
        let mut taking = Taking::new(scene);
        let told = self.take_to_the_end(scene, &player, &mut taking, || killer.is_finished());
        let killed = killer.join().unwrap();
        self.is_gone(scene, &mut player);
        // Nothing comes after the end. A victim that died while it opened its lane has used the stock up, which is seen here.
        let more = self.sink.try_next().unwrap();
        assert!(more.is_none(), "{scene:?}: {more:?}");

        let (taken, (surely, at_most)) = (taking.taken, notes.read());
        // A call sends all or nothing.
        assert!(
            taken == surely || taken == at_most,
            "{scene:?}: {taken} came, {surely} to {at_most} were sent"
        );
        Outcome {
            messages: taken,
            told_after: told.map(|told| told.saturating_duration_since(killed)),
            is_within: surely != at_most,
            is_done: taken == at_most,
        }
    }

    /// Receives what was committed, and then the end. Tells when it was told of that, if it was.
    fn take_to_the_end(
        &mut self,
        scene: Scene,
        player: &Player,
        taking: &mut Taking,
        is_killed: impl Fn() -> bool,
    ) -> Option<Instant> {
        let mut has_paused = false;
        loop {
            while taking.taken >= scene.takes_max() && !is_killed() {
                has_paused = true;
                thread::sleep(Duration::from_micros(100));
            }
            match victims::hear(taking, &mut self.sink) {
                Ok(None | Some(Incoming::Opened(_))) => {}
                Ok(Some(Incoming::Ended { peer, why, .. })) => {
                    let is_death = matches!(why, Error::LaneEnded { ending: Ending::PeerDead, acknowledged, .. }
                        if acknowledged == taking.taken);
                    assert!(is_death && peer.identity.pid == player.pid(), "{scene:?}: {why}");
                    return (!has_paused).then(Instant::now);
                }
                Ok(Some(Incoming::Message(message))) => panic!("{scene:?}: {message:?}"),
                Err(Error::TimedOut(_)) => {
                    // It never had a lane, or the end was nothing that this way of taking tells.
                    if !player.is_alive() && self.is_forgotten(player) {
                        return None;
                    }
                }
                Err(error) => panic!("{scene:?}: {error}"),
            }
        }
    }

    fn is_forgotten(&self, player: &Player) -> bool {
        !self.stage.knows(player.pid()) && self.stage.witness.lanes().unwrap().is_empty()
    }

    /// The victim takes.
    fn play_sender(&mut self, scene: Scene) -> Outcome {
        let (mut player, notes) = self.cast("victim that takes", scene);
        assert_eq!(player.hear_within(FOREVER), "ready", "{scene:?}");
        let mut killer = scene.is_from_birth.then(|| player.kill_after(scene.delay / 16));
        let opened = self.client.lookup("drain");
        let opened = opened.and_then(|name| self.client.open_sender_with(&name, scene.sender_options()));
        let mut sender = match opened {
            Ok(sender) => sender,
            // It died first.
            Err(Error::Denied { .. }) if scene.is_from_birth => {
                killer.unwrap().join().unwrap();
                self.is_gone(scene, &mut player);
                return Outcome { messages: 0, told_after: None, is_within: false, is_done: false };
            }
            Err(error) => panic!("{scene:?}: {error}"),
        };
        let killer = killer.take().unwrap_or_else(|| player.kill_after(scene.delay));
        let mut sending = Sending::new(scene, &self.client);
        let error = send_to_the_end(scene, &mut sending, &mut sender);
        let told = Instant::now();
        let killed = killer.join().unwrap();
        let Error::LaneEnded { ending: Ending::PeerDead, acknowledged, sent } = error else {
            panic!("{scene:?}: {error}")
        };
        assert_eq!(sent, sending.sent, "{scene:?}");
        assert_eq!(sender.acknowledged(), Acknowledged { messages: acknowledged, sent }, "{scene:?}");
        if let Some(pool) = &sending.pool {
            // What the dead receiver had not released is free.
            drop(pool.loan_timeout(pool.len_bytes(), FOREVER).unwrap());
        }
        drop((sender, sending));
        self.is_gone(scene, &mut player);

        let (surely, at_most) = notes.read();
        let is_right = (surely..=at_most).contains(&acknowledged) && acknowledged <= sent;
        assert!(is_right, "{scene:?}: {acknowledged} of {sent} acknowledged, {surely} to {at_most} taken");
        Outcome {
            messages: acknowledged,
            told_after: Some(told.saturating_duration_since(killed)),
            is_within: surely != at_most,
            is_done: acknowledged > surely,
        }
    }

    /// It died of the kill and of nothing else, and the broker has forgotten it.
    fn is_gone(&self, scene: Scene, player: &mut Player) {
        let status = player.child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "{scene:?}: the victim ended by itself");
        self.stage.forgets(player.pid());
    }

    fn possessions(&self) -> (Possessions, Footprint) {
        (Possessions::own(), self.stage.footprint())
    }

    fn has_no_more_than(&self, (own, broker): (Possessions, Footprint)) {
        // The threads that listened to the last victims end by themselves.
        eventually("the survivor has no more than it had", || Possessions::own().is_within(own));
        self.stage.shrinks_to(broker);
    }
}

/// Sends until the lane is over, and answers why it is.
fn send_to_the_end(scene: Scene, sending: &mut Sending, sender: &mut Sender) -> Error {
    loop {
        if sending.sent < scene.sends_max() {
            if let Err(error) = sending.send(sender) {
                return error;
            }
        } else if let Some(ending) = sender.ending() {
            return ending;
        } else {
            thread::sleep(Duration::from_micros(50));
        }
    }
}

/// What this process has.
#[derive(Clone, Copy, Debug)]
struct Possessions {
    descriptors: usize,
    /// Mappings of Keyway's.
    shared: usize,
    /// All mappings: the allocator's and the stacks of threads that are kept for the next ones come and go.
    mappings: usize,
}

impl Possessions {
    fn own() -> Self {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        Possessions {
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
            shared: maps.lines().filter(|line| line.contains("memfd:")).count(),
            mappings: maps.lines().count(),
        }
    }

    /// A session that goes on may have come to two more pages of broker words: see `Stage::shrinks_to`.
    fn is_within(self, before: Self) -> bool {
        self.descriptors <= before.descriptors
            && self.shared <= before.shared + 2
            && self.mappings <= before.mappings + 64
    }
}

/// Beats as long as this process runs, and so tells whether it was stopped, or had no processor.
struct Heart {
    longest_us: Arc<AtomicU64>,
}

impl Heart {
    fn begin() -> Self {
        let longest_us = Arc::new(AtomicU64::new(0));
        let heart = Heart { longest_us: Arc::clone(&longest_us) };
        thread::spawn(move || {
            let mut last = Instant::now();
            loop {
                thread::sleep(Duration::from_millis(5));
                let now = Instant::now();
                longest_us.fetch_max((now - last).as_micros() as u64, Ordering::Relaxed);
                last = now;
            }
        });
        heart
    }

    fn forget(&self) {
        self.longest_us.store(0, Ordering::Relaxed);
    }

    fn has_stopped(&self) -> bool {
        // What came last may not have been counted yet.
        thread::sleep(Duration::from_millis(6));
        Duration::from_micros(self.longest_us.load(Ordering::Relaxed)) > PROMPT / 2
    }
}

/// What came of all.
#[derive(Default)]
struct Tally {
    messages: u64,
    within: u64,
    done: u64,
    kinds: BTreeMap<(Victim, String), (u64, u64)>,
    told: BTreeMap<(Victim, &'static str), Vec<Duration>>,
}

impl Tally {
    fn add(&mut self, scene: Scene, outcome: &Outcome) {
        self.messages += outcome.messages;
        self.within += u64::from(outcome.is_within);
        self.done += u64::from(outcome.is_within && outcome.is_done);
        let kind = format!("{:?}", scene.sends);
        let (kills, messages) = self.kinds.entry((scene.victim, kind)).or_default();
        (*kills, *messages) = (*kills + 1, *messages + outcome.messages);
        let pace = match scene.pace {
            Pace::Full => "at full speed",
            Pace::SendsUpTo(_) => "nothing to take",
            Pace::TakesUpTo(_) => "no room",
        };
        self.told.entry((scene.victim, pace)).or_default().extend(outcome.told_after);
    }

    fn tell(&mut self, first: u64) {
        for victim in [Victim::Sender, Victim::Receiver] {
            let of_all = self.kinds.iter().filter(|((killed, _), _)| *killed == victim);
            let (kills, messages) =
                of_all.fold((0, 0), |(kills, messages), (_, (more, also))| (kills + more, messages + also));
            players::say(format!("killed: {kills} of kind {victim:?}, with {messages} messages"));
        }
        for ((victim, sends), (kills, messages)) in &self.kinds {
            players::say(format!("    {victim:?}, {sends}: {kills} kills, {messages} messages"));
        }
        players::say(format!("{} messages in all, from seed {first} on", self.messages));
        players::say(format!("{} died within a call, which was done for {}", self.within, self.done));
        self.told.retain(|_, told| !told.is_empty());
        for ((victim, pace), told) in &mut self.told {
            told.sort();
            let late = told.iter().filter(|told| **told > PROMPT).count();
            players::say(format!(
                "told of a {victim:?}'s death, {pace}: {} times; 50 % in {:.2?}, 99 % in {:.2?}, all in {:.2?}; {late} in more than {PROMPT:?}",
                told.len(),
                quantile(told, 50),
                quantile(told, 99),
                quantile(told, 100),
            ));
        }
    }

    /// Few learned it by chance only.
    fn judge(&self) {
        let mut told: Vec<Duration> = self.told.values().flatten().copied().collect();
        told.sort();
        assert!(quantile(&told, 90) < WAKE_MAX && quantile(&told, 100) < SOON, "{told:?}");
    }
}

/// What so many of a hundred are not above, of sorted ones.
fn quantile(sorted: &[Duration], share: usize) -> Duration {
    sorted.get((sorted.len() * share).div_ceil(100).max(1) - 1).copied().unwrap_or_default()
}
