//! A record's first words: what they say, and how long the record is with its padding.

use keyway_abi::layout::{
    COMMIT_BYTES, EXTENSION_BYTES, KIND_EXTENDED, KIND_PADDING, KIND_PLAIN, RECORD_ALIGN_BYTES, SIZE_BITS,
};

use crate::lane::LaneFault;

/// What a message says besides its payload. The lane's badge says who sent it; nothing here does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RecordHeader {
    /// The document's message type; its meaning is the receiver's and sender's own.
    pub message_type: u32,
    /// The document's message flags.
    pub flags: u32,
    /// Under which ticket capabilities of this message lie in escrow, or 0. An allegation: what it names is decided by
    /// the broker.
    pub ticket: u32,
}

const SIZE_MASK: u32 = (1 << SIZE_BITS) - 1;

impl RecordHeader {
    /// Bytes in front of the payload.
    #[inline]
    pub(super) fn bytes(self) -> u32 {
        if self.is_extended() { (COMMIT_BYTES + EXTENSION_BYTES) as u32 } else { COMMIT_BYTES as u32 }
    }

    /// The word that commits the record.
    #[inline]
    pub(super) fn commit(self, payload_bytes: u32) -> u64 {
        let kind = if self.is_extended() { KIND_EXTENDED } else { KIND_PLAIN };
        word(payload_bytes | kind << SIZE_BITS, self.message_type)
    }

    /// The word that commits a plain record.
    #[inline(always)]
    pub(super) fn commit_plain(self, payload_bytes: u32) -> u64 {
        word(payload_bytes | KIND_PLAIN << SIZE_BITS, self.message_type)
    }

    /// The word behind it; `None` for a plain record.
    #[inline]
    pub(super) fn extension(self) -> Option<u64> {
        self.is_extended().then(|| word(self.flags, self.ticket))
    }

    #[inline]
    pub(super) fn is_extended(self) -> bool {
        (self.flags | self.ticket) != 0
    }
}

/// What a word that commits a record alleges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) kind: Kind,
    pub(super) payload_bytes: u32,
    message_type: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Extended,
    Padding,
}

impl Commit {
    /// Judges the word's form.
    #[inline]
    pub(super) fn decode(word: u64) -> Result<Self, LaneFault> {
        let (low, message_type) = (word as u32, (word >> 32) as u32);
        let kind = match low >> SIZE_BITS {
            KIND_PLAIN => Kind::Plain,
            KIND_EXTENDED => Kind::Extended,
            KIND_PADDING => Kind::Padding,
            _ => return Err(LaneFault::CommitUnknown { word }),
        };
        Ok(Commit { kind, payload_bytes: low & SIZE_MASK, message_type })
    }

    /// Bytes in front of the payload.
    #[inline]
    pub(super) fn header_bytes(self) -> u32 {
        match self.kind {
            Kind::Plain | Kind::Padding => COMMIT_BYTES as u32,
            Kind::Extended => (COMMIT_BYTES + EXTENSION_BYTES) as u32,
        }
    }

    /// The length of the whole record.
    #[inline]
    pub(super) fn record_bytes(self) -> u32 {
        record_bytes(self.header_bytes(), self.payload_bytes)
    }

    /// The header, of an extended record with the word behind the commit.
    #[inline]
    pub(super) fn header(self, extension: u64) -> RecordHeader {
        let (flags, ticket) = (extension as u32, (extension >> 32) as u32);
        RecordHeader { message_type: self.message_type, flags, ticket }
    }
}

/// A record of the ordinary case, judged.
pub(super) struct Plain {
    pub(super) message_type: u32,
    pub(super) payload_bytes: usize,
    /// With header and padding.
    pub(super) whole_bytes: u32,
}

impl Plain {
    /// `None` unless the word commits a plain record of at most so many bytes.
    #[inline(always)]
    pub(super) fn judge(word: u64, bytes_max: u32) -> Option<Plain> {
        // Of another kind, a bit above the size stays, which is then more than there can be: one comparison judges both.
        let payload_bytes = (word as u32 ^ KIND_PLAIN << SIZE_BITS) as usize;
        let whole_bytes = aligned(payload_bytes + COMMIT_BYTES);
        (whole_bytes <= bytes_max as usize).then_some(Plain {
            message_type: (word >> 32) as u32,
            payload_bytes,
            whole_bytes: whole_bytes as u32,
        })
    }

    /// What is copied of it: whole words.
    #[inline(always)]
    pub(super) fn word_bytes(&self) -> usize {
        self.whole_bytes as usize - COMMIT_BYTES
    }
}

/// The word that fills `gap_bytes` up to the ring's end.
pub(super) fn padding(gap_bytes: u32) -> u64 {
    word((gap_bytes - COMMIT_BYTES as u32) | KIND_PADDING << SIZE_BITS, 0)
}

/// The length of a record in the ring, padding included. Cannot overflow, as sizes have [`SIZE_BITS`].
#[inline]
pub(super) fn record_bytes(header_bytes: u32, payload_bytes: u32) -> u32 {
    aligned((header_bytes + payload_bytes) as usize) as u32
}

/// Rounded up to where records begin. In a form that is three instructions, whatever is known of the length.
#[inline(always)]
pub(super) const fn aligned(bytes: usize) -> usize {
    const { assert!(RECORD_ALIGN_BYTES.is_power_of_two()) };
    (bytes + (RECORD_ALIGN_BYTES - 1)) & !(RECORD_ALIGN_BYTES - 1)
}

#[inline]
fn word(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}
