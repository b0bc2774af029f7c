//! The broker's `CLOCK_BOOTTIME`, told from this process's, which a time namespace may have shifted (`time_namespaces(7)`).

use std::time::Duration;

use keyway_sys::clock;

/// One moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BrokerClock {
    here_ns: u64,
    there_ns: u64,
}

impl BrokerClock {
    /// From an exchange with the broker: this process's clock before it asked and after it was answered, and the broker's in between.
    ///
    /// Where the broker's lies between the two they are one clock, to the nanosecond. Where not, its moment is taken for that of the asking: what is to
    /// last so long then lasts longer by up to the exchange, and never shorter.
    pub(crate) fn new(before_ns: u64, there_ns: u64, after_ns: u64) -> Self {
        let one_clock = (before_ns..=after_ns).contains(&there_ns);
        BrokerClock { here_ns: if one_clock { there_ns } else { before_ns }, there_ns }
    }

    /// The time at which something ends that lasts so long from now, as the broker counts.
    pub(crate) fn expiry_ns(self, lifetime: Duration) -> u64 {
        self.expiry_from(clock::boot_ns(), lifetime)
    }

    /// How long it is until a moment of the broker's clock; zero if it has passed.
    pub(crate) fn remaining(self, at_ns: u64) -> Duration {
        Duration::from_nanos(at_ns.saturating_sub(self.there(clock::boot_ns())))
    }

    fn expiry_from(self, now_ns: u64, lifetime: Duration) -> u64 {
        let lifetime = u64::try_from(lifetime.as_nanos()).unwrap_or(u64::MAX);
        // The last moment stands for no end.
        self.there(now_ns).saturating_add(lifetime).min(u64::MAX - 1)
    }

    fn there(self, now_ns: u64) -> u64 {
        self.there_ns.saturating_add(now_ns.saturating_sub(self.here_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_nanos(60);

    #[test]
    fn one_clock_is_not_shifted_by_a_slow_exchange() {
        let clock = BrokerClock::new(1_000, 1_001, 9_000);
        assert_eq!(clock.expiry_from(9_500, LIFETIME), 9_560);
        assert_eq!(clock.there(9_500), 9_500);
    }

    #[test]
    fn a_shifted_clock_is_counted_from_the_asking_so_that_nothing_ends_early() {
        for there in [200, 50_000] {
            // The broker read its clock somewhere in the exchange: `late` after it was asked.
            for late in [0, 3_000, 8_000] {
                let clock = BrokerClock::new(1_000, there, 9_000);
                let now = 9_500;
                let truly_there = there + (now - 1_000 - late);
                let expiry = clock.expiry_from(now, LIFETIME);
                assert!(
                    (truly_there + 60..=truly_there + 60 + 8_000).contains(&expiry),
                    "{expiry} {truly_there}"
                );
            }
        }
    }

    #[test]
    fn the_longest_lifetime_is_the_last_moment_that_is_not_no_end() {
        assert_eq!(BrokerClock::new(1, 2, 3).expiry_from(3, Duration::MAX), u64::MAX - 1);
    }
}
