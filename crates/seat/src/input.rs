//! A grant of a virtual input device: a pipe that speaks evdev.
//!
//! The holder reads `struct input_event`; once the grant ends, its descriptor is at its end. Nothing here waits: what a
//! pipe has no room for is lost, as it is on a keyboard that nobody reads.

use std::{
    io::{self, PipeReader, PipeWriter, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use keyway_sys::socket;

/// A grant, while this is kept.
#[derive(Debug)]
pub(crate) struct VirtualInput {
    writer: PipeWriter,
}

/// The longest text that is typed on a keyboard. LIMIT: each letter takes 96 bytes of a pipe, which holds 65536, and less for
/// a user with many pipes (pipe(7)).
pub(crate) const KEYS_MAX: usize = 256;
/// What a pipe that is ready takes without waiting: `PIPE_BUF`, see pipe(7).
const WRITE_BYTES_MAX: usize = 4096;

impl VirtualInput {
    /// A new grant, and the end that its holder reads.
    pub(crate) fn new() -> io::Result<(Self, PipeReader)> {
        let (reader, writer) = io::pipe()?;
        Ok((VirtualInput { writer }, reader))
    }

    /// Types a text: each key goes down and up.
    pub(crate) fn type_text(&mut self, text: &str) -> io::Result<()> {
        let mut bytes = Vec::new();
        for code in text.chars().take(KEYS_MAX).filter_map(key_code) {
            for value in [1, 0] {
                bytes.extend(event(EV_KEY, code, value));
                bytes.extend(event(EV_SYN, 0, 0));
            }
        }
        let whole = WRITE_BYTES_MAX - WRITE_BYTES_MAX % EVENT_BYTES;
        for part in bytes.chunks(whole) {
            if !socket::wait_writable(&self.writer, Some(Duration::ZERO)).map_err(io::Error::other)? {
                break;
            }
            self.writer.write_all(part)?;
        }
        Ok(())
    }
}

/// Bytes of `struct input_event` on 64-bit Linux.
const EVENT_BYTES: usize = 24;
const EV_SYN: u16 = 0;
const EV_KEY: u16 = 1;

/// The keys of `input-event-codes.h`, row by row from their first code.
const ROWS: [(u16, &str); 4] = [(2, "1234567890"), (16, "qwertyuiop"), (30, "asdfghjkl"), (44, "zxcvbnm")];
const KEY_ENTER: u16 = 28;
const KEY_SPACE: u16 = 57;

fn key_code(letter: char) -> Option<u16> {
    match letter {
        ' ' => return Some(KEY_SPACE),
        '\n' => return Some(KEY_ENTER),
        _ => {}
    }
    let letter = letter.to_ascii_lowercase();
    ROWS.iter().find_map(|(first, keys)| Some(first + keys.find(letter)? as u16))
}

/// One event, as evdev writes it.
fn event(kind: u16, code: u16, value: i32) -> [u8; EVENT_BYTES] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut bytes = [0; EVENT_BYTES];
    bytes[..8].copy_from_slice(&now.as_secs().to_ne_bytes());
    bytes[8..16].copy_from_slice(&u64::from(now.subsec_micros()).to_ne_bytes());
    bytes[16..18].copy_from_slice(&kind.to_ne_bytes());
    bytes[18..20].copy_from_slice(&code.to_ne_bytes());
    bytes[20..].copy_from_slice(&value.to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn letters_have_the_codes_of_linux() {
        let codes: Vec<_> = "hello 1\n".chars().map(key_code).collect();
        let expected = [35, 18, 38, 38, 24, 57, 2, 28].map(Some);
        assert_eq!(codes, expected);
        assert_eq!(key_code('é'), None);
    }

    #[test]
    fn typing_into_a_full_pipe_does_not_wait() {
        let (mut input, _reader) = VirtualInput::new().unwrap();
        while socket::wait_writable(&input.writer, Some(Duration::ZERO)).unwrap() {
            input.writer.write_all(&[0; WRITE_BYTES_MAX]).unwrap();
        }
        let (told, done) = std::sync::mpsc::channel();
        std::thread::spawn(move || told.send(input.type_text("abc").is_ok()));
        assert_eq!(done.recv_timeout(Duration::from_secs(10)), Ok(true));
    }

    #[test]
    fn a_grant_that_is_dropped_is_at_its_end_after_what_was_typed() {
        let (mut input, mut reader) = VirtualInput::new().unwrap();
        input.type_text(&"a".repeat(10_000)).unwrap();
        drop(input);
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), KEYS_MAX * 4 * 24);
        assert_eq!(bytes[18..20], 30_u16.to_ne_bytes());
    }
}
