//! What a message carries: a number from which the reader can tell that every byte arrived.
//!
//! Word `i` of a message is its number plus `i`, so that each word differs from its neighbours and from the message
//! before. The number also says who sent it, where several do.
//!
//! The bare systems write and read messages in memory that both sides have mapped, so the loops work on addresses. A
//! message is whole words; sizes that streams use have loops of their own, which the compiler unrolls.

use std::ptr::NonNull;

use crate::{
    Result,
    scenario::{Scenario, Touch},
};

/// How many senders a number can tell apart is what is left of its 64 bits.
const SEQUENCE_BITS: u32 = 56;
const SEQUENCE_MASK: u64 = (1 << SEQUENCE_BITS) - 1;

/// The sequence of a sender's last message.
pub(crate) const LAST: u64 = SEQUENCE_MASK;

pub(crate) const WORD_BYTES: usize = 8;

/// The number of a message: its sender, and its place in what that one sends.
pub(crate) fn number(sender: usize, sequence: u64) -> u64 {
    (sender as u64) << SEQUENCE_BITS | sequence
}

pub(crate) fn sender(number: u64) -> usize {
    (number >> SEQUENCE_BITS) as usize
}

pub(crate) fn sequence(number: u64) -> u64 {
    number & SEQUENCE_MASK
}

/// How messages of a scenario look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content {
    pub(crate) bytes: usize,
    touch: Touch,
}

impl Content {
    pub(crate) fn of(scenario: Scenario) -> Self {
        Self { bytes: scenario.bytes, touch: scenario.touch() }
    }

    /// Makes the buffer the message of this number.
    #[inline]
    pub(crate) fn fill(self, buffer: &mut [u8], number: u64) {
        assert!(buffer.len() >= self.bytes, "a buffer of {} bytes", buffer.len());
        // SAFETY: 1. The buffer has as many bytes (check above). 2. It is borrowed for writing.
        unsafe { self.fill_at(NonNull::from(buffer).cast(), number) }
    }

    /// The number of the message in the buffer.
    ///
    /// # Errors
    /// Where the buffer has another length, or not all bytes are of that message.
    #[inline]
    pub(crate) fn judge(self, buffer: &[u8]) -> Result<u64> {
        if buffer.len() != self.bytes {
            return Err(format!("received {} bytes instead of {}", buffer.len(), self.bytes).into());
        }
        // SAFETY: 1. The buffer has as many bytes (check above). 2. It is borrowed.
        unsafe { self.judge_at(NonNull::from(buffer).cast()) }
    }

    /// As [`Content::fill`].
    ///
    /// # Safety
    /// `self.bytes` bytes from `start` on are mapped, and nobody else reads or writes them meanwhile.
    #[inline]
    pub(crate) unsafe fn fill_at(self, start: NonNull<u8>, number: u64) {
        // SAFETY: `words` is at most `bytes / 8` (caller).
        unsafe { write_message(start.cast(), self.words(), number) }
    }

    /// As [`Content::judge`].
    ///
    /// # Safety
    /// `self.bytes` bytes from `start` on are mapped and initialised, and nobody else writes them meanwhile.
    #[inline]
    pub(crate) unsafe fn judge_at(self, start: NonNull<u8>) -> Result<u64> {
        // SAFETY: `words` is at most `bytes / 8` (caller).
        let (number, difference) = unsafe { read_message(start.cast(), self.words()) };
        if difference == 0 { Ok(number) } else { Err(torn(number)) }
    }

    /// How many words are written and read.
    #[inline]
    fn words(self) -> usize {
        match self.touch {
            Touch::Every => self.bytes / WORD_BYTES,
            Touch::Number => 1,
        }
    }
}

/// A message that is read in pieces of whole words.
pub(crate) struct Pieces {
    content: Content,
    number: Option<u64>,
    words: u64,
    difference: u64,
}

impl Pieces {
    pub(crate) fn new(content: Content) -> Self {
        Self { content, number: None, words: 0, difference: 0 }
    }

    /// Whether more than the first word is to be read.
    pub(crate) fn wants_all(&self) -> bool {
        self.content.touch == Touch::Every
    }

    /// The next piece.
    #[inline]
    pub(crate) fn add(&mut self, piece: &[u8]) {
        let count = piece.len() / WORD_BYTES;
        if count == 0 {
            return;
        }
        // SAFETY: the piece has so many words, and at least one.
        let (first, difference) = unsafe { read_message(NonNull::from(piece).cast(), count) };
        let number = *self.number.get_or_insert(first);
        self.difference |= difference | first ^ number.wrapping_add(self.words);
        self.words += count as u64;
    }

    /// The number of the message, which has so many bytes.
    ///
    /// # Errors
    /// As [`Content::judge`].
    pub(crate) fn judge(self, bytes: usize) -> Result<u64> {
        let number = self.number.unwrap_or_default();
        if bytes != self.content.bytes || self.words != self.content.words() as u64 {
            return Err(format!("received {bytes} bytes instead of {}", self.content.bytes).into());
        }
        if self.difference == 0 { Ok(number) } else { Err(torn(number)) }
    }
}

/// As [`write_words`], with loops of their own for the counts that matter most.
///
/// # Safety
/// As [`write_words`].
#[inline]
unsafe fn write_message(start: NonNull<u64>, count: usize, number: u64) {
    match count {
        1 => {
            // SAFETY: as many as the caller says.
            unsafe { write_words(start, 1, number) }
        }
        8 => {
            // SAFETY: as many as the caller says.
            unsafe { write_words(start, 8, number) }
        }
        count => {
            // SAFETY: as many as the caller says.
            unsafe { write_words(start, count, number) }
        }
    }
}

/// As [`read_words`], with loops of their own for the counts that matter most.
///
/// # Safety
/// As [`read_words`].
#[inline]
unsafe fn read_message(start: NonNull<u64>, count: usize) -> (u64, u64) {
    match count {
        1 => {
            // SAFETY: as many as the caller says.
            unsafe { read_words(start, 1) }
        }
        8 => {
            // SAFETY: as many as the caller says.
            unsafe { read_words(start, 8) }
        }
        count => {
            // SAFETY: as many as the caller says.
            unsafe { read_words(start, count) }
        }
    }
}

/// # Safety
/// `count` words from `start` on are ours to write.
#[inline(always)]
#[expect(clippy::inline_always, reason = "with a count that is known it is a handful of instructions")]
unsafe fn write_words(start: NonNull<u64>, count: usize, number: u64) {
    for step in 0..count {
        // SAFETY: the word is one of `count` (caller).
        let word = unsafe { start.add(step) };
        // SAFETY: as above; a buffer of bytes need not be aligned.
        unsafe { word.write_unaligned(number.wrapping_add(step as u64)) };
    }
}

/// The first word, and the bits in which any word is not what it should be.
///
/// # Safety
/// `count` words from `start` on may be read.
#[inline(always)]
#[expect(clippy::inline_always, reason = "as above")]
unsafe fn read_words(start: NonNull<u64>, count: usize) -> (u64, u64) {
    // SAFETY: there is a first word (caller: no scenario has messages of less).
    let number = unsafe { start.read_unaligned() };
    let mut difference = 0;
    for step in 1..count {
        // SAFETY: the word is one of `count` (caller).
        let word = unsafe { start.add(step) };
        // SAFETY: as above; a buffer of bytes need not be aligned.
        difference |= unsafe { word.read_unaligned() } ^ number.wrapping_add(step as u64);
    }
    (number, difference)
}

#[cold]
fn torn(number: u64) -> Box<dyn std::error::Error> {
    format!("message {} of sender {} is torn", sequence(number), sender(number)).into()
}

#[cfg(test)]
mod tests {
    use crate::scenario::Scenario;

    use super::{Content, LAST, number, sender, sequence};

    #[test]
    fn a_changed_byte_is_noticed() {
        for scenario in Scenario::all() {
            let content = Content::of(scenario);
            let mut buffer = vec![0; scenario.bytes];
            content.fill(&mut buffer, number(3, 7));
            assert_eq!(content.judge(&buffer).ok(), Some(number(3, 7)));
            assert!(content.judge(&buffer[1..]).is_err());
            let at = scenario.bytes - 1;
            buffer[at] ^= 1;
            let is_seen = content.judge(&buffer).ok() != Some(number(3, 7));
            assert_eq!(is_seen, scenario.touch() == super::Touch::Every, "{}", scenario.name());
        }
    }

    #[test]
    fn a_number_keeps_its_sender_and_sequence() {
        for of in 0..4 {
            assert_eq!((sender(number(of, LAST)), sequence(number(of, LAST))), (of, LAST));
        }
    }
}
