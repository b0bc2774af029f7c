//! A lane against a queue in private memory: whatever the sequence, what comes out is what went in.

use alloc::collections::VecDeque;
use core::ops::ControlFlow;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Send { payload_bytes: usize, fill: u8 },
    SendAll { sizes: Vec<usize>, abandon: bool },
    SendWith { payload_bytes: usize, fill: u8 },
    SendEach { count: usize, payload_bytes: usize, fill: u8 },
    Loan { payload_bytes: usize, used_bytes: usize, abandon: bool },
    Receive,
    ReceiveInto { bytes: usize },
    Peek,
    PeekMore { bytes_max: usize },
    PeekMany { max: usize },
    TakePlain,
    TakeEach { max: usize, stop_after: usize },
    Forget,
    Acknowledge,
    LookAtAcknowledged,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..1500_usize, any::<u8>()).prop_map(|(payload_bytes, fill)| Step::Send { payload_bytes, fill }),
        1 => (3000..4100_usize, any::<u8>()).prop_map(|(payload_bytes, fill)| Step::Send { payload_bytes, fill }),
        2 => (prop::collection::vec(0..400_usize, 0..12), any::<bool>())
            .prop_map(|(sizes, abandon)| Step::SendAll { sizes, abandon }),
        2 => (0..1500_usize, any::<u8>()).prop_map(|(payload_bytes, fill)| Step::SendWith { payload_bytes, fill }),
        2 => (0..20_usize, 0..300_usize, any::<u8>())
            .prop_map(|(count, payload_bytes, fill)| Step::SendEach { count, payload_bytes, fill }),
        1 => (0..3_usize, 3000..4100_usize, any::<u8>())
            .prop_map(|(count, payload_bytes, fill)| Step::SendEach { count, payload_bytes, fill }),
        2 => (0..2100_usize, 0..2100_usize, prop::bool::weighted(0.2))
            .prop_map(|(payload_bytes, used, abandon)| {
                Step::Loan { payload_bytes, used_bytes: used.min(payload_bytes), abandon }
            }),
        4 => Just(Step::Receive),
        1 => (0..2000_usize).prop_map(|bytes| Step::ReceiveInto { bytes }),
        1 => Just(Step::Peek),
        3 => (0..1600_usize).prop_map(|bytes_max| Step::PeekMore { bytes_max }),
        1 => (0..5_usize).prop_map(|max| Step::PeekMany { max }),
        2 => Just(Step::TakePlain),
        2 => (0..30_usize, 1..30_usize).prop_map(|(max, stop_after)| Step::TakeEach { max, stop_after }),
        1 => Just(Step::Forget),
        1 => Just(Step::Acknowledge),
        1 => Just(Step::LookAtAcknowledged),
    ];
    prop::collection::vec(step, 1..200)
}

const RING: usize = RING_BYTES as usize;
const PAYLOAD_MAX: usize = RING - 24;

type Sent = (RecordHeader, Vec<u8>);

/// What a lane is: a bounded queue of records, some of them without a message, a count, and how many were peeked.
struct Model {
    /// A message, or what was passed over.
    queue: VecDeque<(Option<Sent>, usize)>,
    head: usize,
    sent: u64,
    taken: u64,
    peeked: usize,
    /// Behind what was peeked there was a look, which passed over what lay there and found nothing to take.
    has_passed_behind: bool,
}

impl Model {
    fn used_bytes(&self) -> usize {
        self.queue.iter().map(|(_, bytes)| bytes).sum()
    }

    fn has_room(&self, bytes: usize) -> Result<(), SendError> {
        let needed_bytes = bytes + 8;
        if self.used_bytes() + needed_bytes > RING {
            return Err(SendError::Full { needed_bytes: needed_bytes as u32 });
        }
        Ok(())
    }

    fn push(&mut self, message: Option<Sent>, bytes: usize) {
        self.sent += u64::from(message.is_some());
        self.queue.push_back((message, bytes));
        self.head = (self.head + bytes) % RING;
    }

    fn send(&mut self, header: RecordHeader, payload: Vec<u8>) -> Result<(), SendError> {
        let asked_bytes = payload.len();
        if asked_bytes > PAYLOAD_MAX {
            return Err(SendError::TooLarge { asked_bytes, bytes_max: PAYLOAD_MAX });
        }
        let bytes = record_len(header, asked_bytes);
        self.has_room(bytes)?;
        self.push(Some((header, payload)), bytes);
        Ok(())
    }

    fn send_all(&mut self, payloads: &[Vec<u8>]) -> Result<(), SendError> {
        let header = RecordHeader::default();
        let all_bytes = payloads.iter().map(|payload| record_len(header, payload.len())).sum();
        if all_bytes > RING - 8 {
            return Err(SendError::TooLarge { asked_bytes: all_bytes, bytes_max: PAYLOAD_MAX });
        }
        self.has_room(all_bytes)?;
        for payload in payloads {
            self.push(Some((header, payload.clone())), record_len(header, payload.len()));
        }
        Ok(())
    }

    fn send_each(&mut self, payload_bytes: usize, payloads: &[Vec<u8>]) -> Result<(), SendError> {
        if payload_bytes > PAYLOAD_MAX {
            return Err(SendError::TooLarge { asked_bytes: payload_bytes, bytes_max: PAYLOAD_MAX });
        }
        self.send_all(payloads)
    }

    /// What is passed over for a loan, if there is room for it.
    fn loan(&self, header: RecordHeader, payload_bytes: usize) -> Result<usize, SendError> {
        let bytes_max = RING / 2 - 16;
        if payload_bytes > bytes_max {
            return Err(SendError::TooLarge { asked_bytes: payload_bytes, bytes_max });
        }
        let bytes = record_len(header, payload_bytes);
        let to_end = RING - self.head;
        let gap = if bytes > to_end { to_end } else { 0 };
        self.has_room(gap + bytes)?;
        Ok(gap)
    }

    /// The next message behind `skip` others.
    fn message(&self, skip: usize) -> Option<&Sent> {
        self.queue.iter().filter_map(|(message, _)| message.as_ref()).nth(skip)
    }

    /// The message behind so many others, if neither it nor what lies before it is out of the ordinary.
    fn plain(&self, skip: usize) -> Option<(u32, Vec<u8>)> {
        let is_plain = |header: &RecordHeader| header.flags == 0 && header.ticket == 0;
        let mut before = self.queue.iter().map(|(message, _)| message.as_ref());
        let next = before.nth(skip)??;
        let all = self
            .queue
            .iter()
            .take(skip + 1)
            .all(|(message, _)| message.as_ref().is_some_and(|(header, _)| is_plain(header)));
        all.then(|| (next.0.message_type, next.1.clone()))
    }

    /// Whether something that is no message lies behind what was peeked.
    fn has_gap_behind(&self) -> bool {
        let mut left = self.peeked;
        let behind = self.queue.iter().find(|(message, _)| {
            let is_behind = left == 0;
            left = left.saturating_sub(usize::from(message.is_some()));
            is_behind
        });
        behind.is_some_and(|(message, _)| message.is_none())
    }

    /// Takes so many messages and what was passed over before each.
    fn take(&mut self, count: usize) {
        let mut left = count;
        while left > 0 {
            let (message, _) = self.queue.pop_front().expect("peeked before");
            left -= usize::from(message.is_some());
        }
        self.taken += count as u64;
    }

    /// A look at the next record passes over what lies before it.
    fn pass_over(&mut self) {
        if self.queue.front().is_some_and(|(message, _)| message.is_none()) {
            self.queue.pop_front();
        }
    }
}

fn record_len(header: RecordHeader, payload_bytes: usize) -> usize {
    let extended = header.flags != 0 || header.ticket != 0;
    (if extended { 16 } else { 8 }) + payload_bytes.next_multiple_of(8)
}

fn bytes(len: usize, fill: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(fill).wrapping_add(fill)).collect()
}

fn send_step(bench: &mut Bench, model: &mut Model, step: &Step) {
    match step {
        Step::Send { payload_bytes, fill } => {
            let extension = u32::from(*fill) % 3;
            let header =
                RecordHeader { message_type: model.sent as u32, flags: extension, ticket: extension / 2 };
            let payload = bytes(*payload_bytes, *fill);
            assert_eq!(bench.sender.try_send(header, &payload), model.send(header, payload));
        }
        Step::SendAll { sizes, abandon } => {
            let payloads: Vec<Vec<u8>> = sizes.iter().map(|&len| bytes(len, len as u8 | 1)).collect();
            if *abandon {
                let mut batch = bench.sender.batch().expect("a live lane");
                for payload in &payloads {
                    let _ = batch.push(RecordHeader::default(), payload);
                }
                return;
            }
            let borrowed: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
            assert_eq!(bench.sender.try_send_all(&borrowed), model.send_all(&payloads));
        }
        Step::SendWith { payload_bytes, fill } => {
            let payload = bytes(*payload_bytes, *fill);
            let mut write = |place: &mut [u8]| place.copy_from_slice(&payload);
            let sent = if bench.sender.send_plain_with(*payload_bytes, &mut write) {
                Ok(())
            } else {
                bench.sender.try_send_each(1, *payload_bytes, &mut |_, place| write(place))
            };
            assert_eq!(sent, model.send(RecordHeader::default(), payload));
        }
        Step::SendEach { count, payload_bytes, fill } => {
            let payload = |index: usize| bytes(*payload_bytes, fill.wrapping_add(index as u8));
            let mut written = 0;
            let sent = bench.sender.try_send_each(*count, *payload_bytes, &mut |index, place| {
                assert_eq!(index, written, "in their order");
                written += 1;
                place.copy_from_slice(&payload(index));
            });
            assert_eq!(written, if sent.is_ok() { *count } else { 0 }, "all or none are asked for");
            assert_eq!(sent, model.send_each(*payload_bytes, &(0..*count).map(payload).collect::<Vec<_>>()));
        }
        Step::Loan { payload_bytes, used_bytes, abandon } => {
            let header = RecordHeader { message_type: 7, flags: model.sent as u32 % 2, ticket: 0 };
            let gap = model.loan(header, *payload_bytes);
            let loan = bench.sender.try_loan(header, *payload_bytes);
            let (mut loan, gap) = match (loan, gap) {
                (Ok(loan), Ok(gap)) => (loan, gap),
                (Err(refused), Err(expected)) => return assert_eq!(refused, expected),
                (loan, gap) => panic!("{loan:?} where {gap:?}"),
            };
            let payload = bytes(*used_bytes, 0x3D);
            loan.payload_mut()[..*used_bytes].copy_from_slice(&payload);
            assert_eq!(loan.payload().len(), *payload_bytes);
            if *abandon {
                return;
            }
            loan.commit(*used_bytes).1.expect("a live lane");
            if gap > 0 {
                model.push(None, gap);
            }
            model.push(Some((header, payload)), record_len(header, *used_bytes));
        }
        _ => receive_step(bench, model, step),
    }
}

fn receive_step(bench: &mut Bench, model: &mut Model, step: &Step) {
    let mut out = vec![9; 5];
    match *step {
        Step::Receive => {
            model.pass_over();
            let got = bench.receiver.try_receive(&mut out).expect("an honest lane");
            assert_eq!(got.map(|header| (header, out)), model.message(0).cloned());
            model.take(usize::from(got.is_some()));
            (model.peeked, model.has_passed_behind) = (0, false);
        }
        Step::ReceiveInto { bytes } => {
            model.pass_over();
            let mut buffer = vec![7; bytes];
            let got = bench.receiver.try_receive_into(&mut buffer);
            let needed_bytes = model.message(0).map_or(0, |(_, payload)| payload.len());
            if needed_bytes > bytes {
                assert_eq!(got, Err(ReceiveError::BufferTooSmall { needed_bytes, given_bytes: bytes }));
            } else {
                let got = got.expect("an honest lane");
                assert_eq!(
                    got.map(|(header, len)| (header, buffer[..len].to_vec())),
                    model.message(0).cloned()
                );
                model.take(usize::from(got.is_some()));
            }
            (model.peeked, model.has_passed_behind) = (0, false);
        }
        Step::Peek => {
            model.pass_over();
            let got = bench.receiver.peek(&mut out).expect("an honest lane");
            (model.peeked, model.has_passed_behind) = (usize::from(got.is_some()), false);
            assert_eq!(got.map(|header| (header, out)), model.message(0).cloned());
        }
        Step::PeekMore { bytes_max } => {
            if model.peeked == 0 {
                model.pass_over();
            }
            let next = model.message(model.peeked).filter(|(_, payload)| payload.len() <= bytes_max);
            let got = bench.receiver.peek_more(&mut out, bytes_max).expect("an honest lane");
            assert_eq!(out[..5], [9; 5], "what was there stays");
            assert_eq!(got.map(|header| (header, out[5..].to_vec())), next.cloned());
            model.peeked += usize::from(got.is_some());
            model.has_passed_behind = got.is_none() && model.has_gap_behind();
        }
        Step::PeekMany { max } => peek_many(bench, model, max),
        Step::TakePlain => {
            let got = bench.receiver.take_plain(&mut out);
            let next = model.plain(0);
            let got = got.map(|(message_type, len)| (message_type, out[..len].to_vec()));
            assert_eq!(got, next);
            model.take(usize::from(next.is_some()));
            (model.peeked, model.has_passed_behind) = (0, false);
        }
        Step::TakeEach { max, stop_after } => {
            let mut got = Vec::new();
            let count = bench.receiver.take_each(&mut out, max, |message_type, payload| {
                got.push((message_type, payload.to_vec()));
                if got.len() == stop_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            let expected: Vec<_> = (0..max.min(stop_after)).map_while(|at| model.plain(at)).collect();
            assert_eq!((count, got), (expected.len(), expected));
            model.take(count);
            (model.peeked, model.has_passed_behind) = (0, false);
        }
        Step::Forget => {
            bench.receiver.forget();
            (model.peeked, model.has_passed_behind) = (0, false);
        }
        Step::Acknowledge => {
            bench.receiver.acknowledge();
            let peeked = core::mem::take(&mut model.peeked);
            model.take(peeked);
            if peeked > 0 && model.has_passed_behind {
                model.pass_over();
            }
        }
        Step::LookAtAcknowledged => {
            let expected = Acknowledged { messages: model.taken, sent: model.sent };
            assert_eq!(bench.sender.acknowledged(), expected);
        }
        Step::Send { .. }
        | Step::SendAll { .. }
        | Step::SendWith { .. }
        | Step::SendEach { .. }
        | Step::Loan { .. } => unreachable!("the sender's"),
    }
    assert_eq!(bench.receiver.taken(), model.taken);
}

fn peek_many(bench: &mut Bench, model: &mut Model, max: usize) {
    if model.peeked == 0 && max > 0 {
        model.pass_over();
    }
    let (mut out, mut got) = (vec![9; 5], Vec::new());
    let peeked = bench.receiver.peek_many(&mut out, max, |from, to, header| {
        got.push((header, from, to));
        ControlFlow::Continue(())
    });
    peeked.expect("an honest lane");
    assert_eq!(out[..5], [9; 5], "what was there stays");
    let got: Vec<Sent> = got.into_iter().map(|(header, from, to)| (header, out[from..to].to_vec())).collect();
    let expected: Vec<Sent> =
        (model.peeked..model.peeked + max).map_while(|at| model.message(at).cloned()).collect();
    assert_eq!(got, expected);
    model.peeked += got.len();
    if max > 0 {
        model.has_passed_behind = got.len() < max && model.has_gap_behind();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_lane_is_a_bounded_queue(
        before_wrap in prop_oneof![Just(0), 0..40_000_u32],
        steps in steps(),
    ) {
        let position = (before_wrap / 8 * 8).wrapping_neg();
        let mut bench = Bench::starting_at(position);
        let head = (position & (RING_BYTES - 1)) as usize;
        let mut model = Model { queue: VecDeque::new(), head, sent: 0, taken: 0, peeked: 0, has_passed_behind: false };
        for step in steps {
            send_step(&mut bench, &mut model, &step);
        }
        let mut out = Vec::new();
        bench.receiver.forget();
        while let Some((header, payload)) = model.message(0).cloned() {
            prop_assert!(bench.receiver.is_ready());
            prop_assert_eq!(bench.receiver.try_receive(&mut out), Ok(Some(header)));
            prop_assert_eq!(&out, &payload);
            model.take(1);
        }
        prop_assert_eq!(bench.receiver.try_receive(&mut out), Ok(None));
        prop_assert!(!bench.receiver.is_ready());
    }
}
