//! A record's header: what its bytes are, and how long the record is with its padding.

use keyway_abi::layout;

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

impl RecordHeader {
    /// The header's bytes in front of a payload of `payload_bytes`.
    pub(super) fn encode(self, payload_bytes: u32) -> [u8; layout::RECORD_HEADER_BYTES] {
        let mut bytes = [0; layout::RECORD_HEADER_BYTES];
        let (words, _) = bytes.as_chunks_mut::<4>();
        for (word, value) in words.iter_mut().zip([payload_bytes, self.message_type, self.flags, self.ticket])
        {
            *word = value.to_ne_bytes();
        }
        bytes
    }

    /// The header that these bytes say, and the payload's size that they allege.
    pub(super) fn decode(bytes: [u8; layout::RECORD_HEADER_BYTES]) -> (Self, u32) {
        let word = |index: usize| {
            let at = index * 4;
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        (Self { message_type: word(1), flags: word(2), ticket: word(3) }, word(0))
    }
}

/// The length of a record in the ring, header and padding included. Cannot overflow for any `u32` payload.
pub(super) fn record_bytes(payload_bytes: u64) -> u64 {
    (layout::RECORD_HEADER_BYTES as u64 + payload_bytes).next_multiple_of(layout::RECORD_ALIGN_BYTES as u64)
}
