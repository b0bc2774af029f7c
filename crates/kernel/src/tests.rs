//! What must happen and what must be refused, one rule at a time; the kernel is audited after each step.

extern crate std;

mod capabilities;
mod denials;
mod devices;
mod directory;
mod driver;
mod escrow;
mod faults;
mod lanes;
mod model;
mod refusals;
mod regions;
mod revocation;
mod sessions;
mod signals;
