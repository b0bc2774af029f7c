//! The crate ringfire: a ring in shared memory and no more. What the bare ring is held against.
//!
//! As its documentation says for speed: records of a fixed size, `push` and `try_recv` polled, `push_batch` and
//! `recv_batch` for batches; asleep, its `FutexWait` without spins. Nothing may be lost, so rings are made with
//! `LosslessBackpressure`; one ring for each direction, and of one sender all receivers read the same ring. The processes
//! find each other's rings by path. There is a ring for one producer only.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    ptr::NonNull,
    thread,
};

use ringfire::{
    BusySpin, FlowControl, FutexWait, RingConsumer, RingConsumerBuilder, RingProducer, RingProducerBuilder,
    WaitStrategy,
};

use crate::{
    Result,
    payload::{Content, WORD_BYTES},
    scenario::{Kind, Scenario, Waiting},
    side::{Port, Role, Side},
    systems::{Rank, System},
};

pub(crate) struct Ringfire;

impl System for Ringfire {
    fn name(&self) -> &'static str {
        "ringfire"
    }

    fn rank(&self) -> Rank {
        Rank::Ring
    }

    fn offers(&self, scenario: Scenario) -> bool {
        let is_record = matches!(scenario.bytes, 8 | 64 | 256 | 1024 | 4096);
        is_record
            && matches!(scenario.kind, Kind::RoundTrip(_) | Kind::OneWay | Kind::FanOut(_) | Kind::FanIn(1))
    }

    fn take_side(&self, side: &Side) -> Result<()> {
        match side.content().bytes {
            8 => talk::<1>(side),
            64 => talk::<8>(side),
            256 => talk::<32>(side),
            1024 => talk::<128>(side),
            4096 => talk::<512>(side),
            bytes => Err(format!("no record has {bytes} bytes").into()),
        }
    }
}

/// A record. Its words are a message.
#[derive(Clone, Copy)]
#[repr(C)]
struct Words<const N: usize>([u64; N]);

/// Slots of a ring: of 256 to 16 384, streams of 64 bytes were fastest with these.
const SLOTS: u64 = 4096;
/// Records that are sent or received together at most.
const BATCH_MAX: usize = 32;

fn talk<const N: usize>(side: &Side) -> Result<()> {
    match side.scenario().waiting() {
        Waiting::Spinning => talk_waiting::<N, _>(side, BusySpin::new()),
        Waiting::Sleeping => talk_waiting::<N, _>(side, FutexWait::new(0, None)),
        Waiting::Default => talk_waiting::<N, _>(side, FutexWait::default()),
    }
}

fn talk_waiting<const N: usize, W: WaitStrategy>(side: &Side, wait: W) -> Result<()> {
    // Memory that no disk is behind, under a name that is swept where this run is killed.
    let path = |role: Role| {
        let end = if role == Role::Asker { "asker" } else { "answerer" };
        PathBuf::from("/dev/shm").join(format!("{}-ringfire-{end}", side.place().name()))
    };
    let other = if side.role() == Role::Asker { Role::Answerer } else { Role::Asker };
    // Of several answerers none sends.
    let sends = side.role() == Role::Asker || side.scenario().answerers() == 1;
    let producer = sends.then(|| {
        RingProducerBuilder::new(SLOTS)
            .flow_control(FlowControl::LosslessBackpressure)
            .build::<Words<N>, &Path>(&path(side.role()))
    });
    let producer = producer.transpose()?;
    side.meet()?;
    let receives = side.role() == Role::Answerer || side.scenario().answerers() == 1;
    let consumer =
        receives.then(|| RingConsumerBuilder::<Words<N>>::new().start_from_oldest().attach(path(other)));
    let consumer = consumer.transpose()?;
    let zero = Words([0; N]);
    side.talk(Ends {
        content: side.content(),
        producer,
        consumer,
        wait,
        batch: [zero; BATCH_MAX],
        is_crowded: side.scenario().is_crowded(),
    })
}

struct Ends<const N: usize, W> {
    content: Content,
    producer: Option<RingProducer<Words<N>>>,
    consumer: Option<RingConsumer<Words<N>>>,
    wait: W,
    batch: [Words<N>; BATCH_MAX],
    is_crowded: bool,
}

const NO_END: &str = "this side has no such end";

impl<const N: usize, W> Ends<N, W> {
    #[inline]
    fn fill(content: Content, record: &mut Words<N>, number: u64) {
        debug_assert_eq!(content.bytes, N * WORD_BYTES, "the record is a message");
        // SAFETY: the record has as many bytes as a message (`take_side`) and is ours.
        unsafe { content.fill_at(NonNull::from(record).cast(), number) }
    }

    #[inline]
    fn judge(content: Content, record: &Words<N>) -> Result<u64> {
        // SAFETY: as in `fill`.
        unsafe { content.judge_at(NonNull::from(record).cast()) }
    }
}

impl<const N: usize, W: WaitStrategy> Port for Ends<N, W> {
    #[inline]
    fn send(&mut self, number: u64) -> Result<()> {
        let mut record = Words([0; N]);
        Self::fill(self.content, &mut record, number);
        self.producer.as_mut().ok_or(NO_END)?.push(&record);
        Ok(())
    }

    #[inline]
    fn receive(&mut self) -> Result<u64> {
        let consumer = self.consumer.as_mut().ok_or(NO_END)?;
        if self.is_crowded {
            loop {
                if let Some(record) = consumer.try_recv() {
                    return Self::judge(self.content, &record);
                }
                thread::yield_now();
            }
        }
        let record = consumer.recv_blocking(&mut self.wait);
        Self::judge(self.content, &record)
    }

    #[inline]
    fn send_batch(&mut self, numbers: Range<u64>) -> Result<()> {
        let count = (numbers.end - numbers.start) as usize;
        for (record, number) in self.batch.iter_mut().zip(numbers) {
            Self::fill(self.content, record, number);
        }
        self.producer.as_mut().ok_or(NO_END)?.push_batch(&self.batch[..count]);
        Ok(())
    }

    #[inline]
    fn receive_batch(&mut self, most: usize, take: &mut impl FnMut(u64) -> Result<()>) -> Result<()> {
        if most == 1 {
            return take(self.receive()?);
        }
        let consumer = self.consumer.as_mut().ok_or(NO_END)?;
        let records = &mut self.batch[..most.min(BATCH_MAX)];
        let mut count = 0;
        while count == 0 {
            count = consumer.recv_batch(records);
        }
        for record in &records[..count] {
            take(Self::judge(self.content, record)?)?;
        }
        Ok(())
    }
}
