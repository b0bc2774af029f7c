//! Confined children: processes that begin with an inherited socket and the capabilities that they were given, no more.

use std::{
    ffi::OsStr,
    os::fd::OwnedFd,
    process::{Child, Command},
};

use keyway_abi::{Badge, Handle, Rights, request};
use keyway_sys::confine::{self, Filter, ParentDeath};

use crate::{
    capability::Capability,
    client::{CAPABILITIES_VARIABLE, Client, SOCKET_VARIABLE},
    error::Error,
};

/// A child to be started confined: with `no_new_privs`, and a seccomp filter that refuses `socket`, `connect`, `ptrace`,
/// `io_uring` and their like, so that its capabilities are all that it has.
///
/// The child calls [`Client::connect`] and finds what it was given by [`Client::inherited`].
#[derive(Debug)]
pub struct Confined {
    command: Command,
    process: Capability,
    socket: OwnedFd,
    given: Vec<(String, Handle)>,
    filter: Filter,
    /// Further descriptors, and the variables that will name them.
    more: Vec<(String, OwnedFd)>,
}

impl Confined {
    /// Prepares a child that will run `program`.
    ///
    /// # Errors
    /// [`Error::Denied`] without the right `start`, or at a limit.
    pub fn new(client: &Client, program: impl AsRef<OsStr>) -> Result<Self, Error> {
        let process = client.control.start().own.unwrap_or(Handle::NONE);
        let (created, mut descriptors) = client.control.create(request::StartChild { process })?;
        let socket = descriptors.pop().ok_or(Error::BrokerIncoherent { operation: "StartChild" })?;
        Ok(Confined {
            command: Command::new(program),
            process: Capability::adopted(&client.control, created.handle, created.rights),
            socket,
            given: Vec::new(),
            filter: Filter::Full,
            more: Vec::new(),
        })
    }

    /// Arguments, environment and standard streams of the child.
    pub fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    /// Gives a capability, which the child finds under `name`.
    ///
    /// # Errors
    /// [`Error::Denied`]: rights only shrink, and need `grant`.
    pub fn give(
        &mut self,
        name: &str,
        capability: &Capability,
        rights: Rights,
        badge: Option<Badge>,
    ) -> Result<&mut Self, Error> {
        let handle = capability.grant(&self.process, rights, badge)?;
        self.given.push((name.into(), handle));
        Ok(self)
    }

    /// Looks a published queue up for the child, which finds it under that name. Its badge is the child's own.
    ///
    /// # Errors
    /// [`Error::Denied`].
    pub fn give_service(&mut self, name: &str) -> Result<&mut Self, Error> {
        let handle = self.process.lookup_for(name)?;
        self.given.push((name.into(), handle));
        Ok(self)
    }

    /// Leaves the seccomp filter out: confinement is then advice.
    pub fn without_filter(&mut self) -> &mut Self {
        self.filter = Filter::None;
        self
    }

    /// Lets the child inherit one more descriptor. The variable `variable` will say under which number.
    pub fn inherit(&mut self, variable: &str, fd: OwnedFd) -> &mut Self {
        self.more.push((variable.into(), fd));
        self
    }

    /// Starts the child.
    ///
    /// # Errors
    /// [`Error::Spawn`] when it cannot be started.
    pub fn spawn(self) -> Result<ConfinedChild, Error> {
        let Confined { mut command, process, socket, given, filter, more } = self;
        let (variables, descriptors): (Vec<String>, Vec<OwnedFd>) = more.into_iter().unzip();
        let inherit = std::iter::once(socket).chain(descriptors).collect();
        let numbers = confine::confine(&mut command, inherit, filter, ParentDeath::Outlive)?;
        let pairs = given.iter().map(|(name, handle)| format!("{name}={}", handle.raw()));
        command.env(CAPABILITIES_VARIABLE, pairs.collect::<Vec<_>>().join(";"));
        command.env_remove("KEYWAY_SOCKET");
        let variables = std::iter::once(SOCKET_VARIABLE).chain(variables.iter().map(String::as_str));
        for (variable, number) in variables.zip(&numbers) {
            command.env(variable, number.to_string());
        }
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().map_err(|error| Error::Spawn { program, error })?;
        Ok(ConfinedChild { process, child })
    }
}

/// A confined child that runs. Dropping this neither ends it nor waits for it.
#[derive(Debug)]
pub struct ConfinedChild {
    /// A capability to the process, with the rights `watch`, `endow` and `raise`.
    pub process: Capability,
    /// The child, to wait for.
    pub child: Child,
}
