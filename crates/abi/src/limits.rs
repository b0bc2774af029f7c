//! Every bound of the control plane, by name. A request beyond one is a [`Denial`](crate::Denial), never a surprise.
//!
//! LIMIT: each loop and each queue of the kernel and the broker names the constant here that ends it.

/// Bytes of a control frame's header.
pub const FRAME_HEADER_BYTES: usize = 16;
/// Bytes of a whole control frame, header included.
pub const FRAME_BYTES_MAX: usize = 8192;
/// Descriptors beside one frame. Linux itself allows 253.
pub const FRAME_DESCRIPTORS_MAX: usize = 16;

/// Capabilities that one process can hold.
pub const HANDLES_MAX: u32 = 4096;
/// Capabilities that one process can hold at all, whatever its limit is.
pub const TABLE_MAX: u32 = 1 << 16;
/// Queues, regions, devices, names and unstarted children that one process can have made and not yet ended.
pub const OBJECTS_MAX: u32 = 1024;
/// Lanes that one process can have open, as sender or as receiver.
pub const LANES_MAX: u32 = 1024;
/// Memory that one process can have charged, in bytes.
pub const PROCESS_BYTES_MAX: u64 = 1 << 30;
/// Memory that the processes of one user can have charged together, in bytes.
pub const USER_BYTES_MAX: u64 = 4 << 30;
/// Objects of the processes of one user together.
pub const USER_OBJECTS_MAX: u32 = 16 * OBJECTS_MAX;
/// Capabilities of the processes of one user together.
pub const USER_HANDLES_MAX: u32 = 16 * HANDLES_MAX;
/// Mappings of the processes of one user together.
pub const USER_MAPPINGS_MAX: u32 = 16 * MAPPINGS_MAX;
/// Published names of the processes of one user together.
pub const USER_NAMES_MAX: u32 = 16 * NAMES_MAX;
/// Lanes of the processes of one user together.
pub const USER_LANES_MAX: u32 = 16 * LANES_MAX;
/// Capabilities that one process has made from others and that are still there, whoever holds them.
pub const DERIVATIONS_MAX: u32 = 2 * HANDLES_MAX;
/// Capabilities that the processes of one user together have made from others.
pub const USER_DERIVATIONS_MAX: u32 = 16 * DERIVATIONS_MAX;
/// Requests of one process whose reply waits for Linux or for the end of a revocation.
pub const REQUESTS_MAX: u32 = 64;
/// Such requests of the processes of one user together.
pub const USER_REQUESTS_MAX: u32 = 16 * REQUESTS_MAX;
/// Descriptors that the broker holds for one process: sessions, acknowledgement memories in stock, regions, devices. Fewer where
/// the broker itself can have few.
pub const DESCRIPTORS_MAX: u32 = 2048;
/// Descriptors that the broker holds for the processes of one user together.
pub const USER_DESCRIPTORS_MAX: u32 = 8192;
/// Sessions of one process.
pub const PROCESS_SESSIONS_MAX: u32 = 64;
/// Descriptors that the broker holds for each session: its socket, its process, its first page, its deposit socket.
pub const SESSION_DESCRIPTORS: u32 = 4;
/// Sessions of one user, bound or not.
pub const USER_SESSIONS_MAX: u32 = 256;

/// How deep capabilities may be derived from one another. A check walks at most so many parents.
pub const DERIVATION_DEPTH_MAX: u8 = 64;
/// Capabilities that are taken back at a time, with whatever is on its way in a lane that goes with the last of them; the broker
/// serves everybody in between.
pub const SWEEP_STEP: usize = 128;
/// Of these, those that one revocation takes back before it is another's turn.
pub const SWEEP_SHARE: usize = 32;
/// Lanes into one queue.
pub const QUEUE_SENDERS_MAX: u16 = 1 << 14;
/// Lanes into a queue when its receiver does not choose: so many that it can sleep on the words of all.
pub const QUEUE_SENDERS_DEFAULT: u16 = 120;
/// The highest priority of a lane; 0 is the lowest.
pub const PRIORITY_MAX: u8 = 7;
/// Lanes of one process into another's queue, at least; a large queue gives each process a quarter of its lanes.
pub const QUEUE_SHARE_MIN: u16 = 8;
/// Acknowledgement memories that one request can be about: they travel beside one reply.
pub const ACKS_MAX: u8 = FRAME_DESCRIPTORS_MAX as u8;
/// Acknowledgement memories of a queue that no lane has. Each is a lane that can be opened before the receiver looks, and so an event
/// for it that can wait in its outbox.
pub const STOCK_MAX: u8 = 64;
/// Bytes of a ring when the sender does not choose.
pub const RING_BYTES_DEFAULT: u32 = 1 << 16;
/// Bytes of a region, at most. A region is a whole number of pages.
pub const REGION_BYTES_MAX: u64 = 1 << 30;
/// Bytes of a huge page, of which a region with [`RegionFlags::HUGE`](crate::request::RegionFlags::HUGE) is made.
pub const HUGE_PAGE_BYTES: u64 = 2 << 20;
/// Mappings of one process that are open at a time.
pub const MAPPINGS_MAX: u32 = 1024;
/// Capabilities that one message can carry.
pub const MESSAGE_CAPABILITIES_MAX: usize = 16;
/// Segments that one message can name.
pub const MESSAGE_SEGMENTS_MAX: usize = 64;
/// Regions of one lane that its receiver keeps mapped for the segments that name them.
pub const SEGMENT_REGIONS_MAX: usize = 64;
/// Bytes of a payload that comes as a segment and is copied out like any other, at most: so much can a sender make its receiver
/// allocate at a time.
pub const SEGMENT_PAYLOAD_BYTES_MAX: u64 = 256 << 20;
/// Capabilities in escrow on one lane.
pub const ESCROW_MAX: usize = 64;
/// Entries of one access list.
pub const ACL_ENTRIES_MAX: usize = 64;
/// Names that one session can wait for.
pub const NAME_WAITS_MAX: usize = 64;
/// Processes that one session can watch.
pub const WATCHES_MAX: usize = 1024;
/// Free broker words below which a process is given a further page.
pub const BROKER_WORDS_RESERVE: usize = 32;
/// Broker pages of one session.
pub const BROKER_PAGES_MAX: usize = 64;
/// Broker pages of one process, over all its sessions; each session has at least one.
pub const PAGES_MAX: u32 = 128;
/// Broker pages of the processes of one user together.
pub const USER_PAGES_MAX: u32 = 1024;
/// Broker pages of all processes together. Each is a mapping of the broker's, of which Linux allows 65 530 by default
/// (`vm.max_map_count`).
pub const EVERYONE_PAGES_MAX: u32 = 1 << 15;
/// Published names of one process.
pub const NAMES_MAX: u32 = 64;
/// Real-time signals queued at one session. One process has a quarter of them at another, the processes of one user three
/// quarters at another user's.
pub const SIGNALS_QUEUED_MAX: u32 = 64;
/// Entries of one listing reply; the next one begins after the last.
pub const LISTING_ENTRIES_MAX: usize = 24;
/// Bytes of an executable's path that the kernel keeps.
pub const EXECUTABLE_BYTES_MAX: usize = 128;
/// Records of the audit log that are kept of what was granted or taken back, and as many of what was refused.
pub const AUDIT_ENTRIES_MAX: usize = 512;
/// Entries of one event: what is lost or ends at a time is told in one frame, so that it fills nobody's outbox.
pub const EVENT_ENTRIES_MAX: usize = 512;
/// Frames that wait in the broker for a process that does not read. One more ends its session.
pub const OUTBOX_FRAMES_MAX: usize = 256;

/// The longest that anyone sleeps before it looks whether the broker is still there, in nanoseconds.
pub const SLEEP_NS_MAX: u64 = 500_000_000;
