//! What must be true of signals, judged by what passes between kernel and processes.
//!
//! 1. A signal that is taken was raised, by whom and with what it says, at this process, and is taken once.
//! 2. Of a standard signal nothing is taken that was raised before another of it was taken: they merge.
//! 3. Real-time signals of one number are taken in the order in which they were raised.
//! 4. A process that has not asked since it was told that something is pending is not told again.
//! 5. Default actions are carried out only on processes that are there and accepted them.

use std::collections::{BTreeMap, BTreeSet};

use keyway_abi::{DefaultActions, ProcessNumber, Request, SigInfo, Signal, SignalCode, request};

/// A signal that was raised. The value is different for each.
#[derive(Clone, Copy, Debug)]
struct Raised {
    by: ProcessNumber,
    signal: Signal,
    /// At whom, where that is known.
    at: Option<ProcessNumber>,
    /// How many were raised before.
    nth: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    raised: BTreeMap<u64, Raised>,
    count: u64,
    /// Of the signals that a process has taken: those raised before this can be taken no more.
    taken: BTreeMap<(ProcessNumber, Signal), u64>,
    pids: BTreeMap<ProcessNumber, u32>,
    accepting: BTreeSet<ProcessNumber>,
    /// Who was told and has not asked.
    told: BTreeSet<ProcessNumber>,
}

impl Signals {
    pub(crate) fn on_welcome(&mut self, process: ProcessNumber, pid: u32, hello: &request::Hello) {
        self.pids.insert(process, pid);
        if hello.default_actions == DefaultActions::Accepted {
            self.accepting.insert(process);
        }
    }

    /// A request reaches the kernel. `at` is the process that it names, where that is known.
    pub(crate) fn on_request(&mut self, by: ProcessNumber, request: &Request, at: Option<ProcessNumber>) {
        match request {
            Request::Raise(request) => {
                let signal = u8::try_from(request.signal).ok().and_then(Signal::new);
                if let Some(signal) = signal {
                    self.count += 1;
                    self.raised.insert(request.value, Raised { by, signal, at, nth: self.count });
                }
            }
            Request::TakeSignal(_) => drop(self.told.remove(&by)),
            _ => {}
        }
    }

    /// Whoever raised it was told that it was not.
    pub(crate) fn on_refused(&mut self, request: &request::Raise) {
        self.raised.remove(&request.value);
    }

    pub(crate) fn on_taken(&mut self, by: ProcessNumber, info: &SigInfo) -> Result<(), String> {
        let raised = self.raised.remove(&info.value);
        let raised = raised.ok_or(format!("{by} takes {info:?}, which nobody raised or which was taken"))?;
        let is_true = info.signal == raised.signal
            && info.process == raised.by
            && info.code == SignalCode::User
            && self.pids.get(&raised.by) == Some(&info.pid)
            && raised.at.is_none_or(|at| at == by);
        if !is_true {
            return Err(format!("{by} takes {info:?}, and it was {raised:?}"));
        }
        // What merges is gone with what it merged into; what queues is gone when it was taken.
        let gone = if info.signal.is_real_time() { raised.nth } else { self.count };
        let before = self.taken.insert((by, info.signal), gone).unwrap_or(0);
        if raised.nth <= before {
            return Err(format!("{by} takes {info:?} late: all raised before {before} are gone"));
        }
        Ok(())
    }

    pub(crate) fn on_told(&mut self, process: ProcessNumber) -> Result<(), String> {
        let first = self.told.insert(process);
        if first { Ok(()) } else { Err(format!("{process} is told again, and has not asked")) }
    }

    pub(crate) fn on_act(&mut self, process: ProcessNumber) -> Result<(), String> {
        let accepts = self.accepting.contains(&process);
        if accepts { Ok(()) } else { Err(format!("{process} is acted on, and did not accept that")) }
    }

    pub(crate) fn on_end(&mut self, process: ProcessNumber) {
        self.accepting.remove(&process);
        self.told.remove(&process);
        self.taken.retain(|(of, _), _| *of != process);
    }
}
