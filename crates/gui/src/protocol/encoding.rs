//! Messages to bytes and back.
//!
//! Bytes from a client become a message here or are [`Malformed`]; nothing later looks at the bytes. A message is judged for
//! length before it is decoded, so decoding allocates little; lists and texts are judged right after.

use alloc::vec::Vec;

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use super::{Answer, ConnectorInfo, DeviceInfo, DeviceType, Event, GuiResponse, RenderNode, Request};
use crate::limits::{
    CONNECTORS_MAX, DAMAGE_MAX, DEVICES_MAX, GUI_MESSAGE_BYTES_MAX, MODES_MAX, NAME_BYTES_MAX, REASONS_MAX,
    TEXT_BYTES_MAX,
};

/// The bytes of a message.
///
/// # Errors
/// [`Malformed`] if a list, a text or the whole is over its bound.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, Malformed> {
    message.check_bounds()?;
    let bytes = postcard::to_allocvec(message).map_err(|_| Malformed::Unreadable)?;
    check_length(&bytes)?;
    Ok(bytes)
}

/// The message of these bytes, all of them.
///
/// # Errors
/// [`Malformed`] if they are no message, or more than one.
pub fn decode<M: Message>(bytes: &[u8]) -> Result<M, Malformed> {
    check_length(bytes)?;
    let (message, rest) = postcard::take_from_bytes::<M>(bytes).map_err(|error| match error {
        postcard::Error::DeserializeUnexpectedEnd => Malformed::Truncated,
        _ => Malformed::Unreadable,
    })?;
    if !rest.is_empty() {
        return Err(Malformed::TrailingBytes { count: rest.len() });
    }
    message.check_bounds()?;
    Ok(message)
}

fn check_length(bytes: &[u8]) -> Result<(), Malformed> {
    if bytes.len() > GUI_MESSAGE_BYTES_MAX {
        return Err(Malformed::TooLong { bytes: bytes.len(), bytes_max: GUI_MESSAGE_BYTES_MAX });
    }
    Ok(())
}

/// Bytes that are no message, or a message that cannot become bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// Longer than any message.
    #[error("message of {bytes} bytes, at most {bytes_max} are allowed")]
    TooLong {
        /// Its bytes.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The bytes end before the message does.
    #[error("message is cut short")]
    Truncated,
    /// A variant, number or text that does not exist.
    #[error("message has a variant or value that does not exist")]
    Unreadable,
    /// The message ends before the bytes do.
    #[error("{count} bytes after the end of the message")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// A text over its bound.
    #[error("text of {bytes} bytes, at most {bytes_max} are allowed")]
    TextTooLong {
        /// Its bytes.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A list over its bound.
    #[error("list of {count}, at most {count_max} are allowed")]
    ListTooLong {
        /// Its length.
        count: usize,
        /// The limit.
        count_max: usize,
    },
}

/// What can be a whole message: [`Request`], [`Answer`] and [`Event`], nothing else.
pub trait Message: Serialize + DeserializeOwned + sealed::Sealed {
    /// Judges the lists and texts in it.
    ///
    /// # Errors
    /// [`Malformed`] if one is over its bound.
    fn check_bounds(&self) -> Result<(), Malformed>;
}

impl Message for Request {
    fn check_bounds(&self) -> Result<(), Malformed> {
        match self {
            Request::LeaseDisplay { connectors } => check_list(connectors, CONNECTORS_MAX),
            Request::PresentSurface { damage, .. } => check_list(damage, DAMAGE_MAX),
            _ => Ok(()),
        }
    }
}

impl Message for Answer {
    fn check_bounds(&self) -> Result<(), Malformed> {
        match self {
            Answer::Document(GuiResponse::Error { message }) => check_text(message, TEXT_BYTES_MAX),
            Answer::Document(_) | Answer::SurfaceCreated { .. } | Answer::DisplayLeased { .. } => Ok(()),
            Answer::Connectors(connectors) => {
                check_list(connectors, CONNECTORS_MAX)?;
                connectors.iter().try_for_each(check_connector)
            }
            Answer::Devices(devices) => {
                check_list(devices, DEVICES_MAX)?;
                devices.iter().try_for_each(check_device)
            }
            Answer::Description(description) => check_device_type(&description.device_type),
            Answer::GpuGranted(grant) => check_node(&grant.node),
        }
    }
}

impl Message for Event {
    fn check_bounds(&self) -> Result<(), Malformed> {
        match self {
            Event::ConnectorChanged(connector) => check_connector(connector),
            Event::DeviceAdded(device) => check_device(device),
            Event::GpuGranted(grant) => check_node(&grant.node),
            Event::Irrevocable { node, .. } => check_text(node, NAME_BYTES_MAX),
            _ => Ok(()),
        }
    }
}

fn check_connector(connector: &ConnectorInfo) -> Result<(), Malformed> {
    check_text(&connector.name, NAME_BYTES_MAX)?;
    check_list(&connector.modes, MODES_MAX)
}

fn check_device(device: &DeviceInfo) -> Result<(), Malformed> {
    check_text(&device.name, NAME_BYTES_MAX)
}

fn check_node(node: &RenderNode) -> Result<(), Malformed> {
    check_text(&node.name, NAME_BYTES_MAX)?;
    check_text(&node.card, NAME_BYTES_MAX)
}

fn check_device_type(device_type: &DeviceType) -> Result<(), Malformed> {
    check_list(&device_type.reasons, REASONS_MAX)
}

fn check_text(text: &str, bytes_max: usize) -> Result<(), Malformed> {
    if text.len() > bytes_max {
        return Err(Malformed::TextTooLong { bytes: text.len(), bytes_max });
    }
    Ok(())
}

fn check_list<T>(list: &[T], count_max: usize) -> Result<(), Malformed> {
    if list.len() > count_max {
        return Err(Malformed::ListTooLong { count: list.len(), count_max });
    }
    Ok(())
}

mod sealed {
    /// Keeps `Message` to this crate's three.
    pub trait Sealed {}
    impl Sealed for super::Request {}
    impl Sealed for super::Answer {}
    impl Sealed for super::Event {}
}

#[cfg(test)]
mod tests;
