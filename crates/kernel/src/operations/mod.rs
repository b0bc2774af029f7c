//! The operations, one file a noun. Each is a check that changes nothing, then a commit that cannot fail.

mod acls;
mod answers;
mod capabilities;
mod devices;
mod directory;
mod doorbells;
mod escrow;
mod lanes;
mod listing;
mod queues;
mod regions;
mod sessions;
mod signals;
