//! What must be true end to end, judged by what passes between kernel and processes, and by nothing inside the kernel.
//!
//! 1. Each request has one reply, unless its process ended.
//! 2. Nothing is sent to a process that has ended.
//! 3. When a process has ended, each peer of an open lane has been told so once, and its word says so.
//! 4. A lane's end is told once to each end; only a revocation may follow, to the receiver of a lane that drains.
//! 5. A word says its generation once, then a verdict; no verdict is taken back, and only a revocation follows death. It speaks of
//!    another, with a greater generation, only when its process has given up what it spoke of.
//! 6. Who watches is told of the end, once for each capability it watches through.
//! 7. Memory and devices that are sent are there; each is dropped once.
//! 8. What is gone cannot be used, from the moment its revocation began; when that is answered, the words say so.
//! 9. What is promised of signals; see there.
//! 10. Of a doorbell each of two sessions has an end, the asker last; whoever has one is told once when it is over, and it is over when
//!     the other has ended.

use std::collections::{BTreeMap, BTreeSet};

use keyway_abi::{
    Event, Handle, LaneEnd, LaneId, Name, ProcessNumber, Reply, Request, Rights, WordPlace,
    layout::{GENERATION_FIRST, WORD_DEAD, WORD_REVOKED},
    request::EscrowHow,
};
use keyway_kernel::{Call, Descriptor, Effect, Outgoing, Token};

use crate::{
    lineage::{Lineage, Opened},
    signals::Signals,
};

/// A promise that was broken, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken(pub(crate) String);

type Kept = Result<(), Broken>;

macro_rules! require {
    ($held:expr, $($what:tt)*) => {
        if !$held {
            return Err(Broken(format!($($what)*)));
        }
    };
}

/// One end of a lane.
#[derive(Clone, Copy, Debug)]
struct End {
    process: ProcessNumber,
    word: WordPlace,
    /// Why it ended, as this end was told last.
    told: Option<LaneEnd>,
    closed: bool,
}

#[derive(Clone, Debug, Default)]
struct LaneEnds {
    sender: Option<End>,
    receiver: Option<End>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    unanswered: BTreeMap<(ProcessNumber, u32), (Call, Request)>,
    /// Requests that act on what is gone.
    doomed: BTreeSet<(ProcessNumber, u32)>,
    lineage: Lineage,
    signals: Signals,
    ended: BTreeSet<ProcessNumber>,
    lanes: BTreeMap<LaneId, LaneEnds>,
    pages: BTreeMap<(ProcessNumber, u32), BTreeMap<u16, u32>>,
    /// The generation that a word said last.
    generations: BTreeMap<(ProcessNumber, u32, u16), u32>,
    /// Who is watched through which capability, where that is known.
    watches: BTreeMap<(ProcessNumber, Handle), Option<ProcessNumber>>,
    /// Which process a handle is known to name.
    named: BTreeMap<(ProcessNumber, Handle), ProcessNumber>,
    /// Which names are waited for.
    waits: BTreeSet<(ProcessNumber, Name)>,
    memories: BTreeSet<Token>,
    refused: BTreeSet<Token>,
    devices: BTreeSet<Token>,
    /// Doorbells that were made, with how many of their ends were not sent.
    doorbell_ends: BTreeMap<Token, u32>,
    /// Who has an end of a doorbell, and with whom.
    doorbells: BTreeSet<(ProcessNumber, ProcessNumber)>,
}

/// What the broker tells of.
impl Promises {
    pub(crate) fn on_request(
        &mut self,
        process: ProcessNumber,
        call: Call,
        request: Request,
        device: Option<Token>,
        now_ns: u64,
    ) {
        self.devices.extend(device);
        if self.lineage.must_be_denied(now_ns, process, &request) {
            self.doomed.insert((process, call.number));
        }
        let at = match &request {
            Request::Raise(request) => self.named.get(&(process, request.process)).copied(),
            _ => None,
        };
        self.signals.on_request(process, &request, at);
        match &request {
            Request::OpenLane(request) => self.lineage.on_opening(process, call.number, request.queue),
            Request::MapRegion(request) => self.lineage.on_opening(process, call.number, request.region),
            _ => {}
        }
        self.unanswered.insert((process, call.number), (call, request));
    }

    pub(crate) fn on_memory(&mut self, token: Token, made: bool) {
        if made {
            self.memories.insert(token)
        } else {
            self.refused.insert(token)
        };
    }

    pub(crate) fn on_doorbell(&mut self, token: Token, made: bool) {
        if made {
            self.doorbell_ends.insert(token, 2);
        }
    }

    pub(crate) fn on_page(&mut self, process: ProcessNumber, page: u32) -> Kept {
        require!(!self.ended.contains(&process), "page {page} is made for {process}, which has ended");
        let before = self.pages.insert((process, page), BTreeMap::new());
        require!(before.is_none(), "page {page} of {process} is made twice");
        Ok(())
    }

    pub(crate) fn has_ended(&self, process: ProcessNumber) -> bool {
        self.ended.contains(&process)
    }

    pub(crate) fn is_there(&self, token: Token) -> bool {
        self.memories.contains(&token)
    }

    /// Checks one effect, and remembers it.
    pub(crate) fn on_effect(&mut self, effect: &Effect) -> Kept {
        match effect {
            Effect::Send { to, frame, descriptors } => {
                require!(!self.ended.contains(to), "{frame:?} is sent to {to}, which has ended");
                for descriptor in descriptors {
                    self.check_descriptor(*to, *descriptor)?;
                    self.on_sent(*descriptor);
                }
                match frame {
                    Outgoing::Reply(call, reply) => self.on_reply(*to, *call, reply, descriptors),
                    Outgoing::Event(event) => self.on_event(*to, event),
                }
            }
            Effect::DropMemory { token } => {
                let known = self.memories.remove(token) || self.refused.remove(token);
                require!(known, "{token:?} is dropped, and is not there");
                Ok(())
            }
            Effect::DropDevice { token, .. } => {
                require!(self.devices.remove(token), "the device {token:?} is dropped, and is not there");
                Ok(())
            }
            Effect::DropPage { process, page } => {
                let there = self.pages.remove(&(*process, *page)).is_some();
                require!(there, "page {page} of {process} is dropped, and is not there");
                Ok(())
            }
            Effect::SetWord { process, page, index, value } => self.on_word(*process, *page, *index, *value),
            Effect::Signal { process, .. } => self.signals.on_act(*process).map_err(Broken),
            Effect::EndSession { process, .. } => self.on_end(*process),
            Effect::DropDoorbell { token } => {
                let whole = self.doorbell_ends.remove(token) == Some(2);
                require!(whole, "{token:?} is dropped, and is no doorbell that nobody has an end of");
                Ok(())
            }
            Effect::CreateMemory { .. }
            | Effect::CreateDoorbell { .. }
            | Effect::SealMemory { .. }
            | Effect::FreezeMemory { .. }
            | Effect::CreatePage { .. }
            | Effect::CreatePair { .. } => Ok(()),
        }
    }

    /// All effects of one input are done.
    pub(crate) fn on_quiet(&mut self) -> Kept {
        for ((process, _), (_, request)) in &self.unanswered {
            if let Request::Revoke(request) = request {
                self.lineage.on_revoking((*process, request.handle));
            }
        }
        for ((watcher, handle), target) in &self.watches {
            let gone = target.is_some_and(|target| self.ended.contains(&target));
            require!(!gone, "{watcher} was not told that what it watches through {handle} has ended");
        }
        Ok(())
    }

    /// Nothing is under way any more.
    pub(crate) fn on_settled(&self, now_ns: u64) -> Kept {
        for (process, opened, word) in self.lineage.words_expired(now_ns) {
            let found = self.pages.get(&(process, word.page)).and_then(|page| page.get(&word.index));
            let verdict = found.is_some_and(|found| *found != word.generation);
            require!(verdict, "{opened:?} of {process} has expired, and its word is {found:?}");
        }
        for (holder, peer) in &self.doorbells {
            let shares = |ends: &LaneEnds| match (ends.sender, ends.receiver) {
                (Some(sender), Some(receiver)) => {
                    let both = [(*holder, *peer), (*peer, *holder)];
                    both.contains(&(sender.process, receiver.process)) && !(sender.closed && receiver.closed)
                }
                // It is still being opened, nobody here knows to whom.
                (Some(sender), None) => !sender.closed && [*holder, *peer].contains(&sender.process),
                (None, _) => false,
            };
            require!(self.lanes.values().any(shares), "{holder} and {peer} have a doorbell and no lane");
        }
        let left = self.unanswered.iter().find(|((process, _), _)| !self.ended.contains(process));
        require!(left.is_none(), "a request was never answered: {left:?}");
        Ok(())
    }

    /// Every process has ended.
    pub(crate) fn on_over(&self) -> Kept {
        require!(self.memories.is_empty(), "memory was never dropped: {:?}", self.memories);
        require!(
            self.doorbell_ends.is_empty(),
            "ends of doorbells were never sent: {:?}",
            self.doorbell_ends
        );
        require!(self.devices.is_empty(), "devices were never dropped: {:?}", self.devices);
        require!(self.pages.is_empty(), "pages were never dropped: {:?}", self.pages.keys());
        Ok(())
    }
}

/// What is behind each promise.
impl Promises {
    fn check_descriptor(&self, to: ProcessNumber, descriptor: Descriptor) -> Kept {
        let there = match descriptor {
            Descriptor::Writable(token) | Descriptor::Readable(token) => self.memories.contains(&token),
            Descriptor::Page(page) => self.pages.contains_key(&(to, page)),
            Descriptor::Device(token) => self.devices.contains(&token),
            Descriptor::PairEnd(process, _) => !self.ended.contains(&process),
            Descriptor::DoorbellEnd(token) => self.doorbell_ends.contains_key(&token),
        };
        require!(there, "{descriptor:?} is sent to {to}, and is not there");
        Ok(())
    }

    fn on_sent(&mut self, descriptor: Descriptor) {
        if let Descriptor::DoorbellEnd(token) = descriptor
            && let Some(left) = self.doorbell_ends.get_mut(&token)
        {
            *left -= 1;
            if *left == 0 {
                self.doorbell_ends.remove(&token);
            }
        }
    }

    /// A process was sent its end of a doorbell.
    fn on_doorbell_end(&mut self, to: ProcessNumber, peer: ProcessNumber) -> Kept {
        let new = self.doorbells.insert((to, peer)) || to == peer;
        require!(new, "{to} has a doorbell to {peer} already");
        require!(!self.ended.contains(&peer), "{to} has a doorbell to {peer}, which has ended");
        Ok(())
    }

    fn on_reply(&mut self, to: ProcessNumber, call: Call, reply: &Reply, descriptors: &[Descriptor]) -> Kept {
        let asked = self.unanswered.remove(&(to, call.number));
        let Some((asked_call, request)) = asked else {
            return Err(Broken(format!("{call:?} of {to} is answered twice: {reply:?}")));
        };
        require!(asked_call == call, "{asked_call:?} of {to} is answered as {call:?}");
        let doomed = self.doomed.remove(&(to, call.number));
        let denied = matches!(reply, Reply::Denied(_));
        require!(denied || !doomed, "{request:?} of {to} acts on what is gone, and is answered {reply:?}");
        let opened = match reply {
            Reply::LaneOpening { lane, word, .. } => Some((Opened::Lane(*lane), *word)),
            Reply::Mapping { mapping, word, .. } => Some((Opened::Mapping(*mapping), *word)),
            _ => None,
        };
        self.lineage.on_opened(to, call.number, opened);
        self.on_lineage(to, &request, reply)?;
        self.on_waiting(to, &request, reply);
        match (request, reply) {
            (_, Reply::LaneOpening { lane, word, .. }) => {
                let end = End { process: to, word: *word, told: None, closed: false };
                self.lanes.entry(*lane).or_default().sender = Some(end);
            }
            (Request::LaneMapped(request), Reply::Denied(denial)) => {
                // Refused by Linux or a full receiver: the lane is undone. Ended: it waits to be closed.
                let undone = denial.number() == 29 || denial.number() == 16;
                if let (true, Some(ends)) = (undone, self.lanes.get_mut(&request.lane)) {
                    close(&mut ends.sender, to);
                }
            }
            (Request::CloseLane(request), Reply::Done) => {
                if let Some(ends) = self.lanes.get_mut(&request.lane) {
                    // A process that sends to itself closes the sender's end first.
                    if !close(&mut ends.sender, to) {
                        close(&mut ends.receiver, to);
                    }
                }
            }
            (Request::StartChild(_), Reply::Capability(created)) => {
                if let [Descriptor::PairEnd(child, _)] = descriptors {
                    self.named.insert((to, created.handle), *child);
                }
            }
            (Request::Derive(request), Reply::Capability(created)) => {
                if let Some(target) = self.named.get(&(to, request.from)).copied() {
                    self.named.insert((to, created.handle), target);
                }
            }
            (Request::Hello(hello), Reply::Welcome(start)) => {
                self.named.extend(start.own.map(|own| ((to, own), start.process)));
                self.signals.on_welcome(to, start.pid, &hello);
            }
            (_, Reply::Doorbell { peer }) => {
                require!(self.doorbells.contains(&(*peer, to)), "{to} can ring {peer}, which has no end");
                return self.on_doorbell_end(to, *peer);
            }
            (Request::Raise(request), Reply::Denied(_)) => self.signals.on_refused(&request),
            (Request::TakeSignal(_), Reply::Signal(Some(info))) => {
                return self.signals.on_taken(to, info).map_err(Broken);
            }
            _ => {}
        }
        Ok(())
    }

    /// What the process is to be told of later.
    fn on_waiting(&mut self, to: ProcessNumber, request: &Request, reply: &Reply) {
        match (request, reply) {
            (Request::Watch(request), Reply::Done) => {
                let target = self.named.get(&(to, request.process)).copied();
                self.watches.insert((to, request.process), target);
            }
            (Request::WaitName(request), Reply::Done) => {
                self.waits.insert((to, request.name.clone()));
            }
            (Request::ForgetName(request), Reply::Done) => {
                self.waits.remove(&(to, request.name.clone()));
            }
            (Request::Delete(request), Reply::Done) => {
                self.watches.remove(&(to, request.handle));
            }
            (Request::Weaken(request), Reply::Capability(_))
                if !request.terms.rights.contains(Rights::WATCH) =>
            {
                self.watches.remove(&(to, request.handle));
            }
            (Request::EscrowPut(request), Reply::Ticket(_)) if request.how == EscrowHow::Move => {
                self.watches.remove(&(to, request.from));
            }
            _ => {}
        }
    }

    fn on_lineage(&mut self, to: ProcessNumber, request: &Request, reply: &Reply) -> Kept {
        match (request, reply) {
            (Request::Derive(request), Reply::Capability(created)) => {
                self.lineage.on_derived(to, request.from, created.handle, request.terms.expires_ns);
            }
            (Request::Weaken(request), Reply::Capability(_)) => {
                self.lineage.on_weakened(to, request.handle, request.terms.expires_ns);
            }
            (Request::CloseLane(request), Reply::Done) => {
                self.lineage.on_closed(to, Opened::Lane(request.lane));
            }
            (Request::LaneMapped(request), Reply::Denied(_)) => {
                self.lineage.on_closed(to, Opened::Lane(request.lane));
            }
            (Request::Unmap(request), Reply::Done) => {
                self.lineage.on_closed(to, Opened::Mapping(request.mapping));
            }
            (Request::RegionMapped(request), Reply::Denied(_)) => {
                self.lineage.on_closed(to, Opened::Mapping(request.mapping));
            }
            (Request::Delete(request), Reply::Done) => self.lineage.on_gone((to, request.handle)),
            (Request::Revoke(request), Reply::Revoked { .. }) => {
                let root = (to, request.handle);
                self.lineage.on_revoking(root);
                for (opened, word) in self.lineage.words_below(root) {
                    let found = self.pages.get(&(to, word.page)).and_then(|page| page.get(&word.index));
                    let verdict = found.is_some_and(|found| *found != word.generation);
                    require!(verdict, "{opened:?} of {to} was revoked, and its word is {found:?}");
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn on_event(&mut self, to: ProcessNumber, event: &Event) -> Kept {
        match event {
            Event::LaneOpened { lane, word, peer, peer_handle, .. } => {
                let end = End { process: to, word: *word, told: None, closed: false };
                let ends = self.lanes.entry(*lane).or_default();
                require!(ends.receiver.is_none(), "lane {lane} is opened to {to} twice");
                ends.receiver = Some(end);
                self.named.insert((to, *peer_handle), peer.process);
                Ok(())
            }
            Event::LanesEnded { lanes, why } => {
                lanes.iter().try_for_each(|lane| self.on_lane_ended(to, *lane, *why))
            }
            Event::CapabilitiesLost { handles } => {
                for handle in handles {
                    self.watches.remove(&(to, *handle));
                    self.lineage.on_gone((to, *handle));
                }
                Ok(())
            }
            Event::NameAppeared { name } => {
                let waited = self.waits.remove(&(to, name.clone()));
                require!(waited, "{to} is told of {name}, for which it does not wait");
                Ok(())
            }
            Event::ProcessEnded { process } => {
                let watched = self.watches.remove(&(to, *process));
                require!(watched.is_some(), "{to} is told of the end of {process}, which it does not watch");
                Ok(())
            }
            Event::Doorbell { peer } => self.on_doorbell_end(to, *peer),
            Event::DoorbellsEnded { peers } => {
                for peer in peers {
                    let had = self.doorbells.remove(&(to, *peer));
                    require!(had, "{to} is told of the end of a doorbell to {peer}, and has none");
                }
                Ok(())
            }
            Event::SignalsPending => self.signals.on_told(to).map_err(Broken),
            _ => Ok(()),
        }
    }

    fn on_lane_ended(&mut self, to: ProcessNumber, lane: LaneId, why: LaneEnd) -> Kept {
        let ends = self.lanes.entry(lane).or_default();
        let mine = |end: &&mut End| end.process == to && !end.closed;
        // A lane that ends while it is made is told of before its sender has heard of it.
        let receiver = ends.receiver.as_mut().filter(mine);
        if let Some(end) = receiver {
            let again = match end.told {
                None => true,
                Some(told) => told != LaneEnd::Revoked && why == LaneEnd::Revoked,
            };
            if again {
                end.told = Some(why);
                return Ok(());
            }
        }
        let Some(end) = ends.sender.as_mut().filter(mine) else {
            require!(ends.receiver.is_none(), "{to} is told of the end of lane {lane} again: {why:?}");
            return Ok(());
        };
        require!(end.told.is_none(), "{to} is told of the end of lane {lane} twice: {why:?}");
        end.told = Some(why);
        if let (LaneEnd::QueueDeleted, Some(receiver)) = (why, ends.receiver.as_mut()) {
            // It was the receiver who deleted the queue, and needs no telling.
            receiver.closed = true;
        }
        Ok(())
    }

    /// Whether a word speaks of nothing else: of no lane that its process has not been told the end of, and of no mapping that it has.
    fn is_idle(&self, process: ProcessNumber, page: u32, index: u16, generation: u32) -> bool {
        let is_it =
            |word: &WordPlace| (word.page, word.index) == (page, index) && word.generation != generation;
        let ends = self.lanes.values().flat_map(|ends| [ends.sender, ends.receiver]).flatten();
        let mut open = ends.filter(|end| end.process == process && !end.closed && end.told.is_none());
        !open.any(|end| is_it(&end.word)) && !self.lineage.mapping_words(process).any(|word| is_it(&word))
    }

    /// Whether a lane's end has this word and has not been told of its end, or may have it and has not been told of the lane.
    fn speaks(&self, process: ProcessNumber, page: u32, index: u16) -> bool {
        let mut asked = self.unanswered.range((process, 0)..=(process, u32::MAX));
        if asked.any(|(_, (_, request))| matches!(request, Request::OpenLane(_))) {
            return true;
        }
        let ends = self.lanes.values().flat_map(|ends| [ends.sender, ends.receiver]).flatten();
        let mut open = ends.filter(|end| end.process == process && !end.closed && end.told.is_none());
        open.any(|end| (end.word.page, end.word.index) == (page, index))
    }

    fn on_word(&mut self, process: ProcessNumber, page: u32, index: u16, value: u32) -> Kept {
        let speaks = self.speaks(process, page, index);
        let is_idle = value < GENERATION_FIRST || self.is_idle(process, page, index, value);
        let is_newer = value < GENERATION_FIRST
            || self.generations.insert((process, page, index), value).is_none_or(|before| before < value);
        let Some(words) = self.pages.get_mut(&(process, page)) else {
            return Err(Broken(format!(
                "word {index} is set in page {page} of {process}, which is not there"
            )));
        };
        let lawful = match (words.insert(index, value), value) {
            (None, _) | (Some(_), WORD_REVOKED) => true,
            // Generations only grow, so that a word never speaks again of what it spoke of before.
            (Some(_), _) if value >= GENERATION_FIRST => is_newer && is_idle,
            (Some(before), WORD_DEAD) if before >= GENERATION_FIRST => true,
            // Of a lane that was still being opened, so that it never said its generation.
            (Some(WORD_REVOKED), WORD_DEAD) => speaks,
            (Some(_), _) => false,
        };
        require!(lawful, "word {index} of page {page} of {process} is set to {value} after its verdict");
        Ok(())
    }

    fn on_end(&mut self, process: ProcessNumber) -> Kept {
        require!(self.ended.insert(process), "the session of {process} ends twice");
        self.pages.retain(|(owner, _), _| *owner != process);
        self.generations.retain(|(owner, ..), _| *owner != process);
        self.unanswered.retain(|(asker, _), _| *asker != process);
        self.watches.retain(|(watcher, _), _| *watcher != process);
        self.waits.retain(|(waiter, _)| *waiter != process);
        self.doomed.retain(|(asker, _)| *asker != process);
        self.doorbells.retain(|(holder, _)| *holder != process);
        let left = self.doorbells.iter().find(|(_, peer)| *peer == process);
        require!(left.is_none(), "{left:?} was not told that its doorbell ended");
        self.lineage.on_end(process);
        self.signals.on_end(process);
        for (lane, ends) in &self.lanes {
            let (Some(sender), Some(receiver)) = (ends.sender, ends.receiver) else { continue };
            let peer = match process {
                _ if sender.process == receiver.process => continue,
                _ if process == sender.process && !sender.closed => receiver,
                _ if process == receiver.process && !receiver.closed => sender,
                _ => continue,
            };
            if peer.closed || self.ended.contains(&peer.process) {
                continue;
            }
            let who = peer.process;
            require!(peer.told.is_some(), "{who} was not told that lane {lane} ended with {process}");
            let word = self.pages.get(&(who, peer.word.page)).and_then(|page| page.get(&peer.word.index));
            // If it has given the lane up unknown to us, the word may speak of another by now.
            let verdict = word.is_some_and(|word| *word != peer.word.generation);
            require!(verdict, "the word of {who} for lane {lane} is {word:?} after {process} has ended");
        }
        Ok(())
    }
}

/// Marks the end of `process` as closed. Returns whether it had one.
fn close(end: &mut Option<End>, process: ProcessNumber) -> bool {
    let open = end.as_mut().filter(|end| end.process == process && !end.closed);
    let found = open.is_some();
    if let Some(end) = open {
        end.closed = true;
    }
    found
}
