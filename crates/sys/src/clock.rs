//! The two clocks of Keyway: one that stops while the machine sleeps, one that does not.
//!
//! Both are nanoseconds since the machine was started (`clock_gettime(2)`), and both differ between time namespaces.

use rustix::{
    fs,
    io::Errno,
    time::{self, ClockId, Timespec},
};

/// Now by `CLOCK_MONOTONIC`, which stands still while the machine is suspended. Timeouts of calls count by it.
pub fn now_ns() -> u64 {
    nanoseconds(time::clock_gettime(ClockId::Monotonic))
}

/// Now by `CLOCK_BOOTTIME`, which goes on while the machine is suspended. Expiries count by it.
pub fn boot_ns() -> u64 {
    nanoseconds(time::clock_gettime(ClockId::Boottime))
}

/// The number of this process's time namespace (`time_namespaces(7)`): what two processes read from [`now_ns`] can be compared if
/// it is the same for both. `None` when `/proc` does not say.
pub fn namespace() -> Option<u32> {
    match fs::stat("/proc/self/ns/time") {
        Ok(stat) => u32::try_from(stat.st_ino).ok().filter(|&number| number != 0),
        // Linux without time namespaces, if `/proc` is there at all.
        Err(Errno::NOENT) => fs::stat("/proc/self/ns").is_ok().then_some(ONLY_NAMESPACE),
        Err(_) => None,
    }
}

/// What the one time namespace is called where Linux has no others.
const ONLY_NAMESPACE: u32 = 1;

/// A duration as Linux takes it; longer than it can say is as long as it can say.
pub(crate) fn timespec(duration: core::time::Duration) -> Timespec {
    Timespec::try_from(duration).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
}

fn nanoseconds(time: Timespec) -> u64 {
    // Neither clock is ever negative, and 64 bits of nanoseconds last for 584 years.
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_on_both_clocks() {
        let (before, boot_before) = (now_ns(), boot_ns());
        std::thread::sleep(core::time::Duration::from_millis(5));
        assert!(now_ns() - before >= 5_000_000);
        assert!(boot_ns() - boot_before >= 5_000_000);
        let now = now_ns();
        assert!(boot_ns() >= now, "one is the other and the time asleep");
    }
}
