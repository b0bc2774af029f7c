//! Whatever a hostile sender says of the parts that its messages name: a receiver reads nothing outside regions and releases nothing else.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| keyway_fuzz::segments::open(bytes));
