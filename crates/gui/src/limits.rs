//! Every bound of the bridge, by name.
//!
//! The four of the document keep its names and units (megabytes, of 2^20 bytes). The lists are bounded so that the longest
//! lawful answer fits in one message; a test in `protocol::encoding` builds that answer.

/// GPU memory of all processes together, in MB.
pub const MAX_TOTAL_GPU_MEMORY: u32 = 4096;
/// GPU memory of one process, in MB.
pub const MAX_PROCESS_GPU_MEMORY: u32 = 1024;
/// GPU memory of a process that asks for no figure, in MB.
pub const DEFAULT_GPU_MEMORY: u32 = 256;
/// Surfaces of a process that asks for no figure.
pub const DEFAULT_MAX_SURFACES: u32 = 16;

/// Bytes of one MB.
pub const MB_BYTES: u64 = 1 << 20;

/// Surfaces promised to one process.
pub const SURFACES_PER_PROCESS_MAX: u32 = 256;
/// Surfaces promised to all processes together.
pub const SURFACES_MAX: u32 = 4096;
/// Width and height of a surface or mode, in pixels.
pub const PIXELS_PER_SIDE_MAX: u32 = 16_384;
/// Parts of a surface that one presentation names as changed.
pub const DAMAGE_MAX: usize = 32;
/// Bytes from one row of a surface to the next.
pub const STRIDE_BYTES_MAX: u32 = 65_536;
/// A stride that the bridge chooses is a multiple of this, as scan-out hardware wants it.
pub const STRIDE_ALIGNMENT_BYTES: u32 = 64;
/// A buffer is charged in whole pages of this size.
pub const BUFFER_PAGE_BYTES: u64 = 4096;

/// Processes with a lane to the bridge.
pub const CLIENTS_MAX: usize = 1024;
/// Processes of one user with a lane to the bridge, so that no user can lock the others out.
pub const CLIENTS_PER_UID_MAX: usize = 256;
/// Processes that the compositor has registered.
pub const APPLICATIONS_MAX: usize = 256;
/// Requests that wait for the hardware, those whose asker is gone included.
pub const PENDING_MAX: usize = 4096;
/// Requests of one process that wait for the hardware.
pub const PENDING_PER_CLIENT_MAX: usize = 8;
/// How long a request waits for the hardware before it is answered without it.
pub const PENDING_TIMEOUT_NS: u64 = 2_000_000_000;

/// Sessions.
pub const SESSIONS_MAX: usize = 16;
/// What one session has open, and had open when it was paused.
pub const SESSION_DEVICES_MAX: usize = 128;
/// How long a session may take to say that it paused, before it is paused all the same.
pub const PAUSE_TIMEOUT_NS: u64 = 1_000_000_000;

/// Graphics cards of the machine.
pub const CARDS_MAX: usize = 8;
/// Connectors of the machine.
pub const CONNECTORS_MAX: usize = 8;
/// Modes of one connector.
pub const MODES_MAX: usize = 48;
/// Refresh rate of a mode, in thousandths of a hertz.
pub const REFRESH_MHZ_MAX: u32 = 1_000_000;
/// Input devices of the machine.
pub const DEVICES_MAX: usize = 64;
/// Bytes of the name of a connector or device.
pub const NAME_BYTES_MAX: usize = 32;
/// Bytes of the text of an error.
pub const TEXT_BYTES_MAX: usize = 512;
/// Reasons given for a device type.
pub const REASONS_MAX: usize = 16;
/// Bytes of one encoded message.
pub const GUI_MESSAGE_BYTES_MAX: usize = 4096;
