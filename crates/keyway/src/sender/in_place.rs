//! Sending what is written in the lane's own memory, message by message: nothing is copied.

use std::time::Duration;

use crate::{
    error::Error,
    sender::{Sender, timed_out},
    waiting::Until,
};

impl Sender {
    /// Sends a message of `payload_bytes` that `fill` writes in the lane's own memory; waits while the lane is full. The fastest
    /// way to send what is not yet in one piece of memory.
    ///
    /// `fill` gets exactly so many bytes, whose content is whatever this lane carried there before, and is called once there is
    /// room; not at all if there is an error first. What does not fit the ring is written into a [pool](crate::LargePayloads), once
    /// there is room in that and in the lane.
    ///
    /// ```
    /// # use keyway::{Audience, Client, Embedded, QueueOptions, Rights};
    /// # let broker = Embedded::start()?;
    /// # let client = Client::over(broker.connect()?)?;
    /// # let mut queue = client.create_queue(QueueOptions::default())?;
    /// # let mut sender = client.open_sender(queue.capability())?;
    /// sender.send_with(8, |payload| payload.copy_from_slice(&7_u64.to_le_bytes()))?;
    /// assert_eq!(queue.receive()?.payload, 7_u64.to_le_bytes());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Sender::send`].
    #[inline]
    pub fn send_with(&mut self, payload_bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Error> {
        self.send_with_until(payload_bytes, fill, || Until::Forever)
    }

    /// As [`Sender::send_with`], if there is room now.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] when the lane is full, and as [`Sender::send`].
    #[inline]
    pub fn try_send_with(&mut self, payload_bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Error> {
        self.send_with_until(payload_bytes, fill, || Until::after(Duration::ZERO))
    }

    /// As [`Sender::send_with`], but waits no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], and as [`Sender::send`].
    pub fn send_with_timeout(
        &mut self,
        payload_bytes: usize,
        fill: impl FnOnce(&mut [u8]),
        timeout: Duration,
    ) -> Result<(), Error> {
        let sent = self.send_with_until(payload_bytes, fill, || Until::after(timeout));
        sent.map_err(|error| timed_out(error, timeout))
    }

    #[inline]
    fn send_with_until(
        &mut self,
        payload_bytes: usize,
        fill: impl FnOnce(&mut [u8]),
        until: impl FnOnce() -> Until,
    ) -> Result<(), Error> {
        let mut fill = Some(fill);
        let mut once = |payload: &mut [u8]| {
            if let Some(fill) = fill.take() {
                fill(payload);
            }
        };
        if payload_bytes <= self.segments_above && self.inner.send_plain_with(payload_bytes, &mut once) {
            self.wake_receiver();
            return Ok(());
        }
        self.send_with_care_in_place(payload_bytes, &mut once, until())
    }

    /// What is not the ordinary case: no room is known of, a payload for a pool, an end.
    #[cold]
    fn send_with_care_in_place(
        &mut self,
        payload_bytes: usize,
        fill: &mut dyn FnMut(&mut [u8]),
        until: Until,
    ) -> Result<(), Error> {
        if payload_bytes > self.segments_above {
            return self.send_large_with(payload_bytes, fill, until);
        }
        self.send_each_until(1, payload_bytes, &mut |_, payload| fill(payload), until)
    }

    /// Sends `count` messages of `payload_bytes` each at once: the receiver sees all or none, and is woken once. `fill` writes
    /// each, by its index from 0 on, as for [`Sender::send_with`]. Waits until there is room for all.
    ///
    /// # Errors
    /// [`Error::MessageTooLarge`] when they can never fit together, and as [`Sender::send`]. None was sent.
    #[inline]
    pub fn send_each(
        &mut self,
        count: usize,
        payload_bytes: usize,
        mut fill: impl FnMut(usize, &mut [u8]),
    ) -> Result<(), Error> {
        match self.try_send_each(count, payload_bytes, &mut fill) {
            Err(Error::WouldBlock) => self.send_each_until(count, payload_bytes, &mut fill, Until::Forever),
            sent => sent,
        }
    }

    /// As [`Sender::send_each`], if there is room for all of them now.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] when the lane is too full, and as [`Sender::send_each`].
    #[inline]
    pub fn try_send_each(
        &mut self,
        count: usize,
        payload_bytes: usize,
        mut fill: impl FnMut(usize, &mut [u8]),
    ) -> Result<(), Error> {
        match self.inner.try_send_each(count, payload_bytes, &mut fill) {
            Ok(()) => {
                self.wake_receiver();
                Ok(())
            }
            Err(error) => Err(self.why_not(error)),
        }
    }

    /// As [`Sender::send_each`], but waits no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], and as [`Sender::send_each`].
    pub fn send_each_timeout(
        &mut self,
        count: usize,
        payload_bytes: usize,
        mut fill: impl FnMut(usize, &mut [u8]),
        timeout: Duration,
    ) -> Result<(), Error> {
        let sent = self.send_each_until(count, payload_bytes, &mut fill, Until::after(timeout));
        sent.map_err(|error| timed_out(error, timeout))
    }

    fn send_each_until(
        &mut self,
        count: usize,
        payload_bytes: usize,
        fill: &mut dyn FnMut(usize, &mut [u8]),
        until: Until,
    ) -> Result<(), Error> {
        let mut fill = |index: usize, payload: &mut [u8]| fill(index, payload);
        let sent = self.wait_while_full(until, |lane| lane.try_send_each(count, payload_bytes, &mut fill));
        sent.map(|()| self.wake_receiver())
    }
}
