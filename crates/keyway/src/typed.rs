//! Messages that are values: serialised ones of any shape, and plain memory that is read where it lies.
//!
//! Serialised values are [postcard](https://postcard.jamesmunns.com/wire-format): compact, without field names, the same on
//! every machine; both sides must mean the same type. Plain values are the bytes of a type whose every bit pattern is one
//! ([`zerocopy`]): nothing is encoded or decoded, and both sides must be built for the same machine.

use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{error::Error, message::Message, queue::Received, sender::Sender};

impl Sender {
    /// Sends a serialised value; waits while the lane is full.
    ///
    /// # Errors
    /// [`Error::NoSuchValue`] for a value that cannot be serialised, such as a map of unknown length; and as [`Sender::send`].
    pub fn send_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.send(&encode(value)?)
    }

    /// As [`Sender::send_value`], if there is room now.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] when the lane is full, and as [`Sender::send_value`].
    pub fn try_send_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.try_send(&encode(value)?)
    }

    /// As [`Sender::send_value`], but waits no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], and as [`Sender::send_value`].
    pub fn send_value_timeout<T: Serialize + ?Sized>(
        &mut self,
        value: &T,
        timeout: Duration,
    ) -> Result<(), Error> {
        self.send_timeout(&encode(value)?, timeout)
    }

    /// Sends a value as the bytes that it is; waits while the lane is full.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub fn send_plain<T: IntoBytes + Immutable + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.send(value.as_bytes())
    }

    /// As [`Sender::send_plain`], if there is room now.
    ///
    /// # Errors
    /// As [`Sender::try_send`].
    pub fn try_send_plain<T: IntoBytes + Immutable + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.try_send(value.as_bytes())
    }

    /// As [`Sender::send_plain`], but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As [`Sender::send_timeout`].
    pub fn send_plain_timeout<T: IntoBytes + Immutable + ?Sized>(
        &mut self,
        value: &T,
        timeout: Duration,
    ) -> Result<(), Error> {
        self.send_timeout(value.as_bytes(), timeout)
    }
}

impl Message {
    /// The value that was sent with [`Sender::send_value`].
    ///
    /// # Errors
    /// [`Error::NoSuchValue`] when the bytes are no such value, or there are more of them.
    pub fn value<T: DeserializeOwned>(&self) -> Result<T, Error> {
        decode(&self.payload)
    }

    /// The value that was sent with [`Sender::send_plain`], where it lies.
    ///
    /// # Errors
    /// [`Error::NoSuchValue`] when the message has another length.
    pub fn plain<T: FromBytes + KnownLayout + Immutable + Unaligned + ?Sized>(&self) -> Result<&T, Error> {
        view(&self.payload)
    }
}

impl<'i> Received<'i> {
    /// The value that was sent with [`Sender::send_value`]. Text and bytes in it are borrowed from the message.
    ///
    /// # Errors
    /// [`Error::NoSuchValue`] when the bytes are no such value, or there are more of them.
    pub fn value<T: Deserialize<'i>>(&self) -> Result<T, Error> {
        decode(self.payload)
    }

    /// The value that was sent with [`Sender::send_plain`], where it lies.
    ///
    /// # Errors
    /// [`Error::NoSuchValue`] when the message has another length.
    pub fn plain<T: FromBytes + KnownLayout + Immutable + Unaligned + ?Sized>(&self) -> Result<&'i T, Error> {
        view(self.payload)
    }

    /// A copy of the value that was sent with [`Sender::send_plain`], of a type with an alignment.
    ///
    /// # Errors
    /// [`Error::NoSuchValue`] when the message has another length.
    pub fn read_plain<T: FromBytes>(&self) -> Result<T, Error> {
        T::read_from_bytes(self.payload).map_err(|_| no_such::<T>(&"its length is another"))
    }
}

/// A value's bytes, as [`Sender::send_value`] sends them.
///
/// # Errors
/// [`Error::NoSuchValue`] for a value that cannot be serialised.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    postcard::to_allocvec(value).map_err(|error| no_such::<T>(&error))
}

fn decode<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Result<T, Error> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(|error| no_such::<T>(&error))?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(no_such::<T>(&format_args!("{} bytes are left over", rest.len())))
    }
}

fn view<T: FromBytes + KnownLayout + Immutable + Unaligned + ?Sized>(bytes: &[u8]) -> Result<&T, Error> {
    T::ref_from_bytes(bytes).map_err(|_| no_such::<T>(&"its length is another"))
}

fn no_such<T: ?Sized>(why: &dyn std::fmt::Display) -> Error {
    Error::NoSuchValue { expected: std::any::type_name::<T>(), why: why.to_string() }
}
