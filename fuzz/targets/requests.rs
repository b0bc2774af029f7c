//! Any sequence of what can happen to a kernel: after each step every invariant holds.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| keyway_fuzz::drive(bytes));
