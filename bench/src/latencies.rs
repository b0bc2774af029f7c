//! How long the round trips took: a log-linear histogram, exact below 2048 ns and within 0.1 % above.
//!
//! A list of all samples would touch new memory with every trip and so disturb what it measures; the buckets that a
//! run fills stay in the cache.

const LINEAR_BITS: u32 = 11;
const LINEAR: u64 = 1 << LINEAR_BITS;
const HALF: u64 = LINEAR / 2;
/// Up to 2^40 ns, 18 minutes.
const BUCKETS: usize = (LINEAR + HALF * (40 - LINEAR_BITS as u64)) as usize;

pub(crate) struct Latencies {
    counts: Vec<u64>,
    total: u64,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }

    #[inline]
    pub(crate) fn record(&mut self, ns: u64) {
        self.counts[bucket(ns).min(BUCKETS - 1)] += 1;
        self.total += 1;
    }

    #[inline]
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The smallest latency that so many of a thousand trips did not exceed; `None` without a trip.
    pub(crate) fn per_mille(&self, share: u64) -> Option<u64> {
        let rank = (self.total * share).div_ceil(1000).max(1);
        let mut seen = 0;
        let index = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(lower_bound(index as u64))
    }
}

fn bucket(ns: u64) -> usize {
    if ns < LINEAR {
        return ns as usize;
    }
    let shift = ns.ilog2() - (LINEAR_BITS - 1);
    (LINEAR + HALF * u64::from(shift - 1) + (ns >> shift) - HALF) as usize
}

fn lower_bound(index: u64) -> u64 {
    if index < LINEAR {
        return index;
    }
    let octave = (index - LINEAR) / HALF;
    (HALF + (index - LINEAR) % HALF) << (octave + 1)
}

#[cfg(test)]
mod tests {
    use super::{Latencies, bucket, lower_bound};

    #[test]
    fn buckets_are_within_a_thousandth() {
        for ns in (0..5000).chain([10_000, 65_535, 65_536, 1_234_567, 1 << 39]) {
            let low = lower_bound(bucket(ns) as u64);
            assert!(low <= ns, "{ns} in a bucket from {low}");
            assert!((ns - low) * 1000 <= ns, "{ns} in a bucket from {low}");
        }
    }

    #[test]
    fn percentiles_count_from_below() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.per_mille(500), None);
        (1..=100).for_each(|ns| latencies.record(ns));
        assert_eq!(latencies.per_mille(500), Some(50));
        assert_eq!(latencies.per_mille(990), Some(99));
    }

    #[test]
    fn a_latency_beyond_the_last_bucket_is_kept_in_it() {
        let mut latencies = Latencies::new();
        latencies.record(u64::MAX);
        assert!(latencies.per_mille(990).is_some_and(|ns| ns >= 1 << 39));
    }
}
