//! A broker that does what the kernel asks: late, sometimes refused, and in any order between processes.
//!
//! Memory, pages and sockets are made (or refused) when the kernel asks for them; the answers come later. A session's
//! answers stay in order, and a process's first page is answered before anything else of it is handled, because a real
//! broker makes it before it reads the session's first frame.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    fmt::Write as _,
};

use keyway_abi::{Event, Fault, ProcessNumber, Reply};
use keyway_kernel::{Answer, Descriptor, Effect, Kernel, Outgoing, PairKind, Refusal, Token};

use crate::{
    journal::{Entry, Hash, Input, Journal},
    promises::{Broken, Promises},
    random::Random,
};

/// What the kernel's effects mean for the processes.
#[derive(Debug)]
pub(crate) enum News {
    /// A frame for a process.
    Frame(ProcessNumber, Outgoing),
    /// A confined child has its end of a socket.
    ChildStarted(ProcessNumber),
    /// A session is over.
    Ended(ProcessNumber),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) kernel: Kernel,
    pub(crate) journal: Journal,
    pub(crate) promises: Promises,
    pub(crate) effects_hash: Hash,
    pub(crate) effects: u64,
    /// How often each reply, denial and event was sent, by its first words.
    pub(crate) sent: BTreeMap<String, u64>,
    /// Once in so many times Linux refuses; 0 is never.
    pub(crate) refuses: usize,
    pub(crate) now_ns: u64,
    answers: BTreeMap<ProcessNumber, VecDeque<Answer>>,
    urgent: VecDeque<Answer>,
}

const NO_MEMORY: i32 = 12;
const BUSY: i32 = 16;
const NOT_PERMITTED: i32 = 1;
/// The time between two inputs.
const STEP_NS: u64 = 1000;
const BAD_DESCRIPTOR: i32 = 9;

impl Broker {
    pub(crate) fn new() -> Self {
        Broker {
            kernel: Kernel::default(),
            journal: Journal::default(),
            promises: Promises::default(),
            effects_hash: Hash::default(),
            effects: 0,
            sent: BTreeMap::new(),
            refuses: 0,
            now_ns: 0,
            answers: BTreeMap::new(),
            urgent: VecDeque::new(),
        }
    }

    /// Gives an input to the kernel on behalf of `owner`, does what it asks for, and checks everything. Returns the
    /// process that came to be.
    pub(crate) fn give(
        &mut self,
        random: &mut Random,
        owner: ProcessNumber,
        input: Input,
        news: &mut Vec<News>,
    ) -> Result<Option<ProcessNumber>, Broken> {
        if let Input::Request(process, call, request, device) = &input {
            let now_ns = self.now_ns + STEP_NS;
            self.promises.on_request(*process, *call, request.clone(), *device, now_ns);
        }
        let arrived = self.give_one(random, owner, input, news)?;
        while let Some(answer) = self.urgent.pop_front() {
            self.give_one(random, owner, Input::Answer(answer), news)?;
        }
        Ok(arrived)
    }

    /// Whether the broker's timer would have fired.
    pub(crate) fn is_expiry_due(&self) -> bool {
        self.kernel.next_expiry_ns().is_some_and(|at| at <= self.now_ns)
    }

    /// Whether a process has arrived and not ended.
    pub(crate) fn is_there(&self, process: ProcessNumber) -> bool {
        !self.promises.has_ended(process)
    }

    /// Processes that wait for an answer.
    pub(crate) fn waiting(&self) -> Vec<ProcessNumber> {
        self.answers.keys().copied().collect()
    }

    /// Gives the kernel the oldest answer for a process.
    pub(crate) fn answer(
        &mut self,
        random: &mut Random,
        owner: ProcessNumber,
        news: &mut Vec<News>,
    ) -> Result<(), Broken> {
        let Some(answers) = self.answers.get_mut(&owner) else { return Ok(()) };
        let answer = answers.pop_front();
        if answers.is_empty() {
            self.answers.remove(&owner);
        }
        match answer {
            Some(answer) => self.give(random, owner, Input::Answer(answer), news).map(|_| ()),
            None => Ok(()),
        }
    }

    fn give_one(
        &mut self,
        random: &mut Random,
        owner: ProcessNumber,
        input: Input,
        news: &mut Vec<News>,
    ) -> Result<Option<ProcessNumber>, Broken> {
        self.now_ns += STEP_NS;
        let entry = Entry { now_ns: self.now_ns, input };
        self.journal.entries.push(entry.clone());
        let (arrived, effects) = entry.give_to(&mut self.kernel);
        self.kernel.audit();
        for effect in effects {
            self.effects += 1;
            self.effects_hash.add(&effect);
            self.promises.on_effect(&effect)?;
            self.perform(random, owner, effect, news)?;
        }
        self.promises.on_quiet()?;
        Ok(arrived)
    }

    fn perform(
        &mut self,
        random: &mut Random,
        owner: ProcessNumber,
        effect: Effect,
        news: &mut Vec<News>,
    ) -> Result<(), Broken> {
        let refused = self.refuses > 0 && random.once_in(self.refuses);
        let outcome = if refused { Err(Refusal::System(NO_MEMORY)) } else { Ok(()) };
        let (task, outcome) = match effect {
            Effect::CreateMemory { task, first, count, .. } => {
                let tokens = (first.0..).map(Token).take(count as usize);
                tokens.for_each(|token| self.promises.on_memory(token, !refused));
                (task, outcome)
            }
            Effect::SealMemory { task, tokens, .. } => {
                let there = tokens.iter().all(|token| self.promises.is_there(*token));
                let wrong = Fault::SealsWrong { found: 0, expected: 15 };
                let outcome = match outcome {
                    Ok(()) if !there => Err(Refusal::System(BAD_DESCRIPTOR)),
                    Err(_) if random.once_in(2) => Err(Refusal::Fault(wrong)),
                    outcome => outcome,
                };
                (task, outcome)
            }
            Effect::CreatePage { task, process, page } => {
                if !refused {
                    self.promises.on_page(process, page)?;
                }
                if page == 0 {
                    self.urgent.push_back(Answer { task, outcome });
                    return Ok(());
                }
                (task, outcome)
            }
            Effect::CreateDoorbell { task, token } => {
                self.promises.on_doorbell(token, !refused);
                (task, outcome)
            }
            Effect::CreatePair { task, .. } | Effect::Signal { task, .. } => (task, outcome),
            Effect::Send { to, frame, descriptors } => {
                for descriptor in descriptors {
                    if let Descriptor::PairEnd(child, PairKind::Session) = descriptor {
                        news.push(News::ChildStarted(child));
                    }
                }
                *self.sent.entry(first_words(&frame)).or_default() += 1;
                news.push(News::Frame(to, frame));
                return Ok(());
            }
            Effect::EndSession { process, .. } => {
                news.push(News::Ended(process));
                return Ok(());
            }
            Effect::FreezeMemory { task, token, .. } => {
                let there = self.promises.is_there(token);
                let refused = Err(Refusal::System([BUSY, NOT_PERMITTED][random.below(2)]));
                let outcome = if there && !random.once_in(3) { Ok(()) } else { refused };
                (task, outcome)
            }
            // Nothing fails when a descriptor is closed.
            Effect::DropDevice { task, .. } => (task, Ok(())),
            Effect::DropMemory { .. }
            | Effect::DropPage { .. }
            | Effect::DropDoorbell { .. }
            | Effect::SetWord { .. } => return Ok(()),
        };
        self.answers.entry(owner).or_default().push_back(Answer { task, outcome });
        Ok(())
    }
}

/// The name of the variant that a frame is.
fn first_words(frame: &Outgoing) -> String {
    match frame {
        Outgoing::Reply(_, Reply::Denied(denial)) => variant("", denial),
        Outgoing::Reply(_, reply) => variant("", reply),
        Outgoing::Event(Event::LanesEnded { why, .. }) => variant("LanesEnded", why),
        Outgoing::Event(Event::LaneOpened { bearer, .. }) => variant("LaneOpened", bearer),
        Outgoing::Event(event) => variant("", event),
    }
}

fn variant(prefix: &str, value: &dyn fmt::Debug) -> String {
    let mut name = Variant(prefix.to_owned());
    // Ends early, by design, when the name is complete.
    let _ = write!(name, "{value:?}");
    name.0
}

/// Takes the first word of what is written, and refuses the rest.
struct Variant(String);

impl fmt::Write for Variant {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = text.find(|character: char| !character.is_alphanumeric());
        self.0.push_str(&text[..end.unwrap_or(text.len())]);
        if end.is_some() { Err(fmt::Error) } else { Ok(()) }
    }
}
