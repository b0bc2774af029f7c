//! What is done in the long run of kills on both sides, by victims and survivors: numbered messages are sent and taken.

use std::time::Duration;

use keyway::{Client, Error, Inbox, Incoming, Message, Outgoing, Pool, PoolOptions, Queue, Segment, Sender};

use crate::{
    players::{self, PATIENCE, Part},
    scenes::{self, MANY, Notes, Scene, Sends, Takes},
    stage::publish,
};

/// One who sends.
pub(crate) struct Sending {
    scene: Scene,
    pub(crate) sent: u64,
    buffer: Vec<u8>,
    pub(crate) pool: Option<Pool>,
}

impl Sending {
    pub(crate) fn new(scene: Scene, client: &Client) -> Self {
        let options = PoolOptions { bytes: 1 << 16, ..PoolOptions::default() };
        let pool = (scene.sends == Sends::Segments).then(|| client.create_pool(options).unwrap());
        Sending { scene, sent: 0, buffer: Vec::new(), pool }
    }

    /// How many will have been sent after the next call.
    fn next(&self) -> u64 {
        self.sent + self.scene.portion(self.sent)
    }

    /// Sends the next message, or the next few together.
    pub(crate) fn send(&mut self, sender: &mut Sender) -> Result<(), Error> {
        let number = self.sent;
        match self.scene.sends {
            Sends::Single | Sends::Large => sender.send(self.written(number))?,
            Sends::With | Sends::LargeWith => {
                let len = self.scene.payload_bytes(number);
                sender.send_with(len, |payload| scenes::write(number, payload))?;
            }
            Sends::Batch => self.send_batch(sender)?,
            Sends::Each => {
                let (count, len) = (self.scene.portion(number), self.scene.payload_bytes(number));
                sender.send_each(count as usize, len, |index, payload| {
                    scenes::write(number + index as u64, payload);
                })?;
            }
            Sends::Loan => {
                let mut loan = sender.loan(self.scene.payload_bytes(number))?;
                scenes::write(number, &mut loan);
                loan.commit()?;
            }
            Sends::Segments => {
                let pool = self.pool.as_ref().unwrap();
                let mut block = pool.loan(scenes::part_bytes(number))?;
                scenes::write(number, &mut block);
                let block = block.share();
                let payload = self.written(number);
                sender.send_segments(&Outgoing::bytes(payload), &[block.whole()])?;
            }
        }
        self.sent = self.next();
        Ok(())
    }

    fn written(&mut self, number: u64) -> &[u8] {
        self.buffer.resize(self.scene.payload_bytes(number), 0);
        scenes::write(number, &mut self.buffer);
        &self.buffer
    }

    fn send_batch(&mut self, sender: &mut Sender) -> Result<(), Error> {
        let numbers = self.sent..self.next();
        self.buffer.clear();
        for number in numbers.clone() {
            let start = self.buffer.len();
            self.buffer.resize(start + self.scene.payload_bytes(number), 0);
            scenes::write(number, &mut self.buffer[start..]);
        }
        let (mut payloads, mut rest) = (Vec::with_capacity(MANY), &self.buffer[..]);
        for number in numbers {
            let (payload, behind) = rest.split_at(self.scene.payload_bytes(number));
            payloads.push(payload);
            rest = behind;
        }
        sender.send_batch(&payloads)
    }
}

/// One who takes.
pub(crate) struct Taking {
    scene: Scene,
    pub(crate) taken: u64,
    buffer: Vec<u8>,
    inbox: Inbox,
}

impl Taking {
    pub(crate) fn new(scene: Scene) -> Self {
        Taking { scene, taken: 0, buffer: vec![0; 1 << 15], inbox: Inbox::new() }
    }

    /// A message has come: it is the next one, and whole.
    fn judge(&mut self, payload: &[u8], segments: &[Segment]) {
        let (scene, number) = (&self.scene, self.taken);
        let is_whole = scenes::is_whole(number, scene.payload_bytes(number), payload);
        assert!(is_whole, "{scene:?}: not message {number}: {payload:?}");
        if scene.sends == Sends::Segments {
            assert_eq!(segments.len(), 1, "{scene:?}: message {number}");
            let is_whole = scenes::is_whole(number, scenes::part_bytes(number), &segments[0].to_vec());
            assert!(is_whole, "{scene:?}: not the part of message {number}");
        }
        self.taken += 1;
    }

    pub(crate) fn judge_message(&mut self, message: &Message) {
        self.judge(&message.payload, &message.segments);
    }

    fn judge_inbox(&mut self) {
        let mut inbox = std::mem::take(&mut self.inbox);
        for index in 0..inbox.len() {
            let segments = inbox.take_segments(index);
            self.judge(inbox.get(index).unwrap().payload, &segments);
        }
        self.inbox = inbox;
    }

    /// Takes what is there.
    pub(crate) fn take_now(&mut self, queue: &mut Queue) -> Result<(), Error> {
        match self.scene.takes {
            Takes::Ref => self.judge(queue.try_receive_ref()?.payload, &[]),
            Takes::Each => drop(queue.try_receive_each(MANY, |message| self.judge(message.payload, &[]))?),
            Takes::Many => {
                queue.try_receive_many(&mut self.inbox, MANY)?;
                self.judge_inbox();
            }
            // News as well, which are for the caller to see.
            Takes::Whole | Takes::Into => return Err(Error::WouldBlock),
        }
        Ok(())
    }

    /// Takes what comes; waits for it. Notes how much may be acknowledged at any moment, and how much surely is.
    fn take(&mut self, queue: &mut Queue, notes: &Notes) {
        match self.scene.takes {
            Takes::Each => {
                // Most are acknowledged after they were handed on, and one that is not of the ordinary sort before.
                notes.may_reach(self.taken + 1);
                let each = |message: keyway::Received<'_>| {
                    self.judge(message.payload, &[]);
                    notes.may_reach(self.taken + 1);
                };
                queue.receive_each(MANY, each).unwrap();
            }
            Takes::Many => {
                notes.may_reach(self.taken + MANY as u64);
                queue.receive_many(&mut self.inbox, MANY).unwrap();
                self.judge_inbox();
            }
            one => {
                notes.may_reach(self.taken + 1);
                match one {
                    Takes::Ref => self.judge(queue.receive_ref().unwrap().payload, &[]),
                    Takes::Into => {
                        let mut buffer = std::mem::take(&mut self.buffer);
                        let len = queue.receive_into(&mut buffer).unwrap();
                        self.judge(&buffer[..len], &[]);
                        self.buffer = buffer;
                    }
                    _ => self.judge_message(&queue.receive().unwrap()),
                }
            }
        }
        notes.has_reached(self.taken);
    }
}

/// The scene that a victim plays, and where it notes its progress.
fn scene_of(part: &Part) -> (Scene, Notes) {
    let (seed, number) = part.argument.split_once(' ').unwrap();
    let notes = Notes::inherited(number);
    notes.note_panics();
    (Scene::of(seed.parse().unwrap()), notes)
}

/// Sends as the scene says until it is killed.
pub(crate) fn send_until_killed(part: &Part) {
    let (scene, notes) = scene_of(part);
    let client = Client::connect().unwrap();
    let mut sending = Sending::new(scene, &client);
    let mut sender =
        client.open_sender_with(&client.lookup("sink").unwrap(), scene.sender_options()).unwrap();
    players::say("ready");
    while sending.sent < scene.sends_max() {
        notes.may_reach(sending.next());
        sending.send(&mut sender).unwrap();
        notes.has_reached(sending.sent);
    }
    players::stay();
}

/// Takes as the scene says until it is killed.
pub(crate) fn take_until_killed(part: &Part) {
    let (scene, notes) = scene_of(part);
    let client = Client::connect().unwrap();
    let mut taking = Taking::new(scene);
    let (mut queue, _name) = publish(&client, "drain", scene.queue_options());
    players::say("ready");
    while taking.taken < scene.takes_max() {
        taking.take(&mut queue, &notes);
    }
    players::stay();
}

/// So long a survivor waits for a lane that may never come, or may have ended unheard.
const LOOK: Duration = Duration::from_millis(5);

/// What a survivor hears of a lane: a message, which is judged, or its end.
pub(crate) fn hear(taking: &mut Taking, queue: &mut Queue) -> Result<Option<Incoming>, Error> {
    match taking.take_now(queue) {
        Err(Error::WouldBlock) => {}
        taken => return taken.map(|()| None),
    }
    // The end of a lane that is there is told without being asked for.
    let patience = if queue.peers().next().is_some() { PATIENCE } else { LOOK };
    match queue.next_timeout(patience)? {
        Incoming::Message(message) => taking.judge_message(&message),
        news => return Ok(Some(news)),
    }
    Ok(None)
}
