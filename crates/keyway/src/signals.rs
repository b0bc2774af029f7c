//! Signals that other processes raise at this one: what is done about them, waiting for one, running handlers.
//!
//! The broker keeps what is pending and says only that something is; it is taken from there one by one. So nothing is lost
//! when a wait ends without one, and whoever does not look is told once.

use std::{
    collections::BTreeMap,
    fmt,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

use keyway_abi::{
    MaskChange, Reply, SigInfo, Signal, SignalAction, SignalSet, Taking, limits::SIGNALS_QUEUED_MAX, request,
};
use keyway_sys::epoll::{Epoll, EventFd, Interest};

use crate::{control::Control, error::Error, waiting::Until};

/// This process's signals, by one way to hear of them. Several may be had, each with its own handlers and its own
/// descriptor; actions, mask and what is pending are those of the session.
///
/// They are no signals of Linux: nothing interrupts a thread. A handler runs where [`Signals::dispatch`] is called.
///
/// ```
/// # #[cfg(feature = "embedded")]
/// # fn main() -> Result<(), keyway::Error> {
/// use std::time::Duration;
///
/// use keyway::{Client, Embedded, Signal};
///
/// let broker = Embedded::start()?; // or `Client::connect()` to one that runs
/// let client = Client::over(broker.connect()?)?;
/// let mut signals = client.signals()?;
///
/// // Held back, and waited for.
/// signals.block(Signal::USR1)?;
/// let own = client.own_process().expect("no confined child");
/// own.raise(Signal::USR1, 7)?;
/// assert_eq!(signals.wait(Signal::USR1, Duration::from_secs(1))?.value, 7);
///
/// // Handled.
/// signals.on(Signal::HUP, |info| println!("process {} wants the configuration read again", info.pid))?;
/// own.raise(Signal::HUP, 0)?;
/// assert_eq!(signals.dispatch()?, 1);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "embedded"))]
/// # fn main() {}
/// ```
pub struct Signals {
    control: Arc<Control>,
    handlers: BTreeMap<Signal, Handler>,
    /// Rung when somebody else has read that something is pending.
    bell: Arc<EventFd>,
    /// The session's socket and the bell.
    readiness: Epoll,
}

type Handler = Box<dyn FnMut(&SigInfo) + Send>;

/// Handlers that one dispatch runs: all that can be pending at a time.
const DISPATCHED_MAX: usize = SIGNALS_QUEUED_MAX as usize + 31;

impl Signals {
    pub(crate) fn of(control: &Arc<Control>) -> Result<Self, Error> {
        let (bell, readiness) = (Arc::new(EventFd::new()?), Epoll::new()?);
        readiness.add(bell.as_ref(), 0, Interest::Read)?;
        readiness.add(control.socket(), 1, Interest::Read)?;
        control.routes().add_signal_bell(&bell);
        // What was told before is told to nobody again.
        bell.ring()?;
        Ok(Signals { control: Arc::clone(control), handlers: BTreeMap::new(), bell, readiness })
    }

    /// Chooses what is done about a signal: `sigaction(2)`. Ignoring one drops those that are pending.
    ///
    /// # Errors
    /// [`Error::Denied`] (`EINVAL`) for [`Signal::KILL`] and [`Signal::STOP`].
    pub fn set_action(&self, signal: Signal, action: SignalAction) -> Result<(), Error> {
        let signal = signal.number().into();
        self.control.ask(request::SetAction { signal, action }).map(drop)
    }

    /// Has a signal handled: [`Signals::dispatch`] will run the handler for each that comes.
    ///
    /// # Errors
    /// As [`Signals::set_action`].
    pub fn on(
        &mut self,
        signal: Signal,
        handler: impl FnMut(&SigInfo) + Send + 'static,
    ) -> Result<(), Error> {
        self.set_action(signal, SignalAction::Handle)?;
        self.handlers.insert(signal, Box::new(handler));
        Ok(())
    }

    /// Holds signals back; they stay pending until they are let through or waited for: `sigprocmask(2)`. Returns those that
    /// were held back before.
    ///
    /// # Errors
    /// [`Error::BrokerGone`], [`Error::SessionEnded`]. Holding [`Signal::KILL`] or [`Signal::STOP`] back does nothing.
    pub fn block(&self, set: impl Into<SignalSet>) -> Result<SignalSet, Error> {
        self.change_mask(MaskChange::Block, set.into())
    }

    /// Lets signals through. Returns those that were held back before.
    ///
    /// # Errors
    /// As [`Signals::block`].
    pub fn unblock(&self, set: impl Into<SignalSet>) -> Result<SignalSet, Error> {
        self.change_mask(MaskChange::Unblock, set.into())
    }

    /// Holds these signals back, and no others. Returns those that were held back before.
    ///
    /// # Errors
    /// As [`Signals::block`].
    pub fn set_mask(&self, set: impl Into<SignalSet>) -> Result<SignalSet, Error> {
        self.change_mask(MaskChange::Set, set.into())
    }

    /// The signals that were raised and not taken: `sigpending(2)`.
    ///
    /// # Errors
    /// [`Error::BrokerGone`], [`Error::SessionEnded`].
    pub fn pending(&self) -> Result<SignalSet, Error> {
        match self.control.request(request::Pending {})?.0 {
            Reply::Signals(pending) => Ok(pending),
            _ => Err(Error::BrokerIncoherent { operation: "Pending" }),
        }
    }

    /// Takes a signal of the set, also one that is held back; waits for one up to `timeout`: `sigtimedwait(2)`. Lower numbers
    /// come first, and real-time signals of one number in the order in which they were raised.
    ///
    /// Hold the signals back first: one that is neither held back nor handled has its default action.
    ///
    /// # Errors
    /// [`Error::TimedOut`], and nothing is lost. [`Error::BrokerGone`], [`Error::SessionEnded`]: what was pending is gone.
    /// [`Error::BrokerSilent`]: the signal that its late answer carries is dropped.
    pub fn wait(&self, set: impl Into<SignalSet>, timeout: Duration) -> Result<SigInfo, Error> {
        let (set, until) = (set.into(), Until::after(timeout));
        loop {
            let seen = self.control.events_seen();
            // Whatever is raised after this is told of, and the word grows.
            if let Some(info) = self.take(set, Taking::Any)? {
                return Ok(info);
            }
            let sleep = until.sleep().ok_or(Error::TimedOut(timeout))?;
            keyway_sys::futex::wait(&[(self.control.event_word(), seen)], sleep)?;
        }
    }

    /// Takes a signal of the set that is pending now, also one that is held back.
    ///
    /// # Errors
    /// [`Error::BrokerGone`], [`Error::SessionEnded`].
    pub fn try_wait(&self, set: impl Into<SignalSet>) -> Result<Option<SigInfo>, Error> {
        if self.handlers.is_empty() {
            self.settle()?;
        }
        self.take(set.into(), Taking::Any)
    }

    /// Runs the handlers of all signals that have come and are not held back, on this thread. Returns how many ran: 95 at
    /// most, so that whoever raises without end does not keep this thread for ever.
    ///
    /// # Errors
    /// [`Error::BrokerGone`], [`Error::SessionEnded`].
    pub fn dispatch(&mut self) -> Result<usize, Error> {
        self.settle()?;
        let set: SignalSet = self.handlers.keys().copied().collect();
        for count in 0..DISPATCHED_MAX {
            let Some(info) = self.take(set, Taking::Handled)? else { return Ok(count) };
            if let Some(handler) = self.handlers.get_mut(&info.signal) {
                handler(&info);
            }
        }
        // There may be more.
        self.bell.ring()?;
        Ok(DISPATCHED_MAX)
    }

    fn change_mask(&self, how: MaskChange, set: SignalSet) -> Result<SignalSet, Error> {
        match self.control.request(request::SetMask { how, set })?.0 {
            Reply::Signals(before) => Ok(before),
            _ => Err(Error::BrokerIncoherent { operation: "SetMask" }),
        }
    }

    fn take(&self, set: SignalSet, taking: Taking) -> Result<Option<SigInfo>, Error> {
        match self.control.request(request::TakeSignal { set, taking })?.0 {
            Reply::Signal(taken) => Ok(taken),
            _ => Err(Error::BrokerIncoherent { operation: "TakeSignal" }),
        }
    }

    /// Makes the descriptor quiet. What is pending is to be looked at only after this.
    fn settle(&self) -> Result<(), Error> {
        self.control.pump()?;
        self.bell.drain()?;
        Ok(())
    }
}

/// A descriptor for `poll(2)` and `epoll(7)`, to be read by nobody. It is readable when a signal may have come, and when the
/// session is over; it is quiet again once [`Signals::dispatch`] has run or, where there are no handlers,
/// [`Signals::try_wait`]. Take then what is wanted until there is nothing.
impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readiness.as_fd()
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handled: Vec<Signal> = self.handlers.keys().copied().collect();
        f.debug_struct("Signals").field("handled", &handled).finish_non_exhaustive()
    }
}
