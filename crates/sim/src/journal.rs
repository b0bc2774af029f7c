//! Every input of a kernel, in order: printable, and enough to reach the same state again.

use std::{fmt, fmt::Write as _};

use keyway_abi::{Farewell, ProcessNumber, Request};
use keyway_kernel::{Answer, Arrival, Call, Effect, Identity, Kernel, Limits, NameRules, Token};

/// One input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A process has connected.
    Connect(Arrival),
    /// A confined child has spoken for the first time.
    Bind(ProcessNumber, Identity),
    /// A request has come.
    Request(ProcessNumber, Call, Request, Option<Token>),
    /// Linux has answered.
    Answer(Answer),
    /// A process has ended.
    End(ProcessNumber, Option<Farewell>),
    /// The broker's turn to go on with revocations.
    Sweep,
    /// The broker's timer for what ends by itself.
    Expire,
    /// The broker has read its policy: rules for names, and limits.
    Policy(NameRules, Limits),
}

/// An input, and when it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The time that the kernel was told.
    pub now_ns: u64,
    /// What came.
    pub input: Input,
}

/// All inputs of one kernel. Printing it gives one line an input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Journal {
    /// In the order in which they came.
    pub entries: Vec<Entry>,
}

impl Journal {
    /// Gives all inputs to a new kernel. Returns it, and the hash of all that it asked for.
    pub fn replay(&self) -> (Kernel, Hash) {
        let mut kernel = Kernel::default();
        let mut hash = Hash::default();
        for entry in &self.entries {
            for effect in entry.give_to(&mut kernel).1 {
                hash.add(&effect);
            }
        }
        (kernel, hash)
    }
}

impl Entry {
    /// Gives the input to a kernel. Returns the process that came to be by it, and what the kernel asks for.
    pub fn give_to(&self, kernel: &mut Kernel) -> (Option<ProcessNumber>, Vec<Effect>) {
        let now_ns = self.now_ns;
        match self.input.clone() {
            Input::Connect(arrival) => {
                let (number, effects) = kernel.on_connect(now_ns, arrival);
                (number.ok(), effects.collect())
            }
            Input::Bind(process, identity) => (None, kernel.on_bind(now_ns, process, identity).collect()),
            Input::Request(process, call, request, device) => {
                (None, kernel.handle(now_ns, process, call, request, device).collect())
            }
            Input::Answer(answer) => (None, kernel.on_answer(now_ns, answer).collect()),
            Input::End(process, farewell) => (None, kernel.on_end(now_ns, process, farewell).collect()),
            Input::Sweep => (None, kernel.sweep(now_ns).collect()),
            Input::Expire => (None, kernel.expire(now_ns).collect()),
            Input::Policy(rules, limits) => {
                kernel.set_limits(limits);
                (None, kernel.set_rules(now_ns, rules).collect())
            }
        }
    }
}

impl fmt::Display for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Entry { now_ns, input }) in self.entries.iter().enumerate() {
            writeln!(f, "{index:5} {now_ns:8} ns  {input:?}")?;
        }
        Ok(())
    }
}

/// FNV-1a over the debug output of whatever is added: the same bytes, the same hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(pub u64);

impl Default for Hash {
    fn default() -> Self {
        Hash(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    /// Adds what `value` prints.
    pub fn add(&mut self, value: &impl fmt::Debug) {
        // Never fails: this writer takes everything.
        let _ = writeln!(self, "{value:?}");
    }

    /// The hash of what `value` prints.
    pub fn of(value: &impl fmt::Debug) -> Self {
        let mut hash = Hash::default();
        hash.add(value);
        hash
    }
}

impl fmt::Write for Hash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}
