//! A broker as a process of its own.

use std::path::Path;

use keyway_sys::{Error, kernel_support, process};

use crate::{
    identity::own_uid,
    policy::Policy,
    socket::{Listener, StartError},
    turn::Broker,
};

impl Broker {
    /// A broker with the built-in policy on the socket at `path`, or on the one that a service manager listens on for this process.
    ///
    /// # Errors
    /// [`StartError`] says what stands against it and what to do.
    pub fn bind(path: &Path) -> Result<Self, StartError> {
        kernel_support::check().map_err(StartError::LinuxLacks)?;
        let listener = match Listener::inherited()? {
            Some(listener) => listener,
            None => Listener::at(path)?,
        };
        Ok(Broker::new(Policy::for_user(own_uid()), Some(listener))?)
    }

    /// What a daemon does for its own safety, and an embedded broker leaves to its host: no core dumps and no tracing by
    /// others of its user, no new privileges, and all the descriptors that it may have.
    ///
    /// # Errors
    /// What Linux refuses.
    pub fn protect_process() -> Result<(), Error> {
        process::set_not_dumpable()?;
        process::set_no_new_privs()?;
        process::raise_descriptor_limit().map(drop)
    }
}
