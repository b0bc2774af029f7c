//! What the two programs of the test machine have in common: how they talk, and what they see in a picture.

#![forbid(unsafe_code)]

pub mod picture;
pub mod protocol;
