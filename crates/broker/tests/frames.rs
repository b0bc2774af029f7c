//! What a hostile process can send to a broker, byte by byte, and what comes of it: its own session ends with a reason,
//! and nobody else notices.
//!
//! The processes here speak the protocol by hand, over real sockets. Each offender has a bystander whose session was
//! open before and goes on working after.

// All of this file is tests; clippy's leave for tests does not reach the functions that they share.
#![allow(clippy::unwrap_used)]

#[path = "frames/broken.rs"]
mod broken;
#[path = "frames/children.rs"]
mod children;
#[path = "frames/crowd.rs"]
mod crowd;
#[path = "frames/doorbells.rs"]
mod doorbells;
#[path = "frames/faults.rs"]
mod faults;
#[path = "frames/foreign.rs"]
mod foreign;
#[path = "frames/hostile.rs"]
mod hostile;
#[path = "frames/session.rs"]
mod session;
#[path = "frames/stress.rs"]
mod stress;

use std::path::PathBuf;

use keyway_abi::{Farewell, Fault};
use keyway_broker::Embedded;

use crate::{children::Part, session::Session};

/// Plays the other process when this file is started by one of its tests, and is nothing otherwise.
#[test]
fn the_other_process() {
    let Some(Part { role, argument, descriptor }) = children::part() else { return };
    match role.as_str() {
        "speak" => foreign::speak(descriptor),
        "greet" => foreign::greet(descriptor),
        "hurry" => foreign::hurry(descriptor, &argument),
        "deaf" => hostile::turn_deaf(descriptor, &argument),
        "few" => hostile::serve_few(&argument),
        "rampage" => stress::rampage(&argument),
        "hoard" => hostile::hoard(),
        "broker" => crowd::serve(argument.as_ref()),
        role => panic!("no such role: {role}"),
    }
    std::process::exit(0);
}

/// A broker of this test alone, with somebody on it who does nothing wrong.
struct Scene {
    bystander: Session,
    path: PathBuf,
    _broker: Embedded,
    _directory: tempfile::TempDir,
}

impl Scene {
    fn begin() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("broker.sock");
        let broker = Embedded::start_at(&path).unwrap();
        let bystander = Session::open(&path);
        Scene { bystander, path, _broker: broker, _directory: directory }
    }

    /// One more process, or this one once more.
    fn offender(&self) -> Session {
        Session::open(&self.path)
    }

    /// The offender is told this and no more, the bystander is served, and the broker has forgotten the offender.
    fn ends(&mut self, mut offender: Session, why: Farewell) {
        assert_eq!(offender.farewell(), why);
        self.bystander.is_served();
        assert_eq!(self.bystander.processes().len(), 1, "only the bystander is left");
    }

    fn ends_by_fault(&mut self, offender: Session, fault: Fault) {
        self.ends(offender, Farewell::Fault(fault));
    }
}
