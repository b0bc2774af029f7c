//! Sessions: what a compositor that has the seat from a door of its own asks, and what it is told.
//!
//! None of this travels by lanes: it is what the seatd protocol means, apart from its bytes ([`crate::seatd`]).

use serde::{Deserialize, Serialize};

use super::DeviceId;

/// A session's number: the lowest that no session has, from 1. People switch by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u32);

/// A graphics card's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CardId(pub u32);

/// What a session can open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SeatDevice {
    /// All screens of a card.
    Card(CardId),
    /// An input device.
    Input(DeviceId),
}

/// The number under which a session has something open, from 1. Never used again in the same session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpenNumber(pub i32);

/// What a client of this kind asks. It has one request under way at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionRequest {
    /// To have a session.
    OpenSeat,
    /// To have it no longer.
    CloseSeat,
    /// A descriptor of a device. What is open already is opened once more, under the same number.
    OpenDevice(SeatDevice),
    /// The end of one opening.
    CloseDevice(OpenNumber),
    /// It has paused, as it was told.
    PauseDone,
    /// To let another session have the seat.
    Switch(SessionId),
}

/// What it is answered, unless it is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionAnswer {
    /// It has a session.
    SeatOpened {
        /// Its number.
        session: SessionId,
    },
    /// It has none any more, and nothing open.
    SeatClosed,
    /// It is open; the descriptor goes with this.
    DeviceOpened {
        /// Under which number.
        number: OpenNumber,
        /// What it is.
        device: SeatDevice,
    },
    /// That opening has ended.
    DeviceClosed,
    /// Its pause is known.
    PauseNoted,
    /// The other session follows.
    Switching,
}

/// What it is told without having asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// Another is to have the seat: stop, and say so ([`SessionRequest::PauseDone`]) before the deadline.
    Pause,
    /// It has the seat. Cards go on as they were; input devices are to be opened anew.
    Resume,
}
