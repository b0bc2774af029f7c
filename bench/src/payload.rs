//! The 64 bytes of a message: a sequence number from which the reader can tell that every byte arrived.

/// The sequence number of the last message.
pub(crate) const LAST: u64 = u64::MAX;

pub(crate) const PAYLOAD_BYTES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub(crate) struct Payload([u64; 8]);

impl Payload {
    /// Word `i` is the sequence number plus `i`, so that each word differs from its neighbours and from the message before.
    #[inline]
    pub(crate) fn numbered(sequence: u64) -> Self {
        let mut words = [0; 8];
        for (step, word) in (0..).zip(&mut words) {
            *word = sequence.wrapping_add(step);
        }
        Self(words)
    }

    #[inline]
    pub(crate) fn sequence(&self) -> u64 {
        self.0[0]
    }

    /// Reads all the words.
    #[inline]
    pub(crate) fn is_whole(&self) -> bool {
        *self == Self::numbered(self.sequence())
    }

    #[inline]
    pub(crate) fn words(&self) -> [u64; 8] {
        self.0
    }

    #[inline]
    pub(crate) fn from_words(words: [u64; 8]) -> Self {
        Self(words)
    }

    #[inline]
    pub(crate) fn to_bytes(self) -> [u8; PAYLOAD_BYTES] {
        let mut bytes = [0; PAYLOAD_BYTES];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    #[inline]
    pub(crate) fn from_bytes(bytes: [u8; PAYLOAD_BYTES]) -> Self {
        let mut words = [0; 8];
        for (word, chunk) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_ne_bytes(*chunk);
        }
        Self(words)
    }
}
