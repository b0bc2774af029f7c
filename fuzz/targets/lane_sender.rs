//! Whatever a hostile receiver acknowledges between any calls of a sender: it overwrites nothing that was not acknowledged.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| keyway_fuzz::lanes::send(bytes));
