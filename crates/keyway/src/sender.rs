//! The sending end of a lane.
//!
//! Neighbours: `event_loop` (who waits for room and does not sleep), `in_place` (what is written in the lane's own memory), `segments`
//! (what is sent without being copied into the lane).

mod event_loop;
mod in_place;
mod segments;

use std::{
    ops::{Deref, DerefMut},
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use keyway_abi::{
    CapabilityLimit, Denial, Handle, LaneId, ProcessNumber, Reply, Ticket,
    layout::{CLOCK_UNKNOWN, PAGE_BYTES, RELEASE_WAITING_OFFSET, RING_BYTES_MIN, lane_bytes},
    limits::{MESSAGE_CAPABILITIES_MAX, RING_BYTES_DEFAULT},
    request,
};
use keyway_shm::{Access, Acknowledged, LaneSender, RecordHeader, SendError, Wait, WakeBy, declare_clock};
use keyway_sys::{
    Errno, barrier, clock, futex,
    memory::{Mapping, Populate},
};

use crate::{
    control::Control,
    error::Error,
    message::{Outgoing, flags},
    pool::Shares,
    segment::declared_payload_max,
    waiting::{Spinner, Until, WaitStyle},
};

pub use self::segments::LargePayloads;
use self::{event_loop::Rung, segments::Segments};

/// How a lane is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct SenderOptions {
    /// Bytes of the ring: a power of two, 4 KiB to 1 GiB, within the queue's bound and the capability's. `None`: 64 KiB, or what
    /// is within both.
    pub ring_bytes: Option<u32>,
    /// Whether the lane's memory is to be of pages of 2 MiB, where the administrator has reserved enough of them
    /// (`/proc/sys/vm/nr_hugepages`), else of ordinary ones. It is rounded up to whole ones (a ring of 2 MiB takes 4), and all of it is
    /// put in place when the lane is opened. For rings of megabytes that carry large messages.
    pub huge: bool,
    /// The lane's priority: 0, the lowest, to 7, and no more than the capability allows. It counts at queues that take messages by
    /// priority.
    pub priority: u8,
    /// How to wait for room.
    pub wait: WaitStyle,
    /// What becomes of payloads that are too large for the ring.
    pub large: LargePayloads,
}

/// The sending end of a lane. Dropping it closes the lane; what was sent can still be received.
#[derive(Debug)]
pub struct Sender {
    control: Arc<Control>,
    lane: LaneId,
    peer: ProcessNumber,
    inner: LaneSender,
    spinner: Spinner,
    rung: Option<Rung>,
    segments: Segments,
    /// Larger payloads go by segments.
    segments_above: usize,
}

impl Sender {
    pub(crate) fn open(control: &Arc<Control>, queue: Handle, options: SenderOptions) -> Result<Self, Error> {
        match Self::open_as_asked(control, queue, options) {
            // Somebody took the last huge pages between the broker's look and ours.
            Err(error) if options.huge && error.errno() == Errno::NOMEM.raw_os_error() => {
                Self::open_as_asked(control, queue, SenderOptions { huge: false, ..options })
            }
            opened => opened,
        }
    }

    fn open_as_asked(control: &Arc<Control>, queue: Handle, options: SenderOptions) -> Result<Self, Error> {
        let (ring_bytes, (reply, descriptors)) = Self::ask_for_lane(control, queue, options)?;
        let incoherent = || Error::BrokerIncoherent { operation: "OpenLane" };
        let Reply::LaneOpening { lane, word, peer, stamps } = reply else { return Err(incoherent()) };
        let map = || {
            let [ring, ack] = <[_; 2]>::try_from(descriptors).map_err(|_| incoherent())?;
            let ring_length = lane_bytes(ring_bytes, options.huge) as usize;
            // Huge pages are there at once, or not at all; others come as they are used.
            let populate = if options.huge { Populate::Now } else { Populate::OnUse };
            let ring = Mapping::own(ring, ring_length, populate)?;
            barrier::own().declare(ring.view());
            if stamps {
                declare_clock(ring.view(), clock::namespace().unwrap_or(CLOCK_UNKNOWN));
            }
            let waits = ring.view().word(RELEASE_WAITING_OFFSET).ok_or_else(incoherent)?;
            let ack = Mapping::new(ack, PAGE_BYTES, Access::Read, Populate::OnUse)?;
            control.ask(request::LaneMapped { lane })?;
            let payload_bytes_max = declared_payload_max(&ack.view());
            let status = control.status(word)?;
            let shares = Arc::new(Shares::new((peer, lane), ack.view(), waits, status.clone()));
            let inner = LaneSender::new(ring, &ack.view(), status, ring_bytes, barrier::own());
            let inner = inner.map_err(|_| incoherent())?;
            let inner = if stamps { inner.stamping(clock::now_ns) } else { inner };
            Ok((inner, Segments::new(shares, options.large, payload_bytes_max)))
        };
        match map() {
            Ok((inner, segments)) => Ok(Sender {
                control: Arc::clone(control),
                lane,
                peer,
                segments_above: segments.payloads_above(inner.payload_bytes_max()),
                inner,
                spinner: Spinner::new(options.wait),
                rung: None,
                segments,
            }),
            Err(error) => {
                // Its receiver may have died meanwhile; nobody else closes our end.
                let _ = control.ask(request::CloseLane { lane });
                Err(error)
            }
        }
    }

    /// Asks for a lane. If nobody chose how large its ring is to be, a smaller one than usual will do.
    fn ask_for_lane(
        control: &Control,
        queue: Handle,
        SenderOptions { ring_bytes: chosen, priority, huge, .. }: SenderOptions,
    ) -> Result<(u32, (Reply, Vec<OwnedFd>)), Error> {
        let mut ring_bytes = chosen.unwrap_or(RING_BYTES_DEFAULT);
        loop {
            let asked = control.request(request::OpenLane { queue, ring_bytes, priority, huge });
            let Err(Error::Denied {
                denial:
                    Denial::InvalidSize { max, .. }
                    | Denial::LimitReached { limit: CapabilityLimit::RingBytes, max, .. },
                ..
            }) = &asked
            else {
                return Ok((ring_bytes, asked?));
            };
            let max = *max;
            let next = 1 << max.max(1).ilog2();
            if chosen.is_some() || next >= u64::from(ring_bytes) || next < u64::from(RING_BYTES_MIN) {
                return Ok((ring_bytes, asked?));
            }
            ring_bytes = next as u32;
        }
    }

    /// The lane.
    pub fn lane(&self) -> LaneId {
        self.lane
    }

    /// The kernel's number of the session that receives.
    pub fn peer(&self) -> ProcessNumber {
        self.peer
    }

    /// Sends bytes; waits while the lane is full. What does not fit its ring, and more than 1 MiB, goes through a [pool](LargePayloads).
    ///
    /// # Errors
    /// [`Error::MessageTooLarge`], [`Error::LaneEnded`], [`Error::PeerFault`].
    #[inline]
    pub fn send(&mut self, payload: &[u8]) -> Result<(), Error> {
        if payload.len() <= self.segments_above && self.inner.send_plain(0, payload) {
            self.wake_receiver();
            return Ok(());
        }
        self.send_with_care(payload)
    }

    /// What is not the ordinary case of a small payload.
    #[cold]
    fn send_with_care(&mut self, payload: &[u8]) -> Result<(), Error> {
        if payload.len() > self.segments_above {
            return self.send_large(&Outgoing::bytes(payload), 0, &[], Until::Forever);
        }
        self.send_until(RecordHeader::default(), &[payload], Until::Forever)
    }

    /// Sends bytes if there is room now.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] when the lane is full, and as [`Sender::send`].
    #[inline]
    pub fn try_send(&mut self, payload: &[u8]) -> Result<(), Error> {
        if payload.len() <= self.segments_above && self.inner.send_plain(0, payload) {
            self.wake_receiver();
            return Ok(());
        }
        self.try_send_with_care(payload)
    }

    #[cold]
    fn try_send_with_care(&mut self, payload: &[u8]) -> Result<(), Error> {
        if payload.len() > self.segments_above {
            return self.send_large(&Outgoing::bytes(payload), 0, &[], Until::after(Duration::ZERO));
        }
        match self.inner.try_send(RecordHeader::default(), payload) {
            Ok(()) => {
                self.wake_receiver();
                Ok(())
            }
            Err(error) => Err(self.why_not(error)),
        }
    }

    /// Sends bytes; waits for room, but no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], and as [`Sender::send`].
    pub fn send_timeout(&mut self, payload: &[u8], timeout: Duration) -> Result<(), Error> {
        let sent = self.send_parts(&Outgoing::bytes(payload), 0, &[], Until::after(timeout));
        sent.map_err(|error| timed_out(error, timeout))
    }

    /// Sends several messages at once: the receiver sees all or none, and is woken once. Waits until there is room for all.
    ///
    /// # Errors
    /// [`Error::MessageTooLarge`] when they can never fit together, and as [`Sender::send`]. None was sent.
    #[inline]
    pub fn send_batch(&mut self, payloads: &[&[u8]]) -> Result<(), Error> {
        match self.try_send_batch(payloads) {
            Err(Error::WouldBlock) => self.send_batch_until(payloads, Until::Forever),
            sent => sent,
        }
    }

    /// Sends several messages at once if there is room for all of them now.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] when the lane is too full, and as [`Sender::send_batch`].
    #[inline]
    pub fn try_send_batch(&mut self, payloads: &[&[u8]]) -> Result<(), Error> {
        match self.inner.try_send_all(payloads) {
            Ok(()) => {
                self.wake_receiver();
                Ok(())
            }
            Err(error) => Err(self.why_not(error)),
        }
    }

    /// As [`Sender::send_batch`], but waits no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], and as [`Sender::send_batch`].
    pub fn send_batch_timeout(&mut self, payloads: &[&[u8]], timeout: Duration) -> Result<(), Error> {
        let sent = self.send_batch_until(payloads, Until::after(timeout));
        sent.map_err(|error| timed_out(error, timeout))
    }

    /// Lends room for a message of at most `payload_bytes` in the lane's own memory, to be written in place; waits for it.
    /// Its content is what this lane carried there before, and zero at first.
    ///
    /// # Errors
    /// [`Error::MessageTooLarge`] above [`Sender::loan_bytes_max`], and as [`Sender::send`].
    pub fn loan(&mut self, payload_bytes: usize) -> Result<Loan<'_>, Error> {
        self.loan_until(payload_bytes, Until::Forever)
    }

    /// As [`Sender::loan`], if there is room now.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] when the lane is full, and as [`Sender::loan`].
    pub fn try_loan(&mut self, payload_bytes: usize) -> Result<Loan<'_>, Error> {
        self.loan_until(payload_bytes, Until::after(Duration::ZERO))
    }

    /// As [`Sender::loan`], but waits no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], and as [`Sender::loan`].
    pub fn loan_timeout(&mut self, payload_bytes: usize, timeout: Duration) -> Result<Loan<'_>, Error> {
        self.loan_until(payload_bytes, Until::after(timeout)).map_err(|error| timed_out(error, timeout))
    }

    /// Sends a message with type, flags and capabilities; waits while the lane is full.
    ///
    /// # Errors
    /// As [`Sender::send`], and [`Error::Denied`] for a capability that cannot travel; then nothing was sent.
    pub fn send_message(&mut self, message: &Outgoing<'_>) -> Result<(), Error> {
        self.send_parts(message, 0, &[], Until::Forever)
    }

    /// As [`Sender::send_message`], if there is room now.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] when the lane is full, and as [`Sender::send_message`].
    pub fn try_send_message(&mut self, message: &Outgoing<'_>) -> Result<(), Error> {
        self.send_parts(message, 0, &[], Until::after(Duration::ZERO))
    }

    /// As [`Sender::send_message`], but waits no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], and as [`Sender::send_message`].
    pub fn send_message_timeout(&mut self, message: &Outgoing<'_>, timeout: Duration) -> Result<(), Error> {
        let sent = self.send_parts(message, 0, &[], Until::after(timeout));
        sent.map_err(|error| timed_out(error, timeout))
    }

    /// How many messages the receiver has taken, of how many sent.
    pub fn acknowledged(&mut self) -> Acknowledged {
        self.inner.acknowledged()
    }

    /// The largest message that fits into this lane's ring, in bytes. Larger payloads go by segments ([`LargePayloads`]).
    pub fn payload_bytes_max(&self) -> usize {
        self.inner.payload_bytes_max()
    }

    /// The largest message that can be written in place, in bytes.
    pub fn loan_bytes_max(&self) -> usize {
        self.inner.loan_bytes_max()
    }

    /// How to wait for room from now on.
    pub fn set_wait_style(&mut self, style: WaitStyle) {
        self.spinner.set_style(style);
    }

    /// Why nothing more can be sent, if that is so.
    pub fn ending(&mut self) -> Option<Error> {
        let Acknowledged { messages: acknowledged, sent } = self.inner.acknowledged();
        let ended = self.inner.ending().map(|ending| Error::LaneEnded { ending, acknowledged, sent });
        ended.or(self.inner.fault().map(Error::PeerFault))
    }

    pub(crate) fn send_parts(
        &mut self,
        message: &Outgoing<'_>,
        extra_flags: u32,
        prefix: &[u8],
        until: Until,
    ) -> Result<(), Error> {
        if prefix.len() + message.payload.len() > self.segments_above {
            return self.send_large(message, extra_flags, prefix, until);
        }
        self.send_record(message, extra_flags, prefix, until)
    }

    /// Puts the capabilities into escrow, then sends; takes them back if that fails.
    fn send_record(
        &mut self,
        message: &Outgoing<'_>,
        extra_flags: u32,
        prefix: &[u8],
        until: Until,
    ) -> Result<(), Error> {
        let asked = message.capabilities.len();
        if asked > MESSAGE_CAPABILITIES_MAX {
            return Err(Error::TooManyCapabilities { asked, max: MESSAGE_CAPABILITIES_MAX });
        }
        let asked_bytes = prefix.len() + message.payload.len();
        let bytes_max = self.payload_bytes_max();
        if asked_bytes > bytes_max {
            return Err(Error::MessageTooLarge { asked_bytes, bytes_max });
        }
        let header = RecordHeader {
            message_type: message.message_type,
            flags: u32::from(message.flags) | extra_flags | (asked as u32) << flags::CAPABILITIES_SHIFT,
            ticket: 0,
        };
        if asked > 0 && asked_bytes <= self.loan_bytes_max() {
            // Capabilities are on their way once there is room for what brings them.
            self.wait_while_full(until, |lane| lane.check_loan(header, asked_bytes))?;
        }
        let mut tickets = Vec::new();
        let put = match self.put_capabilities(message, &mut tickets) {
            // The broker knew it first.
            Err(error @ Error::Denied { denial: Denial::LaneEnded { .. }, .. }) => {
                Err(self.ending().unwrap_or(error))
            }
            put => put,
        };
        let header = RecordHeader { ticket: tickets.first().map_or(0, |ticket| ticket.0), ..header };
        let sent = put.and_then(|()| self.send_until(header, &[prefix, message.payload], until));
        if sent.is_err() {
            for ticket in tickets {
                // The lane may be gone, and the escrow with it.
                let _ = self.control.ask(request::EscrowWithdraw { lane: self.lane, ticket });
            }
        }
        sent
    }

    fn put_capabilities(&self, message: &Outgoing<'_>, tickets: &mut Vec<Ticket>) -> Result<(), Error> {
        for carried in message.capabilities {
            let (capability, how) = carried.how();
            let request = request::EscrowPut { lane: self.lane, from: capability.handle(), how };
            match self.control.request(request)?.0 {
                Reply::Ticket(ticket) => tickets.push(ticket),
                _ => return Err(Error::BrokerIncoherent { operation: "EscrowPut" }),
            }
        }
        Ok(())
    }

    fn send_until(&mut self, header: RecordHeader, parts: &[&[u8]], until: Until) -> Result<(), Error> {
        let sent = self.wait_while_full(until, |lane| lane.try_send_parts(header, parts));
        sent.map(|()| self.wake_receiver())
    }

    fn send_batch_until(&mut self, payloads: &[&[u8]], until: Until) -> Result<(), Error> {
        let sent = self.wait_while_full(until, |lane| lane.try_send_all(payloads));
        sent.map(|()| self.wake_receiver())
    }

    fn loan_until(&mut self, payload_bytes: usize, until: Until) -> Result<Loan<'_>, Error> {
        let header = RecordHeader::default();
        self.wait_while_full(until, |lane| lane.check_loan(header, payload_bytes))?;
        let place = (self.peer, self.lane);
        Ok(Loan {
            inner: self.inner.loan(header, payload_bytes),
            payload_bytes,
            control: &self.control,
            place,
        })
    }

    /// Tries until there is room, the lane is over, or the time.
    fn wait_while_full(
        &mut self,
        until: Until,
        mut attempt: impl FnMut(&mut LaneSender) -> Result<(), SendError>,
    ) -> Result<(), Error> {
        let mut asleep_since = None;
        loop {
            let needed_bytes = match attempt(&mut self.inner) {
                Err(SendError::Full { needed_bytes }) => needed_bytes,
                sent => {
                    self.spinner.settle(asleep_since);
                    return sent.map_err(|error| self.why_not(error));
                }
            };
            if matches!(until, Until::Now) {
                return Err(Error::WouldBlock);
            }
            if self.spinner.spin() {
                if self.spinner.is_clock_due() && until.is_over() {
                    return Err(Error::WouldBlock);
                }
                if self.spinner.is_look_due() {
                    self.control.pump()?;
                }
                self.inner.watch(needed_bytes, self.spinner.looks());
                continue;
            }
            asleep_since.get_or_insert_with(Instant::now);
            self.sleep(needed_bytes, until)?;
        }
    }

    fn sleep(&mut self, needed_bytes: u32, until: Until) -> Result<(), Error> {
        let Some(timeout) = until.sleep() else { return Err(Error::WouldBlock) };
        self.inner.announce_wait(WakeBy::Futex);
        barrier::make();
        let slept = match self.inner.prepare_wait(needed_bytes) {
            Wait::Sleep(on) => futex::wait(&[(&on.peer.0, on.peer.1), (&on.broker.0, on.broker.1)], timeout),
            Wait::Ready => Ok(futex::Woken::Changed),
        };
        self.inner.finish_wait();
        if slept? == futex::Woken::TimedOut {
            // Nobody would tell of a receiver's death any more if the broker had died.
            self.control.pump()?;
        }
        Ok(())
    }

    fn why_not(&mut self, error: SendError) -> Error {
        why_not(&mut self.inner, error)
    }

    #[inline]
    fn wake_receiver(&self) {
        if let Some(by) = self.inner.must_wake_receiver() {
            wake_receiver(&self.inner, by, &self.control, (self.peer, self.lane));
        }
    }
}

#[cold]
fn why_not(lane: &mut LaneSender, error: SendError) -> Error {
    match error {
        SendError::Full { .. } => Error::WouldBlock,
        SendError::TooLarge { asked_bytes, bytes_max } => Error::MessageTooLarge { asked_bytes, bytes_max },
        SendError::Ended(ending) => {
            let Acknowledged { messages, sent } = lane.acknowledged();
            Error::LaneEnded { ending, acknowledged: messages, sent }
        }
        SendError::Fault(fault) => Error::PeerFault(fault),
    }
}

#[cold]
fn wake_receiver(inner: &LaneSender, by: WakeBy, control: &Control, (peer, lane): (ProcessNumber, LaneId)) {
    // What was committed is sent, also when its receiver cannot be woken: it looks by itself after a while, or is gone.
    let _ = match by {
        WakeBy::Futex => futex::wake(inner.receiver_wakes_on(), 1).map(drop).map_err(Error::from),
        WakeBy::Doorbell => control.ring(peer, lane),
    };
}

/// Room for a message in the lane's own memory. Write it, then [`Loan::commit`]; dropped without that, nothing is sent.
#[derive(Debug)]
pub struct Loan<'s> {
    inner: keyway_shm::Loan<'s>,
    payload_bytes: usize,
    control: &'s Control,
    place: (ProcessNumber, LaneId),
}

impl Loan<'_> {
    /// Sends all that was lent.
    ///
    /// # Errors
    /// [`Error::LaneEnded`] and [`Error::PeerFault`]; then nothing was sent.
    pub fn commit(self) -> Result<(), Error> {
        let payload_bytes = self.payload_bytes;
        self.commit_first(payload_bytes)
    }

    /// Sends the first `payload_bytes` of what was lent.
    ///
    /// # Errors
    /// [`Error::MessageTooLarge`] for more than was lent, and as [`Loan::commit`].
    pub fn commit_first(self, payload_bytes: usize) -> Result<(), Error> {
        let (lane, sent) = self.inner.commit(payload_bytes);
        match sent {
            Ok(()) => {
                if let Some(by) = lane.must_wake_receiver() {
                    wake_receiver(lane, by, self.control, self.place);
                }
                Ok(())
            }
            Err(error) => Err(why_not(lane, error)),
        }
    }
}

impl Deref for Loan<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.inner.payload()
    }
}

impl DerefMut for Loan<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.inner.payload_mut()
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.segments.close();
        if !self.control.is_over() {
            // It may have ended already.
            let _ = self.control.ask(request::CloseLane { lane: self.lane });
        }
    }
}

/// A wait that is over is told as the user asked for it.
pub(crate) fn timed_out(error: Error, timeout: Duration) -> Error {
    match error {
        Error::WouldBlock => Error::TimedOut(timeout),
        error => error,
    }
}
