//! Private memory that plays a shared one in tests: one view that writes, one that reads.

use alloc::{boxed::Box, sync::Arc};
use core::{ptr::NonNull, sync::atomic::AtomicU64};

use crate::view::{Access, View};

/// The two views on one memory.
pub(crate) struct Memory {
    pub(crate) writer: View,
    pub(crate) reader: View,
}

/// `len_bytes` zero bytes, a multiple of 8.
pub(crate) fn memory(len_bytes: usize) -> Memory {
    let words: Box<[AtomicU64]> = (0..len_bytes / 8).map(|_| AtomicU64::new(0)).collect();
    let keep = Arc::new(words);
    let base = NonNull::from(&keep[..]).cast();
    let view = |access| {
        // SAFETY:
        // 1. The box is as long as asked and lives in `keep` (check, above); atomics may be written through `base`.
        // 2. Nobody but the two views has the address (check: this function).
        #[allow(unsafe_code)]
        let view = unsafe { View::new(base, len_bytes, access, keep.clone()) };
        view.expect("heap words are aligned")
    };
    Memory { writer: view(Access::Write), reader: view(Access::Read) }
}
