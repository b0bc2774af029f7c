//! Any bytes, as what a client of the seatd door sends: requests, or named, and never looked at beyond one message.

#![no_main]

use keyway_gui::seatd::{REQUEST_BYTES_MAX, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    // As a connection reads them: one after the other, until one is not whole or none.
    loop {
        match decode(rest) {
            Ok(Some((request, used))) => {
                assert!(used > 0 && used <= REQUEST_BYTES_MAX);
                assert_eq!(decode(&rest[..used]), Ok(Some((request, used))));
                assert_eq!(decode(&rest[..used - 1]), Ok(None));
                rest = &rest[used..];
            }
            Ok(None) => {
                assert!(rest.len() < REQUEST_BYTES_MAX);
                return;
            }
            Err(malformed) => {
                // No further byte makes it a request.
                let longer = [rest, &[0; 4]].concat();
                assert_eq!(decode(&longer), Err(malformed));
                return;
            }
        }
    }
});
