//! An honest sender, and a receiver of whom every store is named by bytes.

use keyway_shm::{LaneSender, RecordHeader, SendError, Wait, WakeBy};

use super::*;

/// Runs a sender through the steps in `bytes`: what a hostile receiver stores, and what the sender is asked for.
///
/// # Panics
/// When it does what it must not.
pub fn send(bytes: &[u8]) {
    thread_local!(static MEMORIES: Memories = Memories::new());
    MEMORIES.with(|memories| {
        let mut bytes = Bytes(bytes);
        let (barrier, is_stamped) = sort(&mut bytes);
        memories.clean(barrier);
        let own = Mapping::own(&memories.ring_fd, RING_LEN, Populate::OnUse).expect("memory to map");
        let lane = LaneSender::new(own, &memories.ack_reader, memories.status(), RING_BYTES, barrier);
        let lane = lane.expect("sizes fit");
        let lane = if is_stamped { lane.stamping(tick) } else { lane };
        let mut end = Sending { memories, lane, is_stamped, bound: 0, acknowledged: 0, last: None };
        for _ in 0..STEPS {
            if end.step(&mut bytes).is_none() {
                break;
            }
            end.check();
        }
    });
}

/// Steps of one run.
const STEPS: usize = 600;

/// What every payload consists of.
static PAYLOAD: [u8; 2 * RING_BYTES as usize] = [0xA5; 2 * RING_BYTES as usize];

struct Sending<'m> {
    memories: &'m Memories,
    lane: LaneSender,
    is_stamped: bool,
    /// The furthest position that the receiver has claimed and could have come to.
    bound: u32,
    acknowledged: u64,
    last: Option<SendError>,
}

impl Sending<'_> {
    fn head(&self) -> u32 {
        self.memories.ring_reader.load_u32(POSITION_OFFSET, Ordering::Relaxed)
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) -> Option<()> {
        let step = bytes.byte()? % 20;
        match step {
            0..6 => {
                lie(&self.memories.ack, self.head(), step, bytes)?;
                let claimed = self.memories.ack.load_u32(POSITION_OFFSET, Ordering::Relaxed);
                let is_possible = claimed.wrapping_sub(self.bound) <= self.head().wrapping_sub(self.bound);
                if claimed.is_multiple_of(8) && is_possible {
                    self.bound = claimed;
                }
            }
            6 => self.memories.change_verdict(bytes.byte()?),
            7 => {
                // An honest receiver's: all that was sent.
                let messages = self.memories.ring_reader.load_u32(MESSAGES_OFFSET, Ordering::Relaxed);
                self.memories.ack.store_u32(MESSAGES_OFFSET, messages, Ordering::Relaxed);
                self.memories.ack.store_u32(POSITION_OFFSET, self.head(), Ordering::Release);
                self.bound = self.head();
            }
            8..12 => self.send(header(bytes.byte()?), usize::from(bytes.word()? % 4200)),
            12 => {
                let lens = lens(bytes)?;
                self.send_all(&lens);
            }
            13 => {
                let (count, len) = (bytes.byte()?, bytes.word()?);
                self.send_each(usize::from(count % 40), usize::from(len % 4200));
            }
            14 | 15 => {
                let (how, lens) = (bytes.byte()?, lens(bytes)?);
                self.batch(how, &lens);
            }
            16 | 17 => {
                let (how, len) = (bytes.byte()?, bytes.word()?);
                self.loan(how, usize::from(len % 2200));
            }
            18 => self.wait(u32::from(bytes.word()?)),
            _ => {
                let waiting = self.memories.ack_reader.load_u32(WAITING_OFFSET, Ordering::Relaxed);
                assert_eq!(self.lane.must_wake_receiver().is_some(), waiting != 0);
            }
        }
        Some(())
    }

    /// Holds the sender to what it said of `messages` that begin with one of these first words.
    fn sent(&mut self, before: (u32, u64, u64), messages: u64, said: Result<(), SendError>) {
        let (head, count, _) = before;
        let has_sent = said.is_ok() && messages > 0;
        let sent = self.lane.acknowledged().sent;
        assert_eq!(sent, count + if has_sent { messages } else { 0 });
        assert_eq!(self.head() != head, has_sent, "what is visible is what was said");
        if has_sent {
            self.hold_to_stamps(head, before.2, messages);
        }
        let is_final = matches!(said, Err(SendError::Ended(_) | SendError::Fault(_)));
        // Sizes are judged first nowhere: who is at the end says so.
        hold_to(&mut self.last, said.err().filter(|_| is_final), true);
    }

    fn before(&mut self) -> (u32, u64, u64) {
        (self.head(), self.lane.acknowledged().sent, TIME.get())
    }

    /// From here on so many messages are committed, of which the first says when, if any does.
    fn hold_to_stamps(&self, head: u32, before_ns: u64, messages: u64) {
        let (mut at, mut seen) = (head, 0);
        assert_eq!(TIME.get() - before_ns, u64::from(self.is_stamped), "the clock is read once");
        while seen < messages {
            let low = self.memories.record_word(at) as u32;
            let (kind, size) = (low >> 30, low & ((1 << 30) - 1));
            assert_ne!(kind, 0, "committed");
            let header_bytes = if kind == KIND_EXTENDED { 16 } else { 8 };
            if kind != KIND_PADDING {
                let stamp = self.memories.record_word(at.wrapping_add(header_bytes));
                let expected = if seen == 0 { TIME.get() } else { 0 };
                assert!(!self.is_stamped || size >= 8 && stamp == expected, "message {seen}: {stamp}");
                seen += 1;
            }
            at = at.wrapping_add((header_bytes + size).next_multiple_of(8));
        }
        assert_eq!(at, self.head());
    }

    fn send(&mut self, header: RecordHeader, len: usize) {
        let before = self.before();
        let said = self.lane.try_send(header, &PAYLOAD[..len]);
        if said.is_ok() {
            let word = self.memories.record_word(before.0);
            let stamp_bytes = if self.is_stamped { 8 } else { 0 };
            if word as u32 >> 30 == KIND_PADDING {
                return self.sent(before, 1, said);
            }
            assert_eq!(word as u32 & ((1 << 30) - 1), len as u32 + stamp_bytes);
            let is_extended = (header.flags | header.ticket) != 0;
            let payload = before.0.wrapping_add(stamp_bytes + if is_extended { 16 } else { 8 });
            assert!(len < 8 || self.memories.record_word(payload) == u64::from_ne_bytes([0xA5; 8]));
        }
        self.sent(before, 1, said);
    }

    fn send_all(&mut self, lens: &[usize]) {
        let before = self.before();
        let payloads: Vec<&[u8]> = lens.iter().map(|&len| &PAYLOAD[..len]).collect();
        let said = self.lane.try_send_all(&payloads);
        self.sent(before, payloads.len() as u64, said);
    }

    fn send_each(&mut self, count: usize, len: usize) {
        let before = self.before();
        let mut write = |place: &mut [u8]| place.fill(0xA5);
        let said = if count == 1 && self.lane.send_plain_with(len, &mut write) {
            Ok(())
        } else {
            self.lane.try_send_each(count, len, &mut |_, place| write(place))
        };
        self.sent(before, count as u64, said);
    }

    fn batch(&mut self, how: u8, lens: &[usize]) {
        let before = self.before();
        let mut batch = match self.lane.batch() {
            Ok(batch) => batch,
            Err(error) => return self.sent(before, 1, Err(error)),
        };
        for &len in lens {
            let _ = batch.push(header(how), &PAYLOAD[..len]);
        }
        let messages = batch.messages();
        if how & 0x80 != 0 {
            drop(batch);
            assert_eq!(self.head(), before.0, "what is abandoned was never sent");
            return;
        }
        let said = batch.commit().1;
        self.sent(before, messages, said);
    }

    fn loan(&mut self, how: u8, len: usize) {
        let before = self.before();
        let mut loan = match self.lane.try_loan(header(how), len) {
            Ok(loan) => loan,
            Err(error) => return self.sent(before, 1, Err(error)),
        };
        loan.payload_mut().fill(0xA5);
        assert_eq!(loan.payload().len(), len);
        if how & 0x80 != 0 {
            drop(loan);
            assert_eq!(self.head(), before.0, "what is abandoned was never sent");
            return;
        }
        let said = loan.commit(len / (1 + usize::from(how & 3))).1;
        self.sent(before, 1, said);
    }

    fn wait(&mut self, needed_bytes: u32) {
        self.lane.announce_wait(WakeBy::Doorbell);
        own_barrier();
        let waits = self.lane.prepare_wait(needed_bytes);
        self.lane.finish_wait();
        if let Wait::Sleep(on) = waits {
            assert!(self.last.is_none() && self.memories.is_live() && self.lane.fault().is_none());
            assert_eq!(on.peer.0.load(Ordering::Relaxed), on.peer.1, "it sleeps on what is there");
        }
    }

    fn check(&mut self) {
        let used_bytes = self.head().wrapping_sub(self.bound);
        assert!(used_bytes <= COMMITTED_MAX, "more than a ring without an acknowledgement");
        assert_eq!(self.memories.record_word(self.head()), 0, "behind the last record lies nothing");
        let now = self.lane.acknowledged();
        assert!(self.acknowledged <= now.messages && now.messages <= now.sent);
        self.acknowledged = now.messages;
        let said = self.lane.fault().map(SendError::Fault).or(self.lane.ending().map(SendError::Ended));
        assert!(self.last.is_none() || said == self.last, "{said:?} after {:?}", self.last);
        self.last = said;
    }
}

fn header(byte: u8) -> RecordHeader {
    RecordHeader { message_type: byte.into(), flags: u32::from(byte & 1), ticket: u32::from(byte >> 1 & 1) }
}

fn lens(bytes: &mut Bytes<'_>) -> Option<Vec<usize>> {
    let count = bytes.byte()? % 12;
    (0..count).map(|_| bytes.word().map(|len| usize::from(len % 1000))).collect()
}
