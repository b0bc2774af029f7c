//! Memory barriers on the CPUs of other processes, so that those who publish often need none of their own: `membarrier(2)`.

use std::sync::OnceLock;

use keyway_shm::{Barrier, own_barrier};
use rustix::thread::{MembarrierCommand, membarrier};

/// What this process does before it sleeps. The first call registers it for the barriers of others
/// (`MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED`, Linux 4.16); where Linux or a seccomp filter refuses that, it makes fences.
pub fn own() -> Barrier {
    static OWN: OnceLock<Barrier> = OnceLock::new();
    *OWN.get_or_init(|| match membarrier(MembarrierCommand::RegisterGlobalExpedited) {
        Ok(()) if membarrier(MembarrierCommand::GlobalExpedited).is_ok() => Barrier::All,
        _ => Barrier::Own,
    })
}

/// Makes the barrier that [`own`] names, between the announcement of a sleep and the last look before it.
pub fn make() {
    match own() {
        // It cannot fail where it succeeded before; and if it did, a fence and the bound of each sleep would be left.
        Barrier::All if membarrier(MembarrierCommand::GlobalExpedited).is_ok() => {}
        _ => own_barrier(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_declared_is_what_linux_offers() {
        let is_offered = membarrier(MembarrierCommand::RegisterGlobalExpedited).is_ok();
        assert_eq!(own() == Barrier::All, is_offered);
        make();
    }
}
