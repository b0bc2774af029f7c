//! Where things lie in the memory that processes share, and what each word may say.
//!
//! Every memory here has exactly one writer; all others hold it read-only, and Linux enforces that. Nothing in this
//! file is believed by a reader: capacities and own positions live in private memory, and what the writer says is
//! judged at each read.
//!
//! ```text
//!  ring memory (the sender writes)            acknowledgement memory (the receiver writes)
//!  0    position: u32  bytes committed        0    position: u32  bytes taken
//!  4    messages: u32  messages committed     4    messages: u32  messages taken
//!  128  waiting: u32   sender awaits space    128  waiting: u32   receiver awaits a record
//!  256  version: u32   LANE_LAYOUT_VERSION    256  version: u32   LANE_LAYOUT_VERSION
//!  260  barrier: u32   how it goes to sleep   260  barrier: u32   how it goes to sleep
//!  264  clock: u32     time namespace
//!  384  releases: u32  sender awaits blocks   1024 releases: 512 u32, one for each slot of a segment
//!  4096 records, a power of two bytes long    4096 end
//!
//!  a record, at a multiple of 8 bytes:
//!  0  commit: u64      bits 0 to 29 the payload's size, 30 and 31 the kind (0: not committed), 32 to 63 the message type
//!  8  flags, ticket    two u32, of an extended record only
//!  stamp: u64          of a lane to a queue that goes by arrival only; counted as payload
//!     payload          up to the next multiple of 8
//!     the next record's commit, 0 until it is committed
//!
//!  broker page (the broker writes, one process reads): 1024 words of u32
//!  word 0 of page 0: grows with every event that the broker sends to the process
//!  any other word: the generation of one lane or mapping, then WORD_REVOKED or WORD_DEAD for ever
//! ```
//!
//! A record is committed by its first word, stored last. The word where the next one will begin was cleared before, so a
//! reader that has come so far sees nothing there. Of several records the first one's word is stored last of all: they
//! are committed together.
//!
//! Positions count bytes and wrap at 2^32; a ring is at most 2^30 bytes long, so a difference is never ambiguous. The
//! sender's position is there for those who sleep, and for people: no record is read because of it.

/// The version of everything in this file; it is agreed on in the first frame.
pub const LANE_LAYOUT_VERSION: u32 = 3;

/// Bytes of a page on the machines that Keyway runs on, and the length of an acknowledgement memory and a broker page.
pub const PAGE_BYTES: usize = 4096;

/// Offset of the writer's position, in ring and acknowledgement memory.
pub const POSITION_OFFSET: usize = 0;
/// Offset of the count of messages, taken or committed, in acknowledgement and ring memory. Wraps at 2^32.
pub const MESSAGES_OFFSET: usize = 4;
/// Offset of the word that says how the writer of this memory, which sleeps, is to be woken, in ring and acknowledgement
/// memory: 0 not at all, 1 by a futex call, 2 by a doorbell.
/// On a line pair of its own, because the other side reads it after each message.
pub const WAITING_OFFSET: usize = 128;
/// Offset of the layout version, in ring and acknowledgement memory. For people with a debugger; no code relies on it.
pub const VERSION_OFFSET: usize = 256;
/// Offset of the word that says what the writer of this memory does between its announcement that it will sleep and its
/// last look: one of the `BARRIER_*`. Written before the other side maps it, and then never again.
pub const BARRIER_OFFSET: usize = 260;
/// It makes a memory barrier of its own; the other side must make one after each publication.
pub const BARRIER_OWN: u32 = 0;
/// It makes one on all sides by `membarrier(2)`; one that has registered for that needs none of its own.
pub const BARRIER_ALL: u32 = 1;
/// Offset of the word that says which time namespace the stamps in a ring are of, in ring memory: its number, or
/// [`CLOCK_UNKNOWN`]. Written before the other side maps it, and then never again.
pub const CLOCK_OFFSET: usize = 264;
/// The sender does not know its time namespace, or does not stamp.
pub const CLOCK_UNKNOWN: u32 = 0;
/// Offset of the word that says up to how many bytes the receiver takes payloads that come as segments, in acknowledgement memory; 0
/// where it has not said. Written before the other side maps it, and then never again.
pub const PAYLOAD_MAX_OFFSET: usize = 268;
/// Offset of the word that says how the sender awaits the release of a segment, in ring memory: 0, or bits of
/// `RELEASE_WAITING_BY_*`. On a line pair of its own, because the receiver reads it after each release.
pub const RELEASE_WAITING_OFFSET: usize = 384;
/// It sleeps on the words of what was not released: a futex call wakes it.
pub const RELEASE_WAITING_BY_FUTEX: u32 = 1;
/// An event loop awaits a ring for the lane.
pub const RELEASE_WAITING_BY_DOORBELL: u32 = 2;
/// Offset of the releases, in acknowledgement memory. The sender gives each segment a slot and a generation, which grows with each
/// use of the slot; the receiver stores that generation in the slot's word once it reads the segment no more.
pub const RELEASES_OFFSET: usize = 1024;
/// Segments of one lane that are not released at a time: a word for each.
pub const RELEASE_SLOTS: usize = 512;
/// Offset of the first record in ring memory.
pub const RECORDS_OFFSET: usize = PAGE_BYTES;

/// Bytes of the word that commits a record, which every record begins with.
pub const COMMIT_BYTES: usize = 8;
/// Bytes of what an extended record has besides: flags and ticket.
pub const EXTENSION_BYTES: usize = 8;
/// Bytes of a stamp, in front of the payload of each message to a queue that goes by arrival: the time by `CLOCK_MONOTONIC`, in
/// nanoseconds, at which it was sent. One that is less than the stamp before it, such as 0, says as much as that.
pub const STAMP_BYTES: usize = 8;
/// Records begin at multiples of this many bytes.
pub const RECORD_ALIGN_BYTES: usize = 8;
/// Bytes of a ring that are never committed at the same time: the word after the last record, which is 0.
pub const RING_RESERVED_BYTES: usize = COMMIT_BYTES;
/// Bits of a payload's size.
pub const SIZE_BITS: u32 = 30;
/// The kind of a committed record without flags or ticket.
pub const KIND_PLAIN: u32 = 1;
/// The kind of a committed record with both.
pub const KIND_EXTENDED: u32 = 2;
/// The kind of a record without a message, which fills the ring up to its end.
pub const KIND_PADDING: u32 = 3;

/// The smallest and the largest ring, in bytes of records. Both, and all between, are powers of two.
pub const RING_BYTES_MIN: u32 = 1 << 12;
/// See [`RING_BYTES_MIN`].
pub const RING_BYTES_MAX: u32 = 1 << 30;

/// Bytes of the memory of a lane whose ring has so many: the first page and the records, and as whole huge pages where
/// [`OpenLane`](crate::request::OpenLane) asks for those.
///
/// ```
/// # use keyway_abi::layout::lane_bytes;
/// assert_eq!(lane_bytes(1 << 16, false), 4096 + (1 << 16));
/// assert_eq!(lane_bytes(2 << 20, true), 4 << 20, "the first page is in the first huge one");
/// ```
pub const fn lane_bytes(ring_bytes: u32, huge: bool) -> u64 {
    let bytes = RECORDS_OFFSET as u64 + ring_bytes as u64;
    if huge { bytes.next_multiple_of(crate::limits::HUGE_PAGE_BYTES) } else { bytes }
}

/// A broker word of a lane or mapping that was revoked: nothing more is accepted.
pub const WORD_REVOKED: u32 = 0;
/// A broker word of a lane or mapping whose other side is dead: the position is loaded once more and is the last.
pub const WORD_DEAD: u32 = 1;
/// The first generation; smaller values are verdicts.
pub const GENERATION_FIRST: u32 = 2;
/// Words in a broker page.
pub const WORDS_PER_PAGE: usize = PAGE_BYTES / 4;
/// The word of page 0 that grows with every event sent to the process.
pub const EVENT_WORD: usize = 0;
