//! Where things lie in the memory that processes share, and what each word may say.
//!
//! Every memory here has exactly one writer; all others hold it read-only, and Linux enforces that. Nothing in this
//! file is believed by a reader: capacities and own positions live in private memory, and what the writer says is
//! judged at each read.
//!
//! ```text
//!  ring memory (the sender writes)            acknowledgement memory (the receiver writes)
//!  0    position: u32  bytes committed        0    position: u32  bytes taken
//!                                             4    messages: u32  messages taken
//!  128  waiting: u32   sender awaits space    128  waiting: u32   receiver awaits a record
//!  256  version: u32   LANE_LAYOUT_VERSION    4096 end
//!  4096 records, a power of two bytes long
//!
//!  broker page (the broker writes, one process reads): 1024 words of u32
//!  word 0 of page 0: grows with every event that the broker sends to the process
//!  any other word: the generation of one lane or mapping, then WORD_REVOKED or WORD_DEAD for ever
//! ```
//!
//! Positions count bytes and wrap at 2^32; a ring is at most 2^30 bytes long, so a difference is never ambiguous.

/// The version of everything in this file; it is agreed on in the first frame.
pub const LANE_LAYOUT_VERSION: u32 = 1;

/// Bytes of a page on the machines that Keyway runs on, and the length of an acknowledgement memory and a broker page.
pub const PAGE_BYTES: usize = 4096;

/// Offset of the writer's position, in ring and acknowledgement memory.
pub const POSITION_OFFSET: usize = 0;
/// Offset of the count of messages taken, in acknowledgement memory. Wraps at 2^32.
pub const MESSAGES_OFFSET: usize = 4;
/// Offset of the word that says that the writer of this memory sleeps, in ring and acknowledgement memory: 0 or 1.
/// On a line pair of its own, because the other side reads it after each message.
pub const WAITING_OFFSET: usize = 128;
/// Offset of the layout version in ring memory. For people with a debugger; no code relies on it.
pub const VERSION_OFFSET: usize = 256;
/// Offset of the first record in ring memory.
pub const RECORDS_OFFSET: usize = PAGE_BYTES;

/// Bytes of a record's header: size, type, flags, ticket, each a `u32` in native order.
pub const RECORD_HEADER_BYTES: usize = 16;
/// Records begin at multiples of this many bytes.
pub const RECORD_ALIGN_BYTES: usize = 8;

/// The smallest and the largest ring, in bytes of records. Both, and all between, are powers of two.
pub const RING_BYTES_MIN: u32 = 1 << 12;
/// See [`RING_BYTES_MIN`].
pub const RING_BYTES_MAX: u32 = 1 << 30;

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
