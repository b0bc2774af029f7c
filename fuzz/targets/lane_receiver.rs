//! Whatever a hostile sender stores between any calls of a receiver: it copies no more than a ring, and what is final stays.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| keyway_fuzz::lanes::receive(bytes));
