//! A lane against a queue in private memory: whatever the sequence, what comes out is what went in.

use alloc::collections::VecDeque;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Send { payload_bytes: usize, fill: u8 },
    Receive,
    ReceiveInto { bytes: usize },
    Peek,
    Acknowledge,
    LookAtAcknowledged,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..1500_usize, any::<u8>()).prop_map(|(payload_bytes, fill)| Step::Send { payload_bytes, fill }),
        1 => (3000..4100_usize, any::<u8>()).prop_map(|(payload_bytes, fill)| Step::Send { payload_bytes, fill }),
        3 => Just(Step::Receive),
        1 => (0..2000_usize).prop_map(|bytes| Step::ReceiveInto { bytes }),
        1 => Just(Step::Peek),
        1 => Just(Step::Acknowledge),
        1 => Just(Step::LookAtAcknowledged),
    ];
    prop::collection::vec(step, 1..200)
}

/// What a lane is: a bounded queue, a count, and whether its first message has been peeked.
#[derive(Default)]
struct Model {
    queue: VecDeque<(RecordHeader, Vec<u8>)>,
    sent: u64,
    peeked: bool,
}

impl Model {
    fn used_bytes(&self) -> usize {
        self.queue.iter().map(|(_, payload)| record_len(payload.len())).sum()
    }

    fn taken(&self) -> u64 {
        self.sent - self.queue.len() as u64
    }

    fn send(&mut self, header: RecordHeader, payload: Vec<u8>) -> Result<(), SendError> {
        let (asked_bytes, bytes_max) = (payload.len(), RING_BYTES as usize - 16);
        if asked_bytes > bytes_max {
            return Err(SendError::TooLarge { asked_bytes, bytes_max });
        }
        if self.used_bytes() + record_len(asked_bytes) > RING_BYTES as usize {
            return Err(SendError::Full);
        }
        self.queue.push_back((header, payload));
        self.sent += 1;
        Ok(())
    }
}

fn record_len(payload_bytes: usize) -> usize {
    16 + payload_bytes.next_multiple_of(8)
}

fn run_step(bench: &mut Bench, model: &mut Model, step: &Step) {
    let mut out = vec![9; 5];
    match *step {
        Step::Send { payload_bytes, fill } => {
            let header = RecordHeader { message_type: model.sent as u32, flags: fill.into(), ticket: 5 };
            let payload: Vec<u8> = (0..payload_bytes).map(|at| (at as u8).wrapping_mul(fill)).collect();
            let sent = bench.sender.try_send(header, &payload);
            assert_eq!(sent, model.send(header, payload));
        }
        Step::Receive => {
            let got = bench.receiver.try_receive(&mut out).expect("an honest lane");
            assert_eq!(got.map(|header| (header, out)), model.queue.pop_front());
            model.peeked = false;
        }
        Step::ReceiveInto { bytes } => {
            let mut buffer = vec![7; bytes];
            let got = bench.receiver.try_receive_into(&mut buffer);
            let needed_bytes = model.queue.front().map_or(0, |(_, payload)| payload.len());
            if needed_bytes > bytes {
                assert_eq!(got, Err(ReceiveError::BufferTooSmall { needed_bytes, given_bytes: bytes }));
            } else {
                let got = got.expect("an honest lane");
                assert_eq!(
                    got.map(|(header, len)| (header, buffer[..len].to_vec())),
                    model.queue.pop_front()
                );
            }
            model.peeked = false;
        }
        Step::Peek => {
            let got = bench.receiver.peek(&mut out).expect("an honest lane");
            assert_eq!(got.map(|header| (header, out)), model.queue.front().cloned());
            model.peeked = !model.queue.is_empty();
        }
        Step::Acknowledge => {
            bench.receiver.acknowledge();
            if core::mem::take(&mut model.peeked) {
                model.queue.pop_front();
            }
        }
        Step::LookAtAcknowledged => {
            let expected = Acknowledged { messages: model.taken(), sent: model.sent };
            assert_eq!(bench.sender.acknowledged(), expected);
        }
    }
    assert_eq!(bench.receiver.taken(), model.taken());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_lane_is_a_bounded_queue(
        before_wrap in prop_oneof![Just(0), 0..40_000_u32],
        steps in steps(),
    ) {
        let mut bench = Bench::starting_at((before_wrap / 8 * 8).wrapping_neg());
        let mut model = Model::default();
        for step in steps {
            run_step(&mut bench, &mut model, &step);
        }
    }
}
