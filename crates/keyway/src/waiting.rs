//! How one waits: spin for a while that adapts to how the peer answers, then sleep.

use std::{
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use keyway_abi::limits::SLEEP_NS_MAX;
use keyway_sys::process;

/// How a sender or receiver waits for its peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitStyle {
    /// Spin for a bounded time that adapts to how the peer answers, then sleep; meanwhile others run that wait for the same core.
    /// The default.
    #[default]
    Adaptive,
    /// Never sleep: for a core of one's own.
    Spin,
    /// Sleep at once.
    Sleep,
}

/// The longest sleep before one looks whether the broker is still there.
pub(crate) const SLEEP_MAX: Duration = Duration::from_nanos(SLEEP_NS_MAX);

/// Until when one waits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    Forever,
    Deadline(Instant),
    /// One does not wait.
    Now,
}

impl Until {
    pub(crate) fn after(timeout: Duration) -> Self {
        if timeout.is_zero() {
            return Until::Now;
        }
        Instant::now().checked_add(timeout).map_or(Until::Forever, Until::Deadline)
    }

    /// How long to sleep now; `None` when the time is over.
    pub(crate) fn sleep(self) -> Option<Duration> {
        match self {
            Until::Forever => Some(SLEEP_MAX),
            Until::Now => None,
            Until::Deadline(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                (!left.is_zero()).then(|| left.min(SLEEP_MAX))
            }
        }
    }

    pub(crate) fn is_over(self) -> bool {
        self.sleep().is_none()
    }
}

/// Counts the spins of one who waits, over all its waits.
#[derive(Debug)]
pub(crate) struct Spinner {
    style: WaitStyle,
    /// Spins after which it sleeps.
    limit: u32,
    spun: u32,
    /// What the yields in between count for.
    yielded: u32,
    /// Whether somebody else waited for this core when it was last offered.
    is_crowded: bool,
    /// Waits, one after the other, in which spinning as long as possible did not help.
    in_vain: u32,
    /// When one who never sleeps last looked whether the broker is there.
    looked: Option<Instant>,
}

/// A sleep no longer than this could as well have been spun: waking from one takes about half as long.
const SOON: Duration = Duration::from_micros(120);
/// Spins at the beginning of each wait in which nothing else is done than to look.
const EAGER: u32 = 256;
/// Looks in each of those.
const EAGER_LOOKS: u32 = 2;
/// Every so often after the eager ones, another thread that waits for this core may run.
const YIELD_EVERY: u32 = 32;
/// The same, while somebody does wait for it.
const CROWDED_YIELD_EVERY: u32 = 4;
/// Spins that one yield is as long as, at least.
const YIELD_COST: u32 = 8;
/// A yield that is longer than this has let another thread run: else it takes a third of it.
const NOBODY_RAN: Duration = Duration::from_nanos(1500);
const LIMIT_MIN: u32 = 64;
const LIMIT_MAX: u32 = 1 << 14;

impl Spinner {
    pub(crate) fn new(style: WaitStyle) -> Self {
        Spinner {
            style,
            limit: LIMIT_MAX / 4,
            spun: 0,
            yielded: 0,
            is_crowded: false,
            in_vain: 0,
            looked: None,
        }
    }

    pub(crate) fn set_style(&mut self, style: WaitStyle) {
        self.style = style;
    }

    /// Spins once more, or says that it is time to sleep. Who spins looks, and pauses after each look.
    pub(crate) fn spin(&mut self) -> bool {
        let limit = match self.style {
            WaitStyle::Spin => u32::MAX,
            WaitStyle::Sleep => 0,
            WaitStyle::Adaptive if is_alone() || self.is_in_vain() => 0,
            WaitStyle::Adaptive => self.limit,
        };
        if self.spun.saturating_add(self.yielded) >= limit {
            return false;
        }
        self.spun = self.spun.saturating_add(1);
        // What does not come at once may wait for this core.
        if self.spun > EAGER || self.is_crowded {
            let yield_every = if self.is_crowded { CROWDED_YIELD_EVERY } else { YIELD_EVERY };
            let may_yield = self.style != WaitStyle::Spin || is_alone();
            if may_yield && self.spun.is_multiple_of(yield_every) {
                self.let_others_run();
            }
        }
        self.style != WaitStyle::Spin || !self.spun.is_multiple_of(1024) || {
            (self.spun, self.yielded) = (0, 0);
            true
        }
    }

    /// Lets another thread that waits for this core run, and finds out whether there is one.
    #[cold]
    fn let_others_run(&mut self) {
        let began = Instant::now();
        thread::yield_now();
        self.is_crowded = began.elapsed() > NOBODY_RAN;
        self.yielded = self.yielded.saturating_add(YIELD_COST);
    }

    /// How often to look for what is waited for, before one spins again. At first nothing else is done.
    pub(crate) fn looks(&self) -> u32 {
        if self.spun > EAGER || self.is_crowded { 1 } else { EAGER_LOOKS }
    }

    /// Whether it is time to look at the clock.
    pub(crate) fn is_clock_due(&self) -> bool {
        // A yield to another thread can be as long as that one's share of the core.
        let has_yielded = self.is_crowded && self.spun.is_multiple_of(CROWDED_YIELD_EVERY);
        has_yielded || self.spun.is_multiple_of(256)
    }

    /// Whether it is time to see that the broker is there, for one who never sleeps: the others look after each sleep.
    pub(crate) fn is_look_due(&mut self) -> bool {
        if self.style != WaitStyle::Spin || self.spun != 0 {
            return false;
        }
        let now = Instant::now();
        let is_due = self.looked.is_some_and(|looked| now.duration_since(looked) >= SLEEP_MAX);
        if is_due || self.looked.is_none() {
            self.looked = Some(now);
        }
        is_due
    }

    /// The wait is over; `asleep_since` says when its sleep began. What came while spinning, or soon after, makes the next
    /// spin longer; what came late, shorter.
    pub(crate) fn settle(&mut self, asleep_since: Option<Instant>) {
        match asleep_since {
            None if self.spun > 0 => {
                self.limit = self.limit.saturating_mul(2).min(LIMIT_MAX);
                self.in_vain = 0;
            }
            None => {}
            Some(_) if self.limit == LIMIT_MAX || self.in_vain > 0 => {
                self.in_vain = self.in_vain.saturating_add(1);
            }
            Some(began) if began.elapsed() > SOON => self.limit = (self.limit / 2).max(LIMIT_MIN),
            Some(_) => self.limit = self.limit.saturating_mul(2).min(LIMIT_MAX),
        }
        (self.spun, self.yielded) = (0, 0);
    }

    /// A peer on the same core answers only while one sleeps. Spinning is tried again now and then.
    fn is_in_vain(&self) -> bool {
        self.in_vain >= IN_VAIN_MAX && !self.in_vain.is_multiple_of(PROBE_EVERY)
    }
}

/// So many waits in which spinning did not help end it.
const IN_VAIN_MAX: u32 = 4;
/// One of so many tries it again.
const PROBE_EVERY: u32 = 64;

/// On one core nobody answers while one spins.
fn is_alone() -> bool {
    static ALONE: OnceLock<bool> = OnceLock::new();
    *ALONE.get_or_init(|| process::cpus_online() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spinning_adapts_and_is_bounded() {
        let mut spinner = Spinner::new(WaitStyle::Adaptive);
        let count = |spinner: &mut Spinner| (0..=LIMIT_MAX).take_while(|_| spinner.spin()).count() as u32;
        if !is_alone() {
            // Fewer where others wait for this core.
            assert!((LIMIT_MAX / 16..=LIMIT_MAX / 4).contains(&count(&mut spinner)));
        }
        for _ in 0..20 {
            spinner.settle(Instant::now().checked_sub(2 * SOON));
        }
        assert_eq!(spinner.limit, LIMIT_MIN);
        for _ in 0..20 {
            spinner.spin();
            spinner.settle(None);
        }
        assert_eq!(spinner.limit, LIMIT_MAX);
        assert_eq!(count(&mut Spinner::new(WaitStyle::Sleep)), 0);
    }

    #[test]
    fn who_spins_in_vain_stops_and_tries_again_now_and_then() {
        if is_alone() {
            return;
        }
        let mut spinner = Spinner::new(WaitStyle::Adaptive);
        let spins = |spinner: &mut Spinner| (0..=LIMIT_MAX).take_while(|_| spinner.spin()).count() > 0;
        let mut tried = Vec::new();
        for _ in 0..200 {
            tried.push(spins(&mut spinner));
            // It came soon after the sleep began, as from a peer that waits for this core.
            spinner.settle(Some(Instant::now()));
        }
        let last: Vec<usize> = (20..200).filter(|&wait| tried[wait]).collect();
        assert!(last.len() == 2 || last.len() == 3, "{last:?}");
        while !spins(&mut spinner) {
            spinner.settle(Some(Instant::now()));
        }
        spinner.settle(None);
        assert!(spins(&mut spinner), "once it has helped it is done again");
    }

    #[test]
    fn a_sleep_is_never_longer_than_the_look_at_the_broker() {
        assert_eq!(Until::Forever.sleep(), Some(SLEEP_MAX));
        assert_eq!(Until::after(Duration::ZERO).sleep(), None);
        assert!(Until::after(Duration::from_secs(60)).sleep() <= Some(SLEEP_MAX));
        assert_eq!(Until::after(Duration::MAX).sleep(), Some(SLEEP_MAX));
    }
}
