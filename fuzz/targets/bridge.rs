//! Any sequence of what can happen to a bridge: requests of anybody in any order, deaths, hardware that answers or not.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| keyway_fuzz::bridge::drive(bytes));
