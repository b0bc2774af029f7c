//! How a queue waits: spinning on its hot lanes, then asleep.
//!
//! A queue of few lanes sleeps on the lanes' own words. One of many asks those that are idle to ring, and sleeps on the
//! doorbells of its peers; while it is awake it looks at those now and then.

use std::{
    hint,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use keyway_abi::{LaneId, ProcessNumber};
use keyway_shm::{Wait, WakeBy, Word};
use keyway_sys::{barrier, futex};

use crate::{
    alarm::Alarm,
    error::Error,
    queue::Queue,
    waiting::{SLEEP_MAX, Until},
};

/// Lanes that are looked at in each turn, however long they have had nothing.
const HOT_MAX: usize = 16;
/// So many messages are taken between two looks at the doorbells.
const LOOK_EVERY: u32 = 1024;
/// So many times nothing is found between two looks at the doorbells.
const IDLE_LOOK_EVERY: u32 = 64;

impl Queue {
    /// What it sleeps on.
    pub(super) fn alarm(&mut self) -> Result<&mut Alarm, Error> {
        if self.alarm.is_none() {
            self.alarm = Some(Alarm::new(&self.control)?);
        }
        self.alarm.as_mut().ok_or(Error::WouldBlock)
    }

    /// Counts messages taken; now and then the doorbells are looked at in between.
    #[inline]
    pub(super) fn count(&mut self, messages: usize) {
        self.since_look += messages as u32;
        if self.since_look >= LOOK_EVERY && self.lanes.len() > HOT_MAX {
            self.look_around();
        }
    }

    /// Looks at the doorbells, and lets idle lanes ring instead of looking at them.
    #[cold]
    fn look_around(&mut self) {
        self.since_look = 0;
        // What cannot be done now is done at the next look; the lanes stay hot meanwhile.
        let _ = self.hear().and_then(|()| self.cool_idle());
    }

    /// Spins once more, or sleeps once.
    pub(super) fn wait_once(
        &mut self,
        until: Until,
        asleep_since: &mut Option<Instant>,
    ) -> Result<(), Error> {
        if self.spinner.spin() {
            let looks = self.spinner.looks();
            match self.lanes.only().and_then(|slot| self.lanes.get_mut(slot)) {
                Some(lane) => lane.receiver.watch(looks),
                None => hint::spin_loop(),
            }
            if self.spinner.is_clock_due() && until.is_over() {
                return Err(Error::WouldBlock);
            }
            if self.spinner.is_look_due() {
                self.control.pump()?;
            }
            if self.lanes.len() > HOT_MAX {
                self.since_look += LOOK_EVERY / IDLE_LOOK_EVERY;
                if self.since_look >= LOOK_EVERY {
                    self.look_around();
                }
            }
            return Ok(());
        }
        asleep_since.get_or_insert_with(Instant::now);
        let Some(timeout) = until.sleep() else { return Err(Error::WouldBlock) };
        sleep_on(&mut [self], timeout)
    }

    /// Looks at the doorbells for one who does not wait, and tells whether there may be something to take now.
    #[inline]
    pub(super) fn hear_cold(&mut self) -> Result<bool, Error> {
        if !self.lanes.has_cold() {
            return Ok(false);
        }
        self.hear()?;
        Ok(true)
    }

    /// Asks the senders of lanes that have had nothing since the last time to ring.
    fn cool_idle(&mut self) -> Result<(), Error> {
        if self.lanes.hot().len() <= HOT_MAX {
            return Ok(());
        }
        let mut idle = Vec::new();
        for place in 0..self.lanes.hot().len() {
            let slot = self.lanes.hot()[place];
            let Some(lane) = self.lanes.get_mut(slot) else { continue };
            if !std::mem::take(&mut lane.is_busy) {
                idle.push(slot);
            }
        }
        idle.retain(|&slot| self.listen(slot).is_ok());
        for &slot in &idle {
            if let Some(lane) = self.lanes.get_mut(slot) {
                lane.receiver.announce_wait(WakeBy::Doorbell);
            }
        }
        if !idle.is_empty() {
            barrier::make();
        }
        for slot in idle {
            let Some(lane) = self.lanes.get_mut(slot) else { continue };
            match lane.receiver.prepare_wait() {
                Wait::Sleep(_) => self.lanes.cool(slot),
                Wait::Ready => lane.receiver.finish_wait(),
            }
        }
        Ok(())
    }

    /// Sees to it that a ring for this lane is heard.
    fn listen(&mut self, slot: usize) -> Result<(), Error> {
        let Some(lane) = self.lanes.get(slot) else { return Ok(()) };
        let (id, peer) = (lane.peer.lane, ProcessNumber(lane.peer.identity.process.0));
        self.alarm()?.listen(id, peer)
    }

    /// Rings for a lane that is over are for nobody.
    pub(super) fn listen_no_more(&self, lane: LaneId) {
        if let Some(alarm) = &self.alarm {
            alarm.ignore(lane);
        }
    }

    /// Waits for rings and for what the broker has to tell, and looks from now on at the lanes that rang.
    fn hear_for(&mut self, timeout: Duration) -> Result<(), Error> {
        let rung = self.alarm()?.hear(timeout)?;
        self.heat(rung);
        // An event is in the socket before the event word says so: the word alone would have us sleep beside it.
        self.take_in();
        Ok(())
    }

    /// Looks at lanes from now on that were not looked at.
    fn heat(&mut self, lanes: Vec<LaneId>) {
        for lane in lanes {
            let Some(slot) = self.lanes.slot(lane) else { continue };
            if self.lanes.heat(slot)
                && let Some(lane) = self.lanes.get_mut(slot)
            {
                lane.receiver.finish_wait();
            }
        }
    }

    /// Wakes the sender of a lane that waits for room.
    #[cold]
    pub(super) fn wake_sender(&mut self, slot: usize) -> Result<(), Error> {
        let Some(lane) = self.lanes.get(slot) else { return Ok(()) };
        match lane.receiver.must_wake_sender() {
            None => Ok(()),
            Some(WakeBy::Futex) => {
                futex::wake(lane.receiver.sender_wakes_on(), 1)?;
                Ok(())
            }
            Some(WakeBy::Doorbell) => self.control.ring(lane.peer.identity.process, lane.peer.lane),
        }
    }

    /// For event loops: a descriptor that is readable when there may be something to take, once the queue is armed. Close it when
    /// you like; it is always the same set that is watched.
    ///
    /// ```text
    /// loop {
    ///     take what there is (try_receive, try_next, ...) until WouldBlock
    ///     if arm()? { wait until the descriptor is readable }
    ///     disarm(); hear()?
    /// }
    /// ```
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn event_descriptor(&mut self) -> Result<OwnedFd, Error> {
        self.alarm()?.descriptor()
    }

    /// Asks all senders to ring: see [`Queue::event_descriptor`]. `false` when there is something to take. Where a sender cannot ring,
    /// because the broker had no doorbell to give or the sender has closed it, the descriptor is readable again after 10 ms.
    ///
    /// # Errors
    /// As [`Queue::receive`].
    pub fn arm(&mut self) -> Result<bool, Error> {
        self.control.check()?;
        let armed = self.arm_lanes()?;
        if armed == Armed::HalfAsleep {
            self.alarm()?.look_after(HALF_SLEEP_LONG)?;
        }
        Ok(armed != Armed::Ready)
    }

    /// Asks the senders to ring no more, but for lanes that are seldom in use.
    pub fn disarm(&mut self) {
        self.lanes.for_hot(|lane| lane.receiver.finish_wait());
    }

    /// Takes what made the descriptor readable. Never waits; what comes without end is taken in parts.
    ///
    /// # Errors
    /// As [`Queue::receive`].
    pub fn hear(&mut self) -> Result<(), Error> {
        self.hear_for(Duration::ZERO)
    }

    /// Whether it sleeps on doorbells instead of the lanes' words.
    fn needs_bells(&self) -> bool {
        self.lanes.len() > HOT_MAX
    }

    /// Asks all hot lanes to ring.
    fn arm_lanes(&mut self) -> Result<Armed, Error> {
        self.cool_idle()?;
        let mut is_heard = true;
        for place in 0..self.lanes.hot().len() {
            let slot = self.lanes.hot()[place];
            is_heard &= self.listen(slot).is_ok();
        }
        self.lanes.for_hot(|lane| lane.receiver.announce_wait(WakeBy::Doorbell));
        barrier::make();
        let mut is_ready = !self.is_caught_up();
        self.lanes.for_hot(|lane| is_ready |= matches!(lane.receiver.prepare_wait(), Wait::Ready));
        Ok(match (is_ready, is_heard) {
            (true, _) => Armed::Ready,
            (false, true) => Armed::Asleep,
            (false, false) => Armed::HalfAsleep,
        })
    }
}

/// What came of arming a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Armed {
    /// It can sleep until it hears something.
    Asleep,
    /// Some lanes have no doorbell, as the broker had none to give: they must be looked at.
    HalfAsleep,
    /// There is a reason not to sleep.
    Ready,
}

/// How long one sleeps who does not hear all lanes.
const HALF_SLEEP: Duration = Duration::from_millis(1);
/// The same in an event loop, whose others have something to do meanwhile.
const HALF_SLEEP_LONG: Duration = Duration::from_millis(10);

/// Waits until one of the queues, which must be of one [`Client`](crate::Client), may have something to tell; then ask
/// each with [`Queue::try_next`]. Returns also when the time is over.
///
/// # Errors
/// As [`Queue::receive`].
pub fn wait_any(queues: &mut [&mut Queue], timeout: Duration) -> Result<(), Error> {
    sleep_on(queues, timeout.min(SLEEP_MAX))
}

/// Words that one sleep watches beside the event word.
const WORDS_MAX: usize = futex::WORDS_MAX - 1;

fn sleep_on(queues: &mut [&mut Queue], timeout: Duration) -> Result<(), Error> {
    let lanes: usize = queues.iter().map(|queue| queue.lanes.len()).sum();
    let needs_bells = lanes > WORDS_MAX - queues.len() || queues.iter().any(|queue| queue.needs_bells());
    if needs_bells { sleep_on_bells(queues, timeout) } else { sleep_on_words(queues, timeout) }
}

/// Sleeps on every lane's position and on the event word, which grows also when a lane is revoked or its sender dies.
fn sleep_on_words(queues: &mut [&mut Queue], timeout: Duration) -> Result<(), Error> {
    let Some(first) = queues.first() else { return Ok(()) };
    let control = Arc::clone(&first.control);
    let mut words: Vec<(Word, u32)> = Vec::new();
    let mut is_ready = false;
    for queue in queues.iter_mut() {
        queue.lanes.for_hot(|lane| lane.receiver.announce_wait(WakeBy::Futex));
    }
    barrier::make();
    for queue in queues.iter_mut() {
        words.push((control.event_word().clone(), queue.events_seen));
        is_ready |= !queue.told.is_empty();
        queue.lanes.for_hot(|lane| match lane.receiver.prepare_wait() {
            Wait::Sleep(on) => words.push(on.peer),
            Wait::Ready => is_ready = true,
        });
    }
    let mut woken = Ok(futex::Woken::Changed);
    if !is_ready {
        let words: Vec<(&Word, u32)> = words.iter().map(|(word, expected)| (word, *expected)).collect();
        woken = futex::wait(&words, timeout);
    }
    for queue in queues.iter_mut() {
        queue.disarm();
    }
    if woken? == futex::Woken::TimedOut {
        // Nobody would tell of anything any more if the broker had died.
        control.pump()?;
    }
    Ok(())
}

/// Sleeps on the doorbells of the queues' peers and on the session's socket.
fn sleep_on_bells(queues: &mut [&mut Queue], timeout: Duration) -> Result<(), Error> {
    let mut armed = Armed::Asleep;
    for queue in queues.iter_mut() {
        armed = armed.max(queue.arm_lanes()?);
    }
    let timeout = if armed == Armed::HalfAsleep { timeout.min(HALF_SLEEP) } else { timeout };
    let mut slept = Ok(true);
    if armed != Armed::Ready {
        let fds: Vec<BorrowedFd<'_>> =
            queues.iter().filter_map(|queue| queue.alarm.as_ref().map(|alarm| alarm.as_fd())).collect();
        slept = keyway_sys::epoll::wait_readable(&fds, timeout);
    }
    let has_slept_through = !slept?;
    for queue in queues.iter_mut() {
        queue.disarm();
        queue.hear()?;
        if has_slept_through {
            // A ring may have been lost by a sender that could not ring; what it sent is there all the same.
            let ready = queue.lanes.cold_and_ready();
            queue.heat(ready);
            queue.control.pump()?;
        }
    }
    Ok(())
}
