//! Scenes of the long run of kills: who is killed and when, and what both sides do meanwhile. Each follows from its seed.
//!
//! Also what both sides share: the bytes of each message, and what a victim notes of its progress.

use std::{
    os::fd::OwnedFd,
    panic,
    sync::{
        OnceLock,
        atomic::{Ordering, compiler_fence},
    },
    time::Duration,
};

use keyway::{QueueOptions, SenderOptions, WaitStyle};
use keyway_sys::memory::{self, Access, Mapping, Populate, View};

use crate::stage::Dice;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    pub(crate) seed: u64,
    pub(crate) victim: Victim,
    pub(crate) sends: Sends,
    pub(crate) takes: Takes,
    pub(crate) pace: Pace,
    pub(crate) ring_bytes: u32,
    pub(crate) sender_waits: WaitStyle,
    pub(crate) receiver_waits: WaitStyle,
    /// The victim is killed so long after it was started, or after it was ready.
    pub(crate) delay: Duration,
    pub(crate) is_from_birth: bool,
    lengths: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Victim {
    Sender,
    Receiver,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sends {
    /// One by one.
    Single,
    /// One by one, written where they lie.
    With,
    Batch,
    /// As many of one length as go together, written where they lie.
    Each,
    Loan,
    /// Some of the payloads are too large for the ring.
    Large,
    /// The same, written where they lie: those in a block of a pool.
    LargeWith,
    /// Each message names a part of a pool.
    Segments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Takes {
    Whole,
    Ref,
    Into,
    Each,
    Many,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pace {
    Full,
    /// After so many messages nothing more is sent: the receiver is asleep.
    SendsUpTo(u64),
    /// After so many messages nothing more is taken: the lane is full, and its sender asleep.
    TakesUpTo(u64),
}

/// The most that is taken at once.
pub(crate) const MANY: usize = 50;

impl Scene {
    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let victim = [Victim::Sender, Victim::Receiver][dice.below(2) as usize];
        let sends = match dice.below(16) {
            0..4 => Sends::Single,
            4..6 => Sends::With,
            6..9 => Sends::Batch,
            9..11 => Sends::Each,
            11..13 => Sends::Loan,
            13 => Sends::Large,
            14 => Sends::LargeWith,
            _ => Sends::Segments,
        };
        let takes = match (sends, dice.below(5)) {
            // The other ways drop segments.
            (Sends::Segments, 0..3) | (_, 0) => Takes::Whole,
            (Sends::Segments, _) | (_, 1) => Takes::Many,
            (_, 2) => Takes::Ref,
            (_, 3) => Takes::Into,
            _ => Takes::Each,
        };
        let pace = match dice.below(8) {
            0 => Pace::SendsUpTo(dice.below(3000)),
            1 => Pace::TakesUpTo(dice.below(3000)),
            _ => Pace::Full,
        };
        let ring_bytes = match sends {
            Sends::Large | Sends::LargeWith => 4096,
            _ => [4096, 4096, 1 << 16, 1 << 20][dice.below(4) as usize],
        };
        let lengths = [1, 1, 90, 90, 900][dice.below(5) as usize];
        let mut waits = || {
            [WaitStyle::Adaptive, WaitStyle::Sleep, WaitStyle::Adaptive, WaitStyle::Spin]
                [dice.below(4) as usize]
        };
        let (sender_waits, receiver_waits) = (waits(), waits());
        let is_from_birth = dice.below(8) == 0;
        let delay_us = match dice.below(4) {
            _ if is_from_birth => 15_000,
            0 => 300,
            1 => 4_000,
            _ => 150_000,
        };
        let delay = Duration::from_micros(dice.below(delay_us));
        Scene {
            seed,
            victim,
            sends,
            takes,
            pace,
            ring_bytes,
            sender_waits,
            receiver_waits,
            delay,
            is_from_birth,
            lengths,
        }
    }

    pub(crate) fn sender_options(&self) -> SenderOptions {
        let (ring_bytes, wait) = (Some(self.ring_bytes), self.sender_waits);
        SenderOptions { ring_bytes, wait, ..SenderOptions::default() }
    }

    pub(crate) fn queue_options(&self) -> QueueOptions {
        QueueOptions { wait: self.receiver_waits, ..QueueOptions::default() }
    }

    /// How many messages the sender sends at most.
    pub(crate) fn sends_max(&self) -> u64 {
        if let Pace::SendsUpTo(count) = self.pace { count } else { u64::MAX }
    }

    /// How many messages the receiver takes at most, or a few more.
    pub(crate) fn takes_max(&self) -> u64 {
        if let Pace::TakesUpTo(count) = self.pace { count } else { u64::MAX }
    }

    /// How many messages go together if the next is this one.
    pub(crate) fn portion(&self, number: u64) -> u64 {
        match self.sends {
            Sends::Batch => 1 + mixed(number) % self.together_max(),
            // All that are left of those of one length, or some of them.
            Sends::Each => 1 + mixed(number) % (self.together_max() - number % self.together_max()),
            _ => 1,
        }
    }

    /// How many surely fit into the smallest ring.
    fn together_max(&self) -> u64 {
        (3000 / (16 + self.lengths)).clamp(2, 64)
    }

    /// How long a message is.
    pub(crate) fn payload_bytes(&self, number: u64) -> usize {
        let mixed = match self.sends {
            Sends::Each => mixed(number / self.together_max()),
            _ => mixed(number),
        };
        let may_be_large = matches!(self.sends, Sends::Large | Sends::LargeWith);
        let is_large = may_be_large && mixed & 0x700 == 0;
        8 + (mixed % if is_large { 30_000 } else { self.lengths }) as usize
    }
}

/// How long the part of a pool is that goes with a message.
pub(crate) fn part_bytes(number: u64) -> usize {
    8 + (mixed(number) >> 16) as usize % 9_000
}

fn mixed(number: u64) -> u64 {
    let mixed = (number ^ number >> 7).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ mixed >> 29
}

/// What the bytes behind the numbers are made of. Messages begin at so many places.
const PLACES: usize = 1 << 16;
const PAYLOAD_BYTES_MAX: usize = 1 << 15;

fn noise() -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE.get_or_init(|| {
        let mut dice = Dice(1);
        (0..PLACES + PAYLOAD_BYTES_MAX).map(|_| dice.below(256) as u8).collect()
    })
}

/// The bytes of a message, or of its part: its number, and more that follow from it.
pub(crate) fn write(number: u64, out: &mut [u8]) {
    let at = (mixed(number) >> 20) as usize & (PLACES - 1);
    let (first, rest) = out.split_at_mut(8);
    first.copy_from_slice(&number.to_le_bytes());
    rest.copy_from_slice(&noise()[at..at + rest.len()]);
}

/// Whether it is all there.
pub(crate) fn is_whole(number: u64, len: usize, bytes: &[u8]) -> bool {
    let at = (mixed(number) >> 20) as usize & (PLACES - 1);
    bytes.len() == len && bytes[..8] == number.to_le_bytes() && bytes[8..] == noise()[at..at + len - 8]
}

/// A page that a victim writes and the survivor reads: how far it surely was, and how far it may have been.
pub(crate) struct Notes {
    page: View,
}

/// Apart from each other, for the sake of the processor.
const SURELY: usize = 0;
const AT_MOST: usize = 128;
/// Not zero once it has panicked: it may be killed before that is seen otherwise.
const PANICKED: usize = 256;
const NOTES_BYTES: usize = 4096;

impl Notes {
    /// An empty page to be read, and what the victim inherits.
    pub(crate) fn lay_out() -> (Self, OwnedFd) {
        let fd = memory::create_memory("notes", NOTES_BYTES).unwrap();
        (Self::map(&fd, Access::Read), fd)
    }

    /// The page that was inherited, to be written.
    pub(crate) fn inherited(number: &str) -> Self {
        Self::map(&keyway_sys::inherited::take(number.parse().unwrap()).unwrap(), Access::Write)
    }

    fn map(fd: &OwnedFd, access: Access) -> Self {
        let page = Mapping::new(fd, NOTES_BYTES, access, Populate::Now).unwrap().view();
        Notes { page }
    }

    /// From now on it may have come as far as this.
    #[inline]
    pub(crate) fn may_reach(&self, count: u64) {
        self.store(AT_MOST, count);
    }

    /// It has come as far as this.
    #[inline]
    pub(crate) fn has_reached(&self, count: u64) {
        self.store(SURELY, count);
    }

    /// Nothing is moved past a note: a process that is killed has done all that comes before the instruction at which it is
    /// killed.
    #[inline]
    fn store(&self, at: usize, count: u64) {
        compiler_fence(Ordering::SeqCst);
        self.page.store_u32(at, u32::try_from(count).unwrap(), Ordering::Release);
        compiler_fence(Ordering::SeqCst);
    }

    /// Notes it if this process panics.
    pub(crate) fn note_panics(&self) {
        let (page, before) = (self.page.clone(), panic::take_hook());
        panic::set_hook(Box::new(move |info| {
            page.store_u32(PANICKED, 1, Ordering::Release);
            before(info);
        }));
    }

    /// How far it surely was, and at most. To be asked once it is dead.
    pub(crate) fn read(&self) -> (u64, u64) {
        assert_eq!(self.page.load_u32(PANICKED, Ordering::Acquire), 0, "the victim found a fault");
        let [surely, at_most] = [SURELY, AT_MOST].map(|at| self.page.load_u32(at, Ordering::Acquire));
        (surely.into(), at_most.into())
    }
}
