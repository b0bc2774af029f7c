//! An honest receiver, and a sender of whom every store is named by bytes.

use keyway_shm::{LaneReceiver, ReceiveError, Wait, WakeBy};

use super::*;

/// Runs a receiver through the steps in `bytes`: what a hostile sender stores, and what the receiver is asked for.
///
/// # Panics
/// When it says what it must not.
pub fn receive(bytes: &[u8]) {
    thread_local!(static MEMORIES: Memories = Memories::new());
    MEMORIES.with(|memories| {
        let mut bytes = Bytes(bytes);
        let (barrier, is_stamped) = sort(&mut bytes);
        memories.clean(barrier);
        let ack = &memories.ack;
        let lane = LaneReceiver::new(&memories.ring_reader, ack, memories.status(), RING_BYTES, barrier);
        let lane = lane.expect("sizes fit");
        let lane = if is_stamped { lane.stamped() } else { lane };
        let mut end = Receiving { memories, lane, is_stamped, out: Vec::new(), peeked: 0, last: None };
        for _ in 0..STEPS {
            if end.step(&mut bytes).is_none() {
                break;
            }
            end.check();
        }
        end.finish();
    });
}

/// Steps of one run.
const STEPS: usize = 600;

struct Receiving<'m> {
    memories: &'m Memories,
    lane: LaneReceiver,
    is_stamped: bool,
    out: Vec<u8>,
    /// Bytes of payload that were copied out since the last acknowledgement.
    peeked: usize,
    last: Option<ReceiveError>,
}

impl Receiving<'_> {
    fn tail(&self) -> u32 {
        self.memories.ack_reader.load_u32(POSITION_OFFSET, Ordering::Relaxed)
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) -> Option<()> {
        let step = bytes.byte()? % 24;
        match step {
            0..6 => lie(&self.memories.ring, self.tail(), step, bytes)?,
            6..10 => self.forge(step, bytes)?,
            10 => self.memories.change_verdict(bytes.byte()?),
            11..14 => self.try_receive(),
            14 => self.receive_into(usize::from(bytes.byte()?) * 4),
            15 => match bytes.byte()? {
                255 => self.take_plain(),
                max => self.take_each(max.into()),
            },
            16 => self.peek(),
            17 => self.peek_more(usize::from(bytes.word()?)),
            18 | 19 => {
                let (max, stop_after) = (bytes.byte()?, bytes.byte()?);
                self.peek_many(max.into(), stop_after.into());
            }
            20 => self.acknowledge(),
            21 => {
                self.lane.forget();
                self.peeked = 0;
            }
            22 => self.wait(),
            _ if self.is_stamped => self.look_at_stamp(),
            _ => {
                let waiting = self.memories.ring_reader.load_u32(WAITING_OFFSET, Ordering::Relaxed);
                assert!(waiting != 0 || self.lane.must_wake_sender().is_none());
            }
        }
        Some(())
    }

    /// Stores what looks like records, from the tail on or some words behind it.
    fn forge(&mut self, step: u8, bytes: &mut Bytes<'_>) -> Option<()> {
        let mut at = self.tail();
        let count = match step {
            6 | 7 => 1,
            8 => {
                at = at.wrapping_add(u32::from(bytes.word()?) * 8);
                1
            }
            _ => bytes.byte()? % 16,
        };
        for _ in 0..count {
            let (size, kind) = (u32::from(bytes.word()?), bytes.byte()?);
            let low = if kind & 0x40 == 0 { size % 512 } else { size } | u32::from(kind) << 30;
            let word = u64::from(low) | u64::from(kind) << 32;
            let _ = self.memories.ring.copy_in(place(at), &word.to_ne_bytes());
            at = at.wrapping_add(8 + (size % 512).next_multiple_of(8) + if kind & 2 == 2 { 8 } else { 0 });
        }
        Some(())
    }

    fn keep(&mut self, said: Option<ReceiveError>) {
        hold_to(&mut self.last, said.filter(|it| !matches!(it, ReceiveError::BufferTooSmall { .. })), true);
    }

    fn try_receive(&mut self) {
        let taken = self.lane.taken();
        let got = self.lane.try_receive(&mut self.out);
        assert_eq!(self.lane.taken() - taken, u64::from(matches!(got, Ok(Some(_)))));
        assert!(!matches!(got, Ok(Some(_))) || self.out.len() < RING_BYTES as usize);
        self.peeked = 0;
        self.keep(got.err());
    }

    fn receive_into(&mut self, len: usize) {
        let mut buffer = [0; 1024];
        let got = self.lane.try_receive_into(&mut buffer[..len.min(1024)]);
        assert!(!matches!(got, Ok(Some((_, bytes))) if bytes > len));
        self.peeked = 0;
        // A message that does not fit is no end.
        if !matches!(got, Err(ReceiveError::BufferTooSmall { .. })) {
            self.keep(got.err());
        }
    }

    /// What it says is what is there, in front of a payload that has room for it; and looking takes nothing.
    fn look_at_stamp(&mut self) {
        let (tail, taken) = (self.tail(), self.lane.taken());
        let got = self.lane.next_stamp();
        self.peeked = 0;
        assert_eq!(self.lane.taken(), taken);
        if let Ok(Some(stamp)) = got {
            // Behind what was passed over.
            assert!(stamp.position.is_multiple_of(8) && stamp.position == self.tail());
            assert!(stamp.position.wrapping_sub(tail) < RING_BYTES);
            let word = self.memories.record_word(stamp.position);
            let is_extended = word as u32 >> 30 == KIND_EXTENDED;
            let at = stamp.position.wrapping_add(if is_extended { 16 } else { 8 });
            assert_eq!(stamp.alleged_ns, self.memories.record_word(at));
            assert!(word as u32 & ((1 << 30) - 1) >= 8, "a stamp that is not there");
        }
        self.keep(got.err());
    }

    fn take_plain(&mut self) {
        let got = self.lane.take_plain(&mut self.out);
        assert!(got.is_none() || self.last.is_none() && !self.is_stamped);
        assert!(got.is_none_or(|(_, len)| len <= self.out.len()));
        self.peeked = 0;
    }

    fn take_each(&mut self, max: usize) {
        let (mut count, taken) = (0, self.lane.taken());
        let handed_on = self.lane.take_each(&mut self.out, max, |_, payload| {
            assert!(payload.len() < RING_BYTES as usize);
            count += 1;
            ControlFlow::Continue(())
        });
        assert!(count == handed_on && count <= max && self.lane.taken() == taken + count as u64);
        assert!(count == 0 || self.last.is_none() && !self.is_stamped);
        self.peeked = 0;
    }

    fn peek(&mut self) {
        let got = self.lane.peek(&mut self.out);
        self.peeked = if matches!(got, Ok(Some(_))) { self.out.len() } else { 0 };
        self.keep(got.err());
    }

    fn peek_more(&mut self, bytes_max: usize) {
        self.out.clear();
        let got = self.lane.peek_more(&mut self.out, bytes_max);
        assert!(self.out.len() <= bytes_max);
        self.peeked += self.out.len();
        self.keep(got.err());
    }

    fn peek_many(&mut self, max: usize, stop_after: usize) {
        self.out.clear();
        let (mut end, mut count) = (0, 0);
        let got = self.lane.peek_many(&mut self.out, max, |from, to, _| {
            assert!(from == end && to >= from);
            (end, count) = (to, count + 1);
            if count == stop_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(end == self.out.len() && count <= max);
        self.peeked += end;
        // Who asks for none, or stops in time, does not come to the end.
        let is_asked = max > count && (count < stop_after || stop_after == 0);
        hold_to(&mut self.last, got.err(), is_asked);
    }

    fn acknowledge(&mut self) {
        self.lane.acknowledge();
        assert!(!self.lane.has_peeked());
        self.peeked = 0;
    }

    fn wait(&mut self) {
        self.lane.announce_wait(WakeBy::Futex);
        own_barrier();
        let waits = self.lane.prepare_wait();
        self.lane.finish_wait();
        if let Wait::Sleep(on) = waits {
            assert!(self.last.is_none() && self.memories.is_live() && self.lane.fault().is_none());
            assert_eq!(on.broker.1, GENERATION);
        }
    }

    fn check(&self) {
        assert!(self.peeked < COMMITTED_MAX as usize, "more than a ring without an acknowledgement");
        let messages = self.memories.ack_reader.load_u32(MESSAGES_OFFSET, Ordering::Relaxed);
        assert_eq!(u64::from(messages), self.lane.taken());
        assert!(self.tail().is_multiple_of(8));
        if let Some(last) = self.last {
            let said =
                self.lane.fault().map(ReceiveError::Fault).or(self.lane.ending().map(ReceiveError::Ended));
            assert_eq!(said, Some(last));
        }
    }

    /// Once the sender is dead, an end comes.
    fn finish(&mut self) {
        self.memories.change_verdict(0);
        for _ in 0..=MESSAGES_MAX {
            match self.lane.try_receive(&mut self.out) {
                Ok(Some(_)) => assert!(self.last.is_none()),
                Ok(None) => panic!("a dead sender's lane goes on"),
                Err(error) => {
                    assert!(self.last.is_none_or(|last| last == error));
                    assert!(
                        !matches!(error, ReceiveError::Ended(Ending::PeerDead)) || !self.memories.is_live()
                    );
                    return;
                }
            }
        }
        panic!("more messages than a ring can hold");
    }
}
