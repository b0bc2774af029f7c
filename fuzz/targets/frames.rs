//! Any bytes, as a frame in either direction: they decode or are named, and what decodes reads back as written.

#![no_main]

use keyway_wire::{Incoming, decode_incoming, decode_request, encode_event, encode_reply, encode_request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((descriptors, frame)) = bytes.split_first() else { return };
    let count = usize::from(*descriptors % 4);
    if let Ok((head, request)) = decode_request(frame, count) {
        let again = encode_request(head.number, &request, head.descriptors).expect("it came in a frame");
        let (_, read) = decode_request(&again, count).expect("what was written is lawful");
        assert_eq!(read, request);
    }
    let again = match decode_incoming(frame, count) {
        Ok(Incoming::Reply(number, reply)) => {
            let opcode = u16::from_le_bytes([frame[2], frame[3]]) & 0x3fff;
            encode_reply(opcode, number, &reply, count as u16)
        }
        Ok(Incoming::Event(event)) => encode_event(&event, count as u16),
        Err(_) => return,
    };
    let again = again.expect("it came in a frame");
    assert_eq!(decode_incoming(&again, count), decode_incoming(frame, count));
});
