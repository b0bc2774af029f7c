//! Signals: their numbers, sets of them, what comes with one and what is done about it.
//!
//! Numbers and default actions are those of Linux on most machines: `signal(7)`.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::handle::ProcessNumber;

/// The highest signal. The lowest is 1.
pub(crate) const SIGNAL_MAX: u8 = 64;
/// The lowest of the signals that queue; those below merge.
pub(crate) const REAL_TIME_MIN: u8 = 32;

/// The number of a signal: 1 to 31 are standard ones, which merge while they are pending; 32 to 64 are real-time ones,
/// which queue in order. See `signal(7)`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Signal(u8);

macro_rules! standard {
    ($( $number:literal $name:ident $doc:literal )*) => {
        impl Signal {
            $( #[doc = concat!("`SIG", stringify!($name), "`, ", stringify!($number), ": ", $doc, ".")]
            pub const $name: Signal = Signal($number); )*

            /// The name without `SIG`, of a standard signal.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $( $number => Some(stringify!($name)), )*
                    _ => None,
                }
            }
        }
    };
}

standard! {
    1 HUP "the terminal is gone, or read the configuration again"
    2 INT "interrupted from the keyboard"
    3 QUIT "quit from the keyboard"
    4 ILL "an illegal instruction"
    5 TRAP "a trap of a debugger"
    6 ABRT "the process gives itself up"
    7 BUS "memory that cannot be reached"
    8 FPE "arithmetic that has no result"
    9 KILL "end at once; cannot be handled, ignored or blocked"
    10 USR1 "whatever the programs agree on"
    11 SEGV "memory that is not the process's"
    12 USR2 "whatever the programs agree on"
    13 PIPE "nobody reads what is written"
    14 ALRM "a timer has run out"
    15 TERM "please end"
    16 STKFLT "unused"
    17 CHLD "a child has ended or stopped; ignored by default"
    18 CONT "go on; continues a stopped process"
    19 STOP "stop; cannot be handled, ignored or blocked"
    20 TSTP "stop, from the keyboard"
    21 TTIN "stop: reads from the terminal in the background"
    22 TTOU "stop: writes to the terminal in the background"
    23 URG "urgent data have come; ignored by default"
    24 XCPU "too much time of the processor"
    25 XFSZ "too large a file"
    26 VTALRM "a timer of the process's own time has run out"
    27 PROF "a timer for profiling has run out"
    28 WINCH "the terminal's size has changed; ignored by default"
    29 IO "a descriptor is ready"
    30 PWR "the power fails"
    31 SYS "a system call that does not exist"
}

/// What is done about a signal for which a process has chosen nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultAction {
    /// The process ends.
    Terminate,
    /// The process stops until it is continued.
    Stop,
    /// The process goes on, if it is stopped.
    Continue,
    /// Nothing.
    Ignore,
}

impl Signal {
    /// The signal with this number, if there is one: 1 to 64.
    pub const fn new(number: u8) -> Option<Self> {
        if number >= 1 && number <= SIGNAL_MAX { Some(Signal(number)) } else { None }
    }

    /// The number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Whether several of it queue, in order.
    pub const fn is_real_time(self) -> bool {
        self.0 >= REAL_TIME_MIN
    }

    /// Whether its action is the default one, always, and nothing holds it back: `KILL` and `STOP`.
    pub const fn is_bound(self) -> bool {
        matches!(self, Signal::KILL | Signal::STOP)
    }

    /// What is done about it for a process that has chosen nothing.
    pub const fn default_action(self) -> DefaultAction {
        match self {
            Signal::CHLD | Signal::URG | Signal::WINCH => DefaultAction::Ignore,
            Signal::CONT => DefaultAction::Continue,
            Signal::STOP | Signal::TSTP | Signal::TTIN | Signal::TTOU => DefaultAction::Stop,
            _ => DefaultAction::Terminate,
        }
    }
}

impl TryFrom<u8> for Signal {
    type Error = &'static str;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        Signal::new(number).ok_or("no signal has this number")
    }
}

impl From<Signal> for u8 {
    fn from(signal: Signal) -> u8 {
        signal.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "SIG{name}"),
            None => write!(f, "real-time signal {}", self.0),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signal({})", self.0)
    }
}

/// A set of signals: `sigset_t` in `sigsetops(3)`. Bit `n - 1` stands for the signal `n`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SignalSet(u64);

impl SignalSet {
    /// No signal.
    pub const EMPTY: SignalSet = SignalSet(0);
    /// Every signal.
    pub const ALL: SignalSet = SignalSet(u64::MAX);
    /// Those whose action is the default one, always.
    pub const BOUND: SignalSet = SignalSet::EMPTY.with(Signal::KILL).with(Signal::STOP);

    /// The set of these bits.
    pub const fn from_bits(bits: u64) -> Self {
        SignalSet(bits)
    }

    /// Its bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The set and this signal.
    #[must_use]
    pub const fn with(self, signal: Signal) -> Self {
        SignalSet(self.0 | 1 << (signal.0 - 1))
    }

    /// The set without this signal.
    #[must_use]
    pub const fn without(self, signal: Signal) -> Self {
        SignalSet(self.0 & !(1 << (signal.0 - 1)))
    }

    /// Signals that are in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        SignalSet(self.0 | other.0)
    }

    /// Signals that are in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        SignalSet(self.0 & other.0)
    }

    /// Signals of this set that are not in the other.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        SignalSet(self.0 & !other.0)
    }

    /// Whether the signal is in it.
    pub const fn contains(self, signal: Signal) -> bool {
        self.0 & 1 << (signal.0 - 1) != 0
    }

    /// Whether no signal is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its signals, lowest first.
    pub fn iter(self) -> impl Iterator<Item = Signal> {
        (1..=SIGNAL_MAX).map(Signal).filter(move |signal| self.contains(*signal))
    }
}

impl From<Signal> for SignalSet {
    fn from(signal: Signal) -> Self {
        SignalSet::EMPTY.with(signal)
    }
}

impl FromIterator<Signal> for SignalSet {
    fn from_iter<I: IntoIterator<Item = Signal>>(signals: I) -> Self {
        signals.into_iter().fold(SignalSet::EMPTY, SignalSet::with)
    }
}

impl fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Signal::number)).finish()
    }
}

/// Where a signal comes from: `si_code` in `sigaction(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SignalCode {
    /// A process raised it.
    User,
    /// The kernel raised it itself. It does not yet.
    Kernel,
}

/// What comes with a signal. All but the value is what Linux told the broker of the sender: `siginfo_t` in `sigaction(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigInfo {
    /// Which signal.
    pub signal: Signal,
    /// Where it comes from.
    pub code: SignalCode,
    /// The sender's pid. For people; it may be another's once the sender has ended.
    pub pid: u32,
    /// The sender's user.
    pub uid: u32,
    /// The kernel's number of the sender, never given again.
    pub process: ProcessNumber,
    /// What the sender chose to say.
    pub value: u64,
}

/// What a process wants done about a signal: `sigaction(2)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SignalAction {
    /// The default action, which Linux carries out; see [`DefaultActions`].
    #[default]
    Default,
    /// Nothing.
    Ignore,
    /// The process takes it and does what it likes.
    Handle,
}

/// How a mask changes: `sigprocmask(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MaskChange {
    /// The signals of the set are held back as well.
    Block,
    /// The signals of the set are held back no longer.
    Unblock,
    /// The signals of the set are held back, and no others.
    Set,
}

/// Which pending signals can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Taking {
    /// Also those that the mask holds back, as `sigtimedwait(2)` takes them.
    Any,
    /// Only those that the mask lets through and the process handles, as a handler gets them.
    Handled,
}

/// Whether the broker may carry out default actions on a process: send it `SIGTERM`, `SIGKILL`, `SIGSTOP` and `SIGCONT`
/// on behalf of those who hold the right `raise`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DefaultActions {
    /// It may not: such a signal is refused as [`Unsupported`](crate::Denial::Unsupported).
    #[default]
    Refused,
    /// It may.
    Accepted,
}

#[cfg(test)]
mod tests {
    use alloc::{string::ToString, vec, vec::Vec};

    use super::*;

    #[test]
    fn signals_are_one_to_sixty_four() {
        assert_eq!(
            [0, 1, 64, 65, 255].map(|number| Signal::new(number).is_some()),
            [false, true, true, false, false]
        );
        assert_eq!(Signal::USR1.to_string(), "SIGUSR1");
        assert_eq!(Signal::new(40).map(|signal| signal.to_string()), Some("real-time signal 40".into()));
        assert!(!Signal::SYS.is_real_time());
        assert!(Signal::new(32).is_some_and(Signal::is_real_time));
    }

    #[test]
    fn default_actions_are_those_of_signal_7() {
        let of = |action| -> Vec<u8> {
            let all = SignalSet::ALL.iter().filter(|signal| signal.default_action() == action);
            all.map(Signal::number).collect()
        };
        assert_eq!(of(DefaultAction::Ignore), [17, 23, 28]);
        assert_eq!(of(DefaultAction::Continue), [18]);
        assert_eq!(of(DefaultAction::Stop), [19, 20, 21, 22]);
        assert_eq!(of(DefaultAction::Terminate).len(), 56);
    }

    #[test]
    fn sets_hold_what_was_put_in() {
        let last = Signal(64);
        let set: SignalSet = vec![Signal::HUP, last].into_iter().collect();
        assert_eq!(set.bits(), 1 << 63 | 1);
        assert!(set.contains(last) && !set.contains(Signal::INT));
        assert_eq!(set.without(last), Signal::HUP.into());
        assert_eq!(SignalSet::ALL.difference(set).iter().count(), 62);
        assert_eq!(SignalSet::BOUND.iter().collect::<Vec<_>>(), [Signal::KILL, Signal::STOP]);
    }
}
