//! Signals: raising them at a process that one holds a capability for, and what a process does about its own.

use alloc::vec;

use keyway_abi::{Denial, Event, Kind, ProcessNumber, Reply, Rights, SigInfo, Signal, SignalCode, request};

use crate::{
    effect::{Effect, Identity, Refusal, Task},
    kernel::{Kernel, Outcome},
    lane::Waiting,
    object::Body,
    process::Phase,
    signals::{Consequences, Course},
    sweep::Caller,
};

impl Kernel {
    pub(crate) fn raise(&mut self, caller: Caller, request: &request::Raise) -> Result<Outcome, Denial> {
        let (_, capability) = self.held(caller.process, request.process, Kind::Process, Rights::RAISE)?;
        let signal = check_signal(request.signal)?;
        let target = match &self.object(capability.object).body {
            Body::Process(target) if !target.ended => target.process,
            Body::Process(target) => return Err(Denial::ProcessEnded { process: target.process }),
            _ => unreachable!("the object is a process"),
        };
        let at = self.process(target);
        let (Phase::Ready, Some(at_identity)) = (at.phase, &at.identity) else {
            // It has not spoken, so nobody knows yet what it wants done.
            return Err(Denial::ProcessEnded { process: target });
        };
        let Some(from) = self.process(caller.process).identity.clone() else {
            return Err(Denial::ProcessEnded { process: caller.process });
        };
        let course = at.signals.judge(signal, &from, at_identity)?;
        if let Course::Act(_) = course {
            self.check_request(caller.process)?;
        }
        let info = info(signal, caller.process, &from, request.value);
        let consequences = self.process_mut(target).signals.commit(course, info, &from);
        let acts = matches!(course, Course::Act(_));
        // Who raised it hears how that went; what goes on besides concerns nobody.
        self.follow(target, consequences, acts.then_some((caller, signal)));
        if acts { Ok(Outcome::Later) } else { Outcome::reply(Reply::Done) }
    }

    pub(crate) fn set_action(
        &mut self,
        caller: Caller,
        request: &request::SetAction,
    ) -> Result<Outcome, Denial> {
        let signal = check_signal(request.signal)?;
        if signal.is_bound() {
            return Err(Denial::SignalBound { signal });
        }
        let consequences = self.process_mut(caller.process).signals.set_action(signal, request.action);
        self.follow(caller.process, consequences, None);
        Outcome::reply(Reply::Done)
    }

    pub(crate) fn set_mask(&mut self, caller: Caller, request: &request::SetMask) -> Result<Outcome, Denial> {
        let (before, consequences) =
            self.process_mut(caller.process).signals.set_mask(request.how, request.set);
        self.follow(caller.process, consequences, None);
        Outcome::reply(Reply::Signals(before))
    }

    pub(crate) fn pending(&mut self, caller: Caller, _: &request::Pending) -> Result<Outcome, Denial> {
        Outcome::reply(Reply::Signals(self.process(caller.process).signals.pending()))
    }

    pub(crate) fn take_signal(
        &mut self,
        caller: Caller,
        request: &request::TakeSignal,
    ) -> Result<Outcome, Denial> {
        let taken = self.process_mut(caller.process).signals.take(request.set, request.taking);
        Outcome::reply(Reply::Signal(taken))
    }

    /// What Linux answered about a default action that somebody raised.
    pub(crate) fn commit_act(
        &mut self,
        caller: Caller,
        (process, signal): (ProcessNumber, Signal),
        outcome: Result<(), Refusal>,
    ) {
        let reply = match outcome {
            Ok(()) => Reply::Done,
            Err(Refusal::System(ESRCH)) => Reply::Denied(Denial::ProcessEnded { process }),
            Err(Refusal::System(EPERM) | Refusal::Fault(_)) => Reply::Denied(Denial::Unsupported { signal }),
            Err(Refusal::System(errno)) => Reply::Denied(Denial::SystemRefused { errno }),
        };
        self.reply(caller, reply, vec![]);
    }

    /// Tells the process, and has Linux do what must be done. `raised` is who waits to hear how that went, and of what.
    fn follow(
        &mut self,
        process: ProcessNumber,
        consequences: Consequences,
        raised: Option<(Caller, Signal)>,
    ) {
        if consequences.tell {
            self.notify(process, Event::SignalsPending, vec![]);
        }
        for act in consequences.acts {
            let task = match raised {
                Some((caller, signal)) => self.wait_for(Some(caller), Waiting::Signal(process, signal)),
                None => Task(self.next_number()),
            };
            self.effects.push(Effect::Signal { task, process, signal: act });
        }
    }
}

/// The signal of this number.
fn check_signal(asked: i32) -> Result<Signal, Denial> {
    u8::try_from(asked).ok().and_then(Signal::new).ok_or(Denial::InvalidSignal { asked })
}

/// What the process will read. Nothing but the value is the sender's to choose.
fn info(signal: Signal, process: ProcessNumber, from: &Identity, value: u64) -> SigInfo {
    SigInfo { signal, code: SignalCode::User, pid: from.pid, uid: from.uid, process, value }
}

const EPERM: i32 = 1;
const ESRCH: i32 = 3;
