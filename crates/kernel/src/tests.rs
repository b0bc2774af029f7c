//! What must happen and what must be refused, one rule at a time; the kernel is audited after each step.

extern crate std;

mod acls;
mod bad_input;
mod bounds;
mod capabilities;
mod charges;
mod crowds;
mod denials;
mod devices;
mod directory;
mod doorbells;
mod driver;
mod escrow;
mod expiry;
mod faults;
mod lanes;
mod limits;
mod log;
mod model;
mod refusals;
mod regions;
mod revocation;
mod rules;
mod sessions;
mod signals;
